//! Breadth first through every state that can be reached.
//!
//! Breadth first, so that the first path that breaks a limit is a shortest one. The states of a
//! policy that can lose any number of syncs have no end: `Explorer::repeats` finds the path that
//! can be walked again and again.

mod reach;

use crate::live::Keep;
use crate::mutants::{Mutant, makes};
use crate::state::{Caller, NEVER, State, Taken};
use crate::step::{Event, Faults, Next, Stepper, Work};
use rustc_hash::FxHashMap;
use std::ops::Range;
use std::rc::Rc;

pub use reach::Jumps;

/// States and runs of programs after which the worst case is looked for, if it is known what it cannot
/// exceed.
pub const FIRST_STATES: usize = 1_000;
/// As [`FIRST_STATES`].
const FIRST_RUNS: u64 = 5_000;
/// States after which exploring stops when the worst case is found that was derived: there is none
/// beyond it.
const ENOUGH_STATES: usize = 50_000;

/// As [`ENOUGH_STATES`].
const ENOUGH_RUNS: u64 = 1_000_000;
/// Staged writes that are counted: more are taken for any number.
const MAX_WRITES: u64 = 4096;
/// Steps back from every state in search of one that repeats.
const SHORT: usize = 64;
/// A path that is drawn though the walk was ended has so many steps at most, and so many runs of programs are made for it.
const PATH_AFTER_END: usize = 256;
const AFTER_END: Work = Work { runs: 200_000, inputs: 200_000, ..Work::MOST };

/// A number that may have no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Most {
    /// At most this many; reached.
    Count(u64),
    /// More than any number.
    Unbounded,
}

impl Most {
    /// The number, if there is one.
    #[must_use]
    pub fn count(self) -> Option<u64> {
        match self {
            Most::Count(count) => Some(count),
            Most::Unbounded => None,
        }
    }
}

/// A path to a state: where it is in [`Explored::nodes`].
pub type NodeId = u32;

/// A state that was reached.
pub struct Node {
    /// Without `since`.
    state: Rc<State>,
    since: u64,
    parent: NodeId,
    /// The last step made something durable: numbers are counted from elsewhere.
    moved: bool,
    /// Parameters of the call that the last step acknowledged.
    acknowledged: Option<u16>,
    /// What a crash would take.
    taken: Taken,
    /// Digest of the state without how much is pending.
    shape: u64,
    /// Digest of the state without how many writes are staged.
    whole: u64,
    /// What led to the state before goes on for so many calls.
    repeated: u64,
}

impl Node {
    fn state(&self) -> State {
        let mut state = State::clone(&self.state);
        state.since = self.since;
        state
    }
}

/// What a [`Limit`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Acknowledged syncs that a power loss takes.
    Syncs,
    /// Acknowledged syncs that die with the process.
    StagedSyncs,
    /// Writes that die with the process.
    StagedWrites,
    /// Bytes that a power loss takes.
    Bytes,
    /// Updates that a power loss takes.
    Updates,
}

/// What must not be exceeded, and by which node it first was.
pub struct Limit {
    /// What is counted.
    pub unit: Unit,
    /// For each vector of parameters.
    pub most: Vec<u64>,
    /// The first node beyond it.
    pub broken: Option<NodeId>,
    /// What led to that node can be repeated without end.
    pub endless: bool,
}

impl Limit {
    /// A limit that nothing has broken yet.
    #[must_use]
    pub fn new(unit: Unit, most: Vec<u64>) -> Self {
        Self { unit, most, broken: None, endless: false }
    }

    /// Growth without end of its unit breaks it, however large it is, and for every vector of parameters: a
    /// guarantee must hold for the whole range.
    pub(super) fn has_no_end(&mut self, unit: Unit, at: NodeId) {
        let is_finite = self.most.iter().any(|most| *most < u64::MAX);
        if self.unit == unit && is_finite && self.broken.is_none() && !makes(Mutant::NoGrowth) {
            self.broken = Some(at);
            self.endless = true;
        }
    }

