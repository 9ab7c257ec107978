//! Calls that copy, close and reuse descriptors.

use super::{forget_stale, log_of};
use crate::errno::{self, Kept};
use crate::guard;
use crate::off::{self, Off};
use crate::real;
use crate::registry::Registry;
use crate::stage::StageOff;
use crate::table::{self, Entry};
use libc::{c_int, c_uint, c_void, sockaddr, socklen_t};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// Before `fd` is closed: if it is a log's last, everything acknowledged is made durable. Returns
/// the error of that.
fn closing(fd: c_int) -> c_int {
    // A child of `vfork` prepares its descriptors in our memory, and we keep ours.
    if !super::is_ours() {
        return 0;
    }
    match table::get(fd) {
        Entry::Durable => {
            table::forget(fd, Entry::Durable);
        }
        Entry::Reply => super::sockets::closing(fd),
        _ => {}
    }
    let Some(log) = super::proved(fd) else { return 0 };
    let kept = Kept::now();
    let result = guard::run(|| {
        if !log.registry.is_ours() {
            return Ok(());
        }
        // Before the close: after it another thread may be given the number.
        table::set(fd, Entry::Other);
        log.registry.closed(log.index)
    });
    drop(kept);
    result.and_then(Result::err).unwrap_or(0)
}

/// A stream on `fd` is closed, which may write first what it holds: the log's error is returned, as by
/// `close`.
pub(super) fn stream_closed(
    fd: c_int,
    stream: *mut c_void,
    real: impl FnOnce(*mut c_void) -> c_int,
) -> c_int {
    if fd < 0 || table::is_other(fd) {
        return real(stream);
    }
    if log_of(fd).is_some() {
        // SAFETY: the stream is open: the caller is about to close it.
        unsafe { libc::fflush(stream.cast()) };
    }
    let failed = closing(fd);
    let result = real(stream);
    if result == 0 && failed != 0 {
        errno::set(failed);
        return libc::EOF;
    }
    result
}

/// Hook of `close`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn close(fd: c_int) -> c_int {
    if table::is_other(fd) {
        // SAFETY: the caller's argument.
        return unsafe { real::CLOSE.get()(fd) };
    }
    // SAFETY: the caller's argument.
    close_ours(fd, || unsafe { real::CLOSE.get()(fd) })
}

/// Closes a descriptor that concerns the agent.
#[inline(never)]
pub(super) fn close_ours(fd: c_int, real: impl FnOnce() -> c_int) -> c_int {
    // A child of `vfork` may have opened a file that has got the number, and its own table of descriptors.
    if table::get(fd) == Entry::Own && super::is_ours() {
        // The application never opened it.
        errno::set(libc::EBADF);
        return -1;
    }
    let failed = closing(fd);
    let result = real();
    if result == 0 && failed != 0 {
        errno::set(failed);
        return -1;
    }
    result
}

/// Closes a range with `close` and leaves out the agent's own descriptors.
fn close_between(
    first: c_uint,
    last: c_uint,
    mut close: impl FnMut(c_uint, c_uint) -> c_int,
) -> c_int {
    let mut from = first;
    let mut own = Vec::new();
    let mut failed = 0;
    for fd in table::ours(first, last) {
        match table::get(fd) {
            Entry::Own => own.push(fd as c_uint),
            _ => failed = closing(fd).max(failed),
        }
    }
    for fd in own {
        if from < fd {
            let result = close(from, fd - 1);
            if result != 0 {
                return result;
            }
        }
        from = fd + 1;
    }
    let result = if from <= last { close(from, last) } else { 0 };
    if result == 0 && failed != 0 {
        errno::set(failed);
        return -1;
    }
    result
}

/// Hook of `close_range`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments, or a part of its range.
    let real = |first, last| unsafe { real::CLOSE_RANGE.get()(first, last, flags) };
    close_all(first, last, flags, real)
}

/// A call that closes a range, or a part of it with `real`.
#[inline]
pub(super) fn close_all(
    first: c_uint,
    last: c_uint,
    flags: c_int,
    mut real: impl FnMut(c_uint, c_uint) -> c_int,
) -> c_int {
    const MARKS: c_int = libc::CLOSE_RANGE_CLOEXEC as c_int;
    const UNSHARES: c_int = libc::CLOSE_RANGE_UNSHARE as c_int;
    if first > last || flags & !(MARKS | UNSHARES) != 0 || !super::is_ours() {
        return real(first, last);
    }
    let unshared = (flags & UNSHARES != 0).then(unshares);
    let result = match flags & MARKS {
        0 => close_between(first, last, real),
        _ => real(first, last),
    };
    if let Some(Some(registry)) = unshared {
        let kept = Kept::now();
        guard::run(|| registry.recall_workers());
        drop(kept);
    }
    result
}

