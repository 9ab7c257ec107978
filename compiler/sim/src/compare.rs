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
    StagedSyncs,
    /// Writes, when the process dies.
    StagedWrites,
    /// How long ago they were acknowledged.
    StagedTime,
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
    pub const ALL: [Measure; 8] = [
        Measure::StagedSyncs,
        Measure::StagedWrites,
        Measure::StagedTime,
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
            Measure::StagedSyncs => "process_crash, syncs",
            Measure::StagedWrites => "process_crash, writes",
            Measure::StagedTime => "process_crash, time",
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
            Measure::StagedSyncs => proof.process.syncs_by_default,
            Measure::StagedWrites => proof.process.writes,
            Measure::StagedTime => age(proof.process.age),
            Measure::Syncs => proof.syncs_by_default,
            Measure::WithProgress => proof.with_progress_by_default,
            // One sync covers any number of writes and bytes.
            Measure::Writes | Measure::Bytes => covered,
            Measure::Time => age(proof.age),
        }
    }

    /// Whether it is a time.
    fn is_time(self) -> bool {
        matches!(self, Measure::Time | Measure::StagedTime)
    }

    /// A worst case as a table shows it.
    #[must_use]
    pub fn show(self, most: Most) -> String {
        match (self, most) {
            (_, Most::Unbounded) => "unbounded".to_owned(),
            (_, Most::Count(time)) if self.is_time() => show(time, Unit::Duration),
            (_, Most::Count(count)) => count.to_string(),
        }
    }
}

fn age(age: Age) -> Most {
    match age {
        Age::Nothing => Most::Count(0),
        Age::Within(within) => Most::Count(within),
        Age::UntilSynced => Most::Count(Pace::PATIENCE_MOST),
        Age::Forever => Most::Unbounded,
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
