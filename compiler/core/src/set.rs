//! Values given from outside: `--set n=16`.

use crate::hir::{Param, Policy};
use crate::names;
use crate::unit::{Unit, show};
use durac_abi::Object;
use durac_abi::object;
use durac_grammar::ast::Suffix;

/// Changes the default of a parameter. `assignment` is `name=value`; the value is written as in
/// the language (`16`, `50ms`, `4MiB`, `true`).
///
/// # Errors
/// One line that says what is wrong with the assignment.
pub fn set(policy: &mut Policy, assignment: &str) -> Result<(), String> {
    let named = policy.name.clone();
    let of = |p: &Param| Known { name: p.name.node.clone(), unit: p.unit, range: (p.min, p.max) };
    let (index, value) = find(&named, policy.params.iter().map(of).collect(), assignment)?;
    if let Some(param) = policy.params.get_mut(index) {
        param.default = value;
    }
    Ok(())
}

/// As [`set`], in a compiled policy.
///
/// # Errors
/// One line that says what is wrong with the assignment.
pub fn set_object(object: &mut Object, assignment: &str) -> Result<(), String> {
    let of = |p: &object::Param| Known {
        name: p.name.clone(),
        unit: p.unit.into(),
        range: (p.min, p.max),
    };
    let known = object.meta.params.iter().map(of).collect();
    let (index, value) = find(&object.meta.policy, known, assignment)?;
    if let Some(param) = object.meta.params.get_mut(index) {
        param.default = value;
    }
    Ok(())
}

/// A parameter that can be assigned to.
#[derive(Clone, Debug)]
pub struct Known {
    /// As declared.
    pub name: String,
    /// Its unit.
    pub unit: Unit,
    /// Least and greatest value.
    pub range: (u64, u64),
}

/// Which of a policy's parameters is assigned to, and what.
///
/// # Errors
/// As [`set`].
pub fn find(policy: &str, params: Vec<Known>, assignment: &str) -> Result<(usize, u64), String> {
    let Some((name, text)) = assignment.split_once('=') else {
        return Err(format!("invalid assignment `{assignment}`: expected NAME=VALUE"));
    };
    let (name, text) = (name.trim(), text.trim());
    let Some((index, param)) = params.iter().enumerate().find(|(_, p)| p.name == name) else {
        let known: Vec<&str> = params.iter().map(|p| p.name.as_str()).collect();
        let hint = match known.as_slice() {
            [] => "it has no parameters".to_owned(),
            known => names::suggest(name, known),
        };
        return Err(format!("the policy `{policy}` has no parameter `{name}`: {hint}"));
    };
    let value = parse(text, param.unit).ok_or_else(|| {
        format!("invalid value `{text}` for `{name}`: expected {}", expected(param.unit))
    })?;
    let (min, max) = param.range;
    if !(min..=max).contains(&value) {
        let (low, high) = (show(min, param.unit), show(max, param.unit));
        return Err(format!("`{name}` must be in {low}..={high}, found {text}"));
    }
    Ok((index, value))
}

/// How a value of a unit is written.
fn expected(unit: Unit) -> &'static str {
    match unit {
        Unit::Bool => "`true` or `false`",
        Unit::Duration => "a duration, for example `10ms`",
        Unit::Bytes => "a number of bytes, for example `4MiB`",
        _ => "a number",
    }
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
