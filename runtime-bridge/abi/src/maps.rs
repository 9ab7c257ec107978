//! The names and limits of a policy's maps.

/// Name of the map that holds the parameters: array, one entry, a `u64` each.
pub const PARAMS_MAP: &str = "params";
/// Name of the map that holds the state: array, one entry per log, a `u64` each.
pub const STATE_MAP: &str = "state";
/// Logs that can have state; [`crate::Context::log`] is below it. A log beyond them runs unhooked.
pub const MAX_LOGS: u32 = 1024;

/// The least time between two looks for writes that no sync call follows (`on write: defer`), nanoseconds.
pub const LOOK_LEAST: u64 = 1_000_000;
