//! The syncs of a log: started as its engine says, carried out without its lock, landed under it.
//! What is staged is written on the way.

use crate::clock;
use crate::completion::{again, as_judged};
use crate::errno;
use crate::failures;
use crate::fault_injection::{self, Fault};
use crate::log::{Core, Held, Slot};
use crate::note;
use crate::real;
use crate::record;
use crate::replies;
use crate::ring::{Batch, Ring};
use crate::stage::write_all;
use crate::stamp::settled_stamp;
use crate::table;
use crate::watch::Claimed;
use durac_engine::{Drain, Errno, Flight, Time, Tries, is_transient};
use libc::c_int;
use std::os::fd::RawFd;

impl Core {
    /// Takes what is staged, and where it goes; none if nothing is.
    fn take_staged(&mut self) -> Option<(Vec<u8>, RawFd)> {
        let own = self.own_fd?;
        Some((self.stage.take()?, own))
    }
}

impl Slot {
    /// Syncs. If the kernel does not see that, it does not see the others either: the file may be on a
    /// file system that has no such tracepoint, or the programs are gone.
    fn sync_file(&self, fd: RawFd, full: bool) -> Result<(), Errno> {
        let claimed = self.written.claimed();
        let before = claimed.map(Claimed::started);
        let result = real_sync(fd, full);
        if result.is_ok() && before.is_some() && claimed.map(Claimed::started) == before {
            self.set_watch(&mut self.lock(), None);
            note::info("kernel notify: a sync was not counted; using the engine's own completions");
        }
        result
    }

