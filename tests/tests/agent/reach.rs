//! Descriptors that are reached by other ways than an open: copied before the first log, by numbers of system calls,
//! inherited. And logs that are written by other ways than a write. `c/reach.c`

use crate::common::{Done, Place, count, objects, program};
use durac_abi::{Hook, Object, Verdict};
use std::time::Duration;

/// `on fdatasync: defer; on reply: hold until durable`
fn holds() -> Object {
    let mut object = objects::defer();
    object
        .programs
        .push(objects::assemble(Hook::Reply, |asm| objects::verdict(asm, Verdict::Hold)));
    object
}

fn run(object: &Object, words: &[&str]) -> Done {
    let place = Place::new(object).env("DURAC_LOG", "all");
    let running = place.start_words(&program("reach"), words);
    place.finish_within(running, Duration::from_secs(60))
}

/// The log is drained before a write that is durable when it returns.
fn ordered(words: &[&str]) {
    let done = run(&objects::skip(None), words);
    assert_eq!(done.out, ["0 1"], "{words:?} {done:?}");
}

#[test]
fn a_copy_of_a_durable_file_drains_whenever_it_was_made() {
    for way in ["plain", "dup", "dup2", "dup3", "pidfd", "vforked"] {
        ordered(&["order", way]);
        ordered(&["order", &format!("late:{way}")]);
    }
}

#[test]
fn durable_files_of_every_origin_drain() {
    let ways =
        ["mkostemp", "mkostemp64", "mkostemps", "mkostemps64", "dprintf", "tmpfile", "allocate"];
    for way in ways {
        ordered(&["order", way]);
        ordered(&["order", &format!("late:{way}")]);
    }
    ordered(&["order", "forked"]);
    ordered(&["exec", "inherited"]);
}

#[test]
fn durable_files_opened_and_copied_by_number_drain() {
    let opens = ["open", "openat", "openat2"];
    let copies = ["dup", "dup2", "dup3", "fcntl", "pidfd"];
    for way in opens.iter().chain(&copies) {
        ordered(&["order", &format!("number:{way}")]);
        ordered(&["order", &format!("late:number:{way}")]);
    }
}

#[test]
fn calls_by_number_that_make_something_durable_drain() {
    for way in [
        "pwritev2",
        "symlink",
        "rmdir",
        "range",
        "ftruncate",
        "sendfile",
        "cfr",
        "splice",
        "io_fdsync",
        "io_dsync",
    ] {
        ordered(&["order", &format!("number:{way}")]);
    }
}

#[test]
fn a_stream_on_a_durable_file_ends_the_policy() {
    let inherited = ["exec", "inherited:stream"];
    let ways = ["stream", "late:stream", "output", "late:output", "over", "late:over"]
        .map(|way| ["order", way]);
    for way in ways.iter().chain(&[inherited]) {
        let done = run(&objects::skip(None), way);
        // The call syncs itself.
        assert_eq!(done.out, ["1 1"], "{way:?} {done:?}");
        let told = done.err.lines().filter(|line| line.contains("the policy is off")).count();
        assert_eq!(told, 1, "{way:?} {done:?}");
    }
}

/// The client gets nothing before the log is durable.
fn held(way: &str, log: &str) {
    let done = run(&holds(), &["reply", way, log]);
    assert_eq!(done.out, ["silent", "reply"], "{way} {log} {done:?}");
}

#[test]
fn replies_by_copies_of_a_connection_are_held() {
    for way in ["plain", "dup", "dup2", "dup3", "moved", "pidfd"] {
        held(way, "write");
    }
    for way in ["accept", "accept4", "dup", "dup2", "fcntl", "pidfd"] {
        held(&format!("number:{way}"), "write");
    }
}

#[test]
fn a_copy_over_a_connection_that_fails_leaves_it() {
    for way in ["flags", "number:flags", "limit"] {
        held(way, "write");
    }
}

#[test]
fn asynchronous_replies_wait() {
    held("aio", "write");
    held("lio", "write");
    held("number:io_submit", "write");
}

#[test]
fn replies_by_connections_passed_by_number_wait() {
    held("number:sendmsg", "write");
    held("number:sendmmsg", "write");
}

#[test]
fn replies_wait_for_logs_that_are_written_by_other_ways() {
    let ways = [
        "number",
        "fopen",
        "fdopen",
        "dprintf",
        "aio",
        "output",
        "pidfd",
        "map",
        "allocate",
        "zero",
        "number:sendmsg",
        "number:io_submit",
        "number:truncate",
        "mkstemps",
        "mkostemps",
    ];
    for log in ways {
        held("plain", log);
    }
}

#[test]
fn descriptors_closed_by_number_are_seen_closed() {
    let done = run(&objects::window(4), &["close", "range"]);
    assert_eq!((&*done.out, done.code), (&["fine".to_owned()][..], 0), "{done:?}");
    let done = run(&objects::skip(None), &["close", "one"]);
    assert_eq!(count(&done.calls, "-fdatasync x.log main 0"), 1, "{done:?}");
}
