//! What the model checker proves of policies that stage writes, against bounds that a person worked
//! out.
//!
//! In the reasons, `k` is the call in question. `fsync` has no program: it writes what is staged and syncs
//! in the application's thread, and afterwards everything is durable. A call without a write since the
//! last is a barrier, which does the same. Between two sync calls the application can write as often as
//! it likes, so the writes have a bound only if the program for writes counts them.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and reads its cases"
)]

use crate::common::{self, ANY, MS, UntilSynced, Within, n};
use durac_prove::explore::Most;
use durac_prove::proof::Age::{self, Forever, Nothing};
use durac_prove::proof::Method;

/// A policy; acknowledged syncs that a power loss takes; syncs and writes that die with the process; how
/// old each can be.
type Row = (&'static str, Most, Most, Most, Age, Age);

fn check(table: &[Row]) {
    let mut wrong = String::new();
    for &(text, syncs, staged_syncs, staged_writes, age, staged_age) in table {
        let proof = common::proof(text);
        let process = &proof.process;
        let got = (proof.syncs, process.syncs, process.writes, proof.age, process.age);
        let by_hand = (syncs, staged_syncs, staged_writes, age, staged_age);
        let drawn = process.worst.is_some() == (staged_writes != n(0));
        let tail = process.tail.is_some() == (staged_age == Forever);
        if got != by_hand || !drawn || !tail {
            wrong.push_str(&format!("{text}\n  by hand {by_hand:?}\n  checker {got:?}\n"));
        }
        assert!(!proof.faults.swallowed && !proof.faults.stuck, "{text}");
        assert_eq!(proof.obstacle, None, "{text}");
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn bounded_by_what_is_staged() {
    check(&[
        // The published batch: the third waits for all, 2 before it.
        (
            "on write: stage\non fdatasync { if staged >= 3 { commit; await all }\n skip }\nflush within 10ms",
            n(2),
            n(2),
            ANY,
            Within(10 * MS),
            Within(10 * MS),
        ),
        // The same: a wait starts a sync of what it waits for.
        (
            "on write: stage\non fdatasync { if staged >= 3 { await all }\n skip }",
            n(2),
            n(2),
            ANY,
            Forever,
            Forever,
        ),
        // The same again: the call syncs in its own thread.
        (
            "on write: stage\non fdatasync { if staged >= 3 { pass }\n skip }",
            n(2),
            n(2),
            ANY,
            Forever,
            Forever,
        ),
        // With one it is `always`, but for writes that no sync call has followed.
        (
            "on write: stage\non fdatasync { if staged >= 1 { commit; await all }\n skip }\nflush within 10ms",
            n(0),
            n(0),
            ANY,
            Nothing,
            Within(10 * MS),
        ),
        // `pending` does not count this call: 3 before it.
        (
            "on write: stage\non fdatasync { if pending >= 3 { commit; await all }\n skip }",
            n(3),
            n(3),
            ANY,
            Forever,
            Forever,
        ),
        // More than 2 with this call fail; nothing comes after them but an fsync.
        (
            "on write: stage\non fdatasync { if staged > 2 { fail EAGAIN }\n skip }",
            n(2),
            n(2),
            ANY,
            Forever,
            Forever,
        ),
        // No write, no call that is not a barrier.
        (
            "on write { if staged >= 2 { fail ENOSPC }\n stage }\non fdatasync: skip",
            n(2),
            n(2),
            ANY,
            Forever,
            Forever,
        ),
        // By calls instead: 2 before the third.
        (
            "on write: stage\non fdatasync { every 3 calls { await all }\n skip }",
            n(2),
            n(2),
            ANY,
            Forever,
            Forever,
        ),
        // Staged and deferred: what was a window stays one, and dies with the process too.
        (
            "on write: stage\non fdatasync: await previous; defer",
            n(1),
            n(1),
            ANY,
            UntilSynced,
            Forever,
        ),
        (
            "on write: stage\non fdatasync: await pending < 4; defer\nflush within 5ms",
            n(4),
            n(4),
            ANY,
            Within(5 * MS),
            Within(5 * MS),
        ),
        // Before the write of call k all before it are durable: k alone.
        (
            "on write { await previous\n stage }\non fdatasync: skip\nflush within 1s",
            n(1),
            n(1),
            ANY,
            Within(1000 * MS),
            Within(1000 * MS),
        ),
        // A batch commits early, and waits only for what is before it: 3 with k, and k.
        (
            "on write: stage\non fdatasync { if staged >= 2 { commit }\n await pending < 3\n skip }\nflush within 9ms",
            n(3),
            n(3),
            ANY,
            Within(9 * MS),
            Within(9 * MS),
        ),
    ]);
}

#[test]
fn without_bound() {
    check(&[
        // Nobody ever asks for a sync.
        ("on write: stage\non fdatasync: skip", ANY, ANY, ANY, Forever, Forever),
        (
            "on write: stage\non fdatasync: skip\nflush within 10ms",
            ANY,
            ANY,
            ANY,
            Within(10 * MS),
            Within(10 * MS),
        ),
        // The sync that is asked for takes as long as it likes, and nobody waits. Two stay at the end.
        (
            "on write: stage\non fdatasync { if staged >= 3 { commit }\n skip }",
            ANY,
            ANY,
            ANY,
            Forever,
            Forever,
        ),
        // Each call is on its way; a write that no call follows is not.
        ("on write: stage\non fdatasync: commit; skip", ANY, ANY, ANY, UntilSynced, Forever),
        ("on write: stage\non fdatasync: defer", ANY, ANY, ANY, UntilSynced, Forever),
        // What a write commits is what was staged before it: its own bytes stay.
        ("on write { commit\n stage }\non fdatasync: skip", ANY, ANY, ANY, Forever, Forever),
        // A child, or none, for as long as it likes.
        (
            "on write: stage\non fdatasync { if child.active { await all }\n skip }",
            ANY,
            ANY,
            ANY,
            Forever,
            Forever,
        ),
    ]);
}

#[test]
fn writes_that_are_passed() {
    check(&[
        // Nothing is staged: the page cache keeps it.
        ("on write: pass\non fdatasync: skip", ANY, n(0), n(0), Forever, Nothing),
        (
            "on write { every 2 calls { commit } }\non fdatasync: skip",
            ANY,
            n(0),
            n(0),
            Forever,
            Nothing,
        ),
        // A sync writes and syncs what is staged; a write before it can stay for ever.
        ("on write: stage\non fdatasync: pass", n(0), n(0), ANY, Nothing, Forever),
        (
            "on write: stage\non fdatasync: pass\nflush within 10ms",
            n(0),
            n(0),
            ANY,
            Nothing,
            Within(10 * MS),
        ),
        // With two calls staged the next write takes them along. They are not durable for that.
        (
            "on write { if staged >= 2 { pass }\n stage }\non fdatasync: skip",
            ANY,
            n(2),
            ANY,
            Forever,
            Forever,
        ),
        // Every fourth write: 3 before it, each with a call of its own.
        (
            "on write { every 4 calls { pass }\n stage }\non fdatasync: skip",
            ANY,
            n(3),
            n(3),
            Forever,
            Forever,
        ),
        // By a state variable; the sync calls leave nothing staged.
        (
            "state k: count = 0\non write { k = k + 1\n if k > 2 { k = 0\n pass }\n stage }\non fdatasync: pass",
            n(0),
            n(0),
            n(2),
            Nothing,
            Forever,
        ),
        // A call whose writes are staged waits for itself; a passed write after it leaves none staged.
        (
            "on write { if child.active { stage }\n pass }\non fdatasync { if staged >= 1 { await all }\n skip }",
            ANY,
            n(0),
            ANY,
            Forever,
            Forever,
        ),
        // Staged and passed in turn: one is staged, one more write takes it along.
        (
            "state odd: bool = false\non write { odd = !odd\n if odd { stage }\n pass }\non fdatasync: await pending < 5; skip",
            n(5),
            n(1),
            n(1),
            Forever,
            Forever,
        ),
        // It starts to stage when it has seen a child, for good.
        (
            "state go: bool = false\non write { if child.active { go = true }\n if go { stage } }\n\
             on fdatasync: await pending < 2; defer",
            n(2),
            n(2),
            ANY,
            UntilSynced,
            Forever,
        ),
    ]);
}

/// How the staged writes are spread over the calls is not followed: a background sync takes off one for
/// each call that it covers. Four can be staged at once here, two for the call that pends and two for
/// the next; the checker says more, and never less.
#[test]
fn writes_of_a_sync_that_covers_a_part_are_bounded_from_above() {
    let text = "state w: count = 0\non write { w = w + 1\n if w > 2 { fail EAGAIN }\n stage }\n\
                on fdatasync { w = 0\n await previous\n defer }";
    let process = common::proof(text).process;
    assert_eq!((process.syncs, process.writes), (n(1), ANY));
}

#[test]
fn parameters() {
    let batch = |range: &str| {
        format!(
            "param size: syncs = 3 in {range}\non write: stage\n\
             on fdatasync {{ if staged >= size {{ commit; await all }}\n skip }}\nflush within 10ms"
        )
    };
    for (range, greatest, method) in [
        ("1..=4", 3, Method::Explored),
        ("1..=40", 39, Method::ExploredAndDerived),
        ("1..=1024", 1023, Method::ExploredAndDerived),
    ] {
        let proof = common::proof(&batch(range));
        let process = &proof.process;
        assert_eq!((proof.method, &proof.obstacle), (method, &None), "{range}");
        assert_eq!((proof.syncs_by_default, proof.syncs), (n(2), n(greatest)), "{range}");
        assert_eq!((process.syncs_by_default, process.syncs), (n(2), n(greatest)), "{range}");
    }
    // Writes: nothing is derived of them, so only every value tells.
    let writes = |range: &str| {
        format!(
            "param most: count = 3 in {range}\nstate w: count = 0\non write {{ w = w + 1\n\
             if w > most {{ w = 0\n pass }}\n stage }}\non fdatasync: pass"
        )
    };
    assert_eq!(common::proof(&writes("1..=6")).process.writes, n(6));
    assert_eq!(common::proof(&writes("1..=100")).process.writes, ANY);
}

/// What the standard library states, it keeps; and no smaller number would hold.
#[test]
fn ready_policies() {
    for (name, less) in [("batch", 1), ("batch_process", 0)] {
        // The whole range is proved for `durac check`, and here in `parameters`.
        let text = durac_stdlib::policy(name).unwrap().text.replace("1024", "48");
        for size in [1, 3, 12, 24, 48] {
            let text = text.replace("syncs = 48", &format!("syncs = {size}"));
            let proof = common::proof(&text);
            assert!(proof.broken.is_empty(), "{name}: {:?}", proof.broken);
            let by_default = n(size - less);
            assert_eq!(proof.syncs_by_default, by_default, "{name}, {size}");
            assert_eq!(proof.process.syncs_by_default, by_default, "{name}, {size}");
            assert_eq!(proof.process.age, Age::Within(10 * MS), "{name}");
        }
        let greater = text.replace("<= size ", "<= size - 1 ").replace("- 1 - 1", "- 2");
        let broken = common::proof(&greater).broken;
        assert_eq!(broken.len(), 2, "{name}: {broken:?}");
    }
}

/// Which guarantees about a crash of the process hold.
#[test]
fn guarantees() {
    let hooks = "on write { every 4 calls { pass }\n stage }\non fdatasync: skip\nflush within 5ms";
    for (guarantee, holds) in [
        ("loss = 0", false),
        ("loss <= 2 syncs", false),
        ("loss <= 3 syncs", true),
        ("loss <= 2 writes", false),
        ("loss <= 3 writes", true),
        ("loss <= 1MiB", true),
        ("loss <= 1023KiB", false),
        ("loss <= 5ms", true),
        ("loss <= 4ms", false),
    ] {
        let head = format!("assume sync <= 2ms\nguarantee {guarantee} on process_crash\n");
        let proof = common::proof(&format!("{head}{hooks}"));
        assert_eq!(proof.broken.is_empty(), holds, "{guarantee}: {:?}", proof.broken);
        assert!(proof.broken.iter().all(|b| b.timeline.is_some()), "{guarantee}");
    }
    let plain = "guarantee loss = 0 on process_crash\non fdatasync: skip\nflush within 1s";
    assert!(common::proof(plain).broken.is_empty());
}
