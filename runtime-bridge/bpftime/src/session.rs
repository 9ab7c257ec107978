//! A session: the name under which BPFtime's server and agent share memory, and the one loader that may use it.
//!
//! The first call that BPFtime's server intercepts clears the session, whoever it belongs to. So the lock is taken
//! before the server runs ([`Session::take`]), and handed on to the process in which it does ([`Session::inherit`]).
//! The file that is locked also says what the loader knows, for `durac top` ([`running`]).

use crate::process::{Process, Uses};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Variable with the name.
pub const NAME: &str = "BPFTIME_GLOBAL_SHM_NAME";
/// BPFtime's name if there is none (`handler_manager.hpp`).
const DEFAULT: &str = "bpftime_maps_shm";
/// Where POSIX shared memory is (`shm_overview(7)`).
const FOLDER: &str = "/dev/shm";
/// Ends the name of the file that is locked.
pub(crate) const ENDING: &str = ".durac";
/// The name of BPFtime's server contains it.
const SERVER: &str = "bpftime-syscall-server";

/// How often a lock is tried whose holder is not known, and how long apart.
const LOOKS: usize = 10;
const LOOK: Duration = Duration::from_millis(20);

/// Why a session cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Its name is none of a file.
    #[error("invalid session name `{0}` in {NAME}: expected a name without `/`, at most 200 bytes")]
    Name(String),
    /// Another loader is at work.
    #[error(
        "the session `{name}` is in use by {who}: a second loader would drop its policy; give each target \
         a session of its own: `export {NAME}=…`, here and for the target"
    )]
    InUse {
        /// The session.
        name: String,
        /// The other loader.
        who: String,
    },
    /// Somebody else's.
    #[error(
        "the session `{name}` belongs to another user ({path}): start the loader and the target as the same \
         user, or choose another session: `export {NAME}=…`"
    )]
    Foreign {
        /// The session.
        name: String,
        /// What belongs to the other user.
        path: String,
    },
    /// A file cannot be opened, read or removed.
    #[error("cannot use the session file `{path}`: {why}")]
    File {
        /// The file.
        path: String,
        /// Why.
        why: io::Error,
    },
}

/// A session that no other loader uses as long as this lives.
#[derive(Debug)]
pub struct Session {
    name: String,
    lock: File,
}

/// The name in the environment.
///
/// # Errors
/// If it cannot be that of shared memory.
pub fn name() -> Result<String, SessionError> {
    let name = std::env::var_os(NAME).unwrap_or_else(|| DEFAULT.into());
    let name = name.to_string_lossy().into_owned();
    let fits =
        !name.is_empty() && name.len() <= 200 && !name.contains('/') && !name.starts_with('.');
    if fits { Ok(name) } else { Err(SessionError::Name(name)) }
}

