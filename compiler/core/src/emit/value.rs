//! Values and comparisons in scratch registers.

use super::{EmitError, Emitter, PARAMS, STATE, session};
use crate::hir::{Arith, Cmp};
use crate::mir::Value;
use durac_abi::insn::{Alu, Cond, Insn, Reg, Size};
use durac_bpf::asm::{Asm, Label};

impl Emitter<'_> {
    /// Computes a value into the register a helper takes it from.
    pub(super) fn value_into(&mut self, value: &Value, dst: Reg) -> Result<(), EmitError> {
        let free: Vec<_> = self.scratch().into_iter().filter(|r| *r != dst).collect();
        let is_leaf = !matches!(value, Value::Arith(..));
        if is_leaf || dst != self.context() {
            return self.value(value, dst, &free);
        }
        let [first, rest @ ..] = free.as_slice() else { return Err(self.too_complex()) };
        self.value(value, *first, rest)?;
        self.asm.push(Insn::mov(dst, *first));
        Ok(())
    }

    /// Computes a value into `dst`, with `free` for parts of it.
    pub(super) fn value(&mut self, value: &Value, dst: Reg, free: &[Reg]) -> Result<(), EmitError> {
        match value {
            Value::Const(c) => self.asm.load_imm(dst, *c),
            Value::Param(id) if self.framed => {
                let at = session::param(id.index()).ok_or_else(|| self.too_complex())?;
                self.asm.push(Insn::ldx(Size::Dw, dst, Reg::R10, at));
            }
            Value::Param(id) => {
                let base = self.held.params.unwrap_or(PARAMS);
                self.asm.push(Insn::ldx(Size::Dw, dst, base, 8 * id.0 as i16));
            }
            Value::State(id) => {
                let base = self.held.state.unwrap_or(STATE);
                self.asm.push(Insn::ldx(Size::Dw, dst, base, 8 * id.0 as i16));
            }
            Value::Read(reading) => {
                let context = self.context();
                self.asm.push(Insn::ldx(Size::Dw, dst, context, reading.offset()));
            }
            Value::Arith(op, a, b) => return self.arith(*op, a, b, dst, free),
            Value::Test(cmp, a, b) => return self.test(*cmp, a, b, dst),
        }
        Ok(())
    }

    fn arith(
        &mut self,
        op: Arith,
        a: &Value,
        b: &Value,
        dst: Reg,
        free: &[Reg],
    ) -> Result<(), EmitError> {
        if let Value::Const(c) = b
            && let Ok(imm) = i32::try_from(*c)
        {
            self.value(a, dst, free)?;
            if op == Arith::Sub {
                // A difference below zero is zero: raise the left side to the right one first.
                let enough = self.asm.label();
                self.asm.jump_if_imm(Cond::Ge, dst, imm, enough);
                self.asm.push(Insn::mov_imm(dst, imm));
                self.asm.bind(enough);
            }
            self.asm.push(Insn::alu_imm(alu(op), dst, imm));
            return Ok(());
        }
        let [other, rest @ ..] = free else { return Err(self.too_complex()) };
        if need(b) > need(a) {
            // The side that needs more registers first, while all are free.
            let mut with_dst = rest.to_vec();
            with_dst.push(dst);
            self.value(b, *other, &with_dst)?;
            self.value(a, dst, rest)?;
        } else {
            self.value(a, dst, free)?;
            self.value(b, *other, rest)?;
        }
        if op == Arith::Sub {
            let enough = self.asm.label();
            self.asm.jump_if(Cond::Ge, dst, *other, enough);
            self.asm.push(Insn::mov(dst, *other));
            self.asm.bind(enough);
        }
        self.asm.push(Insn::alu(alu(op), dst, *other));
        Ok(())
    }

    /// `dst = 1; if a cmp b goto holds; dst = 0; holds:`
    fn test(&mut self, cmp: Cmp, a: &Value, b: &Value, dst: Reg) -> Result<(), EmitError> {
        let holds = self.asm.label();
        self.compare_after(cmp, a, b, holds, Some(dst), |asm| asm.load_imm(dst, 1))?;
        self.asm.load_imm(dst, 0);
        self.asm.bind(holds);
        Ok(())
    }

    /// Jumps to `target` if the comparison holds; leaves `reserved` alone.
    pub(super) fn compare(
        &mut self,
        cmp: Cmp,
        left: &Value,
        right: &Value,
        target: Label,
        reserved: Option<Reg>,
    ) -> Result<(), EmitError> {
        self.compare_after(cmp, left, right, target, reserved, |_| {})
    }

    /// Computes both sides, emits what `between` does, and jumps.
    fn compare_after(
        &mut self,
        cmp: Cmp,
        left: &Value,
        right: &Value,
        target: Label,
        reserved: Option<Reg>,
        between: impl FnOnce(&mut Asm),
    ) -> Result<(), EmitError> {
        let mut free = self.scratch();
        free.retain(|r| Some(*r) != reserved);
        let [a, rest @ ..] = free.as_slice() else { return Err(self.too_complex()) };
        let cond = cond(cmp);
        if let Value::Const(c) = right
            && let Ok(imm) = i32::try_from(*c)
        {
            match (left, self.held.cached) {
                (Value::State(id), Some((cached, register)))
                    if *id == cached && Some(register) != reserved =>
                {
                    between(&mut self.asm);
                    self.asm.jump_if_imm(cond, register, imm, target);
                }
                _ => {
                    self.value(left, *a, rest)?;
                    between(&mut self.asm);
                    self.asm.jump_if_imm(cond, *a, imm, target);
                }
            }
            return Ok(());
        }
        let [b, rest @ ..] = rest else { return Err(self.too_complex()) };
        if need(right) > need(left) {
            let mut with_a = rest.to_vec();
            with_a.push(*a);
            self.value(right, *b, &with_a)?;
            self.value(left, *a, rest)?;
        } else {
            let mut with_b = rest.to_vec();
            with_b.push(*b);
            self.value(left, *a, &with_b)?;
            self.value(right, *b, rest)?;
        }
        between(&mut self.asm);
        self.asm.jump_if(cond, *a, *b, target);
        Ok(())
    }
}

/// How many registers a value needs (Sethi and Ullman).
fn need(value: &Value) -> u32 {
    match value {
        Value::Arith(_, a, b) | Value::Test(_, a, b) => {
            let (a, b) = (need(a), need(b));
            if matches!((a, b), (1, 1)) || a == b { a + 1 } else { a.max(b) }
        }
        _ => 1,
    }
}

fn alu(op: Arith) -> Alu {
    match op {
        Arith::Add => Alu::Add,
        Arith::Sub | Arith::WrappingSub => Alu::Sub,
        Arith::Mul => Alu::Mul,
        Arith::Div => Alu::Div,
        Arith::Rem => Alu::Mod,
    }
}

fn cond(cmp: Cmp) -> Cond {
    match cmp {
        Cmp::Eq => Cond::Eq,
        Cmp::Ne => Cond::Ne,
        Cmp::Lt => Cond::Lt,
        Cmp::Le => Cond::Le,
        Cmp::Gt => Cond::Gt,
        Cmp::Ge => Cond::Ge,
    }
}
