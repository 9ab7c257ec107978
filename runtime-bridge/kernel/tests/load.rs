//! The real programs in the real kernel.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

use durac_bpf::Object;
use durac_bpf::notify::Attach;
use durac_grammar::Sources;
use durac_kernel::{Failure, Notify, load, load_at};

/// A policy that says `use kernel notify`, through the compiler and the file format.
fn object() -> Object {
    let text = "use kernel notify\non fdatasync: unless notify.done { await previous }; defer\n";
    let mut sources = Sources::default();
    let file = sources.add("t.dur", text);
    let analysis = durac_compiler::analyse(&mut sources, file, "t");
    let policy = analysis.policy.unwrap_or_else(|| panic!("{:?}", analysis.diagnostics));
    let object = durac_compiler::compile(&policy, &sources, file).unwrap();
    durac_bpf::elf::read(&durac_bpf::elf::write(&object).unwrap()).unwrap()
}

#[track_caller]
fn loaded(attach: Attach) -> Notify {
    load_at(&object(), attach).unwrap_or_else(|why| {
        panic!("{}: {why} (this test needs root and a kernel with BTF)", attach.text())
    })
}

#[test]
fn the_kernels_verifier_takes_the_programs_for_ext4() {
    assert_eq!(loaded(Attach::Ext4).links().count(), 2);
}

#[test]
fn the_kernels_verifier_takes_the_programs_for_system_calls() {
    assert_eq!(loaded(Attach::Syscalls).links().count(), 2);
}

/// On a kernel that allows it, it runs; else the kernel says EPERM and the loader goes on.
#[test]
fn the_function_is_tried_first() {
    match load_at(&object(), Attach::Function) {
        Ok(notify) => assert_eq!(notify.attach, Attach::Function),
        Err(Failure::Load { why, .. } | Failure::Attach { why, .. }) => {
            assert_eq!(why.raw_os_error(), Some(libc::EPERM), "{why}");
            let notify = load(&object()).unwrap_or_else(|why| panic!("{why:?}"));
            assert_eq!(notify.attach, Attach::Ext4);
            assert_eq!(notify.refused.len(), 1);
        }
        Err(other) => panic!("{other}"),
    }
}
