//! `durac bench`: policies side by side on a real database.

mod drawing;
mod page;

use super::crashtest;
use crate::Outcome;
use crate::args::{Global, RunEngine, time};
use crate::input::{self, Deployment};
use crate::named::{Named, Settings};
use crate::{launch, output};
use anyhow::{Context, Result};
use clap::{Args as ClapArgs, ValueEnum};
use durac_abi::Runtime;
use durac_core::CompileOptions;
use durac_driver::compare::Measure;
use durac_grammar::Code;
use durac_prove::explore::Most;
use durac_workload::bench::{self, Config, Load, Mode};
use durac_workload::{child, machine};
use std::path::PathBuf;

/// Arguments of `durac bench`.
#[derive(Debug, ClapArgs)]
pub struct Bench {
    /// Policies to compare: files or ready policies, with `:name=value,…` to set parameters
    #[arg(value_name = "FILE", default_values = [
        "delayed_fsync",
        "fast_notify",
        "batch:size=1",
        "batch:size=3",
        "batch:size=12",
        "batch:size=24",
        "batch:size=48",
        "window:n=4",
        "window:n=16",
        "window:n=64",
        "window:n=256",
    ])]
    files: Vec<Named>,
    /// Parameters of all.
    #[command(flatten)]
    settings: Settings,
    /// What runs the policies, and with the agent what writes staged data; of several, such as `thread,supervisor`, each
    /// policy is measured with each [default: the supervisor for targets that need it, else the agent as the target says]
    #[arg(long, value_enum, value_delimiter = ',')]
    engine: Vec<RunEngine>,
    /// Numbers of clients; each is measured
    #[arg(short, long, value_delimiter = ',', default_value = "5,50", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: Vec<u32>,
    /// Pipeline depths; each is measured
    #[arg(short = 'P', long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pipeline: Vec<u32>,
    /// Requests per measurement
    #[arg(short = 'n', long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    requests: u64,
    /// Number of distinct keys
    #[arg(short = 'r', long, default_value_t = 100_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    keyspace: u64,
    /// Rounds; each mode runs once per round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measure each policy a second time while recording, to show what recording costs
    #[arg(long)]
    record: bool,
    /// Write JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Write CSV, one line per mode and number of clients
    #[arg(long, value_name = "PATH")]
    csv: Option<PathBuf>,
    /// Write an HTML page with charts
    #[arg(long, value_name = "PATH")]
    html: Option<PathBuf>,
    /// Percentage of reads for `--workload mix`: 50 is YCSB workload A, 95 is B
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    reads: u8,
    /// Clients for `--workload mix` that only write; those of `--clients` only read then, and latencies are
    /// measured apart
    #[arg(long, value_name = "CLIENTS", value_parser = clap::value_parser!(u32).range(1..))]
    writers: Option<u32>,
    /// How long a sync takes: puts the logs on a disk in memory that waits so long (FUSE, as root)
    #[arg(long, value_name = "TIME", value_parser = time)]
    sync_takes: Option<std::time::Duration>,
    /// The workload
    #[arg(long, value_enum, default_value_t = Workload::Redis)]
    workload: Workload,
    /// The server: Redis, Valkey or a patched one, with its own benchmark tool if that is in the same
    /// folder [default: `redis-server`]
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,
    /// Folder for the database's files, on the file system to measure
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What `durac bench` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// SETs by redis-benchmark on a real redis-server.
    Redis,
    /// GETs and SETs on a real redis-server, mixed as in YCSB.
    Mix,
    /// A process that appends to a log; needs no database.
    AppendLog,
}

/// Measures, prints the table, and writes the JSON if asked.
pub fn run(args: &Bench, global: &Global) -> Result<Outcome> {
    look_first(args)?;
    let mut modes = match args.workload {
        // Without a log it does nothing.
        Workload::AppendLog => vec![],
        Workload::Redis | Workload::Mix => vec![Mode::no_log()],
    };
    modes.extend([Mode::no(), Mode::everysec(), Mode::always()]);
    for named in &args.files {
        for engine in engines(args, named) {
            if engine == Some(RunEngine::Supervisor)
                && let Some(why) = unavailable(named)
            {
                output::error(&format!("{named} is left out under the supervisor: {why}"));
                continue;
            }
            let Some(mode) = mode(named, args, engine, &modes, global)? else {
                return Ok(Outcome::Wrong);
            };
            let recorded = args.record.then(|| mode.recorded());
            modes.push(mode);
            modes.extend(recorded);
        }
    }
    let config = Config {
        workload: match args.workload {
            Workload::Redis => bench::Workload::Redis,
            Workload::Mix => bench::Workload::Mix,
            Workload::AppendLog => bench::Workload::AppendLog,
        },
        server: args.server.as_deref().map(child::program).transpose()?,
        durac: std::env::current_exe().context("cannot find durac itself")?,
        modes,
        loads: Load::cross(&args.clients, &args.pipeline),
        rounds: args.rounds,
        requests: args.requests,
        keyspace: args.keyspace,
        reads: args.reads,
        writers: args.writers.filter(|_| args.workload == Workload::Mix),
        sync_takes: args.sync_takes.filter(|_| args.workload != Workload::AppendLog),
        dir: args.dir.clone(),
    };
    let report = bench::run(&config)?;
    match global.is_json() {
        true => {
            let whole: serde_json::Value = serde_json::from_slice(&report.json()?)?;
            global.document.put(&whole)?;
            let notes: Vec<String> =
                report.machine.is_busy().into_iter().chain(report.too_wide()).collect();
            global.document.put(&serde_json::json!({ "notes": notes }))?;
        }
        false => output::print(&report.table())?,
    }
    if let Some(path) = &args.json {
        output::write_atomically(path, &report.json()?, 0o644)?;
    }
    if let Some(path) = &args.csv {
        output::write_atomically(path, report.csv().as_bytes(), 0o644)?;
    }
    if let Some(path) = &args.html {
        output::write_atomically(path, page::page(&report).as_bytes(), 0o644)?;
    }
    match &report.stopped {
        Some(why) => Err(output::exit(2, format!("stopped early: {why}"))),
        None => Ok(Outcome::Fine),
    }
}

