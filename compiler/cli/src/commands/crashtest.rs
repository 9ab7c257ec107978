//! `durac crashtest`: cuts the power of a real database again and again, and compares what is lost
//! with what was proved.

mod app;

use crate::args::{Global, RunEngine};
use crate::input::{self, Deployment};
use crate::named::{Named, Settings};
use crate::shard::Shard;
use crate::{Outcome, launch, output};
use anyhow::{Context, Result};
use clap::{Args as ClapArgs, ValueEnum};
use durac_abi::Runtime;
use durac_abi::object::{Failure, Loss, Meta};
use durac_workload::bench::Policy;
use durac_workload::columns::Align::{Left, Right};
use durac_workload::columns::columns;
use durac_workload::crash::{App, At, Config, Crash, Line, Trial, fault, millis, sync_library};
use durac_workload::machine::{self, Machine};
use durac_workload::progress;
use durac_workload::{Error, sys};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Arguments of `durac crashtest`.
#[derive(Debug, ClapArgs)]
pub struct Crashtest {
    /// Policies to test: files or ready policies, with `:name=value,…` to set parameters
    #[arg(required = true, value_name = "FILE")]
    files: Vec<Named>,
    /// Parameters of all.
    #[command(flatten)]
    settings: Settings,
    /// Crashes per policy
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u32).range(1..))]
    trials: u32,
    /// Number of the first crash, to repeat one
    #[arg(long, default_value_t = 0)]
    first: u32,
    /// Make only a part of the crashes: `2/4` is the second of four parts; `durac merge` joins the reports
    #[arg(long, value_name = "K/N")]
    shard: Option<Shard>,
    /// Kinds of crash, in turn
    #[arg(long, value_enum, value_delimiter = ',', default_value = "clean,torn,kill")]
    crash: Vec<CrashKind>,
    /// When to crash, in turn
    ///
    /// [default: random,mid-sync,after-ack, and rewrite if the application rewrites its log]
    #[arg(long, value_enum, value_delimiter = ',')]
    at: Vec<CrashAt>,
    /// The application to crash
    #[arg(long, value_enum, default_value_t = CrashApp::Redis)]
    app: CrashApp,
    /// A fault of the disk before the crash, for example `sync:eio@200` or `write:enospc@50,times=1`:
    /// eio, enospc, short (writes), eintr, slow=2s, stuck (syncs), after N such operations
    #[arg(long, value_name = "OP:WHAT[@N]", value_parser = parse_fault)]
    fault: Vec<String>,
    /// Clients that write
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: u32,
    /// What runs the policy, and with the agent what writes staged data [default: the supervisor where the agent
    /// cannot go, else what the target names, else `thread`]
    #[arg(long, value_enum)]
    engine: Option<RunEngine>,
    /// Duration of a sync of the disk, in microseconds
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 500)]
    latency: u64,
    /// Random seed; repeats the same choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// The command crashed is any program, which prints a line for each acknowledged sync; this shell command prints
    /// the lines that are left, and fails if the data are damaged. `{dir}` is the folder of the data
    #[arg(long, value_name = "COMMAND", requires = "command")]
    check: Option<String>,
    /// Lines that one sync acknowledges at most, one of each writer
    #[arg(long, value_name = "N", default_value_t = 1, requires = "check")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    per_sync: u32,
    /// Compare with a loss of N syncs instead of the proved bound: shows that a bound that is too low is found
    #[arg(long, value_name = "N")]
    claim: Option<u64>,
    /// Crash this Redis-compatible server instead, or with `--check` any program; `{port}`, `{dir}` and `{acks}` are
    /// replaced by a server's port, the folder of the data, and a pipe that takes a program's lines
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "app")]
    command: Vec<OsString>,
}

/// Checks a fault, and keeps its text to print it again.
fn parse_fault(text: &str) -> Result<String, Error> {
    fault(text).map(|_| text.to_owned())
}

