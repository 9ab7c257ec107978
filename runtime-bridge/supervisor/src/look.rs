//! Writes that the command never syncs (`on write: defer`).
//!
//! The log's thread looks at the file itself, so it does not matter by which call or process it was written: mappings and
//! processes that nobody knows of are found, too. What has changed since it last looked counts as acknowledged at that
//! earlier time.

use crate::clock;
use crate::log::{Core, Held, Slot};
use durac_engine::Time;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file that was written so recently may be written again without another time of change (a tick of the kernel is
/// 10 ms at most).
const TICK: Duration = Duration::from_millis(20);
/// The same, where the file system keeps whole seconds (ext4 with inodes of 128 bytes, NFS from such a one) or every second
/// one (FAT).
const COARSE: Duration = Duration::from_secs(2);
/// Times that are multiples of it are taken for those of such a file system, nanoseconds. By chance they are once in 10^16.
const FINE: i64 = 100_000_000;

/// Length and times of change of a file, and whether the next write may leave them as they are.
type Stamp = ([i64; 5], bool);

/// What was seen of a file.
#[derive(Clone, Copy, Default)]
pub struct Look {
    /// When.
    at: Time,
    /// Length, and times of change.
    seen: Option<[i64; 5]>,
    /// What is written next may look the same.
    is_young: bool,
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
            core.look = Look { at: since, seen, is_young: true, is_on: true };
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
        let Some(stamp) = stamp(&self.own) else { return };
        self.has_seen(&mut self.lock(), now, stamp);
    }

    /// The same with the lock held, where the file must not change meanwhile.
    pub fn look_locked(&self, core: &mut Held<'_>, now: Time) {
        if core.look.due(self, core).is_some()
            && let Some(stamp) = stamp(&self.own)
        {
            self.has_seen(core, now, stamp);
        }
    }

    /// What the file was like at `now` or after.
    fn has_seen(&self, core: &mut Held<'_>, now: Time, (seen, is_young): Stamp) {
        // Or another thread has looked since.
        if core.look.due(self, core).is_none() || core.look.at > now {
            return;
        }
        let before = core.look;
        core.look = Look { at: now, seen: Some(seen), is_young, is_on: true };
        if before.seen == Some(seen) && !before.is_young {
            return;
        }
        core.used = now;
        core.is_closed = false;
        core.search_pause = Duration::ZERO;
        let [length, ..] = seen;
        self.measure(core, length.try_into().unwrap_or(0), true);
        core.engine.owe(before.at);
        self.publish(core);
        self.poke(core, now);
    }
}

/// What a file is like now.
fn stamp(file: &File) -> Option<Stamp> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let meta: Metadata = file.metadata().ok()?;
    let time = |seconds: i64, rest: i64| {
        Duration::new(seconds.try_into().unwrap_or(0), rest.try_into().unwrap_or(0))
    };
    // The program may set the first (`utimensat`), not the second.
    let written = time(meta.mtime(), meta.mtime_nsec()).max(time(meta.ctime(), meta.ctime_nsec()));
    let is_young = now < written.saturating_add(tick(meta.mtime_nsec(), meta.ctime_nsec()));
    let length = meta.len().try_into().unwrap_or(i64::MAX);
    let seen = [length, meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
    Some((seen, is_young))
}

/// How long a file may be written again without another time of change, by the nanoseconds of its times.
fn tick(mtime: i64, ctime: i64) -> Duration {
    // The program may set one of them to a whole second.
    match (mtime % FINE, ctime % FINE) {
        (0, 0) => COARSE,
        _ => TICK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_are_those_of_a_coarse_clock() {
        assert_eq!(tick(0, 0), COARSE);
        assert_eq!(tick(500_000_000, 0), COARSE);
        for (mtime, ctime) in [(0, 1), (1, 0), (0, 120_000_001), (999_999_999, 999_999_999)] {
            assert_eq!(tick(mtime, ctime), TICK);
        }
    }
}
