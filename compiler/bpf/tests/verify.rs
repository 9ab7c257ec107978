//! What is accepted, and what is refused: where and for which reason.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

use crate::common;
use durac_abi::Object;
use durac_abi::insn::{Alu, Cond, Insn, Reg, Size, op};
use durac_abi::object::MAX_SLOTS;
use durac_abi::{CONTEXT_SIZE, Helper, Hook, Reading};
use durac_bpf::asm::Asm;
use durac_verify::{Violation, verify};

/// An object with the maps of [`common::every`] (one with `slow`, `.every1`) and this code.
fn object(code: impl FnOnce(&mut Asm)) -> Object {
    let mut asm = Asm::new();
    asm.place(1, 1);
    code(&mut asm);
    let mut object = common::every();
    object.programs = vec![asm.finish(Hook::Fdatasync).unwrap()];
    object
}

/// Checks that the code is refused once, for this reason at this slot.
#[track_caller]
fn refused(kind: Violation, slot: u32, code: impl FnOnce(&mut Asm)) {
    check_refused(&object(code), kind, slot);
}

#[track_caller]
fn check_refused(object: &Object, kind: Violation, slot: u32) {
    let rejections = verify(object).expect_err("accepted");
    let found: Vec<_> = rejections.iter().map(|r| (r.kind, r.slot)).collect();
    assert_eq!(found, [(kind, slot)], "{}", rejections[0]);
    let rejection = &rejections[0];
    assert!(rejection.reason.starts_with(kind.text()), "{rejection}");
    assert_eq!(rejection.hook, object.programs[0].hook);
}

#[track_caller]
fn accepted(code: impl FnOnce(&mut Asm)) {
    let result = verify(&object(code));
    assert!(result.is_ok(), "{}", result.unwrap_err()[0]);
}

/// `r0 = 1; exit`
fn end(asm: &mut Asm) {
    asm.push(Insn::mov_imm(Reg::R0, 1));
    asm.push(Insn::exit());
}

/// Slots 0–5: looks up entry 0 of the state, result in r0.
fn lookup(asm: &mut Asm) {
    asm.push(Insn::st(Size::W, Reg::R10, -4, 0));
    asm.push(Insn::mov(Reg::R2, Reg::R10));
    asm.push(Insn::alu_imm(Alu::Add, Reg::R2, -4));
    asm.load_map(Reg::R1, 0);
    asm.push(Insn::call(Helper::MapLookup));
}

/// The same, slots 0–8, and leaves with r0 = 0 if it is null.
fn lookup_checked(asm: &mut Asm) {
    lookup(asm);
    let good = asm.label();
    asm.jump_if_imm(Cond::Ne, Reg::R0, 0, good);
    // Not left out: to PREVAIL a pointer that is null is not the number 0.
    asm.push(Insn::mov_imm(Reg::R0, 0));
    asm.push(Insn::exit());
    asm.bind(good);
}

#[test]
fn policies_are_accepted() {
    for object in common::all() {
        let report = verify(&object).unwrap_or_else(|r| panic!("{}", r[0]));
        for (program, verified) in object.programs.iter().zip(&report.programs) {
            assert_eq!(verified.hook, program.hook);
            assert_eq!(verified.insns as usize, program.insns.len());
            assert!(verified.max_steps <= verified.insns);
        }
    }
}

#[test]
fn every_unit_of_arithmetic_is_accepted() {
    accepted(|asm| {
        asm.load_imm(Reg::R1, 0x1234_5678_9abc);
        asm.push(Insn::mov_imm(Reg::R2, 7));
        for alu in [Alu::Add, Alu::Sub, Alu::Mul, Alu::Or, Alu::And, Alu::Xor] {
            asm.push(Insn::alu(alu, Reg::R1, Reg::R2));
            asm.push(Insn::alu32(alu, Reg::R1, Reg::R2));
            asm.push(Insn::alu_imm(alu, Reg::R1, -3));
            asm.push(Insn::alu32_imm(alu, Reg::R1, 3));
        }
        for alu in [Alu::Lsh, Alu::Rsh, Alu::Arsh] {
            asm.push(Insn::alu_imm(alu, Reg::R1, 63));
            asm.push(Insn::alu32_imm(alu, Reg::R1, 31));
        }
        asm.push(Insn::alu_imm(Alu::Div, Reg::R1, 1000));
        asm.push(Insn::alu_imm(Alu::Mod, Reg::R1, 48));
        asm.push(Insn::alu(Alu::Div, Reg::R1, Reg::R2));
        asm.push(Insn::neg(Reg::R1));
        asm.push(Insn::mov32_imm(Reg::R0, 1));
        asm.push(Insn::exit());
    });
}

