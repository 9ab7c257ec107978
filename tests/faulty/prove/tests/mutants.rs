//! The prover with one deliberate mistake: for each there is a policy whose answer it changes, and with it
//! the tests that hold the right answers (`compiler/driver/tests`).

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use durac_core::CompileOptions;
use durac_faulty_prove::mutants::{Mutant, with};
use durac_faulty_prove::proof::{Options, prove};
use durac_faulty_prove::step::Glue;
use durac_grammar::Sources;

/// What the prover says of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Kept,
    Broken,
    /// A call is acknowledged after a failed sync of which the engine was not told.
    Swallowed,
}

use Said::{Broken, Kept, Swallowed};

/// A mistake, a policy that tells, and what is right and what is said with the mistake.
const TABLE: &[(Mutant, &str, Said, Said)] = &[
    (
        Mutant::WholeLandings,
        "guarantee loss <= 3 syncs on power_loss
         on fdatasync { every 4 calls { if pending > 1 { await previous } else { pass } }; skip }
         flush within 10s",
        Broken,
        Kept,
    ),
    (Mutant::NoFailure, "on fdatasync: await previous; defer", Swallowed, Kept),
    (
        Mutant::NoDrain,
        "guarantee loss <= 3 syncs on power_loss
         on fdatasync { every 4 calls { if pending > 1 { await previous } else { pass } }; skip }",
        Broken,
        Kept,
    ),
    (
        Mutant::NoPassingBy,
        "state seen: bool = false
         guarantee loss = 0 on power_loss
         on fdatasync {
             if seen { skip }
             every 2 calls { await all; unless notify.done { seen = true } }
             pass
         }",
        Broken,
        Kept,
    ),
    (
        Mutant::NoEmptyWrite,
        "state again: bool = false
         state go: bool = false
         guarantee loss = 0 on power_loss
         on write { if again && notify.done { go = true }; again = true; pass }
         on fsync { again = false; if go { skip }; pass }
         on fdatasync { again = false; if go { skip }; pass }",
        Broken,
        Kept,
    ),
    (
        Mutant::NoTail,
        "state go: bool = false
         guarantee loss <= 1 sync on power_loss
         on fdatasync { if notify.done { go = true }; if go { skip }; await previous; defer }",
        Broken,
        Kept,
    ),
    (
        Mutant::FixedParameters,
        "param n: syncs = 1 in 1..=3
         state most: syncs = 0
         guarantee loss <= 1 sync on power_loss
         on fdatasync { if n > 2 { most = 1 }; if most > 0 { await pending < 3; skip }; await previous; skip }
         flush within 1s",
        Broken,
        Kept,
    ),
    (
        Mutant::OneLatency,
        "guarantee loss = 0 on power_loss
         on fdatasync { if sync.latency > 5ms { skip }; pass }",
        Broken,
        Kept,
    ),
    (
        Mutant::OneCell,
        "guarantee loss <= 1 sync on power_loss
         on fdatasync { if pending.age > 1s { skip }; await previous; skip }
         flush within 10s",
        Broken,
        Kept,
    ),
    (
        Mutant::StopsEarly,
        "guarantee loss <= 2 syncs on power_loss
         on fdatasync { every 4 calls { await all }; skip }",
        Broken,
        Kept,
    ),
    (
        Mutant::CountsNothing,
        "guarantee loss <= 2 syncs on power_loss
         on fdatasync { every 4 calls { await all }; skip }",
        Broken,
        Kept,
    ),
    (
        Mutant::AnyDate,
        "guarantee loss <= 1 sync on power_loss
         on fdatasync { every 100ms { skip }; pass }
         flush within 900ms",
        Broken,
        Kept,
    ),
    (
        Mutant::NoGrowth,
        "guarantee loss <= 1048576 syncs on power_loss
         on fdatasync: skip
         flush within 1s",
        Broken,
        Kept,
    ),
    (
        Mutant::MergesSilent,
        // Four calls of which the second has failed are explored before four that are acknowledged. A sync of the
        // first call leaves three lost of these, two of those.
        "state four: bool = false
         state more: bool = false
         guarantee loss <= 4 syncs on power_loss
         on fdatasync {
             if more { more = false; if pending == 4 { skip }; pass }
             if four { four = false; if pending == 3 { more = true; skip }; pass }
             if pending == 1 && child.active { fail EAGAIN }
             if pending == 3 { four = true; skip }
             if pending > 3 { pass }
             skip
         }",
        Broken,
        Kept,
    ),
    (
        Mutant::ForgetsDates,
        // The third call's time is kept. A sync that leaves two calls of three leaves that one pending, so the deadline
        // is not over; one that leaves two of five does not.
        "state t: duration = 0ns
         state kept: bool = false
         state more: bool = false
         guarantee loss <= 5 syncs on power_loss
         on fdatasync {
             if more { if pending < 8 { skip }; more = false; pass }
             if kept {
                 if pending == 3 || pending == 4 { skip }
                 kept = false
                 if pending == 2 && now - t > 100ms { more = true; skip }
                 pass
             }
             if pending == 2 { kept = true; t = now; skip }
             if pending > 2 { pass }
             skip
         }
         flush within 90ms",
        Broken,
        Kept,
    ),
];

fn said(text: &str, deaf: bool) -> Said {
    let mut sources = Sources::new();
    let file = sources.add("test.dur", text);
    let options = CompileOptions::new("test");
    let analysis = durac_core::analyse(&mut sources, file, &options);
    assert!(!analysis.has_errors(), "{text}\n{:?}", analysis.diagnostics);
    let policy = analysis.policy.unwrap();
    let object = durac_core::compile(&policy, &sources, file, &CompileOptions::default()).unwrap();
    let reports = if deaf { |_| Ok(()) } else { Glue::RIGHT.reports };
    let options = Options { glue: Glue { reports, ..Glue::RIGHT }, ..Options::default() };
    let proof = prove(&policy, &object, &options).unwrap();
    match (proof.faults.swallowed, proof.broken.is_empty()) {
        (true, _) => Swallowed,
        (false, true) => Kept,
        (false, false) => Broken,
    }
}

#[test]
fn every_mistake_is_noticed() {
    let mut wrong = Vec::new();
    for &(mutant, text, right, mistaken) in TABLE {
        let deaf = right == Swallowed;
        let found = (with(None, || said(text, deaf)), with(Some(mutant), || said(text, deaf)));
        if found != (right, mistaken) {
            wrong.push(format!(
                "{mutant:?}: expected {:?}, found {found:?}\n{text}",
                (right, mistaken)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
