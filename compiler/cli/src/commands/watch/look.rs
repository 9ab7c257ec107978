//! What can be seen of a command from outside: the files that its processes have open, what has become of
//! those files, and what the agent's status pages say of them.

use super::Watch;
use crate::processes::started;
use durac_abi::glob;
use durac_shm::status::Status;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a look has brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing yet.
    Nothing,
    /// The agent was called on a log.
    Asked,
    /// A log is written where the agent does not see it: a line that says so.
    Past(String),
    /// A process with a log uses io_uring: a line that says so.
    Ring(String),
}

/// Device and inode.
type FileId = (u64, u64);

/// Processes that are looked at, at most.
const PROCESSES: usize = 256;
/// Looks in a row in which a log has to be unknown to the agent: it may be about to be opened.
const UNKNOWN_LOOKS: u32 = 2;
/// Looks in which a known log has to be written without a call. A second or so has passed between some of
/// Redis' own syncs.
const SILENT_LOOKS: u32 = 10;

/// A log that is open for writing.
struct Open {
    id: FileId,
    path: PathBuf,
    /// Time of its last change, nanoseconds since 1970, and its length.
    state: (i128, u64),
}

/// A process that has logs open.
struct Process {
    pid: u32,
    logs: Vec<Open>,
    /// It has an io_uring descriptor.
    has_ring: bool,
}

/// What is remembered of a log.
#[derive(Default)]
struct Known {
    state: (i128, u64),
    unknown: u32,
    silent: u32,
}

/// What the agents of the processes know.
#[derive(Default)]
struct Pages {
    /// Logs that are or were open.
    logs: HashSet<FileId>,
    /// Those on which a sync call was made.
    asked: HashSet<FileId>,
    /// There are logs that the pages do not have.
    has_more: bool,
}

/// Looks at a command again and again.
pub struct Look<'a> {
    args: &'a Watch,
    known: HashMap<FileId, Known>,
    told_ring: bool,
}

impl<'a> Look<'a> {
    pub fn new(args: &'a Watch) -> Self {
        Self { args, known: HashMap::new(), told_ring: false }
    }

    /// Looks at these processes and those that they have started.
    pub fn again(&mut self, roots: &[u32]) -> Seen {
        let pids = family(roots);
        let mut pages = Pages::default();
        pids.iter().for_each(|&pid| pages.add(pid));
        let processes: Vec<Process> = pids.iter().filter_map(|&pid| self.process(pid)).collect();
        for process in &processes {
            for log in &process.logs {
                if let Some(line) = self.judge(process, log, &pages) {
                    return Seen::Past(line);
                }
            }
        }
        let ring = processes.iter().find(|process| process.has_ring && !process.logs.is_empty());
        if let Some(process) = ring
            && !self.args.rings
            && !std::mem::replace(&mut self.told_ring, true)
            && let Some(log) = process.logs.first()
        {
            return Seen::Ring(format!(
                "{} uses io_uring: policy `{}` does not act on calls on `{}` that it makes through it",
                described(process.pid),
                self.args.policy,
                log.path.display(),
            ));
        }
        if pages.asked.is_empty() { Seen::Nothing } else { Seen::Asked }
    }

    /// A line about a log that the agent should have seen something of.
    fn judge(&mut self, process: &Process, log: &Open, pages: &Pages) -> Option<String> {
        let is_new = !self.known.contains_key(&log.id);
        let known = self.known.entry(log.id).or_default();
        let changed = !is_new && known.state != log.state;
        known.state = log.state;
        let written = changed || (is_new && log.state.0 >= self.args.since);
        let (policy, path) = (&self.args.policy, log.path.display());
        if !pages.logs.contains(&log.id) && !pages.has_more {
            if !written && known.unknown == 0 {
                return None;
            }
            known.unknown += 1;
            if known.unknown < UNKNOWN_LOOKS {
                return None;
            }
            let who = described(process.pid);
            return Some(if has_agent(process.pid) {
                format!(
                    "policy `{policy}` does not act on `{path}`: {who} makes its calls on it unseen, past the C library or by a stream of it"
                )
            } else {
                format!(
                    "policy `{policy}` does not act on `{path}`: {who} runs without the agent; was its environment cleared?"
                )
            });
        }
        known.unknown = 0;
        if !written || pages.asked.contains(&log.id) || pages.has_more {
            return None;
        }
        known.silent += 1;
        (known.silent >= SILENT_LOOKS).then(|| {
            format!(
                "policy `{policy}` has not acted on `{path}`: {} writes it, and no sync call has reached the agent",
                described(process.pid)
            )
        })
    }

