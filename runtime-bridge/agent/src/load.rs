//! Reads the object that the environment names: file, ELF, verifier, maps, machine code.
//!
//! Whatever fails, fails with one line that says why, and the application runs without hooks.

use crate::helpers;
use crate::maps::MapArea;
use crate::policy::{Policy, Program};
use durac_bpf::abi::{Hook, PARAMS_MAP, Runtime, STATE_MAP};
use durac_bpf::{Object, elf};
use durac_engine::status;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

const MAX_SIZE: u64 = elf::MAX_SIZE as u64;

/// Reads, checks and compiles the object at `path`.
///
/// # Errors
/// Why the object is refused, in words.
pub fn load(path: &Path) -> Result<Policy, String> {
    let bytes = read(path)?;
    let object = durac_verify::admit(&bytes, Runtime::Agent)
        .map_err(|why| format!("{}: {why}", path.display()))?;
    prepare(&object).map_err(|e| format!("{}: {e}", path.display()))
}

/// The file's bytes, if nobody but root and this user could have changed them.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let say = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
        .map_err(|e| say(&e))?;
    let meta = file.metadata().map_err(|e| say(&e))?;
    if !meta.is_file() {
        return Err(say(&"not a regular file"));
    }
    // SAFETY: it takes no pointer, cannot fail, and changes nothing.
    let user = unsafe { libc::geteuid() };
    if meta.uid() != 0 && meta.uid() != user {
        return Err(say(&format!("owned by user {}, not by root or user {user}", meta.uid())));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(say(&format!("others may write to it (mode {:o})", meta.mode() & 0o7777)));
    }
    if meta.len() > MAX_SIZE {
        return Err(say(&format!("{} bytes are too many for an object", meta.len())));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE).read_to_end(&mut bytes).map_err(|e| say(&e))?;
    Ok(bytes)
}

/// Lays out the maps and compiles the programs.
fn prepare(object: &Object) -> Result<Policy, String> {
    let meta = &object.meta;
    if meta.params.len() > status::MAX_PARAMS {
        return Err(format!("{} parameters are too many", meta.params.len()));
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
        name => Err(format!("map `{name}` is none of ours")),
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
        if matches!(program.hook, Hook::Reply | Hook::Barrier) {
            return Err(format!("`on {}` is not in this runtime yet", program.hook));
        }
        let mut insns = program.insns.clone();
        for reloc in &program.relocs {
            let slot = reloc.slot as usize;
            let area = maps.get(reloc.map as usize).ok_or("a relocation names no map")?;
            let address = std::ptr::from_ref::<MapArea>(area) as u64;
            let Some([low, high]) = insns.get_mut(slot..slot.saturating_add(2)) else {
                return Err("a relocation lies outside its program".into());
            };
            low.src = 0;
            low.imm = address as u32 as i32;
            high.imm = (address >> 32) as i32;
        }
        let code = durac_jit::compile(&insns, helpers::ALL)
            .map_err(|e| format!("on {}: {e}", program.hook))?;
        policy.set_program(program.hook, Program { code });
    }
    Ok(policy)
}
