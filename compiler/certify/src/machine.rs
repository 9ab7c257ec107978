//! What a program can do, path by path: the instructions of RFC 9669 on linear sums instead of numbers.
//!
//! Every register holds a number, as a sum of variables, or an address. A branch follows both ways, each with
//! what it says. What is not linear becomes a new variable of which only the range is known, so a path allows
//! more than the machine does, never less. An instruction, an address or a jump that is not known here ends the
//! check.
//!
//! It knows nothing of the engine: what a reading, a wait or a verdict means is asked of [`World`].

use crate::linear::{Facts, MOST, Sum, Symbols, TooLarge};
use durac_abi::insn::Insn;
use durac_abi::object::{Object, Program};
use durac_abi::{PARAMS_MAP, STATE_MAP};
use std::collections::BTreeMap;

/// Paths of a program, and instructions on all of them, that are followed.
const MAX_PATHS: usize = 1024;
const MAX_STEPS: usize = 40_000;
/// Bytes of the stack.
const STACK: i64 = 512;

/// Why a program is not followed.
pub type Why = &'static str;

/// Why, and at which instruction.
pub type At = (u32, Why);

/// What the machine asks of its surroundings.
pub trait World {
    /// The field of the context at this offset.
    fn reading(&self, run: &mut Run, symbols: &mut Symbols, offset: i64) -> Result<Sum, Why>;
    /// A wait at this distance: what is known after it, and how much is pending at most, for each way it can go.
    fn waits(&self, distance: &Sum) -> Result<Vec<(Facts, Sum)>, TooLarge>;
    /// The parameter with this number.
    fn param(&self, index: usize) -> Option<Sum>;
    /// Whether a program of another call can change the state at any moment.
    fn shares_state(&self) -> bool;
}

/// A path, up to now or to its end.
#[derive(Clone, Debug)]
pub struct Run {
    /// What holds on it.
    pub facts: Facts,
    /// The state variables.
    pub state: Vec<Sum>,
    /// What the program has read since it last waited, by the offset.
    pub read: BTreeMap<i64, Sum>,
    /// What was pending at most after its last wait.
    pub waited: Option<Sum>,
    /// What it returns.
    pub result: Sum,
    slot: usize,
    registers: [Value; 11],
    stack: BTreeMap<i64, (i64, Value)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    /// It must not be used.
    Nothing,
    Number(Sum),
    Context,
    Stack(i64),
    Map(Area),
    Entry(Area, i64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Area {
    Params,
    State,
}

/// The field `log` of the context, which is the key of the log's state.
pub const LOG: i64 = 0;

/// The machine that runs one program.
pub struct Machine<'a, W> {
    /// What it asks.
    pub world: &'a W,
    /// The variables.
    pub symbols: &'a mut Symbols,
    /// The instructions.
    pub program: &'a Program,
    /// Whose maps it loads.
    pub object: &'a Object,
    /// Numbers have 64 bits; a test takes that away.
    pub wraps: bool,
}

impl From<TooLarge> for Stop {
    fn from(_: TooLarge) -> Self {
        Stop("its numbers or paths are too large")
    }
}

impl From<Why> for Stop {
    fn from(why: Why) -> Self {
        Stop(why)
    }
}

struct Stop(Why);

type Step<T> = Result<T, Stop>;

impl<W: World> Machine<'_, W> {
    /// Every path through the program.
    pub fn paths(&mut self, state: Vec<Sum>, facts: Facts) -> Result<Vec<Run>, At> {
        let mut registers = [const { Value::Nothing }; 11];
        registers[1] = Value::Context;
        registers[10] = Value::Stack(0);
        let first = Run {
            facts,
            state,
            read: BTreeMap::new(),
            waited: None,
            result: Sum::default(),
            slot: 0,
            registers,
            stack: BTreeMap::new(),
        };
        let (mut open, mut ended, mut steps) = (vec![first], Vec::new(), 0);
        while let Some(run) = open.pop() {
            let (slot, known) = (run.slot, run.facts.len());
            steps += 1;
            let at = |Stop(why): Stop| (slot as u32, why);
            if steps > MAX_STEPS || open.len() + ended.len() > MAX_PATHS {
                return Err(at(TooLarge.into()));
            }
            match self.step(run).map_err(at)? {
                Next::Ends(run) => ended.push(*run),
                Next::Goes(runs) => {
                    let (several, before) = (runs.len() > 1, known);
                    for run in runs {
                        // Jumps go forward, so every path ends.
                        if run.slot <= slot {
                            return Err((slot as u32, "it jumps back"));
                        }
                        let (facts, more) = run.facts.split_at(before.min(run.facts.len()));
                        let excluded = several
                            && self.symbols.excluded(facts, more).map_err(|e| at(e.into()))?;
                        if !excluded {
                            open.push(run);
                        }
                    }
                }
            }
        }
        Ok(ended)
    }

