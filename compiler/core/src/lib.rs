//! The compiler proper: a syntax tree in, a BPF object out.
//!
//! Every stage is a function on plain data: [`check()`], [`lower()`], [`optimise()`], [`assemble()`];
//! [`compile`] composes them. Architecture invariant: no I/O, no clock, no environment; the same
//! text gives the same object.

pub mod assemble;
mod body;
pub mod bounds;
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

/// Parses and checks a text. A policy without a name is called `stem`. Whether its guarantees hold
/// is for the model checker to say.
#[must_use]
pub fn analyse(sources: &mut Sources, file: FileId, stem: &str) -> Analysis {
    let parsed = durac_grammar::parse(sources, file);
    let mut diagnostics = parsed.diagnostics;
    // A file whose parse stopped early would only give findings about what is missing.
    let readable = !diagnostics.iter().any(|d| {
        matches!(d.code, Code::TooLarge | Code::TooDeep | Code::NotUtf8 | Code::Unreadable)
    });
    let checked = if readable {
        check(sources, file, &parsed.file, stem)
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
        loss
    });
    diagnostics.sort_by_key(|d| (d.primary.span.file, d.primary.span.start, d.code));
    diagnostics.dedup();
    Analysis { tree: parsed.file, policy, only_targets: checked.only_targets, loss, diagnostics }
}

/// Compiles a checked policy. The object's note says nothing yet of what can be lost.
///
/// # Errors
/// What this runtime cannot do, or what does not fit the machine.
pub fn compile(
    policy: &hir::Policy,
    sources: &Sources,
    file: FileId,
) -> Result<Object, Vec<Diagnostic>> {
    if let Some(unsupported) = lower::unsupported(policy, Code::NotInRuntime) {
        return Err(vec![unsupported]);
    }
    let mut program = lower(policy);
    optimise(&mut program);
    assemble(policy, &program, sources, file).map_err(|diagnostic| vec![*diagnostic])
}