    pub(super) fn exceeded(&self, taken: Taken, next: (Option<u16>, Option<u16>)) -> bool {
        let (acknowledged, staged) = next;
        let (count, params) = match self.unit {
            Unit::Syncs => (taken.syncs, acknowledged),
            Unit::StagedSyncs => (taken.staged_syncs, acknowledged),
            Unit::StagedWrites => (taken.staged_writes, staged),
            Unit::Bytes => (taken.amounts.bytes, acknowledged),
            Unit::Updates => (taken.amounts.updates, acknowledged),
        };
        let most = params.and_then(|params| self.most.get(usize::from(params)));
        most.is_some_and(|most| count > *most)
    }
}

/// The worst case of a unit.
#[derive(Clone, Debug)]
pub struct Worst {
    /// Whatever the parameters.
    pub most: Most,
    /// Right after the acknowledgement of a call that saw these parameters.
    pub by_params: Vec<Most>,
    /// The first state that has the most, or from which there is no end.
    pub at: NodeId,
    /// The most that was reached.
    reached: u64,
}

impl Worst {
    pub(super) fn new(params: usize) -> Self {
        Self { most: Most::Count(0), by_params: vec![Most::Count(0); params], at: 0, reached: 0 }
    }

    /// Counts an amount of what a call acknowledged.
    fn count_amount(&mut self, amount: u64, params: Option<u16>) {
        match amount {
            u64::MAX => self.has_no_end(0, &[params]),
            amount => self.count(amount, params),
        }
    }

    pub(super) fn count(&mut self, count: u64, params: Option<u16>) {
        self.most = self.most.max(Most::Count(count));
        if let Some(most) = params.and_then(|p| self.by_params.get_mut(usize::from(p))) {
            *most = (*most).max(Most::Count(count));
        }
    }

    /// Notes the state; returns whether none before had so many.
    pub(super) fn reach(&mut self, count: u64, id: NodeId) -> bool {
        let more = self.reached < count;
        if more {
            self.reached = count;
            if self.most != Most::Unbounded {
                self.at = id;
            }
        }
        more
    }

    pub(super) fn has_no_end(&mut self, at: NodeId, params: &[Option<u16>]) {
        if self.most != Most::Unbounded {
            self.at = at;
        }
        self.most = Most::Unbounded;
        for params in params.iter().flatten() {
            if let Some(most) = self.by_params.get_mut(usize::from(*params)) {
                *most = Most::Unbounded;
            }
        }
    }
}

/// Worst cases that cannot be exceeded, for each vector of parameters.
#[derive(Clone, Debug, Default)]
pub struct Derived {
    /// Acknowledged syncs that a power loss takes.
    pub syncs: Vec<Most>,
    /// Acknowledged syncs that die with the process.
    pub staged_syncs: Vec<Most>,
}

impl Derived {
    /// Whether there is a worst case of both for each vector.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let of = [&self.syncs, &self.staged_syncs];
        of.iter().all(|of| !of.is_empty() && of.iter().all(|most| *most != Most::Unbounded))
    }
}

/// What was found.
pub struct Explored {
    /// Every state, in the order it was reached.
    pub nodes: Vec<Node>,
    /// Steps between them.
    pub steps: u64,
    /// Acknowledged syncs that a power loss takes.
    pub syncs: Worst,
    /// Acknowledged syncs that die with the process.
    pub staged_syncs: Worst,
    /// Writes that die with the process.
    pub staged_writes: Worst,
    /// Bytes that a power loss takes, by what the programs have read.
    pub bytes: Worst,
    /// Updates that a power loss takes, in the same way.
    pub updates: Worst,
    /// Acknowledged syncs that a power loss takes, with the call that is in progress.
    pub with_progress: Most,
    /// The first state whose acknowledged syncs may stay unsynced for ever.
    pub tail: Option<NodeId>,
    /// The first state whose writes may stay staged for ever.
    pub staged_tail: Option<NodeId>,
    /// Calls in a row that cannot be lost: more of them make no difference, nor do greater numbers of calls.
    most: Option<u64>,
    /// State variables that hold numbers of calls.
    counts: Vec<usize>,
    /// What is kept of each state variable between calls.
    keeps: Vec<Keep>,
    /// Calls that are pending and not staged, beyond which more make no difference: the loss has no end.
    cap: Option<u64>,
    /// Calls that cannot be lost were left out, because there were more of them in a row.
    pub shortened: bool,
    /// What must never happen.
    pub faults: Faults,
    /// The limits, with their breaking.
    pub limits: Vec<Limit>,
    /// Not everything was explored.
    pub too_large: bool,
    /// Not everything was explored: who watches has ended it, or it was too much.
    pub stopped: bool,
    /// So many runs of programs and ends of syncs were too much.
    pub given_up: Option<u64>,
    /// Not everything was explored: as much was found as was derived, so there is no more.
    pub enough: bool,
    /// The nodes of the walk that looks for the worst case.
    reached: Range<usize>,
}

