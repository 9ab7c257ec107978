//! What a proof may do is counted, within one state's step as well: short texts that would take gigabytes and hours are
//! given up, with the bound that follows from the text or with a diagnostic.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::common;
use durac_grammar::Code;
use durac_prove::explore::Most;
use durac_prove::proof::{Method, Obstacle, Proof};

/// Each wait may read something else than the one before: one call has a multiple of runs with each.
fn waits(number: usize) -> String {
    let line = |i: usize| format!("if pending.age > {i}ms {{ await pending < {} }}\n", 8 - i);
    format!("on fdatasync {{\n{} defer }}", (1..=number).map(line).collect::<String>())
}

#[test]
fn the_runs_of_one_state_are_limited() {
    // Nothing bounds it, and nothing is claimed.
    let found = common::found(&waits(7));
    let given_up = found.iter().find(|d| d.code == Code::NotExplored).unwrap();
    assert!(given_up.message.contains("the model checker stopped after"), "{}", given_up.message);
    let proof = common::proof(&waits(7));
    assert!(matches!(proof.obstacle, Some(Obstacle::TooManyRuns(_))), "{:?}", proof.obstacle);
    assert_eq!((proof.syncs, proof.exact && proof.complete), (Most::Unbounded, false));
    // A guarantee is not proved, and not said to be broken.
    let text = format!("guarantee loss <= 3 syncs on power_loss\n{}", waits(7));
    let codes: Vec<_> = common::found(&text).iter().map(|d| d.code).collect();
    assert_eq!(codes, [Code::NotProved]);
}

/// What follows from the text proves the guarantee: there is no long search for the word "exact".
#[test]
fn a_proved_guarantee_takes_few_runs() {
    let text = "guarantee loss <= 64 syncs on power_loss\n\
        on fdatasync { if pending.age > 100ms { await pending < 8 }\n\
        if sync.latency > 50ms { await pending < 4 } else { await pending < 64 }\n\
        if pending.bytes > 1MiB { await pending < 2 }\n if pending.bytes > 2MiB { await all }\n\
        if child.active { await previous }\n defer }";
    let Proof { syncs, method, exact, broken, obstacle, .. } = common::proof(text);
    assert_eq!((syncs, method, exact), (Most::Count(64), Method::Derived, false));
    assert!(broken.is_empty());
    let Some(Obstacle::TooManyRuns(runs)) = obstacle else { unreachable!("{obstacle:?}") };
    assert!(runs <= 1_000_000 + 4_096, "{runs}");
}

/// Each `||` of an `&&` may double the ways through a condition, and each pair of parentheses what is looked at.
#[test]
fn long_conditions_are_looked_at_once() {
    let terms = (1..=12).map(|i| {
        format!(
            "(sync.latency > {i}ms && pending.age > {i}ms && pending.bytes > {i}KiB && now > {i}s)"
        )
    });
    let text = format!(
        "guarantee loss <= 1 sync on power_loss\non fdatasync {{ if {} {{ pass }}\n await previous\n defer }}",
        terms.collect::<Vec<_>>().join(" || ")
    );
    assert_eq!(common::proof(&text).syncs, Most::Count(1));
    let nested = (1..=20).fold("pending > 1".to_owned(), |inner, i| {
        format!("({inner} && pending.age > {i}ms || notify.done)")
    });
    let text = format!(
        "state n: count = 0\non fdatasync {{ if {nested} {{ n = n + 1\n if n > 5 {{ n = 0\n pass }}\n }}\n skip }}"
    );
    assert_eq!(common::proof(&text).syncs, Most::Unbounded);
}

/// The code of the right side of each `==` is there twice.
#[test]
fn comparisons_of_truth_values_are_not_nested_deeply() {
    let nested = |depth: usize| {
        let open = "child.active == (".repeat(depth);
        format!("on fdatasync {{ if {open}notify.done{} {{ pass }}\n skip }}", ")".repeat(depth))
    };
    assert_eq!(common::proof(&nested(4)).syncs, Most::Unbounded);
    let codes: Vec<_> = common::found(&nested(40)).iter().map(|d| d.code).collect();
    assert_eq!(codes, [Code::TooDeep]);
}

/// Each may be broken, and each broken one is drawn.
#[test]
fn guarantees_are_limited() {
    let text = format!(
        "{}on fdatasync: await pending < 3; defer\n",
        "guarantee loss <= 2 syncs on power_loss\n".repeat(20_000)
    );
    let codes: Vec<_> = common::found(&text).iter().map(|d| d.code).collect();
    assert!(codes.contains(&Code::TooLarge), "{codes:?}");
}

#[test]
fn diagnostics_are_limited() {
    let found = common::found(&"on fdatasync: pass\n".repeat(2_000));
    assert_eq!(found.len(), 500);
    let notes = found.last().map(|d| d.notes.join(" ")).unwrap();
    assert!(notes.contains("more are not shown"), "{notes}");
}
