//! What can happen next: every call the application can make, every way a sync can end.
//!
//! The steps of a call are those of `durac_engine`'s protocol, which the agent takes too; here each
//! is followed by all that can come of it. A background sync is not followed while it flies: when it
//! ends, it may have started at any moment since one could (`State::since`).

use super::explore::MAX_STATES;
use super::programs::{self, Effect, Programs};
use super::state::{Caller, Family, NEVER, Open, State};
use crate::machine::bit;
use durac_bpf::abi::{Hook, Reading, Verdict};
use durac_engine::{Able, Answer, Decision, Entry, Errno, Log, Put, Rules, Time, Wait, Writing};
use rustc_hash::{FxHashMap, FxHashSet};

/// The error that a sync fails with: `EIO`.
pub const EIO: Errno = 5;

/// Something that happened, for a timeline. Calls are counted from the frontier of the state before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A write, or several.
    Wrote,
    /// A write is copied.
    Staged,
    /// A sync call begins.
    Calls(Hook, u64),
    /// A sync call, nothing written since the last, or of a hook without a program.
    Direct,
    /// The engine was asked for a background sync.
    Asked,
    /// The call waits until that one is durable.
    Waits(u64),
    /// The call goes on.
    GoesOn,
    /// The call is acknowledged.
    Acknowledged(u64),
    /// The call returns an error.
    Refused(u64, Errno),
    /// A sync in the application's thread starts.
    Starts,
    /// It ends.
    Ends(Result<(), Errno>),
    /// A background sync that covers calls up to this one ends; it started when that had begun.
    Lands(u64, Result<(), Errno>),
}

/// A state that can follow, before it is counted anew, and what happens in between.
pub struct Next {
    /// What happens.
    pub events: Vec<Event>,
    /// What it leads to.
    pub state: State,
    /// With the parameters that the call saw, if a call was acknowledged.
    pub acknowledged: Option<u16>,
    /// The same, if a write was staged.
    pub staged: Option<u16>,
}

impl Next {
    /// The beginning.
    pub fn first(state: State) -> Self {
        Self::new(Vec::new(), state)
    }

    fn new(events: Vec<Event>, state: State) -> Self {
        Self { events, state, acknowledged: None, staged: None }
    }
}

/// What must never happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A call was acknowledged after a sync of its log had failed.
    pub swallowed: bool,
    /// A call waits, and no sync is out or will start.
    pub stuck: bool,
}

/// What stands between the disk and the engine. The agent's own is [`Glue::RIGHT`]; a test puts a
/// wrong one there, to see that it is found out.
#[derive(Clone, Copy, Debug)]
pub struct Glue {
    /// What the engine is told of a sync that ended so.
    pub reports: fn(Result<(), Errno>) -> Result<(), Errno>,
    /// The syncer starts what the engine asks for.
    pub starts: bool,
}

impl Glue {
    /// The engine is told the truth, and obeyed.
    pub const RIGHT: Self = Self { reports: |result| result, starts: true };
}

/// The policy and its environment.
pub struct Stepper<'a> {
    /// The programs, and what they can read.
    pub programs: Programs<'a>,
    rules: Rules,
    /// Whether syncs that the engine did not start are seen too (`use kernel notify`).
    watched: bool,
    /// States beyond which a policy is too large.
    pub most_states: usize,
    glue: Glue,
    /// For a family of regular states, which numbers of calls left by a landing are done.
    landed: FxHashMap<Family, Vec<bool>>,
    /// For a family of regular states, the calls that run their own sync and are done.
    directs: FxHashSet<(Family, Hook)>,
    /// Most syncs that a power loss takes, the call in progress included, while a call runs its own.
    pub with_progress: u64,
    /// What was seen that must not be.
    pub faults: Faults,
}

/// How long a sync took, and its result.
type End = (Time, Result<(), Errno>);

