//! The kernel's programs in the real kernel: its verifier, its syncs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod common;
mod count;
mod failing;
mod load;
mod syncs;
