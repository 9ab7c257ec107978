//! The patched Redis: as before when nothing is attached, asking its entries when something is, and
//! under the agent with the target `redis.patched`.
//!
//! It is built once, from Debian's source, by `runtime-bridge/redis/build.sh`.

use anyhow::{Context, Result, bail, ensure};
use durac_tests::server::{Server, Under, until, until_written};
use durac_tests::{agent, cc, heavy, patched_redis, tool};
use durac_workload::{Stop, child};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// Clients at work when the power goes.
const CLIENTS: u32 = 4;

/// A ready policy, for the patched Redis.
fn policy(dir: &TempDir, name: &str) -> Result<PathBuf> {
    let list = durac_tests::run_durac(["list", "--show", name])?;
    ensure!(list.stdout.contains("target redis.aof"), "{}", durac_tests::show(&list));
    let path = dir.path().join(format!("{name}.dur"));
    fs::write(&path, list.stdout.replace("target redis.aof", "target redis.patched"))?;
    Ok(path)
}

fn under(policy: PathBuf) -> Result<Under> {
    Ok(Under::policy(policy).program(patched_redis()?))
}

#[test]
fn nothing_attached_loses_nothing() -> Result<()> {
    let _turn = heavy()?;
    let mut server = Under::nothing().program(patched_redis()?).start()?;
    let writers = server.write(CLIENTS, 1, u64::MAX, 0);
    until_written(&writers, 1_000)?;
    server.rewrite()?;
    until_written(&writers, writers.so_far() + 500)?;
    server.redis.stop(Stop::Kill)?;
    let acknowledged = writers.join();
    let logs = server.witness.logs()?;
    ensure!(logs.max_pending == 0 && logs.acknowledged > 0, "{logs:?}");
    server.witness.lose_power(&server.redis.aof_dir())?;
    server.restart()?;
    let missing = acknowledged.missing(&mut server.redis.client()?)?;
    ensure!(missing.is_empty(), "{} lost", missing.len());
    Ok(())
}

/// Redis' own tests of its log, on the build that nothing is attached to, and under a policy. Those of rewrites, which
/// take longer than all others, are run under the policy.
#[test]
fn its_own_tests_of_the_log() -> Result<()> {
    let _turn = heavy()?;
    let units = ["integration/aof", "integration/aof-multi-part", "integration/aof-race"];
    suite(&["--baseport", "11111"], &units, &["without durac", "window:n=64"], 75)
}

#[test]
fn its_own_tests_of_rewrites() -> Result<()> {
    let _turn = heavy()?;
    suite(&["--alone", "--baseport", "12111"], &["unit/aofrw"], &["window:n=64"], 20)
}

/// Runs these units; each row of the table has at least so many tests, and none that failed.
fn suite(options: &[&str], units: &[&str], rows: &[&str], least: u64) -> Result<()> {
    agent()?;
    let folder = patched_redis()?;
    let folder = folder.ancestors().nth(3).context("no folder")?;
    let mut command = child::command(&[], &child::which("bash")?);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/redis-suite.sh")).args(options);
    command.arg("window:n=64").arg("--").args(units);
    command.env("DURAC", tool()?).env("DURAC_REDIS", folder);
    let ended = child::run(command, Duration::from_secs(600))?;
    ensure!(ended.status.success(), "{}", durac_tests::show(&ended));
    for row in rows {
        let row = ended.stdout.lines().find_map(|line| line.strip_prefix(row)).context("no row")?;
        let numbers: Vec<u64> = row.split_whitespace().map_while(|n| n.parse().ok()).collect();
        // Passed, failed.
        ensure!(numbers.first() >= Some(&least) && numbers.get(1) == Some(&0), "{}", ended.stdout);
    }
    Ok(())
}

/// The agent keeps the bound of a policy that is asked by the entries alone.
#[test]
fn the_agent_keeps_its_bounds() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    for (name, set, syncs) in
        [("always", None, 0), ("delayed_fsync", None, 1), ("window", Some("n=8"), 8)]
    {
        let mut under = under(policy(&dir, name)?)?;
        if let Some(set) = set {
            under = under.set(set);
        }
        let mut server = under.start()?;
        let writers = server.write(CLIENTS, 1, u64::MAX, 0);
        until_written(&writers, 1_000)?;
        server.rewrite()?;
        until_written(&writers, writers.so_far() + 1_000)?;
        server.redis.stop(Stop::Kill)?;
        let acknowledged = writers.join();
        let logs = server.witness.logs()?;
        // The calls of the entries do not pass libc: only the agent's own syncs do.
        ensure!(logs.syncs > 0 && logs.failed == 0, "{name}: {logs:?}");
        server.witness.lose_power(&server.redis.aof_dir())?;
        server.restart()?;
        let missing = acknowledged.missing(&mut server.redis.client()?)?.len() as u64;
        let bound = syncs * u64::from(CLIENTS);
        ensure!(missing <= bound, "{name}: {missing} of at most {bound} lost");
        drop(server);
    }
    Ok(())
}

/// The policy decides what the entries ask, and nothing is missing after any end.
#[test]
fn the_agent_is_asked_by_the_entries() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let path = dir.path().join("never.dur");
    fs::write(&path, "target redis.patched\non fdatasync: skip\n")?;
    let mut server = under(path)?.start()?;
    let before = server.witness.logs()?.syncs;
    let acknowledged = server.write(CLIENTS, 1, 500, 0).join();
    ensure!(acknowledged.errors.is_empty(), "{:?}", acknowledged.errors);
    let skipped = server.witness.logs()?.syncs - before;
    ensure!(skipped < 100, "{skipped} syncs although all are skipped");
    // Before another file follows, what was skipped is synced: at the rewrite, and at the end.
    server.rewrite()?;
    server.reads_back(Stop::Shutdown, &[&acknowledged])?;
    let path = policy(&dir, "window")?;
    let mut server = under(path)?.start()?;
    for how in [Stop::Shutdown, Stop::Term, Stop::Kill] {
        let acknowledged = server.write(CLIENTS, 4, 400, how as u32 * 10).join();
        ensure!(acknowledged.errors.is_empty(), "{:?}", acknowledged.errors);
        server.reads_back(how, &[&acknowledged])?;
    }
    Ok(())
}

