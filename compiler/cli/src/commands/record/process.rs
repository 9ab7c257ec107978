//! The command, and the processes that it leaves behind.
//!
//! A server that goes to the background ends the process that was started, and lives on in a child
//! of it. This process asks the system to be given such orphans, so that it sees the end of every
//! process that can still record.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// The command, while it runs; else 0.
static CHILD: AtomicI32 = AtomicI32::new(0);
/// The user wants to stop, and there is no command to tell.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Signals that are for the command.
const FORWARDED: [libc::c_int; 6] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// A command that was started.
#[derive(Debug)]
pub struct Family {
    pid: libc::pid_t,
}

impl Family {
    /// Starts it. Signals to this process are its from then on.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        // SAFETY: the call changes who is given orphans, and nothing else. Its argument is as wide as it
        // reads it.
        if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1 as libc::c_ulong) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let pid = command.spawn()?.id() as libc::pid_t;
        CHILD.store(pid, Ordering::Release);
        for signal in FORWARDED {
            // SAFETY: all zero is a valid action: no flags, no signals blocked. The handler has the signature
            // that SA_SIGINFO asks for, and does only what a handler may.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = forward as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
                libc::sigaction(signal, &action, std::ptr::null_mut());
            }
        }
        Ok(Self { pid })
    }

    /// Buries the processes that have ended, and puts the command's exit code into `code` when it
    /// was among them. Answers whether none is left.
    pub fn reap(&self, code: &mut Option<u8>) -> bool {
        loop {
            let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            // SAFETY: all zero is a valid value. The call fills it, with the fields of a child that has ended,
            // or leaves it at zero: `si_pid` may be read in both cases.
            let (result, pid) = unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                let result = libc::waitid(libc::P_ALL, 0, &mut info, flags);
                (result, info.si_pid())
            };
            if result != 0 {
                return io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD);
            }
            if pid == 0 {
                return false;
            }
            if pid == self.pid {
                // Before its number is free for another process.
                CHILD.store(0, Ordering::Release);
            }
            let mut status = 0;
            // SAFETY: `status` has room for the answer.
            unsafe { libc::waitpid(pid, &mut status, 0) };
            if pid == self.pid {
                *code = Some(exit_code(ExitStatus::from_raw(status)));
            }
        }
    }
}

/// As shells say it: a signal is 128 and its number.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|s| 128 + s));
    code.and_then(|c| u8::try_from(c).ok()).unwrap_or(u8::MAX)
}

/// Whether the user wants to stop although the command has ended.
pub fn is_stopped() -> bool {
    STOPPED.load(Ordering::Acquire)
}

/// Whether there is no such process.
pub fn is_gone(pid: libc::pid_t) -> bool {
    // SAFETY: signal 0 is never delivered.
    let result = unsafe { libc::kill(pid, 0) };
    result != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
}

/// Passes a signal on to the command, unless the terminal has sent it: it has sent it to both.
extern "C" fn forward(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let child = CHILD.load(Ordering::Acquire);
    // SAFETY: the system calls this with a valid `info`; the rest is allowed in a handler, and
    // `errno` is as before afterwards.
    unsafe {
        if child == 0 {
            STOPPED.store(true, Ordering::Release);
        } else if (*info).si_code <= 0 {
            let errno = *libc::__errno_location();
            libc::kill(child, signal);
            *libc::__errno_location() = errno;
        }
    }
}
