//! Descriptors of a log that are not like others: those that only name it, those to read, and those that the file system
//! refuses to sync.

use crate::common::{LATENCY, LAZY, Supervised, pending};
use anyhow::{Result, ensure};
use durac_disk::plan::Effect;
use durac_disk::{Fault, Op, Plan};
use durac_tests::heavy;

/// A program that syncs a log, makes calls on descriptors that only name it, in two processes, and syncs it again.
const NAMED: &str = "import ctypes, os, signal, sys
log = sys.argv[1]
fd = os.open(log, os.O_CREAT | os.O_RDWR | os.O_APPEND)
named, read = os.open(log, os.O_PATH), os.open(log, os.O_RDONLY)
libc = ctypes.CDLL(None, use_errno=True)
def said(call):
    try: call(); said = 'fine'
    except OSError as why: said = why.strerror
    os.write(1, said.encode() + b'\\n')
def append(): os.write(fd, b'x\\n'), os.fdatasync(fd)
def range():
    if libc.sync_file_range(named, 0, 0, 4): raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
for _ in '123': said(append)
for call in os.fsync, os.fdatasync:
    said(lambda: call(named))
    os.write(fd, b'x\\n')
    said(lambda: call(named))
if os.fork() == 0: said(lambda: os.fsync(os.open(log, os.O_PATH))), os._exit(0)
os.wait()
said(lambda: os.write(named, b'x' * 200))
said(lambda: os.ftruncate(named, 0))
said(lambda: os.posix_fallocate(named, 0, 8192))
said(range)
for _ in '123': said(append)
os.write(fd, b'x\\n')
said(lambda: os.fdatasync(read))
signal.pause()
";

/// What the program says under a policy, and how many calls are deferred at its end.
fn behind_a_name(policy: &str) -> Result<u64> {
    let mut run = Supervised::start(policy, LATENCY, &["python3", "-c", NAMED, "@a.log"])?;
    run.until(16)?;
    let wanted = ["fine\n"; 3].into_iter().chain(["Bad file descriptor\n"; 9]).chain(["fine\n"; 4]);
    ensure!(run.acknowledged.iter().eq(wanted), "{:?}: {}", run.acknowledged, run.stderr());
    let (supervisor, _) = run.supervisor()?;
    pending(supervisor)
}

#[test]
fn a_descriptor_that_only_names_a_log_is_not_the_log_s() -> Result<()> {
    let _turn = heavy()?;
    ensure!(behind_a_name(LAZY)? == 4);
    // What is written stays known.
    let bytes = "policy b\ntarget posix.log\non fdatasync { if pending.bytes > 1MiB { pass }; skip }\nflush within 1000s\n";
    ensure!(behind_a_name(bytes)? == 4);
    // No program runs for such a write.
    behind_a_name(
        "policy s\ntarget posix.log\non write { if call.len > 100B { fail ENOSPC }\n pass }\n",
    )?;
    Ok(())
}

/// A program that syncs a log, and a fourth time when it is told to, with nothing appended: that call is made directly.
const REFUSED: &str = "import os, sys, time
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
def sync():
    try: os.fdatasync(fd), os.write(1, b'fine\\n')
    except OSError as why: os.write(1, why.strerror.encode() + b'\\n')
def append(): os.write(fd, b'x\\n'), sync()
for _ in '123': append()
while not os.path.exists(sys.argv[2]): time.sleep(0.01)
sync()
for _ in '123': append()
";

/// What it says if the file system returns this error once, and loses what it was to sync.
fn refused_once(errno: i32) -> Result<String> {
    let mut run = Supervised::start(LAZY, LATENCY, &["python3", "-c", REFUSED, "@a.log", "@go"])?;
    run.until(3)?;
    let effect = Effect::Fail(errno);
    let fault = Fault { op: Op::Sync, path: "a.log".into(), after: 0, times: Some(1), effect };
    run.disk.plan(Plan { latency: LATENCY, faults: vec![fault], room: None });
    std::fs::write(run.disk.join("go"), "")?;
    run.end()?;
    Ok(run.acknowledged.concat())
}

/// An error that asks to try again stops nothing.
#[test]
fn a_sync_that_could_not_run_is_made_again() -> Result<()> {
    let _turn = heavy()?;
    for errno in [libc::EINTR, libc::EAGAIN, libc::EBUSY] {
        let said = refused_once(errno)?;
        ensure!(said == "fine\n".repeat(7), "{errno}: {said}");
    }
    Ok(())
}

/// Any other error may be the only report of a failed write-back, those that are mostly a descriptor's, too.
#[test]
fn an_error_of_the_file_system_stops_the_log_whatever_it_is() -> Result<()> {
    let _turn = heavy()?;
    for (errno, text) in
        [(libc::EBADF, "Bad file descriptor\n"), (libc::EIO, "Input/output error\n")]
    {
        let said = refused_once(errno)?;
        ensure!(said == format!("{}{}", "fine\n".repeat(3), text.repeat(4)), "{said}");
    }
    Ok(())
}
