//! Every state of a policy whose programs start and wait for syncs by themselves, under BPFtime.
//!
//! There is no engine to follow: what is acknowledged is decided by the bytecode alone, with what BPFtime's
//! helpers answer. A helper that can answer in several ways is a choice; a program is run once for each
//! script of choices. The world behind the helpers:
//!
//! - syncs of the ring end in any order, at any moment after they were started; a wait returns 0 when one
//!   has ended, however it ended, and a signal can interrupt it;
//! - when pages cannot be written, everything not yet durable is lost, and Linux tells the first sync of the
//!   open file that ends after that, and no other; the kernel counts those that were told nothing;
//! - a call that is passed, and every sync of the application that the barrier is asked before, is a sync in
//!   the application's thread.
//!
//! It must not end with success when something was acknowledged and is lost: nobody would be told.

use crate::explore::{Limit, NodeId, Unit, Worst};
use crate::machine::{Ended, Machine, MachineError, Memory, World};
use crate::proof::Options;
use crate::state::Taken;
use crate::step::{EIO, Event, Faults};
use durac_abi::Object;
use durac_abi::uring::{Mode, Word};
use durac_abi::{Context, Helper, Hook, Verdict};
use durac_engine::Errno;
use rustc_hash::FxHashMap;

/// Acknowledged syncs that are lost at once; more are taken for any number.
const MOST: usize = 2000;
/// Steps beyond which a policy is too large: each is a run of a program.
const MAX_STEPS: u64 = 100_000;
/// `EINTR`, as a helper answers it.
const INTERRUPTED: u64 = -4_i64 as u64;

/// A state. Numbers of calls are counted from what the programs know to be durable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    /// The state variables.
    vars: Vec<u64>,
    process: u64,
    /// Calls that have begun.
    calls: u64,
    /// Calls that are on the disk.
    durable: u64,
    /// Acknowledged calls beyond.
    acknowledged: Vec<u64>,
    /// Syncs of the ring that fly: the last call that each covers.
    flying: Vec<u64>,
    /// Syncs that have ended, and that no wait has taken.
    ended: u64,
    /// What the kernel has counted.
    completed: u64,
    /// Pages could not be written, and no sync was told yet.
    untold: bool,
    /// Pages could not be written: nothing becomes durable any more.
    lost: bool,
}

/// A state that was reached.
pub struct Node {
    state: State,
    parent: NodeId,
    /// What its numbers are counted from.
    base: u64,
    /// What led here, counted from the base of the state before.
    events: Vec<Event>,
}

/// What was found.
pub struct Found {
    /// Every state.
    pub nodes: Vec<Node>,
    /// Steps between them.
    pub steps: u64,
    /// Acknowledged syncs that a power loss takes.
    pub syncs: Worst,
    /// The first state in which something acknowledged may stay unsynced for ever.
    pub tail: Option<NodeId>,
    /// What must never happen.
    pub faults: Faults,
    /// The limits, with their breaking.
    pub limits: Vec<Limit>,
    /// Not everything was explored.
    pub too_large: bool,
}

/// Explores everything; none if the object starts no syncs. `bounded`: a bound was derived for every vector
/// of parameters, so many lost syncs are only too many to follow, and not without end.
///
/// # Errors
/// When the interpreter stops a program.
pub fn explore(
    machine: &mut Machine,
    object: &Object,
    vectors: &[Vec<u64>],
    limits: Vec<Limit>,
    bounded: bool,
    options: &Options<'_>,
) -> Result<Option<Found>, MachineError> {
    let waits = object.meta.entry(Hook::Barrier).is_some();
    let ring = object.meta.state.iter().position(|s| s.name == Word::Mode.name());
    let (true, Some(ring)) = (waits, ring) else { return Ok(None) };
    let hooks: Vec<Hook> =
        [Hook::Fsync, Hook::Fdatasync].into_iter().filter(|hook| machine.has(*hook)).collect();
    let found = Found {
        nodes: Vec::new(),
        steps: 0,
        syncs: Worst::new(vectors.len().max(1)),
        tail: None,
        faults: Faults::default(),
        limits,
        too_large: false,
    };
    let mut explorer =
        Explorer { machine, vectors, ring, hooks, bounded, found, seen: FxHashMap::default() };
    let mut first = State { vars: explorer.machine.memory().copy_state(), ..State::default() };
    explorer.rebase(&mut first);
    explorer.seen.insert(first.clone(), 0);
    explorer.found.nodes.push(Node { state: first, parent: 0, base: 0, events: Vec::new() });
    let mut at = 0;
    while let Some(node) = explorer.found.nodes.get(at) {
        let state = node.state.clone();
        explorer.follow(&state, at as NodeId)?;
        let states = explorer.found.nodes.len();
        let is_ended = options.watch.is_some_and(|watch| !watch.goes_on(states));
        if is_ended || states > options.states || explorer.found.steps > MAX_STEPS {
            explorer.found.too_large = true;
            break;
        }
        at += 1;
    }
    Ok(Some(explorer.found))
}

