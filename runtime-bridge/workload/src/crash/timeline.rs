//! How a crash came to what it took: the last writes, syncs and acknowledgements, in a few lines.

use super::{Crash, Trial};
use crate::writers::Acknowledged;
use durac_disk::noted::{Noted, What};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::time::Instant;

/// Lines before those that are left out.
const FIRST: usize = 4;
/// Lines after them, the crash is the last.
const LAST: usize = 8;
/// Keys on one line.
const KEYS: usize = 5;

/// A line of a timeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds after the crash, so mostly negative; `null` of what was seen later.
    pub ms: Option<f64>,
    /// What happened.
    pub what: String,
}

impl Line {
    /// What was seen after the crash.
    pub(super) fn later(what: String) -> Self {
        Self { ms: None, what }
    }
}

/// What there is to tell.
pub(super) struct Seen<'a> {
    /// What was done to the log's files.
    pub noted: &'a [Noted],
    /// What was acknowledged.
    pub acknowledged: &'a Acknowledged,
    /// The acknowledged keys that are gone.
    pub missing: &'a [String],
    /// When the crash came, if the disk has not noted it.
    pub crashed: Instant,
}

#[derive(Debug, PartialEq)]
enum Event {
    Wrote { number: u64, len: usize, keys: Vec<String> },
    Refused(i32),
    Began(u64),
    Ended(u64, Option<i32>),
    Answered(Vec<String>),
    Crash,
}

/// The timeline of a crash.
pub(super) fn lines(seen: &Seen<'_>, trial: &Trial) -> Vec<Line> {
    let cut = seen.noted.iter().find(|noted| noted.what == What::Cut).map(|noted| noted.at);
    let crash = cut.unwrap_or(seen.crashed);
    let missing: BTreeSet<&str> = seen.missing.iter().map(String::as_str).collect();
    let events = events(seen, crash);
    let lost = |event: &Event| keys(event).iter().any(|key| missing.contains(key.as_str()));
    let from = match events.iter().position(|(_, event)| lost(event)) {
        Some(first) => {
            let before = events.iter().take(first);
            before
                .rev()
                .position(|(_, e)| matches!(e, Event::Ended(..)))
                .map_or(0, |n| first - n - 1)
        }
        None => events.len().saturating_sub(LAST),
    };
    let shown = events.get(from..).unwrap_or_default();
    let of = |(at, event): &(Instant, Event)| Line {
        ms: Some(ms(*at, crash)),
        what: text(event, &missing, shown, trial.crash),
    };
    let mut out = Vec::new();
    let middle = shown.len().saturating_sub(LAST);
    if middle > FIRST + 1 {
        out.extend(shown.iter().take(FIRST).map(of));
        out.push(left_out(shown.get(FIRST..middle).unwrap_or_default()));
        out.extend(shown.iter().skip(middle).map(of));
    } else {
        out.extend(shown.iter().map(of));
    }
    out.extend(outcome(seen, trial));
    out
}

/// Everything in order of time, up to the crash.
fn events(seen: &Seen<'_>, crash: Instant) -> Vec<(Instant, Event)> {
    let of_disk = seen.noted.iter().map(|noted| {
        let event = match &noted.what {
            What::Wrote { number, len, bytes } => {
                Event::Wrote { number: *number, len: *len, keys: words(bytes) }
            }
            What::Refused { errno } => Event::Refused(*errno),
            What::Began { sync } => Event::Began(*sync),
            What::Ended { sync, errno } => Event::Ended(*sync, *errno),
            What::Cut => Event::Crash,
        };
        (noted.at, event)
    });
    let mut all: Vec<_> = of_disk.filter(|(_, event)| *event != Event::Crash).collect();
    // What a client reads after the crash was sent before it.
    let answers = seen.acknowledged.last.iter();
    all.extend(answers.map(|a| (a.at.min(crash), Event::Answered(vec![a.key.clone()]))));
    all.sort_by_key(|(at, _)| *at);
    all.retain(|(at, _)| *at <= crash);
    let mut merged: Vec<(Instant, Event)> = Vec::new();
    for (at, event) in all {
        match (merged.last_mut(), event) {
            (Some((_, Event::Answered(keys))), Event::Answered(more)) => keys.extend(more),
            (_, event) => merged.push((at, event)),
        }
    }
    merged.push((crash, Event::Crash));
    merged
}

