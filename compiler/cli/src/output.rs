//! Writing: standard streams, and files that are whole or not there.

use crate::args::Color;
use crate::inherited;
use anyhow::{Context, Result};
use std::fs;
use std::io::{self, IsTerminal, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// No list of names of extended attributes, and no value of one, is longer (`XATTR_LIST_MAX` and `XATTR_SIZE_MAX` in
/// `linux/limits.h`).
const ATTRIBUTE_BYTES: usize = 64 << 10;
/// Tries of a temporary name.
const TRIES: u32 = 100;
/// Links that the kernel follows in one path (`MAXSYMLINKS` in `linux/namei.h`).
const LINKS: u32 = 40;
/// The reader of standard output went away.
static UNREAD: AtomicBool = AtomicBool::new(false);

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
    stderr(&format!("durac: {}\n", for_people(message)));
}

/// A text for people: the name of a file or a process can hold other control characters than line ends.
pub fn for_people(text: &str) -> String {
    let shown = |c: char| if c.is_control() && !"\n\t".contains(c) { '?' } else { c };
    text.chars().map(shown).collect()
}

/// Writes a text for people to standard output.
pub fn print(text: &str) -> Result<()> {
    stdout(for_people(text).as_bytes())
}

/// Writes to standard error; a failure cannot be reported.
pub fn stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Writes product to standard output. If its reader went away, as `head` does, that is not an error: the command goes on
/// without it, and ends with its own code.
pub fn stdout(bytes: &[u8]) -> Result<()> {
    if !bytes.is_empty() {
        check_stdout()?;
    }
    if is_unread() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            UNREAD.store(true, Ordering::Relaxed);
            Ok(())
        }
        written => written.context("cannot write to standard output"),
    }
}

/// Whether the reader of standard output went away: what only writes to it can end.
pub fn is_unread() -> bool {
    UNREAD.load(Ordering::Relaxed)
}

/// Tells what has happened: on standard error, if standard output cannot be written or nobody reads it. The first is an error
/// still, for the command to return at its end.
pub fn told(text: &str) -> Result<()> {
    let told = print(text);
    if told.is_err() || is_unread() {
        stderr(&for_people(text));
    }
    told
}

/// What is written to a standard output that was closed would be lost.
pub fn check_stdout() -> Result<()> {
    match inherited::is_closed(1) {
        true => Err(exit(2, "cannot write to standard output: it is closed")),
        false => Ok(()),
    }
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

/// Writes new text into a file of the user, which keeps its owner, group, mode, extended attributes (ACLs are some) and other
/// names. A reader sees the old or the whole new text, unless the file has other names, a new one would not be the same in
/// all else, or none can come in its place: then it is written in place.
pub fn rewrite(path: &Path, bytes: &[u8]) -> Result<()> {
    let path = &followed(path, |_| false);
    let failed = |error: io::Error| {
        exit(2, format!("cannot write `{}`: {}", path.display(), reason(&error)))
    };
    let old = fs::metadata(path).map_err(failed)?;
    if !old.is_file() {
        return Err(exit(1, format!("`{}` is not a regular file", path.display())));
    }
    let mut pending = match temporary(folder_of(path), 0o600) {
        Ok((file, temporary)) => {
            Pending { file, path: path.to_owned(), temporary: Some(temporary) }
        }
        Err(error) if cannot_replace(&error) => {
            return write_over(path, bytes).map_err(|over| match over {
                Over::Unchanged(why) => failed(why),
                Over::Torn(why) => {
                    let (name, why) = (path.display(), reason(&why));
                    exit(2, format!("cannot write `{name}`: {why}; it is damaged: part of it is new, part old"))
                }
            });
        }
        Err(error) => return Err(failed(error)),
    };
    let written = pending.file.write_all(bytes).and_then(|()| pending.file.sync_all());
    written.map_err(|error| pending.failed(&error))?;
    // The mode comes after the owner: a change of owner clears bits of it.
    let given = old.nlink() == 1
        && is_given(&pending.file, &old)
        && pending.file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777)).is_ok()
        // Last: the mode is part of an ACL, which the folder may have given to the new file.
        && has_same_attributes(&pending.file, path);
    if given {
        match pending.place() {
            Ok(()) => return Ok(()),
            Err(error) if cannot_replace(&error) => {}
            Err(error) => return Err(failed(error)),
        }
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

/// Whether a file may well be written to where no other can come in its place: it is in a folder that this user may not change
/// (EACCES, EROFS), or whose files are their owners' (EPERM: a sticky one), or it is mounted there (EBUSY).
fn cannot_replace(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
    [PermissionDenied, ReadOnlyFilesystem, ResourceBusy].contains(&error.kind())
}

/// The folder of a file.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a file has, by now, the owner and group of another.
fn is_given(file: &fs::File, other: &fs::Metadata) -> bool {
    let is_so = |own: fs::Metadata| (own.uid(), own.gid()) == (other.uid(), other.gid());
    file.metadata().is_ok_and(is_so) || fchown(file, Some(other.uid()), Some(other.gid())).is_ok()
}

/// Whether a file has the extended attributes of another (xattr(7)).
fn has_same_attributes(file: &fs::File, other: &Path) -> bool {
    let other = fs::File::open(other).and_then(|other| attributes(&other));
    matches!((attributes(file), other), (Ok(own), Ok(other)) if own == other)
}

/// The extended attributes of a file that this user can see, by name. A file system without them has none.
fn attributes(file: &fs::File) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; ATTRIBUTE_BYTES];
    let length = match rustix::fs::flistxattr(file, names.as_mut_slice()) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let mut all = Vec::new();
    let names = names.get(..length).unwrap_or_default().split(|byte| *byte == 0);
    for name in names.filter(|name| !name.is_empty()) {
        let mut value = vec![0; ATTRIBUTE_BYTES];
        let length = rustix::fs::fgetxattr(file, name, value.as_mut_slice())?;
        value.truncate(length);
        all.push((name.to_vec(), value));
    }
    all.sort();
    Ok(all)
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

