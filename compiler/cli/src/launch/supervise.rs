//! A command under the supervisor: made ready, and put under the filter.

use super::Ready;
use crate::args::{Global, Launch, RunEngine};
use crate::commands::watch::{Leaves, orphan};
use crate::named::Named;
use crate::output;
use anyhow::{Context, Result};
use durac_abi::{Layout, Runtime};
use durac_core::CompileOptions;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A command that is ready to start under the supervisor.
pub struct Supervised {
    /// It.
    pub ready: Ready,
    /// The file of the policy's object.
    object: PathBuf,
    /// A library to preload into the supervisor, for crash tests.
    preload: Option<PathBuf>,
    /// Where its log goes, if the command line says so.
    log: Option<OsString>,
}

/// Whether the command is for the supervisor: it is asked for, or the agent cannot be loaded into the program, which is
/// then told.
pub fn wants_supervisor(policy: &Path, launch: &Launch, program: &Path) -> bool {
    if let Some(engine) = launch.engine {
        return engine == RunEngine::Supervisor;
    }
    let unreached = super::program_reason(program);
    let by_supervisor = unreached.as_ref().is_none_or(|unreached| unreached.by_supervisor);
    let reason = unreached.map(|unreached| unreached.why).or_else(|| target_reason(policy));
    let Some(reason) = reason.filter(|_| by_supervisor) else { return false };
    crate::log::info(&format!("{reason}; using the supervisor (`--engine supervisor`)"));
    true
}

/// Whether only the supervisor can run the policy of a file on a program.
pub fn needs_supervisor(policy: &Path, program: Option<&Path>) -> bool {
    let unreached = program.and_then(super::program_reason);
    unreached.is_some_and(|unreached| unreached.by_supervisor) || target_reason(policy).is_some()
}

/// Why the agent cannot run the policy: its target, or an object that is for the supervisor.
fn target_reason(policy: &Path) -> Option<String> {
    let meta = match super::is_elf(policy) {
        true => durac_abi::elf::read(&std::fs::read(policy).ok()?).ok()?.meta,
        // What is wrong with the text is told when it is compiled.
        false => {
            let mut input = crate::input::read_quietly(policy)?;
            let options = CompileOptions::new(&input.stem).with_runtime(Runtime::Supervisor);
            let analysis = durac_core::analyse(&mut input.sources, input.file, &options);
            let target = analysis.policy?.target;
            let watches = !target.protects.is_empty() || target.layout == Layout::Ring;
            return watches.then(|| needs(&target.name));
        }
    };
    match meta.runtime {
        Runtime::Supervisor => Some("the object is compiled for the supervisor".to_owned()),
        _ => meta.watches_writes().then(|| needs(&meta.target)),
    }
}

fn needs(target: &str) -> String {
    format!("the target `{target}` needs to see the writes of all processes")
}

/// Compiles the policy for the supervisor and finds the program. The first `None` is a command for the agent, the
/// second, reported, a policy that is wrong.
pub fn supervised(
    policy: &Named,
    launch: &Launch,
    global: &Global,
) -> Result<Option<Option<Supervised>>> {
    let [name, arguments @ ..] = launch.command.as_slice() else {
        return Err(output::exit(1, "no command to run"));
    };
    let program = super::find_program(name)?;
    if !wants_supervisor(policy.path(), launch, &program) {
        return Ok(None);
    }
    super::check_environment()?;
    let log = crate::log::of_supervisor(launch.log.as_deref())?;
    let settings = policy.settings(&launch.settings);
    let loaded = super::load(policy.path(), &settings, launch, Runtime::Supervisor, global)?;
    let Some(object) = loaded else {
        return Ok(Some(None));
    };
    let path = super::store(&object)?;
    let mut command = Command::new(&program);
    command.env_remove(crate::cache::ENV_CACHE).env_remove(durac_abi::ENV_RECORD);
    command.arg0(name).args(arguments);
    crate::inherited::hand_on(&mut command);
    let ready = Ready { command, program, object };
    let preload = launch.preload_after.clone();
    Ok(Some(Some(Supervised { ready, object: path, preload, log })))
}

impl Supervised {
    /// The command that starts all of this in a process of its own: this one is not under the filter. `words` are the
    /// command's.
    pub fn elsewhere(&self, words: &[OsString]) -> Command {
        let mut run = Command::new("/proc/self/exe");
        run.args(["run", "--engine", "supervisor"]);
        if let Some(log) = &self.log {
            run.arg("--log").arg(log);
        }
        if let Some(library) = &self.preload {
            run.arg("--preload-after").arg(library);
        }
        run.arg(&self.object).arg("--").args(words);
        crate::inherited::hand_on(&mut run);
        run
    }

    /// Starts the supervisor and puts this process under its filter. Only the command may follow.
    pub fn install(&self) -> Result<()> {
        super::unfit::warn(&self.ready.program);
        let failed = |why: String| output::exit(2, format!("cannot start the supervisor: {why}"));
        let (ours, theirs) = UnixStream::pair().context("cannot make a socket")?;
        let mut supervisor = Command::new("/proc/self/exe");
        supervisor.env_clear().current_dir("/").arg("supervise-command").arg(&self.object);
        for name in [durac_abi::ENV_LOG, durac_abi::ENV_STATUS, durac_abi::ENV_RECORD] {
            if let Some(value) = std::env::var_os(name) {
                supervisor.env(name, value);
            }
        }
        if let Some(log) = &self.log {
            supervisor.env(durac_abi::ENV_LOG, log);
        }
        if let Some(library) = &self.preload {
            supervisor.env("LD_PRELOAD", library);
        }
        supervisor.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        orphan(&mut supervisor, Leaves::Group);
        // What ends at once is the process between.
        supervisor
            .spawn()
            .and_then(|mut between| between.wait())
            .map_err(|e| failed(e.to_string()))?;
        drop(supervisor);
        let mut asked = durac_supervisor::filter::Asked::by(&self.ready.object);
        asked.writes |= durac_supervisor::is_recording_wanted();
        let installed = durac_supervisor::install(ours.into(), asked)
            .map_err(|error| failed(error.to_string()))?;
        if installed.no_new_privileges {
            crate::log::info(
                "setuid programs gain no privileges under the supervisor (no_new_privs)",
            );
        }
        Ok(())
    }
}
