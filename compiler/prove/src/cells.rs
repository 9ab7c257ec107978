//! What the environment can make a policy read, as finitely many values.
//!
//! A policy compares a reading with thresholds; between two thresholds every value has the same
//! effect. So the values of a reading fall into cells, and one of each cell stands for all. The
//! thresholds come from the checked policy, for every sampled vector of parameters.
//!
//! One value can stand for others only where every branch is a function of threshold tests of single
//! readings. `Finder` accepts such comparisons and no others (`docs/proof.md` has the rules and the
//! argument); each of the others is reported with its reason ([`Why`]), and then nothing that was explored
//! is taken for an upper bound.
//!
//! A state variable that keeps a reading (`last = now`) may hold any value of that reading at the
//! next call. It is treated as a reading, chosen anew at each call.

use crate::mutants::{Mutant, makes};
use durac_abi::{CLOCK_MOST, READING_MOST, Reading};
use durac_core::bounds::evaluate;
use durac_core::hir::{Arith, Bound, Expr, ExprKind, Policy, StateId, Stmt, StmtKind};
use durac_core::unit::Unit;
use durac_grammar::Span;
use std::collections::{BTreeMap, BTreeSet};

/// The monotonic clock at every call, when it is only compared with kept times: late enough that any
/// time can have passed before.
pub const NOW: u64 = CLOCK_MOST + 1;
/// Bytes that are compared with numbers of calls; more are taken for any number of calls.
const FEW_BYTES: u64 = 64;

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

/// Why a comparison cannot be followed by values that stand for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has no threshold.
    NoThreshold,
    /// Two readings are compared with each other, and one of them with something else too.
    Pair,
    /// The clock, or a kept time, is compared in two ways.
    Clock,
    /// The arithmetic can exceed 64 bits.
    MayWrap,
    /// The clock goes on while the call waits, and a time is compared with it before and after.
    AcrossWait,
    /// The variable was changed in the same call.
    AfterAssignment,
    /// The distance of a wait depends on a reading.
    Distance,
    /// A number of calls is used so that no greatest value matters.
    EngineNumber,
}

/// What the environment chooses from.
#[derive(Clone, Debug, Default)]
pub struct Cells {
    /// The cells of each source that the policy uses.
    pub of: BTreeMap<Source, Vec<Cell>>,
    /// Numbers that what is pending is compared with, by `pending`, by `staged`, by state that keeps them
    /// and by waits; above the greatest nothing changes any more.
    pub pending: BTreeSet<u64>,
    /// State variables that hold one of these numbers as it was read, or a constant.
    pub counts: Vec<StateId>,
    /// Places where such a number is used without thresholds: nothing says when it stops to matter.
    pub open: Vec<Span>,
    /// Places where a choice of the environment cannot be followed.
    pub inexact: Vec<(Span, Why)>,
    /// Whether the clock is only compared with kept times.
    pub relative_clock: bool,
    /// Whether `pending.bytes` is compared with another reading.
    pub pairs_bytes: bool,
    /// Whether a branch depends on a choice that is freer here than in the world: bytes, ages, the clock
    /// and what is kept of them are chosen anew each time.
    pub over: bool,
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
    let assigned = assignments(policy);
    let kept = holding(&assigned, chosen);
    let mut counting = holding(&assigned, counted);
    counting.retain(|id| !kept.contains(id));
    let exact = counting.iter().copied().filter(|id| is_copied(&assigned, *id, &counting));
    let counts: BTreeSet<StateId> = exact.collect();
    let mut finder = Finder {
        samples,
        assigned,
        kept,
        counting,
        counts,
        at: Position::default(),
        uses: Vec::new(),
        bounds: BTreeMap::new(),
        found: Cells::default(),
    };
    // A reply and a turn change nothing of a log.
    let hooks = policy.hooks.iter().filter(|body| body.hook.is_on_log());
    for (body, hook) in hooks.enumerate() {
        finder.at = Position { body, order: 0, waits: 0 };
        finder.stmts(&hook.body);
    }
    finder.limits(policy);
    finder.refuse();
    finder.finish()
}

/// Where something is in the text: the number of the body, of the statement in it, and of the waits
/// before it. Branches are not told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    body: usize,
    order: u32,
    waits: u32,
}

