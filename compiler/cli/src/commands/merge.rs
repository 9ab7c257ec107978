//! `durac merge`: the reports of shards as one.
//!
//! What is merged is what one machine would have written: a `simulate` report is equal to it, a `crashtest`
//! report has every crash of every shard.

use super::{crashtest, simulate};
use crate::args::Global;
use crate::shard::Shard;
use crate::{Outcome, output};
use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Join the JSON reports of shards into one
///
/// Prints the table of the whole. Exit code 1 if a crash exceeded a bound, or the reports do not belong
/// together.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  durac crashtest window --trials 500 --shard 2/4 --json part-2.json\n  \
                        durac merge part-*.json -o whole.json"
)]
pub struct Merge {
    /// Reports of `durac crashtest --shard` or `durac simulate --shard`
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write the report of the whole as JSON
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Merge although shards are missing
    #[arg(long)]
    partial: bool,
}

/// Reads them all, and prints what they are together.
pub fn run(args: &Merge, global: &Global) -> Result<Outcome> {
    if let Some(path) = &args.output {
        output::check_writable(path)?;
    }
    let parts = args.files.iter().map(|file| read(file)).collect::<Result<Vec<_>>>()?;
    let simulated = |part: &Value| part.get("trace").is_some();
    let both = || wrong("reports of `durac crashtest` and of `durac simulate` cannot be merged");
    if parts.iter().all(simulated) {
        let reports = typed::<durac_simulate::report::Report>(args, parts)?;
        let shards = shards(args, reports.iter().map(|(shard, _)| *shard))?;
        let reports = shards.into_iter().zip(reports.into_iter().map(|(_, report)| report));
        let whole = simulate::merge(reports.collect()).map_err(wrong)?;
        write(args, global, &whole, &simulate::table(&whole))?;
        return Ok(Outcome::Fine);
    }
    if parts.iter().any(simulated) {
        return Err(both());
    }
    let reports = typed::<crashtest::Report>(args, parts)?;
    shards(args, reports.iter().map(|(shard, _)| *shard))?;
    let whole = crashtest::merge(reports.into_iter().map(|(_, report)| report).collect());
    let whole = whole.map_err(wrong)?;
    write(args, global, &whole, &crashtest::table(&whole))?;
    Ok(crashtest::outcome(&whole))
}

fn wrong(why: impl Into<String>) -> anyhow::Error {
    output::exit(1, why)
}

fn read(file: &Path) -> Result<Value> {
    let shown = file.display();
    let text = std::fs::read(file)
        .map_err(|error| wrong(format!("cannot read `{shown}`: {}", output::reason(&error))))?;
    serde_json::from_slice(&text)
        .map_err(|error| wrong(format!("`{shown}` is not a report: {error}")))
}

/// The reports with their shards.
fn typed<T: DeserializeOwned>(args: &Merge, parts: Vec<Value>) -> Result<Vec<(Option<Shard>, T)>> {
    let one = |(file, part): (&PathBuf, Value)| {
        let shown = file.display();
        let shard = match part.get("shard").filter(|shard| !shard.is_null()) {
            Some(shard) => Some(
                Shard::deserialize_value(shard)
                    .map_err(|why| wrong(format!("`{shown}`: {why}")))?,
            ),
            None => None,
        };
        let report = serde_json::from_value(part);
        let report =
            report.map_err(|error| wrong(format!("`{shown}` is not a report: {error}")))?;
        Ok((shard, report))
    };
    args.files.iter().zip(parts).map(one).collect()
}

/// The shards, if they are those of one whole.
fn shards(args: &Merge, all: impl Iterator<Item = Option<Shard>>) -> Result<Vec<Shard>> {
    let mut known = Vec::new();
    for (file, shard) in args.files.iter().zip(all) {
        let shown = file.display();
        known.push(shard.ok_or_else(|| wrong(format!("`{shown}` is not of a shard (`--shard`)")))?);
    }
    match Shard::incomplete(&known) {
        Some(why) if !(args.partial && why.ends_with("is missing")) => Err(wrong(why)),
        _ => Ok(known),
    }
}

fn write(args: &Merge, global: &Global, whole: &impl Serialize, table: &str) -> Result<()> {
    let json = serde_json::to_string_pretty(whole).context("cannot write the report")? + "\n";
    if let Some(path) = &args.output {
        output::write_atomically(path, json.as_bytes(), 0o644)?;
    }
    match global.is_json() {
        true => global.document.put(whole),
        false => output::print(table),
    }
}
