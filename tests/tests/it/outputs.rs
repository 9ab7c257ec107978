//! Where a command's output goes: files by whatever name, pipes whose reader went away, and devices that are full.

use crate::inherited::Killed;
use anyhow::{Context, Result, ensure};
use durac_tests::server::{Under, until};
use durac_tests::{durac, run, run_durac, show, tool};
use durac_workload::child::{self, Ended};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tempfile::TempDir;

const BROKEN: &str = "guarantee loss <= 0 syncs on power_loss\non fdatasync: defer\n";
const FAILS: &str = "param n: syncs = 2 in 1..=64\non fdatasync: await pending < n; defer\ntest \"wrong\" {\n    fdatasync -> waits\n}\n";

/// `durac compile` to a file.
fn compile(policy: &str, output: &Path, folder: &Path) -> Result<Ended> {
    let mut command = durac(["compile", policy, "-o"])?;
    command.arg(output).current_dir(folder);
    run(command)
}

/// A regular file is replaced, through whatever its name leads; what is written after another version is no object.
#[test]
fn a_file_is_replaced_by_whatever_name() -> Result<()> {
    let dir = TempDir::new()?;
    let folder = fs::canonicalize(dir.path())?;
    let (file, wanted) = (folder.join("x.o"), folder.join("wanted.o"));
    let link = folder.join("link");
    symlink("x.o", &link)?;
    ensure!(compile("window:n=2", &wanted, &folder)?.status.success());
    let wanted = fs::read(wanted)?;
    let below = file.strip_prefix("/")?;
    for name in [
        PathBuf::from("/proc/self/cwd/x.o"),
        Path::new("/proc/self/root").join(below),
        Path::new("/dev/..").join(below),
        link.clone(),
    ] {
        let shown = name.display();
        ensure!(compile("window", &file, &folder)?.status.success());
        let ended = compile("window:n=2", &name, &folder)?;
        ensure!(ended.status.success(), "{shown}: {}", show(&ended));
        ensure!(fs::read(&file)? == wanted, "{shown}: not the whole new file");
        ensure!(fs::symlink_metadata(&link)?.is_symlink(), "{shown}: the link was replaced");
    }
    ensure!(fs::read_dir(&folder)?.count() == 3, "something is left");
    Ok(())
}

/// A folder of another mount namespace: what is written there is there, and not where its name is here.
#[test]
fn a_file_of_another_root() -> Result<()> {
    let dir = TempDir::new()?;
    let (root, other) = (fs::canonicalize(dir.path())?, TempDir::new()?);
    fs::write(root.join("x.o"), "of this root")?;
    let script = "mount --bind \"$1\" \"$2\" && exec sleep 1000";
    let mut command = child::command(&[], &child::which("unshare")?);
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(other.path()).arg(&root);
    let there = Killed(command.stderr(Stdio::null()).spawn()?);
    let seen = Path::new("/proc").join(there.0.id().to_string()).join("root");
    let seen = seen.join(root.strip_prefix("/")?);
    let mut there = there;
    let mut ended = false;
    until("a mount", || {
        ended = there.0.try_wait()?.is_some();
        Ok(ended || !seen.join("x.o").exists())
    })?;
    if ended {
        eprintln!("nothing can be mounted here");
        return Ok(());
    }
    for expected in ["a new file", "the same again"] {
        let ended = compile("window", &seen.join("x.o"), &root)?;
        ensure!(ended.status.success(), "{expected}: {}", show(&ended));
        ensure!(fs::read(root.join("x.o"))? == b"of this root", "{expected}: another file");
        ensure!(fs::read(other.path().join("x.o"))?.starts_with(b"\x7fELF"), "{expected}");
    }
    ensure!(fs::read_dir(&root)?.count() == 1 && fs::read_dir(other.path())?.count() == 1);
    Ok(())
}

/// A standard output that was closed is that under each of its names.
#[test]
fn a_closed_output_by_another_name() -> Result<()> {
    let dir = TempDir::new()?;
    let link = dir.path().join("link");
    symlink("/dev/stdout", &link)?;
    for name in [link.as_os_str(), "/proc/thread-self/fd/1".as_ref(), "/dev/fd/1".as_ref()] {
        let mut sh = child::command(&[], &child::which("sh")?);
        sh.args(["-c", "exec \"$0\" compile window -o \"$1\" >&-"]).arg(tool()?).arg(name);
        let ended = run(sh)?;
        let closed = ended.status.code() == Some(2) && ended.stderr.contains("it is closed");
        ensure!(closed, "{name:?}: {}", show(&ended));
    }
    Ok(())
}

