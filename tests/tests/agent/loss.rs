//! What is acknowledged and not durable never exceeds what the policy says.

use crate::common::{Place, count, log_where, objects};

#[test]
fn the_call_after_the_window_waits() {
    for n in [1, 2, 8, 64] {
        let place = Place::new(&objects::window(n)).with_status();
        let fill = "write a 1 sync a ".repeat(n as usize);
        let child = place.start(&format!(
            "open a wct x.log hold {fill} spawn write a 1 sync a end file go release join close a"
        ));
        let status = place.status();
        let n = n as u64;
        let numbers = log_where(&status, "a call that waits", |l| l.calls == n + 1 && l.waits == 1);
        assert_eq!((numbers.acknowledged, numbers.durable), (n, 0));
        place.touch("go");
        let done = place.finish(child);
        assert_eq!(count(&done.out, "sync a = 0") as u64, n + 1, "{done:?}");
    }
}

#[test]
fn under_load_the_bound_holds() {
    for n in [1, 2, 8, 64] {
        let place = Place::new(&objects::window(n)).with_status();
        let child = place.start("open a wct x.log loopfor a stop close a");
        let status = place.status();
        let mut most = 0;
        let mut samples = 0;
        while samples < 300_000 || log_where(&status, "numbers", |_| true).calls < 2000 {
            let Some(numbers) = status.page().log(0) else { continue };
            assert!(numbers.pending() <= n as u64, "window {n}: {numbers:?}");
            assert!(numbers.max_pending <= n as u64, "window {n}: {numbers:?}");
            most = most.max(numbers.pending());
            samples += 1;
        }
        assert!(most > 0);
        place.touch("stop");
        assert_eq!(place.finish(child).code, 0);
    }
}

#[test]
fn calls_of_several_threads_share_the_window() {
    let place = Place::new(&objects::window(8)).with_status();
    let child = place.start(
        "open a wct x.log dup a b spawn loopfor a stop end loopfor b stop join close a close b",
    );
    let status = place.status();
    log_where(&status, "some calls", |l| {
        assert!(l.pending() <= 8, "{l:?}");
        l.calls > 3000
    });
    place.touch("stop");
    let done = place.finish(child);
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn waiting_takes_no_time_after_the_last_sync() {
    // A policy that waits for everything and starts nothing: the waiting call syncs itself.
    let object = objects::object("all", |asm| {
        use durac_abi::insn::{Insn, Reg};
        asm.push(Insn::mov_imm(Reg::R1, 0));
        asm.push(Insn::call(durac_abi::Helper::Await));
        objects::verdict(asm, durac_abi::Verdict::Skip);
    });
    let done =
        Place::new(&object).run("open a wct x.log write a 1 sync a write a 1 sync a close a");
    assert_eq!(count(&done.calls, "-fdatasync x.log main 0"), 2, "{done:?}");
    assert_eq!(count(&done.calls, "+"), 2, "{done:?}");
}

/// What a killed process has acknowledged is durable before the next one goes on; what this process has synced in closing it
/// is not synced again.
#[test]
fn what_is_in_a_log_is_durable_when_it_is_opened() {
    let place = Place::new(&objects::skip(None));
    let done = place.run("open a wct x.log write a 1 sync a kill 9");
    assert_eq!(count(&done.calls, "+"), 0, "{done:?}");
    let done = place.run("open a wca x.log write a 1 sync a kill 9");
    assert_eq!(count(&done.calls, "-fdatasync x.log main 0"), 1, "{done:?}");
    // Long enough for the times of the file to tell a later write.
    let again = "open a wca x.log write a 1 sync a pause 50 close a ";
    let place = Place::new(&objects::skip(None));
    std::fs::write(place.path("x.log"), "x").unwrap();
    let done = place.run(&format!("{} kill 9", again.repeat(5)));
    // One for what was there, and one at each close.
    assert_eq!(count(&done.calls, "-fdatasync x.log"), 6, "{done:?}");
    // A close that has nothing to sync does not say that everything is durable: not what this process has written, nor
    // what others have.
    for written in ["write a 1", "fork write a 1 kill 9 end", "fork exec sh -c echo>>x.log end"] {
        let place = Place::new(&objects::skip(None));
        let done =
            place.run(&format!("open a wct x.log {written} close a open a wca x.log kill 9"));
        assert_eq!(count(&done.calls, "-fdatasync x.log main 0"), 1, "{written}: {done:?}");
    }
    // What cannot be made durable is not built upon.
    let place = place.env("DURAC_LOG", "all").env("SHIM_FAIL_SPAN", "0:1:5");
    let done = place.run("open a wca x.log write a 1 sync a");
    assert!(done.out.iter().any(|line| line == "write a = -1 EIO"), "{done:?}");
    assert!(
        done.err.contains("x.log: a sync failed") && !done.err.contains("in force"),
        "{done:?}"
    );
    // A file system that syncs nothing has lost nothing.
    let done = place.env("SHIM_FAIL_SPAN", "0:1:22").run("open a wca x.log write a 1 sync a");
    assert_eq!(done.out[1..], ["write a = 1", "sync a = 0"], "{done:?}");
}
