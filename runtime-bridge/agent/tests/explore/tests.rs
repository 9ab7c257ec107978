//! What is explored.

use crate::call::{self, Put, Written};
use crate::log::Slot;
use crate::policy::{Meta, Policy, Program};
use crate::stage::Pieces;
use crate::sync::DEAF;
use crate::table::{self, Entry};
use crate::world::{self, LIES, NO_THREADS};
use durac_abi::{Engine, Hook, Verdict};
use durac_engine::{Errno, Rules};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// The application's descriptor of the first log.
pub const FD: i32 = world::APP + 7;

/// Explores `body`; answers how many executions there were.
pub fn explore(preemptions: usize, body: impl Fn() + Sync + Send + 'static) -> usize {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.max_threads = 5;
    if let Some(more) = std::env::var("DURAC_TESTS_PREEMPTIONS").ok().and_then(|n| n.parse().ok()) {
        builder.preemption_bound = Some(more);
    }
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = count.clone();
    builder.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        body();
    });
    let count = count.load(std::sync::atomic::Ordering::Relaxed);
    eprintln!("{count} executions");
    count
}

/// The explorer has to find something wrong.
pub fn finds(
    flag: &'static std::thread::LocalKey<Cell<bool>>,
    body: impl Fn() + Sync + Send + 'static,
) {
    finds_within(2, flag, body);
}

/// The same with so many preemptions.
pub fn finds_within(
    preemptions: usize,
    flag: &'static std::thread::LocalKey<Cell<bool>>,
    body: impl Fn() + Sync + Send + 'static,
) {
    flag.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| explore(preemptions, body)));
    flag.set(false);
    assert!(result.is_err(), "the explorer finds nothing wrong");
}

/// `on fdatasync: await pending < distance; defer`, with the request before.
pub fn window(distance: u64, flush_within: Option<u64>) -> &'static Policy {
    let sync = Program { requests: true, waits: Some(distance), verdict: Verdict::Defer };
    policy(sync, Rules { flush_within, ..Rules::default() })
}

pub fn policy(sync: Program, rules: Rules) -> &'static Policy {
    let meta = Meta { policy: "explored".into(), callers: durac_abi::Callers::Many };
    Box::leak(Box::new(Policy {
        meta,
        rules,
        engine: Engine::Thread,
        sync,
        state: None,
        params: None,
    }))
}

/// A write and a sync call of the application.
pub fn sync(policy: &'static Policy, slot: &'static Slot, fd: i32) -> (u64, Result<(), Errno>) {
    call::after_write(slot, 1);
    let number = world::begin(fd);
    let registry = table::registry().unwrap();
    (number, call::sync(registry, policy, slot, fd, Hook::Fdatasync))
}

/// A write of one byte, as the hook makes it.
pub fn write(policy: &'static Policy, slot: &'static Slot, fd: i32, byte: u8) -> Result<(), Errno> {
    let program = Program { requests: false, waits: None, verdict: Verdict::Stage };
    let bytes = [byte];
    let pieces = Some(Pieces::One(bytes.as_ptr().cast(), 1));
    let put = Put { program: &program, len: 1, updates: 0, pieces };
    let registry = table::registry().unwrap();
    if call::before_write(registry, policy, slot, &put)? == Written::Not {
        unsafe { crate::real::WRITE.get()(fd, bytes.as_ptr().cast(), 1) };
        call::after_write(slot, 1);
    }
    Ok(())
}

/// The application closes a descriptor; as the hook does it.
pub fn close(fd: i32) -> Result<(), Errno> {
    match table::set(fd, Entry::Other) {
        Entry::Log(index) => table::registry().unwrap().closed(index),
        _ => Ok(()),
    }
}

// ---- defer against completion ----

/// One thread defers, another syncs: never more than the window is at risk, and a close leaves nothing.
fn defer_and_complete() {
    let policy = window(1, None);
    let slot = world::begin_anew(policy, &[FD])[0];
    for _ in 0..3 {
        let (number, result) = sync(policy, slot, FD);
        assert_eq!(result, Ok(()));
        assert!(number - world::durable(FD) <= 1, "{number} calls, {} durable", world::durable(FD));
    }
    assert_eq!(close(FD), Ok(()));
    assert_eq!(world::durable(FD), 3);
}

#[test]
fn a_deferred_sync_is_never_further_behind_than_the_window() {
    assert!(explore(3, defer_and_complete) > 100);
}

#[test]
fn a_disk_that_lies_is_found() {
    finds(&LIES, defer_and_complete);
}

/// Two threads of the application on one log.
fn two_callers() {
    let policy = window(1, None);
    let slot = world::begin_anew(policy, &[FD])[0];
    let other = loom::thread::spawn(move || assert_eq!(sync(policy, slot, FD).1, Ok(())));
    assert_eq!(sync(policy, slot, FD).1, Ok(()));
    // A call of another thread may have been acknowledged meanwhile.
    assert_eq!(sync(policy, slot, FD).1, Ok(()));
    other.join().unwrap();
    assert_eq!(close(FD), Ok(()));
    assert_eq!(world::durable(FD), 3);
}

#[test]
fn two_threads_defer_and_none_waits_for_ever() {
    assert!(explore(2, two_callers) > 1000);
}

