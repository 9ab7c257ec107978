//! Before a drop-in counts: a copy of the unit, with every restriction of it, on a folder of its own.

use super::systemd::{self, Unit};
use crate::output;
use anyhow::{Context, Result, bail, ensure};
use durac_shm::status::Status;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The copy, and its folder in /run, which a unit gets whatever else it may not write.
const NAME: &str = "durac-selftest";
const FOLDER: &str = "/run/durac-selftest";
/// How long it may take to start and to answer.
const WITHIN: Duration = Duration::from_secs(20);

/// The files of the copy. They go away with it.
struct Copy {
    unit: PathBuf,
    drop_ins: PathBuf,
}

impl Drop for Copy {
    fn drop(&mut self) {
        let name = format!("{NAME}.service");
        // What is left of it, if anything, is in /run.
        let _ = systemd::call(&["stop", &name]);
        let _ = systemd::call(&["reset-failed", &name]);
        let _ = fs::remove_file(&self.unit);
        let _ = fs::remove_dir_all(&self.drop_ins);
        let _ = systemd::reload();
    }
}

/// Starts the copy, has it write, and looks whether the agent has seen that.
pub fn run(unit: &Unit, drop_in: &str) -> Result<()> {
    if !unit.is_redis() {
        output::stderr(&format!(
            "durac: note: no self-test for `{}`: look at `durac top` after the next start\n",
            unit.program()
        ));
        return Ok(());
    }
    let copy = Copy {
        unit: format!("/run/systemd/system/{NAME}.service").into(),
        drop_ins: format!("/run/systemd/system/{NAME}.service.d").into(),
    };
    fs::create_dir_all(&copy.drop_ins).context("cannot make a unit for the self-test")?;
    let text = fs::read_to_string(&unit.fragment)
        .with_context(|| format!("cannot read `{}`", unit.fragment.display()))?;
    fs::write(&copy.unit, text).context("cannot make a unit for the self-test")?;
    for (number, path) in unit.drop_ins.iter().enumerate() {
        // One of ours from before is replaced below.
        if path.file_name().is_some_and(|name| name != "durac.conf") {
            let to = copy.drop_ins.join(format!("{number:03}.conf"));
            fs::copy(path, to).with_context(|| format!("cannot read `{}`", path.display()))?;
        }
    }
    fs::write(copy.drop_ins.join("900-durac.conf"), drop_in)?;
    fs::write(copy.drop_ins.join("901-selftest.conf"), change(unit))?;
    systemd::reload()?;
    let name = format!("{NAME}.service");
    let tried = systemd::call(&["start", &name]).and_then(|_| works(&name));
    tried.with_context(|| {
        let said = systemd::call(&["status", "--lines=20", "--full", &name]).unwrap_or_default();
        let said = if said.is_empty() { journal(&name) } else { said };
        format!("the self-test under the unit's restrictions failed\n{said}")
    })
}

/// What the copy does instead.
fn change(unit: &Unit) -> String {
    let program = unit.command.first().map_or("", String::as_str);
    format!(
        "[Service]\nExecStart=\nExecStart={program} --port 0 --unixsocket {FOLDER}/socket --dir {FOLDER} --save \
         \"\" --appendonly yes --appendfsync always --logfile \"\" --supervised systemd --daemonize \
         no\nPIDFile=\nRuntimeDirectory={NAME}\nRuntimeDirectoryMode=0755\nRestart=no\nTimeoutStartSec={}\n",
        WITHIN.as_secs()
    )
}

fn journal(name: &str) -> String {
    let said = std::process::Command::new("journalctl")
        .args(["--no-pager", "-n", "20", "-u", name])
        .output();
    said.map_or_else(|_| String::new(), |said| String::from_utf8_lossy(&said.stdout).into_owned())
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
