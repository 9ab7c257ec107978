//! The model checker finds out an engine that is told lies, or not obeyed.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and reads its cases"
)]

use crate::common;
use durac_prove::proof::{Options, Proof, prove};
use durac_prove::step::{Faults, Glue};

fn proof(text: &str, glue: Glue) -> Proof {
    let compiled = common::compile(text).unwrap();
    prove(&compiled.policy, &compiled.object, &Options { glue, ..Options::default() }).unwrap()
}

/// Policies whose syncs are made by the call itself, by the syncer, and by either.
const POLICIES: [&str; 4] = [
    "on fdatasync: pass",
    "on fdatasync: await previous; defer",
    "on fdatasync { every 3 calls { await all }\n skip }",
    "on fdatasync: defer\nflush within 1s",
];

#[test]
fn nothing_is_found_in_the_engine_as_it_is() {
    for text in POLICIES {
        assert_eq!(proof(text, Glue::RIGHT).faults, Faults::default(), "{text}");
    }
}

#[test]
fn an_error_that_the_engine_is_not_told_of() {
    let deaf = Glue { reports: |_| Ok(()), ..Glue::RIGHT };
    for text in POLICIES {
        let faults = proof(text, deaf).faults;
        assert_eq!(faults, Faults { swallowed: true, stuck: false }, "{text}");
    }
}

#[test]
fn a_syncer_that_starts_nothing() {
    let idle = Glue { starts: false, ..Glue::RIGHT };
    let stuck = POLICIES.map(|text| proof(text, idle).faults.stuck);
    // A call that finds the syncer asleep syncs itself; one that finds it awake relies on it, be it that
    // the program waits or that the deadline is broken.
    assert_eq!(stuck, [false, true, true, true]);
}
