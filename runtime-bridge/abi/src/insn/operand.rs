//! What instructions are made of: parts of operation codes, registers, sizes, operations,
//! conditions. [`super`] puts them together.

use crate::words;
use std::fmt;

/// The parts of an operation code.
///
/// Source: instruction-set.rst, "Instruction classes", "Arithmetic instructions", "Jump
/// instructions", "Load and store instructions".
pub mod op {
    /// Class: loads that are not regular.
    pub const LD: u8 = 0x0;
    /// Class: load from memory into a register.
    pub const LDX: u8 = 0x1;
    /// Class: store an immediate.
    pub const ST: u8 = 0x2;
    /// Class: store a register.
    pub const STX: u8 = 0x3;
    /// Class: 32-bit arithmetic.
    pub const ALU: u8 = 0x4;
    /// Class: 64-bit comparisons, calls, exit.
    pub const JMP: u8 = 0x5;
    /// Class: 32-bit comparisons.
    pub const JMP32: u8 = 0x6;
    /// Class: 64-bit arithmetic.
    pub const ALU64: u8 = 0x7;
    /// The bits of the class.
    pub const CLASS_MASK: u8 = 0x7;

    /// The operand is the immediate.
    pub const K: u8 = 0x0;
    /// The operand is the source register.
    pub const X: u8 = 0x8;
    /// The bits of the operation in arithmetic and jumps.
    pub const CODE_MASK: u8 = 0xf0;

    /// Mode of `lddw`.
    pub const IMM: u8 = 0x00;
    /// Mode of regular loads and stores.
    pub const MEM: u8 = 0x60;
    /// Mode of atomic operations.
    pub const ATOMIC: u8 = 0xc0;
    /// The bits of the mode.
    pub const MODE_MASK: u8 = 0xe0;
    /// The bits of the size.
    pub const SIZE_MASK: u8 = 0x18;
    /// Size: 4 bytes.
    pub const W: u8 = 0x00;
    /// Size: 2 bytes.
    pub const H: u8 = 0x08;
    /// Size: 1 byte.
    pub const B: u8 = 0x10;
    /// Size: 8 bytes.
    pub const DW: u8 = 0x18;

    /// Immediate of an atomic operation: add.
    pub const ATOMIC_ADD: i32 = 0x00;
    /// Bit in the immediate of an atomic operation: the old value goes to the source register.
    pub const FETCH: i32 = 0x01;
    /// Immediate of an atomic operation: compare and exchange.
    pub const COMPARE_EXCHANGE: i32 = 0xf1;

    /// Byte swaps, in the classes [`ALU`] and [`ALU64`].
    pub const END: u8 = 0xd0;
    /// Jump always.
    pub const JA: u8 = 0x00;
    /// Call.
    pub const CALL: u8 = 0x80;
    /// Return.
    pub const EXIT: u8 = 0x90;

    /// The whole code of `lddw`, the one instruction of two slots.
    pub const LDDW: u8 = LD | IMM | DW;
}

/// A register. A call takes its arguments in r1 to r5 and leaves its result in r0; r6 to r9 survive
/// it; r10 points to the end of the stack and cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

impl Reg {
    /// Every register, by number.
    pub const ALL: [Reg; 11] = [
        Reg::R0,
        Reg::R1,
        Reg::R2,
        Reg::R3,
        Reg::R4,
        Reg::R5,
        Reg::R6,
        Reg::R7,
        Reg::R8,
        Reg::R9,
        Reg::R10,
    ];

    /// Its number, as `Insn` stores it.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The register of that number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Reg> {
        Reg::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.number())
    }
}

/// Width of a memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Size {
    /// 1 byte.
    B = op::B,
    /// 2 bytes.
    H = op::H,
    /// 4 bytes.
    W = op::W,
    /// 8 bytes.
    Dw = op::DW,
}

impl Size {
    /// The width in an operation code.
    #[must_use]
    pub fn of_opcode(opcode: u8) -> Size {
        match opcode & op::SIZE_MASK {
            op::B => Size::B,
            op::H => Size::H,
            op::W => Size::W,
            _ => Size::Dw,
        }
    }

    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u8 {
        match self {
            Size::B => 1,
            Size::H => 2,
            Size::W => 4,
            Size::Dw => 8,
        }
    }
}

