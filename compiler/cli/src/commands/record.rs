//! `durac record`: run a command with the agent or the supervisor recording, and write what it records as a trace.
//!
//! The agent, or the supervisor, puts events into a ring in shared memory; this process, the command's parent, takes
//! them out and writes them. The command does not depend on this process: if it is killed or its disk
//! is full, the command runs on without being recorded.

mod import;
mod process;

use crate::Outcome;
use crate::args::{Global, Launch};
use crate::launch::{self, Ready};
use crate::named::Named;
use crate::output::{self, Pending};
use crate::signals;
use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use durac_shm::ring::Ring;
use durac_shm::{Missing, Taker};
use durac_trace::{Event, Header, Recorded, Source, Writer};
use durac_workload::columns::counted;
use process::Family;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Arguments of `durac record`.
#[derive(Debug, ClapArgs)]
#[command(mut_arg("command", |command| command.required_unless_present("from_strace")))]
pub struct Record {
    /// The trace to write
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// The policy to run under: a file, an object, or a ready policy, with `:name=value,…` to set parameters
    #[arg(short, long, value_name = "FILE", default_value = "always")]
    policy: Named,
    /// How the command runs.
    #[command(flatten)]
    launch: Launch,
    /// Import the output of `strace -f -ttt -T` (`-` for standard input) instead of running a command
    #[arg(long, value_name = "FILE", conflicts_with_all = ["policy", "set", "engine", "command"])]
    from_strace: Option<PathBuf>,
    /// The target that says which files are logs, for an import
    #[arg(long, value_name = "NAME", default_value = "redis.aof", requires = "from_strace")]
    target: String,
    /// Capacity of the ring between agent and durac, in events, a power of two
    #[arg(long, value_name = "N", default_value_t = durac_shm::ring::PLACES, hide = true)]
    ring: u64,
}

/// Time between two reads of the ring, which holds many times the events of that time.
const LOOK: Duration = Duration::from_millis(20);
/// A longer recording shows its progress.
const LONG: Duration = Duration::from_secs(2);

/// Records a command, or imports what strace has recorded.
pub fn run(args: &Record, global: &Global) -> Result<Outcome> {
    if let Some(file) = &args.from_strace {
        return import::run(file, args, global);
    }
    crate::log::begin(args.launch.log.as_deref());
    if args.output == Path::new("-") || output::is_stdout(&args.output) {
        return Err(output::exit(1, "the command uses standard output: write the trace to a file"));
    }
    output::check_unread(&args.output, [args.policy.path()])?;
    output::check_writable(&args.output)?;
    let (ready, source) = match launch::supervised(&args.policy, &args.launch, global)? {
        Some(None) => return Ok(Outcome::Wrong),
        Some(Some(supervised)) => {
            let command = supervised.elsewhere(&args.launch.command);
            (Ready { command, ..supervised.ready }, Source::Supervisor)
        }
        None => match launch::prepare(&args.policy, &args.launch, global)? {
            Some(ready) => (ready, Source::Agent),
            None => return Ok(Outcome::Wrong),
        },
    };
    let Ready { mut command, program, object } = ready;
    let pending = Pending::new(&args.output, mode(&args.output))?;
    let file = RingFile::new(&launch::runtime_folder()?)?;
    let ring = Ring::create(&file.0, args.ring, monotonic()).map_err(|error| {
        output::exit(2, format!("cannot create the shared memory of the recording: {error}"))
    })?;
    let header = Header::new(Recorded {
        tool: tool(),
        started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        policy: object.meta.policy.clone(),
        target: object.meta.target.clone(),
        command: args.launch.command.iter().map(|w| w.to_string_lossy().into_owned()).collect(),
        cores: std::thread::available_parallelism().map_or(0, |n| n.get() as u32),
        kernel: kernel(),
        source,
    });
    let out = pending.file.try_clone().context("cannot write the trace")?;
    let writer = Writer::new(out, &header).map_err(|error| pending.failed(&error))?;
    command.env(durac_abi::ENV_RECORD, &file.0);
    let family = Family::start(&mut command).map_err(|e| launch::cannot_start(&program, &e))?;
    let mut recording = Recording::new(Taker::new(ring), writer);
    let code = recording.follow(&family);
    recording.end(pending, &args.output, family.had_others())?;
    Ok(Outcome::Ended(code))
}

