//! The policy is exchanged while calls run.

use crate::change;
use crate::log::Slot;
use crate::policy::{self, Policy, Program};
use crate::tests::{FD, close, explore, policy as made, sync, window};
use crate::{table, world};
use durac_abi::Verdict;
use durac_engine::Rules;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

std::thread_local! {
    /// The new policy is in force.
    static NEW: Cell<bool> = const { Cell::new(false) };
    /// The last call that was acknowledged.
    static ACKNOWLEDGED: Cell<u64> = const { Cell::new(0) };
}

const OLD: u64 = 2;

/// What would be lost now is within the bound of the policy that is in force.
fn judge() {
    let bound = if NEW.get() { 0 } else { OLD };
    let lost = ACKNOWLEDGED.get().saturating_sub(world::durable(FD));
    assert!(lost <= bound, "{lost} calls would be lost, of {bound} at most");
}

/// Calls under a policy that defers, while `exchanges` puts one in its place that does not.
fn calls(within: Option<u64>, exchanges: fn(&'static Slot, &'static Policy)) {
    NEW.set(false);
    ACKNOWLEDGED.set(0);
    let old = window(OLD, within);
    let pass = Program { requests: false, waits: None, verdict: Verdict::Pass };
    let new = made(pass, Rules::default());
    let slot = world::begin_anew(old, &[FD])[0];
    policy::exchange(old);
    let other = loom::thread::spawn(move || exchanges(slot, new));
    for _ in 0..2 {
        world::pass(std::time::Duration::from_nanos(5));
        let (number, result) = sync(old, slot, FD);
        assert_eq!(result, Ok(()));
        ACKNOWLEDGED.set(number);
        judge();
    }
    other.join().unwrap();
    judge();
    let (number, result) = sync(old, slot, FD);
    assert_eq!((result, world::durable(FD)), (Ok(()), number));
    assert_eq!(close(FD), Ok(()));
}

#[test]
fn at_no_moment_is_more_at_risk_than_under_the_policy_in_force() {
    // With a deadline that is always broken, a call waits before its program runs.
    for within in [None, Some(1)] {
        let executions = explore(2, move || {
            calls(within, |_, new| {
                let shown = || {
                    NEW.set(true);
                    judge();
                };
                let registry = table::registry().unwrap();
                assert_eq!(change::change(registry, new, u64::MAX, shown), Ok(()));
            })
        });
        assert!(executions > 10, "{executions}");
    }
}

/// An exchange that looks at nothing is found.
#[test]
fn a_hasty_exchange_is_found() {
    let hasty = || {
        explore(2, || {
            calls(None, |slot, new| {
                let mut core = slot.lock();
                slot.follow(&mut core, new.rules);
                policy::exchange(new);
                NEW.set(true);
                judge();
            })
        })
    };
    assert!(catch_unwind(AssertUnwindSafe(hasty)).is_err(), "the explorer finds nothing wrong");
}

/// A log that has failed keeps the policy, and every call is refused as before.
#[test]
fn a_failed_log_refuses_another_policy() {
    explore(2, || {
        let old = window(OLD, None);
        let slot = world::begin_anew(old, &[FD])[0];
        policy::exchange(old);
        let (_, result) = sync(old, slot, FD);
        assert_eq!(result, Ok(()));
        slot.lock().engine.fail(libc::EIO);
        let registry = table::registry().unwrap();
        let shown = || panic!("the policy was exchanged");
        let changed = change::change(registry, window(1, None), 0, shown);
        let failed = matches!(changed, Err(change::Unchanged::Failed(libc::EIO)));
        assert!(failed || changed == Err(change::Unchanged::Busy), "{changed:?}");
        assert!(
            policy::loaded().is_some_and(|now| std::ptr::eq(now, old)) && !slot.lock().changing
        );
    });
}
