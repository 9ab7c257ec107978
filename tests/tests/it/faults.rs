//! A disk that fails: Redis learns of it as it does without a policy, and ends the same way.

use anyhow::{Context, Result, ensure};
use durac_tests::server::{Server, Under};
use durac_tests::{heavy, needs_root, run};
use durac_workload::{Stop, child};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const POLICIES: [&str; 6] =
    ["always", "delayed_fsync", "fast_notify", "window", "batch", "batch_process"];

/// How Redis ended, and what it said about it.
#[derive(Debug)]
struct End {
    code: Option<i32>,
    signal: Option<i32>,
    /// The line that says why it ends.
    why: String,
    /// Everything it logged.
    log: String,
}

/// Writes until the server ends by itself.
fn end(server: &mut Server) -> Result<End> {
    let acknowledged = server.write(5, 1, u64::MAX, 0).join();
    ensure!(!acknowledged.errors.is_empty());
    let status = server.redis.wait(Duration::from_secs(300))?.context("a status")?;
    let log = server.redis.log();
    let why = log.lines().rev().find(|line| line.contains("Exiting")).context("no reason")?;
    // In front stand the pid and the time.
    let why = why.split_once(" # ").map_or(why, |(_, why)| why).to_owned();
    Ok(End { code: status.code(), signal: status.signal(), why, log })
}

/// Redis ends under each policy as it does without: by itself, with the same code, one of the
/// reasons, and the error of the disk in its log.
fn same_as_without(fault: (&str, &str), reasons: &[&str], error: &str) -> Result<()> {
    let _turn = heavy()?;
    let with = |under: Under| end(&mut under.env(fault.0, fault.1).start()?);
    let expected = with(Under::nothing())?;
    ensure!(expected.code == Some(1) && expected.log.contains(error), "{expected:?}");
    ensure!(reasons.first().is_some_and(|why| expected.why.contains(why)), "{expected:?}");
    for policy in POLICIES {
        let found = with(Under::policy(policy))?;
        ensure!((found.code, found.signal) == (Some(1), None), "{policy}: {found:?}");
        ensure!(reasons.iter().any(|why| found.why.contains(why)), "{policy}: {found:?}");
        ensure!(found.log.contains(error), "{policy}: {found:?}");
    }
    Ok(())
}

/// What Redis says when a sync fails; and when a write fails, which is the call that learns of a
/// failed background sync if it comes first.
const SYNC_OR_WRITE: [&str; 2] = ["Can't persist AOF for fsync error", "AOF write error"];

#[test]
fn failed_syncs() -> Result<()> {
    same_as_without(("DURAC_TEST_EIO_AFTER", "200"), &SYNC_OR_WRITE, "Input/output error")
}

/// Linux reports a failed sync once; the next one succeeds although the data is gone. It must
/// stay failed.
#[test]
fn one_failed_sync() -> Result<()> {
    same_as_without(("DURAC_TEST_EIO_ONCE", "200"), &SYNC_OR_WRITE, "Input/output error")
}

#[test]
fn no_space_for_a_write() -> Result<()> {
    // A write that was staged fails when a sync needs it.
    let reasons = ["AOF write error", "Can't persist AOF for fsync error"];
    same_as_without(("DURAC_TEST_ENOSPC_AFTER", "200"), &reasons, "No space left on device")
}

/// After a failed background sync at most the calls that were under way are acknowledged; the
/// next call learns of it.
#[test]
fn a_failed_sync_is_the_next_calls_error() -> Result<()> {
    let _turn = heavy()?;
    for (policy, bound) in [("delayed_fsync", 1), ("window", 64)] {
        let mut server = Under::policy(policy).env("DURAC_TEST_EIO_ONCE", "200").start()?;
        end(&mut server)?;
        let logs = server.witness.logs()?;
        ensure!(logs.failed > 0 && logs.refused > 0, "{policy}: {logs:?}");
        ensure!(logs.max_pending <= bound, "{policy}: {logs:?}");
    }
    Ok(())
}

/// A file system of a few megabytes in memory, which nobody else sees.
struct Small {
    dir: TempDir,
}

impl Small {
    fn mount() -> Result<Self> {
        // It goes away with this thread, however the process ends.
        durac_disk::private_mounts()?;
        let small = Self { dir: TempDir::with_prefix("durac-small-")? };
        let mut command = child::command(&[], &child::which("mount")?);
        command.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(small.path());
        let ended = run(command)?;
        ensure!(ended.status.success(), "{}", ended.stderr);
        Ok(small)
    }

    fn grow(&self) -> Result<()> {
        let mut command = child::command(&[], &child::which("mount")?);
        command.args(["-o", "remount,size=64m"]).arg(self.path());
        ensure!(run(command)?.status.success());
        Ok(())
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Ok(umount) = child::which("umount") {
            let mut command = child::command(&[], &umount);
            command.arg("-l").arg(self.path());
            // If it was never mounted there is nothing to undo.
            let _ = run(command);
        }
    }
}

/// The disk is full. Redis ends as without a policy, and when there is space again its log is
/// whole, with everything that was acknowledged.
#[test]
fn a_full_disk() -> Result<()> {
    if !needs_root("no small file system can be mounted") {
        return Ok(());
    }
    let _turn = heavy()?;
    let mut ends = Vec::new();
    // What was staged cannot be written any more: at most the calls of a batch, of five clients.
    for (policy, engine, lost) in [
        (None, "", 0),
        (Some("always"), "", 0),
        (Some("delayed_fsync"), "", 0),
        (Some("window"), "", 0),
        (Some("everysec"), "", 0),
        (Some("batch"), "thread", 47 * 5),
        (Some("batch"), "io_uring", 47 * 5),
        (Some("batch_process"), "io_uring", 48 * 5),
    ] {
        let small = Small::mount()?;
        let under = policy.map_or_else(Under::nothing, Under::policy);
        let data: PathBuf = small.path().join("data");
        let under = under.env("DURAC_ENGINE", engine);
        let mut server = Under { data: Some(data), ..under }.start()?;
        let acknowledged = server.write(5, 1, u64::MAX, 0).join();
        let status = server.redis.wait(Duration::from_secs(300))?.context("a status")?;
        ensure!(acknowledged.total() > 1000, "{policy:?}: {acknowledged:?}");
        ends.push(status);
        small.grow()?;
        server.restart()?;
        let missing = acknowledged.missing(&mut server.redis.client()?)?;
        ensure!(missing.len() <= lost, "{policy:?} {engine}: {} are missing", missing.len());
        server.redis.stop(Stop::Shutdown)?;
    }
    ensure!(ends.iter().all(|end| Some(end) == ends.first()), "{ends:?}");
    Ok(())
}
