//! Staged writes: who sees them, in which order they reach the file, and what becomes of them when
//! something goes wrong. On each engine.

use crate::common::{self, Done, Place, count, log_where, objects, poll};
use durac_abi::Object;
use std::path::Path;

const OPEN: &str = "open a wct x.log";

fn place(object: &Object) -> Place {
    Place::new(object).env("SHIM_WRITES", "1")
}

fn size(place: &Place) -> u64 {
    std::fs::metadata(place.path("x.log")).map_or(0, |m| m.len())
}

/// With the other engine. A machine without io_uring says so, and goes on with threads.
fn with_ring(place: Place) -> Place {
    place.env("DURAC_ENGINE", "io_uring")
}

/// What is staged reaches the file before the operation shows it.
#[test]
fn whoever_could_see_the_file_sees_everything() {
    let held = "open a +ct x.log write a 10 sync a write a 5 rawstat x.log";
    for (operation, line) in [
        ("stat x.log", "stat x.log = 15"),
        ("fstat a", "fstat a = 15"),
        ("seek a", "seek a = 15"),
        ("pread a", "pread a = 15"),
        ("cat x.log", "cat x.log = 15"),
        ("mmap a", "mmap a = 0"),
        ("lock a", "lock a = 0"),
        ("setfl a a", "setfl a = 0"),
        ("open b r x.log", "open x.log = 0"),
        ("rename x.log y.log rename y.log x.log", "rename x.log = 0"),
        ("truncate y.log 0", "truncate y.log = -1 ENOENT"),
        ("dup a b close b", "close b = 0"),
        ("fork stat x.log end", "stat x.log = 15"),
        ("spawn fstat a end join", "fstat a = 15"),
        ("range a", "range a = 0"),
    ] {
        let place = place(&objects::stage(None));
        let done = place.run(&format!("{held} {operation} rawstat x.log kill 9"));
        assert!(done.out.contains(&"rawstat x.log = 0".into()), "staged at first: {done:?}");
        assert!(done.out.iter().any(|l| l == line), "{operation}: {done:?}");
        assert_eq!(done.out.last().unwrap(), "rawstat x.log = 15", "{operation}: {done:?}");
        assert_eq!(size(&place), 15, "{operation}");
        assert!(done.out.iter().all(|l| !l.ends_with('!')), "{operation}: {done:?}");
    }
}

/// The same for system calls that are made by number.
#[test]
fn whoever_could_see_the_file_by_number_sees_everything() {
    let held = "open a +ct x.log write a 10 sync a write a 5 rawstat x.log";
    let reads = ["preadv2", "stat", "lstat", "sendfile", "cfr", "splice"].map(|way| (way, 15));
    let others = ["utimensat", "setrlimit", "prlimit"].map(|way| (way, 0));
    let passes = ["sendmsg", "sendmmsg"].map(|way| (way, 1));
    for (way, result) in reads.into_iter().chain(others).chain(passes) {
        let place = place(&objects::stage(None));
        let done = place.run(&format!("{held} number {way} a x.log rawstat x.log kill 9"));
        assert!(done.out.contains(&"rawstat x.log = 0".into()), "staged at first: {done:?}");
        assert!(done.out.contains(&format!("number {way} = {result}")), "{way}: {done:?}");
        assert_eq!(done.out.last().unwrap(), "rawstat x.log = 15", "{way}: {done:?}");
    }
}

#[test]
fn a_kill_takes_what_is_staged_and_nothing_else() {
    for (calls, left) in [(2, 0), (3, 30), (7, 60), (9, 90)] {
        let place = place(&objects::batch(3, None));
        let operations = "write a 10 sync a ".repeat(calls);
        let done = place.run(&format!("{OPEN} {operations} kill 9"));
        assert_eq!(size(&place), left, "{calls} calls: {done:?}");
        assert_eq!(count(&done.out, "sync a = 0"), calls, "{done:?}");
        // One write and one sync for each batch, in this order.
        assert_eq!(count(&done.calls, "write x.log"), calls / 3, "{done:?}");
        assert_eq!(count(&done.calls, "-fdatasync x.log"), calls / 3, "{done:?}");
    }
}

