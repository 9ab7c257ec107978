//! The supervisor as a [`Backend`]: the agent's context and helpers, in a process beside the application.

use crate::backend::{Backend, ContextLayout};
use crate::notify::Counter;
use crate::{Helper, Hook, MAX_LOGS, Reading};

/// The supervisor.
pub(crate) struct Supervisor;

impl Backend for Supervisor {
    fn section(&self, hook: Hook) -> &'static str {
        match hook {
            Hook::Write => "supervisor/write",
            Hook::Fsync => "supervisor/fsync",
            Hook::Fdatasync => "supervisor/fdatasync",
            Hook::Reply => "supervisor/reply",
            Hook::Barrier => "supervisor/barrier",
            Hook::Turn => "supervisor/turn",
        }
    }

    fn context(&self) -> ContextLayout {
        ContextLayout { name: "durac_context", fields: Reading::WORDS }
    }

    fn helpers(&self) -> &'static [Helper] {
        &[Helper::MapLookup, Helper::Request, Helper::Await]
    }

    fn state_entries(&self) -> u32 {
        MAX_LOGS
    }

    fn needs_entry(&self) -> bool {
        false
    }

    fn counter(&self) -> Counter {
        Counter::Files
    }
}
