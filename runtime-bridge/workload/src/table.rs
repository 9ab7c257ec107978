//! The table of a report, as text.

use crate::bench::Workload;
use crate::columns::{Align, columns, counted, grouped};
use crate::report::{Report, Row};
use crate::stats::Spread;
use std::fmt::Write as _;

/// Shown where nothing was measured.
const NONE: &str = "–";
const COUNTED: &str =
    "syncs/s of the modes without a policy: of another run, under a policy that only counts";
const AT_RISK: &str = "at risk: most syncs ever seen acknowledged and not yet durable; bound: the most that a power loss\n\
    can take, as proved of a policy; clients: the most of it that a client can have seen";

/// The facts, one table for each load, and what the reader must know about them.
pub(crate) fn render(report: &Report) -> String {
    // Writing to a string cannot fail, so the results are dropped throughout.
    let mut out = String::new();
    let machine = &report.machine;
    let _ = writeln!(out, "{}, {} cores, Linux {}", machine.cpu, machine.cores, machine.kernel);
    let _ = write!(out, "{} on {}, ", machine.file_system, machine.device);
    let _ = write!(out, "fdatasync {:.0} µs, load {:.2}", machine.fdatasync_us, machine.load);
    if let Some(ms) = report.sync_ms {
        let _ = write!(out, ", logs on a disk in memory on which a sync takes {ms} ms");
    }
    let _ = match (machine.database(), report.workload) {
        (Some(database), Workload::Redis | Workload::Mix) => writeln!(out, ", {database}"),
        _ => writeln!(out, ", built-in append-log workload (no Redis)"),
    };
    if !machine.keeps_data() {
        let _ = writeln!(out, "note: {} keeps nothing: syncs are free here", machine.file_system);
    }
    if let Some(why) = machine.is_busy() {
        let _ = writeln!(out, "note: {why}");
    }
    if report.rows.iter().any(|row| row.max_pending.is_some()) {
        let _ = writeln!(out, "{AT_RISK}");
    }
    if report.rows.iter().any(|row| row.syncs_per_second.is_some() && row.max_pending.is_none()) {
        let _ = writeln!(out, "{COUNTED}");
    }
    let mut rows = report.rows.as_slice();
    while let Some(first) = rows.first() {
        let same = rows.iter().take_while(|row| row.load == first.load).count();
        let (table, rest) = rows.split_at(same);
        rows = rest;
        let _ = writeln!(out, "\n{}", title(report, first));
        out.push_str(&rows_as_text(table));
        out.push_str(&writes_as_text(table));
    }
    for why in report.too_wide() {
        let _ = writeln!(out, "note: {why}");
    }
    if let Some(why) = &report.stopped {
        let _ = writeln!(out, "\nnote: stopped early ({why}): not every round was measured");
    }
    out
}

fn title(report: &Report, row: &Row) -> String {
    let rounds = counted(row.samples as u64, "round");
    let requests = grouped(report.requests as f64 * f64::from(row.load.pipeline));
    match (report.workload, row.load.pipeline) {
        (Workload::Redis, _) => {
            format!("SET by redis-benchmark {}, {requests} requests, {rounds}", row.load)
        }
        (Workload::Mix, _) => {
            if let Some(writers) = report.writers {
                return format!(
                    "GET by {} beside SET by {writers} others, Zipf's keys, {requests} GETs, {rounds}",
                    row.load
                );
            }
            let reads = report.reads.unwrap_or(0);
            let writes = 100_u8.saturating_sub(reads);
            format!(
                "{reads} % GET, {writes} % SET by {}, Zipf's keys, {requests} requests, {rounds}",
                row.load
            )
        }
        (Workload::AppendLog, every) => {
            let writers = counted(row.load.clients.into(), "writer");
            let synced = match every {
                1 => "each synced".to_owned(),
                _ => format!("a sync every {every}"),
            };
            format!("{requests} records of 100 bytes, {synced}, {writers}, {rounds}")
        }
    }
}

