//! What the supervisor keeps of a log: how long it is listed, its open file, and what it has told.

use crate::common::{LATENCY, LAZY, Supervised, pending, poll, seen, window};
use anyhow::{Context, Result, ensure};
use durac_disk::plan::Effect;
use durac_disk::{Fault, Op, Plan};
use durac_tests::heavy;

/// A program that syncs two logs, closes the second, and does nothing.
const QUIET: &str = "import os, signal, sys
def begin(path):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(fd, b'x\\n'), os.fdatasync(fd)
    return fd
kept = begin(sys.argv[1])
os.close(begin(sys.argv[2]))
os.write(1, b'quiet\\n')
signal.pause()
";

#[test]
fn a_log_is_listed_until_nobody_has_it_open() -> Result<()> {
    let _turn = heavy()?;
    let mut run = Supervised::start(LAZY, LATENCY, &["python3", "-c", QUIET, "@a.log", "@b.log"])?;
    run.until(1)?;
    let (supervisor, _) = run.supervisor()?;
    let listed = || -> Result<Vec<String>> {
        let logs = seen(supervisor)?.logs.into_iter();
        Ok(logs.filter(|log| log.numbers.descriptors > 0).map(|log| log.path).collect())
    };
    ensure!(listed()?.len() == 2, "{:?}", listed()?);
    // The other was used before it.
    poll("the end of the closed log", || {
        listed().ok().filter(|logs| !logs.iter().any(|log| log.ends_with("b.log")))
    })?;
    let logs = listed()?;
    ensure!(logs.len() == 1 && logs.iter().all(|log| log.ends_with("a.log")), "{logs:?}");
    Ok(())
}

/// A program that writes and syncs another, and executes it.
const EXECUTES: &str = "import os, shutil, subprocess, sys
path = sys.argv[1]
shutil.copyfile(shutil.which('true'), path), os.chmod(path, 0o755)
fd = os.open(path, os.O_WRONLY)
os.fdatasync(fd), os.fdatasync(fd), os.close(fd)
try: subprocess.run([path], check=True), os.write(1, b'fine\\n')
except OSError as why: os.write(1, why.strerror.encode() + b'\\n')
";

#[test]
fn a_program_that_was_synced_can_be_executed() -> Result<()> {
    let _turn = heavy()?;
    let folder = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
    let path = folder.path().join("a.log");
    let words = ["python3", "-c", EXECUTES, path.to_str().context("a path")?];
    let mut run = Supervised::start(LAZY, LATENCY, &words)?;
    run.end()?;
    ensure!(run.acknowledged == ["fine\n"], "{:?}: {}", run.acknowledged, run.stderr());
    Ok(())
}

/// A program that writes its log in place for a while, appends, and does the same again.
const IN_PLACE: &str = "import os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
for _ in '12':
    os.write(fd, b'x\\n'), os.fdatasync(fd)
    for _ in range(80): os.pwrite(fd, b'y', 0), os.fdatasync(fd)
";

#[test]
fn that_nothing_is_appended_is_told_once() -> Result<()> {
    let _turn = heavy()?;
    let mut run = Supervised::start(LAZY, LATENCY, &["python3", "-c", IN_PLACE, "@a.log"])?;
    run.end()?;
    let told = run.stderr().matches("found nothing appended").count();
    ensure!(told == 1, "told {told} times: {}", run.stderr());
    Ok(())
}

/// A program that appends four lines to its journal.
const JOURNAL: &str = "import os, signal, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
for _ in '1234': os.write(fd, b'x\\n'), os.fsync(fd)
os.write(1, b'done\\n')
signal.pause()
";

#[test]
fn the_example_of_a_target_matches_its_log() -> Result<()> {
    let _turn = heavy()?;
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let policy = std::fs::read_to_string(root.join("examples/own-target/ledger.dur"))?;
    let folder = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
    std::fs::create_dir(folder.path().join("journal"))?;
    let log = folder.path().join("journal/1.ldg");
    let words = ["python3", "-c", JOURNAL, log.to_str().context("a path")?];
    let mut run = Supervised::start(&policy, LATENCY, &words)?;
    run.until(1)?;
    let logs = seen(run.supervisor()?.0)?.logs;
    let is_its = logs.iter().any(|log| log.path.ends_with("1.ldg") && log.numbers.calls >= 4);
    ensure!(is_its, "{logs:?}: {}", run.stderr());
    Ok(())
}

