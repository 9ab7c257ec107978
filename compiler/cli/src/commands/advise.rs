//! `durac advise`: the fastest policy for a recorded application whose proved loss stays within given
//! limits.
//!
//! Candidates are texts made from a few forms (`always`, a window, a deadline alone). Each is compiled,
//! proved and simulated on the recording; only what the proof says decides whether it is within the limits.

use super::simulate::{self, Candidate, Candidates, DeviceArg};
use crate::Outcome;
use crate::args::Global;
use crate::output;
use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use durac_core::unit::{Unit, show};
use durac_simulate::Options;
use durac_simulate::device::Device;
use durac_simulate::fit::fit;
use durac_simulate::report::PolicyReport;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Find the fastest policy whose proved loss stays within limits, for a recorded application
///
/// Prints the text of a policy. Without limits it prints `always`.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  durac advise trace.json --at-most 20ms\n  durac advise trace.json \
                        --at-most 100updates --at-most 50ms --device cloud-volume -o policy.dur"
)]
pub struct Advise {
    /// A trace written by `durac record`, or `-` for standard input
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// The most that a power loss may take: `20ms`, `64syncs`, `100updates`, `64KiB`; can be repeated, and then each holds
    #[arg(long, value_name = "LIMIT", value_parser = limit)]
    at_most: Vec<Limit>,
    /// The device to simulate [default: the recorded one]
    #[arg(long, value_enum)]
    device: Option<DeviceArg>,
    /// Clients that wait for replies [default: the most commands in one turn of the event loop]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: Option<u32>,
    /// Write the policy here instead of printing it
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
}

/// The most that a power loss may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Syncs(u64),
    Updates(u64),
    Bytes(u64),
    /// Nanoseconds.
    Age(u64),
}

/// Reads `20ms`, `64syncs`, `100updates` or `64KiB`.
fn limit(text: &str) -> Result<Limit, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or(("", text));
    let unit = unit.trim();
    let scaled = |scale: u64| -> Result<u64, String> {
        let number: Option<u64> = number.parse().ok();
        number
            .and_then(|n| n.checked_mul(scale))
            .ok_or_else(|| "the number is too large".to_owned())
    };
    if digits > 0 {
        match unit {
            "sync" | "syncs" => return scaled(1).map(Limit::Syncs),
            "update" | "updates" => return scaled(1).map(Limit::Updates),
            "byte" | "bytes" | "B" => return scaled(1).map(Limit::Bytes),
            "KiB" => return scaled(1 << 10).map(Limit::Bytes),
            "MiB" => return scaled(1 << 20).map(Limit::Bytes),
            "GiB" => return scaled(1 << 30).map(Limit::Bytes),
            "command" | "commands" | "records" | "requests" => {
                return Err(format!(
                    "commands that change something are `updates`: `{number}updates`"
                ));
            }
            _ => {}
        }
    }
    let age = humantime::parse_duration(text).map_err(|_| {
        "write a time, or a number of updates, syncs or bytes: `20ms`, `100updates`, `64syncs`, `64KiB`"
            .to_owned()
    })?;
    match u64::try_from(age.as_nanos()) {
        Ok(age) if age > 0 => Ok(Limit::Age(age)),
        _ => Err("the time must be more than 0 and less than 500 years".to_owned()),
    }
}

/// The limits together.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    syncs: Option<u64>,
    updates: Option<u64>,
    bytes: Option<u64>,
    age: Option<u64>,
}

impl Limits {
    fn of(all: &[Limit]) -> Self {
        let mut limits = Self::default();
        let least = |old: Option<u64>, new| Some(old.map_or(new, |old| old.min(new)));
        for limit in all {
            match *limit {
                Limit::Syncs(n) => limits.syncs = least(limits.syncs, n),
                Limit::Updates(n) => limits.updates = least(limits.updates, n),
                Limit::Bytes(n) => limits.bytes = least(limits.bytes, n),
                Limit::Age(ns) => limits.age = least(limits.age, ns),
            }
        }
        limits
    }

    /// Whether a proved loss stays within them.
    fn allow(self, loss: &Lost) -> bool {
        let within = |limit: Option<u64>, bound: Option<u64>| {
            limit.is_none_or(|limit| bound.is_some_and(|bound| bound <= limit))
        };
        // What loses nothing is not old, and has no updates or bytes.
        loss.syncs == Some(0)
            || (within(self.syncs, loss.syncs)
                && within(self.updates, loss.updates)
                && within(self.bytes, loss.bytes)
                && within(self.age, loss.age_ns))
    }

