//! A folder, a session, and stand-ins for BPFtime: what the tests of `durac load` share.

use anyhow::{Context, Result, ensure};
use durac_tests::server::until;
use durac_tests::{cc, durac, run, show};
use durac_workload::child;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// Skips every sync.
pub const NO: &str = "\
policy no
target test
target test {
    files \"*.log\"
    callers one
    hook fdatasync(log: file, failed: status) -> status {
        entry symbol \"test_fdatasync\"
        may pass, skip
    }
}
on fdatasync: skip
";

/// A policy whose syncs the kernel counts.
pub const DEFERS: &str = "\
policy delayed
target test
use kernel notify

target test {
    files \"*.log\"
    hook fdatasync(log: file, failed: status) -> status {
        entry symbol \"test_fdatasync\"
        entry barrier \"test_barrier\"
        may pass, defer, await
    }
}

on fdatasync: await previous; defer
";

pub struct Place {
    dir: TempDir,
    pub session: String,
    pub target: PathBuf,
    /// The folder with the server and the agent.
    pub bpftime: PathBuf,
    pub agent: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.memory());
        let _ = fs::remove_file(format!("/dev/shm/{}.durac", self.session));
    }
}

impl Place {
    pub fn new() -> Result<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let target = cc("bpftime/target.c", "bpftime_target", &["-rdynamic", "-pthread"])?;
        let library = ["-shared", "-fPIC"];
        let server = cc("bpftime/server.c", "libbpftime-syscall-server.so", &library)?;
        let agent = cc("bpftime/agent.c", "libbpftime-agent.so", &library)?;
        let bpftime = server.parent().context("no folder")?.to_owned();
        let session = format!("durac_test_{}_{next}", std::process::id());
        // A file of its own: loaders look for processes that run it.
        let dir = TempDir::new()?;
        let own = dir.path().join("bpftime_target");
        durac_tests::copy_program(target, &own)?;
        Ok(Self { dir, session, target: own, bpftime, agent })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn memory(&self) -> PathBuf {
        PathBuf::from(format!("/dev/shm/{}", self.session))
    }

    /// Compiles a policy for BPFtime.
    pub fn compile(&self, text: &str) -> Result<PathBuf> {
        let (from, to) = (self.path("p.dur"), self.path("p.o"));
        fs::write(&from, text)?;
        let mut command = durac(["compile", "--runtime", "bpftime", "-o"])?;
        command.arg(&to).arg(&from);
        let ended = run(command)?;
        ensure!(ended.status.success(), "{}", show(&ended));
        Ok(to)
    }

    /// `durac load`, in the session and with nothing else of BPFtime's in its environment.
    pub fn load(&self, object: &Path, more: &[&str]) -> Result<Command> {
        self.load_for(object, &self.target, more)
    }

    pub fn load_for(&self, object: &Path, target: &Path, more: &[&str]) -> Result<Command> {
        let mut command = durac(["load"])?;
        command.arg(object).arg("--bpftime").arg(&self.bpftime).arg("--target").arg(target);
        command.args(more).env("RECORD", self.path("record"));
        self.environment(&mut command);
        Ok(command)
    }

    fn environment(&self, command: &mut Command) {
        for variable in ["RUN_WITH_KERNEL", "NOT_LOAD_PATTERN", "MAX_FD_COUNT", "LOG_OUTPUT"] {
            command.env_remove(format!("BPFTIME_{variable}"));
        }
        command.env("BPFTIME_GLOBAL_SHM_NAME", &self.session).env_remove("NOTIFY_SOCKET");
    }

    /// Starts a loader, and waits until it is ready.
    pub fn loader(&self, mut command: Command) -> Result<Loader> {
        let ready = self.path("ready");
        let _ = fs::remove_file(&ready);
        let errors = self.path("errors");
        // One file for all loaders of a place, in the order that they spoke.
        let log = fs::OpenOptions::new().create(true).append(true).open(&errors)?;
        let child = command
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let mut loader = Loader { child, errors };
        until("a loader that is ready", || {
            if let Some(status) = loader.child.try_wait()? {
                anyhow::bail!("{status}: {}", loader.said());
            }
            Ok(ready.exists())
        })?;
        Ok(loader)
    }

    /// Loads a policy.
    pub fn loaded(&self, text: &str) -> Result<Loader> {
        let object = self.compile(text)?;
        self.loader(self.load(&object, &[])?)
    }

