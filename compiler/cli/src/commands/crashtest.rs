//! `durac crashtest`: cuts the power of a real database again and again, and compares what is lost
//! with what was proved.

use crate::args::{CrashApp, CrashAt, CrashKind, Crashtest, Format, Global};
use crate::{Outcome, input, launch, output};
use anyhow::{Context, Result};
use clap::ValueEnum;
use durac_bpf::object::Loss;
use durac_workload::bench::Policy;
use durac_workload::crash::{App, At, Config, Crash, Line, Trial, fault};
use durac_workload::machine::Machine;
use durac_workload::{Error, child, sys};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// Version of the JSON.
const VERSION: u32 = 1;

/// The JSON.
#[derive(Serialize)]
struct Report {
    version: u32,
    machine: Machine,
    seed: u64,
    clients: u32,
    latency_us: u64,
    /// Why it ended early; `null` if it did not.
    stopped: Option<String>,
    policies: Vec<Tested>,
}

/// What came of one policy.
#[derive(Serialize)]
struct Tested {
    policy: String,
    /// Acknowledged syncs that a power loss takes at most, as proved; `null` is any number.
    power_loss: Option<u64>,
    process_crash: Option<u64>,
    trials: Vec<Trial>,
    /// The crash that took the most, those that took too much first.
    worst: Option<Worst>,
}

/// How it came to the worst.
#[derive(Serialize)]
struct Worst {
    number: u32,
    /// The command that makes the same choices again.
    again: String,
    timeline: Vec<Line>,
}

