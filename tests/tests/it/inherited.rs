//! What a command inherits through durac: ignored signals and closed standard streams, as without it.

use anyhow::{Context, Result, ensure};
use durac_tests::server::until;
use durac_tests::{agent, durac, run, show, tool};
use durac_workload::child::{self, Ended};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::Child;
use tempfile::TempDir;

/// Each way to run a command: nothing before it, and with durac.
fn ways(dir: &TempDir) -> Result<Vec<Vec<OsString>>> {
    agent()?;
    let trace = dir.path().join("trace.json");
    let trace = trace.to_str().context("a path")?;
    let own = |words: &[&str]| -> Result<Vec<OsString>> {
        let words = words.iter().map(OsString::from);
        Ok([tool()?.into_os_string()].into_iter().chain(words).chain(["--".into()]).collect())
    };
    Ok(vec![
        vec![],
        own(&["run", "window"])?,
        own(&["run", "--engine", "supervisor", "window"])?,
        own(&["record", "-o", trace])?,
        own(&["record", "-o", trace, "--engine", "supervisor"])?,
    ])
}

/// Runs a command by a shell that has it ignore signals, or closes a stream of it.
fn by_shell(ignored: &str, close: &str, words: &[OsString], command: &[&str]) -> Result<Ended> {
    // A shell cannot ignore every signal.
    let env = match ignored {
        "" => String::new(),
        signals => format!("env --ignore-signal={signals}"),
    };
    let mut sh = child::command(&[], &child::which("sh")?);
    sh.arg("-c").arg(format!("exec {env} \"$@\" {close}")).arg("sh").args(words).args(command);
    sh.env_remove("LD_PRELOAD").env("DURAC_CACHE", "off");
    run(sh)
}

#[test]
fn ignored_signals_stay_ignored() -> Result<()> {
    let dir = TempDir::new()?;
    let mut direct = Vec::new();
    for words in ways(&dir)? {
        let mut seen = Vec::new();
        for ignored in ["", "PIPE", "CHLD", "PIPE,CHLD,USR1"] {
            let ended = by_shell(ignored, "", &words, &["grep", "^SigIgn", "/proc/self/status"])?;
            ensure!(ended.status.success(), "{ignored} {words:?}: {}", show(&ended));
            seen.push(ended.stdout);
            // Somebody waits for it.
            let ended = by_shell(ignored, "", &words, &["sh", "-c", "exit 5"])?;
            ensure!(ended.status.code() == Some(5), "{ignored} {words:?}: {}", show(&ended));
        }
        if words.is_empty() {
            ensure!(seen.iter().skip(1).all(|one| Some(one) != seen.first()), "{seen:?}");
            direct = seen;
        } else {
            ensure!(seen == direct, "{words:?}: {seen:?}, not {direct:?}");
        }
    }
    Ok(())
}

#[test]
fn closed_streams_stay_closed() -> Result<()> {
    let dir = TempDir::new()?;
    for words in ways(&dir)? {
        for fd in 0..3 {
            for (close, code) in [(String::new(), 0), (format!("{fd}>&-"), 1)] {
                let test = ["test", "-e", &format!("/proc/self/fd/{fd}")];
                let ended = by_shell("", &close, &words, &test)?;
                ensure!(ended.status.code() == Some(code), "{close} {words:?}: {}", show(&ended));
            }
        }
    }
    Ok(())
}

#[test]
fn a_product_for_a_closed_standard_output_is_an_error() -> Result<()> {
    let durac = [tool()?.into_os_string()];
    for command in [
        &["compile", "window", "-o", "-"][..],
        &["compile", "window", "-o", "/dev/stdout"],
        &["compile", "window", "-o", "/proc/self/fd/1"],
        &["list"],
        &["list", "--format", "json"],
    ] {
        let ended = by_shell("", ">&-", &durac, command)?;
        let closed = ended.status.code() == Some(2) && ended.stderr.contains("it is closed");
        ensure!(closed, "{command:?}: {}", show(&ended));
    }
    // Nothing is written there.
    let file = TempDir::new()?;
    let object = file.path().join("window.o");
    let object = object.to_str().context("a path")?;
    let ended = by_shell("", ">&-", &durac, &["compile", "window", "-o", object])?;
    ensure!(ended.status.success(), "{}", show(&ended));
    Ok(())
}

/// A child that is killed.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder's name need not be Unicode: each document still comes, and what has happened is told.
#[test]
fn a_folder_that_is_not_unicode() -> Result<()> {
    let dir = TempDir::new()?;
    let folder = dir.path().join(OsStr::from_bytes(b"a \xff\nb"));
    std::fs::create_dir(&folder)?;
    let mut command = durac(["run", "window", "--", "redis-server", "--port", "0"])?;
    command.args(["--unixsocket", "s", "--appendonly", "yes", "--appendfsync", "always"]);
    command.current_dir(&folder).env("DURAC_LOG", "quiet").stdout(std::process::Stdio::null());
    let server = Killed(command.spawn()?);
    let pid = server.0.id().to_string();
    let document = |words: &[&str]| -> Result<Value> {
        let ended = run(durac(words.iter().chain(&["--format", "json"]))?)?;
        ensure!(ended.status.success(), "{words:?}: {}", show(&ended));
        Ok(serde_json::from_str(&ended.stdout)?)
    };
    let top = ["top", &pid, "--interval", "20ms"];
    until("a log", || Ok(run(durac(top)?)?.status.success()))?;
    for (words, place) in [
        (&top[..], "/logs/0/directory"),
        (&["off", &pid], "/processes/0/directory"),
        (&["on", &pid], "/processes/0/directory"),
        (&["reload", "always", &pid], "/processes/0/directory"),
        (&["metrics", &pid], "/text"),
        (&["show", &pid], "/policy"),
    ] {
        let document = document(words)?;
        let text = document.pointer(place).and_then(Value::as_str);
        ensure!(text.is_some(), "{words:?}: {document:#}");
        let shown = text.is_some_and(|text| text.contains("a \u{fffd}"));
        ensure!(shown || !place.ends_with("directory"), "{words:?}: {document:#}");
    }
    // Such a word is not understood, and what to type is told.
    let mut command = durac(["off"])?;
    command.arg(&folder);
    let ended = run(command)?;
    let told = ended.stderr.contains("not UTF-8") && ended.stderr.contains("its number");
    ensure!(ended.status.code() == Some(1) && told, "{}", show(&ended));
    Ok(())
}
