//! What BPFtime can do safely, and why not the rest.
//!
//! BPFtime runs a program when a function is entered, and the program may skip the function. It has
//! no sync engine, no timer, no files: what needs them is refused here, with the reason. What is
//! left means there what it means under the agent. `docs/bpftime.md` has the whole table.

use crate::emit::Frame;
use crate::hir::{Entry, Expr, ExprKind, HookBody, Policy, StateId, Stmt, StmtKind, Verdict};
use crate::mir;
use crate::names;
use durac_bpf::abi::{Hook, OWNER, Reading};
use durac_bpf::bpftime::{Argument, MAX_ARGUMENTS};
use durac_bpf::object::{self, OnError};
use durac_grammar::{Code, Diagnostic, Span};
use std::collections::BTreeMap;

/// The kind of a function of the application's own.
const SYMBOL: &str = "symbol";
/// Name and type of the parameter that tells a program of an earlier error.
const FAILED: (&str, &str) = ("failed", "status");
/// Name and type of the parameter with the bytes of a write.
const LEN: (&str, &str) = ("len", "bytes");

/// Everything in the policy that BPFtime cannot do safely, each with its reason.
#[must_use]
pub fn unsafe_there(policy: &Policy) -> Vec<Diagnostic> {
    let mut finder = Finder { policy, found: Vec::new(), state: BTreeMap::new() };
    finder.policy();
    for body in &policy.hooks {
        finder.hook(body);
    }
    finder.found
}

/// The application's own functions that the programs are attached to, in the order of the hooks.
#[must_use]
pub fn entries(policy: &Policy) -> Vec<object::Entry> {
    let of = |body: &HookBody| {
        let entry = policy.target.entry(body.hook)?;
        let function = entry.functions.first().filter(|f| f.kind == SYMBOL)?;
        Some(object::Entry {
            hook: body.hook,
            symbol: function.symbol.node.clone(),
            len: argument(entry, LEN),
            failed: argument(entry, FAILED).filter(|_| body.hook.is_sync()),
        })
    };
    policy.hooks.iter().filter_map(of).collect()
}

fn argument(entry: &Entry, (name, ty): (&str, &str)) -> Option<Argument> {
    entry.param(name, ty).and_then(|position| u8::try_from(position).ok()).map(Argument)
}

/// The state variables that the programs keep for themselves, behind the policy's own: for each
/// hook, the process whose state it is.
#[must_use]
pub fn owners(policy: &Policy) -> Vec<object::State> {
    let hooks = policy.hooks.iter().filter(|_| !policy.states.is_empty());
    hooks.map(|body| object::State { name: format!("{OWNER}_{}", body.hook), init: 0 }).collect()
}

/// What the program of `function` needs around it.
#[must_use]
pub fn frame(function: &mir::Function, policy: &Policy) -> Frame {
    let entry = entries(policy).into_iter().find(|entry| entry.hook == function.hook);
    let hook = policy.hooks.iter().position(|body| body.hook == function.hook).unwrap_or(0);
    let owner = (8 * (policy.states.len() + hook)) as i16;
    Frame {
        clock: function.reads(Reading::Now),
        reads_len: function.reads(Reading::CallLen),
        len: entry.as_ref().and_then(|e| e.len).filter(|_| function.hook == Hook::Write),
        failed: entry.as_ref().and_then(|e| e.failed),
        owner: function.has_state().then_some(owner),
    }
}

/// Takes back advice that cannot be followed there.
pub(crate) fn reword(diagnostics: &mut [Diagnostic]) {
    for found in diagnostics.iter_mut().filter(|d| d.code == Code::NoDeadline) {
        found.help = Some("BPFtime has no timer: only a later call can sync".to_owned());
    }
}

fn refusal(span: Span, what: &str, here: &str, why: &str) -> Diagnostic {
    let message = format!("BPFtime cannot run {what} safely");
    Diagnostic::new(Code::NotInBpftime, message, span, here).note(why)
}

struct Finder<'a> {
    policy: &'a Policy,
    found: Vec<Diagnostic>,
    /// The hook and the place that use a state variable first.
    state: BTreeMap<StateId, (Hook, Span)>,
}

