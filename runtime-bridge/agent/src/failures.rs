//! The logs that a failed sync has stopped, kept where the processes forked from this one see them, and those see it.
//!
//! The kernel reports a failed write-back once for each open file, and a child has the same open files. What the agent's
//! sync in one process has got no sync call of the others gets. A child has no logs, or has taken over its parent's; it
//! looks here. The memory is shared: a sync that fails after the fork counts, too.
//!
//! A failure is never removed: a process that was forked before can have the open file for as long as it likes. A process
//! that has closed its log of the file forgets it, whoever's log had failed, and so do the children that it makes then: what
//! they open is another open file. It is kept where the process may have the open file otherwise: it has inherited that, and
//! not taken it over.
//!
//! What a process has opened itself only its children share. So a failure that is not of an inherited open file concerns
//! the process whose log it is, and those that were forked from it: [`LINE`].
//!
//! Nothing here takes a lock or allocates but [`begin`].

use crate::log::Core;
use crate::owned;
use crate::registry::FileId;
use crate::stamp::Known;
use durac_abi::MAX_LOGS;
use durac_engine::Errno;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};

/// A place that a thread is about to fill.
const CLAIMED: i32 = -1;
const PLACES: usize = MAX_LOGS as usize;

/// A log that has failed. All zero is none.
struct Failure {
    device: AtomicU64,
    inode: AtomicU64,
    /// When the file was made, or 0.
    born: AtomicU64,
    /// Its number among all failures.
    serial: AtomicU64,
    /// The process whose log it is.
    owner: AtomicI32,
    /// That process shares the open file with the one that has opened it.
    inherited: AtomicBool,
    /// Its error, or 0.
    errno: AtomicI32,
}

struct Shared {
    /// How many there ever were.
    serial: AtomicU64,
    failures: [Failure; PLACES],
}

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(null_mut());

/// By place: the number of the failure that this process has forgotten. A child has what its parent had forgotten.
static FORGOTTEN: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];

/// The processes in the line of descent that have opened logs, this one among them.
static LINE: [AtomicI32; GENERATIONS] = [const { AtomicI32::new(0) }; GENERATIONS];
/// Of a longer line nothing is known.
const GENERATIONS: usize = 16;

/// Enters this process into its line.
fn descend() {
    let pid = process();
    for place in &LINE {
        let entered = place.compare_exchange(0, pid, Ordering::AcqRel, Ordering::Acquire);
        if entered.is_ok() || entered == Err(pid) {
            return;
        }
    }
}

/// Whether what this process has opened may have come to the calling one by a fork.
fn is_in_line(process: libc::pid_t) -> bool {
    let is_full = LINE.last().is_some_and(|place| place.load(Ordering::Acquire) != 0);
    is_full || LINE.iter().any(|place| place.load(Ordering::Acquire) == process)
}

/// A log is opened: from now on its failure is remembered, and that of an older log of this file is forgotten.
pub fn begin(file: FileId) {
    descend();
    match shared() {
        Some(_) => forget(file),
        None => make(),
    }
}

