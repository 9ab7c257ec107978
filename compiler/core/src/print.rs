//! The text form of HIR, for `--emit hir`: the policy with every name, unit and default resolved.

use crate::hir::{Expr, ExprKind, Policy, Stmt, StmtKind, Verdict};
use crate::names;
use crate::unit::show;
use std::fmt::Write;

/// The policy as text.
#[must_use]
pub fn hir(policy: &Policy) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "policy {} on {}", policy.name, policy.target.name);
    for (i, p) in policy.params.iter().enumerate() {
        let value = |v| show(v, p.unit);
        let (name, unit, default) = (&p.name.node, p.unit, value(p.default));
        let (min, max) = (value(p.min), value(p.max));
        let _ = writeln!(out, "param p{i} {name}: {unit} = {default} in {min}..={max}");
    }
    for (i, s) in policy.states.iter().enumerate() {
        let init = show(s.init, s.unit);
        let _ = writeln!(out, "state s{i} {}: {} = {init}", s.name.node, s.unit);
    }
    if let Some(flush) = &policy.flush_within {
        let _ = writeln!(out, "flush within {}ns", flush.node);
    }
    if let Some(assume) = &policy.assume_sync {
        let _ = writeln!(out, "assume sync <= {}ns", assume.node);
    }
    let _ = writeln!(out, "on error {}", format!("{:?}", policy.on_error).to_lowercase());
    for hook in &policy.hooks {
        let _ = writeln!(out, "on {} {{", hook.hook);
        stmts(&mut out, &hook.body, 1);
        out.push_str("}\n");
    }
    out
}

fn stmts(out: &mut String, list: &[Stmt], depth: usize) {
    for stmt in list {
        let pad = "    ".repeat(depth);
        let nested = |out: &mut String, head: String, body: &[Stmt]| {
            let _ = writeln!(out, "{pad}{head} {{");
            stmts(out, body, depth + 1);
            let _ = writeln!(out, "{pad}}}");
        };
        match &stmt.node {
            StmtKind::Verdict(verdict) => {
                let text = match verdict {
                    Verdict::Fail(name, _) => format!("fail {name}"),
                    Verdict::Gather(within) => format!("gather {within}ns"),
                    other => format!("{other:?}").to_lowercase(),
                };
                let _ = writeln!(out, "{pad}{text}");
            }
            StmtKind::Await(distance) => {
                let _ = writeln!(out, "{pad}await distance {}", expr(distance));
            }
            StmtKind::Commit => {
                let _ = writeln!(out, "{pad}commit");
            }
            StmtKind::Assign(state, value) => {
                let _ = writeln!(out, "{pad}{state} = {}", expr(value));
            }
            StmtKind::If(cond, then, otherwise) => {
                nested(out, format!("if {}", expr(cond)), then);
                if !otherwise.is_empty() {
                    nested(out, "else".to_owned(), otherwise);
                }
            }
            StmtKind::EveryTime(period, state, body) => {
                nested(out, format!("every {period}ns since {state}"), body);
            }
            StmtKind::EveryCalls(period, state, body) => {
                nested(out, format!("every {period} calls counted in {state}"), body);
            }
        }
    }
}

fn expr(e: &Expr) -> String {
    match &e.kind {
        ExprKind::Const(value) => show(*value, e.unit),
        ExprKind::Param(id) => id.to_string(),
        ExprKind::State(id) => id.to_string(),
        ExprKind::Read(reading) => names::reading_name(*reading).to_owned(),
        ExprKind::Not(a) => format!("!{}", expr(a)),
        ExprKind::And(a, b) => format!("({} && {})", expr(a), expr(b)),
        ExprKind::Or(a, b) => format!("({} || {})", expr(a), expr(b)),
        ExprKind::Compare(cmp, a, b) => format!("({} {} {})", expr(a), cmp.text(), expr(b)),
        ExprKind::Arith(op, a, b) => format!("({} {} {})", expr(a), op.text(), expr(b)),
    }
}
