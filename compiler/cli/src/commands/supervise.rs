//! The supervisor's process, which `durac run --engine supervisor` starts.

use crate::Outcome;
use anyhow::Result;
use clap::Args as ClapArgs;
use std::os::fd::AsFd;
use std::path::PathBuf;

/// Arguments of the process. Its standard input is a socket, through which the listener comes.
#[derive(Debug, ClapArgs)]
pub struct Supervise {
    /// The policy's object
    object: PathBuf,
}

/// Answers the command's calls until no process of it is left.
pub fn run(args: &Supervise) -> Result<Outcome> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    // The command's end must see when nobody holds this one.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    durac_supervisor::serve(&args.object, socket)?;
    Ok(Outcome::Fine)
}
