//! Bad input: a clear error, the right exit code, nothing half-written.

use anyhow::{Context, Result, ensure};
use durac_tests::{agent, cc, durac, run, run_durac, show, tool};
use durac_workload::child::{self, Ended};
use durac_workload::sys;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use tempfile::TempDir;

/// It ended with this code, nothing on stdout, and something on stderr that holds every word and
/// shows no panic.
fn complains(ended: &Ended, code: i32, words: &[&str]) -> Result<()> {
    ensure!(ended.status.code() == Some(code), "not {code}: {}", show(ended));
    ensure!(ended.stdout.is_empty(), "{}", show(ended));
    ensure!(!ended.stderr.contains("panicked"), "{}", show(ended));
    for word in words {
        ensure!(ended.stderr.contains(word), "no {word:?}: {}", show(ended));
    }
    Ok(())
}

/// Each command that reads a policy complains about this file, and leaves nothing behind.
fn bad_policy(path: &Path, words: &[&str]) -> Result<()> {
    let out = TempDir::new()?;
    let object = out.path().join("out.o");
    let path = path.as_os_str();
    let commands: [&[&OsStr]; 3] = [
        &[OsStr::new("check"), path],
        &[OsStr::new("compile"), path, OsStr::new("-o"), object.as_os_str()],
        &[OsStr::new("run"), path, OsStr::new("--"), OsStr::new("true")],
    ];
    for command in commands {
        complains(&run_durac(command)?, 1, words)?;
    }
    ensure!(fs::read_dir(out.path())?.next().is_none(), "something was left behind");
    Ok(())
}

fn file(dir: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> Result<std::path::PathBuf> {
    let path = dir.path().join(name);
    fs::write(&path, bytes)?;
    Ok(path)
}

#[test]
fn unknown_file() -> Result<()> {
    let dir = TempDir::new()?;
    bad_policy(&dir.path().join("nothing.dur"), &["nothing.dur"])
}

#[test]
fn unknown_name() -> Result<()> {
    // What is near is suggested.
    bad_policy(Path::new("windw"), &["windw", "window"])
}

#[test]
fn directory() -> Result<()> {
    let dir = TempDir::new()?;
    bad_policy(dir.path(), &[])
}

#[test]
fn empty_file() -> Result<()> {
    let dir = TempDir::new()?;
    bad_policy(&file(&dir, "empty.dur", "")?, &["empty.dur"])?;
    bad_policy(&file(&dir, "blank.dur", " \n// nothing\n")?, &["blank.dur"])
}

#[test]
fn binary_file() -> Result<()> {
    let dir = TempDir::new()?;
    bad_policy(
        &file(&dir, "binary.dur", fs::read(tool()?)?.get(..100_000).context("bytes")?)?,
        &[],
    )?;
    bad_policy(&file(&dir, "zeros.dur", vec![0; 10_000])?, &["zeros.dur"])
}

/// A compiled policy is no text; what shows it is named.
#[test]
fn an_object_instead_of_a_text() -> Result<()> {
    let dir = TempDir::new()?;
    let object = dir.path().join("window.o");
    let mut command = durac(["compile", "window", "-o"])?;
    command.arg(&object);
    ensure!(run(command)?.status.success());
    let out = dir.path().join("out.o");
    let shown = object.to_str().context("path")?;
    let out = out.to_str().context("path")?;
    for words in [&["check", shown][..], &["compile", shown, "-o", out], &["doctor", shown]] {
        let ended = run_durac(words)?;
        let advice = format!("`durac show {shown}`");
        ensure!(
            ended.status.code() == Some(1) && ended.stderr.contains(&advice),
            "{words:?}: {}",
            show(&ended)
        );
        ensure!(!ended.stderr.contains("not UTF-8"), "{words:?}: {}", show(&ended));
    }
    Ok(())
}

#[test]
fn not_utf8() -> Result<()> {
    let dir = TempDir::new()?;
    let text = b"on fdatasync: pass // \xff\xfe\n";
    bad_policy(&file(&dir, "latin.dur", text)?, &["latin.dur", "UTF-8"])
}

#[test]
fn a_hundred_megabytes() -> Result<()> {
    let dir = TempDir::new()?;
    let path = dir.path().join("huge.dur");
    let line = b"on fdatasync: await previous; defer\n".repeat(30_000);
    let mut huge = File::create(&path)?;
    for _ in 0..100 {
        huge.write_all(&line)?;
    }
    drop(huge);
    bad_policy(&path, &["huge.dur"])
}

#[test]
fn deep_nesting() -> Result<()> {
    let dir = TempDir::new()?;
    let deep = 100_000;
    let blocks =
        format!("on fdatasync {{ {} {} }}\n", "if notify.done { ".repeat(deep), "} ".repeat(deep));
    let brackets = format!(
        "on fdatasync {{ if {}pending < 1{} {{ skip }} }}\n",
        "(".repeat(deep),
        ")".repeat(deep)
    );
    bad_policy(&file(&dir, "blocks.dur", blocks)?, &["blocks.dur"])?;
    bad_policy(&file(&dir, "brackets.dur", brackets)?, &["brackets.dur"])?;
    bad_policy(&file(&dir, "open.dur", "{(".repeat(deep))?, &["open.dur"])
}

#[test]
fn an_endless_line_of_errors() -> Result<()> {
    let dir = TempDir::new()?;
    bad_policy(&file(&dir, "errors.dur", "on @ $ ".repeat(20_000))?, &["errors.dur"])
}

#[test]
fn no_permission() -> Result<()> {
    let dir = TempDir::new()?;
    let path = file(&dir, "secret.dur", "on fdatasync: pass\n")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0))?;
    if !sys::is_root() {
        return bad_policy(&path, &["secret.dur", "ermission"]);
    }
    // Root reads everything, so somebody else has to try; nobody may enter the target folder, so
    // durac is copied.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let copy = dir.path().join("durac");
    durac_tests::copy_program(&tool()?, &copy)?;
    let mut command = child::command(&[], &child::which("setpriv")?);
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy);
    command.arg("check").arg(&path);
    complains(&run(command)?, 1, &["secret.dur", "ermission"])
}

