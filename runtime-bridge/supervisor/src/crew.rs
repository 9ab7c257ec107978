//! The threads that answer calls. One of them, the leader, receives; it answers what it can at once. Before it
//! blocks, for a sync or for another thread, it gives the lead to another, so that no call waits for a call that has
//! nothing to do with it.

use crate::shared::MAX_THREADS;
use std::cell::Cell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Stack of a thread, bytes.
const STACK: usize = 256 << 10;

thread_local! {
    /// This thread is the leader.
    static LEADS: Cell<bool> = const { Cell::new(false) };
}

/// The threads.
pub struct Crew {
    state: Mutex<State>,
    turn: Condvar,
    /// What a thread does with its number when it leads, until it no longer does.
    work: fn(usize),
}

struct State {
    has_leader: bool,
    idle: usize,
    threads: usize,
}

impl Crew {
    /// A crew without threads.
    pub const fn new(work: fn(usize)) -> Self {
        let state = State { has_leader: false, idle: 0, threads: 0 };
        Self { state: Mutex::new(state), turn: Condvar::new(), work }
    }

    /// Starts the first thread.
    pub fn start(&'static self) -> std::io::Result<()> {
        let mut state = self.lock();
        self.hire(&mut state)
    }

    /// This thread is about to block: if it leads, another one leads from now on. If there can be no other, the
    /// calls behind it wait.
    pub fn may_block(&'static self) {
        if !LEADS.get() {
            return;
        }
        let mut state = self.lock();
        if state.idle == 0 && self.hire(&mut state).is_err() {
            return;
        }
        state.has_leader = false;
        LEADS.set(false);
        drop(state);
        self.turn.notify_one();
    }

    /// Whether this thread leads.
    pub fn leads() -> bool {
        LEADS.get()
    }

    fn hire(&'static self, state: &mut State) -> std::io::Result<()> {
        if state.threads >= MAX_THREADS {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        let number = state.threads;
        let builder = thread::Builder::new().name("durac-answer".into()).stack_size(STACK);
        builder.spawn(move || self.serve(number))?;
        state.threads += 1;
        Ok(())
    }

    fn serve(&'static self, number: usize) {
        loop {
            let mut state = self.lock();
            state.idle += 1;
            while state.has_leader {
                state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.idle -= 1;
            state.has_leader = true;
            LEADS.set(true);
            drop(state);
            (self.work)(number);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
