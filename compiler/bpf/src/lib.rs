//! Makes policy objects: the assembler, and the writers of ELF, BTF and DWARF.
//!
//! Stage: [`durac_abi::Object`] → [`write()`] → bytes of a file.
//!
//! Architecture invariant: it must not know the policy language, nor verify or run what it writes.
//! Whoever runs an object needs `durac-abi` and not this crate.

pub mod asm;
mod btf;
mod dwarf;
mod elf;
mod note;
pub mod notify;

pub use elf::{WriteError, write};