/// Bits of the readings that change with a write.
const OF_WRITES: u32 = bit(Reading::NotifyDone) | bit(Reading::PendingBytes);

impl<'a> Stepper<'a> {
    /// Steps of a log under these rules.
    pub fn new(programs: Programs<'a>, rules: Rules, glue: Glue) -> Self {
        Self {
            programs,
            rules,
            watched: false,
            most_states: MAX_STATES,
            glue,
            landed: FxHashMap::default(),
            directs: FxHashSet::default(),
            with_progress: 0,
            faults: Faults::default(),
        }
    }

    /// With `watched`, the kernel shows syncs that the engine did not start. What is known of one then is
    /// [`Log::witness`], which does what a landing does, or less: so they are landings of a sync that
    /// may have started at any moment, whether or not the engine would have started one.
    pub fn watched(self, watched: bool) -> Self {
        Self { watched, ..self }
    }

    /// Whether the policy stages writes.
    pub fn stages(&self) -> bool {
        self.rules.stages
    }

    /// The state of a log that was just opened.
    pub fn first(&self) -> State {
        let mut log = Log::new(self.rules);
        log.rebase();
        let vars = self.programs.first_vars();
        State { log, silent: Vec::new(), caller: Caller::Idle, vars, since: NEVER }
    }

    /// Everything that can happen in `state`, up to the next state in which the application is idle
    /// or waits: while it syncs itself, nothing but that and a background sync can happen.
    pub fn next(&mut self, state: &State) -> Vec<Next> {
        let mut done = Vec::new();
        let mut open = self.one(state);
        while let Some(next) = open.pop() {
            if matches!(next.state.caller, Caller::Idle | Caller::Parked(..)) {
                done.push(next);
                continue;
            }
            let with_progress = next.state.lost() + next.state.in_progress();
            self.with_progress = self.with_progress.max(with_progress);
            for mut after in self.one(&next.state) {
                after.events.splice(0..0, next.events.iter().cloned());
                open.push(after);
            }
        }
        done
    }

    fn one(&mut self, state: &State) -> Vec<Next> {
        let mut out = Vec::new();
        match &state.caller {
            Caller::Idle => {
                self.calls(state, &mut out);
                self.landings(state, &mut out);
            }
            Caller::Parked(..) => self.landings(state, &mut out),
            Caller::Syncing(open, flight, target) => {
                self.background_out(state, &mut out);
                for end in self.ends() {
                    self.lands_itself(state, open, *flight, *target, end, &mut out);
                }
            }
            Caller::Doubted(..) => self.background_out(state, &mut out),
        }
        if let Caller::Parked(..) | Caller::Doubted(..) = &state.caller
            && (state.since == NEVER || self.watched && !state.log.is_startable())
            && !state.log.is_flying()
        {
            self.faults.stuck = true;
        }
        out
    }

    // ---- the application ----

    /// The calls that an idle application can make.
    fn calls(&mut self, state: &State, out: &mut Vec<Next>) {
        if self.programs.has(Hook::Write) || self.programs.reads(OF_WRITES) {
            self.write(state, out);
            self.syncs(state, Vec::new(), out);
        } else {
            // When nobody can tell what happens between a write and the sync call after it, they
            // are one step.
            self.syncs(state, Vec::new(), out);
            let mut written = state.clone();
            written.log.wrote(written.log.written() + 1);
            self.syncs(&written, vec![Event::Wrote], out);
        }
    }

