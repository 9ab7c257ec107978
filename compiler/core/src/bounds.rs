//! How much a power loss can take: a bound for every acknowledgement, derived from the awaits and
//! conditions before it.
//!
//! The argument. Call k ends acknowledged with distance d when, on its path, call k − d and all
//! before it were durable: after `await` with distance d, or under a condition that says so
//! (`pending < d`, `notify.done`). Durability never goes back, so at most d acknowledged syncs
//! are not durable right after it. Between acknowledgements the number can only fall. Hence the
//! greatest distance over all acknowledging paths bounds the loss in syncs, whatever the
//! application, the disk and the scheduler do. A path without any such fact is unbounded.
//!
//! The same holds of what a call covers in bytes and updates. `pending.updates <= e` says, when it is read,
//! that at most e updates are written and not durable; those that the call acknowledges are among
//! them, since they were written before it began. Nothing that is written later is acknowledged by it, and
//! durability never goes back: whenever it was read in the call, at most e of its updates can be lost.
//!
//! A crash of the process takes only calls whose writes are staged: `staged < d` leaves at most d − 1
//! with this one. Where every write is staged, `staged` counts all calls that are not durable, and
//! says the same of a power loss.

use crate::hir::{
    Arith, Bound, Cmp, Expr, ExprKind, Failure, Guarantee, HookBody, Param, ParamId, Policy, Stmt,
    StmtKind, Verdict,
};
use crate::unit::{Unit, show};
use durac_abi::{Callers, Hook, READING_MOST, Reading, STAGE_ROOM};
use durac_grammar::{Code, Diagnostic, Span};
use std::collections::{BTreeMap, BTreeSet};

/// Paths kept apart in one body; beyond it they are merged, keeping only what all of them know.
const MAX_PATHS: usize = 256;

/// An upper bound of a distance, for every value of the parameters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Linear {
    constant: i128,
    terms: BTreeMap<ParamId, i128>,
}

impl Linear {
    fn constant(value: u64) -> Self {
        Self { constant: i128::from(value), terms: BTreeMap::new() }
    }

    fn add(mut self, other: &Linear, sign: i128) -> Self {
        self.constant += sign * other.constant;
        for (&param, &factor) in &other.terms {
            *self.terms.entry(param).or_insert(0) += sign * factor;
        }
        self.terms.retain(|_, f| *f != 0);
        self
    }

    fn scaled(mut self, factor: i128) -> Self {
        self.constant *= factor;
        self.terms.values_mut().for_each(|f| *f *= factor);
        self.terms.retain(|_, f| *f != 0);
        self
    }

    /// Least and greatest value over the declared ranges.
    fn range(&self, params: &[Param]) -> (i128, i128) {
        let (mut low, mut high) = (self.constant, self.constant);
        for (param, &factor) in &self.terms {
            let (min, max) = params.get(param.index()).map_or((0, u64::MAX), |p| (p.min, p.max));
            let (a, b) = (factor * i128::from(min), factor * i128::from(max));
            low += a.min(b);
            high += a.max(b);
        }
        (low, high)
    }

    /// The value with these parameters.
    fn at(&self, values: &[u64]) -> i128 {
        let term =
            |(p, f): (&ParamId, &i128)| values.get(p.index()).map_or(0, |v| i128::from(*v)) * f;
        self.constant + self.terms.iter().map(term).sum::<i128>()
    }

    /// The value at the parameters' defaults.
    fn at_defaults(&self, params: &[Param]) -> i128 {
        self.at(&defaults(params))
    }

    /// Its constant.
    #[must_use]
    pub fn number(&self) -> i128 {
        self.constant
    }

    /// Its factor of a parameter.
    #[must_use]
    pub fn factor(&self, param: ParamId) -> i128 {
        self.terms.get(&param).copied().unwrap_or(0)
    }

    fn text(&self, params: &[Param]) -> String {
        let mut text = String::new();
        for (param, &factor) in &self.terms {
            let name = params.get(param.index()).map_or("?", |p| p.name.node.as_str());
            let sign = match (text.is_empty(), factor < 0) {
                (true, false) => "",
                (true, true) => "-",
                (false, false) => " + ",
                (false, true) => " - ",
            };
            text.push_str(sign);
            if factor.abs() != 1 {
                text.push_str(&format!("{} * ", factor.abs()));
            }
            text.push_str(name);
        }
        if text.is_empty() {
            return self.constant.to_string();
        }
        match self.constant {
            0 => text,
            c if c < 0 => format!("{text} - {}", -c),
            c => format!("{text} + {c}"),
        }
    }
}

