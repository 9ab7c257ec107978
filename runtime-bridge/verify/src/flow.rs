//! What registers hold, followed along every path: nothing, the context, a place on the stack, a
//! map, a value of a map, or something else.
//!
//! It finds what the next analysis cannot express, or reports in words that are hard to understand: reads of
//! registers without a value, accesses to the context other than 8-byte loads of listed fields,
//! accesses to map values other than 8 bytes, stores to the parameters. And it finds what the
//! analysis misses: a key outside the stack ([`on_stack`]).

use crate::quirks::on_stack;
use crate::{Fault, Violation};
use durac_abi::bpftime::{Argument, REGISTERS_SIZE};
use durac_abi::insn::{Alu, Cond, Insn, Size, op};
use durac_abi::notify::count::{self, SYNCS_MAP};
use durac_abi::object::{Object, Program};
use durac_abi::session::{SESSION_MAP, WORD_OTHER};
use durac_abi::{CONTEXT_SIZE, Helper, PARAMS_MAP, Reading};

/// Bytes of the key of a lookup.
const KEY_SIZE: i32 = 4;

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// Nothing.
    None,
    /// A number. Every pointer has a value of its own below, so nothing is a pointer unseen.
    Other,
    /// Computed from a pointer other than the context's, or one of several pointers. No access goes
    /// through it: which rules hold for what it points to is not known.
    Untracked,
    /// A place on the stack, by its distance from r10.
    Stack(i32),
    /// The context, at an offset.
    Context(i32),
    /// Something computed from the address of the context.
    NearContext,
    /// The address of a map.
    Map(u32),
    /// A value of a map at an offset, or null.
    Entry(u32, i32),
}

type Registers = [Value; 11];

impl Value {
    /// What is known where two paths meet.
    fn join(self, other: Value) -> Value {
        let context = |v| matches!(v, Value::Context(_) | Value::NearContext);
        match (self, other) {
            (a, b) if a == b => a,
            (Value::None, _) | (_, Value::None) => Value::None,
            (a, b) if context(a) || context(b) => Value::NearContext,
            _ => Value::Untracked,
        }
    }

    /// After adding a constant; beyond 32 bits the pointer is no longer followed.
    fn add(self, distance: i32) -> Value {
        match self {
            Value::Context(at) => {
                at.checked_add(distance).map_or(Value::NearContext, Value::Context)
            }
            Value::Stack(at) => at.checked_add(distance).map_or(Value::Untracked, Value::Stack),
            Value::Entry(map, at) => {
                at.checked_add(distance).map_or(Value::Untracked, |at| Value::Entry(map, at))
            }
            other => other.blur(),
        }
    }

    /// After arithmetic that is not followed.
    fn blur(self) -> Value {
        match self {
            Value::Context(_) | Value::NearContext => Value::NearContext,
            Value::None => Value::None,
            Value::Other => Value::Other,
            Value::Stack(_) | Value::Map(_) | Value::Entry(..) | Value::Untracked => {
                Value::Untracked
            }
        }
    }

    /// After arithmetic with another register, that is not followed.
    fn mix(self, other: Value) -> Value {
        match (self.blur(), other.blur()) {
            (Value::NearContext, _) | (_, Value::NearContext) => Value::NearContext,
            (Value::Other, other) => other,
            (own, _) => own,
        }
    }
}

/// Checks every reachable instruction and reports every fault. The shape of the program is good;
/// above all, jumps go forward, so that one pass over the code sees every path.
pub(crate) fn check(object: &Object, program: &Program) -> Result<(), Vec<Fault>> {
    let before = vec![None; program.insns.len()];
    let mut flow = Flow { object, program, before };
    let mut entry = [Value::None; 11];
    set(&mut entry, 1, Value::Context(0));
    set(&mut entry, 10, Value::Stack(0));
    flow.reach(0, entry);
    let slots = 0..program.insns.len() as u32;
    let faults: Vec<Fault> = slots.filter_map(|slot| flow.step(slot).err()).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

struct Flow<'a> {
    object: &'a Object,
    program: &'a Program,
    /// What the registers hold before each slot; none if no path leads there.
    before: Vec<Option<Registers>>,
}

