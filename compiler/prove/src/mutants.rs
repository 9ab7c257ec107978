//! Deliberate mistakes of the prover. A test chooses one and must notice it (`tests/faulty/prove`); only that
//! test's build has the feature `mutants`, in every other build none can be made.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A background sync covers every call that has begun when it ends.
    WholeLandings,
    /// No sync fails.
    NoFailure,
    /// No other thread drains the log.
    NoDrain,
    /// No write passes by while a call waits.
    NoPassingBy,
    /// A write for which the program has run always writes something.
    NoEmptyWrite,
    /// No sync begins between a write and the sync call after it.
    NoTail,
    /// Parameters do not change.
    FixedParameters,
    /// Every sync takes as long as the shortest.
    OneLatency,
    /// A reading has one cell.
    OneCell,
    /// A walk ends after a few states, and counts as complete.
    StopsEarly,
    /// An acknowledged call counts as one that cannot be lost.
    CountsNothing,
    /// The deadline of every kept time is over.
    AnyDate,
    /// Growth without end breaks no limit.
    NoGrowth,
    /// A sync that leaves calls which a power loss does not take counts as one that leaves others.
    MergesSilent,
    /// A sync that leaves a call whose time is kept counts as one that leaves others.
    ForgetsDates,
}

#[cfg(feature = "mutants")]
mod chosen {
    use super::Mutant;
    use std::cell::Cell;

    std::thread_local! {
        static CHOSEN: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Whether this mistake is made.
    #[must_use]
    pub fn makes(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(mutant)
    }

    /// Runs `body` in a prover that makes this mistake, or none.
    pub fn with<R>(mutant: Option<Mutant>, body: impl FnOnce() -> R) -> R {
        let before = CHOSEN.replace(mutant);
        let result = body();
        CHOSEN.set(before);
        result
    }
}

#[cfg(feature = "mutants")]
pub use chosen::{makes, with};

/// Whether this mistake is made: never in this build.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn makes(_: Mutant) -> bool {
    false
}