    /// What a policy does before it acknowledges, so that the limits in updates and bytes hold.
    fn conditions(self) -> String {
        let updates = self.updates.map(|n| format!("if pending.updates > {n} {{ pass }}; "));
        let bytes = self.bytes.map(|n| format!("if pending.bytes > {n} bytes {{ pass }}; "));
        [updates, bytes].into_iter().flatten().collect()
    }

    /// The guarantees that say so.
    fn guarantees(self) -> String {
        let bound = |bound: String| format!("guarantee loss <= {bound} on power_loss\n");
        let updates = self.updates.map(|n| bound(format!("{n} updates")));
        let bytes = self.bytes.map(|n| bound(format!("{n} bytes")));
        [updates, bytes].into_iter().flatten().collect()
    }
}

/// What a power loss takes of one policy at most, as proved; `null` is any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Lost {
    /// Acknowledged syncs.
    syncs: Option<u64>,
    /// Updates, where they are bounded.
    updates: Option<u64>,
    /// Bytes, where they are bounded.
    bytes: Option<u64>,
    /// Age, nanoseconds.
    age_ns: Option<u64>,
}

/// The windows that are tried: those of a limit first.
const WINDOWS: [u64; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096];
/// What a policy may assume of a sync, nanoseconds: round figures.
const ASSUMED: [u64; 10] = [
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
];
/// The longest sync that is assumed is so many times the 99.9th percentile of the device.
const MARGIN: u64 = 2;
/// The deadline of a policy where no limit in time is given: the ready `window`'s.
const DEADLINE: u64 = 50_000_000;
/// Policies this much slower than another are no step towards safety or speed worth showing.
const WORTH: f64 = 1.02;

/// What can be told of one policy.
#[derive(Serialize)]
struct Told {
    text: String,
    #[serde(flatten)]
    lost: Lost,
    /// Simulated throughput: commands, or sync calls where commands are not known.
    per_second: f64,
    /// The same, relative to `always`.
    times_always: f64,
    #[serde(skip)]
    within: bool,
}

/// What `durac advise` prints as JSON.
#[derive(Serialize)]
struct Advice<'a> {
    version: u32,
    policy: &'a Told,
    next_safer: Option<&'a Told>,
    next_faster: Option<&'a Told>,
    device: String,
    notes: Vec<String>,
}

/// Simulates the candidates and prints the best that is within the limits.
pub fn run(args: &Advise, global: &Global) -> Result<Outcome> {
    if let Some(path) = &args.output {
        output::check_unread(path, [args.trace.as_path()])?;
        output::check_writable(path)?;
    }
    let limits = Limits::of(&args.at_most);
    let Some(trace) = simulate::read(&args.trace, global)? else { return Ok(Outcome::Wrong) };
    let recorded = simulate::recorded_policy(&trace);
    let fitted = fit(&trace, recorded.as_ref(), args.clients);
    let device = match args.device {
        None => fitted.device.clone(),
        Some(kind) => Device::preset(simulate::preset(kind)),
    };
    let longest = device.plain.quantile(0.999).max(device.growing.quantile(0.999));
    let Some(sync) = ASSUMED.into_iter().find(|&sync| sync >= longest.saturating_mul(MARGIN))
    else {
        return Err(output::exit(
            1,
            "syncs of this device can take longer than half a second: no bound in time can be promised",
        ));
    };
    let (shortest, tightest) = (show(sync, Unit::Duration), show(2 * sync, Unit::Duration));
    let facts = simulate::trace_facts(&args.trace, &trace, &fitted);
    let mut said = simulate::notes(&trace, recorded.as_ref(), &fitted, &facts);
    if limits.age.is_some_and(|age| age < 2 * sync) {
        said.push(format!(
            "a bound in time of less than {tightest} cannot be promised here: the policy assumes that a sync \
             takes at most {shortest}, {MARGIN} times the 99.9th percentile, and a deadline needs two syncs"
        ));
    }
    let texts = texts(limits, sync);
    let mut candidates = Candidates::default();
    for text in &texts {
        candidates.text(text)?;
    }
    if limits.updates.is_some()
        && simulate::misses_any_updates(&fitted.application, &candidates.all)
    {
        return Err(output::exit(
            1,
            "the recording does not say how many updates its writes hold: record a Redis with several clients, say \
             how many it had (`--clients`), or give the limit in syncs, bytes or time",
        ));
    }
    let options = Options { seed: 1, crashes: Some(0) };
    let reports = simulate::all(&fitted, &device, &candidates.all, options)?;
    let told = tell(texts, &candidates.all, &reports, limits)?;
    let Some(best) = fastest(told.iter().filter(|told| told.within)) else {
        return Err(output::exit(2, "this is a bug in durac: `always` loses something"));
    };
    let advice = Advice {
        version: 1,
        policy: best,
        next_safer: fastest(told.iter().filter(|t| safer(t, best))),
        next_faster: told
            .iter()
            .filter(|t| t.per_second > best.per_second * WORTH)
            .min_by(|a, b| a.per_second.total_cmp(&b.per_second)),
        device: device.name.clone(),
        notes: said,
    };
    print(&advice, args, global)?;
    Ok(Outcome::Fine)
}

