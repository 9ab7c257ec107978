//! `durac run`: exec a command with the agent and a policy's object.
//!
//! The command takes over this process: its exit code and its signals are its own.

use crate::Outcome;
use crate::args::{Global, Run};
use crate::launch::{self, Launch, Ready};
use anyhow::Result;
use std::os::unix::process::CommandExt;

/// Compiles, then becomes the command.
pub fn run(args: &Run, global: &Global) -> Result<Outcome> {
    let launch = Launch {
        policy: &args.file,
        set: &args.set,
        engine: args.engine,
        agent: args.agent.as_deref(),
        command: &args.command,
    };
    let Some(Ready { mut command, program, .. }) = launch::prepare(launch, global)? else {
        return Ok(Outcome::Wrong);
    };
    // exec only returns when it failed.
    Err(launch::cannot_start(&program, &command.exec()))
}
