//! System call filters (seccomp) that this process was started under, and that its command inherits. One can
//! kill a process for a call that it does not list, so calls that durac alone needs are first tried where
//! nothing is lost: in a child.

use libc::{c_int, c_long};
use std::fs;

/// Whether this process may make system calls of these numbers without being killed for it. They may still
/// fail.
pub fn survives(calls: &[c_long]) -> bool {
    !has_filter() || is_survived(calls)
}

/// Whether there is a filter at all: else nobody needs to try.
fn has_filter() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
    mode.is_none_or(|mode| mode.trim() != "0")
}

/// Makes the calls in a child, with arguments that are valid for none of them.
fn is_survived(calls: &[c_long]) -> bool {
    // SAFETY: the child makes only system calls, and ends by one.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // No core of it.
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the limit is read during the call.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
        for &call in calls {
            // SAFETY: no argument is an address, a descriptor or a command, so no memory is touched.
            unsafe { libc::syscall(call, -1_isize, -1_isize, -1_isize, -1_isize) };
        }
        // SAFETY: no preconditions.
        unsafe { libc::_exit(0) };
    }
    let mut status: c_int = 0;
    // SAFETY: `status` has room for the result.
    child > 0 && unsafe { libc::waitpid(child, &raw mut status, 0) } == child && status == 0
}
