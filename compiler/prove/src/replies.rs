//! What the program of a reply returns, whatever it reads.
//!
//! Nothing of the world is explored here: the only thing that matters is whether a path of the bytecode ends
//! with another verdict than `hold`, though the reply is not known to be clean (`reply.clean`: it depends on nothing that
//! is not durable, for which the runtime answers). Jumps go forward (the verifier has refused others), so a worklist
//! follows every path. Of a register it is known that it has the context's address, `reply.clean`, or a
//! number; else nothing, and nothing is not `hold`.

use durac_abi::insn::{Alu, Cond, Insn, Reg, Size, op};
use durac_abi::object::Program;
use durac_abi::{Hook, Object, Reading, Verdict};
use std::collections::BTreeSet;

/// Which replies the program of an object holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// All but those that are clean, at least. Then no reply is sent that the release rule of `durac_engine` does not
    /// let go, or that depends on something that is not durable.
    pub replies: bool,
    /// Not all that are clean, or it is not known.
    pub lets_clean_go: bool,
}

/// Which replies the object holds; none if it has no program for them.
#[must_use]
pub fn held(object: &Object) -> Holds {
    let program = object.programs.iter().find(|program| program.hook == Hook::Reply);
    program.and_then(follow).unwrap_or_default()
}

/// What a register has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    /// Anything.
    Unknown,
    /// This number.
    Known(i64),
    /// The address of the context.
    Context,
    /// `reply.clean`: 1 or 0.
    Clean,
}

/// What is known on a path before an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    slot: usize,
    registers: [Value; 11],
    /// The reply is known to be clean, or known not to be.
    clean: Option<bool>,
}

/// States that are looked at: a program of the compiler has some dozen.
const MOST_STATES: usize = 1 << 16;

const EXIT: u8 = op::JMP | op::EXIT;
const GOTO: u8 = op::JMP | op::JA;
const CALL: u8 = op::JMP | op::CALL;

impl State {
    fn get(&self, register: u8) -> Value {
        self.registers.get(usize::from(register)).copied().unwrap_or(Value::Unknown)
    }

    fn set(&mut self, register: u8, value: Value) {
        if let Some(place) = self.registers.get_mut(usize::from(register)) {
            *place = value;
        }
    }

    /// The state behind an instruction that is no jump.
    fn after(mut self, insn: Insn) -> Self {
        match insn.class() {
            op::ALU64 if insn.opcode == (op::ALU64 | op::K | Alu::Mov as u8) => {
                self.set(insn.dst, Value::Known(i64::from(insn.imm)));
            }
            op::ALU64 if insn.opcode == (op::ALU64 | op::X | Alu::Mov as u8) => {
                self.set(insn.dst, self.get(insn.src));
            }
            op::ALU if insn.opcode == (op::ALU | op::K | Alu::Mov as u8) => {
                self.set(insn.dst, Value::Known(i64::from(insn.imm as u32)));
            }
            op::LDX => {
                let clean = insn.opcode == (op::LDX | op::MEM | Size::Dw as u8)
                    && self.get(insn.src) == Value::Context
                    && insn.offset == Reading::ReplyClean.offset();
                self.set(insn.dst, if clean { Value::Clean } else { Value::Unknown });
            }
            // A call writes r0, and leaves r1 to r5 as it likes.
            op::JMP if insn.opcode == CALL => {
                (0..=5).for_each(|register| self.set(register, Value::Unknown));
            }
            op::ST => {}
            op::STX if insn.opcode & 0xe0 == op::MEM => {}
            // An atomic operation may write its source, or r0, whatever it says.
            op::STX => {
                self.set(insn.src, Value::Unknown);
                self.set(Reg::R0 as u8, Value::Unknown);
            }
            _ => self.set(insn.dst, Value::Unknown),
        }
        self
    }

