//! How syncs start and end, in the background and in the application's thread, and how a call waits for them.

use super::{EIO, Event, Next, OF_WRITES, Stepper, THIN, Trail};
use crate::mutants::{Mutant, makes};
use crate::state::{Caller, End, Family, NEVER, Open, State};
use durac_abi::Hook;
use durac_engine::{Able, Wait};
use rustc_hash::FxHashMap;

impl Stepper<'_> {
    pub(super) fn park(
        &mut self,
        state: State,
        open: Open,
        target: u64,
        mut events: Trail,
        out: &mut Vec<Next>,
    ) {
        events.push(Event::Waits(target));
        for awake in [true, false] {
            let mut state = state.clone();
            match state.log.wait(target, awake, Able::ALL) {
                Wait::Ready => {}
                Wait::Sleep if awake => {
                    self.startable(&mut state);
                    state.caller = Caller::Parked(open.clone(), target);
                    out.push(Next::new(events.clone(), state));
                }
                Wait::Sleep => {}
                Wait::Sync => {
                    // Nobody else is about to sync: none is out.
                    state.since = NEVER;
                    self.flies(state, open.clone(), Some(target), events.clone(), out);
                }
            }
        }
    }

    /// After a sync has ended: does the call that waits go on?
    pub(super) fn wake(&mut self, mut state: State, events: Trail, out: &mut Vec<Next>) {
        match std::mem::replace(&mut state.caller, Caller::Idle) {
            Caller::Parked(open, target) if state.log.is_ready(target) => {
                let mut events = events;
                events.push(Event::GoesOn);
                self.begin(state, open, events, out);
            }
            Caller::Doubted(open, covers) if state.log.is_ready(covers) => {
                let result = state.log.error().map_or(Ok(()), Err);
                self.startable(&mut state);
                self.returns(state, &open, result, events, out);
            }
            Caller::Parked(open, target) => self.park(state, open, target, events, out),
            caller => {
                state.caller = caller;
                self.startable(&mut state);
                out.push(Next::new(events, state));
            }
        }
    }

    /// A background sync can be out from now on, if the engine would start one, or if another thread can
    /// drain the log. If other syncs are seen too, one is: it may have started at any moment.
    pub(super) fn startable(&self, state: &mut State) {
        if self.watched && state.log.error().is_none() {
            state.since = state.log.durable();
        } else if state.since == NEVER && (self.starts(state) || drains(state)) {
            state.since = state.log.calls();
        }
    }

    /// Whether the engine starts a background sync, or has one under way.
    pub(super) fn starts(&self, state: &State) -> bool {
        self.glue.starts && state.log.is_startable()
    }

    /// Every way in which a background sync can end that may be out.
    pub(super) fn landings(&mut self, state: &State, out: &mut Vec<Next>) {
        let since = match self.watched && state.log.error().is_none() {
            true => state.log.durable(),
            false => state.since,
        };
        let calls = state.log.calls();
        if since == NEVER {
            return;
        }
        let since = if makes(Mutant::WholeLandings) { calls } else { since };
        let from = out.len();
        // While a call waits no other begins. A sync that does not help it is followed by one that
        // covers everything, which leads where the last of these choices leads.
        let least = match &state.caller {
            Caller::Parked(_, target) => *target,
            _ => 0,
        };
        let regular_from = if self.thin { None } else { state.regular_from() };
        let mut done = regular_from.map(|_| Done::of(state));
        let (first, thin) = (since.max(least), self.thin);
        let (low, high) = match thin && calls.saturating_sub(first) >= 2 * THIN {
            true => (first + THIN, calls - THIN + 1),
            false => (first, first),
        };
        for covers in (first..low).chain(high..=calls) {
            let left = calls - covers;
            if let (Some(from), Some(done)) = (regular_from, &mut done)
                && covers >= from
                && left > 0
                && done.put(left, &mut self.ended)
            {
                continue;
            }
            // It can have started between a write and the call that followed, if anyone can tell.
            let tails: &[bool] = match calls - covers {
                _ if makes(Mutant::NoTail) => &[false],
                0 => &[true, false],
                1 if self.programs.reads(OF_WRITES) => &[true, false],
                _ if self.programs.counts_bytes() => &[true, false],
                _ => &[false],
            };
            for &tail in tails {
                for end in self.ends().into_iter().filter(|(_, result)| result.is_ok()) {
                    self.land(state, covers, tail, end, out);
                }
            }
        }
        if let Some(done) = done {
            done.end(&mut self.ended);
        }
        // It can cover a part of the calls that the oldest stands for, with what was asked for them.
        let first = state.log.durable() + 1;
        let stands_for_more = |(cap, all): (u64, bool)| state.bottom(all) == cap;
        if self.merged.is_some_and(stands_for_more) && since.max(least) <= first {
            let more = state.with_one_more();
            for end in self.ends().into_iter().filter(|(_, result)| result.is_ok()) {
                self.land(&more, first, false, end, out);
            }
        }
        // What it covered does not matter if it fails.
        self.land(state, calls, true, (0, Err(EIO)), out);
        if !self.watched && !self.starts(state) {
            let drains = self.trail().and(Event::Drains);
            out.iter_mut().skip(from).for_each(|next| next.events.put_after(&drains));
        }
    }

    fn land(
        &mut self,
        state: &State,
        covers: u64,
        tail: bool,
        (took, result): End,
        out: &mut Vec<Next>,
    ) {
        if result.is_err() && makes(Mutant::NoFailure) {
            return;
        }
        self.landed += 1;
        if self.is_full(out) {
            return;
        }
        let mut state = state.clone();
        let flight = state.log.start_covering(covers, tail);
        if tail && covers + 1 < state.log.calls() && result.is_ok() {
            // The next call is not durable by its number, but its bytes are on the disk.
            if let Err(place) = state.silent.binary_search(&(covers + 1)) {
                state.silent.insert(place, covers + 1);
            }
        }
        state.land(flight.id, (took, (self.glue.reports)(result)));
        self.faults.swallowed |= result.is_err() && state.log.error().is_none();
        state.since = NEVER;
        self.startable(&mut state);
        self.wake(state, self.trail().and(Event::Lands(covers, result)), out);
    }

    /// The ways in which a sync can end that starts at 0.
    pub(super) fn ends(&self) -> Vec<End> {
        let good = self.programs.latencies().iter().map(|&took| (took, Ok(())));
        good.chain([(0, Err(EIO))])
            .filter(|(_, end)| end.is_ok() || !makes(Mutant::NoFailure))
            .collect()
    }

    /// The call syncs in its own thread; a background sync may be out meanwhile.
    pub(super) fn direct(
        &mut self,
        state: State,
        open: Open,
        target: Option<u64>,
        events: Trail,
        out: &mut Vec<Next>,
    ) {
        // If other syncs are seen, the call may be durable already, and waits for none beside its own.
        let is_doubted = state.log.calls() > state.log.durable();
        // A drain beside it leaves what the call's own sync leaves.
        let beside = self.watched || self.starts(&state);
        if state.since != NEVER && is_doubted && beside {
            // While it is out nothing else can happen: which calls it covers makes no difference.
            let mut state = state.clone();
            state.log.start_covering(state.since, false);
            state.since = NEVER;
            self.flies(state, open.clone(), target, events.clone(), out);
        }
        self.flies(State { since: NEVER, ..state }, open, target, events, out);
    }

    fn flies(
        &mut self,
        mut state: State,
        open: Open,
        target: Option<u64>,
        mut events: Trail,
        out: &mut Vec<Next>,
    ) {
        let full = target.is_none() && open.hook == Hook::Fsync;
        let flight = state.log.start(false, full, 0);
        events.push(Event::Starts);
        state.caller = Caller::Syncing(open, flight.id, target);
        out.push(Next::new(events, state));
    }

    pub(super) fn lands_itself(
        &mut self,
        state: &State,
        open: &Open,
        flight: u64,
        target: Option<u64>,
        (took, result): End,
        out: &mut Vec<Next>,
    ) {
        let mut state = state.clone();
        let covers = state.log.calls();
        state.land(flight, (took, (self.glue.reports)(result)));
        self.faults.swallowed |= result.is_err() && state.log.error().is_none();
        let events = self.trail().and(Event::Ends(result));
        match target {
            Some(target) if state.log.is_ready(target) => {
                let mut events = events;
                events.push(Event::GoesOn);
                self.begin(state, open.clone(), events, out);
            }
            Some(target) => self.park(state, open.clone(), target, events, out),
            None if result.is_ok() => {
                state.caller = Caller::Doubted(open.clone(), covers);
                self.wake(state, events, out);
            }
            None => {
                let result = state.log.error().map_or(result, Err);
                self.startable(&mut state);
                self.returns(state, open, result, events, out);
            }
        }
    }

    /// Every way in which the background sync can end that is out beside the application's own.
    pub(super) fn background_out(&mut self, state: &State, out: &mut Vec<Next>) {
        let Some(flight) = state.log.background() else { return };
        for (took, result) in self.ends() {
            let mut state = state.clone();
            state.land(flight.id, (took, (self.glue.reports)(result)));
            self.faults.swallowed |= result.is_err() && state.log.error().is_none();
            self.wake(state, self.trail().and(Event::Lands(flight.covers, result)), out);
        }
    }
}

