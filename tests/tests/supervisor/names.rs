//! Files that go by another name than the one that they were opened by, or by none, and writes to what is no regular file.

use crate::common::{LATENCY, LAZY, Supervised, pending, window};
use crate::order::SEES;
use anyhow::{Context, Result, ensure};
use durac_tests::heavy;

/// A program that gets a descriptor in some way, syncs a log three times, and writes by the descriptor. It says how.
const WRITES: &str = "import ctypes, os, signal, sys
way, folder = sys.argv[1:]
os.chdir(folder)
def link(fd, name):
    if ctypes.CDLL(None).linkat(-100, b'/proc/self/fd/%d' % fd, -100, name, 0x400): sys.exit(3)
fd = os.open('t.log', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
new = os.O_CREAT | os.O_RDWR
if way == 'plain': page = os.open('plain', new)
if way == 'memory': page = os.memfd_create('plain')
if way == 'protected': page = os.open('plain.db', new)
if way == 'made without': page = os.open('.', os.O_TMPFILE | os.O_RDWR); link(page, b'made.db')
if way == 'moved by links': page = os.open('plain', new); os.link('plain', 'moved.db'); os.unlink('plain')
if way == 'renamed': page = os.open('plain', new); os.rename('plain', 'renamed.db')
if way == 'gone': page = os.open('gone.db', new); os.unlink('gone.db')
if way == 'another there':
    page = os.open('plain', new); os.link('plain', 'plain.db'); os.unlink('plain'); os.mknod('plain (deleted)')
if way.startswith('a log'):
    page = os.open('p.log', new | os.O_APPEND); os.write(page, b'x\\n'), os.fdatasync(page)
if way == 'a log renamed': os.rename('p.log', 'p.db')
if way == 'a log linked': os.link('p.log', 'p.db')
if way == 'a log moved by links': os.link('p.log', 'p.db'), os.unlink('p.log')
if way == 'a log gone': os.unlink('p.log')
if way == 'a device': page = os.open('/dev/null', os.O_WRONLY)
if way == 'a durable device': page = os.open('/dev/null', os.O_WRONLY | os.O_DSYNC)
for _ in '123': os.write(fd, b'x\\n'), os.fdatasync(fd)
os.write(page, b'page')
os.write(1, b'done\\n')
signal.pause()
";

#[test]
fn what_is_not_known_by_its_name_counts_as_protected() -> Result<()> {
    let _turn = heavy()?;
    for (way, behind) in [
        ("plain", 2),
        ("memory", 2),
        ("a device", 2),
        ("protected", 0),
        ("made without", 0),
        ("moved by links", 0),
        ("renamed", 0),
        ("gone", 0),
        ("another there", 0),
        ("a durable device", 0),
        // What was synced as a log counts no less.
        ("a log", 2),
        ("a log renamed", 0),
        ("a log linked", 0),
        ("a log moved by links", 0),
        ("a log gone", 0),
    ] {
        // A disk of this machine: that of the other tests makes no file without a name.
        let folder = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
        let words = ["python3", "-c", WRITES, way, folder.path().to_str().context("a path")?];
        let mut run = Supervised::start(SEES, LATENCY, &words)?;
        run.until(1)?;
        ensure!(run.acknowledged == ["done\n"], "{way}: {}", run.stderr());
        let found = pending(run.supervisor()?.0)?;
        ensure!(
            found == behind,
            "{way}: {found} calls are deferred, not {behind}: {}",
            run.stderr()
        );
        ensure!(!run.stderr().contains("the policy is off"), "{way}: {}", run.stderr());
    }
    Ok(())
}

/// A program that syncs a log three times, gives it another name, and does the same again: by that name in another process,
/// and by its own descriptor.
const RENAMED: &str = "import os, signal, sys
way, folder = sys.argv[1:]
os.chdir(folder)
def opened(name): return os.open(name, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
def append(fd):
    for _ in '123': os.write(fd, b'x\\n'), os.fdatasync(fd)
fd = opened('a.log')
append(fd)
if way == 'gone': os.unlink('a.log')
else:
    os.rename('a.log', 'a.db')
    if os.fork() == 0: append(opened('a.db')), os.kill(os.getpid(), signal.SIGKILL)
    os.wait()
if way == 'back': os.rename('a.db', 'a.log')
append(fd)
os.write(1, b'done\\n')
signal.pause()
";

#[test]
fn a_file_is_no_log_by_another_name() -> Result<()> {
    let _turn = heavy()?;
    for (way, behind) in [("away", 0), ("gone", 0), ("back", 3)] {
        let folder = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
        let words = ["python3", "-c", RENAMED, way, folder.path().to_str().context("a path")?];
        let mut run = Supervised::start(LAZY, LATENCY, &words)?;
        run.until(1)?;
        let found = pending(run.supervisor()?.0)?;
        ensure!(
            found == behind,
            "{way}: {found} calls are deferred, not {behind}: {}",
            run.stderr()
        );
    }
    Ok(())
}

/// A program of which a log has failed; another gives it another name, and it syncs it, by its own descriptor and by that name.
const FAILED: &str = "import os, subprocess, sys
log, to = sys.argv[1:]
fd = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
try:
    while True: os.write(fd, b'x\\n'), os.fdatasync(fd), os.write(1, b'x\\n')
except OSError: pass
subprocess.run(['mv', log, to], check=True)
for fd in fd, os.open(to, os.O_WRONLY | os.O_APPEND):
    try: os.fdatasync(fd), os.write(1, b'fine\\n')
    except OSError: os.write(1, b'told\\n')
";

#[test]
fn a_log_that_has_failed_stays_so_by_another_name() -> Result<()> {
    let _turn = heavy()?;
    let words = ["python3", "-c", FAILED, "@a.log", "@a.db"];
    let mut run = Supervised::start(&window(8), LATENCY, &words)?;
    run.until(10)?;
    run.fail_sync_of("a.log");
    run.end()?;
    ensure!(
        run.acknowledged.ends_with(&["told\n".to_owned(), "told\n".to_owned()]),
        "{}",
        run.stderr()
    );
    Ok(())
}
