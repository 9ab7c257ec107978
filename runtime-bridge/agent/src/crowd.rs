//! Whether another process under the agent has the same log open. What one process knows of a log's
//! syncs says nothing of what another has acknowledged, so while two have it open, nothing is deferred.
//!
//! The processes of a user meet in a table in shared memory: an entry for each log of each process. Who
//! opens a log marks the others' entries and its own; each looks at its own only.
//!
//! An entry of a process that was killed stays. Whether its process lives is known in two ways, of which one suffices. The process
//! holds a lock on the entry's byte of the file (`F_OFD_SETLK`), which no other pid namespace hides. And its number is that
//! of a living process that began at the same time: a number alone may be another process's by now.

use crate::real;
use crate::registry;
use crate::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};
use crate::sys;
use crate::table::{self, Entry as Descriptor};
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;

/// Entries of the table, a power of two.
const ENTRIES: usize = 16_384;
/// The entries in which a file can be: from its place on.
const PROBES: usize = 64;

/// A log of a process. Free while `process` is 0.
#[repr(C)]
struct Entry {
    /// A [`Process`].
    process: AtomicU64,
    device: AtomicU64,
    inode: AtomicU64,
    /// Not 0 when another process has opened the same file.
    crowded: AtomicU64,
}

type Table = [Entry; ENTRIES];

/// This process, once it was asked for.
static OWN: AtomicU64 = AtomicU64::new(0);

/// A process: its number, and above it a hash of when it began and of its pid namespace, or 0 if that is not known.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Process(u64);

impl Process {
    /// This one.
    fn own() -> Self {
        let own = Self(OWN.load(Ordering::Relaxed));
        // A forked child finds its parent's.
        if own.number() == std::process::id() {
            return own;
        }
        let own = Self::of(std::process::id());
        OWN.store(own.0, Ordering::Relaxed);
        own
    }

    /// The one that has this number in our pid namespace.
    fn of(number: u32) -> Self {
        let mark = began(number).zip(pid_namespace()).map_or(0, |(began, namespace)| {
            let hash = (began ^ namespace.rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            // 0 says that it is not known.
            (hash >> 32).max(1)
        });
        Self(u64::from(number) | mark << 32)
    }

    fn number(self) -> u32 {
        self.0 as u32
    }

    fn mark(self) -> u64 {
        self.0 >> 32
    }

    /// Whether it lives in our pid namespace, as far as can be told.
    fn is_alive(self) -> bool {
        // SAFETY: signal 0 is only a question.
        let result = unsafe { sys::call(libc::SYS_kill, [self.number() as usize, 0]) };
        if sys::decode(result) == Err(libc::ESRCH) {
            return false;
        }
        let now = Self::of(self.number());
        self.mark() == 0 || now.mark() == 0 || now == self
    }
}

/// When a process began. It takes no memory: a log may be opened in a signal handler.
fn began(process: u32) -> Option<u64> {
    let mut path = [0_u8; 32];
    write!(path.as_mut_slice(), "/proc/{process}/stat").ok()?;
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    let path = path.as_ptr().expose_provenance();
    // SAFETY: the path ends with a zero.
    let fd = unsafe { sys::call(libc::SYS_openat, [libc::AT_FDCWD as usize, path, flags, 0]) };
    let fd = sys::decode(fd).ok()? as usize;
    let mut stat = [0_u8; 1024];
    let place = stat.as_mut_ptr().expose_provenance();
    // SAFETY: the buffer has room for so many bytes, and the descriptor is ours.
    let read = unsafe { sys::call(libc::SYS_read, [fd, place, stat.len()]) };
    // SAFETY: the descriptor is ours.
    unsafe { sys::call(libc::SYS_close, [fd]) };
    durac_shm::status::began_by(stat.get(..sys::decode(read).ok()? as usize)?)
}

/// The number of our pid namespace.
fn pid_namespace() -> Option<u64> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the path is a C string, and `stat` has room for the result.
    let result = unsafe { libc::stat(c"/proc/self/ns/pid".as_ptr(), stat.as_mut_ptr()) };
    // SAFETY: the call succeeded and filled it.
    (result == 0).then(|| unsafe { stat.assume_init() }.st_ino)
}

/// The open file of the table, in which this process locks the bytes of its entries.
static FILE: AtomicI32 = AtomicI32::new(NONE);
/// Device and inode of the table that is mapped: the name may be another file's by now, and so may the descriptor, if the
/// application has closed it past the hooks.
static DEVICE: AtomicU64 = AtomicU64::new(0);
static INODE: AtomicU64 = AtomicU64::new(0);
const NONE: RawFd = -1;

