//! What writes staged bytes.

use crate::words;
use serde::{Deserialize, Serialize};

words! {
    /// What writes staged bytes in the background.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Engine, name {
        /// The syncer thread, with `write` and `fdatasync`.
        #[default]
        Thread => "thread",
        /// The syncer thread, with a write and a linked sync through its own io_uring.
        IoUring => "io_uring",
    }
}

words! {
    /// Whether calls of the application on one log overlap.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Callers, name {
        /// One call at a time; the agent lets one that overlaps another pass.
        One => "one",
        /// They may overlap.
        #[default]
        Many => "many",
    }
}

words! {
    /// Where a log is written.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Layout, name {
        /// At its end.
        #[default]
        Append => "append",
        /// From its beginning to its end, and then again from its beginning.
        Ring => "ring",
    }
}

words! {
    /// How a log is divided into updates, which the agent counts as they are written.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Records, name {
        /// Commands as Redis writes them.
        Resp => "resp",
        /// Lines.
        Line => "line",
        /// They are not counted.
        #[default]
        None => "none",
    }
}

/// Bytes of a log that can be staged at once, those included that are being written: 1 MiB. A write
/// that does not fit runs as the application made it.
pub const STAGE_ROOM: u64 = 1 << 20;
