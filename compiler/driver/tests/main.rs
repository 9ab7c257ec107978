//! The tests of the compiler as a whole. One program, which links once, and whose tests run side by side.

mod bounds;
mod bpftime_programs;
mod certificate;
mod common;
mod false_accepts;
mod faults;
mod first_tries;
mod guarantees;
mod limits;
mod messages;
mod mutations;
mod naive;
mod promises;
mod replay;
mod ring;
mod runs;
mod sizes;
mod stage;
mod tests;
mod texts;
