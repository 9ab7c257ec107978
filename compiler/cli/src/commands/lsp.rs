//! `durac lsp`: becomes the language server, a program of its own beside this one.

use crate::{Outcome, launch, output};
use anyhow::Result;
use clap::Args as ClapArgs;
use durac_workload::child;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The program.
pub const SERVER: &str = "durac-lsp";

/// Arguments of `durac lsp`.
#[derive(Debug, ClapArgs)]
pub struct Lsp {
    /// Accepted and ignored: standard input and output are the only way to talk to it
    #[arg(long, hide = true)]
    stdio: bool,
}

/// Becomes the language server.
pub fn run(_: &Lsp) -> Result<Outcome> {
    let Ok(server) = child::beside(SERVER) else {
        let message = "cannot find the language server, `durac-lsp`, beside durac or in `../lib/durac`: \
                       `cargo build --release -p durac-lsp` builds it";
        return Err(output::exit(2, message));
    };
    let error = Command::new(&server).exec();
    Err(launch::cannot_start(&server, &error))
}