#[test]
fn every_end_writes_and_syncs_what_is_staged() {
    for end in ["exit 0", "_exit 0", "close a kill 9", "exec true", "sync a sync a kill 9", ""] {
        let place = place(&objects::stage(None));
        let done = place.run(&format!("{OPEN} write a 10 sync a write a 4 sync a {end}"));
        assert_eq!(size(&place), 14, "{end}: {done:?}");
        let written = common::place(&done.calls, "write x.log");
        let synced = done.calls.iter().rposition(|l| l.starts_with("-fdatasync")).unwrap();
        assert!(written < synced, "{end}: {done:?}");
    }
    // A write that no sync call has followed is written too.
    for end in ["exit 0", "_exit 0", "close a kill 9", "exec true", ""] {
        let place = place(&objects::stage(None));
        let done = place.run(&format!("{OPEN} write a 4 {end}"));
        assert_eq!(size(&place), 4, "{end}: {done:?}");
    }
}

#[test]
fn a_sync_in_the_calls_thread_writes_first() {
    for sync in ["fsync a", "sync a sync a"] {
        let place = place(&objects::stage(None));
        let done = place.run(&format!("{OPEN} write a 7 {sync} kill 9"));
        assert_eq!(done.calls[0], "write x.log main 7", "{done:?}");
        assert!(done.calls[2].ends_with(" main 0"), "{done:?}");
    }
}

#[test]
fn the_deadline_writes_what_no_call_has_followed() {
    let place = place(&objects::stage(Some(1_000_000))).with_status();
    let child = place.start(&format!("{OPEN} write a 10 file go kill 9"));
    log_where(&place.status(), "the write", |n| n.syncs == 1 && n.pending_bytes == 0);
    assert_eq!(size(&place), 10);
    place.touch("go");
    place.finish(child);
}

#[test]
fn the_same_bytes_as_without_us() {
    let mut operations = String::from("open a wcta x.log ");
    let mut random = 0x5eed_u64;
    for at in 0..400 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let text = format!("{at}-{}", "x".repeat((random >> 60) as usize));
        operations.push_str(&format!("put a {text} "));
        match random >> 33 & 15 {
            0..=7 => operations.push_str("sync a "),
            8 => operations.push_str("fsync a "),
            9 => operations.push_str("fstat a "),
            10 => operations.push_str("fork stat x.log end "),
            11 => operations.push_str("writev a 9 "),
            12 => operations.push_str("seek a "),
            _ => {}
        }
    }
    let plain = place(&objects::pass()).env("LD_PRELOAD", "");
    let expected = plain.run(&operations).out;
    let bytes = std::fs::read(plain.path("x.log")).unwrap();
    for object in [objects::batch(1, None), objects::batch(7, None), objects::stage(Some(100_000))]
    {
        // A write that comes too late for the deadline is not kept, and the application sees what
        // the system says of it.
        let short = object.meta.flush_within.is_none();
        for short in [Some("3").filter(|_| short), None] {
            let mut place = place(&object);
            if let Some(bytes) = short {
                place = place.env("SHIM_SHORT", bytes);
            }
            let done = place.run(&operations);
            assert_eq!(done.out, expected, "{}", object.meta.policy);
            assert_eq!(std::fs::read(place.path("x.log")).unwrap(), bytes);
        }
    }
}

#[test]
fn what_does_not_fit_is_written_in_its_place() {
    let place = place(&objects::stage(None)).with_status();
    // 16 writes fill the megabyte that there is room for.
    let held = "big a 65536 16 rawstat x.log put a middle rawstat x.log put a end rawstat x.log";
    let done = place.run(&format!("{OPEN} {held} exit 0"));
    let expected = [
        "big a = 1048576",
        "rawstat x.log = 0",
        "put a = 6",
        "rawstat x.log = 1048582",
        "put a = 3",
        "rawstat x.log = 1048582",
    ];
    assert_eq!(done.out[1..], expected, "{done:?}");
    let bytes = std::fs::read(place.path("x.log")).unwrap();
    assert!(bytes.ends_with(b"middleend") && bytes.len() == 1_048_585);
}

