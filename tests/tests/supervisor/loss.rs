//! What a power cut takes: at most the policy's bound, over all processes of a log.

use crate::common::{
    LATENCY, LAZY, SLOW, Supervised, append, loses_nothing, pending, poll, program, seen, window,
};
use anyhow::{Result, ensure};
use durac_tests::heavy;

/// The most that cuts at several moments take of four processes under a window. What a cut finds deferred is chance:
/// there are more of them until one takes `wanted`.
fn most_lost(n: u32, options: &[&str], wanted: usize) -> Result<usize> {
    let program = program(options)?;
    let program = program.to_str().unwrap();
    let latency = if n > 8 { SLOW } else { LATENCY };
    let mut most = 0;
    for (round, after) in [40, 111, 200].into_iter().cycle().take(30).enumerate() {
        let mut run =
            Supervised::start(&window(n), latency, &[program, "append", "@a.log", "4", "100000"])?;
        run.until(after)?;
        ensure!(run.acknowledged.len() >= after, "ended early: {}", run.stderr());
        most = most.max(run.lose_power("a.log")?.len());
        if round >= 2 && most >= wanted {
            break;
        }
    }
    Ok(most)
}

/// The most that one cut takes of four processes under a bound of 3: any number of tries finds no more.
pub fn three_at_most(tries: usize) -> Result<()> {
    let _turn = heavy()?;
    for _ in 0..tries {
        let mut run = append(&window(3), SLOW, "100000")?;
        run.until(40)?;
        let lost = run.lose_power("a.log")?.len();
        ensure!(lost <= 3, "{lost} lost under a bound of 3");
    }
    Ok(())
}

#[test]
fn the_bound_is_that_of_the_log_over_all_processes() -> Result<()> {
    three_at_most(1)?;
    let _turn = heavy()?;
    let most = most_lost(3, &[], 0)?;
    ensure!(most <= 3, "{most} lost under a bound of 3");
    // The same cuts can take more: the bound above is the policy's doing.
    let most = most_lost(64, &[], 4)?;
    ensure!((4..=64).contains(&most), "{most} lost under a bound of 64");
    Ok(())
}

#[test]
fn a_static_program_is_no_different() -> Result<()> {
    let _turn = heavy()?;
    let most = most_lost(8, &["-static"], 1)?;
    ensure!((1..=8).contains(&most), "{most} lost under a bound of 8");
    Ok(())
}

#[test]
pub fn calls_of_32_bit_programs_are_seen() -> Result<()> {
    let _turn = heavy()?;
    let program = program(&[])?;
    let words = [program.to_str().unwrap(), "compat", "@a.log", "100000"];
    let mut run = Supervised::start(&window(8), SLOW, &words)?;
    run.until(100)?;
    let syncs = run.disk.syncs();
    ensure!(syncs < 90, "{syncs} syncs for 100 calls: nothing was deferred");
    let lost = run.lose_power("a.log")?.len();
    ensure!(lost <= 8, "{lost} lost");
    Ok(())
}

#[test]
fn what_is_deferred_comes_before_a_sync_of_another_file() -> Result<()> {
    let _turn = heavy()?;
    let program = program(&[])?;
    let words = [program.to_str().unwrap(), "other", "@a.log", "20", "@other"];
    let mut run = Supervised::start(&window(64), LATENCY, &words)?;
    run.until(21)?;
    ensure!(run.acknowledged.pop().as_deref() == Some("done\n"), "{}", run.stderr());
    loses_nothing(run)
}

#[test]
fn a_command_that_ends_leaves_nothing_behind() -> Result<()> {
    let _turn = heavy()?;
    let program = program(&[])?;
    let words = [program.to_str().unwrap(), "append", "@a.log", "2", "30"];
    let mut run = Supervised::start(&window(64), LATENCY, &words)?;
    ensure!(run.end()?.success(), "{}", run.stderr());
    loses_nothing(run)
}

