//! DWARF 5 for the programs of an object, with the source text inside.
//!
//! `llvm-objdump -S` finds the text in the line table (`DW_LNCT_LLVM_source`), so that an object
//! shows its source on any machine and names no path of the machine it was made on.
//!
//! Here are the sections' bytes and their relocations; `elf` puts them into the file.

use durac_abi::object::{Line, Object, Program};
use gimli::write::{
    Address, AttributeValue, DwarfUnit, EndianVec, FileInfo, LineProgram, LineString, Range,
    RangeList, RelocateWriter, Relocation, RelocationTarget, Sections, Writer,
};
use gimli::{Encoding, Format, LineEncoding, LittleEndian, SectionId};

/// Greatest column that `.BTF.ext` can hold (10 bits); the line table is held to it as well, so
/// that both say the same.
const MAX_COLUMN: u32 = 0x3ff;

/// A debug section.
pub(crate) struct Section {
    /// Its name, `.debug_…`.
    pub name: &'static str,
    /// Its bytes, addends included.
    pub data: Vec<u8>,
    /// Where addresses go.
    pub relocs: Vec<Reloc>,
}

/// A place in a debug section that holds an address.
pub(crate) struct Reloc {
    /// Byte offset in the section.
    pub offset: u64,
    /// Size in bytes: 4 or 8.
    pub size: u8,
    /// What the address is relative to.
    pub target: RelocTarget,
}