#[test]
fn writes_at_another_place_come_after_what_is_staged() {
    let place = place(&objects::stage(None));
    let done = place.run(&format!("{OPEN} put a abcdef put a gh pwrite a 3 rawstat x.log exit 0"));
    assert_eq!(done.out[1..], ["put a = 6", "put a = 2", "pwrite a = 3", "rawstat x.log = 8"]);
    assert_eq!(std::fs::read(place.path("x.log")).unwrap(), b"\0\0\0defgh");
    // A second open file has a position of its own: nothing is kept of either.
    let place = self::place(&objects::stage(None));
    let done = place.run(&format!("{OPEN} put a abc open b w x.log put b X put a d rawstat x.log"));
    assert_eq!(done.out.last().unwrap(), "rawstat x.log = 4", "{done:?}");
    assert_eq!(std::fs::read(place.path("x.log")).unwrap(), b"Xbcd");
}

fn last(done: &Done, count: usize) -> Vec<&str> {
    done.out[done.out.len() - count..].iter().map(String::as_str).collect()
}

/// After a write that failed no other is made, and every call fails.
#[test]
fn a_failed_write_stops_the_log() {
    for (errno, name) in [(libc::ENOSPC, "ENOSPC"), (libc::EIO, "EIO"), (libc::EDQUOT, "EDQUOT")] {
        let place = place(&objects::stage(None)).env("SHIM_FAIL_WRITE", &format!("1:{errno}"));
        // The first batch is written, the second is not.
        let done = place.run(&format!(
            "{OPEN} put a first sync a fsync a put a second sync a fsync a put a third sync a close a"
        ));
        let failed = |what: &str| format!("{what} a = -1 {name}");
        let expected = [failed("fsync"), failed("put"), failed("sync"), failed("close")];
        assert_eq!(last(&done, 4), expected, "{done:?}");
        assert_eq!(std::fs::read(place.path("x.log")).unwrap(), b"first");
        assert_eq!(count(&done.calls, "write x.log"), 2, "{done:?}");
        // Nothing was synced after it: that would have said that all is well.
        let at = common::place(&done.calls, "write x.log main -1");
        assert!(done.calls[at..].iter().all(|l| !l.ends_with(" 0")), "{done:?}");
    }
}

/// A bad pointer is answered as the system answers it, and changes nothing of what is staged.
#[test]
fn a_bad_pointer_is_the_calls_error_and_no_signal() {
    let kinds = [
        "null",
        "low",
        "kernel",
        "hole",
        "around",
        "gone",
        "none",
        "cut",
        "partly",
        "second",
        "nullpiece",
        "emptypiece",
        "emptykernel",
        "huge",
        "nullarray",
        "gonearray",
        "partarray",
        "oddarray",
        "negative",
        "many",
        "empty",
        "at",
        "arrayat",
    ];
    let each = |kind| format!("put a before; sync a bad a {kind} put a after; sync a ");
    let operations = format!("open a wct x.log {} exit 0", kinds.map(each).concat());
    let unhooked = place(&objects::pass()).env("LD_PRELOAD", "");
    let plain = unhooked.run(&operations);
    let bytes = std::fs::read(unhooked.path("x.log")).unwrap();
    for errno in ["null a = -1 EFAULT", "nullarray a = -1 EFAULT", "huge a = -1 EINVAL"] {
        assert!(plain.out.contains(&errno.into()), "{plain:?}");
    }
    assert!(plain.out.contains(&"partly a = 10".into()), "{plain:?}");
    for object in [objects::pass(), objects::stage(None), objects::batch(3, None)] {
        for engine in ["thread", "io_uring"] {
            let place = place(&object).env("DURAC_ENGINE", engine);
            let done = place.run(&operations);
            assert_eq!((done.code, &done.out), (0, &plain.out), "{}", object.meta.policy);
            assert_eq!(
                std::fs::read(place.path("x.log")).unwrap(),
                bytes,
                "{}",
                object.meta.policy
            );
        }
    }
    // One that asks for the length and keeps nothing.
    let done = place(&objects::length()).run(&operations);
    let answers = |done: &Done| -> Vec<String> {
        let long = |line: &&String| !line.starts_with("around") && !line.starts_with("huge");
        done.out.iter().filter(long).cloned().collect()
    };
    assert_eq!((done.code, answers(&done)), (0, answers(&plain)));
}

