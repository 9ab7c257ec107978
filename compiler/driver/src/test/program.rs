//! A call's run of the policy's program: parked in a wait, it is run again from its beginning with what it has
//! read up to there.

use durac_abi::{CLOCK_MOST, Context, Hook, READING_MOST};
use durac_engine::{Log, Time};
use durac_prove::machine::{Ended, Machine, MachineError, Memory, World};

/// A call whose program has been started.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// Which call it is.
    pub hook: Hook,
    /// Its number; in a write, that of the next sync call.
    pub number: u64,
    /// Bytes of the write.
    pub len: u64,
    /// The updates that it completes.
    pub updates: u64,
    /// The parameters, as they were when it began.
    pub params: Vec<u64>,
    /// It has asked for a background sync.
    pub requested: bool,
    /// What the wait that it is parked in needs.
    pub target: u64,
    /// The context and the state variables at the start and after each wait.
    seen: Vec<(Context, Vec<u64>)>,
}

/// What a program finds around it.
pub(super) struct Surroundings<'a> {
    /// The log.
    pub log: &'a mut Log,
    /// The time.
    pub now: Time,
    /// Whether a child runs.
    pub child: bool,
    /// The log's state variables; what the program leaves in them.
    pub state: &'a mut Vec<u64>,
    /// The probes that were reached.
    pub reached: &'a mut Vec<u64>,
}

impl Call {
    pub fn new(hook: Hook, number: u64, len: u64, params: Vec<u64>) -> Self {
        Self {
            hook,
            number,
            len,
            updates: 0,
            params,
            requested: false,
            target: 0,
            seen: Vec::new(),
        }
    }

    /// Runs the program; from its wait on if `resumes`.
    pub fn run(
        &mut self,
        machine: &mut Machine,
        around: Surroundings<'_>,
        resumes: bool,
    ) -> Result<Ended, MachineError> {
        if !resumes {
            let first = context(around.log, self, around.now, around.child);
            self.seen = vec![(first, around.state.clone())];
        }
        let memory = machine.memory();
        memory.set_params(&self.params);
        if let Some((context, state)) = self.seen.first() {
            memory.set_context(*context);
            memory.set_state(state);
        }
        let hook = self.hook;
        let mut run = Run { call: self, around, passed: 1, free: resumes };
        let ended = machine.run(hook, &mut run)?;
        if let Ended::Verdict(_) = ended {
            run.around.state.clone_from(&machine.memory().copy_state());
        }
        Ok(ended)
    }
}

/// What a program of a call reads, as the agent fills it in.
pub(super) fn context(log: &Log, call: &Call, now: Time, child: bool) -> Context {
    let is_write = call.hook == Hook::Write;
    Context {
        log: 0,
        len: call.len.min(READING_MOST),
        now: now.min(CLOCK_MOST),
        pending: log.pending(call.number),
        pending_bytes: log.read_bytes(),
        pending_updates: log.read_updates(),
        updates: call.updates.min(READING_MOST),
        pending_age: log.pending_age(now).min(READING_MOST),
        staged: log.staged(call.number - u64::from(is_write)),
        sync_latency: log.sync_latency().min(READING_MOST),
        notify_done: log.notify_done().into(),
        notify_count: log.counters().syncs,
        child_active: child.into(),
        ready: 0,
        reply_clean: 0,
    }
}

/// One run, the first or a later one.
struct Run<'a> {
    call: &'a mut Call,
    around: Surroundings<'a>,
    /// Waits passed, and one.
    passed: usize,
    /// The wait in which the call was parked is over.
    free: bool,
}

impl World for Run<'_> {
    fn request(&mut self) {
        if self.call.requested {
            return;
        }
        match self.call.hook {
            Hook::Write => self.around.log.commit(self.around.now),
            _ => self.around.log.request(self.call.number, self.around.now),
        }
        self.call.requested = true;
    }

    fn wait(&mut self, distance: u64, memory: &Memory) -> bool {
        if let Some((context, state)) = self.call.seen.get(self.passed) {
            memory.set_context(*context);
            memory.set_state(state);
            self.passed += 1;
            return true;
        }
        if self.free {
            self.free = false;
        } else {
            *self.around.state = memory.copy_state();
            // A write is no call that could become durable: it waits for calls before it.
            let least = u64::from(self.call.hook == Hook::Write);
            let distance = distance.max(least);
            self.call.target = self.around.log.await_target(self.call.number, distance);
            if !self.around.log.is_ready(self.call.target) {
                return false;
            }
        }
        let around = &self.around;
        let context = context(around.log, self.call, around.now, around.child);
        memory.set_context(context);
        memory.set_state(around.state);
        self.call.seen.push((context, around.state.clone()));
        self.passed += 1;
        true
    }

    fn reached(&mut self, place: u64) {
        self.around.reached.push(place);
    }
}
