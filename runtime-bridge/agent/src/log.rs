//! One log: the engine's state under a lock, and the threads that wait on it.
//!
//! The engine decides, this module carries out: parking and waking, and in [`crate::flight`] real syncs
//! on real descriptors. The lock is held for nanoseconds; never across a system call that can sleep.

use crate::clock;
use crate::crowd::Crowd;
use crate::deadline::{Deadlines, Late};
pub use crate::lock::Held;
use crate::look::Look;
use crate::note;
use crate::owned;
use crate::pool::{Pool, Submitted};
use crate::proof::Proof;
use crate::records::Count;
use crate::registry::{self, FileId};
use crate::replies::{Choice, Way};
use crate::stage::{Stage, StageOff};
use crate::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, PoisonError};
use crate::table;
use crate::watch::Watch;
use crate::written::Written;
use durac_abi::Records;
use durac_engine::{Able, Drain, Errno, Log, Quiet, Rules, Slow, Step, Time};
use durac_shm::status::{
    Counting, LogNumbers, NotAsked, StatusPage, Storage, SyncTimes, Uncounted,
};
use std::os::fd::RawFd;

/// A place for a log. It lives for ever and serves one file after the other, so that a thread
/// that comes late with a stale descriptor still finds memory.
pub struct Slot {
    /// Its number: key of the state map and of the status page.
    pub index: usize,
    /// What writes count, which do not take the lock.
    pub written: Written,
    /// Bytes that had been written when the last sync call began.
    pub called: AtomicU64,
    /// Sync calls that have begun; no more than two are counted.
    calls: AtomicU32,
    /// Since when something is written that no sync call has followed, or 0.
    uncalled: AtomicU64,
    /// When it was last looked at whether the policy has an effect.
    looked: AtomicU64,
    /// It has none.
    not_asked: AtomicBool,
    /// Counts their updates.
    pub count: Count,
    /// With `callers one`: writes that the policy has let through and that have not ended.
    pub writing: AtomicU32,
    /// Whether another process has the log open.
    pub crowd: Crowd,
    /// What proves that a descriptor is the log's file.
    pub proof: Proof,
    /// The error that stopped the log, or 0: for writes, which do not take the lock.
    pub error: AtomicI32,
    /// Bytes that are durable, of those written; all there can be once the log is closed.
    pub covered: AtomicU64,
    /// Which file the place serves, counted: with its number, the name of the log among held replies.
    pub serial: AtomicU64,
    /// Replies are known to wait for so many bytes.
    pub held: AtomicU64,
    /// Something is acknowledged and not durable, or staged.
    dirty: AtomicBool,
    /// Something is staged.
    staged: AtomicBool,
    /// It was told that another process has the log open.
    pub told_crowd: AtomicBool,
    /// The application has locked parts of the file: closing any descriptor of it drops the locks.
    pub posix_locks: AtomicBool,
    pub status: &'static StatusPage,
    core: Mutex<Core>,
    /// Calls of the application wait here.
    pub done: Condvar,
}

/// How often it is looked at whether the policy has an effect, nanoseconds.
const LOOK_EVERY: Time = 100_000_000;

/// Who looks after the log in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncer {
    /// A syncer thread is there, or on its way.
    Awake,
    /// One comes at this time, if nobody asks for it before.
    Parked(Time),
    /// Every one is busy, or none can be started. Until one comes, every sync is direct.
    Queued,
    /// There is no descriptor for it, or it has died over this log: every sync is direct.
    Failed,
}

