//! What the model checker proves of policies, against bounds that a person worked out.
//!
//! In the reasons, `k` is the call in question, calls before it are durable up to some frontier, and
//! `fsync` has no program unless the row says so: it syncs in the application's thread, so one more
//! call can always be in progress, and afterwards everything is durable.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and reads its cases"
)]

use crate::common::{self, ANY, MS, UntilSynced, Within, n};
use durac_prove::cells::Why;
use durac_prove::explore::Most;
use durac_prove::proof::Age::{self, Forever, Nothing};
use durac_prove::proof::{Method, Obstacle};

/// A policy; acknowledged syncs lost by default, for all parameters, with the call in progress; age.
type Row = (&'static str, Most, Most, Most, Age);

fn check(table: &[Row]) {
    let mut wrong = String::new();
    for &(text, by_default, for_all, with_progress, age) in table {
        let proof = common::proof(text);
        let got = (proof.syncs_by_default, proof.syncs, proof.with_progress, proof.age);
        let tail = proof.tail.is_some() == (age == Forever);
        let drawn = proof.worst.is_some() == (age != Nothing);
        if got != (by_default, for_all, with_progress, age) || !tail || !drawn {
            let by_hand = (by_default, for_all, with_progress, age);
            wrong.push_str(&format!("{text}\n  by hand {by_hand:?}\n  checker {got:?}\n"));
        }
        assert!(!proof.faults.swallowed && !proof.faults.stuck, "{text}");
        assert_eq!(proof.obstacle, None, "{text}");
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn nothing_is_lost() {
    check(&[
        // Every call runs its own sync before it is acknowledged.
        ("on fdatasync: pass", n(0), n(0), n(1), Nothing),
        // Nothing is acknowledged. A failed call stays the caller's.
        ("on fdatasync: fail EIO", n(0), n(0), n(1), Nothing),
        // Durable before the verdict, whichever it is.
        ("on fdatasync: await all; skip", n(0), n(0), n(1), Nothing),
        ("on fdatasync: await all; defer", n(0), n(0), n(1), Nothing),
        // Nothing is ever deferred, so no sync runs between a write and its call.
        ("on fdatasync: await previous; if notify.done skip", n(0), n(0), n(1), Nothing),
        // A hook without a program, and one that changes nothing.
        ("on fsync: pass", n(0), n(0), n(1), Nothing),
        ("on write: await previous", n(0), n(0), n(1), Nothing),
        // Both ways wait alike, and share the call.
        (
            "on fdatasync { if pending.bytes > 4KiB && sync.latency > 5ms { await all } else { await all }\n skip }",
            n(0),
            n(0),
            n(1),
            Nothing,
        ),
        // Both ways end durable.
        ("on fdatasync { if pending == 0 { pass }\n await all\n skip }", n(0), n(0), n(1), Nothing),
        // The state never becomes true, so `defer` is never reached.
        (
            "state go: bool = false\non fdatasync { if go { defer }\n go = false\n pass }",
            n(0),
            n(0),
            n(1),
            Nothing,
        ),
        // Seven is out of reach: the counter goes round at three.
        (
            "state k: count = 0\non fdatasync { k = (k + 1) % 3\n if k == 7 { skip }\n pass }",
            n(0),
            n(0),
            n(1),
            Nothing,
        ),
        // A deadline with nothing to flush.
        ("on fdatasync: pass\nflush within 1s", n(0), n(0), n(1), Nothing),
        // The call itself is not pending before it is acknowledged: none is below 0.
        ("on fdatasync { if pending < 0 { skip }\n pass }", n(0), n(0), n(1), Nothing),
    ]);
}

#[test]
fn windows() {
    check(&[
        // The published policy: one acknowledged, and the one that waits for it.
        ("on fdatasync: await previous; defer", n(1), n(1), n(2), UntilSynced),
        ("on fdatasync: await previous; skip", n(1), n(1), n(2), Forever),
        ("on fdatasync: await previous; skip\nflush within 5ms", n(1), n(1), n(2), Within(5 * MS)),
        ("on fdatasync { if pending == 0 { defer }\n pass }", n(1), n(1), n(2), UntilSynced),
        // A window counts the call that is acknowledged: after the wait fewer than 4, then 4.
        ("on fdatasync: await pending < 4; defer", n(4), n(4), n(5), UntilSynced),
        ("on fdatasync: await pending < 4; skip", n(4), n(4), n(5), Forever),
        (
            "on fdatasync: await pending < 4; skip\nflush within 10ms",
            n(4),
            n(4),
            n(5),
            Within(10 * MS),
        ),
        // At most 4 pend before it, 5 with it; the sixth runs its own sync.
        ("on fdatasync { if pending <= 4 { defer }\n pass }", n(5), n(5), n(6), UntilSynced),
        // The stronger wait counts, in either order.
        (
            "on fdatasync: await pending < 2; await pending < 9; defer",
            n(2),
            n(2),
            n(3),
            UntilSynced,
        ),
        (
            "on fdatasync: await pending < 9; await pending < 2; defer",
            n(2),
            n(2),
            n(3),
            UntilSynced,
        ),
        // 3 before it, 4 with it; then calls fail, which acknowledges nothing. In progress: an fsync.
        ("on fdatasync { if pending >= 4 { fail EAGAIN }\n defer }", n(4), n(4), n(5), UntilSynced),
        // Calls that fail without end are as good as a few of them, whatever is promised.
        (
            "guarantee loss <= 900000 syncs on power_loss\n\
             on fdatasync { if pending >= 4 { fail EAGAIN }\n defer }",
            n(4),
            n(4),
            n(5),
            UntilSynced,
        ),
        // 2..=4 pending wait for less than 4: 4 with it. More than 4 never pend.
        (
            "on fdatasync { if pending < 2 { defer } else { if pending < 5 { await pending < 4\n defer } }\n pass }",
            n(4),
            n(4),
            n(5),
            UntilSynced,
        ),
        // Every second call fails, so what pends before k is one call acknowledged and one failed.
        (
            "state k: count = 0\non fdatasync { k = k + 1\n if k == 2 { k = 0\n fail EAGAIN }\n\
             await pending < 2\n defer }",
            n(1),
            n(1),
            n(2),
            UntilSynced,
        ),
        // Exactly 2 pending is one value: with 1 or 3 pending it waits. 2 pend: 3 with it.
        (
            "on fdatasync { if pending == 2 { defer }\n await pending < 3\n defer }",
            n(3),
            n(3),
            n(4),
            UntilSynced,
        ),
        // 3 pend: 4 with it, from there only `await previous`.
        (
            "on fdatasync { if pending != 3 { await pending < 3 }\n defer }",
            n(4),
            n(4),
            n(5),
            UntilSynced,
        ),
        // Neither hook is stricter for the other: the wider window is reached by its own calls.
        (
            "on fsync: await pending < 2; defer\non fdatasync: await pending < 5; defer",
            n(5),
            n(5),
            n(6),
            UntilSynced,
        ),
        (
            "on fsync: await all; skip\non fdatasync: await previous; skip",
            n(1),
            n(1),
            n(2),
            Forever,
        ),
        ("on fsync: pass\non fdatasync: await pending < 3; skip", n(3), n(3), n(4), Forever),
        // A write waits for all calls before it, and a call without a write is a barrier.
        ("on write: await previous\non fdatasync: skip", n(1), n(1), n(2), Forever),
        // Before the write that belongs to call k fewer than 3 pend: 3 with k.
        ("on write: await pending < 3\non fdatasync: skip", n(3), n(3), n(4), Forever),
        // `await all` of a write can only mean the calls before it.
        ("on write: await all\non fdatasync: defer", n(1), n(1), n(2), UntilSynced),
    ]);
}

#[test]
fn without_bound() {
    check(&[
        ("on fdatasync: skip", ANY, ANY, ANY, Forever),
        ("on fdatasync: skip\nflush within 1s", ANY, ANY, ANY, Within(1000 * MS)),
        ("on fdatasync: defer", ANY, ANY, ANY, UntilSynced),
        // One hook is enough.
        ("on fsync: skip\non fdatasync: await all; skip", ANY, ANY, ANY, Forever),
        // A second need not pass.
        ("on fdatasync { every 1s { await all }\n skip }", ANY, ANY, ANY, Forever),
        // A second can pass before each call.
        ("on fdatasync { every 1s { skip }\n pass }", ANY, ANY, ANY, Forever),
        ("on fdatasync { every 1s { await all\n skip }\n defer }", ANY, ANY, ANY, UntilSynced),
        // Any number fit in a second; the clock can stand still; bytes can be few.
        ("on fdatasync { if pending.age > 1s { await all }\n defer }", ANY, ANY, ANY, UntilSynced),
        (
            "on fdatasync { if pending.age > 0ns { await previous }\n defer }",
            ANY,
            ANY,
            ANY,
            UntilSynced,
        ),
        (
            "on fdatasync { if pending.bytes > 4KiB { await all }\n defer }",
            ANY,
            ANY,
            ANY,
            UntilSynced,
        ),
        // No child, no wait.
        ("on fdatasync { if child.active { await previous }\n defer }", ANY, ANY, ANY, UntilSynced),
        // A child makes it unsafe, and then it stays so while there is none.
        (
            "state safe: bool = true\non fdatasync { if child.active { safe = !safe }\n if safe { pass }\n skip }",
            ANY,
            ANY,
            ANY,
            Forever,
        ),
        // A burst of 4 can be followed by the next at once.
        (
            "state burst: count = 0\non fdatasync {\n\
             if child.active && burst == 0 { burst = 4 }\n\
             if burst > 0 { burst = burst - 1\n skip }\n await all\n skip }",
            ANY,
            ANY,
            ANY,
            Forever,
        ),
        // It waits once, for exactly 2; from 3 on it never does.
        (
            "on fdatasync { if pending == 2 && child.active { await all }\n defer }",
            ANY,
            ANY,
            ANY,
            UntilSynced,
        ),
        // Without a child no write waits; from 3 pending on nothing else does.
        (
            "state a: bool = false\non write { if a { await previous } }\non fdatasync {\n\
             if pending <= 2 { every 3 calls { await previous } }\n a = child.active\n defer }",
            ANY,
            ANY,
            ANY,
            UntilSynced,
        ),
        // The first call that sees a child switches it off for good.
        (
            "state off: bool = false\non fdatasync { if child.active { off = true }\n\
             unless off { await all }\n skip }",
            ANY,
            ANY,
            ANY,
            Forever,
        ),
    ]);
}

#[test]
fn machines() {
    check(&[
        // Deferred, passed, deferred: one pends when the second runs its sync.
        (
            "state odd: bool = false\non fdatasync { odd = !odd\n if odd { defer }\n pass }",
            n(1),
            n(1),
            n(2),
            UntilSynced,
        ),
        // Two of three are deferred.
        (
            "state k: count = 0\non fdatasync { k = k + 1\n if k >= 3 { k = 0\n pass }\n defer }",
            n(2),
            n(2),
            n(3),
            UntilSynced,
        ),
        ("on fdatasync { every 3 calls { pass }\n skip }", n(2), n(2), n(3), Forever),
        // The third waits for itself: 2 before it.
        ("on fdatasync { every 3 calls { await all }\n skip }", n(2), n(2), n(3), Forever),
        // The third need not wait if an fsync came just before: it pends, and two more.
        ("on fdatasync { every 3 calls { await previous }\n skip }", n(3), n(3), n(4), Forever),
        // The third leaves itself pending when the sync covered only what was before it.
        (
            "on fdatasync { every 3 calls { await previous }\n defer }",
            n(3),
            n(3),
            n(4),
            UntilSynced,
        ),
        // After the wait 2 with it, and two calls more without one.
        (
            "on fdatasync { every 3 calls { await pending < 2 }\n defer }",
            n(4),
            n(4),
            n(5),
            UntilSynced,
        ),
        // After an fsync before a waiting call: wait, none, wait with 2 before it, none: 4.
        ("on fdatasync { every 2 calls { await pending < 3 }\n skip }", n(4), n(4), n(5), Forever),
        // The published batch with a copy: 47 before the one that waits.
        ("on fdatasync { every 48 calls { await all }\n skip }", n(47), n(47), n(48), Forever),
        (
            "on fdatasync { every 48 calls { await all }\n skip }\nflush within 10ms",
            n(47),
            n(47),
            n(48),
            Within(10 * MS),
        ),
        // Two periods: the shorter wait of 4 calls counts, 3 before it.
        (
            "on fdatasync { every 6 calls { await all }\n every 4 calls { await all }\n skip }",
            n(3),
            n(3),
            n(4),
            Forever,
        ),
        // The inner period runs at every second of the outer: 6 calls, 5 before it.
        (
            "on fdatasync { every 3 calls { every 2 calls { await all } }\n skip }",
            n(5),
            n(5),
            n(6),
            Forever,
        ),
        // Full at 3 pending; then one at a time until nothing pends.
        (
            "state full: bool = false\non fdatasync {\n\
             if pending >= 3 { full = true }\n if pending == 0 { full = false }\n\
             if full { await previous }\n defer }",
            n(3),
            n(3),
            n(4),
            UntilSynced,
        ),
        // Three in the life of the log.
        (
            "state left: count = 3\non fdatasync { if left > 0 { left = left - 1\n defer }\n pass }",
            n(3),
            n(3),
            n(4),
            UntilSynced,
        ),
        (
            "state left: count = 3\non fdatasync { if left > 0 { left = left - 1\n skip }\n pass }",
            n(3),
            n(3),
            n(4),
            Forever,
        ),
        // Safe and fast in turn: `skip` is durable, one `defer` follows it.
        (
            "state fast: bool = false\non fdatasync { if fast { fast = false\n defer }\n\
             await all\n fast = true\n skip }",
            n(1),
            n(1),
            n(2),
            UntilSynced,
        ),
        // A burst of 4 ends with a call that waits: 3 before it.
        (
            "state burst: count = 0\non fdatasync {\n\
             if child.active && burst == 0 { burst = 4 }\n\
             if burst > 0 { burst = burst - 1\n if burst == 0 { await all }\n skip }\n\
             await all\n skip }",
            n(3),
            n(3),
            n(4),
            Forever,
        ),
        // Window of 8 or 2 by what was read in this call: the wider one counts.
        (
            "state slow: bool = false\non fdatasync { slow = sync.latency > 5ms\n\
             if slow || child.active { await pending < 8 } else { await pending < 2 }\n defer }",
            n(8),
            n(8),
            n(9),
            UntilSynced,
        ),
        // Three ways by two conditions.
        (
            "on fdatasync { if child.active { if sync.latency > 5ms { await pending < 6 } else { await pending < 3 } }\n\
             else { await previous }\n defer }",
            n(6),
            n(6),
            n(7),
            UntilSynced,
        ),
        // Two readings side by side: below, equal and above all happen.
        (
            "on fdatasync { if sync.latency == pending.age { await pending < 2 }\n\
             else { if sync.latency < pending.age { await pending < 3 } else { await pending < 5 } }\n defer }",
            n(5),
            n(5),
            n(6),
            UntilSynced,
        ),
        // A period of calls and one of time: between two waits 2 calls, a second or none.
        (
            "on fdatasync { every 1s { await all }\n every 3 calls { await all }\n skip }",
            n(2),
            n(2),
            n(3),
            Forever,
        ),
        // The call before found less than 2, so this one finds at most 2: 3 with it.
        (
            "state before: syncs = 0\non fdatasync { if before >= 2 { await all }\n before = pending\n defer }",
            n(3),
            n(3),
            n(4),
            UntilSynced,
        ),
    ]);
}

#[test]
fn notifications() {
    check(&[
        // Nothing pends under `notify.done`; else the one before k is durable.
        (
            "on fdatasync { unless notify.done { await previous }\n defer }",
            n(1),
            n(1),
            n(2),
            UntilSynced,
        ),
        (
            "on fdatasync { unless notify.done { await previous }\n skip }",
            n(1),
            n(1),
            n(2),
            Forever,
        ),
        // What is skipped is on the disk already, so no tail stays.
        (
            "on fdatasync { if notify.done { skip }\n await previous\n defer }",
            n(1),
            n(1),
            n(2),
            UntilSynced,
        ),
        // Without pending bytes nothing pends; a call has a write of its own before it.
        (
            "on fdatasync { if pending.bytes > 0B { await previous }\n defer }",
            n(1),
            n(1),
            n(2),
            UntilSynced,
        ),
        // Two deferred since the disk had all, then a wait.
        (
            "state k: count = 0\non fdatasync { if notify.done { k = 0 }\n\
             if k >= 2 { k = 0\n await all }\n k = k + 1\n defer }",
            n(2),
            n(2),
            n(3),
            UntilSynced,
        ),
        // A call found on the disk does not count, though no sync began after it: 1 after it.
        (
            "state free: bool = false\non fdatasync { if notify.done { free = true\n skip }\n\
             if free { free = false\n defer }\n await previous\n defer }",
            n(1),
            n(1),
            n(2),
            UntilSynced,
        ),
        // A sync that began between the write of k and k itself: after the wait the disk has all,
        // and k pends by number. From then on nothing waits.
        (
            "state seen: bool = false\nstate off: bool = false\non fdatasync {\n\
             if seen && pending == 1 { off = true }\n seen = false\n if off { skip }\n\
             unless notify.done { await previous\n seen = notify.done }\n defer }",
            ANY,
            ANY,
            ANY,
            Forever,
        ),
        // The latency changes only when a sync ends: one call is deferred without a wait each time.
        (
            "state was: bool = false\non fdatasync {\n\
             if sync.latency > 5ms { unless was { was = true\n defer } } else { if was { was = false\n defer } }\n\
             await previous\n defer }",
            n(2),
            n(2),
            n(3),
            UntilSynced,
        ),
    ]);
}

#[test]
fn parameters() {
    check(&[
        // Derived for the whole range, and the same where it was tried.
        (
            "param n: syncs = 8 in 1..=4096\non fdatasync: await pending < n; defer\nflush within 50ms",
            n(8),
            n(4096),
            n(4097),
            Within(50 * MS),
        ),
        (
            "param n: syncs = 3 in 1..=200\non fdatasync: await pending < 2 * n + 1; defer",
            n(7),
            n(401),
            n(402),
            UntilSynced,
        ),
        // Tried value by value: 8 / 2 = 4; 3 / 2 = 1; 1 / 2 = 0, which waits for itself.
        (
            "param n: syncs = 3 in 1..=8\non fdatasync: await pending < n / 2; defer",
            n(1),
            n(4),
            n(5),
            UntilSynced,
        ),
        // A call that sees n finds less than n since the last wait, whatever n was then.
        (
            "param n: count = 2 in 1..=6\nstate k: count = 0\non fdatasync { k = k + 1\n\
             if k >= n { k = 0\n await all }\n skip }",
            n(1),
            n(5),
            n(6),
            Forever,
        ),
        // 30 values are tried one by one.
        (
            "param n: count = 3 in 1..=30\nstate k: count = 0\non fdatasync { k = k + 1\n\
             if k >= n { await all\n k = 0 }\n skip }",
            n(2),
            n(29),
            n(30),
            Forever,
        ),
        // Each call by the window it sees: 4 or 2 by default, 6 at most.
        (
            "param a: syncs = 2 in 1..=3\nparam b: syncs = 4 in 4..=6\non fdatasync {\n\
             if child.active { await pending < a } else { await pending < b }\n defer }",
            n(4),
            n(6),
            n(7),
            UntilSynced,
        ),
        // The parameter is a limit of a reading that can be on either side of it.
        (
            "param d: duration = 5ms in 1us..=1s\non fdatasync {\n\
             if sync.latency > d { await pending < 6 } else { await pending < 2 }\n defer }",
            n(6),
            n(6),
            n(7),
            UntilSynced,
        ),
        // By default it passes; with 1 it does not wait.
        (
            "param fast: count = 0 in 0..=1\non fdatasync { if fast == 0 { pass }\n defer }",
            n(0),
            ANY,
            ANY,
            UntilSynced,
        ),
    ]);
}

/// What cannot be tried value by value is derived, whether or not it is a linear form, and reached where it
/// was tried.
#[test]
fn more_values_than_are_tried() {
    // 64 / 2 by default, 4096 / 2 at most. Every call asks for a sync.
    let text = "param n: syncs = 64 in 1..=4096\non fdatasync: await pending < n / 2; defer";
    let proof = common::proof(text);
    assert_eq!((&proof.obstacle, proof.method), (&None, Method::ExploredAndDerived));
    assert!(proof.exact && !proof.complete);
    let got = (proof.syncs_by_default, proof.syncs, proof.with_progress, proof.age);
    assert_eq!(got, (n(32), n(2048), n(2049), UntilSynced));
}

/// What is neither tried value by value nor derived: the counter rises by a parameter.
#[test]
fn derived_only() {
    let text = "param n: count = 3 in 1..=100\nstate k: count = 0\n\
                on fdatasync { k = k + n\n if k >= 6 { k = 0\n await all }\n skip }";
    let proof = common::proof(text);
    assert_eq!((proof.method, proof.syncs), (Method::Derived, ANY));
    assert_eq!(proof.obstacle, Some(Obstacle::WideRange));
}

/// A wait whose distance has no bound in the text: the distances that are reached are.
#[test]
fn distances_that_are_computed() {
    let text = "state k: syncs = 2\non fdatasync { k = (k + 1) % 3\n await pending < k % 3 + 1\n\
                if child.active { fail EAGAIN }\n defer }";
    let proof = common::proof(text);
    assert_eq!((proof.method, &proof.obstacle, proof.syncs), (Method::Explored, &None, n(3)));
}

/// Numbers of calls that are computed with: what is left out might matter, and without that the walk
/// comes to an end only if the numbers do.
#[test]
fn numbers_without_thresholds() {
    // One of four waits for all: 3 before it.
    let ends = "on fdatasync { if pending % 4 != 3 { skip }\n await all\n skip }";
    // Nobody waits without a child.
    let never_ends = "on fdatasync { if pending % 3 == 2 && child.active { await all }\n defer }";
    let proof = common::proof(ends);
    assert_eq!((proof.method, &proof.obstacle, proof.syncs), (Method::Explored, &None, n(3)));
    let proof = common::proof(never_ends);
    let obstacle = proof.obstacle.as_ref();
    let of_numbers = |o: &Obstacle| matches!(o, Obstacle::NotFollowed(_, Why::EngineNumber));
    assert!(obstacle.is_some_and(of_numbers), "{obstacle:?}");
    assert_eq!((proof.method, proof.syncs), (Method::Derived, ANY));
}
