//! Handlers of signals are what they are without the agent: which one runs, what it finds blocked, what the calls return.

use crate::common::{Done, Place, objects, program};
use std::time::Duration;

/// Runs `c/actions.c`; without the agent if there is no object.
fn actions(what: &str, hooked: bool) -> Done {
    let mut place = Place::new(&objects::defer());
    if !hooked {
        place = place.env("LD_PRELOAD", "");
    }
    let running = place.start_words(&program("actions"), &[what]);
    place.finish_within(running, Duration::from_secs(120))
}

fn same(what: &str) -> Vec<String> {
    let [plain, hooked] = [false, true].map(|hooked| actions(what, hooked));
    assert_eq!((&plain.out, plain.code), (&hooked.out, hooked.code), "{what} {plain:?} {hooked:?}");
    assert_eq!(hooked.code, 0, "{hooked:?}");
    assert!(!hooked.out.is_empty());
    hooked.out
}

#[test]
fn a_child_forked_while_a_handler_is_installed_can_install_one() {
    assert_eq!(same("forks"), ["fine"]);
}

#[test]
fn a_child_of_vfork_leaves_its_parents_handlers() {
    let out = same("vfork");
    assert_eq!(out.last().map(String::as_str), Some("parent: one 3 two 3"));
}

#[test]
fn sigset_returns_the_applications_handler() {
    let out = same("sigset");
    assert_eq!(out.last().map(String::as_str), Some("sigset: one 6 two 0"));
}

#[test]
fn siginterrupt_has_calls_end() {
    assert_eq!(same("ends").len(), 6);
}

/// `sigsuspend`, `ppoll`, `pselect`, `epoll_pwait`.
#[test]
fn both_signals_run_that_come_in_a_call_with_a_mask() {
    let out = same("masks");
    assert_eq!(out.iter().filter(|line| line.ends_with(": one 1 two 1")).count(), 4, "{out:?}");
}

/// A program that reads the handler by the system call gets the agent's, which is not called by itself.
#[test]
fn the_agents_handler_stands_for_the_applications() {
    let hooked = actions("number", true);
    assert_eq!(hooked.out, ["restored: one 1 two 0", "again: one 1 two 0"], "{hooked:?}");
}

#[test]
fn flags_of_handlers_do_what_they_do() {
    assert!(same("flags").len() > 80);
}

/// `sum` is of the values that were sent with the signals.
#[test]
fn every_signal_that_comes_in_a_sync_runs_its_handler() {
    assert_eq!(same("many"), ["3000 of the sum 4498500, faults 1"]);
}

#[test]
fn another_program_inherits_what_is_ignored_and_blocked() {
    assert_eq!(same("exec").len(), 5);
}
