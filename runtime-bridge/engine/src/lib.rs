//! The sync engine of one log as a state machine, and the layout of the agent's status file.
//!
//! [`Log`] decides what is durable, who has to wait and when the next background sync starts. The
//! agent drives it from real threads and real `fdatasync` calls, the model checker from every
//! possible interleaving: both run this code.
//!
//! Architecture invariant: [`Log`] has no clock, no threads and does no input or output. Times are
//! nanoseconds of any monotonic clock and come in as arguments.

mod log;
pub mod model;
mod pace;
mod protocol;
mod slow;
pub mod status;

pub use log::{Call, Counters, Errno, Flight, Log, Rules, Step, Time};
pub use pace::Pace;
pub use protocol::{Able, Answer, Decision, Drain, Entry, Put, Wait, Writing};
pub use slow::{SLOW, Slow};
