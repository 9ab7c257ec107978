//! Files that the command opens, where a policy looks for what is written to its logs (`on write: defer`).
//!
//! The kernel asks before an open. A file that is there is looked up at once, by the name that the call has, as the caller
//! would; one that is made is looked up until it is there, or the call is over. Where a name does not lead to it by then, or
//! another file has that name, the files that the thread has open are searched. Looking at a file too many costs a sync.
//! Where the searches fall behind, those who open files do some of them.
//!
//! A name may lead to a file system that hangs, or whose server is a process of the command and waits for another call of it.
//! So no search waits for another, and a process that ends searches for what it has opened itself.
//!
//! The thread that searches also looks after logs that have no thread of their own.

use crate::clock;
use crate::fault_injection::{self, Fault, injects};
use crate::filter::{Flags, Open};
use crate::handover::KnownOpen;
use crate::log::{AGAIN, FileId, Slot};
use crate::logs::{Facts, NoLog, is_leased, own_file};
use crate::memory;
use crate::note;
use crate::notify::{self, Notification};
use crate::process::{self, PART, Process};
use crate::serve::Supervisor;
use crate::walk::{Named, descriptor, handle, has_name, open_beneath, parts, shown, walk};
use durac_abi::{MAX_LOGS, glob};
use durac_engine::Time;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The first pause between two searches, nanoseconds; each is five times as long as the one before, up to the last.
const FIRST: Time = 1_000_000;
const LAST: Time = 300_000_000;
/// Between two looks whether a search has ended.
const NAP: Duration = Duration::from_micros(200);
/// Between two tries to find room for a log, nanoseconds.
const ROOM: Time = 250_000_000;
/// Stack of the thread that searches, bytes.
const STACK: usize = 256 << 10;

/// While it lives, the searching thread does not search.
pub struct Still<'a>(&'a Opening);

impl Drop for Still<'_> {
    fn drop(&mut self) {
        self.0.lock().is_still = false;
        self.0.came.notify_one();
    }
}

/// What is being opened.
#[derive(Default)]
pub struct Opening {
    lists: Mutex<Lists>,
    came: Condvar,
    told: AtomicBool,
    told_room: AtomicBool,
    /// There is a log without a thread.
    alone: AtomicBool,
}

/// What is searched for.
#[derive(Default)]
struct Lists {
    expected: Vec<Expected>,
    /// The one of them that the searching thread is at.
    now: Option<Expected>,
    /// Logs for which there was no room, with the time from which on they may have been written.
    without_room: HashMap<FileId, (Arc<File>, Time)>,
    /// When that is tried again; and whether it is tried now.
    room_at: Time,
    is_placing: bool,
    /// Nothing new is searched for.
    is_still: bool,
}

impl Lists {
    /// All calls that open a file which is not found yet.
    fn all(&mut self) -> impl Iterator<Item = &mut Expected> {
        self.expected.iter_mut().chain(&mut self.now)
    }
}

/// A call that opens a file which is not found yet.
#[derive(Clone)]
struct Expected {
    thread: u32,
    process: Option<u32>,
    /// Number of the system call.
    number: i32,
    since: Time,
    due: Time,
    pause: Time,
    /// The thread has called again: this is the last search.
    is_over: bool,
    what: What,
}

#[derive(Clone)]
enum What {
    /// It makes a file of this name in this folder.
    Made(Arc<File>, OsString),
    /// It opens this file, of which there is a log, unless another gets this path before.
    There(FileId, PathBuf),
    /// A file of any name.
    Any,
}

/// What is known of a file that is about to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is there, and this call does not make it.
    There,
    /// It is no log, and the policy does not mind it.
    NoLog,
    /// It may be made, or changed.
    Unknown,
}

