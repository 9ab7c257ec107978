//! Power cuts of a real Redis on a disk that forgets. These tests need root and FUSE.

use anyhow::{Context, Result, ensure};
use durac_tests::server::object;
use durac_tests::{agent, cc, durac, heavy, run, show, tool, wrong_agent};
use durac_workload::Policy;
use durac_workload::crash::{App, At, Config, Crash, Trial};
use std::ffi::OsString;
use std::time::Duration;

fn config(policy: &str, sets: &[&str], power_loss: u64) -> Result<Config> {
    agent()?;
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let file = object(policy.as_ref(), &sets)?;
    Ok(Config {
        durac: tool()?,
        app: App::Redis,
        policy: Some(Policy { file, sets: Vec::new(), engine: None }),
        appendfsync: "always".to_owned(),
        env: Vec::new(),
        words: Vec::new(),
        clients: 5,
        latency: Duration::from_millis(1),
        crashes: vec![Crash::Clean],
        faults: Vec::new(),
        at: vec![At::Random, At::MidSync],
        seed: 11,
        power_loss: Some(power_loss),
        process_crash: None,
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
    ensure!(all.iter().any(|line| line.starts_with("acknowledged: ")), "{worst}");
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
    let command = ["crashtest", "delayed_fsync", "window:n=4", "batch:size=12", "--trials", "4"];
    let kinds = ["--crash", "clean,torn,reordered,kill", "--format", "json"];
    let server = ["redis-server", "--port", "{port}", "--dir", "{dir}", "--appendonly", "yes"];
    let mut own = vec!["--crash", "clean,torn", "--format", "json", "--"];
    own.extend(server);
    own.extend(["--appendfsync", "always"]);
    for app in [[&["--app", "builtin"], &kinds[..]].concat(), own] {
        let ended = run(durac(command.iter().chain(&app))?)?;
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
    for (fault, ends) in [
        ("sync:eio@15", true),
        ("sync:eio@15,times=1", true),
        ("sync:enospc@15", true),
        ("write:enospc@15", true),
        ("write:short@15,times=3", false),
        ("sync:slow=20ms@15,times=3", false),
        ("sync:stuck@15", false),
    ] {
        let mut command = durac(["crashtest", "always", "window:n=4", "batch:size=12"])?;
        command.args(["--app", "builtin", "--trials", "2", "--crash", "clean,torn"]);
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

/// A bound that is one too low is found out.
#[test]
fn a_bound_that_is_too_low() -> Result<()> {
    let why = first_violation(&config("window", &["n=4"], 3)?, 40)?;
    ensure!(why.as_ref().is_some_and(|w| w.contains("4 acknowledged syncs are lost")), "{why:?}");
    Ok(())
}

/// A disk that lies below the agent is found out.
#[test]
fn a_disk_that_lies() -> Result<()> {
    let lie = cc("lie.c", "liblie.so", &["-shared", "-fPIC"])?;
    let script = "export LD_PRELOAD=\"${LD_PRELOAD:+$LD_PRELOAD:}$1\"; shift; exec \"$@\"";
    let mut config = config("always", &[], 0)?;
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
fn an_engine_that_is_wrong() -> Result<()> {
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
            ("DURAC_AGENT".into(), wrong_agent()?.into()),
            ("DURAC_WRONG".into(), mistake.into()),
        ];
        let found = first_violation(&config, most)?;
        ensure!(found.is_some() == (mistake != "none"), "{mistake}: {found:?}");
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
        (vec!["crashtest", "always", "--fault", "sync:fire"], "none of sync:eio"),
        (vec!["crashtest", "always", "--", "redis-server"], "does not say `{port}`"),
        (
            vec!["crashtest", "always", "--", "no-such", "{port}", "{dir}"],
            "`no-such` is not on PATH",
        ),
        (vec!["crashtest", "always", "--", "./no", "{port}", "{dir}"], "`./no` is no file"),
        (
            vec!["crashtest", "always", "--app", "builtin", "--", "x", "{port}", "{dir}"],
            "cannot be used with",
        ),
        (
            vec!["crashtest", "always", "--app", "builtin", "--at", "rewrite"],
            "the built-in application rewrites no log",
        ),
    ] {
        let ended = run(durac(args)?)?;
        ensure!(ended.status.code() == Some(1) && ended.stderr.contains(says), "{}", show(&ended));
    }
    Ok(())
}
