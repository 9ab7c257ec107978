//! `durac record --from-strace`.

use crate::Outcome;
use crate::args::{Global, Record};
use anyhow::Result;
use std::path::Path;

/// Imports.
pub fn run(_file: &Path, _args: &Record, _global: &Global) -> Result<Outcome> {
    Ok(Outcome::Wrong)
}
