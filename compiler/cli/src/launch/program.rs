//! Whether a command can run under the agent: the program that the kernel will load in the end, and the
//! agent library itself. What cannot work is refused here with the reason; the dynamic linker would print
//! a line of its own and run the command without the policy, or say nothing.
//!
//! What happens after the exec, as with a wrapper that clears the environment, cannot be seen from here:
//! the agent's own line says that the policy is in force.

use crate::output;
use anyhow::Result;
use durac_abi::{ENV_OBJECT, ENV_RECORD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadCache, elf};
use rustix::fs::StatVfsMountFlags;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Bytes of a script that the kernel reads (`BINPRM_BUF_SIZE`, linux/binfmts.h).
const FIRST_LINE: u64 = 256;
/// Interpreters of interpreters that the kernel follows (`exec_binprm`, fs/exec.c).
const MAX_SCRIPTS: usize = 5;
/// The extended attribute that holds the capabilities of a file (capabilities(7)).
const CAPABILITIES: &str = "security.capability";

/// Why the agent does not reach a program.
#[derive(Debug)]
pub struct Unreached {
    /// In words.
    pub why: String,
    /// The supervisor can run it all the same, and takes nothing from it.
    pub by_supervisor: bool,
}

/// Refuses a program that the dynamic linker does not load, or loads without the agent.
pub fn check(program: &Path) -> Result<()> {
    program_reason(program).map_or(Ok(()), |reason| Err(output::exit(1, reason.why)))
}

/// Refuses an agent that the dynamic linker does not load.
pub fn check_agent(agent: &Path) -> Result<()> {
    agent_reason(agent).map_or(Ok(()), |reason| Err(output::exit(2, reason)))
}

/// Why the agent does not reach `program`.
pub fn program_reason(program: &Path) -> Option<Unreached> {
    let mut current = program.to_owned();
    for _ in 0..=MAX_SCRIPTS {
        let Some(next) = interpreter(&current) else {
            let mut shown = format!("`{}`", current.display());
            if current != program {
                shown.push_str(&format!(", which runs `{}`,", program.display()));
            }
            let reason = binary_reason(&current)?;
            return Some(Unreached { why: format!("{shown} {}", reason.why), ..reason });
        };
        current = next;
    }
    // The kernel refuses it as well, and says so.
    None
}

/// The program that runs a script: the one on its first line, or the one that env(1) finds for it.
fn interpreter(script: &Path) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    regular(script).ok()?.take(FIRST_LINE).read_to_end(&mut bytes).ok()?;
    let line = bytes.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let mut words = line.split(|b| b" \t".contains(b)).filter(|word| !word.is_empty());
    let path = PathBuf::from(OsString::from_vec(words.next()?.to_vec()));
    if path.file_name() != Some(OsStr::new("env")) {
        return Some(path);
    }
    // `env -S` splits its argument, so all words count; those before the name are options and variables.
    let name = words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='));
    let found = name.and_then(|name| super::find_program(OsStr::from_bytes(name)).ok());
    Some(found.unwrap_or(path))
}

/// Why the dynamic linker does not load the agent into this program, which is not a script.
fn binary_reason(path: &Path) -> Option<Unreached> {
    let because = |by_supervisor: bool, why: String| Some(Unreached { why, by_supervisor });
    let kind = fs::metadata(path).ok()?;
    if kind.mode() & (libc::S_ISUID | libc::S_ISGID) != 0 {
        let why = "is setuid or setgid: the system ignores LD_PRELOAD for it";
        return because(false, why.to_owned());
    }
    if rustix::fs::getxattr(path, CAPABILITIES, &mut [0_u8; 64]).is_ok() {
        let why = "has file capabilities: the system ignores LD_PRELOAD for it";
        return because(false, why.to_owned());
    }
    // One that may be executed and not read is left to the agent's own line.
    let start = Start::read(path)?;
    if let Some(reason) = start.differs("the agent cannot be loaded into it") {
        return because(start.machine == elf::EM_386, reason);
    }
    let linker = match linker(path) {
        Ok(Some(linker)) => linker,
        // The dynamic linker itself loads the program that its arguments name, and the agent with it.
        Ok(None) if is_glibc(path) => return None,
        Ok(None) => {
            return because(
                true,
                "is statically linked: the agent cannot be loaded into it".to_owned(),
            );
        }
        // The kernel says what is wrong with the file.
        Err(_) => return None,
    };
    let shown = linker.display();
    if named(&linker, &["ld-musl"]) {
        let why = format!("is linked with musl (`{shown}`): the agent needs glibc");
        return because(linker.exists(), why);
    }
    if !is_glibc(&linker) {
        let why = format!("uses the dynamic linker `{shown}`: the agent needs that of glibc");
        return because(linker.exists(), why);
    }
    if !linker.exists() {
        return because(false, format!("needs the dynamic linker `{shown}`, which does not exist"));
    }
    None
}

