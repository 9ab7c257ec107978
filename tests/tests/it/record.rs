//! `durac record` on real programs: what stands in a trace is what happened.

use anyhow::{Context, Result, ensure};
use durac_shm::status::Status;
use durac_tests::server::{Under, until, until_written};
use durac_tests::trace::{Trace, check_direct_syncs, check_schema, schema, sums};
use durac_tests::{append_log, durac, heavy, needs_root, run, show};
use durac_trace::{Event, Op, Source, Verdict, read_all};
use durac_workload::resp::Client;
use durac_workload::{Load, Stop, child, redis_benchmark, sys};
use std::collections::HashMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// The trace says what the agent's own counters say, and what lies in the log.
#[test]
fn a_trace_is_what_happened() -> Result<()> {
    let _turn = heavy()?;
    for policy in ["always", "delayed_fsync", "window", "everysec"] {
        let dir = TempDir::new()?;
        let path = dir.path().join("trace.json");
        let mut server = Under::policy(policy).trace(&path).start()?;
        let status = Status::open(&server.status_path())?;
        let load = Load { clients: 5, pipeline: 1 };
        redis_benchmark(&server.redis, load, 2000, 1_000_000)?;
        let log = server.redis.aof_dir().join("appendonly.aof.1.incr.aof");
        let code = server.redis.stop(Stop::Shutdown)?.and_then(|status| status.code());
        ensure!(code == Some(0), "{policy}: {}", server.redis.stderr());

        let trace = Trace::read(&path)?;
        ensure!(trace.end.dropped == 0, "{policy}: {:?}", trace.end);
        let recorded = &trace.header.recorded;
        ensure!(recorded.source == Source::Agent && recorded.cores > 0, "{recorded:?}");
        ensure!(recorded.policy == policy && recorded.target == "redis.aof", "{recorded:?}");
        let numbers = sums(&status);
        let calls = trace.count(|e| e.op.is_sync_call() && e.verdict != Verdict::Refused);
        ensure!(calls == numbers.calls && calls > 0, "{policy}: {calls} calls, {numbers:?}");
        let syncs = trace.count(|e| e.op == Op::Sync && e.result == 0);
        ensure!(syncs == numbers.syncs, "{policy}: {syncs} syncs, {numbers:?}");
        let acknowledged = trace.count(|e| matches!(e.verdict, Verdict::Defer | Verdict::Skip));
        ensure!(acknowledged == numbers.deferred, "{policy}: {acknowledged}, {numbers:?}");
        let (written, length) = (trace.written(0), log.metadata()?.len());
        ensure!(written == length, "{policy}: {written} bytes, {length} in the log");
        let opened: Vec<_> = trace.of(Op::Open).collect();
        ensure!(opened.len() == 1 && opened.iter().all(|e| e.path == log.to_string_lossy()));
        ensure!(trace.events.iter().all(|e| e.result == 0), "{policy}");
        let background = trace.count(|e| e.op == Op::Sync && e.background);
        // With `everysec`, less than a second may have passed.
        let expected = matches!(policy, "delayed_fsync" | "window");
        ensure!((background > 0) == expected || policy == "everysec", "{policy}: {background}");
        // Redis works between its calls, and its main thread makes them all.
        ensure!(trace.of(Op::Write).skip(1).all(|e| e.cpu > 0 && e.thread == 0), "{policy}");
        if policy == "always" {
            check_direct_syncs(&trace)?;
            ensure!(trace.of(Op::Fdatasync).all(|e| e.sync_cpu > 0 && e.wait == 0));
        }
        if policy == "delayed_fsync" {
            ensure!(trace.of(Op::Fdatasync).any(|e| e.wait > 0 && e.wait <= e.took));
        }
        check_schema(&path)?;
    }
    Ok(())
}

