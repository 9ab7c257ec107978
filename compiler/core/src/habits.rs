//! Policies that compile and hardly do what was meant: a wait before a call that is made all the same, calls that
//! always fail, and lengths of calls that have none.

use crate::hir::{ExprKind, Node, Stmt, StmtKind, Verdict, visit};
use crate::names;
use durac_abi::{Hook, Reading};
use durac_grammar::{Code, Diagnostic, Span};

/// Looks at the body of a hook on a log.
pub fn look(body: &[Stmt], hook: Hook, diagnostics: &mut Vec<Diagnostic>) {
    let syncs = matches!(hook, Hook::Fsync | Hook::Fdatasync);
    let ends = Ends::of(body);
    if syncs {
        // A verdict on another path can be what the wait is for: `await previous; if notify.done skip`.
        if let Some(wait) =
            ends.falls_off.flatten().filter(|_| !ends.else_ends && ends.fails.is_none())
        {
            diagnostics.push(
                Diagnostic::new(
                    Code::WaitBeforeCall,
                    "this wait is followed by the call itself",
                    wait,
                    "no verdict follows",
                )
                .help("add `; defer` to report success without waiting for this sync, or `; pass` if this is meant")
                .note("without a verdict the call is made as the application made it, and waits for its own sync"),
            );
        }
        lengths(body, hook, diagnostics);
    }
    if let (Some(fail), false) = (ends.fails, ends.else_ends || ends.falls_off.is_some()) {
        diagnostics.push(
            Diagnostic::new(
                Code::AlwaysFails,
                format!("every `{hook}` of a log fails"),
                fail,
                "on every path",
            )
            .help("put it under a condition, or write another verdict: `pass`, `defer`")
            .note("a database that cannot write its log stops accepting changes, or exits"),
        );
    }
}

/// `call.len` and `call.updates` where no bytes are written.
fn lengths(body: &[Stmt], hook: Hook, diagnostics: &mut Vec<Diagnostic>) {
    visit(body, &mut |node| {
        if let Node::Expr(expr) = node
            && let ExprKind::Read(reading @ (Reading::CallLen | Reading::CallUpdates)) = expr.kind
        {
            let name = names::reading_name(reading);
            let instead = match reading {
                Reading::CallLen => "pending.bytes",
                _ => "pending.updates",
            };
            diagnostics.push(
                Diagnostic::new(
                    Code::NoLength,
                    format!("`{name}` is always 0 in `on {hook}`"),
                    expr.span,
                    "a sync call has no data",
                )
                .help(format!("did you mean `{instead}`?"))
                .perhaps(expr.span, instead),
            );
        }
    });
}

/// How the paths through statements end.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    /// A path comes to the end without a verdict; with the last wait on it.
    falls_off: Option<Option<Span>>,
    /// A path fails the call.
    fails: Option<Span>,
    /// A path ends in another verdict.
    else_ends: bool,
}

impl Ends {
    fn of(body: &[Stmt]) -> Self {
        Self { falls_off: Some(None), ..Self::default() }.then(body)
    }

    fn then(mut self, body: &[Stmt]) -> Self {
        for stmt in body {
            let Some(waited) = self.falls_off else { break };
            match &stmt.node {
                StmtKind::Await(_) => self.falls_off = Some(Some(stmt.span)),
                StmtKind::Verdict(verdict) => {
                    self.falls_off = None;
                    match verdict {
                        Verdict::Fail(..) => self.fails = self.fails.or(Some(stmt.span)),
                        _ => self.else_ends = true,
                    }
                }
                StmtKind::If(_, then, otherwise) => {
                    let start = Self { falls_off: Some(waited), ..Self::default() };
                    self.falls_off = None;
                    self = self.or(start.then(then)).or(start.then(otherwise));
                }
                StmtKind::EveryTime(.., body) | StmtKind::EveryCalls(.., body) => {
                    let start = Self { falls_off: Some(waited), ..Self::default() };
                    self = self.or(start.then(body));
                }
                StmtKind::Assign(..) | StmtKind::Commit => {}
            }
        }
        self
    }

    fn or(self, other: Self) -> Self {
        let falls_off = match (self.falls_off, other.falls_off) {
            (Some(a), Some(b)) => Some(a.or(b)),
            (a, b) => a.or(b),
        };
        Self {
            falls_off,
            fails: self.fails.or(other.fails),
            else_ends: self.else_ends || other.else_ends,
        }
    }
}
