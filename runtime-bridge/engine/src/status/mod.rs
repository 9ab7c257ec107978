//! The status page: what a running agent shows to other processes, and the parameters they may
//! change.
//!
//! One page layout of 64-bit numbers in shared memory. The agent makes it ([`create`]); a
//! reader maps it ([`Status::open`]). The numbers of one log are written under a sequence lock, so
//! a reader sees acknowledged and durable of the same instant.

mod file;
mod find;

pub use file::{Created, Status, create};
pub use find::{Running, running};

use crate::log::{Errno, Log, Time};
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// First word of a status page: `duracst` and a 1.
pub const MAGIC: u64 = u64::from_le_bytes(*b"duracst\x01");
/// Version of the layout.
pub const VERSION: u64 = 3;
/// Logs that have a place in the page; those beyond run under the policy and are not shown.
pub const MAX_LOGS: usize = 64;
/// Parameters that have a place in the page; an object with more is refused.
pub const MAX_PARAMS: usize = 64;

/// Words of a name: 64 bytes.
const NAME: usize = 8;
/// Words of a path: its last 128 bytes.
const PATH: usize = 16;
/// Words of [`LogNumbers`].
const NUMBERS: usize = 19;
/// How often a reader tries to get numbers of one instant: more fails only if the writer died
/// between two stores.
const TRIES: usize = 100_000;

/// The numbers of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogNumbers {
    /// Sync calls begun.
    pub calls: u64,
    /// Highest call that was acknowledged.
    pub acknowledged: u64,
    /// Every call up to this one is durable.
    pub durable: u64,
    /// Calls acknowledged without a sync of their own.
    pub deferred: u64,
    /// Most calls that were acknowledged and not durable at once.
    pub max_pending: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Syncs that failed.
    pub errors: u64,
    /// The error that stopped the log, or 0.
    pub error: u64,
    /// Bytes written.
    pub written: u64,
    /// Bytes written and not durable.
    pub pending_bytes: u64,
    /// Times a call had to wait.
    pub waits: u64,
    /// Time calls waited, nanoseconds.
    pub wait_ns: u64,
    /// Mean duration of a sync, nanoseconds.
    pub latency_ns: u64,
    /// Distance of the last `await`, or 0.
    pub window: u64,
    /// Number of open descriptors; 0 when the log is closed.
    pub descriptors: u64,
    /// Times this place of the page was given to a file.
    pub generation: u64,
    /// Sync calls that are acknowledged, not durable, and staged.
    pub staged: u64,
    /// Bytes that are acknowledged and not yet in the file.
    pub staged_bytes: u64,
    /// Syncs that took a second or longer, those under way included.
    pub slow: u64,
}

impl LogNumbers {
    /// What the engine knows; the rest is the agent's.
    #[must_use]
    pub fn of(log: &Log) -> Self {
        let counters = log.counters();
        Self {
            calls: log.calls(),
            acknowledged: log.acknowledged(),
            durable: log.durable(),
            deferred: counters.acknowledged,
            max_pending: counters.max_pending,
            syncs: counters.syncs,
            errors: counters.errors,
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

    fn to_words(self) -> [u64; NUMBERS] {
        [
            self.calls,
            self.acknowledged,
            self.durable,
            self.deferred,
            self.max_pending,
            self.syncs,
            self.errors,
            self.error,
            self.written,
            self.pending_bytes,
            self.waits,
            self.wait_ns,
            self.latency_ns,
            self.window,
            self.descriptors,
            self.generation,
            self.staged,
            self.staged_bytes,
            self.slow,
        ]
    }

    fn from_words(words: [u64; NUMBERS]) -> Self {
        let [
            calls,
            acknowledged,
            durable,
            deferred,
            max_pending,
            syncs,
            errors,
            error,
            written,
            pending_bytes,
            waits,
            wait_ns,
            latency_ns,
            window,
            descriptors,
            generation,
            staged,
            staged_bytes,
            slow,
        ] = words;
        Self {
            calls,
            acknowledged,
            durable,
            deferred,
            max_pending,
            syncs,
            errors,
            error,
            written,
            pending_bytes,
            waits,
            wait_ns,
            latency_ns,
            window,
            descriptors,
            generation,
            staged,
            staged_bytes,
            slow,
        }
    }
}

/// A log as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStatus {
    /// End of the path the log was opened by.
    pub path: String,
    /// Its numbers, all of one instant.
    pub numbers: LogNumbers,
}

/// A parameter as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamStatus {
    /// Its name.
    pub name: String,
    /// Its unit, as in the object.
    pub unit: String,
    /// The value in the page; the agent clamps it to `min..=max` when it reads it.
    pub value: u64,
    /// Least value.
    pub min: u64,
    /// Greatest value.
    pub max: u64,
}

