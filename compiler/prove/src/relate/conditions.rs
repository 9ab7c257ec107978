//! What expressions and conditions say of the numbers of a zone.

use super::{LOST, Number, Path, Relation, ZERO};
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
        match (&cond.kind, truth) {
            (ExprKind::Const(value), _) if (*value != 0) != truth => Vec::new(),
            (ExprKind::Not(inner), _) => self.assume(path, inner, !truth),
            (ExprKind::And(a, b), true) | (ExprKind::Or(a, b), false) => {
                let both = self.assume(path, a, truth);
                both.iter().flat_map(|path| self.assume(path, b, truth)).collect()
            }
            (ExprKind::And(a, b), false) | (ExprKind::Or(a, b), true) => {
                let mut after = self.assume(path, a, truth);
                let not_yet = self.assume(path, a, !truth);
                after.extend(not_yet.iter().flat_map(|path| self.assume(path, b, truth)));
                after
            }
            (ExprKind::State(id), _) => match self.bits.get(id) {
                Some(bit) if (path.bits >> bit & 1 == 1) != truth => Vec::new(),
                _ => vec![path.clone()],
            },
            (ExprKind::Read(Reading::NotifyDone), true) => {
                let mut path = path.clone();
                path.covered = true;
                path.zone.assign(LOST, ZERO, 0);
                vec![path]
            }
            (ExprKind::Compare(cmp, a, b), _) if a.unit == Unit::Bool => {
                let cmp = if truth { *cmp } else { cmp.negated() };
                let mut after = Vec::new();
                for (x, y) in [(false, false), (false, true), (true, false), (true, true)] {
                    if cmp.holds(x.into(), y.into()) {
                        let one = self.assume(path, a, x);
                        after.extend(one.iter().flat_map(|path| self.assume(path, b, y)));
                    }
                }
                after
            }
            (ExprKind::Compare(cmp, a, b), _) => {
                let cmp = if truth { *cmp } else { cmp.negated() };
                self.compare(path, cmp, a, b)
            }
            _ => vec![path.clone()],
        }
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
