//! `durac enable` and `durac disable`: a systemd unit runs its database under a policy, or no longer.
//!
//! A drop-in preloads the agent and names a compiled object: the unit's program, its restrictions, readiness
//! and stop signal stay what they are, and nothing is proved when it starts. Before it counts, a copy of the unit,
//! with the drop-in and all restrictions, is started on a folder of its own and asked to write.

mod selftest;
mod systemd;

use crate::args::Global;
use crate::named::{Named, Settings};
use crate::{Outcome, bound, input, launch, output};
use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use durac_abi::object::Object;
use durac_core::unit::{Unit, show};
use durac_shm::status::Snapshot;
use durac_workload::sys;
use std::fs;
use std::path::{Path, PathBuf};
use systemd::Unit as Service;

/// Run the database of a systemd unit under a policy, from its next start on
///
/// Compiles the policy and starts a copy of the unit with a folder of its own to see that the policy is in force under the
/// unit's restrictions. Only then is a drop-in written for the unit. Programs other than Redis are not tried.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  durac enable redis-server window --set n=16 --now\n  durac enable \
                        redis-server my.dur --dry-run"
)]
pub struct Enable {
    /// The unit
    #[arg(value_name = "UNIT")]
    unit: String,
    /// A policy file, or the name of a ready policy, with `:name=value,…` to set parameters
    #[arg(value_name = "FILE")]
    file: Named,
    /// Its parameters.
    #[command(flatten)]
    settings: Settings,
    /// The agent library [default: beside durac, or in ../lib/durac]
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Restart the unit, or start it
    #[arg(long)]
    now: bool,
    /// Print the drop-in, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Run the database of a systemd unit without a policy, from its next start on
///
/// Takes back what `durac enable` did.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  durac disable redis-server --now\n  durac disable redis-server"
)]
pub struct Disable {
    /// The unit
    #[arg(value_name = "UNIT")]
    unit: String,
    /// Restart the unit, or start it
    #[arg(long)]
    now: bool,
}

/// Where compiled objects of units are.
const OBJECTS: &str = "/etc/durac";
/// The exit code of a command that an interrupt has ended.
const INTERRUPTED: u8 = 130;
/// The beginning of every drop-in that is ours.
const MARK: &str = "# Written by `durac enable`, removed by `durac disable`";

/// The files of a unit.
struct Files {
    object: PathBuf,
    drop_in: PathBuf,
}

impl Files {
    fn of(unit: &str) -> Self {
        let stem = unit.strip_suffix(".service").unwrap_or(unit);
        Self {
            object: Path::new(OBJECTS).join(format!("{stem}.o")),
            drop_in: PathBuf::from(format!("/etc/systemd/system/{unit}.d/durac.conf")),
        }
    }

    /// The object that is tried before it has its name. No unit has one of this name.
    fn candidate(&self) -> PathBuf {
        self.object.with_extension("o~")
    }

    /// Whether there is a drop-in; one that is not ours is an error.
    fn is_enabled(&self) -> Result<bool> {
        let shown = self.drop_in.display();
        match fs::read(&self.drop_in) {
            Ok(text) if text.starts_with(MARK.as_bytes()) => Ok(true),
            Ok(_) => Err(output::exit(1, format!("`{shown}` was not written by `durac enable`"))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => {
                Err(output::exit(1, format!("cannot read `{shown}`: {}", output::reason(&error))))
            }
        }
    }

    /// Removes the drop-in. Whether there was one.
    fn remove_drop_in(&self) -> Result<bool> {
        if !self.is_enabled()? {
            return Ok(false);
        }
        remove(&self.drop_in)?;
        Ok(true)
    }

    /// Removes the object, once nothing starts with it, and the folders that are empty then.
    fn remove_object(&self) -> Result<()> {
        let removed = remove(&self.candidate()).and(remove(&self.object));
        for folder in [self.drop_in.parent(), self.object.parent()].into_iter().flatten() {
            // Others may have files in it.
            let _ = fs::remove_dir(folder);
        }
        removed
    }
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let why = output::reason(&error);
            Err(output::exit(2, format!("cannot remove `{}`: {why}", path.display())))
        }
        _ => Ok(()),
    }
}

/// What was there before, to be put back if the new cannot be written.
struct Before {
    object: Option<Vec<u8>>,
    drop_in: Option<Vec<u8>>,
}

impl Before {
    fn of(files: &Files) -> Self {
        Self { object: fs::read(&files.object).ok(), drop_in: fs::read(&files.drop_in).ok() }
    }

