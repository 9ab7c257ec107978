//! `durac reload`, `off` and `on` on a real redis-server under load, and power cuts in the middle of them.

use anyhow::{Context, Result, bail, ensure};
use durac_shm::status::ControlPage;
use durac_tests::server::{Server, Under, object, until, until_written};
use durac_tests::{durac, faulty_agent, heavy, run, show, tool};
use durac_workload::crash::{App, At, Config, Crash, sync_library};
use durac_workload::{Policy, Stop};
use serde_json::Value;
use std::ffi::OsString;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

/// Compiles a text to an object.
fn compiled(dir: &Path, name: &str, text: &str) -> Result<OsString> {
    let (source, object) = (dir.join(format!("{name}.dur")), dir.join(format!("{name}.o")));
    std::fs::write(&source, text)?;
    let mut command = durac(["compile"])?;
    command.arg(&source).arg("-o").arg(&object);
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    Ok(object.into())
}

fn ready(policy: &str) -> Result<OsString> {
    Ok(object(policy.as_ref(), &[])?.into())
}

/// Runs `durac` on the server's process; returns the only change.
fn changed(server: &Server, words: &[&std::ffi::OsStr]) -> Result<Value> {
    let mut command = durac(["--format", "json"])?;
    command.args(words).arg(server.redis.pid().to_string());
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let changes: Value = serde_json::from_str(&ended.stdout)?;
    let change = changes.pointer("/processes/0").cloned().context("no change")?;
    let is_null = |name| change.get(name).is_none_or(Value::is_null);
    ensure!(is_null("refused") && !is_null("after"), "{change}");
    Ok(change)
}

fn top(server: &Server) -> Result<Value> {
    let pid = server.redis.pid().to_string();
    let ended = run(durac(["top", &pid, "--interval", "20ms", "--format", "json"])?)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let table: Value = serde_json::from_str(&ended.stdout)?;
    table.pointer("/logs/0").cloned().context("no log")
}

/// The same once `test` holds: between two looks that are close together a busy machine may make no call.
fn top_where(server: &Server, test: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut seen = Value::Null;
    until("what `durac top` is to show", || {
        seen = top(server)?;
        Ok(test(&seen))
    })?;
    Ok(seen)
}

