//! What the agent's threads meet at: locks, conditions, atomic numbers and new threads, all of the
//! standard library.
//!
//! The modules that use it (`log`, `flight`, `pool`, `syncer`, `order`, `call`, `written`, `watch`,
//! `table`, `registry`) name nothing of `std::sync` themselves: `tests/explore` and `tests/tickets` compile the same texts with an explorer's primitives.

pub use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
pub use std::thread::yield_now;
pub use std::thread_local;

/// Syncer threads of a device. More syncs at once only wait in its journal.
pub const WORKERS: usize = 16;

/// Memory that the kernel empties in forked children: `table` asks for it.
#[repr(transparent)]
pub struct Emptied<T>(T);

impl<T> Emptied<T> {
    /// The memory of the parent.
    pub const fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for Emptied<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Atomic numbers.
pub mod atomic {
    pub use std::sync::atomic::{
        AtomicBool, AtomicI32, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, Ordering, fence,
    };
}

use std::io;
use std::mem::MaybeUninit;
use std::ops::Deref;

/// Stack of a syncer thread: it calls the engine and one system call.
const STACK: usize = 128 << 10;

/// Starts a syncer thread.
///
/// # Errors
/// What the system said.
pub fn spawn(body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = std::thread::Builder::new().name("durac-sync".into()).stack_size(STACK);
    without_signals(|| builder.spawn(body)).map(drop)
}

/// Runs `body` with all signals blocked, so that a thread it starts inherits that: the
/// application's handlers run on the application's threads.
fn without_signals<T>(body: impl FnOnce() -> T) -> T {
    let mut all = MaybeUninit::uninit();
    let mut old = MaybeUninit::uninit();
    // SAFETY: `sigfillset` fills `all`, `pthread_sigmask` fills `old`, both before their use.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
    }
    let result = body();
    // SAFETY: `old` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), std::ptr::null_mut()) };
    result
}
