//! The forked children that run: `child.active` in a policy.

use crate::errno::Kept;
use crate::guard;
use crate::order;
use crate::record;
use crate::table;
use libc::pid_t;
use std::sync::atomic::{AtomicI32, Ordering};

/// Children that are remembered at once; more are not counted.
const MAX: usize = 64;

/// The children of one process.
pub struct Children([AtomicI32; MAX]);

impl Default for Children {
    fn default() -> Self {
        Self([const { AtomicI32::new(0) }; MAX])
    }
}

impl Children {
    fn count(&self) -> u64 {
        self.0.iter().filter(|pid| pid.load(Ordering::Relaxed) != 0).count() as u64
    }

    fn replace(&self, old: i32, new: i32) -> bool {
        self.0
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
    if table::any_staged() {
        let kept = Kept::now();
        guard::run(order::write_out_all);
        drop(kept);
    }
    let begun = record::begin();
    let pid = real();
    if pid > 0 {
        born(pid);
    }
    match begun {
        Some(begun) if pid > 0 => begun.forked(),
        Some(_) if pid == 0 => record::in_child(),
        _ => {}
    }
    pid
}

/// The process has forked `pid`.
fn born(pid: i32) {
    if let Some(registry) = table::registry()
        && registry.children.replace(0, pid)
    {
        registry.page.publish_children(registry.children.count());
    }
}

/// The process has waited for `pid`.
pub fn gone(pid: i32) {
    if let Some(registry) = table::registry()
        && pid > 0
        && registry.children.replace(pid, 0)
    {
        record::reaped();
        registry.page.publish_children(registry.children.count());
    }
}
