//! The front: handlers that arrive while their thread is in a hook, hooks that are never returned to, and
//! syncs that another thread waits for and whose own thread is interrupted.
//!
//! Another thread sends one signal, so the explorer tries every point of the hook for its arrival. A handler
//! that never returns (`siglongjmp`) unwinds: what is not a destructor is skipped, as by the jump.

use crate::call;
use crate::guard;
use crate::log::Slot;
use crate::policy::{Policy, Program};
use crate::real;
use crate::table;
use crate::tests::{FD, close, explore, finds_within, policy, window, write};
use crate::world::{self, signals};
use durac_abi::{Hook, Verdict};
use durac_engine::{Errno, Rules};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

std::thread_local! {
    /// The handler has run.
    static RAN: Cell<u32> = const { Cell::new(0) };
    /// A call enters the agent inside another of its thread: a bug that the explorer has to find.
    static REENTERS: Cell<bool> = const { Cell::new(false) };
}

/// What a handler leaves its thread's calls by.
struct Jump;

fn plain(fd: i32) -> Result<(), Errno> {
    let result = unsafe { real::FDATASYNC.get()(fd) };
    if result == 0 { Ok(()) } else { Err(crate::errno::get()) }
}

/// A write and a sync call of the application, as the hooks make them.
fn sync(policy: &'static Policy, slot: &'static Slot) -> Result<(), Errno> {
    call::after_write(slot, 1);
    world::begin(FD);
    let registry = table::registry().unwrap();
    let body = || call::sync(registry, policy, slot, FD, Hook::Fdatasync);
    // With the bug, whoever is inside already works on what its thread has begun.
    let result = if REENTERS.get() { Some(body()) } else { guard::run(body) };
    match result {
        Some(result) => result,
        // Inside already: only a handler that has not waited is.
        None => plain(FD),
    }
}

/// Runs a part of the application that a handler may leave; none if it did.
fn left_by_jump<T>(body: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => Some(result),
        Err(why) if why.is::<Jump>() => None,
        Err(why) => resume_unwind(why),
    }
}

/// Nobody is inside, and nothing is out: what a hook that was left would leave behind.
fn nothing_is_left_behind(slot: &'static Slot) {
    assert!(!guard::is_inside());
    // A syncer thread counts as a user.
    assert_eq!(slot.lock().calls, 0);
}

/// Policies whose syncs are the caller's own, are in the background, or are waited for.
fn policies() -> [&'static Policy; 3] {
    let pass = Program { requests: false, waits: None, verdict: Verdict::Pass };
    [policy(pass, Rules::default()), window(1, None), window(0, None)]
}

// ---- a handler that syncs ----

/// A handler writes and syncs the log that its thread syncs, while another thread does.
fn handler_syncs(policy: &'static Policy, two: bool) {
    let slot = world::begin_anew(policy, &[FD])[0];
    RAN.set(0);
    signals::install(move || {
        RAN.set(RAN.get() + 1);
        assert_eq!(sync(policy, slot), Ok(()));
    });
    let sender = loom::thread::spawn(signals::send);
    let other = two.then(|| loom::thread::spawn(move || assert_eq!(sync(policy, slot), Ok(()))));
    assert_eq!(sync(policy, slot), Ok(()));
    sender.join().unwrap();
    // If it was sent only now.
    world::point();
    assert_eq!(RAN.get(), 1);
    if let Some(other) = other {
        other.join().unwrap();
    }
    nothing_is_left_behind(slot);
    assert_eq!(close(FD), Ok(()));
    assert_eq!(world::durable(FD), 2 + u64::from(two));
}

#[test]
fn a_handler_that_syncs_waits_until_its_thread_is_out() {
    for policy in policies() {
        assert!(explore(3, move || handler_syncs(policy, false)) > 5);
        assert!(explore(1, move || handler_syncs(policy, true)) > 10);
    }
}

/// A handler that syncs inside a sync of its own thread waits for itself.
#[test]
fn a_handler_inside_a_call_is_found() {
    let [pass, ..] = policies();
    finds_within(2, &REENTERS, move || handler_syncs(pass, false));
}

// ---- a hook that is never returned to ----

/// A handler jumps out of a sync call that another thread may wait for. The application goes on, and
/// nobody waits for ever.
fn jumps(policy: &'static Policy) {
    let slot = world::begin_anew(policy, &[FD])[0];
    RAN.set(0);
    signals::install(|| {
        RAN.set(RAN.get() + 1);
        resume_unwind(Box::new(Jump));
    });
    let sender = loom::thread::spawn(signals::send);
    let other = loom::thread::spawn(move || assert_eq!(sync(policy, slot), Ok(())));
    let first = left_by_jump(|| sync(policy, slot));
    assert!(first.is_none_or(|result| result.is_ok()), "{first:?}");
    // The thread that was left works on.
    let second = left_by_jump(|| sync(policy, slot));
    assert!(second.is_none_or(|result| result.is_ok()), "{second:?}");
    sender.join().unwrap();
    left_by_jump(world::point);
    assert_eq!(RAN.get(), 1);
    other.join().unwrap();
    nothing_is_left_behind(slot);
    assert_eq!(left_by_jump(|| close(FD)), Some(Ok(())));
    // A call that was left before it began is none.
    assert!((2..=3).contains(&world::durable(FD)), "{}", world::durable(FD));
}

#[test]
fn a_hook_that_is_left_leaves_nothing_behind() {
    for policy in policies() {
        assert!(explore(2, move || jumps(policy)) > 10);
    }
}

/// A handler that does not wait leaves a sync out, a call counted, or its thread inside.
#[test]
fn a_handler_that_does_not_wait_is_found() {
    for policy in policies() {
        finds_within(2, &signals::EAGER, move || jumps(policy));
    }
}

// ---- staged bytes ----

/// A handler writes to a log with staged bytes while its thread writes: nothing is lost, and each thread's
/// bytes keep their order.
fn handler_writes() {
    let skip = Program { requests: false, waits: None, verdict: Verdict::Skip };
    let rules = Rules { flush_within: Some(1_000_000), stages: true, ..Rules::default() };
    let policy = policy(skip, rules);
    let slot = world::begin_anew(policy, &[FD])[0];
    let put = move |byte| {
        let done = guard::run(|| write(policy, slot, FD, byte));
        if done.is_none() {
            // As the hook: what is staged cannot be written now, so the write goes past it.
            unsafe { real::WRITE.get()(FD, (&raw const byte).cast(), 1) };
        }
    };
    signals::install(move || put(b'x'));
    let sender = loom::thread::spawn(signals::send);
    let settles =
        loom::thread::spawn(move || assert_eq!(guard::run(|| slot.settle()), Some(Ok(()))));
    put(b'a');
    // The handler comes before `b`, or behind it.
    world::point();
    put(b'b');
    sender.join().unwrap();
    world::point();
    settles.join().unwrap();
    assert_eq!(close(FD), Ok(()));
    let bytes = world::bytes(FD);
    let at = |byte| bytes.iter().position(|b| *b == byte);
    assert_eq!(bytes.len(), 3, "{bytes:?}");
    assert!(at(b'a') < at(b'b'), "{bytes:?}");
}

#[test]
fn a_handler_that_writes_keeps_the_order() {
    assert!(explore(2, handler_writes) > 10);
}