#[test]
fn a_wake_up_that_is_lost_is_found() {
    finds(&DEAF, two_callers);
}

/// A deadline: the syncer finds the call by itself, and ends when there is nothing left to do.
fn deadline() {
    let sync_ = Program { requests: false, waits: None, verdict: Verdict::Skip };
    let policy = policy(sync_, Rules { flush_within: Some(1_000_000), ..Rules::default() });
    let slot = world::begin_anew(policy, &[FD])[0];
    let done = Rc::new(Cell::new(false));
    assert_eq!(sync(policy, slot, FD).1, Ok(()));
    done.set(true);
    let mut core = slot.lock();
    // The application is idle, and another thread waits until the call is durable.
    while !core.engine.is_ready(1) {
        core = slot.wait(core, 1);
    }
    drop(core);
    assert_eq!(world::durable(FD), 1);
    assert_eq!(close(FD), Ok(()));
}

#[test]
fn a_deadline_is_kept() {
    explore(3, deadline);
}

// ---- wait against error ----

/// The first sync fails, whoever makes it: nobody waits for ever, every later call says so.
fn error_while_waiting() {
    let policy = window(1, None);
    let slot = world::begin_anew(policy, &[FD])[0];
    world::fail_after(0);
    let calls = move |count| {
        let results: Vec<_> = (0..count).map(|_| sync(policy, slot, FD).1).collect();
        let failed = results.iter().position(Result::is_err).unwrap_or(count);
        assert!(results[failed..].iter().all(|r| *r == Err(libc::EIO)), "{results:?}");
        results.iter().filter(|r| r.is_ok()).count()
    };
    let other = loom::thread::spawn(move || calls(1));
    let good = calls(3) + other.join().unwrap();
    // At most the window was acknowledged before the failure was known, in each thread.
    assert!(good <= 2, "{good} calls were acknowledged");
    assert_eq!(world::durable(FD), 0);
    assert_eq!(close(FD), if good > 0 { Err(libc::EIO) } else { Ok(()) });
}

#[test]
fn a_failed_sync_ends_every_wait_and_is_told() {
    assert!(explore(2, error_while_waiting) > 1000);
}

// ---- close against sync ----

/// A call is inside while another thread closes the file, and the place serves another at once.
fn close_and_sync() {
    let policy = window(1, None);
    let slot = world::begin_anew(policy, &[FD])[0];
    let other = loom::thread::spawn(move || sync(policy, slot, FD).1);
    assert_eq!(close(FD), Ok(()));
    let reused = slot.is_vacant();
    if reused {
        let slot = world::open(policy, FD + 1);
        assert_eq!(sync(policy, slot, FD + 1).1, Ok(()));
        assert_eq!(close(FD + 1), Ok(()));
        assert_eq!(world::durable(FD + 1), 1);
    }
    let _ = other.join().unwrap();
}

#[test]
fn a_place_is_not_given_away_under_a_sync() {
    explore(2, close_and_sync);
}

// ---- stage ----

/// Bytes that are staged by one thread, and written out by another and by the syncer.
fn staged_order() {
    let skip = Program { requests: false, waits: None, verdict: Verdict::Skip };
    let rules = Rules { flush_within: Some(1_000_000), stages: true, ..Rules::default() };
    let policy = policy(skip, rules);
    let slot = world::begin_anew(policy, &[FD])[0];
    let other = loom::thread::spawn(move || assert_eq!(slot.settle(), Ok(())));
    for byte in *b"abc" {
        assert_eq!(write(policy, slot, FD, byte), Ok(()));
    }
    other.join().unwrap();
    assert_eq!(close(FD), Ok(()));
    assert_eq!(world::bytes(FD), b"abc");
}

#[test]
fn staged_bytes_keep_their_order() {
    assert!(explore(2, staged_order) > 100);
}

// ---- the pool ----

/// Two logs and one syncer thread, which may be busy with the other: no call waits for that.
fn two_logs() {
    let policy = window(2, None);
    let slots = world::begin_anew(policy, &[FD, FD + 1]);
    let (first, second) = (slots[0], slots[1]);
    let other = loom::thread::spawn(move || {
        assert_eq!(sync(policy, second, FD + 1).1, Ok(()));
        assert_eq!(close(FD + 1), Ok(()));
    });
    assert_eq!(sync(policy, first, FD).1, Ok(()));
    assert_eq!(close(FD), Ok(()));
    other.join().unwrap();
    assert_eq!((world::durable(FD), world::durable(FD + 1)), (1, 1));
}

#[test]
fn logs_share_a_thread() {
    assert!(explore(2, two_logs) > 100);
}

#[test]
fn without_threads_calls_sync_by_themselves() {
    NO_THREADS.set(true);
    let policy = policy(
        Program { requests: false, waits: None, verdict: Verdict::Skip },
        Rules { flush_within: Some(1_000_000), ..Rules::default() },
    );
    explore(2, move || {
        let slot = world::begin_anew(policy, &[FD])[0];
        let (number, result) = sync(policy, slot, FD);
        assert_eq!((result, world::durable(FD)), (Ok(()), number));
        assert_eq!(close(FD), Ok(()));
    });
    NO_THREADS.set(false);
}
