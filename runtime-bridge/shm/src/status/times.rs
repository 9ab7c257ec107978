//! How long the syncs of a log took: a histogram.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper limits of its classes, nanoseconds; the last class has none.
pub const LIMITS: [u64; 15] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
];
/// Its classes.
pub const CLASSES: usize = LIMITS.len() + 1;

/// How many syncs took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncTimes {
    /// Syncs of each class, not those of the classes below.
    pub counts: [u64; CLASSES],
    /// All of their time, nanoseconds.
    pub sum_ns: u64,
}

/// Its place on the page. Its numbers may be of different instants.
#[derive(Debug)]
#[repr(C)]
pub(super) struct TimesPlace([AtomicU64; CLASSES + 1]);

impl TimesPlace {
    pub fn write(&self, times: &SyncTimes) {
        let all = times.counts.into_iter().chain([times.sum_ns]);
        self.0.iter().zip(all).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
    }

    pub fn read(&self) -> SyncTimes {
        let mut words = self.0.iter().map(|word| word.load(Ordering::Relaxed));
        let counts = std::array::from_fn(|_| words.next().unwrap_or(0));
        SyncTimes { counts, sum_ns: words.next().unwrap_or(0) }
    }
}

impl SyncTimes {
    /// Counts a sync.
    pub fn add(&mut self, took: u64) {
        let class = LIMITS.iter().position(|limit| took <= *limit).unwrap_or(LIMITS.len());
        if let Some(count) = self.counts.get_mut(class) {
            *count += 1;
        }
        self.sum_ns = self.sum_ns.saturating_add(took);
    }

    /// The limit below which this part of the syncs is, in thousandths; none if there are none, or it is the last
    /// class.
    #[must_use]
    pub fn quantile(&self, thousandths: u64) -> Option<u64> {
        let all: u64 = self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count));
        let needed = all.saturating_mul(thousandths).div_ceil(1000).max(1);
        let mut below = 0_u64;
        for (count, limit) in self.counts.iter().zip(LIMITS) {
            below = below.saturating_add(*count);
            if all > 0 && below >= needed {
                return Some(limit);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{CLASSES, SyncTimes};

    #[test]
    fn syncs_are_counted_by_class() {
        let mut times = SyncTimes::default();
        assert_eq!(times.quantile(500), None);
        for took in [50_000, 50_001, 3_000_000, 9_000_000_000] {
            times.add(took);
        }
        assert_eq!((times.counts[0], times.counts[1], times.counts[6]), (1, 1, 1));
        assert_eq!((times.counts[CLASSES - 1], times.sum_ns), (1, 9_003_100_001));
        assert_eq!((times.quantile(500), times.quantile(750)), (Some(100_000), Some(5_000_000)));
        assert_eq!(times.quantile(999), None);
    }
}