/// A rewrite opens a new log and closes the old one, and a child does it.
#[test]
fn a_rewrite_in_a_trace() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let path = dir.path().join("trace.json");
    let mut server = Under::policy("window").trace(&path).start()?;
    let writers = server.write(5, 4, u64::MAX, 0);
    until_written(&writers, 500)?;
    server.rewrite()?;
    until_written(&writers, writers.so_far() + 500)?;
    let acknowledged = writers.stop();
    ensure!(acknowledged.errors.is_empty(), "{:?}", acknowledged.errors);
    let log = server.redis.aof_dir().join("appendonly.aof.2.incr.aof");
    server.redis.stop(Stop::Shutdown)?;
    let trace = Trace::read(&path)?;
    let paths: Vec<_> = trace.of(Op::Open).map(|e| e.path.clone()).collect();
    ensure!(paths.len() == 2 && paths.iter().all(|p| p.ends_with(".incr.aof")), "{paths:?}");
    let closed: Vec<_> = trace.of(Op::Close).map(|e| e.log).collect();
    ensure!(closed == [0], "{closed:?}");
    ensure!(trace.of(Op::Fork).count() == 1 && trace.of(Op::Reap).count() == 1);
    ensure!(trace.written(1) == log.metadata()?.len());
    Ok(())
}

/// Killed at full load, the server leaves a whole trace.
#[test]
fn a_kill_leaves_a_trace() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let path = dir.path().join("trace.json");
    let mut server = Under::policy("window").trace(&path).start()?;
    let writers = server.write(5, 4, u64::MAX, 0);
    until_written(&writers, 2000)?;
    let code = server.redis.stop(Stop::Kill)?.and_then(|status| status.code());
    drop(writers.stop());
    ensure!(code == Some(128 + libc::SIGKILL), "{code:?}");
    let trace = Trace::read(&path)?;
    let length = server.redis.aof_dir().join("appendonly.aof.1.incr.aof").metadata()?.len();
    let written = trace.written(0);
    // It may have died between a write and its record, and between two parts of a record.
    ensure!(trace.end.dropped <= 1, "{:?}", trace.end);
    ensure!(written <= length && written > length / 2, "{written} of {length}");
    Ok(())
}

/// A sync that fails stands in the trace, and so does the call that learns of it.
#[test]
fn a_failed_sync_in_a_trace() -> Result<()> {
    let _turn = heavy()?;
    for policy in ["always", "window"] {
        let dir = TempDir::new()?;
        let path = dir.path().join("trace.json");
        let under = Under::policy(policy).trace(&path).env("DURAC_TEST_EIO_AFTER", "100");
        let mut server = under.start()?;
        let acknowledged = server.write(5, 1, u64::MAX, 0).join();
        ensure!(!acknowledged.errors.is_empty());
        let code = server.redis.wait(Duration::from_secs(300))?.and_then(|status| status.code());
        ensure!(code == Some(1), "{policy}: {code:?}");
        let trace = Trace::read(&path)?;
        let failed = |e: &&Event| e.result == libc::EIO;
        let syncs = trace.of(Op::Sync).filter(failed).count();
        let calls: Vec<_> = trace.events.iter().filter(|e| e.op.is_call()).filter(failed).collect();
        ensure!(syncs >= 1 && !calls.is_empty(), "{policy}: {syncs} syncs, {calls:?}");
        let first = calls.first().map(|call| call.verdict);
        let expected = if policy == "always" { Verdict::Pass } else { Verdict::Refused };
        ensure!(first == Some(expected), "{policy}: {calls:?}");
    }
    Ok(())
}

/// `durac-append-log` after `words`, with its logs in `dir`.
fn appending(words: &[&str], dir: &Path, options: &[&str]) -> Result<Command> {
    let program = append_log()?;
    let mut command = durac(words)?;
    command.arg(program).arg(dir).args(options);
    Ok(command)
}

