//! Expressions: names, units, constants.

use crate::hir::{Arith, Cmp, Expr, ExprKind, Param, ParamId, State, StateId};
use crate::names;
use crate::target::path_span;
use crate::unit::Unit;
use durac_abi::Reading;
use durac_grammar::ast::{self, BinOp, LARGEST};
use durac_grammar::{Code, Diagnostic, Span, Spanned};

/// The names an expression can use, and where its findings go.
pub struct Scope<'a> {
    /// The parameters.
    pub params: &'a [Param],
    /// The state variables.
    pub states: &'a [State],
    /// Which parameters were read.
    pub read_params: &'a mut [bool],
    /// Which state variables were read.
    pub read_states: &'a mut [bool],
    /// The findings.
    pub diagnostics: &'a mut Vec<Diagnostic>,
}

/// The result for an expression that could not be checked.
#[must_use]
pub fn unknown(span: Span) -> Expr {
    Expr { kind: ExprKind::Const(0), unit: Unit::Unknown, span }
}

/// Tests of a truth value that is compared with another.
const MOST_WAYS: u64 = 256;

/// How many tests the code of a condition has. The right side of a comparison of truth values is there twice.
fn ways(condition: &Expr) -> u64 {
    match &condition.kind {
        ExprKind::Not(inner) => ways(inner),
        ExprKind::And(a, b) | ExprKind::Or(a, b) => ways(a).saturating_add(ways(b)),
        ExprKind::Compare(_, a, b) if a.unit == Unit::Bool => {
            ways(a).saturating_add(ways(b).saturating_mul(2))
        }
        _ => 1,
    }
}

