//! The application: what makes the calls, as a closed loop with few parameters.
//!
//! A trace cannot be replayed call by call under another policy: when a sync no longer takes time,
//! an event loop comes round sooner and finds fewer commands. What stays the same is the work for
//! a command and for a turn, and the number of clients that wait for a reply before they send
//! again. Each parameter says where its value comes from.

/// The parameters of a closed loop. Times are nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Application {
    /// What makes the calls.
    pub kind: ApplicationKind,
    /// Processors of the machine.
    pub cores: u32,
    /// Sync calls are `fsync`.
    pub full: bool,
    /// What a thread pays to wake another.
    pub wake_cost: u64,
    /// From there until the other runs.
    pub wake_delay: u64,
    /// Children that the application forked: after so many commands or sync calls there is one
    /// more (`true`) or one less.
    pub children: Vec<(u64, bool)>,
    /// Commands, or sync calls of threads, after which the simulation ends.
    pub amount: u64,
}

/// What makes the calls.
#[derive(Clone, Debug, PartialEq)]
pub enum ApplicationKind {
    /// One thread that takes what its clients have sent, turn by turn.
    EventLoop(EventLoop),
    /// Each thread writes and syncs for itself.
    Threads(Threads),
}

/// One thread that serves clients turn by turn, as Redis does: it reads the commands that are
/// there, writes them to the log, syncs, and replies to all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct EventLoop {
    /// Clients, each of which waits for its reply before it sends the next command.
    pub clients: u32,
    /// Bytes that a command writes to the log.
    pub command_bytes: u64,
    /// Work of a turn, whatever it holds.
    pub turn: u64,
    /// Work to take and carry out a command.
    pub command: u64,
    /// Work to send a reply.
    pub reply: u64,
    /// Work of a turn that begins after the thread has slept: its caches are cold.
    pub cold: u64,
    /// Work of the clients, all in one thread, between a reply and the next command.
    pub client: u64,
}

/// Threads that do not know of each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Threads {
    /// The log that each thread writes, from 0.
    pub logs: Vec<usize>,
    /// What was recorded between two sync calls, in order: one after the other is replayed.
    pub work: Vec<Work>,
}

/// What a thread does up to its next sync call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Processor time.
    pub cpu: u64,
    /// Time in which it waited for something else.
    pub pause: u64,
    /// Bytes it writes to its log, in one call.
    pub bytes: u64,
}

impl Application {
    /// Threads that make calls.
    #[must_use]
    pub fn callers(&self) -> usize {
        match &self.kind {
            ApplicationKind::EventLoop(_) => 1,
            ApplicationKind::Threads(threads) => threads.logs.len(),
        }
    }

    /// Logs.
    #[must_use]
    pub fn logs(&self) -> usize {
        match &self.kind {
            ApplicationKind::EventLoop(_) => 1,
            ApplicationKind::Threads(threads) => {
                threads.logs.iter().max().map_or(0, |last| last + 1)
            }
        }
    }
}

/// Things that come into being one by one while a thread works: replies of the server, commands of
/// the client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream {
    /// Not yet made.
    left: u32,
    /// Work for each.
    each: u64,
    /// Made, and not yet taken.
    ready: u32,
}

impl Stream {
    /// Nothing is being made, and `ready` are there.
    #[must_use]
    pub fn with_ready(ready: u32) -> Self {
        Self { ready, ..Self::default() }
    }

    /// The thread begins to make `count`, each with `each` work; answers all the work.
    pub fn begin(&mut self, count: u32, each: u64) -> u64 {
        self.left = count;
        self.each = each.max(1);
        u64::from(count) * self.each
    }

    /// The thread has so much work left.
    pub fn settle(&mut self, work_left: u64) {
        let left = work_left.div_ceil(self.each.max(1)).min(self.left.into()) as u32;
        self.ready += self.left - left;
        self.left = left;
    }

    /// How much work will be left when the next is ready; 0 after the last.
    #[must_use]
    pub fn next_stop(&self) -> u64 {
        u64::from(self.left.saturating_sub(1)) * self.each
    }

    /// So many more are ready, made by others.
    pub fn add(&mut self, count: u32) {
        self.ready += count;
    }

    /// Takes all that are ready.
    pub fn take(&mut self) -> u32 {
        std::mem::take(&mut self.ready)
    }

    /// Whether one is ready.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        self.ready > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_made_one_by_one() {
        let mut stream = Stream::with_ready(2);
        assert_eq!(stream.begin(3, 10), 30);
        assert_eq!((stream.take(), stream.next_stop()), (2, 20));
        stream.settle(21);
        assert!(!stream.has_ready());
        stream.settle(20);
        assert_eq!((stream.take(), stream.next_stop()), (1, 10));
        stream.settle(0);
        assert_eq!((stream.take(), stream.next_stop()), (2, 0));
    }
}
