//! What a syncer thread does with a log: the background syncs that the engine asks for, until it
//! asks for none.

use crate::clock;
use crate::flight::Flying;
use crate::guard;
use crate::held::GRACE;
use crate::log::{Held, Slot, Syncer};
use crate::note;
use crate::policy;
use crate::pool::Pool;
use crate::replies;
use crate::ring::Ring;
use durac_abi::Engine;
use durac_engine::{Step, Time};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

/// How long a log is looked at again by itself after it had work. A request that may wait that long
/// need not wake a thread, and a wake-up costs the application 10 µs.
const LINGER: Time = 2_000_000;

/// A syncer thread.
pub struct Worker {
    pool: &'static Pool,
    ring: Option<Ring>,
}

impl Worker {
    /// Works in `pool` until it is not needed.
    pub fn run(pool: &'static Pool) {
        let ended = guard::run(|| {
            let mut worker = Self { pool, ring: own_ring() };
            pool.work(|slot| worker.look(slot));
        });
        if ended.is_none() {
            pool.died();
        }
    }

    /// Carries out what the engine of a log asks for.
    fn look(&mut self, slot: &'static Slot) {
        // What an event loop was to send, and has not.
        replies::release();
        let mut core = slot.lock();
        core.users += 1;
        drop(core);
        let ended = catch_unwind(AssertUnwindSafe(|| drop(self.serve(slot, slot.lock()))));
        core = slot.lock();
        core.users -= 1;
        if ended.is_err() {
            // A bug in the agent: the sync under way will never be completed, and nobody may wait for it.
            core.engine.fail(libc::EIO);
            core.syncer = Syncer::Failed;
            self.pool.park(slot, Time::MAX);
            slot.publish(&mut core);
            drop(slot.wake_waiters(core));
        }
    }

    fn serve<'a>(&mut self, slot: &'static Slot, mut core: Held<'a>) -> Held<'a> {
        let mut last_work = None;
        core.syncer = Syncer::Awake;
        while !core.retired && core.own_fd.is_some() {
            let now = clock::now();
            if core.look.due(&core).is_some_and(|due| due <= now) {
                // The lock was let go meanwhile.
                core = slot.look_at_file(core, now);
                continue;
            }
            let by_loop = Slot::look_for_loop(&mut core);
            let acknowledged = core.engine.counters().acknowledged;
            let goes_on = core.acknowledged_before != acknowledged;
            core.acknowledged_before = acknowledged;
            let until = match core.engine.next(now) {
                Step::Start => {
                    core = slot.fly(core, None, Flying::Background(self.ring.as_mut())).0;
                    last_work = Some(clock::now());
                    continue;
                }
                Step::At(time) => time,
                Step::Idle if last_work.is_some_and(|at| now.saturating_sub(at) < LINGER) => {
                    now + LINGER
                }
                Step::Idle if by_loop && goes_on => now + LINGER,
                Step::Idle => Time::MAX,
            };
            let owes = by_loop && replies::is_waiting();
            let until = if owes { until.min(now + GRACE) } else { until };
            let until = core.look.due(&core).map_or(until, |due| due.min(until));
            self.pool.park(slot, until);
            core.syncer = Syncer::Parked(until);
            return core;
        }
        // Nothing is left to sync, or no way to it.
        self.pool.park(slot, Time::MAX);
        core.syncer = Syncer::Failed;
        core
    }
}

/// A ring, if the policy's bytes are to be written through one.
fn own_ring() -> Option<Ring> {
    static SAID: AtomicBool = AtomicBool::new(false);
    let policy = policy::get().filter(|p| p.rules.stages && p.engine == Engine::IoUring)?;
    match Ring::new() {
        Ok(ring) => Some(ring),
        Err(error) => {
            if !SAID.swap(true, Ordering::Relaxed) {
                let policy = &policy.meta.policy;
                note::error(&format!(
                    "no io_uring: {error}; `{policy}` writes staged data with `write`"
                ));
            }
            None
        }
    }
}
