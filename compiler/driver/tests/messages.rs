//! What is said of a guarantee that fails or was not proved, with the run that shows it.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and reads its cases"
)]

use crate::common;
use durac_grammar::Diagnostic;

/// A diagnostic as text: code, message, notes, help, timeline.
fn text(found: &Diagnostic) -> String {
    let mut out = format!("{}: {}\n", found.code.text(), found.message);
    for note in &found.notes {
        out.push_str(&format!("note: {note}\n"));
    }
    if let Some(help) = &found.help {
        out.push_str(&format!("help: {help}\n"));
    }
    if let Some(timeline) = &found.timeline {
        out.push_str(timeline);
    }
    out
}

fn snapshot(name: &str, policy: &str) {
    let found: Vec<String> = common::found(policy).iter().map(text).collect();
    insta::assert_snapshot!(name, format!("{policy}\n\n{}", found.join("\n")));
}

#[test]
fn broken_guarantees() {
    let promise = "guarantee loss <= 1 syncs on power_loss\n";
    snapshot("short", &format!("{promise}on fdatasync: await pending < 2; defer"));
    snapshot(
        "folded",
        "guarantee loss <= 20 syncs on power_loss\non fdatasync: await pending < 64; defer",
    );
    snapshot(
        "pass_mixed",
        &format!("{promise}on fdatasync {{ every 4 calls {{ pass }}\n skip }}\nflush within 1s"),
    );
    snapshot(
        "an_await",
        &format!(
            "{promise}on fdatasync {{ every 2 calls {{ await pending < 2 }}\n skip }}\nflush within 1s"
        ),
    );
    snapshot(
        "partial_landing",
        &format!(
            "{promise}state landed: bool = false\non fdatasync {{ if notify.done {{ landed = true }}\n if landed {{ await pending < 3 }} else {{ await previous }}\n defer }}"
        ),
    );
    snapshot("tail", "guarantee loss <= 1s on power_loss\non fdatasync: await previous; skip");
    snapshot("without_bound", &format!("{promise}on fdatasync: defer"));
    snapshot(
        "to_clients",
        "target redis.aof\nguarantee loss = 0 to clients on power_loss\nparam n: count = 0 in 0..=3\n\
         on fdatasync: defer\non reply { if n > 1 { pass }\n hold until durable }",
    );
}

#[test]
fn not_proved() {
    snapshot(
        "wide_range",
        "param n: count = 3 in 1..=100\nguarantee loss <= 6 syncs on power_loss\nstate k: count = 0\n\
         on fdatasync { k = k + n\n if k >= 6 { k = 0\n await all }\n skip }",
    );
    snapshot(
        "no_thresholds",
        "guarantee loss = 0 on power_loss\n\
         on fdatasync { if sync.latency % 3ms == 1ms { defer }\n pass }",
    );
}

/// The number that a timeline ends with is the number of calls reported as done and not durable.
#[test]
fn a_timeline_counts_right() {
    for n in 1..4 {
        let policy = format!(
            "guarantee loss <= {n} syncs on power_loss\non fdatasync: await pending < 9; defer"
        );
        let found = common::found(&policy);
        let timeline = found[0].timeline.as_ref().unwrap();
        let done = timeline.lines().filter(|line| line.contains("reported as done")).count();
        assert_eq!(done, n + 1, "{timeline}");
        assert!(
            timeline.contains(&format!("power loss: {} syncs acknowledged", n + 1)),
            "{timeline}"
        );
    }
}
