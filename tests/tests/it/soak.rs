//! Forks in a row, and load for a time: no hang, no descriptor and no memory is lost. Short by default;
//! `tests/soak.sh` runs them for as long as one likes and shows the figures.

use anyhow::{Context, Result, ensure};
use durac_tests::heavy;
use durac_tests::server::{Server, Under, until};
use durac_workload::resp::{Client, Reply};
use durac_workload::{Stop, child};
use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: usize,
    threads: u64,
    /// Resident memory that is its own, KiB.
    memory: u64,
}

fn held(server: &Server) -> Result<Held> {
    let proc = format!("/proc/{}", server.redis.pid());
    let status = fs::read_to_string(format!("{proc}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no field")?;
        Ok(line.trim_start_matches(':').split_whitespace().next().context("empty")?.parse()?)
    };
    Ok(Held {
        descriptors: fs::read_dir(format!("{proc}/fd"))?.count(),
        threads: field("Threads")?,
        memory: field("RssAnon")?,
    })
}

/// A client that writes the same keys again and again: the data stays as large as it is.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Writer {
    fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut client = Client::connect(port)?;
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    client.command(&["SET", &format!("k{}", count % 1000), "v"])?;
                    count += 1;
                }
                Ok(count)
            }
        });
        Self { stop, thread }
    }

    /// How much it wrote.
    fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the writer panicked")?
    }
}

/// Lets Redis fork so often, and answers what it held after the first tenth and at the end.
fn fork_in_a_row(server: &Server, forks: u64) -> Result<(Held, Held)> {
    let mut client = server.redis.client()?;
    let mut first = held(server)?;
    for fork in 0..forks {
        // By then it has its threads and buffers.
        if fork == forks / 10 {
            first = held(server)?;
        }
        client.command(&[if fork % 2 == 0 { "BGREWRITEAOF" } else { "BGSAVE" }])?;
        until("the end of a child", || {
            let mut over = true;
            for field in ["aof_rewrite_in_progress", "rdb_bgsave_in_progress"] {
                over &= client.info(field)?.as_deref() == Some("0");
            }
            Ok(over)
        })?;
    }
    for field in ["aof_last_bgrewrite_status", "rdb_last_bgsave_status"] {
        ensure!(client.info(field)?.as_deref() == Some("ok"), "{field}");
    }
    // Old logs are closed by a thread of Redis.
    until("as few descriptors as before", || Ok(held(server)?.descriptors <= first.descriptors))?;
    Ok((first, held(server)?))
}

/// The policies to run under: those that `DURAC_SOAK_POLICIES` names, else these.
fn policies(usual: &[&str]) -> Vec<String> {
    match std::env::var("DURAC_SOAK_POLICIES") {
        Ok(names) => names.split_whitespace().map(str::to_owned).collect(),
        Err(_) => usual.iter().map(ToString::to_string).collect(),
    }
}

/// Snapshots and log rewrites in turn, under load. `DURAC_SOAK_FORKS` says how many.
#[test]
fn forks_in_a_row() -> Result<()> {
    let forks = asked("DURAC_SOAK_FORKS", 60);
    let _turn = heavy()?;
    for policy in policies(&["window", "delayed_fsync", "batch"]) {
        let policy = policy.as_str();
        // Redis looks after its children in the rhythm of its timer.
        let mut server = Under::policy(policy).line("hz", "500").start()?;
        let writer = Writer::start(server.redis.port());
        let began = Instant::now();
        let (first, last) = fork_in_a_row(&server, forks).context(policy.to_owned())?;
        let took = began.elapsed().as_secs();
        let wrote = writer.stop()?;
        println!(
            "{policy}: {forks} forks and {wrote} writes in {took} s: {first:?}, then {last:?}"
        );
        ensure!(wrote > forks, "{policy}: {wrote} writes");
        // The agent may have its 16 syncer threads by then, and no more after any number of forks.
        ensure!(last.threads <= first.threads + 16, "{policy}: {first:?}, then {last:?}");
        server.reads_back(Stop::Shutdown, &[])?;
        let keys = server.redis.client()?.command(&["DBSIZE"])?;
        ensure!(keys == Reply::Integer(wrote.min(1000) as i64), "{policy}: {keys:?}");
    }
    Ok(())
}

/// Samples for so long what the server holds.
fn sample(server: &Server, time: Duration) -> Result<Vec<Held>> {
    let until = Instant::now() + time;
    let mut samples = Vec::new();
    while Instant::now() < until {
        samples.push(held(server)?);
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(samples)
}

/// Load at a steady size. `DURAC_SOAK_SECONDS` says for how long under each policy.
#[test]
fn load_at_constant_memory() -> Result<()> {
    let seconds = asked("DURAC_SOAK_SECONDS", 4);
    let _turn = heavy()?;
    for policy in policies(&["window", "batch"]) {
        let policy = policy.as_str();
        let server = Under::policy(policy).line("auto-aof-rewrite-min-size", "16mb").start()?;
        let mut command = child::command(&[], &child::which("redis-benchmark")?);
        command.args(["-p", &server.redis.port().to_string(), "-t", "set", "-r", "1000"]);
        command.args(["-d", "100", "-c", "10", "-n", "1000000000", "-q"]).stdout(Stdio::null());
        let mut benchmark = command.spawn()?;
        let samples = sample(&server, Duration::from_secs(seconds));
        benchmark.kill()?;
        benchmark.wait()?;
        let samples = samples?;
        let commands = server.redis.client()?.info("total_commands_processed")?.context("none")?;
        // The first tenth fills buffers, tables and the keys.
        let steady = samples.get(samples.len() / 10..).unwrap_or_default();
        let most = |held: &[Held]| held.iter().map(|held| held.memory).max().unwrap_or(0);
        let (early, late) = steady.split_at(steady.len() / 2);
        let (early, late) = (most(early), most(late));
        println!(
            "{policy}: {commands} commands in {seconds} s: at most {early} KiB in the first half, \
             {late} KiB in the second; at last {:?}",
            samples.last()
        );
        // Buffers of clients and of rewrites come and go; what grows with the commands is far more.
        ensure!(late < early + early / 4 + 4096, "{policy}: {early} KiB, then {late} KiB");
    }
    Ok(())
}
