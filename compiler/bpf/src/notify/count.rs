//! The programs that count the syncs of BPFtime's programs: the code. What they count, and where, is in
//! [`durac_abi::notify::count`].

use super::emit::{Body, Emit};
use crate::asm::AsmError;
use Reg::{R0, R1, R2, R3, R7, R10};
use durac_abi::KernelHelper;
use durac_abi::insn::{Alu, Cond, Insn, Reg, Size};
use durac_abi::notify::count::{ATTACHMENTS, COMPLETED, PROCESS, section};
use durac_abi::notify::{Field, KernelProgram};

/// `PF_IO_WORKER` (`include/linux/sched.h`).
const IO_WORKER: i32 = 0x10;
/// The key's place on the stack.
const KEY: i16 = -4;

/// The programs, one for each of [`ATTACHMENTS`].
///
/// # Errors
/// Those of the assembler; it has none for these.
pub fn programs() -> Result<Vec<KernelProgram>, AsmError> {
    let bodies: [Body; 2] = [function_ends, ext4_ends];
    ATTACHMENTS
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
