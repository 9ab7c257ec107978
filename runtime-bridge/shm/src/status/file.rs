//! The status page as shared memory with a name: made by the agent, mapped by readers.
//!
//! The memory is a memfd whose size is sealed: a file could be truncated while the process writes to
//! its mapping, or have no space on a full disk, and either ends in SIGBUS. Its name is a symbolic link
//! to `/proc/PID/fd/N`. Where that leads nowhere (no `/proc`) it is a file after all.

use super::control::{Control, ControlPage};
use super::{Snapshot, StatusPage};
use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

const SIZE: usize = size_of::<StatusPage>();
/// The page, and behind it the control page.
const BOTH: usize = SIZE + size_of::<ControlPage>();
/// The name of the memory: `/proc/PID/fd` shows it.
pub(super) const NAME: &CStr = c"durac-status";
/// The size cannot be changed, and the seal cannot be removed.
const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// A page this process made.
#[derive(Debug)]
pub struct Created {
    /// The page; mapped for the rest of the process' life.
    pub page: &'static StatusPage,
    /// Device and inode of what is at the path: remove it only while it is still this one.
    pub id: (u64, u64),
    /// The descriptor that readers come by; it must stay open.
    pub fd: Option<libc::c_int>,
    /// Where tools ask for a change, if it is memory that they find by the process.
    pub control: Option<&'static ControlPage>,
    /// Why no other process finds it.
    pub hidden: Option<io::Error>,
}

/// Makes a status page that readers find at `path` too; without a path they find it by the process
/// ([`Status::of_process`]). The descriptor that it keeps has the number `number` or a higher one, if
/// the limit allows. Without a path and memory that can be shared, the page is the process' own.
///
/// What a process left behind at `path` which no longer runs, or an earlier program of this process,
/// is replaced; anything else there is an error.
///
/// # Errors
/// What the system said; `AlreadyExists` if the page belongs to a running process.
pub fn create(path: Option<&Path>, number: libc::c_int) -> io::Result<Created> {
    let Some(path) = path else {
        return match create_sealed(number) {
            Ok((page, control, fd)) => {
                let (fd, control) = (Some(fd.keep()), Some(control));
                Ok(Created { page, id: (0, 0), fd, control, hidden: None })
            }
            Err(error) => {
                let (page, hidden) = (map(-1, true)?, Some(error));
                Ok(Created { page, id: (0, 0), fd: None, control: None, hidden })
            }
        };
    };
    if is_stale(path) {
        std::fs::remove_file(path)?;
    }
    match create_linked(path, number) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => create_file(path),
        other => other,
    }
}

fn create_sealed(
    number: libc::c_int,
) -> io::Result<(&'static StatusPage, &'static ControlPage, Fd)> {
    check_limit(BOTH)?;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string.
    let memory = Fd::check(unsafe { libc::memfd_create(NAME.as_ptr(), flags) })?;
    check(|| {
        // SAFETY: the descriptor is ours.
        unsafe { libc::ftruncate(memory.0, BOTH as libc::off_t) }
    })?;
    // SAFETY: as above.
    check(|| unsafe { libc::fchmod(memory.0, 0o600) })?;
    // SAFETY: as above.
    check(|| unsafe { libc::fcntl(memory.0, libc::F_ADD_SEALS, SEALS) })?;
    let page = map(memory.0, true)?;
    let control = map_control(memory.0)?;
    // SAFETY: as above.
    let high = Fd::check(unsafe { libc::fcntl(memory.0, libc::F_DUPFD_CLOEXEC, number) });
    Ok((page, control, high.unwrap_or(memory)))
}

fn create_linked(path: &Path, number: libc::c_int) -> io::Result<Created> {
    let (page, control, kept) = create_sealed(number)?;
    let target = format!("/proc/{}/fd/{}", std::process::id(), kept.0);
    std::os::unix::fs::symlink(target, path)?;
    let link = std::fs::symlink_metadata(path)?;
    let stat = kept.stat()?;
    if !std::fs::metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (stat.st_dev, stat.st_ino)) {
        std::fs::remove_file(path)?;
        return Err(io::ErrorKind::NotFound.into());
    }
    let control = Some(control);
    let (id, fd) = ((link.dev(), link.ino()), Some(kept.keep()));
    Ok(Created { page, id, fd, control, hidden: None })
}

