//! How much of each state variable makes a difference after a call.
//!
//! A variable that no branch, wait or verdict ever depends on has no part in a state; one that is only
//! read modulo 4 is kept modulo 4; one that only rises, and is only compared, is kept up to the greatest
//! number it is compared with. `docs/proof.md` has the argument for each.
//!
//! Stage: `hir::Policy`, vectors of parameters → one [`Keep`] for each state variable.
//!
//! Architecture invariant: what is kept decides every branch of every later call as the value itself does.

use durac_core::bounds::evaluate;
use durac_core::hir::{Arith, Expr, ExprKind, Node, Policy, StateId, Stmt, StmtKind, visit};
use durac_core::unit::Unit;
use std::collections::BTreeSet;

/// What a state keeps of a variable between calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Its value.
    Value,
    /// Nothing: the next call writes it before it reads it, or nothing depends on it.
    Nothing,
    /// Its remainder by this.
    Remainder(u64),
    /// Its value, or this if it is greater.
    UpTo(u64),
}

impl Keep {
    /// What is kept of a value.
    #[must_use]
    pub fn of(self, value: u64) -> u64 {
        match self {
            Keep::Value => value,
            Keep::Nothing => 0,
            Keep::Remainder(by) => value.checked_rem(by).unwrap_or(value),
            Keep::UpTo(most) => value.min(most),
        }
    }
}

/// Greatest common multiple of the remainders that are taken of one variable.
const MOST_REMAINDER: u64 = 1 << 20;
/// Greatest value that a variable is set to, to count as slow.
const SLOW_MOST: u64 = 1 << 62;
/// What a call can add to a slow variable, all its statements together.
const SLOW_STEPS: u64 = 1024;

/// What to keep of each state variable, whatever the parameters of these vectors.
#[must_use]
pub fn keeps(policy: &Policy, samples: &[Vec<u64>]) -> Vec<Keep> {
    let live = live(policy);
    let slow = slow(policy);
    let ids = (0..policy.states.len() as u32).map(StateId);
    ids.map(|id| match live.contains(&id) {
        false => Keep::Nothing,
        true => {
            remainder(policy, id, slow.contains(&id)).or_else(|| {
                let counter = slow.contains(&id).then(|| counter(policy, id, samples));
                counter.flatten().map(|counter| Keep::UpTo(counter.most.saturating_add(1)))
            })
        }
        .unwrap_or(Keep::Value),
    })
    .collect()
}

/// The variables whose value after a call matters to a later one: some path reads it before it is set,
/// for a branch, a wait, or a variable that matters.
fn live(policy: &Policy) -> BTreeSet<StateId> {
    let mut live = BTreeSet::new();
    loop {
        let before = live.len();
        for hook in &policy.hooks {
            let at_begin = before_block(&hook.body, live.clone(), &live);
            live.extend(at_begin);
        }
        if live.len() == before {
            return live;
        }
    }
}

type Vars = BTreeSet<StateId>;

/// What matters before some statements, if `after` does after them and `end` at the end of the call.
fn before_block(stmts: &[Stmt], after: Vars, end: &Vars) -> Vars {
    stmts.iter().rev().fold(after, |after, stmt| before(stmt, after, end))
}

fn before(stmt: &Stmt, mut after: Vars, end: &Vars) -> Vars {
    match &stmt.node {
        StmtKind::Verdict(_) => end.clone(),
        StmtKind::Commit => after,
        StmtKind::Await(distance) => {
            reads(distance, &mut after);
            after
        }
        StmtKind::Assign(to, value) => {
            if after.remove(to) {
                reads(value, &mut after);
            }
            after
        }
        StmtKind::If(cond, then, otherwise) => {
            let mut all = before_block(then, after.clone(), end);
            all.extend(before_block(otherwise, after, end));
            reads(cond, &mut all);
            all
        }
        StmtKind::EveryTime(_, id, body) | StmtKind::EveryCalls(_, id, body) => {
            let mut all = before_block(body, after.clone(), end);
            all.extend(after);
            all.insert(*id);
            all
        }
    }
}

fn reads(expr: &Expr, into: &mut Vars) {
    durac_core::hir::visit_expr(expr, &mut |node| {
        if let Node::Expr(Expr { kind: ExprKind::State(id), .. }) = node {
            into.insert(*id);
        }
    });
}

