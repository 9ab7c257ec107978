//! Is one policy at least as durable as another, in every failure and every unit?

use crate::check::Proved;
use crate::model::explore::Most;
use crate::model::proof::{Age, Proof};
use durac_compiler::unit::{Unit, show};
use durac_engine::Pace;

/// What a failure can take, in a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Acknowledged syncs, when the process dies.
    ProcessCrash,
    /// Acknowledged syncs, when the power fails.
    Syncs,
    /// The same, with the call in progress.
    WithProgress,
    /// Writes that an acknowledged sync covered.
    Writes,
    /// Their bytes.
    Bytes,
    /// How long ago what is lost was acknowledged.
    Time,
}

impl Measure {
    /// Every measure, in the order of a table.
    pub const ALL: [Measure; 6] = [
        Measure::ProcessCrash,
        Measure::Syncs,
        Measure::WithProgress,
        Measure::Writes,
        Measure::Bytes,
        Measure::Time,
    ];

    /// Its name in a table: failure and unit.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Measure::ProcessCrash => "process_crash, all units",
            Measure::Syncs => "power_loss, syncs",
            Measure::WithProgress => "power_loss, syncs with the one in progress",
            Measure::Writes => "power_loss, writes",
            Measure::Bytes => "power_loss, bytes",
            Measure::Time => "power_loss, time",
        }
    }

    /// The worst case of a policy at its parameters' values, comparable within the measure.
    #[must_use]
    pub fn of(self, proof: &Proof) -> Most {
        let covered = match proof.age {
            Age::Nothing => Most::Count(0),
            _ => Most::Unbounded,
        };
        match self {
            // The page cache survives, and this runtime keeps no bytes of its own.
            Measure::ProcessCrash => Most::Count(0),
            Measure::Syncs => proof.syncs_by_default,
            Measure::WithProgress => proof.with_progress_by_default,
            // One sync covers any number of writes and bytes.
            Measure::Writes | Measure::Bytes => covered,
            Measure::Time => match proof.age {
                Age::Nothing => Most::Count(0),
                Age::Within(within) => Most::Count(within),
                Age::UntilSynced => Most::Count(Pace::PATIENCE_MOST),
                Age::Forever => Most::Unbounded,
            },
        }
    }

    /// A worst case as a table shows it.
    #[must_use]
    pub fn show(self, most: Most) -> String {
        match (self, most) {
            (_, Most::Unbounded) => "unbounded".to_owned(),
            (Measure::Time, Most::Count(time)) => show(time, Unit::Duration),
            (_, Most::Count(count)) => count.to_string(),
        }
    }
}

/// The measures in which `b` can lose more than `a`. Empty: it is at least as durable.
#[must_use]
pub fn worse(a: &Proof, b: &Proof) -> Vec<Measure> {
    Measure::ALL.into_iter().filter(|m| m.of(b) > m.of(a)).collect()
}

/// Orders policies so that none is before one that is more durable.
pub fn sort(policies: &mut [(String, Proved)]) {
    policies.sort_by_key(|(name, proved)| {
        let worst = Measure::ALL.map(|m| m.of(&proved.proof));
        // How much beside how long: the number of syncs first, unless one of the two has no end.
        let unbounded = worst.iter().filter(|m| **m == Most::Unbounded).count();
        (unbounded, worst, name.clone())
    });
}