#[test]
fn a_context_field_is_read_when_listed() {
    accepted(|asm| {
        asm.push(Insn::mov(Reg::R6, Reg::R1));
        asm.push(Insn::ldx(Size::Dw, Reg::R3, Reg::R6, 0));
        end(asm);
    });
    refused(Violation::UnlistedReading, 0, |asm| {
        let pending = Reading::Pending.offset();
        asm.push(Insn::ldx(Size::Dw, Reg::R3, Reg::R1, pending));
        end(asm);
    });
}

#[test]
fn the_context_is_read_only_where_it_is() {
    refused(Violation::Misaligned, 0, |asm| {
        asm.push(Insn::ldx(Size::W, Reg::R3, Reg::R1, 0));
        end(asm);
    });
    refused(Violation::Misaligned, 0, |asm| {
        asm.push(Insn::ldx(Size::Dw, Reg::R3, Reg::R1, 4));
        end(asm);
    });
    for offset in [-8, CONTEXT_SIZE as i16, 4096] {
        refused(Violation::ContextRange, 0, |asm| {
            asm.push(Insn::ldx(Size::Dw, Reg::R3, Reg::R1, offset));
            end(asm);
        });
    }
    refused(Violation::ContextRange, 3, |asm| {
        asm.push(Insn::ldx(Size::Dw, Reg::R3, Reg::R1, 0));
        asm.push(Insn::alu_imm(Alu::And, Reg::R3, 8));
        asm.push(Insn::alu(Alu::Add, Reg::R1, Reg::R3));
        asm.push(Insn::ldx(Size::Dw, Reg::R3, Reg::R1, 0));
        end(asm);
    });
}

#[test]
fn the_context_is_not_written() {
    refused(Violation::ContextWrite, 0, |asm| {
        asm.push(Insn::st(Size::Dw, Reg::R1, 24, 0));
        end(asm);
    });
    refused(Violation::ContextWrite, 2, |asm| {
        asm.push(Insn::mov_imm(Reg::R2, 1));
        asm.push(Insn::alu_imm(Alu::Add, Reg::R1, 8));
        asm.push(Insn::stx(Size::Dw, Reg::R1, -8, Reg::R2));
        end(asm);
    });
    refused(Violation::Pointer, 0, |asm| {
        asm.push(Insn::stx(Size::Dw, Reg::R10, -8, Reg::R1));
        end(asm);
    });
}

#[test]
fn there_are_no_loops() {
    refused(Violation::Loop, 1, |asm| {
        asm.push(Insn::mov_imm(Reg::R0, 0));
        asm.push(Insn::ja(-1));
        asm.push(Insn::exit());
    });
    // One that never ends, and one that does after ten rounds.
    for condition in [Cond::Ge, Cond::Lt] {
        refused(Violation::Loop, 2, |asm| {
            asm.push(Insn::mov_imm(Reg::R0, 0));
            let top = asm.label();
            asm.bind(top);
            asm.push(Insn::alu_imm(Alu::Add, Reg::R0, 1));
            asm.jump_if_imm(condition, Reg::R0, 10, top);
            asm.push(Insn::exit());
        });
    }
}

#[test]
fn the_longest_path_is_counted() {
    let steps = |object: &Object| verify(object).unwrap().programs[0].max_steps;
    assert_eq!(steps(&common::delayed_fsync()), 5);
    // 17 slots, one of them the second half of a `lddw`.
    assert_eq!(steps(&common::every()), 16);
}

