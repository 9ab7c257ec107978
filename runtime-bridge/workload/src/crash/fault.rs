//! Faults of the disk before a crash.

use super::timeline::words;
use crate::error::{Error, Result};
use crate::writers::Acknowledged;
use durac_disk::noted::{Noted, What};
use durac_disk::plan::Effect;
use durac_disk::{Fault, Op};
use std::time::Duration;

/// Files that a fault is on if it names no others: the log, not what Redis keeps beside it.
pub(super) const LOG: &str = ".incr.aof";
/// Longer than any test: it ends with the power.
const STUCK: Duration = Duration::from_secs(3600);
/// The longest delay that a user can choose.
const SLOWEST_MS: u64 = 60_000;

/// Reads `OP:WHAT[@N][,times=N][,path=TEXT]`, see docs/crashtest.md.
///
/// # Errors
/// What is wrong with it.
pub fn fault(text: &str) -> Result<Fault> {
    let wrong = |why: String| Error::Config(why);
    let mut parts = text.split(',');
    let first = parts.next().unwrap_or_default();
    let (head, after) = first.split_once('@').unwrap_or((first, "0"));
    let number = |text: &str| {
        text.parse::<u64>().map_err(|_| wrong(format!("invalid number of operations `{text}`")))
    };
    let Some((op, what)) = head.split_once(':') else {
        return Err(wrong("expected OP:WHAT[@N], for example `sync:eio@20`".into()));
    };
    let op = match op {
        "sync" => Op::Sync,
        "write" => Op::Write,
        _ => return Err(wrong(format!("unknown operation `{op}`: expected `sync` or `write`"))),
    };
    let (what, delay) = what.split_once('=').map_or((what, None), |(what, d)| (what, Some(d)));
    let effect = match (what, op, delay) {
        ("eio", _, None) => Effect::Fail(libc::EIO),
        ("enospc", _, None) => Effect::Fail(libc::ENOSPC),
        ("eintr", Op::Sync, None) => Effect::Fail(libc::EINTR),
        ("short", Op::Write, None) => Effect::Short,
        ("stuck", Op::Sync, None) => Effect::Slow(STUCK),
        ("slow", Op::Sync, Some(delay)) => Effect::Slow(duration(delay)?),
        _ => {
            return Err(wrong(format!(
                "unknown fault `{head}`: expected sync:eio, sync:enospc, sync:eintr, sync:slow=2s, sync:stuck, \
                 write:eio, write:enospc, write:short"
            )));
        }
    };
    let mut fault = Fault { op, path: LOG.into(), after: number(after)?, times: None, effect };
    for part in parts {
        match part.split_once('=') {
            Some(("times", times)) => fault.times = Some(number(times)?),
            Some(("path", path)) => path.clone_into(&mut fault.path),
            _ => {
                return Err(wrong(format!(
                    "unknown option `{part}`: expected `times=N` or `path=TEXT`"
                )));
            }
        }
    }
    Ok(fault)
}

fn duration(text: &str) -> Result<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').unwrap_or_default(), 1000),
    };
    let millis = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    match millis.filter(|millis| *millis <= SLOWEST_MS) {
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => Err(Error::Config(format!(
            "invalid time `{text}`: expected one such as `500ms` or `2s`, at most 60s"
        ))),
    }
}

/// Writes of the log that were made after one of its syncs or writes had failed, and acknowledged all
/// the same, if they are more than what may be acknowledged before its sync.
pub(super) fn late(noted: &[Noted], acknowledged: &Acknowledged, bound: u64) -> Option<String> {
    let failed = |noted: &Noted| {
        let failure =
            matches!(noted.what, What::Refused { .. } | What::Ended { errno: Some(_), .. });
        failure && noted.path.contains(LOG)
    };
    let first = noted.iter().position(failed)?;
    let is_acknowledged = |key: &String| {
        let numbers = key.split_once(':').and_then(|(writer, number)| {
            let writer = writer.parse::<usize>().ok()?.checked_sub(acknowledged.from as usize)?;
            Some((writer, number.parse::<u64>().ok()?))
        });
        numbers.is_some_and(|(w, n)| acknowledged.counts.get(w).is_some_and(|count| n < *count))
    };
    let later = noted.iter().skip(first).filter(|noted| match &noted.what {
        What::Wrote { bytes, .. } => words(bytes).iter().any(is_acknowledged),
        _ => false,
    });
    let count = later.count() as u64;
    (count > bound).then(|| {
        format!("{count} writes were acknowledged after the log had failed; at most {bound} may be")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn what_can_be_said() {
        let eio = Effect::Fail(libc::EIO);
        let read = |text: &str| fault(text).unwrap();
        let log = || LOG.to_owned();
        assert_eq!(
            read("sync:eio@20"),
            Fault { op: Op::Sync, path: log(), after: 20, times: None, effect: eio }
        );
        assert_eq!(
            read("write:short@3,times=1,path=x"),
            Fault {
                op: Op::Write,
                path: "x".into(),
                after: 3,
                times: Some(1),
                effect: Effect::Short
            }
        );
        assert_eq!(read("sync:slow=2s").effect, Effect::Slow(Duration::from_secs(2)));
        assert_eq!(read("sync:slow=20ms").effect, Effect::Slow(Duration::from_millis(20)));
        assert_eq!(read("sync:eintr").effect, Effect::Fail(libc::EINTR));
        for (text, says) in [
            ("write:eintr", "unknown fault `write:eintr`"),
            ("eio", "expected OP:WHAT[@N]"),
            ("read:eio", "unknown operation `read`"),
            ("sync:short", "unknown fault `sync:short`"),
            ("write:stuck", "unknown fault `write:stuck`"),
            ("sync:eio@x", "invalid number of operations `x`"),
            ("sync:eio,often", "unknown option `often`"),
            ("sync:slow=2h", "expected one such as `500ms`"),
            ("sync:slow=99999999999999999s", "expected one such as `500ms`"),
        ] {
            let error = fault(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn acknowledged_after_the_log_had_failed() {
        let note = |what: What| Noted { at: Instant::now(), path: format!("/a{LOG}"), what };
        let write = |key: &str| {
            let bytes = format!("$3\r\n{key}\r\n").into_bytes();
            note(What::Wrote { number: 1, len: bytes.len(), bytes })
        };
        let failed = || note(What::Ended { sync: 1, errno: Some(libc::EIO) });
        let counts = vec![2];
        let acknowledged = Acknowledged { from: 0, counts, errors: Vec::new(), last: Vec::new() };
        let late = |noted: &[Noted], bound| late(noted, &acknowledged, bound).is_some();
        assert!(!late(&[write("0:0"), failed(), write("0:2")], 0));
        assert!(late(&[write("0:0"), failed(), write("0:1")], 0));
        assert!(!late(&[write("0:0"), failed(), write("0:1")], 1));
        assert!(!late(&[write("0:0"), write("0:1")], 0));
    }
}
