//! The threads that answer calls. One of them, the leader, receives; it answers what it can at once. Before it
//! blocks, for a sync or for another thread, it gives the lead to another, so that no call waits for a call that has
//! nothing to do with it.
//!
//! A process of the command may serve a file system, and make calls for each of its own. Threads that wait for a file system
//! to follow a name ([`Crew::asks`]) are therefore limited, and 64 others are left. Those that wait for something else
//! ([`Crew::may_block`]: a sync, or a file that the caller has open) are not: while all of the others do, nobody receives.

use crate::clock;
use crate::shared::MAX_THREADS;
use durac_engine::Time;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Stack of a thread, bytes.
const STACK: usize = 256 << 10;
/// Between two looks whether they have stopped.
const NAP: Duration = Duration::from_micros(200);
/// Threads that may wait for a file system at once.
const MOST_ASKING: usize = MAX_THREADS - 64;
/// Ends the system call of a thread that waits for a call. Nothing happens where it comes too late, and a program that
/// this process becomes ignores it.
const WAKE: libc::c_int = libc::SIGURG;

thread_local! {
    /// This thread is the leader.
    static LEADS: Cell<bool> = const { Cell::new(false) };
    /// Its number in the system.
    static NUMBER: Cell<libc::pid_t> = const { Cell::new(0) };
    /// It waits for a file system, or may.
    static ASKS: Cell<bool> = const { Cell::new(false) };
}

/// The threads.
pub struct Crew {
    state: Mutex<State>,
    turn: Condvar,
    /// What a thread does with its number when it leads, until it no longer does.
    work: fn(usize),
    /// Nobody leads any more, or is about to.
    is_stopped: AtomicBool,
    /// The thread that waits for a call, or 0.
    receiver: AtomicI32,
}

/// While it lives, nobody receives or answers a call.
pub struct Stopped(&'static Crew);

impl Drop for Stopped {
    fn drop(&mut self) {
        let state = self.0.lock();
        self.0.is_stopped.store(false, Ordering::SeqCst);
        drop(state);
        self.0.turn.notify_all();
    }
}

/// While it lives, this thread may wait for a file system.
pub struct MayWait {
    /// None if the thread is not counted, or counted already.
    counted: Option<&'static Crew>,
    /// It is this thread's.
    _of_thread: PhantomData<*const ()>,
}

impl Drop for MayWait {
    fn drop(&mut self) {
        if let Some(crew) = self.counted {
            ASKS.set(false);
            crew.lock().asking -= 1;
        }
    }
}

struct State {
    has_leader: bool,
    /// Threads that may wait for a file system.
    asking: usize,
    idle: usize,
    threads: usize,
}

impl Crew {
    /// A crew without threads.
    pub const fn new(work: fn(usize)) -> Self {
        let state = State { has_leader: false, asking: 0, idle: 0, threads: 0 };
        let (is_stopped, receiver) = (AtomicBool::new(false), AtomicI32::new(0));
        Self { state: Mutex::new(state), turn: Condvar::new(), work, is_stopped, receiver }
    }

    /// Starts the first thread.
    pub fn start(&'static self) -> std::io::Result<()> {
        extern "C" fn nothing(_: libc::c_int) {}
        let handler: extern "C" fn(libc::c_int) = nothing;
        // SAFETY: zeros are an action without flags: system calls are not restarted. The handler does nothing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as usize;
            libc::sigaction(WAKE, &raw const action, std::ptr::null_mut());
        }
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

    /// This thread may wait for a file system. None if too many do, or if it would have to wait while it leads, since no
    /// other thread can be started: a process of the command may serve that file system. Threads that answer no calls
    /// always may.
    pub fn asks(&'static self) -> Option<MayWait> {
        let is_counted = NUMBER.get() != 0 && !ASKS.get();
        self.may_block();
        let mut state = self.lock();
        if is_counted && (LEADS.get() || state.asking >= MOST_ASKING) {
            return None;
        }
        if is_counted {
            state.asking += 1;
            ASKS.set(true);
        }
        drop(state);
        Some(MayWait { counted: is_counted.then_some(self), _of_thread: PhantomData })
    }

    /// Whether this thread leads, and should receive another call.
    pub fn leads(&self) -> bool {
        LEADS.get() && !self.is_stopped.load(Ordering::SeqCst)
    }

    /// Receives a call, which [`Crew::stop`] interrupts.
    pub fn receives<T>(&self, receive: impl FnOnce() -> T) -> T {
        self.receiver.store(NUMBER.get(), Ordering::Relaxed);
        let received = receive();
        self.receiver.store(0, Ordering::Relaxed);
        received
    }

    /// Waits until every call that was received is answered, and no other is received. None if that takes longer.
    pub fn stop(&'static self, until: Time) -> Option<Stopped> {
        self.is_stopped.store(true, Ordering::SeqCst);
        let stopped = Stopped(self);
        loop {
            let state = self.lock();
            if state.idle == state.threads {
                return Some(stopped);
            }
            drop(state);
            if clock::now() > until {
                return None;
            }
            // It may not have begun to wait: again until it has seen it.
            let receiver = self.receiver.load(Ordering::Relaxed);
            if receiver != 0 {
                // SAFETY: no pointers. A thread of this process, or none.
                unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), receiver, WAKE) };
            }
            thread::sleep(NAP);
        }
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
        // SAFETY: no preconditions.
        NUMBER.set(unsafe { libc::gettid() });
        loop {
            let mut state = self.lock();
            if LEADS.replace(false) {
                state.has_leader = false;
            }
            state.idle += 1;
            while state.has_leader || self.is_stopped.load(Ordering::SeqCst) {
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
