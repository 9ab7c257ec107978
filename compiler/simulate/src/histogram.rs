//! Counts of values in ranges that are as wide as an eighth of their beginning.

/// Ranges in an octave, as a power of two.
const PARTS: u32 = 3;
/// Ranges: 8 exact values, then 8 for each octave.
const RANGES: usize = (64 - PARTS as usize + 1) << PARTS;

/// Counts of values. Values below 16 are exact; the greatest value and the sum always are.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Box<[u64; RANGES]>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0; RANGES]), count: 0, sum: 0, max: 0 }
    }
}

impl Histogram {
    /// Adds a value.
    pub fn add(&mut self, value: u64) {
        if let Some(count) = self.counts.get_mut(range(value)) {
            *count += 1;
        }
        self.count += 1;
        self.sum += u128::from(value);
        self.max = self.max.max(value);
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The greatest value; 0 if there is none.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The mean; 0 if there are no values.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.sum as f64 / self.count.max(1) as f64
    }

    /// The end of the range up to which `share` of the values lie, but never more than the
    /// greatest value.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (upper, count) in self.ranges() {
            seen += count;
            if seen >= wanted {
                return upper;
            }
        }
        self.max
    }

    /// The ranges that have values: the greatest value a range can have, and the count.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        let counts = self.counts.iter().copied().enumerate();
        counts.filter(|(_, count)| *count > 0).map(|(at, count)| (last(at).min(self.max), count))
    }
}

/// The range of a value.
fn range(value: u64) -> usize {
    let octave = (63 - (value | 1).leading_zeros()).saturating_sub(PARTS);
    ((octave as usize) << PARTS) + (value >> octave) as usize
}

/// The greatest value of a range.
fn last(range: usize) -> u64 {
    let octave = (range >> PARTS).saturating_sub(1);
    let part = (range - (octave << PARTS)) as u128;
    (((part + 1) << octave) - 1).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_range() {
        for value in (0..2000).chain((0..64).flat_map(|s| [(1 << s) - 1, 1 << s, (1 << s) + 1])) {
            let at = range(value);
            assert!(value <= last(at), "{value}");
            assert!(at == 0 || last(at - 1) < value, "{value}");
            assert!(last(at) - value <= value / 8, "{value}");
        }
        assert_eq!(last(range(u64::MAX)), u64::MAX);
    }

    #[test]
    fn quantiles_and_the_mean() {
        let mut values = Histogram::default();
        (1..=1000).for_each(|v| values.add(v));
        assert_eq!((values.count(), values.max(), values.mean()), (1000, 1000, 500.5));
        assert_eq!([0.0, 0.01, 1.0].map(|share| values.quantile(share)), [1, 10, 1000]);
        assert!((500..=563).contains(&values.quantile(0.5)));
        assert_eq!(Histogram::default().quantile(0.5), 0);
    }
}
