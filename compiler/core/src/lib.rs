//! The compiler proper: text in, a BPF object out.
//!
//! Stage: text → [`hir::Policy`] ([`analyse`]) → [`mir::Program`] → [`Object`] ([`compile`]).
//!
//! Every stage is a function on plain data: [`check()`], [`lower()`], [`optimise()`], [`assemble()`];
//! [`analyse`] and [`compile`] compose them. What differs between runtimes is behind
//! [`durac_abi::Backend`] and [`backend::CompilerBackend`].
//!
//! Architecture invariant: no I/O, no clock, no environment; the same text gives the same object. It
//! must not know how an object is verified, proved, loaded or run.

pub mod assemble;
mod awaits;
pub mod backend;
mod body;
pub mod bounds;
mod bpftime;
pub mod check;
pub mod emit;
pub mod expr;
mod habits;
pub mod hir;
pub mod lower;
pub mod mir;
pub mod names;
pub mod optimise;
pub mod print;
pub mod set;
mod supervisor;
pub mod target;
pub mod unit;

pub use assemble::assemble;
pub use bounds::{Counted, Loss};
pub use check::{Checked, check};
pub use lower::lower;
pub use optimise::optimise;

use durac_abi::{Object, Runtime};
use durac_grammar::{Code, Diagnostic, FileId, MOST_DIAGNOSTICS, Severity, Sources, ast};

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
    /// What was found, sorted by place.
    pub diagnostics: Vec<Diagnostic>,
}

impl Analysis {
    /// Whether something found stops compilation.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity() == Severity::Error)
    }
}

/// How a text is compiled; by default for the agent, at the target that the text names.
#[derive(Clone, Copy, Debug, Default)]
pub struct CompileOptions<'a> {
    /// The name of a policy that gives none: the stem of its file.
    pub stem: &'a str,
    /// The target to check against instead of the one that the text names.
    pub target: Option<&'a str>,
    /// What is to run it.
    pub runtime: Runtime,
}

impl<'a> CompileOptions<'a> {
    /// The defaults, for a policy of this name.
    #[must_use]
    pub fn new(stem: &'a str) -> Self {
        Self { stem, ..Self::default() }
    }

    /// The same for another runtime.
    #[must_use]
    pub fn with_runtime(self, runtime: Runtime) -> Self {
        Self { runtime, ..self }
    }
}

/// Parses and checks a text. Whether its guarantees hold is for the model checker to say.
#[must_use]
pub fn analyse(sources: &mut Sources, file: FileId, options: &CompileOptions<'_>) -> Analysis {
    let parsed = durac_grammar::parse(sources, file);
    let mut diagnostics = parsed.diagnostics;
    // A file whose parse stopped early would only give findings about what is missing.
    let readable = !diagnostics.iter().any(|d| {
        matches!(d.code, Code::TooLarge | Code::TooDeep | Code::NotUtf8 | Code::Unreadable)
    });
    let checked = if readable {
        check(sources, file, &parsed.file, options)
    } else {
        Checked { policy: None, only_targets: false, diagnostics: Vec::new() }
    };
    let had_errors = diagnostics.iter().any(|d| d.severity() == Severity::Error);
    // What recovery left out of the tree may be what reads a name: no warning then.
    let trusted = |d: &Diagnostic| !had_errors || d.severity() == Severity::Error;
    let found: Vec<_> = checked.diagnostics.into_iter().filter(trusted).collect();
    let found = without_followers(found, &diagnostics, sources);
    diagnostics.extend(found);
    let mut policy = checked.policy.filter(|_| !had_errors);
    if let Some(policy) = &mut policy {
        policy.target.callers = backend::of(options.runtime).callers(policy.target.callers);
        policy.loss = bounds::loss(policy);
        policy.loss.lint(policy, &mut diagnostics);
        backend::of(options.runtime).reword(&mut diagnostics);
    }
    let loss = policy.as_ref().map(|policy| policy.loss.clone());
    diagnostics.sort_by_key(|d| (d.primary.span.file, d.primary.span.start, d.code));
    diagnostics.dedup();
    let diagnostics = fewer(diagnostics);
    Analysis { tree: parsed.file, policy, only_targets: checked.only_targets, loss, diagnostics }
}

/// As many as are kept; the last says that there are more. Errors go before warnings: a text with one is wrong.
fn fewer(mut found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    if found.len() > MOST_DIAGNOSTICS {
        found.sort_by_key(|d| d.severity() != Severity::Error);
        found.truncate(MOST_DIAGNOSTICS);
        found.sort_by_key(|d| (d.primary.span.file, d.primary.span.start, d.code));
        let last = found.pop().map(|last| last.note("more are not shown".to_owned()));
        found.extend(last);
    }
    found
}

/// Without what follows from another finding: a name that is unknown because its declaration is broken, the second
/// place of an unknown name, what is missing where the grammar could not read it, and a warning about a body that is
/// wrong.
fn without_followers(
    found: Vec<Diagnostic>,
    grammar: &[Diagnostic],
    sources: &Sources,
) -> Vec<Diagnostic> {
    let line_of = |d: &Diagnostic| sources.position(d.primary.span).line;
    let lines: std::collections::BTreeSet<u32> = grammar.iter().map(line_of).collect();
    let broken: Vec<&str> = match grammar.first() {
        Some(first) => {
            let text = sources.text(first.primary.span.file).lines();
            (1..).zip(text).filter(|(n, _)| lines.contains(n)).map(|(_, line)| line).collect()
        }
        None => Vec::new(),
    };
    let wrong = found.iter().any(|d| d.severity() == Severity::Error);
    let mut seen = std::collections::BTreeSet::new();
    let mut new = |d: &Diagnostic| match d.code {
        Code::UnknownName => {
            let name = sources.slice(d.primary.span);
            let word = |line: &&str| {
                line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .any(|word| word == name)
            };
            seen.insert(name.to_owned()) && !broken.iter().any(word)
        }
        Code::EmptyFile => grammar.is_empty(),
        Code::NoRange => !lines.contains(&line_of(d)),
        Code::WaitBeforeCall => !wrong,
        _ => true,
    };
    found.into_iter().filter(|d| new(d)).collect()
}

/// Compiles a checked policy. The object's note says nothing yet of what can be lost.
///
/// # Errors
/// What the runtime cannot do, or what does not fit the machine.
pub fn compile(
    policy: &hir::Policy,
    sources: &Sources,
    file: FileId,
    options: &CompileOptions<'_>,
) -> Result<Object, Vec<Diagnostic>> {
    let refused = backend::of(options.runtime).refuses(policy);
    if !refused.is_empty() {
        return Err(refused);
    }
    let mut program = lower(policy);
    optimise(&mut program);
    assemble(options.runtime, policy, &program, sources, file)
        .map_err(|diagnostic| vec![*diagnostic])
}
