//! What `durac run` tells of calls that the agent cannot see, and that the process which looks for them
//! changes nothing for the command.

use anyhow::{Context, Result, ensure};
use durac_tests::server::until;
use durac_tests::{cc, durac, run, show};
use durac_workload::child;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const LOG: &str = "appendonly.aof";

fn app() -> Result<PathBuf> {
    cc("past.c", "past", &[])
}

/// A command that runs in a folder of its own until this is dropped.
struct Running {
    child: Child,
    dir: TempDir,
}

impl Running {
    /// Runs `words` under a policy that defers, with the application's kind and log behind them.
    fn start(words: &[&str], kind: &str, log: &str) -> Result<Self> {
        Self::prepared(words, &app()?, kind, log, |_| Ok(()))
    }

    fn prepared(
        words: &[&str],
        app: &Path,
        kind: &str,
        log: &str,
        prepare: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<Self> {
        let dir = TempDir::with_prefix_in("watch-", durac_tests::bin_dir()?)?;
        let mut command = durac(["run", "window", "--"])?;
        command.args(words).arg(app).args([kind, log]).current_dir(dir.path());
        let output = |name| File::create(dir.path().join(name));
        command.stdout(output("appendonly.aof.output")?).stderr(output("stderr")?);
        prepare(&mut command)?;
        Ok(Self { child: command.spawn()?, dir })
    }

    fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(self.dir.path().join("stderr"))?)
    }

    /// Waits for a line, which must come once.
    fn says(&self, line: &str) -> Result<()> {
        until(line, || {
            ensure!(self.runs(), "it has ended: {}", self.said()?);
            Ok(self.said()?.contains(line))
        })?;
        self.until_alone()?;
        ensure!(self.said()?.matches("policy `window` ").count() <= 2, "{}", self.said()?);
        ensure!(self.said()?.matches(line).count() == 1, "{}", self.said()?);
        Ok(())
    }

    /// Waits until the command runs and nobody looks at it any more.
    fn until_alone(&self) -> Result<()> {
        let log = self.dir.path().join(LOG);
        until("the log", || Ok(log.exists()))?;
        until("the end of the look", || Ok(watcher(self.child.id())?.is_none()))
    }

    fn runs(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process that looks at process `pid`.
fn watcher(pid: u32) -> Result<Option<u32>> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let is_one = words.split(|byte| *byte == 0).nth(1) == Some(b"watch-command");
        let info = fs::read_to_string(entry.path().join("fdinfo/0")).unwrap_or_default();
        let looks_at = info.lines().find_map(|line| line.strip_prefix("Pid:"));
        if is_one && looks_at.and_then(|pid| pid.trim().parse().ok()) == Some(pid) {
            return Ok(entry.file_name().to_str().and_then(|name| name.parse().ok()));
        }
    }
    Ok(None)
}

#[test]
fn a_log_that_is_written_past_the_library_is_told() -> Result<()> {
    for (words, kind) in
        [(&[][..], "raw"), (&[], "once"), (&["sh", "-c", "\"$@\"; :", "sh"], "raw")]
    {
        let running = Running::start(words, kind, LOG)?;
        running.says(
            "(`past`) makes its calls on it unseen, past the C library or by a stream of it\n",
        )?;
        let said = running.said()?;
        let begins = "durac: policy `window` does not act on `";
        ensure!(said.contains(begins) && said.contains("/appendonly.aof`: process "), "{said}");
    }
    Ok(())
}

/// A server that goes into the background is followed, though it has overwritten its environment.
#[test]
fn a_log_of_a_daemon_is_told() -> Result<()> {
    let mut running = Running::start(&[], "daemon", LOG)?;
    ensure!(running.child.wait()?.success(), "{}", running.said()?);
    let line = "(`past`) makes its calls on it unseen, past the C library or by a stream of it\n";
    until(line, || Ok(running.said()?.contains(line)))?;
    Ok(())
}

#[test]
fn an_agent_that_was_dropped_is_told() -> Result<()> {
    let running = Running::start(&["env", "-i"], "called", LOG)?;
    running.says("(`past`) runs without the agent; was its environment cleared?\n")
}

#[test]
fn a_log_that_is_never_synced_is_told() -> Result<()> {
    let running = Running::start(&[], "silent", LOG)?;
    running.says("(`past`) writes it, and no sync call has reached the agent\n")
}

#[test]
fn io_uring_beside_a_log_is_told() -> Result<()> {
    let running = Running::start(&[], "ring", LOG)?;
    running.says("(`past`) uses io_uring: policy `window` does not act on calls on `")
}

