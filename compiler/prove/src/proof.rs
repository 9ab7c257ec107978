//! What is proved of a policy: the exact worst case, and whether each guarantee holds.

mod guarantees;
mod samples;

use crate::cells::{self, Cells, Source, Why};
use crate::dates::Dates;
use crate::explore::{
    Cuts, Derived, Explored, FIRST_STATES, Jumps, Limit, Most, NodeId, Unit, Worst, explore,
    explore_uncut,
};
use crate::live::{self, Keep};
use crate::machine::{Backend, Machine, MachineError, reads};
use crate::programs::Programs;
use crate::relate;
use crate::replies;
use crate::ring;
use crate::state::MAX_STATES;
use crate::step::{Faults, Glue, Stepper, Work};
use crate::timeline::{self, Ending};
use crate::upper::Upper;
use crate::watch::Watch;
use durac_abi::{Callers, Object, Reading};
use durac_core::Counted;
use durac_core::hir::{Bound, Failure, Policy};
use durac_core::unit::show;
use durac_engine::Rules;
use guarantees::{age, broken, keeps_age, limits};
use samples::{Samples, samples};

/// How long what is lost can have been acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Nothing is lost.
    Nothing,
    /// At most this long, nanoseconds, if every sync takes no longer than is assumed.
    Within(u64),
    /// A sync of it is started within this time, nanoseconds; a sync under way and that one take as long
    /// as they take.
    PlusSyncs(u64),
    /// If the application is idle, for ever.
    Forever,
}

impl Age {
    /// As a table shows it.
    #[must_use]
    pub fn text(self) -> String {
        let time = |time| show(time, durac_core::unit::Unit::Duration);
        match self {
            Age::Nothing => "0".to_owned(),
            Age::Within(most) => time(most),
            Age::PlusSyncs(start) => format!("{} plus two syncs", time(start)),
            Age::Forever => "unbounded".to_owned(),
        }
    }

    /// To compare one with another: the syncs, of unknown length, are left out.
    #[must_use]
    pub fn most(self) -> Most {
        match self {
            Age::Nothing => Most::Count(0),
            Age::Within(most) | Age::PlusSyncs(most) => Most::Count(most),
            Age::Forever => Most::Unbounded,
        }
    }
}

/// How a bound was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Every state was explored, for every value of the parameters.
    Explored,
    /// Every state was explored for some values, and what was derived for all agrees there.
    ExploredAndDerived,
    /// Derived from the policy's text; the bound may be above the worst case.
    Derived,
}

/// A guarantee that does not hold, or was not proved.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Its position in the policy.
    pub guarantee: usize,
    /// What breaks it, drawn; none if it only could not be proved.
    pub timeline: Option<String>,
    /// What the drawn run loses, in the unit of the guarantee; none for a bound on the age.
    pub run: Option<u64>,
    /// No shorter run breaks it.
    pub shortest: bool,
    /// What can be lost at worst, in the unit of the guarantee.
    pub lost: Most,
    /// That unit.
    pub unit: Unit,
}

