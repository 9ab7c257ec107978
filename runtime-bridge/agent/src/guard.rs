//! Whether this thread is inside the agent.
//!
//! What the agent calls can call a hooked function again (an allocator that maps memory, a handler that was
//! installed behind the agent's back); it then goes straight to the real one.

use crate::signals;
use crate::sync;
use libc::c_int;
use std::cell::Cell;
use std::marker::PhantomData;

sync::zeroed_thread_local! {
    static INSIDE: Cell<bool>;
}

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

unsafe extern "C-unwind" {
    fn pthread_testcancel();
}

/// The application may cancel this thread here, as at the real functions that are cancellation points. No lock
/// is held.
#[inline]
pub fn test_cancel() {
    // SAFETY: no preconditions.
    unsafe { pthread_testcancel() };
}

const CANCEL_DISABLE: c_int = 1;

/// While it lives, the thread is inside: cancellations and the application's signal handlers wait until it
/// is out. Unwinding from here would leave a lock held for ever.
pub struct Inside {
    cancel: c_int,
    /// The flag is this thread's.
    thread: PhantomData<*const ()>,
}

/// Whether this thread is inside.
#[inline]
pub fn is_inside() -> bool {
    INSIDE.with(Cell::get)
}

/// Enters; none if the thread is inside already.
#[must_use]
pub fn enter() -> Option<Inside> {
    if INSIDE.with(|inside| inside.replace(true)) {
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
        INSIDE.with(|inside| inside.set(false));
        // Last: the handler that runs here may never return.
        signals::left();
    }
}

/// Runs `body` inside. A panic in it must not unwind into C: it becomes `None`, as does being
/// inside already, and the caller then does what it would have done without the agent.
pub fn run<T>(body: impl FnOnce() -> T) -> Option<T> {
    run_and_stay(body).map(|(result, _inside)| result)
}

/// As [`run`]; the thread stays inside as long as the caller wants.
pub fn run_and_stay<T>(body: impl FnOnce() -> T) -> Option<(T, Inside)> {
    let inside = enter()?;
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).ok()?;
    Some((result, inside))
}
