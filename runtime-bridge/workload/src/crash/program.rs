//! Crashes of any program: a load command that says what was acknowledged to it, and a check command that says what
//! is left.
//!
//! The load prints a line after each acknowledged sync, its writer first: `0 17`. The check runs on what a cut has
//! left, prints the lines that it still finds, and fails if the data are damaged. `docs/crashtest.md` has the
//! protocol.

use super::{At, Config, Crash, Trial, age, holes, mount, timeline};
use crate::asked::Asked;
use crate::child;
use crate::error::{Error, Result, Trying};
use crate::status::Page;
use crate::sys::{self, Process, ProcessGroup};
use crate::writers::{Acknowledged, Answer};
use durac_disk::mount::After;
use durac_disk::{Cut, Image, Mounted, Power};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The folder on the disk, in the words of both commands.
pub const DIR: &str = "{dir}";
/// The pipe for acknowledgements, in the words of the load.
pub const ACKS: &str = "{acks}";

/// Within this time the load acknowledges what the test wants to see.
const LOAD: Duration = Duration::from_secs(300);
/// Within this time the check ends.
const CHECK: Duration = Duration::from_secs(300);
/// Processes that were killed are gone within this time.
const GONE: Duration = Duration::from_secs(10);
/// Between two looks at a process: the first after something happened, and the longest while nothing does.
const LOOK_SOON: Duration = Duration::from_micros(200);
const LOOK_LATER: Duration = Duration::from_millis(2);
/// Lines of what durac has said that stand under a violation.
const TOLD: usize = 5;
/// Bytes of a line.
const LONGEST: usize = 64 << 10;
/// Between two looks at a pipe.
const LOOK: Duration = Duration::from_millis(20);

/// A program to crash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The load's words, with [`DIR`], and with [`ACKS`] if it acknowledges elsewhere than on its standard output.
    pub load: Vec<OsString>,
    /// The check, for sh(1), with [`DIR`].
    pub check: String,
    /// Lines that one sync acknowledges at most, one of each writer.
    pub per_sync: u32,
}

/// Makes one crash.
pub(super) fn trial(
    config: &Config,
    program: &Program,
    mut trial: Trial,
    random: &mut SmallRng,
) -> Result<Trial> {
    let disk = mount(Image::new(), config.latency, &config.faults)?;
    let place = tempfile::tempdir().trying(|| "make a folder for the load's output".into())?;
    let mut load = Load::start(config, program, &disk, place.path())?;
    disk.kills_group(load.child.id());
    disk.note("");
    let ended = wait_for(&mut load, config, &trial, random, &disk)?;
    // A kill takes a while to return.
    let before = Instant::now();
    match trial.crash {
        Crash::Kill if ended.is_none() => load.group.kill(),
        _ => disk.cut(),
    }
    let crashed = Instant::now();
    let acknowledged = load.end()?;
    if disk.faults() == 0 && acknowledged.said.total() == 0 {
        return Err(load.silent());
    }
    config.check_force(&load.asked, &disk)?;
    let page = load.asked.page();
    let broken_assumptions = page.map_or(0, Page::broken_assumptions);
    trial.acknowledged = acknowledged.said.total();
    trial.faults = disk.faults();
    trial.overlapping_writes = disk.overlapping();
    trial.ended = ended.is_some();
    let noted = disk.noted();
    let unmounted = || "unmount the disk".to_owned();
    let cut = match trial.crash {
        Crash::Torn => Cut::Torn,
        Crash::Reordered => Cut::Reordered,
        Crash::Clean | Crash::Kill => Cut::Clean,
    };
    let after = match trial.crash {
        Crash::Kill => {
            let image = disk.into_image().trying(unmounted)?;
            After { image, unsynced: Vec::new() }
        }
        _ => disk.after_cut(cut, random.random_range(0..u64::MAX)).trying(unmounted)?,
    };
    let missing = read_back(config, program, after, &acknowledged, &mut trial)?;
    let (noted, missing, said) = (noted.as_slice(), missing.as_slice(), &acknowledged.said);
    let ended = trial.ended;
    let seen = age::Seen {
        noted,
        acknowledged: said,
        missing,
        before,
        ended,
        broken_assumptions,
        log: "",
    };
    trial.judged(age::judge(config, trial.crash, &seen));
    let seen = timeline::Seen { noted, acknowledged: said, missing, crashed };
    trial.timeline = timeline::lines(&seen, &trial);
    if trial.violation.is_some() {
        let page = page.map(Page::told).unwrap_or_default();
        trial.timeline.extend(page.into_iter().map(timeline::Line::later));
        trial.timeline.extend(load.told());
    }
    Ok(trial)
}

