//! What an operator asks before and after a policy runs: `doctor`, `show`, `install`, `check --fix`.

use anyhow::{Context, Result, ensure};
use durac_tests::server::{Under, until};
use durac_tests::{durac, run, run_durac, show};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

fn json(args: &[&str]) -> Result<(i32, Value)> {
    let ended = run_durac(["--format", "json"].iter().chain(args))?;
    let value = serde_json::from_str(&ended.stdout).with_context(|| show(&ended))?;
    Ok((ended.status.code().unwrap_or(-1), value))
}

/// The findings in this state, as one text.
fn found(report: &Value, state: &str) -> String {
    let all = report["findings"].as_array().into_iter().flatten();
    all.filter(|finding| finding["state"] == state).map(|f| format!("{}\n", f["found"])).collect()
}

#[test]
fn the_doctor_sees_a_policy_that_is_not_in_force() -> Result<()> {
    let server = Under::policy("window").set("n=7").start()?;
    let mut client = server.redis.client()?;
    client.command(&["SET", "a", "1"])?;
    let pid = server.redis.pid().to_string();

    let (_, report) = json(&["doctor", &pid])?;
    let fine = found(&report, "ok");
    for part in
        ["the agent is mapped", "policy window on redis.aof", "appendfsync always", "1 sync call"]
    {
        ensure!(fine.contains(part), "{part}: {report:#}");
    }
    // What `CONFIG SET` takes away is seen, with what to do.
    client.command(&["CONFIG", "SET", "appendfsync", "everysec"])?;
    let (code, report) = json(&["doctor", &pid])?;
    ensure!(code == 1 && report["ok"] == false, "{report:#}");
    ensure!(found(&report, "wrong").contains("appendfsync everysec"), "{report:#}");

    // The process says which policy it runs, and with which values.
    let (_, shown) = json(&["show", &pid])?;
    ensure!(shown["policy"] == "window" && shown["params"][0]["value"] == 7, "{shown:#}");
    ensure!(shown["text"].as_str().is_some_and(|t| t.contains("await pending < n")), "{shown:#}");
    ensure!(shown["certificate"]["conditions"].as_u64() > Some(0), "{shown:#}");

    // A Redis without a policy is one.
    let plain = Under::nothing().start()?;
    let (code, report) = json(&["doctor", &plain.redis.pid().to_string()])?;
    ensure!(code == 1 && found(&report, "wrong").contains("no policy acts on it"), "{report:#}");
    Ok(())
}

#[test]
fn the_doctor_reads_configurations_and_policies() -> Result<()> {
    let dir = TempDir::new()?;
    let conf = dir.path().join("redis.conf");
    std::fs::write(&conf, "appendonly yes\nappendfsync everysec\ndir /dev/shm\n")?;
    let ended = run_durac(["doctor".as_ref(), conf.as_os_str()])?;
    ensure!(ended.status.code() == Some(1), "{}", show(&ended));
    for part in ["appendfsync everysec", "→ set `appendfsync always`", "tmpfs"] {
        ensure!(ended.stdout.contains(part), "{part}: {}", show(&ended));
    }
    let (code, report) = json(&["doctor", "window:n=8"])?;
    ensure!(code == 0, "{report:#}");
    ensure!(found(&report, "ok").contains("loses on power_loss: at most n syncs (8"), "{report:#}");
    let (code, report) = json(&["doctor", "4294967295"])?;
    ensure!(code == 1 && found(&report, "wrong").contains("does not run"), "{report:#}");
    // As Redis reads it, and comments in any encoding.
    std::fs::write(&conf, b"# \xe9\nappendonly YES\nappendfsync 'Always'\ndir \"/dev/shm/a b\"\n")?;
    let ended = run_durac(["doctor".as_ref(), conf.as_os_str()])?;
    ensure!(
        ended.stdout.contains("appendfsync Always") && !ended.stdout.contains("→ set"),
        "{}",
        show(&ended)
    );
    ensure!(ended.stdout.contains("`/dev/shm/a b` is on tmpfs"), "{}", show(&ended));
    // What Redis does not start with is said to be that, and nothing of it is fine.
    std::fs::write(&conf, "appendonly yes\nappendfsync \"always\ndir /tmp\n")?;
    let (code, report) = json(&["doctor", conf.to_str().context("a path")?])?;
    ensure!(code == 1 && found(&report, "ok").is_empty(), "{report:#}");
    ensure!(found(&report, "wrong").contains("unbalanced quotes"), "{report:#}");
    // What never ends, and what is longer than a line.
    let pipe = dir.path().join("pipe");
    ensure!(Command::new("mkfifo").arg(&pipe).status()?.success());
    let long = "a".repeat(100_000);
    for what in [pipe.as_os_str(), long.as_ref()] {
        let ended = run_durac(["doctor".as_ref(), what])?;
        ensure!(ended.status.code() == Some(1), "{}", show(&ended));
    }
    Ok(())
}

