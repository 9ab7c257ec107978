//! What is counted while a simulation runs: durations, syncs, and what a crash would take.

use super::histogram::Histogram;
use super::report::{Instant, Lane, Latency, Loss, LossReport, PolicyReport, TimelineEvent};
use durac_core::unit::{Unit, show};
use durac_engine::{Log, Time};
use std::collections::VecDeque;

/// Events kept for the timeline, ...
const KEPT: usize = 96;
/// ... and how many of them are after the worst crash.
const AFTER: u32 = 24;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A write of so many bytes.
    Write(u64),
    /// A sync call that was acknowledged before its sync.
    Acknowledged,
    /// A sync call that returned after its own sync.
    Passed,
    /// A sync call that returned an error.
    Failed,
    /// A call waited.
    Wait,
    /// A sync, in the background or not.
    Sync(bool),
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: Time,
    end: Time,
    what: What,
    call: u64,
}

/// An acknowledged call that is not durable.
#[derive(Clone, Copy, Debug)]
struct Owed {
    number: u64,
    bytes: u64,
    commands: u64,
    since: Time,
}

/// What a log owes.
#[derive(Clone, Debug, Default)]
struct Book {
    owed: VecDeque<Owed>,
    unsynced: u64,
    bytes: u64,
    commands: u64,
}

/// What a crash takes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    syncs: u64,
    bytes: u64,
    commands: u64,
}

/// The event after which a crash comes.
#[derive(Clone, Copy, Debug, Default)]
struct Scene {
    /// The call that has returned, or that a sync covers which is about to end.
    call: u64,
    ending: bool,
    /// What the background sync under way covers.
    flying: Option<u64>,
    durable: u64,
}

impl Scene {
    fn new(log: &Log, call: u64, ending: bool) -> Self {
        let flying = log.background().map(|flight| flight.covers);
        Self { call, ending, flying, durable: log.durable() }
    }
}

/// The worst crash up to now.
#[derive(Clone, Copy, Debug, Default)]
struct Worst {
    syncs: u64,
    at: Time,
    event: u64,
    scene: Scene,
}

/// Counts a simulation.
#[derive(Debug)]
pub struct Observer {
    latency: Histogram,
    blocked: u64,
    calls: u64,
    writes: u64,
    syncs: u64,
    /// The longest sync that succeeded.
    slowest: Time,
    failed: u64,
    books: Vec<Book>,
    total: Taken,
    lost: [Histogram; 5],
    /// Commands whose sync call has returned with success, and those whose client has its reply.
    acknowledged: u64,
    replied: u64,
    every_event: bool,
    /// Random crashes that are still to come, the next one last.
    crashes: Vec<Time>,
    next_crash: Time,
    worst: Worst,
    spans: VecDeque<Span>,
    /// Events that are still added before the timeline is kept; none when nothing is worse.
    until_kept: Option<u32>,
    timeline: Vec<Span>,
}

impl Observer {
    /// Begins to count. `crashes` are the instants of random ones; none is one after each event.
    #[must_use]
    pub fn new(logs: usize, crashes: Option<Vec<Time>>) -> Self {
        let every_event = crashes.is_none();
        let mut crashes = crashes.unwrap_or_default();
        crashes.sort_unstable_by(|a, b| b.cmp(a));
        let next_crash = crashes.last().copied().unwrap_or(Time::MAX);
        Self {
            latency: Histogram::default(),
            blocked: 0,
            calls: 0,
            writes: 0,
            syncs: 0,
            slowest: 0,
            failed: 0,
            books: vec![Book::default(); logs],
            total: Taken::default(),
            lost: Default::default(),
            acknowledged: 0,
            replied: 0,
            every_event,
            crashes,
            next_crash,
            worst: Worst::default(),
            spans: VecDeque::with_capacity(KEPT),
            until_kept: None,
            timeline: Vec::new(),
        }
    }