fn stat(fd: RawFd) -> Option<libc::stat> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: any number may be passed, and `stat` has room for the result.
    let result = unsafe { libc::fstat(fd, stat.as_mut_ptr()) };
    // SAFETY: the call succeeded and filled it.
    (result == 0).then(|| unsafe { stat.assume_init() })
}

/// The descriptor for locks, if there is one.
fn locks() -> Option<RawFd> {
    let fd = FILE.load(Ordering::Acquire);
    (fd != NONE && is_table(fd)).then_some(fd)
}

/// Whether this is the table that is mapped.
fn is_table(fd: RawFd) -> bool {
    let mapped = (DEVICE.load(Ordering::Relaxed), INODE.load(Ordering::Relaxed));
    stat(fd).is_some_and(|it| (it.st_dev, it.st_ino) == mapped)
}

/// Has a descriptor for locks of the table that is mapped, if there can be one.
fn keep(file: &OwnedFd) {
    let fd = file.as_raw_fd();
    let Some(own) = is_table(fd).then(|| registry::duplicate(fd)).flatten() else { return };
    if FILE.compare_exchange(NONE, own, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        registry::close_own(own);
    }
}

/// Locks the byte of an entry, or asks for what locks it: what the kernel answers.
fn lock(entry: &Entry, command: libc::c_int, kind: libc::c_int) -> Option<Result<i32, i32>> {
    let first = std::ptr::from_ref(table()?).addr();
    let place = (std::ptr::from_ref(entry).addr() - first) / size_of::<Entry>();
    // SAFETY: a structure of numbers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = place as libc::off_t;
    lock.l_len = 1;
    let address = (&raw mut lock).expose_provenance();
    // SAFETY: the structure outlives the call.
    let result =
        unsafe { sys::call(libc::SYS_fcntl, [locks()? as usize, command as usize, address]) };
    Some(sys::decode(result).map(|_| i32::from(lock.l_type)))
}

/// The application is about to give this number to another file: whether it was the table's, which has another now.
pub fn makes_room(fd: RawFd) -> bool {
    let new = if FILE.load(Ordering::Acquire) == fd { registry::duplicate(fd) } else { None };
    if let Some(new) = new {
        FILE.store(new, Ordering::Release);
        table::set(fd, Descriptor::Other);
    }
    new.is_some()
}

/// In a forked child: its parent's locks would be held for as long as it has the descriptor.
pub fn close_in_child() {
    if let Some(fd) = locks() {
        // SAFETY: the child's copy of one of the agent's descriptors.
        unsafe { sys::call(libc::SYS_close, [fd as usize]) };
    }
    FILE.store(NONE, Ordering::Release);
    // In a pid namespace of its own it may have its parent's number.
    OWN.store(0, Ordering::Relaxed);
}

/// The table; none where there is no shared memory, or its file is not this user's alone.
static TABLE: AtomicPtr<Table> = AtomicPtr::new(null_mut());

fn table() -> Option<&'static Table> {
    // SAFETY: null, or a table that is never taken away.
    unsafe { TABLE.load(Ordering::Acquire).as_ref() }
}

/// Maps the table, and opens it for locks, unless that is so already.
fn prepare() {
    if table().is_some() && locks().is_some() {
        return;
    }
    let Some(file) = open() else { return };
    // Not a lock: a child forked by another thread meanwhile must not find it held.
    if table().is_none()
        && let Some(own) = map(&file)
    {
        let order = (Ordering::AcqRel, Ordering::Acquire);
        match TABLE.compare_exchange(null_mut(), own, order.0, order.1) {
            Ok(_) => {
                let id = stat(file.as_raw_fd()).map_or((0, 0), |it| (it.st_dev, it.st_ino));
                DEVICE.store(id.0, Ordering::Relaxed);
                INODE.store(id.1, Ordering::Relaxed);
            }
            Err(_) => {
                // SAFETY: the mapping made above, which nobody else has seen.
                unsafe { libc::munmap(own.cast(), size_of::<Table>()) };
            }
        }
    }
    keep(&file);
}