fn defaults(params: &[Param]) -> Vec<u64> {
    params.iter().map(|p| p.default).collect()
}

/// The value of an expression of constants and parameters; `None` if it reads anything else or
/// does not fit.
#[must_use]
pub fn evaluate(expr: &Expr, params: &[u64]) -> Option<u64> {
    match &expr.kind {
        ExprKind::Const(value) => Some(*value),
        ExprKind::Param(id) => params.get(id.index()).copied(),
        ExprKind::Arith(op, a, b) => {
            let (a, b) = (evaluate(a, params)?, evaluate(b, params)?);
            match op {
                Arith::Add => a.checked_add(b),
                Arith::Mul => a.checked_mul(b),
                other => Some(other.apply(a, b)),
            }
        }
        _ => None,
    }
}

/// Factors this large do not occur in a sensible policy; refusing them keeps sums within `i128`.
const MAX_FACTOR: i128 = 1 << 80;

/// The expression as a linear form of the parameters, if it is one and cannot wrap.
fn linear(expr: &Expr, params: &[Param]) -> Option<Linear> {
    let form = match &expr.kind {
        ExprKind::Const(value) => Linear::constant(*value),
        ExprKind::Param(id) => Linear { constant: 0, terms: BTreeMap::from([(*id, 1)]) },
        ExprKind::Arith(op, a, b) => {
            let (a, b) = (linear(a, params)?, linear(b, params)?);
            match op {
                Arith::Add => a.add(&b, 1),
                Arith::Sub => a.add(&b, -1),
                Arith::Mul if a.terms.is_empty() => b.scaled(a.constant),
                Arith::Mul if b.terms.is_empty() => a.scaled(b.constant),
                _ => return None,
            }
        }
        _ => return None,
    };
    let largest = form.terms.values().map(|f| f.abs()).max().unwrap_or(0);
    let (low, high) = form.range(params);
    let sane = largest <= MAX_FACTOR && low >= 0 && high <= i128::from(u64::MAX);
    sane.then_some(form)
}

/// The greatest value the expression can have, if it is known.
fn greatest(expr: &Expr, params: &[Param]) -> Option<u64> {
    match &expr.kind {
        ExprKind::Const(value) => Some(*value),
        ExprKind::Param(id) => params.get(id.index()).map(|p| p.max),
        ExprKind::Arith(op, a, b) => match op {
            Arith::Add => greatest(a, params)?.checked_add(greatest(b, params)?),
            Arith::Mul => greatest(a, params)?.checked_mul(greatest(b, params)?),
            Arith::Sub => greatest(a, params),
            Arith::Div => match &b.kind {
                ExprKind::Const(c) => greatest(a, params)?.checked_div(*c),
                _ => None,
            },
            Arith::Rem => match &b.kind {
                ExprKind::Const(c) => c.checked_sub(1),
                _ => None,
            },
            Arith::WrappingSub => None,
        },
        _ => None,
    }
}

fn upper_bound(expr: &Expr, params: &[Param]) -> Option<Linear> {
    linear(expr, params).or_else(|| greatest(expr, params).map(Linear::constant))
}

/// The least value of an expression over the ranges of the parameters; 0 if it is not known.
#[must_use]
pub fn least(expr: &Expr, params: &[Param]) -> u64 {
    let low = linear(expr, params).map_or(0, |form| form.range(params).0);
    u64::try_from(low).unwrap_or(0)
}

/// What is known on a path: each distance bounds what is not durable.
type Facts = BTreeSet<Fact>;

/// A bound of what is pending when a call is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fact {
    of: Counted,
    most: Linear,
}

/// What a fact bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    /// Sync calls that are not durable, with this one.
    Calls,
    /// Those of them that are staged.
    Staged,
    /// Bytes of these calls that are not durable.
    Bytes,
    /// Updates of these calls that are not durable.
    Updates,
}

impl Fact {
    fn of_all(most: Linear) -> Self {
        Self { of: Counted::Calls, most }
    }
}