/// What an included file says counts where it is included; if it cannot be read, nothing is known.
#[test]
fn the_doctor_reads_what_a_configuration_includes() -> Result<()> {
    let dir = TempDir::new()?;
    let path = |name: &str| dir.path().join(name);
    let (conf, part) = (path("redis.conf"), path("part.conf"));
    let shown = conf.to_str().context("a path")?;
    let data = dir.path().display();
    let included = format!("include {}\n", part.display());
    let before =
        format!("appendonly no\nappendfsync no\n{included}appendfsync always\ndir {data}\n");
    std::fs::write(&conf, before)?;
    std::fs::write(&part, "appendonly yes\nappendfsync everysec\n")?;
    let (_, report) = json(&["doctor", shown])?;
    let fine = found(&report, "ok");
    ensure!(fine.contains("appendonly yes") && fine.contains("appendfsync always"), "{report:#}");
    ensure!(!found(&report, "wrong").contains("append"), "{report:#}");
    std::fs::write(&part, "appendonly no\n")?;
    let (code, report) = json(&["doctor", shown])?;
    ensure!(code == 1 && found(&report, "wrong").contains("appendonly no"), "{report:#}");
    std::fs::remove_file(&part)?;
    let (code, report) = json(&["doctor", shown])?;
    ensure!(code == 0 && found(&report, "note").contains("unknown: appendonly"), "{report:#}");
    ensure!(found(&report, "ok").is_empty() && found(&report, "wrong").is_empty(), "{report:#}");

    // A file or a data folder that does not exist is said to be that.
    std::fs::write(&conf, "appendonly yes\nappendfsync always\ndir /durac-no-such-folder\n")?;
    let (code, report) = json(&["doctor", shown])?;
    let wrong = found(&report, "wrong");
    ensure!(code == 1 && wrong.lines().count() == 1, "{report:#}");
    ensure!(wrong.contains("`/durac-no-such-folder` does not exist"), "{report:#}");
    ensure!(!found(&report, "ok").contains("durac-no-such-folder"), "{report:#}");
    std::fs::remove_file(&conf)?;
    let (code, report) = json(&["doctor", shown])?;
    ensure!(code == 1 && !report.to_string().contains("run as its user"), "{report:#}");
    ensure!(report["findings"][0]["do"] == "name a file that exists", "{report:#}");

    // A line does not say twice what it is about.
    let (_, report) = json(&["doctor"])?;
    for finding in report["findings"].as_array().context("findings")? {
        let (about, found) = (finding["about"].as_str(), finding["found"].as_str());
        let (about, found) = about.zip(found).context("a finding")?;
        ensure!(!found.starts_with(about), "{finding:#}");
    }
    Ok(())
}

