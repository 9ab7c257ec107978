//! What can happen next: every call the application can make, every way a sync can end.
//!
//! The steps of a call are those of `durac_engine`'s protocol, which the agent takes too; here each
//! is followed by all that can come of it. A background sync is not followed while it flies: when it
//! ends, it may have started at any moment since one could (`State::since`).

use super::cells::{Cell, Cells, NOW, Source, value_in};
use super::state::{Caller, Family, Input, NEVER, Open, Run, State};
use crate::machine::{Ended, Machine, MachineError, Memory, World, bit};
use durac_bpf::abi::{Context, Hook, Reading, Verdict};
use durac_engine::{Able, Answer, Decision, Entry, Errno, Log, Rules, Time, Wait};
use rustc_hash::{FxHashMap, FxHashSet};
use std::rc::Rc;

/// The error that a sync fails with: `EIO`.
pub const EIO: Errno = 5;

/// Something that happened, for a timeline. Calls are counted from the frontier of the state before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A write, or several.
    Wrote,
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
}

impl Next {
    /// The beginning.
    pub fn first(state: State) -> Self {
        Self::new(Vec::new(), state)
    }

    fn new(events: Vec<Event>, state: State) -> Self {
        Self { events, state, acknowledged: None }
    }
}

/// What a run does after what it has read last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Effect {
    requested: bool,
    vars: Vec<u64>,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Await(u64),
    Verdict(Verdict),
}

/// What must never happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A call was acknowledged after a sync of its log had failed.
    pub swallowed: bool,
    /// A call waits, and no sync is out or will start.
    pub stuck: bool,
}

/// The policy and its environment.
pub struct Stepper<'a> {
    machine: &'a mut Machine,
    /// Bits of the readings that the programs load.
    reads: u32,
    samples: &'a [Vec<u64>],
    /// The choices of the environment, without what depends on the engine.
    choices: Vec<Choice>,
    /// How long a sync can take: one value of each cell.
    latencies: Vec<Time>,
    /// Which state variables keep readings.
    kept: Vec<bool>,
    rules: Rules,
    first_vars: Vec<u64>,
    cache: FxHashMap<Rc<Run>, Rc<Effect>>,
    /// For a family of regular states, which numbers of calls left by a landing are done.
    landed: FxHashMap<Family, Vec<bool>>,
    /// For a family of regular states, the calls that run their own sync and are done.
    directs: FxHashSet<(Family, Hook)>,
    /// Most syncs that a power loss takes, the call in progress included, while a call runs its own.
    pub with_progress: u64,
    /// Greatest distance that a program has waited at.
    pub farthest: u64,
    /// What was seen that must not be.
    pub faults: Faults,
    /// The machine's error, if it had one.
    pub broken: Option<MachineError>,
}

/// One choice of the environment.
#[derive(Clone, Debug, Default)]
struct Choice {
    context: Context,
    /// Values of kept state variables, by index.
    kept: Vec<(usize, u64)>,
    /// The cells of what must fit the state.
    age: Option<Cell>,
    bytes: Option<Cell>,
    len: Option<Cell>,
}

/// Bits of the readings that change with a write.
const OF_WRITES: u32 = bit(Reading::NotifyDone) | bit(Reading::PendingBytes);

/// More combinations than these are too many to follow.
pub const MAX_CHOICES: usize = 4096;

