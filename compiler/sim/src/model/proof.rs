//! What is proved of a policy: the exact worst case, and whether each guarantee holds.

use super::cells::{self, Cells};
use super::explore::{Derived, Explored, Limit, MAX_STATES, Most, NodeId, Unit, Worst, explore};
use super::programs::Programs;
use super::ring;
use super::step::{Faults, Glue, Stepper};
use super::timeline::{self, Ending};
use crate::machine::{Backend, Machine, MachineError, bit, reads};
use durac_bpf::Object;
use durac_bpf::abi::{Reading, Runtime, STAGE_ROOM};
use durac_compiler::hir::{Bound, Expr, Failure, Guarantee, Param, Policy};
use durac_compiler::{Loss, bounds};
use durac_engine::Rules;

/// Vectors of parameters that are tried one by one.
const MAX_SAMPLES: usize = 64;

/// How long what is lost can have been acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Nothing is lost.
    Nothing,
    /// A deadline bounds it, nanoseconds.
    Within(u64),
    /// A sync of it always is under way or starts within [`durac_engine::Pace::PATIENCE_MOST`].
    UntilSynced,
    /// If the application is idle, for ever.
    Forever,
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
    /// Most acknowledged syncs that a power loss takes, whatever the parameters.
    pub syncs: Most,
    /// The same with the default parameters.
    pub syncs_by_default: Most,
    /// The same, with the call in progress.
    pub with_progress: Most,
    /// The same at default parameters.
    pub with_progress_by_default: Most,
    /// How old what is lost can be.
    pub age: Age,
    /// What a crash of the process takes.
    pub process: ProcessCrash,
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
    /// More combinations of readings and parameters than can be followed.
    TooManyChoices,
    /// A reading is used in a way that has no thresholds, here.
    NoThresholds(durac_grammar::Span),
    /// The parameters' range is too large to try every value.
    WideRange,
}

/// Explores the object of a policy.
///
/// # Errors
/// When rbpf cannot run the object.
pub fn prove(policy: &Policy, object: &Object, derived: &Loss) -> Result<Proof, MachineError> {
    prove_with(policy, object, derived, Glue::RIGHT)
}

/// [`prove`], with something else between the disk and the engine.
///
/// # Errors
/// When rbpf cannot run the object.
pub fn prove_with(
    policy: &Policy,
    object: &Object,
    derived: &Loss,
    glue: Glue,
) -> Result<Proof, MachineError> {
    prove_by(policy, object, derived, glue, MAX_STATES)
}

/// [`prove`], with another limit for the states that are explored than [`MAX_STATES`].
///
/// # Errors
/// When rbpf cannot run the object.
pub fn prove_within(
    policy: &Policy,
    object: &Object,
    derived: &Loss,
    states: usize,
) -> Result<Proof, MachineError> {
    prove_by(policy, object, derived, Glue::RIGHT, states)
}

