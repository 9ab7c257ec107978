//! A call of the application, step by step as the agent makes it (`agent/src/call.rs` and
//! `agent/src/log.rs`).

use super::connections::Look;
use super::drive::Simulation;
use super::observe::{Returned, What};
use super::program::{Asking, Fixed, Inputs, decision, writing};
use super::syncer::Stage;
use durac_abi::{Hook, STAGE_ROOM};
use durac_engine::{Able, Answer, Decision, Entry, Flight, Put, Time, Wait, Writing};
use durac_prove::machine::Ended;

/// What a hooked call costs beside the call: the `hook` bench of the agent says 0.1 to 0.2 µs.
const HOOK: u64 = 150;

/// A thread of the application.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its log.
    pub log: usize,
    /// What it does.
    pub step: Step,
    /// Place in the recorded work.
    pub position: usize,
    /// Commands of this turn.
    pub commands: u64,
    /// Bytes that it is about to write.
    pub bytes: u64,
    /// It has slept since its last turn.
    pub slept: bool,
    /// Number of its sync call; of the next one in a write.
    number: u64,
    /// When the call began.
    began: Time,
    /// Work that its call has caused and that it has still to do.
    extra: u64,
    /// When its wait began, and until which call is durable.
    wait: (Time, u64),
    inputs: Inputs,
}

impl Caller {
    /// A thread that writes a log, and begins at a place of the recorded work.
    #[must_use]
    pub fn new(log: usize, position: usize) -> Self {
        Self {
            log,
            step: Step::Idle,
            position,
            commands: 0,
            bytes: 0,
            slept: false,
            number: 0,
            began: 0,
            extra: 0,
            wait: (0, 0),
            inputs: Inputs::default(),
        }
    }
}

/// What a thread of the application does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It waits for commands.
    Idle,
    /// It works before it writes.
    Serve,
    /// It pauses, and has so much to do afterwards.
    Pause(u64),
    /// Its write waits for the file system.
    Held,
    /// It looks for more commands before it works.
    Looks(Look),
    /// It makes replies that are held.
    Copies,
    /// It replies to clients.
    Reply,
    /// It sleeps until a sync has ended.
    Sleeps(Then),
    /// It syncs.
    Syncs(Flight, Stage, Then),
    /// Its sync has ended; another could still contradict the success.
    Doubts(u64),
}

/// What a call does after a wait or a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It asks the policy: what was overdue is durable.
    Ask,
    /// It goes on with its program.
    Resume(Hook),
    /// It returns.
    Return,
}