impl<'a> Stepper<'a> {
    /// `None` if the environment has too many choices.
    pub fn new(
        machine: &'a mut Machine,
        reads: u32,
        rules: Rules,
        samples: &'a [Vec<u64>],
        cells: &Cells,
    ) -> Option<Self> {
        let first_vars = machine.memory().copy_state();
        let mut kept = vec![false; first_vars.len()];
        let mut choices = vec![Choice {
            context: Context {
                now: if reads & bit(Reading::Now) != 0 { NOW } else { 0 },
                ..Context::default()
            },
            ..Choice::default()
        }];
        let mut latencies = vec![0];
        for (source, of) in &cells.of {
            if *source == Source::Reading(Reading::SyncLatency) {
                // Chosen when a sync ends.
                latencies = of.iter().filter_map(|cell| value_in(*cell, false)).collect();
                continue;
            }
            // Values above NOW are not on this clock, except where they stand alone.
            let mut all = Vec::new();
            for &cell in of {
                for choice in &choices {
                    all.extend(choice.with(*source, cell));
                }
            }
            if let Source::Kept(id) = source
                && let Some(place) = kept.get_mut(id.index())
            {
                *place = true;
            }
            choices = all;
            if choices.len() * samples.len().max(1) > MAX_CHOICES {
                return None;
            }
        }
        Some(Self {
            machine,
            reads,
            samples,
            choices,
            latencies,
            kept,
            rules,
            first_vars,
            cache: FxHashMap::default(),
            landed: FxHashMap::default(),
            directs: FxHashSet::default(),
            with_progress: 0,
            farthest: 0,
            faults: Faults::default(),
            broken: None,
        })
    }

    /// Forgets what was explored, not what was found.
    pub fn start_again(&mut self) {
        self.landed.clear();
        self.directs.clear();
    }

    /// The state of a log that was just opened.
    pub fn first(&self) -> State {
        let mut vars = self.first_vars.clone();
        self.forget_kept(&mut vars);
        let mut log = Log::new(self.rules);
        log.rebase();
        State { log, silent: Vec::new(), caller: Caller::Idle, vars, since: NEVER }
    }

