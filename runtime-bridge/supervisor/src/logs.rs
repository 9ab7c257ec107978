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
use crate::process;
use crate::record;
use crate::serve::Supervisor;
use durac_abi::MAX_LOGS;
use durac_abi::object::OnError;
use durac_engine::{Errno, Time};
pub use served::{Facts, Mounts, is_memory};
use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A log of which nothing is deferred is forgotten after so long: its file can then be unmounted.
const IDLE: Duration = Duration::from_secs(10);
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
}

/// The logs, locked.
pub type Slots<'a> = MutexGuard<'a, HashMap<FileId, Arc<Slot>>>;

impl Logs {
    /// The log of a file, if it has one.
    pub fn get(&self, file: FileId) -> Option<Arc<Slot>> {
        self.lock().get(&file).cloned()
    }

    /// The log of an open file that a process syncs: it has one, or it gets one if the policy covers its name.
    pub fn find(
        &self,
        supervisor: &'static Supervisor,
        file: &File,
        facts: impl Into<Facts>,
        process: u32,
    ) -> Option<Arc<Slot>> {
        let Facts { id, is_file, .. } = facts.into();
        if let Some(slot) = self.get(id).filter(|slot| !is_left(slot, process)) {
            return Some(slot);
        }
        let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
        let policy = &supervisor.policy().meta;
        if !is_file || !durac_abi::glob::covers(&policy.files, &policy.except, &path) {
            return None;
        }
        // From here on its server may be asked, and others have to be answered meanwhile.
        supervisor.crew.may_block();
        if supervisor.mounts.are_served(file, id.0) {
            if supervisor.mounts.is_news() {
                note::info(&format!(
                    "{}: a process of the command may serve its file system (FUSE): its syncs run as the command calls them",
                    path.display()
                ));
            }
            return None;
        }
        let own = own_file(file)?;
        let meta = own.metadata().ok()?;
        self.place(supervisor, (&meta, own), path.display().to_string(), process)
    }

    /// Gives a file a log, in the place of one that was left. Of two threads that come at once, both get the first one's.
    pub fn place(
        &self,
        supervisor: &'static Supervisor,
        (meta, own): (&Metadata, File),
        shown: String,
        process: u32,
    ) -> Option<Arc<Slot>> {
        let id = (meta.dev(), meta.ino());
        if injects(Fault::SlowPlace) || injects(Fault::TwoPlaces) {
            std::thread::sleep(Duration::from_millis(400));
        }
        let mut slots = self.lock();
        // Another call may have come first, with the same file.
        if let Some(slot) = slots.get(&id).filter(|slot| !is_left(slot, process))
            && !injects(Fault::TwoPlaces)
        {
            return Some(slot.clone());
        }
        if let Some(old) = slots.remove(&id) {
            note::info(&format!("{}: used again after a failed sync", old.path));
            let mut core = old.lock();
            old.retire(&mut core);
        }
        let taken: Vec<usize> = slots.values().map(|slot| slot.index).collect();
        let index = (0..MAX_LOGS as usize).find(|index| !taken.contains(index));
        let Some(index) = index else {
            supervisor.page.status.count_unplaced();
            return None;
        };
        if let Some(state) = supervisor.policy().state {
            state.reset(index);
        }
        supervisor.page.status.publish_file(index, &shown, id);
        if process != 0 {
            supervisor.page.status.publish_served(process, clock::of(libc::CLOCK_BOOTTIME));
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
            let now = clock::now();
            for slot in self.all() {
                slot.look(&mut slot.lock(), now);
            }
        }
        self.dirty.load(Ordering::Acquire) != 0
    }

    /// Makes durable what the logs other than `except` have deferred. One load if none has. An error is returned to
    /// the processes that use the log that has failed.
    pub fn drain_others(&self, except: Option<&Slot>, process: Option<u32>) -> Result<(), Errno> {
        if !self.are_dirty() {
            return Ok(());
        }
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
        self.find_closed(keeper, now, most);
        self.lock().retain(|_, slot| {
            let mut core = slot.lock();
            let removed = slot.own.metadata().is_ok_and(|meta| meta.nlink() == 0);
            let unused = Duration::from_nanos(now.saturating_sub(core.used)) > IDLE;
            let failed = core.engine.error().is_some();
            let ends = core.users == 0
                && !core.engine.is_flying()
                // A write may be under way that a sync would have to cover.
                && core.begun == core.ended
                && match failed {
                    true => removed,
                    false => {
                        let closed = unused && core.is_closed;
                        core.engine.undrained().is_none() && (removed || closed)
                    }
                };
            if ends {
                slot.retire(&mut core);
            }
            !ends
        });
    }

    /// Of logs that were not used for a while: finds those that nobody can write to. They are looked for again after a pause
    /// that grows up to `most`.
    fn find_closed(&self, keeper: Option<u32>, now: Time, most: Duration) {
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
        let ours = [Some(std::process::id()), keeper].into_iter().flatten();
        let open = process::open_anywhere(&ids, &ours.collect::<Vec<_>>());
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

/// Whether a log has failed for processes that are all gone: a program that is started again reads its log anew.
fn is_left(slot: &Slot, process: u32) -> bool {
    let core = slot.lock();
    core.engine.error().is_some()
        && !slot.is_known_to(&core, process)
        && !slot.may_have_written(&core, process)
        && core.users == 0
        && !slot.is_in_use(&core)
}

/// The supervisor's own open file of the same inode: it holds no lock of the caller's, and sees errors for itself. It is only
/// synced and looked at. One to write would keep a program that was just written from being executed (`ETXTBSY`).
fn own_file(file: &File) -> Option<File> {
    let again = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let written = || OpenOptions::new().read(true).write(true).open(&again).ok();
    let read = || File::open(&again).ok();
    match served::has_layers(file) {
        // One to read may lead to the lower file, whose errors are others.
        true => written().or_else(read),
        // Without the right to read it, one to write does.
        false => read().or_else(|| OpenOptions::new().write(true).open(&again).ok()),
    }
}
