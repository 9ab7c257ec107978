//! What the tests of the model checker share.

#![allow(dead_code, reason = "each test uses a part of it")]

pub mod generator;

use durac_bpf::Object;
use durac_compiler::hir::Policy;
use durac_compiler::{Loss, bounds};
use durac_grammar::{Diagnostic, Sources};
use durac_sim::model::proof::{Proof, prove};

/// A text, compiled but not yet proved.
pub struct Compiled {
    pub policy: Policy,
    pub object: Object,
    pub derived: Loss,
}

/// Compiles and verifies a text; `None` if it is wrong or does not fit the machine.
pub fn compile(text: &str) -> Option<Compiled> {
    let mut sources = Sources::new();
    let file = sources.add("test.dur", text);
    let analysis = durac_compiler::analyse(&mut sources, file, "test");
    if analysis.has_errors() {
        return None;
    }
    let policy = analysis.policy?;
    let object = durac_compiler::compile(&policy, &sources, file).ok()?;
    durac_verify::verify(&object).unwrap_or_else(|why| panic!("{text}\n{why:#?}"));
    let derived = bounds::loss(&policy);
    Some(Compiled { policy, object, derived })
}

/// What the model checker proves of a text that is right.
pub fn proof(text: &str) -> Proof {
    let compiled = compile(text).unwrap_or_else(|| panic!("does not compile: {text}"));
    proof_of(&compiled)
}

/// What the model checker proves.
pub fn proof_of(compiled: &Compiled) -> Proof {
    prove(&compiled.policy, &compiled.object, &compiled.derived).unwrap()
}

/// Everything that is found in a text.
pub fn found(text: &str) -> Vec<Diagnostic> {
    let mut sources = Sources::new();
    let file = sources.add("test.dur", text);
    durac_sim::check::check(&mut sources, file, "test").analysis.diagnostics
}

/// A small generator of pseudo-random numbers (xorshift64*), so that failures can be repeated.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    pub fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}
