//! Finding the status pages of running processes: through `/proc`, by the name of the memory.

use super::Status;
use super::file::NAME;
use durac_engine::Time;
use std::io;
use std::path::{Path, PathBuf};

/// A page, and the process it belongs to.
#[derive(Debug)]
pub struct Running {
    /// The process, as this process' `/proc` numbers it.
    pub pid: u32,
    /// Its page.
    pub status: Status,
}

impl Status {
    /// Maps the page of process `pid`, so that parameters can be set if `writable`.
    ///
    /// # Errors
    /// `NotFound` if there is no such process or it has no page, `PermissionDenied` if it is
    /// another user's, and whatever else the system said.
    pub fn of_process(pid: u32, writable: bool) -> io::Result<Self> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let own = own_number(&process)?;
        for entry in std::fs::read_dir(process.join("fd"))? {
            let path = entry?.path();
            // It may be closed by now.
            if !std::fs::read_link(&path).is_ok_and(|target| is_page(&target)) {
                continue;
            }
            // A forked child has its parent's page open, which is not its own.
            match Self::open_sealed(&path, writable) {
                Ok(status) if Some(status.page().pid()) == own => return Ok(status),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
                Err(_) => {}
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Every process with a page that this process may read, in the order of their numbers.
#[must_use]
pub fn running() -> Vec<Running> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut found: Vec<Running> = pids
        .filter(|&pid| maps_page(pid))
        .filter_map(|pid| Some(Running { pid, status: Status::of_process(pid, false).ok()? }))
        .collect();
    found.sort_by_key(|running| running.pid);
    found
}

/// When a process was started, by `CLOCK_BOOTTIME`, rounded down to a tick. None if it is not there.
#[must_use]
pub fn began(process: u32) -> Option<Time> {
    began_by(&std::fs::read(format!("/proc/{process}/stat")).ok()?)
}

/// The same, by what `/proc/PID/stat` says of it.
#[must_use]
pub fn began_by(stat: &[u8]) -> Option<Time> {
    // The name may contain anything; the 20th field after it is the time (proc_pid_stat(5)).
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let ticks: Time = fields.split_whitespace().nth(19)?.parse().ok()?;
    // SAFETY: no pointers.
    let per_second = Time::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok()?;
    ticks.checked_mul(1_000_000_000)?.checked_div(per_second)
}

/// Whether the process has mapped such memory: one file to read, where it may have a hundred
/// thousand descriptors.
fn maps_page(pid: u32) -> bool {
    let maps = std::fs::read(format!("/proc/{pid}/maps"));
    let name = NAME.to_string_lossy();
    maps.is_ok_and(|maps| String::from_utf8_lossy(&maps).contains(&*name))
}

fn is_page(target: &Path) -> bool {
    let text = target.to_str().and_then(|text| text.strip_prefix("/memfd:"));
    text.and_then(|text| text.split(' ').next()).map(str::as_bytes) == Some(NAME.to_bytes())
}

/// The number that the process has in its own pid namespace, which is what its page says.
fn own_number(process: &Path) -> io::Result<Option<u32>> {
    let status = std::fs::read_to_string(process.join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    Ok(line.and_then(|numbers| numbers.split_whitespace().last()?.parse().ok()))
}
