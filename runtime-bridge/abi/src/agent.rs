//! The agent as a [`Backend`]: its context, its helpers, libc's functions as hooks.

use crate::backend::{Backend, ContextLayout};
use crate::notify::Counter;
use crate::{Helper, Hook, MAX_LOGS, Reading};

/// The agent.
pub(crate) struct Agent;

impl Backend for Agent {
    fn section(&self, hook: Hook) -> &'static str {
        match hook {
            Hook::Write => "durac/write",
            Hook::Fsync => "durac/fsync",
            Hook::Fdatasync => "durac/fdatasync",
            Hook::Reply => "durac/reply",
            Hook::Barrier => "durac/barrier",
            Hook::Turn => "durac/turn",
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
