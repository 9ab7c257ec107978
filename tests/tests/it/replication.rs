//! A replica that attaches under load: the snapshot is taken by a forked child, to a file or to the
//! socket, while writes are staged and syncs deferred. Both sides are under the policy, and the replica
//! begins a new log when it has the snapshot.

use anyhow::{Result, ensure};
use durac_tests::server::{Server, Under, until, until_written};
use durac_tests::{durac, heavy, run, show};
use durac_workload::Stop;
use std::path::Path;
use tempfile::TempDir;

const CLIENTS: u32 = 5;

/// What is in the database: a digest of all keys and values.
fn digest(server: &Server) -> Result<String> {
    Ok(server.redis.client()?.text(&["DEBUG", "DIGEST"])?)
}

fn info(server: &Server, field: &str) -> Result<Option<String>> {
    Ok(server.redis.client()?.info(field)?)
}

fn replicates(object: &Path, diskless: &str) -> Result<()> {
    let start = || {
        Under::policy(object)
            .line("repl-diskless-sync", diskless)
            .line("repl-diskless-sync-delay", "0")
            .start()
    };
    let (mut master, mut replica) = (start()?, start()?);
    let writers = master.write(CLIENTS, 4, u64::MAX, 0);
    until_written(&writers, 1_000)?;
    let port = master.redis.port().to_string();
    replica.redis.client()?.command(&["REPLICAOF", "127.0.0.1", &port])?;
    replica.until_info("master_link_status", "up")?;
    until_written(&writers, writers.so_far() + 1_000)?;
    let acknowledged = writers.stop();
    ensure!(acknowledged.errors.is_empty(), "{:?}", acknowledged.errors);
    until("a replica that has everything", || {
        Ok(info(&master, "master_repl_offset")? == info(&replica, "slave_repl_offset")?)
    })?;
    let all = digest(&master)?;
    ensure!(all.chars().any(|c| c != '0'), "{all}");
    ensure!(digest(&replica)? == all, "the replica differs");
    ensure!(acknowledged.missing(&mut replica.redis.client()?)?.is_empty());
    ensure!(info(&master, "sync_full")?.as_deref() == Some("1"), "no snapshot was sent");
    // How it was sent: to a file, or to the socket.
    let sent =
        if diskless == "yes" { "with target: replicas sockets" } else { "with target: disk" };
    ensure!(master.redis.log().contains(sent), "{}", master.redis.log());
    // The replica's log begins anew with what it was sent.
    replica.until_info("aof_rewrite_scheduled", "0")?;
    replica.until_info("aof_rewrite_in_progress", "0")?;
    for (server, name) in [(&mut replica, "replica"), (&mut master, "master")] {
        ensure!(server.witness.logs()?.failed == 0, "{name}");
        server.redis.stop(Stop::Shutdown)?;
        server.restart()?;
        ensure!(digest(server)? == all, "the log of the {name} differs");
    }
    Ok(())
}

#[test]
fn a_replica_attaches_under_load() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    for policy in ["batch", "window"] {
        // Compiled once for all its starts.
        let object = dir.path().join(policy);
        let mut command = durac(["compile", policy, "-o"])?;
        command.arg(&object);
        let ended = run(command)?;
        ensure!(ended.status.success(), "{}", show(&ended));
        for diskless in ["yes", "no"] {
            replicates(&object, diskless)
                .map_err(|error| error.context(format!("{policy}, diskless: {diskless}")))?;
        }
    }
    Ok(())
}
