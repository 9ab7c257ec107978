//! One log: the engine's state under a lock, and the threads that wait on it.
//!
//! The engine decides, this module carries out: parking and waking, and in [`crate::flight`] real syncs
//! on real descriptors. The lock is held for nanoseconds; never across a system call that can sleep.

use crate::clock;
use crate::flight::Kind;
use crate::note;
use crate::pool::{Pool, Submitted};
use crate::record;
use crate::registry::{self, FileId};
use crate::stage::Stage;
use crate::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use crate::table;
use crate::watch::Watch;
use crate::written::Written;
use durac_engine::status::{LogNumbers, StatusPage};
use durac_engine::{Able, Drain, Errno, Flight, Log, Rules, SLOW, Slow, Step, Time, Wait};
use std::os::fd::RawFd;

/// A place for a log. It lives for ever and serves one file after the other, so that a thread
/// that comes late with a stale descriptor still finds memory.
pub struct Slot {
    /// Its number: key of the state map and of the status page.
    pub index: usize,
    /// What writes count, which do not take the lock.
    pub written: Written,
    /// The error that stopped the log, or 0: for writes, which do not take the lock.
    pub error: AtomicI32,
    /// Something is acknowledged and not durable, or staged.
    dirty: AtomicBool,
    /// Something is staged.
    staged: AtomicBool,
    status: &'static StatusPage,
    core: Mutex<Core>,
    /// Calls of the application wait here.
    done: Condvar,
}

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
    /// The last descriptor was closed: the syncer ends.
    pub retired: bool,
    /// Calls that wait.
    waiters: u32,
    waits: u64,
    wait_ns: u64,
    generation: u64,
    slow: Slow,
}

/// The lock, held.
pub type Held<'a> = MutexGuard<'a, Core>;