impl Crashtest {
    /// When the crashes come.
    fn moments(&self) -> Vec<CrashAt> {
        use CrashAt::{AfterAck, MidSync, Random, Rewrite};
        match (self.at.is_empty(), self.app) {
            (false, _) => self.at.clone(),
            (true, _) if self.check.is_some() => vec![Random, MidSync, AfterAck],
            (true, CrashApp::Builtin) => vec![Random, MidSync, AfterAck],
            (true, CrashApp::Redis) => vec![Random, MidSync, AfterAck, Rewrite],
        }
    }
}

/// What `durac crashtest` crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CrashApp {
    /// A redis-server.
    Redis,
    /// Durac's own small server; needs no Redis.
    Builtin,
}

/// A kind of crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CrashKind {
    /// Power loss: only synced data survives.
    Clean,
    /// Power loss with a torn write: a prefix of the unsynced data survives, cut at a sector.
    Torn,
    /// Power loss: each unsynced block survives or not.
    Reordered,
    /// SIGKILL of the process; the page cache survives.
    Kill,
}

/// When a crash happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CrashAt {
    /// At a random instant.
    Random,
    /// During a sync.
    MidSync,
    /// Right after an acknowledgement.
    AfterAck,
    /// During a rewrite of the log.
    Rewrite,
}

/// Version of the JSON.
const VERSION: u32 = 1;

/// The JSON.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    version: u32,
    /// The part of the crashes that was made; none is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shard: Option<Shard>,
    machine: Machine,
    seed: u64,
    clients: u32,
    latency_us: u64,
    /// What was crashed, if it is any program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    program: Option<String>,
    /// Why it ended early; `null` if it did not.
    stopped: Option<String>,
    policies: Vec<Tested>,
}

/// What came of one policy.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Tested {
    policy: String,
    /// Which object that was: `durac_abi::object::fingerprint` of its bytes, in hexadecimal.
    object: String,
    /// Acknowledged syncs that a power loss takes at most, as proved; `null` is any number.
    power_loss: Option<u64>,
    process_crash: Option<u64>,
    /// Commands that a power loss takes at most, and their bytes in the log, as proved; `null` is any number.
    power_loss_updates: Option<u64>,
    power_loss_bytes: Option<u64>,
    /// Age of what a power loss takes at most, as proved; `null` is any age.
    power_loss_within_us: Option<u64>,
    process_crash_within_us: Option<u64>,
    /// How long a sync takes at most, as the policy assumes.
    assume_sync_us: Option<u64>,
    trials: Vec<Trial>,
    /// The crash that took the most, those that took too much first.
    worst: Option<Worst>,
}

/// How it came to the worst.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Worst {
    number: u32,
    /// The command that makes the same choices again.
    again: String,
    timeline: Vec<Line>,
}

/// Fails where this build cannot mount a disk.
///
/// # Errors
/// Exit code 2.
pub(super) fn needs_disk() -> Result<()> {
    if durac_disk::HAS_FUSE {
        return Ok(());
    }
    let message = "this `durac` is built without FUSE, for the first look; \
                   `cargo build --release -p durac-cli -p durac-disk-sync` builds what mounts a disk";
    Err(output::exit(2, message))
}

