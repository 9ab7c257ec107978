//! Power cuts of a real Redis on a disk that forgets. These tests need root and FUSE.

use anyhow::{Context, Result, ensure};
use durac_disk::{Cut, Image, Mounted, Plan};
use durac_tests::server::object;
use durac_tests::{agent, append_log, cc, durac, faulty_agent, heavy, run, show, tool};
use durac_workload::Policy;
use durac_workload::crash::{App, At, Config, Crash, Trial, sync_library};
use std::ffi::OsString;
use std::time::Duration;

fn config(policy: &str, sets: &[&str], power_loss: u64) -> Result<Config> {
    agent()?;
    append_log()?;
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let file = object(policy.as_ref(), &sets)?;
    Ok(Config {
        durac: tool()?,
        app: App::Redis,
        policy: Some(Policy { file, sets: Vec::new(), engine: None }),
        appendfsync: "always".to_owned(),
        sync_library: Some(sync_library()?),
        env: Vec::new(),
        words: Vec::new(),
        clients: 5,
        latency: Duration::from_millis(1),
        crashes: vec![Crash::Clean],
        faults: Vec::new(),
        at: vec![At::Random, At::MidSync],
        seed: 11,
        reads: false,
        power_loss: Some(power_loss),
        is_claimed: false,
        process_crash: None,
        power_loss_updates: None,
        power_loss_bytes: None,
        power_loss_within: None,
        process_crash_within: None,
        assume_sync: None,
        meanwhile: Vec::new(),
        covers: String::new(),
        acts_on_writes: false,
    })
}

fn trials(config: &Config, count: u32) -> Result<Vec<Trial>> {
    let _turn = heavy()?;
    // The disks go away with this thread, however the process ends.
    durac_disk::private_mounts()?;
    let trial = |number| config.trial(number).with_context(|| format!("crash {number}"));
    (0..count).map(trial).collect()
}

/// Crashes until one breaks the bound; answers why, if one does.
fn first_violation(config: &Config, most: u32) -> Result<Option<String>> {
    let _turn = heavy()?;
    durac_disk::private_mounts()?;
    for number in 0..most {
        let trial = config.trial(number).with_context(|| format!("crash {number}"))?;
        if trial.violation.is_some() {
            return Ok(trial.violation);
        }
    }
    Ok(None)
}

/// Nothing that a client has seen is lost, reads included, although the application was told of more.
#[test]
fn nothing_that_a_client_has_seen() -> Result<()> {
    for policy in ["external_synchrony", "clean_reads"] {
        let reading = Config { reads: true, ..config(policy, &[], 0)? };
        let mut acknowledged = 0;
        for trial in trials(&reading, 12)? {
            ensure!(trial.violation.is_none() && trial.lost_commands == 0, "{policy}: {trial:?}");
            acknowledged += trial.acknowledged;
        }
        ensure!(acknowledged > 500, "{policy}: {acknowledged}");
    }
    // The same clients under the same deferring, not held: the test sees that they lose.
    let path = tempfile::Builder::new().suffix(".dur").tempfile()?;
    std::fs::write(path.path(), "target redis.aof\non fdatasync: defer\n")?;
    let policy = path.path().to_str().context("a path")?;
    let deferring = Config { reads: true, ..config(policy, &[], 0)? };
    ensure!(first_violation(&deferring, 20)?.is_some(), "no loss is seen");
    // And an agent that holds nothing, believes a sync before it is made, or any reply to be clean, is found.
    let faults =
        [("hold", "external_synchrony"), ("early", "external_synchrony"), ("clean", "clean_reads")];
    for (fault, policy) in faults {
        let mut config = Config { reads: true, ..config(policy, &[], 0)? };
        config.env = vec![
            ("DURAC_AGENT".into(), faulty_agent()?.into()),
            ("DURAC_FAULT".into(), fault.into()),
        ];
        config.latency = Duration::from_millis(20);
        ensure!(first_violation(&config, 40)?.is_some(), "{fault} is not found");
    }
    Ok(())
}

