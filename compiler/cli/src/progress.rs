//! Watches a proof: says now and then how far it has got, and ends it when its time is over.

use crate::args::{Format, Global};
use crate::output;
use durac_driver::Watch;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Nothing is said before that, and again after as long.
const PERIOD: Duration = Duration::from_secs(8);

/// The clock of one proof.
#[derive(Debug)]
pub struct Progress {
    name: String,
    begun: Instant,
    said: Cell<Duration>,
    budget: Option<Duration>,
    /// JSON readers expect nothing but diagnostics.
    speaks: bool,
}

impl Progress {
    /// Begins now. `name`: of the policy.
    pub fn new(name: &str, global: &Global) -> Self {
        Self {
            name: name.to_owned(),
            begun: Instant::now(),
            said: Cell::default(),
            budget: global.budget,
            speaks: global.format != Format::Json,
        }
    }
}

impl Watch for Progress {
    fn goes_on(&self, states: usize) -> bool {
        let time = self.begun.elapsed();
        if self.speaks && time >= self.said.get() + PERIOD {
            self.said.set(time);
            let (name, time) = (&self.name, time.as_secs());
            output::stderr(&format!("durac: {name}: {states} states explored in {time} s\n"));
        }
        self.budget.is_none_or(|budget| time < budget)
    }
}