fn prove_by(
    policy: &Policy,
    object: &Object,
    derived: &Loss,
    glue: Glue,
    states: usize,
) -> Result<Proof, MachineError> {
    let mut machine = Machine::new(object, Backend::Interpreter)?;
    if object.meta.runtime == Runtime::Bpftime && !object.kernel.is_empty() {
        return prove_ring(policy, object, derived, &mut machine, states);
    }
    let mut attempt =
        |samples| attempt(policy, object, derived, &mut machine, samples, glue, states);
    let first = attempt(samples(&policy.params, false))?;
    // What was derived holds for every value; where it does not agree, every value is tried.
    let all = samples(&policy.params, true);
    if first.method == Method::Derived && first.obstacle == Some(Obstacle::WideRange) && all.whole {
        return attempt(all);
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
    let Some(programs) = Programs::new(&mut machine, reads, &vectors, &cells) else {
        return Ok(None);
    };
    let mut stepper = Stepper::new(programs, rules, Glue::RIGHT).watched(!object.kernel.is_empty());
    let limits = vec![Limit { unit, most: vec![most], broken: None }];
    let found = explore(&mut stepper, cells.compared(), limits, &Derived::default());
    let broken = found.limits.first().and_then(|limit| limit.broken);
    Ok(broken.map(|id| draw(&found, &mut stepper, id, unit, false)))
}

/// Draws the path to a state, with a crash at its end that takes what is counted in this unit;
/// `repeats` if it can be walked again and again.
fn draw(
    found: &Explored,
    stepper: &mut Stepper<'_>,
    id: NodeId,
    unit: Unit,
    repeats: bool,
) -> String {
    let taken = found.taken_at(id);
    let ending = match (unit, repeats) {
        (Unit::Syncs, false) => Ending::PowerLoss(taken.syncs),
        (Unit::Syncs, true) => Ending::Repeats(taken.syncs),
        (Unit::StagedSyncs, _) => Ending::ProcessCrash(taken.staged_syncs, repeats),
        (Unit::StagedWrites, _) => Ending::LostWrites(taken.staged_writes, repeats),
    };
    timeline::draw(&found.path(stepper, id), ending)
}

/// The engine's rules for an object.
#[must_use]
pub fn rules(object: &Object) -> Rules {
    Rules {
        flush_within: object.meta.flush_within,
        keeps_age: reads(object) & bit(Reading::PendingAge) != 0,
        stages: object.meta.stages(),
    }
}

/// Vectors of parameters to try.
struct Samples {
    vectors: Vec<Vec<u64>>,
    /// They are all there are.
    whole: bool,
}

/// The least, the greatest and the default values, or all of them if they are not too many.
fn samples(params: &[Param], all: bool) -> Samples {
    let count = |p: &Param| (p.max - p.min).saturating_add(1);
    let total = params.iter().fold(1u64, |total, p| total.saturating_mul(count(p)));
    let whole = total <= if all { MAX_SAMPLES as u64 } else { 8 };
    let mut vectors = vec![params.iter().map(|p| p.default).collect::<Vec<u64>>()];
    if whole {
        let mut found = vec![Vec::new()];
        for p in params {
            found = extend(&found, &(p.min..=p.max).collect::<Vec<_>>());
        }
        vectors.extend(found);
    } else {
        let mut found = vec![Vec::new()];
        for p in params {
            let mut values = vec![p.min, p.max, p.default];
            if found.len() * 4 <= MAX_SAMPLES / 4 {
                values.push((p.min + 1).min(p.max));
            }
            values.sort_unstable();
            values.dedup();
            found = extend(&found, &values);
            found.truncate(MAX_SAMPLES);
        }
        vectors.extend(found);
    }
    let mut unique: Vec<Vec<u64>> = Vec::new();
    for vector in vectors {
        if !unique.contains(&vector) {
            unique.push(vector);
        }
    }
    Samples { vectors: unique, whole }
}

fn extend(vectors: &[Vec<u64>], values: &[u64]) -> Vec<Vec<u64>> {
    let with = |vector: &Vec<u64>, value: u64| vector.iter().copied().chain([value]).collect();
    vectors.iter().flat_map(|v| values.iter().map(move |&value| with(v, value))).collect()
}

fn attempt(
    policy: &Policy,
    object: &Object,
    derived: &Loss,
    machine: &mut Machine,
    samples: Samples,
    glue: Glue,
    states: usize,
) -> Result<Proof, MachineError> {
    let cells = cells::cells(policy, &samples.vectors);
    let (reads, rules) = (reads(object), rules(object));
    let vectors = &samples.vectors;
    let Some(programs) = Programs::new(machine, reads, vectors, &cells) else {
        return Ok(only_derived(policy, derived, Obstacle::TooManyChoices));
    };
    let mut stepper = Stepper::new(programs, rules, glue).watched(!object.kernel.is_empty());
    stepper.most_states = states;
    let most = derived_for(derived, vectors);
    let found = explore(&mut stepper, cells.compared(), limits(policy, vectors), &most);
    if let Some(error) = stepper.programs.broken.take() {
        return Err(error);
    }
    Ok(conclude(policy, derived, &samples, &cells, &mut stepper, &found))
}

/// As [`attempt`], of programs that start and wait for syncs themselves.
fn prove_ring(
    policy: &Policy,
    object: &Object,
    derived: &Loss,
    machine: &mut Machine,
    states: usize,
) -> Result<Proof, MachineError> {
    let samples = samples(&policy.params, true);
    let vectors = &samples.vectors;
    let cells = cells::cells(policy, vectors);
    if let Some(&span) = cells.inexact.first() {
        return Ok(only_derived(policy, derived, Obstacle::NoThresholds(span)));
    }
    if !cells.of.is_empty() {
        return Ok(only_derived(policy, derived, Obstacle::TooManyChoices));
    }
    let limits = limits(policy, vectors);
    let Some(found) = ring::explore(machine, object, vectors, limits, states)? else {
        return Ok(only_derived(policy, derived, Obstacle::TooManyStates));
    };
    let agrees = found.syncs.by_params == derived_for(derived, vectors).syncs;
    let obstacle = match (found.too_large, samples.whole || agrees) {
        (true, _) => Some(Obstacle::TooManyStates),
        (false, false) => Some(Obstacle::WideRange),
        (false, true) => None,
    };
    let method = match (&obstacle, samples.whole) {
        (None, true) => Method::Explored,
        (None, false) => Method::ExploredAndDerived,
        (Some(_), _) => Method::Derived,
    };
    let mut proof = only_derived(policy, derived, Obstacle::WideRange);
    let (most, by_default) = (found.syncs.most, by_default(&found.syncs));
    let and_one = |most| match most {
        Most::Count(n) => Most::Count(n + 1),
        Most::Unbounded => Most::Unbounded,
    };
    if method != Method::Derived {
        (proof.syncs, proof.syncs_by_default) = (most, by_default);
        (proof.with_progress, proof.with_progress_by_default) =
            (and_one(most), and_one(by_default));
        proof.age = age(policy, most == Most::Count(0), found.tail.is_some());
    }
    proof.syncs = proof.syncs.max(most);
    proof.with_progress = proof.with_progress.max(proof.syncs);
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
            Bound::Age(_) if age == Age::Nothing || derived.keeps(guarantee, policy) => continue,
            Bound::Age(_) => found.tail.or(Some(found.syncs.at)).map(power),
            _ if reached.is_some() => reached.map(power),
            _ if method == Method::Explored || derived.keeps(guarantee, policy) => continue,
            _ => None,
        };
        proof.broken.push(Broken { guarantee: index, timeline, lost: most, unit: Unit::Syncs });
    }
    Ok(proof)
}

