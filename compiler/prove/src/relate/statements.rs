//! What the statements of a call do to the numbers of a zone.

use super::{LOST, MOST_PATHS, Number, Out, Path, Relation, ZERO};
use crate::zone::Zone;
use durac_abi::Reading;
use durac_core::hir::{Arith, Expr, ExprKind, StateId, Stmt, StmtKind};
use durac_core::unit::Unit;

impl Relation<'_> {
    pub(super) fn block(
        &self,
        stmts: &[Stmt],
        mut paths: Vec<Path>,
        is_sync: bool,
        out: &mut Out,
    ) -> Vec<Path> {
        for stmt in stmts {
            paths = self.stmt(stmt, paths, is_sync, out);
            fewer(&mut paths);
        }
        paths
    }

    fn stmt(&self, stmt: &Stmt, paths: Vec<Path>, is_sync: bool, out: &mut Out) -> Vec<Path> {
        match &stmt.node {
            StmtKind::Verdict(verdict) => {
                paths.into_iter().for_each(|path| self.end(verdict, path, is_sync, out));
                Vec::new()
            }
            StmtKind::Await(distance) => {
                let waits = |path| self.waits(path, distance, is_sync);
                paths.into_iter().flat_map(waits).collect()
            }
            StmtKind::Commit => paths,
            StmtKind::Assign(to, value) => {
                paths.into_iter().flat_map(|path| self.assign(path, *to, value)).collect()
            }
            StmtKind::If(cond, then, otherwise) => {
                let on = |truth| paths.iter().flat_map(|p| self.assume(p, cond, truth)).collect();
                let mut after = self.block(then, on(true), is_sync, out);
                after.extend(self.block(otherwise, on(false), is_sync, out));
                after
            }
            StmtKind::EveryTime(_, id, body) => {
                let forgot = |mut path: Path| {
                    self.forget(&mut path, *id);
                    path
                };
                let due = paths.iter().cloned().map(forgot).collect();
                let mut after = self.block(body, due, is_sync, out);
                after.extend(paths);
                after
            }
            StmtKind::EveryCalls(period, id, body) => {
                let counted = paths.into_iter().flat_map(|path| self.raise(path, *id, *id, 1));
                let (mut due, mut after) = (Vec::new(), Vec::new());
                let period = i128::from(*period);
                for path in counted {
                    let Some(number) = self.numbers.get(id) else {
                        due.push(path.clone());
                        after.push(path);
                        continue;
                    };
                    let mut full = path.clone();
                    if full.zone.limit(ZERO, *number, -period) {
                        due.extend(self.set(full, *id, 0));
                    }
                    let mut not_yet = path;
                    if not_yet.zone.limit(*number, ZERO, period - 1) {
                        after.push(not_yet);
                    }
                }
                after.extend(self.block(body, due, is_sync, out));
                after
            }
        }
    }

    /// After a wait at distance d, at most d − 1 of the calls before this one are not durable; at distance
    /// 0 the call itself is.
    fn waits(&self, mut path: Path, distance: &Expr, is_sync: bool) -> Vec<Path> {
        path.zone.falls(LOST);
        let Number::Known(number, and) = self.number(distance, &path.zone) else {
            return vec![path];
        };
        let mut after = Vec::new();
        let mut all = path.clone();
        if all.zone.same(number, ZERO, -and) && all.zone.same(LOST, ZERO, 0) {
            all.covered |= is_sync;
            after.push(all);
        }
        if path.zone.limit(ZERO, number, and - 1) && path.zone.limit(LOST, number, and - 1) {
            after.push(path);
        }
        after
    }

    fn assign(&self, path: Path, to: StateId, value: &Expr) -> Vec<Path> {
        if let Some(bit) = self.bits.get(&to) {
            let with = |truth: bool| {
                let to = u64::from(truth) << bit;
                let set = move |path: Path| Path { bits: path.bits & !(1 << bit) | to, ..path };
                self.assume(&path, value, truth).into_iter().map(set)
            };
            return with(true).chain(with(false)).collect();
        }
        if value.unit == Unit::Bool || !self.numbers.contains_key(&to) && !self.has_remainder(to) {
            return vec![path];
        }
        match &value.kind {
            ExprKind::Const(value) => self.set(path, to, *value),
            ExprKind::State(from) => self.raise(path, to, *from, 0),
            ExprKind::Arith(Arith::Add, a, b) => match (&a.kind, &b.kind) {
                (ExprKind::State(from), ExprKind::Const(by))
                | (ExprKind::Const(by), ExprKind::State(from)) => self.raise(path, to, *from, *by),
                _ => self.unknown(path, to),
            },
            ExprKind::Arith(Arith::Sub, a, b) => match (&a.kind, &b.kind) {
                (ExprKind::State(from), ExprKind::Const(by)) => self.lower(path, to, *from, *by),
                _ => self.unknown(path, to),
            },
            ExprKind::Arith(Arith::Rem, a, b) => match &b.kind {
                ExprKind::Const(by) => self.round(path, to, a, *by),
                _ => self.unknown(path, to),
            },
            ExprKind::Read(Reading::Pending) => {
                let mut after = self.unknown(path, to);
                let number = self.numbers.get(&to).copied();
                let is_possible =
                    |path: &mut Path| number.is_none_or(|number| path.zone.limit(LOST, number, 0));
                after.retain_mut(is_possible);
                after
            }
            _ => self.unknown(path, to),
        }
    }

    fn has_remainder(&self, id: StateId) -> bool {
        self.remainders.iter().any(|(of, ..)| *of == id)
    }

    fn unknown(&self, mut path: Path, to: StateId) -> Vec<Path> {
        self.forget(&mut path, to);
        vec![path]
    }

    /// The variable can have any value.
    pub(super) fn forget(&self, path: &mut Path, id: StateId) {
        if let Some(number) = self.numbers.get(&id) {
            path.zone.forget(*number);
        }
        self.forget_remainders(path, id);
        let is_possible = self.changed(path, id, None);
        debug_assert!(is_possible);
    }

    fn set(&self, mut path: Path, to: StateId, value: u64) -> Vec<Path> {
        let by = self.exact(&path.zone, to).map(|before| i128::from(value) - before);
        if let Some(number) = self.numbers.get(&to) {
            path.zone.assign(*number, ZERO, i128::from(value));
        }
        for (_, by, number) in self.remainders.iter().filter(|(of, ..)| *of == to) {
            let rest = value.checked_rem(*by).unwrap_or(0);
            path.zone.assign(*number, ZERO, i128::from(rest));
        }
        if self.changed(&mut path, to, by) { vec![path] } else { Vec::new() }
    }

    /// Whether the variable and this do not exceed 64 bits.
    pub(super) fn fits(&self, zone: &Zone, id: StateId, and: u64) -> bool {
        let number = self.numbers.get(&id);
        let most = number.and_then(|number| zone.most(*number, ZERO));
        let fits = |most: i128| most.saturating_add(and.into()) <= i128::from(u64::MAX);
        and == 0 || self.slow.contains(&id) && and < 1 << 32 || most.is_some_and(fits)
    }

    fn raise(&self, mut path: Path, to: StateId, from: StateId, by: u64) -> Vec<Path> {
        let fits = self.fits(&path.zone, from, by);
        let mut paths = match (self.numbers.get(&to), self.numbers.get(&from)) {
            (Some(to), Some(from)) if fits => {
                path.zone.assign(*to, *from, by.into());
                vec![path]
            }
            (Some(to), _) => {
                path.zone.forget(*to);
                vec![path]
            }
            (None, _) => vec![path],
        };
        for (_, divisor, number) in self.remainders.iter().filter(|(of, ..)| *of == to) {
            let is_exact = to == from && (fits || divisor.is_power_of_two());
            let each = |path| match is_exact {
                true => round_up(path, *number, by, *divisor),
                false => some_remainder(path, *number, *divisor),
            };
            paths = paths.into_iter().flat_map(each).collect();
        }
        let by = (to == from && fits).then_some(i128::from(by));
        paths.retain_mut(|path| self.changed(path, to, by));
        paths
    }

    /// The difference, or 0 if it would be negative.
    fn lower(&self, path: Path, to: StateId, from: StateId, by: u64) -> Vec<Path> {
        let by = i128::from(by);
        let numbers = (self.numbers.get(&to), self.numbers.get(&from));
        let (Some(number), Some(from)) = numbers else { return self.unknown(path, to) };
        let mut after = Vec::new();
        let mut zero = path.clone();
        if zero.zone.limit(*from, ZERO, by) {
            self.forget(&mut zero, to);
            zero.zone.assign(*number, ZERO, 0);
            if self.changed(&mut zero, to, None) {
                after.push(zero);
            }
        }
        let mut less = path;
        if less.zone.limit(ZERO, *from, -by) {
            if number != from {
                less.zone.forget(*number);
            }
            less.zone.assign(*number, *from, -by);
            self.forget_remainders(&mut less, to);
            if self.changed(&mut less, to, (number == from).then_some(-by)) {
                after.push(less);
            }
        }
        after
    }

    fn forget_remainders(&self, path: &mut Path, id: StateId) {
        for (_, by, number) in self.remainders.iter().filter(|(of, ..)| *of == id) {
            path.zone.forget(*number);
            let is_possible = path.zone.limit(*number, ZERO, i128::from(*by) - 1);
            debug_assert!(is_possible);
        }
    }

    /// `to = (to + n) % by`, where `to` is below `by`; any other remainder is some number below `by`.
    fn round(&self, path: Path, to: StateId, of: &Expr, by: u64) -> Vec<Path> {
        let and = match &of.kind {
            ExprKind::State(id) if *id == to => Some(0),
            ExprKind::Arith(Arith::Add, a, b) => match (&a.kind, &b.kind) {
                (ExprKind::State(id), ExprKind::Const(and))
                | (ExprKind::Const(and), ExprKind::State(id))
                    if *id == to =>
                {
                    Some(*and)
                }
                _ => None,
            },
            _ => None,
        };
        let number = self.numbers.get(&to).copied();
        let is_below = |number| path.zone.most(number, ZERO).is_some_and(|m| m < i128::from(by));
        match (number, and) {
            (Some(number), Some(and)) if by > 0 && and <= by && is_below(number) => {
                let mut after = round_up(path, number, and, by);
                after.iter_mut().for_each(|path| self.forget_remainders(path, to));
                after.retain_mut(|path| self.changed(path, to, None));
                after
            }
            (Some(number), _) if by > 0 => {
                let mut after = self.unknown(path, to);
                after.retain_mut(|path| path.zone.limit(number, ZERO, i128::from(by) - 1));
                after
            }
            _ => self.unknown(path, to),
        }
    }
}

