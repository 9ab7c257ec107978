//! What BPFtime can do safely, and why not the rest.
//!
//! BPFtime runs a program when a function is entered, and the program may skip the function. It has
//! no sync engine, no timer, no files: what needs them is refused here, with the reason. What is
//! left means there what it means under the agent. `docs/bpftime.md` has the whole table.

use crate::backend::{Barrier, CompilerBackend, Layout};
use crate::emit::{Frame, Range, Ring};
use crate::hir::{
    EntryKind, ExprKind, HookBody, HookEntry, Node, Policy, StateId, StmtKind, Verdict, visit,
};
use crate::mir;
use crate::names;
use durac_abi::bpftime::{Argument, MAX_ARGUMENTS};
use durac_abi::object::{self, OnError};
use durac_abi::uring::Word;
use durac_abi::{Hook, Reading, session};
use durac_grammar::{Code, Diagnostic, Span};
use std::collections::BTreeMap;

/// Name and type of the parameter with the log's descriptor.
const LOG: (&str, &str) = ("log", "file");
/// Name and type of the parameter that tells a program of an earlier error.
const FAILED: (&str, &str) = ("failed", "status");
/// Name and type of the parameter with the bytes of a write.
const LEN: (&str, &str) = ("len", "bytes");

/// BPFtime.
pub(crate) struct Bpftime;

impl CompilerBackend for Bpftime {
    fn refuses(&self, policy: &Policy) -> Vec<Diagnostic> {
        let mut finder = Finder { policy, found: Vec::new(), state: BTreeMap::new() };
        finder.policy();
        for body in &policy.hooks {
            finder.hook(body);
        }
        finder.found
    }

    fn not_yet(&self, _: &Policy) -> Option<Diagnostic> {
        None
    }

    fn reword(&self, diagnostics: &mut [Diagnostic]) {
        for found in diagnostics.iter_mut().filter(|d| d.code == Code::NoDeadline) {
            found.help = Some("BPFtime has no timer: only a later call can sync".to_owned());
        }
    }

    fn layout(&self, policy: &Policy) -> Layout {
        let barrier = barrier(policy);
        let mut entries = entries(policy);
        if let Some(barrier) = &barrier {
            let waiting = entries.iter_mut().find(|entry| entry.hook == barrier.hook);
            waiting.into_iter().for_each(|entry| entry.fd = barrier.entry.fd);
            entries.push(barrier.entry.clone());
        }
        let words = barrier.iter().flat_map(|_| Word::ALL);
        let state = words.map(|w| object::State { name: w.name().to_owned(), init: 0 }).collect();
        Layout { entries, state, maps: vec![session::map()], reads: None, barrier }
    }

    fn frame(&self, layout: &Layout, function: &mir::Function, policy: &Policy) -> Option<Frame> {
        let entry = layout.entries.iter().find(|entry| entry.hook == function.hook);
        let barrier = layout.barrier.as_ref();
        let waits = barrier.is_some_and(|barrier| barrier.hook == function.hook);
        Some(Frame {
            reads_ring: waits
                && [Reading::Pending, Reading::NotifyDone].into_iter().any(|r| function.reads(r)),
            ring: barrier.map(|barrier| Ring { waits, ..barrier.ring }),
            clock: function.reads(Reading::Now),
            reads_len: function.reads(Reading::CallLen),
            len: entry.and_then(|e| e.len).filter(|_| function.hook == Hook::Write),
            failed: entry.and_then(|e| e.failed),
            params: ranges(function, policy),
        })
    }
}

/// The application's own functions that the programs are attached to, in the order of the hooks.
pub(crate) fn entries(policy: &Policy) -> Vec<object::EntryPoint> {
    let of = |body: &HookBody| {
        let entry = policy.target.entry(body.hook)?;
        let function = entry.functions.iter().find(|f| f.kind == EntryKind::Symbol)?;
        Some(object::EntryPoint {
            hook: body.hook,
            symbol: function.symbol.node.clone(),
            len: argument(entry, LEN),
            fd: None,
            failed: argument(entry, FAILED).filter(|_| body.hook.is_sync()),
        })
    };
    policy.hooks.iter().filter_map(of).collect()
}

fn argument(entry: &HookEntry, (name, ty): (&str, &str)) -> Option<Argument> {
    entry.param(name, ty).and_then(|position| u8::try_from(position).ok()).map(Argument)
}

/// The hook whose program starts syncs, if one does and its target has what it takes.
fn barrier(policy: &Policy) -> Option<Barrier> {
    policy.kernel_notify?;
    let body = policy.hooks.iter().find(|body| first_wait(body).is_some())?;
    let entry = policy.target.entry(body.hook)?;
    let mut barriers = entry.functions.iter().filter(|f| f.kind == EntryKind::Barrier);
    let function = barriers.next().filter(|_| body.hook.is_sync())?;
    let fd = argument(entry, LOG)?;
    let failed = argument(entry, FAILED);
    let symbol = function.symbol.node.clone();
    Some(Barrier {
        hook: body.hook,
        entry: object::EntryPoint { hook: Hook::Barrier, symbol, len: None, fd: Some(fd), failed },
        ring: Ring { base: 8 * policy.states.len() as i16, fd, waits: true },
        span: body.span,
    })
}