#[test]
fn a_wrong_policy_runs_nothing() -> Result<()> {
    let dir = TempDir::new()?;
    let path = file(&dir, "wrong.dur", "on fdatasync: pas\n")?;
    let mark = dir.path().join("ran");
    let mut command = durac(["run"])?;
    command.arg(&path).args(["--", "touch"]).arg(&mark);
    complains(&run(command)?, 1, &["wrong.dur"])?;
    ensure!(!mark.exists(), "the command ran although the policy is wrong");
    Ok(())
}

/// What the language has and this runtime has not yet is refused in words, not run as if it were.
#[test]
fn what_no_runtime_has_yet() -> Result<()> {
    let out = TempDir::new()?;
    let object = out.path().join("out.o");
    let text = "target my.server {\n    files \"*.log\"\n    hook fdatasync(log: file) -> status {\n        entry libc \"fdatasync\"\n        may pass, defer\n    }\n    hook reply(client: connection) -> bytes {\n        entry symbol \"reply\"\n        may pass, hold\n    }\n}\ntarget my.server\non reply: hold until durable\n";
    let path = out.path().join("held_elsewhere.dur");
    std::fs::write(&path, text)?;
    let policy = path.to_str().context("a path")?;
    complains(&run_durac(["run", policy, "--", "true"])?, 1, &["E0601", policy])?;
    let mut command = durac(["compile", policy, "-o"])?;
    command.arg(&object);
    complains(&run(command)?, 1, &["E0601", policy])?;
    ensure!(!object.exists());
    Ok(())
}

#[test]
fn wrong_parameters() -> Result<()> {
    for set in ["m=1", "n", "n=0", "n=5000", "n=x", "n=10ms", "n="] {
        let ended = run_durac(["run", "window", "--set", set, "--", "true"])?;
        complains(&ended, 1, &[])?;
    }
    Ok(())
}

#[test]
fn command_not_found() -> Result<()> {
    complains(&run_durac(["run", "window", "--", "no-such-command"])?, 127, &["no-such-command"])?;
    complains(&run_durac(["run", "window", "--", "./no/such"])?, 127, &["./no/such"])
}

#[test]
fn command_not_executable() -> Result<()> {
    let dir = TempDir::new()?;
    let path = file(&dir, "plain", "text")?;
    let path = path.to_str().context("path")?;
    complains(&run_durac(["run", "window", "--", path])?, 126, &[path])?;
    let folder = dir.path().to_str().context("path")?;
    complains(&run_durac(["run", "window", "--", folder])?, 126, &[folder])
}

