//! The rules of staged writes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test that fails says so"
)]

use durac_engine::{Able, Decision, Log, Put, Rules, Step, Writing};

const MS: u64 = 1_000_000;

fn log(flush_within: Option<u64>) -> Log {
    Log::new(Rules { flush_within, stages: true, ..Rules::default() })
}

fn put(log: &mut Log, decision: Writing, now: u64) -> Put {
    let put = log.decide_write(decision, true, Able::ALL, now);
    if !matches!(put, Put::Fail(_)) {
        log.wrote(log.written() + 10);
    }
    put
}

fn stage(log: &mut Log, now: u64) {
    assert_eq!(put(log, Writing::Stage, now), Put::Copy);
}

/// A sync call, acknowledged by `skip`; what `staged` says in it.
fn skipped(log: &mut Log, now: u64) -> u64 {
    let call = log.begin(false).number;
    let staged = log.staged(call);
    log.decide(call, Decision::Skip, false, Able::ALL, now);
    staged
}

fn synced(log: &mut Log) {
    let flight = log.start(true, false, 0);
    log.finish(flight.id, 1, Ok(()));
}

#[test]
fn staged_counts_calls_and_a_sync_takes_them_off() {
    let mut log = log(None);
    for expected in 1..=3 {
        stage(&mut log, 0);
        stage(&mut log, 0);
        assert_eq!(skipped(&mut log, 0), expected);
    }
    assert_eq!(log.staged_writes(), 6);
    let flight = log.start(true, false, 0);
    stage(&mut log, 0);
    assert_eq!((skipped(&mut log, 0), log.staged_writes()), (4, 7), "until it has ended");
    log.finish(flight.id, 1, Ok(()));
    assert_eq!((log.staged(log.calls()), log.staged_writes()), (1, 1));
}

#[test]
fn a_passed_write_takes_everything_with_it() {
    let mut log = log(None);
    stage(&mut log, 0);
    assert_eq!(skipped(&mut log, 0), 1);
    assert_eq!(put(&mut log, Writing::Pass, 0), Put::Write);
    assert_eq!((log.staged_writes(), log.staged(log.calls())), (0, 0));
    assert_eq!(skipped(&mut log, 0), 0, "its write was passed");
    stage(&mut log, 0);
    assert_eq!(skipped(&mut log, 0), 1, "its own alone");
    // A change of the length is nothing that the policy has passed.
    assert_eq!(put(&mut log, Writing::Pass, 0), Put::Write);
    log.wrote_unasked();
    log.wrote(log.written() + 1);
    assert_eq!(skipped(&mut log, 0), 1);
}

#[test]
fn what_cannot_be_copied_counts_as_staged() {
    let mut log = log(None);
    for (copies, able) in [
        (false, Able::ALL),
        (true, Able { descriptor: false, ..Able::ALL }),
        (true, Able { background: false, ..Able::ALL }),
    ] {
        assert_eq!(log.decide_write(Writing::Stage, copies, able, 0), Put::Write);
        log.wrote(log.written() + 10);
        skipped(&mut log, 0);
    }
    assert_eq!((log.staged(log.calls()), log.staged_writes()), (3, 0));
}

#[test]
fn only_a_policy_that_says_so_stages() {
    let mut log = Log::new(Rules::default());
    assert_eq!(put(&mut log, Writing::Stage, 0), Put::Write);
    assert_eq!((skipped(&mut log, 0), log.staged_writes()), (0, 0));
}

#[test]
fn after_an_error_nothing_is_staged() {
    let mut log = log(None);
    stage(&mut log, 0);
    let flight = log.start(true, false, 0);
    log.finish(flight.id, 1, Err(28));
    for decision in [Writing::Stage, Writing::Pass] {
        assert_eq!(put(&mut log, decision, 0), Put::Fail(28));
    }
}

#[test]
fn a_deadline_covers_writes_without_a_sync_call() {
    let mut log = log(Some(10 * MS));
    stage(&mut log, 5 * MS);
    assert_eq!(log.next(5 * MS), Step::At(15 * MS));
    // The call that follows has the age of its write.
    skipped(&mut log, 9 * MS);
    assert_eq!(log.next(9 * MS), Step::At(15 * MS));
    // The disk breaks the promise: what comes now is not kept.
    assert_eq!(put(&mut log, Writing::Stage, 16 * MS), Put::Write);
    synced(&mut log);
    assert_eq!(log.next(16 * MS), Step::Idle);
    assert!(!log.leaves_staged() && !log.leaves_tail());
}

#[test]
fn a_write_without_a_deadline_stays() {
    let mut log = log(None);
    stage(&mut log, 0);
    assert!(log.is_loose() && log.leaves_staged() && !log.leaves_tail());
    assert_eq!(log.next(0), Step::Idle);
}

#[test]
fn a_write_commits_what_is_staged_before_it() {
    let mut log = log(None);
    stage(&mut log, 0);
    skipped(&mut log, 0);
    log.commit(0);
    assert_eq!(log.next(0), Step::Start, "a call was staged");
    synced(&mut log);
    log.commit(0);
    assert_eq!(log.next(0), Step::Idle, "nothing is");
    stage(&mut log, 0);
    log.commit(0);
    assert_eq!(log.next(0), Step::Start, "a write was");
    // The call that follows has what its write has asked for.
    let call = log.begin(false).number;
    log.decide(call, Decision::Skip, false, Able::ALL, 0);
    assert!(!log.leaves_tail());
}
