//! What expressions and conditions say of the numbers of a zone.

use super::statements::fewer;
use super::{LOST, MOST_PATHS, Number, Path, Relation, ZERO};
use crate::terms::alike;
use crate::zone::Zone;
use durac_abi::Reading;
use durac_core::bounds::evaluate;
use durac_core::hir::{Arith, Cmp, Expr, ExprKind, StateId};
use durac_core::unit::Unit;

impl Relation<'_> {
    pub(super) fn number(&self, expr: &Expr, zone: &Zone) -> Number {
        let term = self.terms.iter().position(|term| alike(term, expr));
        if let Some(index) = term {
            return Number::Known(self.first_term + index, 0);
        }
        if let Some(value) = evaluate(expr, &[]) {
            return Number::Known(ZERO, i128::from(value));
        }
        match &expr.kind {
            ExprKind::State(id) => match self.numbers.get(id) {
                Some(number) => Number::Known(*number, 0),
                None => Number::Unknown,
            },
            ExprKind::Read(Reading::Pending) => Number::Pending(0),
            ExprKind::Arith(op, a, b) => {
                let ExprKind::Const(constant) = b.kind else { return Number::Unknown };
                let by = i128::from(constant);
                match (op, &a.kind) {
                    (Arith::Rem, ExprKind::State(id)) => {
                        let is_it =
                            |(of, by, _): &&(StateId, u64, usize)| of == id && *by == constant;
                        let found = self.remainders.iter().find(is_it);
                        found.map_or(Number::Unknown, |(.., number)| Number::Known(*number, 0))
                    }
                    (Arith::Add, ExprKind::State(id)) if self.fits(zone, *id, constant) => {
                        match self.numbers.get(id) {
                            Some(number) => Number::Known(*number, by),
                            None => Number::Unknown,
                        }
                    }
                    (Arith::Sub, ExprKind::State(id)) => match self.numbers.get(id) {
                        Some(number) if zone.least(*number) >= by => Number::Known(*number, -by),
                        _ => Number::Unknown,
                    },
                    (Arith::Add, ExprKind::Read(Reading::Pending)) if constant < 1 << 60 => {
                        Number::Pending(by)
                    }
                    _ => Number::Unknown,
                }
            }
            _ => Number::Unknown,
        }
    }

    /// The paths on which the condition is this.
    pub(super) fn assume(&self, path: &Path, cond: &Expr, truth: bool) -> Vec<Path> {
        let (holds, fails) = self.split(vec![path.clone()], cond);
        if truth { holds } else { fails }
    }

    /// The paths on which the condition holds, and those on which it does not. Each part of it is looked at once, and for
    /// a few paths: every `||` and `&&` may double them.
    fn split(&self, paths: Vec<Path>, cond: &Expr) -> (Vec<Path>, Vec<Path>) {
        let (mut holds, mut fails) = match &cond.kind {
            ExprKind::Const(0) => (Vec::new(), paths),
            ExprKind::Const(_) => (paths, Vec::new()),
            ExprKind::Not(inner) => {
                let (holds, fails) = self.split(paths, inner);
                (fails, holds)
            }
            ExprKind::And(a, b) => {
                let (both, mut fails) = self.split(paths, a);
                let (both, not_both) = self.split(both, b);
                fails.extend(not_both);
                (both, fails)
            }
            ExprKind::Or(a, b) => {
                let (mut holds, neither) = self.split(paths, a);
                let (other, neither) = self.split(neither, b);
                holds.extend(other);
                (holds, neither)
            }
            ExprKind::State(id) => match self.bits.get(id) {
                Some(bit) => paths.into_iter().partition(|path| path.bits >> bit & 1 == 1),
                None => (paths.clone(), paths),
            },
            ExprKind::Read(Reading::NotifyDone) => {
                let covered = |mut path: Path| {
                    path.covered = true;
                    path.zone.assign(LOST, ZERO, 0);
                    path
                };
                (paths.iter().cloned().map(covered).collect(), paths)
            }
            ExprKind::Compare(cmp, a, b) if a.unit == Unit::Bool => {
                let (a_holds, a_fails) = self.split(paths, a);
                let (mut holds, mut fails) = (Vec::new(), Vec::new());
                for (x, paths) in [(false, a_fails), (true, a_holds)] {
                    let (b_holds, b_fails) = self.split(paths, b);
                    for (y, paths) in [(false, b_fails), (true, b_holds)] {
                        let is_so = cmp.holds(x.into(), y.into());
                        if is_so { &mut holds } else { &mut fails }.extend(paths);
                    }
                }
                (holds, fails)
            }
            ExprKind::Compare(cmp, a, b) => {
                let on = |cmp| paths.iter().flat_map(|p| self.compare(p, cmp, a, b)).collect();
                (on(*cmp), on(cmp.negated()))
            }
            _ => (paths.clone(), paths),
        };
        for paths in [&mut holds, &mut fails] {
            if paths.len() > 4 * MOST_PATHS {
                fewer(paths);
            }
        }
        (holds, fails)
    }

    fn compare(&self, path: &Path, cmp: Cmp, a: &Expr, b: &Expr) -> Vec<Path> {
        let mut after = Vec::new();
        let mut on = |limits: &[(usize, usize, i128)]| {
            let mut path = path.clone();
            if limits.iter().all(|(i, j, most)| path.zone.limit(*i, *j, *most)) {
                after.push(path);
            }
        };
        match (cmp, self.number(a, &path.zone), self.number(b, &path.zone)) {
            (_, Number::Known(i, x), Number::Known(j, y)) => {
                let (less, more) = ((i, j, y - x - 1), (j, i, x - y - 1));
                let (at_most, at_least) = ((i, j, y - x), (j, i, x - y));
                match cmp {
                    Cmp::Lt => on(&[less]),
                    Cmp::Le => on(&[at_most]),
                    Cmp::Eq => on(&[at_most, at_least]),
                    Cmp::Ge => on(&[at_least]),
                    Cmp::Gt => on(&[more]),
                    Cmp::Ne => {
                        on(&[less]);
                        on(&[more]);
                    }
                }
            }
            // No more are lost than are pending.
            (Cmp::Lt, Number::Pending(x), Number::Known(j, y))
            | (Cmp::Gt, Number::Known(j, y), Number::Pending(x)) => on(&[(LOST, j, y - x - 1)]),
            (Cmp::Le | Cmp::Eq, Number::Pending(x), Number::Known(j, y))
            | (Cmp::Ge | Cmp::Eq, Number::Known(j, y), Number::Pending(x)) => {
                on(&[(LOST, j, y - x)]);
            }
            _ => on(&[]),
        }
        after
    }
}
