//! One test per rule of the engine.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test that fails says so"
)]

use durac_engine::{Entry, Log, Rules, Step};

const MS: u64 = 1_000_000;

fn log() -> Log {
    Log::new(Rules::default())
}

fn within(flush_within: u64) -> Log {
    Log::new(Rules { flush_within: Some(flush_within), ..Rules::default() })
}

/// A sync call after a write, deferred.
fn deferred(log: &mut Log, now: u64) -> u64 {
    log.wrote(log.written() + 10);
    let call = log.begin(false);
    assert!(!call.barrier);
    log.request(call.number, now);
    log.acknowledge(call.number, now).unwrap();
    call.number
}

#[test]
fn a_sync_covers_every_call_begun_before_it() {
    let mut log = log();
    deferred(&mut log, 0);
    deferred(&mut log, 0);
    let flight = log.start(true, false, 0);
    deferred(&mut log, 0);
    assert_eq!((flight.covers, flight.bytes), (2, 20));
    log.finish(flight.id, 1, Ok(()));
    assert_eq!((log.durable(), log.unsynced(), log.pending_bytes()), (2, 1, 10));
}

#[test]
fn pending_counts_calls_before_this_one() {
    let mut log = log();
    assert_eq!(log.pending(log.upcoming()), 0);
    deferred(&mut log, 0);
    deferred(&mut log, 0);
    let call = log.begin(false);
    assert_eq!(log.pending(call.number), 2);
    let flight = log.start(true, false, 0);
    log.finish(flight.id, 1, Ok(()));
    // The sync covered this call too.
    assert_eq!(log.pending(call.number), 0);
}

#[test]
fn await_is_ready_at_its_distance() {
    let mut log = log();
    for _ in 0..3 {
        deferred(&mut log, 0);
    }
    log.wrote(100);
    let call = log.begin(false).number;
    for (distance, ready) in [(0, false), (1, false), (2, false), (3, false), (4, true), (9, true)]
    {
        let target = log.await_target(call, distance);
        assert_eq!(log.is_ready(target), ready, "distance {distance}");
    }
}

#[test]
fn an_await_starts_a_sync_only_if_none_helps() {
    let mut log = log();
    log.await_target(1, 64);
    deferred(&mut log, 0);
    assert_ne!(log.next(0), Step::Start);
    log.demand(1);
    assert_eq!(log.next(0), Step::Start);
    let flight = log.start(true, false, 0);
    assert_eq!(log.next(0), Step::Idle);
    // What is in the air does not cover the next call: as soon as it is home, another starts.
    deferred(&mut log, 0);
    log.demand(2);
    assert_eq!(log.next(0), Step::Idle);
    log.finish(flight.id, 1, Ok(()));
    assert_eq!(log.next(1), Step::Start);
}

#[test]
fn a_direct_sync_that_covers_a_demand_is_enough() {
    let mut log = log();
    deferred(&mut log, 0);
    let flight = log.start(false, false, 0);
    log.demand(1);
    assert!(log.is_promised(1));
    assert_eq!(log.next(0), Step::Idle);
    log.finish(flight.id, 1, Ok(()));
    assert!(log.is_ready(1));
}

#[test]
fn nothing_written_since_the_last_call_is_a_barrier() {
    let mut log = log();
    assert!(log.begin(false).barrier, "nothing was ever written");
    log.wrote(5);
    assert!(!log.begin(false).barrier);
    assert!(log.begin(false).barrier);
    log.wrote(6);
    assert!(!log.begin(true).barrier);
}

#[test]
fn written_bytes_never_go_back() {
    let mut log = log();
    log.wrote(10);
    log.wrote(4);
    assert_eq!(log.written(), 10);
}

#[test]
fn a_failed_sync_stops_the_log() {
    let mut log = log();
    deferred(&mut log, 0);
    log.demand(1);
    let flight = log.start(true, false, 0);
    deferred(&mut log, 0);
    log.finish(flight.id, 1, Err(5));
    assert_eq!(log.error(), Some(5));
    assert!(log.is_ready(2), "who waits wakes up");
    let call = log.begin(false);
    assert_eq!(log.acknowledge(call.number, 2), Err(5));
    assert_eq!(log.acknowledged(), 2);
    assert_eq!(log.next(2), Step::Idle);
    // A later success proves nothing.
    let flight = log.start(false, false, 3);
    log.finish(flight.id, 4, Ok(()));
    assert_eq!((log.durable(), log.error()), (0, Some(5)));
    log.fail(28);
    assert_eq!(log.error(), Some(5), "the first error stays");
}