/// What the lock protects.
pub struct Core {
    /// The rules.
    pub engine: Log,
    /// Who looks after it in the background.
    pub syncer: Syncer,
    /// The syncer threads of its device; none before the first file.
    pub pool: Option<&'static Pool>,
    /// Bytes that are acknowledged and not in the file.
    pub stage: Stage,
    /// The file; that of the last log while there is none.
    pub file: FileId,
    /// The agent's own descriptor of the file, safe from the application's `close`.
    pub own_fd: Option<RawFd>,
    /// What the kernel has seen of it.
    pub watch: Option<Watch>,
    /// Descriptors of the application.
    pub fds: u32,
    /// Calls that are inside, and a syncer thread: the place cannot serve another file meanwhile.
    pub users: u32,
    /// Calls of the application that are between their beginning and their result, or that hold the lock.
    pub calls: u32,
    /// Calls that a program decides, until it has.
    pub asked: u32,
    /// The policy is about to be exchanged: calls are the application's own until it is.
    pub changing: bool,
    /// Calls that passed because they overlapped another.
    pub overlaps: u64,
    /// The last descriptor was closed: the syncer ends.
    pub retired: bool,
    /// Calls that wait.
    pub waiters: u32,
    pub waits: u64,
    pub wait_ns: u64,
    generation: u64,
    pub slow: Slow,
    /// When it was last told that a sync took longer than the policy assumes.
    pub broken: Quiet,
    /// How old acknowledged calls are.
    pub deadlines: Deadlines,
    /// Calls became durable too late, which is to be told.
    pub late: Option<Late>,
    /// It was told that what is written is no longer counted.
    told_uncounted: bool,
    /// Why the policy has no effect, which was told.
    pub not_asked: Option<NotAsked>,
    /// Since when it has an effect again, if that is not told yet, and the bytes that were written then.
    pub asked_since: Option<(Time, u64)>,
    /// What was seen of the file, if its writes are deferred.
    pub look: Look,
    /// How long syncs took.
    pub times: SyncTimes,
    /// The file system.
    pub storage: Storage,
    /// Who syncs for held replies.
    pub choice: Choice,
    pub way: Way,
    /// Calls that had been acknowledged when a syncer thread last looked.
    pub acknowledged_before: u64,
    /// The log is closed, and the agent's descriptor of it is still used by a sync: counted in [`LATE`].
    lingers: bool,
    /// What is known of the file.
    pub known: crate::stamp::Known,
}

/// Logs whose agent's descriptor outlives the application's.
static LATE: AtomicU32 = AtomicU32::new(0);

/// Whether there is a log whose agent's descriptor outlives the application's.
#[inline]
pub fn any_lingers() -> bool {
    LATE.load(Ordering::Acquire) != 0
}

impl Core {
    /// Whether something has to be written or synced before others may see the files. What a closed log could not make durable is lost and
    /// was reported; it holds up nobody any more.
    pub fn is_dirty(&self) -> bool {
        !self.retired && (self.engine.drain() != Drain::Done || !self.stage.is_empty())
    }

    /// Whether writes that no sync call follows are to be synced.
    pub fn defers_writes(&self) -> bool {
        self.engine.rules().defers_writes
    }

    /// What there is to work with.
    pub fn able(&self) -> Able {
        let background = matches!(self.syncer, Syncer::Awake | Syncer::Parked(_));
        Able { descriptor: self.own_fd.is_some(), background }
    }

    /// Whether nobody is going to sync in the background what the engine wants to be synced some time.
    pub fn is_left_alone(&self, now: Time) -> bool {
        !self.able().background && self.engine.next(now) != Step::Idle
    }
}

impl Slot {
    /// An empty place.
    pub fn new(index: usize, status: &'static StatusPage) -> Self {
        Self {
            index,
            written: Written::new(),
            called: AtomicU64::new(0),
            calls: AtomicU32::new(0),
            uncalled: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            not_asked: AtomicBool::new(false),
            count: Count::new(),
            writing: AtomicU32::new(0),
            proof: Proof::new(),
            crowd: Crowd::new(),
            error: AtomicI32::new(0),
            covered: AtomicU64::new(u64::MAX),
            serial: AtomicU64::new(0),
            held: AtomicU64::new(0),
            dirty: AtomicBool::new(false),
            staged: AtomicBool::new(false),
            posix_locks: AtomicBool::new(false),
            told_crowd: AtomicBool::new(false),
            status,
            core: Mutex::new(Core {
                engine: Log::default(),
                syncer: Syncer::Failed,
                pool: None,
                stage: Stage::default(),
                file: (0, 0),
                own_fd: None,
                watch: None,
                fds: 0,
                users: 0,
                calls: 0,
                asked: 0,
                changing: false,
                overlaps: 0,
                retired: true,
                waiters: 0,
                waits: 0,
                wait_ns: 0,
                generation: 0,
                slow: Slow::default(),
                broken: Quiet::default(),
                deadlines: Deadlines::new(None),
                late: None,
                told_uncounted: false,
                not_asked: None,
                asked_since: None,
                look: Look::default(),
                times: SyncTimes::default(),
                storage: Storage::Usual,
                choice: Choice::default(),
                way: Way::Loop,
                acknowledged_before: 0,
                lingers: false,
                known: crate::stamp::Known::default(),
            }),
            done: Condvar::new(),
        }
    }

