//! How long it takes to write, read and verify an object.

#![allow(missing_docs, reason = "criterion's macros make functions without")]

#[path = "../tests/common/mod.rs"]
mod common;

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

fn objects(c: &mut Criterion) {
    for object in common::all() {
        let name = &object.meta.policy;
        let Ok(bytes) = durac_bpf::write(&object) else {
            continue;
        };
        c.bench_function(&format!("write/{name}"), |b| {
            b.iter(|| durac_bpf::write(black_box(&object)));
        });
        c.bench_function(&format!("read/{name}"), |b| {
            b.iter(|| durac_abi::elf::read(black_box(&bytes)));
        });
        c.bench_function(&format!("verify/{name}"), |b| {
            b.iter(|| durac_verify::verify(black_box(&object)));
        });
    }
}

criterion_group!(benches, objects);
criterion_main!(benches);
