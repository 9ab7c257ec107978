//! Which replies depend on nothing that is not durable (`reply.clean`): they answer requests that read keys which
//! the logs do not name behind what is durable.
//!
//! A connection is followed from its `accept` on, if the policy asks then; what is read from it and written to it
//! goes to a [`Dialogue`]. What the agent does not see of either ends that for good. `docs/replies.md` says what is
//! trusted.

use super::{Connection, Put, Replies};
use crate::fault_injection::{Fault, injects};
use crate::log::Slot;
use crate::readable;
use crate::registry::Registry;
use crate::stage::Pieces;
use crate::sync::{Mutex, MutexGuard, PoisonError};
use durac_engine::requests::{Dialogue, Next};
use libc::c_void;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is followed of a connection.
pub struct Followed {
    /// It is.
    is: AtomicBool,
    dialogue: Mutex<Dialogue>,
}

impl Followed {
    /// Of no socket.
    pub fn new() -> Self {
        Self { is: AtomicBool::new(false), dialogue: Mutex::new(Dialogue::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, Dialogue> {
        self.dialogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection serves another socket, and is followed or not.
    pub fn begin(&self, is: bool) {
        *self.lock() = Dialogue::new();
        self.is.store(is, Ordering::Release);
    }

    /// The connection, if it is followed.
    #[inline]
    fn it(&self) -> Option<&Self> {
        self.is.load(Ordering::Acquire).then_some(self)
    }

    /// It is not followed any more.
    fn end(&self) {
        self.is.store(false, Ordering::Release);
    }

    /// What the dialogue does with these bytes, if it can be followed.
    fn tell(&self, pieces: Option<Pieces>, bytes: u64, with: fn(&mut Dialogue, &[u8])) {
        let mut dialogue = self.lock();
        // SAFETY: the kernel has just read or written them there.
        let all = pieces.is_some_and(|pieces| unsafe {
            pieces.each(bytes, |piece| with(&mut dialogue, piece))
        });
        if !all {
            dialogue.lose();
        }
        if dialogue.is_lost() {
            self.end();
        }
    }
}

impl Replies {
    #[inline]
    fn followed(&self, fd: RawFd) -> Option<&'static Followed> {
        self.of(fd)?.followed.it()
    }

    /// A connection was accepted, and is followed.
    pub fn follow(&self, fd: RawFd) {
        if let Some(connection) = self.open(fd) {
            connection.followed.begin(true);
        }
    }

    /// Whether the connection is followed.
    #[inline]
    pub fn follows(&self, fd: RawFd) -> bool {
        self.followed(fd).is_some()
    }

    /// The connection is not followed any more: something was not seen, or cannot be read.
    pub fn lose_sight(&self, fd: RawFd) {
        if let Some(followed) = self.followed(fd) {
            followed.end();
        }
    }

    /// The server has read so many bytes, to here.
    pub fn was_read(&self, fd: RawFd, pieces: Option<Pieces>, bytes: u64) {
        if let Some(followed) = self.followed(fd) {
            followed.tell(pieces, bytes, Dialogue::was_read);
        }
    }

    /// The server has written so many bytes of these, as far as it knows.
    pub fn was_written(&self, fd: RawFd, pieces: Option<Pieces>, bytes: u64) {
        if let Some(followed) = self.followed(fd) {
            followed.tell(pieces, bytes, Dialogue::was_written);
        }
    }

    /// Whether these bytes, which the server is about to write, depend on nothing that is not durable.
    pub fn is_clean(&self, registry: &Registry, connection: &Connection, put: &Put) -> bool {
        if registry.slots().any(Slot::has_failed) {
            return false;
        }
        if injects(Fault::CleanReplies) {
            return true;
        }
        let (Some(followed), Some(pieces)) = (connection.followed.it(), put.pieces) else {
            return false;
        };
        let dialogue = followed.lock();
        let mut next = dialogue.next();
        let mut readable = true;
        let all = pieces.spans(put.len as u64, |data, len| {
            readable = readable && push(&mut next, data, len);
        });
        all && readable
            && dialogue.depends_only_on(next, |key| registry.slots().all(|slot| slot.is_clean(key)))
    }
}

/// Pushes what matters of these bytes; false if it cannot be read. A large string is neither read nor tried: its rest comes again with
/// each write to a slow client.
fn push(next: &mut Next, data: *const c_void, len: usize) -> bool {
    let (mut at, mut left) = (data, len);
    while left > 0 {
        let skipped = usize::try_from(next.unread()).unwrap_or(usize::MAX).min(left);
        next.skip(skipped as u64);
        at = at.wrapping_byte_add(skipped);
        left -= skipped;
        let part = left.min(readable::PAGE - at.addr() % readable::PAGE);
        if !readable::all(at, part) {
            return false;
        }
        if part > 0 {
            // SAFETY: it was found readable right now.
            next.push(unsafe { std::slice::from_raw_parts(at.cast::<u8>(), part) });
        }
        at = at.wrapping_byte_add(part);
        left -= part;
    }
    true
}
