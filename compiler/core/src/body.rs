//! The bodies of hooks: statements, capabilities, verdicts.

use crate::awaits;
use crate::expr::{Scope, constant_value};
use crate::habits;
use crate::hir::{Expr, ExprKind, Node, Param, State, StateId, Stmt, StmtKind, Verdict, visit};
use crate::names;
use crate::target::{Action, CheckedTarget, path_span};
use crate::unit::Unit;
use durac_abi::{GATHER_MOST, Hook, Reading};
use durac_grammar::ast::{self, BinOp, Block};
use durac_grammar::suggest::nearest;
use durac_grammar::{Code, Diagnostic, Span, Spanned};

/// A reading that one hook has.
struct Foreign {
    reading: Reading,
    hook: Hook,
    label: &'static str,
    note: &'static str,
    help: &'static str,
}

const FOREIGN: [Foreign; 2] = [
    Foreign {
        reading: Reading::Ready,
        hook: Hook::Turn,
        label: "belongs to a turn of the event loop",
        note: "is the number of descriptors that a wait of the event loop has found ready",
        help: "read it in `on turn`: `on turn: if ready < 8 { gather within 60us }`",
    },
    Foreign {
        reading: Reading::ReplyClean,
        hook: Hook::Reply,
        label: "belongs to a reply",
        note: "says that a reply depends on nothing that is not durable",
        help: "read it in `on reply`: `on reply { if reply.clean { pass } hold until durable }`",
    },
];

/// Checks the body of `hook`. State variables the compiler needs are added to `tables.states`.
pub fn check(block: &Block, hook: Hook, tables: Tables<'_>) -> Vec<Stmt> {
    let mut body = Body { hook, tables };
    let stmts = body.block(block).0;
    for foreign in FOREIGN.iter().filter(|foreign| foreign.hook != hook) {
        body.without(foreign, &stmts);
    }
    if hook.is_on_log() {
        habits::look(&stmts, hook, body.tables.diagnostics);
        body.deferred_write(&stmts);
    } else {
        body.without_a_log(&stmts);
    }
    stmts
}

/// What a body reads, and what it adds to.
pub struct Tables<'a> {
    /// The policy's target, if it is known.
    pub target: Option<&'a CheckedTarget>,
    /// The declared parameters.
    pub params: &'a [Param],
    /// The state variables so far.
    pub states: &'a mut Vec<State>,
    /// Which parameters are read.
    pub read_params: &'a mut [bool],
    /// Which of the declared state variables are read.
    pub read_states: &'a mut [bool],
    /// Where findings go.
    pub diagnostics: &'a mut Vec<Diagnostic>,
}

fn is_defer(stmt: &Stmt) -> bool {
    matches!(stmt.node, StmtKind::Verdict(Verdict::Defer))
}

struct Body<'a> {
    hook: Hook,
    tables: Tables<'a>,
}

