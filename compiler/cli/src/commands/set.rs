//! `durac set`: changes the parameters of a policy while its application runs.

use super::top;
use crate::args::Set;
use crate::{Outcome, output};
use anyhow::Result;
use durac_compiler::set::Known;
use durac_compiler::unit::{Unit, show};
use durac_engine::status::{ParamStatus, Status};
use std::fmt::Write as _;

/// Sets them all, or none if one is wrong.
pub fn run(args: &Set) -> Result<Outcome> {
    let pid = match args.pid {
        Some(pid) => pid,
        None => only()?,
    };
    let status = Status::of_process(pid, true).map_err(|why| top::unreadable(pid, &why))?;
    let seen = status.snapshot();
    let policy = top::printable(&seen.policy);
    let known: Vec<Known> = seen.params.iter().map(known).collect();
    let mut changes = Vec::new();
    for assignment in &args.assignments {
        let (index, value) = durac_compiler::set::find(&policy, known.clone(), assignment)
            .map_err(|why| output::exit(1, why))?;
        changes.extend(seen.params.get(index).map(|param| (param, value)));
    }
    let mut said = String::new();
    for (param, value) in changes {
        // Known a moment ago, and pages do not forget parameters.
        let _ = status.set_param(&param.name, value);
        let unit = Unit::parse(&param.unit).unwrap_or(Unit::Unknown);
        let name = top::printable(&param.name);
        let (old, new) = (show(param.value, unit), show(value, unit));
        let _ = writeln!(said, "policy `{policy}` of process {pid}: {name} = {old} → {new}");
    }
    output::stdout(said.as_bytes())?;
    Ok(Outcome::Fine)
}

/// The one process that runs under a policy.
fn only() -> Result<u32> {
    let running = durac_engine::status::running();
    match running.as_slice() {
        [one] => Ok(one.pid),
        [] => Err(top::nothing_runs()),
        several => {
            let pids: Vec<String> = several.iter().map(|r| r.pid.to_string()).collect();
            let pids = pids.join(", ");
            Err(output::exit(1, format!("several run under a policy ({pids}): choose with --pid")))
        }
    }
}

fn known(param: &ParamStatus) -> Known {
    Known {
        name: top::printable(&param.name),
        unit: Unit::parse(&param.unit).unwrap_or(Unit::Unknown),
        range: (param.min, param.max),
    }
}
