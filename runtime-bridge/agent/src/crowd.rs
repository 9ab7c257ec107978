//! Whether another process under the agent has the same log open. What one process knows of a log's
//! syncs says nothing of what another has acknowledged, so while two have it open, nothing is deferred.
//!
//! The processes of a user meet in a table in shared memory: an entry for each log of each process. Who
//! opens a log marks the others' entries and its own; each looks at its own only.
//!
//! An entry of a process that was killed stays. Whether its process lives is known in two ways, of which one suffices. The process
//! holds a lock on the entry's byte of the file (`F_OFD_SETLK`), which no other pid namespace hides. And its number is that
//! of a living process that began at the same time: a number alone may be another process's by now.

use crate::note;
use crate::real;
use crate::registry::{self, FileId};
use crate::signals;
use crate::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};
use crate::sys;
use crate::table::{self, Entry as Descriptor};
use std::io::{self, Write};
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
        if began(self.number()) == Some(ENDED) {
            return false;
        }
        let now = Self::of(self.number());
        self.mark() == 0 || now.mark() == 0 || now == self
    }
}

/// When a process began, if it has not ended. It takes no memory: a log may be opened in a signal handler.
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
    let stat = stat.get(..sys::decode(read).ok()? as usize)?;
    // Its parent has not asked for its end (proc_pid_stat(5)); the first thread may end before the others.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = stat.get(end + 2..)?.split(|byte| *byte == b' ');
    let has_ended = matches!(fields.next(), Some(b"Z" | b"X"));
    if has_ended && fields.nth(16).is_none_or(|threads| matches!(threads, b"0" | b"1")) {
        return Some(ENDED);
    }
    durac_shm::status::began_by(stat)
}

/// Before any process.
const ENDED: u64 = u64::MAX;

/// The number of our pid namespace.
fn pid_namespace() -> Option<u64> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the path is a C string, and `stat` has room for the result.
    let result = unsafe { libc::stat(c"/proc/self/ns/pid".as_ptr(), stat.as_mut_ptr()) };
    // SAFETY: the call succeeded and filled it.
    (result == 0).then(|| unsafe { stat.assume_init() }.st_ino)
}

/// A table that this process has mapped: of its user, who can change (`setuid`), or of a file whose name is another's by now.
struct Mapped {
    table: AtomicPtr<Table>,
    /// The file. Its descriptor may be another file's by now, if the application has closed it past the hooks.
    device: AtomicU64,
    inode: AtomicU64,
    /// The open file in which this process locks the bytes of its entries.
    fd: AtomicI32,
}

const NONE: RawFd = -1;
const MOST: usize = 4;
static MAPPED: [Mapped; MOST] = [const { Mapped::none() }; MOST];

fn stat(fd: RawFd) -> Option<libc::stat> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: any number may be passed, and `stat` has room for the result.
    let result = unsafe { libc::fstat(fd, stat.as_mut_ptr()) };
    // SAFETY: the call succeeded and filled it.
    (result == 0).then(|| unsafe { stat.assume_init() })
}

impl Mapped {
    const fn none() -> Self {
        Self {
            table: AtomicPtr::new(null_mut()),
            device: AtomicU64::new(0),
            inode: AtomicU64::new(0),
            fd: AtomicI32::new(NONE),
        }
    }