/// In the background, with a passed write or a reader in between: it is the next call's error.
#[test]
fn the_next_call_learns_of_it() {
    let fails = |object: &Object| place(object).env("SHIM_FAIL_WRITE", "0:28").with_status();
    let background = fails(&objects::stage(Some(1_000_000)));
    let child = background.start(&format!("{OPEN} put a x sync a file go put a y close a"));
    log_where(&background.status(), "an error", |n| n.error == 28);
    background.touch("go");
    let done = background.finish(child);
    assert_eq!(last(&done, 2), ["put a = -1 ENOSPC", "close a = -1 ENOSPC"], "{done:?}");

    let seen = fails(&objects::stage(None));
    let done = seen.run(&format!("{OPEN} put a x sync a fstat a put a y sync a"));
    let expected = ["fstat a = 0", "put a = -1 ENOSPC", "sync a = -1 ENOSPC"];
    assert_eq!(last(&done, 3), expected, "{done:?}");

    let passed = fails(&objects::stage(None));
    let done = passed.run(&format!("{OPEN} put a x pwrite a 2 sync a"));
    assert_eq!(last(&done, 2), ["pwrite a = -1 ENOSPC", "sync a = -1 ENOSPC"], "{done:?}");

    // A write that no sync call has followed is lost all the same, and that is said.
    let closed = fails(&objects::stage(None));
    let done = closed.run(&format!("{OPEN} put a x close a"));
    assert_eq!(last(&done, 1), ["close a = -1 ENOSPC"], "{done:?}");
}

#[test]
fn a_forked_child_keeps_nothing() {
    let place = place(&objects::stage(None));
    let done = place.run(&format!(
        "{OPEN} put a parent sync a fork put a child sync a rawstat x.log end put a end exit 0"
    ));
    assert_eq!(count(&done.out, "rawstat x.log = 11"), 1, "{done:?}");
    assert_eq!(std::fs::read(place.path("x.log")).unwrap(), b"parentchildend");
}

#[test]
fn without_a_thread_nothing_is_kept() {
    let place = place(&objects::stage(Some(1_000_000))).env("SHIM_NO_THREADS", "1");
    let done = place.run(&format!("{OPEN} put a x sync a put a y sync a rawstat x.log kill 9"));
    assert_eq!(done.out.last().unwrap(), "rawstat x.log = 2", "{done:?}");
}

#[test]
fn direct_files_are_left_alone() {
    let place = place(&objects::stage(None));
    // A write of nothing is no write; one that is not aligned fails at once, as it does without us.
    let done = place.run("open a wctd x.log write a 0 write a 10 rawstat x.log");
    assert!(done.out.contains(&"write a = 0".into()), "{done:?}");
    let supported = done.out[0] == "open x.log = 0";
    assert!(!supported || done.out.contains(&"write a = -1 EINVAL".into()), "{done:?}");
}

/// The syncer writes and syncs in one go: no call of the C library is seen. Nobody else can have
/// written: the application waits for something else.
#[test]
fn with_a_ring_the_syncer_makes_no_calls() {
    let calls = |place: Place| {
        let child = place.start(&format!("{OPEN} put a abc sync a file go exit 0"));
        poll("the bytes", || (size(&place) == 3).then_some(()));
        place.touch("go");
        let done = place.finish(child);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
        done.calls.iter().filter(|call| call.contains("write x.log thread")).count()
    };
    let object = objects::stage(Some(100_000));
    assert_eq!((calls(place(&object)), calls(with_ring(place(&object)))), (1, 0));
}

/// What reaches the file is the same, and after a kill as much of it.
#[test]
fn a_ring_writes_the_same() {
    let texts: String = (0..300).map(|at| format!("put a {at}; sync a ")).collect();
    let expected: String = (0..300).map(|at| format!("{at};")).collect();
    for object in [objects::batch(1, None), objects::batch(7, None), objects::stage(Some(100_000))]
    {
        let place = with_ring(place(&object)).with_status();
        let done = place.run(&format!("{OPEN} {texts} exit 0"));
        assert_eq!(std::fs::read_to_string(place.path("x.log")).unwrap(), expected);
        assert_eq!((done.code, count(&done.out, "sync a = 0"), done.err.as_str()), (0, 300, ""));
    }
    for (calls, left) in [(2, 0), (3, 30), (7, 60)] {
        let place = with_ring(place(&objects::batch(3, None)));
        place.run(&format!("{OPEN} {} kill 9", "write a 10 sync a ".repeat(calls)));
        assert_eq!(size(&place), left, "{calls} calls");
    }
}

