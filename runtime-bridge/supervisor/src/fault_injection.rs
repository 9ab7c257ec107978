//! Faults of the supervisor, made on purpose, so that its tests can show that they find them.
//!
//! Only a build with the feature `fault-injection` can make them, and only if the environment names one
//! (`DURAC_FAULT`); `tests/faulty/supervisor` is such a build. No other build contains any of this.

/// The faults, each with the name that the environment gives it.
macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident = $name:literal,)*) => {
        /// A fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $($(#[$doc])* $fault,)*
        }

        #[cfg(feature = "fault-injection")]
        impl Fault {
            /// All of them, by name.
            const ALL: &[(&str, Self)] = &[$(($name, Self::$fault),)*];
        }
    };
}

faults! {
    /// The keeper ends with the supervisor, and answers nobody.
    KeeperLeaves = "keeper-leaves",
    /// The keeper syncs nothing.
    KeeperForgets = "keeper-forgets",
    /// What processes of odd numbers have deferred does not count.
    Uncounted = "uncounted",
    /// A program that waits goes on at once.
    NoWait = "no-wait",
    /// A sync in the background that failed is taken for one that succeeded.
    Swallowed = "swallowed",
    /// A failed sync is returned once, to whoever calls first.
    ToldOnce = "told-once",
    /// A call that comes after the logs runs, though what they had deferred could not be synced.
    DespiteError = "despite-error",
    /// A policy that is turned off leaves what it has deferred.
    NoDrainAtStop = "no-drain-at-stop",
    /// The policy or the program is exchanged without a look at what was acknowledged.
    HastyChange = "hasty-change",
    /// After a reload one log goes by the rules of the old policy.
    OldRules = "old-rules",
    /// What the logs have deferred does not come before a rename, a link or a removal, nor before a sync of all files.
    NoOrder = "no-order",
    /// Nor before a change of a file's length.
    NoOrderOfLengths = "no-order-of-lengths",
    /// Nor before a file is made or emptied.
    NoOrderOfOpens = "no-order-of-opens",
    /// Nor before a process ends.
    NoOrderOfEnds = "no-order-of-ends",
    /// Only what the calling process has deferred comes first.
    OwnOrder = "own-order",
    /// 32-bit calls that the table orders are taken for those that it does not have.
    Only64 = "only-64",
    /// A sync call is deferred though nothing was appended.
    NoBarrier = "no-barrier",
    /// A protected file is written while the log is behind.
    NoProtection = "no-protection",
    /// A file counts by the name that it was opened by.
    OneName = "one-name",
    /// A write at the beginning of a ring is a write like any other.
    NoBeginning = "no-beginning",
    /// So is one that is durable by itself.
    NoDurableWrites = "no-durable-writes",
    /// A log that is mapped stays under the policy.
    UnseenMaps = "unseen-maps",
    /// A thread's descriptor is believed to lead to the file that it led to before.
    Remembered = "remembered",
    /// No mistake: a thread that has not called before is looked at when it is dead and another has its number.
    SlowLook = "slow-look",
    /// The same, and it is taken for the one that called.
    StaleThread = "stale-thread",
    /// No mistake: a thread that meets a log for the first time takes its time to give it a place.
    SlowPlace = "slow-place",
    /// The same, and it does so though another was faster.
    TwoPlaces = "two-places",
    /// No mistake: the answer to an open of a log comes when another file has its name.
    SlowOpen = "slow-open",
    /// A file that a call makes is looked for only before it is made.
    LookedUpOnce = "looked-up-once",
    /// What was turned off is on for the program that takes over.
    NoSwitches = "no-switches",
    /// It does not know of a log that has failed.
    NoErrors = "no-errors",
    /// The keeper is sent away before another program takes over.
    NoKeeperMeanwhile = "no-keeper-meanwhile",
    /// Another program takes over than the one that was tried, if its path leads there by then.
    ByPath = "by-path",
    /// No mistake: every fifth run of a program ends by a panic.
    PanicInProgram = "panic-in-program",
    /// The same, of the fifth sync only, after the system call.
    PanicInSync = "panic-in-sync",
    /// The same, of the thread that looks after a log, whenever it is about to sync.
    PanicInSyncer = "panic-in-syncer",
    /// The same, of the first searches for a file that was opened.
    PanicInSearch = "panic-in-search",
}

/// Whether this fault is to be made.
#[cfg(feature = "fault-injection")]
pub fn injects(fault: Fault) -> bool {
    chosen() == Some(fault)
}

/// Whether this fault is to be made: never in this build.
#[cfg(not(feature = "fault-injection"))]
pub const fn injects(_: Fault) -> bool {
    false
}

/// Panics for this fault in the calls that `which` names by their number; the first is 1.
#[cfg(feature = "fault-injection")]
#[expect(clippy::panic, reason = "the fault is a panic")]
pub fn panics(fault: Fault, which: fn(u32) -> bool) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static CALLS: AtomicU32 = AtomicU32::new(0);
    if injects(fault) && which(CALLS.fetch_add(1, Ordering::Relaxed) + 1) {
        panic!("on purpose");
    }
}

/// Panics for this fault: never in this build.
#[cfg(not(feature = "fault-injection"))]
pub const fn panics(_: Fault, _: fn(u32) -> bool) {}

#[cfg(feature = "fault-injection")]
fn chosen() -> Option<Fault> {
    static CHOSEN: std::sync::OnceLock<Option<Fault>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let wanted = std::env::var("DURAC_FAULT").ok().filter(|wanted| wanted != "none")?;
        let found = Fault::ALL.iter().find(|(name, _)| *name == wanted).map(|(_, fault)| *fault);
        if found.is_none() {
            crate::note::error(&format!("there is no fault `{wanted}`"));
            std::process::exit(2);
        }
        crate::note::error(&format!(
            "FAULT INJECTION IS ON ({wanted}): this supervisor loses data; for tests only"
        ));
        found
    })
}
