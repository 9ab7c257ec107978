//! What the agent's threads meet at: locks, conditions, atomic numbers and new threads.
//!
//! The modules that use it (`log`, `flight`, `pool`, `syncer`, `order`, `call`, `written`, `watch`,
//! `table`, `registry`, `guard`, `shared`) name nothing of `std::sync` themselves: `tests/explore` and `tests/tickets` compile the same texts with an explorer's primitives.

pub use crate::futex::{Condvar, Mutex, MutexGuard};
pub(crate) use crate::local::zeroed_thread_local;
pub use std::sync::{OnceLock, PoisonError};
pub use std::thread::yield_now;

/// Syncer threads of a device. More syncs at once only wait in its journal.
pub const WORKERS: usize = 16;

/// Syncer threads of a device that stay without work: a call in a signal handler must not have to start
/// one, because the C library allocates for it.
pub const KEPT_WORKERS: usize = 1;

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
        AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
        Ordering, fence,
    };
}

use libc::c_void;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Deref;

/// Stack of a syncer thread: it calls the engine and one system call.
const STACK: usize = 128 << 10;

/// Starts a syncer thread, by the C library: the standard library's own threads abort where the
/// application has no memory left.
///
/// # Errors
/// What the system said.
pub fn spawn(body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    spawn_with(STACK, c"durac-sync", body)
}

/// The same for a thread with a stack of this size, and with this name of less than 16 bytes.
///
/// # Errors
/// What the system said.
pub fn spawn_with(
    stack: usize,
    name: &'static CStr,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let body: Body = Box::new(move || {
        // SAFETY: the name is a C string.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
        body();
    });
    let argument = Box::into_raw(Box::new(body));
    let mut attributes = MaybeUninit::uninit();
    let mut thread = MaybeUninit::uninit();
    // SAFETY: the attributes are initialised before their use, and destroyed after it; the thread gets the
    // box, and nobody else has it.
    let result = without_signals(|| unsafe {
        libc::pthread_attr_init(attributes.as_mut_ptr());
        libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), stack);
        libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED);
        let result =
            libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), begin, argument.cast());
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        result
    });
    if result != 0 {
        // SAFETY: no thread has it.
        drop(unsafe { Box::from_raw(argument) });
        return Err(io::Error::from_raw_os_error(result));
    }
    Ok(())
}

type Body = Box<dyn FnOnce() + Send>;

extern "C" fn begin(argument: *mut c_void) -> *mut c_void {
    // SAFETY: `spawn` made it for this thread alone.
    let body = unsafe { Box::from_raw(argument.cast::<Body>()) };
    // A panic must not unwind into C; the pool counts the worker as gone.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    std::ptr::null_mut()
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
