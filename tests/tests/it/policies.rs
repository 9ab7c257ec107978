//! Every policy under load on a real Redis: what is acknowledged and not durable never exceeds what
//! the policy states, and a restart has every acknowledged key.

use anyhow::{Result, ensure};
use durac_tests::bound::Sampler;
use durac_tests::heavy;
use durac_tests::server::{Server, Under};
use durac_workload::bench::Load;
use durac_workload::{Stop, redis_benchmark};
use std::path::PathBuf;
use tempfile::TempDir;

/// Loads the server in the three ways of the case study, and stops it in one way after each.
/// `bound` is the most syncs that may be acknowledged and not durable.
fn holds(under: Under, bound: u64) -> Result<()> {
    holds_with(under, bound, bound)
}

/// The same; the witness may see more that is not durable, if it learns of a sync later than others.
fn holds_with(under: Under, bound: u64, witnessed: u64) -> Result<()> {
    let _turn = heavy()?;
    let stages = under.policy.as_ref().is_some_and(|p| p.to_string_lossy().starts_with("batch"));
    let mut server = under.start()?;
    let loads =
        [(5, 1, 4_000, Stop::Shutdown), (50, 1, 20_000, Stop::Term), (50, 16, 150_000, Stop::Kill)];
    let mut written = Vec::new();
    for (from, (clients, pipeline, requests, how)) in (0..).step_by(100).zip(loads) {
        let sampler = Sampler::start(&server.status_path())?;
        let load = Load { clients, pipeline };
        redis_benchmark(&server.redis, load, requests, 100_000_000)?;
        let own = requests / u64::from(clients) / 2;
        let acknowledged = server.write(clients, pipeline, own, from).join();
        ensure!(acknowledged.errors.is_empty(), "{:?}", acknowledged.errors);
        let samples = sampler.stop()?;
        written.push(acknowledged);
        check(&server, load, bound, witnessed, &samples)?;
        // What is staged dies with the process: how much of it is another test's question.
        let how = if stages && how == Stop::Kill { Stop::Shutdown } else { how };
        server.reads_back(how, &written.iter().collect::<Vec<_>>())?;
    }
    Ok(())
}

fn check(
    server: &Server,
    load: Load,
    bound: u64,
    witnessed: u64,
    samples: &durac_tests::bound::Samples,
) -> Result<()> {
    let logs = server.witness.logs()?;
    ensure!(logs.acknowledged > 0 && logs.refused == 0, "{load}: {logs:?}");
    ensure!(samples.sampled <= bound, "{load}: sampled above {bound}: {samples:?}");
    ensure!(samples.remembered <= bound, "{load}: remembered above {bound}: {samples:?}");
    ensure!(logs.max_pending <= witnessed, "{load}: witnessed above {witnessed}: {logs:?}");
    // A policy that may defer does: else this test would see nothing.
    ensure!(
        logs.max_pending > 0 || bound == 0,
        "{load}: nothing was ever pending: {logs:?}; {}",
        server.redis.stderr()
    );
    // The page counts the same calls that the witness saw.
    ensure!(samples.calls == logs.entered, "{load}: {samples:?}, {logs:?}");
    Ok(())
}

/// A policy of the test's own, in a file.
fn file(dir: &TempDir, name: &str, text: &str) -> Result<PathBuf> {
    let path = dir.path().join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}

#[test]
fn always() -> Result<()> {
    holds(Under::policy("always"), 0)
}

#[test]
fn delayed_fsync() -> Result<()> {
    holds(Under::policy("delayed_fsync"), 1)
}

#[test]
fn fast_notify() -> Result<()> {
    holds(Under::policy("fast_notify").env("DURAC_NOTIFY", "off"), 1)
}

/// The kernel says that a sync has ended before the thread that made it returns to the witness, so the
/// next call may be acknowledged meanwhile. The thread is the one syncer: there is no third.
#[test]
fn fast_notify_with_the_kernels_counts() -> Result<()> {
    holds_with(Under::policy("fast_notify"), 1, 2)
}

#[test]
fn window_1() -> Result<()> {
    holds(Under::policy("window").set("n=1"), 1)
}

#[test]
fn window_2() -> Result<()> {
    holds(Under::policy("window").set("n=2"), 2)
}

#[test]
fn window_8() -> Result<()> {
    holds(Under::policy("window").set("n=8"), 8)
}

#[test]
fn window_64() -> Result<()> {
    holds(Under::policy("window"), 64)
}

#[test]
fn adaptive() -> Result<()> {
    holds(Under::policy("adaptive"), 1024)
}

#[test]
fn batch_1() -> Result<()> {
    holds(Under::policy("batch").set("size=1"), 0)
}

#[test]
fn batch_3() -> Result<()> {
    holds(Under::policy("batch").set("size=3"), 2)
}

#[test]
fn batch_12() -> Result<()> {
    holds(Under::policy("batch").set("size=12"), 11)
}

#[test]
fn batch_24() -> Result<()> {
    holds(Under::policy("batch").set("size=24"), 23)
}

#[test]
fn batch_48() -> Result<()> {
    holds(Under::policy("batch"), 47)
}

#[test]
fn batch_process() -> Result<()> {
    holds(Under::policy("batch_process"), 48)
}

#[test]
fn everysec() -> Result<()> {
    holds(Under::policy("everysec"), u64::MAX)
}

#[test]
fn no() -> Result<()> {
    holds(Under::policy("no"), u64::MAX)
}

/// It skips only what is durable already, and passes everything else.
#[test]
fn the_one_liner() -> Result<()> {
    let dir = TempDir::new()?;
    let text = "on fdatasync: await previous; if notify.done skip\n";
    holds(Under::policy(file(&dir, "one_liner.dur", text)?), 0)
}

/// Bytes, a parameter, state and a periodic barrier: a policy that the standard library has not.
#[test]
fn a_policy_of_ones_own() -> Result<()> {
    let dir = TempDir::new()?;
    let text = "\
policy by_bytes
target redis.aof
param most: bytes = 16KiB in 1KiB..=1MiB
state slow: count = 0
on fdatasync {
    if sync.latency > 1ms { slow = slow + 1 }
    every 1000 calls { await all }
    if slow > 100 && call.len == 0B { slow = 0; await previous }
    if pending.bytes > most { await previous }
    await pending < 32
    defer
}
flush within 20ms
";
    holds(Under::policy(file(&dir, "by_bytes.dur", text)?).set("most=4KiB"), 32)
}

/// Without a policy the witness sees what `appendfsync always` means: nothing is ever pending.
#[test]
fn the_witness_sees_always() -> Result<()> {
    let _turn = heavy()?;
    let mut server = Under::nothing().start()?;
    let acknowledged = server.write(5, 1, 500, 0).join();
    let logs = server.witness.logs()?;
    ensure!(logs.max_pending == 0 && logs.entered >= 500 && logs.syncs >= 500, "{logs:?}");
    server.reads_back(Stop::Kill, &[&acknowledged])
}
