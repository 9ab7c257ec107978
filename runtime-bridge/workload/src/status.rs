//! What the agent says about itself while it runs: its status page, over all logs.

use durac_shm::status::{LogNumbers, LogStatus, Status};
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

    /// The logs that are or were open.
    #[must_use]
    pub fn logs(&self) -> Vec<LogStatus> {
        self.status.snapshot().logs
    }

    /// Whether it is a supervisor's, which sees the calls of all processes.
    #[must_use]
    pub fn is_supervisor(&self) -> bool {
        self.status.snapshot().is_supervisor
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

    /// What it says of its logs, for whoever asks why a bound was exceeded.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        let page = self.status.snapshot();
        let off = if page.is_off { ", off" } else { "" };
        let of = |log: &LogStatus| {
            let LogNumbers { acknowledged, durable, syncs, errors, error, .. } = log.numbers;
            let open = if log.numbers.descriptors > 0 { "open" } else { "closed" };
            let failed =
                if error > 0 { format!(", stopped by error {error}") } else { String::new() };
            format!(
                "status page{off}: {} is {open}, call {acknowledged} is acknowledged, {durable} is durable; {syncs} syncs succeeded, {errors} failed{failed}",
                log.path
            )
        };
        page.logs.iter().map(of).collect()
    }

    /// Most syncs that one log ever had acknowledged and not durable.
    #[must_use]
    pub fn max_pending(&self) -> u64 {
        let logs = self.status.snapshot().logs;
        logs.iter().map(|log| log.numbers.max_pending).max().unwrap_or(0)
    }
}
