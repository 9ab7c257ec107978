//! In which `epoll` a connection is registered. The kernel takes a registration out with the last descriptor of the connection. What
//! is held of one that the application closes keeps a descriptor: an event loop that relies on `close` would go on to
//! hear of the connection, and could not take it out any more.
//!
//! One `epoll` is remembered for each number. The number is given back to the kernel before it is closed, as the kernel finds a
//! registration by the number and the open file.

use crate::sys;
use crate::table::{self, Entry, FDS};
use libc::c_int;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

/// In none.
const NONE: i32 = 0;
/// In several, or in one that is not known.
const UNKNOWN: i32 = -1;

/// For each number, which `epoll`: its number + 1.
static IN: [AtomicI32; FDS] = [const { AtomicI32::new(NONE) }; FDS];

fn place(fd: RawFd) -> Option<&'static AtomicI32> {
    usize::try_from(fd).ok().and_then(|fd| IN.get(fd))
}

/// Of a child that shares the memory nothing is remembered: its numbers are its own.
fn of_reply(fd: RawFd) -> Option<&'static AtomicI32> {
    let is_ours = table::get(fd) == Entry::Reply && !table::is_in_child();
    place(fd).filter(|_| is_ours)
}

/// The number is given to a connection.
pub fn begin(fd: RawFd) {
    if let Some(place) = place(fd) {
        place.store(NONE, Ordering::Release);
    }
}

/// It was added to this `epoll`.
pub fn added(epoll: RawFd, fd: RawFd) {
    let Some(place) = of_reply(fd) else { return };
    let _ = place.fetch_update(Ordering::AcqRel, Ordering::Acquire, |was| {
        Some(if was == NONE || was == epoll + 1 { epoll + 1 } else { UNKNOWN })
    });
}

/// It may have been added to one.
pub fn added_unseen(fd: RawFd) {
    if let Some(place) = of_reply(fd) {
        place.store(UNKNOWN, Ordering::Release);
    }
}

/// It is taken out of this `epoll` by `real`. Forgotten before: a thread that adds it meanwhile can do so only after `real`, and
/// its `epoll` is remembered.
pub fn removed(epoll: RawFd, fd: RawFd, real: impl FnOnce() -> c_int) -> c_int {
    let Some(place) = of_reply(fd) else { return real() };
    let known =
        place.compare_exchange(epoll + 1, NONE, Ordering::AcqRel, Ordering::Acquire).is_ok();
    let result = real();
    if known && result != 0 {
        added(epoll, fd);
    }
    result
}

/// Whether the number may be in one.
pub fn is_in_any(fd: RawFd) -> bool {
    place(fd).is_some_and(|place| place.load(Ordering::Acquire) != NONE)
}

/// Takes the number, which is still open, out of the one that it is in. False if it may still be in one.
pub fn leave(fd: RawFd) -> bool {
    let Some(place) = place(fd) else { return true };
    let epoll = match place.load(Ordering::Acquire) {
        NONE => return true,
        UNKNOWN => return false,
        number => number - 1,
    };
    // SAFETY: any numbers may be passed; the command takes no event.
    let result = unsafe {
        sys::call(
            libc::SYS_epoll_ctl,
            [epoll as usize, libc::EPOLL_CTL_DEL as usize, fd as usize, 0],
        )
    };
    // Whatever is wrong: a copy of the `epoll` may be there under another number.
    if result != 0 {
        return false;
    }
    place.store(NONE, Ordering::Release);
    true
}

#[cfg(test)]
mod tests {
    use super::{FDS, begin, is_in_any, leave};

    #[test]
    fn a_number_that_was_never_added_is_in_none() {
        begin(5);
        assert!(!is_in_any(5) && leave(5));
        for beyond in [-1, FDS as i32, i32::MAX] {
            begin(beyond);
            assert!(!is_in_any(beyond) && leave(beyond));
        }
    }
}