#[test]
fn a_success_is_believed_when_no_older_sync_can_contradict_it() {
    let mut log = log();
    deferred(&mut log, 0);
    let background = log.start(true, false, 0);
    let direct = log.start(false, false, 0);
    log.finish(direct.id, 1, Ok(()));
    assert_eq!(log.durable(), 0, "the other one may have taken the error");
    assert!(log.is_promised(1));
    // One that starts after it came home says nothing about it.
    let later = log.start(false, false, 1);
    log.finish(background.id, 2, Ok(()));
    assert_eq!(log.durable(), 1);
    log.finish(later.id, 3, Ok(()));
    assert_eq!(log.durable(), 1);
}

#[test]
fn a_success_beside_a_failure_is_not_believed() {
    let mut log = log();
    deferred(&mut log, 0);
    let background = log.start(true, false, 0);
    let direct = log.start(false, false, 0);
    log.finish(direct.id, 1, Ok(()));
    log.finish(background.id, 2, Err(5));
    assert_eq!((log.durable(), log.error()), (0, Some(5)));
}

#[test]
fn an_abandoned_sync_proves_nothing_and_fails_nothing() {
    let mut log = within(100 * MS);
    deferred(&mut log, 0);
    let flight = log.start(false, false, 0);
    log.abandon(flight.id, 1);
    assert_eq!((log.durable(), log.error()), (0, None));
    assert_eq!(log.next(1), Step::Start, "its request stands again");
    log.finish(flight.id, 2, Ok(()));
    assert_eq!(log.durable(), 0, "it is over");
}

#[test]
fn a_deferred_fsync_needs_an_fsync() {
    let mut log = log();
    deferred(&mut log, 0);
    assert!(!log.start(true, false, 0).full);
    log.wrote(50);
    let call = log.begin(true);
    log.acknowledge(call.number, 0).unwrap();
    let flight = log.start(false, false, 0);
    assert!(flight.full);
    log.finish(0, 1, Ok(()));
    log.finish(flight.id, 1, Ok(()));
    assert_eq!(log.durable(), 2);
    assert!(!log.start(true, false, 2).full);
    assert!(log.start(true, true, 2).full);
}

#[test]
fn one_background_sync_at_a_time() {
    let mut log = log();
    deferred(&mut log, 0);
    let flight = log.start(true, false, 0);
    deferred(&mut log, 0);
    assert_eq!(log.next(10_000 * MS), Step::Idle);
    log.finish(flight.id, 1, Ok(()));
    assert_eq!(log.next(1), Step::Start);
}

#[test]
fn without_a_wait_a_deferred_sync_starts_at_once() {
    let mut log = log();
    deferred(&mut log, 0);
    assert_eq!(log.next(0), Step::Start);
}

#[test]
fn a_skipped_sync_starts_nothing() {
    let mut log = log();
    log.wrote(1);
    let call = log.begin(false).number;
    log.acknowledge(call, 0).unwrap();
    assert_eq!(log.next(u64::MAX / 2), Step::Idle);
    assert_eq!(log.undrained(), Some(1));
}

#[test]
fn a_window_waits_for_company_but_not_for_ever() {
    let mut log = log();
    for _ in 0..13 {
        let call = log.calls() + 1;
        log.await_target(call, 16);
        deferred(&mut log, MS);
        assert_eq!(log.next(MS), Step::At(3 * MS));
    }
    assert_eq!(log.next(3 * MS), Step::Start);
    deferred(&mut log, MS);
    assert_eq!(log.next(MS), Step::Start, "the window is nearly full");
}

#[test]
fn a_wide_window_waits_longer() {
    let mut log = log();
    log.await_target(1, 256);
    deferred(&mut log, 0);
    assert_eq!(log.next(0), Step::At(10 * MS));
}

#[test]
fn a_window_of_one_starts_at_once() {
    let mut log = log();
    log.await_target(1, 1);
    deferred(&mut log, 0);
    assert_eq!(log.next(0), Step::Start);
}

