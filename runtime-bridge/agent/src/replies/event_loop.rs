//! An event loop whose replies are held, between two turns. While it finds something to do, replies gather. When it
//! does not, and a sync takes not much longer than it takes to wake two threads, it syncs by itself what they
//! wait for, and sends them: no other thread is woken, and a sync covers as many clients as there are.
//!
//! A slow sync is left to a syncer thread, which sends too: the loop goes on meanwhile. So is the sync of a loop
//! that is busy for longer than the engine's grace.

use super::Replies;
use crate::clock;
use crate::log::Slot;
use crate::registry::Registry;
use crate::table;
use durac_engine::Time;
use libc::c_int;
use std::cell::Cell;
use std::sync::atomic::Ordering;

/// How long a loop looks for clients that were answered together with those that wait.
const LOOK: Time = 60_000;

/// How long a turn looks for more.
const GATHER: Time = 40_000;
thread_local! {
    /// A reply of this thread was held since it last slept.
    static HOLDS: Cell<bool> = const { Cell::new(false) };
}

/// A reply of this thread is held.
pub fn held() {
    HOLDS.with(|holds| holds.set(true));
}

/// Whether a reply of this thread may be held.
#[inline]
pub fn may_hold() -> bool {
    HOLDS.with(Cell::get)
}

impl Replies {
    /// Whether a loop is awake that comes by when it has nothing else to do.
    pub fn loop_comes(&self) -> bool {
        self.awake.load(Ordering::Acquire)
    }

    /// Whether with the next reply all wait that the last two syncs have answered.
    pub fn are_all_here(&self) -> bool {
        self.gathered.load(Ordering::Relaxed) + 1 >= self.hoped.load(Ordering::Relaxed)
    }

    /// Whether it is the loop that syncs.
    pub fn set_by_loop(&self, by_loop: bool) {
        self.by_loop.store(by_loop, Ordering::Relaxed);
    }

    /// A loop is awake again.
    pub fn woke(&self) {
        self.awake.store(true, Ordering::Release);
    }

    /// A loop is about to sleep. `probe` looks for what is ready, without waiting. Returns how much that was, if
    /// the loop has something to do; else it sleeps now.
    pub fn before_sleep(
        &self,
        registry: &'static Registry,
        mut probe: impl FnMut(c_int) -> c_int,
    ) -> Option<c_int> {
        self.woke();
        while self.bytes() > 0 {
            self.release(registry);
            let ready = probe(0);
            if ready > 0 {
                return Some(self.gather(ready, &mut probe));
            }
            if registry.slots().all(Slot::is_covered) {
                break;
            }
            let ready = self.look(&mut probe);
            if ready > 0 {
                return Some(ready);
            }
            let mut any = false;
            for slot in registry.slots().filter(|slot| !slot.is_covered()) {
                any |= slot.sync_in_loop();
            }
            if !any {
                break;
            }
        }
        let holds = self.bytes() > 0;
        HOLDS.with(|all| all.set(holds));
        self.awake.store(false, Ordering::Release);
        if holds {
            for slot in registry.slots() {
                slot.leave_to_syncer();
            }
            // A sync that ended before the loop was known to sleep.
            self.release(registry);
        }
        None
    }

    /// A turn begins with so many ready, and others wait for their replies: as nothing is synced before the rest
    /// has come, it takes half of them at once rather than each in a turn of its own.
    fn gather(&self, ready: c_int, probe: &mut impl FnMut(c_int) -> c_int) -> c_int {
        let gathered = self.gathered.load(Ordering::Relaxed);
        let missing = self.hoped.load(Ordering::Relaxed).saturating_sub(gathered) as c_int;
        let mut ready = ready;
        if gathered == 0 || ready * 2 >= missing || !self.by_loop.load(Ordering::Relaxed) {
            return ready;
        }
        let until = clock::now() + GATHER;
        while ready * 2 < missing && clock::now() < until {
            match probe(ready) {
                more if more >= ready => ready = more,
                // There is no room for more.
                _ => break,
            }
        }
        ready
    }

    fn is_waiting(&self) -> bool {
        !self.tickets().waiting.is_empty()
    }

    /// Looks a moment longer for clients that would share the sync.
    fn look(&self, probe: &mut impl FnMut(c_int) -> c_int) -> c_int {
        if !self.by_loop.load(Ordering::Relaxed) {
            return 0;
        }
        let mut tickets = self.tickets();
        let waiting = tickets.waiting.len();
        if tickets.group.target(waiting).is_none() {
            return 0;
        }
        drop(tickets);
        let until = clock::now() + LOOK;
        let mut ready = 0;
        while ready == 0 && clock::now() < until {
            ready = probe(0);
        }
        self.tickets().group.looked(ready > 0);
        ready
    }
}

fn replies() -> Option<&'static Replies> {
    table::registry().map(|registry| &registry.replies).filter(|replies| replies.hold())
}

/// Whether a loop sends what becomes durable.
pub fn loop_sends() -> bool {
    replies().is_some_and(|r| r.by_loop.load(Ordering::Relaxed) && r.loop_comes())
}

/// Whether a connection waits.
pub fn is_waiting() -> bool {
    replies().is_some_and(Replies::is_waiting)
}

/// Another one syncs from now on.
pub fn way_changed() {
    if let Some(replies) = replies() {
        replies.tickets().group.forget();
    }
}

/// A sync begins.
pub fn sync_begins() {
    if let Some(replies) = replies() {
        replies.gathered.store(0, Ordering::Relaxed);
    }
}