/// Waits until the crash is to come; the load's end, if it ended by itself.
fn wait_for(
    load: &mut Load,
    config: &Config,
    trial: &Trial,
    random: &mut SmallRng,
    disk: &Mounted,
) -> Result<Option<ExitStatus>> {
    let lines = random.random_range(50..1500);
    let delay = Duration::from_micros(random.random_range(0..5000));
    let syncs = random.random_range(0..8);
    let is_faulty = !config.faults.is_empty();
    let met = || !is_faulty || disk.faults() > 0;
    if let Some(end) = load.until(is_faulty, &|count| count >= lines && met())? {
        return Ok(Some(end));
    }
    if config.policy.is_some() {
        load.asked.look_everywhere();
    }
    let ended = match trial.at {
        At::MidSync => {
            disk.cut_in_sync(syncs);
            // A policy that syncs rarely may not sync again soon.
            let soon = Instant::now() + Duration::from_secs(2);
            load.until(is_faulty, &|_| disk.power() == Power::Off || Instant::now() > soon)?
        }
        At::Random => {
            let until = Instant::now() + delay;
            load.until(is_faulty, &|_| Instant::now() >= until)?
        }
        At::AfterAck | At::Rewrite => None,
    };
    // What ended because the power went has not ended by itself.
    Ok(ended.filter(|_| disk.power() == Power::On))
}

/// Runs the check on what is left, and returns the lines that are gone, by their keys.
fn read_back(
    config: &Config,
    program: &Program,
    after: After,
    acknowledged: &Lines,
    trial: &mut Trial,
) -> Result<Vec<String>> {
    let disk = mount(after.image, Duration::ZERO, &[])?;
    let folder = disk.join(super::DATA);
    let mut check = child::command(&[], Path::new("/bin/sh"));
    check.arg("-c").arg(program.check.replace(DIR, &folder.to_string_lossy()));
    check.env_remove("LD_PRELOAD");
    let ended = child::run(check, CHECK)?;
    if !ended.status.success() {
        let said = if ended.stderr.trim().is_empty() { &ended.stdout } else { &ended.stderr };
        let why = format!("the check fails ({}){}", ended.status, child::tail(said));
        trial.violation = Some(why);
        return Ok(Vec::new());
    }
    let there: BTreeSet<&str> = ended.stdout.lines().map(str::trim_end).collect();
    let missing = acknowledged.missing(&there);
    trial.lost_commands = missing.len() as u64;
    trial.lost_syncs = lost_syncs(&missing, program.per_sync);
    trial.violation = holes(&missing, &acknowledged.said).or_else(|| config.too_much(trial));
    Ok(missing)
}

/// The fewest syncs that the lost lines were in: each acknowledged at most `per_sync` of them, and of each writer one.
fn lost_syncs(missing: &[String], per_sync: u32) -> u64 {
    let fewest = (missing.len() as u64).div_ceil(u64::from(per_sync.max(1)));
    super::turns(missing.iter().map(String::as_str)).max(fewest)
}

/// A load at work.
struct Load {
    child: Child,
    process: Process,
    group: ProcessGroup,
    /// How its first process has ended, if it has.
    status: Option<ExitStatus>,
    reader: Option<Reader>,
    stderr: File,
    name: String,
    asked: Asked,
}

