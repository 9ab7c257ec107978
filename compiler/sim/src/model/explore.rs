//! Breadth first through every state that can be reached.
//!
//! Breadth first, so that the first path that breaks a limit is a shortest one. The states of a
//! policy that can lose any number of syncs have no end: [`Explorer::repeats`] finds the path that
//! can be walked again and again.

use super::state::{Caller, NEVER, State, Taken};
use super::step::{Event, Faults, Next, Stepper};
use rustc_hash::FxHashMap;
use std::rc::Rc;

/// States beyond which a policy is too large.
pub const MAX_STATES: usize = 600_000;

/// States after which exploring stops when the worst case is found that was derived: there is none
/// beyond it.
const ENOUGH_STATES: usize = 50_000;

/// Runs of programs that are too many: what a policy reads multiplies them, in one state already.
const MAX_RUNS: u64 = 4_000_000;
/// As [`ENOUGH_STATES`].
const ENOUGH_RUNS: u64 = 1_000_000;
/// Staged writes that are counted: more are taken for any number.
const MAX_WRITES: u64 = 4096;
/// Steps back from every state in search of one that repeats.
const SHORT: usize = 64;

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
}

/// What must not be exceeded, and by which node it first was.
pub struct Limit {
    /// What is counted.
    pub unit: Unit,
    /// For each vector of parameters.
    pub most: Vec<u64>,
    /// The first node beyond it.
    pub broken: Option<NodeId>,
}

