//! Writing: standard streams, and files that are whole or not there.

use crate::args::Color;
use crate::inherited;
use anyhow::{Context, Result};
use std::fs;
use std::io::{self, IsTerminal, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
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
    if !bytes.is_empty() {
        check_stdout()?;
    }
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// What is written to a standard output that was closed would be lost.
pub fn check_stdout() -> Result<()> {
    match inherited::is_closed(1) {
        true => Err(exit(2, "cannot write to standard output: it is closed")),
        false => Ok(()),
    }
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

/// A word as a shell reads it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
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

/// An error with its causes, the system's reasons without the number.
pub fn reasons(error: &anyhow::Error) -> String {
    let causes: Vec<String> = error.chain().map(|cause| plain(&cause.to_string())).collect();
    causes.join(": ")
}

/// A text whose end may be the system's.
fn plain(text: &str) -> String {
    let Some((before, number)) = text.split_once(" (os error ") else { return text.to_owned() };
    let rest = number.split_once(')').map_or("", |(_, rest)| rest);
    let (what, reason) = before.rsplit_once(": ").unwrap_or(("", before));
    let what = if what.is_empty() { String::new() } else { format!("{what}: ") };
    format!("{what}{}{rest}", reason.to_lowercase())
}

/// Writes a file so that a reader sees the old one or the whole new one: to a temporary name in the
/// same folder, synced, then renamed. On failure the temporary file is removed.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut pending = Pending::new(path, mode)?;
    let written = pending.file.write_all(bytes);
    written.map_err(|error| pending.failed(&error))?;
    pending.commit()
}

/// Writes new text into a file of the user, which keeps its owner, group, mode and other names. A reader sees the old or the
/// whole new text, unless the file has other names or cannot be given to its owner: then it is written in place.
pub fn rewrite(path: &Path, bytes: &[u8]) -> Result<()> {
    let path = &resolved(path);
    let failed = |error: io::Error| {
        exit(2, format!("cannot write `{}`: {}", path.display(), reason(&error)))
    };
    let old = fs::metadata(path).map_err(failed)?;
    if !old.is_file() {
        return write_atomically(path, bytes, 0o600);
    }
    let mut pending = Pending::new(path, 0o600)?;
    let written = pending.file.write_all(bytes).and_then(|()| pending.file.sync_all());
    written.map_err(|error| pending.failed(&error))?;
    // The mode comes after the owner: a change of owner clears bits of it.
    let given = old.nlink() == 1
        && is_given(&pending.file, &old)
        && pending.file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777)).is_ok();
    if given {
        return pending.commit();
    }
    // The new text is on the disk twice, so there was room for it; the copy is removed at the end.
    match write_over(path, bytes) {
        Ok(()) => Ok(()),
        Err(Over::Unchanged(error)) => Err(failed(error)),
        Err(Over::Torn(error)) => {
            let kept = pending.keep();
            let kept = kept.map(|path| format!("; the new text is in `{}`", path.display()));
            let why = format!("cannot write `{}`: {}", path.display(), reason(&error));
            Err(exit(2, why + &kept.unwrap_or_default()))
        }
    }
}

/// Whether a file has, by now, the owner and group of another.
fn is_given(file: &fs::File, other: &fs::Metadata) -> bool {
    let is_so = |own: fs::Metadata| (own.uid(), own.gid()) == (other.uid(), other.gid());
    file.metadata().is_ok_and(is_so) || fchown(file, Some(other.uid()), Some(other.gid())).is_ok()
}

/// How writing over a file failed.
enum Over {
    /// It has its old text.
    Unchanged(io::Error),
    /// It has neither.
    Torn(io::Error),
}

/// Writes another text into a file. If that fails, writes the old one, for which there was room.
fn write_over(path: &Path, bytes: &[u8]) -> Result<(), Over> {
    let old = fs::read(path).map_err(Over::Unchanged)?;
    let mut file = fs::OpenOptions::new().write(true).open(path).map_err(Over::Unchanged)?;
    let mut put = |bytes: &[u8]| {
        file.rewind()?;
        file.write_all(bytes)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()
    };
    put(bytes).map_err(|error| match put(&old) {
        Ok(()) => Over::Unchanged(error),
        Err(_) => Over::Torn(error),
    })
}

/// The same as [`write_atomically`] for a file that has this mode whatever the umask is.
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

/// Whether a path is a name of this standard stream (proc_pid_fd(5)).
fn leads_to(path: &Path, fd: u8) -> bool {
    let names = ["/dev/stdin", "/dev/stdout", "/dev/stderr"];
    let name = names.get(usize::from(fd)).is_some_and(|name| path == Path::new(name));
    name || ["/dev/fd", "/proc/self/fd"].iter().any(|of| path == Path::new(of).join(fd.to_string()))
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
        let closed = (0..3).filter(|fd| inherited::is_closed(*fd)).any(|fd| leads_to(path, fd));
        if closed {
            return Err(exit(2, format!("cannot write `{shown}`: it is closed")));
        }
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

    /// Leaves the temporary file where it is, and tells where.
    fn keep(mut self) -> Option<PathBuf> {
        self.temporary.take()
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

#[cfg(test)]
mod tests {
    use super::reasons;
    use anyhow::Context as _;
    use std::io;

    #[test]
    fn a_reason_has_no_number() {
        let full = || io::Error::from_raw_os_error(28);
        let told = Err::<(), _>(full()).context("cannot write `A: B`").unwrap_err();
        assert_eq!(reasons(&told), "cannot write `A: B`: no space left on device");
        let told = anyhow::anyhow!("cannot read `A`: {}", io::Error::from_raw_os_error(21));
        assert_eq!(reasons(&told), "cannot read `A`: is a directory");
        assert_eq!(reasons(&anyhow::anyhow!("`A` is B")), "`A` is B");
    }
}
