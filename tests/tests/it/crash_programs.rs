//! `durac crashtest --check`: SQLite, LevelDB and RocksDB as Debian has them, under both engines, and a program that
//! never syncs. These tests need root and FUSE.
//!
//! `DURAC_TEST_CUTS=300` makes so many cuts in each test that looks for the bound.

use anyhow::{Context, Result, ensure};
use durac_tests::server::object;
use durac_tests::{agent, cc, durac, faulty_agent, heavy, run, show, tool};
use durac_workload::Policy;
use durac_workload::crash::{App, At, Config, Crash, Program, sync_library};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Every kind of power cut.
const CUTS: &str = "clean,reordered,torn";

fn example(path: &str) -> Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    Ok(root.join("examples").join(path).display().to_string())
}

/// The load of LevelDB, or of RocksDB.
fn load(database: &str) -> Result<PathBuf> {
    let library = format!("-l{database}");
    // The libraries come before the source.
    let define = if database == "rocksdb" { "-DROCKSDB" } else { "-DLEVELDB" };
    let options = &[define, "-Wl,--no-as-needed", &library, "-lpthread"];
    cc("../../examples/leveldb/load.c", &format!("load-{database}"), options)
}

/// How many cuts: `DURAC_TEST_CUTS`, or a few.
fn cuts(few: &str) -> String {
    std::env::var("DURAC_TEST_CUTS").unwrap_or_else(|_| few.to_owned())
}

/// The trials of a crash test that finds no violation.
fn trials(words: &[&str]) -> Result<Vec<Value>> {
    let _turn = heavy()?;
    let ended = run(durac(["crashtest", "--format", "json"].iter().chain(words))?)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let report: Value = serde_json::from_str(&ended.stdout)?;
    let trials = report.pointer("/policies/0/trials").and_then(Value::as_array);
    Ok(trials.context("trials")?.clone())
}

/// The most syncs that a crash takes: no more than the bound, and some. A few cuts can all come when nothing is pending:
/// then others are made.
fn most_lost(bound: u64, words: &[&str]) -> Result<()> {
    for round in 0..20 {
        let first = (1000 * round).to_string();
        let trials = trials(&[&["--first", first.as_str()], words].concat())?;
        let most = trials.iter().filter_map(|trial| trial.get("lost_syncs")?.as_u64()).max();
        ensure!(most <= Some(bound), "{words:?}: {trials:?}");
        if most > Some(0) {
            return Ok(());
        }
    }
    anyhow::bail!("the test sees no loss at all: {words:?}")
}

/// SQLite in so many processes, which the target has the supervisor run.
fn sqlite(n: u64, processes: &str) -> Result<()> {
    let policy = format!("{}:n={n}", example("sqlite/sqlite.dur")?);
    let script = example("sqlite/load.py")?;
    let check = format!("python3 '{script}' read {{dir}}/rows.db");
    let trials = cuts("3");
    let words = ["--trials", &trials, "--crash", CUTS, "--latency", "2000", "--check", &check];
    let load = ["--", "python3", &script, "write", "{dir}/rows.db", processes, "100000"];
    most_lost(n, &[&[policy.as_str()][..], &words, &load].concat())
}

#[test]
fn sqlite_in_one_process_loses_at_most_the_window() -> Result<()> {
    sqlite(16, "1")
}

#[test]
fn sqlite_in_four_processes_loses_no_more() -> Result<()> {
    sqlite(4, "4")
}

/// LevelDB or RocksDB with these threads, which a sync of one of them may serve.
fn tables(database: &str, engine: &str, threads: &str) -> Result<()> {
    let load = load(database)?.display().to_string();
    let policy = format!("{}:n=8", example(&format!("{database}/{database}.dur"))?);
    let own = match database {
        "rocksdb" => "ldb --db={dir}/db checkconsistency >&2 && ",
        _ => "",
    };
    let check = format!("{own}{load} read {{dir}}/db");
    let trials = cuts("2");
    // LevelDB refuses a log with a hole in it, which a file system can leave that writes blocks back in any order.
    let kinds = if database == "leveldb" { "clean,torn" } else { CUTS };
    let words = ["--trials", &trials, "--crash", kinds, "--latency", "1000", "--engine", engine];
    let check = ["--per-sync", threads, "--check", &check];
    let load = ["--", &load, "write", "{dir}/db", threads, "100000"];
    most_lost(8, &[&[policy.as_str()][..], &words, &check, &load].concat())
}