/// What is proved of a policy.
#[derive(Clone, Debug)]
pub struct Proof {
    /// States that were explored.
    pub states: usize,
    /// Steps between them.
    pub steps: u64,
    /// How the bounds were found.
    pub method: Method,
    /// Why not everything was explored.
    pub obstacle: Option<Obstacle>,
    /// Everything was explored, for every value of the parameters.
    pub complete: bool,
    /// No smaller bound holds: as much was reached, and nothing was allowed that the world does not allow.
    pub exact: bool,
    /// Most acknowledged syncs that a power loss takes, whatever the parameters.
    pub syncs: Most,
    /// The same with the default parameters.
    pub syncs_by_default: Most,
    /// The same, with the call in progress.
    pub with_progress: Most,
    /// The same at default parameters.
    pub with_progress_by_default: Most,
    /// Most bytes that a power loss takes, whatever the parameters.
    pub bytes: Most,
    /// The same at default parameters.
    pub bytes_by_default: Most,
    /// Most updates that a power loss takes, whatever the parameters.
    pub updates: Most,
    /// The same at default parameters.
    pub updates_by_default: Most,
    /// How old what is lost can be.
    pub age: Age,
    /// What a crash of the process takes.
    pub process: ProcessCrash,
    /// Every reply is held until what was written before it is durable: of what a client has seen, no
    /// crash takes anything.
    pub holds_replies: bool,
    /// Replies that are clean are not held: that they are is the runtime's word.
    pub lets_clean_go: bool,
    /// What is sent to replicas is not held: they can be ahead of the disk.
    pub frees_replicas: bool,
    /// What must never happen, and does not.
    pub faults: Faults,
    /// Guarantees that do not hold.
    pub broken: Vec<Broken>,
    /// The worst case, drawn; none if nothing is lost.
    pub worst: Option<String>,
    /// A tail that stays for ever, drawn.
    pub tail: Option<String>,
}

/// What a crash of the process takes: what is staged.
#[derive(Clone, Debug)]
pub struct ProcessCrash {
    /// Most acknowledged syncs, whatever the parameters.
    pub syncs: Most,
    /// The same with the default parameters.
    pub syncs_by_default: Most,
    /// Most writes.
    pub writes: Most,
    /// How old what is lost can be.
    pub age: Age,
    /// The worst case, drawn; none if nothing is lost.
    pub worst: Option<String>,
    /// A write that stays staged for ever, drawn.
    pub tail: Option<String>,
}

impl ProcessCrash {
    /// Whether it takes nothing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.age == Age::Nothing
    }
}

/// Why not everything could be explored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// More states than [`Proof::states`].
    TooManyStates,
    /// So many runs of programs and ends of syncs were too many, or too much was read in them.
    TooManyRuns(u64),
    /// The exploration was ended by who watches it, after [`Proof::states`].
    Stopped,
    /// More combinations of readings and parameters than can be followed.
    TooManyChoices,
    /// A value is used here in a way that cannot be followed.
    NotFollowed(durac_grammar::Span, Why),
    /// The parameters' range is too large to try every value.
    WideRange,
    /// Calls of the target may overlap, and only one caller was followed.
    Callers,
}

/// How an object is explored.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Who may end it.
    pub watch: Option<&'a dyn Watch>,
    /// States that are too many.
    pub states: usize,
    /// States after which the worst case is looked for, if it is known what it cannot exceed.
    pub first: usize,
    /// What stands between the disk and the engine.
    pub glue: Glue,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { watch: None, first: FIRST_STATES, states: MAX_STATES, glue: Glue::RIGHT }
    }
}

/// Explores the object of a policy and holds its guarantees against what was found, and against
/// what was derived from its text.
///
/// # Errors
/// When rbpf cannot run the object.
pub fn prove(
    policy: &Policy,
    object: &Object,
    options: &Options<'_>,
) -> Result<Proof, MachineError> {
    let mut proof = of_the_log(policy, object, options)?;
    let held = replies::held(object);
    proof.holds_replies = held.replies;
    proof.lets_clean_go = held.lets_clean_go;
    proof.frees_replicas = object.meta.frees_replicas;
    // What a replica is sent early, its clients see.
    if proof.holds_replies && !proof.frees_replicas {
        let to_clients = |index: usize| policy.guarantees.get(index).is_some_and(|g| g.to_clients);
        proof.broken.retain(|broken| !to_clients(broken.guarantee));
    }
    Ok(proof)
}

/// The same, without what clients see.
fn of_the_log(
    policy: &Policy,
    object: &Object,
    options: &Options<'_>,
) -> Result<Proof, MachineError> {
    let mut machine = Machine::new(object, Backend::Interpreter)?;
    if object.counts_own_syncs() {
        return in_the_ring(policy, object, &mut machine, options);
    }
    let upper = Upper::new(policy);
    let mut explored =
        |samples| in_the_agent(policy, object, &mut machine, samples, options, &upper);
    let first = explored(samples(policy, false))?;
    // What was derived holds for every value; where it does not agree, every value is tried.
    let all = samples(policy, true);
    if first.method == Method::Derived && first.obstacle == Some(Obstacle::WideRange) && all.whole {
        return explored(all);
    }
    Ok(first)
}

