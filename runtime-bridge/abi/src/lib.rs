//! The contract between a compiled policy and what runs it.
//!
//! Everything needed to read an object and to know what its instructions may do: the hooks, the
//! context, the helpers and verdicts of each runtime ([`Backend`]), the instruction set, the object and
//! its file format, and the layout of the maps that the kernel's programs share with the agent.
//!
//! Stage: bytes of an ELF file → [`Object`] ([`elf::read`]).
//!
//! The compiler emits against these definitions, the verifier checks against them, the runtimes
//! implement them. A change of what they mean is a change of [`ABI`]: an object of another ABI is
//! refused.
//!
//! Architecture invariant: a leaf crate that reads and never writes. It must not know the policy
//! language, nor debug information beyond the source text, and does no I/O.

mod agent;
mod backend;
pub mod bpftime;
pub mod btf;
pub mod certificate;
mod context;
pub mod disasm;
pub mod elf;
mod engine;
mod env;
pub mod glob;
mod helper;
mod hook;
pub mod insn;
pub mod link;
mod maps;
pub mod note;
pub mod notify;
pub mod object;
pub mod session;
pub mod sum;
mod supervisor;
pub mod uring;
mod verdict;
mod words;

pub use backend::{Backend, ContextLayout, Runtime};
pub use btf::read::BtfError;
pub use context::{CLOCK_MOST, CONTEXT_SIZE, Context, READING_MOST, Reading};
pub use engine::{Callers, Engine, Layout, Records, STAGE_ROOM};
pub use env::{
    ENV_AGENT, ENV_ALL, ENV_CACHE, ENV_ENGINE, ENV_LOG, ENV_NOTIFY, ENV_OBJECT, ENV_RECORD,
    ENV_RUN, ENV_STATUS, ENV_WATCH, NOTIFY_OFF, RUN_MARK, WATCH_OFF, is_quiet, is_unknown_variable,
};
pub use helper::{Helper, KernelHelper, Parameter, Returns, Signature};
pub use hook::Hook;
pub use insn::Insn;
pub use maps::{LOOK_LEAST, MAX_LOGS, PARAMS_MAP, STATE_MAP};
pub use object::Object;
pub use verdict::{GATHER_MOST, Verdict};

/// Version of this contract, recorded in the object's note.
pub const ABI: u32 = 1;
