//! Processes under policies, as the user names them: by number, or by directory and port.

use crate::commands::top;
use crate::output;
use anyhow::Result;
use durac_shm::status::{Snapshot, Status};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long another tool may take that asks the same process.
const TURN: Duration = Duration::from_secs(15);
/// A socket that listens, in `/proc/PID/net/tcp` (`TCP_LISTEN` in `net/tcp_states.h`).
const LISTENS: &str = "0A";

/// What is said of a policy that is off.
pub const fn off_note(stays_off: bool) -> &'static str {
    match stays_off {
        true => {
            "the policy is off until the command ends, as the supervisor's log says: `durac on` is refused"
        }
        false => "the policy is off: `durac on` brings it back",
    }
}

/// Where a process serves: what its administrator knows it by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Its directory.
    #[serde(serialize_with = "crate::document::path")]
    pub directory: Option<PathBuf>,
    /// The lowest port it listens on.
    pub port: Option<u16>,
}

impl Place {
    /// Of a process; of a supervisor, that of the process that it serves.
    pub fn of(pid: u32) -> Self {
        let seen = Status::of_process(pid, false).map(|status| status.snapshot());
        Self::of_its(seen.ok().and_then(|seen| served(&seen, pid)).unwrap_or(pid))
    }

    fn of_its(pid: u32) -> Self {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let directory = fs::read_link(process.join("cwd")).ok();
        Self { directory, port: ports(&process).first().copied() }
    }

    /// `DIR:PORT`, with what is known.
    pub fn text(&self) -> String {
        let directory = self.directory.as_ref().map(|d| d.display().to_string());
        let directory = durac_grammar::render::printable(&directory.unwrap_or_default());
        match self.port {
            Some(port) => format!("{directory}:{port}"),
            None => directory,
        }
    }

    fn is(&self, directory: &str, port: Option<u16>) -> bool {
        let same = |named: &Path| {
            let of = fs::canonicalize(named).unwrap_or_else(|_| named.to_owned());
            self.directory.as_deref() == Some(of.as_path())
        };
        (directory.is_empty() || same(Path::new(directory)))
            && port.is_none_or(|port| self.port == Some(port))
    }
}

/// The process that a supervisor serves, if it still runs. A page of another pid namespace has numbers of that.
fn served(seen: &Snapshot, pid: u32) -> Option<u32> {
    let (process, at) = seen.serves;
    // What began later only has its number.
    let is_it = || durac_shm::status::began(process).is_some_and(|began| began <= at);
    (seen.is_supervisor && seen.pid == pid && is_it()).then_some(process)
}

/// Who supervises a process that is under a filter.
#[derive(Debug, PartialEq, Eq)]
pub enum Supervisor {
    /// It does.
    Certain(u32),
    /// One of these may.
    OneOf(Vec<u32>),
}

impl Supervisor {
    /// `1`, or `one of 1, 2`.
    pub fn text(&self) -> String {
        match self {
            Self::Certain(pid) => pid.to_string(),
            Self::OneOf(pids) => match pids.as_slice() {
                [one] => one.to_string(),
                several => {
                    let several: Vec<String> = several.iter().map(u32::to_string).collect();
                    format!("one of {}", several.join(", "))
                }
            },
        }
    }
}

/// The supervisor of a process; none if it has none.
pub fn supervisor_of(pid: u32) -> Option<Supervisor> {
    // It acts on processes that it has put under a filter.
    if filters(pid) == 0 {
        return None;
    }
    let supervisors: Vec<(u32, Snapshot)> = durac_shm::status::running()
        .into_iter()
        .map(|running| (running.pid, running.status.snapshot()))
        .filter(|(_, seen)| seen.is_supervisor)
        .collect();
    let line = ancestors(pid);
    let certain = supervisors.iter().find(|(supervisor, seen)| is_its(&line, *supervisor, seen));
    if let Some((supervisor, _)) = certain {
        return Some(Supervisor::Certain(*supervisor));
    }
    let all: Vec<u32> = supervisors.into_iter().map(|(pid, _)| pid).collect();
    (!all.is_empty()).then_some(Supervisor::OneOf(all))
}

