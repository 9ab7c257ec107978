//! What the agent's programs read.

use crate::words;
use serde::{Deserialize, Serialize};

/// What a program reads: r1 points to this. Every field is a 64-bit little-endian number.
///
/// The agent fills only the fields that the object's note lists under `reads`, and fills them
/// again after every wait. A program may load, not store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Context {
    /// Key of the log in the `state` map.
    pub log: u64,
    /// Bytes of this write; 0 for a sync.
    pub len: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub now: u64,
    /// Syncs acknowledged and not yet durable, this call not counted.
    pub pending: u64,
    /// Bytes written and not yet durable.
    pub pending_bytes: u64,
    /// Age of the oldest acknowledged sync that is not durable, nanoseconds.
    pub pending_age: u64,
    /// Syncs that are staged and not yet durable: in a sync this call counts, in a write those before.
    pub staged: u64,
    /// Duration of the last completed sync, nanoseconds.
    pub sync_latency: u64,
    /// 1 if a sync that began after this call's writes has completed with success, else 0.
    pub notify_done: u64,
    /// Syncs of this log completed with success.
    pub notify_count: u64,
    /// 1 while a forked child of the application runs, else 0.
    pub child_active: u64,
    /// Updates written and not yet durable, those of this call included; [`READING_MOST`] if their number is
    /// not known.
    pub pending_updates: u64,
    /// Updates that this write completes; 0 for a sync, [`READING_MOST`] if their number is not known.
    pub updates: u64,
    /// Descriptors that an event loop's wait has found ready; 0 outside [`crate::Hook::Turn`].
    pub ready: u64,
    /// 1 if this reply depends on nothing that is not durable, for certain; 0 outside [`crate::Hook::Reply`].
    pub reply_clean: u64,
}

/// The clock is at most this, nanoseconds: 36 years. The runtime clamps it, and the proof relies on it.
pub const CLOCK_MOST: u64 = (1 << 60) - 1;

/// Every reading but the clock and the numbers of calls is at most this: 104 days, or 8 PiB. The runtime
/// clamps it, and the proof relies on it.
pub const READING_MOST: u64 = (1 << 53) - 1;

words! {
    /// A field of [`Context`]. Its word is the name of the field, as in C and in BTF.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Reading, field {
        /// [`Context::log`]; cannot be written in the language.
        Log => "log",
        /// `call.len`
        CallLen => "len",
        /// `now`
        Now => "now",
        /// `pending`
        Pending => "pending",
        /// `pending.bytes`
        PendingBytes => "pending_bytes",
        /// `pending.age`
        PendingAge => "pending_age",
        /// `staged`
        Staged => "staged",
        /// `sync.latency`
        SyncLatency => "sync_latency",
        /// `notify.done`
        NotifyDone => "notify_done",
        /// `notify.count`
        NotifyCount => "notify_count",
        /// `child.active`
        ChildActive => "child_active",
        /// `pending.updates`
        PendingUpdates => "pending_updates",
        /// `call.updates`
        CallUpdates => "updates",
        /// `ready`
        Ready => "ready",
        /// `reply.clean`
        ReplyClean => "reply_clean",
    }
}

impl Reading {
    /// Byte offset in [`Context`], whose fields are in the order of [`Reading::ALL`].
    #[must_use]
    pub const fn offset(self) -> i16 {
        8 * self as i16
    }

    /// Its bit in a set of readings.
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Size of [`Context`], bytes.
pub const CONTEXT_SIZE: usize = std::mem::size_of::<Context>();

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn readings_are_in_the_order_of_the_fields() {
        let offsets = [
            offset_of!(Context, log),
            offset_of!(Context, len),
            offset_of!(Context, now),
            offset_of!(Context, pending),
            offset_of!(Context, pending_bytes),
            offset_of!(Context, pending_age),
            offset_of!(Context, staged),
            offset_of!(Context, sync_latency),
            offset_of!(Context, notify_done),
            offset_of!(Context, notify_count),
            offset_of!(Context, child_active),
            offset_of!(Context, pending_updates),
            offset_of!(Context, updates),
            offset_of!(Context, ready),
            offset_of!(Context, reply_clean),
        ];
        assert_eq!(Reading::ALL.map(|reading| reading.offset() as usize), offsets);
        assert_eq!(CONTEXT_SIZE, 8 * Reading::COUNT);
    }
}
