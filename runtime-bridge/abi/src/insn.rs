//! BPF instructions: encoding, decoding, text.
//!
//! The names follow `Documentation/bpf/standardization/instruction-set.rst` of the kernel
//! (RFC 9669). The constructors make instructions of `-mcpu=v3` and older; the atomic ones
//! are for the kernel's programs only. `Display` prints the form of `llvm-objdump -d` with hexadecimal numbers.
//!
//! It does not judge: what a runtime accepts is decided by `durac-verify`.

mod operand;

use crate::{Helper, KernelHelper};
pub use operand::{Alu, Cond, Reg, Size, op};

/// One 8-byte slot. A `lddw` takes two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// Operation code.
    pub opcode: u8,
    /// Destination register, 0–10.
    pub dst: u8,
    /// Source register, 0–10, or a kind (pseudo calls and loads).
    pub src: u8,
    /// Offset of a jump in slots, or of a memory access in bytes.
    pub offset: i16,
    /// Immediate.
    pub imm: i32,
}

impl Insn {
    const fn new(opcode: u8, dst: u8, src: u8, offset: i16, imm: i32) -> Self {
        Self { opcode, dst, src, offset, imm }
    }

    /// `dst = imm`, sign-extended to 64 bits.
    #[must_use]
    pub fn mov_imm(dst: Reg, imm: i32) -> Self {
        Self::alu_imm(Alu::Mov, dst, imm)
    }

    /// `dst = src`
    #[must_use]
    pub fn mov(dst: Reg, src: Reg) -> Self {
        Self::alu(Alu::Mov, dst, src)
    }

    /// `dst = imm` in the low half; the high half becomes 0.
    #[must_use]
    pub fn mov32_imm(dst: Reg, imm: i32) -> Self {
        Self::alu32_imm(Alu::Mov, dst, imm)
    }

    /// 64-bit arithmetic with an immediate, sign-extended.
    #[must_use]
    pub fn alu_imm(alu: Alu, dst: Reg, imm: i32) -> Self {
        Self::new(op::ALU64 | op::K | alu as u8, dst.number(), 0, 0, imm)
    }

    /// 64-bit arithmetic with a register.
    #[must_use]
    pub fn alu(alu: Alu, dst: Reg, src: Reg) -> Self {
        Self::new(op::ALU64 | op::X | alu as u8, dst.number(), src.number(), 0, 0)
    }

    /// 32-bit arithmetic with an immediate; the high half becomes 0.
    #[must_use]
    pub fn alu32_imm(alu: Alu, dst: Reg, imm: i32) -> Self {
        Self::new(op::ALU | op::K | alu as u8, dst.number(), 0, 0, imm)
    }

    /// 32-bit arithmetic with a register; the high half becomes 0.
    ///
    /// Not with [`Alu::Mov`], [`Alu::Div`] or [`Alu::Mod`] for the agent: see `durac-verify`.
    #[must_use]
    pub fn alu32(alu: Alu, dst: Reg, src: Reg) -> Self {
        Self::new(op::ALU | op::X | alu as u8, dst.number(), src.number(), 0, 0)
    }

    /// `dst = -dst`
    #[must_use]
    pub fn neg(dst: Reg) -> Self {
        Self::alu_imm(Alu::Neg, dst, 0)
    }

    /// `dst = *(size *)(src + offset)`
    #[must_use]
    pub fn ldx(size: Size, dst: Reg, src: Reg, offset: i16) -> Self {
        let opcode = op::LDX | op::MEM | size as u8;
        Self::new(opcode, dst.number(), src.number(), offset, 0)
    }

    /// `*(size *)(dst + offset) = src`
    #[must_use]
    pub fn stx(size: Size, dst: Reg, offset: i16, src: Reg) -> Self {
        let opcode = op::STX | op::MEM | size as u8;
        Self::new(opcode, dst.number(), src.number(), offset, 0)
    }

    /// `*(size *)(dst + offset) = imm`. LLVM before 17 knows no such instruction and its tools
    /// print `<unknown>`; every runtime knows it.
    #[must_use]
    pub fn st(size: Size, dst: Reg, offset: i16, imm: i32) -> Self {
        let opcode = op::ST | op::MEM | size as u8;
        Self::new(opcode, dst.number(), 0, offset, imm)
    }

    /// `lock *(u64 *)(dst + offset) += src`
    #[must_use]
    pub fn atomic_add(dst: Reg, offset: i16, src: Reg) -> Self {
        Self::atomic(dst, offset, src, op::ATOMIC_ADD)
    }

    /// `src = *(u64 *)(dst + offset)` from before `*(u64 *)(dst + offset) += src`, at once.
    #[must_use]
    pub fn fetch_add(dst: Reg, offset: i16, src: Reg) -> Self {
        Self::atomic(dst, offset, src, op::ATOMIC_ADD | op::FETCH)
    }

    /// `*(u64 *)(dst + offset) = src` if it was r0; r0 = what it was, at once.
    #[must_use]
    pub fn compare_exchange(dst: Reg, offset: i16, src: Reg) -> Self {
        Self::atomic(dst, offset, src, op::COMPARE_EXCHANGE)
    }

    const fn atomic(dst: Reg, offset: i16, src: Reg, what: i32) -> Self {
        let opcode = op::STX | op::ATOMIC | op::DW;
        Self::new(opcode, dst as u8, src as u8, offset, what)
    }

    /// `dst = value`, 64 bits.
    #[must_use]
    pub fn lddw(dst: Reg, value: u64) -> [Self; 2] {
        [
            Self::new(op::LDDW, dst.number(), 0, 0, value as u32 as i32),
            Self::new(0, 0, 0, 0, (value >> 32) as u32 as i32),
        ]
    }

