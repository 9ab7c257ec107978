//! The syncer thread that a log needs from its first call on. In a signal handler none can be started: the next hook that is
//! called outside of one starts it.

use crate::attention;
use crate::clock;
use crate::errno::Kept;
use crate::guard;
use crate::log::Slot;
use crate::policy;
use crate::pool::Pool;
use crate::signals;
use crate::table;
use std::sync::atomic::{AtomicBool, Ordering};

/// Logs wait for their thread.
static LATER: AtomicBool = AtomicBool::new(false);

/// A log was opened: starts the first syncer thread of its device, now or later. Returns why nothing is synced in the
/// background, if so.
pub fn begin(slot: &Slot) -> Option<&'static str> {
    let (pool, has_fd) = {
        let core = slot.lock();
        (core.pool, core.own_fd.is_some())
    };
    let is_staffed = pool.is_some_and(Pool::staff);
    let later = !is_staffed && signals::may_be_in_handler();
    LATER.fetch_or(later, Ordering::Relaxed);
    match (has_fd, is_staffed) {
        (true, true) => None,
        (false, _) => Some("the limit of open files (`ulimit -n`) leaves no descriptor for it"),
        (true, false) if later => Some("it was opened in a signal handler"),
        (true, false) => Some("no thread can be started"),
    }
}

/// Starts the threads of logs that were opened in a signal handler. One load if there are none.
#[inline]
pub fn look() {
    if LATER.load(Ordering::Relaxed) && !signals::may_be_in_handler() {
        start();
    }
}

#[cold]
fn start() {
    let kept = Kept::now();
    guard::run(|| {
        let (Some(registry), Some(policy)) = (table::registry(), policy::loaded()) else { return };
        if !registry.is_ours() || !LATER.swap(false, Ordering::Relaxed) {
            return;
        }
        for slot in registry.slots().filter(|slot| slot.is_open()) {
            if begin(slot).is_none() {
                slot.poke(&mut slot.lock(), clock::now());
                attention::in_force(registry, policy, slot);
            }
        }
    });
    drop(kept);
}
