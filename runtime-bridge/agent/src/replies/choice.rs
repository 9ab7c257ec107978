//! Who syncs for held replies, and who sends them, where a sync takes not much longer than to wake two threads. What is
//! best depends on the number of clients, their pipelines and the processors, so it is measured: each way in turn
//! for a moment, then the one under which most was written, and now and then another, as the load may have changed.
//! None of them changes what is held, or for how long it has to be.

use durac_engine::Time;

/// A way to do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The event loop, when it has nothing else to do. It sends too.
    Loop,
    /// The call that asks for the sync: nothing has to be held.
    Call,
    /// A syncer thread, at once. It sends too.
    Syncer,
}

const WAYS: [Way; 3] = [Way::Loop, Way::Call, Way::Syncer];

/// Another way is better if it is faster by this part: what a window measures varies.
const MARGIN: u64 = 16;
/// How long a way is measured.
const WINDOW: Time = 16_000_000;
/// How long a new way needs until its measurement says something.
const SETTLING: Time = 4_000_000;
/// A window in which nothing was synced for so long says nothing: there was no load, or the disk stood still.
const IDLE: Time = WINDOW / 4;
/// After how many windows another way is tried at first, and at last: the distance grows fourfold.
const SOONEST: u32 = 4;
const LATEST: u32 = 64;

/// What was measured.
#[derive(Clone, Debug)]
pub struct Choice {
    now: usize,
    /// The way is new: what it has done until now says nothing.
    settles: bool,
    /// Bytes per second; 0 if it was not measured yet.
    rates: [u64; WAYS.len()],
    /// When the window began, and how much had been written then.
    began: Option<(Time, u64)>,
    /// When it was last looked.
    looked: Time,
    /// The way that is used but for tries.
    best: usize,
    /// Windows until another way is tried, and how many that is the next time.
    windows: u32,
    distance: u32,
    /// The way that was tried last.
    tried: usize,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            now: 0,
            settles: true,
            rates: [0; WAYS.len()],
            began: None,
            looked: 0,
            best: 0,
            windows: SOONEST,
            distance: SOONEST,
            tried: 0,
        }
    }
}

impl Choice {
    /// The way that is used now.
    pub fn way(&self) -> Way {
        WAYS.get(self.now).copied().unwrap_or(Way::Loop)
    }

    /// So many bytes have been written until now. Returns whether the way is another one.
    pub fn look(&mut self, now: Time, written: u64) -> bool {
        let Some((since, before)) = self.began else {
            self.began = Some((now, written));
            return false;
        };
        if now.saturating_sub(std::mem::replace(&mut self.looked, now)) > IDLE {
            self.began = Some((now, written));
            return false;
        }
        let took = now.saturating_sub(since);
        if took < if self.settles { SETTLING } else { WINDOW } {
            return false;
        }
        self.began = Some((now, written));
        if std::mem::take(&mut self.settles) {
            return false;
        }
        let rate = (written.saturating_sub(before)).saturating_mul(1_000_000_000) / took.max(1);
        if let Some(known) = self.rates.get_mut(self.now) {
            // That of a try replaces an old one, which may be of another load.
            let is_new = self.now != self.best || *known == 0;
            // A window with one sync that takes long says little.
            *known = if is_new { rate } else { *known / 4 * 3 + rate / 4 }.max(1);
        }
        let next = self.next();
        self.settles = next != self.now;
        std::mem::replace(&mut self.now, next) != next
    }

    fn next(&mut self) -> usize {
        // Each once, before one is used for long.
        if let Some(new) = self.rates.iter().position(|rate| *rate == 0) {
            return new;
        }
        let rate = |way: usize| self.rates.get(way).copied().unwrap_or(0);
        let fastest = (0..WAYS.len()).rev().max_by_key(|way| rate(*way)).unwrap_or(0);
        let known = rate(self.best);
        let best = if rate(fastest) > known + known / MARGIN { fastest } else { self.best };
        if best != self.best {
            self.best = best;
            self.distance = SOONEST;
            self.windows = SOONEST;
        }
        self.windows = self.windows.saturating_sub(1);
        if self.windows > 0 {
            return best;
        }
        self.distance = (self.distance * 4).min(LATEST);
        self.windows = self.distance;
        let others = (1..=WAYS.len()).map(|step| (self.tried + step) % WAYS.len());
        self.tried = others.into_iter().find(|way| *way != best).unwrap_or(best);
        self.tried
    }
}

