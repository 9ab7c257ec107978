//! The simulation itself: threads of the application, its clients, the syncers, and the device, on
//! one virtual clock.
//!
//! What a call does is in [`call`](super::call), what a syncer does in [`syncer`](super::syncer):
//! both take the same steps on the same engine as the agent. This module is the application.

use super::application::{Application, ApplicationKind, EventLoop, Stream, Threads};
use super::call::{Caller, Step};
use super::connections::Connections;
use super::device::{Device, Journal, Metadata};
use super::observe::Observer;
use super::processor::{Processors, ThreadId};
use super::random::Random;
use super::syncer::Syncer;
use durac_abi::{Object, Reading};
use durac_engine::{Log, Time};
use durac_prove::machine::{Backend, Machine, MachineError, bit, reads};
use durac_prove::proof::rules;

/// A processor that became idle less than that ago polls before it halts (`guest_halt_poll_ns`, and
/// its host does the same), and a thread on it is woken quickly. In recorded traces a server that
/// had waited for less found one command, and for more found those of all clients.
const POLLED: Time = 60_000;
/// What a wake-up then costs: this part of one from a halt.
const POLLED_SHARE: u64 = 6;

/// Why a simulation cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The policy's programs cannot be run.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The trace does not say how many updates a write has.
    #[error(
        "the policy reads how many updates are written, and the writes of this trace are not made of equal commands"
    )]
    UnknownUpdates,
    /// All threads wait for each other: a mistake of ours, or of the policy.
    #[error("every thread waits for another, {0} calls after the beginning")]
    Stuck(u64),
}

/// Whether the policy reads how many updates are written, and nothing says that of the application.
#[must_use]
pub fn misses_updates(app: &Application, object: &Object) -> bool {
    let counts = bit(Reading::PendingUpdates) | bit(Reading::CallUpdates);
    matches!(app.kind, ApplicationKind::Threads(_)) && reads(object) & counts != 0
}

/// A log and its syncer.
pub struct LogSite {
    /// The engine.
    pub log: Log,
    /// The syncer thread.
    pub syncer: Syncer,
    /// Its thread.
    pub thread: ThreadId,
    /// Threads that sleep until a sync has ended.
    pub waiters: Vec<usize>,
    /// Bytes written, those that are staged included.
    pub written: u64,
    /// Commands written, those that are staged included.
    pub updates: u64,
    /// Bytes that are staged.
    pub staged: u64,
    /// Blocks of the file that have a place on the device.
    pub blocks: u64,
    /// State variables of the policy.
    pub state: Vec<u64>,
    /// Commits of the file system.
    pub journal: Journal,
    /// While the last of them writes the file's metadata.
    pub metadata: Metadata,
}

impl LogSite {
    /// Tells the engine what has been written.
    pub fn tell(&mut self) {
        self.log.wrote(self.written);
        self.log.counted(self.updates, self.updates);
    }
}

/// A simulation that runs.
pub struct Simulation<'a> {
    /// The application's parameters.
    pub app: &'a Application,
    /// The device's.
    pub device: &'a Device,
    /// The policy's programs.
    pub machine: Machine,
    /// Readings that they load.
    pub reads: u32,
    /// Whether acknowledgements need the time.
    pub timed: bool,
    /// The clock, and what runs.
    pub cpu: Processors,
    /// Chance.
    pub random: Random,
    /// The logs.
    pub places: Vec<LogSite>,
    /// Threads of the application.
    pub callers: Vec<Caller>,
    /// Held replies and turns.
    pub connections: Connections,
    /// The thread of the clients; a server without clients has none.
    client: Client,
    /// Commands or, of threads, calls that were made.
    pub done: u64,
    /// Children of the application that run.
    pub children: u32,
    next_child: usize,
    /// What is counted.
    pub seen: Observer,
    /// What went wrong inside.
    pub failure: Option<MachineError>,
}

/// The clients' thread.
#[derive(Clone, Copy, Debug)]
struct Client {
    thread: ThreadId,
    doing: Serving,
    /// Commands on their way to the server.
    commands: Stream,
    /// Replies on their way to the clients.
    replies: Stream,
}

