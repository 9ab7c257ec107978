//! `durac reload`, `durac off` and `durac on`: the policy of a running process is exchanged, switched off, and on
//! again.
//!
//! What is put into a process is compiled, proved and verified here first, and verified again by its agent or supervisor.

use crate::args::{Budget, Global};
use crate::commands::enable;
use crate::launch::{self, Given};
use crate::named::{Named, Settings};
use crate::processes::{self, Place};
use crate::{Outcome, bound, input, output};
use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use durac_abi::object::Param;
use durac_abi::{Object, Runtime};
use durac_core::unit::{Unit, show};
use durac_grammar::render::printable;
use durac_shm::status::{Answer, Command, ParamStatus, Snapshot};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How long a process may make no call that its agent sees.
const PATIENCE: Duration = Duration::from_secs(10);

/// Put another policy into running processes, without a restart
///
/// The policy is proved and verified first. It comes into force between two calls, once everything is durable that was
/// acknowledged before: at no moment can more be lost than under the worse of both. Parameters that both
/// have, with the same unit, keep their values; a compiled object has its own. If anything is wrong, nothing changes.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  durac reload my.dur\n  durac reload window --set n=16 /var/lib/redis:6379 --save"
)]
pub struct Reload {
    /// A policy file, a compiled object, or the name of a ready policy, with `:name=value,…` to set parameters
    #[arg(value_name = "FILE")]
    file: Named,
    /// Processes, by number or by directory and port [default: the only one under a policy]
    #[arg(value_name = "PID|DIR:PORT", value_parser = crate::args::word())]
    processes: Vec<String>,
    /// Its parameters.
    #[command(flatten)]
    settings: Settings,
    /// Keep it for the next start, where `durac enable` has put a policy into the unit
    #[arg(long)]
    save: bool,
    /// How long the proof may take.
    #[command(flatten)]
    budget: Budget,
}

/// Switch the policy of running processes off: every call runs as the application makes it
///
/// What was acknowledged is made durable first. `durac on` brings the policy back; a restart does, too.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  durac off\n  durac off /var/lib/redis:6379")]
pub struct Off {
    /// Processes, by number or by directory and port [default: the only one under a policy]
    #[arg(value_name = "PID|DIR:PORT", value_parser = crate::args::word())]
    processes: Vec<String>,
}

/// Switch the policy of running processes on again
///
/// The policy that `durac off` has switched off, with its parameters.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  durac on\n  durac on 4711")]
pub struct On {
    /// Processes, by number or by directory and port [default: the only one under a policy]
    #[arg(value_name = "PID|DIR:PORT", value_parser = crate::args::word())]
    processes: Vec<String>,
}

/// A process whose policy was to be changed.
#[derive(Debug, Serialize)]
pub struct Change {
    pid: u32,
    #[serde(flatten)]
    place: Place,
    before: State,
    /// None if nothing was changed.
    after: Option<State>,
    /// Why nothing was changed.
    refused: Option<String>,
    /// It was changed, and what was acknowledged before is not durable; why.
    failed: Option<String>,
    notes: Vec<String>,
    /// Where it is kept for the next start.
    #[serde(serialize_with = "crate::document::path")]
    saved: Option<PathBuf>,
}

/// What is in force.
#[derive(Debug, Serialize)]
struct State {
    policy: String,
    on: bool,
    power_loss: String,
    bound_syncs: Option<u64>,
    bound_updates: Option<u64>,
    bound_bytes: Option<u64>,
}

impl State {
    fn of(seen: &Snapshot) -> Self {
        let now = bound::now(seen);
        Self {
            policy: printable(&seen.policy),
            on: !seen.is_off,
            power_loss: bound::text(seen),
            bound_syncs: now.syncs,
            bound_updates: now.updates,
            bound_bytes: now.bytes,
        }
    }

    fn text(&self) -> String {
        format!("policy `{}`{}", self.policy, if self.on { "" } else { " off" })
    }
}

