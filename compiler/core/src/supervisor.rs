//! What the supervisor can do, and why not the rest.
//!
//! The supervisor is told of system calls by the kernel: sync calls, changes of names and, where a policy needs it,
//! writes. It sees no bytes, no connection and no event loop. `docs/supervisor.md` has the whole table.

use crate::backend::{CompilerBackend, Layout};
use crate::emit::Frame;
use crate::hir::{EntryKind, ExprKind, HookBody, Node, Policy, StmtKind, Verdict, visit};
use crate::{mir, names};
use durac_abi::{Callers, Hook, Reading};
use durac_grammar::{Code, Diagnostic, Span};

/// The supervisor.
pub(crate) struct Supervisor;

impl CompilerBackend for Supervisor {
    fn refuses(&self, policy: &Policy) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        if let Some(span) = policy.kernel_notify {
            found.push(refusal(
                span,
                "`use kernel notify`",
                "needs programs in the kernel",
                "it counts the syncs that it makes itself",
            ));
        }
        for body in &policy.hooks {
            hook(policy, body, &mut found);
        }
        found
    }

    fn not_yet(&self, _: &Policy) -> Option<Diagnostic> {
        None
    }

    /// Any number of processes may have the log open.
    fn callers(&self, _: Callers) -> Callers {
        Callers::Many
    }

    fn layout(&self, policy: &Policy) -> Layout {
        // The key of a log's state.
        Layout { reads: (!policy.states.is_empty()).then_some(Reading::Log), ..Layout::default() }
    }

    fn frame(&self, _: &Layout, _: &mir::Function, _: &Policy) -> Option<Frame> {
        None
    }
}

fn hook(policy: &Policy, body: &HookBody, found: &mut Vec<Diagnostic>) {
    let why = match body.hook {
        Hook::Reply => Some("it does not see what is sent to clients"),
        Hook::Turn => Some("it does not see event loops"),
        Hook::Write | Hook::Fsync | Hook::Fdatasync | Hook::Barrier => None,
    };
    if let Some(why) = why {
        let what = format!("`on {}`", body.hook);
        found.push(refusal(body.span, &what, "not a call on a log", why));
        return;
    }
    let functions = policy.target.entry(body.hook).map_or(&[][..], |entry| &entry.functions);
    if let Some(own) = functions.iter().find(|f| !matches!(f.kind, EntryKind::Library(_))) {
        let what = format!("`on {}` at a function of the application", body.hook);
        let why = "it is told of system calls, not of functions";
        found.push(
            refusal(body.span, &what, "this hook", why)
                .also(own.symbol.span, "the target names its function here"),
        );
    }
    visit(&body.body, &mut |node| match node {
        Node::Stmt(stmt) if matches!(stmt.node, StmtKind::Verdict(Verdict::Stage)) => {
            let why = "it is told of a write, and cannot keep its bytes";
            found.push(refusal(stmt.span, "`stage`", "needs the bytes", why));
        }
        Node::Expr(expr) => {
            if let ExprKind::Read(reading) = &expr.kind
                && let Some(why) = unreadable(*reading)
            {
                let what = format!("`{}`", names::reading_name(*reading));
                found.push(refusal(expr.span, &what, "not known there", why));
            }
        }
        Node::Stmt(_) => {}
    });
}

/// Why the supervisor does not know a reading; none if it does.
fn unreadable(reading: Reading) -> Option<&'static str> {
    match reading {
        Reading::PendingUpdates | Reading::CallUpdates => {
            Some("it is told how long a write is, not what is written")
        }
        Reading::Staged => Some("it cannot keep the bytes of a write"),
        Reading::ChildActive => Some("every process of the command runs under the policy"),
        // The hook that has it is refused.
        Reading::Ready
        | Reading::ReplyClean
        | Reading::Log
        | Reading::Now
        | Reading::Pending
        | Reading::PendingBytes
        | Reading::CallLen
        | Reading::PendingAge
        | Reading::SyncLatency
        | Reading::NotifyDone
        | Reading::NotifyCount => None,
    }
}

fn refusal(span: Span, what: &str, here: &str, why: &str) -> Diagnostic {
    let message = format!("{what} is not available under the supervisor");
    Diagnostic::new(Code::NotInSupervisor, message, span, here)
        .note(why)
        .help("use the agent (`durac run` without `--engine supervisor`), or another policy")
}
