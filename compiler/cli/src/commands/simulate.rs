//! `durac simulate`: what policies would have cost an application that was recorded.

mod table;

use crate::Outcome;
use crate::args::Global;
use crate::input;
use crate::named::{Named, Settings};
use crate::shard::Shard;
use crate::{output, traces};
use anyhow::{Context, Result};
use clap::{Args as ClapArgs, ValueEnum};
use durac_abi::Object;
use durac_abi::object::Loss;
use durac_core::{CompileOptions, hir, unit};
use durac_driver::Compiled;
use durac_grammar::{Code, Sources};
use durac_simulate::application::ApplicationKind;
use durac_simulate::device::{Device, Preset};
use durac_simulate::fit::{Fitted, fit};
use durac_simulate::html;
use durac_simulate::report::{
    CrashChoice, DeviceFacts, LeftOut, PolicyReport, Report, TraceFacts, VERSION,
};
use durac_simulate::trace::{Collector, Counted, Trace};
use durac_simulate::{Options, SimulateError, misses_updates, simulate, steps};
use durac_trace::{Reader, Source, TraceError};
use durac_workload::columns::counted;
use durac_workload::progress;
use indicatif::ProgressBar;
use serde::Serialize;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Arguments of `durac simulate`.
#[derive(Debug, ClapArgs)]
pub struct Simulate {
    /// A trace written by `durac record`, or `-` for standard input
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// A policy file or a ready policy, with `:name=value,…` to set parameters; can be repeated
    /// [default: all ready policies]
    #[arg(short, long, value_name = "FILE")]
    policy: Vec<Named>,
    /// Parameters of all.
    #[command(flatten)]
    settings: Settings,
    /// The device to simulate [default: the recorded one]
    #[arg(long, value_enum)]
    device: Option<DeviceArg>,
    /// Crash at N random instants [default: after each event]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    crash: Option<u64>,
    /// Random seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Clients that wait for replies [default: the most commands in one turn of the event loop]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: Option<u32>,
    /// Simulate only a part of the policies: `2/4` is the second of four parts; `durac merge` joins the reports
    #[arg(long, value_name = "K/N")]
    shard: Option<Shard>,
    /// Write a self-contained HTML page
    #[arg(long, value_name = "PATH")]
    html: Option<PathBuf>,
    /// Write JSON, `-` for standard output
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DeviceArg {
    /// NVMe with power-loss protection: 40 µs per sync.
    NvmePlp,
    /// NVMe without power-loss protection: 0.9 ms per sync.
    Nvme,
    /// SATA SSD: 2.5 ms per sync.
    SataSsd,
    /// Network volume of a cloud: 1.4 ms per sync.
    CloudVolume,
    /// Hard disk at 7,200 rpm: 16 ms per sync.
    Disk,
}

/// A simulation that takes longer shows how far it is.
const LONG: Duration = Duration::from_secs(2);
/// A simulation of the recorded policy that is further off says so.
const FAR: f64 = 0.15;

/// Simulates, prints the table, and writes the JSON if asked.
pub fn run(args: &Simulate, global: &Global) -> Result<Outcome> {
    for path in [&args.json, &args.html].into_iter().flatten() {
        if path != Path::new("-") {
            let policies = args.policy.iter().map(Named::path);
            output::check_unread(path, policies.chain([args.trace.as_path()]))?;
            output::check_writable(path)?;
        }
    }
    let Some(mut candidates) = Candidates::named(args, global)? else {
        return Ok(Outcome::Wrong);
    };
    if let Some(shard) = args.shard {
        let mut number = 0..;
        candidates.all.retain(|_| number.next().is_some_and(|number| shard.has(number)));
    }
    let Some(trace) = read(&args.trace, global)? else {
        return Ok(Outcome::Wrong);
    };
    let recorded = recorded_policy(&trace);
    let fitted = fit(&trace, recorded.as_ref(), args.clients);
    if args.policy.is_empty() {
        candidates.leave_out_unknown(&trace, &fitted);
    } else if let Some(policy) =
        candidates.all.iter().find(|policy| misses_children(&trace, policy))
    {
        let message = format!("{} {CHILDREN}: {NO_CHILDREN}", policy.name);
        traces::lacks(&args.trace, &message, global);
        return Ok(Outcome::Wrong);
    }
    let device = match args.device {
        None => fitted.device.clone(),
        Some(kind) => Device::preset(preset(kind)),
    };
    let options = Options { seed: args.seed, crashes: args.crash };
    let policies = all(&fitted, &device, &candidates.all, options)?;
    for left in &candidates.left_out {
        output::stderr(&format!("durac: {} is left out: {}\n", left.name, left.why));
    }
    let mut report = Report {
        version: VERSION,
        trace: trace_facts(&args.trace, &trace, &fitted),
        application: fitted.facts.clone(),
        device: DeviceFacts::of(&device),
        seed: args.seed,
        crashes: args.crash.map_or(CrashChoice::EveryEvent, CrashChoice::Random),
        policies,
        left_out: candidates.left_out,
        notes: fitted.notes.clone(),
    };
    report.notes.extend(notes(&trace, recorded.as_ref(), &fitted, &report.trace));
    let json = json(&report, args.shard)?;
    if let Some(path) = args.json.as_deref().filter(|path| *path != Path::new("-")) {
        output::write_atomically(path, json.as_bytes(), 0o644)?;
    }
    if let Some(path) = &args.html {
        output::write_atomically(path, html::page(&report).as_bytes(), 0o644)?;
    }
    let to_stdout = args.json.as_deref() == Some(Path::new("-"));
    match (global.is_json(), to_stdout) {
        (true, _) => global.document.put(&Part { shard: args.shard, report: &report })?,
        (false, true) => output::stdout(json.as_bytes())?,
        (false, false) => output::print(&table(&report))?,
    }
    Ok(Outcome::Fine)
}

/// A report of a part has its shard.
#[derive(Serialize)]
struct Part<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<Shard>,
    #[serde(flatten)]
    report: &'a Report,
}

