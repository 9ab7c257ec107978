//! The callers: their open files, and which process a thread belongs to.

use crate::keeper::pidfd;
use crate::notify::{self, Notification};
use durac_engine::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
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

/// Whether a process is there.
pub fn is_alive(process: u32) -> bool {
    // SAFETY: signal 0 is only a question.
    let result = unsafe { libc::kill(process as libc::pid_t, 0) };
    result == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}