fn rows_as_text(rows: &[Row]) -> String {
    let mut lines = vec![
        [
            "mode",
            "req/s",
            "min..max",
            "×always",
            "×everysec",
            "p50 ms",
            "p99 ms",
            "max ms",
            "syncs/s",
            "at risk",
            "bound",
            "clients",
            "stated loss on power loss",
        ]
        .map(str::to_owned),
    ];
    for row in rows {
        lines.push([
            row.mode.clone(),
            grouped(row.rps.median),
            format!("{}..{}", grouped(row.rps.min), grouped(row.rps.max)),
            ratio(row.to_always),
            ratio(row.to_everysec),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p99_ms),
            format!("{:.1}", row.max_ms),
            row.syncs_per_second.map_or(NONE.into(), |spread| grouped(spread.median)),
            row.max_pending.map_or(NONE.into(), |pending| grouped(pending as f64)),
            row.bound.map_or(NONE.into(), |bound| grouped(bound as f64)),
            row.bound_to_clients.map_or(NONE.into(), |bound| grouped(bound as f64)),
            row.stated_loss.clone(),
        ]);
    }
    let mut aligns = [Align::Right; 13];
    (aligns[0], aligns[12]) = (Align::Left, Align::Left);
    columns(&aligns, &lines)
}

/// What the clients that only write have seen, and how it compares to `always`.
fn writes_as_text(rows: &[Row]) -> String {
    let always = rows.iter().find(|row| row.mode == "always").and_then(|row| row.writes);
    let mut lines =
        vec![["mode", "SET/s", "SET p50 ms", "SET p99 ms", "p99 ×always"].map(str::to_owned)];
    for row in rows {
        let Some(writes) = row.writes else { continue };
        lines.push([
            row.mode.clone(),
            grouped(writes.per_second),
            format!("{:.2}", writes.median_ms),
            format!("{:.2}", writes.slow_ms),
            always.map_or(NONE.into(), |always| format!("{:.2}", writes.slow_ms / always.slow_ms)),
        ]);
    }
    if lines.len() == 1 {
        return String::new();
    }
    let mut aligns = [Align::Right; 5];
    aligns[0] = Align::Left;
    format!("\n{}", columns(&aligns, &lines))
}

fn ratio(spread: Option<Spread>) -> String {
    spread.map_or(NONE.into(), |spread| format!("{:.2}", spread.median))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn the_table() {
        let expected = "\
Some CPU, 2 cores, Linux 6.1.0
ext4 on /dev/vda, fdatasync 124 µs, load 0.25, Redis 7.0.15
at risk: most syncs ever seen acknowledged and not yet durable; bound: the most that a power loss
can take, as proved of a policy; clients: the most of it that a client can have seen

SET by redis-benchmark -c 5, 100,000 requests, 3 rounds
mode     req/s        min..max  ×always  ×everysec  p50 ms  p99 ms  max ms  syncs/s  at risk  bound  clients  stated loss on power loss
always  10,000   9,000..11,000     1.00          –    0.50    1.00    11.0        –        –      0        0  nothing
window  42,500  40,000..45,000     4.50          –    0.50    1.00    45.0    4,250       62     64       64  64 syncs, 50 ms

note: stopped early (interrupted): not every round was measured
";
        assert_eq!(render(&example()), expected);
    }

    #[test]
    fn free_syncs_are_pointed_out() {
        let mut report = example();
        report.machine.file_system = "tmpfs".into();
        report.workload = Workload::AppendLog;
        let text = render(&report);
        assert!(text.contains("note: tmpfs keeps nothing"), "{text}");
        assert!(text.contains("no Redis"), "{text}");
        let title = "\n100,000 records of 100 bytes, each synced, 5 writers, 3 rounds\n";
        assert!(text.contains(title), "{text}");
    }
}
