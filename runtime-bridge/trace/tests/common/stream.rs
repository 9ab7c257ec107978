//! The text of a trace, made while it is read and never stored.

use durac_trace::{Event, Header, Op, Recorded, Source, Verdict, Writer};
use std::io::{self, Read};

/// Calls of one thread on one log, each write followed by its sync call and its sync.
pub struct Stream {
    writer: Option<Writer<Piece>>,
    left: u64,
    event: Event,
    piece: Piece,
}

/// What is written and not read yet.
#[derive(Clone, Default)]
struct Piece(std::rc::Rc<std::cell::RefCell<(Vec<u8>, usize)>>);

impl io::Write for Piece {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream {
    /// A trace of this many events.
    pub fn new(events: u64) -> Self {
        let piece = Piece::default();
        let header = Header::new(Recorded { source: Source::Made, ..Recorded::default() });
        let writer = Writer::new(piece.clone(), &header).ok();
        Self { writer, left: events, event: Event::default(), piece }
    }

    fn next(&mut self) -> io::Result<()> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        if self.left == 0 {
            return writer.finish(0).map(drop);
        }
        let event = &mut self.event;
        let (op, took) = match event.op {
            Op::Open | Op::Fdatasync => (Op::Write, 6_000),
            Op::Write if event.t > 0 => (Op::Sync, 90_000),
            Op::Sync => (Op::Fdatasync, 92_000),
            _ => (Op::Open, 0),
        };
        let t = event.t + if op == Op::Fdatasync { 2_000 } else { 100_000 };
        *event = Event { t, op, took, ..Event::default() };
        match op {
            Op::Write => (event.bytes, event.cpu, event.verdict) = (225, 40_000, Verdict::Pass),
            Op::Sync => (event.bytes, event.sync_cpu, event.covers) = (225, 30_000, t / 300_000),
            Op::Fdatasync => (event.cpu, event.verdict) = (1_500, Verdict::Pass),
            _ => event.path = "/data/appendonly.aof.1.incr.aof".into(),
        }
        writer.event(event)?;
        self.left -= 1;
        self.writer = Some(writer);
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut piece = self.piece.0.borrow_mut();
            let (bytes, at) = &mut *piece;
            let rest = bytes.get(*at..).unwrap_or_default();
            if !rest.is_empty() {
                let n = rest.len().min(buffer.len());
                let (to, from) = (buffer.get_mut(..n), rest.get(..n));
                if let (Some(to), Some(from)) = (to, from) {
                    to.copy_from_slice(from);
                }
                *at += n;
                return Ok(n);
            }
            bytes.clear();
            *at = 0;
            drop(piece);
            if self.writer.is_none() {
                return Ok(0);
            }
            self.next()?;
        }
    }
}

/// The most memory that this process has used, KiB.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}