/// The whole day of a policy, while clients write: exchanged, off, on, and nothing that was acknowledged is missing.
#[test]
fn a_policy_is_exchanged_under_load() -> Result<()> {
    let _turn = heavy()?;
    let mut server = Under::policy("window").set("n=64").start()?;
    let writers = server.write(8, 1, 1_000_000, 0);
    until_written(&writers, 200)?;
    let goes_on = || until_written(&writers, writers.so_far() + 200);

    let to = changed(&server, &["reload".as_ref(), &ready("delayed_fsync")?])?;
    ensure!(to["before"]["policy"] == "window" && to["before"]["bound_syncs"] == 64, "{to}");
    ensure!(to["after"]["policy"] == "delayed_fsync" && to["after"]["bound_syncs"] == 1, "{to}");
    goes_on()?;
    let seen = top_where(&server, |seen| seen["acknowledged"].as_f64() > Some(0.0))?;
    ensure!(seen["policy"] == "delayed_fsync" && seen["bound_syncs"] == 1, "{seen}");
    ensure!(seen["at_risk"].as_u64() <= Some(1), "{seen}");

    // Off: every call is durable when it returns, and nothing is deferred.
    let off = changed(&server, &["off".as_ref()])?;
    ensure!(off["after"]["on"] == false && off["after"]["bound_syncs"] == 0, "{off}");
    ensure!(off["after"]["bound_updates"] == 0 && off["after"]["bound_bytes"] == 0, "{off}");
    goes_on()?;
    let seen = top_where(&server, |seen| {
        seen["calls"].as_f64() > Some(0.0) && seen["syncs"].as_f64() > Some(0.0)
    })?;
    ensure!(seen["on"] == false && seen["at_risk"] == 0 && seen["acknowledged"] == 0.0, "{seen}");

    let on = changed(&server, &["on".as_ref()])?;
    ensure!(on["after"]["on"] == true && on["after"]["policy"] == "delayed_fsync", "{on}");
    goes_on()?;
    top_where(&server, |seen| seen["acknowledged"].as_f64() > Some(0.0))?;

    // What has changed is told even if the report cannot be written.
    let mut command = durac(["off", &server.redis.pid().to_string()])?;
    let full = std::fs::File::options().write(true).open("/dev/full")?;
    let told = command.stdout(full).output()?;
    let text = String::from_utf8_lossy(&told.stderr);
    ensure!(told.status.code() == Some(2) && text.contains("`delayed_fsync` off"), "{text}");
    changed(&server, &["on".as_ref()])?;

    // A text is proved first, and a parameter that both have keeps its value.
    changed(&server, &["reload".as_ref(), &ready("window")?])?;
    let pid = server.redis.pid().to_string();
    ensure!(run(durac(["set", "--pid", &pid, "n=5"])?)?.status.success());
    let dir = tempfile::tempdir()?;
    let text = dir.path().join("mine.dur");
    std::fs::write(
        &text,
        "target redis.aof\nparam n: syncs = 9 in 1..=10\non fdatasync: await pending < n; defer\n",
    )?;
    let mine = changed(&server, &["reload".as_ref(), text.as_os_str()])?;
    ensure!(mine["after"]["policy"] == "mine" && mine["after"]["bound_syncs"] == 5, "{mine}");
    goes_on()?;
    ensure!(top(&server)?["params"][0]["value"] == 5);

    // A compiled object has its own values, and says where they differ.
    let own = changed(&server, &["reload".as_ref(), &ready("window")?])?;
    let noted = "n = 64, as the object was compiled; it was 5";
    ensure!(own["after"]["bound_syncs"] == 64 && own["notes"][0] == noted, "{own}");
    goes_on()?;
    ensure!(top(&server)?["params"][0]["value"] == 64);

    // Each change is in the agent's log, with both bounds.
    let said = server.redis.stderr();
    for line in [
        "durac: policy `window` (power loss: at most n syncs (64 by default) and 50ms) → policy `delayed_fsync` (power loss: at most 1 sync",
        "→ policy `delayed_fsync` off (power loss: nothing)",
        "durac: policy `delayed_fsync` off (power loss: nothing) → policy `delayed_fsync`",
        "→ policy `mine` (power loss: at most n syncs (5 by default))",
    ] {
        ensure!(said.contains(line), "{line}\n{said}");
    }
    let acknowledged = writers.stop();
    server.reads_back(Stop::Kill, &[&acknowledged])
}

/// Whatever is wrong with the new policy, the old one stays in force, and says so.
#[test]
fn what_cannot_come_is_refused_without_harm() -> Result<()> {
    let _turn = heavy()?;
    let dir = tempfile::tempdir()?;
    let server = Under::policy("window").set("n=4").start()?;
    let pid = server.redis.pid().to_string();
    let writers = server.write(4, 1, 1_000_000, 0);
    until_written(&writers, 100)?;
    let log =
        compiled(dir.path(), "other", "target posix.log\non fdatasync: await previous; defer\n")?;
    let broken = dir.path().join("broken.dur");
    std::fs::write(
        &broken,
        "target redis.aof\nguarantee loss <= 1 syncs on power_loss\non fdatasync: await pending < 9; defer\n",
    )?;
    let garbage = dir.path().join("garbage.o");
    std::fs::write(&garbage, b"\x7fELF and nothing else")?;
    for (file, why) in [
        (log, "it is for target `posix.log`, and the process runs under `redis.aof`"),
        (ready("external_synchrony")?, "it holds replies"),
        (broken.into(), "E0501"),
        (garbage.into(), "is rejected"),
    ] {
        let mut command = durac(["reload"])?;
        let ended = run({
            command.arg(&file).arg(&pid);
            command
        })?;
        ensure!(ended.status.code() == Some(1) && ended.stderr.contains(why), "{}", show(&ended));
        let seen = top(&server)?;
        ensure!(
            seen["policy"] == "window" && seen["bound_syncs"] == 4 && seen["on"] == true,
            "{seen}"
        );
    }
    let again = run(durac(["on", &pid])?)?;
    ensure!(
        again.status.code() == Some(1) && again.stderr.contains("it is on"),
        "{}",
        show(&again)
    );
    until_written(&writers, writers.so_far() + 100)?;
    ensure!(top(&server)?["at_risk"].as_u64() <= Some(4));
    let _ = writers.stop();
    Ok(())
}

