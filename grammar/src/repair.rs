//! Mends the token stream before it is parsed.
//!
//! Some slips are easier to see in the tokens than in the grammar: a misspelt keyword, a brace that
//! is never closed, `and` for `&&`. Each gets its diagnostic here and the token that was meant takes
//! its place, so the parser reads on as if nothing had happened and no second error follows.

use crate::ast::Suffix;
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::span::{Sources, Span, Spanned};
use crate::suggest::nearest;
use crate::token::Token;
use crate::tree::{ITEMS, STATEMENTS};
use std::collections::{BTreeMap, BTreeSet};

mod slips;

/// How deep parentheses, braces, `!` and `else if` may nest.
const DEEPEST: u32 = 64;

/// Refuses tokens that nest deeper than the stages after parsing have stack for.
pub(crate) fn depth(tokens: &[Spanned<Token>]) -> Option<Diagnostic> {
    #[derive(Default)]
    struct Frame {
        bangs: u32,
        chain: u32,
        free: bool,
    }
    let mut frames = vec![Frame::default()];
    let mut depth = 0;
    let mut after_else = false;
    for token in tokens {
        let nested = frames.len() > 1;
        let Some(frame) = frames.last_mut() else { break };
        match token.node {
            Token::Bang => {
                frame.bangs += 1;
                depth += 1;
            }
            Token::LParen | Token::LBrace => {
                // The braces of a hook are free, so that it nests as deep with them as without.
                let free = !nested && token.node == Token::LBrace;
                depth += u32::from(!free);
                frames.push(Frame { free, ..Frame::default() });
            }
            Token::RParen | Token::RBrace if nested => {
                depth -= u32::from(!frame.free) + frame.bangs + frame.chain;
                frames.pop();
                if let Some(outer) = frames.last_mut() {
                    depth -= outer.bangs;
                    outer.bangs = 0;
                }
            }
            Token::If if after_else => {
                frame.chain += 1;
                depth += 1;
            }
            Token::If => {
                depth -= frame.chain + frame.bangs;
                *frame = Frame { free: frame.free, ..Frame::default() };
            }
            _ => {
                depth -= frame.bangs;
                frame.bangs = 0;
            }
        }
        if depth > DEEPEST {
            return Some(
                Diagnostic::new(
                    Code::TooDeep,
                    format!("nested more than {DEEPEST} levels deep"),
                    token.span,
                    "one level too many",
                )
                .help("move parts of it to `state` variables, or split the policy"),
            );
        }
        after_else = token.node == Token::Else;
    }
    None
}

/// What a brace encloses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Block,
    Target,
    Hook,
    /// A step of a test: its words are not those of a policy.
    Step,
}

struct Repair<'a> {
    sources: &'a Sources,
    tokens: Vec<Spanned<Token>>,
    out: Vec<Spanned<Token>>,
    open: Vec<(Place, Span)>,
    /// How many braces were closed before their time; theirs may still come.
    closed_early: usize,
    /// The word that began the top-level item being read.
    item: Option<Token>,
    /// Tokens that a slip leaves out.
    left_out: BTreeSet<usize>,
    /// Tokens that a slip adds before one.
    inserted: BTreeMap<usize, Vec<Token>>,
    diagnostics: Vec<Diagnostic>,
}

/// Mends what can be mended.
pub(crate) fn repair(
    sources: &Sources,
    tokens: Vec<Spanned<Token>>,
) -> (Vec<Spanned<Token>>, Vec<Diagnostic>) {
    let mut repair = Repair {
        sources,
        out: Vec::with_capacity(tokens.len()),
        tokens,
        open: Vec::new(),
        closed_early: 0,
        item: None,
        left_out: BTreeSet::new(),
        inserted: BTreeMap::new(),
        diagnostics: Vec::new(),
    };
    for index in 0..repair.tokens.len() {
        repair.insert(index);
        // What is left out is not looked at again, so that a line is read once.
        if !repair.left_out.contains(&index) {
            repair.slips(index);
        }
        if !repair.left_out.remove(&index) {
            repair.step(index);
        }
    }
    repair.insert(repair.tokens.len());
    repair.unfinished_guarantee();
    repair.close_all(None);
    (repair.out, repair.diagnostics)
}

