//! Breadth first through every state that can be reached.
//!
//! Breadth first, so that the first path that breaks a limit is a shortest one. The states of a
//! policy that can lose any number of syncs have no end: [`Explorer::repeats`] finds the path that
//! can be walked again and again.

use super::state::{Caller, NEVER, State};
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
    /// Acknowledged syncs that a power loss would take.
    lost: u64,
    /// Digest of the state without how much is pending.
    shape: u64,
}

impl Node {
    fn state(&self) -> State {
        let mut state = State::clone(&self.state);
        state.since = self.since;
        state
    }
}

/// What must not be exceeded, and by which node it first was.
pub struct Limit {
    /// For each vector of parameters.
    pub syncs: Vec<u64>,
    /// The first node beyond it.
    pub broken: Option<NodeId>,
}

impl Limit {
    fn exceeded(&self, lost: u64, acknowledged: Option<u16>) -> bool {
        let most = acknowledged.and_then(|params| self.syncs.get(usize::from(params)));
        most.is_some_and(|most| lost > *most)
    }
}

/// What was found.
pub struct Explored {
    /// Every state, in the order it was reached.
    pub nodes: Vec<Node>,
    /// Steps between them.
    pub steps: u64,
    /// Most acknowledged syncs that a power loss takes.
    pub lost: Most,
    /// The same, right after the acknowledgement of a call that saw these parameters.
    pub by_params: Vec<Most>,
    /// The same, with the call that is in progress.
    pub with_progress: Most,
    /// The first state whose acknowledged syncs may stay unsynced for ever.
    pub tail: Option<NodeId>,
    /// The first state that can lose the most, or from which the loss has no end.
    pub worst: NodeId,
    worst_lost: u64,
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
/// `derived`: for each vector of parameters, a worst case that cannot be exceeded.
#[must_use]
pub fn explore(
    stepper: &mut Stepper<'_>,
    compared: u64,
    limits: Vec<Limit>,
    derived: &[Most],
) -> Explored {
    let params = limits.first().map_or(1, |l| l.syncs.len()).max(1);
    let highest = limits.iter().flat_map(|l| &l.syncs).filter(|l| **l < 1 << 20).max();
    let thresholds = compared.max(highest.copied().unwrap_or(0));
    let found = Explored {
        nodes: Vec::new(),
        steps: 0,
        lost: Most::Count(0),
        by_params: vec![Most::Count(0); params],
        with_progress: Most::Count(0),
        tail: None,
        worst: 0,
        worst_lost: 0,
        most: compared + 2,
        shortened: false,
        faults: Faults::default(),
        limits,
        too_large: false,
    };
    let mut explorer =
        Explorer { found, seen: FxHashMap::default(), thresholds, ceiling: u64::MAX };
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
        let enough = long && explorer.found.by_params == derived;
        if enough || states > MAX_STATES || runs > MAX_RUNS {
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
}

impl Explorer {
    fn enter(&mut self, next: Next, parent: NodeId) {
        let Next { mut state, acknowledged, .. } = next;
        self.found.shortened |= state.silent.len() as u64 > self.found.most;
        let moved = settle(&mut state, self.found.most) > 0;
        let (lost, open) = (state.lost(), state.in_progress());
        let breaks = self.count(lost, lost + open, acknowledged);
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
        let idle = key.caller == Caller::Idle;
        if self.found.tail.is_none() && lost > 0 && idle && key.log.leaves_tail() {
            self.found.tail = Some(id);
        }
        let shape = shape(&key, since != NEVER);
        self.found.nodes.push(Node { state: key, since, parent, moved, acknowledged, lost, shape });
        if breaks {
            for limit in &mut self.found.limits {
                if limit.exceeded(lost, acknowledged) {
                    limit.broken.get_or_insert(id);
                }
            }
        }
        // A loss without end exceeds every number before it. The first state with a number need not
        // lie on a path that repeats, but then one does that loses nearly as many.
        if self.found.worst_lost < lost {
            (self.found.worst_lost, self.found.worst) = (lost, id);
            self.repeats(id, usize::MAX);
        } else if acknowledged.is_some() {
            self.repeats(id, SHORT);
        }
    }

    /// Counts what can be lost. Answers whether a limit is broken for the first time.
    fn count(&mut self, lost: u64, with_progress: u64, acknowledged: Option<u16>) -> bool {
        let found = &mut self.found;
        found.lost = found.lost.max(Most::Count(lost));
        found.with_progress = found.with_progress.max(Most::Count(with_progress));
        if let Some(params) = acknowledged
            && let Some(most) = found.by_params.get_mut(usize::from(params))
        {
            *most = (*most).max(Most::Count(lost));
        }
        found.limits.iter().any(|l| l.broken.is_none() && l.exceeded(lost, acknowledged))
    }

    /// Looks for an earlier state on the path that differs only in how much is pending, beyond all
    /// thresholds: what led from there to here leads on for ever.
    fn repeats(&mut self, id: NodeId, steps: usize) {
        let Some(node) = self.found.nodes.get(id as usize) else { return };
        let calls = node.state.log.calls();
        if calls < self.thresholds + 2 || calls >= self.ceiling || node.state.caller != Caller::Idle
        {
            return;
        }
        let mut acknowledged = vec![node.acknowledged];
        let (mut at, mut moved) = (node.parent, node.moved);
        for _ in 0..steps {
            let Some(earlier) = self.found.nodes.get(at as usize).filter(|_| !moved) else {
                return;
            };
            if earlier.state.log.calls() <= self.thresholds {
                return;
            }
            if earlier.lost < node.lost && earlier.shape == node.shape {
                return self.has_no_end(id, calls, acknowledged);
            }
            acknowledged.push(earlier.acknowledged);
            (at, moved) = (earlier.parent, earlier.moved);
        }
    }

    /// The loss has no end: what led to a state with so many calls can be repeated, with
    /// acknowledgements under these parameters.
    fn has_no_end(&mut self, id: NodeId, calls: u64, acknowledged: Vec<Option<u16>>) {
        self.ceiling = calls;
        self.found.lost = Most::Unbounded;
        self.found.with_progress = Most::Unbounded;
        self.found.worst = id;
        for params in acknowledged.into_iter().flatten() {
            if let Some(most) = self.found.by_params.get_mut(usize::from(params)) {
                *most = Most::Unbounded;
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

/// A digest of an idle state without how much is pending.
fn shape(state: &State, startable: bool) -> u64 {
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
    )
        .hash(&mut hasher);
    (state.caller == Caller::Idle, log.is_startable()).hash(&mut hasher);
    hasher.finish()
}

impl Explored {
    /// Acknowledged syncs that a power loss takes in a state.
    #[must_use]
    pub fn lost_at(&self, id: NodeId) -> u64 {
        self.nodes.get(id as usize).map_or(0, |node| node.lost)
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
                if next.acknowledged == to.acknowledged && next.state == to.state() {
                    durable += moved;
                    path.push((before, next.events));
                    break;
                }
            }
        }
        path
    }
}
