//! How old the lost commands are, and whether syncs took as long as the policy assumes.
//!
//! Ages are measured from the instant a client reads its reply, which is later than the
//! acknowledgement, so they are never too high.

use super::{Config, Crash};
use crate::writers::Acknowledged;
use durac_disk::noted::{Noted, What};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What was seen of a crash.
pub(super) struct Seen<'a> {
    /// What was done to the log's files.
    pub noted: &'a [Noted],
    /// What was acknowledged.
    pub acknowledged: &'a Acknowledged,
    /// The acknowledged keys that are gone.
    pub missing: &'a [String],
    /// An instant just before the crash, if the disk has not noted a cut.
    pub before: Instant,
    /// The application ended by itself before the crash.
    pub ended: bool,
    /// Syncs that the agent counted as longer than assumed.
    pub broken_assumptions: u64,
    /// What is in the paths of the log's files.
    pub log: &'a str,
}

/// What is said about the ages.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Judged {
    /// Age of the oldest lost command, at least.
    pub oldest: Duration,
    /// Why `assume sync` did not hold, if it did not.
    pub broken: Option<String>,
    /// Why the loss is older than the bound, if it is.
    pub late: Option<String>,
}

/// Judges the ages of what is gone.
pub(super) fn judge(config: &Config, crash: Crash, seen: &Seen<'_>) -> Judged {
    let end = seen.end();
    let oldest = oldest(seen.missing, seen.acknowledged, end);
    let broken = config.assume_sync.and_then(|most| {
        let slowest = slowest(seen);
        let assumes = format!("the policy assumes at most {}", millis(most));
        match seen.broken_assumptions {
            _ if slowest > most => Some(format!("a sync took {}; {assumes}", millis(slowest))),
            0 => None,
            count => Some(format!("the agent counted {count} syncs that took longer; {assumes}")),
        }
    });
    let within = match crash {
        Crash::Kill => config.process_crash_within,
        _ => config.power_loss_within,
    };
    let late = within.filter(|within| oldest > *within).map(|within| {
        format!(
            "a command acknowledged {} before the crash is lost, proved is {}",
            millis(oldest),
            millis(within)
        )
    });
    Judged { oldest, broken, late }
}

impl Seen<'_> {
    fn crash(&self) -> Instant {
        let cut = self.noted.iter().find(|noted| noted.what == What::Cut);
        cut.map_or(self.before, |noted| noted.at)
    }

    /// The instant up to which ages count: a log that has failed acknowledges nothing more and cannot be
    /// synced, so what it loses grows no older; neither does that of a process that has ended.
    fn end(&self) -> Instant {
        let failed = |noted: &&Noted| {
            let failure =
                matches!(noted.what, What::Refused { .. } | What::Ended { errno: Some(_), .. });
            failure && noted.path.contains(self.log)
        };
        let crash = self.crash();
        let failed = self.noted.iter().find(failed).map_or(crash, |noted| noted.at);
        let last = self.acknowledged.last.iter().map(|answer| answer.at).max();
        let last = last.filter(|_| self.ended).unwrap_or(crash);
        crash.min(failed).min(last)
    }
}

/// Age of the oldest lost command at `end`. One whose reply is no longer remembered is at least as old as
/// the oldest reply that is remembered of its writer.
fn oldest(missing: &[String], acknowledged: &Acknowledged, end: Instant) -> Duration {
    let mut first: BTreeMap<&str, Instant> = BTreeMap::new();
    let mut at: BTreeMap<&str, Instant> = BTreeMap::new();
    for answer in &acknowledged.last {
        let oldest = first.entry(writer(&answer.key)).or_insert(answer.at);
        *oldest = answer.at.min(*oldest);
        at.insert(&answer.key, answer.at);
    }
    let of = |key: &String| at.get(key.as_str()).or_else(|| first.get(writer(key)));
    let oldest = missing.iter().filter_map(of).min();
    oldest.map_or(Duration::ZERO, |at| end.saturating_duration_since(*at))
}

fn writer(key: &str) -> &str {
    key.split(':').next().unwrap_or_default()
}

/// Duration of the longest sync of the log, those included that were under way at the crash.
fn slowest(seen: &Seen<'_>) -> Duration {
    let crash = seen.crash();
    let mut out: BTreeMap<u64, Instant> = BTreeMap::new();
    let mut slowest = Duration::ZERO;
    let is_log = |noted: &&Noted| noted.at <= crash && noted.path.contains(seen.log);
    let log = seen.noted.iter().filter(is_log);
    for noted in log {
        match noted.what {
            What::Began { sync } => {
                out.insert(sync, noted.at);
            }
            What::Ended { sync, .. } => {
                let began = out.remove(&sync);
                let took = began.map(|at| noted.at.saturating_duration_since(at));
                slowest = slowest.max(took.unwrap_or_default());
            }
            What::Wrote { .. } | What::Refused { .. } | What::Cut => {}
        }
    }
    let under_way = out.values().map(|at| crash.saturating_duration_since(*at)).max();
    slowest.max(under_way.unwrap_or_default())
}