/// The next call would wait for a sync that is out: it makes one itself, for both, if it comes soon.
#[test]
fn a_window_of_one_waits_for_a_call_that_comes_sooner_than_a_sync_ends() {
    const SYNC: u64 = MS / 5;
    let mut log = log();
    let mut now = 0;
    // So many calls, each so long after the application went on; what the syncer has to do after the last.
    let mut calls = |number: u32, turn: u64| {
        let mut step = Step::Idle;
        for _ in 0..number {
            now += turn;
            let target = log.await_target(log.calls() + 1, 1);
            deferred(&mut log, now);
            if !log.is_ready(target) {
                let flight = log.start(false, false, now);
                now += SYNC;
                log.finish(flight.id, now, Ok(()));
            }
            step = log.next(now);
            if step == Step::Start {
                let flight = log.start(true, false, now);
                log.finish(flight.id, now + SYNC, Ok(()));
            }
        }
        (step, now)
    };
    calls(60, SYNC / 4);
    let (step, now) = calls(1, SYNC / 4);
    let (other, later) = calls(1, SYNC / 4);
    let (first, at) = if step == Step::Idle { (other, later) } else { (step, now) };
    assert_eq!(first, Step::At(at + 2 * MS), "one of two calls");
    assert!(step == Step::Idle || other == Step::Idle, "the other makes the sync of both");
    // An application that takes its time finds the sync done.
    calls(60, SYNC * 4);
    assert_eq!(calls(1, SYNC * 4).0, Step::Start);
    assert_eq!(calls(1, SYNC * 4).0, Step::Start);
}

#[test]
fn the_pace_learns_what_comes_in_while_a_sync_runs() {
    let mut log = log();
    log.await_target(1, 16);
    let needed = |log: &Log| {
        let mut log = log.clone();
        (1..=16)
            .find(|_| {
                deferred(&mut log, 0);
                log.next(0) == Step::Start
            })
            .unwrap()
    };
    let before = needed(&log);
    for _ in 0..20 {
        deferred(&mut log, 0);
        let flight = log.start(true, false, 0);
        for _ in 0..6 {
            deferred(&mut log, 0);
        }
        log.finish(flight.id, 1, Ok(()));
        let flight = log.start(false, false, 0);
        log.finish(flight.id, 1, Ok(()));
    }
    let after = needed(&log);
    assert!(after < before && after >= 16 - 6 - 4, "{before} -> {after}");
    // Who had to wait would have brought more.
    deferred(&mut log, 0);
    let flight = log.start(true, false, 0);
    log.demand(log.calls());
    log.finish(flight.id, 1, Ok(()));
    assert!(needed(&log) < after);
}

#[test]
fn flush_within_starts_early_enough() {
    let mut log = within(100 * MS);
    // A sync of 10 ms is known.
    log.wrote(1);
    log.begin(false);
    let flight = log.start(false, false, 0);
    log.finish(flight.id, 10 * MS, Ok(()));
    log.wrote(2);
    let call = log.begin(false).number;
    log.acknowledge(call, 50 * MS).unwrap();
    assert_eq!(log.next(50 * MS), Step::At(130 * MS));
    // The second acknowledgement does not move the deadline of the first.
    log.wrote(3);
    let call = log.begin(false).number;
    log.acknowledge(call, 60 * MS).unwrap();
    assert_eq!(log.next(60 * MS), Step::At(130 * MS));
    assert_eq!(log.next(130 * MS), Step::Start);
    let flight = log.start(true, false, 130 * MS);
    log.wrote(4);
    let call = log.begin(false).number;
    log.acknowledge(call, 135 * MS).unwrap();
    log.finish(flight.id, 140 * MS, Ok(()));
    // What came during the sync has its own time.
    assert_eq!(log.pending_age(140 * MS), 5 * MS);
    assert_eq!(log.next(140 * MS), Step::At(215 * MS));
    let flight = log.start(true, false, 215 * MS);
    log.finish(flight.id, 225 * MS, Ok(()));
    assert_eq!((log.next(225 * MS), log.pending_age(225 * MS)), (Step::Idle, 0));
}

#[test]
fn flush_within_never_starts_before_half_its_time() {
    let mut log = within(10 * MS);
    let flight = log.start(false, false, 0);
    log.finish(flight.id, 500 * MS, Ok(()));
    log.wrote(1);
    let call = log.begin(false).number;
    log.acknowledge(call, 600 * MS).unwrap();
    assert_eq!(log.next(600 * MS), Step::At(605 * MS));
}

