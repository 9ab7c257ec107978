//! Threads that do anything to many logs at once: no byte is missing or out of order, no call fails or
//! hangs, no descriptor is left, and no more is at risk than the policy lets be.
//!
//! A run takes seconds. `DURAC_TESTS_LONG=MINUTES` repeats it with new seeds for so long.

use crate::common::{Place, agent, objects, program, witness};
use durac_abi::Object;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Most calls on a log that may be acknowledged before a sync that began after them has ended.
const WINDOW: i32 = 3;

/// In memory if that can be: what a disk adds is time.
fn place(object: &Object) -> Place {
    let memory = Path::new("/dev/shm");
    let place = match memory.exists() {
        true => Place::new_in(memory, object),
        false => Place::new(object),
    };
    let witness = place.path("witness");
    let file = std::fs::File::create(&witness).unwrap();
    file.set_len(512 * WORDS as u64 * 8).unwrap();
    let (outer, inner) = libraries();
    let preload = [outer, &agent(), inner].map(|path| path.to_str().unwrap()).join(" ");
    place.env("LD_PRELOAD", &preload).env("DURAC_TEST_WITNESS", &witness)
}

/// On both sides of the agent: what the application was told, and what the kernel was asked.
fn libraries() -> &'static (PathBuf, PathBuf) {
    static LIBRARIES: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    LIBRARIES
        .get_or_init(|| (witness("stress-outer.so", &["-DOUTER"]), witness("stress-inner.so", &[])))
}

/// Words of a file in the witness's memory, as `tests/shims/shim.c` lays them out.
const WORDS: usize = 10;

/// What the witness has seen: the logs, calls on them, syncs that the kernel was asked for, and the most
/// calls on one of them that were acknowledged and not durable at once.
struct Seen {
    logs: usize,
    calls: u64,
    syncs: u64,
    at_risk: u64,
}

fn seen(place: &Place) -> Seen {
    let bytes = std::fs::read(place.path("witness")).unwrap();
    let words: Vec<u64> =
        bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect();
    let logs: Vec<&[u64]> = words.chunks_exact(WORDS).filter(|slot| slot[1] != 0).collect();
    let sum = |word: usize| logs.iter().map(|slot| slot[word]).sum();
    assert_eq!(sum(4), 0, "calls were told failure");
    // At the end everything acknowledged is durable.
    assert!(logs.iter().all(|slot| slot[5] >= slot[3]), "{logs:?}");
    let at_risk = logs.iter().map(|slot| slot[6]).max().unwrap();
    Seen { logs: logs.len(), calls: sum(2), syncs: sum(8), at_risk }
}

/// How many threads work, and on how many logs.
type Shape = (u64, u64);

fn application(place: &Place, (threads, logs): Shape, seed: u64, steps: u64) {
    let arguments = format!("{seed} {threads} {logs} {steps}");
    let running = place.start_program(&program("stress"), &arguments);
    let done = place.finish_within(running, Duration::from_secs(300));
    let facts = || format!("seed {seed}: {:?} {}", done.out, done.err);
    assert_eq!((done.code, done.err.as_str()), (0, ""), "{}", facts());
    let expected = ["ok".into(), format!("calls {}", threads * steps)];
    assert_eq!(done.out[..2], expected, "{}", facts());
    // The table of all processes' logs; the syncer thread that stays may have a ring.
    assert!(["left 1", "left 2"].contains(&done.out[2].as_str()), "{}", facts());
}

fn run(place: &Place, shape: Shape, seed: u64, steps: u64) -> Seen {
    application(place, shape, seed, steps);
    let seen = seen(place);
    assert!(seen.logs as u64 == shape.1 && seen.calls > steps / 10, "{} calls", seen.calls);
    seen
}

/// Runs it with each seed of this run. At most `bound` calls of a log may be at risk.
fn repeat(object: &Object, engine: &str, bound: u64) {
    let minutes = std::env::var("DURAC_TESTS_LONG").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(60 * minutes.unwrap_or(0));
    let mut seed = 1;
    loop {
        // A call drains the other logs first, so with many of them little is ever at risk.
        for (shape, steps) in [((8, 64), 1000), ((1, 1), 6000)] {
            let place = place(object).env("DURAC_ENGINE", engine);
            let Seen { calls, syncs, at_risk, .. } = run(&place, shape, seed, steps);
            eprintln!("seed {seed}: {calls} calls, {syncs} syncs, {at_risk} at risk");
            assert!(at_risk <= bound, "seed {seed}: {at_risk} calls were at risk");
            assert!(at_risk > 0 && syncs > 0, "seed {seed}: nothing was deferred");
        }
        seed += 1;
        if Instant::now() >= end {
            return;
        }
    }
}

#[test]
fn deferred_with_a_small_window() {
    repeat(&objects::window(WINDOW), "thread", WINDOW as u64);
}

#[test]
fn skipped_with_a_deadline() {
    repeat(&objects::skip(Some(1_000_000)), "thread", u64::MAX);
}

#[test]
fn staged() {
    repeat(&objects::stage(Some(1_000_000)), "thread", u64::MAX);
}

#[test]
fn staged_in_batches() {
    repeat(&objects::batch(WINDOW, Some(5_000_000)), "thread", WINDOW as u64);
}

#[test]
fn staged_through_a_ring() {
    // The kernel is asked by nobody that a library could see.
    let place = Place::new(&objects::batch(WINDOW, None)).env("DURAC_ENGINE", "io_uring");
    application(&place, (8, 64), 1, 1000);
}