/// Policies of every form, those at the limits included.
fn texts(limits: Limits, sync: u64) -> Vec<String> {
    let mut texts = vec![
        "policy advised\ntarget redis.aof\nguarantee loss = 0 on power_loss\non fdatasync: pass\n"
            .to_owned(),
    ];
    let mut deadlines = vec![DEADLINE.max(2 * sync)];
    deadlines.extend(limits.age.filter(|&age| age >= 2 * sync));
    deadlines.sort_unstable();
    deadlines.dedup();
    let mut windows = WINDOWS.to_vec();
    windows.extend(limits.syncs.filter(|n| (1..=1_000_000).contains(n)));
    windows.sort_unstable();
    windows.dedup();
    let (conditions, guarantees) = (limits.conditions(), limits.guarantees());
    for deadline in deadlines {
        let within = show(deadline, Unit::Duration);
        let assume = show(sync, Unit::Duration);
        let head =
            format!("policy advised\ntarget redis.aof\n{guarantees}assume sync <= {assume}\n");
        let time = format!("guarantee loss <= {within} on power_loss\n");
        let flush = format!("flush within {within}\n");
        for &n in &windows {
            texts.push(format!(
                "{head}guarantee loss <= {n} syncs on power_loss\n{time}{}{flush}",
                body(&conditions, &format!("await pending < {n}; defer"))
            ));
        }
        texts.push(format!("{head}{time}{}{flush}", body(&conditions, "skip")));
        if !conditions.is_empty() {
            texts.push(format!("{head}{time}{}{flush}", body(&conditions, "defer")));
        }
    }
    texts
}

/// A hook: on one line without conditions.
fn body(conditions: &str, then: &str) -> String {
    if conditions.is_empty() {
        return format!("on fdatasync: {then}\n");
    }
    let lines = conditions.trim_end_matches("; ").split("; ").chain(then.split("; "));
    let lines: String = lines.map(|line| format!("    {line}\n")).collect();
    format!("on fdatasync {{\n{lines}}}\n")
}

fn tell(
    texts: Vec<String>,
    candidates: &[Candidate],
    reports: &[PolicyReport],
    limits: Limits,
) -> Result<Vec<Told>> {
    let speed = |r: &PolicyReport| r.commands_per_second.unwrap_or(r.calls_per_second);
    let always = reports.first().map(speed).context("nothing was simulated")?;
    let told = texts.into_iter().zip(candidates.iter().zip(reports));
    Ok(told
        .map(|(text, (candidate, report))| {
            let lost = candidate.proved.as_ref().map_or_else(Lost::default, |p| Lost {
                syncs: p.syncs,
                updates: p.updates,
                bytes: p.bytes,
                age_ns: p.within,
            });
            let per_second = speed(report);
            Told {
                text,
                lost,
                per_second,
                times_always: per_second / always.max(1e-9),
                within: limits.allow(&lost),
            }
        })
        .collect())
}

/// The fastest; of those that are about as fast, the first, which loses less.
fn fastest<'a>(told: impl Iterator<Item = &'a Told>) -> Option<&'a Told> {
    told.reduce(|best, next| if next.per_second > best.per_second * WORTH { next } else { best })
}

/// Whether `a` loses less than `b` in syncs, and not more in time.
fn safer(a: &Told, b: &Told) -> bool {
    let (a, b) = (a.lost, b.lost);
    let less = match (a.syncs, b.syncs) {
        (Some(a), Some(b)) => a < b,
        (a, b) => a.is_some() && b.is_none(),
    };
    less && (a.syncs == Some(0) || a.age_ns.unwrap_or(u64::MAX) <= b.age_ns.unwrap_or(u64::MAX))
}

