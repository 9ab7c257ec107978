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
    quiet: Quiet,
}

/// At most one line about one log in 10 seconds.
#[derive(Debug, Default)]
pub struct Quiet {
    /// When the last line was printed.
    told: Option<Time>,
}

impl Quiet {
    /// Whether a line may be printed now; it then counts as printed.
    pub fn allows(&mut self, now: Time) -> bool {
        let quiet = |told| Duration::from_nanos(now.saturating_sub(told)) < QUIET;
        let allows = !self.told.is_some_and(quiet);
        if allows {
            self.told = Some(now);
        }
        allows
    }
}

impl Slow {
    /// The sync is out, or has just ended: counts it if it is slow. Returns its duration if a line is to
    /// be printed about it.
    pub fn look(&mut self, flight: &Flight, now: Time) -> Option<Duration> {
        let took = Duration::from_nanos(now.saturating_sub(flight.since));
        if took < SLOW {
            return None;
        }
        if flight.id >= self.next {
            self.count += 1;
            self.next = flight.id + 1;
        }
        self.quiet.allows(now).then_some(took)
    }
}
