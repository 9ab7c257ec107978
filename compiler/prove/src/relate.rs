//! A bound of the loss from how the policy's counters and what is pending rise together.
//!
//! The programs are followed with zones ([`crate::zone`]) in place of numbers: between two calls, a zone
//! holds of the acknowledged syncs that are not durable and of the state variables, whatever happened
//! before. `every 1000 calls { await all }; skip` keeps "no more are lost than calls were counted, and no more than
//! 999 were". The size of a number makes no difference. `docs/proof.md` has the argument.
//!
//! Stage: `hir::Policy` → [`relate`] → [`Related`].
//!
//! Architecture invariant: it knows nothing of the engine but that durability never goes back, and what a
//! wait, `pending` and `notify.done` say. It holds for one caller at a time.

mod conditions;
mod statements;
mod sums;

use crate::live::{Keep, keeps, slow};
use crate::terms::{Enclosed, alike, enclose, exceeds};
use sums::Sum;

use crate::zone::Zone;
use durac_abi::{Callers, Hook};
use durac_core::bounds::evaluate;
use durac_core::hir::{
    Arith, Bound, Expr, ExprKind, HookBody, Node, Param, Policy, StateId, Stmt, StmtKind, Verdict,
    visit, visit_expr,
};
use durac_core::unit::Unit;
use std::collections::{BTreeMap, BTreeSet};
pub use sums::weighted;
pub(crate) use sums::weights;

/// The constant 0 in a zone.
const ZERO: usize = 0;
/// The acknowledged sync calls that are not durable.
const LOST: usize = 1;
/// Numbers that are related at most.
const MOST_NUMBERS: usize = 40;
/// Values of the truth values that are told apart.
const MOST_BITS: usize = 64;
/// Paths that are kept apart in one call.
const MOST_PATHS: usize = 16;
/// Rounds after which nothing is known.
const MOST_ROUNDS: usize = 100;
/// Rounds before bounds are raised in steps.
const EXACT_ROUNDS: usize = 3;
/// Greatest divisor whose remainder is followed.
const MOST_DIVISOR: u64 = 1 << 20;

/// What is known when a call is acknowledged.
pub struct Related {
    acknowledged: Vec<Zone>,
    terms: Vec<Expr>,
    /// Whether each cannot wrap around.
    exact: Vec<bool>,
    first_term: usize,
}

impl Related {
    /// The most that can be lost right after a call that saw these parameters; none if nothing bounds it.
    #[must_use]
    pub fn most_for(&self, params: &[u64]) -> Option<u64> {
        self.worst(|zone| {
            for (index, term) in (self.first_term..).zip(&self.terms) {
                if let Some(value) = evaluate(term, params)
                    && !zone.same(index, ZERO, i128::from(value))
                {
                    return false;
                }
            }
            true
        })
    }

    /// The most that can be lost, whatever the parameters.
    #[must_use]
    pub fn greatest(&self) -> Option<u64> {
        self.worst(|_| true)
    }

    fn worst(&self, limit: impl Fn(&mut Zone) -> bool) -> Option<u64> {
        let mut worst = 0;
        for zone in &self.acknowledged {
            let mut zone = zone.clone();
            if limit(&mut zone) {
                worst = worst.max(u64::try_from(zone.most(LOST, ZERO)?).ok()?);
            }
        }
        Some(worst)
    }

    /// Whether no call leaves more lost than this says, whatever the parameters.
    #[must_use]
    pub fn keeps(&self, bound: &Expr) -> bool {
        if let Some(value) = evaluate(bound, &[]) {
            return self.greatest().is_some_and(|most| most <= value);
        }
        let Some(index) = self.terms.iter().position(|term| alike(term, bound)) else {
            return false;
        };
        let within = |zone: &Zone| zone.most(LOST, index + self.first_term).is_some_and(|m| m <= 0);
        self.exact.get(index) == Some(&true) && self.acknowledged.iter().all(within)
    }
}

