//! The agent in programs of one purpose each: what they and the kernel see of it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test that fails says so"
)]

mod boundary;
mod calls;
mod common;
mod errors;
mod loss;
mod matrix;
mod order;
mod overlap;
mod processes;
mod reach;
mod redis;
mod refusal;
mod replies;
mod scale;
mod signals;
mod stage;
mod stress;
mod symbols;
mod turns;
mod updates;
