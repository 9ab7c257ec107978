//! Power cuts and kills: a real Redis on a disk that forgets, clients that remember what was
//! acknowledged, and what is there after a restart.
//!
//! One trial is one crash. The disk is [`durac_disk`]: what was not synced is gone after a cut, or
//! survives in parts. The server is killed in the same instant, so nothing is acknowledged after it.
//! Then Redis starts alone on what is left, and everything acknowledged is read back.

mod age;
mod fault;
mod program;
mod timeline;

pub use age::millis;
pub use fault::fault;
pub use program::{ACKS, DIR, Program};
pub use timeline::Line;

use crate::append_log;
use crate::asked::{Asked, Asks};
use crate::bench::Policy;
use crate::child;
use crate::error::{Error, Result, Trying};
use crate::redis::{Redis, RedisConfig, Stop};
use crate::status::Page;
use crate::sys;
use crate::writers::{self, Acknowledged, Load, Writers};
use durac_disk::image::Unsynced;
use durac_disk::mount::After;
use durac_disk::{Cut, Fault, Image, Mounted, Plan, Power};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where the database's data is on the disk.
const DATA: &str = "data";
/// What is in the paths of the log's files.
const LOG: &str = "appendonly";
/// Between two looks whether the crash is to come.
const LOOK: Duration = Duration::from_micros(100);
/// So many acknowledgements before it, one looks without a pause.
const NEAR: u64 = 64;
/// A server that acknowledges nothing for so long has hung.
const WITHIN: Duration = Duration::from_secs(300);

/// The same while things go wrong; and how long nothing may be acknowledged then.
const FAULTED: Duration = Duration::from_secs(10);
const STUCK: Duration = Duration::from_secs(3);
/// An application whose clients all have errors has ended, or does so before that.
const ENDS: Duration = Duration::from_secs(60);

/// When a crash comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum At {
    /// At any moment.
    Random,
    /// In the middle of a sync.
    MidSync,
    /// Right after an acknowledgement.
    AfterAck,
    /// While the log is rewritten.
    Rewrite,
}

/// What kind of crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Crash {
    /// The power goes; nothing survives that was not synced.
    Clean,
    /// The power goes; the beginning of it survives, up to a sector.
    Torn,
    /// The power goes; each block of it survives or not.
    Reordered,
    /// Only the process dies.
    Kill,
}

/// What is crashed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum App {
    /// A redis-server.
    #[default]
    Redis,
    /// Our own server, see [`crate::append_server`].
    Builtin,
    /// A server of the same protocol: its command line, see [`RedisConfig::command`].
    Command(Vec<OsString>),
    /// Any program.
    Program(Program),
}

/// A crash test.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The executable `durac`, with the agent beside it.
    pub durac: PathBuf,
    /// What is crashed.
    pub app: App,
    /// The policy; `None` is Redis alone.
    pub policy: Option<Policy>,
    /// Redis' own `appendfsync`.
    pub appendfsync: String,
    /// The library that lets writes pass syncs ([`sync_library`]); without it a write waits while its file is
    /// synced.
    pub sync_library: Option<PathBuf>,
    /// Environment variables of the server.
    pub env: Vec<(OsString, OsString)>,
    /// Words between the policy and redis-server.
    pub words: Vec<OsString>,
    /// Clients.
    pub clients: u32,
    /// How long a sync takes.
    pub latency: Duration,
    /// Kinds of crashes, in turn.
    pub crashes: Vec<Crash>,
    /// What goes wrong before the crash.
    pub faults: Vec<Fault>,
    /// Moments, in turn.
    pub at: Vec<At>,
    /// Where chance begins.
    pub seed: u64,
    /// Clients read what others write, too, and remember what they have seen.
    pub reads: bool,
    /// Acknowledged syncs that a power loss may take; `None` is any number.
    pub power_loss: Option<u64>,
    /// That number is not what was proved.
    pub is_claimed: bool,
    /// The same for the end of the process.
    pub process_crash: Option<u64>,
    /// Acknowledged commands that a power loss may take; `None` is any number.
    pub power_loss_updates: Option<u64>,
    /// Their bytes in the log.
    pub power_loss_bytes: Option<u64>,
    /// How old what a power loss takes may be; `None` is any age.
    pub power_loss_within: Option<Duration>,
    /// The same for the end of the process.
    pub process_crash_within: Option<Duration>,
    /// How long a sync takes at most, as the policy assumes.
    pub assume_sync: Option<Duration>,
    /// What is said of the files that the policy acts on, as it continues "no log was opened that …".
    pub covers: String,
    /// It acts on writes, too.
    pub acts_on_writes: bool,
    /// Commands that run one after the other, again and again, from the first write to the crash: `{pid}` in
    /// their words is the server. The bounds are then those of the worst moment.
    pub meanwhile: Vec<Vec<OsString>>,
}

