//! What a call has in its caller's memory. Another thread of the caller may change it before the kernel reads it: nothing
//! that a bound rests on is taken from here but lengths of a vector, which nobody changes while it is written.

use crate::filter;
use crate::notify::Notification;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Pieces of a vector, at most (`IOV_MAX`).
const MOST_PIECES: u64 = 1024;
/// Bytes of a path, with its end (`PATH_MAX`).
const MOST_PATH: usize = 4096;
/// No read crosses a border of pages: the next page may not be there.
const PAGE: u64 = 4096;

/// Reads bytes; fewer where the memory ends.
fn read(thread: u32, address: u64, into: &mut [u8]) -> usize {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: into.len() };
    // SAFETY: `local` is `into`; the kernel checks the other process' addresses.
    let count = unsafe {
        libc::process_vm_readv(thread as libc::pid_t, &raw const local, 1, &raw const remote, 1, 0)
    };
    usize::try_from(count).unwrap_or(0)
}

/// The sum of the lengths of the pieces that argument 1 points to; argument 2 is their number. None if they cannot be
/// read.
pub fn pieces(call: &Notification) -> Option<u64> {
    let count = call.argument(2) & u64::from(u32::MAX);
    // The system refuses the call.
    if count > MOST_PIECES {
        return Some(0);
    }
    let word = filter::word(call.arch);
    let mut bytes = vec![0; (2 * word * count) as usize];
    if read(call.thread, call.argument(1), &mut bytes) < bytes.len() {
        return None;
    }
    let lengths = bytes.chunks_exact(2 * word as usize).map(|piece| {
        let half = piece.get(word as usize..).unwrap_or(&[]);
        half.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    });
    Some(lengths.fold(0, u64::saturating_add))
}

/// Words of 32 bits that an argument points to; none if they cannot be read.
pub fn words<const COUNT: usize>(call: &Notification, argument: usize) -> Option<[u32; COUNT]> {
    let mut bytes = vec![0; 4 * COUNT];
    if read(call.thread, call.argument(argument), &mut bytes) < bytes.len() {
        return None;
    }
    let mut words = [0; COUNT];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().ok()?);
    }
    Some(words)
}

/// The path that an argument points to; none if it cannot be read.
pub fn path(call: &Notification, argument: usize) -> Option<OsString> {
    let (mut address, mut path) = (call.argument(argument), Vec::new());
    while path.len() < MOST_PATH {
        let left = (PAGE - address % PAGE) as usize;
        let mut bytes = vec![0; left.min(MOST_PATH - path.len())];
        let count = read(call.thread, address, &mut bytes);
        bytes.truncate(count);
        if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
            path.extend_from_slice(bytes.get(..end)?);
            return Some(OsString::from_vec(path));
        }
        if count < left {
            return None;
        }
        path.extend_from_slice(&bytes);
        address = address.checked_add(count as u64)?;
    }
    None
}
