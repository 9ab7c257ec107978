//! `durac enable` and `durac disable`: a systemd unit runs its database under a policy, or no longer.
//!
//! A drop-in preloads the agent and names a compiled object: the unit's program, its restrictions, readiness
//! and stop signal stay what they are, and nothing is proved when it starts. Before it counts, a copy of the unit,
//! with the drop-in and all restrictions, is started on a folder of its own and asked to write.

mod selftest;
mod systemd;

use crate::args::Global;
use crate::named::{Named, Settings};
use crate::{Outcome, input, launch, output};
use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use durac_abi::object::Object;
use durac_core::unit::{Unit, show};
use durac_shm::status::Snapshot;
use std::fs;
use std::path::{Path, PathBuf};
use systemd::Unit as Service;

/// Run the database of a systemd unit under a policy, from its next start on
///
/// Compiles the policy, writes a drop-in for the unit, and starts a copy of the unit with a folder of its own to see
/// that the policy is in force under the unit's restrictions. If it is not, everything is taken back.
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
    /// Restart the unit
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
    /// Restart the unit
    #[arg(long)]
    now: bool,
}

/// Where compiled objects of units are.
const OBJECTS: &str = "/etc/durac";
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

    /// Removes both, and the folders that are empty then. Whether there was a drop-in.
    fn remove(&self) -> Result<bool> {
        let ours = match fs::read_to_string(&self.drop_in) {
            Ok(text) => text.starts_with(MARK),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).context("cannot read the drop-in"),
        };
        if !ours {
            let shown = self.drop_in.display();
            return Err(output::exit(1, format!("`{shown}` was not written by `durac enable`")));
        }
        fs::remove_file(&self.drop_in).context("cannot remove the drop-in")?;
        match fs::remove_file(&self.object) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("cannot remove the object");
            }
            _ => {}
        }
        for folder in [self.drop_in.parent(), self.object.parent()].into_iter().flatten() {
            // Others may have files in it.
            let _ = fs::remove_dir(folder);
        }
        Ok(true)
    }
}

/// What was there before, to be put back if the new does not work.
struct Before {
    object: Option<Vec<u8>>,
    drop_in: Option<Vec<u8>>,
}

impl Before {
    fn of(files: &Files) -> Self {
        Self { object: fs::read(&files.object).ok(), drop_in: fs::read(&files.drop_in).ok() }
    }

    fn put_back(&self, files: &Files) -> Result<()> {
        files.remove()?;
        for (old, path) in [(&self.object, &files.object), (&self.drop_in, &files.drop_in)] {
            if let Some(bytes) = old {
                write(path, bytes)?;
            }
        }
        systemd::reload()
    }
}

/// Enables, or explains why not; nothing is changed then.
pub fn enable(args: &Enable, global: &Global) -> Result<Outcome> {
    let name = systemd::service(&args.unit)?;
    let agent = launch::agent(args.agent.as_deref())?;
    launch::check_agent(&agent)?;
    let settings = args.file.settings(&args.settings);
    let Some(ready) = input::ready(args.file.path(), &settings, global)? else {
        return Ok(Outcome::Wrong);
    };
    let object = ready.proved.object;
    let files = Files::of(&name);
    let dry = |text: &str| dry_run(text, &name, &files, &object, global);
    if args.dry_run && !systemd::runs() {
        return dry(&drop_in(&agent, &files, None));
    }
    systemd::needed()?;
    let before = Before::of(&files);
    let mut unit = Service::load(&name)?;
    if let Some(ours) = &before.drop_in {
        unit.forget(&String::from_utf8_lossy(ours));
    }
    let text = drop_in(&agent, &files, Some(&unit));
    notes(&unit, &object);
    if args.dry_run {
        return dry(&text);
    }
    if !rustix::process::geteuid().is_root() {
        return Err(output::exit(1, "only root can change a unit"));
    }
    if before.drop_in.as_deref().is_some_and(|old| !old.starts_with(MARK.as_bytes())) {
        let shown = files.drop_in.display();
        return Err(output::exit(1, format!("`{shown}` was not written by `durac enable`")));
    }
    let bytes = durac_bpf::write(&object).context("cannot write the object")?;
    let done = write(&files.object, &bytes)
        .and_then(|()| write(&files.drop_in, text.as_bytes()))
        .and_then(|()| systemd::reload())
        .and_then(|()| selftest::run(&name));
    if let Err(why) = done {
        before.put_back(&files).context("cannot take the change back")?;
        return Err(output::exit(
            1,
            format!(
                "policy `{}` is not enabled for {name}, and nothing was changed: {why:#}",
                object.meta.policy
            ),
        ));
    }
    let meta = &object.meta;
    output::stderr(&format!(
        "durac: policy `{}` is enabled for {name}: {}\n",
        meta.policy,
        files.drop_in.display()
    ));
    global.document.put(&report(&name, &files, &object))?;
    restart(&name, args.now, global)
}