/// A program whose child syncs a log and ends by none of the calls that are asked about. It then does the same.
const ENDS: &str = "import ctypes, os, signal, sys, time
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
def ends(name):
    for line in '123':
        line = (name + ' ' + line + '\\n').encode()
        os.write(fd, line), os.fdatasync(fd), os.write(1, line)
    if sys.argv[3] == 'kill': os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[3] == 'exit': ctypes.CDLL(None).syscall(60, 0)
    if sys.argv[3] == 'exec': os.close(fd), os.execlp('sleep', 'sleep', '3600')
pid = os.fork()
if pid == 0: ends('child')
if sys.argv[3] != 'exec': os.waitpid(pid, 0)
while not os.path.exists(sys.argv[2]): time.sleep(0.01)
if sys.argv[3] == 'exec': os.kill(pid, signal.SIGKILL), os.kill(os.getpid(), signal.SIGKILL)
ends('parent')
";

#[test]
fn what_ends_unseen_leaves_its_calls_deferred_until_the_command_is_gone() -> Result<()> {
    let _turn = heavy()?;
    for way in ["kill", "exit", "exec"] {
        let words = ["python3", "-c", ENDS, "@a.log", "@go", way];
        let mut run = Supervised::start(LAZY, LATENCY, &words)?;
        run.until(3)?;
        let (supervisor, _) = run.supervisor()?;
        let behind = pending(supervisor)?;
        ensure!(behind == 2, "{way}: {behind} are deferred: {}", run.stderr());
        std::fs::write(run.disk.join("go"), "")?;
        run.end()?;
        poll("the end", || pending(supervisor).map_or(true, |behind| behind == 0).then_some(()))?;
        let lines = run.acknowledged.len();
        ensure!(lines == if way == "exec" { 3 } else { 6 }, "{way}: {lines}: {}", run.stderr());
        loses_nothing(run)?;
    }
    Ok(())
}

/// A policy that syncs nothing by itself, at a target that says `more`.
pub fn lazy(more: &str) -> String {
    format!(
        "target my.log {{ files \"*-wal\"\n {more}\n callers many\n hook fdatasync(log: file) -> status {{\n \
         entry libc \"fdatasync\"\n may pass, skip\n }} }}\n\
         policy lazy\ntarget my.log\non fdatasync: skip\nflush within 1000s\n"
    )
}

/// How many of 20 acknowledged lines a cut takes after a page was written, in a file of these names.
fn lost_behind_a_page(more: &str, names: &[&str]) -> Result<usize> {
    let program = program(&[])?;
    let words = [&[program.to_str().unwrap(), "page", "@a-wal", "20"], names].concat();
    let mut run = Supervised::start(&lazy(more), LATENCY, &words)?;
    run.until(21)?;
    ensure!(run.acknowledged.pop().as_deref() == Some("done\n"), "{}", run.stderr());
    Ok(run.lose_power("a-wal")?.len())
}

#[test]
pub fn a_protected_file_is_not_written_while_the_log_is_behind() -> Result<()> {
    let _turn = heavy()?;
    let page = &["@pages"][..];
    ensure!(lost_behind_a_page("protects \"*\"", page)? == 0, "the page came before the log");
    // A file that is not protected, and no such rule at all.
    ensure!(lost_behind_a_page("protects \"*\"\n except \"pages\"", page)? == 19);
    ensure!(lost_behind_a_page("", page)? == 19);
    // Only another name of it is protected.
    let rule = "protects \"*.db\"";
    ensure!(lost_behind_a_page(rule, page)? == 19);
    ensure!(lost_behind_a_page(rule, &["@pages", "@pages.db"])? == 0, "by its other name");
    Ok(())
}

/// What 20 acknowledged lines lose after a write to `file` that is durable by itself, and how many syncs there were.
fn behind_a_durable_write(more: &str, file: &str, flag: &str) -> Result<(usize, usize, String)> {
    let program = program(&[])?;
    let words = [program.to_str().unwrap(), "durable", "@a-wal", "20", file, flag];
    let mut run = Supervised::start(&lazy(more), LATENCY, &words)?;
    run.until(21)?;
    ensure!(run.acknowledged.pop().as_deref() == Some("done\n"), "{}", run.stderr());
    let (syncs, stderr) = (run.disk.syncs() as usize, run.stderr());
    Ok((run.lose_power("a-wal")?.len(), syncs, stderr))
}