/// The file of the table. It takes no memory: a log may be opened in a signal handler.
fn open() -> Option<OwnedFd> {
    // SAFETY: no preconditions.
    let user = unsafe { libc::geteuid() };
    if crate::stage::has_size_limit() {
        return None;
    }
    let mut path = [0_u8; 48];
    write!(path.as_mut_slice(), "/dev/shm/durac-logs-{user}").ok()?;
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: the path ends with a zero.
    let fd = unsafe { real::OPEN.get()(path.as_ptr().cast(), flags, 0o600) };
    // SAFETY: nobody else has the descriptor.
    let file = (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })?;
    let stat = stat(fd)?;
    let is_plain = stat.st_mode & libc::S_IFMT == libc::S_IFREG && stat.st_mode & 0o077 == 0;
    if !is_plain || stat.st_uid != user {
        return None;
    }
    let size = size_of::<Table>() as libc::off_t;
    // SAFETY: no pointers.
    if stat.st_size < size && unsafe { libc::ftruncate(fd, size) } != 0 {
        return None;
    }
    Some(file)
}

fn map(file: &OwnedFd) -> Option<*mut Table> {
    // SAFETY: a new mapping of that size; the kernel chooses the address. The file is as large, the mapping is aligned to
    // a page, and any bits are atomic numbers.
    let address = unsafe {
        libc::mmap(
            null_mut(),
            size_of::<Table>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    (address != libc::MAP_FAILED).then(|| address.cast())
}

/// The entries in which a file can be.
fn probes(device: u64, inode: u64) -> impl Iterator<Item = &'static Entry> {
    let hash = (device.rotate_left(32) ^ inode).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let places = (0..PROBES).map(move |step| (hash as usize + step) % ENTRIES);
    let table = table();
    places.filter_map(move |place| table?.get(place))
}

/// The entry of a log.
pub struct Crowd(AtomicPtr<Entry>);

impl Crowd {
    /// Of no file.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    fn entry(&self) -> Option<&'static Entry> {
        // SAFETY: null, or an entry of the table, which is never taken away.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// This process opens the file.
    pub fn join(&self, (device, inode): (u64, u64)) {
        prepare();
        let us = Process::own();
        let Some(own) = probes(device, inode).find(|entry| entry.is_claimed(us)) else { return };
        own.crowded.store(0, Ordering::Relaxed);
        own.device.store(device, Ordering::Relaxed);
        own.inode.store(inode, Ordering::SeqCst);
        self.0.store(std::ptr::from_ref(own).cast_mut(), Ordering::Release);
        // Entered first, then looked: of two that open the file at once, one at least sees the other.
        for entry in probes(device, inode) {
            let owner = Process(entry.process.load(Ordering::SeqCst));
            if owner != us && entry.is_of(device, inode) && entry.is_alive(owner) {
                entry.crowded.store(1, Ordering::SeqCst);
                own.crowded.store(1, Ordering::SeqCst);
            }
        }
    }

    /// This process has closed the file.
    pub fn leave(&self) {
        let Some(entry) = self.entry() else { return };
        self.0.store(null_mut(), Ordering::Release);
        // A forked child has its parent's.
        if entry.process.load(Ordering::Acquire) == Process::own().0 {
            entry.inode.store(0, Ordering::Relaxed);
            entry.process.store(0, Ordering::Release);
            lock(entry, libc::F_OFD_SETLK, libc::F_UNLCK);
        }
    }

    /// Whether another process has opened the file since this one did, or had it open.
    #[inline]
    pub fn is_crowded(&self) -> bool {
        self.entry().is_some_and(|entry| entry.crowded.load(Ordering::Acquire) != 0)
    }
}

impl Entry {
    /// Whether the entry was free and is this process's now.
    fn is_claimed(&self, us: Process) -> bool {
        let owner = self.process.load(Ordering::Acquire);
        let swap = |from, to| {
            let order = (Ordering::AcqRel, Ordering::Relaxed);
            self.process.compare_exchange(from, to, order.0, order.1).is_ok()
        };
        if owner == us.0 || self.is_alive(Process(owner)) || !swap(owner, us.0) {
            return false;
        }
        // Another one may have claimed it that cannot be seen from our pid namespace, and was about to lock it.
        let is_locked = lock(self, libc::F_OFD_SETLK, libc::F_WRLCK);
        let is_ours = is_locked.is_none_or(|result| result.is_ok());
        if !is_ours {
            swap(us.0, owner);
        }
        is_ours
    }

    /// Whether its process lives.
    fn is_alive(&self, owner: Process) -> bool {
        let is_locked = || {
            let locked = lock(self, libc::F_OFD_GETLK, libc::F_WRLCK);
            locked.is_some_and(|kind| kind.is_ok_and(|kind| kind != libc::F_UNLCK))
        };
        owner.0 != 0 && (is_locked() || owner.is_alive())
    }

    fn is_of(&self, device: u64, inode: u64) -> bool {
        self.inode.load(Ordering::SeqCst) == inode && self.device.load(Ordering::Relaxed) == device
    }
}