/// This thread is about to get a descriptor table of its own. A process that has no other gets nothing new, once the
/// agent's threads have ended: they may start again afterwards.
#[cold]
fn unshares() -> Option<&'static Registry> {
    let kept = Kept::now();
    crate::adopt::hurry();
    let registry = table::registry();
    let alone = guard::run(|| {
        if let Some(registry) = registry {
            // An error stays in its log.
            let _ = crate::order::drain_others(None);
            registry.dismiss_workers();
        }
        // A thread that has ended counts for a moment longer.
        (0..10).any(|_| {
            is_alone() || {
                crate::clock::pause(Duration::from_millis(1));
                false
            }
        })
    });
    if alone != Some(true) {
        off::process(Off::Descriptors);
    }
    drop(kept);
    registry
}

/// Whether the process has one thread: `/proc` says how many there are by the links of a folder.
fn is_alone() -> bool {
    std::fs::metadata("/proc/self/task").is_ok_and(|task| task.nlink() == 3)
}

/// Hook of `closefrom`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn closefrom(first: c_int) {
    let from = c_uint::try_from(first).unwrap_or(0);
    if table::registry().is_none() || !super::is_ours() {
        if super::is_ours() {
            for fd in table::ours(from, c_uint::MAX) {
                closing(fd);
            }
        }
        // SAFETY: the caller's argument.
        unsafe { real::CLOSEFROM.get()(first) };
        return;
    }
    let first = from;
    close_between(first, c_uint::MAX, |first, last| {
        // SAFETY: a part of the caller's range.
        unsafe { real::CLOSE_RANGE.get()(first, last, 0) }
    });
}

/// `new` is a copy of `old`.
#[inline]
pub(super) fn copied(old: c_int, new: c_int) -> c_int {
    forget_stale(new);
    if new >= 0 && !table::is_other(old) && super::is_ours() {
        copied_log(old, new);
    }
    new
}

#[cold]
fn copied_log(old: c_int, new: c_int) {
    let kept = Kept::now();
    if table::get(old) == Entry::Durable {
        super::found::durable(new);
    }
    if table::get(old) == Entry::Reply {
        super::sockets::copied(old, new);
    }
    if let Some(log) = log_of(old) {
        guard::run(|| log.registry.duplicated(log.index, new));
    }
    drop(kept);
}

/// Hook of `dup`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn dup(old: c_int) -> c_int {
    super::seen_by(old);
    // SAFETY: the caller's argument.
    let new = unsafe { real::DUP.get()(old) };
    copied(old, new)
}

/// A call that copies `old` over `new`, which it closes first. `flags` are those of `dup3`.
pub(super) fn copy_over(
    old: c_int,
    new: c_int,
    flags: c_int,
    real: impl FnOnce() -> c_int,
) -> c_int {
    // A vfork child prepares its descriptors with these calls, in our memory.
    if table::is_other(old) && table::is_other(new) || !super::is_ours() {
        return real();
    }
    // Nothing is closed by a call that fails.
    if old == new || flags & !libc::O_CLOEXEC != 0 || is_beyond_limit(new) {
        return real();
    }
    // SAFETY: any number may be passed; the command only looks.
    if unsafe { real::FCNTL.get()(old, libc::F_GETFD, 0) } < 0 {
        return -1;
    }
    if table::get(new) == Entry::Own && !makes_room(new) {
        // What dup2 returns when another thread is about to open that number.
        errno::set(libc::EBUSY);
        return -1;
    }
    super::settle(old);
    // A stream of the C library may write to a number that is open, and goes on.
    // SAFETY: as above.
    let was_open = || unsafe { real::FCNTL.get()(new, libc::F_GETFD, 0) } >= 0;
    let streams = table::get(old) == Entry::Durable && was_open();
    let replaced = super::proved(new);
    if let Some(log) = replaced {
        let kept = Kept::now();
        if let Some(Err(errno)) = guard::run(|| log.slot.prepare_to_let_go()) {
            // The log stays where it is, and keeps its error: `close` gives it up.
            return kept.fail(errno);
        }
    }
    if table::get(new) == Entry::Reply {
        super::sockets::closing(new);
    }
    let result = real();
    if result >= 0 {
        let kept = Kept::now();
        table::forget(new, Entry::Durable);
        if let Some(log) = replaced
            && table::forget(new, Entry::Log(log.index))
        {
            guard::run(|| log.registry.closed(log.index).is_ok());
        }
        drop(kept);
        copied(old, result);
        if streams {
            super::found::given_a_stream(result);
        }
        // A stream may already write to this number.
        if !table::is_other(result) {
            super::revoke(result, StageOff::Stream);
            super::lose_writes(result);
        }
    }
    result
}

