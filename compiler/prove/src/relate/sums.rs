//! Counters that count how often others are full: `every 900 calls { every 800 calls { … } }` has counted
//! the first and 900 times the second, and this sum rises by one in every call.
//!
//! Each is one more number of the zone. It is changed with its counters, and its bounds follow from theirs.

use super::{Path, Relation, ZERO};
use crate::zone::Zone;
use durac_core::hir::{Arith, Cmp, Expr, ExprKind, HookBody, Policy, StateId, Stmt, StmtKind};

/// Sums that are followed at most.
const MOST_SUMS: usize = 6;
/// Greatest weight of a counter in a sum.
const MOST_WEIGHT: u64 = 1 << 48;

/// A sum of counters, each with its weight.
pub(super) type Sum = Vec<(StateId, i128)>;

/// The sums that the text suggests: of a counter that is raised where another is full, and of that.
pub(super) fn sums(policy: &Policy) -> Vec<Sum> {
    let mut found = Vec::new();
    for HookBody { hook, body, .. } in &policy.hooks {
        if hook.is_sync() {
            suggested(body, &mut Vec::new(), &mut found);
        }
    }
    found.truncate(MOST_SUMS);
    found
}

/// The sums that the text suggests: of each state variable its weight.
#[must_use]
pub fn weighted(policy: &Policy) -> Vec<Vec<i64>> {
    let ids = || (0..policy.states.len() as u32).map(StateId);
    let of = |sum: &Sum, id| sum.iter().find(|(of, _)| *of == id).map_or(0, |(_, weight)| *weight);
    let each = |sum: &Sum| ids().map(|id| i64::try_from(of(sum, id)).unwrap_or(0)).collect();
    sums(policy).iter().map(each).collect()
}

/// How many calls one step of each state variable counts: those of the counters that are full then.
pub(crate) fn weights(policy: &Policy) -> Vec<i128> {
    let sums = weighted(policy);
    let weights = |id: usize| sums.iter().filter_map(move |sum| sum.get(id).copied());
    (0..policy.states.len()).map(|id| weights(id).max().unwrap_or(1).max(1).into()).collect()
}

/// The sums of the statements where these counters are full, each with its period.
fn suggested(stmts: &[Stmt], full: &mut Vec<(StateId, u64)>, found: &mut Vec<Sum>) {
    for stmt in stmts {
        match &stmt.node {
            StmtKind::EveryCalls(period, id, body) => {
                found.extend(of(full, *id));
                full.push((*id, *period));
                suggested(body, full, found);
                full.pop();
            }
            StmtKind::If(cond, then, otherwise) => {
                let period = is_full(cond);
                full.extend(period);
                suggested(then, full, found);
                full.truncate(full.len() - usize::from(period.is_some()));
                suggested(otherwise, full, found);
            }
            StmtKind::Assign(to, value) if is_next(value, *to) => found.extend(of(full, *to)),
            StmtKind::EveryTime(_, _, body) => suggested(body, full, found),
            StmtKind::Assign(..) | StmtKind::Await(_) | StmtKind::Commit | StmtKind::Verdict(_) => {
            }
        }
    }
}

/// A counter that is raised by one where these are full, with them.
fn of(full: &[(StateId, u64)], last: StateId) -> Option<Sum> {
    let (mut sum, mut weight) = (Sum::new(), 1u64);
    for (id, period) in full {
        sum.push((*id, weight.into()));
        weight = weight.checked_mul(*period).filter(|weight| *weight <= MOST_WEIGHT)?;
    }
    sum.push((last, weight.into()));
    let mut ids: Vec<StateId> = sum.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    ids.dedup();
    (ids.len() == sum.len() && sum.len() > 1).then_some(sum)
}

/// The counter that has come to a constant, if the condition says so.
fn is_full(cond: &Expr) -> Option<(StateId, u64)> {
    let ExprKind::Compare(cmp, a, b) = &cond.kind else { return None };
    let (ExprKind::State(id), ExprKind::Const(value)) = (&a.kind, &b.kind) else { return None };
    match cmp {
        Cmp::Ge | Cmp::Eq => Some((*id, *value)),
        Cmp::Gt => Some((*id, value.checked_add(1)?)),
        Cmp::Lt | Cmp::Le | Cmp::Ne => None,
    }
}

fn is_next(value: &Expr, of: StateId) -> bool {
    let ExprKind::Arith(Arith::Add, a, b) = &value.kind else { return false };
    let pair = |a: &Expr, b: &Expr| matches!((&a.kind, &b.kind), (ExprKind::State(id), ExprKind::Const(1)) if *id == of);
    pair(a, b) || pair(b, a)
}

impl Relation<'_> {
    /// Each sum with its number in the zone.
    fn numbered_sums(&self) -> impl Iterator<Item = (&Sum, usize)> {
        self.sums.iter().zip(self.first_sum..)
    }

    /// The value of a sum, if all its counters have one.
    pub(super) fn first_sums(&self, zone: &mut Zone, of: impl Fn(&StateId) -> u64) -> bool {
        let value = |sum: &Sum| sum.iter().map(|(id, weight)| weight * i128::from(of(id))).sum();
        self.numbered_sums().all(|(sum, number)| zone.same(number, ZERO, value(sum)))
    }

    /// The variable was changed by this; none if it can be any number now. Returns whether that is possible.
    pub(super) fn changed(&self, path: &mut Path, id: StateId, by: Option<i128>) -> bool {
        for (sum, number) in self.numbered_sums() {
            let Some((_, weight)) = sum.iter().find(|(of, _)| *of == id) else { continue };
            match by.and_then(|by| weight.checked_mul(by)) {
                Some(by) => path.zone.assign(number, number, by),
                None => path.zone.forget(number),
            }
        }
        self.bounded_sums(&mut path.zone)
    }

    /// A sum is no less and no more than its counters make it. Returns whether that is possible.
    pub(super) fn bounded_sums(&self, zone: &mut Zone) -> bool {
        self.numbered_sums().all(|(sum, number)| {
            let (mut least, mut most) = (0i128, Some(0i128));
            for (id, weight) in sum {
                let Some(counter) = self.numbers.get(id) else { return true };
                least += weight * zone.least(*counter);
                most = most.zip(zone.most(*counter, ZERO)).map(|(sum, most)| sum + weight * most);
            }
            zone.limit(ZERO, number, -least)
                && most.is_none_or(|most| zone.limit(number, ZERO, most))
        })
    }

    /// The value of a variable, if it is known.
    pub(super) fn exact(&self, zone: &Zone, id: StateId) -> Option<i128> {
        let number = *self.numbers.get(&id)?;
        zone.most(number, ZERO).filter(|most| *most == zone.least(number))
    }
}