#[test]
fn a_failed_sync_ends_redis_under_the_agent() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    for name in ["always", "window"] {
        let mut server = under(policy(&dir, name)?)?.env("DURAC_TEST_EIO_ONCE", "100").start()?;
        let acknowledged = server.write(CLIENTS, 1, u64::MAX, 0).join();
        ensure!(!acknowledged.errors.is_empty(), "{name}: nothing failed");
        let status = server.redis.wait(Duration::from_secs(300))?.context("a status")?;
        ensure!(status.code() == Some(1), "{name}: {status}");
        ensure!(
            server.redis.log().contains("Input/output error"),
            "{name}: {}",
            server.redis.log()
        );
    }
    Ok(())
}

/// The agent says so when the application has no entries, and leaves it alone.
#[test]
fn an_unpatched_redis_is_left_alone() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let under = Under::policy(policy(&dir, "window")?);
    let Err(error) = under.start() else { bail!("the policy was in force") };
    ensure!(format!("{error:#}").contains("it has no variable `durac_on_fdatasync`"), "{error:#}");
    Ok(())
}

/// A patched Redis with something at its entries.
struct Answered {
    server: Server,
    dir: TempDir,
}

impl Answered {
    fn start(appendfsync: &str, fail: Option<&str>) -> Result<Self> {
        let dir = TempDir::new()?;
        let library = cc("answers.c", "answers.so", &["-shared", "-fPIC", "-ldl"])?;
        let asked = dir.path().join("asked");
        fs::write(&asked, "")?;
        let mut under = Under::nothing()
            .program(patched_redis()?)
            .line("appendfsync", appendfsync)
            .env("LD_PRELOAD", &library.to_string_lossy())
            .env("ANSWERS", &asked.to_string_lossy());
        if let Some(fail) = fail {
            under = under.env("FAIL", fail);
        }
        Ok(Self { server: under.start()?, dir })
    }

    /// What was asked and synced of the logs, in order.
    fn asked(&self) -> Result<Vec<(String, String, i64)>> {
        let text = fs::read_to_string(self.dir.path().join("asked"))?;
        let line = |line: &str| {
            let mut words = line.split(' ');
            let (what, file) = (words.next()?.to_owned(), words.next()?.to_owned());
            Some((what, file, words.next()?.parse().ok()?))
        };
        Ok(text
            .lines()
            .filter_map(line)
            .filter(|(_, file, _)| file.contains(".incr.aof"))
            .collect())
    }
}

#[test]
fn entries_are_asked_first() -> Result<()> {
    let _turn = heavy()?;
    let answered = Answered::start("always", None)?;
    let mut client = answered.server.redis.client()?;
    for key in 0..8 {
        client.command(&["SET", &format!("k{key}"), "v"])?;
    }
    let asked: Vec<String> = answered.asked()?.into_iter().map(|(what, ..)| what).collect();
    let three = ["write", "fdatasync"].repeat(3);
    let four = [three.as_slice(), &["write", "fdatasync", "real"]].concat();
    ensure!(asked == [four.as_slice(), &four].concat(), "{asked:?}");
    // A write can be failed; Redis then ends, as on a full disk.
    let _ = client.command(&["SET", "large", &"x".repeat(2 << 20)]);
    let mut server = answered.server;
    let status = server.redis.wait(Duration::from_secs(300))?.context("a status")?;
    ensure!(status.code() == Some(1), "{status}");
    ensure!(server.redis.log().contains("File too large"), "{}", server.redis.log());
    Ok(())
}

/// What was answered and not synced is on the disk before the next file is named.
#[test]
fn a_rewrite_syncs_what_was_answered() -> Result<()> {
    let _turn = heavy()?;
    let answered = Answered::start("always", None)?;
    let mut client = answered.server.redis.client()?;
    client.command(&["SET", "k", "v"])?;
    answered.server.rewrite()?;
    let asked = answered.asked()?;
    let synced =
        asked.iter().position(|(what, file, _)| what == "real" && file.contains(".1.incr"));
    ensure!(synced == Some(2), "{asked:?}");
    Ok(())
}

/// An error is told to the entry at every later call of that log, also where Redis goes on.
#[test]
fn entries_are_told_of_errors() -> Result<()> {
    let _turn = heavy()?;
    let answered = Answered::start("everysec", Some("1"))?;
    let mut client = answered.server.redis.client()?;
    let told = |(what, _, told): &(String, String, i64)| what == "fsync" && *told == -5;
    until("a failed sync that is told", || {
        // While its last sync failed, Redis takes no writes.
        let _ = client.command(&["SET", "k", "v"]);
        Ok(answered.asked()?.iter().any(told))
    })?;
    let asked = answered.asked()?;
    let failed = asked.iter().position(|(what, _, result)| what == "real" && *result == -5);
    let failed = failed.context("nothing failed")?;
    let (before, later) = asked.split_at_checked(failed).context("no such place")?;
    ensure!(!before.iter().any(told), "{asked:?}");
    ensure!(later.iter().filter(|(what, ..)| what == "fsync").all(told), "{asked:?}");
    // The answer is the error, so Redis does not believe that all is well again.
    ensure!(client.command(&["SET", "k", "v"]).is_err(), "a write after an error");
    Ok(())
}
