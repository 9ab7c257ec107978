//! Faults of the disk itself, met by a real Redis: what was acknowledged is cut off by a power loss
//! afterwards and read back. These tests need root and FUSE.
//!
//! `DURAC_FAULT_ROUNDS` runs more rounds than one, each with its fault at another moment.

use anyhow::{Context, Result, bail, ensure};
use durac_disk::plan::Effect;
use durac_disk::{Cut, Fault, Image, Mounted, Op, Plan, private_mounts};
use durac_shm::status::Status;
use durac_support::Random;
use durac_tests::heavy;
use durac_tests::server::{Server, Under, until, until_written};
use durac_workload::writers::Acknowledged;
use durac_workload::{RedisConfig, Stop};
use std::fs::{self, OpenOptions};
use std::time::Duration;

const CLIENTS: u32 = 4;
/// The log that is written to.
const LOG: &str = ".incr.aof";
/// How long a healthy sync takes.
const LATENCY: Duration = Duration::from_millis(1);

/// A server on a disk. The server goes first when both are dropped.
struct OnDisk {
    server: Server,
    disk: Mounted,
}

fn plan(faults: Vec<Fault>) -> Plan {
    Plan { latency: LATENCY, faults, room: None }
}

fn fault(op: Op, after: u64, times: Option<u64>, effect: Effect) -> Fault {
    Fault { op, path: LOG.into(), after, times, effect }
}

impl OnDisk {
    fn start(under: Under) -> Result<Self> {
        private_mounts()?;
        let disk = Mounted::new(Image::new(), plan(Vec::new()))?;
        let under = Under { data: Some(disk.join("data")), ..under };
        Ok(Self { server: under.start()?, disk })
    }

    /// The power goes; Redis alone, on what is left. An error if it does not start on it.
    fn after_power_loss(mut self) -> Result<Self> {
        self.server.redis.stop(Stop::Kill).ok();
        let image = self.disk.after_cut(Cut::Clean, 0)?.image;
        let disk = Mounted::new(image, plan(Vec::new()))?;
        let alone = RedisConfig { data: Some(disk.join("data")), ..RedisConfig::new("always") };
        self.server.redis.config = alone;
        self.server.redis.launch().context("Redis does not start on what is left")?;
        Ok(Self { server: self.server, disk })
    }

    fn missing(&self, acknowledged: &Acknowledged) -> Result<Vec<String>> {
        Ok(acknowledged.missing(&mut self.server.redis.client()?)?)
    }
}

/// Whether what is missing is the end of what each client wrote.
fn is_an_end(missing: &[String], acknowledged: &Acknowledged) -> bool {
    (acknowledged.from..).zip(&acknowledged.counts).all(|(writer, &count)| {
        let gone = missing.iter().filter_map(|key| key.split_once(':'));
        let gone = gone.filter(|(of, _)| *of == writer.to_string()).count() as u64;
        let last = |n: &u64| missing.contains(&format!("{writer}:{n}"));
        (count - gone..count).all(|n| last(&n))
    })
}