/// One crash, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Its number, from 0: the same configuration and seed make the same choices again.
    pub number: u32,
    /// What kind it was.
    pub crash: Crash,
    /// When it came.
    pub at: At,
    /// Commands of [`Config::meanwhile`] that ended with success before it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub changes: u64,
    /// Commands acknowledged before it.
    pub acknowledged: u64,
    /// Acknowledged commands that are gone.
    pub lost_commands: u64,
    /// The same in writes of the log, each of which a sync call follows: what the bound counts.
    pub lost_syncs: u64,
    /// The same in bytes of the log.
    pub lost_bytes: u64,
    /// Redis refused the log until `redis-check-aof` had cut off its end.
    pub repaired: bool,
    /// Writes that completed while a sync of the same file was out.
    pub overlapping_writes: u64,
    /// Operations that a fault met.
    pub faults: u64,
    /// The application ended by itself before the crash.
    pub ended: bool,
    /// Age of the oldest lost command at the crash, microseconds: at least, because it counts from the
    /// instant its client read the reply.
    pub lost_age_us: u64,
    /// No sync took longer than the policy assumes.
    pub assumption_held: bool,
    /// Why the loss is older than the bound, if that is no violation because the assumption did not hold.
    pub excused: Option<String>,
    /// What should not be.
    pub violation: Option<String>,
    /// How it came to that. Not in the JSON of every crash.
    #[serde(skip)]
    pub timeline: Vec<Line>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Commands that run beside the load.
struct Meanwhile {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Meanwhile {
    fn start(commands: &[Vec<OsString>], pid: u32) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let filled = |word: &OsString| match word.to_str() {
            Some("{pid}") => pid.to_string().into(),
            _ => word.clone(),
        };
        let commands: Vec<Vec<OsString>> =
            commands.iter().map(|words| words.iter().map(filled).collect()).collect();
        let until = ends.clone();
        let run = move || {
            let mut good = 0;
            for words in commands.iter().cycle() {
                let Some((program, words)) = words.split_first() else { break };
                let mut command = std::process::Command::new(program);
                command.args(words).env_remove("LD_PRELOAD");
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                let ended = command.status();
                if until.load(Ordering::Acquire) {
                    break;
                }
                good += u64::from(ended.is_ok_and(|status| status.success()));
            }
            good
        };
        let thread = Some(std::thread::spawn(run));
        Self { ends, thread }
    }

    /// How many have ended with success.
    fn end(mut self) -> u64 {
        self.ends.store(true, Ordering::Release);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or(0)
    }
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
    }
}