/// The report as JSON.
fn json(report: &Report, shard: Option<Shard>) -> Result<String> {
    let part = Part { shard, report };
    Ok(serde_json::to_string_pretty(&part).context("cannot write the report")? + "\n")
}

/// The reports of shards as one, equal to the report of the whole.
pub(super) fn merge(parts: Vec<(Shard, Report)>) -> Result<Report, String> {
    let mut policies = Vec::new();
    let mut whole: Option<Report> = None;
    for (shard, mut part) in parts {
        let own = part.policies.drain(..).enumerate();
        policies.extend(own.map(|(place, policy)| (shard.number(place), policy)));
        match &whole {
            None => whole = Some(part),
            Some(whole) if *whole == part => {}
            Some(_) => {
                return Err("the reports are of different traces, devices or settings".to_owned());
            }
        }
    }
    policies.sort_by_key(|(number, _)| *number);
    let mut whole = whole.ok_or("no report")?;
    whole.policies = policies.into_iter().map(|(_, policy)| policy).collect();
    Ok(whole)
}

/// The table of a report.
pub(super) fn table(report: &Report) -> String {
    table::render(report)
}

// ---- what is simulated ----

/// A policy, compiled.
pub(super) struct Candidate {
    name: String,
    params: Vec<(String, String)>,
    pub(super) proved: Option<Loss>,
    object: Object,
}

/// What is simulated, and what this version cannot run.
#[derive(Default)]
pub(super) struct Candidates {
    pub(super) all: Vec<Candidate>,
    left_out: Vec<LeftOut>,
}

