//! `durac top` and `durac set` on a real redis-server that runs.

use anyhow::{Context, Result, ensure};
use durac_tests::server::{Under, until, until_written};
use durac_tests::{durac, heavy, run, show};
use serde_json::Value;

/// What `durac top` says of the process.
fn top(pid: &str) -> Result<Value> {
    let ended = run(durac(["top", pid, "--interval", "100ms", "--format", "json"])?)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let logs: Value = serde_json::from_str(ended.stdout.lines().next().context("no line")?)?;
    ensure!(logs.as_array().is_some_and(|logs| logs.len() == 1), "{logs}");
    logs.get(0).cloned().context("no log")
}

/// A parameter that is set holds for the next call, and what is shown is what happens.
#[test]
fn a_parameter_changes_while_it_runs() -> Result<()> {
    let _turn = heavy()?;
    let server = Under::policy("window").set("n=64").start()?;
    let pid = server.redis.pid().to_string();
    let writers = server.write(8, 1, 1_000_000, 0);
    until_written(&writers, 200)?;
    let seen = top(&pid)?;
    ensure!(seen["policy"] == "window" && seen["params"] == "n=64", "{seen}");
    ensure!(
        seen["calls"].as_f64() > Some(0.0) && seen["acknowledged"].as_f64() > Some(0.0),
        "{seen}"
    );

    let ended = run(durac(["set", "--pid", &pid, "n=2"])?)?;
    ensure!(ended.status.success() && ended.stdout.contains("n = 64 → 2"), "{}", show(&ended));
    let mark = writers.so_far();
    until_written(&writers, mark + 200)?;
    let seen = top(&pid)?;
    ensure!(seen["params"] == "n=2", "{seen}");
    ensure!(seen["at_risk"].as_u64().is_some_and(|at_risk| at_risk <= 2), "{seen}");
    let _ = writers.stop();

    until("the end of what is at risk", || Ok(top(&pid)?["at_risk"] == 0))
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_set() -> Result<()> {
    let server = Under::policy("window").set("n=7").start()?;
    let pid = server.redis.pid().to_string();
    for (arguments, why) in [
        (&["set", "--pid", &pid, "n=5", "m=1"][..], "no parameter `m`"),
        (&["set", "--pid", &pid, "n=5", "n=5000"], "`n` must be in 1..=4096, not 5000"),
        (&["set", "--pid", &pid, "n=5ms"], "`5ms` is not a value of `n`"),
        (&["set", "--pid", &pid, "n"], "not of the form `name=value`"),
        (&["set", "--pid", "1", "n=5"], "it has no log under a policy"),
        (&["top", "4000000000"], "there is no such process"),
        (&["top", "--interval", "0s"], "an interval of at least 10ms"),
    ] {
        let ended = run(durac(arguments)?)?;
        ensure!(ended.status.code() == Some(1) && ended.stderr.contains(why), "{}", show(&ended));
    }
    ensure!(top(&pid)?["params"] == "n=7");
    Ok(())
}
