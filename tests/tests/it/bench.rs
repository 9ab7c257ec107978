//! `durac bench`, small: that it measures and reports, not what.

use anyhow::{Context, Result, ensure};
use durac_tests::{append_log, durac, heavy, run, show};
use durac_workload::Report;
use durac_workload::browser::{self, Layout};
use durac_workload::sys;
use std::path::Path;
use std::process::Stdio;
use tempfile::TempDir;

fn bench(workload: &str) -> Result<()> {
    let _turn = heavy()?;
    append_log()?;
    let dir = TempDir::new()?;
    let [json, csv, html] =
        ["json", "csv", "html"].map(|kind| dir.path().join("bench").with_extension(kind));
    let mut command = durac(["bench", "delayed_fsync", "window:n=16", "external_synchrony"])?;
    command.args(["--rounds", "2"]);
    command.args(["-c", "2", "-n", "500", "--workload", workload, "--json"]).arg(&json);
    command.arg("--csv").arg(&csv).arg("--html").arg(&html);
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let report = Report::read_json(&json)?;
    let own = if workload == "append-log" { 3 } else { 4 };
    let modes = own + 3;
    ensure!(report.rows.len() == modes && report.samples.len() == 2 * modes, "{report:?}");
    // Replies of the last are held: a power loss takes any number of syncs, and none that a client has seen.
    let policies = [(Some(1), Some(1)), (Some(16), Some(16)), (None, Some(0))];
    for (index, row) in report.rows.iter().enumerate() {
        let policy = index.checked_sub(own).and_then(|index| policies.get(index));
        // Redis' own modes are counted too, but for the one without a log. The append log can end before
        // its counters are found.
        let syncs = row.syncs_per_second.map(|spread| spread.median);
        ensure!(workload == "append-log" || syncs.is_some() == (row.mode != "no log"), "{row:?}");
        ensure!(syncs > Some(0.0) || row.mode != "always", "{row:?}");
        ensure!(ended.stdout.contains(&row.mode), "{}", show(&ended));
        ensure!(row.to_always.is_some() && !row.stated_loss.is_empty(), "{row:?}");
        ensure!(row.max_pending.is_some() == policy.is_some(), "{row:?}");
        let Some(&(bound, to_clients)) = policy else { continue };
        ensure!((row.bound, row.bound_to_clients) == (bound, to_clients), "{row:?}");
        ensure!(bound.is_none() || row.max_pending <= bound, "{row:?}");
    }
    let csv = std::fs::read_to_string(&csv)?;
    ensure!(csv.lines().count() == modes + 1 && csv.contains("window n=16,2,1,2,"), "{csv}");
    shows(&html, modes)
}

/// A browser draws every mode, twice, and has nothing to complain about.
fn shows(page: &Path, modes: usize) -> Result<()> {
    let html = std::fs::read_to_string(page)?;
    let (document, console) = browser::open(&html, "1200,900")?;
    ensure!(console.is_empty(), "{console:?}");
    // Of each drawing, one is for telephones.
    ensure!(document.matches("<svg").count() == 4, "{document}");
    ensure!(document.matches("class=\"best\"").count() == 2 * modes, "{document}");
    ensure!(document.matches("class=\"clients\"").count() == 2, "{document}");
    ensure!(document.matches("class=\"ours\"").count() == 2 * modes, "{document}");
    ensure!(document.matches("<tr>").count() == modes + 1, "{document}");
    ensure!(!document.contains("NaN") && !document.contains("{{"), "{document}");
    for width in [1600, 1280, 1024, 768, 420] {
        let Layout { found, tables, drawings } = browser::layout(&html, width)?;
        ensure!(found.is_empty() && (tables, drawings) == (1, 2), "{width}: {found:#?}");
    }
    Ok(())
}

#[test]
fn on_redis() -> Result<()> {
    bench("redis")
}

#[test]
fn on_redis_with_reads() -> Result<()> {
    bench("mix")
}

#[test]
fn on_the_append_log() -> Result<()> {
    bench("append-log")
}