/// The shortest run of a policy, at its default parameters, that loses more than so many in this unit;
/// none if there is none among the states that can be explored.
///
/// # Errors
/// When rbpf cannot run the object.
pub fn timeline_beyond(
    policy: &Policy,
    object: &Object,
    unit: Unit,
    most: u64,
) -> Result<Option<String>, MachineError> {
    let mut machine = Machine::new(object, Backend::Interpreter)?;
    let vectors = vec![policy.params.iter().map(|p| p.default).collect::<Vec<u64>>()];
    let cells = cells::cells(policy, &vectors);
    let (reads, rules) = (reads(object), rules(object));
    let Some(programs) =
        Programs::new(&mut machine, reads, &vectors, &cells, Dates::of(policy, &cells))
    else {
        return Ok(None);
    };
    let mut stepper = Stepper::new(programs, rules, Glue::RIGHT).watched(is_watched(object));
    let limits = || vec![Limit::new(unit, vec![most])];
    let found = explore(&mut stepper, cuts(policy, &cells, &vectors), limits, &Derived::default());
    let broken = found.limits.first().and_then(|limit| Some((limit.broken?, limit.endless)));
    Ok(broken.and_then(|(id, endless)| draw(&found, &mut stepper, id, unit, endless)))
}

/// Draws the path to a state, with a crash at its end that takes what is counted in this unit;
/// `repeats` if it can be walked again and again.
fn draw(
    found: &Explored,
    stepper: &mut Stepper<'_>,
    id: NodeId,
    unit: Unit,
    repeats: bool,
) -> Option<String> {
    let taken = found.taken_at(id);
    let ending = match (unit, repeats) {
        (Unit::Syncs, false) => Ending::PowerLoss(taken.syncs),
        (Unit::Syncs, true) => Ending::Repeats(taken.syncs),
        (Unit::StagedSyncs, _) => Ending::ProcessCrash(taken.staged_syncs, repeats),
        (Unit::StagedWrites, _) => Ending::LostWrites(taken.staged_writes, repeats),
        (Unit::Bytes, _) => Ending::Amount(taken.amounts.bytes, "byte"),
        (Unit::Updates, _) => Ending::Amount(taken.amounts.updates, "update"),
    };
    found.path(stepper, id).map(|path| timeline::draw(&path, ending))
}

/// Whether syncs can happen that the program has not asked for: the kernel shows other processes' syncs, and
/// for held replies the engine syncs what the application never asked to be synced.
fn is_watched(object: &Object) -> bool {
    !object.kernel.is_empty() || rules(object).holds_replies
}

/// The engine's rules for an object.
#[must_use]
pub fn rules(object: &Object) -> Rules {
    Rules::from(&object.meta)
}

