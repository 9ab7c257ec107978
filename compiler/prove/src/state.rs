//! A state of the whole: the engine's log, the application's call, what the policy remembers.

use crate::amounts::Amounts;
use crate::mutants::{Mutant, makes};
use durac_abi::{Context, Hook};
use durac_engine::{Errno, Log, Time, model::without};
use std::rc::Rc;

/// What a program has read: at its beginning, and again after each wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// The context, with 0 for what the programs do not read.
    pub context: Context,
    /// Index of the vector of parameters.
    pub params: u16,
}

/// Everything that a run of a program depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// The program's hook.
    pub hook: Hook,
    /// What it has read, in order.
    pub inputs: Vec<Input>,
    /// The state variables when it began.
    pub vars: Vars,
}

impl Run {
    /// Whether it is of a write without bytes, as far as it can tell.
    #[must_use]
    pub fn is_empty_write(&self) -> bool {
        !self.hook.is_sync() && self.inputs.last().is_some_and(|input| input.context.len == 0)
    }
}

impl std::hash::Hash for Input {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let c = &self.context;
        for word in [c.len, c.now, c.pending, c.pending_bytes, c.pending_age, c.sync_latency] {
            word.hash(state);
        }
        (c.staged, c.notify_done, c.notify_count, c.child_active, self.params).hash(state);
        (c.pending_updates, c.updates).hash(state);
    }
}

/// A call of the application that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Open {
    /// Which call it is.
    pub hook: Hook,
    /// Its number, counted from the durable frontier; in a write that of the next sync call.
    pub number: u64,
    /// The program's run, if it has begun.
    pub run: Option<Rc<Run>>,
    /// Index of the vector of parameters it sees.
    pub params: u16,
    /// The program has asked for a background sync.
    pub requested: bool,
    /// Writes had passed by when it began, and it runs its own sync.
    pub settles: bool,
}

/// What the application does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Nothing that concerns the log.
    Idle,
    /// It waits in a call until this call is durable; then the program goes on.
    Parked(Open, u64),
    /// Its thread runs a sync, the flight of that number. With a target it waits for that then.
    Syncing(Open, u64, Option<u64>),
    /// Its sync has come home with success, and is not yet believed.
    Doubted(Open, u64),
}

/// A state of the whole. Numbers of calls are counted from the durable frontier.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The engine.
    pub log: Log,
    /// The calls that are not durable by their number and that a power loss does not take: under
    /// way, failed, or on the disk because a sync began after their write and before they did.
    pub silent: Vec<u64>,
    /// The application, which makes one call at a time.
    pub caller: Caller,
    /// The policy's state variables; 0 for those that keep readings.
    pub vars: Vars,
    /// For variables that hold the time of a call, the newest call that was acknowledged by then; 0 if it is durable
    /// ([`crate::dates`]).
    pub dates: Vec<u64>,
    /// A background sync may be out that started when this many calls had begun, or any more since.
    /// `u64::MAX`: none can be.
    pub since: u64,
}

/// State variables. Few steps change one, so states share them.
pub type Vars = Rc<[u64]>;

/// How long a sync took, and its result.
pub type End = (Time, Result<(), Errno>);

/// States beyond which a policy is too large.
pub const MAX_STATES: usize = 350_000;

/// `since` when no background sync can be out.
pub const NEVER: u64 = u64::MAX;

impl State {
    /// A sync of the log's file has ended: what it made durable is not among the calls that a power loss does not take.
    pub fn land(&mut self, flight: u64, (took, result): End) {
        self.log.land(flight, took, result, true);
        let durable = self.log.durable();
        self.silent.retain(|number| *number > durable);
    }

    /// Acknowledged sync calls that a power loss would take now.
    #[must_use]
    pub fn lost(&self) -> u64 {
        if self.log.is_last_covered() {
            return 0;
        }
        let pending = self.log.calls() - self.log.durable();
        pending.saturating_sub(self.silent.len() as u64)
    }

    /// What a crash takes now.
    #[must_use]
    pub fn taken(&self) -> Taken {
        Taken {
            syncs: self.lost(),
            staged_syncs: self.lost_with_the_process(),
            staged_writes: self.log.staged_writes(),
            amounts: Amounts::default(),
        }
    }