/// Walks with a greater number each, when the programs wait at a greater distance than was known.
const MAX_WALKS: usize = 4;

/// States of a walk without cuts that are too many.
const MAX_UNCUT: usize = 20_000;

/// What a walk may leave out, because no program tells the difference.
#[derive(Clone, Debug)]
pub struct Cuts {
    /// The greatest number that the programs are known to compare numbers of calls with.
    pub compared: u64,
    /// State variables that hold such numbers as they were read.
    pub counts: Vec<usize>,
    /// What is kept of each state variable between calls.
    pub keeps: Vec<Keep>,
    /// What may be repeated.
    pub jumps: Jumps,
}

/// Explores everything from the first state.
///
/// When the programs wait at a greater distance than was known to be compared, the walk begins anew with
/// that.
/// `derived`: for each vector of parameters, a worst case that cannot be exceeded, of a power loss and
/// of a crash of the process.
#[must_use]
pub fn explore(
    stepper: &mut Stepper<'_>,
    mut cuts: Cuts,
    limits: impl Fn() -> Vec<Limit>,
    derived: &Derived,
) -> Explored {
    for _ in 1..MAX_WALKS {
        let found = walk(stepper, &cuts, true, limits(), derived);
        if stepper.programs.farthest <= cuts.compared || found.too_large || found.enough {
            return found;
        }
        cuts.compared = stepper.programs.farthest;
        stepper.forget();
    }
    let mut found = walk(stepper, &cuts, true, limits(), derived);
    found.too_large |= stepper.programs.farthest > cuts.compared && !found.enough;
    found
}

/// As [`explore`], of programs that use numbers of calls in ways that have no greatest one: nothing is
/// left out, so it only comes to an end if the numbers do.
#[must_use]
pub fn explore_uncut(
    stepper: &mut Stepper<'_>,
    cuts: &Cuts,
    limits: Vec<Limit>,
    derived: &Derived,
) -> Explored {
    stepper.forget();
    let most = stepper.most_states;
    stepper.most_states = most.min(MAX_UNCUT);
    let found = walk(stepper, cuts, false, limits, derived);
    stepper.most_states = most;
    found
}

