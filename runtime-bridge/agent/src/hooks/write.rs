//! Calls that put bytes into a file.

use super::{OnLog, count, log_of};
use crate::call::{self, Written};
use crate::errno;
use crate::guard::{self, Inside};
use crate::policy;
use crate::readable;
use crate::real;
use crate::record::{self, Done};
use crate::records::Entered;
use crate::replies::Put;
use crate::stage::Pieces;
use crate::table::{self, Entry};
use durac_abi::{Hook, Reading};
use libc::{c_int, c_uint, c_void, iovec, loff_t, off_t, size_t, ssize_t};
use std::cell::Cell;
use std::sync::atomic::Ordering;

/// A write of `len` bytes to `fd`, which `real` carries out. The pieces are none if it does not write
/// at the position of the descriptor.
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
    let Some(log) = log_of(fd) else { return other_write(fd, len, pieces, real) };
    if table::is_in_child() {
        return write_in_child(fd, log, real);
    }
    crate::control::look();
    if log.policy.program(Hook::Write).is_none() && log.slot.error.load(Ordering::Acquire) == 0 {
        let begun = record::begin();
        let entered = log.slot.count.enter();
        let result = count(log, entered, pieces, super::passing(real));
        exchanged(log);
        if let Some(begun) = begun {
            begun.write_ended(log.index, result);
        }
        return result;
    }
    if !crate::off::is_off() && !log.slot.proof.holds(fd) {
        super::stale(fd, log);
        return real();
    }
    let begun = record::begin();
    // The real function is a point where a thread can be cancelled.
    guard::test_cancel();
    // Before the policy decides: what is staged meanwhile comes after it.
    let entered = log.slot.count.enter();
    let result = match check(log, entered, len, pieces) {
        (Ok(Written::Not), _) => count(log, entered, pieces, super::passing(real)),
        (Ok(Written::Counted), inside) => {
            // A handler that never returns, and a cancellation, wait until it is counted down again.
            let result = count(log, entered, pieces, super::passing(real));
            let kept = errno::Kept::now();
            call::write_ended(log.slot);
            drop(inside);
            drop(kept);
            result
        }
        (Ok(Written::Kept(len)), _) => {
            log.slot.count.leave(entered, len, pieces, &log.slot.written);
            len as ssize_t
        }
        (Err(errno), _) => {
            log.slot.count.leave(entered, 0, None, &log.slot.written);
            errno::set(errno);
            -1
        }
    };
    if let Some(begun) = begun {
        begun.write_ended(log.index, result);
    }
    result
}

/// A write of a child that shares the memory: the parent's descriptors and counts are not its own.
#[cold]
fn write_in_child(fd: c_int, log: OnLog, real: impl FnOnce() -> ssize_t) -> ssize_t {
    let errno = match log.slot.error.load(Ordering::Acquire) {
        0 if super::staged_by_parent(fd) => libc::EINTR,
        errno if errno != 0 && log.slot.proof.is_file(fd) => errno,
        _ => {
            super::uncount(fd, false);
            return real();
        }
    };
    errno::set(errno);
    -1
}

/// A write has ended that no program has seen: the policy may have been exchanged meanwhile.
#[inline]
fn exchanged(log: OnLog) {
    if !policy::loaded().is_some_and(|policy| std::ptr::eq(policy, log.policy)) {
        let kept = errno::Kept::now();
        guard::run(|| call::after_plain_write(log.slot, log.policy));
        drop(kept);
    }
}

/// A write to something else: a connection, whose replies may be held; or a file whose writes are durable
/// when they return: then what the logs have deferred comes first.
fn other_write(
    fd: c_int,
    len: impl FnOnce() -> Option<u64>,
    pieces: Option<Pieces>,
    real: impl FnOnce() -> ssize_t,
) -> ssize_t {
    match table::get(fd) {
        Entry::Reply => {
            let len = len().and_then(|len| usize::try_from(len).ok());
            let put = Put {
                pieces: pieces.filter(|_| len.is_some()),
                len: len.unwrap_or(0),
                at_once: false,
                quiet: false,
            };
            super::sockets::reply(put, fd, real)
        }
        Entry::Durable => super::paths::drained(real),
        _ => real(),
    }
}

/// What a write does, or the error that it has to return. Of one that is counted, the thread stays inside.
fn check(
    log: OnLog,
    entered: Entered,
    len: impl FnOnce() -> Option<u64>,
    pieces: Option<Pieces>,
) -> (Result<Written, c_int>, Option<Inside>) {
    match log.slot.error.load(Ordering::Acquire) {
        0 => {}
        errno => {
            record::done(Done::Refused);
            return (Err(errno), None);
        }
    }
    let Some(program) = log.policy.program(Hook::Write) else { return (Ok(Written::Not), None) };
    let _kept = errno::Kept::now();
    // Of a vector that cannot be read nothing is known. The system says what is wrong with it, once what is
    // staged is written.
    let length = if log.policy.asks_length() { len() } else { None };
    let updates = match log.policy.reads(Reading::CallUpdates) {
        true => log.slot.count.preview(entered, pieces, length.unwrap_or(u64::MAX)),
        false => 0,
    };
    let put = call::Put { program, len: length.unwrap_or(0), updates, pieces: length.and(pieces) };
    let begins = || call::before_write(log.registry, log.policy, log.slot, &put);
    match guard::run_and_stay(begins) {
        Some((Ok(Written::Counted), inside)) => (Ok(Written::Counted), Some(inside)),
        Some((result, _)) => (result, None),
        // A signal's handler, inside a call of its thread: what is staged cannot be written now, and comes
        // first.
        None if log.slot.has_staged() => (Err(libc::EINTR), None),
        None => (Ok(Written::Not), None),
    }
}

