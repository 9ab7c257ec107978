//! How much of what a call acknowledges can be lost, in bytes and updates: by what its program has read.
//!
//! When a program reads `pending.updates`, at most so many updates are written and not durable. Those that the
//! call acknowledges were written before it began, so they are among them, and durability never goes
//! back: the least that the call has read bounds what it acknowledges and what can be lost of that. A call
//! that is durable when it is acknowledged loses nothing.
//!
//! What was read is one value that stands for its cell, so the end of the cell counts. The limits of the
//! guarantees are ends of cells (`cells`).

use crate::cells::{Cell, Cells, Source};
use crate::state::Run;
use durac_abi::{READING_MOST, Reading};

/// Amounts that can be lost; `u64::MAX` if nothing bounds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amounts {
    /// Bytes.
    pub bytes: u64,
    /// Updates.
    pub updates: u64,
}

impl Amounts {
    /// Nothing bounds them.
    pub const UNKNOWN: Self = Self { bytes: u64::MAX, updates: u64::MAX };
}

/// The cells of the readings that bound amounts; empty of those that no program loads.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    bytes: Vec<Cell>,
    updates: Vec<Cell>,
}

impl Judge {
    /// Of programs that read these cells.
    #[must_use]
    pub fn new(cells: &Cells, reads: impl Fn(Reading) -> bool) -> Self {
        let of = |reading| {
            let of = cells.of.get(&Source::Reading(reading)).filter(|_| reads(reading));
            of.cloned().unwrap_or_default()
        };
        Self { bytes: of(Reading::PendingBytes), updates: of(Reading::PendingUpdates) }
    }

    /// Whether what a run has read makes a difference.
    #[must_use]
    pub fn looks(&self) -> bool {
        !(self.bytes.is_empty() && self.updates.is_empty())
    }

    /// What can be lost of what a call acknowledges that has run so.
    #[must_use]
    pub fn most(&self, run: Option<&Run>) -> Amounts {
        let inputs = run.map_or(&[][..], |run| &run.inputs);
        inputs.iter().fold(Amounts::UNKNOWN, |most, input| Amounts {
            bytes: most.bytes.min(end(&self.bytes, input.context.pending_bytes)),
            updates: most.updates.min(end(&self.updates, input.context.pending_updates)),
        })
    }
}

/// The last value of the cell of this one. The greatest reading stands for all that is more.
fn end(cells: &[Cell], value: u64) -> u64 {
    let of = cells.iter().find(|(first, last)| (*first..=*last).contains(&value));
    of.map(|(_, last)| *last).filter(|last| *last < READING_MOST).unwrap_or(u64::MAX)
}
