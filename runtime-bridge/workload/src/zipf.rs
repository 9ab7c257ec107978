//! The Zipf distribution. `rand_distr` has it too, together with twenty others, `num-traits` and `libm`,
//! which the first build would wait for.

use rand::RngExt as _;
use rand::rngs::SmallRng;

/// Draws `k` from `1..=n` with a probability proportional to `k^-s`.
///
/// By rejection: a draw from the continuous density that is 1 up to 1 and `x^-s` from there to `n`, by the
/// inverse of its distribution function, rounded up, and accepted as often as makes up for the rounding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zipf {
    s: f64,
    /// The area under the density.
    area: f64,
    n: u64,
}

impl Zipf {
    /// `s` must be neither 1 nor negative.
    pub(crate) fn new(n: u64, s: f64) -> Self {
        let n = n.max(1);
        Self { s, area: ((n as f64).powf(1.0 - s) - s) / (1.0 - s), n }
    }

    pub(crate) fn sample(&self, random: &mut SmallRng) -> u64 {
        loop {
            let area = self.area * random.random::<f64>();
            let x = if area <= 1.0 {
                area
            } else {
                (area * (1.0 - self.s) + self.s).powf(1.0 / (1.0 - self.s))
            };
            let k = (x + 1.0).floor();
            let density = if k > 1.0 { x.powf(-self.s) } else { 1.0 };
            if random.random::<f64>() * density < k.powf(-self.s) {
                return (k as u64).min(self.n);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn frequencies_are_those_of_the_distribution() {
        for s in [0.5, 0.99, 2.0] {
            let zipf = Zipf::new(5, s);
            let mut random = SmallRng::seed_from_u64(1);
            let mut counts = [0.0; 5];
            const DRAWS: f64 = 200_000.0;
            for _ in 0..DRAWS as usize {
                counts[zipf.sample(&mut random) as usize - 1] += 1.0 / DRAWS;
            }
            let weight = |k: usize| (k as f64).powf(-s);
            let sum: f64 = (1..=5).map(weight).sum();
            for (at, share) in counts.iter().enumerate() {
                let expected = weight(at + 1) / sum;
                // Four standard deviations are less.
                assert!((share - expected).abs() < 0.005, "{s}: {} {share} {expected}", at + 1);
            }
        }
    }

    #[test]
    fn draws_stay_in_range() {
        let mut random = SmallRng::seed_from_u64(1);
        for n in [0, 1, 2, 100_000_000] {
            let zipf = Zipf::new(n, 0.99);
            let all = (0..10_000).all(|_| (1..=n.max(1)).contains(&zipf.sample(&mut random)));
            assert!(all, "{n}");
        }
    }
}
