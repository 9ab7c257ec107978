//! Calls that could see a log's file: what is staged is written before.

use super::sockets::received;
use super::write::many;
use super::{revoke, seen_by, uncount};
use crate::call;
use crate::guard;
use crate::real;
use crate::registry;
use crate::stage::{Pieces, StageOff};
use crate::table;
use libc::{c_char, c_int, c_uint, c_ulong, c_void, iovec, off_t, size_t, ssize_t};

macro_rules! sees {
    ($($name:ident / $real:ident($fd:ident: c_int $(, $arg:ident: $ty:ty)*) -> $ret:ty;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name($fd: c_int $(, $arg: $ty)*) -> $ret {
                seen_by($fd);
                // SAFETY: the caller's arguments, which it vouches for.
                unsafe { real::$real.get()($fd $(, $arg)*) }
            }
        )*
    };
}

sees! {
    pread / PREAD(fd: c_int, data: *mut c_void, n: size_t, at: off_t) -> ssize_t;
    pread64 / PREAD64(fd: c_int, data: *mut c_void, n: size_t, at: off_t) -> ssize_t;
    __pread_chk / PREAD_CHK(
        fd: c_int, data: *mut c_void, n: size_t, at: off_t, room: size_t
    ) -> ssize_t;
    __pread64_chk / PREAD64_CHK(
        fd: c_int, data: *mut c_void, n: size_t, at: off_t, room: size_t
    ) -> ssize_t;
    preadv / PREADV(fd: c_int, v: *const iovec, n: c_int, at: off_t) -> ssize_t;
    preadv64 / PREADV64(fd: c_int, v: *const iovec, n: c_int, at: off_t) -> ssize_t;
    fstat / FSTAT(fd: c_int, stat: *mut libc::stat) -> c_int;
    fstat64 / FSTAT64(fd: c_int, stat: *mut libc::stat) -> c_int;
    futimens / FUTIMENS(fd: c_int, times: *const libc::timespec) -> c_int;
}

macro_rules! reads {
    ($($name:ident / $real:ident($fd:ident: c_int $(, $arg:ident: $ty:ty)*) -> $pieces:expr;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name($fd: c_int $(, $arg: $ty)*) -> ssize_t {
                seen_by($fd);
                // SAFETY: the caller's arguments, which it vouches for.
                let result = unsafe { real::$real.get()($fd $(, $arg)*) };
                received($fd, $pieces, result)
            }
        )*
    };
}

reads! {
    read / READ(fd: c_int, data: *mut c_void, n: size_t) -> Some(Pieces::One(data, n));
    __read_chk / READ_CHK(fd: c_int, data: *mut c_void, n: size_t, room: size_t) -> Some(Pieces::One(data, n.min(room)));
    readv / READV(fd: c_int, v: *const iovec, n: c_int) -> many(v, n);
    preadv2 / PREADV2(fd: c_int, v: *const iovec, n: c_int, at: off_t, flags: c_int) -> many(v, n);
    preadv64v2 / PREADV64V2(
        fd: c_int, v: *const iovec, n: c_int, at: off_t, flags: c_int
    ) -> many(v, n);
}

/// `fd` gets another position: the one where it is, or the end, changes nothing.
#[inline]
fn moves(fd: c_int, to: off_t, from: c_int) {
    let stays = to == 0 && matches!(from, libc::SEEK_CUR | libc::SEEK_END);
    if !stays && !table::is_other(fd) {
        uncount(fd, true);
    }
}

/// A request to the device or file system of `fd`: some put another file's bytes there (`FICLONE`).
#[inline]
pub(super) fn controls_device(fd: c_int, request: usize) {
    if !is_harmless(request) && !table::is_other(fd) {
        uncount(fd, false);
    }
}

/// Whether a request only asks. The C library's `isatty` sends the first.
pub(super) fn is_harmless(request: usize) -> bool {
    matches!(request as c_ulong, libc::TCGETS | libc::FIONREAD)
}

/// The file of `fd` may have changed, if the call succeeded: replies wait for that.
#[inline]
fn changed(fd: c_int, result: c_int) {
    if result == 0
        && !table::is_other(fd)
        && let Some(log) = super::log_of(fd).filter(|log| log.registry.is_ours())
    {
        guard::run(|| call::after_change(log.slot, Some(log.policy)));
    }
}

macro_rules! changes {
    ($($name:ident / $real:ident($fd:ident: c_int $(, $arg:ident: $ty:ty)*) -> $ret:ty, $before:expr;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name($fd: c_int $(, $arg: $ty)*) -> $ret {
                seen_by($fd);
                $before;
                // SAFETY: the caller's arguments, which it vouches for.
                unsafe { real::$real.get()($fd $(, $arg)*) }
            }
        )*
    };
}

