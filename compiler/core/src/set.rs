//! Values given from outside: `--set n=16`.

use crate::hir::{Param, Policy};
use crate::names;
use crate::unit::{Unit, show};
use durac_abi::Object;
use durac_abi::object;
use durac_grammar::ast::{LARGEST, Suffix};
use durac_grammar::suggest::nearest;
use std::fmt;
use std::ops::Range;

/// Changes the default of a parameter. `assignment` is `name=value`; the value is written as in
/// the language (`16`, `50ms`, `4MiB`, `true`).
///
/// # Errors
/// What is wrong with the assignment.
pub fn set(policy: &mut Policy, assignment: &str) -> Result<(), Wrong> {
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
/// What is wrong with the assignment.
pub fn set_object(object: &mut Object, assignment: &str) -> Result<(), Wrong> {
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

/// What is wrong with an assignment. As text: the message and the help, on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong.
    pub message: String,
    /// What is wrong at `at`.
    pub label: &'static str,
    /// What to write instead.
    pub help: Option<String>,
    /// The bytes of the assignment that are wrong.
    pub at: Range<usize>,
    /// What was probably meant in their place.
    pub meant: Option<String>,
    /// The parameter that it is about, by its place.
    pub param: Option<usize>,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, ": {help}"))
    }
}

impl std::error::Error for Wrong {}

/// Which of a policy's parameters is assigned to, and what.
///
/// # Errors
/// As [`set`].
pub fn find(policy: &str, params: Vec<Known>, assignment: &str) -> Result<(usize, u64), Wrong> {
    let Some((name, text)) = assignment.split_once('=') else {
        return Err(Wrong {
            message: format!("invalid assignment `{assignment}`"),
            label: "no `=`",
            help: Some("expected NAME=VALUE".to_owned()),
            at: 0..assignment.len(),
            meant: None,
            param: None,
        });
    };
    let (name_at, value_at) = (place(name, 0), place(text, name.len() + 1));
    let (name, text) = (name.trim(), text.trim());
    let Some((index, param)) = params.iter().enumerate().find(|(_, p)| p.name == name) else {
        let known: Vec<&str> = params.iter().map(|p| p.name.as_str()).collect();
        let help = match known.as_slice() {
            [] => "it has no parameters".to_owned(),
            known => names::suggest(name, known),
        };
        return Err(Wrong {
            message: format!("the policy `{policy}` has no parameter `{name}`"),
            label: "no such parameter",
            help: Some(help),
            at: name_at,
            meant: nearest(name, known.iter().copied())
                .or(match known.as_slice() {
                    [only] => Some(*only),
                    _ => None,
                })
                .map(str::to_owned),
            param: None,
        });
    };
    let Some(value) = parse(text, param.unit) else {
        return Err(Wrong {
            message: format!("invalid value `{text}` for `{name}`"),
            label: "not a value of its unit",
            help: Some(format!("expected {}", expected(param.unit))),
            at: value_at,
            meant: None,
            param: Some(index),
        });
    };
    let (min, max) = param.range;
    if !(min..=max).contains(&value) {
        let (low, high) = (show(min, param.unit), show(max, param.unit));
        return Err(Wrong {
            message: format!("`{name}` must be in {low}..={high}, found {text}"),
            label: "outside its range",
            help: None,
            at: value_at,
            meant: Some(if value < min { low } else { high }),
            param: Some(index),
        });
    }
    Ok((index, value))
}

/// Where the words of `text`, which begins at `from`, are.
fn place(text: &str, from: usize) -> Range<usize> {
    let from = from + (text.len() - text.trim_start().len());
    from..from + text.trim().len()
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
    let number = number.parse().ok().filter(|number| *number <= LARGEST)?;
    if suffix.is_empty() {
        return (unit.takes_plain() || number == 0).then_some(number);
    }
    let suffix = Suffix::ALL.into_iter().find(|s| s.text() == suffix)?;
    if Unit::of_suffix(suffix) != unit {
        return None;
    }
    suffix.scaled(number)
}
