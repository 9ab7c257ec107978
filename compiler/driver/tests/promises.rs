//! What the checker of certificates takes for granted of the engine, held against the engine: random runs of one
//! caller, with writes and syncs of others that pass by while it waits.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use durac_engine::{Able, Answer, Decision, Entry, Flight, Log, Put, Rules, Step, Wait, Writing};
use durac_support::Random;

const EIO: i32 = 5;

/// A sync call: its number, the bytes that were written when it began, whether it was acknowledged.
struct Call {
    number: u64,
    bytes: u64,
    acknowledged: bool,
}

struct World {
    random: Random,
    log: Log,
    calls: Vec<Call>,
    out: Vec<Flight>,
    /// Every write is staged.
    stages: bool,
    /// What was checked, by promise.
    checked: [u32; 5],
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let stages = random.below(2) == 0;
        let log = Log::new(Rules { stages, ..Rules::default() });
        Self { random, log, calls: Vec::new(), out: Vec::new(), stages, checked: [0; 5] }
    }

    fn covered(&self) -> u64 {
        self.log.written() - self.log.pending_bytes()
    }

    fn is_durable(&self, call: &Call) -> bool {
        call.number <= self.log.durable() || call.bytes <= self.covered()
    }

    /// Acknowledged and not durable.
    fn lost(&self) -> u64 {
        self.calls.iter().filter(|call| call.acknowledged && !self.is_durable(call)).count() as u64
    }

    fn write(&mut self, passes_by: bool) {
        if passes_by {
            self.log.passed_by();
        } else {
            let decision = if self.stages { Writing::Stage } else { Writing::Pass };
            let copies = self.random.below(4) > 0;
            if let Put::Fail(_) = self.log.decide_write(decision, copies, Able::ALL, 0) {
                return;
            }
        }
        self.log.wrote(self.log.written() + 1);
    }

    /// The syncer starts what is wanted, or a sync that is out ends.
    fn background(&mut self) {
        if self.log.background().is_none() && self.log.next(u64::MAX) == Step::Start {
            self.out.push(self.log.start(true, false, 0));
        } else if !self.out.is_empty() {
            let place = self.random.below(self.out.len() as u64) as usize;
            let flight = self.out.swap_remove(place);
            let result = if self.random.below(200) == 0 { Err(EIO) } else { Ok(()) };
            self.log.land(flight.id, 0, result, true);
        }
    }

    /// A call runs its own sync; whether it is done with success.
    fn own_sync(&mut self, interrupted: bool) -> bool {
        let flight = self.log.start(false, false, 0);
        if self.random.below(2) == 0 {
            self.background();
        }
        if interrupted {
            self.log.abandon(flight.id, 0);
            return false;
        }
        self.log.land(flight.id, 0, Ok(()), true);
        while !self.log.is_ready(flight.covers) {
            self.background();
        }
        self.log.error().is_none()
    }

    fn call(&mut self, entry: Entry) -> Option<(u64, bool)> {
        let (call, asks) = match entry {
            Entry::Refused(_) => return None,
            Entry::Ask(call) => (call, true),
            Entry::Direct(call) => (call, false),
        };
        let (number, bytes) = (call.number, self.log.written());
        self.calls.push(Call { number, bytes, acknowledged: false });
        Some((number, asks))
    }

    fn acknowledged(&mut self, number: u64) {
        self.calls.iter_mut().for_each(|call| call.acknowledged |= call.number == number);
    }

    /// A sync call of another, which overlaps this one, or for which the policy does not run.
    fn passes(&mut self, number: u64) {
        let passed = self.log.passed();
        let interrupted = self.random.below(9) == 0;
        if self.own_sync(interrupted) {
            self.log.direct_done(passed);
            self.acknowledged(number);
            assert_eq!(self.lost(), 0, "after a sync of its own");
            self.checked[0] += 1;
        }
    }

    /// What the program reads is what is promised.
    fn reads(&mut self, number: u64) {
        let (pending, lost) = (self.log.pending(number), self.lost());
        assert!(pending >= lost, "pending {pending}, {lost} lost");
        if self.stages {
            let itself = u64::from(self.log.durable() < number);
            assert_eq!(self.log.staged(number), pending + itself);
            assert!(itself == 1 || lost == 0);
        }
        if self.log.notify_done() {
            assert_eq!(lost, 0, "notify.done");
            let own = self.calls.iter().find(|call| call.number == number);
            assert!(own.is_none_or(|own| self.is_durable(own)));
            self.checked[1] += 1;
        }
        self.checked[2] += 1;
    }

    fn waits(&mut self, number: u64, distance: u64) {
        let target = self.log.await_target(number, distance);
        loop {
            let awake = self.random.below(2) == 0;
            match self.log.wait(target, awake, Able::ALL) {
                Wait::Ready => break,
                Wait::Sync => _ = self.own_sync(false),
                Wait::Sleep => {
                    if self.random.below(3) == 0 {
                        self.write(true);
                    }
                    if self.random.below(6) == 0
                        && let Some((other, _)) = {
                            let entry = self.log.enter(false, false);
                            self.call(entry)
                        }
                    {
                        self.passes(other);
                    }
                    if self.log.next(u64::MAX) == Step::Start || !self.out.is_empty() {
                        self.background();
                    }
                }
            }
        }
        if self.log.error().is_some() {
            return;
        }
        let left = distance.saturating_sub(1);
        let before = |call: &&Call| call.number < number && call.acknowledged;
        let lost = self.calls.iter().filter(before).filter(|call| !self.is_durable(call)).count();
        assert!(
            lost as u64 <= left && self.log.pending(number) <= left,
            "await {distance}: {lost}"
        );
        let own = self.calls.iter().find(|call| call.number == number).unwrap();
        assert!(distance > 0 || self.is_durable(own));
        self.checked[3] += 1;
    }

    fn sync(&mut self) {
        let entry = self.log.enter(false, true);
        let Some((number, asks)) = self.call(entry) else { return };
        if !asks {
            return self.passes(number);
        }
        self.reads(number);
        let mut requested = false;
        for _ in 0..self.random.below(3) {
            if self.random.below(2) == 0 {
                self.log.request(number, 0);
                requested = true;
            }
            let distance = self.random.below(5);
            self.waits(number, distance);
            if self.log.error().is_none() {
                self.reads(number);
            }
        }
        let before = self.lost();
        let own = self.calls.iter().find(|call| call.number == number);
        let own = u64::from(own.is_some_and(|own| !self.is_durable(own)));
        let decision = self.random.pick(&[
            Decision::Skip,
            Decision::Skip,
            Decision::Defer,
            Decision::Defer,
            Decision::Pass,
            Decision::Fail(EIO),
        ]);
        match self.log.decide(number, decision, requested, Able::ALL, 0) {
            Answer::Return(Ok(())) => {
                self.acknowledged(number);
                assert!(self.lost() <= before + own);
                self.checked[4] += 1;
            }
            Answer::Return(Err(_)) => assert!(self.lost() <= before),
            Answer::Sync => self.passes(number),
        }
    }
}

#[test]
fn the_engine_keeps_what_the_checker_takes_for_granted() {
    let mut checked = [0; 5];
    for seed in 0..400 {
        let mut world = World::new(0x5eed_1000 + seed);
        for _ in 0..150 {
            let before = world.lost();
            match world.random.below(4) {
                0 => world.background(),
                1 => {
                    world.write(false);
                    assert!(world.lost() <= before, "a write");
                }
                _ => {
                    if world.random.below(5) > 0 {
                        world.write(false);
                    }
                    world.sync();
                }
            }
        }
        checked.iter_mut().zip(world.checked).for_each(|(all, one)| *all += one);
    }
    assert!(checked.iter().all(|count| *count > 500), "{checked:?}");
}
