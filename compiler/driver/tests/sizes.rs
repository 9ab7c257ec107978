//! Policies of any size: what is proved of them does not take longer for greater numbers, and is what an
//! exploration without short cuts finds where the numbers are small.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and reads its cases"
)]

use crate::common;
use crate::common::Random;
use crate::common::generator::{Kind, endless, policy};
use durac_prove::explore::Most;
use durac_prove::proof::{Options, Proof, prove};
use durac_prove::relate::relate;
use durac_prove::upper::Upper;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A text; what is lost by default and for all parameters; whether that is exact.
type Row = (&'static str, u64, u64);

/// States of a policy whose numbers make no difference.
const FEW: usize = 6_000;

#[test]
fn numbers_of_any_size() {
    let table: &[Row] = &[
        ("on fdatasync: await pending < 1000000; defer", 1_000_000, 1_000_000),
        (
            "param n: syncs = 64 in 1..=4294967295\nguarantee loss <= n syncs on power_loss\n\
             on fdatasync: await pending < n; defer",
            64,
            4_294_967_295,
        ),
        // One of a thousand waits for all: 999 before it.
        ("on fdatasync { every 1000 calls { await all }\n skip }", 999, 999),
        ("on fdatasync { every 900000000 calls { await all }\n skip }", 899_999_999, 899_999_999),
        // The window is never full: the counter comes first.
        (
            "on fdatasync { every 1000 calls { await all }\n await pending < 50000\n skip }",
            999,
            999,
        ),
        // The counter comes later: 49,999 before the one that waits.
        (
            "on fdatasync { every 70000 calls { await all }\n await pending < 50000\n skip }",
            50_000,
            50_000,
        ),
        // After the wait 500 with it, then 999 calls without one.
        ("on fdatasync { every 1000 calls { await pending < 500 }\n defer }", 1_499, 1_499),
        // The shorter period counts.
        (
            "on fdatasync { every 60000 calls { await all }\n every 40000 calls { await all }\n skip }",
            39_999,
            39_999,
        ),
        // Nested: 809,999 before the one that waits.
        (
            "guarantee loss <= 809999 syncs on power_loss\n\
             on fdatasync { every 900 calls { every 900 calls { await all } }\n skip }",
            809_999,
            809_999,
        ),
        (
            "on fdatasync { every 900 calls { every 800 calls { every 700 calls { await all } } }\n skip }",
            503_999_999,
            503_999_999,
        ),
        // After the wait 500 with it, then 809,999 calls without one.
        (
            "on fdatasync { every 900 calls { every 900 calls { await pending < 500 } }\n defer }",
            810_499,
            810_499,
        ),
        // Counters by hand; a period that is a parameter, and may have been its greatest until now.
        (
            "state c: count = 0\nstate d: count = 0\non fdatasync { c = c + 1\n if c >= 900 { c = 0\n \
             d = d + 1\n if d >= 800 { d = 0\n await all } }\n skip }",
            719_999,
            719_999,
        ),
        (
            "param n: count = 100 in 1..=1000000\nstate k: count = 0\non fdatasync { \
             every 900 calls { k = k + 1\n if k >= n { k = 0\n await all } }\n skip }",
            899_999_999,
            899_999_999,
        ),
        // A counter that never stops: 3 between two multiples of 4.
        (
            "state c: count = 0\nguarantee loss <= 3 syncs on power_loss\non fdatasync { c = c + 1\n\
             if c % 4 == 0 { await all }\n skip }",
            3,
            3,
        ),
        (
            "state c: count = 0\non fdatasync { c = c + 1\n if c % 4000 == 0 { await all }\n skip }",
            3_999,
            3_999,
        ),
        (
            "state c: count = 0\non fdatasync { c = c + 1\n if c % 500000 == 0 { await all }\n skip }",
            499_999,
            499_999,
        ),
        // Writes are counted without an end: ten calls with a write each, then one that waits.
        (
            "state w: count = 0\nguarantee loss <= 10 syncs on power_loss\non write { w = w + 1 }\n\
             on fdatasync { if w > 10 { w = 0\n await all\n skip }\n defer }",
            10,
            10,
        ),
        // Two windows: the wider counts.
        (
            "param n: syncs = 64 in 1..=4294967295\nguarantee loss <= n syncs on power_loss\n\
             on fdatasync { if child.active { await pending < n } else { await pending < n / 2 + 1 }\n defer }",
            64,
            4_294_967_295,
        ),
        // A counter up to a parameter, which can be another at the next call.
        (
            "param n: count = 100 in 1..=1000000\nstate k: count = 0\non fdatasync { k = k + 1\n\
             if k >= n { k = 0\n await all }\n skip }",
            99,
            999_999,
        ),
        // What nothing reads costs nothing.
        (
            "state d: count = 0\nstate e: syncs = 0\nguarantee loss <= 5 syncs on power_loss\n\
             on fdatasync { d = d + 1\n e = pending + 2\n await pending < 5\n defer }",
            5,
            5,
        ),
        // A parameter that nothing reads.
        (
            "param n: count = 4 in 1..=1000000\nguarantee loss <= 0 syncs on power_loss\n\
             on fdatasync { if notify.done { await previous\n skip }\n await all\n defer }",
            0,
            0,
        ),
        // Staged up to a parameter.
        (
            "param n: syncs = 48 in 1..=1000000\nguarantee loss <= n - 1 syncs on process_crash\n\
             on write: stage\non fdatasync { if staged >= n { commit; await all }\n skip }\n\
             flush within 10ms",
            47,
            999_999,
        ),
    ];
    for (text, by_default, most) in table {
        let proof = common::proof(text);
        let found = (proof.syncs_by_default, proof.syncs, proof.exact);
        assert_eq!(found, (Most::Count(*by_default), Most::Count(*most), true), "{text}");
        assert!(
            proof.obstacle.is_none() && proof.broken.is_empty(),
            "{text}: {:?}",
            proof.obstacle
        );
        assert!(proof.states < FEW, "{text}: {} states", proof.states);
    }
}

/// Twenty thresholds of one reading.
#[test]
fn many_thresholds() {
    let mut text = "guarantee loss <= 20 syncs on power_loss\non fdatasync {\n".to_owned();
    for n in 1..=20 {
        text.push_str(&format!("if sync.latency > {n}ms {{ await pending < {n} }}\n"));
    }
    text.push_str("await pending < 20\ndefer }");
    let proof = common::proof(&text);
    assert_eq!((proof.syncs, proof.exact, proof.broken.len()), (Most::Count(20), true, 0));
    assert!(proof.states < FEW, "{} states", proof.states);
}

/// One more than is lost is kept, one less is broken: by a run whose end says so.
#[test]
fn bounds_of_large_numbers() {
    for (body, most) in [
        ("on fdatasync: await pending < 1000000; defer", 1_000_000u64),
        ("on fdatasync { every 5000 calls { await all }\n skip }", 4_999),
        ("on write: stage\non fdatasync: await pending < 70000; defer", 70_000),
    ] {
        for (bound, is_kept) in [(most - 1, false), (most, true)] {
            let proof =
                common::proof(&format!("guarantee loss <= {bound} syncs on power_loss\n{body}"));
            assert_eq!(proof.broken.is_empty(), is_kept, "{body}: {bound}");
            for broken in &proof.broken {
                let timeline = broken.timeline.as_ref().unwrap();
                assert!(timeline.contains("more like this"), "{timeline}");
                assert!(timeline.contains(&format!("the last is #{most}\n")), "{timeline}");
            }
        }
    }
}

/// The policies of the standard library.
#[test]
fn the_standard_library_is_small() {
    for ready in durac_stdlib::POLICIES {
        if let Some(compiled) = common::compile(ready.text) {
            let proof = common::proof_of(&compiled);
            assert!(proof.states < 2_000, "{}: {} states", ready.name, proof.states);
        }
    }
}

/// Numbers that calls are compared with, times `by`.
fn scaled(text: &str, by: u64) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let word = |at: Option<usize>| at.and_then(|at| words.get(at)).copied().unwrap_or("");
    let counts = |w: &str| matches!(w.trim_start_matches(['(', '!']), "pending" | "w" | "staged");
    let mut out = Vec::new();
    for (at, now) in words.iter().enumerate() {
        let number: String = now.chars().take_while(char::is_ascii_digit).collect();
        let is_compared = matches!(word(at.checked_sub(1)), "<" | "<=" | ">" | ">=" | "==" | "!=")
            && counts(word(at.checked_sub(2)).rsplit('\n').next().unwrap_or(""));
        let is_period =
            word(at.checked_sub(1)).ends_with("every") && word(Some(at + 1)).starts_with("calls");
        match number.parse::<u64>() {
            Ok(n) if is_compared || is_period => {
                out.push(format!("{}{}", n * by, &now[number.len()..]));
            }
            _ => out.push((*now).to_owned()),
        }
    }
    out.join(" ")
}