impl Core {
    /// Whether something has to be written or synced before others may see the files. What a closed log could not make durable is lost and
    /// was reported; it holds up nobody any more.
    pub fn is_dirty(&self) -> bool {
        !self.retired && (self.engine.drain() != Drain::Done || !self.stage.is_empty())
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

    /// Closes the agent's descriptor of a log that is closed. At once, as long as no sync uses it:
    /// a lock on the open file (`flock`) is held until its last descriptor is closed, and the
    /// application believes it has closed that.
    pub fn release_own_fd(&mut self) {
        if self.retired
            && !self.engine.is_flying()
            && !self.stage.is_writing()
            && let Some(fd) = self.own_fd.take()
        {
            registry::close_own(fd);
        }
    }
}

impl Slot {
    /// An empty place.
    pub fn new(index: usize, status: &'static StatusPage) -> Self {
        Self {
            index,
            written: Written::new(),
            error: AtomicI32::new(0),
            dirty: AtomicBool::new(false),
            staged: AtomicBool::new(false),
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
                retired: true,
                waiters: 0,
                waits: 0,
                wait_ns: 0,
                generation: 0,
                slow: Slow::default(),
            }),
            done: Condvar::new(),
        }
    }

    /// Takes the lock.
    pub fn lock(&self) -> Held<'_> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the place a log that was just opened.
    pub fn reuse(&self, core: &mut Core, rules: Rules, opened: Opened<'_>) {
        let Opened { file, own_fd, pool, path } = opened;
        core.file = file;
        core.engine = Log::new(rules);
        core.syncer = if own_fd.is_some() { Syncer::Parked(Time::MAX) } else { Syncer::Failed };
        core.pool = Some(pool);
        core.stage.reset();
        core.own_fd = own_fd;
        core.fds = 0;
        core.retired = false;
        core.waits = 0;
        core.wait_ns = 0;
        core.generation += 1;
        core.slow = Slow::default();
        self.written.begin();
        self.set_watch(core, None);
        self.error.store(0, Ordering::Relaxed);
        self.status.publish_path(self.index, path);
        self.publish(core);
    }

    /// A descriptor of the application is closed. With the last one, everything acknowledged is made
    /// durable. Answers whether it was the last.
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
        (core.fds == 0, result)
    }

    /// Nobody has the file open: the place is free for another as soon as nobody is inside.
    pub fn retire(&self, core: &mut Core) {
        core.retired = true;
        self.set_watch(core, None);
        self.publish(core);
        core.release_own_fd();
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
        let (dirty, staged) = (core.is_dirty(), !core.stage.is_empty());
        if self.dirty.swap(dirty, Ordering::AcqRel) != dirty {
            table::count_dirty(dirty);
        }
        if self.staged.swap(staged, Ordering::AcqRel) != staged {
            table::count_staged(staged);
        }
        self.status.publish_log(
            self.index,
            LogNumbers {
                waits: core.waits,
                wait_ns: core.wait_ns,
                descriptors: core.fds.into(),
                generation: core.generation,
                staged_bytes: core.stage.held(),
                slow: core.slow.count,
                ..LogNumbers::of(&core.engine)
            },
        );
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
    }

    /// From now on the kernel watches the file, or no longer.
    pub fn set_watch(&self, core: &mut Core, watch: Option<Watch>) {
        self.written.set_watch(watch.as_ref());
        core.watch = watch;
    }

    /// Tells the engine what the kernel has seen, and those who wait.
    pub fn look(&self, core: &mut Core) {
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

    /// Has a syncer thread come, if the engine has work that none knows of.
    pub fn poke(&'static self, core: &mut Core, now: Time) {
        let wake_at = match core.engine.next(now) {
            Step::Start => now,
            Step::At(time) => time,
            Step::Idle => return,
        };
        let asks = match core.syncer {
            Syncer::Parked(until) => wake_at < until,
            Syncer::Queued => true,
            Syncer::Awake | Syncer::Failed => false,
        };
        let Some(pool) = core.pool.filter(|_| asks) else { return };
        core.syncer = match pool.submit(self) {
            Submitted::Soon => Syncer::Awake,
            Submitted::Waits => Syncer::Queued,
        };
    }

    /// Whether the place can serve another file: nobody is inside.
    pub fn is_vacant(&self) -> bool {
        let core = self.lock();
        core.retired && core.users == 0 && !core.pool.is_some_and(|pool| pool.has(self))
    }

    /// Wakes the calls that wait, if there are some. The lock is let go for it: whoever wakes up
    /// takes it first of all.
    pub fn wake_waiters<'a>(&'a self, core: Held<'a>) -> Held<'a> {
        if core.waiters == 0 {
            return core;
        }
        drop(core);
        self.done.notify_all();
        self.lock()
    }

    /// Parks the calling thread until `target` is durable or the log has failed.
    ///
    /// If nobody is going to sync, the thread does it itself: cheaper than waking another.
    pub fn wait<'a>(&'static self, mut core: Held<'a>, target: u64) -> Held<'a> {
        if core.engine.is_ready(target) {
            return core;
        }
        let since = clock::now();
        let parked = record::parked();
        core.waits += 1;
        loop {
            let (awake, able) = (core.syncer == Syncer::Awake, core.able());
            match (core.engine.wait(target, awake, able), core.own_fd) {
                (Wait::Sync, Some(_)) => {
                    self.publish(&mut core);
                    core = self.sync(core, None, Kind::Data).0;
                }
                (Wait::Ready | Wait::Sync, _) => break,
                (Wait::Sleep, _) => {
                    self.poke(&mut core, since);
                    self.publish(&mut core);
                    core = self.sleep(core);
                }
            }
        }
        let waited = clock::now().saturating_sub(since);
        core.wait_ns += waited;
        record::set_parked(parked + waited);
        core
    }

    /// Sleeps until something has changed, or for a while.
    pub fn sleep<'a>(&'a self, mut core: Held<'a>) -> Held<'a> {
        core.waiters += 1;
        let (mut core, time) =
            self.done.wait_timeout(core, SLOW).unwrap_or_else(PoisonError::into_inner);
        core.waiters -= 1;
        match core.engine.out() {
            Some(flight) if time.timed_out() => self.look_for_slow(core, &flight, clock::now()),
            _ => core,
        }
    }

    /// Counts a sync that is out or has ended, if it is slow, and tells of it.
    pub fn look_for_slow<'a>(&'a self, mut core: Held<'a>, flight: &Flight, now: Time) -> Held<'a> {
        let before = core.slow.count;
        let told = core.slow.look(flight, now);
        if core.slow.count != before {
            self.publish(&mut core);
        }
        let Some(took) = told else { return core };
        let (count, pending) = (core.slow.count, core.engine.unsynced());
        drop(core);
        note::aside(&format!(
            "{}: a sync takes long: {:.1} s until now; {pending} acknowledged and not durable, {count} \
             slow so far",
            self.status.path(self.index),
            took.as_secs_f64(),
        ));
        self.lock()
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
}