/// Numbers of calls that a background sync leaves pending, whose results were followed: for a state, from the most on.
struct Done {
    family: Family,
    /// The family after such a sync, and the numbers that are done in it.
    now: Option<(Family, Vec<bool>)>,
}

/// What a walk has done of each family.
pub(super) type Ended = FxHashMap<Family, Vec<bool>>;

impl Done {
    fn of(state: &State) -> Self {
        Self { family: Family::of(state), now: None }
    }

    /// Notes the next number, which is one less than the one before. Returns whether it was done.
    fn put(&mut self, left: u64, ended: &mut Ended) -> bool {
        if self.family.changes_at(left)
            && let Some((family, done)) = self.now.take()
        {
            ended.insert(family, done);
        }
        let (_, done) = self.now.get_or_insert_with(|| {
            let family = self.family.after(left);
            let done = ended.remove(&family).unwrap_or_default();
            (family, done)
        });
        let left = left as usize;
        if done.len() <= left {
            done.resize(left + 1, false);
        }
        done.get_mut(left).is_some_and(|done| std::mem::replace(done, true))
    }

    fn end(self, ended: &mut Ended) {
        if let Some((family, done)) = self.now {
            ended.insert(family, done);
        }
    }
}

/// Whether another file of the application that is synced, renamed or removed has this log synced before.
/// Another thread may do that, so this sync is out for as long as any, while calls begin and wait.
fn drains(state: &State) -> bool {
    let log = &state.log;
    let none = log.error().is_some() || log.is_flying() || makes(Mutant::NoDrain);
    !none && (log.undrained().is_some() || log.staged_writes() > 0)
}
