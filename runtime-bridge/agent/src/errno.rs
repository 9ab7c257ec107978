//! The calling thread's `errno`.

use libc::c_int;

/// Its value.
pub fn get() -> c_int {
    // SAFETY: the C library gives every thread a valid address.
    unsafe { *libc::__errno_location() }
}

/// Sets it.
pub fn set(errno: c_int) {
    // SAFETY: the address that the C library gives is this thread's own, so no other writes there.
    unsafe { *libc::__errno_location() = errno }
}

/// Puts the value back that it had, when dropped: a hook that succeeds leaves `errno` alone.
pub struct Kept(c_int);

impl Kept {
    /// Remembers the value.
    #[must_use]
    pub fn now() -> Self {
        Self(get())
    }

    /// A call fails: returns what the C library's functions return.
    pub fn fail(self, errno: c_int) -> c_int {
        std::mem::forget(self);
        set(errno);
        -1
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        set(self.0);
    }
}