    fn table(&self) -> Option<&'static Table> {
        // SAFETY: null, or a table that is never taken away.
        unsafe { self.table.load(Ordering::Acquire).as_ref() }
    }

    /// Whether this is its file.
    fn is_of(&self, fd: RawFd) -> bool {
        let id = (self.device.load(Ordering::Relaxed), self.inode.load(Ordering::Relaxed));
        self.table().is_some() && stat(fd).is_some_and(|it| (it.st_dev, it.st_ino) == id)
    }

    /// The descriptor for locks, if there is one.
    fn locks(&self) -> Option<RawFd> {
        let fd = self.fd.load(Ordering::Acquire);
        (fd != NONE && self.is_of(fd)).then_some(fd)
    }

    /// Has a descriptor for locks, if there can be one.
    fn keep(&self, file: &OwnedFd) {
        if self.locks().is_some() {
            return;
        }
        let Some(own) = registry::duplicate(file.as_raw_fd()) else { return };
        let lost = self.fd.load(Ordering::Acquire);
        let kept = self.fd.compare_exchange(lost, own, Ordering::AcqRel, Ordering::Relaxed);
        if kept.is_err() {
            registry::close_own(own);
        }
    }

    /// Takes the place for this file, whose table is not mapped. Of two threads that come at once both may map it.
    fn map(&self, file: &OwnedFd) -> Option<()> {
        let (fd, size) = (file.as_raw_fd(), size_of::<Table>());
        let id = stat(fd)?;
        if self.table().is_some() {
            return None;
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of that size; the kernel chooses the address. The file is as large, and all of it is there, so
        // that no access fails; the mapping is aligned to a page, and any bits are atomic numbers.
        let address = unsafe { libc::mmap(null_mut(), size, access, libc::MAP_SHARED, fd, 0) };
        if address == libc::MAP_FAILED {
            return None;
        }
        let order = (Ordering::AcqRel, Ordering::Acquire);
        let taken = self.table.compare_exchange(null_mut(), address.cast(), order.0, order.1);
        if taken.is_err() {
            // SAFETY: the mapping made above, which nobody else has seen.
            unsafe { libc::munmap(address, size) };
            return None;
        }
        self.device.store(id.st_dev, Ordering::Relaxed);
        self.inode.store(id.st_ino, Ordering::Relaxed);
        Some(())
    }
}

/// The table that an entry is in, and its place there.
fn place_of(entry: &Entry) -> Option<(&'static Mapped, usize)> {
    let address = std::ptr::from_ref(entry).addr();
    MAPPED.iter().find_map(|mapped| {
        let first = std::ptr::from_ref(mapped.table()?).addr();
        let place = address.checked_sub(first)? / size_of::<Entry>();
        (place < ENTRIES).then_some((mapped, place))
    })
}

/// Locks the byte of an entry, or asks for what locks it: what the kernel answers.
fn lock(entry: &Entry, command: libc::c_int, kind: libc::c_int) -> Option<Result<i32, i32>> {
    let (mapped, place) = place_of(entry)?;
    // SAFETY: a structure of numbers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = place as libc::off_t;
    lock.l_len = 1;
    let (fd, address) = (mapped.locks()? as usize, (&raw mut lock).expose_provenance());
    // SAFETY: the structure outlives the call.
    let result = unsafe { sys::call(libc::SYS_fcntl, [fd, command as usize, address]) };
    Some(sys::decode(result).map(|_| i32::from(lock.l_type)))
}

/// The application is about to give this number to another file: whether it was a table's, which has another now.
pub fn makes_room(fd: RawFd) -> bool {
    let Some(mapped) = MAPPED.iter().find(|mapped| mapped.locks() == Some(fd)) else {
        return false;
    };
    let new = registry::duplicate(fd);
    if let Some(new) = new {
        mapped.fd.store(new, Ordering::Release);
        table::set(fd, Descriptor::Other);
    }
    new.is_some()
}

/// In a forked child: its parent's locks would be held for as long as it has the descriptors.
pub fn close_in_child() {
    for mapped in &MAPPED {
        if let Some(fd) = mapped.locks() {
            // SAFETY: the child's copy of one of the agent's descriptors.
            unsafe { sys::call(libc::SYS_close, [fd as usize]) };
        }
        mapped.fd.store(NONE, Ordering::Release);
    }
    // In a pid namespace of its own it may have its parent's number.
    OWN.store(0, Ordering::Relaxed);
}

/// The table of this user, as its name is now. None where there can be none: who opens a log then is not noticed. An error if
/// this process has mapped too many.
fn mapped() -> Option<Result<&'static Mapped, ()>> {
    let file = match open() {
        Ok(file) => file,
        Err(why) => {
            tell(&why);
            return None;
        }
    };
    let known = MAPPED.iter().find(|mapped| mapped.is_of(file.as_raw_fd()));
    // Not a lock: a child forked by another thread meanwhile must not find it held.
    let mapped = known.or_else(|| MAPPED.iter().find(|mapped| mapped.map(&file).is_some()));
    if let Some(mapped) = mapped {
        mapped.keep(&file);
    }
    Some(mapped.ok_or(()))
}

