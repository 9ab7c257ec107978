//! The logs, by inode, and the order across files.
//!
//! What survives a power loss must be a prefix of what the command did. So whatever the logs have deferred is made
//! durable before another file is synced, renamed, removed, truncated or made.

mod served;

use crate::clock;
use crate::fault_injection::{Fault, injects};
use crate::load::Policy;
use crate::log::{Core, FileId, Slot};
use crate::note;
use crate::process::{self, Process};
use crate::record;
use crate::serve::Supervisor;
use durac_abi::MAX_LOGS;
use durac_abi::object::OnError;
use durac_engine::{Errno, Time};
pub use served::{Facts, Mounts, is_memory, may_ask};
use std::collections::{HashMap, HashSet};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A log of which nothing is deferred is forgotten after so long: its file can then be unmounted.
const IDLE: Duration = Duration::from_secs(10);
/// The name of a log that has one only is looked at again after so long, and at each call for so long after the command may
/// have changed names, nanoseconds. What others rename is noticed later.
const NAMED: Time = 100_000_000;
/// Files that are counted as without room, at most.
const MOST_WITHOUT: usize = 1 << 16;
/// Between two searches for logs that are closed, where there is no room for another.
const ROOM: Duration = Duration::from_secs(1);
/// Between two searches for processes that have a log open which does not change, at most.
const IDLE_MOST: Duration = Duration::from_secs(60);
/// The same where a log that is given up too early is not found again before its next open.
const IDLE_MOST_WATCHED: Duration = Duration::from_secs(600);

/// The logs.
#[derive(Default)]
pub struct Logs {
    slots: Mutex<HashMap<FileId, Arc<Slot>>>,
    /// How many have something deferred.
    dirty: AtomicU64,
    /// The error that has stopped all, or 0.
    stopped: AtomicI32,
    /// There is a log whose writes are looked for.
    looks: AtomicBool,
    /// When processes were last searched for open files, or 0: that takes a while where there are many.
    searched: AtomicU64,
    /// The same, because there was no room for another log.
    made_room: AtomicU64,
    /// Files that found no room, as far as they are counted.
    without: Mutex<HashSet<FileId>>,
    /// When the command last made a call that can change names.
    renamed: AtomicU64,
    /// The keeper's process: it has the same descriptors as this one.
    keeper: AtomicU32,
}

/// Why a file has no log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLog {
    /// It is none by its name, or does not need one: a process of the command may serve its file system.
    NotOne,
    /// It cannot be opened.
    Unopened,
    /// That cannot be told now.
    Later,
    /// There are as many logs as can be.
    NoRoom,
}

/// The logs, locked.
pub type Slots<'a> = MutexGuard<'a, HashMap<FileId, Arc<Slot>>>;

impl Logs {
    /// The log of a file, if it has one.
    pub fn get(&self, file: FileId) -> Option<Arc<Slot>> {
        self.lock().get(&file).cloned()
    }

    /// The command is about to make a call that can change names.
    pub fn names_change(&self) {
        self.renamed.store(clock::now(), Ordering::SeqCst);
    }

    /// Whether a file with a log was seen lately to have the name of one, and to look again is to no purpose: that is a third
    /// of what a call costs.
    pub fn is_named(&self, slot: &Slot, links: u64, now: Time) -> bool {
        let [named, renamed] = [&slot.named, &self.renamed].map(|at| at.load(Ordering::SeqCst));
        links == 1 && named != 0 && now < named + NAMED && now > renamed + NAMED
    }

    /// The log of an open file that a process syncs. A file that has another name by now, or none, is no log, unless a sync
    /// of it has failed.
    pub fn synced(
        &self,
        supervisor: &'static Supervisor,
        file: &File,
        facts: Facts,
        process: Process,
    ) -> Option<Arc<Slot>> {
        let (now, known) = (clock::now(), self.get(facts.id));
        let is_named = |slot: &Arc<Slot>| self.is_named(slot, facts.links, now);
        if let Some(slot) = known.filter(|slot| is_named(slot) && !is_left(slot, process)) {
            return Some(slot);
        }
        if log_name(supervisor, file).is_some() {
            let slot = self.find(supervisor, file, facts, process)?;
            slot.named.store(now, Ordering::SeqCst);
            return Some(slot);
        }
        let has_failed = |slot: &Arc<Slot>| slot.lock().engine.error().is_some();
        self.get(facts.id).filter(|slot| has_failed(slot) && !is_left(slot, process))
    }

    /// The log of an open file: it has one, whatever its name is by now, or it gets one if the policy covers its name.
    pub fn find(
        &self,
        supervisor: &'static Supervisor,
        file: &File,
        facts: impl Into<Facts>,
        process: Process,
    ) -> Option<Arc<Slot>> {
        self.find_or_why(supervisor, file, facts.into(), process).ok()
    }

