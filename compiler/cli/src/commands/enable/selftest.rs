//! Before a drop-in counts: a copy of the unit, with every restriction of it, on a folder of its own.

use super::systemd::{self, Unit};
use crate::output;
use anyhow::{Context, Result, bail, ensure};
use durac_shm::status::Status;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The copy, and its folder in /run, which a unit gets whatever else it may not write.
const NAME: &str = "durac-selftest";
const FOLDER: &str = "/run/durac-selftest";
/// How long it may take to start and to answer.
const WITHIN: Duration = Duration::from_secs(20);

/// The copy's file. It goes away with it.
struct Copy {
    name: String,
    file: PathBuf,
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What is left of it, if anything, is in /run.
        let _ = systemd::call(&["stop", &self.name]);
        let _ = systemd::call(&["reset-failed", &self.name]);
        let _ = fs::remove_file(&self.file);
        let _ = systemd::reload();
    }
}

/// Starts a copy of the unit of this name, which has its drop-in already, has it write, and looks whether the agent has
/// seen that.
pub fn run(name: &str) -> Result<()> {
    let unit = Unit::load(name)?;
    if !unit.is_redis() {
        output::stderr(&format!(
            "durac: note: no self-test for `{}`: look at `durac top` after the next start\n",
            unit.program()
        ));
        return Ok(());
    }
    let mut text = format!("[Unit]\nDescription=Self-test of durac for {name}\n[Service]\n");
    // In systemd's order: what a later one says of the same counts.
    for path in std::iter::once(&unit.fragment).chain(&unit.drop_ins) {
        let read = fs::read_to_string(path);
        let read = read.with_context(|| format!("cannot read `{}`", path.display()))?;
        text.push_str(&restrictions(&read));
    }
    text.push_str(&instead(&unit));
    // So that `%i` stays what it is.
    let name = match name.split_once('@') {
        Some((_, instance)) => format!("{NAME}@{instance}"),
        None => format!("{NAME}.service"),
    };
    let copy = Copy { file: Path::new("/run/systemd/system").join(&name), name };
    fs::write(&copy.file, text).context("cannot make a unit for the self-test")?;
    systemd::reload()?;
    let name = &copy.name;
    let tried = systemd::call(&["start", name]).and_then(|_| works(name));
    tried.with_context(|| {
        let said = systemd::status(name);
        format!("the self-test under the unit's restrictions failed\n{said}")
    })
}

/// What a unit's file says of the process itself: its user, its limits, what it may not do. Nothing that acts on
/// something else: a copy that runs `ExecStop=redis-cli shutdown`, or on whose end systemd removes the
/// `RuntimeDirectory=`, would take the real server down.
fn restrictions(text: &str) -> String {
    let mut kept = String::new();
    let (mut service, mut keeps, mut continued) = (false, false, false);
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() && !continued || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if !continued {
            if trimmed.starts_with('[') {
                service = trimmed == "[Service]";
                continue;
            }
            let name = trimmed.split('=').next().unwrap_or("").trim_end();
            keeps = service && !acts(name);
        }
        continued = line.ends_with('\\');
        if keeps {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    // A last line that goes on would take the next one with it.
    if keeps && continued {
        kept.push('\n');
    }
    kept
}

/// Whether a setting acts on more than the process: systemd.service(5), and of systemd.exec(5) the folders that
/// systemd makes and removes, and the files and terminals that the output goes to.
fn acts(name: &str) -> bool {
    let commands = name.starts_with("Exec") && !["ExecPaths", "ExecSearchPath"].contains(&name);
    let start = [
        "RuntimeDirectory",
        "StateDirectory",
        "CacheDirectory",
        "LogsDirectory",
        "ConfigurationDirectory",
        "Standard",
        "TTY",
        "Utmp",
        "Restart",
        "StartLimit",
        "Timeout",
        "Watchdog",
        "RuntimeMax",
        "Reboot",
        "FileDescriptorStore",
        "OpenFile",
        "USBFunction",
    ];
    let whole = [
        "Type",
        "ExitType",
        "PIDFile",
        "BusName",
        "Sockets",
        "NotifyAccess",
        "GuessMainPID",
        "RemainAfterExit",
        "RemoveIPC",
    ];
    commands
        || start.iter().any(|start| name.starts_with(start))
        || whole.contains(&name)
        || name.ends_with("Action")
}

/// What the copy does instead.
fn instead(unit: &Unit) -> String {
    let program = unit.command.first().map_or("", String::as_str);
    format!(
        "[Service]\nType=exec\nExecStart={program} --port 0 --unixsocket {FOLDER}/socket --dir {FOLDER} --save \"\" --appendonly \
         yes --appendfsync always --logfile \"\" --daemonize no\nRuntimeDirectory={NAME}\nRuntimeDirectoryMode=0755\n\
         StandardOutput=journal\nStandardError=journal\nRestart=no\nTimeoutSec={}\n",
        WITHIN.as_secs()
    )
}

/// Whether it writes its log under a policy.
fn works(name: &str) -> Result<()> {
    let until = Instant::now() + WITHIN;
    let mut socket = loop {
        match UnixStream::connect(format!("{FOLDER}/socket")) {
            Ok(socket) => break socket,
            Err(error) if Instant::now() > until => {
                return Err(error).context("it does not answer");
            }
            Err(_) if systemd::property(name, "ActiveState")? == "failed" => {
                bail!("it does not start");
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    socket.set_read_timeout(Some(WITHIN))?;
    for _ in 0..3 {
        socket.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n")?;
        let mut answer = [0; 5];
        socket.read_exact(&mut answer).context("it does not answer")?;
        ensure!(&answer == b"+OK\r\n", "it refuses to write: {}", String::from_utf8_lossy(&answer));
    }
    let pid: u32 = systemd::property(name, "MainPID")?.parse().context("it has no process")?;
    let Ok(status) = Status::of_process(pid, false) else {
        bail!("the policy is not in force: the agent was not loaded, or refuses the object");
    };
    let calls: u64 = status.snapshot().logs.iter().map(|log| log.numbers.calls).sum();
    ensure!(calls > 0, "the policy is not in force: its log was not synced");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::restrictions;

    #[test]
    fn a_copy_does_what_confines_and_nothing_that_acts() {
        let text = "[Unit]\nOnFailure=page.service\nFailureAction=reboot\n[Service]\nType=forking\n\
                    User=redis\nExecStart=/usr/bin/redis-server /etc/redis.conf \\\n  --supervised systemd\n\
                    ExecStop=/usr/bin/redis-cli shutdown\nRuntimeDirectory=redis\nNoExecPaths=/\n\
                    ExecPaths=/usr/bin/redis-server \\\n# between\n  /usr/lib\nStandardOutput=truncate:/var/log/redis\n\
                    SystemCallFilter=~ @privileged\nStateDirectory=redis\nFailureAction=reboot\n\
                    [Install]\nUser=nobody\n";
        let kept = "User=redis\nNoExecPaths=/\nExecPaths=/usr/bin/redis-server \\\n  /usr/lib\n\
                    SystemCallFilter=~ @privileged\n";
        assert_eq!(restrictions(text), kept);
        assert_eq!(restrictions("[Service]\nUMask=007\\"), "UMask=007\\\n\n");
        assert_eq!(restrictions("UMask=007\n[X]\nUMask=007\n"), "");
    }
}
