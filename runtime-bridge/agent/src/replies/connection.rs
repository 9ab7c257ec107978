//! One connection with held bytes: the queue, and what is known of the socket.

use super::Outcome;
use super::clean::Followed;
use crate::readable;
use crate::real;
use crate::stage::Pieces;
use crate::sync::{Mutex, MutexGuard, PoisonError};
use durac_engine::{Errno, Ticket, Time};
use libc::{c_int, c_void, socklen_t};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// Memory that an empty queue may keep.
const SPARE: usize = 64 << 10;

/// `SO_COOKIE` (`include/uapi/asm-generic/socket.h`, Linux 4.12): a number that no other socket has or
/// will have.
const SO_COOKIE: c_int = 57;

/// A place for a connection. It lives for ever and serves one socket after the other.
pub struct Connection {
    /// Its number.
    pub number: usize,
    /// Something is held.
    holds: AtomicBool,
    /// What is known of what is said on it.
    pub followed: Followed,
    state: Mutex<State>,
}

impl Connection {
    /// Of no socket.
    pub fn new(number: usize) -> Self {
        Self {
            number,
            holds: AtomicBool::new(false),
            followed: Followed::new(),
            state: Mutex::new(State::default()),
        }
    }

    /// Takes the lock.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing is held, and nothing else is to be said of it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.holds.load(Ordering::Acquire)
    }

    /// Says to those without the lock whether they need it.
    pub fn publish(&self, state: &State) {
        let holds = !state.queue.is_empty() || state.error != 0 || state.shuts;
        self.holds.store(holds, Ordering::Release);
    }
}

/// What the lock of a connection protects.
#[derive(Default)]
pub struct State {
    /// The descriptors of the application.
    pub fds: Vec<RawFd>,
    /// The one that is used to send; the agent's own once it [`State::closes`].
    pub fd: RawFd,
    cookie: u64,
    /// Its writes wait instead of being held: it carries messages, which the queue could not tell apart, or a stream of the C
    /// library writes to it, too, which would overtake what is held.
    pub waits: bool,
    /// What is held.
    pub queue: Queue,
    /// What the next write returns: the socket has said so when the agent sent for it, or what
    /// was held is lost.
    pub error: Errno,
    /// A write has returned it: all others fail as on a broken connection.
    pub told: bool,
    /// The socket took no more when it was last tried.
    pub full: bool,
    /// It is among those that wait for a ticket.
    pub waiting: bool,
    /// The poller has seen this descriptor.
    pub watched: bool,
    /// It is one of a replica or a cluster node.
    pub is_link: bool,
    /// A number that was closed may still be registered with an `epoll`.
    pub strays: bool,
    /// The application has shut it for writing.
    pub shuts: bool,
    /// The application has closed it.
    pub closes: bool,
}

impl State {
    /// It serves this socket.
    pub fn begin(&mut self, fd: RawFd, cookie: u64, waits: bool) {
        let waiting = self.waiting;
        *self = Self { fds: vec![fd], fd, cookie, waits, waiting, ..Self::default() };
    }

    /// It serves none.
    pub fn end(&mut self) {
        let waiting = self.waiting;
        *self = Self { fd: -1, waiting, ..Self::default() };
    }

    /// What a write does to a connection that has failed.
    pub fn fails(&mut self) -> Outcome {
        match std::mem::replace(&mut self.told, true) {
            false => Outcome::Fail(self.error),
            true => Outcome::Broken,
        }
    }

    /// Whether this number is one of the application's for it, and still this socket.
    pub fn is_of(&self, fd: RawFd) -> bool {
        self.fds.contains(&fd) && cookie(fd) == Some(self.cookie)
    }

    /// Whether the descriptor that is used to send still is this socket.
    pub fn is_there(&self) -> bool {
        cookie(self.fd) == Some(self.cookie)
    }

    /// The application gives up this number; returns whether it was the last. The number that is used to send
    /// is one that is left.
    pub fn let_go(&mut self, fd: RawFd) -> bool {
        self.fds.retain(|other| *other != fd);
        match self.fds.first() {
            Some(&left) => {
                if self.fd == fd {
                    (self.fd, self.watched) = (left, false);
                }
                false
            }
            None => true,
        }
    }

    /// Sends at most that number of the first bytes of the queue.
    pub fn send(&self, most: usize) -> Result<usize, Errno> {
        let bytes = self.queue.first(most);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the bytes are the queue's, which the caller has locked.
        let sent = unsafe {
            real::SEND.get()(self.fd, bytes.as_ptr().cast::<c_void>(), bytes.len(), flags)
        };
        match usize::try_from(sent) {
            Ok(sent) => Ok(sent),
            Err(_) => Err(match crate::errno::get() {
                libc::EWOULDBLOCK | libc::ENOBUFS | libc::ENOMEM => libc::EAGAIN,
                errno => errno.max(1),
            }),
        }
    }
}