/// Explores a policy whose syncs the engine makes.
fn in_the_agent(
    policy: &Policy,
    object: &Object,
    machine: &mut Machine,
    samples: Samples,
    options: &Options<'_>,
    upper: &Upper<'_>,
) -> Result<Proof, MachineError> {
    let cells = cells::cells(policy, &samples.vectors);
    let (reads, rules) = (reads(object), rules(object));
    let vectors = &samples.vectors;
    let Some(programs) = Programs::new(machine, reads, vectors, &cells, Dates::of(policy, &cells))
    else {
        return Ok(only_derived(policy, upper, Obstacle::TooManyChoices));
    };
    let mut stepper = Stepper::new(programs, rules, options.glue).watched(is_watched(object));
    (stepper.watch, stepper.first) = (options.watch, options.first);
    let most = upper.derived(vectors);
    // What the walk could still show then is a smaller bound, or that this one is exact.
    let is_proved = || only_derived(policy, upper, Obstacle::TooManyStates).broken.is_empty();
    let is_proved = most.is_bounded() && !policy.guarantees.is_empty() && is_proved();
    stepper.most = if is_proved { Work::PROVED } else { Work::MOST };
    stepper.most_states = options.states.min(stepper.most.states);
    let limits = || limits(policy, vectors);
    let cuts = cuts(policy, &cells, vectors);
    let mut found = explore(&mut stepper, cuts.clone(), limits, &most);
    let is_cut = (found.is_cut() || found.too_large) && !found.enough;
    if !cells.open.is_empty() && is_cut && !found.stopped && stepper.programs.broken.is_none() {
        // What was left out may make a difference.
        found = explore_uncut(&mut stepper, &cuts, limits(), &most);
    }
    if let Some(error) = stepper.programs.broken.take() {
        return Err(error);
    }
    Ok(conclude(policy, upper, &samples, &cells, &mut stepper, &found))
}

/// Explores a policy whose programs start syncs and wait for them.
fn in_the_ring(
    policy: &Policy,
    object: &Object,
    machine: &mut Machine,
    options: &Options<'_>,
) -> Result<Proof, MachineError> {
    let derived = &policy.loss;
    let upper = &Upper::of_text(policy);
    let samples = samples(policy, true);
    let vectors = &samples.vectors;
    let cells = cells::cells(policy, vectors);
    if let Some(&(span, why)) = cells.inexact.first() {
        return Ok(only_derived(policy, upper, Obstacle::NotFollowed(span, why)));
    }
    if !cells.of.is_empty() {
        return Ok(only_derived(policy, upper, Obstacle::TooManyChoices));
    }
    let mut limits = limits(policy, vectors);
    // No program reads there how much is pending: what is not durable has any size.
    for limit in limits.iter_mut().filter(|l| matches!(l.unit, Unit::Bytes | Unit::Updates)) {
        *limit = Limit::new(Unit::Syncs, vec![0; vectors.len()]);
    }
    let bounded = upper.derived(vectors).syncs.iter().all(|most| most.count().is_some());
    let Some(found) = ring::explore(machine, object, vectors, limits, bounded, options)? else {
        return Ok(only_derived(policy, upper, Obstacle::TooManyStates));
    };
    let agrees = found.syncs.by_params == upper.derived(vectors).syncs;
    let one = policy.target.callers == Callers::One;
    let obstacle = match (found.too_large, samples.whole || agrees) {
        (true, _) => Some(Obstacle::TooManyStates),
        (false, false) => Some(Obstacle::WideRange),
        (false, true) if !one && !agrees => Some(Obstacle::Callers),
        (false, true) => None,
    };
    let method = match (&obstacle, samples.whole && one) {
        (None, true) => Method::Explored,
        (None, false) => Method::ExploredAndDerived,
        (Some(_), _) => Method::Derived,
    };
    let mut proof = only_derived(policy, upper, Obstacle::WideRange);
    let (most, by_default) = (found.syncs.most, by_default(&found.syncs));
    let and_one = |most| match most {
        Most::Count(n) => Most::Count(n.saturating_add(1)),
        Most::Unbounded => Most::Unbounded,
    };
    if method != Method::Derived {
        (proof.syncs, proof.syncs_by_default) = (most, by_default);
        (proof.with_progress, proof.with_progress_by_default) =
            (and_one(most), and_one(by_default));
        let tail =
            found.tail.is_some() || !samples.whole && derived.leaves_tail(&policy.params).is_some();
        proof.age = age(policy, most == Most::Count(0), tail);
    }
    proof.complete = method == Method::Explored;
    proof.syncs = proof.syncs.max(most);
    proof.syncs_by_default = proof.syncs_by_default.max(by_default);
    proof.exact = proof.syncs == most && proof.syncs_by_default == by_default;
    proof.with_progress = proof.with_progress.max(proof.syncs);
    proof.with_progress_by_default = proof.with_progress_by_default.max(proof.syncs_by_default);
    (proof.method, proof.obstacle) = (method, obstacle);
    (proof.states, proof.steps, proof.faults) = (found.nodes.len(), found.steps, found.faults);
    let lost = |id: NodeId| found.lost_at(id);
    let power = |id: NodeId| timeline::draw(&found.path(id), Ending::PowerLoss(lost(id)));
    proof.worst = (found.syncs.at != 0).then(|| match most {
        Most::Unbounded => {
            let id = found.syncs.at;
            timeline::draw(&found.path(id), Ending::Repeats(lost(id)))
        }
        Most::Count(_) => power(found.syncs.at),
    });
    proof.tail = found.tail.map(|id| timeline::draw(&found.path(id), Ending::Idle(lost(id))));
    proof.broken.clear();
    for (index, guarantee) in policy.guarantees.iter().enumerate() {
        let reached = found.limits.get(index).and_then(|limit| limit.broken);
        let age = if guarantee.failure == Failure::PowerLoss { proof.age } else { Age::Nothing };
        let timeline = match &guarantee.bound {
            Bound::Age(expr) if keeps_age(policy, age, expr) => continue,
            Bound::Age(_) => found.tail.or(Some(found.syncs.at)).map(power),
            _ if reached.is_some() => {
                let endless = found.limits.get(index).is_some_and(|limit| limit.endless);
                reached.map(|id| match endless {
                    true => timeline::draw(&found.path(id), Ending::Repeats(lost(id))),
                    false => power(id),
                })
            }
            _ if method == Method::Explored || upper.keeps(guarantee) => continue,
            _ => None,
        };
        let run = reached.map(lost);
        proof.broken.push(Broken {
            guarantee: index,
            timeline,
            run,
            shortest: true,
            lost: most,
            unit: Unit::Syncs,
        });
    }
    Ok(proof)
}