/// An assignment.
#[derive(Clone, Debug)]
pub(crate) struct Assigned {
    pub to: StateId,
    pub value: Expr,
    at: Position,
}

/// Every assignment of a number, in the order of the text, `every` included.
pub(crate) fn assignments(policy: &Policy) -> Vec<Assigned> {
    fn walk(stmts: &[Stmt], place: &mut Position, out: &mut Vec<Assigned>) {
        for stmt in stmts {
            place.order += 1;
            match &stmt.node {
                StmtKind::Assign(to, value) if value.unit != Unit::Bool => {
                    out.push(Assigned { to: *to, value: value.clone(), at: *place });
                }
                StmtKind::If(_, a, b) => {
                    walk(a, place, out);
                    walk(b, place, out);
                }
                StmtKind::EveryTime(_, to, body) => {
                    let kind = ExprKind::Read(Reading::Now);
                    let value = Expr { kind, unit: Unit::Duration, span: stmt.span };
                    out.push(Assigned { to: *to, value, at: *place });
                    walk(body, place, out);
                }
                StmtKind::EveryCalls(_, _, body) => walk(body, place, out),
                StmtKind::Await(_) => place.waits += 1,
                StmtKind::Assign(..) | StmtKind::Verdict(_) | StmtKind::Commit => {}
            }
        }
    }
    let mut out = Vec::new();
    let hooks = policy.hooks.iter().filter(|body| body.hook.is_on_log());
    for (body, hook) in hooks.enumerate() {
        walk(&hook.body, &mut Position { body, order: 0, waits: 0 }, &mut out);
    }
    out
}

/// The state variables that can hold such a reading, or a value computed from one.
fn holding(assigned: &[Assigned], of: fn(Reading) -> bool) -> BTreeSet<StateId> {
    fn holds(expr: &Expr, of: fn(Reading) -> bool, known: &BTreeSet<StateId>) -> bool {
        match &expr.kind {
            ExprKind::Read(reading) => of(*reading),
            ExprKind::State(id) => known.contains(id),
            ExprKind::Arith(_, a, b) => holds(a, of, known) || holds(b, of, known),
            _ => false,
        }
    }
    let mut known = BTreeSet::new();
    loop {
        let before = known.len();
        for a in assigned {
            if holds(&a.value, of, &known) {
                known.insert(a.to);
            }
        }
        if known.len() == before {
            return known;
        }
    }
}

/// Whether every value that the variable is given is a constant, a number of calls as it was read, or a
/// variable that holds one.
fn is_copied(assigned: &[Assigned], id: StateId, counting: &BTreeSet<StateId>) -> bool {
    let copies = |value: &Expr| match &value.kind {
        ExprKind::Const(_) => true,
        ExprKind::Read(reading) => counted(*reading),
        // One that computes makes this one compute too.
        ExprKind::State(from) => {
            *from == id
                || counting.contains(from)
                    && assigned.iter().filter(|a| a.to == *from).all(|a| is_plain(&a.value))
        }
        _ => false,
    };
    assigned.iter().filter(|a| a.to == id).all(|a| copies(&a.value))
}

/// A constant or a number of calls as it was read.
fn is_plain(value: &Expr) -> bool {
    match &value.kind {
        ExprKind::Const(_) => true,
        ExprKind::Read(reading) => counted(*reading),
        _ => false,
    }
}

/// Whether the environment chooses a reading; the others are the engine's to say.
fn chosen(reading: Reading) -> bool {
    !counted(reading) && !matches!(reading, Reading::NotifyDone | Reading::Log)
}

/// Whether a reading is a number of calls, which is followed exactly.
fn counted(reading: Reading) -> bool {
    matches!(reading, Reading::Pending | Reading::Staged)
}

struct Finder<'a> {
    samples: &'a [Vec<u64>],
    assigned: Vec<Assigned>,
    kept: BTreeSet<StateId>,
    /// State that can hold a number of calls, and no choice of the environment.
    counting: BTreeSet<StateId>,
    /// See [`Cells::counts`].
    counts: BTreeSet<StateId>,
    at: Position,
    uses: Vec<Use>,
    bounds: BTreeMap<Source, BTreeSet<u64>>,
    found: Cells,
}

