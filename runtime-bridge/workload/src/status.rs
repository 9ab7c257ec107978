//! What the agent says about itself while it runs: its status page, over all logs.

use durac_shm::status::Status;
use std::path::Path;

/// A status page, kept mapped: it can be read even after its process has ended and removed it.
#[derive(Debug)]
pub struct Page {
    status: Status,
}

impl Page {
    /// The page at `path`; `None` if it does not exist yet.
    #[must_use]
    pub fn open(path: &Path) -> Option<Self> {
        Status::open(path).ok().map(|status| Self { status })
    }

    /// Syncs that have succeeded.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.status.snapshot().logs.iter().map(|log| log.numbers.syncs).sum()
    }

    /// Syncs that took longer than the policy assumes.
    #[must_use]
    pub fn broken_assumptions(&self) -> u64 {
        self.status.snapshot().logs.iter().map(|log| log.numbers.broken_assumptions).sum()
    }

    /// Most syncs that one log ever had acknowledged and not durable.
    #[must_use]
    pub fn max_pending(&self) -> u64 {
        let logs = self.status.snapshot().logs;
        logs.iter().map(|log| log.numbers.max_pending).max().unwrap_or(0)
    }
}
