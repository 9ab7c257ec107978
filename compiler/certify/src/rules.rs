//! What the engine promises, and the conditions that an invariant has to meet.
//!
//! Written from docs/loss.md, docs/proof.md and the contract of the helpers, not from the engine's code.
//! Everything is counted at one log:
//!
//! | variable | is |
//! |---|---|
//! | `lost` | sync calls that are acknowledged and not durable: what a power loss takes |
//! | state | the policy's state variables, if calls do not overlap |
//! | parameters | as the newest acknowledged call saw them |
//!
//! A program begins with some `lost`. Syncs end at any moment, so of these calls `left ≤ lost` are not
//! durable when it ends. Its own call adds `own ≤ 1` to them if it is acknowledged.
//!
//! If calls overlap, `lost` is the number of all calls up to the highest acknowledged one that are not durable, and
//! nothing is known of it when a program begins, nor of the state.

use crate::linear::{Facts, MOST, Sum, Symbols, TooLarge, Var};
use crate::machine::{LOG, Machine, Run, Why, World};
use crate::{Flaw, Refused};
use durac_abi::certificate::{Certificate, Form};
use durac_abi::object::{Map, Object, Program};
use durac_abi::{
    CLOCK_MOST, Callers, Hook, MAX_LOGS, PARAMS_MAP, READING_MOST, Reading, Runtime, STATE_MAP,
};

/// The calls that are counted are at most this many (assumption A4 of docs/proof.md).
const CALLS: i128 = READING_MOST as i128;
/// Cells, and facts in one, that are looked at.
const MAX_CELLS: usize = 64;

/// A condition: where the facts hold, one of the cells does.
#[derive(Clone, Debug)]
pub struct Condition {
    /// What it is about.
    pub name: String,
    /// What is given.
    pub given: Facts,
    /// What follows: one of them, all of its facts.
    pub cells: Vec<Facts>,
}

/// All conditions, and their variables.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// The variables.
    pub symbols: Symbols,
    /// First that a log begins in the invariant, then that each step stays in it, last that it implies the bound.
    pub all: Vec<Condition>,
}

/// What the invariant speaks of.
#[derive(Clone)]
struct State {
    lost: Sum,
    vars: Vec<Sum>,
    params: Vec<Sum>,
}

impl State {
    /// The form, in this state.
    fn sum(&self, form: &Form) -> Result<Sum, TooLarge> {
        let mut sum = Sum::number(form.constant.into()).plus(form.lost.into(), &self.lost)?;
        for (factors, values) in [(&form.state, &self.vars), (&form.params, &self.params)] {
            for (factor, value) in factors.iter().zip(values) {
                sum = sum.plus((*factor).into(), value)?;
            }
        }
        Ok(sum)
    }

    fn cells(&self, certificate: &Certificate) -> Result<Vec<Facts>, TooLarge> {
        let facts = |cell: &Vec<Form>| cell.iter().map(|form| self.sum(form)).collect();
        certificate.cells.iter().map(facts).collect()
    }
}

/// The engine, as the program of one call sees it.
struct Call<'a> {
    object: &'a Object,
    hook: Hook,
    flaw: Flaw,
    /// Of the calls that were lost at its beginning, those that are not durable at its end.
    left: Var,
    /// Whether this call's own bytes are not durable.
    own: Var,
    params: Vec<Sum>,
    /// No write passes: `staged` counts every call that is not durable.
    stages_all: bool,
}

