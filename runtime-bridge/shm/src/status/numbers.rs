//! The numbers of a log: what they mean, and their order on the page.

use durac_engine::{Errno, Log};

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        /// The numbers of a log.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct LogNumbers {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// Words of [`LogNumbers`].
        pub(super) const NUMBERS: usize = [$(stringify!($name)),*].len();

        impl LogNumbers {
            #[inline]
            pub(super) fn to_words(self) -> [u64; NUMBERS] {
                [$(self.$name),*]
            }

            pub(super) fn from_words(words: [u64; NUMBERS]) -> Self {
                let [$($name),*] = words;
                Self { $($name),* }
            }
        }
    };
}

numbers! {
    /// Sync calls begun.
    calls;
    /// Highest call that was acknowledged.
    acknowledged;
    /// Every call up to this one is durable.
    durable;
    /// Calls acknowledged without a sync of their own.
    deferred;
    /// Most calls that were acknowledged and not durable at once.
    max_pending;
    /// Syncs that succeeded.
    syncs;
    /// Syncs that failed.
    errors;
    /// The error that stopped the log, or 0.
    error;
    /// Bytes written.
    written;
    /// Bytes written and not durable.
    pending_bytes;
    /// Times a call had to wait.
    waits;
    /// Time calls waited, nanoseconds.
    wait_ns;
    /// Mean duration of a sync, nanoseconds.
    latency_ns;
    /// Distance of the last `await`, or 0.
    window;
    /// Number of open descriptors; 0 when the log is closed.
    descriptors;
    /// Times this place of the page was given to a file.
    generation;
    /// Sync calls that are acknowledged, not durable, and staged.
    staged;
    /// Bytes that are acknowledged and not yet in the file.
    staged_bytes;
    /// Syncs that took a second or longer, those under way included.
    slow;
    /// Calls that were older than `flush within` when they became durable.
    late;
    /// The age of the oldest call when it became durable, nanoseconds; 0 without `flush within`.
    oldest_ever_ns;
    /// When the oldest call was acknowledged that is not durable: `CLOCK_MONOTONIC`, nanoseconds; 0 if
    /// there is none, or without `flush within`.
    oldest_since;
    /// Why nothing is staged ([`super::StageOff::code`]), or 0.
    stage_off;
    /// Syncs that took longer than the policy assumes (`assume sync`).
    broken_assumptions;
    /// Calls that passed because they overlapped another, on a target with `callers one`.
    overlaps;
    /// Updates that are acknowledged and not durable.
    pending_updates;
    /// Most that ever were at once.
    max_updates;
    /// Bytes that are acknowledged and not durable.
    acknowledged_bytes;
    /// Most that ever were at once.
    max_bytes;
    /// Whether updates are counted ([`super::Counting::code`]).
    counting;
    /// Why the policy has no effect ([`super::NotAsked::code`]), or 0.
    not_asked;
    /// Since when something is written that no sync call has followed: `CLOCK_MONOTONIC`, nanoseconds; 0 if
    /// there is nothing, or it is not known.
    uncalled_since;
    /// The file system ([`super::Storage::code`]).
    storage;
}

impl LogNumbers {
    /// What the engine knows; the rest is the agent's.
    #[inline]
    #[must_use]
    pub fn of(log: &Log) -> Self {
        let counters = log.counters();
        Self {
            calls: log.calls(),
            acknowledged: log.acknowledged(),
            durable: log.durable(),
            deferred: counters.acknowledged,
            max_pending: counters.max_pending,
            pending_updates: log.unsynced_updates(),
            max_updates: counters.max_updates,
            acknowledged_bytes: log.unsynced_bytes(),
            max_bytes: counters.max_bytes,
            syncs: counters.syncs,
            errors: counters.errors,
            broken_assumptions: counters.broken_assumptions,
            error: log.error().map_or(0, Errno::unsigned_abs).into(),
            written: log.written(),
            pending_bytes: log.pending_bytes(),
            latency_ns: log.pace().latency(),
            window: log.pace().window().unwrap_or(0),
            staged: log.staged(log.acknowledged()),
            ..Self::default()
        }
    }

    /// Calls that are acknowledged and not durable.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.acknowledged.saturating_sub(self.durable)
    }
}
