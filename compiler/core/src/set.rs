//! Values given from outside: `--set n=16`.

use crate::hir::Policy;
use crate::names;
use crate::unit::{Unit, show};
use durac_grammar::ast::Suffix;

/// Changes the default of a parameter. `assignment` is `name=value`; the value is written as in
/// the language (`16`, `50ms`, `4MiB`, `true`).
///
/// # Errors
/// One line that says what is wrong with the assignment.
pub fn set(policy: &mut Policy, assignment: &str) -> Result<(), String> {
    let Some((name, text)) = assignment.split_once('=') else {
        return Err(format!("`{assignment}` is not of the form `name=value`"));
    };
    let (name, text) = (name.trim(), text.trim());
    let known: Vec<String> = policy.params.iter().map(|p| p.name.node.clone()).collect();
    let Some(param) = policy.params.iter_mut().find(|p| p.name.node == name) else {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let hint = match known.as_slice() {
            [] => "it has none".to_owned(),
            known => names::suggest(name, known),
        };
        return Err(format!("the policy `{}` has no parameter `{name}`: {hint}", policy.name));
    };
    let value = parse(text, param.unit)
        .ok_or_else(|| format!("`{text}` is not a value of `{name}`, which is a {}", param.unit))?;
    if !(param.min..=param.max).contains(&value) {
        let (low, high) = (show(param.min, param.unit), show(param.max, param.unit));
        return Err(format!("`{name}` must be in {low}..={high}, not {text}"));
    }
    param.default = value;
    Ok(())
}

fn parse(text: &str, unit: Unit) -> Option<u64> {
    if unit == Unit::Bool {
        return match text {
            "true" => Some(1),
            "false" => Some(0),
            _ => None,
        };
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, suffix) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    if suffix.is_empty() {
        return (unit.takes_plain() || number == 0).then_some(number);
    }
    let suffix = Suffix::ALL.into_iter().find(|s| s.text() == suffix)?;
    if Unit::of_suffix(suffix) != unit {
        return None;
    }
    number.checked_mul(suffix.scale())
}
