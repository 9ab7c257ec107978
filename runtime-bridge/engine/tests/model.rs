//! What a model checker relies on: a log counted anew behaves as before, and a sync whose start is
//! chosen when it ends ends as one that started then.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and reads its cases"
)]

use durac_engine::{Able, Answer, Decision, Drain, Entry, Log, Put, Rules, Step, Time, Writing};
use durac_support::Random;

/// A log with its flights that are out, and the call that is under way.
#[derive(Clone)]
struct Driven {
    log: Log,
    out: Vec<u64>,
}

impl Driven {
    fn new(rules: Rules) -> Self {
        Self { log: Log::new(rules), out: Vec::new() }
    }

    /// One step, chosen by `kind` and `detail`, and what can be seen of it: no absolute numbers.
    fn step(&mut self, kind: u64, detail: u64) -> String {
        let log = &mut self.log;
        let did = match kind {
            0 | 1 => {
                let decision = match detail % 4 {
                    0 => Writing::Pass,
                    _ => Writing::Stage,
                };
                let put = log.decide_write(decision, !detail.is_multiple_of(9), Able::ALL, 0);
                log.wrote(log.written() + 1);
                if detail.is_multiple_of(6) {
                    log.commit(0);
                }
                format!("{put:?}")
            }
            2..=4 => match log.enter(detail.is_multiple_of(5), !detail.is_multiple_of(7)) {
                Entry::Refused(errno) => format!("refused {errno}"),
                Entry::Direct(call) => format!("direct, barrier {}", call.barrier),
                Entry::Ask(call) => {
                    let decision = match detail % 4 {
                        0 => Decision::Pass,
                        1 => Decision::Skip,
                        2 => Decision::Fail(5),
                        _ => Decision::Defer,
                    };
                    let pending = log.pending(call.number);
                    let answer = log.decide(call.number, decision, false, Able::ALL, 0);
                    format!("pending {pending}, {answer:?}")
                }
            },
            5 => {
                let target = log.await_target(log.calls(), detail % 4);
                format!("{:?}", log.wait(target, detail.is_multiple_of(2), Able::ALL))
            }
            6 | 7 => {
                let background = log.background().is_none() && !detail.is_multiple_of(3);
                let flight = log.start(background, false, 0);
                self.out.push(flight.id);
                format!("{background} {}", flight.full)
            }
            _ if self.out.is_empty() => String::new(),
            _ => {
                let id = self.out.remove(detail as usize % self.out.len());
                let (result, proved) = match detail % 23 {
                    0 => (Err(5), true),
                    1 => (Err(4), true),
                    2 => (Err(9), false),
                    3 => (Ok(()), false),
                    _ => (Ok(()), true),
                };
                log.land(id, 0, result, proved);
                format!("{result:?}")
            }
        };
        let starts = log.next(Time::MAX) != Step::Idle;
        let unsynced = log.unsynced();
        let done = (log.notify_done(), log.is_marked(), log.is_last_covered(), log.is_flying());
        let tail = (log.leaves_tail(), log.leaves_staged());
        let staged = (log.staged(log.calls()), log.staged_writes(), log.is_loose());
        format!(
            "{did}; {unsynced} {done:?} {starts} {tail:?} {staged:?} {:?} {:?}",
            log.error(),
            log.drain_kind()
        )
    }
}

/// What a drain would do, without its number.
trait DrainKind {
    fn drain_kind(&self) -> &'static str;
}

impl DrainKind for Log {
    fn drain_kind(&self) -> &'static str {
        match self.drain() {
            Drain::Done => "done",
            Drain::Failed(_) => "failed",
            Drain::Wait(_) => "wait",
            Drain::Sync => "sync",
        }
    }
}

fn rules(random: &mut Random) -> Rules {
    let within = (random.below(2) == 0).then_some(1_000_000);
    Rules {
        flush_within: within,
        keeps_age: random.below(2) == 0,
        stages: random.below(2) == 0,
        ..Rules::default()
    }
}

#[test]
fn a_log_counted_anew_behaves_as_before() {
    let mut random = Random(0x5eed_0003);
    for case in 0..2000 {
        let rules = rules(&mut random);
        let (mut plain, mut anew) = (Driven::new(rules), Driven::new(rules));
        for at in 0..40 {
            let (kind, detail) = (random.below(11), random.below(1 << 20));
            let expected = plain.step(kind, detail);
            assert_eq!(anew.step(kind, detail), expected, "case {case}, step {at}");
            let shift = anew.log.rebase();
            anew.out.iter_mut().for_each(|id| *id -= shift.flights);
            let mut counted = plain.log.clone();
            counted.rebase();
            assert_eq!(counted, anew.log, "case {case}, step {at}");
        }
    }
}

/// Calls, each after a write, all deferred; a background sync starts somewhere among them.
#[test]
fn a_start_chosen_later_is_a_start_made_then() {
    for calls in 1..6u64 {
        for covers in 0..=calls {
            for tail in [false, true] {
                for write_after in [false, true] {
                    // With `tail`, it starts after the write that follows the calls it covers.
                    if tail && covers + 1 < calls || tail && covers == calls && !write_after {
                        continue;
                    }
                    let rules = Rules { stages: true, ..Rules::default() };
                    let (mut real, mut later) = (Log::new(rules), Log::new(rules));
                    let mut id = None;
                    for k in 1..=calls + 1 {
                        let starts = |log: &mut Log| log.start(true, false, 0).id;
                        if covers + 1 == k && !tail {
                            id = Some(starts(&mut real));
                        }
                        if k <= calls || write_after {
                            for log in [&mut real, &mut later] {
                                let put = log.decide_write(Writing::Stage, true, Able::ALL, 0);
                                assert_eq!(put, Put::Copy);
                                log.wrote(log.written() + 1);
                            }
                        }
                        if covers + 1 == k && tail {
                            id = Some(starts(&mut real));
                        }
                        if k <= calls {
                            for log in [&mut real, &mut later] {
                                let Entry::Ask(call) = log.enter(false, true) else { panic!() };
                                let answer =
                                    log.decide(call.number, Decision::Defer, false, Able::ALL, 0);
                                assert_eq!(answer, Answer::Return(Ok(())));
                            }
                        }
                    }
                    let chosen = later.start_covering(covers, tail);
                    real.land(id.unwrap(), 0, Ok(()), true);
                    later.land(chosen.id, 0, Ok(()), true);
                    let case =
                        format!("{covers} of {calls}, tail {tail}, write after {write_after}");
                    assert_eq!(real.durable(), later.durable(), "{case}");
                    assert_eq!(real.notify_done(), later.notify_done(), "{case}");
                    assert_eq!(real.is_last_covered(), later.is_last_covered(), "{case}");
                    assert_eq!(real.since_request(), later.since_request(), "{case}");
                    assert_eq!(real.leaves_tail(), later.leaves_tail(), "{case}");
                    assert_eq!(real.staged(calls), later.staged(calls), "{case}");
                    assert_eq!(real.staged_writes(), later.staged_writes(), "{case}");
                    assert_eq!(real.is_loose(), later.is_loose(), "{case}");
                    assert_eq!(real.leaves_staged(), later.leaves_staged(), "{case}");
                }
            }
        }
    }
}
