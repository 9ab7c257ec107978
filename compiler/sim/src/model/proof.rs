//! What is proved of a policy: the exact worst case, and whether each guarantee holds.

use super::cells::{self, Cells};
use super::explore::{Explored, Limit, Most, NodeId, explore};
use super::programs::Programs;
use super::step::{Faults, Glue, Stepper};
use super::timeline::{self, Ending};
use crate::machine::{Backend, Machine, MachineError, bit, reads};
use durac_bpf::Object;
use durac_bpf::abi::Reading;
use durac_compiler::hir::{Bound, Failure, Param, Policy};
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
    /// Acknowledged syncs lost at the end of the timeline.
    pub lost: Most,
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
    /// What must never happen, and does not.
    pub faults: Faults,
    /// Guarantees that do not hold.
    pub broken: Vec<Broken>,
    /// The worst case, drawn; none if nothing is lost.
    pub worst: Option<String>,
    /// A tail that stays for ever, drawn.
    pub tail: Option<String>,
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
    let mut machine = Machine::new(object, Backend::Interpreter)?;
    let few = samples(&policy.params, false);
    let first = attempt(policy, object, derived, &mut machine, few, glue)?;
    // What was derived holds for every value; where it does not agree, every value is tried.
    let all = samples(&policy.params, true);
    if first.method == Method::Derived && first.obstacle == Some(Obstacle::WideRange) && all.whole {
        return attempt(policy, object, derived, &mut machine, all, glue);
    }
    Ok(first)
}

/// The shortest run of a policy, at its default parameters, that loses more than so many acknowledged
/// syncs; none if there is none among the states that can be explored.
///
/// # Errors
/// When rbpf cannot run the object.
pub fn timeline_beyond(
    policy: &Policy,
    object: &Object,
    syncs: u64,
) -> Result<Option<String>, MachineError> {
    let mut machine = Machine::new(object, Backend::Interpreter)?;
    let vectors = vec![policy.params.iter().map(|p| p.default).collect::<Vec<u64>>()];
    let cells = cells::cells(policy, &vectors);
    let (reads, rules) = (reads(object), rules(object));
    let Some(programs) = Programs::new(&mut machine, reads, &vectors, &cells) else {
        return Ok(None);
    };
    let mut stepper = Stepper::new(programs, rules, Glue::RIGHT);
    let limits = vec![Limit { syncs: vec![syncs], broken: None }];
    let found = explore(&mut stepper, cells.compared(), limits, &[]);
    let broken = found.limits.first().and_then(|limit| limit.broken);
    Ok(broken.map(|id| {
        let ending = Ending::PowerLoss(found.lost_at(id));
        timeline::draw(&found.path(&mut stepper, id), ending)
    }))
}

