//! What a page says of the process' policy. It can be exchanged while others read.

use super::sequence::Patience;
use super::{NAME, load_text, store_text};
use durac_engine::Time;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Words of the bound's text: 256 bytes.
const TEXT: usize = 32;
/// What `off` is if the policy is off and nothing brings it back; 1 if something does.
const FOR_GOOD: u64 = 2;
/// A number that is not known, or unbounded.
const NONE: u64 = u64::MAX;

/// What a page says about the process and its policy.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The process.
    pub pid: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub since: Time,
    /// Name of the policy.
    pub policy: &'a str,
    /// Name of the target.
    pub target: &'a str,
    /// The object that it was loaded from: `durac_abi::object::fingerprint` of its bytes.
    pub object: u64,
    /// What a power loss can take, in words.
    pub loss: &'a str,
    /// The same in numbers.
    pub bound: Amounts,
    /// The policy was switched off.
    pub is_off: bool,
}

/// Bounds of what a power loss can take, with the object's own parameters; none is unbounded or not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Acknowledged sync calls.
    pub syncs: Option<u64>,
    /// Updates.
    pub updates: Option<u64>,
    /// Bytes.
    pub bytes: Option<u64>,
    /// Age of the oldest, nanoseconds.
    pub within: Option<Time>,
}

/// What a power loss can take, as a reader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// In words: `at most n syncs (64 by default)`.
    pub text: String,
    /// In numbers, with the parameters' [`super::ParamStatus::default`].
    pub amounts: Amounts,
}

/// The head's place.
#[derive(Debug)]
#[repr(C)]
pub(super) struct HeadPlace {
    /// Odd while it is being written.
    sequence: AtomicU64,
    off: AtomicU64,
    changes: AtomicU64,
    amounts: [AtomicU64; 4],
    policy: [AtomicU64; NAME],
    target: [AtomicU64; NAME],
    object: AtomicU64,
    loss: [AtomicU64; TEXT],
}

/// The head as it was read.
pub(super) struct Read {
    pub policy: String,
    pub target: String,
    pub object: u64,
    pub bound: Bound,
    pub is_off: bool,
    pub stays_off: bool,
    pub changes: u64,
}

impl HeadPlace {
    /// Writes it, and what `also` writes that belongs to it.
    pub fn write(&self, head: &Head<'_>, also: impl FnOnce()) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        if sequence > 0 {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        self.off.store(head.is_off.into(), Ordering::Relaxed);
        let Amounts { syncs, updates, bytes, within } = head.bound;
        for (place, amount) in self.amounts.iter().zip([syncs, updates, bytes, within]) {
            place.store(amount.unwrap_or(NONE), Ordering::Relaxed);
        }
        store_text(&self.policy, head.policy);
        store_text(&self.target, head.target);
        self.object.store(head.object, Ordering::Relaxed);
        store_text(&self.loss, head.loss);
        also();
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// What is off stays so, until it is written again.
    pub fn stays_off(&self) {
        self.off.store(FOR_GOOD, Ordering::Relaxed);
    }

    /// Reads it, and what `also` reads that belongs to it. What a writer that died left half written is read
    /// as it is.
    pub fn read<T>(&self, patience: &mut Patience, mut also: impl FnMut() -> T) -> (Read, T) {
        match patience.read_whole(&self.sequence, || (self.read_once(), also())) {
            Ok(read) | Err(read) => read,
        }
    }

    fn read_once(&self) -> Read {
        let amount = |place: &AtomicU64| {
            let value = place.load(Ordering::Relaxed);
            (value != NONE).then_some(value)
        };
        let [syncs, updates, bytes, within] = self.amounts.each_ref().map(amount);
        let off = self.off.load(Ordering::Relaxed);
        Read {
            policy: load_text(&self.policy),
            target: load_text(&self.target),
            object: self.object.load(Ordering::Relaxed),
            bound: Bound {
                text: load_text(&self.loss),
                amounts: Amounts { syncs, updates, bytes, within },
            },
            is_off: off != 0,
            stays_off: off == FOR_GOOD,
            changes: self.changes.load(Ordering::Relaxed),
        }
    }
}