/// A server without a client is asked too: its event loop turns. One policy counts updates that the other did
/// not ask for: they are counted from the next log on.
#[test]
fn an_idle_server_changes_and_counts_from_its_next_log_on() -> Result<()> {
    let _turn = heavy()?;
    let server = Under::policy("window").start()?;
    let to = changed(&server, &["reload".as_ref(), &ready("updates")?])?;
    let notes = to["notes"].to_string();
    ensure!(notes.contains("from the next log on"), "{to}");
    let writers = server.write(4, 1, 1_000_000, 0);
    until_written(&writers, 200)?;
    let seen = top(&server)?;
    // Until then the policy is told the most, and each call syncs.
    ensure!(seen["not_counted"].is_string() && seen["at_risk"] == 0, "{seen}");
    server.rewrite()?;
    until("updates that are counted", || {
        let seen = top(&server)?;
        Ok(seen["not_counted"].is_null() && seen["most_updates"].as_u64() > Some(0))
    })?;
    ensure!(top(&server)?["most_updates"].as_u64() <= Some(100));
    let _ = writers.stop();
    Ok(())
}

/// Replies that are held, and writes that are staged: both end with `off`, in order, and come back with `on`.
#[test]
fn held_replies_and_staged_writes_go_and_come_back() -> Result<()> {
    let _turn = heavy()?;
    for (policy, there, comes_back) in
        [("external_synchrony", "acknowledged", true), ("batch", "staged", false)]
    {
        let mut server = Under::policy(policy).start()?;
        let writers = server.write(8, 1, 1_000_000, 0);
        let goes_on = || until_written(&writers, writers.so_far() + 200);
        let works = || top_where(&server, |seen| seen[there].as_f64() > Some(0.0));
        goes_on()?;
        works()?;
        changed(&server, &["off".as_ref()])?;
        goes_on()?;
        let seen = top(&server)?;
        ensure!(
            seen["staged"] == 0 && seen["at_risk"] == 0 && seen["acknowledged"] == 0.0,
            "{seen}"
        );
        changed(&server, &["on".as_ref()])?;
        goes_on()?;
        works()?;
        changed(&server, &["reload".as_ref(), &ready("window")?])?;
        goes_on()?;
        let back = changed(&server, &["reload".as_ref(), &ready(policy)?])?;
        // The one that came between did not ask for what staging needs.
        ensure!(
            back["notes"].as_array().is_some_and(|notes| notes.is_empty() == comes_back),
            "{back}"
        );
        goes_on()?;
        let acknowledged = writers.stop();
        server.reads_back(Stop::Shutdown, &[&acknowledged])?;
    }
    Ok(())
}

fn crashes(change: &[&[OsString]]) -> Result<Config> {
    let tool = tool()?;
    let command = |words: &&[OsString]| {
        let mut command: Vec<OsString> = vec![tool.clone().into()];
        command.extend(words.iter().cloned());
        command.push("{pid}".into());
        command
    };
    Ok(Config {
        durac: tool.clone(),
        app: App::Redis,
        policy: Some(Policy {
            file: object("window".as_ref(), &["n=4".to_owned()])?,
            sets: Vec::new(),
            engine: None,
        }),
        appendfsync: "always".to_owned(),
        sync_library: Some(sync_library()?),
        clients: 5,
        latency: Duration::from_millis(1),
        crashes: vec![Crash::Clean],
        at: vec![At::Random, At::MidSync, At::AfterAck],
        seed: 21,
        power_loss: Some(4),
        meanwhile: change.iter().map(command).collect(),
        ..Config::default()
    })
}

