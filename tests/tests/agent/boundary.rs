//! What the agent must not get wrong at its edges: errors that are none, other files' order, ends of
//! limits, and deadlines that were missed.

use crate::common::{Place, Running, app, count, log_where, objects, poll, program};
use crate::matrix::compare;
use durac_abi::Object;
use durac_shm::status::StageOff;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Errors that say nothing of the data are never returned, and stop nothing.
#[test]
fn transient_errors_are_tried_again() {
    for errno in [libc::EINTR, libc::EAGAIN, libc::EBUSY] {
        for count in [1, 3, 200] {
            for object in
                [objects::pass(), objects::defer(), objects::window(1), objects::stage(None)]
            {
                let place =
                    Place::new(&object).env("SHIM_FAIL_SPAN", &format!("1:{count}:{errno}"));
                let done = place.run(
                    "open a wct x.log write a 1 sync a write a 1 sync a write a 1 fsync a \
                     write a 1 sync a close a",
                );
                let failed: Vec<_> = done.out.iter().filter(|line| line.contains("= -1")).collect();
                let policy = &object.meta.policy;
                assert!(failed.is_empty() && done.code == 0, "{policy} {errno} {count}: {done:?}");
            }
        }
    }
}

/// An error of any other kind stops the log, however it is deferred.
#[test]
fn other_errors_stop_the_log() {
    for errno in [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EROFS, libc::ENOMEM, 4000] {
        for object in [objects::pass(), objects::defer(), objects::window(1)] {
            let place = Place::new(&object).env("SHIM_FAIL_SPAN", &format!("0:1:{errno}"));
            let done = place.run("open a wct x.log write a 1 sync a syncs 1 sync a sync a");
            let last = done.out.last().unwrap();
            assert!(last.starts_with("sync a = -1"), "{} {errno}: {done:?}", object.meta.policy);
        }
    }
}

/// Over a log that could not be synced nothing is copied: it keeps its file and its error.
#[test]
fn a_failed_log_is_not_copied_over() {
    let place = Place::new(&objects::defer()).env("SHIM_FAIL_SPAN", "0:1:5");
    let done = place.run(
        "open a wct x.log open b wct other.out write a 1 sync a syncs 1 dup2 b a write a 1 sync a \
         close a dup2 b a write a 1 close a",
    );
    let said = ["dup2 b a = -1 EIO", "write a = -1 EIO", "sync a = -1 EIO", "close a = -1 EIO"];
    for line in said {
        let words: Vec<&str> = line.split(' ').collect();
        let start = format!("{} ", words[0]);
        assert!(
            done.out.iter().any(|out| out.starts_with(&start) && out.ends_with("-1 EIO")),
            "{line}: {done:?}"
        );
    }
    assert!(done.out.last().unwrap().ends_with("= 0"), "{done:?}");
}

/// What makes another file durable, or changes its name or length, comes after the log's deferred syncs.
#[test]
fn other_files_come_after_the_log() {
    let program = program("matrix");
    let needs = [
        "msync",
        "dsync",
        "dsync_writev",
        "dsync_dup",
        "rwf_dsync",
        "sync_file_range",
        "truncated_open",
        "fopen_w",
        "aio_fsync",
        "symlink",
        "rmdir",
        "link",
        "syscall_fsync",
        "new_log",
    ];
    let does_not = ["msync_async", "plain_write", "fopen_r"];
    for (kinds, first) in [(needs.as_slice(), 1), (does_not.as_slice(), 0)] {
        for kind in kinds {
            // Nothing else ever syncs the log.
            for object in [objects::skip(None), objects::stage(None)] {
                let place = Place::new(&object);
                let done = place.finish(place.start_program(&program, &format!("order {kind} -")));
                let expected = ["sync 0".to_owned(), format!("log synced first {first}")];
                assert_eq!(done.out, expected, "{kind} under {}: {done:?}", object.meta.policy);
            }
        }
    }
}

const EDGES: [&str; 12] = [
    "memory",
    "size",
    "threads",
    "descriptors",
    "filter",
    "table",
    "namespace",
    "flock",
    "ofd",
    "posix",
    "lease",
    "fork_storm",
];

/// Limits that are reached, filters, namespaces and locks: as without the agent.
#[test]
fn limits_locks_and_rights() {
    assert_eq!(compare("edge", &EDGES, &["-"]), 36);
}