/// What a killed durac has left keeps nobody from the file, though the process has the same number.
#[test]
fn a_temporary_file_that_was_left() -> Result<()> {
    let dir = TempDir::new()?;
    let run_in = |script: &str| -> Result<Ended> {
        let mut sh = child::command(&[], &child::which("sh")?);
        run({
            sh.args(["-c", script]).arg(tool()?).current_dir(dir.path());
            sh
        })
    };
    let ended = run_in("touch .x.o.$$.tmp && exec \"$0\" compile window -o x.o")?;
    ensure!(ended.status.success(), "{}", show(&ended));
    fs::write(dir.path().join("a.dur"), "on fdatasync:   pass\n")?;
    let ended = run_in("touch .a.dur.$$.tmp && exec \"$0\" fmt a.dur")?;
    ensure!(ended.status.success(), "{}", show(&ended));
    // The name of a file may be as long as the file system lets it.
    let long = dir.path().join("a".repeat(251) + ".dur");
    fs::write(&long, "on fdatasync:   pass\n")?;
    for words in [&["fmt"][..], &["compile", "window", "-o"]] {
        let mut command = durac(words)?;
        command.arg(&long);
        let ended = run(command)?;
        ensure!(ended.status.success(), "{words:?}: {}", show(&ended));
    }
    Ok(())
}

/// Runs `durac` with nobody who reads its standard output.
fn unread<A: AsRef<OsStr>>(words: impl IntoIterator<Item = A>) -> Result<(Option<i32>, String)> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let ended = durac(words)?.stdout(writer).stderr(Stdio::piped()).output()?;
    Ok((ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned()))
}

#[test]
fn a_reader_that_went_away_hides_no_failure() -> Result<()> {
    let dir = TempDir::new()?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = dir.path().join(name);
        fs::write(&path, text)?;
        Ok(path.to_str().context("a path")?.to_owned())
    };
    let broken = file("broken.dur", BROKEN)?;
    let fails = file("fails.dur", FAILS)?;
    let unformatted = file("unformatted.dur", "on fdatasync:   pass\n")?;
    for (words, code, told) in [
        (&["check", "window", &broken][..], 1, "E0502"),
        (&["check", &fails, &broken], 1, "E0502"),
        (&["test", &fails], 1, "E0801"),
        (&["fmt", "--check", &unformatted, &unformatted], 1, ""),
        (&["compare", "window:n=16", "everysec"], 1, ""),
        (&["doctor", "no-such-file"], 1, ""),
        (&["list"], 0, ""),
        (&["list", "--format", "json"], 0, ""),
        (&["check", &broken, "--format", "json"], 1, ""),
    ] {
        let (ended, stderr) = unread(words)?;
        ensure!(ended == Some(code) && stderr.contains(told), "{words:?}: {ended:?} {stderr}");
        ensure!(!stderr.to_lowercase().contains("pipe"), "{words:?}: {stderr}");
    }
    Ok(())
}

/// Two servers of one folder under `window`, and a word that names both.
pub fn two(folder: &Path) -> Result<Vec<Killed>> {
    let server = |name: &str| -> Result<Killed> {
        let mut command = durac(["run", "window", "--", "redis-server", "--port", "0"])?;
        command.args(["--unixsocket", name, "--appendonly", "yes", "--appendfsync", "always"]);
        command.args(["--appenddirname", &format!("{name}.d")]);
        command.current_dir(folder).env("DURAC_LOG", "quiet").stdout(Stdio::null());
        Ok(Killed(command.spawn()?))
    };
    let servers = vec![server("a")?, server("b")?];
    for server in &servers {
        let pid = server.0.id().to_string();
        until("a log", || Ok(run_durac(["top", &pid, "--interval", "20ms"])?.status.success()))?;
    }
    Ok(servers)
}

