//! Many configurations, measured in interleaved rounds.
//!
//! A machine's speed drifts, so each round measures every mode once, back to back, in another
//! order than the round before, and modes are compared within a round only. Every measurement has
//! a server, a directory and a log of its own: none inherits what another left.

use crate::append_log::{self, Options, Sync};
use crate::asked::{Asked, Asks};
use crate::crash::sync_library;
use crate::error::{Error, Result, Trying};
use crate::machine::{Machine, is_volatile};
use crate::mix::{beside, mix};
use crate::progress::Progress;
use crate::redis::{Redis, RedisConfig};
use crate::redis_benchmark::redis_benchmark;
use crate::report::{Measured, Report, Row, Sample, VERSION};
use crate::status::Page;
use crate::sys;
use durac_disk::{Image, Mounted, Plan};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Requests before each measurement, as a share of the measured ones: connections, page cache and
/// allocator are warm then.
const WARM_UP_SHARE: u64 = 20;
/// The policy that counts and changes nothing.
const PASSES: &str = "always";
/// Between two looks for the status page of a process that has just started.
const LOOK: Duration = Duration::from_millis(2);

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// redis-server, driven by redis-benchmark.
    Redis,
    /// redis-server, driven by [`mix`].
    Mix,
    /// `durac-append-log`, see [`append_log`].
    AppendLog,
}

/// How hard it is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Connections; writers of the append log.
    pub clients: u32,
    /// Requests that a client sends at once; records between two syncs of the append log.
    pub pipeline: u32,
}

impl Load {
    /// Every number of clients with every depth of pipeline.
    #[must_use]
    pub fn cross(clients: &[u32], pipeline: &[u32]) -> Vec<Self> {
        let with = |&pipeline| clients.iter().map(move |&clients| Self { clients, pipeline });
        pipeline.iter().flat_map(with).collect()
    }
}

/// As the options of redis-benchmark: `-c 50 -P 16`.
impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-c {}", self.clients)?;
        if self.pipeline == 1 { Ok(()) } else { write!(f, " -P {}", self.pipeline) }
    }
}

/// `50` or `50x16`.
impl FromStr for Load {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (clients, pipeline) = text.split_once('x').unwrap_or((text, "1"));
        match (clients.parse(), pipeline.parse()) {
            (Ok(clients), Ok(pipeline)) if clients > 0 && pipeline > 0 => {
                Ok(Self { clients, pipeline })
            }
            _ => Err(Error::Config(format!(
                "invalid load `{text}`: expected CLIENTS or CLIENTSxPIPELINE, as 50x16"
            ))),
        }
    }
}

/// A policy, as `durac run` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A file, or the name of a policy of the standard library.
    pub file: PathBuf,
    /// Parameters and their values.
    pub sets: Vec<(String, String)>,
    /// What runs it, and writes staged bytes, if that is chosen.
    pub engine: Option<String>,
}

impl Policy {
    /// Its words on the command line of `durac run`.
    #[must_use]
    pub fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![self.file.clone().into()];
        for (name, value) in &self.sets {
            words.extend(["--set".into(), format!("{name}={value}").into()]);
        }
        if let Some(engine) = &self.engine {
            words.extend(["--engine".into(), engine.into()]);
        }
        words
    }
}

/// One configuration of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Its name in the table; no two modes of a bench have the same.
    pub name: String,
    /// `always`, `everysec` or `no`; `None` without a log.
    pub appendfsync: Option<String>,
    /// The policy it runs under, if any.
    pub policy: Option<Policy>,
    /// Whether `durac record` runs it, instead of `durac run`.
    pub recorded: bool,
    /// What can be lost on power loss, in words.
    pub stated_loss: String,
    /// Most acknowledged syncs that a power loss can lose; `None` without a bound.
    pub bound: Option<u64>,
    /// Most of them of which a client can have seen something: 0 if replies are held.
    pub bound_to_clients: Option<u64>,
}

impl Mode {
    /// Redis' own `appendfsync always`; ratios are to this.
    #[must_use]
    pub fn always() -> Self {
        Self::own("always", Some("always"), "nothing acknowledged").bounded(Some(0))
    }

    /// Redis' own `appendfsync everysec`.
    #[must_use]
    pub fn everysec() -> Self {
        // Redis lets a slow sync take up to two seconds before it blocks.
        Self::own("everysec", Some("everysec"), "1 s of writes, 2 s if the disk is slow")
    }