    /// Puts back what is not as it was.
    fn put_back(&self, files: &Files) -> Result<()> {
        let put = |old: &Option<Vec<u8>>, path: &Path| match old {
            Some(bytes) if fs::read(path).is_ok_and(|now| now == *bytes) => Ok(()),
            Some(bytes) => write(path, bytes),
            None => remove(path),
        };
        let done = put(&self.drop_in, &files.drop_in).and(put(&self.object, &files.object));
        for folder in [files.drop_in.parent(), files.object.parent()].into_iter().flatten() {
            // Others may have files in it.
            let _ = fs::remove_dir(folder);
        }
        systemd::reload().and(done)
    }
}

/// Enables, or explains why not; nothing is changed then.
pub fn enable(args: &Enable, global: &Global) -> Result<Outcome> {
    let name = systemd::service(&args.unit)?;
    let agent = launch::agent(args.agent.as_deref())?;
    launch::check_agent(&agent)?;
    let settings = args.file.settings(&args.settings);
    let file = args.file.path();
    if launch::is_object(file) {
        let shown = file.display();
        return Err(output::exit(
            1,
            format!(
                "`{shown}` is a compiled policy: `durac enable` compiles the policy itself, and needs its text \
                 (`durac show {shown} --text > policy.dur`)"
            ),
        ));
    }
    let Some(ready) = input::ready(file, &settings, global)? else {
        return Ok(Outcome::Wrong);
    };
    let object = ready.proved.object;
    if args.dry_run && !systemd::runs() {
        let files = Files::of(&name);
        unread(&name, &agent);
        let text = drop_in(&agent, &files.object, None);
        return dry_run(&text, &name, &files, &object, global);
    }
    systemd::needed()?;
    if !args.dry_run && !sys::is_root() {
        return Err(output::exit(1, "only root can change a unit"));
    }
    let turn = match args.dry_run {
        true => None,
        false => {
            // From here on an interrupt ends the command where nothing is half done.
            sys::catch_interrupts();
            let turn = selftest::Turn::wait()?;
            // What the administrator has written counts, whether systemd has read it or not.
            systemd::reload()?;
            Some(turn)
        }
    };
    // An alias is the unit that it names.
    let names = systemd::names(&name)?;
    let name = names.first().cloned().unwrap_or(name);
    let files = Files::of(&name);
    let before = Before::of(&files);
    let mut unit = Service::load(&name)?;
    unit.find_preloaded(&files.drop_in)?;
    if let Some(ours) = &before.drop_in {
        unit.forget(&String::from_utf8_lossy(ours));
    }
    notes(&unit, &object);
    if args.dry_run {
        let text = drop_in(&agent, &files.object, Some(&unit));
        return dry_run(&text, &name, &files, &object, global);
    }
    for files in names.iter().map(|name| Files::of(name)) {
        files.is_enabled()?;
    }
    let bytes = durac_bpf::write(&object).context("cannot write the object")?;
    let fingerprint = durac_abi::object::fingerprint(&bytes);
    let meta = &object.meta;
    let refused = |why: anyhow::Error| match why.downcast_ref::<output::Exit>() {
        Some(exit) if exit.code == INTERRUPTED => why,
        _ => {
            let policy = &meta.policy;
            let why = format!(
                "policy `{policy}` is not enabled for {name}, and nothing was changed: {why:#}"
            );
            output::exit(1, why)
        }
    };
    // Tried with an object beside the one that is in force, and before the drop-in is there.
    let candidate = files.candidate();
    let text = drop_in(&agent, &candidate, Some(&unit));
    let tried = write(&candidate, &bytes).and_then(|()| {
        let drop_in = (files.drop_in.as_path(), text.as_str());
        let object = (candidate.as_path(), fingerprint);
        selftest::run(&name, &unit, &selftest::Candidate { drop_in, agent: &agent, object })
    });
    let tested = match tried.and_then(|tested| selftest::uninterrupted().map(|()| tested)) {
        Ok(tested) => tested,
        Err(why) => {
            let _ = remove(&candidate);
            if before.object.is_none() {
                let _ = files.object.parent().map(fs::remove_dir);
            }
            return Err(refused(why));
        }
    };
    let text = drop_in(&agent, &files.object, Some(&unit));
    let done = fs::rename(&candidate, &files.object)
        .with_context(|| format!("cannot write `{}`", files.object.display()))
        .and_then(|()| write(&files.drop_in, text.as_bytes()))
        .and_then(|()| systemd::reload())
        .and_then(|()| Service::load(&name)?.starts_with(&agent, &files.object));
    if let Err(why) = done {
        let _ = remove(&candidate);
        before
            .put_back(&files)
            .map_err(|back| back.context(format!("{why:#}; and it cannot be taken back")))?;
        return Err(refused(why));
    }
    // Under another name an earlier durac may have put one.
    for other in names.iter().skip(1).map(|name| Files::of(name)) {
        if other.remove_drop_in()? {
            other.remove_object()?;
            systemd::reload()?;
        }
    }
    output::stderr(&format!(
        "durac: policy `{}` is enabled for {name}: {}\n",
        meta.policy,
        files.drop_in.display()
    ));
    if !tested {
        output::stderr(&format!(
            "durac: note: no self-test for `{}`: look at `durac top` after the next start\n",
            unit.program()
        ));
    }
    global.document.put(&report(&name, &files, &object))?;
    global.document.put(&serde_json::json!({ "tested": tested }))?;
    drop(turn);
    restart(&name, args.now, global)
}

