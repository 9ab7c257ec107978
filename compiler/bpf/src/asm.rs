//! An assembler: instructions in, a [`Program`] out, with labels for jump targets.
//!
//! It knows nothing of what a program means. Mistakes in the use of labels are reported once, by
//! [`Asm::finish`], so that the code that emits reads as a list of instructions.

use durac_abi::Hook;
use durac_abi::insn::{Cond, Insn, Reg};
use durac_abi::object::{Line, Program, Reloc};

/// A place in the code that jumps can name before it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label(u32);

/// Why a program could not be assembled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AsmError {
    /// A jump names a label that was never bound.
    #[error("the jump in slot {slot} targets an unbound label")]
    Unbound {
        /// Where the jump is.
        slot: u32,
    },
    /// A label was bound in two places.
    #[error("a label is bound twice, to slots {first} and {second}")]
    BoundTwice {
        /// The first place.
        first: u32,
        /// The second place.
        second: u32,
    },
    /// The distance of a jump does not fit into 16 bits.
    #[error("the jump in slot {slot} to slot {target} is too far: at most 32767 slots")]
    OutOfRange {
        /// Where the jump is.
        slot: u32,
        /// Where it goes.
        target: u32,
    },
}

/// A program under construction.
#[derive(Clone, Debug, Default)]
pub struct Asm {
    insns: Vec<Insn>,
    relocs: Vec<Reloc>,
    lines: Vec<Line>,
    labels: Vec<Option<u32>>,
    fixups: Vec<(u32, Label)>,
    error: Option<AsmError>,
}

