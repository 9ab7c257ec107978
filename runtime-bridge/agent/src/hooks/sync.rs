//! Calls that ask for durability, by whatever name.
//!
//! The kernel keeps one report of a failed write-back for each open file, and whoever syncs next takes it. The
//! agent's descriptor of a log is a copy of the application's, so either can take it from the other. Two rules keep
//! it: what the agent has got is returned by every call that syncs the log ([`guarded`]), and what such a call has got
//! stops the log ([`may_have_taken`]). `syncfs` is none of them: it reports what the file system keeps for the open file of
//! its own descriptor (`f_sb_err`, Linux 5.8), and takes nothing from a log.

use crate::call;
use crate::errno::{self, Kept};
use crate::failures;
use crate::guard;
use crate::order;
use crate::owned;
use crate::real;
use crate::record;
use crate::registry::{self, FileId};
use crate::sole;
use crate::stamp::stamp;
use crate::sys;
use crate::table;
use durac_abi::Hook;
use durac_engine::{Errno, is_transient};
use libc::{c_int, c_uint, c_void, loff_t, off_t, size_t};
use std::sync::atomic::Ordering;

#[inline(always)]
fn sync(fd: c_int, hook: Hook, real: impl FnOnce() -> c_int) -> c_int {
    match table::is_other(fd) && table::dirty() == 0 && !failures::any() {
        true => told(fd, real()),
        false => sync_log(fd, hook, real),
    }
}

#[inline(never)]
fn sync_log(fd: c_int, hook: Hook, real: impl FnOnce() -> c_int) -> c_int {
    if table::is_in_child() {
        return match super::staged_by_parent(fd) {
            true => {
                errno::set(libc::EINTR);
                -1
            }
            false => guarded(Syncs::File(fd), real),
        };
    }
    crate::control::look();
    crate::attention::look(table::get(fd));
    let Some(log) = super::proved(fd) else { return guarded(Syncs::File(fd), real) };
    if failures::any() {
        guard::run(|| log.slot.learn_and_wake());
    }
    // The real function is a point where a thread can be cancelled. No lock is held here yet.
    guard::test_cancel();
    let kept = Kept::now();
    let begun = record::begin();
    let result = guard::run(|| call::sync(log.registry, log.policy, log.slot, fd, hook));
    if let (Some(begun), Some(result)) = (begun, result) {
        begun.sync_ended(log.index, hook, result);
    }
    // A handler that interrupts it would find its locks held.
    guard::run(crate::replies::release);
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

/// What a call syncs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Syncs {
    /// The file of a descriptor.
    File(c_int),
    /// The file of a descriptor, what is written to it at this place (-1: at its position) with these flags.
    Write(c_int, off_t, c_int),
    /// The files of the pages from here on.
    Pages(usize, usize),
}

impl Syncs {
    /// The length of the file that the call writes, if it writes one.
    pub fn length(self) -> Option<i64> {
        let Self::Write(fd, ..) = self else { return None };
        stamp(fd).map(|stamp| stamp.length)
    }

    /// Whether a write that has failed has written nothing, so that the kernel has synced nothing either: it was to begin
    /// at the end of the file, and that is where it was (`before`).
    #[cold]
    pub fn wrote_nothing(self, before: Option<i64>) -> bool {
        let (Self::Write(fd, at, flags), Some(length)) = (self, self.length()) else {
            return false;
        };
        // SAFETY: any number may be passed; the command only looks.
        let status = unsafe { real::FCNTL.get()(fd, libc::F_GETFL, 0) };
        if flags & libc::RWF_APPEND != 0
            || status & libc::O_APPEND != 0 && flags & RWF_NOAPPEND == 0
        {
            return before == Some(length);
        }
        let at = match at {
            // SAFETY: any number may be passed; this moves nothing.
            -1 => unsafe { real::LSEEK.get()(fd, 0, libc::SEEK_CUR) },
            at => at,
        };
        at >= length && before.is_none_or(|before| before == length)
    }
}

/// `RWF_NOAPPEND` (`include/uapi/linux/fs.h`, Linux 6.9): the write goes where it says although the file is open for
/// appending.
const RWF_NOAPPEND: c_int = 0x20;

/// A call, carried out by `real`, that can sync a log and is not decided by a policy. It fails with the error of a log
/// that has failed, without being made. What the logs have deferred comes first. What it says of a log stops that.
#[inline]
pub(super) fn guarded<T: From<i8> + PartialOrd>(syncs: Syncs, real: impl FnOnce() -> T) -> T {
    if guard::is_inside() || table::registry().is_none() && !failures::is_known() {
        return real();
    }
    let kept = Kept::now();
    if let Err(errno) = before(syncs) {
        kept.fail(errno);
        return T::from(-1);
    }
    drop(kept);
    let length = syncs.length();
    let result = real();
    if result < T::from(0) {
        let errno = errno::get();
        if !syncs.wrote_nothing(length) {
            may_have_taken(syncs, errno);
        }
        errno::set(errno);
    }
    result
}

/// What a sync says that is made as the application made it. It may have got what the kernel reports once to all processes
/// that share the open file.
#[inline]
fn told(fd: c_int, result: c_int) -> c_int {
    if result < 0 && failures::is_known() && !guard::is_inside() {
        let errno = errno::get();
        may_have_taken(Syncs::File(fd), errno);
        errno::set(errno);
    }
    result
}

#[cold]
fn before(syncs: Syncs) -> Result<(), Errno> {
    if let Some(errno) = error_of(syncs) {
        record::done(record::Done::Refused);
        return Err(errno);
    }
    match table::dirty() > 0 {
        true => guard::run(|| order::drain_others(None)).unwrap_or(Ok(())),
        false => Ok(()),
    }
}