/// Held bytes, in order.
#[derive(Default)]
pub struct Queue {
    bytes: VecDeque<u8>,
    /// For each part, in order, its ticket and length.
    pub parts: VecDeque<(Ticket, usize)>,
}

impl Queue {
    /// Nothing is held.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes are held.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Copies at most `len` bytes. Returns how many.
    ///
    /// # Safety
    /// [`Pieces::are_readable`] has just said yes.
    pub unsafe fn push(&mut self, pieces: Pieces, len: usize, ticket: Ticket) -> usize {
        let before = self.bytes.len();
        let mut add = |data: *const c_void, piece: usize| {
            let piece = piece.min(len.saturating_sub(self.bytes.len() - before));
            if piece > 0 {
                // SAFETY: not empty, and the kernel has read there a moment ago, so not null. A thread that
                // writes there meanwhile, or takes it away, breaks the application's own call too.
                self.bytes.extend(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), piece) });
            }
        };
        match pieces {
            Pieces::One(data, len) => add(data, len),
            // A thread that changes the array meanwhile gets no more than was promised for it.
            Pieces::Many(pieces, count) => readable::array(pieces, count)
                .into_iter()
                .flatten()
                .for_each(|piece| add(piece.iov_base, piece.iov_len)),
        }
        let added = self.bytes.len() - before;
        match self.parts.back_mut() {
            Some((last, length)) if *last == ticket => *length += added,
            _ if added > 0 => self.parts.push_back((ticket, added)),
            _ => {}
        }
        added
    }

    /// The first bytes, at most so many; at least one if there is one.
    fn first(&self, most: usize) -> &[u8] {
        let (first, second) = self.bytes.as_slices();
        let first = if first.is_empty() { second } else { first };
        first.get(..most).unwrap_or(first)
    }

    /// So many of the first bytes are sent.
    pub fn sent(&mut self, mut bytes: usize) {
        self.bytes.drain(..bytes.min(self.bytes.len()));
        while let Some((_, length)) = self.parts.front_mut()
            && bytes > 0
        {
            let done = bytes.min(*length);
            *length -= done;
            bytes -= done;
            if *length == 0 {
                self.parts.pop_front();
            }
        }
        if self.bytes.is_empty() && self.bytes.capacity() > SPARE {
            self.bytes = VecDeque::new();
        }
    }
}

/// An option of a socket; none if the descriptor is no socket or has no such option.
fn option<T: Copy>(fd: RawFd, name: c_int, mut value: T) -> Option<T> {
    let mut length = size_of::<T>() as socklen_t;
    // SAFETY: `value` has room for `length` bytes.
    let result = unsafe {
        crate::sys::call(
            libc::SYS_getsockopt,
            [
                fd as usize,
                libc::SOL_SOCKET as usize,
                name as usize,
                (&raw mut value).expose_provenance(),
                (&raw mut length).expose_provenance(),
            ],
        )
    };
    (result == 0).then_some(value)
}

/// The number that only this socket has.
fn cookie(fd: RawFd) -> Option<u64> {
    option(fd, SO_COOKIE, 0_u64)
}

/// The same, if it is a socket that can have a connection, and whether that carries messages rather than a stream of
/// bytes.
pub fn socket(fd: RawFd) -> Option<(u64, bool)> {
    let packets = match option(fd, libc::SO_TYPE, 0)? {
        libc::SOCK_STREAM => false,
        libc::SOCK_SEQPACKET => true,
        _ => return None,
    };
    Some((cookie(fd)?, packets))
}

/// For how long its calls wait for a client that does not read (`SO_SNDTIMEO`); none if for ever.
pub fn patience(fd: RawFd) -> Option<Time> {
    let limit = option(fd, libc::SO_SNDTIMEO, libc::timeval { tv_sec: 0, tv_usec: 0 })?;
    let (seconds, micros) = (limit.tv_sec.unsigned_abs(), limit.tv_usec.unsigned_abs());
    let time = seconds.saturating_mul(1_000_000_000).saturating_add(micros.saturating_mul(1000));
    (time > 0).then_some(time)
}

/// For how many seconds its close waits (`SO_LINGER`); none if it does not.
pub fn linger(fd: RawFd) -> Option<c_int> {
    let linger = option(fd, libc::SO_LINGER, libc::linger { l_onoff: 0, l_linger: 0 })?;
    (linger.l_onoff != 0).then_some(linger.l_linger)
}

/// Whether its calls do not block.
pub fn is_nonblocking(fd: RawFd) -> bool {
    // SAFETY: any number may be passed; the command only looks.
    let flags = unsafe { real::FCNTL.get()(fd, libc::F_GETFL, 0) };
    flags >= 0 && flags & libc::O_NONBLOCK != 0
}

/// Waits until it can be written, or for so many milliseconds.
pub fn await_room(fd: RawFd, milliseconds: c_int) {
    let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one descriptor.
    unsafe {
        crate::sys::call(
            libc::SYS_poll,
            [(&raw mut poll).expose_provenance(), 1, milliseconds as usize],
        )
    };
}
