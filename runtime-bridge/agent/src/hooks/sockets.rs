//! Calls on connections that the application has accepted: where replies are held.
//!
//! A connection is known by its entry in the table, so every other descriptor pays what it paid before. While
//! everything written to the logs is durable and nothing is held, the call runs as the application made it.

use super::{forget_stale, passing};
use crate::errno::{self, Kept};
use crate::guard;
use crate::policy::{self, Policy};
use crate::real;
use crate::registry::Registry;
use crate::replies::{self, Outcome, Put};
use crate::stage::Pieces;
use crate::table::{self, Entry};
use crate::{clock, signals};
use durac_engine::{Errno, Time};
use libc::{c_int, c_uint, c_void, msghdr, size_t, sockaddr, socklen_t, ssize_t};
use std::sync::atomic::{AtomicBool, Ordering};

/// How long a call waits for a full socket before it looks again.
const LOOK_AGAIN: Time = 100_000_000;

/// Flags of a call whose bytes can be kept: all others ask for more than to be sent some time.
const PLAIN: c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_MORE;

/// A descriptor came from `accept`.
#[inline]
pub(super) fn accepted(fd: c_int) -> c_int {
    forget_stale(fd);
    // Also after the policy was exchanged for one that holds none: another may come that does.
    let held = || table::registry().is_some_and(|registry| registry.replies.hold());
    match policy::get() {
        Some(policy) if fd >= 0 && (policy.rules.holds_replies || held()) => adopted(policy, fd),
        _ => fd,
    }
}

#[cold]
fn adopted(policy: &Policy, fd: c_int) -> c_int {
    // A child of `vfork` has numbers of its own.
    if !super::is_ours() {
        return fd;
    }
    if !table::fits(fd) {
        return guard::run(|| replies::refuse(fd)).unwrap_or(fd);
    }
    replies::epolls::begin(fd);
    table::set(fd, Entry::Reply);
    if policy.rules.keeps_keys
        && let Some((registry, _)) = holding()
    {
        let kept = Kept::now();
        guard::run(|| registry.replies.follow(fd));
        drop(kept);
    }
    fd
}

/// The registry and the policy of a process that holds replies.
fn holding() -> Option<(&'static Registry, &'static Policy)> {
    let registry = table::registry().filter(|registry| registry.is_ours())?;
    Some((registry, policy::get()?))
}

/// The registry, if this connection is followed.
#[inline]
fn following(fd: c_int) -> Option<&'static Registry> {
    table::registry().filter(|registry| registry.replies.follows(fd))
}

/// Something is read from a connection, or written to it, that is not seen.
#[inline]
pub(super) fn unseen(fd: c_int) {
    if !table::is_other(fd)
        && let Some(registry) = following(fd)
    {
        registry.replies.lose_sight(fd);
    }
}

/// So many bytes were read from here into these pieces; none if it is not known where to.
#[inline]
pub(super) fn received(fd: c_int, pieces: Option<Pieces>, result: ssize_t) -> ssize_t {
    if result > 0
        && !table::is_other(fd)
        && let Some(registry) = following(fd)
    {
        told(registry, fd, || registry.replies.was_read(fd, pieces, result as u64));
    }
    result
}

/// Has this connection's dialogue followed; inside a call of this thread it cannot be.
fn told(registry: &Registry, fd: c_int, body: impl FnOnce()) {
    let kept = Kept::now();
    if guard::run(body).is_none() {
        registry.replies.lose_sight(fd);
    }
    drop(kept);
}

/// A write of these bytes with these flags of `send`.
fn put(pieces: Option<Pieces>, len: usize, flags: c_int) -> Put {
    let has = |flag| flags & flag != 0;
    Put { pieces, len, at_once: has(libc::MSG_DONTWAIT), quiet: has(libc::MSG_NOSIGNAL) }
}

