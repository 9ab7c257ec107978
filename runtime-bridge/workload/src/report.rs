//! What a bench found: the shape of its JSON, and its table.
//!
//! The JSON is the serde form of [`Report`]: one object; names as here; numbers plain; what is
//! unknown is `null`. [`VERSION`] changes when a field changes its meaning or goes away.

use crate::bench::{Load, Mode, Workload};
use crate::error::{Result, Trying};
use crate::machine::Machine;
pub use crate::stats::Spread;
use crate::table;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// Version of the JSON.
pub const VERSION: u32 = 1;

/// One load, measured once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Requests (or records) per second.
    pub rps: f64,
    /// Median latency of a request, milliseconds.
    pub p50_ms: f64,
    /// Latency that one request in a hundred exceeds, milliseconds.
    pub p99_ms: f64,
    /// Greatest latency, milliseconds.
    pub max_ms: f64,
}

/// The result of a bench.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// What was run.
    pub workload: Workload,
    /// When it began, seconds since 1970.
    pub started: u64,
    /// How long it took, seconds.
    pub seconds: f64,
    /// Where.
    pub machine: Machine,
    /// Rounds asked for; a row says how many it has.
    pub rounds: u32,
    /// Requests per measurement, to be multiplied by the load's pipeline.
    pub requests: u64,
    /// Number of different keys.
    pub keyspace: u64,
    /// Commands in a hundred that read; `null` if all write.
    #[serde(default)]
    pub reads: Option<u8>,
    /// Why it ended before all rounds were measured; `null` if it did not.
    pub stopped: Option<String>,
    /// The result: by load, then by mode, in the order they were given.
    pub rows: Vec<Row>,
    /// What the rows are made from, in the order it was measured.
    pub samples: Vec<Sample>,
}

/// One mode under one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The load.
    pub load: Load,
    /// Name of the mode.
    pub mode: String,
    /// What can be lost on power loss, as stated by the mode.
    pub stated_loss: String,
    /// Most acknowledged syncs that a power loss takes: what is proved of a policy; `null` if there is
    /// no bound.
    #[serde(default)]
    pub bound: Option<u64>,
    /// Number of measurements.
    pub samples: usize,
    /// Requests per second.
    pub rps: Spread,
    /// Requests per second, divided by those of `always` in the same round.
    pub to_always: Option<Spread>,
    /// Requests per second, divided by those of `everysec` in the same round.
    pub to_everysec: Option<Spread>,
    /// Median of the median latencies, milliseconds.
    pub p50_ms: f64,
    /// Median of the 99% latencies, milliseconds.
    pub p99_ms: f64,
    /// Greatest latency seen, milliseconds.
    pub max_ms: f64,
    /// Syncs of the log per second; without a policy those of a run of its own, in which a policy that
    /// passes every call counts them; `null` if they were not counted.
    pub syncs_per_second: Option<Spread>,
    /// Most syncs ever acknowledged and not durable; `null` without a policy.
    pub max_pending: Option<u64>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The round, counted from 1.
    pub round: u32,
    /// The load.
    pub load: Load,
    /// Name of the mode.
    pub mode: String,
    /// The figures.
    #[serde(flatten)]
    pub measured: Measured,
    /// Syncs of the log per second; `null` without a policy.
    pub syncs_per_second: Option<f64>,
    /// Most syncs ever acknowledged and not durable; `null` without a policy.
    pub max_pending: Option<u64>,
}

impl Row {
    /// Puts the samples of one mode under one load together; `None` if there are none.
    #[must_use]
    pub(crate) fn new(samples: &[Sample], load: Load, mode: &Mode) -> Option<Self> {
        let of = |mode: &str| -> Vec<&Sample> {
            samples.iter().filter(|s| s.load == load && s.mode == mode).collect()
        };
        let mine = of(&mode.name);
        let ratio_to = |other: &str| {
            let others = of(other);
            Spread::of(mine.iter().filter_map(|sample| {
                let other = others.iter().find(|other| other.round == sample.round)?;
                (other.measured.rps > 0.0).then(|| sample.measured.rps / other.measured.rps)
            }))
        };
        let spread = |f: fn(&Measured) -> f64| Spread::of(mine.iter().map(|s| f(&s.measured)));
        Some(Self {
            load,
            mode: mode.name.clone(),
            stated_loss: mode.stated_loss.clone(),
            bound: mode.bound,
            samples: mine.len(),
            rps: spread(|m| m.rps)?,
            to_always: ratio_to("always"),
            to_everysec: ratio_to("everysec"),
            p50_ms: spread(|m| m.p50_ms)?.median,
            p99_ms: spread(|m| m.p99_ms)?.median,
            max_ms: spread(|m| m.max_ms)?.max,
            syncs_per_second: Spread::of(mine.iter().filter_map(|s| s.syncs_per_second)),
            max_pending: mine.iter().filter_map(|s| s.max_pending).max(),
        })
    }
}

impl Row {
    /// Sets the syncs of a mode that no policy counts.
    pub(crate) fn count_syncs(&mut self, per_second: Option<f64>) {
        self.syncs_per_second = Spread::of(per_second);
    }
}

/// A row of the CSV.
#[derive(Serialize)]
struct Line<'a> {
    mode: &'a str,
    clients: u32,
    pipeline: u32,
    rounds: usize,
    requests_per_second: f64,
    requests_per_second_min: f64,
    requests_per_second_max: f64,
    times_always: Option<f64>,
    times_everysec: Option<f64>,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    syncs_per_second: Option<f64>,
    most_seen_at_risk_syncs: Option<u64>,
    bound_syncs: Option<u64>,
    stated_loss: &'a str,
}

