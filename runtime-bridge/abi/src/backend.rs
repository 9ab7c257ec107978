//! The runtimes, and everything that differs between them.
//!
//! A [`Backend`] says what an object for its runtime may contain. Whoever has an object asks the
//! backend of its [`Runtime`] and matches on no runtime; what only the compiler has to know is an
//! extension of this trait in `durac-core`.

use crate::notify::Counter;
use crate::{Helper, Hook, agent, bpftime, supervisor, words};
use serde::{Deserialize, Serialize};

words! {
    /// What runs an object.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Runtime, text {
        /// Our agent: [`crate::Context`], the engine's helpers, a verdict in r0.
        #[default]
        Agent => "agent",
        /// BPFtime: registers, its helpers, a verdict by [`Helper::Override`] ([`crate::bpftime`]).
        Bpftime => "bpftime",
        /// The supervisor: a process that the kernel asks about sync calls. The agent's context, helpers
        /// and verdicts.
        Supervisor => "supervisor",
    }
}

impl Runtime {
    /// What is known of it.
    #[must_use]
    pub fn backend(self) -> &'static dyn Backend {
        match self {
            Runtime::Agent => &agent::Agent,
            Runtime::Bpftime => &bpftime::Bpftime,
            Runtime::Supervisor => &supervisor::Supervisor,
        }
    }
}

/// What an object for one runtime may contain.
pub trait Backend: Sync {
    /// The ELF section of a hook's program.
    fn section(&self, hook: Hook) -> &'static str;

    /// What r1 points to when a program starts.
    fn context(&self) -> ContextLayout;

    /// The functions that a program may call.
    fn helpers(&self) -> &'static [Helper];

    /// Entries of the map `state`: logs that have state of their own.
    fn state_entries(&self) -> u32;

    /// Whether each program is attached to a function that the note names. If not, the runtime finds
    /// libc's functions by itself.
    fn needs_entry(&self) -> bool;

    /// Whether each program looks at [`crate::session`] first.
    fn has_session(&self) -> bool {
        false
    }

    /// What the kernel's programs of an object count.
    fn counter(&self) -> Counter;

    /// The helper with that number.
    fn helper(&self, number: i32) -> Option<Helper> {
        self.helpers().iter().copied().find(|helper| helper.number() == number)
    }
}

/// A C structure of 64-bit members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextLayout {
    /// The tag of the structure, as in C and in BTF.
    pub name: &'static str,
    /// Names of the members, in the order of their offsets.
    pub fields: &'static [&'static str],
}

impl ContextLayout {
    /// Size, bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        8 * self.fields.len()
    }
}
