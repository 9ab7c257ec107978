//! What the kernel's programs are put together from: a sync begins, a sync ends, which file it is of.
//!
//! Registers: r6 the file's inode, r7 its device, r9 its slot; r8 for what has to survive a call.

use crate::asm::{Asm, AsmError, Label};
use Reg::{R0, R1, R2, R3, R4, R6, R7, R8, R9, R10};
use durac_abi::KernelHelper;
use durac_abi::insn::{Alu, Cond, Insn, Reg, Size};
use durac_abi::notify::{Field, FieldReloc, HASH, KernelProgram, PROBES, SLOTS, Word};

// Places on the stack.
/// Key of the sync that is out: thread, file.
const KEY: i16 = -16;
const KEY_FILE: i16 = KEY + 8;
/// Value of the sync that is out: slot, generation, ticket.
const VALUE: i16 = -40;
const VALUE_GENERATION: i16 = VALUE + 8;
const VALUE_TICKET: i16 = VALUE + 16;
/// Key of an entry of the map.
const INDEX: i16 = -48;
/// What was read from the kernel's memory.
pub(super) const READ: i16 = -56;
/// Result of the sync.
pub(super) const RESULT: i16 = -64;
/// 1 if the sync covers the whole file.
pub(super) const WHOLE: i16 = -72;
/// Index of the maps in [`super::MAPS`].
const MAP: u32 = 0;
const OUT: u32 = 1;
/// `EINTR`: neither a success nor a failure.
const EINTR: i32 = 4;
/// `ERESTARTSYS` (`include/linux/errno.h`), the first of the numbers for calls that will be restarted.
const ERESTARTSYS: i32 = 512;
/// Tries to raise a number that other processors raise too. It stays too low if all fail.
const TRIES: usize = 4;

/// Emits the code of one program.
pub(super) type Body = fn(&mut Emit);

/// A program under construction.
pub(super) struct Emit {
    pub(super) asm: Asm,
    fields: Vec<FieldReloc>,
    /// Where the program ends.
    pub(super) out: Label,
}

impl Emit {
    pub(super) fn program(section: &'static str, body: Body) -> Result<KernelProgram, AsmError> {
        let mut asm = Asm::new();
        let out = asm.label();
        let mut emit = Emit { asm, fields: Vec::new(), out };
        body(&mut emit);
        emit.asm.bind(out);
        emit.asm.push(Insn::mov_imm(R0, 0));
        emit.asm.push(Insn::exit());
        let (insns, relocs) = emit.asm.resolve()?;
        Ok(KernelProgram { section, insns, relocs, fields: emit.fields })
    }

    // ---- parts of the code ----

    /// The sync whose file is r6, r7 begins.
    pub(super) fn begins(&mut self) {
        let (same, part) = (self.asm.label(), self.asm.label());
        self.find(self.out);
        self.call(KernelHelper::GetCurrentPidTgid);
        self.asm.push(Insn::alu_imm(Alu::Rsh, R0, 32));
        self.asm.push(Insn::ldx(Size::Dw, R8, R10, WHOLE));
        self.load(R1, Word::Owner);
        self.asm.jump_if(Cond::Eq, R1, R0, same);
        self.asm.push(Insn::mov_imm(R8, 0));
        self.asm.bind(same);
        self.asm.push(Insn::mov_imm(R1, 1));
        self.fetch_add(R1, Word::Started);
        self.asm.jump_if_imm(Cond::Eq, R8, 0, part);
        self.asm.push(Insn::mov(R8, R1));
        self.asm.push(Insn::alu_imm(Alu::Add, R8, 1));
        self.asm.bind(part);
        self.asm.push(Insn::stx(Size::Dw, R10, VALUE_TICKET, R8));
        self.load(R1, Word::Generation);
        self.asm.push(Insn::stx(Size::Dw, R10, VALUE_GENERATION, R1));
        self.asm.push(Insn::ldx(Size::W, R1, R10, INDEX));
        self.asm.push(Insn::stx(Size::Dw, R10, VALUE, R1));
        self.asm.load_map(R1, OUT);
        self.stack(R2, KEY);
        self.stack(R3, VALUE);
        self.asm.push(Insn::mov_imm(R4, 0));
        self.call(KernelHelper::MapUpdate);
    }

