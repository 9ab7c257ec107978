//! What a file system says of a file: enough to see that it was written, whoever did it.

use crate::Time;

/// A file that was written so recently may be written again without another time of change (a tick of the kernel is
/// 10 ms at most).
const TICK: Time = 20_000_000;
/// The same, where the file system keeps whole seconds (ext4 with inodes of 128 bytes, NFS from such a one) or every second
/// one (FAT).
const COARSE: Time = 2_000_000_000;
/// Times that are multiples of it are taken for those of such a file system, nanoseconds. By chance both of a file are
/// once in 10^16.
const FINE: i64 = 100_000_000;

/// How long a file is, and when it and what is known of it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub length: i64,
    /// `st_mtim`: seconds and nanoseconds. The program may set it.
    pub written: (i64, i64),
    /// `st_ctim`. The program cannot set it.
    pub changed: (i64, i64),
}

impl Stamp {
    /// Whether the next write will change it, at this time by `CLOCK_REALTIME`: its times are older than the file system
    /// tells apart. A time of writing in the future was set by the program, and the next write sets both.
    #[must_use]
    pub fn is_settled(&self, now: Time) -> bool {
        let is_coarse = self.written.1 % FINE == 0 && self.changed.1 % FINE == 0;
        let tick = if is_coarse { COARSE } else { TICK };
        let (written, changed) = (nanos(self.written), nanos(self.changed));
        let is_future = written >= now.saturating_add(tick);
        let is_old = |time: Time| now >= time.saturating_add(tick);
        is_old(changed) && (is_old(written) || is_future)
    }
}

/// A time in nanoseconds; what lies before 1970 is 0.
fn nanos((seconds, rest): (i64, i64)) -> Time {
    let all = seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    Time::try_from(all).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(written: (i64, i64), changed: (i64, i64), now: Time) -> bool {
        Stamp { length: 0, written, changed }.is_settled(now)
    }

    #[test]
    fn a_stamp_settles_after_a_tick_of_its_file_system() {
        const SECOND: Time = 1_000_000_000;
        for (written, changed) in [((9, 0), (9, 1)), ((9, 1), (9, 0)), ((0, 0), (9, 120_000_001))] {
            let at = nanos(written.max(changed));
            assert!(!settled(written, changed, at + TICK - 1));
            assert!(settled(written, changed, at + TICK));
        }
        // Whole seconds are those of a coarse clock, whichever of the two is later.
        for (written, changed) in [((9, 0), (9, 0)), ((8, 500_000_000), (9, 0)), ((99, 0), (9, 0))]
        {
            assert!(!settled(written, changed, 11 * SECOND - 1));
            assert!(settled(written, changed, 11 * SECOND));
        }
        // The program may set the time of writing to any; where the clock was set back, the other settles then. One before
        // 1970 does at once.
        assert!(settled((i64::MAX, 1), (9, 0), 9 * SECOND + TICK));
        assert!(!settled((9, 0), (i64::MAX, 0), Time::MAX / 4));
        assert!(settled((-9, 1), (-9, 1), COARSE));
    }
}
