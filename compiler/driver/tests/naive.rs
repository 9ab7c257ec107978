//! The model checker against a naive one (`durac_naive`).

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and reads its cases"
)]

use crate::common;
use crate::common::Random;
use crate::common::generator::{Kind, endless, policy, with_ends};
use durac_naive::{COMPARED, STATES, explore};
use durac_prove::explore::Most;
use durac_prove::machine::{Backend, Machine};
use durac_prove::proof::{Age, Options, Proof, prove, rules};

/// States of the model checker, beyond which a policy is skipped: the naive one does not come to an end either.
const CHECKED: usize = STATES;

fn proof_of(compiled: &common::Compiled) -> Proof {
    let options = Options { states: CHECKED, ..Options::default() };
    prove(&compiled.policy, &compiled.object, &options).unwrap()
}

#[test]
fn agrees_with_a_naive_explorer() {
    agrees(Random(0x5eed_0001), "", 60, 10);
}

/// Of policies for which syncs count that the engine did not start.
#[test]
fn agrees_when_the_kernel_shows_other_syncs() {
    agrees(Random(0x5eed_0002), "use kernel notify\n", 30, 5);
}

/// Counters that rise without end are followed as far as they matter: the naive explorer follows a twin in
/// which they go round, or stop.
#[test]
fn agrees_on_counters_without_end() {
    let mut random = Random(0x5eed_0003);
    let (mut bounded, mut unbounded, mut skipped) = (0, 0, 0);
    while bounded < 40 {
        let text = policy(&mut random, Kind { counters: true, ..Kind::HOOKS });
        let Some(compiled) = common::compile(&endless(&text)) else { continue };
        let proof = proof_of(&compiled);
        let Some(twin) = common::compile(&with_ends(&text)) else { continue };
        let machine = Machine::new(&twin.object, Backend::Interpreter).unwrap();
        let found = explore(machine, rules(&twin.object), false);
        let case = format!(
            "{}\nproof {:?} with {:?} age {:?} {:?}\nnaive {found:?}",
            endless(&text),
            proof.syncs,
            proof.with_progress,
            proof.age,
            proof.obstacle
        );
        assert!(Most::Count(found.lost) <= proof.syncs, "{case}");
        if proof.obstacle.is_some() || !found.complete && proof.syncs != Most::Unbounded {
            skipped += 1;
            continue;
        }
        match proof.syncs {
            Most::Unbounded => {
                assert!(!found.complete || found.cut, "{case}");
                unbounded += 1;
            }
            Most::Count(most) if most > COMPARED => skipped += 1,
            Most::Count(most) => {
                assert_eq!(found.lost, most, "{case}");
                assert_eq!(Most::Count(found.with_progress), proof.with_progress, "{case}");
                bounded += 1;
            }
        }
        if twin.policy.flush_within.is_none() && found.complete {
            assert_eq!(found.tail, proof.age == Age::Forever, "{case}");
        }
    }
    println!("{bounded} bounded, {unbounded} unbounded, {skipped} skipped");
}

/// Compares until so many policies with a bound were the same; more than `least` have none, and more
/// stage.
fn agrees(mut random: Random, begins: &str, enough: u64, least: u64) {
    let (mut bounded, mut unbounded, mut skipped, mut staging) = (0, 0, 0, 0);
    while bounded < enough {
        let text = format!("{begins}{}", policy(&mut random, Kind::HOOKS));
        let Some(compiled) = common::compile(&text) else { continue };
        let proof = proof_of(&compiled);
        if proof.obstacle.is_some() {
            skipped += 1;
            continue;
        }
        let machine = Machine::new(&compiled.object, Backend::Interpreter).unwrap();
        let rules = rules(&compiled.object);
        let found = explore(machine, rules, !compiled.object.kernel.is_empty());
        let case = format!(
            "{text}\nproof {:?} with {:?} staged {:?} age {:?}\nnaive {found:?}",
            proof.syncs, proof.with_progress, proof.process.syncs, proof.age
        );
        assert!(Most::Count(found.staged) <= proof.process.syncs, "{case}");
        staging += u64::from(found.staged > 0);
        match proof.syncs {
            Most::Unbounded => {
                assert!(!found.complete || found.cut, "{case}");
                unbounded += 1;
            }
            Most::Count(most) => {
                assert!(found.lost <= most, "{case}");
                if !found.complete || most > COMPARED {
                    skipped += 1;
                    continue;
                }
                assert_eq!(found.lost, most, "{case}");
                assert_eq!(Most::Count(found.staged), proof.process.syncs, "{case}");
                assert_eq!(Most::Count(found.with_progress), proof.with_progress, "{case}");
                bounded += 1;
            }
        }
        if compiled.policy.flush_within.is_none() && found.complete {
            assert_eq!(found.tail, proof.age == Age::Forever, "{case}");
        }
    }
    println!("{bounded} bounded, {unbounded} unbounded, {skipped} skipped");
    assert!(unbounded > least && staging > least, "{unbounded}, {staging}");
}
