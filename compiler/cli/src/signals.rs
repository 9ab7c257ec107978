//! Signals to this process: passed on to a command that it started, or waited for. With
//! `durac_workload::sys`, which only notes them, the one place that handles signals.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

/// The command that signals are for, while it runs; else 0.
static CHILD: AtomicI32 = AtomicI32::new(0);
/// A signal came while there was no command to pass it on to.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Signals that are for the command.
const FORWARDED: [libc::c_int; 6] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// From now on, passes signals on to the process `child`.
pub fn forward_to(child: libc::pid_t) {
    CHILD.store(child, Ordering::Release);
    for signal in FORWARDED {
        // SAFETY: all zero is a valid action: no flags, no signals blocked. The handler has the signature
        // that SA_SIGINFO requires, and does only what a handler may.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = forward as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// While it lives, signals that are for the command wait: one that comes while it is started would end this process,
/// and not the command.
pub struct Held(libc::sigset_t);

impl Held {
    /// From now on, in this thread.
    pub fn new() -> io::Result<Self> {
        // SAFETY: each set is filled before it is read.
        unsafe {
            let (mut set, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigemptyset(&raw mut set);
            for signal in FORWARDED {
                libc::sigaddset(&raw mut set, signal);
            }
            match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before) {
                0 => Ok(Self(before)),
                failed => Err(io::Error::from_raw_os_error(failed)),
            }
        }
    }

    /// Has a command start as without this.
    pub fn spare(&self, command: &mut Command) {
        let before = self.0;
        // SAFETY: the closure runs between fork and exec, and makes one call that is allowed there.
        unsafe { command.pre_exec(move || set_mask(&before)) };
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // With a mask that this thread had there is no error.
        let _ = set_mask(&self.0);
    }
}

fn set_mask(mask: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the call only reads the set; a null pointer means that nobody wants the one before.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) } {
        0 => Ok(()),
        failed => Err(io::Error::from_raw_os_error(failed)),
    }
}

/// The command has ended; its process id may be reused. Later signals stop this process.
pub fn child_ended() {
    CHILD.store(0, Ordering::Release);
}

/// Whether the user wants to stop although the command has ended.
pub fn is_stopped() -> bool {
    STOPPED.load(Ordering::Acquire)
}

/// Passes a signal on to the command, unless the terminal has sent it: that sends it to both.
extern "C" fn forward(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let child = CHILD.load(Ordering::Acquire);
    // SAFETY: the system calls this with a valid `info`; the rest is allowed in a handler, and
    // `errno` is restored.
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

/// Signals that are blocked until somebody waits for them.
pub struct Blocked(libc::sigset_t);

/// One that came.
#[derive(Clone, Copy, Debug)]
pub struct Signal {
    /// Its number.
    pub number: libc::c_int,
    /// The kernel has sent it, as it does for a terminal, and not a process.
    pub of_kernel: bool,
}

impl Blocked {
    /// Blocks them in this thread and those that it starts.
    pub fn new(signals: &[libc::c_int]) -> io::Result<Self> {
        // SAFETY: the set is filled before it is used, and the calls only read and write it.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in signals {
                libc::sigaddset(&raw mut set, *signal);
            }
            match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) {
                0 => Ok(Self(set)),
                failed => Err(io::Error::from_raw_os_error(failed)),
            }
        }
    }

    /// Lets a command get its signals: it would inherit that they are blocked.
    pub fn spare(&self, command: &mut Command) {
        let set = self.0;
        // SAFETY: the closure runs between fork and exec, and makes one call that is allowed there.
        unsafe {
            command.pre_exec(move || {
                match libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut())
                {
                    0 => Ok(()),
                    failed => Err(io::Error::from_raw_os_error(failed)),
                }
            });
        }
    }

    /// Waits for one of them, for a while.
    pub fn wait_for(&self, time: Duration) -> Option<Signal> {
        let time = libc::timespec {
            tv_sec: time.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(time.subsec_nanos()),
        };
        // SAFETY: the structure may be zero; all three outlive the call.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let number = libc::sigtimedwait(&raw const self.0, &raw mut info, &raw const time);
            (number > 0).then_some(Signal { number, of_kernel: info.si_code > 0 })
        }
    }
}

/// Whether SIGCHLD was pending: where it is blocked, it stays pending when a process becomes another
/// program, which has made no child.
pub struct ChildSignal(bool);

impl ChildSignal {
    /// As it is now.
    pub fn now() -> Self {
        // SAFETY: each set is filled before it is read.
        Self(unsafe {
            let mut set = std::mem::zeroed();
            // Where it is not blocked it is not pending, and a call that a filter may not list is spared.
            if libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut set) != 0
                || libc::sigismember(&raw const set, libc::SIGCHLD) != 1
            {
                return Self(false);
            }
            libc::sigpending(&raw mut set) == 0
                && libc::sigismember(&raw const set, libc::SIGCHLD) == 1
        })
    }

    /// Takes away the signal of a child that has come since.
    pub fn restore(self) {
        if self.0 || !Self::now().0 {
            return;
        }
        // SAFETY: the set is filled before it is read; a null pointer means that nobody wants to know more,
        // and a time of zero that the call does not wait.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGCHLD);
            let time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const time);
        }
    }
}
