//! Order across files.
//!
//! What survives a power loss must be a prefix of what the application did. A sync, rename or
//! removal of another file may be what makes the application forget the log's older copy: Redis
//! syncs the manifest that names the next log before it syncs the end of the last one. So whatever
//! the logs have deferred is made durable before.
//!
//! And what the application does must not show that writes are staged: whatever could see a log's file
//! has its bytes written before.

use crate::fault_injection::{self, Fault};
use crate::log::Slot;
use crate::table;
use durac_engine::Errno;

/// Makes durable what the logs other than `except` have deferred. One load if none has.
#[inline]
pub fn drain_others(except: Option<&Slot>) -> Result<(), Errno> {
    let own = except.is_some_and(Slot::is_dirty);
    if table::dirty() <= u64::from(own) { Ok(()) } else { drain_dirty(except) }
}

fn drain_dirty(except: Option<&Slot>) -> Result<(), Errno> {
    if fault_injection::injects(Fault::NoDrain) {
        return Ok(());
    }
    // In a child of `vfork` the agent's descriptors may be other files.
    let Some(registry) = table::registry().filter(|r| r.is_ours()) else { return Ok(()) };
    let mut result = Ok(());
    for slot in registry.slots() {
        if !slot.is_dirty() || except.is_some_and(|e| std::ptr::eq(e, slot)) {
            continue;
        }
        let mut core = slot.lock();
        if !core.is_dirty() && !core.defers_writes() {
            continue;
        }
        core.users += 1;
        let (mut core, drained) = slot.drain(core);
        core.users -= 1;
        drop(core);
        result = result.and(drained);
    }
    result
}

/// Writes what any log has staged. One load if none has. An error stays in its log.
#[inline]
pub fn write_out_all() {
    if table::any_staged() {
        write_out_staged();
    }
}

fn write_out_staged() {
    let Some(registry) = table::registry().filter(|r| r.is_ours()) else { return };
    for slot in registry.slots() {
        // Its next call returns the error.
        let _ = slot.settle();
    }
}
