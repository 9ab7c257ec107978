//! `durac set`: changes the parameters of a policy while its application runs.

use super::{enable, top};
use crate::args::Global;
use crate::{Outcome, bound, input, output, processes};
use anyhow::Result;
use clap::Args as ClapArgs;
use durac_core::set::Known;
use durac_core::unit::{Unit, show};
use durac_driver::settings;
use durac_grammar::Sources;
use durac_grammar::render::printable;
use durac_shm::status::{Command, ParamStatus, Snapshot, Status};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// How long the agent may take to log the change, which holds in any case.
const PATIENCE: Duration = Duration::from_secs(1);

/// Change parameters of a running policy
///
/// All of them, or none if one is wrong. A call sees one value of each from its beginning to its end, so the new
/// bound holds from the next call on.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  durac set n=16\n  durac set n=16 --pid 4711 --save")]
pub struct Set {
    /// New values, with units as in a policy: `n=16`, `wait=50ms`
    #[arg(required = true, value_name = "NAME=VALUE")]
    assignments: Vec<String>,
    /// The process, by number or by directory and port [default: the only one under a policy]
    #[arg(long, value_name = "PID|DIR:PORT", value_parser = crate::args::word())]
    pid: Option<String>,
    /// Keep them for the next start, where `durac enable` has put the policy into the unit
    #[arg(long)]
    save: bool,
}

/// A parameter that was changed.
#[derive(Debug, Serialize)]
struct Changed {
    name: String,
    unit: String,
    before: u64,
    after: u64,
}

/// The change of a process.
#[derive(Debug, Serialize)]
struct Report {
    pid: u32,
    policy: String,
    changed: Vec<Changed>,
    power_loss_before: String,
    power_loss: String,
    bound_syncs: Option<u64>,
    bound_updates: Option<u64>,
    bound_bytes: Option<u64>,
    #[serde(serialize_with = "crate::document::path")]
    saved: Option<PathBuf>,
}

/// Sets them all, or none if one is wrong.
pub fn run(args: &Set, global: &Global) -> Result<Outcome> {
    let words: Vec<String> = args.pid.iter().cloned().collect();
    let mut changed = Vec::new();
    let mut outcome = Ok(Outcome::Fine);
    for pid in processes::named_as(&words, "name one with `--pid PID`")? {
        match change(args, pid, global) {
            Ok(Some(done)) => {
                changed.push(done.report);
                // It has happened. The others are to have it, too, unless it cannot be kept.
                outcome = outcome.and_then(|fine| done.told.map(|()| fine));
                if let Err(why) = done.saved {
                    outcome = Err(why);
                    break;
                }
            }
            Ok(None) => {
                outcome = Ok(Outcome::Wrong);
                break;
            }
            Err(why) => {
                outcome = Err(why);
                break;
            }
        }
    }
    global.document.put_field("processes", &changed)?;
    outcome
}

/// A change that was made.
struct Done {
    report: Report,
    /// Whether standard output has it.
    told: Result<()>,
    /// Whether it is kept for the next start, if it was to be.
    saved: Result<()>,
}

/// Changes one process; `None`, reported, if an assignment is wrong.
fn change(args: &Set, pid: u32, global: &Global) -> Result<Option<Done>> {
    let status = Status::of_process(pid, true).map_err(|why| top::unreadable(pid, &why))?;
    // Nobody exchanges the policy meanwhile.
    let control = processes::control(pid)?;
    let before = status.snapshot();
    let policy = printable(&before.policy);
    let known: Vec<Known> = before.params.iter().map(known).collect();
    let mut changes = Vec::new();
    let mut sources = Sources::new();
    let found = settings::each(&args.assignments, &mut sources, |assignment| {
        let found = durac_core::set::find(&policy, known.clone(), assignment);
        let (index, value) = found.map_err(|mut wrong| {
            if !assignment.contains('=') {
                wrong.help = Some("expected NAME=VALUE; `--pid` names the process".to_owned());
            }
            wrong
        })?;
        changes.extend(before.params.get(index).map(|param| (param, value)));
        Ok(())
    });
    if !found.is_empty() {
        let found: Vec<_> = found.into_iter().map(|(diagnostic, _)| diagnostic).collect();
        input::report(&found, &sources, global);
        return Ok(None);
    }
    // What is to be kept is made before anything is changed.
    let kept = match args.save {
        true => {
            let unit = enable::unit_of(pid)?;
            let mut next = before.clone();
            for param in &mut next.params {
                let changed = changes.iter().rev().find(|(changed, _)| changed.name == param.name);
                param.value = changed.map_or(param.value, |(_, value)| *value);
            }
            let object = enable::with_parameters(&unit, &next)?;
            Some((unit, object))
        }
        false => None,
    };
    for (param, value) in &changes {
        // Known a moment ago, and nobody exchanges them.
        let _ = status.set_param(&param.name, *value);
    }
    let seen = status.snapshot();
    let said = lines(pid, &policy, &changes, (&before, &seen));
    for change in said.lines().filter(|line| !line.starts_with(' ')) {
        // A process that makes no call logs nothing; the values hold all the same.
        if control.ask(Command::Tell, change.as_bytes(), PATIENCE).is_err() {
            break;
        }
    }
    let saved = kept.map(|(unit, object)| enable::save(&unit, &object)).transpose();
    let (path, saved) = match saved {
        Ok(path) => (path, Ok(())),
        Err(why) => {
            let what = "changed in the process, and not kept for the next start";
            (None, Err(why.context(format!("process {pid}: {what}"))))
        }
    };
    let mut told = Ok(());
    if !global.is_json() {
        let kept = path.as_ref().map(|path| path.display());
        let kept = kept.map(|path| format!("    kept for the next start: {path}\n"));
        told = output::told(&(said + &kept.unwrap_or_default()));
    }
    let now = bound::now(&seen);
    let report = Report {
        pid,
        policy,
        changed: changes
            .iter()
            .map(|(param, value)| Changed {
                name: printable(&param.name),
                unit: printable(&param.unit),
                before: param.value,
                after: *value,
            })
            .collect(),
        power_loss_before: bound::text(&before),
        power_loss: bound::text(&seen),
        bound_syncs: now.syncs,
        bound_updates: now.updates,
        bound_bytes: now.bytes,
        saved: path,
    };
    Ok(Some(Done { report, told, saved }))
}

fn lines(
    pid: u32,
    policy: &str,
    changes: &[(&ParamStatus, u64)],
    (before, seen): (&Snapshot, &Snapshot),
) -> String {
    let (old, new) = (bound::text(before), bound::text(seen));
    let mut said = String::new();
    for (param, value) in changes {
        let unit = Unit::parse(&param.unit).unwrap_or(Unit::Unknown);
        let name = printable(&param.name);
        let (was, is) = (show(param.value, unit), show(*value, unit));
        let _ = writeln!(
            said,
            "policy `{policy}` of process {pid}: {name} = {was} → {is}; power loss: {old} → {new}"
        );
    }
    if before.is_off {
        let _ = writeln!(said, "    {}", processes::off_note(before.stays_off));
    }
    said
}

fn known(param: &ParamStatus) -> Known {
    Known {
        name: printable(&param.name),
        unit: Unit::parse(&param.unit).unwrap_or(Unit::Unknown),
        range: (param.min, param.max),
    }
}