impl Supervisor {
    /// A file is about to be opened, so that it can be written; with `makes` the call may make it.
    pub fn opens(&'static self, call: &Notification, open: Open, makes: bool) -> Found {
        let since = clock::now();
        self.calls_again(call.thread, since);
        let expect = |what| {
            let process = self.callers.process(&self.listener, call);
            self.opening.expect(call, process.map(|process| process.number), since, what);
        };
        // A name may lead to a disk that hangs.
        let Some(_asking) = self.crew.asks() else {
            expect(What::Any);
            return Found::Unknown;
        };
        // It may say that the caller follows the name another way (`RESOLVE_IN_ROOT`).
        let may_lead_elsewhere = open.flags == Flags::Unseen;
        let named = match self.room(|| self.look_up(call, open)) {
            Ok(Named::File(file, name)) => match self.adopt(&file, since) {
                _ if may_lead_elsewhere || !has_name(&file, &name) => Found::Unknown,
                Found::There => match self.path_of(call, open, &file) {
                    Some((id, path)) => {
                        wait_for_another(&file, &path);
                        expect(What::There(id, path));
                        return Found::There;
                    }
                    None => Found::Unknown,
                },
                found => found,
            },
            Ok(Named::New(..)) if may_lead_elsewhere => Found::Unknown,
            Ok(Named::New(folder, name)) => {
                let meta = &self.policy().meta;
                let whole = shown(&folder).map(|folder| folder.join(&name));
                match whole.map(|path| glob::covers(&meta.files, &meta.except, &path)) {
                    Ok(true) if injects(Fault::LookedUpOnce) => return Found::Unknown,
                    // Another process may make it meanwhile.
                    Ok(true) if !makes => Found::Unknown,
                    Ok(true) => {
                        expect(What::Made(Arc::new(folder), name));
                        return Found::Unknown;
                    }
                    Ok(false) => Found::NoLog,
                    Err(_) => Found::Unknown,
                }
            }
            Err(_) => {
                self.tell_hidden(call);
                Found::Unknown
            }
        };
        // Never given up: whatever it is, the thread has it open when the call is over.
        if named == Found::Unknown {
            expect(What::Any);
        }
        named
    }

    /// Where the name of a call leads its caller.
    fn look_up(&self, call: &Notification, open: Open) -> io::Result<Named> {
        let unknown = || io::Error::from_raw_os_error(libc::EPERM);
        let name = open.name.filter(|_| call.thread != 0).ok_or_else(unknown)?;
        let text = memory::path(call, name).ok_or_else(unknown)?;
        let folder = call.descriptor(0);
        let base = match name {
            _ if Path::new(&text).is_absolute() => "root".to_owned(),
            0 => "cwd".to_owned(),
            _ if folder == libc::AT_FDCWD => "cwd".to_owned(),
            _ => format!("fd/{folder}"),
        };
        let of_caller = |what: &str| handle(Path::new(&format!("/proc/{}/{what}", call.thread)));
        let base = of_caller(&base)?;
        // Then it is that of this caller, and so is the path.
        let is_valid = || notify::is_valid(&self.listener, call.id);
        if text.is_empty() || !is_valid() {
            return Err(unknown());
        }
        if let Ok(file) = open_beneath(&base, &text) {
            let name = parts(&text).into_iter().next().unwrap_or_default();
            return Ok(Named::File(file, name));
        }
        let root = of_caller("root")?;
        if !is_valid() {
            return Err(unknown());
        }
        walk(&root, base, text)
    }

    /// The path of a file that the name of a call leads to: it still does once the path is known, or there is none.
    fn path_of(&self, call: &Notification, open: Open, file: &File) -> Option<(FileId, PathBuf)> {
        let (id, path) = (Facts::of(file).ok()?.id, shown(file).ok()?);
        let Named::File(again, _) = self.room(|| self.look_up(call, open)).ok()? else {
            return None;
        };
        (Facts::of(&again).ok()?.id == id).then_some((id, path))
    }

    /// Whether a file that has a log has this path. No server is asked.
    fn is_there(&self, id: FileId, path: &Path) -> bool {
        let slot = self.logs.get(id);
        slot.is_some_and(|slot| shown(&slot.own).is_ok_and(|now| now == path))
    }

    /// A thread opens another file: what it has opened before is there by now.
    fn calls_again(&self, thread: u32, now: Time) {
        for one in self.opening.is_over(thread, now) {
            if let What::There(id, path) = &one.what
                && self.is_there(*id, path)
            {
                self.opening.forget(&one);
            }
        }
    }

