//! A failed sync is never forgotten.

use crate::common::{Done, Place, count, log_where, objects, poll, program};
use durac_abi::object::OnError;

#[test]
fn a_failed_background_sync_is_returned_by_every_later_call() {
    for (errno, name) in [(libc::EIO, "EIO"), (libc::ENOSPC, "ENOSPC")] {
        for object in [objects::window(1), objects::window(4), objects::defer()] {
            let done = Place::new(&object).env("SHIM_FAIL", &format!("1:{errno}")).run(
                "open a wct x.log write a 1 sync a syncs 1 write a 1 sync a syncs 2 \
                 fails a sync a fsync a writev a 2 ftruncate a 1 close a",
            );
            let failed: Vec<&String> = done.out.iter().filter(|l| l.contains("-1")).collect();
            let expected = ["write a", "sync a", "fsync a", "writev a", "ftruncate a", "close a"];
            // The second sync may itself have waited for the one that failed.
            let failed = &failed[failed.len() - expected.len()..];
            for (line, call) in failed.iter().zip(expected) {
                assert_eq!(**line, format!("{call} = -1 {name}"), "{done:?}");
            }
            assert_eq!(count(&done.calls, "+fdatasync"), 2, "no sync after: {done:?}");
        }
    }
}

#[test]
fn a_failed_direct_sync_is_sticky_too() {
    let done = Place::new(&objects::pass())
        .env("SHIM_FAIL_ONCE", "1")
        .run("open a wct x.log write a 1 sync a write a 1 sync a write a 1 sync a close a");
    assert_eq!(
        done.out[1..],
        [
            "write a = 1",
            "sync a = 0",
            "write a = 1",
            "sync a = -1 EIO",
            "write a = -1 EIO",
            "sync a = -1 EIO",
            // Nothing that was acknowledged is lost.
            "close a = 0",
        ]
    );
}

#[test]
fn who_waits_for_a_failing_sync_gets_its_error() {
    let place = Place::new(&objects::window(1)).env("SHIM_FAIL", "0:5").with_status();
    let child = place.start(
        "open a wct x.log hold write a 1 sync a spawn write a 1 sync a end file go release join",
    );
    log_where(&place.status(), "a call that waits", |l| l.waits == 1);
    place.touch("go");
    let done = place.finish(child);
    assert_eq!(done.out[2..], ["sync a = 0", "write a = 1", "sync a = -1 EIO"], "{done:?}");
}

#[test]
fn the_first_direct_sync_beside_a_failing_one_does_not_succeed() {
    // The kernel reports the error to one of the two.
    let place = Place::new(&objects::window(4)).env("SHIM_FAIL_ONCE", "0").with_status();
    let child = place.start(
        "open a wct x.log hold write a 1 sync a file direct spawn fsync a end file go release join \
         close a",
    );
    // Only then: a direct sync that starts first covers the deferred call, and leaves nothing to do.
    poll("the background sync", || (count(&place.calls(), "+") == 1).then_some(()));
    place.touch("direct");
    poll("both syncs", || (count(&place.calls(), "+") == 2).then_some(()));
    place.touch("go");
    let done = place.finish(child);
    assert!(done.out.contains(&"fsync a = -1 EIO".into()), "{done:?}");
}

#[test]
fn closing_reports_what_could_not_be_synced_and_closes() {
    let done = Place::new(&objects::skip(None))
        .env("SHIM_FAIL", "0:28")
        .run("open a wct x.log write a 1 sync a close a close a");
    assert_eq!(done.out[2..], ["sync a = 0", "close a = -1 ENOSPC", "close a = -1 EBADF"]);
}

#[test]
fn exit_says_what_could_not_be_synced() {
    let done = Place::new(&objects::skip(None))
        .env("SHIM_FAIL", "0:5")
        .run("open a wct x.log write a 1 sync a exit 3");
    assert_eq!(done.code, 3);
    assert!(done.err.contains("acknowledged calls were not synced at exit"), "{done:?}");
}