#[test]
fn scales_what_it_should() {
    let text =
        "on fdatasync {\nevery 2 calls {\nawait pending < 3\n}\nif (w >= 2 && k < 2) {\ndefer }";
    let wanted =
        "on fdatasync {\nevery 20 calls {\nawait pending < 30\n}\nif (w >= 20 && k < 2) {\ndefer }";
    assert_eq!(scaled(text, 10), wanted);
}

/// What looking for the worst case and repeating calls finds is what every state gives.
#[test]
fn repeated_calls_are_real() {
    let mut random = Random(0x5eed_0004);
    let (mut jumped, mut compared) = (0, 0);
    while compared < 60 {
        let kind = Kind { counters: random.below(2) == 0, ..Kind::HOOKS };
        let text = endless(&scaled(&policy(&mut random, kind), 7));
        let Some(compiled) = common::compile(&text) else { continue };
        let with = |first: usize| -> Proof {
            let options = Options { first, states: 12_000, ..Options::default() };
            prove(&compiled.policy, &compiled.object, &options).unwrap()
        };
        let all = with(usize::MAX);
        if !all.complete {
            continue;
        }
        let soon = with(5);
        let worst = |proof: &Proof| {
            (
                proof.syncs,
                proof.syncs_by_default,
                proof.process.syncs,
                proof.process.syncs_by_default,
            )
        };
        assert_eq!(worst(&soon), worst(&all), "{text}");
        jumped += u64::from(soon.states < all.states);
        compared += 1;
    }
    println!("{jumped} of {compared} ended sooner");
    assert!(jumped > 10, "{jumped}");
}

