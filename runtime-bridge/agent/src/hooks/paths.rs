//! Calls that change names: what the logs have deferred comes first.

use crate::call;
use crate::errno::Kept;
use crate::guard;
use crate::order;
use crate::real;
use crate::registry;
use crate::table;
use libc::{c_char, c_int, c_uint, off_t};

/// Drains every log, then carries out `real`; fails if the drain fails.
pub(super) fn drained<T: From<i8>>(real: impl FnOnce() -> T) -> T {
    if table::dirty() > 0 {
        let kept = Kept::now();
        if let Some(Err(errno)) = guard::run(|| order::drain_others(None)) {
            kept.fail(errno);
            return T::from(-1);
        }
    }
    real()
}

macro_rules! paths {
    ($($name:ident / $real:ident($($arg:ident: $ty:ty),*);)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name($($arg: $ty),*) -> c_int {
                // SAFETY: the caller's arguments, which it vouches for.
                drained(|| unsafe { real::$real.get()($($arg),*) })
            }
        )*
    };
}

paths! {
    rename / RENAME(from: *const c_char, to: *const c_char);
    renameat / RENAMEAT(dir: c_int, from: *const c_char, to_dir: c_int, to: *const c_char);
    renameat2 / RENAMEAT2(
        dir: c_int, from: *const c_char, to_dir: c_int, to: *const c_char, flags: c_uint
    );
    unlink / UNLINK(path: *const c_char);
    unlinkat / UNLINKAT(dir: c_int, path: *const c_char, flags: c_int);
    remove / REMOVE(path: *const c_char);
    symlink / SYMLINK(from: *const c_char, to: *const c_char);
    symlinkat / SYMLINKAT(from: *const c_char, dir: c_int, to: *const c_char);
    rmdir / RMDIR(path: *const c_char);
    link / LINK(from: *const c_char, to: *const c_char);
    linkat / LINKAT(
        dir: c_int, from: *const c_char, to_dir: c_int, to: *const c_char, flags: c_int
    );
}

/// Hook of `sync`, which cannot fail: an error stays in its log.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn sync() {
    // SAFETY: no preconditions.
    let real = || unsafe { real::SYNC.get()() };
    if drained(|| 0_i32) != 0 {
        return real();
    }
    real();
}

/// A change of the length of the file at `path`, which `real` carries out.
pub(super) fn resize<T: From<i8> + PartialEq>(path: *const c_char, real: impl FnOnce() -> T) -> T {
    let result = drained(real);
    if result == T::from(0) && table::registry().is_some() {
        let kept = Kept::now();
        guard::run(|| {
            if let Some(slot) = registry::slot_at(path) {
                call::after_change(slot, crate::policy::get());
            }
        });
        drop(kept);
    }
    result
}

/// Hook of `truncate`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn truncate(path: *const c_char, length: off_t) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    resize(path, || unsafe { real::TRUNCATE.get()(path, length) })
}

/// Hook of `truncate64`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn truncate64(path: *const c_char, length: off_t) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    resize(path, || unsafe { real::TRUNCATE64.get()(path, length) })
}
