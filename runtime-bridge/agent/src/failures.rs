//! The logs that a failed sync has stopped, kept where the children of this process see them.
//!
//! The kernel reports a failed write-back once for each open file, and a child has the same open files. The agent's
//! sync has got that report, so no sync call of the child would. The child has no logs; it looks here. The memory is
//! shared: a sync that fails after the fork counts, too.
//!
//! Nothing here takes a lock or allocates but [`begin`].

use crate::registry::FileId;
use durac_abi::MAX_LOGS;
use durac_engine::Errno;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// A place that a thread is about to fill.
const CLAIMED: i32 = -1;

/// A log that has failed. All zero is none.
struct Failure {
    device: AtomicU64,
    inode: AtomicU64,
    /// The process whose log it is.
    owner: AtomicI32,
    /// Its error, or 0.
    errno: AtomicI32,
}

struct Shared {
    /// How many there are.
    count: AtomicU32,
    failures: [Failure; MAX_LOGS as usize],
}

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(null_mut());

/// A log is opened: from now on its failure is remembered, and that of an older log of this file is forgotten.
pub fn begin(file: FileId) {
    match shared() {
        Some(shared) => shared.clear(file),
        None => make(),
    }
}

#[cold]
fn make() {
    // SAFETY: a new mapping; the kernel chooses the address.
    let memory = unsafe {
        libc::mmap(
            null_mut(),
            size_of::<Shared>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    // Without memory the children do not learn of it.
    if memory != libc::MAP_FAILED
        && SHARED
            .compare_exchange(null_mut(), memory.cast(), Ordering::AcqRel, Ordering::Acquire)
            .is_err()
    {
        // SAFETY: the mapping made above, which nobody else has seen.
        unsafe { libc::munmap(memory, size_of::<Shared>()) };
    }
}

#[inline]
fn shared() -> Option<&'static Shared> {
    // SAFETY: null, or a mapping that is never taken away, whose bytes are a valid value from the beginning.
    unsafe { SHARED.load(Ordering::Acquire).as_ref() }
}

/// Whether there is one.
#[inline]
pub fn any() -> bool {
    shared().is_some_and(|shared| shared.count.load(Ordering::Acquire) > 0)
}

/// The log of this file has failed.
pub fn add(file: FileId, errno: Errno) {
    if let Some(shared) = shared() {
        shared.add(file, errno);
    }
}

/// A log that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its file.
    pub file: FileId,
    /// Its error.
    pub errno: Errno,
    /// The process whose log it is.
    pub owner: libc::pid_t,
}

/// Those that there are.
pub fn all() -> impl Iterator<Item = Failed> {
    shared().into_iter().flat_map(Shared::known).filter_map(|failure| {
        let (file, owner) = (failure.file(), failure.owner.load(Ordering::Relaxed));
        let errno = failure.errno.load(Ordering::Acquire);
        (errno > 0).then_some(Failed { file, errno, owner })
    })
}

impl Failure {
    fn file(&self) -> FileId {
        (self.device.load(Ordering::Relaxed), self.inode.load(Ordering::Relaxed))
    }
}

impl Shared {
    /// The places that are filled.
    fn known(&self) -> impl Iterator<Item = &Failure> {
        let count = self.count.load(Ordering::Acquire);
        let places = if count == 0 { &[] } else { &self.failures[..] };
        places.iter().filter(|failure| failure.errno.load(Ordering::Acquire) > 0)
    }

    fn add(&self, file: FileId, errno: Errno) {
        let owner = std::process::id() as libc::pid_t;
        if let Some(known) = self.known().find(|failure| failure.file() == file) {
            known.owner.store(owner, Ordering::Relaxed);
            known.errno.store(errno, Ordering::Release);
            return;
        }
        let claim = |failure: &&Failure| {
            let free = &failure.errno;
            free.compare_exchange(0, CLAIMED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        // Of more than there is room for, the children do not learn.
        let Some(place) = self.failures.iter().find(claim) else { return };
        place.device.store(file.0, Ordering::Relaxed);
        place.inode.store(file.1, Ordering::Relaxed);
        place.owner.store(owner, Ordering::Relaxed);
        place.errno.store(errno, Ordering::Release);
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    fn clear(&self, file: FileId) {
        for known in self.known().filter(|failure| failure.file() == file) {
            if known.errno.swap(0, Ordering::AcqRel) != 0 {
                self.count.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Failed, add, all, any, begin};

    #[test]
    fn failures_are_known_until_the_file_is_a_log_again() {
        begin((1, 2));
        assert!(!any() && all().next().is_none());
        add((1, 2), libc::EIO);
        add((1, 3), libc::ENOSPC);
        add((1, 2), libc::EDQUOT);
        let owner = std::process::id() as i32;
        let [first, second] = [((1, 2), libc::EDQUOT), ((1, 3), libc::ENOSPC)]
            .map(|(file, errno)| Failed { file, errno, owner });
        assert_eq!(all().collect::<Vec<_>>(), [first, second]);
        begin((1, 2));
        assert_eq!(all().collect::<Vec<_>>(), [second]);
        begin((1, 3));
        assert!(!any());
    }
}
