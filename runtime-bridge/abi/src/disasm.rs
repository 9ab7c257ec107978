//! Programs as text: what `durac compile --emit asm` prints and snapshots show.
//!
//! One instruction has the form of `llvm-objdump -d`; a listing adds labels, the names of maps and
//! helpers, and the source lines the code came from.

use crate::insn::{Alu, Cond, Insn, Size, op};
use crate::notify::{KernelMap, KernelProgram, STRUCTS};
use crate::object::{Object, Program};
use crate::{Helper, KernelHelper};
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

/// A number as LLVM prints it: `0x18`, `-0x18`.
struct Hex(i64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{:#x}", self.0.unsigned_abs())
    }
}

/// A number with its sign always: `+0x5`.
struct Signed(i64);

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "" } else { "+" };
        write!(f, "{sign}{}", Hex(self.0))
    }
}

/// A place in memory: `*(u64 *)(r6 + 0x18)`.
struct Memory(Size, u8, i16);

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Memory(size, base, offset) = *self;
        let bits = u32::from(size.bytes()) * 8;
        let sign = if offset < 0 { '-' } else { '+' };
        let distance = offset.unsigned_abs();
        write!(f, "*(u{bits} *)(r{base} {sign} {distance:#x})")
    }
}

impl Insn {
    /// Writes the instruction; `target` is what to print after `goto`.
    fn write(self, f: &mut dyn fmt::Write, target: &dyn fmt::Display) -> fmt::Result {
        let Insn { opcode, dst, src, .. } = self;
        let imm = Hex(i64::from(self.imm));
        let by_register = opcode & op::X != 0;
        match self.class() {
            op::ALU | op::ALU64 => {
                let r = if self.class() == op::ALU { 'w' } else { 'r' };
                match Alu::of_opcode(opcode) {
                    Some(Alu::Neg) => write!(f, "{r}{dst} = -{r}{dst}"),
                    Some(alu) if by_register => write!(f, "{r}{dst} {} {r}{src}", alu.sign()),
                    Some(alu) => write!(f, "{r}{dst} {} {imm}", alu.sign()),
                    None => write!(f, "<unknown {opcode:#04x}>"),
                }
            }
            op::JMP if opcode == op::JMP | op::JA => write!(f, "goto {target}"),
            op::JMP if opcode == op::JMP | op::EXIT => f.write_str("exit"),
            op::JMP if opcode == op::JMP | op::CALL => write!(f, "call {imm}"),
            op::JMP | op::JMP32 => {
                let r = if self.class() == op::JMP32 { 'w' } else { 'r' };
                match Cond::of_opcode(opcode) {
                    Some(cond) if by_register => {
                        write!(f, "if {r}{dst} {} {r}{src} goto {target}", cond.sign())
                    }
                    Some(cond) => write!(f, "if {r}{dst} {} {imm} goto {target}", cond.sign()),
                    None => write!(f, "<unknown {opcode:#04x}>"),
                }
            }
            class => {
                let size = Size::of_opcode(opcode);
                match (class, opcode & op::MODE_MASK) {
                    _ if self.is_lddw() => {
                        write!(f, "r{dst} = {:#x} ll", self.imm as u32)
                    }
                    (op::LDX, op::MEM) => {
                        write!(f, "r{dst} = {}", Memory(size, src, self.offset))
                    }
                    (op::STX, op::MEM) => {
                        write!(f, "{} = r{src}", Memory(size, dst, self.offset))
                    }
                    (op::STX, op::ATOMIC) if size == Size::Dw => self.write_atomic(f, dst, src),
                    (op::ST, op::MEM) => write!(f, "{} = {imm}", Memory(size, dst, self.offset)),
                    _ => write!(f, "<unknown {opcode:#04x}>"),
                }
            }
        }
    }
}

impl Insn {
    fn write_atomic(self, f: &mut dyn fmt::Write, dst: u8, src: u8) -> fmt::Result {
        let sign = if self.offset < 0 { '-' } else { '+' };
        let place = format!("r{dst} {sign} {:#x}", self.offset.unsigned_abs());
        match self.imm {
            op::ATOMIC_ADD => write!(f, "lock *(u64 *)({place}) += r{src}"),
            imm if imm == op::ATOMIC_ADD | op::FETCH => {
                write!(f, "r{src} = atomic_fetch_add((u64 *)({place}), r{src})")
            }
            op::COMPARE_EXCHANGE => write!(f, "r0 = cmpxchg_64({place}, r0, r{src})"),
            imm => write!(f, "<unknown atomic {imm:#x}>"),
        }
    }
}

/// The text of one slot. Of a `lddw` only the low half is known here; [`print()`] shows all of it.
impl fmt::Display for Insn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &Signed(i64::from(self.offset)))
    }
}

/// Where a jump goes in a listing.
struct Target(Option<u32>);

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(slot) => write!(f, "L{slot}"),
            None => f.write_str("nowhere"),
        }
    }
}

/// The listing of one program: source line, then its instructions. Ends with a newline.
///
/// Slots are decimal; a label is `L` and its slot.
#[must_use]
pub fn print(program: &Program, object: &Object) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write_program(&mut out, program, object);
    out
}

