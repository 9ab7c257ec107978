//! What a test expects: how a call ends, and what a crash takes.

use super::{Reader, word};
use crate::ast::{BinOp, Expr, Outcome, Step};
use crate::code::Code;
use crate::lexer::shorten;
use crate::span::{Span, Spanned};
use crate::suggest::nearest;
use crate::token::Token;

impl Reader<'_> {
    pub(super) fn outcome(
        &mut self,
        tail: &[Spanned<Token>],
        arrow: Span,
    ) -> Option<Spanned<Outcome>> {
        let [first, rest @ ..] = tail else {
            let help = outcomes();
            self.report(
                Code::UnknownStep,
                "expected what the call does after `->`",
                arrow.after(),
                "something is missing here",
                help,
            );
            return None;
        };
        let name = word(&first.node).unwrap_or_default();
        let span = first.span;
        let simple = |outcome| Some((outcome, span, rest));
        let found = match name {
            "passed" => simple(Outcome::Passed),
            "deferred" => simple(Outcome::Deferred),
            "skipped" => simple(Outcome::Skipped),
            "staged" => simple(Outcome::Staged),
            "held" => simple(Outcome::Held),
            "gathers" => simple(Outcome::Gathers),
            "waits" => simple(Outcome::Waits),
            "fails" => {
                let [errno, rest @ ..] = rest else {
                    let help = "for example, `-> fails EIO`";
                    self.report(
                        Code::UnknownStep,
                        "`fails` needs an error name",
                        span,
                        "which error?",
                        help,
                    );
                    return None;
                };
                let Token::Ident(errno_name) = &errno.node else {
                    let help = "for example, `-> fails EIO`";
                    self.report(
                        Code::UnknownStep,
                        "`fails` needs an error name",
                        errno.span,
                        "not an error",
                        help,
                    );
                    return None;
                };
                let error = Spanned::new(errno_name.clone(), errno.span);
                Some((Outcome::Fails(error), span.to(errno.span), rest))
            }
            _ => None,
        };
        let Some((outcome, span, rest)) = found else {
            let help = match name {
                "pass" | "passes" | "ok" | "syncs" | "sync" | "durable" => {
                    "did you mean `passed`?".to_owned()
                }
                "defer" | "defers" => "did you mean `deferred`?".to_owned(),
                "skip" | "skips" => "did you mean `skipped`?".to_owned(),
                "stage" | "stages" => "did you mean `staged`?".to_owned(),
                "hold" | "holds" => "did you mean `held`?".to_owned(),
                "gather" | "gathered" => "did you mean `gathers`?".to_owned(),
                "fail" | "failed" | "error" => "did you mean `fails`?".to_owned(),
                "await" | "wait" | "waiting" | "blocks" | "blocked" => {
                    "did you mean `waits`?".to_owned()
                }
                other => match nearest(other, Outcome::WORDS) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => outcomes(),
                },
            };
            let shown = shorten(&first.node.to_string());
            let message = format!("`{shown}` is not what a call does");
            self.report(Code::UnknownStep, message, span, "unknown outcome", help);
            return None;
        };
        if let Some(extra) = rest.first() {
            self.extra(extra);
            return None;
        }
        Some(Spanned::new(outcome, span))
    }

    /// `: loses at most 2 syncs`
    pub(super) fn crash(
        &mut self,
        failure: &str,
        rest: &[Spanned<Token>],
        tail: Option<&[Spanned<Token>]>,
        span: Span,
    ) -> Step {
        let help = format!("for example, `{failure}: loses 1 sync` or `{failure}: loses nothing`");
        let rest = match (rest, tail) {
            ([], Some(tail)) => tail,
            ([Spanned { node: Token::Colon, .. }, rest @ ..], None) => rest,
            (rest, None) => rest,
            (_, Some(_)) => &[],
        };
        let failure = Spanned::new(failure.to_owned(), Span { end: span.start, ..span });
        let [loses, amount @ ..] = rest else {
            self.report(
                Code::UnknownStep,
                "expected what the crash loses",
                span,
                "loses how much?",
                help,
            );
            return Step::Error;
        };
        if word(&loses.node) != Some("loses") {
            let message = format!("expected `loses`, found `{}`", shorten(&loses.node.to_string()));
            self.report(Code::UnknownStep, message, loses.span, "not expected here", help);
            return Step::Error;
        }
        let words: Vec<&str> = amount.iter().map_while(|t| word(&t.node)).collect();
        let (at_most, amount) = match words.as_slice() {
            ["nothing"] if amount.len() == 1 => {
                return Step::Crash { failure, at_most: false, loses: None };
            }
            ["at", "least", ..] => {
                let place = amount.first().map_or(span, |t| t.span);
                self.report(
                    Code::UnknownStep,
                    "a crash loses `at most` so much",
                    place,
                    "not `at least`",
                    help,
                );
                return Step::Error;
            }
            ["at", "most", ..] => (true, amount.get(2..).unwrap_or_default()),
            _ => (false, amount),
        };
        match self.value(amount, "expected how much the crash loses", &help, span) {
            Some(value) => Step::Crash { failure, at_most, loses: Some(value) },
            None => Step::Error,
        }
    }

    /// A condition; or, if it is none, a step that does not exist.
    pub(super) fn expectation(
        &mut self,
        words: &[&str],
        head: &[Spanned<Token>],
        span: Span,
    ) -> Step {
        let Some(first) = head.first() else { return Step::Error };
        let reserved = first.node.is_word() && !matches!(first.node, Token::True | Token::False);
        let phrase = match head.get(1).map(|t| &t.node) {
            _ if word(&first.node).is_none() => false,
            Some(Token::Ident(word)) => !matches!(word.as_str(), "and" | "or" | "AND" | "OR"),
            Some(Token::Syncs | Token::Writes | Token::Updates | Token::Bytes | Token::Calls) => {
                false
            }
            Some(Token::Number(_)) => matches!(first.node, Token::Ident(_)),
            Some(token) => token.is_word(),
            None => false,
        };
        if reserved || phrase || matches!(first.node, Token::Str(_)) {
            self.unknown(words, head, span);
            return Step::Error;
        }
        // `pending = 2`
        if let Some(at) = head.iter().position(|t| t.node == Token::Assign)
            && let (Some(left), Some(right)) = (head.get(..at), head.get(at + 1..))
            && !left.is_empty()
            && left.iter().all(|t| matches!(t.node, Token::Ident(_) | Token::Dot))
        {
            let sign = head.get(at).map_or(span, |t| t.span);
            let help = "for example, `pending == 2`";
            let (Some(left), Some(right)) = (
                self.value(left, "expected a condition", help, span),
                self.value(right, "expected a value after `=`", help, span),
            ) else {
                return Step::Error;
            };
            let op = Spanned::new(BinOp::Eq, sign);
            let comparison = Expr::Binary(Box::new(left), op, Box::new(right));
            return Step::Expect(Spanned::new(comparison, span));
        }
        let help = "for example, `pending == 2`";
        self.value(head, "expected a step", help, span).map_or(Step::Error, Step::Expect)
    }
}

fn outcomes() -> String {
    "write `passed`, `deferred`, `skipped`, `staged`, `held`, `gathers`, `waits` or `fails EIO`"
        .to_owned()
}
