//! `durac run`: exec a command with the agent and a policy's object.
//!
//! The command replaces this process, so exit code and signals are those of the command. Only as the first process of a
//! container does this one stay, if the supervisor runs the policy ([`init`]).

use super::watch;
use crate::args::{Budget, Global, Launch};
use crate::launch::{self, Ready, init};
use crate::named::Named;
use crate::{Outcome, log, signals};
use anyhow::Result;
use clap::Args as ClapArgs;
use std::os::unix::process::CommandExt;

/// Arguments of `durac run`.
#[derive(Debug, ClapArgs)]
#[command(mut_arg("command", |command| command.required(true)))]
pub struct Run {
    /// A policy file, a compiled object, or the name of a ready policy, with `:name=value,…` to set parameters
    #[arg(value_name = "FILE")]
    file: Named,
    /// How the command runs.
    #[command(flatten)]
    launch: Launch,
    /// How long the proof may take.
    #[command(flatten)]
    budget: Budget,
}

/// Compiles, then becomes the command.
pub fn run(args: &Run, global: &Global) -> Result<Outcome> {
    let signal = signals::ChildSignal::now();
    log::begin(args.launch.log.as_deref());
    let global = &args.budget.of(global);
    if let Some(supervised) = launch::supervised(&args.file, &args.launch, global)? {
        let Some(mut supervised) = supervised else { return Ok(Outcome::Wrong) };
        signal.restore();
        supervised.install()?;
        let Ready { command, program, .. } = &mut supervised.ready;
        if init::is_init() {
            let ended =
                init::run(command).map_err(|error| launch::cannot_start(program, &error))?;
            // The last call of this process: what is deferred is synced before it ends.
            std::process::exit(ended);
        }
        return Err(launch::cannot_start(program, &command.exec()));
    }
    let prepared = launch::prepare(&args.file, &args.launch, global)?;
    let Some(Ready { mut command, program, object }) = prepared else {
        return Ok(Outcome::Wrong);
    };
    watch::start(&object.meta, &mut command);
    signal.restore();
    // exec only returns when it failed.
    Err(launch::cannot_start(&program, &command.exec()))
}