    /// The sync whose file is r6, r7 has ended.
    pub(super) fn ends(&mut self) {
        let (rest, ended, proved) = (self.asm.label(), self.asm.label(), self.asm.label());
        self.asm.push(Insn::ldx(Size::Dw, R8, R10, RESULT));
        self.asm.jump_if_imm(Cond::Sge, R8, 0, rest);
        self.asm.jump_if_imm(Cond::Eq, R8, -EINTR, rest);
        self.asm.jump_if_imm(Cond::Sle, R8, -ERESTARTSYS, rest);
        self.find(rest);
        self.asm.push(Insn::ldx(Size::Dw, R8, R10, RESULT));
        self.asm.push(Insn::neg(R8));
        self.asm.push(Insn::stx(Size::Dw, R9, Word::Errno.offset(), R8));
        self.add_one(Word::Failed);

        self.asm.bind(rest);
        self.lookup(OUT, KEY, self.out);
        self.asm.push(Insn::ldx(Size::Dw, R1, R0, 0));
        self.asm.push(Insn::stx(Size::W, R10, INDEX, R1));
        self.asm.push(Insn::ldx(Size::Dw, R7, R0, VALUE_GENERATION - VALUE));
        self.asm.push(Insn::ldx(Size::Dw, R8, R0, VALUE_TICKET - VALUE));
        self.asm.load_map(R1, OUT);
        self.stack(R2, KEY);
        self.call(KernelHelper::MapDelete);
        self.lookup(MAP, INDEX, self.out);
        self.asm.push(Insn::mov(R9, R0));

        self.load(R1, Word::Generation);
        self.asm.jump_if(Cond::Ne, R1, R7, ended);
        self.asm.jump_if_imm(Cond::Eq, R8, 0, ended);
        self.asm.push(Insn::ldx(Size::Dw, R1, R10, RESULT));
        self.asm.jump_if_imm(Cond::Ne, R1, 0, ended);
        self.add_one(Word::Completed);
        self.raise(Word::Done);

        // Is it a moment when none is out? Then as many have begun as had ended. The highest ticket is
        // read before what has begun: a later sync that it could be of would be counted there.
        self.asm.bind(ended);
        self.asm.push(Insn::mov_imm(R7, 1));
        self.fetch_add(R7, Word::Ended);
        self.asm.push(Insn::alu_imm(Alu::Add, R7, 1));
        self.asm.push(Insn::mov_imm(R8, 0));
        self.fetch_add(R8, Word::Done);
        self.asm.push(Insn::mov_imm(R1, 0));
        self.fetch_add(R1, Word::Started);
        self.asm.jump_if(Cond::Ne, R1, R7, proved);
        self.raise(Word::Proved);
        self.asm.bind(proved);
    }