/// A write to a connection, which `real` carries out.
pub(super) fn reply(put: Put, fd: c_int, real: impl FnOnce() -> ssize_t) -> ssize_t {
    let result = held_or_sent(put, fd, real);
    if result > 0
        && let Some(registry) = following(fd)
    {
        told(registry, fd, || registry.replies.was_written(fd, put.pieces, result as u64));
    }
    result
}

fn held_or_sent(put: Put, fd: c_int, real: impl FnOnce() -> ssize_t) -> ssize_t {
    let (Some(registry), Some(policy)) = (table::registry(), policy::get()) else { return real() };
    if replies::frees_links(policy) {
        let kept = Kept::now();
        guard::run(|| registry.replies.recognise(fd, &put));
        drop(kept);
    }
    // A child of `vfork` holds nothing, as one of `fork`: what was held when it was made is sent.
    if replies::are_free(registry) && registry.replies.is_empty(fd) || !registry.is_ours() {
        return real();
    }
    if guard::is_inside() {
        // A signal's handler, inside a call of its thread.
        errno::set(libc::EINTR);
        return -1;
    }
    let mut room = Room::new();
    loop {
        let kept = Kept::now();
        let outcome = guard::run(|| registry.replies.put(registry, policy, fd, put));
        drop(kept);
        match outcome {
            Some(Outcome::Real) => return real(),
            Some(Outcome::Kept(bytes)) => {
                replies::held();
                return bytes as ssize_t;
            }
            Some(Outcome::Fail(errno)) => {
                errno::set(errno);
                return -1;
            }
            Some(Outcome::Broken) => {
                if !put.quiet {
                    raise_pipe();
                }
                errno::set(libc::EPIPE);
                return -1;
            }
            Some(Outcome::Full) => {
                if let Err(errno) = room.wait(fd) {
                    errno::set(errno);
                    return -1;
                }
            }
            // A bug in the agent: what is not known to be durable is not sent.
            None => {
                // SAFETY: the caller's descriptor.
                unsafe { real::SHUTDOWN.get()(fd, libc::SHUT_RDWR) };
                errno::set(libc::EPIPE);
                return -1;
            }
        }
    }
}

/// The thread gets the signal of a connection that is closed, as from the kernel.
#[cold]
fn raise_pipe() {
    // SAFETY: neither call has preconditions.
    let (process, thread) = unsafe { (libc::getpid(), libc::gettid()) };
    // SAFETY: the signal is sent to the calling thread.
    unsafe {
        crate::sys::call(
            libc::SYS_tgkill,
            [process as usize, thread as usize, libc::SIGPIPE as usize],
        )
    };
}

/// A call that waits for room in a full socket. It ends as the kernel's own wait: when the socket's time is over, and
/// after a signal's handler, also one that has run while the call waited for the disk.
struct Room {
    begun: u32,
    ending: u32,
    /// Until when it waits, if not for ever. Not known before it waits.
    limit: Option<Option<Time>>,
}

impl Room {
    /// The call begins.
    fn new() -> Self {
        Self { begun: signals::begun(), ending: signals::ending(), limit: None }
    }

    /// Waits for room, or for a moment.
    fn wait(&mut self, fd: c_int) -> Result<(), Errno> {
        let limit = *self.limit.get_or_insert_with(|| {
            let patience = replies::patience(fd)?;
            Some(clock::now().saturating_add(patience))
        });
        // With a limit, the kernel does not restart the call either.
        let seen = signals::begun() != self.begun;
        if signals::ending() != self.ending || seen && limit.is_some() {
            return Err(libc::EINTR);
        }
        let left =
            limit.map_or(LOOK_AGAIN, |until| until.saturating_sub(clock::now()).min(LOOK_AGAIN));
        if left == 0 {
            return Err(libc::EAGAIN);
        }
        let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
        // SAFETY: one descriptor.
        let found = unsafe { libc::poll(&raw mut poll, 1, left.div_ceil(1_000_000) as c_int) };
        // By a handler that is not seen: who knows how it was installed.
        if found < 0 && signals::begun() == self.begun { Err(libc::EINTR) } else { Ok(()) }
    }
}

