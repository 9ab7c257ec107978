//! Writes that the application never syncs (`on write: defer`).
//!
//! A syncer thread looks at the file itself, so it does not matter by which call, thread or process it was written:
//! streams of the C library, mappings and system calls that no hook sees are found, too. What has changed since it
//! last looked counts as acknowledged at that earlier time.

use crate::clock;
use crate::log::{Core, Held, Slot};
use durac_engine::Time;
use libc::c_int;
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

/// A file that was written so recently may be written again without another time of change (a tick of the
/// kernel is 10 ms at most), nanoseconds.
const TICK: i64 = 20_000_000;

/// What was seen of a file.
#[derive(Clone, Copy, Default)]
pub struct Look {
    /// When.
    at: Time,
    /// Length, and times of change.
    seen: Option<[i64; 5]>,
    /// What is written next may look the same.
    is_young: bool,
}

impl Look {
    /// Nothing was seen yet, and what is found was written since then.
    pub fn from(at: Time) -> Self {
        Self { at, seen: None, is_young: true }
    }

    /// When the next one is due.
    pub fn due(&self, core: &Core) -> Option<Time> {
        let every = core.engine.look_every().filter(|_| core.engine.error().is_none())?;
        Some(self.at.saturating_add(every))
    }
}

impl Slot {
    /// The log's writes are looked at from now on. What was written before counts as written at `since`.
    pub fn begin_to_look(&'static self, core: &mut Held<'_>, since: Time) {
        if core.engine.look_every().is_some() {
            core.look = Look::from(since);
            self.publish(core);
            self.poke(core, clock::now());
        }
    }

    /// Looks, if it is time to.
    pub fn look_in_time(&self, core: &mut Core, now: Time) {
        if core.look.due(core).is_some_and(|due| due <= now) {
            self.look_at_file(core, now);
        }
    }

    /// Looks at the file of a log whose writes are deferred.
    pub fn look_at_file(&self, core: &mut Core, now: Time) {
        let Some(fd) = core.own_fd.filter(|_| core.defers_writes() && !core.retired) else {
            return;
        };
        let Some((seen, is_young)) = stamp(fd) else { return };
        let before = core.look;
        core.look = Look { at: now, seen: Some(seen), is_young };
        // No sync call is missing here.
        self.called.store(self.written.total(), Ordering::Relaxed);
        if before.seen == Some(seen) && !before.is_young {
            return;
        }
        self.count_written(core);
        if let Some(call) = core.engine.owe(before.at) {
            core.deadlines.acknowledged(call, before.at);
        }
        self.publish(core);
    }
}

/// Length and times of change of a file, and whether the next write may leave them as they are.
fn stamp(fd: c_int) -> Option<([i64; 5], bool)> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both have room for the results.
    let results = unsafe {
        (
            libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now),
            libc::fstat(fd, stat.as_mut_ptr()),
        )
    };
    if results != (0, 0) {
        return None;
    }
    // SAFETY: fstat succeeded and filled it.
    let stat = unsafe { stat.assume_init() };
    let nanos =
        |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    // The program may set the first (`utimensat`), not the second.
    let written =
        nanos(stat.st_mtime, stat.st_mtime_nsec).max(nanos(stat.st_ctime, stat.st_ctime_nsec));
    let is_young = nanos(now.tv_sec, now.tv_nsec) < written.saturating_add(TICK);
    let seen = [stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec];
    Some((seen, is_young))
}
