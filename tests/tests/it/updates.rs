//! What the agent counts of a real Redis' log: every command that a replay finds there, and no less when the
//! log is rewritten.

use anyhow::{Context, Result, ensure};
use durac_shm::status::{Counting, LogNumbers, Status};
use durac_tests::heavy;
use durac_tests::server::{Server, Under, until, until_written};
use durac_workload::Stop;
use std::fs;

/// Nothing is synced until the log is closed.
const ALL: &str = "policy all
target redis.aof
on fdatasync: if pending.updates > 1000000 { pass }; skip
flush within 1min
";

/// The log that is open.
fn log(server: &Server) -> Result<LogNumbers> {
    let status = Status::open(&server.status_path())?;
    let mut open = status.snapshot().logs.into_iter().map(|log| log.numbers);
    open.find(|numbers| numbers.descriptors > 0).context("no log is open")
}

/// Commands of a log that change something, one after the other.
fn commands(mut log: &[u8]) -> Result<u64> {
    let mut updates = 0;
    let line = |log: &mut &[u8]| -> Result<String> {
        let end = log.windows(2).position(|two| two == b"\r\n").context("a line without end")?;
        let (line, rest) = log.split_at(end);
        *log = rest.get(2..).unwrap_or_default();
        Ok(String::from_utf8_lossy(line).into_owned())
    };
    while !log.is_empty() {
        let head = line(&mut log)?;
        if head.starts_with('#') {
            continue;
        }
        let count: usize = head.strip_prefix('*').context(head.clone())?.parse()?;
        let mut name = Vec::new();
        for argument in 0..count {
            let length: usize = line(&mut log)?.strip_prefix('$').context("no length")?.parse()?;
            let value = log.get(..length).context("a value without end")?;
            if argument == 0 {
                name = value.to_ascii_uppercase();
            }
            log = log.get(length + 2..).unwrap_or_default();
        }
        let free: [&[u8]; 3] = [b"SELECT", b"MULTI", b"EXEC"];
        updates += u64::from(!free.contains(&name.as_slice()));
    }
    Ok(updates)
}

#[test]
fn every_command_of_the_log_is_counted() -> Result<()> {
    let _turn = heavy()?;
    let dir = tempfile::tempdir()?;
    let policy = dir.path().join("all.dur");
    fs::write(&policy, ALL)?;
    let mut server = Under::policy(policy).line("aof-timestamp-enabled", "yes").start()?;
    let mut client = server.redis.client()?;
    let value: &[u8] = b"*1\r\n$4\r\nEXEC\r\n\0\xff$9\r\n";
    client.command(&[b"SET".as_slice(), b"binary", value])?;
    client.command(&["SELECT", "3"])?;
    for command in [
        vec!["MULTI"],
        vec!["INCR", "a"],
        vec!["SET", "b", "MULTI"],
        vec!["EXEC"],
        vec!["SET", "c", "1", "PX", "1"],
        vec!["EVAL", "for i = 1, 5 do redis.call('RPUSH', KEYS[1], i) end", "1", "list"],
        vec!["GET", "c"],
        vec!["DEL", "a", "b"],
    ] {
        client.command(&command)?;
    }
    client.command(&[b"SET".as_slice(), b"large", &vec![b'*'; 300_000]])?;
    let acknowledged = server.write(20, 16, 2_000, 0).join();
    ensure!(acknowledged.errors.is_empty(), "{:?}", acknowledged.errors);
    // Nothing expires any more, so nothing is written after this.
    until("the expired key is gone", || Ok(client.text(&["EXISTS", "c"]).is_err()))?;
    let seen = log(&server)?;
    let mut files =
        fs::read_dir(server.redis.aof_dir())?.filter_map(|file| Some(file.ok()?.path()));
    let path =
        files.find(|path| path.to_string_lossy().ends_with(".incr.aof")).context("no log")?;
    let there = commands(&fs::read(&path)?)?;
    ensure!(Counting::of_code(seen.counting) == Counting::Yes, "{seen:?}");
    ensure!(seen.max_updates == there && there > 40_000, "{there} in the log, {seen:?}");
    server.redis.stop(Stop::Shutdown)?;
    Ok(())
}

/// Rewrites, snapshots and a log that is switched off and on do not end the count, and the bound holds.
#[test]
fn a_rewrite_does_not_end_the_count() -> Result<()> {
    let _turn = heavy()?;
    let mut server = Under::policy("updates").set("n=50").start()?;
    let writers = server.write(5, 1, u64::MAX, 0);
    let mut most = 0;
    for disturb in ["rewrite", "snapshot", "off"] {
        until_written(&writers, writers.so_far() + 500)?;
        let mut client = server.redis.client()?;
        match disturb {
            "rewrite" => server.rewrite()?,
            "snapshot" => _ = client.command(&["SAVE"])?,
            _ => {
                client.command(&["CONFIG", "SET", "appendonly", "no"])?;
                client.command(&["CONFIG", "SET", "appendonly", "yes"])?;
                until("the log again", || {
                    Ok(client.info("aof_rewrite_in_progress")?.as_deref() == Some("0"))
                })?;
            }
        }
        until_written(&writers, writers.so_far() + 500)?;
        let seen = log(&server)?;
        ensure!(Counting::of_code(seen.counting) == Counting::Yes, "{disturb}: {seen:?}");
        ensure!(seen.max_updates <= 50, "{disturb}: {seen:?}");
        most = most.max(seen.max_updates);
    }
    ensure!(most > 4, "nothing was ever at risk");
    let acknowledged = writers.stop();
    server.reads_back(Stop::Kill, &[&acknowledged])
}
