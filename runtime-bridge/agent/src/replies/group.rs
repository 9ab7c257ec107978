//! Which connections are answered together. A loop that is about to sync can hope for those that the last two
//! syncs have answered: it looks for them a moment longer, and all share the sync.

/// Connections are told apart by their number modulo this.
const BITS: usize = 1024;
/// Syncs without looking after the longest row of vain looks.
const LONGEST_REST: u32 = 1024;

/// What is known of them.
#[derive(Clone, Debug)]
pub struct Group {
    /// Those of the last sync.
    last: [u64; BITS / 64],
    /// How many the next sync can hope for.
    hoped: usize,
    /// Syncs that are not to look.
    rest: u32,
    /// How many the next vain one is followed by that do not look.
    penalty: u32,
}

impl Default for Group {
    fn default() -> Self {
        Self { last: [0; BITS / 64], hoped: 0, rest: 0, penalty: 1 }
    }
}

impl Group {
    /// These were answered by one sync.
    pub fn answered(&mut self, numbers: impl Iterator<Item = usize>) {
        let mut now = [0; BITS / 64];
        for number in numbers {
            let number = number % BITS;
            if let Some(word) = now.get_mut(number / 64) {
                *word |= 1_u64 << (number % 64);
            }
        }
        let both = self.last.iter().zip(&now).map(|(last, now)| (last | now).count_ones() as usize);
        self.hoped = both.sum();
        self.last = now;
    }

    /// What was found in vain says nothing any more.
    pub fn forget(&mut self) {
        (self.rest, self.penalty) = (0, 1);
    }

    /// How many the next sync can hope for.
    pub fn hoped(&self) -> usize {
        self.hoped
    }

    /// So many wait: how many a look is for, if there is one.
    pub fn target(&mut self, waiting: usize) -> Option<usize> {
        if waiting >= self.hoped {
            return None;
        }
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        Some(self.hoped)
    }

    /// A look has ended: it found more, or was in vain.
    pub fn looked(&mut self, found: bool) {
        if found {
            self.penalty = 1;
        } else {
            self.rest = self.penalty;
            self.penalty = (self.penalty * 2).min(LONGEST_REST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Group;

    #[test]
    fn hopes_for_the_last_two() {
        let mut group = Group::default();
        assert_eq!(group.target(1), None);
        group.answered([1, 2].into_iter());
        group.answered([3, 4, 5].into_iter());
        assert_eq!(group.target(3), Some(5));
        assert_eq!(group.target(5), None);
        group.answered([1, 2, 3, 4, 5].into_iter());
        group.answered([1, 2, 3, 4, 5].into_iter());
        assert_eq!(group.target(4), Some(5));
    }

    #[test]
    fn a_lone_client_never_waits() {
        let mut group = Group::default();
        for _ in 0..3 {
            group.answered([7].into_iter());
            assert_eq!(group.target(1), None);
        }
    }

    #[test]
    fn vain_looks_become_rare() {
        let mut group = Group::default();
        let looks = |number: usize| {
            group.answered([number % 2].into_iter());
            let looks = group.target(1).is_some();
            if looks {
                group.looked(false);
            }
            looks
        };
        let looked = (0..100_000).map(looks).filter(|looks| *looks).count();
        assert!(looked < 120, "{looked}");
    }
}