/// A batch is cut short, and its rest fails. (A full disk is `tests/it/faults.rs`.)
#[test]
fn a_short_write_and_an_error() {
    let place = Place::new(&objects::batch(3, None))
        .env("DURAC_ENGINE", "thread")
        .env("SHIM_SHORT", "25")
        .env("SHIM_FAIL_WRITE", &format!("1:{}", libc::EFBIG));
    let done = place.run(&format!(
        "{OPEN} write a 10 sync a write a 10 sync a write a 10 sync a write a 1 close a"
    ));
    let expected = ["sync a = -1 EFBIG", "write a = -1 EFBIG", "close a = -1 EFBIG"];
    assert_eq!(last(&done, 3), expected, "{done:?}");
    assert_eq!(size(&place), 25);
    // A sync that succeeded would have said that all is well.
    assert_eq!(count(&done.calls, "+fdatasync"), 0, "{done:?}");
}

/// Under a limit of the file's size nothing is staged: the application's own write is cut short.
#[test]
fn a_limit_of_the_size_is_the_calls_own() {
    let place = Place::new(&objects::batch(3, None));
    let done =
        place.run(&format!("{OPEN} limit 25 write a 10 write a 10 write a 10 write a 1 close a"));
    let expected = ["write a = 10", "write a = 10", "write a = 5", "write a = -1 EFBIG"];
    assert_eq!(last(&done, 5)[..4], expected, "{done:?}");
    assert!(last(&done, 1)[0].starts_with("close a = 0"), "{done:?}");
    assert_eq!(size(&place), 25);
}

#[test]
fn a_ring_survives_forks_and_stays_its_threads_own() {
    let place = with_ring(place(&objects::batch(2, None)));
    let round = "put a ab sync a put a cd sync a fork put a child; sync a close a end ";
    let done = place.run(&format!("open a wcta x.log {} exit 0", round.repeat(20)));
    assert_eq!(count(&done.out, "child exit = 0"), 20, "{done:?}");
    let text = std::fs::read_to_string(place.path("x.log")).unwrap();
    assert_eq!(text, "abcdchild;".repeat(20));
}

#[test]
fn an_unknown_engine_is_said_and_changes_nothing() {
    let place = place(&objects::batch(1, None)).env("DURAC_ENGINE", "steam");
    let done = place.run(&format!("{OPEN} put a x sync a exit 0"));
    assert!(done.err.contains("unknown engine `steam`; it is `thread` or `io_uring`"), "{done:?}");
    assert_eq!(size(&place), 1);
}

/// Threads write lines of their own: each is whole, and those of a thread stand in its order.
#[test]
fn threads_that_write_at_once_keep_their_order() {
    let place = place(&objects::batch(5, Some(200_000))).with_status();
    let one = |thread: char| {
        (0..200).map(move |i| {
            format!("put a {thread}{i:03}; {}", if i % 3 == 0 { "sync a " } else { "" })
        })
    };
    let (first, second): (String, String) = (one('A').collect(), one('B').collect());
    let done = place.run(&format!("open a wcta x.log spawn {first} end {second} join exit 0"));
    assert_eq!(count(&done.out, "put a = 5"), 400, "{done:?}");
    let text = std::fs::read_to_string(place.path("x.log")).unwrap();
    let lines: Vec<&str> = text.split_terminator(';').collect();
    assert_eq!(lines.len(), 400);
    for thread in ['A', 'B'] {
        let own: Vec<&&str> = lines.iter().filter(|l| l.starts_with(thread)).collect();
        assert!(own.len() == 200 && own.is_sorted(), "{own:?}");
    }
}

/// A status page tells what is staged.
#[test]
fn the_status_page_says_what_is_staged() {
    let place = place(&objects::stage(None)).with_status();
    let child = place.start(&format!("{OPEN} write a 10 sync a write a 7 sync a file go"));
    let numbers = log_where(&place.status(), "two calls", |n| n.acknowledged == 2);
    assert_eq!((numbers.staged, numbers.staged_bytes), (2, 17));
    place.touch("go");
    assert_eq!(place.finish(child).code, 0);
    poll("the file", || Path::new(&place.path("x.log")).exists().then_some(()));
    assert_eq!(size(&place), 17);
}