    /// Syncs in the calling thread, through `fd` or else the log's own descriptor, and returns what the
    /// system call said.
    ///
    /// When it returns with success, the success is believed: no other sync that was out at the
    /// same time can still turn out to have met the error that this one missed.
    pub fn sync<'a>(
        &'static self,
        mut core: Held<'a>,
        fd: Option<RawFd>,
        kind: Kind,
    ) -> (Held<'a>, Result<(), Errno>) {
        let flown;
        (core, flown) = self.fly(core, fd, Flying::Own(kind));
        let Flown { flight, end, result } = match flown {
            Ok(flown) => flown,
            Err(errno) => return (core, Err(errno)),
        };
        if result.is_ok() && !core.engine.is_ready(flight.covers) {
            let parked = record::parked();
            while !core.engine.is_ready(flight.covers) {
                core = self.sleep(core);
            }
            record::set_parked(parked + clock::now().saturating_sub(end));
        }
        self.poke(&mut core, end);
        let result = match core.engine.error() {
            Some(errno) => Err(errno),
            None => result,
        };
        (core, result)
    }

    /// Starts a sync, carries it out, and lets it land. What is staged is written first.
    ///
    /// # Errors
    /// The error that had stopped the log; `EBADF` if it is closed and has no descriptor any more.
    pub fn fly<'a>(
        &'static self,
        mut core: Held<'a>,
        fd: Option<RawFd>,
        how: Flying<'_>,
    ) -> (Held<'a>, Result<Flown, Errno>) {
        let (background, full, ring) = match how {
            Flying::Background(ring) => (true, false, ring),
            Flying::Own(kind) => (false, kind == Kind::Full, None),
        };
        core = self.wait_for_writer(core);
        if let Some(errno) = core.engine.error() {
            return (core, Err(errno));
        }
        // Only now: while it waited the log may have been closed, and its number be another file's.
        let Some(fd) = fd.or(core.own_fd) else { return (core, Err(libc::EBADF)) };
        let start = clock::now();
        self.count_written(&mut core);
        let flight = core.engine.start(background, full, start);
        if core.engine.rules().holds_replies {
            replies::sync_begins();
        }
        let bytes = core.engine.pending_bytes();
        let taken = core.take_staged();
        let lasting = core.own_fd == Some(fd);
        let closes = core.fds == 0 && taken.is_none();
        let early = background && fault_injection::injects(Fault::EarlyCompletion);
        if early {
            core.engine.finish(flight.id, start, Ok(()));
            self.publish(&mut core);
            core = self.wake_waiters(core);
        }
        drop(core);
        let stamp = if closes { settled_stamp(fd) } else { None };
        let result = match (taken, ring) {
            (None, _) => self.sync_file(fd, flight.full),
            (Some((taken, own)), ring) => self.sync_batch(taken, own, fd, flight.full, ring),
        };
        let end = clock::now();
        record::synced(self.index, &flight, bytes, end, result);
        // The number may have been given to another file meanwhile.
        let proved = if lasting { self.proof.is_file(fd) } else { self.proof.holds(fd) };
        let mut core = self.lock();
        self.took(&mut core, end.saturating_sub(start));
        if !early {
            core.engine.land(flight.id, end, as_judged(result), proved);
        }
        // Before the success is seen: another process may have got the report.
        self.learn(&mut core);
        if proved && result.is_ok() {
            core.known.durable = stamp;
        }
        if lasting && !proved {
            self.lose_own_fd(&mut core, fd);
        }
        self.report_failure(&core);
        self.publish(&mut core);
        // That a number of this process leads elsewhere is nothing that the kernel has reported.
        if let Some(errno) = core.engine.error().filter(|_| proved) {
            failures::add(&core, errno);
        }
        self.release_own_fd(&mut core);
        let mut core = self.wake_waiters(core);
        if table::registry().is_some_and(|registry| registry.replies.hold()) {
            drop(core);
            if !background || !replies::loop_sends() {
                replies::release();
            }
            core = self.lock();
        }
        let core = self.tell_failed(core, "a sync");
        let core = self.look_for_slow(core, &flight, end);
        let core = self.tell_broken(core, &flight, end);
        let core = self.tell_late(core, &flight, end);
        (core, Ok(Flown { flight, end, result }))
    }

    /// The log fails if another process has got the kernel's report of an error of this open file.
    pub fn learn(&self, core: &mut Core) {
        if !failures::any() || core.retired || core.engine.error().is_some() {
            return;
        }
        if let Some(errno) = failures::of_shared(core.file, &core.known) {
            core.engine.fail(errno);
            core.known.told = true;
            self.report_failure(core);
            self.publish(core);
        }
    }

    /// The same, for a caller that does not hold the lock.
    pub fn learn_and_wake(&'static self) {
        let mut core = self.lock();
        self.learn(&mut core);
        drop(self.wake_waiters(core));
    }

    /// Tells that the log has stopped, once. A call may not have returned the error yet, and a stream never does.
    pub fn tell_failed<'a>(&'a self, mut core: Held<'a>, what: &str) -> Held<'a> {
        let Some(errno) = core.engine.error().filter(|_| !core.known.told) else { return core };
        core.known.told = true;
        drop(core);
        note::later(&format!(
            "{}: {what} failed: {}; nothing more is acknowledged on it",
            self.status.path(self.index),
            std::io::Error::from_raw_os_error(errno)
        ));
        self.lock()
    }

    /// The log fails: a call that is not the agent's has got this error of its file.
    pub fn stop(&'static self, errno: Errno) {
        let mut core = self.lock();
        if core.retired {
            return;
        }
        core.engine.fail(errno);
        self.report_failure(&core);
        self.publish(&mut core);
        failures::add(&core, errno);
        let core = self.wake_waiters(core);
        drop(self.tell_failed(core, "a sync"));
    }

    /// Writes a batch, and syncs. The sync's own descriptor may be one of the application.
    fn sync_batch(
        &self,
        taken: Vec<u8>,
        own: RawFd,
        fd: RawFd,
        full: bool,
        ring: Option<&mut Ring>,
    ) -> Result<(), Errno> {
        let Batch { done, written, synced, lost } = match ring {
            Some(ring) if self.proof.is_file(own) => {
                record::syncing();
                ring.write_and_sync(own, &taken, full)
            }
            _ => Batch::unsynced(self.write_staged(own, &taken)),
        };
        let mut core = self.lock();
        core.stage.give_back(if lost { forgotten(taken) } else { taken }, done);
        self.publish(&mut core);
        drop(self.wake_waiters(core));
        match (written, synced) {
            (Ok(()), Some(synced)) => synced,
            (Ok(()), None) => self.sync_file(fd, full),
            (Err(errno), _) => Err(errno),
        }
    }

    /// Waits until nobody is writing staged bytes.
    fn wait_for_writer<'a>(&'a self, mut core: Held<'a>) -> Held<'a> {
        while core.stage.is_writing() {
            core = self.sleep(core);
        }
        core
    }

    /// Writes what is staged, for a call that could see the file.
    ///
    /// # Errors
    /// The error that has stopped the log, now or before.
    pub fn write_out<'a>(&'static self, mut core: Held<'a>) -> (Held<'a>, Result<(), Errno>) {
        let mut unwritten = Ok(());
        loop {
            core = self.wait_for_writer(core);
            let Some((taken, own)) = core.take_staged() else { break };
            drop(core);
            let (done, result) = self.write_staged(own, &taken);
            core = self.lock();
            core.stage.give_back(taken, done);
            match result {
                // Kept, and tried again by the next call.
                Err(errno) if is_transient(errno) => unwritten = Err(errno),
                Err(errno) => {
                    core.engine.fail(errno);
                    failures::add(&core, errno);
                    self.report_failure(&core);
                }
                Ok(()) => {}
            }
            self.publish(&mut core);
            self.release_own_fd(&mut core);
            core = self.wake_waiters(core);
            if unwritten.is_err() {
                break;
            }
        }
        let core = self.tell_failed(core, "a write");
        let failed = core.engine.error().filter(|_| core.engine.staged_writes() > 0);
        (core, failed.map_or(unwritten, Err))
    }

    /// Writes staged bytes to the log's file, and to no other.
    fn write_staged(&self, own: RawFd, bytes: &[u8]) -> (usize, Result<(), Errno>) {
        if self.proof.is_file(own) { write_all(own, bytes) } else { (0, Err(libc::EBADF)) }
    }

    /// As [`Slot::write_out`], for a caller that does not hold the lock.
    ///
    /// # Errors
    /// As there.
    pub fn settle(&'static self) -> Result<(), Errno> {
        if !self.has_staged() {
            return Ok(());
        }
        let mut core = self.lock();
        core.users += 1;
        let (mut core, result) = self.write_out(core);
        core.users -= 1;
        result
    }

    /// Makes everything acknowledged durable, and leaves nothing staged.
    pub fn drain<'a>(&'static self, mut core: Held<'a>) -> (Held<'a>, Result<(), Errno>) {
        if core.defers_writes() {
            core = self.look_at_file(core, clock::now());
        }
        while !core.retired {
            let target = match core.engine.drain() {
                Drain::Done => return self.write_out(core),
                Drain::Failed(errno) => return (core, Err(errno)),
                Drain::Wait(target) => Some(target),
                Drain::Sync => None,
            };
            if let Some(target) = target {
                core = self.wait(core, target);
                continue;
            }
            // Directly, not by the syncer: that would cost two wake-ups.
            if core.own_fd.is_none() {
                return (core, Err(libc::EIO));
            }
            let result;
            (core, result) = self.sync(core, None, Kind::Data);
            match result {
                Ok(()) => {}
                // Another thread has closed it, and drained it for that.
                Err(_) if core.retired => {}
                Err(errno) => return (core, Err(errno)),
            }
        }
        (core, Ok(()))
    }
}