impl World for Call<'_> {
    fn reading(&self, run: &mut Run, symbols: &mut Symbols, offset: i64) -> Result<Sum, Why> {
        let reading = Reading::ALL.into_iter().find(|r| i64::from(r.offset()) == offset);
        let reading = reading.ok_or("it reads outside of its context")?;
        // The runtime fills in what the note lists, and the log's key.
        if offset != LOG && !self.object.meta.reads.contains(&reading) {
            return Err("it reads what the note does not list");
        }
        self.value(run, symbols, reading).map_err(|TooLarge| "its numbers are too large")
    }

    fn waits(&self, distance: &Sum) -> Result<Vec<(Facts, Sum)>, TooLarge> {
        let (left, own) = (Sum::var(self.left), Sum::var(self.own));
        let most = distance.and(if self.flaw == Flaw::WaitPromisesOneMore { -2 } else { -1 })?;
        // At distance 0 this call is durable too. A write is no call, and waits for those before it.
        let least = i128::from(!self.hook.is_sync());
        let mut all = vec![Sum::number(least).less(distance)?, Sum::number(0).less(&left)?];
        if self.hook.is_sync() {
            all.push(Sum::number(0).less(&own)?);
        }
        let some = vec![distance.and(-least - 1)?, most.less(&left)?];
        Ok(vec![(all, Sum::number(0)), (some, most)])
    }

    fn param(&self, index: usize) -> Option<Sum> {
        self.params.get(index).cloned()
    }

    fn shares_state(&self) -> bool {
        overlap(self.object, self.flaw)
    }
}

/// Whether another call's program can run while one waits.
fn overlap(object: &Object, flaw: Flaw) -> bool {
    object.meta.callers != Callers::One && flaw != Flaw::CallersTakeTurns
}

impl Call<'_> {
    fn value(
        &self,
        run: &mut Run,
        symbols: &mut Symbols,
        reading: Reading,
    ) -> Result<Sum, TooLarge> {
        let most = match reading {
            Reading::Log => i128::from(MAX_LOGS) - 1,
            Reading::Now => i128::from(CLOCK_MOST),
            Reading::NotifyDone | Reading::ChildActive => 1,
            Reading::Pending => return self.pending(run, symbols),
            Reading::Staged if self.stages_all => return self.staged(run, symbols),
            _ => i128::from(READING_MOST),
        };
        let value = Sum::var(symbols.fresh(reading.field(), 0, most));
        if reading == Reading::NotifyDone && self.hook == Hook::Fdatasync {
            // 1: all that was written is on the disk, so no acknowledged call is lost, nor will this one be. An
            // `fsync` can want more than the sync that is done has made durable.
            for (var, most) in [(self.left, CALLS), (self.own, 1)] {
                run.facts.push(Sum::number(most).plus(-most, &value)?.less(&Sum::var(var))?);
            }
        }
        Ok(value)
    }

    /// The calls up to this one that are not durable: `pending`, and in a sync call itself until it is durable
    /// too, by the sync of a call that passed by.
    fn staged(&self, run: &mut Run, symbols: &mut Symbols) -> Result<Sum, TooLarge> {
        let pending = self.pending(run, symbols)?;
        if !self.hook.is_sync() {
            return Ok(pending);
        }
        let itself = Sum::var(symbols.fresh("itself", 0, 1));
        let all = itself.times(CALLS)?;
        let nothing_else = [all.less(&pending)?, all.less(&Sum::var(self.left))?];
        run.facts.extend(nothing_else);
        run.facts.push(itself.less(&Sum::var(self.own))?);
        pending.plus(1, &itself)
    }

    /// The calls before this one that are not durable. Those that failed are among them, and the number only falls.
    fn pending(&self, run: &mut Run, symbols: &mut Symbols) -> Result<Sum, TooLarge> {
        let offset = i64::from(Reading::Pending.offset());
        if let Some(pending) = run.read.get(&offset) {
            return Ok(pending.clone());
        }
        let pending = Sum::var(symbols.fresh(Reading::Pending.field(), 0, CALLS));
        run.read.insert(offset, pending.clone());
        let less = i128::from(self.flaw == Flaw::PendingCountsThisCall);
        run.facts.push(pending.less(&Sum::var(self.left))?.and(-less)?);
        if let Some(most) = &run.waited {
            run.facts.push(most.less(&pending)?);
        }
        Ok(pending)
    }
}

/// How a call ends.
struct End {
    name: &'static str,
    state: State,
}