    /// `goto +offset`, counted in slots from the next one.
    #[must_use]
    pub fn ja(offset: i16) -> Self {
        Self::new(op::JMP | op::JA, 0, 0, offset, 0)
    }

    /// `if dst cond imm goto +offset`, 64 bits, the immediate sign-extended.
    #[must_use]
    pub fn jump_imm(cond: Cond, dst: Reg, imm: i32, offset: i16) -> Self {
        Self::new(op::JMP | op::K | cond as u8, dst.number(), 0, offset, imm)
    }

    /// `if dst cond src goto +offset`, 64 bits.
    #[must_use]
    pub fn jump(cond: Cond, dst: Reg, src: Reg, offset: i16) -> Self {
        let opcode = op::JMP | op::X | cond as u8;
        Self::new(opcode, dst.number(), src.number(), offset, 0)
    }

    /// `if dst cond src goto +offset` of the low halves.
    #[must_use]
    pub fn jump32(cond: Cond, dst: Reg, src: Reg, offset: i16) -> Self {
        let opcode = op::JMP32 | op::X | cond as u8;
        Self::new(opcode, dst.number(), src.number(), offset, 0)
    }

    /// Calls a helper.
    #[must_use]
    pub fn call(helper: Helper) -> Self {
        Self::new(op::JMP | op::CALL, 0, 0, 0, helper.number())
    }

    /// Calls a helper of the kernel.
    #[must_use]
    pub fn call_kernel(helper: KernelHelper) -> Self {
        Self::new(op::JMP | op::CALL, 0, 0, 0, helper.number())
    }

    /// Returns r0.
    #[must_use]
    pub fn exit() -> Self {
        Self::new(op::JMP | op::EXIT, 0, 0, 0, 0)
    }

    /// The class: one of [`op::LD`] to [`op::ALU64`].
    #[must_use]
    pub fn class(self) -> u8 {
        self.opcode & op::CLASS_MASK
    }

    /// Whether it is the first slot of a `lddw`.
    #[must_use]
    pub fn is_lddw(self) -> bool {
        self.opcode == op::LDDW
    }

    /// Whether it jumps, always or on a condition: its offset counts.
    #[must_use]
    pub fn is_jump(self) -> bool {
        self.opcode == op::JMP | op::JA
            || matches!(self.class(), op::JMP | op::JMP32) && Cond::of_opcode(self.opcode).is_some()
    }

    /// The slot a jump in slot `slot` goes to; none before the start.
    #[must_use]
    pub fn target(self, slot: u32) -> Option<u32> {
        (i64::from(slot) + 1 + i64::from(self.offset)).try_into().ok()
    }

    /// The slot's bytes in the section.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        let [opcode, registers, rest @ ..] = &mut bytes;
        *opcode = self.opcode;
        *registers = self.src << 4 | self.dst & 0xf;
        let (offset, imm) = rest.split_at_mut(2);
        offset.copy_from_slice(&self.offset.to_le_bytes());
        imm.copy_from_slice(&self.imm.to_le_bytes());
        bytes
    }

    /// The instruction in a slot.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        let [opcode, registers, o0, o1, i0, i1, i2, i3] = bytes;
        Self {
            opcode,
            dst: registers & 0xf,
            src: registers >> 4,
            offset: i16::from_le_bytes([o0, o1]),
            imm: i32::from_le_bytes([i0, i1, i2, i3]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip() {
        for opcode in 0..=255 {
            let insn = Insn::new(opcode, 3, 10, -2, i32::MIN + 5);
            assert_eq!(Insn::from_bytes(insn.to_bytes()), insn);
        }
    }

    #[test]
    fn encodings_are_those_of_llvm() {
        // From `llvm-objdump -d` of Debian 12 on clang's output.
        let cases: [(Insn, [u8; 8]); 6] = [
            (Insn::mov_imm(Reg::R0, 1), [0xb7, 0, 0, 0, 1, 0, 0, 0]),
            (Insn::mov(Reg::R6, Reg::R1), [0xbf, 0x16, 0, 0, 0, 0, 0, 0]),
            (Insn::ldx(Size::Dw, Reg::R1, Reg::R6, 24), [0x79, 0x61, 24, 0, 0, 0, 0, 0]),
            (Insn::stx(Size::W, Reg::R10, -4, Reg::R2), [0x63, 0x2a, 0xfc, 0xff, 0, 0, 0, 0]),
            (Insn::jump_imm(Cond::Eq, Reg::R0, 0, 5), [0x15, 0, 5, 0, 0, 0, 0, 0]),
            (Insn::call(Helper::Await), [0x85, 0, 0, 0, 0x01, 0x0d, 0, 0]),
        ];
        for (insn, bytes) in cases {
            assert_eq!(insn.to_bytes(), bytes, "{insn:?}");
        }
    }

    #[test]
    fn jumps_know_their_target() {
        assert!(Insn::ja(3).is_jump());
        assert_eq!(Insn::ja(3).target(2), Some(6));
        assert_eq!(Insn::ja(-4).target(2), None);
        assert!(Insn::jump32(Cond::Sle, Reg::R1, Reg::R2, 0).is_jump());
        assert!(!Insn::exit().is_jump());
        assert!(!Insn::call(Helper::Await).is_jump());
    }

    #[test]
    fn negation_and_exchange_are_involutions() {
        for cond in Cond::ALL {
            assert_eq!(cond.swap().swap(), cond);
            if let Some(other) = cond.negate() {
                assert_eq!(other.negate(), Some(cond));
            }
        }
    }
}