/// `at most 64 syncs, none older than 50ms`.
fn bound(told: &Told) -> String {
    let Lost { syncs, updates, bytes, age_ns } = told.lost;
    if syncs == Some(0) {
        return "nothing".to_owned();
    }
    let counted = |n: u64, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    let counts = [
        syncs.map(|n| counted(n, "sync")),
        updates.map(|n| counted(n, "update")),
        bytes.map(|n| show(n, Unit::Bytes)),
    ];
    let counts = counts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    match (counts.is_empty(), age_ns.map(|age| show(age, Unit::Duration))) {
        (false, Some(age)) => format!("at most {counts}, none older than {age}"),
        (false, None) => format!("at most {counts}"),
        (true, Some(age)) => format!("at most the last {age}"),
        (true, None) => "any number of syncs".to_owned(),
    }
}

fn print(advice: &Advice<'_>, args: &Advise, global: &Global) -> Result<()> {
    for note in &advice.notes {
        output::stderr(&format!("durac: {note}\n"));
    }
    if let Some(path) = &args.output {
        output::write_atomically(path, advice.policy.text.as_bytes(), 0o644)?;
    }
    if global.is_json() {
        return global.document.put(advice);
    }
    let mut out = String::new();
    let mut line = |what: &str, told: &Told| {
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "// {what}: a power loss takes {}; {:.2} × the throughput of `always`, simulated on {}{}",
            bound(told),
            told.times_always,
            if advice.device == "as recorded" { "the device " } else { "" },
            advice.device
        );
    };
    line("this policy", advice.policy);
    if let Some(told) = advice.next_safer {
        line("the next safer", told);
    }
    if let Some(told) = advice.next_faster {
        line("the next faster", told);
    }
    match &args.output {
        Some(_) => output::stderr(&out.replace("// ", "durac: ")),
        None => output::stdout((out + &advice.policy.text).as_bytes())?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Limit, Limits, Lost, limit, texts};

    #[test]
    fn limits_are_read() {
        assert_eq!(limit("20ms"), Ok(Limit::Age(20_000_000)));
        assert_eq!(limit("1 sync"), Ok(Limit::Syncs(1)));
        assert_eq!(limit("64syncs"), Ok(Limit::Syncs(64)));
        assert_eq!(limit("100updates"), Ok(Limit::Updates(100)));
        assert_eq!(limit("64KiB"), Ok(Limit::Bytes(65536)));
        for wrong in
            ["", "20", "ms", "64 commands", "0s", "-1ms", "99999999999999999999syncs", "syncs"]
        {
            assert!(limit(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_limit_holds() {
        let lost = |syncs, age_ns| Lost { syncs, age_ns, ..Lost::default() };
        let limits = Limits::of(&[Limit::Syncs(64), Limit::Age(50), Limit::Syncs(8)]);
        assert!(limits.allow(&lost(Some(8), Some(50))) && limits.allow(&lost(Some(0), None)));
        assert!(!limits.allow(&lost(Some(9), Some(50))) && !limits.allow(&lost(Some(8), Some(51))));
        assert!(!limits.allow(&lost(None, Some(50))) && !limits.allow(&lost(Some(8), None)));
        assert!(Limits::default().allow(&lost(None, None)));
        let limits = Limits::of(&[Limit::Updates(100), Limit::Bytes(1000)]);
        let counted = Lost { updates: Some(100), bytes: Some(1000), ..Lost::default() };
        assert!(limits.allow(&counted));
        assert!(!limits.allow(&Lost { updates: None, ..counted }));
        assert!(!limits.allow(&Lost { bytes: Some(1001), ..counted }));
    }

    #[test]
    fn the_limits_are_among_the_candidates() {
        let limits =
            Limits { syncs: Some(100), age: Some(30_000_000), updates: Some(7), bytes: Some(9) };
        let texts = texts(limits, 5_000_000);
        for part in [
            "await pending < 100\n",
            "flush within 30ms",
            "assume sync <= 5ms",
            "if pending.updates > 7 { pass }\n",
            "guarantee loss <= 9 bytes on power_loss",
        ] {
            assert!(texts.iter().any(|text| text.contains(part)), "{part}");
        }
    }
}
