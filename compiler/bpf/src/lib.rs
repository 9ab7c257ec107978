//! BPF instructions, the object file, and the contract between the compiler and the agent.
//!
//! A leaf crate. Architecture invariant: it knows nothing of the policy language, and everything
//! the agent needs to run an object is here.

pub mod abi;
pub mod asm;
pub mod bpftime;
mod btf;
pub mod disasm;
mod dwarf;
pub mod elf;
pub mod glob;
pub mod insn;
pub mod note;
pub mod notify;
pub mod object;
pub mod ring;
mod sum;

pub use btf::read::BtfError;
pub use insn::Insn;
pub use object::Object;