impl Candidates {
    /// The given policies, or all ready ones. Reports a wrong one and returns `None`.
    fn named(args: &Simulate, global: &Global) -> Result<Option<Self>> {
        let (asked, mut found) = (&args.policy, Self::default());
        if asked.is_empty() && !args.settings.set.is_empty() {
            return Err(output::exit(1, "--set is for the policies of -p: name one"));
        }
        for named in asked {
            let sets = named.settings(&args.settings);
            let deployment = input::Deployment::default();
            let Some((_, policy, compiled)) =
                input::compile(named.path(), &sets, deployment, false, global)?
            else {
                return Ok(None);
            };
            found.add(&policy, compiled, &sets);
        }
        for ready in durac_stdlib::POLICIES.iter().filter(|_| asked.is_empty()) {
            // What there is to say of a ready policy, `durac check` says.
            let mut sources = Sources::new();
            let file = sources.add(ready.file, ready.text);
            let options = durac_driver::Options::new(ready.name);
            let mut compiled = durac_driver::compile(&mut sources, file, &options);
            if let Some(policy) = compiled.analysis.policy.take() {
                found.add(&policy, compiled, &[]);
            }
        }
        if found.all.is_empty() {
            return Err(output::exit(1, "this version cannot run any of the policies"));
        }
        Ok(Some(found))
    }

    /// Adds the policy of a text that durac made itself.
    pub(super) fn text(&mut self, text: &str) -> Result<()> {
        let mut sources = Sources::new();
        let file = sources.add("advised.dur", text);
        let mut compiled =
            durac_driver::compile(&mut sources, file, &durac_driver::Options::new("advised"));
        let policy = compiled.analysis.policy.take().filter(|_| compiled.proved.is_some());
        let policy =
            policy.with_context(|| format!("this is a bug in durac: rejected:\n{text}"))?;
        self.add(&policy, compiled, &[]);
        Ok(())
    }

    /// Leaves out what reads how many updates are written, or whether there are children, if the trace does not say that;
    /// and what holds replies, if there are none.
    fn leave_out_unknown(&mut self, trace: &Trace, fitted: &Fitted) {
        let application = &fitted.application;
        let no_replies = matches!(application.kind, ApplicationKind::Threads(_));
        for candidate in std::mem::take(&mut self.all) {
            let why = if misses_updates(application, &candidate.object) {
                SimulateError::UnknownUpdates.to_string()
            } else if no_replies && has_replies(&candidate.object) {
                "the recorded application has threads, and the trace shows no replies".to_owned()
            } else if misses_children(trace, &candidate) {
                format!("it {CHILDREN}: {NO_CHILDREN}")
            } else {
                self.all.push(candidate);
                continue;
            };
            self.left_out.push(LeftOut { name: candidate.name, why });
        }
    }

    /// Adds one, or notes why it is left out.
    fn add(&mut self, policy: &hir::Policy, compiled: Compiled, sets: &[String]) {
        let mut name = policy.name.clone();
        sets.iter().for_each(|set| name.push_str(&format!(" {set}")));
        let Some(proved) = compiled.proved else {
            let mut found = compiled.analysis.diagnostics.into_iter();
            let why = found.find(|d| d.code == Code::NotYetInRuntime);
            self.left_out.extend(why.map(|why| LeftOut { name, why: why.message }));
            return;
        };
        if has_replies(&proved.object) && !proved.object.meta.holds_replies {
            let why = "it holds only some replies, and a trace does not say which".to_owned();
            self.left_out.push(LeftOut { name, why });
            return;
        }
        if proved.object.meta.defers_writes {
            let why = "the simulator's application syncs what it writes".to_owned();
            self.left_out.push(LeftOut { name, why });
            return;
        }
        let params = policy.params.iter();
        let params = params.map(|p| (p.name.node.clone(), unit::show(p.default, p.unit)));
        let (params, loss) = (params.collect(), proved.power_loss().cloned());
        self.all.push(Candidate { name, params, proved: loss, object: proved.object });
    }
}

/// What reads `child.active`, and why a trace does not say it.
const CHILDREN: &str = "reads `child.active`";
const NO_CHILDREN: &str = "the trace was recorded by the supervisor, which does not see children";

/// Whether a policy reads whether there are children, and the trace does not say that.
fn misses_children(trace: &Trace, candidate: &Candidate) -> bool {
    trace.header.recorded.source == Source::Supervisor
        && candidate.object.meta.reads.contains(&durac_abi::Reading::ChildActive)
}

/// Whether the policy decides about replies.
fn has_replies(object: &Object) -> bool {
    object.programs.iter().any(|program| program.hook == durac_abi::Hook::Reply)
}

