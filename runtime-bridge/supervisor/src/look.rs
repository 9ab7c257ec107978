//! Writes that the command never syncs (`on write: defer`).
//!
//! The log's thread looks at the file itself, so it does not matter by which call or process it was written: mappings and
//! processes that nobody knows of are found, too. What has changed since it last looked counts as acknowledged at that
//! earlier time.

use crate::clock;
use crate::log::{Core, Held, Slot};
use durac_engine::{Stamp, Time};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What was seen of a file.
#[derive(Clone, Copy, Default)]
pub struct Look {
    /// When.
    at: Time,
    /// What it was like; none if what is written next may look the same, or nothing is known.
    seen: Option<Stamp>,
    /// It is looked at from time to time.
    is_on: bool,
}

impl Look {
    /// Whether it is looked at from time to time.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// When it was last looked at.
    pub fn at(&self) -> Time {
        self.at
    }

    /// When the next one is due; none if nobody has to look.
    pub fn due(&self, slot: &Slot, core: &Core) -> Option<Time> {
        let looks = self.is_on && !core.retired && core.engine.error().is_none();
        let every = core.engine.look_every().filter(|_| looks && slot.supervisor.looks())?;
        Some(self.at.saturating_add(every))
    }
}

impl Slot {
    /// The log's writes are looked for from now on, if the policy defers them. What was written before counts as written
    /// at `since`.
    pub fn begin_to_look(&self, core: &mut Held<'_>, since: Time) {
        if core.engine.rules().defers_writes && !core.retired {
            let seen = None;
            core.look = Look { at: since, seen, is_on: true };
            self.publish(core);
            self.poke(core, clock::now());
        }
    }

    /// Looks, if it is time to. The lock is let go meanwhile.
    pub fn look_in_time<'a>(&'a self, core: Held<'a>, now: Time) -> Held<'a> {
        if core.look.due(self, &core).is_none_or(|due| due > now) {
            return core;
        }
        drop(core);
        self.look();
        self.lock()
    }

    /// Looks at the file of a log whose writes are deferred. Its server may have to be asked, so nobody waits for this thread,
    /// and no lock is held.
    pub fn look(&self) {
        let core = self.lock();
        if core.look.due(self, &core).is_none() {
            return;
        }
        drop(core);
        if self.asks.load(Ordering::Relaxed) {
            self.supervisor.crew.may_block();
        }
        // Before the look: what is written meanwhile may not be seen.
        let now = clock::now();
        let seen = stamp(&self.own);
        self.has_seen(&mut self.lock(), now, seen);
    }

    /// The same with the lock held, where the file must not change meanwhile.
    pub fn look_locked(&self, core: &mut Held<'_>, now: Time) {
        if core.look.due(self, core).is_some() {
            let seen = stamp(&self.own);
            self.has_seen(core, now, seen);
        }
    }

    /// What the file was like at `now` or after. A file that says nothing of itself may have been written.
    fn has_seen(&self, core: &mut Held<'_>, now: Time, seen: Option<(Stamp, bool)>) {
        // Or another thread has looked since.
        if core.look.due(self, core).is_none() || core.look.at > now {
            return;
        }
        let before = core.look;
        let settled = seen.filter(|(_, is_settled)| *is_settled).map(|(stamp, _)| stamp);
        core.look = Look { at: now, seen: settled, is_on: true };
        let stamp = seen.map(|(stamp, _)| stamp);
        if stamp.is_some() && before.seen == stamp {
            return;
        }
        core.used = now;
        core.is_closed = false;
        core.search_pause = Duration::ZERO;
        let length = stamp.and_then(|stamp| stamp.length.try_into().ok()).unwrap_or(core.length);
        self.measure(core, length, true);
        core.engine.owe(before.at);
        self.publish(core);
        self.poke(core, now);
    }
}

/// What a file is like now, and whether the next write will change that.
fn stamp(file: &File) -> Option<(Stamp, bool)> {
    // Before the look: a write in between may leave the stamp as it is.
    let now = clock::of(libc::CLOCK_REALTIME);
    let meta = file.metadata().ok()?;
    let stamp = Stamp {
        length: meta.len().try_into().unwrap_or(i64::MAX),
        written: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    };
    Some((stamp, stamp.is_settled(now)))
}