/// What an address is relative to.
pub(crate) enum RelocTarget {
    /// The code of a program, by its index.
    Program(usize),
    /// The start of another debug section, by its name.
    Section(&'static str),
}

/// The lines of a program as they stand in the debug information: from slot 0 on, with columns
/// that fit.
pub(crate) fn lines(program: &Program) -> Vec<Line> {
    let mut lines = program.lines.clone();
    // The kernel wants a place for the first instruction.
    if lines.first().is_some_and(|first| first.slot > 0) {
        let (slot, line, column) = (0, 0, 0);
        lines.insert(0, Line { slot, line, column });
    }
    for line in &mut lines {
        line.column = line.column.min(MAX_COLUMN);
    }
    lines
}

/// The debug sections of an object: none if its source has no name.
pub(crate) fn sections(
    object: &Object,
    functions: &[String],
) -> gimli::write::Result<Vec<Section>> {
    if object.source.name.is_empty() {
        return Ok(Vec::new());
    }
    let encoding = Encoding { format: Format::Dwarf32, version: 5, address_size: 8 };
    let mut dwarf = DwarfUnit::new(encoding);
    dwarf.unit.line_program = line_program(object, &mut dwarf, encoding);

    let root = dwarf.unit.root();
    let producer = dwarf.strings.add(concat!("durac ", env!("CARGO_PKG_VERSION")));
    let name = dwarf.strings.add(object.source.name.as_bytes());
    let directory = dwarf.strings.add(".");
    let ranges = object.programs.iter().enumerate().map(|(index, program)| {
        let (begin, length) = (start(index), code_size(program));
        Range::StartLength { begin, length }
    });
    let ranges = dwarf.unit.ranges.add(RangeList(ranges.collect()));
    let unit = dwarf.unit.get_mut(root);
    unit.set(gimli::DW_AT_producer, AttributeValue::StringRef(producer));
    // No language code is ours; C is what every tool knows.
    let language = AttributeValue::Language(gimli::DW_LANG_C11);
    unit.set(gimli::DW_AT_language, language);
    unit.set(gimli::DW_AT_name, AttributeValue::StringRef(name));
    unit.set(gimli::DW_AT_comp_dir, AttributeValue::StringRef(directory));
    let zero = AttributeValue::Address(Address::Constant(0));
    unit.set(gimli::DW_AT_low_pc, zero);
    unit.set(gimli::DW_AT_ranges, AttributeValue::RangeListRef(ranges));

    for (index, program) in object.programs.iter().enumerate() {
        let name = functions.get(index).map_or("", String::as_str);
        let name = dwarf.strings.add(name);
        let line = program.lines.iter().map(|l| l.line).find(|line| *line > 0);
        let id = dwarf.unit.add(root, gimli::DW_TAG_subprogram);
        let entry = dwarf.unit.get_mut(id);
        entry.set(gimli::DW_AT_name, AttributeValue::StringRef(name));
        let low = AttributeValue::Address(start(index));
        entry.set(gimli::DW_AT_low_pc, low);
        let size = AttributeValue::Udata(code_size(program));
        entry.set(gimli::DW_AT_high_pc, size);
        let line = u64::from(line.unwrap_or(0));
        entry.set(gimli::DW_AT_decl_line, AttributeValue::Udata(line));
        entry.set(gimli::DW_AT_external, AttributeValue::Flag(true));
    }

    let mut out = Sections::new(Recorder::default());
    dwarf.write(&mut out)?;
    let mut sections = Vec::new();
    out.for_each_mut(|id, recorder| {
        if recorder.len() > 0 {
            sections.push(recorder.section(id)?);
        }
        gimli::write::Result::Ok(())
    })?;
    Ok(sections)
}

/// The line table.
fn line_program(object: &Object, dwarf: &mut DwarfUnit, encoding: Encoding) -> LineProgram {
    let mut string = |text: &str| LineString::new(text, encoding, &mut dwarf.line_strings);
    let (directory, name) = (string("."), string(&object.source.name));
    // The text comes third in `.debug_line_str`: `source` finds it there.
    let text = (!object.source.text.is_empty()).then(|| string(&object.source.text));
    let has_source = text.is_some();
    let info = FileInfo { source: text, ..FileInfo::default() };
    let line_encoding = LineEncoding { minimum_instruction_length: 8, ..LineEncoding::default() };
    let mut table = LineProgram::new(
        encoding,
        line_encoding,
        directory,
        None,
        name.clone(),
        Some(info.clone()),
    );
    table.file_has_source = has_source;
    let file = table.add_file(name, table.default_directory(), Some(info));
    for (index, program) in object.programs.iter().enumerate() {
        let lines = lines(program);
        if lines.is_empty() {
            continue;
        }
        table.begin_sequence(Some(start(index)));
        for line in lines {
            let row = table.row();
            row.address_offset = 8 * u64::from(line.slot);
            row.file = file;
            row.line = line.line.into();
            row.column = line.column.into();
            table.generate_row();
        }
        table.end_sequence(code_size(program));
    }
    table
}

fn start(program: usize) -> Address {
    Address::Symbol { symbol: program, addend: 0 }
}

fn code_size(program: &Program) -> u64 {
    8 * program.insns.len() as u64
}

/// A writer that remembers where addresses went.
#[derive(Clone)]
struct Recorder {
    data: EndianVec<LittleEndian>,
    relocs: Vec<Relocation>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { data: EndianVec::new(LittleEndian), relocs: Vec::new() }
    }
}

impl RelocateWriter for Recorder {
    type Writer = EndianVec<LittleEndian>;

    fn writer(&self) -> &Self::Writer {
        &self.data
    }

    fn writer_mut(&mut self) -> &mut Self::Writer {
        &mut self.data
    }

    fn relocate(&mut self, relocation: Relocation) {
        self.relocs.push(relocation);
    }
}

impl Recorder {
    /// The section as data. BPF relocations have no addend of their own (`SHT_REL`), so it goes
    /// into the bytes.
    fn section(&mut self, id: SectionId) -> gimli::write::Result<Section> {
        for reloc in &self.relocs {
            let addend = reloc.addend as u64;
            self.data.write_udata_at(reloc.offset, addend, reloc.size)?;
        }
        let relocs = self.relocs.iter().map(|reloc| Reloc {
            offset: reloc.offset as u64,
            size: reloc.size,
            target: match reloc.target {
                RelocationTarget::Symbol(program) => RelocTarget::Program(program),
                RelocationTarget::Section(id) => RelocTarget::Section(id.name()),
            },
        });
        Ok(Section { name: id.name(), relocs: relocs.collect(), data: self.data.take() })
    }
}
