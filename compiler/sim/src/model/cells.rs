//! What the environment can make a policy read, as finitely many values.
//!
//! A policy compares a reading with thresholds; between two thresholds every value has the same
//! effect. So the values of a reading fall into cells, and one of each cell stands for all. The
//! thresholds come from the checked policy, for every sampled vector of parameters. A reading that is
//! used in a way that has no thresholds (`sync.latency % 3 == 1`) is reported: what is explored
//! then may miss something, and the bound is taken from the derivation instead.
//!
//! A state variable that keeps a reading (`last = now`) may hold any value of that reading at the
//! next call. It is treated as a reading, chosen anew at each call.

use durac_bpf::abi::Reading;
use durac_compiler::hir::{Arith, Cmp, Expr, ExprKind, Policy, StateId, Stmt, StmtKind};
use durac_compiler::unit::Unit;
use durac_grammar::Span;
use std::collections::{BTreeMap, BTreeSet};

/// The monotonic clock at every call: late enough that any time can have passed before.
pub const NOW: u64 = 1 << 60;

/// Something the environment chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A reading.
    Reading(Reading),
    /// A state variable that keeps readings.
    Kept(StateId),
}

/// A range of values with the same effect: first and last.
pub type Cell = (u64, u64);

/// What the environment chooses from.
#[derive(Clone, Debug, Default)]
pub struct Cells {
    /// The cells of each source that the policy uses.
    pub of: BTreeMap<Source, Vec<Cell>>,
    /// Numbers that what is pending is compared with, by `pending`, by `staged` and by waits; above
    /// the greatest nothing changes any more.
    pub pending: BTreeSet<u64>,
    /// Places where `pending` is used without thresholds: nothing says when it stops to matter.
    pub open: Vec<Span>,
    /// Places where a choice of the environment has no thresholds.
    pub inexact: Vec<Span>,
}

impl Cells {
    /// The greatest number that what is pending is compared with.
    #[must_use]
    pub fn compared(&self) -> u64 {
        self.pending.last().copied().unwrap_or(0)
    }
}

/// Finds the cells of a policy for these vectors of parameters.
#[must_use]
pub fn cells(policy: &Policy, samples: &[Vec<u64>]) -> Cells {
    let kept = kept(policy);
    let mut finder = Finder { samples, kept, bounds: BTreeMap::new(), found: Cells::default() };
    for hook in &policy.hooks {
        finder.stmts(&hook.body);
    }
    let mut found = finder.found;
    for (source, mut bounds) in finder.bounds {
        bounds.insert(0);
        let mut cells = Vec::new();
        let mut starts = bounds.into_iter().peekable();
        while let Some(start) = starts.next() {
            cells.push((start, starts.peek().map_or(u64::MAX, |next| next - 1)));
        }
        found.of.insert(source, cells);
    }
    found
}

/// The state variables that keep readings.
fn kept(policy: &Policy) -> BTreeSet<StateId> {
    fn assigned(stmts: &[Stmt], kept: &mut BTreeSet<StateId>) {
        for stmt in stmts {
            match &stmt.node {
                StmtKind::Assign(id, value) => {
                    if value.unit != Unit::Bool && holds_reading(value, kept) {
                        kept.insert(*id);
                    }
                }
                StmtKind::If(_, a, b) => {
                    assigned(a, kept);
                    assigned(b, kept);
                }
                StmtKind::EveryTime(_, id, body) => {
                    kept.insert(*id);
                    assigned(body, kept);
                }
                StmtKind::EveryCalls(_, _, body) => assigned(body, kept),
                StmtKind::Verdict(_) | StmtKind::Await(_) | StmtKind::Commit => {}
            }
        }
    }
    let mut kept = BTreeSet::new();
    loop {
        let before = kept.len();
        policy.hooks.iter().for_each(|hook| assigned(&hook.body, &mut kept));
        if kept.len() == before {
            return kept;
        }
    }
}

/// Whether a value of the environment's choice is in the expression's value.
fn holds_reading(expr: &Expr, kept: &BTreeSet<StateId>) -> bool {
    match &expr.kind {
        ExprKind::Read(reading) => chosen(*reading),
        ExprKind::State(id) => kept.contains(id),
        ExprKind::Arith(_, a, b) => holds_reading(a, kept) || holds_reading(b, kept),
        _ => false,
    }
}

/// Whether the environment chooses a reading; the others are the engine's to say.
fn chosen(reading: Reading) -> bool {
    !matches!(reading, Reading::Pending | Reading::NotifyDone | Reading::Staged | Reading::Log)
}

struct Finder<'a> {
    samples: &'a [Vec<u64>],
    kept: BTreeSet<StateId>,
    bounds: BTreeMap<Source, BTreeSet<u64>>,
    found: Cells,
}

