//! Puts the calling process under the filter: what `durac run` does before it becomes the command.

use crate::filter::{self, Asked};
use crate::process::is_short;
use crate::serve::UNSEEN;
use libc::{c_int, c_long, sock_fprog};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// `SECCOMP_SET_MODE_FILTER`.
const SET_FILTER: c_long = 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: the command is not in a sandbox, and keeps the processor's speculation as it was
/// (before Linux 5.16 a filter slows it down).
const SPECULATE: c_long = 1 << 2;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
const NEW_LISTENER: c_long = 1 << 3;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, since Linux 5.19: a call that was received is not interrupted by signals
/// that do not kill.
const WAIT_KILLABLE: c_long = 1 << 5;

/// Why a process is not put under the filter.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The kernel refuses the filter.
    #[error("the kernel refuses the filter: {0}")]
    Filter(#[source] io::Error),
    /// Another program outside has a listener already.
    #[error("another program already supervises this one (seccomp user notification)")]
    Supervised,
    /// The supervisor cannot take the command's open files.
    #[error(
        "the open files of the command cannot be taken (pidfd_getfd): Linux before 5.6, a container's system call filter, or ptrace_scope"
    )]
    Unseen,
    /// The supervisor has no descriptor or no memory left for them.
    #[error(
        "the open files of the command cannot be taken: {0}; is a limit too low (`ulimit -n`)?"
    )]
    Short(#[source] io::Error),
    /// The supervisor does not answer.
    #[error("the supervisor did not start")]
    NoAnswer,
}

/// How a process was put under the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The process and its descendants gain no privileges from setuid programs (`PR_SET_NO_NEW_PRIVS`): the kernel
    /// insists on it where the user is not root.
    pub no_new_privileges: bool,
}

/// Puts this process and all that it starts under the filter, and hands the listener to the supervisor at the other
/// end of `socket`. `asked` is what the kernel asks about beside syncs and changes of names.
///
/// # Errors
/// If the kernel refuses it, or the supervisor does not answer. The process must then not become the command.
pub fn install(socket: OwnedFd, asked: Asked) -> Result<Installed, InstallError> {
    let mut program = filter::program(asked);
    let filter = sock_fprog { len: program.len() as libc::c_ushort, filter: program.as_mut_ptr() };
    let mut no_new_privileges = false;
    let listener = loop {
        match listen(&filter) {
            Ok(listener) => break listener,
            Err(error) => match error.raw_os_error() {
                Some(libc::EACCES) if !no_new_privileges => {
                    // SAFETY: no pointers.
                    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
                    no_new_privileges = true;
                }
                Some(libc::EBUSY) => return Err(InstallError::Supervised),
                _ => return Err(InstallError::Filter(error)),
            },
        }
    };
    let sent = give_listener(&socket, listener.as_raw_fd());
    // If the supervisor ends now, the call below is not answered by anybody: it fails.
    drop(listener);
    drop(socket);
    // SAFETY: no descriptor is meant.
    let answer = unsafe { libc::fsync(-1) };
    let errno = io::Error::last_os_error().raw_os_error();
    match errno {
        _ if sent.is_err() || answer != -1 => Err(InstallError::NoAnswer),
        Some(libc::EBADF) => Ok(Installed { no_new_privileges }),
        Some(UNSEEN) => Err(InstallError::Unseen),
        Some(errno) if is_short(errno) => {
            Err(InstallError::Short(io::Error::from_raw_os_error(errno)))
        }
        _ => Err(InstallError::NoAnswer),
    }
}

fn listen(filter: &sock_fprog) -> io::Result<OwnedFd> {
    let mut last = io::Error::from_raw_os_error(libc::EINVAL);
    for flags in [NEW_LISTENER | SPECULATE | WAIT_KILLABLE, NEW_LISTENER | SPECULATE] {
        // SAFETY: the filter is valid during the call.
        let fd = unsafe { libc::syscall(libc::SYS_seccomp, SET_FILTER, flags, &raw const *filter) };
        if fd >= 0 {
            // SAFETY: the descriptor is new and ours.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
        }
        last = io::Error::last_os_error();
        if last.raw_os_error() != Some(libc::EINVAL) {
            break;
        }
    }
    Err(last)
}

/// Room for the control data of one descriptor.
#[repr(C, align(8))]
struct Control([u8; 24]);

/// Sends a descriptor through a socket.
fn give_listener(socket: &OwnedFd, fd: RawFd) -> io::Result<()> {
    let mut byte = [0_u8];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = Control([0; 24]);
    let message = message(&mut part, &mut control);
    // SAFETY: the control data have room for a header and a descriptor (`CMSG_SPACE(4)` is 24), and all parts of the
    // message live until the end.
    let sent = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<c_int>() as u32) as usize;
        libc::CMSG_DATA(header).cast::<c_int>().write_unaligned(fd);
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    if sent == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the descriptor that [`install`] sends.
pub fn take_listener(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut byte = [0_u8];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = Control([0; 24]);
    let mut message = message(&mut part, &mut control);
    // SAFETY: all parts of the message live until the end.
    let taken =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    if taken < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has filled the control data, whose first header is null or valid.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
    match header {
        Some(header) if header.cmsg_type == libc::SCM_RIGHTS => {
            // SAFETY: a header of this type is followed by a descriptor, which is new and ours.
            Ok(unsafe {
                OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<c_int>().read_unaligned())
            })
        }
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn message(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: zeros are a message without anything.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    message
}