/// Refuses to write over a file that the command reads; `-` is a standard stream.
pub fn check_unread<'a>(path: &Path, read: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let file = |path: &Path| fs::metadata(path).ok().filter(fs::Metadata::is_file);
    let Some(old) = file(path).filter(|_| path != Path::new("-")) else { return Ok(()) };
    let named =
        |path: &'a Path| if path == Path::new("-") { Path::new("/dev/stdin") } else { path };
    let is_it = |other: fs::Metadata| (other.dev(), other.ino()) == (old.dev(), old.ino());
    match read.into_iter().find(|other| file(named(other)).is_some_and(is_it)) {
        Some(_) => {
            let shown = path.display();
            Err(exit(1, format!("`{shown}` is read by this command: name another file to write")))
        }
        None => Ok(()),
    }
}

/// The path that links at the end of this one lead to, up to one for which `stop` holds; the path itself if there is no such
/// file. Folders on the way are left to the kernel: `/proc/PID/root` leads to where no path does.
fn followed(path: &Path, stop: impl Fn(&Path) -> bool) -> PathBuf {
    let Ok(file) = fs::metadata(path) else { return path.to_owned() };
    let mut end = path.to_owned();
    for _ in 0..LINKS {
        if stop(&end) {
            return end;
        }
        let Ok(target) = fs::read_link(&end) else { break };
        end.pop();
        end.push(target);
    }
    // The text of a link in /proc need not be a path.
    let same = |other: fs::Metadata| (other.dev(), other.ino()) == (file.dev(), file.ino());
    if fs::symlink_metadata(&end).is_ok_and(same) { end } else { path.to_owned() }
}

/// Whether this path is a name for an open file of a process, by its number (proc_pid_fd(5)): it is written to from where it
/// is, as a shell's redirection to it is.
fn names_descriptor(path: &Path) -> bool {
    descriptor(path).is_some()
}

/// The process, or none for this one, and the number.
fn descriptor(path: &Path) -> Option<(Option<u32>, u32)> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::RootDir => parts.push("/"),
            Component::Normal(name) => parts.push(name.to_str()?),
            _ => return None,
        }
    }
    let process = |name: &str| match name {
        "self" | "thread-self" => Some(None),
        number => number.parse().ok().map(Some),
    };
    match parts.as_slice() {
        ["/", "dev", "stdin"] => Some((None, 0)),
        ["/", "dev", "stdout"] => Some((None, 1)),
        ["/", "dev", "stderr"] => Some((None, 2)),
        ["/", "dev", "fd", fd] => Some((None, fd.parse().ok()?)),
        ["/", "proc", of, "fd", fd] | ["/", "proc", of, "task", _, "fd", fd] => {
            Some((process(of)?, fd.parse().ok()?))
        }
        _ => None,
    }
}

/// Whether a path is a name of this standard stream.
fn leads_to(path: &Path, fd: u8) -> bool {
    let own = std::process::id();
    descriptor(path)
        .is_some_and(|(of, number)| of.is_none_or(|of| of == own) && number == u32::from(fd))
}

/// Whether what is written there comes out of standard output, or the file is that which it goes to.
pub fn is_stdout(path: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).ok().filter(fs::Metadata::is_file);
    let is_it = |own: fs::Metadata| {
        file(Path::new("/dev/stdout"))
            .is_some_and(|out| (out.dev(), out.ino()) == (own.dev(), own.ino()))
    };
    leads_to(&followed(path, names_descriptor), 1) || file(path).is_some_and(is_it)
}

/// A new file under a name of its own in this folder. A killed durac may have left one, and in two containers that share the
/// folder two processes can have one number.
pub fn temporary(folder: &Path, mode: u32) -> io::Result<(fs::File, PathBuf)> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut tries = 0;
    loop {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanos = since.map_or(0, |since| since.as_nanos());
        let path = folder.join(format!(".durac.{}.{nanos}.tmp", std::process::id()));
        match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < TRIES => {
                tries += 1;
            }
            opened => return opened.map(|file| (file, path)),
        }
    }
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
        if path.file_name().is_none() {
            return Err(exit(1, format!("`{shown}` is not the name of a file")));
        }
        if path.is_dir() {
            return Err(exit(1, format!("cannot write `{shown}`: is a directory")));
        }
        // What a link names is replaced, not the link; but `/dev/stdout` names a file that is open.
        let path = &followed(path, names_descriptor);
        let closed = (0..3).filter(|fd| inherited::is_closed(*fd)).any(|fd| leads_to(path, fd));
        if closed {
            return Err(exit(2, format!("cannot write `{shown}`: it is closed")));
        }
        let existing =
            names_descriptor(path) || fs::metadata(path).is_ok_and(|kind| !kind.is_file());
        let opened = match existing {
            true => fs::OpenOptions::new().append(true).open(path).map(|file| (file, None)),
            false => temporary(folder_of(path), mode).map(|(file, path)| (file, Some(path))),
        };
        let (file, temporary) = opened
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
        self.place().map_err(|error| self.failed(&error))
    }

    /// The same, of which a failure leaves everything as it is.
    fn place(&mut self) -> io::Result<()> {
        let Some(temporary) = &self.temporary else { return Ok(()) };
        self.file.sync_all()?;
        fs::rename(temporary, &self.path)?;
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
