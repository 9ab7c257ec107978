//! What an operator asks before and after a policy runs: `doctor`, `show`, `install`, `check --fix`.

use anyhow::{Context, Result, ensure};
use durac_tests::server::Under;
use durac_tests::{durac, run, run_durac, show};
use serde_json::Value;
use std::io::{BufRead, BufReader};
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
        ["the agent is mapped", "policy window on redis.aof", "appendfsync always", "sync calls"]
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
    let (code, report) = json(&["doctor", at.with_context(|| format!("{report:#}"))?])?;
    let fine = found(&report, "ok");
    ensure!(code == 0 && fine.contains("policy w on posix.log"), "{report:#}");
    ensure!(fine.contains("9 sync calls"), "{report:#}");
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