/// What a walk may leave out.
fn cuts(policy: &Policy, cells: &Cells, vectors: &[Vec<u64>]) -> Cuts {
    let keeps = live::keeps(policy, vectors);
    let is_kept = |index: &usize| keeps.get(*index) != Some(&Keep::Nothing);
    let counts = cells.counts.iter().map(|id| id.index()).filter(is_kept).collect();
    // Few bytes exclude many calls, so a choice of them may end while calls are repeated.
    let is_free = |source: &Source| match source {
        Source::Kept(_) => true,
        Source::Reading(reading) => {
            use Reading::{CallLen, ChildActive, NotifyCount, Now, PendingAge, SyncLatency};
            matches!(reading, CallLen | ChildActive | NotifyCount | Now | PendingAge | SyncLatency)
        }
    };
    let is_told = cells.open.is_empty() && cells.of.keys().all(is_free);
    let pending = is_told.then(|| cells.pending.clone());
    let counters = live::counters(policy, vectors);
    let jumps = Jumps { pending, counters, weights: relate::weights(policy) };
    Cuts { compared: cells.compared(), counts, keeps, jumps }
}

fn conclude(
    policy: &Policy,
    upper: &Upper<'_>,
    samples: &Samples,
    cells: &Cells,
    stepper: &mut Stepper<'_>,
    found: &Explored,
) -> Proof {
    let agrees = found.agrees(&upper.derived(&samples.vectors));
    let obstacle = if let Some(&(span, why)) = cells.inexact.first() {
        Some(Obstacle::NotFollowed(span, why))
    } else if let Some(&span) = cells.open.first()
        && (found.is_cut() || found.too_large)
        && !found.enough
    {
        Some(Obstacle::NotFollowed(span, Why::EngineNumber))
    } else if found.stopped {
        Some(found.given_up.map_or(Obstacle::Stopped, Obstacle::TooManyRuns))
    } else if found.too_large {
        Some(Obstacle::TooManyStates)
    } else if !samples.whole && !agrees {
        Some(Obstacle::WideRange)
    } else if policy.target.callers == Callers::Many && !agrees {
        Some(Obstacle::Callers)
    } else {
        None
    };
    let one = policy.target.callers == Callers::One;
    let all = samples.whole && one && !found.enough;
    let method = match (&obstacle, all) {
        (None, true) => Method::Explored,
        (None, false) => Method::ExploredAndDerived,
        // Reached by exploring and not exceeded by what was derived: exact all the same.
        (
            Some(
                Obstacle::TooManyStates
                | Obstacle::TooManyRuns(_)
                | Obstacle::Stopped
                | Obstacle::NotFollowed(..),
            ),
            _,
        ) if agrees => Method::ExploredAndDerived,
        (Some(_), _) => Method::Derived,
    };
    // Reached is a lower bound. It is an upper bound only where everything was followed, for every value
    // of the parameters; otherwise the derivation is.
    let complete = obstacle.is_none() && all;
    let mut proof = only_derived(policy, upper, Obstacle::WideRange);
    if complete {
        let lost = by_default(&found.syncs);
        let open = match (found.with_progress, found.syncs.most) {
            (Most::Count(with), Most::Count(without)) => with - without,
            _ => 0,
        };
        proof.syncs = found.syncs.most;
        proof.syncs_by_default = lost;
        proof.with_progress = found.with_progress;
        proof.with_progress_by_default = match lost {
            Most::Count(n) => Most::Count(n.saturating_add(open)),
            Most::Unbounded => Most::Unbounded,
        };
        proof.age = age(policy, found.syncs.most == Most::Count(0), found.tail.is_some());
        proof.process = process(policy, found);
        (proof.bytes, proof.bytes_by_default) = (found.bytes.most, by_default(&found.bytes));
        (proof.updates, proof.updates_by_default) =
            (found.updates.most, by_default(&found.updates));
    } else if found.tail.is_some() {
        proof.age = age(policy, proof.syncs == Most::Count(0), true);
    }
    // Nothing that was found is denied, whatever was derived.
    proof.syncs = proof.syncs.max(found.syncs.most);
    proof.syncs_by_default = proof.syncs_by_default.max(by_default(&found.syncs));
    proof.with_progress = proof.with_progress.max(found.with_progress);
    proof.with_progress_by_default = proof.with_progress_by_default.max(proof.syncs_by_default);
    // What a program reads stands for a cell: what was found may be more than can be lost, never less.
    proof.bytes = proof.bytes.max(found.bytes.most);
    proof.bytes_by_default = proof.bytes_by_default.max(by_default(&found.bytes));
    proof.updates = proof.updates.max(found.updates.most);
    proof.updates_by_default = proof.updates_by_default.max(by_default(&found.updates));
    proof.process.syncs = proof.process.syncs.max(found.staged_syncs.most);
    proof.process.syncs_by_default =
        proof.process.syncs_by_default.max(by_default(&found.staged_syncs));
    proof.process.writes = proof.process.writes.max(found.staged_writes.most);
    proof.complete = complete;
    proof.exact = !cells.over
        && found.syncs.most == proof.syncs
        && by_default(&found.syncs) == proof.syncs_by_default
        && found.staged_syncs.most == proof.process.syncs;
    proof.method = method;
    proof.obstacle = obstacle;
    proof.states = found.nodes.len();
    proof.steps = found.steps;
    proof.faults = found.faults;
    let mut drawn = |worst: &Worst, unit| {
        let repeats = worst.most == Most::Unbounded;
        (worst.at != 0).then(|| draw(found, stepper, worst.at, unit, repeats)).flatten()
    };
    proof.worst = drawn(&found.syncs, Unit::Syncs);
    proof.process.worst = match found.staged_syncs.at {
        0 => drawn(&found.staged_writes, Unit::StagedWrites),
        _ => drawn(&found.staged_syncs, Unit::StagedSyncs),
    };
    let mut idle = |tail: Option<NodeId>, ending: Ending| {
        let tail = tail.filter(|_| policy.flush_within.is_none());
        let path = tail.and_then(|id| found.path(stepper, id));
        path.map(|path| timeline::draw(&path, ending))
    };
    let taken = |tail: Option<NodeId>| found.taken_at(tail.unwrap_or(0));
    proof.tail = idle(found.tail, Ending::Idle(taken(found.tail).syncs));
    proof.process.tail =
        idle(found.staged_tail, Ending::IdleStaged(taken(found.staged_tail).staged_writes));
    proof.broken = broken(policy, upper, &proof, stepper, found);
    proof
}

