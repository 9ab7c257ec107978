//! What BPFtime's programs keep of the syncs that they start, behind the policy's own state.
//!
//! The helpers throw a sync's result away; the kernel counts the successes ([`crate::notify::count`]). So
//! a program compares, when everything that it has started has ended and at no other moment: of two syncs
//! that overlap, one can return 0 although the other has met the error for both.

/// How the names begin.
pub const PREFIX: &str = "_ring_";

/// Syncs that may be out at once: a call that would start one more runs as it was made.
pub const MAX_OUT: i32 = 4;
/// Waits for one call, those included that a signal interrupts.
pub const TRIES: usize = 16;

/// A word of it, 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Word {
    /// A [`Mode`].
    Mode = 0,
    /// Calls that the policy was asked about.
    Calls = 1,
    /// Of those, how many are durable, by their number.
    Durable = 2,
    /// The last call that the sync started last covers.
    Covered = 3,
    /// Syncs that were started.
    Started = 4,
    /// Of those, how many nobody has waited for.
    Out = 5,
}

impl Word {
    /// Every word, in order.
    pub const ALL: [Word; 6] =
        [Word::Mode, Word::Calls, Word::Durable, Word::Covered, Word::Started, Word::Out];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Word::Mode => "_ring_mode",
            Word::Calls => "_ring_calls",
            Word::Durable => "_ring_durable",
            Word::Covered => "_ring_covered",
            Word::Started => "_ring_started",
            Word::Out => "_ring_out",
        }
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
    /// Nothing more: a sync was not counted, or could not be started. Every call runs as it was made.
    Off = 2,
    /// A sync has failed: every call fails.
    Broken = 3,
}