/// The keys in a write of the log: words of the protocol stand between line ends.
pub(super) fn words(bytes: &[u8]) -> Vec<String> {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_key = |word: &&str| word.split_once(':').is_some_and(|(w, n)| number(w) && number(n));
    String::from_utf8_lossy(bytes).split("\r\n").filter(is_key).map(str::to_owned).collect()
}

fn keys(event: &Event) -> &[String] {
    match event {
        Event::Wrote { keys, .. } | Event::Answered(keys) => keys,
        _ => &[],
    }
}

fn ms(at: Instant, crash: Instant) -> f64 {
    let millis = match at.checked_duration_since(crash) {
        Some(after) => after.as_secs_f64() * 1e3,
        None => -(crash.duration_since(at).as_secs_f64() * 1e3),
    };
    (millis * 1e3).round() / 1e3
}

fn text(event: &Event, missing: &BTreeSet<&str>, all: &[(Instant, Event)], crash: Crash) -> String {
    let gone = |keys: &[String]| {
        let gone = keys.iter().filter(|key| missing.contains(key.as_str())).count();
        match gone {
            0 => "",
            _ if gone == keys.len() => "  (gone)",
            _ => "  (partly gone)",
        }
    };
    match event {
        Event::Wrote { number, len, keys } => {
            format!("write {number}, {len} bytes: {}{}", some(keys), gone(keys))
        }
        Event::Refused(errno) => format!("a write fails: {}", reason(*errno)),
        Event::Began(sync) => format!("sync {sync} begins"),
        Event::Ended(sync, None) => format!("sync {sync} ends"),
        Event::Ended(sync, Some(errno)) => {
            format!("sync {sync} fails: {}", reason(*errno))
        }
        Event::Answered(keys) => format!("acknowledged: {}{}", some(keys), gone(keys)),
        Event::Crash => {
            let what = match crash {
                Crash::Kill => "the process is killed",
                _ => "the power goes",
            };
            let ended = |number: u64| {
                all.iter().any(|(_, e)| matches!(e, Event::Ended(sync, _) if *sync == number))
            };
            let open = all.iter().find_map(|(_, event)| match event {
                Event::Began(sync) if !ended(*sync) => Some(sync),
                _ => None,
            });
            open.map_or(what.to_owned(), |sync| format!("{what}, in the middle of sync {sync}"))
        }
    }
}

fn some(keys: &[String]) -> String {
    match keys.len().checked_sub(KEYS) {
        None | Some(0) => keys.join(" "),
        Some(_) => {
            let first: Vec<&str> = keys.iter().take(KEYS - 1).map(String::as_str).collect();
            format!("{} … ({} commands)", first.join(" "), keys.len())
        }
    }
}

fn left_out(events: &[(Instant, Event)]) -> Line {
    let count = |of: fn(&Event) -> usize| events.iter().map(|(_, event)| of(event)).sum::<usize>();
    let writes = count(|event| usize::from(matches!(event, Event::Wrote { .. })));
    let begun = count(|event| usize::from(matches!(event, Event::Began(..))));
    let syncs = count(|event| usize::from(matches!(event, Event::Ended(..))));
    let answers = count(|event| match event {
        Event::Answered(keys) => keys.len(),
        _ => 0,
    });
    let what = format!(
        "… {writes} writes, {begun} begins and {syncs} ends of syncs, {answers} acknowledgements …"
    );
    Line::later(what)
}

