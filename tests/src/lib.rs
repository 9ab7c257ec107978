//! What the workspace tests share: where the built programs are, a witness, and one Redis at a
//! time.
//!
//! The tests themselves are in `tests/it`. They run the programs that a user runs, built from
//! this workspace, against the real redis-server; the libraries are tested in their own crates.

pub mod bound;
pub mod server;
pub mod trace;
pub mod witness;

use anyhow::{Context, Result, bail, ensure};
use durac_workload::child::{self, Ended};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The ready policies that compile, from the safest to the fastest.
pub const POLICIES: [&str; 10] = [
    "always",
    "delayed_fsync",
    "fast_notify",
    "window",
    "updates",
    "adaptive",
    "batch",
    "batch_process",
    "everysec",
    "no",
];

/// Whether a test can do what only root can. If not, it says that it was skipped; in CI it fails.
///
/// # Panics
/// Not root, where the environment variable `CI` is set.
#[must_use]
pub fn needs_root(why: &str) -> bool {
    let is_root = durac_workload::sys::is_root();
    if !is_root {
        assert!(std::env::var_os("CI").is_none(), "CI has to run the tests as root: {why}");
        eprintln!("skipped, not root: {why}");
    }
    is_root
}

/// A command that takes longer has hung.
const WITHIN: Duration = Duration::from_secs(900);

/// The folder with the built programs: `target/debug` or `target/release`, where these tests are
/// in `deps`.
///
/// # Errors
/// If this executable is not where cargo puts tests.
pub fn bin_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("cannot find this executable")?;
    Ok(exe.parent().and_then(Path::parent).context("no cargo target folder")?.to_owned())
}

/// Says that the programs are built and current, so that each test process need not see to it.
const ENV_BUILT: &str = "DURAC_TESTS_BUILT";

/// One of the programs and libraries of this workspace. Builds it if it is not there or not
/// current: `cargo test` alone builds neither the programs nor the agent for these tests.
fn built(name: &str) -> Result<PathBuf> {
    static BUILD: OnceLock<Result<(), String>> = OnceLock::new();
    let path = bin_dir()?.join(name);
    if std::env::var_os(ENV_BUILT).is_none() {
        let built = BUILD.get_or_init(|| build().map_err(|error| format!("{error:#}")));
        if let Err(error) = built {
            bail!("{error}");
        }
    }
    ensure!(
        path.exists(),
        "{} is missing: build it with `cargo build --workspace --lib --bins --tests`, and unset {ENV_BUILT}",
        path.display()
    );
    Ok(path)
}

/// Builds the whole workspace, as tests/run.sh does: a part of it would be built with other
/// features, all over again.
fn build() -> Result<()> {
    let dir = bin_dir()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--workspace", "--lib", "--bins", "--tests"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if dir.file_name() == Some(OsStr::new("release")) {
        command.arg("--release");
    }
    command.env("CARGO_TARGET_DIR", dir.parent().context("no cargo target folder")?);
    ensure!(command.status().context("cannot run cargo")?.success(), "the build failed");
    Ok(())
}

/// The program `durac`.
///
/// # Errors
/// If it cannot be built.
pub fn tool() -> Result<PathBuf> {
    built("durac")
}

/// The library to preload.
///
/// # Errors
/// If it cannot be built.
pub fn agent() -> Result<PathBuf> {
    built("libdurac_preload.so")
}

/// The agent with fault injection.
///
/// # Errors
/// If it cannot be built.
pub fn faulty_agent() -> Result<PathBuf> {
    built("libdurac_faulty_preload.so")
}

/// A program that runs commands under a supervisor with fault injection.
///
/// # Errors
/// If it cannot be built.
pub fn faulty_supervisor() -> Result<PathBuf> {
    built("durac-faulty-supervisor")
}

/// The program `durac-append-log`.
///
/// # Errors
/// If it cannot be built.
pub fn append_log() -> Result<PathBuf> {
    built("durac-append-log")
}

/// The patched Redis. Builds it if it is not there or not current, which takes minutes: held by a
/// test that has its turn ([`heavy`]).
///
/// # Errors
/// If its source cannot be had, or it cannot be built.
pub fn patched_redis() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let folder = bin_dir()?.parent().context("no cargo target folder")?.join("redis");
    let mut command = Command::new("bash");
    command.arg(root.join("runtime-bridge/redis/build.sh")).arg("redis").arg(folder);
    let ended = command.output().context("cannot run bash")?;
    ensure!(ended.status.success(), "build.sh: {}", String::from_utf8_lossy(&ended.stderr));
    Ok(PathBuf::from(String::from_utf8(ended.stdout)?.trim()))
}

