//! The bodies of hooks: statements, capabilities, verdicts.

use crate::expr::{Scope, constant_value};
use crate::hir::{Expr, ExprKind, Param, State, StateId, Stmt, StmtKind, Verdict};
use crate::names;
use crate::target::{Action, Target, path_span};
use crate::unit::Unit;
use durac_bpf::abi::Hook;
use durac_grammar::ast::{self, BinOp, Block};
use durac_grammar::{Code, Diagnostic, Span, Spanned};

/// Checks the body of `hook`. State variables the compiler needs are added to `states`.
#[expect(clippy::too_many_arguments, reason = "the tables a body reads and the ones it adds to")]
pub fn check(
    block: &Block,
    hook: Hook,
    target: Option<&Target>,
    params: &[Param],
    states: &mut Vec<State>,
    read_params: &mut [bool],
    read_states: &mut [bool],
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Stmt> {
    let mut body = Body { hook, target, params, states, read_params, read_states, diagnostics };
    body.block(block).0
}

struct Body<'a> {
    hook: Hook,
    target: Option<&'a Target>,
    params: &'a [Param],
    states: &'a mut Vec<State>,
    read_params: &'a mut [bool],
    read_states: &'a mut [bool],
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl Body<'_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn scope(&mut self) -> Scope<'_> {
        Scope {
            params: self.params,
            states: self.states,
            read_params: self.read_params,
            read_states: self.read_states,
            diagnostics: self.diagnostics,
        }
    }

    /// The statements, and whether every path through them ends the call.
    fn block(&mut self, block: &Block) -> (Vec<Stmt>, bool) {
        let mut stmts = Vec::new();
        let mut ended: Option<Span> = None;
        let mut warned = false;
        for stmt in &block.stmts {
            if let Some(end) = ended
                && !warned
            {
                warned = true;
                self.report(
                    Diagnostic::new(
                        Code::Unreachable,
                        "this statement never runs",
                        stmt.span,
                        "never reached",
                    )
                    .also(end, "the call has ended here"),
                );
            }
            let (checked, ends) = self.stmt(stmt);
            if ended.is_none() {
                stmts.extend(checked);
            }
            if ends {
                ended = ended.or(Some(stmt.span));
            }
        }
        (stmts, ended.is_some())
    }

    fn allowed(&mut self, action: Action, span: Span) {
        let Some(target) = self.target else { return };
        let Some(hook) = target.hook(self.hook) else { return };
        if hook.may.contains(&action) {
            return;
        }
        let may: Vec<_> = hook.may.iter().map(|a| a.text()).collect();
        let diagnostic = Diagnostic::new(
            Code::NotAllowed,
            format!("`{}` is not allowed on `{}`", action.text(), self.hook),
            span,
            format!("`{}` does not let a policy do this here", target.hir.name),
        )
        .also(hook.may_span, "the target says what a policy may do")
        .help(format!("allowed here: {}", names::list(&may)));
        let diagnostic = if action == Action::Stage && !hook.borrows {
            diagnostic.note("only a hook that carries bytes of the application can keep them")
        } else {
            diagnostic
        };
        self.report(diagnostic);
    }

    fn verdict(&mut self, action: Action, verdict: Verdict, span: Span) -> (Option<Stmt>, bool) {
        self.allowed(action, span);
        (Some(Spanned::new(StmtKind::Verdict(verdict), span)), true)
    }

    fn stmt(&mut self, stmt: &Spanned<ast::Stmt>) -> (Option<Stmt>, bool) {
        let span = stmt.span;
        match &stmt.node {
            ast::Stmt::Pass => self.verdict(Action::Pass, Verdict::Pass, span),
            ast::Stmt::Defer => self.verdict(Action::Defer, Verdict::Defer, span),
            ast::Stmt::Skip => self.verdict(Action::Skip, Verdict::Skip, span),
            ast::Stmt::Stage => self.verdict(Action::Stage, Verdict::Stage, span),
            ast::Stmt::Hold(until) => {
                if until.node != "durable" {
                    self.report(
                        Diagnostic::new(
                            Code::BadHold,
                            format!("a reply cannot be held until `{}`", until.node),
                            until.span,
                            "not a moment a reply can wait for",
                        )
                        .help("write `hold until durable`"),
                    );
                }
                self.verdict(Action::Hold, Verdict::Hold, span)
            }
            ast::Stmt::Fail(name) => {
                let Some(&(text, number)) = names::ERRNOS.iter().find(|(n, _)| *n == name.node)
                else {
                    let known: Vec<_> = names::ERRNOS.iter().map(|(n, _)| *n).collect();
                    self.report(
                        Diagnostic::new(
                            Code::UnknownErrno,
                            format!("a call cannot fail with `{}`", name.node),
                            name.span,
                            "unknown error",
                        )
                        .help(names::suggest(&name.node, &known)),
                    );
                    return (None, true);
                };
                self.verdict(Action::Fail, Verdict::Fail(text, number), span)
            }
            ast::Stmt::Commit => {
                self.allowed(Action::Commit, span);
                (Some(Spanned::new(StmtKind::Commit, span)), false)
            }
            ast::Stmt::Await(what) => {
                self.allowed(Action::Await, span);
                let distance = self.await_distance(what);
                (distance.map(|d| Spanned::new(StmtKind::Await(d), span)), false)
            }
            ast::Stmt::Assign(path, value) => (self.assign(path, value, span), false),
            ast::Stmt::If { cond, then, otherwise } => {
                let cond = self.condition(cond);
                self.choice(cond, then, otherwise.as_ref(), span)
            }
            ast::Stmt::Unless { cond, then } => {
                let cond = self.condition(cond);
                let not =
                    Expr { span: cond.span, unit: cond.unit, kind: ExprKind::Not(Box::new(cond)) };
                self.choice(not, then, None, span)
            }
            ast::Stmt::Every { period, body } => (self.every(period, body, span), false),
            ast::Stmt::Error => (None, false),
        }
    }

    fn condition(&mut self, cond: &Spanned<ast::Expr>) -> Expr {
        let checked = self.scope().condition(cond);
        if checked.unit == Unit::Bool
            && let Ok(value) = constant_value(&checked)
        {
            let always = if value == 0 { "never holds" } else { "always holds" };
            self.report(Diagnostic::new(
                Code::AlwaysTrue,
                format!("this condition {always}"),
                cond.span,
                always,
            ));
        }
        checked
    }

    fn choice(
        &mut self,
        cond: Expr,
        then: &Block,
        otherwise: Option<&Block>,
        span: Span,
    ) -> (Option<Stmt>, bool) {
        let (then, then_ends) = self.block(then);
        let (otherwise, else_ends) = match otherwise {
            Some(block) => self.block(block),
            None => (Vec::new(), false),
        };
        (Some(Spanned::new(StmtKind::If(cond, then, otherwise), span)), then_ends && else_ends)
    }

    /// How many calls back an `await` looks: see [`durac_bpf::abi::Helper::Await`].
    fn await_distance(&mut self, what: &Spanned<ast::Expr>) -> Option<Expr> {
        let constant =
            |value| Expr { kind: ExprKind::Const(value), unit: Unit::Syncs, span: what.span };
        let named =
            |expr: &ast::Expr, name: &str| matches!(expr, ast::Expr::Name(p) if p.dotted() == name);
        match &what.node {
            expr if named(expr, "previous") => return Some(constant(1)),
            expr if named(expr, "all") => return Some(constant(0)),
            ast::Expr::Binary(left, op, right)
                if named(&left.node, "pending") && op.node == BinOp::Lt =>
            {
                let limit = self.scope().expect(right, Unit::Syncs);
                if limit.unit == Unit::Syncs && matches!(constant_value(&limit), Ok(0)) {
                    self.report(
                        Diagnostic::new(
                            Code::BadAwait,
                            "`pending < 0` never holds",
                            what.span,
                            "would wait for ever",
                        )
                        .help("write `await all` to wait for this call's sync too"),
                    );
                    return None;
                }
                return Some(limit);
            }
            ast::Expr::Error => return None,
            _ => {}
        }
        let mut diagnostic = Diagnostic::new(
            Code::BadAwait,
            "`await` takes `previous`, `all` or `pending < n`",
            what.span,
            "cannot be awaited",
        );
        if let ast::Expr::Binary(left, op, _) = &what.node
            && named(&left.node, "pending")
            && op.node == BinOp::Le
        {
            diagnostic = diagnostic.help("write `pending < n + 1`");
        } else if let ast::Expr::Name(path) = &what.node {
            let name = path.dotted();
            if let Some(near) = names::nearest(&name, ["previous", "all"]) {
                diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
            } else if name == "pending" {
                diagnostic = diagnostic.help("say how few: `await pending < 16`");
            }
        }
        self.report(diagnostic.note("every wait is bounded by syncs that are already under way"));
        None
    }

    fn assign(&mut self, path: &ast::Path, value: &Spanned<ast::Expr>, span: Span) -> Option<Stmt> {
        let name = path.dotted();
        let place = path_span(path).unwrap_or(span);
        if let Some(i) = self.states.iter().position(|s| s.name.node == name) {
            let unit = self.states.get(i).map_or(Unit::Unknown, |s| s.unit);
            let value = self.scope().expect(value, unit);
            return Some(Spanned::new(StmtKind::Assign(StateId(i as u32), value), span));
        }
        let diagnostic = if let Some(param) = self.params.iter().find(|p| p.name.node == name) {
            Diagnostic::new(
                Code::AssignParam,
                format!("the parameter `{name}` cannot be assigned"),
                place,
                "a parameter",
            )
            .also(param.name.span, "declared here")
            .help("parameters are set from outside; declare a `state` to keep a value")
        } else if names::reading(&name).is_some() {
            let message = format!("the reading `{name}` cannot be assigned");
            Diagnostic::new(Code::AssignReading, message, place, "a reading")
        } else {
            let known: Vec<_> = self.states.iter().map(|s| s.name.node.as_str()).collect();
            let help = match names::nearest(&name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("declare it: `state {name}: bool = false`"),
            };
            let message = format!("nothing is called `{name}`");
            Diagnostic::new(Code::UnknownName, message, place, "unknown name").help(help)
        };
        self.report(diagnostic);
        self.scope().expr(value);
        None
    }

    fn every(&mut self, period: &Spanned<ast::Expr>, body: &Block, span: Span) -> Option<Stmt> {
        let checked = self.scope().expr(period);
        let (body, _) = self.block(body);
        let timed = match checked.unit {
            Unit::Duration => true,
            Unit::Count => false,
            Unit::Unknown => return None,
            _ => {
                self.report(
                    Diagnostic::new(
                        Code::BadEvery,
                        "`every` takes a duration or a number of calls",
                        period.span,
                        "neither",
                    )
                    .help("write `every 1s { … }` or `every 48 calls { … }`"),
                );
                return None;
            }
        };
        let value = self.scope().constant(period, checked.unit)?;
        if value == 0 {
            self.report(Diagnostic::new(
                Code::ZeroPeriod,
                "a period of zero",
                period.span,
                "would run at every call",
            ));
            return None;
        }
        let state = StateId(self.states.len() as u32);
        let name = Spanned::new(format!(".every{}", state.0), period.span);
        let unit = if timed { Unit::Duration } else { Unit::Count };
        self.states.push(State { name, unit, init: 0 });
        let kind = if timed {
            StmtKind::EveryTime(value, state, body)
        } else {
            StmtKind::EveryCalls(value, state, body)
        };
        Some(Spanned::new(kind, span))
    }
}
