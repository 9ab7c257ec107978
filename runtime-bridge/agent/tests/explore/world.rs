//! What stands around the explored modules. All threads of an exploration are one thread of the
//! system, so its thread-local numbers are what they share.

use crate::log::{Opened, Slot};
use crate::pool::Pool;
use durac_engine::status::{self, StatusPage};
use durac_engine::{Errno, Rules};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

std::thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
    static DISK: RefCell<Disk> = const { RefCell::new(Disk::new()) };
    static POINT: RefCell<Option<&'static loom::sync::atomic::AtomicU64>> = const { RefCell::new(None) };
    static DIRTY: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    static REGISTRY: Cell<Option<&'static registry::Registry>> = const { Cell::new(None) };
    /// No thread can be started.
    pub static NO_THREADS: Cell<bool> = const { Cell::new(false) };
    /// The disk says that it has synced, and has not: a bug that the explorer has to find.
    pub static LIES: Cell<bool> = const { Cell::new(false) };
}

/// The files.
pub struct Disk {
    /// By descriptor.
    files: BTreeMap<i32, File>,
    /// How many syncs go well before one fails.
    good: u32,
}

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    /// Sync calls that the application has begun.
    begun: u64,
    /// Those that a sync covers which has succeeded.
    durable: u64,
    closed: bool,
}

impl Disk {
    const fn new() -> Self {
        Self { files: BTreeMap::new(), good: u32::MAX }
    }
}

/// Lets other threads run, if the explorer wants that.
fn point() {
    let point = POINT.with_borrow(|point| *point);
    if let Some(point) = point {
        point.store(0, loom::sync::atomic::Ordering::Relaxed);
    }
}

pub fn pass(time: Duration) {
    NOW.set(NOW.get() + time.as_nanos() as u64);
}

/// The application's descriptors stand above it, each for the file of the agent's that is so much lower.
/// A call on one that it has closed fails; one on the agent's own that is closed is a bug.
pub const APP: i32 = 100;

fn with<T>(fd: i32, body: impl FnOnce(&mut File, &mut u32) -> T) -> T {
    DISK.with_borrow_mut(|disk| {
        let Disk { files, good } = disk;
        let file = files.entry(fd % APP).or_default();
        assert!(fd >= APP || !file.closed, "a system call on a descriptor that is closed");
        body(file, good)
    })
}

/// The application begins a sync call; answers its number.
pub fn begin(fd: i32) -> u64 {
    point();
    with(fd, |file, _| {
        file.begun += 1;
        file.begun
    })
}

/// Calls that a sync covers.
pub fn durable(fd: i32) -> u64 {
    DISK.with_borrow(|disk| disk.files.get(&(fd % APP)).map_or(0, |file| file.durable))
}

pub fn bytes(fd: i32) -> Vec<u8> {
    DISK.with_borrow(|disk| {
        disk.files.get(&(fd % APP)).map_or(Vec::new(), |file| file.bytes.clone())
    })
}

pub fn is_closed(fd: i32) -> bool {
    DISK.with_borrow(|disk| disk.files.get(&(fd % APP)).is_some_and(|file| file.closed))
}

/// After so many syncs one fails.
pub fn fail_after(good: u32) {
    DISK.with_borrow_mut(|disk| disk.good = good);
}

/// A new world, at the beginning of an execution, with a log for each descriptor.
pub fn begin_anew(rules: Rules, fds: &[i32]) -> Vec<&'static Slot> {
    static PAGE: OnceLock<&'static StatusPage> = OnceLock::new();
    let page = PAGE.get_or_init(|| status::create(None, 100).unwrap().page);
    NOW.set(1);
    DIRTY.set((0, 0));
    DISK.set(Disk::new());
    let point = loom::sync::atomic::AtomicU64::new(0);
    POINT.set(Some(Box::leak(Box::new(point))));
    let pool: &Pool = Box::leak(Box::new(Pool::new()));
    let slots: Vec<&'static Slot> = fds
        .iter()
        .enumerate()
        .map(|(index, &fd)| {
            let slot: &Slot = Box::leak(Box::new(Slot::new(index, page)));
            open(slot, rules, fd, pool);
            slot
        })
        .collect();
    let registry = registry::Registry { slots: slots.clone() };
    REGISTRY.set(Some(Box::leak(Box::new(registry))));
    slots
}

/// Makes a place a log; as the registry does.
pub fn open(slot: &'static Slot, rules: Rules, fd: i32, pool: &'static Pool) {
    let mut core = slot.lock();
    let file = (1, fd as u64);
    slot.reuse(&mut core, rules, Opened { file, own_fd: Some(fd % APP), pool, path: "x.log" });
    core.fds = 1;
    slot.publish(&mut core);
}

pub mod clock {
    use durac_engine::Time;

    pub fn now() -> Time {
        super::NOW.get()
    }
}

pub mod real {
    use super::{APP, LIES, is_closed, point, with};
    use crate::errno;
    use libc::{c_int, c_void, size_t, ssize_t};