/// What follows from the counters is never less than what was reached.
#[test]
fn what_is_related_is_not_exceeded() {
    let mut random = Random(0x5eed_0005);
    let (mut bounded, mut exact, mut compared) = (0, 0, 0);
    while compared < 200 {
        let kind = match random.below(3) {
            0 => Kind { wide: true, ..Kind::HOOKS },
            1 => Kind { counters: true, ..Kind::HOOKS },
            _ => Kind::HOOKS,
        };
        let text = endless(&policy(&mut random, kind));
        let Some(compiled) = common::compile(&text) else { continue };
        let options = Options { first: usize::MAX, states: 20_000, ..Options::default() };
        let proof = prove(&compiled.policy, &compiled.object, &options).unwrap();
        let Some(related) = relate(&compiled.policy).filter(|_| proof.complete) else { continue };
        compared += 1;
        let Some(most) = related.greatest() else { continue };
        let upper = Upper::new(&compiled.policy);
        assert!(proof.syncs <= Most::Count(most), "{text}: {most} and {:?}", proof.syncs);
        assert!(proof.process.syncs <= upper.staged_syncs(), "{text}");
        assert!(proof.syncs_by_default <= upper.by_default().0, "{text}");
        bounded += 1;
        exact += u64::from(proof.syncs == Most::Count(most));
    }
    println!("{bounded} bounded, {exact} of them exact, of {compared}");
    assert!(bounded > 60 && exact > 50, "{bounded}, {exact}");
}

