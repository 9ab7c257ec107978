//! The few system calls that the standard library does not have. All `unsafe` of this crate.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes the child that `command` starts die (SIGKILL) when the thread that starts it ends.
///
/// The kernel keeps this over `execve`, so it also holds for what the child becomes; a setuid
/// program or a daemon's fork loses it.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: getpid does nothing but return a number.
    let parent = unsafe { libc::getpid() };
    // SAFETY: the closure runs between fork and exec and makes only system calls, which allocate
    // nothing and take no lock; nor does an error made of a number. The argument of `prctl` is as wide as
    // it reads it.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the request was made.
            if libc::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// Sends `signal` to the process `pid`.
///
/// # Errors
/// That of kill(2).
pub fn kill(pid: u32, signal: i32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
    if pid == 0 {
        // 0 would mean the whole process group.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: kill takes no pointers.
    check(unsafe { libc::kill(pid, signal) })
}

/// A process that need not be our child: it is the same process even if its number is used again.
#[derive(Debug)]
pub struct Process {
    fd: OwnedFd,
}

impl Process {
    /// The process that has the number `pid` now.
    ///
    /// # Errors
    /// That of pidfd_open(2).
    pub fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes no pointers, and what it returns is looked at before it is taken for a new
        // descriptor, which nobody else owns.
        unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0);
            let fd = i32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            check(fd)?;
            Ok(Self { fd: OwnedFd::from_raw_fd(fd) })
        }
    }

    /// Sends `signal` to it.
    ///
    /// # Errors
    /// That of pidfd_send_signal(2).
    pub fn kill(&self, signal: i32) -> io::Result<()> {
        // SAFETY: the null pointer is allowed: the kernel then fills in the signal's information.
        let status = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.fd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        check(status as i32)
    }

    /// Waits until it has ended; false if it still runs after `within`.
    ///
    /// # Errors
    /// That of poll(2).
    pub fn wait(&self, within: Duration) -> io::Result<bool> {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = i32::try_from(within.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the pointer is to one valid pollfd, which outlives the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, millis) };
        if ready < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(ready > 0)
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP set a flag, see [`interrupted`], instead of ending this
/// process, so that what was measured can be shown and every child is stopped.
pub fn catch_interrupts() {
    extern "C" fn note(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let handler = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe, and has the signature that
        // `signal` calls.
        unsafe { libc::signal(signal, handler) };
    }
}

/// Whether one of the signals of [`catch_interrupts`] has come.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Whether this process may do what only root may.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: geteuid does nothing but return a number.
    unsafe { libc::geteuid() == 0 }
}

fn check(status: i32) -> io::Result<()> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