/// Tests every policy, prints the table, and answers `Wrong` if one has lost too much.
pub fn run(args: &Crashtest, global: &Global) -> Result<Outcome> {
    let app = app(args)?;
    let mut configs = Vec::new();
    for named in &args.files {
        let Some(config) = config(named, &app, args, global)? else { return Ok(Outcome::Wrong) };
        configs.push((named, config));
    }
    durac_disk::private_mounts().context("cannot mount a disk: crashtest needs root")?;
    sys::catch_interrupts();
    let mut report = Report {
        version: VERSION,
        machine: Machine::look(&std::env::temp_dir(), Path::new("redis-server"))?,
        seed: args.seed,
        clients: args.clients,
        latency_us: args.latency,
        stopped: None,
        policies: Vec::new(),
    };
    let bar = bar(u64::from(args.trials) * configs.len() as u64);
    for (named, (name, config)) in configs {
        let mut tested = Tested {
            policy: name,
            power_loss: config.power_loss,
            process_crash: config.process_crash,
            trials: Vec::new(),
            worst: None,
        };
        for number in args.first..args.first.saturating_add(args.trials) {
            bar.set_message(format!("{}, crash {number}", tested.policy));
            match config.trial(number) {
                Ok(trial) => tested.trials.push(trial),
                Err(Error::Interrupted) => report.stopped = Some("interrupted".to_owned()),
                Err(error) => report.stopped = Some(format!("crash {number}: {error}")),
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
    match global.format {
        Format::Json => output::stdout(json.as_bytes())?,
        _ => output::stdout(table(&report).as_bytes())?,
    }
    if let Some(why) = &report.stopped {
        return Err(output::exit(2, format!("stopped early: {why}")));
    }
    let fine = report.policies.iter().flat_map(|p| &p.trials).all(|t| t.violation.is_none());
    Ok(if fine { Outcome::Fine } else { Outcome::Wrong })
}

/// What is to be crashed.
fn app(args: &Crashtest) -> Result<App> {
    let wrong = |why: String| Err(output::exit(1, why));
    let Some((program, rest)) = args.command.split_first() else {
        return match args.app {
            CrashApp::Builtin if args.at.contains(&CrashAt::Rewrite) => wrong(
                "the built-in application rewrites no log: leave `rewrite` out of `--at`".into(),
            ),
            CrashApp::Builtin => Ok(App::Builtin),
            CrashApp::Redis => match child::which("redis-server") {
                Ok(_) => Ok(App::Redis),
                Err(error) => wrong(format!("{error}: install it, or use `--app builtin`")),
            },
        };
    };
    let says = |what: &str| args.command.iter().any(|word| word.to_string_lossy().contains(what));
    for placeholder in ["{port}", "{dir}"] {
        if !says(placeholder) {
            return wrong(format!(
                "the command after `--` does not say `{placeholder}`: durac chooses the port and the \
                 folder, for example `-- redis-server --port {{port}} --dir {{dir}} --appendonly yes \
                 --appendfsync always`"
            ));
        }
    }
    let shown = program.to_string_lossy().into_owned();
    let path = match shown.contains('/') {
        true if !std::path::Path::new(program).is_file() => {
            return wrong(format!("`{shown}` is no file"));
        }
        true => std::path::absolute(program).context("no working folder")?,
        false => match child::which(&shown) {
            Ok(path) => path,
            Err(error) => return wrong(error.to_string()),
        },
    };
    Ok(App::Command([path.into()].into_iter().chain(rest.iter().cloned()).collect()))
}

/// The test of `FILE` or `FILE:name=value`; `None`, reported, if the policy is wrong.
fn config(
    named: &str,
    app: &App,
    args: &Crashtest,
    global: &Global,
) -> Result<Option<(String, Config)>> {
    let (file, sets) = input::named(named);
    let Some(ready) = input::ready(&file, &sets, global)? else { return Ok(None) };
    let of = |failure: &str| -> Option<&Loss> {
        ready.proved.object.meta.loss.iter().find(|loss| loss.failure == failure)
    };
    let mut name = ready.policy.name.clone();
    sets.iter().for_each(|set| name.push_str(&format!(" {set}")));
    let config = Config {
        durac: std::env::current_exe().context("cannot find durac itself")?,
        app: app.clone(),
        policy: Some(Policy {
            // Proved once, and not before every crash.
            file: launch::store(&ready.proved.object)?,
            sets: Vec::new(),
            engine: args.engine.map(|engine| engine.name().to_owned()),
        }),
        appendfsync: "always".to_owned(),
        env: Vec::new(),
        words: Vec::new(),
        clients: args.clients,
        latency: Duration::from_micros(args.latency),
        crashes: args.crash.iter().map(|kind| crash(*kind)).collect(),
        at: args.moments().into_iter().map(moment).collect(),
        faults: args.fault.iter().map(|text| fault(text)).collect::<Result<_, _>>()?,
        seed: args.seed,
        power_loss: of("power_loss").and_then(|loss| loss.syncs),
        process_crash: of("process_crash").and_then(|loss| loss.syncs),
    };
    Ok(Some((name, config)))
}

fn worst(trials: &[Trial], again: impl Fn(&Trial) -> String) -> Option<Worst> {
    let order = |t: &&Trial| (t.violation.is_some(), t.lost_syncs, t.lost_commands);
    let trial = trials.iter().max_by_key(order)?;
    Some(Worst { number: trial.number, again: again(trial), timeline: trial.timeline.clone() })
}

/// The command line that repeats one crash.
fn again(named: &str, trial: &Trial, args: &Crashtest) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,".contains(c);
    let quoted = |word: &str| match word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    };
    let named = quoted(named);
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
    if let Some(engine) = args.engine {
        text.push_str(&format!(" --engine {}", engine.name()));
    }
    args.fault.iter().for_each(|fault| text.push_str(&format!(" --fault {}", quoted(fault))));
    if args.app != CrashApp::Redis {
        text.push_str(&format!(" --app {}", names(&[args.app])));
    }
    if !args.command.is_empty() {
        text.push_str(" --");
        args.command
            .iter()
            .for_each(|word| text.push_str(&format!(" {}", quoted(&word.to_string_lossy()))));
    }
    text
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

fn bar(steps: u64) -> ProgressBar {
    // indicatif draws on a terminal only.
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} (about {eta} left)");
    ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

// ---- the table ----

const TITLES: [&str; 9] = [
    "policy",
    "crash",
    "crashes",
    "acknowledged",
    "worst: syncs",
    "proved",
    "mean: syncs",
    "worst: commands",
    "violations",
];

fn table(report: &Report) -> String {
    let mut lines = vec![TITLES.map(str::to_owned)];
    for tested in &report.policies {
        for crash in [Crash::Clean, Crash::Torn, Crash::Reordered, Crash::Kill] {
            let of: Vec<&Trial> = tested.trials.iter().filter(|t| t.crash == crash).collect();
            if !of.is_empty() {
                lines.push(line(tested, crash, &of));
            }
        }
    }
    let mut out = String::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            let cells = lines.iter().filter_map(|line| line.get(column));
            let width = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            // Writing to a string cannot fail.
            let _ = match column {
                0 => write!(out, "{cell:width$}"),
                1 => write!(out, "  {cell:width$}"),
                _ => write!(out, "  {cell:>width$}"),
            };
        }
        out.push('\n');
    }
    for tested in &report.policies {
        for trial in &tested.trials {
            if let Some(why) = &trial.violation {
                let _ = writeln!(
                    out,
                    "\n{}: crash {} breaks what was proved: {why}",
                    tested.policy, trial.number
                );
            }
        }
        let met = tested.trials.iter().filter(|trial| trial.faults > 0).count();
        if met > 0 {
            let ended = tested.trials.iter().filter(|trial| trial.ended).count();
            let _ = writeln!(
                out,
                "note: {}: a fault came before {met} of the crashes; in {ended} the application had \
                 ended by itself",
                tested.policy
            );
        }
        let repaired = tested.trials.iter().filter(|trial| trial.repaired).count();
        if repaired > 0 {
            let _ = writeln!(
                out,
                "note: {}: after {repaired} of the crashes Redis took the log only when \
                 `redis-check-aof --fix` had cut it off at a hole; what is gone with that is counted",
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
    let mut out = format!("\n{policy}: the worst is crash {}\n", worst.number);
    for line in &worst.timeline {
        // Writing to a string cannot fail.
        let _ = match line.ms {
            Some(ms) => writeln!(out, "{ms:>12.3} ms  {}", line.what),
            None => writeln!(out, "{:>15}  {}", "", line.what),
        };
    }
    let _ = writeln!(out, "    again: {}", worst.again);
    out
}

fn line(tested: &Tested, crash: Crash, trials: &[&Trial]) -> [String; 9] {
    let most = |of: fn(&Trial) -> u64| trials.iter().map(|t| of(t)).max().unwrap_or(0);
    let mean = trials.iter().map(|t| t.lost_syncs as f64).sum::<f64>() / trials.len() as f64;
    let bound = match crash {
        Crash::Kill => tested.process_crash,
        _ => tested.power_loss,
    };
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
        bound.map_or("any".to_owned(), |bound| bound.to_string()),
        format!("{mean:.1}"),
        most(|t| t.lost_commands).to_string(),
        trials.iter().filter(|t| t.violation.is_some()).count().to_string(),
    ]
}
