//! Which descriptor is which log: the one load that every hooked call makes.
//!
//! The table and the pointer to everything else of this process are in one piece of memory that
//! the kernel empties in a forked child. The child then sees no logs and no registry: it cannot
//! touch a lock that a thread of the parent held, nor wait for a thread it does not have.
//!
//! A child of `vfork` has the same memory, and descriptors and threads of its own. Architecture invariant: only the
//! process that has the table changes it, or makes the registry ([`is_ours`]).

use crate::registry::Registry;
use crate::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU16, AtomicU64, Ordering};
use crate::sync::{self, Emptied};
use std::io;

/// Descriptors below it can be logs.
pub const FDS: usize = 65536;

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Neither a log nor a descriptor of the agent.
    Other,
    /// The log at this index of the registry.
    Log(usize),
    /// A file of the application whose writes are durable when they return (`O_SYNC`, `O_DSYNC`).
    Durable,
    /// A connection that the application has accepted, while the policy holds replies.
    Reply,
    /// The agent's own: the application must not close it.
    Own,
}

const OTHER: u16 = 0;
const REPLY: u16 = u16::MAX - 2;
const DURABLE: u16 = u16::MAX - 1;
const OWN: u16 = u16::MAX;

#[repr(C, align(4096))]
struct Shared {
    fds: [AtomicU16; FDS],
    registry: AtomicPtr<Registry>,
    /// A thread makes the registry.
    making: AtomicBool,
    /// A thread changes the handlers of signals.
    changing: AtomicBool,
    /// The process that has these descriptors, or 0. A child of `vfork` shares the table, and is another.
    process: AtomicI32,
    /// The process has made a child that shares the table.
    shared: AtomicBool,
    /// It was looked at which descriptors the process has that no hook saw come.
    looked: AtomicBool,
    /// Logs with calls that are acknowledged and not durable, or with staged bytes.
    dirty: AtomicU64,
    /// Logs with staged bytes.
    staged: AtomicU64,
}

static SHARED: Emptied<Shared> = Emptied::new(Shared {
    fds: [const { AtomicU16::new(OTHER) }; FDS],
    registry: AtomicPtr::new(std::ptr::null_mut()),
    making: AtomicBool::new(false),
    changing: AtomicBool::new(false),
    process: AtomicI32::new(0),
    shared: AtomicBool::new(false),
    looked: AtomicBool::new(false),
    dirty: AtomicU64::new(0),
    staged: AtomicU64::new(0),
});