    fn step(&mut self, mut run: Run) -> Step<Next> {
        let slot = run.slot;
        let insn = *self.program.insns.get(slot).ok_or("it runs past its end")?;
        run.slot += 1;
        let (class, code) = (insn.opcode & 7, insn.opcode & 0xf0);
        match class {
            0 => self.load_wide(run, slot, insn),
            1..=3 => self.memory(run, insn).map(Next::one),
            4 | 7 => self.arithmetic(run, insn),
            5 if code == 0x80 => self.call(run, insn),
            5 if code == 0x90 && insn == exit() => {
                run.result = number(get(&run, 0)?)?;
                Ok(Next::Ends(Box::new(run)))
            }
            _ => self.jump(run, insn),
        }
    }

    /// `lddw`: a number, or the address of a map.
    fn load_wide(&mut self, mut run: Run, slot: usize, insn: Insn) -> Step<Next> {
        let high = *self.program.insns.get(slot + 1).ok_or("it runs past its end")?;
        let plain = insn.opcode == 0x18 && insn.src == 0 && insn.offset == 0;
        if !plain || (high.opcode, high.dst, high.src, high.offset) != (0, 0, 0, 0) {
            return Err("an unknown instruction".into());
        }
        run.slot += 1;
        let map = self.program.relocs.iter().find(|reloc| reloc.slot as usize == slot);
        let value = match map {
            Some(reloc) => {
                let map = self.object.maps.get(reloc.map as usize);
                match map.map(|map| map.name.as_str()) {
                    Some(PARAMS_MAP) => Value::Map(Area::Params),
                    Some(STATE_MAP) => Value::Map(Area::State),
                    _ => return Err("an unknown map".into()),
                }
            }
            None => {
                let bits = u64::from(high.imm as u32) << 32 | u64::from(insn.imm as u32);
                Value::Number(Sum::number(bits.into()))
            }
        };
        set(&mut run, insn.dst, value)?;
        Ok(Next::one(run))
    }

    // ---- memory ----

    fn memory(&mut self, mut run: Run, insn: Insn) -> Step<Run> {
        let (class, mode) = (insn.opcode & 7, insn.opcode & 0xe0);
        let size: i64 = match insn.opcode & 0x18 {
            0x00 => 4,
            0x08 => 2,
            0x10 => 1,
            _ => 8,
        };
        // Only regular loads and stores; the fields that one does not use are 0.
        let unused = if class == 2 { insn.src != 0 } else { insn.imm != 0 };
        if mode != 0x60 || unused {
            return Err("an unknown instruction".into());
        }
        let base = if class == 1 { insn.src } else { insn.dst };
        let (base, offset) = (get(&run, base)?.clone(), i64::from(insn.offset));
        if class == 1 {
            let value = self.load(&mut run, &base, offset, size)?;
            set(&mut run, insn.dst, value)?;
            return Ok(run);
        }
        let value = match class {
            2 => Value::Number(Sum::number(i128::from(i64::from(insn.imm) as u64))),
            _ => get(&run, insn.src)?.clone(),
        };
        self.store(&mut run, &base, offset, size, value)?;
        Ok(run)
    }

