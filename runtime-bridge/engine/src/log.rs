//! The state machine of one log.

use crate::pace::Pace;
use crate::rules::Rules;
use durac_abi::{LOOK_LEAST, READING_MOST};

/// Nanoseconds of a monotonic clock.
pub type Time = u64;

/// An error number of the operating system, greater than 0.
pub type Errno = i32;

/// A sync call of the application, by number from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// Its number: the epoch it closes.
    pub number: u64,
    /// Nothing was written since the previous sync call: the application does not pass a batch on,
    /// it wants everything to be durable.
    pub barrier: bool,
}

/// A sync that has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flight {
    /// Its number, rising with the time it started.
    pub id: u64,
    /// It covers every call up to this one.
    pub covers: u64,
    /// It covers this many written bytes.
    pub bytes: u64,
    /// It covers this many of the writes that were ever staged.
    pub stages: u64,
    /// It covers this many updates: those that a replay of the log applies.
    pub updates: u64,
    /// It has to be `fsync`: a call that it covers needs more than `fdatasync` does.
    pub full: bool,
    /// The syncer runs it, not a thread of the application.
    pub background: bool,
    /// When it started.
    pub since: Time,
    /// When it should have started: before `since` if a background sync was wanted then and the syncer
    /// was slow to wake.
    pub wanted: Time,
}

/// A flight, and whether it reported success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Airborne {
    /// The flight.
    pub(crate) flight: Flight,
    /// Set when it came home with success: number of the first flight that started after that.
    pub(crate) home: Option<u64>,
    /// It was counted among the broken assumptions.
    pub(crate) broken: bool,
}

/// What the syncer has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Start a background sync now.
    Start,
    /// Ask again at this time, or when something has happened.
    At(Time),
    /// Ask again when something has happened.
    Idle,
}

/// Numbers for people; no rule reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counters {
    /// Calls acknowledged without a sync of their own.
    pub acknowledged: u64,
    /// Most calls that were acknowledged and not durable at once.
    pub max_pending: u64,
    /// Most updates that were acknowledged and not durable at once.
    pub max_updates: u64,
    /// Most bytes that were acknowledged and not durable at once.
    pub max_bytes: u64,
    /// Syncs that ended with success.
    pub syncs: u64,
    /// Syncs that failed.
    pub errors: u64,
    /// Syncs that took longer than the policy assumes.
    pub broken_assumptions: u64,
}

/// The sync engine of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Log {
    pub(crate) rules: Rules,
    /// Sync calls begun.
    pub(crate) calls: u64,
    /// Every call up to this one is covered by a sync that succeeded.
    pub(crate) durable: u64,
    /// Highest call that was acknowledged.
    pub(crate) acknowledged: u64,
    /// Highest call whose sync was requested.
    pub(crate) requested: u64,
    /// Somebody waits until this call is durable.
    pub(crate) demanded: u64,
    /// A reply is held until so many bytes are covered.
    pub(crate) held: u64,
    /// When the first reply was held that the newest flight does not cover.
    pub(crate) held_since: Option<Time>,
    /// How long a sync for replies waits for more of them, nanoseconds.
    pub(crate) grace: Time,
    /// Highest call that was an `fsync`.
    pub(crate) full_until: u64,
    /// Bytes written, those that are staged included.
    pub(crate) written: u64,
    /// Calls after this one are staged: of the writes that they cover, the policy has passed none,
    /// nor any write since. None if it has passed the last write, or stages nothing.
    pub(crate) staged_after: Option<u64>,
    /// Writes that were staged.
    pub(crate) stages: u64,
    /// How many of these, counted from the first, are durable, or were written for one that the policy passed.
    pub(crate) unstaged: u64,
    /// The policy wants a background sync of what was staged since the last sync call began.
    pub(crate) commits: bool,
    /// Bytes covered by a sync that succeeded.
    pub(crate) covered: u64,
    /// Updates that are complete in what was written.
    pub(crate) updates: u64,
    /// How many of these, counted from the first, a replay of the log applies: no transaction is open.
    pub(crate) settled: u64,
    /// Updates covered by a sync that succeeded.
    pub(crate) covered_updates: u64,
    /// Updates that had been written when the last call was acknowledged without a sync of its own.
    pub(crate) acknowledged_updates: u64,
    /// Bytes that had been written when the last call began of those acknowledged without a sync of their own.
    pub(crate) acknowledged_bytes: u64,
    /// The numbers of updates above are too small, perhaps.
    pub(crate) unsure_of_updates: bool,
    /// The number of bytes written is too small, perhaps.
    pub(crate) unsure_of_bytes: bool,
    /// Bytes that had been written when the last sync call began; none before the first.
    pub(crate) marked: Option<u64>,
    /// Writes for which the policy's program did not run.
    pub(crate) passed: u64,
    /// Those that a sync of the application's own has made durable since: the first so many.
    pub(crate) passed_and_synced: u64,
    /// The error that stopped this log.
    pub(crate) error: Option<Errno>,
    /// Syncs that are not over, or over and not yet believed, in the order they started.
    pub(crate) flights: Vec<Airborne>,
    /// Number of the next flight.
    pub(crate) next_flight: u64,
    /// When the oldest call was acknowledged that is not durable.
    pub(crate) oldest: Option<Time>,
    /// When the oldest call was acknowledged that the newest flight does not cover.
    pub(crate) oldest_after: Option<Time>,
    /// Duration of the last sync.
    pub(crate) last_latency: Time,
    /// When the last background sync ended.
    pub(crate) landed: Time,
    pub(crate) pace: Pace,
    pub(crate) counters: Counters,
}

