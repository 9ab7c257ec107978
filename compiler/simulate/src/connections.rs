//! What belongs to the server's connections: held replies, and turns that gather.
//!
//! The rules are the agent's: which turn looks for more is `durac_engine::gather`, when a sync starts for replies is the
//! engine's. A reply is held under the number of bytes that were written when it was made, and leaves when so many are
//! covered (`durac_engine::Release` with one log). A thread syncs and sends: the agent's other two ways, which it
//! tries on a quick disk, are not simulated.

use super::application::EventLoop;
use super::call::Step;
use super::drive::Simulation;
use durac_abi::{Context, Hook, Verdict};
use durac_engine::Time;
use durac_engine::gather::Turns;
use durac_prove::machine::{Ended, Memory, World};
use std::collections::VecDeque;

/// How long one look of a turn for more takes: a call of `epoll_wait` that does not wait.
const LOOK: u64 = 1_000;
/// Syncs that take less are not waited for (`SLOW` of the agent's held replies), ...
const QUICK: Time = 600_000;
/// ... and after a longer one the next waits this part of it, ...
const GAP: u64 = 12;
/// ... at most so long.
const GRACE: Time = 1_000_000;

/// Replies that are held, and turns.
#[derive(Debug, Default)]
pub struct Connections {
    /// How many bytes of the log they need, and how many replies they are.
    held: VecDeque<(u64, u32)>,
    turns: Turns,
    /// Who sends next, in order: each client sends again when it has its reply.
    waiting: VecDeque<u64>,
    /// Whose commands are served, or whose replies are held, in order.
    served: VecDeque<u64>,
}

/// A turn that looks for more commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    until: Time,
    target: u32,
    found: u32,
    woken: bool,
}

impl Connections {
    /// Of so many clients.
    #[must_use]
    pub fn new(clients: u32) -> Self {
        Self { waiting: (0..u64::from(clients)).collect(), ..Self::default() }
    }

    /// The server has synced its log.
    pub fn synced(&mut self) {
        self.turns.synced();
    }

    /// A turn serves so many commands.
    pub fn serves(&mut self, count: u32) {
        let count = (count as usize).min(self.waiting.len());
        self.turns.serves(self.waiting.range(..count).copied());
        self.served.extend(self.waiting.drain(..count));
    }

    /// So many clients have their replies.
    pub fn replied(&mut self, count: u32) {
        let count = (count as usize).min(self.served.len());
        self.waiting.extend(self.served.drain(..count));
    }

    /// How many replies need no more than this.
    fn take_free(&mut self, covered: u64) -> u32 {
        let mut free = 0;
        while let Some((_, count)) = self.held.pop_front_if(|(needs, _)| *needs <= covered) {
            free += count;
        }
        free
    }
}

impl Simulation<'_> {
    /// A turn has found so many commands: whether it looks for more first.
    pub fn looks(&mut self, caller: usize, found: u32, woken: bool) -> bool {
        if !self.machine.has(Hook::Turn) {
            return false;
        }
        let Some(target) = self.connections.turns.target(found as usize) else { return false };
        let context = Context {
            ready: found.into(),
            child_active: (self.children > 0).into(),
            ..Context::default()
        };
        self.machine.memory().set_context(context);
        let within = match self.machine.run(Hook::Turn, &mut Alone) {
            Ok(Ended::Verdict(Verdict::Gather(within))) => within,
            Ok(_) => return false,
            Err(failure) => {
                self.failure = Some(failure);
                return false;
            }
        };
        let until = self.cpu.now() + Time::from(within);
        let look = Look { until, target: target as u32, found, woken };
        self.parts(caller).0.step = Step::Looks(look);
        self.cpu.run(caller, LOOK, 0);
        true
    }

    /// A turn has looked once.
    pub fn looked(&mut self, caller: usize, event_loop: &EventLoop, mut look: Look) {
        look.found += self.take_arrived();
        if look.found < look.target && self.cpu.now() < look.until {
            self.parts(caller).0.step = Step::Looks(look);
            self.cpu.run(caller, LOOK, 0);
            return;
        }
        self.connections.turns.looked(look.target as usize, look.found as usize);
        self.serve(caller, event_loop, look.found, look.woken);
    }

    /// The server makes so many replies: whether they are held.
    pub fn holds(&mut self, caller: usize, event_loop: &EventLoop, count: u32) -> bool {
        if !self.machine.has(Hook::Reply) {
            return false;
        }
        let now = self.cpu.now();
        let (state, place) = self.parts(caller);
        let (index, written) = (state.log, place.written);
        place.tell();
        if place.log.covered() >= written {
            return false;
        }
        place.log.hold(written, now);
        state.step = Step::Copies;
        self.connections.held.push_back((written, count));
        self.poke(caller, index);
        // The thread that sends them does the other half.
        self.cpu.run(caller, u64::from(count) * event_loop.reply / 2, 0);
        true
    }

    /// A sync has ended: sends what may go.
    pub fn release(&mut self, index: usize, thread: usize) {
        if !self.machine.has(Hook::Reply) {
            return;
        }
        let Some(place) = self.places.get_mut(index) else { return };
        let latency = place.log.pace().latency();
        place.log.set_grace(if latency < QUICK { 0 } else { (latency / GAP).min(GRACE) });
        let free = self.connections.take_free(place.log.covered());
        if free > 0 {
            self.cpu.charge(thread, u64::from(free) * self.reply_work() / 2);
            self.arrives(thread, free);
        }
    }
}

/// A program that belongs to no log calls no helper.
struct Alone;

impl World for Alone {
    fn request(&mut self) {}

    fn wait(&mut self, _: u64, _: &Memory) -> bool {
        false
    }
}
