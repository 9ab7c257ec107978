//! The compiler proper: a syntax tree in, a BPF object out.
//!
//! Every stage is a function on plain data: [`check()`], [`lower()`], [`optimise()`], [`assemble()`];
//! [`compile`] composes them. Architecture invariant: no I/O, no clock, no environment; the same
//! text gives the same object.

pub mod assemble;
mod body;
pub mod bounds;
pub mod bpftime;
pub mod check;
pub mod emit;
mod expr;
pub mod hir;
pub mod lower;
pub mod mir;
pub mod names;
pub mod optimise;
pub mod print;
pub mod set;
pub mod target;
pub mod unit;

pub use assemble::assemble;
pub use bounds::Loss;
pub use check::{Checked, check};
pub use lower::lower;
pub use optimise::optimise;

use durac_bpf::Object;
use durac_bpf::abi::Runtime;
use durac_grammar::{Code, Diagnostic, FileId, Severity, Sources, ast};

/// What checking a text gives: as much as could be made of it.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// The syntax tree.
    pub tree: ast::File,
    /// The policy, if it is right.
    pub policy: Option<hir::Policy>,
    /// Whether the file only defines targets.
    pub only_targets: bool,
    /// What the policy can lose, if it is right.
    pub loss: Option<Loss>,
    /// Everything found, sorted by place.
    pub diagnostics: Vec<Diagnostic>,
}

impl Analysis {
    /// Whether something found stops compilation.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity() == Severity::Error)
    }
}

/// What a policy is called and where it runs, when its text does not say or somebody knows better.
#[derive(Clone, Copy, Debug)]
pub struct Naming<'a> {
    /// The name of a policy that gives none.
    pub stem: &'a str,
    /// The target to check against instead of the text's own.
    pub target: Option<&'a str>,
    /// What is to run it.
    pub runtime: Runtime,
}

/// Parses and checks a text. A policy without a name is called `stem`. Whether its guarantees hold
/// is for the model checker to say.
#[must_use]
pub fn analyse(sources: &mut Sources, file: FileId, stem: &str) -> Analysis {
    analyse_as(sources, file, &Naming { stem, target: None, runtime: Runtime::Agent })
}

/// Parses and checks a text.
#[must_use]
pub fn analyse_as(sources: &mut Sources, file: FileId, naming: &Naming<'_>) -> Analysis {
    let parsed = durac_grammar::parse(sources, file);
    let mut diagnostics = parsed.diagnostics;
    // A file whose parse stopped early would only give findings about what is missing.
    let readable = !diagnostics.iter().any(|d| {
        matches!(d.code, Code::TooLarge | Code::TooDeep | Code::NotUtf8 | Code::Unreadable)
    });
    let checked = if readable {
        check(sources, file, &parsed.file, naming)
    } else {
        Checked { policy: None, only_targets: false, diagnostics: Vec::new() }
    };
    let had_errors = diagnostics.iter().any(|d| d.severity() == Severity::Error);
    // What recovery left out of the tree may be what reads a name: no warning then.
    let trusted = |d: &Diagnostic| !had_errors || d.severity() == Severity::Error;
    diagnostics.extend(checked.diagnostics.into_iter().filter(trusted));
    let policy = checked.policy.filter(|_| !had_errors);
    let loss = policy.as_ref().map(|policy| {
        let loss = bounds::loss(policy);
        loss.lint(policy, &mut diagnostics);
        if naming.runtime == Runtime::Bpftime {
            bpftime::reword(&mut diagnostics);
        }
        loss
    });
    diagnostics.sort_by_key(|d| (d.primary.span.file, d.primary.span.start, d.code));
    diagnostics.dedup();
    Analysis { tree: parsed.file, policy, only_targets: checked.only_targets, loss, diagnostics }
}

/// Compiles a checked policy for the agent. The object's note says nothing yet of what can be lost.
///
/// # Errors
/// What this runtime cannot do, or what does not fit the machine.
pub fn compile(
    policy: &hir::Policy,
    sources: &Sources,
    file: FileId,
) -> Result<Object, Vec<Diagnostic>> {
    compile_for(Runtime::Agent, policy, sources, file)
}

/// Compiles a checked policy for a runtime.
///
/// # Errors
/// What that runtime cannot do, or what does not fit the machine.
pub fn compile_for(
    runtime: Runtime,
    policy: &hir::Policy,
    sources: &Sources,
    file: FileId,
) -> Result<Object, Vec<Diagnostic>> {
    let refused = match runtime {
        Runtime::Agent => lower::unsupported(policy, Code::NotInRuntime).into_iter().collect(),
        Runtime::Bpftime => bpftime::unsafe_there(policy),
    };
    if !refused.is_empty() {
        return Err(refused);
    }
    let mut program = lower(policy);
    optimise(&mut program);
    assemble(runtime, policy, &program, sources, file).map_err(|diagnostic| vec![*diagnostic])
}
