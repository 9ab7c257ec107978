//! What people write first who know another language: each slip gets one finding with its correction, and
//! the tokens that were meant, so that nothing after it is reported.
//!
//! Looks at tokens that have not been read yet, changes them in place or marks them as left out.

use super::{Place, Repair};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::span::{Span, Spanned};
use crate::token::Token;

/// Words that declare something elsewhere.
const DECLARE: [&str; 9] =
    ["let", "var", "const", "local", "int", "my", "define", "static", "variable"];
/// Words that begin a function or a probe elsewhere.
const HANDLE: [&str; 10] =
    ["when", "fn", "func", "function", "def", "upon", "before", "after", "event", "rule"];
/// The hooks that a handler can be meant for.
const HOOKS: [&str; 5] = ["write", "fsync", "fdatasync", "reply", "turn"];
/// What updates are called elsewhere.
const UPDATES: [&str; 18] = [
    "command",
    "commands",
    "record",
    "records",
    "op",
    "ops",
    "operations",
    "request",
    "requests",
    "query",
    "queries",
    "transaction",
    "transactions",
    "entries",
    "keys",
    "rows",
    "statements",
    "messages",
];
/// What syncs are called elsewhere.
const SYNCS: [&str; 6] = ["fsync", "fsyncs", "fdatasyncs", "flushes", "commits", "barriers"];
/// Words before a time elsewhere.
const BEFORE_TIME: [&str; 8] = ["after", "in", "by", "for", "at", "until", "within", "every"];

