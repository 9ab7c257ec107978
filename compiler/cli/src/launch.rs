//! What `durac run` and `durac record` share: a command made ready to run under a policy.

pub mod init;
mod program;
mod proved;
mod supervise;
pub mod trusted;
mod unfit;

pub use program::{check_agent, program_reason};
pub use supervise::{needs_supervisor, supervised};

use crate::args::{Global, Launch, RunEngine};
use crate::input::{self, Input};
use crate::named::{Named, Settings};
use crate::{certificate, notify, output};
use anyhow::{Context, Result};
use durac_abi::Object;
use durac_abi::Runtime;
use durac_abi::elf;
use sha2::{Digest, Sha256};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name of the agent library.
pub const AGENT: &str = "libdurac_preload.so";

/// A command that is ready to start.
#[derive(Debug)]
pub struct Ready {
    /// The command.
    pub command: Command,
    /// The file of its program.
    pub program: PathBuf,
    /// The policy's object.
    pub object: Object,
}

/// Compiles the policy and finds everything else; `None`, reported, if the policy is wrong.
pub fn prepare(policy: &Named, launch: &Launch, global: &Global) -> Result<Option<Ready>> {
    check_environment()?;
    let log = launch.log.as_deref().map(crate::log::for_agent).transpose()?;
    let settings = policy.settings(&launch.settings);
    // Found before anything is proved.
    let agent = agent(launch.agent.as_deref())?;
    let Some(object) = load(policy.path(), &settings, launch, Runtime::Agent, global)? else {
        return Ok(None);
    };
    let [name, arguments @ ..] = launch.command.as_slice() else {
        return Err(output::exit(1, "no command to run"));
    };
    let program = find_program(name)?;
    program::check(&program)?;
    unfit::warn(&program);
    let existing = std::env::var_os("LD_PRELOAD");
    let mut preload = preload(&agent, existing.as_deref())?;
    if let Some(after) = &launch.preload_after {
        preload = self::preload(after, Some(&preload))?;
    }
    check_agent(&agent)?;
    let path = store(&object)?;
    let mut command = Command::new(&program);
    command.env_remove(crate::cache::ENV_CACHE);
    command.arg0(name).args(arguments).env("LD_PRELOAD", preload).env(durac_abi::ENV_OBJECT, &path);
    crate::inherited::hand_on(&mut command);
    let bytes = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let types = elf::kernel_types(&bytes, &object).context("cannot read the object")?;
    notify::start(&object, &types, &mut command);
    if let Some(log) = log {
        command.env(durac_abi::ENV_LOG, log);
    }
    if let Some(engine) = launch.engine.and_then(RunEngine::of_agent) {
        command.env(durac_abi::ENV_ENGINE, engine.name());
    }
    Ok(Some(Ready { command, program, object }))
}

/// A variable that is misspelt would have no effect, and nobody would know.
fn check_environment() -> Result<()> {
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| durac_abi::is_unknown_variable(name)) else {
            continue;
        };
        let shown = durac_grammar::render::printable(name);
        let near = durac_grammar::suggest::nearest(name, durac_abi::ENV_ALL);
        let help = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        return Err(output::exit(
            1,
            format!("unknown variable `{shown}` in the environment{help}"),
        ));
    }
    for name in [durac_abi::ENV_NOTIFY, durac_abi::ENV_WATCH] {
        if let Some(value) = std::env::var_os(name).filter(|value| !is_known_value(name, value)) {
            let value = durac_grammar::render::printable(&value.to_string_lossy());
            output::error(&format!(
                "warning: unknown value `{value}` of {name}: it has no effect; `off` is the only one that has"
            ));
        }
    }
    Ok(())
}

/// Whether a variable that can only be switched off has a value that somebody may have meant: none, `off`, or what an outer
/// `durac run` has put into it.
fn is_known_value(name: &str, value: &OsStr) -> bool {
    let off =
        if name == durac_abi::ENV_NOTIFY { durac_abi::NOTIFY_OFF } else { durac_abi::WATCH_OFF };
    let is_descriptors = |text: &str| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.split_once(':').is_some_and(|(map, links)| {
            digits(map) && (links.is_empty() || links.split(',').all(digits))
        })
    };
    let Some(text) = value.to_str() else { return false };
    text.is_empty() || text == off || (name == durac_abi::ENV_NOTIFY && is_descriptors(text))
}

/// The command could not be started: 126 is what env(1) and shells say then.
pub fn cannot_start(program: &Path, error: &std::io::Error) -> anyhow::Error {
    let shown = program.display();
    let why = match missing_interpreter(program, error) {
        Some(interpreter) => format!("its interpreter `{interpreter}` does not exist"),
        None => output::reason(error),
    };
    output::exit(126, format!("cannot run `{shown}`: {why}"))
}

