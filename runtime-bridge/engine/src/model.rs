//! What a model checker needs of a [`Log`]: a form in which two logs that will behave alike are
//! equal, and a background sync whose start is chosen when it ends.
//!
//! The rules compare calls with calls, bytes with bytes and flights with flights, and never a number
//! with a constant. So numbers can be counted from the durable frontier, bytes can be replaced by
//! their order, and flights be numbered from the oldest that is still known. Times and the pace
//! decide only *when* a background sync starts; a checker lets it start at every moment instead.
//! No rule reads how many updates were written: a checker does not count them.

use crate::log::{Flight, Log, Time};
use crate::pace::Pace;

/// How far [`Log::rebase`] moved the numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shift {
    /// Subtracted from the numbers of calls; one that would be negative becomes 0.
    pub calls: u64,
    /// Subtracted from the numbers of flights.
    pub flights: u64,
}

impl Log {
    /// Counts calls from the durable frontier and flights from the oldest known, replaces bytes by
    /// their order, and forgets pace, counters and all times but the duration of the last sync.
    pub fn rebase(&mut self) -> Shift {
        let shift = Shift {
            calls: self.durable,
            flights: self.flights.first().map_or(self.next_flight, |a| a.flight.id),
        };
        // Most logs have no flight: a checker does this for every step, and then it allocates nothing.
        let mut few = [self.covered, self.marked.unwrap_or(0), self.written];
        let mut many = Vec::new();
        let bytes: &mut [u64] = if self.flights.is_empty() {
            &mut few
        } else {
            many.extend(few.into_iter().chain(self.flights.iter().map(|a| a.flight.bytes)));
            &mut many
        };
        bytes.sort_unstable();
        let order = |value: u64| {
            let less = bytes.chunk_by(|a, b| a == b).take_while(|same| same.first() < Some(&value));
            less.count() as u64
        };
        let call = |number: u64| number.saturating_sub(shift.calls);
        for number in self.numbers() {
            *number = call(*number);
        }
        self.staged_after = self.staged_after.map(call);
        for airborne in &mut self.flights {
            let flight = &mut airborne.flight;
            flight.id -= shift.flights;
            flight.covers = call(flight.covers);
            flight.bytes = order(flight.bytes);
            flight.stages = flight.stages.saturating_sub(self.unstaged);
            flight.updates = 0;
            flight.since = 0;
            flight.wanted = 0;
            airborne.broken = false;
            airborne.home = airborne.home.map(|home| home - shift.flights);
        }
        self.stages -= self.unstaged;
        self.unstaged = 0;
        self.next_flight -= shift.flights;
        self.covered = order(self.covered);
        self.marked = Some(order(self.marked.unwrap_or(0)));
        self.written = order(self.written);
        (self.updates, self.settled) = (0, 0);
        (self.covered_updates, self.acknowledged_updates) = (0, 0);
        self.acknowledged_bytes = 0;
        self.oldest = self.oldest.map(|_| 0);
        self.oldest_after = self.oldest_after.map(|_| 0);
        self.passed = self.missed().min(1);
        self.passed_and_synced = 0;
        self.landed = 0;
        self.pace = Pace::default();
        self.counters = crate::log::Counters::default();
        shift
    }

    /// Counts as if the calls `from + 1` to `from + count` had never been made. What names one of
    /// them names call `from` then.
    pub fn forget_calls(&mut self, from: u64, count: u64) {
        for number in self.numbers() {
            *number = without(*number, from, count);
        }
        self.staged_after = self.staged_after.map(|after| without(after, from, count));
        for airborne in &mut self.flights {
            airborne.flight.covers = without(airborne.flight.covers, from, count);
        }
    }

    /// Counts as if the oldest call that is not durable had never been made. What named it names the next
    /// one then, which stands for both: a request stays one.
    pub fn forget_bottom(&mut self) {
        let first = self.durable + 1;
        self.change_calls(|number| if number > first { number - 1 } else { number });
    }

    /// The opposite of [`Log::forget_bottom`]: one more call, right after the oldest that is not durable.
    pub fn add_bottom(&mut self) {
        self.add_calls(1, 0);
    }

    /// So many calls more, right after the oldest that is not durable, and so many more staged writes.
    pub fn add_calls(&mut self, count: u64, stages: u64) {
        let first = self.durable + 1;
        self.change_calls(|number| if number > first { number + count } else { number });
        self.stages += stages;
    }

    fn change_calls(&mut self, change: impl Fn(u64) -> u64) {
        for number in self.numbers() {
            *number = change(*number);
        }
        self.staged_after = self.staged_after.map(&change);
        for airborne in &mut self.flights {
            airborne.flight.covers = change(airborne.flight.covers);
        }
    }

    /// The fields that name calls, without those of the flights.
    fn numbers(&mut self) -> [&mut u64; 6] {
        [
            &mut self.calls,
            &mut self.durable,
            &mut self.acknowledged,
            &mut self.requested,
            &mut self.demanded,
            &mut self.full_until,
        ]
    }

    /// A background sync that started when `covers` calls had begun. `tail` says whether it started
    /// after the write that followed them: the last write if they are all calls, that of the last
    /// call if they are all but one.
    ///
    /// Every call after number `covers` followed a write of its own, so an earlier sync cannot have
    /// covered what is written now.
    pub fn start_covering(&mut self, covers: u64, tail: bool) -> Flight {
        let (calls, written) = (self.calls, self.written);
        self.written = self.bytes_before(covers, tail);
        self.calls = covers.min(calls);
        let (stages, commits) = (self.stages, self.commits);
        let whole = self.written == written;
        if !whole {
            self.stages = self.least_stages(if tail { calls } else { covers });
        }
        let later = self.oldest.filter(|_| self.acknowledged > covers || self.stages < stages);
        let flight = self.start(true, false, 0);
        self.calls = calls;
        self.written = written;
        self.stages = stages;
        self.commits = commits && !whole;
        self.oldest_after = later;
        flight
    }

