//! The supervisor, beside real programs: many processes on one log, static programs, 32-bit system calls, deaths.
//! Most need root and FUSE: the power goes on a disk that forgets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod containers;
mod deaths;
mod descriptors;
mod faults;
mod kept;
mod limits;
mod loss;
mod names;
mod off;
mod order;
mod record;
mod reload;
mod served;
mod unsynced;
mod upgrade;
mod upgrade_odd;
mod who;
mod writes;