/// The agent's threads end before a call that needs a process without them, by its number, too.
#[test]
fn a_namespace_by_number_is_got_as_by_name() {
    let run = |preload: Option<&str>, way: &str| {
        let place = Place::new(&objects::defer());
        let place = match preload {
            Some(preload) => place.env("LD_PRELOAD", preload),
            None => place,
        };
        place.run(&format!("open a wct x.log write a 1 sync a {way}")).out.pop().unwrap()
    };
    // A container may allow nobody one.
    assert_eq!(run(None, "numberns"), run(Some(""), "numberns"));
}

/// On a target with `callers one`, a write that a handler jumps out of leaves nothing behind that later calls
/// would overlap with.
#[test]
fn a_jump_out_of_a_write_leaves_no_write_behind() {
    let program = program("matrix");
    let mut object = objects::length();
    object.meta.callers = durac_abi::Callers::One;
    for call in ["write", "large"] {
        let place = Place::new(&object).env("DURAC_LOG", "all");
        let done = place.finish(place.start_program(&program, &format!("signal jump {call}")));
        assert!(done.out.contains(&"blocked 0 jumped 1".to_owned()), "{done:?}");
        assert!(done.err.contains("is in force") && !done.err.contains("overlap"), "{done:?}");
    }
}

/// Closing any descriptor of a file drops a process' POSIX locks on it. The agent's own outlives the
/// application's while a sync is out, and goes before a lock that comes meanwhile. (A log would be synced when it is
/// opened again; a file opened with `O_SYNC` is none.)
#[test]
fn a_late_sync_does_not_drop_a_lock() {
    let place = Place::new(&objects::pass());
    let running = place.start(
        "open a wct x.log write a 1 hold spawn sync a open z wc synced end file begun close a open b ws x.log \
         spawn file go release end open y wc opened plock b file synced plocked x.log",
    );
    poll("a sync", || (count(&place.calls(), "+fdatasync") == 1).then_some(()));
    place.touch("begun");
    poll("the log", || std::path::Path::new(&place.path("opened")).exists().then_some(()));
    place.touch("go");
    let done = place.finish(running);
    assert!(done.out.contains(&"plock b = 0".to_owned()), "{done:?}");
    assert_eq!(done.out.last().unwrap(), "plocked x.log = 1", "{done:?}");
}

/// The line about a deadline that was missed: the process is stopped, and its sync held, until the page shows a call
/// that is older than the deadline.
fn missed_deadline() -> String {
    let within = 50_000_000;
    let place = Place::new(&objects::skip(Some(within))).with_status();
    let told = place.path("told");
    let place = place.env("DURAC_LOG", &format!("all,{told}"));
    let running =
        place.start("open a wct x.log hold write a 1 sync a file go release file end close a");
    let status = place.status();
    log_where(&status, "the call", |log| log.acknowledged == 1);
    let pid = running.id() as i32;
    // SAFETY: the process is a child of this one that has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
    let log = log_where(&status, "an old call", |log| {
        log.oldest_since > 0 && clock() > log.oldest_since + within
    });
    assert_eq!((log.durable, log.late), (0, 0), "{log:?}");
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGCONT) }, 0);
    place.touch("go");
    let log = log_where(&status, "a durable call", |log| log.durable == 1);
    assert_eq!(log.late, 1, "{log:?}");
    assert!(log.oldest_ever_ns > within, "{log:?}");
    // The syncer thread counts it first, and then tells it.
    let line = poll("the line", || {
        let text = std::fs::read_to_string(&told).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(str::to_owned).find(|line| line.contains("became durable after"))
    });
    place.touch("end");
    let done = place.finish(running);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(line.contains("x.log: 1 acknowledged calls became durable after"), "{line}");
    assert!(line.contains("(deadline 50.0 ms): the sync "), "{line}");
    line
}

/// Nanoseconds of the clock in which the page gives times.
fn clock() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is what the clock is written to.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) }, 0);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A deadline that was missed is counted and told, with the cause: nobody came to sync, as the process was stopped. The
/// stop may come when the sync has begun; then the sync took too long.
#[test]
fn a_missed_deadline_is_told() {
    let began_late = (0..20).any(|_| {
        let line = missed_deadline();
        assert!(line.contains("the sync began ") != line.contains("the sync took "), "{line}");
        line.contains("the sync began ")
    });
    assert!(began_late);
}

