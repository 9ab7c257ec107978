//! The syncer threads: a few for all logs of a device, started when something is deferred for the
//! first time. Not earlier: servers fork into the background after they have started.
//!
//! A log is in one place of its pool at a time: nowhere, with a time at which somebody is to look at
//! it, in the queue, or with a worker. So its background syncs stay one at a time. Each device has
//! a pool of its own: syncs that hang on a dead disk take that disk's workers and no others.
//!
//! A log that finds every worker busy is told so ([`Submitted::Waits`]), and its calls sync by
//! themselves as long as it waits.
//!
//! Lock order: a log's lock, then the pool's. A worker holds the pool's only to choose.

use crate::clock;
use crate::log::Slot;
use crate::note;
use crate::signals;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{self, Condvar, KEPT_WORKERS, Mutex, MutexGuard, PoisonError, WORKERS};
use crate::syncer::Worker;
use crate::table;
use durac_engine::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// How long a worker without work stays.
const SPARE: Duration = Duration::from_secs(5);

/// Where a log is.
#[derive(Clone, Copy)]
enum Place {
    /// Nobody is going to look at it.
    Nowhere,
    /// Somebody looks at it at this time.
    At(Time, &'static Slot),
    /// In the queue.
    Ready,
    /// A worker has taken it, and will look at it once more before it parks it.
    Taken,
}

/// What becomes of a log that is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// A worker is on its way to it, or there already.
    Soon,
    /// A worker is free for it, and has to be woken ([`Pool::wake`]).
    Sleeps,
    /// Every worker is busy, and there can be no more: it waits for one. Or there is none at all.
    Waits,
}

/// The syncer threads of a device.
pub struct Pool {
    queue: Mutex<Queue>,
    /// Workers without work wait here.
    work: Condvar,
    /// It was said that a thread could not be started.
    complained: AtomicBool,
    /// The workers end, and no more are started.
    quits: AtomicBool,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<&'static Slot>,
    /// Where each log is, by its index.
    places: Vec<Place>,
    /// How many places have a time.
    timed: usize,
    /// Workers, those that are about to start included.
    threads: usize,
    /// Workers that have nothing, or are about to look into the queue. Every log that is not behind
    /// that many others in the queue gets one of them.
    free: usize,
    /// A worker sleeps until this time at the latest; `Time::MAX` if none does.
    watched: Time,
}

type Held<'a> = MutexGuard<'a, Queue>;

impl Pool {
    /// A pool without threads.
    pub fn new() -> Self {
        let queue = Queue { watched: Time::MAX, ..Queue::default() };
        Self {
            queue: Mutex::new(queue),
            work: Condvar::new(),
            complained: AtomicBool::new(false),
            quits: AtomicBool::new(false),
        }
    }

    /// A worker is to look at the log. The caller holds its lock.
    pub fn submit(&'static self, slot: &'static Slot) -> Submitted {
        let mut queue = self.lock();
        match queue.place(slot) {
            Place::Taken => return Submitted::Soon,
            Place::Ready => {}
            Place::Nowhere | Place::At(..) => {
                queue.set(slot, Place::Ready);
                queue.ready.push_back(slot);
            }
        }
        if queue.ready.len() <= queue.free {
            return Submitted::Sleeps;
        }
        if self.hire(queue) {
            return Submitted::Soon;
        }
        let mut queue = self.lock();
        if queue.threads == 0 {
            // Nobody will ever look.
            queue.ready.retain(|other| !std::ptr::eq(*other, slot));
            queue.set(slot, Place::Nowhere);
        }
        Submitted::Waits
    }

    /// Wakes a worker for a log that was handed over.
    pub fn wake(&self) {
        self.work.notify_one();
    }

    /// Somebody is to look at the log at `until`, or nobody if that is `Time::MAX`. The caller is
    /// its worker, and holds its lock.
    pub fn park(&self, slot: &'static Slot, until: Time) {
        let place = if until == Time::MAX { Place::Nowhere } else { Place::At(until, slot) };
        self.lock().set(slot, place);
    }

    /// Nobody needs to look at the log any more: it is closed. The caller holds its lock.
    pub fn dismiss(&self, slot: &Slot) {
        let mut queue = self.lock();
        if let Place::At(..) = queue.place(slot) {
            queue.set(slot, Place::Nowhere);
        }
    }

    /// Whether the log is in the queue or with a worker.
    pub fn has(&self, slot: &Slot) -> bool {
        matches!(self.lock().place(slot), Place::Ready | Place::Taken)
    }

    fn lock(&self) -> Held<'_> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts one more worker; returns false if there are enough, or it cannot be started.
    fn hire(&'static self, mut queue: Held<'_>) -> bool {
        let full = queue.threads >= WORKERS || self.quits.load(Ordering::Acquire);
        // A handler may have interrupted the allocator, which a new thread needs: a worker that is busy comes when it is done.
        // A thread that a child of `vfork` starts would be the child's, and end with it.
        if full || signals::may_be_in_handler() || !table::is_ours() {
            return false;
        }
        queue.threads += 1;
        queue.free += 1;
        drop(queue);
        let Err(error) = sync::spawn(move || Worker::run(self)) else { return true };
        self.lock().leave();
        if !self.complained.swap(true, Ordering::Relaxed) {
            note::error(&format!("no background syncs: {error}; each call syncs by itself"));
        }
        false
    }

