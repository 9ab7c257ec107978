//! The code of the programs, for each place they can be attached to. What they count is described in
//! [`super`], what they share is in [`super::emit`].

use super::emit::{Body, Emit, READ, RESULT, WHOLE};
use crate::asm::AsmError;
use Reg::{R0, R1, R2, R3, R6, R7, R8, R9, R10};
use durac_abi::KernelHelper;
use durac_abi::insn::{Cond, Insn, Reg, Size};
use durac_abi::notify::{Attach, Field, KernelProgram};

/// `__NR_fsync` and `__NR_fdatasync` of x86-64 (`arch/x86/entry/syscalls/syscall_64.tbl`).
const SYSCALLS: [i32; 2] = [74, 75];
/// `PF_IO_WORKER` (`include/linux/sched.h`): a thread of io_uring. It makes no system call, so nothing
/// says whether its sync covers the whole file.
const IO_WORKER: i32 = 0x10;

/// Every program, in the order of [`Attach::ALL`] and [`Attach::sections`].
///
/// # Errors
/// Those of the assembler; it has none for these.
pub fn programs() -> Result<Vec<KernelProgram>, AsmError> {
    let mut all = Vec::new();
    for attach in Attach::ALL {
        let bodies: [Body; 2] = match attach {
            Attach::Function => [function_ends, function_begins],
            Attach::Ext4 => [ext4_ends, ext4_begins],
            Attach::Syscalls => [syscall_ends, syscall_begins],
        };
        for (section, body) in attach.sections().into_iter().zip(bodies) {
            all.push(Emit::program(section, body)?);
        }
    }
    Ok(all)
}

// ---- fentry, fexit ----

/// `vfs_fsync_range(file, start, end, datasync)`
fn function_begins(emit: &mut Emit) {
    emit.asm.push(Insn::st(Size::Dw, R10, WHOLE, 0));
    let part = emit.asm.label();
    emit.asm.push(Insn::ldx(Size::Dw, R2, R1, 8));
    emit.asm.jump_if_imm(Cond::Ne, R2, 0, part);
    emit.asm.push(Insn::ldx(Size::Dw, R2, R1, 16));
    emit.asm.load_imm(R3, i64::MAX as u64);
    emit.asm.jump_if(Cond::Ne, R2, R3, part);
    emit.asm.push(Insn::st(Size::Dw, R10, WHOLE, 1));
    emit.asm.bind(part);
    emit.asm.push(Insn::ldx(Size::Dw, R9, R1, 0));
    emit.field(Size::Dw, R9, R9, Field::FileInode);
    emit.inode();
    emit.key();
    emit.begins();
}

/// The same, and what it returned.
fn function_ends(emit: &mut Emit) {
    emit.result(32);
    emit.asm.push(Insn::ldx(Size::Dw, R9, R1, 0));
    emit.field(Size::Dw, R9, R9, Field::FileInode);
    emit.inode();
    emit.key();
    emit.ends();
}

// ---- tp_btf ----

/// `ext4_sync_file_enter(file, datasync)`
fn ext4_begins(emit: &mut Emit) {
    emit.asm.push(Insn::ldx(Size::Dw, R9, R1, 0));
    emit.field(Size::Dw, R9, R9, Field::FileInode);
    emit.inode();
    emit.key();
    // The tracepoint says nothing of the range: `msync` and a write with `O_DSYNC` sync parts.
    let (part, whole) = (emit.asm.label(), emit.asm.label());
    emit.asm.push(Insn::st(Size::Dw, R10, WHOLE, 0));
    emit.call(KernelHelper::GetCurrentTaskBtf);
    emit.asm.push(Insn::mov(R1, R0));
    emit.field(Size::W, R2, R1, Field::TaskFlags);
    emit.asm.jump_if_imm(Cond::Set, R2, IO_WORKER, part);
    emit.call(KernelHelper::TaskPtRegs);
    emit.field(Size::Dw, R1, R0, Field::RegsSyscall);
    for number in SYSCALLS {
        emit.asm.jump_if_imm(Cond::Eq, R1, number, whole);
    }
    emit.asm.jump(part);
    emit.asm.bind(whole);
    emit.asm.push(Insn::st(Size::Dw, R10, WHOLE, 1));
    emit.asm.bind(part);
    emit.begins();
}

/// `ext4_sync_file_exit(inode, ret)`: after the journal's commit and the flush of the device.
fn ext4_ends(emit: &mut Emit) {
    emit.result(8);
    emit.asm.push(Insn::ldx(Size::Dw, R9, R1, 0));
    emit.inode();
    emit.key();
    emit.ends();
}

// ---- raw_tp ----

/// `sys_enter(regs, id)`
fn syscall_begins(emit: &mut Emit) {
    let sync = emit.asm.label();
    emit.asm.push(Insn::ldx(Size::Dw, R2, R1, 8));
    for number in SYSCALLS {
        emit.asm.jump_if_imm(Cond::Eq, R2, number, sync);
    }
    emit.asm.jump(emit.out);
    emit.asm.bind(sync);
    emit.asm.push(Insn::ldx(Size::Dw, R9, R1, 0));
    emit.asm.push(Insn::st(Size::Dw, R10, WHOLE, 1));
    emit.file_of_syscall(emit.out);
    emit.key_of_syscall();
    emit.begins();
}

/// `sys_exit(regs, ret)`
fn syscall_ends(emit: &mut Emit) {
    let (sync, known) = (emit.asm.label(), emit.asm.label());
    emit.asm.push(Insn::ldx(Size::Dw, R9, R1, 0));
    emit.asm.push(Insn::ldx(Size::Dw, R8, R1, 8));
    emit.asm.push(Insn::stx(Size::Dw, R10, RESULT, R8));
    emit.asm.push(Insn::mov(R3, R9));
    emit.read_field(Size::Dw, Field::RegsSyscall, emit.out);
    emit.asm.push(Insn::ldx(Size::Dw, R1, R10, READ));
    for number in SYSCALLS {
        emit.asm.jump_if_imm(Cond::Eq, R1, number, sync);
    }
    emit.asm.jump(emit.out);
    emit.asm.bind(sync);
    emit.key_of_syscall();
    // Only a failure has to know its file: it counts in whichever process it occurs.
    emit.asm.push(Insn::mov_imm(R6, 0));
    emit.asm.push(Insn::mov_imm(R7, 0));
    emit.asm.jump_if_imm(Cond::Eq, R8, 0, known);
    emit.file_of_syscall(known);
    emit.asm.bind(known);
    emit.ends();
}