/// The log of this file is closed. The processes that were forked before keep its failure, and that of another process is
/// kept if the open file may be there yet.
pub fn forget(file: FileId) {
    let pid = process();
    let shares = owned::has_inherited(file);
    for (failure, forgotten) in shared().into_iter().flat_map(Shared::filled) {
        let concerns = !shares || failure.owner.load(Ordering::Relaxed) == pid;
        if concerns && failure.file() == file {
            forgotten.store(failure.serial.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// The number of the latest failure.
pub fn latest() -> u64 {
    shared().map_or(0, |shared| shared.serial.load(Ordering::Acquire))
}

/// Whose logs these are: a child of `vfork` works with those of its parent.
fn process() -> libc::pid_t {
    crate::table::owner()
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

/// Whether there may be one in this process, or in one that it was forked from.
#[inline]
pub fn is_known() -> bool {
    shared().is_some()
}

/// Whether there is one.
#[inline]
pub fn any() -> bool {
    let first = shared().and_then(|shared| shared.failures.first());
    first.is_some_and(|failure| failure.errno.load(Ordering::Acquire) != 0)
}

/// A call has got the error of an open file that this process has inherited, and that is no log of its own.
pub fn add_inherited(file: FileId, born: u64, errno: Errno) {
    if let Some(shared) = shared() {
        shared.add(file, &Known { born, inherited: true, ..Known::default() }, errno);
    }
}

/// This log has failed.
pub fn add(core: &Core, errno: Errno) {
    if let Some(shared) = shared() {
        shared.add(core.file, &core.known, errno);
        if core.retired {
            forget(core.file);
        }
    }
}

/// A log that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its file.
    pub file: FileId,
    /// When that was made, or 0.
    born: u64,
    /// Its error.
    pub errno: Errno,
    /// The process whose log it is.
    pub owner: libc::pid_t,
    inherited: bool,
    serial: u64,
}

impl Failed {
    /// Whether it is of this file, which was made then, or at a time that is not known (0).
    pub fn is_of(&self, file: FileId, born: u64) -> bool {
        self.file == file && (born == 0 || self.born == 0 || born == self.born)
    }

    /// Whether this process may have the open file by a fork, if it has inherited one of the file, or the other has.
    pub fn is_shared(&self) -> bool {
        self.inherited || is_in_line(self.owner)
    }
}

/// Those that this process has not forgotten.
pub fn all() -> impl Iterator<Item = Failed> {
    shared().into_iter().flat_map(Shared::filled).filter_map(|(failure, forgotten)| {
        let failed = Failed {
            file: failure.file(),
            born: failure.born.load(Ordering::Relaxed),
            owner: failure.owner.load(Ordering::Relaxed),
            inherited: failure.inherited.load(Ordering::Relaxed),
            serial: failure.serial.load(Ordering::Relaxed),
            errno: failure.errno.load(Ordering::Acquire),
        };
        (failed.errno > 0 && failed.serial != forgotten.load(Ordering::Relaxed)).then_some(failed)
    })
}

/// The error that another process has got of the open file of this log: one that the two of them share, because one of
/// them has inherited it.
pub fn of_shared(file: FileId, known: &Known) -> Option<Errno> {
    let pid = process();
    let concerns = |it: &Failed| {
        it.owner != pid
            && it.serial > known.older
            && (it.inherited || known.inherited)
            && it.is_shared()
            && it.is_of(file, known.born)
    };
    all().find(concerns).map(|it| it.errno)
}

impl Failure {
    fn file(&self) -> FileId {
        (self.device.load(Ordering::Relaxed), self.inode.load(Ordering::Relaxed))
    }

    /// Whether it is one of this process, of this file.
    fn is_ours(&self, file: FileId, born: u64) -> bool {
        self.file() == file
            && self.born.load(Ordering::Relaxed) == born
            && self.owner.load(Ordering::Relaxed) == process()
    }
}

impl Shared {
    /// The places that are filled, and what this process has forgotten of them.
    fn filled(&self) -> impl Iterator<Item = (&Failure, &AtomicU64)> {
        // None is ever freed, so those after the first free one are free.
        let state = |it: &Failure| it.errno.load(Ordering::Acquire);
        let used = self.failures.iter().zip(&FORGOTTEN).take_while(move |(it, _)| state(it) != 0);
        used.filter(move |(it, _)| state(it) > 0)
    }

    fn add(&self, file: FileId, known: &Known, errno: Errno) {
        let serial = || self.serial.fetch_add(1, Ordering::AcqRel) + 1;
        if let Some((place, forgotten)) = self.filled().find(|(it, _)| it.is_ours(file, known.born))
        {
            if place.serial.load(Ordering::Relaxed) == forgotten.load(Ordering::Relaxed) {
                place.inherited.store(known.inherited, Ordering::Relaxed);
                place.serial.store(serial(), Ordering::Relaxed);
                place.errno.store(errno, Ordering::Release);
            }
            return;
        }
        let claim = |failure: &&Failure| {
            let free = &failure.errno;
            free.compare_exchange(0, CLAIMED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        // Of more than there is room for, the other processes do not learn.
        let Some(place) = self.failures.iter().find(claim) else { return };
        place.device.store(file.0, Ordering::Relaxed);
        place.inode.store(file.1, Ordering::Relaxed);
        place.born.store(known.born, Ordering::Relaxed);
        place.serial.store(serial(), Ordering::Relaxed);
        place.owner.store(process(), Ordering::Relaxed);
        place.inherited.store(known.inherited, Ordering::Relaxed);
        place.errno.store(errno, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::{Known, all, any, begin, forget, latest, of_shared, shared};

    #[test]
    fn a_failure_is_known_until_the_log_is_closed() {
        let of = |born, inherited| Known { born, inherited, ..Known::default() };
        let add = |file, known, errno| shared().unwrap().add(file, &known, errno);
        let errors = || all().map(|it| (it.file, it.errno)).collect::<Vec<_>>();
        begin((1, 2));
        assert!(!any() && errors().is_empty());
        add((1, 2), of(7, false), libc::EIO);
        add((1, 3), of(7, false), libc::ENOSPC);
        add((1, 2), of(7, false), libc::EDQUOT);
        assert_eq!((errors(), latest()), (vec![((1, 2), libc::EIO), ((1, 3), libc::ENOSPC)], 2));
        // Another file that has got the inode, and one of which nothing is known.
        let first = all().next().unwrap();
        assert_eq!([7, 0, 8].map(|born| first.is_of((1, 2), born)), [true, true, false]);
        forget((1, 2));
        assert_eq!(errors(), [((1, 3), libc::ENOSPC)]);
        add((1, 2), of(7, false), libc::EDQUOT);
        assert_eq!(errors(), [((1, 2), libc::EDQUOT), ((1, 3), libc::ENOSPC)]);
        begin((1, 2));
        begin((1, 3));
        assert!(any() && errors().is_empty());
        // Of this process's own no other has got the report.
        add((1, 4), of(7, true), libc::EIO);
        assert_eq!(of_shared((1, 4), &of(7, true)), None);
    }
}
