//! A naive model checker, which tests hold the prover against: it follows each background sync while it flies, counts
//! what is lost by bytes, merges nothing but equal states, and bounds the number of calls instead of reasoning about
//! it.
//!
//! It is a crate of its own because it is slow, and optimised where the tests that use it are not.
//!
//! Architecture invariant: of the prover it uses only the machine that runs a program.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and what it indexes has a fixed length"
)]

use durac_abi::{Context, Hook, Verdict};
use durac_engine::{
    Able, Answer, Decision, Entry, Errno, Flight, Log, Put, Rules, Step, Time, Wait, Writing,
};
use durac_prove::machine::{Ended, Machine, Memory, World};
use rustc_hash::{FxHashMap, FxHashSet};
use std::rc::Rc;

/// Calls that may be pending at once.
const LIMIT: u64 = 5;
/// A bound up to here has room enough below that limit to be the same.
pub const COMPARED: u64 = 3;
/// States that are too many.
pub const STATES: usize = 4_000;
const EIO: Errno = 5;
/// Below and above the threshold of `sync.latency`.
const LATENCIES: [Time; 2] = [0, 10_000_000];

/// A sync call whose bytes are not on the disk.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Pending {
    number: u64,
    /// Bytes written when it began.
    mark: u64,
    acknowledged: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Open {
    hook: Hook,
    number: u64,
    vars: Vec<u64>,
    inputs: Vec<[u64; 5]>,
    requested: bool,
    /// It runs its own sync, and writes had passed by.
    settles: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Caller {
    Idle,
    Parked(Open, u64),
    /// In a sync of its own; with a target it then waits for that.
    Syncing(Open, u64, Option<u64>),
    Doubted(Open, u64),
}

#[derive(Clone)]
struct State {
    log: Log,
    pending: Vec<Pending>,
    background: Option<Flight>,
    /// A sync that the engine did not start: the calls and bytes it covers.
    other: Option<(u64, u64)>,
    caller: Caller,
    vars: Vec<u64>,
    /// Writes since the last sync call; more than two tell nothing new.
    writes: u8,
    /// Bytes that are in the file for certain: written for a write that was passed, or synced.
    filed: u64,
}

/// What tells two states apart: numbers counted from the frontier.
type Seen = (u64, bool, bool, Option<bool>, Option<bool>);
type Key = (Log, Vec<Seen>, Caller, Vec<u64>, u8, Option<u64>);

impl State {
    fn key(&self) -> Key {
        let mut log = self.log.clone();
        log.cap_stages(1);
        let shift = log.rebase();
        let from = |number: u64| number.saturating_sub(shift.calls);
        let covered = |p: &Pending| self.background.map(|f| f.bytes >= p.mark);
        let pending = self.pending.iter();
        let seen = |p: &Pending| self.other.map(|(_, bytes)| bytes >= p.mark);
        let pending = pending
            .map(|p| (from(p.number), p.acknowledged, p.mark > self.filed, covered(p), seen(p)))
            .collect();
        let open = |open: &Open| Open { number: from(open.number), ..open.clone() };
        let caller = match &self.caller {
            Caller::Idle => Caller::Idle,
            Caller::Parked(o, target) => Caller::Parked(open(o), from(*target)),
            Caller::Syncing(o, id, target) => {
                Caller::Syncing(open(o), id - shift.flights, target.map(from))
            }
            Caller::Doubted(o, covers) => Caller::Doubted(open(o), from(*covers)),
        };
        let other = self
            .other
            .map(|(calls, bytes)| 2 * from(calls) + u64::from(bytes >= self.log.written()));
        (log, pending, caller, self.vars.clone(), self.writes, other)
    }

    fn lost(&self) -> u64 {
        self.pending.iter().filter(|p| p.acknowledged).count() as u64
    }

    /// Acknowledged, and their last bytes are in this process alone.
    fn staged(&self) -> u64 {
        let staged = |p: &&Pending| p.acknowledged && p.mark > self.filed;
        self.pending.iter().filter(staged).count() as u64
    }

    fn in_progress(&self) -> u64 {
        let (Caller::Parked(open, _) | Caller::Syncing(open, ..) | Caller::Doubted(open, _)) =
            &self.caller
        else {
            return 0;
        };
        let is_open = |p: &&Pending| p.number == open.number;
        (open.hook.is_sync() && self.pending.iter().any(|p| is_open(&p))).into()
    }

    /// Drops the calls whose bytes are on the disk.
    fn count(&mut self) {
        let covered = self.log.written() - self.log.pending_bytes();
        self.pending.retain(|p| p.mark > covered);
        self.filed = self.filed.max(covered);
    }
}

/// What a run does after its last input.
#[derive(Clone)]
struct Effect {
    requested: bool,
    vars: Vec<u64>,
    wait: Option<u64>,
    verdict: Verdict,
}

struct Replay<'a> {
    inputs: &'a [[u64; 5]],
    at: usize,
    effect: Effect,
}

