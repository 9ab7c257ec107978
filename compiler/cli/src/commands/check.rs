//! `durac check`: everything that can be known before a policy runs.

use crate::Outcome;
use crate::args::{Check, Format, Global};
use crate::{input, output};
use anyhow::Result;
use durac_bpf::abi::Runtime;
use durac_compiler::unit;
use durac_sim::check::{Checked, report};
use durac_sim::model::proof::{Age, Method, Proof};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// What `--format json` prints on standard output for each file.
#[derive(Serialize)]
struct Report<'a> {
    file: String,
    ok: bool,
    policy: Option<&'a str>,
    target: Option<&'a str>,
    loss: Vec<durac_bpf::object::Loss>,
    proof: Option<Numbers>,
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
    /// Without a deadline: whether a tail can stay for ever.
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
            exact: proof.method != Method::Derived,
            states: proof.states,
            syncs: proof.syncs_by_default.count(),
            syncs_for_all_parameters: proof.syncs.count(),
            with_call_in_progress: proof.with_progress_by_default.count(),
            within_ns: match proof.age {
                Age::Nothing => Some(0),
                Age::Within(within) => Some(within),
                Age::UntilSynced | Age::Forever => None,
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
    let mut outcome = Outcome::Fine;
    for path in &args.files {
        if !one(path, args, global)? {
            outcome = Outcome::Wrong;
        }
    }
    Ok(outcome)
}

fn one(path: &Path, args: &Check, global: &Global) -> Result<bool> {
    let found = input::check(path, args.place.get(), global);
    if args.quiet {
        return Ok(found.is_some());
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
            };
            let line = serde_json::to_string(&report)? + "\n";
            output::stdout(line.as_bytes())?;
        }
        (Some((_, checked)), Format::Human | Format::Short) => {
            output::stdout(summary(path, checked).as_bytes())?;
        }
        (None, _) => {}
    }
    Ok(found.is_some())
}

fn summary(path: &Path, checked: &Checked) -> String {
    let mut out = String::new();
    let shown = path.display();
    let Some(policy) = &checked.analysis.policy else {
        let _ = writeln!(out, "{shown}: targets are right");
        return out;
    };
    let _ = writeln!(out, "{shown}: policy {} on {}", policy.name, policy.target.name);
    match (&checked.proved, &checked.analysis.loss) {
        (Some(proved), Some(derived)) => {
            for line in report(policy, derived, &proved.proof) {
                let _ = writeln!(out, "    {line}");
            }
            if proved.object.meta.runtime == Runtime::Bpftime {
                let _ = writeln!(
                    out,
                    "    under BPFtime, if the target keeps what it promises: see docs/bpftime.md"
                );
            }
        }
        _ => {
            let _ = writeln!(out, "    what it can lose is not known in this runtime");
        }
    }
    for p in &policy.params {
        let value = |v| unit::show(v, p.unit);
        let (default, min, max) = (value(p.default), value(p.min), value(p.max));
        let _ = writeln!(out, "    parameter {}: {default}, in {min}..={max}", p.name.node);
    }
    if !policy.guarantees.is_empty() {
        let all = if policy.guarantees.len() == 1 { "its guarantee" } else { "its guarantees" };
        let known = checked.proved.is_some();
        let kept = if known { "kept" } else { "cannot be checked in this runtime" };
        let _ = writeln!(out, "    {all}: {kept}");
    }
    out
}
