//! Expressions of constants and parameters, and how much one can exceed another over the parameters'
//! ranges.
//!
//! Each is enclosed by two linear forms with a common divisor: `n / 2 + 1` lies between `(n - 1) / 2 + 1`
//! and `n / 2 + 1` of rational numbers.

use durac_core::hir::{Arith, Expr, ExprKind, Param};

/// A linear form of the parameters, divided by a number above 0.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Form {
    factors: Vec<i128>,
    constant: i128,
    by: i128,
}

/// Two forms that enclose an expression: at least, at most.
#[derive(Clone, Debug)]
pub struct Enclosed {
    low: Form,
    high: Form,
}

impl Form {
    fn constant(value: i128, params: &[Param]) -> Self {
        Self { factors: vec![0; params.len()], constant: value, by: 1 }
    }

    fn plus(&self, other: &Form, sign: i128) -> Option<Form> {
        let (a, b) = (other.by, self.by.checked_mul(sign)?);
        let sum = |x: i128, y: i128| x.checked_mul(a)?.checked_add(y.checked_mul(b)?);
        let pairs = self.factors.iter().zip(&other.factors);
        Some(Form {
            factors: pairs.map(|(x, y)| sum(*x, *y)).collect::<Option<Vec<_>>>()?,
            constant: sum(self.constant, other.constant)?,
            by: self.by.checked_mul(other.by)?,
        })
    }

    fn scaled(&self, factor: i128) -> Option<Form> {
        let factors = self.factors.iter().map(|x| x.checked_mul(factor));
        Some(Form {
            factors: factors.collect::<Option<Vec<_>>>()?,
            constant: self.constant.checked_mul(factor)?,
            by: self.by,
        })
    }

    fn divided(&self, by: i128) -> Option<Form> {
        Some(Form { by: self.by.checked_mul(by)?, ..self.clone() })
    }

    /// The greatest whole number that the form reaches over the ranges.
    fn greatest(&self, params: &[Param]) -> Option<i128> {
        let mut all = self.constant;
        for (factor, param) in self.factors.iter().zip(params) {
            let value = if *factor < 0 { param.min } else { param.max };
            all = all.checked_add(factor.checked_mul(i128::from(value))?)?;
        }
        Some(all.div_euclid(self.by))
    }
}

/// Encloses an expression of constants and parameters; none if it reads anything else, or may wrap around.
#[must_use]
pub fn enclose(expr: &Expr, params: &[Param]) -> Option<Enclosed> {
    let whole = |form: Form| Enclosed { low: form.clone(), high: form };
    let found = match &expr.kind {
        ExprKind::Const(value) => whole(Form::constant(i128::from(*value), params)),
        ExprKind::Param(id) => {
            let mut form = Form::constant(0, params);
            *form.factors.get_mut(id.index())? = 1;
            whole(form)
        }
        ExprKind::Arith(op, a, b) => {
            let constant = match &b.kind {
                ExprKind::Const(value) => Some(i128::from(*value)),
                _ => None,
            };
            let (x, y) = (enclose(a, params)?, enclose(b, params)?);
            match (op, constant) {
                (Arith::Add, _) => {
                    Enclosed { low: x.low.plus(&y.low, 1)?, high: x.high.plus(&y.high, 1)? }
                }
                (Arith::Sub, _) => {
                    let difference =
                        Enclosed { low: x.low.plus(&y.high, -1)?, high: x.high.plus(&y.low, -1)? };
                    match exceeds(&Enclosed::zero(params), &difference, params)? {
                        // 0 exceeds it by 0 at most: it is never negative.
                        ..=0 => difference,
                        _ => Enclosed {
                            low: Form::constant(0, params),
                            high: Form::constant(difference.high.greatest(params)?.max(0), params),
                        },
                    }
                }
                (Arith::Mul, Some(by)) => {
                    Enclosed { low: x.low.scaled(by)?, high: x.high.scaled(by)? }
                }
                (Arith::Mul, None) => {
                    let ExprKind::Const(by) = &a.kind else { return None };
                    let by = i128::from(*by);
                    Enclosed { low: y.low.scaled(by)?, high: y.high.scaled(by)? }
                }
                (Arith::Div, Some(by)) if by > 0 => {
                    let rounded = Form::constant(1 - by, params);
                    Enclosed {
                        low: x.low.plus(&rounded, 1)?.divided(by)?,
                        high: x.high.divided(by)?,
                    }
                }
                (Arith::Rem, Some(by)) if by > 0 => Enclosed {
                    low: Form::constant(0, params),
                    high: Form::constant(by - 1, params),
                },
                _ => return None,
            }
        }
        _ => return None,
    };
    let fits = found.high.greatest(params)? <= i128::from(u64::MAX);
    fits.then_some(found)
}

impl Enclosed {
    /// The number 0.
    #[must_use]
    pub fn zero(params: &[Param]) -> Self {
        let zero = Form::constant(0, params);
        Self { low: zero.clone(), high: zero }
    }
}

/// The most by which `a` can exceed `b` over the parameters' ranges; less than 0 if it never reaches it.
#[must_use]
pub fn exceeds(a: &Enclosed, b: &Enclosed, params: &[Param]) -> Option<i128> {
    a.high.plus(&b.low, -1)?.greatest(params)
}

/// Whether two expressions are written alike.
#[must_use]
pub fn alike(a: &Expr, b: &Expr) -> bool {
    match (&a.kind, &b.kind) {
        (ExprKind::Const(x), ExprKind::Const(y)) => x == y,
        (ExprKind::Param(x), ExprKind::Param(y)) => x == y,
        (ExprKind::Arith(op, a, b), ExprKind::Arith(of, x, y)) => {
            op == of && alike(a, x) && alike(b, y)
        }
        _ => false,
    }
}
