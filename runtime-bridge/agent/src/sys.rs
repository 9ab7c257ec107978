//! System calls made directly: they return `-errno`, leave `errno` alone, are no cancellation points,
//! and pass no other preloaded library.

use libc::{c_int, c_long};
use std::arch::asm;
use std::os::fd::RawFd;

/// A system call of up to six arguments.
///
/// # Safety
/// As the system call.
pub unsafe fn call<const N: usize>(number: c_long, arguments: [usize; N]) -> isize {
    let argument = |index| arguments.get(index).copied().unwrap_or(0);
    let [a, b, c, d, e, f] = std::array::from_fn(argument);
    let result: isize;
    // SAFETY: the kernel keeps every register but those named here; the caller vouches for the rest.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// `F_DUPFD_QUERY` (`include/uapi/linux/fcntl.h`, Linux 6.10): whether two descriptors are the same open
/// file.
const F_DUPFD_QUERY: usize = 1027;
/// `KCMP_FILE` (`include/uapi/linux/kcmp.h`).
const KCMP_FILE: usize = 0;

/// Whether both descriptors are the same open file; an error if the kernel does not have the command, or
/// one of the two is closed.
///
/// # Errors
/// The error number.
pub fn is_same_open_file(fd: RawFd, other: RawFd) -> Result<bool, c_int> {
    // SAFETY: any numbers may be passed; the command changes nothing.
    let result = unsafe { call(libc::SYS_fcntl, [fd as usize, F_DUPFD_QUERY, other as usize]) };
    decode(result).map(|same| same == 1)
}

/// The same by `kcmp`, which is older, slower, and may be forbidden.
///
/// # Errors
/// The error number.
pub fn compare_open_files(fd: RawFd, other: RawFd) -> Result<bool, c_int> {
    let pid = std::process::id() as usize;
    // SAFETY: any numbers may be passed; the call changes nothing.
    let result =
        unsafe { call(libc::SYS_kcmp, [pid, pid, KCMP_FILE, fd as usize, other as usize]) };
    decode(result).map(|order| order == 0)
}

/// What is asked for of an open file, from the kernel's own memory: a remote file system is not called.
fn statx(fd: RawFd, mask: u32) -> Option<libc::statx> {
    let mut stat = std::mem::MaybeUninit::<libc::statx>::uninit();
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the path is an empty string, and `stat` has room for the result.
    let result = unsafe {
        call(
            libc::SYS_statx,
            [
                fd as usize,
                c"".as_ptr().addr(),
                flags as usize,
                mask as usize,
                stat.as_mut_ptr().expose_provenance(),
            ],
        )
    };
    decode(result).ok()?;
    // SAFETY: the call succeeded and filled it.
    Some(unsafe { stat.assume_init() })
}

/// Device, inode and mode of an open file.
pub fn identity(fd: RawFd) -> Option<Identity> {
    let stat = statx(fd, libc::STATX_INO | libc::STATX_TYPE)?;
    Some(Identity {
        file: (libc::makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino),
        is_regular: libc::mode_t::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFREG,
    })
}

/// When an open file was made, in nanoseconds; 0 if the file system does not say. Another file that gets the inode of one
/// that was removed is made later.
pub fn born(fd: RawFd) -> u64 {
    let known = |stat: &libc::statx| stat.stx_mask & libc::STATX_BTIME != 0;
    let Some(stat) = statx(fd, libc::STATX_BTIME).filter(known) else { return 0 };
    let seconds = u64::try_from(stat.stx_btime.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(stat.stx_btime.tv_nsec.into())
}

/// What an open file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Device and inode.
    pub file: (u64, u64),
    /// Whether it is a regular file.
    pub is_regular: bool,
}

/// Sleeps. A signal ends it.
pub fn sleep(nanoseconds: i64) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: nanoseconds };
    // SAFETY: `time` is read, and no remainder is asked for.
    unsafe { call(libc::SYS_nanosleep, [(&raw const time).expose_provenance(), 0]) };
}

/// The result of [`call`], or its error number.
///
/// # Errors
/// The error number.
pub fn decode(result: isize) -> Result<isize, c_int> {
    if result < 0 { Err(-result as c_int) } else { Ok(result) }
}
