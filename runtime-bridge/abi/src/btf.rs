//! BPF Type Format: the numbers of the format, and its decoder in [`mod@read`].
//!
//! Source: `Documentation/bpf/btf.rst` of the kernel. The encoder is in `durac-bpf`.

pub mod read;

/// First half-word of `.BTF` and `.BTF.ext`.
pub const MAGIC: u16 = 0xeb9f;
/// Version of the format.
pub const VERSION: u8 = 1;
/// Size of the header of `.BTF`.
pub const HEADER: u32 = 24;
/// Size of the header of `.BTF.ext`, with the two words for CO-RE relocations.
pub const EXT_HEADER: u32 = 32;
/// Size of a `struct bpf_func_info`.
pub const FUNC_INFO: u32 = 8;
/// Size of a `struct bpf_line_info`.
pub const LINE_INFO: u32 = 16;
/// Size of a `struct bpf_core_relo`.
pub const CORE_RELO: u32 = 16;
/// Kind of a relocation: the byte offset of a field (`enum bpf_core_relo_kind`).
pub const FIELD_BYTE_OFFSET: u32 = 0;

/// `BTF_KIND_INT`
pub const KIND_INT: u32 = 1;
/// `BTF_KIND_PTR`
pub const KIND_PTR: u32 = 2;
/// `BTF_KIND_ARRAY`
pub const KIND_ARRAY: u32 = 3;
/// `BTF_KIND_STRUCT`
pub const KIND_STRUCT: u32 = 4;
/// `BTF_KIND_FUNC`
pub const KIND_FUNC: u32 = 12;
/// `BTF_KIND_FUNC_PROTO`
pub const KIND_FUNC_PROTO: u32 = 13;
/// `BTF_KIND_VAR`
pub const KIND_VAR: u32 = 14;
/// `BTF_KIND_DATASEC`
pub const KIND_DATASEC: u32 = 15;

/// `BPF_MAP_TYPE_ARRAY` (`include/uapi/linux/bpf.h`).
pub const MAP_TYPE_ARRAY: u32 = 2;
/// `BPF_F_MMAPABLE` (`include/uapi/linux/bpf.h`).
pub const MAP_MMAPABLE: u32 = 1 << 10;
/// Size of a map's definition in `.maps`: a pointer for each attribute.
pub const MAP_DEFINITION: u32 = 8 * 5;

/// `name` as a C identifier.
#[must_use]
pub fn identifier(name: &str) -> String {
    let mut out: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if !out.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        out.insert(0, '_');
    }
    out
}
