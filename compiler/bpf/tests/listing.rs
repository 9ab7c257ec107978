//! Listings of programs, as `durac compile --emit asm` prints them.

use crate::common;
use durac_abi::disasm::{print_kernel, print_object};
use durac_abi::insn::{Alu, Cond, Insn, Reg, Size};

#[test]
fn a_parameter() {
    insta::assert_snapshot!(print_object(&common::window()));
}

#[test]
fn a_state() {
    insta::assert_snapshot!(print_object(&common::every()));
}

#[test]
fn without_source() {
    let mut object = common::delayed_fsync();
    object.source.text.clear();
    insta::assert_snapshot!(print_object(&object));
}

#[test]
fn the_kernels_programs() {
    let listing = print_kernel(&common::notify());
    // The maps, then a paragraph for each program: one snapshot each, short enough to be read.
    for paragraph in listing.split("\n\n") {
        let section = paragraph.lines().next().and_then(|line| line.strip_suffix(':'));
        let name = section.unwrap_or("maps").replace('/', "_");
        insta::assert_snapshot!(format!("kernel_{name}"), paragraph);
    }
    assert_eq!(print_kernel(&common::window()), "");
}

#[test]
fn every_instruction() {
    let mut text = String::new();
    let mut show = |insn: Insn| text.push_str(&format!("{insn}\n"));
    for alu in Alu::ALL {
        show(Insn::alu_imm(alu, Reg::R1, 24));
        show(Insn::alu32(alu, Reg::R1, Reg::R2));
    }
    for cond in Cond::ALL {
        show(Insn::jump_imm(cond, Reg::R1, -1, 5));
        show(Insn::jump32(cond, Reg::R1, Reg::R2, -5));
    }
    for size in [Size::B, Size::H, Size::W, Size::Dw] {
        show(Insn::ldx(size, Reg::R1, Reg::R6, 24));
        show(Insn::stx(size, Reg::R10, -8, Reg::R1));
        show(Insn::st(size, Reg::R10, -8, 7));
    }
    show(Insn::ja(0));
    show(Insn::exit());
    show(Insn::atomic_add(Reg::R9, 48, Reg::R1));
    show(Insn::fetch_add(Reg::R9, -8, Reg::R1));
    show(Insn::compare_exchange(Reg::R9, 64, Reg::R8));
    show(Insn { opcode: 0xdb, imm: 0x50, ..Insn::exit() });
    show(Insn { opcode: 0xe3, ..Insn::exit() });
    insta::assert_snapshot!(text);
}