fn walk(
    stepper: &mut Stepper<'_>,
    cuts: &Cuts,
    is_cut: bool,
    limits: Vec<Limit>,
    derived: &Derived,
) -> Explored {
    let params = limits.first().map_or(1, |l| l.most.len()).max(1);
    let found = Explored {
        nodes: Vec::new(),
        steps: 0,
        syncs: Worst::new(params),
        staged_syncs: Worst::new(params),
        staged_writes: Worst::new(params),
        bytes: Worst::new(params),
        updates: Worst::new(params),
        with_progress: Most::Count(0),
        tail: None,
        staged_tail: None,
        most: is_cut.then(|| cuts.compared.saturating_add(2)),
        counts: if is_cut { cuts.counts.clone() } else { Vec::new() },
        keeps: cuts.keeps.clone(),
        cap: None,
        shortened: false,
        faults: Faults::default(),
        limits,
        too_large: false,
        stopped: false,
        given_up: None,
        enough: false,
        reached: 0..0,
    };
    let mut explorer = Explorer {
        found,
        seen: FxHashMap::default(),
        thresholds: if is_cut { cuts.compared } else { u64::MAX },
        stages: stepper.stages(),
        writes: MAX_WRITES,
    };
    let first = stepper.first();
    explorer.enter(Next::first(first), 0);
    let is_bounded = derived.is_bounded();
    let mut at = 0;
    while at < explorer.found.nodes.len() && !(at > 3 && makes(Mutant::StopsEarly)) {
        if explorer.found.reached.contains(&at) {
            at = explorer.found.reached.end;
            continue;
        }
        let Some(state) = explorer.found.nodes.get(at).map(Node::state) else { break };
        if state.log.error().is_none_or(|_| state.caller != Caller::Idle) {
            for next in stepper.next(&state) {
                explorer.found.steps += 1;
                explorer.enter(next, at as NodeId);
            }
        }
        if stepper.programs.broken.is_some() {
            break;
        }
        if explorer.found.is_ended(stepper) {
            break;
        }
        let (states, runs) = (explorer.found.nodes.len(), stepper.programs.runs);
        let first = stepper.first < usize::MAX && (states > stepper.first || runs > FIRST_RUNS);
        if first && is_bounded && explorer.found.reached.is_empty() {
            explorer.found.reached = explorer.reach(stepper, derived, &cuts.jumps);
            if explorer.found.agrees(derived) {
                explorer.found.enough = true;
                break;
            }
        }
        let long = states > ENOUGH_STATES || runs > ENOUGH_RUNS;
        if long && explorer.found.agrees(derived) {
            explorer.found.enough = true;
            break;
        }
        if states > stepper.most_states {
            explorer.found.too_large = true;
            break;
        }
        stepper.merged = explorer.found.merged();
        at += 1;
    }
    let on_the_way = Most::Count(stepper.with_progress);
    explorer.found.with_progress = explorer.found.with_progress.max(on_the_way);
    explorer.found.faults = stepper.faults;
    explorer.found
}

struct Explorer {
    found: Explored,
    /// The states, without `since`, with the least of it: who can have had a sync under way for
    /// longer can do all that the other can.
    seen: reach::Seen,
    thresholds: u64,
    /// Whether the policy stages writes: what dies with the process may grow later than the rest.
    stages: bool,
    /// Staged writes that are counted; one when they have no end.
    writes: u64,
}

impl Explorer {
    fn enter(&mut self, next: Next, parent: NodeId) {
        let Next { mut state, acknowledged, amounts, staged, .. } = next;
        self.found.shortened |= self.found.most.is_some_and(|most| {
            state.silent.len() as u64 > most || self.found.has_greater(&state, most)
        });
        let moved = self.found.settle(&mut state) > 0;
        let is_merged = self.found.merge(&mut state);
        if state.log.cap_stages(self.writes) && self.writes > 1 {
            self.writes_have_no_end(parent);
        }
        let (taken, open) = (Taken { amounts, ..state.taken() }, state.in_progress());
        let breaks = self.count(taken, open, (acknowledged, staged));
        if is_merged && let Some(params) = acknowledged {
            self.found.has_no_end_for(params);
        }
        let since = std::mem::replace(&mut state.since, NEVER);
        let known = match self.seen.get_mut(&state) {
            Some(least) => {
                let known = *least <= since;
                *least = since.min(*least);
                known
            }
            None => false,
        };
        if known && !breaks {
            return;
        }
        // Most states are known: only others are kept.
        let key = Rc::new(state);
        if !known {
            self.seen.entry(key.clone()).or_insert(since);
        }
        let id = self.found.nodes.len() as NodeId;
        if key.caller == Caller::Idle {
            if self.found.tail.is_none() && taken.syncs > 0 && key.log.leaves_tail() {
                self.found.tail = Some(id);
            }
            if self.found.staged_tail.is_none() && key.log.leaves_staged() {
                self.found.staged_tail = Some(id);
            }
        }
        let shape = shape(&key, since != NEVER, self.thresholds);
        let whole = if taken.staged_writes > 0 { whole(&key, since) } else { 0 };
        let state = key;
        self.found.nodes.push(Node {
            state,
            since,
            parent,
            moved,
            acknowledged,
            taken,
            shape,
            whole,
            repeated: 0,
        });
        if breaks {
            for limit in &mut self.found.limits {
                if limit.exceeded(taken, (acknowledged, staged)) {
                    limit.broken.get_or_insert(id);
                }
            }
        }
        self.found.staged_writes.reach(taken.staged_writes, id);
        let more_staged = self.found.staged_syncs.reach(taken.staged_syncs, id);
        // A loss without end exceeds every number before it. The first state with a number need not
        // lie on a path that repeats, but then one does that loses nearly as many.
        if self.found.syncs.reach(taken.syncs, id) || more_staged {
            self.repeats(id, usize::MAX);
        } else if acknowledged.is_some() {
            self.repeats(id, SHORT);
        }
        if staged.is_some() && self.writes > 1 && self.found.most.is_some() {
            self.repeats_writes(id);
        }
    }