#[test]
pub fn a_write_that_is_durable_by_itself_comes_after_the_log() -> Result<()> {
    let _turn = heavy()?;
    for layout in ["layout ring", "protects \"*.never\""] {
        for (file, flag) in
            [("@page", "open"), ("@page", "write"), ("@a-wal", "open"), ("@a-wal", "write")]
        {
            let (lost, syncs, stderr) = behind_a_durable_write(layout, file, flag)?;
            ensure!(lost == 0, "{layout}, {file}, {flag}: {lost} lines lost");
            // The first call, what was deferred, and the write.
            ensure!(syncs == 3, "{layout}, {file}, {flag}: {syncs} syncs");
            ensure!(!stderr.contains("the policy is off"), "{stderr}");
        }
    }
    // Where writes are not seen, such a file turns the policy off.
    let (lost, syncs, stderr) = behind_a_durable_write("", "@page", "open")?;
    ensure!(lost == 0 && syncs >= 20 && stderr.contains("the policy is off"), "{syncs}: {stderr}");
    Ok(())
}

#[test]
pub fn the_new_beginning_of_a_ring_is_durable_when_it_is_acknowledged() -> Result<()> {
    let _turn = heavy()?;
    let program = program(&[])?;
    let words = [program.to_str().unwrap(), "again", "@a-wal"];
    let mut run = Supervised::start(&lazy("layout ring"), LATENCY, &words)?;
    run.until(1)?;
    let syncs = run.disk.syncs();
    let lost = run.lose_power("a-wal")?;
    ensure!(lost.is_empty(), "{lost:?}");
    // The first call, the drain before the new beginning, and the call after it: the others were deferred.
    ensure!(syncs == 3, "{syncs} syncs");
    Ok(())
}

/// A program that syncs a log four times, has another process write at its beginning, and syncs it so often again.
const BEGINS: &str = "import os, signal, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
def sync(at): os.pwrite(fd, b'x\\n', at), os.fdatasync(fd)
for at in 0, 2, 4, 6: sync(at)
if os.fork() == 0: os.pwrite(fd, b'y\\n', 0), os.kill(os.getpid(), signal.SIGKILL)
os.wait()
for call in range(int(sys.argv[2])): sync(8 + 2 * call)
os.write(1, b'done\\n')
signal.pause()
";

/// Whoever syncs next makes it durable.
#[test]
fn the_new_beginning_of_a_ring_is_durable_whichever_process_syncs() -> Result<()> {
    let _turn = heavy()?;
    for (calls, behind) in [("1", 0), ("3", 2)] {
        let words = ["python3", "-c", BEGINS, "@a-wal", calls];
        let mut run = Supervised::start(&lazy("layout ring"), LATENCY, &words)?;
        run.until(1)?;
        let found = pending(run.supervisor()?.0)?;
        ensure!(found == behind, "{found} of {calls} calls are deferred: {}", run.stderr());
    }
    Ok(())
}

/// A program that syncs a log four times, has it begin again in one of these ways, and syncs it once.
const BEGINS_SO: &str = "import ctypes, os, signal, sys
log, way = sys.argv[1:]
fd = os.open(log, os.O_CREAT | os.O_RDWR | (os.O_APPEND if way == 'append' else 0))
libc, zero = ctypes.CDLL(None), ctypes.c_long(0)
def sync(at): os.pwrite(fd, b'x\\n', at), os.fdatasync(fd)
def empty(): os.close(os.open(log, os.O_RDWR | os.O_TRUNC))
for at in 0, 2, 4, 6: sync(at)
if way == 'append': empty(), os.write(fd, b'y\\n')
if way == 'append-once': empty(), os.pwritev(fd, [b'y\\n'], 4, 0x10)
if way == 'ftruncate': os.ftruncate(fd, 0)
if way == 'truncate': os.truncate(log, 0)
if way == 'hole': libc.fallocate(fd, 3, zero, ctypes.c_long(4))
if way == 'submit': libc.syscall(209, 0, zero, 0)
if way == 'elsewhere': os.pwrite(fd, b'y\\n', 8)
sync(10)
os.write(1, b'done\\n')
signal.pause()
";

