//! A lock and a condition on the kernel's futex alone. Those of the standard library read the time from the
//! C library, which another library may have changed.

use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sys;
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::LockResult;
use std::time::Duration;

const FREE: u32 = 0;
const LOCKED: u32 = 1;
/// Locked, and somebody sleeps.
const AWAITED: u32 = 2;

/// Sleeps while `word` is `value`, at most for `time`; returns whether the time was over.
pub fn sleep(word: &AtomicU32, value: u32, time: Option<Duration>) -> bool {
    let time = time.map(|time| libc::timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    });
    let timeout = time.as_ref().map_or(0, |time| std::ptr::from_ref(time).expose_provenance());
    let command = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word lives as long as the reference; the timeout is relative, and null or valid.
    let result = unsafe {
        sys::call(
            libc::SYS_futex,
            [
                std::ptr::from_ref(word).expose_provenance(),
                command as usize,
                value as usize,
                timeout,
            ],
        )
    };
    sys::decode(result) == Err(libc::ETIMEDOUT)
}

/// Wakes as many that sleep.
pub fn wake(word: &AtomicU32, count: i32) {
    let command = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word lives as long as the reference.
    unsafe {
        sys::call(
            libc::SYS_futex,
            [std::ptr::from_ref(word).expose_provenance(), command as usize, count as usize],
        )
    };
}

/// A lock. It is never poisoned; its methods return what the standard library's do.
pub struct Mutex<T> {
    state: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached with the lock held only.
unsafe impl<T: Send> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Mutex<T> {}

/// The lock, held.
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// The lock is this thread's.
    thread: std::marker::PhantomData<*const ()>,
}

impl<T> Mutex<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        Self { state: AtomicU32::new(FREE), value: UnsafeCell::new(value) }
    }

    /// Takes the lock.
    #[inline]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        if self.state.compare_exchange(FREE, LOCKED, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            self.wait_for_it();
        }
        Ok(MutexGuard { mutex: self, thread: std::marker::PhantomData })
    }

    #[cold]
    fn wait_for_it(&self) {
        for _ in 0..100 {
            if self.state.load(Ordering::Relaxed) == FREE
                && self
                    .state
                    .compare_exchange(FREE, LOCKED, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return;
            }
            std::hint::spin_loop();
        }
        while self.state.swap(AWAITED, Ordering::Acquire) != FREE {
            sleep(&self.state, AWAITED, None);
        }
    }

    #[inline]
    fn unlock(&self) {
        if self.state.swap(FREE, Ordering::Release) == AWAITED {
            wake(&self.state, 1);
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.unlock();
    }
}

/// A condition.
#[derive(Default)]
pub struct Condvar {
    /// Counts the calls that wake.
    calls: AtomicU32,
}

/// Whether a wait ended because its time was over.
#[derive(Clone, Copy, Debug)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the time was over.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// A condition that nobody waits for.
    pub const fn new() -> Self {
        Self { calls: AtomicU32::new(0) }
    }

    /// Wakes one thread that waits.
    pub fn notify_one(&self) {
        self.calls.fetch_add(1, Ordering::Release);
        wake(&self.calls, 1);
    }

    /// Wakes all threads that wait.
    pub fn notify_all(&self) {
        self.calls.fetch_add(1, Ordering::Release);
        wake(&self.calls, i32::MAX);
    }

    /// Lets the lock go, and waits until it is woken or the time is over. It may also return for no
    /// reason.
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        time: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        self.wait_timeout_after(guard, time, || {})
    }

    /// The same, with something to do between the two, without the lock.
    pub fn wait_timeout_after<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        time: Duration,
        first: impl FnOnce(),
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let calls = self.calls.load(Ordering::Acquire);
        let mutex = guard.mutex;
        drop(guard);
        first();
        let over = sleep(&self.calls, calls, Some(time));
        match mutex.lock() {
            Ok(guard) => Ok((guard, WaitTimeoutResult(over))),
            Err(error) => Ok((error.into_inner(), WaitTimeoutResult(over))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Condvar, Mutex};
    use std::sync::PoisonError;
    use std::time::Duration;

    #[test]
    fn the_lock_excludes() {
        let counter = Mutex::new(0_u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50_000 {
                        let mut held = counter.lock().unwrap_or_else(PoisonError::into_inner);
                        *held = std::hint::black_box(*held) + 1;
                    }
                });
            }
        });
        assert_eq!(*counter.lock().unwrap_or_else(PoisonError::into_inner), 200_000);
    }

    #[test]
    fn a_condition_wakes_or_its_time_is_over() {
        let (turn, changed) = (Mutex::new(0_u64), Condvar::new());
        std::thread::scope(|scope| {
            for me in 0..2 {
                let (turn, changed) = (&turn, &changed);
                scope.spawn(move || {
                    for _ in 0..2000 {
                        let mut held = turn.lock().unwrap_or_else(PoisonError::into_inner);
                        while *held % 2 != me {
                            let (again, late) = changed
                                .wait_timeout(held, Duration::from_secs(60))
                                .unwrap_or_else(PoisonError::into_inner);
                            assert!(!late.timed_out());
                            held = again;
                        }
                        *held += 1;
                        drop(held);
                        changed.notify_all();
                    }
                });
            }
        });
        let held = turn.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(*held, 4000);
        let (_, late) = changed
            .wait_timeout(held, Duration::from_millis(20))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(late.timed_out());
    }
}