/// Tests every policy, prints the table, and returns `Wrong` if one lost too much.
pub fn run(args: &Crashtest, global: &Global) -> Result<Outcome> {
    let app = app::app(args)?;
    // What would be missed only after minutes.
    if let Some(path) = &args.json {
        output::check_unread(path, args.files.iter().map(Named::path))?;
        output::check_writable(path)?;
    }
    needs_disk()?;
    sync_library()?;
    durac_disk::private_mounts().context("cannot mount a disk: crashtest needs root")?;
    if let Some(why) = machine::is_busy_now() {
        output::error(&why);
    }
    let mut configs = Vec::new();
    for named in &args.files {
        let Some(config) = config(named, &app, args, global)? else { return Ok(Outcome::Wrong) };
        configs.push((named, config));
    }
    sys::catch_interrupts();
    let mut report = Report {
        version: VERSION,
        shard: args.shard,
        machine: Machine::look(&std::env::temp_dir(), Path::new("redis-server"))?,
        seed: args.seed,
        clients: args.clients,
        latency_us: args.latency,
        program: args.check.is_some().then(|| app::words(args)),
        stopped: None,
        policies: Vec::new(),
    };
    let steps = u64::from(args.trials) * configs.len() as u64;
    let bar = progress::bar(steps, progress::MEASUREMENTS);
    for (named, (name, config)) in configs {
        let mut tested = Tested {
            policy: name,
            object: object_of(&config)?,
            power_loss: config.power_loss,
            process_crash: config.process_crash,
            power_loss_updates: config.power_loss_updates,
            power_loss_bytes: config.power_loss_bytes,
            power_loss_within_us: micros(config.power_loss_within),
            process_crash_within_us: micros(config.process_crash_within),
            assume_sync_us: micros(config.assume_sync),
            trials: Vec::new(),
            worst: None,
        };
        for number in args.first..args.first.saturating_add(args.trials) {
            if args.shard.is_some_and(|shard| !shard.has((number - args.first).into())) {
                bar.inc(1);
                continue;
            }
            bar.set_message(format!("{}, crash {number}", tested.policy));
            match whole(number, config.trial(number), sys::interrupted()) {
                Ok(trial) => tested.trials.push(trial),
                Err(why) => report.stopped = Some(why),
            }
            if report.stopped.is_some() {
                break;
            }
            bar.inc(1);
        }
        tested.worst = worst(&tested.trials, |trial| again(named, trial, args));
        report.policies.push(tested);
        if report.stopped.is_some() {
            break;
        }
    }
    bar.finish_and_clear();
    let json = serde_json::to_string_pretty(&report).context("cannot write the report")? + "\n";
    if let Some(path) = &args.json {
        output::write_atomically(path, json.as_bytes(), 0o644)?;
    }
    let told = match global.is_json() {
        true => global.document.put(&report),
        false => output::print(&table(&report)),
    };
    if let Some(why) = &report.stopped {
        return Err(output::exit(2, format!("stopped early: {why}")));
    }
    told.map(|()| outcome(&report))
}

/// A crash that was made and checked to its end, or why the test stops. What an interrupt has met counts as nothing: the
/// application may not have been able to start, or to say what it has.
fn whole<T>(number: u32, made: Result<T, Error>, interrupted: bool) -> Result<T, String> {
    match made {
        Err(Error::Interrupted) => Err("interrupted".to_owned()),
        _ if interrupted => Err("interrupted".to_owned()),
        Err(error) => Err(format!("crash {number}: {error}")),
        Ok(made) => Ok(made),
    }
}

/// Whether a crash took too much.
pub(super) fn outcome(report: &Report) -> Outcome {
    let fine = report.policies.iter().flat_map(|p| &p.trials).all(|t| t.violation.is_none());
    if fine { Outcome::Fine } else { Outcome::Wrong }
}

/// The reports of shards as one: every crash of each.
pub(super) fn merge(parts: Vec<Report>) -> Result<Report, String> {
    let mut parts = parts.into_iter();
    let mut whole = parts.next().ok_or("no report")?;
    whole.shard = None;
    for part in parts {
        same_test(&whole, &part)?;
        whole.stopped = whole.stopped.or(part.stopped);
        for tested in part.policies {
            let known = whole.policies.iter_mut().find(|known| known.policy == tested.policy);
            match known {
                None => whole.policies.push(tested),
                Some(known) => join(known, tested)?,
            }
        }
    }
    for tested in &mut whole.policies {
        tested.trials.sort_by_key(|trial| trial.number);
    }
    Ok(whole)
}

