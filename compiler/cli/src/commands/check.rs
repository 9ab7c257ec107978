//! `durac check`: everything that can be known before a policy runs.

use crate::Outcome;
use crate::args::{Check, Format, Global};
use crate::{input, output};
use anyhow::Result;
use durac_compiler::{Analysis, lower, unit};
use durac_grammar::Code;
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
    let found = input::analyse(path, global);
    if let Some((input, analysis)) = &found
        && let Some(policy) = &analysis.policy
    {
        let later = lower::unsupported(policy, Code::NotYetInRuntime);
        if let Some(later) = later
            && global.format != Format::Json
        {
            input::report(&[later], &input.sources, global);
        }
    }
    if args.quiet {
        return Ok(found.is_some());
    }
    match (&found, global.format) {
        (_, Format::Json) => {
            let policy = found.as_ref().and_then(|(_, a)| a.policy.as_ref().zip(a.loss.as_ref()));
            let report = Report {
                file: path.display().to_string(),
                ok: found.is_some(),
                policy: policy.map(|(p, _)| p.name.as_str()),
                target: policy.map(|(p, _)| p.target.name.as_str()),
                loss: policy.map(|(p, loss)| loss.note(p)).unwrap_or_default(),
            };
            let line = serde_json::to_string(&report)? + "\n";
            output::stdout(line.as_bytes())?;
        }
        (Some((_, analysis)), Format::Human | Format::Short) => {
            output::stdout(summary(path, analysis).as_bytes())?;
        }
        (None, _) => {}
    }
    Ok(found.is_some())
}

fn summary(path: &Path, analysis: &Analysis) -> String {
    let mut out = String::new();
    let shown = path.display();
    let Some((policy, loss)) = analysis.policy.as_ref().zip(analysis.loss.as_ref()) else {
        let _ = writeln!(out, "{shown}: targets are right");
        return out;
    };
    let _ = writeln!(out, "{shown}: policy {} on {}", policy.name, policy.target.name);
    for loss in loss.note(policy) {
        let _ = writeln!(out, "    loses on {}: {}", loss.failure, loss.text);
    }
    for p in &policy.params {
        let value = |v| unit::show(v, p.unit);
        let (default, min, max) = (value(p.default), value(p.min), value(p.max));
        let _ = writeln!(out, "    parameter {}: {default}, in {min}..={max}", p.name.node);
    }
    if !policy.guarantees.is_empty() {
        let all = if policy.guarantees.len() == 1 { "its guarantee" } else { "its guarantees" };
        let kept = if loss.unknown { "cannot be checked in this runtime" } else { "kept" };
        let _ = writeln!(out, "    {all}: {kept}");
    }
    out
}
