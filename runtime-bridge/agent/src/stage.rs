//! Staged writes of a log: bytes that the application believes written and that only this process
//! has.
//!
//! They are kept in order, and one thread at a time writes them, to the end: whoever needs them in the
//! file (a sync, a call that could see the file, a fork, an exit) takes all there are, or waits for
//! who has taken them. An error stops the log, and what is left is thrown away: never is something
//! written behind a hole.

use crate::errno;
use crate::readable;
use crate::real;
use crate::wrong::{self, Mistake};
use durac_bpf::abi::STAGE_ROOM;
use durac_engine::Errno;
use libc::{c_void, iovec};
use std::os::fd::RawFd;

/// How often a write is tried again that would block, a millisecond apart.
pub const TRIES: u32 = 2000;

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
    /// Nothing can be staged: the file is not only written at the place where our descriptor stands,
    /// or its pages are mapped.
    off: bool,
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
        !self.off && len > 0 && self.held().saturating_add(len) <= STAGE_ROOM
    }

    /// From now on nothing is kept.
    pub fn turn_off(&mut self) {
        self.off = true;
    }

    /// Keeps the bytes of a write, at most `len`. Answers how many.
    ///
    /// # Safety
    /// [`Pieces::are_readable`] has just said yes.
    pub unsafe fn copy(&mut self, pieces: Pieces, len: u64) -> u64 {
        if wrong::makes(Mistake::Copy) {
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

    /// What was taken is in the file, or never will be.
    pub fn give_back(&mut self, mut taken: Vec<u8>) {
        self.writing = 0;
        taken.clear();
        self.spare = taken;
    }

    /// The log has failed: what is kept will never be written.
    pub fn discard(&mut self) {
        self.bytes.clear();
    }

    /// The place serves another file.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Writes all of it where the descriptor stands.
pub fn write_all(fd: RawFd, mut bytes: &[u8]) -> Result<(), Errno> {
    let mut tries = 0;
    while !bytes.is_empty() {
        // SAFETY: the pointer and length are the slice's.
        let written = unsafe { real::WRITE.get()(fd, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written) {
            // A regular file never takes nothing.
            Ok(0) => return Err(libc::EIO),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                tries = 0;
            }
            Err(_) => match errno::get() {
                libc::EINTR => {}
                libc::EAGAIN if tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                errno => return Err(errno.max(1)),
            },
        }
    }
    Ok(())
}