#[test]
fn leveldb_under_the_agent() -> Result<()> {
    tables("leveldb", "thread", "1")
}

#[test]
fn leveldb_under_the_supervisor() -> Result<()> {
    tables("leveldb", "supervisor", "4")
}

#[test]
fn rocksdb_under_the_agent() -> Result<()> {
    tables("rocksdb", "thread", "4")
}

#[test]
fn rocksdb_under_the_supervisor() -> Result<()> {
    tables("rocksdb", "supervisor", "1")
}

/// A server in Go with threads of its own, which writes tables, removes logs, and opens a file with `O_SYNC`. Its check goes
/// on writing after the cut, and reads all of it back once more.
#[test]
fn influxdb_loses_at_most_the_window() -> Result<()> {
    let policy = format!("{}:n=16", example("influxdb/influxdb.dur")?);
    let script = example("influxdb/load.py")?;
    let check = format!("python3 '{script}' read {{dir}}");
    let trials = cuts("2");
    let words = ["--trials", &trials, "--crash", "clean,torn", "--latency", "1000"];
    let check = ["--per-sync", "4", "--check", &check];
    let load = ["--", "python3", &script, "write", "{dir}", "4", "100000"];
    most_lost(16, &[&[policy.as_str()][..], &words, &check, &load].concat())
}

/// A test of a program with a claim of its own about the loss in syncs.
fn config(
    program: Program,
    policy: &str,
    sets: &[&str],
    power_loss: Option<u64>,
) -> Result<Config> {
    agent()?;
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let file = object(policy.as_ref(), &sets)?;
    Ok(Config {
        durac: tool()?,
        app: App::Program(program),
        policy: Some(Policy { file, sets: Vec::new(), engine: None }),
        sync_library: Some(sync_library()?),
        latency: Duration::from_millis(2),
        crashes: vec![Crash::Clean],
        at: vec![At::AfterAck, At::MidSync],
        seed: 11,
        power_loss,
        ..Config::default()
    })
}

/// Crashes until one is a violation; answers why, if one is.
fn first_violation(config: &Config, most: u32) -> Result<Option<String>> {
    let _turn = heavy()?;
    durac_disk::private_mounts()?;
    for number in 0..most {
        let trial = config.trial(number).with_context(|| format!("crash {number}"))?;
        if trial.violation.is_some() {
            return Ok(trial.violation);
        }
    }
    Ok(None)
}

fn leveldb() -> Result<Program> {
    let load = load("leveldb")?.display().to_string();
    let check = format!("{load} read {{dir}}/db");
    let words = [load.as_str(), "write", "{dir}/db", "1", "100000"];
    Ok(Program { load: words.map(Into::into).to_vec(), check, per_sync: 1 })
}

#[test]
fn a_bound_that_is_too_low_is_found() -> Result<()> {
    let config = config(leveldb()?, &example("leveldb/leveldb.dur")?, &["n=4"], Some(3))?;
    let why = first_violation(&config, 40)?;
    ensure!(why.as_ref().is_some_and(|w| w.contains("4 acknowledged syncs are lost")), "{why:?}");
    Ok(())
}

/// An agent that reports a sync before it has made it.
#[test]
fn a_wrong_agent_is_found() -> Result<()> {
    for (mistake, most) in [("early", 40), ("none", 1)] {
        let mut config = config(leveldb()?, &example("leveldb/leveldb.dur")?, &["n=4"], Some(4))?;
        config.latency = Duration::from_millis(5);
        config.env = vec![
            ("DURAC_AGENT".into(), faulty_agent()?.into()),
            ("DURAC_FAULT".into(), mistake.into()),
        ];
        let found = first_violation(&config, most)?;
        ensure!(found.is_some() == (mistake != "none"), "{mistake}: {found:?}");
    }
    Ok(())
}