/// What the document says of a unit that has a policy, or would have.
fn report(unit: &str, files: &Files, object: &Object) -> serde_json::Value {
    serde_json::json!({
        "unit": unit,
        "policy": object.meta.policy,
        "loss": bound::shown(&object.meta.loss),
        "object": files.object.to_string_lossy(),
        "drop_in": files.drop_in.to_string_lossy(),
    })
}

/// What a drop-in lacks, because the unit could not be read.
fn unread(unit: &str, agent: &Path) {
    let folder = agent.parent().unwrap_or(Path::new("/")).to_string_lossy();
    output::stderr(&format!(
        "durac: note: systemd does not run here, so {unit} was not read: if it has NoExecPaths=, add `ExecPaths={}`; if it \
         sets LD_PRELOAD, append its libraries to that of the drop-in, with `:` between them\n",
        systemd::word(&folder)
    ));
}

/// Shows the drop-in, and changes nothing.
fn dry_run(
    text: &str,
    unit: &str,
    files: &Files,
    object: &Object,
    global: &Global,
) -> Result<Outcome> {
    global.document.put(&report(unit, files, object))?;
    global.document.put(&serde_json::json!({ "dry_run": true, "text": text }))?;
    if !global.is_json() {
        output::stdout(text.as_bytes())?;
    }
    Ok(Outcome::Fine)
}

/// Disables; without a drop-in of ours there is nothing to do. A unit that is not there was misspelt, unless something of
/// ours is left of it.
pub fn disable(args: &Disable, global: &Global) -> Result<Outcome> {
    let name = systemd::service(&args.unit)?;
    let runs = systemd::runs();
    // A unit whose file is gone may have a drop-in still.
    let mut names = if runs { systemd::names(&name).unwrap_or_default() } else { Vec::new() };
    if !names.contains(&name) {
        names.push(name);
    }
    let name = names.first().cloned().unwrap_or_default();
    let is_left = |files: &Files| {
        [&files.drop_in, &files.object, &files.candidate()].iter().any(|path| path.exists())
    };
    if !names.iter().map(|name| Files::of(name)).any(|files| is_left(&files)) {
        systemd::known(&name)?;
    }
    let turn = if runs && sys::is_root() { Some(selftest::Turn::wait()?) } else { None };
    let mut removed = false;
    for name in &names {
        removed |= Files::of(name).remove_drop_in()?;
    }
    if removed && runs {
        systemd::reload()?;
    }
    // Also what is left of one that could not be removed, or of a test that was killed.
    let mut objects = Ok(());
    for name in &names {
        objects = objects.and(Files::of(name).remove_object());
    }
    drop(turn);
    global.document.put(&serde_json::json!({ "unit": name, "removed": removed }))?;
    if !removed {
        global.document.put(&serde_json::json!({ "restarted": false }))?;
        output::stderr(&format!("durac: no policy was enabled for {name}\n"));
        return Ok(Outcome::Fine);
    }
    output::stderr(&format!("durac: {name} has no policy from its next start on\n"));
    objects?;
    if runs { restart(&name, args.now, global) } else { Ok(Outcome::Fine) }
}

fn restart(name: &str, now: bool, global: &Global) -> Result<Outcome> {
    if now {
        let restarted = systemd::call(&["restart", name]);
        global.document.put(&serde_json::json!({ "restarted": restarted.is_ok() }))?;
        restarted?;
    } else {
        global.document.put(&serde_json::json!({ "restarted": false }))?;
        output::stderr(&format!("durac: to start it that way now: systemctl restart {name}\n"));
    }
    Ok(Outcome::Fine)
}

/// The drop-in. What the unit forbids to execute is allowed for the agent's folder alone.
fn drop_in(agent: &Path, object: &Path, unit: Option<&Service>) -> String {
    let preload = unit.map_or_else(|| agent.display().to_string(), |unit| unit.preload_with(agent));
    let mut text = format!(
        "{MARK}\n[Service]\nEnvironment={}\nEnvironment={}\n",
        systemd::word(&format!("LD_PRELOAD={preload}")),
        systemd::word(&format!("{}={}", durac_abi::ENV_OBJECT, object.display()))
    );
    if unit.is_some_and(|unit| unit.forbids_to_execute(agent))
        && let Some(folder) = agent.parent()
    {
        text.push_str(&format!("ExecPaths={}\n", systemd::word(&folder.to_string_lossy())));
    }
    text
}

