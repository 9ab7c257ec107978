//! A walk that looks for the worst case first, and makes long runs of calls that do the same in one step.
//!
//! It finds runs, so what it finds is reached; it follows a few states, so it never says that there is
//! no more. `docs/proof.md` has the argument why what is repeated can be.

use super::{Derived, Explorer, NodeId, SHORT};
use crate::live::Counter;
use crate::state::{Caller, NEVER, State};
use crate::step::{Next, Stepper};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::Range;

/// States after which it gives up.
const MAX_STATES: usize = 4_000;
/// The same in runs of programs.
const MAX_RUNS: u64 = 100_000;
/// How far within a call `pending` can be from what it is between calls.
const OPEN: u64 = 2;

/// What has to stay the same while calls are repeated.
#[derive(Clone, Debug, Default)]
pub struct Jumps {
    /// Every number that `pending`, `staged` or the distance of a wait is compared with; none if not all
    /// are known.
    pub pending: Option<BTreeSet<u64>>,
    /// The state variables that may rise meanwhile.
    pub counters: Vec<Option<Counter>>,
    /// How many calls one step of each state variable counts.
    pub weights: Vec<i128>,
}

impl Jumps {
    /// How often a path can be repeated on which the variables were between these and have risen by so much.
    fn counted(&self, vars: &[(u64, u64)], rises: &[u64]) -> u64 {
        let each = vars.iter().zip(rises).zip(&self.counters).filter(|((_, rise), _)| **rise > 0);
        let times = each.map(|(((least, most), rise), counter)| {
            let course = Course { least: *least, most: *most, rise: *rise };
            counter.as_ref().map_or(0, |counter| course.repeats(&counter.marks, counter.rise))
        });
        times.min().unwrap_or(u64::MAX)
    }
}

/// How far a number was on a path, and what it rises by.
#[derive(Clone, Copy, Debug)]
struct Course {
    least: u64,
    most: u64,
    rise: u64,
}

impl Course {
    /// How often the path can be repeated before the number comes to one of these, or is within `slack`
    /// of it; none if it is among them already.
    fn repeats(self, marks: &BTreeSet<u64>, slack: u64) -> u64 {
        let from = self.least.saturating_sub(slack);
        match marks.range(from..).next() {
            None => u64::MAX,
            Some(mark) => {
                let room = mark.saturating_sub(self.most.saturating_add(slack).saturating_add(1));
                room.checked_div(self.rise).unwrap_or(u64::MAX)
            }
        }
    }
}

/// States to go on from: in turn the one where the most is lost, and the one where the most is lost for what
/// was counted. Of equals the first.
#[derive(Default)]
struct Open {
    worst: BinaryHeap<(u64, Reverse<NodeId>)>,
    early: BinaryHeap<(i128, Reverse<NodeId>)>,
    done: FxHashSet<NodeId>,
    turn: bool,
}

impl Open {
    fn next(&mut self) -> Option<NodeId> {
        loop {
            self.turn = !self.turn;
            let Reverse(id) = match self.turn {
                true => self.worst.pop()?.1,
                false => self.early.pop()?.1,
            };
            if self.done.insert(id) {
                return Some(id);
            }
        }
    }
}

impl Explorer {
    /// Goes from the first state to where the most is lost, until as much is as was derived. Answers where its
    /// states are.
    pub(super) fn reach(
        &mut self,
        stepper: &mut Stepper<'_>,
        derived: &Derived,
        jumps: &Jumps,
    ) -> Range<usize> {
        let (seen, known) = (stepper.take_seen(), std::mem::take(&mut self.seen));
        stepper.thin = true;
        let begin = self.found.nodes.len();
        let runs = stepper.programs.runs;
        let mut open = Open::default();
        self.enter(Next::first(stepper.first()), 0);
        self.open_since(begin, jumps, &mut open);
        while let Some(id) = open.next() {
            let Some(state) = self.found.nodes.get(id as usize).map(super::Node::state) else {
                break;
            };
            let ended = state.log.error().is_some() && state.caller == Caller::Idle;
            let nexts = if ended { Vec::new() } else { stepper.next(&state) };
            for next in nexts {
                self.found.steps += 1;
                let at = self.found.nodes.len();
                self.enter(next, id);
                if at < self.found.nodes.len()
                    && let Some((next, calls)) = self.repeated(at as NodeId, jumps)
                {
                    let jumped = self.found.nodes.len();
                    self.enter(next, at as NodeId);
                    if let Some(node) = self.found.nodes.get_mut(jumped) {
                        node.repeated = calls;
                    }
                }
                self.open_since(at, jumps, &mut open);
            }
            let states = self.found.nodes.len() - begin;
            let is_long = states > MAX_STATES || stepper.programs.runs - runs > MAX_RUNS;
            if is_long
                || self.found.is_ended(stepper)
                || stepper.programs.broken.is_some()
                || self.found.agrees(derived)
            {
                break;
            }
            stepper.merged = self.found.merged();
        }
        stepper.thin = false;
        stepper.put_seen(seen);
        self.seen = known;
        begin..self.found.nodes.len()
    }