fn context([pending, done, latency, child, staged]: [u64; 5]) -> Context {
    Context {
        pending,
        notify_done: done,
        sync_latency: latency,
        child_active: child,
        staged,
        ..Context::default()
    }
}

impl World for Replay<'_> {
    fn request(&mut self) {
        self.effect.requested |= self.at + 1 == self.inputs.len();
    }

    fn wait(&mut self, distance: u64, memory: &Memory) -> bool {
        self.at += 1;
        if let Some(input) = self.inputs.get(self.at) {
            memory.set_context(context(*input));
            return true;
        }
        self.effect.wait = Some(distance);
        self.effect.vars = memory.copy_state();
        false
    }
}

/// The worst that was found.
#[derive(Default, Debug)]
pub struct Found {
    /// Acknowledged syncs that a power loss takes.
    pub lost: u64,
    /// Those that die with the process.
    pub staged: u64,
    /// What a power loss takes, with the call in progress.
    pub with_progress: u64,
    /// Something may stay unsynced for ever.
    pub tail: bool,
    /// Whether a run was not followed because too many calls were pending.
    pub cut: bool,
    /// Everything else was followed.
    pub complete: bool,
}

/// Explores the programs of a machine. With `watched`, syncs are seen that the engine did not start.
#[must_use]
pub fn explore(machine: Machine, rules: Rules, watched: bool) -> Found {
    Naive::explore(machine, rules, watched)
}

type Inputs = (Hook, Vec<u64>, Vec<[u64; 5]>);

struct Naive {
    machine: Machine,
    /// Whether syncs that the engine did not start are seen too.
    watched: bool,
    effects: FxHashMap<Inputs, Rc<Effect>>,
    seen: FxHashSet<Key>,
    open: Vec<State>,
    found: Found,
}

impl Naive {
    fn explore(machine: Machine, rules: Rules, watched: bool) -> Found {
        let first = State {
            log: Log::new(rules),
            pending: Vec::new(),
            background: None,
            caller: Caller::Idle,
            vars: machine.memory().copy_state(),
            writes: 0,
            other: None,
            filed: 0,
        };
        let (effects, seen) = (FxHashMap::default(), FxHashSet::default());
        let mut naive =
            Self { machine, watched, effects, seen, open: Vec::new(), found: Found::default() };
        naive.push(first);
        while let Some(state) = naive.open.pop() {
            if naive.seen.len() > STATES || naive.found.lost >= LIMIT {
                return naive.found;
            }
            naive.steps(state);
        }
        naive.found.complete = true;
        naive.found
    }

    fn push(&mut self, mut state: State) {
        state.count();
        let (lost, open) = (state.lost(), state.in_progress());
        self.found.lost = self.found.lost.max(lost);
        self.found.staged = self.found.staged.max(state.staged());
        self.found.with_progress = self.found.with_progress.max(lost + open);
        let idle = state.caller == Caller::Idle && state.log.error().is_none();
        if idle && lost > 0 && state.background.is_none() && state.log.next(Time::MAX) == Step::Idle
        {
            self.found.tail = true;
        }
        if self.seen.insert(state.key()) {
            self.open.push(state);
        }
    }

    fn steps(&mut self, state: State) {
        match state.background {
            // The engine's, or that of another thread, which drains the log.
            None if state.log.error().is_none()
                && (state.log.undrained().is_some()
                    || state.log.staged_writes() > 0
                    || state.log.next(Time::MAX) != Step::Idle) =>
            {
                let mut state = state.clone();
                state.background = Some(state.log.start(true, false, 0));
                self.push(state);
            }
            None => {}
            Some(flight) => self.ends(&state, flight.id, true),
        }
        if let Caller::Syncing(_, flight, _) = &state.caller {
            self.ends(&state, *flight, false);
        }
        if self.watched && matches!(state.caller, Caller::Idle | Caller::Parked(..)) {
            self.others(&state);
        }
        if matches!(state.caller, Caller::Parked(..))
            && let Some(after) = self.written_by_another(&state)
        {
            self.push(after);
        }
        let idle = matches!(state.caller, Caller::Idle | Caller::Parked(..));
        if idle && state.background.is_none() && state.log.error().is_none() {
            self.drains(&state);
        }
        // Pushed last and followed first: a loss without bound is soon beyond the limit.
        if state.caller == Caller::Idle && state.log.error().is_none() {
            self.application(&state);
        }
    }

