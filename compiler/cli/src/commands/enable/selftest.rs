//! Before anything of a unit is changed: a copy of it, with every restriction of it and what would be its drop-in, on a
//! folder of its own.

use super::systemd::{self, Unit};
use crate::output;
use anyhow::{Context, Result, bail, ensure};
use durac_shm::status::Status;
use durac_workload::sys;
use rustix::fs::{FlockOperation, flock};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The copy, and its folder in /run, which a unit gets whatever else it may not write.
const NAME: &str = "durac-selftest";
const FOLDER: &str = "/run/durac-selftest";
/// Where units are for as long as the system runs.
const UNITS: &str = "/run/systemd/system";
/// Held by the command that changes units.
const LOCK: &str = "/run/durac-enable.lock";
/// How long it may take to start and to answer.
const WITHIN: Duration = Duration::from_secs(20);
/// Between two looks.
const NAP: Duration = Duration::from_millis(20);

/// While it lives, no other command changes a unit.
pub struct Turn {
    _lock: fs::File,
}

impl Turn {
    /// Waits for the others, and takes away what one has left that was killed.
    pub fn wait() -> Result<Self> {
        let lock = fs::OpenOptions::new().create(true).append(true).open(LOCK);
        let lock = lock.with_context(|| format!("cannot open `{LOCK}`"))?;
        while let Err(why) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if why.kind() != io::ErrorKind::WouldBlock {
                return Err(why).with_context(|| format!("cannot lock `{LOCK}`"));
            }
            uninterrupted()?;
            std::thread::sleep(NAP);
        }
        let left = fs::read_dir(UNITS).into_iter().flatten().flatten();
        for file in left.map(|entry| entry.path()) {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or("").to_owned();
            if name.starts_with(NAME) && name.ends_with(".service") {
                drop(Copy { name, file });
            }
        }
        Ok(Self { _lock: lock })
    }
}

/// An error if this command is to end.
pub fn uninterrupted() -> Result<()> {
    match sys::interrupted() {
        true => Err(output::exit(super::INTERRUPTED, "interrupted")),
        false => Ok(()),
    }
}

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

/// What a unit is to have.
pub struct Candidate<'a> {
    /// The path and the text of its drop-in.
    pub drop_in: (&'a Path, &'a str),
    pub agent: &'a Path,
    /// The object that this drop-in names, and its fingerprint.
    pub object: (&'a Path, u64),
}

/// Makes a copy of the unit with this name that has the drop-in, and looks what it would start with. Of a Redis, starts it, has it
/// write, and looks whether the agent has seen that. Returns whether it did.
pub fn run(name: &str, unit: &Unit, candidate: &Candidate<'_>) -> Result<bool> {
    let mut text = format!("[Unit]\nDescription=Self-test of durac for {name}\n[Service]\n");
    let (path, ours) = candidate.drop_in;
    let mut files = Vec::new();
    for path in std::iter::once(&unit.fragment).chain(&unit.drop_ins) {
        files.push((path.as_path(), systemd::text(path)?));
    }
    // In systemd's order: what a later one says of the same counts. Drop-ins go by their names, whatever folder
    // they are in, and of two with the same name that in /etc counts.
    files.retain(|(file, _)| *file == unit.fragment || file.file_name() != path.file_name());
    let behind = files.iter().skip(1).position(|(file, _)| file.file_name() > path.file_name());
    files.insert(behind.map_or(files.len(), |at| at + 1), (path, ours.to_owned()));
    for (_, read) in &files {
        text.push_str(&restrictions(read, name));
    }
    text.push_str(&instead(unit, text.contains("\nRestrictAddressFamilies=")));
    // So that `%i` stays what it is.
    let copied = match name.split_once('@') {
        Some((_, instance)) => format!("{NAME}@{instance}"),
        None => format!("{NAME}.service"),
    };
    let copy = Copy { file: Path::new(UNITS).join(&copied), name: copied };
    fs::write(&copy.file, text).context("cannot make a unit for the self-test")?;
    systemd::reload()?;
    let name = &copy.name;
    let mut copied = Unit::load(name)?;
    // Which files it has them from, is asked of the unit itself.
    copied.fragment.clone_from(&unit.fragment);
    copied.drop_ins.clone_from(&unit.drop_ins);
    copied.starts_with(candidate.agent, candidate.object.0)?;
    if let Some(why) = unit.unreached() {
        bail!("{why}");
    }
    if !unit.is_redis() {
        return Ok(false);
    }
    does_nothing_else(name)?;
    uninterrupted()?;
    let tried = systemd::call(&["start", name]).and_then(|_| works(name, candidate.object.1));
    uninterrupted()?;
    tried.map(|()| true).with_context(|| {
        let said = systemd::status(name);
        format!(
            "the self-test under the unit's restrictions failed (a copy of the unit, without what systemd makes or does for \
             it)\n{said}"
        )
    })
}

