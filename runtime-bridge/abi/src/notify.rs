//! The kernel's part of `use kernel notify`: programs that count the syncs of the open logs, in a map
//! that the agent reads like memory.
//!
//! The map has a header and [`SLOTS`] slots. The agent claims a slot for an open log and writes the
//! file's device and inode there; the programs look for the file of each sync that begins or ends,
//! and count it if there is such a slot. No other file is counted.
//!
//! A sync is *whole* if it is an `fsync` or `fdatasync` of the process that owns the slot, and covers
//! the whole file. When it begins it draws a *ticket*: how many syncs of the file have begun. A sync
//! that begins after a moment has a higher ticket than [`Word::Started`] at that moment, so whoever
//! reads that word after a write knows which syncs cover the write.
//!
//! Linux reports a write-back error once per open file description: of two syncs that overlap, one can
//! end with success though the other has met the error. So the programs look at the moments when no
//! sync of the file is out, of any process and any kind: what has ended with success by then is
//! *proved* ([`Word::Proved`]), unless a sync has failed ([`Word::Failed`]).
//!
//! Architecture invariant: the programs depend on nothing of the policy. An object has all of them,
//! as they are here, or none ([`crate::elf`] refuses any other), so that whoever loads them as root
//! knows what they do.

pub mod count;
mod fields;

pub use fields::{Field, STRUCTS};

use crate::object::Reloc;
use crate::{Insn, words};
use sha2::{Digest, Sha256};

/// Slots in the map: logs that can be watched at the same time, of all processes of one command.
pub const SLOTS: u32 = 256;
/// Slots that can hold a file: that many in a row, from the one that [`first_slot`] names.
pub const PROBES: u32 = 8;
/// 64-bit words in an entry of the map: two cache lines.
pub const WORDS: usize = 16;
/// Bytes of the map.
pub const MAP_BYTES: usize = (SLOTS as usize + 1) * WORDS * 8;
/// First word of the header, entry 0 of the map: `duracnot`, little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"duracnot");
/// Second word of the header: version of the map and of the programs.
pub const VERSION: u64 = 1;
/// The inode of the first process namespace (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h`), as
/// `/proc/self/ns/pid` links to it. The programs see the numbers that processes have there.
pub const FIRST_NAMESPACE: &str = "pid:[4026531836]";
/// Name of the map.
pub const MAP: &str = "notify";
/// Name of the map of the syncs that are out.
pub const OUT_MAP: &str = "notify_out";
/// Syncs of watched files that can be out at the same time. One more is counted as begun and never as
/// ended: nothing of its file is proved any more.
const MAX_OUT: u32 = 1024;

words! {
    /// A word of a slot.
    #[repr(usize)]
    pub enum Word, name {
        /// The process that has claimed the slot; 0 if it is free. Written by the agent.
        Owner = 0 => "owner",
        /// Device of the file, as in `s_dev` of the kernel. Written by the agent.
        Device = 1 => "device",
        /// Inode of the file; 0 while no file is watched. Written by the agent.
        Inode = 2 => "inode",
        /// Counts the claims of the slot. Written by the agent.
        Generation = 3 => "generation",
        /// Syncs of the file that have begun, of any kind and process. Like all counts it only grows, and
        /// is never set back: who claims a slot remembers where it began.
        Started = 4 => "started",
        /// Of those, how many have ended.
        Ended = 5 => "ended",
        /// Whole syncs that ended with success.
        Completed = 6 => "completed",
        /// Syncs that ended with an error other than a signal's.
        Failed = 7 => "failed",
        /// Highest ticket of a whole sync that ended with success.
        Done = 8 => "done",
        /// The same at the last moment when no sync was out.
        Proved = 9 => "proved",
        /// Error number of the last failure.
        Errno = 10 => "errno",
    }
}

impl Word {
    /// Byte offset in a slot.
    #[must_use]
    pub fn offset(self) -> i16 {
        8 * self as i16
    }
}

