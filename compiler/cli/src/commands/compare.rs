//! `durac compare`: is one policy at least as durable as another?

use crate::Outcome;
use crate::args::{Compare, Global};
use crate::input::{self, Ready};
use crate::output;
use anyhow::Result;
use durac_sim::check::Proved;
use durac_sim::compare::{self, Measure};
use durac_sim::model::explore::{Most, Unit};
use durac_sim::model::proof::timeline_beyond;
use std::fmt::Write;

/// Two policies side by side, or all ready ones in their order.
pub fn run(args: &Compare, global: &Global) -> Result<Outcome> {
    let Some(first) = &args.first else {
        return order(global);
    };
    let Some(second) = &args.second else {
        return Err(output::exit(1, "two policies are compared, or none for all ready ones"));
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
        let show = |ready: &Ready| measure.show(measure.of(&ready.proved.proof));
        rows.push([measure.name().to_owned(), show(a), show(b)]);
    }
    let mut out = table(&rows);
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
        let checked = durac_sim::check::check(&mut sources, file, ready.name);
        match checked.proved {
            Some(proved) => all.push((ready.name.to_owned(), proved)),
            None => {
                output::error(&format!("`{}` is left out: no runtime can run it yet", ready.name))
            }
        }
    }
    let _ = global;
    compare::sort(&mut all);
    let mut rows = vec![
        [
            "policy",
            "syncs",
            "and in progress",
            "writes, bytes",
            "time",
            "on process crash",
            "at least as durable as",
        ]
        .map(str::to_owned),
    ];
    for (name, proved) in &all {
        let proof = &proved.proof;
        let show = |measure: Measure| measure.show(measure.of(proof));
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
            beats.join(", "),
        ]);
    }
    output::stdout(table(&rows).as_bytes())?;
    Ok(Outcome::Fine)
}

/// Columns, the first to the left.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = width(column);
            let _ = write!(line, "{}{cell:width$}", if column == 0 { "" } else { "  " });
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}
