//! The tables: every number of each policy, and the events around each worst crash.

use super::Derived;
use super::figures::{bytes, count, escaped, time};
use crate::report::{Lane, LossReport, PolicyReport, Report};

/// Above which columns it stands, its title, its value for sorting, and how that is written. A
/// value that is not known sorts as the least.
struct Column {
    group: &'static str,
    title: &'static str,
    value: fn(&PolicyReport) -> Option<f64>,
    text: fn(f64) -> String,
}

const SPEED: &str = "Throughput per second";
const LATENCY: &str = "A sync call takes";
const COST: &str = "Cost";
const WORST: &str = "The worst crash loses";
const OTHER: &str = "Crashes lose syncs";

const COLUMNS: [Column; 16] = [
    column(SPEED, "commands", |p| p.commands_per_second, count),
    column(SPEED, "sync calls", |p| Some(p.calls_per_second), count),
    column(LATENCY, "p50", |p| Some(p.latency.p50_ns as f64), time),
    column(LATENCY, "p99", |p| Some(p.latency.p99_ns as f64), time),
    column(LATENCY, "p99.9", |p| Some(p.latency.p999_ns as f64), time),
    column(LATENCY, "max", |p| Some(p.latency.max_ns as f64), time),
    column(COST, "disk syncs / s", |p| Some(p.syncs as f64 / p.seconds.max(1e-9)), count),
    column(
        COST,
        "standing still",
        |p| Some(p.blocked_ns as f64 / 1e9 / p.seconds.max(1e-9)),
        percent,
    ),
    column(WORST, "syncs", |p| Some(p.loss.worst.syncs), count),
    column(WORST, "commands", |p| p.commands_per_second.map(|_| p.loss.worst.commands), count),
    column(WORST, "seen", |p| p.commands_per_second.map(|_| p.loss.worst.seen), count),
    column(WORST, "bytes", |p| Some(p.loss.worst.bytes), bytes),
    column(WORST, "the oldest", |p| Some(p.loss.worst.age_ns), time),
    column(OTHER, "mean", |p| Some(p.loss.mean.syncs), count),
    column(OTHER, "1 in 100 more than", |p| Some(p.loss.p99.syncs), count),
    column(OTHER, "crashes tried", |p| Some(p.loss.crashes as f64), count),
];

const fn column(
    group: &'static str,
    title: &'static str,
    value: fn(&PolicyReport) -> Option<f64>,
    text: fn(f64) -> String,
) -> Column {
    Column { group, title, value, text }
}

