//! One grammar: wherever a command takes a policy, `NAME:param=value` and `--set` set its parameters, and say the same
//! of a mistake.

use anyhow::{Context, Result, ensure};
use durac_tests::server::Under;
use durac_tests::{run_durac, show};
use serde_json::Value;
use tempfile::TempDir;

/// Replaces `@` by the policy, and `%` by a path in the folder.
fn words(line: &str, policy: &str, dir: &TempDir) -> Vec<String> {
    let path = |name: &str| dir.path().join(name).display().to_string();
    let word = |word: &str| match word {
        "@" => policy.to_owned(),
        _ if word.starts_with("@:") => format!("{policy}{}", &word[1..]),
        _ => word.strip_prefix('%').map_or_else(|| word.to_owned(), path),
    };
    line.split_whitespace().map(word).collect()
}

/// Every command that takes a policy, once with it at `@`.
const COMMANDS: [&str; 15] = [
    "check @",
    "check always @",
    "test @",
    "compile @ -o %out.o",
    "compile @ --emit mir",
    "run @ -- true",
    "run @ --engine supervisor -- true",
    "record -o %trace.json -p @ -- true",
    "simulate %no.json -p @",
    "crashtest @ --trials 1",
    "bench @ -n 10 -c 1 --rounds 1 --workload append-log",
    "compare @ always",
    "compare always @",
    "show @",
    "doctor @",
];

#[test]
fn every_command_refuses_wrong_parameters_alike() -> Result<()> {
    let dir = TempDir::new()?;
    let server = Under::policy("window").set("n=8").start()?;
    let pid = server.redis.pid().to_string();
    let running = [format!("reload @ {pid}"), "enable durac-no-such-unit @ --dry-run".to_owned()];
    let wrong = [
        ("window:m=1", "E0901", "the policy `window` has no parameter `m`"),
        ("window:n=99999", "E0901", "`n` must be in 1..=4096, found 99999"),
        ("window:n=10ms", "E0901", "invalid value `10ms` for `n`"),
        ("window:n", "E0901", "invalid assignment `n`"),
        ("window:n=1,n=2", "E0901", "`n` is set twice"),
        ("windw:n=1", "E0004", "did you mean the ready policy `window`?"),
    ];
    for line in COMMANDS.iter().copied().chain(running.iter().map(String::as_str)) {
        for (policy, code, message) in wrong {
            let ended = run_durac(words(line, policy, &dir))?;
            ensure!(ended.status.code() == Some(1), "{line} {policy}: {}", show(&ended));
            for part in [code, message] {
                ensure!(ended.stderr.contains(part), "{line} {policy}: {}", show(&ended));
            }
        }
        // Beside the name, where a command takes it.
        if line.starts_with("doctor") {
            continue;
        }
        let (before, after) = match line.split_once(" -- ") {
            Some((before, after)) => (before, format!(" -- {after}")),
            None => (line, String::new()),
        };
        for (policy, set, message) in
            [("window", "m=1", "has no parameter `m`"), ("window:n=1", "n=1", "`n` is set twice")]
        {
            let ended = run_durac(words(&format!("{before} --set {set}{after}"), policy, &dir))?;
            ensure!(
                ended.status.code() == Some(1) && ended.stderr.contains(message),
                "{line} {set}: {}",
                show(&ended)
            );
        }
    }
    // Nothing of it has changed what runs.
    let ended = run_durac(["show", &pid, "--format", "json"])?;
    let shown: Value = serde_json::from_str(&ended.stdout)?;
    ensure!(shown["params"][0]["value"] == 8, "{shown:#}");
    // A running policy's parameters are named alike.
    for (set, message) in [("m=1", "has no parameter `m`"), ("n=0", "`n` must be in 1..=4096")] {
        let ended = run_durac(["set", set, "--pid", &pid])?;
        ensure!(
            ended.status.code() == Some(1)
                && ended.stderr.contains("E0901")
                && ended.stderr.contains(message),
            "{}",
            show(&ended)
        );
    }
    Ok(())
}

/// The value arrives, and both ways to write it are one.
#[test]
fn every_command_takes_parameters_with_the_name() -> Result<()> {
    let dir = TempDir::new()?;
    let path = |name: &str| dir.path().join(name);
    let file = path("a:b.dur");
    std::fs::copy(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../stdlib/policies/window.dur"),
        &file,
    )?;
    let file = file.to_str().context("a path")?;
    let fine = |line: &str, policy: &str| -> Result<String> {
        let ended = run_durac(words(line, policy, &dir))?;
        ensure!(ended.status.success(), "{line} {policy}: {}", show(&ended));
        Ok(ended.stdout)
    };
    for (line, expected) in [
        ("check @:n=7", "parameter n: 7, in 1..=4096"),
        ("check @ --set n=7", "parameter n: 7, in 1..=4096"),
        ("test @:n=7", "passed"),
        ("show @:n=7", "(7 by default)"),
        ("show @ --set n=7", "(7 by default)"),
        ("compare @:n=7 @:n=6", "is at least as durable as"),
        ("doctor @:n=7", "(7 by default)"),
        ("compile @:n=7 --emit hir", "7"),
        ("run @:n=7 -- true", ""),
        ("run @:n=7 --engine supervisor -- true", ""),
        ("record -o %trace.json -p @:n=7 -- true", ""),
        ("compile @:n=7 -o %with.o", ""),
        ("compile @ --set n=7 -o %beside.o", ""),
    ] {
        for policy in ["window", file] {
            let said = fine(line, policy)?;
            ensure!(said.contains(expected), "{line} {policy}: {said}");
        }
    }
    ensure!(std::fs::read(path("with.o"))? == std::fs::read(path("beside.o"))?);
    // What is compiled has its bounds, and what is only shown has no parameters.
    let object = path("with.o");
    let object = object.to_str().context("a path")?;
    for (words, message) in [
        (vec!["run", &format!("{object}:n=3"), "--", "true"], "cannot be set in an object"),
        (vec!["show", &format!("{object}:n=3")], "`n=3` cannot be set"),
        (vec!["list", "--show", "window:n=3"], "`durac show window:n=3` has its bounds"),
        (vec!["simulate", "trace.json", "--set", "n=3"], "--set is for the policies of -p"),
    ] {
        let ended = run_durac(&words)?;
        ensure!(
            ended.status.code() == Some(1) && ended.stderr.contains(message),
            "{words:?}: {}",
            show(&ended)
        );
    }
    // A running process takes it, too.
    let server = Under::policy("always").start()?;
    let pid = server.redis.pid().to_string();
    let said = fine(&format!("reload @:n=7 {pid} --format json"), "window")?;
    let said: Value = serde_json::from_str(&said)?;
    let change = &said["processes"][0];
    ensure!(change["after"]["bound_syncs"] == 7, "{said:#}");
    ensure!(change["after"].get("bound_bytes").is_some_and(Value::is_null), "{said:#}");
    // Where nothing is lost, it is in no unit.
    for unit in ["bound_syncs", "bound_updates", "bound_bytes"] {
        ensure!(change["before"][unit] == 0, "{unit}: {said:#}");
    }
    Ok(())
}