    fn load(&mut self, run: &mut Run, base: &Value, offset: i64, size: i64) -> Step<Value> {
        Ok(match base {
            Value::Context if size == 8 => Value::Number(match run.read.get(&offset) {
                Some(sum) => sum.clone(),
                None => {
                    let sum = self.world.reading(run, self.symbols, offset)?;
                    run.read.insert(offset, sum.clone());
                    sum
                }
            }),
            Value::Stack(at) => match run.stack.get(&(at + offset)) {
                Some((stored, value)) if *stored == size => value.clone(),
                _ => return Err("it reads what it did not write".into()),
            },
            Value::Entry(area, at) if size == 8 => {
                let index = index(at + offset)?;
                Value::Number(match area {
                    Area::Params => self.world.param(index).ok_or("it reads no parameter")?,
                    Area::State if index >= run.state.len() => {
                        return Err("it reads no state".into());
                    }
                    Area::State if self.world.shares_state() => self.any("state", MOST),
                    Area::State => run.state.get(index).cloned().ok_or("it reads no state")?,
                })
            }
            _ => return Err("it reads what it must not".into()),
        })
    }

    fn store(
        &mut self,
        run: &mut Run,
        to: &Value,
        offset: i64,
        size: i64,
        value: Value,
    ) -> Step<()> {
        match to {
            Value::Stack(at) => {
                let at = at + offset;
                if at < -STACK || at + size > 0 {
                    return Err("it writes outside of its stack".into());
                }
                let value = match value {
                    Value::Number(sum) if size < 8 => {
                        let most = (1 << (8 * size)) - 1;
                        Value::Number(self.kept_if(run, sum, most)?)
                    }
                    Value::Number(_) => value,
                    _ if size == 8 => value,
                    _ => return Err("it writes a part of an address".into()),
                };
                run.stack.retain(|begin, (len, _)| begin + *len <= at || at + size <= *begin);
                run.stack.insert(at, (size, value));
            }
            Value::Entry(Area::State, at) if size == 8 => {
                let sum = number(&value)?;
                let place = run.state.get_mut(index(at + offset)?);
                *place.ok_or("it writes no state")? = sum;
            }
            _ => return Err("it writes what it must not".into()),
        }
        Ok(())
    }

    /// A new number of which only the range is known.
    fn any(&mut self, name: &str, most: i128) -> Sum {
        Sum::var(self.symbols.fresh(name, 0, most))
    }

    /// The number, if it is at most `most`; else any that is.
    fn kept_if(&mut self, run: &Run, sum: Sum, most: i128) -> Step<Sum> {
        let fits = self.symbols.at_most(&run.facts, &sum, most)?;
        Ok(if fits { sum } else { self.any("part", most) })
    }

    // ---- arithmetic ----

    fn arithmetic(&mut self, mut run: Run, insn: Insn) -> Step<Next> {
        let (wide, code) = (insn.opcode & 7 == 7, insn.opcode & 0xf0);
        let by_register = insn.opcode & 8 != 0;
        let unused = insn.offset != 0 || if by_register { insn.imm != 0 } else { insn.src != 0 };
        if code > 0xc0 || unused || code == 0x80 && (by_register || insn.imm != 0) {
            return Err("an unknown instruction".into());
        }
        let operand = match (by_register, wide) {
            (true, _) => get(&run, insn.src)?.clone(),
            (false, true) => Value::Number(Sum::number(i128::from(i64::from(insn.imm) as u64))),
            (false, false) => Value::Number(Sum::number(i128::from(insn.imm as u32))),
        };
        if code == 0xb0 && wide {
            set(&mut run, insn.dst, operand)?;
            return Ok(Next::one(run));
        }
        if code != 0xb0
            && let Value::Stack(at) | Value::Entry(_, at) = get(&run, insn.dst)?
        {
            let by = number(&operand)?.as_number().filter(|_| wide && code == 0x00 && !by_register);
            let at = at + by.ok_or("it computes with an address")? as u64 as i64;
            let moved = match get(&run, insn.dst)? {
                Value::Entry(area, _) => Value::Entry(*area, at),
                _ => Value::Stack(at),
            };
            set(&mut run, insn.dst, moved)?;
            return Ok(Next::one(run));
        }
        let right = number(&operand)?;
        let left = if code == 0xb0 { Sum::default() } else { number(get(&run, insn.dst)?)? };
        if wide {
            return self.wide(run, insn.dst, code, left, right);
        }
        let sum = self.narrow(&run, code, left, right)?;
        set(&mut run, insn.dst, Value::Number(sum))?;
        Ok(Next::one(run))
    }