    /// The same, or why it has none.
    pub fn find_or_why(
        &self,
        supervisor: &'static Supervisor,
        file: &File,
        Facts { id, is_file, .. }: Facts,
        process: Process,
    ) -> Result<Arc<Slot>, NoLog> {
        if let Some(slot) = self.get(id).filter(|slot| !is_left(slot, process)) {
            return Ok(slot);
        }
        let path = log_name(supervisor, file).filter(|_| is_file).ok_or(NoLog::NotOne)?;
        let is_served = match supervisor.mounts.is_served(id.0) {
            Some(is_served) => is_served,
            // Its server may be asked, and its calls have to be answered meanwhile.
            None => match supervisor.crew.asks() {
                Some(_asking) => supervisor.mounts.is_served_unseen(file),
                None => return Err(NoLog::Later),
            },
        };
        if is_served {
            // Even to close the file its server is asked (FLUSH).
            supervisor.crew.may_block();
            if supervisor.mounts.is_news() {
                note::info(&format!(
                    "{}: a process of the command may serve its file system (FUSE): its syncs run as the command calls them",
                    path.display()
                ));
            }
            return Err(NoLog::NotOne);
        }
        // Its disk may hang.
        supervisor.crew.may_block();
        if self.is_full() {
            self.make_room();
        }
        let open = || own_file(file).and_then(|own| Ok((own.metadata()?, own)));
        let opened = supervisor.callers.with_room(open, process::errno_of);
        let (meta, own) = opened.map_err(|error| {
            let is_short = process::is_short(process::errno_of(&error));
            if is_short { NoLog::Later } else { NoLog::Unopened }
        })?;
        let may_ask = served::may_ask(&own);
        let slot = self.place(supervisor, (&meta, own), path.display().to_string(), process);
        let slot = slot.ok_or(NoLog::NoRoom)?;
        slot.asks.store(may_ask, Ordering::Relaxed);
        Ok(slot)
    }

