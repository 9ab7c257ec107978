//! What really happened between a database and the kernel, seen from both sides of the agent.
//!
//! Two libraries made of `shims/shim.c` are preloaded around the agent. They share a file with the
//! test; nothing in it comes from durac.

use crate::cc;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// As in shim.c.
const SLOTS: usize = 512;
const WORDS: usize = 10;

/// The shared file, and the libraries that write to it.
#[derive(Debug)]
pub struct Witness {
    file: NamedTempFile,
    outer: PathBuf,
    inner: PathBuf,
}

/// The folder of `libouter.so` and `libinner.so`.
///
/// # Errors
/// If they cannot be compiled.
pub fn libraries() -> Result<PathBuf> {
    let shared = ["-shared", "-fPIC"];
    let inner = cc("shim.c", "libinner.so", &shared)?;
    cc("shim.c", "libouter.so", &[shared.as_slice(), &["-DOUTER"]].concat())?;
    Ok(inner.parent().context("no folder")?.to_owned())
}

/// What was seen of one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its inode.
    pub inode: u64,
    /// Whether it is a log.
    pub is_log: bool,
    /// Sync calls that the application made.
    pub entered: u64,
    /// The last of them that was told success.
    pub acknowledged: u64,
    /// How many sync calls and writes were told failure.
    pub refused: u64,
    /// The last one that a successful sync covers which began after it.
    pub durable: u64,
    /// Most calls that were told success and were not durable at once.
    pub max_pending: u64,
    /// Length of the file as far as a successful sync covers it.
    pub length: u64,
    /// Syncs that reached the kernel and succeeded.
    pub syncs: u64,
    /// Syncs that failed.
    pub failed: u64,
}

impl Witness {
    /// A new shared file.
    ///
    /// # Errors
    /// If the libraries cannot be compiled or the file cannot be made.
    pub fn new() -> Result<Self> {
        let libraries = libraries()?;
        let file = NamedTempFile::with_prefix("durac-witness-")?;
        file.as_file().set_len((SLOTS * WORDS * 8) as u64)?;
        Ok(Self {
            file,
            outer: libraries.join("libouter.so"),
            inner: libraries.join("libinner.so"),
        })
    }

    /// Words to stand between `durac run … --` (or nothing) and a command: they put the libraries
    /// around what is preloaded already.
    #[must_use]
    pub fn words(&self) -> Vec<OsString> {
        let script = "export LD_PRELOAD=\"$1${LD_PRELOAD:+:$LD_PRELOAD}:$2\"; shift 2; exec \"$@\"";
        let (outer, inner) = (self.outer.clone().into(), self.inner.clone().into());
        vec!["sh".into(), "-c".into(), script.into(), "sh".into(), outer, inner]
    }

    /// The environment variable that tells the libraries of the file.
    #[must_use]
    pub fn env(&self) -> (OsString, OsString) {
        ("DURAC_TEST_WITNESS".into(), self.file.path().into())
    }

    /// The inner library alone, for whoever wants its faults without a witness.
    #[must_use]
    pub fn inner(&self) -> &Path {
        &self.inner
    }

    /// All files that were synced since [`Witness::forget`].
    ///
    /// # Errors
    /// If the shared file cannot be read.
    pub fn files(&self) -> Result<Vec<Seen>> {
        let bytes = fs::read(self.file.path())?;
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|chunk| chunk.try_into().map_or(0, u64::from_ne_bytes))
            .collect();
        let seen = words.chunks_exact(WORDS).filter_map(|slot| {
            let [inode, is_log, entered, acknowledged, refused, durable, max_pending, rest @ ..] =
                slot
            else {
                return None;
            };
            let [length, syncs, failed] = rest else { return None };
            Some(Seen {
                inode: *inode,
                is_log: *is_log != 0,
                entered: *entered,
                acknowledged: *acknowledged,
                refused: *refused,
                durable: *durable,
                max_pending: *max_pending,
                length: *length,
                syncs: *syncs,
                failed: *failed,
            })
        });
        Ok(seen.filter(|seen| seen.inode != 0).collect())
    }

    /// The logs together: sums, and the greatest `max_pending`.
    ///
    /// # Errors
    /// As [`Witness::files`].
    pub fn logs(&self) -> Result<Seen> {
        let logs = self.files()?.into_iter().filter(|seen| seen.is_log || seen.entered > 0);
        Ok(logs.fold(Seen::default(), |sum, log| Seen {
            inode: 0,
            is_log: true,
            entered: sum.entered + log.entered,
            acknowledged: sum.acknowledged + log.acknowledged,
            refused: sum.refused + log.refused,
            durable: sum.durable + log.durable,
            max_pending: sum.max_pending.max(log.max_pending),
            length: sum.length + log.length,
            syncs: sum.syncs + log.syncs,
            failed: sum.failed + log.failed,
        }))
    }

    /// Does to the files in `dir` what a power loss would have done at the worst: of each only the
    /// part stays that a sync has covered, while every creation, rename and removal stays too.
    /// Returns the number of bytes lost. The writer must have ended.
    ///
    /// # Errors
    /// If a file cannot be cut.
    pub fn lose_power(&self, dir: &Path) -> Result<u64> {
        let seen = self.files()?;
        let mut lost = 0;
        for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            let meta = path.metadata()?;
            let synced = seen.iter().find(|seen| seen.inode == meta.ino());
            let kept = synced.map_or(0, |seen| seen.length).min(meta.len());
            lost += meta.len() - kept;
            OpenOptions::new().write(true).open(&path)?.set_len(kept)?;
        }
        Ok(lost)
    }

    /// Whether every byte of every file in `dir` whose name holds `part` was synced.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn unsynced(&self, dir: &Path, part: &str) -> Result<Vec<PathBuf>> {
        let seen = self.files()?;
        let mut unsynced = Vec::new();
        for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            let meta = path.metadata()?;
            let synced = seen.iter().find(|seen| seen.inode == meta.ino());
            let length = synced.map_or(0, |seen| seen.length);
            if path.to_string_lossy().contains(part) && length < meta.len() {
                unsynced.push(path);
            }
        }
        Ok(unsynced)
    }

    /// Starts anew, for another run of the same program; it must not run now.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn forget(&self) -> Result<()> {
        let file: &File = self.file.as_file();
        file.set_len(0)?;
        file.set_len((SLOTS * WORDS * 8) as u64)?;
        Ok(())
    }
}