/// What one side of a comparison is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// Constants and parameters.
    Closed,
    /// `pending` or `staged` alone, in monotone arithmetic.
    Pending,
    /// One of them in other arithmetic with what the checker follows exactly.
    Open,
    /// One choice of the environment, in monotone arithmetic.
    One(Source),
    /// What the checker follows exactly: state that keeps no reading, truth values.
    Followed,
    /// Anything else.
    Mixed,
}

impl Finder<'_> {
    fn stmts(&mut self, stmts: &[Stmt]) {
        for stmt in stmts {
            match &stmt.node {
                StmtKind::Await(distance) => {
                    self.expr(distance);
                    self.distance(distance);
                }
                StmtKind::Assign(_, value) => self.expr(value),
                StmtKind::If(cond, a, b) => {
                    self.expr(cond);
                    self.stmts(a);
                    self.stmts(b);
                }
                StmtKind::EveryTime(period, id, body) => {
                    // Due, and not due.
                    let bounds = [0, (NOW - (*period).min(NOW)) + 1];
                    self.bounds.entry(Source::Kept(*id)).or_default().extend(bounds);
                    self.stmts(body);
                }
                StmtKind::EveryCalls(_, _, body) => self.stmts(body),
                StmtKind::Verdict(_) | StmtKind::Commit => {}
            }
        }
    }

    /// A wait at a distance is a comparison of what is pending with it.
    fn distance(&mut self, distance: &Expr) {
        match self.side(distance) {
            Side::Closed => {
                let at = |params: &Vec<u64>| eval(distance, params, 0);
                match self.samples.iter().map(at).collect::<Option<Vec<u64>>>() {
                    Some(distances) => self.found.pending.extend(distances),
                    None => self.found.open.push(distance.span),
                }
            }
            Side::Followed | Side::Pending | Side::Open => self.found.open.push(distance.span),
            Side::One(_) | Side::Mixed => self.found.inexact.push(distance.span),
        }
    }

    /// Enters what an expression reads, and the thresholds of the comparisons in it.
    fn expr(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Read(Reading::ChildActive) => {
                let source = Source::Reading(Reading::ChildActive);
                // The cells {0} and {1}.
                self.bounds.entry(source).or_default().extend([0, 1, 2]);
            }
            ExprKind::Read(reading) if chosen(*reading) => {
                self.bounds.entry(Source::Reading(*reading)).or_default();
            }
            ExprKind::State(id) if self.kept.contains(id) => {
                self.bounds.entry(Source::Kept(*id)).or_default();
            }
            ExprKind::Compare(cmp, a, b) => {
                self.expr(a);
                self.expr(b);
                if a.unit != Unit::Bool {
                    self.comparison(*cmp, a, b, expr.span);
                }
            }
            ExprKind::Not(a) => self.expr(a),
            ExprKind::And(a, b) | ExprKind::Or(a, b) | ExprKind::Arith(_, a, b) => {
                self.expr(a);
                self.expr(b);
            }
            ExprKind::Const(_) | ExprKind::Param(_) | ExprKind::Read(_) | ExprKind::State(_) => {}
        }
    }

    fn comparison(&mut self, _: Cmp, a: &Expr, b: &Expr, span: Span) {
        match (self.side(a), self.side(b)) {
            (Side::Closed | Side::Followed, Side::Closed | Side::Followed) => {}
            (Side::Pending, Side::Closed) => self.pending(a, b, span),
            (Side::Closed, Side::Pending) => self.pending(b, a, span),
            (Side::One(source), Side::Closed) => self.thresholds(source, a, b, span),
            (Side::Closed, Side::One(source)) => self.thresholds(source, b, a, span),
            (Side::Pending | Side::Open, Side::Followed | Side::Pending | Side::Open)
            | (Side::Followed, Side::Pending | Side::Open)
            | (Side::Open, Side::Closed)
            | (Side::Closed, Side::Open) => self.found.open.push(span),
            // Two readings side by side: below, equal and above are in the cells 0, 1 and 2.
            (Side::One(x), Side::One(y)) if is_bare(a) && is_bare(b) && x != y => {
                for source in [x, y] {
                    self.bounds.entry(source).or_default().extend([0, 1, 2]);
                }
            }
            _ => self.found.inexact.push(span),
        }
    }

    fn pending(&mut self, side: &Expr, other: &Expr, span: Span) {
        match self.steps(side, other) {
            Some(steps) => self.found.pending.extend(steps),
            None => self.found.open.push(span),
        }
    }

    fn thresholds(&mut self, source: Source, side: &Expr, other: &Expr, span: Span) {
        match self.steps(side, other) {
            Some(steps) => self.bounds.entry(source).or_default().extend(steps),
            None => self.found.inexact.push(span),
        }
    }

    /// The values of the one choice in `side` from which on it is at least, and more than, `other`;
    /// for a falling side, at most and less than.
    fn steps(&self, side: &Expr, other: &Expr) -> Option<Vec<u64>> {
        let mut steps = Vec::new();
        for params in self.samples {
            let limit = eval(other, params, 0)?;
            let value = |x: u64| eval(side, params, x);
            let (first, last) = (value(0)?, value(NOW)?);
            for limit in [Some(limit), limit.checked_add(1)].into_iter().flatten() {
                let reached = |x: u64| {
                    value(x).is_some_and(|v| if first <= last { v >= limit } else { v < limit })
                };
                if reached(NOW) {
                    let (mut low, mut high) = (0, NOW);
                    while low < high {
                        let middle = low + (high - low) / 2;
                        if reached(middle) { high = middle } else { low = middle + 1 }
                    }
                    steps.push(low);
                }
            }
        }
        Some(steps)
    }

    fn side(&self, expr: &Expr) -> Side {
        match &expr.kind {
            ExprKind::Const(_) | ExprKind::Param(_) => Side::Closed,
            ExprKind::Read(Reading::Pending | Reading::Staged) => Side::Pending,
            ExprKind::Read(reading) if chosen(*reading) => Side::One(Source::Reading(*reading)),
            ExprKind::State(id) if self.kept.contains(id) => Side::One(Source::Kept(*id)),
            ExprKind::Read(_) | ExprKind::State(_) => Side::Followed,
            ExprKind::Arith(op, a, b) => {
                let sides = (self.side(a), self.side(b));
                match (op, sides) {
                    (_, (Side::Closed, Side::Closed)) => Side::Closed,
                    (_, (Side::Closed | Side::Followed, Side::Closed | Side::Followed)) => {
                        Side::Followed
                    }
                    // The clock stands still: what a kept time is taken from is a constant.
                    (
                        Arith::Sub | Arith::WrappingSub,
                        (Side::One(Source::Reading(Reading::Now)), Side::One(kept)),
                    ) if matches!(kept, Source::Kept(_)) && is_bare(b) => Side::One(kept),
                    // Both are followed exactly, but not in monotone arithmetic.
                    (_, (Side::Pending, Side::Followed | Side::Pending))
                    | (_, (Side::Followed, Side::Pending))
                    | (Arith::Rem | Arith::Div, (_, Side::Pending))
                    | (Arith::Rem, (Side::Pending, _)) => Side::Open,
                    (
                        _,
                        (Side::Open, Side::Open | Side::Pending | Side::Followed | Side::Closed),
                    )
                    | (_, (Side::Pending | Side::Followed | Side::Closed, Side::Open)) => {
                        Side::Open
                    }
                    (Arith::Rem | Arith::WrappingSub, _) => Side::Mixed,
                    (_, (one @ (Side::One(_) | Side::Pending), Side::Closed)) => one,
                    (Arith::Div, _) => Side::Mixed,
                    (_, (Side::Closed, one @ (Side::One(_) | Side::Pending))) => one,
                    _ => Side::Mixed,
                }
            }
            ExprKind::Not(_) | ExprKind::And(..) | ExprKind::Or(..) | ExprKind::Compare(..) => {
                Side::Followed
            }
        }
    }
}