/// A Redis that refuses to say its settings, or cannot be asked, may be right or wrong.
#[test]
fn the_doctor_tells_of_a_redis_that_does_not_say_its_settings() -> Result<()> {
    let unknown = |pid: u32, why: &str| -> Result<i32> {
        let (code, report) = json(&["doctor", &pid.to_string()])?;
        let noted = found(&report, "note");
        ensure!(noted.contains("its settings were not read") && noted.contains(why), "{report:#}");
        let wrong = found(&report, "wrong");
        ensure!(!wrong.contains("answer") && !wrong.contains("appendfsync"), "{report:#}");
        ensure!(!found(&report, "ok").contains("appendfsync"), "{report:#}");
        ensure!(report.to_string().contains("see yourself that appendonly is yes"), "{report:#}");
        Ok(code)
    };
    let server = Under::policy("window").start()?;
    let mut client = server.redis.client()?;
    client.command(&["SET", "a", "1"])?;
    client.command(&["CONFIG", "SET", "requirepass", "secret"])?;
    ensure!(unknown(server.redis.pid(), "it needs a password")? == 0);
    client.command(&["CONFIG", "SET", "requirepass", ""])?;

    let server = Under::policy("window").line("rename-command", "CONFIG \"\"").start()?;
    server.redis.client()?.command(&["SET", "a", "1"])?;
    ensure!(unknown(server.redis.pid(), "it has no CONFIG")? == 0);

    let dir = TempDir::new()?;
    let socket = dir.path().join("s");
    let mut redis = Command::new("redis-server");
    redis.args(["--port", "0", "--save", "", "--unixsocket"]).arg(&socket);
    let mut redis = redis.arg("--dir").arg(dir.path()).stdout(Stdio::null()).spawn()?;
    let there = until("a socket", || Ok(socket.exists()));
    let seen = there.and_then(|()| unknown(redis.id(), "it has no TCP port"));
    redis.kill()?;
    redis.wait()?;
    // No agent is in it.
    ensure!(seen? == 1);
    Ok(())
}

/// What `reload` has put into a process is where `show` looks.
#[test]
fn a_reloaded_policy_is_shown() -> Result<()> {
    let server = Under::policy("window").start()?;
    server.redis.client()?.command(&["SET", "a", "1"])?;
    let dir = TempDir::new()?;
    let file = dir.path().join("mine.dur");
    let text = format!("// {}\ntarget redis.aof\non fdatasync: pass\n", dir.path().display());
    std::fs::write(&file, &text)?;
    let pid = server.redis.pid().to_string();
    let (code, report) = json(&["reload", file.to_str().context("a path")?, &pid])?;
    ensure!(code == 0, "{report:#}");
    let (code, shown) = json(&["show", &pid])?;
    ensure!(code == 0 && shown["text"] == text.as_str(), "{shown:#}");
    Ok(())
}

/// What `durac set` refuses says what to type, and that nothing was changed.
#[test]
fn set_says_how_to_name_a_process() -> Result<()> {
    let servers = [Under::policy("window").start()?, Under::policy("window").start()?];
    let ended = run_durac(["set", "n=3"])?;
    ensure!(ended.status.code() == Some(1), "{}", show(&ended));
    ensure!(ended.stderr.contains("name one with `--pid PID`"), "{}", show(&ended));
    let pid = servers[0].redis.pid().to_string();
    let ended = run_durac(["set", "n=3", "--save", "--pid", &pid])?;
    ensure!(ended.status.code() == Some(1), "{}", show(&ended));
    ensure!(ended.stderr.contains("nothing was changed: process"), "{}", show(&ended));
    Ok(())
}

/// Where systemd does not run, a drop-in that may be incomplete says so.
#[test]
fn a_unit_that_was_not_read_is_told_of() -> Result<()> {
    if Path::new("/run/systemd/system").is_dir() {
        eprintln!("systemd runs here: it reads the unit");
        return Ok(());
    }
    let unit = "durac-no-such-unit";
    let ended = run_durac(["enable", unit, "window", "--dry-run"])?;
    ensure!(ended.status.success() && ended.stdout.contains("LD_PRELOAD"), "{}", show(&ended));
    for part in
        ["systemd does not run here", "durac-no-such-unit.service was not read", "ExecPaths="]
    {
        ensure!(ended.stderr.contains(part), "{part}: {}", show(&ended));
    }
    let ended = run_durac(["disable", unit])?;
    ensure!(ended.status.code() == Some(1), "{}", show(&ended));
    ensure!(ended.stderr.contains("neither a unit file nor a drop-in"), "{}", show(&ended));
    Ok(())
}

#[test]
fn the_doctor_tells_of_a_redis_that_does_not_answer() -> Result<()> {
    let server = Under::policy("window").start()?;
    server.redis.client()?.command(&["SET", "a", "1"])?;
    let pid = server.redis.pid().to_string();
    let send = |signal: &str| Command::new("kill").args([signal, &pid]).status();
    ensure!(send("-STOP")?.success());
    let asked = json(&["doctor", &pid]);
    send("-CONT")?;
    let (code, report) = asked?;
    ensure!(code == 1 && found(&report, "wrong").contains("does not answer within"), "{report:#}");
    Ok(())
}

