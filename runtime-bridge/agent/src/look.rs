//! Writes that the application never syncs (`on write: defer`).
//!
//! A syncer thread looks at the file itself, so it does not matter by which call, thread or process it was written:
//! streams of the C library, mappings and system calls that no hook sees are found, too. What has changed since it
//! last looked counts as acknowledged at that earlier time.

use crate::clock;
use crate::log::{Core, Held, Slot};
use crate::stamp::settled_stamp;
use durac_engine::{Stamp, Time};
use std::sync::atomic::Ordering;

/// What was seen of a file.
#[derive(Clone, Copy, Default)]
pub struct Look {
    /// When.
    at: Time,
    /// What it was like; none if what is written next may look the same, or nothing is known.
    seen: Option<Stamp>,
}

impl Look {
    /// Nothing was seen yet, and what is found was written since then.
    pub fn from(at: Time) -> Self {
        Self { at, seen: None }
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

    /// Looks at the file of a log whose writes are deferred. Its server may have to be asked: the lock is let go meanwhile.
    pub fn look_at_file<'a>(&'a self, mut core: Held<'a>, now: Time) -> Held<'a> {
        let Some(fd) = core.own_fd.filter(|_| core.defers_writes() && !core.retired) else {
            return core;
        };
        core.users += 1;
        drop(core);
        let seen = settled_stamp(fd);
        core = self.lock();
        core.users -= 1;
        // A number that is still the log's was it all the time. Or another thread has looked since.
        let is_its = core.own_fd == Some(fd) && !core.retired && core.look.at <= now;
        if !is_its {
            return core;
        }
        let before = core.look;
        core.look = Look { at: now, seen };
        // No sync call is missing here.
        self.called.store(self.written.total(), Ordering::Relaxed);
        if seen.is_some() && before.seen == seen {
            return core;
        }
        self.count_written(&mut core);
        if let Some(call) = core.engine.owe(before.at) {
            core.deadlines.acknowledged(call, before.at);
        }
        self.publish(&mut core);
        core
    }
}
