//! `durac load`: an object in BPFtime, for as long as the command runs.
//!
//! It runs twice: as it was started, to look at everything and take the session (`start`), and then in its own place
//! with BPFtime's server preloaded, to load the object and stay (`serve`). The server clears a session with the
//! first call that it sees, so nothing may be left to find out by then.

mod serve;
mod start;

use crate::args::Global;
use crate::named::{Named, Settings};
use crate::{Outcome, certificate, input, launch, output};
use anyhow::Result;
use clap::Args as ClapArgs;
use durac_abi::elf::{self, KernelTypes};
use durac_abi::{Object, Runtime};
use durac_bpftime::LoadError;
use durac_grammar::Sources;
use std::ffi::OsString;
use std::path::PathBuf;

/// Arguments of `durac load`.
#[derive(Debug, ClapArgs)]
pub struct Load {
    /// An object compiled with `durac compile --runtime bpftime`, with `:name=value,…` to set parameters
    #[arg(value_name = "OBJECT")]
    object: Named,
    /// The program whose functions it hooks
    #[arg(long, value_name = "PATH")]
    target: PathBuf,
    /// Its parameters.
    #[command(flatten)]
    settings: Settings,
    /// The folder with BPFtime's libraries, or its build folder [default: ~/.bpftime]
    #[arg(long, value_name = "DIR")]
    bpftime: Option<PathBuf>,
    /// Create this file when the target may start; it is removed at the end
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// The target's command: started with BPFtime's agent once the object is loaded. Signals are passed on to it, and
    /// its exit code is that of this command
    #[arg(value_name = "COMMAND", last = true)]
    command: Vec<OsString>,
}

/// The lock of the session, as a descriptor: this is the second run.
const ENV_LOCK: &str = "DURAC_LOAD_LOCK";
/// BPFtime's agent, found in the first run.
const ENV_AGENT: &str = "DURAC_LOAD_AGENT";
/// What was preloaded in the first run.
const ENV_PRELOAD: &str = "DURAC_LOAD_PRELOAD";

/// Loads the object, and stays until a signal or the end of the target ends it.
pub fn run(args: &Load, global: &Global) -> Result<Outcome> {
    match std::env::var_os(ENV_LOCK) {
        Some(lock) => serve::run(args, &lock, global),
        None => start::run(args, global),
    }
}

/// The object, with its parameters; `None`, reported, if they are wrong.
fn read(args: &Load, global: &Global) -> Result<Option<(Object, KernelTypes)>> {
    let path = args.object.path();
    let shown = path.display();
    let bytes = launch::trusted::read(path)?;
    let refused = |why: String| output::exit(1, format!("`{shown}` is rejected: {why}"));
    let mut object =
        durac_verify::admit(&bytes, Runtime::Bpftime).map_err(|e| refused(e.to_string()))?;
    certificate::check(&object, path)?;
    let types = elf::kernel_types(&bytes, &object).map_err(|e| refused(e.to_string()))?;
    let settings = args.object.settings(&args.settings);
    let mut sources = Sources::new();
    let one = |assignment: &str| durac_core::set::set_object(&mut object, assignment);
    let found = durac_driver::settings::each(&settings, &mut sources, one);
    let found: Vec<_> = found.into_iter().map(|(diagnostic, _)| diagnostic).collect();
    input::report(&found, &sources, global);
    Ok(found.is_empty().then_some((object, types)))
}

/// The object, the target and the environment are the user's input; the rest is the machine's doing.
fn refused(error: &LoadError) -> anyhow::Error {
    let code = match error {
        LoadError::Runtime(_)
        | LoadError::Verifier(_)
        | LoadError::Old
        | LoadError::Link(_)
        | LoadError::Target(_) => 1,
        LoadError::NotIntercepted
        | LoadError::Variable { .. }
        | LoadError::SharesForNothing
        | LoadError::Unprivileged
        | LoadError::MapNumbers { .. }
        | LoadError::NoPins
        | LoadError::Pin(_)
        | LoadError::Kernel(_)
        | LoadError::Call { .. } => 2,
    };
    output::exit(code, error.to_string())
}
