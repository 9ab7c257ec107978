//! When a requested background sync should start.
//!
//! A sync costs a processor 75–90 µs whatever it covers, so one that covers many calls is much
//! cheaper than many that cover one each. But a sync that starts too late makes the application
//! wait at the end of its window. The pace aims between: start when what waits, plus what will
//! arrive while the sync runs, fills the window. If more arrives meanwhile than the window takes, the application waits
//! anyway, and least often if each sync covers a whole window: then the sync starts when the window is full.

use crate::log::Time;

/// How long a request may wait for company: this long for each call of the window, 80 µs, ...
const PATIENCE_PER_CALL: Time = 80_000;
/// ... but at least 2 ms, so that a narrow window fills, and at most [`Pace::PATIENCE_MOST`].
const PATIENCE_LEAST: Time = 2_000_000;
/// A window so narrow that a sync in the background hides less than its thread costs (measured with
/// 1, 2, 4 and 8: docs/performance.md).
const NARROW: u64 = 4;
/// What arrives is kept in this part of a call.
const PARTS: u64 = 8;

/// What the pace has seen of the application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pace {
    /// Distance of the last `await`: how many calls may be pending before the application waits.
    window: Option<u64>,
    /// Sync calls that come in while a background sync runs, in eighths: more than that only in a few.
    inflow: u64,
    /// When the first of the requests came that no sync covers.
    first: Option<Time>,
    /// Mean duration of a sync.
    latency: Time,
    /// When the application last went on: it was answered, or a sync that it waited for ended.
    went_on: Option<Time>,
    /// Mean time from there to its next call.
    turn: Time,
    /// When it last went on because a sync ended.
    freed: Time,
    /// Mean time between two calls of an application that does not wait; 0 if it has never filled its window.
    spacing: Time,
}

impl Pace {
    /// A request waits at most 10 ms for company, so that the last calls before a pause are soon
    /// durable.
    pub const PATIENCE_MOST: Time = 10_000_000;

    /// The policy lets `distance` calls pend.
    pub(crate) fn set_window(&mut self, distance: u64) {
        self.window = Some(distance.max(1));
    }

    /// The window; none until a policy has waited.
    #[must_use]
    pub fn window(&self) -> Option<u64> {
        self.window
    }

    /// Mean duration of a sync, nanoseconds; 0 before the first.
    #[must_use]
    pub fn latency(&self) -> Time {
        self.latency
    }

    /// Whether the time of a request changes anything: not that of a later one, beside a window that does not
    /// look at the time between calls.
    pub(crate) fn times_requests(&self) -> bool {
        self.first.is_none() || self.window.is_none_or(|window| window <= NARROW)
    }

    /// A call asks for a sync that covers it.
    pub(crate) fn called(&mut self, now: Time) {
        if let Some(before) = self.went_on.replace(now) {
            let turn = now.saturating_sub(before).min(PATIENCE_LEAST);
            self.turn = self.turn - self.turn / 8 + turn / 8;
        }
    }

    /// The application waited for a sync, until now.
    pub(crate) fn waited(&mut self, now: Time) {
        self.went_on = Some(now);
        self.freed = now;
    }

    /// Since then, or since the application last went on, so many calls came until now, and it did not wait.
    pub(crate) fn came(&mut self, since: Time, calls: u64, now: Time) {
        // A few calls say little of the others.
        let enough = self.window.is_some_and(|window| calls > 0 && calls >= window / 4);
        let time = now.saturating_sub(since.max(self.freed));
        if enough && time > 0 {
            let spacing = (time / calls).max(1);
            self.spacing = if self.spacing == 0 { spacing } else { (self.spacing + spacing) / 2 };
        }
    }

    /// Whether a sync takes longer than the application needs to fill its window.
    pub(crate) fn overflows(&self) -> bool {
        let fills = self
            .window
            .filter(|window| *window > NARROW)
            .zip(self.latency.checked_div(self.spacing));
        fills.is_some_and(|(window, calls)| calls >= window)
    }

    /// A request came that no sync covers.
    pub(crate) fn requested(&mut self, now: Time) {
        self.first.get_or_insert(now);
    }

    /// A sync starts, and covers every request so far.
    pub(crate) fn started(&mut self) {
        self.first = None;
    }

    /// A sync ended after `took`.
    pub(crate) fn measured(&mut self, took: Time) {
        self.latency =
            if self.latency == 0 { took } else { self.latency - self.latency / 8 + took / 8 };
    }

    /// A background sync ended; `arrived` calls came while it ran, and the application had to wait
    /// for it if `parked`: then more would have come.
    ///
    /// Syncs do not all take as long, and to have room for the slowest means to sync more often than needed. So the
    /// inflow is a quantile: it rises `rise` times faster than it falls, and one sync in `rise + 1` is waited for. A wider
    /// window has the higher one, because there a sync more costs as much and comes more seldom.
    pub(crate) fn flown(&mut self, arrived: u64, parked: bool) {
        let arrived = arrived.saturating_mul(PARTS);
        let window = self.window.unwrap_or(1);
        let (step, rise) = ((window / 64).max(1), (window / 8).clamp(1, 31));
        if self.inflow == 0 {
            self.inflow = arrived;
        } else if parked || arrived > self.inflow {
            self.inflow += step * rise;
        } else {
            self.inflow -= step.min(self.inflow - arrived);
        }
        self.inflow = self.inflow.min(window.saturating_mul(PARTS));
    }

    /// When a sync should start at the latest for the requests that no sync covers; none without one.
    pub(crate) fn due(&self) -> Option<Time> {
        Some(self.first?.saturating_add(Self::PATIENCE_MOST))
    }

    /// When a sync for `waiting` calls should start; `None` is at once.
    ///
    /// Without an `await` in the policy nothing ever waits, and company costs only loss: at once, or after the
    /// grace of an event loop that syncs for replies.
    ///
    /// With a narrow window a call soon waits for a sync that is out. If calls come sooner than a sync
    /// ends, the one that has to wait loses little by making the sync itself, for all of them: one sync
    /// for the window and one call more, and no thread to wake.
    #[inline]
    pub(crate) fn start_at(
        &self,
        waiting: u64,
        (grace, not_before): (Time, Time),
        now: Time,
    ) -> Option<Time> {
        let at_latest = |patience| {
            let at = self.first.unwrap_or(now).saturating_add(patience);
            (at > now).then_some(at)
        };
        let Some(window) = self.window else {
            let at = self.first.unwrap_or(now).max(not_before).saturating_add(grace);
            return (at > now).then_some(at);
        };
        if window <= NARROW && self.turn < self.latency {
            return at_latest(PATIENCE_LEAST);
        }
        let inflow = self.inflow.div_ceil(PARTS);
        let enough = match self.overflows() {
            true => window,
            false => window.saturating_sub(inflow).min(window - window / 8),
        };
        if waiting >= enough {
            return None;
        }
        let patience = window.saturating_mul(PATIENCE_PER_CALL);
        at_latest(patience.clamp(PATIENCE_LEAST, Self::PATIENCE_MOST))
    }
}
