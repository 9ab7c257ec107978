//! One module for each command.

pub mod advise;
pub mod bench;
pub mod check;
pub mod compare;
pub mod compile;
pub mod crashtest;
pub mod doctor;
pub mod enable;
pub mod explain;
pub mod fmt;
pub mod install;
pub mod list;
pub mod load;
pub mod lsp;
pub mod merge;
pub mod metrics;
pub mod record;
pub mod reload;
pub mod run;
pub mod set;
pub mod show;
pub mod simulate;
pub mod supervise;
pub mod test;
pub mod top;
pub mod watch;
