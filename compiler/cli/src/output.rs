//! Writing: standard streams, and files that are whole or not there.

use crate::args::Color;
use anyhow::{Context, Result};
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// An error with an exit code of its own.
#[derive(Debug)]
pub struct Exit {
    /// The exit code.
    pub code: u8,
    /// What went wrong.
    pub message: String,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

/// An error that ends the command with `code`.
pub fn exit(code: u8, message: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Exit { code, message: message.into() })
}

/// Prints an error that is no diagnostic of a text.
pub fn error(message: &str) {
    stderr(&format!("durac: {message}\n"));
}

/// Writes to standard error; there is nobody to tell if that fails.
pub fn stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Writes product to standard output.
pub fn stdout(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Whether the reader of our output went away, as `head` does: no failure of ours.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .or_else(|| error.root_cause().downcast_ref::<io::Error>())
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Whether diagnostics are coloured.
pub fn colored(color: Color) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
                && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
        }
    }
}

/// The system's reason, without the number.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((reason, _)) => reason.to_lowercase(),
        None => text,
    }
}

/// Writes a file so that a reader sees the old one or the whole new one: to a temporary name in the
/// same folder, synced, then renamed. On failure the temporary file is removed.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let shown = path.display();
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Some(name) = path.file_name() else {
        return Err(exit(1, format!("`{shown}` is not the name of a file")));
    };
    if path.is_dir() {
        return Err(exit(1, format!("cannot write `{shown}`: is a directory")));
    }
    if let Ok(kind) = fs::metadata(path)
        && !kind.is_file()
    {
        // A device or a pipe cannot be replaced; write to it.
        return fs::write(path, bytes).with_context(|| format!("cannot write `{shown}`"));
    }
    let temporary: PathBuf =
        folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        exit(2, format!("cannot write `{shown}`: {}", reason(&error)))
    })
}
