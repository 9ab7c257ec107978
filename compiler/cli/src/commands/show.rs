//! `durac show`: the policy that a process runs or an object holds: its text, what was proved of it, its parameters.

use super::top;
use crate::args::Global;
use crate::named::{Named, Settings};
use crate::{Outcome, bound, certificate, input, launch, output, processes};
use anyhow::Result;
use clap::Args as ClapArgs;
use durac_abi::object::{Failure, fingerprint};
use durac_abi::{Object, Runtime};
use durac_core::unit::{Unit, show};
use durac_grammar::render::{clean, printable};
use durac_shm::status::{ParamStatus, Snapshot, Status};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Show the policy of a running process, an object or a file: text, bounds, certificate, parameters
///
/// The certificate is checked again, so that what is shown as proved holds for these instructions. A text is compiled
/// and proved first.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  durac show 4711\n  durac show :6379\n  durac show policy.o --text > policy.dur\n  durac show window:n=16"
)]
pub struct Show {
    /// The process, the file of a compiled policy, or a policy, with `:name=value,…` to set parameters
    #[arg(value_name = "PID|DIR:PORT|FILE")]
    what: Named,
    /// Its parameters.
    #[command(flatten)]
    settings: Settings,
    /// Print the text of the policy only
    #[arg(long)]
    text: bool,
}

/// A parameter as shown.
#[derive(Serialize)]
struct ShownParam {
    name: String,
    unit: String,
    /// In a process, the value now.
    value: u64,
    default: u64,
    min: u64,
    max: u64,
}

/// What `--format json` prints.
#[derive(Serialize)]
struct Shown<'a> {
    process: Option<u32>,
    /// The process' policy was switched off with `durac off`.
    is_off: bool,
    policy: &'a str,
    target: &'a str,
    runtime: &'a str,
    source_sha256: &'a str,
    text: &'a str,
    loss: Vec<bound::Shown>,
    flush_within_ns: Option<u64>,
    assume_sync_ns: Option<u64>,
    params: Vec<ShownParam>,
    certificate: Option<certificate::Shown>,
}

/// Finds the object, checks it and prints it.
pub fn run(args: &Show, global: &Global) -> Result<Outcome> {
    let (path, settings) = (args.what.path(), args.what.settings(&args.settings));
    let pid = process(&args.what.to_string())?;
    if let Some(setting) = settings.first().filter(|_| pid.is_some() || launch::is_object(path)) {
        let why = "what is running or compiled is shown as it is; name a text";
        return Err(output::exit(1, format!("`{setting}` cannot be set: {why}")));
    }
    let mut is_off = false;
    let (object, now) = match pid {
        Some(pid) => {
            let status =
                Status::of_process(pid, false).map_err(|why| top::unreadable(pid, &why))?;
            let seen = status.snapshot();
            is_off = seen.is_off;
            (object_of(pid, &seen)?, seen.params)
        }
        None if launch::is_object(path) || path.extension().is_some_and(|e| e == "o") => {
            (read(path)?.0, Vec::new())
        }
        None => match input::ready(path, &settings, global)? {
            Some(ready) => (ready.proved.object, Vec::new()),
            None => return Ok(Outcome::Wrong),
        },
    };
    if !has_own_text(&object) {
        let what =
            pid.map_or_else(|| format!("`{}`", path.display()), |pid| format!("process {pid}"));
        let why = "the text in the object is not the one that it was compiled from";
        return Err(output::exit(1, format!("{what}: {why}: its digest is not that in the note")));
    }
    if args.text && !global.is_json() {
        output::stdout(object.source.text.as_bytes())?;
        return Ok(Outcome::Fine);
    }
    let params = params(&object, &now);
    if !global.is_json() {
        output::print(&human(&object, pid, is_off, &params)?)?;
        return Ok(Outcome::Fine);
    }
    let meta = &object.meta;
    global.document.put(&Shown {
        process: pid,
        is_off,
        policy: &meta.policy,
        target: &meta.target,
        runtime: meta.runtime.text(),
        source_sha256: &meta.source_sha256,
        text: &object.source.text,
        loss: bound::shown(&meta.loss),
        flush_within_ns: meta.flush_within,
        assume_sync_ns: meta.assume_sync,
        params,
        certificate: certificate::shown(&object)?,
    })?;
    Ok(Outcome::Fine)
}

/// The process that is meant, if one is.
fn process(what: &str) -> Result<Option<u32>> {
    if !processes::is_place(what) && what.parse::<u32>().is_err() {
        return Ok(None);
    }
    match processes::named(&[what.to_owned()])?.as_slice() {
        [one] => Ok(Some(*one)),
        several => {
            let list: String = several.iter().map(|pid| format!(" {pid}")).collect();
            Err(output::exit(1, format!("several processes are at `{what}`: name one:{list}")))
        }
    }
}

/// Whether an object holds the text that it was compiled from: its digest is in the note, the text is among the debug data.
fn has_own_text(object: &Object) -> bool {
    let digest = Sha256::digest(object.source.text.as_bytes());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    digest == object.meta.source_sha256
}

