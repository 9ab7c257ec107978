//! The forked children that run: `child.active` in a policy.

use crate::errno::Kept;
use crate::guard;
use crate::hooks::returns;
use crate::order;
use crate::record;
use crate::table;
use libc::pid_t;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

/// Children that are remembered at once; more are not counted.
const MAX: usize = 64;

/// The children of one process.
pub struct Children {
    pids: [AtomicI32; MAX],
    /// Forks under way.
    forking: AtomicU32,
    /// There were more children than are remembered.
    overflowed: AtomicBool,
}

impl Default for Children {
    fn default() -> Self {
        Self {
            pids: [const { AtomicI32::new(0) }; MAX],
            forking: AtomicU32::new(0),
            overflowed: AtomicBool::new(false),
        }
    }
}

impl Children {
    fn count(&self) -> u64 {
        self.pids.iter().filter(|pid| pid.load(Ordering::Relaxed) != 0).count() as u64
    }

    /// Whether a child may have the files of this process open, or is about to get them.
    pub fn share_files(&self) -> bool {
        self.forking.load(Ordering::SeqCst) > 0
            || self.overflowed.load(Ordering::Relaxed)
            || self.pids.iter().any(|pid| pid.load(Ordering::Relaxed) != 0)
    }

    /// A fork is no longer under way.
    pub fn forked(&self) {
        self.forking.fetch_sub(1, Ordering::SeqCst);
    }

    fn replace(&self, old: i32, new: i32) -> bool {
        self.pids
            .iter()
            .any(|pid| pid.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed).is_ok())
    }
}

/// Whether a child runs.
pub fn any() -> bool {
    table::registry().is_some_and(|r| r.children.count() > 0)
}

/// Forks with `real`. The child sees an empty table, and passes everything through. It finds in the files
/// what was acknowledged before.
pub fn fork(real: impl FnOnce() -> pid_t) -> pid_t {
    // Nothing is staged from here until every child is gone. The children of a child of `vfork` are not ours.
    let registry = table::registry().filter(|registry| registry.is_ours());
    if let Some(registry) = registry {
        let inside = guard::enter();
        registry.children.forking.fetch_add(1, Ordering::SeqCst);
        returns::counts_fork(true);
        drop(inside);
    }
    if table::any_staged() {
        let kept = Kept::now();
        guard::run(order::write_out_all);
        drop(kept);
    }
    let begun = record::begin();
    returns::clones();
    let pid = real();
    // No handler runs between: one that leaves by a jump finds the fork under way, or its child counted.
    let inside = guard::enter();
    if pid > 0 {
        born(pid);
    }
    if pid != 0
        && let Some(registry) = registry
    {
        returns::counts_fork(false);
        registry.children.forked();
    }
    drop(inside);
    match begun {
        Some(begun) if pid > 0 => begun.forked(),
        Some(_) if pid == 0 => record::in_child(),
        _ => {}
    }
    pid
}

/// The process has forked `pid`.
fn born(pid: i32) {
    let Some(registry) = table::registry().filter(|r| r.is_ours()) else { return };
    if registry.children.replace(0, pid) {
        registry.page.publish_children(registry.children.count());
    } else {
        registry.children.overflowed.store(true, Ordering::Relaxed);
    }
}

/// The process has waited for `pid`.
pub fn gone(pid: i32) {
    if let Some(registry) = table::registry()
        && pid > 0
        && registry.is_ours()
        && registry.children.replace(pid, 0)
    {
        record::reaped();
        registry.page.publish_children(registry.children.count());
    }
}
