//! What `durac run` and `durac record` share: a command made ready to run under a policy.

use crate::args::{Engine, Global};
use crate::{input, notify, output};
use anyhow::{Context, Result};
use durac_bpf::abi::Runtime;
use durac_bpf::{Object, abi, elf};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name of the agent library.
const AGENT: &str = "libdurac_agent.so";

/// What runs under a policy.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The policy: a file, an object, or the name of a ready one.
    pub policy: &'a Path,
    /// Parameters, `name=value`.
    pub set: &'a [String],
    /// What writes staged bytes, if it is chosen.
    pub engine: Option<Engine>,
    /// The agent library, if it is named.
    pub agent: Option<&'a Path>,
    /// The command and its arguments.
    pub command: &'a [OsString],
}

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
pub fn prepare(launch: Launch<'_>, global: &Global) -> Result<Option<Ready>> {
    let Some(object) = load(launch, global)? else {
        return Ok(None);
    };
    let agent = agent(launch.agent)?;
    let [name, arguments @ ..] = launch.command else {
        return Err(output::exit(1, "no command to run"));
    };
    let program = find_program(name)?;
    refuse_unhookable(&program)?;
    if agent.as_os_str().as_bytes().iter().any(|b| b" :\t\n".contains(b)) {
        // The dynamic linker takes these for separators, and would run the command without us.
        let shown = agent.display();
        return Err(output::exit(
            2,
            format!("`{shown}` cannot be preloaded: a blank or `:` in it"),
        ));
    }
    let path = store(&object)?;
    let preload = preload(&agent, std::env::var_os("LD_PRELOAD").as_deref());
    let mut command = Command::new(&program);
    command.arg0(name).args(arguments).env("LD_PRELOAD", preload).env(abi::ENV_OBJECT, &path);
    notify::start(&object, &mut command);
    if let Some(engine) = launch.engine {
        command.env(abi::ENV_ENGINE, engine.name());
    }
    Ok(Some(Ready { command, program, object }))
}

/// The command could not be started: 126 is what env(1) and shells say then.
pub fn cannot_start(program: &Path, error: &std::io::Error) -> anyhow::Error {
    let shown = program.display();
    output::exit(126, format!("cannot run `{shown}`: {}", output::reason(error)))
}

/// The object: compiled from a policy, or read from a compiled file and verified again.
fn load(launch: Launch<'_>, global: &Global) -> Result<Option<Object>> {
    if is_elf(launch.policy) {
        let shown = launch.policy.display();
        if !launch.set.is_empty() {
            return Err(output::exit(1, "--set needs a policy's text, not an object"));
        }
        let bytes = fs::read(launch.policy).with_context(|| format!("cannot read `{shown}`"))?;
        let object = elf::read(&bytes)
            .map_err(|why| output::exit(1, format!("`{shown}` is no policy object: {why}")))?;
        if object.meta.runtime != Runtime::Agent {
            let theirs = object.meta.runtime.text();
            let why = format!("`{shown}` is made for {theirs}, not for the agent");
            return Err(output::exit(1, why));
        }
        if let Err(rejections) = durac_verify::verify(&object) {
            let why = rejections.first().map_or_else(String::new, |r| r.reason.clone());
            return Err(output::exit(1, format!("`{shown}` is refused by the verifier: {why}")));
        }
        return Ok(Some(object));
    }
    let ready = input::ready(launch.policy, launch.set, global)?;
    Ok(ready.map(|ready| ready.proved.object))
}

fn is_elf(path: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    fs::metadata(path).is_ok_and(|m| m.is_file())
        && fs::File::open(path).and_then(|mut f| f.read_exact(&mut magic)).is_ok()
        && magic == *b"\x7fELF"
}

/// The agent library: named, beside durac, or where a package would put it.
fn agent(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        return match fs::canonicalize(path) {
            Ok(path) => Ok(path),
            Err(error) => {
                let (shown, why) = (path.display(), output::reason(&error));
                Err(output::exit(2, format!("the agent library `{shown}` cannot be used: {why}")))
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
                "the agent library is missing: looked for {}; name it with --agent",
                places.join(" and ")
            ),
        )
    })
}

/// Appends to what is preloaded already, so that nobody's library is pushed out.
fn preload(agent: &Path, existing: Option<&OsStr>) -> OsString {
    let mut all = existing.map(OsStr::to_owned).unwrap_or_default();
    if !all.is_empty() {
        all.push(":");
    }
    all.push(agent);
    all
}

fn find_program(name: &OsStr) -> Result<PathBuf> {
    let shown = name.to_string_lossy().into_owned();
    let missing = || output::exit(127, format!("`{shown}`: command not found"));
    let candidates: Vec<PathBuf> = if shown.contains('/') {
        vec![PathBuf::from(name)]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|folder| folder.join(name)).collect()
    };
    let mut denied = None;
    for candidate in candidates {
        let Ok(kind) = fs::metadata(&candidate) else { continue };
        if kind.is_file() && kind.permissions().mode() & 0o111 != 0 {
            return Ok(candidate);
        }
        denied.get_or_insert(candidate);
    }
    match denied {
        Some(path) => Err(output::exit(126, format!("`{}`: cannot be executed", path.display()))),
        None => Err(missing()),
    }
}

/// A program the dynamic linker does not load, or loads without our library, would silently run
/// without the policy.
fn refuse_unhookable(program: &Path) -> Result<()> {
    let shown = program.display();
    let kind = fs::metadata(program).with_context(|| format!("cannot read `{shown}`"))?;
    if kind.mode() & (libc::S_ISUID | libc::S_ISGID) != 0 {
        return Err(output::exit(
            1,
            format!("`{shown}` is setuid or setgid: the system does not preload libraries into it"),
        ));
    }
    let Ok(bytes) = fs::read(program) else { return Ok(()) };
    if is_static(&bytes) {
        return Err(output::exit(
            1,
            format!("`{shown}` is statically linked: the policy cannot reach it"),
        ));
    }
    Ok(())
}

/// Whether it is an ELF program that names no dynamic linker.
fn is_static(bytes: &[u8]) -> bool {
    use object::read::elf::{FileHeader, ProgramHeader};
    type Header = object::elf::FileHeader64<object::Endianness>;
    let headers = Header::parse(bytes).and_then(|header| {
        let endian = header.endian()?;
        Ok((endian, header.program_headers(endian, bytes)?))
    });
    // A script is no ELF file; its interpreter is loaded like any program.
    headers.is_ok_and(|(endian, headers)| {
        !headers.iter().any(|h| h.p_type(endian) == object::elf::PT_INTERP)
    })
}

/// Stores the object where only this user can write, under a name made of its content: the same
/// policy run again, or by many servers, is one file.
pub fn store(object: &Object) -> Result<PathBuf> {
    let bytes = elf::write(object).context("cannot write the object")?;
    let folder = runtime_folder()?;
    let digest = object.meta.source_sha256.get(..16).unwrap_or("");
    let params: u64 =
        object.meta.params.iter().fold(0xcbf2_9ce4_8422_2325, |hash, p| {
            (hash ^ p.default).wrapping_mul(0x0100_0000_01b3)
        });
    let path = folder.join(format!("{}-{digest}-{params:016x}.o", object.meta.policy));
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

/// A folder that only this user can write: `/run/durac` for root, else under `XDG_RUNTIME_DIR`, else in `/tmp`.
pub fn runtime_folder() -> Result<PathBuf> {
    // SAFETY: geteuid has no preconditions and cannot fail.
    let user = unsafe { libc::geteuid() };
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
                format!("cannot make `{shown}`: {}", output::reason(&error)),
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
