//! From text to a proved object: the one door of the compiler.
//!
//! Stage: text → [`compile`] → object with its note, proof, diagnostics; two proofs → [`compare`].
//!
//! Architecture invariant: no input or output. It decides nothing itself: it runs the stages in
//! their order (analyse, compile, verify, prove) and says in words what they found. [`mod@test`] runs the tests
//! that stand beside a policy.

mod broken;
pub mod certificate;
pub mod compare;
mod recall;
pub mod report;
pub mod settings;
pub mod test;

pub use recall::recall;
pub use settings::set;

use durac_abi::{Object, Runtime, object};
use durac_core::hir::{Failure, Policy};
use durac_core::{Analysis, CompileOptions};
use durac_grammar::{Diagnostic, FileId, Severity, Sources};
use durac_prove::proof::{self, Proof};
pub use durac_prove::watch::Watch;

/// How a text is compiled.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// The name of a policy that gives none: the stem of its file.
    pub stem: &'a str,
    /// The target to check against instead of the one that the text names.
    pub target: Option<&'a str>,
    /// What is to run it.
    pub runtime: Runtime,
    /// Values of parameters, as `name=value`.
    pub settings: &'a [String],
    /// Who may end the proof, and is told how far it has got.
    pub watch: Option<&'a dyn Watch>,
    /// It is to be run now: an action that no runtime has yet is an error, and not only told.
    pub must_run: bool,
}

impl<'a> Options<'a> {
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

    /// What the analysis needs of them.
    #[must_use]
    pub fn analysis(&self) -> CompileOptions<'a> {
        CompileOptions { stem: self.stem, target: self.target, runtime: self.runtime }
    }
}

/// What became of a text.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The tree, the policy with its settings, and the diagnostics of all stages.
    pub analysis: Analysis,
    /// The object and the proof; none if the diagnostics have errors, or no runtime can run it.
    pub proved: Option<Proved>,
}

/// An object and its proof.
#[derive(Clone, Debug)]
pub struct Proved {
    /// The object; its note holds the bounds.
    pub object: Object,
    /// What was proved.
    pub proof: Proof,
}

impl Proved {
    /// What can be lost on a power loss.
    #[must_use]
    pub fn power_loss(&self) -> Option<&object::Loss> {
        self.object.meta.loss.iter().find(|l| l.failure == Failure::PowerLoss)
    }
}

/// Checks, compiles, verifies and proves a text.
#[must_use]
pub fn compile(sources: &mut Sources, file: FileId, options: &Options<'_>) -> Compiled {
    let mut analysis = durac_core::analyse(sources, file, &options.analysis());
    let mut proved = None;
    if !analysis.has_errors()
        && let Some(policy) = &mut analysis.policy
    {
        let mut found = set(policy, options.settings, sources);
        if found.is_empty() {
            (proved, found) = prove(policy, sources, file, options);
        }
        analysis.diagnostics.extend(found);
    }
    Compiled { analysis, proved }
}

/// Compiles and verifies a checked policy. The object's note says nothing of what can be lost.
pub(crate) fn build(
    policy: &Policy,
    sources: &Sources,
    file: FileId,
    options: &Options<'_>,
) -> Result<Object, Vec<Diagnostic>> {
    let object = durac_core::compile(policy, sources, file, &options.analysis())?;
    match durac_verify::verify(&object) {
        Ok(_) => Ok(object),
        Err(rejections) => {
            Err(rejections.iter().map(|r| broken::rejection(r, policy, file)).collect())
        }
    }
}

fn prove(
    policy: &Policy,
    sources: &Sources,
    file: FileId,
    options: &Options<'_>,
) -> (Option<Proved>, Vec<Diagnostic>) {
    let later = durac_core::backend::of(options.runtime).not_yet(policy);
    if let Some(later) = later.filter(|_| !options.must_run) {
        return (None, vec![later]);
    }
    let mut object = match build(policy, sources, file, options) {
        Ok(object) => object,
        Err(found) => return (None, found),
    };
    let proof_options = proof::Options { watch: options.watch, ..Default::default() };
    let proof = match proof::prove(policy, &object, &proof_options) {
        Ok(proof) => proof,
        Err(error) => return (None, vec![broken::not_run(&error, policy, file)]),
    };
    let found = broken::guarantees(policy, &proof);
    if found.iter().any(|d| d.severity() == Severity::Error) {
        return (None, found);
    }
    object.meta.loss = report::note(policy, &proof);
    object.meta.holds_replies = proof.holds_replies;
    object.meta.certificate = certificate::of(policy, &object, &proof);
    if let Err(error) = durac_bpf::write(&object) {
        return (None, vec![broken::not_written(&error, sources, file)]);
    }
    (Some(Proved { object, proof }), found)
}