impl Found {
    /// Acknowledged syncs that a power loss takes in a state.
    #[must_use]
    pub fn lost_at(&self, id: NodeId) -> u64 {
        self.nodes.get(id as usize).map_or(0, |node| node.state.acknowledged.len() as u64)
    }

    /// What led to a state, each step with what its numbers are counted from.
    #[must_use]
    pub fn path(&self, to: NodeId) -> Vec<(u64, Vec<Event>)> {
        let mut path = Vec::new();
        let mut at = to;
        while let Some(node) = self.nodes.get(at as usize).filter(|_| at != 0) {
            let base = self.nodes.get(node.parent as usize).map_or(0, |parent| parent.base);
            path.push((base, node.events.clone()));
            at = node.parent;
        }
        path.reverse();
        path
    }
}

struct Explorer<'a> {
    machine: &'a mut Machine,
    vectors: &'a [Vec<u64>],
    /// Index of the ring's first word among the state variables.
    ring: usize,
    hooks: Vec<Hook>,
    bounded: bool,
    found: Found,
    seen: FxHashMap<State, NodeId>,
}

/// A step, before its state is counted anew.
struct Next {
    state: State,
    events: Vec<Event>,
    /// Parameters that the call saw which was acknowledged.
    acknowledged: Option<u16>,
}