/// Counters that are raised where others are full, in one call or two, by hand or with `every`.
fn nested(random: &mut Random) -> String {
    let mut text = String::new();
    for name in ["a", "b", "c"] {
        text.push_str(&format!(
            "state {name}: count = {}\n",
            [0, 0, 0, 1, 3][random.below(5) as usize]
        ));
    }
    let one = |random: &mut Random, names: &[&str]| {
        let mut body = ["await all", "await all", "await pending < 2", "pass"]
            [random.below(4) as usize]
            .to_owned();
        for name in names {
            let period = 2 + random.below(3);
            let (than, to) = (
                [">=", ">=", "==", ">"][random.below(4) as usize],
                [0, 0, 0, 1][random.below(4) as usize],
            );
            let to = match random.below(6) {
                0 => format!("if child.active {{ {name} = {to} }}"),
                1 => format!("{name} = {name} - {period}"),
                _ => format!("{name} = {to}"),
            };
            body = match random.below(2) {
                0 => format!("every {period} calls {{ {body} }}"),
                _ => format!("{name} = {name} + 1; if {name} {than} {period} {{ {to}; {body} }}"),
            };
            if random.below(6) == 0 {
                body.push_str("; await pending < 5");
            }
        }
        body
    };
    let names = ["a", "b", "c"];
    let names = &names[..2 + random.below(2) as usize];
    let end = ["skip", "defer"][random.below(2) as usize];
    text.push_str(&format!("on fdatasync {{ {}; {end} }}\n", one(random, names)));
    match random.below(6) {
        0 => text.push_str("on fsync { a = 0; defer }\n"),
        1 => text.push_str("on fsync { b = b + 1; defer }\n"),
        2 => text.push_str("on write { a = a + 1 }\n"),
        _ => {}
    }
    text
}

/// Nested counters, with every state and by repeating calls: what was derived is not exceeded.
#[test]
fn nested_counters() {
    let mut random = Random(0x5eed_0006);
    let (mut bounded, mut compared, mut exact, mut jumped) = (0, 0, 0, 0);
    while compared < 80 {
        let text = nested(&mut random);
        let Some(compiled) = common::compile(&text) else { continue };
        let with = |first: usize| -> Proof {
            let options = Options { first, states: 10_000, ..Options::default() };
            prove(&compiled.policy, &compiled.object, &options).unwrap()
        };
        let all = with(usize::MAX);
        if !all.complete {
            continue;
        }
        let soon = with(3);
        compared += 1;
        jumped += u64::from(soon.states < all.states);
        assert_eq!((soon.syncs, soon.process.syncs), (all.syncs, all.process.syncs), "{text}");
        let Some(most) = relate(&compiled.policy).and_then(|r| r.greatest()) else { continue };
        assert!(all.syncs <= Most::Count(most), "{text}: {most} and {:?}", all.syncs);
        bounded += 1;
        exact += u64::from(all.syncs == Most::Count(most));
    }
    println!("{bounded} bounded, {exact} exact, {jumped} ended sooner, of {compared}");
    assert!(bounded > 20 && exact > 20, "{bounded}, {exact}");
}

/// Ends a proof after so many states.
#[derive(Debug)]
struct After(usize);

impl durac_driver::Watch for After {
    fn goes_on(&self, states: usize) -> bool {
        states < self.0
    }
}

/// Ends a proof when it has been asked so often.
#[derive(Debug)]
struct Asked(AtomicUsize);

impl durac_driver::Watch for Asked {
    fn goes_on(&self, _: usize) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) > 1
    }
}

/// What is found in a text when the proof ends after so many states.
fn found_after(states: usize, text: &str) -> Vec<(&'static str, String)> {
    found_under(&After(states), text)
}

