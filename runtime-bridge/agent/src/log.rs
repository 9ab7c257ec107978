//! One log: the engine's state under a lock, and the threads that wait on it.
//!
//! The engine decides, this module carries out: real syncs on real descriptors, parking and
//! waking. The lock is held for nanoseconds; never across a system call that can sleep.

use crate::clock;
use crate::errno;
use crate::note;
use crate::notify::{self, Claimed, Watch};
use crate::pool::{Pool, Submitted};
use crate::real;
use crate::record;
use crate::registry::{self, FileId};
use crate::ring::{Batch, Ring};
use crate::stage::{Stage, write_all};
use crate::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use crate::table;
use crate::wrong::{self, Mistake};
use durac_engine::status::{LogNumbers, StatusPage};
use durac_engine::{Able, Drain, Errno, Flight, Log, Rules, SLOW, Slow, Step, Time, Wait};
use libc::c_int;
use std::os::fd::RawFd;

/// A place for a log. It lives for ever and serves one file after the other, so that a thread
/// that comes late with a stale descriptor still finds memory.
pub struct Slot {
    /// Its number: key of the state map and of the status page.
    pub index: usize,
    /// Bytes written to the file, counted after each write.
    written: AtomicU64,
    /// The slot of the kernel's map, for writes, which do not take the lock; 0 if there is none.
    watched: AtomicU32,
    /// Every sync with a higher ticket covers what `written` counts.
    ticket: AtomicU64,
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

    /// Takes what is staged, and where it goes; none if nothing is.
    fn take_staged(&mut self) -> Option<(Vec<u8>, RawFd)> {
        let own = self.own_fd?;
        Some((self.stage.take()?, own))
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
            written: AtomicU64::new(0),
            watched: AtomicU32::new(0),
            ticket: AtomicU64::new(0),
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
        self.written.store(0, Ordering::Relaxed);
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
        if let Some(claimed) = self.claimed() {
            self.ticket.fetch_max(claimed.started(), Ordering::Relaxed);
        }
        self.written.fetch_add(bytes, Ordering::Release);
    }

    /// Brings the count of written bytes to the engine.
    pub fn count_written(&self, core: &mut Core) {
        core.engine.wrote(self.written.load(Ordering::Acquire));
        if let Some(watch) = &mut core.watch {
            watch.mark(&core.engine, self.ticket.load(Ordering::Acquire));
        }
    }

    /// From now on the kernel watches the file, or no longer.
    pub fn set_watch(&self, core: &mut Core, watch: Option<Watch>) {
        let claimed = watch.as_ref().map(|watch| watch.claimed);
        self.ticket.store(claimed.map_or(0, Claimed::started), Ordering::Release);
        self.watched.store(claimed.map_or(0, Claimed::slot), Ordering::Release);
        core.watch = watch;
    }