    /// Counts what can be lost. Returns whether a limit is broken for the first time.
    fn count(&mut self, taken: Taken, open: u64, next: (Option<u16>, Option<u16>)) -> bool {
        let found = &mut self.found;
        found.syncs.count(taken.syncs, next.0);
        found.staged_syncs.count(taken.staged_syncs, next.0);
        found.staged_writes.count(taken.staged_writes, next.1);
        found.bytes.count_amount(taken.amounts.bytes, next.0);
        found.updates.count_amount(taken.amounts.updates, next.0);
        found.with_progress =
            found.with_progress.max(Most::Count(taken.syncs.saturating_add(open)));
        found.limits.iter().any(|l| l.broken.is_none() && l.exceeded(taken, next))
    }

    /// Looks for an earlier state on the path that differs only in how much is pending, beyond all
    /// thresholds: what led from there to here leads on for ever.
    fn repeats(&mut self, id: NodeId, steps: usize) {
        let Some(node) = self.found.nodes.get(id as usize) else { return };
        let calls = node.state.log.calls();
        let endless = self.found.syncs.most == Most::Unbounded;
        let ended = self.found.most.is_none()
            || endless && (!self.stages || self.found.staged_syncs.most == Most::Unbounded);
        if calls < self.thresholds.saturating_add(2) || ended || node.state.caller != Caller::Idle {
            return;
        }
        let mut acknowledged = vec![node.acknowledged];
        let (mut at, mut moved) = (node.parent, node.moved);
        let mut least = node.taken.staged_syncs;
        let mut found = None;
        for _ in 0..steps {
            let Some(earlier) = self.found.nodes.get(at as usize).filter(|_| !moved) else {
                break;
            };
            if earlier.state.log.calls() <= self.thresholds {
                break;
            }
            let more_staged = earlier.taken.staged_syncs < node.taken.staged_syncs;
            let grows = earlier.taken.syncs < node.taken.syncs || endless && more_staged;
            if grows && earlier.shape == node.shape {
                // If a passed write took them along in between, they only came back.
                let (before, now) = (earlier.taken.staged_syncs, node.taken.staged_syncs);
                let grows_staged = before < now && before <= least;
                found = Some((acknowledged.clone(), grows_staged));
                if grows_staged || !self.stages {
                    break;
                }
            }
            least = least.min(earlier.taken.staged_syncs);
            acknowledged.push(earlier.acknowledged);
            (at, moved) = (earlier.parent, earlier.moved);
        }
        if let Some((acknowledged, staged)) = found {
            self.has_no_end(id, staged, &acknowledged);
        }
    }

    /// The loss has no end: what led to this state can be repeated, with acknowledgements under these
    /// parameters. From now on only whether more calls are pending than any program tells apart
    /// makes a difference.
    fn has_no_end(&mut self, id: NodeId, staged: bool, params: &[Option<u16>]) {
        let found = &mut self.found;
        found.cap = Some(self.thresholds + 2);
        found.syncs.has_no_end(id, params);
        found.with_progress = Most::Unbounded;
        found.limits.iter_mut().for_each(|l| l.has_no_end(Unit::Syncs, id));
        if staged {
            found.staged_syncs.has_no_end(id, params);
            found.limits.iter_mut().for_each(|l| l.has_no_end(Unit::StagedSyncs, id));
        }
    }

