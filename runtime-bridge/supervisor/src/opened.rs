//! A caller's open file, for as long as its call is answered.

use crate::logs::Facts;
use crate::notify::Notification;
use crate::process::Process;
use crate::serve::Supervisor;
use durac_engine::Errno;
use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;

/// It. Closing this process' copy may ask its server (`FLUSH` of FUSE), which may be a process of the command: this thread
/// then does not lead any more.
pub struct Opened {
    /// It.
    pub file: File,
    /// What it is.
    pub facts: Facts,
    /// The caller's process.
    pub process: Process,
    /// The caller.
    pub thread: u32,
    supervisor: &'static Supervisor,
    is_of_log: Cell<bool>,
}

impl Opened {
    /// It has a log, so no process of the command serves it: it is closed at once.
    pub fn is_of_log(&self) {
        self.is_of_log.set(true);
    }

    /// The path that the kernel shows for it.
    pub fn shown(&self) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", self.file.as_raw_fd())).ok()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let supervisor = self.supervisor;
        if !self.is_of_log.get() && supervisor.mounts.is_served(self.facts.id.0) != Some(false) {
            supervisor.crew.may_block();
        }
    }
}

impl Supervisor {
    /// What a descriptor of the caller leads to.
    ///
    /// # Errors
    /// As [`Callers::file`](crate::process::Callers::file). `EBADF` also of a file that says nothing of itself: the kernel
    /// answers the call.
    pub fn opened(&'static self, call: &Notification, fd: RawFd) -> Result<Opened, Errno> {
        let (file, process) = self.callers.file(&self.listener, call, fd)?;
        let Ok(facts) = Facts::of(&file) else {
            self.crew.may_block();
            return Err(libc::EBADF);
        };
        let is_of_log = Cell::new(false);
        Ok(Opened { file, facts, process, thread: call.thread, supervisor: self, is_of_log })
    }
}