/// What was derived for each vector of parameters.
fn derived_for(derived: &Loss, vectors: &[Vec<u64>]) -> Derived {
    let process = derived.process();
    let of =
        |loss: &Loss| -> Vec<Most> { vectors.iter().map(|v| most(loss.syncs_for(v))).collect() };
    Derived { syncs: of(derived), staged_syncs: of(&process) }
}

fn most(count: Option<u64>) -> Most {
    count.map_or(Most::Unbounded, Most::Count)
}

/// What each guarantee allows, for each vector of parameters.
fn limits(policy: &Policy, vectors: &[Vec<u64>]) -> Vec<Limit> {
    let mut limits: Vec<Limit> =
        policy.guarantees.iter().map(|guarantee| limit(guarantee, vectors)).collect();
    // So that there is always one to say how many vectors there are.
    limits.push(Limit { unit: Unit::Syncs, most: vec![u64::MAX; vectors.len()], broken: None });
    limits
}

fn limit(guarantee: &Guarantee, vectors: &[Vec<u64>]) -> Limit {
    let values = |expr: &Expr| -> Vec<u64> {
        vectors.iter().map(|v| bounds::evaluate(expr, v).unwrap_or(0)).collect()
    };
    let all = |most: u64| vec![most; vectors.len()];
    let (unit, most) = match (guarantee.failure, &guarantee.bound) {
        (Failure::PowerLoss, Bound::Syncs(expr)) => (Unit::Syncs, values(expr)),
        (Failure::PowerLoss, Bound::Nothing | Bound::Writes(_) | Bound::Bytes(_)) => {
            (Unit::Syncs, all(0))
        }
        (Failure::ProcessCrash, Bound::Syncs(expr)) => (Unit::StagedSyncs, values(expr)),
        (Failure::ProcessCrash, Bound::Writes(expr)) => (Unit::StagedWrites, values(expr)),
        (Failure::ProcessCrash, Bound::Nothing) => (Unit::StagedWrites, all(0)),
        // No more than the agent has room for.
        (Failure::ProcessCrash, Bound::Bytes(expr)) => {
            let room = |bytes: u64| if bytes < STAGE_ROOM { 0 } else { u64::MAX };
            (Unit::StagedWrites, values(expr).into_iter().map(room).collect())
        }
        (_, Bound::Age(_)) => (Unit::Syncs, all(u64::MAX)),
    };
    Limit { unit, most, broken: None }
}

