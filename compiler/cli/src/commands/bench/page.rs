//! A bench as one HTML file that needs nothing else, and no scripts: for each load the frontier, the
//! bars of the case study beside ours, and every number.

use super::drawing::{Size, bars, frontier, is_seen_less};
use durac_simulate::html::{STYLE, date, escaped, fill, grouped};
use durac_workload::bench::Workload;
use durac_workload::report::{Report, Row, Spread};
use std::fmt::Write as _;

const TEMPLATE: &str = include_str!("page.html");

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    fill(TEMPLATE, |name| match name {
        "style" => Some(STYLE.to_owned()),
        "facts" => Some(facts(report)),
        "notes" => Some(notes(report)),
        "loads" => Some(loads(report)),
        _ => None,
    })
}

fn facts(report: &Report) -> String {
    let machine = &report.machine;
    let mut out = String::new();
    let mut item = |name: &str, text: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", escaped(&text));
    };
    item("Machine", format!("{}, {} cores, Linux {}", machine.cpu, machine.cores, machine.kernel));
    item(
        "Disk",
        format!(
            "{} on {}, fdatasync {:.0} µs",
            machine.file_system, machine.device, machine.fdatasync_us
        ),
    );
    item(
        "Workload",
        match report.workload {
            Workload::Redis => "SET by redis-benchmark".to_owned(),
            Workload::Mix if report.writers.is_some() => {
                format!("GET beside SET by {} others", report.writers.unwrap_or(0))
            }
            Workload::Mix => format!("{} % GET beside SET, Zipf's keys", report.reads.unwrap_or(0)),
            Workload::AppendLog => "records of 100 bytes appended to a log, each synced".to_owned(),
        },
    );
    if let (Some(database), Workload::Redis | Workload::Mix) = (machine.database(), report.workload)
    {
        item("Database", database);
    }
    item(
        "Measured",
        format!(
            "{}: {} requests in each of {} rounds, {:.0} s in total",
            date(report.started),
            grouped(report.requests as f64),
            report.rounds,
            report.seconds
        ),
    );
    item("Load before", format!("{:.2}", machine.load));
    out
}

fn notes(report: &Report) -> String {
    let mut notes = Vec::new();
    if let Some(why) = &report.stopped {
        notes.push(format!("stopped early ({why}): not every round was measured"));
    }
    if !report.machine.keeps_data() {
        notes.push(format!(
            "{} does not keep data: syncs are free here",
            report.machine.file_system
        ));
    }
    notes.extend(report.machine.is_busy());
    notes.extend(report.too_wide());
    if notes.is_empty() {
        return String::new();
    }
    let items = notes.iter().map(|note| format!("<li>{}</li>", escaped(note)));
    format!("<ul class=\"notes\">{}</ul>", items.collect::<String>())
}

fn loads(report: &Report) -> String {
    let mut out = String::new();
    for rows in report.rows.chunk_by(|a, b| a.load == b.load) {
        let Some(first) = rows.first() else { continue };
        let load = escaped(&first.load.to_string());
        let paper = report.workload == Workload::Redis
            && (first.load.clients, first.load.pipeline) == (5, 1);
        let _ = write!(
            out,
            "<section>\n<h2>Loss against throughput, {load}</h2>\n\
             {}\
             <p class=\"note\">A dot shows the median throughput and the proved bound, its line \
             reaches from the slowest round to the fastest. A ring is the most ever seen at risk. {}A \
             policy without a bound in syncs, or with one in time only, is drawn at the top.</p>\n\
             <h2>Throughput as a multiple of <code>always</code>, {load}</h2>\n\
             {}{}\
             <h2>All numbers, {load}</h2>\n<div class=\"wide\" tabindex=\"0\">\n{}</div>\n</section>\n",
            twice(|size| frontier(rows, size)),
            if rows.iter().any(is_seen_less) { TO_CLIENTS } else { "" },
            twice(|size| bars(rows, paper, size)),
            if paper { PAPER } else { "" },
            numbers(rows),
        );
    }
    out
}

/// A drawing for a screen and one for a telephone, of which the page shows one.
fn twice(draw: impl Fn(Size) -> String) -> String {
    let [broad, narrow] = [("broad", Size::BROAD), ("narrow", Size::NARROW)]
        .map(|(class, size)| format!("<div class=\"drawing {class}\">{}</div>\n", draw(size)));
    broad + &narrow
}

const TO_CLIENTS: &str = "A diamond is the most of the loss that a client can have seen, where that is \
    less: the policy holds replies until what they depend on is durable. ";

const PAPER: &str = "<p class=\"note\">Filled: measured here. Outlined: the case study’s figures \
    (<cite>Extending Applications Safely and Efficiently</cite>, OSDI ’25, Redis with \
    <code>redis-benchmark -t set -c 5</code>), on its own machine.</p>\n";

