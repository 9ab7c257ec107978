//! The proved loss, in every unit that the page shows.

use durac_abi::object::Loss;
use serde::Serialize;

/// A bound of one kind of loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// At most so much.
    At(u64),
    /// No bound.
    Unbounded,
}

/// The bounds of each kind of loss. Bytes and commands have one if they were proved one, or if nothing is lost: a sync
/// covers any number of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Proved {
    pub syncs: Bound,
    pub bytes: Bound,
    pub commands: Bound,
    /// Age of the oldest, nanoseconds.
    pub age_ns: Bound,
}

impl Proved {
    /// The bounds of what a power loss takes.
    pub fn of(loss: &Loss) -> Self {
        let bound = |number: Option<u64>| number.map_or(Bound::Unbounded, Bound::At);
        // What loses no sync loses nothing else.
        let other = |number| if loss.syncs == Some(0) { Bound::At(0) } else { bound(number) };
        Self {
            syncs: bound(loss.syncs),
            bytes: other(loss.bytes),
            commands: other(loss.updates),
            age_ns: other(loss.within),
        }
    }
}
