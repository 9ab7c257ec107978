//! The agent's own descriptors of logs, kept where a forked child finds them: it closes them, so that a
//! lock or the file itself is not held for longer than without the agent.

use crate::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use crate::sys;
use durac_abi::MAX_LOGS;
use std::os::fd::RawFd;

const NONE: i32 = -1;

/// By place of the log.
static OWNED: [AtomicI32; MAX_LOGS as usize] = [const { AtomicI32::new(NONE) }; MAX_LOGS as usize];

/// This process has inherited logs from the one that forked it.
static INHERITED: AtomicBool = AtomicBool::new(false);

/// Whether it has.
pub fn inherited() -> bool {
    INHERITED.load(Ordering::Relaxed)
}

/// A child of this process will have inherited some, though it has none of its own.
pub fn will_inherit() {
    INHERITED.store(true, Ordering::Relaxed);
}

/// The log at this place has this descriptor, or none.
pub fn set(place: usize, fd: Option<RawFd>) {
    if let Some(owned) = OWNED.get(place) {
        owned.store(fd.unwrap_or(NONE), Ordering::Release);
    }
}

/// Closes all of them, in a forked child.
pub extern "C" fn close_in_child() {
    for owned in &OWNED {
        let fd = owned.swap(NONE, Ordering::AcqRel);
        if fd != NONE {
            INHERITED.store(true, Ordering::Relaxed);
            // SAFETY: the child's copy of one of the agent's descriptors.
            unsafe { sys::call(libc::SYS_close, [fd as usize]) };
        }
    }
}
