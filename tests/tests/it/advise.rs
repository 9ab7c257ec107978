//! `durac advise` on a recording of a real Redis.

use anyhow::{Context, Result, ensure};
use durac_tests::server::Under;
use durac_tests::{durac, heavy, run, run_durac, show};
use durac_workload::{Load, Stop, redis_benchmark};
use std::path::Path;
use tempfile::TempDir;

/// The advice as JSON.
fn advice(trace: &Path, args: &[&str]) -> Result<serde_json::Value> {
    let mut command = durac(["advise", "--format", "json"])?;
    command.arg(trace).args(args);
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    serde_json::from_str(&ended.stdout).with_context(|| show(&ended))
}

/// Whatever is asked for, what is advised is proved to lose no more, by the checker that everybody runs.
#[test]
fn what_is_advised_is_within_the_limits() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let trace = dir.path().join("trace.json");
    // What people run today: the writes count, not the few syncs.
    let under = Under::policy("always").line("appendfsync", "everysec").trace(&trace);
    let mut server = under.start()?;
    redis_benchmark(&server.redis, Load { clients: 5, pipeline: 1 }, 5000, 1_000_000)?;
    server.redis.stop(Stop::Shutdown)?;

    for (limits, syncs, age) in [
        (vec![], None, None),
        (vec!["0syncs"], Some(0), None),
        (vec!["7syncs"], Some(7), None),
        (vec!["100ms"], None, Some(100_000_000)),
        (vec!["64syncs", "2s"], Some(64), Some(2_000_000_000)),
    ] {
        let args: Vec<&str> = limits.iter().flat_map(|limit| ["--at-most", limit]).collect();
        let said = advice(&trace, &args)?;
        let notes = said["notes"].to_string();
        ensure!(notes.contains("each write counts as if a sync call followed it"), "{notes}");
        let text = said["policy"]["text"].as_str().context("a text")?;
        let file = dir.path().join("advised.dur");
        std::fs::write(&file, text)?;
        let checked = run_durac(["check".as_ref(), file.as_os_str()])?;
        ensure!(checked.status.success(), "{text}: {}", show(&checked));
        // The text itself promises it, so that the check above has proved it.
        let promised =
            |bound: String| text.contains(&format!("guarantee loss {bound} on power_loss"));
        if promised("= 0".to_owned()) {
            continue;
        }
        if let Some(syncs) = syncs {
            let found = (0..=syncs).any(|n| promised(format!("<= {n} syncs")));
            ensure!(found, "{limits:?}: {text}");
        }
        if let Some(age) = age {
            let age_ns = said["policy"]["age_ns"].as_u64().context("an age")?;
            ensure!(age_ns <= age && text.contains("guarantee loss <= "), "{limits:?}: {text}");
        }
        ensure!(said["policy"]["times_always"].as_f64() > Some(1.0), "{said}");
    }
    // In the units of an administrator: the text promises each, and the checker proves it. On a device so slow that
    // `pass` is never as good, however busy the machine was when it recorded: also if no two clients were ever served
    // in one turn.
    let limits =
        ["--at-most", "100updates", "--at-most", "64KiB", "--device", "disk", "--clients", "5"];
    let said = advice(&trace, &limits)?;
    let text = said["policy"]["text"].as_str().context("a text")?;
    for promise in ["100 updates", "65536 bytes"] {
        ensure!(text.contains(&format!("guarantee loss <= {promise} on power_loss")), "{text}");
    }
    ensure!(said["policy"]["updates"].as_u64().is_some_and(|n| n <= 100), "{said}");
    ensure!(said["policy"]["bytes"].as_u64().is_some_and(|n| n <= 65536), "{said}");
    let file = dir.path().join("updates.dur");
    std::fs::write(&file, text)?;
    let checked = run_durac(["check".as_ref(), file.as_os_str()])?;
    ensure!(checked.status.success(), "{text}: {}", show(&checked));
    // Nothing can be promised below two syncs of the device, and this is said.
    let slow = advice(&trace, &["--at-most", "1ms", "--device", "disk"])?;
    ensure!(slow["notes"].to_string().contains("cannot be promised"), "{slow}");
    ensure!(slow["policy"]["syncs"] == 0, "{slow}");
    Ok(())
}

#[test]
fn wrong_limits() -> Result<()> {
    for wrong in ["3commands", "20", "0ms"] {
        let ended = run_durac(["advise", "/no/such/trace", "--at-most", wrong])?;
        ensure!(ended.status.code() == Some(1), "{}", show(&ended));
        ensure!(ended.stderr.contains("--at-most"), "{}", show(&ended));
    }
    Ok(())
}
