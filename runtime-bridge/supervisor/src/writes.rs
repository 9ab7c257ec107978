//! Writes and mappings, where the kernel asks about them: for a policy with `on write` or `pending.bytes`, and for a
//! target that protects files or has a log that starts again.
//!
//! The kernel asks before a write, and does not tell when it has ended. Its bytes therefore count as written from the
//! question on, and a sync covers them only if its thread has been seen elsewhere before the sync began.

use crate::call;
use crate::clock;
use crate::fault_injection::{Fault, injects};
use crate::filter::{self, Length, Map, Offset, RWF_APPEND, RWF_NOAPPEND, Write};
use crate::handover::KnownWrite;
use crate::log::Slot;
use crate::logs::is_memory;
use crate::memory;
use crate::notify::{Answer, Notification};
use crate::opened::Opened;
use crate::process::{self, flags_of};
use crate::serve::Supervisor;
use durac_abi::{Layout, Reading, glob};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The position of the descriptor, as `pwritev2` says it.
const CURRENT: u64 = u64::MAX;
/// What the kernel writes at once, at most (`MAX_RW_COUNT`, rounded up).
const MOST: u64 = 1 << 31;
/// Made without a name (`O_TMPFILE` without `O_DIRECTORY`).
const TMPFILE: i32 = libc::O_TMPFILE & !libc::O_DIRECTORY;

/// Writes that were let through and are not known to have ended, by thread.
#[derive(Default)]
pub struct Unended {
    writes: Mutex<HashMap<u32, Begun>>,
}

struct Begun {
    slot: Arc<Slot>,
    len: u64,
    /// Of the notification, which no other has.
    id: u64,
    /// Number of the system call.
    number: i32,
}

impl Unended {
    /// A write is let through.
    fn begins(&self, call: &Notification, slot: &Arc<Slot>, len: u64) {
        slot.begins(&mut slot.lock(), len);
        let begun = Begun { slot: slot.clone(), len, id: call.id, number: call.number };
        let before = self.lock().insert(call.thread, begun);
        // It has called again, so the one before is over.
        if let Some(before) = before {
            before.slot.ended(before.len);
        }
    }

    /// All of them, for a program that takes over; `number` is that of a log.
    pub fn known(&self, number: impl Fn(&Slot) -> Option<u64>) -> Vec<KnownWrite> {
        let writes = self.lock();
        let known = writes.iter().filter_map(|(thread, begun)| {
            let Begun { len, id, number: call, .. } = *begun;
            Some(KnownWrite { thread: *thread, number: call, id, len, log: number(&begun.slot)? })
        });
        known.collect()
    }

    /// A write that the program before has let through.
    pub fn restore(&self, known: &KnownWrite, slot: &Arc<Slot>) {
        let KnownWrite { thread, number, id, len, .. } = *known;
        slot.begins(&mut slot.lock(), len);
        self.lock().insert(thread, Begun { slot: slot.clone(), len, id, number });
    }

    /// A thread calls: what it wrote before is written.
    pub fn seen(&self, thread: u32) {
        let before = self.lock().remove(&thread);
        if let Some(begun) = before {
            begun.slot.ended(begun.len);
        }
    }

