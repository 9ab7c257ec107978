//! The supervisor as a [`Backend`]: the agent's in a process beside the application, with sections of its own.

use crate::agent::Agent;
use crate::backend::{Backend, ContextLayout};
use crate::notify::Counter;
use crate::{Helper, Hook};

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
        Agent.context()
    }

    fn helpers(&self) -> &'static [Helper] {
        Agent.helpers()
    }

    fn state_entries(&self) -> u32 {
        Agent.state_entries()
    }

    fn needs_entry(&self) -> bool {
        Agent.needs_entry()
    }

    fn counter(&self) -> Counter {
        Agent.counter()
    }
}
