//! What was proved of a policy, in words: for `durac check` and for the object's note.

use durac_abi::{STAGE_ROOM, object};
use durac_core::hir::{Failure, Policy};
use durac_core::unit::{Unit, show};
use durac_core::{Counted, Loss};
use durac_prove::explore::Most;
use durac_prove::proof::{Age, Method, Proof};

/// A bound in terms of the parameters that follows from the text, unless more was proved.
pub(crate) fn bounded_by(
    policy: &Policy,
    derived: &Loss,
    (most, by_default): (Most, Most),
) -> Option<String> {
    let of_text = (derived.greatest(&policy.params), derived.syncs(&policy.params));
    (of_text.0.is_some() && of_text == (most.count(), by_default.count()))
        .then(|| derived.text(policy))
}

pub(crate) fn amount(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What can be lost on a power loss.
#[must_use]
pub fn loss_text(policy: &Policy, proof: &Proof) -> String {
    if proof.age == Age::Nothing {
        return "nothing".to_owned();
    }
    let mut text = match (
        proof.syncs,
        bounded_by(policy, &policy.loss, (proof.syncs, proof.syncs_by_default)),
    ) {
        (Most::Unbounded, _) => match amounts(policy, proof).as_slice() {
            [] => "any number of syncs".to_owned(),
            amounts => amounts.join(" and "),
        },
        (_, Some(text)) if proof.method == Method::ExploredAndDerived || !exact(proof) => text,
        (Most::Count(most), _) => match proof.syncs_by_default {
            Most::Count(now) if now != most => {
                format!("at most {} ({now} by default)", amount(most, "sync"))
            }
            _ => format!("at most {}", amount(most, "sync")),
        },
    };
    if let Some(age) = deadline(policy, proof.age) {
        let any = proof.syncs == Most::Unbounded && amounts(policy, proof).is_empty();
        let and = if any { "of the last" } else { "and" };
        text.push_str(&format!(" {and} {age}"));
    }
    text
}

/// The bounds of the loss in updates and bytes, where there is one.
fn amounts(policy: &Policy, proof: &Proof) -> Vec<String> {
    let updates = amount_of(policy, Counted::Updates, proof.updates, proof.updates_by_default);
    let bytes = amount_of(policy, Counted::Bytes, proof.bytes, proof.bytes_by_default);
    updates.into_iter().chain(bytes).collect()
}

/// A bound in bytes or updates: as it was derived, if that is it, else as it was found.
fn amount_of(policy: &Policy, of: Counted, most: Most, by_default: Most) -> Option<String> {
    let (most, now) = (most.count()?, by_default.count()?);
    let derived = &policy.loss;
    if derived.greatest_of(of, &policy.params) == Some(most) {
        return derived.text_of(of, policy);
    }
    let text = |value| match of {
        Counted::Bytes => show(value, Unit::Bytes),
        _ => amount(value, "update"),
    };
    let defaults = if now == most { String::new() } else { format!(" ({} by default)", text(now)) };
    Some(format!("at most {}{defaults}", text(most)))
}

/// What a crash of the process takes.
#[must_use]
pub fn process_text(policy: &Policy, proof: &Proof) -> String {
    let process = &proof.process;
    if process.is_nothing() {
        return "nothing".to_owned();
    }
    let on_process = policy.loss.process();
    let mut text = match (
        process.syncs,
        bounded_by(policy, &on_process, (process.syncs, process.syncs_by_default)),
    ) {
        (Most::Unbounded, _) => "any number of syncs".to_owned(),
        (Most::Count(0), _) => "no sync".to_owned(),
        (_, Some(text)) if proof.method == Method::ExploredAndDerived || !exact(proof) => text,
        (Most::Count(most), _) => match process.syncs_by_default {
            Most::Count(now) if now != most => {
                format!("at most {} ({now} by default)", amount(most, "sync"))
            }
            _ => format!("at most {}", amount(most, "sync")),
        },
    };
    text.push_str(&match process.writes {
        Most::Count(writes) => format!(", {}", amount(writes, "write")),
        Most::Unbounded => ", any number of writes".to_owned(),
    });
    if let Some(age) = deadline(policy, process.age) {
        text.push_str(&format!(", of the last {age}"));
    }
    text
}

fn exact(proof: &Proof) -> bool {
    proof.method != Method::Derived
}

/// What the object's note says.
#[must_use]
pub fn note(policy: &Policy, proof: &Proof) -> Vec<object::Loss> {
    // Where no sync is lost, nothing is, in any unit.
    let nothing = proof.age == Age::Nothing;
    vec![
        object::Loss {
            failure: Failure::ProcessCrash,
            syncs: proof.process.syncs_by_default.count(),
            within: within(proof.process.age),
            updates: None,
            bytes: None,
            text: process_text(policy, proof),
        },
        object::Loss {
            failure: Failure::PowerLoss,
            syncs: proof.syncs_by_default.count(),
            within: within(proof.age),
            updates: if nothing { None } else { proof.updates_by_default.count() },
            bytes: if nothing { None } else { proof.bytes_by_default.count() },
            text: loss_text(policy, proof),
        },
    ]
}

/// How old what is lost can be, if the policy has a deadline for it.
fn deadline(policy: &Policy, age: Age) -> Option<String> {
    policy.flush_within.as_ref()?;
    matches!(age, Age::Within(_) | Age::PlusSyncs(_)).then(|| age.text())
}

fn within(age: Age) -> Option<u64> {
    match age {
        Age::Nothing => Some(0),
        Age::Within(within) => Some(within),
        Age::PlusSyncs(_) | Age::Forever => None,
    }
}

/// The lines of `durac check` about a proof.
#[must_use]
pub fn report(policy: &Policy, proof: &Proof) -> Vec<String> {
    let mut lines = vec![format!("loses on process_crash: {}", process_text(policy, proof))];
    if !proof.process.is_nothing() {
        let room = show(STAGE_ROOM, Unit::Bytes);
        lines.push(format!("    in bytes: at most {room}, the limit of staged data"));
        if proof.process.age == Age::Forever {
            lines.push("    in time: unbounded, a write can stay staged forever".to_owned());
        }
    }
    lines.push(format!("loses on power_loss: {}", loss_text(policy, proof)));
    if proof.age != Age::Nothing {
        let with = match proof.with_progress_by_default {
            Most::Count(n) => amount(n, "sync"),
            Most::Unbounded => "any number of syncs".to_owned(),
        };
        let age = match proof.age {
            Age::Nothing => String::new(),
            Age::Within(_) | Age::PlusSyncs(_) => {
                let text = match policy.flush_within {
                    Some(_) => format!("at most {}, by the deadline", proof.age.text()),
                    None => format!("no deadline, but at most {}", proof.age.text()),
                };
                match policy.assume_sync.as_ref().filter(|_| proof.age != Age::Nothing) {
                    Some(sync) => {
                        let sync = show(sync.node, Unit::Duration);
                        format!("{text}, if no sync takes longer than {sync}")
                    }
                    None => text,
                }
            }
            Age::Forever => "unbounded, the last syncs can stay pending forever".to_owned(),
        };
        lines.push(format!("    with the call in progress: {with}"));
        let of = |counted, most, now| amount_of(policy, counted, most, now);
        // Else the headline says it.
        let apart = proof.syncs != Most::Unbounded;
        if apart && let Some(text) = of(Counted::Updates, proof.updates, proof.updates_by_default) {
            lines.push(format!("    in updates: {text}"));
        }
        let bytes = of(Counted::Bytes, proof.bytes, proof.bytes_by_default);
        let rest = match &bytes {
            Some(text) => {
                if apart {
                    lines.push(format!("    in bytes: {text}"));
                }
                "writes"
            }
            None => "writes and bytes",
        };
        lines.push(format!("    in {rest}: unbounded, a sync covers any number of them"));
        lines.push(format!("    in time: {age}"));
    }
    lines.push(format!("clients: {}", to_clients(proof)));
    let far = if proof.complete { "" } else { ", as far as was explored" };
    lines.push(format!("errors: failed syncs are always reported; no call blocks forever{far}"));
    let states = match proof.states {
        1 => "1 state explored".to_owned(),
        states => format!("{states} states explored"),
    };
    let derived = match (policy.params.is_empty(), proof.method) {
        (_, Method::Derived) => ", the bound is derived from the text",
        (true, Method::ExploredAndDerived) => "; derivation gives the same bound",
        (true, Method::Explored) => "",
        (false, Method::Explored) => ", for every value of the parameters",
        (false, _) => ", and derived for the other values of the parameters",
    };
    let how = if proof.exact { "exact" } else { "upper bound" };
    lines.push(format!("{how}: {states}{derived}"));
    lines
}

/// What clients can see that a crash takes.
fn to_clients(proof: &Proof) -> String {
    if !proof.holds_replies {
        return match proof.age {
            Age::Nothing => "no reply is sent before its write is durable",
            _ => "a reply, or a read of the value, can precede durability by this much",
        }
        .to_owned();
    }
    let whose = if proof.frees_replicas { "clients of this server" } else { "clients" };
    let held = if proof.lets_clean_go { "a reply is" } else { "every reply, reads included, is" };
    let mut text = format!(
        "loss to {whose} is nothing: {held} held until all that was written before it is durable"
    );
    if proof.lets_clean_go {
        text += ", but for reads of keys that nothing which is not durable names (docs/replies.md says what is trusted)";
    }
    if proof.frees_replicas {
        text += ". A replica is not held back: it, and who reads there, can be ahead of the disk";
    }
    text
}