/// Follows a policy; none if nothing is known of it.
#[must_use]
pub fn relate(policy: &Policy) -> Option<Related> {
    if policy.target.callers != Callers::One {
        return None;
    }
    let relation = Relation::new(policy)?;
    let invariant = relation.fixpoint()?;
    let mut out = Out::default();
    for (bits, zone) in &invariant {
        relation.calls(*bits, zone, &mut out);
    }
    let exact = relation.terms.iter().map(|term| enclose(term, &policy.params).is_some());
    Some(Related {
        acknowledged: out.acknowledged,
        exact: exact.collect(),
        terms: relation.terms,
        first_term: relation.first_term,
    })
}

/// One way through a part of a call.
#[derive(Clone)]
struct Path {
    /// The truth values among the state variables.
    bits: u64,
    /// The call itself is known to be durable.
    covered: bool,
    zone: Zone,
}

/// Where the paths of a call lead.
#[derive(Default)]
struct Out {
    after: Vec<(u64, Zone)>,
    acknowledged: Vec<Zone>,
}

/// A number, as far as it is known.
enum Number {
    /// A number of the zone, and this.
    Known(usize, i128),
    /// `pending`, and this.
    Pending(i128),
    Unknown,
}

struct Relation<'a> {
    policy: &'a Policy,
    /// Of each state variable its number, or its bit.
    numbers: BTreeMap<StateId, usize>,
    bits: BTreeMap<StateId, u32>,
    /// State variables that no later call depends on.
    dead: Vec<StateId>,
    /// Remainders of state variables that are followed.
    remainders: Vec<(StateId, u64, usize)>,
    /// Sums of counters, numbered from `first_sum`.
    sums: Vec<Sum>,
    first_sum: usize,
    slow: BTreeSet<StateId>,
    terms: Vec<Expr>,
    first_term: usize,
    /// A zone of which only the terms are known.
    fresh: Zone,
    /// Bounds that may stay.
    steps: Vec<i128>,
}

impl<'a> Relation<'a> {
    fn new(policy: &'a Policy) -> Option<Self> {
        let vectors = [policy.params.iter().map(|p| p.default).collect()];
        let kept = keeps(policy, &vectors);
        let (mut numbers, mut bits) = (BTreeMap::new(), BTreeMap::new());
        let (mut size, mut dead) = (LOST + 1, Vec::new());
        for (index, state) in policy.states.iter().enumerate() {
            let id = StateId(index as u32);
            if kept.get(index) == Some(&Keep::Nothing) {
                dead.push(id);
            }
            if state.unit == Unit::Bool {
                bits.insert(id, bits.len() as u32);
            } else {
                numbers.insert(id, size);
                size += 1;
            }
        }
        let mut found = Found::default();
        for hook in &policy.hooks {
            visit(&hook.body, &mut |node| found.node(node));
        }
        for guarantee in &policy.guarantees {
            if let Bound::Syncs(expr) = &guarantee.bound {
                found.term(expr);
            }
        }
        let Found { remainders, terms, constants } = found;
        let remainders: Vec<_> =
            remainders.into_iter().zip(size..).map(|((id, by), at)| (id, by, at)).collect();
        let first_sum = size + remainders.len();
        let mut sums = sums::sums(policy);
        sums.retain(|sum| sum.iter().all(|(id, _)| numbers.contains_key(id)));
        let first_term = first_sum + sums.len();
        size = first_term + terms.len();
        if size > MOST_NUMBERS || bits.len() > 32 {
            return None;
        }
        let fresh = fresh(size, first_term, &terms, &policy.params);
        let mut steps: BTreeSet<i128> = BTreeSet::from([-1, 0, 1]);
        let given = policy.params.iter().flat_map(|p| [p.min, p.max]);
        let given = given.chain(policy.states.iter().map(|s| s.init)).chain(constants);
        for value in given.map(i128::from) {
            steps.extend([value - 1, value, value + 1, 1 - value, -value, -1 - value]);
        }
        let of_terms = (first_term..size).filter_map(|term| fresh.most(term, ZERO));
        steps.extend(of_terms.flat_map(|most| [most - 1, most, most + 1]));
        Some(Self {
            policy,
            numbers,
            bits,
            dead,
            remainders,
            sums,
            first_sum,
            slow: slow(policy),
            terms,
            first_term,
            fresh,
            steps: steps.into_iter().collect(),
        })
    }

