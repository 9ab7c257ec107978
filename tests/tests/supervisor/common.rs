//! A command under the supervisor on a disk that forgets, and what it acknowledges.

use anyhow::{Context, Result, ensure};
use durac_abi::Runtime;
use durac_core::CompileOptions;
use durac_disk::plan::Effect;
use durac_disk::{Cut, Fault, Image, Mounted, Op, Plan, private_mounts};
use durac_grammar::Sources;
use durac_shm::status::{Snapshot, Status};
use durac_workload::child;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, ErrorKind};
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What takes longer has hung.
const WITHIN: Duration = Duration::from_secs(300);

/// How long a sync takes.
pub const LATENCY: Duration = Duration::from_millis(2);
/// Of a disk so slow that calls are deferred also where each of them takes long.
pub const SLOW: Duration = Duration::from_millis(20);
/// Of one where what does not wait for a sync is over before it.
pub const SLOWEST: Duration = Duration::from_secs(1);

/// The log's policy.
pub fn window(n: u32) -> String {
    format!(
        "policy w\ntarget posix.log\non fdatasync: await pending < {n}; defer\nflush within 1s\n"
    )
}

/// Its object, compiled and not proved: a proof takes longer than the test.
pub fn object(text: &str, folder: &Path) -> Result<PathBuf> {
    let mut sources = Sources::new();
    let file = sources.add("test.dur", text);
    let options = CompileOptions::new("test").with_runtime(Runtime::Supervisor);
    let policy = durac_core::analyse(&mut sources, file, &options).policy.context("a policy")?;
    let object = durac_core::compile(&policy, &sources, file, &options)
        .map_err(|found| anyhow::anyhow!("{found:?}"))?;
    let path = folder.join("policy.o");
    std::fs::write(&path, durac_bpf::write(&object)?)?;
    Ok(path)
}

/// The programs of `unsynced.c`.
pub fn unsynced(options: &[&str]) -> Result<PathBuf> {
    let name = if options.contains(&"-static") { "unsynced-static" } else { "unsynced" };
    durac_tests::cc("unsynced.c", name, &[&["-O1"], options].concat())
}

/// The program of `tests/shims/supervised.c`.
pub fn program(options: &[&str]) -> Result<PathBuf> {
    let name = if options.contains(&"-static") { "supervised-static" } else { "supervised" };
    durac_tests::cc("supervised.c", name, &[&["-O1"], options].concat())
}