words! {
    /// An arithmetic operation.
    #[repr(u8)]
    pub enum Alu, sign {
        /// `dst += src`
        Add = 0x00 => "+=",
        /// `dst -= src`
        Sub = 0x10 => "-=",
        /// `dst *= src`
        Mul = 0x20 => "*=",
        /// `dst = src == 0 ? 0 : dst / src`, unsigned
        Div = 0x30 => "/=",
        /// `dst |= src`
        Or = 0x40 => "|=",
        /// `dst &= src`
        And = 0x50 => "&=",
        /// `dst <<= src`
        Lsh = 0x60 => "<<=",
        /// `dst >>= src`, unsigned
        Rsh = 0x70 => ">>=",
        /// `dst = -dst`
        Neg = 0x80 => "= -",
        /// `dst = src == 0 ? dst : dst % src`, unsigned
        Mod = 0x90 => "%=",
        /// `dst ^= src`
        Xor = 0xa0 => "^=",
        /// `dst = src`
        Mov = 0xb0 => "=",
        /// `dst >>= src`, signed
        Arsh = 0xc0 => "s>>=",
    }
}

impl Alu {
    /// The operation in the code of an instruction of class [`op::ALU`] or [`op::ALU64`]; none for
    /// a byte swap.
    #[must_use]
    pub fn of_opcode(opcode: u8) -> Option<Alu> {
        let code = opcode & op::CODE_MASK;
        Alu::ALL.into_iter().find(|a| *a as u8 == code)
    }
}

words! {
    /// The condition of a jump.
    #[repr(u8)]
    pub enum Cond, sign {
        /// `dst == src`
        Eq = 0x10 => "==",
        /// `dst > src`, unsigned
        Gt = 0x20 => ">",
        /// `dst >= src`, unsigned
        Ge = 0x30 => ">=",
        /// `dst & src`
        Set = 0x40 => "&",
        /// `dst != src`
        Ne = 0x50 => "!=",
        /// `dst > src`, signed
        Sgt = 0x60 => "s>",
        /// `dst >= src`, signed
        Sge = 0x70 => "s>=",
        /// `dst < src`, unsigned
        Lt = 0xa0 => "<",
        /// `dst <= src`, unsigned
        Le = 0xb0 => "<=",
        /// `dst < src`, signed
        Slt = 0xc0 => "s<",
        /// `dst <= src`, signed
        Sle = 0xd0 => "s<=",
    }
}

impl Cond {
    /// The condition in the code of an instruction of class [`op::JMP`] or [`op::JMP32`].
    #[must_use]
    pub fn of_opcode(opcode: u8) -> Option<Cond> {
        let code = opcode & op::CODE_MASK;
        Cond::ALL.into_iter().find(|c| *c as u8 == code)
    }

    /// The condition that holds exactly when this one does not; none for [`Cond::Set`].
    #[must_use]
    pub fn negate(self) -> Option<Cond> {
        Some(match self {
            Cond::Eq => Cond::Ne,
            Cond::Ne => Cond::Eq,
            Cond::Gt => Cond::Le,
            Cond::Le => Cond::Gt,
            Cond::Ge => Cond::Lt,
            Cond::Lt => Cond::Ge,
            Cond::Sgt => Cond::Sle,
            Cond::Sle => Cond::Sgt,
            Cond::Sge => Cond::Slt,
            Cond::Slt => Cond::Sge,
            Cond::Set => return None,
        })
    }

    /// The condition with its operands exchanged: `a < b` is `b > a`.
    #[must_use]
    pub fn swap(self) -> Cond {
        match self {
            Cond::Gt => Cond::Lt,
            Cond::Lt => Cond::Gt,
            Cond::Ge => Cond::Le,
            Cond::Le => Cond::Ge,
            Cond::Sgt => Cond::Slt,
            Cond::Slt => Cond::Sgt,
            Cond::Sge => Cond::Sle,
            Cond::Sle => Cond::Sge,
            Cond::Eq | Cond::Ne | Cond::Set => self,
        }
    }
}
