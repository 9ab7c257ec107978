//! The simulator: what policies would have cost an application whose calls were recorded.

pub mod report;
