//! Tests: one step a line, or all on one line if they were written so and fit.

use super::expr::{expression, operand};
use super::{Formatter, WIDTH};
use crate::ast::{Outcome, Step, Steps, Test};
use crate::span::{Sources, Span, Spanned};

impl Formatter<'_> {
    pub(super) fn test(&mut self, test: &Test, span: Span) {
        let head = format!("test \"{}\"", test.name.node);
        self.steps(&head, &test.body, span);
    }

    /// Something with steps in braces.
    fn steps(&mut self, head: &str, body: &Steps, span: Span) {
        if self.fits_one_line(span) {
            let text = format!("{head} {}", inline(self.sources, body));
            if self.lines.column() + text.len() <= WIDTH {
                return self.lines.line(span, &text);
            }
        }
        self.lines.before(Span { end: body.span.start, ..span });
        self.lines.begin(span, &format!("{head} "));
        if body.steps.is_empty() && !self.lines.comment_in(body.span) {
            self.lines.push("{}");
            return self.lines.end(span);
        }
        self.lines.open(body.span.start);
        for s in &body.steps {
            match &s.node {
                Step::Repeat { times, body } => {
                    let head = format!("repeat {}", expression(self.sources, times));
                    self.steps(&head, body, s.span);
                }
                _ => {
                    let text = step(self.sources, s);
                    self.lines.line(s.span, &text);
                }
            }
        }
        self.lines.close(body.span);
        self.lines.end(span);
    }
}

/// `{ write; fdatasync }`
fn inline(sources: &Sources, body: &Steps) -> String {
    let steps: Vec<String> = body.steps.iter().map(|s| step(sources, s)).collect();
    if steps.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", steps.join("; ")) }
}

/// A step in its canonical form.
fn step(sources: &Sources, step: &Spanned<Step>) -> String {
    let value = |e| expression(sources, e);
    let returns = |outcome: &Option<Spanned<Outcome>>| match outcome.as_ref().map(|o| &o.node) {
        None => String::new(),
        Some(Outcome::Fails(errno)) => format!(" -> fails {}", errno.node),
        Some(outcome) => format!(" -> {}", outcome.word()),
    };
    match &step.node {
        Step::Call { hook, clean, len, returns: outcome } => {
            let clean = if *clean { "clean " } else { "" };
            let len = len.as_ref().map_or(String::new(), |len| format!(" {}", value(len)));
            format!("{clean}{}{len}{}", hook.node, returns(outcome))
        }
        Step::Sync { error: None, returns: outcome } => format!("sync ends{}", returns(outcome)),
        Step::Sync { error: Some(errno), returns: outcome } => {
            format!("sync fails {}{}", errno.node, returns(outcome))
        }
        Step::NextFails(errno) => format!("next sync fails {}", errno.node),
        Step::After(time) => format!("after {}", value(time)),
        Step::Set(name, to) => format!("set {} = {}", name.node, value(to)),
        Step::Child { starts: true } => "child starts".to_owned(),
        Step::Child { starts: false } => "child ends".to_owned(),
        Step::Another { returns: outcome } => format!("another file is synced{}", returns(outcome)),
        Step::Crash { failure, at_most, loses } => {
            let most = if *at_most { "at most " } else { "" };
            let loses = loses.as_ref().map_or("nothing".to_owned(), |e| operand(sources, e));
            format!("{}: loses {most}{loses}", failure.node)
        }
        Step::Runs(true) => "sync runs".to_owned(),
        Step::Runs(false) => "no sync runs".to_owned(),
        Step::Expect(condition) => value(condition),
        Step::Repeat { times, body } => {
            format!("repeat {} {}", value(times), inline(sources, body))
        }
        Step::Error => sources.slice(step.span).trim().to_owned(),
    }
}
