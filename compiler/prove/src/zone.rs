//! Numbers that are known by upper bounds of their differences: for each pair, the most that one can be
//! greater than the other. Number 0 is the constant 0, and none is less.
//!
//! Architecture invariant: every operation gives a zone that holds of each number the operation says it
//! can be; a bound that is not known is absent, never too small.

/// No bound.
const NONE: i128 = i128::MAX;

/// What is known of some numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    size: usize,
    /// In row `i`, column `j`: the most that number `i` less number `j` can be.
    most: Vec<i128>,
}

fn sum(a: i128, b: i128) -> i128 {
    if a == NONE || b == NONE { NONE } else { a.checked_add(b).unwrap_or(NONE) }
}

impl Zone {
    /// Numbers of which nothing is known but that they are not negative. The first is 0.
    #[must_use]
    pub fn new(size: usize) -> Self {
        let mut zone = Self { size, most: vec![NONE; size * size] };
        for i in 0..size {
            zone.put(i, i, 0);
            zone.put(0, i, 0);
        }
        zone
    }

    fn at(&self, i: usize, j: usize) -> i128 {
        self.most.get(i * self.size + j).copied().unwrap_or(NONE)
    }

    fn put(&mut self, i: usize, j: usize, most: i128) {
        if let Some(place) = self.most.get_mut(i * self.size + j) {
            *place = most;
        }
    }

    /// The most that number `i` less number `j` can be; none if nothing bounds it.
    #[must_use]
    pub fn most(&self, i: usize, j: usize) -> Option<i128> {
        Some(self.at(i, j)).filter(|most| *most != NONE)
    }

    /// The least that number `i` can be.
    #[must_use]
    pub fn least(&self, i: usize) -> i128 {
        -self.most(0, i).unwrap_or(0)
    }

    /// From now on number `i` less number `j` is at most this. Returns whether that is possible.
    #[must_use]
    pub fn limit(&mut self, i: usize, j: usize, most: i128) -> bool {
        if sum(most, self.at(j, i)) < 0 {
            return false;
        }
        if most < self.at(i, j) {
            for a in 0..self.size {
                let to_i = sum(self.at(a, i), most);
                if to_i == NONE {
                    continue;
                }
                for b in 0..self.size {
                    let through = sum(to_i, self.at(j, b));
                    if through < self.at(a, b) {
                        self.put(a, b, through);
                    }
                }
            }
        }
        true
    }

    /// Number `i` is number `j` and this. Returns whether that is possible.
    #[must_use]
    pub fn same(&mut self, i: usize, j: usize, and: i128) -> bool {
        self.limit(i, j, and) && self.limit(j, i, -and)
    }

    /// Number `i` can be anything from 0.
    pub fn forget(&mut self, i: usize) {
        for j in (0..self.size).filter(|j| *j != i) {
            self.put(i, j, NONE);
            // No number is less than 0, so the others exceed it by no more than they are.
            self.put(j, i, self.at(j, 0));
        }
        self.put(0, i, 0);
    }

    /// Number `i` becomes number `j` and this, which is not negative.
    pub fn assign(&mut self, i: usize, j: usize, and: i128) {
        if i == j {
            for k in (0..self.size).filter(|k| *k != i) {
                self.put(i, k, sum(self.at(i, k), and));
                self.put(k, i, sum(self.at(k, i), -and));
            }
            return;
        }
        self.forget(i);
        let _ = self.same(i, j, and);
    }

    /// Number `i` may become any smaller number, down to 0.
    pub fn falls(&mut self, i: usize) {
        for j in (0..self.size).filter(|j| *j != i) {
            self.put(j, i, self.at(j, 0));
        }
        self.put(0, i, 0);
    }

    /// What holds of both.
    #[must_use]
    pub fn join(&self, other: &Zone) -> Zone {
        let pairs = self.most.iter().zip(&other.most);
        Zone { size: self.size, most: pairs.map(|(a, b)| *a.max(b)).collect() }
    }

    /// Whether all that the other holds of can be here.
    #[must_use]
    pub fn includes(&self, other: &Zone) -> bool {
        self.most.iter().zip(&other.most).all(|(here, there)| here >= there)
    }

    /// This zone with every bound that `next` exceeds raised to the next of `steps`, or dropped.
    #[must_use]
    pub fn widened(&self, next: &Zone, steps: &[i128]) -> Zone {
        let raised = |(here, there): (&i128, &i128)| match there > here {
            false => *here,
            true => steps.iter().find(|step| *step >= there).copied().unwrap_or(NONE),
        };
        Zone { size: self.size, most: self.most.iter().zip(&next.most).map(raised).collect() }
    }

    /// The same with every bound that follows from others. It must not be impossible.
    pub fn close(&mut self) {
        for k in 0..self.size {
            for i in 0..self.size {
                let to_k = self.at(i, k);
                if to_k == NONE {
                    continue;
                }
                for j in 0..self.size {
                    let through = sum(to_k, self.at(k, j));
                    if through < self.at(i, j) {
                        self.put(i, j, through);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Zone;

    #[test]
    fn follows_from_others() {
        let mut zone = Zone::new(4);
        assert!(zone.limit(1, 2, -1));
        assert!(zone.limit(2, 3, 4));
        assert!(zone.limit(3, 0, 7));
        assert_eq!((zone.most(1, 0), zone.most(1, 3)), (Some(10), Some(3)));
        assert_eq!(zone.least(2), 1);
        assert!(!zone.limit(2, 0, 0));
    }

    #[test]
    fn changes_and_forgets() {
        let mut zone = Zone::new(3);
        assert!(zone.same(1, 0, 5) && zone.same(2, 1, 2));
        zone.assign(1, 1, 1);
        assert_eq!((zone.most(1, 0), zone.most(2, 1)), (Some(6), Some(1)));
        zone.falls(1);
        assert_eq!((zone.least(1), zone.most(1, 2), zone.most(2, 1)), (0, Some(-1), Some(7)));
        zone.forget(2);
        assert_eq!((zone.most(2, 0), zone.most(1, 0), zone.least(2)), (None, Some(6), 0));
    }

    #[test]
    fn widens_to_steps() {
        let (mut a, mut b) = (Zone::new(2), Zone::new(2));
        assert!(a.same(1, 0, 0) && b.same(1, 0, 1));
        let joined = a.join(&b);
        assert!(joined.includes(&a) && joined.includes(&b));
        assert_eq!(a.widened(&joined, &[-1, 0, 9]).most(1, 0), Some(9));
        assert_eq!(a.widened(&joined, &[0]).most(1, 0), None);
    }
}
