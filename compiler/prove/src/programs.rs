//! The programs of a policy, with every choice that the environment has when they read.

use crate::amounts::Judge;
use crate::cells::{Cell, Cells, NOW, Source, value_in};
use crate::dates::Dates;
use crate::machine::{Ended, Machine, MachineError, Memory, World, bit};
use crate::mutants::{Mutant, makes};
use crate::state::{Input, Open, Run, State, Vars};
use durac_abi::{Context, Hook, Reading, Verdict};
use durac_engine::Time;
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::hash::BuildHasher;
use std::ops::Range;
use std::rc::Rc;

/// More combinations than these are too many to follow.
pub const MAX_CHOICES: usize = 4096;

/// What a run does after what it has read last.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Effect {
    /// It asks for a background sync.
    pub requested: bool,
    /// The state variables afterwards.
    pub vars: Vars,
    /// Those that hold the time of the run, as bits.
    pub set: u64,
    /// How it ends.
    pub end: End,
}

/// How a run ends, or is held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// In a wait at this distance.
    Await(u64),
    /// With a verdict.
    Verdict(Verdict),
}

/// The programs of a policy and what they can read.
pub struct Programs<'a> {
    machine: &'a mut Machine,
    /// Bits of the readings that the programs load.
    reads: u32,
    samples: &'a [Vec<u64>],
    /// The choices of the environment, without what depends on the engine.
    choices: Vec<Choice>,
    /// How long a sync can take: one value of each cell.
    latencies: Vec<Time>,
    /// Every lost call has a byte of its own among `pending.bytes`.
    counts_bytes: bool,
    /// Syncs that the engine did not start are seen, too.
    watched: bool,
    /// What a call that is acknowledged loses, by what it has read.
    pub judge: Judge,
    /// Which of them hold times, and the deadline.
    pub dates: Dates,
    /// Which state variables keep readings.
    kept: Vec<bool>,
    first_vars: Vars,
    cache: FxHashMap<Rc<Run>, Rc<Effect>>,
    /// Runs of programs that were followed.
    pub runs: u64,
    /// Contexts that are kept: what each different run has read, at its beginning and after each wait.
    pub inputs: u64,
    /// Greatest distance that a program has waited at.
    pub farthest: u64,
    /// The machine's error, if it had one.
    pub broken: Option<MachineError>,
}

/// One choice of the environment.
#[derive(Clone, Debug, Default)]
struct Choice {
    context: Context,
    /// Values of kept state variables, by index.
    kept: Vec<(usize, u64)>,
    /// Those of them that hold a time whose deadline is over, as bits.
    overdue: u64,
    /// The cells of what must fit the state.
    age: Option<Cell>,
    bytes: Option<Cell>,
    len: Option<Cell>,
    /// The cell of `call.updates`.
    updates: Option<Cell>,
}

