//! What systemd knows of a unit, through `systemctl`.

use crate::output;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A unit as systemd has loaded it.
pub struct Unit {
    /// The file that defines it, and those that change it.
    pub fragment: PathBuf,
    pub drop_ins: Vec<PathBuf>,
    /// The command that it starts.
    pub command: Vec<String>,
    no_exec: Vec<PathBuf>,
    exec: Vec<PathBuf>,
    /// Libraries that it preloads.
    preload: Vec<String>,
    confined: bool,
}

/// `redis-server` is `redis-server.service`.
pub fn service(unit: &str) -> Result<String> {
    let named = |c: char| c.is_ascii_alphanumeric() || "-_.@:\\".contains(c);
    if unit.is_empty() || unit.starts_with(['-', '.']) || !unit.chars().all(named) {
        return Err(output::exit(1, format!("`{unit}` is not the name of a unit")));
    }
    match unit.rsplit_once('.') {
        Some((_, "service")) => Ok(unit.to_owned()),
        Some((_, kind @ ("socket" | "target" | "timer" | "mount" | "path" | "slice"))) => {
            Err(output::exit(1, format!("`{unit}` is a {kind}: name the service")))
        }
        _ => Ok(format!("{unit}.service")),
    }
}

/// Whether systemd runs this system (sd_booted(3)).
pub fn runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// An error if it does not.
pub fn needed() -> Result<()> {
    if runs() {
        return Ok(());
    }
    Err(output::exit(1, "systemd does not run here: `--dry-run` prints the drop-in"))
}

/// A word as systemd reads it in a unit's file, where `\` and `%` begin something else: the names of units have
/// backslashes (`re\x2dd.service`).
pub fn word(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('%', "%%").replace('"', "\\\"");
    match escaped.contains([' ', '\t', '\'', '"', ';']) {
        true => format!("\"{escaped}\""),
        false => escaped,
    }
}

