//! Loads the kernel's programs of a policy that says `use kernel notify`, and attaches them at the
//! best place that this kernel allows.
//!
//! ```text
//! Object ─load─→ maps, types, programs (the kernel's verifier) ─attach─→ links ─try─→ Notify
//! ```
//!
//! What is loaded are the instructions of the object. [`durac_abi::elf::read`] refuses an object whose
//! kernel programs are not those of this version, so nothing else runs as root.
//!
//! Stage: an admitted object → kernel programs that run ([`Notify`], [`count::Counter`]).
//!
//! Architecture invariant: nothing here decides what is durable, and it must not know the policy's own
//! programs. Without the kernel's programs the policy still runs on the engine's own completions.

#![warn(missing_docs)]

mod attach;
pub mod attr;
mod btf;
pub mod count;
mod map;
mod sys;
mod trial;

pub use attach::{Failure, Notify, load, load_at};
pub use map::Slots;
