//! The simulator: what policies would have cost an application whose calls were recorded.
//!
//! ```text
//! events ─Collector→ Trace ─fit→ Application + Device ─simulate(object)→ PolicyReport
//! ```
//!
//! A [`trace`] is read once and not kept; [`mod@fit`] makes a closed loop and a device from what it
//! says; [`simulate`] runs the compiled policy in that loop on a virtual clock, with the engine that
//! the agent uses; [`report`] is what it answers.
//!
//! What it is not: a replay of the recorded calls one by one, and a proof. It shows what happens in
//! the runs that it makes; what can be lost at worst is the model checker's.

pub mod application;
mod call;
mod connections;
pub mod device;
mod drive;
pub mod fit;
pub mod histogram;
pub mod html;
mod observe;
mod processor;
mod program;
pub mod random;
pub mod report;
mod syncer;
pub mod trace;

pub use drive::{SimulateError, Simulation, misses_updates};

use application::{Application, ApplicationKind};
use device::Device;
use durac_abi::Object;
use random::Random;
use report::PolicyReport;

/// How to simulate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Where the random numbers begin.
    pub seed: u64,
    /// So many crashes at random instants; none is one after each event.
    pub crashes: Option<u64>,
}

/// Runs `object` in the loop of `application` on `device`. `tick` is told now and then how many more
/// commands or calls are done; in all [`steps`].
///
/// # Errors
/// When the object's programs cannot be run, or nothing can go on.
pub fn simulate(
    application: &Application,
    device: &Device,
    object: &Object,
    options: Options,
    tick: &mut dyn FnMut(u64),
) -> Result<PolicyReport, SimulateError> {
    let mut run = |crashes| -> Result<_, SimulateError> {
        let mut simulation = Simulation::new(application, device, object, options.seed, crashes)?;
        let end = simulation.run(tick)?;
        Ok((simulation, end))
    };
    let (simulation, end) = match options.crashes {
        None => run(None)?,
        Some(count) => {
            // The same run once before says how long it takes.
            let (_, end) = run(Some(Vec::new()))?;
            let mut random = Random::new(!options.seed);
            run(Some((0..count).map(|_| random.below(end)).collect()))?
        }
    };
    let commands = match application.kind {
        ApplicationKind::EventLoop(_) => Some(simulation.done),
        ApplicationKind::Threads(_) => None,
    };
    let late = match object.meta.flush_within {
        Some(deadline) => simulation.seen.late(deadline, object.meta.assume_sync),
        None => Vec::new(),
    };
    let mut report = simulation.seen.report(end, commands);
    report.notes.extend(late);
    Ok(report)
}

/// What [`simulate`] counts to.
#[must_use]
pub fn steps(application: &Application, options: Options) -> u64 {
    application.amount * if options.crashes.is_some() { 2 } else { 1 }
}
