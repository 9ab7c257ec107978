//! What a power loss can take of a running process: the bound that its agent shows, with the parameters as they
//! are now.
//!
//! An object has its bound in words (`at most size - 1 syncs (47 by default)`) and in numbers for its own
//! parameters. Once one was changed, the words are evaluated. A text that does not give the object's numbers
//! with the object's parameters is not understood, and no number is shown.

use durac_abi::object::Loss;
use durac_core::unit::{Unit, show};
use durac_grammar::render::printable;
use durac_shm::status::{Amounts, ParamStatus, Snapshot};
use serde::Serialize;

/// What a failure can take, as JSON says it: all numbers, null where unbounded.
#[derive(Debug, Serialize)]
pub struct Shown {
    failure: &'static str,
    text: String,
    syncs: Option<u64>,
    updates: Option<u64>,
    bytes: Option<u64>,
    within: Option<u64>,
}

/// What an object says of failures.
pub fn shown(losses: &[Loss]) -> Vec<Shown> {
    let shown = |loss: &Loss| {
        let Loss { syncs, updates, bytes, within, .. } = *loss;
        let Amounts { syncs, updates, bytes, within } =
            whole(Amounts { syncs, updates, bytes, within });
        let (failure, text) = (loss.failure.text(), loss.text.clone());
        Shown { failure, text, syncs, updates, bytes, within }
    };
    losses.iter().map(shown).collect()
}

/// Where no sync call is lost, nothing is: an object and a page leave the other units out.
fn whole(amounts: Amounts) -> Amounts {
    match amounts.syncs {
        Some(0) => Amounts { syncs: Some(0), updates: Some(0), bytes: Some(0), within: Some(0) },
        _ => amounts,
    }
}

/// The bounds now; none is unbounded or not known.
pub fn now(seen: &Snapshot) -> Amounts {
    whole(evaluated(seen))
}

fn evaluated(seen: &Snapshot) -> Amounts {
    let amounts = seen.bound.amounts;
    if seen.params.iter().all(|param| value(param) == param.default) {
        return amounts;
    }
    let of = |unit, by_default| evaluate(&seen.bound.text, unit, &seen.params, by_default);
    Amounts {
        syncs: of("sync", amounts.syncs),
        updates: of("update", amounts.updates),
        bytes: of("byte", amounts.bytes),
        within: amounts.within,
    }
}

/// The bound in words, with its value now.
pub fn text(seen: &Snapshot) -> String {
    let text = printable(&seen.bound.text);
    let changed = seen.params.iter().any(|param| value(param) != param.default);
    let Amounts { syncs, updates, bytes, .. } = evaluated(seen);
    let numbers = [
        syncs.map(|n| n.to_string()),
        updates.map(|n| n.to_string()),
        bytes.map(|n| show(n, Unit::Bytes)),
    ];
    match numbers.into_iter().flatten().next() {
        Some(number)
            if changed && text != "nothing" && seen.bound.amounts != Amounts::default() =>
        {
            format!("{text}, {number} now")
        }
        _ => text,
    }
}

/// What the agent makes of a value on its page.
pub fn value(param: &ParamStatus) -> u64 {
    param.value.min(param.max).max(param.min)
}

/// The bound in this unit that a text states.
fn evaluate(
    text: &str,
    unit: &str,
    params: &[ParamStatus],
    by_default: Option<u64>,
) -> Option<u64> {
    let by_default = by_default?;
    if text == "nothing" {
        return Some(0);
    }
    let of = |part: &str, get: fn(&ParamStatus) -> u64| -> Option<u64> {
        let words = part.trim().strip_prefix("at most ")?;
        let words = words.split(" (").next()?.trim();
        let forms = words.strip_suffix('s').unwrap_or(words).strip_suffix(unit)?;
        let forms = forms.trim().trim_start_matches("the largest of ");
        let values = forms.split(", ").map(|form| linear(form, params, get));
        values.collect::<Option<Vec<_>>>()?.into_iter().max()
    };
    text.split(" and ").find_map(|part| {
        let now = of(part, value)?;
        let then = of(part, |param| param.default)?;
        let constant = of(part, |param| param.min) == of(part, |param| param.max);
        (then == by_default || constant && then > by_default).then_some(now)
    })
}

