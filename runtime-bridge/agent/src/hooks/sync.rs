//! Calls that ask for durability.

use crate::call;
use crate::errno::{self, Kept};
use crate::guard;
use crate::real;
use crate::record;
use crate::table;
use durac_abi::Hook;
use libc::{c_int, c_uint, c_void, loff_t, size_t};

#[inline(always)]
fn sync(fd: c_int, hook: Hook, real: impl FnOnce() -> c_int) -> c_int {
    if table::is_other(fd) && table::dirty() == 0 { real() } else { sync_log(fd, hook, real) }
}

#[inline(never)]
fn sync_log(fd: c_int, hook: Hook, real: impl FnOnce() -> c_int) -> c_int {
    crate::control::look();
    crate::attention::look(table::get(fd));
    let Some(log) = super::proved(fd) else { return super::paths::drained(real) };
    // The real function is a point where a thread can be cancelled. No lock is held here yet.
    guard::test_cancel();
    let kept = Kept::now();
    let begun = record::begin();
    let result = guard::run(|| call::sync(log.registry, log.policy, log.slot, fd, hook));
    if let (Some(begun), Some(result)) = (begun, result) {
        begun.sync_ended(log.index, hook, result);
    }
    crate::replies::release();
    super::turn::synced();
    match result {
        Some(Ok(())) => 0,
        Some(Err(errno)) => kept.fail(errno),
        // A signal's handler, inside a call of its thread: the real sync would not cover what is staged.
        None if log.slot.has_staged() => kept.fail(libc::EINTR),
        None => {
            drop(kept);
            real()
        }
    }
}

/// Hook of `fsync`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn fsync(fd: c_int) -> c_int {
    // SAFETY: the caller's argument.
    sync(fd, Hook::Fsync, move || unsafe { real::FSYNC.get()(fd) })
}

/// Hook of `fdatasync`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: the caller's argument.
    sync(fd, Hook::Fdatasync, move || unsafe { real::FDATASYNC.get()(fd) })
}

/// Hook of `sync_file_range`. It makes nothing durable, but it can take away the error that the
/// next sync would have got.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn sync_file_range(fd: c_int, at: loff_t, n: loff_t, flags: c_uint) -> c_int {
    super::seen_by(fd);
    // SAFETY: the caller's arguments.
    let real = || unsafe { real::SYNC_FILE_RANGE.get()(fd, at, n, flags) };
    let waits = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let result = match flags & waits != 0 && table::is_other(fd) {
        true => super::paths::drained(real),
        false => real(),
    };
    if result != 0 && !table::is_other(fd) {
        let kept = Kept::now();
        let errno = errno::get();
        if matches!(errno, libc::EIO | libc::ENOSPC | libc::EDQUOT)
            && let Some(log) = super::proved(fd)
        {
            guard::run(|| {
                let mut core = log.slot.lock();
                core.engine.fail(errno);
                log.slot.report_failure(&core);
                log.slot.publish(&mut core);
                drop(log.slot.wake_waiters(core));
            });
        }
        drop(kept);
    }
    result
}

/// Hook of `msync`: what the logs have deferred comes before pages that are made durable.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn msync(address: *mut c_void, n: size_t, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    let real = || unsafe { real::MSYNC.get()(address, n, flags) };
    if flags & libc::MS_SYNC != 0 { super::paths::drained(real) } else { real() }
}
