//! The tests that stand beside a policy: `test "name" { … }`.
//!
//! Stage: tree and [`Policy`] → [`check()`] → [`Test`]s → [`run`] on the object's bytecode → [`Report`].
//!
//! The programs run in rbpf, the rules are those of the agent (`durac_engine`), the clock and the disk are the
//! test's. One thread of the application makes the calls. A sync in the background goes on until the test
//! ends it; a sync that a call makes itself ends at once.
//!
//! Architecture invariant: no clock, no randomness: the same text gives the same report.

mod check;
mod connection;
mod cover;
mod expect;
mod ledger;
mod program;
mod run;
mod says;
mod story;

pub use check::{Step, Test, check};
pub use cover::{Branch, Coverage};

use crate::Options;
use durac_abi::Object;
use durac_core::hir::Policy;
use durac_grammar::{Diagnostic, FileId, Severity, Sources, Span};
use durac_prove::machine::{Backend, Machine, MachineError};

/// What became of the tests of a file.
#[derive(Clone, Debug)]
pub struct Report {
    /// One for each test that ran, in the order of the text.
    pub results: Vec<Outcome>,
    /// What they have made the programs do.
    pub coverage: Coverage,
}

impl Report {
    /// How many failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.results.iter().filter(|r| r.failure.is_some()).count()
    }
}

/// What became of one test.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Where its name is.
    pub span: Span,
    /// What was not as expected; none if the test passes.
    pub failure: Option<Diagnostic>,
    /// What happened, drawn.
    pub timeline: String,
}

/// A text with its tests.
#[derive(Clone, Debug)]
pub struct Tested {
    /// What was found in the text, its tests included.
    pub diagnostics: Vec<Diagnostic>,
    /// The policy; none if the text is wrong, or defines only targets.
    pub policy: Option<Policy>,
    /// What became of the tests; none if the text is wrong, or has none to run.
    pub report: Option<Report>,
    /// How many tests there are.
    pub tests: usize,
}

/// Compiles a text for the agent and runs those of its tests that `wanted` picks by name. Nothing is proved.
///
/// # Errors
/// Those of the machine: a bug in durac.
pub fn test(
    sources: &mut Sources,
    file: FileId,
    options: &Options<'_>,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Tested, MachineError> {
    let mut analysis = durac_core::analyse(sources, file, &options.analysis());
    let mut tested = Tested { diagnostics: Vec::new(), policy: None, report: None, tests: 0 };
    let broken = analysis.has_errors();
    let Some(mut policy) = analysis.policy.take().filter(|_| !broken) else {
        tested.diagnostics = analysis.diagnostics;
        return Ok(tested);
    };
    analysis.diagnostics.extend(crate::set(&mut policy, options.settings, sources));
    let (tests, found) = check(&analysis.tree, &policy, sources);
    tested.tests = tests.len();
    analysis.diagnostics.extend(found);
    tested.diagnostics = analysis.diagnostics;
    let wrong = tested.diagnostics.iter().any(|d| d.severity() == Severity::Error);
    let tests: Vec<Test> = tests.into_iter().filter(|t| wanted(&t.name.node)).collect();
    if !wrong && !tests.is_empty() {
        match crate::build(&policy, sources, file, options) {
            Ok(object) => tested.report = Some(run(&object, &policy, &tests, sources)?),
            Err(found) => tested.diagnostics.extend(found),
        }
    }
    tested.policy = Some(policy);
    Ok(tested)
}

/// Runs tests on an object.
///
/// # Errors
/// Those of the machine: a bug in durac.
pub fn run(
    object: &Object,
    policy: &Policy,
    tests: &[Test],
    sources: &Sources,
) -> Result<Report, MachineError> {
    let (probed, mut coverage) = cover::probe(object);
    let mut results = Vec::new();
    for test in tests {
        let machine = Machine::new(&probed, Backend::Interpreter)?;
        let mut runner = run::Runner::new(machine, object, policy, sources);
        let failure = runner.test(test)?;
        coverage.add(runner.reached());
        results.push(Outcome {
            name: test.name.node.clone(),
            span: test.name.span,
            failure,
            timeline: runner.timeline(),
        });
    }
    Ok(Report { results, coverage })
}