/// The object that a process runs: what its environment names, or, where the process has written over its
/// environment (as Redis does, for its title), the one in durac's folders that fits.
fn object_of(pid: u32, seen: &Snapshot) -> Result<Object> {
    let environment = fs::read(format!("/proc/{pid}/environ"))
        .map_err(|why| output::exit(1, format!("process {pid}: {}", output::reason(&why))))?;
    let name = format!("{}=", durac_abi::ENV_OBJECT);
    let mut entries = environment.split(|byte| *byte == 0);
    if let Some(path) = entries.find_map(|entry| entry.strip_prefix(name.as_bytes())) {
        let path = PathBuf::from(OsString::from_vec(path.to_vec()));
        // As the process sees it.
        let inside = Path::new("/proc").join(pid.to_string()).join("root");
        let inside = inside.join(path.strip_prefix("/").unwrap_or(&path));
        let object = read(if inside.exists() { &inside } else { &path })?;
        // Another can have come in its place: `durac reload`.
        if fits(&object, seen) {
            return Ok(object.0);
        }
    }
    let mut fitting: Vec<(PathBuf, Object)> = Vec::new();
    for folder in [launch::runtime_folder()?, "/run/durac".into(), "/etc/durac".into()] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_object = path.extension().is_some_and(|extension| extension == "o");
            // There can be hundreds, and to verify one takes a while.
            if is_object
                && let Ok(bytes) = fs::read(&path)
                && fingerprint(&bytes) == seen.object
                && let Ok(object) = admitted(&path, &bytes)
                && fits(&object, seen)
                && !fitting.iter().any(|(_, other)| *other == object.0)
            {
                fitting.push((path, object.0));
            }
        }
    }
    match fitting.pop() {
        Some((_, object)) if fitting.is_empty() => Ok(object),
        Some((path, _)) => {
            let others = fitting.iter().map(|(path, _)| path);
            let paths: Vec<_> =
                others.chain([&path]).map(|p| format!("`{}`", p.display())).collect();
            Err(output::exit(
                1,
                format!(
                    "process {pid} runs policy `{}`, and several objects fit: {}; name one",
                    printable(&seen.policy),
                    paths.join(", ")
                ),
            ))
        }
        None => Err(output::exit(
            1,
            format!(
                "process {pid} runs policy `{}`, and its object is in none of durac's folders; name it: `durac show FILE.o`",
                printable(&seen.policy)
            ),
        )),
    }
}

/// Whether a process runs this object: its page has the fingerprint of the object's bytes. That is no proof against
/// forgery, so what the page says of the policy has to be the same, too.
fn fits((object, mark): &(Object, u64), seen: &Snapshot) -> bool {
    let meta = &object.meta;
    let loss = meta.loss.iter().find(|loss| loss.failure == Failure::PowerLoss);
    *mark == seen.object
        && meta.policy == seen.policy
        && meta.target == seen.target
        && loss.is_none_or(|loss| {
            seen.is_off || seen.bound.text.is_empty() || loss.text.starts_with(&seen.bound.text)
        })
        && meta.params.len() == seen.params.len()
        && meta.params.iter().zip(&seen.params).all(|(param, now)| {
            param.name == now.name
                && (param.default, param.min, param.max) == (now.default, now.min, now.max)
        })
}

/// Reads an object and checks what it states, for the runtime that it is for.
fn read(path: &Path) -> Result<(Object, u64)> {
    let shown = path.display();
    let bytes = fs::read(path).map_err(|why| {
        output::exit(1, format!("cannot read `{shown}`: {}", output::reason(&why)))
    })?;
    admitted(path, &bytes)
}

/// The object in what was read, with its fingerprint.
fn admitted(path: &Path, bytes: &[u8]) -> Result<(Object, u64)> {
    let shown = path.display();
    // The reason of the agent, for which most objects are.
    let others = [Runtime::Bpftime, Runtime::Supervisor];
    let admitted = durac_verify::admit(bytes, Runtime::Agent).or_else(|why| {
        others.iter().find_map(|other| durac_verify::admit(bytes, *other).ok()).ok_or(why)
    });
    let object =
        admitted.map_err(|why| output::exit(1, format!("`{shown}` is rejected: {why}")))?;
    certificate::check(&object, path)?;
    Ok((object, fingerprint(bytes)))
}

fn params(object: &Object, now: &[ParamStatus]) -> Vec<ShownParam> {
    let all = object.meta.params.iter();
    all.map(|param| ShownParam {
        name: param.name.clone(),
        unit: Unit::from(param.unit).text().to_owned(),
        value: now.iter().find(|n| n.name == param.name).map_or(param.default, |n| n.value),
        default: param.default,
        min: param.min,
        max: param.max,
    })
    .collect()
}

fn human(object: &Object, pid: Option<u32>, is_off: bool, params: &[ShownParam]) -> Result<String> {
    let meta = &object.meta;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "policy {} on {}, for {}", meta.policy, meta.target, meta.runtime.text());
    if is_off {
        out.push_str(
            "    switched off: every call runs as the application makes it (`durac on`)\n",
        );
    }
    for loss in &meta.loss {
        let _ = writeln!(out, "    loses on {}: {}", loss.failure.text(), loss.text);
    }
    if let Some(sync) = meta.assume_sync {
        let _ =
            writeln!(out, "    assumes that a sync takes at most {}", show(sync, Unit::Duration));
    }
    for p in params {
        let unit = Unit::parse(&p.unit).unwrap_or(Unit::Unknown);
        let value = |v| show(v, unit);
        let _ = write!(out, "    parameter {}: {}", p.name, value(p.value));
        if p.value != p.default {
            let _ = write!(out, " now, {} at first", value(p.default));
        }
        let _ = writeln!(out, ", in {}..={}", value(p.min), value(p.max));
    }
    if params.iter().any(|p| p.value != p.default) {
        out.push_str("    the bounds above are those of the first values\n");
    }
    out.push_str(&certificate::lines(object)?);
    if let Some(pid) = pid {
        let _ = writeln!(out, "    process {pid} runs it; `durac top {pid}` shows what it does");
    }
    let _ = writeln!(out, "\n{}", clean(&object.source.text).trim_end());
    Ok(out)
}
