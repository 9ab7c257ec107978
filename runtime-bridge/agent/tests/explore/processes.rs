//! Descriptors and processes: closing and opening one number in several threads, and a fork.

use crate::children;
use crate::log::Slot;
use crate::order;
use crate::policy::{Policy, Program};
use crate::table::{self, Entry};
use crate::tests::{FD, close, explore, finds, finds_within, policy, sync, window, write};
use crate::world::{self, KEPT};
use crate::{call, real};
use durac_abi::{Hook, Verdict};
use durac_engine::{Errno, Rules};
use std::cell::Cell;

std::thread_local! {
    /// The number is free for others before the agent forgets it: a bug that the explorer has to find.
    static LATE: Cell<bool> = const { Cell::new(false) };
    /// A fork leaves what is staged in memory: a bug that the explorer has to find.
    static UNWRITTEN: Cell<bool> = const { Cell::new(false) };
    /// The system may give the number away.
    static FREE: Cell<bool> = const { Cell::new(false) };
}

/// A sync call on whatever the number is; as the hook makes it.
fn sync_number(policy: &'static Policy, fd: i32) -> Result<(), Errno> {
    if table::is_other(fd) && table::dirty() == 0 {
        return plain(fd);
    }
    match (table::get(fd), table::registry()) {
        (Entry::Log(index), Some(registry)) => {
            let slot = registry.slot(index).unwrap();
            call::sync(registry, policy, slot, fd, Hook::Fdatasync)
        }
        _ => order::drain_others(None).and_then(|()| plain(fd)),
    }
}

fn plain(fd: i32) -> Result<(), Errno> {
    let result = unsafe { real::FDATASYNC.get()(fd) };
    if result == 0 { Ok(()) } else { Err(crate::errno::get()) }
}

/// Nothing is open, and nothing is left behind.
fn nothing_is_left(fds: &[i32]) {
    assert!(fds.iter().all(|&fd| table::get(fd) == Entry::Other));
    assert_eq!((table::dirty(), table::any_staged()), (0, false));
    for slot in table::registry().unwrap().slots() {
        let core = slot.lock();
        assert!(core.retired && core.fds == 0, "{} descriptors", core.fds);
        drop(core);
    }
}

// ---- close against sync against open of the same number ----

/// One thread closes a log, another syncs its number, a third opens another file, which is given the number
/// as soon as that is free.
fn one_number() {
    let policy = window(1, None);
    let slot = world::begin_anew(policy, &[FD])[0];
    FREE.set(false);
    assert_eq!(sync(policy, slot, FD), (1, Ok(())));
    let syncs = loom::thread::spawn(move || {
        let result = sync_number(policy, FD);
        assert!(matches!(result, Ok(()) | Err(libc::EBADF)), "{result:?}");
    });
    let opens = loom::thread::spawn(move || {
        let fd = if FREE.get() { FD } else { FD + 1 };
        world::renumber(fd, 8);
        let slot = world::open(policy, fd);
        assert_eq!(sync(policy, slot, fd), (1, Ok(())));
        fd
    });
    if LATE.get() {
        FREE.set(true);
        world::point();
        assert_eq!(close(FD), Ok(()));
    } else {
        assert_eq!(close(FD), Ok(()));
        assert_eq!(world::durable(7), 1, "closed, and not durable");
        FREE.set(true);
    }
    let fd = opens.join().unwrap();
    syncs.join().unwrap();
    assert!(matches!(table::get(fd), Entry::Log(_)), "a log that was opened is none");
    assert_eq!(close(fd), Ok(()));
    assert_eq!(world::durable(8), 1);
    nothing_is_left(&[FD, FD + 1]);
}

#[test]
fn a_number_is_closed_synced_and_opened_at_once() {
    assert!(explore(1, one_number) > 100);
}

#[test]
fn a_number_that_is_free_too_early_is_found() {
    finds_within(1, &LATE, one_number);
}

/// Two threads close the two descriptors of a log, and a third opens it once more: whichever is the last
/// leaves nothing.
fn last_descriptor() {
    let policy = window(1, None);
    let slot = world::begin_anew(policy, &[FD])[0];
    world::renumber(FD + 1, 7);
    table::registry().unwrap().duplicated(slot.index, FD + 1);
    assert_eq!(sync(policy, slot, FD).1, Ok(()));
    let other = loom::thread::spawn(|| assert_eq!(close(FD + 1), Ok(())));
    let opens = loom::thread::spawn(move || {
        world::renumber(FD + 2, 7);
        let slot = world::open(policy, FD + 2);
        assert_eq!(sync(policy, slot, FD + 2).1, Ok(()));
        assert_eq!(close(FD + 2), Ok(()));
    });
    assert_eq!(close(FD), Ok(()));
    other.join().unwrap();
    opens.join().unwrap();
    assert_eq!(world::durable(7), 2);
    nothing_is_left(&[FD, FD + 1, FD + 2]);
}

