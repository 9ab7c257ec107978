//! What an operator asks before and after a policy runs: `doctor`, `show`, `install`, `check --fix`.

use anyhow::{Context, Result, ensure};
use durac_tests::server::Under;
use durac_tests::{run_durac, show};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
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

/// Commands that print a product print it as one document.
#[test]
fn one_document_each() -> Result<()> {
    for args in [
        vec!["explain", "E0501"],
        vec!["list"],
        vec!["list", "targets"],
        vec!["list", "readings"],
        vec!["list", "codes"],
        vec!["list", "--show", "window"],
        vec!["check", "window"],
        vec!["test", "window"],
    ] {
        let (code, value) = json(&args)?;
        ensure!(code == 0 && value.is_object() || value.is_array(), "{args:?}: {code}");
    }
    for wrong in [vec!["bench", "-c", "0"], vec!["crashtest", "window", "--trials", "0"]] {
        let ended = run_durac(&wrong)?;
        ensure!(ended.status.code() == Some(1), "{wrong:?}: {}", show(&ended));
    }
    Ok(())
}