/// The conditions on the certificate of an object.
pub fn conditions(
    object: &Object,
    certificate: &Certificate,
    flaw: Flaw,
) -> Result<Conditions, Refused> {
    covered(object)?;
    let overlap = overlap(object, flaw);
    well_formed(object, certificate, overlap)?;
    let mut symbols = Symbols::new();
    let symbol = |symbols: &mut Symbols, name: &str, low, high| {
        Sum::var(symbols.fresh(name, i128::from(low), high))
    };
    let meta = &object.meta;
    let params = |symbols: &mut Symbols, mark: &str| -> Vec<Sum> {
        let all = meta.params.iter();
        all.map(|p| symbol(symbols, &format!("{}{mark}", p.name), p.min, p.max.into())).collect()
    };
    let seen = params(&mut symbols, " seen");
    let vars = meta.state.iter().map(|s| symbol(&mut symbols, &s.name, 0, MOST)).collect();
    let lost = symbol(&mut symbols, "lost", 0, CALLS);
    let before = State { lost, vars, params: seen };
    let mut all = Vec::new();
    if flaw != Flaw::BeginsAnywhere {
        let vars = meta.state.iter().map(|s| Sum::number(s.init.into())).collect();
        let first = State { lost: Sum::number(0), vars, ..before.clone() };
        let name = "a log begins in the invariant".to_owned();
        all.push(Condition { name, given: vec![], cells: first.cells(certificate)? });
    }
    let sources = before.cells(certificate)?;
    let fewer = symbol(&mut symbols, "fewer", 0, CALLS);
    for source in &sources {
        let mut given = source.clone();
        given.push(before.lost.less(&fewer)?);
        let after = State { lost: fewer.clone(), ..before.clone() };
        let name = "a sync that ends stays in the invariant".to_owned();
        all.push(Condition { name, given, cells: after.cells(certificate)? });
    }
    let starts = if overlap { vec![vec![]] } else { sources.clone() };
    let mut stages_all = flaw == Flaw::StagesAll;
    for program in object.programs.iter().filter(|program| program.hook.is_on_log()) {
        let left = symbols.fresh("left", 0, CALLS);
        let call = Call {
            object,
            hook: program.hook,
            flaw,
            left,
            own: symbols.fresh("own", 0, 1),
            params: match flaw {
                Flaw::ParametersStay => before.params.clone(),
                _ => params(&mut symbols, ""),
            },
            stages_all,
        };
        let runs = paths(&call, program, &before, &mut symbols)?;
        if program.hook == Hook::Write {
            let copies =
                |run: &Run| verdict(run).is_some_and(|v| v == 3 || (-4095..0).contains(&v));
            stages_all |= meta.stages() && runs.iter().all(copies);
        }
        for (number, run) in runs.iter().enumerate() {
            for end in ends(&call, run, &before, overlap)? {
                let cells = end.state.cells(certificate)?;
                for start in &starts {
                    let given = [start.as_slice(), &run.facts].concat();
                    let name = format!("{}, path {}: {}", program.hook, number + 1, end.name);
                    all.push(Condition { name, given, cells: cells.clone() });
                }
            }
        }
    }
    let mut bounds = Vec::new();
    for form in &certificate.bound {
        bounds.push(vec![before.sum(form)?.less(&before.lost)?]);
    }
    for given in sources {
        let name = "the invariant implies the bound".to_owned();
        all.push(Condition { name, given, cells: bounds.clone() });
    }
    Ok(Conditions { symbols, all })
}