/// The engine's rules for an object.
fn rules(object: &Object) -> Rules {
    Rules {
        flush_within: object.meta.flush_within,
        keeps_age: reads(object) & bit(Reading::PendingAge) != 0,
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
) -> Result<Proof, MachineError> {
    let cells = cells::cells(policy, &samples.vectors);
    let (reads, rules) = (reads(object), rules(object));
    let vectors = &samples.vectors;
    let Some(programs) = Programs::new(machine, reads, vectors, &cells) else {
        return Ok(only_derived(policy, derived, Obstacle::TooManyChoices));
    };
    let mut stepper = Stepper::new(programs, rules, glue);
    let most = derived_for(derived, vectors);
    let found = explore(&mut stepper, cells.compared(), limits(policy, vectors), &most);
    if let Some(error) = stepper.programs.broken.take() {
        return Err(error);
    }
    Ok(conclude(policy, derived, &samples, &cells, &mut stepper, &found))
}

/// What was derived for each vector of parameters.
fn derived_for(derived: &Loss, vectors: &[Vec<u64>]) -> Vec<Most> {
    let most = |vector: &Vec<u64>| derived.syncs_for(vector).map_or(Most::Unbounded, Most::Count);
    vectors.iter().map(most).collect()
}

/// What each guarantee allows, for each vector of parameters.
fn limits(policy: &Policy, vectors: &[Vec<u64>]) -> Vec<Limit> {
    let limit = |bound: &Bound, params: &[u64]| match bound {
        Bound::Syncs(expr) => bounds::evaluate(expr, params).unwrap_or(0),
        Bound::Nothing | Bound::Writes(_) | Bound::Bytes(_) => 0,
        Bound::Age(_) => u64::MAX,
    };
    let mut limits: Vec<Limit> = (policy.guarantees.iter())
        .map(|guarantee| Limit {
            syncs: match guarantee.failure {
                // The page cache survives, and this runtime keeps no bytes of its own.
                Failure::ProcessCrash => vec![u64::MAX; vectors.len()],
                Failure::PowerLoss => vectors.iter().map(|v| limit(&guarantee.bound, v)).collect(),
            },
            broken: None,
        })
        .collect();
    // So that there is always one to say how many vectors there are.
    limits.push(Limit { syncs: vec![u64::MAX; vectors.len()], broken: None });
    limits
}

fn conclude(
    policy: &Policy,
    derived: &Loss,
    samples: &Samples,
    cells: &Cells,
    stepper: &mut Stepper<'_>,
    found: &Explored,
) -> Proof {
    let agrees = found.by_params == derived_for(derived, &samples.vectors);
    let obstacle = if found.too_large {
        Some(Obstacle::TooManyStates)
    } else if let Some(&span) = cells.inexact.first() {
        Some(Obstacle::NoThresholds(span))
    } else if let Some(&span) = cells.open.first()
        && (found.lost == Most::Unbounded || found.shortened)
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
        let lost = found.by_params.first().copied().unwrap_or(found.lost);
        let open = match (found.with_progress, found.lost) {
            (Most::Count(with), Most::Count(without)) => with - without,
            _ => 0,
        };
        Proof {
            syncs: found.lost,
            syncs_by_default: lost,
            with_progress: found.with_progress,
            with_progress_by_default: match lost {
                Most::Count(n) => Most::Count(n + open),
                Most::Unbounded => Most::Unbounded,
            },
            age: age(policy, found.lost == Most::Count(0), tail),
            ..only_derived(policy, derived, Obstacle::WideRange)
        }
    };
    // What was reached counts, whatever was derived.
    proof.syncs = proof.syncs.max(found.lost);
    proof.with_progress = proof.with_progress.max(found.with_progress);
    proof.method = method;
    proof.obstacle = obstacle;
    proof.states = found.nodes.len();
    proof.steps = found.steps;
    proof.faults = found.faults;
    proof.worst = (found.worst != 0).then(|| {
        let ending = match found.lost {
            Most::Count(lost) => Ending::PowerLoss(lost),
            Most::Unbounded => Ending::Repeats(found.lost_at(found.worst)),
        };
        timeline::draw(&found.path(stepper, found.worst), ending)
    });
    proof.tail = found
        .tail
        .filter(|_| policy.flush_within.is_none())
        .map(|id| timeline::draw(&found.path(stepper, id), Ending::Idle(found.lost_at(id))));
    proof.broken = broken(policy, derived, &proof, stepper, found);
    proof
}

/// What the derivation alone says.
fn only_derived(policy: &Policy, derived: &Loss, obstacle: Obstacle) -> Proof {
    let most = |syncs: Option<u64>| syncs.map_or(Most::Unbounded, Most::Count);
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
        faults: Faults::default(),
        broken: Vec::new(),
        worst: None,
        tail: None,
    };
    for (guarantee, promised) in policy.guarantees.iter().enumerate() {
        if !derived.keeps(promised, policy) {
            proof.broken.push(Broken { guarantee, timeline: None, lost: syncs });
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
    let mut show = |stepper: &mut Stepper<'_>, guarantee: usize, at: Option<NodeId>, idle: bool| {
        let lost = at.map_or(0, |id| found.lost_at(id));
        let ending = if idle { Ending::Idle(lost) } else { Ending::PowerLoss(lost) };
        let timeline = at.map(|id| timeline::draw(&found.path(stepper, id), ending));
        all.push(Broken { guarantee, timeline, lost: proof.syncs });
    };
    for (index, guarantee) in policy.guarantees.iter().enumerate() {
        if guarantee.failure == Failure::ProcessCrash {
            continue;
        }
        let reached = found.limits.get(index).and_then(|l| l.broken);
        match &guarantee.bound {
            Bound::Age(_) => {
                let keeps = proof.age == Age::Nothing || derived.keeps(guarantee, policy);
                if !keeps {
                    let tail = found.tail.filter(|_| policy.flush_within.is_none());
                    let at = tail.or((found.worst != 0).then_some(found.worst));
                    show(stepper, index, at, tail.is_some());
                }
            }
            _ if reached.is_some() => show(stepper, index, reached, false),
            // Explored for every value, or proved for every value: it holds.
            _ if proof.method == Method::Explored || derived.keeps(guarantee, policy) => {}
            _ => show(stepper, index, None, false),
        }
    }
    all
}
