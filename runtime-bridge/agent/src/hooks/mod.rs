//! The functions that the application calls instead of the C library's, by family.
//!
//! Each first does the one load that tells whether the call concerns a log, and else goes on to
//! the real function at once. They unwind like C functions do: a thread that is cancelled in the
//! real function leaves through them.
//!
//! Each is as unsafe as the function that it interposes: it demands of its caller what that demands,
//! and passes the arguments on unchanged. That is what "the caller's arguments" means below.

mod by_number;
mod files;
mod found;
mod observe;
mod open;
mod passing;
mod paths;
mod process;
pub(crate) mod returns;
mod rights;
mod signals;
mod sockets;
mod streams;
mod sync;
mod turn;
mod write;

use crate::call;
use crate::guard;
use crate::local::zeroed_thread_local;
use crate::log::Slot;
use crate::policy::{self, Policy};
use crate::records::Entered;
use crate::registry::Registry;
use crate::stage::{Pieces, StageOff};
use crate::table::{self, Entry};
use durac_shm::status::Uncounted;
use libc::c_int;
use std::cell::Cell;

pub use files::*;
pub use observe::*;
pub use open::*;
pub use passing::*;
pub use paths::*;
pub use process::*;
pub use rights::*;
pub use signals::*;
pub use sockets::*;
pub use streams::*;
pub use sync::*;
pub use turn::*;
pub use write::*;

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
    Some(OnLog { registry, policy: policy::loaded()?, slot: registry.slot(index)?, index })
}

/// The log that `fd` is, proved by the kernel: what the table says is forgotten if the number has become
/// another file's. Every result that does not come from the application's own call needs this.
fn proved(fd: c_int) -> Option<OnLog> {
    let log = log_of(fd)?;
    // Once the policy is off, only logs that have failed are in the table, and no call may be made.
    if crate::off::is_off() || log.slot.proof.holds(fd) {
        return Some(log);
    }
    stale(fd, log);
    None
}

/// The number of a log was closed, and given to another file, where no hook saw it.
#[cold]
fn stale(fd: c_int, log: OnLog) {
    let kept = crate::errno::Kept::now();
    guard::run(|| {
        if log.registry.is_ours() && table::forget(fd, Entry::Log(log.index)) {
            // An error stays in the log's last status; there is no call left to return it.
            let _ = log.registry.closed(log.index);
        }
    });
    drop(kept);
}

/// Whether the table is this process' own: a child of `vfork` shares it, and must leave it alone.
fn is_ours() -> bool {
    table::is_ours()
}

/// In a child that shares the memory: whether bytes of the parent's are staged of the file of `fd`, which come first.
#[cold]
fn staged_by_parent(fd: c_int) -> bool {
    log_of(fd).is_some_and(|log| log.slot.has_staged() && log.slot.proof.is_file(fd))
}

