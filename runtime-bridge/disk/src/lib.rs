//! A file system in memory that forgets at a power cut what was not synced, fails when told to, and
//! takes its time.
//!
//! - [`image`]: what programs see, what is durable, and what a cut leaves of the rest. Plain data,
//!   no threads and no clock.
//! - [`plan`]: latencies and faults.
//! - [`mount`]: the file system at work, through FUSE.
//! - [`noted`]: what was done to some files, and when.
//!
//! The rules are those of ext4 with ordered data: a write is durable when a sync that began after it
//! has ended with success; a sync that fails leaves its pages clean, so that they are lost without a
//! further word; a change of a directory is durable with the next sync of anything.

pub mod image;
pub mod mount;
mod node;
pub mod noted;
pub mod plan;
mod session;

pub use image::{Cut, Image};
pub use mount::{Mounted, Power, private_mounts};
pub use plan::{Fault, Op, Plan};
pub use session::SYNC;
