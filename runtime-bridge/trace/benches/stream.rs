//! `cargo bench -p durac-trace`: how fast a trace is read and written, and in how much memory.
//! Prints its figures, asserts nothing.

#[path = "../tests/common/stream.rs"]
mod stream;

use durac_trace::{Reader, Writer};
use std::io::Read;
use std::time::Instant;
use stream::{Stream, peak};

/// Events that stand in memory, so that only reading is measured.
const SHORT: u64 = 1_000_000;
/// Events that stand nowhere.
const LONG: u64 = 10_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let began = Instant::now();
    let mut reader = Reader::open(Stream::new(LONG))?;
    reader.by_ref().try_for_each(|event| event.map(drop))?;
    let seconds = began.elapsed().as_secs_f64();
    println!("{LONG} events made and read: {seconds:.1} s, peak memory {} KiB", peak());

    let mut text = Vec::new();
    Stream::new(SHORT).read_to_end(&mut text)?;
    let mut events = Vec::new();
    for round in 1..=3 {
        let began = Instant::now();
        let mut reader = Reader::open(text.as_slice())?;
        reader.by_ref().try_for_each(|event| event.map(drop))?;
        let read = SHORT as f64 / began.elapsed().as_secs_f64() / 1e6;
        if events.is_empty() {
            events = Reader::open(text.as_slice())?.collect::<Result<Vec<_>, _>>()?;
        }
        let mut writer = Writer::new(std::io::sink(), reader.header())?;
        let began = Instant::now();
        events.iter().try_for_each(|event| writer.event(event))?;
        let written = SHORT as f64 / began.elapsed().as_secs_f64() / 1e6;
        let bytes = text.len() as u64 / SHORT;
        println!(
            "round {round}: {read:.2} M events/s read, {written:.2} M written, {bytes} bytes each"
        );
    }
    Ok(())
}
