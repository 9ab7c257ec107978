//! What a bench found: the shape of its JSON, and its table.
//!
//! The JSON is the serde form of [`Report`]: one object; names as here; numbers plain; what is
//! unknown is `null`. [`VERSION`] changes when a field changes its meaning or goes away.

use crate::bench::{Load, Workload};
use crate::error::{Result, Trying};
use crate::machine::Machine;
pub use crate::stats::Spread;
use crate::table;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
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
    /// Syncs of the log per second; `null` without a policy.
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
    pub(crate) fn new(
        samples: &[Sample],
        load: Load,
        mode: &str,
        stated_loss: &str,
    ) -> Option<Self> {
        let of = |mode: &str| -> Vec<&Sample> {
            samples.iter().filter(|s| s.load == load && s.mode == mode).collect()
        };
        let mine = of(mode);
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
            mode: mode.to_owned(),
            stated_loss: stated_loss.to_owned(),
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

impl Report {
    /// The report as a table with the facts above it, for a terminal of any width.
    #[must_use]
    pub fn table(&self) -> String {
        table::render(self)
    }

    /// Writes the report as JSON, whole or not at all: a reader never sees half of it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        let what = || format!("write {}", path.display());
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let mut json =
            serde_json::to_vec_pretty(self).map_err(std::io::Error::other).trying(what)?;
        json.push(b'\n');
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(dir.unwrap_or(Path::new(".")))
            .trying(what)?;
        file.write_all(&json).trying(what)?;
        file.persist(path).map_err(|error| error.error).trying(what)?;
        Ok(())
    }

    /// Reads what [`Report::write_json`] wrote.
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
        let row = |mode, loss| Row::new(&samples, load, mode, loss).unwrap();
        let rows = vec![row("always", "nothing"), row("window", "64 syncs, 50 ms")];
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
            Row::new(&report.samples, Load { clients: 50, pipeline: 1 }, "always", ""),
            None
        );
    }

    #[test]
    fn json_round_trips_and_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bench.json");
        fs::write(&path, "old").unwrap();
        let report = example();
        report.write_json(&path).unwrap();
        assert_eq!(Report::read_json(&path).unwrap(), report);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(report.write_json(&dir.path().join("no/such/dir.json")).is_err());
    }
}