/// Whether a process, with these ancestors, is of the supervisor's command. It is if it descends from the process that the
/// supervisor was started for, of which that has a descriptor, or if it and the process that the supervisor serves have an
/// ancestor under more filters than the supervisor itself: whoever started both is under no more than that.
fn is_its(line: &[u32], supervisor: u32, seen: &Snapshot) -> bool {
    if commands(supervisor).iter().any(|of| line.contains(of)) {
        return true;
    }
    let Some(served) = served(seen, supervisor) else { return false };
    let own = filters(supervisor);
    let of_command = |pid: &u32| filters(*pid) > own;
    ancestors(served).iter().take_while(|pid| of_command(pid)).any(|pid| line.contains(pid))
}

/// A process and those that it descends from.
fn ancestors(pid: u32) -> Vec<u32> {
    std::iter::successors(Some(pid), |pid| parent(*pid)).take(64).collect()
}

/// How many filters a process runs under: as many as it has inherited, and its own.
fn filters(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    if !is_filtered(&status) {
        return 0;
    }
    let count = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
    // Before Linux 5.9 nobody says.
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(1)
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok();
    parent.filter(|parent| *parent > 1)
}

/// The processes that this one has descriptors of (pidfd_open(2)).
fn commands(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return Vec::new() };
    let texts = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    texts
        .filter_map(|text| {
            text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
        })
        .collect()
}

/// Whether a process runs under seccomp, as its `/proc/PID/status` says.
pub fn is_filtered(status: &str) -> bool {
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
    mode.is_some_and(|mode| mode.trim() != "0")
}

/// The TCP ports that a process listens on.
fn ports(process: &Path) -> Vec<u16> {
    let mut sockets = BTreeSet::new();
    for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
        if let Ok(target) = fs::read_link(entry.path())
            && let Some(inode) = target.to_str().and_then(|t| t.strip_prefix("socket:["))
        {
            sockets.insert(inode.trim_end_matches(']').to_owned());
        }
    }
    let mut ports = BTreeSet::new();
    for table in ["net/tcp", "net/tcp6"] {
        let text = fs::read_to_string(process.join(table)).unwrap_or_default();
        ports.extend(text.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
            let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
            (*state == LISTENS && sockets.contains(*inode)).then_some(port)
        }));
    }
    ports.into_iter().collect()
}

/// Whether this word can only name a process by where it serves: `:6379` or `DIR:6379`. The parameters behind the name of a
/// policy have a `=`.
pub fn is_place(word: &str) -> bool {
    let is_port = |(_, port): (&str, &str)| port.parse::<u16>().is_ok();
    word.rsplit_once(':').is_some_and(is_port) && !Path::new(word).exists()
}

/// The process whose page is meant by this number: of one that is supervised, its supervisor.
fn with_page(pid: u32) -> u32 {
    if Status::of_process(pid, false).is_ok() {
        return pid;
    }
    match supervisor_of(pid) {
        Some(Supervisor::Certain(supervisor)) => supervisor,
        _ => pid,
    }
}

/// The processes that these words name: `4711`, `:6379`, `/var/lib/redis` or `/var/lib/redis:6379`; without a word the
/// only one there is. A process that is supervised stands for its supervisor.
pub fn named(words: &[String]) -> Result<Vec<u32>> {
    named_as(words, "name one")
}

/// The same for a command in which one is named so.
pub fn named_as(words: &[String], how: &str) -> Result<Vec<u32>> {
    if words.is_empty() {
        return Ok(vec![only(how)?]);
    }
    let mut pids = Vec::new();
    for word in words {
        if let Ok(pid) = word.parse() {
            pids.push(with_page(pid));
            continue;
        }
        let (directory, port) = match word.rsplit_once(':') {
            Some((directory, port)) if !Path::new(word).is_dir() => {
                let port = port.parse().map_err(|_| {
                    output::exit(1, format!("invalid process `{word}`: expected PID or DIR:PORT"))
                })?;
                (directory, Some(port))
            }
            _ => (word.as_str(), None),
        };
        // A script's variable that is empty is not every process.
        if directory.is_empty() && port.is_none() {
            let why = "invalid process ``: the word is empty; expected PID or DIR:PORT";
            return Err(output::exit(1, why));
        }
        let running = durac_shm::status::running();
        let found = running.iter().map(|r| r.pid).filter(|&pid| Place::of(pid).is(directory, port));
        let before = pids.len();
        pids.extend(found);
        if pids.len() == before {
            return Err(output::exit(1, format!("no process under a policy is at `{word}`")));
        }
    }
    let mut once = BTreeSet::new();
    pids.retain(|pid| once.insert(*pid));
    Ok(pids)
}

