//! What commands read and write: each input once and none destroyed, programs as execvp(3) finds them, files in place where no
//! other can come, and text from elsewhere without control characters.

use crate::outputs::{policies, two};
use anyhow::{Context, Result, ensure};
use durac_tests::{agent, durac, needs_root, run, run_durac, show, tool};
use durac_workload::child::{self, Ended};
use durac_workload::sys;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

const UNFORMATTED: &str = "on fdatasync:   pass\n";
const FORMATTED: &str = "on fdatasync: pass\n";
const NOBODY: u32 = 65_534;

fn mode(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// A shell command, of which `$0` is durac.
fn sh(script: &str, folder: &Path) -> Result<Ended> {
    let mut sh = child::command(&[], &child::which("sh")?);
    sh.args(["-c", script]).arg(tool()?).current_dir(folder);
    sh.env_remove("LD_PRELOAD").env("DURAC_CACHE", "off").env("NO_COLOR", "1");
    run(sh)
}

/// Standard input can be read once; what is wrong for one process changes none.
#[test]
fn a_reload_reads_its_policy_once_and_changes_all_or_none() -> Result<()> {
    let dir = TempDir::new()?;
    let servers = two(dir.path())?;
    let pids: Vec<String> = servers.iter().map(|server| server.0.id().to_string()).collect();
    let text = dir.path().join("mine.dur");
    fs::write(&text, "policy mine\non fdatasync: defer\n")?;
    let mut command = durac(["reload", "-"])?;
    command.args(&pids).stdin(File::open(&text)?);
    let ended = command.stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    ensure!(policies(&servers)? == ["mine", "mine"]);

    // The second has no policy, and the first keeps its own.
    let other = crate::inherited::Killed(Command::new("sleep").arg("1000").spawn()?);
    let other = other.0.id().to_string();
    let first = pids.first().context("a server")?;
    let ended = run_durac(["reload", "window", first, &other])?;
    ensure!(!ended.status.success(), "{}", show(&ended));
    ensure!(policies(&servers)? == ["mine", "mine"], "{}", show(&ended));
    Ok(())
}

#[test]
fn no_output_takes_the_place_of_an_input() -> Result<()> {
    let dir = TempDir::new()?;
    for name in ["s.dur", "x.o", "t.json"] {
        fs::write(dir.path().join(name), FORMATTED)?;
    }
    fs::hard_link(dir.path().join("s.dur"), dir.path().join("link"))?;
    for line in [
        "compile x.o",
        "compile s.dur -o s.dur",
        "compile s.dur -o link --emit hir",
        "compile s.dur -o ./s.dur --emit ast",
        "compile s.dur:n=1 -o s.dur",
        "compile - -o s.dur < s.dur",
        "simulate t.json --json t.json",
        "simulate t.json -p s.dur --html s.dur",
        "simulate - --html t.json < t.json",
        "advise t.json -o t.json",
        "record --from-strace t.json -o t.json",
        "record -p s.dur -o s.dur -- true",
        "crashtest s.dur --json s.dur",
        "bench window s.dur --csv s.dur",
        "load x.o --target /bin/true --ready-file x.o",
    ] {
        let ended = sh(&format!("exec \"$0\" {line}"), dir.path())?;
        let told = ended.stderr.contains("is read by this command");
        ensure!(ended.status.code() == Some(1) && told, "{line}: {}", show(&ended));
        for name in ["s.dur", "x.o", "t.json"] {
            let text = fs::read_to_string(dir.path().join(name))?;
            ensure!(text == FORMATTED, "{line}: {name}");
        }
    }
    // Another file, and none that is read, is replaced.
    fs::write(dir.path().join("old.o"), "old")?;
    let ended = sh("exec \"$0\" compile s.dur -o old.o", dir.path())?;
    ensure!(ended.status.success(), "{}", show(&ended));
    Ok(())
}

/// `durac` as a user who is not root, with these variables.
fn as_user(words: &[&str], path: &str, dir: &Path) -> Result<Ended> {
    let mut command = match sys::is_root() {
        false => child::command(&[], &tool()?),
        true => {
            let durac = dir.join("durac");
            if !durac.exists() {
                mode(dir, 0o755)?;
                durac_tests::copy_program(&tool()?, &durac)?;
                durac_tests::copy_program(&agent()?, dir.join("libdurac_preload.so"))?;
                fs::create_dir(dir.join("temp"))?;
                chown(dir.join("temp"), Some(NOBODY), Some(NOBODY))?;
            }
            let mut command = child::command(&[], &child::which("setpriv")?);
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(durac);
            command.env("TMPDIR", dir.join("temp")).env_remove("XDG_RUNTIME_DIR");
            command
        }
    };
    command.args(words).env("PATH", path).env("DURAC_CACHE", "off").env_remove("LD_PRELOAD");
    command.current_dir(dir);
    run(command)
}

#[test]
fn programs_are_found_as_execvp_finds_them() -> Result<()> {
    let dir = TempDir::new()?;
    let user = TempDir::new()?;
    mode(dir.path(), 0o755)?;
    for (folder, bits) in [("a", if sys::is_root() { 0o700 } else { 0o055 }), ("b", 0o755)] {
        let folder = dir.path().join(folder);
        fs::create_dir(&folder)?;
        fs::write(folder.join("tool"), "#!/bin/sh\necho right\n")?;
        mode(&folder.join("tool"), bits)?;
    }
    let path = dir.path().to_str().context("a path")?;
    let (a, both) = (format!("{path}/a"), format!("{path}/none:{path}/a:{path}/b"));
    let words = ["run", "window", "--", "tool"];
    // What this user may not execute is passed over, though somebody may.
    let ended = as_user(&words, &both, user.path())?;
    ensure!(ended.status.success() && ended.stdout == "right\n", "{}", show(&ended));
    let ended = as_user(&words, &a, user.path())?;
    ensure!(ended.status.code() == Some(126), "{}", show(&ended));
    // An empty part is the current folder.
    let mut command = durac(words)?;
    command.env("PATH", "/none:").current_dir(dir.path().join("b"));
    let ended = run(command)?;
    ensure!(ended.status.success() && ended.stdout == "right\n", "{}", show(&ended));
    // Without PATH there is a default.
    let mut command = durac(["run", "window", "--", "true"])?;
    command.env_remove("PATH");
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let ended = run_durac(["run", "window", "--", ""])?;
    ensure!(ended.status.code() == Some(127), "{}", show(&ended));
    Ok(())
}

/// A file that can be written to and not replaced: in a folder of somebody else, and mounted where it is.
#[test]
fn a_file_that_cannot_be_replaced_is_formatted_in_place() -> Result<()> {
    let (dir, user) = (TempDir::new()?, TempDir::new()?);
    let file = dir.path().join("a.dur");
    let name = file.to_str().context("a path")?;
    for (words, text, bits) in [
        (["fmt"].as_slice(), UNFORMATTED, 0o555),
        (&["check", "--fix"], "on fdatasync(fd): pass\n", 0o555),
        (&["fmt"], UNFORMATTED, 0o1777),
    ] {
        mode(dir.path(), 0o755)?;
        fs::write(&file, text)?;
        if sys::is_root() {
            // In a sticky folder it is another's, which this user may write to.
            let sticky = bits & 0o1000 != 0;
            chown(&file, Some(if sticky { NOBODY - 1 } else { NOBODY }), Some(NOBODY))?;
            mode(&file, 0o664)?;
        }
        mode(dir.path(), bits)?;
        let mut all = words.to_vec();
        all.push(name);
        let path = std::env::var("PATH")?;
        let ended = as_user(&all, &path, user.path())?;
        ensure!(ended.status.success(), "{words:?} {bits:o}: {}", show(&ended));
        ensure!(fs::read_to_string(&file)? == FORMATTED, "{words:?} {bits:o}");
        ensure!(fs::read_dir(dir.path())?.count() == 1, "something is left");
    }
    mode(dir.path(), 0o755)?;

    let ended = sh("mkfifo f && exec \"$0\" fmt f", dir.path())?;
    let told = ended.stderr.contains("is not a regular file");
    ensure!(ended.status.code() == Some(1) && told, "{}", show(&ended));

    if needs_root("nothing can be mounted") {
        fs::write(dir.path().join("b.dur"), UNFORMATTED)?;
        let script = "mount --bind b.dur a.dur && exec \"$0\" fmt a.dur";
        let mut command = child::command(&[], &child::which("unshare")?);
        command.args(["--mount", "sh", "-c", script]).arg(tool()?).current_dir(dir.path());
        let ended = run(command)?;
        ensure!(ended.status.success(), "{}", show(&ended));
        ensure!(fs::read_to_string(dir.path().join("b.dur"))? == FORMATTED);
    }
    Ok(())
}

/// A place of the log that the supervisor does not have is told of, once; `quiet` leaves out that of a place that others have.
#[test]
fn the_supervisor_says_which_log_it_does_not_have() -> Result<()> {
    let dir = TempDir::new()?;
    let trace = dir.path().join("t.json");
    let trace = trace.to_str().context("a path")?;
    for (value, told) in [
        ("bogus", 1),
        ("quiet,bogus", 1),
        ("syslog", 1),
        ("/no/such/file", 1),
        ("quiet,syslog", 0),
        ("quiet", 0),
        ("", 0),
    ] {
        let run_words = ["run", "window"].as_slice();
        for words in [run_words, &["record", "-o", trace]] {
            let mut command = durac(words)?;
            command.args(["--engine", "supervisor", "--", "true"]).env("DURAC_LOG", value);
            let ended = run(command)?;
            ensure!(ended.status.success(), "{value}: {}", show(&ended));
            let lines = ended.stderr.matches("DURAC_LOG=").count();
            ensure!(lines == told, "{value} {words:?}: {}", show(&ended));
        }
    }
    Ok(())
}

/// The reason of the system is as in every message; help that cannot be printed is a failure, too.
#[test]
fn what_standard_output_does_not_take() -> Result<()> {
    for words in [&["list", "--format", "json"][..], &["--help"], &["--version"], &["help", "run"]]
    {
        let full = File::options().write(true).open("/dev/full")?;
        let ended = durac(words)?.stdout(full).stderr(Stdio::piped()).output()?;
        let stderr = String::from_utf8_lossy(&ended.stderr);
        let expected = "durac: cannot write to standard output: no space left on device\n";
        ensure!(ended.status.code() == Some(2) && stderr == expected, "{words:?}: {stderr}");
    }
    let dir = TempDir::new()?;
    let ended = sh("exec \"$0\" --help >&-", dir.path())?;
    ensure!(ended.status.code() == Some(2), "{}", show(&ended));
    let ended = sh("\"$0\" --help | true", dir.path())?;
    ensure!(ended.stderr.is_empty(), "{}", show(&ended));
    Ok(())
}

/// A name of a file cannot change the terminal.
#[test]
fn names_are_printed_without_control_characters() -> Result<()> {
    let dir = TempDir::new()?;
    let name = "a\u{1b}[31m\u{9b}2J.dur";
    fs::write(dir.path().join(name), UNFORMATTED)?;
    fs::write(dir.path().join("tests.dur"), "on fdatasync: pass\n")?;
    let missing = "no\u{1b}[31m";
    for words in [
        &["fmt", "--check", name][..],
        &["check", name],
        &["test", name],
        &["doctor", name],
        &["merge", name],
        &["merge", missing],
        &["compile", "window", "-o", "no\u{1b}[31m/x.o"],
        &["run", "window", "--", missing],
        &["top", missing],
        &["explain", missing],
        &["show", missing],
        &["simulate", missing],
        &["record", "-o", name, "--", "true"],
    ] {
        let mut command = durac(words)?;
        command.current_dir(dir.path());
        let ended = run(command)?;
        let is_plain = |text: &str| text.chars().all(|c| c == '\n' || !c.is_control());
        ensure!(is_plain(&ended.stdout) && is_plain(&ended.stderr), "{words:?}: {}", show(&ended));
        ensure!(!(ended.stdout + &ended.stderr).is_empty(), "{words:?}");
    }
    Ok(())
}

/// The output of the command that is recorded is its own.
#[test]
fn a_trace_does_not_go_where_the_command_writes() -> Result<()> {
    let dir = TempDir::new()?;
    for line in [
        "record -o /dev/stdout -- true",
        "record -o /proc/self/fd/1 -- true | cat",
        "record -o t.json -- true > t.json",
    ] {
        let ended = sh(&format!("\"$0\" {line}"), dir.path())?;
        let told = ended.stderr.contains("the command uses standard output");
        ensure!(told, "{line}: {}", show(&ended));
    }
    // A pipe has no size.
    let ended = sh("mkfifo f; cat f > g & \"$0\" record -o f -- true; wait", dir.path())?;
    ensure!(ended.stderr.contains("dropped: f\n"), "{}", show(&ended));
    ensure!(fs::read_to_string(dir.path().join("g"))?.contains("\"end\""));
    Ok(())
}

#[test]
fn a_stack_that_is_too_small_is_told_of() -> Result<()> {
    let dir = TempDir::new()?;
    let ended = sh("ulimit -s 256 && exec \"$0\" check window", dir.path())?;
    let told = ended.stderr.contains("the stack is limited to 256 KiB");
    ensure!(ended.status.code() == Some(2) && told, "{}", show(&ended));
    let ended = sh("ulimit -s 512 && exec \"$0\" check window", dir.path())?;
    ensure!(ended.status.success(), "{}", show(&ended));
    Ok(())
}

/// The help names a command that works: a pipe cannot be read again.
#[test]
fn an_object_on_standard_input() -> Result<()> {
    let dir = TempDir::new()?;
    ensure!(sh("exec \"$0\" compile window -o w.o", dir.path())?.status.success());
    let lines = [
        ("show - < w.o", 1),
        ("check - < w.o", 1),
        ("show /dev/stdin < w.o", 0),
        ("check /dev/fd/0 < w.o", 1),
    ];
    for (line, code) in lines {
        let ended = sh(&format!("exec \"$0\" {line}"), dir.path())?;
        let wrong = ended.stderr.contains("durac show -`");
        ensure!(!wrong && ended.status.code() == Some(code), "{line}: {}", show(&ended));
    }
    let ended = sh("cat w.o | \"$0\" check /dev/stdin", dir.path())?;
    ensure!(ended.stderr.contains("`durac show FILE`"), "{}", show(&ended));
    Ok(())
}

/// docs/json.md promises the same fields of each file.
#[test]
fn a_file_that_cannot_be_tested_has_every_field() -> Result<()> {
    let ended = run_durac(["test", "window", "no.dur", "--format", "json"])?;
    let document: serde_json::Value = serde_json::from_str(&ended.stdout)?;
    for file in document["files"].as_array().context("files")? {
        for name in ["file", "ok", "policy", "tests", "coverage"] {
            ensure!(file.get(name).is_some(), "no {name}: {file}");
        }
    }
    Ok(())
}

/// docs/proof.md shows what `durac compare` prints.
#[test]
fn the_page_has_the_table_of_compare() -> Result<()> {
    let page = include_str!("../../../docs/proof.md");
    let ended = run_durac::<&OsStr>(["compare".as_ref()])?;
    let table: String = ended.stdout.lines().map(|line| format!("    {line}\n")).collect();
    ensure!(page.contains(&table), "docs/proof.md has another table than:\n{table}");
    Ok(())
}