impl Config {
    /// Makes one crash.
    ///
    /// # Errors
    /// If something fails that is not part of the test: the disk, the server's start.
    pub fn trial(&self, number: u32) -> Result<Trial> {
        let mut random = SmallRng::seed_from_u64(self.seed.wrapping_add(u64::from(number) << 32));
        let pick = |len: usize, at: u32| at as usize % len.max(1);
        let crash = self.crashes.get(pick(self.crashes.len(), number)).copied();
        let turns = number / self.crashes.len().max(1) as u32;
        let at = self.at.get(pick(self.at.len(), turns)).copied();
        let (Some(crash), Some(at)) = (crash, at) else {
            return Err(Error::Config(
                "nothing to test: give at least one kind and one instant of a crash".into(),
            ));
        };
        if let App::Program(program) = &self.app {
            return program::trial(self, program, Trial::new(number, crash, at), &mut random);
        }
        let disk = mount(Image::new(), self.latency, &self.faults)?;
        let place = tempfile::tempdir().trying(|| "make a folder for the status page".into())?;
        let mut asked = Asked::begin(place.path(), Some(disk.path()))?;
        let mut server = self.server(&disk)?;
        server.env.push(("DURAC_STATUS".into(), asked.status().into()));
        let mut redis = Redis::start(server)?;
        if self.policy.is_some() {
            asked.look_everywhere();
        }
        disk.kills(redis.pid());
        disk.note(LOG);
        let load = Load { clients: self.clients, pipeline: 1, requests: u64::MAX };
        let writers = match self.reads {
            true => Writers::start_reading(redis.port(), load, 0),
            false => Writers::start(redis.port(), load, 0),
        };
        let meanwhile = Meanwhile::start(&self.meanwhile, redis.pid());
        self.wait_for(at, &mut random, &disk, &redis, &writers)?;
        self.check_force(&asked, &disk)?;
        let ended = self.has_ended(&redis, &writers);
        // A kill takes a while to return.
        let before = Instant::now();
        match crash {
            _ if ended => disk.cut(),
            Crash::Kill => redis.kill(libc::SIGKILL)?,
            _ => disk.cut(),
        }
        let crashed = Instant::now();
        redis.wait(WITHIN)?;
        let changes = meanwhile.end();
        let acknowledged = writers.join();
        let broken_assumptions = asked.page().map_or(0, Page::broken_assumptions);
        let (noted, met, overlapping) = (disk.noted(), disk.faults(), disk.overlapping());
        let cut = match crash {
            Crash::Torn => Cut::Torn,
            Crash::Reordered => Cut::Reordered,
            Crash::Clean | Crash::Kill => Cut::Clean,
        };
        let unmounted = || "unmount the disk".to_owned();
        let after = match crash {
            Crash::Kill => {
                let image = disk.into_image().trying(unmounted)?;
                After { image, unsynced: Vec::new() }
            }
            _ => disk.after_cut(cut, random.random_range(0..u64::MAX)).trying(unmounted)?,
        };
        let mut trial = Trial {
            changes,
            acknowledged: acknowledged.total(),
            overlapping_writes: overlapping,
            faults: met,
            ended,
            ..Trial::new(number, crash, at)
        };
        let missing = self.read_back(redis, after, &acknowledged, &mut trial)?;
        let bound = self.bound(crash);
        let late = || fault::late(&noted, &acknowledged, bound.unwrap_or(u64::MAX));
        trial.violation = trial.violation.or_else(late);
        let (noted, missing) = (noted.as_slice(), missing.as_slice());
        let acknowledged = &acknowledged;
        let seen = age::Seen {
            noted,
            acknowledged,
            missing,
            before,
            ended,
            broken_assumptions,
            log: fault::LOG,
        };
        trial.judged(age::judge(self, crash, &seen));
        let seen = timeline::Seen { noted, acknowledged, missing, crashed };
        trial.timeline = timeline::lines(&seen, &trial);
        Ok(trial)
    }

    /// Fails if the policy was never in force. What a fault has stopped may not have come to its log.
    fn check_force(&self, asked: &Asked, disk: &Mounted) -> Result<()> {
        match self.policy.is_some() && disk.faults() == 0 {
            true => {
                let asks = match self.app {
                    _ if self.acts_on_writes => Asks::Writes,
                    App::Program(_) | App::Command(_) => Asks::Calls,
                    App::Redis | App::Builtin => Asks::CallsOfOne,
                };
                asked.check(&self.covers, asks)
            }
            false => Ok(()),
        }
    }

    /// Whether the application has ended by itself. Its clients may see that a little before.
    fn has_ended(&self, redis: &Redis, writers: &Writers) -> bool {
        let until = Instant::now() + ENDS;
        while writers.are_done() && redis.is_running() && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        !redis.is_running()
    }