/// What a script that is there names in its first line, and is not: execve(2) says the same of both.
fn missing_interpreter(program: &Path, error: &std::io::Error) -> Option<String> {
    use std::io::Read as _;
    let mut first = Vec::new();
    if error.kind() != std::io::ErrorKind::NotFound {
        return None;
    }
    fs::File::open(program).ok()?.take(256).read_to_end(&mut first).ok()?;
    let line = first.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let interpreter = line.split_whitespace().next()?;
    (!Path::new(interpreter).exists()).then(|| durac_grammar::render::printable(interpreter))
}

/// What a policy's name leads to. It is read once: a pipe is at its end then, and a file can change.
pub enum Given {
    /// The text of a policy.
    Text(Input),
    /// A compiled file.
    Object(Vec<u8>),
}

impl Given {
    /// Reads it; `None`, reported, if it cannot be read as a text.
    pub fn read(policy: &Path, global: &Global) -> Result<Option<Self>> {
        if is_elf(policy) {
            return trusted::read(policy).map(|bytes| Some(Self::Object(bytes)));
        }
        trusted::warn(policy);
        Ok(input::read(policy, global).map(Self::Text))
    }

    /// The object of this policy with these parameters, proved now or at an earlier start, or of a compiled file.
    pub fn object(
        &self,
        policy: &Path,
        set: &[String],
        runtime: Runtime,
        global: &Global,
    ) -> Result<Option<Object>> {
        let launch = Launch {
            settings: Settings::default(),
            engine: None,
            agent: None,
            no_cache: false,
            verbose: false,
            log: None,
            preload_after: None,
            command: Vec::new(),
        };
        self.load(policy, set, &launch, runtime, global)
    }

    /// The object: compiled from a text, or verified again.
    fn load(
        &self,
        policy: &Path,
        settings: &[String],
        launch: &Launch,
        runtime: Runtime,
        global: &Global,
    ) -> Result<Option<Object>> {
        let bytes = match self {
            Self::Text(input) => {
                return proved::object(input.clone(), policy, settings, launch, runtime, global);
            }
            Self::Object(bytes) => bytes,
        };
        let shown = policy.display();
        if let Some(setting) = settings.first() {
            return Err(output::exit(
                1,
                format!(
                    "`{setting}` cannot be set in an object, whose bounds are proved: name the text, or use `durac set` \
                     while it runs"
                ),
            ));
        }
        let object = durac_verify::admit(bytes, runtime)
            .map_err(|why| output::exit(1, format!("`{shown}` is rejected: {why}")))?;
        certificate::check(&object, policy)?;
        if launch.verbose {
            output::error(&format!("`{shown}` was proved when it was compiled: 0 states explored"));
        }
        Ok(Some(object))
    }
}

/// Whether this is a compiled file, not a text.
pub fn is_object(path: &Path) -> bool {
    is_elf(path)
}

/// The object: compiled from a policy, or read from a compiled file and verified again.
fn load(
    policy: &Path,
    settings: &[String],
    launch: &Launch,
    runtime: Runtime,
    global: &Global,
) -> Result<Option<Object>> {
    match Given::read(policy, global)? {
        Some(given) => given.load(policy, settings, launch, runtime, global),
        None => Ok(None),
    }
}

fn is_elf(path: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    fs::metadata(path).is_ok_and(|m| m.is_file())
        && fs::File::open(path).and_then(|mut f| f.read_exact(&mut magic)).is_ok()
        && magic == *b"\x7fELF"
}

/// The agent library that a `durac run` of this process would use.
pub fn agent_of_children() -> Result<PathBuf> {
    let named = std::env::var_os("DURAC_AGENT");
    agent(named.as_deref().map(Path::new))
}

/// The agent library: named, beside durac, or where a package would put it.
pub fn agent(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named.filter(|path| !path.as_os_str().is_empty()) {
        return match fs::canonicalize(path) {
            Ok(path) => Ok(path),
            Err(error) => {
                let (shown, why) = (path.display(), output::reason(&error));
                Err(output::exit(2, format!("cannot use the agent library `{shown}`: {why}")))
            }
        };
    }
    let durac = std::env::current_exe().context("cannot find durac itself")?;
    let folder = durac.parent().unwrap_or(Path::new("/"));
    let places = [folder.join(AGENT), folder.join("../lib/durac").join(AGENT)];
    places.iter().find_map(|p| fs::canonicalize(p).ok()).ok_or_else(|| {
        let places: Vec<_> = places.iter().map(|p| format!("`{}`", p.display())).collect();
        output::exit(
            2,
            format!(
                "cannot find the agent library: looked for {}; to build and install it, run `durac install` in the \
                 folder with durac's source, or name it with --agent",
                places.join(" and ")
            ),
        )
    })
}

/// Appends to what is preloaded already, which stays in place.
pub fn preload(library: &Path, existing: Option<&OsStr>) -> Result<OsString> {
    if library.as_os_str().as_bytes().iter().any(|b| b" :\t\n".contains(b)) {
        // The dynamic linker takes these for separators, and would run the command without us.
        let shown = library.display();
        return Err(output::exit(
            2,
            format!("cannot preload `{shown}`: its path contains a blank or `:`"),
        ));
    }
    let mut all = existing.map(OsStr::to_owned).unwrap_or_default();
    if !all.is_empty() {
        all.push(":");
    }
    all.push(library);
    Ok(all)
}

