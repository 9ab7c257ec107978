//! What an object must be to be written, and to be read: the shape, not the meaning of the code
//! (that is `durac-verify`).

use crate::btf::identifier;
use crate::object::{EntryPoint, MAX_SLOTS, Map, Object, Program};
use crate::session::SESSION_MAP;
use crate::{ABI, MAX_LOGS, PARAMS_MAP, STATE_MAP};

/// Longest policy name, bytes: with the hook's name it stays below the kernel's limit for symbols
/// (`KSYM_NAME_LEN` was 128 until Linux 6.1).
pub const MAX_POLICY_NAME: usize = 100;
/// Greatest line that `.BTF.ext` can hold (22 bits).
const MAX_LINE: u32 = 0x3f_ffff;

/// Why an object cannot stand in a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It was made for another contract.
    #[error("the object has ABI {found}; this version of durac runs ABI {ABI}")]
    Abi {
        /// What it was made for.
        found: u32,
    },
    /// It has no program.
    #[error("the object has no program")]
    NoProgram,
    /// Two programs for one hook, or programs not in the order of their hooks.
    #[error("the programs must be one per hook, in the order of the hooks")]
    Hooks,
    /// A program with no instruction, or too many.
    #[error("the program of {hook} has {slots} slots; allowed are 1 to {MAX_SLOTS}")]
    Length {
        /// The program's hook.
        hook: &'static str,
        /// Its length.
        slots: usize,
    },
    /// A relocation that is not at a `lddw` of zero, or names no map, or is out of order.
    #[error("slot {slot} of the program of {hook} does not load the address of a map")]
    Reloc {
        /// The program's hook.
        hook: &'static str,
        /// Where the relocation is.
        slot: u32,
    },
    /// Lines out of order or out of range.
    #[error("the lines of the program of {hook} are not in order")]
    Lines {
        /// The program's hook.
        hook: &'static str,
    },
    /// A map of another name, or two of one name.
    #[error("unexpected or duplicate map `{name}`")]
    MapName {
        /// Its name.
        name: String,
    },
    /// A map with another number of entries than its kind has.
    #[error("the map `{name}` has the wrong number of entries: {entries}")]
    MapEntries {
        /// Its name.
        name: String,
        /// Its entries.
        entries: u32,
    },
    /// A map whose members are not those the note lists.
    #[error("the members of the map `{name}` differ from the note")]
    MapFields {
        /// Its name.
        name: String,
    },
    /// Kernel programs that are not those of this version.
    #[error("the object's kernel programs differ from this version's: compile the policy again")]
    Kernel,
    /// The functions that the programs are attached to are not those of the programs.
    #[error("the note does not name the function that the program of {hook} is attached to")]
    Entry {
        /// The program's hook.
        hook: &'static str,
    },
    /// A name or text that cannot stand in the file.
    #[error("the {what} is empty, too long, or contains a character that is not allowed")]
    Name {
        /// What it names.
        what: &'static str,
    },
}

/// Checks everything.
///
/// # Errors
/// The first rule that the object breaks.
pub fn check(object: &Object) -> Result<(), Invalid> {
    let found = object.meta.abi;
    if found != ABI {
        return Err(Invalid::Abi { found });
    }
    let policy = &object.meta.policy;
    if policy.is_empty() || policy.len() > MAX_POLICY_NAME {
        let what = "name of the policy";
        return Err(Invalid::Name { what });
    }
    if object.source.name.contains(['\0', '/']) {
        let what = "name of the source file";
        return Err(Invalid::Name { what });
    }
    if object.source.text.contains('\0') {
        let what = "source text";
        return Err(Invalid::Name { what });
    }
    if object.programs.is_empty() {
        return Err(Invalid::NoProgram);
    }
    if !object.programs.is_sorted_by(|a, b| a.hook < b.hook) {
        return Err(Invalid::Hooks);
    }
    for program in &object.programs {
        check_program(program, object)?;
        check_entry(program, object)?;
    }
    let has_program = |entry: &&EntryPoint| object.programs.iter().any(|p| p.hook == entry.hook);
    if let Some(entry) = object.meta.entries.iter().find(|entry| !has_program(entry)) {
        let hook = entry.hook.name();
        return Err(Invalid::Entry { hook });
    }
    let backend = object.meta.runtime.backend();
    if !object.kernel.is_empty() && !backend.counter().is_of(&object.kernel) {
        return Err(Invalid::Kernel);
    }
    for (index, map) in object.maps.iter().enumerate() {
        let mut earlier = object.maps.iter().take(index);
        if earlier.any(|other| other.name == map.name) {
            let name = map.name.clone();
            return Err(Invalid::MapName { name });
        }
        check_map(map, object)?;
    }
    Ok(())
}

