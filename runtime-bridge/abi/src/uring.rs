//! What BPFtime's programs keep of the syncs that they start, behind the policy's own state.
//!
//! The helpers throw a sync's result away; the kernel counts the successes ([`crate::notify::count`]). So
//! a program compares, when everything that it has started has ended and at no other moment: of two syncs
//! that overlap, one can return 0 although the other has met the error for both.

use crate::words;

/// Syncs that may be out at once: a call that would start one more runs as it was made.
pub const MAX_OUT: i32 = 4;
/// Waits for one call, those included that a signal interrupts.
pub const TRIES: usize = 16;

words! {
    /// A word of it, 8 bytes, and the name of its state variable.
    #[repr(usize)]
    pub enum Word, name {
        /// A [`Mode`].
        Mode = 0 => "_ring_mode",
        /// Calls for which the policy ran.
        Calls = 1 => "_ring_calls",
        /// Of those, how many are durable, by their number.
        Durable = 2 => "_ring_durable",
        /// The last call that the latest sync covers.
        Covered = 3 => "_ring_covered",
        /// Syncs that were started.
        Started = 4 => "_ring_started",
        /// Of those, how many have not been waited for.
        Out = 5 => "_ring_out",
    }
}

/// What the programs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Mode {
    /// Nothing yet: every call runs as it was made, until the barrier has tried whether syncs are counted.
    New = 0,
    /// What the policy says.
    Working = 1,
    /// The ring could not be made. Here and in the modes from `NoTrial` on, every call runs as it was made.
    NoRing = 2,
    /// A sync has failed: every call fails.
    Broken = 3,
    /// The trial sync could not be started.
    NoTrial = 4,
    /// The trial sync was not counted.
    NotCounted = 5,
    /// A sync of a call could not be started.
    NotStarted = 6,
}

impl Mode {
    /// The mode with that number.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        use Mode::{Broken, New, NoRing, NoTrial, NotCounted, NotStarted, Working};
        let all = [New, Working, Broken, NoRing, NoTrial, NotCounted, NotStarted];
        all.into_iter().find(|mode| *mode as u64 == number)
    }
}