/// The same, of a policy that assumes that a sync takes no longer than this. The first three syncs take
/// 30 ms: the page's counter, and the lines about it.
fn broken_assumptions(assume_sync: Option<u64>) -> (u64, Vec<String>) {
    let mut object = objects::skip(Some(40_000_000));
    object.meta.assume_sync = assume_sync;
    let place = Place::new(&object).with_status().env("DURAC_LOG", "all");
    let call = |n: u64| format!("hold write a 1 sync a file go-{n} release syncs {n}");
    let running = place.start(&format!(
        "open a wct x.log {} {} {} file go close a",
        call(1),
        call(2),
        call(3)
    ));
    let status = place.status();
    for n in 1..=3 {
        let begun = || (count(&place.calls(), "+fdatasync") == n).then_some(());
        poll("a sync", begun);
        std::thread::sleep(std::time::Duration::from_millis(30));
        place.touch(&format!("go-{n}"));
    }
    let log = log_where(&status, "the syncs", |log| log.syncs == 3);
    place.touch("go");
    let done = place.finish(running);
    assert_eq!(done.code, 0, "{done:?}");
    let lines = done.err.lines().filter(|line| line.contains("the policy assumes"));
    (log.broken_assumptions, lines.map(str::to_owned).collect())
}

/// Syncs that take longer than the policy assumes are counted, and one line in ten seconds tells of them.
#[test]
fn a_broken_assumption_is_counted_and_told() {
    let (broken, lines) = broken_assumptions(Some(10_000_000));
    assert_eq!((broken, lines.len()), (3, 1), "{lines:?}");
    let line = &lines[0];
    let took = line.split_once("x.log: a sync took ").and_then(|(_, rest)| rest.split_once(" ms"));
    let took: f64 = took.unwrap_or_else(|| panic!("{line}")).0.parse().unwrap();
    assert!(took >= 30.0, "{line}");
    assert!(line.ends_with("; the policy assumes at most 10ms"), "{line}");
    for kept in [None, Some(3_600_000_000_000)] {
        assert_eq!(broken_assumptions(kept), (0, Vec::new()), "{kept:?}");
    }
}

fn off(object: &Object, operations: &str) -> (u64, String) {
    let place = Place::new(object).with_status().env("DURAC_LOG", "all");
    let running = place.start(&format!("{operations} file go"));
    let status = place.status();
    let log = log_where(&status, "the call", |log| log.calls == 1);
    place.touch("go");
    (log.stage_off, place.finish(running).err)
}

/// When staging ends, the page and one line say why.
#[test]
fn staging_that_ends_is_told() {
    let stage = objects::stage(None);
    let plain = "open a wct x.log write a 1";
    let (code, said) = off(&stage, &format!("{plain} sync a"));
    assert!(code == 0 && !said.contains("staged:"), "{said}");
    for (how, why) in [
        ("open b r x.log", StageOff::OtherOpen),
        ("mmap a", StageOff::Mapped),
        ("lock a", StageOff::Lock),
    ] {
        let (code, said) = off(&stage, &format!("{plain} {how} sync a"));
        assert_eq!(StageOff::of_code(code), Some(why), "{how}: {said}");
        let line = format!("x.log: writes are no longer staged: {why}");
        assert_eq!(said.matches(&line).count(), 1, "{how}: {said}");
    }
    // A policy that does not stage has nothing to tell.
    let (code, said) = off(&objects::defer(), &format!("{plain} open b r x.log sync a"));
    assert!(code == 0 && !said.contains("staged"), "{said}");
}