/// The flags that calls have which are only submitted.
pub(super) const SUBMITS: c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// Before a call whose bytes cannot be kept: what is written is durable, and what is held is sent. `flags` are those of
/// `send`: with `MSG_DONTWAIT` it does not wait for a client that does not read.
///
/// # Errors
/// What the call has to return: `EPIPE` if what it depends on is lost, which shuts the connection; `EAGAIN` if it does not
/// wait, and something is held.
pub(super) fn let_pass(fd: c_int, flags: c_int) -> Result<(), Errno> {
    unseen(fd);
    if table::get(fd) != Entry::Reply {
        return Ok(());
    }
    let kept = Kept::now();
    // Nobody knows how long it is.
    let result = held_or_sent(put(None, usize::MAX, flags), fd, || 0);
    let errno = errno::get();
    drop(kept);
    if result < 0 { Err(errno) } else { Ok(()) }
}

/// The same before a call that must run, and cannot be given a result. What is lost, or held of a client that
/// does not read, shuts the connection first: the call then fails by itself.
#[cold]
pub(super) fn let_pass_or_cut(fd: c_int, at_once: bool) {
    let flags = if at_once { SUBMITS } else { libc::MSG_NOSIGNAL };
    while let Err(errno) = let_pass(fd, flags) {
        // In a signal's handler inside a call of its thread, it runs as without the agent.
        let Some((registry, _)) = holding().filter(|_| !guard::is_inside()) else { return };
        // Interrupted, while it waited for the client.
        if errno == libc::EINTR {
            continue;
        }
        let kept = Kept::now();
        guard::run(|| registry.replies.empty_or_cut(fd));
        drop(kept);
        // Nobody has waited yet for what the call itself depends on.
        if errno != libc::EAGAIN {
            return;
        }
    }
}

/// A stream of the C library is opened on a connection: what it writes is not seen. What is held comes first, and nothing more is
/// held of what is written to the connection by calls.
#[cold]
pub(super) fn streamed(fd: c_int, writes: bool) {
    unseen(fd);
    if table::get(fd) != Entry::Reply || !writes {
        return;
    }
    let_pass_or_cut(fd, false);
    if let Some((registry, _)) = holding() {
        let kept = Kept::now();
        guard::run(|| registry.replies.streams(fd));
        drop(kept);
    }
    if !TOLD_OF_STREAM.swap(true, Ordering::Relaxed) {
        guard::run(|| {
            crate::note::error("a stream is opened on a connection: its replies are not held");
        });
    }
}

static TOLD_OF_STREAM: AtomicBool = AtomicBool::new(false);

/// Before a connection is closed.
#[cold]
pub(super) fn closing(fd: c_int) {
    let Some((registry, _)) = holding() else {
        // Before the first log, or in a child that shares the memory.
        if table::registry().is_none() {
            table::forget(fd, Entry::Reply);
        }
        return;
    };
    let kept = Kept::now();
    guard::run(|| registry.replies.closing(registry, fd));
    drop(kept);
}

/// `new` is a copy of a connection's descriptor.
pub(super) fn copied(old: c_int, new: c_int) {
    if !table::fits(new) {
        return;
    }
    replies::epolls::begin(new);
    table::set(new, Entry::Reply);
    if let Some((registry, _)) = holding() {
        guard::run(|| registry.replies.duplicated(old, new));
    }
}

/// The hook of a call that sends bytes with flags.
#[inline]
fn send_to(
    fd: c_int,
    pieces: Pieces,
    len: usize,
    flags: c_int,
    plain: bool,
    real: impl FnOnce() -> ssize_t,
) -> ssize_t {
    if table::is_other(fd) || table::get(fd) != Entry::Reply {
        return real();
    }
    let pieces = (plain && flags & !PLAIN == 0).then_some(pieces);
    reply(put(pieces, len, flags), fd, real)
}

