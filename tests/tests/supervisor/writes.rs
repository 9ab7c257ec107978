//! Writes: those of programs that never sync, and those that a policy decides about or counts.

use crate::common::{LATENCY, Supervised, pending, poll, unsynced};
use crate::upgrade::{copy, upgrade};
use anyhow::{Context, Result, ensure};
use durac_tests::{heavy, show};

/// A line is durable some time after it was written, though nobody asks for it.
const AT_LEAST: &str = "policy at_least\ntarget posix.log\non write: defer\nflush within 1s\n";
/// One that looks for no writes.
const PASSES: &str = "policy passes\ntarget posix.log\non fdatasync: pass\n";

/// Acknowledged lines that a cut takes once `lines` were acknowledged and, with `looks`, somebody else has synced them.
fn lost_after(policy: &str, words: &[&str], lines: usize, looks: bool) -> Result<Vec<String>> {
    let mut run = Supervised::start(policy, LATENCY, words)?;
    run.until(lines)?;
    ensure!(run.acknowledged.len() == lines, "{words:?}: {}", run.stderr());
    if looks {
        run.until_durable();
    }
    run.lose_power("a.log")
}

/// The programs write their lines, and wait.
pub fn is_synced(words: &[&str], lines: usize) -> Result<()> {
    let _turn = heavy()?;
    let lost = lost_after(AT_LEAST, words, lines, true)?;
    ensure!(lost.is_empty(), "{words:?}: {lost:?}");
    Ok(())
}

/// A program that opens the log to be written, while its child, which can only read it, calls a sync.
const MEET: &str = "import os, sys, time
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDONLY)
if os.fork() == 0: time.sleep(0.6), os.fdatasync(fd), os._exit(0)
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
os.wait(), os.write(fd, b'1\\n'), os.write(1, b'1\\n')
time.sleep(3600)
";

/// Both calls look for the log's place at once. Its writes are looked for whichever finds it first.
pub fn two_calls_meet_a_log() -> Result<()> {
    is_synced(&["python3", "-c", MEET, "@a.log"], 1)
}

/// A program that writes a line, and syncs the log, which it opens again, when it is told to.
const LATE: &str = "import os, sys, time
flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
def until(path):
    while not os.path.exists(path): time.sleep(0.01)
os.write(1, b'begun\\n')
until(sys.argv[2])
fd = os.open(sys.argv[1], flags)
os.write(fd, b'x\\n'), os.close(fd)
if sys.argv[4]: os.spawnlp(os.P_WAIT, 'python3', 'python3', '-c', sys.argv[4], sys.argv[1])
os.write(1, b'written\\n')
until(sys.argv[3])
try:
    os.fdatasync(os.open(sys.argv[1], flags)), os.write(1, b'fine\\n')
except OSError: os.write(1, b'told\\n')
";

/// The program has never synced the log before, so it is not known to use it; another that begins later is not told. Until
/// then no other supervisor takes over, which would not know of the error.
fn is_told_at_last(policy: &str, other: &str) -> Result<()> {
    let _turn = heavy()?;
    let folder = tempfile::TempDir::new()?;
    let durac = copy(folder.path(), "durac")?;
    let both = "python3 -c \"$0\" $1 $2 $3 \"$5\"; python3 -c \"$4\" $1";
    let later = "import os, sys
os.fdatasync(os.open(sys.argv[1], os.O_WRONLY)), os.write(1, b'later\\n')";
    let words = ["sh", "-c", both, LATE, "@a.log", "@go", "@on", later, other];
    let mut run = Supervised::start(policy, LATENCY, &words)?;
    run.until(1)?;
    let (pid, _) = run.supervisor()?;
    run.fail_sync_of("a.log");
    std::fs::write(run.disk.join("go"), "")?;
    run.until(2)?;
    poll("the error", || run.stderr().contains("a sync failed").then_some(()))?;
    let ended = upgrade(&durac, pid)?;
    ensure!(ended.stderr.contains("a log has failed (Input/output error"), "{}", show(&ended));
    std::fs::write(run.disk.join("on"), "")?;
    run.end()?;
    let said = run.acknowledged.concat();
    ensure!(said == "begun\nwritten\ntold\nlater\n", "{said}{}", run.stderr());
    Ok(())
}

