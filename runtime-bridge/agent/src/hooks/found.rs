//! Descriptors that no hook saw come: inherited, copied or opened by other means. And streams on files whose writes are
//! durable at once, which no hook sees.

use super::{forget_stale, opened_again, regular_file};
use crate::errno::Kept;
use crate::guard;
use crate::off::{self, Off};
use crate::policy;
use crate::real;
use crate::registry;
use crate::replies;
use crate::sole;
use crate::table::{self, Entry};
use libc::c_int;
use std::sync::atomic::{AtomicBool, Ordering};

/// Without `/proc`, the descriptors below it are looked at.
const FEW: c_int = 1024;

/// A stream writes to such a file. So it does in a child of `fork`.
static STREAMED: AtomicBool = AtomicBool::new(false);

/// Each write to `fd` is durable when it returns. There is nothing to defer, and what the logs have deferred comes first.
pub(super) fn durable(fd: c_int) {
    if !super::is_ours() {
        return;
    }
    table::set(fd, Entry::Durable);
    if is_standard_output(fd) {
        streamed(fd);
    }
}

/// The C library has a stream for it from the start.
fn is_standard_output(fd: c_int) -> bool {
    matches!(fd, libc::STDOUT_FILENO | libc::STDERR_FILENO)
}

/// A stream is opened on `fd` that writes: it may have come where no hook saw it.
pub(super) fn given_a_stream(fd: c_int) {
    if policy::get().is_none() || !super::is_ours() {
        return;
    }
    let kept = Kept::now();
    if table::is_other(fd) && writes_durably(fd) {
        table::set(fd, Entry::Durable);
    }
    streamed(fd);
    drop(kept);
}

/// A stream may write to `fd`.
fn streamed(fd: c_int) {
    if table::get(fd) == Entry::Durable && super::is_ours() {
        STREAMED.store(true, Ordering::Relaxed);
        end();
    }
}

/// A stream makes something durable that the agent does not see: once there is a log, nothing may be deferred.
fn end() {
    if STREAMED.load(Ordering::Relaxed) && table::registry().is_some_and(|it| it.is_ours()) {
        let kept = Kept::now();
        off::process(Off::Stream);
        drop(kept);
    }
}

/// A log was opened. With the first, looks at what the process has.
#[inline]
pub(super) fn look() {
    // The agent opens files, too.
    if !guard::is_inside()
        && table::registry().is_some_and(|it| it.is_ours())
        && table::is_first_look()
    {
        look_now();
        end();
    }
}

/// The same in a thread of the agent, which cannot end the policy.
pub(super) fn look_in_thread() {
    if table::registry().is_some_and(|it| it.is_ours()) && table::is_first_look() {
        look_now();
    }
}

#[cold]
fn look_now() {
    let kept = Kept::now();
    guard::run(|| {
        if sole::descriptors(look_at).is_none() {
            (0..FEW).for_each(look_at);
        }
        if let Some(registry) = table::registry() {
            registry.replies.join_copies();
        }
    });
    drop(kept);
}

fn look_at(fd: c_int) {
    if table::is_other(fd) && writes_durably(fd) {
        table::set(fd, Entry::Durable);
    }
    if is_standard_output(fd) && table::get(fd) == Entry::Durable {
        STREAMED.store(true, Ordering::Relaxed);
    }
}

/// Whether each write to `fd` is durable when it returns.
fn writes_durably(fd: c_int) -> bool {
    writes(fd).is_some_and(|flags| flags & libc::O_DSYNC != 0)
}

/// The flags of a descriptor that is open for writing.
fn writes(fd: c_int) -> Option<c_int> {
    // SAFETY: any number may be passed; the command only looks.
    let flags = unsafe { real::FCNTL.get()(fd, libc::F_GETFL, 0) };
    (flags >= 0 && flags & libc::O_ACCMODE != libc::O_RDONLY).then_some(flags)
}

/// `fd` came from the system, and can be of any file, or a copy of any descriptor.
pub(super) fn copied_unseen(fd: c_int) -> c_int {
    forget_stale(fd);
    opened_again(fd);
    if fd >= 0 && policy::get().is_some() && super::is_ours() {
        find_out(fd);
    }
    fd
}

#[cold]
fn find_out(fd: c_int) {
    let kept = Kept::now();
    let Some(flags) = writes(fd) else {
        drop(kept);
        return;
    };
    if flags & libc::O_DSYNC != 0 {
        durable(fd);
    } else if let Some(Some(known)) = guard::run(|| replies::copy_of(fd)) {
        super::sockets::copied(known, fd);
    } else if let Some(id) = regular_file(fd) {
        guard::run(|| {
            if let (Some(slot), Some(registry)) = (registry::slot_of(id), table::registry()) {
                registry.duplicated(slot.index, fd);
            }
        });
    }
    drop(kept);
}