/// Everything a page says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The process.
    pub pid: u32,
    /// When it made the page: `CLOCK_MONOTONIC`, nanoseconds.
    pub since: Time,
    /// Name of the policy.
    pub policy: String,
    /// Name of the target.
    pub target: String,
    /// Forked children that run.
    pub children: u64,
    /// How often a file of the policy's was opened that found no room, and runs without it.
    pub unplaced: u64,
    /// The parameters.
    pub params: Vec<ParamStatus>,
    /// The logs that are or were open, in the order of their places.
    pub logs: Vec<LogStatus>,
}

/// One log's place.
#[derive(Debug)]
#[repr(C, align(64))]
struct LogPlace {
    /// Odd while the numbers are being written.
    sequence: AtomicU64,
    numbers: [AtomicU64; NUMBERS],
    path: [AtomicU64; PATH],
}

/// One parameter's place.
#[derive(Debug)]
#[repr(C)]
struct ParamPlace {
    name: [AtomicU64; NAME],
    unit: [AtomicU64; 2],
    value: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

/// The layout of the status file. All zero is a valid page that is not [`StatusPage::is_ready`].
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct StatusPage {
    magic: AtomicU64,
    version: AtomicU64,
    pid: AtomicU64,
    since: AtomicU64,
    children: AtomicU64,
    unplaced: AtomicU64,
    policy: [AtomicU64; NAME],
    target: [AtomicU64; NAME],
    params: [ParamPlace; MAX_PARAMS],
    logs: [LogPlace; MAX_LOGS],
}

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
}

impl StatusPage {
    /// Fills in the head; the page is ready afterwards.
    pub fn publish_head(&self, head: &Head<'_>) {
        self.version.store(VERSION, Ordering::Relaxed);
        self.pid.store(head.pid.into(), Ordering::Relaxed);
        self.since.store(head.since, Ordering::Relaxed);
        store_text(&self.policy, head.policy);
        store_text(&self.target, head.target);
        self.magic.store(MAGIC, Ordering::Release);
    }