    /// r9 = slot of the file r6, r7; its index stays on the stack. Uses r8.
    fn find(&mut self, none: Label) {
        let (top, next, found) = (self.asm.label(), self.asm.label(), self.asm.label());
        self.asm.push(Insn::mov_imm(R8, 0));
        self.asm.bind(top);
        self.mix(R1);
        self.asm.load_imm(R2, HASH);
        self.asm.push(Insn::alu(Alu::Mul, R1, R2));
        self.asm.push(Insn::alu_imm(Alu::Rsh, R1, 56));
        self.asm.push(Insn::alu(Alu::Add, R1, R8));
        self.asm.push(Insn::alu_imm(Alu::And, R1, SLOTS as i32 - 1));
        self.asm.push(Insn::alu_imm(Alu::Add, R1, 1));
        self.asm.push(Insn::stx(Size::W, R10, INDEX, R1));
        self.lookup(MAP, INDEX, next);
        self.asm.push(Insn::mov(R9, R0));
        self.load(R1, Word::Inode);
        self.asm.jump_if(Cond::Ne, R1, R6, next);
        self.load(R1, Word::Device);
        self.asm.jump_if(Cond::Eq, R1, R7, found);
        self.asm.bind(next);
        self.asm.push(Insn::alu_imm(Alu::Add, R8, 1));
        self.asm.jump_if_imm(Cond::Lt, R8, PROBES as i32, top);
        self.asm.jump(none);
        self.asm.bind(found);
    }

    /// r6, r7 = inode and device of the inode in r9, a pointer with a type.
    pub(super) fn inode(&mut self) {
        self.field(Size::Dw, R6, R9, Field::InodeNumber);
        self.field(Size::Dw, R9, R9, Field::InodeSuper);
        self.field(Size::W, R7, R9, Field::SuperDevice);
    }

    /// r6, r7 = inode and device of the file that is the first argument of the system call with the
    /// registers r9. Pointers have no types here, so every step is a checked copy.
    pub(super) fn file_of_syscall(&mut self, none: Label) {
        self.asm.push(Insn::mov(R3, R9));
        self.read_field(Size::W, Field::RegsFirst, none);
        self.asm.push(Insn::ldx(Size::W, R8, R10, READ));
        self.call(KernelHelper::GetCurrentTask);
        self.asm.push(Insn::mov(R3, R0));
        self.read_field(Size::Dw, Field::TaskFiles, none);
        self.asm.push(Insn::ldx(Size::Dw, R3, R10, READ));
        self.read_field(Size::Dw, Field::FilesTable, none);
        self.asm.push(Insn::ldx(Size::Dw, R9, R10, READ));
        self.asm.push(Insn::mov(R3, R9));
        self.read_field(Size::W, Field::TableSize, none);
        self.asm.push(Insn::ldx(Size::W, R1, R10, READ));
        self.asm.jump_if(Cond::Ge, R8, R1, none);
        self.asm.push(Insn::mov(R3, R9));
        self.read_field(Size::Dw, Field::TableFiles, none);
        self.asm.push(Insn::ldx(Size::Dw, R3, R10, READ));
        self.asm.push(Insn::alu_imm(Alu::Lsh, R8, 3));
        self.asm.push(Insn::alu(Alu::Add, R3, R8));
        self.read(Size::Dw, none);
        self.asm.push(Insn::ldx(Size::Dw, R3, R10, READ));
        self.read_field(Size::Dw, Field::FileInode, none);
        self.asm.push(Insn::ldx(Size::Dw, R9, R10, READ));
        self.asm.push(Insn::mov(R3, R9));
        self.read_field(Size::Dw, Field::InodeNumber, none);
        self.asm.push(Insn::ldx(Size::Dw, R6, R10, READ));
        self.asm.push(Insn::mov(R3, R9));
        self.read_field(Size::Dw, Field::InodeSuper, none);
        self.asm.push(Insn::ldx(Size::Dw, R3, R10, READ));
        self.read_field(Size::W, Field::SuperDevice, none);
        self.asm.push(Insn::ldx(Size::W, R7, R10, READ));
    }

    /// The key of the sync that is out: a sync on one file system can lead to one on another below.
    pub(super) fn key(&mut self) {
        self.call(KernelHelper::GetCurrentPidTgid);
        self.asm.push(Insn::stx(Size::Dw, R10, KEY, R0));
        self.mix(R1);
        self.asm.push(Insn::stx(Size::Dw, R10, KEY_FILE, R1));
    }