/// A way a call can end acknowledged while its sync has not been run.
#[derive(Clone, Debug)]
pub struct Acknowledgement {
    /// The verdict's place.
    pub span: Span,
    /// Whether it is `skip`: nothing but a deadline makes it durable.
    pub skips: bool,
    /// Each bounds the loss.
    facts: Vec<Linear>,
    /// Each bounds the calls that are staged.
    staged: Vec<Linear>,
    /// Each bounds the bytes that are lost.
    bytes: Vec<Linear>,
    /// Each bounds the updates that are lost.
    updates: Vec<Linear>,
}

impl Acknowledgement {
    /// What bounds the loss, counted so.
    fn bounds(&self, of: Counted) -> &[Linear] {
        match of {
            Counted::Calls => &self.facts,
            Counted::Staged => &self.staged,
            Counted::Bytes => &self.bytes,
            Counted::Updates => &self.updates,
        }
    }

    /// Whether nothing is lost.
    fn is_durable(&self, params: &[Param]) -> bool {
        self.facts.iter().any(|f| f.range(params).1 <= 0)
    }
}

/// What a policy can lose on a power loss.
#[derive(Clone, Debug, Default)]
pub struct Loss {
    /// Every acknowledging path.
    pub acknowledgements: Vec<Acknowledgement>,
    /// Where it stages writes first, if it does.
    pub stages: Option<Span>,
    /// Writes may be passed while calls overlap: `staged` says nothing then of what is in no file yet.
    pub forgets_staged: bool,
}

/// Derives the loss of a policy.
#[must_use]
pub fn loss(policy: &Policy) -> Loss {
    let mut walker =
        Walker { params: &policy.params, out: Vec::new(), stages: None, passes: false };
    let start = || BTreeSet::from([Facts::new()]);
    let mut acknowledging = Vec::new();
    let mut passes_writes = true;
    for HookBody { hook, body, .. } in policy.hooks.iter().filter(|body| body.hook.is_on_log()) {
        walker.passes = false;
        let falls_through = walker.block(body, start());
        if hook.is_sync() {
            acknowledging.append(&mut walker.out);
        } else if *hook == Hook::Write {
            // A write acknowledges no sync, unless it is deferred: then it counts as a sync call that is skipped, of
            // which only the deadline is known.
            let deferred: Vec<Span> = walker
                .out
                .drain(..)
                .filter(|(_, skips, _)| !skips)
                .map(|(span, ..)| span)
                .collect();
            passes_writes = walker.passes || !falls_through.is_empty() || !deferred.is_empty();
            acknowledging.extend(deferred.into_iter().map(|span| (span, true, Facts::new())));
        }
    }
    let acknowledgements = acknowledging.into_iter().map(|(span, skips, facts)| {
        let of = |counted: Counted| {
            let some = facts.iter().filter(move |f| f.of == counted);
            some.map(|f| f.most.clone()).collect::<Vec<_>>()
        };
        let (bytes, updates) = (of(Counted::Bytes), of(Counted::Updates));
        let (mut facts, staged) = (of(Counted::Calls), of(Counted::Staged));
        if !passes_writes {
            facts.extend(staged.iter().cloned());
        }
        Acknowledgement { span, skips, facts, staged, bytes, updates }
    });
    Loss {
        acknowledgements: acknowledgements.collect(),
        stages: walker.stages,
        forgets_staged: passes_writes && policy.target.callers == Callers::Many,
    }
}

struct Walker<'a> {
    params: &'a [Param],
    /// The acknowledging paths: where, whether by `skip`, what is known.
    out: Vec<(Span, bool, Facts)>,
    stages: Option<Span>,
    /// A path ends in `pass`.
    passes: bool,
}

