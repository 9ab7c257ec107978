//! Child processes: started so that they never outlive us, waited for with a deadline.

use crate::error::{Error, Result, Trying};
use crate::sys;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{Read, Seek};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a wait goes on before it looks whether the user wants to stop.
const LOOK_UP: Duration = Duration::from_millis(100);

/// The executable `name` on `PATH`.
///
/// # Errors
/// [`Error::NotFound`].
pub fn which(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| {
            file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
        .ok_or_else(|| Error::NotFound(name.to_owned()))
}

/// A program or library of durac: beside this executable, beside the folder `deps` in which cargo puts test
/// executables, or where a package puts it.
///
/// # Errors
/// If it is in none of these places.
pub fn beside(name: &str) -> Result<PathBuf> {
    let exe = std::env::current_exe().trying(|| "find this executable".into())?;
    let folders = exe.ancestors().skip(1).take(2);
    let mut places = folders.flat_map(|dir| [dir.join(name), dir.join("lib/durac").join(name)]);
    places.find(|file| file.is_file()).ok_or_else(|| {
        Error::Config(format!(
            "cannot find `{name}` beside `{}` or in `../lib/durac`: \
             `cargo build --workspace --lib --bins` builds it",
            exe.display()
        ))
    })
}

/// The executable that a user named: by its path, or by a name on `PATH`. Links are not followed: a
/// program may ask what it was called by.
///
/// # Errors
/// If it does not exist.
pub fn program(named: &Path) -> Result<PathBuf> {
    if let (Some(name), 1) = (named.to_str(), named.components().count())
        && !named.exists()
    {
        return which(name);
    }
    let is_program = |m: &Metadata| m.is_file() && m.permissions().mode() & 0o111 != 0;
    match std::path::absolute(named) {
        Ok(path) if path.metadata().is_ok_and(|m| is_program(&m)) => Ok(path),
        _ => Err(Error::Config(format!("`{}` is not a program", named.display()))),
    }
}

/// `prefix… program`, with no input, in our process group, and dead when we are.
#[must_use]
pub fn command(prefix: &[OsString], program: &Path) -> Command {
    let mut words = prefix.iter().map(OsString::as_os_str).chain([program.as_os_str()]);
    let mut command = Command::new(words.next().unwrap_or(OsStr::new("")));
    command.args(words).stdin(Stdio::null());
    sys::die_with_parent(&mut command);
    command
}

/// Waits for a child's end; `None` if it still runs after `within`.
pub(crate) fn wait(child: &mut Child, within: Duration) -> Result<Option<ExitStatus>> {
    wait_while(child, within, || true)
}

/// As [`wait`], and `None` too as soon as `go_on` says no.
fn wait_while(
    child: &mut Child,
    within: Duration,
    go_on: impl Fn() -> bool,
) -> Result<Option<ExitStatus>> {
    let what = || "wait for a child".to_owned();
    let process = sys::Process::open(child.id()).trying(what)?;
    let deadline = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait().trying(what)? {
            return Ok(Some(status));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !go_on() {
            return Ok(None);
        }
        process.wait(left.min(LOOK_UP)).trying(what)?;
    }
}

/// How a command ended, and what it wrote.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Runs a command to its end, good or bad.
///
/// # Errors
/// If it cannot start or does not end in time, or the user interrupts.
pub fn run(command: Command, within: Duration) -> Result<Ended> {
    run_while(command, within, || true)
}

/// As [`run`]; the command is killed, which is an error, once `needed` says no.
fn run_while(mut command: Command, within: Duration, needed: impl Fn() -> bool) -> Result<Ended> {
    let program = command.get_program().to_string_lossy().into_owned();
    let what = || format!("run {program}");
    // Files, not pipes: a program that writes much must not wait for a reader.
    let mut stdout = tempfile::tempfile().trying(what)?;
    let mut stderr = tempfile::tempfile().trying(what)?;
    command.stdout(stdout.try_clone().trying(what)?).stderr(stderr.try_clone().trying(what)?);
    let mut child = command.spawn().trying(what)?;
    let ended = wait_while(&mut child, within, || !sys::interrupted() && needed());
    if !matches!(ended, Ok(Some(_))) {
        // It may end by itself in this instant; then there is nothing to kill.
        let _ = child.kill();
        let _ = child.wait();
    }
    if sys::interrupted() {
        return Err(Error::Interrupted);
    }
    let read = |file: &mut File| {
        let mut text = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut text)).trying(what)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    match ended? {
        Some(status) => {
            Ok(Ended { status, stdout: read(&mut stdout)?, stderr: read(&mut stderr)? })
        }
        None if needed() => Err(Error::Late { what: format!("the end of {program}"), within }),
        None => Err(Error::Config(format!("the server ended while {program} was using it"))),
    }
}

/// What a command writes to stdout, if it ends well; see [`run`].
pub(crate) fn output(command: Command, within: Duration) -> Result<String> {
    output_while(command, within, || true)
}

/// As [`output`]; the command is killed, which is an error, once `needed` says no.
pub(crate) fn output_while(
    command: Command,
    within: Duration,
    needed: impl Fn() -> bool,
) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let ended = run_while(command, within, needed)?;
    if ended.status.success() {
        return Ok(ended.stdout);
    }
    Err(Error::Ended { program, status: ended.status, output: tail(&ended.stderr) })
}

/// The last lines of `text`, each after a line break and two blanks, for the end of a message.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default();
    last.iter().map(|line| format!("\n  {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = command(&[], &which("sh").unwrap());
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_is_stdout() {
        assert_eq!(output(shell("echo a; echo b >&2"), LOOK_UP * 100).unwrap(), "a\n");
    }

    #[test]
    fn a_bad_end_shows_stderr() {
        let error = output(shell("echo why >&2; exit 3"), LOOK_UP * 100).unwrap_err().to_string();
        assert!(error.ends_with("exit status: 3\n  why"), "{error}");
    }

    #[test]
    fn the_deadline_kills() {
        let error = output(shell("exec sleep 1000"), LOOK_UP).unwrap_err();
        assert!(matches!(error, Error::Late { .. }), "{error}");
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        assert!(matches!(which("no-such-program"), Err(Error::NotFound(_))));
    }

    #[test]
    fn a_named_program() {
        let shell = which("sh").unwrap();
        assert_eq!(program(Path::new("sh")).unwrap(), shell);
        assert_eq!(program(&shell).unwrap(), shell);
        for wrong in ["/dev/null", "/", "/etc/passwd", "/no/such/program"] {
            let error = program(Path::new(wrong)).unwrap_err().to_string();
            assert_eq!(error, format!("`{wrong}` is not a program"));
        }
        assert!(program(Path::new("no-such-program")).is_err());
    }

    #[test]
    fn tail_keeps_the_end() {
        let text: String = (0..20).map(|i| format!("{i}\n\n")).collect();
        let tail = tail(&text);
        assert!(tail.starts_with("\n  8\n") && tail.ends_with("\n  19"), "{tail}");
    }
}