    /// Acknowledged syncs that a crash may take.
    fn bound(&self, crash: Crash) -> Option<u64> {
        match crash {
            Crash::Kill => self.process_crash,
            _ => self.power_loss,
        }
    }

    /// The words before the command: `durac run` with the policy.
    fn prefix(&self) -> Vec<OsString> {
        self.policy.as_ref().map_or_else(Vec::new, |policy| {
            let mut words: Vec<OsString> = vec![self.durac.clone().into(), "run".into()];
            words.extend(policy.words());
            if let Some(library) = &self.sync_library {
                words.extend(["--preload-after".into(), library.clone().into()]);
            }
            words.push("--".into());
            words
        })
    }

    fn server(&self, disk: &Mounted) -> Result<RedisConfig> {
        let mut prefix = self.prefix();
        prefix.extend(self.words.iter().cloned());
        let mut env = self.env.clone();
        if let (None, Some(library)) = (&self.policy, &self.sync_library) {
            env.push(("LD_PRELOAD".into(), library.clone().into()));
        }
        let command = match &self.app {
            App::Redis => None,
            App::Builtin => {
                let words = ["serve", "{dir}", "{port}"].map(OsString::from);
                Some([append_log::program()?.into()].into_iter().chain(words).collect())
            }
            App::Command(words) => Some(words.clone()),
            // It is no server: see `program`.
            App::Program(_) => None,
        };
        Ok(RedisConfig {
            command,
            prefix,
            env,
            data: Some(disk.join(DATA)),
            lines: vec![("auto-aof-rewrite-percentage".into(), "0".into())],
            ..RedisConfig::new(&self.appendfsync)
        })
    }

    /// Waits until the crash is to come; in the middle of a sync it has come then.
    fn wait_for(
        &self,
        at: At,
        random: &mut SmallRng,
        disk: &Mounted,
        redis: &Redis,
        writers: &Writers,
    ) -> Result<()> {
        let within = if self.faults.is_empty() { WITHIN } else { FAULTED };
        let deadline = Instant::now() + within;
        let last = Cell::new((0, Instant::now()));
        let until = |done: &dyn Fn() -> bool, near: &dyn Fn() -> bool| -> Result<()> {
            while !done() {
                if sys::interrupted() {
                    return Err(Error::Interrupted);
                }
                if writers.so_far() > last.get().0 {
                    last.set((writers.so_far(), Instant::now()));
                }
                let over = Instant::now() > deadline || writers.are_done() && !done();
                if !self.faults.is_empty()
                    && (over || disk.faults() > 0 && last.get().1.elapsed() > STUCK)
                {
                    // What goes wrong has stopped the application, or its disk.
                    return Ok(());
                }
                if over {
                    let what = "acknowledgements before the crash".to_owned();
                    return Err(Error::Late { what, within: WITHIN });
                }
                match near() {
                    true => std::thread::yield_now(),
                    false => std::thread::sleep(LOOK),
                }
            }
            Ok(())
        };
        let commands = random.random_range(50..1500);
        let met = || self.faults.is_empty() || disk.faults() > 0;
        // The crash comes right after an acknowledgement.
        let near = || writers.so_far() < commands && writers.so_far() + NEAR >= commands;
        until(&|| writers.so_far() >= commands && met(), &near)?;
        match at {
            At::AfterAck => {}
            At::Random => {
                std::thread::sleep(Duration::from_micros(random.random_range(0..5000)));
            }
            At::MidSync => {
                disk.cut_in_sync(random.random_range(0..8));
                // A policy that syncs rarely may not sync again soon.
                let soon = Instant::now() + Duration::from_secs(2);
                let done = || disk.power() == Power::Off || Instant::now() > soon;
                // The disk cuts by itself.
                until(&|| done() || writers.are_done(), &|| false)?;
            }
            At::Rewrite => {
                let asked = redis.client().and_then(|mut c| c.command(&["BGREWRITEAOF"]));
                if self.faults.is_empty() {
                    asked?;
                }
                std::thread::sleep(Duration::from_micros(random.random_range(0..60_000)));
            }
        }
        Ok(())
    }