fn check_program(program: &Program, object: &Object) -> Result<(), Invalid> {
    let hook = program.hook.name();
    let slots = program.insns.len();
    if slots == 0 || slots > MAX_SLOTS {
        return Err(Invalid::Length { hook, slots });
    }
    let mut next = 0;
    for reloc in &program.relocs {
        let slot = reloc.slot;
        let low = program.insns.get(slot as usize);
        let high = program.insns.get(slot as usize + 1);
        let good = slot >= next
            && low.is_some_and(|i| i.is_lddw() && i.src == 0 && i.offset == 0 && i.imm == 0)
            && high.is_some_and(|i| i.to_bytes() == [0; 8])
            && object.map(reloc.map).is_some();
        if !good {
            return Err(Invalid::Reloc { hook, slot });
        }
        next = slot + 2;
    }
    let good = program.lines.is_sorted_by(|a, b| a.slot < b.slot)
        && program.lines.iter().all(|line| line.line <= MAX_LINE)
        && program.lines.last().is_none_or(|l| (l.slot as usize) < slots);
    if !good {
        return Err(Invalid::Lines { hook });
    }
    Ok(())
}

/// Whether the note names one function for the program, where the runtime needs one.
fn check_entry(program: &Program, object: &Object) -> Result<(), Invalid> {
    let hook = program.hook.name();
    let bad = Err(Invalid::Entry { hook });
    let of = |entry: &&EntryPoint| entry.hook == program.hook;
    let mut entries = object.meta.entries.iter().filter(of);
    let entry = match (entries.next(), entries.next()) {
        (None, None) if !object.meta.runtime.backend().needs_entry() => return Ok(()),
        (Some(entry), None) => entry,
        _ => return bad,
    };
    let arguments = [entry.len, entry.fd, entry.failed].into_iter().flatten();
    let known = arguments.into_iter().all(|argument| argument.offset().is_some());
    let same = object.meta.entries.iter().filter(|other| other.symbol == entry.symbol).count();
    let good = known && same == 1 && !entry.symbol.is_empty() && !entry.symbol.contains('\0');
    if good { Ok(()) } else { bad }
}

fn check_map(map: &Map, object: &Object) -> Result<(), Invalid> {
    let name = map.name.clone();
    let session = crate::session::map();
    let (listed, entries): (Vec<&str>, _) = match map.name.as_str() {
        SESSION_MAP if object.meta.runtime.backend().has_session() => {
            (session.fields.iter().map(String::as_str).collect(), 1..=1)
        }
        PARAMS_MAP => {
            let params = object.meta.params.iter();
            (params.map(|p| p.name.as_str()).collect(), 1..=1)
        }
        STATE_MAP => {
            let state = object.meta.state.iter();
            (state.map(|s| s.name.as_str()).collect(), 1..=MAX_LOGS)
        }
        _ => return Err(Invalid::MapName { name }),
    };
    if !entries.contains(&map.max_entries) {
        let entries = map.max_entries;
        return Err(Invalid::MapEntries { name, entries });
    }
    // A member of the file is a C identifier, so names are compared as such.
    let same = listed.len() == map.fields.len()
        && listed.iter().zip(&map.fields).all(|(a, b)| identifier(a) == identifier(b));
    if !same || listed.is_empty() {
        return Err(Invalid::MapFields { name });
    }
    Ok(())
}