/// Names of the words of an entry, for the map's type.
const NAMES: [&str; WORDS] = [
    "owner",
    "device",
    "inode",
    "generation",
    "started",
    "ended",
    "completed",
    "failed",
    "done",
    "proved",
    "errno",
    "unused11",
    "unused12",
    "unused13",
    "unused14",
    "unused15",
];

/// Multiplier of the hash (2^64 divided by the golden ratio, odd).
pub const HASH: u64 = 0x9e37_79b9_7f4a_7c15;

/// Entry of the map where the search for a file begins, counted from 1. It goes on for [`PROBES`]
/// entries; after the last comes the first.
#[must_use]
pub fn first_slot(device: u64, inode: u64) -> u32 {
    let mixed = (device << 32).wrapping_add(inode).wrapping_mul(HASH);
    (mixed >> 56) as u32 % SLOTS + 1
}

/// The entries where a file can be, in the order of the search.
pub fn probes(device: u64, inode: u64) -> impl Iterator<Item = u32> {
    let first = first_slot(device, inode) - 1;
    (0..PROBES).map(move |probe| (first + probe) % SLOTS + 1)
}

/// `st_dev` of a file as the kernel has it in `s_dev`: 12 bits of major number, 20 of minor number
/// (`include/linux/kdev_t.h`).
#[must_use]
pub fn kernel_device(major: u32, minor: u32) -> u64 {
    u64::from(major) << 20 | u64::from(minor)
}

words! {
    /// Where the programs are attached, best first.
    pub enum Attach, text {
        /// `fentry` and `fexit` of `vfs_fsync_range`: every sync on every file system, with its range.
        Function => "fentry and fexit of vfs_fsync_range",
        /// The tracepoints of ext4's `ext4_sync_file`, with types: every sync on ext4.
        Ext4 => "tracepoints ext4_sync_file_enter and ext4_sync_file_exit",
        /// The tracepoints of all system calls, raw: `fsync` and `fdatasync` on every file system.
        Syscalls => "raw tracepoints sys_enter and sys_exit",
    }
}

impl Attach {
    /// The sections of its programs: those at the end of a sync first. They are attached in this
    /// order, so that no sync is seen to begin and not to end.
    #[must_use]
    pub fn sections(self) -> [&'static str; 2] {
        match self {
            Attach::Function => ["fexit/vfs_fsync_range", "fentry/vfs_fsync_range"],
            Attach::Ext4 => ["tp_btf/ext4_sync_file_exit", "tp_btf/ext4_sync_file_enter"],
            Attach::Syscalls => ["raw_tp/sys_exit", "raw_tp/sys_enter"],
        }
    }
}

/// A program for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelProgram {
    /// The ELF section: how and where it is attached, as libbpf names it.
    pub section: &'static str,
    /// The instructions.
    pub insns: Vec<Insn>,
    /// Instructions that load the address of a map (by index in [`MAPS`]).
    pub relocs: Vec<Reloc>,
    /// Instructions with the offset of a field of a kernel structure (CO-RE relocations).
    pub fields: Vec<FieldReloc>,
}

impl KernelProgram {
    /// Name of its function.
    #[must_use]
    pub fn function(&self) -> String {
        format!("notify_{}", crate::btf::identifier(self.section))
    }
}

/// An instruction whose offset or immediate is that of a field in the running kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldReloc {
    /// The instruction's slot.
    pub slot: u32,
    /// The field.
    pub field: Field,
}

/// A map of the kernel's programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelMap {
    /// Its name.
    pub name: &'static str,
    /// `BPF_MAP_TYPE_*` (`include/uapi/linux/bpf.h`).
    pub kind: u32,
    /// Members of the key, 8 bytes each; none for a `u32`.
    pub key: &'static [&'static str],
    /// Members of the value, 8 bytes each.
    pub fields: &'static [&'static str],
    /// Number of entries.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
}

impl KernelMap {
    /// Size of a key, bytes.
    #[must_use]
    pub fn key_size(&self) -> u32 {
        if self.key.is_empty() { 4 } else { 8 * self.key.len() as u32 }
    }