    /// Starts Redis alone on what is left, and returns the keys that are gone.
    fn read_back(
        &self,
        mut redis: Redis,
        after: After,
        acknowledged: &Acknowledged,
        trial: &mut Trial,
    ) -> Result<Vec<String>> {
        let disk = mount(after.image, Duration::ZERO, &[])?;
        redis.config = RedisConfig { prefix: Vec::new(), env: Vec::new(), ..self.server(&disk)? };
        if let Err(error) = redis.launch() {
            let refused = format!("the application does not start on what is left: {error}");
            if trial.crash != Crash::Reordered || self.app != App::Redis {
                trial.violation = Some(refused);
                return Ok(Vec::new());
            }
            // Blocks that were reordered leave holes, which Redis does not take for a torn end.
            trial.repaired = true;
            repair(&disk)?;
            if let Err(error) = redis.launch() {
                trial.violation = Some(format!("{refused}; after redis-check-aof: {error}"));
                return Ok(Vec::new());
            }
        }
        let missing = acknowledged.missing(&mut redis.client()?)?;
        redis.stop(Stop::Kill)?;
        trial.lost_commands = missing.len() as u64;
        trial.lost_syncs = lost_syncs(&missing, &after.unsynced, self.clients);
        trial.lost_bytes = missing.iter().map(|key| writers::bytes_of(key)).sum();
        trial.violation = holes(&missing, acknowledged).or_else(|| self.too_much(trial));
        Ok(missing)
    }

    /// In which unit a crash took more than was proved.
    fn too_much(&self, trial: &Trial) -> Option<String> {
        let on_power = |bound| if trial.crash == Crash::Kill { None } else { bound };
        [
            (trial.lost_syncs, self.bound(trial.crash), "syncs"),
            (trial.lost_commands, on_power(self.power_loss_updates), "updates"),
            (trial.lost_bytes, on_power(self.power_loss_bytes), "bytes"),
        ]
        .into_iter()
        .find_map(|(lost, bound, what)| {
            let bound = bound.filter(|bound| lost > *bound)?;
            let claimed = self.is_claimed && what == "syncs" && trial.crash != Crash::Kill;
            let of = if claimed { "claimed" } else { "proved" };
            Some(format!("{lost} acknowledged {what} are lost, {of} is {bound}"))
        })
    }
}

