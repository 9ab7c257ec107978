//! Whether a descriptor still is what the table says.
//!
//! The table is a hint: a number may have been closed, and given to another file, where no hook sees it.
//! So before any result that does not come from the application's own call, the kernel says whether it still is.

use crate::fault_injection::{Fault, injects};
use crate::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};
use crate::sys::{self, Identity};
use std::os::fd::RawFd;

/// How two descriptors are compared. A method that the kernel does not have, or a filter forbids, is
/// replaced by the next one for good.
const QUERY: u8 = 0;
const KCMP: u8 = 1;
const STAT: u8 = 2;

static METHOD: AtomicU8 = AtomicU8::new(QUERY);

/// What is known of the file of a log, readable without the log's lock.
pub struct Proof {
    /// The agent's descriptor of the file; -1 without one.
    witness: AtomicI32,
    device: AtomicU64,
    inode: AtomicU64,
}

impl Proof {
    /// Of no file.
    pub fn new() -> Self {
        Self { witness: AtomicI32::new(-1), device: AtomicU64::new(0), inode: AtomicU64::new(0) }
    }

    /// From now on of this file; `witness` is the agent's descriptor of it.
    pub fn set(&self, file: (u64, u64), witness: Option<RawFd>) {
        self.device.store(file.0, Ordering::Relaxed);
        self.inode.store(file.1, Ordering::Relaxed);
        self.set_witness(witness);
    }

    /// The agent has this descriptor of the file, or none.
    pub fn set_witness(&self, witness: Option<RawFd>) {
        self.witness.store(witness.unwrap_or(-1), Ordering::Release);
    }

    fn file(&self) -> (u64, u64) {
        (self.device.load(Ordering::Relaxed), self.inode.load(Ordering::Relaxed))
    }

    /// Whether `fd` is an open file of the log: one system call in the usual case.
    pub fn holds(&self, fd: RawFd) -> bool {
        injects(Fault::StaleDescriptor) || self.is_same_open_file(fd) || self.is_file(fd)
    }

    /// Whether `fd` is the very open file that the agent's descriptor is a copy of.
    fn is_same_open_file(&self, fd: RawFd) -> bool {
        let witness = self.witness.load(Ordering::Acquire);
        if witness < 0 {
            return false;
        }
        let (compared, next) = match METHOD.load(Ordering::Relaxed) {
            QUERY => (sys::is_same_open_file(fd, witness), KCMP),
            KCMP => (sys::compare_open_files(fd, witness), STAT),
            _ => return false,
        };
        match compared {
            Ok(same) => same,
            // A closed descriptor, not a missing call.
            Err(libc::EBADF) => false,
            Err(_) => {
                METHOD.store(next, Ordering::Relaxed);
                false
            }
        }
    }

    /// Whether `fd` is the log's file, if not the same open file.
    pub fn is_file(&self, fd: RawFd) -> bool {
        injects(Fault::StaleDescriptor)
            || sys::identity(fd) == Some(Identity { file: self.file(), is_regular: true })
    }
}