#[test]
fn map_values_have_bounds() {
    accepted(|asm| {
        lookup_checked(asm);
        asm.push(Insn::ldx(Size::Dw, Reg::R1, Reg::R0, 8));
        asm.push(Insn::stx(Size::Dw, Reg::R0, 0, Reg::R1));
        end(asm);
    });
    for (offset, store) in [(16, false), (-8, false), (16, true), (-8, true)] {
        refused(Violation::OutOfBounds, 9, |asm| {
            lookup_checked(asm);
            asm.push(match store {
                true => Insn::st(Size::Dw, Reg::R0, offset, 0),
                false => Insn::ldx(Size::Dw, Reg::R1, Reg::R0, offset),
            });
            end(asm);
        });
    }
    // By an index from a register, in bounds or not.
    refused(Violation::PointerArithmetic, 11, |asm| {
        lookup_checked(asm);
        asm.push(Insn::ldx(Size::Dw, Reg::R1, Reg::R0, 0));
        asm.push(Insn::alu(Alu::Add, Reg::R0, Reg::R1));
        asm.push(Insn::ldx(Size::Dw, Reg::R1, Reg::R0, 0));
        end(asm);
    });
}

#[test]
fn map_values_are_words() {
    refused(Violation::Misaligned, 9, |asm| {
        lookup_checked(asm);
        asm.push(Insn::ldx(Size::W, Reg::R1, Reg::R0, 0));
        end(asm);
    });
    refused(Violation::Misaligned, 9, |asm| {
        lookup_checked(asm);
        asm.push(Insn::st(Size::Dw, Reg::R0, 4, 0));
        end(asm);
    });
}

#[test]
fn a_lookup_may_be_null() {
    refused(Violation::NullPointer, 6, |asm| {
        lookup(asm);
        asm.push(Insn::ldx(Size::Dw, Reg::R1, Reg::R0, 0));
        end(asm);
    });
}

#[test]
fn a_key_must_be_written() {
    refused(Violation::Uninitialised, 4, |asm| {
        asm.push(Insn::mov(Reg::R2, Reg::R10));
        asm.push(Insn::alu_imm(Alu::Add, Reg::R2, -4));
        asm.load_map(Reg::R1, 0);
        asm.push(Insn::call(Helper::MapLookup));
        end(asm);
    });
    // PREVAIL would let these pass.
    for (kind, at) in [(Violation::Stack, 0), (Violation::Stack, 4096), (Violation::Stack, -516)] {
        refused(kind, 4, |asm| {
            asm.push(Insn::mov(Reg::R2, Reg::R10));
            asm.push(Insn::alu_imm(Alu::Add, Reg::R2, at));
            asm.load_map(Reg::R1, 0);
            asm.push(Insn::call(Helper::MapLookup));
            end(asm);
        });
    }
    refused(Violation::Misaligned, 5, |asm| {
        asm.push(Insn::st(Size::Dw, Reg::R10, -8, 0));
        asm.push(Insn::mov(Reg::R2, Reg::R10));
        asm.push(Insn::alu_imm(Alu::Add, Reg::R2, -6));
        asm.load_map(Reg::R1, 0);
        asm.push(Insn::call(Helper::MapLookup));
        end(asm);
    });
    refused(Violation::Pointer, 3, |asm| {
        asm.push(Insn::mov_imm(Reg::R2, 64));
        asm.load_map(Reg::R1, 0);
        asm.push(Insn::call(Helper::MapLookup));
        end(asm);
    });
    refused(Violation::Pointer, 2, |asm| {
        asm.push(Insn::mov(Reg::R2, Reg::R1));
        asm.push(Insn::mov_imm(Reg::R1, 1));
        asm.push(Insn::call(Helper::MapLookup));
        end(asm);
    });
}

#[test]
fn parameters_are_not_written() {
    let mut object = common::window();
    let program = &mut object.programs[1];
    let load = program.insns.iter().position(|i| i.class() == op::LDX);
    let slot = load.unwrap();
    program.insns[slot] = Insn::st(Size::Dw, Reg::R0, 0, 1);
    program.insns[slot + 1] = Insn::call(Helper::Request);
    object.programs.remove(0);
    check_refused(&object, Violation::ParameterWrite, slot as u32);
}

/// Slots 0–8: the value of the parameters' map, in r0, not null. The object is `window`'s, which has
/// nothing but parameters; and what `code` adds.
fn with_params(code: impl FnOnce(&mut Asm)) -> Object {
    let mut asm = Asm::new();
    asm.place(1, 1);
    lookup_checked(&mut asm);
    code(&mut asm);
    let mut object = common::window();
    object.programs = vec![asm.finish(Hook::Fdatasync).unwrap()];
    object
}

