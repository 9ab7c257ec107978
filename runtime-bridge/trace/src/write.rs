//! Writes a trace.

use crate::event::{End, Event, FORMAT, Header, Op, Verdict};
use std::io::{self, Write};

/// Bytes that are collected before they are written.
const BUFFER: usize = 64 << 10;

/// Writes a trace, one event a line. What is not [finished](Writer::finish) is a file cut off.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    buffer: Vec<u8>,
    events: u64,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a trace.
    ///
    /// # Errors
    /// That of `out`.
    pub fn new(out: W, header: &Header) -> io::Result<Self> {
        let mut buffer = Vec::with_capacity(BUFFER + 4096);
        let recorded = &header.recorded;
        write!(buffer, "{{\"format\":\"{FORMAT}\",\"version\":{},\"recorded\":{{", header.version)?;
        for (name, value) in
            [("tool", &recorded.tool), ("policy", &recorded.policy), ("target", &recorded.target)]
        {
            write!(buffer, "\"{name}\":")?;
            text(&mut buffer, value)?;
            buffer.push(b',');
        }
        buffer.extend(b"\"command\":[");
        for (index, word) in recorded.command.iter().enumerate() {
            if index > 0 {
                buffer.push(b',');
            }
            text(&mut buffer, word)?;
        }
        write!(buffer, "],\"started\":{},\"cores\":{}", recorded.started, recorded.cores)?;
        buffer.extend(b",\"kernel\":");
        text(&mut buffer, &recorded.kernel)?;
        write!(buffer, ",\"source\":\"{}\"}},\"events\":[", recorded.source)?;
        Ok(Self { out, buffer, events: 0, bytes: 0 })
    }

    /// Adds an event. The caller keeps them in order.
    ///
    /// # Errors
    /// That of the output.
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        let line = &mut self.buffer;
        line.extend(if self.events == 0 { b"\n".as_slice() } else { b",\n" });
        self.events += 1;
        line.extend(b"{\"t\":");
        number(line, event.t);
        line.extend(b",\"op\":\"");
        line.extend(event.op.word().as_bytes());
        line.push(b'"');
        for (name, value) in [
            ("log", event.log.into()),
            ("thread", event.thread.into()),
            ("took", event.took),
            ("cpu", event.cpu),
            ("sync_cpu", event.sync_cpu),
            ("bytes", event.bytes),
            ("wait", event.wait),
            ("covers", event.covers),
        ] {
            if value != 0 {
                write!(line, ",\"{name}\":")?;
                number(line, value);
            }
        }
        if event.verdict != Verdict::None {
            write!(line, ",\"verdict\":\"{}\"", event.verdict)?;
        }
        if event.background {
            line.extend(b",\"background\":true");
        }
        if event.result != 0 {
            write!(line, ",\"result\":{}", event.result)?;
        }
        if event.op == Op::Open && !event.path.is_empty() {
            line.extend(b",\"path\":");
            text(line, &event.path)?;
        }
        line.push(b'}');
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// How many events were added.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How many bytes the trace has by now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes + self.buffer.len() as u64
    }

    /// Ends the trace and returns the output and the trailer.
    ///
    /// # Errors
    /// That of the output.
    pub fn finish(mut self, dropped: u64) -> io::Result<(W, End)> {
        let end = End { events: self.events, dropped };
        write!(self.buffer, "\n],\"end\":{{\"events\":{},\"dropped\":{dropped}}}}}\n", end.events)?;
        self.flush()?;
        self.out.flush()?;
        Ok((self.out, end))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Appends a string with its quotes.
fn text(line: &mut Vec<u8>, text: &str) -> io::Result<()> {
    serde_json::to_writer(line, text).map_err(io::Error::from)
}

/// Appends a number, which `write!` does several times slower.
fn number(line: &mut Vec<u8>, mut value: u64) {
    let start = line.len();
    loop {
        line.push(b'0' + (value % 10) as u8);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    if let Some(digits) = line.get_mut(start..) {
        digits.reverse();
    }
}