    fn syncs(&mut self, state: &State, before: Vec<Event>, out: &mut Vec<Next>) {
        for hook in [Hook::Fdatasync, Hook::Fsync] {
            let hooked = self.programs.has(hook);
            let mut after = state.clone();
            let mut events = before.clone();
            match after.log.enter(hook == Hook::Fsync, hooked) {
                Entry::Refused(_) => {}
                Entry::Direct(call) => {
                    after.silent.push(call.number);
                    self.with_progress = self.with_progress.max(after.lost() + 1);
                    // It leaves nothing pending, or an error: what was pending makes no difference.
                    let known = |s: &mut Self| !s.directs.insert((Family::of(state), hook));
                    if state.is_regular() && known(self) {
                        continue;
                    }
                    let open = self.open(hook, call.number);
                    events.extend([Event::Calls(hook, call.number), Event::Direct]);
                    self.direct(after, open, None, events, out);
                }
                Entry::Ask(call) => {
                    after.silent.push(call.number);
                    self.startable(&mut after);
                    events.push(Event::Calls(hook, call.number));
                    let mut open = self.open(hook, call.number);
                    for params in self.programs.params() {
                        open.params = params;
                        if let Some(target) = after.log.overdue(Time::MAX) {
                            self.park(after.clone(), open.clone(), target, events.clone(), out);
                        }
                        self.begin(after.clone(), open.clone(), events.clone(), out);
                    }
                }
            }
        }
    }

    fn write(&mut self, state: &State, out: &mut Vec<Next>) {
        if state.log.error().is_some() {
            return;
        }
        let mut after = state.clone();
        if self.programs.has(Hook::Write) {
            let mut open = self.open(Hook::Write, after.log.upcoming());
            for params in self.programs.params() {
                open.params = params;
                self.begin(after.clone(), open.clone(), Vec::new(), out);
            }
        } else {
            after.log.wrote(after.log.written() + 1);
            out.push(Next::new(vec![Event::Wrote], after));
        }
    }

    fn open(&self, hook: Hook, number: u64) -> Open {
        Open { hook, number, run: None, params: 0, requested: false }
    }

    /// The program begins, or goes on after a wait: with every choice of the environment.
    fn begin(&mut self, state: State, open: Open, events: Vec<Event>, out: &mut Vec<Next>) {
        self.goes_on(state, open, events, false, out);
    }

    /// As [`Stepper::begin`]; with `held` the call has not let go of the log since it read last.
    fn goes_on(
        &mut self,
        state: State,
        open: Open,
        events: Vec<Event>,
        held: bool,
        out: &mut Vec<Next>,
    ) {
        let effects = self.programs.run(&state, &open, held);
        let from = out.len();
        for (run, effect) in effects {
            let mut open = open.clone();
            open.run = Some(run);
            self.carry_out(state.clone(), open, &effect, events.clone(), out);
        }
        self.drop_doubles(from, out);
    }

    /// Different ways can lead to the same state.
    fn drop_doubles(&self, from: usize, out: &mut Vec<Next>) {
        let mut index = from;
        while index < out.len() {
            let same = |a: &Next, b: &Next| {
                (&a.state, a.acknowledged, a.staged) == (&b.state, b.acknowledged, b.staged)
            };
            let seen = match (out.get(from..index), out.get(index)) {
                (Some(earlier), Some(next)) => earlier.iter().any(|e| same(e, next)),
                _ => false,
            };
            if seen {
                out.swap_remove(index);
            } else {
                index += 1;
            }
        }
    }

    fn carry_out(
        &mut self,
        mut state: State,
        mut open: Open,
        effect: &Effect,
        mut events: Vec<Event>,
        out: &mut Vec<Next>,
    ) {
        state.vars.clone_from(&effect.vars);
        self.programs.forget_kept(&mut state.vars);
        let is_sync = open.hook.is_sync();
        if effect.requested {
            match is_sync {
                true => state.log.request(open.number, 0),
                false => state.log.commit(0),
            }
            open.requested = is_sync;
            events.push(Event::Asked);
            self.startable(&mut state);
        }
        match effect.end {
            programs::End::Await(distance) => {
                // A write is no call that could become durable: it waits for calls before it.
                let distance = if is_sync { distance } else { distance.max(1) };
                let target = state.log.await_target(open.number, distance);
                if state.log.is_ready(target) {
                    self.goes_on(state, open, events, true, out);
                } else {
                    self.park(state, open, target, events, out);
                }
            }
            programs::End::Verdict(verdict) if is_sync => {
                self.decide(state, open, verdict, events, out)
            }
            programs::End::Verdict(verdict) => self.put(state, open, verdict, events, out),
        }
    }

