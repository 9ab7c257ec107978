//! The kernel's part of `use kernel notify` under BPFtime: one count for one process.
//!
//! BPFtime's helpers start a sync through io_uring and discard its result. The kernel executes it in a
//! worker thread of the process. So a whole sync by an io_uring worker of the process named in the map,
//! if it returned 0, is one of the process's own, provided it does not use io_uring otherwise. The file
//! need not be known.
//!
//! The program runs before the completion becomes visible: a process that has reaped n completions and
//! finds n counted knows that all of them succeeded.
//!
//! The map is a hash, which BPFtime reads by a system call. For an array it would keep an address in memory
//! that all processes of a session share, which is valid in the first process only. In any other process
//! the descriptor of the hash does not name a map, and the lookup returns null.

use super::{Attach, KernelMap};

/// Name of the map.
pub const SYNCS_MAP: &str = "syncs";
/// Offset of the process, as `bpf_get_current_pid_tgid` numbers it; 0 before there is one. Written by the
/// process.
pub const PROCESS: i16 = 0;
/// Offset of how many of its syncs ended with success.
pub const COMPLETED: i16 = 8;
/// The map: one entry.
pub const MAPS: [KernelMap; 1] = [KernelMap {
    name: SYNCS_MAP,
    kind: super::MAP_TYPE_HASH,
    key: &[],
    fields: &["process", "completed"],
    max_entries: 1,
    flags: 0,
}];
/// Bytes of its value.
pub const VALUE: i32 = 16;

/// Where the programs can be attached, best first. The tracepoints of system calls would see nothing: a
/// worker makes none.
pub const ATTACHMENTS: [Attach; 2] = [Attach::Function, Attach::Ext4];

/// The section of the program for an attachment.
#[must_use]
pub fn section(attach: Attach) -> &'static str {
    let [ends, _] = attach.sections();
    ends
}