impl Scope<'_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Checks an expression; the result's unit says what it is.
    pub fn expr(&mut self, expr: &Spanned<ast::Expr>) -> Expr {
        let span = expr.span;
        let made = |kind, unit| Expr { kind, unit, span };
        match &expr.node {
            ast::Expr::Number { value, unit: None } => made(ExprKind::Const(*value), Unit::Plain),
            ast::Expr::Number { value, unit: Some(suffix) } => {
                let Some(scaled) = suffix.scaled(*value) else {
                    self.overflow(span);
                    return unknown(span);
                };
                made(ExprKind::Const(scaled), Unit::of_suffix(*suffix))
            }
            ast::Expr::Bool(value) => made(ExprKind::Const(u64::from(*value)), Unit::Bool),
            ast::Expr::Name(path) => self.name(path, span),
            ast::Expr::Unit(inner, word) => {
                let inner = self.expr(inner);
                let unit = Unit::of_word(word.node);
                if inner.unit == Unit::Plain || inner.unit == unit || inner.unit == Unit::Unknown {
                    return Expr { unit, span, ..inner };
                }
                self.report(
                    Diagnostic::new(
                        Code::Mismatch,
                        format!("{} are not {unit}", plural(inner.unit)),
                        span,
                        format!("counts {}, not {unit}", inner.unit),
                    )
                    .help("remove the unit"),
                );
                unknown(span)
            }
            ast::Expr::Not(inner) => {
                let inner = self.condition(inner);
                made(ExprKind::Not(Box::new(inner)), Unit::Bool)
            }
            ast::Expr::Binary(left, op, right) => self.binary(left, op, right, span),
            ast::Expr::Error => unknown(span),
        }
    }

    /// Checks an expression that must be true or false.
    pub fn condition(&mut self, expr: &Spanned<ast::Expr>) -> Expr {
        let checked = self.expr(expr);
        match checked.unit {
            Unit::Bool | Unit::Unknown => checked,
            unit => {
                let mut diagnostic = Diagnostic::new(
                    Code::NotBool,
                    "expected a condition",
                    expr.span,
                    format!("is a {}", noun(unit)),
                );
                if unit != Unit::Plain {
                    diagnostic = diagnostic.help("compare it, for example `… > 0`");
                }
                self.report(diagnostic);
                unknown(expr.span)
            }
        }
    }

    /// Checks an expression that must have `unit`; a plain literal takes it where it can.
    pub fn expect(&mut self, expr: &Spanned<ast::Expr>, unit: Unit) -> Expr {
        let checked = self.expr(expr);
        self.coerce(checked, unit)
    }

    /// Gives a plain literal the unit, and reports any other disagreement.
    pub fn coerce(&mut self, expr: Expr, unit: Unit) -> Expr {
        if expr.unit == unit || expr.unit == Unit::Unknown || unit == Unit::Unknown {
            return expr;
        }
        let zero = matches!(expr.kind, ExprKind::Const(0));
        if expr.unit == Unit::Plain && (unit.takes_plain() || (zero && unit.is_number())) {
            return Expr { unit, ..expr };
        }
        let span = expr.span;
        let diagnostic = if expr.unit == Unit::Plain {
            let mut diagnostic = Diagnostic::new(
                Code::MissingUnit,
                format!("a {} needs a unit", noun(unit)),
                span,
                "a plain number",
            );
            if let ExprKind::Const(value) = expr.kind
                && unit.is_number()
            {
                diagnostic = diagnostic.help(format!("write `{}`", unit.example(value)));
            }
            diagnostic
        } else {
            Diagnostic::new(
                Code::Mismatch,
                format!("expected {}, found {}", noun(unit), noun(expr.unit)),
                span,
                format!("is a {}", noun(expr.unit)),
            )
            .help(match unit {
                Unit::Bool => "write `true` or `false`, or a comparison".to_owned(),
                _ => format!("write a {}, for example `{}`", noun(unit), unit.example(10)),
            })
        };
        self.report(diagnostic);
        unknown(span)
    }

    /// Checks an expression that must be known when compiling, and gives its value.
    pub fn constant(&mut self, expr: &Spanned<ast::Expr>, unit: Unit) -> Option<u64> {
        let checked = self.expect(expr, unit);
        if checked.unit == Unit::Unknown {
            return None;
        }
        let value = constant_value(&checked);
        match value {
            Ok(value) => Some(value),
            Err(NotConst::Varies(span)) => {
                self.report(
                    Diagnostic::new(
                        Code::NotConstant,
                        "this value must be a constant",
                        span,
                        "changes while the policy runs",
                    )
                    .help("write a number"),
                );
                None
            }
            Err(NotConst::Overflow) => {
                self.overflow(expr.span);
                None
            }
        }
    }

    fn overflow(&mut self, span: Span) {
        self.report(Diagnostic::new(
            Code::Overflow,
            "the value does not fit in 63 bits",
            span,
            "too large",
        ));
    }

    fn name(&mut self, path: &ast::Path, span: Span) -> Expr {
        let span = path_span(path).unwrap_or(span);
        let name = path.dotted();
        if let Some(i) = self.params.iter().position(|p| p.name.node == name) {
            if let Some(read) = self.read_params.get_mut(i) {
                *read = true;
            }
            let unit = self.params.get(i).map_or(Unit::Unknown, |p| p.unit);
            return Expr { kind: ExprKind::Param(ParamId(i as u32)), unit, span };
        }
        if let Some(i) = self.states.iter().position(|s| s.name.node == name) {
            if let Some(read) = self.read_states.get_mut(i) {
                *read = true;
            }
            let unit = self.states.get(i).map_or(Unit::Unknown, |s| s.unit);
            return Expr { kind: ExprKind::State(StateId(i as u32)), unit, span };
        }
        if let Some((reading, unit)) = names::reading(&name) {
            return Expr { kind: ExprKind::Read(reading), unit, span };
        }
        let known: Vec<&str> = (self.params.iter().map(|p| p.name.node.as_str()))
            .chain(self.states.iter().map(|s| s.name.node.as_str()))
            .chain(names::READINGS.iter().map(|(n, ..)| *n))
            .collect();
        let help = match name.as_str() {
            "idle" | "timeout" => {
                "`flush within 50ms` in a line of its own syncs what is pending when no call comes"
                    .to_owned()
            }
            _ => names::suggest(&name, &known),
        };
        let message = format!("unknown name `{name}`");
        self.report(Diagnostic::new(Code::UnknownName, message, span, "not declared").help(help));
        unknown(span)
    }

    fn binary(
        &mut self,
        left: &Spanned<ast::Expr>,
        op: &Spanned<BinOp>,
        right: &Spanned<ast::Expr>,
        span: Span,
    ) -> Expr {
        let made = |kind, unit| Expr { kind, unit, span };
        match op.node {
            BinOp::And | BinOp::Or => {
                let left = Box::new(self.condition(left));
                let right = Box::new(self.condition(right));
                let kind = match op.node {
                    BinOp::And => ExprKind::And(left, right),
                    _ => ExprKind::Or(left, right),
                };
                made(kind, Unit::Bool)
            }
            BinOp::Eq | BinOp::Ne | BinOp::Lt | BinOp::Le | BinOp::Gt | BinOp::Ge => {
                let (left, right, unit) = self.same_unit(left, op, right);
                let ordered = !matches!(op.node, BinOp::Eq | BinOp::Ne);
                if ordered && unit == Unit::Bool {
                    self.not_a_number(left.span, op);
                    return unknown(span);
                }
                let cmp = match op.node {
                    BinOp::Eq => Cmp::Eq,
                    BinOp::Ne => Cmp::Ne,
                    BinOp::Lt => Cmp::Lt,
                    BinOp::Le => Cmp::Le,
                    BinOp::Gt => Cmp::Gt,
                    _ => Cmp::Ge,
                };
                if unit == Unit::Bool && ways(&right) > MOST_WAYS {
                    self.report(
                        Diagnostic::new(
                            Code::TooDeep,
                            format!(
                                "a condition is compared by `{}` that is too long",
                                op.node.text()
                            ),
                            right.span,
                            "every one of its parts is looked at in both cases of the other side",
                        )
                        .help("keep it in a `state`, or write the cases with `if`"),
                    );
                    return unknown(span);
                }
                let unit = if unit == Unit::Unknown { Unit::Unknown } else { Unit::Bool };
                made(ExprKind::Compare(cmp, Box::new(left), Box::new(right)), unit)
            }
            BinOp::Add | BinOp::Sub => {
                let (left, right, unit) = self.same_unit(left, op, right);
                if unit == Unit::Bool {
                    self.not_a_number(left.span, op);
                    return unknown(span);
                }
                let arith = if op.node == BinOp::Add { Arith::Add } else { Arith::Sub };
                made(ExprKind::Arith(arith, Box::new(left), Box::new(right)), unit)
            }
            BinOp::Mul => self.product(left, op, right, span),
            BinOp::Div | BinOp::Rem => self.quotient(left, op, right, span),
        }
    }

    fn not_a_number(&mut self, span: Span, op: &Spanned<BinOp>) {
        self.report(
            Diagnostic::new(
                Code::NotANumber,
                format!("`{}` needs numbers", op.node.text()),
                span,
                "is true or false",
            )
            .also(op.span, "used here"),
        );
    }

    fn same_unit(
        &mut self,
        left: &Spanned<ast::Expr>,
        op: &Spanned<BinOp>,
        right: &Spanned<ast::Expr>,
    ) -> (Expr, Expr, Unit) {
        let left = self.expr(left);
        let right = self.expr(right);
        if left.unit == Unit::Plain {
            let unit = right.unit;
            return (self.coerce(left, unit), right, unit);
        }
        if right.unit == Unit::Plain {
            let unit = left.unit;
            let right = self.coerce(right, unit);
            return (left, right, unit);
        }
        if left.unit == Unit::Unknown || right.unit == Unit::Unknown {
            return (left, right, Unit::Unknown);
        }
        if left.unit != right.unit {
            let meant = [(&left, &right), (&right, &left)].into_iter().find_map(|(a, b)| {
                let reading = match (&a.kind, b.unit) {
                    (ExprKind::Read(Reading::Pending), Unit::Duration) => "pending.age",
                    (ExprKind::Read(Reading::Pending), Unit::Bytes) => "pending.bytes",
                    (ExprKind::Read(Reading::Pending), Unit::Updates) => "pending.updates",
                    _ => return None,
                };
                Some((a.span, reading))
            });
            let mut found = Diagnostic::new(
                Code::Mismatch,
                format!(
                    "`{}` between {} and {}",
                    op.node.text(),
                    plural(left.unit),
                    plural(right.unit)
                ),
                right.span,
                format!("is a {}", noun(right.unit)),
            )
            .also(left.span, format!("is a {}", noun(left.unit)))
            .help("both sides must have the same unit");
            if let Some((span, reading)) = meant {
                found = found.help(format!("did you mean `{reading}`?")).perhaps(span, reading);
            }
            self.report(found);
            return (left, right, Unit::Unknown);
        }
        let unit = left.unit;
        (left, right, unit)
    }

    /// Both sides of an operator that takes numbers; none, reported, if one is a truth value.
    fn numbers(
        &mut self,
        left: &Spanned<ast::Expr>,
        op: &Spanned<BinOp>,
        right: &Spanned<ast::Expr>,
    ) -> Option<(Expr, Expr)> {
        let (left, right) = (self.expr(left), self.expr(right));
        let truth = [&left, &right].into_iter().find(|side| side.unit == Unit::Bool);
        if let Some(span) = truth.map(|side| side.span) {
            self.not_a_number(span, op);
            return None;
        }
        Some((left, right))
    }

    fn product(
        &mut self,
        left: &Spanned<ast::Expr>,
        op: &Spanned<BinOp>,
        right: &Spanned<ast::Expr>,
        span: Span,
    ) -> Expr {
        let Some((left, right)) = self.numbers(left, op, right) else { return unknown(span) };
        let unit = match (left.unit, right.unit) {
            (Unit::Unknown, _) | (_, Unit::Unknown) => Unit::Unknown,
            (Unit::Plain | Unit::Count, unit) | (unit, Unit::Plain | Unit::Count) => unit,
            (a, b) => {
                self.report(
                    Diagnostic::new(
                        Code::Mismatch,
                        format!("{} times {} has no unit", plural(a), plural(b)),
                        span,
                        "one side must be a plain number",
                    )
                    .also(left.span, format!("is a {}", noun(a)))
                    .also(right.span, format!("is a {}", noun(b))),
                );
                Unit::Unknown
            }
        };
        let kind = ExprKind::Arith(Arith::Mul, Box::new(left), Box::new(right));
        Expr { kind, unit, span }
    }

    fn quotient(
        &mut self,
        left: &Spanned<ast::Expr>,
        op: &Spanned<BinOp>,
        right: &Spanned<ast::Expr>,
        span: Span,
    ) -> Expr {
        let Some((left, right_expr)) = self.numbers(left, op, right) else { return unknown(span) };
        if left.unit == Unit::Unknown || right_expr.unit == Unit::Unknown {
            return unknown(span);
        }
        let Ok(divisor) = constant_value(&right_expr) else {
            self.report(
                Diagnostic::new(
                    Code::NotConstant,
                    "the divisor must be a constant",
                    right.span,
                    "changes while the policy runs",
                )
                .help("divide by a number, or compare products"),
            );
            return unknown(span);
        };
        if divisor == 0 {
            self.report(Diagnostic::new(
                Code::DivisionByZero,
                "division by zero",
                right.span,
                "is zero",
            ));
            return unknown(span);
        }
        let rem = op.node == BinOp::Rem;
        let unit = match (left.unit, right_expr.unit) {
            (unit, Unit::Plain | Unit::Count) => unit,
            (a, b) if a == b && rem => a,
            (a, b) if a == b => Unit::Count,
            (a, b) => {
                self.report(
                    Diagnostic::new(
                        Code::Mismatch,
                        format!("{} divided by {}", plural(a), plural(b)),
                        right.span,
                        format!("is a {}", noun(b)),
                    )
                    .also(left.span, format!("is a {}", noun(a))),
                );
                Unit::Unknown
            }
        };
        let arith = if rem { Arith::Rem } else { Arith::Div };
        let kind = ExprKind::Arith(arith, Box::new(left), Box::new(right_expr));
        Expr { kind, unit, span }
    }
}