/// Whatever may have changed the beginning of a log, the next sync makes it durable.
#[test]
fn a_ring_begins_again_in_many_ways() -> Result<()> {
    let _turn = heavy()?;
    for (way, behind) in [
        ("append", 0),
        ("append-once", 0),
        ("ftruncate", 0),
        ("truncate", 0),
        ("hole", 0),
        ("submit", 0),
        ("elsewhere", 4),
    ] {
        let words = ["python3", "-c", BEGINS_SO, "@a-wal", way];
        let mut run = Supervised::start(&lazy("layout ring"), LATENCY, &words)?;
        run.until(1)?;
        let seen = seen(run.supervisor()?.0)?;
        let found: u64 = seen.logs.iter().map(|log| log.numbers.pending()).sum();
        ensure!(found == behind, "{way}: {found} calls are deferred: {}", run.stderr());
        // It may write after the call has ended.
        let is_told = run.stderr().contains("the policy is off: io_submit");
        ensure!(seen.stays_off == (way == "submit") && is_told == seen.stays_off, "{way}");
    }
    Ok(())
}

/// A program that syncs a log, copies to a file by one of these calls, and syncs the log again.
const COPIES: &str = "import os, signal, sys
log, to, page, call = sys.argv[1:]
def sync(): os.write(fd, b'x\\n'), os.fdatasync(fd), os.write(1, b'x\\n')
fd = os.open(log, os.O_CREAT | os.O_RDWR | os.O_APPEND)
page = os.open(page, os.O_CREAT | os.O_RDWR)
out = os.open(to, os.O_CREAT | os.O_RDWR)
source, sink = os.pipe()
os.write(sink, b'page'), os.write(page, b'page')
for _ in '123': sync()
if call == 'splice': os.splice(source, out, 4)
if call == 'splice-from': os.splice(page, sink, 4, 0)
if call == 'copy': os.copy_file_range(page, out, 4, 0)
if call == 'sendfile': os.sendfile(out, page, 0, 4)
if call == 'sendfile-pipe':
    try: os.sendfile(out, source, None, 4)
    except OSError: pass
for _ in '123': sync()
signal.pause()
";

/// How many of the last calls are deferred, and what was told.
fn deferred_behind_a_copy(more: &str, to: &str, call: &str) -> Result<(u64, String)> {
    let words = ["python3", "-c", COPIES, "@a-wal", to, "@page.db", call];
    let mut run = Supervised::start(&lazy(more), LATENCY, &words)?;
    run.until(6)?;
    ensure!(run.acknowledged.len() == 6, "{call}: {}", run.stderr());
    let seen = seen(run.supervisor()?.0)?;
    let behind = seen.logs.iter().map(|log| log.numbers.pending()).sum();
    let told = run.stderr();
    ensure!(seen.stays_off == told.contains("the policy is off"), "{}: {told}", seen.stays_off);
    Ok((behind, told))
}

/// It may wait for the pipe until calls that come later are acknowledged, and then write.
#[test]
fn a_splice_into_a_protected_file_turns_the_policy_off() -> Result<()> {
    let _turn = heavy()?;
    let rule = "protects \"*.db\"";
    let is_told = |told: &str| told.matches("is written by splice or sendfile").count() == 1;
    for (more, to, call) in [
        (rule, "@out.db", "splice"),
        (rule, "@out.db", "sendfile-pipe"),
        // It may be the beginning of a log that starts again.
        ("layout ring", "@b-wal", "splice"),
    ] {
        let (behind, told) = deferred_behind_a_copy(more, to, call)?;
        ensure!(behind == 0 && is_told(&told), "{more}, {to}, {call}: {behind}: {told}");
    }
    for (more, to, call) in [
        (rule, "@out", "splice"),
        (rule, "@out.db", "splice-from"),
        (rule, "@out.db", "copy"),
        (rule, "@out.db", "sendfile"),
        ("layout ring", "@out", "splice"),
        ("", "@out.db", "splice"),
    ] {
        let (behind, told) = deferred_behind_a_copy(more, to, call)?;
        ensure!(behind >= 3 && !is_told(&told), "{more}, {to}, {call}: {behind}: {told}");
    }
    Ok(())
}
