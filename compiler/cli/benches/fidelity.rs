//! How near the simulator comes: records Redis under `always`, simulates policies, runs the same
//! policies for real, and compares.
//!
//!     cargo build --release && cargo bench -p durac-cli --bench fidelity -- [ROUNDS [REQUESTS [TRIES [KEEP]]]]
//!
//! Each round does all of it, one thing after the other, for 5 and for 50 clients: the machine's
//! speed drifts, and a recording says nothing of another hour. The table has the medians of the
//! rounds, and of the rounds' quotients of the two. A measurement waits for an idle machine, and is
//! made again, up to TRIES times, when other programs have used much of the processors meanwhile.
//! With one try it neither waits nor looks.
//!
//! KEEP is a folder for the recordings and the real speeds. What is there already is not measured
//! again, so a change of the simulator can be judged without the noise of another measurement.

use durac_simulate::report::Report;
use durac_workload::bench::{self, Config, Load, Mode, Workload};
use durac_workload::{Redis, RedisConfig, Stop, redis_benchmark};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What is compared, as `durac simulate -p` and `durac bench` take it.
const POLICIES: [&str; 10] = [
    "always",
    "delayed_fsync",
    "fast_notify",
    "window:n=4",
    "window:n=16",
    "window:n=64",
    "window:n=256",
    "adaptive",
    "everysec",
    "no",
];
const CLIENTS: [u32; 2] = [5, 50];
const KEYSPACE: u64 = 100_000_000;
/// Real speeds nearer to each other than this are not in any order.
const SAME: f64 = 0.1;

/// Others may use this share of the processors before a measurement, ...
const IDLE: f64 = 0.1;
/// ... for which it waits this many quarters of a second, ...
const IDLE_LOOKS: u32 = 40;
/// ... and this share during one; the kernel's threads that write for us are among them.
const DISTURBED: f64 = 0.2;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Speeds of one policy with one number of clients, a value for each round.
#[derive(Clone, Default)]
struct Speeds {
    real: Vec<f64>,
    simulated: Vec<f64>,
}

fn main() -> Result<()> {
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let mut numbers = words.iter().filter_map(|word| word.parse().ok());
    let (rounds, requests) = (numbers.next().unwrap_or(5), numbers.next().unwrap_or(40_000));
    let tries = numbers.next().unwrap_or(6);
    let keep = words.get(3).map(PathBuf::from);
    let mut speeds = vec![vec![Speeds::default(); POLICIES.len()]; CLIENTS.len()];
    for round in 0..rounds as usize {
        for (clients, speeds) in CLIENTS.into_iter().zip(&mut speeds) {
            let dir = tempfile::tempdir_in(".")?;
            let kept = keep.as_deref().unwrap_or(dir.path()).join(format!("{clients}-{round}"));
            std::fs::create_dir_all(&kept)?;
            let trace = kept.join("trace.json");
            if !trace.exists() {
                undisturbed(tries, || record(&trace, clients, requests))?;
            }
            let known = kept.join("real.json");
            if !known.exists() {
                let real = measure(clients, requests, round, tries)?;
                std::fs::write(&known, serde_json::to_string(&real)?)?;
            }
            let real: Vec<f64> = serde_json::from_str(&std::fs::read_to_string(&known)?)?;
            for ((speed, simulated), real) in speeds.iter_mut().zip(simulate(&trace)?).zip(real) {
                speed.simulated.push(simulated);
                speed.real.push(real);
            }
        }
    }
    for (clients, speeds) in CLIENTS.into_iter().zip(&speeds) {
        print(clients, requests, rounds, speeds);
    }
    Ok(())
}

/// Records `always`.
fn record(trace: &Path, clients: u32, requests: u64) -> Result<()> {
    let dir = tempfile::tempdir_in(".")?;
    let _ = std::fs::remove_file(trace);
    let durac = env!("CARGO_BIN_EXE_durac");
    let prefix = [durac, "record", "-o", &trace.to_string_lossy(), "--"];
    let config = RedisConfig {
        parent: Some(dir.path().to_owned()),
        has_parent: true,
        ..RedisConfig::new("always")
    };
    let mut redis = Redis::start(config.prefix(prefix))?;
    redis_benchmark(&redis, Load { clients, pipeline: 1 }, requests, KEYSPACE)?;
    redis.stop(Stop::Shutdown)?;
    Ok(())
}

/// Answers the simulated speed of each policy.
fn simulate(trace: &Path) -> Result<Vec<f64>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_durac"));
    command.arg("simulate").arg(trace).args(["--json", "-"]);
    for policy in POLICIES {
        command.args(["-p", policy]);
    }
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let report: Report = serde_json::from_slice(&output.stdout)?;
    Ok(report.policies.iter().map(|p| p.commands_per_second.unwrap_or(0.0)).collect())
}

