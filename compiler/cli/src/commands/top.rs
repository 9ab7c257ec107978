//! `durac top`: what runs under policies, and what a crash would take of it now.
//!
//! It reads the agents' status pages: two looks at each, an interval apart, give the rates.

use crate::args::{Format, Global, Top};
use crate::{Outcome, output};
use anyhow::{Context, Result};
use durac_compiler::unit::{Unit, show};
use durac_engine::status::{LogNumbers, LogStatus, Running, Snapshot, Status};
use durac_workload::sys;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// Back to the first line, the rest of the screen empty.
const CLEAR: &str = "\x1b[H\x1b[J";
/// Rates of less would say nothing.
const SHORTEST: Duration = Duration::from_millis(10);
/// How long an interruption may wait.
const NAP: Duration = Duration::from_millis(50);

/// A log over one interval.
#[derive(Serialize)]
struct Line {
    pid: u32,
    policy: String,
    params: String,
    log: String,
    /// Acknowledged sync calls that are not durable, and the most that ever were at once.
    at_risk: u64,
    most_at_risk: u64,
    /// Bytes that are written and not durable.
    bytes: u64,
    staged: u64,
    /// In a second.
    calls: f64,
    acknowledged: f64,
    syncs: f64,
    waits: f64,
    /// Mean duration of a sync, microseconds.
    sync_us: f64,
    /// Part of the interval that calls waited.
    waited: f64,
    slow: u64,
    /// The error that stopped the log.
    error: Option<String>,
}

/// Prints tables until there are enough, or somebody stops it.
pub fn run(args: &Top, global: &Global) -> Result<Outcome> {
    if args.interval < SHORTEST {
        let shortest = SHORTEST.as_millis();
        return Err(output::exit(1, format!("rates need an interval of at least {shortest}ms")));
    }
    sys::catch_interrupts();
    let terminal = io::stdout().is_terminal() && global.format != Format::Json;
    let count = args.count.unwrap_or(if terminal { u64::MAX } else { 1 });
    let mut before = look(&args.pids)?;
    for _ in 0..count {
        let since = Instant::now();
        while since.elapsed() < args.interval && !sys::interrupted() {
            std::thread::sleep(NAP.min(args.interval.saturating_sub(since.elapsed())));
        }
        if sys::interrupted() {
            break;
        }
        let now = look(&args.pids)?;
        let lines = lines(&before, &now, since.elapsed());
        let text = match global.format {
            Format::Json => serde_json::to_string(&lines).context("cannot write")? + "\n",
            _ if terminal => format!("{CLEAR}{}", table(&lines)),
            _ => table(&lines),
        };
        output::stdout(text.as_bytes())?;
        before = now;
    }
    Ok(Outcome::Fine)
}

/// What the pages of these processes say, or of all.
fn look(pids: &[u32]) -> Result<Vec<(u32, Snapshot)>> {
    let found: Vec<Running> = if pids.is_empty() {
        durac_engine::status::running()
    } else {
        let open = |&pid: &u32| {
            let status = Status::of_process(pid, false).map_err(|why| unreadable(pid, &why))?;
            Ok(Running { pid, status })
        };
        pids.iter().map(open).collect::<Result<_>>()?
    };
    if found.is_empty() {
        return Err(nothing_runs());
    }
    Ok(found.into_iter().map(|running| (running.pid, running.status.snapshot())).collect())
}

/// Nobody to show.
pub fn nothing_runs() -> anyhow::Error {
    let others = if sys::is_root() { "" } else { " that this user may see" };
    output::exit(1, format!("no process{others} has a log under a policy"))
}

/// Why the page of a process cannot be read.
pub fn unreadable(pid: u32, why: &io::Error) -> anyhow::Error {
    let why = match why.kind() {
        io::ErrorKind::NotFound if !std::path::Path::new(&format!("/proc/{pid}")).exists() => {
            "there is no such process".to_owned()
        }
        io::ErrorKind::NotFound => "it has no log under a policy".to_owned(),
        io::ErrorKind::PermissionDenied => "it is another user's".to_owned(),
        io::ErrorKind::InvalidData => "its agent is of another version".to_owned(),
        _ => output::reason(why),
    };
    output::exit(1, format!("process {pid}: {why}"))
}

