//! Brings events into the order in which they ended.
//!
//! Threads hand their events over a moment after they ended, so two can come the wrong way round.
//! Events are held back a little and come out sorted, and such that [`Reader`](crate::Reader)
//! accepts them whatever was lost before.

use crate::event::{Event, Op};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Sorts a stream of events.
#[derive(Debug, Default)]
pub struct Sorter {
    held: BinaryHeap<Reverse<Held>>,
    arrived: u64,
    /// `t` of the last event that came out.
    last: u64,
    /// Whether a log is open, of those that were seen.
    logs: BTreeMap<u32, bool>,
    late: u64,
    stray: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Held {
    event: Event,
    arrived: u64,
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.event.t, self.arrived).cmp(&(other.event.t, other.arrived))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Sorter {
    /// Adds an event.
    pub fn add(&mut self, event: Event) {
        self.held.push(Reverse(Held { event, arrived: self.arrived }));
        self.arrived += 1;
    }

    /// The next event that ended at `until` or before.
    pub fn next(&mut self, until: u64) -> Option<Event> {
        loop {
            let Reverse(Held { event, .. }) = self.held.peek()?;
            if event.t > until {
                return None;
            }
            let (op, log) = (event.op, event.log);
            let open = self.logs.get(&log).copied();
            if op.has_log() && op != Op::Open && open.is_none() {
                // It was opened unseen: before the trace began, or when the ring was full.
                let t = self.last.max(event.begin());
                return Some(self.out(Event { t, op: Op::Open, log, ..Event::default() }));
            }
            let Reverse(Held { event, .. }) = self.held.pop()?;
            let fits = match op {
                Op::Open => open.is_none(),
                Op::Sync | Op::Fork | Op::Reap => true,
                _ => open == Some(true),
            };
            if fits {
                return Some(self.out(event));
            }
            self.stray += 1;
        }
    }

    fn out(&mut self, mut event: Event) -> Event {
        match event.op {
            Op::Open => drop(self.logs.insert(event.log, true)),
            Op::Close => drop(self.logs.insert(event.log, false)),
            _ => {}
        }
        if event.t < self.last {
            self.late += 1;
            event.t = self.last;
        }
        self.last = event.t;
        event
    }

    /// Events that came too late for their place, and stand later than they were.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Events that were left out because their log was closed.
    #[must_use]
    pub fn stray(&self) -> u64 {
        self.stray
    }
}