/// A form such as `2 * n - 1`.
fn linear(form: &str, params: &[ParamStatus], get: fn(&ParamStatus) -> u64) -> Option<u64> {
    let (mut sum, mut sign, mut factor) = (0_i128, 1_i128, 1_i128);
    let mut words = form.split_whitespace().peekable();
    while let Some(word) = words.next() {
        match word {
            "+" => (sign, factor) = (1, 1),
            "-" => (sign, factor) = (-1, 1),
            "*" => {}
            word => {
                let number = match word.parse::<u64>() {
                    Ok(number) => number,
                    Err(_) => get(params.iter().find(|param| param.name == word)?),
                };
                if words.peek() == Some(&"*") {
                    factor = number.into();
                } else {
                    sum = sum.checked_add(sign * factor.checked_mul(number.into())?)?;
                    factor = 1;
                }
            }
        }
    }
    u64::try_from(sum).ok()
}

#[cfg(test)]
mod tests {
    use super::{evaluate, now, text};
    use durac_driver::Options;
    use durac_grammar::Sources;
    use durac_shm::status::{Amounts, Bound, ParamStatus, Snapshot};

    fn params(values: &[(&str, u64, u64)]) -> Vec<ParamStatus> {
        let param = |&(name, value, default): &(&str, u64, u64)| ParamStatus {
            name: name.to_owned(),
            unit: "syncs".to_owned(),
            value,
            default,
            min: 0,
            max: 4096,
        };
        values.iter().map(param).collect()
    }

    #[test]
    fn a_text_is_evaluated_with_the_values_of_now() {
        let n = params(&[("n", 7, 64), ("m", 3, 2)]);
        for (text, unit, by_default, expected) in [
            ("at most n syncs (64 by default) and 50ms", "sync", 64, Some(7)),
            ("at most n - 1 syncs (63 by default)", "sync", 63, Some(6)),
            ("at most 2 * n + m syncs (130 by default)", "sync", 130, Some(17)),
            ("at most the largest of n, m + 9 syncs (64 by default)", "sync", 64, Some(12)),
            ("at most n updates (64 by default)", "update", 64, Some(7)),
            ("at most 3 syncs", "sync", 3, Some(3)),
            // For other values it was found to be larger.
            ("at most 9 syncs (2 by default)", "sync", 2, Some(9)),
            ("at most n syncs (64 by default)", "update", 64, None),
            // Not what the object says.
            ("at most n syncs (64 by default)", "sync", 65, None),
            ("at most x syncs (64 by default)", "sync", 64, None),
            ("any number of syncs", "sync", 64, None),
        ] {
            assert_eq!(evaluate(text, unit, &n, Some(by_default)), expected, "{text}");
        }
        assert_eq!(evaluate("at most n syncs", "sync", &n, None), None);
    }

    /// Of every ready policy: what a text gives for other parameters is what a policy with these has.
    #[test]
    fn it_is_what_is_proved() {
        let compile = |text: &str, name: &str, settings: &[String]| {
            let mut sources = Sources::new();
            let file = sources.add(name, text);
            let options = Options { settings, ..Options::new(name) };
            durac_driver::compile(&mut sources, file, &options).proved.map(|proved| proved.object)
        };
        let mut tried = 0;
        for ready in durac_stdlib::POLICIES
            .iter()
            .filter(|p| ["window", "batch", "updates"].contains(&p.name))
        {
            let object = compile(ready.text, ready.name, &[]).unwrap();
            let loss = object.meta.loss.iter().find(|l| l.text != "nothing").unwrap();
            let loss = object
                .meta
                .loss
                .iter()
                .rfind(|l| l.failure == durac_abi::object::Failure::PowerLoss)
                .unwrap_or(loss);
            let param = &object.meta.params[0];
            let other = param.default / 2 + 1;
            let set = [format!("{}={other}", param.name)];
            let changed = compile(ready.text, ready.name, &set).unwrap();
            let changed = changed.meta.loss.last().unwrap();
            let seen = Snapshot {
                pid: 1,
                since: 0,
                policy: ready.name.to_owned(),
                target: String::new(),
                object: 0,
                bound: Bound {
                    text: loss.text.clone(),
                    amounts: Amounts {
                        syncs: loss.syncs,
                        updates: loss.updates,
                        bytes: loss.bytes,
                        within: loss.within,
                    },
                },
                is_off: false,
                stays_off: false,
                changes: 0,
                most_syncs: 0,
                held_replies: 0,
                held_bytes: 0,
                held_connections: 0,
                most_updates: 0,
                most_bytes: 0,
                children: 0,
                unplaced: 0,
                beyond: 0,
                is_go: false,
                is_supervisor: false,
                serves: (0, 0),
                params: params(&[(&param.name, other, param.default)]),
                logs: Vec::new(),
            };
            let found = now(&seen);
            assert_eq!(
                (found.syncs, found.updates),
                (changed.syncs, changed.updates),
                "{}",
                loss.text
            );
            assert!(text(&seen).ends_with(" now"), "{}", text(&seen));
            tried += 1;
        }
        assert_eq!(tried, 3);
    }
}
