//! Hooks: the places where the application calls into us.

use crate::Runtime;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A place where the application calls into us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u32)]
pub enum Hook {
    /// `write`, `writev`, `pwrite`, … on a log.
    Write = 0,
    /// `fsync` on a log.
    Fsync = 1,
    /// `fdatasync` on a log.
    Fdatasync = 2,
    /// A reply: bytes that the application writes to a connection that it accepted. The agent only.
    Reply = 3,
    /// Before a sync for which no other hook is called. Only the compiler makes it; it cannot be written
    /// in the language ([`crate::uring`]). BPFtime only.
    Barrier = 4,
    /// A turn of the event loop: `epoll_wait` has returned. The agent only.
    Turn = 5,
}

impl Hook {
    /// Hooks that a program can be of: one more than the greatest number.
    pub const COUNT: usize = Hook::PROGRAMS.len();
    /// Every hook of the language, in the order of their numbers.
    pub const ALL: [Hook; 5] = [Hook::Write, Hook::Fsync, Hook::Fdatasync, Hook::Reply, Hook::Turn];
    /// Every hook that a program can be of.
    pub const PROGRAMS: [Hook; 6] =
        [Hook::Write, Hook::Fsync, Hook::Fdatasync, Hook::Reply, Hook::Barrier, Hook::Turn];

    /// The hook's name in the language and in section names (`durac/fdatasync`).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Hook::Write => "write",
            Hook::Fsync => "fsync",
            Hook::Fdatasync => "fdatasync",
            Hook::Reply => "reply",
            Hook::Barrier => "barrier",
            Hook::Turn => "turn",
        }
    }

    /// The hook that is called `name`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Hook> {
        Hook::ALL.into_iter().find(|h| h.name() == name)
    }

    /// The ELF section of its program.
    #[must_use]
    pub fn section(self, runtime: Runtime) -> &'static str {
        runtime.backend().section(self)
    }

    /// Whether its calls are on a log. The others change nothing that is written, synced or acknowledged.
    #[must_use]
    pub fn is_on_log(self) -> bool {
        !matches!(self, Hook::Reply | Hook::Turn)
    }

    /// Whether it is a call that asks for durability.
    #[must_use]
    pub fn is_sync(self) -> bool {
        matches!(self, Hook::Fsync | Hook::Fdatasync)
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
