//! The syncer's second engine: a batch is written and synced by one system call, the sync linked behind
//! the write.
//!
//! A ring belongs to one syncer thread. Nothing else ever touches it: no thread of the application, no
//! forked child.

use crate::completion::again;
use crate::stage::write_all;
use crate::table::{self, Entry};
use durac_engine::{Errno, Tries};
use io_uring::{IoUring, opcode, squeue, types};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// Entries: a write and a sync.
const ENTRIES: u32 = 2;
/// What the two completions are told apart by.
const WRITE: u64 = 1;
const SYNC: u64 = 2;
/// The position of the descriptor, for a request that names an offset.
const HERE: u64 = u64::MAX;

/// A ring.
pub struct Ring {
    ring: IoUring,
    /// A request could not be made, or was lost sight of: the ring is not used again.
    broken: bool,
}

/// How a batch ended.
pub struct Batch {
    /// How many bytes are in the file.
    pub done: usize,
    /// Whether all of it is in the file.
    pub written: Result<(), Errno>,
    /// What the sync said; none if none was made.
    pub synced: Option<Result<(), Errno>>,
    /// The system may still read the bytes: they must never be freed.
    pub lost: bool,
}

impl Batch {
    /// A batch of which the sync was not made.
    pub fn unsynced((done, written): (usize, Result<(), Errno>)) -> Self {
        Self { done, written, synced: None, lost: false }
    }
}

impl Ring {
    /// A ring.
    ///
    /// # Errors
    /// What the system said: it may have no rings, or not allow them here.
    pub fn new() -> io::Result<Self> {
        let ring = IoUring::new(ENTRIES)?;
        if !ring.params().is_feature_rw_cur_pos() {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        // The application must not close it.
        table::set(ring.as_raw_fd(), Entry::Own);
        Ok(Self { ring, broken: false })
    }

    /// Writes the bytes at the position of the descriptor, and syncs; `full` is `fsync`. A write that was
    /// cut short goes on.
    pub fn write_and_sync(&mut self, fd: RawFd, bytes: &[u8], full: bool) -> Batch {
        let mut done = 0;
        let mut tries = Tries::default();
        loop {
            let rest = bytes.get(done..).unwrap_or_default();
            let (wrote, synced) = match self.submit(fd, rest, full) {
                Ok(results) => results,
                // Nothing was submitted: without the ring, then.
                Err(Lost::Nothing) => {
                    let (more, written) = write_all(fd, rest);
                    return Batch::unsynced((done + more, written));
                }
                Err(Lost::Sight) => {
                    return Batch { lost: true, ..Batch::unsynced((bytes.len(), Err(libc::EIO))) };
                }
            };
            match usize::try_from(wrote) {
                Ok(wrote) if wrote >= rest.len() => {
                    let synced = if synced < 0 { Err(-synced) } else { Ok(()) };
                    return Batch {
                        synced: Some(synced),
                        ..Batch::unsynced((bytes.len(), Ok(())))
                    };
                }
                Ok(0) => return Batch::unsynced((done, Err(libc::EIO))),
                // The link is cut by a short write: the sync was cancelled.
                Ok(wrote) => {
                    done += wrote;
                    tries.reset();
                }
                Err(_) if again(&mut tries, -wrote) => {}
                Err(_) => return Batch::unsynced((done, Err(-wrote))),
            }
        }
    }

    /// Submits a write with a sync behind it, and waits for both.
    fn submit(&mut self, fd: RawFd, bytes: &[u8], full: bool) -> Result<(i32, i32), Lost> {
        if self.broken {
            return Err(Lost::Nothing);
        }
        // More than one call writes at once anyway.
        let len = u32::try_from(bytes.len()).unwrap_or(1 << 30);
        let write = opcode::Write::new(types::Fd(fd), bytes.as_ptr(), len).offset(HERE).build();
        let write = write.flags(squeue::Flags::IO_LINK).user_data(WRITE);
        let flags = if full { types::FsyncFlags::empty() } else { types::FsyncFlags::DATASYNC };
        let sync = opcode::Fsync::new(types::Fd(fd)).flags(flags).build().user_data(SYNC);
        // SAFETY: the bytes live until both completions are here: this function does not return before,
        // and if it loses sight of them, they are never freed (`Lost::Sight`).
        if unsafe { self.ring.submission().push_multiple(&[write, sync]) }.is_err() {
            self.broken = true;
            return Err(Lost::Nothing);
        }
        let mut submitted = false;
        let (mut wrote, mut synced) = (None, None);
        while wrote.is_none() || synced.is_none() {
            match self.ring.submit_and_wait(1) {
                Ok(_) => submitted = true,
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(_) => {
                    // Before anything was taken it is known that nothing will be written.
                    self.broken = true;
                    let untouched = !submitted && self.ring.submission().len() == 2;
                    return Err(if untouched { Lost::Nothing } else { Lost::Sight });
                }
            }
            for entry in self.ring.completion() {
                match entry.user_data() {
                    WRITE => wrote = Some(entry.result()),
                    _ => synced = Some(entry.result()),
                }
            }
        }
        Ok((wrote.unwrap_or(-libc::EIO), synced.unwrap_or(-libc::EIO)))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        table::set(self.ring.as_raw_fd(), Entry::Other);
    }
}

/// Why nothing is known of two requests.
enum Lost {
    /// They were never made.
    Nothing,
    /// They may be under way.
    Sight,
}
