//! `durac run` as the first process of a container: the command becomes its child.
//!
//! The supervisor's process has no parent that lives, so it becomes a child of the first process, and ends after the
//! command. A command that were the first process would have a child that it does not know, and wait for it when it waits
//! for all of its children.

use crate::signals::Blocked;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// Signals that are for the command.
const FORWARDED: [libc::c_int; 8] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
    libc::SIGCONT,
];
/// Between two looks for processes that have ended, if no signal comes.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether this process is the first of its namespace.
pub fn is_init() -> bool {
    rustix::process::getpid().is_init()
}

/// Starts the command, hands on the signals that it is sent, and collects every process that ends. Returns what the
/// command ended with: its exit code, or 128 and its signal.
///
/// # Errors
/// If it cannot be started.
pub fn run(command: &mut Command) -> io::Result<i32> {
    let signals = Blocked::new(&[&FORWARDED[..], &[libc::SIGCHLD]].concat())?;
    signals.spare(command);
    let child = Pid::from_child(&command.spawn()?);
    loop {
        while let Ok(Some((ended, status))) = wait(WaitOptions::NOHANG) {
            if ended == child {
                let status = ExitStatus::from_raw(status.as_raw());
                let by_signal = || 128 + status.signal().unwrap_or(0);
                return Ok(status.code().unwrap_or_else(by_signal));
            }
        }
        if let Some(came) = signals.wait_for(PAUSE)
            && came.number != libc::SIGCHLD
            // A terminal sends its signals to both.
            && !came.of_kernel
            && let Some(signal) = Signal::from_named_raw(came.number)
        {
            // It may have ended.
            let _ = kill_process(child, signal);
        }
    }
}