/// The policy of each.
pub fn policies(servers: &[Killed]) -> Result<Vec<String>> {
    let policy = |server: &Killed| -> Result<String> {
        let pid = server.0.id().to_string();
        let ended = run_durac(["top", &pid, "--interval", "20ms", "--format", "json"])?;
        let shown: serde_json::Value = serde_json::from_str(&ended.stdout)?;
        let policy = shown.pointer("/logs/0/policy").and_then(serde_json::Value::as_str);
        Ok(policy.context("a policy")?.to_owned())
    };
    servers.iter().map(policy).collect()
}

/// The value of `n` in each.
fn values(servers: &[Killed]) -> Result<Vec<u64>> {
    let value = |server: &Killed| -> Result<u64> {
        let pid = server.0.id().to_string();
        let ended = run_durac(["show", &pid, "--format", "json"])?;
        let shown: serde_json::Value = serde_json::from_str(&ended.stdout)?;
        shown.pointer("/params/0/value").and_then(serde_json::Value::as_u64).context("a value")
    };
    servers.iter().map(value).collect()
}

/// What has changed is told on standard error if standard output cannot be written or nobody reads it, and every process has
/// the change.
#[test]
fn what_has_changed_is_told() -> Result<()> {
    let dir = TempDir::new()?;
    let folder = fs::canonicalize(dir.path())?;
    let folder = folder.to_str().context("a path")?;
    let servers = two(dir.path())?;
    let pids: Vec<String> = servers.iter().map(|server| server.0.id().to_string()).collect();
    let full = || File::options().write(true).open("/dev/full");
    let ended =
        durac(["set", "n=9", "--pid", folder])?.stdout(full()?).stderr(Stdio::piped()).output()?;
    let stderr = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.code() == Some(2), "{stderr}");
    for pid in &pids {
        ensure!(stderr.contains(&format!("of process {pid}: n = 64 → 9")), "{stderr}");
    }
    ensure!(values(&servers)? == [9, 9]);
    let (code, stderr) = unread(["set", "n=8", "--pid", folder])?;
    ensure!(code == Some(0) && stderr.matches("n = 9 → 8").count() == 2, "{stderr}");
    ensure!(values(&servers)? == [8, 8]);

    // A refusal is told, too.
    let [first, second] = pids.as_slice() else { anyhow::bail!("two servers") };
    ensure!(run_durac(["off", second])?.status.success());
    let (code, stderr) = unread(["off", first, second])?;
    let told = stderr.contains(&format!("process {first} (")) && stderr.contains("it is off");
    ensure!(code == Some(1) && told, "{stderr}");
    let ended = durac(["on", first, second])?.stdout(full()?).stderr(Stdio::piped()).output()?;
    let stderr = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.code() == Some(2) && stderr.matches("off → policy").count() == 2);
    ensure!(run_durac(["off", second])?.status.success());
    let ended = durac(["off", first, second])?.stdout(full()?).stderr(Stdio::piped()).output()?;
    let stderr = String::from_utf8_lossy(&ended.stderr);
    ensure!(stderr.contains("stays as it is: it is off"), "{stderr}");
    Ok(())
}

/// A word that is empty, as a script's variable may be, is refused: it is not every process.
#[test]
fn an_empty_word_names_no_process() -> Result<()> {
    let server = Under::policy("window").set("n=7").start()?;
    server.redis.client()?.command(&["SET", "a", "1"])?;
    for words in [
        &["off", ""][..],
        &["on", ""],
        &["set", "n=5", "--pid", ""],
        &["reload", "always", ""],
        &["upgrade", ""],
        &["top", "", "--once"],
        &["metrics", ""],
    ] {
        let ended = run_durac(words)?;
        let told = ended.stderr.contains("the word is empty");
        ensure!(ended.status.code() == Some(1) && told, "{words:?}: {}", show(&ended));
    }
    let pid = server.redis.pid().to_string();
    let ended = run_durac(["top", &pid, "--interval", "20ms", "--format", "json"])?;
    let seen: serde_json::Value = serde_json::from_str(&ended.stdout)?;
    let log = &seen["logs"][0];
    ensure!(log["policy"] == "window" && log["on"] == true && log["bound_syncs"] == 7, "{log:#}");
    Ok(())
}
