//! `durac upgrade` when something else happens: the keeper or the supervisor is killed, a program leaves another behind, a
//! policy has stopped all logs, the number is that of another process.

use crate::common::{Failing, LATENCY, SLOW, append, keeper_of, kill, object, poll, window};
use crate::upgrade::{ask_for, copy, meanwhile, script, takes_over, upgrade};
use anyhow::{Context, Result, ensure};
use durac_disk::Cut;
use durac_tests::{heavy, run_durac, show, tool};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// Without a keeper nobody would hold the calls of the command while the process changes.
#[test]
fn a_keeper_that_dies_while_a_program_is_tried_is_replaced_first() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let durac = tool()?.display().to_string();
    let text = format!(
        "case \"$*\" in *--try*) ;; *) exit 1;; esac\n\
         for child in $(cat /proc/$PPID/task/$PPID/children); do\n\
         grep -q durac-keeper /proc/$child/comm && kill -9 $child\ndone\nexec {durac} \"$@\""
    );
    let kills = script(folder.path(), "kills", &text)?;
    let mut run = append(&window(8), LATENCY, "1500")?;
    run.until(100)?;
    let (pid, keeper) = run.supervisor()?;
    let said = meanwhile(&mut run, move || ask_for(&kills, pid))?;
    let said = said.context("it took over without a keeper")?;
    ensure!(said.contains("its keeper has ended"), "{said}");
    poll("another keeper", || keeper_of(pid).filter(|now| *now != keeper))?;
    let durac = copy(folder.path(), "durac")?;
    meanwhile(&mut run, move || takes_over(&durac, pid))?;
    let status = run.end()?;
    ensure!(status.success() && run.acknowledged.len() == 6000, "{status}: {}", run.stderr());
    Ok(())
}

/// Whenever it is killed, one of the keepers goes on.
#[test]
fn a_supervisor_that_is_killed_while_another_takes_over_fails_no_call() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    for (round, after) in [0, 15, 30, 45, 60, 75, 90, 110, 140].into_iter().enumerate() {
        let durac = copy(folder.path(), &format!("durac-{round}"))?;
        let mut run = append(&window(8), LATENCY, "400")?;
        run.until(100)?;
        let (pid, _) = run.supervisor()?;
        meanwhile(&mut run, move || {
            let change = thread::spawn(move || upgrade(&durac, pid));
            thread::sleep(Duration::from_millis(after));
            kill(pid);
            // It says what became of it, or that there is no such process.
            let _ = change.join();
            Ok(())
        })?;
        let status = run.end()?;
        let said = run.stderr();
        ensure!(status.success() && run.acknowledged.len() == 1600, "{after} ms: {status}: {said}");
        ensure!(said.contains("the supervisor is gone"), "{after} ms: {said}");
        let lost = run.lose_power("a.log")?.len();
        ensure!(lost <= 8, "{after} ms: {lost} lost under a bound of 8");
    }
    Ok(())
}

#[test]
fn what_a_program_leaves_behind_does_not_hold_up_the_supervisor() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let (durac, left) = (tool()?.display().to_string(), folder.path().join("left"));
    let text = format!(
        "case \"$*\" in *--try*) sleep 30 & echo $! > {};; esac\nexec {durac} \"$@\"",
        left.display()
    );
    let leaves = script(folder.path(), "leaves", &text)?;
    let mut run = append(&window(8), LATENCY, "1000000")?;
    run.until(100)?;
    let (pid, _) = run.supervisor()?;
    let said = meanwhile(&mut run, move || ask_for(&leaves, pid))?;
    ensure!(said.is_none(), "{said:?}");
    let left: i32 = std::fs::read_to_string(&left)?.trim().parse()?;
    // One that has ended has no words any more.
    let words = std::fs::read_to_string(format!("/proc/{left}/cmdline")).unwrap_or_default();
    ensure!(words.starts_with("sleep"), "the supervisor has waited for its end");
    kill(left);
    drop(run.cut(Cut::Clean, 0)?);
    Ok(())
}

/// The error of a log whose processes are gone still stops the others.
#[test]
fn a_policy_that_has_stopped_all_logs_keeps_the_old_program() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let durac = copy(folder.path(), "durac")?;
    let mut run =
        Failing::start("policy stops\ntarget posix.log\non fdatasync: pass\non error: stop\n")?;
    let (pid, _) = run.run.supervisor()?;
    let ended = upgrade(&durac, pid)?;
    let last = run.end()?;
    ensure!(last == "stopped\n", "the other log goes on: {last}{}", show(&ended));
    let says = "a log has failed (Input/output error";
    ensure!(ended.status.code() == Some(1) && ended.stderr.contains(says), "{}", show(&ended));
    Ok(())
}