fn rounds() -> u64 {
    std::env::var("DURAC_FAULT_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// Some number below `end`, another for each round and place.
fn some(round: u64, place: usize, end: u64) -> u64 {
    Random(round << 8 | place as u64).below(end)
}

/// One sync fails, at any moment. Redis gets that error and ends; no more is lost than the policy may
/// lose, and what is lost is the end.
#[test]
fn one_sync_fails_at_any_moment() -> Result<()> {
    let _turn = heavy()?;
    // The policy, what it can lose, and the syncs among which one fails: some coalesce more.
    let policies: [(Option<&str>, Option<u64>, u64); 9] = [
        (None, Some(0), 200),
        (Some("always"), Some(0), 200),
        (Some("delayed_fsync"), Some(1), 200),
        (Some("fast_notify"), Some(1), 200),
        (Some("window"), Some(64), 40),
        (Some("adaptive"), Some(1024), 20),
        (Some("batch"), Some(47), 40),
        (Some("batch_process"), Some(48), 40),
        (Some("everysec"), None, 2),
    ];
    let errors = [(libc::EIO, "Input/output error"), (libc::ENOSPC, "No space left on device")];
    for round in 0..rounds() {
        for (place, (policy, bound, among)) in policies.into_iter().enumerate() {
            let (errno, text) = errors[(round as usize + place) % 2];
            let after = some(round, place, among);
            let what = format!("{policy:?}, sync {after}, {text}");
            let mut on = OnDisk::start(policy.map_or_else(Under::nothing, Under::policy))?;
            let once = fault(Op::Sync, after, Some(1), Effect::Fail(errno));
            on.disk.plan(plan(vec![once]));
            let acknowledged = on.server.write(CLIENTS, 1, u64::MAX, 0).join();
            let status = on.server.redis.wait(Duration::from_secs(300))?.context("a status")?;
            ensure!(status.code() == Some(1), "{what}: {status}");
            let log = on.server.redis.log();
            ensure!(log.contains(text), "{what}: {log}");
            let seen = on.server.witness.logs()?;
            ensure!(seen.failed == 1 && seen.refused > 0, "{what}: {seen:?}");
            let on = on.after_power_loss().context(what.clone())?;
            let missing = on.missing(&acknowledged)?;
            ensure!(is_an_end(&missing, &acknowledged), "{what}: {missing:?}");
            if let Some(bound) = bound {
                ensure!(seen.max_pending <= bound, "{what}: {seen:?}");
                let lost = missing.len() as u64;
                ensure!(lost <= bound * u64::from(CLIENTS), "{what}: {lost} are lost");
            }
        }
    }
    Ok(())
}

/// What became of one client's writes around a failed sync.
struct Around {
    on: OnDisk,
    acknowledged: Acknowledged,
    /// How many of them came after the first refusal.
    after_refusal: u64,
}

/// Redis with `appendfsync everysec` on a disk of which one sync fails. Writes until that was refused
/// and, if Redis takes writes again, until those are synced.
fn around_a_failed_sync(under: Under) -> Result<Around> {
    let on = OnDisk::start(under.line("appendfsync", "everysec"))?;
    let mut faulty = plan(vec![fault(Op::Sync, 1, Some(1), Effect::Fail(libc::EIO))]);
    // Writes come in while it fails, so that Redis has something to sync again.
    faulty.latency = Duration::from_millis(100);
    on.disk.plan(faulty);
    let mut client = on.server.redis.client()?;
    let (mut count, mut refused_at, mut tries, mut enough) = (0_u64, None, 0, None);
    until("a refusal and what follows", || {
        let number = count.to_string();
        match client.command(&["SET", &format!("0:{number}"), &number]) {
            Ok(_) => count += 1,
            Err(error) if error.to_string().contains("MISCONF") => {
                refused_at.get_or_insert(count);
                tries += 1;
            }
            Err(error) => bail!("{error}"),
        }
        if refused_at.is_some_and(|at| count > at + 50) {
            enough.get_or_insert(on.disk.syncs() + 2);
        }
        // So often refused, over seconds: that is for good.
        Ok(tries == 1000 || enough.is_some_and(|syncs| on.disk.syncs() >= syncs))
    })?;
    let after_refusal = count - refused_at.context("no refusal")?;
    let acknowledged =
        Acknowledged { from: 0, counts: vec![count], errors: Vec::new(), last: Vec::new() };
    Ok(Around { on, acknowledged, after_refusal })
}

/// Redis' `everysec` takes a later sync for a recovery, and what the failed one covered is gone from the
/// middle of the log. Under a policy the error stays.
#[test]
fn no_silent_recovery() -> Result<()> {
    let _turn = heavy()?;
    // Whether a write fell under the sync that failed is chance.
    let mut lost_from_the_middle = false;
    for _ in 0..10 {
        let Around { on, acknowledged, after_refusal } = around_a_failed_sync(Under::nothing())?;
        ensure!(after_refusal > 0, "Redis alone did not recover: {}", on.server.redis.log());
        lost_from_the_middle = match on.after_power_loss() {
            Ok(on) => !is_an_end(&on.missing(&acknowledged)?, &acknowledged),
            Err(error) => {
                ensure!(format!("{error:#}").contains("Bad file format"), "{error:#}");
                true
            }
        };
        if lost_from_the_middle {
            break;
        }
    }
    ensure!(lost_from_the_middle, "nothing is lost from the middle");
    for policy in ["window", "everysec"] {
        let Around { on, acknowledged, after_refusal } =
            around_a_failed_sync(Under::policy(policy))?;
        ensure!(after_refusal == 0, "{policy}: {after_refusal} were taken after the error");
        let on = on.after_power_loss().context(policy)?;
        let missing = on.missing(&acknowledged)?;
        ensure!(is_an_end(&missing, &acknowledged), "{policy}: {missing:?}");
    }
    Ok(())
}

/// A write is cut short, and there is no space for the next. Once there is, the log is whole.
#[test]
fn a_write_is_cut_short() -> Result<()> {
    let _turn = heavy()?;
    for round in 0..rounds() {
        for (place, (policy, engine, lost)) in [
            (None, "", 0),
            (Some("always"), "", 0),
            (Some("delayed_fsync"), "", 0),
            (Some("window"), "", 0),
            (Some("batch"), "thread", 47),
            (Some("batch"), "io_uring", 47),
            (Some("batch_process"), "io_uring", 48),
        ]
        .into_iter()
        .enumerate()
        {
            let after = some(round, place, 100);
            let what = format!("{policy:?} {engine}, write {after}");
            let under = policy.map_or_else(Under::nothing, Under::policy);
            let mut on = OnDisk::start(under.env("DURAC_ENGINE", engine))?;
            let short = fault(Op::Write, after, Some(1), Effect::Short);
            let full = fault(Op::Write, after + 1, None, Effect::Fail(libc::ENOSPC));
            on.disk.plan(plan(vec![short, full]));
            let acknowledged = on.server.write(CLIENTS, 1, u64::MAX, 0).join();
            let status = on.server.redis.wait(Duration::from_secs(300))?.context("a status")?;
            ensure!(status.code() == Some(1), "{what}: {status}");
            on.disk.plan(plan(Vec::new()));
            on.server.redis.config.prefix.clear();
            on.server.restart().context(what.clone())?;
            let missing = on.missing(&acknowledged)?;
            ensure!(missing.len() <= lost * CLIENTS as usize, "{what}: {missing:?}");
            ensure!(is_an_end(&missing, &acknowledged), "{what}: {missing:?}");
        }
    }
    Ok(())
}

/// A sync hangs for seconds. That is seen, and Redis ends in order when it is told to meanwhile.
#[test]
fn a_stuck_disk() -> Result<()> {
    let _turn = heavy()?;
    for policy in ["always", "window", "batch"] {
        let mut on = OnDisk::start(Under::policy(policy))?;
        let status = Status::open(&on.server.status_path())?;
        let stuck = Effect::Slow(Duration::from_millis(2500));
        on.disk.plan(plan(vec![fault(Op::Sync, 20, Some(1), stuck)]));
        let writers = on.server.write(CLIENTS, 1, u64::MAX, 0);
        let line = "slow sync, ";
        until("a line about it", || Ok(on.server.redis.stderr().contains(line)))?;
        let slow: u64 = status.snapshot().logs.iter().map(|log| log.numbers.slow).sum();
        ensure!(slow == 1, "{policy}: {slow} slow");
        let end = on.server.redis.stop(Stop::Term)?.context("a status")?;
        ensure!(end.success(), "{policy}: {end}");
        let acknowledged = writers.join();
        let stderr = on.server.redis.stderr();
        ensure!(stderr.matches(line).count() == 1, "{policy}: {stderr}");
        let on = on.after_power_loss()?;
        let missing = on.missing(&acknowledged)?;
        ensure!(missing.is_empty(), "{policy}: {missing:?}");
    }
    Ok(())
}

/// Nobody can take the agent's memory away from under it.
#[test]
fn the_status_page_is_attacked() -> Result<()> {
    let _turn = heavy()?;
    let mut server = Under::policy("window").start()?;
    let writers = server.write(CLIENTS, 1, u64::MAX, 0);
    until_written(&writers, 500)?;
    let path = server.status_path();
    let file = OpenOptions::new().write(true).open(&path)?;
    ensure!(file.set_len(0).is_err(), "it was truncated");
    ensure!(fs::write(&path, "").is_err(), "it was truncated");
    fs::remove_file(&path)?;
    until_written(&writers, writers.so_far() + 500)?;
    let acknowledged = writers.stop();
    ensure!(acknowledged.errors.is_empty(), "{:?}", acknowledged.errors);
    server.reads_back(Stop::Term, &[&acknowledged])
}
