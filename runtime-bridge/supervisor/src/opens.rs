//! Files that the command opens, where a policy looks for what is written to its logs (`on write: defer`).
//!
//! The kernel asks before an open. A file that is there is looked up at once, by the name that the call has, as the caller
//! would; one that is made is looked up until it is there, or the call is over. Where a name does not lead to it by then,
//! the files that the thread has open are searched. Looking at a file too many costs a sync.
//!
//! The thread that searches also looks after logs that have no thread of their own.

use crate::clock;
use crate::fault_injection::{self, Fault, injects};
use crate::filter::Open;
use crate::handover::KnownOpen;
use crate::log::{AGAIN, Slot};
use crate::memory;
use crate::note;
use crate::notify::{self, Notification};
use crate::process;
use crate::serve::Supervisor;
use durac_abi::glob;
use durac_engine::Time;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

/// The first pause between two searches, nanoseconds; each is five times as long as the one before, up to the last.
const FIRST: Time = 1_000_000;
const LAST: Time = 300_000_000;
/// Between two looks whether a search has ended.
const NAP: Duration = Duration::from_micros(200);
/// Stack of the thread that searches, bytes.
const STACK: usize = 256 << 10;
/// Symbolic links in one path, as the kernel follows them.
const MOST_LINKS: usize = 40;

/// No search runs while it is held.
pub type Searching<'a> = MutexGuard<'a, ()>;

/// What is being opened.
#[derive(Default)]
pub struct Opening {
    expected: Mutex<Vec<Expected>>,
    came: Condvar,
    /// Held while what was taken from the list is searched for.
    searching: Mutex<()>,
    told: AtomicBool,
    /// There is a log without a thread.
    alone: AtomicBool,
}

/// A call that opens a file which is not found yet.
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

