//! The functions that the application calls instead of the C library's, by family.
//!
//! Each first does the one load that tells whether the call concerns a log, and else goes on to
//! the real function at once. They unwind like C functions do: a thread that is cancelled in the
//! real function leaves through them.
//!
//! Each is as unsafe as the function it stands in front of: it demands of its caller what that demands,
//! and passes the arguments on unchanged. That is what "the caller's arguments" means below.

mod files;
mod open;
mod paths;
mod process;
mod see;
mod sync;
mod write;

use crate::call;
use crate::guard;
use crate::log::Slot;
use crate::policy::{self, Policy};
use crate::registry::Registry;
use crate::table::{self, Entry};
use libc::c_int;

pub(crate) use process::leave;
pub(crate) use sync::{fdatasync, fsync};
pub(crate) use write::plain::write;

/// What a hook needs to work on a log.
#[derive(Clone, Copy)]
struct OnLog {
    registry: &'static Registry,
    policy: &'static Policy,
    slot: &'static Slot,
    index: usize,
}

/// The log that `fd` is.
fn log_of(fd: c_int) -> Option<OnLog> {
    let Entry::Log(index) = table::get(fd) else { return None };
    let registry = table::registry()?;
    Some(OnLog { registry, policy: policy::get()?, slot: registry.slot(index)?, index })
}

/// A call may show somebody any file, or what is in it: writes what is staged before. One load if
/// nothing is.
#[inline]
fn seen() {
    if table::any_staged() {
        settle_all();
    }
}

#[cold]
fn settle_all() {
    let kept = crate::errno::Kept::now();
    guard::run(crate::order::write_out_all);
    drop(kept);
}

/// A call may show somebody what is in the file of `fd`: writes what is staged of it before. One load if
/// it is no log.
#[inline]
fn seen_by(fd: c_int) {
    if !table::is_other(fd) {
        settle(fd);
    }
}

#[inline(never)]
fn settle(fd: c_int) {
    if let Some(log) = log_of(fd).filter(|log| log.slot.has_staged() && log.registry.is_ours()) {
        let kept = crate::errno::Kept::now();
        // Its next call returns the error.
        guard::run(|| log.slot.settle().is_ok());
        drop(kept);
    }
}

/// Nothing of the file of `fd` is staged from now on.
#[cold]
fn keeps_nothing(fd: c_int) {
    if let Some(log) = log_of(fd).filter(|log| log.registry.is_ours()) {
        let kept = crate::errno::Kept::now();
        guard::run(|| {
            log.slot.lock().stage.turn_off();
            log.slot.settle().is_ok()
        });
        drop(kept);
    }
}

/// A descriptor came from the system, so it was free: if the table knows it, it was closed where
/// no hook saw it (`fclose`).
#[inline]
fn forget_stale(fd: c_int) {
    if fd >= 0 && !table::is_other(fd) {
        forget(fd);
    }
}

#[cold]
fn forget(fd: c_int) {
    let kept = crate::errno::Kept::now();
    guard::run(|| {
        let Some(registry) = table::registry().filter(|r| r.is_ours()) else { return };
        match table::set(fd, Entry::Other) {
            // An error stays in the log's last status; there is no call left to return it.
            Entry::Log(index) => drop(registry.closed(index)),
            Entry::Own => registry.lost_own(fd),
            Entry::Other => {}
        }
    });
    drop(kept);
}

/// Counts what a call put into a log, if it did.
#[inline]
fn count(log: Option<OnLog>, result: isize) -> isize {
    if let Some(log) = log
        && result > 0
    {
        call::after_write(log.slot, result as u64);
    }
    result
}