    /// Opens the states that were entered since.
    fn open_since(&self, at: usize, jumps: &Jumps, open: &mut Open) {
        for (id, node) in self.found.nodes.iter().enumerate().skip(at) {
            let worst = node.taken.syncs.saturating_add(node.taken.staged_syncs);
            let counters = jumps.counters.iter().zip(&jumps.weights).zip(node.state.vars.iter());
            let counted = counters.filter(|((counter, _), _)| counter.is_some());
            let counted = counted.fold(0i128, |sum, ((_, weight), var)| {
                sum.saturating_add(weight.saturating_mul(i128::from(*var)))
            });
            let id = Reverse(id as NodeId);
            open.worst.push((worst, id));
            open.early.push((i128::from(worst).saturating_sub(counted), id));
        }
    }

    /// The state in which the last calls on the path to this one have been repeated as often as no number
    /// comes near one that it is compared with, and how many calls that are.
    fn repeated(&self, id: NodeId, jumps: &Jumps) -> Option<(Next, u64)> {
        let marks = jumps.pending.as_ref()?;
        let node = self.found.nodes.get(id as usize)?;
        let state = &node.state;
        let calls = state.log.calls();
        if state.caller != Caller::Idle || !state.is_regular() || calls <= OPEN || node.moved {
            return None;
        }
        let mut vars: Vec<(u64, u64)> = state.vars.iter().map(|var| (*var, *var)).collect();
        let mut at = node.parent;
        for _ in 0..SHORT {
            let earlier = self.found.nodes.get(at as usize)?;
            for ((least, most), var) in vars.iter_mut().zip(earlier.state.vars.iter()) {
                (*least, *most) = ((*least).min(*var), (*most).max(*var));
            }
            let before = earlier.state.log.calls();
            if earlier.moved || before < OPEN {
                return None;
            }
            if let Some(rises) = rises(&earlier.state, earlier.since, state, node.since) {
                let by = calls - before;
                let pending = Course { least: before, most: calls, rise: by };
                let times = jumps.counted(&vars, &rises).min(pending.repeats(marks, OPEN));
                if times == u64::MAX {
                    return None;
                }
                // A counter is too near: it may be set back further up, and then this is repeated with it.
                if times >= 2 {
                    let stages = state.log.staged_writes() - earlier.state.log.staged_writes();
                    let all = times.saturating_mul(stages);
                    let mut state = shifted(state, times * by, all, |index| {
                        times * rises.get(index).copied().unwrap_or(0)
                    });
                    state.since = node.since;
                    return Some((Next::first(state), times * by));
                }
            }
            at = earlier.parent;
        }
        None
    }
}

/// What each variable rises by from one state to the other, if they differ in nothing else but the number of
/// calls that are pending, and of writes that are staged.
fn rises(from: &State, from_since: u64, to: &State, to_since: u64) -> Option<Vec<u64>> {
    let by = to.log.calls().checked_sub(from.log.calls()).filter(|by| *by > 0)?;
    let stages = to.log.staged_writes().checked_sub(from.log.staged_writes())?;
    if from.caller != Caller::Idle || !from.is_regular() || from_since != to_since {
        return None;
    }
    let pairs = from.vars.iter().zip(to.vars.iter());
    let rises = pairs.map(|(a, b)| b.checked_sub(*a)).collect::<Option<Vec<u64>>>()?;
    let alike = shifted(from, by, stages, |index| rises.get(index).copied().unwrap_or(0));
    (State { since: NEVER, ..alike } == State { since: NEVER, ..to.clone() }).then_some(rises)
}

/// The state with so many acknowledged calls and staged writes more, and variables that are greater.
fn shifted(state: &State, calls: u64, stages: u64, rise: impl Fn(usize) -> u64) -> State {
    let mut state = state.clone();
    state.log.add_calls(calls, stages);
    for (index, var) in std::rc::Rc::make_mut(&mut state.vars).iter_mut().enumerate() {
        *var = var.saturating_add(rise(index));
    }
    state
}

/// The map of states of a walk.
pub(super) type Seen = FxHashMap<std::rc::Rc<State>, u64>;
