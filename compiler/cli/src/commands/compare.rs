//! `durac compare`: is one policy at least as durable as another?

use crate::Outcome;
use crate::args::Global;
use crate::input::{self, Ready};
use crate::named::{Named, Settings};
use crate::output;
use anyhow::Result;
use clap::Args as ClapArgs;
use durac_driver::compare::{self, Measure};
use durac_driver::{Options, Proved};
use durac_prove::explore::{Most, Unit};
use durac_prove::proof::timeline_beyond;
use durac_workload::columns::{Align, columns};
use serde_json::json;
use std::fmt::Write;

/// Arguments of `durac compare`.
#[derive(Debug, ClapArgs)]
pub struct Compare {
    /// A policy: a file or a ready policy, with `:name=value,…` to set parameters. Without policies,
    /// ranks all ready ones
    #[arg(value_name = "A")]
    first: Option<Named>,
    /// The policy that should be at least as durable as A
    #[arg(value_name = "B")]
    second: Option<Named>,
    /// Parameters of both.
    #[command(flatten)]
    settings: Settings,
}

/// Two policies side by side, or all ready ones in their order.
pub fn run(args: &Compare, global: &Global) -> Result<Outcome> {
    let Some(first) = &args.first else {
        return order(global);
    };
    let Some(second) = &args.second else {
        return Err(output::exit(1, "name two policies, or none to rank all ready ones"));
    };
    let ready = |named: &Named| input::ready(named.path(), &named.settings(&args.settings), global);
    let (Some(a), Some(b)) = (ready(first)?, ready(second)?) else {
        return Ok(Outcome::Wrong);
    };
    two((&first.to_string(), &a), (&second.to_string(), &b), global)
}

/// What `--format json` says of two policies.
fn report((first, a): (&str, &Ready), (second, b): (&str, &Ready)) -> Result<serde_json::Value> {
    let worse = compare::worse(&a.proved.proof, &b.proved.proof);
    let measures = Measure::ALL.iter().map(|measure| {
        let show = |ready: &Ready| measure.show(&ready.proved.proof);
        json!({
            "name": measure.name(),
            "first": show(a),
            "second": show(b),
            "worse": worse.contains(measure),
        })
    });
    Ok(json!({
        "first": first,
        "second": second,
        "at_least_as_durable": worse.is_empty(),
        "measures": measures.collect::<Vec<_>>(),
        "timeline": timeline(&worse, a, b)?,
    }))
}

fn two(first: (&str, &Ready), second: (&str, &Ready), global: &Global) -> Result<Outcome> {
    if global.is_json() {
        let report = report(first, second)?;
        let fine = report.get("at_least_as_durable") == Some(&json!(true));
        global.document.put(&report)?;
        return Ok(if fine { Outcome::Fine } else { Outcome::Wrong });
    }
    let ((first, a), (second, b)) = (first, second);
    let mut rows = vec![["worst case".to_owned(), first.to_owned(), second.to_owned()]];
    for measure in Measure::ALL {
        let show = |ready: &Ready| measure.show(&ready.proved.proof);
        rows.push([measure.name().to_owned(), show(a), show(b)]);
    }
    let mut out = columns(&[Align::Left], &rows);
    let worse = compare::worse(&a.proved.proof, &b.proved.proof);
    if worse.is_empty() {
        let _ = writeln!(out, "\n{second} is at least as durable as {first}");
        output::print(&out)?;
        return Ok(Outcome::Fine);
    }
    let names: Vec<&str> = worse.iter().map(|m| m.name()).collect();
    let _ = writeln!(out, "\n{second} is less durable than {first} in {}", names.join("; "));
    if let Some(timeline) = timeline(&worse, a, b)? {
        let _ = write!(out, "\n{timeline}");
    }
    output::print(&out)?;
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
fn order(global: &Global) -> Result<Outcome> {
    let mut all: Vec<(String, Proved)> = Vec::new();
    for ready in durac_stdlib::POLICIES {
        let mut sources = durac_grammar::Sources::new();
        let file = sources.add(ready.file, ready.text);
        let checked = durac_driver::compile(&mut sources, file, &Options::new(ready.name));
        match checked.proved {
            Some(proved) if proved.object.meta.defers_writes => output::error(&format!(
                "`{}` is left out: the table is about sync calls, and it is for programs that make none",
                ready.name
            )),
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
    let mut list = Vec::new();
    for (name, proved) in &all {
        let proof = &proved.proof;
        let show = |measure: Measure| measure.show(proof);
        let beats: Vec<&str> = (all.iter())
            .filter(|(other, p)| other != name && compare::worse(&p.proof, proof).is_empty())
            .map(|(other, _)| other.as_str())
            .collect();
        let measures = Measure::ALL.iter().map(|m| (m.name().to_owned(), json!(show(*m))));
        list.push(json!({
            "name": name,
            "measures": measures.collect::<serde_json::Map<_, _>>(),
            "at_least_as_durable_as": beats,
        }));
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
    global.document.put(&json!({ "policies": list }))?;
    if !global.is_json() {
        output::print(&columns(&[Align::Left], &rows))?;
    }
    Ok(Outcome::Fine)
}