    /// The zones between calls: they hold at the beginning, and after every call if before it.
    fn fixpoint(&self) -> Option<BTreeMap<u64, Zone>> {
        let first = self.first();
        let mut known: BTreeMap<u64, (Zone, usize)> = BTreeMap::from([(first.0, (first.1, 0))]);
        for round in 0.. {
            if round > MOST_ROUNDS || known.len() > MOST_BITS {
                return None;
            }
            let mut out = Out::default();
            for (bits, (zone, _)) in &known {
                let mut zone = zone.clone();
                zone.close();
                self.calls(*bits, &zone, &mut out);
            }
            let mut changed = false;
            for (bits, zone) in out.after {
                let Some((before, times)) = known.get_mut(&bits) else {
                    known.insert(bits, (zone, 0));
                    changed = true;
                    continue;
                };
                if before.includes(&zone) {
                    continue;
                }
                changed = true;
                let joined = before.join(&zone);
                *before = match *times < EXACT_ROUNDS {
                    true => joined,
                    false if *times > MOST_ROUNDS / 2 => before.widened(&joined, &[]),
                    false => before.widened(&joined, &self.steps),
                };
                *times += 1;
            }
            if !changed {
                break;
            }
        }
        let closed = known.into_iter().map(|(bits, (mut zone, _))| {
            zone.close();
            (bits, zone)
        });
        let mut known = closed.collect::<BTreeMap<_, _>>();
        // What holds after one more call from zones that hold, holds too.
        for _ in 0..EXACT_ROUNDS {
            let next = self.image(&known);
            let holds = |next: &BTreeMap<u64, Zone>| {
                self.image(next).iter().all(|(b, z)| next.get(b).is_some_and(|k| k.includes(z)))
            };
            if next == known || !holds(&next) {
                break;
            }
            known = next;
        }
        Some(known)
    }

    fn first(&self) -> (u64, Zone) {
        let mut zone = Zone::new(self.first_term + self.terms.len());
        let mut possible = zone.same(LOST, ZERO, 0);
        let init = |id: &StateId| self.policy.states.get(id.index()).map_or(0, |s| s.init);
        for (id, number) in &self.numbers {
            possible &= zone.same(*number, ZERO, i128::from(init(id)));
        }
        for (id, by, number) in &self.remainders {
            let rest = init(id).checked_rem(*by).unwrap_or(0);
            possible &= zone.same(*number, ZERO, i128::from(rest));
        }
        possible &= self.first_sums(&mut zone, init);
        debug_assert!(possible);
        let set = self.bits.iter().filter(|(id, _)| init(id) != 0);
        (set.fold(0, |bits, (_, bit)| bits | 1 << bit), zone)
    }

    /// What is known at the beginning, or after one call.
    fn image(&self, known: &BTreeMap<u64, Zone>) -> BTreeMap<u64, Zone> {
        let (bits, zone) = self.first();
        let mut image = BTreeMap::from([(bits, zone)]);
        let mut out = Out::default();
        for (bits, zone) in known {
            self.calls(*bits, zone, &mut out);
        }
        for (bits, zone) in out.after {
            match image.get_mut(&bits) {
                Some(before) => *before = before.join(&zone),
                None => _ = image.insert(bits, zone),
            }
        }
        image
    }

    /// Every call of a hook with a program. A call without one, and every sync that ends, only makes
    /// less be lost, which the zones allow at any time.
    fn calls(&self, bits: u64, zone: &Zone, out: &mut Out) {
        for HookBody { hook, body, .. } in &self.policy.hooks {
            if !hook.is_sync() && *hook != Hook::Write {
                continue;
            }
            let mut zone = zone.clone();
            zone.falls(LOST);
            if !self.with_terms(&mut zone) {
                continue;
            }
            let is_sync = hook.is_sync();
            let path = Path { bits, covered: false, zone };
            for path in self.block(body, vec![path], is_sync, out) {
                self.end(&Verdict::Pass, path, is_sync, out);
            }
        }
    }

