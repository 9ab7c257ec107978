//! Children, other programs, and the end of the process.

use crate::common::{Done, Place, count, objects, place, poll, program};
use durac_abi::Object;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn everything_acknowledged_is_synced_before_the_process_ends() {
    for end in ["exit 3", "_exit 3", "echo returns", "exec true"] {
        for object in [objects::skip(None), objects::window(64)] {
            let done = Place::new(&object)
                .run(&format!("open a wct x.log write a 1 sync a write a 1 sync a {end}"));
            assert!(done.code == 3 || !end.contains('3'), "{done:?}");
            assert!(count(&done.calls, "-fdatasync x.log") >= 1, "{end}: {done:?}");
        }
    }
}

#[test]
fn a_failed_exec_leaves_the_policy_in_place() {
    let done = Place::new(&objects::skip(None))
        .run("open a wct x.log write a 1 sync a fork exec /nonexistent end write a 1 sync a");
    assert_eq!(done.out[3..], ["child exit = 97", "write a = 1", "sync a = 0"], "{done:?}");
    assert_eq!(count(&done.calls, "+"), 1, "the child drains nothing: {done:?}");
}

#[test]
fn other_threads_defer_nothing_while_the_process_becomes_another() {
    for (object, leaves) in [
        (objects::skip(None), "exec true"),
        (objects::skip(None), "daemon exit 0"),
        (objects::window(64), "exec true"),
        (objects::stage(None), "exec true"),
    ] {
        let place = Place::new(&object);
        // The second thread's call comes while what was acknowledged before is synced.
        let running = place.start(&format!(
            "open a wct x.log write a 1 sync a hold spawn begun 1 spawn file go release end \
             write a 1 sync a open z wc done end {leaves}"
        ));
        let done = place.path("done");
        let begun = poll("a sync, or its success", || {
            let begun = count(&place.calls(), "+fdatasync x.log");
            (begun == 2 || std::path::Path::new(&done).exists()).then_some(begun)
        });
        place.touch("go");
        let done = place.finish(running);
        assert_eq!(begun, 2, "{leaves}: acknowledged, and nobody syncs it: {done:?}");
    }
}

#[test]
fn other_threads_defer_again_when_the_process_has_not_become_another() {
    for way in ["execl", "execlp", "execle", "execv", "number"] {
        let done = Place::new(&objects::skip(None)).run(&format!(
            "open a wct x.log write a 1 sync a failexec {way} \
             spawn write a 1 sync a write a 1 sync a end join kill 9"
        ));
        assert!(done.out.contains(&format!("failexec {way} = -1 ENOENT")), "{done:?}");
        assert_eq!(count(&done.out, "sync a = 0"), 3, "{done:?}");
        assert_eq!(count(&done.calls, "+fdatasync"), 1, "{way}: {done:?}");
    }
}

#[test]
fn a_child_that_is_forked_while_a_first_log_is_opened_opens_its_own() {
    let place = Place::new(&objects::skip(None));
    let running = place.start(
        "holdtable spawn open a wct x.log end attable \
         fork freetable open b wct y.log write b 1 sync b close b end freetable join",
    );
    let done = place.finish_within(running, Duration::from_secs(60));
    assert_eq!(count(&done.out, "close b = 0"), 1, "{done:?}");
    assert_eq!(count(&done.out, "open x.log = 0"), 1, "{done:?}");
}

#[test]
fn a_child_passes_through_and_never_waits_for_the_parents_threads() {
    let done = Place::new(&objects::window(1)).run(
        "open a wct x.log hold write a 1 sync a begun 1 \
         fork release write a 1 sync a write a 1 sync a close a echo child end \
         release close a",
    );
    let in_child = ["write a = 1", "sync a = 0", "write a = 1", "sync a = 0", "close a = 0"];
    assert_eq!(done.out[3..8], in_child, "{done:?}");
    assert_eq!(count(&done.calls, "-fdatasync x.log main 0"), 2, "direct: {done:?}");
}

#[test]
fn a_child_that_ends_drains_nothing() {
    for end in ["exit 0", "_exit 0", "exec true"] {
        let done = Place::new(&objects::skip(None))
            .run(&format!("open a wct x.log write a 1 sync a fork {end} end kill 9"));
        assert_eq!(done.calls, [""; 0], "{end}: {done:?}");
    }
}