    /// Calls `body`, again with more room if there was no descriptor left.
    fn room<T>(&self, body: impl Fn() -> io::Result<T>) -> io::Result<T> {
        self.callers.with_room(body, process::errno_of)
    }

    /// Looks for what is written to a file from now on, if it is a log. What was written before counts as written at
    /// `since`.
    fn adopt(&'static self, handle: &File, since: Time) -> Found {
        match self.adopt_now(handle, since) {
            Ok(found) => found,
            Err(id) => {
                let Ok(own) = self.room(|| handle.try_clone()) else { return Found::Unknown };
                match self.opening.wait_for_room(id, own, since) {
                    true => self.tell_no_room(handle),
                    false => self.tell_unplaced(handle),
                }
                Found::There
            }
        }
    }

    /// The same. An error if it is a log, and there is no room for it.
    fn adopt_now(&'static self, handle: &File, since: Time) -> Result<Found, FileId> {
        let Ok(facts) = Facts::of(handle) else { return Ok(Found::Unknown) };
        if !facts.is_file {
            return Ok(Found::NoLog);
        }
        let policy = &self.policy().meta;
        let covered =
            shown(handle).is_ok_and(|path| glob::covers(&policy.files, &policy.except, &path));
        if !covered {
            return Ok(Found::NoLog);
        }
        loop {
            let slot = match self.logs.get(facts.id) {
                Some(slot) => Ok(slot),
                // It needs a descriptor of its own.
                None => match self.room(|| handle.try_clone()) {
                    Ok(own) => self.logs.find_or_why(self, &own, facts, Process::default()),
                    Err(_) => {
                        self.tell_unplaced(handle);
                        return Ok(Found::Unknown);
                    }
                },
            };
            let slot = match slot {
                Ok(slot) => slot,
                Err(NoLog::NotOne) => return Ok(Found::There),
                Err(NoLog::Later) => return Ok(Found::Unknown),
                // Until it is released, the call that opens it waits, or fails.
                Err(NoLog::Unopened) if is_leased(handle) => return Ok(Found::Unknown),
                Err(NoLog::NoRoom) => return Err(facts.id),
                Err(NoLog::Unopened) => {
                    self.tell_unplaced(handle);
                    return Ok(Found::There);
                }
            };
            let mut core = slot.lock();
            if core.retired {
                continue;
            }
            core.used = clock::now();
            core.is_closed = false;
            // A sync call may have come first, and found a log of which nobody looked at the writes.
            if !core.look.is_on() {
                slot.begin_to_look(&mut core, since);
            }
            return Ok(Found::There);
        }
    }

    /// Logs for which there was no room.
    fn place_those_without_room(&'static self) {
        for (id, (file, since)) in self.opening.take_without_room(clock::now()) {
            let place = AssertUnwindSafe(|| self.adopt_now(&file, since));
            match catch_unwind(place) {
                // Nor is there for the others.
                Ok(Err(_)) => break,
                Ok(Ok(Found::There)) => self.opening.has_room(id),
                // It has another name by now. What was written under that of a log is made durable.
                Ok(Ok(Found::NoLog)) => {
                    sync(&file);
                    self.opening.has_room(id);
                }
                // It cannot be opened now, or a bug: again.
                Ok(Ok(Found::Unknown)) | Err(_) => {}
            }
        }
        self.opening.has_placed();
    }

    /// The command has ended, and there was no room for these logs.
    pub fn sync_without_room(&self) {
        let files = std::mem::take(&mut self.opening.lock().without_room);
        files.into_values().for_each(|(file, _)| sync(&file));
    }

    fn tell_no_room(&self, handle: &File) {
        let why = format!(
            "{MAX_LOGS} logs are open, and there is no room for another: until one is closed, its writes are left to the kernel"
        );
        tell_once(&self.opening.told_room, handle, &why);
    }

    fn tell_unplaced(&self, handle: &File) {
        let why = "the supervisor cannot open it, or has no descriptor left: its writes are left to the kernel";
        tell_once(&self.opening.told, handle, why);
    }

    /// Looks for logs among the files that a process has open to be written.
    pub fn search(&'static self, process: u32, since: Time) {
        self.search_tables(process, since);
    }

