//! What a log has deferred comes before calls on other files: the syncs, changes of names and lengths, opens and ends of the table in
//! docs/supervisor.md, by both kinds of system calls, by the process that has called and by another.

use crate::common::{LATENCY, LAZY, Supervised, kill, pending, poll};
use anyhow::{Context, Result, ensure};
use durac_tests::{cc, heavy};
use std::path::PathBuf;

/// Calls that are ordered by either kind of system call.
const BOTH: &[&str] = &[
    "fsync",
    "fdatasync",
    "again",
    "sync",
    "syncfs",
    "sync_file_range",
    "msync",
    "pwritev2",
    "io_submit",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "truncate",
    "ftruncate",
    "fallocate",
    "fallocate-grow",
    "creat",
    "open",
    "open-new",
    "openat",
    "openat2",
    "open_by_handle_at",
];
/// Those that only 32-bit programs have.
const NARROW: &[&str] = &["truncate64", "ftruncate64"];
/// Calls that change what is in a file and are no writes: ordered where writes are seen.
const CHANGES: &[&str] = &[
    "ficlone",
    "ficlonerange",
    "fideduperange",
    "move_ext",
    "exchange_range",
    "unresvsp",
    "unresvsp64",
    "zero_range",
    "madv_remove",
    "process_madvise",
];
/// Calls that are never ordered.
const NEITHER: &[&str] = &["fionread", "madv_cold"];
/// As [`LAZY`], and writes are seen. A mapping of the other file turns nothing off.
pub const SEES: &str = "target my.log { files \"*.log\"
 protects \"*.db\"
 callers many
 hook fdatasync(log: file) -> status { entry libc \"fdatasync\"
 may pass, skip } }
policy lazy
target my.log
on fdatasync: skip
flush within 1000s
";
/// Calls that change no file's name or length and make nothing durable: nothing is deferred for less.
const OTHERS: &[&str] =
    &["write", "open-read", "open-write", "fallocate-keep", "sync_file_range-begin", "msync-async"];

fn program() -> Result<PathBuf> {
    cc("ordered.c", "ordered", &["-O1"])
}

/// The program, which makes these calls, and stops after each.
struct Steps {
    run: Supervised,
    supervisor: i32,
    is_stopped: bool,
}

impl Steps {
    fn start(policy: &str, calls: &[String]) -> Result<Self> {
        let program = program()?;
        let mut words = vec![program.to_str().context("a path")?, "@a.log", "@other"];
        words.extend(calls.iter().map(String::as_str));
        let run = Supervised::start(policy, LATENCY, &words)?;
        let (supervisor, _) = run.supervisor()?;
        Ok(Self { run, supervisor, is_stopped: false })
    }

    /// The next call is made. Returns what it says, and how much is deferred after it.
    fn next(&mut self) -> Result<(String, u64)> {
        let pid = self.run.child.id().try_into()?;
        if self.is_stopped {
            // SAFETY: no pointers. It is this process' child, and stopped.
            unsafe { libc::kill(pid, libc::SIGCONT) };
        }
        let lines = self.run.acknowledged.len();
        self.run.until(lines + 1)?;
        ensure!(self.run.acknowledged.len() > lines, "ended early: {}", self.run.stderr());
        let mut status = 0;
        // SAFETY: `status` has room for it. A child that has only stopped is not collected.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::WUNTRACED) };
        ensure!(waited == pid && libc::WIFSTOPPED(status), "{status:x}: {}", self.run.stderr());
        self.is_stopped = true;
        let said = self.run.acknowledged.last().cloned().unwrap_or_default();
        Ok((said, pending(self.supervisor)?))
    }
}

/// Each of these calls comes after what is deferred, or none does.
pub fn are_ordered(calls: &[String], wanted: bool) -> Result<()> {
    are_ordered_under(LAZY, calls, wanted)
}