#[test]
fn a_broken_deadline_holds_up_the_next_call() {
    let mut log = within(10 * MS);
    log.wrote(1);
    let call = log.begin(false).number;
    log.acknowledge(call, 0).unwrap();
    assert_eq!(log.overdue(10 * MS), None);
    assert_eq!(log.overdue(11 * MS), Some(1));
    let flight = log.start(true, false, 11 * MS);
    log.finish(flight.id, 30 * MS, Ok(()));
    assert_eq!(log.overdue(1000 * MS), None);
}

#[test]
fn notify_done_asks_for_the_bytes_of_this_call() {
    let mut log = log();
    log.wrote(10);
    log.begin(false);
    assert!(!log.notify_done());
    let flight = log.start(true, false, 0);
    log.finish(flight.id, 1, Ok(()));
    assert!(log.notify_done());
    log.wrote(11);
    assert!(!log.notify_done());
}

#[test]
fn a_sync_of_somebody_else_makes_durable_what_it_covers() {
    let mut log = log();
    for _ in 0..3 {
        deferred(&mut log, 0);
    }
    let written = log.written();
    assert!(log.witness(2, 0, 0));
    assert_eq!((log.durable(), log.unsynced(), log.notify_done()), (2, 1, false));
    assert!(!log.witness(1, 0, 0), "no news");
    assert!(log.witness(3, written, 0));
    assert_eq!((log.durable(), log.unsynced(), log.notify_done()), (3, 0, true));
    assert_eq!(log.undrained(), None);
    // What it says of calls and bytes that are not there yet is not believed.
    assert!(!log.witness(9, written + 9, 0));
    assert_eq!(log.durable(), 3);
}

#[test]
fn a_sync_of_somebody_else_leaves_the_flights_alone() {
    let mut log = log();
    let call = deferred(&mut log, 0);
    let flight = log.start(true, false, 0);
    deferred(&mut log, 0);
    log.wrote(log.written() + 1);
    log.witness(2, 0, 0);
    log.finish(flight.id, 5, Ok(()));
    assert_eq!((call, log.durable()), (1, 2), "durability never goes back");
    log.wrote(log.written() + 1);
    deferred(&mut log, 0);
    let flight = log.start(true, false, 6);
    log.finish(flight.id, 7, Err(5));
    assert!(!log.witness(3, log.written(), 0));
    assert_eq!((log.durable(), log.error()), (2, Some(5)), "nothing is durable after an error");
}

#[test]
fn a_sync_of_somebody_else_does_not_pay_an_fsync() {
    let mut log = log();
    log.wrote(1);
    let call = log.begin(true).number;
    log.acknowledge(call, 0).unwrap();
    assert!(!log.witness(1, 1, 0), "it may have been an fdatasync");
    let flight = log.start(true, false, 0);
    assert!(flight.full);
    log.finish(flight.id, 1, Ok(()));
    assert_eq!(log.durable(), 1);
}

#[test]
fn counters_count() {
    let mut log = log();
    for _ in 0..3 {
        deferred(&mut log, 0);
    }
    let flight = log.start(true, false, 0);
    log.finish(flight.id, 7, Ok(()));
    deferred(&mut log, 0);
    let flight = log.start(true, false, 0);
    log.finish(flight.id, 7, Err(28));
    let counters = log.counters();
    assert_eq!((counters.acknowledged, counters.max_pending), (4, 3));
    assert_eq!((counters.syncs, counters.errors), (1, 1));
    assert_eq!(log.sync_latency(), 7);
}

#[test]
fn a_write_that_passes_by_makes_the_next_sync_the_applications_own() {
    let mut log = Log::new(Rules::default());
    log.wrote(10);
    let Entry::Ask(first) = log.enter(false, true) else { panic!("the policy decides") };
    // Another thread writes while the first call waits.
    log.passed_by();
    log.wrote(20);
    assert_eq!(log.acknowledge(first.number, 0), Ok(()));
    assert!(matches!(log.enter(false, true), Entry::Direct(_)));
    let passed = log.passed();
    // One more passes by while the second call runs its own sync: that sync settles only the first.
    log.passed_by();
    log.wrote(30);
    log.direct_done(passed);
    // A third call began beside the second and has synced no more than that.
    log.direct_done(passed);
    assert_eq!(log.missed(), 1);
    assert!(matches!(log.enter(false, true), Entry::Direct(_)));
    log.direct_done(log.passed());
    log.wrote(40);
    assert!(matches!(log.enter(false, true), Entry::Ask(_)));
}

