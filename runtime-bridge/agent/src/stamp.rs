//! What the kernel says of a log's file, for the rules that do not follow from the calls of this process.

use crate::clock;
use crate::sys;
use durac_engine::Stamp;
use std::os::fd::RawFd;

/// That of an open file. Its server may be asked: no lock of a log is held.
pub fn stamp(fd: RawFd) -> Option<Stamp> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: any number may be passed, and `stat` has room for the result.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call succeeded and filled it.
    let stat = unsafe { stat.assume_init() };
    Some(Stamp {
        length: stat.st_size,
        written: (stat.st_mtime, stat.st_mtime_nsec),
        changed: (stat.st_ctime, stat.st_ctime_nsec),
    })
}

/// The same, if the next write will change it.
pub fn settled_stamp(fd: RawFd) -> Option<Stamp> {
    // Before the look: a write in between may leave the stamp as it is.
    let now = clock::of(libc::CLOCK_REALTIME);
    stamp(fd).filter(|stamp| stamp.is_settled(now))
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
    /// It was told that the policy is not in force on it.
    pub idle: bool,
}

impl Known {
    /// Of a file that becomes a log.
    pub fn of(fd: RawFd, inherited: bool) -> Self {
        let older = if inherited { 0 } else { crate::failures::latest() };
        Self { born: sys::born(fd), inherited, older, durable: None, told: false, idle: false }
    }
}
