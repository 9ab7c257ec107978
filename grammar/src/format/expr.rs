//! Expressions as text, with the parentheses that precedence needs and no others.

use crate::ast::{BinOp, Expr, Suffix};
use crate::span::{Sources, Spanned};

/// Binds tighter than every operator.
const TIGHTEST: u8 = 6;

/// An expression where any operator may stand.
pub(super) fn expression(sources: &Sources, e: &Spanned<Expr>) -> String {
    let mut out = String::new();
    write(sources, e, 0, &mut out);
    out
}

/// An expression where a comparison would need parentheses: a bound, an end of a range.
pub(super) fn operand(sources: &Sources, e: &Spanned<Expr>) -> String {
    let mut out = String::new();
    write(sources, e, BinOp::Add.precedence(), &mut out);
    out
}

fn write(sources: &Sources, e: &Spanned<Expr>, outer: u8, out: &mut String) {
    let own = match &e.node {
        Expr::Binary(_, op, _) => op.node.precedence(),
        Expr::Not(_) => TIGHTEST,
        Expr::Unit(..) => TIGHTEST + 1,
        _ => TIGHTEST + 2,
    };
    if own < outer {
        out.push('(');
        write(sources, e, 0, out);
        out.push(')');
        return;
    }
    match &e.node {
        Expr::Number { value, unit } => out.push_str(&number(sources, e, *value, *unit)),
        Expr::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Expr::Name(path) => out.push_str(&path.dotted()),
        Expr::Unit(inner, unit) => {
            write(sources, inner, TIGHTEST + 2, out);
            out.push(' ');
            let plural = unit.node.text();
            let one = matches!(inner.node, Expr::Number { value: 1, unit: None });
            out.push_str(if one { plural.trim_end_matches('s') } else { plural });
        }
        Expr::Not(inner) => {
            out.push('!');
            write(sources, inner, TIGHTEST, out);
        }
        Expr::Binary(l, op, r) => {
            // Operators lean to the left; comparisons do not lean at all.
            let left = if own == BinOp::Lt.precedence() { own + 1 } else { own };
            write(sources, l, left, out);
            out.push_str(&format!(" {} ", op.node.text()));
            write(sources, r, own + 1, out);
        }
        Expr::Error => out.push_str(sources.slice(e.span).trim()),
    }
}

/// A number; `1_000` keeps its underscores.
fn number(sources: &Sources, e: &Spanned<Expr>, value: u64, unit: Option<Suffix>) -> String {
    let plain = format!("{value}{}", unit.map_or("", Suffix::text));
    let written = sources.slice(e.span).trim_matches(|c| matches!(c, '(' | ')' | ' '));
    if written.replace('_', "") == plain { written.to_owned() } else { plain }
}