    /// Whether a head of this version is there.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.magic.load(Ordering::Acquire) == MAGIC
            && self.version.load(Ordering::Relaxed) == VERSION
    }

    /// The process that owns the page.
    #[must_use]
    pub fn pid(&self) -> u32 {
        u32::try_from(self.pid.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Sets the number of forked children that run.
    pub fn publish_children(&self, children: u64) {
        self.children.store(children, Ordering::Relaxed);
    }

    /// Counts a file that found no room. Answers how many did before.
    pub fn count_unplaced(&self) -> u64 {
        self.unplaced.fetch_add(1, Ordering::Relaxed)
    }

    /// How often a file of the policy's was opened that found no room.
    #[must_use]
    pub fn unplaced(&self) -> u64 {
        self.unplaced.load(Ordering::Relaxed)
    }

    /// Describes parameter `index`. Nothing happens beyond [`MAX_PARAMS`].
    pub fn publish_param(&self, index: usize, param: &ParamStatus) {
        let Some(place) = self.params.get(index) else { return };
        place.value.store(param.value, Ordering::Relaxed);
        place.min.store(param.min, Ordering::Relaxed);
        place.max.store(param.max, Ordering::Relaxed);
        store_text(&place.unit, &param.unit);
        store_text(&place.name, &param.name);
    }

    /// The value of parameter `index` as someone left it; not clamped.
    #[must_use]
    pub fn param(&self, index: usize) -> Option<u64> {
        self.params.get(index).map(|p| p.value.load(Ordering::Relaxed))
    }

    /// Names the file of the log at `index`.
    pub fn publish_path(&self, index: usize, path: &str) {
        if let Some(place) = self.logs.get(index) {
            store_text(&place.path, path);
        }
    }

    /// The end of the path of the file of the log at `index`.
    #[must_use]
    pub fn path(&self, index: usize) -> String {
        self.logs.get(index).map_or_else(String::new, |place| load_text(&place.path))
    }

    /// Writes the numbers of the log at `index`. The caller keeps other writers of it away.
    pub fn publish_log(&self, index: usize, numbers: LogNumbers) {
        let Some(place) = self.logs.get(index) else { return };
        let sequence = place.sequence.load(Ordering::Relaxed);
        place.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in place.numbers.iter().zip(numbers.to_words()) {
            word.store(value, Ordering::Relaxed);
        }
        place.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// The numbers of the log at `index`, all of one instant; none if there never was a log.
    #[must_use]
    pub fn log(&self, index: usize) -> Option<LogNumbers> {
        let place = self.logs.get(index)?;
        for _ in 0..TRIES {
            let before = place.sequence.load(Ordering::Acquire);
            if before == 0 {
                return None;
            }
            if before % 2 == 1 {
                std::hint::spin_loop();
                continue;
            }
            let mut words = [0; NUMBERS];
            for (word, value) in words.iter_mut().zip(&place.numbers) {
                *word = value.load(Ordering::Relaxed);
            }
            fence(Ordering::Acquire);
            if place.sequence.load(Ordering::Relaxed) == before {
                return Some(LogNumbers::from_words(words));
            }
        }
        None
    }

    /// Everything the page says.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let params = self.params.iter().map_while(|place| {
            let name = load_text(&place.name);
            (!name.is_empty()).then(|| ParamStatus {
                name,
                unit: load_text(&place.unit),
                value: place.value.load(Ordering::Relaxed),
                min: place.min.load(Ordering::Relaxed),
                max: place.max.load(Ordering::Relaxed),
            })
        });
        let logs = self.logs.iter().enumerate().filter_map(|(index, place)| {
            let numbers = self.log(index)?;
            Some(LogStatus { path: load_text(&place.path), numbers })
        });
        Snapshot {
            pid: self.pid(),
            since: self.since.load(Ordering::Relaxed),
            policy: load_text(&self.policy),
            target: load_text(&self.target),
            children: self.children.load(Ordering::Relaxed),
            unplaced: self.unplaced(),
            params: params.collect(),
            logs: logs.collect(),
        }
    }

    /// Sets the parameter called `name`, clamped; answers what it became, or none if there is no
    /// such parameter.
    pub fn set_param(&self, name: &str, value: u64) -> Option<u64> {
        let place = self.params.iter().find(|p| load_text(&p.name) == name)?;
        let (min, max) = (place.min.load(Ordering::Relaxed), place.max.load(Ordering::Relaxed));
        let value = value.min(max).max(min);
        place.value.store(value, Ordering::Relaxed);
        Some(value)
    }
}

/// Stores the end of `text`, filled up with zeros.
fn store_text(words: &[AtomicU64], text: &str) {
    let mut start = text.len().saturating_sub(words.len() * 8);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let mut bytes = text.bytes().skip(start);
    for word in words {
        let chunk: [u8; 8] = std::array::from_fn(|_| bytes.next().unwrap_or(0));
        word.store(u64::from_le_bytes(chunk), Ordering::Relaxed);
    }
}

fn load_text(words: &[AtomicU64]) -> String {
    let bytes: Vec<u8> = words
        .iter()
        .flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes())
        .take_while(|&b| b != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
