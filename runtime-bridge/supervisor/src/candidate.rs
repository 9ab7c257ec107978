//! A program that may take over from this one. It is opened once: what was looked at and tried is what runs, whatever its
//! path leads to by then.

use crate::fault_injection::{Fault, injects};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// Such a program.
pub struct Candidate {
    /// It. The program that it becomes closes this descriptor, whose number it is told.
    file: File,
    /// Where it was found, which its process shows as its name.
    path: PathBuf,
    /// Its length and when it was last written to, as it was opened.
    written: (u64, SystemTime),
}

impl Candidate {
    /// Opens the program at `path`, if nobody but root and this user can have changed it. It has to be readable: of a
    /// process whose program its user may not read, the system lets it see little.
    pub fn open(path: &Path) -> Result<Self, String> {
        let text = |why: io::Error| why.to_string();
        // A pipe is not waited for.
        let options = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = options.map_err(text)?;
        is_trusted(&file)?;
        let written = written(&file).map_err(text)?;
        // A script is opened by its interpreter again, by this number.
        keep_over_exec(file.as_raw_fd(), true).map_err(text)?;
        Ok(Self { file, path: path.to_owned(), written })
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nobody has written to it since it was opened. Who wrote to it must be root or this user.
    pub fn is_as_opened(&self) -> bool {
        written(&self.file).is_ok_and(|now| now == self.written)
    }

    /// Its descriptor.
    pub fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// A path that leads to it, and nowhere else, in this process and in one that it starts.
    pub fn place(&self) -> PathBuf {
        match injects(Fault::ByPath) {
            true => self.path.clone(),
            false => of_descriptor(&self.file),
        }
    }

    /// A command that runs it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.place());
        command.arg0(&self.path);
        command
    }
}

/// Whether a descriptor stays open when the process becomes another program.
pub fn keep_over_exec(fd: RawFd, keep: bool) -> io::Result<()> {
    // SAFETY: no pointers.
    let result = unsafe { libc::fcntl(fd, libc::F_SETFD, if keep { 0 } else { libc::FD_CLOEXEC }) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn written(file: &File) -> io::Result<(u64, SystemTime)> {
    let meta = file.metadata()?;
    Ok((meta.len(), meta.modified()?))
}

fn of_descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Whether nobody but root and this user can have changed a program, or put it where it is.
fn is_trusted(program: &File) -> Result<(), String> {
    let meta = program.metadata().map_err(|why| why.to_string())?;
    // SAFETY: it takes no pointer and cannot fail.
    let user = unsafe { libc::geteuid() };
    if !meta.is_file() {
        return Err("not a regular file".to_owned());
    }
    if meta.uid() != 0 && meta.uid() != user {
        return Err(format!("owned by user {}, not by root or user {user}", meta.uid()));
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(format!("others may write to it (mode {mode:o})"));
    }
    if mode & (libc::S_ISUID | libc::S_ISGID) != 0 {
        return Err(format!("it is setuid or setgid (mode {mode:o})"));
    }
    // Who may write to a folder can put another program in its place; in a sticky one only its own.
    let path = std::fs::read_link(of_descriptor(program)).map_err(|why| why.to_string())?;
    for folder in path.ancestors().skip(1) {
        let meta = std::fs::metadata(folder).map_err(|why| why.to_string())?;
        if may_others_replace(&meta, user) {
            return Err(format!("others may write to `{}`", folder.display()));
        }
    }
    Ok(())
}

/// Whether others than root and `user` can put another file in the place of one that is in this folder. That a group may
/// write to it is not looked at.
#[must_use]
pub fn may_others_replace(folder: &Metadata, user: u32) -> bool {
    let is_owned = folder.uid() == 0 || folder.uid() == user;
    !is_owned || folder.mode() & (libc::S_IWOTH | libc::S_ISVTX) == libc::S_IWOTH
}
