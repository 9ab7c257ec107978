//! The head of the page: what was replayed, on what, and what the reader has to know.

use super::figures::{bytes, count, date, escaped, time};
use crate::report::{CrashChoice, Report};

/// The facts, as the items of a description list.
pub fn list(report: &Report) -> String {
    let (trace, app, device) = (&report.trace, &report.application, &report.device);
    let mut out = String::new();
    let mut item = |name: &str, text: String| {
        out.push_str(&format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escaped(&text)));
    };
    let mut what = format!(
        "{}: {} events in {}",
        trace.file,
        count_of(trace.events),
        time(trace.seconds * 1e9)
    );
    if trace.dropped > 0 {
        what.push_str(&format!(", {} more were lost", count_of(trace.dropped)));
    }
    item("Trace", what);
    if !trace.command.is_empty() {
        item("Command", trace.command.join(" "));
    }
    let policy = match trace.policy.as_str() {
        "" => "an unknown policy",
        name => name,
    };
    let when = match trace.started {
        0 => String::new(),
        started => format!(", {}", date(started)),
    };
    item("Recorded under", format!("{policy}, target {}{when}", trace.target));
    let mut rate = format!(
        "{} sync calls a second ({} in all)",
        count(trace.calls_per_second),
        count_of(trace.calls)
    );
    if let Some(commands) = trace.commands_per_second {
        rate.push_str(&format!(", {} commands a second", count(commands)));
    }
    item("As recorded", rate);
    item("Machine", format!("{} processors", trace.cores));
    let mut who = match app.kind.as_str() {
        "event loop" => format!("an event loop with {} clients", app.clients),
        kind => format!("{} {kind}", app.clients),
    };
    if let Some(size) = app.command_bytes {
        who.push_str(&format!(", {} a command", bytes(size as f64)));
    }
    for p in &app.parameters {
        who.push_str(&format!(", {} {} ({})", p.name, time(p.ns as f64), p.source));
    }
    item("Application", who);
    item(
        "Device",
        format!(
            "{}: a sync alone takes {}, one in a hundred {}, and {} of a processor; {} and {} when the file has grown into a new block ({})",
            device.name,
            time(device.p50_ns as f64),
            time(device.p99_ns as f64),
            time(device.cpu_ns as f64),
            time(device.grown_p50_ns as f64),
            time(device.grown_cpu_ns as f64),
            device.source
        ),
    );
    item("Random seed", report.seed.to_string());
    out
}

/// Notes of the report, and the policies that were left out; nothing if there are none.
pub fn notes(report: &Report) -> String {
    let notes = report.notes.iter().map(|note| escaped(note));
    let left_out = report
        .left_out
        .iter()
        .map(|l| format!("<b>{}</b> was left out: {}", escaped(&l.name), escaped(&l.why)));
    let of_policies = report.policies.iter().flat_map(|policy| {
        let name = escaped(&super::label(policy));
        policy.notes.iter().map(move |note| format!("<b>{name}</b>: {}", escaped(note)))
    });
    let items: String =
        notes.chain(left_out).chain(of_policies).map(|n| format!("<li>{n}</li>\n")).collect();
    match items.as_str() {
        "" => String::new(),
        items => format!("<ul class=\"notes\">\n{items}</ul>"),
    }
}

/// How crashes were chosen, a sentence.
pub fn crashes(report: &Report) -> String {
    match report.crashes {
        CrashChoice::EveryEvent => {
            "The power was cut after each call that returned, and just before each sync ended."
                .to_owned()
        }
        CrashChoice::Random(n) => {
            format!("The power was cut at {} random instants.", count_of(n))
        }
    }
}

fn count_of(value: u64) -> String {
    count(value as f64)
}
