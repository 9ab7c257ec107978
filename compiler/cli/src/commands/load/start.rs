//! The first run of `durac load`: everything is looked at, then the session is taken.

use super::{ENV_AGENT, ENV_LOCK, ENV_PRELOAD, Load, read, refused};
use crate::args::Global;
use crate::launch::preload;
use crate::{Outcome, output};
use anyhow::{Context, Result};
use durac_abi::Object;
use durac_bpftime::session::{self, Session};
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const SERVER: &str = "libbpftime-syscall-server.so";
const AGENT: &str = "libbpftime-agent.so";
/// Where the two are below an installation or a build of BPFtime.
const FOLDERS: [&str; 5] = [
    "",
    "runtime/syscall-server",
    "runtime/agent",
    "build/runtime/syscall-server",
    "build/runtime/agent",
];

/// A helper of BPFtime's io_uring extension: its name is in a library that has it.
const EXTENSION: &[u8] = b"io_uring_submit_fsync";

/// Variable with the file of BPFtime's log.
const LOG: &str = "BPFTIME_LOG_OUTPUT";

/// Becomes the second run.
pub fn run(args: &Load, global: &Global) -> Result<Outcome> {
    if durac_bpftime::intercepted() {
        return Err(output::exit(
            2,
            "BPFtime's server is preloaded already, and has cleared its session: start `durac load` without \
             LD_PRELOAD; it preloads the server by itself, from --bpftime DIR",
        ));
    }
    if let Some(path) = &args.ready_file {
        output::check_unread(path, [args.object.path(), args.target.as_path()])?;
    }
    let Some((object, _)) = read(args, global)? else { return Ok(Outcome::Wrong) };
    durac_bpftime::prepare(&object, &args.target).map_err(|why| refused(&why))?;
    let folder = folder(args)?;
    let (server, agent) = (library(&folder, SERVER)?, library(&folder, AGENT)?);
    check_extension(&object, &agent)?;
    check_log()?;
    let name = session::name().map_err(|why| output::exit(1, why.to_string()))?;
    let session = Session::take(name).map_err(|why| output::exit(2, why.to_string()))?;
    let lock = session.hand_on().context("cannot pass on the session's lock")?;
    let own = std::env::current_exe().context("cannot find durac itself")?;
    let mut words = std::env::args_os();
    let mut command = Command::new(&own);
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    command.args(words).env(ENV_LOCK, lock.to_string()).env(ENV_AGENT, &agent);
    command.env("LD_PRELOAD", preload(&server, None)?);
    crate::inherited::hand_on(&mut command);
    match std::env::var_os("LD_PRELOAD") {
        Some(before) => command.env(ENV_PRELOAD, before),
        None => command.env_remove(ENV_PRELOAD),
    };
    // It only returns if it failed.
    let why = command.exec();
    Err(output::exit(2, format!("cannot start `{}`: {}", own.display(), output::reason(&why))))
}

fn folder(args: &Load) -> Result<PathBuf> {
    if let Some(folder) = &args.bpftime {
        return Ok(folder.clone());
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    home.map(|home| PathBuf::from(home).join(".bpftime")).ok_or_else(|| {
        output::exit(2, "no HOME to find BPFtime in: name its folder with --bpftime DIR")
    })
}

fn library(folder: &Path, name: &str) -> Result<PathBuf> {
    let places = FOLDERS.iter().map(|below| folder.join(below).join(name));
    places.into_iter().find_map(|path| fs::canonicalize(path).ok()).ok_or_else(|| {
        let shown = folder.display();
        output::exit(
            2,
            format!("cannot find `{name}` in `{shown}`: name BPFtime's folder with --bpftime DIR"),
        )
    })
}

/// Whether the agent has the helpers that a policy's own syncs need: without them it drops the programs, and only
/// its log says so.
fn check_extension(object: &Object, agent: &Path) -> Result<()> {
    if object.kernel.is_empty() {
        return Ok(());
    }
    let shown = agent.display();
    let bytes = fs::read(agent).map_err(|why| {
        output::exit(2, format!("cannot read `{shown}`: {}", output::reason(&why)))
    })?;
    if bytes.windows(EXTENSION.len()).any(|window| window == EXTENSION) {
        return Ok(());
    }
    Err(output::exit(
        2,
        format!(
            "`{shown}` was built without io_uring, which this policy's syncs need: build BPFtime with \
             `cmake -DBPFTIME_ENABLE_IOURING_EXT=1`"
        ),
    ))
}

/// Whether BPFtime's log can be written: a target that cannot is aborted by its agent.
fn check_log() -> Result<()> {
    let Some(log) = std::env::var_os(LOG).filter(|log| !log.is_empty() && log != "console") else {
        return Ok(());
    };
    let Some(path) = log.to_str().map(|log| match log.strip_prefix("~/") {
        Some(rest) => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(rest),
        None => PathBuf::from(log),
    }) else {
        return Ok(());
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let open = parent
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| OpenOptions::new().append(true).create(true).open(&path));
    match open {
        Ok(_) => Ok(()),
        Err(why) => Err(output::exit(
            2,
            format!(
                "cannot write BPFtime's log `{}`: {}: set {LOG} to a file that this user and the target's can \
                 write, or to `console` (BPFtime's agent aborts a target that cannot)",
                path.display(),
                output::reason(&why)
            ),
        )),
    }
}
