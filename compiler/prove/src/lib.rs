//! How much the compiled bytecode can lose, at the worst instant.
//!
//! It explores every state that the application, the engine and the disk can bring about together
//! ([`explore`]). The programs run in rbpf ([`machine`]), the engine's rules are those of the agent
//! (`durac_engine`), and what the environment chooses is cut into finitely many cells ([`cells`]).
//! `docs/proof.md` has the argument why that is enough.
//!
//! Stage: [`durac_abi::Object`] and `hir::Policy` → [`proof::prove`] → [`proof::Proof`].
//!
//! Architecture invariant: no input or output, no clock; the same object gives the same proof.

pub mod amounts;
pub mod cells;
pub mod dates;
pub mod explore;
pub mod live;
pub mod machine;
pub mod mutants;
pub mod programs;
pub mod proof;
pub mod relate;
pub mod replies;
pub mod ring;
pub mod state;
pub mod step;
pub mod terms;
pub mod timeline;
pub mod upper;
pub mod watch;
pub mod zone;