/// The rules on the parameters hold through every pointer that the memory analysis would let pass.
#[test]
fn parameters_are_not_written_through_a_pointer_that_is_not_followed() {
    let store = |asm: &mut Asm, through| {
        asm.push(Insn::st(Size::Dw, through, 0, 1));
        end(asm);
    };
    // Spilled to the stack and loaded again.
    let spilled = with_params(|asm| {
        asm.push(Insn::stx(Size::Dw, Reg::R10, -16, Reg::R0));
        asm.push(Insn::ldx(Size::Dw, Reg::R3, Reg::R10, -16));
        store(asm, Reg::R3);
    });
    check_refused(&spilled, Violation::Pointer, 9);
    // A number from a register added to it; and it added to a number.
    let computed = with_params(|asm| {
        asm.push(Insn::mov_imm(Reg::R3, 0));
        asm.push(Insn::alu(Alu::Add, Reg::R0, Reg::R3));
        store(asm, Reg::R0);
    });
    check_refused(&computed, Violation::PointerArithmetic, 11);
    let added = with_params(|asm| {
        asm.push(Insn::mov_imm(Reg::R3, 0));
        asm.push(Insn::alu(Alu::Add, Reg::R3, Reg::R0));
        store(asm, Reg::R3);
    });
    check_refused(&added, Violation::PointerArithmetic, 11);
    // So far away that the distance is not followed, and back.
    let far = with_params(|asm| {
        for step in [i32::MAX, i32::MAX, -i32::MAX, -i32::MAX] {
            asm.push(Insn::alu_imm(Alu::Add, Reg::R0, step));
        }
        store(asm, Reg::R0);
    });
    check_refused(&far, Violation::PointerArithmetic, 13);
    // One of two places, by the path that was taken.
    let either = with_params(|asm| {
        asm.push(Insn::mov(Reg::R3, Reg::R0));
        asm.push(Insn::ldx(Size::Dw, Reg::R4, Reg::R0, 0));
        let same = asm.label();
        asm.jump_if_imm(Cond::Gt, Reg::R4, 7, same);
        asm.push(Insn::mov(Reg::R3, Reg::R10));
        asm.push(Insn::alu_imm(Alu::Add, Reg::R3, -16));
        asm.bind(same);
        store(asm, Reg::R3);
    });
    check_refused(&either, Violation::PointerArithmetic, 14);
    // Kept in a value of the state, from where another call would load it.
    refused(Violation::Pointer, 9, |asm| {
        lookup_checked(asm);
        asm.push(Insn::stx(Size::Dw, Reg::R0, 0, Reg::R0));
        asm.push(Insn::ldx(Size::Dw, Reg::R3, Reg::R0, 0));
        store(asm, Reg::R3);
    });
    // A copy, and a known distance there and back, are still the parameters.
    let copied = with_params(|asm| {
        asm.push(Insn::mov(Reg::R3, Reg::R0));
        asm.push(Insn::alu_imm(Alu::Add, Reg::R3, 8));
        asm.push(Insn::alu_imm(Alu::Sub, Reg::R3, 8));
        store(asm, Reg::R3);
    });
    check_refused(&copied, Violation::ParameterWrite, 12);
}

#[test]
fn helpers_are_ours() {
    for number in [0, 2, 6, 58, 0xcff, 0xd02, -1] {
        refused(Violation::UnknownHelper, 0, |asm| {
            let mut call = Insn::call(Helper::Request);
            call.imm = number;
            asm.push(call);
            end(asm);
        });
    }
}

