//! `--format json`: one document on standard output, of every command, whether it succeeds or fails.

#![allow(clippy::indexing_slicing, reason = "a test may fail")]

use anyhow::{Context, Result, ensure};
use durac_tests::server::Under;
use durac_tests::{durac, heavy, run, run_durac, show};
use durac_workload::{Load, Stop, redis_benchmark};
use serde_json::Value;
use std::collections::BTreeSet;
use tempfile::TempDir;

/// Whose standard output is a protocol of its own; `help` is clap's.
const WITHOUT: [&str; 2] = ["lsp", "help"];

/// Runs a command, and checks what every document has.
fn document(words: &[&str]) -> Result<(i32, Value)> {
    let at = words.iter().position(|word| *word == "--").unwrap_or(words.len());
    let (own, rest) = words.split_at(at);
    let ended = run(durac(own.iter().chain(&["--format", "json"]).chain(rest))?)?;
    let document: Value = serde_json::from_str(&ended.stdout)
        .with_context(|| format!("{words:?}: {}", show(&ended)))?;
    let code = ended.status.code().context("a signal")?;
    let fine = document["version"].is_u64()
        && document["command"] == words[0]
        && document["ok"] == (code == 0)
        && document["exit_code"] == code
        && document["diagnostics"].is_array();
    ensure!(fine, "{words:?}: {}", show(&ended));
    let error = &document["error"];
    let says = |d: &Value| d["severity"] == "error" && d["labels"][0]["start"]["line"].is_u64();
    let found = document["diagnostics"].as_array().is_some_and(|all| all.iter().any(says));
    // Why it failed is in it.
    let own = ["compare", "doctor", "fmt"].contains(&words[0]);
    let why = found || error["message"].is_string() || own;
    ensure!(if code == 0 { error.is_null() && !found } else { why }, "{words:?}: {document:#}");
    Ok((code, document))
}

