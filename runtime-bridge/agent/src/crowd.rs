//! Whether another process under the agent has the same log open. What one process knows of a log's
//! syncs says nothing of what another has acknowledged, so while two have it open, nothing is deferred.
//!
//! The processes of a user meet in a table in shared memory: an entry for each log of each process. Who
//! opens a log marks the others' entries and its own; each looks at its own only.

use crate::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use crate::sys;
use std::ptr::null_mut;

/// Entries of the table, a power of two.
const ENTRIES: usize = 16_384;
/// The entries in which a file can be: from its place on.
const PROBES: usize = 64;

/// A log of a process. Free while `process` is 0.
#[repr(C)]
struct Entry {
    process: AtomicU64,
    device: AtomicU64,
    inode: AtomicU64,
    /// Not 0 when another process has opened the same file.
    crowded: AtomicU64,
}

type Table = [Entry; ENTRIES];

/// The table; none where there is no shared memory, or its file is not this user's alone.
fn table() -> Option<&'static Table> {
    // Not a lock: a child forked by another thread meanwhile must not find it held.
    static TABLE: AtomicPtr<Table> = AtomicPtr::new(null_mut());
    // SAFETY: null, or a table that is never taken away.
    if let Some(table) = unsafe { TABLE.load(Ordering::Acquire).as_ref() } {
        return Some(table);
    }
    let own = map()?;
    let place = std::ptr::from_ref(own).cast_mut();
    match TABLE.compare_exchange(null_mut(), place, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(own),
        Err(other) => {
            // SAFETY: the mapping made above, which nobody else has seen.
            unsafe { libc::munmap(place.cast(), size_of::<Table>()) };
            // SAFETY: as above.
            unsafe { other.as_ref() }
        }
    }
}

fn map() -> Option<&'static Table> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    // SAFETY: no preconditions.
    let user = unsafe { libc::geteuid() };
    let size = size_of::<Table>();
    if crate::stage::has_size_limit() {
        return None;
    }
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(format!("/dev/shm/durac-logs-{user}"))
        .ok()?;
    let meta = file.metadata().ok()?;
    if !meta.is_file() || meta.uid() != user || meta.mode() & 0o077 != 0 {
        return None;
    }
    if meta.len() < size as u64 {
        file.set_len(size as u64).ok()?;
    }
    // SAFETY: a new mapping of that size; the kernel chooses the address.
    let address = unsafe {
        libc::mmap(
            null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: as large as the file, aligned to a page, never taken away, and any bits are atomic numbers.
    unsafe { address.cast::<Table>().as_ref() }
}

fn is_alive(process: u64) -> bool {
    // SAFETY: signal 0 is only a question.
    let result = unsafe { sys::call(libc::SYS_kill, [process as usize, 0]) };
    sys::decode(result) != Err(libc::ESRCH)
}

/// The entries in which a file can be.
fn probes(device: u64, inode: u64) -> impl Iterator<Item = &'static Entry> {
    let hash = (device.rotate_left(32) ^ inode).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let places = (0..PROBES).map(move |step| (hash as usize + step) % ENTRIES);
    let table = table();
    places.filter_map(move |place| table?.get(place))
}

/// The entry of a log.
pub struct Crowd(AtomicPtr<Entry>);

impl Crowd {
    /// Of no file.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    fn entry(&self) -> Option<&'static Entry> {
        // SAFETY: null, or an entry of the table, which is never taken away.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// This process opens the file.
    pub fn join(&self, (device, inode): (u64, u64)) {
        let us = u64::from(std::process::id());
        let claimed = probes(device, inode).find(|entry| {
            let owner = entry.process.load(Ordering::Acquire);
            (owner == 0 || !is_alive(owner))
                && entry
                    .process
                    .compare_exchange(owner, us, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
        });
        let Some(own) = claimed else { return };
        own.crowded.store(0, Ordering::Relaxed);
        own.device.store(device, Ordering::Relaxed);
        own.inode.store(inode, Ordering::SeqCst);
        self.0.store(std::ptr::from_ref(own).cast_mut(), Ordering::Release);
        // Entered first, then looked: of two that open the file at once, one at least sees the other.
        for entry in probes(device, inode) {
            let process = entry.process.load(Ordering::SeqCst);
            if process != 0 && process != us && entry.is_of(device, inode) && is_alive(process) {
                entry.crowded.store(1, Ordering::SeqCst);
                own.crowded.store(1, Ordering::SeqCst);
            }
        }
    }

    /// This process has closed the file.
    pub fn leave(&self) {
        if let Some(entry) = self.entry() {
            self.0.store(null_mut(), Ordering::Release);
            entry.inode.store(0, Ordering::Relaxed);
            entry.process.store(0, Ordering::Release);
        }
    }

    /// Whether another process has opened the file since this one did, or had it open.
    #[inline]
    pub fn is_crowded(&self) -> bool {
        self.entry().is_some_and(|entry| entry.crowded.load(Ordering::Acquire) != 0)
    }
}

impl Entry {
    fn is_of(&self, device: u64, inode: u64) -> bool {
        self.inode.load(Ordering::SeqCst) == inode && self.device.load(Ordering::Relaxed) == device
    }
}
