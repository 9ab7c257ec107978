//! How old acknowledged calls are when they become durable, measured against the policy's deadline
//! (`flush within`).

use durac_engine::Time;

/// Calls are told apart to a 32nd of the deadline, so that these marks last for two deadlines.
const MARKS: usize = 64;
/// Between two lines about one log, nanoseconds.
const QUIET: Time = 10_000_000_000;

/// Calls that were acknowledged at about the same time.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// The first that is not durable.
    first: u64,
    last: u64,
    /// When the first was acknowledged.
    at: Time,
}

/// The acknowledged calls of a log that are not durable, and those that were late.
pub struct Deadlines {
    within: Option<Time>,
    marks: [Mark; MARKS],
    used: usize,
    /// Calls that were older than the deadline when they became durable.
    pub late: u64,
    /// The age of the oldest call when it became durable, nanoseconds.
    pub oldest_ever: Time,
    told: Option<Time>,
}

/// Calls became durable after the deadline, and the administrator is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// How many.
    pub calls: u64,
    /// The age of the oldest.
    pub age: Time,
    /// The deadline.
    pub within: Time,
    /// When the deadline of the oldest was.
    pub due: Time,
}

impl Deadlines {
    /// Of a log that was just opened.
    pub fn new(within: Option<Time>) -> Self {
        let marks = [Mark::default(); MARKS];
        Self { within, marks, used: 0, late: 0, oldest_ever: 0, told: None }
    }

    /// The deadline is this from now on; nothing is acknowledged that is not durable.
    pub fn follow(&mut self, within: Option<Time>) {
        let (late, oldest_ever) = (self.late, self.oldest_ever);
        *self = Self { late, oldest_ever, ..Self::new(within) };
    }

    /// A call was acknowledged, and is not durable.
    pub fn acknowledged(&mut self, call: u64, now: Time) {
        let Some(within) = self.within else { return };
        let newest = self.used.checked_sub(1).and_then(|index| self.marks.get_mut(index));
        match newest {
            Some(mark) if call <= mark.last => return,
            Some(mark) if now.saturating_sub(mark.at) < within / 32 => {
                mark.last = call;
                return;
            }
            _ => {}
        }
        if self.used == MARKS {
            // The two oldest become one, as old as the older: at most too many are counted.
            let [oldest, next, ..] = &mut self.marks;
            (next.first, next.at) = (oldest.first, oldest.at);
            self.forget_oldest();
        }
        if let Some(mark) = self.marks.get_mut(self.used) {
            *mark = Mark { first: call, last: call, at: now };
            self.used += 1;
        }
    }

    /// Whether a call up to this one is not yet known to be durable.
    pub fn waits_for(&self, durable: u64) -> bool {
        self.used > 0 && self.marks.first().is_some_and(|mark| mark.first <= durable)
    }

    /// Calls up to this one are durable.
    pub fn durable(&mut self, upto: u64, now: Time) -> Option<Late> {
        let within = self.within?;
        let mut late: Option<Late> = None;
        while let Some(mark) = self.marks.first_mut().filter(|mark| mark.first <= upto)
            && self.used > 0
        {
            let age = now.saturating_sub(mark.at);
            let calls = mark.last.min(upto) + 1 - mark.first;
            self.oldest_ever = self.oldest_ever.max(age);
            if age > within {
                self.late += calls;
                let due = mark.at.saturating_add(within);
                late.get_or_insert(Late { calls: 0, age, within, due }).calls += calls;
            }
            if mark.last > upto {
                mark.first = upto + 1;
                break;
            }
            self.forget_oldest();
        }
        let late = late?;
        if self.told.is_some_and(|told| now.saturating_sub(told) < QUIET) {
            return None;
        }
        self.told = Some(now);
        Some(late)
    }

    /// When the oldest call was acknowledged that is not durable.
    pub fn oldest(&self) -> Option<Time> {
        self.marks.first().filter(|_| self.used > 0).map(|mark| mark.at)
    }

    fn forget_oldest(&mut self) {
        self.marks.copy_within(1.., 0);
        self.used -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{Deadlines, Late};

    #[test]
    fn calls_are_late_after_the_deadline_only() {
        let mut deadlines = Deadlines::new(Some(100));
        for call in 1..=10 {
            deadlines.acknowledged(call, call * 10);
        }
        assert!(!deadlines.waits_for(0) && deadlines.waits_for(1));
        assert_eq!(deadlines.durable(4, 105), None);
        assert_eq!((deadlines.late, deadlines.oldest_ever, deadlines.oldest()), (0, 95, Some(50)));
        let late = Late { calls: 3, age: 125, within: 100, due: 150 };
        assert_eq!(deadlines.durable(10, 175), Some(late));
        assert_eq!((deadlines.late, deadlines.oldest()), (3, None));
    }

    #[test]
    fn nothing_is_forgotten_when_the_marks_are_full() {
        let mut deadlines = Deadlines::new(Some(320));
        let calls = 1000;
        for call in 1..=calls {
            deadlines.acknowledged(call, call * 10);
        }
        assert_eq!(deadlines.oldest(), Some(10));
        assert_eq!(deadlines.durable(calls, 1_000_000).map(|late| late.calls), Some(calls));
    }

    #[test]
    fn a_mark_is_divided() {
        let mut deadlines = Deadlines::new(Some(3200));
        (1..=5).for_each(|call| deadlines.acknowledged(call, 10));
        assert_eq!(deadlines.durable(2, 4000).map(|late| late.calls), Some(2));
        // Told a moment ago.
        assert_eq!(deadlines.durable(5, 5000), None);
        assert_eq!(deadlines.late, 5);
    }
}
