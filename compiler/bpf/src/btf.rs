//! BPF Type Format: the types of maps and programs, and the line table that the kernel and
//! `bpftool` read.
//!
//! Source: `Documentation/bpf/btf.rst` of the kernel. The decoder is in `durac-abi`.

use crate::dwarf;
use durac_abi::Object;
use durac_abi::btf::*;
use durac_abi::notify::{Field, KernelProgram, STRUCTS};
use std::collections::BTreeMap;

/// Encoding of an integer: signed.
const SIGNED: u32 = 1 << 24;
/// Linkage of functions and variables.
const GLOBAL: u32 = 1;

/// The two sections.
pub(crate) struct Sections {
    /// `.BTF`
    pub btf: Vec<u8>,
    /// `.BTF.ext`
    pub ext: Vec<u8>,
}

/// Encodes the types and lines of an object whose programs are called `functions`.
pub(crate) fn encode(object: &Object, functions: &[String]) -> Sections {
    let mut btf = Btf::default();
    let int = btf.integer("int", 4, SIGNED);
    let u32 = btf.integer("unsigned int", 4, 0);
    let u64 = btf.integer("unsigned long long", 8, 0);
    let long = btf.integer("long", 8, SIGNED);
    let array_size = btf.integer("__ARRAY_SIZE_TYPE__", 4, 0);

    let backend = object.meta.runtime.backend();
    let layout = backend.context();
    let fields = (0u32..).step_by(8).zip(layout.fields);
    let members: Vec<_> = fields.map(|(offset, name)| (*name, u64, offset)).collect();
    let context = btf.structure(layout.name, layout.size() as u32, &members);
    let context = btf.pointer(context);
    let proto = btf.prototype(long, "ctx", context);
    let (hooks, of_kernel) =
        functions.split_at_checked(object.programs.len()).unwrap_or((functions, &[]));
    let ids: Vec<u32> = hooks.iter().map(|f| btf.function(f, proto)).collect();
    let kernel_ids: Vec<u32> = if object.kernel.is_empty() {
        Vec::new()
    } else {
        let context = btf.pointer(u64);
        let proto = btf.prototype(int, "ctx", context);
        of_kernel.iter().map(|f| btf.function(f, proto)).collect()
    };

    let mut variables = Vec::new();
    for map in &object.maps {
        let fields: Vec<String> = map.fields.iter().map(|f| identifier(f)).collect();
        let value = btf.record(&format!("durac_{}", map.name), u64, &fields);
        let numbers = [MAP_TYPE_ARRAY, map.max_entries, MAP_MMAPABLE];
        variables.push(btf.map(&map.name, u32, value, numbers, (int, array_size)));
    }
    let mut structs = Vec::new();
    if !object.kernel.is_empty() {
        for map in backend.counter().maps() {
            let key = if map.key.is_empty() {
                u32
            } else {
                btf.record(&format!("durac_{}_key", map.name), u64, map.key)
            };
            let value = btf.record(&format!("durac_{}", map.name), u64, map.fields);
            let numbers = [map.kind, map.max_entries, map.flags];
            variables.push(btf.map(map.name, key, value, numbers, (int, array_size)));
        }
        structs = kernel_structs(&mut btf, u32, u64);
    }
    if !variables.is_empty() {
        btf.section(".maps", MAP_DEFINITION, &variables);
    }

    let kernel = object.kernel.iter().zip(kernel_ids).map(|(program, id)| {
        let mut function = Words::default();
        function.extend([0, id]);
        (function.0, core_relos(program, &structs, &mut btf.strings).0)
    });
    let kernel: Vec<(Vec<u8>, Vec<u8>)> = kernel.collect();
    let ext = encode_ext(object, &ids, &kernel, &mut btf.strings);
    Sections { btf: btf.finish(), ext }
}

