//! A container runtime, `runc`: outside of durac, and under it. The container has process numbers, mounts, a network, and
//! capabilities of its own, and no `/run` of the host.

use crate::who::{APPEND, Place};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// What the containers of Docker and Podman may do by default.
const CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// A container that is there for as long as the test.
struct Container<'a> {
    place: &'a Place,
    name: String,
    bundle: String,
}

impl<'a> Container<'a> {
    /// One that runs the command in the place's folder. `filter` is its system call filter.
    fn new(place: &'a Place, command: &[&str], filter: Option<Value>) -> Result<Self> {
        let folder = place.path().to_str().context("a path")?;
        let bundle = place.path().join("bundle");
        std::fs::create_dir_all(bundle.join("root"))?;
        let bind = |path: &str, how: &str| json!({ "destination": path, "type": "bind", "source": path, "options": ["rbind", how] });
        let made =
            |path: &str, kind: &str| json!({ "destination": path, "type": kind, "source": kind });
        let mut mounts = vec![made("/proc", "proc"), made("/dev", "tmpfs"), made("/run", "tmpfs")];
        mounts.extend(["/usr", "/bin", "/lib", "/lib64", "/etc"].map(|path| bind(path, "ro")));
        mounts.push(bind(folder, "rw"));
        let spaces = ["pid", "mount", "ipc", "uts", "network"].map(|kind| json!({ "type": kind }));
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "args": command,
                "env": ["PATH=/usr/bin:/bin"],
                "cwd": folder,
                "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES },
            },
            "root": { "path": "root" },
            "mounts": mounts,
            "linux": { "namespaces": spaces, "seccomp": filter },
        });
        std::fs::write(bundle.join("config.json"), config.to_string())?;
        let name = folder.rsplit('/').next().context("a name")?.to_owned();
        Ok(Self { place, name, bundle: bundle.to_str().context("a path")?.to_owned() })
    }

    /// The command that starts it.
    fn words(&self) -> [&str; 5] {
        ["runc", "run", "--bundle", &self.bundle, &self.name]
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let mut command = Command::new("runc");
        command.args(["delete", "--force", &self.name]);
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        // What its programs have written belongs to the next one.
        let _ = std::fs::remove_file(self.place.path().join("a.log"));
    }
}

/// A filter that refuses a call.
fn refuses(call: &str) -> Value {
    let refused = json!({ "names": [call], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EPERM });
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused] })
}

#[test]
fn a_runtime_under_the_supervisor() -> Result<()> {
    let place = Place::new()?;
    // Its own filter is another one; what the supervisor may do is not its business.
    for filter in [None, Some(refuses("pidfd_getfd"))] {
        let container = Container::new(&place, &APPEND, filter)?;
        place.run_words(&[&place.durac()?[..], &container.words()].concat())?.deferred_most()?;
    }
    Ok(())
}

#[test]
fn the_supervisor_in_a_container() -> Result<()> {
    let place = Place::new()?;
    let inside = [&place.durac()?[..], &APPEND].concat();
    let container = Container::new(&place, &inside, None)?;
    let outcome = place.run_words(&container.words())?.deferred_most()?;
    ensure!(outcome.stderr.contains("no_new_privs"), "{}", outcome.stderr);
    Ok(())
}

/// As Docker's filter without `--cap-add SYS_PTRACE`.
#[test]
fn a_container_in_which_the_supervisor_can_do_nothing() -> Result<()> {
    let place = Place::new()?;
    let inside = [&place.durac()?[..], &APPEND].concat();
    let container = Container::new(&place, &inside, Some(refuses("pidfd_getfd")))?;
    let ended = place.run_words(&container.words());
    let why = ended.err().context("it was started")?.to_string();
    ensure!(why.contains("cannot be taken") && !why.contains("is in force"), "{why}");
    ensure!(!place.path().join("a.log").exists());
    Ok(())
}