/// The worst case at the default parameters, which are the first.
fn by_default(worst: &Worst) -> Most {
    worst.by_params.first().copied().unwrap_or(worst.most)
}

/// What a crash of the process takes, when everything was explored.
fn process(policy: &Policy, found: &Explored) -> ProcessCrash {
    let writes = found.staged_writes.most;
    let nothing = writes == Most::Count(0);
    ProcessCrash {
        syncs: found.staged_syncs.most,
        syncs_by_default: by_default(&found.staged_syncs),
        writes,
        age: age(policy, nothing, found.staged_tail.is_some()),
        worst: None,
        tail: None,
    }
}

/// What the derivation alone says.
fn only_derived(policy: &Policy, upper: &Upper<'_>, obstacle: Obstacle) -> Proof {
    let derived = &policy.loss;
    let syncs = upper.syncs();
    let (by_default, staged_by_default) = upper.by_default();
    let and_one = |most: Most| match most {
        Most::Count(n) => Most::Count(n.saturating_add(1)),
        Most::Unbounded => Most::Unbounded,
    };
    let defaults: Vec<u64> = policy.params.iter().map(|p| p.default).collect();
    let most = |of: Option<u64>| of.map_or(Most::Unbounded, Most::Count);
    let of_default = |of| most(derived.most_of(of, &policy.params, &defaults));
    let mut proof = Proof {
        states: 0,
        steps: 0,
        method: Method::Derived,
        obstacle: Some(obstacle),
        complete: false,
        exact: false,
        syncs,
        syncs_by_default: by_default,
        with_progress: and_one(syncs),
        with_progress_by_default: and_one(by_default),
        bytes: most(derived.greatest_of(Counted::Bytes, &policy.params)),
        bytes_by_default: of_default(Counted::Bytes),
        updates: most(derived.greatest_of(Counted::Updates, &policy.params)),
        updates_by_default: of_default(Counted::Updates),
        age: age(policy, syncs == Most::Count(0), derived.leaves_tail(&policy.params).is_some()),
        process: ProcessCrash {
            syncs: upper.staged_syncs(),
            syncs_by_default: staged_by_default,
            writes: derived.stages.map_or(Most::Count(0), |_| Most::Unbounded),
            age: age(policy, derived.stages.is_none(), true),
            worst: None,
            tail: None,
        },
        holds_replies: false,
        lets_clean_go: false,
        frees_replicas: false,
        faults: Faults::default(),
        broken: Vec::new(),
        worst: None,
        tail: None,
    };
    for (guarantee, promised) in policy.guarantees.iter().enumerate() {
        let age = match promised.failure {
            Failure::PowerLoss => proof.age,
            Failure::ProcessCrash => proof.process.age,
        };
        let kept = match &promised.bound {
            Bound::Age(expr) => keeps_age(policy, age, expr),
            _ => upper.keeps(promised),
        };
        if !kept {
            let (unit, lost) = match (promised.failure, &promised.bound) {
                (Failure::PowerLoss, Bound::Bytes(_)) => (Unit::Bytes, proof.bytes),
                (Failure::PowerLoss, Bound::Updates(_)) => (Unit::Updates, proof.updates),
                _ => (Unit::Syncs, syncs),
            };
            let broken =
                Broken { guarantee, timeline: None, run: None, shortest: true, lost, unit };
            proof.broken.push(broken);
        }
    }
    proof
}
