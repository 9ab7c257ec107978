//! Runs one test: the calls of one thread, a clock and a disk that do what the test says.
//!
//! A call takes the steps that it takes in the agent (`agent/src/call.rs`).

use super::check::{Does, Expected, Step, Test, USUAL_WRITE, errno_name, short};
use super::ledger::Ledger;
use super::program::{Call, Surroundings};
use super::says::{self, done, found, label, word};
use super::story::Story;
use durac_abi::{Hook, Object, Records, STAGE_ROOM};
use durac_core::hir::{Expr, Policy};
use durac_core::unit::{Unit, show};
use durac_engine::{
    Able, Answer, Decision, Drain, Entry, Errno, Flight, Log, Put, Rules, Time, Wait, Writing,
};
use durac_grammar::{Code, Diagnostic, Sources, Span, Spanned};
use durac_prove::machine::{Ended, Machine, MachineError};

/// When a test begins: a machine has run for a while then, so `every 1s` is due at the first call.
pub(super) const BEGIN: Time = 1 << 50;

/// Steps that one test makes at most.
const MOST_STEPS: u64 = 100_000;

/// What a call does after a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It asks the policy: what was overdue is durable.
    Ask,
    /// It goes on with its program.
    Resume,
    /// It goes on with what must be durable before another file is synced.
    Drain,
    /// It returns: its own sync has succeeded, and so has the one beside it.
    Return,
}

/// A call that waits.
pub(super) struct Blocked {
    call: Call,
    target: u64,
    then: Then,
    /// The step that made it.
    span: Span,
    /// As it is shown.
    shown: String,
}

/// Something that is not as expected.
pub(super) struct Fault {
    message: String,
    span: Span,
    label: String,
    help: Option<String>,
    note: Option<String>,
}

