//! The object file: a relocatable ELF for BPF, as it is read.
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
//! Architecture invariant: [`read`] takes any bytes without a panic, because the agent reads files it
//! did not write. What reader and writer hold an object to is in one place, [`check`].

mod kernel;
mod read;
mod rules;

pub use kernel::{KernelTypes, ProgramTypes, kernel_types};
pub use read::{ReadError, read};
pub use rules::{Invalid, MAX_POLICY_NAME, check};

/// Greatest size of an object file, bytes.
pub const MAX_SIZE: usize = 1 << 20;
/// Section with the licence.
pub const LICENSE_SECTION: &str = "license";
/// One of the texts the kernel takes for compatible with its own licence
/// (`include/linux/license.h`).
pub const LICENSE: &[u8] = b"Dual MIT/GPL\0";
/// Relocation of a `lddw` (`Documentation/bpf/llvm_reloc.rst`).
pub const R_BPF_64_64: u32 = 1;
