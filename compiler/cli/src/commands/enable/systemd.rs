//! What systemd knows of a unit, through `systemctl`.

use crate::{launch, output, redis_conf};
use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A unit as systemd has loaded it.
pub struct Unit {
    /// The file that defines it, and those that change it, in the order in which they count.
    pub fragment: PathBuf,
    pub drop_ins: Vec<PathBuf>,
    /// The program that it starts, and its words.
    program: PathBuf,
    argv: Vec<String>,
    no_exec: Vec<PathBuf>,
    exec: Vec<PathBuf>,
    /// Libraries that it preloads.
    preload: Vec<String>,
    confined: bool,
    has_root: bool,
    /// Its variables as the files set them, and the files that set others when it starts.
    environment: Vec<String>,
    environment_files: Vec<PathBuf>,
}

/// `redis-server` is `redis-server.service`.
pub fn service(unit: &str) -> Result<String> {
    let named = |c: char| c.is_ascii_alphanumeric() || "-_.@:\\".contains(c);
    if unit.is_empty() || unit.starts_with(['-', '.']) || !unit.chars().all(named) {
        return Err(output::exit(1, format!("`{unit}` is not the name of a unit")));
    }
    if unit.trim_end_matches(".service").ends_with('@') {
        let stem = unit.trim_end_matches(".service");
        let why = format!("`{unit}` is a template: name an instance of it, as `{stem}NAME`");
        return Err(output::exit(1, why));
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
        // An interrupt from the terminal is for durac, which takes back what it has begun.
        .process_group(0)
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

/// Where systemd looks for the files of units (systemd.unit(5)), with those that it makes itself.
const FOLDERS: [&str; 10] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// An error for a unit that systemd does not know, or, where it does not run, that has neither a file nor a drop-in.
pub fn known(unit: &str) -> Result<()> {
    if runs() {
        return match property(unit, "LoadState").as_deref() {
            Ok("not-found") => Err(output::exit(1, format!("systemd has no unit {unit}"))),
            _ => Ok(()),
        };
    }
    match has_file(FOLDERS.iter().map(Path::new), unit) {
        true => Ok(()),
        false => {
            let why = format!("{unit} has neither a unit file nor a drop-in: check its name");
            Err(output::exit(1, why))
        }
    }
}

/// Whether a unit, or the template that it is an instance of, has a file or a folder of drop-ins in one of these.
fn has_file<'a>(mut folders: impl Iterator<Item = &'a Path>, unit: &str) -> bool {
    let template = unit
        .split_once('@')
        .and_then(|(stem, rest)| Some(format!("{stem}@.{}", rest.rsplit_once('.')?.1)));
    let names: Vec<String> = std::iter::once(unit.to_owned()).chain(template).collect();
    folders.any(|folder| {
        names.iter().any(|name| {
            // A link may lead nowhere, which masks or hides a unit that is known all the same.
            let is_there = |name: &str| folder.join(name).symlink_metadata().is_ok();
            is_there(name) || is_there(&format!("{name}.d"))
        })
    })
}

/// A property of a unit.
pub fn property(unit: &str, name: &str) -> Result<String> {
    Ok(call(&["show", unit, "--value", "-p", name])?.trim_end().to_owned())
}

/// The names of a unit, that of its file first: systemd knows it by each, and reads the drop-ins of all.
pub fn names(unit: &str) -> Result<Vec<String>> {
    let id = property(unit, "Id")?;
    let others = property(unit, "Names")?;
    let others = others.split_whitespace().filter(|name| **name != id).map(str::to_owned);
    Ok(std::iter::once(id.clone()).chain(others).filter(|name| service(name).is_ok()).collect())
}

/// A setting in a unit's file.
pub struct Setting<'a> {
    pub section: &'a str,
    pub name: String,
    pub value: String,
}