/// What would be missed only after minutes: where the results go, the agent, the server.
fn look_first(args: &Bench) -> Result<()> {
    if args.sync_takes.is_some() {
        crashtest::needs_disk()?;
    }
    for path in [&args.json, &args.csv, &args.html].into_iter().flatten() {
        output::check_unread(path, args.files.iter().map(Named::path))?;
        output::check_writable(path)?;
    }
    if let Some(dir) = args.dir.as_deref().filter(|dir| !dir.is_dir()) {
        return Err(output::exit(1, format!("--dir: `{}` is not a folder", dir.display())));
    }
    if args
        .files
        .iter()
        .flat_map(|named| engines(args, named))
        .any(|engine| engine != Some(RunEngine::Supervisor))
    {
        launch::check_agent(&launch::agent_of_children()?)?;
    }
    if args.workload != Workload::AppendLog && args.server.is_none() {
        child::which("redis-server").map_err(|why| {
            output::exit(1, format!("{why}: install it, or use `--workload append-log`"))
        })?;
    }
    if let Some(why) = machine::is_busy_now() {
        output::error(&why);
    }
    Ok(())
}

/// What is to run a policy: each once. None is the agent, as the target says.
fn engines(args: &Bench, named: &Named) -> Vec<Option<RunEngine>> {
    match args.engine.is_empty() {
        false => args.engine.iter().copied().map(Some).collect(),
        true => {
            let needs = launch::needs_supervisor(named.path(), None);
            vec![needs.then_some(RunEngine::Supervisor)]
        }
    }
}

/// Why the supervisor cannot run a policy; none if it can, or if something else is wrong with it.
fn unavailable(named: &Named) -> Option<String> {
    let mut input = input::read_quietly(named.path())?;
    let options = CompileOptions::new(&input.stem).with_runtime(Runtime::Supervisor);
    let policy = durac_core::analyse(&mut input.sources, input.file, &options).policy?;
    let found = durac_core::compile(&policy, &input.sources, input.file, &options).err()?;
    found.into_iter().find(|found| found.code == Code::NotInSupervisor).map(|found| found.message)
}

/// The mode of a policy under an engine; `None`, reported, if it is wrong.
fn mode(
    named: &Named,
    args: &Bench,
    engine: Option<RunEngine>,
    others: &[Mode],
    global: &Global,
) -> Result<Option<Mode>> {
    let sets = &named.settings(&args.settings);
    let runtime = match engine {
        Some(RunEngine::Supervisor) => Runtime::Supervisor,
        _ => Runtime::Agent,
    };
    let deployment = Deployment { runtime, ..Deployment::default() };
    let Some(ready) = input::ready_for(named.path(), sets, deployment, global)? else {
        return Ok(None);
    };
    let loss = ready.proved.power_loss();
    let (bound, loss) = (loss.and_then(|l| l.syncs), loss.map_or("", |l| &l.text));
    let to_clients = match Measure::ToClients.of(&ready.proved.proof) {
        Most::Count(syncs) => Some(syncs),
        Most::Unbounded => None,
    };
    let held = ready.proved.object.meta.holds_replies && to_clients == Some(0);
    let loss = if held { "nothing that a client has seen" } else { loss };
    let mut name = ready.policy.name.clone();
    for assignment in sets {
        name.push_str(&format!(" {assignment}"));
    }
    let engine = engine.and_then(|engine| engine.to_possible_value());
    let engine = engine.map(|engine| engine.get_name().to_owned());
    if let Some(engine) = engine.as_ref()
        && (args.engine.len() > 1 || runtime == Runtime::Supervisor)
    {
        name.push_str(&format!(", {engine}"));
    }
    while others.iter().any(|m| m.name == name) {
        // Redis' own mode of that name, or the same policy named twice.
        name.insert_str(0, "durac ");
    }
    // Proved once, and not at each start.
    let object = launch::store(&ready.proved.object)?;
    let mut mode = Mode::policy(&name, object, Vec::new(), loss, bound);
    if let Some(policy) = &mut mode.policy {
        policy.engine = engine;
    }
    Ok(Some(Mode { bound_to_clients: to_clients, ..mode }))
}