/// The copy has one command and takes nothing away when it ends, whatever was read from the unit's files: asked of systemd
/// before it is started.
fn does_nothing_else(name: &str) -> Result<()> {
    let commands = [
        "ExecCondition",
        "ExecStartPre",
        "ExecStartPost",
        "ExecReload",
        "ExecStop",
        "ExecStopPost",
    ];
    for setting in commands.into_iter().chain(["OnFailure", "OnSuccess", "StateDirectory"]) {
        let value = systemd::property(name, setting)?;
        ensure!(value.is_empty(), "this is a bug in durac: the copy has `{setting}={value}`");
    }
    let folders = systemd::property(name, "RuntimeDirectory")?;
    ensure!(folders == NAME, "this is a bug in durac: the copy has `RuntimeDirectory={folders}`");
    Ok(())
}

/// What a unit's file says of the process itself: its user, its limits, what it may not do. Nothing that acts on
/// something else: a copy that runs `ExecStop=redis-cli shutdown`, or on whose end systemd removes the
/// `RuntimeDirectory=`, would take the real server down. A setting that is not known here is left out.
fn restrictions(text: &str, unit: &str) -> String {
    let mut kept = String::new();
    systemd::settings(text, |setting| {
        if setting.section == "Service" && confines(&setting.name) {
            let value = match setting.name.as_str() {
                // What systemd would make for the unit is not there.
                "ReadWritePaths" => may_be_missing(&setting.value),
                _ => setting.value.clone(),
            };
            kept.push_str(&format!("{}={}\n", setting.name, expand(&value, unit)));
        }
    });
    kept
}

/// What stands for the name of the unit, which the copy does not have (systemd.unit(5), "Specifiers").
fn expand(value: &str, unit: &str) -> String {
    let stem = unit.strip_suffix(".service").unwrap_or(unit);
    let prefix = stem.split('@').next().unwrap_or(stem);
    let last = prefix.rsplit('-').next().unwrap_or(prefix);
    let mut expanded = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('%', Some('n')) => expanded.push_str(unit),
            ('%', Some('N')) => expanded.push_str(stem),
            ('%', Some('p')) => expanded.push_str(prefix),
            ('%', Some('j')) => expanded.push_str(last),
            ('%', Some(other)) => expanded.extend(['%', other]),
            _ => {
                expanded.push(c);
                continue;
            }
        }
        chars.next();
    }
    expanded
}

/// The paths of a list, each of which may be missing.
fn may_be_missing(paths: &str) -> String {
    let mut all = String::new();
    let (mut begins, mut quoted) = (true, false);
    for c in paths.chars() {
        let quotes = c == '"';
        if begins && !quotes && !c.is_whitespace() {
            if c != '-' {
                all.push('-');
            }
            begins = false;
        }
        quoted ^= quotes;
        begins |= c.is_whitespace() && !quoted;
        all.push(c);
    }
    all
}

/// Whether a setting confines a process, or is what it starts with: systemd.exec(5), and of systemd.resource-control(5) the
/// limits.
fn confines(name: &str) -> bool {
    let start = [
        "AppArmorProfile",
        "Bind",
        "CPUAffinity",
        "CPUQuota",
        "CPUScheduling",
        "Capability",
        "Device",
        "Environment",
        "IOScheduling",
        "IPAddress",
        "Inaccessible",
        "Limit",
        "LockPersonality",
        "Memory",
        "MountAPIVFS",
        "MountFlags",
        "NUMA",
        "Private",
        "Proc",
        "Protect",
        "ReadOnlyPaths",
        "ReadWritePaths",
        "RestrictAddressFamilies",
        "RestrictFileSystems",
        "RestrictNamespaces",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "RootDirectory",
        "SELinuxContext",
        "SmackProcessLabel",
        "SystemCall",
    ];
    let whole = [
        "AmbientCapabilities",
        "DynamicUser",
        "ExecPaths",
        "ExecSearchPath",
        "Group",
        "KeyringMode",
        "NetworkNamespacePath",
        "Nice",
        "NoExecPaths",
        "NoNewPrivileges",
        "OOMScoreAdjust",
        "PassEnvironment",
        "Personality",
        "SecureBits",
        "SupplementaryGroups",
        "TasksMax",
        "TemporaryFileSystem",
        "UMask",
        "UnsetEnvironment",
        "User",
    ];
    start.iter().any(|start| name.starts_with(start)) || whole.contains(&name)
}

