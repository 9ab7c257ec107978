//! What calls on a log return, and which descriptors are logs.

use crate::common::{self, Place, count, log_where, objects};
use durac_abi::Verdict;
use durac_abi::insn::{Insn, Reg};

const OPEN: &str = "open a wct x.log";

#[test]
fn a_deferred_sync_returns_before_the_real_one_ends() {
    let done = Place::new(&objects::window(4))
        .run(&format!("{OPEN} hold write a 10 sync a write a 10 sync a release close a"));
    assert_eq!(
        done.out,
        [
            "open x.log = 0",
            "write a = 10",
            "sync a = 0",
            "write a = 10",
            "sync a = 0",
            "close a = 0"
        ],
        "{done:?}"
    );
    // The last close drains before it closes.
    let close = common::place(&done.calls, "close x.log");
    let synced = done.calls.iter().rposition(|l| l.starts_with("-fdatasync")).unwrap();
    assert!(synced < close, "{done:?}");
}

#[test]
fn errno_stays_when_a_call_succeeds() {
    for object in [objects::window(1), objects::pass(), objects::defer(), objects::skip(Some(1000))]
    {
        let done = Place::new(&object).run(&format!(
            "{OPEN} write a 1 sync a write a 1 sync a sync a writev a 9 fsync a ftruncate a 3 \
             dup2 a b close b sync a close a"
        ));
        assert!(done.out.iter().all(|l| !l.ends_with('!')), "{done:?}");
        assert_eq!(count(&done.out, "fsync a = 0"), 1);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
    }
}

#[test]
fn a_barrier_is_a_real_sync() {
    // Killed, so that nothing is drained at the end.
    let done =
        Place::new(&objects::skip(None)).run(&format!("{OPEN} write a 1 sync a sync a kill 9"));
    assert_eq!(done.calls, ["+fdatasync x.log", "-fdatasync x.log main 0"], "{done:?}");
}

#[test]
fn the_syncer_takes_no_signals() {
    let place = Place::new(&objects::window(4)).with_status();
    let child = place.start(&format!("{OPEN} loop a 10 file go"));
    log_where(&place.status(), "ten calls", |n| n.acknowledged == 10);
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let statuses =
        tasks.map(|t| std::fs::read_to_string(t.unwrap().path().join("status")).unwrap());
    let syncer = statuses.into_iter().find(|s| s.starts_with("Name:\tdurac-sync\n")).unwrap();
    let blocked = syncer.lines().find_map(|l| l.strip_prefix("SigBlk:\t")).unwrap();
    let blocked = u64::from_str_radix(blocked, 16).unwrap();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD, libc::SIGUSR1, libc::SIGALRM] {
        assert!(blocked & 1 << (signal - 1) != 0, "signal {signal} is not blocked: {blocked:x}");
    }
    place.touch("go");
    assert_eq!(place.finish(child).code, 0);
}

#[test]
fn without_a_program_a_sync_is_direct() {
    let done =
        Place::new(&objects::defer()).run(&format!("{OPEN} write a 1 fsync a write a 1 fsync a"));
    assert_eq!(count(&done.calls, "-fsync x.log main"), 2, "{done:?}");
    assert_eq!(done.calls.len(), 4, "nothing is left to drain: {done:?}");
}

#[test]
fn a_deferred_fsync_is_an_fsync() {
    let mut object = objects::defer();
    object.programs.insert(
        0,
        objects::assemble(durac_abi::Hook::Fsync, |asm| {
            objects::verdict(asm, Verdict::Defer);
        }),
    );
    let done = Place::new(&object).run(&format!("{OPEN} write a 1 fsync a syncs 1 close a"));
    assert_eq!(count(&done.calls, "-fsync x.log thread"), 1, "{done:?}");
    assert_eq!(count(&done.calls, "+fdatasync"), 0, "{done:?}");
}

#[test]
fn only_files_of_the_target_that_are_opened_for_writing_are_logs() {
    let object = objects::skip(None);
    for (flags, path) in
        [("wct", "x.txt"), ("wct", "x.base.aof"), ("wcts", "y.log"), ("r", "policy.o"), ("r", ".")]
    {
        let open = if flags.contains('c') { "write a 1" } else { "echo no" };
        let done = Place::new(&object).run(&format!("open a {flags} {path} {open} sync a close a"));
        assert_eq!(count(&done.calls, "-fdatasync"), 1, "{path}: {done:?}");
    }
    // The second name of a log's file is that log.
    let done =
        Place::new(&object).run(&format!("{OPEN} rename x.log z open b w z write b 1 sync b"));
    assert_eq!(done.calls[0], "rename x.log z");
    assert_eq!(count(&done.calls, "+fdatasync"), 1, "at exit: {done:?}");
    assert_eq!(done.out.last().unwrap(), "sync b = 0");
}

