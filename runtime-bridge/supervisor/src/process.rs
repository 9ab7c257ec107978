//! The callers: their open files, and which process a thread belongs to.

use crate::keeper::pidfd;
use crate::log::FileId;
use crate::notify::{self, Notification};
use durac_engine::Errno;
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
    /// `EBADF` if it is not open, and what else the system said.
    pub fn file(
        &self,
        listener: &OwnedFd,
        call: &Notification,
        fd: RawFd,
    ) -> Result<(File, u32), Errno> {
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
        let (caller, lasting) = Caller::open(call.thread)?;
        if !notify::is_valid(listener, call.id) {
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
        let process = process_of(thread).ok_or(libc::ESRCH)?;
        let opened = pidfd(thread as libc::pid_t, THREAD);
        let (fd, lasting) = match opened {
            Ok(fd) => (fd, true),
            Err(_) => (pidfd(process as libc::pid_t, 0).map_err(errno)?, false),
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
        Ok(unsafe { File::from_raw_fd(copy as RawFd) })
    }
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
    let Ok(processes) = std::fs::read_dir("/proc") else { return wanted.iter().copied().collect() };
    for entry in processes.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if except.contains(&pid) {
            continue;
        }
        for (fd, _) in writable_files(pid) {
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

/// Whether a process is there.
pub fn is_alive(process: u32) -> bool {
    // SAFETY: signal 0 is only a question.
    let result = unsafe { libc::kill(process as libc::pid_t, 0) };
    result == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}