impl Fault {
    pub fn new(message: impl Into<String>, span: Span, label: impl Into<String>) -> Self {
        Self { message: message.into(), span, label: label.into(), help: None, note: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Whether a step went as expected; or the machine's error.
type Went = Result<Result<(), Fault>, MachineError>;

/// One test under way.
pub(super) struct Runner<'a> {
    pub(super) machine: Machine,
    pub(super) policy: &'a Policy,
    pub(super) sources: &'a Sources,
    pub(super) rules: Rules,
    pub(super) log: Log,
    pub(super) params: Vec<u64>,
    pub(super) state: Vec<u64>,
    pub(super) ledger: Ledger,
    pub(super) now: Time,
    pub(super) children: u32,
    /// The background sync.
    pub(super) flight: Option<Flight>,
    pub(super) blocked: Option<Blocked>,
    /// The next sync that a call makes itself fails so; and the step that said it.
    pub(super) next_fails: Option<(Errno, Span)>,
    pub(super) reached: Vec<u64>,
    pub(super) story: Story,
    /// Why the last call did what it did, if it was not the policy's doing.
    pub(super) why: Option<String>,
    /// The step that is being made.
    pub(super) step: Span,
    /// How many were made.
    made: u64,
}

impl<'a> Runner<'a> {
    pub fn new(
        machine: Machine,
        object: &Object,
        policy: &'a Policy,
        sources: &'a Sources,
    ) -> Self {
        let rules = Rules::from(&object.meta);
        Self {
            params: object.meta.params.iter().map(|p| p.default).collect(),
            state: object.meta.state.iter().map(|s| s.init).collect(),
            machine,
            policy,
            sources,
            rules,
            log: Log::new(rules),
            ledger: Ledger::default(),
            now: BEGIN,
            children: 0,
            flight: None,
            blocked: None,
            next_fails: None,
            reached: Vec::new(),
            story: Story::default(),
            why: None,
            step: Span::new(durac_grammar::FileId(0), 0, 0),
            made: 0,
        }
    }

    /// The probes that were reached.
    pub fn reached(&self) -> &[u64] {
        &self.reached
    }

    /// What happened.
    pub fn timeline(&self) -> String {
        self.story.text()
    }

    /// Runs a test to its end, or to the first step that does not go as expected.
    pub fn test(&mut self, test: &Test) -> Result<Option<Diagnostic>, MachineError> {
        if let Err(fault) = self.steps(&test.steps)? {
            return Ok(Some(self.failure(test, fault)));
        }
        let fault = self.next_fails.map(|(_, span)| {
            Fault::new("no call made a sync of its own after this", span, "never happened")
                .help("for a sync in the background, write `sync fails EIO`")
        });
        Ok(fault.map(|fault| self.failure(test, fault)))
    }

    fn failure(&self, test: &Test, fault: Fault) -> Diagnostic {
        let Fault { message, span, label, help, note } = fault;
        let message = format!("test `{}`: {message}", short(&test.name.node));
        let mut found = Diagnostic::new(Code::TestFails, message, span, label);
        found.help = help;
        found.notes.extend(note);
        found.timeline(self.story.text())
    }

    fn run(&mut self, step: &Step) -> Went {
        match step {
            Step::Write { amount, expected } => {
                let value = self.eval(amount);
                let (bytes, updates) = match amount.unit {
                    Unit::Updates => (value.saturating_mul(USUAL_WRITE), value),
                    _ => (value, u64::from(self.rules.records != Records::None)),
                };
                let shown = match amount.unit {
                    Unit::Updates => format!("write {}", crate::report::amount(value, "update")),
                    _ => format!("write {}", show(bytes, Unit::Bytes)),
                };
                if let Err(fault) = self.thread_is_free(&shown) {
                    return Ok(Err(fault));
                }
                if bytes == 0 {
                    return Ok(Err(Fault::new("a write of nothing", self.step, "no bytes")));
                }
                let does = self.write(bytes, updates)?;
                self.told(&shown, does);
                Ok(self.judge(&shown, does, expected))
            }
            Step::Sync { hook, expected } => {
                let shown = format!("{hook} #{}", self.log.upcoming());
                if let Err(fault) = self.thread_is_free(hook.name()) {
                    return Ok(Err(fault));
                }
                let does = self.sync(*hook)?;
                self.told(&shown, does);
                Ok(self.judge(hook.name(), does, expected))
            }
            Step::Reply { bytes, clean, expected } => {
                let bytes = self.eval(bytes);
                let shown = format!("reply {}", show(bytes, Unit::Bytes));
                if let Err(fault) = self.thread_is_free(&shown) {
                    return Ok(Err(fault));
                }
                let does = self.reply(bytes, *clean)?;
                self.told(&shown, does);
                Ok(self.judge("reply", does, expected))
            }
            Step::Turn { ready, expected } => {
                let ready = self.eval(ready);
                let shown = format!("turn with {ready} ready");
                if let Err(fault) = self.thread_is_free("turn") {
                    return Ok(Err(fault));
                }
                let does = self.turn(ready)?;
                self.told(&shown, does);
                Ok(self.judge("turn", does, expected))
            }
            Step::Another { expected } => {
                let shown = "sync of another file";
                if let Err(fault) = self.thread_is_free(shown) {
                    return Ok(Err(fault));
                }
                let call = Call::new(Hook::Fdatasync, self.log.upcoming(), 0, Vec::new());
                let does = self.drain(call)?;
                self.told(shown, does);
                Ok(self.judge(shown, does, expected))
            }
            Step::Ends { error, expected } => self.ends(*error, expected),
            Step::NextFails(errno) => {
                self.next_fails = Some((*errno, self.step));
                Ok(Ok(()))
            }
            Step::After(time) => {
                let time = self.eval(time);
                self.pass_time(time);
                Ok(Ok(()))
            }
            Step::Set(index, value) => Ok(self.set(*index, value)),
            Step::Child(starts) => Ok(self.child(*starts)),
            Step::Crash { failure, at_most, loses } => {
                Ok(self.crash(*failure, *at_most, loses.as_ref()))
            }
            Step::Runs(runs) => Ok(self.runs(*runs)),
            Step::Expect(condition) => Ok(self.expect(condition)),
            // Rounds without a step would not be counted.
            Step::Repeat(_, steps) if steps.is_empty() => Ok(Ok(())),
            Step::Repeat(times, steps) => {
                for round in 1..=*times {
                    if let Err(mut fault) = self.steps(steps)? {
                        fault.note.get_or_insert_with(|| format!("in round {round} of {times}"));
                        return Ok(Err(fault));
                    }
                }
                Ok(Ok(()))
            }
        }
    }

    /// Makes steps, up to the first that does not go as expected.
    fn steps(&mut self, steps: &[Spanned<Step>]) -> Went {
        for step in steps {
            self.made += 1;
            if self.made > MOST_STEPS {
                return Ok(Err(Fault::new(
                    format!("more than {MOST_STEPS} steps"),
                    step.span,
                    "too many",
                )));
            }
            self.step = step.span;
            self.why = None;
            if let Err(fault) = self.run(&step.node)? {
                return Ok(Err(fault));
            }
        }
        Ok(Ok(()))
    }

    // ---- calls ----

    fn write(&mut self, bytes: u64, updates: u64) -> Result<Does, MachineError> {
        let number = self.log.upcoming();
        self.count();
        let mut call = Call::new(Hook::Write, number, bytes, self.params.clone());
        call.updates = updates;
        if !self.machine.has(Hook::Write) {
            return Ok(self.written(&call));
        }
        match self.log.error() {
            Some(errno) => {
                self.why = Some("a sync has failed before: the log has stopped".to_owned());
                Ok(Does::Fails(errno))
            }
            None => self.ask(call, false),
        }
    }

    /// The write runs as the application made it.
    fn written(&mut self, call: &Call) -> Does {
        self.ledger.write_out();
        self.ledger.wrote((call.len, call.updates), call.number, self.now, false);
        self.count();
        Does::Passes
    }

    fn put(&mut self, call: &Call, decision: Writing) -> Does {
        let fits = self.ledger.staged() + call.len <= STAGE_ROOM;
        let timed = self.rules.needs_time() && self.rules.stages;
        let now = if timed { self.now } else { 0 };
        match self.log.decide_write(decision, fits && self.children == 0, Able::ALL, now) {
            Put::Fail(errno) => Does::Fails(errno),
            Put::Copy => {
                self.ledger.wrote((call.len, call.updates), call.number, self.now, true);
                self.count();
                Does::Stages
            }
            Put::Write => {
                if decision == Writing::Stage {
                    self.why = Some(match self.children {
                        0 if !fits => "there is no room to stage it".to_owned(),
                        0 => "the disk breaks the deadline: nothing more is staged".to_owned(),
                        _ => "nothing is staged while a child runs".to_owned(),
                    });
                }
                self.written(call)
            }
        }
    }

    fn sync(&mut self, hook: Hook) -> Result<Does, MachineError> {
        self.count();
        match self.log.enter(hook == Hook::Fsync, self.machine.has(hook)) {
            Entry::Refused(errno) => {
                self.why = Some("a sync has failed before: the log has stopped".to_owned());
                Ok(Does::Fails(errno))
            }
            Entry::Direct(direct) => {
                self.why = Some(match direct.barrier {
                    true => "nothing was written since the last sync call: the policy is not asked"
                        .to_owned(),
                    false => format!("the policy has no `on {hook}`"),
                });
                let call = Call::new(hook, direct.number, 0, self.params.clone());
                Ok(self.passes(call))
            }
            Entry::Ask(asks) => {
                let call = Call::new(hook, asks.number, 0, self.params.clone());
                let timed = self.rules.needs_time();
                match self.log.overdue(self.now).filter(|_| timed) {
                    Some(target) => {
                        self.why = Some("what is pending is older than `flush within`".to_owned());
                        self.wait(call, target, Then::Ask)
                    }
                    None => self.ask(call, false),
                }
            }
        }
    }

    /// Runs the policy's program, from its beginning or on from its wait.
    fn ask(&mut self, mut call: Call, resumes: bool) -> Result<Does, MachineError> {
        self.count();
        let around = Surroundings {
            log: &mut self.log,
            now: self.now,
            child: self.children > 0,
            state: &mut self.state,
            reached: &mut self.reached,
        };
        let verdict = match call.run(&mut self.machine, around, resumes)? {
            Ended::Parked => {
                let target = call.target;
                return self.wait(call, target, Then::Resume);
            }
            Ended::Verdict(verdict) => verdict,
        };
        if call.hook == Hook::Write {
            let does = self.put(&call, Writing::from(verdict));
            if self.rules.defers_writes
                && matches!(does, Does::Passes)
                && let Some(number) = self.log.owe(self.now)
            {
                self.ledger.acknowledged(number, self.now);
            }
            return Ok(does);
        }
        let decision = Decision::from(verdict);
        let asks = call.requested || decision == Decision::Defer;
        let now = if self.rules.needs_time() || asks { self.now } else { 0 };
        Ok(match self.log.decide(call.number, decision, call.requested, Able::ALL, now) {
            Answer::Return(Ok(())) => {
                self.ledger.acknowledged(call.number, self.now);
                if decision == Decision::Skip { Does::Skips } else { Does::Defers }
            }
            Answer::Return(Err(errno)) => Does::Fails(errno),
            Answer::Sync => self.passes(call),
        })
    }

    /// The call makes its own sync and returns what that says.
    fn passes(&mut self, call: Call) -> Does {
        let full = call.hook == Hook::Fsync;
        match self.own_sync(full) {
            Err(errno) => Does::Fails(errno),
            Ok(covers) if !self.log.is_ready(covers) => {
                self.why = Some(
                    "its own sync has succeeded, but another is under way and may fail".to_owned(),
                );
                self.block(call, covers, Then::Return)
            }
            Ok(_) => self.passed(&call),
        }
    }

    fn passed(&mut self, call: &Call) -> Does {
        if let Some(errno) = self.log.error() {
            return Does::Fails(errno);
        }
        self.ledger.acknowledged(call.number, self.now);
        Does::Passes
    }

    /// Makes durable what the log has deferred, before another file is synced.
    fn drain(&mut self, call: Call) -> Result<Does, MachineError> {
        loop {
            match self.log.drain() {
                Drain::Done => return Ok(Does::Passes),
                Drain::Failed(errno) => return Ok(Does::Fails(errno)),
                Drain::Wait(target) => return self.wait(call, target, Then::Drain),
                Drain::Sync => {
                    if let Err(errno) = self.own_sync(false) {
                        return Ok(Does::Fails(errno));
                    }
                }
            }
        }
    }

    /// Parks the call until `target` is durable; or it syncs, if nobody else is going to.
    fn wait(&mut self, call: Call, target: u64, then: Then) -> Result<Does, MachineError> {
        loop {
            match self.log.wait(target, self.flight.is_some(), Able::ALL) {
                Wait::Ready => {
                    return match then {
                        Then::Ask => self.ask(call, false),
                        Then::Resume => self.ask(call, true),
                        Then::Drain => self.drain(call),
                        Then::Return => Ok(self.passed(&call)),
                    };
                }
                Wait::Sync => {
                    // An error is the log's: the wait is over, and the call returns it.
                    let _ = self.own_sync(false);
                }
                Wait::Sleep => {
                    self.poke();
                    return Ok(self.block(call, target, then));
                }
            }
        }
    }

    fn block(&mut self, call: Call, target: u64, then: Then) -> Does {
        let shown = match then {
            Then::Drain => "sync of another file".to_owned(),
            _ if call.hook == Hook::Write => format!("write {}", show(call.len, Unit::Bytes)),
            _ => format!("{} #{}", call.hook, call.number),
        };
        self.blocked = Some(Blocked { call, target, then, span: self.step, shown });
        Does::Waits
    }

    // ---- syncs ----

    /// Tells the engine what was written.
    pub(super) fn count(&mut self) {
        self.log.wrote(self.ledger.written());
        let updates = self.ledger.updates();
        self.log.counted(updates, updates);
    }

    /// Starts a background sync if the engine wants one now.
    fn poke(&mut self) {
        if self.log.next(self.now) == durac_engine::Step::Start {
            self.start();
        }
    }

    fn start(&mut self) {
        self.count();
        let flight = self.log.start(true, false, self.now);
        self.ledger.sync_starts(flight.id);
        self.flight = Some(flight);
        self.story.engine(self.now - BEGIN, "a sync starts in the background");
    }

    /// Syncs in the calling thread. It ends at once; the answer is what it covers.
    fn own_sync(&mut self, full: bool) -> Result<u64, Errno> {
        self.count();
        let flight = self.log.start(false, full, self.now);
        self.ledger.sync_starts(flight.id);
        let result = match self.next_fails.take() {
            Some((errno, _)) => Err(errno),
            None => Ok(()),
        };
        self.log.land(flight.id, self.now, result, true);
        self.ledger.sync_ended(flight.id, result.is_ok());
        let text = match result {
            Ok(()) => "the call syncs itself".to_owned(),
            Err(errno) => format!("the call syncs itself: {}", errno_name(errno)),
        };
        self.story.engine(self.now - BEGIN, &text);
        result.map(|()| flight.covers)
    }

    /// The background sync ends.
    fn ends(&mut self, error: Option<Errno>, expected: &Expected) -> Went {
        let Some(flight) = self.flight.take() else {
            let fault = Fault::new("no sync is under way", self.step, "nothing can end here");
            return Ok(Err(fault.help(self.next_sync())));
        };
        let text = match error {
            None => "the sync ends".to_owned(),
            Some(errno) => format!("the sync fails: {}", errno_name(errno)),
        };
        self.story.engine(self.now - BEGIN, &text);
        self.log.land(flight.id, self.now, error.map_or(Ok(()), Err), true);
        self.ledger.sync_ended(flight.id, error.is_none());
        // The syncer is at work and looks for more before the call that waited has woken.
        self.poke();
        let Some(Blocked { call, target, then, span, shown }) = self.blocked.take() else {
            self.poke();
            return Ok(match expected {
                None => Ok(()),
                Some(expected) => Err(Fault::new(
                    "no call waits for this sync",
                    expected.span,
                    "nothing returns here",
                )),
            });
        };
        let name = shown.split(" #").next().unwrap_or_default().to_owned();
        let step = std::mem::replace(&mut self.step, span);
        let does = self.wait(call, target, then)?;
        self.step = step;
        if does != Does::Waits {
            self.told(&shown, does);
        }
        self.poke();
        Ok(self.judge(&name, does, expected))
    }

    /// When the engine starts the next sync, as help.
    pub(super) fn next_sync(&self) -> String {
        match self.log.next(self.now) {
            durac_engine::Step::At(at) => {
                let wait = says::time(at.saturating_sub(self.now));
                format!("the next one starts in {wait}: write `after {wait}` before this")
            }
            _ if self.log.error().is_some() => "after a sync has failed no other starts".to_owned(),
            _ => "nothing asks for one: `defer` does, and so does `flush within`".to_owned(),
        }
    }

    fn pass_time(&mut self, time: Time) {
        let until = self.now.saturating_add(time).min(durac_abi::CLOCK_MOST);
        loop {
            match self.log.next(self.now) {
                durac_engine::Step::Start => self.start(),
                durac_engine::Step::At(at) if at <= until => {
                    self.now = at.max(self.now);
                    self.start();
                }
                _ => break,
            }
        }
        self.now = until;
        self.log.count_broken(self.now);
    }

    // ---- the rest of the world ----

    fn set(&mut self, index: usize, value: &Expr) -> Result<(), Fault> {
        let to = self.eval(value);
        let (Some(param), Some(place)) =
            (self.policy.params.get(index), self.params.get_mut(index))
        else {
            return Ok(());
        };
        if !(param.min..=param.max).contains(&to) {
            let (low, high) = (show(param.min, param.unit), show(param.max, param.unit));
            let message = format!("`{}` must be in {low}..={high}", param.name.node);
            return Err(Fault::new(message, value.span, format!("is {}", show(to, param.unit))));
        }
        *place = to;
        let text = format!("set {} = {}", param.name.node, show(to, param.unit));
        self.story.step(self.now - BEGIN, &text, "");
        Ok(())
    }

    fn child(&mut self, starts: bool) -> Result<(), Fault> {
        self.thread_is_free(if starts { "fork" } else { "wait for a child" })?;
        if starts {
            // It finds in the file what was acknowledged before.
            self.ledger.write_out();
            self.children += 1;
        } else if self.children == 0 {
            return Err(Fault::new("no child runs", self.step, "nothing can end here")
                .help("write `child starts` before this"));
        } else {
            self.children -= 1;
        }
        self.story.step(self.now - BEGIN, if starts { "child starts" } else { "child ends" }, "");
        Ok(())
    }

    // ---- what is said ----

    /// The application has one thread: no call begins while another waits.
    fn thread_is_free(&self, what: &str) -> Result<(), Fault> {
        let Some(blocked) = &self.blocked else { return Ok(()) };
        let at = self.sources.position(blocked.span).line;
        let message = format!("`{what}` cannot begin: `{}` still waits", blocked.shown);
        Err(Fault::new(message, self.step, format!("the call of line {at} has not returned"))
            .help("end the sync that it waits for: `sync ends`"))
    }

    fn told(&mut self, shown: &str, does: Does) {
        self.story.step(self.now - BEGIN, shown, &done(does));
        // What a call has asked for begins when it has returned.
        self.poke();
    }

    fn judge(&self, what: &str, does: Does, expected: &Expected) -> Result<(), Fault> {
        let Some(wanted) = expected.as_ref().filter(|wanted| wanted.node != does) else {
            return Ok(());
        };
        let message = format!("`{what}` {}, expected `{}`", found(does), word(wanted.node));
        let mut fault = Fault::new(message, wanted.span, label(does));
        fault.note = self.why.clone();
        if does == Does::Waits {
            fault.help = Some(
                "it returns when the sync under way has ended: `-> waits`, then `sync ends`"
                    .to_owned(),
            );
        }
        Err(fault)
    }
}
