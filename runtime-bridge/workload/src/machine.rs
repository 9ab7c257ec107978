//! The facts of the machine without which a figure says nothing.

use crate::error::{Result, Trying};
use crate::stats::percentile;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Syncs measured for [`Machine::fdatasync_us`].
const SYNCS: usize = 200;

/// File systems that keep nothing: a sync costs nothing there, so comparing modes is pointless.
const VOLATILE: [&str; 2] = ["tmpfs", "ramfs"];

/// What a measurement was made on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor, as /proc/cpuinfo names it.
    pub cpu: String,
    /// Processors this process may use.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Type of the file system of the logs.
    pub file_system: String,
    /// What that file system is on.
    pub device: String,
    /// Median time of appending 100 bytes and fdatasync, measured before the first round,
    /// microseconds.
    pub fdatasync_us: f64,
    /// What the server's `--version` says: `7.0.15` of Redis, `Valkey 9.1.0` of another; `None` if
    /// there is none.
    pub redis: Option<String>,
    /// The load average of the last minute, before the first round.
    pub load: f64,
}

impl Machine {
    /// The facts of this machine, for logs in the directory `dir`, and of the server that is measured.
    ///
    /// # Errors
    /// If nothing can be written and synced there.
    pub fn look(dir: &Path, server: &Path) -> Result<Self> {
        let (file_system, device) = file_system(dir);
        Ok(Self {
            cpu: cpu(&read("/proc/cpuinfo")),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system,
            device,
            fdatasync_us: fdatasync_us(dir)?,
            redis: version(server),
            load: first_number(&read("/proc/loadavg")),
        })
    }

    /// Name and version of the database.
    #[must_use]
    pub fn database(&self) -> Option<String> {
        let version = self.redis.as_deref()?;
        let is_number = version.starts_with(|c: char| c.is_ascii_digit());
        Some(if is_number { format!("Redis {version}") } else { version.to_owned() })
    }

    /// Why figures of it say little: other programs were running before the first round.
    #[must_use]
    pub fn is_busy(&self) -> Option<String> {
        busy(self.load, self.cores)
    }

    /// Whether a sync reaches something that survives a power loss.
    #[must_use]
    pub fn keeps_data(&self) -> bool {
        !VOLATILE.contains(&self.file_system.as_str())
    }
}

/// Why figures of this machine would say little now.
#[must_use]
pub fn is_busy_now() -> Option<String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    busy(first_number(&read("/proc/loadavg")), cores)
}

/// With more load than half a process for each core, what is measured shares them.
fn busy(load: f64, cores: usize) -> Option<String> {
    (load > cores as f64 / 2.0).then(|| {
        format!(
            "the machine is busy (load {load:.2} on {cores} cores): figures are too low and vary"
        )
    })
}

/// Whether `dir` lies in memory, so that nothing there outlives a power loss.
#[must_use]
pub fn is_volatile(dir: &Path) -> bool {
    VOLATILE.contains(&file_system(dir).0.as_str())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn cpu(cpuinfo: &str) -> String {
    let value =
        |line: &str| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().into());
    cpuinfo.lines().find_map(value).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn first_number(text: &str) -> f64 {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// Type and device of the file system that holds `dir`.
fn file_system(dir: &Path) -> (String, String) {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    find_mount(&read("/proc/self/mountinfo"), &dir)
        .unwrap_or_else(|| ("unknown".to_owned(), "unknown".to_owned()))
}

/// Finds the mount in the text of /proc/self/mountinfo, see proc_pid_mountinfo(5). Of mounts on
/// the same place the last one covers the others.
fn find_mount(mountinfo: &str, dir: &Path) -> Option<(String, String)> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, origin) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?.replace("\\040", " ");
        let mut origin = origin.split(' ');
        Some((point, origin.next()?.to_owned(), origin.next()?.to_owned()))
    });
    mounts
        .filter(|(point, ..)| dir.starts_with(point))
        .max_by_key(|(point, ..)| point.len())
        .map(|(_, kind, device)| (kind, device))
}

fn fdatasync_us(dir: &Path) -> Result<f64> {
    let what = || format!("measure fdatasync in {}", dir.display());
    let mut file = tempfile::tempfile_in(dir).trying(what)?;
    let mut nanos = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let started = Instant::now();
        file.write_all(&[b'.'; 100]).and_then(|()| file.sync_data()).trying(what)?;
        nanos.push(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    nanos.sort_unstable();
    Ok(percentile(&nanos, 0.5) as f64 / 1e3)
}

fn version(server: &Path) -> Option<String> {
    let output = Command::new(server).arg("--version").output().ok()?;
    parse_version(&String::from_utf8(output.stdout).ok()?)
}

/// Reads `Redis server v=7.0.15 sha=…`.
fn parse_version(text: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    let name = words.next()?;
    let version = words.find_map(|word| word.strip_prefix("v="))?;
    Some(if name == "Redis" { version.to_owned() } else { format!("{name} {version}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_at_this_machine() {
        let machine = Machine::look(&std::env::temp_dir(), Path::new("redis-server")).unwrap();
        assert!(machine.cores > 0 && machine.fdatasync_us > 0.0, "{machine:?}");
        assert!(!machine.kernel.is_empty() && machine.file_system != "unknown", "{machine:?}");
    }

    #[test]
    fn a_busy_machine_is_told_of() {
        assert_eq!(busy(1.0, 2), None);
        assert!(busy(1.1, 2).is_some_and(|why| why.contains("load 1.10 on 2 cores")));
    }

    #[test]
    fn the_servers_version() {
        let version = |text| parse_version(text);
        assert_eq!(version("Redis server v=7.0.15 sha=0:0 bits=64\n"), Some("7.0.15".into()));
        assert_eq!(version("Valkey server v=9.1.0 sha=0:0 bits=64\n"), Some("Valkey 9.1.0".into()));
        assert_eq!(version("something else\n"), None);
    }

    #[test]
    fn the_innermost_and_last_mount_counts() {
        let mountinfo = "1 0 254:0 / / rw,relatime - ext4 /dev/root rw\n\
            2 1 0:5 / /a\\040b rw shared:1 - xfs /dev/b rw\n\
            3 2 0:6 / /a\\040b rw - tmpfs none rw\n\
            4 1 0:7 / /a rw - btrfs /dev/a rw\n";
        let find = |dir: &str| find_mount(mountinfo, Path::new(dir)).unwrap();
        assert_eq!(find("/x"), ("ext4".into(), "/dev/root".into()));
        assert_eq!(find("/a b/c"), ("tmpfs".into(), "none".into()));
        assert_eq!(find("/a/c").0, "btrfs");
        assert_eq!(find("/ab").0, "ext4");
    }

    #[test]
    fn memory_keeps_nothing() {
        assert!(is_volatile(Path::new("/dev/shm")));
    }
}