#[test]
fn a_new_file_begins_without_the_error() {
    let done = Place::new(&objects::window(4)).env("SHIM_FAIL_ONCE", "0").run(
        "open a wct x.log write a 1 sync a syncs 1 close a open a wct y.log write a 1 sync a close a",
    );
    assert_eq!(done.out[4..], ["open y.log = 0", "write a = 1", "sync a = 0", "close a = 0"]);
}

#[test]
fn on_error_stop_stops_every_log() {
    for (on_error, second) in [(OnError::Fail, "sync b = 0"), (OnError::Stop, "sync b = -1 EIO")] {
        let mut object = objects::pass();
        object.meta.on_error = on_error;
        let done = Place::new(&object)
            .env("SHIM_FAIL_ONCE", "0")
            .run("open a wct x.log open b wct y.log write b 1 write a 1 sync a sync b");
        assert_eq!(done.out.last().unwrap(), second, "{done:?}");
    }
}

#[test]
fn a_cancelled_thread_leaves_the_log_usable() {
    let place = Place::new(&objects::window(1)).with_status();
    let child = place.start(
        "open a wct x.log hold write a 1 sync a spawn write a 1 sync a end file go cancel release \
         join write a 1 sync a close a",
    );
    log_where(&place.status(), "a call that waits", |l| l.waits == 1);
    place.touch("go");
    let done = place.finish(child);
    assert_eq!(done.out.last().unwrap(), "close a = 0", "{done:?}");
}

fn reach(words: [&str; 2], name: &str, value: &str) -> Done {
    let place = Place::new(&objects::defer()).env(name, value).env("DURAC_LOG", "all");
    place.finish(place.start_words(&program("reach"), &words))
}

/// The kernel reports an error once for each open file, and the agent's sync has got it: each call that syncs the log
/// returns it, by whatever name or number, and in a child.
#[test]
fn the_error_of_the_agents_sync_is_every_sync_calls() {
    let by_name = ["fdatasync", "range", "syncfs", "msync", "pwritev2", "aio"];
    let by_number = [
        "fsync",
        "fdatasync",
        "range",
        "syncfs",
        "msync",
        "pwritev2",
        "write",
        "io_submit",
        "io_submit_dsync",
    ];
    let in_children = [
        "forked:fdatasync",
        "forked:number:fdatasync",
        "forked:msync",
        "born:fdatasync",
        "sibling:fdatasync",
    ];
    let by_number = by_number.map(|way| format!("number:{way}"));
    for way in by_name.into_iter().chain(by_number.iter().map(String::as_str)).chain(in_children) {
        let done = reach(["failed", way], "SHIM_FAIL_SPAN", "0:1:28");
        assert_eq!(done.out, ["-1 28"], "{way}: {done:?}");
        let line = "x.log: a sync failed: No space left on device (os error 28); nothing more is acknowledged on it";
        assert_eq!(done.err.matches(line).count(), 1, "{way}: {done:?}");
    }
}

/// A child made when the log is closed shares no open file with it. And `syncfs` reports of its own descriptor.
#[test]
fn the_error_of_a_log_is_not_another_files() {
    for way in ["closed:fdatasync", "closed:number:fdatasync", "forked:syncfs"] {
        let done = reach(["failed", way], "SHIM_FAIL_SPAN", "0:1:28");
        assert_eq!(done.out, ["0 0"], "{way}: {done:?}");
    }
}

/// A child that takes over its parent's log has the error that the parent's sync has got, before and after.
#[test]
fn the_error_of_a_log_is_that_of_the_child_that_takes_it_over() {
    let at_least = objects::at_least(100_000_000);
    let done = Place::new(&at_least)
        .env("SHIM_FAIL_SPAN", "0:1:28")
        .run("open a wct x.log write a 1 fails a fork fails a sync a end");
    let child = ["write a = -1 ENOSPC", "sync a = -1 ENOSPC", "child exit = 0"];
    assert_eq!(done.out[3..], child, "{done:?}");
    // The child has the log when its parent's fourth sync fails, and all of its own succeed.
    let done = Place::new(&at_least).env("SHIM_FAIL_SPAN", "3:1:28").run(
        "open a wct x.log keepfork file go pause 300 sync a end sync a sync a sync a sync a \
         open z wc go wait",
    );
    let syncs = done.out.iter().filter(|line| line.starts_with("sync a")).collect::<Vec<_>>();
    let expected = ["0", "0", "0", "-1 ENOSPC", "-1 ENOSPC"].map(|it| format!("sync a = {it}"));
    assert_eq!(syncs, expected.iter().collect::<Vec<_>>(), "{done:?}");
}