#[test]
fn what_is_installed_works_from_there() -> Result<()> {
    let dir = TempDir::new()?;
    let root = dir.path().join("root");
    let args = ["install", "--prefix", "/usr", "--root", root.to_str().context("a path")?];
    let (_, listed) = json(&[&args[..], &["--dry-run"]].concat())?;
    ensure!(!root.exists(), "--dry-run writes");
    let (_, report) = json(&args)?;
    ensure!(report["files"] == listed["files"], "{report:#}");
    let files = report["files"].as_array().context("files")?;
    ensure!(
        files.iter().all(|file| file.as_str().is_some_and(|f| Path::new(f).is_file())),
        "{report:#}"
    );
    let usr = root.join("usr");
    for file in [
        "lib/durac/durac-lsp",
        "share/man/man1/durac-enable.1",
        "share/bash-completion/completions/durac",
        "share/durac/targets/redis.aof.dur",
    ] {
        ensure!(usr.join(file).is_file(), "{file}");
    }
    // It finds its agent, and the agent's page of the manual has its examples.
    let ran = Command::new(usr.join("bin/durac")).args(["run", "window", "--", "true"]).status()?;
    ensure!(ran.success(), "the installed durac does not run");
    let page = std::fs::read_to_string(usr.join("share/man/man1/durac-run.1"))?;
    ensure!(page.contains("redis\\-server") && page.contains(".SH SYNOPSIS"), "{page}");
    let drop_in = std::fs::read_to_string(usr.join("share/doc/durac/examples/durac.conf"))?;
    ensure!(drop_in.contains("LD_PRELOAD=/usr/lib/durac/libdurac_preload.so"), "{drop_in}");
    Ok(())
}

#[test]
fn safe_fixes_are_made_in_place() -> Result<()> {
    let dir = TempDir::new()?;
    let file = dir.path().join("first.dur");
    std::fs::write(
        &file,
        "policy: my-window\nguarantee loss <= 16 fsyncs on power loss\n# why\non fdatasync(fd) { await pending <= 15; \
         return defer; }\n",
    )?;
    let ended = run_durac(["check".as_ref(), file.as_os_str()])?;
    ensure!(ended.status.code() == Some(1), "{}", show(&ended));
    ensure!(
        ended.stderr.contains("durac: 8 errors; `durac explain E0105` says more"),
        "{}",
        show(&ended)
    );
    let ended = run_durac(["check".as_ref(), "--fix".as_ref(), file.as_os_str()])?;
    ensure!(
        ended.status.success() && ended.stdout.contains("guarantee: proved"),
        "{}",
        show(&ended)
    );
    let fixed = std::fs::read_to_string(&file)?;
    ensure!(
        fixed
            == "policy my_window\nguarantee loss <= 16 syncs on power_loss\n// why\non fdatasync { await pending < 16; \
                defer; }\n",
        "{fixed}"
    );
    // What can mean several things is left to its author.
    std::fs::write(&file, "on fdatasync { if pending > 5ms { pass }; defer }\n")?;
    let ended = run_durac(["check".as_ref(), "--fix".as_ref(), file.as_os_str()])?;
    ensure!(ended.status.code() == Some(1), "{}", show(&ended));
    ensure!(std::fs::read_to_string(&file)?.contains("pending > 5ms"), "changed");
    let ended = run_durac(["check", "--fix", "window"])?;
    ensure!(ended.stderr.contains("only files can be fixed"), "{}", show(&ended));
    Ok(())
}

