//! A redis-server under a policy, with the witness around the agent.

use crate::witness::Witness;
use crate::{agent, durac, run, show, tool};
use anyhow::{Context, Result, ensure};
use durac_workload::writers::{Acknowledged, Load, Writers};
use durac_workload::{Redis, RedisConfig, Stop};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What never comes is an error after this long.
const WITHIN: Duration = Duration::from_secs(300);

/// The server, and what watches it.
#[derive(Debug)]
pub struct Server {
    /// The server.
    pub redis: Redis,
    /// The witness; it saw everything since the last start.
    pub witness: Witness,
    dir: TempDir,
}

/// How the server is run.
#[derive(Clone, Debug, Default)]
pub struct Under {
    /// File or name of the policy; `None` is Redis alone with `appendfsync always`.
    pub policy: Option<OsString>,
    /// Parameters, `name=value`.
    pub sets: Vec<String>,
    /// The server's program; the installed one if `None`.
    pub program: Option<PathBuf>,
    /// Lines for `redis.conf`.
    pub lines: Vec<(String, String)>,
    /// Environment, such as the faults of the shim.
    pub env: Vec<(OsString, OsString)>,
    /// Where the data is; in the server's own folder if `None`.
    pub data: Option<PathBuf>,
    /// Whether it goes to the background.
    pub daemonize: bool,
    /// Where the trace goes, if it is recorded.
    pub trace: Option<PathBuf>,
}

impl Under {
    /// Redis alone.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Under a policy.
    #[must_use]
    pub fn policy(policy: impl Into<OsString>) -> Self {
        Self { policy: Some(policy.into()), ..Self::default() }
    }

    /// With another program than the installed one.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// With a parameter set.
    #[must_use]
    pub fn set(mut self, assignment: impl Into<String>) -> Self {
        self.sets.push(assignment.into());
        self
    }

