//! `durac lsp`: the language server, for editors.

use crate::Outcome;
use anyhow::{Result, anyhow};
use clap::Args as ClapArgs;
use lsp_server::Connection;

/// Arguments of `durac lsp`.
#[derive(Debug, ClapArgs)]
pub struct Lsp {
    /// Accepted and ignored: standard input and output are the only way to talk to it
    #[arg(long, hide = true)]
    stdio: bool,
}

/// Serves one editor on standard input and output.
pub fn run(_: &Lsp) -> Result<Outcome> {
    let (connection, threads) = Connection::stdio();
    let served = durac_lsp::serve(&connection);
    // The threads end when the connection is gone.
    drop(connection);
    served.map_err(|error| anyhow!("the editor broke off: {error}"))?;
    threads.join()?;
    Ok(Outcome::Fine)
}
