//! What a policy asks of every log, as its object says it.

use crate::log::{Flight, Time};
use durac_abi::object::{Action, Meta};
use durac_abi::{Reading, Records};

/// What the policy asks of every log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules {
    /// `flush within`: nothing acknowledged stays unsynced longer, nanoseconds.
    pub flush_within: Option<Time>,
    /// Whether the policy reads `pending.age`.
    pub keeps_age: bool,
    /// Whether the policy stages writes.
    pub stages: bool,
    /// How the log is divided into updates, if the policy reads their number.
    pub records: Records,
    /// Whether the policy reads how much is written and not durable.
    pub keeps_amounts: bool,
    /// Whether the policy reads which replies depend on nothing that is not durable.
    pub keeps_keys: bool,
    /// Whether the policy holds replies.
    pub holds_replies: bool,
    /// Whether writes that no sync call follows are synced within `flush_within` (`on write: defer`).
    pub defers_writes: bool,
    /// `assume sync <= d`: no sync takes longer, from when it is wanted until it has ended, nanoseconds.
    pub assume_sync: Option<Time>,
}

/// What says how much is written.
const AMOUNTS: [Reading; 4] =
    [Reading::PendingBytes, Reading::PendingUpdates, Reading::CallUpdates, Reading::ReplyClean];

impl From<&Meta> for Rules {
    fn from(meta: &Meta) -> Self {
        Self {
            flush_within: meta.flush_within,
            keeps_age: meta.reads.contains(&Reading::PendingAge),
            stages: meta.stages(),
            records: meta.records,
            keeps_amounts: AMOUNTS.iter().any(|amount| meta.reads.contains(amount)),
            keeps_keys: meta.reads.contains(&Reading::ReplyClean),
            holds_replies: meta.capabilities.contains(&Action::Hold),
            defers_writes: meta.defers_writes,
            assume_sync: meta.assume_sync,
        }
    }
}

impl Rules {
    /// Whether acknowledgements need a time. A clock costs as much as the rest of a hook, so the
    /// caller may pass 0 for `now` to [`crate::Log::acknowledge`] when they do not.
    #[must_use]
    pub fn needs_time(&self) -> bool {
        self.keeps_age || self.flush_within.is_some()
    }

    /// How long a sync has taken that is out at `now` or ended then, if the policy assumes less.
    #[must_use]
    pub fn broken_by(&self, flight: &Flight, now: Time) -> Option<Time> {
        let took = now.saturating_sub(flight.wanted);
        self.assume_sync.is_some_and(|most| took > most).then_some(took)
    }
}
