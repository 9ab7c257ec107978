//! A command under the supervisor on a disk that forgets, and what it acknowledges.

use anyhow::{Context, Result, ensure};
use durac_abi::Runtime;
use durac_core::CompileOptions;
use durac_disk::{Cut, Image, Mounted, Plan, private_mounts};
use durac_grammar::Sources;
use durac_workload::child;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
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

/// A command under the supervisor.
pub struct Supervised {
    pub child: Child,
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
        let mut command: Command = durac_tests::durac(["run", "--engine", "supervisor"])?;
        command.arg("--preload-after").arg(library).arg(object(policy, folder.path())?).arg("--");
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
        Ok(Self { child, lines, acknowledged, disk, stderr, _folder: folder })
    }

    /// Reads until so many lines are acknowledged in all, or the command has ended.
    pub fn until(&mut self, count: usize) -> Result<()> {
        let mut line = String::new();
        while self.acknowledged.len() < count && self.lines.read_line(&mut line)? > 0 {
            self.acknowledged.push(std::mem::take(&mut line));
        }
        Ok(())
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

    /// The power goes. Returns the acknowledged lines that are not in `log` afterwards.
    pub fn lose_power(self, log: &str) -> Result<Vec<String>> {
        let (acknowledged, image) = self.cut(Cut::Clean, 0)?;
        let disk = Mounted::new(image, Plan::default())?;
        let text = std::fs::read_to_string(disk.join(log)).unwrap_or_default();
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