/// What is proved holds, at every moment and for every kind of crash.
#[test]
fn nothing_beyond_the_bound() -> Result<()> {
    let _turn = heavy()?;
    let dir = tempfile::tempdir()?;
    let json = dir.path().join("report.json");
    let policies = ["always", "delayed_fsync", "window:n=4", "batch:size=12"];
    let mut command = durac(["crashtest", "--trials", "12", "--json"])?;
    command.arg(&json).args(policies);
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json)?)?;
    for (at, bound) in [Some(0), Some(1), Some(4), Some(11)].into_iter().enumerate() {
        let tested = &report["policies"][at];
        ensure!(tested["power_loss"].as_u64() == bound, "{tested}");
        let trials = tested["trials"].as_array().context("trials")?;
        ensure!(trials.len() == 12, "{tested}");
        for trial in trials {
            ensure!(
                trial["violation"].is_null() && trial["acknowledged"].as_u64() > Some(40),
                "{trial}"
            );
            ensure!(trial["lost_syncs"].as_u64() <= bound, "{trial}");
        }
        let lost = trials.iter().filter_map(|trial| trial["lost_syncs"].as_u64()).max();
        timeline(tested, lost)?;
        ensure!((lost > Some(0)) == (bound > Some(0)), "the test sees no loss at all: {tested}");
    }
    Ok(())
}

/// The worst case is told, and the crash in it can be repeated.
fn timeline(tested: &serde_json::Value, lost: Option<u64>) -> Result<()> {
    let worst = &tested["worst"];
    let lines = worst["timeline"].as_array().context("a timeline")?;
    let what = |line: &serde_json::Value| line["what"].as_str().unwrap_or_default().to_owned();
    let all: Vec<String> = lines.iter().map(what).collect();
    ensure!((3..=15).contains(&all.len()), "{worst}");
    // Where nothing is lost, the last moments can be a rewrite's alone.
    let told = all.iter().any(|line| line.starts_with("acknowledged: "));
    ensure!(told || lost == Some(0), "{worst}");
    ensure!(lines.iter().any(|line| line["ms"].as_f64() == Some(0.0)), "{worst}");
    let gone = format!("in {} syncs", lost.unwrap_or(0));
    ensure!(all.last().is_some_and(|line| line.ends_with(&gone)), "{worst}");
    let again = format!("--first {} --trials 1 --seed 1", worst["number"]);
    ensure!(worst["again"].as_str().is_some_and(|line| line.contains(&again)), "{worst}");
    Ok(())
}

/// The built-in application, which needs no Redis, and a command of the user's.
#[test]
fn other_applications() -> Result<()> {
    let _turn = heavy()?;
    let kinds = ["--crash", "clean,torn,reordered,kill", "delayed_fsync", "batch:size=12"];
    let server = ["redis-server", "--port", "{port}", "--dir", "{dir}", "--appendonly", "yes"];
    let mut own = vec!["--crash", "clean,torn", "--"];
    own.extend(server);
    own.extend(["--appendfsync", "always"]);
    for app in [[&["--app", "builtin"], &kinds[..]].concat(), own] {
        // In the middle of a sync something is deferred, however slow the machine is.
        let command = ["crashtest", "--trials", "4", "--format", "json", "--at", "mid-sync,random"];
        let ended = run(durac(command.iter().chain(&["window:n=4"]).chain(&app))?)?;
        ensure!(ended.status.success(), "{}", show(&ended));
        let report: serde_json::Value = serde_json::from_str(&ended.stdout)?;
        for tested in report["policies"].as_array().context("policies")? {
            let lost = tested["trials"].as_array().context("trials")?.iter();
            let lost = lost.filter_map(|trial| trial["lost_syncs"].as_u64()).max();
            ensure!(lost > Some(0), "{tested}");
        }
    }
    Ok(())
}