#[test]
fn registers_have_values() {
    refused(Violation::Uninitialised, 0, |asm| {
        asm.push(Insn::mov(Reg::R0, Reg::R3));
        asm.push(Insn::exit());
    });
    refused(Violation::Uninitialised, 0, |asm| asm.push(Insn::exit()));
    // A call leaves nothing in r1.
    refused(Violation::Uninitialised, 2, |asm| {
        asm.push(Insn::mov_imm(Reg::R1, 1));
        asm.push(Insn::call(Helper::Await));
        asm.push(Insn::call(Helper::Await));
        end(asm);
    });
    // On one of two paths.
    refused(Violation::Uninitialised, 4, |asm| {
        let other = asm.label();
        asm.push(Insn::ldx(Size::Dw, Reg::R2, Reg::R1, 0));
        asm.jump_if_imm(Cond::Eq, Reg::R2, 0, other);
        asm.push(Insn::mov_imm(Reg::R0, 1));
        asm.bind(other);
        asm.push(Insn::mov_imm(Reg::R2, 1));
        asm.push(Insn::exit());
    });
}

#[test]
fn the_stack_has_bounds() {
    accepted(|asm| {
        asm.push(Insn::st(Size::Dw, Reg::R10, -512, 1));
        asm.push(Insn::ldx(Size::Dw, Reg::R0, Reg::R10, -512));
        asm.push(Insn::exit());
    });
    for offset in [0, -4, -516, -520, 8, i16::MIN, i16::MAX] {
        refused(Violation::Stack, 0, |asm| {
            asm.push(Insn::st(Size::Dw, Reg::R10, offset, 1));
            end(asm);
        });
    }
}

#[test]
fn jumps_stay_inside() {
    for offset in [2, 5, -3, i16::MAX, i16::MIN] {
        refused(Violation::Jump, 0, |asm| {
            asm.push(Insn::ja(offset));
            end(asm);
        });
    }
    // Into the middle of a `lddw`.
    refused(Violation::Jump, 0, |asm| {
        asm.push(Insn::jump_imm(Cond::Eq, Reg::R1, 0, 1));
        asm.load_imm(Reg::R2, u64::MAX << 32);
        end(asm);
    });
}

#[test]
fn the_end_is_not_passed() {
    refused(Violation::NoExit, 0, |asm| asm.push(Insn::mov_imm(Reg::R0, 1)));
    refused(Violation::NoExit, 2, |asm| {
        end(asm);
        asm.push(Insn::call(Helper::Request));
    });
    refused(Violation::Length, 0, |_| {});
    refused(Violation::Length, 0, |asm| {
        asm.extend(std::iter::repeat_n(Insn::mov_imm(Reg::R0, 1), MAX_SLOTS));
        asm.push(Insn::exit());
    });
}

#[test]
fn divisors_are_not_zero() {
    refused(Violation::Division, 2, |asm| {
        asm.push(Insn::ldx(Size::Dw, Reg::R2, Reg::R1, 0));
        asm.push(Insn::mov_imm(Reg::R0, 100));
        asm.push(Insn::alu(Alu::Div, Reg::R0, Reg::R2));
        asm.push(Insn::exit());
    });
    refused(Violation::Division, 1, |asm| {
        asm.push(Insn::mov_imm(Reg::R0, 100));
        asm.push(Insn::alu_imm(Alu::Mod, Reg::R0, 0));
        asm.push(Insn::exit());
    });
    accepted(|asm| {
        asm.push(Insn::ldx(Size::Dw, Reg::R2, Reg::R1, 0));
        asm.push(Insn::mov_imm(Reg::R0, 100));
        let zero = asm.label();
        asm.jump_if_imm(Cond::Eq, Reg::R2, 0, zero);
        asm.push(Insn::alu(Alu::Div, Reg::R0, Reg::R2));
        asm.bind(zero);
        asm.push(Insn::exit());
    });
}

#[test]
fn pointers_are_not_numbers() {
    refused(Violation::Pointer, 0, |asm| {
        asm.push(Insn::call(Helper::Await));
        end(asm);
    });
    refused(Violation::Pointer, 1, |asm| {
        asm.push(Insn::mov(Reg::R0, Reg::R10));
        asm.push(Insn::exit());
    });
    refused(Violation::Pointer, 1, |asm| {
        asm.push(Insn::mov_imm(Reg::R3, 4096));
        asm.push(Insn::ldx(Size::Dw, Reg::R0, Reg::R3, 0));
        asm.push(Insn::exit());
    });
    refused(Violation::Pointer, 9, |asm| {
        lookup_checked(asm);
        asm.push(Insn::stx(Size::Dw, Reg::R0, 0, Reg::R10));
        end(asm);
    });
    refused(Violation::Pointer, 9, |asm| {
        lookup_checked(asm);
        asm.push(Insn::jump_imm(Cond::Gt, Reg::R0, 0, 0));
        end(asm);
    });
    refused(Violation::Pointer, 2, |asm| {
        asm.load_map(Reg::R1, 0);
        asm.push(Insn::ldx(Size::Dw, Reg::R0, Reg::R1, 0));
        asm.push(Insn::exit());
    });
}