/// What a thread does that serves what others send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serving {
    /// There is nothing: it sleeps.
    Nothing,
    /// It was woken, and will look.
    Waking,
    /// It reads so many.
    Reads(u32),
    /// It sends them on, one by one.
    Sends,
}

impl<'a> Simulation<'a> {
    /// Prepares a simulation of `object`, its parameters at their defaults.
    ///
    /// # Errors
    /// When its programs cannot be run.
    pub fn new(
        app: &'a Application,
        device: &'a Device,
        object: &Object,
        seed: u64,
        crashes: Option<Vec<Time>>,
    ) -> Result<Self, SimulateError> {
        let machine = Machine::new(object, Backend::Jit)?;
        let reads = reads(object);
        if misses_updates(app, object) {
            return Err(SimulateError::UnknownUpdates);
        }
        let rules = rules(object);
        let (callers, logs) = (app.callers(), app.logs());
        let state = machine.memory().copy_state();
        let place = |index| LogSite {
            log: Log::new(rules),
            syncer: Syncer::default(),
            thread: callers + index,
            waiters: Vec::new(),
            written: 0,
            updates: 0,
            staged: 0,
            blocks: 0,
            state: state.clone(),
            journal: Journal::default(),
            metadata: Metadata::default(),
        };
        let (clients, of, work) = match &app.kind {
            ApplicationKind::EventLoop(event_loop) => (event_loop.clients, vec![0], 0),
            ApplicationKind::Threads(threads) => (0, threads.logs.clone(), threads.work.len()),
        };
        let client = Client {
            thread: callers + logs,
            doing: Serving::Nothing,
            commands: Stream::with_ready(clients),
            replies: Stream::default(),
        };
        let mut simulation = Self {
            app,
            device,
            reads,
            timed: rules.needs_time(),
            cpu: Processors::new(app.cores, callers + logs + usize::from(clients > 0)),
            random: Random::new(seed),
            places: (0..logs).map(place).collect(),
            callers: of
                .into_iter()
                .enumerate()
                .map(|(i, log)| Caller::new(log, i * work / callers))
                .collect(),
            connections: Connections::new(clients),
            client,
            done: 0,
            children: 0,
            next_child: 0,
            seen: Observer::new(logs, crashes),
            failure: None,
            machine,
        };
        for caller in 0..callers {
            simulation.go_on(caller);
        }
        Ok(simulation)
    }

    /// Runs until as much is done as was recorded; answers the virtual time. `tick` is told of the
    /// progress now and then.
    ///
    /// # Errors
    /// When a program stops, or nothing can go on.
    pub fn run(&mut self, tick: &mut dyn FnMut(u64)) -> Result<Time, SimulateError> {
        let (callers, client) = (self.callers.len(), self.client.thread);
        let mut told = 0;
        while self.done < self.app.amount {
            let Some(thread) = self.cpu.next() else {
                return Err(SimulateError::Stuck(self.done));
            };
            self.seen.pass(self.cpu.now());
            if thread < callers {
                self.caller_goes_on(thread);
            } else if thread == client {
                self.client_goes_on();
            } else {
                self.syncer_goes_on(thread - callers);
            }
            if let Some(failure) = self.failure.take() {
                return Err(failure.into());
            }
            if self.done - told >= 4096 {
                tick(self.done - told);
                told = self.done;
            }
        }
        tick(self.done - told);
        Ok(self.cpu.now())
    }

    /// Makes everything acknowledged durable, as when the application closes its logs: what is under
    /// way comes home, and a last sync covers the rest.
    pub fn drain(&mut self) {
        let now = self.cpu.now();
        for place in &mut self.places {
            place.tell();
            // Nothing was written since the last sync call: a barrier, which syncs directly.
            let flight = place.log.start(false, false, now);
            (0..=flight.id).for_each(|id| place.log.land(id, now, Ok(()), true));
        }
    }

    /// The caller and its log's place.
    #[expect(clippy::indexing_slicing, reason = "callers and places are numbered when made")]
    pub fn parts(&mut self, caller: usize) -> (&mut Caller, &mut LogSite) {
        let caller = &mut self.callers[caller];
        let place = &mut self.places[caller.log];
        (caller, place)
    }

