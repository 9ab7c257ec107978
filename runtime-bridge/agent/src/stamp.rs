//! What the kernel says of a log's file, for the rules that do not follow from the calls of this process.

use crate::clock;
use crate::sys;
use durac_engine::Time;
use std::os::fd::RawFd;

/// How long a file is, and when it and what is known of it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub length: i64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// That of an open file.
    pub fn of(fd: RawFd) -> Option<Self> {
        let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
        // SAFETY: any number may be passed, and `stat` has room for the result.
        if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
            return None;
        }
        // SAFETY: the call succeeded and filled it.
        let stat = unsafe { stat.assume_init() };
        Some(Self {
            length: stat.st_size,
            written: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        })
    }

    /// Whether the next write will change the times: they are a tick of the kernel's clock old (10 ms at most), or two
    /// seconds where the file system may keep those only.
    pub fn is_settled(&self) -> bool {
        let last = self.written.max(self.changed);
        let coarse = last.1 % 100_000_000 == 0;
        let now = clock::of(libc::CLOCK_REALTIME);
        let at = (last.0 as Time).wrapping_mul(1_000_000_000).wrapping_add(last.1 as Time);
        now > at.saturating_add(if coarse { 2_000_000_000 } else { 20_000_000 })
    }
}

/// What is known of the file of a log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// When the file was made ([`sys::born`]); with device and inode it names the file. 0 if it is not known.
    pub born: u64,
    /// This process has not opened it: it shares the open file, and what the kernel reports of it, with others.
    pub inherited: bool,
    /// The failures up to this one are older than the log ([`crate::failures::latest`]).
    pub older: u64,
    /// What the file was when a sync began that has made it durable, and when it had ended: of a sync that closed the log.
    pub durable: Option<Stamp>,
    /// It was told that the log has failed.
    pub told: bool,
}

impl Known {
    /// Of a file that becomes a log.
    pub fn of(fd: RawFd, inherited: bool) -> Self {
        let older = if inherited { 0 } else { crate::failures::latest() };
        Self { born: sys::born(fd), inherited, older, durable: None, told: false }
    }
}