#[test]
fn the_last_of_several_descriptors_drains() {
    assert!(explore(1, last_descriptor) > 100);
}

// ---- fork ----

/// What the child does: with the log of its parent, and with one of its own.
fn child(policy: &'static Policy) {
    assert!(table::is_other(FD) && table::registry().is_none(), "the child sees a log");
    unsafe { real::WRITE.get()(FD, b"c".as_ptr().cast(), 1) };
    assert_eq!(sync_number(policy, FD), Ok(()));
    assert_eq!(close(FD), Ok(()));
    order::write_out_all();
    let own = world::open(policy, FD + 2);
    assert_eq!(sync(policy, own, FD + 2), (1, Ok(())));
    assert_eq!(close(FD + 2), Ok(()));
    assert_eq!(world::durable(FD + 2), 1);
    nothing_is_left(&[FD, FD + 2]);
}

/// A child of the calling thread, which comes back when that has ended; the parent's other threads run on.
fn fork(policy: &'static Policy) {
    let real = || {
        world::in_process(1, || child(policy));
        4711
    };
    let pid = if UNWRITTEN.get() { real() } else { children::fork(real) };
    assert_eq!(children::any(), !UNWRITTEN.get());
    children::gone(pid);
}

/// One thread forks, while another's deferred syncs wait, run and end.
fn fork_while_syncing() {
    let policy = window(1, None);
    let slots = world::begin_anew(policy, &[FD, FD + 1]);
    let (first, second) = (slots[0], slots[1]);
    assert_eq!(sync(policy, first, FD).1, Ok(()));
    let other = loom::thread::spawn(move || {
        // The second waits for the first.
        for _ in 0..2 {
            assert_eq!(sync(policy, second, FD + 1).1, Ok(()));
        }
    });
    fork(policy);
    assert_eq!(sync(policy, first, FD).1, Ok(()));
    other.join().unwrap();
    for fd in [FD, FD + 1] {
        assert_eq!(close(fd), Ok(()));
        assert_eq!(world::durable(fd), 2);
    }
    nothing_is_left(&[FD, FD + 1]);
}

#[test]
fn a_fork_beside_syncs_loses_nothing_and_waits_for_nothing() {
    assert!(explore(1, fork_while_syncing) > 100);
}

#[test]
fn a_child_with_its_parents_memory_is_found() {
    finds(&KEPT, fork_while_syncing);
}

/// One thread writes and forks, and another writes, while what is staged goes out.
fn fork_while_staging() {
    let skip = Program { requests: false, waits: None, verdict: Verdict::Skip };
    let rules = Rules { flush_within: Some(1_000_000), stages: true, ..Rules::default() };
    let policy = policy(skip, rules);
    let slot: &Slot = world::begin_anew(policy, &[FD])[0];
    let other = loom::thread::spawn(move || {
        for byte in *b"xy" {
            assert_eq!(write(policy, slot, FD, byte), Ok(()));
        }
    });
    for byte in *b"ab" {
        assert_eq!(write(policy, slot, FD, byte), Ok(()));
    }
    fork(policy);
    // What this thread was told is written is in the file for the child, whatever comes later.
    let seen: Vec<u8> = world::bytes(FD).into_iter().filter(|b| b"ab".contains(b)).collect();
    assert_eq!(seen, b"ab", "the child does not see what was written");
    assert_eq!(write(policy, slot, FD, b'd'), Ok(()));
    other.join().unwrap();
    assert_eq!(close(FD), Ok(()));
    let bytes = world::bytes(FD);
    let of =
        |which: &[u8]| bytes.iter().copied().filter(|b| which.contains(b)).collect::<Vec<u8>>();
    assert_eq!((of(b"abd"), of(b"xy"), of(b"c")), (b"abd".into(), b"xy".into(), b"c".into()));
    assert_eq!(bytes.len(), 6, "{bytes:?}");
    nothing_is_left(&[FD]);
}

#[test]
fn a_child_finds_in_the_file_what_was_staged() {
    assert!(explore(1, fork_while_staging) > 100);
}

#[test]
fn staged_bytes_that_a_fork_leaves_are_found() {
    finds(&UNWRITTEN, fork_while_staging);
}