/// A policy that has no bound to exceed, on a rollback journal, which is no log. The agent's order of syncs keeps the
/// database whole all the same; one without it (`DURAC_FAULT=drain`) has the check find damage.
#[test]
fn a_check_that_fails_is_a_violation() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let policy = folder.path().join("careless.dur");
    let hook = |name: &str| {
        format!("hook {name}(log: file) -> status {{ entry libc \"{name}\"\n may pass, skip }}\n")
    };
    std::fs::write(
        &policy,
        format!(
            "target any.file {{ files \"*\"\n callers many\n records none\n {}{} }}\n\
             policy careless\ntarget any.file\non fsync: skip\non fdatasync: skip\n",
            hook("fsync"),
            hook("fdatasync")
        ),
    )?;
    let script = example("sqlite/load.py")?;
    let words = ["python3", &script, "write", "{dir}/rows.db", "1", "100000"];
    let check = format!("python3 '{script}' read {{dir}}/rows.db");
    let program = Program { load: words.map(Into::into).to_vec(), check, per_sync: 1 };
    let mut config = config(program, policy.to_str().context("a path")?, &[], None)?;
    config.latency = Duration::from_micros(300);
    config.crashes = vec![Crash::Reordered];
    config.at = vec![At::AfterAck];
    for (mistake, most) in [("drain", 40), ("none", 2)] {
        config.env = vec![
            ("JOURNAL".into(), "DELETE".into()),
            ("DURAC_AGENT".into(), faulty_agent()?.into()),
            ("DURAC_FAULT".into(), mistake.into()),
        ];
        let why = first_violation(&config, most)?;
        let fails = why.as_ref().is_some_and(|why| why.contains("the check fails"));
        ensure!(fails == (mistake == "drain"), "{mistake}: {why:?}");
    }
    Ok(())
}

/// Acknowledgements through a pipe; and a load that ends by itself loses nothing.
#[test]
fn a_shell_that_acknowledges_elsewhere() -> Result<()> {
    let load = "echo chatter; for n in $(seq 20); do echo \"0 $n\" >>{dir}/a.log; \
                sync -d {dir}/a.log; echo \"0 $n\" >>{acks}; done";
    let words = ["--trials", "2", "--crash", "clean", "--at", "random"];
    let target = tempfile::Builder::new().suffix(".dur").tempfile()?;
    std::fs::write(
        target.path(),
        "policy lazy\ntarget posix.log\non fdatasync: skip\nflush within 1000s\n",
    )?;
    let policy = target.path().display().to_string();
    let check = ["--check", "cat {dir}/a.log", "--", "sh", "-c", load];
    let words = [&[policy.as_str()][..], &words, &check].concat();
    for trial in trials(&words)? {
        ensure!(trial["acknowledged"] == 20 && trial["ended"] == true, "{trial}");
        ensure!(trial["lost_commands"] == 0, "{trial}");
    }
    Ok(())
}

#[test]
fn what_is_wrong_with_a_load_is_told() -> Result<()> {
    let policy = example("leveldb/leveldb.dur")?;
    let lines = "exec 3>{dir}/a.log; for n in $(seq 2000); do echo \"0 $n\"; done; sleep 1000";
    for (words, code, says) in [
        (&["--check", "true", "--", "sh", "-c", ": {dir}"][..], 1, "the check needs `{dir}`"),
        (&["--check", ": {dir}", "--", "true"], 1, "the command after `--` needs `{dir}`"),
        (&["--", "true", "{dir}"], 1, "needs `--check`"),
        (
            &["--at", "rewrite", "--check", ": {dir}", "--", "true", "{dir}"],
            1,
            "needs a Redis-compatible server",
        ),
        (
            &["--check", ": {dir}", "--", "sh", "-c", "echo no room >&2; exit 3; : {dir}"],
            2,
            "no room",
        ),
        (
            &["--check", ": {dir}", "--", "sh", "-c", "echo 0 1; echo 0 1; : {dir}"],
            2,
            "acknowledged `0 1` twice",
        ),
        (&["--check", ": {dir}", "--", "true", "{dir}"], 2, "acknowledged nothing"),
        (
            &["--check", ": {dir}", "--", "sh", "-c", "head -c 99999 /dev/zero; echo; : {dir}"],
            2,
            "a line of more than 64 KiB",
        ),
        // Nothing is left of what was acknowledged.
        (
            &["--check", "echo 0 9; : {dir}", "--", "sh", "-c", &format!("{lines}; : {{dir}}")],
            1,
            "a hole: 0:0 is gone, and 0:8, which is later, is there",
        ),
        (
            &[
                "--check",
                "echo torn page {dir}; exit 7",
                "--",
                "sh",
                "-c",
                &format!("{lines}; : {{dir}}"),
            ],
            1,
            "the check fails (exit status: 7)",
        ),
    ] {
        let _turn = heavy()?;
        let mut command = durac(["crashtest", &policy, "--trials", "1", "--crash", "clean"])?;
        command.args(words);
        let ended = run(command)?;
        let said = format!("{}{}", ended.stdout, ended.stderr);
        ensure!(
            ended.status.code() == Some(code) && said.contains(says),
            "{words:?}: {}",
            show(&ended)
        );
    }
    Ok(())
}