/// The listing of every program of an object and a line for each map.
#[must_use]
pub fn print_object(object: &Object) -> String {
    let mut out = String::new();
    for map in &object.maps {
        let fields = map.fields.join(", ");
        let _ = writeln!(out, "map {}[{}] {{ {fields} }}", map.name, map.max_entries);
    }
    for program in &object.programs {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&print(program, object));
    }
    out
}

/// The listing of the kernel's programs and a line for each of their maps; empty if there are none.
#[must_use]
pub fn print_kernel(object: &Object) -> String {
    let mut out = String::new();
    if object.kernel.is_empty() {
        return out;
    }
    let maps = object.meta.runtime.backend().counter().maps();
    for map in maps {
        let kind = if map.key.is_empty() { "array" } else { "hash" };
        let (key, fields) = (map.key.join(", "), map.fields.join(", "));
        let key = if key.is_empty() { String::new() } else { format!("{{ {key} }}: ") };
        let _ = writeln!(out, "{kind} {}[{}] {key}{{ {fields} }}", map.name, map.max_entries);
    }
    for program in &object.kernel {
        out.push('\n');
        // Writing to a `String` cannot fail.
        let _ = write_kernel_program(&mut out, program, maps);
    }
    out
}

fn write_kernel_program(
    out: &mut String,
    program: &KernelProgram,
    maps: &[KernelMap],
) -> fmt::Result {
    let targets = targets(&program.insns);
    let mut insns = (0u32..).zip(&program.insns);
    writeln!(out, "{}:", program.section)?;
    while let Some((slot, insn)) = insns.next() {
        if targets.contains(&slot) {
            writeln!(out, "L{slot}:")?;
        }
        write!(out, "{slot:>6}: ")?;
        let map = program.relocs.iter().find(|reloc| reloc.slot == slot);
        match map.and_then(|reloc| maps.get(reloc.map as usize)) {
            Some(map) => {
                insns.next();
                write!(out, "r{} = {} ll", insn.dst, map.name)?;
            }
            None if insn.is_lddw() => {
                let high = insns.next().map_or(0, |(_, high)| high.imm);
                write_number(out, *insn, high)?;
            }
            None => insn.write(out, &Target(insn.target(slot)))?,
        }
        if insn.opcode == op::JMP | op::CALL
            && let Some(helper) = KernelHelper::from_number(insn.imm)
        {
            write!(out, " <{}>", helper.name())?;
        }
        if let Some(reloc) = program.fields.iter().find(|reloc| reloc.slot == slot)
            && let Some((name, _)) = STRUCTS.get(reloc.field.place().0)
        {
            write!(out, " <{name}.{}>", reloc.field.member())?;
        }
        out.push('\n');
    }
    Ok(())
}

fn write_program(out: &mut String, program: &Program, object: &Object) -> fmt::Result {
    let targets = targets(&program.insns);
    let source: Vec<&str> = object.source.text.lines().collect();
    let mut places = program.lines.iter().peekable();
    let mut shown = None;
    let mut insns = (0u32..).zip(&program.insns);

    writeln!(out, "{}:", program.hook.section(object.meta.runtime))?;
    while let Some((slot, insn)) = insns.next() {
        let mut place = None;
        while let Some(line) = places.next_if(|line| line.slot <= slot) {
            place = Some(line.line);
        }
        if let Some(line) = place.filter(|line| shown != Some(*line)) {
            shown = Some(line);
            let text = (line as usize).checked_sub(1).and_then(|index| source.get(index));
            match text {
                Some(text) => writeln!(out, "; {line}: {}", text.trim())?,
                None if line == 0 => writeln!(out, "; no source")?,
                None => writeln!(out, "; {line}")?,
            }
        }
        if targets.contains(&slot) {
            writeln!(out, "L{slot}:")?;
        }
        write!(out, "{slot:>6}: ")?;
        if insn.is_lddw() {
            let high = insns.next().map_or(0, |(_, high)| high.imm);
            write_lddw(out, program, object, slot, *insn, high)?;
        } else {
            insn.write(out, &Target(insn.target(slot)))?;
            if insn.opcode == op::JMP | op::CALL
                && let Some(helper) = Helper::from_number(insn.imm)
            {
                write!(out, " <{}>", helper.name())?;
            }
        }
        out.push('\n');
    }
    Ok(())
}

fn write_lddw(
    out: &mut String,
    program: &Program,
    object: &Object,
    slot: u32,
    low: Insn,
    high: i32,
) -> fmt::Result {
    let reloc = program.relocs.iter().find(|reloc| reloc.slot == slot);
    let map = reloc.and_then(|reloc| object.map(reloc.map));
    match map {
        Some(map) => write!(out, "r{} = {} ll", low.dst, map.name),
        None => write_number(out, low, high),
    }
}

fn write_number(out: &mut String, low: Insn, high: i32) -> fmt::Result {
    let value = u64::from(high as u32) << 32 | u64::from(low.imm as u32);
    write!(out, "r{} = {value:#x} ll", low.dst)
}

/// The slots that jumps go to.
fn targets(insns: &[Insn]) -> BTreeSet<u32> {
    (0u32..)
        .zip(insns)
        .filter(|(_, insn)| insn.is_jump())
        .filter_map(|(slot, insn)| insn.target(slot))
        .collect()
}
