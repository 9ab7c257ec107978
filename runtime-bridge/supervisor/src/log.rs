//! One log: the state that its inode has for all processes, under a lock, and the threads that wait on it.
//!
//! The engine decides, this module carries out. The lock is never held across a sync.

use crate::clock;
use crate::fault_injection::{self, Fault, injects};
use crate::load::Policy;
use crate::look::Look;
use crate::notify::Notification;
use crate::process::Process;
use crate::record::{self, Recorded};
use crate::serve::Supervisor;
use durac_abi::{Layout, READING_MOST};
use durac_engine::{Able, Drain, Errno, Log, Slow, Step, Time, Wait};
use durac_shm::status::{LogNumbers, SyncTimes};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// How long a thread without work stays with a log.
const LINGER: Duration = Duration::from_secs(5);
/// How often a thread begins that a bug ends by a panic.
const LIVES: u32 = 3;
/// Between two tries to start a thread for a log.
pub const AGAIN: Duration = Duration::from_millis(100);
/// Stack of a syncer thread, bytes.
const STACK: usize = 256 << 10;
/// Processes of which a log remembers what they saw.
const MOST_PROCESSES: usize = 1024;

/// Device and inode.
pub type FileId = (u64, u64);

/// A log.
pub struct Slot {
    /// Its number: key of the state map and of the status page.
    pub index: usize,
    /// The path that it was first synced by.
    pub path: String,
    /// The supervisor's own open file.
    pub own: File,
    /// Who looks at the file may wait for its server.
    pub asks: AtomicBool,
    /// When it was seen that a file which is synced has the name of a log, or 0.
    pub named: AtomicU64,
    /// Who it belongs to.
    pub supervisor: &'static Supervisor,
    /// What the trace knows of it, if it is recorded.
    pub recorded: Option<Recorded>,
    /// Itself, for its syncer thread.
    me: Weak<Slot>,
    core: Mutex<Core>,
    /// Calls wait here.
    done: Condvar,
    /// The syncer thread waits here.
    work: Condvar,
}

/// Who looks after the log in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncer {
    /// Nobody yet.
    None,
    /// A thread is at work, or on its way.
    Awake,
    /// One looks again at this time, if nobody wakes it.
    Parked(Time),
    /// None can be started now, or all have ended by a bug: every sync is direct, and what is deferred is the searching
    /// thread's to look after.
    Failed,
}

/// What the lock protects.
pub struct Core {
    /// The rules.
    pub engine: Log,
    /// Who looks after it in the background.
    pub syncer: Syncer,
    /// No thread could be started: when that is tried again.
    hire_at: Option<Time>,
    /// It was told that none could.
    told_alone: bool,
    /// What each process saw of the file at its last sync call.
    seen: HashMap<Process, Seen>,
    /// Writes at the beginning of a log that starts again which no sync call covers yet, made directly and by whomever.
    beginnings: Vec<Beginning>,
    /// Bytes by which the file is known to have grown.
    grown: u64,
    /// Its length, as far as it is counted in `grown`.
    pub length: u64,
    /// Bytes of the writes that were let through, at most, if the policy reads them.
    pub begun: u64,
    /// Those of writes that are known to have ended.
    pub ended: u64,
    /// What was last seen of the file, if writes are looked for.
    pub look: Look,
    /// Nobody had it open to be written when that was last looked for, and it was not opened since.
    pub is_closed: bool,
    /// When that is looked for again, and how long after the last time.
    pub search_at: Time,
    pub search_pause: Duration,
    /// Calls that are inside.
    pub users: u32,
    /// Those of them that a program decides, until it has.
    pub asked: u32,
    /// More processes have synced it than are kept in mind.
    has_forgotten: bool,
    /// When it was first seen to have failed, by `CLOCK_BOOTTIME`.
    pub failed_at: Option<Time>,
    /// It serves no call any more: it is forgotten.
    pub retired: bool,
    /// When it was last used.
    pub used: Time,
    /// Acknowledged calls that became durable after `flush within`, at most.
    late: u64,
    oldest_ever: Time,
    waiters: u32,
    waits: u64,
    wait_ns: u64,
    /// Syncs that took long.
    pub slow: Slow,
    dirty: bool,
    /// The keeper knows it.
    is_kept: bool,
    /// How long the syncs took.
    pub times: SyncTimes,
    /// Calls in a row whose process had not appended anything.
    pub in_place: u32,
}