fn conclude(
    policy: &Policy,
    derived: &Loss,
    samples: &Samples,
    cells: &Cells,
    stepper: &mut Stepper<'_>,
    found: &Explored,
) -> Proof {
    let agrees = found.agrees(&derived_for(derived, &samples.vectors));
    let obstacle = if found.too_large {
        Some(Obstacle::TooManyStates)
    } else if let Some(&span) = cells.inexact.first() {
        Some(Obstacle::NoThresholds(span))
    } else if let Some(&span) = cells.open.first()
        && (found.syncs.most == Most::Unbounded || found.shortened)
    {
        // True for as far as was looked; a larger number might have changed that.
        Some(Obstacle::NoThresholds(span))
    } else if !samples.whole && !agrees {
        Some(Obstacle::WideRange)
    } else {
        None
    };
    let method = match (&obstacle, samples.whole) {
        (None, true) => Method::Explored,
        (None, false) => Method::ExploredAndDerived,
        // Reached by exploring and not exceeded by what was derived: exact all the same.
        (Some(Obstacle::TooManyStates | Obstacle::NoThresholds(_)), _) if agrees => {
            Method::ExploredAndDerived
        }
        (Some(_), _) => Method::Derived,
    };
    // What was not looked at may leave a tail, if the text allows one.
    let unseen = found.too_large && derived.leaves_tail(&policy.params).is_some();
    let tail = found.tail.is_some() || unseen;
    let mut proof = if method == Method::Derived {
        only_derived(policy, derived, Obstacle::WideRange)
    } else {
        let lost = by_default(&found.syncs);
        let open = match (found.with_progress, found.syncs.most) {
            (Most::Count(with), Most::Count(without)) => with - without,
            _ => 0,
        };
        Proof {
            syncs: found.syncs.most,
            syncs_by_default: lost,
            with_progress: found.with_progress,
            with_progress_by_default: match lost {
                Most::Count(n) => Most::Count(n + open),
                Most::Unbounded => Most::Unbounded,
            },
            age: age(policy, found.syncs.most == Most::Count(0), tail),
            process: process(policy, samples, found),
            ..only_derived(policy, derived, Obstacle::WideRange)
        }
    };
    // What was reached counts, whatever was derived.
    proof.syncs = proof.syncs.max(found.syncs.most);
    proof.with_progress = proof.with_progress.max(found.with_progress);
    proof.process.syncs = proof.process.syncs.max(found.staged_syncs.most);
    proof.process.writes = proof.process.writes.max(found.staged_writes.most);
    proof.method = method;
    proof.obstacle = obstacle;
    proof.states = found.nodes.len();
    proof.steps = found.steps;
    proof.faults = found.faults;
    let mut drawn = |worst: &Worst, unit| {
        let repeats = worst.most == Most::Unbounded;
        (worst.at != 0).then(|| draw(found, stepper, worst.at, unit, repeats))
    };
    proof.worst = drawn(&found.syncs, Unit::Syncs);
    proof.process.worst = match found.staged_syncs.at {
        0 => drawn(&found.staged_writes, Unit::StagedWrites),
        _ => drawn(&found.staged_syncs, Unit::StagedSyncs),
    };
    let mut idle = |tail: Option<NodeId>, ending: Ending| {
        let tail = tail.filter(|_| policy.flush_within.is_none());
        tail.map(|id| timeline::draw(&found.path(stepper, id), ending))
    };
    let taken = |tail: Option<NodeId>| found.taken_at(tail.unwrap_or(0));
    proof.tail = idle(found.tail, Ending::Idle(taken(found.tail).syncs));
    proof.process.tail =
        idle(found.staged_tail, Ending::IdleStaged(taken(found.staged_tail).staged_writes));
    proof.broken = broken(policy, derived, &proof, stepper, found);
    proof
}

/// The worst case at the default parameters, which are the first.
fn by_default(worst: &Worst) -> Most {
    worst.by_params.first().copied().unwrap_or(worst.most)
}

/// What a crash of the process takes, as far as it was explored.
fn process(policy: &Policy, samples: &Samples, found: &Explored) -> ProcessCrash {
    let writes = found.staged_writes.most;
    let nothing = writes == Most::Count(0);
    ProcessCrash {
        syncs: found.staged_syncs.most,
        syncs_by_default: by_default(&found.staged_syncs),
        // Nothing is derived of them, so the values of parameters that were not tried could allow more.
        writes: if nothing || samples.whole && !found.too_large { writes } else { Most::Unbounded },
        age: age(policy, nothing, found.staged_tail.is_some()),
        worst: None,
        tail: None,
    }
}

