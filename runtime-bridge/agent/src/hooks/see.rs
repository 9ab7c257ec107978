//! Calls that could see a log's file: what is staged is written before.

use super::{keeps_nothing, seen, seen_by};
use crate::guard;
use crate::real;
use crate::registry;
use crate::table;
use libc::{c_char, c_int, c_uint, c_void, iovec, off_t, size_t, ssize_t};

macro_rules! sees {
    ($($name:ident / $real:ident($fd:ident: c_int $(, $arg:ident: $ty:ty)*) -> $ret:ty;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name($fd: c_int $(, $arg: $ty)*) -> $ret {
                seen_by($fd);
                // SAFETY: the caller's arguments, which it vouches for.
                unsafe { real::$real.get()($fd $(, $arg)*) }
            }
        )*
    };
}

sees! {
    read / READ(fd: c_int, data: *mut c_void, n: size_t) -> ssize_t;
    __read_chk / READ_CHK(fd: c_int, data: *mut c_void, n: size_t, room: size_t) -> ssize_t;
    pread / PREAD(fd: c_int, data: *mut c_void, n: size_t, at: off_t) -> ssize_t;
    pread64 / PREAD64(fd: c_int, data: *mut c_void, n: size_t, at: off_t) -> ssize_t;
    __pread_chk / PREAD_CHK(
        fd: c_int, data: *mut c_void, n: size_t, at: off_t, room: size_t
    ) -> ssize_t;
    __pread64_chk / PREAD64_CHK(
        fd: c_int, data: *mut c_void, n: size_t, at: off_t, room: size_t
    ) -> ssize_t;
    readv / READV(fd: c_int, v: *const iovec, n: c_int) -> ssize_t;
    preadv / PREADV(fd: c_int, v: *const iovec, n: c_int, at: off_t) -> ssize_t;
    preadv64 / PREADV64(fd: c_int, v: *const iovec, n: c_int, at: off_t) -> ssize_t;
    preadv2 / PREADV2(fd: c_int, v: *const iovec, n: c_int, at: off_t, flags: c_int) -> ssize_t;
    preadv64v2 / PREADV64V2(
        fd: c_int, v: *const iovec, n: c_int, at: off_t, flags: c_int
    ) -> ssize_t;
    lseek / LSEEK(fd: c_int, to: off_t, from: c_int) -> off_t;
    lseek64 / LSEEK64(fd: c_int, to: off_t, from: c_int) -> off_t;
    fstat / FSTAT(fd: c_int, stat: *mut libc::stat) -> c_int;
    fstat64 / FSTAT64(fd: c_int, stat: *mut libc::stat) -> c_int;
    fallocate / FALLOCATE(fd: c_int, mode: c_int, at: off_t, n: off_t) -> c_int;
    fallocate64 / FALLOCATE64(fd: c_int, mode: c_int, at: off_t, n: off_t) -> c_int;
    posix_fallocate / POSIX_FALLOCATE(fd: c_int, at: off_t, n: off_t) -> c_int;
    posix_fallocate64 / POSIX_FALLOCATE64(fd: c_int, at: off_t, n: off_t) -> c_int;
    flock / FLOCK(fd: c_int, how: c_int) -> c_int;
    lockf / LOCKF(fd: c_int, how: c_int, n: off_t) -> c_int;
    lockf64 / LOCKF64(fd: c_int, how: c_int, n: off_t) -> c_int;
}

/// Hook of `__fxstat`, which older C libraries have for `fstat`.
///
/// # Safety
/// As the real function.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __fxstat(
    version: c_int,
    fd: c_int,
    stat: *mut libc::stat,
) -> c_int {
    seen_by(fd);
    // SAFETY: the caller's arguments, which it vouches for.
    unsafe { real::FXSTAT.get()(version, fd, stat) }
}

