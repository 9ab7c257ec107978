//! `durac metrics`: what `durac top` shows, for Prometheus.
//!
//! Names follow Prometheus' conventions: base units, `_total` for what only grows. A log whose place was
//! given to another file begins at 0 again, which Prometheus takes for a restart.

use super::top;
use crate::args::Global;
use crate::{Outcome, bound, output, processes};
use anyhow::Result;
use clap::Args as ClapArgs;
use durac_grammar::render::printable;
use durac_shm::status::{Counting, LIMITS, LogNumbers, LogStatus, Running, Snapshot, Storage};
use durac_workload::sys;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Print counters of processes under policies in Prometheus' text format
///
/// Without `--listen` and `--output`, prints them once.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  durac metrics --listen 127.0.0.1:9469\n  durac metrics --output \
                        /var/lib/prometheus/node-exporter/durac.prom"
)]
pub struct Metrics {
    /// Processes, by number or by directory and port [default: every process under a policy]
    #[arg(value_name = "PID|DIR:PORT", value_parser = crate::args::word())]
    processes: Vec<String>,
    /// Serve them over HTTP, at `/metrics`, until interrupted
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "output")]
    listen: Option<SocketAddr>,
    /// Write them to a file, for the textfile collector of node_exporter
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
}

/// How long a client may take to send its request, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clients at once.
const CLIENTS: usize = 32;
/// Between two looks whether the command is to end.
const LOOK: Duration = Duration::from_millis(200);
/// No request of a scraper is longer.
const REQUEST: usize = 8 << 10;
/// How long an interruption may wait.
const NAP: Duration = Duration::from_millis(50);

/// Prints, writes or serves them.
pub fn run(args: &Metrics, global: &Global) -> Result<Outcome> {
    let pids = match args.processes.as_slice() {
        [] => Vec::new(),
        words => processes::named(words)?,
    };
    let Some(address) = args.listen else {
        let text = render(&look(&pids)?, now());
        match &args.output {
            Some(path) => {
                output::write_atomically(path, text.as_bytes(), 0o644)?;
                global
                    .document
                    .put(&serde_json::json!({ "output": path.display().to_string() }))?;
            }
            None if global.is_json() => {
                global.document.put(&serde_json::json!({ "text": text }))?
            }
            None => output::stdout(text.as_bytes())?,
        }
        return Ok(Outcome::Fine);
    };
    sys::catch_interrupts();
    let cannot = |why: io::Error| {
        output::exit(2, format!("cannot listen on {address}: {}", output::reason(&why)))
    };
    let listener = TcpListener::bind(address).map_err(cannot)?;
    listener.set_nonblocking(true).map_err(cannot)?;
    let bound = listener.local_addr().map_err(cannot)?;
    output::stderr(&format!("durac: serving http://{bound}/metrics\n"));
    if global.is_json() {
        // Said now: whoever waits for it can begin to ask.
        global.document.put(&serde_json::json!({ "url": format!("http://{bound}/metrics") }))?;
        global.document.print(Some("metrics"), 0, None)?;
    }
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        while !sys::interrupted() {
            match listener.accept() {
                // Too many that send nothing: the others come in their place in a moment.
                Ok(_) if served.load(Ordering::Relaxed) >= CLIENTS => std::thread::sleep(NAP),
                // A client that goes away, or sends nothing, harms nobody but itself.
                Ok((client, _)) => {
                    served.fetch_add(1, Ordering::Relaxed);
                    let (served, pids) = (&served, &pids);
                    let serve = move || {
                        let _ = serve(client, pids);
                        served.fetch_sub(1, Ordering::Relaxed);
                    };
                    if std::thread::Builder::new().spawn_scoped(scope, serve).is_err() {
                        served.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                Err(_) => std::thread::sleep(NAP),
            }
        }
    });
    Ok(Outcome::Fine)
}

/// What the pages say. No process at all is an empty answer, not an error: a scraper outlives them.
fn look(pids: &[u32]) -> Result<Vec<(u32, Snapshot)>> {
    if !pids.is_empty() {
        return top::look(pids);
    }
    let running = durac_shm::status::running().into_iter();
    Ok(running.map(|Running { pid, status }| (pid, status.snapshot())).collect())
}