/// Fails with the error of a log that such a call would sync.
pub(super) fn refused(syncs: Syncs) -> Result<(), Errno> {
    error_of(syncs).map_or(Ok(()), Err)
}

/// The error of a log that such a call would sync.
fn error_of(syncs: Syncs) -> Option<Errno> {
    if let Syncs::File(fd) | Syncs::Write(fd, ..) = syncs
        && let Some(log) = super::log_of(fd)
    {
        let errno = log.slot.error.load(Ordering::Acquire);
        let holds = || crate::off::is_off() || log.slot.proof.holds(fd);
        return (errno != 0 && holds()).then_some(errno);
    }
    if !failures::any() {
        return None;
    }
    match syncs {
        Syncs::File(fd) | Syncs::Write(fd, ..) => {
            let file = sys::identity(fd)?.file;
            error_where(file, sys::born(fd))
        }
        Syncs::Pages(address, n) => {
            let mut error = None;
            // Without `/proc` nothing is known, as before.
            let _ = sole::files_mapped(address, n, |file| {
                error = error.or_else(|| error_where(file, 0));
            });
            error
        }
    }
}

/// The error of a log of such a file that has failed, in this process or in one with which it may share the open file. One
/// of this process is forgotten when it is closed. The file was made at `born`, or at a time that is not known (0).
fn error_where(file: FileId, born: u64) -> Option<Errno> {
    // SAFETY: it takes no pointer, cannot fail, and changes nothing.
    let pid = unsafe { libc::getpid() };
    let still_open = |file| guard::run(|| registry::slot_of(file).is_some()).unwrap_or(false);
    failures::all()
        .find(|it| it.is_of(file, born) && it.is_shared() && (it.owner != pid || still_open(file)))
        .map(|it| it.errno)
}

/// Flags of a write that is durable when it returns.
pub(super) const DURABLY: c_int = libc::RWF_DSYNC | libc::RWF_SYNC;

/// Flags of `sync_file_range` with which it waits.
pub(super) const WAITS: c_uint =
    libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WAIT_AFTER;

/// A call that can sync a log has failed with this error, which may be the kernel's one report of lost data: the log
/// fails, and stays failed.
#[cold]
pub(super) fn may_have_taken(syncs: Syncs, errno: Errno) {
    if is_refusal(errno) {
        return;
    }
    let kept = Kept::now();
    match syncs {
        Syncs::File(fd) | Syncs::Write(fd, ..) => {
            if let Some(log) = super::proved(fd) {
                guard::run(|| log.slot.stop(errno));
            } else if let Some(file) = sys::identity(fd) {
                guard::run(|| shared_failed(file.file, sys::born(fd), errno));
            }
        }
        // Pages that are not mapped.
        Syncs::Pages(..) if errno == libc::ENOMEM => {}
        Syncs::Pages(address, n) => {
            guard::run(|| {
                let mut any = false;
                let read = sole::files_mapped(address, n, |file| {
                    any = true;
                    match registry::slot_of(file) {
                        Some(slot) => slot.stop(errno),
                        None => shared_failed(file, 0, errno),
                    }
                });
                if read.is_none() {
                    // Any log that was mapped.
                    let slots = table::registry().into_iter().flat_map(|it| it.slots());
                    slots.filter(|slot| slot.written.is_blind()).for_each(|slot| slot.stop(errno));
                }
            });
        }
    }
    drop(kept);
}

/// A call has got this error of a file that is no log of this process. If it has inherited one of the file, the processes
/// with which it shares that learn of it.
#[cold]
fn shared_failed(file: FileId, born: u64, errno: Errno) {
    if owned::has_inherited(file) && registry::slot_of(file).is_none() {
        failures::add_inherited(file, born, errno);
    }
}

/// Whether the system has refused the call itself, and looked at no file, or says that it may be made again.
fn is_refusal(errno: Errno) -> bool {
    is_transient(errno)
        || matches!(
            errno,
            libc::EBADF
                | libc::EINVAL
                | libc::EFAULT
                | libc::EOPNOTSUPP
                | libc::ENOSYS
                | libc::ESPIPE
                | libc::EFBIG
                | libc::EPERM
        )
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

/// A call like `sync_file_range`. It makes nothing durable, but it can take away the error that the next sync would
/// have got, if it waits.
#[inline]
pub(super) fn range<T: From<i8> + PartialOrd>(
    fd: c_int,
    flags: c_uint,
    real: impl FnOnce() -> T,
) -> T {
    super::seen_by(fd);
    if flags & WAITS != 0 || failures::any() && error_of(Syncs::File(fd)).is_some() {
        return guarded(Syncs::File(fd), real);
    }
    let result = real();
    if result < T::from(0) && !table::is_other(fd) {
        may_have_taken(Syncs::File(fd), errno::get());
    }
    result
}

/// Hook of `sync_file_range`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn sync_file_range(fd: c_int, at: loff_t, n: loff_t, flags: c_uint) -> c_int {
    // SAFETY: the caller's arguments.
    range(fd, flags, || unsafe { real::SYNC_FILE_RANGE.get()(fd, at, n, flags) })
}

/// Hook of `syncfs`: what the logs have deferred comes first.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn syncfs(fd: c_int) -> c_int {
    // SAFETY: the caller's argument.
    super::paths::drained(|| unsafe { real::SYNCFS.get()(fd) })
}

/// Hook of `msync`: what the logs have deferred comes before pages that are made durable.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn msync(address: *mut c_void, n: size_t, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    let real = || unsafe { real::MSYNC.get()(address, n, flags) };
    match flags & libc::MS_SYNC != 0 {
        true => guarded(Syncs::Pages(address.addr(), n), real),
        false => real(),
    }
}