/// The parameters that a function reads, with their ranges.
fn ranges(function: &mir::Function, policy: &Policy) -> Vec<Range> {
    let of = |(place, param): (usize, &crate::hir::Param)| {
        let is_it =
            |part: &mir::Value| matches!(part, mir::Value::Param(id) if id.index() == place);
        let read = function.values().any(|value| value.any(&mut |part| is_it(part)));
        read.then_some(Range { place, min: param.min, max: param.max })
    };
    policy.params.iter().enumerate().filter_map(of).collect()
}

fn refusal(span: Span, what: &str, here: &str, why: &str) -> Diagnostic {
    let message = format!("BPFtime cannot run {what} safely");
    Diagnostic::new(Code::NotInBpftime, message, span, here).note(why)
}

/// The first place that starts a sync, waits, or reads what is durable.
fn first_wait(body: &HookBody) -> Option<Span> {
    let mut first = None;
    visit(&body.body, &mut |node| {
        let (waits, span) = match node {
            Node::Stmt(stmt) => {
                let starts =
                    matches!(stmt.node, StmtKind::Verdict(Verdict::Defer) | StmtKind::Await(_));
                (starts, stmt.span)
            }
            Node::Expr(expr) => {
                let reads =
                    matches!(expr.kind, ExprKind::Read(Reading::Pending | Reading::NotifyDone));
                (reads, expr.span)
            }
        };
        if waits {
            first.get_or_insert(span);
        }
    });
    first
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
                "a program runs only during a call, so nothing would sync while the application is idle",
            );
        }
        let waits = |body: &HookBody| first_wait(body).is_some();
        if let Some(wanted) =
            self.policy.kernel_notify.filter(|_| !self.policy.hooks.iter().any(waits))
        {
            self.refuse(
                wanted,
                "`use kernel notify`",
                "nothing to count",
                "the kernel counts the syncs that the policy starts, and this one has no `defer` and no `await`",
            );
        }
        if self.policy.on_error == OnError::Stop
            && let Some(hook) = self.policy.hooks.first()
        {
            self.refuse(
                hook.span,
                "`on error: stop`",
                "the program knows only one log of the process",
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
                "nothing could send the held reply later",
            );
            return;
        }
        if body.hook == Hook::Turn {
            self.refuse(
                body.span,
                "`on turn`",
                "needs a hook of `epoll_wait`",
                "a program there could not wait for more connections and return them",
            );
            return;
        }
        if body.defers_writes() {
            self.refuse(
                body.span,
                "`on write: defer`",
                "needs the sync engine",
                "nothing could sync the write later",
            );
            return;
        }
        self.entry(body);
        self.ring(body);
        self.body(body);
    }

    /// The hook's function: one of the application's own, with few arguments, which no other hook has.
    fn entry(&mut self, body: &HookBody) {
        let name = body.hook.name();
        let mut fault = |span, label: &str, why: String, help: &str| {
            let message = format!("BPFtime cannot be attached to `{name}` safely");
            let found = Diagnostic::new(Code::NoBpftimeEntry, message, body.span, "this hook");
            self.found.push(found.also(span, label).note(why).help(help));
        };
        let Some(entry) = self.policy.target.entry(body.hook) else { return };
        let library = entry.functions.iter().find_map(|f| match &f.kind {
            EntryKind::Library(name) => Some((f, name)),
            EntryKind::Symbol | EntryKind::Barrier => None,
        });
        if let Some((function, library)) = library {
            return fault(
                function.symbol.span,
                "the target names its function here",
                format!(
                    "`{}` of `{}` is called for every file and by every thread: the program cannot \
                     tell the log from other files, and concurrent calls would mix their state",
                    function.symbol.node, library
                ),
                "use a target with its own functions, for example `redis.patched`: \
                 `durac compile --runtime bpftime --target redis.patched`",
            );
        }
        let functions = entry.functions.iter().filter(|f| f.kind == EntryKind::Symbol).count();
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
                    "at most {MAX_ARGUMENTS} arguments of a call can be kept, and this function has {}",
                    entry.params.len()
                ),
                "hook a function with fewer arguments",
            );
        }
        let symbol = &entry.functions.first().map_or("", |f| f.symbol.node.as_str());
        let same = |other: &&HookEntry| {
            other.hook != body.hook
                && self.policy.hooks.iter().any(|h| h.hook == other.hook)
                && other.functions.iter().any(|f| f.symbol.node == **symbol)
        };
        if let Some(other) = self.policy.target.entries.iter().find(same) {
            let why = format!("`{symbol}` is also the function of `{}`", other.hook);
            fault(
                entry.span,
                "the target defines it here",
                why,
                "only one program can be attached to a function",
            );
        }
    }

    /// The statements and expressions of a hook.
    fn body(&mut self, body: &HookBody) {
        let hook = body.hook;
        visit(&body.body, &mut |node| match node {
            Node::Stmt(stmt) => match &stmt.node {
                StmtKind::Verdict(verdict) => self.verdict(verdict, stmt.span, hook),
                StmtKind::Await(_) => {
                    self.counted(stmt.span, "`await`", "waits for a background sync");
                }
                StmtKind::Commit => {
                    self.refuse(stmt.span, "`commit`", "does not keep the data", BORROWED);
                }
                StmtKind::Assign(id, _)
                | StmtKind::EveryTime(_, id, _)
                | StmtKind::EveryCalls(_, id, _) => self.state(*id, stmt.span, hook),
                StmtKind::If(..) => {}
            },
            Node::Expr(expr) => match &expr.kind {
                ExprKind::Read(reading) => self.reading(*reading, expr.span, hook),
                ExprKind::State(id) => self.state(*id, expr.span, hook),
                _ => {}
            },
        });
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
                        "the program does not learn the result of a call that it passed: Linux reports \
                         an error once, and the next sync succeeds without the lost pages",
                    );
                    self.found.push(found.also(at, "this function does not receive it").help(
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
            // Only of a turn, which is refused as a whole.
            Verdict::Gather(_) => {}
        }
    }

    /// What is safe if the kernel counts the syncs.
    fn counted(&mut self, span: Span, what: &str, here: &str) {
        if self.policy.kernel_notify.is_none() {
            let found = refusal(span, what, here, NO_RESULT);
            self.found
                .push(found.help(
                    "add `use kernel notify`: the kernel then counts the syncs that succeed",
                ));
        }
    }

    /// A hook that starts syncs or waits for them: the one hook, of a function that the application
    /// calls with all that it takes, and with a barrier.
    fn ring(&mut self, body: &HookBody) {
        let Some(at) = first_wait(body).filter(|_| self.policy.kernel_notify.is_some()) else {
            return;
        };
        let what = format!("syncs of its own at `{}`", body.hook);
        if !body.hook.is_sync() {
            return self.refuse(at, &what, "waits or defers here", "a sync covers sync calls only");
        }
        let is_other = |other: &&HookBody| other.hook != body.hook && other.hook.is_sync();
        if let Some(other) = self.policy.hooks.iter().find(is_other) {
            let found = refusal(
                at,
                &what,
                "waits or defers here",
                "BPFtime's ring belongs to the thread that created it; another hook can run on another thread, \
                 and a sync there could consume the error of a sync under way",
            );
            self.found.push(found.also(other.span, "the other hook of a sync"));
            return;
        }
        let Some(entry) = self.policy.target.entry(body.hook) else { return };
        if entry.functions.iter().any(|f| matches!(f.kind, EntryKind::Library(_))) {
            return;
        }
        let barriers = entry.functions.iter().filter(|f| f.kind == EntryKind::Barrier).count();
        let (missing, help) = if barriers != 1 {
            (
                format!(
                    "it has {barriers} barrier functions, called before the application syncs the log by itself, \
                     and needs one: such a sync can consume the error of a sync under way and succeed"
                ),
                "give the hook a line `entry barrier \"…\"`: a function that is called before each such sync, \
                 and once after the log is opened",
            )
        } else if entry.param(LOG.0, LOG.1).is_none() {
            (
                "the program does not learn which file to sync".to_owned(),
                "let the function take `log: file`",
            )
        } else if entry.param(FAILED.0, FAILED.1).is_none() {
            (
                "the program does not learn the result of a call that it passed".to_owned(),
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
            "also used here",
            "two functions can be called by two threads at once, and no lock guards the state",
        );
        self.found.push(found.also(at, "first used here"));
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
            Reading::ChildActive => "a program under BPFtime does not see forks of the application",
            Reading::Pending | Reading::NotifyDone => {
                let what = format!("`{}`", names::reading_name(reading));
                return self.counted(span, &what, "needs to know which syncs are durable");
            }
            Reading::PendingBytes | Reading::PendingAge => {
                "BPFtime does not record when data was written"
            }
            Reading::SyncLatency => "BPFtime does not time syncs",
            Reading::NotifyCount => {
                "a bound that depends on an ever-growing number of syncs cannot be explored there"
            }
            Reading::Staged => BORROWED,
            // The hook itself is refused.
            Reading::Ready | Reading::ReplyClean => return,
            Reading::PendingUpdates | Reading::CallUpdates => {
                "a program under BPFtime does not see what is written"
            }
        };
        let what = format!("`{}`", names::reading_name(reading));
        self.refuse(span, &what, "cannot be read under BPFtime", why);
    }
}

const NO_RESULT: &str = "BPFtime's helper that waits for a sync discards its result, so a failed sync \
                         would count as durable";
const BORROWED: &str = "BPFtime's helper that writes later keeps the application's buffer, which the \
                        application reuses after the call returns";