    /// Redis' own `appendfsync no`.
    #[must_use]
    pub fn no() -> Self {
        // The kernel writes back what is older than 30 s (`vm.dirty_expire_centisecs`).
        Self::own("no", Some("no"), "some 30 s of writes")
    }

    /// Redis without a log.
    #[must_use]
    pub fn no_log() -> Self {
        Self::own("no log", None, "everything")
    }

    /// A policy, on top of `appendfsync always`.
    #[must_use]
    pub fn policy(
        name: &str,
        file: impl Into<PathBuf>,
        sets: Vec<(String, String)>,
        stated_loss: &str,
        bound: Option<u64>,
    ) -> Self {
        let policy = Some(Policy { file: file.into(), sets, engine: None });
        Self { policy, ..Self::own(name, Some("always"), stated_loss).bounded(bound) }
    }

    /// The same with this bound, and clients that can see all that it takes.
    fn bounded(self, bound: Option<u64>) -> Self {
        Self { bound, bound_to_clients: bound, ..self }
    }

    /// The same policy, recorded.
    #[must_use]
    pub fn recorded(&self) -> Self {
        Self { name: format!("{}, recorded", self.name), recorded: true, ..self.clone() }
    }

    fn own(name: &str, appendfsync: Option<&str>, stated_loss: &str) -> Self {
        Self {
            name: name.to_owned(),
            appendfsync: appendfsync.map(str::to_owned),
            policy: None,
            recorded: false,
            stated_loss: stated_loss.to_owned(),
            bound: None,
            bound_to_clients: None,
        }
    }
}

/// A bench.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What is run.
    pub workload: Workload,
    /// The executable `durac`, with the agent beside it.
    pub durac: PathBuf,
    /// The server's program; `redis-server` on `PATH` if `None`. Its benchmark is the one beside it.
    pub server: Option<PathBuf>,
    /// What is compared. With one called `always` in it, ratios are shown.
    pub modes: Vec<Mode>,
    /// The loads, each with a table of its own.
    pub loads: Vec<Load>,
    /// Rounds; at least three, so that a median means something.
    pub rounds: u32,
    /// Requests per measurement, to be multiplied by the load's pipeline.
    pub requests: u64,
    /// Number of different keys.
    pub keyspace: u64,
    /// Percentage of reads, of [`Workload::Mix`].
    pub reads: u8,
    /// Clients of [`Workload::Mix`] that only write; those of the load only read then.
    pub writers: Option<u32>,
    /// How long a sync takes: the logs are on a disk in memory then, by FUSE.
    pub sync_takes: Option<Duration>,
    /// Where the logs are; a place that is not in memory if `None`.
    pub dir: Option<PathBuf>,
}

impl Default for Config {
    /// The case study's loads on Redis, three rounds, only the baselines.
    fn default() -> Self {
        Self {
            workload: Workload::Redis,
            durac: "durac".into(),
            server: None,
            modes: vec![Mode::always(), Mode::everysec()],
            loads: vec![
                Load { clients: 5, pipeline: 1 },
                Load { clients: 50, pipeline: 1 },
                Load { clients: 50, pipeline: 16 },
            ],
            rounds: 3,
            requests: 100_000,
            keyspace: 100_000_000,
            reads: 50,
            writers: None,
            sync_takes: None,
            dir: None,
        }
    }
}

