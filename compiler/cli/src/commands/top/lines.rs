//! What `durac top` knows of a log: two looks at a status page, an interval apart.

use crate::processes::Place;
use crate::{bound, output};
use durac_bpftime::session::Said;
use durac_core::unit::{Unit, show};
use durac_grammar::render::printable;
use durac_shm::status::{
    Amounts, Counting, LogNumbers, LogStatus, NotAsked, Snapshot, StageOff, Storage, no_log_hint,
};
use serde::Serialize;
use std::io;
use std::time::Duration;

/// A log over one interval.
#[derive(Debug, Default, Serialize)]
pub struct Line {
    pub pid: u32,
    #[serde(flatten)]
    pub place: Place,
    pub policy: String,
    /// False if it was switched off.
    pub on: bool,
    /// It was not switched off, but has turned itself off for as long as the command runs.
    pub stays_off: bool,
    pub params: Vec<Param>,
    pub log: String,
    /// Acknowledged sync calls that are not durable; the most that ever were at once, of any log of the process; and
    /// what was proved.
    pub at_risk: u64,
    pub most_at_risk: u64,
    pub bound_syncs: Option<u64>,
    /// The same in updates, if they are counted.
    pub updates: Option<u64>,
    pub most_updates: Option<u64>,
    pub bound_updates: Option<u64>,
    /// Why updates are not counted any more.
    pub not_counted: Option<String>,
    /// Bytes that are written and not durable.
    pub bytes: u64,
    /// Those that are acknowledged, the most that ever were, and what was proved.
    pub bytes_at_risk: u64,
    pub most_bytes_at_risk: u64,
    pub bound_bytes: Option<u64>,
    pub staged: u64,
    /// Age of the oldest call at risk, milliseconds; none if the policy has no deadline.
    pub age_ms: Option<f64>,
    pub most_age_ms: Option<f64>,
    pub bound_ms: Option<f64>,
    /// In a second.
    pub calls: f64,
    pub acknowledged: f64,
    pub syncs: f64,
    pub waits: f64,
    /// Mean duration of a sync, microseconds, and what 99 of 100 are below.
    pub sync_us: f64,
    pub sync_p99_us: Option<f64>,
    /// Part of the interval that calls waited.
    pub waited: f64,
    pub slow: u64,
    pub late: u64,
    /// Syncs that took longer than the policy assumes.
    pub broken_assumptions: u64,
    /// Calls that passed because they overlapped another.
    pub overlaps: u64,
    /// Why the policy has no effect.
    pub not_asked: Option<String>,
    /// What to know of the file system.
    pub storage: Option<String>,
    /// The program is written in Go, and its own system calls are not seen.
    pub is_go: bool,
    /// Bytes of held replies of the process, and the connections that they wait for.
    pub held_bytes: u64,
    pub held_connections: u64,
    /// Open logs of the process that are not shown.
    pub logs_not_shown: u64,
    pub not_staged: Option<String>,
    /// The error that stopped the log.
    pub error: Option<String>,
    /// The session, of a policy in BPFtime: the process is the one in which it is in force, or the loader.
    pub bpftime_session: Option<String>,
    /// Where a policy in BPFtime is in force, or why nowhere.
    pub standing: Option<String>,
}

/// A parameter.
#[derive(Debug, Serialize)]
pub struct Param {
    pub name: String,
    pub unit: String,
    pub value: u64,
}

impl Param {
    pub fn text(&self) -> String {
        format!(
            "{}={}",
            self.name,
            show(self.value, Unit::parse(&self.unit).unwrap_or(Unit::Unknown))
        )
    }
}

/// All of them together.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Total {
    pub processes: usize,
    /// Logs that are shown, and open ones that are not: the other numbers are without these.
    pub logs: usize,
    pub logs_not_shown: u64,
    pub at_risk: u64,
    pub updates: u64,
    pub bytes: u64,
    pub late: u64,
    /// Logs on which a policy has no effect, because the application does not ask it, or it is off.
    pub not_asked: usize,
    /// Logs that an error has stopped.
    pub stopped: usize,
}