changes! {
    lseek / LSEEK(fd: c_int, to: off_t, from: c_int) -> off_t, moves(fd, to, from);
    lseek64 / LSEEK64(fd: c_int, to: off_t, from: c_int) -> off_t, moves(fd, to, from);
}

macro_rules! allocations {
    ($($name:ident / $real:ident($fd:ident: c_int $(, $arg:ident: $ty:ty)*) $fails:ident;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name($fd: c_int $(, $arg: $ty)*) -> c_int {
                // SAFETY: the caller's arguments, which it vouches for.
                let real = || unsafe { real::$real.get()($fd $(, $arg)*) };
                if table::is_other($fd) { real() } else { allocate($fd, $fails, real) }
            }
        )*
    };
}

allocations! {
    fallocate / FALLOCATE(fd: c_int, mode: c_int, at: off_t, n: off_t) with_errno;
    fallocate64 / FALLOCATE64(fd: c_int, mode: c_int, at: off_t, n: off_t) with_errno;
    posix_fallocate / POSIX_FALLOCATE(fd: c_int, at: off_t, n: off_t) with_result;
    posix_fallocate64 / POSIX_FALLOCATE64(fd: c_int, at: off_t, n: off_t) with_result;
}

/// How most functions fail.
fn with_errno(errno: c_int) -> c_int {
    crate::errno::set(errno);
    -1
}

/// How `posix_fallocate` fails: it leaves `errno` alone.
fn with_result(errno: c_int) -> c_int {
    errno
}

/// The file of `fd` gets blocks, loses some, or grows. If its writes are durable at once, so is this.
#[inline(never)]
fn allocate(fd: c_int, fails: fn(c_int) -> c_int, real: impl FnOnce() -> c_int) -> c_int {
    seen_by(fd);
    uncount(fd, false);
    if table::get(fd) == table::Entry::Durable {
        let kept = crate::errno::Kept::now();
        let drained = super::paths::drained(|| 0_i32);
        let errno = crate::errno::get();
        drop(kept);
        if drained < 0 {
            return fails(errno);
        }
    }
    let result = real();
    changed(fd, result);
    result
}

/// Hook of `ioctl`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int {
    seen_by(fd);
    controls_device(fd, request as usize);
    // SAFETY: the caller's arguments, which it vouches for.
    let result = unsafe { real::IOCTL.get()(fd, request, argument) };
    if !is_harmless(request as usize) {
        changed(fd, result);
    }
    result
}

/// Hook of `__fxstat`, which older C libraries have for `fstat`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn __fxstat(version: c_int, fd: c_int, stat: *mut libc::stat) -> c_int {
    seen_by(fd);
    // SAFETY: the caller's arguments, which it vouches for.
    unsafe { real::FXSTAT.get()(version, fd, stat) }
}

/// Hook of `__fxstat64`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn __fxstat64(version: c_int, fd: c_int, stat: *mut libc::stat) -> c_int {
    seen_by(fd);
    // SAFETY: the caller's arguments, which it vouches for.
    unsafe { real::FXSTAT64.get()(version, fd, stat) }
}

/// The pages of `fd` are mapped: nobody sees when they are read, or written, which `mprotect` may allow later.
#[inline]
pub(super) fn mapped(fd: c_int, flags: c_int) {
    if !table::is_other(fd) {
        revoke(fd, StageOff::Mapped);
        if flags & libc::MAP_SHARED != 0 {
            super::lose_writes(fd);
        }
    }
}

macro_rules! maps {
    ($($name:ident / $real:ident;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name(
                address: *mut c_void,
                n: size_t,
                access: c_int,
                flags: c_int,
                fd: c_int,
                at: off_t,
            ) -> *mut c_void {
                mapped(fd, flags);
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
/// written, and the call is made again: a file's name is resolved by the system alone.
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
            #[inline]
            pub unsafe fn $name($($arg: $ty),*) -> c_int {
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
    __fxstatat / FXSTATAT(
        version: c_int, dir: c_int, path: *const c_char, into: *mut libc::stat, flags: c_int
    ) into into;
    __fxstatat64 / FXSTATAT64(
        version: c_int, dir: c_int, path: *const c_char, into: *mut libc::stat, flags: c_int
    ) into into;
    __xstat / XSTAT(version: c_int, path: *const c_char, into: *mut libc::stat) into into;
    __xstat64 / XSTAT64(version: c_int, path: *const c_char, into: *mut libc::stat) into into;
    __lxstat / LXSTAT(version: c_int, path: *const c_char, into: *mut libc::stat) into into;
    __lxstat64 / LXSTAT64(version: c_int, path: *const c_char, into: *mut libc::stat) into into;
}

/// Hook of `statx`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn statx(
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
