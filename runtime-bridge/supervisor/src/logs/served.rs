//! Files of file systems that a process serves (FUSE), and what is known of a file without its server.
//!
//! If a process of the command serves one, its own calls are notified, too. They may have to wait for what is deferred; a
//! sync of a log on its file system would then wait for it, and it for that sync. So nothing is deferred there. The
//! supervisor looks at such a file only where nobody waits for the thread that looks: after `Crew::may_block`, without a lock.
//!
//! What was mounted before the command began is not served by it. Everything else may be: a mount that came later, and one of
//! another mount namespace, which this process does not see.

use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// `f_type` of file systems (linux/magic.h). That of FUSE is virtiofs's, too.
const FUSE: u32 = 0x6573_5546;
const OVERLAY: u32 = 0x794c_7630;
const TMPFS: u32 = 0x0102_1994;
const RAMFS: u32 = 0x8584_58f6;
const HUGETLBFS: u32 = 0x9584_58f6;

/// What is known of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Device and inode.
    pub id: (u64, u64),
    /// A regular file.
    pub is_file: bool,
    /// Its names.
    pub links: u64,
}

impl Facts {
    /// What the kernel knows. No server is asked, so the links may be those of a while ago.
    pub fn of(file: &File) -> io::Result<Self> {
        let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
        let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
        // SAFETY: a string that ends with a zero, and room for the result.
        let result = unsafe {
            libc::statx(
                file.as_raw_fd(),
                c"".as_ptr(),
                flags,
                libc::STATX_BASIC_STATS,
                found.as_mut_ptr(),
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: zeros are valid, too.
        let found = unsafe { found.assume_init() };
        Ok(Self {
            id: (libc::makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino),
            is_file: u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFREG,
            links: found.stx_nlink.into(),
        })
    }
}

impl From<&Metadata> for Facts {
    fn from(meta: &Metadata) -> Self {
        Self { id: (meta.dev(), meta.ino()), is_file: meta.is_file(), links: meta.nlink() }
    }
}

/// The type of a file's file system, which its server may be asked for.
fn type_of(file: &File) -> Option<u32> {
    let mut found = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: room for the result.
    let result = unsafe { libc::fstatfs(file.as_raw_fd(), found.as_mut_ptr()) };
    // SAFETY: zeros are valid, too.
    (result == 0).then(|| unsafe { found.assume_init() }.f_type as u32)
}

/// Whether a file is gone with the power, wherever it is: it has no name, and its file system is in memory.
pub fn is_memory(file: &File, facts: &Facts) -> bool {
    facts.links == 0 && matches!(type_of(file), Some(TMPFS | RAMFS | HUGETLBFS))
}

/// Whether an open file to read may lead to another file than one to write (overlayfs, before the first write).
pub fn has_layers(file: &File) -> bool {
    type_of(file).is_none_or(|kind| kind == OVERLAY)
}

/// What was mounted before the command began.
pub struct Mounts {
    /// The table of mounts, which says when it changes.
    table: Option<File>,
    devices: Mutex<HashSet<u64>>,
    told: AtomicBool,
}

impl Mounts {
    /// What is mounted now.
    pub fn new() -> Self {
        let table = File::open("/proc/self/mountinfo").ok();
        let mounts = Self { table, devices: Mutex::default(), told: AtomicBool::new(false) };
        // From now on.
        mounts.has_changed();
        mounts.set(&mounted());
        mounts
    }

    /// The devices that were mounted, and still are.
    pub fn known(&self) -> Vec<u64> {
        self.refresh();
        let devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices.iter().copied().collect()
    }

    /// Those are the ones that were, for a program that takes over.
    pub fn set(&self, devices: &[u64]) {
        let mut known = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        *known = devices.iter().copied().collect();
    }

    /// A descriptor that is ready (`POLLPRI`) when a mount comes or goes; -1 if there is none.
    pub fn as_raw_fd(&self) -> RawFd {
        self.table.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// What is gone is forgotten: another file system may get its number.
    pub fn forget_gone(&self) {
        let now = mounted();
        self.devices
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|device| now.contains(device));
    }

    fn refresh(&self) {
        if self.has_changed() {
            self.forget_gone();
        }
    }

    fn has_changed(&self) -> bool {
        let mut polled = libc::pollfd { fd: self.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
        // SAFETY: one entry.
        unsafe { libc::poll(&raw mut polled, 1, 0) };
        polled.revents & (libc::POLLPRI | libc::POLLERR) != 0
    }

    /// Whether a process of the command may serve the file system of this file. Its server may be asked.
    pub fn are_served(&self, file: &File, device: u64) -> bool {
        // Of what does not say what it is, the same is believed.
        if type_of(file).is_some_and(|kind| kind != FUSE) {
            return false;
        }
        self.refresh();
        !self.devices.lock().unwrap_or_else(PoisonError::into_inner).contains(&device)
    }

    /// Whether nobody was told yet.
    pub fn is_news(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }
}

/// The devices of all mounts that this process sees.
fn mounted() -> Vec<u64> {
    let mut text = Vec::new();
    let read = File::open("/proc/self/mountinfo").and_then(|mut file| file.read_to_end(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    String::from_utf8_lossy(&text).lines().filter_map(device).collect()
}

/// The third word of a line (proc_pid_mountinfo(5)).
fn device(line: &str) -> Option<u64> {
    let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
    Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_line_has_the_device_that_a_file_has() {
        let file = File::open("/proc/self/status").unwrap();
        let facts = Facts::of(&file).unwrap();
        assert_eq!(facts, Facts::from(&file.metadata().unwrap()));
        assert!(Mounts::new().known().contains(&facts.id.0));
        assert_eq!(
            device("36 35 98:5 / /mnt rw shared:1 - fuse.x x rw"),
            Some(libc::makedev(98, 5))
        );
        assert_eq!(device("36 35"), None);
    }

    #[test]
    fn only_what_a_process_may_serve_is_served() {
        let mounts = Mounts::new();
        let file = File::open("/proc/self/status").unwrap();
        let device = Facts::of(&file).unwrap().id.0;
        mounts.set(&[]);
        assert!(!mounts.are_served(&file, device));
    }
}
