//! The object file: a relocatable ELF for BPF, written and read.
//!
//! | section | what |
//! |---|---|
//! | `durac/<hook>`, `uprobe/<hook>` | code of one program for the agent, for BPFtime, with a global function symbol `<policy>_<hook>` |
//! | `fexit/…`, `fentry/…`, `tp_btf/…`, `raw_tp/…` | code for the kernel, if the policy uses it ([`crate::notify`]) |
//! | `.maps` | BTF-defined maps, a global symbol each; code refers to them by `R_BPF_64_64` |
//! | `.BTF`, `.BTF.ext` | types, functions, lines, fields of the kernel's structures |
//! | `license` | what the kernel asks for |
//! | `.note.durac` | [`crate::object::Meta`] as JSON |
//! | `.durac.sum` | a checksum of code, maps and note |
//! | `.debug_*` | DWARF 5 with the source text inside |
//!
//! Architecture invariant: the same [`Object`] gives the same bytes, on any machine; and [`read`]
//! takes any bytes without a panic, because the agent reads files it did not write. What both
//! sides hold an object to is in one place, `elf/rules.rs`.

mod kernel;
mod read;
mod rules;
mod write;

pub use kernel::{CORE_RELO_SIZE, FUNC_INFO_SIZE, KernelTypes, ProgramTypes, kernel_types};
pub use read::{ReadError, read};
pub use rules::Invalid;
pub use write::{WriteError, write};

use crate::object::Object;

/// Greatest size of an object file, bytes.
pub const MAX_SIZE: usize = 1 << 20;
/// Section with the licence.
const LICENSE_SECTION: &str = "license";
/// One of the texts the kernel takes for compatible with its own licence
/// (`include/linux/license.h`).
const LICENSE: &[u8] = b"Dual MIT/GPL\0";
/// Relocation of a `lddw` (`Documentation/bpf/llvm_reloc.rst`).
const R_BPF_64_64: u32 = 1;
/// Relocation of 8 bytes of data.
const R_BPF_64_ABS64: u32 = 2;
/// Relocation of 4 bytes of data.
const R_BPF_64_ABS32: u32 = 3;

/// Names of the functions, in the order of the programs; those of the kernel's come last.
fn function_names(object: &Object) -> Vec<String> {
    let policy = crate::btf::identifier(&object.meta.policy);
    let name = |hook| format!("{policy}_{hook}");
    let hooks = object.programs.iter().map(|p| name(p.hook));
    hooks.chain(object.kernel.iter().map(|p| p.function())).collect()
}
