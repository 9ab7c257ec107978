//! The agent's own descriptors of logs, kept where a forked child finds them: it closes them, so that a
//! lock or the file itself is not held for longer than without the agent. With them, which files are logs that this
//! process has inherited.

use crate::crowd;
use crate::registry::FileId;
use crate::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use crate::sys;
use crate::table;
use durac_abi::MAX_LOGS;
use std::os::fd::RawFd;

const NONE: i32 = -1;
const PLACES: usize = MAX_LOGS as usize;

/// Device and inode.
struct File {
    device: AtomicU64,
    inode: AtomicU64,
}

impl File {
    const fn none() -> Self {
        Self { device: AtomicU64::new(0), inode: AtomicU64::new(0) }
    }

    fn set(&self, (device, inode): FileId) {
        self.device.store(device, Ordering::Relaxed);
        self.inode.store(inode, Ordering::Relaxed);
    }

    fn get(&self) -> FileId {
        (self.device.load(Ordering::Relaxed), self.inode.load(Ordering::Relaxed))
    }
}

/// By place of the log.
static OWNED: [AtomicI32; PLACES] = [const { AtomicI32::new(NONE) }; PLACES];
static FILES: [File; PLACES] = [const { File::none() }; PLACES];
/// A log is open there.
static OPEN: [AtomicBool; PLACES] = [const { AtomicBool::new(false) }; PLACES];

/// The logs that this process has inherited and not taken over.
static INHERITED: [File; PLACES] = [const { File::none() }; PLACES];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The process whose logs [`OWNED`] and [`FILES`] are, or 0.
static OWNER: AtomicI32 = AtomicI32::new(0);

/// Whether this process has inherited a log of this file and not taken it over, also if it was made by a call after
/// which nothing of the agent's has run (`_Fork`, `clone`).
pub fn has_inherited(file: FileId) -> bool {
    let of_parent = OWNER.load(Ordering::Acquire) != table::owner() && open().any(|it| it == file);
    of_parent || inherited().any(|it| it == file)
}

/// The logs there.
fn open() -> impl Iterator<Item = FileId> {
    let open = OPEN.iter().zip(&FILES).filter(|(open, _)| open.load(Ordering::Acquire));
    open.map(|(_, file)| file.get())
}

/// From now on [`OWNED`] and [`FILES`] are of this process, whose first log is about to be opened; or it was forked just
/// now. Those of its parent it has inherited. It may have closed the descriptors, and reused the numbers.
pub fn begin() {
    let process = table::owner();
    if OWNER.swap(process, Ordering::AcqRel) == process {
        return;
    }
    open().for_each(inherit);
    for (open, owned) in OPEN.iter().zip(&OWNED) {
        open.store(false, Ordering::Relaxed);
        owned.store(NONE, Ordering::Relaxed);
    }
}

/// The logs that this process has inherited.
pub fn inherited() -> impl Iterator<Item = FileId> + Clone {
    INHERITED.iter().take(COUNT.load(Ordering::Acquire)).map(File::get)
}

/// This process has inherited the log, and so does a child of it that is forked before it is taken over.
pub fn inherit(file: FileId) {
    let count = COUNT.load(Ordering::Relaxed);
    if let Some(place) = INHERITED.get(count).filter(|_| inherited().all(|known| known != file)) {
        place.set(file);
        COUNT.store(count + 1, Ordering::Release);
    }
}

/// What was inherited is taken over.
pub fn taken_over() {
    COUNT.store(0, Ordering::Release);
}

/// A log of this file is opened at this place, or closed.
pub fn opened(place: usize, file: FileId, is_open: bool) {
    if let (Some(open), Some(known)) = (OPEN.get(place), FILES.get(place)) {
        known.set(file);
        open.store(is_open, Ordering::Release);
    }
}

/// The log at this place, of this file, has this descriptor, or none.
pub fn set(place: usize, file: FileId, fd: Option<RawFd>) {
    if let (Some(owned), Some(known)) = (OWNED.get(place), FILES.get(place)) {
        known.set(file);
        owned.store(fd.unwrap_or(NONE), Ordering::Release);
    }
}

/// Closes all of them, in a forked child.
pub extern "C" fn close_in_child() {
    table::is_ours();
    for owned in &OWNED {
        let fd = owned.swap(NONE, Ordering::AcqRel);
        if fd != NONE {
            // SAFETY: the child's copy of one of the agent's descriptors.
            unsafe { sys::call(libc::SYS_close, [fd as usize]) };
        }
    }
    crowd::close_in_child();
    // In a pid namespace of its own it may have its parent's number.
    OWNER.store(0, Ordering::Release);
    begin();
}
