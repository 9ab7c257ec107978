//! The processors: threads that run have one each, threads that sleep wake up at their time.
//!
//! A thread that wakes up takes an idle processor, or pushes a running thread off its own, which
//! waits until a processor is free again: so do the kernel's schedulers with a thread that has
//! slept. Virtual time goes from one thread's next event to another's.

use durac_engine::Time;
use std::collections::VecDeque;

/// Number of a thread.
pub type ThreadId = usize;

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// It works.
    Runs,
    /// It has work and no processor.
    Queues,
    /// It sleeps until this time.
    Sleeps(Time),
    /// It waits for another thread.
    Stands,
}

#[derive(Clone, Copy, Debug)]
struct Thread {
    doing: Doing,
    /// Work before anything else: what waking another thread costs.
    extra: u64,
    /// Work that is left.
    work: u64,
    /// Something is to happen when only so much is left.
    stop: u64,
    /// When it began to stand.
    stood: Time,
}

/// The threads and the time.
#[derive(Clone, Debug)]
pub struct Processors {
    now: Time,
    threads: Vec<Thread>,
    /// What runs on each processor.
    cores: Vec<Option<ThreadId>>,
    /// Threads that were pushed off.
    queue: VecDeque<ThreadId>,
    /// The processor that the next thread is pushed off.
    victim: usize,
}

impl Processors {
    /// `threads` threads that stand.
    #[must_use]
    pub fn new(cores: u32, threads: usize) -> Self {
        let thread = Thread { doing: Doing::Stands, extra: 0, work: 0, stop: 0, stood: 0 };
        Self {
            now: 0,
            threads: vec![thread; threads],
            // A trace may say any number; more than there are threads make no difference.
            cores: vec![None; (cores as usize).clamp(1, threads.max(1))],
            queue: VecDeque::new(),
            victim: 0,
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    #[expect(clippy::indexing_slicing, reason = "threads are numbered here and never removed")]
    fn thread(&mut self, thread: ThreadId) -> &mut Thread {
        &mut self.threads[thread]
    }

    /// The thread works for `work` nanoseconds of a processor, and [`Processors::next`] names it
    /// when `stop` of them are left.
    pub fn run(&mut self, id: ThreadId, work: u64, stop: u64) {
        let thread = self.thread(id);
        thread.work = work;
        thread.stop = stop;
        if matches!(thread.doing, Doing::Sleeps(_) | Doing::Stands) {
            thread.doing = Doing::Runs;
            self.place(id);
        }
    }

    /// Finds a processor for a thread that has woken up.
    fn place(&mut self, id: ThreadId) {
        if let Some(core) = self.cores.iter_mut().find(|core| core.is_none()) {
            *core = Some(id);
            return;
        }
        self.victim = (self.victim + 1) % self.cores.len();
        if let Some(pushed) = self.cores.get_mut(self.victim).and_then(|core| core.replace(id)) {
            self.thread(pushed).doing = Doing::Queues;
            self.queue.push_back(pushed);
        }
    }

    /// The thread leaves its processor to another.
    fn leave(&mut self, id: ThreadId) {
        match self.thread(id).doing {
            Doing::Runs => {
                let next = self.queue.pop_front();
                if let Some(next) = next {
                    self.thread(next).doing = Doing::Runs;
                }
                if let Some(core) = self.cores.iter_mut().find(|core| **core == Some(id)) {
                    *core = next;
                }
            }
            Doing::Queues => self.queue.retain(|queued| *queued != id),
            Doing::Sleeps(_) | Doing::Stands => {}
        }
    }

    /// The thread sleeps until `until`.
    pub fn sleep(&mut self, id: ThreadId, until: Time) {
        self.leave(id);
        self.thread(id).doing = Doing::Sleeps(until);
    }

    /// The thread waits for another.
    pub fn stand(&mut self, id: ThreadId) {
        self.leave(id);
        let now = self.now;
        let thread = self.thread(id);
        thread.doing = Doing::Stands;
        thread.stood = now;
    }

    /// How long the thread has stood.
    pub fn stood_for(&mut self, thread: ThreadId) -> Time {
        self.now - self.thread(thread).stood
    }

    /// Whether the thread waits for another.
    pub fn stands(&mut self, thread: ThreadId) -> bool {
        self.thread(thread).doing == Doing::Stands
    }

    /// The thread has `work` more to do before anything else it does.
    pub fn charge(&mut self, thread: ThreadId, work: u64) {
        self.thread(thread).extra += work;
    }

    /// What was [charged](Processors::charge) and is not yet done.
    pub fn extra(&mut self, thread: ThreadId) -> u64 {
        self.thread(thread).extra
    }

    /// What is left of the thread's work.
    pub fn left(&mut self, thread: ThreadId) -> u64 {
        self.thread(thread).work
    }

    /// Changes at how much work left [`Processors::next`] names the thread.
    pub fn stop_at(&mut self, thread: ThreadId, stop: u64) {
        self.thread(thread).stop = stop;
    }

    /// Goes on to the next event, and answers whose it is; none if all threads stand.
    pub fn next(&mut self) -> Option<ThreadId> {
        let mut first = None;
        let mut at = Time::MAX;
        for (id, thread) in self.threads.iter().enumerate() {
            let time = match thread.doing {
                Doing::Runs => self.now + thread.extra + thread.work.saturating_sub(thread.stop),
                Doing::Sleeps(until) => until.max(self.now),
                Doing::Queues | Doing::Stands => continue,
            };
            if time < at {
                at = time;
                first = Some(id);
            }
        }
        let passed = at.saturating_sub(self.now);
        self.now = if first.is_some() { at } else { self.now };
        for thread in self.threads.iter_mut().filter(|t| t.doing == Doing::Runs) {
            let extra = thread.extra.min(passed);
            thread.extra -= extra;
            thread.work = thread.work.saturating_sub(passed - extra);
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who has an event, and when, until all stand.
    fn events(mut processors: Processors) -> Vec<(ThreadId, Time)> {
        let mut events = Vec::new();
        while let Some(thread) = processors.next() {
            events.push((thread, processors.now()));
            processors.stand(thread);
        }
        events
    }

    #[test]
    fn who_wakes_up_pushes_another_off() {
        let mut processors = Processors::new(1, 3);
        processors.run(0, 100, 0);
        processors.sleep(1, 40);
        assert_eq!(processors.next(), Some(1));
        processors.run(1, 300, 0);
        assert_eq!(processors.left(0), 60);
        assert_eq!(events(processors), [(1, 340), (0, 400)]);
    }

    #[test]
    fn enough_processors_are_not_shared() {
        let mut processors = Processors::new(2, 2);
        processors.run(0, 100, 60);
        processors.run(1, 300, 0);
        processors.charge(1, 10);
        assert_eq!(events(processors), [(0, 40), (1, 310)]);
    }
}
