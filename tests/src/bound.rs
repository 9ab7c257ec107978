//! Samples a status page at full load: is it ever above what the policy states?

use anyhow::{Context, Result};
use durac_shm::status::Status;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A thread that reads the page again and again.
#[derive(Debug)]
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Samples>,
}

/// What it saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// Number of samples in which something was pending.
    pub busy: u64,
    /// Most acknowledged and not durable in one sample, over all logs.
    pub sampled: u64,
    /// The most that the page itself remembers.
    pub remembered: u64,
    /// Sync calls that the application made.
    pub calls: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
}

impl Sampler {
    /// Starts to sample the page at `path`.
    ///
    /// # Errors
    /// If there is no page.
    pub fn start(path: &Path) -> Result<Self> {
        let status = Status::open(path).with_context(|| path.display().to_string())?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut samples = Samples::default();
                while !stop.load(Ordering::Relaxed) {
                    look(&status, &mut samples);
                    // Often enough to hit every state, seldom enough to leave the core to Redis.
                    std::thread::sleep(Duration::from_micros(100));
                }
                look(&status, &mut samples);
                samples
            }
        });
        Ok(Self { stop, thread })
    }

    /// What was seen until now; ends the thread.
    ///
    /// # Errors
    /// If the thread panicked.
    pub fn stop(self) -> Result<Samples> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the sampler panicked")
    }
}

fn look(status: &Status, samples: &mut Samples) {
    let snapshot = status.snapshot();
    let numbers = || snapshot.logs.iter().map(|log| log.numbers);
    let pending = numbers().map(|log| log.pending()).sum();
    samples.busy += u64::from(pending > 0);
    samples.sampled = samples.sampled.max(pending);
    samples.remembered = numbers().map(|log| log.max_pending).max().unwrap_or(0);
    samples.calls = numbers().map(|log| log.calls).sum();
    samples.syncs = numbers().map(|log| log.syncs).sum();
}