    /// The same, for each table of open files of its threads. Returns whether all could be looked at that are there.
    fn search_tables(&'static self, process: u32, since: Time) -> bool {
        match self.room(|| process::tables(process)) {
            Ok(tables) => {
                let short = |table: &&u32| self.search_table(**table, since).is_err();
                tables.iter().filter(short).count() == 0
            }
            Err(error) => !process::is_short(process::errno_of(&error)),
        }
    }

    /// The same, for the files that a thread has open. An error if some could not be looked at for lack of descriptors;
    /// or else whether there was any.
    fn search_table(&'static self, thread: u32, since: Time) -> Result<bool, Short> {
        let policy = &self.policy().meta;
        let is_short = |error: &io::Error| process::is_short(process::errno_of(error));
        let files = self.room(|| process::writable_files(thread));
        let files = match files.inspect_err(|error| self.tell_denied(error)) {
            Ok(files) => files,
            Err(error) if is_short(&error) => return Err(Short),
            Err(_) => return Ok(false),
        };
        let mut result = Ok(!files.is_empty());
        for (fd, path) in files {
            if !glob::covers(&policy.files, &policy.except, &path) {
                continue;
            }
            let short = match self.room(|| handle(&fd)) {
                Ok(file) => self.adopt(&file, since) == Found::Unknown,
                Err(error) => is_short(&error),
            };
            if short {
                result = Err(Short);
            }
        }
        result
    }

    /// A process ends, or all have ended: what it has opened is found now or never.
    pub fn search_before_exit(&'static self, process: Option<u32>) {
        let its = self.opening.take_of(process);
        if its.is_empty() {
            return;
        }
        // A name may lead to a disk that hangs, or to a file system whose server waits for this end.
        let asking = self.crew.asks();
        for one in its {
            self.search_once(&one, true, asking.is_some());
        }
    }

    /// Searches once. Returns whether no other search is needed, however often this one is made; with `is_over` the call
    /// is over, and what it has opened is there. Names are looked up only if the thread `may_ask` for them.
    fn search_once(&'static self, one: &Expected, is_over: bool, may_ask: bool) -> bool {
        fault_injection::panics(Fault::PanicInSearch, |search| search < 3);
        if let What::Made(folder, name) = &one.what
            && may_ask
        {
            let made = self.room(|| handle(&descriptor(folder).join(name)));
            let found = made.is_ok_and(|file| self.adopt(&file, one.since) == Found::There);
            // The thread has opened another file since: this may be that one, by the name that the first had.
            if found && !one.is_over {
                return true;
            }
            if !is_over {
                return false;
            }
            // It may have another name by now.
        }
        if let What::There(id, path) = &one.what
            && (!is_over || self.is_there(*id, path))
        {
            return is_over;
        }
        // What a thread opens is in its own table, which need not be that of its process.
        let searched = match self.search_table(one.thread, one.since) {
            Ok(false) => one.process.is_none_or(|process| self.search_tables(process, one.since)),
            Ok(true) => true,
            Err(Short) => false,
        };
        searched && is_over
    }

    /// Starts the thread that searches.
    pub fn start_to_search(&'static self) -> io::Result<()> {
        let builder = thread::Builder::new().name("durac-open".into()).stack_size(STACK);
        builder.spawn(|| self.search_for_ever()).map(|_| ())
    }

    fn search_for_ever(&'static self) {
        loop {
            self.opening.wait();
            if self.opening.alone.load(Ordering::SeqCst) {
                self.look_after_lone_logs();
            }
            self.place_those_without_room();
            let begun = clock::now();
            while let Some(one) = self.opening.take_due(begun) {
                // In this order: what it has opened by the end of the call is there.
                let is_over = one.is_over || !process::may_be_in(one.thread, one.number);
                let search = AssertUnwindSafe(|| self.search_once(&one, is_over, true));
                // After a bug, too, it is searched for again: nobody else finds what is never synced.
                self.opening.has_searched(!catch_unwind(search).unwrap_or(false), one.is_over);
            }
        }
    }

