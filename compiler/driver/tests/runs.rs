//! Random runs of random policies on the real engine: none loses more than was proved, nothing that
//! was derived is below what was explored, and the JIT compiler does what the interpreter does.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and reads its cases"
)]

use crate::common;
use crate::common::generator::{Kind, policy};
use crate::common::{Compiled, Random};
use durac_abi::{Context, Hook, Reading, Verdict};
use durac_engine::{
    Able, Answer, Decision, Entry, Errno, Flight, Log, Put, Step, Time, Wait, Writing,
};
use durac_prove::explore::Most;
use durac_prove::machine::{Backend, Ended, Machine, Memory, World, bit, reads};
use durac_prove::proof::rules;

/// A clock with a random disk and a random scheduler. A run is a function of its seed.
struct Run<'a> {
    random: Random,
    log: Log,
    reads: u32,
    now: Time,
    background: Option<(Flight, Time)>,
    /// The call that runs its program, whether it is a sync call, whether it has asked for a sync.
    call: (u64, bool, bool),
    /// Acknowledged calls with the bytes written when they began.
    acknowledged: Vec<u64>,
    /// The machine's memory when the run began to wait; what it does is recorded.
    trace: &'a mut Vec<(Hook, u64, Option<Verdict>, Vec<u64>)>,
    most: u64,
    /// Bytes that are in the file for certain, and the most acknowledged calls beyond them.
    filed: u64,
    staged: u64,
}

impl Run<'_> {
    /// Time passes; the syncer works as the agent's does, and a disk fails now and then.
    fn pass(&mut self, time: Time) {
        let until = self.now + time;
        loop {
            let next = match &self.background {
                Some((_, end)) => *end,
                None => match self.log.next(self.now) {
                    Step::Start => self.now,
                    Step::At(at) => at,
                    Step::Idle => return self.now = until,
                },
            };
            if next > until {
                return self.now = until;
            }
            self.now = self.now.max(next);
            match self.background.take() {
                Some((flight, _)) => {
                    let result = if self.random.below(200) == 0 { Err(5) } else { Ok(()) };
                    self.log.land(flight.id, self.now, result, true);
                }
                None => {
                    let takes = self.random.below(12) * 1_000_000;
                    let flight = self.log.start(true, false, self.now);
                    self.background = Some((flight, self.now + takes));
                }
            }
            self.count();
        }
    }

    fn count(&mut self) {
        let covered = self.log.written() - self.log.pending_bytes();
        self.acknowledged.retain(|mark| *mark > covered);
        self.most = self.most.max(self.acknowledged.len() as u64);
        let staged = self.acknowledged.iter().filter(|mark| **mark > self.filed);
        self.staged = self.staged.max(staged.count() as u64);
    }

    fn sync(&mut self, full: bool) -> Result<(), Errno> {
        let flight = self.log.start(false, full, self.now);
        let takes = self.random.below(12) * 1_000_000;
        self.pass(takes);
        self.log.land(flight.id, self.now, Ok(()), true);
        // A background sync beside it may fail yet.
        while !self.log.is_ready(flight.covers) {
            self.pass(1_000_000);
        }
        self.count();
        self.log.error().map_or(Ok(()), Err)
    }

    fn wait_for(&mut self, target: u64) {
        loop {
            let awake = self.random.below(2) == 0;
            match self.log.wait(target, awake, Able::ALL) {
                Wait::Ready => return,
                Wait::Sync => _ = self.sync(false),
                Wait::Sleep => self.pass(1_000_000),
            }
        }
    }

    fn fill(&mut self, memory: &Memory) {
        let reads = |reading| self.reads & bit(reading) != 0;
        memory.set_context(Context {
            now: self.now,
            pending: self.log.pending(self.call.0),
            pending_bytes: self.log.pending_bytes(),
            pending_age: self.log.pending_age(self.now),
            staged: self.log.staged(self.call.0 - u64::from(!self.call.1)),
            sync_latency: self.log.sync_latency(),
            notify_done: self.log.notify_done().into(),
            notify_count: self.log.counters().syncs,
            child_active: if reads(Reading::ChildActive) { self.random.below(2) } else { 0 },
            ..Context::default()
        });
    }
}

impl World for Run<'_> {
    fn request(&mut self) {
        if self.call.1 {
            self.log.request(self.call.0, self.now);
            self.call.2 = true;
        } else {
            self.log.commit(self.now);
        }
    }

    fn wait(&mut self, distance: u64, memory: &Memory) -> bool {
        let distance = if self.call.1 { distance } else { distance.max(1) };
        self.trace.push((Hook::Fdatasync, distance, None, memory.copy_state()));
        let target = self.log.await_target(self.call.0, distance);
        self.wait_for(target);
        self.fill(memory);
        true
    }
}

/// What a run did, step by step, and the most acknowledged syncs that a power loss would have taken.
type Trace = Vec<(Hook, u64, Option<Verdict>, Vec<u64>)>;

