//! The ring under an explorer: loom runs the interleavings of producers and consumer, with what the
//! memory model lets each of them see.
//!
//! `ring.rs` is the crate's own text, compiled on [`sync`]. With its orders weakened the explorer has
//! to find an event that is not whole.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test that fails says so, and uses a part of the crate"
)]

#[path = "../../src/ring.rs"]
mod ring;
mod sync;

use durac_trace::{Event, Op};
use ring::{Drain, Ring};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An event that says the same in several words.
fn event(thread: u32, number: u64) -> Event {
    let (op, t) = (Op::Fdatasync, number);
    Event { op, thread, t, cpu: number, bytes: number, covers: number, ..Event::default() }
}

fn is_whole(event: &Event) -> bool {
    (event.cpu, event.bytes, event.covers) == (event.t, event.t, event.t) && event.t > 0
}

/// Producers with this many events each on a ring of two places; the consumer takes what it finds.
fn produce_and_consume(producers: u32, events: u64) {
    sync::begin();
    let ring = Arc::new(Ring::in_memory(2, 0).unwrap());
    let mut drain = Drain::new(*ring);
    let threads: Vec<_> = (0..producers)
        .map(|thread| {
            let ring = Arc::clone(&ring);
            loom::thread::spawn(move || (1..=events).for_each(|n| ring.push(&event(thread, n))))
        })
        .collect();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.extend(drain.pop());
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    seen.extend(std::iter::from_fn(|| drain.pop()));
    assert!(seen.iter().all(is_whole), "{seen:?}");
    assert_eq!(seen.len() as u64 + drain.dropped(), u64::from(producers) * events);
    assert!(!drain.is_reserved());
    for thread in 0..producers {
        let own: Vec<u64> = seen.iter().filter(|e| e.thread == thread).map(|e| e.t).collect();
        assert!(own.is_sorted_by(|a, b| a < b), "{own:?}");
    }
}

/// Explores `body` with at most this many preemptions and returns the number of executions.
fn explore(preemptions: usize, body: impl Fn() + Sync + Send + 'static) -> usize {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        body();
    });
    let count = count.load(Ordering::Relaxed);
    eprintln!("{count} executions");
    count
}

#[test]
fn one_producer_laps_the_ring() {
    assert!(explore(2, || produce_and_consume(1, 3)) > 100);
}

#[test]
fn two_producers() {
    assert!(explore(1, || produce_and_consume(2, 1)) > 100);
}

#[test]
fn orders_that_are_too_weak_are_found() {
    sync::WEAK.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| explore(2, || produce_and_consume(1, 2))));
    sync::WEAK.set(false);
    assert!(result.is_err(), "the explorer finds nothing wrong");
}
