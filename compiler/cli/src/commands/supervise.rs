//! The supervisor's process, which `durac run --engine supervisor` starts, and which `durac upgrade` has another program
//! take over.

use crate::{Outcome, output};
use anyhow::Result;
use clap::Args as ClapArgs;
use std::os::fd::AsFd;
use std::path::PathBuf;

/// Arguments of the process. With an object, its standard input is a socket, through which the listener comes.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub struct Supervise {
    /// The policy's object
    object: Option<PathBuf>,
    /// Say whether this program could take over what standard input has
    #[arg(long = "try")]
    try_out: bool,
    /// Take over what this descriptor has
    #[arg(long = "continue", value_name = "FD")]
    handed: Option<i32>,
}

/// Answers the command's calls until no process of it is left.
pub fn run(args: &Supervise) -> Result<Outcome> {
    if let Some(fd) = args.handed {
        durac_supervisor::take_over(fd)?;
    }
    if args.try_out {
        durac_supervisor::try_out(std::io::stdin())?;
        output::stdout(format!("{}\n", durac_supervisor::READY).as_bytes())?;
    }
    let Some(object) = &args.object else { return Ok(Outcome::Fine) };
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    // The command's end must see when nobody holds this one.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    durac_supervisor::serve(object, socket)?;
    Ok(Outcome::Fine)
}