impl Repair<'_> {
    /// Mends a slip that begins at a token.
    pub(super) fn slips(&mut self, index: usize) {
        let Some(Spanned { node, span }) = self.tokens.get(index).cloned() else { return };
        if self.after_dot() {
            return;
        }
        if self.open.is_empty() && self.at_start(span) {
            self.item_slips(index, &node, span);
        }
        match node {
            Token::On if self.open.is_empty() => {
                self.hook_parentheses(index, false);
            }
            Token::Flush => self.flush(index, span),
            Token::Pass | Token::Defer | Token::Skip | Token::Stage | Token::Commit => {
                self.verdict(index, &node);
            }
            Token::Await => self.awaited(index, span),
            Token::Hold => self.hold(index, span),
            Token::Colon => self.colon(index, span),
            Token::Semicolon if matches!(self.peek(index + 1), Some(Token::Else)) => {
                self.without(
                    index,
                    "unexpected `;` before `else`",
                    span,
                    "ends the `if` too early",
                    "remove the `;`",
                );
            }
            Token::Ident(ref word) if word == "return" => self.returned(index, span),
            Token::Ident(ref word) => self.unit(index, word, span),
            Token::Records => self.unit(index, "records", span),
            _ => {}
        }
    }

    fn peek(&self, index: usize) -> Option<&Token> {
        self.tokens.get(index).map(|t| &t.node)
    }

    fn place(&self, index: usize) -> Option<Span> {
        self.tokens.get(index).map(|t| t.span)
    }

    /// Whether a token is on the line of the one before it.
    fn same_line(&self, index: usize) -> bool {
        let before = index.checked_sub(1).and_then(|i| self.tokens.get(i));
        match (before, self.tokens.get(index)) {
            (Some(a), Some(b)) => {
                let between = Span { start: a.span.end, end: b.span.start, ..a.span };
                !self.sources.slice(between).contains('\n')
            }
            _ => false,
        }
    }

    fn found(&mut self, message: impl Into<String>, span: Span, label: &str) -> &mut Diagnostic {
        let index = self.diagnostics.len();
        self.diagnostics.push(Diagnostic::new(Code::Unexpected, message, span, label));
        #[expect(clippy::indexing_slicing, reason = "it has just been put there")]
        &mut self.diagnostics[index]
    }

    /// Leaves a token out.
    fn without(&mut self, index: usize, message: &str, span: Span, label: &str, help: &str) {
        let found = self.found(message, span, label);
        *found = found.clone().help(help).fix(span, "");
        self.left_out.insert(index);
    }

    fn replace(&mut self, index: usize, token: Token) {
        if let Some(place) = self.tokens.get_mut(index) {
            place.node = token;
        }
    }

    /// Leaves out what follows on the line, from `index` on; gives what it was.
    fn rest_of_line(&mut self, index: usize) -> Option<Span> {
        let mut whole = self.place(index)?;
        self.left_out.insert(index);
        let mut at = index + 1;
        while self.same_line(at)
            && let Some(span) = self.place(at)
        {
            whole = whole.to(span);
            self.left_out.insert(at);
            at += 1;
        }
        Some(whole)
    }

    fn item_slips(&mut self, index: usize, node: &Token, span: Span) {
        match node {
            Token::Ident(word) => {
                let follows = matches!(self.peek(index + 1), Some(Token::Ident(_)))
                    && self.same_line(index + 1);
                if DECLARE.contains(&word.as_str()) && follows {
                    self.declares(index, word, span);
                    return;
                }
                let hook = self.sliced(index + 1);
                if HANDLE.contains(&word.as_str()) && HOOKS.contains(&hook.as_str()) {
                    let end = self.hook_parentheses(index, true).or(self.place(index + 1));
                    let whole = end.map_or(span, |end| span.to(end));
                    let found =
                        self.found(format!("`{word}` is not an item"), span, "not a keyword");
                    *found = found
                        .clone()
                        .help(format!("write `on {hook}: …` or `on {hook} {{ … }}`"))
                        .fix(whole, format!("on {hook}"));
                    self.replace(index, Token::On);
                }
            }
            Token::Hook => {
                let hook = self.sliced(index + 1);
                if HOOKS.contains(&hook.as_str())
                    && matches!(self.peek(index + 2), Some(Token::LBrace | Token::Colon))
                {
                    let found =
                        self.found("`hook` defines a hook of a target", span, "not in a policy");
                    *found =
                        found.clone().help(format!("write `on {hook} {{ … }}`")).fix(span, "on");
                    self.replace(index, Token::On);
                }
            }
            _ if super::begins_item(node) && self.peek(index + 1) == Some(&Token::Colon) => {
                let Some(colon) = self.place(index + 1) else { return };
                let message = format!("unexpected `:` after `{node}`");
                self.without(index + 1, &message, colon, "not needed", "remove the `:`");
                self.named_item(index + 1, node);
            }
            _ => self.named_item(index, node),
        }
    }

    fn sliced(&self, index: usize) -> String {
        self.place(index).map(|s| self.sources.slice(s).to_owned()).unwrap_or_default()
    }

    /// `policy "a"`, `policy a-b`, `policy a {`, `target "a.b"`, `target /a/b`, `param syncs n`; the word of
    /// the item is the token at `index`, or before it.
    fn named_item(&mut self, index: usize, item: &Token) {
        let next = self.peek(index + 1).cloned();
        let Some(span) = self.place(index + 1) else { return };
        match (item, next) {
            (Token::Policy | Token::Target, Some(Token::Str(text))) => {
                let what = if *item == Token::Policy { "policy" } else { "target" };
                let found = self.found(
                    format!("the name of a {what} is written without quotes"),
                    span,
                    "a string",
                );
                let named = found.clone().help(format!("write `{what} {text}`"));
                *found = if is_path_of_names(&text) { named.fix(span, text) } else { named };
                self.rest_of_line(index);
            }
            (Token::Policy, Some(Token::Ident(_))) => {
                self.dashes(index + 1);
                self.braces(index + 1);
            }
            (Token::Target, Some(Token::Slash)) => {
                let Some(whole) = self.rest_of_line(index) else { return };
                let path = whole.to(whole.after());
                let found = self.found("a target is not a path", path, "names a file");
                *found = found.clone().help(
                    "write `target redis.aof`; `durac list targets` shows the targets, and \
                     `files` in a target of your own names files",
                );
            }
            (Token::Param | Token::State, Some(unit)) if super::is_unit(&unit) => {
                let Some(Token::Ident(name)) = self.peek(index + 2).cloned() else { return };
                let Some(at) = self.place(index + 2) else { return };
                let found = self.found("the type follows the name", span, "a type");
                *found = found
                    .clone()
                    .help(format!("write `{item} {name}: {unit} = …`"))
                    .fix(span.to(at), format!("{name}: {unit}"));
                self.replace(index + 1, Token::Ident(name));
                self.replace(index + 2, Token::Colon);
                self.inserted.insert(index + 3, vec![unit]);
            }
            _ => {}
        }
    }

    /// `policy my-window`
    fn dashes(&mut self, name: usize) {
        let touching = |s: &Self, at: usize| matches!((s.place(at - 1), s.place(at)), (Some(a), Some(b)) if a.end == b.start);
        let mut end = name;
        while self.peek(end + 1) == Some(&Token::Minus)
            && touching(self, end + 1)
            && touching(self, end + 2)
        {
            end += 2;
        }
        let (Some(first), Some(last)) = (self.place(name), self.place(end)) else { return };
        if end == name {
            return;
        }
        let whole = first.to(last);
        let meant = self.sources.slice(whole).replace('-', "_");
        let found = self.found("a name has no `-`", whole, "not a name");
        *found = found.clone().help(format!("write `{meant}`")).fix(whole, meant.clone());
        self.replace(name, Token::Ident(meant));
        self.left_out.extend(name + 1..=end);
    }

    /// `policy window { … }`
    fn braces(&mut self, name: usize) {
        let brace = name + 1;
        if self.peek(brace) != Some(&Token::LBrace) {
            return;
        }
        let Some(span) = self.place(brace) else { return };
        let found = self.found("a policy has no braces", span, "not needed");
        *found = found
            .clone()
            .help("remove this `{` and its `}`: a file holds one policy, and its items follow");
        self.left_out.insert(brace);
        self.closed_early += 1;
    }

    /// `let n = 64`
    fn declares(&mut self, index: usize, word: &str, span: Span) {
        let name = self.sliced(index + 1);
        let found = self.found(format!("there is no `{word}`"), span, "not a keyword");
        *found = found.clone().help(format!(
            "for a value that is set from outside, write `param {name}: syncs = 64 in 1..=4096`; for one that \
             the policy changes, `state {name}: count = 0`"
        ));
        self.replace(index, Token::State);
    }

    /// `on fdatasync(fd) {`; where a finding about the hook has been made, without another.
    fn hook_parentheses(&mut self, on: usize, reported: bool) -> Option<Span> {
        let open = on + 2;
        if self.peek(open) != Some(&Token::LParen) {
            return None;
        }
        let mut close = open;
        while self.same_line(close + 1) && self.peek(close) != Some(&Token::RParen) {
            close += 1;
        }
        let whole = self.place(open)?.to(self.place(close)?);
        self.left_out.extend(open..=close);
        if reported {
            return Some(whole);
        }
        let hook = self.sliced(on + 1);
        let found = self.found("a hook is written without parameters", whole, "not needed");
        *found = found.clone().help(format!("write `on {hook} {{ … }}`")).fix(whole, "");
        Some(whole)
    }

    /// `flush every 50ms`, `flush 50ms`; `flush within 50ms` in a hook.
    fn flush(&mut self, index: usize, span: Span) {
        let in_block = matches!(self.open.last(), Some((Place::Block, _)));
        if in_block {
            let Some(whole) = self.rest_of_statement(index) else { return };
            let time = if whole == span { "flush within 1s" } else { self.sources.slice(whole) };
            let help = format!("write `{time}` in a line of its own, outside of the hook");
            let found =
                self.found("`flush within` does not belong in a hook", whole, "not a statement");
            *found = found.clone().help(help);
            return;
        }
        let next = self.peek(index + 1).cloned();
        let Some(at) = self.place(index + 1).filter(|_| self.same_line(index + 1)) else { return };
        match next {
            Some(Token::Number(_)) => {
                let number = self.sliced(index + 1);
                let found = self.found("`flush` needs `within`", at, "a time without `within`");
                let help = format!("write `flush within {number}`");
                let before = Span { end: at.start, ..at };
                *found = found.clone().help(help).fix(before, "within ");
                self.inserted.insert(index + 1, vec![Token::Within]);
            }
            Some(token) if token != Token::Within && self.is_number(index + 2) => {
                let number = self.sliced(index + 2);
                let shown = self.sliced(index + 1);
                let found =
                    self.found(format!("`flush {shown}` is not an item"), at, "expected `within`");
                *found =
                    found.clone().help(format!("write `flush within {number}`")).fix(at, "within");
                self.replace(index + 1, Token::Within);
            }
            _ => {}
        }
    }

    fn is_number(&self, index: usize) -> bool {
        matches!(self.peek(index), Some(Token::Number(_)))
    }

    /// Leaves out a statement and the `;` after it; gives what it was.
    fn rest_of_statement(&mut self, index: usize) -> Option<Span> {
        let mut whole = self.place(index)?;
        self.left_out.insert(index);
        let mut at = index + 1;
        while self.same_line(at) {
            match self.peek(at) {
                Some(Token::RBrace) | None => break,
                Some(Token::Semicolon) => {
                    self.left_out.insert(at);
                    break;
                }
                Some(_) => {
                    whole = whole.to(self.place(at)?);
                    self.left_out.insert(at);
                    at += 1;
                }
            }
        }
        Some(whole)
    }

    /// `defer()`, `defer 50ms`, `defer for 50ms`
    fn verdict(&mut self, index: usize, node: &Token) {
        if matches!(self.last(), Some(Token::May | Token::Comma)) {
            return;
        }
        let (first, second) = (self.place(index + 1), self.place(index + 2));
        if self.peek(index + 1) == Some(&Token::LParen)
            && self.peek(index + 2) == Some(&Token::RParen)
            && let (Some(first), Some(second)) = (first, second)
        {
            let whole = first.to(second);
            let found =
                self.found(format!("`{node}` is written without parentheses"), whole, "not needed");
            *found = found.clone().help(format!("write `{node}`")).fix(whole, "");
            self.left_out.extend([index + 1, index + 2]);
            return;
        }
        if *node != Token::Defer || !self.same_line(index + 1) {
            return;
        }
        let before = BEFORE_TIME.contains(&self.sliced(index + 1).as_str());
        let at = if before { index + 2 } else { index + 1 };
        let (Some(first), Some(last), true) = (first, self.place(at), self.is_number(at)) else {
            return;
        };
        let number = self.sliced(at);
        let found = self.found("`defer` takes no time", first.to(last), "not expected here");
        *found = found
            .clone()
            .help(format!("write `defer`, and `flush within {number}` in a line of its own"));
        self.left_out.extend(index + 1..=at);
    }

    /// `await`, `await until pending < 10`
    fn awaited(&mut self, index: usize, span: Span) {
        if matches!(self.last(), Some(Token::May | Token::Comma)) {
            return;
        }
        let next = self.peek(index + 1).cloned();
        let at = self.place(index + 1);
        let ends = !self.same_line(index + 1)
            || matches!(next, None | Some(Token::Semicolon | Token::RBrace));
        // A target's `may` ends with a line, too.
        if ends && !matches!(self.open.last(), Some((Place::Hook, _))) {
            let found = self.found("`await` needs what to wait for", span, "waits for nothing");
            *found = found.clone().help(
                "write `await previous`, `await all`, or `await pending < 16` to wait until fewer syncs are pending",
            );
            self.inserted.insert(index + 1, vec![Token::Ident("previous".to_owned())]);
            return;
        }
        let word = match &next {
            Some(Token::Until) => "until",
            Some(Token::Ident(word)) if word == "for" || word == "while" || word == "until" => word,
            _ => return,
        };
        let (Some(at), true) = (at, self.peek(index + 2).is_some_and(super::begins_operand)) else {
            return;
        };
        let message = format!("unexpected `{word}` after `await`");
        let help = format!("remove `{word}`");
        self.without(index + 1, &message, at, "not needed", &help);
    }

    /// `hold`
    fn hold(&mut self, index: usize, span: Span) {
        let inside = matches!(self.last(), Some(Token::May | Token::Comma));
        // Here a name is missing, and the grammar says that the word is a keyword.
        let named = matches!(self.last(), Some(Token::Policy | Token::Target | Token::Dot));
        let next = self.peek(index + 1);
        let ends = !self.same_line(index + 1)
            || matches!(next, None | Some(Token::Semicolon | Token::RBrace | Token::Else));
        if inside || named || !ends || matches!(self.open.last(), Some((Place::Hook, _))) {
            return;
        }
        let found =
            self.found("`hold` needs until when", span, "expected `until durable` after it");
        *found =
            found.clone().help("write `hold until durable`").fix(span.after(), " until durable");
        let durable = Token::Ident("durable".to_owned());
        self.inserted.insert(index + 1, vec![Token::Until, durable]);
    }

    /// `if a: b`, `else: b`
    fn colon(&mut self, index: usize, span: Span) {
        let after_else = self.last() == Some(&Token::Else);
        let assigns = self.peek(index + 1) == Some(&Token::Assign);
        if after_else || (self.condition_before() && !assigns) {
            let word = if after_else { "`else`" } else { "a condition" };
            self.without(
                index,
                &format!("unexpected `:` after {word}"),
                span,
                "not needed",
                "remove the `:`: write `if condition statement` or `if condition { … }`",
            );
        }
    }

    /// Whether the line so far ends in `if condition`.
    fn condition_before(&self) -> bool {
        let mut after: Option<Span> = None;
        for token in self.out.iter().rev().take(64) {
            if let Some(after) = after {
                let between = Span { start: token.span.end, end: after.start, ..after };
                if self.sources.slice(between).contains('\n') {
                    return false;
                }
            }
            match token.node {
                Token::If | Token::Unless => return after.is_some(),
                Token::Semicolon | Token::LBrace | Token::RBrace | Token::On => return false,
                _ => {}
            }
            after = Some(token.span);
        }
        false
    }

    /// `return defer`
    fn returned(&mut self, index: usize, span: Span) {
        let Some(verdict) = self.peek(index + 1).filter(|_| self.same_line(index + 1)) else {
            return;
        };
        if !matches!(
            verdict,
            Token::Pass | Token::Defer | Token::Skip | Token::Stage | Token::Fail | Token::Hold
        ) {
            return;
        }
        let help = format!("write `{verdict}`: a verdict ends the call");
        let to = self.place(index + 1).map_or(span.end, |next| next.start);
        let found = self.found("there is no `return`", span, "not needed");
        *found = found.clone().help(help).fix(Span { end: to, ..span }, "");
        self.left_out.insert(index);
    }

    /// `100 commands`
    fn unit(&mut self, index: usize, word: &str, span: Span) {
        let counted = matches!(self.last(), Some(Token::Number(n)) if n.unit.is_none())
            || (self.in_guarantee() && matches!(self.last(), Some(Token::Ident(_))));
        if !counted || self.first_on_line(span) {
            return;
        }
        let (unit, meaning) = if UPDATES.contains(&word) {
            (Token::Updates, "records of the log, one for each command that changes something")
        } else if SYNCS.contains(&word) {
            (Token::Syncs, "acknowledged sync calls")
        } else {
            return;
        };
        let found = self.found(format!("`{word}` is not a unit"), span, "unknown unit");
        *found =
            found.clone().help(format!("write `{unit}`: {meaning}")).fix(span, unit.to_string());
        self.replace(index, unit);
    }

    /// A guarantee that ends without its failure, before the item at `index` or at the end of the file.
    pub(super) fn unfinished_guarantee(&mut self) {
        if !self.in_guarantee() || !self.last().is_some_and(super::ends_operand) {
            return;
        }
        let mut compared = false;
        for token in self.out.iter().rev() {
            match token.node {
                Token::OnFailure => return,
                Token::LessEq | Token::Less | Token::Assign | Token::EqEq => compared = true,
                Token::Guarantee => break,
                _ => {}
            }
        }
        if compared {
            self.on_power_loss();
        }
    }

    fn on_power_loss(&mut self) {
        let Some(end) = self.out.last().map(|t| t.span.after()) else { return };
        let found = self.found(
            "the guarantee does not say of which failure",
            end,
            "expected `on power_loss`",
        );
        *found = found
            .clone()
            .help("add `on power_loss` or `on process_crash`")
            .perhaps(end, " on power_loss");
        self.out.push(Spanned::new(Token::OnFailure, end));
        self.out.push(Spanned::new(Token::Ident("power_loss".to_owned()), end));
    }

    /// Whether the `on` at `index` that begins a line names the failure of the guarantee before it.
    pub(super) fn continues_guarantee(&self, index: usize) -> bool {
        self.in_guarantee()
            && !matches!(self.peek(index + 2), Some(Token::Colon | Token::LBrace | Token::LParen))
            && matches!(self.peek(index + 1), Some(Token::Ident(name)) if !HOOKS.contains(&name.as_str()))
    }

    /// `power loss`, and a failure without its `on`.
    pub(super) fn failure(&mut self, index: usize, span: Span) {
        let word = self.sliced(index);
        if self.last() != Some(&Token::OnFailure) {
            if self.in_guarantee()
                && (word == "power_loss" || word == "process_crash")
                && self.last().is_some_and(super::ends_operand)
            {
                let found = self.found(
                    format!("`on` is missing before `{word}`"),
                    span,
                    "not expected here",
                );
                let before = Span { end: span.start, ..span };
                *found = found.clone().help(format!("write `on {word}`")).fix(before, "on ");
                self.out.push(Spanned::new(Token::OnFailure, before));
            }
            return;
        }
        let dash = usize::from(self.peek(index + 1) == Some(&Token::Minus));
        let end = index + 1 + dash;
        let second = self.sliced(end);
        let meant = match (word.as_str(), second.as_str()) {
            ("power", "loss" | "failure" | "fail" | "cut" | "outage" | "off") => "power_loss",
            ("process" | "application", "crash" | "kill" | "failure" | "loss") => "process_crash",
            _ => return,
        };
        let Some(last) = self.place(end).filter(|_| self.same_line(end)) else { return };
        let whole = span.to(last);
        let found = self.found(format!("the failure is called `{meant}`"), whole, "not a failure");
        *found = found.clone().help(format!("write `{meant}`")).fix(whole, meant);
        self.replace(index, Token::Ident(meant.to_owned()));
        self.left_out.extend(index + 1..=end);
    }
}

fn is_path_of_names(text: &str) -> bool {
    let name = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    text.split('.').all(name)
}
