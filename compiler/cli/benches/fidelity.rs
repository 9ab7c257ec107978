//! How near the simulator comes: records Redis under `always`, simulates policies, runs the same
//! policies for real, and compares.
//!
//!     cargo build --release && cargo bench -p durac --bench fidelity -- [ROUNDS [REQUESTS]]
//!
//! Each round does all of it, one thing after the other, for 5 and for 50 clients: the machine's
//! speed drifts, and a recording says nothing of another hour. The table has the medians of the
//! rounds, and of the rounds' quotients of the two.

use durac_sim::replay::report::Report;
use durac_workload::bench::{self, Config, Load, Mode, Workload};
use durac_workload::{Redis, RedisConfig, Stop, redis_benchmark};
use std::error::Error;
use std::path::Path;
use std::process::Command;

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

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Speeds of one policy with one number of clients, a value for each round.
#[derive(Clone, Default)]
struct Speeds {
    real: Vec<f64>,
    simulated: Vec<f64>,
}

fn main() -> Result<()> {
    // Cargo adds `--bench`.
    let mut numbers = std::env::args().skip(1).filter_map(|word| word.parse().ok());
    let (rounds, requests) = (numbers.next().unwrap_or(5), numbers.next().unwrap_or(40_000));
    let mut speeds = vec![vec![Speeds::default(); POLICIES.len()]; CLIENTS.len()];
    for round in 0..rounds as usize {
        for (clients, speeds) in CLIENTS.into_iter().zip(&mut speeds) {
            for (speed, simulated) in speeds.iter_mut().zip(simulate(clients, requests)?) {
                speed.simulated.push(simulated);
            }
            for (speed, real) in speeds.iter_mut().zip(measure(clients, requests, round)?) {
                speed.real.push(real);
            }
        }
    }
    for (clients, speeds) in CLIENTS.into_iter().zip(&speeds) {
        print(clients, requests, rounds, speeds);
    }
    Ok(())
}

/// Records `always`, and answers the simulated speed of each policy.
fn simulate(clients: u32, requests: u64) -> Result<Vec<f64>> {
    let dir = tempfile::tempdir_in(".")?;
    let trace = dir.path().join("trace.json");
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
    let mut command = Command::new(durac);
    command.arg("simulate").arg(&trace).args(["--json", "-"]);
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

/// Runs each policy, and answers their speeds.
fn measure(clients: u32, requests: u64, round: usize) -> Result<Vec<f64>> {
    let mut modes: Vec<Mode> = POLICIES.iter().map(|policy| mode(policy)).collect();
    // As the rounds of a bench: each begins with another, every second goes backwards.
    let len = modes.len();
    modes.rotate_left(round * 3 % len);
    if round % 2 == 1 {
        modes.reverse();
    }
    let report = bench::run(&Config {
        workload: Workload::Redis,
        durac: env!("CARGO_BIN_EXE_durac").into(),
        modes,
        loads: vec![Load { clients, pipeline: 1 }],
        rounds: 1,
        requests,
        keyspace: KEYSPACE,
        dir: Some(".".into()),
    })?;
    let speed = |name: &str| {
        report.rows.iter().find(|row| row.mode == name).map_or(0.0, |row| row.rps.median)
    };
    Ok(POLICIES.iter().map(|policy| speed(policy)).collect())
}

/// `FILE:name=value` as a mode of that name.
fn mode(policy: &str) -> Mode {
    let (file, sets) = policy.split_once(':').unwrap_or((policy, ""));
    let sets = sets.split(',').filter_map(|set| set.split_once('='));
    let sets = sets.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Mode::policy(policy, Path::new(file), sets, "")
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
