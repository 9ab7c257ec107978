//! The syncer thread that a log needs from its first call on. In a signal handler none can be started: the next hook that is
//! called outside of one starts it.

use crate::attention;
use crate::clock;
use crate::errno::Kept;
use crate::guard;
use crate::log::{Slot, Syncer};
use crate::policy;
use crate::pool::Pool;
use crate::signals;
use crate::table;
use durac_engine::Time;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Why logs wait for their thread: [`HANDLER`], [`REFUSED`].
static LATER: AtomicU8 = AtomicU8::new(0);
/// They were opened in a signal handler.
const HANDLER: u8 = 1;
/// None could be started.
const REFUSED: u8 = 2;
/// Every so many calls try that again.
const TRY_EVERY: u32 = 64;
/// Calls since then.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// A log was opened: starts the first syncer thread of its device, now or later. Returns why nothing is synced in the
/// background, if so.
pub fn begin(slot: &Slot) -> Option<&'static str> {
    let (pool, has_fd) = parts(slot);
    let is_staffed = pool.is_some_and(Pool::staff);
    let later = !is_staffed && signals::may_be_in_handler();
    if has_fd && !is_staffed {
        LATER.fetch_or(if later { HANDLER } else { REFUSED }, Ordering::Relaxed);
    }
    match (has_fd, is_staffed) {
        (true, true) => None,
        (false, _) => Some("the limit of open files (`ulimit -n`) leaves no descriptor for it"),
        (true, false) if later => Some("it was opened in a signal handler"),
        (true, false) => Some("no thread can be started"),
    }
}

/// The syncer threads of its device, and whether they have a descriptor of the file.
fn parts(slot: &Slot) -> (Option<&'static Pool>, bool) {
    let core = slot.lock();
    (core.pool, core.own_fd.is_some())
}

/// Starts the threads of logs that were opened in a signal handler, and tells when a log has got one. Two loads if there
/// is nothing to do.
#[inline]
pub fn look() {
    if LATER.load(Ordering::Relaxed) != 0 && !signals::may_be_in_handler() {
        start();
    }
}

#[cold]
fn start() {
    let kept = Kept::now();
    guard::run(|| {
        let (Some(registry), Some(policy)) = (table::registry(), policy::loaded()) else { return };
        if !registry.is_ours() {
            return;
        }
        let why = LATER.swap(0, Ordering::Relaxed);
        let tries =
            why & HANDLER != 0 || CALLS.fetch_add(1, Ordering::Relaxed).is_multiple_of(TRY_EVERY);
        for slot in registry.slots().filter(|slot| slot.is_open()) {
            let (pool, has_fd) = parts(slot);
            if !has_fd {
                continue;
            }
            let is_staffed = match tries {
                true => begin(slot).is_none(),
                false => pool.is_some_and(Pool::is_staffed),
            };
            if is_staffed {
                let mut core = slot.lock();
                if core.syncer == Syncer::Queued && !pool.is_some_and(|pool| pool.has(slot)) {
                    // It was asked for when there was none.
                    core.syncer = Syncer::Parked(Time::MAX);
                }
                slot.poke(&mut core, clock::now());
                drop(core);
                attention::in_force(registry, policy, slot);
            } else {
                LATER.fetch_or(why & REFUSED, Ordering::Relaxed);
            }
        }
    });
    drop(kept);
}
