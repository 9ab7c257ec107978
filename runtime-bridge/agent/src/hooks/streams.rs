//! Streams of the C library: they open, close and write files without a call that has a hook.

use super::{forget_stale, seen};
use crate::real;
use crate::stage::StageOff;
use libc::{c_char, c_int, c_void};
use std::ffi::CStr;

/// Whether this mode empties the file.
///
/// # Safety
/// As `fopen`: it is null or a C string.
unsafe fn empties(mode: *const c_void) -> bool {
    // SAFETY: not null, so a C string, which has a first byte.
    !mode.is_null() && unsafe { mode.cast::<u8>().read() } == b'w'
}

/// Whether this mode lets the stream write.
///
/// # Safety
/// As `fopen`: it is null or a C string.
unsafe fn writes(mode: *const c_void) -> bool {
    // SAFETY: not null, so a C string.
    let text = (!mode.is_null()).then(|| unsafe { CStr::from_ptr(mode.cast()) });
    text.is_some_and(|mode| mode.to_bytes().iter().any(|byte| b"wa+".contains(byte)))
}

/// Runs a call that opens a stream.
///
/// # Safety
/// `path` and `mode` are null or C strings.
#[inline]
unsafe fn opened(
    path: *const c_void,
    mode: *const c_void,
    real: impl FnOnce() -> *mut c_void,
) -> *mut c_void {
    seen();
    // SAFETY: the caller's promise.
    if unsafe { empties(mode) } && super::paths::drained(|| 0_i32) < 0 {
        return std::ptr::null_mut();
    }
    let stream = real();
    if !stream.is_null() {
        // SAFETY: a stream that was just opened.
        let fd = unsafe { libc::fileno(stream.cast()) };
        forget_stale(fd);
        super::opened_again(fd);
        // SAFETY: the caller's promise.
        if unsafe { writes(mode) } {
            super::open::opened_by_stream(fd, path.cast());
        }
    }
    stream
}

macro_rules! streams {
    ($($name:ident / $real:ident($path:ident, $mode:ident $(, $stream:ident)?);)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name(
                $path: *const c_void,
                $mode: *const c_void,
                $($stream: *const c_void,)?
            ) -> *mut c_void {
                // SAFETY: the caller's arguments, which it vouches for.
                unsafe { opened($path, $mode, || real::$real.get()($path, $mode $(, $stream)?)) }
            }
        )*
    };
}

streams! {
    fopen / FOPEN(path, mode);
    fopen64 / FOPEN64(path, mode);
    freopen / FREOPEN(path, mode, stream);
    freopen64 / FREOPEN64(path, mode, stream);
}

/// Hook of `fclose`: the descriptor's entry goes as with `close`, and what is deferred is made durable.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn fclose(stream: *mut c_void) -> c_int {
    // SAFETY: the caller vouches for the stream; the call fails for one without a descriptor.
    let fd = if stream.is_null() { -1 } else { unsafe { libc::fileno(stream.cast()) } };
    super::files::stream_closed(fd, stream, |stream| {
        // SAFETY: the caller's argument.
        unsafe { real::FCLOSE.get()(stream) }
    })
}

/// Hook of `fdopen`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn fdopen(fd: c_int, mode: *const c_char) -> *mut c_void {
    // SAFETY: the caller's argument.
    let writes = unsafe { writes(mode.cast()) };
    if !crate::table::is_other(fd) {
        super::sockets::streamed(fd, writes);
        super::revoke(fd, StageOff::Stream);
    }
    if writes {
        super::lose_writes(fd);
        super::found::given_a_stream(fd);
    }
    // SAFETY: the caller's arguments, which it vouches for.
    unsafe { real::FDOPEN.get()(fd, mode.cast()) }
}
