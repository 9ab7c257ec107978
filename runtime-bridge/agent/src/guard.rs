//! Keeps a thread that is inside the agent out of its hooks.
//!
//! Inside, the thread may hold a log's lock. A signal handler, the allocator or our own use of the
//! standard library could call a hooked function there; it then goes straight to the real one.

use libc::c_int;
use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

const CANCEL_DISABLE: c_int = 1;

/// While it lives, the thread is inside, and a cancellation waits until it is out: unwinding from
/// here would leave a lock held for ever.
pub struct Inside {
    cancel: c_int,
    /// The flag is this thread's.
    thread: PhantomData<*const ()>,
}

/// Enters; none if the thread is inside already.
#[must_use]
pub fn enter() -> Option<Inside> {
    if INSIDE.replace(true) {
        return None;
    }
    let mut cancel = 0;
    // SAFETY: `cancel` has room for the old state.
    unsafe { pthread_setcancelstate(CANCEL_DISABLE, &mut cancel) };
    Some(Inside { cancel, thread: PhantomData })
}

impl Drop for Inside {
    fn drop(&mut self) {
        // SAFETY: the state is one that this function returned.
        unsafe { pthread_setcancelstate(self.cancel, std::ptr::null_mut()) };
        INSIDE.set(false);
    }
}

/// Runs `body` inside. A panic in it must not unwind into C: it becomes `None`, as does being
/// inside already, and the caller then does what it would have done without us.
pub fn run<T>(body: impl FnOnce() -> T) -> Option<T> {
    let _inside = enter()?;
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).ok()
}
