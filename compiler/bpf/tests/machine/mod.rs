//! A slow machine that runs a program by the book (instruction-set.rst) and checks every access.
//!
//! It is what the verifier is measured against: nothing it accepts may fail here. It shares no
//! code with the verifier, and takes no address for granted that it did not hand out itself.

#![allow(clippy::indexing_slicing, reason = "a test may fail")]

use durac_abi::Object;
use durac_abi::insn::{Alu, Cond, Insn, Size, op};
use durac_abi::object::Program;
use durac_abi::{CONTEXT_SIZE, Helper, Reading};

const STACK_SIZE: usize = 512;
const STACK: u64 = 0x1000_0000;
const CONTEXT: u64 = 0x2000_0000;
const MAPS: u64 = 0x3000_0000;
/// Distance of two maps' values in the address space.
const MAP_SPACE: u64 = 0x0100_0000;
/// Above the addresses of values: what a map itself is.
const MAP_ITSELF: u64 = 0x7000_0000;
/// More than any accepted loop takes.
const MAX_STEPS: usize = 2_000_000;

pub struct Machine<'a> {
    object: &'a Object,
    program: &'a Program,
    registers: [Option<u64>; 11],
    stack: [u8; STACK_SIZE],
    context: Vec<u8>,
    maps: Vec<Vec<u8>>,
    /// Helper numbers and arguments, in the order of the calls.
    pub calls: Vec<(Helper, u64)>,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    /// A machine whose context and maps are filled from `seed`.
    pub fn new(object: &'a Object, program: &'a Program, mut seed: u64) -> Self {
        let mut context = Vec::new();
        for reading in Reading::ALL {
            // The key of the log is one the agent would give; the rest can be anything.
            let value = match reading {
                Reading::Log => random(&mut seed) % 4,
                _ => small_or_large(&mut seed),
            };
            context.extend(value.to_le_bytes());
        }
        let mut maps = Vec::new();
        for map in &object.maps {
            let entries = map.max_entries as usize * map.fields.len();
            let mut bytes = Vec::new();
            // Only a few logs are ever used; the rest stays 0, which is quicker.
            for _ in 0..entries.min(16) {
                bytes.extend(small_or_large(&mut seed).to_le_bytes());
            }
            bytes.resize(8 * entries, 0);
            maps.push(bytes);
        }
        let mut registers = [None; 11];
        registers[1] = Some(CONTEXT);
        registers[10] = Some(STACK + STACK_SIZE as u64);
        Self {
            object,
            program,
            registers,
            stack: [0xaa; STACK_SIZE],
            context,
            maps,
            calls: Vec::new(),
        }
    }

    /// Runs to the end; gives r0.
    pub fn run(&mut self) -> Step<u64> {
        let mut slot = 0usize;
        for _ in 0..MAX_STEPS {
            let insn = *self.program.insns.get(slot).ok_or("ran out of the code")?;
            match self.step(slot, insn)? {
                Some(next) => slot = next,
                None => return self.read(0),
            }
        }
        Err("does not end".to_owned())
    }

    fn read(&self, register: u8) -> Step<u64> {
        let value = self.registers.get(usize::from(register));
        value.copied().flatten().ok_or_else(|| format!("r{register} has no value"))
    }

    fn write(&mut self, register: u8, value: u64) -> Step<()> {
        match self.registers.get_mut(usize::from(register)) {
            Some(place) if register < 10 => *place = Some(value),
            _ => return Err(format!("r{register} is written")),
        }
        Ok(())
    }

    fn operand(&self, insn: Insn) -> Step<u64> {
        match insn.opcode & op::X {
            0 => Ok(i64::from(insn.imm) as u64),
            _ => self.read(insn.src),
        }
    }

    fn step(&mut self, slot: usize, insn: Insn) -> Step<Option<usize>> {
        let jump = slot as i64 + 1 + i64::from(insn.offset);
        match insn.class() {
            op::ALU | op::ALU64 => {
                let value = self.arithmetic(insn)?;
                self.write(insn.dst, value)?;
            }
            op::JMP if insn.opcode == op::JMP | op::EXIT => return Ok(None),
            op::JMP if insn.opcode == op::JMP | op::CALL => self.call(insn)?,
            op::JMP if insn.opcode == op::JMP | op::JA => return Ok(Some(jump as usize)),
            op::JMP | op::JMP32 => {
                let (mut a, mut b) = (self.read(insn.dst)?, self.operand(insn)?);
                if insn.class() == op::JMP32 {
                    (a, b) = (a as i32 as i64 as u64, b as i32 as i64 as u64);
                }
                if holds(Cond::of_opcode(insn.opcode).ok_or("no condition")?, a, b) {
                    return Ok(Some(jump as usize));
                }
            }
            op::LD if insn.is_lddw() => {
                let high = self.program.insns.get(slot + 1).ok_or("half a lddw")?;
                let mut value = u64::from(high.imm as u32) << 32 | u64::from(insn.imm as u32);
                let mut relocs = self.program.relocs.iter();
                if let Some(reloc) = relocs.find(|r| r.slot as usize == slot) {
                    value = MAP_ITSELF + u64::from(reloc.map);
                }
                self.write(insn.dst, value)?;
                return Ok(Some(slot + 2));
            }
            op::LDX => {
                let at = self.read(insn.src)?.wrapping_add(insn.offset as u64);
                let bytes = self.memory(at, Size::of_opcode(insn.opcode), false)?;
                let mut word = [0; 8];
                word[..bytes.len()].copy_from_slice(bytes);
                self.write(insn.dst, u64::from_le_bytes(word))?;
            }
            op::ST | op::STX => {
                let at = self.read(insn.dst)?.wrapping_add(insn.offset as u64);
                let value = match insn.class() {
                    op::ST => i64::from(insn.imm) as u64,
                    _ => self.read(insn.src)?,
                };
                let bytes = self.memory(at, Size::of_opcode(insn.opcode), true)?;
                let length = bytes.len();
                bytes.copy_from_slice(&value.to_le_bytes()[..length]);
            }
            _ => return Err(format!("unknown instruction {insn}")),
        }
        Ok(Some(slot + 1))
    }

    fn arithmetic(&self, insn: Insn) -> Step<u64> {
        let wide = insn.class() == op::ALU64;
        let alu = Alu::of_opcode(insn.opcode).ok_or("no operation")?;
        let operand = match alu {
            Alu::Neg => 0,
            _ => self.operand(insn)?,
        };
        let old = match alu {
            Alu::Mov => 0,
            _ => self.read(insn.dst)?,
        };
        if wide {
            return Ok(compute64(alu, old, operand));
        }
        Ok(u64::from(compute32(alu, old as u32, operand as u32)))
    }

    fn memory(&mut self, at: u64, size: Size, store: bool) -> Step<&mut [u8]> {
        let length = usize::from(size.bytes());
        let (base, region): (u64, &mut [u8]) = if (MAPS..MAP_ITSELF).contains(&at) {
            let index = (at - MAPS) / MAP_SPACE;
            let map = self.maps.get_mut(index as usize).ok_or("no such map")?;
            let value_size = u64::from(self.object.maps[index as usize].value_size());
            let base = MAPS + index * MAP_SPACE;
            let entry = (at - base) / value_size;
            // An access must not reach into the next entry.
            let start = (entry * value_size) as usize;
            let end = start + value_size as usize;
            let value = map.get_mut(start..end).ok_or("outside the map")?;
            (base + start as u64, value)
        } else if (CONTEXT..CONTEXT + CONTEXT_SIZE as u64).contains(&at) {
            if store {
                return Err("the context is written".to_owned());
            }
            (CONTEXT, &mut self.context)
        } else {
            (STACK, &mut self.stack)
        };
        let start = at.wrapping_sub(base) as usize;
        let end = start.checked_add(length).ok_or("far outside")?;
        region.get_mut(start..end).ok_or_else(|| format!("access to {at:#x}"))
    }

    fn call(&mut self, insn: Insn) -> Step<()> {
        let helper = Helper::from_number(insn.imm).ok_or("unknown helper")?;
        let mut result = 0;
        match helper {
            Helper::MapLookup => {
                let index = self.read(1)?.wrapping_sub(MAP_ITSELF);
                let map = self.object.maps.get(index as usize).ok_or("no map")?;
                let (entries, size) = (map.max_entries, map.value_size());
                let at = self.read(2)?;
                let bytes = self.memory(at, Size::W, false)?;
                let key = u32::from_le_bytes(bytes.try_into().map_err(|_| "key")?);
                self.calls.push((helper, u64::from(key)));
                if key < entries {
                    result = MAPS + index * MAP_SPACE + u64::from(key) * u64::from(size);
                }
            }
            Helper::Request => self.calls.push((helper, 0)),
            Helper::MapUpdate
            | Helper::Clock
            | Helper::Process
            | Helper::Override
            | Helper::RingInit
            | Helper::RingSync
            | Helper::RingWait
            | Helper::RingSubmit => {
                return Err("not a helper of the agent".to_owned());
            }
            Helper::Await => {
                let distance = self.read(1)?;
                self.calls.push((helper, distance));
            }
        }
        self.registers[1..=5].fill(None);
        self.write(0, result)
    }
}