    /// With a line of `redis.conf`.
    #[must_use]
    pub fn line(mut self, name: &str, value: &str) -> Self {
        self.lines.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Recorded.
    #[must_use]
    pub fn trace(mut self, trace: impl Into<PathBuf>) -> Self {
        self.trace = Some(trace.into());
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    /// If it does not start, or starts without the policy.
    pub fn start(self) -> Result<Server> {
        agent()?;
        let dir = TempDir::with_prefix("durac-server-")?;
        let witness = Witness::new()?;
        let mut prefix: Vec<OsString> = Vec::new();
        if let Some(policy) = &self.policy {
            prefix.push(tool()?.into());
            match &self.trace {
                Some(trace) => {
                    prefix.extend(["record".into(), "-o".into(), trace.into(), "-p".into()])
                }
                None => prefix.push("run".into()),
            }
            if Path::new(policy).is_file() {
                prefix.push(policy.clone());
                prefix.extend(self.sets.iter().flat_map(|set| ["--set".into(), set.into()]));
            } else {
                prefix.push(object(policy, &self.sets)?.into());
            }
            prefix.push("--".into());
        }
        prefix.extend(witness.words());
        let mut env = self.env;
        env.push(witness.env());
        env.push(("DURAC_STATUS".into(), dir.path().join("status").into()));
        let config = RedisConfig {
            program: self.program,
            prefix,
            env,
            lines: self.lines,
            data: self.data,
            daemonize: self.daemonize,
            has_parent: self.trace.is_some(),
            ..RedisConfig::new("always")
        };
        let redis = Redis::start(config)?;
        let server = Server { redis, witness, dir };
        ensure!(
            self.policy.is_none() || server.status_path().exists(),
            "the agent made no status page: {}",
            server.redis.stderr()
        );
        Ok(server)
    }
}

/// The object of a ready policy, compiled at most once in this process: a proof before each of some
/// hundred starts would be most of what the tests do.
///
/// # Errors
/// If it cannot be compiled.
pub fn object(policy: &OsStr, sets: &[String]) -> Result<PathBuf> {
    type Objects = (TempDir, HashMap<(OsString, Vec<String>), PathBuf>);
    static OBJECTS: Mutex<Option<Objects>> = Mutex::new(None);
    let mut objects = OBJECTS.lock().unwrap_or_else(PoisonError::into_inner);
    let (folder, known) = match objects.as_mut() {
        Some(objects) => objects,
        None => objects.insert((TempDir::with_prefix("durac-objects-")?, HashMap::new())),
    };
    let key = (policy.to_owned(), sets.to_owned());
    if let Some(object) = known.get(&key) {
        return Ok(object.clone());
    }
    let object = folder.path().join(format!("{}.o", known.len()));
    let mut command = durac(["compile"])?;
    command.arg(policy).args(sets.iter().flat_map(|set| ["--set", set])).arg("-o").arg(&object);
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    known.insert(key, object.clone());
    Ok(object)
}

impl Server {
    /// Where the agent keeps its status page.
    #[must_use]
    pub fn status_path(&self) -> PathBuf {
        self.dir.path().join("status")
    }

    /// Starts it again on the same data; the witness begins anew.
    ///
    /// # Errors
    /// If it does not start, such as when its log is corrupt.
    pub fn restart(&mut self) -> Result<()> {
        self.witness.forget()?;
        self.redis.launch().context("it does not start again")
    }

    /// Starts writers, each with `requests` to make.
    #[must_use]
    pub fn write(&self, clients: u32, pipeline: u32, requests: u64, from: u32) -> Writers {
        Writers::start(self.redis.port(), Load { clients, pipeline, requests }, from)
    }

    /// Stops it, starts it again, and checks that everything acknowledged is there.
    ///
    /// # Errors
    /// If something is missing.
    pub fn reads_back(&mut self, how: Stop, acknowledged: &[&Acknowledged]) -> Result<()> {
        self.redis.stop(how)?;
        self.restart()?;
        let mut client = self.redis.client()?;
        for acknowledged in acknowledged {
            let missing = acknowledged.missing(&mut client)?;
            let (total, few) = (acknowledged.total(), missing.iter().take(5).collect::<Vec<_>>());
            ensure!(
                missing.is_empty(),
                "after {how:?}, {} of {total} are missing: {few:?}…",
                missing.len()
            );
        }
        Ok(())
    }

    /// Waits until a field of INFO has this value.
    ///
    /// # Errors
    /// If it does not get it in time.
    pub fn until_info(&self, field: &str, value: &str) -> Result<()> {
        let mut client = self.redis.client()?;
        until(&format!("{field}:{value}"), || Ok(client.info(field)?.as_deref() == Some(value)))
    }

    /// Rewrites the log and waits until that is done and has succeeded.
    ///
    /// # Errors
    /// If Redis refuses or the rewrite fails.
    pub fn rewrite(&self) -> Result<()> {
        let mut client = self.redis.client()?;
        client.command(&["BGREWRITEAOF"])?;
        self.until_info("aof_rewrite_scheduled", "0")?;
        self.until_info("aof_rewrite_in_progress", "0")?;
        ensure!(client.info("aof_last_bgrewrite_status")?.as_deref() == Some("ok"));
        Ok(())
    }
}

/// Polls until `done`.
///
/// # Errors
/// If that takes too long, or asking fails.
pub fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + WITHIN;
    while !done()? {
        ensure!(Instant::now() < deadline, "{what} did not happen within {WITHIN:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Waits until the writers have that many acknowledgements together.
///
/// # Errors
/// If they end before, or it takes too long.
pub fn until_written(writers: &Writers, requests: u64) -> Result<()> {
    until(&format!("{requests} acknowledged requests"), || {
        let enough = writers.so_far() >= requests;
        ensure!(enough || !writers.are_done(), "the writers ended after {}", writers.so_far());
        Ok(enough)
    })
}