/// What finds no room is counted; the rest is a trace.
#[test]
fn a_full_ring_is_counted() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let path = dir.path().join("trace.json");
    let out = path.to_str().context("path")?;
    let words = ["record", "-o", out, "--ring", "16", "--"];
    let ended = run(appending(&words, dir.path(), &["--records", "3000"])?)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let trace = Trace::read(&path)?;
    let happened = 3 * 3000;
    ensure!(trace.end.dropped > 0, "{:?}", trace.end);
    ensure!(trace.end.events + trace.end.dropped >= happened, "{:?}", trace.end);
    ensure!(ended.stderr.contains(&format!("{} dropped", trace.end.dropped)), "{}", show(&ended));
    Ok(())
}

/// A command that becomes another user has no ring, which is root's: it says so, runs under its policy, and
/// leaves an empty trace.
#[test]
fn a_command_that_changes_its_user() -> Result<()> {
    if !needs_root("nobody else to become") {
        return Ok(());
    }
    const NOBODY: u32 = 65534;
    // Where that user may go, with what it runs.
    let dir = tempfile::tempdir_in("/var/tmp")?;
    let file = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (out, agent, program, logs) =
        (file("trace.json"), file("agent.so"), file("append-log"), file("logs"));
    durac_tests::copy_program(&durac_tests::agent()?, &agent)?;
    durac_tests::copy_program(&append_log()?, &program)?;
    std::fs::create_dir(&logs)?;
    std::os::unix::fs::chown(&logs, Some(NOBODY), Some(NOBODY))?;
    for path in [dir.path(), agent.as_ref(), program.as_ref()] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    let user = format!("--reuid={NOBODY}");
    let mut words = vec!["record", "-o", &out, "--policy", "window", "--agent", &agent, "--"];
    words.extend(["setpriv", &user, "--clear-groups", &program, &logs, "--records", "50"]);
    let ended = run(durac(words)?)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let said = ["cannot record: ", "Permission denied", "policy `window`", "became another user"];
    ensure!(said.iter().all(|text| ended.stderr.contains(text)), "{}", show(&ended));
    // It has opened one.
    ensure!(!ended.stderr.contains("opened no log"), "{}", show(&ended));
    let written = std::fs::read_dir(&logs)?.map(|entry| Ok(entry?.metadata()?.len()));
    let written = written.collect::<std::io::Result<Vec<_>>>()?;
    ensure!(!written.is_empty() && written.iter().all(|&bytes| bytes > 0), "{written:?}");
    ensure!(Trace::read(out.as_ref())?.events.is_empty());
    Ok(())
}

/// The same run, seen by the agent and by strace.
#[test]
fn strace_sees_the_same() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let file = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (ours, text, theirs) = (file("ours.json"), file("strace.txt"), file("theirs.json"));
    let calls = "trace=openat,write,fsync,fdatasync,ftruncate,close,dup,fcntl,clone,clone3";
    let mut words = vec!["record", "-o", &ours, "--", "strace"];
    words.extend(["-f", "-ttt", "-T", "-e", calls, "-o", &text]);
    let options = ["--records", "300", "--threads", "3", "--every", "2"];
    let ended = run(appending(&words, dir.path(), &options)?)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let ended = run(durac(["record", "--from-strace", &text, "-o", &theirs])?)?;
    ensure!(ended.status.success(), "{}", show(&ended));

    let (ours, theirs) = (Trace::read(ours.as_ref())?, Trace::read(theirs.as_ref())?);
    ensure!(theirs.header.recorded.source == Source::Strace);
    let by_path = |trace: &Trace| -> HashMap<String, Vec<(Op, u64, i32)>> {
        let logs = trace.of(Op::Open).map(|open| {
            let of = trace.events.iter().filter(|e| e.log == open.log && e.op.is_call());
            // The agent counts a change of length as a byte to be synced; strace as none.
            (open.path.clone(), of.map(|e| (e.op, e.bytes, e.result)).collect())
        });
        logs.collect()
    };
    let (a, b) = (by_path(&ours), by_path(&theirs));
    ensure!(a.len() == 3 && a == b, "{a:?}\n{b:?}");
    ensure!(a.values().flatten().any(|c| c.1 > 0));
    ensure!(ours.of(Op::Sync).count() == theirs.of(Op::Sync).count());
    check_schema(dir.path().join("theirs.json").as_path())
}