#[test]
fn every_write_call_counts() {
    for call in ["write a 5", "writev a 5", "pwrite a 5", "ftruncate a 5", "truncate x.log 5"] {
        let done = Place::new(&objects::skip(None)).run(&format!("{OPEN} {call} sync a kill 9"));
        assert_eq!(count(&done.calls, "+"), 0, "{call}: {done:?}");
        assert_eq!(done.code, 1009);
    }
}

#[test]
fn copies_of_a_descriptor_are_the_log() {
    for copy in ["dup a b", "dup2 a b", "fcntl a b"] {
        let copy = if copy.starts_with("dup2") { "open b w /dev/null dup2 a b" } else { copy };
        let done = Place::new(&objects::skip(None)).run(&format!(
            "{OPEN} {copy} write a 1 sync a close a write b 1 sync b echo mark close b"
        ));
        // The first close is not the last, and drains nothing.
        assert_eq!(done.calls[0], "close x.log", "{done:?}");
        assert_eq!(
            &done.calls[1..],
            ["+fdatasync x.log", "-fdatasync x.log main 0", "close x.log", "close x.log"],
            "{done:?}"
        );
    }
}

#[test]
fn copying_over_the_last_descriptor_drains() {
    let done = Place::new(&objects::skip(None))
        .run(&format!("{OPEN} open b w /dev/null write a 1 sync a dup2 b a echo over sync b"));
    assert_eq!(done.calls[..2], ["+fdatasync x.log", "-fdatasync x.log main 0"], "{done:?}");
    assert_eq!(done.out[4], "dup2 b = 0");
}

#[test]
fn a_number_used_again_is_not_the_log() {
    for close in ["fclose a", "rawclose a"] {
        let done = Place::new(&objects::skip(None)).run(&format!(
            "{OPEN} write a 1 sync a {close} open b wct y.txt write b 1 sync b kill 9"
        ));
        assert_eq!(count(&done.calls, "-fdatasync y.txt main 0"), 1, "{close}: {done:?}");
        // Finding the log closed drains it.
        assert_eq!(count(&done.calls, "-fdatasync x.log main 0"), 1, "{close}: {done:?}");
    }
}

#[test]
fn a_closed_range_keeps_the_agents_descriptors() {
    let done = Place::new(&objects::skip(None)).run(&format!(
        "nofile 200 {OPEN} dup a b write b 1 sync b closerange b write a 1 sync a close a"
    ));
    assert_eq!(done.out.last().unwrap(), "close a = 0");
    assert_eq!(count(&done.calls, "-fdatasync x.log main 0"), 1, "{done:?}");
}

#[test]
fn a_log_closed_by_another_thread_is_drained_there() {
    let done = Place::new(&objects::skip(None)).run(&format!(
        "{OPEN} write a 1 sync a spawn close a end join open a w x.log write a 1 close a"
    ));
    assert_eq!(done.calls[1], "-fdatasync x.log thread 0", "{done:?}");
}

#[test]
fn several_logs_live_side_by_side_and_places_are_used_again() {
    let mut operations = String::new();
    for i in 0..40 {
        operations += &format!(
            "open a wct {i}.log open b wct {i}.aof write a 1 write b 1 sync a sync b close b close a "
        );
    }
    let done = Place::new(&objects::window(8)).with_status().run(&operations);
    assert_eq!(done.code, 0);
    assert_eq!(count(&done.out, "sync"), 80);
    assert!(done.out.iter().all(|l| !l.contains("-1")), "{done:?}");
}

#[test]
fn a_policy_can_fail_a_call() {
    let object = objects::object("fails", |asm| objects::verdict(asm, Verdict::Fail(libc::EDQUOT)));
    let done = Place::new(&object).run(&format!("{OPEN} write a 1 sync a sync a"));
    assert_eq!(done.out[2], "sync a = -1 EDQUOT");
    assert_eq!(done.out[3], "sync a = 0", "a barrier is not the policy's business");
}