fn found_under(watch: &dyn durac_driver::Watch, text: &str) -> Vec<(&'static str, String)> {
    let mut sources = durac_grammar::Sources::new();
    let file = sources.add("test.dur", text);
    let options =
        durac_driver::Options { watch: Some(watch), ..durac_driver::Options::new("test") };
    let found = durac_driver::compile(&mut sources, file, &options).analysis.diagnostics;
    found
        .into_iter()
        .map(|d| (d.code.text(), d.message + &d.timeline.unwrap_or_default()))
        .collect()
}

#[test]
fn a_budget_ends_a_proof() {
    // What is set back at a sum of two counters is not derived.
    let text = "guarantee loss <= 809999 syncs on power_loss\nstate c: count = 0\nstate d: count = 0\n\
                on fdatasync { c = c + 1\n if c > 900 { c = 0\n d = d + 1 }\n \
                if d * 3 + c > 2000 { c = 0\n d = 0\n await all }\n skip }\nflush within 1s";
    let found = found_after(3_000, text);
    let (code, message) = found.first().unwrap();
    assert_eq!(*code, "E0504", "{found:?}");
    assert!(message.contains("the budget ended after 3"), "{message}");
    // What was derived stands.
    let text = "guarantee loss <= 9 syncs on power_loss\non fdatasync: await pending < 9; defer";
    let codes: Vec<_> = found_after(1, text).into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, ["W0108"]);
}

/// Waits that are over at once, each beside a write of another thread, make one step a large one.
#[test]
fn a_budget_ends_a_step() {
    let text = "guarantee loss <= 9 syncs on power_loss\nparam n: syncs = 2 in 0..=4\n\
                on fdatasync { if pending.bytes > 1024B { await previous }\n await all\n skip }\n\
                on fsync { if pending.updates > 3 { await previous\n await pending < n\n await previous }\n defer }\n\
                on write { if pending >= 1 { await pending < n\n await previous }\n pass }";
    let found = found_under(&Asked(AtomicUsize::new(300)), text);
    let (code, message) = found.first().unwrap();
    assert_eq!(*code, "E0504", "{found:?}");
    let (_, states) = message.split_once("the budget ended after ").unwrap();
    let states: usize = states.split(' ').next().unwrap().parse().unwrap();
    assert!(states < 100, "{message}");
}

/// What had been found when the budget ended is drawn as it happens, and is not called the shortest.
#[test]
fn a_run_is_drawn_after_the_budget_has_ended() {
    let text = "param n: syncs = 1 in 1..=4\nstate c: syncs = 0\nstate b: bool = false\n\
                guarantee loss <= n syncs on power_loss\n\
                on fdatasync { if b { await pending < c+1\n c = pending }\n \
                if !b { b = pending.updates < 0\n skip }\n defer }";
    let drawn = |asked: usize| {
        let found = found_under(&Asked(AtomicUsize::new(asked)), text);
        found.into_iter().find(|(_, message)| message.contains("that breaks the guarantee"))
    };
    let (_, whole) = drawn(usize::MAX).unwrap();
    assert!(whole.contains("the shortest run"), "{whole}");
    // Ended sooner or later: there is a drawing, or none.
    let cut: Vec<String> = (1..60)
        .filter_map(|asks| drawn(asks * 50))
        .map(|(_, message)| message)
        .filter(|message| !message.contains("the shortest run"))
        .collect();
    assert!(!cut.is_empty());
    for message in cut {
        assert!(
            message.contains("a run that breaks") && message.contains("fdatasync #2"),
            "{message}"
        );
    }
}

/// What becomes durable makes room for more: from the fourth call on nothing waits.
#[test]
fn less_can_be_lost_at_any_time() {
    let text = "state k: count = 0\non fdatasync { if k < 3 { k = k + 1\n await previous\n defer }\n skip }";
    let compiled = common::compile(text).unwrap();
    assert_eq!(relate(&compiled.policy).unwrap().greatest(), None);
    assert_eq!(common::proof_of(&compiled).syncs, Most::Unbounded);
}
