//! What stands around the explored modules. All threads of an exploration are one thread of the
//! system, so its thread-local numbers are what they share.

use crate::log::Slot;
use crate::{registry, table};
use policy::Policy;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

std::thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
    static DISK: RefCell<Disk> = const { RefCell::new(Disk::new()) };
    static POINT: RefCell<Option<&'static loom::sync::atomic::AtomicU64>> = const { RefCell::new(None) };
    /// By process: the memory that a child has empty.
    static MEMORY: RefCell<Vec<(*mut u8, Layout)>> = const { RefCell::new(Vec::new()) };
    /// A child has its parent's memory, which the kernel should have emptied: a bug that the explorer has to find.
    pub static KEPT: Cell<bool> = const { Cell::new(false) };
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
    /// Descriptors of the application that are of another file.
    numbers: BTreeMap<i32, i32>,
    /// The agent's own descriptors, from [`OWN`] on: of which file, and whether it is closed.
    own: Vec<(i32, bool)>,
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

loom::thread_local! {
    static PROCESS: Cell<usize> = Cell::new(0);
}

/// Which process the thread is in: 0 the first, 1 its child.
pub fn process() -> usize {
    PROCESS.with(Cell::get)
}

/// Runs `body` in a process.
pub fn in_process<T>(process: usize, body: impl FnOnce() -> T) -> T {
    let before = PROCESS.with(|place| place.replace(process));
    let result = body();
    PROCESS.with(|place| place.set(before));
    result
}

/// The emptied memory of this process.
pub fn memory(size: usize) -> *const u8 {
    let process = if KEPT.get() { 0 } else { process() };
    MEMORY.with_borrow_mut(|all| {
        while all.len() <= process {
            let layout = Layout::from_size_align(size, 4096).unwrap();
            all.push((unsafe { alloc_zeroed(layout) }, layout));
        }
        all[process].0.cast_const()
    })
}

impl Disk {
    const fn new() -> Self {
        Self { files: BTreeMap::new(), good: u32::MAX, numbers: BTreeMap::new(), own: Vec::new() }
    }

    /// The file of a descriptor.
    fn file(&self, fd: i32) -> i32 {
        let own = usize::try_from(fd - OWN).ok().and_then(|index| self.own.get(index));
        let number = own.map(|own| own.0).or_else(|| self.numbers.get(&fd).copied());
        number.unwrap_or(fd % APP)
    }
}

/// Lets other threads run, if the explorer wants that.
pub fn point() {
    let point = POINT.with_borrow(|point| *point);
    if let Some(point) = point {
        point.store(0, loom::sync::atomic::Ordering::Relaxed);
    }
    signals::arrive();
}

pub fn pass(time: Duration) {
    NOW.set(NOW.get() + time.as_nanos() as u64);
}

/// The application's descriptors stand above it, each for the file of the agent's that is so much lower.
/// A call on one that it has closed fails; one on the agent's own that is closed is a bug.
pub const APP: i32 = 100;
/// The agent's own descriptors are those from here to [`APP`].
const OWN: i32 = 20;