/// A write at the beginning of a log: the notification, which no other has, its thread, and the number of the system call.
struct Beginning {
    id: u64,
    thread: u32,
    number: i32,
}

/// The lock, held.
pub struct Held<'a> {
    core: MutexGuard<'a, Core>,
    /// Dropped behind the lock: a thread that is woken before would only wait for it.
    wakes: Wakes<'a>,
}

/// Threads of a log to be woken.
struct Wakes<'a> {
    slot: &'a Slot,
    syncer: bool,
    waiters: bool,
}

impl Drop for Wakes<'_> {
    fn drop(&mut self) {
        if self.syncer {
            self.slot.work.notify_one();
        }
        if self.waiters {
            self.slot.done.notify_all();
        }
    }
}

impl<'a> Held<'a> {
    /// Of the lock of `slot`, which was just taken.
    fn new(slot: &'a Slot, core: MutexGuard<'a, Core>) -> Self {
        Self { core, wakes: Wakes { slot, syncer: false, waiters: false } }
    }

    /// Lets the lock go, and waits for the condition or the time; returns whether that was over.
    fn wait_timeout(self, condition: &Condvar, time: Duration) -> (Self, bool) {
        let Self { core, wakes } = self;
        let slot = wakes.slot;
        drop(wakes);
        let (core, over) =
            condition.wait_timeout(core, time).unwrap_or_else(PoisonError::into_inner);
        (Self::new(slot, core), over.timed_out())
    }
}

impl Deref for Held<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        &mut self.core
    }
}

/// What a sync call finds.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    length: u64,
    /// Times of change: seconds and nanoseconds.
    changed: [i64; 4],
}

impl Seen {
    fn of(meta: &Metadata) -> Self {
        let changed = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        Self { length: meta.len(), changed }
    }
}

impl Slot {
    /// A log without calls.
    pub fn new(
        index: usize,
        meta: &Metadata,
        own: File,
        path: String,
        supervisor: &'static Supervisor,
    ) -> Arc<Self> {
        let core = Core {
            engine: Log::new(supervisor.policy().rules),
            syncer: Syncer::None,
            hire_at: None,
            told_alone: false,
            seen: HashMap::new(),
            beginnings: Vec::new(),
            grown: 0,
            length: meta.len(),
            begun: 0,
            ended: 0,
            look: Look::default(),
            is_closed: false,
            search_at: 0,
            search_pause: Duration::ZERO,
            users: 0,
            asked: 0,
            has_forgotten: false,
            failed_at: None,
            retired: false,
            used: clock::now(),
            late: 0,
            oldest_ever: 0,
            waiters: 0,
            waits: 0,
            wait_ns: 0,
            slow: Slow::default(),
            dirty: false,
            is_kept: false,
            times: SyncTimes::default(),
            in_place: 0,
        };
        let (done, work) = (Condvar::new(), Condvar::new());
        let core = Mutex::new(core);
        let recorded = Recorded::opened(&path);
        Arc::new_cyclic(|me| Self {
            index,
            path,
            recorded,
            own,
            asks: AtomicBool::new(true),
            named: AtomicU64::new(0),
            supervisor,
            me: me.clone(),
            core,
            done,
            work,
        })
    }