    /// What a process has open; none if it cannot be seen, or has no logs.
    fn process(&self, pid: u32) -> Option<Process> {
        let mut process = Process { pid, logs: Vec::new(), has_ring: false };
        let mut standard = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
            let Ok(path) = fs::read_link(entry.path()) else { continue };
            process.has_ring |= path.as_os_str() == "anon_inode:[io_uring]";
            if !glob::covers(&self.args.file, &self.args.except, &path) {
                continue;
            }
            let Ok(meta) = fs::metadata(entry.path()) else { continue };
            let id = (meta.dev(), meta.ino());
            if ["0", "1", "2"].iter().any(|number| entry.file_name() == *number) {
                // Output of a command that somebody has sent to such a file.
                standard.push(id);
            }
            let info = format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy());
            if meta.is_file() && is_for_writing(Path::new(&info)) {
                let state = (changed_at(&meta), meta.len());
                process.logs.push(Open { id, path, state });
            }
        }
        process.logs.retain(|log| !standard.contains(&log.id));
        Some(process)
    }
}

impl Pages {
    /// Adds what the agent of this process knows.
    fn add(&mut self, pid: u32) {
        let Ok(status) = Status::of_process(pid, false) else {
            // The agent cannot share its page under such a limit.
            self.has_more |= has_size_limit(pid);
            return;
        };
        let seen = status.snapshot();
        self.has_more |= seen.unplaced > 0 || seen.logs.len() >= durac_shm::status::MAX_LOGS;
        for log in seen.logs {
            if log.numbers.calls > 0 {
                self.asked.insert(log.file);
            }
            self.logs.insert(log.file);
        }
    }
}

/// The processes that the agent has marked as of this run, and that no other of them has started.
pub fn marked(run: &str) -> Vec<u32> {
    let mark = format!("/memfd:{}{run} ", durac_abi::RUN_MARK);
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // The command was not yet started when this process was. Maps of older ones, which may be large, need not be read.
    let since = started("self");
    let is_newer = |pid: &u32| started(&pid.to_string()) >= since;
    let is_marked = |pid: &u32| {
        let maps = fs::read(format!("/proc/{pid}/maps"));
        maps.is_ok_and(|maps| String::from_utf8_lossy(&maps).contains(&mark))
    };
    let marked: Vec<u32> = pids.filter(is_newer).filter(is_marked).collect();
    let is_started = |pid: &u32| parent(*pid).is_some_and(|parent| marked.contains(&parent));
    marked.iter().copied().filter(|pid| !is_started(pid)).take(PROCESSES).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

/// These processes and those that they have started.
fn family(roots: &[u32]) -> Vec<u32> {
    let mut pids = roots.to_vec();
    let mut at = 0;
    while let Some(&pid) = pids.get(at) {
        at += 1;
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        if pids.len() >= PROCESSES {
            pids.truncate(PROCESSES);
            break;
        }
    }
    pids
}

fn is_for_writing(info: &Path) -> bool {
    let text = fs::read_to_string(info).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_ACCMODE.unsigned_abs() != 0)
}

fn changed_at(meta: &fs::Metadata) -> i128 {
    i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec())
}

fn has_size_limit(pid: u32) -> bool {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max file size"));
    line.is_some_and(|line| !line.trim_start().starts_with("unlimited"))
}

/// Whether the agent is in this process.
fn has_agent(pid: u32) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.contains("durac_preload.so") || maps.contains("durac_faulty_preload.so")
}

/// Name and number of a process.
fn described(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("process {pid} (`{}`)", name.trim_end())
}
