//! What the agent counts of a log while it is written: updates, and when their number is not known any more.

use crate::common::{Place, app, log_where, poll};
use durac_abi::Object;
use durac_driver::{Options, compile};
use durac_grammar::Sources;
use durac_shm::status::{Counting, LogNumbers, Uncounted};
use std::path::Path;

/// Acknowledges everything: the most at risk is all that was written. A count that is not known is more than
/// any number here, and the call syncs.
const ALL: &str = "policy all
target redis.aof
guarantee loss <= 1000000 updates on power_loss
on fdatasync: if pending.updates > 1000000 { pass }; skip
flush within 1min
";

/// The same with staged writes.
const STAGED: &str = "policy staged
target redis.aof
on write: stage
on fdatasync: if pending.updates > 1000000 { await all }; skip
flush within 1min
";

/// A write that completes more than two updates fails.
const FEW_AT_ONCE: &str = "policy few_at_once
target redis.aof
on write: if call.updates > 2 { fail EFBIG }
on fdatasync: if pending.updates > 1000000 { pass }; skip
flush within 1min
";

/// At most 512 bytes.
const BYTES: &str = "policy few_bytes
target redis.aof
guarantee loss <= 512B on power_loss
on fdatasync: if pending.bytes > 512B { pass }; skip
flush within 1min
";

const SET: &str = "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n";
const MULTI: &str = "*1\r\n$5\r\nMULTI\r\n";
const EXEC: &str = "*1\r\n$4\r\nEXEC\r\n";
const LOG: &str = "x.incr.aof";

fn proved(text: &str) -> Object {
    let mut sources = Sources::new();
    let file = sources.add("test.dur", text);
    let compiled = compile(&mut sources, file, &Options::new("test"));
    compiled.proved.unwrap_or_else(|| panic!("{:?}", compiled.analysis.diagnostics)).object
}

struct Seen {
    log: LogNumbers,
    out: Vec<String>,
    err: String,
}

/// Runs the program with these operations on the log `a`, which is open for appending.
fn run(policy: &str, operations: &[&str]) -> Seen {
    let place = Place::new(&proved(policy)).with_status().env("DURAC_LOG", "all");
    let mut words = vec!["open", "a", "+ca", LOG];
    words.extend(operations);
    words.extend(["open", "z", "wc", "done", "file", "go"]);
    let running = place.start_words(&app(), &words);
    poll("the operations", || Path::new(&place.path("done")).exists().then_some(()));
    // The log that was opened last.
    let status = place.status();
    let log = log_where(&status, "calls", |log| log.calls > 0);
    place.touch("go");
    let done = place.finish(running);
    assert_eq!(done.code, 0, "{}", done.err);
    Seen { log, out: done.out, err: done.err }
}

fn counted(operations: &[&str]) -> (Counting, u64) {
    let Seen { log, .. } = run(ALL, operations);
    assert_eq!(log.max_updates, log.pending_updates, "{log:?}");
    (Counting::of_code(log.counting), log.max_updates)
}

#[test]
fn updates_are_counted_as_they_are_written() {
    let two = [SET, SET].concat();
    // A value that looks like the end of a transaction.
    let value = "*2\r\n$3\r\nSET\r\n$14\r\n*1\r\n$4\r\nEXEC\r\n\r\n";
    let (begin, end) = SET.split_at(11);
    let select = "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n";
    let child = ["fork", "open", "c", "wc", "other", "put", "c", "x", "end"];
    for (operations, expected) in [
        (vec!["put", "a", SET, "sync", "a"], 1),
        (vec!["put", "a", &two, "put", "a", SET, "sync", "a"], 3),
        (vec!["put", "a", value, "put", "a", SET, "sync", "a"], 2),
        (vec!["put", "a", begin, "put", "a", end, "sync", "a"], 1),
        (vec!["put", "a", SET, "sync", "a", "put", "a", begin, "sync", "a"], 1),
        (vec!["put", "a", select, "put", "a", "#TS:1700000000\r\n", "sync", "a"], 0),
        (vec!["put", "a", MULTI, "put", "a", &two, "put", "a", EXEC, "sync", "a"], 2),
        (vec!["put", "a", SET, "dup", "a", "b", "put", "b", SET, "sync", "b"], 2),
        // Its place is the end, where it was.
        (vec!["put", "a", SET, "seek", "a", "fstat", "a", "put", "a", SET, "sync", "a"], 2),
        // A child writes to another file.
        ([vec!["put", "a", SET], child.to_vec(), vec!["put", "a", SET, "sync", "a"]].concat(), 2),
    ] {
        assert_eq!(counted(&operations), (Counting::Yes, expected), "{operations:?}");
    }
}

