//! Decodes the parts of `.BTF` and `.BTF.ext` that an [`crate::Object`] is made of.
//!
//! The bytes are not trusted: every access is bounded, every number checked, and a type is looked
//! up by its number in a table, so that a type that contains itself does no harm.

use super::{
    CORE_RELO, EXT_HEADER, FIELD_BYTE_OFFSET, FUNC_INFO, HEADER, KIND_ARRAY, KIND_DATASEC,
    KIND_FUNC, KIND_FUNC_PROTO, KIND_INT, KIND_PTR, KIND_STRUCT, KIND_VAR, LINE_INFO, MAGIC,
    MAP_MMAPABLE, MAP_TYPE_ARRAY, VERSION,
};
use crate::notify::{Counter, Field, FieldReloc, KernelMap, STRUCTS};
use crate::object::{Line, Map};

/// Why type information could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// A header or a record is cut off or says what it cannot say.
    #[error("the section {section} is damaged")]
    Malformed {
        /// `.BTF` or `.BTF.ext`.
        section: &'static str,
    },
    /// A type that objects of this ABI do not have.
    #[error("the section .BTF has a type of unexpected kind {kind}")]
    Kind {
        /// Its number, as in `enum BTF_KIND_*`.
        kind: u32,
    },
    /// A map that is not an array of `u64` members with `u32` keys.
    #[error("the map `{name}` is not a mappable array of structs of `unsigned long long`")]
    Map {
        /// Its name.
        name: String,
    },
}

const MALFORMED: BtfError = BtfError::Malformed { section: ".BTF" };
const MALFORMED_EXT: BtfError = BtfError::Malformed { section: ".BTF.ext" };

/// A map and its place in `.maps`.
pub(crate) struct MapDefinition {
    /// Byte offset in `.maps`.
    pub offset: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: MapKind,
}

/// What a map is.
pub(crate) enum MapKind {
    /// One of the policy's.
    Policy(Map),
    /// One of the kernel's programs: its index in [`Counter::maps`].
    Kernel(Counter, usize),
}

/// A map's definition, as far as it is understood.
struct Definition {
    kind: u32,
    entries: u32,
    flags: u32,
    key: u32,
    value: u32,
}

/// The lines of one section.
pub(crate) struct Lines<'a> {
    /// Name of the code section.
    pub section: &'a str,
    /// Name of the source file.
    pub file: &'a str,
    /// The lines, in the order of the file.
    pub lines: Vec<Line>,
}

/// The contents of `.BTF`.
pub(crate) struct Types<'a> {
    types: Vec<Type<'a>>,
    strings: &'a [u8],
}

#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    kind: u32,
    size_or_type: u32,
    /// What follows the three words all types have.
    rest: &'a [u8],
}

