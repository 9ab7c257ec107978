//! Writing: standard streams, and files that are whole or not there.

use crate::args::Color;
use anyhow::{Context, Result};
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
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

/// Prints an error that does not point into a text.
pub fn error(message: &str) {
    stderr(&format!("durac: {message}\n"));
}

/// Writes to standard error; a failure cannot be reported.
pub fn stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Writes product to standard output.
pub fn stdout(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Whether the reader of the output went away, as `head` does; that is not an error.
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
    let mut pending = Pending::new(path, mode)?;
    let written = pending.file.write_all(bytes);
    written.map_err(|error| pending.failed(&error))?;
    pending.commit()
}

/// The same for a file that has this mode whatever the umask is.
pub fn write_for_all(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut pending = Pending::new(path, mode)?;
    let written = pending.file.write_all(bytes);
    let written =
        written.and_then(|()| pending.file.set_permissions(fs::Permissions::from_mode(mode)));
    written.map_err(|error| pending.failed(&error))?;
    pending.commit()
}

/// Makes a folder, and those above it, that everybody can look into, whatever the umask is.
pub fn make_folder(path: &Path) -> Result<()> {
    let made =
        |error: io::Error| exit(2, format!("cannot make `{}`: {}", path.display(), reason(&error)));
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        make_folder(above)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(made(error)),
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(made),
    }
}

/// Whether a file can be written there, looked at before long work whose result it is for. A pipe or a device is not
/// touched.
pub fn check_writable(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(kind) if !kind.is_file() && !kind.is_dir() => Ok(()),
        _ => Pending::new(path, 0o644).map(drop),
    }
}

/// The target of a link; the path itself if it is not a link, or a dangling one.
fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// A file that is being written under a temporary name in the same folder. Dropped before it is
/// committed, it is removed.
#[derive(Debug)]
pub struct Pending {
    /// What is written.
    pub file: fs::File,
    path: PathBuf,
    /// None for a device, a pipe or an open file, which cannot be replaced: it is written to at once.
    temporary: Option<PathBuf>,
}

impl Pending {
    /// Begins the file that will become `path`.
    pub fn new(path: &Path, mode: u32) -> Result<Self> {
        let shown = path.display();
        let Some(name) = path.file_name() else {
            return Err(exit(1, format!("`{shown}` is not the name of a file")));
        };
        if path.is_dir() {
            return Err(exit(1, format!("cannot write `{shown}`: is a directory")));
        }
        // What a link names is replaced, not the link; but `/dev/stdout` names a file that is open.
        let device = path.starts_with("/dev") && !path.starts_with("/dev/shm");
        let open = device || path.starts_with("/proc");
        let path = &if open { path.to_owned() } else { resolved(path) };
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let existing = open || fs::metadata(path).is_ok_and(|kind| !kind.is_file());
        let mut options = fs::OpenOptions::new();
        options.write(true).append(existing);
        let temporary = (!existing).then(|| {
            folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()))
        });
        if temporary.is_some() {
            options.create_new(true).mode(mode);
        }
        let file = options
            .open(temporary.as_deref().unwrap_or(path))
            .map_err(|error| exit(2, format!("cannot write `{shown}`: {}", reason(&error))))?;
        Ok(Self { file, path: path.to_owned(), temporary })
    }

    /// The error of a write to it.
    pub fn failed(&self, error: &io::Error) -> anyhow::Error {
        exit(2, format!("cannot write `{}`: {}", self.path.display(), reason(error)))
    }

    /// The file is whole: syncs it and gives it its name.
    pub fn commit(mut self) -> Result<()> {
        let Some(temporary) = &self.temporary else { return Ok(()) };
        let done = self.file.sync_all().and_then(|()| fs::rename(temporary, &self.path));
        done.map_err(|error| self.failed(&error))?;
        self.temporary = None;
        Ok(())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // A failure cannot be reported any more.
            let _ = fs::remove_file(temporary);
        }
    }
}