/// Whether one of them reads how many updates are written, and the trace does not say that.
pub(super) fn misses_any_updates(
    application: &durac_simulate::application::Application,
    candidates: &[Candidate],
) -> bool {
    candidates.iter().any(|candidate| misses_updates(application, &candidate.object))
}

/// The policy under which a trace was recorded, if it is a ready one and its effect can be seen.
pub(super) fn recorded_policy(trace: &Trace) -> Option<Object> {
    if trace.counted == Counted::Writes {
        return None;
    }
    let ready = durac_stdlib::policy(&trace.header.recorded.policy)?;
    let mut sources = Sources::new();
    let file = sources.add(ready.file, ready.text);
    let options = CompileOptions::new(ready.name);
    let policy = durac_core::analyse(&mut sources, file, &options).policy?;
    let object = durac_core::compile(&policy, &sources, file, &options).ok()?;
    durac_verify::verify(&object).is_ok().then_some(object)
}

pub(super) fn preset(kind: DeviceArg) -> Preset {
    match kind {
        DeviceArg::NvmePlp => Preset::NvmePlp,
        DeviceArg::Nvme => Preset::Nvme,
        DeviceArg::SataSsd => Preset::SataSsd,
        DeviceArg::CloudVolume => Preset::CloudVolume,
        DeviceArg::Disk => Preset::Disk,
    }
}

// ---- the trace ----

/// Reads a trace; `None`, reported, if it is wrong.
pub(super) fn read(path: &Path, global: &Global) -> Result<Option<Trace>> {
    let shown = path.display();
    let collected = if path == Path::new("-") {
        collect(io::stdin().lock())
    } else {
        let file = File::open(path).map_err(|e| {
            output::exit(1, format!("cannot read `{shown}`: {}", output::reason(&e)))
        })?;
        collect(file)
    };
    match collected {
        Ok((collector, end)) => match collector.finish(end) {
            Ok(trace) => Ok(Some(trace)),
            Err(why) => Err(output::exit(1, format!("`{shown}` cannot be simulated: {why}"))),
        },
        Err(error) => {
            traces::report(path, &error, global);
            Ok(None)
        }
    }
}

fn collect(input: impl Read) -> Result<(Collector, durac_trace::End), TraceError> {
    let mut reader = Reader::open(input)?;
    let mut collector = Collector::new(reader.header().clone());
    for event in reader.by_ref() {
        collector.add(&event?);
    }
    Ok((collector, reader.end().unwrap_or_default()))
}

pub(super) fn trace_facts(path: &Path, trace: &Trace, fitted: &Fitted) -> TraceFacts {
    let recorded = &trace.header.recorded;
    let busy = trace.busy as f64 / 1e9;
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let commands = |bytes: u64| trace.bytes as f64 / bytes as f64 / busy;
    TraceFacts {
        file: file.filter(|name| name != "-").unwrap_or_else(|| "<stdin>".to_owned()),
        events: trace.end.events,
        dropped: trace.end.dropped,
        started: recorded.started,
        seconds: trace.time as f64 / 1e9,
        calls: trace.calls,
        policy: recorded.policy.clone(),
        target: recorded.target.clone(),
        command: recorded.command.clone(),
        cores: recorded.cores,
        calls_per_second: trace.calls as f64 / busy,
        commands_per_second: fitted.facts.command_bytes.map(commands),
    }
}

/// With fewer sync calls than this a recording says little: what Redis did in its first tenths of a
/// second was up to half as fast as later.
const FEW: u64 = 1000;

/// `1 sync call was`, `2 sync calls were`.
fn counted_were(count: u64, what: &str) -> String {
    format!("{} {}", counted(count, what), if count == 1 { "was" } else { "were" })
}

