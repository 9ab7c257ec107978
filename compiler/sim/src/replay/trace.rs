//! What a trace says: statistics that are collected while it is read, so that it need not be kept.

use super::device::{self, Measured};
use durac_trace::{End, Event, Header, Op, Verdict};
use std::collections::BTreeMap;

/// Turns that are kept, in blocks of neighbours; of a longer trace every second block, or every
/// fourth, and so on.
const TURNS: usize = 1 << 17;
const BLOCK: usize = 256;
/// Durations of syncs that are kept, by the same rule.
const SYNCS: usize = 1 << 17;
/// Sizes of writes that are told apart.
const SIZES: usize = 4096;
/// Moments of forks and ends of children that are kept.
const CHILDREN: usize = 1 << 16;
/// Longer than this nothing happens only when nobody asks for anything: the application is not
/// busy, and what a policy costs cannot be seen.
const PAUSE: u64 = 100_000_000;
/// A trace may say anything. No sync takes more than an hour, ...
const TOOK_MOST: u64 = 3_600_000_000_000;
/// ... and no call writes more than 64 GiB.
const BYTES_MOST: u64 = 64 << 30;
/// Sizes of this share of the writes decide what a command is; the rest are headers and the like.
const COMMON: f64 = 0.95;
/// Less is no command but a coincidence.
const COMMAND_LEAST: u64 = 16;

/// What a thread did between two sync calls, and the second of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Its log.
    pub log: u32,
    /// Bytes it wrote.
    pub bytes: u64,
    /// Time from the end of a sync call to the beginning of the next.
    pub time: u64,
    /// Processor time in that.
    pub cpu: u64,
    /// Duration of the sync call.
    pub took: u64,
    /// The turn before it in the list was the thread's turn before it.
    pub follows: bool,
}

/// Collects what a trace says, event by event.
#[derive(Debug)]
pub struct Collector {
    header: Header,
    /// By number, which may be any.
    threads: BTreeMap<u32, Thread>,
    turns: Vec<Turn>,
    turn_stride: usize,
    turn_count: usize,
    syncs: Vec<Measured>,
    sync_stride: usize,
    sync_count: usize,
    /// Bytes of each log that were synced.
    synced: BTreeMap<u32, u64>,
    sizes: BTreeMap<u64, u64>,
    events: u64,
    calls: u64,
    full: u64,
    bytes: u64,
    children: Vec<(u64, bool)>,
    first: Option<u64>,
    last: u64,
    pauses: u64,
}

/// A thread of the application.
#[derive(Clone, Copy, Debug, Default)]
struct Thread {
    /// Its log, counted from 1; 0 before it has one.
    log: u32,
    calls: u64,
    /// End of its last sync call.
    ended: Option<u64>,
    cpu: u64,
    bytes: u64,
}

/// What a trace says.
#[derive(Clone, Debug)]
pub struct Trace {
    /// What stands before the events.
    pub header: Header,
    /// What stands after them.
    pub end: End,
    /// From the first event to the last, nanoseconds.
    pub time: u64,
    /// The same without pauses.
    pub busy: u64,
    /// Sync calls, without those that had nothing to sync.
    pub calls: u64,
    /// Most of them were `fsync`.
    pub full: bool,
    /// Turns, in order; not all of a long trace.
    pub turns: Vec<Turn>,
    /// Real syncs, in order; not all of a long trace.
    pub syncs: Vec<Measured>,
    /// Threads that sync: the log of each, and its calls.
    pub threads: Vec<(u32, u64)>,
    /// Bytes of a command, if writes are made of equal pieces.
    pub command_bytes: Option<u64>,
    /// Bytes written.
    pub bytes: u64,
    /// A child came (`true`) or went, after so many sync calls.
    pub children: Vec<(u64, bool)>,
}

/// Why a trace cannot be replayed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceUseless {
    /// There is nothing to replay.
    #[error("no sync call of a log is in it")]
    NoCalls,
    /// The device cannot be known from it.
    #[error("no sync is in it")]
    NoSyncs,
}

impl Collector {
    /// Begins.
    #[must_use]
    pub fn new(header: Header) -> Self {
        Self {
            header,
            threads: BTreeMap::new(),
            turns: Vec::new(),
            turn_stride: 1,
            turn_count: 0,
            syncs: Vec::new(),
            sync_stride: 1,
            sync_count: 0,
            synced: BTreeMap::new(),
            sizes: BTreeMap::new(),
            events: 0,
            calls: 0,
            full: 0,
            bytes: 0,
            children: Vec::new(),
            first: None,
            last: 0,
            pauses: 0,
        }
    }

