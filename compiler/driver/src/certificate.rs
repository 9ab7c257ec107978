//! Makes the certificate of an object: an invariant that shows the bound that was proved.
//!
//! Nothing here is trusted. An invariant is guessed, and only one that `durac-certify` accepts is kept; without one
//! the object has no certificate, and its bound is as good as the proof.

use durac_abi::certificate::{Certificate, Form};
use durac_abi::insn::Insn;
use durac_abi::object::Object;
use durac_abi::{Callers, Runtime};
use durac_certify::linear::Facts;
use durac_certify::rules;
use durac_certify::{Flaw, check};
use durac_core::bounds::Linear;
use durac_core::hir::{ParamId, Policy};
use durac_prove::explore::Most;
use durac_prove::proof::Proof;
use durac_prove::relate;
use std::collections::BTreeSet;

/// Times that a fact is held against a step.
const MAX_STEPS: u32 = 20_000;
/// Facts that are tried in one cell.
const MAX_GUESSES: usize = 120;

/// The certificate of an object, whose note states its bounds; none if no invariant is found.
pub fn of(policy: &Policy, object: &Object, proof: &Proof) -> Option<Certificate> {
    let Most::Count(stated) = proof.syncs_by_default else { return None };
    if object.meta.runtime != Runtime::Agent {
        return None;
    }
    let mut bounds = Vec::new();
    if policy.loss.syncs(&policy.params) == Some(stated) {
        let forms = policy.loss.least_known(&policy.params)?;
        let mut forms =
            forms.iter().map(|form| form_of(policy, form)).collect::<Option<Vec<_>>>()?;
        if forms.is_empty() {
            forms.push(Form::default());
        }
        forms.dedup();
        bounds.push(forms);
    }
    if proof.syncs == proof.syncs_by_default {
        bounds.push(vec![Form { constant: i64::try_from(stated).ok()?, ..Form::default() }]);
    }
    // A counter that is compared with a parameter: nothing is derived of it.
    for (index, param) in policy.params.iter().enumerate() {
        let mut params = vec![0; index + 1];
        if let (Some(last), Some(default)) = (params.last_mut(), i64::try_from(param.default).ok())
        {
            *last = 1;
            let constant = i64::try_from(stated).ok()?.checked_sub(default)?;
            bounds.push(vec![Form { constant, params, ..Form::default() }]);
        }
    }
    let sums = relate::weighted(policy);
    bounds.iter().find_map(|bound| with_sums(object, bound, &sums))
}

/// A certificate of this bound, the greatest of the forms, which is what the note states; none if no invariant is
/// found that shows it.
#[must_use]
pub fn with_bound(object: &Object, bound: &[Form]) -> Option<Certificate> {
    with_sums(object, bound, &[])
}

/// The same; no more may be lost than these weighted sums of the state have counted.
fn with_sums(object: &Object, bound: &[Form], sums: &[Vec<i64>]) -> Option<Certificate> {
    let mut object = object.clone();
    // What is lost is within the bound: enough if no call builds on what others have left.
    let lost = |form: &Form| Form { lost: -1, ..form.clone() };
    let cells = bound.iter().map(|form| vec![lost(form)]).collect();
    let found = match accepted(&mut object, Certificate { bound: bound.to_vec(), cells }) {
        Some(found) => found,
        None if object.meta.state.is_empty() || object.meta.callers != Callers::One => return None,
        None => guessed(&mut object, bound, sums)?,
    };
    Some(smaller(&mut object, found))
}

/// The same without what is not needed.
fn smaller(object: &mut Object, mut certificate: Certificate) -> Certificate {
    let mut without = |all: &mut Certificate, change: &dyn Fn(&mut Certificate)| {
        let mut less = all.clone();
        change(&mut less);
        *all = accepted(object, less).unwrap_or_else(|| all.clone());
    };
    for place in (0..certificate.bound.len()).rev() {
        without(&mut certificate, &|less| _ = less.bound.remove(place));
    }
    for place in (0..certificate.cells.len()).rev() {
        without(&mut certificate, &|less| _ = less.cells.remove(place));
        let facts = certificate.cells.get(place).map_or(0, Vec::len);
        for fact in (0..facts).rev() {
            without(&mut certificate, &|less| {
                if let Some(cell) = less.cells.get_mut(place).filter(|cell| fact < cell.len()) {
                    cell.remove(fact);
                }
            });
        }
    }
    certificate
}

fn accepted(object: &mut Object, certificate: Certificate) -> Option<Certificate> {
    object.meta.certificate = Some(certificate);
    let good = check(object).is_ok();
    object.meta.certificate.take().filter(|_| good)
}

fn form_of(policy: &Policy, form: &Linear) -> Option<Form> {
    let factor = |index| i64::try_from(form.factor(ParamId(index as u32))).ok();
    let params = (0..policy.params.len()).map(factor).collect::<Option<Vec<_>>>()?;
    let constant = i64::try_from(form.number()).ok()?;
    Some(Form { constant, params: without_zeros(params), ..Form::default() })
}

fn without_zeros(mut factors: Vec<i64>) -> Vec<i64> {
    let used = factors.iter().rposition(|factor| *factor != 0).map_or(0, |last| last + 1);
    factors.truncate(used);
    factors
}

