//! `durac load`: an object into BPFtime, for as long as the command runs.

use crate::args::Load;
use crate::{Outcome, output};
use anyhow::{Context, Result};
use durac_bpf::Object;
use durac_bpf::elf;
use durac_bpftime::{LoadError, Loaded};
use std::fmt::Write;
use std::fs;

/// Loads, says so, and stays until it is told to end.
pub fn run(args: &Load) -> Result<Outcome> {
    let mut object = read(args)?;
    for assignment in &args.set {
        durac_compiler::set::set_object(&mut object, assignment)
            .map_err(|why| output::exit(1, format!("--set: {why}")))?;
    }
    let signals = Signals::blocked()?;
    let loaded = durac_bpftime::load(&object, &args.target).map_err(refused)?;
    output::stdout(summary(&object, &loaded).as_bytes())?;
    signals.wait();
    // Its descriptors are closed by the end of the process, and not before.
    drop(loaded);
    Ok(Outcome::Fine)
}

fn read(args: &Load) -> Result<Object> {
    let shown = args.object.display();
    let bytes = fs::read(&args.object).map_err(|why| {
        output::exit(1, format!("cannot read `{shown}`: {}", output::reason(&why)))
    })?;
    elf::read(&bytes)
        .map_err(|why| output::exit(1, format!("`{shown}` is no policy object: {why}")))
}

/// The object and the target are the user's input; the rest is the machine's doing.
fn refused(error: LoadError) -> anyhow::Error {
    let code = match error {
        LoadError::Runtime(_) | LoadError::Verifier(_) | LoadError::Target(_) => 1,
        LoadError::NotIntercepted
        | LoadError::Variable { .. }
        | LoadError::Kernel(_)
        | LoadError::Call { .. } => 2,
    };
    output::exit(code, error.to_string())
}

fn summary(object: &Object, loaded: &Loaded) -> String {
    let mut out = String::new();
    let (policy, target) = (&object.meta.policy, loaded.target.display());
    let _ = writeln!(out, "policy {policy} is loaded for {target}");
    for program in &loaded.attached {
        let (hook, symbol, offset) = (program.hook, &program.symbol, program.offset);
        let _ = writeln!(out, "    {hook}: at {symbol}, {offset:#x} of the file");
    }
    if let Some(place) = loaded.counts {
        let _ = writeln!(out, "    the kernel counts its syncs: {}", place.text());
    }
    let session = match std::env::var("BPFTIME_GLOBAL_SHM_NAME") {
        Ok(name) => format!("BPFTIME_GLOBAL_SHM_NAME={name} "),
        Err(_) => String::new(),
    };
    let _ = writeln!(out, "start it with {session}LD_PRELOAD=…/libbpftime-agent.so {target} …");
    let _ = writeln!(out, "and let this run as long as the policy is to be in force");
    out
}

/// The signals that end the command.
struct Signals(libc::sigset_t);

impl Signals {
    /// Keeps them until [`Signals::wait`].
    fn blocked() -> Result<Self> {
        // SAFETY: the set is filled before it is used, and the calls only read and write it.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                libc::sigaddset(&raw mut set, signal);
            }
            let failed =
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            if failed != 0 {
                return Err(std::io::Error::from_raw_os_error(failed)).context("cannot wait");
            }
            Ok(Self(set))
        }
    }

    fn wait(&self) {
        let mut signal = 0;
        // SAFETY: both outlive the call.
        while unsafe { libc::sigwait(&raw const self.0, &raw mut signal) } != 0 {}
    }
}
