//! What the writes of a log count beside its lock: their bytes, and which of the kernel's syncs cover
//! them.
//!
//! A write takes the highest ticket of the syncs that had begun when it was done, and only then counts
//! itself. Whoever reads the count first and the ticket afterwards has a ticket that is high enough for
//! all that it has counted.

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::watch::{self, Claimed, Watch};
use durac_engine::Log;

/// The counts of a log.
pub struct Written {
    /// Bytes written to the file, counted after each write.
    bytes: AtomicU64,
    /// The slot of the kernel's map; 0 if there is none.
    watched: AtomicU32,
    /// Every sync with a higher ticket covers what `bytes` counts.
    ticket: AtomicU64,
}

impl Written {
    /// Nothing is written, and nobody watches.
    pub fn new() -> Self {
        Self { bytes: AtomicU64::new(0), watched: AtomicU32::new(0), ticket: AtomicU64::new(0) }
    }

    /// The place serves another file.
    pub fn begin(&self) {
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// Counts bytes that were written.
    pub fn add(&self, bytes: u64) {
        if let Some(claimed) = self.claimed() {
            self.ticket.fetch_max(claimed.started(), Ordering::Relaxed);
        }
        self.bytes.fetch_add(bytes, Ordering::Release);
    }

    /// Brings the count to the engine, and what covers it to the watch.
    pub fn tell(&self, engine: &mut Log, watch: Option<&mut Watch>) {
        engine.wrote(self.bytes.load(Ordering::Acquire));
        if let Some(watch) = watch {
            watch.mark(engine, self.ticket.load(Ordering::Acquire));
        }
    }

    /// From now on the kernel watches the file, or no longer.
    pub fn set_watch(&self, watch: Option<&Watch>) {
        let claimed = watch.map(|watch| watch.claimed);
        self.ticket.store(claimed.map_or(0, Claimed::started), Ordering::Release);
        self.watched.store(claimed.map_or(0, Claimed::slot), Ordering::Release);
    }

    /// The slot of the kernel's map, if it watches.
    pub fn claimed(&self) -> Option<Claimed> {
        watch::claimed(self.watched.load(Ordering::Acquire))
    }
}