impl Explorer<'_> {
    fn word(&self, state: &State, word: Word) -> u64 {
        state.vars.get(self.ring + word as usize).copied().unwrap_or(0)
    }

    fn is(&self, state: &State, mode: Mode) -> bool {
        self.word(state, Word::Mode) == mode as u64
    }

    /// Counts everything from what the programs know.
    fn rebase(&self, state: &mut State) -> u64 {
        let working = self.is(state, Mode::Working);
        let shift = if working { self.word(state, Word::Durable) } else { state.durable };
        let completed = state.completed.min(self.word(state, Word::Started));
        let mut change = |word: Word, by: u64| {
            if let Some(var) = state.vars.get_mut(self.ring + word as usize) {
                *var = var.saturating_sub(by);
            }
        };
        if working {
            for word in [Word::Calls, Word::Durable, Word::Covered] {
                change(word, shift);
            }
        }
        change(Word::Started, completed);
        state.completed -= completed;
        state.calls = state.calls.saturating_sub(shift);
        state.durable = state.durable.saturating_sub(shift);
        let numbers = state.acknowledged.iter_mut().chain(&mut state.flying);
        numbers.for_each(|number| *number = number.saturating_sub(shift));
        state.flying.sort_unstable();
        shift
    }

    /// Everything that can happen next.
    fn follow(&mut self, state: &State, from: NodeId) -> Result<(), MachineError> {
        if self.is(state, Mode::New) && state.process == 0 && state.calls == 0 {
            // The log was opened.
            self.run(state, Hook::Barrier, None, from)?;
            self.out_of_force(state, Hook::Barrier, None, from)?;
        }
        if state.acknowledged.len() > MOST {
            return Ok(());
        }
        for hook in self.hooks.clone() {
            for params in 0..self.vectors.len().max(1) as u16 {
                self.run(state, hook, Some(params), from)?;
            }
            self.out_of_force(state, hook, Some(0), from)?;
        }
        self.run(state, Hook::Barrier, Some(0), from)?;
        if self.is(state, Mode::Broken) {
            return Ok(());
        }
        for index in 0..state.flying.len() {
            for fails in [false, true] {
                let mut next = state.clone();
                let event = next.ends(index, fails);
                self.enter(Next { state: next, events: vec![event], acknowledged: None }, from);
            }
        }
        Ok(())
    }

    /// The same in a call that begins when the loader does not vouch for the policy: it has ended, or is stopped.
    fn out_of_force(
        &mut self,
        state: &State,
        hook: Hook,
        params: Option<u16>,
        from: NodeId,
    ) -> Result<(), MachineError> {
        self.machine.memory().vouch(false);
        let ran = self.run(state, hook, params, from);
        self.machine.memory().vouch(true);
        ran
    }

    /// Runs the program of a hook in every way. `params` of a call; of the barrier none if the log was
    /// opened, so that no sync of the application follows.
    fn run(
        &mut self,
        before: &State,
        hook: Hook,
        params: Option<u16>,
        from: NodeId,
    ) -> Result<(), MachineError> {
        let is_call = hook != Hook::Barrier;
        let mut script: Vec<usize> = Vec::new();
        loop {
            let mut state = before.clone();
            let mut events = Vec::new();
            if is_call {
                state.calls += 1;
                events.extend([Event::Wrote, Event::Calls(hook, state.calls)]);
            }
            let memory = self.machine.memory();
            memory.set_context(Context::default());
            memory.set_state(&state.vars);
            memory.set_process(state.process);
            if let Some(vector) = params.and_then(|p| self.vectors.get(usize::from(p))) {
                memory.set_params(vector);
            }
            let mut ring = Ring::new(state, script, events);
            let ended = self.machine.run(hook, &mut ring)?;
            let Ring { mut state, mut choices, mut events, stuck, .. } = ring;
            self.found.steps += 1;
            self.found.faults.stuck |= stuck;
            let memory = self.machine.memory();
            (state.vars, state.process) = (memory.copy_state(), memory.process());
            let verdict = match ended {
                Ended::Verdict(verdict) => verdict,
                Ended::Parked => Verdict::Pass,
            };
            let number = if is_call { state.calls } else { 0 };
            match verdict {
                // For ever.
                Verdict::Fail(_) if self.is(before, Mode::Broken) => {}
                _ if self.is(before, Mode::Broken) => self.found.faults.swallowed = true,
                // The application syncs, in its thread.
                Verdict::Pass if params.is_some() => {
                    self.syncs_itself(state, number, events, from);
                }
                Verdict::Pass => self.enter(Next { state, events, acknowledged: None }, from),
                Verdict::Fail(errno) => {
                    events.push(Event::Refused(number, errno));
                    self.enter(Next { state, events, acknowledged: None }, from);
                }
                _ => {
                    self.found.faults.swallowed |= !is_call;
                    state.acknowledged.push(number);
                    events.push(Event::Acknowledged(number));
                    self.enter(Next { state, events, acknowledged: params }, from);
                }
            }
            // The next script: the last choice that has another.
            while choices.last().is_some_and(|(chosen, of)| chosen + 1 == *of) {
                choices.pop();
            }
            let Some((chosen, _)) = choices.last_mut() else { return Ok(()) };
            *chosen += 1;
            script = choices.into_iter().map(|(chosen, _)| chosen).collect();
        }
    }

    /// The application's own sync; if it fails it is told, and of that log comes no further call that
    /// would be believed.
    fn syncs_itself(
        &mut self,
        mut state: State,
        number: u64,
        mut events: Vec<Event>,
        from: NodeId,
    ) {
        events.push(Event::Direct);
        events.push(Event::Starts);
        if state.untold {
            return;
        }
        // It ends with success, and nobody is told of what is lost.
        self.found.faults.swallowed |= state.lost;
        state.durable = state.calls;
        state.acknowledged.clear();
        events.push(Event::Ends(Ok(())));
        if number > 0 {
            events.push(Event::Acknowledged(number));
        }
        self.enter(Next { state, events, acknowledged: None }, from);
    }

    fn enter(&mut self, next: Next, parent: NodeId) {
        let Next { mut state, events, acknowledged } = next;
        let frontier = state.durable;
        state.acknowledged.retain(|number| *number > frontier);
        let base = self.found.nodes.get(parent as usize).map_or(0, |node| node.base);
        let base = base + self.rebase(&mut state);
        let lost = state.acknowledged.len() as u64;
        self.found.syncs.count(lost, acknowledged);
        let taken = Taken { syncs: lost, ..Taken::default() };
        let next = (acknowledged, None);
        let breaks =
            self.found.limits.iter().any(|l| l.broken.is_none() && l.exceeded(taken, next));
        if self.seen.contains_key(&state) && !breaks {
            return;
        }
        let id = self.found.nodes.len() as NodeId;
        for limit in &mut self.found.limits {
            if limit.exceeded(taken, next) {
                limit.broken.get_or_insert(id);
            }
        }
        self.found.syncs.reach(lost, id);
        if state.acknowledged.len() > MOST {
            if self.bounded {
                self.found.too_large = true;
            } else {
                let all: Vec<Option<u16>> =
                    (0..self.vectors.len().max(1) as u16).map(Some).collect();
                self.found.syncs.has_no_end(id, &all);
                self.found.limits.iter_mut().for_each(|l| l.has_no_end(Unit::Syncs, id));
            }
        }
        // Nothing is out that would make the last of them durable.
        let covered = state.flying.iter().max().copied().unwrap_or(0);
        if state.acknowledged.last().is_some_and(|last| *last > covered) && !state.lost {
            self.found.tail.get_or_insert(id);
        }
        self.seen.insert(state.clone(), id);
        self.found.nodes.push(Node { state, parent, base, events });
    }
}