/// Hook of `send`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn send(fd: c_int, data: *const c_void, n: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's arguments, which it vouches for.
    let real = || unsafe { real::SEND.get()(fd, data, n, flags) };
    send_to(fd, Pieces::One(data, n), n, flags, true, real)
}

/// Flags of a call that takes what it reads, and nothing else.
const TAKES: c_int = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

macro_rules! receives {
    ($($name:ident / $real:ident(
        $fd:ident: c_int, $data:ident: *mut c_void, $n:ident: size_t, $flags:ident: c_int
        $(, $arg:ident: $ty:ty)*
    );)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name(
                $fd: c_int, $data: *mut c_void, $n: size_t, $flags: c_int $(, $arg: $ty)*
            ) -> ssize_t {
                // SAFETY: the caller's arguments, which it vouches for.
                let result = unsafe { real::$real.get()($fd, $data, $n, $flags $(, $arg)*) };
                let pieces = ($flags & !TAKES == 0).then_some(Pieces::One($data, $n));
                received($fd, pieces, result)
            }
        )*
    };
}

receives! {
    recv / RECV(fd: c_int, data: *mut c_void, n: size_t, flags: c_int);
    recvfrom / RECVFROM(
        fd: c_int, data: *mut c_void, n: size_t, flags: c_int,
        from: *mut sockaddr, length: *mut socklen_t
    );
}

/// Hook of `__recv_chk`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn __recv_chk(
    fd: c_int,
    data: *mut c_void,
    n: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    unseen(fd);
    // SAFETY: the caller's arguments, which it vouches for.
    unsafe { real::RECV_CHK.get()(fd, data, n, room, flags) }
}

/// Hook of `__recvfrom_chk`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn __recvfrom_chk(
    fd: c_int,
    data: *mut c_void,
    n: size_t,
    room: size_t,
    flags: c_int,
    from: *mut sockaddr,
    length: *mut socklen_t,
) -> ssize_t {
    unseen(fd);
    // SAFETY: the caller's arguments, which it vouches for.
    unsafe { real::RECVFROM_CHK.get()(fd, data, n, room, flags, from, length) }
}

/// Hook of `recvmsg`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    unseen(fd);
    // SAFETY: the caller's arguments, which it vouches for.
    unsafe { real::RECVMSG.get()(fd, message, flags) }
}

/// Hook of `recvmmsg`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn recvmmsg(
    fd: c_int,
    messages: *mut c_void,
    n: c_uint,
    flags: c_int,
    timeout: *mut libc::timespec,
) -> c_int {
    unseen(fd);
    // SAFETY: the caller's arguments, which it vouches for.
    unsafe { real::RECVMMSG.get()(fd, messages, n, flags, timeout) }
}

/// Hook of `sendto`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn sendto(
    fd: c_int,
    data: *const c_void,
    n: size_t,
    flags: c_int,
    to: *const sockaddr,
    length: socklen_t,
) -> ssize_t {
    // SAFETY: the caller's arguments, which it vouches for.
    let real = || unsafe { real::SENDTO.get()(fd, data, n, flags, to, length) };
    send_to(fd, Pieces::One(data, n), n, flags, true, real)
}

/// The bytes of a message, and whether it has nothing else.
///
/// # Safety
/// `message` is null or points to a message, as for `sendmsg`.
unsafe fn parts(message: *const msghdr) -> (Option<Pieces>, usize) {
    let readable = crate::readable::all(message.cast(), size_of::<msghdr>());
    // SAFETY: the caller's promise; it can be read.
    let Some(header) = (unsafe { message.as_ref() }).filter(|_| readable) else { return (None, 0) };
    let pieces = passing::pieces(header);
    let len = pieces
        .and_then(|(pieces, count)| crate::readable::array(pieces, count))
        .map_or(0, |all| all.fold(0_usize, |sum, piece| sum.saturating_add(piece.iov_len)));
    let plain = header.msg_controllen == 0;
    (pieces.filter(|_| plain).map(|(pieces, count)| Pieces::Many(pieces, count)), len)
}