    /// The workers are to end as soon as they have no work.
    pub fn quit(&self) {
        let queue = self.lock();
        self.quits.store(true, Ordering::Release);
        drop(queue);
        self.work.notify_all();
    }

    /// Workers may be started again, and one is if a log waits for one.
    pub fn resume(&'static self) {
        self.quits.store(false, Ordering::Release);
        let queue = self.lock();
        if queue.threads == 0 && (queue.timed > 0 || !queue.ready.is_empty()) {
            self.hire(queue);
        }
    }

    /// Starts the first worker, if it has none. Returns whether it has one then.
    pub fn staff(&'static self) -> bool {
        let queue = self.lock();
        queue.threads > 0 || self.hire(queue)
    }

    /// Whether it has workers.
    pub fn is_staffed(&self) -> bool {
        self.lock().threads > 0
    }

    /// A worker has died over a bug in the agent, outside of every log.
    pub fn died(&self) {
        self.lock().leave();
    }

    /// What a worker does until it is not needed: takes logs, and looks at each.
    pub fn work(&'static self, mut look: impl FnMut(&'static Slot)) {
        let mut queue = self.lock();
        loop {
            queue.expire();
            let Some(slot) = queue.ready.pop_front() else {
                match self.idle(queue) {
                    Some(held) => queue = held,
                    None => return,
                }
                continue;
            };
            queue.set(slot, Place::Taken);
            queue.free -= 1;
            self.hand_over(queue);
            look(slot);
            queue = self.lock();
            queue.free += 1;
        }
    }

    /// A worker goes to work: somebody else has to take what is left, and to watch the clock.
    fn hand_over(&'static self, queue: Held<'_>) {
        if queue.ready.is_empty() && !queue.is_unwatched() {
            return;
        }
        if queue.free > 0 {
            drop(queue);
            self.wake();
        } else {
            // Without another one, what is left waits for one of those that are busy.
            self.hire(queue);
        }
    }

    /// Waits for work; none if the worker is not needed any more.
    fn idle<'a>(&'a self, mut queue: Held<'a>) -> Option<Held<'a>> {
        if self.quits.load(Ordering::Acquire) {
            queue.leave();
            return None;
        }
        let due = queue.earliest();
        if due < queue.watched {
            queue.watched = due;
            let time = Duration::from_nanos(due.saturating_sub(clock::now()));
            let (mut queue, _) =
                self.work.wait_timeout(queue, time).unwrap_or_else(PoisonError::into_inner);
            if queue.watched == due {
                queue.watched = Time::MAX;
            }
            return Some(queue);
        }
        let (mut queue, woken) =
            self.work.wait_timeout(queue, SPARE).unwrap_or_else(PoisonError::into_inner);
        let spare = queue.threads > KEPT_WORKERS;
        if woken.timed_out() && spare && queue.ready.is_empty() && !queue.is_unwatched() {
            queue.leave();
            return None;
        }
        Some(queue)
    }
}

impl Queue {
    fn place(&self, slot: &Slot) -> Place {
        self.places.get(slot.index).copied().unwrap_or(Place::Nowhere)
    }

    fn set(&mut self, slot: &Slot, place: Place) {
        if self.places.len() <= slot.index {
            self.places.resize(slot.index + 1, Place::Nowhere);
        }
        let Some(old) = self.places.get_mut(slot.index) else { return };
        self.timed -= usize::from(matches!(old, Place::At(..)));
        self.timed += usize::from(matches!(place, Place::At(..)));
        *old = place;
    }

    /// A worker that was free ends, or never began.
    fn leave(&mut self) {
        self.threads = self.threads.saturating_sub(1);
        self.free = self.free.saturating_sub(1);
    }

    /// The earliest time at which somebody is to look at a log.
    fn earliest(&self) -> Time {
        if self.timed == 0 {
            return Time::MAX;
        }
        let times = self.places.iter().filter_map(|place| match place {
            Place::At(time, _) => Some(*time),
            _ => None,
        });
        times.min().unwrap_or(Time::MAX)
    }

    /// Whether some log has a time, and nobody waits for it.
    fn is_unwatched(&self) -> bool {
        self.timed > 0 && self.watched == Time::MAX
    }

    /// Puts the logs into the queue whose time has come.
    fn expire(&mut self) {
        if self.timed == 0 {
            return;
        }
        let now = clock::now();
        for place in &mut self.places {
            if let Place::At(time, slot) = *place
                && time <= now
            {
                *place = Place::Ready;
                self.ready.push_back(slot);
                self.timed -= 1;
            }
        }
    }
}