/// The remainder of a number that rises by `by`.
fn round_up(path: Path, number: usize, by: u64, divisor: u64) -> Vec<Path> {
    let divisor = i128::from(divisor);
    let by = i128::from(by).checked_rem(divisor).unwrap_or(0);
    let mut after = Vec::new();
    let mut below = path.clone();
    if below.zone.limit(number, ZERO, divisor - by - 1) {
        below.zone.assign(number, number, by);
        after.push(below);
    }
    let mut over = path;
    if over.zone.limit(ZERO, number, by - divisor) {
        over.zone.assign(number, number, by - divisor);
        after.push(over);
    }
    after
}

fn some_remainder(mut path: Path, number: usize, divisor: u64) -> Vec<Path> {
    path.zone.forget(number);
    let is_possible = path.zone.limit(number, ZERO, i128::from(divisor) - 1);
    if is_possible { vec![path] } else { Vec::new() }
}

/// Drops the paths that others include; too many become one for each of their truth values.
pub(super) fn fewer(paths: &mut Vec<Path>) {
    let mut kept: Vec<Path> = Vec::new();
    let same = |a: &Path, b: &Path| (a.bits, a.covered) == (b.bits, b.covered);
    for path in paths.drain(..) {
        if kept.iter().any(|k| same(k, &path) && k.zone.includes(&path.zone)) {
            continue;
        }
        kept.retain(|k| !(same(k, &path) && path.zone.includes(&k.zone)));
        let full = kept.len() >= MOST_PATHS;
        match kept.iter_mut().find(|k| full && same(k, &path)) {
            Some(k) => k.zone = k.zone.join(&path.zone),
            None => kept.push(path),
        }
    }
    *paths = kept;
}
