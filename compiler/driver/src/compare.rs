//! Is one policy at least as durable as another, in every failure and every unit?

use crate::Proved;
use durac_prove::explore::Most;
use durac_prove::proof::{Age, Proof};

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
    /// Records of the log that it covered.
    Updates,
    /// Their bytes.
    Bytes,
    /// How long ago what is lost was acknowledged.
    Time,
    /// Acknowledged syncs of which a client can have seen something.
    ToClients,
}

impl Measure {
    /// Every measure, in the order of a table.
    pub const ALL: [Measure; 10] = [
        Measure::StagedSyncs,
        Measure::StagedWrites,
        Measure::StagedTime,
        Measure::Syncs,
        Measure::WithProgress,
        Measure::Writes,
        Measure::Updates,
        Measure::Bytes,
        Measure::Time,
        Measure::ToClients,
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
            Measure::Updates => "power_loss, updates",
            Measure::Bytes => "power_loss, bytes",
            Measure::Time => "power_loss, time",
            Measure::ToClients => "power_loss, syncs seen by clients",
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
            Measure::StagedTime => proof.process.age.most(),
            Measure::Syncs => proof.syncs_by_default,
            Measure::WithProgress => proof.with_progress_by_default,
            // One sync covers any number of writes.
            Measure::Writes => covered,
            Measure::Updates => covered.min(proof.updates_by_default),
            Measure::Bytes => covered.min(proof.bytes_by_default),
            Measure::Time => proof.age.most(),
            Measure::ToClients if proof.holds_replies && !proof.frees_replicas => Most::Count(0),
            Measure::ToClients => proof.syncs_by_default,
        }
    }

    /// The worst case of a policy as a table shows it; a time as `durac check` says it.
    #[must_use]
    pub fn show(self, proof: &Proof) -> String {
        match (self, self.of(proof)) {
            (Measure::StagedTime, _) => proof.process.age.text(),
            (Measure::Time, _) => proof.age.text(),
            (_, Most::Unbounded) => "unbounded".to_owned(),
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