/// A program that syncs a log on which it has a write lease, releases the lease, and syncs it three times more.
const LEASED: &str = "import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR | os.O_APPEND)
def append(count):
    for _ in range(count): os.write(fd, b'x\\n'), os.fdatasync(fd)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
append(2)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
append(3)
os.write(1, b'done\\n')
signal.pause()
";

/// To open it would wait for the holder, which waits for its sync.
#[test]
fn a_log_with_a_write_lease_is_synced_directly() -> Result<()> {
    let _turn = heavy()?;
    let folder = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
    let path = folder.path().join("a.log");
    let words = ["python3", "-c", LEASED, path.to_str().context("a path")?];
    let mut run = Supervised::start(LAZY, LATENCY, &words)?;
    run.until(1)?;
    let behind = pending(run.supervisor()?.0)?;
    ensure!(behind == 2, "{behind} calls are deferred: {}", run.stderr());
    Ok(())
}

/// A program that mounts an overlay, syncs a file of its lower layer that it has open to read, appends to another, and says
/// which files are in the upper layer.
/// No process ends after the last sync: that would be waited for.
const LAYERED: &str = "import ctypes, os, signal, subprocess, sys
os.chdir(sys.argv[1])
def run(*words): subprocess.run(words, check=True)
run('mount', '-t', 'tmpfs', 'layers', '.')
os.chdir(sys.argv[1])
for name in 'lower', 'upper', 'work', 'all': os.mkdir(name)
for name in 'read.log', 'written.log': open('lower/' + name, 'w').close()
run('mount', '-t', 'overlay', 'layers', '-o', 'lowerdir=lower,upperdir=upper,workdir=work', 'all')
fd = os.open('all/read.log', os.O_RDONLY)
for _ in '123': os.fdatasync(fd)
fd = os.open('all/written.log', os.O_WRONLY | os.O_APPEND)
for _ in '123': os.write(fd, b'x\\n'), os.fdatasync(fd)
found = ' '.join(sorted(os.listdir('upper'))).encode()
for place in 'all', '.': ctypes.CDLL(None).umount2(os.path.join(sys.argv[1], place).encode(), 2)
os.write(1, found + b'\\n')
signal.pause()
";

#[test]
fn a_sync_of_a_file_of_a_lower_layer_copies_nothing() -> Result<()> {
    let _turn = heavy()?;
    let folder = tempfile::TempDir::new()?;
    let words = ["python3", "-c", LAYERED, folder.path().to_str().context("a path")?];
    let mut run = Supervised::start(LAZY, LATENCY, &words)?;
    run.until(1)?;
    ensure!(run.acknowledged == ["written.log\n"], "{:?}: {}", run.acknowledged, run.stderr());
    let behind = pending(run.supervisor()?.0)?;
    ensure!(behind == 2, "{behind} calls are deferred: {}", run.stderr());
    Ok(())
}

/// A program that syncs a log until an error, and ends.
const UNTIL_AN_ERROR: &str = "import os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
try:
    while True: os.write(fd, b'x\\n'), os.fdatasync(fd), os.write(1, b'x\\n')
except OSError: pass
";

/// The supervisor has told of the error, and has ended with the command.
#[test]
fn the_keeper_says_nothing_at_the_end_of_a_command_whose_log_has_failed() -> Result<()> {
    let _turn = heavy()?;
    let words = ["python3", "-c", UNTIL_AN_ERROR, "@a.log"];
    let mut run = Supervised::start(&window(8), LATENCY, &words)?;
    run.until(10)?;
    let (_, keeper) = run.supervisor()?;
    let effect = Effect::Fail(libc::EIO);
    let fault = Fault { op: Op::Sync, path: "a.log".into(), after: 0, times: None, effect };
    run.disk.plan(Plan { latency: LATENCY, faults: vec![fault], room: None });
    run.end()?;
    poll("the keeper's end", || {
        let state = std::fs::read_to_string(format!("/proc/{keeper}/stat")).unwrap_or_default();
        (state.is_empty() || state.contains(") Z")).then_some(())
    })?;
    let said = run.stderr();
    ensure!(said.contains("a sync failed") && !said.contains("the supervisor is gone"), "{said}");
    Ok(())
}
