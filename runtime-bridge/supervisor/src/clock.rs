//! Clocks.

use durac_engine::Time;

/// Now, by `CLOCK_MONOTONIC`, nanoseconds.
pub fn now() -> Time {
    of(libc::CLOCK_MONOTONIC)
}

/// The time of a clock that always exists, nanoseconds.
pub fn of(clock: libc::clockid_t) -> Time {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` has room for the result.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as Time).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as Time)
}