/// A program whose log the target does not cover, or that makes no sync call, says nothing about the policy; nor does a
/// server of which it covers no log.
#[test]
fn a_policy_that_was_never_in_force_is_no_success() -> Result<()> {
    let policy = example("leveldb/leveldb.dur")?;
    let load = |name: &str, sync: &str| {
        format!(
            "import os, time\nf = os.open('{{dir}}/{name}', os.O_CREAT | os.O_WRONLY | os.O_APPEND)\nfor n in range(100):\n  \
             os.write(f, b'0 %d\\n' % n)\n  {sync}\n  os.write(1, b'0 %d\\n' % n)\n"
        )
    };
    let elsewhere = load("ledger.txt", "os.fdatasync(f)");
    let silent = load("a.log", "0");
    let logs = load("a.log", "os.fdatasync(f)");
    let no_log = "no log was opened that target `leveldb.log` covers (`*.log`)";
    // No sync call: the supervisor knows nothing of the log then. The agent knows of one process only.
    for (engine, load, says) in [
        ("thread", &elsewhere, Some(no_log)),
        ("supervisor", &elsewhere, Some(no_log)),
        ("supervisor", &silent, Some(no_log)),
        ("thread", &logs, None),
        ("supervisor", &logs, None),
    ] {
        let _turn = heavy()?;
        let mut command = durac(["crashtest", &policy, "--trials", "1", "--engine", engine])?;
        command.args(["--crash", "kill", "--check", "cat {dir}/*", "--", "python3", "-c", load]);
        let ended = run(command)?;
        let code = if says.is_some() { 2 } else { 0 };
        ensure!(
            ended.status.code() == Some(code) && ended.stderr.contains(says.unwrap_or("")),
            "{engine} {load}: {}",
            show(&ended)
        );
    }
    for (words, says) in [(&["--app", "builtin"][..], no_log), (&[][..], no_log)] {
        let _turn = heavy()?;
        let mut command = durac(["crashtest", &policy, "--trials", "1"])?;
        command.args(words);
        let ended = run(command)?;
        ensure!(
            ended.status.code() == Some(2) && ended.stderr.contains(says),
            "{words:?}: {}",
            show(&ended)
        );
    }
    Ok(())
}

/// A claim that is too low is found, and the line that repeats the crash finds it again.
#[test]
fn a_claim_is_repeated() -> Result<()> {
    let _turn = heavy()?;
    let mut command = durac(["crashtest", "window", "--app", "builtin", "--claim", "0"])?;
    command.args(["--trials", "4", "--crash", "clean"]);
    let ended = run(command)?;
    let (said, repeats) = (&ended.stdout, " --latency 500 --claim 0 --app builtin");
    ensure!(
        ended.status.code() == Some(1)
            && said.contains("exceeds the claim: ")
            && said.contains("acknowledged syncs are lost, claimed is 0")
            && said.contains(repeats),
        "{}",
        show(&ended)
    );
    Ok(())
}