#[test]
fn what_recording_costs() -> Result<()> {
    let _turn = heavy()?;
    for workload in ["redis", "append-log"] {
        append_log()?;
        let args = ["bench", "window", "--record", "--rounds", "1", "-c", "2", "-n", "300"];
        let mut command = durac(args)?;
        command.args(["--workload", workload]);
        let ended = run(command)?;
        ensure!(ended.status.success(), "{}", show(&ended));
        ensure!(ended.stdout.contains("window, recorded"), "{}", show(&ended));
    }
    Ok(())
}

/// The target covers what the server tells of itself, and not its append-only file: what is measured is no policy.
#[test]
fn a_policy_that_was_never_in_force_is_not_measured() -> Result<()> {
    let _turn = heavy()?;
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/leveldb/leveldb.dur");
    let mut command = durac(["bench", "--rounds", "1", "-c", "2", "-n", "200"])?;
    command.arg(policy);
    let ended = run(command)?;
    let says = "leveldb -c 2: the policy was never in force";
    ensure!(ended.status.code() == Some(2) && ended.stderr.contains(says), "{}", show(&ended));
    Ok(())
}

/// Interrupted, it shows what it has and leaves no process behind.
#[test]
fn an_interrupted_bench_leaves_nothing() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let mut command = durac(["bench", "window", "-c", "2", "-n", "200", "--rounds", "100000"])?;
    command.arg("--dir").arg(dir.path()).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.spawn()?;
    // A folder for a measurement appears, so it is at work.
    durac_tests::server::until("the first measurement", || {
        Ok(std::fs::read_dir(dir.path())?.next().is_some())
    })?;
    sys::kill(child.id(), libc::SIGINT)?;
    let output = child.wait_with_output().context("bench")?;
    ensure!(matches!(output.status.code(), Some(0 | 2)), "{}", output.status);
    ensure!(std::fs::read_dir(dir.path())?.next().is_none(), "a folder was left behind");
    for process in std::fs::read_dir("/proc")? {
        let cwd = std::fs::read_link(process?.path().join("cwd"));
        ensure!(!cwd.is_ok_and(|cwd| cwd.starts_with(dir.path())), "a server was left behind");
    }
    Ok(())
}

/// The same policies under the agent and under the supervisor, in the same rounds; the table, the page and the JSON say
/// which is which.
#[test]
fn under_both_engines() -> Result<()> {
    let _turn = heavy()?;
    append_log()?;
    let dir = TempDir::new()?;
    for workload in ["redis", "append-log"] {
        let [json, html] =
            ["json", "html"].map(|kind| dir.path().join("bench").with_extension(kind));
        let mut command =
            durac(["bench", "window:n=16", "batch", "--engine", "thread,supervisor"])?;
        command.args(["--rounds", "2", "-c", "2", "-n", "300", "--workload", workload, "--json"]);
        command.arg(&json).arg("--html").arg(&html);
        let ended = run(command)?;
        ensure!(ended.status.success(), "{}", show(&ended));
        let left_out = "batch is left out under the supervisor: ";
        ensure!(ended.stderr.contains(left_out), "{}", show(&ended));
        let report = Report::read_json(&json)?;
        let engines: Vec<(&str, Option<&str>)> =
            report.rows.iter().map(|row| (row.mode.as_str(), row.engine.as_deref())).collect();
        let ours = [
            ("window n=16, thread", Some("thread")),
            ("window n=16, supervisor", Some("supervisor")),
            ("batch, thread", Some("thread")),
        ];
        ensure!(engines.ends_with(&ours) && engines.contains(&("always", None)), "{engines:?}");
        let html = std::fs::read_to_string(&html)?;
        for (mode, _) in ours {
            ensure!(ended.stdout.contains(mode) && html.contains(mode), "{mode}: {}", show(&ended));
        }
        let supervised = report.rows.iter().find(|row| row.mode == "window n=16, supervisor");
        let row = supervised.context("the supervisor's row")?;
        ensure!(row.bound == Some(16), "{row:?}");
        // The append log can end before its counters are found.
        let counted = row.max_pending.is_some_and(|most| (1..=16).contains(&most));
        ensure!(counted || workload == "append-log", "{row:?}");
    }
    Ok(())
}