#[test]
fn a_child_may_have_logs_of_its_own() {
    // As a server does that goes into the background before it opens its files.
    let done = Place::new(&objects::window(8)).with_status().run(
        "keepfork open a wct x.log hold write a 1 sync a write a 1 sync a release close a end wait",
    );
    assert_eq!(count(&done.out, "sync a = 0"), 2, "{done:?}");
    assert!(place(&done.calls, "-fdatasync x.log") < place(&done.calls, "close x.log"));
    assert_eq!(done.err, "");
    // And with a log in the parent, which keeps the status file.
    let done = Place::new(&objects::skip(None)).with_status().run(
        "open p wct p.log write p 1 sync p \
         fork open a wct x.log write a 1 sync a close p exit 0 end write p 1 sync p",
    );
    let calls: Vec<&String> = done.calls.iter().filter(|l| !l.starts_with("unlink")).collect();
    assert_eq!(
        calls,
        [
            "close p.log",
            "+fdatasync x.log",
            "-fdatasync x.log main 0",
            "+fdatasync p.log",
            "-fdatasync p.log main 0"
        ],
        "{done:?}"
    );
    assert_eq!(done.err, "");
}

/// A line of the shim: a syncer thread has synced the log.
const BY_THREAD: &str = "-fdatasync x.log thread 0";

/// Waits until a syncer thread has synced the log once more than `before`.
fn synced_again(place: &Place, before: usize) {
    poll("a sync by a thread", || (count(&place.calls(), BY_THREAD) > before).then_some(()));
}

#[test]
fn a_daemons_log_is_looked_after_though_its_parent_has_opened_it() {
    for (opens, ends) in [
        // By hand, once and twice, and by the C library.
        ("keepfork", "end exit 0"),
        ("keepfork keepfork", "end _exit 0 end exit 0"),
        ("daemon", ""),
    ] {
        let place = Place::new(&objects::at_least(400_000_000));
        let running = place.start(&format!(
            "open a wct x.log write a 1 {opens} file go write a 1 file synced {ends}"
        ));
        // The parent's last call, with what it wrote.
        poll("the parent's end", || {
            (count(&place.calls(), "-fdatasync x.log main 0") > 0).then_some(())
        });
        let before = count(&place.calls(), BY_THREAD);
        place.touch("go");
        synced_again(&place, before);
        place.touch("synced");
        let done = place.finish(running);
        assert_eq!((done.err.as_str(), done.code), ("", 0), "{opens}: {done:?}");
    }
}

#[test]
fn a_log_that_a_shell_has_opened_is_looked_after() {
    let place = Place::new(&objects::at_least(400_000_000));
    let mut command = place.command("sh");
    command.args(["-c", "exec cat >>x.log"]).stdin(Stdio::piped());
    let mut cat = command.spawn().unwrap();
    for round in 0..2 {
        let before = count(&place.calls(), BY_THREAD);
        writeln!(cat.stdin.as_ref().unwrap(), "{round}").unwrap();
        synced_again(&place, before);
    }
    drop(cat.stdin.take());
    assert!(cat.wait().unwrap().success());
    assert_eq!(std::fs::read_to_string(place.path("x.log")).unwrap(), "0\n1\n");
}

#[test]
fn a_log_is_taken_over_by_another_name_and_number() {
    let place = Place::new(&objects::at_least(400_000_000));
    // As a daemon does that writes its standard output to a log, while the log is rotated.
    let running = place.start(
        "open a wct x.log write a 1 keepfork rename x.log x.old dup a b close a \
         file go write b 1 file synced end _exit 0",
    );
    place.touch("go");
    poll("a sync by a thread", || {
        (count(&place.calls(), "-fdatasync x.old thread 0") > 0).then_some(())
    });
    place.touch("synced");
    let done = place.finish(running);
    assert_eq!((done.err.as_str(), done.code), ("", 0), "{done:?}");
}

#[test]
fn a_child_may_do_what_needs_a_process_without_threads() {
    // With a thread that nobody knows of the kernel says EINVAL. It may refuse for other reasons.
    let done = Place::new(&objects::at_least(400_000_000))
        .run("open a wct x.log write a 1 fork userns userns _exit 0 end");
    let results: Vec<&String> = done.out.iter().filter(|l| l.starts_with("userns")).collect();
    assert_eq!(results.len(), 2, "{done:?}");
    assert!(results.iter().all(|line| !line.contains("EINVAL")), "{done:?}");
}

#[test]
fn a_child_may_filter_the_system_calls_of_all_threads() {
    let done = Place::new(&objects::at_least(400_000_000))
        .run("open a wct x.log write a 1 fork filter pause 300 write a 1 _exit 0 end");
    assert!(done.out.contains(&"child exit = 0".into()), "{done:?}");
}

#[test]
fn programs_that_inherit_a_log_do_not_tell_of_it_again() {
    let place = Place::new(&objects::at_least(400_000_000)).env("DURAC_LOG", "stderr");
    let output = place.command("sh").args(["-c", "exec >>x.log; sleep 0.4; sleep 0.4"]).output();
    let said = String::from_utf8(output.unwrap().stderr).unwrap();
    assert_eq!(said.matches("is in force").count(), 1, "{said}");
    assert!(said.contains("/x.log (fdatasync write): "), "{said}");
}