/// Hook of `sendmsg`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    if table::registry().is_some() {
        // SAFETY: the caller's argument.
        unsafe { passing::passes(message) };
    }
    // SAFETY: the caller's arguments, which it vouches for.
    let real = || unsafe { real::SENDMSG.get()(fd, message, flags) };
    if table::is_other(fd) || table::get(fd) != Entry::Reply {
        return real();
    }
    // SAFETY: the caller's argument.
    let (pieces, len) = unsafe { parts(message) };
    let pieces = pieces.filter(|_| flags & !PLAIN == 0);
    reply(put(pieces, len, flags), fd, real)
}

/// Hook of `sendmmsg`. Of a connection whose replies are held it sends the first message only, which the
/// call may.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn sendmmsg(fd: c_int, messages: *mut c_void, n: c_uint, flags: c_int) -> c_int {
    let first = messages.cast::<libc::mmsghdr>();
    if table::registry().is_some() && !messages.is_null() {
        for index in 0..n as usize {
            // SAFETY: the caller promises an array of `n` messages.
            unsafe { passing::passes(&raw const (*first.add(index)).msg_hdr) };
        }
    }
    if table::is_other(fd) || table::get(fd) != Entry::Reply || n == 0 || messages.is_null() {
        // SAFETY: the caller's arguments, which it vouches for.
        return unsafe { real::SENDMMSG.get()(fd, messages, n, flags) };
    }
    // SAFETY: the first of the caller's messages.
    let sent = unsafe { sendmsg(fd, &raw const (*first).msg_hdr, flags) };
    if sent < 0 {
        return -1;
    }
    // SAFETY: as above.
    unsafe { (*first).msg_len = sent as c_uint };
    1
}

/// Hook of `connect`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    let real = || unsafe { real::CONNECT.get()(fd, address, length) };
    if table::is_other(fd) { real() } else { reconnects(fd, address, length, real) }
}

/// A call of `connect` on a connection: to an address of no family (`AF_UNSPEC`) it ends the connection, and the number can be given
/// another. What is held is sent first.
#[cold]
pub(super) fn reconnects(
    fd: c_int,
    address: *const sockaddr,
    length: socklen_t,
    real: impl FnOnce() -> c_int,
) -> c_int {
    let size = size_of::<libc::sa_family_t>();
    if table::get(fd) != Entry::Reply
        || (length as usize) < size
        || !crate::readable::all(address.cast(), size)
    {
        return real();
    }
    // SAFETY: it can be read, and any bytes are a number; nothing says that it is aligned.
    let family = unsafe { address.cast::<libc::sa_family_t>().read_unaligned() };
    if c_int::from(family) != libc::AF_UNSPEC {
        return real();
    }
    if holding().is_some_and(|(registry, _)| !registry.replies.is_empty(fd)) {
        let_pass_or_cut(fd, true);
    }
    let result = real();
    if result == 0 {
        super::forget_stale(fd);
    }
    result
}

/// Hook of `shutdown`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn shutdown(fd: c_int, how: c_int) -> c_int {
    // SAFETY: the caller's arguments, or a part of what it asks for.
    shut(fd, how, |how| unsafe { real::SHUTDOWN.get()(fd, how) })
}

/// Shuts a connection, by `real`. What is held is sent first.
pub(super) fn shut(fd: c_int, how: c_int, real: impl FnOnce(c_int) -> c_int) -> c_int {
    match how {
        libc::SHUT_WR | libc::SHUT_RDWR if !table::is_other(fd) && shuts(fd) => match how {
            libc::SHUT_RDWR => real(libc::SHUT_RD),
            _ => 0,
        },
        _ => real(how),
    }
}

#[cold]
fn shuts(fd: c_int) -> bool {
    if table::get(fd) != Entry::Reply {
        return false;
    }
    let Some((registry, _)) = holding() else { return false };
    let kept = Kept::now();
    let shuts = guard::run(|| registry.replies.shuts(fd));
    drop(kept);
    shuts.unwrap_or(false)
}
