//! Whether a child of this process has passed the files on, to a child of its own or to another program:
//! then nobody can tell when the last process is gone that has a log open.
//!
//! The children say so in memory that all of them share.

use crate::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};
use std::ptr::null_mut;

/// Shared by the process that has logs and its children.
static SPREAD: AtomicPtr<AtomicU64> = AtomicPtr::new(null_mut());
/// The process that has the logs; its children inherit the number.
static OWNER: AtomicI32 = AtomicI32::new(0);

/// This process has logs from now on. Without memory to share it counts as spread.
pub fn found() {
    // SAFETY: a new mapping; the kernel chooses the address.
    let memory = unsafe {
        libc::mmap(
            null_mut(),
            size_of::<AtomicU64>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    let memory = if memory == libc::MAP_FAILED { null_mut() } else { memory };
    SPREAD.store(memory.cast(), Ordering::Release);
    OWNER.store(std::process::id() as i32, Ordering::Release);
}

/// A process forks or becomes another program: if it is a child of the one with the logs, it passes them
/// on.
pub fn passes_on() {
    let owner = OWNER.load(Ordering::Acquire);
    if owner != 0
        && owner != std::process::id() as i32
        && let Some(spread) = spread()
    {
        spread.store(1, Ordering::Release);
    }
}

/// Whether a child has passed the files on.
pub fn has_spread() -> bool {
    spread().is_none_or(|spread| spread.load(Ordering::Acquire) != 0)
}

fn spread() -> Option<&'static AtomicU64> {
    // SAFETY: null, or a mapping that is never taken away.
    unsafe { SPREAD.load(Ordering::Acquire).as_ref() }
}
