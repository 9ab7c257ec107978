//! Random schedules of application threads, the syncer and a device that fails, checked against an
//! oracle that knows nothing of the engine: a list of calls, and what the device did to each.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test that fails says so"
)]

use durac_engine::{Flight, Log, Rules, Step};
use durac_support::Random;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Volatile,
    Durable,
    Lost,
}

/// The device and the application's view, in the plainest terms.
#[derive(Default)]
struct Oracle {
    /// One per call, from number 1.
    fates: Vec<Fate>,
    /// As many of them from the first are known to be durable, which is for ever.
    prefix: usize,
    acknowledged: u64,
    failed: bool,
    /// A write-back error that no sync has reported yet.
    unreported: bool,
}

impl Oracle {
    /// The device loses what is not durable.
    fn device_fails(&mut self) {
        for fate in &mut self.fates[self.prefix..] {
            if *fate == Fate::Volatile {
                *fate = Fate::Lost;
            }
        }
        self.unreported = true;
    }

    /// The kernel's part of a sync ends that started when `begun` calls had begun.
    fn sync_ends(&mut self, begun: usize) -> Result<(), i32> {
        if std::mem::take(&mut self.unreported) {
            return Err(5);
        }
        for fate in self.fates[..begun].iter_mut().skip(self.prefix) {
            if *fate == Fate::Volatile {
                *fate = Fate::Durable;
            }
        }
        Ok(())
    }

