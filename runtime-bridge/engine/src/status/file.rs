//! The status page as a file: made by the agent, mapped by readers.

use super::{Snapshot, StatusPage};
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

const SIZE: usize = size_of::<StatusPage>();

/// A page this process made.
#[derive(Debug)]
pub struct Created {
    /// The page; mapped for the rest of the process' life.
    pub page: &'static StatusPage,
    /// The file's device and inode: remove it only while it is still this one.
    pub id: (u64, u64),
}

/// Makes the status file at `path`, or memory of the same layout without one.
///
/// A file that a process left behind which no longer runs, or an earlier program of this process,
/// is replaced; anything else at `path` is an error.
///
/// # Errors
/// What the system said; `AlreadyExists` if the file belongs to a running process.
pub fn create(path: Option<&Path>) -> io::Result<Created> {
    let Some(path) = path else {
        return Ok(Created { page: map(-1, true)?, id: (0, 0) });
    };
    let name = c_path(path)?;
    let fd = match open_new(&name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_stale(path) => {
            // SAFETY: `name` is a valid C string.
            if unsafe { libc::unlink(name.as_ptr()) } != 0 {
                return Err(io::Error::last_os_error());
            }
            open_new(&name)?
        }
        other => other?,
    };
    let result = (|| {
        // SAFETY: `fd` is open and ours.
        if unsafe { libc::ftruncate(fd.0, SIZE as libc::off_t) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let stat = fd.stat()?;
        Ok(Created { page: map(fd.0, true)?, id: (stat.st_dev, stat.st_ino) })
    })();
    if result.is_err() {
        // SAFETY: `name` is a valid C string, and the file was made above.
        unsafe { libc::unlink(name.as_ptr()) };
    }
    result
}

/// A page of another process.
#[derive(Debug)]
pub struct Status {
    page: NonNull<StatusPage>,
    writable: bool,
}

// SAFETY: the page consists of atomics, and the mapping belongs to no thread.
unsafe impl Send for Status {}
// SAFETY: as above.
unsafe impl Sync for Status {}

impl Status {
    /// Maps the status file at `path` for reading.
    ///
    /// # Errors
    /// What the system said; `InvalidData` if it is no status file of this version.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::map(path, false)
    }

    /// Maps the status file at `path` so that parameters can be set.
    ///
    /// # Errors
    /// As [`Status::open`].
    pub fn open_writable(path: &Path) -> io::Result<Self> {
        Self::map(path, true)
    }

    fn map(path: &Path, writable: bool) -> io::Result<Self> {
        let name = c_path(path)?;
        let access = if writable { libc::O_RDWR } else { libc::O_RDONLY };
        let flags = access | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: `name` is a valid C string.
        let fd = Fd::check(unsafe { libc::open(name.as_ptr(), flags) })?;
        let stat = fd.stat()?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG || stat.st_size < SIZE as libc::off_t {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a status file"));
        }
        let page = map(fd.0, writable)?;
        let status = Self { page: NonNull::from(page), writable };
        if !status.page().is_ready() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a status file of this version",
            ));
        }
        Ok(status)
    }

    /// The page. The process that owns it may change it at any time.
    #[must_use]
    pub fn page(&self) -> &StatusPage {
        // SAFETY: the mapping lives as long as `self`, and holds only atomics.
        unsafe { self.page.as_ref() }
    }

    /// Everything the page says now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.page().snapshot()
    }

    /// Sets a parameter, clamped to its range; answers what it became.
    ///
    /// # Errors
    /// `NotFound` if there is no such parameter, `PermissionDenied` after [`Status::open`].
    pub fn set_param(&self, name: &str, value: u64) -> io::Result<u64> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.page().set_param(name, value).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `map`, and nobody can hold a reference into it.
        unsafe { libc::munmap(self.page.as_ptr().cast(), SIZE) };
    }
}

/// A descriptor that closes itself.
struct Fd(libc::c_int);

impl Fd {
    fn check(fd: libc::c_int) -> io::Result<Self> {
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(fd)) }
    }

    fn stat(&self) -> io::Result<libc::stat> {
        let mut stat = std::mem::MaybeUninit::uninit();
        // SAFETY: `stat` has room for the answer.
        if unsafe { libc::fstat(self.0, stat.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fstat succeeded and filled it.
        Ok(unsafe { stat.assume_init() })
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours.
        unsafe { libc::close(self.0) };
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn open_new(name: &CString) -> io::Result<Fd> {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: `name` is a valid C string.
    Fd::check(unsafe { libc::open(name.as_ptr(), flags, 0o600 as libc::c_uint) })
}

/// Whether the file at `path` is a status page that nobody updates any more, and ours to remove.
fn is_stale(path: &Path) -> bool {
    let Ok(status) = Status::open(path) else { return false };
    let pid = status.page().pid() as libc::pid_t;
    // SAFETY: these calls have no preconditions; signal 0 is never delivered.
    unsafe {
        pid == libc::getpid()
            || (libc::kill(pid, 0) != 0
                && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH))
    }
}

/// Maps a page of `fd`, or anonymous memory for -1.
fn map(fd: libc::c_int, writable: bool) -> io::Result<&'static StatusPage> {
    let access = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    let flags = if fd < 0 { libc::MAP_PRIVATE | libc::MAP_ANONYMOUS } else { libc::MAP_SHARED };
    // SAFETY: a new mapping of a size that the file has; the kernel chooses the address.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, access, flags, fd, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: page-aligned memory of the right size; any bytes are a valid page of atomics.
    Ok(unsafe { &*address.cast::<StatusPage>() })
}
