//! The tests of the engine. One program, which links once.

mod completion;
mod grace;
mod model;
mod pace;
mod records;
mod release;
mod requests;
mod rules;
mod schedule;
mod slow;
mod stage;
mod time;
mod updates;