    /// The parameters are anew anything in their ranges.
    fn with_terms(&self, zone: &mut Zone) -> bool {
        let terms = self.first_term..self.first_term + self.terms.len();
        terms.clone().for_each(|term| zone.forget(term));
        let others = || [ZERO].into_iter().chain(terms.clone());
        for i in others() {
            for j in others().filter(|j| *j != i) {
                if let Some(most) = self.fresh.most(i, j)
                    && !zone.limit(i, j, most)
                {
                    return false;
                }
            }
        }
        true
    }

    fn end(&self, verdict: &Verdict, mut path: Path, is_sync: bool, out: &mut Out) {
        if !self.bounded_sums(&mut path.zone) {
            return;
        }
        if is_sync {
            match verdict {
                Verdict::Defer | Verdict::Skip => {
                    match path.covered {
                        true => path.zone.assign(LOST, ZERO, 0),
                        false => path.zone.assign(LOST, LOST, 1),
                    }
                    out.acknowledged.push(path.zone.clone());
                }
                Verdict::Fail(..) => {}
                // It syncs everything before it is acknowledged.
                Verdict::Pass | Verdict::Stage => path.zone.assign(LOST, ZERO, 0),
                // Nothing is known of any other.
                _ => {
                    path.zone.forget(LOST);
                    out.acknowledged.push(path.zone.clone());
                }
            }
        }
        for id in &self.dead {
            self.forget(&mut path, *id);
            path.bits &= !self.bits.get(id).map_or(0, |bit| 1 << bit);
        }
        let mut zone = path.zone;
        zone.falls(LOST);
        (self.first_term..self.first_term + self.terms.len()).for_each(|term| zone.forget(term));
        out.after.push((path.bits, zone));
    }
}

/// What is known of the terms alone.
fn fresh(size: usize, first_term: usize, terms: &[Expr], params: &[Param]) -> Zone {
    let mut zone = Zone::new(size);
    let enclosed = |(index, term)| enclose(term, params).map(|e| (index, e));
    let mut all: Vec<(usize, Enclosed)> = (first_term..).zip(terms).filter_map(enclosed).collect();
    all.push((ZERO, Enclosed::zero(params)));
    for (i, a) in &all {
        for (j, b) in all.iter().filter(|(j, _)| j != i) {
            if let Some(most) = exceeds(a, b, params) {
                let is_possible = zone.limit(*i, *j, most);
                debug_assert!(is_possible);
            }
        }
    }
    zone
}

/// What the text compares.
#[derive(Default)]
struct Found {
    remainders: BTreeSet<(StateId, u64)>,
    terms: Vec<Expr>,
    constants: Vec<u64>,
}

impl Found {
    fn node(&mut self, node: Node<'_>) {
        match node {
            Node::Stmt(Stmt { node: StmtKind::EveryCalls(period, ..), .. }) => {
                self.constants.push(*period);
            }
            Node::Stmt(Stmt { node: StmtKind::Await(distance), .. }) => self.term(distance),
            Node::Stmt(_) => {}
            Node::Expr(expr) => match &expr.kind {
                ExprKind::Const(value) => self.constants.push(*value),
                ExprKind::Compare(_, a, b) => {
                    self.term(a);
                    self.term(b);
                }
                ExprKind::Arith(Arith::Rem, a, b) => {
                    if let (ExprKind::State(id), ExprKind::Const(by)) = (&a.kind, &b.kind)
                        && (1..=MOST_DIVISOR).contains(by)
                    {
                        self.remainders.insert((*id, *by));
                    }
                }
                _ => {}
            },
        }
    }

    /// Notes an expression of parameters and constants.
    fn term(&mut self, expr: &Expr) {
        let (mut closed, mut constant) = (expr.unit != Unit::Bool, true);
        visit_expr(expr, &mut |node| {
            if let Node::Expr(Expr { kind, .. }) = node {
                closed &=
                    matches!(kind, ExprKind::Const(_) | ExprKind::Param(_) | ExprKind::Arith(..));
                constant &= matches!(kind, ExprKind::Const(_));
            }
        });
        if closed && !constant && !self.terms.iter().any(|term| alike(term, expr)) {
            self.terms.push(expr.clone());
        }
    }
}