    /// Size of a value, bytes.
    #[must_use]
    pub fn value_size(&self) -> u32 {
        8 * self.fields.len() as u32
    }
}

/// `BPF_MAP_TYPE_HASH` (`include/uapi/linux/bpf.h`).
pub const MAP_TYPE_HASH: u32 = 1;

/// The maps: the slots, and the syncs that are out, by thread and file.
pub const MAPS: [KernelMap; 2] = [
    KernelMap {
        name: MAP,
        kind: crate::btf::MAP_TYPE_ARRAY,
        key: &[],
        fields: &NAMES,
        max_entries: SLOTS + 1,
        flags: crate::btf::MAP_MMAPABLE,
    },
    KernelMap {
        name: OUT_MAP,
        kind: MAP_TYPE_HASH,
        key: &["thread", "file"],
        fields: &["slot", "generation", "ticket"],
        max_entries: MAX_OUT,
        flags: 0,
    },
];

/// What the kernel's programs of an object count. An object has all programs of one counter, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// The syncs of each open log, in [`MAPS`].
    Files,
    /// The syncs of one process, in [`count::MAPS`].
    Process,
}

impl Counter {
    /// Every counter.
    pub const ALL: [Counter; 2] = [Counter::Files, Counter::Process];

    /// The maps of its programs.
    #[must_use]
    pub fn maps(self) -> &'static [KernelMap] {
        match self {
            Counter::Files => &MAPS,
            Counter::Process => &count::MAPS,
        }
    }

    /// Whether the policy's own programs can load the addresses of those maps.
    #[must_use]
    pub fn is_shared_with_the_policy(self) -> bool {
        self == Counter::Process
    }

    /// [`digest`] of its programs. `durac-bpf` makes the programs, and its tests say when these have to
    /// change.
    fn digest(self) -> &'static str {
        match self {
            Counter::Files => "09d9b97fa87fe2ddc4d09144060dda3752552688ef39e696ab6674c6cae70afa",
            Counter::Process => "344a29e4522f52f8d6c6792d07bcf46aa02646a2a56d9380f23101930b3d4078",
        }
    }

    /// Whether these are its programs, as this version makes them.
    #[must_use]
    pub fn is_of(self, programs: &[KernelProgram]) -> bool {
        self.digest() == digest(programs)
    }
}

/// SHA-256 of everything that decides what the programs do, and where; hexadecimal.
#[must_use]
pub fn digest(programs: &[KernelProgram]) -> String {
    let mut hash = Sha256::new();
    // Each part is preceded by its length, so that no two lists give the same text.
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for program in programs {
        part(program.section.as_bytes());
        part(&program.insns.iter().flat_map(|i| i.to_bytes()).collect::<Vec<_>>());
        for reloc in &program.relocs {
            part(&[reloc.slot.to_le_bytes(), reloc.map.to_le_bytes()].concat());
        }
        for field in &program.fields {
            part(&field.slot.to_le_bytes());
            part(format!("{:?}", field.field).as_bytes());
        }
    }
    format!("{:x}", hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_stay_inside_and_differ() {
        for inode in 0..2000 {
            let found: Vec<u32> = probes(kernel_device(254, 0), inode).collect();
            assert_eq!(found.len(), PROBES as usize);
            assert!(found.iter().all(|entry| (1..=SLOTS).contains(entry)), "{found:?}");
            assert_eq!(found.first(), Some(&first_slot(kernel_device(254, 0), inode)));
        }
    }

    #[test]
    fn files_are_spread() {
        let mut used = std::collections::BTreeSet::new();
        for inode in 0..100 {
            used.insert(first_slot(kernel_device(8, 1), 1_000_000 + inode));
        }
        assert!(used.len() > 70, "{}", used.len());
    }

    #[test]
    fn words_are_named() {
        for word in Word::ALL {
            assert_eq!(NAMES.get(word as usize), Some(&word.name()));
        }
    }
}