/// The commands that `durac --help` lists.
fn commands() -> Result<BTreeSet<String>> {
    let ended = run_durac(["--help"])?;
    let listed = ended.stdout.split_once("Commands:\n").context("commands")?.1;
    let listed = listed.split("\n\n").next().unwrap_or_default();
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    Ok(names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

#[test]
fn every_command_prints_one_document() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (trace, out, root) = (path("trace.json"), path("out.o"), path("root"));
    let (strace, imported) = (path("strace.txt"), path("imported.json"));
    let (text, part) = (path("text.dur"), path("part.json"));
    std::fs::write(&text, "on fdatasync: pass\n")?;
    let lines = "7 100.1 openat(AT_FDCWD, \"/d/appendonly.aof.1.incr.aof\", O_WRONLY|O_APPEND) = 3 <0.000010>\n\
                 7 100.5 fdatasync(3) = 0 <0.000100>\n";
    std::fs::write(&strace, lines)?;
    let mut recorded = Under::policy("always").trace(&trace).start()?;
    redis_benchmark(&recorded.redis, Load { clients: 5, pipeline: 1 }, 2000, 1_000_000)?;
    recorded.redis.stop(Stop::Shutdown)?;
    let server = Under::policy("window").set("n=8").start()?;
    let pid = server.redis.pid().to_string();
    let pid = pid.as_str();

    let mut seen = BTreeSet::new();
    // In this order: what one leaves behind, another takes.
    for (words, code) in [
        (vec!["check", "window", &text, "--certificate"], 0),
        (vec!["check", "window", "no.dur"], 1),
        (vec!["check", "window", "--smt2"], 0),
        (vec!["compare", "window:n=4", "window:n=2"], 0),
        (vec!["compare", "window:n=2", "window:n=4"], 1),
        (vec!["compare"], 0),
        (vec!["compare", "window"], 1),
        (vec!["compile", "window", "-o", &out], 0),
        (vec!["compile", "window", "--emit", "asm"], 0),
        (vec!["compile", "window", "-o", "-"], 1),
        (vec!["compile", "window:n=0", "-o", &out], 1),
        (vec!["run", "window:m=1", "--", "true"], 1),
        (vec!["run", "window", "--", "no-such-command"], 127),
        (vec!["load", &out, "--target", "/bin/true"], 1),
        (vec!["record", "-o", &imported, "--from-strace", &strace], 0),
        (vec!["record", "-o", &imported, "--from-strace", &text], 1),
        (vec!["record", "-o", &imported, "-p", "no.dur", "--", "true"], 1),
        (vec!["simulate", &trace, "-p", "window:n=4", "--crash", "10"], 0),
        (vec!["simulate", &trace, "-p", "window", "--shard", "1/1", "--json", &part], 0),
        (vec!["simulate", &text], 1),
        (vec!["advise", &trace, "--at-most", "64syncs"], 0),
        (vec!["advise", "no.json"], 1),
        (vec!["test", "window", "always"], 0),
        (vec!["test", "window", "no.dur"], 1),
        (vec!["fmt", &text], 0),
        (vec!["fmt", "no.dur"], 1),
        (vec!["explain", "E0501"], 0),
        (vec!["explain", "E9999"], 1),
        (vec!["list"], 0),
        (vec!["list", "targets"], 0),
        (vec!["list", "--show", "window"], 0),
        (vec!["list", "--show", "windw"], 1),
        (vec!["bench", "window:n=4", "--workload", "append-log", "-n", "200", "--rounds", "1"], 0),
        (vec!["bench", "no.dur", "--workload", "append-log"], 1),
        (vec!["top", pid, "--once", "--interval", "20ms"], 0),
        (vec!["top", "4294967295"], 1),
        (vec!["metrics", pid], 0),
        (vec!["metrics", pid, "--output", &path("durac.prom")], 0),
        (vec!["metrics", "4294967295"], 1),
        (vec!["set", "n=4", "--pid", pid], 0),
        (vec!["set", "n=0", "--pid", pid], 1),
        (vec!["show", pid], 0),
        (vec!["show", &out], 0),
        (vec!["show", "window:n=4"], 0),
        (vec!["show", "no.o"], 1),
        (vec!["doctor", pid, "window"], 0),
        (vec!["doctor", "4294967295"], 1),
        (vec!["off", pid], 0),
        (vec!["off", "4294967295"], 1),
        (vec!["on", pid], 0),
        (vec!["on", "4294967295"], 1),
        (vec!["reload", "window:n=2", pid], 0),
        (vec!["reload", "window:n=0", pid], 1),
        (vec!["upgrade", pid], 1),
        (vec!["upgrade", "4294967295"], 1),
        (vec!["install", "--root", &root, "--prefix", "/usr"], 0),
        (vec!["install", "--prefix", "usr"], 1),
        (vec!["enable", "durac-no-such-unit", "windw"], 1),
        (vec!["disable", "durac-no-such-unit"], 1),
        (vec!["disable", "no/unit"], 1),
        (vec!["crashtest", "window:n=4", "--trials", "1", "--app", "builtin"], 0),
        (vec!["crashtest", "window:n=0", "--trials", "1", "--app", "builtin"], 1),
        (vec!["merge", &part], 0),
        (vec!["merge", "no.json"], 1),
    ] {
        let (found, document) = document(&words)?;
        ensure!(found == code, "{words:?}: {found}: {document:#}");
        seen.insert(words[0].to_owned());
    }
    let all: BTreeSet<String> =
        commands()?.into_iter().filter(|name| !WITHOUT.contains(&name.as_str())).collect();
    ensure!(seen == all, "not tried: {:?}", all.difference(&seen));
    Ok(())
}

/// What cannot even be parsed is told in a document, too, and what follows `--` is the command's.
#[test]
fn a_wrong_command_line_is_a_document() -> Result<()> {
    for words in [
        vec!["--format", "json", "chek", "window"],
        vec!["check", "--format=json", "--no-such-option", "window"],
        vec!["crashtest", "window", "--trials", "0", "--format", "json"],
    ] {
        let ended = run_durac(&words)?;
        let document: Value = serde_json::from_str(&ended.stdout)?;
        ensure!(
            ended.status.code() == Some(1)
                && document["ok"] == false
                && document["error"]["message"].as_str().is_some_and(|why| why.len() > 20),
            "{words:?}: {}",
            show(&ended)
        );
    }
    let ended = run_durac(["run", "always", "--", "echo", "--format", "json"])?;
    ensure!(ended.stdout == "--format json\n", "{}", show(&ended));
    Ok(())
}

/// A tool applies the fixes of a document by their bytes alone, until there are none.
#[test]
fn a_tool_can_apply_the_fixes() -> Result<()> {
    let dir = TempDir::new()?;
    let path = dir.path().join("first.dur");
    let file = path.to_str().context("a path")?;
    std::fs::write(
        &path,
        "policy: größe\nguarantee loss <= 16 fsyncs on power loss\n# warum\non fdatasync(fd) { await pending <= 15; \
         return defer; }\n",
    )?;
    // The first text has a name that a fix cannot guess.
    let text = std::fs::read_to_string(&path)?.replace("größe", "my-window");
    std::fs::write(&path, text)?;
    for _ in 0..8 {
        let (_, found) = document(&["check", file])?;
        let fixes = found["diagnostics"].as_array().into_iter().flatten();
        let mut fixes: Vec<&Value> = fixes
            .filter_map(|d| d.get("fix").filter(|f| f["safe"] == true && f["file"] == file))
            .collect();
        if fixes.is_empty() {
            break;
        }
        let byte = |fix: &Value, end: &str| fix[end]["byte"].as_u64().map(|at| at as usize);
        // From behind, so that what comes before keeps its place; of two that overlap, the first.
        fixes.sort_by_key(|fix| byte(fix, "start"));
        fixes.dedup_by(|b, a| byte(b, "start") < byte(a, "end") || b == a);
        let mut text = std::fs::read_to_string(&path)?;
        for fix in fixes.iter().rev() {
            let (start, end) = (byte(fix, "start"), byte(fix, "end"));
            let (start, end) = (start.context("start")?, end.context("end")?);
            text.replace_range(start..end, fix["text"].as_str().context("text")?);
        }
        std::fs::write(&path, text)?;
    }
    let (code, found) = document(&["check", file])?;
    ensure!(code == 0, "{found:#}\n{}", std::fs::read_to_string(&path)?);
    // One that names a parameter has what was probably meant.
    let (_, found) = document(&["check", "window:m=8"])?;
    let fix = &found["diagnostics"][0]["fix"];
    ensure!(fix["text"] == "n" && fix["safe"] == false, "{found:#}");
    Ok(())
}

/// A loss has a number in every unit: null is unbounded, and what loses nothing loses nothing in any.
#[test]
fn a_loss_has_every_unit() -> Result<()> {
    for (policy, bounds) in [
        ("always", serde_json::json!([0, 0, 0, 0])),
        ("no", serde_json::json!([null, null, null, null])),
        ("window:n=8", serde_json::json!([8, null, null, 50_000_000])),
    ] {
        let (_, checked) = document(&["check", policy])?;
        let (_, shown) = document(&["show", policy])?;
        for loss in [&checked["files"][0]["loss"], &shown["loss"]] {
            let power = loss.as_array().context("an array")?;
            let power = power.iter().find(|loss| loss["failure"] == "power_loss");
            let power = power.context("a power loss")?;
            let found: Vec<&Value> = ["syncs", "updates", "bytes", "within"]
                .iter()
                .map(|unit| power.get(unit).with_context(|| format!("{policy} {unit}: {power}")))
                .collect::<Result<_>>()?;
            ensure!(serde_json::json!(found) == bounds, "{policy}: {power}");
        }
    }
    Ok(())
}

/// A monitor's tables are a document each, on a line.
#[test]
fn top_writes_a_line_for_each_table() -> Result<()> {
    let server = Under::policy("window").start()?;
    let pid = server.redis.pid().to_string();
    let args = ["top", &pid, "--count", "3", "--interval", "20ms", "--format", "json"];
    let ended = run_durac(args)?;
    let tables: Vec<Value> =
        ended.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(tables.len() == 3, "{}", show(&ended));
    ensure!(tables.iter().all(|table| table["command"] == "top" && table["logs"].is_array()));
    Ok(())
}
