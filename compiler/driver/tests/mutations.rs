//! Small mistakes in the policies of the standard library: `check` notices each that makes a policy
//! weaker. Those that it does not notice are listed, each with the reason.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and reads its cases"
)]

use durac_grammar::Sources;
use durac_prove::explore::Most;
use durac_prove::proof::Age;

/// Replacements of one place in a hook or a deadline.
const MUTATIONS: &[(&str, &str)] = &[
    // A wait, a deadline, a condition, a statement less.
    ("await previous;", ""),
    ("await previous", ""),
    ("await pending < n;", ""),
    ("await pending < 40", ""),
    ("await pending < 16", ""),
    ("flush within 1s", ""),
    ("flush within 50ms", ""),
    ("slow || ", ""),
    (" || child.active", ""),
    ("slow = sync.latency > 5ms", ""),
    ("unless notify.done { await previous };", ""),
    // Another verdict.
    ("defer", "skip"),
    ("defer", "pass"),
    ("defer", "fail EIO"),
    ("skip", "defer"),
    ("skip", "pass"),
    ("pass", "defer"),
    ("pass", "skip"),
    // Another comparison, another constant.
    ("latency > 5ms", "latency >= 5ms"),
    ("latency > 5ms", "latency < 5ms"),
    ("latency > 5ms", "latency > 6ms"),
    ("latency > 5ms", "latency > 4ms"),
    ("pending.updates > n { pass };", "false { pass };"),
    ("if pending.updates > n { pass };", ""),
    ("updates > n", "updates > n + 1"),
    ("updates > n", "updates >= n"),
    ("updates > n", "updates < n"),
    ("updates > n", "bytes > 100B"),
    ("pending.updates", "call.updates"),
    ("pending < n", "pending < n + 1"),
    ("pending < n", "pending < n - 1"),
    ("pending < 40", "pending < 41"),
    ("pending < 40", "pending < 39"),
    ("pending < 16", "pending < 17"),
    ("pending < 16", "pending < 15"),
    ("within 1s", "within 2s"),
    ("within 50ms", "within 51ms"),
    ("within 50ms", "within 49ms"),
    ("||", "&&"),
    ("unless", "if"),
    ("slow = sync", "slow = !slow && sync"),
    ("await previous", "await all"),
    ("await previous", "await pending < 2"),
    ("fdatasync", "fsync"),
    ("if reply.clean", "if !reply.clean"),
];

/// What is not noticed: the policy, the mutation, and why that is right.
const SURVIVORS: &[(&str, &str, &str, Reason)] = &[
    ("always", "fdatasync", "fsync", Reason::OtherHook),
    ("delayed_fsync", "fdatasync", "fsync", Reason::OtherHook),
    ("fast_notify", "fdatasync", "fsync", Reason::OtherHook),
    ("window", "defer", "skip", Reason::OnlySlower),
    ("window", "fdatasync", "fsync", Reason::OtherHook),
    ("updates", "fdatasync", "fsync", Reason::OtherHook),
    ("adaptive", " || child.active", "", Reason::WiderWindowHolds),
    ("adaptive", "slow = sync.latency > 5ms", "", Reason::WiderWindowHolds),
    ("adaptive", "latency > 5ms", "latency >= 5ms", Reason::WiderWindowHolds),
    ("adaptive", "latency > 5ms", "latency < 5ms", Reason::WiderWindowHolds),
    ("adaptive", "latency > 5ms", "latency > 6ms", Reason::WiderWindowHolds),
    ("adaptive", "latency > 5ms", "latency > 4ms", Reason::WiderWindowHolds),
    ("adaptive", "pending < 16", "pending < 17", Reason::WiderWindowHolds),
    ("adaptive", "pending < 16", "pending < 15", Reason::WiderWindowHolds),
    ("adaptive", "||", "&&", Reason::WiderWindowHolds),
    ("adaptive", "slow = sync", "slow = !slow && sync", Reason::WiderWindowHolds),
    ("adaptive", "fdatasync", "fsync", Reason::OtherHook),
    ("everysec", "skip", "defer", Reason::OnlySooner),
    ("everysec", "fdatasync", "fsync", Reason::OtherHook),
    ("no", "fdatasync", "fsync", Reason::OtherHook),
    ("gathered", "fdatasync", "fsync", Reason::OtherHook),
    ("external_synchrony", "fdatasync", "fsync", Reason::OtherHook),
    ("clean_reads", "fdatasync", "fsync", Reason::OtherHook),
];

/// Why a mutant is no weaker.
#[derive(Clone, Copy)]
enum Reason {
    /// The calls of the other hook are treated so now, and those of this one run their own sync:
    /// the application is free to make either, so as much can be lost.
    OtherHook,
    /// The bounds by the wait and by the deadline stay. But no sync starts before the window is
    /// full: only the simulator sees what that costs.
    OnlySlower,
    /// The guarantee is about the wider of two windows, and both can still be entered or only one.
    /// How often each is used is for the simulator to say.
    WiderWindowHolds,
    /// Syncs start earlier than the deadline makes them: no weaker, and the simulator sees the cost.
    OnlySooner,
}

/// What `check` says: what it finds, what can be lost in syncs and updates, how old.
type Said = (Vec<&'static str>, Option<(Most, Most, Most, Most, Age)>);

fn said(text: &str) -> Said {
    let mut sources = Sources::new();
    let file = sources.add("test.dur", text);
    let checked = durac_driver::compile(&mut sources, file, &durac_driver::Options::new("test"));
    let codes = checked.analysis.diagnostics.iter().map(|d| d.code.text()).collect();
    let proof = checked.proved.map(|proved| proved.proof);
    let bounds = proof.map(|p| (p.syncs_by_default, p.syncs, p.with_progress, p.updates, p.age));
    (codes, bounds)
}

/// The windows of the standard library, smaller: the same policies, explored sooner.
fn smaller(text: &str) -> String {
    text.replace("1024", "40").replace("4096", "70")
}

#[test]
fn every_mistake_is_noticed_or_explained() {
    let mut survivors: Vec<(&str, &str, &str)> = Vec::new();
    let mut mutants = 0;
    for policy in durac_stdlib::POLICIES {
        let original_text = smaller(policy.text);
        let original = said(&original_text);
        // `stage` and `hold` are checked, but cannot be compiled.
        let Some(hooks) = original_text.find("\non ").filter(|_| original.1.is_some()) else {
            continue;
        };
        let hooks = original_text[..hooks].find("\nstate ").unwrap_or(hooks);
        let (head, body) = original_text.split_at(hooks);
        for &(from, to) in MUTATIONS {
            for (at, _) in body.match_indices(from) {
                let text = format!("{head}{}{to}{}", &body[..at], &body[at + from.len()..]);
                mutants += 1;
                let survives = said(&text) == original;
                if survives && !survivors.contains(&(policy.name, from, to)) {
                    survivors.push((policy.name, from, to));
                }
            }
        }
    }
    let listed: Vec<(&str, &str, &str)> =
        SURVIVORS.iter().map(|(p, a, b, _)| (*p, *a, *b)).collect();
    assert_eq!(survivors, listed);
    assert!(mutants >= 40, "only {mutants} mutants");
}