/// What would keep the policy from having an effect.
fn notes(unit: &Service, object: &Object) {
    for note in unit.redis_notes() {
        output::stderr(&format!("durac: note: {note}\n"));
    }
    if !object.kernel.is_empty() && unit.is_confined() {
        output::stderr(
            "durac: note: the unit allows no bpf(): the policy runs without the kernel's counts\n",
        );
    }
}

/// Writes a file that everybody may read and only root may write, and its folder: the user of the unit reads it, whatever
/// the umask of the administrator is.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        output::make_folder(folder)?;
    }
    output::write_for_all(path, bytes, 0o644)
}

/// The units that have a policy and run, with their processes, as far as this user may know.
pub fn running() -> Vec<(String, u32)> {
    if !systemd::runs() {
        return Vec::new();
    }
    let folders = fs::read_dir("/etc/systemd/system").into_iter().flatten().flatten();
    let names = folders.filter_map(|entry| {
        let name = entry.file_name().to_str()?.strip_suffix(".d")?.to_owned();
        Files::of(&name).is_enabled().unwrap_or(false).then_some(name)
    });
    names
        .filter_map(|name| {
            let pid = systemd::property(&name, "MainPID").ok()?.parse().ok()?;
            (pid != 0).then_some((name, pid))
        })
        .collect()
}

/// The unit of a process, if `durac enable` has put a policy into it that this user may change.
pub fn unit_of(pid: u32) -> Result<String> {
    let no =
        |why: &str| output::exit(1, format!("nothing was changed: process {pid}: --save: {why}"));
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let unit = groups.lines().find_map(|line| {
        let group =
            line.strip_prefix("0::").or_else(|| line.split_once("name=systemd:").map(|at| at.1))?;
        let unit = group.split('/').rev().find(|part| part.ends_with(".service"))?;
        Some((unit.to_owned(), group.to_owned()))
    });
    let (unit, group) = unit.ok_or_else(|| {
        let why = "belongs to no systemd unit, so --save has no place to keep it";
        output::exit(1, format!("nothing was changed: process {pid} {why}"))
    })?;
    let unit = systemd::service(&unit)?;
    let files = Files::of(&unit);
    if !systemd::runs() || !files.is_enabled()? {
        return Err(no(&format!("`durac enable` has not put a policy into {unit}")));
    }
    if !sys::is_root() {
        return Err(no("only root can change a unit"));
    }
    // A container's systemd may have a unit of the same name.
    let own = systemd::property(&unit, "ControlGroup")?;
    let is_of =
        group.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if own.is_empty() || !is_of {
        return Err(no(&format!(
            "it is in the control group {group}, which is not that of {unit}"
        )));
    }
    if let Err(why) = Service::load(&unit)?.names_object(&files.object) {
        return Err(no(&format!("{why:#}")));
    }
    Ok(unit)
}

/// Keeps this object for the next start of a unit. Returns its path.
pub fn save(unit: &str, object: &[u8]) -> Result<PathBuf> {
    let files = Files::of(unit);
    write(&files.object, object)?;
    Ok(files.object)
}

/// The object to be kept for the next start of a unit: the policy that is kept there, compiled with the parameters that
/// a process has, some of them changed.
pub fn with_parameters(unit: &str, seen: &Snapshot) -> Result<Vec<u8>> {
    let path = Files::of(unit).object;
    let shown = path.display();
    let bytes = fs::read(&path).with_context(|| format!("cannot read `{shown}`"))?;
    let old = durac_verify::admit(&bytes, durac_abi::Runtime::Agent)
        .map_err(|why| output::exit(1, format!("`{shown}` is rejected: {why}")))?;
    if old.meta.policy != seen.policy {
        return Err(output::exit(
            1,
            format!(
                "the unit starts policy `{}`, not `{}`: keep that with `durac reload FILE --save`",
                old.meta.policy, seen.policy
            ),
        ));
    }
    let settings: Vec<String> = seen
        .params
        .iter()
        .map(|param| {
            let unit = Unit::parse(&param.unit).unwrap_or(Unit::Unknown);
            format!("{}={}", param.name, show(crate::bound::value(param), unit))
        })
        .collect();
    let mut sources = durac_grammar::Sources::new();
    let file = sources.add(old.source.name.as_str(), old.source.text.as_str());
    let options = durac_driver::Options {
        settings: &settings,
        target: Some(&old.meta.target),
        ..durac_driver::Options::new(&old.meta.policy)
    };
    let compiled = durac_driver::compile(&mut sources, file, &options);
    let proved = compiled.proved.ok_or_else(|| {
        output::exit(1, format!("the text in `{shown}` does not compile with these parameters"))
    })?;
    durac_bpf::write(&proved.object).context("cannot write the object")
}