    /// Another thread writes, and the program does not run.
    fn written_by_another(&self, state: &State) -> Option<State> {
        if state.log.missed() > 0 || state.log.error().is_some() {
            return None;
        }
        let mut after = state.clone();
        if self.machine.has(Hook::Write) {
            after.log.passed_by();
        }
        after.log.wrote(after.log.written() + 1);
        after.filed = after.log.written();
        Some(after)
    }

    /// A sync that the engine did not start begins, is seen to have ended, or to have failed.
    fn others(&mut self, state: &State) {
        let mut after = state.clone();
        match after.other.take() {
            None if after.log.error().is_none() => {
                after.other = Some((after.log.calls(), after.log.written()));
                self.push(after);
            }
            None => {}
            Some((calls, bytes)) => {
                after.log.witness(calls, bytes, 0);
                self.seen(after);
                let mut failed = state.clone();
                failed.other = None;
                failed.log.fail(EIO);
                self.seen(failed);
            }
        }
    }

    /// Another file of the application is synced: what this log has acknowledged goes before.
    fn drains(&mut self, state: &State) {
        if state.log.undrained().is_none() && state.log.staged_writes() == 0 {
            return;
        }
        for (took, result) in [(LATENCIES[0], Ok(())), (LATENCIES[1], Ok(())), (0, Err(EIO))] {
            let mut after = state.clone();
            let flight = after.log.start(false, false, 0);
            after.log.land(flight.id, took, result, true);
            self.seen(after);
        }
    }

    fn seen(&mut self, mut state: State) {
        state.count();
        match std::mem::replace(&mut state.caller, Caller::Idle) {
            Caller::Parked(open, target) => self.wait(state, open, target),
            caller => {
                state.caller = caller;
                self.push(state);
            }
        }
    }

    fn ends(&mut self, state: &State, id: u64, background: bool) {
        for (took, result) in [(LATENCIES[0], Ok(())), (LATENCIES[1], Ok(())), (0, Err(EIO))] {
            let mut state = state.clone();
            let calls = state.log.calls();
            state.log.land(id, took, result, true);
            if background {
                state.background = None;
            }
            state.count();
            match std::mem::replace(&mut state.caller, Caller::Idle) {
                Caller::Parked(open, target) => self.wait(state, open, target),
                Caller::Doubted(open, covers) if state.log.is_ready(covers) => {
                    let result = state.log.error().map_or(Ok(()), Err);
                    self.returns(state, &open, result);
                }
                Caller::Syncing(open, _, Some(target)) if !background => {
                    self.wait(state, open, target)
                }
                Caller::Syncing(open, _, None) if !background => match result {
                    Ok(()) if state.log.is_ready(calls) => {
                        let result = state.log.error().map_or(Ok(()), Err);
                        self.returns(state, &open, result);
                    }
                    Ok(()) => {
                        state.caller = Caller::Doubted(open, calls);
                        self.push(state);
                    }
                    Err(_) => self.returns(state, &open, result),
                },
                caller => {
                    state.caller = caller;
                    self.push(state);
                }
            }
        }
    }

    fn application(&mut self, state: &State) {
        if state.writes < 2 {
            let mut after = state.clone();
            after.writes += 1;
            if self.machine.has(Hook::Write) {
                let open = open(Hook::Write, after.log.upcoming(), &after.vars);
                self.run(after, open);
            } else {
                after.log.wrote(after.log.written() + 1);
                after.filed = after.log.written();
                self.push(after);
            }
        }
        if state.log.calls() - state.log.durable() >= LIMIT {
            // Calls that failed count here, and are no loss.
            self.found.cut = true;
            return;
        }
        for hook in [Hook::Fdatasync, Hook::Fsync] {
            let mut after = state.clone();
            after.writes = 0;
            let entry = after.log.enter(hook == Hook::Fsync, self.machine.has(hook));
            let (Entry::Ask(call) | Entry::Direct(call)) = entry else { continue };
            let mark = after.log.written();
            after.pending.push(Pending { number: call.number, mark, acknowledged: false });
            let mut open = open(hook, call.number, &after.vars);
            if matches!(entry, Entry::Direct(_)) {
                open.settles = after.log.missed() > 0;
                self.sync(after, open, None);
                continue;
            }
            if let Some(target) = after.log.overdue(Time::MAX) {
                self.wait(after.clone(), open.clone(), target);
            }
            self.run(after, open);
        }
    }

