//! `durac check`: everything that can be known before a policy runs.

use crate::Outcome;
use crate::args::{Budget, Deployment, Global};
use crate::named::{Named, Settings};
use crate::{bound, certificate, input, output};
use anyhow::Result;
use clap::Args as ClapArgs;
use durac_abi::Runtime;
use durac_core::unit;
use durac_driver::Compiled;
use durac_driver::report::report;
use durac_prove::proof::{Age, Proof};
use serde::Serialize;
use std::fmt::Write;

/// Arguments of `durac check`.
#[derive(Debug, ClapArgs)]
pub struct Check {
    /// Policy files, names of ready policies, or `-` for standard input, with `:name=value,…` to set parameters
    #[arg(required = true, value_name = "FILE")]
    files: Vec<Named>,
    /// Parameters of all.
    #[command(flatten)]
    settings: Settings,
    /// Print diagnostics only
    #[arg(short, long)]
    quiet: bool,
    /// Apply unambiguous fixes in place, then check
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

/// What `--format json` says of each file.
#[derive(Serialize)]
struct Report {
    file: String,
    ok: bool,
    policy: Option<String>,
    target: Option<String>,
    loss: Vec<bound::Shown>,
    proof: Option<Numbers>,
    /// With `--certificate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<certificate::Shown>,
    /// With `--smt2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    smt2: Option<String>,
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
    let mut files = Vec::new();
    for named in &args.files {
        files.push(one(named, args, global)?);
    }
    let fine = files.iter().all(|file| file.ok);
    global.document.put_field("files", &files)?;
    Ok(if fine { Outcome::Fine } else { Outcome::Wrong })
}

fn one(named: &Named, args: &Check, global: &Global) -> Result<Report> {
    if args.fix {
        input::fix(named.path(), args.deployment.get(), global)?;
    }
    let settings = named.settings(&args.settings);
    let found = input::check(named, &settings, args.deployment.get(), global);
    let mut report = Report::of(named, found.as_ref().map(|(_, checked)| checked));
    let Some((_, checked)) = found else { return Ok(report) };
    if args.smt2 {
        let script = certificate::smt2(named, &checked)?;
        if global.is_json() {
            report.smt2 = Some(script);
        } else {
            output::stdout(script.as_bytes())?;
        }
        return Ok(report);
    }
    if let Some(proved) = checked.proved.as_ref().filter(|_| args.certificate) {
        report.certificate = certificate::shown(&proved.object)?;
    }
    if !args.quiet && !global.is_json() {
        let mut summary = summary(named, &checked);
        if let (true, Some(proved)) = (args.certificate, &checked.proved) {
            summary.push_str(&certificate::lines(&proved.object)?);
        }
        output::print(&summary)?;
    }
    Ok(report)
}

impl Report {
    fn of(named: &Named, checked: Option<&Compiled>) -> Self {
        let policy = checked.and_then(|c| c.analysis.policy.as_ref());
        let proved = checked.and_then(|c| c.proved.as_ref());
        Self {
            file: named.to_string(),
            ok: checked.is_some(),
            policy: policy.map(|p| p.name.clone()),
            target: policy.map(|p| p.target.name.clone()),
            loss: proved.map(|p| bound::shown(&p.object.meta.loss)).unwrap_or_default(),
            proof: proved.map(|p| Numbers::of(&p.proof)),
            certificate: None,
            smt2: None,
        }
    }
}

fn summary(shown: &Named, checked: &Compiled) -> String {
    let mut out = String::new();
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
