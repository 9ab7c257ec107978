//! Clocks.

use durac_engine::Time;

/// Now, by `CLOCK_MONOTONIC`, nanoseconds.
#[must_use]
pub fn now() -> Time {
    of(libc::CLOCK_MONOTONIC)
}

/// What a clock shows that always exists, nanoseconds.
#[must_use]
pub fn of(clock: libc::clockid_t) -> Time {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` has room for the answer.
    unsafe { libc::clock_gettime(clock, &mut time) };
    (time.tv_sec as Time).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as Time)
}