fn create_file(path: &Path) -> io::Result<Created> {
    check_limit(SIZE)?;
    let name = c_path(path)?;
    let fd = open_new(&name)?;
    let result = (|| {
        // Space now, not a signal when it is written to.
        // SAFETY: `fd` is open and ours.
        let errno = unsafe { libc::posix_fallocate(fd.0, 0, SIZE as libc::off_t) };
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let stat = fd.stat()?;
        let id = (stat.st_dev, stat.st_ino);
        Ok(Created { page: map(fd.0, true)?, id, fd: None, control: None, hidden: None })
    })();
    if result.is_err() {
        // SAFETY: `name` is a valid C string, and the file was made above.
        unsafe { libc::unlink(name.as_ptr()) };
    }
    result
}

/// Whether a file may have that size: behind the limit (`RLIMIT_FSIZE`), the process would get SIGXFSZ.
fn check_limit(size: usize) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for the result.
    check(|| unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) })?;
    match limit.rlim_cur < size as libc::rlim_t {
        true => Err(io::Error::from_raw_os_error(libc::EFBIG)),
        false => Ok(()),
    }
}

fn check(call: impl FnOnce() -> libc::c_int) -> io::Result<()> {
    if call() == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A page of another process.
#[derive(Debug)]
pub struct Status {
    page: NonNull<StatusPage>,
    writable: bool,
    /// The memory, if it can be written.
    memory: Option<Fd>,
}

// SAFETY: the page consists of atomics, and the mapping belongs to no thread.
unsafe impl Send for Status {}
// SAFETY: as above.
unsafe impl Sync for Status {}

impl Status {
    /// Maps the status file at `path` for reading.
    ///
    /// # Errors
    /// What the system said; `InvalidData` if it is not a status file of this version.
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
        Self::map_fd(open(path, writable)?, writable)
    }

    /// Maps the sealed memory that `path` under `/proc` leads to.
    pub(super) fn open_sealed(path: &Path, writable: bool) -> io::Result<Self> {
        let access = if writable { libc::O_RDWR } else { libc::O_RDONLY };
        let flags = access | libc::O_CLOEXEC | libc::O_NONBLOCK;
        Self::map_fd(open_named(path, flags, true)?, writable)
    }

    fn map_fd(fd: Fd, writable: bool) -> io::Result<Self> {
        let page = NonNull::from(map(fd.0, writable)?);
        let status = Self { page, writable, memory: writable.then_some(fd) };
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

    /// Sets a parameter, clamped to its range, and returns the new value.
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

impl Status {
    /// Takes the way to ask the agent for a change, which one tool has at a time.
    ///
    /// # Errors
    /// `PermissionDenied` after [`Status::open`], `Unsupported` if the page is no memory of the process',
    /// `WouldBlock` if another tool has it.
    pub fn control(self) -> io::Result<Control> {
        let memory = self.memory.as_ref().ok_or(io::ErrorKind::PermissionDenied)?;
        if memory.stat()?.st_size < BOTH as libc::off_t {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // SAFETY: the descriptor is ours.
        check(|| unsafe { libc::flock(memory.0, libc::LOCK_EX | libc::LOCK_NB) })?;
        let control = map_control(memory.0)?;
        Ok(Control::new(Mapped { control: NonNull::from(control), status: self }))
    }
}

/// A control page, with the descriptor that holds its lock.
#[derive(Debug)]
pub(super) struct Mapped {
    control: NonNull<ControlPage>,
    status: Status,
}

// SAFETY: the page consists of atomics, and the mapping belongs to no thread.
unsafe impl Send for Mapped {}

impl Mapped {
    /// The status page before it.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The page. The process that owns it may change it at any time.
    pub fn control(&self) -> &ControlPage {
        // SAFETY: the mapping lives as long as `self`, and holds only atomics.
        unsafe { self.control.as_ref() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `Status::control`, and no reference into it is left.
        unsafe { libc::munmap(self.control.as_ptr().cast(), size_of::<ControlPage>()) };
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `map`, and no reference into it is left.
        unsafe { libc::munmap(self.page.as_ptr().cast(), SIZE) };
    }
}

/// A descriptor that closes itself.
#[derive(Debug)]
struct Fd(libc::c_int);

impl Fd {
    fn check(fd: libc::c_int) -> io::Result<Self> {
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(fd)) }
    }

    /// Leaves it open.
    fn keep(self) -> libc::c_int {
        let fd = self.0;
        std::mem::forget(self);
        fd
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

/// Opens what is at `path`, if a page can be mapped of it.
fn open(path: &Path, writable: bool) -> io::Result<Fd> {
    let access = if writable { libc::O_RDWR } else { libc::O_RDONLY };
    let flags = access | libc::O_CLOEXEC | libc::O_NONBLOCK;
    match linked(path) {
        Some((_, target)) => open_named(&target, flags, true),
        None => open_named(path, flags | libc::O_NOFOLLOW, false),
    }
}

/// Opens `path` if a page can be mapped of it, one that is sealed if it has to be.
fn open_named(path: &Path, flags: libc::c_int, must_be_sealed: bool) -> io::Result<Fd> {
    let name = c_path(path)?;
    // SAFETY: `name` is a valid C string.
    let fd = Fd::check(unsafe { libc::open(name.as_ptr(), flags) })?;
    let stat = fd.stat()?;
    // SAFETY: the descriptor is ours.
    let seals = unsafe { libc::fcntl(fd.0, libc::F_GET_SEALS) };
    // A file that is not sealed may be shortened only by this user or root.
    let sealed =
        if must_be_sealed { seals >= 0 && seals & SEALS == SEALS } else { is_private(&stat) };
    let regular = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
    if sealed && regular && stat.st_size >= SIZE as libc::off_t {
        return Ok(fd);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "not a status file"))
}

/// Whether only root and this user can write to it.
fn is_private(stat: &libc::stat) -> bool {
    // SAFETY: no preconditions.
    let user = unsafe { libc::geteuid() };
    stat.st_mode & 0o022 == 0 && (stat.st_uid == 0 || stat.st_uid == user)
}

/// The process whose page a link at `path` leads to, and where it leads.
fn linked(path: &Path) -> Option<(libc::pid_t, PathBuf)> {
    let target = std::fs::read_link(path).ok()?;
    let (pid, fd) = target.to_str()?.strip_prefix("/proc/")?.split_once("/fd/")?;
    fd.parse::<u32>().ok()?;
    Some((pid.parse().ok()?, target))
}

/// Whether the process of a status page at `path` is gone and this user may remove it.
fn is_stale(path: &Path) -> bool {
    if let Some((pid, _)) = linked(path) {
        // A link survives its process, and the number may be another's by now.
        let kind = open(path, false).err().map(|error| error.kind());
        let gone = [io::ErrorKind::NotFound, io::ErrorKind::InvalidData];
        return !runs(pid) || kind.is_some_and(|kind| gone.contains(&kind));
    }
    let Ok(status) = Status::open(path) else { return false };
    let pid = status.page().pid() as libc::pid_t;
    // A file survives `exec`.
    // SAFETY: no preconditions.
    pid == unsafe { libc::getpid() } || !runs(pid)
}

fn runs(pid: libc::pid_t) -> bool {
    // SAFETY: no preconditions; signal 0 is never delivered.
    let result = unsafe { libc::kill(pid, 0) };
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// Maps a page of `fd`, or anonymous memory for -1. It stays mapped, unless a [`Status`] is made of it,
/// which hands out no reference that outlives it.
fn map(fd: libc::c_int, writable: bool) -> io::Result<&'static StatusPage> {
    let access = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    let flags = if fd < 0 { libc::MAP_PRIVATE | libc::MAP_ANONYMOUS } else { libc::MAP_SHARED };
    // SAFETY: a new mapping; the kernel chooses the address. The callers have looked at the file's size: of
    // one that is shorter, touching the rest ends the process.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, access, flags, fd, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: page-aligned memory of the right size, not null; any bytes are a valid page of atomics, and
    // a read-only mapping is never written through.
    Ok(unsafe { &*address.cast::<StatusPage>() })
}

/// Maps the control page behind the status page. The caller has looked at the size, and seals keep it.
fn map_control(fd: libc::c_int) -> io::Result<&'static ControlPage> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let size = size_of::<ControlPage>();
    // SAFETY: a new mapping; the kernel chooses the address, and the offset is whole pages.
    let address = unsafe {
        libc::mmap(std::ptr::null_mut(), size, access, libc::MAP_SHARED, fd, SIZE as libc::off_t)
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: page-aligned memory of the right size, not null; any bytes are a valid page of atomics.
    Ok(unsafe { &*address.cast::<ControlPage>() })
}