    /// The policy has decided about a write.
    fn put(
        &mut self,
        mut state: State,
        open: Open,
        verdict: Verdict,
        mut events: Vec<Event>,
        out: &mut Vec<Next>,
    ) {
        state.caller = Caller::Idle;
        let decision = match verdict {
            Verdict::Fail(errno) => Writing::Fail(errno),
            Verdict::Stage => Writing::Stage,
            _ => Writing::Pass,
        };
        let held = state.log.staged_writes() > 0;
        let mut staged = None;
        // Whether there is room makes no difference but that less is lost.
        match state.log.decide_write(decision, true, Able::ALL, 0) {
            Put::Fail(errno) => events.push(Event::Refused(0, errno)),
            Put::Copy => {
                state.log.wrote(state.log.written() + 1);
                events.push(Event::Staged);
                staged = Some(open.params);
            }
            Put::Write => {
                if held {
                    // What is staged is written first, and that can fail.
                    let mut failed = state.clone();
                    failed.log.fail(EIO);
                    let events = [events.clone(), vec![Event::Refused(0, EIO)]].concat();
                    out.push(Next::new(events, failed));
                }
                state.log.wrote(state.log.written() + 1);
                events.push(Event::Wrote);
            }
        }
        self.startable(&mut state);
        out.push(Next { staged, ..Next::new(events, state) });
    }

    fn decide(
        &mut self,
        mut state: State,
        open: Open,
        verdict: Verdict,
        mut events: Vec<Event>,
        out: &mut Vec<Next>,
    ) {
        let decision = match verdict {
            Verdict::Fail(errno) => Decision::Fail(errno),
            Verdict::Skip => Decision::Skip,
            Verdict::Defer => Decision::Defer,
            Verdict::Pass | Verdict::Stage | Verdict::Hold => Decision::Pass,
        };
        match state.log.decide(open.number, decision, open.requested, Able::ALL, 0) {
            Answer::Sync => self.direct(state, open, None, events, out),
            Answer::Return(result) => {
                if decision == Decision::Defer && !open.requested && result.is_ok() {
                    events.push(Event::Asked);
                }
                self.startable(&mut state);
                self.returns(state, &open, result, events, out);
            }
        }
    }

    fn returns(
        &mut self,
        mut state: State,
        open: &Open,
        result: Result<(), Errno>,
        mut events: Vec<Event>,
        out: &mut Vec<Next>,
    ) {
        state.caller = Caller::Idle;
        let mut acknowledged = None;
        match result {
            Ok(()) => {
                self.faults.swallowed |= state.log.error().is_some();
                if !state.log.is_last_covered() {
                    state.silent.retain(|number| *number != open.number);
                }
                acknowledged = Some(open.params);
                events.push(Event::Acknowledged(open.number));
            }
            Err(errno) => events.push(Event::Refused(open.number, errno)),
        }
        out.push(Next { acknowledged, ..Next::new(events, state) });
    }

    // ---- waiting ----

