//! `flush within` under `assume sync`: every run of the real [`Log`] on a grid of time, with every disk and
//! scheduler that the assumption allows. Every acknowledged call is on the disk by the deadline, and no
//! broken assumption is counted.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that fails says so")]

use durac_engine::{Log, Rules, Step, Time};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A point of the grid is a millisecond: the pace counts in these.
const TICK: Time = 1_000_000;
/// How long a sync takes at most, in ticks.
const SYNC: u64 = 2;

/// How much may happen in one run.
#[derive(Clone, Copy)]
struct Limits {
    /// `flush within`, in ticks.
    within: u64,
    /// Deferred and skipped calls.
    calls: usize,
    /// Calls that run their own sync.
    direct: u8,
    /// Syncs that the engine does not start.
    witnessed: u8,
    /// The last tick at which a call may begin.
    last: u64,
}

/// A sync that is out: its number, the calls it covers, and the tick at which it ends at the latest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Out {
    id: u64,
    covers: usize,
    until: u64,
    background: bool,
}

/// A call of the application.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Call {
    /// When success was reported.
    acknowledged: Option<u64>,
    on_disk: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    log: Log,
    now: u64,
    calls: Vec<Call>,
    out: Vec<Out>,
    /// When the last background sync ended.
    landed: u64,
    /// Since when the engine wants a background sync.
    ready: Option<u64>,
    direct: u8,
    witnessed: u8,
}

impl World {
    fn new(rules: Rules) -> World {
        World {
            log: Log::new(rules),
            now: 0,
            calls: Vec::new(),
            out: Vec::new(),
            landed: 0,
            ready: None,
            direct: 0,
            witnessed: 0,
        }
    }

    fn time(&self) -> Time {
        self.now * TICK
    }

    /// Since when `flush within` wants a background sync, by the rule in docs/loss.md.
    fn wanted(&self, within: u64) -> Option<u64> {
        if self.out.iter().any(|out| out.background) {
            return None;
        }
        let covered = self.out.iter().map(|out| out.covers).max().unwrap_or(0);
        let uncovered = self.calls.iter().skip(covered).filter(|call| !call.on_disk);
        let oldest = uncovered.filter_map(|call| call.acknowledged).min()?;
        let at = (oldest + within.saturating_sub(2 * SYNC)).max(self.landed);
        (at <= self.now).then_some(at)
    }

    /// Asks the engine, after a change, whether it wants a background sync.
    fn looked(mut self) -> World {
        let wants = self.log.next(self.time()) == Step::Start;
        self.ready = wants.then(|| self.ready.unwrap_or(self.now));
        self
    }

    /// The age of the oldest acknowledged call that is not on the disk, in ticks.
    fn age(&self) -> u64 {
        let lost = self.calls.iter().filter(|c| !c.on_disk).filter_map(|c| c.acknowledged);
        lost.map(|at| self.now - at).max().unwrap_or(0)
    }

    fn start(mut self, background: bool, until: u64) -> World {
        let flight = self.log.start(background, false, self.time());
        let covers = self.calls.len();
        self.out.push(Out { id: flight.id, covers, until, background });
        self
    }

    fn begin(&mut self, acknowledged: Option<u64>) -> u64 {
        self.log.wrote(self.log.written() + 1);
        self.calls.push(Call { acknowledged, on_disk: false });
        self.log.begin(false).number
    }

    fn covered(&mut self, calls: usize) {
        for call in self.calls.iter_mut().take(calls) {
            call.on_disk = true;
        }
    }

    fn successors(&self, limits: Limits) -> Vec<World> {
        let mut next = Vec::new();
        let now = self.time();
        let deadline = self.wanted(limits.within);
        if self.log.rules().assume_sync == Some(SYNC * TICK) && deadline.is_some() {
            assert!(self.ready <= deadline, "the engine sleeps too long");
            assert!(self.ready.is_some(), "the engine sleeps");
        }
        // The time of a sync counts from when it was wanted.
        let wanted = deadline.and_then(|at| Some(at.max(self.ready?)));
        let until = wanted.unwrap_or(self.now) + SYNC;
        // The application acknowledges a call, and asks for a sync or leaves it to the deadline.
        if self.calls.len() < limits.calls && self.now <= limits.last {
            for defers in [false, true] {
                let mut world = self.clone();
                let call = world.begin(Some(self.now));
                if defers {
                    world.log.request(call, now);
                }
                world.log.acknowledge(call, now).unwrap();
                next.push(world);
            }
            // Another of its threads makes a sync of its own.
            if self.direct < limits.direct {
                let mut world = self.clone();
                world.direct += 1;
                world.begin(None);
                next.push(world.start(false, until));
            }
        }
        // The syncer starts what the engine wants, at once or when it has got a processor.
        if self.ready.is_some() {
            next.push(self.clone().start(true, until));
        }
        for (index, out) in self.out.iter().enumerate() {
            let mut world = self.clone();
            world.out.remove(index);
            world.covered(out.covers);
            if out.background {
                world.landed = self.now;
            }
            world.log.finish(out.id, now, Ok(()));
            assert!(
                !world.hides_a_missed_deadline(self, limits),
                "nothing explains a missed deadline"
            );
            next.push(world);
        }
        // The kernel reports a sync that the engine did not start.
        if self.witnessed < limits.witnessed && !self.calls.is_empty() {
            for covers in 1..=self.calls.len() {
                let mut world = self.clone();
                world.witnessed += 1;
                world.covered(covers);
                // Every call wrote one byte.
                world.log.witness(covers as u64, covers as u64, 0);
                next.push(world);
            }
        }
        // Time goes on while the assumption holds and something may still happen.
        let waits = self.out.iter().any(|out| out.until <= self.now)
            || wanted.is_some_and(|at| at + SYNC <= self.now);
        let idle = self.calls.iter().all(|call| call.on_disk) && self.out.is_empty();
        let over = idle && (self.calls.is_empty() || self.now > limits.last);
        if !waits && !over {
            next.push(World { now: self.now + 1, ..self.clone() });
        }
        next.into_iter().map(World::looked).collect()
    }