/// Mends the tokens of an expression in a step of a test.
pub(crate) fn expression(
    sources: &Sources,
    tokens: Vec<Spanned<Token>>,
) -> (Vec<Spanned<Token>>, Vec<Diagnostic>) {
    let Some(first) = tokens.first().map(|t| t.span) else { return (tokens, Vec::new()) };
    let mut repair = Repair {
        sources,
        out: Vec::with_capacity(tokens.len()),
        tokens,
        open: vec![(Place::Step, first)],
        closed_early: 0,
        item: None,
        left_out: BTreeSet::new(),
        inserted: BTreeMap::new(),
        diagnostics: Vec::new(),
    };
    for index in 0..repair.tokens.len() {
        repair.step(index);
    }
    (repair.out, repair.diagnostics)
}

impl Repair<'_> {
    /// Adds what a slip adds before a token.
    fn insert(&mut self, index: usize) {
        let end = self.out.last().map(|t| t.span.after());
        let (Some(tokens), Some(end)) = (self.inserted.remove(&index), end) else { return };
        self.out.extend(tokens.into_iter().map(|token| Spanned::new(token, end)));
    }

    fn step(&mut self, index: usize) {
        if matches!(self.tokens.get(index), Some(t) if matches!(t.node, Token::Ident(_))) {
            let span = self.tokens.get(index).map(|t| t.span);
            span.into_iter().for_each(|span| self.failure(index, span));
        }
        let Some(Spanned { node, span }) = self.tokens.get(index).cloned() else { return };
        let next = self.tokens.get(index + 1).cloned();
        let token = match node {
            _ if self.after_dot() => as_name(node),
            // A policy may be named after a unit.
            _ if is_unit(&node) && self.last() == Some(&Token::Policy) => as_name(node),
            Token::Ident(name) => match self.name(&name, span, next.as_ref()) {
                Some(token) => token,
                None => return,
            },
            other => other,
        };
        let token = match token {
            Token::On
                if self.in_guarantee()
                    && (!self.first_on_line(span) || self.continues_guarantee(index)) =>
            {
                Token::OnFailure
            }
            other => other,
        };
        if begins_item(&token) && self.first_on_line(span) && self.item_may_begin() {
            self.unfinished_guarantee();
            if !self.open.is_empty() {
                self.close_all(Some(span));
            }
            self.item = Some(token.clone());
        } else if self.open.is_empty() && (begins_item(&token) || token == Token::OnFailure) {
            self.item = Some(token.clone());
        }
        if token == Token::LBrace {
            let place = match self.open.last() {
                None if self.item == Some(Token::Target) => Place::Target,
                Some((Place::Target, _)) => Place::Hook,
                _ => Place::Block,
            };
            self.open.push((place, span));
        } else if token == Token::RBrace && self.open.pop().is_none() {
            if self.closed_early > 0 {
                self.closed_early -= 1;
                return;
            }
            self.diagnostics.push(
                Diagnostic::new(
                    Code::Unexpected,
                    "unmatched `}`",
                    span,
                    "there is no open `{` here",
                )
                .help("remove it, or look for an extra `}` above"),
            );
            return;
        }
        self.out.push(Spanned::new(token, span));
    }

    /// What a name is meant to be; nothing if it is a word too many.
    fn name(&mut self, name: &str, span: Span, next: Option<&Spanned<Token>>) -> Option<Token> {
        let same = Some(Token::Ident(name.to_owned()));
        let follows = next.map(|t| &t.node);
        if matches!(follows, Some(Token::Assign | Token::Dot | Token::Colon)) {
            return same;
        }
        if let Some(unit) = singular(name)
            && matches!(self.last(), Some(Token::Number(_)))
            && !self.first_on_line(span)
        {
            return Some(unit);
        }
        if follows == Some(&Token::EqEq) {
            return same;
        }
        if self.spaced_suffix(name, span) {
            return None;
        }
        let operand = self.last().is_some_and(ends_operand);
        // A word has to do with the one after it only if that is on its line.
        let before_operand = next.is_some_and(|t| {
            let between = Span { start: span.end, end: t.span.start, ..span };
            begins_operand(&t.node) && !self.sources.slice(between).contains('\n')
        });
        match name {
            "and" | "AND" if operand && before_operand => {
                self.slip(span, name, "&&");
                return Some(Token::AndAnd);
            }
            "or" | "OR" if operand && before_operand => {
                self.slip(span, name, "||");
                return Some(Token::OrOr);
            }
            "not" | "NOT" if !operand && before_operand => {
                self.slip(span, name, "!");
                return Some(Token::Bang);
            }
            "then" | "do" if operand && self.condition_on_line() => {
                self.diagnostics.push(
                    Diagnostic::new(
                        Code::Unexpected,
                        format!("unexpected `{name}` after the condition of an `if`"),
                        span,
                        "not needed",
                    )
                    .help("write `if condition statement` or `if condition { … }`")
                    .fix(span, ""),
                );
                return None;
            }
            "elif" | "elsif" | "elseif" if before_operand => {
                self.diagnostics.push(
                    Diagnostic::new(
                        Code::Unexpected,
                        format!("there is no `{name}`"),
                        span,
                        "not a keyword",
                    )
                    .help("write `else if`")
                    .fix(span, "else if"),
                );
                self.out.push(Spanned::new(Token::Else, span));
                return Some(Token::If);
            }
            _ => {}
        }
        if self.at_start(span)
            && let Some(meant) = self.misspelt(name)
        {
            self.diagnostics.push(
                Diagnostic::new(
                    Code::Unexpected,
                    format!("`{}` is not {}", crate::lexer::shorten(name), self.wanted()),
                    span,
                    "unknown keyword",
                )
                .help(format!("did you mean `{meant}`?"))
                .perhaps(span, meant),
            );
            return Token::word(meant);
        }
        same
    }

    /// `5 ms`: a suffix behind a space. Gives it to the number.
    fn spaced_suffix(&mut self, name: &str, span: Span) -> bool {
        if self.first_on_line(span) {
            return false;
        }
        // A single letter could well be a name.
        let meant = match crate::lexer::suffix_meant(&name.to_ascii_lowercase()) {
            Some(meant) if name.len() > 1 => meant,
            _ => name,
        };
        let Some(suffix) = Suffix::ALL.into_iter().find(|s| s.text() == meant) else {
            return false;
        };
        let Some(Spanned { node: Token::Number(number), span: at }) = self.out.last_mut() else {
            return false;
        };
        if number.unit.is_some() {
            return false;
        }
        number.unit = Some(suffix);
        let whole = at.to(span);
        *at = whole;
        let help = format!("write `{}{meant}`", number.value);
        let mended = format!("{}{meant}", number.value);
        self.diagnostics.push(
            Diagnostic::new(
                Code::BadSuffix,
                "unexpected space between a number and its unit suffix",
                whole,
                "remove the space",
            )
            .help(help)
            .fix(whole, mended),
        );
        true
    }

    fn slip(&mut self, span: Span, written: &str, meant: &str) {
        self.diagnostics.push(
            Diagnostic::new(
                Code::Unexpected,
                format!("there is no `{written}` operator; use `{meant}`"),
                span,
                "not an operator",
            )
            .help(format!("write `{meant}`"))
            .fix(span, meant),
        );
    }

    /// The keyword that a word at the start of something is a misspelling of.
    fn misspelt(&self, name: &str) -> Option<&'static str> {
        match self.open.last() {
            Some((Place::Block, _)) => nearest(name, STATEMENTS),
            Some((Place::Target, _)) => nearest(name, ["hook", "files", "except", "engine"]),
            Some((Place::Hook, _)) => nearest(name, ["entry", "may"]),
            Some((Place::Step, _)) => None,
            None if self.item == Some(Token::On) => {
                nearest(name, STATEMENTS.into_iter().chain(ITEMS))
            }
            None => nearest(name, ITEMS),
        }
    }

    /// What belongs at the next token.
    fn wanted(&self) -> &'static str {
        match self.open.last() {
            Some((Place::Block, _)) => "a statement",
            Some((Place::Target, _)) => "a part of a target",
            Some((Place::Hook, _)) => "a part of a hook",
            Some((Place::Step, _)) => "a step",
            None if self.item == Some(Token::On) && self.last() == Some(&Token::Colon) => {
                "a statement"
            }
            None if self.item == Some(Token::On) => "a statement or an item",
            None => "an item",
        }
    }

    /// Whether something new begins at a token.
    fn at_start(&self, span: Span) -> bool {
        match self.last() {
            None | Some(Token::Semicolon | Token::LBrace | Token::RBrace) => true,
            Some(Token::Colon) => {
                let mut before = self.out.iter().rev().skip(1).map(|t| &t.node);
                let hook = before.next();
                before.next() == Some(&Token::On) && hook != Some(&Token::Ident("error".to_owned()))
            }
            // A list of strings ends where no comma follows.
            Some(Token::Str(_)) => true,
            Some(last) => self.first_on_line(span) && ends_something(last),
        }
    }

    fn item_may_begin(&self) -> bool {
        // `may pass,` goes on in the next line, and `flush` is a word there.
        !matches!(self.last(), Some(Token::Comma | Token::May | Token::Dot))
    }

    /// Closes every open brace, before the item at `here` or at the end of the file.
    fn close_all(&mut self, here: Option<Span>) {
        let Some((_, outer)) = self.open.first().copied() else { return };
        let diagnostic = Diagnostic::new(Code::Unexpected, "unclosed `{`", outer, "opened here")
            .help("add the missing `}`");
        self.diagnostics.push(match here {
            Some(span) => diagnostic.also(span, "a new item begins here"),
            None => diagnostic,
        });
        let end = self.out.last().map_or(outer, |t| t.span).after();
        self.closed_early += self.open.len();
        for _ in self.open.drain(..) {
            self.out.push(Spanned::new(Token::RBrace, end));
        }
    }

    fn last(&self) -> Option<&Token> {
        self.out.last().map(|t| &t.node)
    }

    fn after_dot(&self) -> bool {
        self.last() == Some(&Token::Dot)
    }

    fn in_guarantee(&self) -> bool {
        self.open.is_empty() && self.item == Some(Token::Guarantee)
    }

    fn first_on_line(&self, span: Span) -> bool {
        self.out.last().is_none_or(|last| {
            let between = Span::new(span.file, last.span.end, span.start);
            self.sources.slice(between).contains('\n')
        })
    }

    /// Whether an `if` or `unless` precedes this on the same line.
    fn condition_on_line(&self) -> bool {
        self.out
            .iter()
            .rev()
            .map(|t| &t.node)
            .take(64)
            .take_while(|t| !matches!(t, Token::Semicolon | Token::LBrace | Token::RBrace))
            .any(|t| matches!(t, Token::If | Token::Unless))
    }
}