    /// 64-bit arithmetic. What can wrap around is followed both ways.
    fn wide(&mut self, run: Run, dst: u8, code: u8, a: Sum, b: Sum) -> Step<Next> {
        let known = (a.as_number(), b.as_number());
        let turn = MOST + 1;
        let (sum, facts) = match (code, known) {
            (0x00, _) => {
                let sum = a.plus(1, &b)?;
                return self.wraps(run, dst, &sum, &sum.and(-turn)?);
            }
            (0x10, _) => {
                let sum = a.less(&b)?;
                return self.wraps(run, dst, &sum.and(turn)?, &sum);
            }
            (0x80, _) if a.as_number() == Some(0) => (a, vec![]),
            (0x80, _) => {
                let sum = Sum::default().less(&a)?;
                return self.wraps(run, dst, &sum.and(turn)?, &sum);
            }
            (_, (Some(a), Some(b))) => {
                let value = folded(code, a as u64, b as u64).ok_or("an unknown instruction")?;
                (Sum::number(value.into()), vec![])
            }
            (0x20, (_, Some(by))) => self.product(&run, &a, by)?,
            (0x20, (Some(by), _)) => self.product(&run, &b, by)?,
            (0x60, (_, Some(by))) => self.product(&run, &a, 1 << (by & 63))?,
            (0x30, (_, Some(by))) if by > 0 => self.quotient(&a, by)?,
            (0x70, (_, Some(by))) => self.quotient(&a, 1 << (by & 63))?,
            (0x30, (_, Some(_))) => (Sum::default(), vec![]),
            (0x90, (_, Some(0))) => (a, vec![]),
            (0x90, (_, Some(by))) => {
                let (quotient, facts) = self.quotient(&a, by)?;
                (a.plus(-by, &quotient)?, facts)
            }
            (0x50, (_, Some(mask))) => (self.any("and", mask), vec![]),
            _ => (self.any("number", MOST), vec![]),
        };
        Ok(Next::one(with(run, dst, sum, facts)?))
    }

    /// The register is `low` or `high`, whichever is a number of 64 bits; they differ by 2^64.
    fn wraps(&mut self, run: Run, dst: u8, high: &Sum, low: &Sum) -> Step<Next> {
        if !self.wraps {
            return Ok(Next::one(with(
                run,
                dst,
                if low.constant() < 0 { high } else { low }.clone(),
                vec![],
            )?));
        }
        let mut ways = Vec::new();
        for sum in [high, low] {
            let facts = vec![sum.clone(), Sum::number(MOST).less(sum)?];
            ways.push(with(run.clone(), dst, sum.clone(), facts)?);
        }
        Ok(Next::Goes(ways))
    }

    fn product(&mut self, run: &Run, a: &Sum, by: i128) -> Step<(Sum, Facts)> {
        let fits = match a.times(by) {
            Ok(sum) if self.symbols.at_most(&run.facts, &sum, MOST)? => Some(sum),
            _ => None,
        };
        Ok((fits.unwrap_or_else(|| self.any("product", MOST)), vec![]))
    }

    fn quotient(&mut self, a: &Sum, by: i128) -> Step<(Sum, Facts)> {
        let quotient = self.any("quotient", MOST / by);
        let rest = a.plus(-by, &quotient)?;
        Ok((quotient, vec![rest.clone(), Sum::number(by - 1).less(&rest)?]))
    }

    /// 32-bit arithmetic: exact where it is plain, else any number of 32 bits.
    fn narrow(&mut self, run: &Run, code: u8, a: Sum, b: Sum) -> Step<Sum> {
        const LOW: i128 = u32::MAX as i128;
        let (a, b) = (self.kept_if(run, a, LOW)?, self.kept_if(run, b, LOW)?);
        let sum = match code {
            0xb0 => return Ok(b),
            0x00 => a.plus(1, &b)?,
            0x10 => a.less(&b)?,
            _ => return Ok(self.any("number", LOW)),
        };
        let negative = Sum::default().less(&sum)?;
        match self.symbols.at_most(&run.facts, &negative, 0)? {
            true => self.kept_if(run, sum, LOW),
            false => Ok(self.any("number", LOW)),
        }
    }

