//! A call's run of the policy's program, which may be parked in a wait and run again.

use durac_abi::{Context, Hook, Reading, Verdict};
use durac_engine::{Log, Time};
use durac_prove::machine::{Ended, Machine, MachineError, Memory, World, bit};

/// What a program has read up to now, so that it can be run again up to the wait that it is in.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The context at the start and after each wait.
    contexts: Vec<Context>,
    /// The state variables at the same places, one after the other.
    states: Vec<u64>,
    /// The program has asked for a background sync.
    pub requested: bool,
    /// What the wait that it is parked in needs.
    pub target: u64,
}

/// A call whose program runs.
pub struct Asking<'a> {
    /// The log.
    pub log: &'a mut Log,
    /// Number of the call; of the next sync call in a write.
    pub number: u64,
    /// Which call it is.
    pub hook: Hook,
    /// What does not change while it runs.
    pub fixed: Fixed,
    /// What it has read.
    pub inputs: &'a mut Inputs,
    /// The log's state variables; what the program leaves in them.
    pub state: &'a mut Vec<u64>,
}

/// Readings that do not come from the engine, and what the programs read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fixed {
    /// Key of the log in the state map.
    pub log: u64,
    /// Bytes of the write.
    pub len: u64,
    /// Updates that the write completes.
    pub updates: u64,
    /// The time.
    pub now: Time,
    /// Whether a child of the application runs.
    pub child: bool,
    /// Readings that the programs load.
    pub reads: u32,
}

impl Fixed {
    /// What a program of call `number` reads.
    fn context(&self, log: &Log, number: u64) -> Context {
        let reads = |reading| self.reads & bit(reading) != 0;
        let timed = reads(Reading::Now) || reads(Reading::PendingAge);
        let now = if timed { self.now } else { 0 };
        Context {
            log: self.log,
            len: self.len,
            now,
            pending: log.pending(number),
            pending_bytes: log.pending_bytes(),
            pending_age: log.pending_age(now),
            staged: log.staged(number - u64::from(self.len > 0)),
            sync_latency: log.sync_latency(),
            notify_done: log.notify_done().into(),
            notify_count: log.counters().syncs,
            child_active: self.child.into(),
            pending_updates: log.read_updates(),
            updates: self.updates,
            ready: 0,
            reply_clean: 0,
        }
    }
}

impl Asking<'_> {
    /// Runs the program of a call that begins.
    ///
    /// # Errors
    /// That of the machine.
    pub fn start(self, machine: &mut Machine) -> Result<Ended, MachineError> {
        self.inputs.contexts.clear();
        self.inputs.states.clear();
        self.inputs.requested = false;
        self.inputs.contexts.push(self.fixed.context(self.log, self.number));
        self.inputs.states.extend_from_slice(self.state);
        self.run(machine, false)
    }

    /// Runs the program of a parked call again; it may go on from its wait.
    ///
    /// # Errors
    /// That of the machine.
    pub fn resume(self, machine: &mut Machine) -> Result<Ended, MachineError> {
        self.run(machine, true)
    }

    fn run(self, machine: &mut Machine, free: bool) -> Result<Ended, MachineError> {
        let Self { log, number, hook, fixed, inputs, state } = self;
        if let Some(context) = inputs.contexts.first() {
            machine.memory().set_context(*context);
        }
        machine.memory().set_state(inputs.states.get(..state.len()).unwrap_or_default());
        let mut run = Run { log, number, hook, fixed, inputs, state, at: 1, free };
        let ended = machine.run(hook, &mut run)?;
        if let Ended::Verdict(_) = ended {
            copy_state(machine.memory(), state);
        }
        Ok(ended)
    }
}

fn copy_state(memory: &Memory, state: &mut [u64]) {
    state.iter_mut().zip(memory.state()).for_each(|(to, from)| *to = from.get());
}

/// One run, the first or a later one.
struct Run<'a> {
    log: &'a mut Log,
    number: u64,
    hook: Hook,
    fixed: Fixed,
    inputs: &'a mut Inputs,
    state: &'a mut Vec<u64>,
    /// Waits passed, and one.
    at: usize,
    /// The wait in which the call was parked is over.
    free: bool,
}

impl World for Run<'_> {
    fn request(&mut self) {
        if !self.inputs.requested {
            match self.hook {
                Hook::Write => self.log.commit(self.fixed.now),
                _ => self.log.request(self.number, self.fixed.now),
            }
            self.inputs.requested = true;
        }
    }

    fn wait(&mut self, distance: u64, memory: &Memory) -> bool {
        let width = self.state.len();
        if let Some(context) = self.inputs.contexts.get(self.at) {
            let begin = self.at * width;
            memory.set_context(*context);
            memory.set_state(self.inputs.states.get(begin..begin + width).unwrap_or_default());
            self.at += 1;
            return true;
        }
        if self.free {
            self.free = false;
        } else {
            copy_state(memory, self.state);
            // A write is no call that could become durable: it waits for calls before it.
            let distance = if self.hook == Hook::Write { distance.max(1) } else { distance };
            self.inputs.target = self.log.await_target(self.number, distance);
            if !self.log.is_ready(self.inputs.target) {
                return false;
            }
        }
        let context = self.fixed.context(self.log, self.number);
        memory.set_context(context);
        memory.set_state(self.state);
        self.inputs.contexts.push(context);
        self.inputs.states.extend_from_slice(self.state);
        self.at += 1;
        true
    }
}

/// What the engine is told of a verdict on a write.
#[must_use]
pub fn writing(verdict: Verdict) -> durac_engine::Writing {
    match verdict {
        Verdict::Fail(errno) => durac_engine::Writing::Fail(errno),
        Verdict::Stage => durac_engine::Writing::Stage,
        // Also what no runtime has for a write.
        _ => durac_engine::Writing::Pass,
    }
}

/// What the engine is told of a verdict on a sync call.
#[must_use]
pub fn decision(verdict: Verdict) -> durac_engine::Decision {
    match verdict {
        Verdict::Fail(errno) => durac_engine::Decision::Fail(errno),
        Verdict::Skip => durac_engine::Decision::Skip,
        Verdict::Defer => durac_engine::Decision::Defer,
        // Also what no runtime has for a sync.
        Verdict::Pass | Verdict::Stage | Verdict::Hold | Verdict::Gather(_) => {
            durac_engine::Decision::Pass
        }
    }
}