    /// Whether the sync that has just ended covers a call that is past its deadline, and no broken assumption
    /// is counted.
    fn hides_a_missed_deadline(&self, before: &World, limits: Limits) -> bool {
        let assumed = self.log.rules().assume_sync;
        if assumed.is_none_or(|most| 2 * most > limits.within * TICK) || self.witnessed > 0 {
            return false;
        }
        let covered =
            self.calls.iter().zip(&before.calls).filter(|(now, then)| now.on_disk != then.on_disk);
        let mut acknowledged = covered.filter_map(|(call, _)| call.acknowledged);
        acknowledged.any(|at| self.now - at > limits.within)
            && self.log.counters().broken_assumptions == 0
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// What a walk through all runs has seen.
struct Seen {
    oldest: u64,
    broken: u64,
}

fn walk(rules: Rules, limits: Limits) -> Seen {
    let mut known = HashSet::new();
    let mut stack = vec![World::new(rules)];
    let mut seen = Seen { oldest: 0, broken: 0 };
    while let Some(world) = stack.pop() {
        if !known.insert(world.digest()) {
            continue;
        }
        seen.oldest = seen.oldest.max(world.age());
        seen.broken = seen.broken.max(world.log.counters().broken_assumptions);
        stack.extend(world.successors(limits));
    }
    seen
}

fn rules(within: u64, assume: Option<u64>) -> Rules {
    Rules {
        flush_within: Some(within * TICK),
        assume_sync: assume.map(|ticks| ticks * TICK),
        ..Rules::default()
    }
}

#[test]
fn nothing_acknowledged_is_older_than_the_deadline() {
    for (within, direct, witnessed) in [(4, 1, 0), (4, 0, 1), (5, 1, 0), (6, 0, 0), (10, 0, 0)] {
        let limits = Limits { within, calls: 3, direct, witnessed, last: 2 };
        let seen = walk(rules(within, Some(SYNC)), limits);
        // A call is on the disk one sync before the deadline, unless a sync that was out when it came
        // delays the one that covers it.
        assert_eq!(seen.oldest, (within - SYNC).max(2 * SYNC), "within {within}");
        // After a sync that it did not start, the engine does not know the age of the oldest call, takes
        // it for older than it is, and may count a sync that was in time.
        assert!(seen.broken == 0 || witnessed > 0, "within {within}: {}", seen.broken);
    }
}

/// Without the assumption, the first sync starts at the deadline: the engine does not know yet how long one
/// takes.
#[test]
fn a_sync_that_starts_at_the_deadline_is_too_late() {
    let limits = Limits { within: 4, calls: 1, direct: 0, witnessed: 0, last: 0 };
    assert!(walk(rules(4, None), limits).oldest > 4);
}

/// An assumption that the disk breaks does not help. [`World::hides_a_missed_deadline`] is checked at the end
/// of each sync.
#[test]
fn a_deadline_is_missed_only_if_a_broken_assumption_is_counted() {
    for (within, calls) in [(2, 3), (3, 3)] {
        let limits = Limits { within, calls, direct: 1, witnessed: 0, last: 3 };
        let seen = walk(rules(within, Some(SYNC - 1)), limits);
        assert!(seen.oldest > within && seen.broken > 0, "{} {}", seen.oldest, seen.broken);
    }
}

#[test]
fn without_an_assumption_calls_are_older_by_at_most_two_syncs() {
    for within in [4, 5] {
        let limits = Limits { within, calls: 3, direct: 1, witnessed: 0, last: 2 };
        let seen = walk(rules(within, None), limits);
        assert!(seen.oldest > within && seen.oldest <= within + 2 * SYNC, "{}", seen.oldest);
        assert_eq!(seen.broken, 0);
    }
}

#[test]
fn two_syncs_have_to_fit_into_the_deadline() {
    let limits = Limits { within: 3, calls: 3, direct: 1, witnessed: 0, last: 2 };
    assert!(walk(rules(3, Some(SYNC)), limits).oldest > 3);
}
