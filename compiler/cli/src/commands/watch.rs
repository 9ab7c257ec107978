//! What `durac run` leaves behind: a process that looks from outside whether the command makes calls on a
//! log that the agent cannot see, and tells so, once.
//!
//! It must change nothing for the command: it is no child of it, has no descriptor, terminal, group or lock
//! of it, takes a fraction of a processor's time, and ends with it, or with the last of the processes that
//! outlive it (a server that goes into the background). `look` is what it looks at.

mod look;
mod start;

use crate::{Outcome, output};
use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use durac_grammar::render::printable;
use look::{Look, Seen};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

pub use start::{Leaves, orphan, start};

/// Arguments of the process. Its standard input is a descriptor of the command (pidfd_open(2)).
#[derive(Debug, ClapArgs)]
pub struct Watch {
    /// The policy's name
    #[arg(long)]
    policy: String,
    /// The number of the run, which the command's processes are marked with
    #[arg(long)]
    run: String,
    /// Which files are logs
    #[arg(long)]
    file: Vec<String>,
    /// Which of these are none
    #[arg(long)]
    except: Vec<String>,
    /// When the command was started: nanoseconds since 1970
    #[arg(long)]
    since: i128,
    /// The agent has io_uring descriptors of its own
    #[arg(long)]
    rings: bool,
    /// Standard error of the command, as device and inode: opened to tell something, and not held
    #[arg(long, value_name = "DEVICE:INODE", value_parser = parse_file)]
    stderr: Option<(u64, u64)>,
}

fn parse_file(text: &str) -> Result<(u64, u64), String> {
    let numbers = text.split_once(':');
    numbers.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?))).ok_or("no file".into())
}

/// The first pauses between two looks; a look that takes much time of a processor is followed by a longer one.
const PAUSE: Duration = Duration::from_millis(500);
/// How much longer a pause is than what the look before it took of a processor: a share of 0.5 %.
const SHARE: u32 = 200;
/// How often the processes that outlive the command are looked for: one may start another and end in between.
const SEARCHES: u32 = 5;
const SEARCH_PAUSE: Duration = Duration::from_millis(50);
/// Looks after the agent was first called on a log. Then it is known that it sees the log.
const ASKED_LOOKS: u32 = 10;

/// Looks until there is something to tell, or nothing more to find out, or the command has ended.
pub fn run(args: &Watch) -> Result<Outcome> {
    // Standard error is the command's: what goes wrong here is not told there.
    let _ = watch(args);
    Ok(Outcome::Fine)
}

/// A process that is looked at, with those that it starts.
struct Root {
    pid: u32,
    /// pidfd_open(2)
    process: OwnedFd,
}

fn watch(args: &Watch) -> Result<()> {
    let mut roots: Vec<Root> = command()?.into_iter().collect();
    let mut look = Look::new(args);
    let mut pause = PAUSE;
    let mut asked = 0;
    while asked < ASKED_LOOKS {
        if roots.is_empty() || one_ends_within(&roots, pause)? {
            roots = left(&args.run);
            if roots.is_empty() {
                break;
            }
        }
        // Not the time that passes: on a busy machine that would be mostly others'.
        let began = processor_time();
        let pids: Vec<u32> = roots.iter().map(|root| root.pid).collect();
        match look.again(&pids) {
            Seen::Nothing => {}
            Seen::Asked => asked += 1,
            Seen::Past(line) => {
                tell(&pids, args.stderr, &line);
                break;
            }
            Seen::Ring(line) => tell(&pids, args.stderr, &line),
        }
        pause = PAUSE.max(processor_time().saturating_sub(began) * SHARE);
    }
    Ok(())
}

/// The processes that outlive the command.
fn left(run: &str) -> Vec<Root> {
    for search in 0..SEARCHES {
        if search > 0 {
            std::thread::sleep(SEARCH_PAUSE);
        }
        let roots: Vec<Root> = look::marked(run).into_iter().filter_map(Root::new).collect();
        if !roots.is_empty() {
            return roots;
        }
    }
    Vec::new()
}

/// What this process has taken of processors.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Root {
    /// The process of this number; none if it has ended.
    fn new(pid: u32) -> Option<Self> {
        let process = Pid::from_raw(i32::try_from(pid).ok()?)?;
        Some(Self { pid, process: pidfd_open(process, PidfdFlags::empty()).ok()? })
    }
}

/// The process that standard input is a descriptor of; none if it has ended.
fn command() -> Result<Option<Root>> {
    let info = std::fs::read_to_string("/proc/self/fdinfo/0").context("no standard input")?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    let pid = pid.context("standard input is not a descriptor of a process")?;
    // -1 if it has ended.
    let Ok(pid) = pid.trim().parse() else { return Ok(None) };
    Ok(Some(Root { pid, process: std::io::stdin().as_fd().try_clone_to_owned()? }))
}

/// Waits until one of them has ended; false if all still run after this time.
fn one_ends_within(roots: &[Root], time: Duration) -> Result<bool> {
    let time = Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    };
    let mut ends: Vec<PollFd<'_>> =
        roots.iter().map(|root| PollFd::new(&root.process, PollFlags::IN)).collect();
    match poll(&mut ends, Some(&time)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Prints a line on standard error: on that of one of these processes, if this process has none of its own.
fn tell(pids: &[u32], stderr: Option<(u64, u64)>, line: &str) {
    // It quotes names that others gave.
    let line = printable(line);
    let Some(file) = stderr else { return output::error(&line) };
    for pid in pids {
        // The process may have closed or replaced it. If all have, nobody is told.
        if start::write_to(&PathBuf::from(format!("/proc/{pid}/fd/2")), file, &line).is_ok() {
            return;
        }
    }
}
