//! The status page: what a running agent shows to other processes, and the parameters they may
//! change.
//!
//! One page layout of 64-bit numbers in shared memory. The agent makes it ([`create`]); a
//! reader maps it ([`Status::open`]). The numbers of one log are written under a sequence lock, so
//! a reader sees acknowledged and durable of the same instant.

mod attention;
mod control;
mod file;
mod find;
mod head;
mod numbers;
mod sequence;
mod stage_off;
mod times;
mod uncounted;

pub use attention::{NotAsked, Storage, no_log_hint};
pub use control::{Answer, Command, Control, ControlPage, INBOX, Request};
pub use file::{Created, Status, create};
pub use find::{Running, began, began_by, running};
pub use head::{Amounts, Bound, Head};
pub use numbers::LogNumbers;
pub use stage_off::StageOff;
pub use times::{CLASSES, LIMITS, SyncTimes};
pub use uncounted::{Counting, Uncounted};

use durac_engine::Time;
use head::HeadPlace;
use numbers::NUMBERS;
use sequence::Patience;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use times::TimesPlace;

/// First word of a status page: `duracst` and a 1.
pub const MAGIC: u64 = u64::from_le_bytes(*b"duracst\x01");
/// Version of the layout.
pub const VERSION: u64 = 10;
/// Logs that have a place in the page; those beyond run under the policy, and only their number is shown.
pub const MAX_LOGS: usize = 64;
/// Words with a bit for each log beyond.
const BEYOND: usize = (durac_abi::MAX_LOGS as usize - MAX_LOGS).div_ceil(64);
/// Parameters that have a place in the page; an object with more is refused.
pub const MAX_PARAMS: usize = 64;

/// What the process of a page is: a program in Go, a supervisor.
const GO: u64 = 1;
const SUPERVISOR: u64 = 2;
/// Words of a name: 64 bytes.
const NAME: usize = 8;
/// Words of a path: its last 128 bytes.
const PATH: usize = 16;

/// A log as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStatus {
    /// End of the path the log was opened by.
    pub path: String,
    /// Device and inode of the file.
    pub file: (u64, u64),
    /// Its numbers, all of one instant.
    pub numbers: LogNumbers,
    /// How long its syncs took.
    pub times: SyncTimes,
}

/// A parameter as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamStatus {
    /// Name in the policy.
    pub name: String,
    /// Its unit, as in the object.
    pub unit: String,
    /// The value in the page; the agent clamps it to `min..=max` when it reads it.
    pub value: u64,
    /// The value of the object: that of [`Bound`].
    pub default: u64,
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
    /// Which object it is: `durac_abi::object::fingerprint` of its bytes.
    pub object: u64,
    /// What a power loss can take, as its object says.
    pub bound: Bound,
    /// It was switched off ([`Command::Off`]): every call runs as the application makes it.
    pub is_off: bool,
    /// It has turned itself off for as long as the command runs: [`Command::On`] is refused.
    pub stays_off: bool,
    /// How often it was exchanged, switched off or on.
    pub changes: u64,
    /// Most sync calls at once that were acknowledged and not durable, of any log since the process began.
    pub most_syncs: u64,
    /// The same in updates.
    pub most_updates: u64,
    /// The same in bytes.
    pub most_bytes: u64,
    /// Forked children that run.
    pub children: u64,
    /// How often a file of the policy's was opened that found no room, and runs without it.
    pub unplaced: u64,
    /// Open logs that run under the policy and have no place in the page.
    pub beyond: u64,
    /// The program is written in Go: it makes system calls past the C library, which the policy does not see.
    pub is_go: bool,
    /// It is a supervisor, which runs the policy for the processes of a command.
    pub is_supervisor: bool,
    /// Of a supervisor: the process whose call gave its newest log its place, and when that was by `CLOCK_BOOTTIME`.
    pub serves: (u32, Time),
    /// Bytes of held replies.
    pub held_bytes: u64,
    /// Connections with held replies.
    pub held_connections: u64,
    /// Replies that were ever held.
    pub held_replies: u64,
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
    times: TimesPlace,
    path: [AtomicU64; PATH],
    file: [AtomicU64; 2],
}

/// One parameter's place.
#[derive(Debug)]
#[repr(C)]
struct ParamPlace {
    name: [AtomicU64; NAME],
    unit: [AtomicU64; 2],
    value: AtomicU64,
    default: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

impl ParamPlace {
    fn write(&self, param: &ParamStatus) {
        self.value.store(param.value, Ordering::Relaxed);
        self.default.store(param.default, Ordering::Relaxed);
        self.min.store(param.min, Ordering::Relaxed);
        self.max.store(param.max, Ordering::Relaxed);
        store_text(&self.unit, &param.unit);
        store_text(&self.name, &param.name);
    }

