//! From the bytes of a file to an [`Object`].
//!
//! The bytes are not trusted. What is not known is refused: a section, a relocation, a symbol
//! that a policy has no use for. Debug information may be missing (`llvm-strip -g`).

use super::rules::{self, Invalid};
use super::{MAX_SIZE, R_BPF_64_64};
use crate::btf::read::{BtfError, MapDefinition, MapKind, Types};
use crate::insn::Insn;
use crate::note::{self, NoteError};
use crate::notify::{Attach, Counter, KernelProgram};
use crate::object::{MAX_SLOTS, Map, Object, Program, Reloc, Source};
use crate::sum;
use crate::{Hook, Runtime};
use object::LittleEndian as Le;
use object::elf::{self, FileHeader64, Rel64, SectionHeader64};
use object::read::elf::{FileHeader as _, Rel as _, SectionHeader as _, Sym as _};
use object::read::{SectionIndex, SymbolIndex};
use std::collections::BTreeMap;

/// Sections a file may have, besides code, relocations and the tables of the format itself.
const KNOWN: [&str; 14] = [
    "",
    ".BTF",
    ".BTF.ext",
    ".debug_abbrev",
    ".debug_info",
    ".debug_line",
    ".debug_line_str",
    ".debug_rnglists",
    ".debug_str",
    ".maps",
    ".shstrtab",
    ".strtab",
    ".symtab",
    super::LICENSE_SECTION,
];