/// Local definitions of the kernel's structures, for the relocations.
fn kernel_structs(btf: &mut Btf, u32: u32, u64: u32) -> Vec<u32> {
    let opaque = btf.pointer(0);
    let define = |(name, fields): &(&str, &[Field])| {
        let members = fields.iter().map(|field| {
            let of = match field.integer() {
                Some(4) => u32,
                Some(_) => u64,
                None => opaque,
            };
            (field.member(), of, field.local_offset() as u32)
        });
        let members: Vec<_> = members.collect();
        btf.structure(name, 8 * fields.len() as u32, &members)
    };
    STRUCTS.iter().map(define).collect()
}

/// The fields that a program's instructions name.
fn core_relos(program: &KernelProgram, structs: &[u32], strings: &mut Strings) -> Words {
    let mut out = Words::default();
    for reloc in &program.fields {
        let (index, member) = reloc.field.place();
        let id = structs.get(index).copied().unwrap_or(0);
        let access = strings.add(&format!("0:{member}"));
        out.extend([8 * reloc.slot, id, access, FIELD_BYTE_OFFSET]);
    }
    out
}

/// `.BTF.ext`: the place of each function, of lines, and of fields of the kernel.
fn encode_ext(
    object: &Object,
    functions: &[u32],
    kernel: &[(Vec<u8>, Vec<u8>)],
    strings: &mut Strings,
) -> Vec<u8> {
    let source: Vec<&str> = object.source.text.lines().collect();
    let file = strings.add(&object.source.name);
    let mut funcs = Words::default();
    let mut lines = Words::default();
    funcs.push(FUNC_INFO);
    lines.push(LINE_INFO);
    for (program, function) in object.programs.iter().zip(functions) {
        let section = strings.add(program.hook.section(object.meta.runtime));
        funcs.extend([section, 1, 0, *function]);

        let records = dwarf::lines(program);
        if records.is_empty() {
            continue;
        }
        lines.extend([section, records.len() as u32]);
        for record in records {
            let index = (record.line as usize).checked_sub(1);
            let text = index.and_then(|i| source.get(i)).copied().unwrap_or("");
            let text = strings.add(text);
            let place = record.line << 10 | record.column;
            lines.extend([8 * record.slot, file, text, place]);
        }
    }
    let mut fields = Words::default();
    for (program, (function, relos)) in object.kernel.iter().zip(kernel) {
        let section = strings.add(program.section);
        funcs.extend([section, 1]);
        funcs.0.extend(function);
        if fields.0.is_empty() {
            fields.push(CORE_RELO);
        }
        fields.extend([section, relos.len() as u32 / CORE_RELO]);
        fields.0.extend(relos);
    }
    let (funcs, lines, fields) = (funcs.0, lines.0, fields.0);
    let mut out = header(EXT_HEADER);
    let (funcs_size, lines_size) = (funcs.len() as u32, lines.len() as u32);
    let end = funcs_size + lines_size;
    out.extend([0, funcs_size, funcs_size, lines_size, end, fields.len() as u32]);
    let mut out = out.0;
    out.extend(funcs);
    out.extend(lines);
    out.extend(fields);
    out
}

fn header(size: u32) -> Words {
    let mut out = Words::default();
    out.0.extend(MAGIC.to_le_bytes());
    out.0.extend([VERSION, 0]);
    out.push(size);
    out
}

/// Little-endian words.
#[derive(Default)]
struct Words(Vec<u8>);

impl Words {
    fn push(&mut self, word: u32) {
        self.0.extend(word.to_le_bytes());
    }

    fn extend(&mut self, words: impl IntoIterator<Item = u32>) {
        for word in words {
            self.push(word);
        }
    }
}

/// The string table: each text once, the empty one first.
struct Strings {
    bytes: Vec<u8>,
    offsets: BTreeMap<String, u32>,
}

impl Default for Strings {
    fn default() -> Self {
        Self { bytes: vec![0], offsets: BTreeMap::from([(String::new(), 0)]) }
    }
}