/// Numbers that measure nothing, and places that cannot be written, are refused before anything begins.
#[test]
fn nonsense_is_refused_at_once() -> Result<()> {
    let missing = ["--json", "/no/such/folder/report.json"];
    for (words, why) in [
        (vec!["bench", "-c", "0"], "0 is not in 1..=10000"),
        (vec!["bench", "-P", "0"], "0 is not in 1..="),
        (vec!["bench", "-n", "0"], "0 is not in 1.."),
        (vec!["bench", "-r", "0"], "0 is not in 1.."),
        (vec!["bench", "--rounds", "0"], "0 is not in 1.."),
        (vec!["bench", "--reads", "101"], "101 is not in 0..=100"),
        (vec!["bench", "--writers", "0"], "0 is not in 1.."),
        (vec!["bench", "--sync-takes", "0s"], "more than 0"),
        (vec!["bench", "--dir", "/no/such/folder"], "/no/such/folder"),
        (vec!["crashtest", "window", "--trials", "0"], "0 is not in 1.."),
        (vec!["crashtest", "window", "-c", "0"], "0 is not in 1.."),
        (vec!["crashtest", "window", "--shard", "0/4"], "2/4"),
        (vec!["simulate", "trace.json", "--clients", "0"], "0 is not in 1.."),
        (vec!["simulate", "trace.json", "--crash", "0"], "0 is not in 1.."),
        (vec!["advise", "trace.json", "--clients", "0"], "0 is not in 1.."),
        (vec!["advise", "trace.json", "--at-most", "0s"], "more than 0"),
        (vec!["top", "--count", "0"], "0 is not in 1.."),
        (vec!["top", "--interval", "0s"], "at least 10ms"),
        (vec!["check", "window", "--budget", "0s"], "more than 0"),
        ([&["bench"][..], &missing].concat(), "/no/such/folder/report.json"),
        ([&["crashtest", "window"][..], &missing].concat(), "/no/such/folder/report.json"),
        ([&["simulate", "trace.json"][..], &missing].concat(), "/no/such/folder/report.json"),
        (vec!["advise", "trace.json", "-o", "/no/such/folder/x.dur"], "/no/such/folder/x.dur"),
        (vec!["compile", "window", "-o", "/no/such/folder/x.o"], "/no/such/folder/x.o"),
        (vec!["record", "-o", "/no/such/folder/t", "--", "true"], "/no/such/folder/t"),
        (vec!["merge", "part.json", "-o", "/no/such/folder/w"], "/no/such/folder/w"),
    ] {
        let ended = run_durac(&words)?;
        let code = ended.status.code();
        let refused = matches!(code, Some(1 | 2)) && ended.stdout.is_empty();
        ensure!(refused && ended.stderr.contains(why), "{words:?}: {}", show(&ended));
    }
    // An agent that cannot be used is found out before anything is proved or measured.
    for words in [vec!["bench"], vec!["crashtest", "window"], vec!["run", "window", "--", "true"]] {
        let mut command = durac(&words)?;
        command.env("DURAC_AGENT", "/no/such/agent.so");
        let ended = run(command)?;
        ensure!(
            ended.status.code() == Some(2) && ended.stderr.contains("/no/such/agent.so"),
            "{words:?}: {}",
            show(&ended)
        );
    }
    Ok(())
}