/// Asks the kernel to empty the table in forked children.
///
/// # Errors
/// What the kernel said; nothing may be entered then.
pub fn empty_in_children() -> io::Result<()> {
    let address = (&raw const SHARED).cast_mut().cast();
    // SAFETY: the range is exactly the static, which is aligned to pages and, being all zero,
    // is in anonymous memory. The advice changes nothing in this process.
    let result = unsafe { libc::madvise(address, size_of::<Shared>(), libc::MADV_WIPEONFORK) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether `fd` does not concern the agent: true for nearly every call.
#[inline(always)]
#[must_use]
pub fn is_other(fd: libc::c_int) -> bool {
    SHARED.fds.get(fd as usize).is_none_or(|e| e.load(Ordering::Relaxed) == OTHER)
}

fn decode(raw: u16) -> Entry {
    match raw {
        OTHER => Entry::Other,
        OWN => Entry::Own,
        DURABLE => Entry::Durable,
        REPLY => Entry::Reply,
        n => Entry::Log(usize::from(n) - 1),
    }
}

/// What `fd` is.
#[inline]
#[must_use]
pub fn get(fd: libc::c_int) -> Entry {
    SHARED.fds.get(fd as usize).map_or(Entry::Other, |e| decode(e.load(Ordering::Acquire)))
}

fn encode(entry: Entry) -> u16 {
    match entry {
        Entry::Other => OTHER,
        Entry::Own => OWN,
        Entry::Durable => DURABLE,
        Entry::Reply => REPLY,
        Entry::Log(index) => u16::try_from(index + 1).unwrap_or(OTHER),
    }
}

/// Changes what `fd` is and returns what it was. A descriptor beyond the table stays
/// [`Entry::Other`], and so does every one of another process that shares the memory.
pub fn set(fd: libc::c_int, entry: Entry) -> Entry {
    let place = SHARED.fds.get(fd as usize).filter(|_| is_ours());
    place.map_or(Entry::Other, |e| decode(e.swap(encode(entry), Ordering::AcqRel)))
}

/// Forgets what `fd` is if it still is `was`; returns whether this call did it.
pub fn forget(fd: libc::c_int, was: Entry) -> bool {
    SHARED.fds.get(fd as usize).filter(|_| is_ours()).is_some_and(|e| {
        e.compare_exchange(encode(was), OTHER, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    })
}

/// Whether `fd` can be a log.
#[must_use]
pub fn fits(fd: libc::c_int) -> bool {
    usize::try_from(fd).is_ok_and(|fd| fd < FDS)
}

/// The descriptors of `first..=last` that concern the agent.
pub fn ours(first: u32, last: u32) -> Vec<libc::c_int> {
    let last = last.min(FDS as u32 - 1);
    (first..=last).map(|fd| fd as libc::c_int).filter(|&fd| !is_other(fd)).collect()
}

/// This process' registry; none before the first log and in a forked child.
#[inline]
#[must_use]
pub fn registry() -> Option<&'static Registry> {
    let registry = SHARED.registry.load(Ordering::Acquire);
    // SAFETY: only `registry_or` stores it, from a reference that lives for ever.
    unsafe { registry.as_ref() }
}

/// This process' registry; `make` makes it, in one thread while others wait. Another process that shares the
/// memory makes none.
pub fn registry_or(make: impl FnOnce() -> Option<&'static Registry>) -> Option<&'static Registry> {
    if !is_ours() {
        return None;
    }
    // Not a mutex: a child forked by another thread meanwhile must not find it locked.
    while SHARED.making.swap(true, Ordering::Acquire) {
        sync::yield_now();
    }
    let made = registry().or_else(make);
    if let Some(made) = made {
        SHARED.registry.store(std::ptr::from_ref(made).cast_mut(), Ordering::Release);
    }
    SHARED.making.store(false, Ordering::Release);
    made
}

/// One thread of this process at a time changes the handlers of signals. Returns whether the caller may.
pub fn lock_handlers() -> bool {
    // A child forked by another thread meanwhile must not find it locked.
    !SHARED.changing.swap(true, Ordering::Acquire)
}

/// It has changed them.
pub fn unlock_handlers() {
    SHARED.changing.store(false, Ordering::Release);
}

/// Whether the calling process has these descriptors. The first that asks has them: it does when it starts, when it was
/// forked, and before it makes a child that shares its memory.
pub fn is_ours() -> bool {
    // SAFETY: it takes no pointer, cannot fail, and changes nothing.
    let pid = unsafe { libc::getpid() };
    match SHARED.process.load(Ordering::Acquire) {
        0 => {
            let process = &SHARED.process;
            let known = process.compare_exchange(0, pid, Ordering::AcqRel, Ordering::Acquire);
            known.map_or_else(|process| process == pid, |_| true)
        }
        process => process == pid,
    }
}

/// The process that has these descriptors.
pub fn owner() -> libc::pid_t {
    is_ours();
    SHARED.process.load(Ordering::Acquire)
}

/// The process is about to make a child that shares its memory, and has descriptors of its own.
pub fn share() {
    is_ours();
    SHARED.shared.store(true, Ordering::Release);
}

/// Whether the caller is such a child. One load in a process that makes none.
#[inline(always)]
pub fn is_in_child() -> bool {
    SHARED.shared.load(Ordering::Acquire) && !is_ours()
}

/// Whether nobody has asked this before in this process.
pub fn is_first_look() -> bool {
    !SHARED.looked.load(Ordering::Acquire) && !SHARED.looked.swap(true, Ordering::AcqRel)
}

/// How many logs have calls that are acknowledged and not durable, or staged bytes.
#[inline(always)]
#[must_use]
pub fn dirty() -> u64 {
    SHARED.dirty.load(Ordering::Acquire)
}

/// Whether a log has staged bytes.
#[inline(always)]
#[must_use]
pub fn any_staged() -> bool {
    SHARED.staged.load(Ordering::Acquire) > 0
}

fn count(counter: &AtomicU64, up: bool) {
    if up {
        counter.fetch_add(1, Ordering::AcqRel);
    } else {
        counter.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A log became dirty, or clean.
pub fn count_dirty(dirty: bool) {
    count(&SHARED.dirty, dirty);
}

/// A log has staged bytes, or none any more.
pub fn count_staged(staged: bool) {
    count(&SHARED.staged, staged);
}
