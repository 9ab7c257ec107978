//! Deaths of the supervisor and of its keeper, under load; a disk that fails; what is refused.

use crate::common::{LATENCY, Supervised, keeper_of, kill, poll, program, window};
use anyhow::{Result, ensure};
use durac_disk::plan::Effect;
use durac_disk::{Fault, Op, Plan};
use durac_tests::{copy_program, heavy};

fn four_processes(lines: &str) -> Result<Supervised> {
    let program = program(&[])?;
    let words = [program.to_str().unwrap(), "append", "@a.log", "4", lines];
    Supervised::start(&window(32), LATENCY, &words)
}

#[test]
fn the_command_outlives_a_supervisor_that_is_killed() -> Result<()> {
    let _turn = heavy()?;
    let mut run = four_processes("400")?;
    run.until(100)?;
    let (supervisor, _) = run.supervisor()?;
    kill(supervisor);
    let status = run.end()?;
    ensure!(status.success(), "{status}: {}", run.stderr());
    ensure!(run.stderr().contains("the supervisor is gone"), "{}", run.stderr());
    ensure!(run.acknowledged.len() == 1600);
    let lost = run.lose_power("a.log")?;
    ensure!(lost.is_empty(), "{lost:?}");
    Ok(())
}

#[test]
fn what_was_deferred_is_synced_when_the_supervisor_dies() -> Result<()> {
    let _turn = heavy()?;
    let program = program(&[])?;
    // It then waits, and syncs nothing itself.
    let words = [program.to_str().unwrap(), "idle", "@a.log", "20"];
    let mut run = Supervised::start(&window(64).replace("1s", "1000s"), LATENCY, &words)?;
    let (supervisor, _) = run.supervisor()?;
    run.until(20)?;
    kill(supervisor);
    poll("the keeper's line", || run.stderr().contains("the supervisor is gone").then_some(()))?;
    let lost = run.lose_power("a.log")?;
    ensure!(lost.is_empty(), "{lost:?}");
    Ok(())
}

#[test]
fn what_was_deferred_is_synced_when_the_command_is_killed() -> Result<()> {
    let _turn = heavy()?;
    let program = program(&[])?;
    let words = [program.to_str().unwrap(), "idle", "@a.log", "20"];
    let mut run = Supervised::start(&window(64).replace("1s", "1000s"), LATENCY, &words)?;
    let (supervisor, _) = run.supervisor()?;
    run.until(20)?;
    run.child.kill()?;
    run.child.wait()?;
    let program = format!("/proc/{supervisor}/exe");
    poll("the supervisor's end", || std::fs::read_link(&program).is_err().then_some(()))?;
    let lost = run.lose_power("a.log")?;
    ensure!(lost.is_empty(), "{lost:?}");
    Ok(())
}

#[test]
fn a_keeper_that_is_killed_is_replaced() -> Result<()> {
    let _turn = heavy()?;
    let mut run = four_processes("400")?;
    run.until(50)?;
    let (supervisor, keeper) = run.supervisor()?;
    kill(keeper);
    poll("another keeper", || keeper_of(supervisor).filter(|pid| *pid != keeper))?;
    kill(supervisor);
    let status = run.end()?;
    ensure!(status.success(), "{status}: {}", run.stderr());
    Ok(())
}

#[test]
fn a_supervisor_that_is_told_to_stop_defers_no_more() -> Result<()> {
    let _turn = heavy()?;
    let mut run = four_processes("100000")?;
    run.until(50)?;
    let (supervisor, _) = run.supervisor()?;
    // SAFETY: no pointers.
    unsafe { libc::kill(supervisor, libc::SIGTERM) };
    poll("the policy's end", || run.stderr().contains("the policy is off").then_some(()))?;
    let already = run.acknowledged.len();
    // More than the pipe holds: some were called for after it.
    run.until(already + 1000)?;
    let lost = run.lose_power("a.log")?;
    ensure!(lost.is_empty(), "{lost:?}");
    Ok(())
}

#[test]
fn a_failed_sync_is_returned_to_every_process() -> Result<()> {
    let _turn = heavy()?;
    let mut run = four_processes("100000")?;
    run.until(50)?;
    let effect = Effect::Fail(libc::EIO);
    let fault = Fault { op: Op::Sync, path: "a.log".into(), after: 0, times: Some(1), effect };
    run.disk.plan(Plan { latency: LATENCY, faults: vec![fault], room: None });
    let status = run.end()?;
    ensure!(status.code() == Some(2), "{status}");
    let told = run.stderr().matches("fdatasync: Input/output error").count();
    ensure!(told == 4, "{told} of 4 processes were told: {}", run.stderr());
    Ok(())
}

#[test]
fn a_program_that_relies_on_its_syncs_is_warned_of() -> Result<()> {
    let folder = tempfile::TempDir::new()?;
    let etcd = folder.path().join("etcd");
    copy_program(program(&[])?, &etcd)?;
    let mut run = Supervised::start(&window(8), LATENCY, &[etcd.to_str().unwrap(), "ring"])?;
    run.end()?;
    ensure!(run.stderr().contains("should not run under a policy"), "{}", run.stderr());
    Ok(())
}

#[test]
fn a_ring_is_refused_and_told() -> Result<()> {
    let program = program(&[])?;
    let mut run = Supervised::start(&window(8), LATENCY, &[program.to_str().unwrap(), "ring"])?;
    ensure!(run.end()?.success());
    ensure!(run.acknowledged == ["Function not implemented\n"], "{:?}", run.acknowledged);
    ensure!(run.stderr().contains("io_uring is refused"), "{}", run.stderr());
    Ok(())
}
