//! What a proof assumes of the calls, and the agent enforces: with `callers one`, a call that overlaps
//! another passes, and a call sees one value of each parameter. Without that more is lost than was proved:
//! `DURAC_FAULT` takes it away.

use crate::common::{Done, Place, log_where, program};
use durac_abi::Object;
use durac_driver::{Options, compile};
use durac_grammar::Sources;
use durac_shm::status::LogNumbers;
use std::path::Path;
use std::time::Duration;

/// Three calls of four are skipped: 3, if one thread calls.
const EVERY_FOURTH: &str = "policy every_fourth
target redis.aof
guarantee loss <= 3 syncs on power_loss
on fdatasync: every 4 calls { await all }; skip
flush within 10s
";

/// Counts writes; the sync after the eighth waits: 7, if no write comes meanwhile.
const EIGHT_WRITES: &str = "policy eight_writes
target redis.aof
guarantee loss <= 7 syncs on power_loss
state w: count = 0
on write {
  if w < 8 { w = w + 1 }
  pass
}
on fsync {
  if w < 8 { skip }
  await all
  w = 0
  skip
}
flush within 10s
";

/// `broken` is never set: a call that waits for the previous one does not see `fast`.
const TOGGLED: &str = "policy toggled
target redis.aof
param fast: bool = false
state broken: bool = false
guarantee loss <= 1 sync on power_loss
on fdatasync {
  if broken { skip }
  if fast { await all; skip }
  await previous
  if fast { broken = true }
  defer
}
flush within 60s
";

/// The same, with the first reading of `fast` in a branch.
const TOGGLED_IN_A_BRANCH: &str = "policy toggled_in_a_branch
target redis.aof
param fast: bool = false
state broken: bool = false
guarantee loss <= 1 sync on power_loss
on fdatasync {
  if broken { skip }
  if sync.latency > 0ms { if fast { await all; skip } }
  if sync.latency == 0ms { await all; skip }
  await previous
  if fast { broken = true }
  defer
}
flush within 60s
";

/// The policy's object: its guarantee is proved.
fn proved(text: &str) -> Object {
    let mut sources = Sources::new();
    let file = sources.add("test.dur", text);
    let compiled = compile(&mut sources, file, &Options::new("test"));
    compiled.proved.unwrap_or_else(|| panic!("{:?}", compiled.analysis.diagnostics)).object
}

/// What a run has shown.
#[derive(Debug)]
struct Seen {
    /// Most calls that were acknowledged and not durable at once.
    at_risk: u64,
    log: LogNumbers,
    done: Done,
}

/// Runs the program under the policy, with this fault of the agent if there is one. `toggle` changes the
/// parameter `fast` all the time.
fn run(text: &str, arguments: &str, fault: Option<&str>, toggle: bool) -> Seen {
    let object = proved(text);
    let memory = Path::new("/dev/shm");
    let place = match memory.exists() {
        true => Place::new_in(memory, &object),
        false => Place::new(&object),
    };
    let mut place = place.with_status().env("DURAC_LOG", "all").env("DURAC_ENGINE", "thread");
    if let Some(fault) = fault {
        let agent = durac_tests::faulty_agent().unwrap();
        place = place.with_agent(&agent).env("DURAC_FAULT", fault);
    }
    let running = place.start_program(&program("overlap"), arguments);
    let status = place.status();
    let mut fast = 0;
    while !Path::new(&place.path("done")).exists() {
        if toggle {
            fast = 1 - fast;
            status.set_param("fast", fast).unwrap();
        }
        std::thread::sleep(Duration::from_micros(70));
    }
    let log = log_where(&status, "calls", |log| log.calls > 0);
    place.touch("go");
    let done = place.finish(running);
    assert_eq!(done.code, 0, "{}", done.err);
    Seen { at_risk: done.out[0].parse().unwrap(), log, done }
}

/// Runs it until more is at risk than that.
fn loses_more(text: &str, arguments: &str, fault: &str, toggle: bool, bound: u64) {
    let mut most = 0;
    for _ in 0..10 {
        most = most.max(run(text, arguments, Some(fault), toggle).at_risk);
        eprintln!("`{fault}`: {most} at risk");
        if most > bound {
            return;
        }
    }
    panic!("`{fault}` is not noticed: {most} at risk");
}

/// The lines that tell of calls that overlap.
fn told(done: &Done) -> usize {
    done.err.lines().filter(|line| line.contains("calls on one log overlap")).count()
}

#[test]
fn calls_that_overlap_pass() {
    for threads in [1, 2, 4, 8] {
        let arguments = format!("{threads} 500 fdatasync");
        let Seen { at_risk, log, done } = run(EVERY_FOURTH, &arguments, None, false);
        assert!((1..=3).contains(&at_risk), "{threads} threads: {at_risk}");
        assert_eq!(log.overlaps > 0, threads > 1, "{threads} threads: {log:?}");
        assert_eq!(told(&done), usize::from(threads > 1), "{threads} threads: {}", done.err);
    }
    loses_more(EVERY_FOURTH, "8 500 fdatasync", "overlap", false, 3);
}