    /// Acknowledged sync calls that a crash of the process would take now: their writes are staged.
    fn lost_with_the_process(&self) -> u64 {
        let Some(after) = self.log.staged_after().filter(|_| !self.log.is_last_covered()) else {
            return 0;
        };
        let silent = self.silent.iter().filter(|number| **number > after).count() as u64;
        self.log.calls().saturating_sub(after).saturating_sub(silent)
    }

    /// The same state but for how many writes are staged: as if one were, if any is.
    #[must_use]
    pub fn without_writes(&self) -> State {
        let mut state = self.clone();
        state.log.cap_stages(1);
        state
    }

    /// Sync calls that are under way and would be taken too.
    #[must_use]
    pub fn in_progress(&self) -> u64 {
        let open = match &self.caller {
            Caller::Idle => return 0,
            Caller::Parked(open, _) | Caller::Syncing(open, ..) | Caller::Doubted(open, _) => open,
        };
        let taken = open.number > self.log.durable() && !self.log.is_last_covered();
        u64::from(open.hook.is_sync() && taken)
    }

    /// Counts everything from the durable frontier. Answers how many calls became durable.
    ///
    /// Of a run of calls that cannot be lost, those before the last `run` do not count: no program
    /// tells so many pending calls from more, and no wait reaches back so far.
    pub fn rebase(&mut self, run: Option<u64>) -> u64 {
        let shift = self.log.rebase();
        self.silent.retain(|number| *number > shift.calls);
        self.renumber(|number| number.saturating_sub(shift.calls));
        if let Caller::Syncing(_, flight, _) = &mut self.caller {
            *flight -= shift.flights;
        }
        if self.log.is_last_covered() {
            self.silent = (self.log.durable() + 1..=self.log.calls()).collect();
        }
        while let Some((from, count)) = run.and_then(|run| self.long_run(run)) {
            self.forget_calls(from, count);
        }
        shift.calls
    }

    /// Calls pending that are not staged; with `all`, staged or not.
    #[must_use]
    pub fn bottom(&self, all: bool) -> u64 {
        let calls = self.log.calls();
        let until = if all { calls } else { self.log.staged_after().unwrap_or(calls) };
        until.min(calls) - self.log.durable()
    }

    /// Takes the oldest pending call away: the next one stands for it, and for any number of others.
    pub fn forget_bottom(&mut self) {
        let first = self.log.durable() + 1;
        self.log.forget_bottom();
        self.silent.retain(|number| *number != first);
        self.renumber(|number| if number > first { number - 1 } else { number });
    }

    /// The opposite of [`State::forget_bottom`]: the oldest pending call becomes two. What named it names
    /// the older one.
    #[must_use]
    pub fn with_one_more(&self) -> State {
        let mut state = self.clone();
        let first = state.log.durable() + 1;
        let is_silent = state.silent.first() == Some(&first);
        state.log.add_bottom();
        state.renumber(|number| if number > first { number + 1 } else { number });
        if is_silent {
            state.silent.insert(1, first + 1);
        }
        state
    }

    /// The number before a run of more than `most` calls that cannot be lost, and how many more.
    fn long_run(&self, most: u64) -> Option<(u64, u64)> {
        let runs = self.silent.chunk_by(|a, b| a + 1 == *b);
        let long = runs.map(|run| (run.first(), run.len() as u64)).find(|(_, len)| *len > most);
        long.and_then(|(first, len)| Some((first? - 1, len - most)))
    }

    fn forget_calls(&mut self, from: u64, count: u64) {
        self.log.forget_calls(from, count);
        self.silent.retain(|number| *number <= from || *number > from + count);
        self.renumber(|number| without(number, from, count));
    }

    /// Gives every call that is named outside the log another number.
    fn renumber(&mut self, change: impl Fn(u64) -> u64) {
        let call = |number: &mut u64| *number = change(*number);
        self.silent.iter_mut().for_each(call);
        self.dates.iter_mut().for_each(call);
        match &mut self.caller {
            Caller::Idle => {}
            Caller::Parked(open, target) => {
                call(&mut open.number);
                call(target);
            }
            Caller::Syncing(open, _, target) => {
                call(&mut open.number);
                target.iter_mut().for_each(call);
            }
            Caller::Doubted(open, covers) => {
                call(&mut open.number);
                call(covers);
            }
        }
        if self.since != NEVER {
            call(&mut self.since);
        }
    }
}