/// Measures, and shows on stderr how far it is.
///
/// When the user interrupts (SIGINT, SIGTERM), or a measurement fails, after something was
/// measured, the report holds that much and says in [`Report::stopped`] why there is no more.
///
/// # Errors
/// If the configuration makes no sense, or nothing could be measured.
pub fn run(config: &Config) -> Result<Report> {
    config.check()?;
    sys::catch_interrupts();
    let dir = config.dir.clone().unwrap_or_else(default_dir);
    let started = SystemTime::now();
    let clock = Instant::now();
    let server = config.server.clone().unwrap_or_else(|| "redis-server".into());
    let machine = Machine::look(&dir, &server)?;
    let mut samples = Vec::new();
    let mut stopped = None;
    let mut progress = Progress::new(config.modes.len() * config.loads.len(), config.rounds);
    for (round, load, mode) in config.schedule() {
        progress.begin(round, load, &mode.name);
        match config.measure(load, mode, &dir) {
            Ok((measured, seen)) => {
                progress.end(&measured);
                samples.push(Sample {
                    round,
                    load,
                    mode: mode.name.clone(),
                    measured,
                    syncs_per_second: seen.map(|seen| seen.syncs_per_second),
                    max_pending: seen.map(|seen| seen.max_pending),
                });
            }
            Err(error) if samples.is_empty() => return Err(error),
            Err(Error::Interrupted) => stopped = Some(Error::Interrupted.to_string()),
            Err(error) => stopped = Some(format!("{} {load}: {error}", mode.name)),
        }
        if stopped.is_some() {
            break;
        }
    }
    progress.finish();
    let rows = config.loads.iter().flat_map(|&load| {
        let samples = &samples;
        config.modes.iter().filter_map(move |mode| Row::new(samples, load, mode))
    });
    let mut rows: Vec<Row> = rows.collect();
    if stopped.is_none()
        && let Err(error) = config.count_syncs(&mut rows, &dir)
    {
        stopped = Some(error.to_string());
    }
    Ok(Report {
        version: VERSION,
        workload: config.workload,
        started: started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        seconds: clock.elapsed().as_secs_f64(),
        machine,
        rounds: config.rounds,
        requests: config.requests,
        keyspace: config.keyspace,
        reads: (config.workload == Workload::Mix && config.writers.is_none())
            .then_some(config.reads),
        writers: config.writers,
        sync_ms: config.sync_takes.map(|time| time.as_secs_f64() * 1e3),
        stopped,
        rows,
        samples,
    })
}

/// The temporary directory, or the current one if that lies in memory, where a sync is free.
fn default_dir() -> PathBuf {
    let dir = std::env::temp_dir();
    if is_volatile(&dir) { PathBuf::from(".") } else { dir }
}

/// What the agent's status page said about one measurement.
#[derive(Clone, Copy, Debug)]
struct Seen {
    syncs_per_second: f64,
    max_pending: u64,
}