    /// Logs whose thread cannot be started.
    fn look_after_lone_logs(&self) {
        // Before the look: one that comes meanwhile is not missed.
        self.opening.alone.store(false, Ordering::SeqCst);
        for slot in self.logs.all() {
            if slot.is_alone() {
                // A bug is that of one log.
                let _ = catch_unwind(AssertUnwindSafe(|| Slot::look_after_once(&slot)));
                self.opening.alone.fetch_or(slot.is_alone(), Ordering::SeqCst);
            }
        }
    }
}

/// Makes a file durable that has no log. Nobody can be told of an error but the administrator.
fn sync(file: &File) {
    if let Err(error) = own_file(file).and_then(|own| own.sync_data()) {
        tell(file, &error.to_string());
    }
}

fn tell(file: &File, what: &str) {
    let path = shown(file).unwrap_or_default();
    note::error(&format!("{}: {what}", path.display()));
}

fn tell_once(told: &AtomicBool, file: &File, what: &str) {
    if !told.swap(true, Ordering::Relaxed) {
        tell(file, what);
    }
}

impl Opening {
    /// A log has no thread: the one that searches looks after it.
    pub fn comes(&self) {
        let _lists = self.lock();
        self.alone.store(true, Ordering::SeqCst);
        self.came.notify_one();
    }

    fn expect(&self, call: &Notification, process: Option<u32>, since: Time, what: What) {
        let (thread, number) = (call.thread, call.number);
        let due = since.saturating_add(FIRST);
        let (pause, is_over) = (5 * FIRST, false);
        let one = Expected { thread, process, number, since, due, pause, is_over, what };
        self.lock().expected.push(one);
        self.came.notify_one();
    }

    /// All of them, for a program that takes over, with the descriptors that it needs. A log without room is a file in its own
    /// place, without a name.
    pub fn known(&self, _still: &Still<'_>) -> Vec<KnownOpen> {
        let lists = self.lock();
        let without_room = lists.without_room.values().map(|(file, since)| KnownOpen {
            thread: 0,
            process: 0,
            number: 0,
            since: *since,
            is_over: true,
            made: Some((file.as_raw_fd(), Vec::new())),
        });
        let known = lists.expected.iter().map(|one| KnownOpen {
            thread: one.thread,
            process: one.process.unwrap_or(0),
            number: one.number,
            since: one.since,
            is_over: one.is_over,
            made: match &one.what {
                What::Made(folder, name) => Some((folder.as_raw_fd(), name.as_bytes().to_vec())),
                What::There(..) | What::Any => None,
            },
        });
        known.chain(without_room).collect()
    }

