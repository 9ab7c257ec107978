//! The atomic numbers of the ring: the standard library's. `tests/explore` compiles the ring with an
//! explorer's.

pub use std::sync::atomic::{AtomicU64, Ordering};
