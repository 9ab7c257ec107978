//! A file system that a process of the command serves (FUSE): its server's own calls are answered, so nothing is deferred on
//! it.

use crate::common::{Killed, LATENCY, LAZY, Supervised, pending};
use anyhow::{Context, Result, ensure};
use durac_disk::private_mounts;
use durac_tests::heavy;
use std::ffi::CString;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A policy that looks at every file which is opened.
const AT_LEAST: &str = "policy a\ntarget posix.log\non write: defer\nflush within 1s\n";

/// A program that serves a file system with one file, `a.log`, in one process, which renames and opens files of its own for
/// each call that it serves, and starts and awaits other processes before it makes a file; and that appends to it and syncs it,
/// and then appends three lines to another log. Nothing of it outlives a minute.
const SERVES: &str = "import ctypes, os, signal, struct, sys
where, back, other, kind = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
if kind == 'unseen': check(libc.unshare(0x20000))
fuse = os.open('/dev/fuse', os.O_RDWR)
if kind == 'instead': check(libc.umount2((where + '.before').encode(), 0))
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
        if code == 35:
            for _ in range(50):
                if (helper := os.fork()) == 0: os._exit(0)
                os.waitpid(helper, 0)
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
if kind == 'many':
    clients, (read, write) = [], os.pipe()
    for number in range(300):
        clients.append(os.fork())
        if clients[-1] == 0:
            os.close(write), os.read(read, 1)
            try: os.open('%s/%d.log' % (where, number), os.O_WRONLY)
            except FileNotFoundError: pass
            os._exit(0)
    os.close(write)
    for client in clients: os.waitpid(client, 0)
append(where + '/a.log', 20)
check(libc.umount2(where.encode(), 2))
append(other, 3)
signal.pause()
";

/// A file system in memory.
struct Tmpfs(CString);

impl Tmpfs {
    fn on(place: &Path) -> Result<Self> {
        std::fs::create_dir(place)?;
        let place = CString::new(place.as_os_str().as_bytes())?;
        let kind = c"tmpfs".as_ptr();
        // SAFETY: strings that end with zeros; no options.
        let result = unsafe { libc::mount(kind, place.as_ptr(), kind, 0, std::ptr::null()) };
        ensure!(result == 0, "{}", std::io::Error::last_os_error());
        Ok(Self(place))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // It may be gone.
        // SAFETY: a string that ends with a zero.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

/// The program, in a mount namespace of its own or not. Returns how many calls are deferred at its end.
fn behind(policy: &str, kind: &str) -> Result<u64> {
    let folder = TempDir::new()?;
    let (place, back) = (folder.path().join("mnt"), folder.path().join("back"));
    std::fs::create_dir(&place)?;
    std::fs::write(&back, "")?;
    private_mounts()?;
    let _before = (kind == "instead").then(|| Tmpfs::on(&place.with_extension("before")));
    let _before = _before.transpose()?;
    let (place, back) = (place.to_str().context("a path")?, back.to_str().context("a path")?);
    let words = ["python3", "-c", SERVES, place, back, "@b.log", kind];
    let mut run = Supervised::start(policy, LATENCY, &words)?;
    run.until(23)?;
    let lines = run.acknowledged.len();
    ensure!(lines == 23, "{kind}: {lines} lines, then nothing: {}", run.stderr());
    let told = run.stderr().matches("may serve its file system (FUSE)").count();
    ensure!(told == 1, "{kind}: told {told} times: {}", run.stderr());
    ensure!(!run.stderr().contains("cannot open it"), "{kind}: {}", run.stderr());
    pending(run.supervisor()?.0)
}

#[test]
fn nothing_is_deferred_where_a_process_of_the_command_serves() -> Result<()> {
    let _turn = heavy()?;
    // With "instead", another file system had its device until just before.
    for kind in ["seen", "unseen", "instead"] {
        // On the disk that was there before, it is.
        let found = behind(LAZY, kind)?;
        ensure!(found == 2, "{kind}: {found} calls are deferred");
        behind(AT_LEAST, kind)?;
        behind(
            "policy w\ntarget posix.log\non fdatasync: await pending < 4; defer\nflush within 50ms\n",
            kind,
        )?;
    }
    Ok(())
}

/// Each of them waits for the server, whose own calls are answered all the same.
#[test]
fn more_calls_wait_for_a_server_than_there_are_threads() -> Result<()> {
    let _turn = heavy()?;
    behind(AT_LEAST, "many").map(|_| ())
}

/// A program that serves a file system with one file, `a.log`, until it is stopped.
const STOPS: &str = "
os.write(1, b'serves\\n')
serve()
";

/// A program that has a log on that file system, of which nothing is deferred at last; stops its server; and appends to another
/// log for longer than the supervisor leaves between two looks whether a log is closed.
const BESIDE: &str = "import os, signal, sys, time
served, server, other = sys.argv[1], int(sys.argv[2]), sys.argv[3]
signal.alarm(60)
def append(path, goes_on):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    while goes_on(): os.write(fd, b'x\\n'), os.fdatasync(fd)
    return fd
lines = iter(range(3))
fd = append(served + '/a.log', lambda: next(lines, None) is not None)
time.sleep(0.3)
os.kill(server, signal.SIGSTOP)
until = time.time() + 3
append(other, lambda: time.time() < until)
os.write(1, b'fine\\n')
signal.pause()
";

#[test]
fn a_server_that_hangs_stops_no_other_log() -> Result<()> {
    let _turn = heavy()?;
    private_mounts()?;
    let folder = TempDir::new()?;
    let (place, back) = (folder.path().join("mnt"), folder.path().join("back"));
    std::fs::create_dir(&place)?;
    std::fs::write(&back, "")?;
    let (place, back) = (place.to_str().context("a path")?, back.to_str().context("a path")?);
    let (serves, _) = SERVES.split_once("server = os.fork()").context("a server")?;
    let mut server = Command::new("python3");
    server.args(["-c", &format!("{serves}{STOPS}"), place, back, "", "seen"]);
    let mut server = Killed::start(server.stdout(Stdio::piped()))?;
    let mut line = String::new();
    BufReader::new(server.stdout.take().context("a pipe")?).read_line(&mut line)?;
    ensure!(line == "serves\n", "the server says `{line}`");
    let (number, policy) = (server.id().to_string(), crate::common::window(16));
    let words = ["python3", "-c", BESIDE, place, &number, "@b.log"];
    let mut run = Supervised::start(&policy, LATENCY, &words)?;
    let said = run.until_it_says("fine\n");
    // The program's end waits for it.
    drop(server);
    said
}
