//! The derived loss of policies, against bounds worked out by hand.

use durac_core::CompileOptions;
use durac_grammar::Sources;

/// The loss on a power loss, in words.
fn loss(text: &str) -> String {
    let mut sources = Sources::new();
    let file = sources.add("test.dur", text);
    let analysis = durac_core::analyse(&mut sources, file, &CompileOptions::new("test"));
    assert!(!analysis.has_errors(), "{text}: {:#?}", analysis.diagnostics);
    let policy = analysis.policy.expect("a policy");
    analysis.loss.expect("its loss").text(&policy)
}

#[test]
fn derived_by_hand() {
    let table: &[(&str, &str)] = &[
        // Nothing is acknowledged before it is durable.
        ("on fdatasync: pass", "nothing"),
        ("on fdatasync: fail EIO", "nothing"),
        ("on fdatasync: await all; skip", "nothing"),
        ("on fdatasync: await all; defer", "nothing"),
        ("on write: pass", "nothing"),
        // A completed sync already covers the call that is skipped.
        ("on fdatasync: await previous; if notify.done skip", "nothing"),
        ("on fdatasync { if notify.done { skip }; pass }", "nothing"),
        ("on fdatasync { unless notify.done { pass }; defer }", "nothing"),
        // This call alone.
        ("on fdatasync: await previous; defer", "at most 1 sync"),
        ("on fdatasync { if pending == 0 { defer }; pass }", "at most 1 sync"),
        ("on fdatasync { if pending > 0 { await previous }; defer }", "at most 1 sync"),
        // A window counts this call: `pending < 4` before it leaves 4 with it.
        ("on fdatasync: await pending < 4; defer", "at most 4 syncs"),
        ("on fdatasync { if pending < 4 { defer }; pass }", "at most 4 syncs"),
        ("on fdatasync { if pending <= 4 { defer }; pass }", "at most 5 syncs"),
        ("on fdatasync { if 4 > pending { defer }; pass }", "at most 4 syncs"),
        ("on fdatasync { if !(pending >= 4) { defer }; pass }", "at most 4 syncs"),
        ("on fdatasync { if pending >= 4 || child.active { pass }; defer }", "at most 4 syncs"),
        // Both sides of `&&` hold; of `||` only what both say.
        ("on fdatasync { if pending < 4 && pending < 9 { defer } }", "at most 4 syncs"),
        ("on fdatasync { if pending < 4 || pending < 9 { defer } }", "any number of syncs"),
        // The worst branch counts.
        (
            "on fdatasync { if child.active { await pending < 8 } else { await pending < 2 }\n defer }",
            "at most 8 syncs",
        ),
        ("on fdatasync { if child.active { await pending < 8 }\n defer }", "any number of syncs"),
        // A second, weaker wait takes nothing back.
        ("on fdatasync: await pending < 2; await pending < 9; defer", "at most 2 syncs"),
        // Nothing in a body that runs only now and then is known after it.
        ("on fdatasync { every 8 calls { await all }; defer }", "any number of syncs"),
        // Deadlines bound the age, not the number.
        ("on fdatasync: skip\nflush within 1s", "any number of syncs"),
        ("on fdatasync: await pending < 2; skip\nflush within 9ms", "at most 2 syncs"),
        // Parameters stay symbolic.
        (
            "param n: syncs = 8 in 1..=64\non fdatasync: await pending < n; defer",
            "at most n syncs (8 by default)",
        ),
        (
            "param n: syncs = 8 in 1..=64\non fdatasync: await pending < 2 * n + 1; defer",
            "at most 2 * n + 1 syncs (17 by default)",
        ),
        (
            "param n: syncs = 8 in 1..=64\non fdatasync: await pending < n / 2; defer",
            "at most 32 syncs",
        ),
        // The larger of two windows, unless one is never larger.
        (
            "param n: syncs = 8 in 1..=64\nparam m: syncs = 4 in 1..=64\n\
             on fdatasync { if child.active { await pending < n } else { await pending < m }\n defer }",
            "at most the largest of n, m syncs (8 by default)",
        ),
        (
            "param n: syncs = 8 in 1..=64\n\
             on fdatasync { if child.active { await pending < n } else { await pending < 64 }\n defer }",
            "at most 64 syncs",
        ),
        // A state variable may hold anything.
        (
            "state k: syncs = 4 syncs\non fdatasync { k = k + 1 syncs\n await pending < k\n defer }",
            "any number of syncs",
        ),
        (
            "state k: syncs = 4 syncs\non fdatasync { k = pending\n await pending < k % 5\n defer }",
            "at most 4 syncs",
        ),
        // Both hooks count.
        ("on fsync: defer\non fdatasync: await previous; defer", "any number of syncs"),
        ("on fsync: await all; defer\non fdatasync: await previous; defer", "at most 1 sync"),
    ];
    for (policy, expected) in table {
        assert_eq!(loss(policy), *expected, "{policy}");
    }
}
