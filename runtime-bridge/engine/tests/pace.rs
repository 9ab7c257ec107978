//! How many calls a background sync covers, of an application with one thread that makes calls at even distances, on a
//! disk whose syncs all take as long. Time is simulated; the engine is the real one.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use durac_engine::{Able, Flight, Log, Rules, Step, Time, Wait};

const US: Time = 1_000;
/// From when a syncer thread is woken until it runs.
const WAKE: Time = 35 * US;

struct World {
    log: Log,
    now: Time,
    sync: Time,
    /// Of the syncs a third takes twice as long, a third of these four times, and so on.
    uneven: bool,
    out: Option<(Flight, Time)>,
    /// When the syncer thread runs that was woken.
    wakes: Option<Time>,
    syncs: u64,
}

impl World {
    /// How long the sync takes that starts now.
    fn takes(&mut self) -> Time {
        self.syncs += 1;
        let mut random = self.syncs.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let mut time = self.sync;
        while self.uneven && random.is_multiple_of(3) && time < 16 * self.sync {
            random /= 3;
            time *= 2;
        }
        time
    }

    /// Time passes until then; syncs start and end.
    fn until(&mut self, then: Time) {
        loop {
            let (at, ends) = match (&self.out, self.log.next(self.now)) {
                (Some((_, end)), _) => (*end, true),
                (None, Step::Start) => (*self.wakes.get_or_insert(self.now + WAKE), false),
                (None, Step::At(at)) => (at.max(self.now) + WAKE, false),
                (None, Step::Idle) => (Time::MAX, false),
            };
            if at > then {
                break;
            }
            self.now = at;
            match self.out.take() {
                Some((flight, _)) if ends => self.log.finish(flight.id, at, Ok(())),
                _ => {
                    self.wakes = None;
                    self.out = Some((self.log.start(true, false, at), at + self.takes()));
                }
            }
        }
        self.now = self.now.max(then);
    }

    /// `await pending < n; defer`
    fn call(&mut self, n: u64) {
        self.log.wrote(self.log.written() + 10);
        let call = self.log.begin(false).number;
        match self.log.times_requests() {
            true => self.log.request(call, self.now),
            false => self.log.request_untimed(call),
        }
        let target = self.log.await_target(call, n);
        if !self.log.is_ready(target) {
            self.log.parks(self.now);
        }
        loop {
            match self.log.wait(target, self.wakes.is_some(), Able::ALL) {
                Wait::Ready => break,
                Wait::Sync => {
                    let flight = self.log.start(false, false, self.now);
                    self.now += self.takes();
                    self.log.finish(flight.id, self.now, Ok(()));
                }
                Wait::Sleep => {
                    let end = self.out.as_ref().map(|(_, end)| *end);
                    self.until(end.or(self.wakes).unwrap());
                }
            }
        }
        self.log.acknowledge(call, self.now).unwrap();
    }
}

/// Calls for each sync, and the time of a call, in the second half of 4,000 calls.
fn run(n: u64, spacing: Time, sync: Time) -> (f64, f64) {
    run_with(n, spacing, sync, false)
}

fn run_with(n: u64, spacing: Time, sync: Time, uneven: bool) -> (f64, f64) {
    let log = Log::new(Rules::default());
    let mut world = World { log, now: 0, sync, uneven, out: None, wakes: None, syncs: 0 };
    let mut before = (0, 0);
    for call in 0..4_000 {
        if call == 2_000 {
            before = (world.syncs, world.now);
        }
        world.until(world.now + spacing);
        world.call(n);
    }
    let (syncs, time) = (world.syncs - before.0, world.now - before.1);
    (2_000.0 / syncs as f64, time as f64 / 2_000.0)
}

/// An application that fills its window while a sync runs waits for every sync: each covers a whole window.
#[test]
fn a_slow_sync_covers_a_whole_window() {
    for (n, spacing, sync) in [
        (16, 8 * US, 1_100 * US),
        (64, 8 * US, 1_100 * US),
        (16, 8 * US, 10_000 * US),
        (8, 30 * US, 1_100 * US),
    ] {
        let (calls, time) = run(n, spacing, sync);
        let least = (sync + n * spacing) as f64 / n as f64;
        assert!(calls > 0.9 * n as f64, "{n}, {spacing}, {sync}: {calls} calls for each sync");
        assert!(time < 1.15 * least, "{n}, {spacing}, {sync}: {time} instead of {least}");
    }
}

/// One that does not fill it never waits.
#[test]
fn a_quick_sync_ends_before_the_window_is_full() {
    for (n, spacing, sync) in
        [(16, 60 * US, 150 * US), (64, 60 * US, 150 * US), (256, 10 * US, 300 * US)]
    {
        let (calls, time) = run(n, spacing, sync);
        assert!(time < 1.02 * spacing as f64, "{n}, {spacing}, {sync}: {time}");
        assert!(calls > 0.6 * n as f64, "{n}, {spacing}, {sync}: {calls} calls for each sync");
    }
}

/// What was learned of a slow disk or a quick application is forgotten.
#[test]
fn the_pace_follows() {
    let log = Log::new(Rules::default());
    let mut world =
        World { log, now: 0, sync: 1_100 * US, uneven: false, out: None, wakes: None, syncs: 0 };
    let calls = |world: &mut World, spacing: Time| {
        let begun = world.now;
        for _ in 0..2_000 {
            world.until(world.now + spacing);
            world.call(16);
        }
        (world.now - begun) as f64 / 2_000.0
    };
    assert!(calls(&mut world, 8 * US) < 1.2 * 77_000.0);
    // The application takes its time now: it does not wait any more.
    assert!(calls(&mut world, 200 * US) < 1.03 * 200_000.0);
    assert!(calls(&mut world, 8 * US) < 1.2 * 77_000.0);
    world.sync = 100 * US;
    assert!(calls(&mut world, 30 * US) < 1.03 * 30_000.0);
}

/// A disk whose syncs do not all take as long: the pace leaves room for most of them, not for the slowest.
#[test]
fn a_slow_sync_now_and_then_is_waited_for() {
    for (n, spacing, most) in [
        (16, 60 * US, 1.11),
        (64, 37 * US, 1.09),
        (64, 25 * US, 1.14),
        (64, 20 * US, 1.17),
        (256, 37 * US, 1.0),
        (256, 15 * US, 1.0),
    ] {
        let (calls, time) = run_with(n, spacing, 150 * US, true);
        let factor = time / spacing as f64;
        assert!(factor <= most, "{n}, {spacing}: {factor} times as long as without syncs");
        assert!(calls > 0.7 * n as f64, "{n}, {spacing}: {calls} calls for each sync");
    }
}
