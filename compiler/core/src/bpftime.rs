//! What BPFtime can do safely, and why not the rest.
//!
//! BPFtime runs a program when a function is entered, and the program may skip the function. It has
//! no sync engine, no timer, no files: what needs them is refused here, with the reason. What is
//! left means there what it means under the agent. `docs/bpftime.md` has the whole table.

use crate::emit::{Frame, Ring};
use crate::hir::{Entry, Expr, ExprKind, HookBody, Policy, StateId, Stmt, StmtKind, Verdict};
use crate::mir;
use crate::names;
use durac_bpf::abi::{Hook, OWNER, Reading};
use durac_bpf::bpftime::{Argument, MAX_ARGUMENTS};
use durac_bpf::object::{self, OnError};
use durac_bpf::ring::Word;
use durac_grammar::{Code, Diagnostic, Span};
use std::collections::BTreeMap;

/// The kind of a function of the application's own.
const SYMBOL: &str = "symbol";
/// The kind of the function that is called before a sync of which the hook is not asked.
const BARRIER: &str = "barrier";
/// Name and type of the parameter with the log's descriptor.
const LOG: (&str, &str) = ("log", "file");
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
        let function = entry.functions.iter().find(|f| f.kind == SYMBOL)?;
        Some(object::Entry {
            hook: body.hook,
            symbol: function.symbol.node.clone(),
            len: argument(entry, LEN),
            fd: None,
            failed: argument(entry, FAILED).filter(|_| body.hook.is_sync()),
        })
    };
    policy.hooks.iter().filter_map(of).collect()
}

fn argument(entry: &Entry, (name, ty): (&str, &str)) -> Option<Argument> {
    entry.param(name, ty).and_then(|position| u8::try_from(position).ok()).map(Argument)
}

/// The hook whose program starts syncs and waits for them.
#[derive(Clone, Debug)]
pub struct Barrier {
    /// The hook.
    pub hook: Hook,
    /// The function that is called before a sync of which the hook is not asked.
    pub entry: object::Entry,
    /// What the programs share.
    pub ring: Ring,
    /// The hook's place in the policy.
    pub span: Span,
}

/// The hook whose program starts syncs, if one does and its target has what it takes.
#[must_use]
pub fn barrier(policy: &Policy) -> Option<Barrier> {
    policy.uses.first()?;
    let body = policy.hooks.iter().find(|body| Waits::of(&body.body).is_some())?;
    let entry = policy.target.entry(body.hook)?;
    let mut barriers = entry.functions.iter().filter(|f| f.kind == BARRIER);
    let function = barriers.next().filter(|_| body.hook.is_sync())?;
    let fd = argument(entry, LOG)?;
    let failed = argument(entry, FAILED);
    let symbol = function.symbol.node.clone();
    Some(Barrier {
        hook: body.hook,
        entry: object::Entry { hook: Hook::Barrier, symbol, len: None, fd: Some(fd), failed },
        ring: Ring { base: 8 * policy.states.len() as i16, fd, waits: true },
        span: body.span,
    })
}

/// The state variables that the programs keep for themselves, behind the policy's own: what
/// [`durac_bpf::ring`] says, or for each hook, the process whose state it is.
#[must_use]
pub fn own_state(policy: &Policy) -> Vec<object::State> {
    if barrier(policy).is_some() {
        let words = Word::ALL.into_iter();
        return words.map(|w| object::State { name: w.name().to_owned(), init: 0 }).collect();
    }
    let hooks = policy.hooks.iter().filter(|_| !policy.states.is_empty());
    hooks.map(|body| object::State { name: format!("{OWNER}_{}", body.hook), init: 0 }).collect()
}