/// A reserved word where only a name can be.
fn as_name(token: Token) -> Token {
    match token.text() {
        Some(text) if token.is_word() => Token::Ident(text.to_owned()),
        _ => token,
    }
}

fn is_unit(token: &Token) -> bool {
    matches!(token, Token::Syncs | Token::Writes | Token::Updates | Token::Bytes | Token::Calls)
}

/// `1 sync`
fn singular(name: &str) -> Option<Token> {
    match name {
        "sync" => Some(Token::Syncs),
        "write" => Some(Token::Writes),
        "update" => Some(Token::Updates),
        "byte" => Some(Token::Bytes),
        "call" => Some(Token::Calls),
        _ => None,
    }
}

pub(crate) fn begins_item(token: &Token) -> bool {
    matches!(
        token,
        Token::Policy
            | Token::Target
            | Token::Guarantee
            | Token::Assume
            | Token::Param
            | Token::State
            | Token::On
            | Token::Flush
            | Token::Use
            | Token::Test
    )
}

fn begins_operand(token: &Token) -> bool {
    matches!(
        token,
        Token::Ident(_)
            | Token::Number(_)
            | Token::True
            | Token::False
            | Token::LParen
            | Token::Bang
    )
}

fn ends_operand(token: &Token) -> bool {
    matches!(
        token,
        Token::Ident(_)
            | Token::Number(_)
            | Token::True
            | Token::False
            | Token::RParen
            | Token::Syncs
            | Token::Writes
            | Token::Updates
            | Token::Bytes
            | Token::Calls
    )
}

/// Whether a statement or item can end with the token.
fn ends_something(token: &Token) -> bool {
    ends_operand(token)
        || matches!(
            token,
            Token::Error(_)
                | Token::Pass
                | Token::Defer
                | Token::Skip
                | Token::Stage
                | Token::Commit
                | Token::Test
        )
}
