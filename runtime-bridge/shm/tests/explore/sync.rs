//! What `src/sync.rs` is in the crate, of loom's.

pub use loom::sync::atomic::Ordering;
use std::cell::Cell;

std::thread_local! {
    /// Every order is taken for a relaxed one: a bug that the explorer has to find.
    pub static WEAK: Cell<bool> = const { Cell::new(false) };
}

std::thread_local! {
    static GATE: Cell<Option<&'static loom::sync::atomic::AtomicUsize>> = const { Cell::new(None) };
}

/// An execution begins.
pub fn begin() {
    GATE.set(Some(Box::leak(Box::new(loom::sync::atomic::AtomicUsize::new(0)))));
}

/// loom remembers only the last access to a number, and so misses that a store comes after another thread's
/// load if its own thread has loaded in between. Here every access is a conflict with every other. A
/// relaxed store orders nothing.
fn point() {
    if let Some(gate) = GATE.get() {
        gate.store(0, Ordering::Relaxed);
    }
}

fn order(order: Ordering) -> Ordering {
    if WEAK.get() { Ordering::Relaxed } else { order }
}

#[derive(Debug)]
pub struct AtomicU64(loom::sync::atomic::AtomicU64);

impl AtomicU64 {
    pub fn new(value: u64) -> Self {
        Self(loom::sync::atomic::AtomicU64::new(value))
    }

    pub fn load(&self, by: Ordering) -> u64 {
        point();
        self.0.load(order(by))
    }

    pub fn store(&self, value: u64, by: Ordering) {
        point();
        self.0.store(value, order(by));
    }

    pub fn fetch_add(&self, value: u64, by: Ordering) -> u64 {
        point();
        self.0.fetch_add(value, order(by))
    }

    pub fn compare_exchange_weak(
        &self,
        current: u64,
        new: u64,
        good: Ordering,
        bad: Ordering,
    ) -> Result<u64, u64> {
        point();
        self.0.compare_exchange_weak(current, new, order(good), order(bad))
    }
}
