//! Every fuzz target, without a fuzzer: the corpus, the inputs that once failed, long inputs of one
//! piece, and mutations of the corpus, always the same. `DURAC_FUZZ_SECONDS` is how long each target
//! is given mutations, 1 if it is not set; `DURAC_FUZZ_SEED` decides which.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use durac_fuzz_bodies::mutate::mutated;
use durac_fuzz_bodies::{MOST, Target, seeds, target};
use durac_support::Random;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs};

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Gives a target an input, and keeps the input if it fails: beside the other things that are built.
#[track_caller]
fn give(target: Target, input: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", target.name));
        fs::write(&path, input).unwrap();
        panic!("{what} of `{}` fails; the input is in {}", target.name, path.display());
    }
}

/// On a thread with as little stack as any that runs policies' code.
#[track_caller]
fn check(name: &str) {
    let target = target(name).unwrap();
    let corpus = seeds::of(target).unwrap();
    assert!(corpus.len() >= 5, "{} seeds", corpus.len());
    for (index, seed) in corpus.iter().enumerate() {
        give(target, seed, &format!("seed {index}"));
    }
    for (path, input) in seeds::files(&seeds::folder().join("regressions").join(name)).unwrap() {
        give(target, &input, &path.display().to_string());
    }
    let seconds = number("DURAC_FUZZ_SECONDS", 1);
    // A debug build takes seconds for the longest.
    let most = if seconds > 1 { MOST } else { MOST / 16 };
    for word in target.words {
        let long = word.repeat(most / word.len());
        give(target, long.as_bytes(), &format!("many `{}`", word.escape_debug()));
    }
    let seconds = Duration::from_secs(seconds);
    let mut random = Random(number("DURAC_FUZZ_SEED", 1));
    let (began, mut count) = (Instant::now(), 0u64);
    while began.elapsed() < seconds {
        let before = random;
        let input = mutated(&mut random, &corpus, target.words);
        give(target, &input, &format!("mutation {count} (seed {})", before.0));
        count += 1;
    }
    println!("{name}: {} seeds, {count} mutations", corpus.len());
}

macro_rules! check {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_target_is_here() {
            let names = durac_fuzz_bodies::TARGETS.map(|target| target.name);
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

check!(
    parse,
    format,
    compile,
    words,
    elf,
    code,
    note,
    trace,
    strace,
    replay,
    ring,
    page,
    environment
);