/// Whether this is the dynamic linker of glibc, by its name.
fn is_glibc(linker: &Path) -> bool {
    named(linker, &["ld-linux", "ld.so", "ld64.so"])
}

fn named(path: &Path, beginnings: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    beginnings.iter().any(|beginning| name.starts_with(beginning.as_bytes()))
}

/// Opens a file to read it; not a pipe or a device, which could block.
fn regular(path: &Path) -> io::Result<File> {
    match fs::metadata(path)?.is_file() {
        true => File::open(path),
        false => Err(io::Error::other("not a regular file")),
    }
}

/// Why the dynamic linker does not load the agent.
fn agent_reason(agent: &Path) -> Option<String> {
    let shown = agent.display();
    let cannot = |why: &str| Some(format!("cannot preload `{shown}`: {why}"));
    if let Err(error) = regular(agent) {
        return cannot(&output::reason(&error));
    }
    let Some(start) = Start::read(agent).filter(|start| start.kind == elf::ET_DYN) else {
        return cannot("not a shared library");
    };
    if let Some(why) = start.differs("durac and the agent must be built for the same machine") {
        return cannot(&format!("it {why}"));
    }
    let mounted = rustix::fs::statvfs(agent);
    if mounted.is_ok_and(|mounted| mounted.f_flag.contains(StatVfsMountFlags::NOEXEC)) {
        return cannot("its file system is mounted noexec");
    }
    cannot(&linker_complaint(agent)?)
}

/// What the dynamic linker says when it preloads the agent into durac itself: a library that is missing, a
/// version of glibc that is too old.
fn linker_complaint(agent: &Path) -> Option<String> {
    let mut probe = Command::new(std::env::current_exe().ok()?);
    probe.arg("--version").env("LD_PRELOAD", agent).env("LC_ALL", "C");
    probe.env_remove(ENV_OBJECT).env_remove(ENV_RECORD).stdin(Stdio::null());
    // Where it cannot be tried, as at a limit of processes, the command is.
    let output = probe.output().ok()?;
    if output.status.signal().is_some() {
        return Some("the dynamic linker crashes when it loads it".to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let (_, rest) = said.split_once("cannot be preloaded (")?;
    rest.split_once("): ignored").map(|(why, _)| why.to_owned())
}

/// The first fields of an ELF header (elf(5)), which are the same in every class.
struct Start {
    class: elf::FileClass,
    data: elf::DataEncoding,
    kind: elf::FileType,
    machine: elf::Machine,
}

impl Start {
    fn read(path: &Path) -> Option<Start> {
        let mut bytes = [0; 20];
        regular(path).ok()?.read_exact(&mut bytes).ok()?;
        let [0x7f, b'E', b'L', b'F', class, data, .., k0, k1, m0, m1] = bytes else { return None };
        let (class, data) = (elf::FileClass(class), elf::DataEncoding(data));
        let half = |bytes| match data {
            elf::ELFDATA2MSB => u16::from_be_bytes(bytes),
            _ => u16::from_le_bytes(bytes),
        };
        let (kind, machine) = (elf::FileType(half([k0, k1])), elf::Machine(half([m0, m1])));
        Some(Start { class, data, kind, machine })
    }

    /// How it differs from this program, and what follows.
    fn differs(&self, therefore: &str) -> Option<String> {
        let own = Start::read(Path::new("/proc/self/exe"))?;
        if self.class == elf::ELFCLASS32 && own.class == elf::ELFCLASS64 {
            return Some(format!("is a 32-bit program: {therefore}"));
        }
        if (self.class, self.data, self.machine) == (own.class, own.data, own.machine) {
            return None;
        }
        let machine = match self.machine {
            elf::EM_X86_64 => "x86-64".to_owned(),
            elf::EM_386 => "x86".to_owned(),
            elf::EM_AARCH64 => "AArch64".to_owned(),
            elf::EM_ARM => "ARM".to_owned(),
            elf::EM_RISCV => "RISC-V".to_owned(),
            elf::EM_PPC64 => "PowerPC 64".to_owned(),
            elf::EM_S390 => "S/390".to_owned(),
            elf::EM_LOONGARCH => "LoongArch".to_owned(),
            elf::Machine(other) => format!("number {other}"),
        };
        Some(format!("is for another architecture ({machine}): {therefore}"))
    }
}

/// The dynamic linker that a program names; none if it is static.
fn linker(path: &Path) -> Result<Option<PathBuf>> {
    let file = ReadCache::new(regular(path)?);
    let header = elf::FileHeader64::<Endianness>::parse(&file)?;
    let endian = header.endian()?;
    for part in header.program_headers(endian, &file)? {
        if let Some(path) = part.interpreter(endian, &file)? {
            return Ok(Some(PathBuf::from(OsStr::from_bytes(path))));
        }
    }
    Ok(None)
}
