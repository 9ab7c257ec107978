//! What is meant by an `await` that the language does not have.

use durac_grammar::Diagnostic;
use durac_grammar::Spanned;
use durac_grammar::ast::{BinOp, Expr, UnitWord};
use durac_grammar::suggest::nearest;

/// Adds to a finding what to write instead.
pub fn meant(found: Diagnostic, what: &Spanned<Expr>) -> Diagnostic {
    match &what.node {
        Expr::Name(path) => named(found, what, &path.dotted()),
        Expr::Number { unit: Some(unit), .. } if unit.is_time() => found.help(
            "a call waits for syncs, not for time; `flush within 50ms` in a line of its own bounds the time",
        ),
        Expr::Number { .. } | Expr::Unit(..) => {
            found.help("write `await pending < 16` to wait until fewer syncs are pending")
        }
        Expr::Binary(left, op, right) => {
            // `16 > pending` is `pending < 16`.
            let (read, op, limit) = match (&left.node, op.node) {
                (Expr::Name(_), op) => (left, op, right),
                (_, BinOp::Gt) => (right, BinOp::Lt, left),
                (_, BinOp::Ge) => (right, BinOp::Le, left),
                _ => (right, BinOp::Eq, left),
            };
            match &read.node {
                Expr::Name(path) => compared(found, what, &path.dotted(), op, limit),
                _ => found,
            }
        }
        _ => found,
    }
}

fn named(found: Diagnostic, what: &Spanned<Expr>, name: &str) -> Diagnostic {
    if let Some(near) = nearest(name, ["previous", "all"]) {
        return found.help(format!("did you mean `{near}`?")).perhaps(what.span, near);
    }
    found.help(match name {
        "pending" => "add a limit: `await pending < 16`",
        "notify.done" => "write `unless notify.done { await previous }`",
        "durable" | "sync" | "fsync" | "fdatasync" | "this" | "done" | "everything" | "flush" => {
            "write `await all` to wait for all syncs, this call's too, or `pass` to make the call itself"
        }
        _ => "write `await previous`, `await all`, or `await pending < 16`",
    })
}

fn compared(
    found: Diagnostic,
    what: &Spanned<Expr>,
    name: &str,
    op: BinOp,
    limit: &Spanned<Expr>,
) -> Diagnostic {
    match name {
        "pending" => match limit_text(limit, op == BinOp::Le) {
            Some(limit) if matches!(op, BinOp::Lt | BinOp::Le) => {
                let meant = format!("pending < {limit}");
                found.help(format!("write `await {meant}`")).fix(what.span, meant)
            }
            _ => found.help("write `await pending < 16` to wait until fewer syncs are pending"),
        },
        "pending.age" => found.help(
            "an age falls only when a sync ends; to bound it, write `flush within 20ms` in a line of its own, \
             or `if pending.age > 20ms { await all }`",
        ),
        "pending.bytes" | "pending.updates" => found.help(format!(
            "write `if {name} > {} {{ await all }}`, or `{{ pass }}` to make the call itself",
            limit_text(limit, false).unwrap_or_else(|| "n".to_owned())
        )),
        _ => found.help("write `await pending < 16` to wait until fewer syncs are pending"),
    }
}

/// A limit as it can be written again, one higher for `<=`.
fn limit_text(limit: &Spanned<Expr>, higher: bool) -> Option<String> {
    Some(match &limit.node {
        Expr::Number { value, unit: None } => value.checked_add(u64::from(higher))?.to_string(),
        Expr::Number { value, unit: Some(unit) } => format!("{value}{}", unit.text()),
        Expr::Unit(inner, unit) if unit.node == UnitWord::Syncs => {
            format!("{} syncs", limit_text(inner, higher)?)
        }
        Expr::Unit(inner, unit) => format!("{} {}", limit_text(inner, false)?, unit.node.text()),
        Expr::Name(path) if higher => format!("{} + 1", path.dotted()),
        Expr::Name(path) => path.dotted(),
        _ => return None,
    })
}