/// A recording in progress.
struct Recording {
    taker: Taker,
    output: Output,
    began: Instant,
    shown: Option<Instant>,
}

/// Where the events go.
struct Output {
    ring: Ring,
    writer: Writer<fs::File>,
    /// Why writing has stopped.
    failed: Option<io::Error>,
}

impl Output {
    fn write(&mut self, event: &Event) {
        if self.failed.is_none()
            && let Err(error) = self.writer.event(event)
        {
            self.ring.stop();
            self.failed = Some(error);
        }
    }
}

impl Recording {
    fn new(taker: Taker, writer: Writer<fs::File>) -> Self {
        let output = Output { ring: *taker.ring(), writer, failed: None };
        Self { taker, output, began: Instant::now(), shown: None }
    }

    /// Records until the command and the processes that it left behind have ended, or the user stops
    /// it. Returns the command's exit code.
    fn follow(&mut self, family: &Family) -> u8 {
        let mut code = None;
        loop {
            let alone = family.reap(&mut code);
            // If somebody else has collected the command, its exit code is unknown.
            if alone || (code.is_some() && signals::is_stopped()) {
                self.output.ring.stop();
                return code.unwrap_or(u8::MAX);
            }
            self.taker.take(monotonic, |event| self.output.write(event));
            self.show();
            std::thread::sleep(LOOK);
        }
    }

    /// On a terminal, shows the progress once a second.
    fn show(&mut self) {
        let due = self.shown.map_or(self.began + LONG, |at| at + Duration::from_secs(1));
        if Instant::now() < due || !io::stderr().is_terminal() {
            return;
        }
        self.shown = Some(Instant::now());
        let (events, seconds) = (self.output.writer.events(), self.began.elapsed().as_secs());
        let events = counted(events, "event");
        output::stderr(&format!("\r\x1b[Krecording: {events}, {seconds} s"));
    }

    /// Writes the remaining events and the end, and prints a summary. `had_others`: a process of the command ended as another
    /// user.
    fn end(self, pending: Pending, path: &Path, had_others: bool) -> Result<()> {
        let seconds = self.began.elapsed().as_secs_f64();
        let mut output = self.output;
        let missing = self.taker.end(monotonic, |event| output.write(event));
        let Missing { dropped, late } = missing;
        if self.shown.is_some() {
            output::stderr("\r\x1b[K");
        }
        if let Some(error) = output.failed {
            return Err(pending.failed(&error));
        }
        let finished = output.writer.finish(dropped);
        let (_, end) = finished.map_err(|error| pending.failed(&error))?;
        let file = pending.file.metadata().ok().filter(fs::Metadata::is_file);
        let bytes = file.map(|file| format!(", {} bytes", file.len())).unwrap_or_default();
        pending.commit()?;
        let late = match late {
            0 => String::new(),
            n => format!(" ({n} of them late)"),
        };
        output::error(&format!(
            "recorded {}{late} in {seconds:.1} s, {dropped} dropped: {}{bytes}",
            counted(end.events, "event"),
            path.display()
        ));
        match end.events {
            0 if had_others => output::error(
                "the command became another user, as whom it cannot be recorded: start `durac record` as that user",
            ),
            0 => output::error(
                "the command opened no log; `durac list targets` shows which files are logs",
            ),
            _ => {}
        }
        Ok(())
    }
}

/// The file of the ring, removed with this process.
struct RingFile(PathBuf);

impl RingFile {
    /// A name in `folder`. Removes the files of recordings that were killed.
    fn new(folder: &Path) -> Result<Self> {
        for entry in fs::read_dir(folder).context("cannot read the runtime folder")?.flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|n| n.strip_prefix("record-")?.strip_suffix(".ring"));
            if pid.and_then(|pid| pid.parse().ok()).is_some_and(process::is_gone) {
                // Another recording may remove it at the same time.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Self(folder.join(format!("record-{}.ring", std::process::id()))))
    }
}

impl Drop for RingFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The mode of the trace: that of an existing file, else readable by every user.
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).map_or(0o644, |m| m.permissions().mode() & 0o777)
}

/// Name and version of this tool.
fn tool() -> String {
    format!("durac {}", env!("CARGO_PKG_VERSION"))
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// `CLOCK_MONOTONIC` in nanoseconds: the agent's clock.
fn monotonic() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}
