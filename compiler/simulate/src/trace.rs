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
/// With more writes than this for each sync call, the application leaves the syncs to a timer (Redis'
/// `appendfsync everysec`), and a turn ends with its write.
const WRITES_PER_CALL: u64 = 16;

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

/// Which calls end a turn of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// The sync calls.
    Syncs,
    /// The writes: the application syncs by a timer, so each write counts as if a sync call followed it.
    Writes,
}

/// Collects what a trace says, event by event.
#[derive(Debug)]
pub struct Collector {
    header: Header,
    by_sync: Turns,
    by_write: Turns,
    syncs: Sample<Measured>,
    /// Bytes of each log that were synced.
    synced: BTreeMap<u32, u64>,
    sizes: BTreeMap<u64, u64>,
    events: u64,
    full: u64,
    bytes: u64,
    first: Option<u64>,
    last: u64,
    pauses: u64,
}

/// The turns of the application's threads, if they end with calls of one kind.
#[derive(Debug)]
struct Turns {
    /// By number, which may be any.
    threads: BTreeMap<u32, Thread>,
    turns: Sample<Turn>,
    calls: u64,
    children: Vec<(u64, bool)>,
}

/// A thread of the application.
#[derive(Clone, Copy, Debug, Default)]
struct Thread {
    /// Its log, counted from 1; 0 before it has one.
    log: u32,
    calls: u64,
    /// End of its last turn.
    ended: Option<u64>,
    cpu: u64,
    bytes: u64,
}

/// Blocks of what was added, from the whole of it: when there are too many, every second block goes.
#[derive(Debug)]
struct Sample<T> {
    kept: Vec<T>,
    most: usize,
    block: usize,
    stride: usize,
    added: usize,
}

impl<T> Sample<T> {
    fn new(most: usize, block: usize) -> Self {
        Self { kept: Vec::new(), most, block, stride: 1, added: 0 }
    }

    /// Adds the next; `make` is told whether it is the first of its block.
    fn add(&mut self, make: impl FnOnce(bool) -> T) {
        let (block, place) = (self.added / self.block, self.added % self.block);
        self.added += 1;
        if !block.is_multiple_of(self.stride) {
            return;
        }
        self.kept.push(make(place == 0));
        if self.kept.len() == self.most {
            self.stride *= 2;
            let (mut at, size) = (0, self.block);
            self.kept.retain(|_| {
                at += 1;
                usize::is_multiple_of((at - 1) / size, 2)
            });
        }
    }
}

impl Turns {
    fn new() -> Self {
        Self {
            threads: BTreeMap::new(),
            turns: Sample::new(TURNS, BLOCK),
            calls: 0,
            children: Vec::new(),
        }
    }

    /// A thread writes, within its turn.
    fn write(&mut self, event: &Event) {
        let thread = self.threads.entry(event.thread).or_default();
        thread.cpu = thread.cpu.saturating_add(event.cpu);
        let bytes = event.bytes.min(BYTES_MOST);
        thread.bytes = thread.bytes.saturating_add(bytes).min(BYTES_MOST);
    }

    /// A call of a thread ends its turn, and counts if it did what it was to do.
    fn end(&mut self, event: &Event, cpu: u64, took: u64, counts: bool) {
        let thread = self.threads.entry(event.thread).or_default();
        thread.cpu = thread.cpu.saturating_add(cpu);
        let before = std::mem::replace(thread, Thread { ended: Some(event.t), ..*thread });
        (thread.cpu, thread.bytes) = (0, 0);
        if !counts {
            return;
        }
        thread.log = event.log + 1;
        thread.calls += 1;
        self.calls += 1;
        let time = before.ended.map(|ended| event.begin().saturating_sub(ended));
        if let Some(time) = time.filter(|time| *time <= PAUSE) {
            let (cpu, bytes) = (before.cpu.min(time), before.bytes);
            let turn = Turn { log: event.log, bytes, time, cpu, took, follows: true };
            self.turns.add(|first| Turn { follows: !first, ..turn });
        }
    }

    fn child(&mut self, born: bool) {
        if self.children.len() < CHILDREN {
            self.children.push((self.calls, born));
        }
    }
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
    /// Which calls end a turn.
    pub counted: Counted,
    /// Such calls, without sync calls that had nothing to sync.
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
            by_sync: Turns::new(),
            by_write: Turns::new(),
            syncs: Sample::new(SYNCS, 1),
            synced: BTreeMap::new(),
            sizes: BTreeMap::new(),
            events: 0,
            full: 0,
            bytes: 0,
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
            Op::Fork | Op::Reap => {
                self.by_sync.child(event.op == Op::Fork);
                self.by_write.child(event.op == Op::Fork);
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
        if event.op != Op::Write {
            let failed = matches!(event.verdict, Verdict::Barrier | Verdict::Refused);
            let counts = !failed && event.result == 0;
            self.full += u64::from(counts && event.op == Op::Fsync);
            self.by_sync.end(event, event.cpu, event.took.min(TOOK_MOST), counts);
            return;
        }
        let bytes = event.bytes.min(BYTES_MOST);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.sizes.len() < SIZES || self.sizes.contains_key(&bytes) {
            *self.sizes.entry(bytes).or_default() += 1;
        }
        self.by_sync.write(event);
        // What the thread did for the write came before it.
        self.by_write.write(event);
        self.by_write.end(event, 0, 0, event.result == 0 && bytes > 0);
    }

