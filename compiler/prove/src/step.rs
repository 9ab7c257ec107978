//! What can happen next: every call the application can make, every way a sync can end.
//!
//! The steps of a call are those of `durac_engine`'s protocol, which the agent takes too; here each
//! is followed by all that can come of it. A background sync is not followed while it flies: when it
//! ends, it may have started at any moment since one could (`State::since`).

mod syncs;
mod trail;

use crate::amounts::Amounts;
use crate::explore::FIRST_STATES;
use crate::machine::bit;
use crate::mutants::{Mutant, makes};
use crate::programs::{self, Effect, Programs, Since};
use crate::state::{Caller, Family, MAX_STATES, NEVER, Open, State};
use crate::watch::Watch;
use durac_abi::{Hook, Reading, Verdict};
use durac_engine::{Able, Answer, Decision, Entry, Errno, Log, Put, Rules, Time, Writing};
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};
use std::cell::Cell;
use std::hash::BuildHasher;
use syncs::Ended;
pub use trail::Trail;

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
    /// Another file of the application is synced, renamed or removed: this one is synced before.
    Drains,
    /// A write returns an error, or wrote nothing.
    NothingWritten,
    /// A write of another thread, while this call waits: the policy's program does not run.
    PassesBy,
    /// What happened last goes on, for so many calls.
    Again(u64),
}

/// A state that can follow, before it is counted anew, and what happens in between.
pub struct Next {
    /// What happens.
    pub events: Trail,
    /// What it leads to.
    pub state: State,
    /// With the parameters that the call saw, if a call was acknowledged.
    pub acknowledged: Option<u16>,
    /// What can be lost of what that call acknowledged.
    pub amounts: Amounts,
    /// With the parameters that the call saw, if a write was staged.
    pub staged: Option<u16>,
}

impl Next {
    /// The beginning.
    pub fn first(state: State) -> Self {
        Self::new(Trail::default(), state)
    }

    fn new(events: Trail, state: State) -> Self {
        Self { events, state, acknowledged: None, amounts: Amounts::default(), staged: None }
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

/// How much a walk may do. It is counted, not timed: a proof has the same outcome on any machine.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// States.
    pub states: usize,
    /// Runs of programs, and ends of syncs.
    pub runs: u64,
    /// Contexts that are kept ([`Programs::inputs`]): with the states, most of the memory.
    pub inputs: u64,
}

impl Work {
    /// What is too much for any policy: what a policy reads multiplies the runs, in one state already.
    pub const MOST: Self = Self { states: MAX_STATES, runs: 4_000_000, inputs: 1_000_000 };
    /// The same if all guarantees are derived from the text.
    pub const PROVED: Self = Self { states: 100_000, runs: 1_000_000, inputs: 300_000 };
}

/// States that are too many for one step to lead to.
const MOST_NEXTS: usize = 300_000;

/// The policy and its environment.
pub struct Stepper<'a> {
    /// The programs, and what they can read.
    pub programs: Programs<'a>,
    rules: Rules,
    /// Whether syncs that the engine did not start are seen too (`use kernel notify`).
    watched: bool,
    /// States beyond which a policy is too large.
    pub most_states: usize,
    /// The same of everything else.
    pub most: Work,
    /// Ends of syncs that were followed.
    landed: u64,
    /// States after which the worst case is looked for.
    pub first: usize,
    /// Who may end the walk.
    pub watch: Option<&'a dyn Watch>,
    /// States that were explored, as far as who watches is told within a step.
    states: Cell<usize>,
    /// The walk has ended within a step: what that found is not all.
    stopped: Cell<bool>,
    /// It was too much, and not ended by who watches.
    given_up: Cell<bool>,
    /// Nobody watches: this much is made.
    again: Option<Work>,
    /// States with so many calls at their bottom ([`State::bottom`], of all calls or not) stand for those
    /// with more.
    pub merged: Option<(u64, bool)>,
    glue: Glue,
    /// Only a few of the ways in which a background sync can end are followed: those that leave the fewest
    /// and the most calls pending.
    pub thin: bool,
    /// What happens is noted, for a timeline.
    pub notes: bool,
    /// For a family of regular states, which numbers of calls that a background sync leaves pending are done.
    ended: Ended,
    /// For a family of regular states, the calls that run their own sync and are done.
    directs: FxHashSet<(Family, Hook)>,
    /// Most syncs that a power loss takes, the call in progress included, while a call runs its own.
    pub with_progress: u64,
    /// What was seen that must not be.
    pub faults: Faults,
}