    /// Adds the next event.
    pub fn add(&mut self, event: &Event) {
        self.events += 1;
        match event.op {
            Op::Write | Op::Fsync | Op::Fdatasync => {
                self.pass(event);
                self.call(event);
            }
            Op::Sync if event.result == 0 => {
                self.pass(event);
                // A barrier's sync has nothing to write, and is faster than others.
                if event.bytes > 0 || event.covers == 0 {
                    self.sync(event);
                }
            }
            Op::Fork | Op::Reap if self.children.len() < CHILDREN => {
                self.children.push((self.calls, event.op == Op::Fork));
            }
            _ => {}
        }
    }

    /// Time goes on to the end of an event.
    fn pass(&mut self, event: &Event) {
        let begin = event.begin();
        let still = begin.saturating_sub(self.last);
        if self.first.is_some() && still > PAUSE {
            self.pauses += still;
        }
        self.first.get_or_insert(begin);
        self.last = self.last.max(event.t);
    }

    fn call(&mut self, event: &Event) {
        let thread = self.threads.entry(event.thread).or_default();
        thread.cpu = thread.cpu.saturating_add(event.cpu);
        if event.op == Op::Write {
            let bytes = event.bytes.min(BYTES_MOST);
            thread.bytes = thread.bytes.saturating_add(bytes).min(BYTES_MOST);
            self.bytes = self.bytes.saturating_add(bytes);
            if self.sizes.len() < SIZES || self.sizes.contains_key(&bytes) {
                *self.sizes.entry(bytes).or_default() += 1;
            }
            return;
        }
        let before = std::mem::replace(thread, Thread { ended: Some(event.t), ..*thread });
        (thread.cpu, thread.bytes) = (0, 0);
        if matches!(event.verdict, Verdict::Barrier | Verdict::Refused) || event.result != 0 {
            return;
        }
        thread.log = event.log + 1;
        thread.calls += 1;
        self.calls += 1;
        self.full += u64::from(event.op == Op::Fsync);
        let time = before.ended.map(|ended| event.begin().saturating_sub(ended));
        if let Some(time) = time.filter(|time| *time <= PAUSE) {
            let (cpu, bytes) = (before.cpu.min(time), before.bytes);
            let took = event.took.min(TOOK_MOST);
            self.turn(Turn { log: event.log, bytes, time, cpu, took, follows: true });
        }
    }

    fn turn(&mut self, mut turn: Turn) {
        let (block, place) = (self.turn_count / BLOCK, self.turn_count % BLOCK);
        self.turn_count += 1;
        if !block.is_multiple_of(self.turn_stride) {
            return;
        }
        turn.follows &= place > 0;
        self.turns.push(turn);
        if self.turns.len() == TURNS {
            self.turn_stride *= 2;
            let mut at = 0;
            self.turns.retain(|_| {
                at += 1;
                ((at - 1) / BLOCK).is_multiple_of(2)
            });
        }
    }

    fn sync(&mut self, event: &Event) {
        let took = event.took.min(TOOK_MOST);
        let cpu = (event.sync_cpu > 0).then_some(event.sync_cpu.min(took));
        // Where the file stood when the recording began is not known. Files begin at 0 mostly.
        let synced = self.synced.entry(event.log).or_default();
        let before = synced.div_ceil(device::BLOCK);
        *synced = synced.saturating_add(event.bytes.min(BYTES_MOST));
        let grew = synced.div_ceil(device::BLOCK) > before;
        self.sync_count += 1;
        if !(self.sync_count - 1).is_multiple_of(self.sync_stride) {
            return;
        }
        self.syncs.push(Measured { took, cpu, grew });
        if self.syncs.len() == SYNCS {
            self.sync_stride *= 2;
            let mut at = 0;
            self.syncs.retain(|_| {
                at += 1;
                usize::is_multiple_of(at - 1, 2)
            });
        }
    }

