//! `pending.updates`: what is written and not covered by a sync that has succeeded, never less.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use durac_abi::READING_MOST;
use durac_engine::{Able, Decision, Entry, Log, Rules};

fn log() -> Log {
    Log::new(Rules { keeps_amounts: true, ..Rules::default() })
}

fn write(log: &mut Log, bytes: u64, updates: u64, settled: u64) {
    log.wrote(bytes);
    log.counted(updates, settled);
}

fn defer(log: &mut Log) {
    let Entry::Ask(call) = log.enter(false, true) else { panic!("the policy is not asked") };
    log.decide(call.number, Decision::Defer, false, Able::ALL, 0);
}

#[test]
fn a_sync_covers_what_was_written_when_it_began() {
    let mut log = log();
    write(&mut log, 10, 3, 3);
    assert_eq!(log.read_updates(), 3);
    let flight = log.start(true, false, 0);
    write(&mut log, 20, 5, 5);
    assert_eq!(log.read_updates(), 5, "it has not ended");
    log.finish(flight.id, 1, Ok(()));
    assert_eq!(log.read_updates(), 2);
}

#[test]
fn a_sync_inside_a_transaction_does_not_cover_it() {
    let mut log = log();
    // One update, then three of a transaction that is open.
    write(&mut log, 40, 4, 1);
    let flight = log.start(true, false, 0);
    log.finish(flight.id, 1, Ok(()));
    assert_eq!(log.read_updates(), 3);
    write(&mut log, 50, 4, 4);
    assert_eq!(log.read_updates(), 3);
    let flight = log.start(true, false, 2);
    log.finish(flight.id, 3, Ok(()));
    assert_eq!(log.read_updates(), 0);
}

#[test]
fn a_sync_that_failed_or_was_interrupted_covers_nothing() {
    let mut log = log();
    write(&mut log, 10, 3, 3);
    let flight = log.start(true, false, 0);
    log.abandon(flight.id, 1);
    assert_eq!(log.read_updates(), 3);
    let first = log.start(false, false, 2);
    let second = log.start(true, false, 2);
    log.finish(second.id, 3, Ok(()));
    assert_eq!(log.read_updates(), 3, "the other may have met the error");
    log.finish(first.id, 4, Err(5));
    assert_eq!(log.read_updates(), 3);
}

#[test]
fn a_count_that_is_lost_is_the_most() {
    let mut log = log();
    write(&mut log, 10, 3, 3);
    assert_eq!(log.read_bytes(), 10);
    log.lose_updates();
    assert_eq!((log.read_updates(), log.read_bytes()), (READING_MOST, 10));
    let flight = log.start(true, false, 0);
    log.finish(flight.id, 1, Ok(()));
    assert_eq!(log.read_updates(), READING_MOST, "nothing brings it back");
    log.lose_bytes();
    assert_eq!(log.read_bytes(), READING_MOST);
}

#[test]
fn what_is_at_risk_is_what_was_acknowledged() {
    let mut log = log();
    write(&mut log, 10, 3, 3);
    assert_eq!((log.unsynced_updates(), log.unsynced_bytes()), (0, 0));
    defer(&mut log);
    assert_eq!((log.unsynced_updates(), log.unsynced_bytes()), (3, 10));
    write(&mut log, 20, 7, 7);
    assert_eq!((log.unsynced_updates(), log.unsynced_bytes()), (3, 10), "no call has followed");
    let flight = log.start(true, false, 0);
    defer(&mut log);
    assert_eq!((log.unsynced_updates(), log.unsynced_bytes()), (7, 20));
    log.finish(flight.id, 1, Ok(()));
    assert_eq!((log.unsynced_updates(), log.unsynced_bytes()), (0, 0));
    assert_eq!((log.counters().max_updates, log.counters().max_bytes), (7, 20));
}

#[test]
fn the_kernel_shows_updates_with_the_bytes() {
    let mut log = log();
    write(&mut log, 10, 3, 2);
    defer(&mut log);
    assert!(log.witness(1, 10, log.settled_updates()));
    assert_eq!(log.read_updates(), 1);
    log.witness(1, 10, 9);
    assert_eq!(log.read_updates(), 1, "no more than are settled");
}