impl Column {
    /// Its title where nothing stands above it.
    fn in_full(&self) -> String {
        match self.group {
            SPEED => format!("{} / s", self.title),
            LATENCY => format!("a sync call takes, {}", self.title),
            WORST if self.title == "seen" => "commands that clients have seen".to_owned(),
            WORST => format!("the worst crash loses, {}", self.title),
            OTHER if self.title != "crashes tried" => format!("crashes lose syncs, {}", self.title),
            _ => self.title.to_owned(),
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// The table of all numbers, a row for each policy.
pub fn numbers(report: &Report, derived: &[Derived]) -> String {
    let commands = report.policies.iter().any(|p| p.commands_per_second.is_some());
    let columns: Vec<&Column> =
        COLUMNS.iter().filter(|c| commands || !["commands", "seen"].contains(&c.title)).collect();
    let groups: String = columns
        .chunk_by(|a, b| a.group == b.group)
        .filter_map(|group| Some((group.first()?.group, group.len())))
        .map(|(title, span)| {
            format!("<th scope=\"colgroup\" colspan=\"{span}\" class=\"first\">{title}</th>")
        })
        .collect();
    let titles = marked(&columns)
        .map(|(column, class)| format!("<th scope=\"col\"{class}>{}</th>", column.title))
        .collect::<String>();
    let mut out = format!(
        "<table id=\"numbers\" class=\"cards\">\n<thead>\n<tr><td></td><th scope=\"colgroup\" class=\"first\">Proved</th>\
         {groups}</tr>\n<tr><th scope=\"col\">policy</th><th scope=\"col\" class=\"first words\">\
         a power loss takes</th>{titles}</tr>\n</thead>\n<tbody>\n"
    );
    for (policy, derived) in report.policies.iter().zip(derived) {
        let label = escaped(&derived.label);
        out.push_str(&format!("<tr><th scope=\"row\" data-value=\"{label}\">{label}</th>"));
        let proved = escaped(policy.proved.as_ref().map_or("not known", |loss| &loss.text));
        out.push_str(&format!(
            "<td class=\"first words\" data-title=\"a power loss takes\" data-value=\"{proved}\">{proved}</td>"
        ));
        for (column, class) in marked(&columns) {
            let value = (column.value)(policy);
            let text = value.map_or_else(|| "–".to_owned(), column.text);
            let value = value.unwrap_or(-1.0);
            let title = column.in_full();
            out.push_str(&format!(
                "<td data-title=\"{title}\" data-value=\"{value}\"{class}>{text}</td>"
            ));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>");
    out
}

/// Each column, with the attribute that marks the first one of a group.
fn marked<'a>(columns: &'a [&'a Column]) -> impl Iterator<Item = (&'a Column, &'static str)> {
    let before = std::iter::once("").chain(columns.iter().map(|c| c.group));
    columns.iter().zip(before).map(|(column, before)| {
        (*column, if column.group == before { "" } else { " class=\"first\"" })
    })
}

/// A table for each policy that has a timeline, folded away.
pub fn events(report: &Report, derived: &[Derived]) -> String {
    let policies = report.policies.iter().zip(derived).enumerate();
    policies
        .filter(|(_, (policy, _))| !policy.timeline.is_empty())
        .map(|(at, (policy, derived))| one(at, policy, derived))
        .collect()
}

fn one(at: usize, policy: &PolicyReport, derived: &Derived) -> String {
    let crash = policy.loss.worst_instant.as_ref().map(|instant| instant.t_ns);
    let origin = crash.or_else(|| policy.timeline.first().map(|e| e.start_ns)).unwrap_or(0);
    let mut out = format!(
        "<details class=\"events\" data-policy=\"{at}\">\n<summary>The events as a table: {}</summary>\n\
         <p>{}</p>\n<div class=\"wide\" tabindex=\"0\">\n<table>\n<thead><tr><th scope=\"col\">begins</th>\
         <th scope=\"col\">takes</th><th scope=\"col\">who</th><th scope=\"col\">what</th>\
         <th scope=\"col\">in the crash</th></tr></thead>\n<tbody>\n",
        escaped(&derived.label),
        escaped(&sentence(&policy.loss)),
    );
    for (index, event) in policy.timeline.iter().enumerate() {
        let fate = match crash {
            _ if derived.lost.binary_search(&index).is_ok() => "lost",
            Some(crash) if event.start_ns > crash => "after it",
            Some(crash) if event.end_ns > crash => "under way",
            _ => "",
        };
        let mark = if fate == "lost" { " fate-lost" } else { "" };
        let lane = match event.lane {
            Lane::Application => "application",
            Lane::Engine => "engine",
            Lane::Disk => "disk",
        };
        out.push_str(&format!(
            "<tr><td>{}</td><td>{}</td><td class=\"words\">{lane}</td><td class=\"words\">{}</td>\
             <td class=\"words{mark}\">{fate}</td></tr>\n",
            relative(event.start_ns, origin),
            match event.end_ns.saturating_sub(event.start_ns) {
                0 => "–".to_owned(),
                ns => time(ns as f64),
            },
            escaped(&event.text),
        ));
    }
    out.push_str("</tbody>\n</table>\n</div>\n</details>\n");
    out
}

/// What the worst crash is.
fn sentence(loss: &LossReport) -> String {
    let Some(instant) = &loss.worst_instant else {
        return "No crash loses anything. Times count from the first event.".to_owned();
    };
    format!(
        "The worst crash comes {} after the beginning, at event {}: {}. It loses {} acknowledged \
         sync calls. Times count from it.",
        time(instant.t_ns as f64),
        count(instant.event as f64),
        instant.text,
        count(loss.worst.syncs),
    )
}

/// `−1.2 ms`, `+35 µs`.
fn relative(at: u64, origin: u64) -> String {
    match at.checked_sub(origin) {
        Some(0) => "0".to_owned(),
        Some(after) => format!("+{}", time(after as f64)),
        None => format!("−{}", time((origin - at) as f64)),
    }
}
