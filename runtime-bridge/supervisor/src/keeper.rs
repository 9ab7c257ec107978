//! The keeper: a process that does nothing while the supervisor lives, and holds the listener.
//!
//! When the last descriptor of a listener is closed, calls under the filter return ENOSYS. So a second process
//! holds one. It shares the supervisor's table of descriptors (`CLONE_FILES`), but not its memory: it outlives a
//! kill of the supervisor, with every descriptor open. It then syncs the logs of which something is deferred, and
//! answers every call with "continue": the command runs on as if there were no policy.
//!
//! It is started by a process that has threads, so it makes only system calls, and allocates nothing.

use crate::fault_injection::{Fault, injects};
use crate::notify::{self, Answer};
use crate::record;
use crate::shared::Shared;
use libc::{POLLHUP, POLLIN, c_int, pid_t, pollfd};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Calls behind the newest that is noted which the supervisor can have received: only one thread receives at a
/// time, and numbers of calls whose callers were killed are left out.
const UNNOTED: u64 = 4096;

const DEAD: &[u8] = b"durac: the supervisor is gone: what it had deferred is synced, and the command runs without a policy\n";
const FAILED: &[u8] = b"durac: the supervisor is gone, and a sync of what it had deferred failed\n";

/// A keeper that runs.
pub struct Keeper {
    /// Becomes readable when it ends.
    pub process: OwnedFd,
    /// Its number.
    pub pid: u32,
}

/// Starts a keeper for `listener`. `us` becomes readable when this process ends.
pub fn start(listener: RawFd, us: RawFd, shared: &'static Shared) -> io::Result<Keeper> {
    // The keeper shares the table: its own pidfd of us is ours.
    // SAFETY: as fork(2) but for the table of descriptors; the child only makes system calls.
    let child = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::CLONE_FILES | libc::SIGCHLD,
            std::ptr::null_mut::<u8>(),
            std::ptr::null_mut::<u8>(),
            std::ptr::null_mut::<u8>(),
            0,
        )
    };
    match child {
        0 => keep(listener, us, shared),
        pid if pid > 0 => Ok(Keeper { process: pidfd(pid as pid_t, 0)?, pid: pid as u32 }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends a keeper, if the process is one of this process' children, and no other has its number.
pub fn dismiss(keeper: u32) {
    let keeper = keeper as pid_t;
    // SAFETY: no status is wanted. A child keeps its number until it is waited for.
    unsafe {
        if keeper > 0 && libc::waitpid(keeper, std::ptr::null_mut(), libc::WNOHANG) == 0 {
            libc::kill(keeper, libc::SIGKILL);
            libc::waitpid(keeper, std::ptr::null_mut(), 0);
        }
    }
}

/// A descriptor of a process.
pub fn pidfd(pid: pid_t, flags: c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn keep(listener: RawFd, supervisor: RawFd, shared: &'static Shared) -> ! {
    // What ends the supervisor on purpose must not end its keeper. Others are ignored already.
    for signal in
        [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE, libc::SIGQUIT, libc::SIGUSR2]
    {
        // SAFETY: ignoring a signal.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // SAFETY: a name that ends with a zero; the others are not looked at.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"durac-keeper".as_ptr()) };
    let mut supervisor = pollfd { fd: supervisor, events: POLLIN, revents: 0 };
    while supervisor.revents == 0 {
        // SAFETY: one entry.
        unsafe { libc::poll(&raw mut supervisor, 1, -1) };
    }
    if !injects(Fault::KeeperLeaves) {
        take_over(listener, shared);
    }
    // SAFETY: no preconditions.
    unsafe { libc::_exit(0) }
}

/// The supervisor is dead.
fn take_over(listener: RawFd, shared: &Shared) {
    if shared.has_ended() {
        return;
    }
    let mut failed = false;
    for fd in shared.deferred().filter(|_| !injects(Fault::KeeperForgets)) {
        // SAFETY: any number may be passed.
        failed |= unsafe { libc::fsync(fd) } != 0;
    }
    if is_hung_up(listener) && !failed {
        // So is its command.
        return;
    }
    record::ends_early();
    say(if failed { FAILED } else { DEAD });
    for id in shared.calls() {
        notify::send(listener, id, Answer::Continue);
    }
    let newest = shared.newest();
    let mut first = true;
    let let_go = |from: u64, to: u64| {
        for id in from..to {
            notify::send(listener, id, Answer::Continue);
        }
    };
    let_go(newest.wrapping_add(1), newest.wrapping_add(1).saturating_add(UNNOTED));
    loop {
        match notify::receive(listener) {
            Ok(call) => {
                notify::send(listener, call.id, Answer::Continue);
                if std::mem::take(&mut first) && call.id.wrapping_sub(newest) < 1 << 20 {
                    let_go(newest.wrapping_add(1), call.id);
                }
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // The caller of one call was killed, or every process is gone.
                Some(libc::ENOENT) if !is_hung_up(listener) => {}
                _ => return,
            },
        }
    }
}

/// Whether no process is left under the filter.
pub fn is_hung_up(listener: RawFd) -> bool {
    let mut polled = pollfd { fd: listener, events: 0, revents: 0 };
    // SAFETY: one entry.
    unsafe { libc::poll(&raw mut polled, 1, 0) };
    polled.revents & POLLHUP != 0
}

fn say(text: &[u8]) {
    // SAFETY: the bytes are there. Nobody is there to tell if it fails.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

impl Keeper {
    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        let mut polled = pollfd { fd: self.as_raw_fd(), events: POLLIN, revents: 0 };
        // SAFETY: one entry.
        unsafe { libc::poll(&raw mut polled, 1, 0) };
        polled.revents & POLLIN != 0
    }

    /// Its descriptor.
    pub fn as_raw_fd(&self) -> RawFd {
        self.process.as_raw_fd()
    }
}
