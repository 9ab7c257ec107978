//! The callers: their open files, and which process a thread belongs to.

use crate::clock;
use crate::fault_injection::{Fault, injects};
use crate::keeper::pidfd;
use crate::log::FileId;
use crate::logs::Facts;
use crate::note;
use crate::notify::{self, Notification};
use durac_engine::{Errno, Time};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// `PIDFD_THREAD` (linux/pidfd.h): since Linux 6.9.
const THREAD: i32 = libc::O_EXCL;
/// Threads that are remembered, at most; and the part of all descriptors that they may take.
const MOST: usize = 4096;
pub const PART: usize = 4;
/// Tables of open files of one process that are told from each other. What is left is read for each thread.
const MOST_TABLES: usize = 16;

/// A process. Its number is another's once it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its number; 0 stands for no process.
    pub number: u32,
    /// When it was started, by `CLOCK_BOOTTIME`.
    pub began: Time,
}

impl Process {
    /// The process of that number now.
    ///
    /// # Errors
    /// `ESRCH` if there is none that can be seen; and what the system said.
    fn now(number: u32) -> Result<Self, Errno> {
        // That of the first thread, which is there as long as the process, and needs no sum over the others.
        let stat = std::fs::read(format!("/proc/{number}/task/{number}/stat")).map_err(of_proc)?;
        let began = durac_shm::status::began_by(&stat).ok_or(libc::ESRCH)?;
        Ok(Self { number, began })
    }

    /// Whether it has not ended. True if that cannot be told.
    pub fn is_alive(self) -> bool {
        is_alive(self.number) && Self::now(self.number).map_or(true, |now| now == self)
    }
}

/// A thread, or a process.
#[derive(Clone)]
struct Caller {
    /// It; its end makes it useless for any other.
    fd: Arc<OwnedFd>,
    /// The process.
    process: Process,
}

/// The threads that have called.
#[derive(Default)]
pub struct Callers {
    known: Mutex<HashMap<u32, Caller>>,
    /// Processes, where their threads cannot be kept (before Linux 6.9).
    processes: Mutex<HashMap<u32, Caller>>,
}

impl Callers {
    /// The open file behind a descriptor of the caller, and its process.
    ///
    /// # Errors
    /// `EBADF` if it is not open, or only names a file (`O_PATH`): no call that is asked about takes such a one. And what
    /// else the system said.
    pub fn file(
        &self,
        listener: &OwnedFd,
        call: &Notification,
        fd: RawFd,
    ) -> Result<(File, Process), Errno> {
        if injects(Fault::Remembered) {
            return self.remembered(call, fd);
        }
        self.with_room(|| self.file_once(listener, call, fd), |errno| *errno)
    }

    fn file_once(
        &self,
        listener: &OwnedFd,
        call: &Notification,
        fd: RawFd,
    ) -> Result<(File, Process), Errno> {
        let known = self.lock().get(&call.thread).cloned();
        if let Some(caller) = known {
            match caller.file(fd) {
                // The thread has ended, and another has its number.
                Err(libc::ESRCH) => {
                    self.lock().remove(&call.thread);
                }
                result => return result.map(|file| (file, caller.process)),
            }
        }
        if fd >= 0 && (injects(Fault::SlowLook) || injects(Fault::StaleThread)) {
            wait_for_another(listener, call, fd);
        }
        let (caller, lasting) = self.open(call.thread)?;
        if !notify::is_valid(listener, call.id) && !injects(Fault::StaleThread) {
            return Err(libc::ESRCH);
        }
        let file = caller.file(fd);
        let process = caller.process;
        if lasting {
            keep(&mut self.lock(), call.thread, caller);
        }
        file.map(|file| (file, process))
    }

    /// Calls `body`, and once more without the threads that are remembered if there was no descriptor left.
    pub fn with_room<T, E>(
        &self,
        body: impl Fn() -> Result<T, E>,
        errno: impl Fn(&E) -> Errno,
    ) -> Result<T, E> {
        match body() {
            Err(error) if is_short(errno(&error)) => {
                let known =
                    [&self.known, &self.processes].map(|known| std::mem::take(&mut *lock(known)));
                let was_empty = known.iter().all(HashMap::is_empty);
                drop(known);
                if was_empty { Err(error) } else { body() }
            }
            result => result,
        }
    }