impl Walker<'_> {
    /// Follows the paths through a block; gives what is known on those that reach its end.
    fn block(&mut self, stmts: &[Stmt], mut paths: BTreeSet<Facts>) -> BTreeSet<Facts> {
        for stmt in stmts {
            paths = self.stmt(stmt, paths);
            if paths.len() > MAX_PATHS {
                let mut all = paths.into_iter();
                let first = all.next().unwrap_or_default();
                let common = all.fold(first, |known, path| &known & &path);
                paths = BTreeSet::from([common]);
            }
        }
        paths
    }

    fn stmt(&mut self, stmt: &Stmt, paths: BTreeSet<Facts>) -> BTreeSet<Facts> {
        match &stmt.node {
            StmtKind::Verdict(verdict) => {
                match verdict {
                    Verdict::Fail(..) => {}
                    Verdict::Pass => self.passes = true,
                    Verdict::Stage => _ = self.stages.get_or_insert(stmt.span),
                    // Only of hooks that acknowledge nothing.
                    Verdict::Hold | Verdict::Gather(_) => {}
                    Verdict::Defer | Verdict::Skip => {
                        let skips = *verdict == Verdict::Skip;
                        let ack = |facts| (stmt.span, skips, facts);
                        self.out.extend(paths.into_iter().map(ack));
                    }
                }
                BTreeSet::new()
            }
            StmtKind::Await(distance) => {
                let fact = upper_bound(distance, self.params).map(Fact::of_all);
                let known = |mut facts: Facts| {
                    facts.extend(fact.clone());
                    facts
                };
                paths.into_iter().map(known).collect()
            }
            StmtKind::Commit | StmtKind::Assign(..) => paths,
            StmtKind::If(cond, then, otherwise) => {
                let (holds, fails) = (self.facts(cond, true), self.facts(cond, false));
                let with = |extra: &Facts| paths.iter().map(|p| p | extra).collect();
                let mut after = self.block(then, with(&holds));
                after.extend(self.block(otherwise, with(&fails)));
                after
            }
            StmtKind::EveryTime(_, _, body) | StmtKind::EveryCalls(_, _, body) => {
                let mut after = self.block(body, paths.clone());
                after.extend(paths);
                after
            }
        }
    }

    /// What a condition says about durability when it is `truth`.
    fn facts(&self, cond: &Expr, truth: bool) -> Facts {
        match (&cond.kind, truth) {
            (ExprKind::Not(inner), _) => self.facts(inner, !truth),
            (ExprKind::And(a, b), true) | (ExprKind::Or(a, b), false) => {
                &self.facts(a, truth) | &self.facts(b, truth)
            }
            (ExprKind::And(a, b), false) | (ExprKind::Or(a, b), true) => {
                // Either side decides: only what both say is known.
                &self.facts(a, truth) & &self.facts(b, truth)
            }
            (ExprKind::Read(Reading::NotifyDone), true) => {
                Facts::from([Fact::of_all(Linear::constant(0))])
            }
            (ExprKind::Compare(cmp, a, b), _) => {
                let cmp = if truth { *cmp } else { cmp.negated() };
                let fact = self.comparison(cmp, a, b).or_else(|| {
                    // `4 > pending` says what `pending < 4` says.
                    self.comparison(cmp.swapped(), b, a)
                });
                fact.into_iter().collect()
            }
            _ => Facts::new(),
        }
    }

    fn comparison(&self, cmp: Cmp, a: &Expr, b: &Expr) -> Option<Fact> {
        let ExprKind::Read(reading) = a.kind else { return None };
        let of = match reading {
            Reading::Pending => Counted::Calls,
            Reading::Staged => Counted::Staged,
            Reading::PendingBytes => Counted::Bytes,
            Reading::PendingUpdates => Counted::Updates,
            _ => return None,
        };
        let limit = upper_bound(b, self.params)?;
        let one = Linear::constant(1);
        // `pending` does not count this call, so `pending < d` leaves at most d with it; the others do.
        let most = match (of, cmp) {
            (Counted::Calls, Cmp::Lt) => limit,
            (Counted::Calls, Cmp::Le | Cmp::Eq) => limit.add(&one, 1),
            (_, Cmp::Lt) => limit.add(&one, -1),
            (_, Cmp::Le | Cmp::Eq) => limit,
            _ => return None,
        };
        // A reading stands for all that is more than it can be.
        let is_cut = matches!(of, Counted::Bytes | Counted::Updates)
            && most.range(self.params).1 >= i128::from(READING_MOST);
        (!is_cut).then_some(Fact { of, most })
    }
}

/// A bound in numbers: `None` is unbounded.
pub type Most = Option<u64>;

impl Loss {
    /// What a crash of the process takes: calls whose writes are staged, if any ever are.
    #[must_use]
    pub fn process(&self) -> Loss {
        let mut process = self.clone();
        if self.stages.is_none() {
            process.acknowledgements.clear();
        }
        for ack in &mut process.acknowledgements {
            // A passed write resets `staged` before the bytes that were staged before it are written, and
            // another call can be acknowledged in between.
            if !self.forgets_staged {
                ack.facts.append(&mut ack.staged);
            }
        }
        process
    }

    /// The greatest number of acknowledged syncs not durable, at the default parameters.
    #[must_use]
    pub fn syncs(&self, params: &[Param]) -> Most {
        self.syncs_for(&defaults(params))
    }

