//! A policy that is not asked says so: the agent, `durac top`, and the metrics.

use anyhow::{Context, Result, ensure};
use durac_tests::server::{Server, Under, object, until, until_written};
use durac_tests::{durac, heavy, run, show, tool};
use durac_workload::{Redis, RedisConfig};
use serde_json::Value;

fn top(server: &Server) -> Result<Value> {
    let pid = server.redis.pid().to_string();
    let ended = run(durac(["top", &pid, "--interval", "20ms", "--format", "json"])?)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let table: Value = serde_json::from_str(&ended.stdout)?;
    table.pointer("/logs/0").cloned().context("no log")
}

fn says(server: &Server, line: &str) -> Result<()> {
    until(line, || Ok(server.redis.stderr().contains(line)))
}

/// `CONFIG SET appendfsync`, while clients write: seen, told, and taken back.
#[test]
fn a_policy_that_is_not_asked_is_told() -> Result<()> {
    let _turn = heavy()?;
    let server = Under::policy("window").start()?;
    let writers = server.write(4, 1, 10_000_000, 0);
    until_written(&writers, 100)?;
    ensure!(top(&server)?["not_asked"].is_null());
    let mut client = server.redis.client()?;
    for mode in ["everysec", "no"] {
        client.command(&["CONFIG", "SET", "appendfsync", mode])?;
        until("it is seen", || Ok(top(&server)?["not_asked"].is_string()))?;
        let seen = top(&server)?;
        ensure!(seen["not_asked"].to_string().contains("set `appendfsync always`"), "{seen}");
        // Bytes are those that are written and not durable, also without a sync call.
        until("bytes", || Ok(top(&server)?["bytes"].as_u64() > Some(0)))?;
        let pid = server.redis.pid().to_string();
        let metrics = run(durac(["metrics", &pid])?)?.stdout;
        ensure!(metrics.lines().any(|l| l.starts_with("durac_not_asked{") && l.ends_with("} 1")));
        says(&server, "leaves writes without a sync call (for ")?;
        client.command(&["CONFIG", "SET", "appendfsync", "always"])?;
        until("it has an effect again", || Ok(top(&server)?["not_asked"].is_null()))?;
    }
    let line = "every write is followed by a sync call: the policy has an effect again";
    until(line, || Ok(server.redis.stderr().matches(line).count() == 2))?;
    let _ = writers.stop();
    Ok(())
}

/// From the file: a log that is never synced, and one in memory, which a power cut empties.
#[test]
fn a_log_in_memory_that_is_never_synced() -> Result<()> {
    let _turn = heavy()?;
    let memory = tempfile::TempDir::with_prefix_in("durac-", "/dev/shm")?;
    let under = Under { data: Some(memory.path().to_owned()), ..Under::policy("window") };
    let server = under.line("appendfsync", "no").start()?;
    says(&server, "it is in memory (tmpfs): a power cut takes all of it")?;
    let writers = server.write(4, 1, 10_000_000, 0);
    says(&server, "the application never calls a sync on it (for ")?;
    let seen = top(&server)?;
    ensure!(seen["storage"].to_string().contains("tmpfs"), "{seen}");
    let _ = writers.stop();
    Ok(())
}

/// Redis without a log, from its file and by `CONFIG SET`.
#[test]
fn no_log_at_all() -> Result<()> {
    let _turn = heavy()?;
    let line = "policy `window` has no effect: no file that it covers (*.incr.aof temp-*.aof.incr appendonly.aof) is open: \
                set `appendonly yes`";
    let object = object("window".as_ref(), &[])?;
    let words = [tool()?.into(), "run".into(), object.into_os_string(), "--".into()];
    let without = Redis::start(RedisConfig { prefix: words.into(), ..RedisConfig::default() })?;
    let server = Under::policy("window").start()?;
    let mut client = server.redis.client()?;
    client.command(&["CONFIG", "SET", "appendonly", "no"])?;
    says(&server, line)?;
    let seen = top(&server)?;
    ensure!(seen["not_asked"] == "no log is open: set `appendonly yes`", "{seen}");
    client.command(&["CONFIG", "SET", "appendonly", "yes"])?;
    until("a log", || Ok(top(&server)?["not_asked"].is_null()))?;
    until(line, || Ok(without.stderr().contains(line)))?;
    let said = server.redis.stderr();
    // A log that was only opened needs no sync call.
    ensure!(said.matches(line).count() == 1 && !said.contains("never calls a sync"), "{said}");
    Ok(())
}

