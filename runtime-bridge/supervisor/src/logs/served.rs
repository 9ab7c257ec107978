//! Files of file systems that a process serves (FUSE), and what is known of a file without its server.
//!
//! If a process of the command serves one, its own calls are notified, too. They may have to wait for what is deferred; a
//! sync of a log on its file system would then wait for it, and it for that sync. So nothing is deferred there. The
//! supervisor looks at such a file only where nobody waits for the thread that looks: after `Crew::may_block`, without a lock.
//!
//! A FUSE file system that was mounted before the command began is not served by it. Every other one may be: a mount that came
//! later, and one of another mount namespace, which this process does not see. What the kernel's table of mounts says of a device is
//! true as long as the file is open, and no server is asked for it.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// `f_type` of file systems (linux/magic.h). That of FUSE is virtiofs's, too.
const FUSE: u32 = 0x6573_5546;
const OVERLAY: u32 = 0x794c_7630;
const TMPFS: u32 = 0x0102_1994;
const RAMFS: u32 = 0x8584_58f6;
const HUGETLBFS: u32 = 0x9584_58f6;
/// Those that know what is to be known of a file without a server: ext4, XFS, Btrfs, F2FS, ZFS, and those in memory.
const LOCAL: [u32; 8] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x2fc1_2fc1, TMPFS, RAMFS, HUGETLBFS];

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
        Self::at(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
    }

    /// The same, of what a path leads to.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        Self::at(libc::AT_FDCWD, &CString::new(path.as_os_str().as_bytes())?, 0)
    }

    fn at(folder: RawFd, path: &CStr, flags: libc::c_int) -> io::Result<Self> {
        let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
        let (flags, mask) = (flags | libc::AT_STATX_DONT_SYNC, libc::STATX_BASIC_STATS);
        // SAFETY: a string that ends with a zero, and room for the result.
        let result = unsafe { libc::statx(folder, path.as_ptr(), flags, mask, found.as_mut_ptr()) };
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

/// Whether the times and the length of a file may have to be asked for: then a thread that looks at it may wait. Its server may
/// be asked now.
pub fn may_ask(file: &File) -> bool {
    type_of(file).is_none_or(|kind| !LOCAL.contains(&kind))
}

/// The file systems that are mounted, and which of them were before the command began.
pub struct Mounts {
    /// Says when a mount comes or goes.
    watched: Option<File>,
    table: Mutex<Table>,
    told: AtomicBool,
}

/// What is mounted.
struct Table {
    /// Says when this is not true any more. Another open file than the one that is watched: each says so once.
    source: Option<File>,
    /// By device: whether it is FUSE.
    mounted: HashMap<u64, bool>,
    /// FUSE that was mounted before the command, and still is.
    known: HashSet<u64>,
}

impl Table {
    fn has_changed(&self) -> bool {
        let fd = self.source.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let mut polled = libc::pollfd { fd, events: libc::POLLPRI, revents: 0 };
        // SAFETY: one entry.
        unsafe { libc::poll(&raw mut polled, 1, 0) };
        polled.revents & (libc::POLLPRI | libc::POLLERR) != 0
    }

    /// Reads it. What is gone is forgotten: another file system may get its number, and have it already.
    fn read(&mut self) {
        self.mounted = mounted();
        let mounted = &self.mounted;
        self.known.retain(|device| mounted.get(device) == Some(&true));
    }
}

impl Mounts {
    /// What is mounted now.
    pub fn new() -> Self {
        let open = || File::open("/proc/self/mountinfo").ok();
        let table = Table { source: open(), mounted: HashMap::new(), known: HashSet::new() };
        let watched = open();
        let mounts = Self { watched, table: Mutex::new(table), told: AtomicBool::new(false) };
        let mut table = mounts.lock();
        // From now on.
        table.has_changed();
        table.read();
        table.known =
            table.mounted.iter().filter(|(_, fuse)| **fuse).map(|(dev, _)| *dev).collect();
        drop(table);
        mounts
    }

    /// The FUSE devices that were mounted, and still are.
    pub fn known(&self) -> Vec<u64> {
        self.refresh().known.iter().copied().collect()
    }

    /// Those are the ones that were, for a program that takes over.
    pub fn set(&self, devices: &[u64]) {
        let mut table = self.lock();
        table.known = devices.iter().copied().collect();
        table.read();
    }

    /// A descriptor that is ready (`POLLPRI`) when a mount comes or goes; -1 if there is none.
    pub fn as_raw_fd(&self) -> RawFd {
        self.watched.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// What is gone is forgotten.
    pub fn forget_gone(&self) {
        drop(self.refresh());
    }

    /// The table as it is now.
    fn refresh(&self) -> MutexGuard<'_, Table> {
        let mut table = self.lock();
        if table.has_changed() {
            table.read();
        }
        table
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a process of the command may serve the file system of an open file of this device. None if only
    /// [`Mounts::is_served_unseen`] can tell.
    pub fn is_served(&self, device: u64) -> Option<bool> {
        let table = self.refresh();
        table.mounted.get(&device).map(|is_fuse| *is_fuse && !table.known.contains(&device))
    }

    /// The same of a file system that is not in the table. Its server may be asked.
    pub fn is_served_unseen(&self, file: &File) -> bool {
        // Of what does not say what it is, the same is believed.
        type_of(file).is_none_or(|kind| kind == FUSE)
    }

    /// Whether nobody was told yet.
    pub fn is_news(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }
}

/// The devices of all mounts that this process sees, and whether they are FUSE.
fn mounted() -> HashMap<u64, bool> {
    let mut text = Vec::new();
    let read = File::open("/proc/self/mountinfo").and_then(|mut file| file.read_to_end(&mut text));
    if read.is_err() {
        return HashMap::new();
    }
    String::from_utf8_lossy(&text).lines().filter_map(device).collect()
}

/// The third word of a line, and the first one after the dash (proc_pid_mountinfo(5)).
fn device(line: &str) -> Option<(u64, bool)> {
    let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
    let device = libc::makedev(major.parse().ok()?, minor.parse().ok()?);
    let kind = line.split(' ').skip_while(|word| *word != "-").nth(1)?;
    Some((device, kind.starts_with("fuse") || kind == "virtiofs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_line_has_the_device_that_a_file_has() {
        let file = File::open("/proc/self/status").unwrap();
        let facts = Facts::of(&file).unwrap();
        assert_eq!(facts, Facts::from(&file.metadata().unwrap()));
        assert_eq!(Facts::of_path(Path::new("/proc/self/status")).unwrap(), facts);
        assert_eq!(Mounts::new().is_served(facts.id.0), Some(false));
        let device = |line: &str| {
            device(line).map(|(device, is_fuse)| (device == libc::makedev(98, 5), is_fuse))
        };
        for (kind, is_fuse) in [
            ("fuse.x", true),
            ("fuse", true),
            ("fuseblk", true),
            ("virtiofs", true),
            ("ext4", false),
        ] {
            let line = format!("36 35 98:5 / /mnt rw shared:1 - {kind} x rw");
            assert_eq!(device(&line), Some((true, is_fuse)), "{kind}");
        }
        assert_eq!(device("36 35"), None);
    }

    #[test]
    fn only_what_a_process_may_serve_is_served() {
        let mounts = Mounts::new();
        let file = File::open("/proc/self/status").unwrap();
        assert!(!mounts.is_served_unseen(&file));
        let device = Facts::of(&file).unwrap().id.0;
        // It was there before, as another file system that had the number.
        mounts.lock().known.insert(device);
        mounts.lock().mounted.insert(device, true);
        assert_eq!(mounts.is_served(device), Some(false));
        mounts.set(&[device]);
        assert_eq!((mounts.known(), mounts.is_served(device)), (vec![], Some(false)));
        mounts.lock().mounted.insert(device, true);
        assert_eq!(mounts.is_served(device), Some(true));
        assert_eq!(mounts.is_served(u64::MAX), None);
    }
}