/// After a fault nothing is acknowledged that should not be, and what was is lost within the bound.
#[test]
fn faults_before_the_crash() -> Result<()> {
    let _turn = heavy()?;
    // What goes wrong, and whether the application has to end of it.
    for (turn, (fault, ends)) in [
        ("sync:eio@15", true),
        ("sync:eio@15,times=1", true),
        ("sync:enospc@15", true),
        ("write:enospc@15", true),
        ("write:short@15,times=3", false),
        ("sync:slow=20ms@15,times=3", false),
        ("sync:eintr@15,times=30", false),
        ("sync:stuck@15", false),
    ]
    .into_iter()
    .enumerate()
    {
        let mut command = durac(["crashtest", "always", "window:n=4", "batch:size=12"])?;
        let crash = if turn % 2 == 0 { "clean" } else { "torn" };
        command.args(["--app", "builtin", "--trials", "1", "--crash", crash]);
        command.args(["--at", "random", "--format", "json", "--fault", fault]);
        let ended = run(command)?;
        ensure!(ended.status.success(), "{fault}: {}", show(&ended));
        let report: serde_json::Value = serde_json::from_str(&ended.stdout)?;
        for tested in report["policies"].as_array().context("policies")? {
            for trial in tested["trials"].as_array().context("trials")? {
                ensure!(trial["faults"].as_u64() > Some(0), "{fault}: {trial}");
                ensure!(trial["ended"].as_bool() == Some(ends), "{fault}: {trial}");
            }
        }
    }
    Ok(())
}

/// Writes complete while a sync is out, as on ext4, so a crash finds them pending. Without the library a
/// write waits for the sync of its file, and few are.
#[test]
fn writes_pass_syncs() -> Result<()> {
    // So wide that it is not full when a sync starts: else the application waits for the sync.
    let mut config = config("window", &["n=4096"], 4096)?;
    config.latency = Duration::from_millis(50);
    config.at = vec![At::MidSync];
    for app in [App::Redis, App::Builtin] {
        config.app = app;
        for library in [Some(sync_library()?), None] {
            config.sync_library = library;
            let trials = trials(&config, 3)?;
            for trial in &trials {
                ensure!(trial.violation.is_none() && trial.lost_syncs <= 4096, "{trial:?}");
            }
            // A loaded machine may let no write into one sync, never into none of them.
            let found =
                trials.iter().any(|trial| trial.overlapping_writes > 0 && trial.lost_syncs > 0);
            let overlap = trials.iter().any(|trial| trial.overlapping_writes > 0);
            let expected = config.sync_library.is_some();
            ensure!(found == expected && overlap == expected, "{:?}: {trials:?}", config.app);
        }
    }
    Ok(())
}

/// What is proved in updates and bytes holds for the commands of a real Redis.
#[test]
fn updates_and_bytes() -> Result<()> {
    let _turn = heavy()?;
    let dir = tempfile::tempdir()?;
    let json = dir.path().join("report.json");
    let bytes = dir.path().join("kib.dur");
    std::fs::write(
        &bytes,
        "target redis.aof\nguarantee loss <= 1KiB on power_loss\n\
         on fdatasync: if pending.bytes > 1KiB { pass }; defer\n",
    )?;
    // Long enough for turns to pass while a sync is under way.
    let mut command = durac(["crashtest", "--trials", "6", "--latency", "5000", "--json"])?;
    command.arg(&json).args(["--crash", "clean,torn", "--at", "mid-sync,after-ack,rewrite"]);
    command.args(["--clients", "10", "updates:n=16"]).arg(&bytes);
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json)?)?;
    for (at, bound, unit) in [(0, 16, "lost_commands"), (1, 1024, "lost_bytes")] {
        let tested = &report["policies"][at];
        let (updates, bytes) = if at == 0 { (Some(bound), None) } else { (None, Some(bound)) };
        ensure!(tested["power_loss_updates"].as_u64() == updates, "{tested}");
        ensure!(tested["power_loss_bytes"].as_u64() == bytes, "{tested}");
        let trials = tested["trials"].as_array().context("trials")?;
        ensure!(trials.iter().all(|trial| trial[unit].as_u64() <= Some(bound)), "{tested}");
        // More than one turn of all clients: the bound is used.
        let most = trials.iter().filter_map(|trial| trial[unit].as_u64()).max();
        ensure!(most > Some(bound / 2), "the test sees no loss to speak of: {tested}");
    }
    Ok(())
}