#[test]
fn the_jit_must_know_the_instruction() {
    let insn = |opcode, src, offset, imm| Insn { opcode, dst: 0, src, offset, imm };
    let unknown = [
        // Atomic add, also the old name `xadd`.
        insn(op::STX | 0xc0 | op::DW, 0, -8, 0),
        // `callx`, a call inside the program, a call by BTF.
        insn(op::JMP | op::CALL | op::X, 0, 0, 0),
        insn(op::JMP | op::CALL, 1, 0, 0),
        insn(op::JMP | op::CALL, 2, 0, 1),
        // Packet access.
        insn(op::LD | 0x20 | op::W, 0, 0, 0),
        insn(op::LD | 0x40 | op::W, 0, 0, 0),
        // Version 4: sign-extending loads and moves, `gotol`, `bswap`, signed division.
        insn(op::LDX | 0x80 | op::W, 1, 0, 0),
        insn(op::ALU64 | op::X | Alu::Mov as u8, 1, 8, 0),
        insn(op::JMP32 | op::JA, 0, 0, 0),
        insn(op::ALU64 | op::END, 0, 0, 16),
        insn(op::ALU64 | Alu::Div as u8, 0, 1, 3),
        // What the JIT gets wrong.
        insn(op::ALU | op::X | Alu::Mov as u8, 1, 0, 0),
        insn(op::ALU | op::END, 0, 0, 32),
        insn(op::ALU | Alu::Mod as u8, 0, 0, 3),
        // Fields that must be 0.
        insn(op::JMP | op::EXIT, 0, 0, 1),
        insn(op::JMP | op::JA, 3, 0, 0),
        insn(op::ALU64 | Alu::Lsh as u8, 0, 0, 64),
        // Other pseudo loads.
        insn(op::LDDW, 1, 0, 1),
        insn(op::LDDW, 2, 0, 1),
    ];
    for insn in unknown {
        refused(Violation::Instruction, 1, |asm| {
            asm.push(Insn::mov_imm(Reg::R0, 1));
            asm.push(insn);
            if insn.is_lddw() {
                asm.push(SECOND_HALF);
            }
            end(asm);
        });
    }
}

const SECOND_HALF: Insn = Insn { opcode: 0, dst: 0, src: 0, offset: 0, imm: 0 };

#[test]
fn registers_exist() {
    refused(Violation::Register, 0, |asm| {
        asm.push(Insn { dst: 11, ..Insn::mov_imm(Reg::R0, 1) });
        end(asm);
    });
    refused(Violation::Register, 0, |asm| {
        asm.push(Insn::mov_imm(Reg::R10, 1));
        end(asm);
    });
    refused(Violation::Register, 0, |asm| {
        asm.push(Insn::jump_imm(Cond::Eq, Reg::R10, 0, 0));
        end(asm);
    });
}

#[test]
fn relocations_are_of_maps() {
    let mut object = common::window();
    object.programs.remove(0);
    let slot = object.programs[0].relocs[0].slot;
    object.programs[0].relocs[0].map = 7;
    check_refused(&object, Violation::Instruction, slot);
    object.programs[0].relocs[0].map = 0;
    object.programs[0].relocs[0].slot = 0;
    let rejections = verify(&object).unwrap_err();
    assert_eq!(rejections[0].kind, Violation::Instruction);
}

#[test]
fn a_rejection_names_the_line() {
    let mut object = common::every();
    let slot = object.programs[0].insns.len() - 5;
    object.programs[0].insns[slot] = Insn::st(Size::Dw, Reg::R0, 16, 0);
    let rejections = verify(&object).unwrap_err();
    let text = rejections[0].to_string();
    let start = "fdatasync, instruction 12 (line 2, column 5): \
                 accesses memory outside the value of the map: ";
    assert!(text.starts_with(start), "{text}");
}
