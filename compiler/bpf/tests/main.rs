//! The tests of objects: written, read back, verified and refused. One program, which links once.

mod common;
mod listing;
mod machine;
mod refused;
mod roundtrip;
mod tamper;
mod tools;
mod verify;
mod verify_bpftime;