    fn sync(&mut self, event: &Event) {
        let took = event.took.min(TOOK_MOST);
        let cpu = (event.sync_cpu > 0).then_some(event.sync_cpu.min(took));
        // Where the file stood when the recording began is not known. Files begin at 0 mostly.
        let synced = self.synced.entry(event.log).or_default();
        let before = synced.div_ceil(device::BLOCK);
        *synced = synced.saturating_add(event.bytes.min(BYTES_MOST));
        let grew = synced.div_ceil(device::BLOCK) > before;
        self.syncs.add(|_| Measured { took, cpu, grew });
    }

    /// What the whole trace says.
    ///
    /// # Errors
    /// When nothing can be replayed.
    pub fn finish(self, end: End) -> Result<Trace, TraceUseless> {
        let writes = self.by_sync.calls.saturating_mul(WRITES_PER_CALL) < self.by_write.calls;
        let synced = self.by_sync.calls > 0 || !self.syncs.kept.is_empty();
        let counted = if writes && synced { Counted::Writes } else { Counted::Syncs };
        let turns = match counted {
            Counted::Syncs => self.by_sync,
            Counted::Writes => self.by_write,
        };
        if turns.calls == 0 || turns.turns.kept.is_empty() {
            return Err(TraceUseless::NoCalls);
        }
        let mut syncs = self.syncs.kept;
        if syncs.is_empty() {
            // From outside only the calls are seen. Each that was not deferred is a sync.
            let took = turns.turns.kept.iter().map(|turn| turn.took).filter(|took| *took > 0);
            syncs = took.map(|took| Measured { took, cpu: None, grew: false }).collect();
        }
        if syncs.is_empty() {
            return Err(TraceUseless::NoSyncs);
        }
        let threads = turns.threads.values().filter(|t| t.calls > 0);
        let time = self.last - self.first.unwrap_or(self.last);
        Ok(Trace {
            time,
            busy: time.saturating_sub(self.pauses).max(1),
            counted,
            calls: turns.calls,
            full: counted == Counted::Syncs && self.full * 2 > turns.calls,
            threads: threads.map(|t| (t.log - 1, t.calls)).collect(),
            command_bytes: command_bytes(&self.sizes),
            bytes: self.bytes,
            header: self.header,
            turns: turns.turns.kept,
            syncs,
            children: turns.children,
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
        let writes: Vec<Event> = (1..100).map(|i| write(1000 * i, 45, 1)).collect();
        assert_eq!(collected(&writes).unwrap_err(), TraceUseless::NoCalls);
    }

    /// Redis' `everysec`: one thread writes, another syncs once a second.
    #[test]
    fn without_a_sync_in_each_turn_the_writes_count() {
        let mut events = Vec::new();
        for i in 1..=500 {
            events.push(write(1000 * i, 45 * (1 + i % 3), 10));
            if i % 200 == 0 {
                let sync =
                    Event { thread: 1, bytes: 9000, covers: 1, ..call(1000 * i + 1, 300, 0) };
                events.push(Event { op: Op::Sync, ..sync.clone() });
                events.push(sync);
            }
        }
        let trace = collected(&events).unwrap();
        assert_eq!((trace.counted, trace.calls, trace.full), (Counted::Writes, 500, false));
        assert_eq!(trace.threads, [(0, 500)]);
        assert_eq!(trace.turns.len(), 499);
        let turn = Turn { bytes: 135, time: 999, cpu: 10, took: 0, follows: true, log: 0 };
        assert_eq!(trace.turns.first(), Some(&Turn { follows: false, ..turn }));
        assert_eq!(trace.syncs.len(), 2);
        // One sync call for few writes is how `always` looks with much pipelining.
        let every_tenth: Vec<Event> = (1..=500)
            .flat_map(|i| {
                [Some(write(1000 * i, 45, 10)), (i % 10 == 0).then(|| call(1000 * i + 500, 400, 5))]
            })
            .flatten()
            .collect();
        assert_eq!(collected(&every_tenth).unwrap().counted, Counted::Syncs);
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