impl Simulation<'_> {
    fn hook(&self) -> Hook {
        if self.app.full { Hook::Fsync } else { Hook::Fdatasync }
    }

    fn fixed(&mut self, caller: usize, len: u64) -> Fixed {
        let (now, reads, child) = (self.cpu.now(), self.reads, self.children > 0);
        let (state, _) = self.parts(caller);
        Fixed { log: state.log as u64, len, updates: 0, now, child, reads }
    }

    /// A thread writes what it has to, and syncs.
    pub fn write(&mut self, caller: usize) {
        if self.machine.has(Hook::Write) {
            let (state, place) = self.parts(caller);
            state.number = place.log.upcoming();
            self.ask(caller, Hook::Write, false);
        } else {
            self.written(caller);
        }
    }

    /// The policy has decided about a write.
    fn put(&mut self, caller: usize, decision: Writing) {
        let now = self.cpu.now();
        let (state, place) = self.parts(caller);
        let fits = state.bytes > 0 && place.staged + state.bytes <= STAGE_ROOM;
        match place.log.decide_write(decision, fits, Able::ALL, now) {
            Put::Fail(_) => {
                state.bytes = 0;
                self.written(caller);
            }
            Put::Copy => {
                let (bytes, index) = (state.bytes, state.log);
                place.staged += bytes;
                place.written += bytes;
                place.updates += state.commands;
                place.tell();
                self.seen.wrote(now, bytes);
                self.poke_from(caller, index);
                self.sync(caller);
            }
            Put::Write => {
                place.staged = 0;
                self.written(caller);
            }
        }
    }

    /// The write goes on as the application made it.
    fn written(&mut self, caller: usize) {
        let (now, delay) = (self.cpu.now(), self.app.wake_delay);
        let (state, place) = self.parts(caller);
        if let Some(until) = place.metadata.holds(now, place.written) {
            state.step = Step::Held;
            state.slept = true;
            self.cpu.sleep(caller, until + delay);
            return;
        }
        let bytes = state.bytes;
        place.written += bytes;
        // A write that the policy failed has none.
        place.updates += if bytes == 0 { 0 } else { state.commands };
        self.seen.wrote(now, bytes);
        self.sync(caller);
    }

    fn sync(&mut self, caller: usize) {
        let (now, full, hook) = (self.cpu.now(), self.app.full, self.hook());
        let hooked = self.machine.has(hook);
        let timed = self.timed;
        let (state, place) = self.parts(caller);
        state.began = now;
        state.extra = HOOK;
        place.tell();
        self.connections.synced();
        let (state, place) = self.parts(caller);
        match place.log.enter(full, hooked) {
            Entry::Refused(_) => self.returns(caller, What::Failed),
            Entry::Direct(call) => {
                state.number = call.number;
                self.own_sync(caller, Then::Return);
            }
            Entry::Ask(call) => {
                state.number = call.number;
                let overdue = if timed { place.log.overdue(now) } else { None };
                match overdue {
                    Some(target) => self.wait(caller, target, Then::Ask),
                    None => self.ask(caller, hook, false),
                }
            }
        }
    }

    /// Runs the policy's program, from its beginning or on from its wait.
    fn ask(&mut self, caller: usize, hook: Hook, resumes: bool) {
        let len = if hook == Hook::Write { self.parts(caller).0.bytes } else { 0 };
        let updates = if hook == Hook::Write { self.parts(caller).0.commands } else { 0 };
        let fixed = Fixed { updates, ..self.fixed(caller, len) };
        let Some(state) = self.callers.get_mut(caller) else { return };
        let index = state.log;
        let Some(place) = self.places.get_mut(index) else { return };
        place.tell();
        let asked = state.inputs.requested && resumes;
        let asking = Asking {
            log: &mut place.log,
            number: state.number,
            hook,
            fixed,
            inputs: &mut state.inputs,
            state: &mut place.state,
        };
        let machine = &mut self.machine;
        let ended = if resumes { asking.resume(machine) } else { asking.start(machine) };
        if self.parts(caller).0.inputs.requested && !asked {
            self.poke_from(caller, index);
        }
        match ended {
            Err(failure) => self.failure = Some(failure),
            Ok(Ended::Parked) => {
                let target = self.parts(caller).0.inputs.target;
                self.wait(caller, target, Then::Resume(hook));
            }
            Ok(Ended::Verdict(verdict)) if hook == Hook::Write => {
                self.put(caller, writing(verdict));
            }
            Ok(Ended::Verdict(verdict)) => self.decide(caller, decision(verdict)),
        }
    }

    fn decide(&mut self, caller: usize, decision: Decision) {
        let (now, timed) = (self.cpu.now(), self.timed);
        let (state, place) = self.parts(caller);
        let requested = state.inputs.requested;
        let asks = decision == Decision::Defer && !requested;
        let time = if timed || asks { now } else { 0 };
        match place.log.decide(state.number, decision, requested, Able::ALL, time) {
            Answer::Return(Ok(())) => {
                let index = state.log;
                if timed || asks {
                    self.poke_from(caller, index);
                }
                self.returns(caller, What::Acknowledged);
            }
            Answer::Return(Err(_)) => self.returns(caller, What::Failed),
            Answer::Sync => self.own_sync(caller, Then::Return),
        }
    }

    /// As [`Simulation::poke`], by a call that has to pay for it.
    fn poke_from(&mut self, caller: usize, index: usize) {
        let before = self.cpu.extra(caller);
        self.poke(caller, index);
        let paid = self.cpu.extra(caller) - before;
        self.parts(caller).0.extra += paid;
    }

    /// Parks the call until `target` is durable, or syncs if nobody else is going to.
    fn wait(&mut self, caller: usize, target: u64, then: Then) {
        let now = self.cpu.now();
        let (state, place) = self.parts(caller);
        state.wait = (now, target);
        if !place.log.is_ready(target) {
            place.log.parks(now);
        }
        self.waits(caller, then);
    }

    fn waits(&mut self, caller: usize, then: Then) {
        let (state, place) = self.parts(caller);
        let (_, target) = state.wait;
        match place.log.wait(target, place.syncer.is_awake(), Able::ALL) {
            Wait::Ready => self.waited(caller, then),
            Wait::Sync => self.own_sync(caller, then),
            Wait::Sleep => {
                state.step = Step::Sleeps(then);
                state.slept = true;
                place.waiters.push(caller);
                let index = state.log;
                self.poke_from(caller, index);
                self.cpu.stand(caller);
            }
        }
    }

    /// A wait is over.
    fn waited(&mut self, caller: usize, then: Then) {
        let (now, hook) = (self.cpu.now(), self.hook());
        let (since, target) = self.parts(caller).0.wait;
        self.seen.waited(since, now, target);
        match then {
            Then::Ask => self.ask(caller, hook, false),
            Then::Resume(hook) => self.ask(caller, hook, true),
            Then::Return => self.returns(caller, What::Passed),
        }
    }

    /// Syncs in the calling thread.
    fn own_sync(&mut self, caller: usize, then: Then) {
        let (now, full) = (self.cpu.now(), self.app.full && then == Then::Return);
        let (state, place) = self.parts(caller);
        place.tell();
        let flight = place.log.start(false, full, now);
        place.staged = 0;
        state.slept = true;
        let index = state.log;
        let stage = self.begin_sync(caller, index);
        self.parts(caller).0.step = Step::Syncs(flight, stage, then);
    }

    /// What a call was doing is over.
    pub fn step(&mut self, caller: usize) {
        let (state, place) = self.parts(caller);
        match state.step {
            Step::Sleeps(then) => self.waits(caller, then),
            Step::Syncs(flight, stage, then) => {
                let index = state.log;
                if let Some(stage) = self.sync_goes_on(caller, index, flight, stage) {
                    self.parts(caller).0.step = Step::Syncs(flight, stage, then);
                    return;
                }
                self.sync_ended(index, caller, flight);
                let (state, place) = self.parts(caller);
                match then {
                    Then::Return if !place.log.is_ready(flight.covers) => {
                        state.step = Step::Doubts(flight.covers);
                        place.waiters.push(caller);
                        self.cpu.stand(caller);
                    }
                    Then::Return => self.own_sync_ended(caller),
                    _ => {
                        self.poke_from(caller, index);
                        self.waits(caller, then);
                    }
                }
            }
            Step::Doubts(covers) if !place.log.is_ready(covers) => {
                place.waiters.push(caller);
                self.cpu.stand(caller);
            }
            Step::Doubts(_) => self.own_sync_ended(caller),
            Step::Held => self.written(caller),
            Step::Looks(_) | Step::Copies => {}
            Step::Idle | Step::Serve | Step::Pause(_) | Step::Reply => {}
        }
    }

    fn own_sync_ended(&mut self, caller: usize) {
        let index = self.parts(caller).0.log;
        self.poke_from(caller, index);
        self.returns(caller, What::Passed);
    }

    fn returns(&mut self, caller: usize, what: What) {
        let now = self.cpu.now();
        let (state, _) = self.parts(caller);
        let returned = Returned {
            number: state.number,
            began: state.began,
            now,
            extra: state.extra,
            what,
            bytes: state.bytes,
            commands: state.commands,
        };
        let index = state.log;
        if let Some(place) = self.places.get(index) {
            self.seen.returned(&place.log, index, returned);
        }
        self.cpu.charge(caller, HOOK);
        self.call_returned(caller);
    }
}