    /// The same for a system call: a thread makes one at a time.
    pub(super) fn key_of_syscall(&mut self) {
        self.call(KernelHelper::GetCurrentPidTgid);
        self.asm.push(Insn::stx(Size::Dw, R10, KEY, R0));
        self.asm.push(Insn::st(Size::Dw, R10, KEY_FILE, 0));
    }

    /// `to` = the file r6, r7 as one number.
    fn mix(&mut self, to: Reg) {
        self.asm.push(Insn::mov(to, R7));
        self.asm.push(Insn::alu_imm(Alu::Lsh, to, 32));
        self.asm.push(Insn::alu(Alu::Add, to, R6));
    }

    /// Keeps the result of the sync: an `int` at that offset of the context.
    pub(super) fn result(&mut self, offset: i16) {
        self.asm.push(Insn::ldx(Size::Dw, R2, R1, offset));
        self.asm.push(Insn::alu_imm(Alu::Lsh, R2, 32));
        self.asm.push(Insn::alu_imm(Alu::Arsh, R2, 32));
        self.asm.push(Insn::stx(Size::Dw, R10, RESULT, R2));
    }

    // ---- instructions ----

    pub(super) fn call(&mut self, helper: KernelHelper) {
        self.asm.push(Insn::call_kernel(helper));
    }

    /// `to` = address of a place on the stack
    fn stack(&mut self, to: Reg, place: i16) {
        self.asm.push(Insn::mov(to, R10));
        self.asm.push(Insn::alu_imm(Alu::Add, to, place.into()));
    }

    /// r0 = the value of the key on the stack
    pub(super) fn lookup(&mut self, map: u32, key: i16, none: Label) {
        self.asm.load_map(R1, map);
        self.stack(R2, key);
        self.call(KernelHelper::MapLookup);
        self.asm.jump_if_imm(Cond::Eq, R0, 0, none);
    }

    /// `to` = a word of the slot
    fn load(&mut self, to: Reg, word: Word) {
        self.asm.push(Insn::ldx(Size::Dw, to, R9, word.offset()));
    }

    fn add_one(&mut self, word: Word) {
        self.asm.push(Insn::mov_imm(R1, 1));
        self.asm.push(Insn::atomic_add(R9, word.offset(), R1));
    }

    /// Adds `value` to a word; `value` = what it was before. A full barrier.
    fn fetch_add(&mut self, value: Reg, word: Word) {
        self.asm.push(Insn::fetch_add(R9, word.offset(), value));
    }

    /// A word becomes r8 if it is lower.
    fn raise(&mut self, word: Word) {
        let done = self.asm.label();
        for _ in 0..TRIES {
            self.load(R0, word);
            self.asm.jump_if(Cond::Ge, R0, R8, done);
            self.asm.push(Insn::mov(R1, R0));
            self.asm.push(Insn::compare_exchange(R9, word.offset(), R8));
            self.asm.jump_if(Cond::Eq, R0, R1, done);
        }
        self.asm.bind(done);
    }

    /// `to = from->field`
    pub(super) fn field(&mut self, size: Size, to: Reg, from: Reg, field: Field) {
        self.fields.push(FieldReloc { slot: self.asm.slot(), field });
        self.asm.push(Insn::ldx(size, to, from, field.local_offset()));
    }

    /// Copies a field of the structure at r3 to the stack.
    pub(super) fn read_field(&mut self, size: Size, field: Field, none: Label) {
        self.fields.push(FieldReloc { slot: self.asm.slot(), field });
        self.asm.push(Insn::alu_imm(Alu::Add, R3, field.local_offset().into()));
        self.read(size, none);
    }

    /// Copies what is at r3 to the stack.
    fn read(&mut self, size: Size, none: Label) {
        self.stack(R1, READ);
        self.asm.push(Insn::mov_imm(R2, size.bytes().into()));
        self.call(KernelHelper::ProbeReadKernel);
        self.asm.jump_if_imm(Cond::Ne, R0, 0, none);
    }
}
