//! Policies that start syncs under BPFtime: what they lose, by their own bytecode, and that a change of it
//! that believes too much is found.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use durac_abi::Object;
use durac_abi::insn::{Insn, op};
use durac_abi::{Hook, Runtime};
use durac_core::hir::Policy;
use durac_driver::Options;
use durac_grammar::{Code, Diagnostic, Sources};
use durac_prove::explore::Most;
use durac_prove::proof::{Proof, prove};

const HEAD: &str = "target redis.patched\nuse kernel notify\n";

fn check(text: &str) -> (Option<(Object, Proof)>, Policy, Vec<Diagnostic>) {
    let mut sources = Sources::new();
    let file = sources.add("test.dur", format!("{HEAD}{text}"));
    let naming = Options::new("test").with_runtime(Runtime::Bpftime);
    let checked = durac_driver::compile(&mut sources, file, &naming);
    let policy = checked.analysis.policy.expect(text);
    (checked.proved.map(|p| (p.object, p.proof)), policy, checked.analysis.diagnostics)
}

fn proof(text: &str) -> Proof {
    let (proved, _, found) = check(text);
    proved.unwrap_or_else(|| panic!("{text}\n{found:#?}")).1
}

#[test]
fn bounds_are_those_of_the_agent() {
    let cases = [
        ("on fdatasync: await previous; defer\n", Most::Count(1)),
        ("on fdatasync: unless notify.done { await previous }; defer\n", Most::Count(1)),
        ("on fdatasync: await all; defer\n", Most::Count(0)),
        ("on fdatasync: await pending < 3; defer\n", Most::Count(3)),
        ("on fdatasync { if pending >= 2 { await all }; defer }\n", Most::Count(2)),
        ("on fdatasync { every 3 calls { await all }; skip }\n", Most::Count(2)),
        ("on fdatasync { every 3 calls { pass }; defer }\n", Most::Count(2)),
        ("param n: syncs = 2 in 1..=3\non fdatasync: await pending < n; defer\n", Most::Count(3)),
    ];
    for (text, most) in cases {
        let proof = proof(text);
        assert_eq!((proof.syncs, proof.obstacle.clone()), (most, None), "{text}");
    }
}

#[test]
fn a_guarantee_below_is_refused() {
    let (proved, _, found) =
        check("guarantee loss = 0 on power_loss\non fdatasync: await previous; defer\n");
    assert!(proved.is_none());
    let broken = found.iter().find(|d| d.code == Code::LossBoundFails).unwrap();
    let timeline = broken.timeline.as_deref().unwrap();
    assert!(timeline.contains("#1 reported as done"), "{timeline}");
    let (proved, _, found) =
        check("guarantee loss <= 1 syncs on power_loss\non fdatasync: await previous; defer\n");
    assert!(proved.is_some(), "{found:#?}");
}

/// Explores a policy whose code was changed.
fn changed(text: &str, change: impl Fn(&mut Object) -> usize) -> Proof {
    let (proved, policy, found) = check(text);
    let (mut object, right) = proved.unwrap_or_else(|| panic!("{found:#?}"));
    assert!(!right.faults.swallowed && !right.faults.stuck, "{text}");
    assert!(change(&mut object) > 0, "nothing was changed");
    prove(&policy, &object, &Default::default()).unwrap()
}

/// Takes the comparisons of the kernel's count with what was started out of a program.
fn without_comparison(object: &mut Object, hook: Hook) -> usize {
    let program = object.programs.iter_mut().find(|p| p.hook == hook).unwrap();
    let compares = |i: &Insn| i.opcode == op::JMP | 0x50 | op::X && (i.dst, i.src) == (1, 2);
    let found = program.insns.iter_mut().filter(|i| compares(i));
    // A jump to the next instruction.
    found.map(|insn| *insn = Insn::ja(0)).count()
}

#[test]
fn a_program_that_does_not_compare_is_found() {
    let text = "on fdatasync: await previous; defer\n";
    let proof = changed(text, |object| without_comparison(object, Hook::Fdatasync));
    assert!(proof.faults.swallowed || proof.syncs > Most::Count(1), "{proof:#?}");
    // The application syncs after the barrier, and is told of nothing.
    let proof = changed(text, |object| without_comparison(object, Hook::Barrier));
    assert!(proof.faults.swallowed, "{proof:#?}");
}

#[test]
fn a_program_that_passes_while_a_sync_is_out_is_found() {
    // Of the two, the one in the background can take the error.
    let proof = changed("on fdatasync { every 3 calls { pass }; defer }\n", |object| {
        let program = object.programs.iter_mut().find(|p| p.hook == Hook::Fdatasync).unwrap();
        let nothing_out = |i: &&mut Insn| i.opcode == op::JMP | 0x10 && (i.dst, i.imm) == (1, 0);
        let last = program.insns.iter_mut().rfind(nothing_out);
        last.map(|insn| *insn = Insn::ja(insn.offset)).iter().count()
    });
    assert!(proof.faults.swallowed, "{proof:#?}");
}

#[test]
fn a_program_that_ends_its_policy_while_a_sync_is_out_is_found() {
    let proof = changed("on fdatasync: await previous; defer\n", |object| {
        let program = object.programs.iter_mut().find(|p| p.hook == Hook::Fdatasync).unwrap();
        let out_of_force = |i: &Insn| i.opcode == op::JMP | 0x10 && (i.dst, i.imm) == (7, 0);
        let slot = program.insns.iter().position(out_of_force).unwrap();
        // Not to where the ring is waited for, but to the end.
        let end = program.insns.len() - 2;
        program.insns[slot].offset = (end - slot - 1) as i16;
        1
    });
    assert!(proof.faults.swallowed, "{proof:#?}");
}
