//! Records what happens on the logs, for `durac record`: into a ring in shared memory, which
//! another process drains.
//!
//! While nothing is recorded, a hook pays one load for it. Recording takes no lock, allocates
//! nothing on the way of a call, and never waits: an event that finds no room is counted and lost.
//! A forked child has no logs (see `table`), so it records nothing, unless it opens some itself.

use crate::clock;
use crate::errno;
use crate::table;
use durac_abi::{Hook, MAX_LOGS};
use durac_engine::{Errno, Flight, Time};
use durac_shm::ring::Ring;
use durac_trace::{Event, Op};
use libc::ssize_t;
use std::cell::Cell;
use std::io;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// What was done with a call.
pub use durac_trace::Verdict as Done;

/// How long a thread is taken to run without sleeping, nanoseconds. Its CPU clock is a system call
/// of half a microsecond or more; within this time of a reading, the time of day does for it. What
/// that gets wrong, the next reading corrects.
const SHORT: Time = 20_000;

static RING: AtomicPtr<Ring> = AtomicPtr::new(null_mut());

/// The number in the trace of the log at each place of the registry.
static LOGS: [AtomicU32; MAX_LOGS as usize] = [const { AtomicU32::new(0) }; MAX_LOGS as usize];

/// What is known of a thread, and of the call that it is in.
struct Thread {
    /// Its number in the trace; none before its first event.
    number: Cell<Option<u32>>,
    /// When its CPU time was read, and what that was.
    reading: Cell<(Time, u64)>,
    /// Its CPU time at the end of its last event; 0 before the first.
    ended: Cell<u64>,
    done: Cell<Done>,
    /// Time that the call was parked.
    parked: Cell<u64>,
    /// CPU time of the real syncs of the call.
    sync_cpu: Cell<u64>,
    /// Its CPU time before the last real sync.
    before_sync: Cell<u64>,
}

thread_local! {
    static THREAD: Thread = const {
        Thread {
            number: Cell::new(None),
            reading: Cell::new((0, 0)),
            ended: Cell::new(0),
            done: Cell::new(Done::Pass),
            parked: Cell::new(0),
            sync_cpu: Cell::new(0),
            before_sync: Cell::new(0),
        }
    };
}

impl Thread {
    /// Its number, which it gets when it is first needed.
    fn number(&self, ring: &Ring) -> u32 {
        let number = self.number.get().unwrap_or_else(|| ring.new_thread());
        self.number.set(Some(number));
        number
    }

    /// Its CPU time; it is `now`.
    fn cpu(&self, now: Time) -> u64 {
        let (at, cpu) = self.reading.get();
        let passed = now.saturating_sub(at);
        if cpu != 0 && passed < SHORT {
            return cpu + passed;
        }
        let cpu = clock::of(libc::CLOCK_THREAD_CPUTIME_ID);
        self.reading.set((now, cpu));
        cpu
    }
}

/// Records from now on.
///
/// # Errors
/// If there is no ring at `path`.
pub fn start(path: &Path) -> io::Result<()> {
    let ring = Box::leak(Box::new(Ring::open(path)?));
    RING.store(ring, Ordering::Release);
    Ok(())
}

/// The ring, while somebody reads it.
#[inline]
fn ring() -> Option<&'static Ring> {
    // SAFETY: only `start` stores it, from a reference that lives for ever.
    let ring = unsafe { RING.load(Ordering::Acquire).as_ref() }?;
    ring.is_read().then_some(ring)
}

/// A recorded call.
#[must_use]
pub struct Begun {
    ring: &'static Ring,
    since: Time,
    cpu: u64,
}

/// A call begins; none if nothing is recorded.
#[inline]
pub fn begin() -> Option<Begun> {
    ring().map(begin_in)
}

#[inline(never)]
fn begin_in(ring: &'static Ring) -> Begun {
    THREAD.with(|thread| {
        thread.done.set(Done::Pass);
        thread.parked.set(0);
        thread.sync_cpu.set(0);
        let cpu = since(thread.ended.get(), thread.cpu(clock::now()));
        Begun { ring, since: clock::now(), cpu }
    })
}

/// CPU time since `before`; 0 only if that is not known.
fn since(before: u64, now: u64) -> u64 {
    if before == 0 { 0 } else { now.saturating_sub(before).max(1) }
}