impl Limit {
    pub(super) fn exceeded(&self, taken: Taken, next: (Option<u16>, Option<u16>)) -> bool {
        let (acknowledged, staged) = next;
        let (count, params) = match self.unit {
            Unit::Syncs => (taken.syncs, acknowledged),
            Unit::StagedSyncs => (taken.staged_syncs, acknowledged),
            Unit::StagedWrites => (taken.staged_writes, staged),
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

    pub(super) fn count(&mut self, count: u64, params: Option<u16>) {
        self.most = self.most.max(Most::Count(count));
        if let Some(most) = params.and_then(|p| self.by_params.get_mut(usize::from(p))) {
            *most = (*most).max(Most::Count(count));
        }
    }

    /// Notes the state; answers whether none before had so many.
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
    /// Acknowledged syncs that a power loss takes, with the call that is in progress.
    pub with_progress: Most,
    /// The first state whose acknowledged syncs may stay unsynced for ever.
    pub tail: Option<NodeId>,
    /// The first state whose writes may stay staged for ever.
    pub staged_tail: Option<NodeId>,
    /// Calls in a row that cannot be lost; more of them make no difference.
    most: u64,
    /// Calls that cannot be lost were left out, because there were more of them in a row.
    pub shortened: bool,
    /// What must never happen.
    pub faults: Faults,
    /// The limits, with their breaking.
    pub limits: Vec<Limit>,
    /// Not everything was explored.
    pub too_large: bool,
}

/// Explores everything from the first state.
///
/// `compared`: the greatest number that the programs compare numbers of pending calls with.
/// `derived`: for each vector of parameters, a worst case that cannot be exceeded, of a power loss and
/// of a crash of the process.
#[must_use]
pub fn explore(
    stepper: &mut Stepper<'_>,
    compared: u64,
    limits: Vec<Limit>,
    derived: &Derived,
) -> Explored {
    let params = limits.first().map_or(1, |l| l.most.len()).max(1);
    let of_syncs = limits.iter().filter(|l| l.unit != Unit::StagedWrites);
    let highest = of_syncs.flat_map(|l| &l.most).filter(|l| **l < 1 << 20).max();
    let thresholds = compared.max(highest.copied().unwrap_or(0));
    let found = Explored {
        nodes: Vec::new(),
        steps: 0,
        syncs: Worst::new(params),
        staged_syncs: Worst::new(params),
        staged_writes: Worst::new(params),
        with_progress: Most::Count(0),
        tail: None,
        staged_tail: None,
        most: compared + 2,
        shortened: false,
        faults: Faults::default(),
        limits,
        too_large: false,
    };
    let mut explorer = Explorer {
        found,
        seen: FxHashMap::default(),
        thresholds,
        ceiling: u64::MAX,
        beyond: if stepper.stages() { compared + 4 } else { 0 },
        writes: MAX_WRITES,
    };
    let first = stepper.first();
    explorer.enter(Next::first(first), 0);
    let mut at = 0;
    while at < explorer.found.nodes.len() {
        let Some(state) = explorer.found.nodes.get(at).map(Node::state) else { break };
        let beyond = state.log.calls() >= explorer.ceiling;
        if !beyond && state.log.error().is_none_or(|_| state.caller != Caller::Idle) {
            for next in stepper.next(&state) {
                explorer.found.steps += 1;
                explorer.enter(next, at as NodeId);
            }
        }
        if stepper.programs.broken.is_some() {
            break;
        }
        let (states, runs) = (explorer.found.nodes.len(), stepper.programs.runs);
        let long = states > ENOUGH_STATES || runs > ENOUGH_RUNS;
        let enough = long && explorer.found.agrees(derived);
        if enough || states > stepper.most_states || runs > MAX_RUNS {
            explorer.found.too_large = true;
            break;
        }
        explorer.thresholds = explorer.thresholds.max(stepper.programs.farthest);
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
    seen: FxHashMap<Rc<State>, u64>,
    thresholds: u64,
    /// Calls beyond which nothing new can come: the loss has no end anyhow.
    ceiling: u64,
    /// So many more are followed when the loss of a power loss has no end: what dies with the process
    /// may grow later.
    beyond: u64,
    /// Staged writes that are counted; one when they have no end.
    writes: u64,
}

impl Explorer {
    fn enter(&mut self, next: Next, parent: NodeId) {
        let Next { mut state, acknowledged, staged, .. } = next;
        self.found.shortened |= state.silent.len() as u64 > self.found.most;
        let moved = settle(&mut state, self.found.most) > 0;
        if state.log.cap_stages(self.writes) && self.writes > 1 {
            self.writes_have_no_end(parent);
        }
        let (taken, open) = (state.taken(), state.in_progress());
        let breaks = self.count(taken, open, (acknowledged, staged));
        let since = std::mem::replace(&mut state.since, NEVER);
        let key = Rc::new(state);
        let known = match self.seen.get_mut(&key) {
            Some(least) if *least <= since => true,
            Some(least) => {
                *least = since;
                false
            }
            None => {
                self.seen.insert(key.clone(), since);
                false
            }
        };
        if known && !breaks {
            return;
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
        if staged.is_some() && self.writes > 1 {
            self.repeats_writes(id);
        }
    }

    /// Counts what can be lost. Answers whether a limit is broken for the first time.
    fn count(&mut self, taken: Taken, open: u64, next: (Option<u16>, Option<u16>)) -> bool {
        let found = &mut self.found;
        found.syncs.count(taken.syncs, next.0);
        found.staged_syncs.count(taken.staged_syncs, next.0);
        found.staged_writes.count(taken.staged_writes, next.1);
        found.with_progress = found.with_progress.max(Most::Count(taken.syncs + open));
        found.limits.iter().any(|l| l.broken.is_none() && l.exceeded(taken, next))
    }

    /// Looks for an earlier state on the path that differs only in how much is pending, beyond all
    /// thresholds: what led from there to here leads on for ever.
    fn repeats(&mut self, id: NodeId, steps: usize) {
        let Some(node) = self.found.nodes.get(id as usize) else { return };
        let calls = node.state.log.calls();
        let ended = self.found.syncs.most == Most::Unbounded
            && (self.beyond == 0 || self.found.staged_syncs.most == Most::Unbounded);
        if calls < self.thresholds + 2 || ended || node.state.caller != Caller::Idle {
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
            let grows = earlier.taken.syncs < node.taken.syncs;
            if grows && earlier.shape == node.shape {
                // If a passed write took them along in between, they only came back.
                let (before, now) = (earlier.taken.staged_syncs, node.taken.staged_syncs);
                let grows_staged = before < now && before <= least;
                found = Some((acknowledged.clone(), grows_staged));
                if grows_staged || self.beyond == 0 {
                    break;
                }
            }
            least = least.min(earlier.taken.staged_syncs);
            acknowledged.push(earlier.acknowledged);
            (at, moved) = (earlier.parent, earlier.moved);
        }
        if let Some((acknowledged, staged)) = found {
            self.has_no_end(id, calls, staged, &acknowledged);
        }
    }

    /// The loss has no end: what led to a state with so many calls can be repeated, with
    /// acknowledgements under these parameters.
    fn has_no_end(&mut self, id: NodeId, calls: u64, staged: bool, params: &[Option<u16>]) {
        self.ceiling = self.ceiling.min(calls + self.beyond);
        self.found.syncs.has_no_end(id, params);
        self.found.with_progress = Most::Unbounded;
        if staged {
            self.found.staged_syncs.has_no_end(id, params);
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
        for limit in &mut self.found.limits {
            if limit.unit == Unit::StagedWrites && limit.most.iter().any(|most| *most < u64::MAX) {
                limit.broken.get_or_insert(id);
            }
        }
    }
}

/// Counts a state's numbers anew; answers how many calls became durable. After an error nothing is
/// acknowledged any more, and every such state is as good as another.
fn settle(state: &mut State, most: u64) -> u64 {
    let moved = state.rebase(most);
    if state.log.error().is_some() && state.caller == Caller::Idle {
        state.log.forget_all_but_error();
        state.silent.clear();
        state.vars.fill(0);
        state.since = NEVER;
    }
    moved
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
        startable,
        log.notify_done(),
        log.is_marked(),
        log.since_request().is_some(),
        log.is_regular(0),
        log.sync_latency(),
        log.staged(log.calls()).min(thresholds + 2),
        (log.staged_writes() > 0, log.is_committing()),
    )
        .hash(&mut hasher);
    (state.caller == Caller::Idle, log.is_startable()).hash(&mut hasher);
    hasher.finish()
}

impl Explored {
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

    /// The steps from the first state to a node, each with what was durable before it.
    pub fn path(&self, stepper: &mut Stepper<'_>, to: NodeId) -> Vec<(u64, Vec<Event>)> {
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
        for pair in ids.windows(2) {
            let [from, to] = *pair else { continue };
            let (Some(from), Some(to)) =
                (self.nodes.get(from as usize), self.nodes.get(to as usize))
            else {
                continue;
            };
            for mut next in stepper.next(&from.state()) {
                let before = durable;
                let moved = settle(&mut next.state, self.most);
                let same = next.state.without_writes() == to.state().without_writes();
                if next.acknowledged == to.acknowledged && same {
                    durable += moved;
                    path.push((before, next.events));
                    break;
                }
            }
        }
        path
    }
}
