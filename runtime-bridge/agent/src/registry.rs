//! The logs of this process: which file has which place, from its first descriptor to its last.

use crate::children::Children;
use crate::clock;
use crate::crowd;
use crate::errno;
use crate::failures;
use crate::flight::real_sync;
use crate::log::{Opened, Slot};
use crate::note;
use crate::owned;
use crate::page::{self, Made, PageFile};
use crate::policy::{self, Policy};
use crate::pool::Pool;
use crate::real;
use crate::record;
use crate::replies::Replies;
use crate::stage::StageOff;
use crate::stamp::{Known, stamp};
use crate::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError};
use crate::table::{self, Entry};
use crate::watch;
use durac_abi::MAX_LOGS;
use durac_engine::{Completion, Errno, Stamp, completion};
use durac_shm::status::{ControlPage, StatusPage, Storage};
use libc::{c_int, pid_t};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::RawFd;
use std::path::Path;
use std::time::Duration;

/// Highest number that the agent's own descriptors start from: above what an application opens
/// first, so that the numbers it gets are those it would get without us.
const OWN_FD_FROM: u64 = 4000;

/// Device and inode of a file.
pub type FileId = (u64, u64);

/// Everything this process knows about its logs. It lives for ever.
pub struct Registry {
    /// The process that made it. A child that shares our memory (vfork) is another.
    pid: pid_t,
    /// The status page.
    pub page: &'static StatusPage,
    /// The forked children.
    pub children: Children,
    /// The held replies.
    pub replies: Replies,
    slots: [AtomicPtr<Slot>; MAX_LOGS as usize],
    /// The open logs.
    files: Mutex<Files>,
    /// The error that stopped every log, or 0.
    stopped: AtomicI32,
    /// Where tools ask for another policy.
    pub control: Option<&'static ControlPage>,
    /// A thread of the agent works on what they ask.
    pub controls: AtomicBool,
    /// Threads that end the process, or have it become another program. While there are any, nothing is deferred.
    leaving: AtomicU32,
    status_file: Option<PageFile>,
    /// Where tools find the page if it has no file; -1 if it has.
    page_fd: AtomicI32,
}

/// Devices that have syncer threads of their own; more share them.
const POOLS: u64 = 16;
/// How often what was written to a log is synced once more before it is closed: each time only if somebody has written to a
/// descriptor that another thread closes.
const COVERS: usize = 16;

/// The open logs.
#[derive(Default)]
pub struct Files {
    /// Which place a file has.
    open: BTreeMap<FileId, usize>,
    /// Places that were used and have no file.
    free: BTreeSet<usize>,
    /// How many places were ever used.
    used: usize,
    /// The syncer threads, by device.
    pools: BTreeMap<u64, &'static Pool>,
    /// What files were when this process closed them, and before the sync that it did in closing them.
    durable: BTreeMap<FileId, Stamp>,
}

/// Files that are remembered so.
const REMEMBERED: usize = 64;

/// What is in a file that becomes a log can be in memory only: a process that was killed has left it there. It is made durable,
/// so that nothing is acknowledged, and no reply sent, on top of it.
fn make_durable(fd: c_int, id: FileId) -> Result<(), Errno> {
    let Some(now) = stamp(fd).filter(|now| now.length > 0) else { return Ok(()) };
    let before = table::registry().and_then(|r| r.files().durable.get(&id).copied());
    if before == Some(now) {
        return Ok(());
    }
    // Not as of a log: that the file system syncs nothing says nothing of the data.
    match completion(real_sync(fd, false), false) {
        Completion::Failed(errno) => Err(errno),
        Completion::Durable | Completion::Nothing => Ok(()),
    }
}

impl Files {
    /// The syncer threads of a device.
    fn pool(&mut self, device: u64) -> &'static Pool {
        let full = self.pools.len() as u64 >= POOLS;
        let key = match full && !self.pools.contains_key(&device) {
            true => self.pools.keys().nth((device % POOLS) as usize).copied().unwrap_or(device),
            false => device,
        };
        self.pools.entry(key).or_insert_with(|| Box::leak(Box::new(Pool::new())))
    }
}

