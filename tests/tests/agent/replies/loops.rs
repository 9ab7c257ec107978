//! A program of one thread whose replies are held (`c/loops.c`): its waits, and the ends of its connections, are as without the
//! agent.

use super::external_synchrony;
use crate::common::{Place, program};

/// What it prints.
fn run(arguments: &str) -> Vec<String> {
    // The event loop syncs by itself.
    let place = Place::new(&external_synchrony()).env("SHIM_QUICK", "1");
    let done = place.finish(place.start_program(&program("loops"), arguments));
    assert_eq!(done.code, 0, "{arguments}: {done:?}");
    done.out
}

/// A sync of the event loop is a part of its wait: `while (!stop) epoll_wait(…)` ends with the signal that says so.
#[test]
fn a_signal_during_a_sync_ends_the_wait() {
    let out = run("signals");
    let ended: u32 = out[0].strip_prefix("ended ").unwrap().parse().unwrap();
    assert!(ended > 5, "{out:?}");
}

/// Its data may be freed.
#[test]
fn an_event_loop_hears_nothing_of_a_connection_that_is_closed() {
    for how in ["close", "range", "over", "removed", "again"] {
        assert_eq!(run(&format!("closes {how}")), ["later"], "{how}");
    }
    for how in ["two", "number", "copied", "renumbered"] {
        assert_eq!(run(&format!("closes-late {how}")), ["at once"], "{how}");
    }
}

/// Where that cannot be seen to, a client that reads late gets what it would have got.
#[test]
fn a_connection_that_stays_in_an_event_loop_sends_everything() {
    assert_eq!(run("closes-slow"), ["everything"]);
}

#[test]
fn none_of_those_to_be_read_and_written_starves() {
    assert_eq!(run("shares"), ["read"]);
}

#[test]
fn a_call_waits_for_a_full_socket_as_long_as_the_kernel_would() {
    assert_eq!(run("fills limited"), ["EAGAIN"]);
    assert_eq!(run("fills interrupted"), ["EINTR"]);
    assert_eq!(run("fills restarts"), ["sent"]);
}

#[test]
fn a_stream_comes_behind_what_is_held() {
    assert_eq!(run("streams"), ["in order"]);
}

/// The first says why, all others that there is no connection, with the signal.
#[test]
fn a_connection_that_is_gone_says_so_once() {
    assert_eq!(run("breaks"), ["ECONNRESET 0", "EPIPE 0", "EPIPE 1"]);
}

#[test]
fn a_wait_of_no_time_does_not_sync() {
    assert_eq!(run("looks"), ["looked"]);
}

#[test]
fn what_is_held_is_sent_before_connect_ends_the_connection() {
    assert_eq!(run("disconnects"), ["sent"]);
    assert_eq!(run("disconnects number"), ["sent"]);
}