    /// Has no search begin. None if one does not end: a name may lead to a disk that hangs.
    pub fn hold_still(&self, until: Time) -> Option<Still<'_>> {
        self.lock().is_still = true;
        let still = Still(self);
        loop {
            let lists = self.lock();
            if lists.now.is_none() && !lists.is_placing {
                return Some(still);
            }
            drop(lists);
            if clock::now() > until {
                return None;
            }
            thread::sleep(NAP);
        }
    }

    /// A call that the program before has let through. `folder` is where it makes the file.
    pub fn restore(&self, known: &KnownOpen, folder: Option<File>) {
        let what = match (folder, &known.made) {
            (Some(file), Some((_, name))) if name.is_empty() => {
                if let Ok(Facts { id, .. }) = Facts::of(&file) {
                    self.lock().without_room.insert(id, (Arc::new(file), known.since));
                }
                return;
            }
            (Some(folder), Some((_, name))) => {
                What::Made(Arc::new(folder), OsStr::from_bytes(name).to_owned())
            }
            _ => What::Any,
        };
        self.lock().expected.push(Expected {
            thread: known.thread,
            process: Some(known.process).filter(|process| *process != 0),
            number: known.number,
            since: known.since,
            due: clock::now(),
            pause: FIRST,
            is_over: known.is_over,
            what,
        });
    }

    /// The calls of a thread are over. Returns them.
    fn is_over(&self, thread: u32, now: Time) -> Vec<Expected> {
        let mut lists = self.lock();
        let its = lists.all().filter(|one| one.thread == thread);
        let over = its.map(|one| {
            one.is_over = true;
            one.due = now;
            one.clone()
        });
        over.collect()
    }

    /// It was found, or need not be. One whose call has ended since it was taken for this stays.
    fn forget(&self, found: &Expected) {
        let is_it = |one: &Expected| {
            (one.thread, one.since, one.is_over) == (found.thread, found.since, found.is_over)
        };
        // What it has open is closed without the lock.
        let found: Vec<Expected> = self.lock().expected.extract_if(.., |one| is_it(one)).collect();
        drop(found);
    }

    /// Waits until a search is due, or for a while if there is a log without a thread.
    fn wait(&self) {
        let mut lists = self.lock();
        let since = clock::now();
        loop {
            let now = clock::now();
            let is_alone = self.alone.load(Ordering::SeqCst);
            let again = is_alone.then(|| since.saturating_add(AGAIN.as_nanos() as Time));
            let searches = !lists.is_still;
            let room = (searches && !lists.without_room.is_empty()).then_some(lists.room_at);
            let due = lists.expected.iter().filter(|_| searches).map(|one| one.due);
            lists = match due.chain(again).chain(room).min() {
                Some(due) if due <= now => return,
                Some(due) => {
                    let waited = self.came.wait_timeout(lists, Duration::from_nanos(due - now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.came.wait(lists).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Takes a search that is due at `now`. [`Opening::has_searched`] follows.
    fn take_due(&self, now: Time) -> Option<Expected> {
        let mut lists = self.lock();
        if lists.is_still {
            return None;
        }
        let at = lists.expected.iter().position(|one| one.due <= now)?;
        lists.now = Some(lists.expected.remove(at));
        lists.now.clone()
    }

    /// The one that was taken is searched for again, if `again`, or if its call is over by now and was not (`was_over`): what was
    /// found by its name may be another file.
    fn has_searched(&self, again: bool, was_over: bool) {
        let mut lists = self.lock();
        if let Some(mut one) = lists.now.take().filter(|one| again || one.is_over && !was_over) {
            one.due = clock::now().saturating_add(one.pause);
            one.pause = (one.pause * 5).min(LAST);
            lists.expected.push(one);
        }
    }

    /// Those of a process, or all; and the one that is being searched for, which may be found too late.
    fn take_of(&self, process: Option<u32>) -> Vec<Expected> {
        let mut lists = self.lock();
        let ends = |one: &Expected| process.is_none() || one.process == process;
        let now = lists.now.clone().filter(ends);
        lists.expected.extract_if(.., |one| ends(one)).chain(now).collect()
    }

    /// There is no room for a log. Returns whether it can wait for it: that takes a descriptor.
    fn wait_for_room(&self, id: FileId, file: File, since: Time) -> bool {
        let most = process::descriptors() / PART;
        let mut lists = self.lock();
        if lists.without_room.len() >= most {
            return false;
        }
        if lists.without_room.is_empty() {
            lists.room_at = clock::now().saturating_add(ROOM);
        }
        lists.without_room.entry(id).or_insert((Arc::new(file), since));
        self.came.notify_one();
        true
    }

    /// Those without room, if it is time to try again. [`Opening::has_placed`] follows.
    fn take_without_room(&self, now: Time) -> Vec<(FileId, (Arc<File>, Time))> {
        let mut lists = self.lock();
        if lists.is_still || lists.room_at > now {
            return Vec::new();
        }
        lists.is_placing = true;
        lists.without_room.iter().map(|(id, one)| (*id, one.clone())).collect()
    }

    /// It has some now.
    fn has_room(&self, id: FileId) {
        self.lock().without_room.remove(&id);
    }

    fn has_placed(&self) {
        let mut lists = self.lock();
        if std::mem::take(&mut lists.is_placing) {
            lists.room_at = clock::now().saturating_add(ROOM);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// There was no descriptor or no memory left.
struct Short;

/// Until a file has another path, or for a while: a fault.
fn wait_for_another(file: &File, path: &Path) {
    if injects(Fault::SlowOpen) {
        tell(file, "waits for another file of this name");
        let until = clock::now().saturating_add(60_000_000_000);
        while shown(file).is_ok_and(|now| now == path) && clock::now() < until {
            thread::sleep(NAP);
        }
    }
}
