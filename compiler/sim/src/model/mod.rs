//! The model checker: how much the compiled bytecode can lose, at the worst instant.
//!
//! It explores every state that the application, the engine and the disk can bring about together
//! ([`explore`]). The programs run in rbpf, the engine's rules are those of the agent
//! (`durac_engine`), and what the environment chooses is cut into finitely many cells ([`cells`]).
//! `docs/proof.md` has the argument why that is enough.

pub mod cells;
pub mod explore;
pub mod programs;
pub mod proof;
pub mod ring;
pub mod state;
pub mod step;
pub mod timeline;