    fn claimed(&self) -> Option<Claimed> {
        notify::claimed(self.watched.load(Ordering::Acquire))
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

    /// Syncs. If the kernel does not see that, it does not see the others either: the file may be on a
    /// file system that has no such tracepoint, or the programs are gone.
    pub fn sync_file(&self, fd: RawFd, full: bool) -> Result<(), Errno> {
        let claimed = self.claimed();
        let before = claimed.map(Claimed::started);
        let result = real_sync(fd, full);
        if result.is_ok() && before.is_some() && claimed.map(Claimed::started) == before {
            self.set_watch(&mut self.lock(), None);
            note::info("kernel notify: a sync was not seen; the engine's own completions answer");
        }
        result
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
                (Wait::Sync, Some(_)) => core = self.sync(core, None, Kind::Data).0,
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
    fn sleep<'a>(&'a self, mut core: Held<'a>) -> Held<'a> {
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
    fn look_for_slow<'a>(&'a self, mut core: Held<'a>, flight: &Flight, now: Time) -> Held<'a> {
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

    /// Syncs in the calling thread, through `fd` or else the log's own descriptor, and answers what the
    /// system call said.
    ///
    /// When it returns with success, the success is believed: no other sync that was out at the
    /// same time can still turn out to have met the error that this one missed.
    pub fn sync<'a>(
        &'static self,
        mut core: Held<'a>,
        fd: Option<RawFd>,
        kind: Kind,
    ) -> (Held<'a>, Result<(), Errno>) {
        let flown;
        (core, flown) = self.fly(core, fd, Flying::Own(kind));
        let Flown { flight, end, result } = match flown {
            Ok(flown) => flown,
            Err(errno) => return (core, Err(errno)),
        };
        if result.is_ok() && !core.engine.is_ready(flight.covers) {
            let parked = record::parked();
            while !core.engine.is_ready(flight.covers) {
                core = self.sleep(core);
            }
            record::set_parked(parked + clock::now().saturating_sub(end));
        }
        self.poke(&mut core, end);
        let result = match core.engine.error() {
            Some(errno) => Err(errno),
            None => result,
        };
        (core, result)
    }

    /// Starts a sync, carries it out, and lets it land. What is staged is written first.
    ///
    /// # Errors
    /// The error that had stopped the log; `EBADF` if it is closed and has no descriptor any more.
    pub fn fly<'a>(
        &'static self,
        mut core: Held<'a>,
        fd: Option<RawFd>,
        how: Flying<'_>,
    ) -> (Held<'a>, Result<Flown, Errno>) {
        let (background, full, ring) = match how {
            Flying::Background(ring) => (true, false, ring),
            Flying::Own(kind) => (false, kind == Kind::Full, None),
        };
        core = self.wait_for_writer(core);
        if let Some(errno) = core.engine.error() {
            return (core, Err(errno));
        }
        // Only now: while it waited the log may have been closed, and its number be another file's.
        let Some(fd) = fd.or(core.own_fd) else { return (core, Err(libc::EBADF)) };
        let start = clock::now();
        self.count_written(&mut core);
        let flight = core.engine.start(background, full, start);
        let bytes = core.engine.pending_bytes();
        let taken = core.take_staged();
        let lasting = core.own_fd == Some(fd);
        let early = background && wrong::makes(Mistake::Early);
        if early {
            core.engine.finish(flight.id, start, Ok(()));
            self.publish(&mut core);
            core = self.wake_waiters(core);
        }
        drop(core);
        let result = match (taken, ring) {
            (None, _) => self.sync_file(fd, flight.full),
            (Some((taken, own)), ring) => self.sync_batch(taken, own, fd, flight.full, ring),
        };
        let end = clock::now();
        record::synced(self.index, &flight, bytes, end, result);
        let mut core = self.lock();
        match background {
            true if early => {}
            true => core.engine.finish(flight.id, end, result),
            false => core.engine.land(flight.id, end, result, lasting),
        }
        self.report_failure(&core);
        self.publish(&mut core);
        core.release_own_fd();
        let core = self.look_for_slow(self.wake_waiters(core), &flight, end);
        (core, Ok(Flown { flight, end, result }))
    }

    /// Writes a batch, and syncs. The sync's own descriptor may be one of the application.
    fn sync_batch(
        &self,
        taken: Vec<u8>,
        own: RawFd,
        fd: RawFd,
        full: bool,
        ring: Option<&mut Ring>,
    ) -> Result<(), Errno> {
        let Batch { written, synced, lost } = match ring {
            Some(ring) => {
                record::syncing();
                ring.write_and_sync(own, &taken, full)
            }
            None => Batch::unsynced(write_all(own, &taken)),
        };
        let mut core = self.lock();
        core.stage.give_back(if lost { forgotten(taken) } else { taken });
        self.publish(&mut core);
        drop(self.wake_waiters(core));
        match (written, synced) {
            (Ok(()), Some(synced)) => synced,
            (Ok(()), None) => self.sync_file(fd, full),
            // What was not written is not synced; no interruption may hide that.
            (Err(libc::EBADF | libc::EINTR), _) => Err(libc::EIO),
            (Err(errno), _) => Err(errno),
        }
    }

    /// Waits until nobody is writing staged bytes.
    fn wait_for_writer<'a>(&'a self, mut core: Held<'a>) -> Held<'a> {
        while core.stage.is_writing() {
            core = self.sleep(core);
        }
        core
    }

    /// Writes what is staged, for a call that could see the file.
    ///
    /// # Errors
    /// The error that has stopped the log, now or before.
    pub fn write_out<'a>(&'static self, mut core: Held<'a>) -> (Held<'a>, Result<(), Errno>) {
        loop {
            core = self.wait_for_writer(core);
            let Some((taken, own)) = core.take_staged() else { break };
            drop(core);
            let result = write_all(own, &taken);
            core = self.lock();
            core.stage.give_back(taken);
            if let Err(errno) = result {
                core.engine.fail(errno);
                self.report_failure(&core);
            }
            self.publish(&mut core);
            core.release_own_fd();
            core = self.wake_waiters(core);
        }
        let failed = core.engine.error().filter(|_| core.engine.staged_writes() > 0);
        (core, failed.map_or(Ok(()), Err))
    }

    /// As [`Slot::write_out`], for a caller that does not hold the lock.
    ///
    /// # Errors
    /// As there.
    pub fn settle(&'static self) -> Result<(), Errno> {
        if !self.has_staged() {
            return Ok(());
        }
        let mut core = self.lock();
        core.users += 1;
        let (mut core, result) = self.write_out(core);
        core.users -= 1;
        result
    }

    /// Makes everything acknowledged durable, and leaves nothing staged.
    pub fn drain<'a>(&'static self, mut core: Held<'a>) -> (Held<'a>, Result<(), Errno>) {
        while !core.retired {
            let target = match core.engine.drain() {
                Drain::Done => return self.write_out(core),
                Drain::Failed(errno) => return (core, Err(errno)),
                Drain::Wait(target) => Some(target),
                Drain::Sync => None,
            };
            if let Some(target) = target {
                core = self.wait(core, target);
                continue;
            }
            // Directly, not by the syncer: that would cost two wake-ups.
            if core.own_fd.is_none() {
                return (core, Err(libc::EIO));
            }
            let result;
            (core, result) = self.sync(core, None, Kind::Data);
            match result {
                // A signal came between: nothing was synced, nothing is lost.
                Ok(()) | Err(libc::EINTR) => {}
                // Another thread has closed it, and drained it for that.
                Err(_) if core.retired => {}
                Err(errno) => return (core, Err(errno)),
            }
        }
        (core, Ok(()))
    }
}

/// Leaves the bytes where they are: the system may still read them. An empty batch in their place.
fn forgotten(taken: Vec<u8>) -> Vec<u8> {
    std::mem::forget(taken);
    Vec::new()
}

/// Who runs a sync, and how.
pub enum Flying<'a> {
    /// The syncer, through its ring if it has one.
    Background(Option<&'a mut Ring>),
    /// A thread of the application.
    Own(Kind),
}

/// A sync that has landed.
pub struct Flown {
    /// It.
    pub flight: Flight,
    /// When it ended.
    pub end: Time,
    /// What the system said.
    pub result: Result<(), Errno>,
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

/// How much a sync call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `fdatasync`.
    Data,
    /// `fsync`.
    Full,
}

/// The next library's `fdatasync`, or `fsync` if `full`.
fn real_sync(fd: RawFd, full: bool) -> Result<(), Errno> {
    let function = if full { real::FSYNC.get() } else { real::FDATASYNC.get() };
    record::syncing();
    // SAFETY: any number may be passed as descriptor.
    let result: c_int = unsafe { function(fd) };
    if result == 0 { Ok(()) } else { Err(errno::get().max(1)) }
}
