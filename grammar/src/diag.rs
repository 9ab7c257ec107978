//! Diagnostics as plain data. [`crate::render`] turns them into text.

use crate::code::Code;
use crate::span::Span;
use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The input cannot be used.
    Error,
    /// The input can be used, and is probably not what was meant.
    Warning,
}

impl Severity {
    /// As it is written before a message.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// A place in the text and what is wrong, or relevant, there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// Lower case, no final period.
    pub text: String,
}

/// A change of the text that mends a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// What is replaced; empty where something is inserted.
    pub span: Span,
    /// What replaces it.
    pub text: String,
    /// Whether nothing else can have been meant, so that `durac check --fix` makes the change.
    pub safe: bool,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The code, with its page under `docs/errors/`.
    pub code: Code,
    /// Lower case, no final period, user text in backticks.
    pub message: String,
    /// The main place.
    pub primary: Label,
    /// Other places that explain it.
    pub secondary: Vec<Label>,
    /// What to type instead, or what to do.
    pub help: Option<String>,
    /// The change that the help speaks of, where it can be made at once.
    pub fix: Option<Fix>,
    /// Facts that explain the rule.
    pub notes: Vec<String>,
    /// What leads to it, drawn over several lines.
    pub timeline: Option<String>,
}

impl Diagnostic {
    /// A finding at `span`. The label says what is wrong *here*.
    #[must_use]
    pub fn new(
        code: Code,
        message: impl Into<String>,
        span: Span,
        label: impl Into<String>,
    ) -> Self {
        Self {
            code,
            message: message.into(),
            primary: Label { span, text: label.into() },
            secondary: Vec::new(),
            help: None,
            fix: None,
            notes: Vec::new(),
            timeline: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the one change that can have been meant.
    #[must_use]
    pub fn fix(mut self, span: Span, text: impl Into<String>) -> Self {
        self.fix = Some(Fix { span, text: text.into(), safe: true });
        self
    }

    /// Adds a change that was probably meant.
    #[must_use]
    pub fn perhaps(mut self, span: Span, text: impl Into<String>) -> Self {
        self.fix = Some(Fix { span, text: text.into(), safe: false });
        self
    }

    /// Adds a place that explains the finding.
    #[must_use]
    pub fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.secondary.push(Label { span, text: label.into() });
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds what leads to it.
    #[must_use]
    pub fn timeline(mut self, timeline: impl Into<String>) -> Self {
        self.timeline = Some(timeline.into());
        self
    }

    /// Whether it stops compilation: its code begins with `E`.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }
}