impl<'a> Programs<'a> {
    /// `samples`: the vectors of parameters that a call may see. `None` if the environment has too
    /// many choices.
    pub fn new(
        machine: &'a mut Machine,
        reads: u32,
        samples: &'a [Vec<u64>],
        cells: &Cells,
        dates: Dates,
    ) -> Option<Self> {
        let mut first_vars = machine.memory().copy_state();
        let mut kept = vec![false; first_vars.len()];
        let relative = cells.relative_clock;
        let now = if relative && reads & bit(Reading::Now) != 0 { NOW } else { 0 };
        let context = Context { now, ..Context::default() };
        let mut choices = vec![Choice { context, ..Choice::default() }];
        let mut latencies = vec![0];
        for (source, of) in &cells.of {
            if *source == Source::Reading(Reading::SyncLatency) {
                // Chosen when a sync ends.
                latencies = of.iter().filter_map(|cell| value_in(*cell, 0)).collect();
                continue;
            }
            if relative && *source == Source::Reading(Reading::Now) {
                // What is chosen is how long ago the kept times were.
                continue;
            }
            let mut all = Vec::new();
            for &cell in of {
                for choice in &choices {
                    let overdue = choice.overdue | dates.overdue(*source, cell);
                    let choice = choice.with(*source, cell);
                    all.extend(choice.map(|choice| Choice { overdue, ..choice }));
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
        forget(&kept, &mut first_vars);
        let cache = FxHashMap::default();
        Some(Self {
            machine,
            reads,
            samples,
            choices,
            latencies,
            counts_bytes: !cells.pairs_bytes,
            watched: false,
            judge: Judge::new(cells, |reading| reads & bit(reading) != 0),
            dates,
            kept,
            first_vars: first_vars.into(),
            cache,
            runs: 0,
            inputs: 0,
            farthest: 0,
            broken: None,
        })
    }

    /// Other syncs than the engine's are seen, by bytes: which calls they cover is not known.
    pub fn watched(&mut self) {
        self.watched = true;
        self.counts_bytes = false;
    }

    /// Whether it matters which calls are lost whose bytes are on the disk.
    pub fn counts_bytes(&self) -> bool {
        self.counts_bytes && self.reads(bit(Reading::PendingBytes))
    }

    /// Whether there is a program for `hook`.
    pub fn has(&self, hook: Hook) -> bool {
        self.machine.has(hook)
    }

    /// Whether a program loads one of these readings, given as bits.
    pub fn reads(&self, bits: u32) -> bool {
        self.reads & bits != 0
    }

    /// The vectors of parameters that a call may see, by index.
    pub fn params(&self) -> Range<u16> {
        let one = makes(Mutant::FixedParameters);
        0..if one { 1 } else { self.samples.len().max(1) as u16 }
    }

    /// How long a sync can take that ends with success, as far as it is told apart.
    pub fn latencies(&self) -> &[Time] {
        if makes(Mutant::OneLatency) {
            self.latencies.get(..1).unwrap_or(&[])
        } else {
            &self.latencies
        }
    }

    /// The state variables of a log that was just opened.
    pub fn first_vars(&self) -> Vars {
        self.first_vars.clone()
    }

    /// Sets what keeps readings to 0: it is chosen anew at the next call.
    pub fn forget_kept(&self, vars: &mut Vars) {
        if self.kept.contains(&true) {
            forget(&self.kept, Rc::make_mut(vars));
        }
    }

    /// Everything that the program of a call can do: from its beginning, or on from a wait. Of what
    /// happens on the log, no more has happened since it read last than `since` says; time and children
    /// have gone on.
    pub fn run(&mut self, state: &State, open: &Open, since: Since) -> Vec<(Rc<Run>, Rc<Effect>)> {
        let mut effects: Vec<(Rc<Run>, Rc<Effect>)> = Vec::new();
        // Where those are that can be the same.
        let mut places: FxHashMap<u64, Vec<usize>> = FxHashMap::default();
        for index in 0..self.choices.len() {
            let Some((context, kept)) = self.fit(index, state, open) else { continue };
            let last = open.run.as_ref().and_then(|run| run.inputs.last());
            let watched = self.watched;
            if last.is_some_and(|last| !since.allows(&last.context, &context, watched)) {
                continue;
            }
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
                        if let Some(var) = Rc::make_mut(&mut vars).get_mut(*index) {
                            *var = *value;
                        }
                    }
                    Run { hook: open.hook, inputs: vec![input], vars }
                }
            };
            self.runs += 1;
            let Some((run, mut effect)) = self.effect(run) else { break };
            let ends = matches!(effect.end, End::Verdict(_));
            if ends && self.kept.contains(&true) {
                self.forget_kept(&mut Rc::make_mut(&mut effect).vars);
            }
            // Many choices have the same effect. What a run that goes on has read may matter yet, and
            // whether a write has any bytes.
            let judge = &self.judge;
            let same = |(earlier, of): &(Rc<Run>, Rc<Effect>)| {
                let judged = |run: &Rc<Run>| judge.looks().then(|| judge.most(Some(run)));
                let alike = ends
                    && earlier.is_empty_write() == run.is_empty_write()
                    && judged(earlier) == judged(&run);
                *of == effect && (alike || *earlier == run)
            };
            let hash = match ends {
                true => FxBuildHasher.hash_one((&effect, run.is_empty_write())),
                false => FxBuildHasher.hash_one(&run),
            };
            let earlier = places.entry(hash).or_default();
            if !earlier.iter().filter_map(|at| effects.get(*at)).any(same) {
                earlier.push(effects.len());
                effects.push((run, effect));
            }
        }
        effects
    }

