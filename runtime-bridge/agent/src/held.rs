//! What held replies ask of a log: what they need, and who makes that durable. Where a sync takes not much longer than
//! to wake two threads, that is whoever does it best ([`Choice`]); else a syncer thread.
//!
//! [`Choice`]: crate::replies::Choice

use crate::call;
use crate::clock;
use crate::flight::Kind;
use crate::log::{Core, Held, Slot};
use crate::policy;
use crate::replies::{self, Way};
use crate::sync::atomic::Ordering;
use crate::table;
use durac_engine::keys::KeyHash;
use durac_engine::{Need, Time};

/// A sync that takes less is made by whoever does it best ([`Choice`]), a longer one by a syncer thread.
const QUICK: Time = 600_000;
/// How long an event loop may be busy before a syncer thread syncs in its place.
pub const GRACE: Time = 1_000_000;

/// On a slow disk the next sync waits this part of a sync for those who were just answered.
const GAP: Time = 12;

impl Core {
    /// Whether a sync takes not much longer than to wake two threads; nothing is known of that before the first.
    fn is_quick(&self) -> bool {
        (1..QUICK).contains(&self.engine.pace().latency())
    }

    /// A call asks for a sync, and replies are held: whether it is to make it itself.
    pub fn syncs_in_call(&mut self, now: Time) -> bool {
        if self.choice.look(now, self.engine.written()) {
            self.way = self.choice.way();
            replies::way_changed();
        }
        self.way == Way::Call && self.is_quick()
    }
}

impl Slot {
    /// Whether everything that is written is durable: a reply that is made now depends on nothing else.
    #[inline]
    pub fn is_covered(&self) -> bool {
        let written = self.written.total();
        let covered = self.covered.load(Ordering::Acquire);
        // Of a log that is closed everything is.
        covered >= written && (covered == u64::MAX || !self.written.is_blind())
    }

    /// Whether nothing that is written and not durable names this key, for certain.
    pub fn is_clean(&self, key: KeyHash) -> bool {
        let (log, durable) = self.covered();
        self.is_covered()
            || self.count.is_clean(key, durable, &self.written) && self.covered().0 == log
    }

    fn key(&self) -> u64 {
        self.serial.load(Ordering::Acquire) << 16 | self.index as u64
    }

    /// The name of the log among held replies, and how many bytes of it are durable.
    pub fn covered(&self) -> (u64, u64) {
        // In this order: the bytes of the next log are no more than those of the last.
        let key = self.key();
        (key, self.covered.load(Ordering::Acquire))
    }

    /// How many bytes are durable, if the place still serves the log of this need.
    pub fn covers(&self, need: &Need) -> Option<u64> {
        let covered = self.covered.load(Ordering::Acquire);
        (self.key() == need.log).then_some(covered)
    }

    /// A reply waits for what is written now: what it needs, and whether nobody is going to sync that in the
    /// background. Without a descriptor of its own the agent cannot sync it, and a reply does not wait.
    pub fn hold(&'static self) -> (Option<Need>, bool) {
        let (log, bytes) = (self.key(), self.written.total());
        let blind = self.written.is_blind();
        if !blind && self.held.load(Ordering::Acquire) == bytes && self.key() == log {
            return (Some(Need { log, bytes }), false);
        }
        let mut core = self.lock();
        // What is written once the last descriptor is closed has no sync to wait for.
        if core.fds > 0 {
            self.written.count_unseen();
        }
        if core.retired || core.own_fd.is_none() && core.engine.error().is_none() {
            return (None, false);
        }
        self.pass_by_unseen(&mut core);
        self.count_written(&mut core);
        let bytes = core.engine.written();
        let now = clock::now();
        core.engine.hold(bytes, now);
        self.poke(&mut core, now);
        let alone = core.is_left_alone(now);
        if !alone {
            self.held.store(bytes, Ordering::Release);
        }
        (Some(Need { log: self.key(), bytes }), alone)
    }

    /// Of what was counted as unseen a program may have counted nothing.
    fn pass_by_unseen(&self, core: &mut Core) {
        if self.written.is_blind() {
            call::passed_by(core, policy::loaded());
        }
    }

    /// Makes what is written now durable: waits for a sync under way, and else makes it itself. Returns when
    /// it is, or cannot be.
    pub fn cover(&'static self) {
        let core = self.lock();
        if core.fds > 0 {
            self.written.count_unseen();
        }
        self.cover_counted(core);
    }

    fn cover_counted(&'static self, mut core: Held<'static>) {
        self.pass_by_unseen(&mut core);
        self.count_written(&mut core);
        let bytes = core.engine.written();
        core.users += 1;
        while !core.retired && core.engine.error().is_none() && core.engine.covered() < bytes {
            if core.engine.is_flying() {
                core = self.sleep(core);
                continue;
            }
            if core.own_fd.is_none() {
                break;
            }
            let result;
            (core, result) = self.sync(core, None, Kind::Data);
            if result.is_err() {
                break;
            }
        }
        core.users -= 1;
    }

    /// Before the log is closed: replies may wait for bytes that the application has never asked to be synced.
    pub fn cover_for_replies(&'static self) {
        if !self.is_covered() && table::registry().is_some_and(|registry| registry.replies.hold()) {
            let core = self.lock();
            self.written.count_unseen();
            self.cover_counted(core);
        }
    }

    /// Of a log whose last descriptor is closed: whether something is written that a sync would cover.
    pub fn can_cover_more(&self, core: &mut Core) -> bool {
        self.count_written(core);
        let works = core.engine.error().is_none() && core.own_fd.is_some();
        let covered = core.engine.covered() >= core.engine.written();
        core.fds == 0 && !core.retired && works && !covered
    }

    /// Tells the engine how long a background sync waits for more replies: for an event loop that makes it itself
    /// ([`GRACE`]); else on a slow disk, where those who were just answered are likely to ask again at once.
    /// Returns whether it is the loop.
    pub fn look_for_loop(core: &mut Core) -> bool {
        let Some(registry) = table::registry() else { return false };
        if !core.engine.rules().holds_replies {
            // A policy that held replies may have been exchanged for this one.
            if core.engine.grace() > 0 {
                core.engine.set_grace(0);
                registry.replies.set_by_loop(false);
            }
            return false;
        }
        let quick = core.is_quick();
        let by_loop = core.way == Way::Loop && quick && registry.replies.loop_comes();
        let grace = match by_loop {
            true => GRACE,
            false if quick || registry.replies.are_all_here() => 0,
            false => (core.engine.pace().latency() / GAP).min(GRACE),
        };
        core.engine.set_grace(grace);
        registry.replies.set_by_loop(by_loop);
        by_loop
    }

    /// An event loop has nothing else to do, and replies wait for the log: syncs it, if that is what the loop does.
    /// Returns whether it did.
    pub fn sync_in_loop(&'static self) -> bool {
        let mut core = self.lock();
        self.count_written(&mut core);
        let by_loop = Self::look_for_loop(&mut core);
        let sole = !core.engine.is_flying() && !core.stage.is_writing() && core.own_fd.is_some();
        if core.retired || core.engine.error().is_some() || !sole || !by_loop {
            return false;
        }
        core.users += 1;
        let result;
        (core, result) = self.sync(core, None, Kind::Data);
        core.users -= 1;
        result.is_ok()
    }

    /// An event loop goes to sleep, and replies wait for the log: nobody but a syncer thread is going to sync it.
    pub fn leave_to_syncer(&'static self) {
        let mut core = self.lock();
        if !core.retired {
            self.poke(&mut core, clock::now());
        }
    }
}