    fn sync(&mut self, mut state: State, open: Open, target: Option<u64>) {
        let full = target.is_none() && open.hook == Hook::Fsync;
        let flight = state.log.start(false, full, 0);
        state.caller = Caller::Syncing(open, flight.id, target);
        self.push(state);
    }

    fn wait(&mut self, state: State, open: Open, target: u64) {
        for awake in [true, false] {
            let mut state = state.clone();
            match state.log.wait(target, awake, Able::ALL) {
                Wait::Ready if awake => {
                    // The program reads again, and another thread may have written.
                    if let Some(written) = self.written_by_another(&state) {
                        self.run(written, open.clone());
                    }
                    self.run(state, open.clone());
                }
                Wait::Ready => {}
                Wait::Sync => self.sync(state, open.clone(), Some(target)),
                Wait::Sleep => {
                    state.caller = Caller::Parked(open.clone(), target);
                    self.push(state);
                }
            }
        }
    }

    fn returns(&mut self, mut state: State, open: &Open, result: Result<(), Errno>) {
        state.caller = Caller::Idle;
        if open.settles && result.is_ok() {
            state.log.direct_done(state.log.passed());
        }
        for p in state.pending.iter_mut().filter(|p| p.number == open.number) {
            p.acknowledged = result.is_ok();
        }
        self.push(state);
    }

    fn run(&mut self, state: State, open: Open) {
        for child in [0, 1] {
            let (mut state, mut open) = (state.clone(), open.clone());
            let log = &state.log;
            let done = log.notify_done().into();
            let is_sync = open.hook.is_sync();
            let staged = log.staged(open.number - u64::from(!is_sync));
            open.inputs.push([log.pending(open.number), done, log.sync_latency(), child, staged]);
            let effect = self.effect(&open);
            state.vars.clone_from(&effect.vars);
            if effect.requested && is_sync {
                state.log.request(open.number, 0);
                open.requested = true;
            } else if effect.requested {
                state.log.commit(0);
            }
            if let Some(distance) = effect.wait {
                let distance = if is_sync { distance } else { distance.max(1) };
                let target = state.log.await_target(open.number, distance);
                self.wait(state, open, target);
            } else if is_sync {
                let decision = match effect.verdict {
                    Verdict::Fail(errno) => Decision::Fail(errno),
                    Verdict::Skip => Decision::Skip,
                    Verdict::Defer => Decision::Defer,
                    _ => Decision::Pass,
                };
                let requested = open.requested;
                match state.log.decide(open.number, decision, requested, Able::ALL, 0) {
                    Answer::Sync => self.sync(state, open, None),
                    Answer::Return(result) => self.returns(state, &open, result),
                }
            } else {
                state.caller = Caller::Idle;
                let decision = match effect.verdict {
                    Verdict::Fail(errno) => Writing::Fail(errno),
                    Verdict::Stage => Writing::Stage,
                    _ => Writing::Pass,
                };
                if !matches!(decision, Writing::Fail(_)) {
                    // The program has run, and the call writes nothing.
                    let mut nothing = state.clone();
                    nothing.log.decide_write(decision, false, Able::ALL, 0);
                    nothing.filed = nothing.log.written();
                    nothing.writes -= 1;
                    self.push(nothing);
                }
                let put = state.log.decide_write(decision, true, Able::ALL, 0);
                if !matches!(put, Put::Fail(_)) {
                    state.log.wrote(state.log.written() + 1);
                }
                if put == Put::Write {
                    state.filed = state.log.written();
                }
                self.push(state);
            }
        }
    }

    fn effect(&mut self, open: &Open) -> Rc<Effect> {
        let key = (open.hook, open.vars.clone(), open.inputs.clone());
        if let Some(effect) = self.effects.get(&key) {
            return effect.clone();
        }
        let memory = self.machine.memory();
        memory.set_state(&open.vars);
        memory.set_context(context(open.inputs[0]));
        let effect =
            Effect { requested: false, vars: Vec::new(), wait: None, verdict: Verdict::Pass };
        let mut replay = Replay { inputs: &open.inputs, at: 0, effect };
        let ended = self.machine.run(open.hook, &mut replay).unwrap();
        let mut effect = replay.effect;
        if let Ended::Verdict(verdict) = ended {
            (effect.verdict, effect.vars) = (verdict, self.machine.memory().copy_state());
        }
        let effect = Rc::new(effect);
        self.effects.insert(key, effect.clone());
        effect
    }
}

fn open(hook: Hook, number: u64, vars: &[u64]) -> Open {
    Open { hook, number, vars: vars.to_vec(), inputs: Vec::new(), requested: false, settles: false }
}
