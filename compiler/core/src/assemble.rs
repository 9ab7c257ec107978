//! The object of a policy: its programs, its maps, and what its note says.

use crate::backend::{self, Layout};
use crate::emit::{self, EmitError, Maps, emit};
use crate::hir::{ExprKind, Node, Policy, StmtKind, visit};
use crate::mir;
use durac_abi::Object;
use durac_abi::object::{Action, Map, Meta, Param, ParamUnit, Program, Source, State};
use durac_abi::{ABI, PARAMS_MAP, Reading, Records, Runtime, STATE_MAP};
use durac_bpf::notify;
use durac_grammar::{Code, Diagnostic, FileId, Sources};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Builds the object for a runtime.
///
/// # Errors
/// A diagnostic that names the place a program cannot be emitted for.
pub fn assemble(
    runtime: Runtime,
    policy: &Policy,
    program: &mir::Program,
    sources: &Sources,
    file: FileId,
) -> Result<Object, Box<Diagnostic>> {
    let backend = backend::of(runtime);
    let layout = backend.layout(policy);
    let text = sources.text(file).to_owned();
    let meta = meta(runtime, policy, &layout, &text);
    let mut maps = Vec::new();
    let params = maps.len() as u32;
    if !policy.params.is_empty() {
        let fields = policy.params.iter().map(|p| p.name.node.clone()).collect();
        maps.push(Map { name: PARAMS_MAP.to_owned(), max_entries: 1, fields });
    }
    let state = maps.len() as u32;
    if !meta.state.is_empty() {
        let fields = meta.state.iter().map(|s| s.name.replace('.', "_")).collect();
        let max_entries = runtime.backend().state_entries();
        maps.push(Map { name: STATE_MAP.to_owned(), max_entries, fields });
    }
    let session = maps.len() as u32;
    maps.extend(layout.maps.iter().cloned());
    let maps_of = Maps { params, state, session, syncs: maps.len() as u32 };
    let emitted = program
        .functions
        .iter()
        .map(|function| emit(function, maps_of, backend.frame(&layout, function, policy), sources));
    let mut programs: Vec<Program> =
        emitted.collect::<Result<_, _>>().map_err(|error| Box::new(explain(error, policy)))?;
    // A sync that somebody else makes says nothing of bytes that are not in the file yet.
    let watches = policy.kernel_notify.is_some() && !meta.stages();
    let kernel = if watches { notify::programs_of(runtime) } else { Ok(Vec::new()) };
    let kernel = kernel.map_err(|_| Box::new(explain(EmitError::TooLong, policy)))?;
    if let Some(barrier) = &layout.barrier {
        let program = emit::barrier(barrier, maps_of, sources);
        programs.push(program.map_err(|error| Box::new(explain(error, policy)))?);
    }
    let name = sources.name(file).rsplit('/').next().unwrap_or("").to_owned();
    Ok(Object { programs, maps, kernel, meta, source: Source { name, text } })
}

fn explain(error: EmitError, policy: &Policy) -> Diagnostic {
    let (span, message, help) = match error {
        EmitError::TooComplex(span) => (
            span,
            "the expression needs too many registers",
            "move a part of it to a `state` variable",
        ),
        EmitError::TooLong => (
            policy
                .hooks
                .first()
                .map_or_else(|| durac_grammar::Span::new(FileId(0), 0, 0), |hook| hook.span),
            "the program is too long for the verifier",
            "make the policy shorter",
        ),
    };
    Diagnostic::new(Code::TooComplex, message, span, "cannot be compiled").help(help)
}

fn meta(runtime: Runtime, policy: &Policy, layout: &Layout, text: &str) -> Meta {
    let mut used = Used::of(policy);
    used.reads.extend(layout.reads);
    let counts = [Reading::PendingUpdates, Reading::CallUpdates, Reading::ReplyClean]
        .iter()
        .any(|r| used.reads.contains(r));
    let named = policy.states.iter();
    let named = named.map(|s| State { name: s.name.node.replace('.', "_"), init: s.init });
    let state = named.chain(layout.state.iter().cloned()).collect();
    let digest = Sha256::digest(text.as_bytes());
    Meta {
        abi: ABI,
        runtime,
        entries: layout.entries.clone(),
        policy: policy.name.clone(),
        target: policy.target.name.clone(),
        source_sha256: digest.iter().map(|b| format!("{b:02x}")).collect(),
        files: policy.target.files.clone(),
        except: policy.target.except.clone(),
        capabilities: used.actions.into_iter().collect(),
        reads: used.reads.into_iter().collect(),
        params: policy
            .params
            .iter()
            .map(|p| Param {
                name: p.name.node.clone(),
                // A declaration has no other unit.
                unit: p.unit.noted().unwrap_or(ParamUnit::Count),
                default: p.default,
                min: p.min,
                max: p.max,
            })
            .collect(),
        state,
        flush_within: policy.flush_within.as_ref().map(|f| f.node),
        on_error: policy.on_error,
        engine: policy.target.engine,
        callers: policy.target.callers,
        records: if counts { policy.target.records } else { Records::None },
        layout: policy.target.layout,
        protects: policy.target.protects.clone(),
        assume_sync: policy.assume_sync.as_ref().map(|a| a.node),
        holds_replies: false,
        defers_writes: policy.defers_writes(),
        frees_replicas: policy.target.frees_replicas()
            && policy.hooks.iter().any(|body| body.hook == durac_abi::Hook::Reply),
        loss: Vec::new(),
        certificate: None,
    }
}

/// The actions and readings that statements use.
#[derive(Default)]
struct Used {
    actions: BTreeSet<Action>,
    reads: BTreeSet<Reading>,
}

impl Used {
    fn of(policy: &Policy) -> Used {
        let mut used = Used::default();
        let mut note = |node: Node<'_>| match node {
            Node::Stmt(stmt) => match &stmt.node {
                StmtKind::Verdict(verdict) => _ = used.actions.insert(verdict.action()),
                StmtKind::Await(_) => _ = used.actions.insert(Action::Await),
                StmtKind::Commit => _ = used.actions.insert(Action::Commit),
                StmtKind::EveryTime(..) => _ = used.reads.insert(Reading::Now),
                StmtKind::Assign(..) | StmtKind::If(..) | StmtKind::EveryCalls(..) => {}
            },
            Node::Expr(expr) => {
                if let ExprKind::Read(reading) = expr.kind {
                    used.reads.insert(reading);
                }
            }
        };
        policy.hooks.iter().for_each(|hook| visit(&hook.body, &mut note));
        used
    }
}