    /// Whether a write that the policy has let through has not ended.
    pub fn is_writing(&self) -> bool {
        self.writing.load(Ordering::Acquire) > 0
    }

    /// Takes the lock.
    pub fn lock(&self) -> Held<'_> {
        Held::new(self.core.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the place a log that was just opened.
    pub fn reuse(&self, core: &mut Core, rules: Rules, opened: Opened<'_>) {
        let Opened { file, own_fd, pool, path, storage } = opened;
        core.file = file;
        core.engine = Log::new(rules);
        core.syncer = if own_fd.is_some() { Syncer::Parked(Time::MAX) } else { Syncer::Failed };
        core.pool = Some(pool);
        core.stage.reset();
        if rules.stages {
            core.stage.reserve();
        }
        self.posix_locks.store(false, Ordering::Relaxed);
        self.told_crowd.store(false, Ordering::Relaxed);
        owned::set(self.index, file, own_fd);
        core.own_fd = own_fd;
        self.proof.set(file, own_fd);
        self.crowd.join(file);
        core.fds = 0;
        core.retired = false;
        core.overlaps = 0;
        core.waits = 0;
        core.wait_ns = 0;
        core.generation += 1;
        core.slow = Slow::default();
        core.broken = Quiet::default();
        core.deadlines = Deadlines::new(rules.flush_within);
        core.late = None;
        core.told_uncounted = false;
        core.not_asked = None;
        core.asked_since = None;
        core.look = Look::from(clock::now());
        core.times = SyncTimes::default();
        core.storage = storage;
        self.called.store(0, Ordering::Relaxed);
        self.calls.store(0, Ordering::Relaxed);
        self.uncalled.store(0, Ordering::Relaxed);
        self.looked.store(0, Ordering::Relaxed);
        self.not_asked.store(false, Ordering::Relaxed);
        core.choice = Choice::default();
        core.way = Way::Loop;
        self.written.begin();
        if rules.keeps_amounts {
            self.written.begin_amounts();
            self.count.begin(rules, &self.written);
        }
        self.held.store(0, Ordering::Relaxed);
        self.serial.fetch_add(1, Ordering::Release);
        self.set_watch(core, None);
        self.error.store(0, Ordering::Relaxed);
        self.status.publish_file(self.index, path, file);
        self.status.publish_times(self.index, &core.times);
        self.publish(core);
    }

    /// A sync has ended, after so long.
    pub fn took(&self, core: &mut Core, time: Time) {
        core.times.add(time);
        self.status.publish_times(self.index, &core.times);
    }

    /// The application has opened the file, and not written it: what that changed needs no sync call.
    pub fn begins(&self) {
        self.called.store(self.written.total(), Ordering::Relaxed);
    }

    /// A sync call begins.
    pub fn called(&self) {
        self.called.store(self.written.total(), Ordering::Relaxed);
        if self.uncalled.load(Ordering::Relaxed) != 0 {
            self.uncalled.store(0, Ordering::Relaxed);
        }
        if self.calls.load(Ordering::Relaxed) < 2 {
            self.calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether it serves a file.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.covered.load(Ordering::Relaxed) != u64::MAX
    }

    /// Since when something is written that no sync call has followed, as seen `now`; none if there is nothing. The
    /// time is asked for only if there is.
    pub fn uncalled(&self, now: impl FnOnce() -> Time) -> Option<Time> {
        let written = self.written.total();
        let covered = self.covered.load(Ordering::Acquire) >= written;
        if self.called.load(Ordering::Relaxed) >= written || covered {
            if self.uncalled.load(Ordering::Relaxed) != 0 {
                self.uncalled.store(0, Ordering::Relaxed);
            }
            return None;
        }
        match self.uncalled.load(Ordering::Relaxed) {
            0 => {
                let now = now();
                self.uncalled.store(now, Ordering::Relaxed);
                Some(now)
            }
            since => Some(since),
        }
    }

    /// Whether something is written that no sync call has followed, or was: two loads, as a rule.
    #[inline]
    pub fn looks_uncalled(&self) -> bool {
        self.called.load(Ordering::Relaxed) < self.written.total()
            || self.not_asked.load(Ordering::Relaxed)
    }

    /// Whether something written was seen before that no sync call had followed.
    #[inline]
    pub fn was_uncalled(&self) -> bool {
        self.uncalled.load(Ordering::Relaxed) != 0 || self.not_asked.load(Ordering::Relaxed)
    }

    /// Whether it is time to look closer: not more than ten times in a second, and not at what is young.
    pub fn is_due(&self, now: Time, age: Option<Time>) -> bool {
        let young = age.is_some_and(|age| age < LOOK_EVERY);
        let soon = now.saturating_sub(self.looked.load(Ordering::Relaxed)) < LOOK_EVERY;
        let nothing = age.is_none() && !self.not_asked.load(Ordering::Relaxed);
        if young || soon || nothing {
            return false;
        }
        self.looked.store(now, Ordering::Relaxed);
        true
    }

    /// Whether the policy has no effect, for [`Slot::looks_uncalled`].
    pub fn is_not_asked(&self, is: bool) {
        self.not_asked.store(is, Ordering::Relaxed);
    }

    /// Whether a sync call was ever made.
    pub fn was_called(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > 0
    }

    /// The log goes by these rules from now on: the policy was exchanged. What the old one did not ask for was
    /// not seen, so bytes are staged and updates counted only if it did.
    pub fn follow(&self, core: &mut Core, rules: Rules) {
        let old = core.engine.rules();
        if rules.stages && !old.stages {
            core.stage.turn_off(StageOff::Late);
        }
        let counts =
            old.keeps_amounts && (rules.records == Records::None || rules.records == old.records);
        if rules.keeps_amounts && !counts {
            self.written.lose_sight(Uncounted::Late);
        }
        core.engine.follow(rules);
        core.deadlines.follow(rules.flush_within);
        self.publish(core);
    }

    /// What its policy does not do with it because the log was open before that came.
    pub fn late(&self) -> Option<&'static str> {
        let core = self.lock();
        let rules = core.engine.rules();
        let uncounted = self.written.counting() == Counting::Lost(Uncounted::Late);
        match (core.stage.off(), rules.stages, rules.keeps_amounts && uncounted) {
            _ if core.retired => None,
            (Some(StageOff::Late), true, _) => Some("writes are staged"),
            (.., true) => Some("what is written is counted, and calls sync until then,"),
            _ => None,
        }
    }

    /// Before a descriptor is replaced by a call that can fail: if it is the last one, everything
    /// acknowledged is made durable.
    ///
    /// # Errors
    /// The error of that sync, or the one that had stopped the log.
    pub fn prepare_to_let_go(&'static self) -> Result<(), Errno> {
        let mut result = self.settle();
        let mut core = self.lock();
        if core.fds <= 1 {
            core.users += 1;
            (core, result) = self.drain(core);
            core.users -= 1;
        }
        drop(core);
        if result.is_ok() {
            self.cover_for_replies();
        }
        result
    }

    /// A descriptor of the application is closed. With the last one, everything acknowledged is made
    /// durable. Returns whether it was the last.
    pub fn let_go(&'static self) -> (bool, Result<(), Errno>) {
        let mut result = self.settle();
        let mut core = self.lock();
        core.fds = core.fds.saturating_sub(1);
        if core.fds == 0 {
            core.users += 1;
            (core, result) = self.drain(core);
            core.users -= 1;
        }
        self.publish(&mut core);
        let last = core.fds == 0;
        drop(core);
        // From here no reply counts writes that nobody has seen: this is the last sync that could cover them.
        if last && result.is_ok() {
            self.cover_for_replies();
        }
        (last, result)
    }

    /// Nobody has the file open: the place is free for another as soon as nobody is inside.
    pub fn retire(&self, core: &mut Core) {
        core.retired = true;
        self.crowd.leave();
        self.set_watch(core, None);
        self.publish(core);
        self.release_own_fd(core);
        if core.own_fd.is_some() && !core.lingers {
            core.lingers = true;
            LATE.fetch_add(1, Ordering::AcqRel);
        }
        if let Some(pool) = core.pool {
            pool.dismiss(self);
        }
    }

    /// The engine's state has changed: tells the status page, the writers and the other files.
    pub fn publish(&self, core: &mut Core) {
        if let Some(errno) = core.engine.error() {
            self.error.store(errno, Ordering::Release);
            // Never behind a hole.
            core.stage.discard();
        }
        let covered = if core.retired { u64::MAX } else { core.engine.covered() };
        self.covered.store(covered, Ordering::Release);
        let durable = core.engine.durable();
        if core.deadlines.waits_for(durable) {
            core.late = core.deadlines.durable(durable, clock::now()).or(core.late);
        }
        // What was written of a log that is looked at is not known.
        let unknown = core.defers_writes() && !core.retired;
        let (dirty, staged) = (core.is_dirty() || unknown, !core.stage.is_empty());
        // They change under the lock only.
        if self.dirty.load(Ordering::Relaxed) != dirty {
            self.dirty.store(dirty, Ordering::Release);
            table::count_dirty(dirty);
        }
        if self.staged.load(Ordering::Relaxed) != staged {
            self.staged.store(staged, Ordering::Release);
            table::count_staged(staged);
        }
        self.status.publish_log(
            self.index,
            LogNumbers {
                overlaps: core.overlaps,
                waits: core.waits,
                wait_ns: core.wait_ns,
                descriptors: core.fds.into(),
                generation: core.generation,
                staged_bytes: core.stage.held(),
                slow: core.slow.count,
                late: core.deadlines.late,
                oldest_ever_ns: core.deadlines.oldest_ever,
                oldest_since: core.deadlines.oldest().unwrap_or(0),
                not_asked: core.not_asked.map_or(0, NotAsked::code),
                uncalled_since: self.uncalled.load(Ordering::Relaxed),
                storage: core.storage.code(),
                counting: match core.engine.rules().records {
                    Records::None => Counting::No,
                    _ => self.written.counting(),
                }
                .code(),
                stage_off: match core.stage.off() {
                    Some(why) if core.engine.rules().stages => why.code(),
                    Some(why) if why == StageOff::OtherProcess && self.is_crowded() => why.code(),
                    _ => 0,
                },
                ..LogNumbers::of(&core.engine)
            },
        );
    }

    /// Closes the agent's descriptor of a log that is closed. At once, as long as no sync uses it:
    /// a lock on the open file (`flock`) is held until its last descriptor is closed, and the
    /// application believes it has closed that.
    pub fn release_own_fd(&self, core: &mut Core) {
        if core.retired
            && !core.engine.is_flying()
            && !core.stage.is_writing()
            && let Some(fd) = core.own_fd.take()
        {
            self.proof.set_witness(None);
            owned::set(self.index, core.file, None);
            registry::close_own(fd);
        }
        if core.lingers && core.own_fd.is_none() {
            core.lingers = false;
            LATE.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Waits until the agent has no descriptor of a log that is closed.
    pub fn let_linger_end(&self) {
        let mut core = self.lock();
        while core.lingers && core.own_fd.is_some() {
            core = self.sleep(core);
        }
    }

    /// The application locks parts of the file.
    pub fn note_posix_lock(&self) {
        self.posix_locks.store(true, Ordering::Relaxed);
    }

    /// The application locks the open file: a copy of its descriptor would hold the lock when the
    /// application has closed its own, so the agent opens the file a second time instead.
    pub fn release_copy(&'static self, reopen: impl FnOnce() -> Option<RawFd>) {
        self.revoke(StageOff::Lock);
        let mut core = self.lock();
        core.users += 1;
        while core.engine.is_flying() || core.stage.is_writing() {
            core = self.sleep(core);
        }
        core.users -= 1;
        if self.posix_locks.load(Ordering::Relaxed) || core.retired {
            return;
        }
        if let Some(new) = reopen()
            && let Some(old) = core.own_fd.replace(new)
        {
            self.proof.set_witness(None);
            owned::set(self.index, core.file, Some(new));
            registry::close_own(old);
        }
    }

    /// The agent gives up its descriptor of the file.
    pub fn give_up_own_fd(&self) {
        let mut core = self.lock();
        if let Some(fd) = core.own_fd.take() {
            core.syncer = Syncer::Failed;
            self.proof.set_witness(None);
            owned::set(self.index, core.file, None);
            if self.posix_locks.load(Ordering::Relaxed) {
                return;
            }
            registry::close_own(fd);
        }
    }

    /// Whether an error has stopped the log.
    pub fn has_failed(&self) -> bool {
        self.error.load(Ordering::Acquire) != 0
    }

    /// The agent's descriptor no longer is the log's file: somebody has closed it behind the agent's
    /// back. What is acknowledged cannot be synced any more.
    pub fn lose_own_fd(&self, core: &mut Core, fd: RawFd) {
        if core.own_fd == Some(fd) {
            core.own_fd = None;
            self.proof.set_witness(None);
            table::forget(fd, table::Entry::Own);
            core.engine.fail(libc::EBADF);
        }
    }

    /// Tells the other logs of a failure, if the policy stops them too.
    pub fn report_failure(&self, core: &Core) {
        if let (Some(errno), Some(registry)) = (core.engine.error(), table::registry()) {
            registry.failed(errno);
        }
    }

    /// Whether something is staged.
    #[inline]
    pub fn has_staged(&self) -> bool {
        self.staged.load(Ordering::Acquire)
    }

    /// Whether something is acknowledged and not durable, or staged.
    #[inline]
    pub fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    /// Counts bytes that were written to the file.
    pub fn add_written(&self, bytes: u64) {
        self.written.add(bytes);
    }

    /// Brings the count of written bytes to the engine.
    pub fn count_written(&self, core: &mut Core) {
        self.written.tell(&mut core.engine, core.watch.as_mut());
        if core.engine.is_unsure_of_updates() && !core.told_uncounted {
            core.told_uncounted = true;
            self.tell_uncounted(core);
        }
    }

    /// Tells that a policy does not learn any more how much is written.
    fn tell_uncounted(&self, core: &Core) {
        let what = match core.engine.rules().records {
            Records::None => "bytes",
            _ => "updates",
        };
        if let Counting::Lost(why) = self.written.counting() {
            note::aside(&format!(
                "{}: {what} that are not durable are no longer counted: {why}; the policy assumes the maximum",
                self.status.path(self.index)
            ));
        }
    }

    /// From now on the kernel watches the file, or no longer.
    pub fn set_watch(&self, core: &mut Core, watch: Option<Watch>) {
        self.written.set_watch(watch.as_ref());
        core.watch = watch;
    }

    /// Tells the engine what the kernel has seen, and those who wait.
    #[inline]
    pub fn look(&self, core: &mut Core) {
        if core.watch.is_some() {
            self.look_at_watch(core);
        }
    }

    fn look_at_watch(&self, core: &mut Core) {
        let Core { watch: Some(watch), engine, .. } = core else { return };
        if !watch.tell(engine) {
            return;
        }
        self.report_failure(core);
        self.publish(core);
        if core.waiters > 0 {
            self.done.notify_all();
        }
    }

    /// Has a syncer thread come when the lock is let go, if the engine has work that none knows of.
    pub fn poke(&'static self, core: &mut Held<'_>, now: Time) {
        Self::look_for_loop(core);
        if matches!(core.syncer, Syncer::Awake | Syncer::Failed) {
            return;
        }
        let wake_at = match (core.engine.next(now), core.look.due(core)) {
            (Step::Start, _) => now,
            (Step::At(time), due) => due.map_or(time, |due| due.min(time)),
            (Step::Idle, Some(due)) => due,
            (Step::Idle, None) => return,
        };
        let asks = match core.syncer {
            Syncer::Parked(until) => wake_at < until,
            Syncer::Queued => true,
            Syncer::Awake | Syncer::Failed => false,
        };
        let Some(pool) = core.pool.filter(|_| asks) else { return };
        core.syncer = match pool.submit(self) {
            Submitted::Soon => Syncer::Awake,
            Submitted::Sleeps => {
                core.wakes(pool);
                Syncer::Awake
            }
            Submitted::Waits => Syncer::Queued,
        };
    }

    /// Starts the first syncer thread of its device. Returns whether there is one.
    pub fn staff(&self) -> bool {
        let pool = self.lock().pool;
        pool.is_some_and(Pool::staff)
    }

    /// Whether the place can serve another file: nobody is inside.
    pub fn is_vacant(&self) -> bool {
        let core = self.lock();
        core.retired && core.users == 0 && !core.pool.is_some_and(|pool| pool.has(self))
    }
}

/// What a log starts with.
pub struct Opened<'a> {
    /// Its file.
    pub file: FileId,
    /// The agent's own descriptor of the file.
    pub own_fd: Option<RawFd>,
    /// The syncer threads of its device.
    pub pool: &'static Pool,
    /// Its path.
    pub path: &'a str,
    /// Its file system.
    pub storage: Storage,
}