/// Sum of the lengths of `count` pieces; none if the array cannot be read.
fn sum(pieces: *const iovec, count: c_int) -> Option<u64> {
    // The system refuses more than IOV_MAX (1024).
    let count = usize::try_from(count).unwrap_or(0).min(1024);
    let pieces = readable::array(pieces, count)?;
    Some(pieces.fold(0, |sum: u64, piece| sum.saturating_add(piece.iov_len as u64)))
}

/// The pieces of a vector; none of one that the system refuses.
pub(super) fn many(pieces: *const iovec, count: c_int) -> Option<Pieces> {
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
            #[inline]
            pub unsafe fn $name($fd: c_int $(, $arg: $ty)*) -> ssize_t {
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

writes! {
    write / WRITE(fd: c_int, data: *const c_void, n: size_t) len Some(n as u64), at Some(Pieces::One(data, n));
    pwrite / PWRITE(fd: c_int, data: *const c_void, n: size_t, at: off_t) len Some(n as u64);
    pwrite64 / PWRITE64(fd: c_int, data: *const c_void, n: size_t, at: off_t) len Some(n as u64);
    writev / WRITEV(fd: c_int, v: *const iovec, n: c_int) len sum(v, n), at many(v, n);
    pwritev / PWRITEV(fd: c_int, v: *const iovec, n: c_int, at: off_t) len sum(v, n);
    pwritev64 / PWRITEV64(fd: c_int, v: *const iovec, n: c_int, at: off_t) len sum(v, n);
}

/// A write with flags: it may be durable when it returns. Then what the logs have deferred comes first, and its error may
/// be the one of a sync.
#[inline(always)]
fn write_flagged(
    fd: c_int,
    (at, flags): (off_t, c_int),
    len: impl FnOnce() -> Option<u64>,
    real: impl FnOnce() -> ssize_t,
) -> ssize_t {
    match flags & super::sync::DURABLY != 0 {
        true => write_durably(super::sync::Syncs::Write(fd, at, flags), fd, len, real),
        false => write_to(fd, len, None, real),
    }
}

#[inline(never)]
fn write_durably(
    syncs: super::sync::Syncs,
    fd: c_int,
    len: impl FnOnce() -> Option<u64>,
    real: impl FnOnce() -> ssize_t,
) -> ssize_t {
    if log_of(fd).is_none() {
        return super::sync::guarded(syncs, || write_to(fd, len, None, real));
    }
    // What a program decides is no error of the file.
    let taken = Cell::new(0);
    let result = super::paths::drained(|| {
        write_to(fd, len, None, || {
            let length = syncs.length();
            let result = real();
            if result < 0 {
                let errno = errno::get();
                if !syncs.wrote_nothing(length) {
                    taken.set(errno);
                }
                errno::set(errno);
            }
            result
        })
    });
    if taken.get() != 0 {
        super::sync::may_have_taken(syncs, taken.get());
        errno::set(taken.get());
    }
    result
}

macro_rules! flagged_writes {
    ($($name:ident / $real:ident;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name(
                fd: c_int,
                v: *const iovec,
                n: c_int,
                at: off_t,
                flags: c_int,
            ) -> ssize_t {
                // SAFETY: the caller's arguments, which it vouches for.
                let real = move || unsafe { real::$real.get()(fd, v, n, at, flags) };
                write_flagged(fd, (at, flags), move || sum(v, n), real)
            }
        )*
    };
}

flagged_writes! {
    pwritev2 / PWRITEV2;
    pwritev64v2 / PWRITEV64V2;
}

macro_rules! sends {
    ($($name:ident / $real:ident;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name(
                to: c_int,
                from: c_int,
                at: *mut off_t,
                n: size_t,
            ) -> ssize_t {
                super::seen_by(from);
                super::sockets::unseen(from);
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
            #[inline]
            pub unsafe fn $name(
                from: c_int,
                at_from: *mut loff_t,
                to: c_int,
                at_to: *mut loff_t,
                n: size_t,
                flags: c_uint,
            ) -> ssize_t {
                super::seen_by(from);
                super::sockets::unseen(from);
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
    let Some(log) = super::proved(fd) else { return super::paths::drained(real) };
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
        guard::run(|| call::after_change(log.slot, Some(log.policy)));
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
#[inline]
pub unsafe fn ftruncate(fd: c_int, length: off_t) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    resize(fd, move || unsafe { real::FTRUNCATE.get()(fd, length) })
}

/// Hook of `ftruncate64`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn ftruncate64(fd: c_int, length: off_t) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    resize(fd, move || unsafe { real::FTRUNCATE64.get()(fd, length) })
}