    /// What the program reads in this state, if the choice is possible in it.
    fn fit(&self, index: usize, state: &State, open: &Open) -> Option<(Context, &[(usize, u64)])> {
        let choice = self.choices.get(index)?;
        // It would have waited for what is overdue.
        if choice.overdue != 0 && open.hook.is_sync() && choice.overdue & state.dated() != 0 {
            return None;
        }
        let mut context = choice.context;
        let log = &state.log;
        let reads = |reading| self.reads & bit(reading) != 0;
        if reads(Reading::Pending) {
            context.pending = log.pending(open.number);
        }
        if reads(Reading::Staged) {
            context.staged = log.staged(open.number - u64::from(!open.hook.is_sync()));
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
            // Every call that is lost has a byte of its own, and so has this one.
            let least = state.lost() + u64::from(open.hook.is_sync());
            context.pending_bytes = match log.notify_done() {
                true if cell.0 > 0 => return None,
                true => 0,
                false if self.counts_bytes => value_in(cell, least.max(1))?,
                false => value_in(cell, 1)?,
            };
        }
        if let Some(cell) = choice.len {
            context.len = match open.hook.is_sync() {
                true if cell.0 > 0 => return None,
                true => 0,
                false => cell.0,
            };
        }
        if let Some(cell) = choice.updates {
            context.updates = match open.hook.is_sync() {
                true if cell.0 > 0 => return None,
                true => 0,
                false => cell.0,
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
        let set = self.dates.set_in(&vars);
        let effect = Rc::new(Effect { requested: replay.requested, vars: vars.into(), set, end });
        self.inputs += run.inputs.len() as u64;
        let run = Rc::new(run);
        self.cache.insert(run.clone(), effect.clone());
        Some((run, effect))
    }
}

/// What can have happened on the log since a program read last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Anything: the call begins, or has waited.
    Anything,
    /// Nothing: the wait was over before it began.
    Nothing,
    /// The same, but another thread has written: a write without a program needs no lock.
    Write,
}

impl Since {
    /// Whether a program can read `next` after `last`. With `watched` the kernel goes on counting syncs.
    fn allows(self, last: &Context, next: &Context, watched: bool) -> bool {
        let counts = |c: &Context| if watched { 0 } else { c.notify_count };
        let fixed = (last.len, counts(last)) == (next.len, counts(next));
        let bytes = match self {
            Since::Anything => return true,
            Since::Nothing => last.pending_bytes == next.pending_bytes,
            Since::Write => last.pending_bytes <= next.pending_bytes,
        };
        fixed && bytes
    }
}

fn forget(kept: &[bool], vars: &mut [u64]) {
    vars.iter_mut().zip(kept).filter(|(_, kept)| **kept).for_each(|(var, _)| *var = 0);
}

impl Choice {
    /// This choice with a value of the cell for the source.
    fn with(&self, source: Source, cell: Cell) -> Option<Choice> {
        let mut choice = self.clone();
        let value = value_in(cell, 0)?;
        let c = &mut choice.context;
        match source {
            Source::Kept(id) => choice.kept.push((id.index(), value)),
            Source::Reading(Reading::PendingAge) => choice.age = Some(cell),
            Source::Reading(Reading::PendingBytes) => choice.bytes = Some(cell),
            Source::Reading(Reading::CallLen) => choice.len = Some(cell),
            Source::Reading(Reading::CallUpdates) => choice.updates = Some(cell),
            Source::Reading(Reading::PendingUpdates) => c.pending_updates = value,
            Source::Reading(Reading::NotifyCount) => c.notify_count = value,
            // There is no third truth value.
            Source::Reading(Reading::ChildActive) if value > 1 => return None,
            Source::Reading(Reading::ChildActive) => c.child_active = value,
            Source::Reading(Reading::Now) => c.now = value,
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
