//! Gathering: how long a turn of an event loop looks for more ready connections, so that all of them share one
//! sync. It changes when the application sees what is ready, never what is durable.
//!
//! A server that syncs in each turn and answers afterwards splits its clients into two groups: those that are
//! ready, and those whose next request arrives while it syncs for the first. So what a turn can hope for is
//! what the last two turns have served together. A turn that has as much at once does not look: a lone
//! client never waits. One that has looked in vain is followed by more and more turns that do not.

/// More connections than these share syncs well enough without waiting for each other: one group's next requests are
/// made while the other is served (docs/performance.md).
pub const MOST: usize = 32;
/// Turns without looking after the longest row of vain ones.
const LONGEST_REST: u32 = 1024;

/// What a thread knows of its turns.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    /// The thread has synced a log since its last turn.
    synced: bool,
    /// What the last turn served, as far as there is room, and how many that were.
    last: [u64; MOST],
    served: usize,
    /// How many the next turn can hope for.
    hoped: usize,
    /// Turns that are not to look.
    rest: u32,
    /// How many turns the next vain one is followed by that do not look.
    penalty: u32,
}

impl Default for Turns {
    fn default() -> Self {
        Self::new()
    }
}

impl Turns {
    /// Of a thread that has had none.
    #[must_use]
    pub const fn new() -> Self {
        Self { synced: false, last: [0; MOST], served: 0, hoped: 0, rest: 0, penalty: 1 }
    }

    /// The thread has synced a log.
    pub fn synced(&mut self) {
        self.synced = true;
    }

    /// A turn begins with so many ready: how many it looks for, if it looks.
    pub fn target(&mut self, ready: usize) -> Option<usize> {
        if !std::mem::take(&mut self.synced) || ready == 0 || ready >= self.hoped {
            return None;
        }
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        Some(self.hoped)
    }

    /// A turn that has looked has found so many.
    pub fn looked(&mut self, target: usize, found: usize) {
        if found >= target {
            self.penalty = 1;
        } else {
            self.rest = self.penalty;
            self.penalty = (self.penalty * 2).min(LONGEST_REST);
        }
    }

    /// A turn serves these: what identifies them is what the application gave `epoll_ctl`.
    pub fn serves(&mut self, ready: impl Iterator<Item = u64> + Clone) {
        let before = self.last.get(..self.served).unwrap_or(&self.last);
        let new = ready.clone().filter(|one| !before.contains(one)).count();
        let both = self.served + new;
        self.hoped = if both > MOST { 0 } else { both };
        self.served = ready.clone().count();
        for (place, one) in self.last.iter_mut().zip(ready) {
            *place = one;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_REST, Turns};

    /// A turn with these ready at once, and those that come when it looks. Returns how many it served.
    fn turn(turns: &mut Turns, ready: &[u64], more: &[u64]) -> (usize, bool) {
        turns.synced();
        let mut all = ready.to_vec();
        let target = turns.target(ready.len());
        if let Some(target) = target {
            all.extend(more.iter().take(target - ready.len()));
            turns.looked(target, all.len());
        }
        turns.serves(all.iter().copied());
        (all.len(), target.is_some())
    }

    #[test]
    fn two_groups_become_one() {
        let mut turns = Turns::new();
        assert_eq!(turn(&mut turns, &[1, 2], &[]), (2, false));
        assert_eq!(turn(&mut turns, &[3, 4, 5], &[1, 2]), (3, false));
        for _ in 0..10 {
            assert_eq!(turn(&mut turns, &[3, 4], &[1, 2, 5]), (5, true));
            assert_eq!(turn(&mut turns, &[1, 2, 3, 4, 5], &[]), (5, false));
        }
    }

    #[test]
    fn a_lone_client_never_waits() {
        let mut turns = Turns::new();
        for _ in 0..100 {
            assert_eq!(turn(&mut turns, &[7], &[]), (1, false));
        }
    }

    #[test]
    fn what_does_not_pay_is_given_up_and_tried_again() {
        let mut turns = Turns::new();
        let looked = (0..100_000).filter(|n| turn(&mut turns, &[n % 2], &[]).1).count();
        let least = 100_000 / (LONGEST_REST as usize + 1);
        assert!((least..least + 20).contains(&looked), "{looked}");
        // A client that goes faster is noticed.
        let mut served = 0;
        for n in 0..3000 {
            served = turn(&mut turns, &[n % 2], &[1 - n % 2]).0;
        }
        assert_eq!(served, 2);
    }

    #[test]
    fn many_do_not_wait_for_each_other() {
        let mut turns = Turns::new();
        let groups: [Vec<u64>; 2] = [(0..20).collect(), (20..50).collect()];
        for n in 0..100 {
            assert!(!turn(&mut turns, &groups[n % 2], &groups[1 - n % 2]).1);
        }
        // Nor does what is left of a turn with all.
        let all: Vec<u64> = (0..50).collect();
        turn(&mut turns, &all, &[]);
        assert!(!turn(&mut turns, &[1, 2], &[]).1);
        assert!(!turn(&mut turns, &[3, 4], &[]).1);
        assert_eq!(turn(&mut turns, &[1, 2], &[3, 4]), (4, true));
    }

    #[test]
    fn without_a_sync_nothing_is_gathered() {
        let mut turns = Turns::new();
        turn(&mut turns, &[1], &[]);
        turn(&mut turns, &[2], &[]);
        assert_eq!(turns.target(1), None);
    }

    #[test]
    fn clients_that_leave_are_not_waited_for() {
        let mut turns = Turns::new();
        turn(&mut turns, &[1, 2], &[]);
        turn(&mut turns, &[3], &[1, 2]);
        assert_eq!(turn(&mut turns, &[1], &[]), (1, true));
        assert_eq!(turns.hoped, 2);
        turn(&mut turns, &[1], &[]);
        assert_eq!(turns.hoped, 1);
    }
}
