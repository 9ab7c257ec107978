//! What can be said of each instruction by itself: that the agent's JIT runs it as the standard
//! says, and where it goes next. Jumps go forward only, so a program ends after at most as many
//! steps as it has instructions: PREVAIL proves that too, but with a loop its own time has no bound
//! (one jump backwards in 62 slots kept it busy for minutes).
//!
//! Some instructions are left out although the JIT knows them, because it runs them otherwise than the
//! standard says ([`rbpf_misruns`]).
//!
//! A shift by as many bits as there are, or more, is a mistake in the standard; the rest of the
//! list follows from the encoding: a field that an instruction does not use must be 0.

use crate::quirks::{rbpf_does_not_load, rbpf_misruns};
use crate::{Fault, Violation};
use durac_abi::Backend;
use durac_abi::insn::{Alu, Cond, Insn, op};
use durac_abi::object::{MAX_SLOTS, Object, Program};

/// Checks every slot and reports every fault.
pub(crate) fn check(object: &Object, program: &Program) -> Result<(), Vec<Fault>> {
    let slots = program.insns.len();
    if slots == 0 || slots > MAX_SLOTS {
        let detail = format!("{slots} slots; allowed are 1 to {MAX_SLOTS}");
        return Err(vec![Fault::new(0, Violation::Length, detail)]);
    }
    let seconds = second_slots(program);
    let is_second = |slot: u32| seconds.get(slot as usize).is_none_or(|second| *second);

    let mut faults = Vec::new();
    for (slot, insn) in (0u32..).zip(&program.insns) {
        if is_second(slot) {
            continue;
        }
        if let Err((kind, detail)) = check_insn(*insn, object.meta.runtime.backend()) {
            faults.push(Fault::new(slot, kind, detail));
            continue;
        }
        if insn.is_lddw() {
            faults.extend(check_lddw(object, program, slot, *insn));
        }
        if insn.is_jump() {
            match insn.target(slot).filter(|target| !is_second(*target)) {
                Some(target) if target > slot => {}
                Some(_) => faults.push(Fault::new(slot, Violation::Loop, "")),
                None => faults.push(Fault::new(slot, Violation::Jump, "")),
            }
        }
    }
    for reloc in &program.relocs {
        let insn = program.insns.get(reloc.slot as usize);
        if is_second(reloc.slot) || !insn.is_some_and(|insn| insn.is_lddw()) {
            let detail = "a map's address is to go where none is loaded";
            faults.push(Fault::new(reloc.slot, Violation::Instruction, detail));
        }
    }
    let last = slots as u32 - 1;
    let ends = |insn: &Insn| matches!(insn.opcode, EXIT | GOTO);
    if is_second(last) || !program.insns.last().is_some_and(ends) {
        faults.push(Fault::new(last, Violation::NoExit, ""));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// Instructions on the longest path through a program of good shape.
pub(crate) fn longest_path(program: &Program) -> u32 {
    // From the end: every path from a slot goes to later ones.
    let mut steps = vec![0u32; program.insns.len()];
    for (slot, insn) in program.insns.iter().enumerate().rev() {
        let slot = slot as u32;
        let after = |slot: u32| steps.get(slot as usize).copied().unwrap_or(0);
        let next = match insn.opcode {
            EXIT | GOTO => 0,
            op::LDDW => after(slot + 2),
            _ => after(slot + 1),
        };
        let target = insn.target(slot).filter(|_| insn.is_jump()).map_or(0, after);
        if let Some(here) = steps.get_mut(slot as usize) {
            *here = 1 + next.max(target);
        }
    }
    steps.first().copied().unwrap_or(0)
}

const EXIT: u8 = op::JMP | op::EXIT;
const GOTO: u8 = op::JMP | op::JA;
const CALL: u8 = op::JMP | op::CALL;

/// For each slot, whether it is the second one of a `lddw`.
fn second_slots(program: &Program) -> Vec<bool> {
    let mut seconds = Vec::with_capacity(program.insns.len());
    let mut second = false;
    for insn in &program.insns {
        seconds.push(second);
        second = !second && insn.is_lddw();
    }
    seconds
}

/// The second slot of a `lddw`, and the map it loads, if any.
fn check_lddw(object: &Object, program: &Program, slot: u32, low: Insn) -> Option<Fault> {
    let fault = |detail| Some(Fault::new(slot, Violation::Instruction, detail));
    let Some(high) = program.insns.get(slot as usize + 1) else {
        return fault("its second half is missing");
    };
    if (high.opcode, high.dst, high.src, high.offset) != (0, 0, 0, 0) {
        return fault("its second half is damaged");
    }
    let mut relocs = program.relocs.iter().filter(|reloc| reloc.slot == slot);
    let reloc = relocs.next()?;
    if relocs.next().is_some() || (low.imm, high.imm) != (0, 0) {
        return fault("it loads a number and a map, or two maps");
    }
    match object.map(reloc.map) {
        Some(_) => None,
        None => fault("it loads a map that does not exist"),
    }
}

/// One instruction, or the first slot of one.
fn check_insn(insn: Insn, backend: &dyn Backend) -> Result<(), (Violation, String)> {
    let Insn { opcode, dst, src, offset, imm } = insn;
    let refuse = |detail: &str| Err((Violation::Instruction, format!("`{insn}` {detail}")));
    if dst > 10 || src > 10 {
        return Err((Violation::Register, format!("r{} does not exist", dst.max(src))));
    }
    // What the instruction uses besides its code.
    let (mut uses_dst, mut uses_src, mut uses_offset, mut uses_imm) = (true, false, false, false);
    let mut writes_dst = false;
    match insn.class() {
        op::ALU | op::ALU64 => {
            let wide = insn.class() == op::ALU64;
            let by_register = opcode & op::X != 0;
            (uses_src, uses_imm, writes_dst) = (by_register, !by_register, true);
            if let Some(why) = rbpf_misruns(insn) {
                return refuse(why);
            }
            match Alu::of_opcode(opcode) {
                None => return refuse("is unknown"),
                Some(Alu::Neg) if by_register => return refuse("is unknown"),
                Some(Alu::Neg) => uses_imm = false,
                Some(Alu::Div | Alu::Mod) if !by_register && imm == 0 => {
                    return Err((Violation::Division, format!("`{insn}`")));
                }
                Some(Alu::Lsh | Alu::Rsh | Alu::Arsh) if !by_register => {
                    let bits = if wide { 64 } else { 32 };
                    if !(0..bits).contains(&imm) {
                        return refuse("shifts too far");
                    }
                }
                Some(_) => {}
            }
        }
        op::JMP | op::JMP32 => match opcode {
            GOTO => (uses_dst, uses_offset) = (false, true),
            EXIT => uses_dst = false,
            CALL => {
                (uses_dst, uses_imm) = (false, true);
                if src != 0 {
                    return refuse("does not call a helper");
                }
                if backend.helper(imm).is_none() {
                    return Err((Violation::UnknownHelper, format!("number {imm:#x}")));
                }
            }
            _ if Cond::of_opcode(opcode).is_none() => return refuse("is unknown"),
            _ => {
                let by_register = opcode & op::X != 0;
                (uses_src, uses_imm, uses_offset) = (by_register, !by_register, true);
                if rbpf_does_not_load(insn) {
                    return Err((Violation::Register, "r10 cannot be compared".to_owned()));
                }
            }
        },
        op::LD if insn.is_lddw() => {
            (uses_imm, writes_dst) = (true, true);
            if src != 0 {
                return refuse("loads something else than a number or a map");
            }
        }
        class => {
            if class == op::LD || opcode & op::MODE_MASK != op::MEM {
                return refuse("is unknown");
            }
            uses_offset = true;
            (uses_src, uses_imm) = (class != op::ST, class == op::ST);
            writes_dst = class == op::LDX;
        }
    }
    if writes_dst && dst == 10 {
        return Err((Violation::Register, "r10 cannot be written".to_owned()));
    }
    let clean = (uses_dst || dst == 0)
        && (uses_src || src == 0)
        && (uses_offset || offset == 0)
        && (uses_imm || imm == 0);
    if clean { Ok(()) } else { refuse("has a field that should be 0") }
}
