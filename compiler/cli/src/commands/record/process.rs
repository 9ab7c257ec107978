//! The command, and the processes that it leaves behind.
//!
//! A server that daemonizes ends the process that was started and lives on in a child of it. This
//! process makes itself the reaper of such orphans (prctl(2), PR_SET_CHILD_SUBREAPER), so that it
//! sees the end of every process that can still record.

use crate::signals;
use std::cell::Cell;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

/// A command that was started.
#[derive(Debug)]
pub struct Family {
    pid: libc::pid_t,
    /// A process of it ended as another user than this one.
    others: Cell<bool>,
}

impl Family {
    /// Starts it. Signals to this process are passed on to it.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let held = signals::Held::new()?;
        held.spare(command);
        let pid = command.spawn()?.id() as libc::pid_t;
        signals::forward_to(pid);
        drop(held);
        Ok(Self { pid, others: Cell::new(false) })
    }

    /// Whether one of those that were reaped had become another user.
    pub fn had_others(&self) -> bool {
        self.others.get()
    }

    /// Reaps the processes that have ended, and puts the command's exit code into `code` when it was
    /// among them. Returns whether none is left.
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
                signals::child_ended();
            }
            // It is a zombie, and its user can still be read.
            if user_of(pid).is_some_and(|user| user != rustix::process::geteuid().as_raw()) {
                self.others.set(true);
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

/// The effective user of a process.
fn user_of(pid: libc::pid_t) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_whitespace().nth(1)?.parse().ok()
}

/// As in a shell: 128 plus the number of the signal.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|s| 128 + s));
    code.and_then(|c| u8::try_from(c).ok()).unwrap_or(u8::MAX)
}

/// Whether the process is gone.
pub fn is_gone(pid: libc::pid_t) -> bool {
    use rustix::process::{Pid, test_kill_process};
    Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}
