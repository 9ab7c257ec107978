//! What guarantees allow, and which of them do not hold.

use super::{Age, Broken, Method, Proof, draw};
use crate::explore::{Explored, Limit, Unit};
use crate::step::Stepper;
use crate::timeline::{self, Ending};
use crate::upper::Upper;
use durac_abi::STAGE_ROOM;
use durac_core::bounds;
use durac_core::hir::{Bound, Expr, Failure, Guarantee, Policy};
use durac_engine::Pace;

/// What each guarantee allows, for each vector of parameters.
pub(super) fn limits(policy: &Policy, vectors: &[Vec<u64>]) -> Vec<Limit> {
    let mut limits: Vec<Limit> =
        policy.guarantees.iter().map(|guarantee| limit(guarantee, vectors)).collect();
    // So that there is always one to say how many vectors there are.
    limits.push(Limit::new(Unit::Syncs, vec![u64::MAX; vectors.len()]));
    limits
}

fn limit(guarantee: &Guarantee, vectors: &[Vec<u64>]) -> Limit {
    let values = |expr: &Expr| -> Vec<u64> {
        vectors.iter().map(|v| bounds::evaluate(expr, v).unwrap_or(0)).collect()
    };
    let all = |most: u64| vec![most; vectors.len()];
    let (unit, most) = match (guarantee.failure, &guarantee.bound) {
        (Failure::PowerLoss, Bound::Syncs(expr)) => (Unit::Syncs, values(expr)),
        (Failure::PowerLoss, Bound::Bytes(expr)) => (Unit::Bytes, values(expr)),
        (Failure::PowerLoss, Bound::Updates(expr)) => (Unit::Updates, values(expr)),
        (Failure::PowerLoss, Bound::Nothing | Bound::Writes(_)) => (Unit::Syncs, all(0)),
        (Failure::ProcessCrash, Bound::Syncs(expr)) => (Unit::StagedSyncs, values(expr)),
        (Failure::ProcessCrash, Bound::Writes(expr)) => (Unit::StagedWrites, values(expr)),
        (Failure::ProcessCrash, Bound::Nothing) => (Unit::StagedWrites, all(0)),
        // No more than the agent has room for.
        (Failure::ProcessCrash, Bound::Bytes(expr) | Bound::Updates(expr)) => {
            let room = |bytes: u64| if bytes < STAGE_ROOM { 0 } else { u64::MAX };
            (Unit::StagedWrites, values(expr).into_iter().map(room).collect())
        }
        (_, Bound::Age(_)) => (Unit::Syncs, all(u64::MAX)),
    };
    Limit::new(unit, most)
}

/// What is acknowledged is durable after `flush within`, or after the time for which the pace waits for
/// company, and, without a deadline, two syncs: one that is under way and does not cover it, and
/// the next. The deadline starts a sync two syncs early, if their length is assumed.
pub(super) fn age(policy: &Policy, nothing: bool, tail: bool) -> Age {
    match (&policy.flush_within, &policy.assume_sync) {
        _ if nothing => Age::Nothing,
        (Some(within), Some(_)) => Age::Within(within.node),
        (Some(within), None) => Age::PlusSyncs(within.node),
        (None, _) if tail => Age::Forever,
        (None, Some(sync)) => {
            let two = sync.node.saturating_mul(2);
            Age::Within(Pace::PATIENCE_MOST.saturating_add(two))
        }
        (None, None) => Age::PlusSyncs(Pace::PATIENCE_MOST),
    }
}

/// Whether a bound in time holds, whatever the parameters.
pub(super) fn keeps_age(policy: &Policy, age: Age, expr: &Expr) -> bool {
    match age {
        Age::Nothing => true,
        Age::Within(most) => most <= bounds::least(expr, &policy.params),
        Age::PlusSyncs(_) | Age::Forever => false,
    }
}

/// The guarantees that do not hold, each with the shortest path that breaks it.
pub(super) fn broken(
    policy: &Policy,
    upper: &Upper<'_>,
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
            Bound::Age(expr) if keeps_age(policy, age, expr) => continue,
            Bound::Age(_) => {
                let tail = tail.filter(|_| policy.flush_within.is_none());
                (tail.or((worst.at != 0).then_some(worst.at)), tail.is_some())
            }
            _ if reached.is_some() => (reached, false),
            // Explored for every value, or proved for every value: it holds.
            _ if proof.method == Method::Explored || upper.keeps(guarantee) => continue,
            _ => (None, false),
        };
        let unit = match (guarantee.failure, limit) {
            (
                Failure::PowerLoss,
                Some(Limit { unit: unit @ (Unit::Bytes | Unit::Updates), .. }),
            ) => *unit,
            (Failure::PowerLoss, _) => Unit::Syncs,
            (Failure::ProcessCrash, Some(limit)) if limit.unit == Unit::StagedSyncs => limit.unit,
            (Failure::ProcessCrash, _) => Unit::StagedWrites,
        };
        let timeline = at.and_then(|id| {
            let ending = match (idle, unit) {
                (false, _) => {
                    let endless = limit.is_some_and(|limit| limit.endless);
                    return draw(found, stepper, id, unit, endless);
                }
                (true, Unit::Syncs) => Ending::Idle(found.taken_at(id).syncs),
                (true, _) => Ending::IdleStaged(found.taken_at(id).staged_writes),
            };
            found.path(stepper, id).map(|path| timeline::draw(&path, ending))
        });
        let lost = match unit {
            Unit::Syncs => proof.syncs,
            Unit::StagedSyncs => proof.process.syncs,
            Unit::StagedWrites => proof.process.writes,
            Unit::Bytes => proof.bytes,
            Unit::Updates => proof.updates,
        };
        let run = reached.map(|id| match (unit, found.taken_at(id)) {
            (Unit::Syncs, taken) => taken.syncs,
            (Unit::StagedSyncs, taken) => taken.staged_syncs,
            (Unit::StagedWrites, taken) => taken.staged_writes,
            (Unit::Bytes, taken) => taken.amounts.bytes,
            (Unit::Updates, taken) => taken.amounts.updates,
        });
        let shortest = !found.stopped && reached.is_none_or(|id| found.is_shortest(id));
        all.push(Broken { guarantee: index, timeline, run, shortest, lost, unit });
    }
    all
}
