//! The agent's boundary as a table: every way to do one thing with every way to do another. Each pair runs
//! without the agent and with it, under policies that defer, skip and stage, and must look the same.

use crate::common::{Place, objects, program};
use durac_abi::Object;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a program printed and left, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    out: String,
    log: String,
    code: Option<i32>,
}

fn finish(mut command: Command) -> (String, Option<i32>) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        stdout.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    });
    let end = Instant::now() + Duration::from_secs(300);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("hangs: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    (reader.join().unwrap(), status.code())
}

fn seen(command: Command, dir: &Path) -> Seen {
    let (out, code) = finish(command);
    let read = |name| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    Seen { out, log: read("x.log") + &read("y.log"), code }
}

/// One program without the agent.
fn plainly(program: &Path, arguments: [&str; 3]) -> Seen {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).current_dir(dir.path()).stdin(Stdio::null());
    seen(command, dir.path())
}

/// The same with it.
fn under(object: &Object, program: &Path, arguments: [&str; 3]) -> Seen {
    let place = Place::new(object);
    let agent = crate::common::agent();
    let mut command = place.command(program);
    command.args(arguments).env("LD_PRELOAD", agent);
    seen(command, Path::new(&place.path("")))
}

/// Runs every pair and compares. Returns how many programs were run under the agent.
pub fn compare(kind: &str, first: &[&str], second: &[&str]) -> usize {
    let program = &program("matrix");
    let deadline = Some(20_000_000);
    let policies = [objects::defer(), objects::skip(deadline), objects::stage(deadline)];
    let pairs: Vec<[&str; 3]> =
        first.iter().flat_map(|a| second.iter().map(move |b| [kind, *a, *b])).collect();
    let different: Vec<String> = std::thread::scope(|scope| {
        // Most of them sleep.
        let parts = pairs.chunks(pairs.len().div_ceil(4));
        let threads = parts.map(|part| {
            let policies = &policies;
            scope.spawn(move || {
                let mut different = Vec::new();
                for &pair in part {
                    let plain = plainly(program, pair);
                    for object in policies {
                        let hooked = under(object, program, pair);
                        if hooked != plain {
                            let policy = &object.meta.policy;
                            different.push(format!(
                                "{pair:?} under {policy}:\n plain {plain:?}\nhooked {hooked:?}"
                            ));
                        }
                    }
                }
                different
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
    pairs.len() * policies.len()
}

const CLOSERS: [&str; 7] = ["close", "fclose", "range", "syscall", "raw", "dup2", "closedir"];
const OPENERS: [&str; 16] = [
    "open",
    "creat",
    "mkstemp",
    "fopen",
    "raw",
    "syscall",
    "dup",
    "raw_dup",
    "tmpfile",
    "memfd",
    "eventfd",
    "timerfd",
    "opendir",
    "socketpair",
    "pipe",
    "recvmsg",
];

/// A number is closed in one way and comes back in another.
#[test]
fn a_number_that_comes_back_is_not_the_log() {
    assert_eq!(compare("stale", &CLOSERS, &OPENERS), 336);
}

const WRITERS: [&str; 17] = [
    "write", "writev", "dprintf", "syscall", "fopen", "fdopen", "second", "dsync", "dup", "link",
    "proc", "raw_open", "child", "spawn", "sendfile", "aio", "passed",
];
const READERS: [&str; 14] = [
    "pread", "read", "link", "raw", "syscall", "fread", "lseek", "fstat", "stat", "ioctl", "mmap",
    "copy", "sendfile", "system",
];

/// Bytes put in one way are seen in another, in order.
#[test]
fn what_is_written_is_seen_in_order() {
    assert_eq!(compare("see", &WRITERS, &READERS), 714);
}

/// Rarer ways of the same, each with a few of the others' and not with all.
#[test]
fn rare_ways_look_the_same() {
    let closers =
        ["closefrom", "raw_range", "raw_dup2", "freopen", "sharing_child", "spawned_close"];
    assert_eq!(compare("stale", &closers, &["open", "raw", "pidfd_getfd", "accept"]), 72);
    let openers = [
        "openat2", "signalfd", "inotify", "epoll", "shm_open", "popen", "openpt", "tmp_flag",
        "dupfd",
    ];
    assert_eq!(compare("stale", &["close"], &openers), 27);
    // A reader that opens the file before would end staging, and hide what overtakes.
    let writers = [
        "getfd",
        "append_flag",
        "vdprintf",
        "spliced",
        "range_copy",
        "listio",
        "posix_spawn",
        "vfork",
        "popen",
        "stdout",
        "extended",
        "mapped_write",
        "number_dup",
        "number_dupfd",
        "number_getfd",
    ];
    assert_eq!(compare("see", &writers, &["system"]), 45);
    let readers = [
        "readv",
        "preadv2",
        "getline",
        "statx",
        "fstatat",
        "hole",
        "aio_read",
        "splice",
        "private_map",
        "raw_map",
        "popen",
        "vfork",
        "spawnp",
        "getfd",
        "handle",
    ];
    assert_eq!(compare("see", &["write"], &readers), 45);
    let ends = [
        "err",
        "fexecve",
        "execveat",
        "exit_in_thread",
        "at_once_in_thread",
        "cancelled",
        "number_exit",
        "on_exit",
        "at_quick_exit",
        "daemon",
        "vforked",
        "forked_end",
        "alarm_exit",
    ];
    assert_eq!(compare("end", &ends, &["written", "thread"]), 78);
    let moments = [
        "has_child",
        "truncated",
        "locked",
        "limited",
        "no_memory",
        "no_threads",
        "no_numbers",
        "unlinked",
        "moved_root",
    ];
    assert_eq!(compare("end", &["return", "quick_exit", "exec"], &moments), 81);
}

const ENDS: [&str; 15] = [
    "return",
    "exit",
    "_exit",
    "_Exit",
    "quick_exit",
    "pthread_exit",
    "thrd_exit",
    "thread_stays",
    "exec",
    "execlp",
    "exec_fails",
    "syscall",
    "handler",
    "handler_exit",
    "at_exit",
];
const MOMENTS: [&str; 7] = ["synced", "written", "closed", "copied", "idle", "thread", "renamed"];

/// However the process ends, and whenever: what was acknowledged is in the file.
#[test]
fn every_end_leaves_the_same_file() {
    assert_eq!(compare("end", &ENDS, &MOMENTS), 315);
}

/// However the process ends: what was acknowledged is synced before, though the policy never does.
#[test]
fn every_end_syncs() {
    let program = program("matrix");
    for object in [objects::skip(None), objects::stage(None)] {
        for how in ENDS {
            let place = Place::new(&object);
            let done = place.finish(place.start_program(&program, &format!("end {how} written")));
            let synced =
                done.calls.iter().filter(|call| *call == "-fdatasync x.log main 0").count();
            assert_eq!(synced, 1, "{how} under {}: {done:?}", object.meta.policy);
        }
    }
}

const HANDLERS: [&str; 6] = ["nothing", "write", "fsync", "both", "open", "jump"];
const CALLS: [&str; 6] = ["write", "large", "sync", "datasync", "rename", "malloc"];

/// A handler arrives in a call, and does something there, or never returns.
#[test]
fn a_handler_in_a_call_works() {
    // What a handler has written is at other places in each run: only the sizes are compared.
    let program = &program("matrix");
    for object in
        [objects::defer(), objects::skip(Some(20_000_000)), objects::stage(Some(20_000_000))]
    {
        for handler in HANDLERS {
            for call in CALLS {
                if (handler, call) == ("jump", "malloc") {
                    // It leaves the allocator in pieces without the agent, too.
                    continue;
                }
                let hooked = under(&object, program, ["signal", handler, call]);
                let jumped = u8::from(handler == "jump");
                let expected = format!(
                    "handler 1 flags 14000000\nblocked 0 jumped {jumped}\nsync 0\nclose 0\nsize right\n"
                );
                let policy = &object.meta.policy;
                assert_eq!(hooked.out, expected, "{handler} in {call} under {policy}");
                assert_eq!(hooked.code, Some(0), "{handler} in {call} under {policy}");
            }
        }
    }
}