/// Calls `systemctl`. Returns its output.
pub fn call(args: &[&str]) -> Result<String> {
    let ended = Command::new("systemctl")
        .args(["--no-pager", "--no-ask-password"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("cannot run systemctl")?;
    if ended.status.success() {
        return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
    let said = if said.is_empty() { ended.status.to_string() } else { said };
    Err(output::exit(2, format!("systemctl {}: {said}", args.join(" "))))
}

/// How a unit is, for the reader: its state, how its process ended, and its last lines in the journal.
pub fn status(unit: &str) -> String {
    // Of a unit that does not run, the exit code is not 0.
    let said = Command::new("systemctl")
        .args(["--no-pager", "--lines=20", "--full", "status", unit])
        .output();
    said.map_or_else(
        |error| error.to_string(),
        |said| String::from_utf8_lossy(&said.stdout).into_owned(),
    )
}

/// Has systemd read its files again.
pub fn reload() -> Result<()> {
    call(&["daemon-reload"]).map(drop)
}

/// A property of a unit.
pub fn property(unit: &str, name: &str) -> Result<String> {
    Ok(call(&["show", unit, "--value", "-p", name])?.trim_end().to_owned())
}

impl Unit {
    /// As systemd has loaded it.
    pub fn load(name: &str) -> Result<Self> {
        let property = |property: &str| self::property(name, property);
        if property("LoadState")? != "loaded" {
            return Err(output::exit(1, format!("systemd has no unit {name}")));
        }
        let paths = |text: String| -> Vec<PathBuf> {
            // `-/path` may be missing.
            words(&text).iter().map(|path| path.trim_start_matches(['-', '+']).into()).collect()
        };
        Ok(Self {
            fragment: property("FragmentPath")?.into(),
            drop_ins: paths(property("DropInPaths")?),
            command: argv(&property("ExecStart")?),
            no_exec: paths(property("NoExecPaths")?),
            exec: paths(property("ExecPaths")?),
            preload: preload(&property("Environment")?),
            confined: !property("SystemCallFilter")?.is_empty()
                || property("NoNewPrivileges")? == "yes",
        })
    }

    /// What this drop-in of ours allows to execute, and the agent that it preloads, count no longer: another takes its
    /// place.
    pub fn forget(&mut self, drop_in: &str) {
        for line in drop_in.lines() {
            if let Some(path) = line.strip_prefix("ExecPaths=") {
                self.exec.retain(|allowed| word(&allowed.to_string_lossy()) != path);
            } else if let Some(set) = line.strip_prefix("Environment=")
                && let Some(agent) = preload(set).first()
            {
                self.preload.retain(|library| library != agent);
            }
        }
    }

    /// `LD_PRELOAD` with this library before those that the unit preloads already.
    pub fn preload_with(&self, agent: &Path) -> String {
        let agent = agent.display().to_string();
        let others = self.preload.iter().filter(|library| **library != agent);
        others.fold(agent.clone(), |all, library| format!("{all}:{library}"))
    }

    /// Whether it has a system call filter or can gain no privileges.
    pub fn is_confined(&self) -> bool {
        self.confined
    }

    /// Whether nothing at this path may be executed, so that a library there cannot be loaded.
    pub fn forbids_to_execute(&self, path: &Path) -> bool {
        let longest = |folders: &[PathBuf]| {
            let above = folders.iter().filter(|folder| path.starts_with(folder));
            above.map(|folder| folder.components().count()).max()
        };
        // The longer path wins, and of two that are equal, the one that allows.
        longest(&self.no_exec) > longest(&self.exec)
    }

    /// The base name of its program.
    pub fn program(&self) -> &str {
        let path = self.command.first().map_or("", String::as_str);
        path.rsplit('/').next().unwrap_or(path)
    }

    /// Whether it is a Redis, or what speaks as one.
    pub fn is_redis(&self) -> bool {
        ["redis-server", "valkey-server"].contains(&self.program())
    }

    /// Settings under which Redis never calls what a policy acts on.
    pub fn redis_notes(&self) -> Vec<String> {
        let Some(path) =
            self.command.get(1).filter(|path| self.is_redis() && path.starts_with('/'))
        else {
            return Vec::new();
        };
        let Ok(text) = fs::read_to_string(path) else {
            return vec![format!(
                "cannot read `{path}`: see that it says `appendonly yes` and `appendfsync always`"
            )];
        };
        [("appendonly", "yes", "no"), ("appendfsync", "always", "everysec")]
            .into_iter()
            .filter_map(|(name, needed, default)| {
                let found = setting(&text, name).unwrap_or(default);
                let why = "the policy acts on what Redis does with it";
                (found != needed)
                    .then(|| format!("`{path}` has `{name} {found}`: set `{name} {needed}`; {why}"))
            })
            .collect()
    }
}

/// The last value that a redis.conf gives to a setting.
fn setting<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lines = text.lines().map(str::split_whitespace);
    let mut of = lines.filter_map(|mut words| {
        let found = words.next()?.eq_ignore_ascii_case(name);
        found.then(|| words.next().unwrap_or("").trim_matches('"'))
    });
    of.next_back()
}

/// The words of a property, which `systemctl` quotes as a shell reads them.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted) = (String::new(), false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.extend(chars.next()),
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// The libraries of `LD_PRELOAD` among assignments as systemd writes them.
fn preload(environment: &str) -> Vec<String> {
    let words = words(environment);
    let value = words.iter().filter_map(|word| word.strip_prefix("LD_PRELOAD=")).next_back();
    let libraries = value.unwrap_or("").split([':', ' ']).filter(|library| !library.is_empty());
    libraries.map(str::to_owned).collect()
}

/// The words in `{ path=… ; argv[]=… ; … }`, as systemd prints a command.
fn argv(text: &str) -> Vec<String> {
    let words = text.split_once("argv[]=").map_or("", |(_, words)| words);
    let words = words.split(" ; ").next().unwrap_or("");
    words.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{Unit, argv, preload, service, setting, word, words};
    use std::path::Path;

    #[test]
    fn names_of_units() {
        assert_eq!(service("redis-server").ok().as_deref(), Some("redis-server.service"));
        assert_eq!(service("redis@1.service").ok().as_deref(), Some("redis@1.service"));
        assert_eq!(service("a.b").ok().as_deref(), Some("a.b.service"));
        for wrong in ["", "-x", "../x", "a b", "redis.socket", "a/b", "a\n"] {
            assert!(service(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn commands_and_settings() {
        let text = "{ path=/usr/bin/redis-server ; argv[]=/usr/bin/redis-server /etc/r.conf --daemonize no ; \
                    ignore_errors=no ; pid=0 }";
        assert_eq!(argv(text), ["/usr/bin/redis-server", "/etc/r.conf", "--daemonize", "no"]);
        assert!(argv("").is_empty());
        let conf = "# appendonly yes\nappendonly no\nAppendFsync \"always\"\n";
        assert_eq!(setting(conf, "appendonly"), Some("no"));
        assert_eq!(setting(conf, "appendfsync"), Some("always"));
        assert_eq!(setting(conf, "save"), None);
    }

    #[test]
    fn words_are_quoted_and_read() {
        assert_eq!(word("A=/usr/local/lib/a.so"), "A=/usr/local/lib/a.so");
        assert_eq!(word(r"A=/etc/re\x2dd.o"), r"A=/etc/re\\x2dd.o");
        assert_eq!(word("A=/a b/50%"), "\"A=/a b/50%%\"");
        assert_eq!(words(r#"/a  "/b\\x2d c/\"d" -/e"#), ["/a", r#"/b\x2d c/"d"#, "-/e"]);
        assert!(words("").is_empty());
    }

    #[test]
    fn what_may_be_executed() {
        let unit = |no_exec: &[&str], exec: &[&str]| Unit {
            fragment: "/x".into(),
            drop_ins: Vec::new(),
            command: Vec::new(),
            no_exec: no_exec.iter().map(Into::into).collect(),
            exec: exec.iter().map(Into::into).collect(),
            preload: preload("A=b LD_PRELOAD=/usr/lib/malloc.so C=d"),
            confined: false,
        };
        let agent = Path::new("/usr/local/lib/durac/a.so");
        assert!(!unit(&[], &[]).forbids_to_execute(agent));
        assert!(unit(&["/"], &["/usr/lib", "/lib"]).forbids_to_execute(agent));
        assert!(
            !unit(&["/"], &["/usr/lib", "/lib"])
                .forbids_to_execute(Path::new("/usr/lib/durac/a.so"))
        );
        assert!(unit(&["/usr/local/lib/durac"], &["/usr"]).forbids_to_execute(agent));
        assert!(!unit(&["/usr"], &["/usr"]).forbids_to_execute(agent));
        let mut enabled = unit(&["/"], &["/usr/lib", "/usr/local/lib/durac"]);
        assert!(!enabled.forbids_to_execute(agent));
        enabled.forget("[Service]\nExecPaths=/usr/local/lib/durac\n");
        assert!(enabled.forbids_to_execute(agent));
        assert_eq!(enabled.preload_with(Path::new("/a.so")), "/a.so:/usr/lib/malloc.so");
        enabled.preload = preload("LD_PRELOAD=/old.so:/usr/lib/malloc.so");
        enabled.forget("Environment=LD_PRELOAD=/old.so:/usr/lib/malloc.so\nEnvironment=A=b\n");
        assert_eq!(enabled.preload_with(Path::new("/a.so")), "/a.so:/usr/lib/malloc.so");
    }
}