#[test]
fn a_write_that_overlaps_a_waiting_sync_is_counted_and_the_next_call_syncs() {
    let Seen { at_risk, log, done } = run(EIGHT_WRITES, "1 400 fsync during", None, false);
    assert_eq!(at_risk, 7);
    // One in 20 calls.
    assert_eq!((log.overlaps, told(&done)), (20, 1), "{}", done.err);
    for threads in [2, 4, 8] {
        let arguments = format!("{threads} 500 fsync");
        let Seen { at_risk, log, .. } = run(EIGHT_WRITES, &arguments, None, false);
        assert!(at_risk <= 7 && log.overlaps > 0, "{threads} threads: {at_risk}, {log:?}");
    }
    loses_more(EIGHT_WRITES, "1 400 fsync during", "overlap", false, 7);
}

#[test]
fn a_call_that_waits_does_not_see_a_parameter_change() {
    for text in [TOGGLED, TOGGLED_IN_A_BRANCH] {
        let Seen { at_risk, log, .. } = run(text, "1 4000 fdatasync", None, true);
        assert_eq!((at_risk, log.overlaps), (1, 0));
        assert!(log.waits > 0, "{log:?}");
        loses_more(text, "1 4000 fdatasync", "params", true, 1);
    }
}

/// The program has begun to count anew for a call that passes. If its own sync is interrupted for good, the call is
/// not acknowledged: the calls after it make their own syncs, until one has succeeded.
#[test]
fn a_call_that_passes_and_is_interrupted_counts_for_nothing() {
    let object = proved(
        "target redis.aof\nguarantee loss <= 3 syncs on power_loss\non fdatasync: every 4 calls { pass }; skip\n\
         flush within 60s\n",
    );
    let place = Place::new(&object).env("SHIM_FAIL_SPAN", "0:1000000:4");
    let syncs = "write a 1 sync a ".repeat(6);
    let done = place.run(&format!("open a wct x.incr.aof {syncs}"));
    let results: Vec<&str> =
        done.out.iter().filter(|line| line.starts_with("sync a")).map(|line| &**line).collect();
    let (skipped, interrupted) = ("sync a = 0", "sync a = -1 EINTR");
    let expected = [skipped, skipped, skipped, interrupted, interrupted, interrupted];
    assert_eq!(results, expected, "{done:?}");
}

/// A change of the file's length is a write that no program has counted: the next sync call makes its own sync. One by
/// path makes durable first what is deferred.
#[test]
fn a_change_of_length_is_a_write_that_nobody_counted() {
    for (change, expected) in [
        ("write a 1", 0),
        ("ftruncate a 1", 1),
        ("truncate x.incr.aof 1", 2),
        ("allocate a 9", 1),
        ("rawput a x", 1),
    ] {
        let place = Place::new(&proved(EIGHT_WRITES));
        place.run(&format!("open a wct x.incr.aof write a 1 fsync a {change} fsync a kill 9"));
        let syncs = place.calls().iter().filter(|line| line.starts_with("-fsync")).count();
        assert_eq!(syncs, expected, "{change}: {:?}", place.calls());
    }
}

/// One call at most is skipped, because its deadline is over when the next could be.
const DEADLINE_BELOW_PERIOD: &str = "policy deadline_below_period
target redis.aof
guarantee loss <= 1 sync on power_loss
on fdatasync: every 30ms { skip }; pass
flush within 20ms
";

/// Most calls that were acknowledged and not durable at once, of calls that come `pause` ms after each other.
fn at_risk_with_pauses(pause: u64, fault: Option<&str>) -> u64 {
    let mut place =
        Place::new(&proved(DEADLINE_BELOW_PERIOD)).with_status().env("DURAC_LOG", "all");
    if let Some(fault) = fault {
        let agent = durac_tests::faulty_agent().unwrap();
        place = place.with_agent(&agent).env("DURAC_FAULT", fault);
    }
    let calls = format!("write a 1 sync a pause {pause} ").repeat(12);
    let running = place.start(&format!("open a wct x.incr.aof {calls} file go close a"));
    let log = log_where(&place.status(), "calls", |log| log.calls == 12);
    place.touch("go");
    let done = place.finish(running);
    assert_eq!(done.code, 0, "{}", done.err);
    log.max_pending
}

/// What is overdue, what the program reads and when its call is acknowledged are of one instant.
#[test]
fn a_call_looks_at_the_clock_once() {
    for pause in [1, 9, 16, 21, 25, 31] {
        assert_eq!(at_risk_with_pauses(pause, None), 1, "{pause} ms");
    }
    let mut found = (0..40).map(|_| at_risk_with_pauses(16, Some("time")));
    assert!(found.any(|most| most > 1), "`time` is not noticed");
}