#[test]
fn a_child_that_shares_memory_closes_only_its_own_copy() {
    let done = Place::new(&objects::skip(None))
        .run("open a wct x.log write a 1 sync a vfork a write a 1 sync a close a");
    assert_eq!(done.out[3..], ["write a = 1", "sync a = 0", "close a = 0"]);
    let calls = ["close x.log", "+fdatasync x.log", "-fdatasync x.log main 0", "close x.log"];
    assert_eq!(done.calls[..4], calls, "{done:?}");
}

#[test]
fn running_children_are_counted() {
    let mut object = objects::object("child", |asm| {
        use durac_abi::insn::{Cond, Insn, Reg, Size};
        use durac_abi::{Reading, Verdict};
        let alone = asm.label();
        asm.push(Insn::ldx(Size::Dw, Reg::R2, Reg::R1, Reading::ChildActive.offset()));
        asm.jump_if_imm(Cond::Eq, Reg::R2, 0, alone);
        objects::verdict(asm, Verdict::Fail(libc::EBUSY));
        asm.bind(alone);
        objects::verdict(asm, Verdict::Skip);
    });
    object.meta.reads = vec![durac_abi::Reading::ChildActive];
    let place = Place::new(&object);
    let child = place.start(
        "open a wct x.log write a 1 sync a keepfork file go end write a 1 sync a file go wait \
         write a 1 sync a",
    );
    place.touch("go");
    let done = place.finish(child);
    let syncs: Vec<&String> = done.out.iter().filter(|l| l.starts_with("sync")).collect();
    assert_eq!(syncs, ["sync a = 0", "sync a = -1 EBUSY", "sync a = 0"], "{done:?}");
}

/// `c/shares.c`
fn shares(object: &Object, words: &[&str]) -> Done {
    let place = Place::new(object).env("DURAC_LOG", "all");
    let running = place.start_words(&program("shares"), words);
    place.finish_within(running, Duration::from_secs(60))
}

#[test]
fn a_child_that_shares_memory_takes_no_agent_away() {
    for way in ["first", "number", "stream"] {
        for object in [objects::window(4), objects::at_least(100_000_000)] {
            let done = shares(&object, &["vfork", way]);
            assert_eq!((&*done.out, done.code), (&["fine".to_owned()][..], 0), "{way} {done:?}");
            assert_eq!(count(&done.calls, "+fdatasync child.log"), 0, "{way} {done:?}");
        }
        // What is acknowledged is durable when the process ends.
        let done = shares(&objects::skip(None), &["vfork", way]);
        assert_eq!(count(&done.calls, "-fdatasync x.log main 0"), 1, "{way} {done:?}");
    }
}

#[test]
fn a_child_that_shares_memory_may_sync_a_log_without_the_agents_descriptors() {
    for object in [objects::defer(), objects::window(4), objects::pass()] {
        let done = shares(&object, &["vfork", "syncs"]);
        assert_eq!((&*done.out, done.code), (&["fine".to_owned()][..], 0), "{done:?}");
        // By itself: nothing of it is deferred.
        assert!(count(&done.calls, "-fdatasync x.log main 0") >= 3, "{done:?}");
    }
}

#[test]
fn a_child_that_shares_memory_may_have_the_agents_numbers() {
    let done = shares(&objects::window(4), &["vfork", "numbers"]);
    assert_eq!((&*done.out, done.code), (&["fine".to_owned()][..], 0), "{done:?}");
}

/// `c/handlers.c`
fn handlers(object: &Object, words: &[&str]) -> Done {
    let place = Place::new(object).env("DURAC_LOG", "all");
    let running = place.start_words(&program("handlers"), words);
    synced_again(&place, 0);
    place.touch("go");
    let done = place.finish(running);
    assert_eq!((&*done.out, done.code), (&["fine".to_owned()][..], 0), "{words:?} {done:?}");
    done
}

#[test]
fn a_log_that_a_handler_has_opened_is_looked_after() {
    for stack in ["same", "alternate"] {
        let done = handlers(&objects::at_least(400_000_000), &["open", stack]);
        let line = |text: &str| done.err.find(text).unwrap_or_else(|| panic!("{done:?}"));
        assert!(line("it was opened in a signal handler") < line("is in force"), "{done:?}");
    }
}

#[test]
fn each_log_that_a_handler_has_opened_is_said_to_be_looked_after() {
    for object in [objects::at_least(400_000_000), objects::skip(Some(400_000_000))] {
        let place = Place::new(&object);
        let said = place.path("said");
        let place = place.env("DURAC_LOG", &said);
        let running = place.start_words(&program("handlers"), &["both", "same"]);
        place.touch("go");
        let done = place.finish(running);
        let said = std::fs::read_to_string(said).unwrap();
        for name in ["x.log", "y.log"] {
            let line = |text: &str| {
                said.lines().position(|line| line.contains(name) && line.contains(text))
            };
            let (first, last) = (line("it was opened in a signal handler"), line("is in force on"));
            assert!(first.is_some() && first < last, "{name}: {said} {done:?}");
        }
    }
}

