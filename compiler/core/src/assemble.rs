//! The object of a policy: its programs, its maps, and what its note says.

use crate::bpftime;
use crate::emit::{self, EmitError, For, Maps, emit};
use crate::hir::{Expr, ExprKind, Policy, Stmt, StmtKind, Verdict};
use crate::mir;
use crate::target::Action;
use durac_bpf::Object;
use durac_bpf::abi::{ABI, MAX_LOGS, PARAMS_MAP, Reading, Runtime, STATE_MAP};
use durac_bpf::notify;
use durac_bpf::object::{Map, Meta, Param, Program, Source, State};
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
    let mut maps = Vec::new();
    let params = maps.len() as u32;
    if !policy.params.is_empty() {
        let fields = policy.params.iter().map(|p| p.name.node.clone()).collect();
        maps.push(Map { name: PARAMS_MAP.to_owned(), max_entries: 1, fields });
    }
    let state = maps.len() as u32;
    let text = sources.text(file).to_owned();
    let meta = meta(runtime, policy, &text);
    if !meta.state.is_empty() {
        let fields = meta.state.iter().map(|s| s.name.replace('.', "_")).collect();
        let max_entries = if runtime == Runtime::Agent { MAX_LOGS } else { 1 };
        maps.push(Map { name: STATE_MAP.to_owned(), max_entries, fields });
    }
    let maps_of = Maps { params, state, syncs: maps.len() as u32 };
    let mut programs: Vec<Program> = program
        .functions
        .iter()
        .map(|function| {
            let target = match runtime {
                Runtime::Agent => For::Agent,
                Runtime::Bpftime => For::Bpftime(bpftime::frame(function, policy)),
            };
            emit(function, maps_of, target, sources)
        })
        .collect::<Result<_, _>>()
        .map_err(|error| Box::new(explain(error, policy)))?;
    // A sync that somebody else makes says nothing of bytes that are not in the file yet.
    let watches = !policy.uses.is_empty() && !meta.stages();
    let kernel = if watches { notify::programs_of(runtime) } else { Ok(Vec::new()) };
    let kernel = kernel.map_err(|_| Box::new(explain(EmitError::TooLong, policy)))?;
    if let Some(barrier) = bpftime::barrier(policy).filter(|_| runtime == Runtime::Bpftime) {
        let program = emit::barrier(&barrier.entry, barrier.ring, maps_of, barrier.span, sources);
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
            "keep a part of it in a `state` variable",
        ),
        EmitError::TooLong => (
            policy
                .hooks
                .first()
                .map_or_else(|| durac_grammar::Span::new(FileId(0), 0, 0), |hook| hook.span),
            "the program is too long to be verified",
            "make the policy shorter",
        ),
    };
    Diagnostic::new(Code::TooComplex, message, span, "cannot be compiled").help(help)
}

fn meta(runtime: Runtime, policy: &Policy, text: &str) -> Meta {
    let mut used = Used::default();
    for hook in &policy.hooks {
        used.stmts(&hook.body);
    }
    let mut state: Vec<State> = policy
        .states
        .iter()
        .map(|s| State { name: s.name.node.replace('.', "_"), init: s.init })
        .collect();
    // The agent finds libc's functions by itself.
    let mut entries = bpftime::entries(policy);
    match runtime {
        Runtime::Agent if !state.is_empty() => {
            used.reads.insert(Reading::Log);
        }
        Runtime::Agent => {}
        Runtime::Bpftime => {
            state.extend(bpftime::own_state(policy));
            if let Some(barrier) = bpftime::barrier(policy) {
                let waiting = entries.iter_mut().find(|entry| entry.hook == barrier.hook);
                waiting.into_iter().for_each(|entry| entry.fd = barrier.entry.fd);
                entries.push(barrier.entry);
            }
        }
    }
    let digest = Sha256::digest(text.as_bytes());
    Meta {
        abi: ABI,
        runtime,
        entries,
        policy: policy.name.clone(),
        target: policy.target.name.clone(),
        source_sha256: digest.iter().map(|b| format!("{b:02x}")).collect(),
        files: policy.target.files.clone(),
        except: policy.target.except.clone(),
        capabilities: used.actions.iter().map(|a| a.text().to_owned()).collect(),
        reads: used.reads.into_iter().collect(),
        params: policy
            .params
            .iter()
            .map(|p| Param {
                name: p.name.node.clone(),
                unit: p.unit.text().to_owned(),
                default: p.default,
                min: p.min,
                max: p.max,
            })
            .collect(),
        state,
        flush_within: policy.flush_within.as_ref().map(|f| f.node),
        on_error: policy.on_error,
        engine: policy.target.engine,
        loss: Vec::new(),
    }
}

/// The actions and readings that statements use.
#[derive(Default)]
struct Used {
    actions: BTreeSet<Action>,
    reads: BTreeSet<Reading>,
}

impl Used {
    fn stmts(&mut self, stmts: &[Stmt]) {
        for stmt in stmts {
            match &stmt.node {
                StmtKind::Verdict(verdict) => {
                    self.actions.insert(match verdict {
                        Verdict::Pass => Action::Pass,
                        Verdict::Defer => Action::Defer,
                        Verdict::Skip => Action::Skip,
                        Verdict::Stage => Action::Stage,
                        Verdict::Hold => Action::Hold,
                        Verdict::Fail(..) => Action::Fail,
                    });
                }
                StmtKind::Await(distance) => {
                    self.actions.insert(Action::Await);
                    self.expr(distance);
                }
                StmtKind::Commit => {
                    self.actions.insert(Action::Commit);
                }
                StmtKind::Assign(_, value) => self.expr(value),
                StmtKind::If(cond, then, otherwise) => {
                    self.expr(cond);
                    self.stmts(then);
                    self.stmts(otherwise);
                }
                StmtKind::EveryTime(_, _, body) => {
                    self.reads.insert(Reading::Now);
                    self.stmts(body);
                }
                StmtKind::EveryCalls(_, _, body) => self.stmts(body),
            }
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Read(reading) => {
                self.reads.insert(*reading);
            }
            ExprKind::Not(a) => self.expr(a),
            ExprKind::And(a, b)
            | ExprKind::Or(a, b)
            | ExprKind::Compare(_, a, b)
            | ExprKind::Arith(_, a, b) => {
                self.expr(a);
                self.expr(b);
            }
            ExprKind::Const(_) | ExprKind::Param(_) | ExprKind::State(_) => {}
        }
    }
}