impl Session {
    /// Takes the session, and removes memory that a loader which was killed has left. A target that still uses that
    /// memory keeps it, and passes every call.
    ///
    /// # Errors
    /// If another loader uses it, or it belongs to another user.
    pub fn take(name: String) -> Result<Self, SessionError> {
        let path = lock_path(&name);
        let file = |why: io::Error| file_error(&name, &path, why);
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path);
        let lock = open.map_err(file)?;
        let in_use = |who| Err(SessionError::InUse { name: name.clone(), who });
        // `durac top` looks whether it is locked, and holds it for a moment.
        let mut free = try_lock(&lock).map_err(file)?;
        for _ in 0..LOOKS {
            if free || Process(said(String::new(), &content(&lock)).loader).lives() {
                break;
            }
            std::thread::sleep(LOOK);
            free = try_lock(&lock).map_err(file)?;
        }
        if !free {
            return in_use(describe(&content(&lock)));
        }
        let memory = memory_path(&name);
        let users = Process::all().into_iter().filter(|p| p.uses(&memory) == Uses::Session);
        if let Some(Process(pid)) = users.into_iter().find(|p| p.has_library(SERVER)) {
            return in_use(format!("another loader (process {pid})"));
        }
        match fs::metadata(&memory) {
            Ok(meta) if meta.uid() != effective_user() && effective_user() != 0 => {
                return Err(SessionError::Foreign { name, path: memory });
            }
            Ok(_) => remove(&memory).map_err(|why| file_error(&name, Path::new(&memory), why))?,
            Err(_) => {}
        }
        Ok(Self { name, lock })
    }

    /// The session that the process took which has started this program in its own place.
    #[must_use]
    pub fn inherit(name: String, lock: RawFd) -> Option<Self> {
        let there = fs::read_link(format!("/proc/self/fd/{lock}")).ok()?;
        // SAFETY: the descriptor is open, and it is that of the lock, which nothing else here knows.
        (there == lock_path(&name)).then(|| Self { name, lock: unsafe { File::from_raw_fd(lock) } })
    }

    /// The descriptor of the lock, which a program that is started in this one's place inherits.
    ///
    /// # Errors
    /// When the system refuses to pass it on.
    pub fn hand_on(&self) -> io::Result<RawFd> {
        let fd = self.lock.as_raw_fd();
        // SAFETY: the descriptor is open.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(fd)
    }

    /// Programs that are started from now on do not inherit the lock.
    pub fn keep(&self) {
        // SAFETY: the descriptor is open.
        unsafe { libc::fcntl(self.lock.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file of the memory.
    #[must_use]
    pub fn memory(&self) -> String {
        memory_path(&self.name)
    }

    /// Says for others what is known: lines of a name and a value.
    pub fn say(&self, lines: &[(&str, String)]) {
        let one = |text: &str| text.replace(['\n', '\r'], " ");
        let text: String =
            lines.iter().map(|(name, value)| format!("{name} {}\n", one(value))).collect();
        // Nobody depends on it: without it, `durac top` shows less.
        let _ = self.lock.write_all_at(text.as_bytes(), 0);
        let _ = self.lock.set_len(text.len() as u64);
    }

    /// Whether a process still uses memory of this name, of this loader or of an earlier one.
    #[must_use]
    pub fn is_used_by_others(&self) -> bool {
        let (own, memory) = (std::process::id(), self.memory());
        let mut others = Process::all().into_iter().filter(|process| process.0 != own);
        others.any(|process| process.uses(&memory) != Uses::Nothing)
    }

    /// Removes the memory's name: a target that starts later finds none.
    pub fn remove_memory(&self) {
        let _ = remove(&self.memory());
    }

    /// Keeps descriptor number `number` taken from now on: BPFtime takes a number that is closed for that of one
    /// of its own, and this one is the kernel's number of a map.
    pub(crate) fn reserve(&self, number: u32) {
        let Ok(number) = libc::c_int::try_from(number) else { return };
        // SAFETY: duplicates an open descriptor, at that number or above; it is never closed.
        unsafe { libc::fcntl(self.lock.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number) };
    }
}

/// What a loader says of its session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The session.
    pub session: String,
    /// The loader's process.
    pub loader: u32,
    /// Name of the policy.
    pub policy: String,
    /// The target's program.
    pub target: String,
    /// The process in which the policy is in force.
    pub in_force: Option<u32>,
    /// Where it is in force, or why nowhere.
    pub standing: String,
    /// Calls for which the policy ran.
    pub calls: u64,
    /// Syncs that its programs have started.
    pub syncs: u64,
    /// Of those calls, how many are not known to be durable.
    pub pending: u64,
}

/// The sessions whose loader lives.
#[must_use]
pub fn running() -> Vec<Said> {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let of = |name: String| {
        let file = File::open(lock_path(&name)).ok()?;
        // Whoever holds the lock lives.
        let free = try_shared(&file).ok()?;
        (!free).then(|| said(name, &content(&file)))
    };
    let names = entries.filter_map(|entry| {
        Some(entry.file_name().to_str()?.strip_suffix(ENDING)?.to_owned())
            .filter(|name| !name.is_empty())
    });
    let mut all: Vec<Said> = names.filter_map(of).collect();
    all.sort_by(|a, b| a.session.cmp(&b.session));
    all
}

fn said(session: String, text: &str) -> Said {
    let field = |wanted: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| value.to_owned())
            .unwrap_or_default()
    };
    let number = |wanted: &str| field(wanted).parse::<u64>().unwrap_or(0);
    Said {
        session,
        loader: number("loader") as u32,
        policy: field("policy"),
        target: field("target"),
        in_force: field("in_force").parse().ok(),
        standing: field("standing"),
        calls: number("calls"),
        syncs: number("syncs"),
        pending: number("pending"),
    }
}

fn describe(text: &str) -> String {
    let said = said(String::new(), text);
    match said.loader {
        0 => "another loader".to_owned(),
        pid => format!("the loader of policy {} (process {pid})", said.policy),
    }
}

fn file_error(name: &str, path: &Path, why: io::Error) -> SessionError {
    let (name, path) = (name.to_owned(), path.display().to_string());
    match why.kind() {
        io::ErrorKind::PermissionDenied => SessionError::Foreign { name, path },
        _ => SessionError::File { path, why },
    }
}

fn lock_path(name: &str) -> PathBuf {
    PathBuf::from(format!("{FOLDER}/{name}{ENDING}"))
}

fn memory_path(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

fn remove(path: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        _ => Ok(()),
    }
}

fn content(file: &File) -> String {
    let mut bytes = vec![0; 4096];
    let read = file.read_at(&mut bytes, 0).unwrap_or(0);
    bytes.truncate(read);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether the lock was free.
fn try_lock(file: &File) -> io::Result<bool> {
    lock(file, libc::LOCK_EX)
}

fn try_shared(file: &File) -> io::Result<bool> {
    lock(file, libc::LOCK_SH)
}

fn lock(file: &File, how: libc::c_int) -> io::Result<bool> {
    // SAFETY: the descriptor is open.
    if unsafe { libc::flock(file.as_raw_fd(), how | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        why if why.kind() == io::ErrorKind::WouldBlock => Ok(false),
        why => Err(why),
    }
}

fn effective_user() -> u32 {
    // SAFETY: it only returns a number.
    unsafe { libc::geteuid() }
}