/// What the document says of a unit that has a policy, or would have.
fn report(unit: &str, files: &Files, object: &Object) -> serde_json::Value {
    serde_json::json!({
        "unit": unit,
        "policy": object.meta.policy,
        "loss": object.meta.loss,
        "object": files.object,
        "drop_in": files.drop_in,
    })
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

/// Disables; without a drop-in of ours there is nothing to do.
pub fn disable(args: &Disable, global: &Global) -> Result<Outcome> {
    let name = systemd::service(&args.unit)?;
    let removed = Files::of(&name).remove()?;
    global.document.put(&serde_json::json!({ "unit": name, "removed": removed }))?;
    if !removed {
        output::stderr(&format!("durac: no policy was enabled for {name}\n"));
        return Ok(Outcome::Fine);
    }
    output::stderr(&format!("durac: {name} has no policy from its next start on\n"));
    if systemd::runs() {
        systemd::reload()?;
        return restart(&name, args.now, global);
    }
    Ok(Outcome::Fine)
}

fn restart(name: &str, now: bool, global: &Global) -> Result<Outcome> {
    global.document.put(&serde_json::json!({ "restarted": now }))?;
    if now {
        systemd::call(&["restart", name])?;
    } else {
        output::stderr(&format!("durac: to start it that way now: systemctl restart {name}\n"));
    }
    Ok(Outcome::Fine)
}

/// The drop-in. What the unit forbids to execute is allowed for the agent's folder alone.
fn drop_in(agent: &Path, files: &Files, unit: Option<&Service>) -> String {
    let preload = unit.map_or_else(|| agent.display().to_string(), |unit| unit.preload_with(agent));
    let mut text = format!(
        "{MARK}\n[Service]\nEnvironment={}\nEnvironment={}\n",
        systemd::word(&format!("LD_PRELOAD={preload}")),
        systemd::word(&format!("{}={}", durac_abi::ENV_OBJECT, files.object.display()))
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

/// Writes a file that everybody may read and only root may write, and its folder.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make `{}`", folder.display()))?;
    }
    output::write_atomically(path, bytes, 0o644)
}

/// The unit of a process, if `durac enable` has put a policy into it that this user may change.
pub fn unit_of(pid: u32) -> Result<String> {
    let no = |why: &str| output::exit(1, format!("process {pid}: --save: {why}"));
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let unit = groups.lines().find_map(|line| {
        let group =
            line.strip_prefix("0::").or_else(|| line.split_once("name=systemd:").map(|at| at.1))?;
        group.split('/').rev().find(|part| part.ends_with(".service")).map(str::to_owned)
    });
    let unit = unit.ok_or_else(|| no("it is not of a systemd unit"))?;
    let unit = systemd::service(&unit)?;
    let files = Files::of(&unit);
    let ours = fs::read_to_string(&files.drop_in).is_ok_and(|text| text.starts_with(MARK));
    if !ours {
        return Err(no(&format!("`durac enable` has not put a policy into {unit}")));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(no("only root can change a unit"));
    }
    Ok(unit)
}

/// Keeps this object for the next start of a unit. Returns its path.
pub fn save(unit: &str, object: &[u8]) -> Result<PathBuf> {
    let files = Files::of(unit);
    write(&files.object, object)?;
    Ok(files.object)
}

/// Keeps the parameters of a process for the next start of its unit: the policy that is kept there, compiled with
/// them. Returns the object's path.
pub fn save_parameters(unit: &str, seen: &Snapshot) -> Result<PathBuf> {
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
    save(unit, &durac_bpf::write(&proved.object).context("cannot write the object")?)
}