    /// None if there is no parameter.
    fn read(&self) -> Option<ParamStatus> {
        let name = load_text(&self.name);
        (!name.is_empty()).then(|| ParamStatus {
            name,
            unit: load_text(&self.unit),
            value: self.value.load(Ordering::Relaxed),
            default: self.default.load(Ordering::Relaxed),
            min: self.min.load(Ordering::Relaxed),
            max: self.max.load(Ordering::Relaxed),
        })
    }
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
    /// [`GO`] and [`SUPERVISOR`].
    what: AtomicU64,
    most_syncs: AtomicU64,
    most_updates: AtomicU64,
    most_bytes: AtomicU64,
    held_bytes: AtomicU64,
    held_connections: AtomicU64,
    held_replies: AtomicU64,
    serves: [AtomicU64; 2],
    head: HeadPlace,
    params: [ParamPlace; MAX_PARAMS],
    logs: [LogPlace; MAX_LOGS],
    /// A bit for each log from [`MAX_LOGS`] on: it is open.
    beyond: [AtomicU64; BEYOND],
}

impl StatusPage {
    /// Fills in the head and the parameters; the page is ready afterwards. A reader sees all of one policy.
    pub fn publish_head(&self, head: &Head<'_>, params: &[ParamStatus]) {
        self.publish_policy(head, params);
        self.publish_ready(head.pid, head.since);
    }

    /// The page is ready from now on: the process is at work. A policy was published before.
    pub fn publish_ready(&self, pid: u32, since: Time) {
        self.version.store(VERSION, Ordering::Relaxed);
        self.pid.store(pid.into(), Ordering::Relaxed);
        self.since.store(since, Ordering::Relaxed);
        self.magic.store(MAGIC, Ordering::Release);
    }

    /// The same for a policy that has come in the place of another. The caller keeps other writers away.
    pub fn publish_policy(&self, head: &Head<'_>, params: &[ParamStatus]) {
        self.head.write(head, || {
            for (index, place) in self.params.iter().enumerate() {
                match params.get(index) {
                    Some(param) => place.write(param),
                    None => store_text(&place.name, ""),
                }
            }
        });
    }

    /// The same of what is said of a policy that stays. The caller keeps other writers away.
    pub fn publish_head_again(&self, head: &Head<'_>) {
        self.head.write(head, || {});
    }