    /// Events up to now.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.calls + self.writes + self.syncs
    }

    /// Time goes on to `now`.
    pub fn pass(&mut self, now: Time) {
        while self.next_crash <= now {
            let at = self.next_crash;
            self.crash(at, Scene::default());
            self.crashes.pop();
            self.next_crash = self.crashes.last().copied().unwrap_or(Time::MAX);
        }
    }

    /// A write of `bytes`.
    pub fn wrote(&mut self, now: Time, bytes: u64) {
        self.writes += 1;
        self.span(now, now, What::Write(bytes), 0);
    }

    /// A call was parked since `since` until `target` was durable.
    pub fn waited(&mut self, since: Time, now: Time, target: u64) {
        if now > since {
            self.span(since, now, What::Wait, target);
        }
    }

    /// So many clients have their replies.
    pub fn replied(&mut self, count: u64) {
        self.replied += count;
    }

    /// A sync call has returned, `extra` nanoseconds after `now`. It stands for what was written
    /// since the call before it.
    pub fn returned(&mut self, log: &Log, index: usize, end: Returned) {
        let Returned { number, began, now, extra, what, bytes, commands } = end;
        self.calls += 1;
        self.latency.add(now - began + extra);
        self.blocked += now - began + extra;
        if what == What::Acknowledged
            && number > log.durable()
            && let Some(book) = self.books.get_mut(index)
        {
            book.owed.push_back(Owed { number, bytes, commands, since: now });
            book.bytes += bytes;
            book.commands += commands;
            self.total.bytes += bytes;
            self.total.commands += commands;
        }
        if what != What::Failed {
            self.acknowledged += commands;
        }
        self.failed += u64::from(what == What::Failed);
        self.span(began, now, what, number);
        self.balance(log, index);
        if self.every_event {
            self.crash(now, Scene::new(log, number, false));
        }
    }

    /// A sync that covers calls up to `covers` is about to end: the last instant at which a crash
    /// takes them.
    pub fn ending(&mut self, log: &Log, now: Time, covers: u64) {
        if self.every_event {
            self.crash(now, Scene::new(log, covers, true));
        }
    }

    /// It has ended with success.
    pub fn synced(
        &mut self,
        log: &Log,
        index: usize,
        (since, now): (Time, Time),
        covers: u64,
        background: bool,
    ) {
        self.syncs += 1;
        self.slowest = self.slowest.max(now - since);
        self.span(since, now, What::Sync(background), covers);
        self.balance(log, index);
    }

    /// Takes from the book what has become durable.
    fn balance(&mut self, log: &Log, index: usize) {
        let Some(book) = self.books.get_mut(index) else { return };
        while let Some(first) = book.owed.front().filter(|o| o.number <= log.durable()) {
            book.bytes -= first.bytes;
            book.commands -= first.commands;
            self.total.bytes -= first.bytes;
            self.total.commands -= first.commands;
            book.owed.pop_front();
        }
        self.total.syncs = self.total.syncs - book.unsynced + log.unsynced();
        book.unsynced = log.unsynced();
    }

    /// A crash now.
    fn crash(&mut self, now: Time, scene: Scene) {
        let oldest = self.books.iter().filter_map(|b| b.owed.front()).map(|o| o.since).min();
        let age = oldest.map_or(0, |since| now.saturating_sub(since));
        let Taken { syncs, bytes, commands } = self.total;
        // Replies are sent in the order of the commands.
        let durable = self.acknowledged - commands;
        let seen = self.replied.saturating_sub(durable);
        for (histogram, value) in self.lost.iter_mut().zip([syncs, bytes, age, commands, seen]) {
            histogram.add(value);
        }
        if syncs > self.worst.syncs {
            self.worst = Worst { syncs, at: now, event: self.events(), scene };
            self.until_kept = Some(AFTER);
        }
    }

    fn span(&mut self, start: Time, end: Time, what: What, call: u64) {
        if self.spans.len() >= KEPT {
            self.spans.pop_front();
        }
        self.spans.push_back(Span { start, end, what, call });
        if let Some(left) = &mut self.until_kept {
            *left -= 1;
            if *left == 0 {
                self.keep();
            }
        }
    }

    /// Keeps the events around the worst crash.
    fn keep(&mut self) {
        self.timeline.clear();
        self.timeline.extend(&self.spans);
        self.until_kept = None;
    }

    /// What a policy with a deadline did not keep, or what did not hold that it assumes.
    #[must_use]
    pub fn late(&self, deadline: Time, assumed: Option<Time>) -> Vec<String> {
        let mut notes = Vec::new();
        let time = |time| show(time, Unit::Duration);
        let [_, _, age, ..] = &self.lost;
        if age.max() > deadline {
            notes.push(format!(
                "crashes would have lost calls acknowledged up to {} earlier, more than the deadline of {}",
                time(age.max()),
                time(deadline)
            ));
        }
        if let Some(assumed) = assumed.filter(|assumed| self.slowest > *assumed) {
            notes.push(format!(
                "a sync took {}; the policy assumes at most {}",
                time(self.slowest),
                time(assumed)
            ));
        }
        notes
    }

    /// What was counted in `now` nanoseconds, in which `commands` were carried out.
    #[must_use]
    pub fn report(mut self, now: Time, commands: Option<u64>) -> PolicyReport {
        if self.until_kept.is_some() {
            self.keep();
        }
        let seconds = now as f64 / 1e9;
        let rate = |count: u64| count as f64 / seconds.max(1e-9);
        PolicyReport {
            seconds,
            calls: self.calls,
            calls_per_second: rate(self.calls),
            commands_per_second: commands.map(rate),
            latency: Latency {
                p50_ns: self.latency.quantile(0.5),
                p99_ns: self.latency.quantile(0.99),
                p999_ns: self.latency.quantile(0.999),
                max_ns: self.latency.max(),
                histogram: self.latency.ranges().collect(),
            },
            syncs: self.syncs,
            blocked_ns: self.blocked,
            loss: self.loss(),
            timeline: self.timeline(),
            notes: self.notes(),
            ..PolicyReport::default()
        }
    }

    fn notes(&self) -> Vec<String> {
        match self.failed {
            0 => Vec::new(),
            n => vec![format!("the policy failed {n} calls, on which most applications stop")],
        }
    }

    fn loss(&self) -> LossReport {
        let loss = |of: &dyn Fn(&Histogram) -> f64| {
            let [syncs, bytes, age_ns, commands, seen] = self.lost.each_ref().map(of);
            Loss { syncs, bytes, age_ns, commands, seen }
        };
        let [syncs, ..] = &self.lost;
        LossReport {
            crashes: syncs.count(),
            worst: loss(&|h| h.max() as f64),
            p99: loss(&|h| h.quantile(0.99) as f64),
            mean: loss(&Histogram::mean),
            histogram: syncs.ranges().collect(),
            worst_instant: (self.worst.syncs > 0).then(|| self.instant()),
        }
    }

    fn instant(&self) -> Instant {
        let Worst { at, event, scene, .. } = self.worst;
        let Scene { call, ending, flying, durable } = scene;
        let text = if !self.every_event {
            "a random instant".to_owned()
        } else {
            match (ending, flying) {
                (true, _) => format!("the sync of the calls up to {call} is about to end"),
                (false, Some(covers)) => format!(
                    "call {call} has returned, call {durable} is durable, the sync of the calls up \
                     to {covers} is under way"
                ),
                (false, None) => {
                    format!(
                        "call {call} has returned, call {durable} is durable, no sync is under way"
                    )
                }
            }
        };
        Instant { t_ns: at, event, text }
    }

    fn timeline(&self) -> Vec<TimelineEvent> {
        let mut events: Vec<_> = self.timeline.iter().map(Span::event).collect();
        events.sort_by_key(|event| event.start_ns);
        events
    }
}

/// How a sync call ended.
#[derive(Clone, Copy, Debug)]
pub struct Returned {
    /// Its number.
    pub number: u64,
    /// When it began.
    pub began: Time,
    /// The time.
    pub now: Time,
    /// Work in the call that the thread has still to do.
    pub extra: u64,
    /// How it ended.
    pub what: What,
    /// Bytes written since the call before it.
    pub bytes: u64,
    /// Commands in them.
    pub commands: u64,
}

impl Span {
    fn event(&self) -> TimelineEvent {
        let Span { start: start_ns, end: end_ns, what, call } = *self;
        let (lane, text) = match what {
            What::Write(bytes) => (Lane::Application, format!("write {bytes} bytes")),
            What::Acknowledged => (Lane::Application, format!("call {call} acknowledged")),
            What::Passed => (Lane::Application, format!("call {call} returns after its sync")),
            What::Failed => (Lane::Application, format!("call {call} fails")),
            What::Wait => (Lane::Engine, format!("wait until call {call} is durable")),
            What::Sync(true) => (Lane::Disk, format!("background sync up to call {call}")),
            What::Sync(false) => (Lane::Disk, format!("sync up to call {call}")),
        };
        TimelineEvent { start_ns, end_ns, lane, text, call }
    }
}
