//! When a background sync starts for held replies: at once, or after the grace of an event loop that is going to make
//! it itself.

#![allow(missing_docs, reason = "a test that fails says so")]

use durac_engine::{Able, Answer, Decision, Log, Rules, Step};

const GRACE: u64 = 1000;

#[test]
fn after_a_background_sync_the_next_waits_for_those_it_has_answered() {
    let mut log = held(0, 5);
    let flight = log.start(true, false, 5);
    log.wrote(20);
    log.hold(20, 6);
    log.finish(flight.id, 4000, Ok(()));
    assert_eq!(log.next(4000), Step::Start);
    log.set_grace(300);
    assert_eq!(log.next(4000), Step::At(4300));
    assert_eq!(log.next(4300), Step::Start);
}

/// A log with a deferred call, and a reply that waits for it since `now`.
fn held(grace: u64, now: u64) -> Log {
    let mut log = Log::new(Rules { holds_replies: true, ..Rules::default() });
    log.set_grace(grace);
    log.wrote(10);
    let call = log.begin(false).number;
    let answer = log.decide(call, Decision::Defer, false, Able::ALL, now);
    assert_eq!(answer, Answer::Return(Ok(())));
    log.hold(10, now);
    log
}

#[test]
fn without_a_loop_at_once() {
    assert_eq!(held(0, 5).next(5), Step::Start);
}

#[test]
fn a_loop_has_its_grace_and_no_more() {
    let mut log = held(GRACE, 5);
    assert_eq!(log.next(5), Step::At(5 + GRACE));
    // Later replies do not put it off.
    log.wrote(20);
    log.hold(20, 500);
    assert_eq!(log.next(500), Step::At(5 + GRACE));
    assert_eq!(log.next(5 + GRACE), Step::Start);
    // The loop goes to sleep.
    log.set_grace(0);
    assert_eq!(log.next(500), Step::Start);
}

#[test]
fn bytes_that_the_application_never_syncs_have_it_too() {
    let mut log = Log::new(Rules { holds_replies: true, ..Rules::default() });
    log.set_grace(GRACE);
    log.wrote(10);
    log.hold(10, 7);
    assert_eq!(log.next(7), Step::At(7 + GRACE));
    assert_eq!(log.next(7 + GRACE), Step::Start);
}

#[test]
fn a_sync_that_covers_it_ends_the_wait_and_one_that_came_to_nothing_does_not() {
    let mut log = held(GRACE, 5);
    let flight = log.start(false, false, 10);
    assert_eq!(log.next(5 + GRACE), Step::Idle);
    log.abandon(flight.id, 20);
    assert_eq!(log.next(20), Step::At(20 + GRACE));
    assert_eq!(log.next(20 + GRACE), Step::Start);
    let flight = log.start(false, false, 30);
    log.finish(flight.id, 40, Ok(()));
    assert_eq!(log.next(2000), Step::Idle);
    // The next group has a grace of its own.
    log.wrote(30);
    log.hold(30, 3000);
    assert_eq!(log.next(3000), Step::At(3000 + GRACE));
}