/// A cell in the making: what tells it from the others, and what may hold in it.
#[derive(Clone)]
struct Guess {
    guard: Vec<Form>,
    facts: Vec<Form>,
}

/// Looks for an invariant about the state: begins with everything that could hold, and drops what a step
/// breaks, until nothing is dropped.
fn guessed(object: &mut Object, bound: &[Form], sums: &[Vec<i64>]) -> Option<Certificate> {
    let facts = guesses(object, bound, sums);
    let whole = vec![Guess { guard: Vec::new(), facts: facts.clone() }];
    let mut splits = vec![whole];
    for index in 0..object.meta.state.len() {
        let mut factors = vec![0; index + 1];
        if let Some(factor) = factors.last_mut() {
            *factor = 1;
        }
        let set = Form { constant: -1, state: factors.clone(), ..Form::default() };
        factors.iter_mut().for_each(|factor| *factor = -*factor);
        let clear = Form { state: factors, ..Form::default() };
        let cell = |form| Guess { guard: vec![form], facts: facts.clone() };
        splits.push(vec![cell(clear), cell(set)]);
    }
    let mut steps_left = MAX_STEPS;
    splits.into_iter().find_map(|mut cells| {
        while drops(object, bound, &mut cells, &mut steps_left)? {}
        accepted(object, certificate(bound, &cells))
    })
}

fn certificate(bound: &[Form], cells: &[Guess]) -> Certificate {
    // A cell says at least that something is lost or nothing is.
    let all = |cell: &Guess| match [cell.guard.clone(), cell.facts.clone()].concat() {
        facts if facts.is_empty() => vec![Form { lost: 1, ..Form::default() }],
        facts => facts,
    };
    Certificate { bound: bound.to_vec(), cells: cells.iter().map(all).collect() }
}

/// Drops what does not follow after some step; returns whether anything was dropped.
fn drops(
    object: &Object,
    bound: &[Form],
    cells: &mut [Guess],
    steps_left: &mut u32,
) -> Option<bool> {
    let conditions = rules::conditions(object, &certificate(bound, cells), Flaw::None).ok()?;
    let steps = conditions.all.len().saturating_sub(cells.len());
    let mut dropped = false;
    for (place, cell) in cells.iter_mut().enumerate() {
        let guards = cell.guard.len();
        let mut kept = vec![true; cell.facts.len()];
        for condition in conditions.all.iter().take(steps) {
            let facts = condition.cells.get(place)?;
            let (guard, facts) = facts.split_at_checked(guards)?;
            let given: Facts = [condition.given.as_slice(), guard].concat();
            for (fact, kept) in facts.iter().zip(&mut kept).filter(|(_, kept)| **kept) {
                *steps_left = steps_left.checked_sub(1)?;
                conditions.symbols.refuel();
                let follows = conditions.symbols.implies(&given, &[vec![fact.clone()]]);
                *kept = follows.unwrap_or(false);
            }
        }
        let mut kept = kept.into_iter();
        let before = cell.facts.len();
        cell.facts.retain(|_| kept.next() == Some(true));
        dropped |= cell.facts.len() < before;
    }
    Some(dropped)
}

/// What could hold: of what is lost, and of a state variable, and of both.
fn guesses(object: &Object, bound: &[Form], sums: &[Vec<i64>]) -> Vec<Form> {
    let mut numbers: BTreeSet<i64> = BTreeSet::from([0, 1]);
    for insn in object.programs.iter().flat_map(|program| &program.insns) {
        if is_compared(*insn) && insn.imm >= 0 {
            numbers.extend([i64::from(insn.imm) - 1, i64::from(insn.imm), i64::from(insn.imm) + 1]);
        }
    }
    let number = |constant: &i64| Form { constant: *constant, ..Form::default() };
    let mut limits: Vec<Form> = bound.to_vec();
    limits.extend(numbers.range(0..).map(number));
    let state = |index: usize, factor: i64| {
        let mut factors = vec![0; index + 1];
        if let Some(last) = factors.last_mut() {
            *last = factor;
        }
        factors
    };
    let counted = |sum: &Vec<i64>| Form { lost: -1, state: sum.clone(), ..Form::default() };
    let mut facts: Vec<Form> = sums.iter().map(counted).collect();
    facts.extend(limits.iter().map(|f| Form { lost: -1, ..f.clone() }));
    for index in 0..object.meta.state.len() {
        for by in [0, -1, 1] {
            facts.push(Form { constant: by, lost: -1, state: state(index, 1), ..Form::default() });
        }
        for limit in &limits {
            facts.push(Form { state: state(index, -1), ..limit.clone() });
            facts.push(Form { lost: -1, state: state(index, -1), ..limit.clone() });
        }
    }
    let mut once = Vec::new();
    for fact in facts {
        if !once.contains(&fact) && once.len() < MAX_GUESSES {
            once.push(fact);
        }
    }
    once
}

/// Whether the immediate is one side of a comparison, or a value that is set.
fn is_compared(insn: Insn) -> bool {
    matches!(insn.class(), 5..=7) && insn.opcode & 8 == 0 && insn.opcode & 0xf0 != 0x80
}
