//! The sync engine of one log as a state machine: pure data and rules.
//!
//! Stage: what happens to a log → what is durable, who waits, which sync starts next.
//!
//! [`Log`] decides what is durable, who has to wait and when the next background sync starts. The
//! agent drives it from real threads and real `fdatasync` calls, the model checker from every
//! possible interleaving: both run this code.
//!
//! Architecture invariant: no clock, no threads, no I/O, no memory shared with others. Times are
//! nanoseconds of any monotonic clock and come in as arguments. It knows an object's note
//! ([`Rules`] come from it) and nothing of its code.

mod amounts;
mod completion;
pub mod gather;
pub mod keys;
mod log;
pub mod model;
mod pace;
mod protocol;
pub mod records;
mod release;
pub mod requests;
pub mod resp;
mod rules;
mod slow;
mod stamp;

pub use completion::{Again, Completion, Tries, completion, is_transient};
pub use log::{Call, Counters, Errno, Flight, Log, Step, Time};
pub use pace::Pace;
pub use protocol::{Able, Answer, Decision, Drain, Entry, Put, Wait, Writing};
pub use release::{Fate, LogKey, Need, Release, Ticket};
pub use rules::Rules;
pub use slow::{Quiet, SLOW, Slow};
pub use stamp::Stamp;
