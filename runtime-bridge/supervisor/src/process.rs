//! The callers: their open files, and which process a thread belongs to.

use crate::clock;
use crate::fault_injection::{Fault, injects};
use crate::keeper::pidfd;
use crate::log::FileId;
use crate::note;
use crate::notify::{self, Notification};
use durac_engine::{Errno, Time};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// `PIDFD_THREAD` (linux/pidfd.h): since Linux 6.9.
const THREAD: i32 = libc::O_EXCL;
/// Threads that are remembered.
const MOST: usize = 4096;

/// A thread.
#[derive(Clone)]
struct Caller {
    /// It; its end makes it useless for any other thread.
    fd: Arc<OwnedFd>,
    /// The process.
    process: u32,
}

/// The threads that have called.
#[derive(Default)]
pub struct Callers {
    known: Mutex<HashMap<u32, Caller>>,
}

impl Callers {
    /// The open file behind a descriptor of the caller, and the number of its process.
    ///
    /// # Errors
    /// `EBADF` if it is not open, or only names a file (`O_PATH`): no call that is asked about takes such a one. And what
    /// else the system said.
    pub fn file(
        &self,
        listener: &OwnedFd,
        call: &Notification,
        fd: RawFd,
    ) -> Result<(File, u32), Errno> {
        if injects(Fault::Remembered) {
            return self.remembered(call, fd);
        }
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
        let (caller, lasting) = Caller::open(call.thread)?;
        if !notify::is_valid(listener, call.id) && !injects(Fault::StaleThread) {
            return Err(libc::ESRCH);
        }
        let file = caller.file(fd);
        let process = caller.process;
        if lasting {
            let mut known = self.lock();
            if known.len() >= MOST {
                known.clear();
            }
            known.insert(call.thread, caller);
        }
        file.map(|file| (file, process))
    }

    /// What a descriptor of a thread led to when it was first seen: a fault.
    fn remembered(&self, call: &Notification, fd: RawFd) -> Result<(File, u32), Errno> {
        type Files = HashMap<(u32, RawFd), (File, u32)>;
        static FILES: Mutex<Option<Files>> = Mutex::new(None);
        let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        let files = files.get_or_insert_default();
        let (file, process) = match files.entry((call.thread, fd)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let (caller, _) = Caller::open(call.thread)?;
                place.insert((caller.file(fd)?, caller.process))
            }
        };
        let copy = file.try_clone().map_err(|why| why.raw_os_error().unwrap_or(libc::EIO))?;
        Ok((copy, *process))
    }

    /// The process that calls; none if it is not known.
    pub fn process(&self, listener: &OwnedFd, call: &Notification) -> Option<u32> {
        if let Some(caller) = self.lock().get(&call.thread) {
            return Some(caller.process);
        }
        process_of(call.thread).filter(|_| notify::is_valid(listener, call.id))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Caller>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller {
    /// Opens a thread. The second value says whether the result can be kept: before Linux 6.9 it is the process,
    /// which outlives its thread.
    fn open(thread: u32) -> Result<(Self, bool), Errno> {
        let errno = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        // Of another pid namespace, which this one does not see.
        if thread == 0 {
            return Err(libc::EPERM);
        }
        let process = process_of(thread).ok_or(libc::ESRCH)?;
        let opened = pidfd(thread as libc::pid_t, THREAD);
        let (fd, lasting) = match opened {
            Ok(fd) => (fd, true),
            // The process' open files, which may not be those of this thread.
            Err(_) if shares_files(process, thread) => {
                (pidfd(process as libc::pid_t, 0).map_err(errno)?, false)
            }
            Err(_) => return Err(libc::EPERM),
        };
        Ok((Self { fd: Arc::new(fd), process }, lasting))
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

/// The process of a thread.
fn process_of(thread: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
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

/// The files that a process has open to be written: where they are, and their paths.
pub fn writable_files(process: u32) -> Vec<(PathBuf, PathBuf)> {
    let Ok(files) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return Vec::new() };
    let writable =
        |path: &PathBuf| path.symlink_metadata().is_ok_and(|meta| meta.mode() & libc::S_IWUSR != 0);
    let files = files.filter_map(|entry| Some(entry.ok()?.path())).filter(writable);
    files.filter_map(|path| std::fs::read_link(&path).ok().map(|to| (path, to))).collect()
}

/// Which of these files some process but `except` has open to be written; all if that cannot be told.
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
        let files = writable_files(pid);
        if files.is_empty() && is_hidden(pid) {
            return all();
        }
        for (fd, _) in files {
            if let Ok(meta) = fd.metadata() {
                let id = (meta.dev(), meta.ino());
                if wanted.contains(&id) {
                    open.insert(id);
                }
            }
        }
    }
    open
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

/// When a process was started, by `CLOCK_BOOTTIME`, rounded down to a tick. None if it is not there.
pub fn began(process: u32) -> Option<Time> {
    let stat = std::fs::read(format!("/proc/{process}/stat")).ok()?;
    // The name may contain anything; the 20th field after it is the time (proc_pid_stat(5)).
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let ticks: Time = fields.split_whitespace().nth(19)?.parse().ok()?;
    // SAFETY: no pointers.
    let per_second = Time::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok()?;
    ticks.checked_mul(1_000_000_000)?.checked_div(per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

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
