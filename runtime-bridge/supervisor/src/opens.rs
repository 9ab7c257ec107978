//! Files that the command opens, where a policy looks for what is written to its logs (`on write: defer`).
//!
//! The kernel asks before an open. A file that is there is looked up at once, by the name that the call has; one that is
//! made is looked up until it is there, or the call is over. Where a name does not lead to it, the files that the
//! process has open are searched. Looking at a file too many costs a sync.

use crate::clock;
use crate::fault_injection::{self, Fault, injects};
use crate::filter::Open;
use crate::handover::KnownOpen;
use crate::memory;
use crate::note;
use crate::notify::{self, Notification};
use crate::process;
use crate::serve::Supervisor;
use durac_abi::glob;
use durac_engine::Time;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
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
        let process = || self.callers.process(&self.listener, call);
        let expect = |what| self.opening.expect(call, process(), since, what);
        let path = open.name.and_then(|name| Some((name, memory::path(call, name)?)));
        let path = path.filter(|_| notify::is_valid(&self.listener, call.id));
        let Some(path) = path.and_then(|(name, text)| from_here(call, name, &text)) else {
            expect(What::Any);
            return Found::Unknown;
        };
        match handle(&path) {
            Ok(file) => self.adopt(&file, since),
            Err(error) if error.kind() == io::ErrorKind::NotFound && makes => {
                let (folder, name) = (path.parent(), path.file_name());
                let folder = folder.and_then(|folder| handle(folder).ok());
                let (Some(folder), Some(name)) = (folder, name) else { return Found::Unknown };
                let meta = &self.policy().meta;
                let whole = shown(&folder).map(|folder| folder.join(name));
                if !whole.is_ok_and(|path| glob::covers(&meta.files, &meta.except, &path)) {
                    return Found::NoLog;
                }
                if !injects(Fault::LookedUpOnce) {
                    expect(What::Made(folder, name.to_owned()));
                }
                Found::Unknown
            }
            // The call will say so.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Found::NoLog,
            Err(_) => {
                expect(What::Any);
                Found::Unknown
            }
        }
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
            let slot = self.logs.get(id).or_else(|| {
                let own = File::open(format!("/proc/self/fd/{}", handle.as_raw_fd())).ok()?;
                self.logs.find(self, &own, &meta, 0)
            });
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
        let policy = &self.policy().meta;
        for (fd, path) in process::writable_files(process) {
            if glob::covers(&policy.files, &policy.except, &path)
                && let Ok(file) = handle(&fd)
            {
                self.adopt(&file, since);
            }
        }
    }

    /// A process ends, or all have ended: what it has opened is found now or never.
    pub fn search_before_exit(&'static self, process: Option<u32>) {
        let _searching = self.opening.searching.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = |one: &mut Expected| process.is_none() || one.process == process;
        let its: Vec<Expected> = self.opening.lock().extract_if(.., ends).collect();
        for one in its {
            self.search_once(&one);
        }
    }

    /// Searches once. Returns whether the file was found.
    fn search_once(&'static self, one: &Expected) -> bool {
        fault_injection::panics(Fault::PanicInSearch, |search| search < 3);
        match &one.what {
            What::Made(folder, name) => {
                let path = descriptor(folder).join(name);
                handle(&path).is_ok_and(|file| self.adopt(&file, one.since) != Found::Unknown)
            }
            What::Any => {
                if let Some(process) = one.process {
                    self.search(process, one.since);
                }
                false
            }
        }
    }

    /// Starts the thread that searches.
    pub fn start_to_search(&'static self) -> io::Result<()> {
        let builder = thread::Builder::new().name("durac-open".into()).stack_size(STACK);
        builder.spawn(|| self.search_for_ever()).map(|_| ())
    }

    fn search_for_ever(&'static self) {
        loop {
            self.opening.wait();
            let _searching = self.opening.searching.lock().unwrap_or_else(PoisonError::into_inner);
            for mut one in self.opening.due() {
                // In this order: what it has opened by the end of the call is there.
                let is_over = one.is_over || !process::may_be_in(one.thread, one.number);
                let found = catch_unwind(AssertUnwindSafe(|| self.search_once(&one)));
                // After a bug, too, it is searched for again: nobody else finds what is never synced.
                if found.is_err() || !found.unwrap_or(true) && !is_over {
                    one.due = clock::now().saturating_add(one.pause);
                    one.pause = (one.pause * 5).min(LAST);
                    self.opening.lock().push(one);
                }
            }
        }
    }
}

impl Opening {
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

    /// Waits until a search is due.
    fn wait(&self) {
        let mut expected = self.lock();
        loop {
            let now = clock::now();
            expected = match expected.iter().map(|one| one.due).min() {
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

/// The path of a call as this process reaches it; none if it means something else here.
fn from_here(call: &Notification, name: usize, text: &OsStr) -> Option<PathBuf> {
    let path = Path::new(text);
    let thread = call.thread;
    if thread == 0 || text.is_empty() {
        return None;
    }
    if path.is_absolute() {
        // Descriptors of this process.
        let special = path.starts_with("/proc") || path.starts_with("/dev");
        let mut whole = OsString::from(format!("/proc/{thread}/root"));
        whole.push(text);
        return (!special).then(|| whole.into());
    }
    let folder = call.descriptor(0);
    let base = match name {
        0 => "cwd".to_owned(),
        _ if folder == libc::AT_FDCWD => "cwd".to_owned(),
        _ => format!("fd/{folder}"),
    };
    Some(Path::new(&format!("/proc/{thread}/{base}")).join(OsStr::from_bytes(text.as_bytes())))
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
