//! A report as one HTML file that needs nothing else: the frontier, the numbers, the latencies and
//! what happened around each worst crash.
//!
//! The tables are made here and are there without scripts; the drawings are made by the scripts in
//! this folder, from the report's JSON, which is embedded with what `Derived` adds to it.
//!
//! Architecture invariant: no input or output; the same report gives the same page.

mod facts;
mod figures;
pub use figures::{date, escaped, grouped};
mod lost;
mod proved;
mod tables;

use crate::report::{PolicyReport, Report};
use proved::Proved;
use serde::Serialize;

const TEMPLATE: &str = include_str!("html/page.html");
/// The style of our pages.
pub const STYLE: &str = include_str!("html/page.css");
/// One script, in parts: what comes first is used by what comes later.
const SCRIPTS: [&str; 5] = [
    include_str!("html/base.js"),
    include_str!("html/table.js"),
    include_str!("html/frontier.js"),
    include_str!("html/latency.js"),
    include_str!("html/timeline.js"),
];

/// What the scripts read.
#[derive(Serialize)]
struct Data<'a> {
    report: &'a Report,
    /// In the order of the report's policies.
    derived: Vec<Derived>,
}

/// What follows from a policy's report.
#[derive(Serialize)]
struct Derived {
    /// Its name with its parameters.
    label: String,
    /// Its proved loss in numbers; none if it is not known.
    proved_bounds: Option<Proved>,
    /// Indices into its timeline: calls that its worst crash takes.
    lost: Vec<usize>,
}

impl Derived {
    fn new(policy: &PolicyReport) -> Self {
        let proved_bounds = policy.proved.as_ref().map(Proved::of);
        Self { label: label(policy), proved_bounds, lost: lost::calls(policy) }
    }
}

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let derived: Vec<Derived> = report.policies.iter().map(Derived::new).collect();
    let numbers = tables::numbers(report, &derived);
    let events = tables::events(report, &derived);
    let data = embedded(&Data { report, derived });
    fill(TEMPLATE, |name| match name {
        "file" => Some(figures::escaped(&report.trace.file)),
        "style" => Some(STYLE.to_owned()),
        "facts" => Some(facts::list(report)),
        "notes" => Some(facts::notes(report)),
        "crashes" => Some(facts::crashes(report)),
        "numbers" => Some(numbers.clone()),
        "events" => Some(events.clone()),
        "data" => Some(data.clone()),
        "script" => Some(SCRIPTS.join("\n")),
        _ => None,
    })
}

/// `window n=64`: the name of a policy, which may have some of the parameters already.
fn label(policy: &PolicyReport) -> String {
    let mut label = policy.name.clone();
    for (name, value) in &policy.params {
        let set = format!(" {name}=");
        if !policy.name.contains(&set) {
            label.push_str(&set);
            label.push_str(value);
        }
    }
    label
}

/// JSON that cannot end the element it stands in. `<` occurs in strings only, where it can be
/// written as an escape.
fn embedded(data: &Data) -> String {
    // Numbers, strings and lists always have a JSON form.
    serde_json::to_string(data).unwrap_or_default().replace('<', "\\u003c")
}

/// `template` with each `{{name}}` replaced by its value. Values are not looked into.
pub fn fill(template: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        rest = after;
        if let Some((name, after)) = rest.split_once("}}")
            && let Some(value) = value(name)
        {
            out.push_str(&value);
            rest = after;
        } else {
            out.push_str("{{");
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_templates() {
        let value = |name: &str| (name == "a").then(|| "{{a}}".to_owned());
        assert_eq!(fill("{{a}} {{b}} {{ {{a}}", value), "{{a}} {{b}} {{ {{a}}");
        assert_eq!(fill("x{{a}}y", |_| Some("1".to_owned())), "x1y");
    }

    #[test]
    fn labels_have_each_parameter_once() {
        let named = |name: &str| PolicyReport {
            name: name.to_owned(),
            params: vec![("n".to_owned(), "16".to_owned()), ("d".to_owned(), "5ms".to_owned())],
            ..PolicyReport::default()
        };
        assert_eq!(label(&named("window")), "window n=16 d=5ms");
        assert_eq!(label(&named("window n=16")), "window n=16 d=5ms");
    }

    #[test]
    fn every_placeholder_has_a_value() {
        let names = TEMPLATE.split("{{").skip(1).filter_map(|s| s.split_once("}}")).map(|(n, _)| n);
        let names: Vec<&str> = names.collect();
        assert_eq!(
            names,
            [
                "file", "style", "file", "facts", "notes", "numbers", "crashes", "events", "data",
                "script"
            ]
        );
    }
}