#[test]
fn a_failed_sync_is_returned_by_the_first_sync_call_of_who_has_written() -> Result<()> {
    // One in the background, and one that a process has called which has ended since.
    is_told_at_last(AT_LEAST, "")?;
    let sync = "import os, sys; os.fdatasync(os.open(sys.argv[1], os.O_WRONLY))";
    is_told_at_last(&AT_LEAST.replace("1s", "1000s"), sync)
}

/// A program that syncs the log, and again after 1,100 of its children have synced it and one more has met an error.
const MANY: &str = "import os, sys, time
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
def child():
    if pid := os.fork(): os.waitpid(pid, 0)
    else:
        try: os.fdatasync(fd)
        finally: os._exit(0)
os.write(fd, b'x\\n'), os.fdatasync(fd)
for _ in range(1100): child()
os.write(1, b'begun\\n')
while not os.path.exists(sys.argv[2]): time.sleep(0.01)
os.write(fd, b'y\\n'), child()
try: os.fdatasync(fd), os.write(1, b'fine\\n')
except OSError: os.write(1, b'told\\n')
";

#[test]
fn a_failed_sync_is_returned_to_a_process_that_synced_long_ago() -> Result<()> {
    let _turn = heavy()?;
    let policy = "policy d\ntarget posix.log\non fdatasync: defer\nflush within 1000s\n";
    let mut run = Supervised::start(policy, LATENCY, &["python3", "-c", MANY, "@a.log", "@go"])?;
    run.until(1)?;
    run.fail_sync_of("a.log");
    std::fs::write(run.disk.join("go"), "")?;
    run.end()?;
    let said = run.acknowledged.concat();
    ensure!(said == "begun\ntold\n", "{said}{}", run.stderr());
    Ok(())
}

#[test]
fn a_static_program_that_never_syncs() -> Result<()> {
    let program = unsynced(&["-static"])?;
    let program = program.to_str().context("a path")?;
    for way in ["make", "synced", "each", "compat"] {
        is_synced(&[program, "lines", way, "@a.log", "1", "20"], 20)?;
    }
    is_synced(&[program, "lines", "make", "@a.log", "4", "20"], 80)?;
    // Nobody else syncs them.
    let words = [program, "lines", "make", "@a.log", "1", "20"];
    ensure!(lost_after(PASSES, &words, 20, false)?.len() == 20);
    Ok(())
}

/// What a shell does to the log before it is opened, and what it becomes.
fn in_a_shell(before: &str, rest: &str) -> String {
    format!("{before}\nexec {rest}")
}

#[test]
fn a_log_that_is_there_already() -> Result<()> {
    let program = unsynced(&["-static"])?;
    let program = program.to_str().context("a path")?;
    let have = in_a_shell("echo here >\"$1\"", "\"$0\" lines have \"$1\" 1 20");
    is_synced(&["sh", "-c", &have, program, "@a.log"], 20)?;
    Ok(())
}

#[test]
fn a_log_by_another_name_or_none() -> Result<()> {
    let program = unsynced(&["-static"])?;
    let program = program.to_str().context("a path")?;
    let folder = tempfile::TempDir::new()?;
    let now = folder.path().join("now");
    let link =
        in_a_shell("cd \"${2%/*}\" && : >\"$1\" && ln -s \"$1\" now", "\"$0\" lines make now 1 20");
    is_synced(&["sh", "-c", &link, program, "@a.log", now.to_str().context("a path")?], 20)?;
    let given = in_a_shell("exec 7>>\"$1\"", "\"$0\" lines given 7 1 20");
    is_synced(&["sh", "-c", &given, program, "@a.log"], 20)?;
    Ok(())
}

