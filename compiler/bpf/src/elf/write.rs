//! From an [`Object`] to the bytes of a file.

use super::{R_BPF_64_ABS32, R_BPF_64_ABS64, function_names};
use crate::{btf, dwarf, note};
use durac_abi::btf::MAP_DEFINITION;
use durac_abi::elf::{self as format, Invalid, LICENSE, LICENSE_SECTION, MAX_SIZE, R_BPF_64_64};
use durac_abi::note::SECTION as NOTE_SECTION;
use durac_abi::object::{Object, Program, Reloc};
use durac_abi::{Insn, sum};
use object::write::{Object as Elf, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope, elf,
};

/// Why an object could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The object is not what one must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The file would be larger than [`MAX_SIZE`].
    #[error("the object has {size} bytes, more than {MAX_SIZE}")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// The note cannot be written as JSON.
    #[error("the note cannot be written: {0}")]
    Note(#[from] serde_json::Error),
    /// The debug information cannot be written.
    #[error("the debug information cannot be written: {0}")]
    Dwarf(#[from] gimli::write::Error),
    /// The ELF file cannot be written.
    #[error("the file cannot be laid out: {0}")]
    Elf(#[from] object::write::Error),
}

/// The bytes of the object file.
///
/// # Errors
/// When the object breaks a rule that [`durac_abi::elf::read`] would refuse, or is too large.
pub fn write(object: &Object) -> Result<Vec<u8>, WriteError> {
    format::check(object)?;
    let functions = function_names(object);
    let mut file = Elf::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);

    let all = add_programs(&mut file, object, &functions);
    let all_maps = add_maps(&mut file, object);
    let (programs, kernel) = all.split_at_checked(object.programs.len()).unwrap_or((&all, &[]));
    let kernel_maps = all_maps.get(object.maps.len()..).unwrap_or_default();
    for (program, (section, _)) in object.programs.iter().zip(programs) {
        relocate_maps(&mut file, *section, &program.relocs, &all_maps)?;
    }
    for (program, (section, _)) in object.kernel.iter().zip(kernel) {
        relocate_maps(&mut file, *section, &program.relocs, kernel_maps)?;
    }

    let license = add_section(&mut file, LICENSE_SECTION, SectionKind::Data, LICENSE, 1);
    let size = LICENSE.len() as u64;
    add_symbol(&mut file, "_license", license, 0, size, SymbolKind::Data);

    let btf = btf::encode(object, &functions);
    add_section(&mut file, ".BTF", SectionKind::Other, &btf.btf, 4);
    add_section(&mut file, ".BTF.ext", SectionKind::Other, &btf.ext, 4);
    let note = note::encode(&object.meta)?;
    add_section(&mut file, NOTE_SECTION, SectionKind::Note, &note, 4);
    let sum = sum::encode(object, &note);
    add_section(&mut file, sum::SECTION, SectionKind::Note, &sum, 4);
    add_debug(&mut file, object, &functions, programs)?;

    let bytes = file.write()?;
    let size = bytes.len();
    if size > MAX_SIZE {
        return Err(WriteError::TooLarge { size });
    }
    Ok(bytes)
}

/// Code sections and their functions.
fn add_programs(
    file: &mut Elf<'_>,
    object: &Object,
    functions: &[String],
) -> Vec<(SectionId, SymbolId)> {
    let mut added = Vec::new();
    let section = |p: &Program| p.hook.section(object.meta.runtime);
    let hooks = object.programs.iter().map(|p| (section(p), &p.insns));
    let kernel = object.kernel.iter().map(|p| (p.section, &p.insns));
    for ((name_of_section, insns), name) in hooks.chain(kernel).zip(functions) {
        let code: Vec<u8> = insns.iter().copied().flat_map(Insn::to_bytes).collect();
        let section = add_section(file, name_of_section, SectionKind::Text, &code, 8);
        let size = code.len() as u64;
        let symbol = add_symbol(file, name, section, 0, size, SymbolKind::Text);
        added.push((section, symbol));
    }
    added
}

/// The section `.maps`: a definition is all zeros, its types say what it is.
fn add_maps(file: &mut Elf<'_>, object: &Object) -> Vec<SymbolId> {
    let mut names: Vec<&str> = object.maps.iter().map(|map| map.name.as_str()).collect();
    if !object.kernel.is_empty() {
        names.extend(object.meta.runtime.backend().counter().maps().iter().map(|map| map.name));
    }
    if names.is_empty() {
        return Vec::new();
    }
    let zeros = vec![0; names.len() * MAP_DEFINITION as usize];
    let section = add_section(file, ".maps", SectionKind::Data, &zeros, 8);
    let size = u64::from(MAP_DEFINITION);
    let mut symbols = Vec::new();
    for (offset, name) in (0..).step_by(MAP_DEFINITION as usize).zip(names) {
        let symbol = add_symbol(file, name, section, offset, size, SymbolKind::Data);
        symbols.push(symbol);
    }
    symbols
}

/// Debug sections, with addresses relative to the functions and to each other.
fn add_debug(
    file: &mut Elf<'_>,
    object: &Object,
    functions: &[String],
    programs: &[(SectionId, SymbolId)],
) -> Result<(), WriteError> {
    let sections = dwarf::sections(object, functions)?;
    let mut added = Vec::new();
    for section in &sections {
        let kind = match section.name {
            ".debug_str" | ".debug_line_str" => SectionKind::DebugString,
            _ => SectionKind::Debug,
        };
        let id = add_section(file, section.name, kind, &section.data, 1);
        added.push((section.name, id));
    }
    for (section, (_, id)) in sections.iter().zip(&added) {
        for reloc in &section.relocs {
            let symbol = match reloc.target {
                dwarf::RelocTarget::Program(index) => {
                    programs.get(index).map(|(_, symbol)| *symbol)
                }
                dwarf::RelocTarget::Section(name) => {
                    let target = added.iter().find(|(other, _)| *other == name);
                    target.map(|(_, id)| file.section_symbol(*id))
                }
            };
            let kind = match reloc.size {
                8 => R_BPF_64_ABS64,
                _ => R_BPF_64_ABS32,
            };
            if let Some(symbol) = symbol {
                relocate(file, *id, reloc.offset, symbol, kind)?;
            }
        }
    }
    Ok(())
}

/// Where a program loads the address of a map.
fn relocate_maps(
    file: &mut Elf<'_>,
    section: SectionId,
    relocs: &[Reloc],
    maps: &[SymbolId],
) -> Result<(), WriteError> {
    for reloc in relocs {
        if let Some(symbol) = maps.get(reloc.map as usize) {
            relocate(file, section, 8 * u64::from(reloc.slot), *symbol, R_BPF_64_64)?;
        }
    }
    Ok(())
}

fn add_section(
    file: &mut Elf<'_>,
    name: &str,
    kind: SectionKind,
    data: &[u8],
    align: u64,
) -> SectionId {
    let section = file.add_section(Vec::new(), name.as_bytes().to_vec(), kind);
    file.set_section_data(section, data.to_vec(), align);
    section
}

fn add_symbol(
    file: &mut Elf<'_>,
    name: &str,
    section: SectionId,
    value: u64,
    size: u64,
    kind: SymbolKind,
) -> SymbolId {
    file.add_symbol(Symbol {
        name: name.as_bytes().to_vec(),
        value,
        size,
        kind,
        // Global: libbpf takes a function for a program only if it is.
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    })
}

fn relocate(
    file: &mut Elf<'_>,
    section: SectionId,
    offset: u64,
    symbol: SymbolId,
    kind: u32,
) -> Result<(), WriteError> {
    let relocation = Relocation {
        offset,
        symbol,
        addend: 0,
        flags: RelocationFlags::Elf { r_type: elf::RelocationType(kind) },
    };
    file.add_relocation(section, relocation)?;
    Ok(())
}