#[test]
fn no_command() -> Result<()> {
    let ended = run_durac(["run", "window"])?;
    ensure!(matches!(ended.status.code(), Some(1 | 2)), "{}", show(&ended));
    ensure!(!ended.stderr.is_empty());
    Ok(())
}

/// A static program has no place for the agent: a policy that only the agent can run is refused.
#[test]
fn static_program() -> Result<()> {
    for (name, option) in [("nothing-static", "-static"), ("nothing-static-pie", "-static-pie")] {
        let program = cc("nothing.c", name, &[option])?;
        let program = program.to_str().context("path")?;
        let ended = run_durac(["run", "batch", "--", program])?;
        ensure!(ended.status.code() == Some(1), "{}", show(&ended));
        for word in [program, "is statically linked", "E0612", "`stage` is not available"] {
            ensure!(ended.stderr.contains(word), "no {word:?}: {}", show(&ended));
        }
    }
    Ok(())
}

#[test]
fn setuid_program() -> Result<()> {
    let dir = TempDir::new()?;
    let program = dir.path().join("setuid");
    durac_tests::copy_program(&cc("nothing.c", "nothing", &[])?, &program)?;
    for mode in [0o4755, 0o2755] {
        fs::set_permissions(&program, fs::Permissions::from_mode(mode))?;
        let shown = program.to_str().context("path")?;
        complains(&run_durac(["run", "window", "--", shown])?, 1, &[shown, "setuid"])?;
    }
    Ok(())
}

#[test]
fn the_agent_library_is_missing() -> Result<()> {
    agent()?;
    let dir = TempDir::new()?;
    let copy = dir.path().join("durac");
    durac_tests::copy_program(&tool()?, &copy)?;
    let mut command = child::command(&[], &copy);
    command.args(["run", "window", "--", "true"]).env_remove("LD_PRELOAD");
    complains(&run(command)?, 2, &["libdurac_preload.so"])
}

/// A symbolic link to durac, as in /usr/local/bin, finds the agent beside the real file.
#[test]
fn durac_by_a_link() -> Result<()> {
    agent()?;
    let dir = TempDir::new()?;
    let link = dir.path().join("durac");
    symlink(tool()?, &link)?;
    let mut command = child::command(&[], &link);
    command.args(["run", "window", "--", "true"]).env_remove("LD_PRELOAD");
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    Ok(())
}

/// A limit on file sizes stands for a full disk: the write fails half-way.
#[test]
fn no_space_for_the_object() -> Result<()> {
    let dir = TempDir::new()?;
    let object = file(&dir, "out.o", "what was there before")?;
    let mut command = child::command(&[], &child::which("sh")?);
    // SIGXFSZ must be ignored, else it kills the writer before it can say anything.
    command.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh"]).arg(tool()?);
    command.args(["compile", "window", "-o"]).arg(&object);
    let ended = run(command)?;
    complains(&ended, 2, &["out.o"])?;
    ensure!(fs::read_to_string(&object)? == "what was there before");
    ensure!(fs::read_dir(dir.path())?.count() == 1, "something was left behind");
    Ok(())
}

#[test]
fn output_that_cannot_be_written() -> Result<()> {
    let ended = run_durac(["compile", "window", "-o", "/no/such/folder/out.o"])?;
    complains(&ended, 2, &["/no/such/folder"])?;
    // A device that is always full, and is not to be replaced by a file.
    let full = File::options().write(true).open("/dev/full")?;
    let mut command = durac(["check", "window"])?;
    command.stdout(full).stderr(std::process::Stdio::null());
    let status = command.status()?;
    ensure!(status.code() == Some(2), "{status}");
    Ok(())
}