/// Answers one request.
fn serve(mut client: TcpStream, pids: &[u32]) -> Result<()> {
    client.set_nonblocking(false)?;
    client.set_write_timeout(Some(PATIENCE))?;
    let until = Instant::now() + PATIENCE;
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || sys::interrupted() {
            return Ok(());
        }
        client.set_read_timeout(Some(left.min(LOOK)))?;
        let read = match client.read(&mut chunk) {
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => continue,
            read => read?,
        };
        if read == 0 || request.len() + read > REQUEST {
            return Ok(());
        }
        request.extend(chunk.iter().take(read));
    }
    let line = request.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let path = path.split('?').next().unwrap_or("");
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", "/metrics") => match look(pids) {
            Ok(seen) => ("200 OK", render(&seen, now())),
            Err(why) => ("503 Service Unavailable", format!("{why}\n")),
        },
        ("GET" | "HEAD", _) => ("404 Not Found", "durac serves /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "only GET\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: \
         {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes())?;
    if method == "GET" {
        client.write_all(body.as_bytes())?;
    }
    Ok(())
}

/// `CLOCK_MONOTONIC`, nanoseconds: the clock of the pages.
pub(super) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// A family of metrics of logs: name, type, help, value.
type Family = (&'static str, &'static str, &'static str, fn(&LogNumbers, u64) -> f64);

const SECONDS: f64 = 1e-9;

/// In the order of the output.
const FAMILIES: [Family; 28] = [
    ("at_risk_syncs", "gauge", "Acknowledged sync calls that are not durable", |n, _| {
        n.pending() as f64
    }),
    (
        "at_risk_syncs_max",
        "gauge",
        "Most sync calls at once that were acknowledged and not durable",
        |n, _| n.max_pending as f64,
    ),
    ("at_risk_bytes", "gauge", "Acknowledged bytes that are not durable", |n, _| {
        n.acknowledged_bytes as f64
    }),
    (
        "at_risk_bytes_max",
        "gauge",
        "Most bytes at once that were acknowledged and not durable",
        |n, _| n.max_bytes as f64,
    ),
    ("pending_bytes", "gauge", "Bytes written and not durable", |n, _| n.pending_bytes as f64),
    (
        "not_asked",
        "gauge",
        "1 if the application leaves writes without a sync call, so that the policy has no effect",
        |n, _| f64::from(n.not_asked != 0),
    ),
    (
        "uncalled_seconds",
        "gauge",
        "How long writes have been without a sync call",
        |n, now| match n.uncalled_since {
            0 => 0.0,
            since => now.saturating_sub(since) as f64 * SECONDS,
        },
    ),
    (
        "storage_is_memory",
        "gauge",
        "1 if a power cut empties the file system of the log",
        |n, _| f64::from(n.storage == Storage::Memory.code()),
    ),
    (
        "staged_syncs",
        "gauge",
        "Acknowledged sync calls whose writes are staged in memory",
        |n, _| n.staged as f64,
    ),
    ("staged_bytes", "gauge", "Acknowledged bytes that are staged in memory", |n, _| {
        n.staged_bytes as f64
    }),
    (
        "oldest_seconds",
        "gauge",
        "Age of the oldest sync call at risk; 0 without `flush within`",
        |n, now| {
            if n.oldest_since == 0 {
                0.0
            } else {
                now.saturating_sub(n.oldest_since) as f64 * SECONDS
            }
        },
    ),
    (
        "oldest_seconds_max",
        "gauge",
        "Greatest age of a sync call when it became durable; 0 without `flush within`",
        |n, _| n.oldest_ever_ns as f64 * SECONDS,
    ),
    ("sync_seconds_mean", "gauge", "Moving mean of the duration of a sync", |n, _| {
        n.latency_ns as f64 * SECONDS
    }),
    ("log_error", "gauge", "The errno that stopped the log; 0 while it works", |n, _| {
        n.error as f64
    }),
    ("log_descriptors", "gauge", "Open descriptors of the log", |n, _| n.descriptors as f64),
    (
        "staging_off",
        "gauge",
        "1 if something else could see or write the log, so that nothing is staged",
        |n, _| f64::from(n.stage_off != 0),
    ),
    ("window_syncs", "gauge", "Distance of the last await; 0 if there was none", |n, _| {
        n.window as f64
    }),
    ("sync_calls_total", "counter", "Sync calls begun", |n, _| n.calls as f64),
    (
        "acknowledged_early_total",
        "counter",
        "Sync calls acknowledged without a sync of their own",
        |n, _| n.deferred as f64,
    ),
    ("syncs_total", "counter", "Syncs that succeeded", |n, _| n.syncs as f64),
    ("sync_errors_total", "counter", "Syncs that failed", |n, _| n.errors as f64),
    ("written_bytes_total", "counter", "Bytes written to the log", |n, _| n.written as f64),
    ("waits_total", "counter", "Times that a call waited", |n, _| n.waits as f64),
    ("wait_seconds_total", "counter", "Time that calls waited", |n, _| n.wait_ns as f64 * SECONDS),
    ("slow_syncs_total", "counter", "Syncs that took a second or longer", |n, _| n.slow as f64),
    (
        "late_calls_total",
        "counter",
        "Sync calls that became durable after `flush within`",
        |n, _| n.late as f64,
    ),
    ("broken_assumptions_total", "counter", "Syncs that took longer than `assume sync`", |n, _| {
        n.broken_assumptions as f64
    }),
    ("overlapping_calls_total", "counter", "Calls that overlapped another and passed", |n, _| {
        n.overlaps as f64
    }),
];

/// Name, kind, help and value of a metric.
type OfProcess = (&'static str, &'static str, &'static str, fn(&Snapshot) -> u64);

/// What is of a process, and not of a log.
const OF_PROCESS: &[OfProcess] = &[
    (
        "held_reply_bytes",
        "gauge",
        "Bytes of replies that wait for a sync, or for their client",
        |s| s.held_bytes,
    ),
    ("held_connections", "gauge", "Connections with held replies", |s| s.held_connections),
    ("held_replies_total", "counter", "Replies that were held", |s| s.held_replies),
];

/// The text format, version 0.0.4.
fn render(seen: &[(u32, Snapshot)], now: u64) -> String {
    let mut out = String::new();
    head(&mut out, "policy_info", "gauge", "A process under a policy");
    for (pid, process) in seen {
        let (policy, target) = (label(&process.policy), label(&process.target));
        let _ = writeln!(
            out,
            "durac_policy_info{{pid=\"{pid}\",policy=\"{policy}\",target=\"{target}\"}} 1"
        );
    }
    bounds(&mut out, seen);
    head(&mut out, "parameter", "gauge", "Value of a parameter, durations in nanoseconds");
    for (pid, process) in seen {
        for param in &process.params {
            let (policy, name) = (label(&process.policy), label(&param.name));
            let value = param.value.max(param.min).min(param.max);
            let _ = writeln!(
                out,
                "durac_parameter{{pid=\"{pid}\",policy=\"{policy}\",name=\"{name}\"}} {value}"
            );
        }
    }
    for (name, kind, help, value) in OF_PROCESS {
        head(&mut out, name, kind, help);
        for (pid, process) in seen {
            let (policy, value) = (label(&process.policy), value(process));
            let _ = writeln!(out, "durac_{name}{{pid=\"{pid}\",policy=\"{policy}\"}} {value}");
        }
    }
    let logs: Vec<_> = seen.iter().flat_map(|(pid, process)| logs(*pid, process)).collect();
    updates(&mut out, &logs);
    times(&mut out, &logs);
    for (name, kind, help, value) in FAMILIES {
        head(&mut out, name, kind, help);
        for (labels, log) in &logs {
            let _ = writeln!(out, "durac_{name}{{{labels}}} {}", value(&log.numbers, now));
        }
    }
    out
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# HELP durac_{name} {help}.\n# TYPE durac_{name} {kind}");
}

/// What was proved, with the parameters of now. A process whose policy has no bound in a unit has no sample.
fn bounds(out: &mut String, seen: &[(u32, Snapshot)]) {
    let all: Vec<_> =
        seen.iter().map(|(pid, process)| (pid, process, bound::now(process))).collect();
    type Of = fn(&durac_shm::status::Amounts) -> Option<f64>;
    let families: [(&str, &str, Of); 4] = [
        ("bound_syncs", "Sync calls that a power loss can take at most", |b| {
            b.syncs.map(|n| n as f64)
        }),
        ("bound_updates", "Updates that a power loss can take at most", |b| {
            b.updates.map(|n| n as f64)
        }),
        ("bound_bytes", "Bytes that a power loss can take at most", |b| b.bytes.map(|n| n as f64)),
        ("bound_seconds", "Age of the oldest sync call that a power loss can take", |b| {
            b.within.map(|ns| ns as f64 / 1e9)
        }),
    ];
    for (name, help, of) in families {
        head(out, name, "gauge", help);
        for (pid, process, amounts) in &all {
            let Some(value) = of(amounts) else { continue };
            let policy = label(&process.policy);
            let _ = writeln!(out, "durac_{name}{{pid=\"{pid}\",policy=\"{policy}\"}} {value}");
        }
    }
    head(out, "open_logs", "gauge", "Logs that are open; without one the policy has no effect");
    for (pid, process, _) in &all {
        let policy = label(&process.policy);
        let shown = process.logs.iter().filter(|log| log.numbers.descriptors > 0).count() as u64;
        let open = shown + process.beyond;
        let _ = writeln!(out, "durac_open_logs{{pid=\"{pid}\",policy=\"{policy}\"}} {open}");
    }
    head(out, "logs_not_shown", "gauge", "Open logs that have no samples of their own");
    for (pid, process, _) in &all {
        let (policy, beyond) = (label(&process.policy), process.beyond);
        let _ = writeln!(out, "durac_logs_not_shown{{pid=\"{pid}\",policy=\"{policy}\"}} {beyond}");
    }
    head(out, "policy_on", "gauge", "0 if the policy was switched off");
    for (pid, process, _) in &all {
        let policy = label(&process.policy);
        let on = u8::from(!process.is_off);
        let _ = writeln!(out, "durac_policy_on{{pid=\"{pid}\",policy=\"{policy}\"}} {on}");
    }
    head(
        out,
        "policy_changes_total",
        "counter",
        "Times that the policy was exchanged, switched off or on",
    );
    for (pid, process, _) in &all {
        let _ = writeln!(out, "durac_policy_changes_total{{pid=\"{pid}\"}} {}", process.changes);
    }
}

/// Updates at risk, of logs on which they are counted.
fn updates(out: &mut String, logs: &[(String, LogStatus)]) {
    let counted = |n: &LogNumbers| Counting::of_code(n.counting) == Counting::Yes;
    type Of = fn(&LogNumbers) -> u64;
    let families: [(&str, &str, Of); 2] = [
        ("at_risk_updates", "Acknowledged updates that are not durable", |n| n.pending_updates),
        (
            "at_risk_updates_max",
            "Most updates at once that were acknowledged and not durable",
            |n| n.max_updates,
        ),
    ];
    for (name, help, of) in families {
        head(out, name, "gauge", help);
        for (labels, log) in logs.iter().filter(|(_, log)| counted(&log.numbers)) {
            let _ = writeln!(out, "durac_{name}{{{labels}}} {}", of(&log.numbers));
        }
    }
}

/// The histogram of sync times.
fn times(out: &mut String, logs: &[(String, LogStatus)]) {
    head(out, "sync_seconds", "histogram", "How long syncs took");
    for (labels, log) in logs {
        let mut below = 0_u64;
        let limits = LIMITS.iter().map(|limit| (*limit as f64 / 1e9).to_string());
        let limits = limits.chain(["+Inf".to_owned()]);
        for (limit, count) in limits.zip(log.times.counts) {
            below = below.saturating_add(count);
            let _ = writeln!(out, "durac_sync_seconds_bucket{{{labels},le=\"{limit}\"}} {below}");
        }
        let sum = log.times.sum_ns as f64 / 1e9;
        let _ = writeln!(out, "durac_sync_seconds_sum{{{labels}}} {sum}");
        let _ = writeln!(out, "durac_sync_seconds_count{{{labels}}} {below}");
    }
}

/// The open logs of a process with their labels. No two have the same: Prometheus would refuse the whole
/// answer. A file that was replaced and one that replaced it can be open under one name.
fn logs(pid: u32, process: &Snapshot) -> Vec<(String, LogStatus)> {
    let mut known = HashMap::new();
    let open = process.logs.iter().filter(|log| log.numbers.descriptors > 0);
    open.map(|log| {
        let (policy, path) = (label(&process.policy), label(&log.path));
        let times = known.entry(path.clone()).and_modify(|times| *times += 1).or_insert(1);
        let again = if *times > 1 { format!(" #{times}") } else { String::new() };
        (format!("pid=\"{pid}\",policy=\"{policy}\",log=\"{path}{again}\""), log.clone())
    })
    .collect()
}

/// The value of a label, escaped.
fn label(text: &str) -> String {
    printable(text).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::render;
    use durac_shm::status::{
        Amounts, Bound, Counting, LogNumbers, LogStatus, ParamStatus, Snapshot, SyncTimes,
    };

    #[test]
    fn text_format() {
        let mut times = SyncTimes::default();
        times.add(60_000);
        times.add(3_000_000_000);
        let numbers = LogNumbers {
            pending_updates: 4,
            counting: Counting::Yes.code(),
            calls: 9,
            acknowledged: 8,
            durable: 5,
            descriptors: 1,
            oldest_since: 1_000_000_000,
            ..LogNumbers::default()
        };
        let log =
            |path: &str, numbers| LogStatus { path: path.to_owned(), file: (0, 0), numbers, times };
        let process = Snapshot {
            bound: Bound {
                text: "at most n syncs (64 by default) and 50ms".to_owned(),
                amounts: Amounts {
                    syncs: Some(64),
                    within: Some(50_000_000),
                    ..Amounts::default()
                },
            },
            is_off: false,
            stays_off: false,
            changes: 2,
            most_syncs: 9,
            most_updates: 0,
            most_bytes: 0,
            is_go: false,
            is_supervisor: false,
            serves: (0, 0),
            held_bytes: 300,
            held_connections: 2,
            held_replies: 40,
            pid: 7,
            since: 0,
            policy: "window".to_owned(),
            target: "redis.aof".to_owned(),
            object: 0,
            children: 0,
            unplaced: 0,
            beyond: 6,
            params: vec![ParamStatus {
                name: "n".to_owned(),
                unit: "syncs".to_owned(),
                value: 32,
                default: 64,
                min: 1,
                max: 4096,
            }],
            logs: vec![log(r#"/a "b"\c"#, numbers), log("/closed", LogNumbers::default())],
        };
        let text = render(&[(7, process.clone())], 1_500_000_000);
        for line in [
            r#"durac_policy_info{pid="7",policy="window",target="redis.aof"} 1"#,
            r#"durac_parameter{pid="7",policy="window",name="n"} 32"#,
            r#"durac_at_risk_syncs{pid="7",policy="window",log="/a \"b\"\\c"} 3"#,
            r#"durac_oldest_seconds{pid="7",policy="window",log="/a \"b\"\\c"} 0.5"#,
            "# TYPE durac_sync_calls_total counter",
            r#"durac_bound_syncs{pid="7",policy="window"} 32"#,
            r#"durac_bound_seconds{pid="7",policy="window"} 0.05"#,
            r#"durac_policy_on{pid="7",policy="window"} 1"#,
            r#"durac_policy_changes_total{pid="7"} 2"#,
            r#"durac_at_risk_updates{pid="7",policy="window",log="/a \"b\"\\c"} 4"#,
            "# TYPE durac_sync_seconds histogram",
            r#"durac_sync_seconds_bucket{pid="7",policy="window",log="/a \"b\"\\c",le="0.0001"} 1"#,
            r#"durac_sync_seconds_bucket{pid="7",policy="window",log="/a \"b\"\\c",le="+Inf"} 2"#,
            r#"durac_sync_seconds_sum{pid="7",policy="window",log="/a \"b\"\\c"} 3.00006"#,
            r#"durac_open_logs{pid="7",policy="window"} 7"#,
            r#"durac_logs_not_shown{pid="7",policy="window"} 6"#,
            r#"durac_held_reply_bytes{pid="7",policy="window"} 300"#,
            r#"durac_held_replies_total{pid="7",policy="window"} 40"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("/closed") && !text.contains("durac_bound_updates{"));
        let twice = Snapshot { logs: vec![log("/a", numbers), log("/a", numbers)], ..process };
        let text = render(&[(7, twice)], 0);
        assert_eq!(
            text.matches(r#"durac_at_risk_syncs{pid="7",policy="window",log="/a"} 3"#).count(),
            1
        );
        assert!(text.contains(r#"log="/a #2"}"#), "{text}");
        assert!(render(&[], 0).lines().all(|line| line.starts_with("# ")));
    }
}
