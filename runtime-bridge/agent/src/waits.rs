//! Calls that wait for a log, and what is told of syncs that are late or slow.

use crate::clock;
use crate::deadline::Late;
use crate::flight::Kind;
use crate::log::{Core, Held, Slot, Syncer};
use crate::note;
use crate::record;
use durac_engine::{Flight, SLOW, Time, Wait};
use std::time::Duration;

impl Slot {
    /// Wakes the calls that wait, if there are some. The lock is let go for it: whoever wakes up
    /// takes it first of all.
    pub fn wake_waiters<'a>(&'a self, core: Held<'a>) -> Held<'a> {
        if core.waiters == 0 {
            return core;
        }
        drop(core);
        self.done.notify_all();
        self.lock()
    }

    /// Parks the calling thread until `target` is durable or the log has failed.
    ///
    /// If nobody is going to sync, the thread does it itself: cheaper than waking another.
    pub fn wait<'a>(&'static self, mut core: Held<'a>, target: u64) -> Held<'a> {
        if core.engine.is_ready(target) {
            return core;
        }
        let since = clock::now();
        let parked = record::parked();
        core.engine.parks(since);
        core.waits += 1;
        loop {
            let (awake, able) = (core.syncer == Syncer::Awake, core.able());
            match (core.engine.wait(target, awake, able), core.own_fd) {
                (Wait::Sync, Some(_)) => {
                    self.publish(&mut core);
                    core = self.sync(core, None, Kind::Data).0;
                }
                (Wait::Ready | Wait::Sync, _) => break,
                (Wait::Sleep, _) => {
                    self.poke(&mut core, since);
                    self.publish(&mut core);
                    core = self.sleep(core);
                }
            }
        }
        let waited = clock::now().saturating_sub(since);
        core.wait_ns += waited;
        record::set_parked(parked + waited);
        core
    }

    /// Sleeps until something has changed, or for a while.
    pub fn sleep<'a>(&'a self, mut core: Held<'a>) -> Held<'a> {
        core.waiters += 1;
        let (mut core, over) = core.wait_timeout(&self.done, SLOW);
        core.waiters -= 1;
        match core.engine.out() {
            Some(flight) if over => self.look_for_slow(core, &flight, clock::now()),
            _ => core,
        }
    }

    /// Tells of calls that became durable too late by this sync, which ended now.
    pub fn tell_late<'a>(&'a self, mut core: Held<'a>, flight: &Flight, now: Time) -> Held<'a> {
        let Some(Late { calls, age, within, due }) = core.late.take() else { return core };
        drop(core);
        let ms = |time: Time| time as f64 / 1e6;
        let cause = match flight.since.checked_sub(due) {
            // Nobody came: there was no processor for the syncer, or the process was stopped.
            Some(after) => format!("the sync began {:.1} ms after the deadline", ms(after)),
            None => format!("the sync took {:.1} ms", ms(now.saturating_sub(flight.since))),
        };
        note::aside(&format!(
            "{}: {calls} acknowledged calls became durable after {:.1} ms (deadline {:.1} ms): {cause}",
            self.status.path(self.index),
            ms(age),
            ms(within),
        ));
        self.lock()
    }

    /// Tells of a sync that took longer than the policy assumes.
    pub fn tell_broken<'a>(&'a self, mut core: Held<'a>, flight: &Flight, now: Time) -> Held<'a> {
        let rules = core.engine.rules();
        let (Some(took), Some(most)) = (rules.broken_by(flight, now), rules.assume_sync) else {
            return core;
        };
        if !core.broken.allows(now) {
            return core;
        }
        drop(core);
        let ms = |time: Time| time as f64 / 1e6;
        let waited = ms(flight.since.saturating_sub(flight.wanted));
        // There was no processor for the syncer, or the process was stopped.
        let began =
            if waited < 0.1 { String::new() } else { format!(" (it began {waited:.1} ms late)") };
        note::aside(&format!(
            "{}: a sync took {:.1} ms{began}; the policy assumes at most {:?}",
            self.status.path(self.index),
            ms(took),
            Duration::from_nanos(most),
        ));
        self.lock()
    }

    /// Counts a sync that is out or has ended, if it is slow or takes longer than the policy assumes, and
    /// tells of a slow one.
    pub fn look_for_slow<'a>(&'a self, mut core: Held<'a>, flight: &Flight, now: Time) -> Held<'a> {
        let counts = |core: &Core| (core.slow.count, core.engine.counters().broken_assumptions);
        let before = counts(&core);
        let told = core.slow.look(flight, now);
        core.engine.count_broken(now);
        if counts(&core) != before {
            self.publish(&mut core);
        }
        let Some(took) = told else { return core };
        let (count, pending) = (core.slow.count, core.engine.unsynced());
        drop(core);
        note::aside(&format!(
            "{}: slow sync, {:.1} s so far; {pending} calls acknowledged and not durable; slow syncs: {count}",
            self.status.path(self.index),
            took.as_secs_f64(),
        ));
        self.lock()
    }
}