impl Log {
    /// A log that was just opened.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let staged_after = rules.stages.then_some(0);
        Self { rules, staged_after, ..Self::default() }
    }

    // ---- what the application does ----

    /// `total` bytes have been written since the log was opened. Never goes back: a late report of
    /// a slow thread must not hide what a faster one wrote.
    pub fn wrote(&mut self, total: u64) {
        self.written = self.written.max(total);
    }

    /// So many updates are complete in what has been written since the log was opened, and a replay would
    /// apply so many. Never goes back.
    pub fn counted(&mut self, updates: u64, settled: u64) {
        self.updates = self.updates.max(updates);
        self.settled = self.settled.max(settled.min(updates));
    }

    /// How many updates are written is not known from now on.
    pub fn lose_updates(&mut self) {
        self.unsure_of_updates = true;
    }

    /// How much is written is not known from now on: something else than calls of the application writes.
    pub fn lose_bytes(&mut self) {
        self.unsure_of_bytes = true;
        self.unsure_of_updates = true;
    }

    /// A sync call begins; `full` if it is `fsync`. It may already return the error that stopped
    /// the log: ask [`Log::error`] first.
    #[inline]
    pub fn begin(&mut self, full: bool) -> Call {
        self.calls += 1;
        if full {
            self.full_until = self.calls;
        }
        let barrier = self.marked.unwrap_or(0) == self.written;
        self.marked = Some(self.written);
        if std::mem::take(&mut self.commits) {
            self.requested = self.calls;
        }
        Call { number: self.calls, barrier }
    }

    /// Number that a sync call beginning now would get: what a write hook counts its waits from.
    #[must_use]
    pub fn upcoming(&self) -> u64 {
        self.calls + 1
    }

    /// The highest call that has to be durable before `await` at `distance` lets `call` go on.
    ///
    /// `call` itself counts as pending from its acknowledgement, so at most `distance` calls are
    /// acknowledged and not durable afterwards.
    #[inline]
    pub fn await_target(&mut self, call: u64, distance: u64) -> u64 {
        self.pace.set_window(distance);
        call.saturating_sub(distance)
    }

    /// Whether someone who waits for `target` may go on: it is durable, or never will be.
    #[inline]
    #[must_use]
    pub fn is_ready(&self, target: u64) -> bool {
        self.durable >= target || self.error.is_some()
    }

    /// Somebody parks until `target` is durable. A wait without a sync under way starts one, so
    /// that every wait ends.
    pub fn demand(&mut self, target: u64) {
        self.demanded = self.demanded.max(target);
    }

    /// A reply is held until so many bytes are covered. A sync that covers them starts as soon as it can, or after
    /// the grace, whether or not the application ever asks for one: no reply is held forever.
    pub fn hold(&mut self, bytes: u64, now: Time) {
        self.held = self.held.max(bytes.min(self.written));
        if self.is_held() {
            self.held_since.get_or_insert(now);
        }
    }

    /// How long after a reply was held, and after the last background sync, the next one starts: more replies may come
    /// that it covers, or an event loop is going to sync them itself. 0 is at once.
    pub fn set_grace(&mut self, grace: Time) {
        self.grace = grace;
    }

    /// How long a sync for replies waits for more of them.
    #[must_use]
    pub fn grace(&self) -> Time {
        self.grace
    }

    /// From when the grace counts at the earliest.
    fn not_before(&self) -> Time {
        if self.grace > 0 { self.landed } else { 0 }
    }

    /// Whether a reply waits for bytes that no sync covers, one under way included.
    fn is_held(&self) -> bool {
        self.held > self.promised_bytes()
    }

    /// Whether the time of a request matters now: only the first of those that no sync covers has one, and a
    /// narrow window measures the time between calls. A clock costs as much as the rest of a hook.
    #[inline]
    #[must_use]
    pub fn times_requests(&self) -> bool {
        self.rules.needs_time() || self.pace.times_requests()
    }

    /// [`Log::request`] of a call whose time does not matter ([`Log::times_requests`]).
    #[inline]
    pub fn request_untimed(&mut self, call: u64) {
        self.requested = self.requested.max(call);
    }

    /// The policy asks for a background sync that covers `call`.
    #[inline]
    pub fn request(&mut self, call: u64, now: Time) {
        self.requested = self.requested.max(call);
        self.pace.called(now);
        if call > self.promised() {
            self.pace.requested(now);
        }
    }

    /// The policy asks for a background sync of what is staged, in a write: of the calls before it,
    /// and of what was staged after them.
    pub fn commit(&mut self, now: Time) {
        self.request(self.calls, now);
        self.commits |= self.is_loose();
    }

    /// A write was copied, at `now`; it is counted in the bytes written.
    pub(crate) fn staged_write(&mut self, now: Time) {
        self.stages += 1;
        if self.rules.needs_time() {
            self.oldest.get_or_insert(now);
            self.oldest_after.get_or_insert(now);
        }
    }

    /// A write, or a change of the file's length, for which the policy does not run. It proves
    /// nothing of what is staged, and counts as if it were.
    pub fn wrote_unasked(&mut self) {
        if self.rules.stages {
            let calls = self.calls;
            self.staged_after = Some(self.staged_after.map_or(calls, |after| after.min(calls)));
        }
    }

    /// Reports success of `call` to the application, unless the log has failed.
    ///
    /// # Errors
    /// The error that stopped the log: nothing is acknowledged after it.
    #[inline]
    pub fn acknowledge(&mut self, call: u64, now: Time) -> Result<(), Errno> {
        if let Some(errno) = self.error {
            return Err(errno);
        }
        self.acknowledged = self.acknowledged.max(call);
        self.counters.acknowledged += 1;
        self.counters.max_pending = self.counters.max_pending.max(self.unsynced());
        self.acknowledged_updates = self.updates;
        self.counters.max_updates = self.counters.max_updates.max(self.unsynced_updates());
        self.acknowledged_bytes = self.marked.unwrap_or(0);
        self.counters.max_bytes = self.counters.max_bytes.max(self.unsynced_bytes());
        if self.rules.needs_time() && call > self.durable {
            self.oldest.get_or_insert(now);
            if call > self.newest_covers() {
                self.oldest_after.get_or_insert(now);
            }
        }
        Ok(())
    }

    /// The application has written something since this time that no sync call follows (`on write: defer`): it counts
    /// as acknowledged then, as if a sync call had followed that was skipped. Returns the number of that call; none if the
    /// log has failed.
    pub fn owe(&mut self, since: Time) -> Option<u64> {
        if self.error.is_some() {
            return None;
        }
        // A sync call of the application that follows finds nothing more written, and is a barrier.
        let call = self.begin(false).number;
        self.acknowledge(call, since).ok().map(|()| call)
    }

    /// How often somebody has to look for such writes, if they are synced at all: what was written right after one
    /// look is found by the next one, which is then late by nothing.
    #[must_use]
    pub fn look_every(&self) -> Option<Time> {
        let within = self.rules.flush_within.filter(|_| self.rules.defers_writes)?;
        Some((within - self.margin(within)).max(LOOK_LEAST))
    }

    // ---- syncs ----

    /// A sync starts: it covers every call begun and every byte written before.
    ///
    /// `full` asks for `fsync`. The answer's [`Flight::full`] is binding: a deferred `fsync` must
    /// not be paid with an `fdatasync`, which leaves metadata behind.
    pub fn start(&mut self, background: bool, full: bool, now: Time) -> Flight {
        let wanted = self.wanted(now);
        if self.pace.overflows() && self.flights.is_empty() {
            self.pace.came(0, self.calls.saturating_sub(self.durable), now);
        }
        let flight = Flight {
            id: self.next_flight,
            covers: self.calls,
            bytes: self.written,
            stages: self.stages,
            updates: self.settled,
            full: full || self.full_until > self.durable,
            background,
            since: now,
            wanted,
        };
        self.next_flight += 1;
        self.flights.push(Airborne { flight, home: None, broken: false });
        self.oldest_after = None;
        self.held_since = None;
        self.commits = false;
        self.pace.started();
        flight
    }

    /// A sync has ended with success or failed.
    ///
    /// Linux reports a failed write-back once per open file. Of two syncs that overlap, one gets
    /// the error and the other may return 0 though its pages are lost. So a success counts only
    /// when every sync that was still out when it came home has come home with success too.
    pub fn finish(&mut self, id: u64, now: Time, result: Result<(), Errno>) {
        self.count_broken(now);
        let Some(flight) = self.flights.iter_mut().find(|a| a.flight.id == id) else {
            return;
        };
        let took = now.saturating_sub(flight.flight.since);
        let Flight { covers, background, .. } = flight.flight;
        flight.home = Some(self.next_flight);
        let parked = self.demanded > self.durable;
        if background {
            self.landed = now;
            self.pace.flown(self.calls.saturating_sub(covers), parked);
        }
        if parked || !background {
            self.pace.waited(now);
        }
        match result {
            Ok(()) => {
                self.last_latency = took;
                self.pace.measured(took);
                self.counters.syncs += 1;
                self.settle();
            }
            Err(errno) => {
                self.flights.retain(|a| a.flight.id != id);
                self.counters.errors += 1;
                self.fail(errno);
            }
        }
    }

    /// A sync ended that neither succeeded nor failed: a signal interrupted it, or the descriptor
    /// was gone. It proves nothing, and what it covered needs another.
    pub fn abandon(&mut self, id: u64, now: Time) {
        self.count_broken(now);
        self.flights.retain(|a| a.flight.id != id);
        if self.requested > self.promised() {
            self.pace.requested(now);
        }
        if self.is_held() {
            self.held_since.get_or_insert(now);
        }
        self.commits |= self.rules.stages && self.is_loose();
        // Age is kept per newest flight; without one the oldest acknowledgement counts for all.
        if let Some(oldest) = self.oldest {
            self.oldest_after.get_or_insert(oldest);
        }
        self.settle();
    }

    /// Counts the syncs that are out and take longer than the policy assumes, each once. A sync that ends
    /// is counted without it.
    pub fn count_broken(&mut self, now: Time) {
        let rules = self.rules;
        for airborne in self.flights.iter_mut().filter(|a| a.home.is_none() && !a.broken) {
            airborne.broken = rules.broken_by(&airborne.flight, now).is_some();
            self.counters.broken_assumptions += u64::from(airborne.broken);
        }
    }

    /// A sync that the engine did not start is known to have succeeded, and no sync that was out beside
    /// it has failed: every call up to `covers`, that many bytes and that many updates are on the disk.
    /// Returns whether that is news.
    ///
    /// It may have been an `fdatasync`: while a deferred `fsync` is not paid it proves nothing.
    pub fn witness(&mut self, covers: u64, bytes: u64, updates: u64) -> bool {
        let before = (self.durable, self.covered);
        if self.error.is_some() || self.full_until > self.durable {
            return false;
        }
        self.durable = self.durable.max(covers.min(self.calls));
        self.covered = self.covered.max(bytes.min(self.written));
        self.covered_updates = self.covered_updates.max(updates.min(self.settled));
        if self.durable >= self.acknowledged {
            self.oldest = None;
            self.oldest_after = None;
        }
        (self.durable, self.covered) != before
    }

    /// Stops the log: nothing is acknowledged after a failed sync, because Linux marks the pages
    /// it could not write as clean and a later success says nothing about them.
    pub fn fail(&mut self, errno: Errno) {
        self.error.get_or_insert(errno);
        self.flights.retain(|a| a.home.is_none());
    }

    /// Believes the successes that no flight still out can contradict.
    fn settle(&mut self) {
        let out = self.flights.iter().find(|a| a.home.is_none());
        let first_out = out.map_or(u64::MAX, |a| a.flight.id);
        let newest = self.next_flight.saturating_sub(1);
        let (mut durable, mut covered, mut newest_home) = (self.durable, self.covered, false);
        let (mut unstaged, mut updates) = (self.unstaged, self.covered_updates);
        self.flights.retain(|a| {
            let believed = a.home.is_some_and(|until| until <= first_out);
            if believed {
                durable = durable.max(a.flight.covers);
                covered = covered.max(a.flight.bytes);
                unstaged = unstaged.max(a.flight.stages);
                updates = updates.max(a.flight.updates);
                newest_home |= a.flight.id == newest;
            }
            !believed
        });
        if self.error.is_some() {
            return;
        }
        self.durable = durable;
        self.covered = covered;
        self.unstaged = unstaged;
        self.covered_updates = updates;
        if self.durable >= self.acknowledged && self.staged_writes() == 0 {
            self.oldest = None;
            self.oldest_after = None;
        } else if newest_home {
            self.oldest = self.oldest_after;
        }
    }

    // ---- what the syncer asks ----

    /// What to do about background syncs. Ask again after every change.
    #[inline]
    #[must_use]
    pub fn next(&self, now: Time) -> Step {
        // One background sync at a time: a second would only wait in the journal.
        if self.error.is_some() || self.has_background() {
            return Step::Idle;
        }
        let promised = self.promised();
        let waits = self.is_held();
        if self.demanded > promised || waits && self.grace == 0 || self.commits && self.is_loose() {
            return Step::Start;
        }
        let mut at = Time::MAX;
        if waits {
            at = self.held_since.unwrap_or(now).max(self.not_before()).saturating_add(self.grace);
        }
        if self.requested > promised {
            let waiting = self.calls.saturating_sub(promised);
            match self.pace.start_at(waiting, (self.grace, self.not_before()), now) {
                Some(time) => at = at.min(time),
                None => return Step::Start,
            }
        }
        if let Some(due) = self.due() {
            at = at.min(due);
        }
        match at {
            Time::MAX => Step::Idle,
            at if at <= now => Step::Start,
            at => Step::At(at),
        }
    }

    /// When a sync has to start so that `flush within` is kept. Under an assumption, early enough for two
    /// syncs: one may be out then that does not cover the oldest call, and the next begins when that
    /// ends. Without one, early enough for twice the usual duration, but never before half the time
    /// is over.
    fn due(&self) -> Option<Time> {
        let within = self.rules.flush_within?;
        let oldest = if self.flights.is_empty() { self.oldest } else { self.oldest_after }?;
        Some(oldest.saturating_add(within - self.margin(within)))
    }

    /// How long before the end of a deadline a sync has to start.
    fn margin(&self, within: Time) -> Time {
        match self.rules.assume_sync {
            Some(most) => within.min(most.saturating_mul(2)),
            None => (within / 2).min(self.pace.latency().saturating_mul(2)),
        }
    }

    /// Since when a sync is wanted that starts now. A direct sync takes the place of a background sync that
    /// is wanted: its time counts from when that should have started, at the latest.
    fn wanted(&self, now: Time) -> Time {
        let due = [self.due(), self.pace.due()].into_iter().flatten().min();
        let due = due.filter(|_| !self.has_background());
        due.map_or(now, |at| at.max(self.landed).min(now))
    }

    /// What a sync call has to wait for because `flush within` is broken: the device is slower
    /// than the promise, and what is acknowledged late must not grow.
    #[inline]
    #[must_use]
    pub fn overdue(&self, now: Time) -> Option<u64> {
        let within = self.rules.flush_within?;
        let age = now.saturating_sub(self.oldest?);
        (age > within).then_some(self.acknowledged)
    }

    /// What has to be durable before the log may be closed, or another file of the application be
    /// synced, renamed or removed; none if everything is.
    #[inline]
    #[must_use]
    pub fn undrained(&self) -> Option<u64> {
        (self.acknowledged > self.durable).then_some(self.acknowledged)
    }

    /// Whether a sync that is out, or home and not yet believed, covers `target`.
    #[must_use]
    pub fn is_promised(&self, target: u64) -> bool {
        self.promised() >= target
    }

    /// Every call up to this one is durable or will be when the flights have come home.
    pub(crate) fn promised(&self) -> u64 {
        let flying = self.flights.iter().map(|a| a.flight.covers).max();
        flying.unwrap_or(0).max(self.durable)
    }

    /// So many bytes are durable or will be when the flights have come home.
    fn promised_bytes(&self) -> u64 {
        let flying = self.flights.iter().map(|a| a.flight.bytes).max();
        flying.unwrap_or(0).max(self.covered)
    }

    /// What the newest flight covers, even when it is over.
    fn newest_covers(&self) -> u64 {
        self.flights.last().map_or(self.durable, |a| a.flight.covers)
    }

    /// Whether a sync is out: its descriptor must stay open.
    #[must_use]
    pub fn is_flying(&self) -> bool {
        self.flights.iter().any(|a| a.home.is_none())
    }

    /// The sync that has been out for longest.
    #[must_use]
    pub fn out(&self) -> Option<Flight> {
        self.flights.iter().find(|a| a.home.is_none()).map(|a| a.flight)
    }

    /// The background sync that is out.
    #[must_use]
    pub fn background(&self) -> Option<Flight> {
        self.flights.iter().find(|a| a.flight.background && a.home.is_none()).map(|a| a.flight)
    }

    /// Whether a background sync is out.
    #[inline]
    pub(crate) fn has_background(&self) -> bool {
        self.flights.iter().any(|a| a.flight.background && a.home.is_none())
    }

    // ---- readings ----

    /// The error that stopped the log.
    #[must_use]
    pub fn error(&self) -> Option<Errno> {
        self.error
    }

    /// Sync calls begun.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Every call up to this one is durable.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Highest call that was acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// `pending` as call `number` reads it: the calls before it that are not durable.
    #[must_use]
    pub fn pending(&self, number: u64) -> u64 {
        number.saturating_sub(1).saturating_sub(self.durable)
    }

    /// Calls that are acknowledged and not durable: what a power loss takes now.
    #[must_use]
    pub fn unsynced(&self) -> u64 {
        self.acknowledged.saturating_sub(self.durable)
    }

    /// Bytes written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// `staged` as call `number` reads it: calls up to it that are not durable and whose writes the
    /// policy has staged. What had to be written all the same, because somebody could see the file or
    /// there was no room, is not taken off: the number does not depend on who reads the file.
    #[inline]
    #[must_use]
    pub fn staged(&self, number: u64) -> u64 {
        self.staged_after.map_or(0, |after| number.saturating_sub(after.max(self.durable)))
    }

    /// Staged writes that may not be in the file: what a crash of the process takes, at most.
    #[must_use]
    pub fn staged_writes(&self) -> u64 {
        self.stages - self.unstaged
    }

    /// Whether a write is staged that no sync call has followed and no sync under way covers.
    #[must_use]
    pub fn is_loose(&self) -> bool {
        let flying = self.flights.iter().map(|a| a.flight.bytes).max();
        let promised = flying.unwrap_or(0).max(self.covered);
        self.staged_writes() > 0 && self.written > self.marked.unwrap_or(0).max(promised)
    }

    /// Bytes that are durable, of those written.
    #[must_use]
    pub fn covered(&self) -> u64 {
        self.covered
    }

    /// `pending.bytes`: bytes written and not durable.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.written.saturating_sub(self.covered)
    }

    /// `pending.bytes` as a program reads it: the most if it is not known.
    #[inline]
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        if self.unsure_of_bytes { READING_MOST } else { self.pending_bytes().min(READING_MOST) }
    }

    /// `pending.updates` as a program reads it: updates that are complete in what was written, and that no
    /// replay is known to apply after a power loss; the most if it is not known.
    #[inline]
    #[must_use]
    pub fn read_updates(&self) -> u64 {
        let pending = self.updates.saturating_sub(self.covered_updates);
        if self.unsure_of_updates { READING_MOST } else { pending.min(READING_MOST) }
    }

    /// `pending.age`: 0 if everything acknowledged is durable.
    #[inline]
    #[must_use]
    pub fn pending_age(&self, now: Time) -> Time {
        self.oldest.map_or(0, |oldest| now.saturating_sub(oldest))
    }

    /// `sync.latency`: duration of the last sync that succeeded.
    #[must_use]
    pub fn sync_latency(&self) -> Time {
        self.last_latency
    }

    /// `notify.done`: a sync that began after everything written has succeeded.
    #[must_use]
    pub fn notify_done(&self) -> bool {
        self.covered >= self.written
    }

    /// What the pace has learnt.
    #[must_use]
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Numbers for people.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The policy's rules.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.rules
    }
}