impl<'a> Line<'a> {
    fn new(row: &'a Row) -> Self {
        let median = |spread: Option<Spread>| spread.map(|spread| spread.median);
        Self {
            mode: &row.mode,
            clients: row.load.clients,
            pipeline: row.load.pipeline,
            rounds: row.samples,
            requests_per_second: row.rps.median,
            requests_per_second_min: row.rps.min,
            requests_per_second_max: row.rps.max,
            times_always: median(row.to_always),
            times_everysec: median(row.to_everysec),
            p50_ms: row.p50_ms,
            p99_ms: row.p99_ms,
            max_ms: row.max_ms,
            syncs_per_second: median(row.syncs_per_second),
            most_seen_at_risk_syncs: row.max_pending,
            bound_syncs: row.bound,
            stated_loss: &row.stated_loss,
        }
    }
}

impl Report {
    /// The report as a table with the facts above it, for a terminal of any width.
    #[must_use]
    pub fn table(&self) -> String {
        table::render(self)
    }

    /// The rows as CSV (RFC 4180): a line of titles, then a line for each mode under each load. What
    /// is unknown is empty.
    ///
    /// # Errors
    /// If there is no memory left for it.
    pub fn csv(&self) -> Result<Vec<u8>> {
        let what = || "make the CSV".to_owned();
        let mut out = csv::Writer::from_writer(Vec::new());
        for row in &self.rows {
            out.serialize(Line::new(row)).map_err(std::io::Error::other).trying(what)?;
        }
        out.into_inner().map_err(|error| error.into_error()).trying(what)
    }

    /// The report as JSON.
    ///
    /// # Errors
    /// If there is no memory left for it.
    pub fn json(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_vec_pretty(self).map_err(std::io::Error::other);
        let mut json = json.trying(|| "make the JSON".into())?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads a file of what [`Report::json`] answers.
    ///
    /// # Errors
    /// If the file cannot be read, or is of another version.
    pub fn read_json(path: &Path) -> Result<Self> {
        let what = || format!("read {}", path.display());
        let bytes = fs::read(path).trying(what)?;
        serde_json::from_slice(&bytes).map_err(std::io::Error::other).trying(what)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn sample(round: u32, mode: &str, rps: f64) -> Sample {
        Sample {
            round,
            load: Load { clients: 5, pipeline: 1 },
            mode: mode.to_owned(),
            measured: Measured { rps, p50_ms: 0.5, p99_ms: 1.0, max_ms: rps / 1000.0 },
            syncs_per_second: (mode == "window").then_some(rps / 10.0),
            max_pending: (mode == "window").then_some(60 + u64::from(round)),
        }
    }

    /// A report of two rounds, the second of them cut short.
    pub(crate) fn example() -> Report {
        let samples = vec![
            sample(1, "always", 9000.0),
            sample(1, "window", 45000.0),
            sample(2, "window", 40000.0),
            sample(2, "always", 10000.0),
            sample(3, "always", 11000.0),
        ];
        let load = Load { clients: 5, pipeline: 1 };
        let window = Mode::policy("window", "window", Vec::new(), "64 syncs, 50 ms", Some(64));
        let modes = [Mode { stated_loss: "nothing".into(), ..Mode::always() }, window];
        let rows = modes.iter().map(|mode| Row::new(&samples, load, mode).unwrap()).collect();
        Report {
            version: VERSION,
            workload: Workload::Redis,
            started: 1,
            seconds: 2.5,
            machine: Machine {
                cpu: "Some CPU".into(),
                cores: 2,
                kernel: "6.1.0".into(),
                file_system: "ext4".into(),
                device: "/dev/vda".into(),
                fdatasync_us: 124.4,
                redis: Some("7.0.15".into()),
                load: 0.25,
            },
            rounds: 3,
            requests: 100_000,
            keyspace: 100_000_000,
            reads: None,
            stopped: Some("interrupted".into()),
            rows,
            samples,
        }
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let report = example();
        let [always, window] = report.rows.as_slice() else { panic!("{report:?}") };
        assert_eq!(always.to_always, Some(Spread { median: 1.0, min: 1.0, max: 1.0 }));
        assert_eq!(window.to_always, Some(Spread { median: 4.5, min: 4.0, max: 5.0 }));
        assert_eq!((window.to_everysec, window.max_pending), (None, Some(62)));
        assert_eq!((always.samples, window.samples), (3, 2));
    }

    #[test]
    fn a_mode_without_samples_has_no_row() {
        let report = example();
        assert_eq!(
            Row::new(&report.samples, Load { clients: 50, pipeline: 1 }, &Mode::always()),
            None
        );
    }

    #[test]
    fn the_csv() {
        let csv = String::from_utf8(example().csv().unwrap()).unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert!(lines[0].starts_with("mode,clients,pipeline,rounds,requests_per_second,"), "{csv}");
        assert_eq!(
            lines[1..],
            [
                "always,5,1,3,10000.0,9000.0,11000.0,1.0,,0.5,1.0,11.0,,,0,nothing",
                "window,5,1,2,42500.0,40000.0,45000.0,4.5,,0.5,1.0,45.0,4250.0,62,64,\"64 syncs, 50 ms\"",
            ]
        );
    }

    #[test]
    fn json_round_trips() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bench.json");
        let report = example();
        fs::write(&path, report.json().unwrap()).unwrap();
        assert_eq!(Report::read_json(&path).unwrap(), report);
    }
}