fn get(registers: &Registers, number: u8) -> Value {
    registers.get(usize::from(number)).copied().unwrap_or(Value::None)
}

fn set(registers: &mut Registers, number: u8, value: Value) {
    if let Some(register) = registers.get_mut(usize::from(number)) {
        *register = value;
    }
}

/// The value of a register that is read at `slot`.
fn read(registers: &Registers, slot: u32, number: u8) -> Result<Value, Fault> {
    match get(registers, number) {
        Value::None => {
            let detail = format!("r{number}");
            Err(Fault::new(slot, Violation::Uninitialised, detail))
        }
        value => Ok(value),
    }
}

impl Flow<'_> {
    /// Notes that a path leads to `slot` with these registers.
    fn reach(&mut self, slot: u32, registers: Registers) {
        let Some(before) = self.before.get_mut(slot as usize) else {
            return;
        };
        let mut joined = registers;
        if let Some(known) = before {
            for (new, old) in joined.iter_mut().zip(known.iter()) {
                *new = new.join(*old);
            }
        }
        *before = Some(joined);
    }

    /// Follows one instruction to those after it.
    fn step(&mut self, slot: u32) -> Result<(), Fault> {
        let before = self.before.get(slot as usize).copied().flatten();
        let (Some(mut regs), Some(insn)) = (before, self.program.insns.get(slot as usize)) else {
            return Ok(());
        };
        let insn = *insn;
        let mut next = Some(slot + 1);
        match insn.class() {
            op::ALU | op::ALU64 => alu(&mut regs, slot, insn)?,
            op::JMP if insn.opcode == op::JMP | op::CALL => self.call(&mut regs, slot, insn)?,
            op::JMP if insn.opcode == op::JMP | op::EXIT => {
                read(&regs, slot, 0)?;
                next = None;
            }
            op::JMP | op::JMP32 => {
                if insn.opcode == op::JMP | op::JA {
                    next = None;
                } else {
                    compare(&regs, slot, insn)?;
                }
                if let Some(target) = insn.target(slot) {
                    self.reach(target, regs);
                }
            }
            op::LDX => {
                let base = read(&regs, slot, insn.src)?;
                self.access(base, slot, insn, false)?;
                set(&mut regs, insn.dst, Value::Other);
            }
            op::LD => {
                let mut relocs = self.program.relocs.iter();
                let reloc = relocs.find(|reloc| reloc.slot == slot);
                let value = reloc.map_or(Value::Other, |reloc| Value::Map(reloc.map));
                set(&mut regs, insn.dst, value);
                next = Some(slot + 2);
            }
            _ => {
                let base = read(&regs, slot, insn.dst)?;
                if insn.class() == op::STX && read(&regs, slot, insn.src)? != Value::Other {
                    // Where it is loaded again it could not be told from a number.
                    let detail = "an address is stored";
                    return Err(Fault::new(slot, Violation::Pointer, detail));
                }
                self.access(base, slot, insn, true)?;
            }
        }
        if let Some(next) = next {
            self.reach(next, regs);
        }
        Ok(())
    }

    /// A load or store at `insn.offset` from a base.
    fn access(&self, base: Value, slot: u32, insn: Insn, store: bool) -> Result<(), Fault> {
        let fault = |kind, detail: String| Err(Fault::new(slot, kind, detail));
        let size = Size::of_opcode(insn.opcode);
        let wide = size == Size::Dw;
        match base {
            Value::Context(_) | Value::NearContext if store => {
                fault(Violation::ContextWrite, String::new())
            }
            Value::NearContext => fault(Violation::ContextRange, "at an unknown offset".to_owned()),
            Value::Context(at) => {
                let at = i64::from(at) + i64::from(insn.offset);
                if self.object.meta.runtime.backend().needs_entry() {
                    return self.register(at, wide, slot);
                }
                let is_field = |r: &Reading| i64::from(r.offset()) == at;
                let Some(reading) = Reading::ALL.into_iter().find(is_field) else {
                    let kind = match (0..CONTEXT_SIZE as i64).contains(&at) {
                        true => Violation::Misaligned,
                        false => Violation::ContextRange,
                    };
                    return fault(kind, format!("offset {at}"));
                };
                let field = reading.field();
                if !wide {
                    fault(Violation::Misaligned, format!("part of the field `{field}`"))
                } else if !self.object.meta.reads.contains(&reading) {
                    fault(Violation::UnlistedReading, format!("`{field}`"))
                } else {
                    Ok(())
                }
            }
            Value::Entry(map, at) => {
                let at = i64::from(at) + i64::from(insn.offset);
                let name = self.object.map(map).map(|m| m.name);
                if !wide || at % 8 != 0 {
                    fault(Violation::Misaligned, format!("offset {at} in the map's value"))
                } else if store && name == Some(PARAMS_MAP) {
                    fault(Violation::ParameterWrite, String::new())
                } else if store && name == Some(SYNCS_MAP) {
                    fault(Violation::ParameterWrite, "of what the kernel counts".to_owned())
                } else if store && name == Some(SESSION_MAP) && at < 8 * WORD_OTHER as i64 {
                    fault(Violation::ParameterWrite, "of what the loader says".to_owned())
                } else {
                    Ok(())
                }
            }
            Value::Stack(at) => {
                let at = at.saturating_add(insn.offset.into());
                match on_stack(at, size.bytes().into()) {
                    true => Ok(()),
                    false => fault(Violation::Stack, format!("r10 {at:+}")),
                }
            }
            Value::Map(_) => {
                let detail = "a map is accessed without a lookup";
                fault(Violation::Pointer, detail.to_owned())
            }
            Value::Untracked => {
                let detail = "what the result points to is not followed";
                fault(Violation::PointerArithmetic, detail.to_owned())
            }
            // The next analysis refuses it: a number is no address.
            Value::None | Value::Other => Ok(()),
        }
    }

    /// A load from the registers: an argument that the note lists, whole.
    fn register(&self, at: i64, wide: bool, slot: u32) -> Result<(), Fault> {
        let entry = self.object.meta.entry(self.program.hook);
        let listed =
            entry.map(|entry| [entry.len, entry.fd, entry.failed]).into_iter().flatten().flatten();
        let offsets = listed.filter_map(Argument::offset).map(i64::from);
        let kind = match (0..REGISTERS_SIZE as i64).contains(&at) {
            true if !wide || at % 8 != 0 => Violation::Misaligned,
            true if offsets.into_iter().any(|offset| offset == at) => return Ok(()),
            true => Violation::UnlistedReading,
            false => Violation::ContextRange,
        };
        Err(Fault::new(slot, kind, format!("offset {at}")))
    }

    fn call(&self, regs: &mut Registers, slot: u32, insn: Insn) -> Result<(), Fault> {
        let mut result = Value::Other;
        match self.object.meta.runtime.backend().helper(insn.imm) {
            Some(Helper::MapLookup) => {
                let Value::Map(map) = read(regs, slot, 1)? else {
                    let detail = "r1 is not the address of one map";
                    return Err(Fault::new(slot, Violation::Pointer, detail));
                };
                let Value::Stack(at) = read(regs, slot, 2)? else {
                    let detail = "r2 is not the address of a key on the stack";
                    return Err(Fault::new(slot, Violation::Pointer, detail));
                };
                if !on_stack(at, KEY_SIZE) {
                    let detail = format!("the key of a lookup is at r10 {at:+}");
                    return Err(Fault::new(slot, Violation::Stack, detail));
                }
                if at % KEY_SIZE != 0 {
                    // The agent reads it as one number.
                    let detail = format!("the key of a lookup is at r10 {at:+}");
                    return Err(Fault::new(slot, Violation::Misaligned, detail));
                }
                result = Value::Entry(map, 0);
            }
            Some(Helper::Await) => {
                let Value::Other = read(regs, slot, 1)? else {
                    let detail = "r1 is an address, not a number of syncs";
                    return Err(Fault::new(slot, Violation::Pointer, detail));
                };
            }
            Some(Helper::Override) => {
                let Value::Context(0) = read(regs, slot, 1)? else {
                    let detail = "r1 is not the address of the registers";
                    return Err(Fault::new(slot, Violation::Pointer, detail));
                };
                let Value::Other = read(regs, slot, 2)? else {
                    let detail = "r2 is an address, not a result";
                    return Err(Fault::new(slot, Violation::Pointer, detail));
                };
            }
            Some(
                Helper::MapUpdate
                | Helper::RingInit
                | Helper::RingSync
                | Helper::RingWait
                | Helper::RingSubmit,
            ) if self.object.kernel.is_empty() => {
                let detail = "the object has no kernel programs that count its syncs";
                return Err(Fault::new(slot, Violation::UnknownHelper, detail));
            }
            Some(Helper::MapUpdate) => self.updates(regs, slot)?,
            Some(Helper::RingSync) => {
                let Value::Other = read(regs, slot, 1)? else {
                    let detail = "r1 is an address, not a descriptor";
                    return Err(Fault::new(slot, Violation::Pointer, detail));
                };
            }
            Some(
                Helper::Request
                | Helper::Clock
                | Helper::Process
                | Helper::RingInit
                | Helper::RingWait
                | Helper::RingSubmit,
            )
            | None => {}
        }
        set(regs, 0, result);
        for scratch in 1..=5 {
            set(regs, scratch, Value::None);
        }
        Ok(())
    }
}

