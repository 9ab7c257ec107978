//! The background syncer of a log, step by step as the agent's thread (`agent/src/syncer.rs`), and
//! the syncs themselves.

use super::device::{BLOCK, Metadata};
use super::drive::Simulation;
use durac_engine::{Flight, Step, Time};

/// How long the syncer looks again by itself after it had work: `LINGER` of the agent.
const LINGER: Time = 2_000_000;

/// A syncer thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Syncer {
    /// What it does.
    pub doing: Doing,
    /// When its last sync ended.
    last_work: Time,
}

/// What a syncer thread does.
#[derive(Clone, Copy, Debug, Default)]
pub enum Doing {
    /// There is none: nothing has needed it.
    #[default]
    None,
    /// It was woken and will look for work.
    Waking,
    /// It waits for work until this time.
    Parked(Time),
    /// It syncs.
    Syncs(Flight, Stage),
}

/// A sync: whether the file has grown into a new block, and what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    grows: bool,
    part: Part,
}

/// A part of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The thread prepares and submits writes.
    Submits,
    /// The kernel's threads work; then the device writes, for so long.
    Commits(u64),
    /// The device writes.
    Writes,
    /// The thread finishes.
    Finishes,
}

impl Syncer {
    /// Whether it will look for work before it sleeps.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        matches!(self.doing, Doing::Waking | Doing::Syncs(..))
    }
}

impl Simulation<'_> {
    /// `waker` tells the syncer of a log, or starts it, if the engine has work that it does not know
    /// of.
    pub fn poke(&mut self, waker: usize, index: usize) {
        let now = self.cpu.now();
        let Some(place) = self.places.get_mut(index) else { return };
        let wake_at = match place.log.next(now) {
            Step::Start => now,
            Step::At(time) => time,
            Step::Idle => return,
        };
        let wakes = match place.syncer.doing {
            Doing::None => true,
            Doing::Parked(until) => wake_at < until,
            Doing::Waking | Doing::Syncs(..) => false,
        };
        if wakes {
            place.syncer.doing = Doing::Waking;
            let thread = place.thread;
            self.wake(waker, thread);
        }
    }

    /// What the syncer was doing is over.
    pub fn syncer_goes_on(&mut self, index: usize) {
        let Some(place) = self.places.get(index) else { return };
        match place.syncer.doing {
            Doing::None => {}
            Doing::Waking | Doing::Parked(_) => self.look_for_work(index),
            Doing::Syncs(flight, stage) => {
                let thread = place.thread;
                match self.sync_goes_on(thread, index, flight, stage) {
                    Some(stage) => self.syncer_does(index, Doing::Syncs(flight, stage)),
                    None => {
                        self.sync_ended(index, thread, flight);
                        self.look_for_work(index);
                    }
                }
            }
        }
    }

    fn syncer_does(&mut self, index: usize, doing: Doing) {
        if let Some(place) = self.places.get_mut(index) {
            place.syncer.doing = doing;
        }
    }

    fn look_for_work(&mut self, index: usize) {
        let now = self.cpu.now();
        let delay = self.app.wake_delay;
        let Some(place) = self.places.get_mut(index) else { return };
        let thread = place.thread;
        let until = match place.log.next(now) {
            Step::Start => {
                place.tell();
                let flight = place.log.start(true, false, now);
                place.staged = 0;
                let stage = self.begin_sync(thread, index);
                self.syncer_does(index, Doing::Syncs(flight, stage));
                return;
            }
            Step::At(time) => time,
            Step::Idle if now - place.syncer.last_work < LINGER => now + LINGER,
            Step::Idle => Time::MAX,
        };
        place.syncer.doing = Doing::Parked(until);
        match until {
            Time::MAX => self.cpu.stand(thread),
            until => self.cpu.sleep(thread, until + delay),
        }
    }

    // ---- syncs, of whatever thread ----

    /// A thread begins a sync whose flight has started.
    pub fn begin_sync(&mut self, thread: usize, index: usize) -> Stage {
        let mut grows = false;
        if let Some(place) = self.places.get_mut(index) {
            let blocks = place.written.div_ceil(BLOCK);
            grows = blocks > place.blocks;
            place.blocks = blocks;
        }
        self.cpu.run(thread, self.device.costs(grows).cpu / 2, 0);
        Stage { grows, part: Part::Submits }
    }

    /// A part of a sync is over; answers the next, none if the sync has ended.
    pub fn sync_goes_on(
        &mut self,
        thread: usize,
        index: usize,
        flight: Flight,
        stage: Stage,
    ) -> Option<Stage> {
        let costs = self.device.costs(stage.grows);
        let part = match stage.part {
            Part::Submits => {
                let place = self.places.get(index)?;
                let bytes = place.log.pending_bytes().min(flight.bytes);
                let takes = self.device.sample(stage.grows, bytes, &mut self.random);
                let work = takes.min(costs.kernel);
                self.cpu.run(thread, work, 0);
                Part::Commits(takes - work)
            }
            Part::Commits(takes) => {
                let place = self.places.get_mut(index)?;
                let until = place.journal.commit(self.cpu.now(), takes);
                place.metadata = Metadata::new(until - takes, takes, flight.bytes);
                self.cpu.sleep(thread, until);
                Part::Writes
            }
            Part::Writes => {
                self.cpu.run(thread, costs.cpu - costs.cpu / 2, 0);
                Part::Finishes
            }
            Part::Finishes => return None,
        };
        Some(Stage { part, ..stage })
    }

    /// A sync has ended with success: wakes whoever waits.
    pub fn sync_ended(&mut self, index: usize, thread: usize, flight: Flight) {
        let now = self.cpu.now();
        let Some(place) = self.places.get_mut(index) else { return };
        self.seen.ending(&place.log, now, flight.covers);
        place.log.land(flight.id, now, Ok(()), true);
        if flight.background {
            place.syncer.last_work = now;
        }
        let span = (flight.since, now);
        self.seen.synced(&place.log, index, span, flight.covers, flight.background);
        let mut waiters = std::mem::take(&mut place.waiters);
        for &waiter in &waiters {
            self.wake(thread, waiter);
        }
        waiters.clear();
        if let Some(place) = self.places.get_mut(index) {
            place.waiters = waiters;
        }
        self.release(index, thread);
    }
}