/// What the copy does instead.
fn instead(unit: &Unit, names_families: bool) -> String {
    let program = systemd::word(&unit.path().to_string_lossy());
    // It is asked by a socket, which the unit may not need.
    let families = if names_families { "RestrictAddressFamilies=AF_UNIX\n" } else { "" };
    format!(
        "[Service]\n{families}Type=exec\nExecStart={program} --port 0 --unixsocket {FOLDER}/socket --dir {FOLDER} --save \"\" --appendonly \
         yes --appendfsync always --logfile \"\" --daemonize no\nRuntimeDirectory={NAME}\nRuntimeDirectoryMode=0755\n\
         StandardOutput=journal\nStandardError=journal\nRestart=no\nTimeoutSec={}\n",
        WITHIN.as_secs()
    )
}

/// Whether it writes its log under the policy of the object with this fingerprint.
fn works(name: &str, object: u64) -> Result<()> {
    let until = Instant::now() + WITHIN;
    let mut socket = loop {
        uninterrupted()?;
        match UnixStream::connect(format!("{FOLDER}/socket")) {
            Ok(socket) => break socket,
            Err(error) if Instant::now() > until => {
                return Err(error).context("it does not answer");
            }
            Err(_) if systemd::property(name, "ActiveState")? == "failed" => {
                bail!("it does not start");
            }
            Err(_) => std::thread::sleep(NAP),
        }
    };
    socket.set_read_timeout(Some(WITHIN))?;
    for _ in 0..3 {
        let command = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n";
        socket.write_all(command).context("it does not answer")?;
        let mut answer = [0; 5];
        socket.read_exact(&mut answer).context("it does not answer")?;
        ensure!(&answer == b"+OK\r\n", "it refuses to write: {}", String::from_utf8_lossy(&answer));
    }
    let pid: u32 = systemd::property(name, "MainPID")?.parse().context("it has no process")?;
    let Ok(status) = Status::of_process(pid, false) else {
        bail!("the policy is not in force: the agent was not loaded, or refuses the object");
    };
    let seen = status.snapshot();
    ensure!(seen.object == object, "the policy is not in force, but `{}` is", seen.policy);
    let calls: u64 = seen.logs.iter().map(|log| log.numbers.calls).sum();
    ensure!(calls > 0, "the policy is not in force: its log was not synced");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{expand, may_be_missing, restrictions};

    #[test]
    fn a_copy_does_what_confines_and_nothing_that_acts() {
        let text = "[Unit]\nOnFailure=page.service\nFailureAction=reboot\n[Service]\nType=forking\n\
                    User=%p\nExecStart=/usr/bin/redis-server /etc/redis.conf \\\n  --supervised systemd\n\
                    ExecStop=/usr/bin/redis-cli shutdown\nRuntimeDirectory=redis\nNoExecPaths=/\n\
                    ExecPaths=/usr/bin/redis-server \\\n# between\n  /usr/lib\nStandardOutput=truncate:/var/log/redis\n\
                    SystemCallFilter=~ @privileged\nStateDirectory=redis\nFailureAction=reboot\n\
                    KillMode=none\nReadWritePaths=/run/redis -/var/lib\nSettingOfTomorrow=reboot\n\
                    Environment=A=C:\\\\\nExecStop=+redis-cli shutdown\n[Install]\nUser=nobody\n";
        let kept = "User=redis\nNoExecPaths=/\nExecPaths=/usr/bin/redis-server  /usr/lib\n\
                    SystemCallFilter=~ @privileged\nReadWritePaths=-/run/redis -/var/lib\nEnvironment=A=C:\\\\\n";
        assert_eq!(restrictions(text, "redis@1.service"), kept);
        assert_eq!(restrictions("UMask=007\n[X]\nUMask=007\n", "a.service"), "");
    }

    #[test]
    fn what_stands_for_the_unit_is_its_own() {
        assert_eq!(
            expand("%n %N %p %i %j %%p 5%", "a-b@c.service"),
            "a-b@c.service a-b@c a-b %i b %%p 5%"
        );
        assert_eq!(may_be_missing("/a \"/b c\" -/d"), "-/a \"-/b c\" -/d");
    }
}