    /// The states behind a jump: where it is not taken, and where it is; none where it cannot be.
    fn branches(self, insn: Insn) -> [Option<Self>; 2] {
        let both = [Some(self), Some(self)];
        let to_number = insn.opcode & op::X == 0;
        let tests = |cond: Cond| {
            [op::JMP, op::JMP32].iter().any(|class| insn.opcode == (class | op::K | cond as u8))
        };
        if !to_number || self.get(insn.dst) != Value::Clean {
            return both;
        }
        let is = |clean: bool| {
            (self.clean != Some(!clean)).then_some(Self { clean: Some(clean), ..self })
        };
        match insn.imm {
            imm @ (0 | 1) if tests(Cond::Eq) => [is(imm == 0), is(imm == 1)],
            imm @ (0 | 1) if tests(Cond::Ne) => [is(imm == 1), is(imm == 0)],
            _ => both,
        }
    }
}

/// Which replies a program holds; none if a path of it is not understood.
fn follow(program: &Program) -> Option<Holds> {
    let mut registers = [Value::Unknown; 11];
    *registers.get_mut(Reg::R1 as usize)? = Value::Context;
    let mut open = vec![State { slot: 0, registers, clean: None }];
    let mut seen = BTreeSet::new();
    let mut holds = Holds { replies: true, lets_clean_go: false };
    while let Some(state) = open.pop() {
        if !seen.insert(state) {
            continue;
        }
        let slot = state.slot;
        let insn = *program.insns.get(slot).filter(|_| seen.len() <= MOST_STATES)?;
        if insn.opcode == EXIT {
            let value = state.get(Reg::R0 as u8);
            if !matches!(value, Value::Known(value) if Verdict::decode(value as u64) == Verdict::Hold)
            {
                holds.lets_clean_go = true;
                holds.replies &= state.clean == Some(true);
            }
            continue;
        }
        let next = slot + if insn.is_lddw() { 2 } else { 1 };
        let ways = if insn.is_jump() {
            let target = insn.target(slot as u32)? as usize;
            let [on, jumps] = state.branches(insn);
            [
                on.filter(|_| insn.opcode != GOTO).map(|on| (on, next)),
                jumps.map(|jumps| (jumps, target)),
            ]
        } else {
            [Some((state.after(insn), next)), None]
        };
        for (state, to) in ways.into_iter().flatten() {
            // Not backwards: the verifier has seen to it.
            if to <= slot {
                return None;
            }
            open.push(State { slot: to, ..state });
        }
    }
    Some(holds)
}

#[cfg(test)]
mod tests {
    use super::{Holds, follow};
    use durac_abi::insn::{Alu, Cond, Insn, Reg, Size};
    use durac_abi::object::Program;
    use durac_abi::{Helper, Hook, Reading};

    fn held(insns: &[Insn]) -> Holds {
        let program =
            Program { hook: Hook::Reply, insns: insns.to_vec(), relocs: vec![], lines: vec![] };
        follow(&program).unwrap_or_default()
    }

    /// Every reply is held, clean or not.
    fn holds(insns: &[Insn]) -> bool {
        let held = held(insns);
        held.replies && !held.lets_clean_go
    }

    #[test]
    fn every_path_has_to_hold() {
        let (hold, pass) = (Insn::mov_imm(Reg::R0, 4), Insn::mov_imm(Reg::R0, 0));
        let branch = |to| Insn::jump_imm(Cond::Eq, Reg::R2, 0, to);
        let load = Insn::ldx(Size::Dw, Reg::R2, Reg::R1, 8);
        assert!(holds(&[hold, Insn::exit()]));
        assert!(holds(&[Insn::mov32_imm(Reg::R0, 4), Insn::exit()]));
        assert!(holds(&[load, branch(2), hold, Insn::exit(), hold, Insn::exit()]));
        assert!(holds(&[load, hold, branch(1), Insn::ja(0), Insn::exit()]));
        assert!(!holds(&[pass, Insn::exit()]));
        assert!(!holds(&[]));
        assert!(!holds(&[load, branch(2), hold, Insn::exit(), pass, Insn::exit()]));
        assert!(!holds(&[load, hold, branch(1), pass, Insn::exit()]));
    }