    /// The policy, which is off, stays so. What is published next says it anew.
    pub fn publish_stays_off(&self) {
        self.head.stays_off();
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

    /// When the process began whose page this is.
    #[must_use]
    pub fn since(&self) -> Time {
        self.since.load(Ordering::Relaxed)
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

    /// A reply is held: so many bytes, of a connection that had none.
    pub fn add_held(&self, bytes: u64, is_first: bool) {
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.held_connections.fetch_add(is_first.into(), Ordering::Relaxed);
        self.held_replies.fetch_add(1, Ordering::Relaxed);
    }

    /// So many held bytes were sent or thrown away, and nothing is left of the connection.
    pub fn remove_held(&self, bytes: u64, was_last: bool) {
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.held_connections.fetch_sub(was_last.into(), Ordering::Relaxed);
    }

    /// The program is written in Go.
    pub fn publish_go(&self) {
        self.what.fetch_or(GO, Ordering::Relaxed);
    }

    /// The process is a supervisor, which runs the policy for others.
    pub fn publish_supervisor(&self) {
        self.what.fetch_or(SUPERVISOR, Ordering::Relaxed);
    }

    /// Of a supervisor: this process is the newest that it serves. One process publishes this at a time.
    pub fn publish_served(&self, pid: u32, now: Time) {
        let [process, at] = &self.serves;
        process.store(pid.into(), Ordering::Relaxed);
        at.store(now, Ordering::Relaxed);
    }

    /// The value of parameter `index` as someone left it; not clamped.
    #[inline]
    #[must_use]
    pub fn param(&self, index: usize) -> Option<u64> {
        self.params.get(index).map(|p| p.value.load(Ordering::Relaxed))
    }

    /// The values of all places for parameters, as [`StatusPage::param`] returns them.
    #[inline]
    pub fn param_values(&self) -> impl Iterator<Item = u64> {
        self.params.iter().map(|place| place.value.load(Ordering::Relaxed))
    }

    /// Names the file of the log at `index`: its path, its device and its inode.
    pub fn publish_file(&self, index: usize, path: &str, file: (u64, u64)) {
        if let Some(place) = self.logs.get(index) {
            store_text(&place.path, path);
            let [device, inode] = &place.file;
            device.store(file.0, Ordering::Relaxed);
            inode.store(file.1, Ordering::Relaxed);
        }
    }

    /// The end of the path of the file of the log at `index`.
    #[must_use]
    pub fn path(&self, index: usize) -> String {
        self.logs.get(index).map_or_else(String::new, |place| load_text(&place.path))
    }

    /// Writes the numbers of the log at `index`. The caller keeps other writers of it away.
    #[inline]
    pub fn publish_log(&self, index: usize, numbers: LogNumbers) {
        for (most, now) in [
            (&self.most_syncs, numbers.max_pending),
            (&self.most_updates, numbers.max_updates),
            (&self.most_bytes, numbers.max_bytes),
        ] {
            if most.load(Ordering::Relaxed) < now {
                most.fetch_max(now, Ordering::Relaxed);
            }
        }
        let Some(place) = self.logs.get(index) else {
            return self.publish_beyond(index, numbers.descriptors > 0);
        };
        let sequence = place.sequence.load(Ordering::Relaxed);
        place.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in place.numbers.iter().zip(numbers.to_words()) {
            word.store(value, Ordering::Relaxed);
        }
        place.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// A log without a place is open, or not.
    fn publish_beyond(&self, index: usize, is_open: bool) {
        let at = index.saturating_sub(MAX_LOGS);
        let Some(word) = self.beyond.get(at / 64) else { return };
        let bit = 1 << (at % 64);
        // Mostly it is known.
        match (word.load(Ordering::Relaxed) & bit != 0, is_open) {
            (false, true) => _ = word.fetch_or(bit, Ordering::Relaxed),
            (true, false) => _ = word.fetch_and(!bit, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Says how long the syncs of the log at `index` took.
    pub fn publish_times(&self, index: usize, times: &SyncTimes) {
        if let Some(place) = self.logs.get(index) {
            place.times.write(times);
        }
    }

    /// The numbers of the log at `index`, all of one instant; none if there never was a log.
    #[must_use]
    pub fn log(&self, index: usize) -> Option<LogNumbers> {
        self.read_log(index, &mut Patience::default())
    }

    fn read_log(&self, index: usize, patience: &mut Patience) -> Option<LogNumbers> {
        let place = self.logs.get(index)?;
        if place.sequence.load(Ordering::Acquire) == 0 {
            return None;
        }
        let read = || place.numbers.each_ref().map(|word| word.load(Ordering::Relaxed));
        patience.read_whole(&place.sequence, read).ok().map(LogNumbers::from_words)
    }

    /// Everything the page says.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        // For all of it: a page with nothing but sequences that never end does not keep a tool for long.
        let patience = &mut Patience::default();
        let (head, params) = self.head.read(patience, || {
            let read = self.params.iter().map_while(ParamPlace::read);
            read.collect::<Vec<_>>()
        });
        let logs = self.logs.iter().enumerate().filter_map(|(index, place)| {
            let numbers = self.read_log(index, patience)?;
            let [device, inode] = place.file.each_ref().map(|word| word.load(Ordering::Relaxed));
            let (path, file) = (load_text(&place.path), (device, inode));
            Some(LogStatus { path, file, numbers, times: place.times.read() })
        });
        Snapshot {
            pid: self.pid(),
            since: self.since(),
            policy: head.policy,
            target: head.target,
            object: head.object,
            bound: head.bound,
            is_off: head.is_off,
            stays_off: head.stays_off,
            changes: head.changes,
            most_syncs: self.most_syncs.load(Ordering::Relaxed),
            most_updates: self.most_updates.load(Ordering::Relaxed),
            most_bytes: self.most_bytes.load(Ordering::Relaxed),
            children: self.children.load(Ordering::Relaxed),
            unplaced: self.unplaced(),
            beyond: self
                .beyond
                .iter()
                .map(|word| u64::from(word.load(Ordering::Relaxed).count_ones()))
                .sum(),
            is_go: self.what.load(Ordering::Relaxed) & GO != 0,
            is_supervisor: self.what.load(Ordering::Relaxed) & SUPERVISOR != 0,
            serves: self.serves(),
            held_bytes: self.held_bytes.load(Ordering::Relaxed),
            held_connections: self.held_connections.load(Ordering::Relaxed),
            held_replies: self.held_replies.load(Ordering::Relaxed),
            params,
            logs: logs.collect(),
        }
    }

    /// What was published so.
    #[must_use]
    pub fn serves(&self) -> (u32, Time) {
        let [process, at] = self.serves.each_ref().map(|word| word.load(Ordering::Relaxed));
        (u32::try_from(process).unwrap_or(0), at)
    }

    /// Sets the parameter called `name`, clamped, and returns the new value, or none if there is no
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