    /// Calls from the first on that are durable: what a power loss leaves.
    fn durable(&mut self) -> u64 {
        let more = self.fates[self.prefix..].iter().take_while(|f| **f == Fate::Durable).count();
        self.prefix += more;
        self.prefix as u64
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Defer,
    Skip,
    Pass,
}

#[derive(Clone, Copy, Debug)]
struct Policy {
    early: bool,
    distance: Option<u64>,
    verdict: Verdict,
    flush_within: Option<u64>,
}

/// In the system call: the calls begun before, and what the kernel said, once it has.
type InCall = (Flight, usize, Option<Result<(), i32>>);

#[derive(Clone, Copy, Debug)]
enum Thread {
    Idle,
    Decides(u64),
    Waits(u64, u64),
    Acknowledges(u64),
    /// As in [`InCall`].
    Syncs(Flight, usize, Option<Result<(), i32>>),
    /// Its sync came home; it goes on when the success is believed.
    Believes(Flight),
}

fn run(policy: Policy, threads: usize, failures: bool, seed: u64) {
    let mut random = Random(seed);
    let mut log = Log::new(Rules {
        flush_within: policy.flush_within,
        keeps_age: true,
        stages: false,
        ..Rules::default()
    });
    let mut oracle = Oracle::default();
    let mut app = vec![Thread::Idle; threads];
    let mut syncer: Option<InCall> = None;
    let (mut now, mut written) = (0u64, 0u64);
    for step in 0..3000 {
        now += random.below(60_000);
        if failures && step > 1000 && random.one_in(400) {
            oracle.device_fails();
        }
        let who = random.below(threads as u64 + 1) as usize;
        if who == threads {
            syncer = step_syncer(&mut log, &mut oracle, syncer, now, &mut random);
        } else {
            app[who] = step_thread(
                policy,
                &mut log,
                &mut oracle,
                app[who],
                now,
                &mut written,
                &mut random,
            );
        }
        check(policy, &log, &mut oracle, &app, now, step);
    }
    assert!(failures || log.calls() > 20, "the schedule must get somewhere");
}

fn step_syncer(
    log: &mut Log,
    oracle: &mut Oracle,
    syncer: Option<InCall>,
    now: u64,
    random: &mut Random,
) -> Option<InCall> {
    match syncer {
        None => (log.next(now) == Step::Start)
            .then(|| (log.start(true, false, now), oracle.fates.len(), None)),
        Some((flight, begun, None)) if random.one_in(3) => {
            Some((flight, begun, Some(oracle.sync_ends(begun))))
        }
        Some((flight, _, Some(result))) => {
            oracle.failed |= result.is_err();
            log.finish(flight.id, now, result);
            None
        }
        waiting => waiting,
    }
}

fn step_thread(
    policy: Policy,
    log: &mut Log,
    oracle: &mut Oracle,
    thread: Thread,
    now: u64,
    written: &mut u64,
    random: &mut Random,
) -> Thread {
    match thread {
        Thread::Idle => {
            if !random.one_in(50) {
                *written += 1 + random.below(100);
                log.wrote(*written);
            }
            if log.error().is_some() {
                return Thread::Idle;
            }
            let call = log.begin(random.one_in(10));
            oracle.fates.push(Fate::Volatile);
            assert_eq!(oracle.fates.len() as u64, call.number);
            if call.barrier {
                return Thread::Syncs(log.start(false, false, now), oracle.fates.len(), None);
            }
            if policy.early {
                log.request(call.number, now);
            }
            match (policy.distance, log.overdue(now)) {
                (_, Some(target)) => Thread::Waits(call.number, target),
                (Some(distance), None) => {
                    Thread::Waits(call.number, log.await_target(call.number, distance))
                }
                (None, None) => Thread::Decides(call.number),
            }
        }
        Thread::Waits(number, target) => {
            if !log.is_ready(target) {
                log.demand(target);
                return thread;
            }
            match policy.distance {
                // It waited for a deadline first.
                Some(distance) if number.saturating_sub(distance) > log.durable() => {
                    Thread::Waits(number, log.await_target(number, distance))
                }
                _ => Thread::Decides(number),
            }
        }
        Thread::Decides(number) => match policy.verdict {
            Verdict::Defer => {
                log.request(number, now);
                Thread::Acknowledges(number)
            }
            Verdict::Skip => Thread::Acknowledges(number),
            Verdict::Pass => Thread::Syncs(log.start(false, false, now), oracle.fates.len(), None),
        },
        Thread::Acknowledges(number) => {
            match log.acknowledge(number, now) {
                Ok(()) => {
                    assert!(!oracle.failed, "success after a failed sync");
                    oracle.acknowledged = oracle.acknowledged.max(number);
                }
                Err(errno) => assert_eq!(errno, 5),
            }
            Thread::Idle
        }
        Thread::Syncs(flight, begun, None) => {
            let result = random.one_in(3).then(|| oracle.sync_ends(begun));
            Thread::Syncs(flight, begun, result)
        }
        Thread::Syncs(flight, _, Some(result)) => {
            oracle.failed |= result.is_err();
            log.finish(flight.id, now, result);
            if result.is_ok() { Thread::Believes(flight) } else { Thread::Idle }
        }
        Thread::Believes(flight) if log.is_ready(flight.covers) => Thread::Idle,
        Thread::Believes(_) => thread,
    }
}

fn check(policy: Policy, log: &Log, oracle: &mut Oracle, app: &[Thread], now: u64, step: usize) {
    let context = || format!("{policy:?}, step {step}\n{log:#?}\n{app:?}");
    // What the engine calls durable is durable, as a prefix.
    assert!(log.durable() <= oracle.durable(), "{}", context());
    let at_risk = oracle.acknowledged.saturating_sub(oracle.durable());
    // The bound, as the engine counts and as the device knows it.
    if let Some(distance) = policy.distance {
        assert!(log.unsynced() <= distance, "{}", context());
        assert!(at_risk <= distance, "{}", context());
    } else if policy.verdict == Verdict::Pass {
        assert_eq!(at_risk, 0, "{}", context());
    }
    // No lost wake-up: whoever waits, waits for something that is under way or about to start.
    for thread in app {
        let target = match thread {
            Thread::Waits(_, target) if demands(log, *target) => *target,
            _ => continue,
        };
        let under_way = log.is_promised(target) || log.background().is_some();
        let woken = log.is_ready(target) || under_way || log.next(now) == Step::Start;
        assert!(woken, "waits for ever: {}", context());
    }
}

/// Whether the thread has told the engine already that it waits.
fn demands(log: &Log, target: u64) -> bool {
    let mut again = log.clone();
    again.demand(target);
    again == *log
}

fn policies() -> Vec<Policy> {
    let mut policies = Vec::new();
    for verdict in [Verdict::Defer, Verdict::Skip, Verdict::Pass] {
        for early in [false, true] {
            for distance in [None, Some(1), Some(2), Some(8), Some(64)] {
                for flush_within in [None, Some(2_000_000)] {
                    policies.push(Policy { early, distance, verdict, flush_within });
                }
            }
        }
    }
    policies
}

#[test]
fn every_policy_keeps_its_bound() {
    for (index, policy) in policies().into_iter().enumerate() {
        for threads in 1..=3 {
            for seed in 0..4 {
                run(policy, threads, false, seed + 1000 * index as u64);
            }
        }
    }
}

#[test]
fn and_when_the_device_fails() {
    for (index, policy) in policies().into_iter().enumerate() {
        for threads in 1..=3 {
            for seed in 0..8 {
                run(policy, threads, true, seed + 77_000 * index as u64);
            }
        }
    }
}