#[test]
fn a_write_hook_sees_the_length() {
    let mut object = objects::skip(None);
    object.meta.reads = vec![durac_abi::Reading::CallLen];
    object.programs.insert(
        0,
        objects::assemble(durac_abi::Hook::Write, |asm| {
            let long = asm.label();
            let offset = durac_abi::Reading::CallLen.offset();
            asm.push(Insn::ldx(durac_abi::insn::Size::Dw, Reg::R2, Reg::R1, offset));
            asm.jump_if_imm(durac_abi::insn::Cond::Gt, Reg::R2, 100, long);
            objects::verdict(asm, Verdict::Pass);
            asm.bind(long);
            objects::verdict(asm, Verdict::Fail(libc::EFBIG));
        }),
    );
    let done =
        Place::new(&object).run(&format!("{OPEN} write a 100 write a 101 writev a 101 writev a 7"));
    assert_eq!(
        done.out[1..],
        ["write a = 100", "write a = -1 EFBIG", "writev a = -1 EFBIG", "writev a = 7"]
    );
}

#[test]
fn the_tail_before_idle_is_synced() {
    for object in [objects::skip(Some(30_000_000)), objects::window(64), objects::window(1)] {
        let done = Place::new(&object).run(&format!("{OPEN} write a 1 sync a syncs 1 kill 9"));
        assert_eq!(done.calls, ["+fdatasync x.log", "-fdatasync x.log thread 0"], "{done:?}");
    }
}

#[test]
fn without_threads_every_sync_is_direct() {
    let done = Place::new(&objects::window(16))
        .env("SHIM_NO_THREADS", "1")
        .run(&format!("{OPEN} write a 1 sync a write a 1 sync a close a"));
    assert_eq!(count(&done.calls, "-fdatasync x.log main 0"), 2, "{done:?}");
    assert!(done.err.contains("no background syncs"), "{done:?}");
}

#[test]
fn without_threads_a_policy_is_not_said_to_be_in_force() {
    let run = |object: &durac_abi::Object| {
        let place = Place::new(object).env("SHIM_NO_THREADS", "1").env("DURAC_LOG", "all");
        // Now and then a call tries it again.
        place.run(&format!("{OPEN} write a 1 sync a threads loop a 100"))
    };
    for object in [objects::window(16), objects::skip(Some(1_000_000_000))] {
        let done = run(&object);
        let line = |text: &str| done.err.find(text).unwrap_or_else(|| panic!("{text}: {done:?}"));
        assert!(line("is not in force on it: no thread can be started") < line("is in force on"));
        // From then on it is.
        assert!(count(&done.calls, "-fdatasync x.log main 0") < 90, "{done:?}");
    }
    // It needs none.
    let mut object = objects::skip(None);
    object.meta.capabilities = vec![durac_abi::object::Action::Skip];
    let done = run(&object);
    assert!(done.err.contains("is in force on"), "{done:?}");
    assert!(!done.err.contains("not in force"), "{done:?}");
}

#[test]
fn without_descriptors_every_sync_is_direct() {
    // A thread of the agent may have something open when the application opens its log.
    let tries = std::iter::repeat_with(|| {
        Place::new(&objects::window(16))
            .run(&format!("nofile 4 {OPEN} write a 1 sync a write a 1 sync a close a"))
    });
    let done =
        tries.take(20).find(|done| !done.out.iter().any(|line| line.ends_with("EMFILE"))).unwrap();
    assert_eq!(count(&done.out, "sync a = 0"), 2, "{done:?}");
    assert_eq!(count(&done.calls, "+fdatasync"), 2, "{done:?}");
    assert!(done.err.contains("no descriptor for background syncs"), "{done:?}");
}

#[test]
fn without_descriptors_a_deadline_is_not_said_to_hold() {
    let tries = std::iter::repeat_with(|| {
        Place::new(&objects::at_least(100_000_000))
            .env("DURAC_LOG", "all")
            .run(&format!("nofile 4 {OPEN} write a 1 close a"))
    });
    let done =
        tries.take(20).find(|done| !done.out.iter().any(|line| line.ends_with("EMFILE"))).unwrap();
    assert!(done.err.contains("/x.log: policy `pass` is not in force on it"), "{done:?}");
    assert!(!done.err.contains("is in force"), "{done:?}");
}

#[test]
fn a_parameter_changes_while_the_policy_runs() {
    let place = Place::new(&objects::window_param(64)).with_status();
    let child = place.start(&format!(
        "{OPEN} loop a 100 sync a hold file go write a 1 sync a write a 1 sync a release close a"
    ));
    let status = place.status();
    assert_eq!(status.snapshot().params[0].value, 64);
    // Clamped on both sides.
    assert_eq!(status.set_param("n", 0).unwrap(), 1);
    place.touch("go");
    let numbers = log_where(&status, "a call that waits", |n| n.window == 1 && n.calls == 103);
    assert_eq!(numbers.pending(), 1, "{numbers:?}");
    drop(status);
    // It waits for the first of the two until the syncs go on; the program cannot do that itself.
    let done = place.kill(child);
    assert_eq!(done.out.last().unwrap(), "write a = 1");
}