    pub struct Next<F>(F);

    impl<F: Copy> Next<F> {
        pub fn get(&self) -> F {
            self.0
        }
    }

    pub static FDATASYNC: Next<unsafe extern "C" fn(c_int) -> c_int> = Next(sync);
    pub static FSYNC: Next<unsafe extern "C" fn(c_int) -> c_int> = Next(sync);
    pub static WRITE: Next<unsafe extern "C" fn(c_int, *const c_void, size_t) -> ssize_t> =
        Next(write);

    unsafe extern "C" fn sync(fd: c_int) -> c_int {
        if fd >= APP && is_closed(fd) {
            errno::set(libc::EBADF);
            return -1;
        }
        let covers = with(fd, |file, _| file.begun);
        point();
        with(fd, |file, good| {
            if fd >= APP && file.closed {
                errno::set(libc::EBADF);
                return -1;
            }
            if *good == 0 {
                errno::set(libc::EIO);
                return -1;
            }
            *good -= 1;
            if !LIES.get() {
                file.durable = file.durable.max(covers);
            }
            0
        })
    }

    unsafe extern "C" fn write(fd: c_int, data: *const c_void, len: size_t) -> ssize_t {
        point();
        let data = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) };
        with(fd, |file, _| file.bytes.extend_from_slice(data));
        len as ssize_t
    }
}

pub mod record {
    use durac_engine::{Errno, Flight, Time};
    pub use durac_trace::Verdict as Done;

    pub fn done(_: Done) {}
    pub fn parked() -> u64 {
        0
    }
    pub fn set_parked(_: u64) {}
    pub fn syncing() {}
    pub fn synced(_: usize, _: &Flight, _: u64, _: Time, _: Result<(), Errno>) {}
}

pub mod note {
    pub fn error(_: &str) {}
    pub fn info(_: &str) {}
    pub fn aside(_: &str) {}
}

pub mod guard {
    pub fn run<T>(body: impl FnOnce() -> T) -> Option<T> {
        Some(body())
    }
}

pub mod children {
    pub fn any() -> bool {
        false
    }
}

pub mod table {
    use super::{DIRTY, REGISTRY, registry::Registry};

    #[derive(Clone, Copy)]
    pub enum Entry {
        Other,
        Own,
    }

    pub fn set(_: libc::c_int, _: Entry) {}
    pub fn registry() -> Option<&'static Registry> {
        REGISTRY.get()
    }
    pub fn dirty() -> u64 {
        DIRTY.get().0
    }
    pub fn any_staged() -> bool {
        DIRTY.get().1 > 0
    }
    pub fn count_dirty(dirty: bool) {
        let (count, staged) = DIRTY.get();
        DIRTY.set((if dirty { count + 1 } else { count - 1 }, staged));
    }
    pub fn count_staged(staged: bool) {
        let (dirty, count) = DIRTY.get();
        DIRTY.set((dirty, if staged { count + 1 } else { count - 1 }));
    }
}

pub mod registry {
    use super::{DISK, Errno, Slot};

    pub type FileId = (u64, u64);

    pub struct Registry {
        pub slots: Vec<&'static Slot>,
    }

    impl Registry {
        pub fn slots(&self) -> impl Iterator<Item = &'static Slot> + '_ {
            self.slots.iter().copied()
        }
        pub fn is_ours(&self) -> bool {
            true
        }
        pub fn stopped(&self) -> Option<Errno> {
            None
        }
        pub fn is_closing(&self) -> bool {
            false
        }
        pub fn failed(&self, _: Errno) {}
    }

    pub fn close_own(fd: i32) {
        DISK.with_borrow_mut(|disk| {
            let file = disk.files.entry(fd).or_default();
            assert!(!file.closed, "closed twice");
            file.closed = true;
        });
    }
}

pub mod policy {
    use crate::call::with_current;
    use durac_bpf::abi::{Context, Engine, Hook, Reading, Verdict};
    use durac_engine::Rules;

    /// A program, as the compiler would make it.
    pub struct Program {
        pub requests: bool,
        pub waits: Option<u64>,
        pub verdict: Verdict,
    }

    impl Program {
        pub unsafe fn run(&self, _: *mut Context) -> Verdict {
            if self.requests {
                with_current(|current| current.request());
            }
            if let Some(distance) = self.waits {
                with_current(|current| current.await_distance(distance));
            }
            self.verdict
        }
    }

    pub struct Meta {
        pub policy: String,
    }

    pub struct Policy {
        pub meta: Meta,
        pub rules: Rules,
        pub engine: Engine,
        pub sync: Program,
    }

    impl Policy {
        pub fn program(&self, _: Hook) -> Option<&Program> {
            Some(&self.sync)
        }
        pub fn reads(&self, _: Reading) -> bool {
            false
        }
    }

    pub fn get() -> Option<&'static Policy> {
        None
    }
}