enum What {
    /// It makes a file of this name in this folder.
    Made(File, OsString),
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
        self.opening.is_over(call.thread, since);
        // A name may lead to a disk that hangs.
        self.crew.may_block();
        let expect = |what| {
            let process = self.callers.process(&self.listener, call);
            self.opening.expect(call, process, since, what);
        };
        let named = match self.room(|| self.look_up(call, open)) {
            Ok(Named::File(file)) => self.adopt(&file, since),
            // The call will say so.
            Ok(Named::New(..)) if !makes => Found::NoLog,
            Ok(Named::New(folder, name)) => {
                let meta = &self.policy().meta;
                let whole = shown(&folder).map(|folder| folder.join(&name));
                match whole.map(|path| glob::covers(&meta.files, &meta.except, &path)) {
                    Ok(true) if injects(Fault::LookedUpOnce) => return Found::Unknown,
                    Ok(true) => {
                        expect(What::Made(folder, name));
                        return Found::Unknown;
                    }
                    Ok(false) => Found::NoLog,
                    Err(_) => Found::Unknown,
                }
            }
            Err(_) => Found::Unknown,
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
            return Ok(Named::File(file));
        }
        let root = of_caller("root")?;
        if !is_valid() {
            return Err(unknown());
        }
        walk(&root, base, text)
    }

    /// Calls `body`, again with more room if there was no descriptor left.
    fn room<T>(&self, body: impl Fn() -> io::Result<T>) -> io::Result<T> {
        self.callers.with_room(body, process::errno_of)
    }

    /// Looks for what is written to a file from now on, if it is a log. What was written before counts as written at
    /// `since`.
    fn adopt(&'static self, handle: &File, since: Time) -> Found {
        let Ok(meta) = handle.metadata() else { return Found::Unknown };
        if !meta.is_file() {
            return Found::NoLog;
        }
        let policy = &self.policy().meta;
        let covered =
            shown(handle).is_ok_and(|path| glob::covers(&policy.files, &policy.except, &path));
        if !covered {
            return Found::NoLog;
        }
        let id = (meta.dev(), meta.ino());
        loop {
            let slot = match self.logs.get(id) {
                Some(slot) => Some(slot),
                // It needs a descriptor of its own.
                None => match self.room(|| handle.try_clone()) {
                    Ok(own) => self.logs.find(self, &own, &meta, 0),
                    Err(_) => {
                        self.tell_unplaced(handle);
                        return Found::Unknown;
                    }
                },
            };
            let Some(slot) = slot else {
                self.tell_unplaced(handle);
                return Found::There;
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
            return Found::There;
        }
    }

    fn tell_unplaced(&self, handle: &File) {
        if !self.opening.told.swap(true, Ordering::Relaxed) {
            let path = shown(handle).unwrap_or_default();
            note::error(&format!(
                "{}: the supervisor cannot open it, or has no room for another log: its writes are left to the kernel",
                path.display()
            ));
        }
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
        let files = match self.room(|| process::writable_files(thread)) {
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
        let _searching = self.opening.searching.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = |one: &mut Expected| process.is_none() || one.process == process;
        let its: Vec<Expected> = self.opening.lock().extract_if(.., ends).collect();
        for one in its {
            self.search_once(&one, true);
        }
    }

    /// Searches once. Returns whether no other search is needed, however often this one is made; with `is_over` the call
    /// is over, and what it has opened is there.
    fn search_once(&'static self, one: &Expected, is_over: bool) -> bool {
        fault_injection::panics(Fault::PanicInSearch, |search| search < 3);
        if let What::Made(folder, name) = &one.what {
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
            let _searching = self.opening.searching.lock().unwrap_or_else(PoisonError::into_inner);
            for mut one in self.opening.due() {
                // In this order: what it has opened by the end of the call is there.
                let is_over = one.is_over || !process::may_be_in(one.thread, one.number);
                let search = AssertUnwindSafe(|| self.search_once(&one, is_over));
                // After a bug, too, it is searched for again: nobody else finds what is never synced.
                if !catch_unwind(search).unwrap_or(false) {
                    one.due = clock::now().saturating_add(one.pause);
                    one.pause = (one.pause * 5).min(LAST);
                    self.opening.lock().push(one);
                }
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

impl Opening {
    /// A log has no thread: the one that searches looks after it.
    pub fn comes(&self) {
        let _expected = self.lock();
        self.alone.store(true, Ordering::SeqCst);
        self.came.notify_one();
    }

    fn expect(&self, call: &Notification, process: Option<u32>, since: Time, what: What) {
        let (thread, number) = (call.thread, call.number);
        let due = since.saturating_add(FIRST);
        let (pause, is_over) = (5 * FIRST, false);
        let one = Expected { thread, process, number, since, due, pause, is_over, what };
        self.lock().push(one);
        self.came.notify_one();
    }

    /// All of them, for a program that takes over, with the descriptors that it needs. Nothing is searched for while
    /// `_searching` is held.
    pub fn known(&self, _searching: &Searching<'_>) -> Vec<KnownOpen> {
        let expected = self.lock();
        let known = expected.iter().map(|one| KnownOpen {
            thread: one.thread,
            process: one.process.unwrap_or(0),
            number: one.number,
            since: one.since,
            is_over: one.is_over,
            made: match &one.what {
                What::Made(folder, name) => Some((folder.as_raw_fd(), name.as_bytes().to_vec())),
                What::Any => None,
            },
        });
        known.collect()
    }

    /// Has no search begin. None if one does not end: a name may lead to a disk that hangs.
    pub fn hold_still(&self, until: Time) -> Option<Searching<'_>> {
        loop {
            match self.searching.try_lock() {
                Ok(searching) => return Some(searching),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if clock::now() > until => return None,
                Err(TryLockError::WouldBlock) => thread::sleep(NAP),
            }
        }
    }

    /// A call that the program before has let through. `folder` is where it makes the file.
    pub fn restore(&self, known: &KnownOpen, folder: Option<File>) {
        let what = match (folder, &known.made) {
            (Some(folder), Some((_, name))) => {
                What::Made(folder, OsStr::from_bytes(name).to_owned())
            }
            _ => What::Any,
        };
        self.lock().push(Expected {
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

    /// A thread opens another file: what it has opened before is there by now.
    fn is_over(&self, thread: u32, now: Time) {
        for one in self.lock().iter_mut().filter(|one| one.thread == thread) {
            one.is_over = true;
            one.due = now;
        }
    }

    /// Waits until a search is due, or for a while if there is a log without a thread.
    fn wait(&self) {
        let mut expected = self.lock();
        let since = clock::now();
        loop {
            let now = clock::now();
            let is_alone = self.alone.load(Ordering::SeqCst);
            let again = is_alone.then(|| since.saturating_add(AGAIN.as_nanos() as Time));
            expected = match expected.iter().map(|one| one.due).chain(again).min() {
                Some(due) if due <= now => return,
                Some(due) => {
                    let waited = self.came.wait_timeout(expected, Duration::from_nanos(due - now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.came.wait(expected).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Takes the searches that are due.
    fn due(&self) -> Vec<Expected> {
        let now = clock::now();
        self.lock().extract_if(.., |one| one.due <= now).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Expected>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a name leads.
enum Named {
    /// To a file.
    File(File),
    /// To this name in this folder, where there is no file.
    New(File, OsString),
}

/// There was no descriptor or no memory left.
struct Short;

/// What a path leads to that needs no other root than its folder: no `..` out of it, no absolute link. An error says nothing.
fn open_beneath(base: &File, text: &OsStr) -> io::Result<File> {
    let text = text.as_bytes();
    let from = text.iter().position(|byte| *byte != b'/').unwrap_or(0);
    let path = CString::new(text.get(from..).unwrap_or(text))?;
    // SAFETY: zeros are valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
    // Links of /proc would lead to what this process has.
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    let (at, how, size) = (base.as_raw_fd(), &raw const how, size_of::<libc::open_how>());
    // SAFETY: a string that ends with a zero, and a structure of that size.
    let fd = unsafe { libc::syscall(libc::SYS_openat2, at, path.as_ptr(), how, size) };
    new_file(fd)
}

/// Follows a path by its parts, as a process with this root would, from `at`. The last link may lead to where there is no
/// file yet.
fn walk(root: &File, mut at: File, text: OsString) -> io::Result<Named> {
    let error = |errno| Err(io::Error::from_raw_os_error(errno));
    let mut left = parts(&text);
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == ".." && is_same(root, &at)? {
            continue;
        }
        let next = match open_part(&at, &name) {
            Ok(next) => next,
            Err(error) if error.kind() == io::ErrorKind::NotFound && left.is_empty() => {
                return Ok(Named::New(at, name));
            }
            Err(error) => return Err(error),
        };
        if !next.metadata()?.file_type().is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        // Links of /proc lead elsewhere for each process.
        if links > MOST_LINKS || is_of_proc(&next)? {
            return error(libc::ELOOP);
        }
        let target = read_link(&next)?;
        if Path::new(&target).is_absolute() {
            at = root.try_clone()?;
        }
        left.extend(parts(&target));
    }
    Ok(Named::File(at))
}

/// The parts of a path, the first one last.
fn parts(text: &OsStr) -> Vec<OsString> {
    let names = text.as_bytes().split(|byte| *byte == b'/').rev();
    let names = names.filter(|name| !(name.is_empty() || **name == *b"."));
    names.map(|name| OsStr::from_bytes(name).to_owned()).collect()
}

/// Whether two handles are those of one folder.
fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// A handle of what has this name in a folder; a link is not followed.
fn open_part(folder: &File, name: &OsStr) -> io::Result<File> {
    let name = CString::new(name.as_bytes())?;
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: a string that ends with a zero.
    new_file(unsafe { libc::openat(folder.as_raw_fd(), name.as_ptr(), flags) }.into())
}

/// Where a link leads, by its handle.
fn read_link(link: &File) -> io::Result<OsString> {
    let mut text = vec![0; libc::PATH_MAX as usize];
    // SAFETY: an empty string, and the memory has that size.
    let length = unsafe {
        libc::readlinkat(link.as_raw_fd(), c"".as_ptr(), text.as_mut_ptr().cast(), text.len())
    };
    text.truncate(usize::try_from(length).map_err(|_| io::Error::last_os_error())?);
    Ok(OsString::from_vec(text))
}

fn is_of_proc(file: &File) -> io::Result<bool> {
    // SAFETY: zeros are valid; the structure is there.
    let (result, found) = unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(file.as_raw_fd(), &raw mut found), found)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(found.f_type == libc::PROC_SUPER_MAGIC)
}

/// The result of a call that opens a file.
fn new_file(fd: libc::c_long) -> io::Result<File> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}

/// A handle of a file: nothing happens to it, whatever it is.
fn handle(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)
}

fn descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// The path that the kernel shows for an open file.
fn shown(file: &File) -> io::Result<PathBuf> {
    std::fs::read_link(descriptor(file))
}
