//! The policy is off for the rest of the process, because the application takes away what the agent
//! needs: every call runs as the application made it.

use crate::guard;
use crate::note;
use crate::order;
use crate::signals;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::table::{self, Entry};
use std::fmt;

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off {
    /// A filter of system calls kills processes that make one which it does not list.
    Filter,
    /// What a stream writes is not seen, and it is durable at once.
    Stream,
    /// A thread has descriptors of its own: a number no longer says which file is meant.
    Descriptors,
    /// A process opens and closes our descriptors, and what it does is not seen.
    Shared,
}

impl fmt::Display for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filter => "the application installs a system call filter",
            Self::Stream => {
                "a stream of the application writes to a file with `O_SYNC` or `O_DSYNC`"
            }
            Self::Descriptors => "a thread of the application has its own descriptor table",
            Self::Shared => "another process shares the descriptor table of the application",
        })
    }
}

static OFF: AtomicBool = AtomicBool::new(false);

/// Whether the policy is off.
#[inline]
pub fn is_off() -> bool {
    OFF.load(Ordering::Relaxed)
}

/// Turns it off: everything acknowledged is made durable first, and the agent's threads and descriptors
/// go. A log that has failed keeps its error.
pub fn process(why: Off) {
    guard::run(|| {
        // What a child of `vfork` does with itself does not concern its parent, whose memory it has.
        let off = OFF.load(Ordering::Acquire) || crate::policy::get().is_none();
        if off || !table::is_ours() {
            return;
        }
        crate::adopt::stop();
        if let Some(registry) = table::registry().filter(|registry| registry.is_ours()) {
            registry.close();
            registry.dismiss_workers();
            for fd in table::ours(0, u32::MAX) {
                match table::get(fd) {
                    Entry::Log(index) => {
                        let failed = registry.slot(index).is_some_and(|slot| slot.has_failed());
                        if !failed {
                            table::forget(fd, Entry::Log(index));
                        }
                    }
                    Entry::Durable => {
                        table::forget(fd, Entry::Durable);
                    }
                    Entry::Reply => {
                        table::forget(fd, Entry::Reply);
                    }
                    Entry::Own | Entry::Other => {}
                }
            }
            // The order across files has nothing left to keep.
            let _ = order::drain_others(None);
            for slot in registry.slots() {
                slot.give_up_own_fd();
            }
        }
        signals::give_back();
        OFF.store(true, Ordering::Release);
        note::info(&format!("the policy is off from now on: {why}"));
    });
}