/// What `at_least` assumes of a sync.
const ASSUMED: Duration = Duration::from_millis(100);

/// Prints the lines of `a.log` up to the first damage, as a program that never syncs must read its log: a later block may survive
/// without one before it.
const UNDAMAGED: &str = r"touch {dir}/a.log; tr '\0' '\n' <{dir}/a.log | awk '!NF {exit} {print}'";

/// `at_least` with a load whose log is `a.log`.
fn at_least(load: &str) -> Result<Config> {
    let words = ["sh", "-c", load].map(Into::into).to_vec();
    let program = Program { load: words, check: UNDAMAGED.into(), per_sync: 1 };
    let mut config = config(program, "at_least", &[], None)?;
    config.latency = Duration::from_millis(1);
    config.at = vec![At::Random];
    config.acts_on_writes = true;
    config.assume_sync = Some(ASSUMED);
    config.power_loss_within = Some(Duration::from_secs(1));
    Ok(config)
}

/// No crash takes more than the last second.
fn loses_a_second(config: &Config) -> Result<()> {
    for number in 0..cuts("2").parse()? {
        let _turn = heavy()?;
        let trial = config.trial(number)?;
        ensure!(trial.violation.is_none(), "crash {number}: {trial:?}");
    }
    Ok(())
}

/// A program that never syncs, and writes through a stream: what is older than a second survives. Without a policy the
/// same cuts find an older loss.
#[test]
fn a_program_that_never_syncs() -> Result<()> {
    let script = example("at-least/lines.py")?;
    let load = format!("python3 '{script}' | tee -a {{dir}}/a.log {{acks}} >/dev/null");
    let mut config = at_least(&load)?;
    // Longer than any sync here, on a busy machine, too.
    config.assume_sync = Some(Duration::from_secs(5));
    let policy = config.policy.take();
    let why = first_violation(&config, 20)?;
    ensure!(why.as_ref().is_some_and(|why| why.contains("proved is 1000 ms")), "{why:?}");
    config.policy = policy;
    config.assume_sync = Some(ASSUMED);
    loses_a_second(&config)
}

/// A daemon that opens its log, goes into the background, and never syncs.
const DAEMON: &str = r"
import itertools, os, sys, time
log = os.open(sys.argv[1], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
if os.fork():
    os._exit(0)
for number in itertools.count():
    line = f'0 {number}\n'.encode()
    os.write(log, line)
    os.write(1, line)
    time.sleep(0.003)
";

/// What is older than a second survives there, too.
#[test]
fn a_daemon_that_never_syncs() -> Result<()> {
    // The shell stays, for the test to see when the load ends.
    let load = format!("python3 -c \"{DAEMON}\" {{dir}}/a.log; exec sleep 3600");
    loses_a_second(&at_least(&load)?)
}

/// A static program, four processes of it, which only the supervisor reaches. Without a policy the same cuts find an older
/// loss.
#[test]
fn a_static_program_that_never_syncs() -> Result<()> {
    let program = cc("unsynced.c", "unsynced-static", &["-O1", "-static"])?.display().to_string();
    let load = [program.as_str(), "lines", "make", "{dir}/a.log", "4", "0", "12"];
    let alone =
        Program { load: load.map(Into::into).to_vec(), check: UNDAMAGED.into(), per_sync: 1 };
    let mut config = config(alone, "at_least", &[], None)?;
    config.policy = None;
    config.latency = Duration::from_millis(1);
    config.at = vec![At::Random];
    config.assume_sync = Some(Duration::from_secs(5));
    config.power_loss_within = Some(Duration::from_secs(1));
    let why = first_violation(&config, 20)?;
    ensure!(why.as_ref().is_some_and(|why| why.contains("proved is 1000 ms")), "{why:?}");
    let cuts = cuts("3");
    let words = ["at_least", "--engine", "supervisor", "--trials", &cuts, "--at", "random"];
    let more = ["--crash", CUTS, "--latency", "1000", "--check", UNDAMAGED, "--"];
    let trials = trials(&[&words[..], &more, &load].concat())?;
    ensure!(!trials.is_empty());
    Ok(())
}
