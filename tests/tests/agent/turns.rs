//! Gathered turns: what an event loop gets from `epoll_wait`, for every kind of event.

use crate::common::{Done, Place, objects, program};
use durac_abi::insn::{Cond, Insn, Reg, Size};
use durac_abi::{GATHER_MOST, Hook, Object, Reading, Verdict};

/// `on turn: gather within d; on fdatasync: pass`
fn gathering(nanoseconds: u32) -> Object {
    let mut object = objects::pass();
    object.programs.push(objects::assemble(Hook::Turn, |asm| {
        objects::verdict(asm, Verdict::Gather(nanoseconds));
    }));
    object
}

/// `on turn: if ready < n { gather within 10ms }; on fdatasync: pass`
fn gathering_below(n: i32) -> Object {
    let mut object = objects::pass();
    object.meta.reads = vec![Reading::Ready];
    object.programs.push(objects::assemble(Hook::Turn, |asm| {
        let enough = asm.label();
        asm.push(Insn::ldx(Size::Dw, Reg::R2, Reg::R1, Reading::Ready.offset()));
        asm.jump_if_imm(Cond::Ge, Reg::R2, n, enough);
        objects::verdict(asm, Verdict::Gather(GATHER_MOST));
        asm.bind(enough);
        objects::verdict(asm, Verdict::Pass);
    }));
    object
}

fn run(object: &Object, arguments: &str) -> Done {
    let place = Place::new(object);
    place.finish(place.start_program(&program("turns"), arguments))
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
            together(&run(&gathering(2_000_000), &format!("{most} {kind} 2")));
        }
    }
}

/// Under the first policy all rounds but the first have one turn with all, under the second none.
fn gathers_and_does_not(gathers: &Object, does_not: &Object) {
    assert!(together(&run(gathers, "64 level 2 one-group")) >= 199);
    assert_eq!(together(&run(does_not, "64 level 60000 one-group")), 0);
}

#[test]
fn two_groups_are_served_together() {
    gathers_and_does_not(&gathering(GATHER_MOST), &objects::pass());
}

/// Three of six are ready when the policy is asked: one that gathers below three never does.
#[test]
fn a_policy_reads_how_many_are_ready() {
    gathers_and_does_not(&gathering_below(4), &gathering_below(3));
}
