//! Programs for BPFtime: what they may read, what they may call, and what stays the agent's.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::common;
use durac_abi::Object;
use durac_abi::bpftime::Argument;
use durac_abi::insn::{Insn, Reg, Size};
use durac_abi::object::EntryPoint;
use durac_abi::{Helper, Hook, Runtime};
use durac_bpf::asm::Asm;
use durac_verify::{Violation, verify};

/// An object with one program, attached to `f(fd, failed)`.
fn object(code: impl FnOnce(&mut Asm)) -> Object {
    let mut asm = Asm::new();
    code(&mut asm);
    let mut object = common::object("test", "", asm.finish(Hook::Fdatasync).unwrap());
    object.meta.runtime = Runtime::Bpftime;
    object.meta.entries = vec![EntryPoint {
        fd: None,
        hook: Hook::Fdatasync,
        symbol: "f".to_owned(),
        len: None,
        failed: Some(Argument(1)),
    }];
    object
}

#[track_caller]
fn refused(kind: Violation, slot: u32, code: impl FnOnce(&mut Asm)) {
    let rejections = verify(&object(code)).expect_err("accepted");
    let found: Vec<_> = rejections.iter().map(|r| (r.kind, r.slot)).collect();
    assert_eq!(found, [(kind, slot)], "{}", rejections[0]);
}

/// `r0 = 0; exit`
fn end(asm: &mut Asm) {
    asm.push(Insn::mov_imm(Reg::R0, 0));
    asm.push(Insn::exit());
}

#[test]
fn listed_arguments_and_its_helpers() {
    let object = object(|asm| {
        asm.push(Insn::mov(Reg::R9, Reg::R1));
        asm.push(Insn::ldx(Size::Dw, Reg::R6, Reg::R9, 104));
        asm.push(Insn::call(Helper::Clock));
        asm.push(Insn::call(Helper::Process));
        asm.push(Insn::mov(Reg::R1, Reg::R9));
        asm.push(Insn::mov(Reg::R2, Reg::R6));
        asm.push(Insn::call(Helper::Override));
        end(asm);
    });
    verify(&object).unwrap();
}

#[test]
fn other_registers_are_not_read() {
    // The first argument, the stack pointer, part of the second, outside, and written.
    let cases = [
        (112, Size::Dw, Violation::UnlistedReading),
        (152, Size::Dw, Violation::UnlistedReading),
        (104, Size::W, Violation::Misaligned),
        (100, Size::Dw, Violation::Misaligned),
        (168, Size::Dw, Violation::ContextRange),
        (-8, Size::Dw, Violation::ContextRange),
    ];
    for (offset, size, kind) in cases {
        refused(kind, 0, |asm| {
            asm.push(Insn::ldx(size, Reg::R2, Reg::R1, offset));
            end(asm);
        });
    }
    refused(Violation::ContextWrite, 1, |asm| {
        asm.push(Insn::mov_imm(Reg::R2, 0));
        asm.push(Insn::stx(Size::Dw, Reg::R1, 104, Reg::R2));
        end(asm);
    });
}

#[test]
fn each_runtime_has_its_own_helpers() {
    for helper in [Helper::Request, Helper::Await] {
        refused(Violation::UnknownHelper, 0, |asm| {
            asm.push(Insn::call(helper));
            end(asm);
        });
    }
    for number in [2, 6, 1006, 1007, 1008, 1009, 1010] {
        refused(Violation::UnknownHelper, 0, |asm| {
            asm.push(Insn { imm: number, ..Insn::call(Helper::Clock) });
            end(asm);
        });
    }
    for helper in [Helper::Clock, Helper::Process, Helper::Override] {
        let mut object = object(|asm| {
            asm.push(Insn::mov_imm(Reg::R2, 0));
            asm.push(Insn::call(helper));
            end(asm);
        });
        object.meta.runtime = Runtime::Agent;
        let rejections = verify(&object).expect_err("accepted");
        assert_eq!((rejections[0].kind, rejections[0].slot), (Violation::UnknownHelper, 1));
    }
}

#[test]
fn an_override_takes_the_registers_and_a_number() {
    refused(Violation::Pointer, 2, |asm| {
        asm.push(Insn::mov(Reg::R1, Reg::R10));
        asm.push(Insn::mov_imm(Reg::R2, 0));
        asm.push(Insn::call(Helper::Override));
        end(asm);
    });
    refused(Violation::Pointer, 1, |asm| {
        asm.push(Insn::mov(Reg::R2, Reg::R10));
        asm.push(Insn::call(Helper::Override));
        end(asm);
    });
    refused(Violation::Uninitialised, 0, |asm| {
        asm.push(Insn::call(Helper::Override));
        end(asm);
    });
}