#[test]
fn an_assumed_sync_starts_two_syncs_before_the_deadline() {
    let ms = 1_000_000;
    let rules =
        Rules { flush_within: Some(50 * ms), assume_sync: Some(10 * ms), ..Rules::default() };
    let mut log = Log::new(rules);
    log.wrote(1);
    let call = log.begin(false);
    assert_eq!(log.acknowledge(call.number, 100 * ms), Ok(()));
    assert_eq!(log.next(100 * ms), Step::At(130 * ms));
    assert_eq!(log.next(130 * ms), Step::Start);
}

/// A log under `flush within 50ms` and `assume sync <= 10ms`, with a call acknowledged at 100 ms.
fn assumes() -> Log {
    let rules =
        Rules { flush_within: Some(50 * MS), assume_sync: Some(10 * MS), ..Rules::default() };
    let mut log = Log::new(rules);
    acknowledged(&mut log, 100 * MS);
    log
}

fn acknowledged(log: &mut Log, now: u64) {
    log.wrote(log.written() + 1);
    let call = log.begin(false);
    assert_eq!(log.acknowledge(call.number, now), Ok(()));
}

fn broken(log: &Log) -> u64 {
    log.counters().broken_assumptions
}

#[test]
fn the_time_of_a_sync_counts_from_when_it_was_wanted() {
    for background in [true, false] {
        let mut log = assumes();
        // The syncer wakes 4 ms late, or a direct sync comes instead.
        let flight = log.start(background, false, 134 * MS);
        assert_eq!((flight.wanted, flight.since), (130 * MS, 134 * MS));
        assert_eq!(log.rules().broken_by(&flight, 140 * MS), None);
        assert_eq!(log.rules().broken_by(&flight, 141 * MS), Some(11 * MS));
        log.finish(flight.id, 140 * MS, Ok(()));
        assert_eq!(broken(&log), 0);

        acknowledged(&mut log, 200 * MS);
        let flight = log.start(background, false, 234 * MS);
        log.finish(flight.id, 241 * MS, Ok(()));
        assert_eq!(broken(&log), 1);
    }
}

#[test]
fn a_sync_that_nothing_wanted_counts_from_its_start() {
    let mut log = assumes();
    let flight = log.start(false, false, 120 * MS);
    log.finish(flight.id, 130 * MS, Ok(()));
    assert_eq!(broken(&log), 0);
    let flight = log.start(false, false, 300 * MS);
    log.finish(flight.id, 311 * MS, Ok(()));
    assert_eq!(broken(&log), 1);
}

#[test]
fn a_requested_sync_is_wanted_after_ten_milliseconds() {
    let mut log = Log::new(Rules { assume_sync: Some(10 * MS), ..Rules::default() });
    log.wrote(1);
    let call = log.begin(false).number;
    log.request(call, 100 * MS);
    assert_eq!(log.acknowledge(call, 100 * MS), Ok(()));
    assert_eq!(log.start(true, false, 125 * MS).wanted, 110 * MS);
}

#[test]
fn a_background_sync_is_wanted_when_the_one_before_has_ended() {
    let mut log = assumes();
    let first = log.start(true, false, 130 * MS);
    acknowledged(&mut log, 131 * MS);
    log.finish(first.id, 190 * MS, Ok(()));
    assert_eq!(broken(&log), 1);
    // The deadline wanted it at 161 ms.
    assert_eq!(log.start(true, false, 195 * MS).wanted, 190 * MS);
}

#[test]
fn a_sync_that_breaks_the_assumption_is_counted_once() {
    for end in [Ok(()), Err(5), Err(4)] {
        let mut log = assumes();
        let flight = log.start(true, false, 130 * MS);
        log.count_broken(140 * MS);
        assert_eq!(broken(&log), 0);
        log.count_broken(141 * MS);
        log.count_broken(150 * MS);
        assert_eq!(broken(&log), 1, "while it is out");
        log.land(flight.id, 160 * MS, end, true);
        assert_eq!(broken(&log), 1, "{end:?}");
    }
}

#[test]
fn without_an_assumption_nothing_is_broken() {
    let mut log = within(50 * MS);
    acknowledged(&mut log, 100 * MS);
    let flight = log.start(true, false, 150 * MS);
    log.finish(flight.id, 900_000 * MS, Ok(()));
    assert_eq!(broken(&log), 0);
}
