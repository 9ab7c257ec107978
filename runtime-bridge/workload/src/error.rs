//! What can go wrong while a database is run.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program that is needed is not on `PATH`.
    #[error("`{0}` is not on PATH")]
    NotFound(String),
    /// A system call failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried, as it continues "cannot …".
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// A program ended although it should run on, or ended badly.
    #[error("{program} ended with {status}{output}")]
    Ended {
        /// Name of the program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines it wrote, each on a line of its own; may be empty.
        output: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {within:?}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        within: Duration,
    },
    /// The database answered with an error.
    #[error("the database returned an error: {0}")]
    Refused(String),
    /// The answer was not what the protocol allows here.
    #[error("unexpected reply: {0}")]
    Protocol(String),
    /// The user asked to stop (SIGINT or SIGTERM).
    #[error("interrupted")]
    Interrupted,
    /// The configuration of a bench makes no sense.
    #[error("{0}")]
    Config(String),
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what was tried when a system call fails.
pub(crate) trait Trying<T> {
    /// Turns an I/O error into [`Error::Io`]: "cannot `what`: …".
    fn trying(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Trying<T> for io::Result<T> {
    fn trying(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source })
    }
}
