//! The report as text.

use durac_simulate::report::{PolicyReport, Report};
use durac_workload::columns::{Align, columns, grouped};
use std::fmt::Write;

/// The title of a column, and how its cells are made.
type Column = (&'static str, fn(&PolicyReport, &Report) -> String);

const COLUMNS: [Column; 10] = [
    ("policy", |p, _| p.name.clone()),
    ("req/s", |p, _| p.commands_per_second.map_or("–".to_owned(), grouped)),
    ("calls/s", |p, _| grouped(p.calls_per_second)),
    ("×rec.", |p, r| format!("{:.2}", speed(p) / recorded(r).max(1e-9))),
    ("p50", |p, _| time(p.latency.p50_ns as f64)),
    ("p99", |p, _| time(p.latency.p99_ns as f64)),
    ("p99.9", |p, _| time(p.latency.p999_ns as f64)),
    ("syncs/s", |p, _| grouped(p.syncs as f64 / p.seconds.max(1e-9))),
    ("blocked", |p, _| format!("{:.0} %", 100.0 * blocked(p))),
    ("loses syncs: mean, p99, worst", |p, _| {
        let loss = &p.loss;
        let [p99, worst] = [loss.p99.syncs, loss.worst.syncs].map(grouped);
        let mean = match loss.mean.syncs {
            mean if mean > 0.0 && mean < 10.0 => format!("{mean:.1}"),
            mean => grouped(mean),
        };
        format!("{mean}, {p99}, {worst}")
    }),
];

/// Commands where they are known, else sync calls.
fn speed(policy: &PolicyReport) -> f64 {
    policy.commands_per_second.unwrap_or(policy.calls_per_second)
}

fn recorded(report: &Report) -> f64 {
    report.trace.commands_per_second.unwrap_or(report.trace.calls_per_second)
}

fn blocked(policy: &PolicyReport) -> f64 {
    policy.blocked_ns as f64 / 1e9 / policy.seconds.max(1e-9)
}

/// The facts, the table, and the worst crash of each policy.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    facts(&mut out, report);
    out.push_str(&table(report));
    let _ = writeln!(out);
    for policy in &report.policies {
        worst(&mut out, policy);
    }
    for note in &report.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn facts(out: &mut String, report: &Report) {
    let (trace, app, device) = (&report.trace, &report.application, &report.device);
    let _ = writeln!(
        out,
        "{}: {}, {:.1} s, recorded under {}",
        trace.file,
        counted(trace.events as f64, "event"),
        trace.seconds,
        if trace.policy.is_empty() { "an unknown policy" } else { &trace.policy },
    );
    let who = match app.kind.as_str() {
        "event loop" => format!("event loop with {}", counted(f64::from(app.clients), "client")),
        _ => counted(f64::from(app.clients), "thread"),
    };
    let command = app.command_bytes.map_or(String::new(), |b| format!(", {b} bytes per command"));
    let parameters = app.parameters.iter();
    let parameters: Vec<String> =
        parameters.map(|p| format!("{} {} ({})", p.name, time(p.ns as f64), p.source)).collect();
    let _ = writeln!(out, "{who}{command}");
    for line in parameters.chunks(4) {
        let _ = writeln!(out, "    {}", line.join(", "));
    }
    let _ = writeln!(
        out,
        "device {}: p50 of a sync {}, p99 {}, processor time {}; on new blocks {} and {} ({})\n",
        device.name,
        time(device.p50_ns as f64),
        time(device.p99_ns as f64),
        time(device.cpu_ns as f64),
        time(device.grown_p50_ns as f64),
        time(device.grown_cpu_ns as f64),
        device.source,
    );
}

fn table(report: &Report) -> String {
    let commands = report.policies.iter().any(|p| p.commands_per_second.is_some());
    let shown = || COLUMNS.iter().filter(|(title, _)| *title != "req/s" || commands);
    let mut rows: Vec<Vec<String>> = vec![shown().map(|(title, _)| (*title).to_owned()).collect()];
    for policy in &report.policies {
        rows.push(shown().map(|(_, cell)| cell(policy, report)).collect());
    }
    columns(&[Align::Left, Align::Right], &rows)
}

fn worst(out: &mut String, policy: &PolicyReport) {
    let worst = &policy.loss.worst;
    let _ = write!(out, "{}", policy.name);
    if let Some(proved) = policy.proved.as_ref().map(|loss| &loss.text) {
        let _ = write!(out, " (proved: {proved})");
    }
    let Some(instant) = &policy.loss.worst_instant else {
        let _ = writeln!(out, ": no crash loses anything");
        return;
    };
    let mut lost = vec![counted(worst.syncs, "sync"), counted(worst.bytes, "byte")];
    if policy.commands_per_second.is_some() {
        lost.push(counted(worst.commands, "command"));
    }
    let seen = match policy.commands_per_second {
        Some(_) if worst.seen < worst.commands => {
            format!("; clients have seen {} of it", counted(worst.seen, "command"))
        }
        _ => String::new(),
    };
    let _ = writeln!(
        out,
        ": the worst of {} crashes loses {}, up to {} old{seen}",
        grouped(policy.loss.crashes as f64),
        lost.join(", "),
        time(worst.age_ns),
    );
    let at = time(instant.t_ns as f64);
    let _ = writeln!(out, "    after {at} at event {}: {}", instant.event, instant.text);
    for note in &policy.notes {
        let _ = writeln!(out, "    {note}");
    }
}

/// `1 sync`, `1,024 syncs`.
fn counted(count: f64, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1.0 { "" } else { "s" })
}

/// `150 ns`, `35 µs`, `1.5 ms`, `2.0 s`.
fn time(ns: f64) -> String {
    match ns {
        _ if ns < 1e3 => format!("{ns:.0} ns"),
        _ if ns < 1e4 => format!("{:.1} µs", ns / 1e3),
        _ if ns < 1e6 => format!("{:.0} µs", ns / 1e3),
        _ if ns < 1e9 => format!("{:.1} ms", ns / 1e6),
        _ => format!("{:.1} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        assert_eq!(
            [0.4, 999.0, 12_345.0, 1_000_000.0].map(grouped),
            ["0", "999", "12,345", "1,000,000"]
        );
        assert_eq!(
            [150.0, 4_500.0, 35_400.0, 1.5e6, 2e9].map(time),
            ["150 ns", "4.5 µs", "35 µs", "1.5 ms", "2.0 s"]
        );
    }
}
