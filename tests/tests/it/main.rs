//! The workspace tests: what a user runs, on a real redis-server.
//!
//! One executable, so that it links once. Tests that load the machine take turns
//! ([`durac_tests::heavy`]); nothing here asserts a time or sleeps but to poll.

mod advise;
mod asked;
mod bench;
mod bpftime;
mod cache;
mod certificate;
mod commands;
mod compare;
mod control;
mod crash;
mod crash_programs;
mod disk_faults;
mod examples;
mod faults;
mod inherited;
mod input;
mod json;
mod lifecycle;
mod lsp;
mod notify;
mod objects;
mod operator;
mod oracle;
mod outputs;
mod patched;
mod policies;
mod power;
mod programs;
mod record;
mod replication;
mod rewrite;
mod settings;
mod shards;
mod simulate;
mod soak;
mod systemd;
mod tampered;
mod top;
mod trust;
mod updates;
mod watch;
