//! Reads the object that the environment names: file, ELF, verifier, maps, machine code.
//!
//! On any failure one line says why, and the application runs without a policy.

use crate::helpers;
use crate::maps::MapArea;
use crate::policy::{Policy, Program};
use durac_abi::elf;
use durac_abi::link::{self, LinkError, MapRef};
use durac_abi::object::fingerprint;
use durac_abi::{Hook, Object, PARAMS_MAP, Runtime, STATE_MAP};
use durac_jit::JitError;
use durac_shm::status;
use durac_verify::Refused;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

const MAX_SIZE: u64 = elf::MAX_SIZE as u64;

/// Why an object is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] io::Error),
    /// It is a directory, a pipe or the like.
    #[error("not a regular file")]
    NotAFile,
    /// Another user could have written it.
    #[error("owned by user {owner}, not by root or user {user}")]
    Owner {
        /// The file's owner.
        owner: u32,
        /// The effective user of this process.
        user: u32,
    },
    /// Other users may change it.
    #[error("others may write to it (mode {0:o})")]
    Writable(u32),
    /// It is larger than an object can be.
    #[error("file of {0} bytes: larger than the limit of {MAX_SIZE} bytes")]
    TooLarge(u64),
    /// It is not an object of this runtime, or the verifier refuses it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The status page has no room for its parameters.
    #[error("{0} parameters: the limit is {max}", max = status::MAX_PARAMS)]
    Params(usize),
    /// A map that no policy has.
    #[error("unexpected map `{0}`")]
    Map(String),
    /// A hook that only other runtimes have.
    #[error("the agent does not support `on {0}`")]
    Hook(Hook),
    /// It has to see writes that no hook of libc sees.
    #[error(
        "the target `{0}` (`protects` or `layout ring`) needs the supervisor: `durac run --engine supervisor`"
    )]
    Supervisor(String),
    /// A relocation of the object is invalid.
    #[error("on {hook}: {why}")]
    Link {
        /// The program's hook.
        hook: Hook,
        /// Why.
        why: LinkError,
    },
    /// A program was not compiled.
    #[error("on {hook}: {why}")]
    Jit {
        /// The program's hook.
        hook: Hook,
        /// Why.
        why: JitError,
    },
}

/// Reads, checks and compiles the object at `path`.
///
/// # Errors
/// If the file cannot be trusted or read, or the object is refused.
pub fn load(path: &Path) -> Result<Policy, LoadError> {
    let bytes = read(path)?;
    let object = durac_verify::admit(&bytes, Runtime::Agent)?;
    let mut policy = prepare(&object)?;
    policy.object = fingerprint(&bytes);
    Ok(policy)
}

/// The file's bytes, if nobody but root and this user could have changed them.
fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(LoadError::NotAFile);
    }
    // SAFETY: it takes no pointer, cannot fail, and changes nothing.
    let user = unsafe { libc::geteuid() };
    if meta.uid() != 0 && meta.uid() != user {
        return Err(LoadError::Owner { owner: meta.uid(), user });
    }
    if meta.mode() & 0o022 != 0 {
        return Err(LoadError::Writable(meta.mode() & 0o7777));
    }
    if meta.len() > MAX_SIZE {
        return Err(LoadError::TooLarge(meta.len()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Lays out the maps and compiles the programs.
///
/// # Errors
/// If the object has what this agent does not support.
pub fn prepare(object: &Object) -> Result<Policy, LoadError> {
    let meta = &object.meta;
    if meta.params.len() > status::MAX_PARAMS {
        return Err(LoadError::Params(meta.params.len()));
    }
    if meta.watches_writes() {
        return Err(LoadError::Supervisor(meta.target.clone()));
    }
    let maps = object.maps.iter().map(|map| match map.name.as_str() {
        PARAMS_MAP => {
            let values: Vec<u64> = meta.params.iter().map(|p| p.default).collect();
            let ranges = meta.params.iter().map(|p| (p.min, p.max)).collect();
            Ok(MapArea::leak(&values, 1, ranges))
        }
        STATE_MAP => {
            let values: Vec<u64> = meta.state.iter().map(|s| s.init).collect();
            Ok(MapArea::leak(&values, map.max_entries, Vec::new()))
        }
        name => Err(LoadError::Map(name.into())),
    });
    let maps: Vec<&'static MapArea> = maps.collect::<Result<_, _>>()?;
    let mut policy = Policy::new(meta.clone());
    policy.watches = !object.kernel.is_empty();
    for (map, area) in object.maps.iter().zip(&maps) {
        match map.name.as_str() {
            PARAMS_MAP => policy.params = Some(area),
            _ => policy.state = Some(area),
        }
    }
    for program in &object.programs {
        if program.hook == Hook::Barrier {
            return Err(LoadError::Hook(program.hook));
        }
        let address = |map: u32| {
            let area: &'static MapArea = maps.get(map as usize)?;
            Some(MapRef::Address(std::ptr::from_ref(area) as u64))
        };
        let insns = link::link(&program.insns, &program.relocs, address)
            .map_err(|why| LoadError::Link { hook: program.hook, why })?;
        let code = durac_jit::compile(&insns, helpers::ALL)
            .map_err(|why| LoadError::Jit { hook: program.hook, why })?;
        // The file is looked at, not the call.
        if program.hook != Hook::Write || !policy.meta.defers_writes {
            policy.set_program(program.hook, Program { code });
        }
    }
    Ok(policy)
}
