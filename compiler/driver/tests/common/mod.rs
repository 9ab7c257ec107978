//! What the tests of the model checker share.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod generator;

use durac_abi::Object;
use durac_core::CompileOptions;
use durac_core::hir::Policy;
use durac_driver::Options;
use durac_grammar::{Diagnostic, Sources};
use durac_prove::explore::Most;
use durac_prove::proof::{Age, Proof, prove};

/// A text, compiled but not yet proved.
pub struct Compiled {
    pub policy: Policy,
    pub object: Object,
}

/// Compiles and verifies a text; `None` if it is wrong or does not fit the machine.
pub fn compile(text: &str) -> Option<Compiled> {
    let mut sources = Sources::new();
    let file = sources.add("test.dur", text);
    let analysis = durac_core::analyse(&mut sources, file, &CompileOptions::new("test"));
    if analysis.has_errors() {
        return None;
    }
    let policy = analysis.policy?;
    let object = durac_core::compile(&policy, &sources, file, &CompileOptions::default()).ok()?;
    durac_verify::verify(&object).unwrap_or_else(|why| panic!("{text}\n{why:#?}"));
    Some(Compiled { policy, object })
}

/// What the model checker proves of a text that is right.
pub fn proof(text: &str) -> Proof {
    let compiled = compile(text).unwrap_or_else(|| panic!("does not compile: {text}"));
    proof_of(&compiled)
}

/// What the model checker proves.
pub fn proof_of(compiled: &Compiled) -> Proof {
    prove(&compiled.policy, &compiled.object, &durac_prove::proof::Options::default()).unwrap()
}

/// Everything that is found in a text.
pub fn found(text: &str) -> Vec<Diagnostic> {
    let mut sources = Sources::new();
    let file = sources.add("test.dur", text);
    durac_driver::compile(&mut sources, file, &Options::new("test")).analysis.diagnostics
}

pub use durac_support::Random;

/// The loss has no end.
pub const ANY: Most = Most::Unbounded;

/// At most so many.
pub const fn n(count: u64) -> Most {
    Most::Count(count)
}

/// Nanoseconds.
pub const MS: u64 = 1_000_000;

/// A sync of everything starts within 10 ms; how long syncs take is not said.
#[expect(non_upper_case_globals, reason = "it stands for a variant of `Age` in the tables")]
pub const UntilSynced: Age = Age::PlusSyncs(10 * MS);

/// By a deadline; how long syncs take is not said.
#[expect(non_snake_case, reason = "it stands for a variant of `Age` in the tables")]
pub const fn Within(time: u64) -> Age {
    Age::PlusSyncs(time)
}
