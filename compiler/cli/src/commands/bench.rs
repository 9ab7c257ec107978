//! `durac bench`: policies side by side on a real database.

use crate::Outcome;
use crate::args::{Bench, Global};
use anyhow::Result;

/// Measures and prints the table.
pub fn run(_args: &Bench, _global: &Global) -> Result<Outcome> {
    Err(crate::output::exit(2, "bench is being wired"))
}
