//! Syncs that take long: counted, and told to the administrator while they last, but not each of them.

use crate::log::{Flight, Time};
use std::time::Duration;

/// A sync that takes so long is slow.
pub const SLOW: Duration = Duration::from_secs(1);
/// Between two lines about one log.
const QUIET: Duration = Duration::from_secs(10);

/// What is known of a log's slow syncs.
#[derive(Debug, Default)]
pub struct Slow {
    /// How many there were.
    pub count: u64,
    /// Every sync with a lower number was counted, or was not slow when it was looked at.
    next: u64,
    /// When the last line was printed.
    told: Option<Time>,
}

impl Slow {
    /// The sync is out, or has just ended: counts it if it is slow. Answers its duration if it is to be
    /// told.
    pub fn look(&mut self, flight: &Flight, now: Time) -> Option<Duration> {
        let took = Duration::from_nanos(now.saturating_sub(flight.since));
        if took < SLOW {
            return None;
        }
        if flight.id >= self.next {
            self.count += 1;
            self.next = flight.id + 1;
        }
        let quiet = |told| Duration::from_nanos(now.saturating_sub(told)) < QUIET;
        if self.told.is_some_and(quiet) {
            return None;
        }
        self.told = Some(now);
        Some(took)
    }
}