    /// The same with these parameters.
    #[must_use]
    pub fn syncs_for(&self, values: &[u64]) -> Most {
        self.worst(|form| form.at(values))
    }

    /// The same, whatever the parameters in their ranges.
    #[must_use]
    pub fn greatest(&self, params: &[Param]) -> Most {
        self.worst(|form| form.range(params).1)
    }

    /// Over all paths, the least that is known on each.
    fn worst(&self, value: impl Fn(&Linear) -> i128) -> Most {
        let mut worst = 0;
        for ack in &self.acknowledgements {
            worst = worst.max(ack.facts.iter().map(&value).min()?);
        }
        u64::try_from(worst).ok()
    }

    /// For each path that acknowledges, the least that is known, at the default parameters; none if nothing is
    /// known on one of them.
    #[must_use]
    pub fn least_known(&self, params: &[Param]) -> Option<Vec<Linear>> {
        let least =
            |ack: &Acknowledgement| ack.facts.iter().min_by_key(|f| f.at_defaults(params)).cloned();
        let mut forms = self.acknowledgements.iter().map(least).collect::<Option<Vec<_>>>()?;
        forms.sort();
        forms.dedup();
        Some(forms)
    }

    /// The most that can be lost of bytes or updates, whatever the parameters.
    #[must_use]
    pub fn greatest_of(&self, of: Counted, params: &[Param]) -> Most {
        self.worst_of(of, params, |form| form.range(params).1)
    }

    /// The same with these parameters.
    #[must_use]
    pub fn most_of(&self, of: Counted, params: &[Param], values: &[u64]) -> Most {
        self.worst_of(of, params, |form| form.at(values))
    }

    fn worst_of(&self, of: Counted, params: &[Param], value: impl Fn(&Linear) -> i128) -> Most {
        let mut worst = 0;
        for ack in self.acknowledgements.iter().filter(|ack| !ack.is_durable(params)) {
            worst = worst.max(ack.bounds(of).iter().map(&value).min()?);
        }
        u64::try_from(worst).ok()
    }

    /// Whether nothing acknowledged can be lost.
    #[must_use]
    pub fn nothing(&self, params: &[Param]) -> bool {
        self.acknowledgements.iter().all(|a| a.is_durable(params))
    }

    /// Whether a `skip` can leave a sync to a deadline alone.
    #[must_use]
    pub fn leaves_tail(&self, params: &[Param]) -> Option<Span> {
        let stays = |a: &&Acknowledgement| a.skips && !a.is_durable(params);
        self.acknowledgements.iter().find(stays).map(|a| a.span)
    }

    /// The loss in syncs, in words, in terms of the parameters.
    #[must_use]
    pub fn text(&self, policy: &Policy) -> String {
        let params = &policy.params;
        if self.nothing(params) {
            return "nothing".to_owned();
        }
        match (self.forms(Counted::Calls, params).as_deref(), self.syncs(params)) {
            (None, _) => "any number of syncs".to_owned(),
            (Some([one]), _) if one == "1" => "at most 1 sync".to_owned(),
            (Some([one]), Some(n)) if *one != n.to_string() => {
                format!("at most {one} syncs ({n} by default)")
            }
            (Some([one]), _) => format!("at most {one} syncs"),
            (Some(many), n) => {
                let n = n.map_or_else(String::new, |n| format!(" ({n} by default)"));
                format!("at most the largest of {} syncs{n}", many.join(", "))
            }
        }
    }

    /// The loss in bytes or updates, in words, in terms of the parameters; none if there is no bound.
    #[must_use]
    pub fn text_of(&self, of: Counted, policy: &Policy) -> Option<String> {
        let params = &policy.params;
        let forms = self.forms(of, params)?;
        let now = self.most_of(of, params, &defaults(params))?;
        let (what, shown) = match of {
            Counted::Bytes => ("byte", show(now, Unit::Bytes)),
            _ => ("update", now.to_string()),
        };
        let s = if now == 1 && forms.len() < 2 { "" } else { "s" };
        Some(match (of, forms.as_slice()) {
            (_, [] | [_]) if forms.first().is_none_or(|one| *one == now.to_string()) => match of {
                Counted::Bytes => format!("at most {shown}"),
                _ => format!("at most {shown} {what}{s}"),
            },
            (_, [one]) => format!("at most {one} {what}s ({shown} by default)"),
            (_, many) => {
                format!("at most the largest of {} {what}s ({shown} by default)", many.join(", "))
            }
        })
    }

