//! The tests of a file: `test "name" { … }`.
//!
//! Stage: tokens → tokens with one [`Token::Test`] for each test, and the tests.
//!
//! A step is a phrase on a line of its own, such as `sync fails EIO`. Its words are no reserved words, and a
//! newline ends it, so it is read here and not by the grammar; the expressions in it are the grammar's.

mod expectations;

use crate::ast::{Expr, Ident, Outcome, Step, Steps, Test};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::grammar::ExprParser;
use crate::lexer::shorten;
use crate::repair::{self, begins_item};
use crate::span::{FileId, Sources, Span, Spanned};
use crate::suggest::nearest;
use crate::token::Token;
use crate::tree::Builder;
use crate::unexpected;
use lalrpop_util::ParseError;
use std::collections::BTreeMap;

/// What a file's tokens are without its tests.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    /// The tokens, with one for each test.
    pub tokens: Vec<Spanned<Token>>,
    /// The tests, by where they begin.
    pub tests: BTreeMap<u32, Test>,
    /// What is wrong with them.
    pub diagnostics: Vec<Diagnostic>,
}

/// Every kind of step, as it is written.
const STEPS: [&str; 19] = [
    "write",
    "fsync",
    "fdatasync",
    "reply",
    "clean reply",
    "turn 3",
    "sync ends",
    "sync fails EIO",
    "sync runs",
    "no sync runs",
    "next sync fails EIO",
    "after 20ms",
    "set n = 4",
    "child starts",
    "child ends",
    "another file is synced",
    "repeat 16 { … }",
    "power_loss: loses nothing",
    "process_crash: loses nothing",
];

/// Cuts the tests out of a file's tokens.
pub(crate) fn cut(sources: &Sources, file: FileId, tokens: Vec<Spanned<Token>>) -> Cut {
    let mut cut = Cut::default();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let rest = tokens.get(at..).unwrap_or_default();
        let before = cut.tokens.last();
        let Some(word) = test_word(sources, before, rest) else {
            cut.tokens.push(token.clone());
            at += 1;
            continue;
        };
        let mut reader = Reader { sources, file, diagnostics: Vec::new() };
        if let Some(misspelt) = word {
            reader.report(
                Code::Unexpected,
                misspelt,
                token.span,
                "unknown keyword",
                "did you mean `test`?",
            );
        }
        let (test, length) = reader.test(rest);
        let end = rest.get(length.saturating_sub(1)).map_or(token.span, |t| t.span);
        cut.tokens.push(Spanned::new(Token::Test, token.span.to(end)));
        cut.tests.insert(token.span.start, test);
        cut.diagnostics.extend(reader.diagnostics);
        at += length;
    }
    cut
}

/// Whether a test begins here: what is wrong with its first word, if anything; none if none begins.
fn test_word(
    sources: &Sources,
    before: Option<&Spanned<Token>>,
    rest: &[Spanned<Token>],
) -> Option<Option<String>> {
    let [Spanned { node: Token::Ident(word), span }, after @ ..] = rest else { return None };
    let begins = before.is_none_or(|b| {
        matches!(b.node, Token::Semicolon | Token::RBrace | Token::Test)
            || is_newline(sources, b.span, *span)
    });
    if !begins || before.is_some_and(|b| matches!(b.node, Token::Comma | Token::Dot | Token::May)) {
        return None;
    }
    let follows: Vec<&Token> = after.iter().take(2).map(|t| &t.node).collect();
    let named = matches!(follows.as_slice(), [Token::Str(_), ..]);
    let shaped = match follows.as_slice() {
        [Token::LBrace, ..] | [Token::Str(_) | Token::Ident(_), Token::LBrace] => true,
        _ => named,
    };
    if word == "test" {
        return shaped.then_some(None);
    }
    let braced = named && matches!(follows.as_slice(), [_, Token::LBrace]);
    (braced && nearest(word, ["test", "tests"]).is_some())
        .then(|| Some(format!("`{}` is not an item", shorten(word))))
}

