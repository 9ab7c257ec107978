//! The listener of a seccomp filter (seccomp_unotify(2)): what the kernel asks, and how it is answered.

use durac_engine::Errno;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// `SECCOMP_IOCTL_NOTIF_RECV`, `_SEND` and `_ID_VALID` (linux/seccomp.h), with the sizes of x86-64.
const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const ID_VALID: libc::c_ulong = 0x4008_2102;
/// `SECCOMP_IOCTL_NOTIF_SET_FLAGS` and `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`, since Linux 6.6.
const SET_FLAGS: libc::c_ulong = 0x4008_2104;
const SYNC_WAKE_UP: libc::c_ulong = 1;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
const CONTINUE: u32 = 1;

/// `struct seccomp_notif`: a call that waits for an answer.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Notification {
    /// Its number: rises by one with each call that the filter asks about.
    pub id: u64,
    /// The thread, as this process' namespace numbers it; 0 if it cannot see it.
    pub thread: u32,
    flags: u32,
    /// Number of the system call.
    pub number: i32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    instruction: u64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

impl Notification {
    /// Argument `index` as a descriptor.
    pub fn descriptor(&self, index: usize) -> RawFd {
        self.argument(index) as RawFd
    }

    /// Argument `index`.
    pub fn argument(&self, index: usize) -> u64 {
        self.arguments.get(index).copied().unwrap_or(0)
    }
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It runs as the application made it.
    Continue,
    /// It returns this at once.
    Return(Result<i64, Errno>),
}

/// Has the caller and the thread that answers run on one processor: the caller waits anyway, and to wake another
/// processor costs several times what the answer does. A kernel that cannot do so is slower.
pub fn wake_here(listener: RawFd) {
    // SAFETY: no pointers. An error changes nothing.
    unsafe { libc::ioctl(listener, SET_FLAGS, SYNC_WAKE_UP) };
}

/// Waits for the next call.
///
/// # Errors
/// `ENOENT` if its caller was killed meanwhile, `EINTR`, and what else the system said.
pub fn receive(listener: RawFd) -> io::Result<Notification> {
    // The kernel insists on zeros.
    let mut call = Notification::default();
    // SAFETY: `call` has the size that is encoded in the number.
    match unsafe { libc::ioctl(listener, RECEIVE, &raw mut call) } {
        0 => Ok(call),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Answers a call. A caller that was killed meanwhile needs no answer. Makes one system call and allocates nothing.
pub fn send(listener: RawFd, id: u64, answer: Answer) {
    let (value, error, flags) = match answer {
        Answer::Continue => (0, 0, CONTINUE),
        Answer::Return(Ok(value)) => (value, 0, 0),
        Answer::Return(Err(errno)) => (0, -errno, 0),
    };
    let mut response = Response { id, value, error, flags };
    // SAFETY: `response` has the size that is encoded in the number.
    unsafe { libc::ioctl(listener, SEND, &raw mut response) };
}

/// Whether a descriptor is a listener, and this kernel lets it be used.
pub fn is_listener(fd: RawFd) -> bool {
    let no_call = 0_u64;
    // SAFETY: a pointer to a number of that size.
    let valid = unsafe { libc::ioctl(fd, ID_VALID, &raw const no_call) == 0 };
    // Anything else does not know of this request.
    valid || io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT)
}

/// Whether the caller still waits for an answer: then its thread still has its number.
pub fn is_valid(listener: &OwnedFd, id: u64) -> bool {
    // SAFETY: a pointer to a number of that size.
    unsafe { libc::ioctl(listener.as_raw_fd(), ID_VALID, &raw const id) == 0 }
}

const _: () = assert!(size_of::<Notification>() == 80 && size_of::<Response>() == 24);
