//! Progress of long commands: a bar on a terminal; of a bench, else one line per measurement. On stderr.

use crate::bench::Load;
use crate::columns::grouped;
use crate::report::Measured;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};

/// A bar for steps that take seconds each.
pub const MEASUREMENTS: &str = "{bar:30} {pos}/{len} {msg} (about {eta} left)";

/// A bar of `steps`, drawn as `template` says, on a terminal only.
#[must_use]
pub fn bar(steps: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Shows the progress of one bench.
pub(crate) struct Progress {
    /// `None` when stderr is not a terminal.
    bar: Option<ProgressBar>,
    rounds: u32,
    current: String,
}

impl Progress {
    /// A bench of `rounds` rounds of `per_round` measurements.
    pub(crate) fn new(per_round: usize, rounds: u32) -> Self {
        let bar =
            stderr().is_terminal().then(|| bar(per_round as u64 * u64::from(rounds), MEASUREMENTS));
        Self { bar, rounds, current: String::new() }
    }

    /// A measurement begins.
    pub(crate) fn begin(&mut self, round: u32, load: Load, mode: &str) {
        self.current = format!("round {round}/{}, {load}, {mode}", self.rounds);
        if let Some(bar) = &self.bar {
            bar.set_message(self.current.clone());
            bar.tick();
        }
    }

    /// It has ended well.
    pub(crate) fn end(&mut self, measured: &Measured) {
        match &self.bar {
            Some(bar) => bar.inc(1),
            None => eprintln!("{}: {} req/s", self.current, grouped(measured.rps)),
        }
    }

    /// The bench has ended.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