#[test]
fn a_file_that_is_wrong_is_refused() -> Result<()> {
    let dir = TempDir::new()?;
    let text = dir.path().join("strace.txt");
    let out = dir.path().join("trace.json");
    std::fs::write(&out, "what was there")?;
    std::fs::write(&text, "7 100.5 fsync(3) = 0 <0.000100>\n7 100.6 fsync(")?;
    let import = |format: &str| -> Result<_> {
        let mut command = durac(["--format", format, "record", "--from-strace"])?;
        command.arg(&text).arg("-o").arg(&out);
        run(command)
    };
    let message = "a call without its result, as in `… = 0 <0.000123>`; the file was cut off here";
    let ended = import("human")?;
    ensure!(ended.status.code() == Some(1), "{}", show(&ended));
    let shown = format!("{}:2:9: error[E0701]: {message}\n", text.display());
    ensure!(ended.stderr == shown, "{}", show(&ended));
    let ended = import("json")?;
    let found: serde_json::Value = serde_json::from_str(&ended.stdout)?;
    let place = found.pointer("/diagnostics/0/labels/0/start").context("place")?;
    ensure!(*place == serde_json::json!({ "line": 2, "column": 9, "byte": 40 }), "{found}");
    ensure!(std::fs::read_to_string(&out)? == "what was there");
    Ok(())
}

/// The exit code is the command's; signals are passed on to it.
#[test]
fn the_command_ends_as_itself() -> Result<()> {
    let dir = TempDir::new()?;
    let path = dir.path().join("trace.json");
    let record = |script: &str| -> Result<Command> {
        let mut command = durac(["record", "-o"])?;
        command.arg(&path).args(["--", "sh", "-c", script]);
        Ok(command)
    };
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137)] {
        let ended = run(record(script)?)?;
        ensure!(ended.status.code() == Some(code), "{}", show(&ended));
        ensure!(ended.stderr.contains("the command opened no log"), "{}", show(&ended));
        let trace = Trace::read(&path)?;
        ensure!(trace.events.is_empty() && trace.header.recorded.command.len() == 3);
    }
    let ready = dir.path().join("ready");
    let script = "trap 'exit 9' TERM; : > \"$0\"; while :; do sleep 0.02; done";
    let mut command = record(script)?;
    command.arg(&ready).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    until("the start of the script", || Ok(ready.exists()))?;
    // Also one that comes right after the start is the command's.
    sys::kill(child.id(), libc::SIGTERM)?;
    ensure!(child.wait()?.code() == Some(9));
    Ok(())
}

#[test]
fn a_place_that_cannot_be_written() -> Result<()> {
    let dir = TempDir::new()?;
    let ran = dir.path().join("ran");
    let touch = ran.to_str().context("path")?;
    let ended = run(durac(["record", "-o", "/no/such/folder/t", "--", "touch", touch])?)?;
    ensure!(ended.status.code() == Some(2) && !ran.exists(), "{}", show(&ended));
    let ended = run(durac(["record", "-o", "-", "--", "touch", touch])?)?;
    ensure!(ended.status.code() == Some(1) && !ran.exists(), "{}", show(&ended));
    // It is full only when something is written: the command does not notice.
    let ended = run(durac(["record", "-o", "/dev/full", "--", "touch", touch])?)?;
    ensure!(ended.status.code() == Some(2) && ran.exists(), "{}", show(&ended));
    ensure!(ended.stderr.contains("cannot write `/dev/full`"), "{}", show(&ended));
    Ok(())
}