/// Lines go where the administrator wants them, with the policy, the file and the bound; and what is misspelt is
/// refused.
#[test]
fn lines_go_to_a_file() -> Result<()> {
    let _turn = heavy()?;
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("agent.log");
    let path = log.to_str().context("a path")?;
    let server = Under::policy("window").env("DURAC_LOG", path).start()?;
    let text = std::fs::read_to_string(&log)?;
    let line = format!(
        "durac[{}]: policy `window` for target `redis.aof` is in force on /",
        server.redis.pid()
    );
    ensure!(
        text.contains(&line) && text.contains(": a power loss can take at most n syncs"),
        "{text}"
    );
    ensure!(!server.redis.stderr().contains("is in force"), "{}", server.redis.stderr());
    drop(server);

    let mut command = durac(["run", "window", "--log", "nowhere", "--", "true"])?;
    let ended = run(command)?;
    ensure!(
        ended.status.code() == Some(1) && ended.stderr.contains("invalid place for a log"),
        "{}",
        show(&ended)
    );
    command = durac(["run", "window", "--", "true"])?;
    command.env("DURAC_STATSU", "/tmp/x");
    let ended = run(command)?;
    let line = "unknown variable `DURAC_STATSU` in the environment; did you mean `DURAC_STATUS`?";
    ensure!(ended.status.code() == Some(1) && ended.stderr.contains(line), "{}", show(&ended));
    // A value that has no effect is told of, and one that has is not.
    for (name, value, told) in [
        ("DURAC_WATCH", "of", true),
        ("DURAC_NOTIFY", "no", true),
        ("DURAC_WATCH", "off", false),
        ("DURAC_NOTIFY", "off", false),
    ] {
        command = durac(["run", "window", "--", "true"])?;
        command.env(name, value);
        let ended = run(command)?;
        let line = format!("unknown value `{value}` of {name}: it has no effect; `off`");
        ensure!(ended.status.success(), "{}", show(&ended));
        ensure!(ended.stderr.contains(&line) == told, "{name}={value}: {}", show(&ended));
    }
    // `quiet` is one of several words, in the variable and in the option.
    let etcd = dir.path().join("etcd");
    durac_tests::copy_program("/bin/true", &etcd)?;
    let warning = "should not run under a policy";
    for (option, variable, told) in [
        (None, None, true),
        (None, Some("quiet"), false),
        (None, Some("quiet,stderr"), false),
        (Some("stderr,quiet"), None, false),
        (Some("quiet"), None, false),
        (Some("stderr"), Some("quiet"), true),
    ] {
        for engine in ["thread", "supervisor"] {
            command = durac(["run", "--engine", engine])?;
            command
                .args(option.map(|value| format!("--log={value}")))
                .arg("window")
                .arg("--")
                .arg(&etcd);
            command.envs(variable.map(|value| ("DURAC_LOG", value)));
            let ended = run(command)?;
            let what = format!("{option:?} {variable:?} {engine}");
            ensure!(ended.status.success(), "{what}: {}", show(&ended));
            ensure!(ended.stderr.contains(warning) == told, "{what}: {}", show(&ended));
            ensure!(told || ended.stderr.is_empty(), "{what}: {}", show(&ended));
        }
    }
    let server = Under::policy("window").env("DURAC_LOG", "nowhere").start()?;
    says(&server, "durac: DURAC_LOG: unknown value `nowhere`; it is `quiet`, `stderr`")?;
    Ok(())
}
