//! Gathered turns: what an event loop gets from `epoll_wait`, for every kind of event.

use crate::common::{Done, Place, objects, program};
use durac_abi::insn::{Cond, Insn, Reg, Size};
use durac_abi::{Hook, Object, Reading, Verdict};

/// Four seconds.
const LONG: u32 = 4_000_000_000;

/// `on turn: gather within d; on fdatasync: pass`
fn gathering(nanoseconds: u32) -> Object {
    let mut object = objects::pass();
    object.programs.push(objects::assemble(Hook::Turn, |asm| {
        objects::verdict(asm, Verdict::Gather(nanoseconds));
    }));
    object
}

/// `on turn: if ready < n { gather within 4s }; on fdatasync: pass`
fn gathering_below(n: i32) -> Object {
    let mut object = objects::pass();
    object.meta.reads = vec![Reading::Ready];
    object.programs.push(objects::assemble(Hook::Turn, |asm| {
        let enough = asm.label();
        asm.push(Insn::ldx(Size::Dw, Reg::R2, Reg::R1, Reading::Ready.offset()));
        asm.jump_if_imm(Cond::Ge, Reg::R2, n, enough);
        objects::verdict(asm, Verdict::Gather(LONG));
        asm.bind(enough);
        objects::verdict(asm, Verdict::Pass);
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
    // As long as it takes: on a busy machine the thread that writes may come late. Without, all may come at once there.
    let mut seen = Vec::new();
    for _ in 0..10 {
        let gathered = together(&run(&gathering(LONG), "64", "level"));
        let plain = together(&run(&objects::pass(), "64", "level"));
        if gathered > 100 && plain < 100 {
            return;
        }
        seen.push((gathered, plain));
    }
    panic!("turns of 200 with and without: {seen:?}");
}

/// Three of six are ready when the policy is asked: one that gathers below three never does.
#[test]
fn a_policy_reads_how_many_are_ready() {
    let mut seen = Vec::new();
    for _ in 0..10 {
        let below_four = together(&run(&gathering_below(4), "64", "level"));
        let below_three = together(&run(&gathering_below(3), "64", "level"));
        if below_four > 100 && below_three < 100 {
            return;
        }
        seen.push((below_four, below_three));
    }
    panic!("turns of 200 with four and with three: {seen:?}");
}
