//! How a command starts and ends under `durac run`: as itself.

use anyhow::{Context, Result, ensure};
use durac_tests::server::{Under, until};
use durac_tests::witness::Witness;
use durac_tests::{agent, append_log, durac, heavy, run, run_durac, show};
use durac_workload::Stop;
use std::os::unix::process::ExitStatusExt;
use tempfile::TempDir;

#[test]
fn the_exit_code_is_the_commands() -> Result<()> {
    for code in [0, 1, 2, 7, 126, 127, 255] {
        let script = format!("exit {code}");
        let ended = run_durac(["run", "window", "--", "sh", "-c", &script])?;
        ensure!(ended.status.code() == Some(code), "{}", show(&ended));
    }
    Ok(())
}

#[test]
fn a_signal_is_the_commands() -> Result<()> {
    for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGABRT, libc::SIGUSR1] {
        let script = format!("kill -{signal} $$");
        let ended = run_durac(["run", "window", "--", "sh", "-c", &script])?;
        ensure!(ended.status.signal() == Some(signal), "{}", show(&ended));
    }
    Ok(())
}

#[test]
fn arguments_and_output_are_the_commands() -> Result<()> {
    let script = "printf '<%s>' \"$@\"; echo err >&2";
    let ended = run_durac(["run", "window", "--", "sh", "-c", script, "sh", "--set", "a b", ""])?;
    ensure!(ended.stdout == "<--set><a b><>", "{}", show(&ended));
    ensure!(ended.stderr.ends_with("err\n"), "{}", show(&ended));
    Ok(())
}

#[test]
fn what_is_preloaded_already_stays_first() -> Result<()> {
    let witness = Witness::new()?;
    let inner = witness.inner().to_str().context("path")?;
    let mut command = durac(["run", "window", "--", "sh", "-c", "echo \"$LD_PRELOAD\""])?;
    let ended = run({
        command.env("LD_PRELOAD", inner);
        command
    })?;
    let agent = agent()?.canonicalize()?;
    ensure!(ended.stdout == format!("{inner}:{}\n", agent.display()), "{}", show(&ended));
    let ended = run_durac(["run", "window", "--", "sh", "-c", "echo \"$LD_PRELOAD\""])?;
    ensure!(ended.stdout == format!("{}\n", agent.display()), "{}", show(&ended));
    Ok(())
}

/// Whatever was acknowledged is on the disk when Redis has ended by itself.
#[test]
fn everything_is_synced_at_the_end() -> Result<()> {
    let _turn = heavy()?;
    for policy in ["everysec", "no", "window", "delayed_fsync", "batch", "batch_process"] {
        for how in [Stop::Shutdown, Stop::Term] {
            let mut server = Under::policy(policy).start()?;
            let acknowledged = server.write(5, 4, 400, 0).join();
            ensure!(acknowledged.total() == 2000);
            server.redis.stop(how)?;
            let unsynced = server.witness.unsynced(&server.redis.aof_dir(), "")?;
            ensure!(unsynced.is_empty(), "{policy}, {how:?}: {unsynced:?}");
        }
    }
    Ok(())
}

/// The same for a program that just returns from main, with several logs at once.
#[test]
fn an_append_log_is_synced_at_the_end() -> Result<()> {
    let _turn = heavy()?;
    let bounds = [
        ("everysec", u64::MAX),
        ("no", u64::MAX),
        ("window", 64),
        ("delayed_fsync", 1),
        ("batch", 47),
        ("batch_process", 48),
    ];
    for (policy, bound) in bounds {
        let (witness, dir) = (Witness::new()?, TempDir::new()?);
        let mut command = durac(["run", policy, "--"])?;
        command.args(witness.words()).arg(append_log()?).arg(dir.path());
        command.args(["--records", "1000", "--threads", "3"]).envs([witness.env()]);
        let ended = run(command)?;
        ensure!(ended.status.success(), "{policy}: {}", show(&ended));
        let logs = witness.logs()?;
        // One call for each record, and one when each of the three logs is emptied.
        ensure!(logs.entered == 1003 && logs.refused == 0, "{policy}: {logs:?}");
        // Each log has its own bound.
        ensure!((1..=bound).contains(&logs.max_pending), "{policy}: {logs:?}");
        let unsynced = witness.unsynced(dir.path(), "")?;
        ensure!(unsynced.is_empty(), "{policy}: {unsynced:?}");
    }
    Ok(())
}

/// Nothing acknowledged waits longer than `flush within`, even if no further call comes.
#[test]
fn an_idle_tail_is_synced() -> Result<()> {
    let _turn = heavy()?;
    for policy in ["everysec", "window", "batch", "batch_process"] {
        let server = Under::policy(policy).start()?;
        let acknowledged = server.write(1, 1, 10, 0).join();
        ensure!(acknowledged.total() == 10);
        until(&format!("{policy}: the sync of an idle tail"), || {
            Ok(server.witness.unsynced(&server.redis.aof_dir(), "")?.is_empty())
        })?;
    }
    Ok(())
}

#[test]
fn a_daemon_runs_under_the_policy() -> Result<()> {
    let _turn = heavy()?;
    let mut server = Under { daemonize: true, ..Under::policy("window") }.start()?;
    let acknowledged = server.write(5, 1, 500, 0).join();
    ensure!(acknowledged.total() == 2500);
    let logs = server.witness.logs()?;
    ensure!(logs.syncs < logs.acknowledged, "the policy was not at work: {logs:?}");
    server.reads_back(Stop::Shutdown, &[&acknowledged])?;
    server.reads_back(Stop::Kill, &[&acknowledged])
}

/// The status page is there from the first log on, and goes with the process.
#[test]
fn the_status_page_goes_with_the_process() -> Result<()> {
    let dir = TempDir::new()?;
    let status = dir.path().join("status");
    let script = "exec 3>>a.incr.aof; test -s \"$DURAC_STATUS\"";
    let mut command = durac(["run", "window", "--", "sh", "-c", script])?;
    command.env("DURAC_STATUS", &status).current_dir(dir.path());
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    ensure!(!status.exists());
    Ok(())
}