    /// What a descriptor of a thread led to when it was first seen: a fault.
    fn remembered(&self, call: &Notification, fd: RawFd) -> Result<(File, Process), Errno> {
        type Files = HashMap<(u32, RawFd), (File, Process)>;
        static FILES: Mutex<Option<Files>> = Mutex::new(None);
        let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        let files = files.get_or_insert_default();
        let (file, process) = match files.entry((call.thread, fd)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let (caller, _) = self.open(call.thread)?;
                place.insert((caller.file(fd)?, caller.process))
            }
        };
        let copy = file.try_clone().map_err(|why| why.raw_os_error().unwrap_or(libc::EIO))?;
        Ok((copy, *process))
    }

    /// The process that calls; none if it is not known.
    pub fn process(&self, listener: &OwnedFd, call: &Notification) -> Option<Process> {
        if let Some(caller) = alive(&self.known, call.thread) {
            return Some(caller.process);
        }
        let process = || self.named(process_of(call.thread)?);
        let process = self.with_room(process, |errno| *errno).ok()?;
        notify::is_valid(listener, call.id).then_some(process)
    }

    /// The process that has this number.
    fn named(&self, number: u32) -> Result<Process, Errno> {
        alive(&self.processes, number)
            .map_or_else(|| Process::now(number), |known| Ok(known.process))
    }

    /// Opens a thread. The second value says whether the result can be kept as that: before Linux 6.9 it is the process,
    /// which outlives its thread.
    fn open(&self, thread: u32) -> Result<(Caller, bool), Errno> {
        // Of another pid namespace, which this one does not see.
        if thread == 0 {
            return Err(libc::EPERM);
        }
        let number = process_of(thread)?;
        match pidfd(thread as libc::pid_t, THREAD) {
            Ok(fd) => Ok((Caller { fd: Arc::new(fd), process: Process::now(number)? }, true)),
            Err(error) if is_short(errno_of(&error)) => Err(errno_of(&error)),
            // The process' open files, which may not be those of this thread.
            Err(_) if shares_files(number, thread) => Ok((self.open_process(number)?, false)),
            Err(_) => Err(libc::EPERM),
        }
    }

    /// Opens a process, once.
    fn open_process(&self, number: u32) -> Result<Caller, Errno> {
        if let Some(known) = alive(&self.processes, number) {
            return Ok(known);
        }
        let fd = pidfd(number as libc::pid_t, 0).map_err(|error| errno_of(&error))?;
        let caller = Caller { fd: Arc::new(fd), process: Process::now(number)? };
        // Or it is that of another by now.
        if caller.has_ended() {
            return Err(libc::ESRCH);
        }
        keep(&mut lock(&self.processes), number, caller.clone());
        Ok(caller)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Caller>> {
        lock(&self.known)
    }
}

fn lock(known: &Mutex<HashMap<u32, Caller>>) -> MutexGuard<'_, HashMap<u32, Caller>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one of that number, if it has not ended.
fn alive(known: &Mutex<HashMap<u32, Caller>>, number: u32) -> Option<Caller> {
    let found = lock(known).get(&number).cloned()?;
    if found.has_ended() {
        // Another has its number.
        lock(known).remove(&number);
        return None;
    }
    Some(found)
}

/// Remembers one. Those that have ended make room for it, or else all others.
fn keep(known: &mut HashMap<u32, Caller>, number: u32, caller: Caller) {
    let most = (descriptors() / PART).clamp(1, MOST);
    if known.len() >= most && !known.contains_key(&number) {
        drop_ended(known);
        // With little room the next one would look at all of them again.
        if known.len() > most / 2 {
            known.clear();
        }
    }
    known.insert(number, caller);
}

impl Caller {
    /// Whether it has ended: a call with its number is that of another.
    fn has_ended(&self) -> bool {
        let mut polled = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry.
        unsafe { libc::poll(&raw mut polled, 1, 0) };
        polled.revents != 0
    }

    fn file(&self, fd: RawFd) -> Result<File, Errno> {
        // SAFETY: no pointers.
        let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.fd.as_raw_fd(), fd, 0) };
        if copy < 0 {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO));
        }
        // SAFETY: the descriptor is new and ours.
        let file = unsafe { File::from_raw_fd(copy as RawFd) };
        if flags_of(&file) & libc::O_PATH != 0 {
            return Err(libc::EBADF);
        }
        Ok(file)
    }
}

/// How a file was opened: `O_*`.
pub fn flags_of(file: &File) -> libc::c_int {
    // SAFETY: no pointers.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) }
}

