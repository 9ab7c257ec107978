//! Gathered turns: what an event loop gets from `epoll_wait`, for every kind of event.

use crate::common::{Done, Place, objects, program};
use durac_abi::{Hook, Object, Verdict};

/// `on turn: gather within d; on fdatasync: pass`
fn gathering(nanoseconds: u32) -> Object {
    let mut object = objects::pass();
    object.programs.push(objects::assemble(Hook::Turn, |asm| {
        objects::verdict(asm, Verdict::Gather(nanoseconds));
    }));
    object
}

fn run(object: &Object, most: &str, kind: &str) -> Done {
    let place = Place::new(object);
    place.finish(place.start_program(&program("turns"), &format!("{most} {kind}")))
}

/// How many turns had all six.
fn together(done: &Done) -> u32 {
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(done.out[0], "events 1200", "{done:?}");
    done.out[1].rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn no_event_is_lost_or_reported_twice() {
    for kind in ["level", "edge", "once"] {
        for most in ["64", "6", "4", "1"] {
            together(&run(&gathering(2_000_000), most, kind));
        }
    }
}

#[test]
fn two_groups_are_served_together() {
    // On a busy machine the threads that write may come too late in a run, or all at once.
    let mut seen = Vec::new();
    for _ in 0..10 {
        let gathered = together(&run(&gathering(10_000_000), "64", "level"));
        let plain = together(&run(&objects::pass(), "64", "level"));
        if gathered > 100 && plain < 100 {
            return;
        }
        seen.push((gathered, plain));
    }
    panic!("turns of 200 with and without: {seen:?}");
}