    #[test]
    fn what_is_written_to_r0_afterwards_counts() {
        let hold = Insn::mov_imm(Reg::R0, 4);
        let writers = [
            Insn::alu_imm(Alu::Add, Reg::R0, 1),
            Insn::alu32_imm(Alu::Add, Reg::R0, 0),
            Insn::mov(Reg::R0, Reg::R2),
            Insn::ldx(Size::Dw, Reg::R0, Reg::R1, 8),
            Insn::call(Helper::Request),
            Insn::compare_exchange(Reg::R10, -8, Reg::R2),
            Insn::fetch_add(Reg::R10, -8, Reg::R0),
            Insn::neg(Reg::R0),
        ];
        for writer in writers {
            assert!(!holds(&[hold, writer, Insn::exit()]), "{writer}");
        }
        let [low, high] = Insn::lddw(Reg::R0, 4);
        assert!(!holds(&[hold, low, high, Insn::exit()]));
        let others = [
            Insn::mov_imm(Reg::R2, 1),
            Insn::stx(Size::Dw, Reg::R10, -8, Reg::R0),
            Insn::st(Size::Dw, Reg::R10, -8, 0),
        ];
        for other in others {
            assert!(holds(&[hold, other, Insn::exit()]), "{other}");
        }
    }

    #[test]
    fn only_a_clean_reply_may_pass() {
        let (hold, pass) = (Insn::mov_imm(Reg::R0, 4), Insn::mov_imm(Reg::R0, 0));
        let clean = Insn::ldx(Size::Dw, Reg::R2, Reg::R1, Reading::ReplyClean.offset());
        let exit = Insn::exit();
        let program = |load: &[Insn], test: Insn, first: Insn, second: Insn| {
            held(&[load, &[test, first, exit, second, exit]].concat())
        };
        let eq = |imm| Insn::jump_imm(Cond::Eq, Reg::R2, imm, 2);
        let ne = |imm| Insn::jump_imm(Cond::Ne, Reg::R2, imm, 2);
        let lets_go = Holds { replies: true, lets_clean_go: true };
        for (test, first, second) in
            [(eq(0), pass, hold), (eq(1), hold, pass), (ne(0), hold, pass), (ne(1), pass, hold)]
        {
            assert_eq!(program(&[clean], test, first, second), lets_go, "{test}");
            assert!(!program(&[clean], test, second, first).replies, "{test}");
        }
        // Another number, another test, another place, another size, another address.
        let copied =
            [Insn::mov(Reg::R6, Reg::R1), Insn::ldx(Size::Dw, Reg::R2, Reg::R6, clean.offset)];
        assert_eq!(program(&copied, eq(0), pass, hold), lets_go);
        let others: [&[Insn]; 6] = [
            &[Insn::ldx(Size::Dw, Reg::R2, Reg::R1, Reading::CallLen.offset())],
            &[Insn::ldx(Size::W, Reg::R2, Reg::R1, clean.offset)],
            &[Insn::ldx(Size::Dw, Reg::R2, Reg::R10, clean.offset)],
            &[clean, Insn::alu_imm(Alu::Add, Reg::R2, 1)],
            &[clean, Insn::call(Helper::Request)],
            &[Insn::alu_imm(Alu::Add, Reg::R1, 8), clean],
        ];
        for load in others {
            assert!(!program(load, eq(0), pass, hold).replies, "{load:?}");
        }
        assert!(!program(&[clean], Insn::jump_imm(Cond::Eq, Reg::R2, 2, 2), hold, pass).replies);
        // What one test has found, a second need not find again.
        let first = Insn::jump_imm(Cond::Eq, Reg::R2, 0, 4);
        let twice = [clean, first, clean, eq(0), pass, exit, hold, exit];
        assert!(held(&twice).replies);
        // Both ways end at one exit.
        let merged = [clean, hold, Insn::jump_imm(Cond::Eq, Reg::R2, 0, 1), pass, exit];
        assert_eq!(held(&merged), lets_go);
    }
}