impl<'a> Types<'a> {
    /// Reads the section.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let body = body(bytes, HEADER).ok_or(MALFORMED)?;
        let word = |index: usize| word(bytes, 8 + 4 * index);
        let (types_at, types_size, strings_at, strings_size) =
            (|| Some((word(0)?, word(1)?, word(2)?, word(3)?)))().ok_or(MALFORMED)?;
        let mut rest = slice(body, types_at, types_size).ok_or(MALFORMED)?;
        let strings = slice(body, strings_at, strings_size).ok_or(MALFORMED)?;
        let mut types = Vec::new();
        while !rest.is_empty() {
            let (this, next) = Type::parse(rest)?;
            types.push(this);
            rest = next;
        }
        Ok(Self { types, strings })
    }

    /// The maps of the section `.maps`, in its order.
    pub(crate) fn maps(&self) -> Result<Vec<MapDefinition>, BtfError> {
        let mut maps = Vec::new();
        let is_maps = |t: &&Type<'a>| t.kind == KIND_DATASEC && self.name(t.name) == Some(".maps");
        let Some(section) = self.types.iter().find(is_maps) else {
            return Ok(maps);
        };
        for record in words::<3>(section.rest) {
            let [variable, offset, _size] = record;
            let variable = self.get(variable, KIND_VAR).ok_or(MALFORMED)?;
            let name = self.name(variable.name).ok_or(MALFORMED)?.to_owned();
            let definition = self.definition(variable.size_or_type);
            let kind = definition.and_then(|definition| match kernel_map(&name) {
                Some((counter, index, map)) => {
                    self.is_kernel_map(&definition, map).then_some(MapKind::Kernel(counter, index))
                }
                None => self.map(&name, &definition).map(MapKind::Policy),
            });
            let Some(kind) = kind else {
                return Err(BtfError::Map { name });
            };
            maps.push(MapDefinition { offset, name, kind });
        }
        Ok(maps)
    }

    /// The policy's map with that definition, if it is of our shape.
    fn map(&self, name: &str, definition: &Definition) -> Option<Map> {
        let Definition { kind, entries, flags, key, value } = *definition;
        if (kind, flags) != (MAP_TYPE_ARRAY, MAP_MMAPABLE) || !self.is_unsigned(key, 4) {
            return None;
        }
        let fields = self.record(value)?;
        Some(Map { name: name.to_owned(), max_entries: entries, fields })
    }

    /// Whether it is the definition of that map of the kernel's programs.
    fn is_kernel_map(&self, definition: &Definition, map: &KernelMap) -> bool {
        let Definition { kind, entries, flags, key, value } = *definition;
        let same = |id, names: &[&str]| self.record(id).is_some_and(|found| found == names);
        let key = if map.key.is_empty() { self.is_unsigned(key, 4) } else { same(key, map.key) };
        (kind, entries, flags) == (map.kind, map.max_entries, map.flags)
            && key
            && same(value, map.fields)
    }

    /// The parts of the definition of that type.
    fn definition(&self, definition: u32) -> Option<Definition> {
        let definition = self.get(definition, KIND_STRUCT)?;
        let (mut kind, mut entries, mut flags) = (None, None, None);
        let (mut key, mut value) = (None, None);
        for [name, of, _offset] in words::<3>(definition.rest) {
            let target = self.get(of, KIND_PTR)?.size_or_type;
            let number = || {
                let array = self.get(target, KIND_ARRAY)?;
                words::<3>(array.rest).next().map(|[_, _, length]| length)
            };
            match self.name(name)? {
                "type" => kind = number(),
                "max_entries" => entries = number(),
                "map_flags" => flags = number(),
                "key" => key = Some(target),
                "value" => value = Some(target),
                _ => return None,
            }
        }
        Some(Definition { kind: kind?, entries: entries?, flags: flags?, key: key?, value: value? })
    }

    /// The members of a structure of 8-byte numbers.
    fn record(&self, id: u32) -> Option<Vec<String>> {
        let value = self.get(id, KIND_STRUCT)?;
        let mut fields = Vec::new();
        let mut at = 0;
        for [name, of, offset] in words::<3>(value.rest) {
            if offset != at || !self.is_unsigned(of, 8) {
                return None;
            }
            fields.push(self.name(name)?.to_owned());
            at = at.checked_add(64)?;
        }
        (value.size_or_type == at / 8).then_some(fields)
    }

    fn is_unsigned(&self, id: u32, bytes: u32) -> bool {
        self.get(id, KIND_INT).is_some_and(|int| {
            int.size_or_type == bytes && words::<1>(int.rest).next() == Some([8 * bytes])
        })
    }

    fn get(&self, id: u32, kind: u32) -> Option<Type<'a>> {
        let index = (id as usize).checked_sub(1)?;
        self.types.get(index).copied().filter(|t| t.kind == kind)
    }

    fn name(&self, offset: u32) -> Option<&'a str> {
        let text = self.strings.get(offset as usize..)?;
        let text = text.split(|byte| *byte == 0).next()?;
        std::str::from_utf8(text).ok()
    }

    /// The lines of a `.BTF.ext` that refers to these strings.
    pub(crate) fn lines(&self, ext: &'a [u8]) -> Result<Vec<Lines<'a>>, BtfError> {
        self.lines_of(ext).ok_or(MALFORMED_EXT)
    }

    /// The fields of the kernel's structures that instructions name, by section.
    pub(crate) fn fields(
        &self,
        ext: &'a [u8],
    ) -> Result<Vec<(&'a str, Vec<FieldReloc>)>, BtfError> {
        self.fields_of(ext).ok_or(MALFORMED_EXT)
    }

    /// The `struct bpf_func_info`s of each code section.
    pub(crate) fn functions(&self, ext: &'a [u8]) -> Result<Vec<(&'a str, &'a [u8])>, BtfError> {
        self.records(ext, 8, FUNC_INFO).ok_or(MALFORMED_EXT)
    }

    /// The `struct bpf_core_relo`s of each code section.
    pub(crate) fn field_records(
        &self,
        ext: &'a [u8],
    ) -> Result<Vec<(&'a str, &'a [u8])>, BtfError> {
        self.records(ext, 24, CORE_RELO).ok_or(MALFORMED_EXT)
    }

    /// The records of each code section in the table of a `.BTF.ext` whose offset is at `at`.
    fn records(&self, ext: &'a [u8], at: usize, size: u32) -> Option<Vec<(&'a str, &'a [u8])>> {
        let body = body(ext, EXT_HEADER)?;
        let table = slice(body, word(ext, at)?, word(ext, at + 4)?)?;
        let mut sections = Vec::new();
        if table.is_empty() {
            return Some(sections);
        }
        if word(table, 0)? != size {
            return None;
        }
        let mut rest = table.get(4..)?;
        while !rest.is_empty() {
            let (name, count) = (word(rest, 0)?, word(rest, 4)?);
            let records = slice(rest, 8, count.checked_mul(size)?)?;
            sections.push((self.name(name)?, records));
            rest = rest.get(8 + records.len()..)?;
        }
        Some(sections)
    }

    fn fields_of(&self, ext: &'a [u8]) -> Option<Vec<(&'a str, Vec<FieldReloc>)>> {
        let mut sections = Vec::new();
        for (section, records) in self.records(ext, 24, CORE_RELO)? {
            let mut fields = Vec::new();
            for [offset, id, access, kind] in words::<4>(records) {
                let field = self.field(id, self.name(access)?)?;
                if kind != FIELD_BYTE_OFFSET || offset % 8 != 0 {
                    return None;
                }
                fields.push(FieldReloc { slot: offset / 8, field });
            }
            sections.push((section, fields));
        }
        Some(sections)
    }

    /// The field at `access` (`0:` and the index of the member) of a local structure.
    fn field(&self, id: u32, access: &str) -> Option<Field> {
        let of = self.get(id, KIND_STRUCT)?;
        let name = self.name(of.name)?;
        let index: usize = access.strip_prefix("0:")?.parse().ok()?;
        let (_, fields) = STRUCTS.iter().find(|(of, _)| *of == name)?;
        let field = *fields.get(index)?;
        let [member, _, offset] = words::<3>(of.rest).nth(index)?;
        let same = self.name(member)? == field.member() && offset == 64 * index as u32;
        same.then_some(field)
    }

    fn lines_of(&self, ext: &'a [u8]) -> Option<Vec<Lines<'a>>> {
        let mut sections = Vec::new();
        for (section, records) in self.records(ext, 16, LINE_INFO)? {
            let mut lines = Vec::new();
            let mut file = "";
            for [offset, file_name, _text, place] in words::<4>(records) {
                file = self.name(file_name)?;
                lines.push(Line { slot: offset / 8, line: place >> 10, column: place & 0x3ff });
            }
            sections.push(Lines { section, file, lines });
        }
        Some(sections)
    }
}

impl<'a> Type<'a> {
    fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BtfError> {
        let mut head = words::<3>(bytes);
        let [name, info, size_or_type] = head.next().ok_or(MALFORMED)?;
        let (kind, members) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        let size = match kind {
            KIND_INT | KIND_VAR => 4,
            KIND_PTR | KIND_FUNC => 0,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_DATASEC => 12 * members,
            KIND_FUNC_PROTO => 8 * members,
            _ => return Err(BtfError::Kind { kind }),
        };
        let after = bytes.get(12..).ok_or(MALFORMED)?;
        let (rest, next) = after.split_at_checked(size).ok_or(MALFORMED)?;
        let this = Self { name, kind, size_or_type, rest };
        Ok((this, next))
    }
}

/// The map of that name of the kernel's programs, and its index among the counter's maps.
fn kernel_map(name: &str) -> Option<(Counter, usize, &'static KernelMap)> {
    Counter::ALL.into_iter().find_map(|counter| {
        let index = counter.maps().iter().position(|map| map.name == name)?;
        Some((counter, index, counter.maps().get(index)?))
    })
}

/// What follows a header that has the magic number, the version and this size.
fn body(bytes: &[u8], size: u32) -> Option<&[u8]> {
    let [m0, m1, version, _flags] = *bytes.first_chunk()?;
    let good =
        u16::from_le_bytes([m0, m1]) == MAGIC && version == VERSION && word(bytes, 4)? == size;
    bytes.get(size as usize..).filter(|_| good)
}

fn slice(bytes: &[u8], offset: u32, size: u32) -> Option<&[u8]> {
    bytes.get(offset as usize..)?.get(..size as usize)
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let word = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*word))
}

/// Records of `N` words; a rest shorter than that is left out.
fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u32; N]> {
    bytes.chunks_exact(4 * N).map(|record| {
        let mut out = [0; N];
        for (out, index) in out.iter_mut().zip(0..) {
            *out = word(record, 4 * index).unwrap_or(0);
        }
        out
    })
}