/// Whether the agent has moved its own descriptor of this number away.
#[cold]
fn makes_room(fd: c_int) -> bool {
    let kept = Kept::now();
    let moved = guard::run(|| table::registry().is_some_and(|registry| registry.make_room(fd)));
    drop(kept);
    moved == Some(true)
}

/// Whether the process may have no new descriptor of this number: the limit can be lower than one that it has.
fn is_beyond_limit(fd: c_int) -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for the result.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    result == 0 && libc::rlim_t::try_from(fd).is_ok_and(|fd| fd >= limit.rlim_cur)
}

/// Hook of `dup2`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn dup2(old: c_int, new: c_int) -> c_int {
    // SAFETY: the caller's arguments.
    copy_over(old, new, 0, || unsafe { real::DUP2.get()(old, new) })
}

/// Hook of `dup3`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments.
    copy_over(old, new, flags, || unsafe { real::DUP3.get()(old, new, flags) })
}

/// A command that lets somebody else see the file (a lock) or writes it otherwise (a flag).
#[inline]
pub(super) fn controls(fd: c_int, command: c_int, argument: usize) {
    if matches!(command, libc::F_SETLK | libc::F_SETLKW) {
        super::before_locks();
    }
    let harmless = matches!(command, libc::F_GETFD | libc::F_SETFD | libc::F_GETFL);
    if harmless || table::is_other(fd) {
        return;
    }
    super::settle(fd);
    match command {
        libc::F_SETLK | libc::F_SETLKW => super::locks_parts(fd),
        libc::F_OFD_SETLK | libc::F_OFD_SETLKW => super::locks(fd),
        _ => {}
    }
    if command == libc::F_SETFL && argument as c_int & libc::O_DIRECT != 0 {
        super::revoke(fd, StageOff::Direct);
    }
}

#[inline]
pub(super) fn controlled(fd: c_int, command: c_int, result: c_int) -> c_int {
    if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) {
        return copied(fd, result);
    }
    result
}

/// Hook of `fcntl`, which takes its third argument, if there is one, in the same register.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    controls(fd, command, argument);
    // SAFETY: the caller's arguments, which it vouches for.
    let result = unsafe { real::FCNTL.get()(fd, command, argument) };
    controlled(fd, command, result)
}

/// Hook of `fcntl64`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    controls(fd, command, argument);
    // SAFETY: the caller's arguments, which it vouches for.
    let result = unsafe { real::FCNTL64.get()(fd, command, argument) };
    controlled(fd, command, result)
}

/// Hook of `pidfd_getfd`: what it returns can be a copy of a log's descriptor.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn pidfd_getfd(process: c_int, target: c_int, flags: c_uint) -> c_int {
    // SAFETY: the caller's arguments.
    let fd = unsafe { real::PIDFD_GETFD.get()(process, target, flags) };
    super::found::copied_unseen(fd)
}

/// Hook of `socket`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    // SAFETY: the caller's arguments.
    let fd = unsafe { real::SOCKET.get()(domain, kind, protocol) };
    forget_stale(fd);
    fd
}

/// Hook of `accept`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    super::sockets::accepted(unsafe { real::ACCEPT.get()(fd, address, length) })
}

/// Hook of `accept4`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn accept4(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    super::sockets::accepted(unsafe { real::ACCEPT4.get()(fd, address, length, flags) })
}

/// The two descriptors of a pipe that was made.
///
/// # Safety
/// `fds` points to two numbers if `result` is 0.
pub(super) unsafe fn piped(result: c_int, fds: *const c_int) -> c_int {
    if result == 0 {
        // SAFETY: `result` is 0, so the caller promises two numbers there; an array of two is laid out as they are.
        let [first, second] = unsafe { fds.cast::<[c_int; 2]>().read() };
        forget_stale(first);
        forget_stale(second);
    }
    result
}

/// Hook of `pipe`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn pipe(fds: *mut c_int) -> c_int {
    // SAFETY: the caller's argument; the system has filled it if it reports success.
    unsafe { piped(real::PIPE.get()(fds), fds) }
}

/// Hook of `pipe2`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn pipe2(fds: *mut c_int, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments; the system has filled the array if it reports success.
    unsafe { piped(real::PIPE2.get()(fds, flags), fds) }
}
