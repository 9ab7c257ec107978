//! One module for each command.

pub mod bench;
pub mod check;
pub mod compare;
pub mod compile;
pub mod crashtest;
pub mod explain;
pub mod fmt;
pub mod list;
pub mod load;
pub mod record;
pub mod run;
pub mod set;
pub mod simulate;
pub mod top;