/// A `durac` command that is ready to run: no input, no colours, nothing preloaded.
///
/// # Errors
/// If durac cannot be built.
pub fn durac<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Result<Command> {
    agent()?;
    let mut command = child::command(&[], &tool()?);
    command.args(args).env_remove("LD_PRELOAD").env("NO_COLOR", "1");
    // What one test proves must not change what another sees.
    command.env("DURAC_CACHE", "off");
    Ok(command)
}

/// Runs a command to its end.
///
/// # Errors
/// If it cannot start or hangs.
pub fn run(command: Command) -> Result<Ended> {
    Ok(child::run(command, WITHIN)?)
}

/// Runs `durac` with these arguments to its end.
///
/// # Errors
/// If it cannot be built or hangs.
pub fn run_durac<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Result<Ended> {
    run(durac(args)?)
}

/// The text of a command, for messages: status and both outputs.
#[must_use]
pub fn show(ended: &Ended) -> String {
    format!("{}\nstdout: {}\nstderr: {}", ended.status, ended.stdout, ended.stderr)
}

/// Held by a test that loads the machine. Four of them run at a time, because each also waits for much
/// (disks, timers, servers that start); more would only starve each other.
#[derive(Debug)]
#[must_use]
pub struct Heavy {
    _lock: File,
}

/// Waits for its turn. Locks on files, because test runners use threads as well as processes.
///
/// # Errors
/// If the files cannot be made.
pub fn heavy() -> Result<Heavy> {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let open = |place: usize| {
        let path = bin_dir()?.join(format!("durac-tests.{place}.lock"));
        File::create(&path).with_context(|| path.display().to_string())
    };
    for place in 0..HEAVY {
        let lock = open(place)?;
        if lock.try_lock().is_ok() {
            return Ok(Heavy { _lock: lock });
        }
    }
    let lock = open(TURN.fetch_add(1, Ordering::Relaxed) % HEAVY)?;
    lock.lock().context("cannot lock")?;
    Ok(Heavy { _lock: lock })
}

/// How many tests may load the machine at a time.
const HEAVY: usize = 4;

/// Copies a program that is about to be run. Not in this process: while a file is open for writing, a child
/// that another thread forks inherits it for a moment, and running the program fails with ETXTBSY.
///
/// # Errors
/// If it cannot be copied.
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let mut command = child::command(&[], &child::which("cp")?);
    command.arg("--").arg(from.as_ref()).arg(to.as_ref());
    let ended = run(command)?;
    ensure!(ended.status.success(), "cp: {}", show(&ended));
    Ok(())
}

/// Compiles a C program or library of `tests/shims` with the given options; once, and again when
/// its source is newer.
///
/// # Errors
/// If cc is not there or refuses.
pub fn cc(source: &str, output: &str, options: &[&str]) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("shims").join(source);
    let dir = bin_dir()?.join("durac-shims");
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(output);
    let dir = path.parent().context("no folder")?.to_owned();
    std::fs::create_dir_all(&dir)?;
    let age = |path: &Path| path.metadata().and_then(|meta| meta.modified());
    // What it includes is beside it.
    let beside = source.parent().map(std::fs::read_dir).context("no folder")??;
    let headers = beside.flatten().map(|entry| entry.path());
    let headers = headers.filter(|path| path.extension().is_some_and(|end| end == "h"));
    let written = headers.chain([source.clone()]).filter_map(|path| age(&path).ok()).max();
    if age(&path).is_ok_and(|built| written.is_some_and(|written| written < built)) {
        return Ok(path);
    }
    // Under a name of its own, then renamed: another test may compile or use it right now.
    let temporary = tempfile::Builder::new().tempfile_in(&dir)?.into_temp_path();
    let mut command = child::command(&[], &child::which("cc")?);
    command.args(["-O2", "-Wall", "-Wextra"]).args(options).arg("-o").arg(&*temporary).arg(source);
    let ended = run(command)?;
    ensure!(ended.status.success(), "cc: {}", show(&ended));
    temporary.persist(&path)?;
    Ok(path)
}