fn is_bare(expr: &Expr) -> bool {
    matches!(expr.kind, ExprKind::Read(_) | ExprKind::State(_))
}

/// The value of arithmetic with one choice in it, which is `x`; the clock beside a kept time is
/// [`NOW`]. `None` if it wraps.
fn eval(expr: &Expr, params: &[u64], x: u64) -> Option<u64> {
    match &expr.kind {
        ExprKind::Const(value) => Some(*value),
        ExprKind::Param(id) => params.get(id.index()).copied(),
        ExprKind::Read(_) | ExprKind::State(_) => Some(x),
        ExprKind::Arith(op, a, b) => {
            let beside_kept = matches!(a.kind, ExprKind::Read(Reading::Now))
                && matches!(b.kind, ExprKind::State(_));
            let a = if beside_kept { NOW } else { eval(a, params, x)? };
            let b = eval(b, params, x)?;
            match op {
                Arith::Add => a.checked_add(b),
                // Beyond what any reading reaches, a product stops growing.
                Arith::Mul => Some(a.saturating_mul(b)),
                other => Some(other.apply(a, b)),
            }
        }
        _ => None,
    }
}

/// A value of the cell; above 0 if `above_zero` and the cell has one.
#[must_use]
pub fn value_in((first, last): Cell, above_zero: bool) -> Option<u64> {
    match (first, above_zero) {
        (0, true) => (last > 0).then_some(1),
        (first, _) => Some(first),
    }
}
