//! `durac check`: everything that can be known before a policy runs.

use crate::Outcome;
use crate::args::{Budget, Deployment, Format, Global};
use crate::{certificate, input, output};
use anyhow::Result;
use clap::Args as ClapArgs;
use durac_abi::Runtime;
use durac_core::unit;
use durac_driver::Compiled;
use durac_driver::report::report;
use durac_prove::proof::{Age, Proof};
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Arguments of `durac check`.
#[derive(Debug, ClapArgs)]
pub struct Check {
    /// Policy files, names of ready policies, or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print diagnostics only
    #[arg(short, long)]
    quiet: bool,
    /// Make the changes first that can only be meant one way, in place
    #[arg(long)]
    fix: bool,
    /// Show the certificate that the object carries, and check it: the invariant that bounds what a
    /// power loss takes
    #[arg(long)]
    certificate: bool,
    /// Print the conditions of the certificate in SMT-LIB instead, for a solver such as z3: every answer
    /// must be `unsat`
    #[arg(long, conflicts_with_all = ["quiet", "certificate"])]
    smt2: bool,
    /// Where they run.
    #[command(flatten)]
    deployment: Deployment,
    /// How long it may take.
    #[command(flatten)]
    budget: Budget,
}

/// What `--format json` prints on standard output for each file.
#[derive(Serialize)]
struct Report<'a> {
    file: String,
    ok: bool,
    policy: Option<&'a str>,
    target: Option<&'a str>,
    loss: Vec<durac_abi::object::Loss>,
    proof: Option<Numbers>,
    /// With `--certificate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<certificate::Shown>,
}

/// What the model checker found; `null` is unbounded.
#[derive(Serialize)]
struct Numbers {
    /// Whether the bounds are reached.
    exact: bool,
    states: usize,
    /// Acknowledged syncs, at the default parameters and for all.
    syncs: Option<u64>,
    syncs_for_all_parameters: Option<u64>,
    /// The same with the call in progress.
    with_call_in_progress: Option<u64>,
    /// Nanoseconds; `null` without a deadline.
    within_ns: Option<u64>,
    /// Without a deadline: whether a tail can stay unsynced forever.
    tail_for_ever: bool,
    /// Acknowledged syncs and writes that die with the process.
    staged_syncs: Option<u64>,
    staged_writes: Option<u64>,
    swallowed_error: bool,
    unbounded_wait: bool,
}

impl Numbers {
    fn of(proof: &Proof) -> Self {
        Self {
            exact: proof.exact,
            states: proof.states,
            syncs: proof.syncs_by_default.count(),
            syncs_for_all_parameters: proof.syncs.count(),
            with_call_in_progress: proof.with_progress_by_default.count(),
            within_ns: match proof.age {
                Age::Nothing => Some(0),
                Age::Within(within) => Some(within),
                Age::PlusSyncs(_) | Age::Forever => None,
            },
            tail_for_ever: proof.age == Age::Forever,
            staged_syncs: proof.process.syncs_by_default.count(),
            staged_writes: proof.process.writes.count(),
            swallowed_error: proof.faults.swallowed,
            unbounded_wait: proof.faults.stuck,
        }
    }
}

/// Checks every file; all of them, even if one is wrong.
pub fn run(args: &Check, global: &Global) -> Result<Outcome> {
    let global = &args.budget.of(global);
    let mut outcome = Outcome::Fine;
    for path in &args.files {
        if !one(path, args, global)? {
            outcome = Outcome::Wrong;
        }
    }
    Ok(outcome)
}

fn one(path: &Path, args: &Check, global: &Global) -> Result<bool> {
    if args.fix {
        input::fix(path, args.deployment.get(), global)?;
    }
    let found = input::check(path, args.deployment.get(), global);
    if args.quiet {
        return Ok(found.is_some());
    }
    if let (true, Some((_, checked))) = (args.smt2, &found) {
        return certificate::smt2(path, checked);
    }
    match (&found, global.format) {
        (_, Format::Json) => {
            let checked = found.as_ref().map(|(_, checked)| checked);
            let policy = checked.and_then(|c| c.analysis.policy.as_ref());
            let proved = checked.and_then(|c| c.proved.as_ref());
            let report = Report {
                file: path.display().to_string(),
                ok: found.is_some(),
                policy: policy.map(|p| p.name.as_str()),
                target: policy.map(|p| p.target.name.as_str()),
                loss: proved.map(|p| p.object.meta.loss.clone()).unwrap_or_default(),
                proof: proved.map(|p| Numbers::of(&p.proof)),
                certificate: match proved.filter(|_| args.certificate) {
                    Some(proved) => certificate::shown(&proved.object)?,
                    None => None,
                },
            };
            let line = serde_json::to_string(&report)? + "\n";
            output::stdout(line.as_bytes())?;
        }
        (Some((_, checked)), Format::Human | Format::Short) => {
            let mut summary = summary(path, checked);
            if let (true, Some(proved)) = (args.certificate, &checked.proved) {
                summary.push_str(&certificate::lines(&proved.object)?);
            }
            output::stdout(summary.as_bytes())?;
        }
        (None, _) => {}
    }
    Ok(found.is_some())
}

fn summary(path: &Path, checked: &Compiled) -> String {
    let mut out = String::new();
    let shown = path.display();
    let Some(policy) = &checked.analysis.policy else {
        let _ = writeln!(out, "{shown}: targets are valid");
        return out;
    };
    let _ = writeln!(out, "{shown}: policy {} on {}", policy.name, policy.target.name);
    match (&checked.proved, &checked.analysis.loss) {
        (Some(proved), _) => {
            for line in report(policy, &proved.proof) {
                let _ = writeln!(out, "    {line}");
            }
            if proved.object.meta.runtime == Runtime::Bpftime {
                // A program ends its policy when it sees another thread, which can be too late for one call.
                let _ = writeln!(
                    out,
                    "    under BPFtime, provided that one thread calls each function and the target is \
                     as declared: see docs/bpftime.md"
                );
            }
        }
        _ => {
            let _ = writeln!(out, "    the loss in this runtime is unknown");
        }
    }
    for p in &policy.params {
        let value = |v| unit::show(v, p.unit);
        let (default, min, max) = (value(p.default), value(p.min), value(p.max));
        let _ = writeln!(out, "    parameter {}: {default}, in {min}..={max}", p.name.node);
    }
    if !policy.guarantees.is_empty() {
        let all = if policy.guarantees.len() == 1 { "guarantee" } else { "guarantees" };
        let known = checked.proved.is_some();
        let kept = if known { "proved" } else { "cannot be checked in this runtime" };
        let _ = writeln!(out, "    {all}: {kept}");
    }
    out
}
