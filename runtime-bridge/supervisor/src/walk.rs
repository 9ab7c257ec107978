//! Where a path leads a process of the command, as the kernel would follow it, and the path of an open file.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Symbolic links in one path, as the kernel follows them.
const MOST_LINKS: usize = 40;

/// Where a name leads.
pub enum Named {
    /// To a file, by this name: the last of the path, before a link is followed.
    File(File, OsString),
    /// To this name in this folder, where there is no file.
    New(File, OsString),
}

/// What a path leads to that needs no other root than its folder: no `..` out of it, no absolute link. An error says nothing.
pub fn open_beneath(base: &File, text: &OsStr) -> io::Result<File> {
    let text = text.as_bytes();
    let from = text.iter().position(|byte| *byte != b'/').unwrap_or(0);
    let path = CString::new(text.get(from..).unwrap_or(text))?;
    // SAFETY: zeros are valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
    // Links of /proc would lead to what this process has.
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    let (at, how, size) = (base.as_raw_fd(), &raw const how, size_of::<libc::open_how>());
    // SAFETY: a string that ends with a zero, and a structure of that size.
    let fd = unsafe { libc::syscall(libc::SYS_openat2, at, path.as_ptr(), how, size) };
    new_file(fd)
}

/// Follows a path by its parts, as a process with this root would, from `at`. The last link may lead to where there is no
/// file yet.
pub fn walk(root: &File, mut at: File, text: OsString) -> io::Result<Named> {
    let error = |errno| Err(io::Error::from_raw_os_error(errno));
    let mut left = parts(&text);
    let last = left.first().cloned().unwrap_or_default();
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == ".." && is_same(root, &at)? {
            continue;
        }
        let next = match open_part(&at, &name) {
            Ok(next) => next,
            Err(error) if error.kind() == io::ErrorKind::NotFound && left.is_empty() => {
                return Ok(Named::New(at, name));
            }
            Err(error) => return Err(error),
        };
        if !next.metadata()?.file_type().is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        // Links of /proc lead elsewhere for each process.
        if links > MOST_LINKS || is_of_proc(&next)? {
            return error(libc::ELOOP);
        }
        let target = read_link(&next)?;
        if Path::new(&target).is_absolute() {
            at = root.try_clone()?;
        }
        left.extend(parts(&target));
    }
    Ok(Named::File(at, last))
}

/// The parts of a path, the first one last.
pub fn parts(text: &OsStr) -> Vec<OsString> {
    let names = text.as_bytes().split(|byte| *byte == b'/').rev();
    let names = names.filter(|name| !(name.is_empty() || **name == *b"."));
    names.map(|name| OsStr::from_bytes(name).to_owned()).collect()
}

/// Whether two handles are those of one folder.
fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// A handle of what has this name in a folder; a link is not followed.
fn open_part(folder: &File, name: &OsStr) -> io::Result<File> {
    let name = CString::new(name.as_bytes())?;
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: a string that ends with a zero.
    new_file(unsafe { libc::openat(folder.as_raw_fd(), name.as_ptr(), flags) }.into())
}

/// Where a link leads, by its handle.
fn read_link(link: &File) -> io::Result<OsString> {
    let mut text = vec![0; libc::PATH_MAX as usize];
    // SAFETY: an empty string, and the memory has that size.
    let length = unsafe {
        libc::readlinkat(link.as_raw_fd(), c"".as_ptr(), text.as_mut_ptr().cast(), text.len())
    };
    text.truncate(usize::try_from(length).map_err(|_| io::Error::last_os_error())?);
    Ok(OsString::from_vec(text))
}

fn is_of_proc(file: &File) -> io::Result<bool> {
    // SAFETY: zeros are valid; the structure is there.
    let (result, found) = unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(file.as_raw_fd(), &raw mut found), found)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(found.f_type == libc::PROC_SUPER_MAGIC)
}

/// The result of a call that opens a file.
fn new_file(fd: libc::c_long) -> io::Result<File> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}

/// Whether a file has a path that ends by this name, as the kernel shows it. Not if another file has got that path.
pub fn has_name(file: &File, name: &OsStr) -> bool {
    shown(file).is_ok_and(|path| path.file_name() == Some(name))
}

/// A handle of a file: nothing happens to it, whatever it is.
pub fn handle(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)
}

pub fn descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// The path that the kernel shows for an open file.
pub fn shown(file: &File) -> io::Result<PathBuf> {
    std::fs::read_link(descriptor(file))
}