/// Until the thread that calls is dead and another has its number, whose descriptor leads elsewhere; or for a while: a
/// fault.
fn wait_for_another(listener: &OwnedFd, call: &Notification, fd: RawFd) {
    let file = || std::fs::read_link(format!("/proc/{}/fd/{fd}", call.thread)).ok();
    let first = file();
    note::error(&format!("waits for another thread {}", call.thread));
    let is_another =
        || !notify::is_valid(listener, call.id) && file().is_some_and(|now| Some(now) != first);
    let until = clock::now().saturating_add(60_000_000_000);
    while !is_another() && clock::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Whether two threads have one table of open files; no if it cannot be told.
fn shares_files(one: u32, other: u32) -> bool {
    /// `KCMP_FILES` (linux/kcmp.h).
    const FILES: libc::c_int = 2;
    // SAFETY: no pointers.
    one == other || unsafe { libc::syscall(libc::SYS_kcmp, one, other, FILES, 0, 0) } == 0
}

/// What the system said.
pub fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Whether an error says that there is no descriptor or no memory left: it may be gone a moment later.
pub fn is_short(errno: Errno) -> bool {
    matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOMEM)
}

/// Descriptors that this process may have.
pub fn descriptors() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is there.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => limit.rlim_cur.try_into().unwrap_or(usize::MAX),
        _ => 0,
    }
}

/// Drops the threads that have ended.
fn drop_ended(known: &mut HashMap<u32, Caller>) {
    let entry = |caller: &Caller| libc::pollfd {
        fd: caller.fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let (threads, mut polled): (Vec<u32>, Vec<libc::pollfd>) =
        known.iter().map(|(thread, caller)| (*thread, entry(caller))).unzip();
    // SAFETY: so many entries.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, 0) };
    for (thread, _) in threads.iter().zip(&polled).filter(|(_, entry)| entry.revents != 0) {
        known.remove(thread);
    }
}

/// What an error says that a file of a process in `/proc` has returned.
fn of_proc(error: std::io::Error) -> Errno {
    Some(errno_of(&error)).filter(|errno| is_short(*errno)).unwrap_or(libc::ESRCH)
}

/// The number of the process of a thread.
fn process_of(thread: u32) -> Result<u32, Errno> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).map_err(of_proc)?;
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    process.and_then(|process| process.trim().parse().ok()).ok_or(libc::ESRCH)
}

/// Whether a thread may still be inside the system call of that number.
pub fn may_be_in(thread: u32, number: i32) -> bool {
    let text = match std::fs::read_to_string(format!("/proc/{thread}/syscall")) {
        Ok(text) => text,
        // Gone, or not for us to see.
        Err(_) => return is_alive(thread),
    };
    // "running", or the number of the call that it waits in; -1 is none.
    let first = text.split_whitespace().next().unwrap_or("running");
    first.parse::<i64>().map_or(first == "running", |now| now == i64::from(number))
}

/// The files that a thread has open to be written: where they are, and their paths.
///
/// # Errors
/// What the system said of its open files.
pub fn writable_files(thread: u32) -> std::io::Result<Vec<(PathBuf, PathBuf)>> {
    let files = std::fs::read_dir(format!("/proc/{thread}/fd"))?;
    let writable =
        |path: &PathBuf| path.symlink_metadata().is_ok_and(|meta| meta.mode() & libc::S_IWUSR != 0);
    let files = files.filter_map(|entry| Some(entry.ok()?.path())).filter(writable);
    Ok(files.filter_map(|path| std::fs::read_link(&path).ok().map(|to| (path, to))).collect())
}

/// Threads of a process, one for each table of open files: that of a thread may be its own, and a first thread that has
/// ended has none.
///
/// # Errors
/// What the system said of its threads.
pub fn tables(process: u32) -> std::io::Result<Vec<u32>> {
    let mut tables = Vec::new();
    for thread in threads(process)? {
        let is_known = |other: &u32| shares_files(*other, thread);
        // The newest first: where the first thread has ended, the others share one that is found at once.
        if !tables.iter().rev().take(MOST_TABLES).any(is_known) {
            tables.push(thread);
        }
    }
    Ok(tables)
}

/// The threads of a process.
fn threads(process: u32) -> std::io::Result<impl Iterator<Item = u32>> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"))?;
    Ok(tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()))
}

