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
    /// Latency that 1 % of the requests exceed, milliseconds.
    pub p99_ms: f64,
    /// Greatest latency, milliseconds.
    pub max_ms: f64,
    /// The writes of other clients at the same time, if they were measured apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes: Option<Writes>,
}

/// What clients that only write have seen beside those that only read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Writes {
    /// Requests per second.
    pub per_second: f64,
    /// Median latency, milliseconds.
    pub median_ms: f64,
    /// Latency that 1 % exceed, milliseconds.
    pub slow_ms: f64,
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
    /// Rounds requested; a row says how many it has.
    pub rounds: u32,
    /// Requests per measurement, to be multiplied by the load's pipeline.
    pub requests: u64,
    /// Number of different keys.
    pub keyspace: u64,
    /// Percentage of commands that read; `null` if all write.
    #[serde(default)]
    pub reads: Option<u8>,
    /// Clients that only write, beside those of the load, which only read; `null` if all do both.
    #[serde(default)]
    pub writers: Option<u32>,
    /// How long a sync takes at least, milliseconds; `null` if as long as the device needs.
    #[serde(default)]
    pub sync_ms: Option<f64>,
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
    /// What runs its policy: `thread`, `io_uring` or `supervisor`; `null` without a policy, or if the policy's target
    /// chooses.
    #[serde(default)]
    pub engine: Option<String>,
    /// What can be lost on power loss, as stated by the mode.
    pub stated_loss: String,
    /// Most acknowledged syncs that a power loss takes: what is proved of a policy; `null` if there is
    /// no bound.
    #[serde(default)]
    pub bound: Option<u64>,
    /// Most of them of which a client can have seen something: 0 if replies are held.
    #[serde(default)]
    pub bound_to_clients: Option<u64>,
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
    /// The writes of other clients; medians.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes: Option<Writes>,
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
            engine: mode.policy.as_ref().and_then(|policy| policy.engine.clone()),
            stated_loss: mode.stated_loss.clone(),
            bound: mode.bound,
            bound_to_clients: mode.bound_to_clients,
            samples: mine.len(),
            rps: spread(|m| m.rps)?,
            to_always: ratio_to("always"),
            to_everysec: ratio_to("everysec"),
            p50_ms: spread(|m| m.p50_ms)?.median,
            p99_ms: spread(|m| m.p99_ms)?.median,
            max_ms: spread(|m| m.max_ms)?.max,
            writes: Writes::median(&mine),
            syncs_per_second: Spread::of(mine.iter().filter_map(|s| s.syncs_per_second)),
            max_pending: mine.iter().filter_map(|s| s.max_pending).max(),
        })
    }
}

impl Writes {
    /// The medians of samples.
    fn median(samples: &[&Sample]) -> Option<Self> {
        let of = |value: fn(&Self) -> f64| {
            let values = samples.iter().filter_map(|sample| sample.measured.writes.as_ref());
            Spread::of(values.map(value)).map(|spread| spread.median)
        };
        Some(Self {
            per_second: of(|w| w.per_second)?,
            median_ms: of(|w| w.median_ms)?,
            slow_ms: of(|w| w.slow_ms)?,
        })
    }
}

impl Report {
    /// What its rounds leave open, a sentence for each row that they do.
    #[must_use]
    pub fn too_wide(&self) -> Vec<String> {
        let wide = self.rows.iter().filter_map(|row| Some((row, row.too_wide()?)));
        wide.map(|(row, (least, greatest))| {
            let of = if row.to_always.is_some() { "×always" } else { "req/s" };
            let range = format!("{of} from {least:.2} to {greatest:.2}");
            format!("{}, {}: {range} in its rounds: too wide to conclude", row.mode, row.load)
        })
        .collect()
    }
}

/// Rounds whose ratios lie further apart, relative to the least, do not say how large a difference is.
const WIDE: f64 = 0.3;

impl Row {
    /// The ratios of the rounds, if they lie too far apart to conclude from: the least and the greatest.
    #[must_use]
    pub fn too_wide(&self) -> Option<(f64, f64)> {
        let spread = self.to_always.unwrap_or(self.rps);
        (spread.max > spread.min * (1.0 + WIDE)).then_some((spread.min, spread.max))
    }