impl Flow<'_> {
    /// Only the process that the kernel counts for is written, from known places of the stack.
    fn updates(&self, regs: &Registers, slot: u32) -> Result<(), Fault> {
        let of_syncs = match read(regs, slot, 1)? {
            Value::Map(map) => self.object.map(map).is_some_and(|map| map.name == SYNCS_MAP),
            _ => false,
        };
        if !of_syncs {
            let detail = "r1 is not the address of the map of the syncs";
            return Err(Fault::new(slot, Violation::Pointer, detail));
        }
        for (register, size) in [(2, KEY_SIZE), (3, count::VALUE)] {
            let value = read(regs, slot, register)?;
            let good = |at| on_stack(at, size) && at % KEY_SIZE == 0;
            if !matches!(value, Value::Stack(at) if good(at)) {
                let detail = format!("r{register} is not the address of {size} bytes on the stack");
                return Err(Fault::new(slot, Violation::Stack, detail));
            }
        }
        read(regs, slot, 4)?;
        Ok(())
    }
}

/// A comparison: of numbers, or of a pointer with null.
fn compare(regs: &Registers, slot: u32, insn: Insn) -> Result<(), Fault> {
    let left = read(regs, slot, insn.dst)?;
    let (right, is_zero) = match insn.opcode & op::X {
        0 => (Value::Other, insn.imm == 0),
        _ => (read(regs, slot, insn.src)?, false),
    };
    let null_test = is_zero
        && insn.class() == op::JMP
        && matches!(Cond::of_opcode(insn.opcode), Some(Cond::Eq | Cond::Ne));
    if (left, right) == (Value::Other, Value::Other) || null_test {
        return Ok(());
    }
    // It is harmless, but what the program does would depend on where things are in memory.
    let detail = "an address is compared with something else than null";
    Err(Fault::new(slot, Violation::Pointer, detail))
}

fn alu(regs: &mut Registers, slot: u32, insn: Insn) -> Result<(), Fault> {
    let wide = insn.class() == op::ALU64;
    let by_register = insn.opcode & op::X != 0;
    let alu = Alu::of_opcode(insn.opcode);
    let operand = match by_register {
        true => read(regs, slot, insn.src)?,
        false => Value::Other,
    };
    let value = if alu == Some(Alu::Mov) {
        match wide {
            true => operand,
            false => operand.blur(),
        }
    } else {
        let old = read(regs, slot, insn.dst)?;
        match alu {
            Some(Alu::Add) if wide && !by_register => old.add(insn.imm),
            Some(Alu::Sub) if wide && !by_register => match insn.imm.checked_neg() {
                Some(distance) => old.add(distance),
                None => old.blur(),
            },
            _ => old.mix(operand),
        }
    };
    set(regs, insn.dst, value);
    Ok(())
}
