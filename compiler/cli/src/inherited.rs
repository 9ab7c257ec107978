//! What this process was started with and Rust's runtime changes before `main`: `SIGPIPE` and `SIGCHLD`, and closed
//! standard streams. A command that durac starts gets them as durac got them.
//!
//! It is noted by a function in `.init_array`, which the C library calls before the runtime starts.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

/// A bit for each of the descriptors 0, 1 and 2 that was closed.
static CLOSED: AtomicU8 = AtomicU8::new(0);
/// A bit for each of [`SIGNALS`] that was ignored.
static IGNORED: AtomicU8 = AtomicU8::new(0);
/// `SIGPIPE`: the runtime ignores it, and sets it to its default in a child. `SIGCHLD`: where it is ignored, nobody can
/// wait for a child, so [`begin`] sets it to its default.
const SIGNALS: [libc::c_int; 2] = [libc::SIGPIPE, libc::SIGCHLD];

// SAFETY: the section holds pointers to functions of this type. The C library calls each once, before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = note;

/// Only asks the kernel, and stores what it says: the runtime is not set up yet.
extern "C" fn note() {
    for fd in 0..3 {
        // SAFETY: no pointers.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            CLOSED.fetch_or(1 << fd, Ordering::Relaxed);
        }
    }
    for (bit, signal) in SIGNALS.into_iter().enumerate() {
        // SAFETY: all zero is a valid action, which the call fills; a null pointer means that nothing changes.
        let handler = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut action);
            action.sa_sigaction
        };
        if handler == libc::SIG_IGN {
            IGNORED.fetch_or(1 << bit, Ordering::Relaxed);
        }
    }
}

/// Makes this process able to wait for its children, and to go on where a file is at its limit (`ulimit -f`): the write
/// returns an error.
pub fn begin() {
    if is_ignored(1) {
        set(libc::SIGCHLD, libc::SIG_DFL);
    }
    extern "C" fn nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // Not ignored: a command that is started would inherit that, and a handler it does not.
    // SAFETY: the handler does nothing.
    if unsafe { libc::signal(libc::SIGXFSZ, handler as libc::sighandler_t) } == libc::SIG_IGN {
        set(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Whether this standard stream was closed. It leads to `/dev/null` now, where what is written is lost.
pub fn is_closed(fd: u8) -> bool {
    CLOSED.load(Ordering::Relaxed) & 1 << fd != 0
}

fn is_ignored(bit: usize) -> bool {
    IGNORED.load(Ordering::Relaxed) & 1 << bit != 0
}

/// Has a command start with what this process was started with.
pub fn hand_on(command: &mut Command) {
    if CLOSED.load(Ordering::Relaxed) == 0 && IGNORED.load(Ordering::Relaxed) == 0 {
        return;
    }
    // SAFETY: the closure runs between fork and exec, after the library has reset signals. It reads atomics and makes
    // system calls.
    unsafe { command.pre_exec(restore) };
}

fn restore() -> io::Result<()> {
    for (bit, signal) in SIGNALS.into_iter().enumerate() {
        if is_ignored(bit) {
            set(signal, libc::SIG_IGN);
        }
    }
    for fd in (0..3).filter(|fd| is_closed(*fd)) {
        // Not closed before exec: if that fails, nothing else may get the number.
        // SAFETY: no pointers.
        if unsafe { libc::fcntl(fd.into(), libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// They are signals that may be set, so it cannot fail.
fn set(signal: libc::c_int, handler: libc::sighandler_t) {
    // SAFETY: neither value is a function.
    unsafe { libc::signal(signal, handler) };
}
