//! The syncs of a log: started as its engine says, carried out without its lock, landed under it.

use crate::clock;
use crate::fault_injection::{self, Fault, injects};
use crate::log::{Held, Slot};
use crate::note;
use crate::record::{self, Recorded};
use durac_engine::{Again, Errno, Flight, Tries, is_transient};
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// A sync that is under way. If a bug has it end by a panic, what the system said of it is not known any more, and the system
/// says so only once: it counts as failed.
struct Out<'a> {
    slot: &'a Slot,
    id: u64,
}

impl Drop for Out<'_> {
    /// A panic: nobody has the log's lock for this sync.
    fn drop(&mut self) {
        let mut core = self.slot.lock();
        core.engine.land(self.id, clock::now(), Err(libc::EIO), true);
        self.slot.supervisor.logs.failed(libc::EIO);
        self.slot.publish(&mut core);
        Slot::wake(&mut core);
    }
}

impl Slot {
    /// Syncs in the calling thread, through the caller's open file or else the supervisor's own, and returns what
    /// the system call said. When it returns with success, the success is believed.
    pub fn sync<'a>(
        &'a self,
        mut core: Held<'a>,
        file: Option<&File>,
        full: bool,
    ) -> (Held<'a>, Result<(), Errno>) {
        self.supervisor.crew.may_block();
        let (flight, result);
        (core, (flight, result)) = self.fly(core, file, (false, full));
        if result.is_ok() && !core.engine.is_ready(flight.covers) {
            let (since, waited) = (clock::now(), record::waited());
            while !core.engine.is_ready(flight.covers) {
                core = self.sleep(core);
            }
            record::set_waited(waited + clock::now().saturating_sub(since));
        }
        self.poke(&mut core, clock::now());
        let result = match core.engine.error() {
            Some(errno) => Err(errno),
            None => result,
        };
        (core, result)
    }

    /// Starts a sync, carries it out, and lets it land.
    pub fn fly<'a>(
        &'a self,
        mut core: Held<'a>,
        file: Option<&File>,
        (background, full): (bool, bool),
    ) -> (Held<'a>, (Flight, Result<(), Errno>)) {
        let flight = core.engine.start(background, full, clock::now());
        let begun = self.recorded.as_ref().and_then(Recorded::syncing);
        drop(core);
        let out = Out { slot: self, id: flight.id };
        let fd = file.map_or_else(|| self.own.as_raw_fd(), AsRawFd::as_raw_fd);
        let result = sync_file(fd, flight.full);
        let end = clock::now();
        fault_injection::panics(Fault::PanicInSync, |sync| sync == 5);
        let result = if background && injects(Fault::Swallowed) { Ok(()) } else { result };
        if let (Some(recorded), Some(begun)) = (&self.recorded, begun) {
            recorded.synced(&begun, &flight, end, result);
        }
        let mut core = self.lock();
        self.count_late(&mut core, end);
        core.times.add(end.saturating_sub(flight.since));
        self.supervisor.page.status.publish_times(self.index, &core.times);
        // Proved: it is the supervisor's own descriptor, or a copy of the caller's that nobody else can close and that does not
        // only name the file. An `EBADF` is the file system's, and may be all that it says of lost data.
        core.engine.land(flight.id, end, result, true);
        std::mem::forget(out);
        if let Some(errno) = core.engine.error() {
            self.supervisor.logs.failed(errno);
        }
        let told = core.slow.look(&flight, end);
        core.used = end;
        self.publish(&mut core);
        Self::wake(&mut core);
        drop(core);
        if let Some(took) = told {
            note::info(&format!("{}: slow sync: {:.1} s", self.path, took.as_secs_f64()));
        }
        if let Err(errno) = result
            && !is_transient(errno)
        {
            let why = std::io::Error::from_raw_os_error(errno);
            note::info(&format!("{}: a sync failed: {why}", self.path));
        }
        (self.lock(), (flight, result))
    }
}

/// `fdatasync`, or `fsync` if `full`. What says nothing of the data is tried again.
fn sync_file(fd: RawFd, full: bool) -> Result<(), Errno> {
    let mut tries = Tries::default();
    loop {
        // SAFETY: any number may be passed as descriptor.
        let result = unsafe { if full { libc::fsync(fd) } else { libc::fdatasync(fd) } };
        if result == 0 {
            return Ok(());
        }
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        match tries.again(errno, clock::now) {
            Again::AtOnce => {}
            Again::Later => std::thread::sleep(Duration::from_nanos(Tries::PAUSE)),
            Again::Never => return Err(errno),
        }
    }
}