impl Load {
    fn start(config: &Config, program: &Program, disk: &Mounted, place: &Path) -> Result<Self> {
        let folder = disk.join(super::DATA);
        let what = || "make the folder on the disk".to_owned();
        fs::create_dir(&folder).trying(what)?;
        // It is there after every crash.
        File::open(&folder).and_then(|folder| folder.sync_all()).trying(what)?;
        let asked = Asked::begin(place, Some(&folder))?;
        let pipe = place.join("acknowledged");
        let fill = |word: &OsString| {
            let word = replace(word, DIR, &folder);
            replace(&word, ACKS, &pipe)
        };
        let words: Vec<OsString> = program.load.iter().map(fill).collect();
        let [first, rest @ ..] = words.as_slice() else {
            return Err(Error::Config("no command to crash".into()));
        };
        let prefix = config.prefix();
        let mut command = child::command(&prefix, Path::new(first));
        command.args(rest).env("DURAC_STATUS", asked.status()).envs(config.env.iter().cloned());
        let what = || format!("run {}", first.to_string_lossy());
        let stderr = tempfile::tempfile().trying(what)?;
        command.stderr(stderr.try_clone().trying(what)?).process_group(0);
        if let (None, Some(library)) = (&config.policy, &config.sync_library) {
            command.env("LD_PRELOAD", library);
        }
        let named = program.load.iter().any(|word| contains(word, ACKS));
        let own = if named {
            command.stdout(stderr.try_clone().trying(what)?);
            Some(sys::make_pipe(&pipe).trying(|| "make a pipe for acknowledgements".into())?)
        } else {
            command.stdout(Stdio::piped());
            None
        };
        let mut child = command.spawn().trying(what)?;
        let group = ProcessGroup::of(&child);
        let process = match Process::open(child.id()) {
            Ok(process) => process,
            Err(error) => {
                group.kill();
                return Err(error).trying(what);
            }
        };
        let end = match (own, child.stdout.take()) {
            (Some(end), _) => Ok(end),
            (None, Some(end)) => Ok(OwnedFd::from(end)),
            (None, None) => Err(Error::Config("the load has no standard output".into())),
        };
        let reader = end.and_then(|end| Reader::start(end, named));
        let name = first.to_string_lossy().into_owned();
        let mut load =
            Self { child, process, group, status: None, reader: None, stderr, name, asked };
        load.reader = Some(reader?);
        Ok(load)
    }

    /// Waits until `done` says so of the number of lines; the load's end if it ends before.
    fn until(&mut self, is_faulty: bool, done: &dyn Fn(u64) -> bool) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + LOAD;
        let mut last = (0, Instant::now());
        let mut pause = LOOK_SOON;
        loop {
            let count = self.reader.as_ref().map_or(0, Reader::so_far);
            self.asked.look();
            if done(count) {
                return Ok(None);
            }
            if sys::interrupted() {
                return Err(Error::Interrupted);
            }
            if self.process.wait(pause).unwrap_or(false) {
                let status = self.reap()?;
                // A load that was done, or that met a fault.
                return match status.success() || is_faulty || done(count) {
                    true => Ok(Some(status)),
                    false => Err(self.ended(status)),
                };
            }
            pause = LOOK_LATER.min(pause * 2);
            if count > last.0 {
                last = (count, Instant::now());
                pause = LOOK_SOON;
            }
            if is_faulty && last.1.elapsed() > super::STUCK && count > 0 {
                return Ok(None);
            }
            if Instant::now() > deadline {
                let what = format!("enough acknowledgements of {}", self.name);
                return Err(Error::Late { what, within: LOAD });
            }
        }
    }

    /// Kills what is left, and waits for the first process, whose number is its own until then.
    fn reap(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        self.group.kill();
        match child::wait(&mut self.child, GONE)? {
            Some(status) => Ok(*self.status.insert(status)),
            None => Err(Error::Late { what: format!("the end of {}", self.name), within: GONE }),
        }
    }

    /// That it ended, and what it has said.
    fn ended(&self, status: ExitStatus) -> Error {
        let output = child::tail(&self.said());
        Error::Ended { program: self.name.clone(), status, output }
    }

    /// That nothing was acknowledged, so nothing can have been lost, and what it has said.
    fn silent(&self) -> Error {
        let said = child::tail(&self.said());
        let where_to = "on its standard output, or in `{acks}`";
        Error::Config(format!(
            "{} acknowledged nothing: it prints a line for each sync {where_to}{said}",
            self.name
        ))
    }

    /// What it has written to standard error; less if that cannot be read.
    fn said(&self) -> String {
        let mut bytes = Vec::new();
        let _ = std::io::Seek::rewind(&mut &self.stderr)
            .and_then(|()| (&self.stderr).read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What durac has told it there, as lines of a timeline: the last few.
    fn told(&self) -> Vec<timeline::Line> {
        lines_of_durac(&self.said())
    }

    /// After the crash: what it has acknowledged.
    fn end(&mut self) -> Result<Lines> {
        self.reap()?;
        let reader = self.reader.take();
        let lines = reader.map_or(Ok(Vec::new()), Reader::end)?;
        Lines::of(lines)
    }
}

fn lines_of_durac(said: &str) -> Vec<timeline::Line> {
    // A panic tells where before it is caught.
    let is_ours = |line: &&str| line.starts_with("durac: ") || line.starts_with("thread 'durac-");
    let lines: Vec<&str> = said.lines().filter(is_ours).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(TOLD));
    last.map(|line| timeline::Line::later((*line).to_owned())).collect()
}

