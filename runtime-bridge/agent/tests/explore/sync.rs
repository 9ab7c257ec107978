//! What `src/sync.rs` is in the agent, of loom's.

use crate::world;
use std::cell::Cell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::LockResult;
pub use std::sync::{OnceLock, PoisonError};
use std::time::Duration;

/// One, so that a busy pool can be met with few threads.
pub const WORKERS: usize = 1;

/// None, so that an execution ends.
pub const KEPT_WORKERS: usize = 0;

/// The log's atomic numbers change under its lock, or are hints beside it. Exploring them as loom's
/// own would multiply the states, and their orders are the business of `durac-trace`'s exploration.
pub mod atomic {
    pub use std::sync::atomic::{
        AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence,
    };

    /// What a descriptor is. Other threads may run before each look, and before each change.
    pub struct AtomicU16(std::sync::atomic::AtomicU16);

    impl AtomicU16 {
        pub const fn new(value: u16) -> Self {
            Self(std::sync::atomic::AtomicU16::new(value))
        }

        pub fn load(&self, order: Ordering) -> u16 {
            crate::world::point();
            self.0.load(order)
        }

        pub fn swap(&self, value: u16, order: Ordering) -> u16 {
            crate::world::point();
            self.0.swap(value, order)
        }

        pub fn compare_exchange(
            &self,
            old: u16,
            new: u16,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u16, u16> {
            crate::world::point();
            self.0.compare_exchange(old, new, success, failure)
        }
    }
}

pub fn yield_now() {
    loom::thread::yield_now();
}

/// Memory of the execution, which a forked child sees empty.
pub struct Emptied<T>(std::marker::PhantomData<T>);

impl<T> Emptied<T> {
    /// All of it is zero at the beginning, in the agent too.
    pub const fn new(value: T) -> Self {
        std::mem::forget(value);
        Self(std::marker::PhantomData)
    }
}

impl<T> Deref for Emptied<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let memory = world::memory(std::mem::size_of::<T>());
        // SAFETY: so much zeroed memory, aligned to pages, which lives to the end of the execution; the kernel
        // leaves a child the same.
        unsafe { &*memory.cast() }
    }
}

#[macro_export]
macro_rules! explored_local {
    (static $name:ident: $type:ty;) => {
        // SAFETY: in the agent, all bytes are zero at first, too.
        loom::thread_local! { static $name: $type = unsafe { std::mem::zeroed() }; }
    };
}
pub use crate::explored_local as zeroed_thread_local;

std::thread_local! {
    /// Conditions wake nobody: a bug that the explorer has to find.
    pub static DEAF: Cell<bool> = const { Cell::new(false) };
}

pub fn spawn(body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    if world::NO_THREADS.get() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let process = world::process();
    loom::thread::spawn(move || world::in_process(process, body));
    Ok(())
}

loom::thread_local! {
    /// Locks that this thread holds.
    static LOCKS: Cell<usize> = Cell::new(0);
}

pub struct Mutex<T> {
    inner: loom::sync::Mutex<T>,
    /// The process whose memory it is.
    process: usize,
}

pub struct MutexGuard<'a, T> {
    held: Option<loom::sync::MutexGuard<'a, T>>,
    mutex: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self { inner: loom::sync::Mutex::new(value), process: world::process() }
    }

    /// In a child the lock is a copy: of one that a thread held which the child does not have, it would wait
    /// for ever.
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        assert_eq!(self.process, world::process(), "a child takes a lock of its parent's");
        let held = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        LOCKS.with(|locks| locks.set(locks.get() + 1));
        Ok(MutexGuard { held: Some(held), mutex: self })
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        // What the explorer has found ends the execution.
        if !std::thread::panicking() {
            LOCKS.with(|locks| locks.set(locks.get() - 1));
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().unwrap()
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().unwrap()
    }
}

pub struct Condvar(loom::sync::Condvar);

pub struct Timeout(bool);

impl Timeout {
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub fn new() -> Self {
        Self(loom::sync::Condvar::new())
    }

    pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let held = self.0.wait(guard.held.take().unwrap());
        guard.held = Some(held.unwrap_or_else(PoisonError::into_inner));
        Ok(guard)
    }

    /// Time passes as soon as the others have had a chance to do something. Only who looks for slow syncs
    /// now and then has none to wait for here, and is to be woken: else no lost wake-up would be found.
    pub fn wait_timeout<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        time: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, Timeout)> {
        if time == durac_engine::SLOW {
            let guard = self.wait(guard).unwrap_or_else(PoisonError::into_inner);
            return Ok((guard, Timeout(false)));
        }
        guard.held = None;
        loom::thread::yield_now();
        world::pass(time);
        let held = guard.mutex.inner.lock().unwrap_or_else(PoisonError::into_inner);
        guard.held = Some(held);
        Ok((guard, Timeout(true)))
    }

    /// In the agent, what a thread does first it does between letting the lock go and sleeping.
    pub fn wait_timeout_after<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        time: Duration,
        first: impl FnOnce(),
    ) -> LockResult<(MutexGuard<'a, T>, Timeout)> {
        let locks = LOCKS.with(|locks| locks.replace(0));
        first();
        LOCKS.with(|held| held.set(locks));
        self.wait_timeout(guard, time)
    }

    /// Whoever is woken begins with the log's lock: if the caller still held it, both would wait once more.
    pub fn notify_one(&self) {
        if std::thread::panicking() {
            return;
        }
        LOCKS.with(|locks| assert_eq!(locks.get(), 0, "a thread is woken for a lock that is held"));
        if !DEAF.get() {
            self.0.notify_one();
        }
    }

    pub fn notify_all(&self) {
        if !DEAF.get() {
            self.0.notify_all();
        }
    }
}
