//! The kernel's tickets under an explorer: a sync that the kernel has counted covers a write only if it
//! began after the write was done.
//!
//! `written.rs` and `watch.rs` are the agent's own texts, compiled on [`sync`], with what the memory model lets
//! each thread see. The kernel's programs are played by a thread, which counts as they do. Where the barrier
//! after a write is taken away, or a write is counted before it is done, the explorer has to find a sync that
//! is believed and misses a write.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::undocumented_unsafe_blocks,
    missing_docs,
    reason = "a test that fails says so, and uses a part of the agent"
)]

#[path = "../../src/errno.rs"]
mod errno;
mod sync;
#[path = "../../src/watch.rs"]
mod watch;
#[path = "../../src/written.rs"]
mod written;

use durac_abi::notify::{WORDS, Word, first_slot};
use durac_engine::{Log, Rules};
use loom::thread;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as Counted, AtomicUsize, Ordering::Relaxed};
use sync::atomic::{AtomicU64, Ordering};
use watch::Watch;
use written::Written;

std::thread_local! {
    /// A write is counted before it is done: a bug that the explorer has to find.
    static EARLY: Cell<bool> = const { Cell::new(false) };
}

/// The first slot of the map is this file's.
fn file() -> (u64, u64) {
    let inode = (1..).find(|&inode| first_slot(0, inode) == 1).unwrap();
    (0, inode)
}

/// A log with its file and the kernel.
struct World {
    /// The file's pages, which hold so many writes.
    pages: AtomicU64,
    /// What the disk holds of them; known to the test alone.
    disk: Counted,
    map: &'static [AtomicU64],
    written: Written,
    core: loom::sync::Mutex<(Log, Option<Watch>)>,
}

impl World {
    fn new() -> Arc<Self> {
        sync::begin();
        // The header and one slot.
        let map = Vec::leak((0..2 * WORDS).map(|_| AtomicU64::new(0)).collect());
        watch::begin(map);
        let watch = watch::watch(file());
        assert!(watch.is_some());
        let written = Written::new();
        written.begin();
        written.set_watch(watch.as_ref());
        Arc::new(Self {
            pages: AtomicU64::new(0),
            disk: Counted::new(0),
            map,
            written,
            core: loom::sync::Mutex::new((Log::new(Rules::default()), watch)),
        })
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        self.map.get(WORDS + word as usize).unwrap()
    }

    /// A write of a byte and a sync call, of which only the beginning matters.
    fn write_and_call(&self) {
        if EARLY.get() {
            self.written.add(1);
            self.pages.fetch_add(1, Ordering::Relaxed);
        } else {
            self.pages.fetch_add(1, Ordering::Relaxed);
            self.written.add(1);
        }
        let mut core = self.core.lock().unwrap();
        let (engine, watch) = &mut *core;
        self.written.tell(engine, watch.as_mut());
        engine.enter(false, true);
        self.written.tell(engine, watch.as_mut());
        self.look(engine, watch.as_mut().unwrap());
    }

    /// Believes what the kernel has proved, and nothing that is not on the disk.
    fn look(&self, engine: &mut Log, watch: &mut Watch) {
        watch.tell(engine);
        let (disk, covered) = (self.disk.load(Relaxed), engine.written() - engine.pending_bytes());
        assert!(covered <= disk, "{covered} bytes are believed, {disk} are on the disk");
        let durable = engine.durable();
        assert!(durable <= disk, "{durable} calls are believed, {disk} writes are on the disk");
    }

    /// A sync in the kernel, with what its programs count (`durac_abi::notify`).
    fn sync(&self) {
        let ticket = self.word(Word::Started).fetch_add(1, Ordering::SeqCst) + 1;
        fence_of_kernel();
        let seen = self.pages.load(Ordering::Relaxed);
        self.disk.fetch_max(seen, Relaxed);
        self.word(Word::Completed).fetch_add(1, Ordering::SeqCst);
        self.word(Word::Done).fetch_max(ticket, Ordering::SeqCst);
        let ended = self.word(Word::Ended).fetch_add(1, Ordering::SeqCst) + 1;
        let done = self.word(Word::Done).load(Ordering::SeqCst);
        if ended == self.word(Word::Started).load(Ordering::SeqCst) {
            self.word(Word::Proved).fetch_max(done, Ordering::SeqCst);
        }
    }
}

/// The kernel's barrier is there whatever is taken from the agent.
fn fence_of_kernel() {
    loom::sync::atomic::fence(Ordering::SeqCst);
}

fn explore(preemptions: usize, body: impl Fn() + Sync + Send + 'static) -> usize {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    if let Some(more) = std::env::var("DURAC_TESTS_PREEMPTIONS").ok().and_then(|n| n.parse().ok()) {
        builder.preemption_bound = Some(more);
    }
    builder.max_branches = 20_000;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        body();
    });
    let count = count.load(Relaxed);
    eprintln!("{count} executions");
    count
}

/// The explorer has to find something wrong.
fn finds(flag: &'static std::thread::LocalKey<Cell<bool>>, body: fn()) {
    flag.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| explore(2, body)));
    flag.set(false);
    assert!(result.is_err(), "the explorer finds nothing wrong");
}

/// One thread writes, while the kernel syncs.
fn one_writer() {
    let world = World::new();
    let kernel = Arc::clone(&world);
    let kernel = thread::spawn(move || kernel.sync());
    world.write_and_call();
    world.write_and_call();
    kernel.join().unwrap();
    let mut core = world.core.lock().unwrap();
    let (engine, watch) = &mut *core;
    world.look(engine, watch.as_mut().unwrap());
}

/// Two threads write, and either's look counts for both.
fn two_writers() {
    let world = World::new();
    let (kernel, other) = (Arc::clone(&world), Arc::clone(&world));
    let threads =
        [thread::spawn(move || kernel.sync()), thread::spawn(move || other.write_and_call())];
    world.write_and_call();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut core = world.core.lock().unwrap();
    let (engine, watch) = &mut *core;
    world.look(engine, watch.as_mut().unwrap());
}

#[test]
fn a_sync_covers_what_was_written_before_it_began() {
    assert!(explore(3, one_writer) > 100);
}

#[test]
fn of_two_threads_too() {
    assert!(explore(1, two_writers) > 100);
}

/// What is proved is believed, where it is: else nothing above says anything.
#[test]
fn a_sync_that_began_afterwards_is_believed() {
    explore(2, || {
        let world = World::new();
        world.write_and_call();
        let kernel = Arc::clone(&world);
        thread::spawn(move || kernel.sync()).join().unwrap();
        let mut core = world.core.lock().unwrap();
        let (engine, watch) = &mut *core;
        world.look(engine, watch.as_mut().unwrap());
        assert_eq!((engine.durable(), engine.pending_bytes()), (1, 0));
    });
}

#[test]
fn a_missing_barrier_is_found() {
    finds(&sync::FENCELESS, one_writer);
}

#[test]
fn a_write_that_is_counted_too_early_is_found() {
    finds(&EARLY, one_writer);
}