    /// Looks where the threads are.
    pub fn sweep(&self) {
        let begun: Vec<(u32, u64, i32)> =
            self.lock().iter().map(|(thread, begun)| (*thread, begun.id, begun.number)).collect();
        for (thread, id, number) in begun {
            if !process::may_be_in(thread, number) {
                // The thread may have begun another write meanwhile, by the same system call.
                let mut writes = self.lock();
                let is_it = writes.get(&thread).is_some_and(|begun| begun.id == id);
                let ended = if is_it { writes.remove(&thread) } else { None };
                drop(writes);
                if let Some(begun) = ended {
                    begun.slot.ended(begun.len);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Begun>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Supervisor {
    /// A write. One that is durable by itself comes after the logs, whatever file it goes to.
    pub fn write(&'static self, call: &Notification, write: Write) -> Answer {
        let policy = self.policy();
        let at = match write.at {
            Offset::Argument(index) => offset(call, index),
            // It is not read: this may be the beginning.
            Offset::Memory(index) if call.argument(index) != 0 => 0,
            Offset::Memory(_) | Offset::Position => CURRENT,
        };
        // The sixth argument of `pwritev2`; the others that have an offset have fewer arguments, and their wrappers
        // may leave anything in it: what is deferred then comes first once too often.
        let flags = write.flags.map_or(0, |index| call.argument(index));
        let sees_durable = !injects(Fault::NoDurableWrites);
        let durable = flags & u64::from(filter::RWF) != 0 && sees_durable;
        if !self.asked.writes {
            // Only the recording asks: what the call is without it.
            return if durable { self.after_the_logs(call) } else { Answer::Continue };
        }
        let dirty = self.logs.are_dirty();
        let is_ring = policy.meta.layout == Layout::Ring;
        let may_wait = self.may_wait(call, write);
        if !dirty && !is_ring && !may_wait && !policy.sees_writes() {
            return Answer::Continue;
        }
        let opened = match self.opened(call, call.descriptor(write.fd)) {
            Ok(opened) => opened,
            Err(errno) => {
                if may_wait && errno != libc::EBADF {
                    self.turn_off("a file that cannot be seen is written by splice or sendfile: it may be protected");
                }
                // It may be a log, and this its beginning.
                if errno != libc::EBADF {
                    self.tell_unseen(errno);
                    self.logs_change(call);
                }
                return self.after_the_logs(call);
            }
        };
        let Opened { file, facts, process, .. } = &opened;
        let durable = durable || flags_of(file) & libc::O_DSYNC != 0 && sees_durable;
        if !facts.is_file {
            // A block device may be written durably, too.
            return if durable { self.after_the_logs(call) } else { Answer::Continue };
        }
        if may_wait {
            self.waits_to_write(&opened);
        }
        if policy.sees_writes()
            && let Some(errno) = self.on_write(call, write, &opened)
        {
            return Answer::Return(Err(errno));
        }
        if let Some(slot) = self.logs.get(facts.id) {
            let is_beginning = || is_at_start(self, &slot, file, (at, flags));
            if is_ring && !injects(Fault::NoBeginning) && is_beginning() {
                slot.starts_again(call);
                return self.after_the_logs(call);
            }
        }
        // The program may have waited.
        let dirty = dirty || self.logs.are_dirty();
        match dirty && (durable || self.is_protected(&opened)) {
            true => self.ordered(self.logs.drain_others(None, Some(*process))),
            false => Answer::Continue,
        }
    }

    /// Whether a write may wait for what it reads from, where it matters when it writes: the order would be kept only of
    /// what was deferred before the question.
    fn may_wait(&'static self, call: &Notification, write: Write) -> bool {
        let meta = &self.policy().meta;
        let Some(source) = write.source else { return false };
        if meta.protects.is_empty() && meta.layout != Layout::Ring {
            return false;
        }
        let source = self.opened(call, call.descriptor(source));
        !source.is_ok_and(|source| source.facts.is_file)
    }

    /// A write to this file may wait, and is not asked about again: if it must not come before what is deferred meanwhile,
    /// nothing can be deferred any more.
    fn waits_to_write(&self, opened: &Opened) {
        if self.is_protected(opened) {
            self.turn_off("a protected file is written by splice or sendfile: that may happen at any later time");
        } else if self.policy().meta.layout == Layout::Ring && self.may_be_log(opened) {
            self.turn_off(
                "a log is written by splice or sendfile: that may happen at any later time",
            );
        }
    }

    /// A write to a file that may be a log: the policy's program runs, and its bytes are counted. Returns the error that
    /// the write returns.
    fn on_write(&'static self, call: &Notification, write: Write, opened: &Opened) -> Option<i32> {
        let rules = self.policy().rules;
        while let Some(slot) = self.logs.find(self, &opened.file, opened.facts, opened.process) {
            let asks_length = rules.keeps_amounts || self.policy().reads(Reading::CallLen);
            let len = if asks_length { self.length(call, write, &slot) } else { 0 };
            match call::write(&slot, len) {
                None => {}
                Some(Err(errno)) => return Some(errno),
                Some(Ok(())) => {
                    if rules.keeps_amounts {
                        self.unended.begins(call, &slot, len);
                    }
                    return None;
                }
            }
        }
        None
    }

    /// How many bytes a call writes, at most. What cannot be told is the most that there is.
    pub fn length(&self, call: &Notification, write: Write, slot: &Slot) -> u64 {
        let known = match write.length {
            // The kernel refuses more than a signed number holds, and writes no more than this at once.
            Length::Argument(index) => Some(call.argument(index).min(MOST)),
            Length::Pieces => memory::pieces(call).map(|sum| sum.min(MOST)),
        };
        if (known.is_none() || call.thread == 0) && self.policy().rules.keeps_amounts {
            slot.lock().engine.lose_bytes();
        }
        known.unwrap_or(MOST)
    }

    /// A call may change any log, by the time it has ended: how much is written is not known any more, nor whether a log
    /// starts again.
    pub fn logs_change(&self, call: &Notification) {
        self.loses_bytes();
        if self.policy().meta.layout == Layout::Ring && !injects(Fault::NoBeginning) {
            if call.thread == 0 {
                // When that call has ended is never known.
                self.turn_off(
                    "a process of a pid namespace that cannot be seen may begin a log again",
                );
            }
            for slot in self.logs.all() {
                slot.starts_again(call);
            }
        }
    }

    /// Something writes to logs that is no write call.
    pub fn loses_bytes(&self) {
        if self.policy().rules.keeps_amounts {
            for slot in self.logs.all() {
                slot.lock().engine.lose_bytes();
            }
        }
    }

    /// Whether a file must not be written while the log is behind. What is known by no name counts as protected, and so does
    /// a file of several names, which may have any. A log that was renamed, linked or removed is a file like any other.
    fn is_protected(&self, opened: &Opened) -> bool {
        let meta = &self.policy().meta;
        if meta.protects.is_empty() || injects(Fault::NoProtection) {
            return false;
        }
        let id = opened.facts.id;
        let is_named = |slot: &Slot| self.logs.is_named(slot, opened.facts.links, clock::now());
        if self.logs.get(id).is_some_and(|slot| is_named(&slot)) {
            return false;
        }
        let covers = |globs: &[String], path: &Path| glob::covers(globs, &meta.except, path);
        let is_log = |path: &Path| covers(&meta.files, path);
        let has_one = opened.facts.links <= 1 || injects(Fault::OneName);
        let shown = opened.shown();
        if has_one && shown.is_some_and(|path| covers(&meta.protects, &path) && !is_log(&path)) {
            return true;
        }
        if !has_one {
            return true;
        }
        // It may have been renamed since.
        self.name(opened).is_none_or(|path| covers(&meta.protects, &path) && !is_log(&path))
    }

    /// Whether a file may be a log, by this name or another.
    fn may_be_log(&self, opened: &Opened) -> bool {
        let meta = &self.policy().meta;
        if self.logs.get(opened.facts.id).is_some() {
            return true;
        }
        match self.name(opened) {
            Some(path) if opened.facts.links <= 1 => glob::covers(&meta.files, &meta.except, &path),
            // What has no name gets none any more, but for one that was made without.
            None if opened.facts.links == 0 => flags_of(&opened.file) & TMPFILE != 0,
            _ => true,
        }
    }

    /// The path that the kernel shows for a caller's open file, if it leads there: it is that of the name by which the file
    /// was opened, which may be gone while there are others. Its server may be asked. A file that goes with the power may
    /// have any.
    fn name(&self, opened: &Opened) -> Option<PathBuf> {
        let path = opened.shown()?;
        let _asking = self.crew.asks()?;
        let leads = |path: &Path| {
            let meta = path.symlink_metadata();
            meta.is_ok_and(|meta| (meta.dev(), meta.ino()) == opened.facts.id)
        };
        // Or there by the mounts of the caller.
        let there = || {
            let mut there = OsString::from(format!("/proc/{}/root", opened.thread));
            there.push(&path);
            leads(Path::new(&there))
        };
        let is_its = leads(&path) || there() || is_memory(&opened.file, &opened.facts);
        is_its.then_some(path)
    }

    /// A shared mapping: if it can be written through, and its writes would have to be seen, nothing can be deferred any
    /// more.
    pub fn map(&'static self, call: &Notification, map: Map) -> Answer {
        if !self.asked.writes || injects(Fault::UnseenMaps) {
            return Answer::Continue;
        }
        let (protection, kind, fd) = match map {
            Map::Arguments => {
                (call.argument(2) as u32, call.argument(3) as u32, call.descriptor(4))
            }
            Map::Memory => match memory::words(call, 0) {
                Some([_, _, protection, kind, fd, _]) => (protection, kind, fd as RawFd),
                None => return self.maps_unseen(call),
            },
        };
        let has = |flags: u32, flag: libc::c_int| flags & flag as u32 != 0;
        let written = has(protection, libc::PROT_WRITE) && has(kind, libc::MAP_SHARED);
        if !written || has(kind, libc::MAP_ANONYMOUS) {
            return Answer::Continue;
        }
        let opened = match self.opened(call, fd) {
            Ok(opened) => opened,
            // The kernel says so, too.
            Err(libc::EBADF) => return Answer::Continue,
            Err(_) => return self.maps_unseen(call),
        };
        if !opened.facts.is_file {
            return Answer::Continue;
        }
        if self.is_protected(&opened) {
            self.turn_off("a protected file is mapped to be written: those writes cannot be seen");
            return self.after_all_logs(call);
        }
        if self.may_be_log(&opened) {
            self.is_mapped.store(true, Ordering::SeqCst);
            if self.policy().sees_writes() {
                self.loses_bytes();
                self.turn_off("a log is mapped to be written: those writes cannot be seen");
                return self.after_all_logs(call);
            }
        }
        Answer::Continue
    }

    /// It may be a log or a protected file.
    fn maps_unseen(&self, call: &Notification) -> Answer {
        self.is_mapped.store(true, Ordering::SeqCst);
        self.turn_off("a file is mapped that cannot be seen: writes to it could not be, either");
        self.after_all_logs(call)
    }
}

/// An offset: one argument of 64 bits, or two of 32, the lower first.
fn offset(call: &Notification, index: usize) -> u64 {
    let low = call.argument(index);
    match filter::word(call.arch) {
        4 => low & u64::from(u32::MAX) | call.argument(index + 1) << 32,
        _ => low,
    }
}

/// Whether a write through a caller's open file of a log, with these `RWF_*`, goes to the beginning of the file.
fn is_at_start(us: &Supervisor, slot: &Slot, file: &File, (at, flags): (u64, u64)) -> bool {
    let is_asked = flags & RWF_APPEND != 0;
    let appends = flags_of(file) & libc::O_APPEND != 0 && flags & RWF_NOAPPEND == 0;
    if at == 0 {
        return true;
    }
    // Then it goes to the end, whatever its offset is.
    if is_asked || appends {
        // Its server may hang.
        if slot.asks.load(Ordering::Relaxed) {
            us.crew.may_block();
        }
        return file.metadata().map_or(true, |meta| meta.len() == 0);
    }
    // The position is that of the caller: it is one open file.
    // SAFETY: no pointers.
    at == CURRENT && unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_CUR) } == 0
}