/// Runs each policy and returns their speeds.
fn measure(clients: u32, requests: u64, round: usize, tries: u64) -> Result<Vec<f64>> {
    // As the rounds of a bench: each begins with another, every second goes backwards.
    let len = POLICIES.len();
    let mut order: Vec<usize> = (0..len).map(|i| (i + round * 3) % len).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    let mut speeds = vec![0.0; len];
    for at in order {
        let policy = POLICIES.get(at).copied().unwrap_or_default();
        if let Some(speed) = speeds.get_mut(at) {
            *speed = undisturbed(tries, || run(policy, clients, requests))?;
        }
    }
    Ok(speeds)
}

/// Runs one policy and returns its speed.
fn run(policy: &str, clients: u32, requests: u64) -> Result<f64> {
    let report = bench::run(&Config {
        workload: Workload::Redis,
        durac: env!("CARGO_BIN_EXE_durac").into(),
        server: None,
        modes: vec![mode(policy)],
        loads: vec![Load { clients, pipeline: 1 }],
        rounds: 1,
        requests,
        keyspace: KEYSPACE,
        reads: 0,
        writers: None,
        sync_takes: None,
        dir: Some(".".into()),
    })?;
    Ok(report.rows.first().map_or(0.0, |row| row.rps.median))
}

/// Measures on a machine where little else happens, as far as that can be had.
fn undisturbed<T>(tries: u64, mut measure: impl FnMut() -> Result<T>) -> Result<T> {
    let mut made = 0;
    loop {
        for _ in 0..if tries > 1 { IDLE_LOOKS } else { 0 } {
            let before = Busy::now()?;
            std::thread::sleep(Duration::from_millis(250));
            if Busy::now()?.others_since(&before) < IDLE {
                break;
            }
        }
        let before = Busy::now()?;
        let measured = measure()?;
        made += 1;
        let others = Busy::now()?.others_since(&before);
        if others < DISTURBED || made >= tries {
            return Ok(measured);
        }
    }
}

/// Processor time since the machine was started, in ticks.
struct Busy {
    all: u64,
    idle: u64,
    ours: u64,
}

impl Busy {
    fn now() -> Result<Self> {
        let numbers = |text: &str| -> Vec<u64> {
            text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
        };
        // proc(5): user, nice, system, idle, iowait, irq, softirq, steal.
        let stat = std::fs::read_to_string("/proc/stat")?;
        let times = numbers(stat.lines().next().unwrap_or(""));
        let all = times.iter().take(8).sum();
        let idle = times.iter().skip(3).take(2).sum();
        // Ours: utime, stime, and those of the children that have ended, fields 14 to 17.
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        let fields = stat.rsplit(')').next().unwrap_or("");
        let ours = fields.split_whitespace().skip(11).take(4).filter_map(|f| f.parse::<u64>().ok());
        Ok(Self { all, idle, ours: ours.sum() })
    }

    /// Share of the processors that was used by others.
    fn others_since(&self, before: &Self) -> f64 {
        let all = (self.all - before.all).max(1);
        let busy = all.saturating_sub(self.idle - before.idle);
        busy.saturating_sub(self.ours - before.ours) as f64 / all as f64
    }
}

/// `FILE:name=value` as a mode of that name.
fn mode(policy: &str) -> Mode {
    let (file, sets) = policy.split_once(':').unwrap_or((policy, ""));
    let sets = sets.split(',').filter_map(|set| set.split_once('='));
    let sets = sets.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Mode::policy(policy, Path::new(file), sets, "", None)
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn print(clients: u32, requests: u64, rounds: u64, speeds: &[Speeds]) {
    println!("\nSET by redis-benchmark -c {clients}, {requests} requests, {rounds} rounds, req/s");
    println!("policy            real  simulated  simulated/real      min..max");
    let mut medians = Vec::new();
    for (name, speed) in POLICIES.iter().zip(speeds) {
        let quotients = speed.simulated.iter().zip(&speed.real).map(|(s, r)| s / r.max(1.0));
        let quotients: Vec<f64> = quotients.collect();
        let (least, most) =
            quotients.iter().fold((f64::MAX, 0.0_f64), |(l, m), q| (l.min(*q), m.max(*q)));
        let (real, simulated) =
            (median(speed.real.iter().copied()), median(speed.simulated.iter().copied()));
        let middle = median(quotients);
        println!(
            "{name:<13}  {real:>7.0}  {simulated:>9.0}  {middle:>14.2}  {least:>6.2}..{most:.2}"
        );
        medians.push((name, real, simulated));
    }
    let mut wrong = Vec::new();
    for (at, (slow, real, simulated)) in medians.iter().enumerate() {
        for (fast, more, predicted) in medians.iter().skip(at + 1) {
            let apart = (more / real).ln().abs() > SAME;
            if apart && (more > real) != (predicted > simulated) {
                wrong.push(format!("{slow} and {fast}"));
            }
        }
    }
    let shown = if wrong.is_empty() { "right".to_owned() } else { wrong.join(", ") };
    println!("order of policies that differ by more than 10 %: {shown}");
}
