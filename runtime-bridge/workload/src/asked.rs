//! Whether a policy was ever in force while a database ran.
//!
//! An agent makes its status page with its first log, so a page is known by its file, also one of a process that has
//! ended since. A supervisor's page is there from the start; there a log has to be on it.

use crate::error::{Error, Result, Trying};
use crate::status::Page;
use durac_shm::status::LogStatus;
use rustix::fs::inotify;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Looks for the status pages of what is run.
#[derive(Debug)]
pub(crate) struct Asked {
    status: PathBuf,
    /// Tells of each file that is made, or removed, in the folder of the status page.
    made: OwnedFd,
    /// Where the logs are; none is anywhere.
    device: Option<u64>,
    page: Option<Page>,
    elsewhere: bool,
}

impl Asked {
    /// Of what has its logs on the file system of `data`, if one is named, before it starts. `place` is a folder that exists.
    pub(crate) fn begin(place: &Path, data: Option<&Path>) -> Result<Self> {
        let what = || "watch for a status page".to_owned();
        let folder = place.join("page");
        fs::create_dir(&folder).trying(what)?;
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let made = inotify::init(flags).map_err(Into::into).trying(what)?;
        // Two events that are the same become one, unless another comes between.
        let events = inotify::WatchFlags::CREATE | inotify::WatchFlags::DELETE;
        inotify::add_watch(&made, &folder, events).map_err(Into::into).trying(what)?;
        let device = data.map(|data| fs::metadata(data).trying(what)).transpose()?;
        let device = device.map(|data| data.dev());
        Ok(Self { status: folder.join("status"), made, device, page: None, elsewhere: false })
    }

    /// What `DURAC_STATUS` has to be.
    pub(crate) fn status(&self) -> &Path {
        &self.status
    }

    /// The page, if it has been seen.
    pub(crate) fn page(&self) -> Option<&Page> {
        self.page.as_ref()
    }

    /// Opens the page as soon as it is there: it goes away with its process.
    pub(crate) fn look(&mut self) {
        if self.page.is_none() {
            self.page = Page::open(&self.status);
        }
    }

    /// A page that was opened elsewhere.
    pub(crate) fn found(&mut self, page: Option<Page>) {
        self.page = page;
    }

    /// Looks at the pages of all processes, too: only one has the file. To be called while they run.
    pub(crate) fn look_everywhere(&mut self) {
        self.look();
        self.elsewhere |= self.device.is_some()
            && !self.has_log()
            && durac_shm::status::running()
                .iter()
                .any(|running| self.are_here(&running.status.snapshot().logs));
    }

    fn has_log(&self) -> bool {
        self.page.as_ref().is_some_and(|page| self.are_here(&page.logs()))
    }

    fn are_here(&self, logs: &[LogStatus]) -> bool {
        logs.iter().any(|log| self.device.is_none_or(|device| log.file.0 == device))
    }

    /// Whether a log was ever under a policy.
    fn is_in_force(&self) -> bool {
        // One that was not seen was made with a log, by a process that has ended.
        self.has_log() || self.elsewhere || self.made() > usize::from(self.page.is_some())
    }

    /// How many pages were made at the path since the last call; it is called once.
    fn made(&self) -> usize {
        let mut room = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.made, &mut room);
        let mut made = 0;
        // It ends when nothing is left to read.
        while let Ok(event) = events.next() {
            made += usize::from(event.events().contains(inotify::ReadFlags::CREATE));
        }
        made
    }

    /// The same of a server that runs and has its logs in this folder. It may have others, such as the text that it logs.
    pub(crate) fn check_in(&self, folder: &Path) -> Result<()> {
        let files = files(folder);
        let logs = self.page.as_ref().map(Page::logs).unwrap_or_default();
        let is_asked = |log: &LogStatus| log.numbers.calls > 0 || log.numbers.written > 0;
        match logs.iter().any(|log| files.contains(&log.file) && is_asked(log)) {
            true => Ok(()),
            false => Err(never("its target covers")),
        }
    }

    /// Fails if no policy was ever in force: what came of it says nothing about one. `asks` says what it would have been asked
    /// by, if that is certain: a page of one process of several does not know of the others' calls.
    pub(crate) fn check(&self, covers: &str, asks: Asks) -> Result<()> {
        if !self.is_in_force() {
            return Err(never(if covers.is_empty() { "its target covers" } else { covers }));
        }
        let logs = self.page.as_ref().map(Page::logs).unwrap_or_default();
        let knows_all = match asks {
            Asks::Writes => false,
            Asks::Calls => self.page.as_ref().is_some_and(Page::is_supervisor),
            Asks::CallsOfOne => self.has_log(),
        };
        match knows_all && logs.iter().all(|log| log.numbers.calls == 0) {
            false => Ok(()),
            true => Err(Error::Config(
                "the policy was never in force: no sync call on a log has reached it".into(),
            )),
        }
    }
}

/// What a policy is asked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Writes, too.
    Writes,
    /// Sync calls of any process.
    Calls,
    /// Those of one process.
    CallsOfOne,
}

fn never(covers: &str) -> Error {
    Error::Config(format!("the policy was never in force: no log was opened that {covers}"))
}

/// Device and inode of all files in a folder.
fn files(folder: &Path) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => found.extend(files(&entry.path())),
            Ok(meta) => found.push((meta.dev(), meta.ino())),
            Err(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Asked, Asks};

    #[test]
    fn a_page_of_a_process_that_has_ended_counts() {
        let place = tempfile::tempdir().unwrap();
        let asked = Asked::begin(place.path(), Some(place.path())).unwrap();
        let why = asked.check("`*.log` covers", Asks::Calls).unwrap_err().to_string();
        assert_eq!(why, "the policy was never in force: no log was opened that `*.log` covers");
        std::os::unix::fs::symlink("/proc/1/fd/9", asked.status()).unwrap();
        assert!(asked.check("", Asks::Calls).is_ok());
    }
}
