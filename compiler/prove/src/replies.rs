//! What the program of a reply returns, whatever it reads.
//!
//! Nothing of the world is explored here: the only thing that matters is whether a path of the bytecode ends
//! with another verdict than `hold`. Jumps go forward (the verifier has refused others), so one pass over
//! the slots follows every path. What r0 holds is a number known on all paths to a slot, or unknown; at a
//! place where paths with different numbers meet it is unknown, and unknown is not `hold`.

use durac_abi::insn::{Alu, Insn, Reg, op};
use durac_abi::object::Program;
use durac_abi::{Hook, Object, Verdict};

/// Whether the object has a program for replies, and every path of it ends in `hold`: then no reply
/// is sent that the release rule of `durac_engine` does not let go.
#[must_use]
pub fn are_always_held(object: &Object) -> bool {
    let program = object.programs.iter().find(|program| program.hook == Hook::Reply);
    program.is_some_and(always_holds)
}

/// What r0 holds before an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum R0 {
    /// No path leads there.
    Unreached,
    /// This number, on every path.
    Known(i64),
    /// Anything.
    Unknown,
}

impl R0 {
    fn join(self, other: R0) -> R0 {
        match (self, other) {
            (R0::Unreached, known) | (known, R0::Unreached) => known,
            (a, b) if a == b => a,
            _ => R0::Unknown,
        }
    }

    fn is(self, verdict: Verdict) -> bool {
        matches!(self, R0::Known(value) if Verdict::decode(value as u64) == verdict)
    }
}

const EXIT: u8 = op::JMP | op::EXIT;
const GOTO: u8 = op::JMP | op::JA;
const CALL: u8 = op::JMP | op::CALL;

fn always_holds(program: &Program) -> bool {
    let mut before = vec![R0::Unreached; program.insns.len()];
    if let Some(first) = before.first_mut() {
        *first = R0::Unknown;
    }
    let mut exits = 0;
    for (slot, insn) in program.insns.iter().enumerate() {
        let Some(&here) = before.get(slot) else { return false };
        if here == R0::Unreached {
            continue;
        }
        if insn.opcode == EXIT {
            exits += 1;
            if !here.is(Verdict::Hold) {
                return false;
            }
            continue;
        }
        let after = after(*insn, here);
        let next = (insn.opcode != GOTO).then(|| slot + if insn.is_lddw() { 2 } else { 1 });
        let target = insn.target(slot as u32).filter(|_| insn.is_jump()).map(|slot| slot as usize);
        for to in [next, target].into_iter().flatten() {
            // Neither backwards nor out of the program: the verifier has seen to it.
            match before.get_mut(to) {
                Some(place) if to > slot => *place = place.join(after),
                _ => return false,
            }
        }
    }
    exits > 0
}

fn after(insn: Insn, r0: R0) -> R0 {
    let to_r0 = insn.dst == Reg::R0 as u8;
    match insn.class() {
        op::ALU64 if to_r0 && insn.opcode == (op::ALU64 | op::K | Alu::Mov as u8) => {
            R0::Known(i64::from(insn.imm))
        }
        op::ALU if to_r0 && insn.opcode == (op::ALU | op::K | Alu::Mov as u8) => {
            R0::Known(i64::from(insn.imm as u32))
        }
        op::JMP if insn.opcode == CALL => R0::Unknown,
        op::JMP | op::JMP32 => r0,
        op::ST => r0,
        op::STX if insn.opcode & 0xe0 == op::MEM => r0,
        // It may write r0 whatever its destination says.
        op::STX => R0::Unknown,
        _ if to_r0 => R0::Unknown,
        _ => r0,
    }
}

#[cfg(test)]
mod tests {
    use super::always_holds;
    use durac_abi::insn::{Alu, Cond, Insn, Reg, Size};
    use durac_abi::object::Program;
    use durac_abi::{Helper, Hook};

    fn holds(insns: &[Insn]) -> bool {
        let program =
            Program { hook: Hook::Reply, insns: insns.to_vec(), relocs: vec![], lines: vec![] };
        always_holds(&program)
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
}