#[test]
fn a_process_that_has_ended() -> Result<()> {
    let program = unsynced(&["-static"])?;
    let program = program.to_str().context("a path")?;
    let once = in_a_shell("\"$0\" once \"$1\"", "sleep 3600");
    is_synced(&["sh", "-c", &once, program, "@a.log"], 1)?;
    // The whole command.
    let _turn = heavy()?;
    let mut run = Supervised::start(AT_LEAST, LATENCY, &[program, "once", "@a.log"])?;
    ensure!(run.end()?.success(), "{}", run.stderr());
    let lost = run.lose_power("a.log")?;
    ensure!(lost.is_empty(), "{lost:?}");
    Ok(())
}

#[test]
fn a_supervisor_that_dies_has_its_keeper_sync_what_it_has_not_seen() -> Result<()> {
    let _turn = heavy()?;
    let program = unsynced(&["-static"])?;
    let slow = AT_LEAST.replace("1s", "1000s");
    let words = [program.to_str().context("a path")?, "lines", "make", "@a.log", "1", "20"];
    let mut run = Supervised::start(&slow, LATENCY, &words)?;
    let (supervisor, _) = run.supervisor()?;
    run.until(20)?;
    crate::common::kill(supervisor);
    poll("the keeper's line", || run.stderr().contains("the supervisor is gone").then_some(()))?;
    let lost = run.lose_power("a.log")?;
    ensure!(lost.is_empty(), "{lost:?}");
    Ok(())
}

#[test]
fn a_file_with_o_sync_leaves_the_deadline_in_force() -> Result<()> {
    let program = unsynced(&["-static"])?;
    let program = program.to_str().context("a path")?;
    let other = "python3 -c 'import os, sys; os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_SYNC)' \"$1.other\"";
    let script = in_a_shell(other, "\"$0\" lines make \"$1\" 1 20");
    is_synced(&["sh", "-c", &script, program, "@a.log"], 20)
}

#[test]
fn a_policy_decides_about_writes() -> Result<()> {
    let policy =
        "policy small\ntarget posix.log\non write { if call.len > 100B { fail ENOSPC }\n pass }\n";
    let program = unsynced(&["-static"])?;
    let program = program.to_str().context("a path")?;
    for way in ["sizes", "vectors"] {
        let words = [program, way, "@a.log", "100", "101", "7"];
        let mut run = Supervised::start(policy, LATENCY, &words)?;
        ensure!(run.end()?.success(), "{}", run.stderr());
        let said: Vec<&str> = run.acknowledged.iter().map(|line| line.trim()).collect();
        ensure!(said == ["written", "No space left on device", "written"], "{said:?}");
        ensure!(run.stderr().contains("hooks write"), "{}", run.stderr());
        // Another file is not the policy's.
        let words = [program, way, "@a.txt", "101"];
        let mut run = Supervised::start(policy, LATENCY, &words)?;
        run.end()?;
        ensure!(run.acknowledged == ["written\n"], "{:?}", run.acknowledged);
    }
    Ok(())
}

/// Most bytes that cuts take of lines of 50 bytes, by four processes.
fn most_bytes(policy: &str, wanted: usize) -> Result<usize> {
    let program = unsynced(&["-static"])?;
    let words = [program.to_str().context("a path")?, "synced", "@a.log", "4", "50"];
    let mut most = 0;
    for (round, after) in [40, 111, 200].into_iter().cycle().take(30).enumerate() {
        let mut run = Supervised::start(policy, crate::common::SLOW, &words)?;
        run.until(after)?;
        ensure!(run.acknowledged.len() >= after, "ended early: {}", run.stderr());
        let lost = run.lose_power("a.log")?;
        most = most.max(lost.iter().map(String::len).sum());
        if round >= 2 && most >= wanted {
            break;
        }
    }
    Ok(most)
}

