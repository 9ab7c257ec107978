//! The steps of a call of the application: what happens before the policy runs, what becomes of
//! its verdict, and what a call does that has to wait.
//!
//! Whoever drives a [`Log`] takes these steps and carries out what they answer: the agent with
//! threads and system calls, the model checker with every choice the disk and the scheduler have,
//! the simulator on a clock of its own. None of them decides anything by itself.

use crate::completion::{Completion, completion};
use crate::log::{Call, Errno, Log, Time};
use crate::rules::Rules;
use durac_abi::Verdict;

/// How a sync call begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The log has stopped: the call returns this error.
    Refused(Errno),
    /// The call runs its own sync; the policy does not run.
    Direct(Call),
    /// The policy decides.
    Ask(Call),
}

/// What a policy decided about a sync call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Run the call as the application made it.
    Pass,
    /// Report success and sync in the background.
    Defer,
    /// Report success and do nothing.
    Skip,
    /// Fail the call.
    Fail(Errno),
}

impl From<Verdict> for Decision {
    /// A verdict that is none of a sync call is passed.
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Fail(errno) => Self::Fail(errno),
            Verdict::Skip => Self::Skip,
            Verdict::Defer => Self::Defer,
            Verdict::Pass | Verdict::Stage | Verdict::Hold | Verdict::Gather(_) => Self::Pass,
        }
    }
}

/// What a policy decided about a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writing {
    /// Run the call as the application made it.
    Pass,
    /// Copy the bytes, report success, and write them later.
    Stage,
    /// Fail the call.
    Fail(Errno),
}

impl From<Verdict> for Writing {
    /// A verdict that is none of a write is passed.
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Fail(errno) => Self::Fail(errno),
            Verdict::Stage => Self::Stage,
            Verdict::Pass | Verdict::Defer | Verdict::Skip | Verdict::Hold | Verdict::Gather(_) => {
                Self::Pass
            }
        }
    }
}

/// What a write does after the policy's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It returns this error.
    Fail(Errno),
    /// It copies its bytes behind those that are staged, and returns their number.
    Copy,
    /// It writes what is staged, and then runs as the application made it.
    Write,
}

/// What the driver has at hand for a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Able {
    /// A descriptor of its own, safe from the application's `close`.
    pub descriptor: bool,
    /// A syncer that runs or can be started.
    pub background: bool,
}

impl Able {
    /// All that a healthy driver has.
    pub const ALL: Able = Able { descriptor: true, background: true };
}

/// What a sync call does after the policy's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It returns.
    Return(Result<(), Errno>),
    /// It runs its own sync, and returns what that says.
    Sync,
}

/// What a call does that needs another to be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It goes on: that call is durable, or never will be.
    Ready,
    /// It syncs itself: nobody else is going to.
    Sync,
    /// It sleeps until a sync has ended.
    Sleep,
}

/// What has to be done so that everything acknowledged is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// Nothing.
    Done,
    /// Nothing helps: the log has failed.
    Failed(Errno),
    /// Wait for this call: a sync under way covers it.
    Wait(u64),
    /// Sync.
    Sync,
}

impl Log {
    /// A sync call begins; `full` if it is `fsync`, `hooked` if the policy has a program for it.
    #[inline]
    pub fn enter(&mut self, full: bool, hooked: bool) -> Entry {
        if let Some(errno) = self.error() {
            return Entry::Refused(errno);
        }
        let call = self.begin(full);
        let knows_all = self.missed() == 0;
        if hooked && !call.barrier && knows_all { Entry::Ask(call) } else { Entry::Direct(call) }
    }

    /// A write passes by: it overlaps another call, and the policy's program does not run for it. What the
    /// program keeps says nothing of it, so the next sync calls are the application's own
    /// ([`Entry::Direct`]), until one has succeeded.
    pub fn passed_by(&mut self) {
        self.wrote_unasked();
        self.passed += 1;
    }

    /// These rules hold from now on: the policy was exchanged. Everything acknowledged is durable and nothing is
    /// staged, which the caller has seen to, and no program runs. A write may be under way that no program has
    /// seen, so the next sync calls are the application's own, until one has succeeded: the new policy decides
    /// from a log on that is as durable as one that was just opened.
    pub fn follow(&mut self, rules: Rules) {
        self.rules = rules;
        self.staged_after = rules.stages.then_some(self.calls);
        self.commits = false;
        self.passed_by();
    }