/// Leaves the bytes where they are: the system may still read them. An empty batch in their place.
fn forgotten(taken: Vec<u8>) -> Vec<u8> {
    std::mem::forget(taken);
    Vec::new()
}

/// Who runs a sync, and how.
pub enum Flying<'a> {
    /// The syncer, through its ring if it has one.
    Background(Option<&'a mut Ring>),
    /// A thread of the application.
    Own(Kind),
}

/// A sync that has landed.
pub struct Flown {
    /// It.
    pub flight: Flight,
    /// When it ended.
    pub end: Time,
    /// What the system said.
    pub result: Result<(), Errno>,
}

/// How much a sync call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `fdatasync`.
    Data,
    /// `fsync`.
    Full,
}

/// The next library's `fdatasync`, or `fsync` if `full`. What says nothing of the data is tried again,
/// for a while.
pub fn real_sync(fd: RawFd, full: bool) -> Result<(), Errno> {
    let function = if full { real::FSYNC.get() } else { real::FDATASYNC.get() };
    record::syncing();
    let mut tries = Tries::default();
    loop {
        // SAFETY: any number may be passed as descriptor.
        let result: c_int = unsafe { function(fd) };
        if result == 0 {
            return Ok(());
        }
        let errno = errno::get().max(1);
        if !again(&mut tries, errno) {
            return Err(errno);
        }
    }
}