    /// Looks for an earlier state on the path that differs only in how many writes are staged.
    fn repeats_writes(&mut self, id: NodeId) {
        let Some(node) = self.found.nodes.get(id as usize) else { return };
        let (writes, mut at) = (node.taken.staged_writes, node.parent);
        let mut least = writes;
        for _ in 0..SHORT {
            let Some(earlier) = self.found.nodes.get(at as usize) else { return };
            let before = earlier.taken.staged_writes;
            // If they were written in between, they only came back.
            if earlier.whole == node.whole && before < writes && before <= least {
                return self.writes_have_no_end(id);
            }
            least = least.min(before);
            if at == 0 {
                return;
            }
            at = earlier.parent;
        }
    }

    /// The staged writes have no end: from now on only whether there are some makes a difference.
    fn writes_have_no_end(&mut self, id: NodeId) {
        self.writes = 1;
        let all: Vec<_> =
            (0..self.found.staged_writes.by_params.len()).map(|p| Some(p as u16)).collect();
        self.found.staged_writes.has_no_end(id, &all);
        self.found.limits.iter_mut().for_each(|l| l.has_no_end(Unit::StagedWrites, id));
    }
}

/// A digest of a state without how many writes are staged, if any is.
fn whole(state: &State, since: u64) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = rustc_hash::FxHasher::default();
    (state.without_writes(), since).hash(&mut hasher);
    hasher.finish().max(1)
}

/// A digest of an idle state without how much is pending, and how much more than a number is staged.
fn shape(state: &State, startable: bool, thresholds: u64) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    let log = &state.log;
    (
        &state.vars,
        state.dates.iter().map(|date| *date > log.durable()).collect::<Vec<bool>>(),
        startable,
        log.notify_done(),
        log.is_marked(),
        log.since_request().is_some(),
        log.is_regular(0),
        log.sync_latency(),
        log.staged(log.calls()).min(thresholds.saturating_add(2)),
        (log.staged_writes() > 0, log.is_committing()),
    )
        .hash(&mut hasher);
    (state.caller == Caller::Idle, log.is_startable()).hash(&mut hasher);
    hasher.finish()
}

impl Explored {
    /// Counts a state's numbers anew; answers how many calls became durable. After an error nothing is
    /// acknowledged any more, and every such state is as good as another.
    fn settle(&self, state: &mut State) -> u64 {
        let moved = state.rebase(self.most);
        if state.caller == Caller::Idle {
            let kept = |vars: &[u64]| {
                let mut pairs = vars.iter().zip(&self.keeps);
                pairs.all(|(var, keep)| keep.of(*var) == *var)
            };
            if !kept(&state.vars) {
                for (var, keep) in Rc::make_mut(&mut state.vars).iter_mut().zip(&self.keeps) {
                    *var = keep.of(*var);
                }
            }
        }
        if let Some(most) = self.most.filter(|most| self.has_greater(state, *most)) {
            let vars = Rc::make_mut(&mut state.vars);
            for &index in &self.counts {
                vars.iter_mut().skip(index).take(1).for_each(|var| *var = (*var).min(most));
            }
        }
        if state.log.error().is_some() && state.caller == Caller::Idle {
            state.log.forget_all_but_error();
            state.silent.clear();
            Rc::make_mut(&mut state.vars).fill(0);
            state.dates.fill(0);
            state.since = NEVER;
        }
        moved
    }

    /// Whether a number of calls that is kept is greater than that.
    fn has_greater(&self, state: &State, most: u64) -> bool {
        self.counts.iter().any(|index| state.vars.get(*index).is_some_and(|var| *var > most))
    }

    /// Whether the walk ends now.
    fn is_ended(&mut self, stepper: &Stepper<'_>) -> bool {
        let states = self.nodes.len();
        if stepper.is_ended(states) {
            (self.too_large, self.stopped) = (true, true);
            self.given_up = stepper.given_up();
        }
        self.stopped
    }