fn run(compiled: &Compiled, backend: Backend, seed: u64, calls: u64) -> (Trace, (u64, u64)) {
    let object = &compiled.object;
    let mut machine = Machine::new(object, backend).unwrap();
    let reads = reads(object);
    let rules = rules(object);
    let mut trace = Vec::new();
    let mut run = Run {
        random: Random(seed),
        log: Log::new(rules),
        reads,
        now: 1_000_000_000,
        background: None,
        call: (0, false, false),
        acknowledged: Vec::new(),
        trace: &mut trace,
        most: 0,
        filed: if machine.has(Hook::Write) { 0 } else { u64::MAX },
        staged: 0,
    };
    for _ in 0..calls {
        let pause = [0, 0, 100_000, 3_000_000, 1_500_000_000][run.random.below(5) as usize];
        run.pass(pause);
        let params: Vec<u64> = object
            .meta
            .params
            .iter()
            .map(|p| p.min + run.random.below(p.max - p.min + 1))
            .collect();
        machine.memory().set_params(&params);
        let hook = [
            Hook::Write,
            Hook::Write,
            Hook::Fdatasync,
            Hook::Fdatasync,
            Hook::Fdatasync,
            Hook::Fsync,
        ][run.random.below(6) as usize];
        if hook == Hook::Write {
            run.call = (run.log.upcoming(), false, false);
            let verdict = program(&mut run, &mut machine, hook);
            let decision = match verdict {
                Verdict::Fail(errno) => Writing::Fail(errno),
                Verdict::Stage => Writing::Stage,
                _ => Writing::Pass,
            };
            let fits = run.random.below(8) > 0;
            let put = run.log.decide_write(decision, fits, Able::ALL, run.now);
            if !matches!(put, Put::Fail(_)) {
                let bytes = 1 + run.random.below(8192);
                run.log.wrote(run.log.written() + bytes);
            }
            if put == Put::Write {
                run.filed = run.log.written();
            }
            continue;
        }
        let full = hook == Hook::Fsync;
        let call = match run.log.enter(full, machine.has(hook)) {
            Entry::Refused(_) => break,
            Entry::Direct(_) => {
                _ = run.sync(full);
                continue;
            }
            Entry::Ask(call) => call,
        };
        let mark = run.log.written();
        run.call = (call.number, true, false);
        if let Some(target) = run.log.overdue(run.now) {
            run.wait_for(target);
        }
        let verdict = program(&mut run, &mut machine, hook);
        let decision = match verdict {
            Verdict::Fail(errno) => Decision::Fail(errno),
            Verdict::Skip => Decision::Skip,
            Verdict::Defer => Decision::Defer,
            _ => Decision::Pass,
        };
        let (requested, now) = (run.call.2, run.now);
        let result = match run.log.decide(call.number, decision, requested, Able::ALL, now) {
            Answer::Return(result) => result,
            Answer::Sync => run.sync(full),
        };
        if result.is_ok() {
            run.acknowledged.push(mark);
            run.count();
        }
    }
    let most = (run.most, run.staged);
    (trace, most)
}

fn program(run: &mut Run<'_>, machine: &mut Machine, hook: Hook) -> Verdict {
    run.fill(machine.memory());
    let Ended::Verdict(verdict) = machine.run(hook, run).unwrap() else {
        panic!("no run is parked here")
    };
    run.trace.push((hook, run.call.0, Some(verdict), machine.memory().copy_state()));
    verdict
}

#[test]
fn no_run_loses_more_than_was_proved() {
    let mut random = Random(0x5eed_0002);
    let (mut policies, mut reached, mut bounded) = (0, 0, 0);
    while policies < 120 {
        let text = policy(&mut random, Kind { wide: policies % 2 == 0, ..Kind::HOOKS });
        let Some(compiled) = common::compile(&text) else { continue };
        let proof = common::proof_of(&compiled);
        let derived = compiled.policy.loss.greatest(&compiled.policy.params);
        let derived = derived.map_or(Most::Unbounded, Most::Count);
        assert!(derived >= proof.syncs, "{text}\nderived {derived:?}, explored {:?}", proof.syncs);
        policies += 1;
        let mut most = 0;
        for _ in 0..4 {
            let seed = random.bits();
            let (trace, lost) = run(&compiled, Backend::Interpreter, seed, 150);
            let syncs = (Most::Count(lost.0), Most::Count(lost.1));
            assert!(syncs.0 <= proof.syncs, "{text}\nseed {seed:#x}: {lost:?} lost");
            assert!(syncs.1 <= proof.process.syncs, "{text}\nseed {seed:#x}: {lost:?} lost");
            assert_eq!(run(&compiled, Backend::Jit, seed, 150), (trace, lost), "{text}\n{seed:#x}");
            most = most.max(lost.0);
        }
        if let Most::Count(syncs) = proof.syncs {
            bounded += 1;
            reached += u64::from(most == syncs);
        }
    }
    // Bounds that no run comes near would make this test worth little.
    assert!(reached * 2 > bounded, "{reached} of {bounded} bounds were reached");
}