impl Body<'_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        self.tables.diagnostics.push(diagnostic);
    }

    fn scope(&mut self) -> Scope<'_> {
        Scope {
            params: self.tables.params,
            states: self.tables.states,
            read_params: self.tables.read_params,
            read_states: self.tables.read_states,
            diagnostics: self.tables.diagnostics,
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
                        "unreachable",
                    )
                    .also(end, "the call ends here"),
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

    /// `defer` says of every write of a log that it is synced: of some it cannot be said, since the file is looked at
    /// and not the call.
    fn deferred_write(&mut self, stmts: &[Stmt]) {
        if self.hook != Hook::Write || stmts.len() == 1 && matches!(stmts, [s] if is_defer(s)) {
            return;
        }
        let mut found = Vec::new();
        visit(stmts, &mut |node| {
            if let Node::Stmt(stmt) = node
                && is_defer(stmt)
            {
                found.push(stmt.span);
            }
        });
        for span in found {
            self.report(
                Diagnostic::new(
                    Code::NotInThisHook,
                    "`defer` in `on write` cannot depend on anything",
                    span,
                    "not the only statement",
                )
                .note("it concerns every write of the log: the file is looked at, not the call")
                .help("write `on write: defer`"),
            );
        }
    }

    /// A reply and a turn belong to no log: what is read of a log or kept for its next call, and what works
    /// on its syncs, is not there.
    fn without_a_log(&mut self, stmts: &[Stmt]) {
        let mut found: Vec<(Span, String)> = Vec::new();
        let hook = self.hook;
        visit(stmts, &mut |node| match node {
            Node::Stmt(stmt) => match &stmt.node {
                StmtKind::Await(_) => found.push((stmt.span, "`await`".to_owned())),
                StmtKind::Commit => found.push((stmt.span, "`commit`".to_owned())),
                StmtKind::Assign(..) => found.push((stmt.span, "a state variable".to_owned())),
                StmtKind::EveryTime(..) | StmtKind::EveryCalls(..) => {
                    found.push((stmt.span, "`every`".to_owned()));
                }
                StmtKind::Verdict(_) | StmtKind::If(..) => {}
            },
            Node::Expr(expr) => match expr.kind {
                ExprKind::State(_) => found.push((expr.span, "a state variable".to_owned())),
                ExprKind::Read(Reading::ChildActive) => {}
                ExprKind::Read(Reading::CallLen) if hook == Hook::Reply => {}
                // Elsewhere they are refused for another reason.
                ExprKind::Read(Reading::Ready | Reading::ReplyClean) => {}
                ExprKind::Read(reading) => {
                    let name = names::reading_name(reading);
                    found.push((expr.span, format!("`{name}`")));
                }
                _ => {}
            },
        });
        let help = match hook {
            Hook::Reply => {
                "parameters, `call.len`, `reply.clean` and `child.active` can be read here"
            }
            _ => "parameters, `ready` and `child.active` can be read here",
        };
        for (span, what) in found {
            self.report(
                Diagnostic::new(
                    Code::NotInThisHook,
                    format!("{what} is not available in `on {hook}`"),
                    span,
                    "belongs to a log",
                )
                .note(format!("a {hook} belongs to no log"))
                .help(help),
            );
        }
    }

    /// This hook does not have what another has.
    fn without(&mut self, foreign: &Foreign, stmts: &[Stmt]) {
        let mut found: Vec<Span> = Vec::new();
        visit(stmts, &mut |node| {
            if let Node::Expr(Expr { kind: ExprKind::Read(reading), span, .. }) = node
                && *reading == foreign.reading
            {
                found.push(*span);
            }
        });
        let name = names::reading_name(foreign.reading);
        for span in found {
            self.report(
                Diagnostic::new(
                    Code::NotInThisHook,
                    format!("`{name}` is not available in `on {}`", self.hook),
                    span,
                    foreign.label,
                )
                .note(format!("`{name}` {}", foreign.note))
                .help(foreign.help),
            );
        }
    }

    /// Whether the hook has this verdict, whatever the target grants.
    fn fits(&mut self, action: Action, span: Span) -> bool {
        let fits = match self.hook {
            Hook::Reply => matches!(action, Action::Pass | Action::Hold),
            Hook::Turn => matches!(action, Action::Pass | Action::Gather),
            _ => !matches!(action, Action::Hold | Action::Gather),
        };
        if !fits {
            let (hook, action) = (self.hook, action.text());
            let help = match hook {
                Hook::Reply => "a reply can `pass` or `hold until durable`".to_owned(),
                Hook::Turn => "a turn can `pass` or `gather within 60us`".to_owned(),
                _ if action == "hold" => "write it in `on reply`".to_owned(),
                _ => "write it in `on turn`".to_owned(),
            };
            self.report(
                Diagnostic::new(
                    Code::NotInThisHook,
                    format!("`{action}` is not available in `on {hook}`"),
                    span,
                    "not in this hook",
                )
                .help(help),
            );
        }
        fits
    }

    /// The time of `gather within`, if it is one.
    fn gather(&mut self, within: &Spanned<ast::Expr>) -> Option<u32> {
        let value = self.scope().constant(within, Unit::Duration)?;
        let time = u32::try_from(value).ok().filter(|time| (1..=GATHER_MOST).contains(time));
        if time.is_none() {
            self.report(
                Diagnostic::new(
                    Code::BadGather,
                    "`gather within` takes a duration above zero and of at most 10ms",
                    within.span,
                    "out of this range",
                )
                .help("write `gather within 60us`"),
            );
        }
        time
    }

    fn allowed(&mut self, action: Action, span: Span) {
        let Some(target) = self.tables.target else { return };
        let Some(hook) = target.hook(self.hook) else { return };
        if hook.may.contains(&action) {
            return;
        }
        let may: Vec<_> = hook.may.iter().map(|a| a.text()).collect();
        let diagnostic = Diagnostic::new(
            Code::NotAllowed,
            format!("`{}` is not allowed on `{}`", action.text(), self.hook),
            span,
            format!("the target `{}` does not allow this here", target.hir.name),
        )
        .also(hook.may_span, "the target lists what it allows here")
        .help(format!("allowed here: {}", names::list(&may)));
        let diagnostic = if action == Action::Stage && !hook.borrows {
            diagnostic.note("only a hook that receives data of the application can stage it")
        } else {
            diagnostic
        };
        self.report(diagnostic);
    }

    fn verdict(&mut self, verdict: Verdict, span: Span) -> (Option<Stmt>, bool) {
        if self.fits(verdict.action(), span) {
            self.allowed(verdict.action(), span);
        }
        (Some(Spanned::new(StmtKind::Verdict(verdict), span)), true)
    }

    fn stmt(&mut self, stmt: &Spanned<ast::Stmt>) -> (Option<Stmt>, bool) {
        let span = stmt.span;
        match &stmt.node {
            ast::Stmt::Pass => self.verdict(Verdict::Pass, span),
            ast::Stmt::Defer => self.verdict(Verdict::Defer, span),
            ast::Stmt::Skip => self.verdict(Verdict::Skip, span),
            ast::Stmt::Stage => self.verdict(Verdict::Stage, span),
            ast::Stmt::Hold(until) => {
                if until.node != "durable" {
                    self.report(
                        Diagnostic::new(
                            Code::BadHold,
                            format!("a reply cannot be held until `{}`", until.node),
                            until.span,
                            "cannot be waited for",
                        )
                        .help("write `hold until durable`"),
                    );
                }
                self.verdict(Verdict::Hold, span)
            }
            ast::Stmt::Gather(within) => match self.gather(within) {
                Some(time) => self.verdict(Verdict::Gather(time), span),
                None => (None, true),
            },
            ast::Stmt::Fail(name) => {
                let Some(&(text, number)) = names::ERRNOS.iter().find(|(n, _)| *n == name.node)
                else {
                    let known: Vec<_> = names::ERRNOS.iter().map(|(n, _)| *n).collect();
                    self.report(
                        Diagnostic::new(
                            Code::UnknownErrno,
                            format!("unknown error `{}`", name.node),
                            name.span,
                            "a call cannot fail with this",
                        )
                        .help(names::suggest(&name.node, &known)),
                    );
                    return (None, true);
                };
                self.verdict(Verdict::Fail(text, number), span)
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
            let always = if value == 0 { "is never true" } else { "is always true" };
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

    /// How many calls back an `await` looks: see [`durac_abi::Helper::Await`].
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
                            "`pending < 0` is never true",
                            what.span,
                            "would block forever",
                        )
                        .help("to wait for the sync of this call too, write `await all`"),
                    );
                    return None;
                }
                return Some(limit);
            }
            ast::Expr::Error => return None,
            _ => {}
        }
        let found = Diagnostic::new(
            Code::BadAwait,
            "`await` takes `previous`, `all` or `pending < n`",
            what.span,
            "`await` does not take this",
        );
        // For what it reads only: a parameter in it is not unused.
        let before = self.tables.diagnostics.len();
        self.scope().expr(what);
        self.tables.diagnostics.truncate(before);
        self.report(
            awaits::meant(found, what)
                .note("a wait may only depend on syncs that have started, so that it ends"),
        );
        None
    }

    fn assign(&mut self, path: &ast::Path, value: &Spanned<ast::Expr>, span: Span) -> Option<Stmt> {
        let name = path.dotted();
        let place = path_span(path).unwrap_or(span);
        if let Some(i) = self.tables.states.iter().position(|s| s.name.node == name) {
            let unit = self.tables.states.get(i).map_or(Unit::Unknown, |s| s.unit);
            let value = self.scope().expect(value, unit);
            return Some(Spanned::new(StmtKind::Assign(StateId(i as u32), value), span));
        }
        let diagnostic = if let Some(param) =
            self.tables.params.iter().find(|p| p.name.node == name)
        {
            Diagnostic::new(
                Code::AssignParam,
                format!("the parameter `{name}` cannot be assigned"),
                place,
                "a parameter",
            )
            .also(param.name.span, "declared here")
            .help("parameters are set from outside; use a `state` variable to keep a value")
        } else if names::reading(&name).is_some() {
            let message = format!("the reading `{name}` cannot be assigned");
            Diagnostic::new(Code::AssignReading, message, place, "a reading")
        } else {
            let known: Vec<_> = self.tables.states.iter().map(|s| s.name.node.as_str()).collect();
            let help = match nearest(&name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let ty = match &value.node {
                        ast::Expr::Bool(_) | ast::Expr::Not(_) => "bool = false",
                        ast::Expr::Binary(_, op, _)
                            if !matches!(
                                op.node,
                                BinOp::Add | BinOp::Sub | BinOp::Mul | BinOp::Div | BinOp::Rem
                            ) =>
                        {
                            "bool = false"
                        }
                        ast::Expr::Number { unit: Some(unit), .. } if unit.is_time() => {
                            "duration = 0"
                        }
                        ast::Expr::Number { unit: Some(_), .. } => "bytes = 0",
                        _ => "count = 0",
                    };
                    format!("declare it, for example `state {name}: {ty}`")
                }
            };
            let message = format!("unknown name `{name}`");
            Diagnostic::new(Code::UnknownName, message, place, "not declared").help(help)
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
                    .help(match checked.kind {
                        ExprKind::Const(n) if checked.unit == Unit::Plain => {
                            format!("write `every {n} calls {{ … }}` or `every {n}s {{ … }}`")
                        }
                        _ => "write `every 1s { … }` or `every 48 calls { … }`".to_owned(),
                    }),
                );
                return None;
            }
        };
        let value = self.scope().constant(period, checked.unit)?;
        if value == 0 {
            self.report(Diagnostic::new(
                Code::ZeroPeriod,
                "the period is zero",
                period.span,
                "would run at every call",
            ));
            return None;
        }
        let state = StateId(self.tables.states.len() as u32);
        let name = Spanned::new(format!(".every{}", state.0), period.span);
        let unit = if timed { Unit::Duration } else { Unit::Count };
        self.tables.states.push(State { name, unit, init: 0 });
        let kind = if timed {
            StmtKind::EveryTime(value, state, body)
        } else {
            StmtKind::EveryCalls(value, state, body)
        };
        Some(Spanned::new(kind, span))
    }
}