/// Every path of a program.
fn paths(
    call: &Call<'_>,
    program: &Program,
    before: &State,
    symbols: &mut Symbols,
) -> Result<Vec<Run>, Refused> {
    let fewer = before.lost.less(&Sum::var(call.left))?;
    // If calls overlap, `lost` may grow before this call goes on.
    let given = if overlap(call.object, call.flaw) { vec![] } else { vec![fewer] };
    let wraps = call.flaw != Flaw::NeverWraps;
    let mut machine = Machine { world: call, symbols, program, object: call.object, wraps };
    let runs = machine.paths(before.vars.clone(), given);
    let mut runs =
        runs.map_err(|(slot, why)| Refused::Program { hook: program.hook, slot, why })?;
    if call.flaw == Flaw::SkipsAPath && runs.len() > 1 {
        runs.pop();
    }
    Ok(runs)
}

/// What a path returns, if it is one number.
fn verdict(run: &Run) -> Option<i64> {
    run.result.as_number().map(|number| number as u64 as i64)
}

/// The states in which a path can leave the log.
fn ends(call: &Call<'_>, run: &Run, before: &State, overlap: bool) -> Result<Vec<End>, TooLarge> {
    let left = Sum::var(call.left);
    let vars = run.state.clone();
    let params = call.params.clone();
    let mut ends = Vec::new();
    // It fails, or a signal interrupts it, or it is a write: the state is kept, nothing is acknowledged.
    if !overlap && (call.flaw != Flaw::ErrorsUndo || !call.hook.is_sync()) {
        let state = State { lost: left.clone(), vars: vars.clone(), params: before.params.clone() };
        ends.push(End { name: "not acknowledged", state });
    }
    let verdict = verdict(run);
    let fails = verdict.is_some_and(|verdict| (-4095..0).contains(&verdict));
    if !call.hook.is_sync() || fails {
        return Ok(ends);
    }
    // `defer` and `skip` leave it to a later sync. Anything else runs the call's own sync, and then nothing is left.
    let without_sync = verdict.is_none_or(|verdict| matches!(verdict, 1 | 2));
    let own = if call.flaw == Flaw::OwnCallIsDurable { 0 } else { 1 };
    let lost = if without_sync { left.plus(own, &Sum::var(call.own))? } else { Sum::number(0) };
    ends.push(End { name: "acknowledged", state: State { lost, vars, params } });
    Ok(ends)
}

/// Whether these rules speak of the object at all. A program of a reply or of a turn changes nothing of a log but the
/// state, if it has it.
fn covered(object: &Object) -> Result<(), Refused> {
    let is_state = |map: u32| object.maps.get(map as usize).is_none_or(|m| m.name == STATE_MAP);
    let known = |p: &Program| match p.hook {
        Hook::Write | Hook::Fsync | Hook::Fdatasync => true,
        Hook::Reply | Hook::Turn => !p.relocs.iter().any(|reloc| is_state(reloc.map)),
        Hook::Barrier => false,
    };
    if object.meta.runtime != Runtime::Agent || !object.programs.iter().all(known) {
        return Err(Refused::NotCovered);
    }
    Ok(())
}

fn well_formed(object: &Object, certificate: &Certificate, overlap: bool) -> Result<(), Refused> {
    let meta = &object.meta;
    let members =
        |map: &Map| if map.name == PARAMS_MAP { meta.params.len() } else { meta.state.len() };
    let maps = object.maps.iter().all(|map| map.fields.len() == members(map));
    let params = meta.params.iter().all(|p| p.min <= p.default && p.default <= p.max);
    let few = |count: usize| (1..=MAX_CELLS).contains(&count);
    let cells = &certificate.cells;
    let sizes =
        few(cells.len()) && cells.iter().all(|c| few(c.len())) && few(certificate.bound.len());
    let fits = |form: &Form| form.params.len() <= meta.params.len();
    let no_state = |form: &Form| form.state.is_empty();
    let in_cell = |form: &Form| {
        fits(form) && form.state.len() <= meta.state.len() && (!overlap || no_state(form))
    };
    let in_bound = |form: &Form| fits(form) && no_state(form) && form.lost == 0;
    let forms = cells.iter().flatten().all(in_cell) && certificate.bound.iter().all(in_bound);
    if maps && params && sizes && forms { Ok(()) } else { Err(Refused::Malformed) }
}