/// While a second process has the log open, nothing is deferred in either, and both say so.
#[test]
fn a_log_of_two_processes_passes() {
    let place = Place::new(&objects::skip(None)).env("DURAC_LOG", "all");
    let wait = |name: &str| {
        while !std::path::Path::new(&place.path(name)).exists() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    };
    let operations = |ready: &str, go: &str| {
        format!(
            "open a wca x.log write a 1 sync a open r wc {ready} file {go} write a 1 sync a kill 9"
        )
    };
    let first = place.start(&operations("ready-1", "go-1"));
    wait("ready-1");
    // Alone, it has deferred.
    assert!(!place.calls().iter().any(|call| call.contains("fdatasync")), "{:?}", place.calls());
    let second = place.start(&operations("ready-2", "go-2"));
    wait("ready-2");
    place.touch("go-1");
    let first = place.finish(first);
    place.touch("go-2");
    let second = place.finish(second);
    for done in [first, second] {
        let line =
            "x.log: another process has the log open; its syncs run as the application calls them";
        assert_eq!(done.err.matches(line).count(), 1, "{done:?}");
    }
    let calls = place.calls();
    let synced = calls.iter().filter(|call| *call == "-fdatasync x.log main 0").count();
    // One of the first; of the second, two calls, and what was there when it opened the log.
    assert_eq!(synced, 4, "{calls:?}");
}

/// When the first process is gone, the next one has the log alone.
#[test]
fn a_log_of_a_dead_process_is_free() {
    let place = Place::new(&objects::skip(None));
    place.run("open a wca x.log write a 1 sync a kill 9");
    let done = place.run("open a wca x.log write a 1 sync a kill 9");
    // What was there when it opened the log, and no call.
    assert_eq!(count(&done.calls, "-fdatasync"), 1, "{done:?}");
}

/// A process that was killed leaves its entry in the table of logs, and its number is another process's by now.
#[test]
fn a_log_of_a_dead_process_is_free_though_its_number_is_used_again() {
    let place = Place::new(&objects::skip(None));
    let program = "open a wca x.log write a 1 sync a kill 9";
    place.run(program);
    let file = std::fs::metadata(place.path("x.log")).unwrap();
    // SAFETY: no preconditions.
    let table = format!("/dev/shm/durac-logs-{}", unsafe { libc::geteuid() });
    let table = std::fs::File::options().read(true).write(true).open(table).unwrap();
    let mut bytes = vec![0; 512 << 10];
    table.read_exact_at(&mut bytes, 0).unwrap();
    let mut found = 0;
    for at in (0..bytes.len()).step_by(32) {
        let number = |place: usize| {
            u64::from_ne_bytes(bytes[at + 8 * place..at + 8 * place + 8].try_into().unwrap())
        };
        if number(0) != 0 && (number(1), number(2)) == (file.dev(), file.ino()) {
            let used_again = number(0) >> 32 << 32 | u64::from(std::process::id());
            table.write_all_at(&used_again.to_ne_bytes(), at as u64).unwrap();
            found += 1;
        }
    }
    // An earlier test may have left more of a file with this inode.
    assert!(found > 0);
    let done = place.run(program);
    // What was there when it opened the log, and no call.
    assert_eq!(count(&done.calls, "-fdatasync"), 1, "{done:?}");
}