/// An agent that does not count every second update is found out; the same build without that is not.
#[test]
fn updates_that_are_not_counted_are_found_out() -> Result<()> {
    for (mistake, most) in [("undercount", 40), ("none", 4)] {
        let mut config = config("updates", &["n=8"], u64::MAX)?;
        config.power_loss_updates = Some(8);
        config.clients = 8;
        config.at = vec![At::MidSync, At::AfterAck];
        config.latency = Duration::from_millis(20);
        config.env = vec![
            ("DURAC_AGENT".into(), faulty_agent()?.into()),
            ("DURAC_FAULT".into(), mistake.into()),
        ];
        let found = first_violation(&config, most)?;
        let is_one =
            found.as_ref().is_some_and(|why| why.contains("acknowledged updates are lost"));
        ensure!(is_one == (mistake != "none"), "{mistake}: {found:?}");
    }
    Ok(())
}

/// A bound that is one too low is found out.
#[test]
fn a_bound_that_is_too_low() -> Result<()> {
    let why = first_violation(&config("window", &["n=4"], 3)?, 40)?;
    ensure!(why.as_ref().is_some_and(|w| w.contains("4 acknowledged syncs are lost")), "{why:?}");
    Ok(())
}

/// A bound in time that is too low is found out.
#[test]
fn an_age_that_is_too_low() -> Result<()> {
    let mut config = config("everysec", &[], u64::MAX)?;
    config.app = App::Builtin;
    config.at = vec![At::AfterAck];
    config.power_loss_within = Some(Duration::from_millis(10));
    // Longer than any sync here, on a busy machine, too.
    config.assume_sync = Some(Duration::from_secs(5));
    let why = first_violation(&config, 10)?;
    let says = "before the crash is lost, proved is 10 ms";
    ensure!(why.as_ref().is_some_and(|why| why.contains(says)), "{why:?}");
    Ok(())
}

/// `window` keeps its 50 ms. A disk whose syncs take longer than the policy assumes is told, and is no
/// violation.
#[test]
fn ages_and_the_assumption() -> Result<()> {
    let _turn = heavy()?;
    let dir = tempfile::tempdir()?;
    let json = dir.path().join("report.json");
    for (latency, slow) in [("500", false), ("40000", true)] {
        // A cut is in the middle of a sync: 20 ms of one of 40 ms are more than the policy assumes.
        let mut command = durac(["crashtest", "window:n=4096", "--app", "builtin"])?;
        command.args(["--crash", "clean", "--at", "mid-sync", "--trials", "4"]);
        command.args(["--latency", latency, "--json"]).arg(&json);
        let ended = run(command)?;
        ensure!(ended.status.success(), "{}", show(&ended));
        let says = ended.stdout.contains("note: window n=4096: `assume sync` did not hold in 4 of");
        ensure!(ended.stdout.contains("50 ms") && (says || !slow), "{}", show(&ended));
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json)?)?;
        let tested = &report["policies"][0];
        ensure!(tested["power_loss_within_us"].as_u64() == Some(50_000), "{tested}");
        ensure!(tested["assume_sync_us"].as_u64() == Some(10_000), "{tested}");
        let trials = tested["trials"].as_array().context("trials")?;
        for trial in trials {
            // A busy machine may be slow, too.
            let held = trial["assumption_held"].as_bool().context("assumption_held")?;
            ensure!(!(slow && held), "{trial}");
            ensure!(!held || trial["lost_age_us"].as_u64() <= Some(50_000), "{trial}");
            let late = trial["lost_age_us"].as_u64() > Some(50_000);
            ensure!(trial["excused"].is_null() != late, "{trial}");
        }
        let aged = |trial: &serde_json::Value| trial["lost_age_us"].as_u64() > Some(0);
        ensure!(trials.iter().any(aged), "the test sees no loss at all: {tested}");
    }
    Ok(())
}