/// What makes the result less certain.
pub(super) fn notes(
    trace: &Trace,
    recorded: Option<&Object>,
    fitted: &Fitted,
    facts: &TraceFacts,
) -> Vec<String> {
    let mut notes = Vec::new();
    if trace.end.dropped > 0 {
        notes.push(format!("the recorder lost {}", counted(trace.end.dropped, "event")));
    }
    if trace.calls < FEW {
        notes.push(format!(
            "only {} recorded; with fewer than {FEW}, speeds are rough: record for longer",
            counted_were(trace.calls, "sync call")
        ));
    }
    if trace.header.recorded.source == Source::Strace {
        notes.push(
            "strace does not record processor time and slows the application down".to_owned(),
        );
    }
    if trace.header.recorded.source == Source::Supervisor {
        notes.push(
            "recorded under the supervisor: asking about each write slows the application down, and its processor time \
             counts the asking"
                .to_owned(),
        );
    }
    if trace.counted == Counted::Writes {
        notes.push(
            "the application synced by a timer (`appendfsync everysec`): each write counts as if a sync \
             call followed it, as under `appendfsync always`; the durations of syncs are those of larger \
             syncs, and the work of the clients is a guess"
                .to_owned(),
        );
        return notes;
    }
    let Some(object) = recorded else {
        let policy = &trace.header.recorded.policy;
        notes.push(format!(
            "recorded under `{policy}`, which is not a ready policy: the simulation could not be \
             compared with the recording"
        ));
        return notes;
    };
    let again = simulate(
        &fitted.application,
        &fitted.device,
        object,
        Options { seed: 1, crashes: Some(0) },
        &mut |_| (),
    );
    if let Ok(again) = again {
        let simulated = again.calls_per_second;
        if (simulated / facts.calls_per_second - 1.0).abs() > FAR {
            notes.push(format!(
                "simulated under the recorded policy, the application makes {simulated:.0} sync \
                 calls per second; the recording has {:.0}",
                facts.calls_per_second
            ));
        }
    }
    notes
}

// ---- the simulations ----

/// Simulates every policy, on all processors.
pub(super) fn all(
    fitted: &Fitted,
    device: &Device,
    candidates: &[Candidate],
    options: Options,
) -> Result<Vec<PolicyReport>> {
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let steps = steps(&fitted.application, options) * candidates.len() as u64;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let one = |candidate: &Candidate| -> Result<PolicyReport, SimulateError> {
        let mut tick = |more| {
            done.fetch_add(more, Ordering::Relaxed);
        };
        let Candidate { name, params, proved, object } = candidate;
        let simulated = simulate(&fitted.application, device, object, options, &mut tick)?;
        let (name, params) = (name.clone(), params.clone());
        Ok(PolicyReport { name, params, proved: proved.clone(), ..simulated })
    };
    let work = || {
        let mut reports = Vec::new();
        while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed))
            && let Some(candidate) = candidates.get(at)
        {
            reports.push((at, one(candidate)));
        }
        reports
    };
    let mut reports = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..workers.min(candidates.len())).map(|_| scope.spawn(work)).collect();
        show(steps, &done, || workers.iter().all(|worker| worker.is_finished()));
        workers.into_iter().filter_map(|worker| worker.join().ok()).flatten().collect::<Vec<_>>()
    });
    reports.sort_by_key(|(at, _)| *at);
    if reports.len() < candidates.len() {
        return Err(output::exit(
            2,
            "this is a bug in durac: please report it with the trace (a simulation panicked)",
        ));
    }
    let named = reports.into_iter().zip(candidates);
    named
        .map(|((_, report), candidate)| {
            report.with_context(|| format!("cannot simulate {}", candidate.name))
        })
        .collect()
}

/// Shows a bar on a terminal until `over`, if that takes long.
fn show(steps: u64, done: &AtomicU64, over: impl Fn() -> bool) {
    let began = Instant::now();
    let mut bar: Option<ProgressBar> = None;
    let mut look = Duration::from_micros(200);
    while !over() {
        if bar.is_none() && began.elapsed() > LONG && io::stderr().is_terminal() {
            let template = "simulating {bar:30} {percent} % ({eta} left)";
            bar = Some(progress::bar(steps, template));
        }
        if let Some(bar) = &bar {
            bar.set_position(done.load(Ordering::Relaxed));
        }
        std::thread::sleep(look);
        look = (look * 2).min(Duration::from_millis(50));
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}