impl Asm {
    /// An empty program.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The slot the next instruction gets.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.insns.len() as u32
    }

    /// A new, unbound label.
    pub fn label(&mut self) -> Label {
        let label = Label(self.labels.len() as u32);
        self.labels.push(None);
        label
    }

    /// Binds a label to the next instruction.
    pub fn bind(&mut self, label: Label) {
        let second = self.slot();
        match self.labels.get_mut(label.0 as usize) {
            Some(Some(first)) => {
                let first = *first;
                self.error.get_or_insert(AsmError::BoundTwice { first, second });
            }
            Some(place) => *place = Some(second),
            // A label of another assembler; its jumps are reported as unbound.
            None => {}
        }
    }

    /// The code from here on comes from this place of the source: one-based line and column, line
    /// 0 for code with no place.
    pub fn place(&mut self, line: u32, column: u32) {
        let slot = self.slot();
        if self.lines.last().is_some_and(|last| last.slot == slot) {
            self.lines.pop();
        }
        let same = |last: &Line| (last.line, last.column) == (line, column);
        if !self.lines.last().is_some_and(same) {
            self.lines.push(Line { slot, line, column });
        }
    }

    /// Appends an instruction.
    pub fn push(&mut self, insn: Insn) {
        self.insns.push(insn);
    }

    /// Appends instructions.
    pub fn extend(&mut self, insns: impl IntoIterator<Item = Insn>) {
        self.insns.extend(insns);
    }

    /// Appends `dst = value` in as few slots as it takes.
    pub fn load_imm(&mut self, dst: Reg, value: u64) {
        if let Ok(imm) = i32::try_from(value as i64) {
            self.push(Insn::mov_imm(dst, imm));
        } else if let Ok(imm) = u32::try_from(value) {
            self.push(Insn::mov32_imm(dst, imm as i32));
        } else {
            self.extend(Insn::lddw(dst, value));
        }
    }

    /// Appends `dst = address of the map` (by its index in the object).
    pub fn load_map(&mut self, dst: Reg, map: u32) {
        let slot = self.slot();
        self.relocs.push(Reloc { slot, map });
        self.extend(Insn::lddw(dst, 0));
    }

    /// Appends a jump, always or on a condition; its offset is filled in later.
    pub fn jump_with(&mut self, insn: Insn, label: Label) {
        self.fixups.push((self.slot(), label));
        self.push(insn);
    }

    /// Appends `goto label`.
    pub fn jump(&mut self, label: Label) {
        self.jump_with(Insn::ja(0), label);
    }

    /// Appends `if dst cond src goto label`.
    pub fn jump_if(&mut self, cond: Cond, dst: Reg, src: Reg, label: Label) {
        self.jump_with(Insn::jump(cond, dst, src, 0), label);
    }

    /// Appends `if dst cond imm goto label`.
    pub fn jump_if_imm(&mut self, cond: Cond, dst: Reg, imm: i32, label: Label) {
        self.jump_with(Insn::jump_imm(cond, dst, imm, 0), label);
    }

    /// The program, with every jump filled in.
    ///
    /// # Errors
    /// The first mistake in the use of labels.
    pub fn finish(mut self, hook: Hook) -> Result<Program, AsmError> {
        self.fix()?;
        Ok(Program { hook, insns: self.insns, relocs: self.relocs, lines: self.lines })
    }

    /// The code alone, for a program that does not belong to a hook.
    ///
    /// # Errors
    /// As [`Asm::finish`].
    pub fn resolve(mut self) -> Result<(Vec<Insn>, Vec<Reloc>), AsmError> {
        self.fix()?;
        Ok((self.insns, self.relocs))
    }

    /// Fills in every jump.
    fn fix(&mut self) -> Result<(), AsmError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        for (slot, label) in std::mem::take(&mut self.fixups) {
            let target = self.labels.get(label.0 as usize).copied().flatten();
            let target = target.ok_or(AsmError::Unbound { slot })?;
            let distance = i64::from(target) - i64::from(slot) - 1;
            let offset =
                i16::try_from(distance).map_err(|_| AsmError::OutOfRange { slot, target })?;
            if let Some(insn) = self.insns.get_mut(slot as usize) {
                insn.offset = offset;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_and_backward_jumps_are_filled_in() {
        let mut asm = Asm::new();
        let (top, end) = (asm.label(), asm.label());
        asm.bind(top);
        asm.jump_if_imm(Cond::Eq, Reg::R1, 0, end);
        asm.load_imm(Reg::R2, u64::MAX / 3);
        asm.jump(top);
        asm.bind(end);
        asm.push(Insn::exit());
        let program = asm.finish(Hook::Fsync).unwrap();
        let offsets: Vec<i16> = program.insns.iter().map(|i| i.offset).collect();
        assert_eq!(offsets, [3, 0, 0, -4, 0]);
    }

    #[test]
    fn constants_take_the_shortest_form() {
        let length = |value| {
            let mut asm = Asm::new();
            asm.load_imm(Reg::R1, value);
            asm.slot()
        };
        assert_eq!(length(0x7fff_ffff), 1);
        assert_eq!(length(0x8000_0000), 1);
        assert_eq!(length(0xffff_ffff), 1);
        assert_eq!(length(u64::MAX), 1);
        assert_eq!(length(1 << 32), 2);
        assert_eq!(length(u64::MAX << 32), 2);
    }

    #[test]
    fn mistakes_are_reported() {
        let mut asm = Asm::new();
        let label = asm.label();
        asm.push(Insn::exit());
        asm.jump(label);
        let error = asm.clone().finish(Hook::Fsync).unwrap_err();
        assert_eq!(error, AsmError::Unbound { slot: 1 });

        asm.bind(label);
        asm.push(Insn::exit());
        asm.bind(label);
        let error = asm.finish(Hook::Fsync).unwrap_err();
        assert_eq!(error, AsmError::BoundTwice { first: 2, second: 3 });

        let mut asm = Asm::new();
        let label = asm.label();
        asm.jump(label);
        asm.extend(std::iter::repeat_n(Insn::mov_imm(Reg::R0, 0), 40_000));
        asm.bind(label);
        let error = asm.finish(Hook::Fsync).unwrap_err();
        let target = 40_001;
        assert_eq!(error, AsmError::OutOfRange { slot: 0, target });
    }

    #[test]
    fn places_are_not_repeated() {
        let mut asm = Asm::new();
        asm.place(1, 1);
        asm.place(2, 5);
        asm.push(Insn::exit());
        asm.place(2, 5);
        asm.push(Insn::exit());
        asm.place(3, 1);
        asm.push(Insn::exit());
        let lines = asm.finish(Hook::Fsync).unwrap().lines;
        let lines: Vec<_> = lines.iter().map(|l| (l.slot, l.line, l.column)).collect();
        assert_eq!(lines, [(0, 2, 5), (2, 3, 1)]);
    }
}