fn with<T>(fd: i32, body: impl FnOnce(&mut File, &mut u32) -> T) -> T {
    DISK.with_borrow_mut(|disk| {
        let number = disk.file(fd);
        let closed = disk.own.get((fd - OWN) as usize).is_some_and(|own| own.1);
        assert!(fd >= APP || !closed, "a system call on a descriptor that is closed");
        let Disk { files, good, .. } = disk;
        let file = files.entry(number).or_default();
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
    DISK.with_borrow(|disk| disk.files.get(&disk.file(fd)).map_or(0, |file| file.durable))
}

pub fn bytes(fd: i32) -> Vec<u8> {
    DISK.with_borrow(|disk| {
        disk.files.get(&disk.file(fd)).map_or(Vec::new(), |file| file.bytes.clone())
    })
}

pub fn is_closed(fd: i32) -> bool {
    DISK.with_borrow(|disk| disk.files.get(&disk.file(fd)).is_some_and(|file| file.closed))
}

/// After so many syncs one fails.
pub fn fail_after(good: u32) {
    DISK.with_borrow_mut(|disk| disk.good = good);
}

/// Which file a descriptor of the application is of, if not that so much lower.
pub fn renumber(fd: i32, file: i32) {
    DISK.with_borrow_mut(|disk| disk.numbers.insert(fd, file));
}

/// A new world, at the beginning of an execution, with a log for each descriptor.
pub fn begin_anew(policy: &'static Policy, fds: &[i32]) -> Vec<&'static Slot> {
    NOW.set(1);
    MEMORY.with_borrow_mut(|all| {
        all.drain(..).for_each(|(memory, layout)| unsafe { dealloc(memory, layout) });
    });
    DISK.set(Disk::new());
    policy::forget();
    let point = loom::sync::atomic::AtomicU64::new(0);
    POINT.set(Some(Box::leak(Box::new(point))));
    fds.iter().map(|&fd| open(policy, fd)).collect()
}

/// The application has opened a log.
pub fn open(policy: &'static Policy, fd: i32) -> &'static Slot {
    let file = DISK.with_borrow(|disk| disk.file(fd));
    registry::opened(policy, fd, (1, file as u64), Path::new("x.log"), 0);
    let table::Entry::Log(index) = table::get(fd) else { panic!("no log") };
    table::registry().unwrap().slot(index).unwrap()
}

pub mod page {
    pub fn has(_: Option<i32>) {}

    use super::policy::Policy;
    use durac_shm::status::{self, ControlPage, StatusPage};
    use std::sync::OnceLock;

    pub struct PageFile;

    impl PageFile {
        pub fn remove(&self) {}
    }

    pub struct Made {
        pub page: &'static StatusPage,
        pub control: Option<&'static ControlPage>,
        pub fd: Option<i32>,
        pub file: Option<PageFile>,
    }

    /// One for all executions.
    pub fn make(_: &'static Policy, number: i32) -> Option<Made> {
        static PAGE: OnceLock<&'static StatusPage> = OnceLock::new();
        let page = PAGE.get_or_init(|| status::create(None, number).unwrap().page);
        Some(Made { page, control: None, fd: None, file: None })
    }
}

pub mod clock {
    use durac_engine::Time;
    use std::time::Duration;

    pub fn now() -> Time {
        super::NOW.get()
    }

    /// Files were written long ago.
    pub fn of(_clock: libc::clockid_t) -> Time {
        Time::MAX
    }

    pub fn pause(time: Duration) {
        super::pass(time);
    }
}

pub mod crowd {
    /// No other process here opens a log.
    pub struct Crowd;

    pub fn makes_room(_: i32) -> bool {
        false
    }

    impl Crowd {
        pub const fn new() -> Self {
            Self
        }

        pub fn join(&self, _: (u64, u64)) {}

        pub fn leave(&self) {}

        pub fn is_crowded(&self) -> bool {
            false
        }

        pub fn has_no_entry(&self) -> bool {
            false
        }

        pub fn are_others_gone(&self) -> bool {
            false
        }
    }
}

/// No handler leaves a `fork` here.
pub mod hooks {
    pub mod returns {
        pub fn counts_fork(_: bool) {}

        pub fn clones() {}
    }
}

pub mod family {
    pub fn found() {}

    pub fn has_spread() -> bool {
        false
    }
}

/// Replies are not held here: the rule has tests in `durac-engine`, and the workspace tests hold real ones.
pub mod replies {
    pub use crate::choice::{Choice, Way};
    use crate::registry::Registry;
    use durac_shm::status::StatusPage;

    pub struct Replies;

    impl Replies {
        pub fn pass_by_calls(&self) {}

        pub fn new(_: bool, _: &'static StatusPage) -> Self {
            Self
        }

        pub fn loop_comes(&self) -> bool {
            false
        }

        pub fn set_by_loop(&self, _: bool) {}

        pub fn are_all_here(&self) -> bool {
            true
        }

        pub fn hold(&self) -> bool {
            false
        }

        pub fn closed(&self, _: u64, _: u64, _: u64) {}

        pub fn vanished(&self, _: i32) {}

        pub fn finish(&self, _: &'static Registry) {}

        pub fn dismiss(&self) {}

        pub fn recall(&self) {}
    }

    pub fn release() {}

    pub fn loop_sends() -> bool {
        false
    }

    pub fn is_waiting() -> bool {
        false
    }

    pub fn sync_begins() {}

    pub fn way_changed() {}
}

pub mod owned {
    pub fn begin() {}
    pub fn set(_: usize, _: (u64, u64), _: Option<i32>) {}
    pub fn opened(_: usize, _: (u64, u64), _: bool) {}
}

pub mod proof {
    use super::{APP, DISK, is_closed};
    use std::sync::atomic::{AtomicI32, Ordering};

    /// What the kernel says of the descriptors of this world.
    pub struct Proof(AtomicI32);

    impl Proof {
        pub fn new() -> Self {
            Self(AtomicI32::new(-1))
        }

        pub fn set(&self, file: (u64, u64), _: Option<i32>) {
            self.0.store(file.1 as i32, Ordering::Relaxed);
        }

        pub fn set_witness(&self, _: Option<i32>) {}

        pub fn holds(&self, fd: i32) -> bool {
            self.is_file(fd)
        }

        pub fn is_file(&self, fd: i32) -> bool {
            let file = DISK.with_borrow(|disk| disk.file(fd));
            file == self.0.load(Ordering::Relaxed) && !(fd >= APP && is_closed(fd))
        }
    }
}

pub mod real {
    use super::{APP, DISK, LIES, OWN, is_closed, point, with};
    use crate::errno;
    use libc::{c_int, c_void, size_t, ssize_t};

    pub struct Next<F>(F);

    impl<F: Copy> Next<F> {
        pub fn get(&self) -> F {
            self.0
        }
    }

    pub static FDATASYNC: Next<unsafe extern "C-unwind" fn(c_int) -> c_int> = Next(sync);
    pub static FSYNC: Next<unsafe extern "C-unwind" fn(c_int) -> c_int> = Next(sync);
    pub static WRITE: Next<unsafe extern "C-unwind" fn(c_int, *const c_void, size_t) -> ssize_t> =
        Next(write);

    pub static OPEN: Next<unsafe extern "C" fn(*const libc::c_char, c_int, libc::mode_t) -> c_int> =
        Next(open);
    pub static FCNTL: Next<unsafe extern "C" fn(c_int, c_int, size_t) -> c_int> = Next(duplicate);
    pub static CLOSE: Next<unsafe extern "C" fn(c_int) -> c_int> = Next(close);

    /// Nothing here locks an open file.
    unsafe extern "C" fn open(_: *const libc::c_char, _: c_int, _: libc::mode_t) -> c_int {
        -1
    }

    /// Another descriptor of the agent's.
    unsafe extern "C" fn duplicate(fd: c_int, _: c_int, _: size_t) -> c_int {
        DISK.with_borrow_mut(|disk| {
            let file = disk.file(fd);
            disk.files.entry(file).or_default().closed = false;
            disk.own.push((file, false));
            OWN + disk.own.len() as c_int - 1
        })
    }

    /// Only the agent's own are closed here. With the last of a file the application's are.
    unsafe extern "C" fn close(fd: c_int) -> c_int {
        DISK.with_borrow_mut(|disk| {
            let file = disk.file(fd);
            let own = disk.own.get_mut((fd - OWN) as usize).unwrap();
            assert!(!own.1, "closed twice");
            own.1 = true;
            let closed = disk.own.iter().all(|own| own.0 != file || own.1);
            disk.files.entry(file).or_default().closed = closed;
        });
        0
    }

    unsafe extern "C-unwind" fn sync(fd: c_int) -> c_int {
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

    unsafe extern "C-unwind" fn write(fd: c_int, data: *const c_void, len: size_t) -> ssize_t {
        point();
        let data = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) };
        with(fd, |file, _| file.bytes.extend_from_slice(data));
        len as ssize_t
    }
}

pub mod record {
    use durac_engine::{Errno, Flight, Time};
    pub use durac_trace::Verdict as Done;

    pub struct Begun;

    impl Begun {
        pub fn forked(self) {}
    }

    pub fn begin() -> Option<Begun> {
        None
    }
    pub fn in_child() {}
    pub fn reaped() {}
    pub fn opened(_: usize, _: &str) {}
    pub fn closed(_: usize) {}
    pub fn done(_: Done) {}
    pub fn parked() -> u64 {
        0
    }
    pub fn set_parked(_: u64) {}
    pub fn syncing() {}
    pub fn synced(_: usize, _: &Flight, _: u64, _: Time, _: Result<(), Errno>) {}
}

pub mod failures {
    use crate::{log::Core, stamp::Known};

    pub fn add(_: &Core, _: i32) {}
    pub fn begin(_: (u64, u64)) {}
    pub fn forget(_: (u64, u64)) {}
    pub fn latest() -> u64 {
        0
    }
    pub fn any() -> bool {
        false
    }
    pub fn of_shared(_: (u64, u64), _: &Known) -> Option<i32> {
        None
    }
}

pub mod note {
    pub fn later(_: &str) {}
    pub fn error(_: &str) {}
    pub fn info(_: &str) {}
    pub fn aside(_: &str) {}
}

/// A signal to one thread, for which the application has a handler. What `signals.rs` does at its arrival:
/// inside the agent, the handler waits until the thread leaves.
pub mod signals {
    use crate::guard;
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    std::thread_local! {
        /// Handlers do not wait: a bug that the explorer has to find.
        pub static EAGER: Cell<bool> = const { Cell::new(false) };
        static SENT: Cell<bool> = const { Cell::new(false) };
        static HANDLER: RefCell<Option<Rc<dyn Fn()>>> = const { RefCell::new(None) };
    }

    /// No test here starts a thread from a handler.
    pub fn may_be_in_handler() -> bool {
        false
    }

    loom::thread_local! {
        static IS_TARGET: Cell<bool> = Cell::new(false);
        static WAITS: Cell<bool> = Cell::new(false);
    }

    /// The signals of an execution go to this thread.
    pub fn install(handler: impl Fn() + 'static) {
        SENT.set(false);
        IS_TARGET.with(|target| target.set(true));
        HANDLER.set(Some(Rc::new(handler)));
    }

    /// Another thread sends it.
    pub fn send() {
        super::point();
        SENT.set(true);
    }

    /// The thread is where a signal can arrive.
    pub fn arrive() {
        if !SENT.get() || !IS_TARGET.with(Cell::get) {
            return;
        }
        SENT.set(false);
        if guard::is_inside() && !EAGER.get() {
            WAITS.with(|waits| waits.set(true));
        } else {
            handle();
        }
    }

    /// The thread has left the agent.
    pub fn left() {
        if WAITS.with(|waits| waits.replace(false)) {
            handle();
        }
    }

    fn handle() {
        let handler = HANDLER.with_borrow(|handler| handler.clone());
        handler.unwrap()();
    }
}

pub mod policy {
    use crate::call::with_current;
    use durac_abi::{Context, Engine, Hook, Reading, Verdict};
    use durac_engine::Rules;
    use std::path::Path;

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
        pub callers: durac_abi::Callers,
    }

    /// No policy here has state.
    #[derive(Clone, Copy)]
    pub struct State;

    impl State {
        pub fn reset(&self, _: usize) {}
    }

    pub struct Policy {
        pub meta: Meta,
        pub rules: Rules,
        pub engine: Engine,
        pub sync: Program,
        pub state: Option<State>,
        pub params: Option<&'static crate::maps::MapArea>,
    }

    impl Policy {
        pub fn covers(&self, _: &Path) -> bool {
            true
        }
        pub fn stops_all(&self) -> bool {
            false
        }
        pub fn program(&self, _: Hook) -> Option<&Program> {
            Some(&self.sync)
        }
        pub fn reads(&self, _: Reading) -> bool {
            false
        }

        pub fn reads_anything(&self) -> bool {
            true
        }
    }

    pub fn get() -> Option<&'static Policy> {
        None
    }

    std::thread_local! {
        /// The policy that has come in the place of the one with which calls begin.
        static IN_FORCE: std::cell::Cell<Option<&'static Policy>> = const { std::cell::Cell::new(None) };
    }

    /// Calls go by the policy that they are given.
    pub fn forget() {
        IN_FORCE.set(None);
    }

    pub fn loaded() -> Option<&'static Policy> {
        IN_FORCE.get()
    }

    pub fn exchange(policy: &'static Policy) -> &'static Policy {
        IN_FORCE.set(Some(policy));
        policy
    }
}