/// The registry, made when the process opens its first log. So does the status page appear: of the
/// processes that one command starts, only the one with logs has something to show.
fn make(policy: &'static Policy) -> Option<&'static Registry> {
    crate::family::found();
    owned::begin();
    let Made { page, control, fd, file } = page::make(policy, own_fd_from())?;
    // SAFETY: it takes no pointer, cannot fail, and changes nothing.
    let pid = unsafe { libc::getpid() };
    Some(Box::leak(Box::new(Registry {
        pid,
        page,
        children: Children::default(),
        replies: Replies::new(policy.rules.holds_replies, page),
        slots: [const { AtomicPtr::new(std::ptr::null_mut()) }; MAX_LOGS as usize],
        files: Mutex::new(Files::default()),
        stopped: AtomicI32::new(0),
        control,
        controls: AtomicBool::new(false),
        leaving: AtomicU32::new(0),
        status_file: file,
        page_fd: AtomicI32::new(fd.unwrap_or(-1)),
    })))
}

/// A descriptor was opened for writing: makes it a log if its name or its file says so.
pub fn opened(policy: &'static Policy, fd: c_int, id: FileId, path: &Path, flags: c_int) {
    // Before any lock: a child of `vfork` can be killed while it holds one.
    if !table::is_ours() {
        return;
    }
    let known = table::registry().is_some_and(|r| r.files().open.contains_key(&id));
    if known || policy.covers(path) {
        has_begun(policy, fd, id, path, Some(flags), known);
    }
}

/// A descriptor of a file that was a log of the parent's, or of the program that started this one.
pub fn inherited(policy: &'static Policy, fd: c_int, id: FileId, path: &Path) {
    if !table::is_ours() {
        return;
    }
    let known = table::registry().is_some_and(|r| r.files().open.contains_key(&id));
    has_begun(policy, fd, id, path, None, known);
}

/// `flags`: those that the process has opened it with; none if it has not.
fn has_begun(
    policy: &'static Policy,
    fd: c_int,
    id: FileId,
    path: &Path,
    flags: Option<c_int>,
    known: bool,
) {
    let mut there = Ok(());
    let mut failed_before = false;
    if !known {
        // What an application does with its next log may rest on what it did with the ones before. An error
        // stays in its log.
        let _ = crate::order::drain_others(None);
        failures::begin(id);
        let before = failures::of_shared(id, &Known::of(fd, flags.is_none()));
        failed_before = before.is_some();
        there = before.map_or_else(|| make_durable(fd, id), Err);
    }
    let made = table::registry().or_else(|| table::registry_or(|| make(policy)));
    let Some(registry) = made else { return };
    let mut files = registry.files();
    if known && !files.open.contains_key(&id) {
        // Another thread has closed it meanwhile.
        drop(files);
        return has_begun(policy, fd, id, path, flags, false);
    }
    // Another may have come meanwhile; none comes while the files are held.
    let policy = policy::loaded().unwrap_or(policy);
    let index = match files.open.get(&id) {
        _ if !table::fits(fd) => None,
        Some(&index) => Some(index),
        None => registry.new_log(policy, &mut files, fd, id, path, flags.is_none()),
    };
    let Some(index) = index else {
        drop(files);
        registry.has_no_room(path);
        return;
    };
    let Some(slot) = registry.slot(index) else { return };
    let mut core = slot.lock();
    core.fds += 1;
    if flags.is_none() {
        // The process may have opened the file besides.
        core.known.inherited = true;
        core.known.older = 0;
    }
    if let Err(errno) = there {
        core.engine.fail(errno);
        slot.report_failure(&core);
        match failed_before {
            // Who has got the error has told of it.
            true => core.known.told = true,
            false => failures::add(&core, errno),
        }
    }
    let flags = flags.unwrap_or(0);
    if flags & libc::O_TRUNC != 0 {
        slot.add_written(1);
        slot.begins();
    }
    // Two open files have two positions, and only one is that of our descriptor.
    let why = match core.fds > 1 {
        true => Some(StageOff::OtherOpen),
        false => (flags & libc::O_DIRECT != 0).then_some(StageOff::Direct),
    };
    slot.publish(&mut core);
    table::set(fd, Entry::Log(index));
    drop(core);
    drop(files);
    if there.is_err() {
        drop(slot.tell_failed(slot.lock(), "a sync"));
    }
    if let Some(why) = why {
        slot.revoke(why);
    }
}

impl Registry {
    /// The open logs, held: none is opened or closed meanwhile.
    pub fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the calling process made it; a vfork child did not, and must leave it alone.
    pub fn is_ours(&self) -> bool {
        // SAFETY: it takes no pointer, cannot fail, and changes nothing.
        self.pid == unsafe { libc::getpid() }
    }

    /// The place of a log.
    #[inline]
    pub fn slot(&self, index: usize) -> Option<&'static Slot> {
        let slot = self.slots.get(index)?.load(Ordering::Acquire);
        // SAFETY: only `free_slot` stores it, from a box that is never freed.
        unsafe { slot.as_ref() }
    }

    /// Every place that was ever used.
    pub fn slots(&self) -> impl Iterator<Item = &'static Slot> + '_ {
        (0..self.slots.len()).map_while(|index| self.slot(index))
    }

    /// Gives a file a place; none if all are taken.
    fn new_log(
        &self,
        policy: &'static Policy,
        files: &mut Files,
        fd: c_int,
        id: FileId,
        path: &Path,
        inherited: bool,
    ) -> Option<usize> {
        let slot = self.free_slot(files)?;
        let index = slot.index;
        if let Some(state) = policy.state {
            state.reset(index);
        }
        let path = path.to_string_lossy();
        let pool = files.pool(id.0);
        let own_fd = duplicate(fd);
        if own_fd.is_none() {
            let error = std::io::Error::from_raw_os_error(errno::get());
            note::error(&format!("no descriptor for background syncs: {error}"));
        }
        let storage = storage(fd);
        let opened = Opened { file: id, own_fd, pool, path: &path, storage };
        let mut core = slot.lock();
        slot.reuse(&mut core, policy.rules, opened);
        owned::opened(index, id, true);
        slot.set_watch(&mut core, watch::watch(id));
        core.known = Known::of(fd, inherited);
        drop(core);
        record::opened(index, &path);
        files.free.remove(&index);
        files.open.insert(id, index);
        Some(index)
    }

    /// The first place that serves no file.
    fn free_slot(&self, files: &mut Files) -> Option<&'static Slot> {
        let mut free = files.free.iter().filter_map(|&index| self.slot(index));
        if let Some(slot) = free.find(|slot| slot.is_vacant()) {
            return Some(slot);
        }
        let place = self.slots.get(files.used)?;
        let slot: &'static Slot = Box::leak(Box::new(Slot::new(files.used, self.page)));
        place.store(std::ptr::from_ref(slot).cast_mut(), Ordering::Release);
        files.used += 1;
        Some(slot)
    }

    /// A file of the policy's is opened that cannot be a log. It is as durable as without us.
    fn has_no_room(&self, path: &Path) {
        if self.page.count_unplaced() == 0 {
            note::error(&format!(
                "{}: the limit of {MAX_LOGS} open logs is reached; this and further logs run without a policy",
                path.display()
            ));
        }
    }

    /// `new` is a copy of the log's descriptor.
    pub fn duplicated(&self, index: usize, new: c_int) {
        let Some(slot) = self.slot(index).filter(|_| self.is_ours()) else { return };
        if table::fits(new) {
            let mut core = slot.lock();
            core.fds += 1;
            slot.publish(&mut core);
            drop(core);
            table::set(new, Entry::Log(index));
        }
    }

    /// A descriptor of the log is about to be closed, or was: its entry is gone from the table.
    /// With the last one, everything acknowledged is made durable.
    ///
    /// # Errors
    /// The error of that sync, or the one that had stopped the log with something unsynced.
    pub fn closed(&self, index: usize) -> Result<(), Errno> {
        let Some(slot) = self.slot(index) else { return Ok(()) };
        let (last, result) = slot.let_go();
        if last {
            self.retire(slot);
        }
        result
    }

    /// Frees the place if still nobody has the file open.
    fn retire(&self, slot: &'static Slot) {
        let own = slot.lock().own_fd;
        let now = own.and_then(stamp);
        let mut files = self.files();
        let mut core = slot.lock();
        // A write of another thread may have ended since the last sync, and a reply wait for it.
        for _ in 0..COVERS {
            if !self.replies.hold() || !slot.can_cover_more(&mut core) {
                break;
            }
            drop(core);
            drop(files);
            slot.cover();
            files = self.files();
            core = slot.lock();
        }
        if core.fds > 0 || core.retired {
            return;
        }
        // Without a sync at this close nothing is known: others may have written to the file, or a child of this process.
        if let Some(stamp) = core.known.durable.filter(|_| core.engine.error().is_none())
            && core.own_fd == own
            && now == Some(stamp)
        {
            if files.durable.len() >= REMEMBERED {
                files.durable.clear();
            }
            files.durable.insert(core.file, stamp);
        }
        failures::forget(core.file);
        let (log, covered) = slot.covered();
        self.replies.closed(log, covered, slot.written.total());
        files.open.remove(&core.file);
        files.free.insert(slot.index);
        record::closed(slot.index);
        owned::opened(slot.index, core.file, false);
        slot.retire(&mut core);
    }

    /// The application got number `fd` from the system though it was the agent's own: somebody
    /// closed that behind our back, and the log has lost the way to its file.
    pub fn lost_own(&self, fd: c_int) {
        if self.page_fd.compare_exchange(fd, -1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            page::has(None);
        }
        for slot in self.slots() {
            let mut core = slot.lock();
            if core.own_fd == Some(fd) {
                slot.lose_own_fd(&mut core, fd);
                slot.publish(&mut core);
            }
        }
    }

    /// The application is about to give one of the agent's numbers to another file: the log, the page or the table that has
    /// it gets another number. Returns whether it has.
    pub fn make_room(&self, fd: c_int) -> bool {
        if self.page_fd.load(Ordering::Relaxed) == fd {
            let new = duplicate(fd);
            if let Some(new) = new {
                self.page_fd.store(new, Ordering::Relaxed);
                page::has(Some(new));
                table::set(fd, Entry::Other);
            }
            return new.is_some();
        }
        if crowd::makes_room(fd) {
            return true;
        }
        self.slots().any(|slot| {
            let mut core = slot.lock();
            core.users += 1;
            while core.own_fd == Some(fd) && (core.engine.is_flying() || core.stage.is_writing()) {
                core = slot.sleep(core);
            }
            core.users -= 1;
            // The number is closed when it is given away, which would drop locks on parts of the file.
            let may = core.own_fd == Some(fd) && !slot.posix_locks.load(Ordering::Relaxed);
            let Some(new) = (may && !core.retired).then(|| duplicate(fd)).flatten() else {
                return false;
            };
            core.own_fd = Some(new);
            slot.proof.set_witness(Some(new));
            owned::set(slot.index, core.file, Some(new));
            table::set(fd, Entry::Other);
            true
        })
    }

    /// A log has failed.
    pub fn failed(&self, errno: Errno) {
        let stops_all = policy::loaded().is_some_and(Policy::stops_all);
        if stops_all && self.stopped.swap(errno, Ordering::AcqRel) == 0 {
            for slot in self.slots() {
                slot.error.store(errno, Ordering::Release);
            }
        }
    }

    /// The error that stopped every log.
    pub fn stopped(&self) -> Option<Errno> {
        let errno = self.stopped.load(Ordering::Acquire);
        (errno != 0).then_some(errno)
    }

    /// Whether the process ends, or is about to become another program. Asked with a log's lock held, from which on what
    /// is acknowledged is found by who leaves.
    pub fn is_closing(&self) -> bool {
        self.leaving.load(Ordering::Acquire) != 0
    }

    /// The calling thread is about to end the process, or to have it become another program: the other threads defer
    /// nothing from here on. What they have deferred is drained afterwards.
    pub fn leaves(&self) {
        self.leaving.fetch_add(1, Ordering::AcqRel);
        self.pass_by_calls();
    }

    /// A call that has not seen it holds the lock of its log, or of its connection, until what it acknowledges or holds is
    /// counted.
    fn pass_by_calls(&self) {
        drop(self.files());
        self.slots().for_each(|slot| drop(slot.lock()));
        self.replies.pass_by_calls();
    }

    /// The process has not become another program.
    pub fn stays(&self) {
        self.leaving.fetch_sub(1, Ordering::AcqRel);
    }

    /// Ends the syncer threads, and waits until they are gone, or for two seconds.
    pub fn dismiss_workers(&self) {
        self.replies.dismiss();
        let pools: Vec<_> = self.files().pools.values().copied().collect();
        for pool in &pools {
            pool.quit();
        }
        let until = clock::now() + 2_000_000_000;
        while pools.iter().any(|pool| pool.is_staffed()) && clock::now() < until {
            clock::pause(Duration::from_millis(1));
        }
    }

    /// Syncer threads may be started again.
    pub fn recall_workers(&self) {
        self.replies.recall();
        self.files().pools.values().for_each(|pool| pool.resume());
    }

    /// The process ends: makes everything acknowledged durable and removes the status file.
    pub fn close(&'static self) {
        self.leaves();
        if let Err(errno) = crate::order::drain_others(None) {
            let error = std::io::Error::from_raw_os_error(errno);
            note::error(&format!("acknowledged calls were not synced at exit: {error}"));
        }
        self.replies.finish(self);
        self.slots().for_each(|slot| slot.crowd.leave());
        if let Some(file) = &self.status_file {
            file.remove();
        }
    }
}

