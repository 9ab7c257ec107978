//! Calls that put bytes into a file.

use super::{OnLog, count, log_of};
use crate::call::{self, Put, Written};
use crate::errno;
use crate::guard;
use crate::readable;
use crate::real;
use crate::record::{self, Done};
use crate::stage::Pieces;
use crate::table;
use durac_bpf::abi::Hook;
use libc::{c_int, c_uint, c_void, iovec, loff_t, off_t, size_t, ssize_t};
use std::sync::atomic::Ordering;

/// A write of `len` bytes to `fd`, which `real` carries out. The pieces are none if it does not write
/// where the descriptor stands.
#[inline(always)]
fn write_to(
    fd: c_int,
    len: impl FnOnce() -> Option<u64>,
    pieces: Option<Pieces>,
    real: impl FnOnce() -> ssize_t,
) -> ssize_t {
    if table::is_other(fd) { real() } else { write_to_log(fd, len, pieces, real) }
}

#[inline(never)]
fn write_to_log(
    fd: c_int,
    len: impl FnOnce() -> Option<u64>,
    pieces: Option<Pieces>,
    real: impl FnOnce() -> ssize_t,
) -> ssize_t {
    let Some(log) = log_of(fd) else { return real() };
    let begun = record::begin();
    let result = match check(log, len, pieces) {
        Ok(Written::Not) => count(Some(log), real()),
        Ok(Written::Kept(len)) => len as ssize_t,
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

/// What a write does, or the error that it has to return.
fn check(
    log: OnLog,
    len: impl FnOnce() -> Option<u64>,
    pieces: Option<Pieces>,
) -> Result<Written, c_int> {
    match log.slot.error.load(Ordering::Acquire) {
        0 => {}
        errno => {
            record::done(Done::Refused);
            return Err(errno);
        }
    }
    let Some(program) = log.policy.program(Hook::Write) else { return Ok(Written::Not) };
    let _kept = errno::Kept::now();
    // Of a vector that cannot be read nothing is known. The system says what is wrong with it, once what is
    // staged is written.
    let length = if log.policy.asks_length() { len() } else { None };
    let put = Put { program, len: length.unwrap_or(0), pieces: length.and(pieces) };
    let result = guard::run(|| call::before_write(log.registry, log.policy, log.slot, &put));
    // A signal's handler, inside a call of its thread: what is staged cannot be written now, and comes
    // first.
    let inside = if log.slot.has_staged() { Err(libc::EINTR) } else { Ok(Written::Not) };
    result.unwrap_or(inside)
}

/// Sum of the lengths of `count` pieces; none if the array cannot be read.
fn sum(pieces: *const iovec, count: c_int) -> Option<u64> {
    // The system refuses more than IOV_MAX (1024).
    let count = usize::try_from(count).unwrap_or(0).min(1024);
    let pieces = readable::array(pieces, count)?;
    Some(pieces.fold(0, |sum: u64, piece| sum.saturating_add(piece.iov_len as u64)))
}

/// The pieces of a vector; none of one that the system refuses.
fn many(pieces: *const iovec, count: c_int) -> Option<Pieces> {
    let count = usize::try_from(count).ok().filter(|count| (1..=1024).contains(count))?;
    (!pieces.is_null()).then_some(Pieces::Many(pieces, count))
}

macro_rules! writes {
    ($($name:ident / $real:ident($fd:ident: c_int $(, $arg:ident: $ty:ty)*) len $len:expr $(, at $at:expr)?;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name($fd: c_int $(, $arg: $ty)*) -> ssize_t {
                // SAFETY: the caller's arguments, which it vouches for to the real function too.
                write_to($fd, move || $len, writes!(@at $($at)?), move || unsafe {
                    real::$real.get()($fd $(, $arg)*)
                })
            }
        )*
    };
    (@at) => { None };
    (@at $at:expr) => { $at };
}

pub(super) mod plain {
    use super::{Pieces, c_int, c_void, iovec, many, off_t, real, size_t, ssize_t, sum, write_to};

    writes! {
        write / WRITE(fd: c_int, data: *const c_void, n: size_t) len Some(n as u64), at Some(Pieces::One(data, n));
        pwrite / PWRITE(fd: c_int, data: *const c_void, n: size_t, at: off_t) len Some(n as u64);
        pwrite64 / PWRITE64(fd: c_int, data: *const c_void, n: size_t, at: off_t) len Some(n as u64);
        writev / WRITEV(fd: c_int, v: *const iovec, n: c_int) len sum(v, n), at many(v, n);
        pwritev / PWRITEV(fd: c_int, v: *const iovec, n: c_int, at: off_t) len sum(v, n);
        pwritev64 / PWRITEV64(fd: c_int, v: *const iovec, n: c_int, at: off_t) len sum(v, n);
        pwritev2 / PWRITEV2(fd: c_int, v: *const iovec, n: c_int, at: off_t, flags: c_int)
            len sum(v, n);
        pwritev64v2 / PWRITEV64V2(fd: c_int, v: *const iovec, n: c_int, at: off_t, flags: c_int)
            len sum(v, n);
    }
}

macro_rules! sends {
    ($($name:ident / $real:ident;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name(
                to: c_int,
                from: c_int,
                at: *mut off_t,
                n: size_t,
            ) -> ssize_t {
                super::seen_by(from);
                write_to(to, move || Some(n as u64), None, move || {
                    // SAFETY: the caller's arguments, which it vouches for.
                    unsafe { real::$real.get()(to, from, at, n) }
                })
            }
        )*
    };
}

sends! {
    sendfile / SENDFILE;
    sendfile64 / SENDFILE64;
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
                super::seen_by(from);
                write_to(to, move || Some(n as u64), None, move || {
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
    super::settle(fd);
    let errno = log.slot.error.load(Ordering::Acquire);
    let result = if errno == 0 {
        real()
    } else {
        record::done(Done::Refused);
        errno::set(errno);
        -1
    };
    if result == 0 {
        guard::run(|| call::after_change(log.slot));
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
