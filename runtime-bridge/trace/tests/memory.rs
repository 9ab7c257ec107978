//! However long a trace is, reading it takes the same memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/stream.rs"]
mod stream;

use durac_trace::Reader;
use stream::{Stream, peak};

/// KiB that reading may take. 10 million events may take 200 MiB; a million is some 90 MB of text.
const BOUND: u64 = 8 << 10;

#[test]
fn a_million_events_take_no_memory() {
    let read = |events| {
        let mut reader = Reader::open(Stream::new(events)).unwrap();
        reader.by_ref().try_for_each(|event| event.map(drop)).unwrap();
        assert_eq!(reader.end().unwrap().events, events);
    };
    read(1000);
    let before = peak();
    assert!(before > 0);
    read(1_000_000);
    let grown = peak() - before;
    assert!(grown < BOUND, "{grown} KiB");
}