/// Nothing is told of calls that the agent sees, of files that are no logs, or of standard output.
#[test]
fn what_the_policy_acts_on_is_not_told() -> Result<()> {
    let running = Running::start(&[], "called", LOG)?;
    // Nobody looks any more, since everything is known.
    running.until_alone()?;
    ensure!(running.runs(), "{}", running.said()?);
    let said = running.said()?;
    // A busy machine may have more to say.
    ensure!(said.contains("is in force") && !said.contains(" act"), "{said}");

    let other = Running::start(&[], "raw", "other.txt")?;
    let output = Running::prepared(&[], &app()?, "output", LOG, |command| {
        let log = command.get_current_dir().context("a folder")?.join(LOG);
        command.stdout(File::create(log)?);
        Ok(())
    })?;
    for quiet in [other, output] {
        // There is no end to wait for: until a watcher that was started later has something to tell.
        let beside = Running::start(&[], "silent", LOG)?;
        beside.says("no sync call has reached the agent\n")?;
        ensure!(quiet.runs() && quiet.said()?.is_empty(), "{}", quiet.said()?);
        let watcher = watcher(quiet.child.id())?.context("nobody looks")?;
        drop(quiet);
        until("its end", || Ok(!Path::new(&format!("/proc/{watcher}")).exists()))?;
    }
    Ok(())
}

/// A program of Go's linker says so itself, when it starts.
#[test]
fn a_program_in_go_is_told() -> Result<()> {
    let program = cc("past.c", "past-go", &["-DGO"])?;
    let running = Running::prepared(&[], &program, "called", LOG, |_| Ok(()))?;
    running.until_alone()?;
    let said = running.said()?;
    let line = "durac: policy `window` does not act on the system calls that this program makes itself: \
                it is written in Go\n";
    ensure!(said.starts_with(line) && said.matches(line).count() == 1, "{said}");
    let top = run(durac(["top", &running.child.id().to_string(), "--interval", "100ms"])?)?;
    let line = "appendonly.aof: the program is written in Go: its own system calls are not seen\n";
    ensure!(top.stdout.contains(line), "{}", show(&top));
    Ok(())
}

/// The command has no child that it did not make, and no signal of one; nor as the first process of a
/// container, which all orphans become children of (root).
#[test]
fn the_command_has_no_child() -> Result<()> {
    let (app, tool) = (app()?, durac_tests::tool()?);
    let under = |before: &[&std::ffi::OsStr]| -> Result<String> {
        let mut words = before.iter();
        let mut command = child::command(&[], Path::new(words.next().context("a program")?));
        command.args(words).arg(&tool).args(["run", "window", "--"]).arg(&app).args(["alone", LOG]);
        let ended = run(command)?;
        ensure!(ended.status.success(), "{}", show(&ended));
        Ok(ended.stdout)
    };
    durac_tests::agent()?;
    let env = child::which("env")?;
    let unshare = child::which("unshare")?;
    for before in [
        &[env.as_os_str()][..],
        &[app.as_os_str(), "block".as_ref()],
        &[unshare.as_os_str(), "--pid".as_ref(), "--fork".as_ref(), "--mount-proc".as_ref()],
    ] {
        let said = under(before)?;
        ensure!(said == "-1 ECHILD 0\n", "{before:?}: {said}");
    }
    Ok(())
}

/// Whoever reads a pipe of the command sees its end when the command closes it, and a lock that the command
/// has inherited is free when it lets go of it.
#[test]
fn pipes_and_locks_are_the_commands() -> Result<()> {
    let dir = TempDir::new()?;
    let lock = dir.path().join("lock");
    let script = "exec 9>\"$1\"; flock 9; shift; exec \"$@\"";
    let mut command = child::command(&[], &child::which("sh")?);
    command.args(["-c", script, "sh"]).arg(&lock).arg(durac_tests::tool()?);
    command.args(["run", "window", "--"]).arg(app()?).args(["close", LOG]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir(dir.path());
    durac_tests::agent()?;
    let mut running = Running { child: command.spawn()?, dir };
    let mut text = String::new();
    running.child.stderr.take().context("stderr")?.read_to_string(&mut text)?;
    running.child.stdout.take().context("stdout")?.read_to_string(&mut text)?;
    ensure!(text.is_empty() && running.runs(), "{text}");
    ensure!(watcher(running.child.id())?.is_some(), "nobody looks");
    File::open(&lock)?.try_lock().context("the lock is held")?;
    Ok(())
}

/// A pipe gets the line, though nobody but the command holds it.
#[test]
fn a_pipe_is_told() -> Result<()> {
    let mut running = Running::prepared(&[], &app()?, "raw", LOG, |command| {
        command.stderr(Stdio::piped());
        Ok(())
    })?;
    let mut pipe = running.child.stderr.take().context("stderr")?;
    let mut text = Vec::new();
    while !text.ends_with(b"\n") {
        let mut byte = [0];
        ensure!(pipe.read(&mut byte)? == 1, "{}", String::from_utf8_lossy(&text));
        text.extend(byte);
    }
    let text = String::from_utf8(text)?;
    ensure!(
        text.ends_with("makes its calls on it unseen, past the C library or by a stream of it\n"),
        "{text}"
    );
    Ok(())
}

/// The administrator can do without it.
#[test]
fn nobody_looks_if_not_wanted() -> Result<()> {
    for (name, value) in [("DURAC_WATCH", "off"), ("DURAC_LOG", "quiet")] {
        let running = Running::prepared(&[], &app()?, "raw", LOG, |command| {
            command.env(name, value);
            Ok(())
        })?;
        let log = running.dir.path().join(LOG);
        until("a record", || Ok(fs::metadata(&log).is_ok_and(|meta| meta.len() > 0)))?;
        ensure!(watcher(running.child.id())?.is_none(), "{name}");
    }
    Ok(())
}