/// Where programs are looked for without `PATH` (execvp(3): what `confstr(_CS_PATH)` returns in glibc).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The file of a command, as execvp(3) finds it.
pub fn find_program(name: &OsStr) -> Result<PathBuf> {
    let shown = name.to_string_lossy().into_owned();
    let missing = || output::exit(127, format!("`{shown}`: command not found"));
    let candidates: Vec<PathBuf> = if name.is_empty() {
        Vec::new()
    } else if name.as_bytes().contains(&b'/') {
        vec![PathBuf::from(name)]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        let here = |folder: PathBuf| match folder.as_os_str().is_empty() {
            true => Path::new(".").join(name),
            false => folder.join(name),
        };
        std::env::split_paths(&path).map(here).collect()
    };
    let mut denied = None;
    for candidate in candidates {
        match fs::metadata(&candidate) {
            Ok(kind) if kind.is_file() && may_execute(&candidate) => return Ok(candidate),
            Ok(_) => {}
            // It may be there.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            Err(_) => continue,
        }
        denied.get_or_insert(candidate);
    }
    match denied {
        Some(path) => Err(output::exit(126, format!("`{}`: not executable", path.display()))),
        None => Err(missing()),
    }
}

/// Whether this user may execute a file: a mode says only that somebody may.
fn may_execute(path: &Path) -> bool {
    use rustix::fs::{Access, AtFlags, CWD};
    match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) => true,
        Err(rustix::io::Errno::ACCESS) => false,
        // A sandbox may not know the call.
        Err(_) => fs::metadata(path).is_ok_and(|kind| kind.mode() & 0o111 != 0),
    }
}

/// Stores the object where only this user can write. Its name is the digest of its bytes and nothing
/// else, so the same policy is one file however often it runs, and no text of an object is a path.
pub fn store(object: &Object) -> Result<PathBuf> {
    let bytes = durac_bpf::write(object).context("cannot write the object")?;
    let folder = runtime_folder()?;
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let path = folder.join(format!("{digest}.o"));
    let readable = fs::metadata(&path).is_ok_and(|kind| kind.mode() & 0o777 == 0o644);
    if readable && fs::read(&path).is_ok_and(|old| old == bytes) {
        return Ok(path);
    }
    // Readable for all: the command may become another user before it loads the agent (setpriv).
    output::write_atomically(&path, &bytes, 0o644)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
        .context("cannot store the object")?;
    Ok(path)
}

/// `XDG_RUNTIME_DIR`, if it is this user's or root's: after `su` it can still be another's, who could
/// exchange what is in it.
fn session_folder(user: u32) -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").filter(|f| !f.is_empty())?;
    let kind = fs::metadata(&folder).ok()?;
    let private = [0, user].contains(&kind.uid()) && kind.mode() & 0o022 == 0;
    (kind.is_dir() && private).then(|| folder.into())
}

/// A folder that only this user can write: `/run/durac` for root, else under `XDG_RUNTIME_DIR`, else
/// in `/tmp`.
pub fn runtime_folder() -> Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let folder = if user == 0 {
        PathBuf::from("/run/durac")
    } else if let Some(folder) = session_folder(user) {
        folder.join("durac")
    } else {
        std::env::temp_dir().join(format!("durac-{user}"))
    };
    let shown = folder.display();
    // What is in root's folder can be opened by name by a command that becomes another user.
    let mode = if user == 0 { 0o711 } else { 0o700 };
    match fs::DirBuilder::new().mode(mode).create(&folder) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => {
            return Err(output::exit(
                2,
                format!("cannot create `{shown}`: {}", output::reason(&error)),
            ));
        }
    }
    // Not followed: a link that somebody else left there must not send our files elsewhere.
    let kind = fs::symlink_metadata(&folder).with_context(|| format!("cannot read `{shown}`"))?;
    if !kind.is_dir() || kind.uid() != user || kind.mode() & 0o022 != 0 {
        return Err(output::exit(
            2,
            format!("`{shown}` must be a folder that only user {user} can write"),
        ));
    }
    if kind.mode() & 0o777 != mode {
        let changed = fs::set_permissions(&folder, fs::Permissions::from_mode(mode));
        changed.with_context(|| format!("cannot change `{shown}`"))?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::is_known_value;

    #[test]
    fn values_of_variables() {
        let (notify, watch) = (durac_abi::ENV_NOTIFY, durac_abi::ENV_WATCH);
        for (name, value, known) in [
            (notify, "off", true),
            (notify, "", true),
            (notify, "700:701,702", true),
            (notify, "700:", true),
            (notify, "of", false),
            (notify, "700:a", false),
            (notify, "0", false),
            (watch, "off", true),
            (watch, "700:701", false),
            (watch, "OFF", false),
        ] {
            assert_eq!(is_known_value(name, value.as_ref()), known, "{name}={value}");
        }
    }
}
