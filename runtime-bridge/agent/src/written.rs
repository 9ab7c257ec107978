//! What the writes of a log count beside its lock: their bytes, and which of the kernel's syncs cover
//! them.
//!
//! A write takes the highest ticket of the syncs that had begun when it was done, and only then counts
//! itself. Whoever reads the count first and the ticket afterwards has a ticket that is high enough for
//! all that it has counted.

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::watch::{self, Claimed, Watch};
use durac_engine::Log;
use durac_shm::status::{Counting, Uncounted};

/// The counts of a log.
pub struct Written {
    /// Bytes written to the file, counted after each write.
    bytes: AtomicU64,
    /// The slot of the kernel's map; 0 if there is none.
    watched: AtomicU32,
    /// Updates that are complete in them, and those of them that a replay applies.
    updates: AtomicU64,
    settled: AtomicU64,
    /// Why the updates are not known ([`Uncounted::code`]), or 0.
    uncounted: AtomicU32,
    /// Something can write that nobody counts, or 0.
    unseen: AtomicU32,
    /// Somebody writes whom nobody sees: whoever needs all that is written needs a sync that begins now.
    blind: AtomicU32,
    /// Every sync with a higher ticket covers what `bytes` counts.
    ticket: AtomicU64,
}

impl Written {
    /// Nothing is written, and nobody watches.
    pub fn new() -> Self {
        Self {
            bytes: AtomicU64::new(0),
            updates: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            uncounted: AtomicU32::new(0),
            unseen: AtomicU32::new(0),
            blind: AtomicU32::new(0),
            watched: AtomicU32::new(0),
            ticket: AtomicU64::new(0),
        }
    }

    /// The place serves another file.
    pub fn begin(&self) {
        self.bytes.store(0, Ordering::Relaxed);
        self.blind.store(0, Ordering::Relaxed);
    }

    /// The same for what a policy needs that reads how much is written.
    pub fn begin_amounts(&self) {
        self.updates.store(0, Ordering::Relaxed);
        self.settled.store(0, Ordering::Relaxed);
        self.uncounted.store(0, Ordering::Relaxed);
        self.unseen.store(0, Ordering::Relaxed);
    }

    /// Of what will be counted by [`Written::add`], so many updates are complete since the log was opened, and
    /// a replay applies so many.
    pub fn count_updates(&self, updates: u64, settled: u64) {
        // Before the ticket of `add`, a ticket of its own: what covers the bytes must not cover more updates.
        if let Some(claimed) = self.claimed() {
            self.ticket.fetch_max(claimed.started(), Ordering::Relaxed);
        }
        self.updates.store(updates, Ordering::Release);
        self.settled.store(settled, Ordering::Release);
    }

    /// The number of updates is not known from now on.
    pub fn lose(&self, why: Uncounted) {
        let code = u32::try_from(why.code()).unwrap_or(u32::MAX);
        // The first reason stays.
        let _ = self.uncounted.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
    }

    /// How much is written is not known from now on, either.
    pub fn lose_sight(&self, why: Uncounted) {
        self.lose(why);
        self.unseen.store(1, Ordering::Release);
    }

    /// Writes are not seen from now on, whatever the policy counts.
    pub fn go_blind(&self) {
        self.blind.store(1, Ordering::Release);
    }

    /// Whether there may be writes that nobody has seen.
    #[inline]
    pub fn is_blind(&self) -> bool {
        self.blind.load(Ordering::Acquire) != 0
    }

    /// There may be writes that nobody has seen: no sync that has begun counts as covering them.
    pub fn count_unseen(&self) {
        if self.is_blind() {
            self.add(1);
        }
    }

    /// Whether updates are counted, if the policy reads their number.
    pub fn counting(&self) -> Counting {
        match self.uncounted.load(Ordering::Acquire) {
            0 => Counting::Yes,
            code => Counting::of_code(code.into()),
        }
    }

    /// Counts bytes that were written.
    pub fn add(&self, bytes: u64) {
        if let Some(claimed) = self.claimed() {
            self.ticket.fetch_max(claimed.started(), Ordering::Relaxed);
        }
        self.bytes.fetch_add(bytes, Ordering::Release);
    }

    /// Bytes written.
    #[inline]
    pub fn total(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Brings the count to the engine, and what covers it to the watch.
    pub fn tell(&self, engine: &mut Log, watch: Option<&mut Watch>) {
        engine.wrote(self.bytes.load(Ordering::Acquire));
        if engine.rules().keeps_amounts {
            // In this order: whoever sees the second sees the first.
            let settled = self.settled.load(Ordering::Acquire);
            engine.counted(self.updates.load(Ordering::Acquire), settled);
            if self.uncounted.load(Ordering::Acquire) != 0 {
                engine.lose_updates();
            }
            if self.unseen.load(Ordering::Acquire) != 0 {
                engine.lose_bytes();
            }
        }
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