/// A comparison of what the environment chooses that may be followed.
#[derive(Clone, Copy, Debug)]
struct Use {
    span: Span,
    at: Position,
    kind: UseKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UseKind {
    /// One choice, alone or in arithmetic, with constants and parameters.
    Closed(Source),
    /// Two choices with each other.
    Pair(Source, Source),
    /// The time since a kept one, with constants and parameters.
    Since(StateId),
}

impl UseKind {
    fn is_of(self, source: Source) -> bool {
        match self {
            UseKind::Closed(x) => x == source,
            UseKind::Pair(x, y) => x == source || y == source,
            UseKind::Since(id) => {
                source == Source::Kept(id) || source == Source::Reading(Reading::Now)
            }
        }
    }
}

/// What one side of a comparison is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// Constants and parameters.
    Closed,
    /// One number of calls, in monotone arithmetic.
    Count,
    /// Numbers of calls in other arithmetic with what the checker follows exactly.
    Open,
    /// One choice of the environment, in monotone arithmetic with constants and parameters.
    One(Source),
    /// `now` less a kept time.
    Since(StateId),
    /// What the checker follows exactly: state that keeps no reading, truth values.
    Followed,
    /// Anything else.
    Mixed,
}

impl Finder<'_> {
    fn stmts(&mut self, stmts: &[Stmt]) {
        for stmt in stmts {
            self.at.order += 1;
            match &stmt.node {
                StmtKind::Await(distance) => {
                    self.expr(distance);
                    self.distance(distance);
                    self.at.waits += 1;
                }
                StmtKind::Assign(_, value) => self.expr(value),
                StmtKind::If(cond, a, b) => {
                    self.expr(cond);
                    self.stmts(a);
                    self.stmts(b);
                }
                StmtKind::EveryTime(period, id, body) => {
                    self.since(*id, [*period], stmt.span);
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
                let at = |params: &Vec<u64>| evaluate(distance, params);
                match self.samples.iter().map(at).collect::<Option<Vec<u64>>>() {
                    Some(distances) => self.found.pending.extend(distances),
                    None => self.found.open.push(distance.span),
                }
            }
            Side::Followed | Side::Count | Side::Open => self.found.open.push(distance.span),
            Side::One(_) | Side::Since(_) | Side::Mixed => {
                self.found.inexact.push((distance.span, Why::Distance));
            }
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
            ExprKind::Compare(_, a, b) => {
                self.expr(a);
                self.expr(b);
                if a.unit != Unit::Bool {
                    self.comparison(a, b, expr.span);
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

    /// What a guarantee allows in bytes or updates is the end of a cell, if their reading is used.
    fn limits(&mut self, policy: &Policy) {
        for guarantee in &policy.guarantees {
            let (reading, limit) = match &guarantee.bound {
                Bound::Bytes(limit) => (Reading::PendingBytes, limit),
                Bound::Updates(limit) => (Reading::PendingUpdates, limit),
                _ => continue,
            };
            if let Some(bounds) = self.bounds.get_mut(&Source::Reading(reading)) {
                let limits = self.samples.iter().filter_map(|params| evaluate(limit, params));
                bounds.extend(limits.filter_map(|limit| limit.checked_add(1)));
            }
        }
    }

    fn comparison(&mut self, a: &Expr, b: &Expr, span: Span) {
        match (self.side(a), self.side(b)) {
            (Side::Closed | Side::Followed, Side::Closed | Side::Followed) => {}
            (Side::Count, Side::Closed) => self.counted(a, b, span),
            (Side::Closed, Side::Count) => self.counted(b, a, span),
            (Side::One(source), Side::Closed) => self.thresholds(source, a, b, span),
            (Side::Closed, Side::One(source)) => self.thresholds(source, b, a, span),
            (Side::Since(id), Side::Closed) => self.since_closed(id, b, span),
            (Side::Closed, Side::Since(id)) => self.since_closed(id, a, span),
            (Side::Count | Side::Open, Side::Followed | Side::Count | Side::Open)
            | (Side::Followed, Side::Count | Side::Open)
            | (Side::Open, Side::Closed)
            | (Side::Closed, Side::Open) => self.found.open.push(span),
            (Side::One(x), Side::One(y)) if is_bare(a) && is_bare(b) && x != y => {
                // Below, equal and above are in these cells, and stay so when one of the two is read
                // anew after a wait.
                for source in [x, y] {
                    self.bounds.entry(source).or_default().extend([0, 1, 2, 3]);
                }
                self.used(UseKind::Pair(x, y), span);
            }
            _ => self.found.inexact.push((span, Why::NoThreshold)),
        }
    }

    fn used(&mut self, kind: UseKind, span: Span) {
        self.uses.push(Use { span, at: self.at, kind });
    }

    fn counted(&mut self, side: &Expr, other: &Expr, span: Span) {
        match self.steps(side, other, u64::MAX >> 1) {
            Ok(steps) => self.found.pending.extend(steps),
            // The programs compute it exactly, but not in steps.
            Err(Wraps) => self.found.open.push(span),
        }
    }

    fn thresholds(&mut self, source: Source, side: &Expr, other: &Expr, span: Span) {
        let steps = match is_bare(side) {
            true => self.bare_steps(other),
            false => self.steps(side, other, self.domain(source)),
        };
        match steps {
            Ok(steps) => {
                self.bounds.entry(source).or_default().extend(steps);
                self.used(UseKind::Closed(source), span);
            }
            Err(Wraps) => self.found.inexact.push((span, Why::MayWrap)),
        }
    }

    fn since_closed(&mut self, id: StateId, other: &Expr, span: Span) {
        let at = |params: &Vec<u64>| evaluate(other, params);
        match self.samples.iter().map(at).collect::<Option<Vec<u64>>>() {
            Some(limits) => self.since(id, limits, span),
            None => self.found.inexact.push((span, Why::MayWrap)),
        }
    }

    /// The time since a kept one is compared with these: more, as much, and less.
    fn since(&mut self, id: StateId, limits: impl IntoIterator<Item = u64>, span: Span) {
        self.found.relative_clock = true;
        let bounds = self.bounds.entry(Source::Kept(id)).or_default();
        for limit in limits.into_iter().filter(|limit| *limit < NOW) {
            bounds.extend([NOW - limit, NOW - limit + 1]);
        }
        self.used(UseKind::Since(id), span);
    }

    /// The greatest value of a source.
    fn domain(&self, source: Source) -> u64 {
        match source {
            Source::Reading(Reading::Now) => CLOCK_MOST,
            Source::Reading(_) => READING_MOST,
            Source::Kept(id) => self.kept_domain(id, self.kept.len()),
        }
    }

    /// The greatest value of a variable that keeps readings: any, once it is computed.
    fn kept_domain(&self, id: StateId, depth: usize) -> u64 {
        let most = |value: &Expr| match &value.kind {
            ExprKind::Const(value) => *value,
            ExprKind::Read(reading) => self.domain(Source::Reading(*reading)),
            ExprKind::State(from) if *from == id => 0,
            ExprKind::State(from) if depth > 0 && self.kept.contains(from) => {
                self.kept_domain(*from, depth - 1)
            }
            _ => u64::MAX,
        };
        self.assigned.iter().filter(|a| a.to == id).map(|a| most(&a.value)).max().unwrap_or(0)
    }

    /// The values from which on a choice is at least, and more than, `other`.
    fn bare_steps(&self, other: &Expr) -> Result<Vec<u64>, Wraps> {
        let mut steps = Vec::new();
        for params in self.samples {
            let limit = evaluate(other, params).ok_or(Wraps)?;
            steps.extend([Some(limit), limit.checked_add(1)].into_iter().flatten());
        }
        Ok(steps)
    }

    /// The values of the one choice in `side` from which on it is at least, and more than, `other`;
    /// for a falling side, at most and less than. No value up to `most` may wrap: then the side
    /// rises or falls throughout.
    fn steps(&self, side: &Expr, other: &Expr, most: u64) -> Result<Vec<u64>, Wraps> {
        let mut steps = Vec::new();
        for params in self.samples {
            let limit = evaluate(other, params).ok_or(Wraps)?;
            let value = |x: u64| eval(side, params, x).ok_or(Wraps);
            let (first, last) = (value(0)?, value(most)?);
            for limit in [Some(limit), limit.checked_add(1)].into_iter().flatten() {
                let reached = |x: u64| {
                    value(x).is_ok_and(|v| if first <= last { v >= limit } else { v < limit })
                };
                if reached(most) {
                    let (mut low, mut high) = (0, most);
                    while low < high {
                        let middle = low + (high - low) / 2;
                        if reached(middle) { high = middle } else { low = middle + 1 }
                    }
                    steps.push(low);
                }
            }
        }
        Ok(steps)
    }

    fn side(&self, expr: &Expr) -> Side {
        match &expr.kind {
            ExprKind::Const(_) | ExprKind::Param(_) => Side::Closed,
            ExprKind::Read(reading) if counted(*reading) => Side::Count,
            ExprKind::Read(reading) if chosen(*reading) => Side::One(Source::Reading(*reading)),
            ExprKind::State(id) if self.kept.contains(id) => Side::One(Source::Kept(*id)),
            ExprKind::State(id) if self.counts.contains(id) => Side::Count,
            ExprKind::State(id) if self.counting.contains(id) => Side::Open,
            ExprKind::Read(_) | ExprKind::State(_) => Side::Followed,
            ExprKind::Arith(op, a, b) => self.arithmetic(*op, a, b),
            ExprKind::Not(_) | ExprKind::And(..) | ExprKind::Or(..) | ExprKind::Compare(..) => {
                Side::Followed
            }
        }
    }

    fn arithmetic(&self, op: Arith, a: &Expr, b: &Expr) -> Side {
        let is_exact =
            |side| matches!(side, Side::Count | Side::Open | Side::Followed | Side::Closed);
        match (op, self.side(a), self.side(b)) {
            (_, Side::Closed, Side::Closed) => Side::Closed,
            (_, Side::Closed | Side::Followed, Side::Closed | Side::Followed) => Side::Followed,
            (
                Arith::Sub | Arith::WrappingSub,
                Side::One(Source::Reading(Reading::Now)),
                Side::One(Source::Kept(id)),
            ) if is_bare(a) && is_bare(b) => Side::Since(id),
            (Arith::Rem | Arith::WrappingSub, x, y) if !(is_exact(x) && is_exact(y)) => Side::Mixed,
            (Arith::Add | Arith::Sub | Arith::Mul | Arith::Div, one, Side::Closed)
                if matches!(one, Side::One(_) | Side::Count) =>
            {
                one
            }
            (Arith::Add | Arith::Sub | Arith::Mul, Side::Closed, one)
                if matches!(one, Side::One(_) | Side::Count) =>
            {
                one
            }
            // Followed exactly, but not in monotone arithmetic.
            (_, x, y) if is_exact(x) && is_exact(y) => Side::Open,
            _ => Side::Mixed,
        }
    }

    /// Refuses the comparisons that one value of each choice cannot decide for the others.
    fn refuse(&mut self) {
        let mut refused = Vec::new();
        for of in &self.uses {
            if let Some(why) = self.refused(of) {
                refused.push((of.span, why));
            }
        }
        self.found.inexact.extend(refused);
    }

    fn refused(&self, of: &Use) -> Option<Why> {
        let others = |source: Source| {
            self.uses.iter().filter(move |u| u.kind.is_of(source) && !alike(u.kind, of.kind))
        };
        match of.kind {
            UseKind::Pair(x, y) if others(x).chain(others(y)).next().is_some() => {
                return Some(Why::Pair);
            }
            UseKind::Since(id) => {
                let is_time = |value: &Expr| match &value.kind {
                    ExprKind::Const(_) => true,
                    ExprKind::Read(reading) => *reading == Reading::Now,
                    _ => false,
                };
                let mut given = self.assigned.iter().filter(|a| a.to == id);
                if !given.all(|a| is_time(&a.value)) || others(Source::Kept(id)).next().is_some() {
                    return Some(Why::Clock);
                }
            }
            UseKind::Closed(Source::Reading(Reading::Now)) if self.found.relative_clock => {
                return Some(Why::Clock);
            }
            UseKind::Pair(..) | UseKind::Closed(_) => {}
        }
        let again = |u: &&Use| {
            alike(u.kind, of.kind) && u.at.body == of.at.body && u.at.waits < of.at.waits
        };
        if matches!(of.kind, UseKind::Since(_)) && self.uses.iter().any(|u| again(&u)) {
            return Some(Why::AcrossWait);
        }
        self.is_after_assignment(of).then_some(Why::AfterAssignment)
    }

    /// Whether a variable in the comparison was given a value earlier in the same body that this
    /// comparison cannot tell apart: anything but a constant or, beside constants, a bare reading.
    fn is_after_assignment(&self, of: &Use) -> bool {
        let earlier = |a: &&Assigned| {
            a.at.body == of.at.body && a.at.order < of.at.order && of.kind.is_of(Source::Kept(a.to))
        };
        self.assigned.iter().filter(earlier).any(|a| match self.side(&a.value) {
            Side::Closed | Side::Followed => false,
            Side::One(_) => !is_bare(&a.value) || !matches!(of.kind, UseKind::Closed(_)),
            _ => true,
        })
    }

    /// A variable that is given a bare reading, or another such variable, hands its thresholds on.
    fn flow_back(&mut self) {
        let mut changed = true;
        while std::mem::take(&mut changed) {
            for a in &self.assigned {
                let Side::One(from) = self.side(&a.value) else { continue };
                let Some(bounds) = self.bounds.get(&Source::Kept(a.to)).cloned() else { continue };
                // Times that are only told from the clock by how long ago they were have no thresholds
                // of their own.
                let is_time = self.uses.iter().any(|u| u.kind == UseKind::Since(a.to));
                if is_bare(&a.value) && !is_time {
                    let of = self.bounds.entry(from).or_default();
                    let before = of.len();
                    of.extend(bounds);
                    changed |= of.len() > before;
                }
            }
        }
    }

    fn finish(mut self) -> Cells {
        self.flow_back();
        let mut found = self.found;
        let bytes = Source::Reading(Reading::PendingBytes);
        found.pairs_bytes = self
            .uses
            .iter()
            .any(|u| matches!(u.kind, UseKind::Pair(x, y) if x == bytes || y == bytes));
        let is_free = |source: &Source| {
            use Reading::{CallLen, ChildActive, SyncLatency};
            !matches!(source, Source::Reading(CallLen | ChildActive | SyncLatency))
        };
        found.over = self
            .bounds
            .keys()
            .any(|source| is_free(source) && self.uses.iter().any(|u| u.kind.is_of(*source)));
        if let Some(of) = self.bounds.get(&bytes).filter(|_| !found.pairs_bytes) {
            // Every lost call has a byte of its own, so few bytes are few calls.
            found.pending.extend(of.iter().filter(|bytes| **bytes <= FEW_BYTES));
        }
        if let Some(of) = self.bounds.get_mut(&Source::Reading(Reading::CallLen)) {
            // A write without bytes is no write.
            of.insert(1);
        }
        found.counts = self.counts.into_iter().collect();
        for (source, mut bounds) in self.bounds {
            if makes(Mutant::OneCell) {
                bounds.clear();
            }
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
}

/// The arithmetic can exceed 64 bits.
struct Wraps;

/// The same comparison, though perhaps with another number.
fn alike(a: UseKind, b: UseKind) -> bool {
    match (a, b) {
        (UseKind::Pair(x, y), UseKind::Pair(v, w)) => (x, y) == (v, w) || (x, y) == (w, v),
        _ => a == b,
    }
}

fn is_bare(expr: &Expr) -> bool {
    matches!(expr.kind, ExprKind::Read(_) | ExprKind::State(_))
}

/// The value of arithmetic with one choice in it, which is `x`. `None` if it wraps.
fn eval(expr: &Expr, params: &[u64], x: u64) -> Option<u64> {
    match &expr.kind {
        ExprKind::Const(value) => Some(*value),
        ExprKind::Param(id) => params.get(id.index()).copied(),
        ExprKind::Read(_) | ExprKind::State(_) => Some(x),
        ExprKind::Arith(op, a, b) => {
            let (a, b) = (eval(a, params, x)?, eval(b, params, x)?);
            match op {
                Arith::Add => a.checked_add(b),
                Arith::Mul => a.checked_mul(b),
                other => Some(other.apply(a, b)),
            }
        }
        _ => None,
    }
}

/// A value of the cell, at least `least`, if it has one.
#[must_use]
pub fn value_in((first, last): Cell, least: u64) -> Option<u64> {
    let value = first.max(least);
    (value <= last).then_some(value)
}