/// Two processes that cannot see each other, of which each is number 1, know of each other.
#[test]
fn a_log_of_two_pid_namespaces_passes() {
    let place = Place::new(&objects::skip(None)).env("DURAC_LOG", "all");
    let start = |ready: &str, go: &str| {
        let operations = format!(
            "open a wca x.log write a 1 sync a open r wc {ready} file {go} write a 1 sync a"
        );
        let words: Vec<_> =
            ["--pid", "--fork", "--kill-child", "--mount-proc", app().to_str().unwrap()]
                .into_iter()
                .chain(operations.split_whitespace())
                .map(String::from)
                .collect();
        place.start_words("unshare".as_ref(), &words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let wait = |name: &str| poll(name, || Path::new(&place.path(name)).exists().then_some(()));
    let first = start("ready-1", "go-1");
    wait("ready-1");
    let second = start("ready-2", "go-2");
    wait("ready-2");
    place.touch("go-1");
    let first = place.finish(first);
    place.touch("go-2");
    let second = place.finish(second);
    for done in [&first, &second] {
        let line =
            "x.log: another process has the log open; its syncs run as the application calls them";
        assert_eq!(done.err.matches(line).count(), 1, "{done:?}");
    }
    // When they have been killed, the next one has the log alone.
    let third = start("ready-3", "go-3");
    wait("ready-3");
    place.kill(third);
    place.touch("go-4");
    let fourth = place.finish(start("ready-4", "go-4"));
    assert!(!fourth.err.contains("another process"), "{fourth:?}");
}

const CROWDED: &str =
    "x.log: another process has the log open; its syncs run as the application calls them";

/// Two programs have a log open, of which one has become another so many times, or is run by a command.
fn both_know(first: impl FnOnce(&Place) -> Running) {
    let place = Place::new(&objects::skip(None)).env("DURAC_LOG", "all");
    let first = first(&place);
    poll("the first", || Path::new(&place.path("ready")).exists().then_some(()));
    let second = place.run("open a wca x.log write a 1 sync a");
    place.touch("go");
    for done in [place.finish(first), second] {
        assert!(done.code == 0 && done.err.contains(CROWDED), "{done:?}");
    }
}

#[test]
fn a_process_that_becomes_other_programs_is_seen() {
    // There are 64 entries for a file.
    both_know(|place| place.start_program(&program("reexec"), "x.log 70 ready go"));
}

#[test]
fn a_process_with_a_limit_of_sizes_is_seen() {
    both_know(|place| {
        let program = program("reexec");
        let program = program.to_str().unwrap();
        place.start_words(
            "prlimit".as_ref(),
            &["--fsize=10000000", program, "x.log", "0", "ready", "go"],
        )
    });
}

/// When the others have gone, the policy is in force again.
#[test]
fn who_is_alone_again_defers_again() {
    let place = Place::new(&objects::skip(None)).env("DURAC_LOG", "all");
    let first = place.start("open a wca x.log open r wc ready file go loop a 300");
    poll("the first", || Path::new(&place.path("ready")).exists().then_some(()));
    let second = place.start("open a wca x.log open r wc second file never");
    poll("the second", || Path::new(&place.path("second")).exists().then_some(()));
    place.kill(second);
    let before = count(&place.calls(), "-fdatasync x.log main");
    place.touch("go");
    let done = place.finish(first);
    let synced = count(&done.calls, "-fdatasync x.log main") - before;
    assert!((1..150).contains(&synced), "{synced}: {done:?}");
    let lines = [CROWDED, "x.log: no other process has the log open any more"];
    assert!(lines.iter().all(|line| done.err.contains(line)), "{done:?}");
}

/// A process that has ended counts as gone, also before its parent has asked for that.
#[test]
fn an_ended_process_is_gone() {
    let place = Place::new(&objects::skip(None)).env("DURAC_LOG", "all");
    let first = place.start(
        "keepfork open a wct x.log write a 1 sync a kill 9 end \
         open r wc ready file go open b wca x.log write b 1 sync b",
    );
    poll("the child", || {
        let children = format!("/proc/{0}/task/{0}/children", first.id());
        let child = std::fs::read_to_string(children).ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).ok()?;
        stat.contains(") Z ").then_some(())
    });
    place.touch("go");
    let done = place.finish(first);
    assert!(done.code == 0 && !done.err.contains(CROWDED), "{done:?}");
}

/// Without memory to share the log is opened all the same.
#[test]
fn shared_memory_that_is_full_is_told() {
    let place = Place::new(&objects::skip(None)).env("DURAC_LOG", "all");
    let script = "mount -t tmpfs -o size=64k tmpfs /dev/shm
        head -c 64K /dev/zero > /dev/shm/full 2>/dev/null
        exec \"$@\"";
    let app = app();
    let mut words = vec!["-m", "sh", "-c", script, "sh", app.to_str().unwrap()];
    words.extend("open a wca x.log write a 1 sync a".split_whitespace());
    let done = place.finish(place.start_words("unshare".as_ref(), &words));
    let line =
        "No space left on device (os error 28); another process that opens a log is not noticed";
    assert!(done.code == 0 && done.err.contains(line), "{done:?}");
    assert_eq!(count(&done.out, "sync a = 0"), 1, "{done:?}");
}

/// What a power loss takes of a program that never syncs is not known while its policy is off.
#[test]
fn writes_without_a_deadline_have_no_bound() {
    let place = Place::new(&objects::at_least(100_000_000));
    let running = place.start("open a wca x.log open r wc ready loopfor a go");
    poll("the log", || Path::new(&place.path("ready")).exists().then_some(()));
    let off = durac_tests::durac(["off", &running.id().to_string()]).unwrap();
    let off = durac_tests::run(off).unwrap();
    assert!(off.status.success() && off.stdout.contains("now: not known"), "{off:?}");
    place.touch("go");
    assert_eq!(place.finish(running).code, 0);
}
