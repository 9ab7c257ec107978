//! Clocks.

use crate::{sys, vdso};
use durac_engine::Time;
use std::time::Duration;

/// Now, by `CLOCK_MONOTONIC`, nanoseconds.
#[must_use]
pub fn now() -> Time {
    of(libc::CLOCK_MONOTONIC)
}

/// What a clock shows that always exists, nanoseconds.
#[must_use]
pub fn of(clock: libc::clockid_t) -> Time {
    let time = vdso::clock(clock);
    (time.tv_sec as Time).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as Time)
}

/// Pauses for less than a second.
pub fn pause(time: Duration) {
    sys::sleep(i64::from(time.subsec_nanos()));
}