/// So it does after another program has taken over: a policy that would stop all logs at once is refused.
#[test]
pub fn an_error_is_known_to_the_program_that_takes_over() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let durac = copy(folder.path(), "durac")?;
    let passes = "policy passes\ntarget posix.log\non fdatasync: pass\n";
    let stops = object(&format!("{passes}on error: stop\n"), folder.path())?;
    let mut run = Failing::start(passes)?;
    let (pid, _) = run.run.supervisor()?;
    takes_over(&durac, pid)?;
    let ended = run_durac(["reload", stops.to_str().context("a path")?, &pid.to_string()])?;
    let last = run.end()?;
    ensure!(last == "fine\n", "{last}");
    let says = "a log has failed (Input/output error";
    ensure!(ended.status.code() == Some(1) && ended.stderr.contains(says), "{}", show(&ended));
    Ok(())
}

/// What was tried takes over, though another program is at its path by then.
#[test]
pub fn a_program_that_is_replaced_while_it_is_tried() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let (durac, place) = (tool()?.display().to_string(), folder.path().join("swapped"));
    script(folder.path(), "other", "exit 1")?;
    let text = format!(
        "case \"$*\" in *--try*) mv {}/other {};; esac\nexec {durac} \"$@\"",
        folder.path().display(),
        place.display()
    );
    script(folder.path(), "swapped", &text)?;
    let mut run = append(&window(8), LATENCY, "1000000")?;
    run.until(100)?;
    let (pid, _) = run.supervisor()?;
    let said = meanwhile(&mut run, move || ask_for(&place, pid))?;
    ensure!(said.is_none(), "{said:?}");
    let said = poll("what became of it", || {
        let said = run.stderr();
        (said.contains("has taken over") || said.contains("is gone")).then_some(said)
    })?;
    ensure!(!said.contains("is gone"), "another program took over: {said}");
    let lost = run.lose_power("a.log")?.len();
    ensure!(lost <= 8, "{lost} lost under a bound of 8");
    Ok(())
}

/// SIGUSR2 ends a process that does not expect it.
#[test]
fn only_supervisors_are_sent_a_signal() -> Result<()> {
    let _turn = heavy()?;
    let mut run = append(&window(8), SLOW, "100000")?;
    run.until(20)?;
    let (_, keeper) = run.supervisor()?;
    let mut other = Command::new("perl")
        .args(["-e", "$| = 1; print \"x\"; sleep 60", "supervise-command"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut byte = [0];
    std::io::Read::read_exact(other.stdout.as_mut().context("a pipe")?, &mut byte)?;
    for pid in [other.id(), keeper.try_into()?] {
        let ended = run_durac(["upgrade", &pid.to_string()])?;
        ensure!(ended.status.code() == Some(1), "{}", show(&ended));
        ensure!(!ended.stderr.contains("version"), "{}", show(&ended));
    }
    ensure!(other.try_wait()?.is_none(), "the other process has ended");
    other.kill()?;
    other.wait()?;
    drop(run.cut(Cut::Clean, 0)?);
    Ok(())
}

/// Two versions at once: each says of itself only that it has taken over, and who asks for another policy meanwhile is told.
#[test]
fn several_tools_at_once_say_what_is_so() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let durac = [copy(folder.path(), "one")?, copy(folder.path(), "two")?];
    let second = object(&window(4), folder.path())?;
    let mut run = append(&window(8), LATENCY, "1000000")?;
    run.until(100)?;
    let (pid, _) = run.supervisor()?;
    let claimed = meanwhile(&mut run, move || {
        let tools = durac.map(|durac| {
            thread::spawn(move || -> Result<usize> {
                let mut claimed = 0;
                for _ in 0..8 {
                    let ended = upgrade(&durac, pid)?;
                    let own = format!("`{}` (durac ", durac.display());
                    let said = ended.stdout.contains(&own);
                    ensure!(said == ended.status.success(), "{}", show(&ended));
                    claimed += usize::from(said);
                }
                Ok(claimed)
            })
        });
        for _ in 0..8 {
            let path = second.to_str().context("a path")?;
            let ended = run_durac(["reload", path, &pid.to_string()])?;
            ensure!(!ended.stderr.contains("does not answer"), "{}", show(&ended));
        }
        let claimed = tools.into_iter().map(|tool| tool.join().ok().context("a panic")?);
        Ok(claimed.collect::<Result<Vec<_>>>()?.iter().sum::<usize>())
    })?;
    let said = run.stderr();
    let took = said.matches("has taken over").count();
    ensure!(claimed > 0 && claimed <= took, "{claimed} claimed, {took} took over: {said}");
    let lost = run.lose_power("a.log")?.len();
    ensure!(lost <= 8, "{lost} lost under a bound of 8");
    Ok(())
}