/// A duration in milliseconds, `12.3 ms`.
#[must_use]
pub fn millis(time: Duration) -> String {
    let text = format!("{:.3}", time.as_secs_f64() * 1e3);
    format!("{} ms", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::super::fault::LOG;
    use super::*;
    use crate::writers::Answer;

    const MS: Duration = Duration::from_millis(1);

    /// A crash after a second: syncs of the log as (begin, end) and replies, in milliseconds.
    struct Case {
        config: Config,
        crash: Crash,
        syncs: Vec<(u32, Result<u32, i32>)>,
        replies: Vec<(u32, &'static str)>,
        missing: Vec<&'static str>,
        ended: bool,
        broken_assumptions: u64,
    }

    /// Loses at most 50 ms, with syncs of 10 ms at most.
    fn case(replies: &[(u32, &'static str)], missing: &[&'static str]) -> Case {
        let config = Config {
            power_loss_within: Some(50 * MS),
            assume_sync: Some(10 * MS),
            ..Config::default()
        };
        Case {
            config,
            crash: Crash::Clean,
            syncs: vec![(900, Ok(910)), (995, Ok(1005))],
            replies: replies.to_vec(),
            missing: missing.to_vec(),
            ended: false,
            broken_assumptions: 0,
        }
    }

    impl Case {
        fn judged(&self) -> Judged {
            let begin = Instant::now();
            let note = |ms: u32, what| Noted { at: begin + ms * MS, path: format!("a{LOG}"), what };
            let mut noted = Vec::new();
            for (number, (began, ended)) in (1..).zip(&self.syncs) {
                noted.push(note(*began, What::Began { sync: number }));
                let (at, errno) = match ended {
                    Ok(at) => (*at, None),
                    Err(errno) => (began + 1, Some(*errno)),
                };
                noted.push(note(at, What::Ended { sync: number, errno }));
            }
            noted.push(note(1000, What::Cut));
            let reply =
                |(ms, key): &(u32, &str)| Answer { at: begin + *ms * MS, key: (*key).to_owned() };
            let last = self.replies.iter().map(reply).collect();
            let acknowledged = Acknowledged { from: 0, counts: vec![9], errors: Vec::new(), last };
            let missing: Vec<String> = self.missing.iter().map(|key| (*key).to_owned()).collect();
            let seen = Seen {
                noted: &noted,
                acknowledged: &acknowledged,
                missing: &missing,
                before: begin + 1100 * MS,
                ended: self.ended,
                broken_assumptions: self.broken_assumptions,
                log: LOG,
            };
            judge(&self.config, self.crash, &seen)
        }
    }

    #[test]
    fn older_than_the_bound() {
        let late = |at: u32| case(&[(900, "0:0"), (at, "0:1")], &["0:1"]).judged().late;
        assert_eq!(late(950), None);
        let why = "a command acknowledged 51 ms before the crash is lost, proved is 50 ms";
        assert_eq!(late(949).as_deref(), Some(why));
        // What a client reads after the crash is not lost before it.
        assert_eq!(case(&[(1003, "0:1")], &["0:1"]).judged(), Judged::default());
        assert_eq!(case(&[(900, "0:0")], &[]).judged(), Judged::default());
    }

    #[test]
    fn each_kind_of_crash_has_its_bound() {
        let mut case = case(&[(900, "0:1")], &["0:1"]);
        case.crash = Crash::Torn;
        assert!(case.judged().late.is_some());
        case.crash = Crash::Kill;
        assert_eq!((case.judged().oldest, case.judged().late), (100 * MS, None));
        case.config.process_crash_within = Some(99 * MS);
        assert!(case.judged().late.is_some());
    }

    #[test]
    fn a_sync_longer_than_assumed() {
        let mut case = case(&[(900, "0:1")], &["0:1"]);
        assert_eq!(case.judged().broken, None);
        case.broken_assumptions = 2;
        assert!(case.judged().broken.is_some_and(|why| why.contains("the agent counted 2 syncs")));
        case.broken_assumptions = 0;
        for syncs in [vec![(900, Ok(911))], vec![(989, Ok(2000))]] {
            case.syncs = syncs;
            let judged = case.judged();
            let why = "a sync took 11 ms; the policy assumes at most 10 ms";
            assert_eq!(judged.broken.as_deref(), Some(why));
            assert!(judged.late.is_some());
        }
        case.config.assume_sync = None;
        assert_eq!(case.judged().broken, None);
    }

    #[test]
    fn older_than_what_is_remembered() {
        let replies = [(940, "0:7"), (960, "0:8"), (800, "1:8")];
        let judged = case(&replies, &["0:1", "0:7", "0:8"]).judged();
        assert_eq!((judged.oldest, judged.late.is_some()), (60 * MS, true));
        assert_eq!(case(&replies, &["2:0"]).judged().oldest, Duration::ZERO);
    }

    #[test]
    fn nothing_grows_older_after_a_failure_or_the_end() {
        let mut failed = case(&[(900, "0:1")], &["0:1"]);
        failed.syncs = vec![(940, Err(libc::EIO))];
        assert_eq!((failed.judged().oldest, failed.judged().late), (41 * MS, None));
        let mut ended = case(&[(900, "0:1"), (930, "1:1")], &["0:1"]);
        ended.ended = true;
        assert_eq!((ended.judged().oldest, ended.judged().late), (30 * MS, None));
    }

    #[test]
    fn milliseconds() {
        let text = |micros| millis(Duration::from_micros(micros));
        assert_eq!([0, 40, 50_000, 50_040].map(text), ["0 ms", "0.04 ms", "50 ms", "50.04 ms"]);
    }
}
