//! Limits of the command (setrlimit(2)) that its supervisor inherits: they do not end it, and what it cannot do is told.

use crate::common::{Killed, keeper_of, kill, object, poll, window};
use anyhow::{Context, Result, ensure};
use durac_tests::durac;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The size that a file may have, bytes: the object of a policy fits, and the status page does not.
const MOST: u64 = 64 << 10;

/// A log that is written in place, which is told after some syncs. Then it prints whether the supervisor and its keeper are
/// there: they have its standard error.
const IN_PLACE: &str = "import os
fd = os.open('a.log', os.O_CREAT | os.O_WRONLY)
for _ in range(100): os.pwrite(fd, b'x', 0), os.fdatasync(fd)
def of(pid):
    words = open(f'/proc/{pid}/cmdline').read().split('\\0')
    own = os.readlink(f'/proc/{pid}/fd/2') == os.readlink('/proc/self/fd/2')
    return open(f'/proc/{pid}/comm').read().strip() if own and 'supervise-command' in words else None
def named(pid):
    try: return of(pid)
    except OSError: return None
names = list(filter(None, map(named, filter(str.isdigit, os.listdir('/proc')))))
print(len(names), names.count('durac-keeper'))
";

/// `durac run` with these limits, as prlimit(1) reads them. Root cannot go above them either (`CAP_SYS_RESOURCE`).
fn limited(limits: &[&str], folder: &Path, command: &[&str]) -> Result<Command> {
    let durac = durac(["run", "--engine", "supervisor"])?;
    let mut run = Command::new("setpriv");
    run.args(["--inh-caps=-sys_resource", "--bounding-set=-sys_resource", "prlimit", "--core=0"]);
    run.args(limits).arg("--").arg(durac.get_program()).args(durac.get_args());
    run.arg(folder.join("policy.o")).arg("--").args(command);
    run.current_dir(folder).env_remove("LD_PRELOAD").stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(run)
}

/// The file to which its lines go comes to its limit, with any of them.
#[test]
fn standard_error_in_a_file_at_its_limit() -> Result<()> {
    if !durac_tests::needs_root("a capability is given up") {
        return Ok(());
    }
    let folder = TempDir::new()?;
    object(&window(64), folder.path())?;
    // The supervisor raises the soft limit; with a hard one it has no status page.
    for limit in [format!("--fsize={MOST}:"), format!("--fsize={MOST}")] {
        for room in (0..=540).step_by(90) {
            // The supervisor of the run before may not have ended.
            let stderr = folder.path().join(format!("{room} {limit}"));
            File::create(&stderr)?.set_len(MOST - room)?;
            let mut run = limited(&[&limit], folder.path(), &["python3", "-c", IN_PLACE])?;
            run.stderr(OpenOptions::new().append(true).open(&stderr)?);
            let ended = run.output()?;
            let said = String::from_utf8_lossy(&ended.stdout);
            ensure!(ended.status.success(), "{limit} {room}: {} {said}", ended.status);
            ensure!(said == "2 1\n", "{limit} {room}: {said}");
        }
    }
    Ok(())
}

/// Lines of a process, up to one that has this.
fn until(lines: &mut impl Iterator<Item = std::io::Result<String>>, what: &str) -> Result<String> {
    loop {
        let line = lines.next().with_context(|| format!("no `{what}`"))??;
        if line.contains(what) {
            return Ok(line);
        }
        ensure!(!line.contains("the supervisor is gone"), "{line}");
    }
}