    /// A thread of the application begins its next turn.
    pub fn go_on(&mut self, caller: usize) {
        match &self.app.kind {
            ApplicationKind::EventLoop(event_loop) => self.take_commands(caller, event_loop, false),
            ApplicationKind::Threads(threads) => self.next_work(caller, threads),
        }
    }

    /// The call of a thread has returned.
    pub fn call_returned(&mut self, caller: usize) {
        match &self.app.kind {
            ApplicationKind::EventLoop(event_loop) => {
                let count = self.parts(caller).0.commands as u32;
                self.progress(u64::from(count));
                if !self.holds(caller, event_loop, count) {
                    self.send_replies(caller, event_loop, count);
                }
            }
            ApplicationKind::Threads(_) => {
                self.progress(1);
                self.go_on(caller);
            }
        }
    }

    /// So much more is done; children come and go with it.
    fn progress(&mut self, amount: u64) {
        self.done += amount;
        while let Some((at, born)) = self.app.children.get(self.next_child) {
            if *at > self.done {
                break;
            }
            self.children = if *born { self.children + 1 } else { self.children.saturating_sub(1) };
            self.next_child += 1;
        }
    }

    /// What a thread was doing is over.
    fn caller_goes_on(&mut self, caller: usize) {
        let step = self.parts(caller).0.step;
        match (step, &self.app.kind) {
            (Step::Idle, ApplicationKind::EventLoop(event_loop)) => {
                self.take_commands(caller, event_loop, true);
            }
            (Step::Serve, _) => self.write(caller),
            (Step::Reply, ApplicationKind::EventLoop(event_loop)) => {
                self.replying(caller, event_loop)
            }
            (Step::Looks(look), ApplicationKind::EventLoop(event_loop)) => {
                self.looked(caller, event_loop, look);
            }
            (Step::Copies, ApplicationKind::EventLoop(event_loop)) => {
                self.take_commands(caller, event_loop, false);
            }
            (Step::Pause(cpu), _) => {
                self.parts(caller).0.step = Step::Serve;
                self.cpu.run(caller, cpu, 0);
            }
            _ => self.step(caller),
        }
    }

    fn next_work(&mut self, caller: usize, threads: &Threads) {
        let (state, _) = self.parts(caller);
        let work = threads.work.get(state.position).or(threads.work.first());
        let work = work.copied().unwrap_or_default();
        state.position = if state.position < threads.work.len() { state.position + 1 } else { 1 };
        state.bytes = work.bytes;
        if work.pause > 0 {
            state.step = Step::Pause(work.cpu);
            let until = self.cpu.now() + work.pause;
            self.cpu.sleep(caller, until);
        } else {
            state.step = Step::Serve;
            self.cpu.run(caller, work.cpu, 0);
        }
    }

    // ---- the server and its clients ----

    fn take_commands(&mut self, caller: usize, event_loop: &EventLoop, woken: bool) {
        let count = self.take_arrived();
        if count == 0 {
            self.parts(caller).0.step = Step::Idle;
            self.cpu.stand(caller);
            if self.client.doing == Serving::Sends {
                self.cpu.stop_at(self.client.thread, self.client.commands.next_stop());
            }
            return;
        }
        if !self.looks(caller, count, woken) {
            self.serve(caller, event_loop, count, woken);
        }
    }

    /// Takes the commands that have arrived.
    pub fn take_arrived(&mut self) -> u32 {
        self.settle_commands();
        self.client.commands.take()
    }

    /// The server carries out so many commands.
    pub fn serve(&mut self, caller: usize, event_loop: &EventLoop, count: u32, woken: bool) {
        self.connections.serves(count);
        let (state, _) = self.parts(caller);
        state.step = Step::Serve;
        state.commands = u64::from(count);
        state.bytes = u64::from(count) * event_loop.command_bytes;
        let cold = if woken || state.slept { event_loop.cold } else { 0 };
        state.slept = false;
        let work = event_loop.turn + cold + u64::from(count) * event_loop.command;
        self.cpu.run(caller, work, 0);
    }

    /// So many held replies are sent by a thread.
    pub fn arrives(&mut self, thread: ThreadId, count: u32) {
        self.seen.replied(u64::from(count));
        self.connections.replied(count);
        self.client.replies.add(count);
        if self.client.doing == Serving::Nothing {
            self.client.doing = Serving::Waking;
            self.wake(thread, self.client.thread);
        }
    }