impl Finder<'_> {
    fn refuse(&mut self, span: Span, what: &str, here: &str, why: &str) {
        self.found.push(refusal(span, what, here, why));
    }

    fn policy(&mut self) {
        if let Some(flush) = &self.policy.flush_within {
            self.refuse(
                flush.span,
                "`flush within`",
                "needs a timer",
                "a program runs only when the application calls; while it is idle nobody would sync",
            );
        }
        for wanted in &self.policy.uses {
            self.refuse(
                wanted.span,
                &format!("`use {}`", wanted.node),
                "not in an object for BPFtime",
                "the kernel's counter is not shared with BPFtime's programs by this version",
            );
        }
        if self.policy.on_error == OnError::Stop
            && let Some(hook) = self.policy.hooks.first()
        {
            self.refuse(
                hook.span,
                "`on error: stop`",
                "one log of the process is all this program knows",
                "a program is told of a failed sync of its own log only",
            );
        }
    }

    fn hook(&mut self, body: &HookBody) {
        if body.hook == Hook::Reply {
            self.refuse(
                body.span,
                "`on reply`",
                "needs the sync engine",
                "nothing could send a reply later that was held",
            );
            return;
        }
        self.entry(body);
        self.stmts(&body.body, body.hook);
    }

    /// The hook's function: one of the application's own, with few arguments, and nobody else's.
    fn entry(&mut self, body: &HookBody) {
        let name = body.hook.name();
        let mut fault = |span, label: &str, why: String, help: &str| {
            let message = format!("BPFtime cannot be attached to `{name}` safely");
            let found = Diagnostic::new(Code::NoBpftimeEntry, message, body.span, "this hook");
            self.found.push(found.also(span, label).note(why).help(help));
        };
        let Some(entry) = self.policy.target.entry(body.hook) else { return };
        let libc = entry.functions.iter().find(|f| f.kind != SYMBOL);
        if let Some(function) = libc {
            return fault(
                function.symbol.span,
                "the target enters it here",
                format!(
                    "`{}` of `{}` is called for every file and by every thread: the program cannot \
                     tell the log from other files, and what two threads decide at once is mixed up",
                    function.symbol.node, function.kind
                ),
                "use a target with functions of its own, for example `redis.patched`: \
                 `durac compile --runtime bpftime --target redis.patched`",
            );
        }
        if entry.functions.len() != 1 {
            return fault(
                entry.span,
                "the target defines it here",
                format!("a program is attached to one function, and this hook has {}", {
                    entry.functions.len()
                }),
                "give the hook one line `entry symbol \"…\"`",
            );
        }
        if entry.params.len() > MAX_ARGUMENTS {
            return fault(
                entry.span,
                "the target defines it here",
                format!(
                    "a call that goes on keeps {MAX_ARGUMENTS} arguments, and this function has {}",
                    entry.params.len()
                ),
                "hook a function with fewer arguments",
            );
        }
        let symbol = &entry.functions.first().map_or("", |f| f.symbol.node.as_str());
        let same = |other: &&Entry| {
            other.hook != body.hook
                && self.policy.hooks.iter().any(|h| h.hook == other.hook)
                && other.functions.iter().any(|f| f.symbol.node == **symbol)
        };
        if let Some(other) = self.policy.target.entries.iter().find(same) {
            let why = format!("`{symbol}` is the function of `{}` too", other.hook);
            fault(entry.span, "the target defines it here", why, "one function, one program");
        }
    }

    fn stmts(&mut self, stmts: &[Stmt], hook: Hook) {
        for stmt in stmts {
            match &stmt.node {
                StmtKind::Verdict(verdict) => self.verdict(verdict, stmt.span, hook),
                StmtKind::Await(_) => {
                    self.refuse(stmt.span, "`await`", "waits for a background sync", NO_RESULT);
                }
                StmtKind::Commit => {
                    self.refuse(stmt.span, "`commit`", "keeps no bytes", BORROWED);
                }
                StmtKind::Assign(id, value) => {
                    self.state(*id, stmt.span, hook);
                    self.expr(value, hook);
                }
                StmtKind::If(cond, then, otherwise) => {
                    self.expr(cond, hook);
                    self.stmts(then, hook);
                    self.stmts(otherwise, hook);
                }
                StmtKind::EveryTime(_, id, body) | StmtKind::EveryCalls(_, id, body) => {
                    self.state(*id, stmt.span, hook);
                    self.stmts(body, hook);
                }
            }
        }
    }

    fn verdict(&mut self, verdict: &Verdict, span: Span, hook: Hook) {
        match verdict {
            Verdict::Pass | Verdict::Fail(..) => {}
            Verdict::Skip => {
                let entry = self.policy.target.entry(hook);
                if entry.is_some_and(|e| e.param(FAILED.0, FAILED.1).is_none()) {
                    let at = entry.map_or(span, |e| e.span);
                    let found = refusal(
                        span,
                        "`skip`",
                        "may report success after a sync has failed",
                        "nothing tells the program how a call ended that it passed: Linux reports an \
                         error once, and the next sync succeeds without the lost pages",
                    );
                    self.found.push(found.also(at, "this function is not told").help(
                        "let the function take `failed: status`: 0, or the error of an earlier sync \
                         of this log",
                    ));
                }
            }
            Verdict::Defer => {
                self.refuse(span, "`defer`", "starts a background sync", NO_RESULT);
            }
            Verdict::Stage => {
                self.refuse(span, "`stage`", "keeps a borrowed buffer", BORROWED);
            }
            Verdict::Hold => {
                self.refuse(span, "`hold`", "needs the sync engine", NO_RESULT);
            }
        }
    }

    /// Two hooks may run in two threads, and a program there has no lock.
    fn state(&mut self, id: StateId, span: Span, hook: Hook) {
        let (first, at) = *self.state.entry(id).or_insert((hook, span));
        if first == hook {
            return;
        }
        let name = self.policy.states.get(id.index()).map_or("", |s| s.name.node.as_str());
        let found = refusal(
            span,
            &format!("hooks that share `{name}`"),
            "used here too",
            "two functions can be called by two threads at once, and no lock guards the state",
        );
        self.found.push(found.also(at, "first used here"));
    }

    fn expr(&mut self, expr: &Expr, hook: Hook) {
        match &expr.kind {
            ExprKind::Read(reading) => self.reading(*reading, expr.span, hook),
            ExprKind::State(id) => self.state(*id, expr.span, hook),
            ExprKind::Not(a) => self.expr(a, hook),
            ExprKind::And(a, b)
            | ExprKind::Or(a, b)
            | ExprKind::Compare(_, a, b)
            | ExprKind::Arith(_, a, b) => {
                self.expr(a, hook);
                self.expr(b, hook);
            }
            ExprKind::Const(_) | ExprKind::Param(_) => {}
        }
    }

    fn reading(&mut self, reading: Reading, span: Span, hook: Hook) {
        let why = match reading {
            Reading::Now | Reading::Log => return,
            Reading::CallLen => {
                let entry = self.policy.target.entry(hook);
                if hook.is_sync() || entry.is_none_or(|e| e.param(LEN.0, LEN.1).is_some()) {
                    return;
                }
                "the function has no parameter `len: bytes`"
            }
            Reading::ChildActive => "a program there does not see the application's forks",
            Reading::Pending | Reading::PendingBytes | Reading::PendingAge => {
                "nothing there knows which acknowledged syncs are durable"
            }
            Reading::SyncLatency => "nothing there times the syncs",
            Reading::NotifyDone | Reading::NotifyCount => {
                "nothing there sees a sync end: the kernel's counter is not in the object"
            }
            Reading::Staged => BORROWED,
        };
        let what = format!("`{}`", names::reading_name(reading));
        self.refuse(span, &what, "cannot be read there", why);
    }
}

const NO_RESULT: &str = "BPFtime's helper that waits for a sync throws its result away, so a sync that \
                         failed would be taken for durable";
const BORROWED: &str = "BPFtime's helper that writes later keeps the application's buffer, which the \
                        application changes when the call returns";