    /// Its policy: another comes in its place only while this log's lock is held.
    pub fn policy(&self) -> &'static Policy {
        self.supervisor.policy()
    }

    /// Takes the lock.
    pub fn lock(&self) -> Held<'_> {
        Held::new(self, self.core.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Parks the calling thread until `target` is durable or the log has failed. If nobody is going to sync, the
    /// thread does it itself.
    pub fn wait<'a>(&'a self, mut core: Held<'a>, target: u64) -> Held<'a> {
        if core.engine.is_ready(target) {
            return core;
        }
        let since = clock::now();
        let waited = record::waited();
        core.engine.parks(since);
        core.waits += 1;
        self.supervisor.crew.may_block();
        loop {
            let (awake, able) = (core.syncer == Syncer::Awake, core.able());
            match core.engine.wait(target, awake, able) {
                Wait::Ready => break,
                Wait::Sync => core = self.sync(core, None, false).0,
                Wait::Sleep => {
                    self.poke(&mut core, since);
                    core = self.sleep(core);
                }
            }
        }
        let took = clock::now().saturating_sub(since);
        core.wait_ns += took;
        record::set_waited(waited + took);
        core
    }

    /// Sleeps until something has changed, or for a while.
    pub fn sleep<'a>(&'a self, mut core: Held<'a>) -> Held<'a> {
        core.waiters += 1;
        let (mut core, _) = core.wait_timeout(&self.done, durac_engine::SLOW);
        core.waiters -= 1;
        core
    }

    /// Wakes the calls that wait, when the lock is let go.
    pub fn wake(core: &mut Held<'_>) {
        core.wakes.waiters |= core.waiters > 0;
    }

    /// Makes everything acknowledged durable.
    pub fn drain<'a>(&'a self, mut core: Held<'a>) -> (Held<'a>, Result<(), Errno>) {
        loop {
            match core.engine.drain() {
                Drain::Done => return (core, Ok(())),
                Drain::Failed(errno) => return (core, Err(errno)),
                Drain::Wait(target) => core = self.wait(core, target),
                Drain::Sync => {
                    let result;
                    (core, result) = self.sync(core, None, false);
                    if let Err(errno) = result {
                        return (core, Err(errno));
                    }
                }
            }
        }
    }

    /// Has a syncer thread come when the lock is let go, if the engine has work that none knows of.
    pub fn poke(&self, core: &mut Held<'_>, now: Time) {
        let wake_at = match core.step(self, now) {
            Step::Start => now,
            Step::At(time) => time,
            Step::Idle => return,
        };
        match core.syncer {
            Syncer::Parked(until) if wake_at < until => {
                core.syncer = Syncer::Awake;
                core.wakes.syncer = true;
            }
            Syncer::None => self.hire(core, now),
            Syncer::Failed if core.hire_at.is_some_and(|at| at <= now) => self.hire(core, now),
            Syncer::Parked(_) | Syncer::Awake | Syncer::Failed => {}
        }
    }

    fn hire(&self, core: &mut Core, now: Time) {
        let Some(slot) = self.me.upgrade() else { return };
        let builder = thread::Builder::new().name("durac-sync".into()).stack_size(STACK);
        let body = move || {
            for _ in 0..LIVES {
                if catch_unwind(AssertUnwindSafe(|| slot.look_after())).is_ok() {
                    return;
                }
                // A bug. What is deferred still has its deadline.
            }
            // No other thread comes: whoever waits for this one syncs by itself, and what nobody waits for is synced now.
            let mut core = slot.lock();
            core.syncer = Syncer::Failed;
            slot.supervisor.opening.comes();
            Self::wake(&mut core);
            let rest = AssertUnwindSafe(|| drop(slot.drain(core)));
            let _ = catch_unwind(rest);
        };
        (core.syncer, core.hire_at) = match builder.spawn(body) {
            Ok(_) => (Syncer::Awake, None),
            Err(error) => {
                if !std::mem::replace(&mut core.told_alone, true) {
                    crate::note::error(&format!(
                        "{}: cannot start a thread: {error}; until one starts, its syncs are direct",
                        self.path
                    ));
                }
                self.supervisor.opening.comes();
                (Syncer::Failed, Some(now.saturating_add(AGAIN.as_nanos() as Time)))
            }
        };
    }

    /// Whether no thread looks after the log, and others have to.
    pub fn is_alone(&self) -> bool {
        let core = self.lock();
        core.syncer == Syncer::Failed && !core.retired
    }

    /// Does what its thread would, if it has none and none can be started now.
    pub fn look_after_once(&self) {
        let mut core = self.lock();
        let now = clock::now();
        if core.hire_at.is_some_and(|at| at <= now) {
            self.poke(&mut core, now);
        }
        if core.syncer != Syncer::Failed || core.retired {
            return;
        }
        core = self.look_in_time(core, now);
        if core.syncer == Syncer::Failed && core.step(self, now) == Step::Start {
            drop(self.fly(core, None, (true, false)));
        }
    }

    /// The syncer thread of a log: carries out what its engine asks for.
    fn look_after(&self) {
        let mut core = self.lock();
        let mut idle = false;
        loop {
            core.syncer = Syncer::Awake;
            let now = clock::now();
            core = self.look_in_time(core, now);
            let pause = match core.step(self, now) {
                Step::Start => {
                    fault_injection::panics(Fault::PanicInSyncer, |_| true);
                    core = self.fly(core, None, (true, false)).0;
                    idle = false;
                    continue;
                }
                Step::At(time) => {
                    core.syncer = Syncer::Parked(time);
                    Duration::from_nanos(time.saturating_sub(now))
                }
                Step::Idle if idle => break,
                Step::Idle => {
                    core.syncer = Syncer::Parked(Time::MAX);
                    LINGER
                }
            };
            let timed_out;
            (core, timed_out) = core.wait_timeout(&self.work, pause);
            idle = timed_out && pause == LINGER;
        }
        core.syncer = Syncer::None;
    }

    /// A sync call of a process: returns whether something is known to have been appended since that process' last one.
    pub fn has_grown(&self, core: &mut Core, process: Process, meta: &Metadata) -> bool {
        let now = Seen::of(meta);
        if core.seen.len() >= MOST_PROCESSES {
            core.seen.retain(|process, _| process.is_alive());
            if core.seen.len() >= MOST_PROCESSES {
                core.seen.clear();
                core.has_forgotten = true;
            }
        }
        let before = core.seen.insert(process, now);
        let grown = before.is_some_and(|before| match self.policy().meta.layout {
            Layout::Append => now.length > before.length,
            Layout::Ring => now != before && core.beginnings.is_empty(),
        });
        let grown = grown || before.is_some() && injects(Fault::NoBarrier);
        self.measure(core, now.length, grown);
        grown
    }

    /// The file has this length now, and something was written if `written`.
    pub fn measure(&self, core: &mut Core, length: u64, written: bool) {
        core.grown += length.saturating_sub(core.length).max(u64::from(written));
        core.length = length;
        if written && !self.policy().rules.keeps_amounts {
            let total = core.grown;
            core.engine.wrote(total);
        }
    }

    /// A write of so many bytes is let through.
    pub fn begins(&self, core: &mut Core, len: u64) {
        core.begun = core.begun.saturating_add(len);
    }

    /// It has ended.
    pub fn ended(&self, len: u64) {
        let mut core = self.lock();
        core.ended = core.ended.saturating_add(len);
        if self.policy().rules.keeps_amounts {
            let total = core.ended;
            core.engine.wrote(total);
        }
    }

    /// The log goes by the rules of another policy from now on. No program runs, and everything acknowledged is durable,
    /// but for what a look has just found. `looked` if the file was looked at up to now, as far as the old policy has it.
    pub fn follow(&self, core: &mut Held<'_>, next: &Policy, looked: bool) {
        let (old, rules) = (core.engine.rules(), next.rules);
        // What the two count goes on from the same number.
        let written = core.engine.written();
        core.grown = core.grown.max(written);
        let more = written.saturating_sub(core.ended);
        core.ended += more;
        core.begun = core.begun.saturating_add(more);
        if rules.keeps_amounts && !old.keeps_amounts {
            core.engine.lose_bytes();
        }
        core.engine.follow(rules);
        if rules.defers_writes && !(old.defers_writes && looked) {
            self.begin_to_look(core, clock::now());
        }
        self.publish(core);
        self.poke(core, clock::now());
    }

    /// Its policy reads how much is written, and it is not known, since writes were not counted before.
    pub fn is_counted_late(&self) -> bool {
        let core = self.lock();
        let reads = core.engine.rules().keeps_amounts && !core.retired;
        reads && core.engine.is_unsure_of_bytes()
    }

    /// A thread is about to write at the beginning of the log: sync calls are made directly until one covers it, whichever
    /// process calls.
    pub fn starts_again(&self, call: &Notification) {
        let mut core = self.lock();
        // What the thread has written before is written: its last one stands for all.
        core.beginnings.retain(|begun| begun.thread != call.thread);
        let Notification { id, thread, number, .. } = *call;
        core.beginnings.push(Beginning { id, thread, number });
    }

    /// The beginnings that are written, and that a sync of this thread covers if it begins now.
    pub fn written_beginnings(core: &Core, thread: u32) -> Vec<u64> {
        let is_written = |begun: &&Beginning| {
            begun.thread == thread || !crate::process::may_be_in(begun.thread, begun.number)
        };
        core.beginnings.iter().filter(is_written).map(|begun| begun.id).collect()
    }

    /// A sync that covers these was made directly, with success.
    pub fn covers_beginnings(core: &mut Core, covered: &[u64]) {
        core.beginnings.retain(|begun| !covered.contains(&begun.id));
    }

    /// A recorded call uses it: somebody has it open.
    pub fn is_used(&self) {
        let mut core = self.lock();
        core.used = clock::now();
        core.is_closed = false;
        core.search_pause = Duration::ZERO;
    }

    /// It serves no call any more.
    pub fn retire(&self, core: &mut Core) {
        core.retired = true;
        self.publish(core);
        if let Some(recorded) = &self.recorded {
            recorded.closed();
        }
    }

    /// Whether it has not been used for so long, and who has it open may be looked for again.
    pub fn is_idle(&self, core: &Core, now: Time, idle: Duration) -> bool {
        let unused = Duration::from_nanos(now.saturating_sub(core.used)) > idle;
        unused && !core.is_closed && core.search_at <= now
    }

    /// Whether this process has synced the log.
    pub fn is_known_to(&self, core: &Core, process: Process) -> bool {
        core.seen.contains_key(&process)
    }

    /// Whether a process that has synced the log still runs.
    pub fn is_in_use(&self, core: &Core) -> bool {
        core.seen.keys().any(|process| process.is_alive())
    }

    /// Whether a process may have written what a failed sync has lost, though it is not known to have synced the log: of logs
    /// whose writes are looked for, nobody knows who writes them.
    pub fn may_have_written(&self, core: &Core, process: Process) -> bool {
        (core.engine.rules().defers_writes || core.has_forgotten)
            && core.failed_at.is_none_or(|failed| process.number == 0 || process.began <= failed)
    }

    /// Tells the status page, the keeper and the other logs.
    pub fn publish(&self, core: &mut Core) {
        if core.failed_at.is_none() && core.engine.error().is_some() {
            core.failed_at = Some(clock::of(libc::CLOCK_BOOTTIME));
        }
        let dirty = !core.retired && core.engine.undrained().is_some();
        if dirty != core.dirty {
            core.dirty = dirty;
            self.supervisor.logs.count_dirty(dirty);
        }
        // Of a log whose writes are looked for, more may be written than was seen.
        let may_be_behind = dirty || !core.retired && core.engine.rules().defers_writes;
        if may_be_behind != core.is_kept {
            core.is_kept = may_be_behind;
            let fd = may_be_behind.then(|| self.own.as_raw_fd());
            self.supervisor.shared.defers(self.index, fd);
        }
        let age = core.engine.pending_age(clock::now());
        let within = core.engine.rules().flush_within;
        self.supervisor.page.status.publish_log(
            self.index,
            LogNumbers {
                waits: core.waits,
                wait_ns: core.wait_ns,
                descriptors: u64::from(!core.retired),
                generation: 1,
                slow: core.slow.count,
                late: core.late,
                oldest_ever_ns: core.oldest_ever,
                oldest_since: match within {
                    Some(_) if dirty => clock::now().saturating_sub(age),
                    _ => 0,
                },
                ..LogNumbers::of(&core.engine)
            },
        );
    }

    /// A sync is about to be believed: counts what it makes durable too late.
    pub fn count_late(&self, core: &mut Core, now: Time) {
        let Some(within) = core.engine.rules().flush_within else { return };
        let age = core.engine.pending_age(now);
        core.oldest_ever = core.oldest_ever.max(age);
        if age > within {
            core.late += core.engine.unsynced();
        }
    }
}

impl Core {
    /// What a syncer thread does next.
    fn step(&self, slot: &Slot, now: Time) -> Step {
        let next = self.engine.next(now);
        match (next, self.look.due(slot, self)) {
            (Step::At(at), Some(due)) => Step::At(at.min(due)),
            (Step::Idle, Some(due)) => Step::At(due),
            (next, _) => next,
        }
    }

    /// `pending.bytes` as a program reads it: writes that may not have ended count, and no sync is known to cover them.
    pub fn pending_bytes(&self) -> u64 {
        let open = self.begun.saturating_sub(self.ended);
        self.engine.read_bytes().saturating_add(open).min(READING_MOST)
    }

    /// What is at hand.
    pub fn able(&self) -> Able {
        Able { descriptor: true, background: self.syncer != Syncer::Failed }
    }
}
