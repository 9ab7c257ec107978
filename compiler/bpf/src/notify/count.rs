//! The kernel's part of `use kernel notify` under BPFtime: one count for one process.
//!
//! BPFtime's helpers start a sync through io_uring and throw its result away. The kernel executes it in a
//! worker thread of the process; so a whole sync that a worker of io_uring has made, in the process whose
//! number stands in the map, and that returned 0, is one of its own, if it does not use io_uring besides.
//! Which file it was of need not be known.
//!
//! The program runs before the completion is made visible: who has reaped so many completions, and finds
//! as many counted, knows that all of them were a success.
//!
//! The map is a hash, which BPFtime reads by a system call. It keeps the address at which it has mapped an
//! array in memory that all processes of a session share: in another process than the first, that address
//! is anything. There, its descriptor of the hash is none of a map, and the lookup gives nothing.

use super::emit::{Body, Emit};
use super::fields::Field;
use super::{Attach, KernelMap, KernelProgram};
use crate::abi::KernelHelper;
use crate::asm::AsmError;
use crate::insn::{Alu, Cond, Insn, Reg, Size};
use Reg::{R0, R1, R2, R3, R7, R10};

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

/// Places the programs can be attached to, best first. Calls of the system are no such place: a worker
/// makes none.
pub const PLACES: [Attach; 2] = [Attach::Function, Attach::Ext4];

/// `PF_IO_WORKER` (`include/linux/sched.h`).
const IO_WORKER: i32 = 0x10;
/// Where the key stands on the stack.
const KEY: i16 = -4;

/// The section of the program for a place.
#[must_use]
pub fn section(place: Attach) -> &'static str {
    let [ends, _] = place.sections();
    ends
}

/// The programs, one for each of [`PLACES`].
///
/// # Errors
/// Those of the assembler; it has none for these.
pub fn programs() -> Result<Vec<KernelProgram>, AsmError> {
    let bodies: [Body; 2] = [function_ends, ext4_ends];
    PLACES
        .into_iter()
        .zip(bodies)
        .map(|(place, body)| Emit::program(section(place), body))
        .collect()
}

/// `vfs_fsync_range(file, start, end, datasync)`, and what it returned.
fn function_ends(emit: &mut Emit) {
    emit.asm.push(Insn::ldx(Size::Dw, R2, R1, 8));
    emit.asm.jump_if_imm(Cond::Ne, R2, 0, emit.out);
    emit.asm.push(Insn::ldx(Size::Dw, R2, R1, 16));
    emit.asm.load_imm(R3, i64::MAX as u64);
    emit.asm.jump_if(Cond::Ne, R2, R3, emit.out);
    succeeded(emit, 32);
    counts(emit);
}

/// `ext4_sync_file_exit(inode, ret)`: after the journal's commit and the flush of the device.
fn ext4_ends(emit: &mut Emit) {
    succeeded(emit, 8);
    counts(emit);
}

/// Ends unless the result, an `int` at that offset of the context, is 0.
fn succeeded(emit: &mut Emit, offset: i16) {
    emit.asm.push(Insn::ldx(Size::Dw, R2, R1, offset));
    emit.asm.push(Insn::alu_imm(Alu::Lsh, R2, 32));
    emit.asm.jump_if_imm(Cond::Ne, R2, 0, emit.out);
}

/// Counts, if this thread is a worker of io_uring, of the process in the map.
fn counts(emit: &mut Emit) {
    emit.call(KernelHelper::GetCurrentTaskBtf);
    emit.field(Size::W, R2, R0, Field::TaskFlags);
    emit.asm.push(Insn::alu_imm(Alu::And, R2, IO_WORKER));
    emit.asm.jump_if_imm(Cond::Eq, R2, 0, emit.out);
    emit.call(KernelHelper::GetCurrentPidTgid);
    emit.asm.push(Insn::mov(R7, R0));
    emit.asm.push(Insn::alu_imm(Alu::Rsh, R7, 32));
    emit.asm.push(Insn::mov_imm(R1, 0));
    emit.asm.push(Insn::stx(Size::W, R10, KEY, R1));
    emit.lookup(0, KEY, emit.out);
    emit.asm.push(Insn::ldx(Size::Dw, R1, R0, PROCESS));
    emit.asm.jump_if(Cond::Ne, R1, R7, emit.out);
    emit.asm.push(Insn::mov_imm(R1, 1));
    emit.asm.push(Insn::atomic_add(R0, COMPLETED, R1));
}
