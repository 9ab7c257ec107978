//! The workspace tests: what a user runs, on a real redis-server.
//!
//! One executable, so that it links once. Tests that load the machine take turns
//! ([`durac_tests::heavy`]); nothing here asserts a time or sleeps but to poll.

mod bench;
mod bpftime;
mod compare;
mod crash;
mod disk_faults;
mod examples;
mod faults;
mod input;
mod lifecycle;
mod notify;
mod objects;
mod patched;
mod policies;
mod power;
mod record;
mod replication;
mod rewrite;
mod simulate;
mod soak;
mod tampered;
mod top;
mod trust;
