//! Time from a text to a verified object: `cargo bench -p durac-core --bench compile`.

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a bench reads its cases and prints"
)]

use criterion::{Criterion, criterion_group, criterion_main};
use durac_core::CompileOptions;
use durac_grammar::Sources;
use std::hint::black_box;

fn compile(name: &str, text: &str) -> Option<Vec<u8>> {
    let mut sources = Sources::new();
    let file = sources.add(name, text);
    let analysis = durac_core::analyse(&mut sources, file, &CompileOptions::new(name));
    let object =
        durac_core::compile(&analysis.policy?, &sources, file, &CompileOptions::default()).ok()?;
    durac_verify::verify(&object).ok()?;
    durac_bpf::write(&object).ok()
}

fn stdlib(criterion: &mut Criterion) {
    for policy in durac_stdlib::POLICIES {
        if compile(policy.name, policy.text).is_some() {
            criterion.bench_function(policy.name, |b| {
                b.iter(|| compile(policy.name, black_box(policy.text)));
            });
        }
    }
}

criterion_group!(benches, stdlib);
criterion_main!(benches);
