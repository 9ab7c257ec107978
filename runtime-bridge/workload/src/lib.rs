//! Starts real databases, drives them and measures them.
//!
//! Three layers, each usable alone:
//!
//! - [`redis`], [`resp`], [`writers`]: one real `redis-server` in a directory of its own, a small
//!   client for it, and writers that remember every write the server acknowledged.
//! - [`mod@redis_benchmark`] and [`append_log`]: one load, measured once. The append log needs no
//!   database: it is what remains of one when only its log is kept.
//! - [`mod@bench`]: many configurations in interleaved rounds, with the facts of the machine, as a
//!   [`report::Report`] that prints as a table and as JSON.
//!
//! This crate knows no policy and links no compiler. A policy comes in as the command prefix
//! `durac run FILE --`, so what is measured is what a user would run.
//!
//! Every process started here dies with the thread that started it, and every directory is
//! removed: neither a failed test nor an interrupted bench leaves anything behind.

pub mod append_log;
pub mod append_server;
mod asked;
pub mod bench;
pub mod browser;
pub mod child;
pub mod columns;
pub mod crash;
mod error;
pub mod machine;
pub mod mix;
pub mod progress;
pub mod redis;
pub mod redis_benchmark;
pub mod report;
pub mod resp;
mod stats;
pub mod status;
pub mod sys;
mod table;
pub mod writers;
mod zipf;

pub use bench::{Config, Load, Mode, Policy, Workload};
pub use error::{Error, Result};
pub use redis::{Redis, RedisConfig, Stop};
pub use redis_benchmark::redis_benchmark;
pub use report::{Measured, Report};