/// What came back, and what did not.
fn outcome(seen: &Seen<'_>, trial: &Trial) -> Vec<Line> {
    let line = Line::later;
    if let Some(why) = trial.violation.as_deref().filter(|_| seen.missing.is_empty()) {
        return vec![line(why.lines().next().unwrap_or_default().to_owned())];
    }
    let came_back: Vec<String> = (seen.acknowledged.from..)
        .zip(&seen.acknowledged.counts)
        .map(|(writer, count)| {
            let of = format!("{writer}:");
            let gone = seen.missing.iter().filter(|key| key.starts_with(&of)).count() as u64;
            match count.saturating_sub(gone) {
                0 => format!("nothing of {writer}"),
                there => format!("{writer}:{}", there - 1),
            }
        })
        .collect();
    vec![
        line(format!("came back, up to: {}", some(&came_back))),
        line(format!(
            "gone: {} acknowledged commands, in {} syncs",
            trial.lost_commands, trial.lost_syncs
        )),
    ]
}

/// The system's words for an error, without its number.
fn reason(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::At;
    use super::*;
    use crate::writers::Answer;
    use std::time::Duration;

    pub(in super::super) fn trial() -> Trial {
        Trial {
            changes: 0,
            number: 3,
            crash: Crash::Clean,
            at: At::MidSync,
            acknowledged: 2,
            lost_commands: 1,
            lost_syncs: 1,
            lost_bytes: 31,
            repaired: false,
            overlapping_writes: 0,
            faults: 0,
            ended: false,
            lost_age_us: 0,
            assumption_held: true,
            excused: None,
            violation: None,
            timeline: Vec::new(),
        }
    }

    fn write(number: u64, key: &str) -> What {
        let bytes = format!("*3\r\n$3\r\nSET\r\n$3\r\n{key}\r\n$1\r\n0\r\n").into_bytes();
        What::Wrote { number, len: bytes.len(), bytes }
    }

    fn told(noted: &[(u64, What)], answers: &[(u64, &str)], missing: &[&str]) -> Vec<String> {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let path = "/data/appendonly".to_owned();
        let noted: Vec<Noted> = noted
            .iter()
            .map(|(ms, what)| Noted { at: at(*ms), path: path.clone(), what: what.clone() })
            .collect();
        let last = answers.iter().map(|(ms, key)| Answer { at: at(*ms), key: (*key).to_owned() });
        let last = last.collect();
        let acknowledged = Acknowledged { from: 0, counts: vec![2], errors: Vec::new(), last };
        let missing: Vec<String> = missing.iter().map(|key| (*key).to_owned()).collect();
        let (noted, missing) = (noted.as_slice(), missing.as_slice());
        let seen = Seen { noted, acknowledged: &acknowledged, missing, crashed: at(1000) };
        let told = lines(&seen, &trial());
        let ms = |line: &Line| line.ms.map_or("-".to_owned(), |ms| ms.to_string());
        told.iter().map(|line| format!("{} {}", ms(line), line.what)).collect()
    }

    #[test]
    fn from_the_last_sync_before_the_loss_to_the_crash() {
        let noted = [
            (1, write(1, "0:0")),
            (2, What::Began { sync: 7 }),
            (3, What::Ended { sync: 7, errno: None }),
            (5, write(2, "0:1")),
            (6, What::Began { sync: 8 }),
            (8, What::Cut),
        ];
        assert_eq!(
            told(&noted, &[(4, "0:0"), (9, "0:1")], &["0:1"]),
            [
                "-5 sync 7 ends",
                "-4 acknowledged: 0:0",
                "-3 write 2, 29 bytes: 0:1  (gone)",
                "-2 sync 8 begins",
                "0 acknowledged: 0:1  (gone)",
                "0 the power goes, in the middle of sync 8",
                "- came back, up to: 0:0",
                "- gone: 1 acknowledged commands, in 1 syncs",
            ]
        );
    }

    #[test]
    fn a_long_one_is_short() {
        let mut noted: Vec<(u64, What)> =
            (0..100).map(|n| (n, write(n, &format!("0:{n}")))).collect();
        noted.push((100, What::Cut));
        let told = told(&noted, &[], &["0:1"]);
        assert_eq!(told.len(), 15, "{told:?}");
        assert_eq!(told[4], "- … 89 writes, 0 begins and 0 ends of syncs, 0 acknowledgements …");
    }
}
