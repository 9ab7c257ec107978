//! The supervisor: a process that runs a durability policy on the log files of any command, with all its
//! descendants: static programs, programs in Go, programs of many processes.
//!
//! The command runs under a seccomp filter ([`filter`]) that has the kernel ask this process before a call
//! that syncs, or that changes names or lengths of files. The supervisor takes the caller's open file
//! (`pidfd_getfd`), finds the one state that its inode has (`logs`), runs the policy's machine code and
//! answers ([`serve`]). A second process, the keeper, holds the same listener (`keeper`): when the
//! supervisor dies, it syncs what was deferred and lets every call run as the command made it.
//!
//! Stage: a notification of the kernel → the engine of a log → an answer; background syncs beside it.
//!
//! Architecture invariants: it links no compiler. In doubt the original call runs. It is told of writes only where a
//! policy or its target needs it, and never of their end: what is not known to have been appended since the last sync
//! call of the same process is synced directly.

mod call;
mod candidate;
mod change;
mod clock;
mod control;
mod crew;
mod fault_injection;
pub mod filter;
mod flight;
mod handover;
mod keeper;
mod launch;
mod load;
mod log;
mod logs;
mod look;
mod maps;
mod memory;
mod note;
mod notify;
mod opened;
mod opens;
mod page;
mod process;
mod program;
mod record;
mod serve;
mod shared;
mod start;
mod upgrade;
mod walk;
mod writes;

pub use candidate::may_others_replace;
pub use handover::HandoverError;
pub use launch::{InstallError, Installed, install};
pub use load::LoadError;
pub use record::is_wanted as is_recording_wanted;
pub use start::{ServeError, serve, take_over, try_out};
pub use upgrade::READY;