/// A process under the supervisor has no agent, and the doctor says who acts on its log instead.
#[test]
fn the_doctor_finds_the_supervisor() -> Result<()> {
    let dir = TempDir::new()?;
    let policy = dir.path().join("w.dur");
    std::fs::write(
        &policy,
        "policy w\ntarget posix.log\non fdatasync: await pending < 4; defer\nflush within 1s\n",
    )?;
    let log = dir.path().join("a.log");
    let script = "import os, sys\nf = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)\nfor n in range(9):\n  \
                  os.write(f, b'x')\n  os.fdatasync(f)\nprint('written', flush=True)\nsys.stdin.read()\n";
    let mut command = durac(["run", "--engine", "supervisor"])?;
    command.arg(&policy).args(["--", "python3", "-c", script]).arg(&log);
    // Another one, which is not its supervisor.
    let mut beside = durac(["run", "--engine", "supervisor"])?;
    beside.arg(&policy).args(["--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let beside = beside.spawn()?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
    ensure!(line == "written\n", "{line}");
    let (code, report) = json(&["doctor", &child.id().to_string()])?;
    let noted = found(&report, "note");
    ensure!(noted.contains("and a supervisor supervises it as process "), "{code} {report:#}");
    // It says where to look further, and there everything is fine.
    let advice = report["findings"].as_array().into_iter().flatten();
    let advice: Vec<&str> = advice.filter_map(|finding| finding["do"].as_str()).collect();
    let at = advice.iter().find_map(|text| {
        text.split_once("`durac doctor ").and_then(|(_, rest)| rest.split('`').next())
    });
    let at = at.with_context(|| format!("{report:#}"))?.to_owned();
    let (code, report) = json(&["doctor", &at])?;
    let fine = found(&report, "ok");
    ensure!(code == 0 && fine.contains("policy w on posix.log"), "{report:#}");
    ensure!(fine.contains("9 sync calls"), "{report:#}");
    // Also after it has become another program, which has no descriptor of the command.
    let ended = run_durac(["upgrade", &at])?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let (code, report) = json(&["doctor", &child.id().to_string()])?;
    let noted = found(&report, "note");
    let says = format!("and a supervisor supervises it as process {at}");
    ensure!(noted.contains(&says), "{code} {report:#}");
    // Its counters begin at 0 then, and nothing is written any more.
    let (code, report) = json(&["doctor", &at])?;
    ensure!(code == 0, "{report:#}");
    // Beside it, a process without a filter is under nobody.
    let mut other = Command::new("sleep").arg("600").spawn()?;
    let (code, report) = json(&["doctor", &other.id().to_string()])?;
    other.kill()?;
    other.wait()?;
    ensure!(code == 1 && found(&report, "wrong").contains("no policy acts on it"), "{report:#}");
    for mut child in [child, beside] {
        drop(child.stdin.take());
        ensure!(child.wait()?.success());
    }
    Ok(())
}

/// A log that is written and never synced is not one that nothing was written to, and a setting of Redis is not what another
/// program lacks.
#[test]
fn the_doctor_sees_writes_without_syncs() -> Result<()> {
    let dir = TempDir::new()?;
    let policy = dir.path().join("w.dur");
    std::fs::write(
        &policy,
        "policy w\ntarget posix.log\non fdatasync: await pending < 4; defer\nflush within 1s\n",
    )?;
    let log = dir.path().join("a.log");
    let script = "import os, sys\nf = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)\nprint('open', flush=True)\n\
                  sys.stdin.readline()\nos.write(f, b'x')\nprint('written', flush=True)\nsys.stdin.read()\n";
    for (engine, before, after) in [
        (
            "thread",
            "nothing has been written yet",
            "is written, and no sync call on it has reached",
        ),
        ("supervisor", "no log has come to the supervisor", "no log has come to the supervisor"),
    ] {
        let mut command = durac(["run", "--engine", engine])?;
        command.arg(&policy).args(["--", "python3", "-c", script]).arg(&log);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut input = child.stdin.take().context("a pipe")?;
        for (expected, says) in [("open\n", before), ("written\n", after)] {
            let mut line = String::new();
            output.read_line(&mut line)?;
            ensure!(line == expected, "{line}");
            let pid = child.id().to_string();
            let (_, shown) = json(&["top", "--once", &pid])?;
            let page = shown["logs"][0]["pid"].as_u64().with_context(|| format!("{shown:#}"))?;
            let (code, report) = json(&["doctor", &page.to_string()])?;
            let all = format!("{}{}", found(&report, "note"), found(&report, "wrong"));
            ensure!(all.contains(says), "{engine}: {code} {report:#}");
            ensure!(!report.to_string().contains("append"), "{engine}: {report:#}");
            input.write_all(b"\n")?;
        }
        drop(input);
        ensure!(child.wait()?.success());
        std::fs::remove_file(&log)?;
    }
    Ok(())
}

/// Of objects whose notes say the same, `show` finds the one that runs.
#[test]
fn a_process_is_shown_by_the_fingerprint_of_its_object() -> Result<()> {
    let dir = TempDir::new()?;
    let texts = ["one", "another"].map(|name| {
        format!("// {name}\npolicy same\ntarget redis.aof\non fdatasync: await pending < 4; defer\nflush within 1s\n")
    });
    let mut servers = Vec::new();
    for (name, text) in ["one.dur", "another.dur"].iter().zip(&texts) {
        let path = dir.path().join(name);
        std::fs::write(&path, text)?;
        servers.push(Under::policy(path).start()?);
    }
    for (server, text) in servers.iter().zip(&texts) {
        let (code, shown) = json(&["show", &server.redis.pid().to_string()])?;
        ensure!(code == 0 && shown["text"] == text.as_str(), "{shown:#}");
    }
    Ok(())
}
