//! Logs that this process did not open: those it inherited from its parent (a daemon's, opened before it forked) or from
//! the program that started it (a shell's `>>numbers.log`). Under `on write: defer` they are logs like others.
//!
//! A thread takes them over a moment later, so that a child that only starts another program costs nothing. What is
//! written in that moment is as old as it is: the first look counts from the fork, or from the start.

use crate::clock;
use crate::hooks;
use crate::owned;
use crate::policy::{self, Policy};
use crate::sync;
use durac_engine::Time;
use libc::c_int;
use std::path::PathBuf;
use std::time::Duration;

/// The moment; far less than a deadline.
const MOMENT: Duration = Duration::from_millis(100);
const STACK: usize = 128 << 10;

/// The program starts.
pub fn at_start(policy: &'static Policy) {
    if policy.rules.defers_writes {
        soon(policy);
    }
}

/// This process is a child of `fork` that has just begun.
pub fn in_child() {
    let inherited = owned::inherited();
    if let Some(policy) = policy::get().filter(|policy| inherited && policy.rules.defers_writes) {
        soon(policy);
    }
}

/// Has a thread take over what there is. Without a thread the files are as durable as without durac.
fn soon(policy: &'static Policy) {
    if !files().any(|(_, path, _)| policy.covers(&path)) {
        return;
    }
    // Until the thread has taken them over, a child of this process inherits what it has not yet.
    owned::will_inherit();
    let since = clock::now();
    let spawned = sync::spawn_with(STACK, c"durac-adopt", move || {
        clock::pause(MOMENT);
        adopt(policy, since);
    });
    if let Err(error) = spawned {
        crate::note::error(&format!(
            "cannot start a thread: {error}; logs that were open before are as durable as without durac"
        ));
    }
}

fn adopt(policy: &'static Policy, since: Time) {
    for (fd, path, flags) in files() {
        if policy.covers(&path) {
            hooks::adopt(policy, fd, &path, flags, since);
        }
    }
}

/// The files that this process has open for writing and that are no logs yet: number, path, flags.
fn files() -> impl Iterator<Item = (c_int, PathBuf, c_int)> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let fd: c_int = entry.file_name().to_str()?.parse().ok()?;
        if !crate::table::is_other(fd) {
            return None;
        }
        // SAFETY: any number may be passed; the command only looks.
        let flags = unsafe { crate::real::FCNTL.get()(fd, libc::F_GETFL, 0) };
        let path = std::fs::read_link(entry.path()).ok()?;
        let writes = flags >= 0 && flags & libc::O_ACCMODE != libc::O_RDONLY;
        (writes && path.is_absolute()).then_some((fd, path, flags))
    })
}