#[cold]
fn tell(why: &io::Error) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !signals::may_be_in_handler() && !SAID.swap(true, Ordering::Relaxed) {
        // SAFETY: no preconditions.
        let user = unsafe { libc::geteuid() };
        note::aside(&format!(
            "{FOLDER}{user}: {why}; another process that opens a log is not noticed, and both defer"
        ));
    }
}

const FOLDER: &str = "/dev/shm/durac-logs-";

/// The file of the table. It takes no memory: a log may be opened in a signal handler.
fn open() -> io::Result<OwnedFd> {
    // SAFETY: no preconditions.
    let user = unsafe { libc::geteuid() };
    let mut path = [0_u8; 48];
    write!(path.as_mut_slice(), "{FOLDER}{user}")?;
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: the path ends with a zero.
    let fd = unsafe { real::OPEN.get()(path.as_ptr().cast(), flags, 0o600) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: nobody else has the descriptor.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    let stat = stat(fd).ok_or_else(io::Error::last_os_error)?;
    let is_plain = stat.st_mode & libc::S_IFMT == libc::S_IFREG && stat.st_mode & 0o077 == 0;
    if !is_plain || stat.st_uid != user {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    let size = size_of::<Table>() as libc::off_t;
    // A file that must grow beyond the process's limit would end it.
    if stat.st_size < size && crate::stage::limit_is_below(size as u64) {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    // All of it, not a hole: where nothing is left, an access to a hole ends the process.
    if stat.st_size < size || stat.st_blocks * 512 < size {
        let arguments = [fd as usize, 0, 0, size as usize];
        // SAFETY: no pointers.
        let result = sys::decode(unsafe { sys::call(libc::SYS_fallocate, arguments) });
        // Where it is not known (ramfs) there are no holes that an access could find no room for.
        let result = match result {
            Err(libc::EOPNOTSUPP) if stat.st_size < size => {
                let arguments = [fd as usize, size as usize];
                // SAFETY: as above.
                sys::decode(unsafe { sys::call(libc::SYS_ftruncate, arguments) })
            }
            Err(libc::EOPNOTSUPP) => Ok(0),
            result => result,
        };
        result.map_err(io::Error::from_raw_os_error)?;
    }
    Ok(file)
}

/// The entries in which a file can be.
fn probes(table: &'static Table, (device, inode): FileId) -> impl Iterator<Item = &'static Entry> {
    let hash = (device.rotate_left(32) ^ inode).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let places = (0..PROBES).map(move |step| (hash as usize + step) % ENTRIES);
    places.filter_map(move |place| table.get(place))
}

/// Whether another process that lives has the file of an entry open. `found` is told each.
fn others(table: &'static Table, us: Process, file: FileId, found: impl Fn(&Entry)) -> bool {
    let others = probes(table, file).filter(|entry| {
        let owner = Process(entry.process.load(Ordering::SeqCst));
        owner != us && entry.is_of(file) && entry.is_alive(owner)
    });
    others.inspect(|entry| found(entry)).count() > 0
}

/// The entry of a log for which no table has one: any other process may have it open.
static FULL: Entry = Entry {
    process: AtomicU64::new(0),
    device: AtomicU64::new(0),
    inode: AtomicU64::new(0),
    crowded: AtomicU64::new(1),
};
/// Every so many calls a process looks again whether it is alone.
const LOOK_EVERY: u64 = 64;

/// The entry of a log.
pub struct Crowd(AtomicPtr<Entry>, AtomicU64);

impl Crowd {
    /// Of no file.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()), AtomicU64::new(0))
    }

    fn entry(&self) -> Option<&'static Entry> {
        // SAFETY: null, or an entry of the table, which is never taken away.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// This process opens the file.
    pub fn join(&self, file: FileId) {
        let Some(mapped) = mapped() else { return };
        let us = Process::own();
        let table = mapped.ok().and_then(Mapped::table);
        let own = table.and_then(|table| {
            Some((table, probes(table, file).find(|entry| entry.is_claimed(us, file))?))
        });
        let Some((table, own)) = own else {
            self.0.store((&raw const FULL).cast_mut(), Ordering::Release);
            return;
        };
        own.crowded.store(0, Ordering::Relaxed);
        own.device.store(file.0, Ordering::Relaxed);
        own.inode.store(file.1, Ordering::SeqCst);
        self.0.store(std::ptr::from_ref(own).cast_mut(), Ordering::Release);
        // Entered first, then looked: of two that open the file at once, one at least sees the other.
        if others(table, us, file, |entry| entry.crowded.store(1, Ordering::SeqCst)) {
            own.crowded.store(1, Ordering::SeqCst);
        }
    }

    /// Whether nothing is known of others, because no table has room for the log.
    pub fn has_no_entry(&self) -> bool {
        std::ptr::eq(self.0.load(Ordering::Acquire), &raw const FULL)
    }

    /// Looks, now and then, whether the others have gone that had the file open. Returns whether they have.
    #[cold]
    pub fn are_others_gone(&self) -> bool {
        let Some(entry) = self.entry() else { return false };
        let looks = self.1.fetch_add(1, Ordering::Relaxed) % LOOK_EVERY == LOOK_EVERY - 1;
        let table = place_of(entry).filter(|_| looks).and_then(|(mapped, _)| mapped.table());
        let Some(table) = table else { return false };
        let us = Process(entry.process.load(Ordering::Acquire));
        let file = (entry.device.load(Ordering::Relaxed), entry.inode.load(Ordering::Relaxed));
        let is_crowded = || others(table, us, file, |_| {});
        if is_crowded() {
            return false;
        }
        // In this order: who comes in between is seen, or sets it afterwards.
        entry.crowded.store(0, Ordering::SeqCst);
        let crowded = is_crowded();
        if crowded {
            entry.crowded.store(1, Ordering::SeqCst);
        }
        !crowded
    }

    /// This process has closed the file.
    pub fn leave(&self) {
        let Some(entry) = self.entry() else { return };
        self.0.store(null_mut(), Ordering::Release);
        // A forked child has its parent's.
        let us = Process::own().0;
        if entry.process.load(Ordering::Acquire) == us {
            entry.inode.store(0, Ordering::Relaxed);
            lock(entry, libc::F_OFD_SETLK, libc::F_UNLCK);
            // Who cannot see that we live may have it since.
            let order = (Ordering::Release, Ordering::Relaxed);
            let _ = entry.process.compare_exchange(us, 0, order.0, order.1);
        }
    }

    /// Whether another process has opened the file since this one did, or had it open.
    #[inline]
    pub fn is_crowded(&self) -> bool {
        self.entry().is_some_and(|entry| entry.crowded.load(Ordering::Acquire) != 0)
    }
}

impl Entry {
    /// Whether the entry was free and is this process's now. One of this file that it had before it became another program
    /// is.
    fn is_claimed(&self, us: Process, file: FileId) -> bool {
        let owner = self.process.load(Ordering::Acquire);
        let swap = |from, to| {
            let order = (Ordering::AcqRel, Ordering::Relaxed);
            self.process.compare_exchange(from, to, order.0, order.1).is_ok()
        };
        let is_free = if owner == us.0 { self.is_of(file) } else { !self.is_alive(Process(owner)) };
        if !is_free || !swap(owner, us.0) {
            return false;
        }
        // Another one may have claimed it that cannot be seen from our pid namespace, and was about to lock it.
        let is_locked = lock(self, libc::F_OFD_SETLK, libc::F_WRLCK);
        let taken = |result: Result<_, _>| matches!(result, Err(libc::EAGAIN | libc::EACCES));
        let is_ours = !is_locked.is_some_and(taken);
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

    fn is_of(&self, (device, inode): FileId) -> bool {
        self.inode.load(Ordering::SeqCst) == inode && self.device.load(Ordering::Relaxed) == device
    }
}