/// Something can write to the file of `fd` that has no hook: each reply waits for a sync that begins after it.
#[cold]
fn lose_writes(fd: c_int) {
    if let Some(log) = log_of(fd).filter(|log| log.registry.is_ours()) {
        log.slot.written.go_blind();
        uncount(fd, false);
    }
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
fn revoke(fd: c_int, why: StageOff) {
    if let Some(log) = log_of(fd).filter(|log| log.registry.is_ours() && log.policy.needs_sole()) {
        let kept = crate::errno::Kept::now();
        guard::run(|| log.slot.revoke(why));
        drop(kept);
    }
}

/// How much is written of the file of `fd` is not known from now on, or only not where.
#[cold]
fn uncount(fd: c_int, sees_bytes: bool) {
    // The next library's sync may ask the file system something.
    if guard::is_inside() {
        return;
    }
    if let Some(log) = log_of(fd).filter(|log| log.policy.rules.keeps_amounts) {
        match sees_bytes {
            true => log.slot.written.lose(Uncounted::Place),
            false => log.slot.written.lose_sight(Uncounted::Unseen),
        }
    }
}

zeroed_thread_local! {
    static PASSING: Cell<bool>;
}

/// Runs the next library's function for a write on a log, which may make a system call by number: this thread
/// is then passing.
#[inline]
fn passing(real: impl FnOnce() -> isize) -> isize {
    /// The thread passes no longer: also if it is cancelled in the real function, which never returns then.
    struct Passes;
    impl Drop for Passes {
        fn drop(&mut self) {
            PASSING.set(false);
        }
    }
    PASSING.set(true);
    let passes = Passes;
    let result = real();
    drop(passes);
    result
}

/// Runs a signal handler of the application: it may have come in the middle of such a write, and the system calls
/// that it makes by number are not that write.
pub(crate) fn interrupting(handler: impl FnOnce()) {
    let before = PASSING.replace(false);
    let interrupts = returns::interrupts();
    handler();
    drop(interrupts);
    PASSING.set(before);
}

/// As [`uncount`], of a system call that is made by number. The first in the next library's write is that write.
/// Returns whether this one is another.
fn uncount_by_number(fd: c_int, sees_bytes: bool) -> bool {
    let is_other = !PASSING.replace(false);
    if is_other {
        uncount(fd, sees_bytes);
    }
    is_other
}

/// A formatted write to `fd`, which is not made by a call that has a hook.
#[inline(never)]
fn formats(fd: c_int) {
    if table::is_other(fd) {
        return;
    }
    settle(fd);
    uncount(fd, false);
    lose_writes(fd);
    sockets::let_pass_or_cut(fd, false);
    if table::get(fd) == Entry::Durable {
        rights::drain();
    }
    if let Some(log) = log_of(fd).filter(|log| log.registry.is_ours()) {
        guard::run(|| call::after_change(log.slot, Some(log.policy)));
    }
}

/// The application locks the open file of `fd`.
#[cold]
fn locks(fd: c_int) {
    if let Some(log) = proved(fd).filter(|log| log.registry.is_ours()) {
        let kept = crate::errno::Kept::now();
        guard::run(|| log.slot.release_copy(|| crate::registry::reopen(fd)));
        drop(kept);
    }
}

/// The application is about to lock parts of a file. Closing any descriptor of the file drops such locks, so
/// the agent's descriptors of logs that are closed go before: a sync that is still out on one ends first.
#[inline]
fn before_locks() {
    if crate::log::any_lingers() {
        let_linger_end();
    }
}

#[cold]
fn let_linger_end() {
    let Some(registry) = table::registry().filter(|registry| registry.is_ours()) else { return };
    let kept = crate::errno::Kept::now();
    guard::run(|| registry.slots().for_each(Slot::let_linger_end));
    drop(kept);
}

/// The application locks parts of the file of `fd`.
#[cold]
fn locks_parts(fd: c_int) {
    if let Some(log) = log_of(fd) {
        log.slot.note_posix_lock();
    }
}

/// A descriptor was opened: staging ends if it is of a log. One load if the policy does not stage.
#[inline]
fn opened_again(fd: c_int) {
    if fd >= 0 && table::registry().is_some() && policy::get().is_some_and(Policy::needs_sole) {
        look_again(fd);
    }
}

#[cold]
fn look_again(fd: c_int) {
    let kept = crate::errno::Kept::now();
    guard::run(|| crate::sole::opened(fd));
    drop(kept);
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
        if !is_ours() {
            return;
        }
        let was = table::set(fd, Entry::Other);
        // Before the first log there is no more to it.
        let Some(registry) = table::registry() else { return };
        match was {
            // An error stays in the log's last status; there is no call left to return it.
            Entry::Log(index) => drop(registry.closed(index)),
            Entry::Own => registry.lost_own(fd),
            Entry::Reply => registry.replies.vanished(fd),
            Entry::Other | Entry::Durable => {}
        }
    });
    drop(kept);
}

/// Counts what a write put into a log that has entered it so.
#[inline]
fn count(log: OnLog, entered: Entered, pieces: Option<Pieces>, result: isize) -> isize {
    let bytes = u64::try_from(result).unwrap_or(0);
    log.slot.count.leave(entered, bytes, pieces, &log.slot.written);
    if bytes > 0 {
        call::after_write(log.slot, bytes);
    }
    result
}