#[test]
fn a_count_that_may_be_too_small_is_given_up_and_the_calls_sync() {
    for (operations, why) in [
        (vec!["put", "a", "SET a 1\r\n"], Uncounted::Format),
        (vec!["writev", "a", "10"], Uncounted::Format),
        (vec!["put", "a", SET, "pwrite", "a", "10"], Uncounted::Place),
        (vec!["put", "a", SET, "ftruncate", "a", "5", "put", "a", SET], Uncounted::Place),
        (vec!["put", "a", SET, "truncate", LOG, "5", "put", "a", SET], Uncounted::Place),
        (vec!["put", "a", SET, "seekto", "a", "5", "put", "a", SET], Uncounted::Place),
        (vec!["put", "a", SET, "open", "b", "w", LOG, "put", "b", SET], Uncounted::Place),
        (vec!["put", "a", SET, "mmap", "a", "put", "a", SET], Uncounted::Unseen),
        (vec!["put", "a", SET, "allocate", "a", "9000", "put", "a", SET], Uncounted::Unseen),
        (vec!["put", "a", SET, "rawput", "a", SET], Uncounted::Unseen),
        (vec!["put", "a", SET, "overput", "a", SET], Uncounted::Unseen),
        (vec!["put", "a", SET, "print", "a", SET], Uncounted::Unseen),
    ] {
        let operations = [operations, vec!["sync", "a"]].concat();
        let Seen { log, err, .. } = run(ALL, &operations);
        assert_eq!(Counting::of_code(log.counting), Counting::Lost(why), "{operations:?}");
        assert_eq!((log.deferred, log.syncs), (0, 1), "{operations:?}: {log:?}");
        let says = format!("are no longer counted: {why}");
        assert_eq!(err.matches(&says).count(), 1, "{operations:?}: {err}");
    }
}

#[test]
fn another_log_is_counted_anew() {
    let other = ["close", "a", "open", "a", "+ca", "y.incr.aof", "put", "a", SET, "sync", "a"];
    let operations = [vec!["put", "a", "no command", "sync", "a"], other.to_vec()].concat();
    assert_eq!(counted(&operations), (Counting::Yes, 1));
}

#[test]
fn staged_updates_count_and_a_sync_covers_them() {
    let two = [SET, SET].concat();
    let Seen { log, .. } = run(STAGED, &["put", "a", &two, "put", "a", SET, "sync", "a"]);
    assert_eq!((log.max_updates, log.pending_updates, log.staged), (3, 3, 1), "{log:?}");
    // A barrier makes them durable.
    let Seen { log, .. } = run(STAGED, &["put", "a", &two, "sync", "a", "sync", "a"]);
    assert_eq!((log.max_updates, log.pending_updates), (2, 0), "{log:?}");
}

#[test]
fn a_write_knows_what_it_completes() {
    let (two, three) = ([SET, SET].concat(), [SET, SET, SET].concat());
    let (begin, end) = SET.split_at(11);
    let with_end = [end, &two].concat();
    let puts = [&two, &three, begin, &with_end, end];
    let mut operations: Vec<&str> = puts.iter().flat_map(|text| ["put", "a", text]).collect();
    operations.extend(["sync", "a"]);
    let Seen { log, out, .. } = run(FEW_AT_ONCE, &operations);
    let failed: Vec<bool> = out
        .iter()
        .filter(|line| line.starts_with("put"))
        .map(|line| line.contains("EFBIG"))
        .collect();
    assert_eq!(failed, [false, true, false, true, false], "{out:?}");
    assert_eq!((Counting::of_code(log.counting), log.max_updates), (Counting::Yes, 3));
    // What is not known is the most.
    let operations = ["put", "a", "no command", "put", "a", SET, "sync", "a"];
    let Seen { out, .. } = run(FEW_AT_ONCE, &operations);
    assert_eq!(out.iter().filter(|line| line.contains("EFBIG")).count(), 1, "{out:?}");
}

#[test]
fn bytes_that_are_not_seen_are_not_acknowledged() {
    let long = "x".repeat(600);
    for (operations, deferred) in [
        (vec!["put", "a", "ten bytes."], 1),
        (vec!["put", "a", &long], 0),
        (vec!["put", "a", "x", "print", "a", &long], 0),
        (vec!["put", "a", "x", "rawput", "a", &long], 0),
        (vec!["put", "a", "x", "mmap", "a"], 0),
        (vec!["put", "a", "x", "pwrite", "a", "600"], 0),
        (vec!["put", "a", "x", "pwrite", "a", "10"], 1),
    ] {
        let operations = [operations, vec!["sync", "a"]].concat();
        let Seen { log, .. } = run(BYTES, &operations);
        assert_eq!((log.deferred, log.syncs), (deferred, 1 - deferred), "{operations:?}: {log:?}");
    }
}