/// What a child has got of the kernel is not reported to its parent any more, whose log it is.
#[test]
fn the_error_that_a_child_takes_is_its_parents() {
    for fork in ["fork", "barefork"] {
        for (call, fails, how) in
            [("sync", "SHIM_FAIL_ONCE", "0"), ("range", "SHIM_FAIL_OTHERS", "5")]
        {
            let done = Place::new(&objects::skip(None)).env(fails, how).run(&format!(
                "open a wct x.log write a 1 sync a {fork} {call} a end \
                 write a 1 sync a write a 1 sync a kill 9"
            ));
            let child = format!("{call} a = -1 EIO");
            assert_eq!(done.out[3], child, "{fork}: {done:?}");
            assert_eq!(count(&done.out[4..], "sync a = -1 EIO"), 2, "{fork} {call}: {done:?}");
        }
    }
}

#[test]
fn the_error_that_a_child_of_vfork_takes_is_its_parents() {
    let done = Place::new(&objects::skip(None))
        .env("SHIM_FAIL_ONCE", "0")
        .run("open a wct x.log write a 1 sync a vsync a write a 1 sync a write a 1 sync a kill 9");
    assert_eq!(done.out[3], "child vsync = 5", "{done:?}");
    assert_eq!(count(&done.out[4..], "sync a = -1 EIO"), 2, "{done:?}");
}

/// A child's failure is nothing to the children that are made when the parent has opened the file anew, or if the child had.
#[test]
fn the_error_of_a_child_is_not_that_of_later_children() {
    let fails = "open z wct z.txt sync z sync z";
    let own = "close a open a wa x.log write a 1 sync a close a";
    for (child, nth, anew) in [
        // The open file that the child has inherited, and one of its own.
        ("sync a", "2", "close a open a wa x.log"),
        (own, "3", "close a open a wa x.log"),
        // That its siblings never share.
        (own, "3", ""),
    ] {
        let done = Place::new(&objects::skip(None)).env("SHIM_FAIL_ONCE", nth).run(&format!(
            "open a wct x.log write a 1 fork {fails} {child} end {anew} \
             fork sync a range a end kill 9"
        ));
        assert_eq!(count(&done.out, "sync a = -1 EIO"), 1, "{child}: {done:?}");
        let later = &done.out[done.out.len() - 3..];
        assert_eq!(later, ["sync a = 0", "range a = 0", "child exit = 0"], "{child}: {done:?}");
    }
}

/// What another call that syncs has got of the kernel stops the log.
#[test]
fn an_error_that_another_call_takes_is_kept() {
    let line = "x.log: a sync failed: No space left on device (os error 28)";
    for way in ["range", "msync", "pwritev2"] {
        let done = reach(["taken", way], "SHIM_FAIL_OTHERS", "28");
        assert_eq!(done.out, ["-1 28"; 3], "{way}: {done:?}");
        assert_eq!(done.err.matches(line).count(), 1, "{way}: {done:?}");
        // What the system refuses, it has not looked at.
        let done = reach(["taken", way], "SHIM_FAIL_OTHERS", "22");
        assert_eq!(done.out, ["-1 22", "0 0", "0 0"], "{way}: {done:?}");
    }
    // Nor has it synced a file to which it has written nothing. What `syncfs` reports is not the log's.
    for (way, fails) in [("pwritev2", "SHIM_REFUSE_WRITE"), ("syncfs", "SHIM_FAIL_OTHERS")] {
        let done = reach(["taken", way], fails, "28");
        assert_eq!(done.out, ["-1 28", "0 0", "0 0"], "{way}: {done:?}");
        assert!(!done.err.contains("failed"), "{way}: {done:?}");
    }
}
