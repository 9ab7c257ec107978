//! Compiled policies without a database: what they can lose, and what they would have cost.
//!
//! [`machine`] runs the bytecode of an object in rbpf. The model checker ([`model`]) drives it with
//! every choice that an application, a disk and a clock have. Both use the rules of `durac-engine`,
//! which the agent runs in the database. [`html`] draws what the simulator found.
//!
//! Architecture invariant: no input or output, no clock; the same object gives the same answer.

pub mod check;
pub mod compare;
pub mod html;
pub mod machine;
pub mod model;
pub mod replay;