fn holds(cond: Cond, a: u64, b: u64) -> bool {
    let (sa, sb) = (a as i64, b as i64);
    match cond {
        Cond::Eq => a == b,
        Cond::Ne => a != b,
        Cond::Gt => a > b,
        Cond::Ge => a >= b,
        Cond::Lt => a < b,
        Cond::Le => a <= b,
        Cond::Set => a & b != 0,
        Cond::Sgt => sa > sb,
        Cond::Sge => sa >= sb,
        Cond::Slt => sa < sb,
        Cond::Sle => sa <= sb,
    }
}

fn compute64(alu: Alu, a: u64, b: u64) -> u64 {
    match alu {
        Alu::Add => a.wrapping_add(b),
        Alu::Sub => a.wrapping_sub(b),
        Alu::Mul => a.wrapping_mul(b),
        Alu::Div => a.checked_div(b).unwrap_or(0),
        Alu::Or => a | b,
        Alu::And => a & b,
        Alu::Lsh => a << (b & 63),
        Alu::Rsh => a >> (b & 63),
        Alu::Neg => a.wrapping_neg(),
        Alu::Mod => a.checked_rem(b).unwrap_or(a),
        Alu::Xor => a ^ b,
        Alu::Mov => b,
        Alu::Arsh => (a as i64 >> (b & 63)) as u64,
    }
}

fn compute32(alu: Alu, a: u32, b: u32) -> u32 {
    match alu {
        Alu::Add => a.wrapping_add(b),
        Alu::Sub => a.wrapping_sub(b),
        Alu::Mul => a.wrapping_mul(b),
        Alu::Div => a.checked_div(b).unwrap_or(0),
        Alu::Or => a | b,
        Alu::And => a & b,
        Alu::Lsh => a << (b & 31),
        Alu::Rsh => a >> (b & 31),
        Alu::Neg => a.wrapping_neg(),
        Alu::Mod => a.checked_rem(b).unwrap_or(a),
        Alu::Xor => a ^ b,
        Alu::Mov => b,
        Alu::Arsh => (a as i32 >> (b & 31)) as u32,
    }
}

/// The next number of a xorshift generator; the state must not be 0.
pub fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn small_or_large(state: &mut u64) -> u64 {
    let number = random(state);
    match number % 3 {
        0 => number >> 4,
        1 => number >> 32,
        _ => (number >> 8) % 64,
    }
}