    /// What the whole trace says.
    ///
    /// # Errors
    /// When nothing can be replayed.
    pub fn finish(mut self, end: End) -> Result<Trace, TraceUseless> {
        if self.calls == 0 || self.turns.is_empty() {
            return Err(TraceUseless::NoCalls);
        }
        if self.syncs.is_empty() {
            // From outside only the calls are seen. Each that was not deferred is a sync.
            let took = self.turns.iter().map(|turn| turn.took).filter(|took| *took > 0);
            self.syncs = took.map(|took| Measured { took, cpu: None, grew: false }).collect();
        }
        if self.syncs.is_empty() {
            return Err(TraceUseless::NoSyncs);
        }
        let threads = self.threads.values().filter(|t| t.calls > 0);
        let time = self.last - self.first.unwrap_or(self.last);
        Ok(Trace {
            time,
            busy: time.saturating_sub(self.pauses).max(1),
            calls: self.calls,
            full: self.full * 2 > self.calls,
            threads: threads.map(|t| (t.log - 1, t.calls)).collect(),
            command_bytes: command_bytes(&self.sizes),
            bytes: self.bytes,
            header: self.header,
            turns: self.turns,
            syncs: self.syncs,
            children: self.children,
            end,
        })
    }
}

/// The greatest size of which the common sizes of writes are multiples.
fn command_bytes(sizes: &BTreeMap<u64, u64>) -> Option<u64> {
    let all: u64 = sizes.values().sum();
    let mut common: Vec<(u64, u64)> = sizes.iter().map(|(size, count)| (*count, *size)).collect();
    common.sort_unstable_by(|a, b| b.cmp(a));
    let (mut seen, mut divisor) = (0, 0);
    for (count, size) in common {
        divisor = greatest_divisor(divisor, size);
        seen += count;
        if seen as f64 >= all as f64 * COMMON {
            break;
        }
    }
    (divisor >= COMMAND_LEAST).then_some(divisor)
}

fn greatest_divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(t: u64, took: u64, cpu: u64) -> Event {
        Event { t, op: Op::Fdatasync, took, cpu, verdict: Verdict::Pass, ..Event::default() }
    }

    fn write(t: u64, bytes: u64, cpu: u64) -> Event {
        Event { t, op: Op::Write, took: 1, cpu, bytes, verdict: Verdict::Pass, ..Event::default() }
    }

    fn collected(events: &[Event]) -> Result<Trace, TraceUseless> {
        let mut collector = Collector::new(Header::new(durac_trace::Recorded::default()));
        events.iter().for_each(|event| collector.add(event));
        collector.finish(End { events: events.len() as u64, dropped: 0 })
    }

    #[test]
    fn a_turn_is_what_stands_between_two_sync_calls() {
        let pause = PAUSE + 10;
        let trace = collected(&[
            write(100, 45, 0),
            call(300, 150, 5),
            write(400, 90, 70),
            call(600, 180, 10),
            write(600 + pause, 45, 70),
            call(900 + pause, 200, 10),
        ])
        .unwrap();
        let turn = Turn { bytes: 90, time: 120, cpu: 80, took: 180, follows: true, log: 0 };
        assert_eq!(trace.turns, [Turn { follows: false, ..turn }]);
        assert_eq!((trace.calls, trace.time, trace.busy), (3, 801 + pause, 802));
        assert_eq!(trace.syncs, [Measured { took: 180, cpu: None, grew: false }]);
        assert_eq!(trace.command_bytes, Some(45));
    }

    #[test]
    fn nothing_to_replay() {
        assert_eq!(collected(&[]).unwrap_err(), TraceUseless::NoCalls);
        assert_eq!(collected(&[write(10, 45, 1)]).unwrap_err(), TraceUseless::NoCalls);
    }

    #[test]
    fn a_long_trace_is_thinned_out_in_blocks() {
        let mut events = Vec::new();
        for i in 1..=(TURNS as u64 + 3000) {
            events.push(write(1000 * i, 45 * (1 + i % 3), 10));
            events.push(call(1000 * i + 500, 400, 5));
        }
        let trace = collected(&events).unwrap();
        assert!(trace.turns.len() < TURNS && trace.turns.len() > TURNS / 2 - BLOCK);
        let alone = trace.turns.iter().filter(|turn| !turn.follows).count();
        assert_eq!(alone, trace.turns.len().div_ceil(BLOCK));
        assert_eq!(trace.calls, TURNS as u64 + 3000);
    }

    #[test]
    fn commands_are_found_in_sizes() {
        let sizes = |of: &[(u64, u64)]| command_bytes(&of.iter().copied().collect());
        assert_eq!(sizes(&[(45, 100), (90, 50), (135, 7), (203, 1)]), Some(45));
        assert_eq!(sizes(&[(45, 100), (64, 90)]), None);
        assert_eq!(sizes(&[]), None);
    }
}