    /// The bytes that a sync covers which started when `covers` calls had begun, see
    /// [`Log::start_covering`].
    fn bytes_before(&self, covers: u64, tail: bool) -> u64 {
        match (self.calls.saturating_sub(covers), tail) {
            (0, true) => self.written,
            (0, false) | (1, true) => self.marked.unwrap_or(0),
            _ => self.covered,
        }
    }

    /// The fewest staged writes that a sync can cover which covers the writes of all calls up to
    /// this one and not all that were staged: one for each call.
    fn least_stages(&self, covers: u64) -> u64 {
        let most = (self.stages).saturating_sub(1).max(self.unstaged);
        (self.unstaged + self.staged(covers)).min(most)
    }

    /// Limits the count of staged writes to `most`; returns whether there were more.
    pub fn cap_stages(&mut self, most: u64) -> bool {
        let more = self.staged_writes().saturating_sub(most);
        self.stages -= more;
        for airborne in &mut self.flights {
            airborne.flight.stages = airborne.flight.stages.min(self.stages);
        }
        more > 0
    }

    /// The number of the last call whose writes are not staged, at least what is durable; none if
    /// no call is staged.
    #[must_use]
    pub fn staged_after(&self) -> Option<u64> {
        self.staged_after.map(|after| after.max(self.durable))
    }

    /// Whether the policy has requested, in a write, a sync of what it has staged.
    #[must_use]
    pub fn is_committing(&self) -> bool {
        self.commits && self.is_loose()
    }

    /// Whether a write has requested a sync that has not been started, staged or not.
    #[must_use]
    pub fn commits(&self) -> bool {
        self.commits
    }

    /// After an error no call does anything but return it: only the error counts.
    pub fn forget_all_but_error(&mut self) {
        *self = Log { error: self.error, ..Log::new(self.rules) };
    }

    /// Whether every call begun but the last `open` is acknowledged, nothing is out, and all calls are staged or
    /// none is: then what is left after a sync that covers them up to one depends on the number of
    /// calls after that, [`Log::notify_done`], [`Log::is_marked`], [`Log::since_request`] and [`Log::since_full`] where
    /// those are not covered, [`Log::sync_latency`], [`Log::staged_after`], [`Log::is_committing`] and the number of
    /// [`Log::staged_writes`] alone.
    #[must_use]
    pub fn is_plain(&self, open: u64) -> bool {
        self.flights.is_empty()
            && self.error.is_none()
            && self.acknowledged + open == self.calls
            && (self.demanded <= self.durable || open > 0)
            && self.staged_after.is_none_or(|after| after <= self.durable)
    }

    /// Whether it is that, the requests are as old as the last `open` calls at most, and no `fsync` is deferred.
    #[must_use]
    pub fn is_regular(&self, open: u64) -> bool {
        let has_new_requests = self.since_request().is_none_or(|since| since <= open);
        self.is_plain(open) && has_new_requests && self.since_full().is_none()
    }

    /// Whether all that was written when the last sync call began is on the disk: then no call can
    /// lose anything, though the last may be durable only by what its bytes say, not by its number.
    #[must_use]
    pub fn is_last_covered(&self) -> bool {
        self.covered >= self.marked.unwrap_or(0)
    }

    /// Whether nothing was written since the last sync call.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.marked.unwrap_or(0) == self.written
    }

    /// Calls since the last that requested a background sync; none if all such are durable.
    #[must_use]
    pub fn since_request(&self) -> Option<u64> {
        (self.requested > self.durable).then(|| self.calls.saturating_sub(self.requested))
    }

    /// Calls since the last that needs an `fsync`; none if all such are durable.
    #[must_use]
    pub fn since_full(&self) -> Option<u64> {
        (self.full_until > self.durable).then(|| self.calls.saturating_sub(self.full_until))
    }

    /// Whether a background sync can start now or later, if nothing else happens.
    #[must_use]
    pub fn is_startable(&self) -> bool {
        self.next(Time::MAX) != crate::log::Step::Idle
    }

    /// Whether something acknowledged would never be synced, if the application made no
    /// other call and every sync succeeded.
    #[must_use]
    pub fn leaves_tail(&self) -> bool {
        self.at_rest().undrained().is_some()
    }

    /// Whether a write would never be written, in the same way.
    #[must_use]
    pub fn leaves_staged(&self) -> bool {
        self.staged_writes() > 0 && self.at_rest().staged_writes() > 0
    }

    /// The log when every sync that it starts by itself has ended with success.
    fn at_rest(&self) -> Log {
        let mut log = self.clone();
        loop {
            let out: Vec<u64> =
                log.flights.iter().filter(|a| a.home.is_none()).map(|a| a.flight.id).collect();
            if out.is_empty() {
                if !log.is_startable() {
                    return log;
                }
                log.start(true, false, 0);
            }
            for id in out {
                log.finish(id, 0, Ok(()));
            }
        }
    }
}

/// A call's number when `count` calls after number `from` are not counted.
#[must_use]
pub fn without(number: u64, from: u64, count: u64) -> u64 {
    number - number.saturating_sub(from).min(count)
}