/// What a process has to hand over does not fit into a file.
#[test]
fn another_version_does_not_come_where_files_are_limited() -> Result<()> {
    if !durac_tests::needs_root("a capability is given up") {
        return Ok(());
    }
    let folder = TempDir::new()?;
    object(&window(64), folder.path())?;
    // Once without a limit: then `durac run` has stored the object.
    let stored = limited(&[], folder.path(), &["true"])?.output()?;
    ensure!(stored.status.success(), "{}", String::from_utf8_lossy(&stored.stderr));
    let mut run = limited(
        &["--fsize=1024"],
        folder.path(),
        // Its standard error ends with the supervisor and the keeper.
        &["sh", "-c", "exec sleep 3600 2>&-"],
    )?;
    let mut child = Killed::start(run.stderr(Stdio::piped()))?;
    let mut lines = BufReader::new(child.stderr.take().context("a pipe")?).lines();
    until(&mut lines, "no status page: File too large")?;
    let line = until(&mut lines, "supervisor, process ")?;
    let pid = line.split_once("process ").and_then(|(_, rest)| rest.split_once(')'));
    let pid: i32 = pid.context("a number")?.0.parse()?;
    // SAFETY: no pointers.
    unsafe { libc::kill(pid, libc::SIGUSR2) };
    let line = until(&mut lines, "the supervisor stays as it is")?;
    ensure!(line.contains("File too large"), "{line}");
    ensure!(keeper_of(pid).is_some());
    // It ends with its command.
    drop(child);
    ensure!(lines.all(|line| line.is_ok_and(|line| !line.contains("gone"))));
    Ok(())
}

/// The supervisor of a command that may have few files open has no descriptor to look at them: the reason says so.
#[test]
fn too_few_descriptors_to_start() -> Result<()> {
    if !durac_tests::needs_root("a capability is given up") {
        return Ok(());
    }
    let folder = TempDir::new()?;
    object(&window(64), folder.path())?;
    let mut said = Vec::new();
    for most in 8..16 {
        let limit = format!("--nofile={most}");
        let ended = limited(&[&limit], folder.path(), &["true"])?.output()?;
        said.push(String::from_utf8_lossy(&ended.stderr).into_owned());
    }
    let of = |what: &str| said.iter().filter(|said| said.contains(what)).count();
    ensure!(of("is a limit too low (`ulimit -n`)?") > 0 && of("pidfd_getfd") == 0, "{said:#?}");
    Ok(())
}

/// Processor time, the number of descriptors and the size of files are limited for each process of the command; what all of
/// them call takes the time of one supervisor.
#[test]
fn limits_of_the_command_do_not_end_its_supervisor() -> Result<()> {
    if !durac_tests::needs_root("a capability is given up") {
        return Ok(());
    }
    let folder = TempDir::new()?;
    object(&window(64), folder.path())?;
    let limits = ["--cpu=77:88", "--fsize=1000000:2000000", "--nofile=66:99"];
    let mut run = limited(&limits, folder.path(), &["sleep", "3600"])?;
    let mut child = Killed::start(run.stderr(Stdio::piped()))?;
    let mut lines = BufReader::new(child.stderr.take().context("a pipe")?).lines();
    let line = until(&mut lines, "supervisor, process ")?;
    let pid = line.split_once("process ").and_then(|(_, rest)| rest.split_once(')'));
    let pid: i32 = pid.context("a number")?.0.parse()?;
    let keeper = poll("the keeper", || keeper_of(pid))?;
    let command = i32::try_from(child.id())?;
    let raised = |resource: libc::__rlimit_resource_t, pid| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the structure is there.
        unsafe { libc::prlimit(pid, resource, std::ptr::null(), &raw mut limit) };
        limit.rlim_cur == limit.rlim_max
    };
    for resource in [libc::RLIMIT_CPU, libc::RLIMIT_FSIZE, libc::RLIMIT_NOFILE] {
        let each = [pid, keeper, command].map(|pid| raised(resource, pid));
        ensure!(each == [true, true, false], "{resource}: {each:?}");
    }
    let ignored = |pid, signal: i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        set.is_some_and(|set| set & 1 << (signal - 1) != 0)
    };
    for signal in [libc::SIGXCPU, libc::SIGXFSZ, libc::SIGTTOU] {
        let each = [pid, keeper, command].map(|pid| ignored(pid, signal));
        ensure!(each == [true, true, false], "{signal}: {each:?}");
    }
    kill(command);
    Ok(())
}
