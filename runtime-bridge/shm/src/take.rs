//! From the ring to the trace: events as they come, handed on in the order in which they ended.
//!
//! Whoever can write to the ring may have put anything there, and may be doing so now. What is taken
//! from it is bounded by its places each time, and what comes out is a trace.

use crate::ring::{Drain, Ring};
use durac_trace::Event;
use durac_trace::Sorter;

/// How long an event is held back, so that one that ended earlier can overtake it, nanoseconds. On a busy machine a thread can
/// be stopped for tens of milliseconds between the end of its call and the event's.
const HOLD: u64 = 200_000_000;
/// An event can have ended so long after the time that the consumer knows, which is that of its last look, nanoseconds.
const AHEAD: u64 = 1_000_000_000;
/// A place of the ring that was reserved that long ago will never be filled, nanoseconds.
const STUCK: u64 = 1_000_000_000;

/// Takes events out of a ring. All times are `CLOCK_MONOTONIC`, nanoseconds.
#[derive(Debug)]
pub struct Taker {
    drain: Drain,
    sorter: Sorter,
    /// Since when the ring has not gone on though something is reserved in it.
    stuck: Option<u64>,
}

/// What a trace lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Events that are not in it.
    pub dropped: u64,
    /// Events that stand later than they were.
    pub late: u64,
}

impl Taker {
    /// The only consumer of `ring`.
    #[must_use]
    pub fn new(ring: Ring) -> Self {
        Self { drain: Drain::new(ring), sorter: Sorter::default(), stuck: None }
    }

    /// The ring.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        self.drain.ring()
    }

    /// Takes what is in the ring, and hands on what nothing can overtake any more.
    pub fn take(&mut self, now: u64, mut out: impl FnMut(&Event)) {
        let any = self.pull(now, self.ring().places()) > 0;
        match self.stuck {
            _ if any || !self.drain.is_reserved() => self.stuck = None,
            None => self.stuck = Some(now),
            Some(since) if now.saturating_sub(since) > STUCK => {
                self.drain.skip();
                self.stuck = None;
            }
            Some(_) => {}
        }
        let until = self.ring().since_began(now).saturating_sub(HOLD);
        while let Some(event) = self.sorter.next(until) {
            out(&event);
        }
    }

    /// Hands on the rest. Whoever reserved a place is gone.
    pub fn end(mut self, now: u64, mut out: impl FnMut(&Event)) -> Missing {
        // Each place once as an event, and once given up.
        let mut rest = 2 * self.ring().places();
        loop {
            rest = rest.saturating_sub(1 + self.pull(now, rest));
            if rest == 0 || !self.drain.skip() {
                break;
            }
        }
        while let Some(event) = self.sorter.next(u64::MAX) {
            out(&event);
        }
        let dropped = self.drain.dropped().saturating_add(self.sorter.stray());
        Missing { dropped, late: self.sorter.late() }
    }

    /// Brings at most this many events to the sorter and returns their number. None ends far in the future: it would be
    /// held back forever. Those that end while this runs do a little.
    fn pull(&mut self, now: u64, most: u64) -> u64 {
        let latest = self.ring().since_began(now).saturating_add(AHEAD);
        let mut count = 0;
        while count < most
            && let Some(event) = self.drain.pop()
        {
            let t = event.t.min(latest);
            self.sorter.add(Event { t, took: event.took.min(t), ..event });
            count += 1;
        }
        count
    }
}