/// The variables that cannot wrap around: they are set to moderate constants, or raised by small ones. A
/// log sees fewer than 2^53 calls.
#[must_use]
pub fn slow(policy: &Policy) -> BTreeSet<StateId> {
    let ids = (0u32..).map(StateId);
    let states = ids.zip(&policy.states);
    let first = states.filter(|(_, s)| s.unit != Unit::Bool && s.init <= SLOW_MOST);
    let mut slow: Vars = first.map(|(id, _)| id).collect();
    loop {
        let before = slow.len();
        let mut steps = 0u64;
        let mut wrong = Vars::new();
        for hook in &policy.hooks {
            visit(&hook.body, &mut |node| match node {
                Node::Stmt(Stmt { node: StmtKind::Assign(to, value), .. }) if slow.contains(to) => {
                    match raised(value) {
                        Some((None, constant)) if constant <= SLOW_MOST => {}
                        Some((Some(from), by)) if slow.contains(&from) => {
                            steps = steps.saturating_add(by);
                        }
                        _ => _ = wrong.insert(*to),
                    }
                }
                Node::Stmt(Stmt { node: StmtKind::EveryCalls(..), .. }) => {
                    steps = steps.saturating_add(1);
                }
                Node::Stmt(Stmt { node: StmtKind::EveryTime(_, id, _), .. }) => {
                    wrong.insert(*id);
                }
                _ => {}
            });
        }
        if steps > SLOW_STEPS {
            return Vars::new();
        }
        slow.retain(|id| !wrong.contains(id));
        if slow.len() == before {
            return slow;
        }
    }
}

/// A constant, or a variable and what is added to it.
fn raised(expr: &Expr) -> Option<(Option<StateId>, u64)> {
    match &expr.kind {
        ExprKind::Const(value) => Some((None, *value)),
        ExprKind::State(id) => Some((Some(*id), 0)),
        ExprKind::Arith(Arith::Add, a, b) => match (&a.kind, &b.kind) {
            (ExprKind::State(id), ExprKind::Const(by))
            | (ExprKind::Const(by), ExprKind::State(id)) => Some((Some(*id), *by)),
            _ => None,
        },
        _ => None,
    }
}

/// Whether the variable is set to constants, or to itself and a constant, and nothing else.
fn only_rises(policy: &Policy, id: StateId) -> bool {
    let mut rises = true;
    for hook in &policy.hooks {
        visit(&hook.body, &mut |node| {
            if let Node::Stmt(Stmt { node: StmtKind::Assign(to, value), .. }) = node
                && *to == id
            {
                rises &= raised(value).is_some_and(|(from, _)| from.is_none_or(|from| from == id));
            }
        });
    }
    rises
}

/// The variable is read modulo constants and in its own increments, nowhere else.
fn remainder(policy: &Policy, id: StateId, is_slow: bool) -> Option<Keep> {
    if !only_rises(policy, id) {
        return None;
    }
    let (mut all, mut by) = (0u64, 1u64);
    let mut inside = 0u64;
    for hook in &policy.hooks {
        visit(&hook.body, &mut |node| match node {
            Node::Stmt(Stmt { node: StmtKind::Assign(to, value), .. }) if *to == id => {
                // In its own increment.
                inside += u64::from(raised(value).is_some_and(|(from, _)| from.is_some()));
            }
            Node::Stmt(Stmt {
                node: StmtKind::EveryCalls(_, of, _) | StmtKind::EveryTime(_, of, _),
                ..
            }) if *of == id => all += 1,
            Node::Expr(Expr { kind: ExprKind::State(of), .. }) if *of == id => all += 1,
            Node::Expr(Expr { kind: ExprKind::Arith(Arith::Rem, a, b), .. }) => {
                if let (ExprKind::State(of), ExprKind::Const(m)) = (&a.kind, &b.kind)
                    && *of == id
                    && *m > 0
                {
                    inside += 1;
                    by = least_common(by, *m);
                }
            }
            _ => {}
        });
    }
    let fits = by > 1 && by <= MOST_REMAINDER && (is_slow || by.is_power_of_two());
    (all == inside && fits).then_some(Keep::Remainder(by))
}

fn least_common(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a.checked_div(x).unwrap_or(0).saturating_mul(b)
}

/// A variable that only rises, and is only compared with constants and parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Numbers from which on a comparison has another result, and to which the variable is set.
    pub marks: BTreeSet<u64>,
    /// What a call can add to it.
    pub rise: u64,
    /// The greatest number that it is compared with.
    most: u64,
}

