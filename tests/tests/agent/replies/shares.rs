//! Replies beside processes that share the connection, threads that close logs, and threads that are cancelled.
//! `c/shares.c`

use super::external_synchrony;
use crate::common::{Done, Place, program};
use std::time::Duration;

fn run(words: &[&str]) -> Done {
    run_in(&Place::new(&external_synchrony()), words)
}

fn run_in(place: &Place, words: &[&str]) -> Done {
    let running = place.start_words(&program("shares"), words);
    let done = place.finish_within(running, Duration::from_secs(60));
    assert_eq!(done.code, 0, "{words:?} {done:?}");
    done
}

#[test]
fn what_a_child_writes_comes_behind_what_is_held() {
    let children = ["fork", "_Fork", "vfork", "spawn", "clone", "clone:memory"];
    for way in children.iter().chain(&["number:fork", "number:clone"]) {
        let done = run(&["order", way]);
        assert_eq!(done.out[0], "silent", "{way} {done:?}");
        assert_eq!(done.out[1..].concat(), "AB", "{way} {done:?}");
    }
}

#[test]
fn replies_by_messages_wait_and_stay_apart() {
    assert_eq!(run(&["reply", "packets"]).out, ["silent", "A", "B"]);
}

#[test]
fn what_the_handler_of_a_cancelled_write_writes_is_waited_for() {
    let done = run(&["reply", "cancelled"]);
    assert_eq!((&*done.out[0], done.out[1..].concat()), ("silent", "AB".into()), "{done:?}");
}

#[test]
fn without_a_thread_a_reply_is_sent_once() {
    let place = Place::new(&external_synchrony()).env("SHIM_NO_THREADS", "1");
    assert_eq!(run_in(&place, &["once"]).out, ["A"]);
}

#[test]
fn a_log_that_is_closed_takes_no_connection_with_it() {
    for way in ["stream", "map", "copy"] {
        assert_eq!(run(&["close", way]).out, ["fine"], "{way}");
    }
}

/// `c/passes.c`
fn passes(place: &Place, words: &[&str]) -> Vec<String> {
    let running = place.start_words(&program("passes"), words);
    let done = place.finish_within(running, Duration::from_secs(60));
    assert_eq!(done.code, 0, "{words:?} {done:?}");
    done.out
}

#[test]
fn what_depends_on_lost_bytes_leaves_by_no_call() {
    for way in ["write", "dprintf", "number", "number:sendto", "aio"] {
        let place = Place::new(&external_synchrony()).env("SHIM_FAIL", "0:5");
        assert_eq!(passes(&place, &["lost", way]), ["cut"], "{way}");
    }
}

#[test]
fn calls_that_cannot_be_held_come_behind_what_is_held() {
    for way in ["write", "dprintf", "number", "number:sendto", "aio"] {
        let place = Place::new(&external_synchrony());
        assert_eq!(passes(&place, &["order", way]), ["in order"], "{way}");
    }
    // A call that must not wait is refused, or the connection is cut if it cannot be.
    for (way, what) in [("number", "later"), ("aio", "later"), ("dprintf", "cut")] {
        let place = Place::new(&external_synchrony());
        assert_eq!(passes(&place, &["full", way]), [what], "{way}");
    }
}

#[test]
fn nobody_writes_behind_a_reply_that_is_not_sent() {
    let ways = ["execv", "execl", "execle", "execlp", "daemon", "fork"];
    let started = ways.map(|way| {
        let place = Place::new(&external_synchrony());
        let running = place.start_words(&program("tail"), &[way]);
        (way, place, running)
    });
    for (way, place, running) in started {
        let done = place.finish_within(running, Duration::from_secs(60));
        // The client may end later than the server that has started it: who waits for its output, waits for it.
        assert_eq!((&*done.out, done.code), (&["no hole".to_owned()][..], 0), "{way} {done:?}");
    }
}
