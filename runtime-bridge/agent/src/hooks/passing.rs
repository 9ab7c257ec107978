//! Calls that pass a file on, lock it, or use it in ways that have no hook for each access.

use super::{before_locks, locks, locks_parts, revoke, settle};
use crate::real;
use crate::stage::StageOff;
use crate::table;
use libc::{c_int, c_void, iovec, msghdr, off_t};

macro_rules! locking {
    ($($name:ident / $real:ident($fd:ident: c_int $(, $arg:ident: $ty:ty)*) $lock:ident;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name($fd: c_int $(, $arg: $ty)*) -> c_int {
                before_locks();
                if !table::is_other($fd) {
                    settle($fd);
                    $lock($fd);
                }
                // SAFETY: the caller's arguments, which it vouches for.
                unsafe { real::$real.get()($fd $(, $arg)*) }
            }
        )*
    };
}

locking! {
    flock / FLOCK(fd: c_int, how: c_int) locks;
    lockf / LOCKF(fd: c_int, how: c_int, n: off_t) locks_parts;
    lockf64 / LOCKF64(fd: c_int, how: c_int, n: off_t) locks_parts;
}

/// Before the open file of `fd` is locked by number.
pub(super) fn locked(fd: c_int) {
    before_locks();
    if !table::is_other(fd) {
        settle(fd);
        locks(fd);
    }
}

/// Descriptors of logs in a message: others will have them.
///
/// # Safety
/// `message` is null or points to a message, as for `sendmsg`.
pub(super) unsafe fn passes(message: *const msghdr) {
    // SAFETY: the caller's promise.
    let Some(header) = (unsafe { message.as_ref() }) else { return };
    if header.msg_controllen == 0 || header.msg_control.is_null() || table::registry().is_none() {
        return;
    }
    if !crate::readable::all(header.msg_control, header.msg_controllen) {
        return;
    }
    // SAFETY: the header is valid, and its control data can be read.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: `CMSG_FIRSTHDR` and `CMSG_NXTHDR` return null or a header inside the control data.
    while let Some(part) = unsafe { control.as_ref() } {
        if part.cmsg_level == libc::SOL_SOCKET && part.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: the data follow the header.
            let data = unsafe { libc::CMSG_DATA(control) };
            let length = part
                .cmsg_len
                .saturating_sub(data.addr() - control.addr())
                .min(header.msg_controllen);
            for index in 0..length / size_of::<c_int>() {
                // SAFETY: inside the control data, which can be read; nothing says that it is aligned.
                let fd = unsafe { data.cast::<c_int>().add(index).read_unaligned() };
                if !table::is_other(fd) {
                    // Another process writes what comes next.
                    super::sockets::let_pass_or_cut(fd, true);
                    super::lose_writes(fd);
                    revoke(fd, StageOff::PassedOn);
                }
            }
        }
        // SAFETY: as above.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
}

/// The pieces of a message; none if it has none, or more than the system takes.
pub(super) fn pieces(header: &msghdr) -> Option<(*const iovec, usize)> {
    let count = Some(header.msg_iovlen).filter(|count| (1..=1024).contains(count))?;
    (!header.msg_iov.is_null()).then_some((header.msg_iov.cast_const(), count))
}

/// The descriptor of a control block of asynchronous I/O, its first field.
///
/// # Safety
/// `block` is null or points to one.
unsafe fn descriptor_of(block: *const c_void) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { block.cast::<libc::aiocb>().as_ref() }.map_or(-1, |block| block.aio_fildes)
}

/// Whether a control block of a list writes.
///
/// # Safety
/// `block` is null or points to one.
unsafe fn writes(block: *const c_void) -> bool {
    // SAFETY: the caller's promise.
    unsafe { block.cast::<libc::aiocb>().as_ref() }
        .is_some_and(|block| block.aio_lio_opcode == libc::LIO_WRITE)
}

/// Before a control block is submitted: nothing is staged of its file any more. If it is written durably, what the
/// logs have deferred comes first; if it is a connection that is written, all that is written to the logs.
///
/// # Safety
/// `block` is null or points to a control block.
unsafe fn submits(block: *const c_void, reads: bool) -> c_int {
    // SAFETY: the caller's promise.
    let fd = unsafe { descriptor_of(block) };
    if table::is_other(fd) {
        return 0;
    }
    if table::get(fd) == table::Entry::Durable {
        return super::paths::drained(|| 0);
    }
    revoke(fd, StageOff::Aio);
    match reads {
        true => super::sockets::unseen(fd),
        false => {
            super::lose_writes(fd);
            if let Err(errno) = super::sockets::let_pass(fd, super::sockets::SUBMITS) {
                crate::errno::set(errno);
                return -1;
            }
        }
    }
    0
}

macro_rules! submitting {
    ($($name:ident / $real:ident reads $reads:literal;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name(block: *mut c_void) -> c_int {
                // SAFETY: the caller's argument, which it vouches for.
                unsafe { if submits(block, $reads) != 0 { -1 } else { real::$real.get()(block) } }
            }
        )*
    };
}

submitting! {
    aio_read / AIO_READ reads true;
    aio_read64 / AIO_READ64 reads true;
    aio_write / AIO_WRITE reads false;
    aio_write64 / AIO_WRITE64 reads false;
}

macro_rules! syncing {
    ($($name:ident / $real:ident;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`: what the logs have deferred comes first.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name(how: c_int, block: *mut c_void) -> c_int {
                // SAFETY: the caller's argument, which it vouches for.
                let fd = unsafe { descriptor_of(block) };
                if !table::is_other(fd) {
                    revoke(fd, StageOff::Aio);
                }
                // SAFETY: the caller's arguments, which it vouches for.
                let real = || unsafe { real::$real.get()(how, block) };
                super::sync::guarded(super::sync::Syncs::File(fd), real)
            }
        )*
    };
}

syncing! {
    aio_fsync / AIO_FSYNC;
    aio_fsync64 / AIO_FSYNC64;
}

macro_rules! lists {
    ($($name:ident / $real:ident;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name(
                how: c_int,
                blocks: *const *mut c_void,
                n: c_int,
                event: *mut c_void,
            ) -> c_int {
                if !blocks.is_null() {
                    for index in 0..usize::try_from(n).unwrap_or(0) {
                        // SAFETY: the caller promises an array of `n` pointers to blocks.
                        let result = unsafe {
                            let block = blocks.add(index).read();
                            submits(block, !writes(block))
                        };
                        if result != 0 {
                            return -1;
                        }
                    }
                }
                // SAFETY: the caller's arguments, which it vouches for.
                unsafe { real::$real.get()(how, blocks, n, event) }
            }
        )*
    };
}

lists! {
    lio_listio / LIO_LISTIO;
    lio_listio64 / LIO_LISTIO64;
}