thread_local! {
    static FAULT: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Runs `body`, whose commands this thread starts, with a supervisor that has this fault.
pub fn with_fault<T>(fault: &'static str, body: impl FnOnce() -> T) -> T {
    FAULT.set(Some(fault));
    let result = body();
    FAULT.set(None);
    result
}

/// A process that does not outlive its test.
pub struct Killed(Child);

impl Killed {
    pub fn start(command: &mut Command) -> Result<Self> {
        Ok(Self(command.spawn()?))
    }
}

impl Deref for Killed {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Killed {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command under the supervisor.
pub struct Supervised {
    pub child: Killed,
    lines: BufReader<ChildStdout>,
    pub acknowledged: Vec<String>,
    pub disk: Mounted,
    stderr: PathBuf,
    _folder: TempDir,
}

impl Supervised {
    /// Starts `words`, of which `@name` is a file on the disk.
    pub fn start(policy: &str, latency: Duration, words: &[&str]) -> Result<Self> {
        private_mounts()?;
        let disk = Mounted::new(Image::new(), Plan { latency, ..Plan::default() })?;
        let folder = TempDir::with_prefix("durac-supervisor-")?;
        let library = child::beside("libdurac_disk_sync.so").context("the disk's library")?;
        let stderr = folder.path().join("stderr");
        let object = object(policy, folder.path())?;
        let mut command = match FAULT.get() {
            Some(fault) => {
                let mut command = Command::new(durac_tests::faulty_supervisor()?);
                command
                    .env("DURAC_FAULT", fault)
                    .env("RUST_BACKTRACE", "0")
                    .arg(object)
                    .arg(library);
                command
            }
            None => {
                let mut command = durac_tests::durac(["run", "--engine", "supervisor"])?;
                command.arg("--preload-after").arg(library).arg(object).arg("--");
                command
            }
        };
        for word in words {
            match word.strip_prefix('@') {
                Some(name) => command.arg(disk.join(name)),
                None => command.arg(word),
            };
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(std::fs::File::create(&stderr)?).spawn()?;
        let stdout = child.stdout.take().context("a pipe")?;
        // Room for less than a thousand lines: a command that has more to say does not end before they are read.
        // SAFETY: no pointers.
        let size = unsafe { libc::fcntl(stdout.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
        ensure!(size == 4096, "a pipe of {size} bytes: {}", std::io::Error::last_os_error());
        let lines = BufReader::with_capacity(256, stdout);
        let acknowledged = Vec::new();
        Ok(Self { child: Killed(child), lines, acknowledged, disk, stderr, _folder: folder })
    }

    /// Reads until so many lines are acknowledged in all, or the command has ended.
    pub fn until(&mut self, count: usize) -> Result<()> {
        let mut line = String::new();
        while self.acknowledged.len() < count && self.lines.read_line(&mut line)? > 0 {
            self.acknowledged.push(std::mem::take(&mut line));
        }
        Ok(())
    }

    /// Reads until it has acknowledged this line.
    pub fn until_it_says(&mut self, line: &str) -> Result<()> {
        while self.acknowledged.last().is_none_or(|last| last != line) {
            let lines = self.acknowledged.len();
            self.until(lines + 1)?;
            ensure!(self.acknowledged.len() > lines, "no `{}`: {}", line.trim(), self.stderr());
        }
        Ok(())
    }

    /// The next sync of a file fails.
    pub fn fail_sync_of(&self, file: &str) {
        let effect = Effect::Fail(libc::EIO);
        let fault = Fault { op: Op::Sync, path: file.into(), after: 0, times: Some(1), effect };
        self.disk.plan(Plan { latency: LATENCY, faults: vec![fault], room: None });
    }

    /// What it has printed on standard error.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// The supervisor and its keeper, by the line that says that it is in force.
    pub fn supervisor(&self) -> Result<(i32, i32)> {
        let pid = poll("the supervisor", || {
            let said = self.stderr();
            let (_, rest) = said.split_once("supervisor, process ")?;
            rest.split_once(')')?.0.parse::<i32>().ok()
        })?;
        let keeper = poll("the keeper", || keeper_of(pid))?;
        Ok((pid, keeper))
    }

    /// The command's end, with its status.
    pub fn end(&mut self) -> Result<std::process::ExitStatus> {
        self.until(usize::MAX)?;
        Ok(self.child.wait()?)
    }

    /// Waits until what was written to `a.log` is durable. One that has a fault because of which nothing is synced is given a
    /// shorter time; panics and delays are no such faults.
    pub fn until_durable(&self) {
        let syncs = |fault: &str| ["none", "slow-", "panic-"].iter().any(|w| fault.starts_with(w));
        let never = FAULT.get().is_some_and(|fault| !syncs(fault));
        let within = if never { Duration::from_secs(3) } else { WITHIN };
        let since = Instant::now();
        while self.disk.unsynced("a.log") > 0 && since.elapsed() < within {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The power goes. Returns the acknowledged lines that are not in `log` afterwards.
    pub fn lose_power(self, log: &str) -> Result<Vec<String>> {
        let (acknowledged, image) = self.cut(Cut::Clean, 0)?;
        let disk = Mounted::new(image, Plan::default())?;
        let text = match std::fs::read_to_string(disk.join(log)) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let there: BTreeSet<&str> = text.split_inclusive('\n').collect();
        Ok(acknowledged.into_iter().filter(|line| !there.contains(line.as_str())).collect())
    }

    /// The power goes. Returns what was acknowledged, and what is left.
    pub fn cut(mut self, cut: Cut, seed: u64) -> Result<(Vec<String>, Image)> {
        self.disk.cut();
        // The first process may wait for others, or for ever; those see errors and end.
        self.child.kill().ok();
        self.until(usize::MAX)?;
        self.child.wait()?;
        Ok((self.acknowledged, self.disk.after_cut(cut, seed)?.image))
    }
}

/// Four processes that append to `a.log`.
pub fn append(policy: &str, latency: Duration, lines: &str) -> Result<Supervised> {
    let program = program(&[])?;
    let words = [program.to_str().context("a path")?, "append", "@a.log", "4", lines];
    Supervised::start(policy, latency, &words)
}

/// A process that appends 20 lines to `a.log`, and then makes no call: it has acknowledged them.
pub fn idle(policy: &str, latency: Duration) -> Result<Supervised> {
    let program = program(&[])?;
    let words = [program.to_str().context("a path")?, "idle", "@a.log", "20"];
    let mut run = Supervised::start(policy, latency, &words)?;
    run.until(20)?;
    ensure!(run.acknowledged.len() == 20, "ended early: {}", run.stderr());
    Ok(run)
}

/// A policy that syncs nothing by itself: of 20 lines the first is durable.
pub const LAZY: &str = "policy lazy\ntarget posix.log\non fdatasync: skip\nflush within 1000s\n";

/// Starts the processes of [`idle`], of which 19 lines are deferred.
pub fn idle_behind(latency: Duration) -> Result<(Supervised, i32)> {
    let run = idle(LAZY, latency)?;
    let (supervisor, _) = run.supervisor()?;
    let pending = pending(supervisor)?;
    ensure!(pending == 19, "{pending} of 20 calls are deferred");
    Ok((run, supervisor))
}

/// A program of which one log has failed, in a process that has ended since; another log is synced if it is told to.
const FAILS: &str = "import os, sys, time
flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
def sync(fd): os.write(fd, b'x\\n'), os.fdatasync(fd), os.write(1, b'x\\n')
other = os.open(sys.argv[2], flags)
for _ in range(10): sync(other)
if os.fork() == 0:
    try:
        fd = os.open(sys.argv[1], flags)
        while True: sync(fd)
    except OSError: os._exit(0)
os.wait()
os.write(1, b'failed\\n')
while not os.path.exists(sys.argv[3]): time.sleep(0.01)
try:
    for _ in range(10): sync(other)
    os.write(1, b'fine\\n')
except OSError: os.write(1, b'stopped\\n')
";

/// It runs, and that log has failed.
pub struct Failing {
    pub run: Supervised,
}

impl Failing {
    /// Starts it, and has the log fail.
    pub fn start(policy: &str) -> Result<Self> {
        let words = ["python3", "-c", FAILS, "@a.log", "@b.log", "@go"];
        let mut run = Supervised::start(policy, LATENCY, &words)?;
        run.until(30)?;
        run.fail_sync_of("a.log");
        run.until_it_says("failed\n")?;
        Ok(Self { run })
    }

    /// Has it sync the other log. Returns the last line: whether it could.
    pub fn end(&mut self) -> Result<String> {
        std::fs::write(self.run.disk.join("go"), "")?;
        self.run.end()?;
        self.run.acknowledged.pop().context("lines")
    }
}

/// What a supervisor shows.
pub fn seen(pid: i32) -> Result<Snapshot> {
    Ok(Status::of_process(pid.try_into()?, false)?.snapshot())
}

/// Calls of all logs that are acknowledged and not durable.
pub fn pending(pid: i32) -> Result<u64> {
    Ok(seen(pid)?.logs.iter().map(|log| log.numbers.pending()).sum())
}

/// The power goes. Nothing that was acknowledged must be missing in `a.log`.
pub fn loses_nothing(run: Supervised) -> Result<()> {
    let lost = run.lose_power("a.log")?;
    ensure!(lost.is_empty(), "{} lines are lost: {lost:?}", lost.len());
    Ok(())
}

/// The keeper of a supervisor: its child.
pub fn keeper_of(pid: i32) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let is_keeper = |child: &i32| {
        let name = std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
        name.trim() == "durac-keeper"
    };
    children.split_whitespace().filter_map(|child| child.parse().ok()).find(is_keeper)
}

/// Asks until there is an answer.
pub fn poll<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let since = Instant::now();
    loop {
        if let Some(found) = ask() {
            return Ok(found);
        }
        ensure!(since.elapsed() < WITHIN, "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Kills a process that a test has started.
pub fn kill(pid: i32) {
    // SAFETY: no pointers.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}
