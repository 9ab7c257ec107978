//! What `src/sync.rs` is in the agent, of loom's, as far as the explored modules use it.

use std::cell::Cell;

std::thread_local! {
    /// The agent's barriers do nothing: a bug that the explorer has to find.
    pub static FENCELESS: Cell<bool> = const { Cell::new(false) };
    static GATE: Cell<Option<&'static loom::sync::atomic::AtomicUsize>> = const { Cell::new(None) };
    static MAP: Cell<Option<&'static &'static [atomic::AtomicU64]>> = const { Cell::new(None) };
}

/// An execution begins.
pub fn begin() {
    MAP.set(None);
    GATE.set(Some(Box::leak(Box::new(loom::sync::atomic::AtomicUsize::new(0)))));
}

/// A number that is set once in each execution.
pub struct OnceLock<T>(std::marker::PhantomData<T>);

impl OnceLock<&'static [atomic::AtomicU64]> {
    pub const fn new() -> Self {
        Self(std::marker::PhantomData)
    }

    pub fn get(&self) -> Option<&'static &'static [atomic::AtomicU64]> {
        MAP.get()
    }

    pub fn get_or_init(
        &self,
        make: impl FnOnce() -> &'static [atomic::AtomicU64],
    ) -> &'static &'static [atomic::AtomicU64] {
        let map = MAP.get().unwrap_or_else(|| Box::leak(Box::new(make())));
        MAP.set(Some(map));
        map
    }
}

pub mod atomic {
    use super::{FENCELESS, GATE};
    pub use loom::sync::atomic::Ordering;

    /// loom remembers only the last access to a number (see `durac-trace`'s exploration): here every access is
    /// a conflict with every other. A relaxed store orders nothing.
    fn point() {
        if let Some(gate) = GATE.get() {
            gate.store(0, Ordering::Relaxed);
        }
    }

    pub fn fence(order: Ordering) {
        if !FENCELESS.get() {
            loom::sync::atomic::fence(order);
        }
    }

    macro_rules! numbers {
        ($($name:ident($number:ty);)*) => {
            $(
                pub struct $name(loom::sync::atomic::$name);

                impl $name {
                    pub fn new(value: $number) -> Self {
                        Self(loom::sync::atomic::$name::new(value))
                    }

                    pub fn load(&self, order: Ordering) -> $number {
                        point();
                        self.0.load(order)
                    }

                    pub fn store(&self, value: $number, order: Ordering) {
                        point();
                        self.0.store(value, order);
                    }

                    pub fn fetch_add(&self, value: $number, order: Ordering) -> $number {
                        point();
                        self.0.fetch_add(value, order)
                    }

                    pub fn fetch_max(&self, value: $number, order: Ordering) -> $number {
                        point();
                        self.0.fetch_max(value, order)
                    }

                    pub fn compare_exchange(
                        &self,
                        current: $number,
                        new: $number,
                        good: Ordering,
                        bad: Ordering,
                    ) -> Result<$number, $number> {
                        point();
                        self.0.compare_exchange(current, new, good, bad)
                    }
                }
            )*
        };
    }

    numbers! {
        AtomicU32(u32);
        AtomicU64(u64);
    }
}