fn lines(before: &[(u32, Snapshot)], now: &[(u32, Snapshot)], time: Duration) -> Vec<Line> {
    let mut lines = Vec::new();
    for (pid, seen) in now {
        let old = before.iter().find(|(old, then)| old == pid && then.since == seen.since);
        for (place, log) in seen.logs.iter().enumerate() {
            if log.numbers.descriptors == 0 {
                continue;
            }
            let then = old.and_then(|(_, then)| then.logs.get(place)).map(|log| &log.numbers);
            let then = then.filter(|then| then.generation == log.numbers.generation);
            lines.push(line(*pid, seen, log, then, time));
        }
    }
    lines
}

fn line(
    pid: u32,
    seen: &Snapshot,
    log: &LogStatus,
    then: Option<&LogNumbers>,
    time: Duration,
) -> Line {
    let numbers = &log.numbers;
    let seconds = time.as_secs_f64();
    // A log that was opened meanwhile began at 0.
    let rate = |of: fn(&LogNumbers) -> u64| {
        of(numbers).saturating_sub(then.map_or(0, of)) as f64 / seconds
    };
    let params = seen.params.iter().map(|param| {
        let unit = Unit::parse(&param.unit).unwrap_or(Unit::Unknown);
        format!("{}={}", printable(&param.name), show(param.value, unit))
    });
    let error = i32::try_from(numbers.error).ok().filter(|&error| error != 0);
    Line {
        pid,
        policy: printable(&seen.policy),
        params: params.collect::<Vec<_>>().join(" "),
        log: printable(&log.path),
        at_risk: numbers.pending(),
        most_at_risk: numbers.max_pending,
        bytes: numbers.pending_bytes,
        staged: numbers.staged,
        calls: rate(|n| n.calls),
        acknowledged: rate(|n| n.acknowledged),
        syncs: rate(|n| n.syncs),
        waits: rate(|n| n.waits),
        sync_us: numbers.latency_ns as f64 / 1e3,
        waited: rate(|n| n.wait_ns) / 1e9,
        slow: numbers.slow,
        error: error.map(|error| output::reason(&io::Error::from_raw_os_error(error))),
    }
}

/// Another process' text, with nothing in it that a terminal would obey.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

const TITLES: [&str; 12] = [
    "pid", "policy", "log", "at risk", "most", "bytes", "staged", "calls/s", "syncs/s", "sync µs",
    "waited", "slow",
];

fn table(lines: &[Line]) -> String {
    let mut rows = vec![TITLES.map(str::to_owned)];
    rows.extend(lines.iter().map(cells));
    let mut out = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let width = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            // Writing to a string cannot fail.
            let _ = match column {
                0 => write!(out, "{cell:>width$}"),
                1 | 2 => write!(out, "  {cell:width$}"),
                _ => write!(out, "  {cell:>width$}"),
            };
        }
        out.push('\n');
    }
    for line in lines {
        if let Some(error) = &line.error {
            let _ = writeln!(out, "{}: {} is stopped: {error}", line.pid, line.log);
        }
    }
    out
}

fn cells(line: &Line) -> [String; 12] {
    let policy = [line.policy.as_str(), &line.params];
    // The beginning of a path says least.
    let skipped = line.log.chars().count().saturating_sub(40);
    let tail: String = line.log.chars().skip(skipped).collect();
    [
        line.pid.to_string(),
        policy.join(" ").trim_end().to_owned(),
        if skipped > 0 { format!("…{tail}") } else { tail },
        line.at_risk.to_string(),
        line.most_at_risk.to_string(),
        line.bytes.to_string(),
        line.staged.to_string(),
        format!("{:.0}", line.calls),
        format!("{:.0}", line.syncs),
        format!("{:.0}", line.sync_us),
        format!("{:.0} %", line.waited * 100.0),
        line.slow.to_string(),
    ]
}
