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

#![cfg_attr(not(feature = "fuse"), allow(dead_code, reason = "what only a mounted disk does"))]

pub mod image;
pub mod mount;
mod node;
pub mod noted;
pub mod plan;
#[cfg(feature = "fuse")]
mod session;
#[cfg(not(feature = "fuse"))]
mod unmounted;
#[cfg(not(feature = "fuse"))]
use unmounted as session;

pub use image::{Cut, Image};
pub use mount::{Mounted, Power, private_mounts};
pub use plan::{Fault, Op, Plan};

/// The `ioctl` that syncs a file of the disk as `fsync` does: `_IO('D', 1)`.
pub const SYNC: u32 = (b'D' as u32) << 8 | 1;

/// Whether a disk can be mounted: FUSE is built.
pub const HAS_FUSE: bool = cfg!(feature = "fuse");