/// What the program of `function` needs around it.
#[must_use]
pub fn frame(function: &mir::Function, policy: &Policy) -> Frame {
    let entry = entries(policy).into_iter().find(|entry| entry.hook == function.hook);
    let hook = policy.hooks.iter().position(|body| body.hook == function.hook).unwrap_or(0);
    let owner = (8 * (policy.states.len() + hook)) as i16;
    let barrier = barrier(policy);
    let waits = barrier.as_ref().is_some_and(|barrier| barrier.hook == function.hook);
    Frame {
        reads_ring: waits
            && [Reading::Pending, Reading::NotifyDone].into_iter().any(|r| function.reads(r)),
        ring: barrier.as_ref().map(|barrier| Ring { waits, ..barrier.ring }),
        clock: function.reads(Reading::Now),
        reads_len: function.reads(Reading::CallLen),
        len: entry.as_ref().and_then(|e| e.len).filter(|_| function.hook == Hook::Write),
        failed: entry.as_ref().and_then(|e| e.failed),
        owner: (function.has_state() && barrier.is_none()).then_some(owner),
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

/// The first place that starts a sync, waits, or asks what is durable.
struct Waits(Option<Span>);

impl Waits {
    fn of(stmts: &[Stmt]) -> Option<Span> {
        let mut waits = Waits(None);
        waits.stmts(stmts);
        waits.0
    }

    fn stmts(&mut self, stmts: &[Stmt]) {
        for stmt in stmts {
            match &stmt.node {
                StmtKind::Verdict(Verdict::Defer) | StmtKind::Await(_) => {
                    self.0.get_or_insert(stmt.span);
                }
                StmtKind::Verdict(_) | StmtKind::Commit => {}
                StmtKind::Assign(_, value) => self.expr(value),
                StmtKind::If(cond, then, otherwise) => {
                    self.expr(cond);
                    self.stmts(then);
                    self.stmts(otherwise);
                }
                StmtKind::EveryTime(.., body) | StmtKind::EveryCalls(.., body) => self.stmts(body),
            }
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Read(Reading::Pending | Reading::NotifyDone) => {
                self.0.get_or_insert(expr.span);
            }
            ExprKind::Not(a) => self.expr(a),
            ExprKind::And(a, b)
            | ExprKind::Or(a, b)
            | ExprKind::Compare(_, a, b)
            | ExprKind::Arith(_, a, b) => {
                self.expr(a);
                self.expr(b);
            }
            ExprKind::Read(_) | ExprKind::State(_) | ExprKind::Const(_) | ExprKind::Param(_) => {}
        }
    }
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
        let waits = |body: &HookBody| Waits::of(&body.body).is_some();
        if let Some(wanted) =
            self.policy.uses.first().filter(|_| !self.policy.hooks.iter().any(waits))
        {
            self.refuse(
                wanted.span,
                &format!("`use {}`", wanted.node),
                "counts nothing",
                "the kernel counts the syncs that the policy starts there, and it has no `defer` and no `await`",
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
        self.ring(body);
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
        let libc = entry.functions.iter().find(|f| f.kind != SYMBOL && f.kind != BARRIER);
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
        let functions = entry.functions.iter().filter(|f| f.kind == SYMBOL).count();
        if functions != 1 {
            return fault(
                entry.span,
                "the target defines it here",
                format!("a program is attached to one function, and this hook has {functions}"),
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
                StmtKind::Await(distance) => {
                    self.counted(stmt.span, "`await`", "waits for a background sync");
                    self.expr(distance, hook);
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
                self.counted(span, "`defer`", "starts a background sync");
            }
            Verdict::Stage => {
                self.refuse(span, "`stage`", "keeps a borrowed buffer", BORROWED);
            }
            Verdict::Hold => {
                self.refuse(span, "`hold`", "needs the sync engine", NO_RESULT);
            }
        }
    }

    /// What is safe if the kernel counts the syncs.
    fn counted(&mut self, span: Span, what: &str, here: &str) {
        if self.policy.uses.is_empty() {
            let found = refusal(span, what, here, NO_RESULT);
            self.found.push(found.help(
                "add `use kernel notify`: the kernel then counts the syncs that end with success",
            ));
        }
    }

    /// A hook that starts syncs or waits for them: the one hook, of a function that the application
    /// calls with all that it takes, and with a barrier.
    fn ring(&mut self, body: &HookBody) {
        let Some(at) = Waits::of(&body.body).filter(|_| !self.policy.uses.is_empty()) else {
            return;
        };
        let what = format!("syncs of its own at `{}`", body.hook);
        if !body.hook.is_sync() {
            return self.refuse(
                at,
                &what,
                "waits or defers here",
                "only a sync call has a number that a sync could cover",
            );
        }
        let is_other = |other: &&HookBody| other.hook != body.hook && other.hook.is_sync();
        if let Some(other) = self.policy.hooks.iter().find(is_other) {
            let found = refusal(
                at,
                &what,
                "waits or defers here",
                "BPFtime's ring belongs to the one thread that made it; another hook can be another thread's, \
                 and a sync there could take the error of one that is out",
            );
            self.found.push(found.also(other.span, "the other hook of a sync"));
            return;
        }
        let Some(entry) = self.policy.target.entry(body.hook) else { return };
        if entry.functions.iter().any(|f| f.kind != SYMBOL && f.kind != BARRIER) {
            return;
        }
        let barriers = entry.functions.iter().filter(|f| f.kind == BARRIER).count();
        let (missing, help) = if barriers != 1 {
            (
                format!(
                    "it has {barriers} functions that are asked before the application syncs the log by itself: \
                     such a sync can take the error of one that is out, and end with success"
                ),
                "give the hook a line `entry barrier \"…\"`, a function that is called before each such sync, \
                 and once when the log was opened",
            )
        } else if entry.param(LOG.0, LOG.1).is_none() {
            (
                "nothing tells the program which file to sync".to_owned(),
                "let the function take `log: file`",
            )
        } else if entry.param(FAILED.0, FAILED.1).is_none() {
            (
                "nothing tells the program how a call ended that it passed".to_owned(),
                "let the function take `failed: status`: 0, or the error of an earlier sync of this log",
            )
        } else {
            return;
        };
        let message = format!("BPFtime cannot be attached to `{}` safely", body.hook);
        let found = Diagnostic::new(Code::NoBpftimeEntry, message, at, "waits or defers here");
        let found = found.also(entry.span, "the target defines the hook here");
        self.found.push(found.note(missing).help(help));
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
            Reading::Pending | Reading::NotifyDone => {
                let what = format!("`{}`", names::reading_name(reading));
                return self.counted(span, &what, "asks which syncs are durable");
            }
            Reading::PendingBytes | Reading::PendingAge => {
                "nothing there knows when what is not durable was written"
            }
            Reading::SyncLatency => "nothing there times the syncs",
            Reading::NotifyCount => {
                "a bound that hangs on a number of syncs that only grows is not explored there"
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
