//! What is at risk in updates and bytes, for people; no rule reads it.

use crate::log::Log;

impl Log {
    /// Updates that a replay applies to what was written up to now.
    #[must_use]
    pub fn settled_updates(&self) -> u64 {
        self.settled
    }

    /// Updates that are acknowledged and not durable: what a power loss takes now, at most.
    #[must_use]
    pub fn unsynced_updates(&self) -> u64 {
        self.acknowledged_updates.saturating_sub(self.covered_updates)
    }

    /// Whether the number of bytes is not known.
    #[must_use]
    pub fn is_unsure_of_bytes(&self) -> bool {
        self.unsure_of_bytes
    }

    /// Whether the number of updates is not known.
    #[must_use]
    pub fn is_unsure_of_updates(&self) -> bool {
        self.unsure_of_updates
    }

    /// Bytes that are acknowledged and not durable: written before a sync call that a power loss can take.
    #[must_use]
    pub fn unsynced_bytes(&self) -> u64 {
        self.acknowledged_bytes.saturating_sub(self.covered)
    }
}