/// Refuses parts of different tests. One that stopped early may lack its last policies.
fn same_test(whole: &Report, part: &Report) -> Result<(), String> {
    let settings = |report: &Report| {
        let program = report.program.clone().unwrap_or_else(|| "none".to_owned());
        [
            ("versions", report.version.to_string()),
            ("seeds", report.seed.to_string()),
            ("numbers of clients", report.clients.to_string()),
            ("latencies", report.latency_us.to_string()),
            ("programs", program),
        ]
    };
    for ((what, one), (_, other)) in settings(whole).into_iter().zip(settings(part)) {
        if one != other {
            return Err(format!("the reports are of different {what}: {one}, and {other}"));
        }
    }
    let names = |report: &Report| -> Vec<String> {
        report.policies.iter().map(|tested| tested.policy.clone()).collect()
    };
    let (one, other) = (names(whole), names(part));
    let (fewer, more, stopped) = match one.len() < other.len() {
        true => (&one, &other, &whole.stopped),
        false => (&other, &one, &part.stopped),
    };
    if more.starts_with(fewer) && (fewer.len() == more.len() || stopped.is_some()) {
        return Ok(());
    }
    let shown = |names: &[String]| {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let (one, other) = (shown(&one), shown(&other));
    Err(format!("the reports are of different policies: {one}, and {other}"))
}

/// Adds the crashes of a part to what is known of a policy.
fn join(known: &mut Tested, tested: Tested) -> Result<(), String> {
    let proved = |t: &Tested| {
        let syncs = (t.power_loss, t.process_crash);
        let written = (t.power_loss_updates, t.power_loss_bytes);
        let within = (t.power_loss_within_us, t.process_crash_within_us);
        (syncs, written, within, t.assume_sync_us)
    };
    if known.object != tested.object {
        return Err(format!(
            "the reports are of different policies of the name {}, or of different versions of durac",
            known.policy
        ));
    }
    if proved(known) != proved(&tested) {
        return Err(format!("the reports have different bounds for {}", known.policy));
    }
    let numbers: HashSet<u32> = known.trials.iter().map(|trial| trial.number).collect();
    if let Some(twice) = tested.trials.iter().find(|trial| numbers.contains(&trial.number)) {
        return Err(format!("crash {} of {} is in two reports", twice.number, known.policy));
    }
    known.trials.extend(tested.trials);
    let trial = |worst: &Worst| known.trials.iter().find(|trial| trial.number == worst.number);
    let worst = [known.worst.clone(), tested.worst].into_iter().flatten();
    known.worst = worst.max_by_key(|worst| trial(worst).map(severity));
    Ok(())
}

/// Orders crashes by what they took.
fn severity(trial: &Trial) -> (bool, u64, u64) {
    (trial.violation.is_some(), trial.lost_syncs, trial.lost_commands)
}

/// The fingerprint of the object that is tested.
fn object_of(config: &Config) -> Result<String> {
    let policy = config.policy.as_ref().context("a policy")?;
    let bytes = std::fs::read(&policy.file).context("cannot read the object")?;
    Ok(format!("{:016x}", durac_abi::object::fingerprint(&bytes)))
}

fn micros(time: Option<Duration>) -> Option<u64> {
    time.map(|time| time.as_micros().try_into().unwrap_or(u64::MAX))
}

/// The test of `FILE` or `FILE:name=value`; `None`, reported, if the policy is wrong.
fn config(
    named: &Named,
    app: &App,
    args: &Crashtest,
    global: &Global,
) -> Result<Option<(String, Config)>> {
    let sets = named.settings(&args.settings);
    let (runtime, engine) = app::engine(args, app, named.path());
    if runtime == Runtime::Agent {
        launch::check_agent(&launch::agent_of_children()?)?;
    }
    let deployment = Deployment { runtime, ..Deployment::default() };
    let Some(ready) = input::ready_for(named.path(), &sets, deployment, global)? else {
        return Ok(None);
    };
    let of = |failure: Failure| -> Option<&Loss> {
        ready.proved.object.meta.loss.iter().find(|loss| loss.failure == failure)
    };
    let is_program = matches!(app, App::Program(_));
    // The clients of the test are clients: what they were told, and what they have seen, must not be lost.
    let held = ready.proved.object.meta.holds_replies && !is_program;
    let syncs = |failure| if held { Some(0) } else { of(failure).and_then(|loss| loss.syncs) };
    let most = |of_loss: fn(&Loss) -> Option<u64>| match held {
        true => Some(0),
        false => of(Failure::PowerLoss).and_then(of_loss),
    };
    let within = |failure| match held {
        true => Some(Duration::ZERO),
        false => of(failure).and_then(|loss| loss.within).map(Duration::from_nanos),
    };
    let mut name = ready.policy.name.clone();
    sets.iter().for_each(|set| name.push_str(&format!(" {set}")));
    let config = Config {
        meanwhile: Vec::new(),
        durac: std::env::current_exe().context("cannot find durac itself")?,
        app: app.clone(),
        policy: Some(Policy {
            // Proved once, and not before every crash.
            file: launch::store(&ready.proved.object)?,
            sets: Vec::new(),
            engine,
        }),
        appendfsync: "always".to_owned(),
        sync_library: Some(sync_library()?),
        env: Vec::new(),
        words: Vec::new(),
        clients: args.clients,
        latency: Duration::from_micros(args.latency),
        crashes: args.crash.iter().map(|kind| crash(*kind)).collect(),
        at: args.moments().into_iter().map(moment).collect(),
        faults: app::faults(args)?,
        seed: args.seed,
        reads: held,
        power_loss: args.claim.or_else(|| syncs(Failure::PowerLoss)),
        is_claimed: args.claim.is_some(),
        process_crash: syncs(Failure::ProcessCrash),
        power_loss_updates: most(|loss| loss.updates),
        // How many bytes a line stands for is not known.
        power_loss_bytes: if is_program { None } else { most(|loss| loss.bytes) },
        power_loss_within: within(Failure::PowerLoss),
        process_crash_within: within(Failure::ProcessCrash),
        assume_sync: ready.proved.object.meta.assume_sync.map(Duration::from_nanos),
        covers: covers(&ready.proved.object.meta),
        acts_on_writes: ready.proved.object.asks_about_writes()
            || ready.proved.object.meta.defers_writes,
    };
    Ok(Some((name, config)))
}

/// The files that a policy acts on.
fn covers(meta: &Meta) -> String {
    let globs: Vec<String> = meta.files.iter().map(|glob| format!("`{glob}`")).collect();
    format!("target `{}` covers ({})", meta.target, globs.join(", "))
}

fn worst(trials: &[Trial], again: impl Fn(&Trial) -> String) -> Option<Worst> {
    let trial = trials.iter().max_by_key(|trial| severity(trial))?;
    Some(Worst { number: trial.number, again: again(trial), timeline: trial.timeline.clone() })
}

/// The command line that repeats one crash, and finds the same in it.
fn again(named: &Named, trial: &Trial, args: &Crashtest) -> String {
    let named = output::quoted(&named.to_string());
    let mut text = format!(
        "durac crashtest {named} --first {} --trials 1 --seed {} --crash {} --at {} --clients {} \
         --latency {}",
        trial.number,
        args.seed,
        names(&args.crash),
        names(&args.moments()),
        args.clients,
        args.latency
    );
    args.settings
        .set
        .iter()
        .for_each(|set| text.push_str(&format!(" --set {}", output::quoted(set))));
    if let Some(engine) = args.engine {
        text.push_str(&format!(" --engine {}", names(&[engine])));
    }
    args.fault
        .iter()
        .for_each(|fault| text.push_str(&format!(" --fault {}", output::quoted(fault))));
    if let Some(claim) = args.claim {
        text.push_str(&format!(" --claim {claim}"));
    }
    if args.app != CrashApp::Redis {
        text.push_str(&format!(" --app {}", names(&[args.app])));
    }
    text + &app::words(args)
}

/// As they are written on the command line.
fn names<T: ValueEnum>(values: &[T]) -> String {
    let name = |value: &T| value.to_possible_value().map(|v| v.get_name().to_owned());
    values.iter().filter_map(name).collect::<Vec<_>>().join(",")
}

fn crash(kind: CrashKind) -> Crash {
    match kind {
        CrashKind::Clean => Crash::Clean,
        CrashKind::Torn => Crash::Torn,
        CrashKind::Reordered => Crash::Reordered,
        CrashKind::Kill => Crash::Kill,
    }
}

fn moment(at: CrashAt) -> At {
    match at {
        CrashAt::Random => At::Random,
        CrashAt::MidSync => At::MidSync,
        CrashAt::AfterAck => At::AfterAck,
        CrashAt::Rewrite => At::Rewrite,
    }
}

// ---- the table ----

const TITLES: [&str; 14] = [
    "policy",
    "crash",
    "crashes",
    "acknowledged",
    "worst: syncs",
    "proved",
    "mean: syncs",
    "worst: age",
    "proved",
    "worst: commands",
    "proved",
    "worst: bytes",
    "proved",
    "violations",
];

pub(super) fn table(report: &Report) -> String {
    let mut lines = vec![TITLES.map(str::to_owned)];
    for tested in &report.policies {
        for crash in [Crash::Clean, Crash::Torn, Crash::Reordered, Crash::Kill] {
            let of: Vec<&Trial> = tested.trials.iter().filter(|t| t.crash == crash).collect();
            if !of.is_empty() {
                lines.push(line(tested, crash, &of));
            }
        }
    }
    let mut out = columns(&[Left, Left, Right], &lines);
    for tested in &report.policies {
        for trial in &tested.trials {
            if let Some(why) = &trial.violation {
                // Of `--claim`.
                let is_claim = why.contains(", claimed is ");
                let what = if is_claim { "claim" } else { "proved bound" };
                let _ = writeln!(
                    out,
                    "\n{}: crash {} exceeds the {what}: {why}",
                    tested.policy, trial.number
                );
            }
        }
        let broken = tested.trials.iter().filter(|trial| !trial.assumption_held).count();
        if broken > 0 {
            let _ = writeln!(
                out,
                "\nnote: {}: `assume sync` did not hold in {broken} of the crashes; what they lost may be \
                 older than proved",
                tested.policy
            );
        }
        for trial in &tested.trials {
            if let Some(why) = &trial.excused {
                let _ = writeln!(out, "note: {}: crash {}: {why}", tested.policy, trial.number);
            }
        }
        let met = tested.trials.iter().filter(|trial| trial.faults > 0).count();
        if met > 0 {
            let ended = tested.trials.iter().filter(|trial| trial.ended).count();
            let _ = writeln!(
                out,
                "note: {}: a fault preceded {met} of the crashes; in {ended}, the application had \
                 ended by itself",
                tested.policy
            );
        }
        let repaired = tested.trials.iter().filter(|trial| trial.repaired).count();
        if repaired > 0 {
            let _ = writeln!(
                out,
                "note: {}: after {repaired} of the crashes, Redis needed `redis-check-aof --fix`, which \
                 truncated the log at a hole; the records lost by that are counted",
                tested.policy
            );
        }
    }
    for tested in &report.policies {
        if let Some(worst) = &tested.worst {
            out.push_str(&timeline(&tested.policy, worst));
        }
    }
    out
}

/// How it came to the worst, in lines.
fn timeline(policy: &str, worst: &Worst) -> String {
    let mut out = format!("\n{policy}: the worst crash is number {}\n", worst.number);
    for line in &worst.timeline {
        // Writing to a string cannot fail.
        let _ = match line.ms {
            Some(ms) => writeln!(out, "{ms:>12.3} ms  {}", line.what),
            None => writeln!(out, "{:>15}  {}", "", line.what),
        };
    }
    let _ = writeln!(out, "    repeat it with: {}", worst.again);
    out
}

fn line(tested: &Tested, crash: Crash, trials: &[&Trial]) -> [String; 14] {
    let most = |of: fn(&Trial) -> u64| trials.iter().map(|t| of(t)).max().unwrap_or(0);
    let mean = trials.iter().map(|t| t.lost_syncs as f64).sum::<f64>() / trials.len() as f64;
    let (bound, within) = match crash {
        Crash::Kill => (tested.process_crash, tested.process_crash_within_us),
        _ => (tested.power_loss, tested.power_loss_within_us),
    };
    let (updates, bytes) = match crash {
        Crash::Kill => (None, None),
        _ => (tested.power_loss_updates, tested.power_loss_bytes),
    };
    let number = |bound: Option<u64>| bound.map_or("any".to_owned(), |bound| bound.to_string());
    let age = |micros: u64| millis(Duration::from_micros(micros));
    let name = match crash {
        Crash::Clean => "power, clean",
        Crash::Torn => "power, torn",
        Crash::Reordered => "power, reordered",
        Crash::Kill => "process killed",
    };
    [
        tested.policy.clone(),
        name.to_owned(),
        trials.len().to_string(),
        trials.iter().map(|t| t.acknowledged).sum::<u64>().to_string(),
        most(|t| t.lost_syncs).to_string(),
        number(bound),
        format!("{mean:.1}"),
        age(most(|t| t.lost_age_us)),
        within.map_or("any".to_owned(), age),
        most(|t| t.lost_commands).to_string(),
        number(updates),
        most(|t| t.lost_bytes).to_string(),
        number(bytes),
        trials.iter().filter(|t| t.violation.is_some()).count().to_string(),
    ]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::{Error, Report, merge, whole};

    #[test]
    fn an_interrupted_crash_counts_as_nothing() {
        assert_eq!(whole(3, Ok(7), false), Ok(7));
        // Checked while the interrupt came: what it says may be of the interrupt.
        assert_eq!(whole(3, Ok(7), true), Err("interrupted".to_owned()));
        assert_eq!(whole::<u8>(3, Err(Error::Interrupted), false), Err("interrupted".to_owned()));
        let failed = || Err(Error::Config("no disk".to_owned()));
        assert_eq!(whole::<u8>(3, failed(), false), Err("crash 3: no disk".to_owned()));
        assert_eq!(whole::<u8>(3, failed(), true), Err("interrupted".to_owned()));
    }

    /// The report of a part without crashes.
    fn part(seed: u64, stopped: Option<&str>, policies: &[&str]) -> Report {
        let machine = durac_workload::machine::Machine::look(
            &std::env::temp_dir(),
            std::path::Path::new("redis-server"),
        );
        let tested = |policy: &&str| {
            serde_json::json!({
                "policy": policy, "object": "1", "power_loss": 4, "process_crash": 0, "power_loss_updates": 4,
                "power_loss_bytes": null, "power_loss_within_us": null, "process_crash_within_us": null,
                "assume_sync_us": null, "trials": [], "worst": null,
            })
        };
        let report = serde_json::json!({
            "version": 1, "machine": machine.unwrap(), "seed": seed, "clients": 5, "latency_us": 500,
            "stopped": stopped, "policies": policies.iter().map(tested).collect::<Vec<_>>(),
        });
        serde_json::from_value(report).unwrap()
    }

    #[test]
    fn parts_of_different_tests_are_refused() {
        let merged = |one, other| merge(vec![one, other]).map(|whole| whole.policies.len());
        let both = ["always", "window n=4"];
        assert_eq!(merged(part(1, None, &both), part(1, None, &both)), Ok(2));
        assert_eq!(
            merged(part(1, None, &["window n=4"]), part(1, None, &["window n=5"])),
            Err("the reports are of different policies: `window n=4`, and `window n=5`".to_owned())
        );
        assert!(merged(part(1, None, &both), part(1, None, &["always"])).is_err());
        // What was stopped has less, and nothing else.
        let stopped = || part(1, Some("interrupted"), &["always"]);
        assert_eq!(merged(part(1, None, &both), stopped()), Ok(2));
        assert_eq!(merged(stopped(), part(1, None, &both)), Ok(2));
        assert!(merged(part(1, None, &["window n=4"]), stopped()).is_err());
        let seeds = merged(part(1, None, &both), part(2, None, &both));
        assert_eq!(seeds, Err("the reports are of different seeds: 1, and 2".to_owned()));
        let mut other = part(1, None, &both);
        other.policies.first_mut().unwrap().power_loss_updates = Some(5);
        let bounds = merged(part(1, None, &both), other);
        assert_eq!(bounds, Err("the reports have different bounds for always".to_owned()));
        let mut other = part(1, None, &both);
        other.policies.first_mut().unwrap().object = "2".to_owned();
        let objects = merged(part(1, None, &both), other);
        assert!(objects.is_err_and(|why| why.contains("different policies of the name always")));
    }
}
