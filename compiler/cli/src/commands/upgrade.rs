//! `durac upgrade`: this program takes over from a running supervisor, which its command does not notice.

use crate::args::Global;
use crate::processes::{self, Place};
use crate::{Outcome, output};
use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use durac_grammar::render::printable;
use durac_shm::status::{Answer, Command, Status};
use serde::Serialize;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a supervisor may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long all of it may take where the old one cannot be asked.
const LONG: Duration = Duration::from_secs(60);
/// How long a supervisor that begins may have no page.
const START: Duration = Duration::from_secs(2);
/// Between two looks whether another program has taken over.
const LOOK: Duration = Duration::from_millis(20);

/// Have this durac take over from running supervisors, without a restart of their commands
///
/// The supervisor tries this program first: it has to know what the old one hands over, and to accept the policy's object.
/// Then everything acknowledged is made durable, calls under way are answered, and the supervisor's process becomes
/// this program. Calls that the command makes meanwhile wait. If anything is wrong, the old program goes on. Counters
/// begin at 0; the policy, its parameters and the bound stay.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  durac upgrade\n  durac upgrade 4711")]
pub struct Upgrade {
    /// Supervisors, by number or by directory and port [default: the only process under a policy]
    #[arg(value_name = "PID|DIR:PORT", value_parser = crate::args::word())]
    processes: Vec<String>,
}

/// A supervisor from which this program was to take over.
#[derive(Debug, Serialize)]
struct Change {
    pid: u32,
    #[serde(flatten)]
    place: Place,
    /// The program that runs now.
    #[serde(serialize_with = "crate::document::path")]
    program: Option<PathBuf>,
    /// Why the old one goes on.
    refused: Option<String>,
    /// It is this one.
    #[serde(skip)]
    is_this: bool,
}

/// Takes over.
pub fn run(args: &Upgrade, global: &Global) -> Result<Outcome> {
    let program = std::env::current_exe().context("cannot find durac itself")?;
    let pids = processes::named(&args.processes)?;
    let mut changes = Vec::new();
    let mut failed = None;
    for pid in pids {
        match one(pid, &program) {
            Ok(change) => changes.push(change),
            Err(why) => {
                failed = Some(why);
                break;
            }
        }
    }
    let told = report(&changes, global);
    match failed {
        Some(why) => Err(why),
        None if changes.iter().any(|change| change.refused.is_some()) => {
            told.map(|()| Outcome::Wrong)
        }
        None => told.map(|()| Outcome::Fine),
    }
}

fn one(pid: u32, program: &Path) -> Result<Change> {
    let place = Place::of(pid);
    let begun = Instant::now();
    // One that has just taken over has no page for a moment.
    while Status::of_process(pid, false).is_err_and(|why| why.kind() == io::ErrorKind::NotFound)
        && is_supervisor(pid)
        && begun.elapsed() < START
    {
        std::thread::sleep(LOOK);
    }
    let mut now = Some(program.to_owned());
    let mut is_this = true;
    let refused = match Status::of_process(pid, false) {
        // A page of another version: it is asked by a signal, and says why not in its own lines.
        Err(why) if why.kind() == io::ErrorKind::NotFound && is_supervisor(pid) => {
            let refused = signal(pid)?;
            now = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
            is_this = runs_this(pid);
            refused
        }
        _ => ask(pid, program)?,
    };
    let program = now.filter(|_| refused.is_none());
    Ok(Change { pid, place, program, refused, is_this })
}

/// Asks the supervisor by its page. Returns why it goes on as it is.
fn ask(pid: u32, program: &Path) -> Result<Option<String>> {
    let before = processes::seen(pid)?;
    if !before.is_supervisor {
        let why = "it is not a supervisor: an agent comes with its process, which has to be started again";
        return Err(output::exit(1, format!("process {pid}: {why}")));
    }
    let control = processes::control(pid)?;
    let is_over = processes::is_over(pid, control.since());
    let bytes = program.as_os_str().as_bytes();
    match control.ask_until(Command::Upgrade, bytes, PATIENCE, is_over) {
        Ok(Some(Answer::Refused(why) | Answer::Failed(why))) => Ok(Some(printable(&why))),
        Ok(Some(Answer::Done(_)) | None) => {
            has_taken_over(pid)?;
            match runs_this(pid) {
                true => Ok(None),
                false => {
                    let why = "another program has taken over meanwhile, not this one";
                    Err(output::exit(1, format!("process {pid}: {why}")))
                }
            }
        }
        Err(why) if why.kind() == io::ErrorKind::TimedOut => {
            Err(output::exit(2, format!("process {pid}: it does not answer")))
        }
        Err(why) => Err(output::exit(2, format!("process {pid}: {}", output::reason(&why)))),
    }
}

/// Has the program at the supervisor's own path take over.
fn signal(pid: u32) -> Result<Option<String>> {
    let process = rustix::process::Pid::from_raw(pid.try_into()?).context("a process")?;
    rustix::process::kill_process(process, rustix::process::Signal::USR2)
        .map_err(|why| output::exit(1, format!("process {pid}: {why}")))?;
    let begun = Instant::now();
    while begun.elapsed() < LONG {
        if Status::of_process(pid, false).is_ok() {
            return Ok(None);
        }
        has_taken_over(pid)?;
        std::thread::sleep(LOOK);
    }
    Ok(Some("this durac cannot talk to its version; see its log".to_owned()))
}

/// The process must not have ended meanwhile.
fn has_taken_over(pid: u32) -> Result<()> {
    if !processes::has_ended(pid) {
        return Ok(());
    }
    let why = "the supervisor has ended; if its command has not, that runs without a policy, and the keeper syncs what was acknowledged";
    Err(output::exit(2, format!("process {pid}: {why}")))
}

/// Whether a process runs this program. If that cannot be seen, it does: it was asked to.
fn runs_this(pid: u32) -> bool {
    let file = |path: String| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    match (file(format!("/proc/{pid}/exe")), file("/proc/self/exe".to_owned())) {
        (Ok(its), Ok(ours)) => its == ours,
        _ => true,
    }
}

/// Whether a process is a supervisor that takes the signal, which ends any other process: its keeper has the same words.
fn is_supervisor(pid: u32) -> bool {
    let has_word = std::fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|words| words.split(|byte| *byte == 0).any(|word| word == b"supervise-command"));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let has = |name: &str| {
        let set = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("");
        let set = u64::from_str_radix(set.trim(), 16).unwrap_or(0);
        set & 1 << (rustix::process::Signal::USR2.as_raw() - 1) != 0
    };
    has_word && has("SigBlk:") && !has("SigIgn:")
}

fn report(changes: &[Change], global: &Global) -> Result<()> {
    if global.is_json() {
        global.document.put_field("processes", &changes)?;
    }
    let mut told = Ok(());
    for change in changes {
        if let Some(why) = &change.refused {
            output::error(&format!("process {}: the supervisor stays as it is: {why}", change.pid));
        } else if let (Some(program), false) = (&change.program, global.is_json()) {
            let version = match change.is_this {
                true => concat!(" (durac ", env!("CARGO_PKG_VERSION"), ")"),
                false => "",
            };
            let text = format!(
                "process {} ({}): `{}`{version} has taken over\n    all that was acknowledged before is durable; the \
                 policy and its parameters stay, counters begin at 0\n",
                change.pid,
                change.place.text(),
                printable(&program.display().to_string()),
            );
            told = told.and(output::told(&text));
        }
    }
    told
}
