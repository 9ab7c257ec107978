//! `durac top` and `durac set` on a real redis-server that runs.

use anyhow::{Context, Result, ensure};
use durac_tests::server::{Under, until, until_written};
use durac_tests::{durac, heavy, run, show};
use serde_json::Value;
use std::collections::BTreeSet;

/// What `durac top` says of the only log of the process.
fn top(pid: &str) -> Result<Value> {
    let ended = run(durac(["top", pid, "--interval", "100ms", "--format", "json"])?)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let table: Value = serde_json::from_str(ended.stdout.lines().next().context("no line")?)?;
    let total = |name| table.pointer(name).and_then(Value::as_u64);
    ensure!(total("/total/logs") == Some(1) && total("/total/processes") == Some(1), "{table}");
    table.pointer("/logs/0").cloned().context("no log")
}

/// A parameter that is set holds for the next call, and what is shown is what happens.
#[test]
fn a_parameter_changes_while_it_runs() -> Result<()> {
    let _turn = heavy()?;
    let server = Under::policy("window").set("n=64").start()?;
    let pid = server.redis.pid().to_string();
    let writers = server.write(8, 1, 1_000_000, 0);
    until_written(&writers, 200)?;
    let mut seen = Value::Null;
    until("calls between two looks", || {
        seen = top(&pid)?;
        let more = |name: &str| seen[name].as_f64() > Some(0.0);
        Ok(more("calls") && more("acknowledged") && more("sync_p99_us"))
    })?;
    ensure!(seen["policy"] == "window" && seen["params"][0]["value"] == 64, "{seen}");
    // The bound stands beside it, and where the process is known by.
    ensure!(seen["bound_syncs"] == 64 && seen["bound_ms"] == 50.0 && seen["on"] == true, "{seen}");
    ensure!(seen["port"] == server.redis.port() && seen["directory"].is_string(), "{seen}");

    let ended = run(durac(["set", "--pid", &pid, "n=2"])?)?;
    ensure!(ended.status.success() && ended.stdout.contains("n = 64 → 2"), "{}", show(&ended));
    // The agent logs it, with the old and the new bound.
    let line = "power loss: at most n syncs (64 by default) and 50ms → at most n syncs (64 by default) and 50ms, 2 now";
    until("the agent's line", || Ok(server.redis.stderr().contains(line)))?;
    let mark = writers.so_far();
    until_written(&writers, mark + 200)?;
    let seen = top(&pid)?;
    ensure!(seen["params"][0]["value"] == 2 && seen["bound_syncs"] == 2, "{seen}");
    ensure!(seen["at_risk"].as_u64().is_some_and(|at_risk| at_risk <= 2), "{seen}");
    let _ = writers.stop();

    until("the end of what is at risk", || Ok(top(&pid)?["at_risk"] == 0))
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_set() -> Result<()> {
    let server = Under::policy("window").set("n=7").start()?;
    let pid = server.redis.pid().to_string();
    for (arguments, why) in [
        (&["set", "--pid", &pid, "n=5", "m=1"][..], "no parameter `m`"),
        (&["set", "--pid", &pid, "n=5", "n=5000"], "`n` must be in 1..=4096, found 5000"),
        (&["set", "--pid", &pid, "n=5ms"], "invalid value `5ms` for `n`"),
        (&["set", "--pid", &pid, "n"], "invalid assignment `n`"),
        (&["set", "--pid", &pid, "n=5", ":6379"], "expected NAME=VALUE; `--pid` names the process"),
        (&["set", "--pid", "1", "n=5"], "it has no log under a policy"),
        (&["top", "4000000000"], "no such process"),
        (&["top", "--interval", "0s"], "the interval must be at least 10ms"),
    ] {
        let ended = run(durac(arguments)?)?;
        ensure!(ended.status.code() == Some(1) && ended.stderr.contains(why), "{}", show(&ended));
    }
    ensure!(top(&pid)?["params"][0]["value"] == 7);
    Ok(())
}

/// The official parser of the format reads it, and the alerts and the dashboard name only what is there.
const PARSE: &str = r#"
import sys, json
from prometheus_client.parser import text_string_to_metric_families as parse
samples = [s for family in parse(sys.stdin.read()) for s in family.samples]
seen = {}
for s in samples:
    key = (s.name, tuple(sorted(s.labels.items())))
    assert key not in seen, f"twice: {key}"
    seen[key] = s.value
print(json.dumps([[s.name, s.labels, s.value] for s in samples]))
"#;

fn parsed(text: &str) -> Result<Vec<(String, Value, f64)>> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    // Debian's own, whose package python3-prometheus-client is.
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", PARSE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    python.stdin.take().context("stdin")?.write_all(text.as_bytes())?;
    let ended = python.wait_with_output()?;
    ensure!(ended.status.success(), "{text}");
    Ok(serde_json::from_slice(&ended.stdout)?)
}