fn is_newline(sources: &Sources, before: Span, after: Span) -> bool {
    sources.slice(Span { start: before.end, end: after.start, ..before }).contains('\n')
}

struct Reader<'a> {
    sources: &'a Sources,
    file: FileId,
    diagnostics: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn report(
        &mut self,
        code: Code,
        message: impl Into<String>,
        span: Span,
        label: &str,
        help: impl Into<String>,
    ) {
        self.diagnostics.push(Diagnostic::new(code, message, span, label).help(help));
    }

    /// A test, and how many tokens it has.
    fn test(&mut self, tokens: &[Spanned<Token>]) -> (Test, usize) {
        let whole = tokens.first().map_or(Span::new(self.file, 0, 0), |t| t.span);
        let mut at = 1;
        let name = match tokens.get(1) {
            Some(Spanned { node: Token::Str(name), span }) => {
                at += 1;
                Spanned::new(name.clone(), *span)
            }
            Some(Spanned { node: Token::Ident(name), span }) => {
                at += 1;
                let help = format!("write `test \"{}\"`", shorten(name));
                self.report(
                    Code::Unexpected,
                    "the name of a test is a string",
                    *span,
                    "not in quotes",
                    help,
                );
                Spanned::new(name.clone(), *span)
            }
            _ => {
                let help = "for example, `test \"idle tail\" { … }`";
                self.report(Code::Unexpected, "a test needs a name", whole, "has no name", help);
                Spanned::new(String::new(), whole.after())
            }
        };
        if name.node.is_empty() && self.diagnostics.is_empty() {
            let help = "for example, `test \"idle tail\" { … }`";
            self.report(Code::Unexpected, "a test needs a name", name.span, "an empty name", help);
        }
        let Some(open) = tokens.get(at).filter(|t| t.node == Token::LBrace).map(|t| t.span) else {
            let place = name.span.after();
            self.report(
                Code::Unexpected,
                "expected `{` after the name of a test",
                place,
                "something is missing here",
                "for example, `test \"idle tail\" { write; fdatasync -> deferred }`",
            );
            return (Test { name, body: Steps { steps: Vec::new(), span: place } }, at);
        };
        at += 1;
        let begin = at;
        let mut depth = 1;
        while let Some(token) = tokens.get(at) {
            let previous = tokens.get(at - 1).map_or(token.span, |t| t.span);
            let opens_line = is_newline(self.sources, previous, token.span);
            let next_test = matches!(&token.node, Token::Ident(word) if word == "test")
                && matches!(tokens.get(at + 1), Some(Spanned { node: Token::Str(_), .. }));
            if opens_line && (begins_item(&token.node) || next_test) {
                break;
            }
            match token.node {
                Token::LBrace => depth += 1,
                Token::RBrace => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            at += 1;
        }
        let body = tokens.get(begin..at).unwrap_or_default();
        let end = match tokens.get(at).filter(|_| depth == 0) {
            Some(close) => {
                at += 1;
                close.span
            }
            None => {
                self.report(
                    Code::Unexpected,
                    "unclosed `{`",
                    open,
                    "opened here",
                    "add the missing `}`",
                );
                body.last().map_or(open, |t| t.span)
            }
        };
        let steps = self.steps(body);
        (Test { name, body: Steps { steps, span: open.to(end) } }, at)
    }

    fn steps(&mut self, body: &[Spanned<Token>]) -> Vec<Spanned<Step>> {
        let mut steps = Vec::new();
        let mut from = 0;
        let mut depth = 0_u32;
        for at in 0..=body.len() {
            let token = body.get(at);
            let before = at.checked_sub(1).and_then(|i| body.get(i));
            // Between the braces of a `repeat` nothing ends.
            match before.map(|t| &t.node) {
                Some(Token::LBrace) => depth += 1,
                Some(Token::RBrace) => depth = depth.saturating_sub(1),
                _ => {}
            }
            let ends = match (before, token) {
                (_, None) => true,
                _ if depth > 0 => false,
                (_, Some(t)) if t.node == Token::Semicolon => true,
                (Some(last), Some(t)) => {
                    is_newline(self.sources, last.span, t.span)
                        && !goes_on(&last.node)
                        && !continues(&t.node)
                }
                (None, _) => false,
            };
            if !ends {
                continue;
            }
            let slice = body.get(from..at).unwrap_or_default();
            if let (Some(first), Some(last)) = (slice.first(), slice.last()) {
                let span = first.span.to(last.span);
                let step = self.step(slice, span);
                steps.push(Spanned::new(step, span));
            }
            let separator = token.is_some_and(|t| t.node == Token::Semicolon);
            from = at + usize::from(separator);
        }
        steps
    }

    /// A step of at least one token.
    fn step(&mut self, tokens: &[Spanned<Token>], span: Span) -> Step {
        if tokens.iter().any(|t| matches!(t.node, Token::Error(_))) {
            // The lexer has said what is wrong.
            return Step::Error;
        }
        if matches!(tokens, [Spanned { node: Token::Ident(word), .. }, ..] if word == "repeat")
            && !is_operator(tokens.get(1))
        {
            return self.repeat(tokens, span);
        }
        let arrow = tokens.iter().position(|t| t.node == Token::Arrow);
        let (head, tail) = match arrow {
            Some(at) => (tokens.get(..at).unwrap_or_default(), tokens.get(at + 1..)),
            None => (tokens, None),
        };
        let Some(first) = head.first() else {
            self.report(
                Code::UnknownStep,
                "expected a step before `->`",
                span,
                "nothing happens here",
                "for example, `fdatasync -> deferred`",
            );
            return Step::Error;
        };
        if let Some(brace) = tokens.iter().find(|t| matches!(t.node, Token::LBrace | Token::RBrace))
        {
            let first = word(&first.node).and_then(|word| nearest(word, ["repeat"]));
            let help = first.map_or("write one step on each line", |_| "did you mean `repeat`?");
            let shown = format!("unexpected `{}` in a step", brace.node);
            self.report(Code::UnknownStep, shown, brace.span, "not expected here", help);
            return Step::Error;
        }
        let arrow = arrow.and_then(|at| tokens.get(at)).map(|t| t.span);
        // The outcome is read after the step, so that what is wrong is told in its order.
        let before = self.diagnostics.len();
        let words: Vec<&str> = head.iter().map_while(|t| word(&t.node)).collect();
        let rest = |n: usize| head.get(n..).unwrap_or_default();
        let step = match words.as_slice() {
            [hook @ ("write" | "fsync" | "fdatasync" | "reply" | "turn"), ..]
                if !is_operator(head.get(1)) =>
            {
                let hook = Spanned::new((*hook).to_owned(), first.span);
                let len = self.length(&hook, rest(1), span);
                return self.with(arrow, tail, before, |returns| Step::Call {
                    hook,
                    clean: false,
                    len,
                    returns,
                });
            }
            ["clean", "reply", ..] if !is_operator(head.get(2)) => {
                let at = head.get(1).map_or(first.span, |reply| reply.span);
                let hook = Spanned::new("reply".to_owned(), at);
                let len = self.length(&hook, rest(2), span);
                return self.with(arrow, tail, before, |returns| Step::Call {
                    hook,
                    clean: true,
                    len,
                    returns,
                });
            }
            [name] if head.len() == 1 && tail.is_some() => {
                let hook = Spanned::new((*name).to_owned(), first.span);
                return self.with(arrow, tail, before, |returns| Step::Call {
                    hook,
                    clean: false,
                    len: None,
                    returns,
                });
            }
            ["sync", "ends"] if head.len() == 2 => {
                return self
                    .with(arrow, tail, before, |returns| Step::Sync { error: None, returns });
            }
            ["sync", "fails", ..] => {
                let error = self.errno(rest(2), span);
                return self.with(arrow, tail, before, |returns| match error {
                    Some(error) => Step::Sync { error: Some(error), returns },
                    None => Step::Error,
                });
            }
            ["another", "file", "is", "synced"] if head.len() == 4 => {
                return self.with(arrow, tail, before, |returns| Step::Another { returns });
            }
            ["sync", "runs"] if head.len() == 2 => Step::Runs(true),
            ["no", "sync", "runs"] if head.len() == 3 => Step::Runs(false),
            ["next", "sync", "fails", ..] => {
                self.errno(rest(3), span).map_or(Step::Error, Step::NextFails)
            }
            ["child", "starts"] if head.len() == 2 => Step::Child { starts: true },
            ["child", "ends"] if head.len() == 2 => Step::Child { starts: false },
            ["after", ..] if !is_operator(head.get(1)) => {
                let what = "expected a duration after `after`";
                self.value(rest(1), what, "for example, `after 20ms`", span)
                    .map_or(Step::Error, Step::After)
            }
            ["set", ..] if !is_operator(head.get(1)) => self.set(rest(1), span),
            ["power_loss" | "crash", ..] => return self.crash("power_loss", rest(1), tail, span),
            ["process_crash", ..] => return self.crash("process_crash", rest(1), tail, span),
            ["power", "loss", ..] => return self.crash("power_loss", rest(2), tail, span),
            ["process", "crash", ..] => return self.crash("process_crash", rest(2), tail, span),
            words => self.expectation(words, head, span),
        };
        if step != Step::Error
            && let Some(arrow) = arrow
        {
            self.report(
                Code::UnknownStep,
                "this step is not a call: it has no outcome",
                arrow,
                "not expected here",
                "remove `->` and what follows",
            );
            return Step::Error;
        }
        step
    }

    /// `repeat 16 { write; fdatasync }`
    fn repeat(&mut self, tokens: &[Spanned<Token>], span: Span) -> Step {
        let help = "for example, `repeat 16 { write; fdatasync -> deferred }`";
        let opens = tokens.iter().position(|t| t.node == Token::LBrace);
        let [head, body] = match opens {
            Some(at) => [tokens.get(1..at), tokens.get(at..)].map(Option::unwrap_or_default),
            None => [tokens.get(1..).unwrap_or_default(), &[]],
        };
        let Some(times) = self.value(head, "expected how often", help, span) else {
            return Step::Error;
        };
        let [open, body @ ..] = body else {
            self.report(
                Code::UnknownStep,
                "expected `{` after the number of times",
                span.after(),
                "something is missing here",
                help,
            );
            return Step::Error;
        };
        let mut depth = 1_u32;
        let closes = body.iter().position(|t| {
            match t.node {
                Token::LBrace => depth += 1,
                Token::RBrace => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let Some(closes) = closes else {
            self.report(
                Code::Unexpected,
                "unclosed `{`",
                open.span,
                "opened here",
                "add the missing `}`",
            );
            return Step::Error;
        };
        if let Some(extra) = body.get(closes + 1) {
            self.extra(extra);
            return Step::Error;
        }
        let end = body.get(closes).map_or(span, |t| t.span);
        let steps = self.steps(body.get(..closes).unwrap_or_default());
        Step::Repeat { times, body: Steps { steps, span: open.span.to(end) } }
    }

    /// A step with the outcome behind its arrow, if it has one.
    fn with(
        &mut self,
        arrow: Option<Span>,
        tail: Option<&[Spanned<Token>]>,
        before: usize,
        make: impl FnOnce(Option<Spanned<Outcome>>) -> Step,
    ) -> Step {
        let broken = self.diagnostics.len() > before;
        let returns = match (arrow, tail) {
            (Some(arrow), Some(tail)) if !broken => match self.outcome(tail, arrow) {
                Some(outcome) => Some(outcome),
                None => return Step::Error,
            },
            _ => None,
        };
        if broken { Step::Error } else { make(returns) }
    }

    /// Something behind a complete step.
    fn extra(&mut self, token: &Spanned<Token>) {
        let message = format!("unexpected `{}` after a step", shorten(&token.node.to_string()));
        self.report(
            Code::UnknownStep,
            message,
            token.span,
            "not expected here",
            "separate steps by `;` or a new line",
        );
    }

    fn length(
        &mut self,
        hook: &Ident,
        rest: &[Spanned<Token>],
        span: Span,
    ) -> Option<Spanned<Expr>> {
        let first = rest.first()?;
        let step = word(&first.node)
            .is_some_and(|w| STEPS.iter().any(|s| s.split([' ', ':']).next() == Some(w)));
        let amount = match hook.node.as_str() {
            "write" => ("expected a number of bytes or updates", "for example, `write 100B`"),
            "reply" => ("expected a number of bytes", "for example, `reply 100B`"),
            "turn" => ("expected a number of ready descriptors", "for example, `turn 3`"),
            _ => ("", ""),
        };
        if step || amount.0.is_empty() {
            self.extra(first);
            return None;
        }
        self.value(rest, amount.0, amount.1, span)
    }

    fn errno(&mut self, rest: &[Spanned<Token>], span: Span) -> Option<Ident> {
        match rest {
            [Spanned { node: Token::Ident(name), span }] => Some(Spanned::new(name.clone(), *span)),
            [Spanned { node: Token::Ident(_), .. }, extra, ..] => {
                self.extra(extra);
                None
            }
            _ => {
                let help = "for example, `sync fails EIO`";
                self.report(
                    Code::UnknownStep,
                    "`fails` needs an error name",
                    span,
                    "which error?",
                    help,
                );
                None
            }
        }
    }

    fn set(&mut self, rest: &[Spanned<Token>], span: Span) -> Step {
        let [Spanned { node: Token::Ident(name), span: at }, sign, value @ ..] = rest else {
            let help = "for example, `set n = 4`";
            self.report(
                Code::UnknownStep,
                "expected a parameter and its value",
                span,
                "sets nothing",
                help,
            );
            return Step::Error;
        };
        if !matches!(sign.node, Token::Assign | Token::EqEq | Token::Colon) {
            let help = "for example, `set n = 4`";
            self.report(
                Code::UnknownStep,
                "expected `=` after the parameter",
                sign.span,
                "not expected here",
                help,
            );
            return Step::Error;
        }
        let name = Spanned::new(name.clone(), *at);
        let value =
            self.value(value, "expected a value after `=`", "for example, `set n = 4`", span);
        value.map_or(Step::Error, |value| Step::Set(name, value))
    }

    fn unknown(&mut self, words: &[&str], head: &[Spanned<Token>], span: Span) {
        let shown: Vec<&str> = self.sources.slice(span).split_whitespace().collect();
        let message = format!("unknown step `{}`", shorten(&shown.join(" ")));
        let phrase = words.join(" ");
        let help = match words {
            ["sync", ..] => "write `sync ends`, `sync fails EIO` or `sync runs`".to_owned(),
            ["clean", ..] => "write `clean reply`".to_owned(),
            ["child", ..] => "write `child starts` or `child ends`".to_owned(),
            ["expect" | "assert" | "check" | "require", ..] => {
                let condition = head.get(1).map(|t| t.span.to(span.after()));
                let condition =
                    condition.map_or("pending == 2", |span| self.sources.slice(span).trim());
                format!("write the condition alone: `{}`", shorten(condition))
            }
            ["sleep" | "wait" | "advance" | "tick" | "await", ..] => {
                "to let time pass, write `after 20ms`".to_owned()
            }
            ["kill" | "sigkill", ..] => "write `process_crash: loses nothing`".to_owned(),
            ["poweroff" | "reboot" | "power", ..] => "write `power_loss: loses nothing`".to_owned(),
            ["fork", ..] => "write `child starts`".to_owned(),
            ["writes", ..] => "did you mean `write`?".to_owned(),
            ["next" | "no" | "another", ..] => {
                "write `next sync fails EIO`, `no sync runs` or `another file is synced`".to_owned()
            }
            ["fail", ..] => "write `sync fails EIO` or `next sync fails EIO`".to_owned(),
            _ => meant(&phrase).map_or_else(every, |near| format!("did you mean `{near}`?")),
        };
        self.report(Code::UnknownStep, message, span, "not a step", help);
    }

    /// The expression that some tokens are; none, reported, if they are not one.
    fn value(
        &mut self,
        tokens: &[Spanned<Token>],
        missing: &str,
        help: &str,
        step: Span,
    ) -> Option<Spanned<Expr>> {
        let Some(first) = tokens.first() else {
            self.report(
                Code::UnknownStep,
                missing,
                step.after(),
                "something is missing here",
                help,
            );
            return None;
        };
        if first.node.is_word() && !matches!(first.node, Token::True | Token::False) {
            let message = format!("{missing}, found `{}`", first.node);
            self.report(Code::UnknownStep, message, first.span, "not expected here", help);
            return None;
        }
        let (tokens, repairs) = repair::expression(self.sources, tokens.to_vec());
        let broken = !repairs.is_empty();
        self.diagnostics.extend(repairs);
        let mut builder = Builder::new(self.file, self.sources.text(self.file));
        let stream = tokens.iter().map(|t| Ok((t.span.start, t.node.clone(), t.span.end)));
        let parsed = ExprParser::new().parse(&mut builder, stream);
        let mut errors: Vec<_> = builder.recovered.into_iter().map(|r| r.error).collect();
        let node = match parsed {
            Ok(chunk) => Some(chunk.node),
            Err(error) => {
                errors.push(error);
                None
            }
        };
        let found = builder.diagnostics.len();
        self.diagnostics.extend(builder.diagnostics);
        if let Some(error) = errors.into_iter().next() {
            let told = match &error {
                ParseError::UnrecognizedEof { .. } => Some(
                    Diagnostic::new(
                        Code::UnknownStep,
                        "expected an expression, found the end of the step",
                        step.after(),
                        "something is missing here",
                    )
                    .help(help),
                ),
                _ => unexpected::explain(self.sources, self.file, &tokens, error),
            };
            // One finding for a step.
            if found == 0 && !broken {
                self.diagnostics.extend(told);
            }
            return None;
        }
        node.filter(|_| found == 0 && !broken)
    }
}

/// The word that a token is: a name or a reserved word.
fn word(token: &Token) -> Option<&str> {
    match token {
        Token::Ident(name) => Some(name),
        token if token.is_word() => token.text(),
        _ => None,
    }
}

/// The step that a phrase is a misspelling of.
#[must_use]
pub fn meant(phrase: &str) -> Option<&'static str> {
    nearest(phrase, STEPS).or_else(|| {
        let firsts = STEPS.map(|s| s.split([' ', ':']).next().unwrap_or(s));
        let near = nearest(phrase.split(' ').next()?, firsts)?;
        STEPS.into_iter().find(|s| s.starts_with(near))
    })
}

/// What can be written instead of something that is no step.
fn every() -> String {
    "for example, `write`, `fdatasync`, `sync ends`, `after 20ms` or `pending == 2`; `durac explain E0802` \
     lists the steps"
        .to_owned()
}

/// Whether a step cannot end with the token.
fn goes_on(token: &Token) -> bool {
    matches!(token, Token::Dot | Token::Bang) || is_binary(token)
}

/// Whether no step begins with the token.
fn continues(token: &Token) -> bool {
    matches!(token, Token::Arrow | Token::Colon | Token::Assign | Token::Dot) || is_binary(token)
}

fn is_operator(token: Option<&Spanned<Token>>) -> bool {
    token.is_some_and(|t| continues(&t.node) && t.node != Token::Arrow)
}

fn is_binary(token: &Token) -> bool {
    matches!(
        token,
        Token::OrOr
            | Token::AndAnd
            | Token::EqEq
            | Token::NotEq
            | Token::Less
            | Token::LessEq
            | Token::Greater
            | Token::GreaterEq
            | Token::Plus
            | Token::Minus
            | Token::Star
            | Token::Slash
            | Token::Percent
    )
}
