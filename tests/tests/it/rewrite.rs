//! What Redis does to its log beside appending: rewrites, snapshots, reloads, switching it off and
//! on. None of it may lose an acknowledged key.

use anyhow::{Result, ensure};
use durac_tests::heavy;
use durac_tests::server::{Server, Under, until_written};
use durac_workload::Stop;

const POLICIES: [&str; 6] =
    ["delayed_fsync", "window", "everysec", "adaptive", "batch", "batch_process"];

/// Runs `disturb` several times while writers write, then stops the server in each way.
fn survives(policy: &str, under: Under, disturb: impl Fn(&Server) -> Result<()>) -> Result<()> {
    let _turn = heavy()?;
    let mut server = under.start()?;
    // What is staged dies with the process: how much of it is another test's question.
    let kill = if policy.starts_with("batch") { Stop::Shutdown } else { Stop::Kill };
    for (from, how) in [(0, Stop::Shutdown), (10, Stop::Term), (20, kill)] {
        let writers = server.write(5, 4, u64::MAX, from);
        for _ in 0..3 {
            until_written(&writers, writers.so_far() + 500)?;
            disturb(&server)?;
        }
        until_written(&writers, writers.so_far() + 500)?;
        let acknowledged = writers.stop();
        ensure!(acknowledged.errors.is_empty(), "{policy}: {:?}", acknowledged.errors);
        server.reads_back(how, &[&acknowledged])?;
    }
    Ok(())
}

#[test]
fn rewrite_under_load() -> Result<()> {
    for policy in POLICIES {
        survives(policy, Under::policy(policy), Server::rewrite)?;
    }
    Ok(())
}

#[test]
fn automatic_rewrite_under_load() -> Result<()> {
    let _turn = heavy()?;
    let under = Under::policy("window")
        .line("auto-aof-rewrite-percentage", "20")
        .line("auto-aof-rewrite-min-size", "64kb");
    let mut server = under.start()?;
    let writers = server.write(5, 4, u64::MAX, 0);
    let mut client = server.redis.client()?;
    let mut rewrites = 0;
    durac_tests::server::until("three automatic rewrites", || {
        rewrites = client.info("aof_rewrites")?.and_then(|n| n.parse().ok()).unwrap_or(0);
        Ok(rewrites >= 3)
    })?;
    let acknowledged = writers.stop();
    server.reads_back(Stop::Kill, &[&acknowledged])
}

#[test]
fn snapshot_under_load() -> Result<()> {
    for policy in POLICIES {
        survives(policy, Under::policy(policy), |server| {
            let mut client = server.redis.client()?;
            client.command(&["BGSAVE"])?;
            server.until_info("rdb_bgsave_in_progress", "0")?;
            ensure!(client.info("rdb_last_bgsave_status")?.as_deref() == Some("ok"));
            Ok(())
        })?;
    }
    Ok(())
}

/// Redis empties itself and reads its data back, from the snapshot and from the log.
#[test]
fn reload_under_load() -> Result<()> {
    for policy in POLICIES {
        survives(policy, Under::policy(policy), |server| {
            server.redis.client()?.command(&["DEBUG", "RELOAD"])?;
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn load_the_log_again() -> Result<()> {
    for policy in ["window", "batch", "batch_process"] {
        survives(policy, Under::policy(policy), |server| {
            server.redis.client()?.command(&["DEBUG", "LOADAOF"])?;
            Ok(())
        })?;
    }
    Ok(())
}

/// The log goes away and comes back: as a new file, with another name at first.
#[test]
fn log_off_and_on_under_load() -> Result<()> {
    for policy in POLICIES {
        survives(policy, Under::policy(policy), |server| {
            let mut client = server.redis.client()?;
            client.command(&["CONFIG", "SET", "appendonly", "no"])?;
            client.command(&["CONFIG", "SET", "appendonly", "yes"])?;
            server.until_info("aof_rewrite_scheduled", "0")?;
            server.until_info("aof_rewrite_in_progress", "0")?;
            server.until_info("aof_enabled", "1")
        })?;
    }
    Ok(())
}

/// `appendfsync` is changed under the policy: Redis then syncs from another thread, or not at all.
#[test]
fn other_appendfsync_under_load() -> Result<()> {
    for policy in ["delayed_fsync", "window"] {
        survives(policy, Under::policy(policy), |server| {
            let mut client = server.redis.client()?;
            for value in ["everysec", "no", "always"] {
                client.command(&["CONFIG", "SET", "appendfsync", value])?;
            }
            client.command(&["CONFIG", "SET", "appendfsync", "everysec"])?;
            server.rewrite()?;
            client.command(&["CONFIG", "SET", "appendfsync", "always"])?;
            Ok(())
        })?;
    }
    Ok(())
}

/// While a child writes, Redis leaves out its syncs; afterwards they are made up.
#[test]
fn no_sync_during_a_rewrite() -> Result<()> {
    let under = Under::policy("window").line("no-appendfsync-on-rewrite", "yes");
    survives("window", under, Server::rewrite)
}

/// The manifest, the base file and the snapshot are no logs: they are synced as Redis asks.
#[test]
fn other_files_are_synced_at_once() -> Result<()> {
    let _turn = heavy()?;
    let mut server = Under::policy("everysec").start()?;
    let acknowledged = server.write(2, 1, 200, 0).join();
    server.rewrite()?;
    server.redis.stop(Stop::Kill)?;
    let dir = server.redis.aof_dir();
    for part in ["manifest", "base"] {
        let unsynced = server.witness.unsynced(&dir, part)?;
        ensure!(unsynced.is_empty(), "{unsynced:?}");
    }
    server.restart()?;
    ensure!(acknowledged.missing(&mut server.redis.client()?)?.is_empty());
    Ok(())
}
