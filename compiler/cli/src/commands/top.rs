//! `durac top`: what runs under policies, and what a crash would take of it now.
//!
//! It reads the agents' status pages: two looks at each, an interval apart, give the rates.

mod lines;
mod screen;
mod table;

use crate::args::Global;
use crate::processes::Supervisor;
use crate::{Outcome, output, processes};
use anyhow::Result;
use clap::Args as ClapArgs;
use durac_bpftime::session::Said;
use durac_shm::status::{Running, Snapshot, Status};
use durac_workload::sys;
use lines::{Line, Total};
use screen::Keys;
use serde::Serialize;
use std::io;
use std::time::{Duration, Instant};

/// Show running processes under policies: what a power loss would take of each log now, and what it may take
///
/// On a terminal the table is drawn again and again; `q` ends it. `!` marks what is more than was proved.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  durac top\n  durac top :6379 --once --format json")]
pub struct Top {
    /// Processes, by number or by directory and port [default: every process under a policy]
    #[arg(value_name = "PID|DIR:PORT", value_parser = crate::args::word())]
    processes: Vec<String>,
    /// Interval over which rates are measured
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Number of tables to print [default: unlimited on a terminal, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print one table and end
    #[arg(long, conflicts_with = "count")]
    once: bool,
}

/// A line of text has this width where there is no terminal.
const WIDTH: usize = 200;
/// Rates of less would say nothing.
const SHORTEST: Duration = Duration::from_millis(10);
/// How long an interruption may wait.
const NAP: Duration = Duration::from_millis(50);

/// A table, as JSON.
#[derive(Serialize)]
struct Table<'a> {
    total: Total,
    logs: &'a [Line],
}

/// Prints tables until there are enough, or somebody stops it.
pub fn run(args: &Top, global: &Global) -> Result<Outcome> {
    if args.interval < SHORTEST {
        let shortest = SHORTEST.as_millis();
        return Err(output::exit(1, format!("the interval must be at least {shortest}ms")));
    }
    sys::catch_interrupts();
    let json = global.is_json();
    let count = args.count.or(args.once.then_some(1));
    let drawn = !json && count.is_none() && screen::is_screen();
    let count = count.unwrap_or(if drawn { u64::MAX } else { 1 });
    let pids = match args.processes.as_slice() {
        [] => Vec::new(),
        words => processes::named(words)?,
    };
    let keys = drawn.then(Keys::begin);
    let mut before = Looked::new(&pids)?;
    for _ in 0..count {
        let since = Instant::now();
        if waited(args.interval, since, keys.as_ref()) {
            break;
        }
        let now = Looked::new(&pids)?;
        let time = since.elapsed();
        let mut lines = lines::lines(&before.agents, &now.agents, time, super::metrics::now());
        let sessions = now.sessions.iter();
        lines.extend(sessions.map(|said| lines::in_bpftime(said, &before.sessions, time)));
        let text = if json {
            let table = Table { total: Total::of(&lines), logs: &lines };
            global.document.line("top", &table)?;
            String::new()
        } else if drawn {
            let (width, height) = screen::size();
            let table = output::for_people(&table::table(&lines, width));
            let kept: Vec<&str> = table.lines().take(height.saturating_sub(1)).collect();
            format!("{}{}\n", screen::CLEAR, kept.join("\n"))
        } else {
            output::for_people(&table::table(&lines, WIDTH))
        };
        output::stdout(text.as_bytes())?;
        if output::is_unread() {
            break;
        }
        before = now;
    }
    Ok(Outcome::Fine)
}

/// Waits for the end of the interval. Whether somebody has ended it all before.
fn waited(interval: Duration, since: Instant, keys: Option<&Keys>) -> bool {
    while since.elapsed() < interval {
        let nap = NAP.min(interval.saturating_sub(since.elapsed()));
        let ended = match keys {
            Some(keys) => keys.ended_within(nap),
            None => {
                std::thread::sleep(nap);
                false
            }
        };
        if ended || sys::interrupted() {
            return true;
        }
    }
    sys::interrupted()
}

/// What there is at one time.
struct Looked {
    agents: Vec<(u32, Snapshot)>,
    /// What the loaders of BPFtime's sessions say.
    sessions: Vec<Said>,
}

impl Looked {
    /// What the pages of these processes and their loaders say, or all of them.
    fn new(pids: &[u32]) -> Result<Self> {
        let mut sessions = durac_bpftime::session::running();
        let is_of = |said: &Said, pid: u32| said.in_force == Some(pid) || said.loader == pid;
        let found: Vec<Running> = if pids.is_empty() {
            durac_shm::status::running()
        } else {
            sessions.retain(|said| pids.iter().any(|pid| is_of(said, *pid)));
            let others = pids.iter().filter(|pid| !sessions.iter().any(|said| is_of(said, **pid)));
            let open = |&pid: &u32| {
                let status = Status::of_process(pid, false).map_err(|why| unreadable(pid, &why))?;
                Ok(Running { pid, status })
            };
            others.map(open).collect::<Result<_>>()?
        };
        if found.is_empty() && sessions.is_empty() {
            return Err(nothing_runs());
        }
        let agents = found.into_iter().map(|running| (running.pid, running.status.snapshot()));
        Ok(Self { agents: agents.collect(), sessions })
    }
}

/// What the agents' pages say of these processes.
pub(super) fn look(pids: &[u32]) -> Result<Vec<(u32, Snapshot)>> {
    Ok(Looked::new(pids)?.agents)
}

/// Nobody to show.
pub fn nothing_runs() -> anyhow::Error {
    let others = if sys::is_root() { "" } else { " that this user may see" };
    output::exit(1, format!("no process{others} has a log under a policy"))
}

/// Why the page of a process cannot be read.
pub fn unreadable(pid: u32, why: &io::Error) -> anyhow::Error {
    let why = match why.kind() {
        io::ErrorKind::NotFound if !std::path::Path::new(&format!("/proc/{pid}")).exists() => {
            "no such process".to_owned()
        }
        io::ErrorKind::NotFound => match processes::supervisor_of(pid) {
            Some(Supervisor::OneOf(several)) if several.len() > 1 => format!(
                "it has no log under a policy of its own, and which supervisor it has is not known: {}",
                several.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
            ),
            Some(one) => format!(
                "it has no log under a policy of its own; if process {} supervises it, name that",
                one.text()
            ),
            None => "it has no log under a policy".to_owned(),
        },
        io::ErrorKind::PermissionDenied => "it belongs to another user".to_owned(),
        io::ErrorKind::InvalidData => "its agent has a different version".to_owned(),
        _ => output::reason(why),
    };
    output::exit(1, format!("process {pid}: {why}"))
}