/// Why an expression has no constant value.
pub enum NotConst {
    /// The part at this place changes at run time.
    Varies(Span),
    /// Its value does not fit.
    Overflow,
}

/// The value of an expression of literals.
pub fn constant_value(expr: &Expr) -> Result<u64, NotConst> {
    let bit = |b: bool| Ok(u64::from(b));
    match &expr.kind {
        ExprKind::Const(value) => Ok(*value),
        ExprKind::Param(_) | ExprKind::State(_) | ExprKind::Read(_) => {
            Err(NotConst::Varies(expr.span))
        }
        ExprKind::Not(a) => bit(constant_value(a)? == 0),
        ExprKind::And(a, b) => bit(constant_value(a)? != 0 && constant_value(b)? != 0),
        ExprKind::Or(a, b) => bit(constant_value(a)? != 0 || constant_value(b)? != 0),
        ExprKind::Compare(cmp, a, b) => bit(cmp.holds(constant_value(a)?, constant_value(b)?)),
        ExprKind::Arith(op, a, b) => {
            let (a, b) = (constant_value(a)?, constant_value(b)?);
            let value = match op {
                Arith::Add => a.checked_add(b),
                Arith::Mul => a.checked_mul(b),
                _ => Some(op.apply(a, b)),
            };
            value.filter(|value| *value <= LARGEST).ok_or(NotConst::Overflow)
        }
    }
}

fn noun(unit: Unit) -> &'static str {
    match unit {
        Unit::Syncs => "number of syncs",
        Unit::Writes => "number of writes",
        Unit::Updates => "number of updates",
        Unit::Count => "count",
        Unit::Bytes => "number of bytes",
        Unit::Duration => "duration",
        Unit::Bool => "truth value",
        Unit::Plain => "plain number",
        Unit::Unknown => "value",
    }
}

fn plural(unit: Unit) -> &'static str {
    match unit {
        Unit::Syncs => "syncs",
        Unit::Writes => "writes",
        Unit::Updates => "updates",
        Unit::Count => "counts",
        Unit::Bytes => "bytes",
        Unit::Duration => "durations",
        Unit::Bool => "truth values",
        Unit::Plain => "plain numbers",
        Unit::Unknown => "values",
    }
}