/// Writes what is staged of this file; returns whether anything was.
pub fn settle_file(id: FileId) -> bool {
    let Some(registry) = table::registry().filter(|r| r.is_ours()) else { return false };
    let index = registry.files().open.get(&id).copied();
    let slot = index.and_then(|index| registry.slot(index)).filter(|slot| slot.has_staged());
    slot.is_some_and(|slot| slot.settle().is_ok())
}

/// The log of this file.
pub fn slot_of(id: FileId) -> Option<&'static Slot> {
    let registry = table::registry().filter(|r| r.is_ours())?;
    let index = registry.files().open.get(&id).copied()?;
    registry.slot(index)
}

/// Nothing of any log is staged from now on.
pub fn revoke_all(why: StageOff) {
    if let Some(registry) = table::registry().filter(|r| r.is_ours()) {
        registry.slots().for_each(|slot| slot.revoke(why));
    }
}

/// The log whose file is at `path`.
pub fn slot_at(path: *const libc::c_char) -> Option<&'static Slot> {
    let registry = table::registry().filter(|r| r.is_ours())?;
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the system has just read `path`, and `stat` has room for the result.
    if unsafe { libc::stat(path, stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: stat succeeded and filled it.
    let stat = unsafe { stat.assume_init() };
    let files = registry.files();
    let index = files.open.get(&(stat.st_dev, stat.st_ino)).copied()?;
    registry.slot(index)
}

/// The number from which the agent's own descriptors start: of the numbers that the application is
/// allowed it leaves the lower three quarters.
fn own_fd_from() -> c_int {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for the result.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    (limit.rlim_cur / 4 * 3).min(OWN_FD_FROM) as c_int
}

/// The file system of a descriptor.
fn storage(fd: c_int) -> Storage {
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: any number may be passed, and `stat` has room for the result.
    if unsafe { libc::fstatfs(fd, stat.as_mut_ptr()) } != 0 {
        return Storage::Usual;
    }
    // SAFETY: the call succeeded and filled it.
    let stat = unsafe { stat.assume_init() };
    Storage::of_magic(stat.f_type as u64)
}

/// A descriptor of the same open file, for the agent.
pub fn duplicate(fd: RawFd) -> Option<RawFd> {
    // SAFETY: any descriptor and number may be passed.
    let own = unsafe { real::FCNTL.get()(fd, libc::F_DUPFD_CLOEXEC, own_fd_from() as usize) };
    if own < 0 {
        return None;
    }
    table::set(own, Entry::Own);
    Some(own)
}

/// A descriptor of a second open file, from a descriptor of the first.
pub fn reopen(fd: RawFd) -> Option<RawFd> {
    use std::io::Write;
    let mut path = [0_u8; 32];
    write!(path.as_mut_slice(), "/proc/self/fd/{fd}").ok()?;
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOATIME;
    let open = |flags| {
        // SAFETY: the path ends with a zero.
        unsafe { real::OPEN.get()(path.as_ptr().cast(), flags, 0) }
    };
    let low = match open(flags) {
        low if low >= 0 => low,
        _ => open(flags & !libc::O_NOATIME),
    };
    if low < 0 {
        return None;
    }
    // SAFETY: any descriptor and number may be passed.
    let high = unsafe { real::FCNTL.get()(low, libc::F_DUPFD_CLOEXEC, own_fd_from() as usize) };
    // SAFETY: the descriptor is ours.
    unsafe { real::CLOSE.get()(low) };
    if high < 0 {
        return None;
    }
    table::set(high, Entry::Own);
    Some(high)
}

/// Closes one of the agent's own descriptors.
pub fn close_own(fd: RawFd) {
    table::set(fd, Entry::Other);
    // SAFETY: the descriptor is ours.
    unsafe { real::CLOSE.get()(fd) };
}
