//! `libdurac_disk_sync.so`: `fsync` and `fdatasync` of files on the crash test's disk, by the disk's `ioctl`.
//!
//! During `fsync(2)` the kernel holds the lock of the FUSE inode until the disk has replied, so a write to the
//! file waits for its sync. ext4 lets it pass. `durac crashtest` preloads this library behind the agent, so that
//! writes pass the agent's background syncs on its disk, too. Files of other file systems are synced by the
//! system call.
//!
//! Architecture invariant: it knows one file system and nothing of policies. The agent does not know it.

use durac_disk::SYNC;
use libc::{c_int, c_long};

/// fsync(2).
#[unsafe(no_mangle)]
pub extern "C" fn fsync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fsync)
}

/// fdatasync(2).
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fdatasync)
}

/// Syncs by the disk's `ioctl`; by `call` if the file is not on it.
fn sync(fd: c_int, call: c_long) -> c_int {
    // SAFETY: the command takes no argument, and any number may be passed as descriptor.
    let result = unsafe { libc::ioctl(fd, SYNC.into()) };
    if result == 0 || is_on_the_disk() {
        return result;
    }
    // SAFETY: takes no pointers.
    unsafe { libc::syscall(call, fd) as c_int }
}

/// Whether the `ioctl` that has failed was a sync: other file systems do not know the command.
fn is_on_the_disk() -> bool {
    // SAFETY: it returns the address of this thread's `errno`.
    let errno = unsafe { *libc::__errno_location() };
    ![libc::ENOTTY, libc::EINVAL, libc::EOPNOTSUPP].contains(&errno)
}
