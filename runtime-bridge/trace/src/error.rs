//! What can be wrong with a trace.

use crate::event::MOST_WRITTEN;
use std::io;

/// Something wrong with a trace, and where: `12:7: unknown field `byte`…`.
#[derive(Debug, thiserror::Error)]
#[error("{line}:{column}: {problem}")]
pub struct TraceError {
    /// The line, from 1.
    pub line: u64,
    /// The character in the line, from 1.
    pub column: u64,
    /// The byte in the text, from 0.
    pub byte: u64,
    /// What is wrong.
    pub problem: Problem,
}

impl TraceError {
    /// What is wrong, in words, without the place.
    #[must_use]
    pub fn message(&self) -> String {
        self.problem.to_string()
    }
}

/// The result of this crate's functions.
pub type Result<T, E = TraceError> = std::result::Result<T, E>;

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The system cannot read it.
    #[error("cannot be read: {0}")]
    Io(io::Error),
    /// It is something else, and this is what to do.
    #[error("not a trace: this {0}")]
    Foreign(&'static str),
    /// A trace of another version.
    #[error("version {0} of the format; this durac reads version {1}")]
    Version(u64, u32),
    /// It stops in the middle.
    #[error("{}: the file was cut off, or is still being written", stops(*.0))]
    CutOff(u64),
    /// Something else was found.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What may stand here.
        expected: &'static str,
        /// What does.
        found: String,
    },
    /// A string that JSON does not allow.
    #[error("{0} in a string")]
    Text(&'static str),
    /// A number beyond what the field holds.
    #[error("the number is too large: at most {0}")]
    TooLarge(u64),
    /// The parts of the document stand in another order.
    #[error(
        "expected the field `{0}`, found `{1}`: a trace has format, version, recorded, events \
             and end in this order"
    )]
    Order(&'static str, String),
    /// A field that there is not.
    #[error("unknown field `{0}`{1}")]
    Field(String, Near),
    /// A word that the field does not take.
    #[error("unknown {field} `{word}`{near}")]
    Word {
        /// The field.
        field: &'static str,
        /// The word.
        word: String,
        /// What was meant, perhaps.
        near: Near,
    },
    /// A duplicate field.
    #[error("duplicate field `{0}`")]
    Twice(&'static str),
    /// A field without which nothing can be said.
    #[error("{0} without the field `{1}`")]
    Missing(&'static str, &'static str),
    /// More than a system call writes.
    #[error("one write of {0} bytes: a system call writes {MOST_WRITTEN} at most")]
    WrittenAtOnce(u64),
    /// Time goes back.
    #[error("`t` goes back from {0} to {1}: events are in the order in which they ended")]
    Backwards(u64, u64),
    /// It would have begun before the trace.
    #[error(
        "`took` is {took}, more than the {t} ns from the beginning of the trace to the end of \
             this event"
    )]
    TookTooLong {
        /// How long it took.
        took: u64,
        /// When it ended.
        t: u64,
    },
    /// An event of a log that is not open.
    #[error("`{op}` of log {log}, which {} open", if *.was_open { "is no longer" } else { "is not" })]
    NotOpen {
        /// What happened.
        op: &'static str,
        /// To which log.
        log: u32,
        /// It was closed before.
        was_open: bool,
    },
    /// A number that another log has.
    #[error("log {0} was opened before: each log has its own number")]
    OpenedTwice(u32),
    /// The end counts other events than there are.
    #[error("`end` counts {says} events, but there are {are}: some were removed or added")]
    Count {
        /// What the end says.
        says: u64,
        /// What there is.
        are: u64,
    },
    /// Something after the document.
    #[error("expected the end of the file, found {0}")]
    Trailing(String),
    /// A line of strace that cannot be read.
    #[error("{0}")]
    Strace(String),
}

fn stops(events: u64) -> String {
    match events {
        0 => "stops before the first event".to_owned(),
        n => format!("stops after event {n}"),
    }
}

/// What was meant, perhaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Near(Option<&'static str>);

impl Near {
    /// The nearest of `known`, if one is near: nearer than its own length, since fields are as short
    /// as `t`, and in the same case, since JSON tells cases apart.
    #[must_use]
    pub fn of(word: &str, known: impl IntoIterator<Item = &'static str>) -> Self {
        let distance = |known: &str| strsim::damerau_levenshtein(word, known);
        let near = known.into_iter().map(|k| (distance(k), k)).min();
        Self(near.filter(|&(d, k)| d <= 2 && d < k.len()).map(|(_, k)| k))
    }
}

impl std::fmt::Display for Near {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(near) => write!(f, "; did you mean `{near}`?"),
            None => Ok(()),
        }
    }
}
