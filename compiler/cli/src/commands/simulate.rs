//! `durac simulate`: what policies would have cost an application that was recorded.

mod table;

use crate::Outcome;
use crate::args::{Device as DeviceArg, Format, Global, Simulate};
use crate::input::{self, Input};
use crate::{output, traces};
use anyhow::{Context, Result};
use durac_bpf::Object;
use durac_bpf::object::Loss;
use durac_compiler::{hir, lower, unit};
use durac_grammar::{Code, Diagnostic, Sources};
use durac_sim::check;
use durac_sim::html;
use durac_sim::replay::device::{Device, Preset};
use durac_sim::replay::fit::{Fitted, fit};
use durac_sim::replay::report::{
    CrashChoice, DeviceFacts, LeftOut, PolicyReport, Report, TraceFacts, VERSION,
};
use durac_sim::replay::trace::{Collector, Trace};
use durac_sim::replay::{Options, SimulateError, simulate, steps};
use durac_trace::{Reader, Source, TraceError};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A simulation that takes longer shows how far it is.
const LONG: Duration = Duration::from_secs(2);
/// A simulation of the recorded policy that is further off says so.
const FAR: f64 = 0.15;

/// Simulates, prints the table, and writes the JSON if asked.
pub fn run(args: &Simulate, global: &Global) -> Result<Outcome> {
    let Some(candidates) = Candidates::named(&args.policy, global)? else {
        return Ok(Outcome::Wrong);
    };
    let Some(trace) = read(&args.trace, global)? else {
        return Ok(Outcome::Wrong);
    };
    let recorded = recorded_policy(&trace);
    let fitted = fit(&trace, recorded.as_ref(), args.clients);
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
    let json = serde_json::to_string_pretty(&report).context("cannot write the report")? + "\n";
    if let Some(path) = args.json.as_deref().filter(|path| *path != Path::new("-")) {
        output::write_atomically(path, json.as_bytes(), 0o644)?;
    }
    if let Some(path) = &args.html {
        output::write_atomically(path, html::page(&report).as_bytes(), 0o644)?;
    }
    if global.format == Format::Json || args.json.as_deref() == Some(Path::new("-")) {
        output::stdout(json.as_bytes())?;
    } else {
        output::stdout(table::render(&report).as_bytes())?;
    }
    Ok(Outcome::Fine)
}

// ---- what is simulated ----

/// A policy, compiled.
struct Candidate {
    name: String,
    params: Vec<(String, String)>,
    proved: Option<Loss>,
    object: Object,
}

/// What is simulated, and what this version cannot run.
#[derive(Default)]
struct Candidates {
    all: Vec<Candidate>,
    left_out: Vec<LeftOut>,
}

impl Candidates {
    /// The policies asked for, or all ready ones. `None`, reported, if one is wrong.
    fn named(asked: &[String], global: &Global) -> Result<Option<Self>> {
        let mut found = Self::default();
        for named in asked {
            let (file, sets) = input::named(named);
            let Some((input, policy)) = input::policy(&file, &sets, global)? else {
                return Ok(None);
            };
            let before = found.all.len() + found.left_out.len();
            let said = found.add(&input, &policy, &sets);
            input::report(&said, &input.sources, global);
            if found.all.len() + found.left_out.len() == before {
                return Ok(None);
            }
        }
        for ready in durac_stdlib::POLICIES.iter().filter(|_| asked.is_empty()) {
            // Nobody asked for these: what could be said of them, `durac check` says.
            if let Some((input, policy)) = ready_policy(ready.name) {
                found.add(&input, &policy, &[]);
            }
        }
        if found.all.is_empty() {
            return Err(output::exit(1, "none of the policies can be run by this version"));
        }
        Ok(Some(found))
    }

    /// Compiles one more; answers what was found.
    fn add(&mut self, input: &Input, policy: &hir::Policy, sets: &[String]) -> Vec<Diagnostic> {
        let mut name = policy.name.clone();
        sets.iter().for_each(|set| name.push_str(&format!(" {set}")));
        if let Some(why) = lower::unsupported(policy, Code::NotYetInRuntime) {
            self.left_out.push(LeftOut { name, why: why.message });
            return Vec::new();
        }
        let (proved, found) = check::compile(policy, &input.sources, input.file);
        let Some(proved) = proved else { return found };
        let params = policy.params.iter();
        let params = params.map(|p| (p.name.node.clone(), unit::show(p.default, p.unit)));
        let (params, loss) = (params.collect(), proved.power_loss().cloned());
        self.all.push(Candidate { name, params, proved: loss, object: proved.object });
        found
    }
}

/// A policy of the standard library.
fn ready_policy(name: &str) -> Option<(Input, hir::Policy)> {
    let ready = durac_stdlib::policy(name)?;
    let mut sources = Sources::new();
    let file = sources.add(ready.file, ready.text);
    let policy = durac_compiler::analyse(&mut sources, file, ready.name).policy?;
    Some((Input { sources, file, stem: ready.name.to_owned() }, policy))
}

/// The policy under which a trace was recorded, if it is a ready one.
fn recorded_policy(trace: &Trace) -> Option<Object> {
    let (input, policy) = ready_policy(&trace.header.recorded.policy)?;
    let object = durac_compiler::compile(&policy, &input.sources, input.file).ok()?;
    durac_verify::verify(&object).is_ok().then_some(object)
}

fn preset(kind: DeviceArg) -> Preset {
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
fn read(path: &Path, global: &Global) -> Result<Option<Trace>> {
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

fn trace_facts(path: &Path, trace: &Trace, fitted: &Fitted) -> TraceFacts {
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

/// What makes the result less certain.
fn notes(
    trace: &Trace,
    recorded: Option<&Object>,
    fitted: &Fitted,
    facts: &TraceFacts,
) -> Vec<String> {
    let mut notes = Vec::new();
    if trace.end.dropped > 0 {
        notes.push(format!("the recorder lost {} events", trace.end.dropped));
    }
    if trace.calls < FEW {
        notes.push(format!(
            "only {} sync calls are recorded: with fewer than {FEW} the speeds are rough; record \
             for longer",
            trace.calls
        ));
    }
    if trace.header.recorded.source == Source::Strace {
        notes.push("strace sees no processor times and slows the application down".to_owned());
    }
    let Some(object) = recorded else {
        let policy = &trace.header.recorded.policy;
        notes.push(format!(
            "recorded under `{policy}`, which is no ready policy: the simulation could not be \
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
                 calls a second; recorded were {:.0}",
                facts.calls_per_second
            ));
        }
    }
    notes
}

// ---- the simulations ----

/// Simulates every policy, on all processors.
fn all(
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
        return Err(output::exit(2, "a simulation has died: please report this with the trace"));
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
            let style =
                ProgressStyle::with_template("simulating {bar:30} {percent} % ({eta} left)");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            bar = Some(ProgressBar::new(steps).with_style(style));
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