impl Config {
    fn check(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::Config(text));
        if self.reads > 100 {
            return wrong(format!(
                "the percentage of reads must be at most 100, found {}",
                self.reads
            ));
        }
        if self.modes.is_empty() || self.loads.is_empty() || self.rounds == 0 || self.requests == 0
        {
            return wrong(
                "nothing to measure: give at least one mode, load, round and request".into(),
            );
        }
        for (index, mode) in self.modes.iter().enumerate() {
            if self.modes.iter().take(index).any(|other| other.name == mode.name) {
                return wrong(format!("duplicate mode `{}`", mode.name));
            }
        }
        Ok(())
    }

    /// Every measurement, in order. Within a round the modes of a load stand back to back; each
    /// round begins with another mode, and every second one goes backwards.
    fn schedule(&self) -> impl Iterator<Item = (u32, Load, &Mode)> {
        (1..=self.rounds).flat_map(move |round| {
            let mut modes: Vec<&Mode> = self.modes.iter().collect();
            modes.rotate_left((round as usize - 1) % self.modes.len());
            if round % 2 == 0 {
                modes.reverse();
            }
            self.loads.iter().flat_map(move |&load| {
                let modes = modes.clone();
                modes.into_iter().map(move |mode| (round, load, mode))
            })
        })
    }

    /// Counts the syncs of the modes without a policy, each in a run of its own under a policy that
    /// passes every call: it is not measured, since the counting costs a little. Where it cannot be
    /// counted, it stays unknown.
    fn count_syncs(&self, rows: &mut [Row], dir: &Path) -> Result<()> {
        let policy = Policy { file: PASSES.into(), sets: Vec::new(), engine: None };
        for row in rows {
            let own = |mode: &&Mode| mode.name == row.mode && mode.policy.is_none();
            let mode = self.modes.iter().find(own).filter(|mode| mode.appendfsync.is_some());
            let Some(mode) = mode else { continue };
            let counted = Mode { policy: Some(policy.clone()), ..mode.clone() };
            match self.measure(row.load, &counted, dir) {
                Ok((_, seen)) => row.count_syncs(seen.map(|seen| seen.syncs_per_second)),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn measure(&self, load: Load, mode: &Mode, dir: &Path) -> Result<(Measured, Option<Seen>)> {
        let dir = tempfile::Builder::new()
            .prefix("durac-bench-")
            .tempdir_in(dir)
            .trying(|| "make a directory for the logs".into())?;
        let mut asked = Asked::begin(dir.path(), None)?;
        let (prefix, env) = match &mode.policy {
            Some(policy) => {
                let trace = mode.recorded.then(|| dir.path().join("trace.json"));
                (
                    self.durac_words(policy, trace),
                    vec![("DURAC_STATUS".into(), asked.status().into())],
                )
            }
            None => (Vec::new(), Vec::new()),
        };
        match self.workload {
            Workload::Redis | Workload::Mix => {
                self.measure_redis(load, mode, dir.path(), prefix, env, &mut asked)
            }
            Workload::AppendLog => {
                self.measure_append_log(load, mode, dir.path(), &prefix, &env, &mut asked)
            }
        }
    }

    fn measure_redis(
        &self,
        load: Load,
        mode: &Mode,
        dir: &Path,
        prefix: Vec<OsString>,
        env: Vec<(OsString, OsString)>,
        asked: &mut Asked,
    ) -> Result<(Measured, Option<Seen>)> {
        let config = RedisConfig {
            appendfsync: mode.appendfsync.clone(),
            program: self.server.clone(),
            prefix,
            env,
            has_parent: mode.recorded,
            // A rewrite would fall into some measurements and not into others.
            lines: vec![("auto-aof-rewrite-percentage".into(), "0".into())],
            parent: Some(dir.to_owned()),
            ..RedisConfig::default()
        };
        let mut config = config;
        let disk = self.slow_disk(mode, &mut config)?;
        let redis = Redis::start(config)?;
        asked.look();
        let page = asked.page();
        let syncs = || page.map_or(0, Page::syncs);
        let requests = self.requests * u64::from(load.pipeline);
        let drive = |requests| match self.workload {
            Workload::Mix => match self.writers {
                Some(writers) => beside(&redis, load, requests, self.keyspace, writers),
                None => mix(&redis, load, requests, self.keyspace, self.reads),
            },
            _ => redis_benchmark(&redis, load, requests, self.keyspace),
        };
        drive((requests / WARM_UP_SHARE).max(1))?;
        let before = syncs();
        let measured = drive(requests)?;
        let seen = Seen::new(page, before, requests, &measured);
        // What it did then is not what its row would say. Without `always` its own syncs are counted.
        if mode.policy.is_some() && mode.appendfsync.as_deref() == Some("always") {
            asked.check_in(&redis.data())?;
        }
        drop(redis);
        drop(disk);
        Ok((measured, seen))
    }

    /// The disk on which a sync takes as long as it is to, with the server's data on it.
    fn slow_disk(&self, mode: &Mode, config: &mut RedisConfig) -> Result<Option<Mounted>> {
        let Some(latency) = self.sync_takes else { return Ok(None) };
        let plan = Plan { latency, ..Plan::default() };
        let disk = Mounted::new(Image::default(), plan)
            .trying(|| "mount a disk through FUSE (this needs root)".into())?;
        config.data = Some(disk.join("data"));
        // Writes pass the syncs, as on ext4.
        let library = sync_library()?;
        match (&mode.policy, config.prefix.pop()) {
            (Some(_), Some(end)) => {
                config.prefix.extend(["--preload-after".into(), library.into(), end]);
            }
            _ => config.env.push(("LD_PRELOAD".into(), library.into())),
        }
        Ok(Some(disk))
    }

    fn measure_append_log(
        &self,
        load: Load,
        mode: &Mode,
        dir: &Path,
        prefix: &[OsString],
        env: &[(OsString, OsString)],
        asked: &mut Asked,
    ) -> Result<(Measured, Option<Seen>)> {
        let sync = mode.appendfsync.as_deref().map_or(Ok(Sync::No), Sync::from_str)?;
        let options = Options {
            sync,
            records: self.requests * u64::from(load.pipeline),
            every: load.pipeline.into(),
            threads: load.clients,
            ..Options::new(dir.to_owned())
        };
        let done = AtomicBool::new(false);
        let status = asked.status();
        let (measured, page) = std::thread::scope(|scope| {
            // The page goes away with the process, so it must be found while that runs.
            let finder = scope.spawn(|| {
                loop {
                    let page = Page::open(status);
                    if page.is_some() || done.load(Ordering::Relaxed) {
                        return page;
                    }
                    std::thread::sleep(LOOK);
                }
            });
            let measured = append_log::measure(&options, prefix, env);
            done.store(true, Ordering::Relaxed);
            (measured, finder.join().ok().flatten())
        });
        let measured = measured?;
        let seen = Seen::new(page.as_ref(), 0, options.records, &measured);
        asked.found(page);
        if mode.policy.is_some() {
            asked.check("", Asks::Writes)?;
        }
        Ok((measured, seen))
    }

    /// `durac run FILE --set name=value … --`, or `durac record -o TRACE -p FILE …` with a trace.
    fn durac_words(&self, policy: &Policy, trace: Option<PathBuf>) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![self.durac.clone().into()];
        match trace {
            Some(trace) => {
                words.extend(["record".into(), "-o".into(), trace.into(), "-p".into()]);
            }
            None => words.push("run".into()),
        }
        words.extend(policy.words());
        words.push("--".into());
        words
    }
}

impl Seen {
    fn new(page: Option<&Page>, before: u64, requests: u64, measured: &Measured) -> Option<Self> {
        let page = page?;
        let seconds = requests as f64 / measured.rps;
        Some(Self {
            syncs_per_second: page.syncs().saturating_sub(before) as f64 / seconds,
            max_pending: page.max_pending(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(workload: Workload) -> Config {
        Config {
            workload,
            modes: vec![Mode::always(), Mode::everysec(), Mode::no_log()],
            loads: vec![Load { clients: 2, pipeline: 1 }, Load { clients: 2, pipeline: 4 }],
            rounds: 2,
            requests: 200,
            ..Config::default()
        }
    }

    #[test]
    fn each_round_measures_everything_in_another_order() {
        let config = Config { rounds: 3, ..small(Workload::Redis) };
        let names = |round: u32| -> Vec<&str> {
            let of = |(r, load, mode)| (r == round && load == config.loads[1]).then_some(mode);
            let modes = config.schedule().filter_map(of);
            modes.map(|mode: &Mode| mode.name.as_str()).collect()
        };
        assert_eq!(names(1), ["always", "everysec", "no log"]);
        assert_eq!(names(2), ["always", "no log", "everysec"]);
        assert_eq!(names(3), ["no log", "always", "everysec"]);
        assert_eq!(config.schedule().count(), 18);
    }

    #[test]
    fn loads_in_words() {
        let load: Load = "50x16".parse().unwrap();
        assert_eq!(
            (load, load.to_string()),
            (Load { clients: 50, pipeline: 16 }, "-c 50 -P 16".into())
        );
        assert_eq!("5".parse::<Load>().unwrap().to_string(), "-c 5");
        for bad in ["", "0", "5x", "5x0", "x", "5x1x1"] {
            assert!(bad.parse::<Load>().is_err(), "{bad}");
        }
        assert_eq!(Load::cross(&[5, 50], &[1, 16]).len(), 4);
    }

    #[test]
    fn the_words_of_a_policy() {
        let sets = vec![("n".to_owned(), "16".to_owned())];
        let mode = Mode::policy("window 16", "window", sets, "16 syncs", Some(16));
        let policy = mode.policy.as_ref().unwrap();
        let words = |trace| Config::default().durac_words(policy, trace);
        let run = ["durac", "run", "window", "--set", "n=16", "--"];
        assert_eq!(words(None), run.map(OsString::from));
        let record = ["durac", "record", "-o", "t", "-p", "window", "--set", "n=16", "--"];
        assert_eq!(words(Some("t".into())), record.map(OsString::from));
        assert_eq!(mode.recorded().name, "window 16, recorded");
    }

    #[test]
    fn nonsense_is_refused() {
        let twice = Config { modes: vec![Mode::always(); 2], ..small(Workload::Redis) };
        assert_eq!(run(&twice).unwrap_err().to_string(), "duplicate mode `always`");
        let nothing = Config { rounds: 0, ..small(Workload::Redis) };
        assert_eq!(
            run(&nothing).unwrap_err().to_string(),
            "nothing to measure: give at least one mode, load, round and request"
        );
    }

    #[test]
    fn measures_a_real_redis() {
        let report = run(&small(Workload::Redis)).unwrap();
        assert_eq!((report.rows.len(), report.samples.len(), report.stopped), (6, 12, None));
        assert!(report.rows.iter().all(|row| row.to_always.is_some() && row.rps.min > 0.0));
    }

    #[test]
    fn what_was_measured_before_a_failure_is_kept() {
        let mut config = small(Workload::Redis);
        config.modes.push(Mode::policy("gone", "window", Vec::new(), "", None));
        config.durac = "/no/such/durac".into();
        let report = run(&config).unwrap();
        assert_eq!((report.samples.len(), report.rows.len()), (3, 3));
        assert!(report.stopped.unwrap().starts_with("gone -c 2: cannot start redis-server"));
    }
}
