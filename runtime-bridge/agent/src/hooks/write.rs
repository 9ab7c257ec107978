//! Calls that put bytes into a file.

use super::{OnLog, count, log_of};
use crate::call;
use crate::errno;
use crate::guard;
use crate::real;
use crate::record::{self, Done};
use crate::table;
use durac_bpf::abi::Hook;
use libc::{c_int, c_uint, c_void, iovec, loff_t, off_t, size_t, ssize_t};
use std::sync::atomic::Ordering;

/// A write of `len` bytes to `fd`, which `real` carries out.
#[inline(always)]
fn write_to(fd: c_int, len: impl FnOnce() -> u64, real: impl FnOnce() -> ssize_t) -> ssize_t {
    if table::is_other(fd) { real() } else { write_to_log(fd, len, real) }
}

#[inline(never)]
fn write_to_log(fd: c_int, len: impl FnOnce() -> u64, real: impl FnOnce() -> ssize_t) -> ssize_t {
    let Some(log) = log_of(fd) else { return real() };
    let begun = record::begin();
    let result = match check(log, len) {
        Ok(()) => count(Some(log), real()),
        Err(errno) => {
            errno::set(errno);
            -1
        }
    };
    if let Some(begun) = begun {
        begun.write_ended(log.index, result);
    }
    result
}

/// The error that a write has to return instead of writing.
pub(super) fn check(log: OnLog, len: impl FnOnce() -> u64) -> Result<(), c_int> {
    match log.slot.error.load(Ordering::Acquire) {
        0 => {}
        errno => {
            record::done(Done::Refused);
            return Err(errno);
        }
    }
    let Some(program) = log.policy.program(Hook::Write) else { return Ok(()) };
    let _kept = errno::Kept::now();
    let len = len();
    let result =
        guard::run(|| call::before_write(log.registry, log.policy, log.slot, program, len));
    result.unwrap_or(Ok(()))
}

/// Sum of the lengths of `count` pieces.
///
/// # Safety
/// The caller of the hook vouches for the array as it does to the real function.
unsafe fn sum(pieces: *const iovec, count: c_int) -> u64 {
    // The system refuses more than IOV_MAX (1024).
    let count = usize::try_from(count).unwrap_or(0).min(1024);
    if pieces.is_null() {
        return 0;
    }
    // SAFETY: as promised by the caller.
    let pieces = unsafe { std::slice::from_raw_parts(pieces, count) };
    pieces.iter().map(|p| p.iov_len as u64).sum()
}

macro_rules! writes {
    ($($name:ident / $real:ident($fd:ident: c_int $(, $arg:ident: $ty:ty)*) len $len:expr;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name($fd: c_int $(, $arg: $ty)*) -> ssize_t {
                // SAFETY: the caller's arguments, which it vouches for to the real function too.
                write_to($fd, move || unsafe { $len }, move || unsafe { real::$real.get()($fd $(, $arg)*) })
            }
        )*
    };
}

// The length is an unsafe expression only for vectors.
#[expect(unused_unsafe, reason = "one macro serves the plain and the vector calls")]
pub(super) mod plain {
    use super::{c_int, c_void, iovec, off_t, real, size_t, ssize_t, sum, write_to};

    writes! {
        write / WRITE(fd: c_int, data: *const c_void, n: size_t) len n as u64;
        pwrite / PWRITE(fd: c_int, data: *const c_void, n: size_t, at: off_t) len n as u64;
        pwrite64 / PWRITE64(fd: c_int, data: *const c_void, n: size_t, at: off_t) len n as u64;
        writev / WRITEV(fd: c_int, v: *const iovec, n: c_int) len sum(v, n);
        pwritev / PWRITEV(fd: c_int, v: *const iovec, n: c_int, at: off_t) len sum(v, n);
        pwritev64 / PWRITEV64(fd: c_int, v: *const iovec, n: c_int, at: off_t) len sum(v, n);
        pwritev2 / PWRITEV2(fd: c_int, v: *const iovec, n: c_int, at: off_t, flags: c_int)
            len sum(v, n);
        pwritev64v2 / PWRITEV64V2(fd: c_int, v: *const iovec, n: c_int, at: off_t, flags: c_int)
            len sum(v, n);
        sendfile / SENDFILE(to: c_int, from: c_int, at: *mut off_t, n: size_t) len n as u64;
        sendfile64 / SENDFILE64(to: c_int, from: c_int, at: *mut off_t, n: size_t) len n as u64;
    }
}

macro_rules! copies {
    ($($name:ident / $real:ident;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name(
                from: c_int,
                at_from: *mut loff_t,
                to: c_int,
                at_to: *mut loff_t,
                n: size_t,
                flags: c_uint,
            ) -> ssize_t {
                write_to(to, move || n as u64, move || {
                    // SAFETY: the caller's arguments, which it vouches for.
                    unsafe { real::$real.get()(from, at_from, to, at_to, n, flags) }
                })
            }
        )*
    };
}

copies! {
    splice / SPLICE;
    copy_file_range / COPY_FILE_RANGE;
}

/// A change of `fd`'s length, which `real` carries out. It counts as a write.
#[inline(always)]
fn resize(fd: c_int, real: impl FnOnce() -> c_int) -> c_int {
    if table::is_other(fd) && table::dirty() == 0 { real() } else { resize_log(fd, real) }
}

#[inline(never)]
fn resize_log(fd: c_int, real: impl FnOnce() -> c_int) -> c_int {
    let Some(log) = log_of(fd) else { return super::paths::drained(real) };
    let begun = record::begin();
    let errno = log.slot.error.load(Ordering::Acquire);
    let result = if errno == 0 {
        real()
    } else {
        record::done(Done::Refused);
        errno::set(errno);
        -1
    };
    if result == 0 {
        call::after_write(log.slot, 1);
    }
    if let Some(begun) = begun {
        begun.write_ended(log.index, result as ssize_t);
    }
    result
}

/// Hook of `ftruncate`.
///
/// # Safety
/// As the real function.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ftruncate(fd: c_int, length: off_t) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    resize(fd, move || unsafe { real::FTRUNCATE.get()(fd, length) })
}

/// Hook of `ftruncate64`.
///
/// # Safety
/// As the real function.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ftruncate64(fd: c_int, length: off_t) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    resize(fd, move || unsafe { real::FTRUNCATE64.get()(fd, length) })
}