impl Begun {
    /// It was a write, which returned `result`.
    pub fn write_ended(self, index: usize, result: ssize_t) {
        let bytes = u64::try_from(result).unwrap_or(0);
        let result = if result < 0 { errno::get() } else { 0 };
        self.end(Event { op: Op::Write, log: log(index), bytes, result, ..Event::default() });
    }

    /// It was a sync call.
    pub fn sync_ended(self, index: usize, hook: Hook, result: Result<(), Errno>) {
        let op = if hook == Hook::Fsync { Op::Fsync } else { Op::Fdatasync };
        let result = result.err().unwrap_or(0);
        self.end(Event { op, log: log(index), result, ..Event::default() });
    }

    /// It was a fork, in the parent.
    pub fn forked(self) {
        if table::registry().is_some() {
            self.end(Event { op: Op::Fork, ..Event::default() });
        }
    }

    fn end(self, event: Event) {
        let now = clock::now();
        THREAD.with(|thread| {
            self.ring.push(&Event {
                t: now,
                took: now.saturating_sub(self.since),
                thread: thread.number(self.ring),
                cpu: self.cpu,
                sync_cpu: thread.sync_cpu.get(),
                verdict: if event.op.is_call() { thread.done.get() } else { Done::None },
                wait: thread.parked.get(),
                ..event
            });
            // Last, so that recording itself is not taken for the application's work.
            thread.ended.set(thread.cpu(clock::now()));
        });
    }
}

/// What is done with the call that the thread is in; [`Done::Pass`] if nobody says.
#[inline]
pub fn done(done: Done) {
    if !RING.load(Ordering::Relaxed).is_null() {
        THREAD.with(|thread| thread.done.set(done));
    }
}

/// How long the call that the thread is in was parked until now.
pub fn parked() -> u64 {
    THREAD.with(|thread| thread.parked.get())
}

/// Sets what [`parked`] returns.
pub fn set_parked(parked: u64) {
    THREAD.with(|thread| thread.parked.set(parked));
}

/// A real sync begins.
pub fn syncing() {
    if ring().is_some() {
        THREAD.with(|thread| thread.before_sync.set(thread.cpu(clock::now())));
    }
}

/// A real sync has ended. When it began, `bytes` had not been synced.
pub fn synced(index: usize, flight: &Flight, bytes: u64, end: Time, result: Result<(), Errno>) {
    let Some(ring) = ring() else { return };
    THREAD.with(|thread| {
        let (before, after) = (thread.before_sync.get(), thread.cpu(end));
        let sync_cpu = since(before, after);
        thread.sync_cpu.set(thread.sync_cpu.get() + sync_cpu);
        // For the syncer it is an event of its own; for other threads it is part of their call.
        let own = flight.background;
        let cpu = if own { since(thread.ended.replace(after), before) } else { 0 };
        ring.push(&Event {
            t: end,
            op: Op::Sync,
            log: log(index),
            thread: thread.number(ring),
            took: end.saturating_sub(flight.since),
            cpu,
            sync_cpu,
            bytes,
            covers: flight.covers,
            background: own,
            result: result.err().unwrap_or(0),
            ..Event::default()
        });
    });
}

/// A log was opened, at this place of the registry.
pub fn opened(index: usize, path: &str) {
    let Some(ring) = ring() else { return };
    let number = ring.new_log();
    if let Some(place) = LOGS.get(index) {
        place.store(number, Ordering::Relaxed);
    }
    happened(ring, Event { op: Op::Open, log: number, path: path.to_owned(), ..Event::default() });
}

/// A log was closed.
pub fn closed(index: usize) {
    if let Some(ring) = ring() {
        happened(ring, Event { op: Op::Close, log: log(index), ..Event::default() });
    }
}

/// The application has waited for a child that had ended.
pub fn reaped() {
    if let Some(ring) = ring() {
        happened(ring, Event { op: Op::Reap, ..Event::default() });
    }
}

/// This process is a forked child: a thread of its own, whatever its memory says.
pub fn in_child() {
    THREAD.with(|thread| {
        thread.number.set(None);
        thread.reading.set((0, 0));
        thread.ended.set(0);
    });
}

/// Something that takes no time.
fn happened(ring: &Ring, event: Event) {
    let thread = THREAD.with(|thread| thread.number(ring));
    ring.push(&Event { t: clock::now(), thread, ..event });
}

fn log(index: usize) -> u32 {
    LOGS.get(index).map_or(0, |log| log.load(Ordering::Relaxed))
}
