//! What the keeper has to know when the supervisor is dead: memory that both map, of atomic numbers only.

use durac_abi::MAX_LOGS;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// Threads that answer calls.
pub const MAX_THREADS: usize = 256;

/// All zero when it is new.
#[repr(C)]
pub struct Shared {
    /// Number of the newest call that was received.
    newest: AtomicU64,
    /// Not 0: the command has ended, and the supervisor has synced what was deferred, or told that it could not.
    ended: AtomicU64,
    /// The call that each thread has in hand; 0 is none.
    calls: [AtomicU64; MAX_THREADS],
    /// The descriptor of each log of which something is deferred, plus one; 0 is none. The keeper has the same
    /// table of descriptors.
    deferred: [AtomicI32; MAX_LOGS as usize],
}

impl Shared {
    /// New memory, which stays mapped in both processes.
    pub fn map() -> io::Result<&'static Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping; the kernel chooses the address.
        let memory =
            unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Self>(), access, flags, -1, 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: page-aligned, of that size, never taken away, and zeros are atomic numbers.
        Ok(unsafe { &*memory.cast::<Self>() })
    }

    /// This was the newest call of the program before.
    pub fn begin_after(&self, id: u64) {
        self.newest.store(id, Ordering::Release);
    }

    /// The command has ended, and nothing is left to do.
    pub fn ends(&self) {
        self.ended.store(1, Ordering::Release);
    }

    /// Whether the command had ended before the supervisor did.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire) != 0
    }

    /// A thread has received a call. Only one thread receives at a time.
    pub fn received(&self, thread: usize, id: u64) {
        if let Some(place) = self.calls.get(thread) {
            place.store(id, Ordering::Relaxed);
        }
        self.newest.store(id, Ordering::Release);
    }

    /// It has answered it.
    pub fn answered(&self, thread: usize) {
        if let Some(place) = self.calls.get(thread) {
            place.store(0, Ordering::Release);
        }
    }

    /// Number of the newest call that was received.
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// The calls that were not answered, as far as they are noted.
    pub fn calls(&self) -> impl Iterator<Item = u64> + '_ {
        self.calls.iter().map(|place| place.load(Ordering::Acquire)).filter(|id| *id != 0)
    }

    /// Something is deferred on the log at `index`, or nothing any more.
    pub fn defers(&self, index: usize, fd: Option<RawFd>) {
        if let Some(place) = self.deferred.get(index) {
            place.store(fd.map_or(0, |fd| fd + 1), Ordering::Release);
        }
    }

    /// Descriptors of the logs of which something is deferred.
    pub fn deferred(&self) -> impl Iterator<Item = RawFd> + '_ {
        let fds = self.deferred.iter().map(|place| place.load(Ordering::Acquire));
        fds.filter(|fd| *fd > 0).map(|fd| fd - 1)
    }
}
