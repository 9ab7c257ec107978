//! Policies that start syncs under BPFtime: what they lose, by their own bytecode, and that a change of it
//! that believes too much is found.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use durac_bpf::Object;
use durac_bpf::abi::{Helper, Hook, Runtime};
use durac_bpf::insn::{Insn, op};
use durac_compiler::Naming;
use durac_compiler::hir::Policy;
use durac_grammar::{Code, Diagnostic, Sources};
use durac_sim::model::explore::Most;
use durac_sim::model::proof::{Proof, prove};

const HEAD: &str = "target redis.patched\nuse kernel notify\n";

fn check(text: &str) -> (Option<(Object, Proof)>, Policy, Vec<Diagnostic>) {
    let mut sources = Sources::new();
    let file = sources.add("test.dur", format!("{HEAD}{text}"));
    let naming = Naming { stem: "test", target: None, runtime: Runtime::Bpftime };
    let checked = durac_sim::check::check_as(&mut sources, file, &naming);
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
        eprintln!("{} states, {} steps: {text}", proof.states, proof.steps);
    }
}
