//! What keeps the kernel's program attached when its loader ends before its target: a name in the BPF file system.
//!
//! Without it the count would stop with the loader, and the next sync of the target would count as failed.

use crate::calls::Calls;
use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where the BPF file system is mounted, by systemd and by convention.
const FOLDER: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` (`include/uapi/linux/magic.h`).
const MAGIC: libc::c_long = 0xcafe_4a11;

/// The name of a session's link; with the loader's number, so that one whose target still lives keeps its own.
#[derive(Debug)]
pub(crate) struct Pin(PathBuf);

impl Pin {
    /// Pins the link with that descriptor.
    pub(crate) fn new(session: &str, id: u64, link: i32) -> io::Result<Self> {
        let path = Path::new(FOLDER).join(format!("{}{id:016x}", prefix(session)));
        let c_path = CString::new(path.as_os_str().as_bytes())?;
        Calls::pin(link, &c_path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Lets the program end with this process.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The BPF file system does not allow a dot in a name, and two sessions have two prefixes.
fn prefix(session: &str) -> String {
    format!("durac_{}_", session.replace('%', "%25").replace('.', "%2e"))
}

/// Whether anything can be pinned.
pub(crate) fn is_mounted() -> bool {
    let Ok(path) = CString::new(FOLDER) else { return false };
    // SAFETY: the structure holds numbers and may be zero; the call fills it in.
    unsafe {
        let mut about: libc::statfs = std::mem::zeroed();
        libc::statfs(path.as_ptr(), &raw mut about) == 0 && about.f_type as libc::c_long == MAGIC
    }
}

/// Removes what earlier loaders of the session have left, when no target of theirs lives.
pub(crate) fn remove_left(session: &str) {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let prefix = prefix(session);
    // The number has 16 digits: another session's name can begin like this one's.
    let is_ours = |name: &OsStr| {
        let rest = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        rest.is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    for entry in entries.filter(|entry| is_ours(&entry.file_name())) {
        let _ = fs::remove_file(entry.path());
    }
}