#[cfg(test)]
mod tests {
    use super::{Choice, WAYS, WINDOW, Way};

    /// Syncs in a window.
    const SYNCS: u32 = 16;

    /// Runs so many windows under a load that writes so much with each sync under each way. Returns how many syncs
    /// each way had.
    fn run(choice: &mut Choice, time: &mut (u64, u64), windows: u32, rates: [u64; 3]) -> [u32; 3] {
        let mut used = [0; 3];
        for _ in 0..windows * SYNCS {
            let way = WAYS.iter().position(|way| *way == choice.way()).unwrap();
            used[way] += 1;
            time.0 += WINDOW / u64::from(SYNCS);
            time.1 += rates[way];
            choice.look(time.0, time.1);
        }
        used
    }

    #[test]
    fn the_best_is_used_and_a_change_is_noticed() {
        let (mut choice, mut time) = (Choice::default(), (1, 0));
        choice.look(1, 0);
        let used = run(&mut choice, &mut time, 500, [1000, 900, 800]);
        assert!(used[0] > 450 * SYNCS, "{used:?}");
        assert!(used[1] >= 5 * SYNCS && used[2] >= 5 * SYNCS, "{used:?}");
        run(&mut choice, &mut time, 300, [700, 1000, 800]);
        let used = run(&mut choice, &mut time, 500, [700, 1000, 800]);
        assert!(used[1] > 450 * SYNCS, "{used:?}");
    }

    #[test]
    fn each_is_measured_before_one_is_used_for_long() {
        let (mut choice, mut time) = (Choice::default(), (1, 0));
        choice.look(1, 0);
        let used = run(&mut choice, &mut time, 7, [700, 1000, 500]);
        // A quarter of a window to settle, and one to measure.
        let once = SYNCS / 4 + SYNCS;
        assert_eq!(used, [once, 7 * SYNCS - 2 * once, once]);
    }

    /// What a window measures varies by some percent.
    #[test]
    fn chance_does_not_change_the_way() {
        let (mut choice, mut time) = (Choice::default(), (1, 0));
        choice.look(1, 0);
        run(&mut choice, &mut time, 100, [960, 1000, 700]);
        let before = choice.best;
        for window in 0..1000 {
            let noise = window * 37 % 50;
            run(&mut choice, &mut time, 1, [940 + noise, 1000 - noise, 700]);
            assert_eq!(choice.best, before);
        }
    }

    /// Nor does a sync that takes long in one window.
    #[test]
    fn a_slow_window_does_not_change_the_way() {
        let (mut choice, mut time) = (Choice::default(), (1, 0));
        choice.look(1, 0);
        run(&mut choice, &mut time, 100, [900, 1000, 700]);
        for window in 0..1000 {
            let slow = if window % 10 == 0 { 400 } else { 0 };
            run(&mut choice, &mut time, 1, [900, 1000 - slow, 700]);
            assert_eq!(choice.best, 1, "{window}");
        }
    }

    /// A pause of the clients, or one of the disk, in the middle of a window.
    #[test]
    fn a_window_with_a_pause_says_nothing() {
        let (mut choice, mut time) = (Choice::default(), (1, 0));
        choice.look(1, 0);
        run(&mut choice, &mut time, 100, [900, 1000, 700]);
        for window in 0..1000 {
            if window % 3 == 0 {
                time.0 += WINDOW;
            }
            run(&mut choice, &mut time, 1, [900, 1000, 700]);
            assert_eq!(choice.best, 1, "{window}");
        }
        assert!(choice.rates[1] > 1000 * u64::from(SYNCS) * 60, "{choice:?}");
    }

    #[test]
    fn without_load_nothing_is_learnt() {
        let mut choice = Choice::default();
        for second in 0..100 {
            choice.look(second * 1_000_000_000, second);
            assert_eq!(choice.way(), Way::Loop);
        }
    }
}
