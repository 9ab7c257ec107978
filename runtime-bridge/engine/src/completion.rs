//! What the result of a write or sync says about the data: the only place that judges error numbers.

use crate::log::{Errno, Time};

/// Numbers of Linux (`include/uapi/asm-generic/errno-base.h`, `errno.h`).
const EINTR: Errno = 4;
const EBADF: Errno = 9;
const EAGAIN: Errno = 11;
const EBUSY: Errno = 16;
const EINVAL: Errno = 22;
const EALREADY: Errno = 114;
const EINPROGRESS: Errno = 115;

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
}

/// How often an interrupted call is repeated at once.
const AT_ONCE: u32 = 100;
/// How long a call is repeated. Its caller then gets the error, and nothing stops.
const PATIENCE: Time = 2_000_000_000;

/// The repetitions of a call.
#[derive(Default)]
pub struct Tries {
    interrupted: u32,
    since: Option<Time>,
}

/// What becomes of a call that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It is made again.
    AtOnce,
    /// It is made again after [`Tries::PAUSE`].
    Later,
    /// Its caller gets the error.
    Never,
}

impl Tries {
    /// The pause before repetitions of what was not interrupted, nanoseconds.
    pub const PAUSE: Time = 1_000_000;

    /// The call has failed.
    pub fn again(&mut self, errno: Errno, now: impl FnOnce() -> Time) -> Again {
        if !is_transient(errno) {
            return Again::Never;
        }
        if errno == EINTR && self.interrupted < AT_ONCE {
            self.interrupted += 1;
            return Again::AtOnce;
        }
        let now = now();
        if now.saturating_sub(*self.since.get_or_insert(now)) > PATIENCE {
            return Again::Never;
        }
        Again::Later
    }

    /// The call has made progress.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}