    fn forget_kept(&self, vars: &mut [u64]) {
        vars.iter_mut().zip(&self.kept).filter(|(_, kept)| **kept).for_each(|(var, _)| *var = 0);
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
                for result in [Ok(()), Err(EIO)] {
                    for took in self.durations(result) {
                        let end = (took, result);
                        self.lands_itself(state, open, *flight, *target, end, &mut out);
                    }
                }
            }
            Caller::Doubted(..) => self.background_out(state, &mut out),
        }
        if let Caller::Parked(..) | Caller::Doubted(..) = &state.caller
            && state.since == NEVER
            && !state.log.is_flying()
        {
            self.faults.stuck = true;
        }
        out
    }

    // ---- the application ----

    /// The calls that an idle application can make.
    fn calls(&mut self, state: &State, out: &mut Vec<Next>) {
        if self.machine.has(Hook::Write) || self.reads & OF_WRITES != 0 {
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
            let hooked = self.machine.has(hook);
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
                    for params in 0..self.samples.len().max(1) as u16 {
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
        if self.machine.has(Hook::Write) {
            let mut open = self.open(Hook::Write, after.log.upcoming());
            for params in 0..self.samples.len().max(1) as u16 {
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
        let mut effects: Vec<(Rc<Run>, Rc<Effect>)> = Vec::new();
        for index in 0..self.choices.len() {
            let Some((context, kept)) = self.fit(index, &state, &open) else { continue };
            let input = Input { context, params: open.params };
            let run = match &open.run {
                Some(run) => {
                    let mut run = Run::clone(run);
                    run.inputs.push(input);
                    run
                }
                None => {
                    let mut vars = state.vars.clone();
                    for (index, value) in kept {
                        if let Some(var) = vars.get_mut(*index) {
                            *var = *value;
                        }
                    }
                    Run { hook: open.hook, inputs: vec![input], vars }
                }
            };
            let Some((run, mut effect)) = self.effect(run) else { return };
            if self.kept.contains(&true) && matches!(effect.end, End::Verdict(_)) {
                // What is kept is chosen anew at the next call.
                self.forget_kept(&mut Rc::make_mut(&mut effect).vars);
            }
            // Many choices have the same effect. What a run that goes on has read may matter yet.
            let same = |(earlier, of): &(Rc<Run>, Rc<Effect>)| {
                *of == effect && (matches!(effect.end, End::Verdict(_)) || *earlier == run)
            };
            if !effects.iter().any(same) {
                effects.push((run, effect));
            }
        }
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
            let same = |a: &Next, b: &Next| a.state == b.state && a.acknowledged == b.acknowledged;
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

    /// What the program reads in this state, if the choice is possible in it.
    fn fit(&self, index: usize, state: &State, open: &Open) -> Option<(Context, &[(usize, u64)])> {
        let choice = self.choices.get(index)?;
        let mut context = choice.context;
        let log = &state.log;
        let reads = |reading| self.reads & bit(reading) != 0;
        if reads(Reading::Pending) {
            context.pending = log.pending(open.number);
        }
        if reads(Reading::SyncLatency) {
            context.sync_latency = log.sync_latency();
        }
        if reads(Reading::NotifyDone) {
            context.notify_done = log.notify_done().into();
        }
        if let Some(cell) = choice.age {
            // The log keeps its age only if something acknowledged is not durable.
            let any = log.pending_age(1) > 0;
            if !any && cell.0 > 0 {
                return None;
            }
            context.pending_age = cell.0;
        }
        if let Some(cell) = choice.bytes {
            context.pending_bytes = match log.notify_done() {
                true if cell.0 > 0 => return None,
                true => 0,
                false => value_in(cell, true)?,
            };
        }
        if let Some(cell) = choice.len {
            context.len = match open.hook.is_sync() {
                true if cell.0 > 0 => return None,
                true => 0,
                // A write of nothing is no write.
                false => value_in(cell, true)?,
            };
        }
        Some((context, &choice.kept))
    }

    /// What a run does after what it has read last.
    fn effect(&mut self, run: Run) -> Option<(Rc<Run>, Rc<Effect>)> {
        if let Some((run, effect)) = self.cache.get_key_value(&run) {
            return Some((run.clone(), effect.clone()));
        }
        let memory = self.machine.memory();
        memory.set_state(&run.vars);
        let first = run.inputs.first()?;
        memory.set_context(first.context);
        if let Some(params) = self.samples.get(usize::from(first.params)) {
            memory.set_params(params);
        }
        let mut replay = Replay { inputs: &run.inputs, at: 0, requested: false, parked: None };
        let end = match self.machine.run(run.hook, &mut replay) {
            Ok(end) => end,
            Err(error) => {
                self.broken = Some(error);
                return None;
            }
        };
        let (end, vars) = match (end, replay.parked) {
            (Ended::Parked, Some((distance, vars))) => (End::Await(distance), vars),
            (Ended::Verdict(verdict), _) => {
                (End::Verdict(verdict), self.machine.memory().copy_state())
            }
            (Ended::Parked, None) => return None,
        };
        if let End::Await(distance) = end {
            self.farthest = self.farthest.max(distance);
        }
        let effect = Rc::new(Effect { requested: replay.requested, vars, end });
        let run = Rc::new(run);
        self.cache.insert(run.clone(), effect.clone());
        Some((run, effect))
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
        self.forget_kept(&mut state.vars);
        let is_sync = open.hook.is_sync();
        if effect.requested && is_sync {
            state.log.request(open.number, 0);
            open.requested = true;
            events.push(Event::Asked);
            self.startable(&mut state);
        }
        match effect.end {
            End::Await(distance) => {
                // A write is no call that could become durable: it waits for calls before it.
                let distance = if is_sync { distance } else { distance.max(1) };
                let target = state.log.await_target(open.number, distance);
                if state.log.is_ready(target) {
                    self.begin(state, open, events, out);
                } else {
                    self.park(state, open, target, events, out);
                }
            }
            End::Verdict(verdict) if is_sync => self.decide(state, open, verdict, events, out),
            End::Verdict(verdict) => {
                state.caller = Caller::Idle;
                match (state.log.error(), verdict) {
                    (Some(errno), _) | (None, Verdict::Fail(errno)) => {
                        events.push(Event::Refused(0, errno));
                    }
                    _ => {
                        state.log.wrote(state.log.written() + 1);
                        events.push(Event::Wrote);
                    }
                }
                out.push(Next::new(events, state));
            }
        }
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

    /// A background sync can be out from now on, if the engine would start one.
    fn startable(&self, state: &mut State) {
        if state.since == NEVER && state.log.is_startable() {
            state.since = state.log.calls();
        }
    }

    /// Every way in which a background sync can end that may be out.
    fn landings(&mut self, state: &State, out: &mut Vec<Next>) {
        if state.since == NEVER {
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
        for covers in state.since.max(least)..=calls {
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
                1 if self.reads & OF_WRITES != 0 => &[true, false],
                _ => &[false],
            };
            for &tail in tails {
                self.land(state, covers, tail, Ok(()), out);
            }
        }
        if let Some(family) = family {
            self.landed.insert(family, done);
        }
        // What it covered does not matter if it fails.
        self.land(state, calls, true, Err(EIO), out);
    }

    fn land(
        &mut self,
        state: &State,
        covers: u64,
        tail: bool,
        result: Result<(), Errno>,
        out: &mut Vec<Next>,
    ) {
        for took in self.durations(result) {
            let mut state = state.clone();
            let flight = state.log.start_covering(covers, tail);
            state.log.land(flight.id, took, result, true);
            self.faults.swallowed |= result.is_err() && state.log.error().is_none();
            state.since = NEVER;
            self.startable(&mut state);
            self.wake(state, vec![Event::Lands(covers, result)], out);
        }
    }

    /// How long a sync with this result can have taken, as far as it is told apart. All start at 0.
    fn durations(&self, result: Result<(), Errno>) -> Vec<Time> {
        if result.is_ok() { self.latencies.clone() } else { vec![0] }
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
        if state.since != NEVER {
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
        (took, result): (Time, Result<(), Errno>),
        out: &mut Vec<Next>,
    ) {
        let mut state = state.clone();
        let covers = state.log.calls();
        state.log.land(flight, took, result, false);
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
        for result in [Ok(()), Err(EIO)] {
            for took in self.durations(result) {
                let mut state = state.clone();
                state.log.land(flight.id, took, result, true);
                self.wake(state, vec![Event::Lands(flight.covers, result)], out);
            }
        }
    }
}

impl Choice {
    /// This choice with a value of the cell for the source.
    fn with(&self, source: Source, cell: Cell) -> Option<Choice> {
        let mut choice = self.clone();
        let value = value_in(cell, false)?;
        let c = &mut choice.context;
        match source {
            Source::Kept(id) => choice.kept.push((id.index(), value)),
            Source::Reading(Reading::PendingAge) => choice.age = Some(cell),
            Source::Reading(Reading::PendingBytes) => choice.bytes = Some(cell),
            Source::Reading(Reading::CallLen) => choice.len = Some(cell),
            Source::Reading(Reading::NotifyCount) => c.notify_count = value,
            // There is no third truth value.
            Source::Reading(Reading::ChildActive) if value > 1 => return None,
            Source::Reading(Reading::ChildActive) => c.child_active = value,
            // The clock stands at NOW, or where a threshold of its own says.
            Source::Reading(Reading::Now) => c.now = if cell.1 == u64::MAX { NOW } else { value },
            Source::Reading(_) => {}
        }
        Some(choice)
    }
}

/// Hands a run what it has read; parks it in the first wait beyond.
struct Replay<'a> {
    inputs: &'a [Input],
    at: usize,
    requested: bool,
    parked: Option<(u64, Vec<u64>)>,
}

impl World for Replay<'_> {
    fn request(&mut self) {
        // Only what is new is of interest: the rest was carried out before.
        self.requested |= self.at + 1 == self.inputs.len();
    }

    fn wait(&mut self, distance: u64, memory: &Memory) -> bool {
        self.at += 1;
        match self.inputs.get(self.at) {
            Some(input) => {
                memory.set_context(input.context);
                true
            }
            None => {
                self.parked = Some((distance, memory.copy_state()));
                false
            }
        }
    }
}