/// Which of these files some process but `except` has open to be written, or mapped so that others see what it writes;
/// all if that cannot be told.
pub fn open_anywhere(wanted: &[FileId], except: &[u32]) -> HashSet<FileId> {
    let mut open = HashSet::new();
    let all = || wanted.iter().copied().collect();
    let Ok(processes) = std::fs::read_dir("/proc") else { return all() };
    for entry in processes.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if except.contains(&pid) {
            continue;
        }
        let is_gone = |error: &std::io::Error| {
            error.kind() == std::io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ESRCH)
        };
        let tables = match tables(pid) {
            Ok(tables) => tables,
            Err(error) if is_gone(&error) => continue,
            Err(error) if is_short(errno_of(&error)) => return all(),
            Err(_) if is_hidden(pid) => return all(),
            Err(_) => continue,
        };
        for table in tables {
            let files = match writable_files(table) {
                Ok(files) => files,
                Err(error) if is_short(errno_of(&error)) => return all(),
                Err(_) if is_hidden(table) => return all(),
                Err(_) => continue,
            };
            // No server is asked, which may hang.
            let ids = files.iter().filter_map(|(fd, _)| Some(Facts::of_path(fd).ok()?.id));
            open.extend(ids.filter(|id| wanted.contains(id)));
        }
        if open.len() < wanted.len() {
            open.extend(mapped_files(pid, wanted));
        }
    }
    open
}

/// Which of these files a process has in shared mappings that it may write to.
fn mapped_files(process: u32, wanted: &[FileId]) -> Vec<FileId> {
    // Of any thread that lives: a first thread that has ended has no memory.
    let maps = |thread| std::fs::read_to_string(format!("/proc/{process}/task/{thread}/maps"));
    let mut threads = threads(process).into_iter().flatten();
    let maps = threads.find_map(|thread| maps(thread).ok().filter(|maps| !maps.is_empty()));
    let mut mapped = Vec::new();
    for line in maps.unwrap_or_default().lines() {
        // Where, permissions, offset, device, inode, and the path (proc_pid_maps(5)).
        let mut words = line.splitn(6, ' ');
        let mut word = || words.next().unwrap_or("");
        let (range, permissions, _, device, inode) = (word(), word(), word(), word(), word());
        if permissions.get(1..2) != Some("w") || permissions.get(3..4) != Some("s") {
            continue;
        }
        // A file system may show other numbers here than stat(2) does. What can be asked is asked, too.
        let facts = |path: String| Facts::of_path(Path::new(&path));
        let found = facts(format!("/proc/{process}/map_files/{range}"))
            .or_else(|_| facts(format!("/proc/{process}/root{}", word().trim_start())));
        let found = found.ok().map(|facts| facts.id);
        let shown = device_of(device).zip(inode.parse().ok());
        mapped
            .extend(wanted.iter().filter(|id| found == Some(**id) || shown == Some(**id)).copied());
    }
    mapped
}

/// A device as proc_pid_maps(5) shows it.
fn device_of(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    Some(libc::makedev(number(major)?, number(minor)?))
}

/// Whether a process that may be one of the command, having a filter, does not show its open files.
fn is_hidden(process: u32) -> bool {
    let denied = |error: std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    let filtered = || {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        status
            .lines()
            .any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
    };
    std::fs::read_dir(format!("/proc/{process}/fd")).err().is_some_and(denied) && filtered()
}

