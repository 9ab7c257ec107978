//! How far a bench is: a bar on a terminal, else one line per measurement, on stderr.

use crate::bench::Load;
use crate::report::Measured;
use crate::table::grouped;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};

/// Shows the progress of one bench.
pub(crate) struct Progress {
    /// `None` when stderr is no terminal.
    bar: Option<ProgressBar>,
    rounds: u32,
    current: String,
}

impl Progress {
    /// A bench of `rounds` rounds of `per_round` measurements.
    pub(crate) fn new(per_round: usize, rounds: u32) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(per_round as u64 * u64::from(rounds));
            let style =
                ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} (about {eta} left)");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
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
