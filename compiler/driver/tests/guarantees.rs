//! Guarantees that hold and that fail, and how it is said.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and reads its cases"
)]

use durac_grammar::Sources;

/// Codes of what is found.
fn codes(text: &str) -> Vec<&'static str> {
    let mut sources = Sources::new();
    let file = sources.add("test.dur", text);
    let analysis =
        durac_driver::compile(&mut sources, file, &durac_driver::Options::new("test")).analysis;
    analysis.diagnostics.iter().map(|d| d.code.text()).collect()
}

#[test]
fn guarantees_that_fail() {
    let table: &[(&str, &[&str])] = &[
        ("guarantee loss <= 2 syncs on power_loss\non fdatasync: await previous; defer", &[]),
        ("guarantee loss = 0 on power_loss\non fdatasync: pass", &[]),
        ("guarantee loss = 0 on process_crash\non fdatasync: skip\nflush within 1s", &[]),
        ("guarantee loss = 0 on power_loss\non fdatasync: await previous; defer", &["E0501"]),
        (
            "guarantee loss <= 3 syncs on power_loss\non fdatasync: await pending < 4; defer",
            &["E0501"],
        ),
        ("guarantee loss <= 3 syncs on power_loss\non fdatasync: defer", &["E0502"]),
        ("guarantee loss <= 9KiB on power_loss\non fdatasync: await previous; defer", &["E0502"]),
        ("guarantee loss <= 9 writes on power_loss\non fdatasync: pass", &[]),
        ("guarantee loss <= 1s on power_loss\non fdatasync: await previous; defer", &["E0505"]),
        (
            "guarantee loss <= 1s on power_loss\non fdatasync: await previous; defer\nflush within 2s",
            &["E0503"],
        ),
        ("guarantee loss <= 1s on power_loss\non fdatasync: skip\nflush within 1s", &["E0505"]),
        (
            "assume sync <= 500ms\nguarantee loss <= 1s on power_loss\non fdatasync: skip\nflush within 1s",
            &[],
        ),
        // A bound must hold for every value of the range, not for the default.
        (
            "param n: syncs = 2 in 1..=64\nguarantee loss <= 8 syncs on power_loss\n\
             on fdatasync: await pending < n; defer",
            &["E0501"],
        ),
        (
            "param n: syncs = 2 in 1..=8\nguarantee loss <= 8 syncs on power_loss\n\
             on fdatasync: await pending < n; defer",
            &[],
        ),
        (
            "param n: syncs = 2 in 1..=8\nguarantee loss <= n + 1 syncs on power_loss\n\
             on fdatasync: await pending < n; defer",
            &[],
        ),
    ];
    for (policy, expected) in table {
        assert_eq!(codes(policy), *expected, "{policy}");
    }
}
