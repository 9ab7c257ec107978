//! Shared memory between the agent and the tools: the [`status`] page that `durac top` and `durac set`
//! map, and the [`ring`] through which the agent records events.
//!
//! Stage: the agent's numbers → a tool's [`status::Snapshot`]; the agent's events → [`Taker`] → a trace.
//!
//! Architecture invariant: any process that maps this memory may have written anything to it. What is read is
//! bounded, and nothing read here is trusted as an index or a length. No policy, no clock.

pub mod ring;
pub mod status;
mod sync;
mod take;

pub use take::{Missing, Taker};