#[test]
fn a_handler_that_has_left_by_a_jump_counts_no_longer() {
    for stack in ["same", "alternate"] {
        handlers(&objects::at_least(400_000_000), &["stream", stack]);
        let done = handlers(&objects::skip(Some(400_000_000)), &["sync", stack]);
        let first = done.calls.iter().find(|line| line.starts_with("-fdatasync x.log"));
        assert_eq!(first.map(String::as_str), Some(BY_THREAD), "{done:?}");
    }
}

#[test]
fn a_policy_is_switched_off_after_a_handler_has_left_by_a_jump() {
    let place = Place::new(&objects::skip(Some(400_000_000)));
    let running = place.start_words(&program("handlers"), &["calls", "same"]);
    synced_again(&place, 0);
    let off = durac_tests::durac(["off", &running.id().to_string()]).unwrap();
    let off = durac_tests::run(off).unwrap();
    assert!(off.status.success(), "{}", durac_tests::show(&off));
    place.touch("go");
    assert_eq!(place.finish(running).out, ["fine"]);
}

/// What a call has raised in the process goes with it, also if a handler jumps out of it.
#[test]
fn a_call_that_a_handler_has_left_by_a_jump_holds_nothing_up() {
    let leaves = |object, way| {
        let place = Place::new(&object).env("SHIM_WRITES", "1").env("DURAC_LOG", "all");
        place.finish(place.start_words(&program("handlers"), &["leave", way]))
    };
    for way in ["execv", "execl", "number"] {
        let done = leaves(objects::skip(None), way);
        assert_eq!(done.out, ["1 syncs"], "{way}: {done:?}");
    }
    let done = leaves(objects::stage(None), "fork");
    assert_eq!(done.out, ["0 syncs"], "{done:?}");
    assert_eq!(count(&done.calls, "write x.log main 6"), 1, "staged again: {done:?}");
    // There may be a child that nobody counts.
    let done = leaves(objects::stage(None), "atfork");
    assert_eq!(done.out, ["0 syncs"], "{done:?}");
    assert_eq!(count(&done.calls, "write x.log main 2"), 4, "{done:?}");
    assert!(done.err.contains("x.log: writes are no longer staged"), "{done:?}");
}

#[test]
fn a_forked_child_has_no_descriptor_of_the_agents() {
    let place = Place::new(&objects::skip(None));
    let done = place.finish(place.start_words(&program("child"), &[]));
    assert_eq!((&*done.out, done.code), (&["fine".to_owned()][..], 0), "{done:?}");
}

#[test]
fn what_a_child_that_shares_memory_opens_is_not_its_parents() {
    // The log has one descriptor, with which what is acknowledged becomes durable.
    let done = shares(&objects::skip(None), &["vfork", "known"]);
    assert_eq!(done.out, ["synced"], "{done:?}");
    // And the number of a file whose writes are durable is another file's.
    let done = shares(&objects::skip(None), &["vfork", "durable"]);
    assert_eq!(done.out, ["not synced"], "{done:?}");
}

#[test]
fn descriptor_tables_that_are_not_shared_as_memory_is_end_the_policy() {
    for way in ["range", "number:range", "clone", "number:clone"] {
        let done = shares(&objects::window(4), &["table", way]);
        assert_eq!((&*done.out, done.code), (&["fine".to_owned()][..], 0), "{way} {done:?}");
        let told = done.err.lines().filter(|line| line.contains("the policy is off")).count();
        assert_eq!(told, 1, "{way} {done:?}");
        assert_eq!(count(&done.calls, "-fdatasync y.log main 0"), 8, "{way} {done:?}");
    }
    // Of a process that has one thread there is one table.
    let done = shares(&objects::window(4), &["table", "alone"]);
    assert_eq!((&*done.out, done.code), (&["fine".to_owned()][..], 0), "{done:?}");
    assert!(!done.err.contains("the policy is off"), "{done:?}");
    assert!(count(&done.calls, "-fdatasync y.log main 0") < 8, "{done:?}");
}

#[test]
fn a_number_of_the_agents_can_be_given_to_another_file() {
    let done = shares(&objects::window(4), &["own"]);
    assert_eq!((&*done.out, done.code), (&["fine".to_owned()][..], 0), "{done:?}");
    assert!(!done.err.contains("the policy is off"), "{done:?}");
    let place = Place::new(&objects::window(4)).with_status();
    let done = place.finish(place.start_words(&program("shares"), &["own"]));
    assert_eq!(done.out, ["fine"], "{done:?}");
}
