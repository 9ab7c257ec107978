//! Staged writes of a log: bytes that the application believes written and that only this process
//! has.
//!
//! They are kept in order, and one thread at a time writes them, to the end: whoever needs them in the
//! file (a sync, a call that could see the file, a fork, an exit) takes all there are, or waits for
//! who has taken them. An error stops the log, and what is left is thrown away: never is something
//! written behind a hole.

use crate::completion::again;
use crate::errno;
use crate::fault_injection::{self, Fault};
use crate::readable;
use crate::real;
use durac_abi::STAGE_ROOM;
use durac_engine::{Errno, Tries};
pub use durac_shm::status::StageOff;
use libc::{c_void, iovec};
use std::os::fd::RawFd;

/// The bytes of a write, in the application's memory.
#[derive(Clone, Copy)]
pub enum Pieces {
    /// At one place.
    One(*const c_void, usize),
    /// In several pieces.
    Many(*const iovec, usize),
}

impl Pieces {
    /// Whether all of them can be read. If not, the call is the kernel's: it writes what comes before the
    /// first that cannot, or says `EFAULT`.
    pub fn are_readable(self) -> bool {
        match self {
            Self::One(data, len) => readable::all(data, len),
            Self::Many(pieces, count) => readable::array(pieces, count)
                .is_some_and(|mut all| all.all(|p| readable::all(p.iov_base, p.iov_len))),
        }
    }

    /// Calls `with` for each piece of the first `bytes` of them, in order. False if there are fewer: a thread has changed
    /// the array meanwhile.
    ///
    /// # Safety
    /// They can be read, as long as nobody takes the memory away: who does that breaks the application's own
    /// call, too.
    pub unsafe fn each(self, bytes: u64, mut with: impl FnMut(&[u8])) -> bool {
        self.spans(bytes, |data, len| {
            // SAFETY: not empty, so not null; the caller's promise.
            with(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) });
        })
    }

    /// The same with the place and the length of each, which is not empty. Nothing is read there.
    pub fn spans(self, bytes: u64, mut with: impl FnMut(*const c_void, usize)) -> bool {
        let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut take = |data: *const c_void, len: usize| {
            let len = len.min(left);
            left -= len;
            if len > 0 {
                with(data, len);
            }
        };
        match self {
            Self::One(data, len) => take(data, len),
            Self::Many(pieces, count) => match readable::array(pieces, count) {
                Some(all) => all.for_each(|piece| take(piece.iov_base, piece.iov_len)),
                None => return false,
            },
        }
        left == 0 || bytes == u64::MAX
    }
}

/// What is staged of a log.
#[derive(Default)]
pub struct Stage {
    /// Copied, and nobody has taken it yet.
    bytes: Vec<u8>,
    /// Bytes that a thread has taken and is writing.
    writing: usize,
    /// Memory for the next, so that not every batch allocates.
    spare: Vec<u8>,
    /// Why nothing is staged.
    off: Option<StageOff>,
}

impl Stage {
    /// Nothing is kept, and none is being written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.writing == 0
    }

    /// Bytes that are acknowledged and not in the file.
    pub fn held(&self) -> u64 {
        (self.bytes.len() + self.writing) as u64
    }

    /// Whether a thread is writing.
    pub fn is_writing(&self) -> bool {
        self.writing > 0
    }

    /// Whether a write of `len` bytes can be kept.
    pub fn has_room(&self, len: u64) -> bool {
        self.off.is_none() && len > 0 && self.held().saturating_add(len) <= STAGE_ROOM
    }

    /// From now on nothing is kept. Returns whether that is new.
    pub fn turn_off(&mut self, why: StageOff) -> bool {
        self.off.replace(why).is_none()
    }

    /// Why nothing is kept.
    pub fn off(&self) -> Option<StageOff> {
        self.off
    }

    /// Gets the memory for all that can be staged: later there may be none, or a handler may have
    /// interrupted the allocator.
    pub fn reserve(&mut self) {
        let room = STAGE_ROOM as usize;
        for bytes in [&mut self.bytes, &mut self.spare] {
            if bytes.try_reserve_exact(room).is_err() {
                self.off = Some(StageOff::Memory);
            }
        }
    }

    /// Keeps the bytes of a write, at most `len`. Returns how many.
    ///
    /// # Safety
    /// [`Pieces::are_readable`] has just said yes.
    pub unsafe fn copy(&mut self, pieces: Pieces, len: u64) -> u64 {
        if fault_injection::injects(Fault::NoCopy) {
            return len;
        }
        let before = self.bytes.len();
        let room = usize::try_from(len).unwrap_or(usize::MAX);
        let mut add = |data: *const c_void, len: usize| {
            let len = len.min(room.saturating_sub(self.bytes.len() - before));
            if len > 0 {
                // SAFETY: not empty, and the kernel has read there a moment ago, so not null. A thread that
                // writes there meanwhile, or takes it away, breaks the application's own call too.
                let piece = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) };
                self.bytes.extend_from_slice(piece);
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
        (self.bytes.len() - before) as u64
    }

    /// Takes everything, to write it; none if nothing is there. Nobody may be writing.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        if self.bytes.is_empty() {
            return None;
        }
        self.writing = self.bytes.len();
        Some(std::mem::replace(&mut self.bytes, std::mem::take(&mut self.spare)))
    }

    /// Of what was taken, `done` bytes are in the file. The others are kept, before those that were
    /// staged meanwhile.
    pub fn give_back(&mut self, mut taken: Vec<u8>, done: usize) {
        self.writing = 0;
        if done < taken.len() {
            taken.drain(..done);
            taken.extend_from_slice(&self.bytes);
            std::mem::swap(&mut self.bytes, &mut taken);
        }
        taken.clear();
        self.spare = taken;
    }

    /// The log has failed: what is kept will never be written.
    pub fn discard(&mut self) {
        self.bytes.clear();
    }

    /// The place serves another file.
    pub fn reset(&mut self) {
        self.bytes.clear();
        self.writing = 0;
        self.off = None;
    }
}

/// Whether files of this process may not grow for ever: then each write says itself whether it fits.
pub fn has_size_limit() -> bool {
    limit_is_below(libc::RLIM_INFINITY)
}

/// Whether it is below this size, bytes.
pub fn limit_is_below(size: u64) -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for the result.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    result != 0 || limit.rlim_cur < size
}

/// Writes all of it at the position of the descriptor. Returns how many bytes were written.
pub fn write_all(fd: RawFd, bytes: &[u8]) -> (usize, Result<(), Errno>) {
    let mut tries = Tries::default();
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        // SAFETY: the pointer and length are the slice's.
        let written = unsafe { real::WRITE.get()(fd, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written) {
            // A regular file never takes nothing.
            Ok(0) => return (done, Err(libc::EIO)),
            Ok(written) => {
                done += written;
                tries.reset();
            }
            Err(_) => {
                let errno = errno::get().max(1);
                if !again(&mut tries, errno) {
                    return (done, Err(errno));
                }
            }
        }
    }
    (done, Ok(()))
}