#[test]
fn stdout_is_the_applications() {
    let place = Place::new(&objects::window(4)).env("DURAC_LOG", "");
    // A program without a log, such as a wrapper, has nothing to say.
    let done = place.run("echo x");
    assert_eq!((done.out, done.err.as_str()), (vec!["echo x = 0".to_owned()], ""));
    // The line comes with the first log, and once.
    let done = place.run(&format!("{OPEN} open b wac y.log"));
    // It says on which file, and what a power loss can take.
    let begin = "durac: policy `window4` for target `test.log` is in force on ";
    let loss = "/x.log (fdatasync): how much a power loss can take was not proved";
    assert!(done.err.starts_with(begin) && done.err.contains(loss), "{}", done.err);
    assert_eq!(done.err.lines().count(), 1, "{done:?}");
    // A shell without a standard error opens the log under its number first: no line goes into it.
    let mut command = place.command("/bin/sh");
    let output = command.args(["-c", "exec 2>&-; exec 3>>z.log; echo y >&3"]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(std::fs::read_to_string(place.path("z.log")).unwrap(), "y\n");
}

/// Opens its log, and prints which signals are blocked for its thread and which wait for it.
const SIGNALS: &str = "import os, signal, sys, threading
if 'blocked' in sys.argv:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    if 'waiting' in sys.argv: signal.pthread_kill(threading.get_ident(), signal.SIGPIPE)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.close(os.open('x.log', os.O_CREAT | os.O_WRONLY | os.O_APPEND))
names = lambda signals: [signal.Signals(each).name for each in signals]
print(names(signal.pthread_sigmask(signal.SIG_BLOCK, [])), names(signal.sigpending()))
";

/// Where the agent's lines cannot be written, the program that never writes there goes on, and sees no signal.
#[test]
fn a_line_of_the_agent_raises_no_signal() {
    use std::os::unix::process::CommandExt;
    let full = |place: &Place| {
        let file = std::fs::File::create(place.path("full")).unwrap();
        file.set_len(1 << 20).unwrap();
        std::fs::OpenOptions::new().append(true).open(place.path("full")).unwrap()
    };
    for (words, printed) in [
        (&[][..], "[] []\n"),
        (&["blocked"], "['SIGPIPE'] []\n"),
        (&["blocked", "waiting"], "['SIGPIPE'] ['SIGPIPE']\n"),
    ] {
        for to in ["nobody", "a full file", "a full log"] {
            let place = Place::new(&objects::window(4)).env("DURAC_LOG", "");
            let full = full(&place);
            let place = match to {
                "a full log" => {
                    let path = place.path("full");
                    place.env("DURAC_LOG", &path)
                }
                _ => place,
            };
            let mut command = place.command("python3");
            command.args(["-c", SIGNALS]).args(words);
            match to {
                "nobody" => {
                    let (_, writer) = std::io::pipe().unwrap();
                    command.stderr(writer);
                }
                _ => drop(command.stderr(full)),
            }
            // SAFETY: one system call.
            unsafe {
                command.pre_exec(|| {
                    let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
                    libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit);
                    Ok(())
                });
            }
            let output = command.output().unwrap();
            let out = String::from_utf8_lossy(&output.stdout);
            assert_eq!((output.status.code(), &*out), (Some(0), printed), "{to} {words:?}");
        }
    }
}

#[test]
fn the_status_file_shows_the_log_and_goes_at_exit() {
    let place = Place::new(&objects::window(4)).with_status();
    let child = place.start(&format!("{OPEN} loop a 10 file go"));
    let status = place.status();
    log_where(&status, "ten calls", |n| n.acknowledged == 10);
    let seen = status.snapshot();
    assert_eq!((seen.policy.as_str(), seen.target.as_str()), ("window4", "test.log"));
    assert!(seen.logs[0].path.ends_with("/x.log"));
    assert_eq!(seen.pid, child.id());
    place.touch("go");
    let done = place.finish(child);
    assert_eq!(done.code, 0);
    assert!(!std::path::Path::new(&place.path("status")).exists());
}

#[test]
fn a_status_file_of_a_killed_process_is_replaced() {
    let place = Place::new(&objects::window(4)).with_status();
    assert_eq!(place.run(&format!("{OPEN} kill 9")).code, 1009);
    let done = place.run(&format!("{OPEN} write a 1 sync a"));
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    assert!(!std::path::Path::new(&place.path("status")).exists());
}