/// The one process that runs under a policy.
fn only(how: &str) -> Result<u32> {
    let running = durac_shm::status::running();
    match running.as_slice() {
        [one] => Ok(one.pid),
        [] => Err(top::nothing_runs()),
        several => {
            let list =
                several.iter().map(|r| format!("\n    {} {}", r.pid, Place::of(r.pid).text()));
            Err(output::exit(
                1,
                format!("several processes run under a policy: {how}{}", list.collect::<String>()),
            ))
        }
    }
}

/// What the page of a process says.
pub fn seen(pid: u32) -> Result<Snapshot> {
    let status = Status::of_process(pid, false).map_err(|why| top::unreadable(pid, &why))?;
    Ok(status.snapshot())
}

/// The page of a process, to change it: once nobody else does.
pub fn control(pid: u32) -> Result<durac_shm::status::Control> {
    let begun = Instant::now();
    loop {
        let status = Status::of_process(pid, true).map_err(|why| top::unreadable(pid, &why))?;
        let why = match status.control() {
            Ok(control) => return Ok(control),
            Err(why) => why,
        };
        match why.kind() {
            io::ErrorKind::WouldBlock if begun.elapsed() < TURN => {
                std::thread::sleep(Duration::from_millis(20));
            }
            io::ErrorKind::WouldBlock => {
                return Err(output::exit(2, format!("process {pid}: another durac changes it")));
            }
            io::ErrorKind::Unsupported => {
                let text = "its status page is a file, not its own memory: this needs a restart";
                return Err(output::exit(1, format!("process {pid}: {text}")));
            }
            _ => return Err(top::unreadable(pid, &why)),
        }
    }
}

/// Between two looks whether another program has taken over.
const LOOK: Duration = Duration::from_millis(20);

/// Whether nobody answers any more: the process has ended, or become another program than that which began at `since`.
pub fn is_over(pid: u32, since: u64) -> impl FnMut() -> bool {
    let mut looked = Instant::now();
    move || {
        if looked.elapsed() < LOOK {
            return false;
        }
        looked = Instant::now();
        let another = |status: Status| status.page().since() != since;
        has_ended(pid) || Status::of_process(pid, false).is_ok_and(another)
    }
}

/// Whether it is gone, or a zombie.
pub fn has_ended(pid: u32) -> bool {
    matches!(stat(&pid.to_string(), 0).as_deref(), None | Some("Z" | "X"))
}

/// When a process was started, in ticks since the machine was; none if it is not there. `self` is this one.
pub fn started(process: &str) -> Option<u64> {
    stat(process, 19)?.parse().ok()
}

/// A field of `/proc/PID/stat` (proc_pid_stat(5)), counted from the one after the name, which may contain anything.
fn stat(process: &str, field: usize) -> Option<String> {
    let stat = std::fs::read(format!("/proc/{process}/stat")).ok()?;
    let text = String::from_utf8_lossy(&stat);
    let (_, fields) = text.rsplit_once(") ")?;
    fields.split_whitespace().nth(field).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::Place;
    use std::net::TcpListener;

    #[test]
    fn this_process_has_a_place() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let here = std::env::current_dir().unwrap();
        let place = Place::of(std::process::id());
        assert_eq!(place.directory.as_deref(), Some(here.as_path()));
        assert!(place.port.is_some_and(|lowest| lowest <= port));
        let alone = Place { port: Some(port), ..place };
        assert!(alone.is("", Some(port)) && alone.is(here.to_str().unwrap(), None));
        assert!(!alone.is("", Some(port ^ 1)) && !alone.is("/", Some(port)));
        assert!(alone.text().ends_with(&format!(":{port}")));
    }
}