/// The power goes while policies come and go: never is more lost than the worst of them may lose.
#[test]
fn power_cuts_across_the_change() -> Result<()> {
    let _turn = heavy()?;
    durac_disk::private_mounts()?;
    let dir = tempfile::tempdir()?;
    // Its bound is smaller, and rests on what it counts.
    let counts = compiled(
        dir.path(),
        "counts",
        "target redis.aof\nguarantee loss <= 2 syncs on power_loss\nstate left: syncs = 2\non fdatasync {\n    if left == 0 { left = 2; \
         pass }\n    left = left - 1\n    skip\n}\n",
    )?;
    let window = object("window".as_ref(), &["n=4".to_owned()])?.into();
    let config = crashes(&[
        &["reload".into(), counts],
        &["off".into()],
        &["on".into()],
        &["reload".into(), window],
    ])?;
    // `DURAC_TESTS_LONG=N`: so many.
    let long = std::env::var("DURAC_TESTS_LONG").ok().and_then(|text| text.parse().ok());
    let count = long.unwrap_or(5);
    let (mut changes, mut lost) = (0, 0);
    // What a crash finds under way is chance: there are more of them until enough was.
    for number in 0..count + 40 {
        if number >= count && changes > u64::from(count) && lost > 0 {
            break;
        }
        let trial = config.trial(number).with_context(|| format!("crash {number}"))?;
        ensure!(trial.violation.is_none() && trial.lost_syncs <= 4, "{trial:?}");
        changes += trial.changes;
        lost += trial.lost_syncs;
    }
    ensure!(changes > u64::from(count) && lost > 0, "{changes} changes, {lost} lost");
    Ok(())
}

/// What was acknowledged before is durable when the policy is off, also if no call comes any more. An agent that
/// exchanges policies without a look at it is found.
#[test]
fn off_leaves_nothing_at_risk() -> Result<()> {
    let _turn = heavy()?;
    for faulty in [false, true] {
        // It syncs nothing by itself.
        let mut server = Under::policy("no");
        if faulty {
            server = server.env("DURAC_FAULT", "change");
            server.env.push(("DURAC_AGENT".into(), faulty_agent()?.into()));
        }
        let server = server.start()?;
        let writers = server.write(4, 1, 1_000_000, 0);
        until_written(&writers, 100)?;
        let _ = writers.stop();
        ensure!(top(&server)?["at_risk"].as_u64() > Some(0));
        let off = changed(&server, &["off".as_ref()])?;
        ensure!(
            off["before"]["bound_syncs"].is_null() && off["after"]["bound_syncs"] == 0,
            "{off}"
        );
        ensure!((top(&server)?["at_risk"] == 0) != faulty, "{}", top(&server)?);
    }
    Ok(())
}

/// The phase of the last command, from the page behind the status page: 0 if none waits, 1 if one does, 2 if it is being
/// carried out, 3 if it was answered (`durac_shm::status::ControlPage`).
fn phase(server: &Server) -> Result<u64> {
    for entry in std::fs::read_dir(format!("/proc/{}/fd", server.redis.pid()))? {
        let path = entry?.path();
        let is_page = |target: &Path| target.to_string_lossy().contains("memfd:durac-status");
        if std::fs::read_link(&path).is_ok_and(|target| is_page(&target)) {
            let page = std::fs::File::open(&path)?;
            let control = size_of::<ControlPage>() as u64;
            let start = page.metadata()?.len().checked_sub(control).context("a control page")?;
            let mut word = [0; 8];
            page.read_exact_at(&mut word, start)?;
            return Ok(u64::from_le_bytes(word) & 3);
        }
    }
    bail!("no status page")
}

/// Nor does it later: a tool that was interrupted, or killed, has asked for nothing.
#[test]
fn an_interrupted_command_changes_nothing() -> Result<()> {
    let _turn = heavy()?;
    let server = Under::policy("window").start()?;
    let writers = server.write(2, 1, 1_000_000, 0);
    until_written(&writers, 20)?;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
        server.redis.kill(libc::SIGSTOP)?;
        let mut command = durac(["off", &server.redis.pid().to_string()])?;
        let mut off = command.stdout(std::process::Stdio::null()).spawn()?;
        until("a command that waits", || Ok(phase(&server)? == 1))?;
        durac_workload::sys::kill(off.id(), signal)?;
        ensure!(!off.wait()?.success());
        server.redis.kill(libc::SIGCONT)?;
        let before = writers.so_far();
        until_written(&writers, before + 200)?;
        // Withdrawn, or carried out.
        until("the command's end", || Ok(matches!(phase(&server)?, 0 | 3)))?;
        let seen = top(&server)?;
        ensure!(seen["on"] == true && seen["policy"] == "window", "{signal}: {seen}");
        ensure!(phase(&server)? == 0, "{signal}: the command was carried out");
    }
    // And the next one is not in its way.
    changed(&server, &["off".as_ref()])?;
    Ok(())
}
