//! What is written is read again, however the file is laid out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use durac_support::events::{events, header};
use durac_trace::{End, Event, Reader, Writer, read_all};
use std::io::Read;

fn write(events: &[Event], dropped: u64) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    for event in events {
        writer.event(event).unwrap();
    }
    let (bytes, end) = writer.finish(dropped).unwrap();
    assert_eq!(end, End { events: events.len() as u64, dropped });
    bytes
}

#[test]
fn what_is_written_is_read() {
    for seed in 0..200 {
        let events = events(seed, seed as usize * 3);
        let (header, read, end) = read_all(write(&events, seed).as_slice()).unwrap();
        assert_eq!((header, end.dropped), (durac_support::events::header(), seed));
        assert_eq!(read, events);
    }
}

/// Laid out by another tool, and with other escapes, it is the same trace.
#[test]
fn any_layout_of_the_same_document_is_read() {
    let events = events(7, 300);
    let bytes = write(&events, 1);
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let pretty = String::from_utf8(bytes).unwrap();
    assert_eq!(value["events"].as_array().unwrap().len(), 300);
    let spread = pretty.replace(':', "\r\n\t : ").replace(",\"", " ,\n\n \"");
    let escaped = pretty.replace("ü", "\\u00fc").replace("🦀", "\\ud83e\\udd80");
    for text in [spread, escaped] {
        let (_, read, _) = read_all(text.as_bytes()).unwrap();
        assert_eq!(read, events);
    }
}

/// A pipe gives what it has: a byte, or a piece that ends inside a token.
struct Drip<'a>(&'a [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.1.min(buffer.len()).min(self.0.len());
        let (piece, rest) = self.0.split_at(n);
        buffer[..n].copy_from_slice(piece);
        self.0 = rest;
        Ok(n)
    }
}

#[test]
fn the_size_of_the_pieces_does_not_matter() {
    let events = events(3, 200);
    let bytes = write(&events, 0);
    for size in [1, 2, 3, 7, 4096] {
        let reader = Reader::open(Drip(&bytes, size)).unwrap();
        assert_eq!(reader.collect::<Result<Vec<_>, _>>().unwrap(), events);
    }
}