    /// Sets the syncs of a mode that no policy counts.
    pub(crate) fn count_syncs(&mut self, per_second: Option<f64>) {
        self.syncs_per_second = Spread::of(per_second);
    }
}

/// The columns of the CSV.
const COLUMNS: [&str; 20] = [
    "mode",
    "clients",
    "pipeline",
    "rounds",
    "requests_per_second",
    "requests_per_second_min",
    "requests_per_second_max",
    "times_always",
    "times_everysec",
    "p50_ms",
    "p99_ms",
    "max_ms",
    "syncs_per_second",
    "most_seen_at_risk_syncs",
    "bound_syncs",
    "bound_to_clients_syncs",
    "stated_loss",
    "writes_per_second",
    "writes_p50_ms",
    "writes_p99_ms",
];

/// The fields of a row of the CSV.
fn fields(row: &Row) -> [String; COLUMNS.len()] {
    // As Debug prints them, floating-point numbers always have a point.
    let float = |value: f64| format!("{value:?}");
    let median = |spread: Option<Spread>| spread.map(|s| float(s.median)).unwrap_or_default();
    let writes = |value: fn(&Writes) -> f64| {
        row.writes.as_ref().map(|writes| float(value(writes))).unwrap_or_default()
    };
    let count = |count: Option<u64>| count.map(|n| n.to_string()).unwrap_or_default();
    [
        quoted(&row.mode),
        row.load.clients.to_string(),
        row.load.pipeline.to_string(),
        row.samples.to_string(),
        float(row.rps.median),
        float(row.rps.min),
        float(row.rps.max),
        median(row.to_always),
        median(row.to_everysec),
        float(row.p50_ms),
        float(row.p99_ms),
        float(row.max_ms),
        median(row.syncs_per_second),
        count(row.max_pending),
        count(row.bound),
        count(row.bound_to_clients),
        quoted(&row.stated_loss),
        writes(|w| w.per_second),
        writes(|w| w.median_ms),
        writes(|w| w.slow_ms),
    ]
}

/// Text as a field of a CSV.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

impl Report {
    /// The report as a table with the facts above it, for a terminal of any width.
    #[must_use]
    pub fn table(&self) -> String {
        table::render(self)
    }

    /// The rows as CSV (RFC 4180, with plain line ends): a line of titles, then a line for each mode under
    /// each load. What is unknown is empty.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut out = COLUMNS.join(",") + "\n";
        for row in &self.rows {
            out += &fields(row).join(",");
            out.push('\n');
        }
        out
    }

    /// The report as JSON.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn json(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_vec_pretty(self).map_err(std::io::Error::other);
        let mut json = json.trying(|| "make the JSON".into())?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads a file of what [`Report::json`] returns.
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
            measured: Measured {
                rps,
                p50_ms: 0.5,
                p99_ms: 1.0,
                max_ms: rps / 1000.0,
                writes: None,
            },
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
            writers: None,
            sync_ms: None,
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
        let csv = example().csv();
        let lines: Vec<&str> = csv.lines().collect();
        assert!(lines[0].starts_with("mode,clients,pipeline,rounds,requests_per_second,"), "{csv}");
        assert_eq!(
            lines[1..],
            [
                "always,5,1,3,10000.0,9000.0,11000.0,1.0,,0.5,1.0,11.0,,,0,0,nothing,,,",
                "window,5,1,2,42500.0,40000.0,45000.0,4.5,,0.5,1.0,45.0,4250.0,62,64,64,\"64 syncs, 50 ms\",,,",
            ]
        );
    }

    #[test]
    fn text_is_quoted_where_it_must_be() {
        assert_eq!(quoted("window n=16"), "window n=16");
        assert_eq!(quoted("64 syncs, 50 ms"), "\"64 syncs, 50 ms\"");
        assert_eq!(quoted("a \"b\"\n"), "\"a \"\"b\"\"\n\"");
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