/// When durac is killed, the application goes on, and there is no half trace.
#[test]
fn without_durac_the_application_goes_on() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let path = dir.path().join("trace.json");
    let out = path.to_str().context("path")?;
    let options = ["--records", "4000", "--size", "10"];
    let mut command =
        appending(&["record", "-o", out, "--ring", "64", "--"], dir.path(), &options)?;
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let log = durac_workload::append_log::log_path(dir.path(), 1);
    let length = || log.metadata().map_or(0, |meta| meta.len());
    until("some records", || Ok(length() > 1000))?;
    child.kill()?;
    child.wait()?;
    until("all records", || Ok(length() == 40_000))?;
    ensure!(!path.exists());
    Ok(())
}

/// A server that goes to the background is recorded until it ends.
#[test]
fn a_daemon_is_recorded() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let path = dir.path().join("trace.json");
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = durac(["record", "-o"])?;
    command.arg(&path).arg("--").arg(child::which("redis-server")?).current_dir(dir.path());
    command.args(["--daemonize", "yes", "--bind", "127.0.0.1", "--save", "", "--port"]);
    command.arg(port.to_string()).args(["--appendonly", "yes", "--appendfsync", "always"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut recorder = command.spawn()?;
    until("an answer of the daemon", || {
        ensure!(recorder.try_wait()?.is_none(), "durac did not stay");
        Ok(Client::connect(port).and_then(|mut c| c.info("loading")).is_ok())
    })?;
    let mut client = Client::connect(port)?;
    for n in 0..50 {
        client.command(&["SET", &n.to_string(), "x"])?;
    }
    client.queue(&["SHUTDOWN"]);
    client.flush()?;
    let status = recorder.wait()?;
    ensure!(status.success(), "{status}");
    let trace = Trace::read(&path)?;
    ensure!(trace.of(Op::Write).count() >= 50 && trace.end.dropped == 0, "{:?}", trace.end);
    Ok(())
}

/// What the schema refuses, the reader refuses too.
#[test]
fn the_schema_refuses_what_is_wrong() -> Result<()> {
    const GOOD: &str = r#"{"format":"durac-trace","version":1,"recorded":{"source":"made","started":1},
        "events":[{"t":1,"op":"open","path":"/a"},{"t":2,"op":"write","bytes":3,"verdict":"pass"}],
        "end":{"events":2,"dropped":0}}"#;
    let schema = schema()?;
    let valid = |text: &str| -> Result<(bool, bool)> {
        Ok((schema.is_valid(&serde_json::from_str(text)?), read_all(text.as_bytes()).is_ok()))
    };
    ensure!(valid(GOOD)? == (true, true));
    for (from, to) in [
        ("durac-trace", "other"),
        ("\"version\":1", "\"version\":2"),
        ("\"source\":\"made\",", ""),
        ("\"source\"", "\"sauce\""),
        ("\"made\"", "\"found\""),
        ("\"started\":1", "\"started\":-1"),
        ("\"t\":2,", ""),
        ("\"op\":\"write\",", ""),
        ("\"write\"", "\"wrote\""),
        ("\"pass\"", "\"passed\""),
        ("\"bytes\":3", "\"bytes\":-3"),
        ("\"bytes\":3", "\"bytes\":2.5"),
        ("\"bytes\":3", "\"bytes\":\"3\""),
        ("\"bytes\":3", "\"log\":1048576"),
        ("\"bytes\":3", "\"thread\":4294967296"),
        ("\"bytes\":3", "\"result\":2147483648"),
        ("\"bytes\":3", "\"background\":1"),
        ("\"bytes\":3", "\"more\":3"),
        ("\"path\":\"/a\"", "\"path\":1"),
        (",\"dropped\":0", ""),
        ("\"dropped\":0", "\"dropped\":0,\"more\":1"),
        ("0}}", "0},\"more\":1}"),
    ] {
        ensure!(GOOD.contains(from), "{from}");
        let text = GOOD.replacen(from, to, 1);
        ensure!(valid(&text)? == (false, false), "{from} → {to}: {:?}", valid(&text)?);
    }
    Ok(())
}