    /// Whether something was left out or taken for something else.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.shortened || self.cap.is_some()
    }

    /// Once the loss has no end, a state with more pending calls than any program tells apart is taken
    /// for one with fewer, which stands for that many or more. Calls whose writes are staged are counted
    /// until these have no end either. Returns whether the state stands for others.
    fn merge(&self, state: &mut State) -> bool {
        let Some((cap, all)) = self.merged() else { return false };
        while state.bottom(all) > cap {
            state.forget_bottom();
        }
        state.bottom(all) == cap
    }

    /// See [`Stepper::merged`].
    fn merged(&self) -> Option<(u64, bool)> {
        self.cap.map(|cap| (cap, self.staged_syncs.most == Most::Unbounded))
    }

    /// A call with these parameters was acknowledged in a state that stands for any greater number of
    /// pending calls.
    fn has_no_end_for(&mut self, params: u16) {
        let all_staged = self.staged_syncs.most == Most::Unbounded;
        let endless = [Some(&mut self.syncs), all_staged.then_some(&mut self.staged_syncs)];
        for worst in endless.into_iter().flatten() {
            if let Some(most) = worst.by_params.get_mut(usize::from(params)) {
                *most = Most::Unbounded;
            }
        }
    }

    /// What a crash takes in a state.
    #[must_use]
    pub fn taken_at(&self, id: NodeId) -> Taken {
        self.nodes.get(id as usize).map_or(Taken::default(), |node| node.taken)
    }

    /// Whether the worst cases are those that were derived: there is none beyond them.
    #[must_use]
    pub fn agrees(&self, derived: &Derived) -> bool {
        self.syncs.by_params == derived.syncs && self.staged_syncs.by_params == derived.staged_syncs
    }

    /// Whether no shorter path leads to such a node: it was not found by looking for the worst case first.
    #[must_use]
    pub fn is_shortest(&self, id: NodeId) -> bool {
        !self.reached.contains(&(id as usize))
    }

    /// The steps from the first state to a node, each with what was durable before it. None if the walk was ended
    /// and to make them again takes long.
    pub fn path(&self, stepper: &mut Stepper<'_>, to: NodeId) -> Option<Vec<(u64, Vec<Event>)>> {
        let mut ids = vec![to];
        let mut at = to;
        while at != 0 {
            let Some(node) = self.nodes.get(at as usize) else { break };
            at = node.parent;
            ids.push(at);
        }
        ids.reverse();
        let mut path = Vec::new();
        let mut durable = 0;
        if self.stopped && ids.len() > PATH_AFTER_END {
            return None;
        }
        stepper.begin_again(if self.stopped { AFTER_END } else { Work::MOST });
        for pair in ids.windows(2) {
            let [from, to_id] = pair else { continue };
            let (Some(from), Some(to)) =
                (self.nodes.get(*from as usize), self.nodes.get(*to_id as usize))
            else {
                continue;
            };
            if to.repeated > 0 {
                path.push((durable, vec![Event::Again(to.repeated)]));
                continue;
            }
            // Only the walk itself leaves out what it has seen. Most steps are among the few of a thin walk.
            for thin in [true, false] {
                stepper.forget_seen();
                stepper.thin = thin;
                let nexts = stepper.next(&from.state()).into_iter();
                let mut found = nexts.filter_map(|next| self.leads(next, to));
                if let Some((events, moved)) = found.next() {
                    path.push((durable, events));
                    durable += moved;
                    break;
                }
            }
        }
        stepper.end_again(self.stopped).then_some(path)
    }

    /// What happens on a step, and how many calls become durable, if it leads to this node.
    fn leads(&self, mut next: Next, to: &Node) -> Option<(Vec<Event>, u64)> {
        let moved = self.settle(&mut next.state);
        let mut to_state = to.state();
        self.merge(&mut to_state);
        self.merge(&mut next.state);
        let same = next.state.without_writes() == to_state.without_writes();
        (next.acknowledged == to.acknowledged && same).then(|| (next.events.into_events(), moved))
    }
}