/// Exchanges them.
pub fn reload(args: &Reload, global: &Global) -> Result<Outcome> {
    let pids = processes::named(&args.processes)?;
    // Before anything is changed.
    let mut units = HashMap::new();
    for pid in pids.iter().filter(|_| args.save) {
        units.insert(*pid, enable::unit_of(*pid)?);
    }
    let Some(mut prepared) = prepare(args, &pids, &args.budget.of(global))? else {
        return report(&[], global).map(|_| Outcome::Wrong);
    };
    let mut unsaved = None;
    let outcome = change_all(&pids, global, |pid| {
        let Some(Prepared { object, bytes, notes }) = prepared.remove(&pid) else {
            return Ok(None);
        };
        let mut change = ask(pid, Command::Reload, &bytes)?;
        if change.refused.is_none() {
            change.notes.extend(notes);
        }
        // As `durac run` does: `durac show` finds it there.
        if change.refused.is_none()
            && let Err(why) = launch::store(&object)
        {
            change.notes.push(format!("`durac show {pid}` will not find it: {why:#}"));
        }
        if let (Some(unit), None) = (units.get(&pid), &change.refused) {
            match enable::save(unit, &bytes) {
                Ok(path) => change.saved = Some(path),
                // What has changed is told first.
                Err(why) => {
                    unsaved = Some(why.context(format!(
                        "process {pid}: it is in force, and not kept for the next start"
                    )))
                }
            }
        }
        Ok(Some(change))
    })?;
    unsaved.map_or(Ok(outcome), Err)
}

/// What is put into a process.
struct Prepared {
    object: Object,
    bytes: Vec<u8>,
    notes: Vec<String>,
}

/// Reads the policy, once, and proves it for every process; `None`, reported, if it is wrong for one.
fn prepare(args: &Reload, pids: &[u32], global: &Global) -> Result<Option<HashMap<u32, Prepared>>> {
    let file = args.file.path();
    let Some(given) = Given::read(file, global)? else { return Ok(None) };
    let set = args.file.settings(&args.settings);
    let mut prepared = HashMap::new();
    for pid in pids {
        let seen = processes::seen(*pid)?;
        let runtime = if seen.is_supervisor { Runtime::Supervisor } else { Runtime::Agent };
        let settings = carried(&given, &set, &seen);
        let Some(object) = given.object(file, &settings, runtime, global)? else {
            return Ok(None);
        };
        let bytes = durac_bpf::write(&object).context("cannot write the object")?;
        let notes = match &given {
            Given::Text(_) => Vec::new(),
            Given::Object(_) => not_carried(&object, &seen),
        };
        prepared.insert(*pid, Prepared { object, bytes, notes });
    }
    Ok(Some(prepared))
}

/// Switches them off.
pub fn off(args: &Off, global: &Global) -> Result<Outcome> {
    switch(&args.processes, Command::Off, global)
}

/// Switches them on.
pub fn on(args: &On, global: &Global) -> Result<Outcome> {
    switch(&args.processes, Command::On, global)
}

fn switch(words: &[String], command: Command, global: &Global) -> Result<Outcome> {
    let pids = processes::named(words)?;
    change_all(&pids, global, |pid| ask(pid, command, &[]).map(Some))
}

/// Changes one process after the other. When one fails, those before it have changed, and that is told.
fn change_all(
    pids: &[u32],
    global: &Global,
    mut one: impl FnMut(u32) -> Result<Option<Change>>,
) -> Result<Outcome> {
    let mut changes = Vec::new();
    for pid in pids {
        match one(*pid) {
            Ok(Some(change)) => changes.push(change),
            Ok(None) => return report(&changes, global).map(|_| Outcome::Wrong),
            Err(why) => return report(&changes, global).and(Err(why)),
        }
    }
    report(&changes, global)
}

/// The settings, and the values of parameters that the process has now: those that are not set, that have the same
/// name and unit in the policy, and that it allows.
fn carried(given: &Given, set: &[String], seen: &Snapshot) -> Vec<String> {
    let mut settings = set.to_vec();
    let Given::Text(input) = given else { return settings };
    let is_set =
        |name: &str| set.iter().any(|s| s.split('=').next().is_some_and(|set| set.trim() == name));
    // What is wrong with it is said when it is compiled.
    for param in &input::params(input) {
        let name = param.name.node.as_str();
        let known = seen
            .params
            .iter()
            .find(|old| old.name == name && Unit::parse(&old.unit) == Some(param.unit));
        if let Some(old) = known.filter(|_| !is_set(name)) {
            let value = bound::value(old);
            if (param.min..=param.max).contains(&value) && value != param.default {
                settings.push(format!("{name}={}", show(value, param.unit)));
            }
        }
    }
    settings
}