impl Drop for Load {
    fn drop(&mut self) {
        // It was killed: there is nobody to tell.
        let _ = self.reap();
    }
}

/// Reads what is acknowledged, and when.
struct Reader {
    count: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Instant, Vec<u8>)>>,
}

impl Reader {
    /// Of a pipe that is `named` everybody may close the other end, and open it again.
    fn start(pipe: OwnedFd, named: bool) -> Result<Self> {
        let count = Arc::new(AtomicU64::new(0));
        let ends = Arc::new(AtomicBool::new(false));
        let (counted, until) = (count.clone(), ends.clone());
        let read = move || read_lines(&pipe, named, &counted, &until);
        let thread = std::thread::Builder::new().name("acknowledged".into()).spawn(read);
        Ok(Self { count, ends, thread: thread.trying(|| "start a thread".into())? })
    }

    fn so_far(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn end(self) -> Result<Vec<(Instant, Vec<u8>)>> {
        self.ends.store(true, Ordering::Release);
        self.thread.join().map_err(|_| Error::Config("the reader panicked".into()))
    }
}

fn read_lines(
    pipe: &OwnedFd,
    named: bool,
    count: &AtomicU64,
    ends: &AtomicBool,
) -> Vec<(Instant, Vec<u8>)> {
    let (mut lines, mut rest) = (Vec::new(), Vec::new());
    let mut chunk = vec![0; 1 << 16];
    let mut since = None;
    loop {
        // Every process was killed; what they have written is in the pipe.
        let over = ends.load(Ordering::Acquire);
        let ready = sys::is_readable(pipe, if over { Duration::ZERO } else { LOOK });
        let read = match ready {
            Ok(true) => rustix::io::read(pipe, &mut chunk).unwrap_or(0),
            _ => 0,
        };
        let now = Instant::now();
        if read == 0 {
            let Ok(hung_up) = ready else { return lines };
            // A process that left the group may hold the other end for ever.
            let late = over && since.get_or_insert(now).elapsed() > GONE;
            if hung_up && (over || !named) || late {
                return lines;
            }
            if over || hung_up {
                std::thread::sleep(Duration::from_millis(1));
            }
            continue;
        }
        for part in chunk.get(..read).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
            // What is longer is no line that was acknowledged, and is not kept: only that there was one.
            let room = (LONGEST + 1).saturating_sub(rest.len());
            rest.extend_from_slice(part.get(..room).unwrap_or(part));
            if part.ends_with(b"\n") {
                lines.push((now, std::mem::take(&mut rest)));
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// What was acknowledged, by writers.
struct Lines {
    /// As of writers that count: `2:17` is line 17 of the third.
    said: Acknowledged,
    /// The text of each, with its key.
    texts: Vec<(String, String)>,
}

impl Lines {
    fn of(lines: Vec<(Instant, Vec<u8>)>) -> Result<Self> {
        if lines.iter().any(|(_, line)| line.len() > LONGEST) {
            let why = "the load acknowledged a line of more than 64 KiB";
            return Err(Error::Config(why.into()));
        }
        let lines: Vec<(Instant, String)> = lines
            .into_iter()
            .map(|(at, line)| (at, String::from_utf8_lossy(&line).trim_end().to_owned()))
            .filter(|(_, line)| !line.is_empty())
            .collect();
        // Numbers in their order, then names in theirs.
        let order = |line: &str| {
            let name = writer(line).to_owned();
            (name.parse::<u64>().unwrap_or(u64::MAX), name)
        };
        let names: BTreeSet<(u64, String)> = lines.iter().map(|(_, line)| order(line)).collect();
        let numbers: BTreeMap<String, usize> =
            names.into_iter().enumerate().map(|(number, (_, name))| (name, number)).collect();
        let mut counts = vec![0_u64; numbers.len()];
        let mut known: HashMap<&str, ()> = HashMap::new();
        let (mut last, mut texts) = (Vec::new(), Vec::new());
        for (at, line) in &lines {
            if known.insert(line, ()).is_some() {
                return Err(Error::Config(format!("the load acknowledged `{line}` twice")));
            }
            let number = numbers.get(writer(line)).copied().unwrap_or(0);
            let Some(count) = counts.get_mut(number) else { continue };
            let key = format!("{number}:{count}");
            *count += 1;
            last.push(Answer { at: *at, key: key.clone() });
            texts.push((line.clone(), key));
        }
        let said = Acknowledged { from: 0, counts, errors: Vec::new(), last };
        Ok(Self { said, texts })
    }

    /// The keys of the lines that are not there.
    fn missing(&self, there: &BTreeSet<&str>) -> Vec<String> {
        let gone = self.texts.iter().filter(|(line, _)| !there.contains(line.as_str()));
        gone.map(|(_, key)| key.clone()).collect()
    }
}

/// Who was told: the first word.
fn writer(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

fn contains(word: &OsStr, what: &str) -> bool {
    word.as_bytes().windows(what.len()).any(|part| part == what.as_bytes())
}

/// `word` with a path in the place of `what`.
fn replace(word: &OsStr, what: &str, path: &Path) -> OsString {
    let mut rest = word.as_bytes();
    let mut out = Vec::new();
    while let Some(at) = rest.windows(what.len()).position(|part| part == what.as_bytes()) {
        out.extend_from_slice(rest.get(..at).unwrap_or_default());
        out.extend_from_slice(path.as_os_str().as_bytes());
        rest = rest.get(at + what.len()..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Result<Lines> {
        Lines::of(lines.iter().map(|line| (Instant::now(), line.as_bytes().to_vec())).collect())
    }

    #[test]
    fn a_line_is_of_its_first_word() {
        let all = lines(&["b x\n", "10 1\n", "9 7\n", "\n", "b y\n", "10 2\n"]).unwrap();
        assert_eq!(all.said.counts, [1, 2, 2]);
        let there = ["10 1", "b x", "9 7", "what else is there"].into_iter().collect();
        assert_eq!(all.missing(&there), ["2:1", "1:1"]);
        assert!(lines(&["0 1\n", "0 1\n"]).is_err_and(|e| e.to_string().contains("twice")));
    }

    #[test]
    fn syncs_that_acknowledge_several_lines() {
        let missing: Vec<String> = ["0:1", "1:1", "2:1", "2:2"].map(str::to_owned).to_vec();
        assert_eq!([1, 2, 4].map(|per_sync| lost_syncs(&missing, per_sync)), [4, 2, 2]);
        assert_eq!(lost_syncs(&[], 4), 0);
    }

    #[test]
    fn what_durac_said_is_told_without_the_rest() {
        let panic = "thread 'durac-sync' (9) panicked";
        let said = format!(
            "durac: 1\nits own\ndurac: 2\ndurac: 3\n durac: no\ndurac: 4\ndurac: 5\n{panic}\n"
        );
        let told: Vec<String> = lines_of_durac(&said).into_iter().map(|line| line.what).collect();
        let expected = [2, 3, 4, 5].map(|n| format!("durac: {n}"));
        assert_eq!(told, [&expected[..], &[panic.to_owned()]].concat());
    }

    #[test]
    fn places_in_words() {
        let fill = |word: &str| replace(OsStr::new(word), DIR, Path::new("/d"));
        assert_eq!(fill("--db={dir}/a:{dir}"), "--db=/d/a:/d");
        assert_eq!(fill("dir"), "dir");
    }

    #[test]
    fn lines_of_a_pipe() {
        let mut echo = std::process::Command::new("/bin/sh")
            .args(["-c", "printf '0 1\\n0 2\\n1 '; exec 1>&-; exec sleep 1000"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let reader = Reader::start(echo.stdout.take().unwrap().into(), false).unwrap();
        while reader.so_far() < 2 {
            std::thread::yield_now();
        }
        // The other end is closed, and a line that has no end was not acknowledged.
        let read = reader.end().unwrap();
        let read: Vec<&[u8]> = read.iter().map(|(_, line)| line.as_slice()).collect();
        assert_eq!(read, [b"0 1\n", b"0 2\n"]);
        echo.kill().unwrap();
        echo.wait().unwrap();
    }
}