/// The counters among the state variables, for these vectors of parameters.
#[must_use]
pub fn counters(policy: &Policy, samples: &[Vec<u64>]) -> Vec<Option<Counter>> {
    let slow = slow(policy);
    let ids = (0..policy.states.len() as u32).map(StateId);
    let of = |id: StateId| match remainder(policy, id, slow.contains(&id)) {
        Some(Keep::Remainder(by)) => turning(policy, id, by, samples),
        _ => slow.contains(&id).then(|| counter(policy, id, samples)).flatten(),
    };
    ids.map(of).collect()
}

/// A variable that is kept modulo `by`, if it is only read as this remainder, and that is only compared with
/// constants and parameters. It goes round at `by`.
fn turning(policy: &Policy, id: StateId, by: u64, samples: &[Vec<u64>]) -> Option<Counter> {
    let (mut all, mut inside) = (0u64, 0u64);
    let mut found = Counter { marks: BTreeSet::from([0, by]), rise: 0, most: by };
    let is_rest = |expr: &Expr, of: Option<u64>| match &expr.kind {
        ExprKind::Arith(Arith::Rem, a, b) => match (&a.kind, &b.kind) {
            (ExprKind::State(x), ExprKind::Const(m)) => *x == id && of.is_none_or(|by| *m == by),
            _ => false,
        },
        _ => false,
    };
    for hook in &policy.hooks {
        visit(&hook.body, &mut |node| match node {
            Node::Stmt(Stmt { node: StmtKind::Assign(to, value), .. }) if *to == id => {
                match raised(value) {
                    Some((Some(_), by)) => found.rise = found.rise.saturating_add(by),
                    Some((None, value)) => {
                        found.marks.insert(value.checked_rem(by).unwrap_or(0));
                    }
                    None => {}
                }
            }
            Node::Expr(Expr { kind: ExprKind::Compare(_, a, b), .. }) => {
                for (one, other) in [(a, b), (b, a)] {
                    let at = |v: &Vec<u64>| evaluate(other, v);
                    if is_rest(one, Some(by))
                        && let Some(values) = samples.iter().map(at).collect::<Option<Vec<u64>>>()
                    {
                        inside += 1;
                        let both = |value: u64| [value, value.saturating_add(1)];
                        found.marks.extend(values.into_iter().flat_map(both));
                    }
                }
            }
            Node::Expr(expr) => all += u64::from(is_rest(expr, None)),
            Node::Stmt(_) => {}
        });
    }
    (all == inside).then_some(found)
}

fn counter(policy: &Policy, id: StateId, samples: &[Vec<u64>]) -> Option<Counter> {
    if !only_rises(policy, id) {
        return None;
    }
    let (mut all, mut inside) = (0u64, 0u64);
    let mut found = Counter { marks: BTreeSet::from([0]), rise: 0, most: 0 };
    for hook in &policy.hooks {
        visit(&hook.body, &mut |node| match node {
            Node::Stmt(Stmt { node: StmtKind::Assign(to, value), .. }) if *to == id => {
                match raised(value) {
                    Some((Some(_), by)) => {
                        inside += 1;
                        found.rise = found.rise.saturating_add(by);
                    }
                    Some((None, value)) => _ = found.marks.insert(value),
                    None => {}
                }
            }
            Node::Stmt(Stmt { node: StmtKind::EveryCalls(period, of, _), .. }) if *of == id => {
                found.rise = found.rise.saturating_add(1);
                found.most = found.most.max(*period);
                found.marks.insert(*period);
            }
            Node::Expr(Expr { kind: ExprKind::State(of), .. }) if *of == id => all += 1,
            Node::Expr(Expr { kind: ExprKind::Compare(_, a, b), .. }) => {
                for (one, other) in [(a, b), (b, a)] {
                    let Some((Some(from), by)) = raised(one) else { continue };
                    let at = |v: &Vec<u64>| evaluate(other, v);
                    let values = samples.iter().map(at).collect::<Option<Vec<u64>>>();
                    if let Some(values) = values.filter(|_| from == id && by <= SLOW_MOST) {
                        inside += 1;
                        for value in values {
                            found.most = found.most.max(value);
                            let first = value.saturating_sub(by);
                            found.marks.extend([first, first.saturating_add(1)]);
                        }
                    }
                }
            }
            _ => {}
        });
    }
    (all == inside).then_some(found)
}
