//! A power loss at full load: the server is killed, and of every file only what a successful sync
//! has covered is left. What is missing after the restart is within what the policy states.

use anyhow::{Result, ensure};
use durac_tests::heavy;
use durac_tests::server::{Under, until_written};
use durac_workload::Stop;

/// Clients at work when the power goes.
const CLIENTS: u32 = 4;

/// Kills the server at full load, cuts its files, and counts the acknowledged keys that are gone.
/// `rewrites` log rewrites happen meanwhile.
fn lost(under: Under, rewrites: u32) -> Result<u64> {
    let _turn = heavy()?;
    let mut server = under.start()?;
    let writers = server.write(CLIENTS, 1, u64::MAX, 0);
    until_written(&writers, 2_000)?;
    for _ in 0..rewrites {
        server.rewrite()?;
        until_written(&writers, writers.so_far() + 500)?;
    }
    server.redis.stop(Stop::Kill)?;
    let acknowledged = writers.join();
    server.witness.lose_power(&server.redis.aof_dir())?;
    server.restart()?;
    Ok(acknowledged.missing(&mut server.redis.client()?)?.len() as u64)
}

/// One sync carries at most one request of each client.
fn within(syncs: u64, under: Under) -> Result<()> {
    for rewrites in [0, 2] {
        let (lost, bound) = (lost(under.clone(), rewrites)?, syncs * u64::from(CLIENTS));
        ensure!(lost <= bound, "{lost} of at most {bound} lost with {rewrites} rewrites");
    }
    Ok(())
}

#[test]
fn without_a_policy_nothing_is_lost() -> Result<()> {
    within(0, Under::nothing())
}

#[test]
fn always_loses_nothing() -> Result<()> {
    within(0, Under::policy("always"))
}

#[test]
fn delayed_fsync_loses_one() -> Result<()> {
    within(1, Under::policy("delayed_fsync"))
}

#[test]
fn fast_notify_loses_one() -> Result<()> {
    within(1, Under::policy("fast_notify").env("DURAC_NOTIFY", "off"))
}

/// The kernel knows of a sync before the witness does, who cuts the files at what it has seen: one
/// sync more.
#[test]
fn fast_notify_with_the_kernels_counts_loses_what_the_witness_has_not_seen_yet() -> Result<()> {
    within(2, Under::policy("fast_notify"))
}

#[test]
fn window_8_loses_8() -> Result<()> {
    within(8, Under::policy("window").set("n=8"))
}

#[test]
fn window_64_loses_64() -> Result<()> {
    within(64, Under::policy("window"))
}

#[test]
fn batch_12_loses_11() -> Result<()> {
    within(11, Under::policy("batch").set("size=12"))
}

#[test]
fn batch_process_loses_48() -> Result<()> {
    within(48, Under::policy("batch_process"))
}

/// A crash of the process takes what is staged, and no more of it than was proved.
#[test]
fn a_crash_of_the_process_takes_what_is_staged() -> Result<()> {
    let _turn = heavy()?;
    for (policy, set, syncs) in
        [("batch", "size=1", 0), ("batch", "size=12", 11), ("batch_process", "size=48", 48)]
    {
        for rewrites in [0, 1] {
            let mut server = Under::policy(policy).set(set).start()?;
            let writers = server.write(CLIENTS, 1, u64::MAX, 0);
            until_written(&writers, 2_000)?;
            for _ in 0..rewrites {
                server.rewrite()?;
                until_written(&writers, writers.so_far() + 500)?;
            }
            server.redis.stop(Stop::Kill)?;
            let acknowledged = writers.join();
            server.restart()?;
            let lost = acknowledged.missing(&mut server.redis.client()?)?.len() as u64;
            let bound = syncs * u64::from(CLIENTS);
            ensure!(lost <= bound, "{policy} {set}: {lost} of at most {bound} lost");
        }
    }
    Ok(())
}

/// Loses up to a second, but never so that the log cannot be read: what survives is a prefix.
#[test]
fn everysec_starts_again() -> Result<()> {
    within(u64::from(u32::MAX), Under::policy("everysec"))
}

/// The test above can tell: a policy that never syncs loses nearly everything.
#[test]
fn no_loses_much() -> Result<()> {
    let lost = lost(Under::policy("no"), 0)?;
    ensure!(lost > 1_000, "only {lost} lost: this test would see no loss at all");
    Ok(())
}
