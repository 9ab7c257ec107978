//! What a log has deferred comes before what happens to other files.

use crate::common::{Place, count, objects, place};

/// The log is drained before the line that starts with `after`.
fn drained_before(operation: &str, after: &str) {
    for object in [objects::skip(None), objects::window(64)] {
        let done = Place::new(&object).run(&format!(
            "open m wct manifest write m 1 open a wct x.log write a 1 sync a {operation} kill 9"
        ));
        let synced = place(&done.calls, "-fdatasync x.log");
        assert!(synced < place(&done.calls, after), "{operation}: {done:?}");
    }
}

#[test]
fn syncs_renames_and_removals_of_other_files_drain_the_logs() {
    drained_before("sync m", "+fdatasync manifest");
    drained_before("fsync m", "+fsync manifest");
    drained_before("rename manifest other", "rename manifest");
    drained_before("unlink manifest", "unlink manifest");
    drained_before("open d r . fsync d", "+fsync ");
    drained_before("spawn sync m end join", "+fdatasync manifest");
}

#[test]
fn so_does_a_sync_of_another_log() {
    let done = Place::new(&objects::skip(None))
        .run("open a wct x.log open b wct y.log write a 1 sync a write b 1 sync b kill 9");
    assert_eq!(done.calls, ["+fdatasync x.log", "-fdatasync x.log main 0"], "{done:?}");
}

#[test]
fn truncating_another_file_drains() {
    for operation in ["ftruncate m 0", "truncate manifest 0"] {
        let done = Place::new(&objects::skip(None)).run(&format!(
            "open m wct manifest open a wct x.log write a 1 sync a {operation} kill 9"
        ));
        assert_eq!(count(&done.calls, "-fdatasync x.log main 0"), 1, "{done:?}");
    }
}

#[test]
fn with_nothing_deferred_nothing_is_synced() {
    let done = Place::new(&objects::pass()).run(
        "open m wct manifest write m 1 open a wct x.log write a 1 sync a rename manifest b sync m",
    );
    assert_eq!(count(&done.calls, "+fdatasync"), 2, "{done:?}");
}

#[test]
fn a_failed_drain_fails_the_call() {
    for (operation, line) in [
        ("sync m", "sync m = -1 EIO"),
        ("rename manifest b", "rename manifest = -1 EIO"),
        ("unlink manifest", "unlink manifest = -1 EIO"),
        ("truncate manifest 0", "truncate manifest = -1 EIO"),
    ] {
        let done = Place::new(&objects::skip(None)).env("SHIM_FAIL", "0:5").run(&format!(
            "open m wct manifest write m 1 open a wct x.log write a 1 sync a {operation}"
        ));
        assert_eq!(done.out.last().unwrap(), line, "{done:?}");
        assert_eq!(done.calls[..2], ["+fdatasync x.log", "-fdatasync x.log main -1"], "{done:?}");
    }
}

#[test]
fn a_log_that_failed_holds_up_nobody_once_it_is_closed() {
    let done = Place::new(&objects::skip(None)).env("SHIM_FAIL_ONCE", "0").run(
        "open m wct manifest write m 1 open a wct x.log write a 1 sync a sync m close a sync m",
    );
    let ends = ["sync m = -1 EIO", "close a = -1 EIO", "sync m = 0"];
    assert_eq!(done.out[done.out.len() - 3..], ends, "{done:?}");
}