/// What a crash takes in a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Acknowledged syncs, when the power fails.
    pub syncs: u64,
    /// Acknowledged syncs, when the process dies.
    pub staged_syncs: u64,
    /// Writes, when the process dies.
    pub staged_writes: u64,
    /// Bytes and updates, when the power fails, of the call that was acknowledged last.
    pub amounts: Amounts,
}

/// States that differ only in how many calls are pending, all of them acknowledged but the one that
/// waits. A landing in any of them that leaves as many calls pending, and lets that one go on, leads
/// to the same state; so does one in a state that has the same [`Family::after`] it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Family {
    vars: Vars,
    /// Calls since those of [`State::dates`].
    dates: Vec<Option<u64>>,
    waits: Option<(Hook, Option<Rc<Run>>, u16, bool)>,
    written: (bool, bool),
    /// Calls since the last that asked for a background sync; none has.
    requested: Option<u64>,
    /// Calls since the last that needs an `fsync`; none does.
    full: Option<u64>,
    latency: u64,
    /// Whether the calls are staged, how many staged writes there are beside one for each, and whether a write has asked
    /// for a sync, of whatever.
    staged: (bool, u64, bool),
    /// Writes have passed by that no sync of the application's own has made durable.
    missed: bool,
}

impl Family {
    /// The family of a state.
    #[must_use]
    pub fn of(state: &State) -> Self {
        let log = &state.log;
        let since = |date| (date > log.durable()).then(|| log.calls().saturating_sub(date));
        let waits = match &state.caller {
            Caller::Parked(open, _) => {
                Some((open.hook, open.run.clone(), open.params, open.requested))
            }
            _ => None,
        };
        Self {
            vars: state.vars.clone(),
            dates: state.dates.iter().map(|date| since(*date)).collect(),
            waits,
            written: (log.notify_done(), log.is_marked()),
            requested: log.since_request(),
            full: log.since_full(),
            latency: log.sync_latency(),
            staged: (
                log.staged_after().is_some(),
                log.staged_writes().saturating_sub(log.staged(log.calls())),
                log.commits(),
            ),
            missed: log.missed() > 0,
        }
    }

    /// What is left of the family after a sync that leaves so many calls pending: it covers what is older than those.
    #[must_use]
    pub fn after(&self, left: u64) -> Self {
        let kept = |since: Option<u64>| since.filter(|since| *since < left);
        let dates = self.dates.iter().map(|since| kept(*since));
        Self {
            dates: dates.map(|since| since.filter(|_| !makes(Mutant::ForgetsDates))).collect(),
            requested: kept(self.requested),
            full: kept(self.full),
            ..self.clone()
        }
    }

    /// Whether what is left after a sync that leaves one more call pending differs.
    #[must_use]
    pub fn changes_at(&self, left: u64) -> bool {
        self.requested == Some(left) || self.full == Some(left) || self.dates.contains(&Some(left))
    }
}

impl State {
    /// Whether nothing but the number of pending calls tells it from others of its [`Family`].
    #[must_use]
    pub fn is_regular(&self) -> bool {
        self.regular_from() == Some(self.log.durable()) && self.log.is_regular(self.opened())
    }

    /// Calls that are under way.
    fn opened(&self) -> u64 {
        u64::from(matches!(&self.caller, Caller::Parked(open, _) if open.hook.is_sync()))
    }

    /// The number of the call from which on a sync that covers it leaves what it leaves of a regular state of the same
    /// [`Family`]; none if there is no such call.
    ///
    /// The state is regular but for calls up to there that a power loss does not take. A sync that covers them makes
    /// them durable, and nothing else names them: what is left are the calls after it, as in the regular state. (Where
    /// bytes cover the last call, they would still be covered after the sync: then there is no such number.)
    #[must_use]
    pub fn regular_from(&self) -> Option<u64> {
        let silent = match &self.caller {
            Caller::Idle => self.silent.as_slice(),
            Caller::Parked(open, _) if open.hook.is_sync() => {
                let (waits, before) = self.silent.split_last()?;
                (*waits == self.log.calls()).then_some(before)?
            }
            _ => return None,
        };
        let newest = silent.last().copied();
        let covered = newest.is_some() && self.log.is_last_covered();
        let is_plain = self.log.is_plain(self.opened()) && !covered;
        let newest = newest.filter(|_| !makes(Mutant::MergesSilent));
        is_plain.then(|| newest.unwrap_or(self.log.durable()))
    }
}