/// What a link names is replaced, and the link stays; a file that is open is written to.
#[test]
fn output_to_a_link() -> Result<()> {
    let dir = TempDir::new()?;
    let (file, link) = (dir.path().join("file.o"), dir.path().join("link.o"));
    std::fs::write(&file, "old")?;
    symlink(&file, &link)?;
    let mut command = durac(["compile", "always", "-o"])?;
    command.arg(&link);
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    ensure!(std::fs::read_link(&link)? == file && std::fs::read(&file)?.starts_with(b"\x7fELF"));

    let printed = dir.path().join("printed");
    let mut command = durac(["compile", "always", "--emit", "asm", "-o", "/proc/self/fd/1"])?;
    let status = command.stdout(File::create(&printed)?).status()?;
    let text = std::fs::read_to_string(&printed)?;
    ensure!(status.success() && text.contains("durac/fdatasync"), "{status}: {text}");
    Ok(())
}

/// `/dev/shm` is a folder like any other; the rest of `/dev` is written to as it is.
#[test]
fn output_in_shared_memory() -> Result<()> {
    let dir = tempfile::TempDir::new_in("/dev/shm")?;
    let path = dir.path().join("x.o");
    let path = path.to_str().context("path")?;
    for _ in 0..2 {
        let ended = run_durac(["compile", "always", "-o", path])?;
        ensure!(ended.status.success(), "{}", show(&ended));
    }
    ensure!(std::fs::read(path)?.starts_with(b"\x7fELF"));
    let ended = run_durac(["compile", "always", "-o", "/dev/null"])?;
    ensure!(ended.status.success(), "{}", show(&ended));
    Ok(())
}

#[test]
fn what_is_empty_or_asks_for_help() -> Result<()> {
    // As a variable that is not set.
    let mut command = durac(["run", "window", "--", "true"])?;
    command.env("DURAC_AGENT", "");
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    for option in ["--help", "-h"] {
        let ended = run_durac(["help", option])?;
        ensure!(ended.status.success() && ended.stdout.contains("Commands:"), "{}", show(&ended));
    }
    Ok(())
}

/// What is wrong is named, in words and by its own name.
#[test]
fn messages_name_what_is_wrong() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n")?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let script = script.to_str().context("a path")?;
    let broken = dir.path().join("two\nlines.dur");
    std::fs::write(&broken, "policy p\ntarget redis.aof\non fdatasync: nothing\n")?;
    let broken = broken.to_str().context("a path")?;
    let folder = dir.path().to_str().context("a path")?;
    let blank = format!("{folder}/a b");
    for (words, code, says, never) in [
        (
            &["run", "window", "--", script][..],
            126,
            "its interpreter `/no/such/interpreter` does not exist",
            "no such file",
        ),
        (&["simulate", folder], 1, "cannot be read: is a directory", "os error"),
        (&["check", broken], 1, "two?lines.dur", "two\n"),
        (&["run", "leveldb", "--", "true"], 1, "`target leveldb.log`", "shows the ready policies"),
        (&["install", "--prefix", &blank], 1, "its path contains a blank", "bin/durac"),
        (&["doctor", "nosuchthing"], 1, "the message on standard error", "above"),
        (&["bench", "window", "--server", "/bin/true"], 2, "true ended with", "redis-server ended"),
    ] {
        let ended = run_durac(words)?;
        let said = format!("{}{}", ended.stdout, ended.stderr);
        ensure!(
            ended.status.code() == Some(code) && said.contains(says) && !said.contains(never),
            "{words:?}: {}",
            show(&ended)
        );
    }
    ensure!(!std::path::Path::new(&blank).exists(), "installed");
    Ok(())
}

/// A short text that was proved in gigabytes: the memory of a proof is limited.
#[test]
fn a_proof_has_limited_memory() -> Result<()> {
    const MOST_KIB: u32 = 1_500_000;
    let line = |i: u32| format!("if pending.age > {i}ms {{ await pending < {} }}\n", 8 - i);
    let lines: String = (1..=7).map(line).collect();
    let dir = TempDir::new()?;
    let text = format!("target redis.aof\non fdatasync {{\n{lines} defer }}\n");
    let policy = file(&dir, "waits.dur", text)?;
    let limited = format!("ulimit -v {MOST_KIB}; exec \"$0\" check \"$1\"");
    let mut command = child::command(&[], "sh".as_ref());
    command.arg("-c").arg(limited).arg(tool()?).arg(&policy).env("NO_COLOR", "1");
    let ended = run(command)?;
    ensure!(ended.status.code() == Some(0), "{}", show(&ended));
    ensure!(ended.stderr.contains("the model checker stopped after"), "{}", show(&ended));
    Ok(())
}
