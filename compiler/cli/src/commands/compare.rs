//! `durac compare`: is one policy at least as durable as another?

use crate::Outcome;
use crate::args::Global;
use crate::input::{self, Ready};
use crate::output;
use anyhow::Result;
use clap::Args as ClapArgs;
use durac_driver::compare::{self, Measure};
use durac_driver::{Options, Proved};
use durac_prove::explore::{Most, Unit};
use durac_prove::proof::timeline_beyond;
use durac_workload::columns::{Align, columns};
use std::fmt::Write;

/// Arguments of `durac compare`.
#[derive(Debug, ClapArgs)]
pub struct Compare {
    /// A policy: a file or a ready policy, with `:name=value,…` to set parameters. Without policies,
    /// ranks all ready ones
    #[arg(value_name = "A")]
    first: Option<String>,
    /// The policy that should be at least as durable as A
    #[arg(value_name = "B")]
    second: Option<String>,
}

/// Two policies side by side, or all ready ones in their order.
pub fn run(args: &Compare, global: &Global) -> Result<Outcome> {
    let Some(first) = &args.first else {
        return order();
    };
    let Some(second) = &args.second else {
        return Err(output::exit(1, "name two policies, or none to rank all ready ones"));
    };
    let (Some(a), Some(b)) = (ready(first, global)?, ready(second, global)?) else {
        return Ok(Outcome::Wrong);
    };
    two((first, &a), (second, &b))
}

fn ready(named: &str, global: &Global) -> Result<Option<Ready>> {
    let (file, sets) = input::named(named);
    input::ready(&file, &sets, global)
}

fn two((first, a): (&str, &Ready), (second, b): (&str, &Ready)) -> Result<Outcome> {
    let mut rows = vec![["worst case".to_owned(), first.to_owned(), second.to_owned()]];
    for measure in Measure::ALL {
        let show = |ready: &Ready| measure.show(&ready.proved.proof);
        rows.push([measure.name().to_owned(), show(a), show(b)]);
    }
    let mut out = columns(&[Align::Left], &rows);
    let worse = compare::worse(&a.proved.proof, &b.proved.proof);
    if worse.is_empty() {
        let _ = writeln!(out, "\n{second} is at least as durable as {first}");
        output::stdout(out.as_bytes())?;
        return Ok(Outcome::Fine);
    }
    let names: Vec<&str> = worse.iter().map(|m| m.name()).collect();
    let _ = writeln!(out, "\n{second} is less durable than {first} in {}", names.join("; "));
    if let Some(timeline) = timeline(&worse, a, b)? {
        let _ = write!(out, "\n{timeline}");
    }
    output::stdout(out.as_bytes())?;
    Ok(Outcome::Wrong)
}

/// The shortest run of `b` that loses what `a` cannot.
fn timeline(worse: &[Measure], a: &Ready, b: &Ready) -> Result<Option<String>> {
    for (measure, unit) in [
        (Measure::Syncs, Unit::Syncs),
        // Replies that are not held.
        (Measure::ToClients, Unit::Syncs),
        (Measure::StagedSyncs, Unit::StagedSyncs),
        (Measure::StagedWrites, Unit::StagedWrites),
    ] {
        if worse.contains(&measure)
            && let Most::Count(most) = measure.of(&a.proved.proof)
        {
            return Ok(timeline_beyond(&b.policy, &b.proved.object, unit, most)?);
        }
    }
    let proof = &b.proved.proof;
    let drawn = [&proof.tail, &proof.process.tail, &proof.worst, &proof.process.worst];
    Ok(drawn.into_iter().flatten().next().cloned())
}

/// Every ready policy, the most durable first, with those that it is at least as durable as.
fn order() -> Result<Outcome> {
    let mut all: Vec<(String, Proved)> = Vec::new();
    for ready in durac_stdlib::POLICIES {
        let mut sources = durac_grammar::Sources::new();
        let file = sources.add(ready.file, ready.text);
        let checked = durac_driver::compile(&mut sources, file, &Options::new(ready.name));
        match checked.proved {
            Some(proved) => all.push((ready.name.to_owned(), proved)),
            None => {
                output::error(&format!("`{}` is left out: no runtime can run it yet", ready.name))
            }
        }
    }
    compare::sort(&mut all);
    let mut rows = vec![
        [
            "policy",
            "syncs",
            "and in progress",
            "writes, bytes",
            "time",
            "on process crash",
            "seen by clients",
            "at least as durable as",
        ]
        .map(str::to_owned),
    ];
    for (name, proved) in &all {
        let proof = &proved.proof;
        let show = |measure: Measure| measure.show(proof);
        let beats: Vec<&str> = (all.iter())
            .filter(|(other, p)| other != name && compare::worse(&p.proof, proof).is_empty())
            .map(|(other, _)| other.as_str())
            .collect();
        rows.push([
            name.clone(),
            show(Measure::Syncs),
            show(Measure::WithProgress),
            show(Measure::Writes),
            show(Measure::Time),
            show(Measure::StagedSyncs),
            show(Measure::ToClients),
            beats.join(", "),
        ]);
    }
    output::stdout(columns(&[Align::Left], &rows).as_bytes())?;
    Ok(Outcome::Fine)
}