impl Total {
    pub fn of(lines: &[Line]) -> Self {
        let mut pids: Vec<u32> = lines.iter().map(|line| line.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        let of = |pid: &u32| lines.iter().find(|line| line.pid == *pid);
        let logs_not_shown = pids.iter().filter_map(of).map(|line| line.logs_not_shown).sum();
        let none = Self { processes: pids.len(), logs_not_shown, ..Self::default() };
        lines.iter().fold(none, |sum, line| Self {
            logs: sum.logs + 1,
            at_risk: sum.at_risk.saturating_add(line.at_risk),
            updates: sum.updates.saturating_add(line.updates.unwrap_or(0)),
            bytes: sum.bytes.saturating_add(line.bytes),
            late: sum.late.saturating_add(line.late),
            not_asked: sum.not_asked + usize::from(line.not_asked.is_some() || !line.on),
            stopped: sum.stopped + usize::from(line.error.is_some()),
            ..sum
        })
    }
}

/// A policy in BPFtime, which keeps few numbers: it does not know the log's name.
pub fn in_bpftime(said: &Said, before: &[Said], time: Duration) -> Line {
    let same = |then: &&Said| (then.loader, &then.session) == (said.loader, &said.session);
    let then = before.iter().find(same);
    let rate = |of: fn(&Said) -> u64| {
        of(said).saturating_sub(then.map_or(0, of)) as f64 / time.as_secs_f64()
    };
    let pid = said.in_force.unwrap_or(said.loader);
    Line {
        pid,
        place: Place::of(pid),
        policy: printable(&said.policy),
        on: true,
        log: format!("{} (BPFtime)", printable(&said.target)),
        at_risk: said.pending,
        calls: rate(|said| said.calls),
        syncs: rate(|said| said.syncs),
        bpftime_session: Some(printable(&said.session)),
        standing: Some(printable(&said.standing)),
        ..Line::default()
    }
}

/// The open logs of the processes. `clock` is that of the pages, nanoseconds.
pub fn lines(
    before: &[(u32, Snapshot)],
    now: &[(u32, Snapshot)],
    time: Duration,
    clock: u64,
) -> Vec<Line> {
    let mut lines = Vec::new();
    for (pid, seen) in now {
        let old = before.iter().find(|(old, then)| old == pid && then.since == seen.since);
        let place = Place::of(*pid);
        if seen.logs.iter().all(|log| log.numbers.descriptors == 0) {
            let none = || match seen.is_supervisor {
                true => "no log has come to the supervisor yet".to_owned(),
                false => format!("no log is open{}", no_log_hint(&seen.target)),
            };
            lines.push(Line {
                pid: *pid,
                place,
                policy: printable(&seen.policy),
                on: !seen.is_off,
                stays_off: seen.stays_off,
                not_asked: (seen.beyond == 0).then(none),
                logs_not_shown: seen.beyond,
                ..Line::default()
            });
            continue;
        }
        for (at, log) in seen.logs.iter().enumerate() {
            if log.numbers.descriptors == 0 {
                continue;
            }
            let then = old.and_then(|(_, then)| then.logs.get(at)).map(|log| &log.numbers);
            let then = then.filter(|then| then.generation == log.numbers.generation);
            let line = line(seen, log, then, time, clock);
            lines.push(Line { pid: *pid, place: place.clone(), ..line });
        }
    }
    lines
}

fn line(
    seen: &Snapshot,
    log: &LogStatus,
    then: Option<&LogNumbers>,
    time: Duration,
    clock: u64,
) -> Line {
    let numbers = &log.numbers;
    let seconds = time.as_secs_f64();
    // A log that was opened meanwhile began at 0.
    let rate = |of: fn(&LogNumbers) -> u64| {
        of(numbers).saturating_sub(then.map_or(0, of)) as f64 / seconds
    };
    let params = seen.params.iter().map(|param| Param {
        name: printable(&param.name),
        unit: printable(&param.unit),
        value: bound::value(param),
    });
    let counting = Counting::of_code(numbers.counting);
    let counted = counting == Counting::Yes;
    let error = i32::try_from(numbers.error).ok().filter(|&error| error != 0);
    let Amounts { syncs, updates, bytes, within } = bound::now(seen);
    let ms = |ns: u64| ns as f64 / 1e6;
    let age = match numbers.oldest_since {
        0 => 0,
        since => clock.saturating_sub(since),
    };
    // Ages are kept for a deadline.
    let aged = within.is_some_and(|within| within > 0);
    let not_asked = NotAsked::of_code(numbers.not_asked);
    Line {
        policy: printable(&seen.policy),
        on: !seen.is_off,
        stays_off: seen.stays_off,
        params: params.collect(),
        log: printable(&log.path),
        at_risk: numbers.pending(),
        most_at_risk: seen.most_syncs.max(numbers.max_pending),
        bound_syncs: syncs,
        updates: counted.then_some(numbers.pending_updates),
        most_updates: counted.then_some(seen.most_updates.max(numbers.max_updates)),
        bound_updates: updates,
        not_counted: match counting {
            Counting::Lost(why) => Some(why.to_string()),
            Counting::No | Counting::Yes => None,
        },
        bytes: numbers.pending_bytes,
        bytes_at_risk: numbers.acknowledged_bytes,
        most_bytes_at_risk: seen.most_bytes.max(numbers.max_bytes),
        bound_bytes: bytes,
        staged: numbers.staged,
        age_ms: aged.then(|| ms(age)),
        most_age_ms: aged.then(|| ms(numbers.oldest_ever_ns)),
        bound_ms: within.map(ms),
        calls: rate(|n| n.calls),
        acknowledged: rate(|n| n.acknowledged),
        syncs: rate(|n| n.syncs),
        waits: rate(|n| n.waits),
        sync_us: numbers.latency_ns as f64 / 1e3,
        sync_p99_us: log.times.quantile(990).map(|limit| limit as f64 / 1e3),
        waited: rate(|n| n.wait_ns) / 1e9,
        slow: numbers.slow,
        late: numbers.late,
        broken_assumptions: numbers.broken_assumptions,
        overlaps: numbers.overlaps,
        not_asked: not_asked.map(|why| format!("{why}: {}", why.hint(&seen.target))),
        storage: Storage::of_code(numbers.storage).remark().map(str::to_owned),
        is_go: seen.is_go,
        held_bytes: seen.held_bytes,
        held_connections: seen.held_connections,
        logs_not_shown: seen.beyond,
        not_staged: StageOff::of_code(numbers.stage_off).map(|why| why.to_string()),
        error: error.map(|error| output::reason(&io::Error::from_raw_os_error(error))),
        ..Line::default()
    }
}
