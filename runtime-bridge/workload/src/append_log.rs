//! The load without a database: records appended to a log, with the syncs a database would make.
//!
//! [`run`] does it, in the process that calls it; the program `durac-append-log` is that function
//! only, so that an agent can be preloaded into it. [`measure`] starts the program.

use crate::child;
use crate::error::{Error, Result, Trying};
use crate::report::Measured;
use crate::stats::percentile;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// A run that takes longer has hung.
const WITHIN: Duration = Duration::from_secs(600);
/// How often `everysec` syncs.
const SECOND: Duration = Duration::from_secs(1);

/// Who syncs the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// The writer, before it goes on, as under `appendfsync always`.
    Always,
    /// Another thread, once a second.
    Everysec,
    /// Nobody; one sync at the end, not measured.
    No,
}

impl FromStr for Sync {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "always" => Ok(Self::Always),
            "everysec" => Ok(Self::Everysec),
            "no" => Ok(Self::No),
            _ => Err(Error::Config(format!(
                "unknown mode `{text}`: expected always, everysec or no"
            ))),
        }
    }
}

/// What [`run`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The directory of the logs, `appendonly.aof.1.incr.aof` and so on: names that the target
    /// `redis.aof` covers.
    pub dir: PathBuf,
    /// Who syncs.
    pub sync: Sync,
    /// Records, over all threads.
    pub records: u64,
    /// Bytes of a record.
    pub size: usize,
    /// Records between two syncs of [`Sync::Always`].
    pub every: u64,
    /// Writers; each has a log of its own.
    pub threads: u32,
}

impl Options {
    /// 20,000 records of 100 bytes by one thread, each synced.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, sync: Sync::Always, records: 20_000, size: 100, every: 1, threads: 1 }
    }

    /// Reads the arguments of `durac-append-log`: a directory, and pairs of an option and its value.
    ///
    /// # Errors
    /// If an option is unknown or its value is not a number, or too small.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let mut args = args.into_iter();
        let dir =
            args.next().ok_or_else(|| Error::Config("missing argument: the directory".into()))?;
        let mut options = Self::new(dir.into());
        while let Some(option) = args.next() {
            let option = option.to_string_lossy().into_owned();
            let value = args.next().unwrap_or_default().to_string_lossy().into_owned();
            let number = |at_least: u64| {
                let number = value.parse().ok().filter(|&n| n >= at_least);
                let range =
                    || format!("{option}: `{value}` is not a number of at least {at_least}");
                number.ok_or_else(|| Error::Config(range()))
            };
            match option.as_str() {
                "--sync" => options.sync = value.parse()?,
                "--records" => options.records = number(0)?,
                "--size" => options.size = number(1)? as usize,
                "--every" => options.every = number(1)?,
                "--threads" => options.threads = u32::try_from(number(1)?).unwrap_or(u32::MAX),
                _ => return Err(Error::Config(format!("unknown option `{option}`"))),
            }
        }
        Ok(options)
    }

    fn args(&self) -> Vec<OsString> {
        let sync = match self.sync {
            Sync::Always => "always",
            Sync::Everysec => "everysec",
            Sync::No => "no",
        };
        let mut args = vec![self.dir.clone().into(), "--sync".into(), sync.into()];
        for (option, value) in [
            ("--records", self.records),
            ("--size", self.size as u64),
            ("--every", self.every),
            ("--threads", u64::from(self.threads)),
        ] {
            args.extend([option.into(), value.to_string().into()]);
        }
        args
    }
}

/// The log of writer `thread`, counted from 1.
#[must_use]
pub fn log_path(dir: &Path, thread: u32) -> PathBuf {
    dir.join(format!("appendonly.aof.{thread}.incr.aof"))
}

/// Appends the records; a new run starts the logs anew.
///
/// # Errors
/// That of the first write or sync that failed.
pub fn run(options: &Options) -> Result<Measured> {
    let started = Instant::now();
    let share = |thread: u64| {
        let threads = u64::from(options.threads);
        options.records / threads + u64::from(thread < options.records % threads)
    };
    let mut latencies = std::thread::scope(|scope| -> Result<Vec<u64>> {
        let writers: Vec<_> = (0..options.threads)
            .map(|thread| {
                let path = log_path(&options.dir, thread + 1);
                scope.spawn(move || {
                    let what = || format!("append to {}", path.display());
                    append(options, &path, share(thread.into())).trying(what)
                })
            })
            .collect();
        let mut latencies = Vec::new();
        for writer in writers {
            let gone = |_| Error::Config("a writer panicked".into());
            latencies.extend(writer.join().map_err(gone)??);
        }
        Ok(latencies)
    })?;
    let seconds = started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let millis = |share| percentile(&latencies, share) as f64 / 1e6;
    Ok(Measured {
        rps: latencies.len() as f64 / seconds,
        p50_ms: millis(0.5),
        p99_ms: millis(0.99),
        max_ms: millis(1.0),
        writes: None,
    })
}