/// Whether a process is there.
pub fn is_alive(process: u32) -> bool {
    // SAFETY: signal 0 is only a question.
    let result = unsafe { libc::kill(process as libc::pid_t, 0) };
    result == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    /// A program that has a file open in one of several ways, says so, and waits.
    const HAS_OPEN: &str = "import ctypes, os, sys, threading, time
way, path = sys.argv[1:]
libc = ctypes.CDLL(None)
def says():
    os.write(1, b'ready\\n')
    time.sleep(3600)
def opens(): return os.open(path, os.O_RDWR)
def in_thread():
    if libc.unshare(0x400) == 0: opens(), says()
def behind_the_first():
    while open('/proc/self/stat').read().split(')')[1].split()[0] != 'Z': time.sleep(0.001)
    says()
if way == 'first': opens(), says()
if way == 'dead': opens(), threading.Thread(target=behind_the_first).start(), libc.syscall(60, 0)
if way == 'table': threading.Thread(target=in_thread).start()
fd = opens()
how = {'map': (3, 1), 'read-only': (1, 1), 'private': (3, 2)}.get(way)
if how: libc.mmap(None, ctypes.c_size_t(4096), *how, fd, ctypes.c_long(0))
os.close(fd)
if way != 'table': says()
";

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_file_is_open_however_a_process_has_it() {
        let path = std::env::temp_dir().join(format!("durac-open-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        file.set_len(4096).unwrap();
        let id = Facts::of(&file).unwrap().id;
        let ways = [
            ("first", true),
            ("dead", true),
            ("table", true),
            ("map", true),
            ("read-only", false),
            ("private", false),
            ("closed", false),
        ];
        for (way, is_open) in ways {
            let mut command = Command::new("python3");
            command.args(["-c", HAS_OPEN, way]).arg(&path).stdout(Stdio::piped());
            let mut child = Killed(command.spawn().unwrap());
            let mut line = String::new();
            let stdout = child.0.stdout.take().unwrap();
            BufReader::new(stdout).read_line(&mut line).unwrap();
            assert_eq!(line, "ready\n", "{way}");
            let open = open_anywhere(&[id], &[std::process::id()]);
            assert_eq!(open.contains(&id), is_open, "{way}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn threads_that_have_ended_make_room() {
        let mut known = HashMap::new();
        let mut children: Vec<_> =
            (0..4).map(|_| Killed(Command::new("sleep").arg("3600").spawn().unwrap())).collect();
        for child in &children {
            let fd = Arc::new(pidfd(child.0.id() as libc::pid_t, 0).unwrap());
            known.insert(child.0.id(), Caller { fd, process: Process::now(child.0.id()).unwrap() });
        }
        drop(children.pop());
        drop(children.pop());
        drop_ended(&mut known);
        let mut left: Vec<u32> = known.keys().copied().collect();
        let mut alive: Vec<u32> = children.iter().map(|child| child.0.id()).collect();
        left.sort_unstable();
        alive.sort_unstable();
        assert_eq!(left, alive);
    }

    #[test]
    fn a_thread_that_has_ended_is_not_taken_for_another() {
        // SAFETY: no preconditions.
        let thread = unsafe { libc::gettid() } as u32;
        let callers = Callers::default();
        let other = Killed(Command::new("sleep").arg("3600").spawn().unwrap());
        let process = Process::now(other.0.id()).unwrap();
        let fd = Arc::new(pidfd(process.number as libc::pid_t, 0).unwrap());
        keep(&mut callers.lock(), thread, Caller { fd, process });
        let mut call = Notification::default();
        call.thread = thread;
        let listener = File::open("/dev/null").unwrap().into();
        assert_eq!(callers.process(&listener, &call), Some(process));
        drop(other);
        // This is no listener, so nothing else is known of the call, either.
        assert_eq!(callers.process(&listener, &call), None);
    }

    #[test]
    fn a_process_that_has_ended_is_not_taken_for_another() {
        let callers = Callers::default();
        let first = Killed(Command::new("sleep").arg("3600").spawn().unwrap());
        let number = first.0.id();
        let process = callers.open_process(number).unwrap().process;
        assert_eq!(process, Process::now(number).unwrap());
        assert!(process.is_alive());
        assert_eq!(callers.named(number).unwrap(), process);
        drop(first);
        assert!(callers.named(number).is_err_and(|errno| errno == libc::ESRCH));
        assert!(!process.is_alive());
        // Another has its number.
        let us = Process { number: std::process::id(), began: process.began - 1 };
        assert!(!us.is_alive() && Process::now(us.number).unwrap().is_alive());
    }

    #[test]
    fn a_thread_with_open_files_of_its_own_is_told_from_others() {
        // SAFETY: no pointers.
        let number = || unsafe { libc::gettid() } as u32;
        let (to_us, from_them) = std::sync::mpsc::channel();
        let (to_them, from_us) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            to_us.send(number()).unwrap();
            from_us.recv().unwrap();
            // SAFETY: no pointers; this thread closes nothing of another's.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
            to_us.send(number()).unwrap();
            from_us.recv().unwrap();
        });
        let (process, other) = (std::process::id(), from_them.recv().unwrap());
        assert!(shares_files(process, process) && shares_files(process, other));
        to_them.send(()).unwrap();
        from_them.recv().unwrap();
        assert!(!shares_files(process, other));
        to_them.send(()).unwrap();
        thread.join().unwrap();
    }
}