    /// Writes that have passed by ([`Log::passed_by`]).
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Those that no sync of the application's own has made durable.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.passed - self.passed_and_synced
    }

    /// A sync call that ran its own sync has succeeded; when it began, so many writes had passed by and ended.
    /// Several such calls can be inside at once: this is a number of writes from the first on, not a
    /// difference.
    pub fn direct_done(&mut self, passed: u64) {
        self.passed_and_synced = self.passed_and_synced.max(passed.min(self.passed));
    }

    /// The policy has decided about `call`; `requested` if its program has requested a background
    /// sync before. `now` may be 0 if no rule needs it and the request was made.
    #[inline]
    pub fn decide(
        &mut self,
        call: u64,
        decision: Decision,
        requested: bool,
        able: Able,
        now: Time,
    ) -> Answer {
        if let Some(errno) = self.error() {
            return Answer::Return(Err(errno));
        }
        match decision {
            Decision::Fail(errno) => Answer::Return(Err(errno)),
            Decision::Skip if able.descriptor => Answer::Return(self.acknowledge(call, now)),
            Decision::Defer if able.background => {
                if !requested {
                    self.request(call, now);
                }
                Answer::Return(self.acknowledge(call, now))
            }
            // Also what cannot be done without the parts that are missing.
            Decision::Pass | Decision::Skip | Decision::Defer => Answer::Sync,
        }
    }

    /// The policy has decided about a write. `copies` if its bytes can be kept: there is room for them,
    /// and they go to the end of the file. `now` may be 0 if no rule needs it.
    pub fn decide_write(&mut self, decision: Writing, copies: bool, able: Able, now: Time) -> Put {
        if let Some(errno) = self.error() {
            return Put::Fail(errno);
        }
        match decision {
            Writing::Fail(errno) => Put::Fail(errno),
            // The compiler makes no object that stages and whose note does not say so.
            Writing::Stage if !self.rules().stages => Put::Write,
            Writing::Pass => {
                self.staged_after = None;
                self.unstaged = self.stages;
                Put::Write
            }
            Writing::Stage => {
                self.wrote_unasked();
                // While the disk breaks the deadline, no more is kept.
                let late = self.rules().flush_within.is_some_and(|d| self.pending_age(now) > d);
                if !copies || late || !able.descriptor || !able.background {
                    return Put::Write;
                }
                self.staged_write(now);
                Put::Copy
            }
        }
    }

    /// A call is about to wait, at `now`, which the pace learns from. [`Log::wait`] says whether and for what.
    pub fn parks(&mut self, now: Time) {
        if self.demanded > self.durable {
            // So does another already.
            return;
        }
        let since = self.flights.iter().map(|a| a.flight.since).max().unwrap_or(0);
        let calls = self.calls.saturating_sub(self.promised());
        self.pace.came(since, calls, now);
    }

    /// A call needs `target` to be durable. `awake` if the syncer runs at this moment and will look
    /// for work before it sleeps.
    pub fn wait(&mut self, target: u64, awake: bool, able: Able) -> Wait {
        if self.is_ready(target) {
            return Wait::Ready;
        }
        let alone = !self.has_background() && !awake;
        if alone && !self.is_promised(target) {
            // Without a descriptor of our own nothing is ever deferred, so nothing waits.
            return if able.descriptor { Wait::Sync } else { Wait::Ready };
        }
        self.demand(target);
        Wait::Sleep
    }

    /// A sync has come home. `proved` if its descriptor was the log's file after it had returned.
    pub fn land(&mut self, id: u64, now: Time, result: Result<(), Errno>, proved: bool) {
        match completion(result, proved) {
            Completion::Durable => self.finish(id, now, Ok(())),
            Completion::Failed(errno) => self.finish(id, now, Err(errno)),
            Completion::Nothing => self.abandon(id, now),
        }
    }

    /// The next step of making everything acknowledged durable.
    #[inline]
    #[must_use]
    pub fn drain(&self) -> Drain {
        match (self.undrained(), self.error()) {
            // Writes that were acknowledged and can no longer be written.
            (None, Some(errno)) if self.staged_writes() > 0 => Drain::Failed(errno),
            (None, _) => Drain::Done,
            (Some(_), Some(errno)) => Drain::Failed(errno),
            (Some(target), None) if self.is_promised(target) => Drain::Wait(target),
            (Some(_), None) => Drain::Sync,
        }
    }
}