/// Why an object could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file is larger than [`MAX_SIZE`].
    #[error("the file has {size} bytes; an object has at most {MAX_SIZE}")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// It is not an ELF file.
    #[error("this is not an ELF object file")]
    NotElf,
    /// It is an ELF file of another kind.
    #[error(
        "this is not a durac policy object: it is not a relocatable ELF file for little-endian BPF"
    )]
    NotBpf,
    /// The file's structure is damaged.
    #[error("the object is damaged: {0}")]
    Elf(#[from] object::read::Error),
    /// A section no policy has.
    #[error("unexpected or duplicate section `{name}`")]
    Section {
        /// Its name.
        name: String,
    },
    /// A section that must be there.
    #[error("the section `{name}` is missing")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// A code section that is not one whole function of at most [`MAX_SLOTS`] slots.
    #[error("the section `{section}` must hold one function of 1 to {MAX_SLOTS} instructions")]
    Code {
        /// Its name.
        section: &'static str,
    },
    /// A relocation that is not of a `lddw` and a map.
    #[error("the section `{section}` has a relocation that does not name a map")]
    Reloc {
        /// The code section.
        section: &'static str,
    },
    /// The types or lines.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Its checksum is another one.
    #[error("the object was changed after it was compiled: its checksum does not match")]
    Changed,
    /// All of it can be read, but it does not fit together.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

type Header = FileHeader64<Le>;
type Symbols<'a> = object::read::elf::SymbolTable<'a, Header>;

/// Reads an object file, of any origin.
///
/// # Errors
/// When it is not a policy object of this ABI; never panics. What the code does is not looked at:
/// `durac_verify::verify` does that.
pub fn read(bytes: &[u8]) -> Result<Object, ReadError> {
    let size = bytes.len();
    if size > MAX_SIZE {
        return Err(ReadError::TooLarge { size });
    }
    let table = header(bytes)?.sections(Le, bytes)?;
    let symbols = table.symbols(Le, bytes, elf::SHT_SYMTAB)?;

    let mut sections = BTreeMap::new();
    let mut code = Vec::new();
    let mut kernel_code = BTreeMap::new();
    let mut relocs = BTreeMap::new();
    for (index, section) in table.enumerate() {
        let name = std::str::from_utf8(table.section_name(Le, section)?).unwrap_or("?");
        let data = section.data(Le, bytes)?;
        let duplicate = if let Some((runtime, hook)) = program_of(name) {
            code.push((hook, runtime, index, data));
            code.iter().filter(|(other, ..)| *other == hook).count() > 1
        } else if let Some(section) = kernel_section(name) {
            kernel_code.insert(section, (index, data)).is_some()
        } else if let Some(target) = name.strip_prefix(".rel") {
            let known = program_of(target).is_some()
                || kernel_section(target).is_some()
                || target.starts_with(".debug_");
            !known || relocs.insert(target, section).is_some()
        } else {
            let known = KNOWN.contains(&name) || [note::SECTION, sum::SECTION].contains(&name);
            !known || sections.insert(name, (index, data)).is_some()
        };
        if duplicate {
            let name = name.to_owned();
            return Err(ReadError::Section { name });
        }
    }
    let data = |name: &str| sections.get(name).map(|(_, data)| *data);

    let name = note::SECTION;
    let note = data(name).ok_or(ReadError::Missing { name })?;
    let meta = note::decode(note)?;

    let types = data(".BTF").map(Types::parse).transpose()?;
    let definitions = types.as_ref().map_or(Ok(Vec::new()), Types::maps)?;
    let maps_index = sections.get(".maps").map(|(index, _)| *index);
    let lines = match (&types, data(".BTF.ext")) {
        (Some(types), Some(ext)) => types.lines(ext)?,
        _ => Vec::new(),
    };

    let counter = meta.runtime.backend().counter();
    let seen = |at| policy_index(counter, &definitions, at);
    let of_kernel = |at| kernel_index(counter, &definitions, at);
    code.sort_by_key(|(hook, ..)| *hook);
    let mut programs = Vec::new();
    for (hook, runtime, index, data) in code {
        let section = hook.section(runtime);
        if runtime != meta.runtime {
            let name = section.to_owned();
            return Err(ReadError::Section { name });
        }
        if !is_function(&symbols, index, data.len()) {
            return Err(ReadError::Code { section });
        }
        let insns = instructions(data).ok_or(ReadError::Code { section })?;
        let relocs = match relocs.get(section) {
            Some(header) => relocations(header, bytes, index)
                .and_then(|r| program_relocs(r, &symbols, maps_index, &definitions, &seen))
                .ok_or(ReadError::Reloc { section })?,
            None => Vec::new(),
        };
        let lines = lines.iter().find(|l| l.section == section);
        programs.push(Program {
            hook,
            insns,
            relocs,
            lines: lines.map(|l| l.lines.clone()).unwrap_or_default(),
        });
    }

    let (name, text) = data(".debug_line_str")
        .and_then(source)
        .or_else(|| lines.first().map(|lines| (lines.file, "")))
        .unwrap_or_default();
    let fields = match (&types, data(".BTF.ext")) {
        (Some(types), Some(ext)) => types.fields(ext)?,
        _ => Vec::new(),
    };
    let mut kernel = Vec::new();
    for section in kernel_sections() {
        let Some(&(index, data)) = kernel_code.get(section) else { continue };
        if !is_function(&symbols, index, data.len()) {
            return Err(ReadError::Code { section });
        }
        let insns = instructions(data).ok_or(ReadError::Code { section })?;
        let relocs = match relocs.get(section) {
            Some(header) => relocations(header, bytes, index)
                .and_then(|r| program_relocs(r, &symbols, maps_index, &definitions, &of_kernel))
                .ok_or(ReadError::Reloc { section })?,
            None => Vec::new(),
        };
        let fields = fields.iter().find(|(of, _)| *of == section);
        let fields = fields.map(|(_, fields)| fields.clone()).unwrap_or_default();
        kernel.push(KernelProgram { section, insns, relocs, fields });
    }
    let mut of_kernel = definitions.iter().filter_map(|d| match d.kind {
        MapKind::Kernel(counter, _) => Some(counter),
        MapKind::Policy(_) => None,
    });
    let has_maps = of_kernel.clone().next().is_some();
    if has_maps == kernel.is_empty() || of_kernel.any(|of| of != counter) {
        return Err(Invalid::Kernel.into());
    }

    let object = Object {
        programs,
        maps: definitions.into_iter().filter_map(MapDefinition::of_policy).collect(),
        kernel,
        meta,
        source: Source { name: name.to_owned(), text: text.to_owned() },
    };
    rules::check(&object)?;
    let name = sum::SECTION;
    let sum = data(name).ok_or(ReadError::Missing { name })?;
    if sum != sum::encode(&object, note) {
        return Err(ReadError::Changed);
    }
    Ok(object)
}

impl MapDefinition {
    fn of_policy(self) -> Option<Map> {
        match self.kind {
            MapKind::Policy(map) => Some(map),
            MapKind::Kernel(..) => None,
        }
    }
}

/// Of the definition at `at`, its index among the maps that the policy's programs see.
fn policy_index(counter: Counter, definitions: &[MapDefinition], at: usize) -> Option<usize> {
    let is_policy = |d: &&MapDefinition| matches!(d.kind, MapKind::Policy(_));
    match definitions.get(at)?.kind {
        MapKind::Policy(_) => Some(definitions.iter().take(at).filter(is_policy).count()),
        MapKind::Kernel(of, index) if of == counter && counter.is_shared_with_the_policy() => {
            Some(definitions.iter().filter(is_policy).count() + index)
        }
        MapKind::Kernel(..) => None,
    }
}

/// Of the definition at `at`, its index among the maps of the kernel's programs.
fn kernel_index(counter: Counter, definitions: &[MapDefinition], at: usize) -> Option<usize> {
    match definitions.get(at)?.kind {
        MapKind::Kernel(of, index) => (of == counter).then_some(index),
        MapKind::Policy(_) => None,
    }
}

/// The sections of the kernel's programs, in their order.
fn kernel_sections() -> impl Iterator<Item = &'static str> {
    Attach::ALL.into_iter().flat_map(Attach::sections)
}