#[test]
fn metrics() -> Result<()> {
    use std::io::{BufRead, BufReader, Read, Write};
    let _turn = heavy()?;
    let server = Under::policy("window").set("n=8").start()?;
    let pid = server.redis.pid().to_string();
    let writers = server.write(4, 1, 1_000_000, 0);
    until_written(&writers, 500)?;
    let ended = run(durac(["metrics", &pid])?)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let samples = parsed(&ended.stdout)?;
    let value = |name: &str| -> Result<f64> {
        let found =
            samples.iter().find(|(n, labels, _)| n == name && labels["pid"] == pid.as_str());
        Ok(found.with_context(|| format!("{name}: {}", ended.stdout))?.2)
    };
    ensure!(value("durac_at_risk_syncs")? <= 8.0 && value("durac_at_risk_syncs_max")? <= 8.0);
    ensure!(value("durac_at_risk_syncs_max")? > 0.0 && value("durac_parameter")? == 8.0);
    ensure!(value("durac_sync_calls_total")? >= 100.0 && value("durac_syncs_total")? >= 1.0);
    ensure!(value("durac_log_error")? == 0.0 && value("durac_policy_info")? == 1.0);
    ensure!(value("durac_bound_syncs")? == 8.0 && value("durac_policy_on")? == 1.0);
    ensure!(value("durac_sync_seconds_count")? >= 1.0 && value("durac_sync_seconds_sum")? > 0.0);
    ensure!(value("durac_not_asked")? == 0.0 && value("durac_storage_is_memory")? == 0.0);

    // Every metric is in the table of the documentation, and nothing else is.
    let page = include_str!("../../../docs/operating.md");
    let (_, table) = page.split_once("| metric |").context("a table of metrics")?;
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let told: BTreeSet<&str> =
        rows.flat_map(|row| row.split('`')).filter(|word| word.starts_with("durac_")).collect();
    let types = ended.stdout.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let printed: BTreeSet<&str> = types.filter_map(|line| line.split(' ').next()).collect();
    ensure!(told == printed, "{:?}", told.symmetric_difference(&printed));

    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring");
    for file in ["durac.rules.yml", "grafana.json"] {
        let text = std::fs::read_to_string(root.join(file))?;
        let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
        let named: Vec<&str> = text.split(word).filter(|w| w.starts_with("durac_")).collect();
        ensure!(named.len() > 4, "{file}");
        for name in named {
            let parts = ["_bucket", "_sum", "_count"];
            let family = parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
            ensure!(printed.contains(family), "{file}: {name}");
        }
    }
    let grafana: Value =
        serde_json::from_str(&std::fs::read_to_string(root.join("grafana.json"))?)?;
    ensure!(grafana["panels"].as_array().is_some_and(|panels| panels.len() > 4), "{grafana}");

    // Served over HTTP, to a scraper and to whoever else comes.
    let mut command = durac(["metrics", &pid, "--listen", "127.0.0.1:0"])?;
    let mut served = command.stderr(std::process::Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(served.stderr.take().context("stderr")?).read_line(&mut line)?;
    let address =
        line.trim().trim_start_matches("durac: serving http://").trim_end_matches("/metrics");
    let ask = |request: &str| -> Result<String> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let asked = || -> Result<()> {
        // They send nothing, and are not waited for: one after the other they would take longer than the scraper waits.
        let mut idle = Vec::new();
        for _ in 0..10 {
            idle.push(std::net::TcpStream::connect(address)?);
        }
        let answer = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let (head, body) = answer.split_once("\r\n\r\n").context("a head")?;
        ensure!(head.starts_with("HTTP/1.1 200 OK") && head.contains("version=0.0.4"), "{head}");
        ensure!(parsed(body)?.iter().any(|(name, ..)| name == "durac_at_risk_syncs"), "{body}");
        ensure!(ask("GET / HTTP/1.1\r\n\r\n")?.starts_with("HTTP/1.1 404"));
        ensure!(ask("POST /metrics HTTP/1.1\r\n\r\n")?.starts_with("HTTP/1.1 405"));
        // Too long, and no request at all: closed without an answer.
        ensure!(ask(&"x".repeat(9000)).unwrap_or_default().is_empty());
        ensure!(ask("GET /metrics HTTP/1.1\r\n\r\n")?.starts_with("HTTP/1.1 200"));
        Ok(())
    };
    let asked = asked();
    served.kill()?;
    served.wait()?;
    asked?;
    let _ = writers.stop();
    Ok(())
}