    // ---- control ----

    fn call(&mut self, mut run: Run, insn: Insn) -> Step<Next> {
        if (insn.opcode, insn.dst, insn.src, insn.offset) != (0x85, 0, 0, 0) {
            return Err("an unknown instruction".into());
        }
        let mut runs = match insn.imm {
            // bpf_map_lookup_elem: the entry, or null.
            1 => {
                let entry = self.entry(&mut run)?;
                let mut null = run.clone();
                set(&mut run, 0, entry)?;
                set(&mut null, 0, Value::Number(Sum::default()))?;
                vec![run, null]
            }
            // durac_request: what it starts only makes more durable.
            0xd00 => {
                set(&mut run, 0, Value::Number(Sum::default()))?;
                vec![run]
            }
            // durac_await
            0xd01 => {
                let distance = number(get(&run, 1)?)?;
                let ways = self.world.waits(&distance)?;
                set(&mut run, 0, Value::Number(Sum::default()))?;
                // All is read anew, but the key of the log.
                run.read.retain(|offset, _| *offset == LOG);
                let goes_on =
                    |(facts, most)| Run { waited: Some(most), ..known(run.clone(), facts) };
                ways.into_iter().map(goes_on).collect()
            }
            _ => return Err("an unknown function".into()),
        };
        for run in &mut runs {
            for scratch in 1..=5 {
                set(run, scratch, Value::Nothing)?;
            }
        }
        Ok(Next::Goes(runs))
    }

    /// The entry of a map that r1 and r2 name: the only one of the parameters, and that of this log.
    fn entry(&mut self, run: &mut Run) -> Step<Value> {
        let (Value::Map(area), Value::Stack(at)) = (get(run, 1)?.clone(), get(run, 2)?.clone())
        else {
            return Err("it looks up no map".into());
        };
        let Value::Number(key) = self.load(run, &Value::Stack(at), 0, 4)? else {
            return Err("its key is not a number".into());
        };
        let right = match area {
            Area::Params => key == Sum::default(),
            Area::State => self.load(run, &Value::Context, LOG, 8)? == Value::Number(key),
        };
        if right { Ok(Value::Entry(area, 0)) } else { Err("its key is of another entry".into()) }
    }

    fn jump(&mut self, mut run: Run, insn: Insn) -> Step<Next> {
        let (narrow, code) = (insn.opcode & 7 == 6, insn.opcode & 0xf0);
        let target = run.slot as i64 + i64::from(insn.offset);
        let target = usize::try_from(target).map_err(|_| "it jumps back")?;
        if code == 0x00 {
            if (insn.opcode, insn.dst, insn.src, insn.imm) != (0x05, 0, 0, 0) {
                return Err("an unknown instruction".into());
            }
            run.slot = target;
            return Ok(Next::one(run));
        }
        let by_register = insn.opcode & 8 != 0;
        if code > 0xd0
            || code == 0x80
            || code == 0x90
            || if by_register { insn.imm != 0 } else { insn.src != 0 }
        {
            return Err("an unknown instruction".into());
        }
        let right = match (by_register, narrow) {
            (true, _) => get(&run, insn.src)?.clone(),
            (false, false) => Value::Number(Sum::number(i128::from(i64::from(insn.imm) as u64))),
            (false, true) => Value::Number(Sum::number(i128::from(insn.imm as u32))),
        };
        let left = get(&run, insn.dst)?.clone();
        // An address of an entry is not null.
        if let (Value::Entry(..), Value::Number(zero), false) = (&left, &right, narrow)
            && zero.as_number() == Some(0)
            && matches!(code, 0x10 | 0x50)
        {
            run.slot = if code == 0x50 { target } else { run.slot };
            return Ok(Next::one(run));
        }
        let (left, right) = (number(&left)?, number(&right)?);
        let [holds, fails] = self.compared(&run, code, narrow, &left, &right)?;
        let mut runs = Vec::new();
        for (ways, slot) in [(holds, target), (fails, run.slot)] {
            for facts in ways {
                let mut way = known(run.clone(), facts);
                way.slot = slot;
                runs.push(way);
            }
        }
        Ok(Next::Goes(runs))
    }