/// Appends `records` records and returns how long each took, nanoseconds.
fn append(options: &Options, path: &Path, records: u64) -> io::Result<Vec<u64>> {
    let mut log = OpenOptions::new().create(true).append(true).open(path)?;
    log.set_len(0)?;
    log.sync_data()?;
    let mut record = vec![b'.'; options.size];
    if let Some(last) = record.last_mut() {
        *last = b'\n';
    }
    let mut latencies = Vec::with_capacity(usize::try_from(records).unwrap_or(0));
    let mut write = |log: &mut File| -> io::Result<()> {
        for number in 1..=records {
            let started = Instant::now();
            log.write_all(&record)?;
            if options.sync == Sync::Always && number % options.every == 0 {
                log.sync_data()?;
            }
            latencies.push(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        Ok(())
    };
    if options.sync == Sync::Everysec {
        let syncer = log.try_clone()?;
        let (done, stop) = channel();
        std::thread::scope(|scope| {
            let syncer = scope.spawn(move || sync_every_second(&syncer, &stop));
            let written = write(&mut log);
            // The syncer ends when it sees that this end is gone.
            drop::<Sender<()>>(done);
            written.and(syncer.join().unwrap_or_else(|_| Err(io::Error::other("panicked"))))
        })?;
    } else {
        write(&mut log)?;
        if options.sync == Sync::No {
            log.sync_data()?;
        }
    }
    Ok(latencies)
}

fn sync_every_second(log: &File, stop: &Receiver<()>) -> io::Result<()> {
    while stop.recv_timeout(SECOND) == Err(RecvTimeoutError::Timeout) {
        log.sync_data()?;
    }
    log.sync_data()
}

/// The program `durac-append-log`.
///
/// # Errors
/// As [`child::beside`].
pub fn program() -> Result<PathBuf> {
    child::beside("durac-append-log")
}

/// Runs `durac-append-log` after `prefix`, such as `durac run window --`, and reads its result.
///
/// # Errors
/// If it is not there or fails.
pub fn measure(
    options: &Options,
    prefix: &[OsString],
    env: &[(OsString, OsString)],
) -> Result<Measured> {
    let mut command: Command = child::command(prefix, &program()?);
    command.args(options.args()).envs(env.iter().map(|(name, value)| (name, value)));
    let output = child::output(command, WITHIN)?;
    serde_json::from_str(&output)
        .map_err(|_| Error::Protocol(format!("durac-append-log printed {output:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(dir: &Path, sync: Sync) -> Options {
        let dir = dir.to_owned();
        Options { sync, records: 101, size: 10, every: 3, threads: 2, ..Options::new(dir) }
    }

    #[test]
    fn each_writer_has_its_share() {
        for sync in [Sync::Always, Sync::Everysec, Sync::No] {
            let dir = tempfile::tempdir().unwrap();
            let measured = run(&options(dir.path(), sync)).unwrap();
            assert!(measured.rps > 0.0 && measured.p50_ms <= measured.max_ms, "{measured:?}");
            let length = |thread| log_path(dir.path(), thread).metadata().unwrap().len();
            assert_eq!((length(1), length(2)), (510, 500));
        }
    }

    #[test]
    fn arguments_round_trip() {
        let options = options(Path::new("a b"), Sync::Everysec);
        assert_eq!(Options::parse(options.args()).unwrap(), options);
    }

    #[test]
    fn bad_arguments() {
        let parse = |args: &[&str]| Options::parse(args.iter().map(OsString::from)).unwrap_err();
        assert_eq!(parse(&[]).to_string(), "missing argument: the directory");
        assert_eq!(parse(&["d", "--what"]).to_string(), "unknown option `--what`");
        assert_eq!(
            parse(&["d", "--size", "0"]).to_string(),
            "--size: `0` is not a number of at least 1"
        );
        assert!(
            parse(&["d", "--sync", "x"]).to_string().contains("expected always, everysec or no")
        );
    }

    #[test]
    fn no_directory_is_an_error() {
        let error = run(&options(Path::new("/no/such/place"), Sync::No)).unwrap_err();
        assert!(error.to_string().starts_with("cannot append to /no/such/place/"), "{error}");
    }
}
