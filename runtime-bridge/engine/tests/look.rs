//! `on write: defer`: every run of the real [`Log`] on a grid of time, with an application that writes and never
//! syncs, and a syncer that looks for writes as often as the engine says. Every write is on the disk by the deadline.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that fails says so")]

use durac_engine::{Log, Rules, Step, Time};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A point of the grid is a millisecond: the engine looks no more often.
const TICK: Time = 1_000_000;
/// How long a sync takes at most, in ticks.
const SYNC: u64 = 2;
/// Writes of one run.
const WRITES: usize = 4;
/// The last tick at which one may be made.
const LAST: u64 = 9;

#[derive(Clone, Hash)]
struct World {
    log: Log,
    now: u64,
    /// When each was made, and whether it is on the disk.
    writes: Vec<(u64, bool)>,
    /// When the syncer last looked, and how many writes there were.
    looked: (u64, usize),
    /// A sync that is out: its number, the writes that it covers, and the tick at which it ends at the latest.
    out: Option<(u64, usize, u64)>,
}

impl World {
    fn new(rules: Rules) -> Self {
        Self { log: Log::new(rules), now: 0, writes: Vec::new(), looked: (0, 0), out: None }
    }

    fn time(&self) -> Time {
        self.now * TICK
    }

    /// Age of the oldest write that is not on the disk, in ticks.
    fn age(&self) -> u64 {
        let lost = self.writes.iter().filter(|(_, on_disk)| !on_disk);
        lost.map(|(at, _)| self.now - at).max().unwrap_or(0)
    }

    /// The syncer, if it has nothing to wait for: looks if it is time to, and starts what the engine wants.
    fn served(mut self) -> Self {
        if self.out.is_some() {
            return self;
        }
        let every = self.log.look_every().unwrap() / TICK;
        if self.now >= self.looked.0 + every {
            if self.writes.len() > self.looked.1 {
                self.log.wrote(self.writes.len() as u64);
                self.log.owe(self.looked.0 * TICK).unwrap();
            }
            self.looked = (self.now, self.writes.len());
        }
        if self.log.next(self.time()) == Step::Start {
            let flight = self.log.start(true, false, self.time());
            self.out = Some((flight.id, self.writes.len(), self.now + SYNC));
        }
        self
    }

    fn successors(&self) -> Vec<World> {
        let mut next = Vec::new();
        if self.writes.len() < WRITES && self.now <= LAST {
            let mut world = self.clone();
            world.writes.push((self.now, false));
            next.push(world);
        }
        match self.out {
            Some((id, covers, until)) => {
                let mut world = self.clone();
                world.out = None;
                world.writes.iter_mut().take(covers).for_each(|(_, on_disk)| *on_disk = true);
                world.log.finish(id, self.time(), Ok(()));
                next.push(world.served());
                if self.now < until {
                    next.push(World { now: self.now + 1, ..self.clone() });
                }
            }
            // A run is over when nothing is lost any more, and nothing can be written.
            None if self.now <= LAST || self.age() > 0 => {
                next.push(World { now: self.now + 1, ..self.clone() }.served());
            }
            None => {}
        }
        next
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// The greatest age of a write that is not on the disk, over all runs, in ticks.
fn oldest(within: u64, assume: Option<u64>) -> u64 {
    let rules = Rules {
        flush_within: Some(within * TICK),
        assume_sync: assume.map(|ticks| ticks * TICK),
        defers_writes: true,
        ..Rules::default()
    };
    let (mut known, mut stack) = (HashSet::new(), vec![World::new(rules)]);
    let mut oldest = 0;
    while let Some(world) = stack.pop() {
        if known.insert(world.digest()) {
            oldest = oldest.max(world.age());
            stack.extend(world.successors());
        }
    }
    oldest
}

#[test]
fn a_write_is_on_the_disk_by_the_deadline() {
    for within in [5, 6, 8] {
        let oldest = oldest(within, Some(SYNC));
        // The bound is used: a sync can be out when the write is found.
        assert!((within - SYNC..=within).contains(&oldest), "within {within}: {oldest}");
    }
}

#[test]
fn without_an_assumption_it_is_later_by_at_most_two_syncs() {
    for within in [4, 6] {
        let oldest = oldest(within, None);
        assert!(oldest > within && oldest <= within + 2 * SYNC, "within {within}: {oldest}");
    }
}

/// A disk that is slower than assumed breaks the deadline: the walk finds what there is to find.
#[test]
fn an_assumption_that_does_not_hold_breaks_the_deadline() {
    assert!(oldest(3, Some(SYNC - 1)) > 3);
}

#[test]
fn only_what_is_deferred_is_looked_for() {
    let rules = Rules { flush_within: Some(TICK), ..Rules::default() };
    assert_eq!(Log::new(rules).look_every(), None);
    let mut log = Log::new(Rules { defers_writes: true, ..rules });
    assert!(log.look_every().is_some());
    log.fail(5);
    assert_eq!(log.owe(0), None);
}
