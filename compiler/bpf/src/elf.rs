//! An [`Object`] as the bytes of a relocatable ELF file for BPF.
//!
//! The sections are listed in [`durac_abi::elf`], which reads the file.
//!
//! Architecture invariant: the same [`Object`] gives the same bytes, on any machine.

mod write;

pub use write::{WriteError, write};

use durac_abi::Object;
use durac_abi::btf::identifier;

/// Relocation of 8 bytes of data.
const R_BPF_64_ABS64: u32 = 2;
/// Relocation of 4 bytes of data.
const R_BPF_64_ABS32: u32 = 3;

/// Names of the functions, in the order of the programs; those of the kernel's come last.
fn function_names(object: &Object) -> Vec<String> {
    let policy = identifier(&object.meta.policy);
    let name = |hook| format!("{policy}_{hook}");
    let hooks = object.programs.iter().map(|p| name(p.hook));
    hooks.chain(object.kernel.iter().map(|p| p.function())).collect()
}