    /// For each way to acknowledge what can be lost, the best bound, as texts, the largest first, without
    /// those that another one covers; none if there is a way without a bound.
    fn forms(&self, of: Counted, params: &[Param]) -> Option<Vec<String>> {
        let mut forms: Vec<Linear> = Vec::new();
        for ack in &self.acknowledgements {
            if of != Counted::Calls && ack.is_durable(params) {
                continue;
            }
            let form = ack.bounds(of).iter().min_by_key(|f| f.at_defaults(params))?;
            if !forms.contains(form) {
                forms.push(form.clone());
            }
        }
        // A form that another one is never below adds nothing.
        let all = forms.clone();
        forms.retain(|f| !all.iter().any(|g| g != f && f.clone().add(g, -1).range(params).1 <= 0));
        forms.sort_by_key(|f| std::cmp::Reverse(f.at_defaults(params)));
        Some(forms.iter().map(|f| f.text(params)).collect())
    }

    /// Reports doubtful deadlines.
    pub fn lint(&self, policy: &Policy, diagnostics: &mut Vec<Diagnostic>) {
        let params = &policy.params;
        if let (None, Some(span)) = (&policy.flush_within, self.stages) {
            diagnostics.push(
                Diagnostic::new(
                    Code::NoDeadline,
                    "staged writes may stay in the process forever",
                    span,
                    "nothing writes this data while the application is idle",
                )
                .help("add `flush within 1s`"),
            );
            return;
        }
        match (&policy.flush_within, self.leaves_tail(params)) {
            (None, Some(span)) => diagnostics.push(
                Diagnostic::new(
                    Code::NoDeadline,
                    "acknowledged data may stay unsynced forever",
                    span,
                    "nothing starts this sync while the application is idle",
                )
                .help("add `flush within 1s`"),
            ),
            (Some(flush), _) if self.acknowledgements.is_empty() && self.stages.is_none() => {
                diagnostics.push(
                    Diagnostic::new(
                        Code::NothingDeferred,
                        "the deadline has nothing to flush",
                        flush.span,
                        "every call makes its own sync",
                    )
                    .help("remove `flush within`, or add a `defer`"),
                )
            }
            _ => {}
        }
    }

    /// Whether a guarantee follows from what is known on every path, whatever the parameters.
    #[must_use]
    pub fn keeps(&self, guarantee: &Guarantee, policy: &Policy) -> bool {
        let params = &policy.params;
        let least = |expr| linear(expr, params).map_or(0, |l| l.range(params).0);
        let on_process = guarantee.failure == Failure::ProcessCrash;
        // The page cache survives a process.
        if on_process && self.stages.is_none() || !on_process && self.nothing(params) {
            return true;
        }
        match &guarantee.bound {
            // That is the model checker's to say: it knows whether a tail can stay.
            Bound::Age(_) => false,
            bound @ Bound::Syncs(_) if on_process => {
                self.process().exceeding(bound, params).is_none()
            }
            // No more can be staged at once.
            Bound::Bytes(expr) | Bound::Updates(expr) if on_process => {
                least(expr) >= i128::from(STAGE_ROOM)
            }
            Bound::Nothing | Bound::Writes(_) if on_process => false,
            bound => self.exceeding(bound, params).is_none(),
        }
    }

    /// An acknowledgement that, for all that is known on its path, may exceed the bound.
    #[must_use]
    pub fn exceeding(&self, bound: &Bound, params: &[Param]) -> Option<&Acknowledgement> {
        let limit = |expr| linear(expr, params).unwrap_or_else(|| Linear::constant(0));
        let (of, limit) = match bound {
            Bound::Syncs(expr) => (Counted::Calls, limit(expr)),
            Bound::Bytes(expr) => (Counted::Bytes, limit(expr)),
            Bound::Updates(expr) => (Counted::Updates, limit(expr)),
            // One sync covers any number of writes.
            Bound::Nothing | Bound::Writes(_) => (Counted::Calls, Linear::constant(0)),
            Bound::Age(_) => return None,
        };
        let within = |f: &Linear| f.clone().add(&limit, -1).range(params).1 <= 0;
        let kept = |a: &Acknowledgement| {
            a.bounds(of).iter().any(within) || of != Counted::Calls && a.is_durable(params)
        };
        self.acknowledgements.iter().find(|a| !kept(a))
    }
}