/// A note for each parameter of a compiled object that the process had with another value: the object's own is in force.
fn not_carried(object: &Object, seen: &Snapshot) -> Vec<String> {
    let note = |param: &Param| {
        let unit = Unit::parse(param.unit.text())?;
        let is_it =
            |old: &&ParamStatus| old.name == param.name && Unit::parse(&old.unit) == Some(unit);
        let was = bound::value(seen.params.iter().find(is_it)?);
        (was != param.default).then(|| {
            let (name, is) = (printable(&param.name), show(param.default, unit));
            format!("{name} = {is}, as the object was compiled; it was {}", show(was, unit))
        })
    };
    object.meta.params.iter().filter_map(note).collect()
}

/// Asks the agent of a process.
pub fn ask(pid: u32, command: Command, bytes: &[u8]) -> Result<Change> {
    let control = processes::control(pid)?;
    let before = processes::seen(pid)?;
    let is_over = processes::is_over(pid, control.since());
    let answer = control.ask_until(command, bytes, PATIENCE, is_over).map_err(|why| {
        let why = match why.kind() {
            io::ErrorKind::TimedOut if before.is_supervisor => "it does not answer".to_owned(),
            io::ErrorKind::TimedOut => format!(
                "it made no call for {} s that its agent could see, and nothing was changed",
                PATIENCE.as_secs()
            ),
            io::ErrorKind::FileTooLarge => "the object is too large".to_owned(),
            _ => output::reason(&why),
        };
        output::exit(2, format!("process {pid}: {why}"))
    })?;
    drop(control);
    let answer = answer.ok_or_else(|| {
        let why = "it has ended, or another program has taken over meanwhile: nothing was changed";
        output::exit(2, format!("process {pid}: {why}"))
    })?;
    let mut change = Change {
        pid,
        place: Place::of(pid),
        before: State::of(&before),
        after: None,
        refused: None,
        failed: None,
        notes: Vec::new(),
        saved: None,
    };
    match answer {
        Answer::Done(text) => {
            change.after = Some(State::of(&processes::seen(pid)?));
            change.notes = text.lines().map(printable).collect();
        }
        Answer::Refused(why) => change.refused = Some(printable(&why)),
        Answer::Failed(why) => {
            change.failed = Some(printable(&why));
            // The process may have ended of it.
            change.after = processes::seen(pid).ok().map(|seen| State::of(&seen));
        }
    }
    Ok(change)
}

fn report(changes: &[Change], global: &Global) -> Result<Outcome> {
    let mut told = Ok(());
    if global.is_json() {
        global.document.put_field("processes", &changes)?;
    } else {
        // It has happened, whether or not the report can be written.
        told = output::told(&changes.iter().map(text).collect::<String>());
    }
    let mut outcome = Outcome::Fine;
    for change in changes {
        if let Some(why) = &change.refused {
            output::error(&format!(
                "process {}: {} stays as it is: {why}",
                change.pid,
                change.before.text()
            ));
            outcome = Outcome::Wrong;
        }
        if let Some(why) = &change.failed {
            let after = change.after.as_ref().map_or("it has ended".to_owned(), State::text);
            output::error(&format!(
                "process {}: {after}, and what was acknowledged before is not durable: {why}",
                change.pid
            ));
            outcome = Outcome::Wrong;
        }
    }
    told.map(|()| outcome)
}

fn text(change: &Change) -> String {
    let Some(after) = change.after.as_ref().filter(|_| change.failed.is_none()) else {
        return String::new();
    };
    let before = &change.before;
    let mut text = format!(
        "process {} ({}): {} → {}\n    a power loss could take {}; now: {}\n    in between: never more than the worse of both; all \
         that was acknowledged before is durable\n",
        change.pid,
        change.place.text(),
        before.text(),
        after.text(),
        before.power_loss,
        after.power_loss,
    );
    for note in &change.notes {
        let _ = writeln!(text, "    {note}");
    }
    if let Some(path) = &change.saved {
        let _ = writeln!(text, "    kept for the next start: {}", path.display());
    }
    text
}