/// What the derivation alone says.
fn only_derived(policy: &Policy, derived: &Loss, obstacle: Obstacle) -> Proof {
    let on_process = derived.process();
    let syncs = most(derived.greatest(&policy.params));
    let by_default = most(derived.syncs(&policy.params));
    let and_one = |most: Most| match most {
        Most::Count(n) => Most::Count(n + 1),
        Most::Unbounded => Most::Unbounded,
    };
    let mut proof = Proof {
        states: 0,
        steps: 0,
        method: Method::Derived,
        obstacle: Some(obstacle),
        syncs,
        syncs_by_default: by_default,
        with_progress: and_one(syncs),
        with_progress_by_default: and_one(by_default),
        age: age(policy, syncs == Most::Count(0), derived.leaves_tail(&policy.params).is_some()),
        process: ProcessCrash {
            syncs: most(on_process.greatest(&policy.params)),
            syncs_by_default: most(on_process.syncs(&policy.params)),
            writes: derived.stages.map_or(Most::Count(0), |_| Most::Unbounded),
            age: age(policy, derived.stages.is_none(), true),
            worst: None,
            tail: None,
        },
        faults: Faults::default(),
        broken: Vec::new(),
        worst: None,
        tail: None,
    };
    for (guarantee, promised) in policy.guarantees.iter().enumerate() {
        if !derived.keeps(promised, policy) {
            let broken = Broken { guarantee, timeline: None, lost: syncs, unit: Unit::Syncs };
            proof.broken.push(broken);
        }
    }
    proof
}

fn age(policy: &Policy, nothing: bool, tail: bool) -> Age {
    match &policy.flush_within {
        _ if nothing => Age::Nothing,
        Some(within) => Age::Within(within.node),
        None if tail => Age::Forever,
        None => Age::UntilSynced,
    }
}

/// The guarantees that do not hold, each with the shortest path that breaks it.
fn broken(
    policy: &Policy,
    derived: &Loss,
    proof: &Proof,
    stepper: &mut Stepper<'_>,
    found: &Explored,
) -> Vec<Broken> {
    let mut all = Vec::new();
    for (index, guarantee) in policy.guarantees.iter().enumerate() {
        let limit = found.limits.get(index);
        let reached = limit.and_then(|l| l.broken);
        let (worst, tail, age) = match guarantee.failure {
            Failure::PowerLoss => (&found.syncs, found.tail, proof.age),
            Failure::ProcessCrash => (&found.staged_writes, found.staged_tail, proof.process.age),
        };
        let (at, idle) = match &guarantee.bound {
            Bound::Age(_) if age == Age::Nothing || derived.keeps(guarantee, policy) => continue,
            Bound::Age(_) => {
                let tail = tail.filter(|_| policy.flush_within.is_none());
                (tail.or((worst.at != 0).then_some(worst.at)), tail.is_some())
            }
            _ if reached.is_some() => (reached, false),
            // Explored for every value, or proved for every value: it holds.
            _ if proof.method == Method::Explored || derived.keeps(guarantee, policy) => continue,
            _ => (None, false),
        };
        let unit = match (guarantee.failure, limit) {
            (Failure::PowerLoss, _) => Unit::Syncs,
            (Failure::ProcessCrash, Some(limit)) if limit.unit == Unit::StagedSyncs => limit.unit,
            (Failure::ProcessCrash, _) => Unit::StagedWrites,
        };
        let timeline = at.map(|id| match (idle, unit) {
            (false, _) => draw(found, stepper, id, unit, false),
            (true, Unit::Syncs) => {
                let ending = Ending::Idle(found.taken_at(id).syncs);
                timeline::draw(&found.path(stepper, id), ending)
            }
            (true, _) => {
                let ending = Ending::IdleStaged(found.taken_at(id).staged_writes);
                timeline::draw(&found.path(stepper, id), ending)
            }
        });
        let lost = match unit {
            Unit::Syncs => proof.syncs,
            Unit::StagedSyncs => proof.process.syncs,
            Unit::StagedWrites => proof.process.writes,
        };
        all.push(Broken { guarantee: index, timeline, lost, unit });
    }
    all
}