    fn park(
        &mut self,
        state: State,
        open: Open,
        target: u64,
        mut events: Vec<Event>,
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
    fn wake(&mut self, mut state: State, events: Vec<Event>, out: &mut Vec<Next>) {
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

    // ---- syncs ----

    /// A background sync can be out from now on, if the engine would start one. If other syncs are
    /// seen too, one is: it may have started at any moment.
    fn startable(&self, state: &mut State) {
        if self.watched && state.log.error().is_none() {
            state.since = state.log.durable();
        } else if state.since == NEVER && self.glue.starts && state.log.is_startable() {
            state.since = state.log.calls();
        }
    }

    /// Every way in which a background sync can end that may be out.
    fn landings(&mut self, state: &State, out: &mut Vec<Next>) {
        let since = match self.watched && state.log.error().is_none() {
            true => state.log.durable(),
            false => state.since,
        };
        if since == NEVER {
            return;
        }
        let calls = state.log.calls();
        // While a call waits no other begins. A sync that does not help it is followed by one that
        // covers everything, which leads where the last of these choices leads.
        let least = match &state.caller {
            Caller::Parked(_, target) => *target,
            _ => 0,
        };
        let family = state.is_regular().then(|| Family::of(state));
        let mut done = family.as_ref().and_then(|f| self.landed.remove(f)).unwrap_or_default();
        for covers in since.max(least)..=calls {
            let left = (calls - covers) as usize;
            if family.is_some() && left > 0 {
                if done.len() <= left {
                    done.resize(left + 1, false);
                }
                if done.get_mut(left).is_some_and(|done| std::mem::replace(done, true)) {
                    continue;
                }
            }
            // It can have started between a write and the call that followed, if anyone can tell.
            let tails: &[bool] = match calls - covers {
                0 => &[true, false],
                1 if self.programs.reads(OF_WRITES) => &[true, false],
                _ => &[false],
            };
            for &tail in tails {
                for end in self.ends().into_iter().filter(|(_, result)| result.is_ok()) {
                    self.land(state, covers, tail, end, out);
                }
            }
        }
        if let Some(family) = family {
            self.landed.insert(family, done);
        }
        // What it covered does not matter if it fails.
        self.land(state, calls, true, (0, Err(EIO)), out);
    }

    fn land(
        &mut self,
        state: &State,
        covers: u64,
        tail: bool,
        (took, result): End,
        out: &mut Vec<Next>,
    ) {
        let mut state = state.clone();
        let flight = state.log.start_covering(covers, tail);
        state.log.land(flight.id, took, (self.glue.reports)(result), true);
        self.faults.swallowed |= result.is_err() && state.log.error().is_none();
        state.since = NEVER;
        self.startable(&mut state);
        self.wake(state, vec![Event::Lands(covers, result)], out);
    }

    /// The ways in which a sync can end that starts at 0.
    fn ends(&self) -> Vec<End> {
        let good = self.programs.latencies().iter().map(|&took| (took, Ok(())));
        good.chain([(0, Err(EIO))]).collect()
    }

    /// The call syncs in its own thread; a background sync may be out meanwhile.
    fn direct(
        &mut self,
        state: State,
        open: Open,
        target: Option<u64>,
        events: Vec<Event>,
        out: &mut Vec<Next>,
    ) {
        // If other syncs are seen, the call may be durable already, and waits for none beside its own.
        let is_doubted = state.log.calls() > state.log.durable();
        if state.since != NEVER && is_doubted {
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
        mut events: Vec<Event>,
        out: &mut Vec<Next>,
    ) {
        let full = target.is_none() && open.hook == Hook::Fsync;
        let flight = state.log.start(false, full, 0);
        events.push(Event::Starts);
        state.caller = Caller::Syncing(open, flight.id, target);
        out.push(Next::new(events, state));
    }

    fn lands_itself(
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
        state.log.land(flight, took, (self.glue.reports)(result), false);
        self.faults.swallowed |= result.is_err() && state.log.error().is_none();
        let events = vec![Event::Ends(result)];
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
    fn background_out(&mut self, state: &State, out: &mut Vec<Next>) {
        let Some(flight) = state.log.background() else { return };
        for (took, result) in self.ends() {
            let mut state = state.clone();
            state.log.land(flight.id, took, (self.glue.reports)(result), true);
            self.faults.swallowed |= result.is_err() && state.log.error().is_none();
            self.wake(state, vec![Event::Lands(flight.covers, result)], out);
        }
    }
}
