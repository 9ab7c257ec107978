//! `durac bench`: policies side by side on a real database.

mod drawing;
mod page;

use crate::Outcome;
use crate::args::{Bench, Global, Workload};
use crate::{input, launch, output};
use anyhow::{Context, Result};
use durac_workload::bench::{self, Config, Load, Mode};
use durac_workload::child;

/// Measures, prints the table, and writes the JSON if asked.
pub fn run(args: &Bench, global: &Global) -> Result<Outcome> {
    let mut modes = match args.workload {
        // Without a log it does nothing.
        Workload::AppendLog => vec![],
        Workload::Redis | Workload::Mix => vec![Mode::no_log()],
    };
    modes.extend([Mode::no(), Mode::everysec(), Mode::always()]);
    for named in &args.files {
        let Some(mut mode) = mode(named, &modes, global)? else {
            return Ok(Outcome::Wrong);
        };
        if let Some(policy) = &mut mode.policy {
            policy.engine = args.engine.map(|engine| engine.name().to_owned());
        }
        let recorded = args.record.then(|| mode.recorded());
        modes.push(mode);
        modes.extend(recorded);
    }
    let config = Config {
        workload: match args.workload {
            Workload::Redis => bench::Workload::Redis,
            Workload::Mix => bench::Workload::Mix,
            Workload::AppendLog => bench::Workload::AppendLog,
        },
        server: args.server.as_deref().map(child::program).transpose()?,
        durac: std::env::current_exe().context("cannot find durac itself")?,
        modes,
        loads: Load::cross(&args.clients, &args.pipeline),
        rounds: args.rounds,
        requests: args.requests,
        keyspace: args.keyspace,
        reads: args.reads,
        dir: args.dir.clone(),
    };
    let report = bench::run(&config)?;
    output::stdout(report.table().as_bytes())?;
    if let Some(path) = &args.json {
        output::write_atomically(path, &report.json()?, 0o644)?;
    }
    if let Some(path) = &args.csv {
        output::write_atomically(path, &report.csv()?, 0o644)?;
    }
    if let Some(path) = &args.html {
        output::write_atomically(path, page::page(&report).as_bytes(), 0o644)?;
    }
    match &report.stopped {
        Some(why) => Err(output::exit(2, format!("stopped early: {why}"))),
        None => Ok(Outcome::Fine),
    }
}

/// The mode for `FILE` or `FILE:name=value,name=value`; `None`, reported, if the policy is wrong.
fn mode(named: &str, others: &[Mode], global: &Global) -> Result<Option<Mode>> {
    let (file, sets) = input::named(named);
    let Some(ready) = input::ready(&file, &sets, global)? else {
        return Ok(None);
    };
    let loss = ready.proved.power_loss();
    let (bound, loss) = (loss.and_then(|l| l.syncs), loss.map_or("", |l| &l.text));
    let mut name = ready.policy.name.clone();
    for assignment in &sets {
        name.push_str(&format!(" {assignment}"));
    }
    while others.iter().any(|m| m.name == name) {
        // Redis' own mode of that name, or the same policy named twice.
        name.insert_str(0, "durac ");
    }
    // Proved once, and not at each start.
    let object = launch::store(&ready.proved.object)?;
    Ok(Some(Mode::policy(&name, object, Vec::new(), loss, bound)))
}
