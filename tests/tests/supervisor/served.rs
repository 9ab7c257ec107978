//! A file system that a process of the command serves (FUSE): its server's own calls are answered, so nothing is deferred on
//! it.

use crate::common::{LATENCY, LAZY, Supervised, pending};
use anyhow::{Context, Result, ensure};
use durac_tests::heavy;
use tempfile::TempDir;

/// A program that serves a file system with one file, `a.log`, in one process, which renames and opens files of its own for
/// each call that it serves; and that appends to it and syncs it, and then appends three lines to another log. Nothing of it
/// outlives a minute.
const SERVES: &str = "import ctypes, os, signal, struct, sys
where, back, other, kind = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
if kind == 'unseen': check(libc.unshare(0x20000))
fuse = os.open('/dev/fuse', os.O_RDWR)
options = b'fd=%d,rootmode=40000,user_id=0,group_id=0' % fuse
check(libc.mount(b'served', where.encode(), b'fuse.served', 0, options))
def attributes(node):
    mode = 0o040755 if node == 1 else 0o100644
    return struct.pack('<6Q10I', node, size if node == 2 else 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
def serve():
    global size
    size, there = 0, False
    entry = lambda: struct.pack('<4Q2I', 2, 0, 0, 0, 0, 0) + attributes(2)
    while True:
        call = os.read(fuse, 1 << 18)
        _, code, unique, node = struct.unpack_from('<IIQQ', call)
        body, error, answer = call[40:], 0, b''
        if code in (2, 36, 42): continue
        if code in (1, 14, 16, 20, 35):
            os.rename(back, back)
            os.close(os.open(back + '.log', os.O_CREAT | os.O_WRONLY))
        if code == 26: answer = struct.pack('<4I2H2I2H8I', 7, 31, 0, 0, 0, 0, 1 << 16, 1, 0, 0, *[0] * 8)
        elif code == 1: answer, error = (entry(), 0) if there else (b'', -2)
        elif code in (3, 4): answer = struct.pack('<QII', 0, 0, 0) + attributes(node)
        elif code == 14 or code == 27: answer = struct.pack('<QII', 0, 0, 0)
        elif code == 35: there = True; answer = entry() + struct.pack('<QII', 0, 0, 0)
        elif code == 16:
            _, at, count = struct.unpack_from('<QQI', body)
            size = max(size, at + count); answer = struct.pack('<II', count, 0)
        elif code == 17: answer = bytes(80)
        elif code not in (18, 20, 25, 29, 38): error = -38
        os.write(fuse, struct.pack('<IiQ', 16 + len(answer), error, unique) + (b'' if error else answer))
server = os.fork()
if server == 0:
    libc.prctl(1, signal.SIGKILL), signal.alarm(60), os.dup2(os.open('/dev/null', os.O_WRONLY), 1)
    serve()
os.close(fuse)
signal.alarm(60)
def append(path, count):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for _ in range(count): os.write(fd, b'x\\n'), os.fdatasync(fd), os.write(1, b'x\\n')
append(where + '/a.log', 20)
check(libc.umount2(where.encode(), 2))
append(other, 3)
signal.pause()
";

/// The program, in a mount namespace of its own or not. Returns how many calls are deferred at its end.
fn behind(policy: &str, kind: &str) -> Result<u64> {
    let folder = TempDir::new()?;
    let (place, back) = (folder.path().join("mnt"), folder.path().join("back"));
    std::fs::create_dir(&place)?;
    std::fs::write(&back, "")?;
    let (place, back) = (place.to_str().context("a path")?, back.to_str().context("a path")?);
    let words = ["python3", "-c", SERVES, place, back, "@b.log", kind];
    let mut run = Supervised::start(policy, LATENCY, &words)?;
    run.until(23)?;
    let lines = run.acknowledged.len();
    ensure!(lines == 23, "{kind}: {lines} lines, then nothing: {}", run.stderr());
    let told = run.stderr().matches("may serve its file system (FUSE)").count();
    ensure!(told == 1, "{kind}: told {told} times: {}", run.stderr());
    pending(run.supervisor()?.0)
}

#[test]
fn nothing_is_deferred_where_a_process_of_the_command_serves() -> Result<()> {
    let _turn = heavy()?;
    for kind in ["seen", "unseen"] {
        // On the disk that was there before, it is.
        let found = behind(LAZY, kind)?;
        ensure!(found == 2, "{kind}: {found} calls are deferred");
        behind("policy a\ntarget posix.log\non write: defer\nflush within 1s\n", kind)?;
        behind(
            "policy w\ntarget posix.log\non fdatasync: await pending < 4; defer\nflush within 50ms\n",
            kind,
        )?;
    }
    Ok(())
}