impl Trial {
    /// One that has not been made.
    fn new(number: u32, crash: Crash, at: At) -> Self {
        Self {
            number,
            crash,
            at,
            changes: 0,
            acknowledged: 0,
            lost_commands: 0,
            lost_syncs: 0,
            lost_bytes: 0,
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

    /// Takes what is said about the ages: a loss older than the bound is a violation if the assumption
    /// held.
    fn judged(&mut self, judged: age::Judged) {
        self.lost_age_us = judged.oldest.as_micros().try_into().unwrap_or(u64::MAX);
        self.assumption_held = judged.broken.is_none();
        match (judged.late, judged.broken) {
            (Some(late), Some(broken)) => self.excused = Some(format!("{late}; {broken}")),
            (Some(late), None) => {
                self.violation.get_or_insert(late);
            }
            (None, _) => {}
        }
    }
}

/// `libdurac_disk_sync.so`, with which writes pass syncs on the disk.
///
/// # Errors
/// As [`child::beside`].
pub fn sync_library() -> Result<PathBuf> {
    child::beside("libdurac_disk_sync.so")
}

fn mount(image: Image, latency: Duration, faults: &[Fault]) -> Result<Mounted> {
    let plan = Plan { latency, faults: faults.to_vec(), ..Plan::default() };
    Mounted::new(image, plan).trying(|| "mount a disk through FUSE (this needs root)".into())
}

/// Lets `redis-check-aof` cut off the end of a log that Redis refuses.
fn repair(disk: &Mounted) -> Result<()> {
    let what = || "repair the log".to_owned();
    let mut command = child::command(&[], &child::which("redis-check-aof")?);
    command.arg("--fix").arg(disk.join(DATA).join("appendonlydir/appendonly.aof.manifest"));
    // It asks whether it may.
    let file = tempfile::tempfile().trying(what)?;
    std::io::Write::write_all(&mut &file, b"y\n").trying(what)?;
    std::io::Seek::rewind(&mut &file).trying(what)?;
    command.stdin(file);
    command.output().trying(what)?;
    Ok(())
}

/// What is gone of each writer must be the last it wrote: anything else is a hole in the log.
fn holes(missing: &[String], acknowledged: &Acknowledged) -> Option<String> {
    let missing: BTreeSet<&str> = missing.iter().map(String::as_str).collect();
    for (writer, &count) in (acknowledged.from..).zip(&acknowledged.counts) {
        let gone = |number: u64| missing.contains(format!("{writer}:{number}").as_str());
        let first = (0..count).find(|number| gone(*number)).unwrap_or(count);
        if let Some(there) = (first..count).find(|number| !gone(*number)) {
            return Some(format!(
                "a hole: {writer}:{first} is gone, and {writer}:{there}, which is later, is there"
            ));
        }
    }
    None
}

/// The fewest turns of the server that the lost commands were in. A turn takes at most one command of
/// each client, and is in one write of the log, or in one batch that was staged; what never came to the
/// disk was in batches of its own.
fn lost_syncs(missing: &[String], unsynced: &[(String, Unsynced)], clients: u32) -> u64 {
    let mut left: BTreeSet<&str> = missing.iter().map(String::as_str).collect();
    let mut syncs = 0;
    let mut bytes = Vec::new();
    for (_, write) in unsynced.iter().filter(|(path, _)| path.contains(LOG)) {
        bytes.extend_from_slice(&write.bytes);
        if write.short {
            continue;
        }
        let keys = timeline::words(&bytes);
        let lost: Vec<&str> =
            keys.iter().map(String::as_str).filter(|key| left.remove(*key)).collect();
        syncs += turns(lost);
        bytes.clear();
    }
    let fewest = (left.len() as u64).div_ceil(u64::from(clients.max(1)));
    syncs + turns(left).max(fewest)
}

/// The most commands of one client.
fn turns<'a>(keys: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for key in keys {
        *counts.entry(key.split(':').next().unwrap_or_default()).or_default() += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    #[test]
    fn what_is_gone_is_the_end() {
        let acknowledged =
            Acknowledged { from: 0, counts: vec![3, 2], errors: Vec::new(), last: Vec::new() };
        assert_eq!(holes(&[], &acknowledged), None);
        assert_eq!(holes(&keys(&["0:1", "0:2", "1:1"]), &acknowledged), None);
        assert!(holes(&keys(&["0:1", "1:1"]), &acknowledged).unwrap().contains("0:1 is gone"));
    }

    #[test]
    fn a_broken_assumption_excuses_age_alone() {
        let judged = |late: bool, broken: bool, violation: Option<&str>| {
            let mut trial = timeline::tests::trial();
            trial.violation = violation.map(str::to_owned);
            trial.judged(age::Judged {
                oldest: Duration::from_millis(51),
                late: late.then(|| "late".to_owned()),
                broken: broken.then(|| "broken".to_owned()),
            });
            assert_eq!((trial.lost_age_us, trial.assumption_held), (51_000, !broken));
            (trial.violation, trial.excused)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(judged(true, false, None), (text("late"), None));
        assert_eq!(judged(true, true, None), (None, text("late; broken")));
        assert_eq!(judged(false, true, None), (None, None));
        assert_eq!(judged(true, true, Some("a hole")), (text("a hole"), text("late; broken")));
        assert_eq!(judged(true, false, Some("a hole")), (text("a hole"), None));
    }

    #[test]
    fn what_never_came_to_the_disk() {
        assert_eq!(lost_syncs(&keys(&["0:1", "1:1", "2:1"]), &[], 2), 2);
        assert_eq!(lost_syncs(&[], &[], 2), 0);
        assert_eq!(lost_syncs(&keys(&["0:1", "0:2", "0:3", "1:1"]), &[], 2), 3);
    }
}
