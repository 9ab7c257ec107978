//! The lock of a log, held: whom it wakes, it wakes when it is let go.

use crate::log::Core;
use crate::pool::Pool;
use crate::sync::{Condvar, MutexGuard, PoisonError};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// The lock, held.
pub struct Held<'a> {
    core: MutexGuard<'a, Core>,
    /// Dropped behind the lock: a thread that is woken before would only wait for it.
    wakes: Wakes,
}

/// A syncer thread to be woken.
struct Wakes(Option<&'static Pool>);

impl Drop for Wakes {
    #[inline]
    fn drop(&mut self) {
        if let Some(pool) = self.0.take() {
            pool.wake();
        }
    }
}

impl<'a> Held<'a> {
    /// Of a lock that was just taken.
    #[inline]
    pub fn new(core: MutexGuard<'a, Core>) -> Self {
        Self { core, wakes: Wakes(None) }
    }

    /// A syncer thread of this pool is woken when the lock is let go.
    pub fn wakes(&mut self, pool: &'static Pool) {
        self.wakes = Wakes(Some(pool));
    }

    /// Lets the lock go, and waits for the condition or the time; returns whether that was over.
    pub fn wait_timeout(self, condition: &Condvar, time: Duration) -> (Self, bool) {
        let Self { core, wakes } = self;
        let (core, over) = condition
            .wait_timeout_after(core, time, || drop(wakes))
            .unwrap_or_else(PoisonError::into_inner);
        (Self::new(core), over.timed_out())
    }
}

impl Deref for Held<'_> {
    type Target = Core;

    #[inline]
    fn deref(&self) -> &Core {
        &self.core
    }
}

impl DerefMut for Held<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Core {
        &mut self.core
    }
}