impl Strings {
    fn add(&mut self, text: &str) -> u32 {
        if let Some(offset) = self.offsets.get(text) {
            return *offset;
        }
        let offset = self.bytes.len() as u32;
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
        self.offsets.insert(text.to_owned(), offset);
        offset
    }
}

/// Types under construction. Each method adds one and returns its number.
#[derive(Default)]
struct Btf {
    types: Words,
    count: u32,
    strings: Strings,
}

impl Btf {
    /// A `struct btf_type`: name, kind and number of members, size or type.
    fn add(&mut self, name: &str, kind: u32, members: usize, size_or_type: u32) -> u32 {
        let name = self.strings.add(name);
        self.types.extend([name, kind << 24 | members as u32, size_or_type]);
        self.count += 1;
        self.count
    }

    fn integer(&mut self, name: &str, size: u32, encoding: u32) -> u32 {
        let id = self.add(name, KIND_INT, 0, size);
        self.types.push(encoding | (8 * size));
        id
    }

    fn pointer(&mut self, to: u32) -> u32 {
        self.add("", KIND_PTR, 0, to)
    }

    fn array(&mut self, element: u32, index: u32, length: u32) -> u32 {
        let id = self.add("", KIND_ARRAY, 0, 0);
        self.types.extend([element, index, length]);
        id
    }

    /// `members` are names, types and byte offsets.
    fn structure(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let id = self.add(name, KIND_STRUCT, members.len(), size);
        for (name, of, offset) in members {
            let name = self.strings.add(name);
            self.types.extend([name, *of, 8 * offset]);
        }
        id
    }

    /// A structure of 8-byte numbers.
    fn record<F: AsRef<str>>(&mut self, name: &str, u64: u32, fields: &[F]) -> u32 {
        let members = (0u32..).zip(fields).map(|(i, f)| (f.as_ref(), u64, 8 * i));
        let members: Vec<_> = members.collect();
        self.structure(name, 8 * fields.len() as u32, &members)
    }

    /// A map's variable: its kind, number of entries and flags; `array` are the types that spell
    /// numbers.
    fn map(&mut self, name: &str, key: u32, value: u32, is: [u32; 3], array: (u32, u32)) -> u32 {
        let value = self.pointer(value);
        let key = self.pointer(key);
        let [kind, entries, flags] = is.map(|number| {
            let array = self.array(array.0, array.1, number);
            self.pointer(array)
        });
        let members = [
            ("type", kind, 0),
            ("key", key, 8),
            ("value", value, 16),
            ("max_entries", entries, 24),
            ("map_flags", flags, 32),
        ];
        let definition = self.structure("", MAP_DEFINITION, &members);
        self.variable(name, definition)
    }

    fn prototype(&mut self, returns: u32, parameter: &str, of: u32) -> u32 {
        let id = self.add("", KIND_FUNC_PROTO, 1, returns);
        let name = self.strings.add(parameter);
        self.types.extend([name, of]);
        id
    }

    fn function(&mut self, name: &str, prototype: u32) -> u32 {
        self.add(name, KIND_FUNC, GLOBAL as usize, prototype)
    }

    fn variable(&mut self, name: &str, of: u32) -> u32 {
        let id = self.add(name, KIND_VAR, 0, of);
        self.types.push(GLOBAL);
        id
    }

    fn section(&mut self, name: &str, each: u32, variables: &[u32]) -> u32 {
        let size = each * variables.len() as u32;
        let id = self.add(name, KIND_DATASEC, variables.len(), size);
        for (index, variable) in (0u32..).zip(variables) {
            self.types.extend([*variable, each * index, each]);
        }
        id
    }

    fn finish(self) -> Vec<u8> {
        let (types, strings) = (self.types.0, self.strings.bytes);
        let mut out = header(HEADER);
        let (types_size, strings_size) = (types.len() as u32, strings.len() as u32);
        out.extend([0, types_size, types_size, strings_size]);
        let mut out = out.0;
        out.extend(types);
        out.extend(strings);
        out
    }
}
