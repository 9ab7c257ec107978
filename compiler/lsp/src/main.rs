//! `durac-lsp`: the language server on standard input and output. Editors start it as `durac lsp`.
//!
//! A program of its own, so that the messages of the protocol are not in the way of the first command that is built.

use lsp_server::Connection;
use std::error::Error;
use std::process::ExitCode;

/// Characters of an error that are shown.
const LONGEST: usize = 300;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // It may show all that was received.
            let error: String = error.to_string().chars().take(LONGEST).collect();
            eprintln!("durac: the editor broke off: {error}");
            ExitCode::from(2)
        }
    }
}

/// Serves one editor, whatever the arguments: there is no other way to talk to it.
fn serve() -> Result<(), Box<dyn Error + Sync + Send>> {
    let (connection, threads) = Connection::stdio();
    let served = durac_lsp::serve(&connection);
    // The threads end when the connection is gone.
    drop(connection);
    served?;
    Ok(threads.join()?)
}