/// The settings in a unit's file, each on a line of its own, as systemd reads them (`config_parse`): a line that ends in
/// one `\` of its own, not in an escaped one, goes on in the next that is no comment.
pub fn settings(text: &str, mut each: impl FnMut(&Setting<'_>)) {
    let mut section = String::new();
    let mut line = String::new();
    let mut end = |line: &str| {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((name, value)) = line.split_once('=') {
            let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
            each(&Setting { section: &section, name, value });
        }
    };
    for part in text.split(['\n', '\r', '\0']) {
        let part = part.trim_start();
        if part.starts_with(['#', ';']) {
            continue;
        }
        line.push_str(part);
        let slashes = line.bytes().rev().take_while(|byte| *byte == b'\\').count();
        if slashes % 2 == 1 {
            line.pop();
            line.push(' ');
            continue;
        }
        end(&line);
        line.clear();
    }
    end(&line);
}

/// The text of a unit's file. What is no UTF-8 is none of the settings that matter here.
pub fn text(path: &Path) -> Result<String> {
    let read = fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(String::from_utf8_lossy(&read).into_owned())
}

impl Unit {
    /// As systemd has loaded it.
    pub fn load(name: &str) -> Result<Self> {
        let property = |property: &str| self::property(name, property);
        match property("LoadState")?.as_str() {
            "loaded" => {}
            "not-found" => return Err(output::exit(1, format!("systemd has no unit {name}"))),
            "masked" => {
                let why = format!("{name} is masked: `systemctl unmask {name}` first");
                return Err(output::exit(1, why));
            }
            state => {
                let why = property("LoadError").unwrap_or_default();
                let why = format!("systemd cannot load {name} ({state}): {why}");
                return Err(output::exit(1, why.trim_end_matches(": ").to_owned()));
            }
        }
        let paths = |text: String| -> Vec<PathBuf> {
            // `-/path` may be missing.
            words(&text).iter().map(|path| path.trim_start_matches(['-', '+']).into()).collect()
        };
        let command = property("ExecStart")?;
        Ok(Self {
            fragment: property("FragmentPath")?.into(),
            drop_ins: paths(property("DropInPaths")?),
            program: program(&command).into(),
            argv: argv(&command),
            no_exec: paths(property("NoExecPaths")?),
            exec: paths(property("ExecPaths")?),
            preload: Vec::new(),
            confined: !property("SystemCallFilter")?.is_empty()
                || property("NoNewPrivileges")? == "yes",
            has_root: !property("RootDirectory")?.is_empty() || !property("RootImage")?.is_empty(),
            environment: words(&property("Environment")?),
            // `/path (ignore_errors=yes)`
            environment_files: property("EnvironmentFiles")?
                .lines()
                .map(|line| line.split(" (ignore_errors=").next().unwrap_or(line).into())
                .collect(),
        })
    }

    /// What its files preload, but for a drop-in of ours at this path.
    pub fn find_preloaded(&mut self, ours: &Path) -> Result<()> {
        let mut found = None;
        for path in std::iter::once(&self.fragment).chain(&self.drop_ins) {
            if path == ours {
                continue;
            }
            settings(&text(path)?, |setting| {
                if setting.section != "Service" || setting.name != "Environment" {
                    return;
                }
                match setting.value.as_str() {
                    "" => found = None,
                    value => found = variable(&words(value), "LD_PRELOAD").or(found.take()),
                }
            });
        }
        let found = match found {
            Some(found) => found,
            // What systemd gives to every unit.
            None => {
                variable(&words(&call(&["show-environment"])?), "LD_PRELOAD").unwrap_or_default()
            }
        };
        let libraries = found.split([':', ' ']).filter(|library| !library.is_empty());
        self.preload = libraries.map(str::to_owned).collect();
        Ok(())
    }

    /// What this drop-in of ours allows to execute counts no longer: another takes its place.
    pub fn forget(&mut self, drop_in: &str) {
        for line in drop_in.lines() {
            if let Some(path) = line.strip_prefix("ExecPaths=") {
                self.exec.retain(|allowed| word(&allowed.to_string_lossy()) != path);
            }
        }
    }

    /// Whether its program starts with this agent and this object, as far as its files say.
    pub fn starts_with(&self, agent: &Path, object: &Path) -> Result<()> {
        let agent = agent.display().to_string();
        let loads = |value: &str| value.split([':', ' ']).any(|library| library == agent);
        self.has_variable("LD_PRELOAD", loads)?;
        self.names_object(object)
    }

    /// Whether it starts with this object.
    pub fn names_object(&self, object: &Path) -> Result<()> {
        let object = object.display().to_string();
        self.has_variable(durac_abi::ENV_OBJECT, |value| value == object)
    }

    /// Whether a variable has the value that durac's drop-in gives to it.
    fn has_variable(&self, name: &str, is_right: impl Fn(&str) -> bool) -> Result<()> {
        let value = variable(&self.environment, name);
        if !value.as_deref().is_some_and(is_right) {
            let set = value.map_or("is not set".to_owned(), |value| format!("is `{value}`"));
            let setters = self.setters(name);
            bail!("the policy is not in force where {name} {set}, as the unit has it ({setters})");
        }
        for path in &self.environment_files {
            // One that cannot be read now may not be needed.
            let Ok(text) = text(path) else { continue };
            let set = text.lines().find(|line| {
                line.trim_start().split('=').next().is_some_and(|set| set.trim_end() == name)
            });
            if let Some(set) = set {
                let path = path.display();
                bail!("the policy is not in force where `{path}` sets `{}`", set.trim());
            }
        }
        Ok(())
    }

    /// The files of the unit that set a variable.
    fn setters(&self, name: &str) -> String {
        let mut found = Vec::new();
        for path in std::iter::once(&self.fragment).chain(&self.drop_ins) {
            let mut sets = false;
            settings(&text(path).unwrap_or_default(), |setting| {
                let of = ["Environment", "UnsetEnvironment"].contains(&setting.name.as_str());
                let clears = setting.value.is_empty() && setting.name == "Environment";
                sets |= of && (clears || setting.value.contains(name));
            });
            if sets {
                found.push(path.display().to_string());
            }
        }
        found.join(", ")
    }

    /// Why the agent would not come into its program, as far as that can be seen from here.
    pub fn unreached(&self) -> Option<String> {
        if self.has_root {
            return None;
        }
        let shown = self.program.display();
        if !self.program.exists() {
            return Some(format!("the unit's program `{shown}` does not exist"));
        }
        if self.program.file_name().is_some_and(|name| name == "durac") {
            return Some("the unit starts durac itself, with a policy of its own".to_owned());
        }
        launch::program_reason(&self.program).map(|reason| reason.why)
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
        self.program.file_name().and_then(|name| name.to_str()).unwrap_or("")
    }

    /// The path of its program.
    pub fn path(&self) -> &Path {
        &self.program
    }

    /// Whether it is a Redis, or what speaks as one.
    pub fn is_redis(&self) -> bool {
        ["redis-server", "valkey-server"].contains(&self.program())
    }

    /// Settings under which Redis never calls what a policy acts on.
    pub fn redis_notes(&self) -> Vec<String> {
        let Some(path) = self.argv.get(1).filter(|path| self.is_redis() && path.starts_with('/'))
        else {
            return Vec::new();
        };
        let see = "see that it says `appendonly yes` and `appendfsync always`";
        let Ok(read) = redis_conf::read(Path::new(path)) else {
            return vec![format!("cannot read `{path}`: {see}")];
        };
        if let Some(unread) = read.unread.first() {
            return vec![format!("`{path}` includes {unread}, which was not read: {see}")];
        }
        if let Some((line, why)) = redis_conf::refused(&read.text).first() {
            return vec![format!("`{path}` has `{line}`, with which Redis does not start: {why}")];
        }
        // What stands behind its name counts after all of it.
        let words = self.argv.join(" ");
        let lines = words.split(" --").skip(1);
        let text = lines.fold(read.text, |text, line| format!("{text}{line}\n"));
        [("appendonly", "yes", "no"), ("appendfsync", "always", "everysec")]
            .into_iter()
            .filter_map(|(name, needed, default)| {
                let found = redis_conf::value(&text, name).unwrap_or_else(|| default.to_owned());
                let why = "the policy acts on what Redis does with it";
                (!found.eq_ignore_ascii_case(needed))
                    .then(|| format!("`{path}` has `{name} {found}`: set `{name} {needed}`; {why}"))
            })
            .collect()
    }
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

/// The last value of a variable among assignments.
fn variable(assignments: &[String], name: &str) -> Option<String> {
    let mut values =
        assignments.iter().rev().filter_map(|set| set.strip_prefix(name)?.strip_prefix('='));
    values.next().map(str::to_owned)
}

/// The path in `{ path=… ; argv[]=… ; … }`, as systemd prints a command.
fn program(text: &str) -> &str {
    let path = text.split_once("path=").map_or("", |(_, path)| path);
    path.split(" ; ").next().unwrap_or("")
}

/// The words in `{ path=… ; argv[]=… ; … }`, as systemd prints a command.
fn argv(text: &str) -> Vec<String> {
    let words = text.split_once("argv[]=").map_or("", |(_, words)| words);
    let words = words.split(" ; ").next().unwrap_or("");
    words.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{Unit, argv, has_file, program, service, settings, word, words};
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
    fn a_unit_is_known_by_its_files() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let is_known = |unit: &str| has_file([Path::new("/none"), dir.path()].into_iter(), unit);
        assert!(!is_known("a.service") && !is_known("b@1.service"));
        std::fs::write(dir.path().join("a.service"), "")?;
        std::fs::write(dir.path().join("b@.service"), "")?;
        std::fs::create_dir(dir.path().join("c.service.d"))?;
        for unit in ["a.service", "b@1.service", "c.service"] {
            assert!(is_known(unit), "{unit}");
        }
        assert!(!is_known("b.service") && !is_known("aa.service") && !is_known("d@1.service"));
        Ok(())
    }

    #[test]
    fn commands() {
        let text = "{ path=/usr/bin/redis-server ; argv[]=/usr/bin/redis-server /etc/r.conf --daemonize no ; \
                    ignore_errors=no ; pid=0 }";
        assert_eq!(argv(text), ["/usr/bin/redis-server", "/etc/r.conf", "--daemonize", "no"]);
        assert!(argv("").is_empty());
        assert_eq!(
            program("{ path=/opt/my r/redis-server ; argv[]=/opt/my r/redis-server ; }"),
            "/opt/my r/redis-server"
        );
        assert_eq!(program(""), "");
    }

    #[test]
    fn settings_are_read_as_systemd_does() {
        let read = |text: &str| {
            let mut all = Vec::new();
            settings(text, |it| all.push(format!("{}:{}={}", it.section, it.name, it.value)));
            all
        };
        assert_eq!(
            read("A=b\n[Service]\n  C = d \\\n# between\n ; and\n  e\n\nF=\n[Unit]\nG=h\\"),
            [":A=b", "Service:C=d  e", "Service:F=", "Unit:G=h"]
        );
        // An escaped backslash at the end of a line is none that has it go on.
        assert_eq!(
            read("[Service]\nA=C:\\\\\nExecStop=x\nB=C:\\\\\\\n D"),
            ["Service:A=C:\\\\", "Service:ExecStop=x", "Service:B=C:\\\\ D"]
        );
        assert_eq!(
            read("[Service]\nA=b\rExecStop=x\0C=d"),
            ["Service:A=b", "Service:ExecStop=x", "Service:C=d"]
        );
        assert!(read("").is_empty() && read("A\\").is_empty());
    }

    #[test]
    fn words_are_quoted_and_read() {
        assert_eq!(word("A=/usr/local/lib/a.so"), "A=/usr/local/lib/a.so");
        assert_eq!(word(r"A=/etc/re\x2dd.o"), r"A=/etc/re\\x2dd.o");
        assert_eq!(word("A=/a b/50%"), "\"A=/a b/50%%\"");
        assert_eq!(words(r#"/a  "/b\\x2d c/\"d" -/e"#), ["/a", r#"/b\x2d c/"d"#, "-/e"]);
        assert!(words("").is_empty());
    }

    fn unit(no_exec: &[&str], exec: &[&str]) -> Unit {
        Unit {
            fragment: "/x".into(),
            drop_ins: Vec::new(),
            program: "/x/y".into(),
            argv: Vec::new(),
            no_exec: no_exec.iter().map(Into::into).collect(),
            exec: exec.iter().map(Into::into).collect(),
            preload: vec!["/usr/lib/malloc.so".to_owned()],
            confined: false,
            has_root: false,
            environment: vec!["LD_PRELOAD=/a.so:/m.so".to_owned(), "DURAC_OBJECT=/o".to_owned()],
            environment_files: Vec::new(),
        }
    }

    #[test]
    fn a_configuration_counts_with_what_it_includes() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let (conf, part) = (dir.path().join("redis.conf"), dir.path().join("part.conf"));
        let notes = |words: &[&str]| {
            let path = conf.display().to_string();
            let argv = ["/usr/bin/redis-server", &path].into_iter().chain(words.iter().copied());
            let argv = argv.map(str::to_owned).collect();
            Unit { program: "/usr/bin/redis-server".into(), argv, ..unit(&[], &[]) }.redis_notes()
        };
        std::fs::write(&conf, format!("appendonly yes\ninclude {}\n", part.display()))?;
        std::fs::write(&part, "appendfsync always\n")?;
        assert!(notes(&[]).is_empty(), "{:?}", notes(&[]));
        assert!(notes(&["--appendfsync", "no"]).concat().contains("has `appendfsync no`"));
        std::fs::remove_file(&part)?;
        let unread = notes(&[]).concat();
        assert!(unread.contains("which was not read") && !unread.contains("has `"), "{unread}");
        Ok(())
    }

    #[test]
    fn what_may_be_executed() {
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
        assert!(enabled.starts_with(Path::new("/a.so"), Path::new("/o")).is_ok());
        assert!(enabled.starts_with(Path::new("/b.so"), Path::new("/o")).is_err());
        assert!(enabled.starts_with(Path::new("/a.so"), Path::new("/p")).is_err());
    }
}