const TITLES: [&str; 13] = [
    "mode",
    "req/s",
    "slowest",
    "fastest",
    "× always",
    "× everysec",
    "p50 ms",
    "p99 ms",
    "max ms",
    "syncs/s",
    "seen at risk",
    "loss, syncs",
    "loss to clients, syncs",
];

fn numbers(rows: &[Row]) -> String {
    let ratio = |spread: Option<Spread>| spread.map(|spread| format!("{:.2}", spread.median));
    let mut out = String::from("<table class=\"cards\">\n<thead><tr>");
    for title in TITLES {
        let _ = write!(out, "<th scope=\"col\">{title}</th>");
    }
    out.push_str(
        "<th scope=\"col\" class=\"words\">a power loss takes</th></tr></thead>\n<tbody>\n",
    );
    for row in rows {
        let cells = [
            Some(grouped(row.rps.median)),
            Some(grouped(row.rps.min)),
            Some(grouped(row.rps.max)),
            ratio(row.to_always),
            ratio(row.to_everysec),
            Some(format!("{:.2}", row.p50_ms)),
            Some(format!("{:.2}", row.p99_ms)),
            Some(format!("{:.1}", row.max_ms)),
            row.syncs_per_second.map(|spread| grouped(spread.median)),
            row.max_pending.map(|pending| grouped(pending as f64)),
            row.bound.map(|bound| grouped(bound as f64)),
            row.bound_to_clients.map(|bound| grouped(bound as f64)),
        ];
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escaped(&row.mode));
        for (cell, title) in cells.iter().zip(TITLES.iter().skip(1)) {
            let text = cell.as_deref().unwrap_or("–");
            let _ = write!(out, "<td data-title=\"{title}\">{text}</td>");
        }
        let loss = escaped(&row.stated_loss);
        let _ =
            writeln!(out, "<td class=\"words\" data-title=\"a power loss takes\">{loss}</td></tr>");
    }
    out.push_str("</tbody>\n</table>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::{is_seen_less, loads, numbers};
    use crate::commands::bench::drawing::{Size, frontier};
    use durac_workload::report::{Report, Row};
    use serde_json::json;

    /// A mode that serves so many requests per second.
    fn row(mode: &str, rps: f64, bounds: [Option<u64>; 2], loss: &str) -> Row {
        let spread = |median: f64| json!({ "median": median, "min": median, "max": median });
        let [bound, bound_to_clients] = bounds;
        serde_json::from_value(json!({
            "load": { "clients": 5, "pipeline": 1 },
            "mode": mode,
            "stated_loss": loss,
            "bound": bound,
            "bound_to_clients": bound_to_clients,
            "samples": 1,
            "rps": spread(rps),
            "to_always": spread(rps / 10_000.0),
            "to_everysec": null,
            "p50_ms": 0.25,
            "p99_ms": 0.5,
            "max_ms": 9.0,
            "syncs_per_second": null,
            "max_pending": null,
        }))
        .unwrap()
    }

    fn rows() -> [Row; 3] {
        [
            row("always", 10_000.0, [Some(0), Some(0)], "nothing acknowledged"),
            row("window n=16", 40_000.0, [Some(16), Some(16)], "at most 16 syncs"),
            row("external_synchrony", 13_000.0, [None, Some(0)], "nothing that a client has seen"),
        ]
    }

    #[test]
    fn loss_to_clients_is_drawn_beside_loss() {
        let rows = rows();
        assert_eq!(rows.each_ref().map(is_seen_less), [false, false, true]);
        let lines = |html: String| html.replace("><", ">\n<");
        insta::assert_snapshot!("frontier", lines(frontier(&rows, Size::NARROW)));
        insta::assert_snapshot!("numbers", lines(numbers(&rows)));
    }

    /// Where clients see all that is lost, the page does not speak of them.
    #[test]
    fn a_diamond_is_explained_where_there_is_one() {
        let [always, window, held] = rows();
        let page = |rows: Vec<Row>| {
            let report = json!({
                "version": 1, "workload": "redis", "started": 1, "seconds": 1.0, "rounds": 1,
                "requests": 1, "keyspace": 1, "stopped": null, "rows": rows, "samples": [],
                "machine": {
                    "cpu": "", "cores": 2, "kernel": "", "file_system": "", "device": "",
                    "fdatasync_us": 1.0, "redis": null, "load": 0.0,
                },
            });
            let report: Report = serde_json::from_value(report).unwrap();
            loads(&report)
        };
        let without = page(vec![always.clone(), window]);
        assert!(!without.contains("diamond") && !without.contains("\"clients\""), "{without}");
        let with = page(vec![always, held]);
        assert!(with.contains("diamond"), "{with}");
        // For a screen and for a telephone.
        assert_eq!(with.matches("class=\"clients\"").count(), 2, "{with}");
    }
}