/// A disk that lies below the agent is found out.
#[test]
fn a_disk_that_lies() -> Result<()> {
    let lie = cc("lie.c", "liblie.so", &["-shared", "-fPIC"])?;
    let script = "export LD_PRELOAD=\"${LD_PRELOAD:+$LD_PRELOAD:}$1\"; shift; exec \"$@\"";
    let mut config = config("always", &[], 0)?;
    // It stands before the lie, and would sync.
    config.sync_library = None;
    config.words = ["sh", "-c", script, "sh"].map(OsString::from).to_vec();
    config.words.push(lie.into());
    for trial in trials(&config, 2)? {
        ensure!(trial.lost_syncs > 10 && trial.violation.is_some(), "{trial:?}");
    }
    Ok(())
}

/// An engine that is wrong is found out: one that believes a sync before it was made, and one that
/// keeps no copy of what it staged. The same build without a mistake is not.
#[test]
fn a_faulty_agent_is_found_out() -> Result<()> {
    for (mistake, policy, set, bound, most) in [
        ("early", "window", "n=4", 4, 40),
        ("copy", "batch", "size=12", 11, 40),
        ("none", "window", "n=4", 4, 4),
    ] {
        let mut config = config(policy, &[set], bound)?;
        config.app = App::Builtin;
        config.at = vec![At::MidSync];
        // Long enough for turns to pass while a sync is under way.
        config.latency = Duration::from_millis(20);
        config.env = vec![
            ("DURAC_AGENT".into(), faulty_agent()?.into()),
            ("DURAC_FAULT".into(), mistake.into()),
        ];
        let found = first_violation(&config, most)?;
        ensure!(found.is_some() == (mistake != "none"), "{mistake}: {found:?}");
    }
    Ok(())
}

/// Our server that treats its log as `kinds` says, see `edges.c`.
fn edges(config: Config, kinds: &str) -> Result<Config> {
    let program = cc("edges.c", "edges", &[])?;
    let words = vec![program.into(), kinds.into(), "{dir}".into(), "{port}".into()];
    Ok(Config { app: App::Command(words), ..config })
}

/// The same at the agent's edges: duplicates, forks, signals, jumps out of syncs, streams, and numbers that
/// come back unseen for another file. `tests/crash/nightly.sh` makes more of these.
#[test]
fn nothing_beyond_the_bound_at_the_edges() -> Result<()> {
    let bounds: [(&str, &[&str], u64); 4] = [
        ("always", &[], 0),
        ("delayed_fsync", &[], 1),
        ("window", &["n=4"], 4),
        ("batch", &["size=12"], 11),
    ];
    for (policy, sets, bound) in bounds {
        let mut config = edges(config(policy, sets, bound)?, "pdfsjrotb")?;
        config.crashes = vec![Crash::Clean, Crash::Torn, Crash::Kill];
        config.at = vec![At::Random, At::MidSync, At::AfterAck];
        for trial in trials(&config, 6)? {
            ensure!(trial.violation.is_none(), "{policy}: {trial:?}");
            ensure!(trial.lost_syncs <= bound && trial.acknowledged > 40, "{policy}: {trial:?}");
        }
    }
    Ok(())
}

