//! The simulator: what policies would have cost an application whose calls were recorded.
//!
//! [`report`] is what it answers.

pub mod application;
mod call;
pub mod device;
mod drive;
pub mod histogram;
mod observe;
mod processor;
mod program;
pub mod random;
pub mod report;
mod syncer;

pub use drive::{SimulateError, Simulation};