impl State {
    /// A sync of the ring ends; with `fails`, pages cannot be written.
    fn ends(&mut self, index: usize, fails: bool) -> Event {
        let covers = self.flying.remove(index);
        self.ended += 1;
        // Nothing is written yet when the log was opened.
        self.lost |= fails && self.calls > self.durable;
        self.untold |= fails;
        if std::mem::take(&mut self.untold) {
            return Event::Lands(covers, Err(EIO));
        }
        self.completed += 1;
        if !self.lost {
            self.durable = self.durable.max(covers);
        }
        Event::Lands(covers, Ok::<(), Errno>(()))
    }
}

/// The world behind the helpers, in one run.
struct Ring {
    state: State,
    script: Vec<usize>,
    /// What was chosen, of how many.
    choices: Vec<(usize, usize)>,
    events: Vec<Event>,
    /// Syncs that were put into the ring and not started.
    put: u64,
    /// A helper has failed in this run: one does.
    failed: bool,
    /// A wait was interrupted in this run: one is.
    interrupted: bool,
    /// A wait has nothing to wait for.
    stuck: bool,
}

impl Ring {
    fn new(state: State, script: Vec<usize>, events: Vec<Event>) -> Self {
        let (failed, interrupted, stuck) = (false, false, false);
        Self { state, script, choices: Vec::new(), events, put: 0, failed, interrupted, stuck }
    }

    fn choose(&mut self, of: usize) -> usize {
        let chosen = self.script.get(self.choices.len()).copied().unwrap_or(0);
        self.choices.push((chosen, of));
        chosen
    }

    /// Whether this helper fails.
    fn fails(&mut self) -> bool {
        let fails = !self.failed && self.choose(2) == 1;
        self.failed |= fails;
        fails
    }

    fn wait(&mut self) -> u64 {
        if !self.interrupted && self.choose(2) == 1 {
            self.interrupted = true;
            return INTERRUPTED;
        }
        if self.state.ended == 0 {
            let flying = self.state.flying.len();
            if flying == 0 {
                self.stuck = true;
                return u64::MAX;
            }
            let chosen = self.choose(2 * flying);
            let event = self.state.ends(chosen / 2, chosen % 2 == 1);
            self.events.push(event);
        }
        self.state.ended -= 1;
        0
    }
}

impl World for Ring {
    fn request(&mut self) {}

    fn wait(&mut self, _distance: u64, _memory: &Memory) -> bool {
        true
    }

    fn ring(&mut self, helper: Helper) -> u64 {
        match helper {
            Helper::RingInit => u64::from(self.fails()),
            Helper::RingSync => {
                let fails = self.fails();
                self.put += u64::from(!fails);
                u64::from(fails)
            }
            Helper::RingSubmit if self.fails() => u64::MAX,
            Helper::RingSubmit => {
                let started = std::mem::take(&mut self.put);
                let covers = self.state.calls;
                self.state.flying.extend((0..started).map(|_| covers));
                self.events.push(Event::Asked);
                started
            }
            Helper::RingWait => Ring::wait(self),
            _ => u64::MAX,
        }
    }

    fn completed(&self) -> u64 {
        self.state.completed
    }
}
