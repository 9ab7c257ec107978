//! What the result of a write or sync says about the data: the only place that judges error numbers.

use crate::clock;
use crate::fault_injection::{Fault, injects};
use durac_engine::{Errno, Time};
use libc::{EAGAIN, EALREADY, EBADF, EBUSY, EINPROGRESS, EINTR, EINVAL};
use std::time::Duration;

/// What a sync has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// What was written before it began is durable.
    Durable,
    /// It says nothing: it did not run, or it ran on another file.
    Nothing,
    /// Data may be lost: the log stops.
    Failed(Errno),
}

/// Judges a sync. `proved`: its descriptor was the log's file after it had returned.
#[must_use]
pub fn completion(result: Result<(), Errno>, proved: bool) -> Completion {
    match result {
        Ok(()) if proved => Completion::Durable,
        Ok(()) => Completion::Nothing,
        Err(EBADF | EINVAL) if !proved => Completion::Nothing,
        Err(errno) if is_transient(errno) => Completion::Nothing,
        Err(errno) => Completion::Failed(errno),
    }
}

/// Whether the call may be made again as if nothing had happened. Every other error, an unknown one too,
/// can be the only report of a failed write-back.
#[must_use]
pub fn is_transient(errno: Errno) -> bool {
    matches!(errno, EINTR | EAGAIN | EBUSY | EALREADY | EINPROGRESS)
        && !(errno == EINTR && injects(Fault::StickyInterrupt))
}

/// How often an interrupted call is repeated at once.
const AT_ONCE: u32 = 100;
/// The pause before other repetitions.
const PAUSE: Duration = Duration::from_millis(1);
/// How long a call is repeated. Its caller then gets the error, and nothing stops.
const PATIENCE: Time = 2_000_000_000;

/// The repetitions of a call.
#[derive(Default)]
pub struct Tries {
    interrupted: u32,
    since: Option<Time>,
}

impl Tries {
    /// The call has failed: whether it is to be made again. Pauses before.
    pub fn again(&mut self, errno: Errno) -> bool {
        if !is_transient(errno) {
            return false;
        }
        if errno == EINTR && self.interrupted < AT_ONCE {
            self.interrupted += 1;
            return true;
        }
        let now = clock::now();
        if now.saturating_sub(*self.since.get_or_insert(now)) > PATIENCE {
            return false;
        }
        clock::pause(PAUSE);
        true
    }

    /// The call has made progress.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}
