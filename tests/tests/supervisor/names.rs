//! Files that go by another name than the one that they were opened by, or by none, and writes to what is no regular file.

use crate::common::{LATENCY, Supervised, pending};
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
