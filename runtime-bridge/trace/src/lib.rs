//! Traces: every hook call on the logs of an application, in the order in which they ended.
//!
//! A trace is one JSON document with one event a line (`event.rs` has the types, `docs/trace.md`
//! the format). [`Reader`] reads it as a stream and checks it, [`Writer`] writes it.
//!
//! Plain data: this crate knows no policy, links no compiler and no agent, and asks no clock.

mod error;
mod event;
mod json;
mod read;
mod sort;
pub mod strace;
mod write;

pub use error::{Problem, TraceError};
pub use event::{
    End, Event, FORMAT, Header, MAX_LOGS, MOST_WRITTEN, Op, Recorded, Source, VERSION, Verdict,
};
pub use read::{Reader, read_all};
pub use sort::Sorter;
pub use write::Writer;