/// An agent that believes in its table of descriptors loses what goes to another file; one that takes an
/// interrupted sync for a failed one ends the application. The same build without a mistake does neither.
#[test]
fn an_agent_that_trusts_is_found_out() -> Result<()> {
    for (mistake, kinds, fault, ends) in [
        ("stale", "ppptr", None, false),
        ("none", "ppptr", None, false),
        ("eintr", "p", Some("sync:eintr@15,times=30"), true),
        ("none", "p", Some("sync:eintr@15,times=30"), false),
    ] {
        let mut config = edges(config("window", &["n=4"], 4)?, kinds)?;
        config.at = vec![At::MidSync];
        config.latency = Duration::from_millis(5);
        config.env = vec![
            ("DURAC_AGENT".into(), faulty_agent()?.into()),
            ("DURAC_FAULT".into(), mistake.into()),
        ];
        config.faults = fault.map(durac_workload::crash::fault).transpose()?.into_iter().collect();
        if fault.is_some() {
            // In the middle of a sync the power would end the application, too.
            config.at = vec![At::AfterAck];
            for trial in trials(&config, 2)? {
                ensure!(trial.faults > 0 && trial.ended == ends, "{mistake}: {trial:?}");
                ensure!(trial.violation.is_none(), "{mistake}: {trial:?}");
            }
            continue;
        }
        let found = first_violation(&config, if mistake == "none" { 4 } else { 40 })?;
        ensure!(found.is_some() == (mistake != "none"), "{mistake}: {found:?}");
    }
    Ok(())
}

/// A process that has ended by itself leaves nothing to lose. An agent that does not drain then is found out.
#[test]
fn a_drain_that_is_skipped_is_found_out() -> Result<()> {
    let _turn = heavy()?;
    durac_disk::private_mounts()?;
    let program = cc("syncs.c", "syncs", &[])?;
    for mistake in ["none", "drain"] {
        let plan = Plan { latency: Duration::from_millis(20), ..Plan::default() };
        let disk = Mounted::new(Image::new(), plan)?;
        let mut command = durac(["run", "window", "--"])?;
        command.arg(&program).arg(disk.join("appendonly.aof.1.incr.aof")).arg("ws".repeat(20));
        command.env("DURAC_AGENT", faulty_agent()?).env("DURAC_FAULT", mistake);
        let ended = run(command)?;
        ensure!(ended.status.success(), "{}", show(&ended));
        let lost = disk.after_cut(Cut::Clean, 1)?.unsynced.len();
        ensure!((lost > 0) == (mistake != "none"), "{mistake}: {lost} writes are lost");
    }
    Ok(())
}

/// Bad input ends with 1 and a reason.
#[test]
fn what_cannot_be_tested() -> Result<()> {
    for (args, says) in [
        (vec!["crashtest"], "required"),
        (vec!["crashtest", "no_such_policy"], "cannot read `no_such_policy`"),
        (vec!["crashtest", "always", "--clients", "0"], "0 is not in 1..=1000"),
        (vec!["crashtest", "always", "--crash", "fire"], "invalid value 'fire'"),
        (
            vec!["crashtest", "always", "--fault", "sync:fire"],
            "unknown fault `sync:fire`: expected sync:eio",
        ),
        (
            vec!["crashtest", "always", "--", "redis-server"],
            "the command after `--` needs `{port}`",
        ),
        (
            vec!["crashtest", "always", "--", "no-such", "{port}", "{dir}"],
            "`no-such` is not on PATH",
        ),
        (vec!["crashtest", "always", "--", "./no", "{port}", "{dir}"], "`./no` is not a file"),
        (
            vec!["crashtest", "always", "--app", "builtin", "--", "x", "{port}", "{dir}"],
            "cannot be used with",
        ),
        (
            vec!["crashtest", "always", "--app", "builtin", "--at", "rewrite"],
            "the built-in application never rewrites its log",
        ),
    ] {
        let ended = run(durac(args)?)?;
        ensure!(ended.status.code() == Some(1) && ended.stderr.contains(says), "{}", show(&ended));
    }
    Ok(())
}