/// What a walk has seen of regular states, and [`Stepper::merged`].
type Seen = (Ended, FxHashSet<(Family, Hook)>, Option<(u64, bool)>);

/// Ends of a background sync that are followed in a thin walk, from each end of the calls it can cover.
const THIN: u64 = 3;

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
            most: Work::MOST,
            landed: 0,
            first: FIRST_STATES,
            watch: None,
            states: Cell::new(0),
            stopped: Cell::new(false),
            given_up: Cell::new(false),
            again: None,
            merged: None,
            glue,
            thin: false,
            notes: false,
            ended: Ended::default(),
            directs: FxHashSet::default(),
            with_progress: 0,
            faults: Faults::default(),
        }
    }

    /// With `watched`, the kernel shows syncs that the engine did not start. What is known of one then is
    /// [`Log::witness`], which does what a landing does, or less: so they are landings of a sync that
    /// may have started at any moment, whether or not the engine would have started one.
    pub fn watched(mut self, watched: bool) -> Self {
        if watched {
            self.programs.watched();
        }
        Self { watched, ..self }
    }

    /// Whether the walk ends now, after so many states, or has ended within a step: because of who watches, or
    /// because it is too much.
    pub fn is_ended(&self, states: usize) -> bool {
        self.states.set(states);
        if self.stopped.get() {
            return true;
        }
        let too_much = self.exceeds(self.again.unwrap_or(self.most));
        let watched = || self.watch.is_some_and(|watch| !watch.goes_on(states));
        self.given_up.set(too_much && self.again.is_none());
        self.stopped.set(too_much || self.again.is_none() && watched());
        self.stopped.get()
    }

    /// How many runs of programs and ends of syncs were too many, if the walk has ended because of that.
    pub fn given_up(&self) -> Option<u64> {
        self.given_up.get().then(|| self.runs())
    }

    fn runs(&self) -> u64 {
        self.programs.runs.saturating_add(self.landed)
    }

    fn exceeds(&self, most: Work) -> bool {
        self.runs() > most.runs || self.programs.inputs > most.inputs
    }

    /// Whether a step ends here: the walk has ended, or does because the step leads to too many states.
    fn is_full(&self, out: &[Next]) -> bool {
        self.is_too_many(out.len());
        self.is_ended(self.states.get())
    }

    /// Ends the walk if a step leads to so many states that it is too much.
    fn is_too_many(&self, nexts: usize) {
        if nexts > MOST_NEXTS && self.again.is_none() && !self.stopped.get() {
            self.given_up.set(true);
            self.stopped.set(true);
        }
    }

    /// Steps that are known are made again, with what happens in them, at the cost of at most this. Whether the walk was
    /// ended does not matter to them.
    pub fn begin_again(&mut self, most: Work) {
        self.notes = true;
        self.stopped.set(false);
        self.again = Some(Work {
            runs: most.runs.saturating_add(self.runs()),
            inputs: most.inputs.saturating_add(self.programs.inputs),
            ..most
        });
    }

    /// That is over. Returns whether all was made that was asked for.
    pub fn end_again(&mut self, was_stopped: bool) -> bool {
        let whole = !self.stopped.get();
        (self.thin, self.notes) = (false, false);
        self.stopped.set(was_stopped);
        self.again = None;
        whole
    }

    /// Forgets what was seen: the walk begins anew.
    pub fn forget(&mut self) {
        self.merged = None;
        self.ended.clear();
        self.directs.clear();
        self.with_progress = 0;
        self.faults = Faults::default();
    }

    /// What was seen of regular states, which is left empty: for a walk beside another.
    pub fn take_seen(&mut self) -> Seen {
        (std::mem::take(&mut self.ended), std::mem::take(&mut self.directs), self.merged.take())
    }

    /// Puts that back.
    pub fn put_seen(&mut self, seen: Seen) {
        (self.ended, self.directs, self.merged) = seen;
    }

    /// Forgets what was seen of regular states.
    pub fn forget_seen(&mut self) {
        self.ended.clear();
        self.directs.clear();
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
        let dates = self.programs.dates.first();
        State { log, silent: Vec::new(), caller: Caller::Idle, vars, dates, since: NEVER }
    }

    /// Everything that can happen in `state`, up to the next state in which the application is idle
    /// or waits: while it syncs itself, nothing but that and a background sync can happen.
    pub fn next(&mut self, state: &State) -> Vec<Next> {
        let mut done = Vec::new();
        let mut open = self.one(state);
        while let Some(next) = open.pop().filter(|_| !self.stopped.get()) {
            if matches!(next.state.caller, Caller::Idle | Caller::Parked(..)) {
                done.push(next);
                continue;
            }
            let with_progress = next.state.lost() + next.state.in_progress();
            self.with_progress = self.with_progress.max(with_progress);
            let ends = self.one(&next.state);
            self.landed += ends.len() as u64;
            for mut after in ends {
                after.events.put_after(&next.events);
                open.push(after);
            }
            self.is_too_many(open.len() + done.len());
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
            Caller::Parked(..) => {
                self.landings(state, &mut out);
                self.passes_by(state, &mut out);
            }
            Caller::Syncing(open, flight, target) => {
                self.background_out(state, &mut out);
                for end in self.ends() {
                    self.lands_itself(state, open, *flight, *target, end, &mut out);
                }
            }
            Caller::Doubted(..) => self.background_out(state, &mut out),
        }
        if let Caller::Parked(..) | Caller::Doubted(..) = &state.caller
            && !self.starts(state)
            && !state.log.is_flying()
        {
            self.faults.stuck = true;
        }
        out
    }

    /// Where nothing has happened yet.
    fn trail(&self) -> Trail {
        Trail::new(self.notes)
    }

    // ---- the application ----

    /// The calls that an idle application can make.
    fn calls(&mut self, state: &State, out: &mut Vec<Next>) {
        if self.programs.has(Hook::Write) || self.programs.reads(OF_WRITES) {
            self.write(state, out);
            self.syncs(state, self.trail(), out);
        } else {
            // When nobody can tell what happens between a write and the sync call after it, they
            // are one step.
            self.syncs(state, self.trail(), out);
            let mut written = state.clone();
            written.log.wrote(written.log.written() + 1);
            self.syncs(&written, self.trail().and(Event::Wrote), out);
        }
    }

    fn syncs(&mut self, state: &State, before: Trail, out: &mut Vec<Next>) {
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
                    if state.regular_from().is_some() && known(self) {
                        continue;
                    }
                    let mut open = self.open(hook, call.number);
                    open.settles = after.log.missed() > 0;
                    events.push(Event::Calls(hook, call.number));
                    events.push(Event::Direct);
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
                self.begin(after.clone(), open.clone(), self.trail(), out);
            }
        } else {
            after.log.wrote(after.log.written() + 1);
            out.push(Next::new(self.trail().and(Event::Wrote), after));
        }
    }

    /// A write of another thread, while a call waits. A sync call of another thread needs no step: it runs
    /// its own sync, which leaves what a background sync of everything leaves.
    fn passes_by(&mut self, state: &State, out: &mut Vec<Next>) {
        let after = self.written_by_another(state);
        out.extend(after.map(|after| Next::new(self.trail().and(Event::PassesBy), after)));
    }

    /// The state after a write of another thread, if a program can tell.
    fn written_by_another(&self, state: &State) -> Option<State> {
        let hooked = self.programs.has(Hook::Write);
        let is_seen = hooked || self.programs.reads(OF_WRITES);
        let none = !is_seen || makes(Mutant::NoPassingBy);
        if none || state.log.error().is_some() || state.log.missed() > 0 {
            return None;
        }
        let mut after = state.clone();
        if hooked {
            after.log.passed_by();
        }
        after.log.wrote(after.log.written() + 1);
        Some(after)
    }

    fn open(&self, hook: Hook, number: u64) -> Open {
        Open { hook, number, run: None, params: 0, requested: false, settles: false }
    }

    /// The program begins, or goes on after a wait: with every choice of the environment.
    fn begin(&mut self, state: State, open: Open, events: Trail, out: &mut Vec<Next>) {
        self.goes_on(state, open, events, Since::Anything, out);
    }

    /// As [`Stepper::begin`]; so much has happened since the call read last.
    fn goes_on(
        &mut self,
        state: State,
        open: Open,
        events: Trail,
        since: Since,
        out: &mut Vec<Next>,
    ) {
        if self.is_full(out) {
            return;
        }
        let effects = self.programs.run(&state, &open, since);
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
        let same = |a: &Next, b: &Next| {
            let of = |next: &Next| (next.acknowledged, next.amounts, next.staged);
            a.state == b.state && of(a) == of(b)
        };
        // Where those are whose state has this hash.
        let mut kept: FxHashMap<u64, Vec<usize>> = FxHashMap::default();
        let mut index = from;
        while let Some(next) = out.get(index) {
            let earlier = kept.entry(FxBuildHasher.hash_one(&next.state)).or_default();
            if earlier.iter().filter_map(|at| out.get(*at)).any(|one| same(one, next)) {
                out.swap_remove(index);
            } else {
                earlier.push(index);
                index += 1;
            }
        }
    }

    fn carry_out(
        &mut self,
        mut state: State,
        mut open: Open,
        effect: &Effect,
        mut events: Trail,
        out: &mut Vec<Next>,
    ) {
        state.vars.clone_from(&effect.vars);
        self.programs.forget_kept(&mut state.vars);
        state.date(&open, effect.set);
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
                    if let Some(written) = self.written_by_another(&state) {
                        let events = events.and(Event::PassesBy);
                        self.goes_on(written, open.clone(), events, Since::Write, out);
                    }
                    self.goes_on(state, open, events, Since::Nothing, out);
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
        mut events: Trail,
        out: &mut Vec<Next>,
    ) {
        state.caller = Caller::Idle;
        let decision = Writing::from(verdict);
        let held = state.log.staged_writes() > 0;
        let mut staged = None;
        if !matches!(decision, Writing::Fail(_)) && !makes(Mutant::NoEmptyWrite) {
            // The program has run, and the call writes nothing: it fails, or has no bytes.
            let mut nothing = state.clone();
            nothing.log.decide_write(decision, false, Able::ALL, 0);
            self.startable(&mut nothing);
            out.push(Next::new(events.and(Event::NothingWritten), nothing));
            let reads_len = self.programs.reads(bit(Reading::CallLen));
            if reads_len && open.run.as_ref().is_some_and(|run| run.is_empty_write()) {
                return;
            }
        }
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
                    out.push(Next::new(events.and(Event::Refused(0, EIO)), failed));
                }
                state.log.wrote(state.log.written() + 1);
                events.push(Event::Wrote);
            }
        }
        // A deferred write is acknowledged like a sync call that is skipped; a driver may notice it later, but counts
        // its age from no later than here.
        let mut owed = None;
        if self.rules.defers_writes && !matches!(decision, Writing::Fail(_)) {
            // Or the application's next sync call comes before anybody has looked.
            let mut unseen = state.clone();
            self.startable(&mut unseen);
            out.push(Next::new(events.clone(), unseen));
            owed = state.log.owe(0);
        }
        self.startable(&mut state);
        owed.into_iter().for_each(|call| events.push(Event::Acknowledged(call)));
        let acknowledged = owed.map(|_| open.params);
        let amounts = owed.map_or(Amounts::default(), |_| Amounts::UNKNOWN);
        out.push(Next { staged, acknowledged, amounts, ..Next::new(events, state) });
    }

    fn decide(
        &mut self,
        mut state: State,
        open: Open,
        verdict: Verdict,
        mut events: Trail,
        out: &mut Vec<Next>,
    ) {
        let decision = Decision::from(verdict);
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
        mut events: Trail,
        out: &mut Vec<Next>,
    ) {
        state.caller = Caller::Idle;
        let (mut acknowledged, mut amounts) = (None, Amounts::default());
        match result {
            Ok(()) => {
                self.faults.swallowed |= state.log.error().is_some();
                if open.settles {
                    state.log.direct_done(state.log.passed());
                }
                let durable = state.log.durable() >= open.number || state.log.is_last_covered();
                if !durable {
                    amounts = self.programs.judge.most(open.run.as_deref());
                }
                if !state.log.is_last_covered() && !makes(Mutant::CountsNothing) {
                    state.silent.retain(|number| *number != open.number);
                }
                acknowledged = Some(open.params);
                events.push(Event::Acknowledged(open.number));
            }
            Err(errno) => events.push(Event::Refused(open.number, errno)),
        }
        out.push(Next { acknowledged, amounts, ..Next::new(events, state) });
    }
}