    /// What is known when a condition holds, and when it does not: each in one of several ways.
    fn compared(
        &self,
        run: &Run,
        code: u8,
        narrow: bool,
        a: &Sum,
        b: &Sum,
    ) -> Step<[Vec<Facts>; 2]> {
        let signed = matches!(code, 0x60 | 0x70 | 0xc0 | 0xd0);
        let most = match (narrow, signed) {
            (false, false) => MOST,
            (false, true) => MOST >> 1,
            (true, false) => MOST >> 32,
            (true, true) => MOST >> 33,
        };
        let plain = (self.symbols.at_most(&run.facts, a, most)?
            && self.symbols.at_most(&run.facts, b, most)?)
            || !narrow && !signed;
        if !plain || code == 0x40 {
            return Ok([vec![vec![]], vec![vec![]]]);
        }
        let over = |a: &Sum, b: &Sum| a.less(b)?.and(-1);
        let (above, below) = (vec![over(a, b)?], vec![over(b, a)?]);
        let (from, up_to) = (vec![a.less(b)?], vec![b.less(a)?]);
        let same = vec![vec![a.less(b)?, b.less(a)?]];
        let (above, below, from, up_to) = (vec![above], vec![below], vec![from], vec![up_to]);
        let differs = || [above.clone(), below.clone()].concat();
        Ok(match code {
            0x10 => [same, differs()],
            0x50 => [differs(), same],
            0x20 | 0x60 => [above, up_to],
            0x30 | 0x70 => [from, below],
            0xa0 | 0xc0 => [below, from],
            _ => [up_to, above],
        })
    }
}

enum Next {
    Ends(Box<Run>),
    Goes(Vec<Run>),
}

impl Next {
    fn one(run: Run) -> Self {
        Next::Goes(vec![run])
    }
}

fn exit() -> Insn {
    Insn { opcode: 0x95, dst: 0, src: 0, offset: 0, imm: 0 }
}

fn get(run: &Run, register: u8) -> Step<&Value> {
    match run.registers.get(usize::from(register)) {
        Some(Value::Nothing) | None => Err("it reads a register that holds nothing".into()),
        Some(value) => Ok(value),
    }
}

fn set(run: &mut Run, register: u8, value: Value) -> Step<()> {
    let place = run.registers.get_mut(usize::from(register)).filter(|_| register < 10);
    *place.ok_or("it writes a register that it must not")? = value;
    Ok(())
}

fn number(value: &Value) -> Step<Sum> {
    match value {
        Value::Number(sum) => Ok(sum.clone()),
        _ => Err("it computes with an address".into()),
    }
}

/// The member of a map's value at this offset.
fn index(offset: i64) -> Step<usize> {
    let aligned = usize::try_from(offset).ok().filter(|offset| offset % 8 == 0);
    Ok(aligned.ok_or("it reads or writes between two members of a map")? / 8)
}

fn known(mut run: Run, facts: Facts) -> Run {
    // What says nothing is left out.
    run.facts.extend(facts.into_iter().filter(|fact| fact.as_number().is_none_or(|n| n < 0)));
    run
}

fn with(run: Run, dst: u8, sum: Sum, facts: Facts) -> Step<Run> {
    let mut run = known(run, facts);
    set(&mut run, dst, Value::Number(sum))?;
    Ok(run)
}

/// 64-bit arithmetic of two numbers.
fn folded(code: u8, a: u64, b: u64) -> Option<u64> {
    let by = (b & 63) as u32;
    Some(match code {
        0x20 => a.wrapping_mul(b),
        0x30 => a.checked_div(b).unwrap_or(0),
        0x40 => a | b,
        0x50 => a & b,
        0x60 => a << by,
        0x70 => a >> by,
        0x90 => a.checked_rem(b).unwrap_or(a),
        0xa0 => a ^ b,
        0xb0 => b,
        0xc0 => (a as i64 >> by) as u64,
        _ => return None,
    })
}