fn kernel_section(name: &str) -> Option<&'static str> {
    kernel_sections().find(|section| *section == name)
}

/// The bytes of the section of that name, in a file that [`read`] has taken.
pub(super) fn section<'a>(bytes: &'a [u8], name: &'static str) -> Result<&'a [u8], ReadError> {
    let table = header(bytes)?.sections(Le, bytes)?;
    let found = table.section_by_name(Le, name.as_bytes());
    let (_, section) = found.ok_or(ReadError::Missing { name })?;
    Ok(section.data(Le, bytes)?)
}

/// The header, if the file is of the kind we write.
fn header(bytes: &[u8]) -> Result<&Header, ReadError> {
    if !bytes.starts_with(&elf::ELFMAG) {
        return Err(ReadError::NotElf);
    }
    let header = Header::parse(bytes).map_err(|_| ReadError::NotBpf)?;
    let good = header.endian().is_ok()
        && header.e_machine(Le) == elf::EM_BPF
        && header.e_type(Le) == elf::ET_REL;
    good.then_some(header).ok_or(ReadError::NotBpf)
}

/// The runtime and the hook of a code section.
fn program_of(section: &str) -> Option<(Runtime, Hook)> {
    let hooks = Hook::PROGRAMS.into_iter();
    let all = Runtime::ALL.into_iter().flat_map(|r| hooks.clone().map(move |h| (r, h)));
    all.into_iter().find(|(runtime, hook)| hook.section(*runtime) == section)
}

/// Whether exactly one symbol is a function in that section, and it is all of it.
fn is_function(symbols: &Symbols<'_>, section: SectionIndex, size: usize) -> bool {
    let mut functions = symbols.iter().filter(|symbol| {
        symbol.st_type() == elf::STT_FUNC && symbol_section(symbol) == Some(section)
    });
    let whole = functions.next().is_some_and(|symbol| {
        symbol.st_bind() == elf::STB_GLOBAL
            && symbol.st_value(Le) == 0
            && symbol.st_size(Le) == size as u64
    });
    whole && functions.next().is_none()
}

fn symbol_section(symbol: &elf::Sym64<Le>) -> Option<SectionIndex> {
    let index = usize::from(symbol.st_shndx(Le).0);
    (index != 0).then_some(SectionIndex(index))
}

fn instructions(code: &[u8]) -> Option<Vec<Insn>> {
    let (slots, rest) = code.as_chunks();
    let good = rest.is_empty() && (1..=MAX_SLOTS).contains(&slots.len());
    good.then(|| slots.iter().copied().map(Insn::from_bytes).collect())
}

/// The entries of a relocation section; none if it is not one for the section `target`.
fn relocations<'a>(
    header: &SectionHeader64<Le>,
    bytes: &'a [u8],
    target: SectionIndex,
) -> Option<&'a [Rel64<Le>]> {
    let (entries, _) = header.rel(Le, bytes).ok()??;
    (header.sh_info(Le) as usize == target.0).then_some(entries)
}

/// The relocations of a program, in order; none if one is not of a map.
fn program_relocs(
    entries: &[Rel64<Le>],
    symbols: &Symbols<'_>,
    maps: Option<SectionIndex>,
    definitions: &[MapDefinition],
    index: &dyn Fn(usize) -> Option<usize>,
) -> Option<Vec<Reloc>> {
    let mut relocs = Vec::new();
    for entry in entries {
        let offset = entry.r_offset(Le);
        let symbol = symbols.symbol(SymbolIndex(entry.r_sym(Le) as usize)).ok()?;
        let name = symbols.symbol_name(Le, symbol).ok()?;
        let at_slot = offset % 8 == 0 && entry.r_type(Le).0 == R_BPF_64_64;
        if !at_slot || symbol_section(symbol) != Some(maps?) {
            return None;
        }
        let map = definitions.iter().position(|definition| {
            definition.name.as_bytes() == name
                && u64::from(definition.offset) == symbol.st_value(Le)
        })?;
        let map = index(map)?;
        relocs.push(Reloc { slot: (offset / 8).try_into().ok()?, map: map.try_into().ok()? });
    }
    Some(relocs)
}

/// The source's name and text in a `.debug_line_str` that `durac-bpf` made.
fn source(line_str: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(line_str).ok()?;
    let mut strings = text.split('\0').skip(1);
    let name = strings.next()?;
    Some((name, strings.next().unwrap_or("")))
}