#[test]
fn bytes_are_counted_over_all_processes() -> Result<()> {
    let _turn = heavy()?;
    let policy = |bytes: u32| {
        format!(
            "policy b\ntarget posix.log\non fdatasync: if pending.bytes > {bytes}B {{ pass }}; defer\nflush within 1s\n"
        )
    };
    // Each process may have one write under way, which counts.
    let most = most_bytes(&policy(300), 50)?;
    ensure!((50..=300).contains(&most), "{most} bytes lost under a bound of 300");
    let most = most_bytes(&policy(3000), 350)?;
    ensure!((350..=3000).contains(&most), "{most} bytes lost under a bound of 3000");
    Ok(())
}

/// A program that syncs a log, has it grow by a call that is no write, and syncs it again.
const GROWS: &str = "import ctypes, os, signal, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR | os.O_APPEND)
def sync(): os.write(fd, b'x\\n'), os.fdatasync(fd)
allocate = ctypes.CDLL(None).fallocate
allocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
for _ in '123': sync()
if allocate(fd, int(sys.argv[2]), 0, 8 << 20): sys.exit(5)
sync()
os.write(1, b'%d\\n' % os.fstat(fd).st_size)
signal.pause()
";

/// The disk of the other tests does not allocate.
#[test]
fn a_log_that_grows_without_a_write_is_not_counted_on() -> Result<()> {
    let _turn = heavy()?;
    let policy = "policy b\ntarget posix.log\non fdatasync { if pending.bytes > 64KiB { pass }; skip }\nflush within 1000s\n";
    let folder = tempfile::TempDir::new()?;
    for (mode, size, behind) in [("0", (8 << 20) + 2, 0), ("1", 8, 3)] {
        let log = folder.path().join(format!("{mode}.log"));
        let log = log.to_str().context("a path")?;
        let mut run = Supervised::start(policy, LATENCY, &["python3", "-c", GROWS, log, mode])?;
        run.until(1)?;
        ensure!(
            run.acknowledged == [format!("{size}\n")],
            "{:?}: {}",
            run.acknowledged,
            run.stderr()
        );
        let found = pending(run.supervisor()?.0)?;
        ensure!(found == behind, "mode {mode}: {found} calls are deferred");
    }
    Ok(())
}

#[test]
fn a_write_that_waits_lets_nothing_pend() -> Result<()> {
    let _turn = heavy()?;
    // A write waits until all calls before it are durable.
    let policy = "policy w\ntarget posix.log\non write { await all\n pass }\non fdatasync: defer\n";
    let program = crate::common::program(&["-static"])?;
    let words = [program.to_str().context("a path")?, "append", "@a.log", "1", "100000"];
    for after in [20, 37, 50] {
        let mut run = Supervised::start(policy, LATENCY, &words)?;
        run.until(after)?;
        ensure!(run.acknowledged.len() >= after, "ended early: {}", run.stderr());
        let lost = run.lose_power("a.log")?;
        ensure!(lost.len() <= 1, "{lost:?}");
    }
    Ok(())
}

#[test]
pub fn a_log_that_is_mapped_turns_a_policy_about_writes_off() -> Result<()> {
    let policy =
        "policy b\ntarget posix.log\non fdatasync: if pending.bytes > 300B { pass }; defer\n";
    let program = unsynced(&["-static"])?;
    for way in ["map", "map32"] {
        let lines = format!("\"$0\" lines {way} \"$1\" 1 1");
        let map = in_a_shell("head -c 65536 /dev/zero >\"$1\"", &lines);
        let words = ["sh", "-c", &map, program.to_str().context("a path")?, "@a.log"];
        let mut run = Supervised::start(policy, LATENCY, &words)?;
        run.until(1)?;
        ensure!(run.stderr().contains("a log is mapped to be written"), "{way}: {}", run.stderr());
        drop(run.cut(durac_disk::Cut::Clean, 0)?);
    }
    Ok(())
}