/// Hook of `__fxstat64`.
///
/// # Safety
/// As the real function.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __fxstat64(
    version: c_int,
    fd: c_int,
    stat: *mut libc::stat,
) -> c_int {
    seen_by(fd);
    // SAFETY: the caller's arguments, which it vouches for.
    unsafe { real::FXSTAT64.get()(version, fd, stat) }
}

/// The pages of `fd` are mapped: nobody sees when they are read.
#[inline]
fn mapped(fd: c_int) {
    if !table::is_other(fd) {
        keeps_nothing(fd);
    }
}

macro_rules! maps {
    ($($name:ident / $real:ident;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name(
                address: *mut c_void,
                n: size_t,
                access: c_int,
                flags: c_int,
                fd: c_int,
                at: off_t,
            ) -> *mut c_void {
                mapped(fd);
                // SAFETY: the caller's arguments, which it vouches for.
                unsafe { real::$real.get()(address, n, access, flags, fd, at) }
            }
        )*
    };
}

maps! {
    mmap / MMAP;
    mmap64 / MMAP64;
}

/// A call that says how large the file of a name is. If that is a log with staged bytes, they are
/// written, and it is asked again: a file's name is resolved by the system alone.
#[inline]
fn named(real: impl Fn() -> c_int, id: impl Fn() -> (u64, u64)) -> c_int {
    let result = real();
    if result != 0 || !table::any_staged() {
        return result;
    }
    let kept = crate::errno::Kept::now();
    let written = guard::run(|| registry::settle_file(id())).unwrap_or(false);
    drop(kept);
    if written { real() } else { result }
}

macro_rules! stats {
    ($($name:ident / $real:ident($($arg:ident: $ty:ty),*) into $into:ident;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name($($arg: $ty),*) -> c_int {
                named(
                    // SAFETY: the caller's arguments, which it vouches for.
                    || unsafe { real::$real.get()($($arg),*) },
                    // SAFETY: the real function succeeded and filled it.
                    || unsafe { ((*$into).st_dev, (*$into).st_ino) },
                )
            }
        )*
    };
}

stats! {
    stat / STAT(path: *const c_char, into: *mut libc::stat) into into;
    stat64 / STAT64(path: *const c_char, into: *mut libc::stat) into into;
    lstat / LSTAT(path: *const c_char, into: *mut libc::stat) into into;
    lstat64 / LSTAT64(path: *const c_char, into: *mut libc::stat) into into;
    fstatat / FSTATAT(dir: c_int, path: *const c_char, into: *mut libc::stat, flags: c_int) into into;
    fstatat64 / FSTATAT64(dir: c_int, path: *const c_char, into: *mut libc::stat, flags: c_int) into into;
    __xstat / XSTAT(version: c_int, path: *const c_char, into: *mut libc::stat) into into;
    __xstat64 / XSTAT64(version: c_int, path: *const c_char, into: *mut libc::stat) into into;
    __lxstat / LXSTAT(version: c_int, path: *const c_char, into: *mut libc::stat) into into;
    __lxstat64 / LXSTAT64(version: c_int, path: *const c_char, into: *mut libc::stat) into into;
}

/// Hook of `statx`.
///
/// # Safety
/// As the real function.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn statx(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    stat: *mut libc::statx,
) -> c_int {
    named(
        // SAFETY: the caller's arguments, which it vouches for.
        || unsafe { real::STATX.get()(dir, path, flags, mask, stat) },
        || {
            // SAFETY: the real function succeeded and filled it.
            let stat = unsafe { &*stat };
            (libc::makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino)
        },
    )
}

macro_rules! streams {
    ($($name:ident / $real:ident($($arg:ident),*);)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name($($arg: *const c_void),*) -> *mut c_void {
                seen();
                // SAFETY: the caller's arguments, which it vouches for.
                unsafe { real::$real.get()($($arg),*) }
            }
        )*
    };
}

// They open files without calling `open`.
streams! {
    fopen / FOPEN(path, mode);
    fopen64 / FOPEN64(path, mode);
    freopen / FREOPEN(path, mode, stream);
    freopen64 / FREOPEN64(path, mode, stream);
}
