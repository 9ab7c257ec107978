//! The conditions of a certificate in SMT-LIB 2.6, for any solver of linear integer arithmetic: the second opinion
//! on [`crate::linear`].
//!
//! Each condition is one query. It asks for values that meet what is given and none of what should follow, so
//! `unsat` is the answer wanted, and `sat` shows a condition that does not hold.

use crate::linear::{Facts, Sum, Symbols};
use crate::rules::{Condition, Conditions};
use std::collections::BTreeSet;
use std::fmt::Write;

/// The script; `name` is what it is of.
#[must_use]
pub fn script(name: &str, conditions: &Conditions) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "; The certificate of {}: every answer must be `unsat`.", plain(name));
    out.push_str("(set-logic QF_LIA)\n");
    for condition in &conditions.all {
        query(&mut out, condition, &conditions.symbols);
    }
    out
}

fn query(out: &mut String, condition: &Condition, symbols: &Symbols) {
    let _ = writeln!(out, "\n; {}\n(push 1)", plain(&condition.name));
    let all = || condition.given.iter().chain(condition.cells.iter().flatten());
    let vars: BTreeSet<_> = all().flat_map(|sum| sum.terms().iter().map(|(var, _)| *var)).collect();
    for var in vars {
        let Some(symbol) = symbols.get(var) else { continue };
        let name = variable(symbols, var);
        let _ = writeln!(out, "(declare-const {name} Int)");
        let _ =
            writeln!(out, "(assert (<= {} {name} {}))", number(symbol.low), number(symbol.high));
    }
    for fact in &condition.given {
        let _ = writeln!(out, "(assert {})", holds(fact, symbols));
    }
    let conjunction = |cell: &Facts| {
        let facts: Vec<String> = cell.iter().map(|fact| holds(fact, symbols)).collect();
        format!("(and true {})", facts.join(" "))
    };
    let cells: Vec<String> = condition.cells.iter().map(conjunction).collect();
    let _ = writeln!(out, "(assert (not (or false {})))\n(check-sat)\n(pop 1)", cells.join(" "));
}

fn holds(fact: &Sum, symbols: &Symbols) -> String {
    let mut sum = number(fact.constant());
    for (var, factor) in fact.terms() {
        let _ = write!(sum, " (* {} {})", number(*factor), variable(symbols, *var));
    }
    format!("(>= (+ 0 {sum}) 0)")
}

/// Quoted, and with its place, since two variables can have one name.
fn variable(symbols: &Symbols, var: u32) -> String {
    let name = symbols.get(var).map_or("?", |symbol| symbol.name.as_str());
    format!("|{}#{var}|", plain(name))
}

/// Without what would end a quoted symbol or a comment.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_control() || c == '|' || c == '\\' { '_' } else { c }).collect()
}

fn number(number: i128) -> String {
    if number < 0 { format!("(- {})", number.unsigned_abs()) } else { number.to_string() }
}
