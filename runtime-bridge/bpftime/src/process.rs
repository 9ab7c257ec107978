//! What `/proc` says of the processes that could be a session's target.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes of a function that are compared with its file: fewer than the shortest patch replaces.
const COMPARED: usize = 5;

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(pub u32);

/// What a process has mapped of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uses {
    /// Nothing.
    Nothing,
    /// The session's memory as it is now.
    Session,
    /// Memory of that name which is no longer there for others.
    Earlier,
}

impl Process {
    /// Every process that can be seen.
    pub(crate) fn all() -> Vec<Self> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Self)).collect()
    }

    /// Those that run the program of `target`.
    pub(crate) fn running(target: &Path) -> Vec<Self> {
        let Ok(wanted) = fs::metadata(target) else { return Vec::new() };
        Self::all().into_iter().filter(|process| process.runs(&wanted)).collect()
    }

    fn runs(self, wanted: &fs::Metadata) -> bool {
        let same = |meta: fs::Metadata| (meta.dev(), meta.ino()) == (wanted.dev(), wanted.ino());
        fs::metadata(self.path("exe")).is_ok_and(same)
    }

    pub(crate) fn path(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }

    fn maps(self) -> String {
        fs::read(self.path("maps"))
            .map_or_else(|_| String::new(), |b| String::from_utf8_lossy(&b).into())
    }

    fn status(self, field: &str) -> Option<String> {
        let text = fs::read_to_string(self.path("status")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    }

    /// Whether it lives.
    pub(crate) fn lives(self) -> bool {
        // A zombie has ended.
        self.status("State").is_some_and(|state| !state.starts_with(['Z', 'X']))
    }

    /// The user that it runs as.
    pub(crate) fn user(self) -> Option<u32> {
        fs::metadata(self.path("")).ok().map(|meta| meta.uid())
    }

    /// Its number in its own namespace.
    pub(crate) fn inner_number(self) -> Option<u64> {
        self.status("NSpid")?.split_whitespace().last()?.parse().ok()
    }

    /// Whether it numbers processes as this one does.
    pub(crate) fn same_namespace(self) -> bool {
        let of = |path: PathBuf| fs::read_link(path).ok();
        of(self.path("ns/pid")).is_none_or(|it| Some(it) == of("/proc/self/ns/pid".into()))
    }

    /// Whether its system calls are filtered.
    pub(crate) fn is_filtered(self) -> bool {
        self.status("Seccomp").is_some_and(|mode| mode != "0")
    }

    /// What it has mapped of the memory at `path`.
    pub(crate) fn uses(self, path: &str) -> Uses {
        let (mut uses, gone) = (Uses::Nothing, format!("{path} (deleted)"));
        for line in self.maps().lines() {
            if line.ends_with(&format!(" {path}")) {
                return Uses::Session;
            }
            if line.ends_with(&gone) {
                uses = Uses::Earlier;
            }
        }
        uses
    }

    /// Whether it has mapped the memory of a session for which another of our loaders has a lock file.
    pub(crate) fn uses_another(self, path: &str) -> bool {
        let folder = Path::new(path).parent();
        self.maps().lines().any(|line| {
            let file = line.split_once('/').map(|(_, rest)| PathBuf::from(format!("/{rest}")));
            file.is_some_and(|file| {
                file.parent() == folder
                    && file != Path::new(path)
                    && PathBuf::from(format!("{}{}", file.display(), crate::session::ENDING))
                        .exists()
            })
        })
    }

    /// Whether it has a library with that name loaded.
    pub(crate) fn has_library(self, name: &str) -> bool {
        self.maps().lines().any(|line| {
            let file = line.trim_end_matches(" (deleted)").rsplit('/').next().unwrap_or_default();
            file.contains(name)
        })
    }

    /// Whether the function at that offset of its program is patched; none if that cannot be read.
    pub(crate) fn is_patched(self, target: &Path, offset: u64) -> Option<bool> {
        let wanted = fs::metadata(target).ok()?.ino().to_string();
        let maps = self.maps();
        let mut lines = maps.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let first = lines.find(|words| {
            matches!(words.as_slice(), [_, _, "00000000", _, inode, ..] if **inode == wanted)
        })?;
        let base = u64::from_str_radix(first.first()?.split('-').next()?, 16).ok()?;
        let read = |file: File, at: u64| {
            let mut bytes = [0; COMPARED];
            file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
        };
        let there = read(File::open(self.path("mem")).ok()?, base.checked_add(offset)?)?;
        Some(there != read(File::open(target).ok()?, offset)?)
    }
}