fn are_ordered_under(policy: &str, calls: &[String], wanted: bool) -> Result<()> {
    let mut steps = Steps::start(policy, calls)?;
    for call in calls {
        let (said, behind) = steps.next()?;
        ensure!(said.starts_with(&format!("{call}: ")), "{said} for {call}");
        ensure!((behind == 0) == wanted, "{behind} calls are deferred after {said}");
    }
    Ok(())
}

/// The calls that are ordered.
pub fn ordered() -> Vec<String> {
    let of_both = BOTH.iter().map(|call| (*call).to_owned());
    let narrow = BOTH.iter().chain(NARROW).map(|call| format!("32:{call}"));
    // By a process that has deferred nothing, and at the end of one.
    let elsewhere = ["process:rename".to_owned(), "exit".to_owned()];
    of_both.chain(narrow).chain(elsewhere).collect()
}

#[test]
fn what_is_deferred_comes_before_each_of_them() -> Result<()> {
    let _turn = heavy()?;
    are_ordered(&ordered(), true)
}

#[test]
fn other_calls_wait_for_nothing() -> Result<()> {
    let _turn = heavy()?;
    let narrow = OTHERS.iter().map(|call| format!("32:{call}"));
    are_ordered(
        &OTHERS.iter().map(|call| (*call).to_owned()).chain(narrow).collect::<Vec<_>>(),
        false,
    )
}

#[test]
fn calls_that_change_a_file_without_a_write_are_ordered_where_writes_are_seen() -> Result<()> {
    let _turn = heavy()?;
    let both = |calls: &[&str]| -> Vec<String> {
        let narrow = calls.iter().map(|call| format!("32:{call}"));
        calls.iter().map(|call| (*call).to_owned()).chain(narrow).collect()
    };
    are_ordered_under(SEES, &both(CHANGES), true)?;
    are_ordered_under(SEES, &both(NEITHER), false)?;
    are_ordered(&both(CHANGES), false)
}

/// What could not be synced is returned by the call, which is not made.
#[test]
pub fn a_call_behind_a_log_that_fails_is_not_made() -> Result<()> {
    let _turn = heavy()?;
    let mut steps = Steps::start(LAZY, &["rename", "link"].map(str::to_owned))?;
    let (said, _) = steps.next()?;
    ensure!(said == "rename: fine\n", "{said}");
    steps.run.fail_sync_of("a.log");
    let (said, _) = steps.next()?;
    ensure!(said == "link: Input/output error\n", "{said}");
    ensure!(steps.run.disk.exists("other.a") && !steps.run.disk.exists("other.b"));
    Ok(())
}

#[test]
pub fn a_descriptor_that_leads_to_another_file_by_now() -> Result<()> {
    let _turn = heavy()?;
    let program = program()?;
    let words = [program.to_str().context("a path")?, "dup", "@a.log", "@other"];
    let mut run = Supervised::start(LAZY, LATENCY, &words)?;
    run.until(1)?;
    ensure!(run.acknowledged == ["9 9\n"], "{:?}: {}", run.acknowledged, run.stderr());
    let lost = run.lose_power("other")?;
    ensure!(lost.is_empty(), "the other file is not synced");
    Ok(())
}

/// A process that is killed in its call, and another that has its number: nothing is done to the files of that one.
pub fn is_told_from_its_heir() -> Result<()> {
    let _turn = heavy()?;
    let program = program()?;
    let words = [program.to_str().context("a path")?, "reused", "@a.log", "@b.log"];
    let mut run = Supervised::start(LAZY, LATENCY, &words)?;
    kill(poll("a call of the first process", || {
        let said = run.stderr();
        let (_, thread) = said.split_once("waits for another thread ")?;
        thread.split_once('\n')?.0.parse().ok()
    })?);
    run.until(1)?;
    ensure!(run.acknowledged == ["done\n"], "{:?}: {}", run.acknowledged, run.stderr());
    // It has an open file of its own of each log.
    let files = std::fs::read_dir(format!("/proc/{}/fd", run.supervisor()?.0))?.flatten();
    let mut files = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    let other = files.find(|file| file.ends_with("b.log"));
    ensure!(other.is_none(), "a file that nobody has synced counts as a log: {other:?}");
    Ok(())
}