    /// Work to send a reply.
    #[must_use]
    pub fn reply_work(&self) -> u64 {
        match &self.app.kind {
            ApplicationKind::EventLoop(event_loop) => event_loop.reply,
            ApplicationKind::Threads(_) => 0,
        }
    }

    fn send_replies(&mut self, caller: usize, event_loop: &EventLoop, count: u32) {
        self.seen.replied(u64::from(count));
        self.connections.replied(count);
        self.parts(caller).0.step = Step::Reply;
        let work = self.client.replies.begin(count, event_loop.reply);
        let asleep = self.client.doing == Serving::Nothing;
        let stop = if asleep { self.client.replies.next_stop() } else { 0 };
        self.cpu.run(caller, work, stop);
    }

    /// The server has sent a reply to a client that slept, or all of them.
    fn replying(&mut self, caller: usize, event_loop: &EventLoop) {
        let left = self.cpu.left(caller);
        self.client.replies.settle(left);
        if self.client.doing == Serving::Nothing && self.client.replies.has_ready() {
            self.client.doing = Serving::Waking;
            self.wake(caller, self.client.thread);
        }
        if left == 0 {
            self.take_commands(caller, event_loop, false);
        } else {
            self.cpu.stop_at(caller, 0);
        }
    }

    fn client_goes_on(&mut self) {
        let ApplicationKind::EventLoop(event_loop) = &self.app.kind else { return };
        let thread = self.client.thread;
        match self.client.doing {
            Serving::Nothing | Serving::Waking => self.take_replies(event_loop),
            Serving::Reads(count) => {
                self.client.doing = Serving::Sends;
                let each = event_loop.client - event_loop.client / 2;
                let work = self.client.commands.begin(count, each);
                let asleep = self.callers.first().is_some_and(|server| server.step == Step::Idle);
                let asleep = asleep && self.cpu.stands(0);
                let stop = if asleep { self.client.commands.next_stop() } else { 0 };
                self.cpu.run(thread, work, stop);
            }
            Serving::Sends => {
                let left = self.cpu.left(thread);
                self.client.commands.settle(left);
                if self.client.commands.has_ready() && self.server_sleeps() {
                    self.wake(thread, 0);
                }
                if left == 0 {
                    self.take_replies(event_loop);
                } else {
                    self.cpu.stop_at(thread, 0);
                }
            }
        }
    }

    fn server_sleeps(&mut self) -> bool {
        self.callers.first().is_some_and(|server| server.step == Step::Idle) && self.cpu.stands(0)
    }

    fn take_replies(&mut self, event_loop: &EventLoop) {
        let (thread, server) = (self.client.thread, 0);
        let replying = self.callers.first().is_some_and(|server| server.step == Step::Reply);
        if replying {
            let left = self.cpu.left(server);
            self.client.replies.settle(left);
        }
        let count = self.client.replies.take();
        if count == 0 {
            self.client.doing = Serving::Nothing;
            self.cpu.stand(thread);
            if replying {
                self.cpu.stop_at(server, self.client.replies.next_stop());
            }
            return;
        }
        self.client.doing = Serving::Reads(count);
        self.cpu.run(thread, u64::from(count) * (event_loop.client / 2), 0);
    }

    fn settle_commands(&mut self) {
        if self.client.doing == Serving::Sends {
            let left = self.cpu.left(self.client.thread);
            self.client.commands.settle(left);
        }
    }

    /// `waker` wakes a thread that stands: it pays for it, and the other runs later.
    pub fn wake(&mut self, waker: ThreadId, sleeper: ThreadId) {
        let Application { wake_cost, wake_delay, .. } = *self.app;
        let (cost, delay) = if self.cpu.stood_for(sleeper) < POLLED {
            (wake_cost / POLLED_SHARE, wake_delay / POLLED_SHARE)
        } else {
            (wake_cost, wake_delay / 2 + self.random.below(wake_delay))
        };
        self.cpu.charge(waker, cost);
        let at = self.cpu.now() + delay;
        self.cpu.sleep(sleeper, at);
    }
}