    /// The target's command, with BPFtime's agent.
    pub fn target(&self, log: &Path) -> Result<Command> {
        let mut command = self.bare_target(log);
        command.env("LD_PRELOAD", &self.agent);
        Ok(command)
    }

    pub fn bare_target(&self, log: &Path) -> Command {
        let mut command = child::command(&[], &self.target);
        command.arg(log).env_remove("LD_PRELOAD").env("NO_WAIT", "1");
        self.environment(&mut command);
        command
    }

    /// Starts it, with the log in the place's folder.
    pub fn started(&self) -> Result<Target> {
        Target::new(self.target(&self.path("x.log"))?)
    }

    pub fn record(&self) -> Result<String> {
        let path = self.path("record");
        Ok(if path.exists() { fs::read_to_string(path)? } else { String::new() })
    }
}

/// With what `durac load` says has to be set; and somewhere to pin.
pub fn with_kernel(command: &mut Command) -> Result<()> {
    command.env("BPFTIME_RUN_WITH_KERNEL", "1").env("BPFTIME_NOT_LOAD_PATTERN", "durac_.*");
    let mounts = fs::read_to_string("/proc/mounts")?;
    if !mounts.lines().any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf")) {
        let mut mount = child::command(&[], &child::which("mount")?);
        mount.args(["-t", "bpf", "bpf", "/sys/fs/bpf"]);
        let ended = run(mount)?;
        ensure!(ended.status.success(), "{} (this test needs root)", show(&ended));
    }
    // Room behind the numbers of maps of a machine on which many tests have run.
    command.env("BPFTIME_MAX_FD_COUNT", "65536");
    Ok(())
}

/// A loader that runs, and is killed if the test gives up on it.
pub struct Loader {
    child: Child,
    errors: PathBuf,
}

impl Drop for Loader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Loader {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it and those before it have written to standard error.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Waits until it says something; gives everything.
    pub fn says(&self, text: &str) -> Result<String> {
        until(&format!("a loader that says {text:?}"), || Ok(self.said().contains(text)))
            .with_context(|| self.said())?;
        Ok(self.said())
    }

    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        // SAFETY: a signal to a child that was not waited for.
        ensure!(unsafe { libc::kill(self.child.id() as i32, signal) } == 0, "cannot signal");
        Ok(())
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}: {}", self.said());
        Ok(())
    }

    /// Ends it; gives what it has written to standard output.
    pub fn end(mut self, signal: libc::c_int) -> Result<String> {
        self.signal(signal)?;
        let mut said = String::new();
        self.child.stdout.take().context("no output")?.read_to_string(&mut said)?;
        let status = self.child.wait()?;
        ensure!(status.success() || signal == libc::SIGKILL, "{status}: {}", self.said());
        Ok(said)
    }
}

/// A target that does what it is told.
pub struct Target {
    child: Child,
    letters: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub pid: u32,
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Target {
    pub fn new(mut command: Command) -> Result<Self> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        Self::of(child)
    }

    pub fn of(mut child: Child) -> Result<Self> {
        let letters = child.stdin.take().context("no input")?;
        let answers = BufReader::new(child.stdout.take().context("no output")?);
        let mut target = Self { child, letters, answers, pid: 0 };
        let ready = target.answer()?;
        target.pid = ready.strip_prefix("ready ").context(ready.clone())?.parse()?;
        Ok(target)
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Does what the letters say; gives what became of each.
    pub fn does(&mut self, letters: &str) -> Result<String> {
        let mut all = Vec::new();
        for letter in letters.chars() {
            self.letters.write_all(letter.to_string().as_bytes())?;
            self.letters.flush()?;
            all.push(self.answer()?);
        }
        Ok(all.join(" "))
    }

    /// Tells it to end; gives its exit code.
    pub fn quits(mut self) -> Result<Option<i32>> {
        self.letters.write_all(b"q")?;
        Ok(self.child.wait()?.code())
    }

    /// The process that the test has started: the target, or its loader.
    pub fn started(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        // SAFETY: a signal to a process that was not waited for, or whose loader has not.
        ensure!(unsafe { libc::kill(self.pid as i32, signal) } == 0, "cannot signal");
        Ok(())
    }

    pub fn wait(mut self) -> Result<Option<i32>> {
        Ok(self.child.wait()?.code())
    }
}
