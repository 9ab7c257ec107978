//! Whether the application's memory can be read.
//!
//! The kernel returns `EFAULT` for a bad pointer; a read by the agent would end the application by a
//! signal. So the kernel tries first, a page at a time, by a call that reads eight bytes there and
//! then refuses what it was called for: it costs as little as a system call can, and changes nothing.
//! What cannot be read is left to the application's own call, which says what the kernel says.

use crate::sys;
use libc::{c_int, c_void, iovec};

/// The smallest page: what can be read of it can be read as a whole.
pub const PAGE: usize = 4096;

/// Where a page is read: not at address 0, which means no signals.
const PROBED: usize = SIGNALS;

/// Bytes of a set of signals.
const SIGNALS: usize = size_of::<u64>();

/// What `rt_sigprocmask` refuses, after it has read the signals (`kernel/signal.c`, `sigprocmask`).
const NO_COMMAND: c_int = -1;

/// Whether all of it can be read. A thread that takes the memory away at the same time breaks the
/// application's own call too.
pub fn all(data: *const c_void, len: usize) -> bool {
    let first = data.addr();
    let Some(end) = first.checked_add(len).filter(|&end| end <= isize::MAX as usize) else {
        return false;
    };
    let mut pages = first / PAGE..end.div_ceil(PAGE);
    len == 0 || pages.all(|page| has(page * PAGE + PROBED))
}

/// The pieces of a vector, if the array itself can be read.
pub fn array(pieces: *const iovec, count: usize) -> Option<impl Iterator<Item = iovec>> {
    // SAFETY: all of the array can be read, and any bytes are a piece; nothing says that it is aligned.
    let piece = move |index| unsafe { pieces.add(index).read_unaligned() };
    let readable = all(pieces.cast(), count.checked_mul(size_of::<iovec>())?);
    readable.then(|| (0..count).map(piece))
}

/// Whether there is memory at this address.
fn has(address: usize) -> bool {
    // SAFETY: the kernel reads the address, and refuses the command: nothing is changed.
    let result =
        unsafe { sys::call(libc::SYS_rt_sigprocmask, [NO_COMMAND as usize, address, 0, SIGNALS]) };
    // Where a filter returns in the kernel's place, nothing is known, as before.
    sys::decode(result) != Err(libc::EFAULT)
}
