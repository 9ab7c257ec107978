//! Objects that somebody changed: reading and verifying never panics, and what is still accepted
//! runs on the careful machine without a fault.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

use crate::common;
use crate::machine::{Machine, random};
use durac_abi::Object;
use durac_abi::elf;
use durac_abi::insn::{Alu, Cond, Insn, op};
use durac_verify::verify;

/// Runs every program of an accepted object on a few inputs.
#[track_caller]
fn run_all(object: &Object, what: &str) {
    for program in &object.programs {
        for seed in [1, 0x9e37_79b9_7f4a_7c15, 0xdead_beef] {
            let mut machine = Machine::new(object, program, seed);
            if let Err(fault) = machine.run() {
                let code = durac_abi::disasm::print(program, object);
                panic!("{what}: accepted, but {fault}\n{code}");
            }
        }
    }
}

#[test]
fn policies_run() {
    for object in common::all() {
        verify(&object).unwrap();
        run_all(&object, &object.meta.policy);
    }
}

/// Every bit of the code, one at a time.
#[test]
fn flipped_bits_of_the_code() {
    let (mut accepted, mut refused) = (0, 0);
    for object in common::all() {
        for (index, program) in object.programs.iter().enumerate() {
            for slot in 0..program.insns.len() {
                for bit in 0..64 {
                    let mut changed = object.clone();
                    let insn = &mut changed.programs[index].insns[slot];
                    *insn = Insn::from_bytes(
                        (u64::from_le_bytes(insn.to_bytes()) ^ 1 << bit).to_le_bytes(),
                    );
                    if verify(&changed).is_ok() {
                        accepted += 1;
                        run_all(&changed, &format!("slot {slot} bit {bit}"));
                    } else {
                        refused += 1;
                    }
                }
            }
        }
    }
    // Most constants can be others without harm to memory; the rest must not get through.
    assert!(accepted > 100 && refused > 1000, "{accepted}, {refused}");
}

/// Every byte of the file: an error, or an object that does the same.
#[test]
fn flipped_bytes_of_the_file() {
    for object in [common::every()] {
        let bytes = durac_bpf::write(&object).unwrap();
        let object = elf::read(&bytes).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0xff;
            // Most bytes are of debug information, which the agent does not look at.
            if let Ok(other) = elf::read(&changed) {
                let code =
                    |o: &Object| o.programs.iter().map(|p| p.insns.clone()).collect::<Vec<_>>();
                assert_eq!(code(&other), code(&object), "byte {at}");
                assert_eq!((&other.maps, &other.meta), (&object.maps, &object.meta), "byte {at}");
            }
        }
    }
}

#[test]
fn cut_files() {
    let bytes = durac_bpf::write(&common::window()).unwrap();
    for length in 0..bytes.len() {
        assert!(elf::read(&bytes[..length]).is_err(), "{length} bytes");
    }
}

/// Good code with a few instructions replaced by others that look likely.
#[test]
fn replaced_instructions() {
    let mut state = 0x1234_5678;
    let mut accepted = 0;
    for round in 0..4000 {
        let objects = [common::every(), common::window()];
        let mut object = objects[round % objects.len()].clone();
        let program = object.programs.last_mut().unwrap();
        for _ in 0..=random(&mut state) % 2 {
            let slot = random(&mut state) as usize % program.insns.len();
            // Loads of maps stay: without them little is left to be accepted.
            let is_half = |slot: usize| program.insns.get(slot).is_some_and(|i| i.is_lddw());
            if !is_half(slot) && !is_half(slot.wrapping_sub(1)) {
                program.insns[slot] = likely(&mut state);
            }
        }
        if verify(&object).is_ok() {
            accepted += 1;
            run_all(&object, &format!("round {round}"));
        }
    }
    assert!(accepted > 100, "{accepted}");
}

fn likely(state: &mut u64) -> Insn {
    let mut pick = |from: &[u8]| from[random(state) as usize % from.len()];
    let x = pick(&[op::K, op::X]);
    let alu = Alu::ALL[usize::from(pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]))] as u8;
    let cond = Cond::ALL[usize::from(pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]))] as u8;
    let size = pick(&[op::DW, op::DW, op::W, op::B]);
    let opcode = match pick(&[0, 1, 2, 3, 4, 5]) {
        0 => pick(&[op::ALU, op::ALU64, op::ALU64]) | x | alu,
        1 => pick(&[op::JMP, op::JMP, op::JMP32]) | x | cond,
        2 => op::LDX | op::MEM | size,
        3 => op::STX | op::MEM | size,
        4 => op::ST | op::MEM | size,
        _ => op::ALU64 | x | Alu::Add as u8,
    };
    let (dst, src) = (pick(&[0, 0, 1, 2, 6, 10]), pick(&[0, 0, 1, 2, 6, 10]));
    let offset = i16::from(pick(&[0, 8, 16, 1, 2, 248, 252]) as i8);
    let imm = i32::from(pick(&[0, 1, 3, 8, 16, 255]) as i8);
    let class = opcode & op::CLASS_MASK;
    let is_store = class == op::ST;
    let by_register = matches!(class, op::LDX | op::STX) || !is_store && x == op::X;
    let is_alu = matches!(class, op::ALU | op::ALU64);
    Insn {
        opcode,
        dst,
        src: if by_register { src } else { 0 },
        offset: if is_alu { 0 } else { offset },
        imm: if by_register { 0 } else { imm },
    }
}