    /// Gives a file a log, in the place of one that was left. Of two threads that come at once, both get the first one's.
    pub fn place(
        &self,
        supervisor: &'static Supervisor,
        (meta, own): (&Metadata, File),
        shown: String,
        process: Process,
    ) -> Option<Arc<Slot>> {
        let id = (meta.dev(), meta.ino());
        if injects(Fault::SlowPlace) || injects(Fault::TwoPlaces) {
            std::thread::sleep(Duration::from_millis(2500));
        }
        // The last of it is dropped without the lock: to close its file may ask the file's server (FLUSH).
        let old;
        let mut slots = self.lock();
        // Another call may have come first, with the same file.
        if let Some(slot) = slots.get(&id).filter(|slot| !is_left(slot, process))
            && !injects(Fault::TwoPlaces)
        {
            return Some(slot.clone());
        }
        old = slots.remove(&id);
        if let Some(old) = &old {
            note::info(&format!("{}: used again after a failed sync", old.path));
            let mut core = old.lock();
            old.retire(&mut core);
        }
        let taken: Vec<usize> = slots.values().map(|slot| slot.index).collect();
        let index = (0..MAX_LOGS as usize).find(|index| !taken.contains(index));
        let Some(index) = index else {
            // Each file once: it is tried again and again.
            let mut without = self.without.lock().unwrap_or_else(PoisonError::into_inner);
            if without.len() < MOST_WITHOUT && without.insert(id) {
                supervisor.page.status.count_unplaced();
            }
            return None;
        };
        if let Some(state) = supervisor.policy().state {
            state.reset(index);
        }
        supervisor.page.status.publish_file(index, &shown, id);
        if process != Process::default() {
            supervisor.page.status.publish_served(process.number, clock::of(libc::CLOCK_BOOTTIME));
        }
        let slot = Slot::new(index, meta, own, shown, supervisor);
        slots.insert(id, slot.clone());
        self.looks.fetch_or(supervisor.asked.opens, Ordering::Relaxed);
        Some(slot)
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Slot>> {
        self.lock().values().cloned().collect()
    }

    /// Whether a log has something deferred. Writes that are looked for are looked for now.
    pub fn are_dirty(&self) -> bool {
        if self.looks.load(Ordering::Relaxed) {
            for slot in self.all() {
                slot.look();
            }
        }
        self.dirty.load(Ordering::Acquire) != 0
    }

    /// Makes durable what the logs other than `except` have deferred. One load if none has. An error is returned to
    /// the processes that use the log that has failed.
    pub fn drain_others(
        &self,
        except: Option<&Slot>,
        process: Option<Process>,
    ) -> Result<(), Errno> {
        match self.are_dirty() {
            true => self.drain(except, process),
            false => Ok(()),
        }
    }

    /// Makes durable what all logs have deferred, and what is being acknowledged now: with the policy off, nothing is behind
    /// from then on.
    pub fn drain_all(&self, process: Option<Process>) -> Result<(), Errno> {
        // For the look at what is written. A call that was about to be acknowledged holds its log's lock, and counts once it lets
        // go of it.
        self.are_dirty();
        self.drain(None, process)
    }

    fn drain(&self, except: Option<&Slot>, process: Option<Process>) -> Result<(), Errno> {
        let mut result = Ok(());
        let is_its = |slot: &Slot, core: &Core| {
            process.is_none_or(|process| slot.is_known_to(core, process))
        };
        for slot in self.all() {
            if except.is_some_and(|except| std::ptr::eq(except, &raw const *slot)) {
                continue;
            }
            let core = slot.lock();
            if core.engine.undrained().is_none()
                || injects(Fault::OwnOrder) && !is_its(&slot, &core)
            {
                continue;
            }
            let (since, waited) = (clock::now(), record::waited());
            let (core, drained) = slot.drain(core);
            record::set_waited(waited + clock::now().saturating_sub(since));
            if is_its(&slot, &core) {
                result = result.and(drained);
            }
        }
        result
    }

    /// Forgets what is closed: removed files, and logs that nobody has used for a while and nobody has open to be written.
    /// The descriptor of a log keeps the space of a removed file. `keeper` has the same descriptors as this process.
    /// `watched` if logs are told of when they are opened only.
    pub fn sweep(&self, keeper: Option<u32>, watched: bool) {
        let now = clock::now();
        let most = if watched || record::is_on() { IDLE_MOST_WATCHED } else { IDLE_MOST };
        self.keeper.store(keeper.unwrap_or(0), Ordering::Relaxed);
        self.find_closed(now, most);
        let may_end = |_: &FileId, slot: &mut Arc<Slot>| {
            let mut core = slot.lock();
            // No server is asked: it may hang, and others wait for these locks.
            let removed = Facts::of(&slot.own).is_ok_and(|facts| facts.links == 0);
            let unused = Duration::from_nanos(now.saturating_sub(core.used)) > IDLE;
            let ends = is_quiet(&core)
                && match core.engine.error().is_some() {
                    true => removed,
                    false => {
                        let closed = unused && core.is_closed;
                        core.engine.undrained().is_none() && (removed || closed)
                    }
                };
            if ends {
                slot.retire(&mut core);
            }
            ends
        };
        // Dropped without the lock: to close a file may ask its server (FLUSH).
        let ended: Vec<_> = self.lock().extract_if(may_end).collect();
        drop(ended);
    }

    fn is_full(&self) -> bool {
        self.lock().len() >= MAX_LOGS as usize
    }

    /// Forgets the logs of which everything is durable and that nobody can write to, if they were not used for a second. No lock
    /// is held while it looks, and it looks once in a while at most.
    fn make_room(&self) {
        let now = clock::now();
        let before = self.made_room.load(Ordering::Relaxed);
        let is_soon = before != 0 && now.saturating_sub(before) < ROOM.as_nanos() as Time;
        let is_first = || {
            let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
            self.made_room.compare_exchange(before, now, success, failure).is_ok()
        };
        if is_soon || !is_first() {
            return;
        }
        let is_clean = |core: &Core| {
            is_quiet(core) && core.engine.error().is_none() && core.engine.undrained().is_none()
        };
        let used = |slot: &Arc<Slot>| {
            let core = slot.lock();
            // A call that opens it may be under way.
            let is_idle = now.saturating_sub(core.used) > ROOM.as_nanos() as Time;
            (is_clean(&core) && is_idle).then_some(core.used)
        };
        let slots = self.lock();
        let clean: Vec<(FileId, Arc<Slot>, Time)> =
            slots.iter().filter_map(|(id, slot)| Some((*id, slot.clone(), used(slot)?))).collect();
        drop(slots);
        let ids: Vec<FileId> = clean.iter().map(|(id, ..)| *id).collect();
        let open = process::open_anywhere(&ids, &self.ours());
        for (id, slot, used) in clean {
            if open.contains(&id) {
                continue;
            }
            // What was written until it was closed is seen now.
            slot.look();
            let mut slots = self.lock();
            let mut core = slot.lock();
            // It may have been used meanwhile, by that name or another.
            let is_it = slots.get(&id).is_some_and(|there| Arc::ptr_eq(there, &slot));
            if is_it && core.used == used && is_clean(&core) {
                slot.retire(&mut core);
                slots.remove(&id);
            }
        }
    }

    /// This process and its keeper: they have the logs open, too.
    fn ours(&self) -> Vec<u32> {
        let keeper = Some(self.keeper.load(Ordering::Relaxed)).filter(|keeper| *keeper != 0);
        [Some(std::process::id()), keeper].into_iter().flatten().collect()
    }

    /// Of logs that were not used for a while: finds those that nobody can write to. They are looked for again after a pause
    /// that grows up to `most`.
    fn find_closed(&self, now: Time, most: Duration) {
        let idle: Vec<(FileId, Arc<Slot>)> = {
            let slots = self.lock();
            let idle = slots.iter().filter(|(_, slot)| slot.is_idle(&slot.lock(), now, IDLE));
            idle.map(|(id, slot)| (*id, slot.clone())).collect()
        };
        let before = self.searched.load(Ordering::Relaxed);
        let is_soon = before != 0 && now.saturating_sub(before) < IDLE.as_nanos() as Time;
        if idle.is_empty() || is_soon {
            return;
        }
        self.searched.store(now, Ordering::Relaxed);
        let ids: Vec<FileId> = idle.iter().map(|(id, _)| *id).collect();
        let open = process::open_anywhere(&ids, &self.ours());
        for (id, slot) in idle {
            let mut core = slot.lock();
            // It may have been opened meanwhile.
            if slot.is_idle(&core, now, IDLE) {
                core.is_closed = !open.contains(&id);
                let pause = core.search_pause.max(IDLE).saturating_mul(2).min(most);
                core.search_pause = pause;
                core.search_at = now.saturating_add(pause.as_nanos() as Time);
            }
        }
    }

    /// One log more has something deferred, or one less.
    pub fn count_dirty(&self, more: bool) {
        match more {
            true => self.dirty.fetch_add(1, Ordering::AcqRel),
            false => self.dirty.fetch_sub(1, Ordering::AcqRel),
        };
    }

    /// The error of the first sync that has failed.
    pub fn failed_by(&self) -> Option<Errno> {
        Some(self.stopped.load(Ordering::Acquire)).filter(|errno| *errno != 0)
    }

    /// A sync of a log has failed.
    pub fn failed(&self, errno: Errno) {
        let _ = self.stopped.compare_exchange(0, errno, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The error that stops every log, if the policy says so.
    pub fn stopped(&self, supervisor: &Supervisor) -> Option<Errno> {
        self.stopped_by(supervisor.policy())
    }

    /// The error that stops every log under a policy.
    pub fn stopped_by(&self, policy: &Policy) -> Option<Errno> {
        self.failed_by().filter(|_| policy.meta.on_error == OnError::Stop)
    }

    /// Takes the lock: no log comes or goes.
    pub fn lock(&self) -> Slots<'_> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether no call is inside a log, and none may be under way that a sync would have to cover.
fn is_quiet(core: &Core) -> bool {
    core.users == 0 && !core.engine.is_flying() && core.begun == core.ended
}

/// Whether a log has failed for processes that are all gone: a program that is started again reads its log anew.
fn is_left(slot: &Slot, process: Process) -> bool {
    let core = slot.lock();
    core.engine.error().is_some()
        && !slot.is_known_to(&core, process)
        && !slot.may_have_written(&core, process)
        && core.users == 0
        && !slot.is_in_use(&core)
}

/// The name that the kernel shows for an open file, if it is that of a log.
fn log_name(supervisor: &Supervisor, file: &File) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let policy = &supervisor.policy().meta;
    durac_abi::glob::covers(&policy.files, &policy.except, &path).then_some(path)
}

/// The supervisor's own open file of the same inode: it holds no lock of the caller's, and sees errors for itself. It is only
/// synced and looked at. One to write would keep a program that was just written from being executed (`ETXTBSY`).
pub fn own_file(file: &File) -> io::Result<File> {
    let again = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    // Nobody is waited for who has a lease on it: that may be the caller.
    let open = |read, write| {
        let mut options = OpenOptions::new();
        options.read(read).write(write).custom_flags(libc::O_NONBLOCK).open(&again)
    };
    let flags = process::flags_of(file);
    match served::has_layers(file) {
        // One to read may lead to the lower file, whose errors are others, and one to write would copy that into the upper layer.
        // A file that the caller has open to be written is there already.
        true if flags & libc::O_PATH == 0 && flags & libc::O_ACCMODE == libc::O_RDONLY => {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        }
        true => open(true, true).or_else(|_| open(true, false)),
        // Without the right to read it, one to write does.
        false => open(true, false).or_else(|_| open(false, true)),
    }
}

/// Whether a file cannot be opened now, since a process has a lease on it. It is told to release it.
pub fn is_leased(file: &File) -> bool {
    own_file(file).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
