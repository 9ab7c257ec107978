//! The thread that waits for full sockets: started when the first is found, for bytes that are durable and
//! that a client does not read yet.

use super::connection::State;
use super::{Connection, Replies};
use crate::guard;
use crate::note;
use crate::real;
use crate::registry;
use crate::signals;
use crate::sync;
use crate::sys;
use crate::table;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

const NONE: RawFd = -1;
/// Connections that are looked at at once.
const EVENTS: usize = 64;

/// It.
pub struct Poller {
    epoll: AtomicI32,
    starting: AtomicBool,
    quits: AtomicBool,
    /// A socket was full in a signal handler, where no thread can be started.
    wanted: AtomicBool,
}

impl Poller {
    /// Without a thread.
    pub fn new() -> Self {
        Self {
            epoll: AtomicI32::new(NONE),
            starting: AtomicBool::new(false),
            quits: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
        }
    }

    /// Whether a handler has left full sockets, and the caller can start the thread for them.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
            && !signals::may_be_in_handler()
            && self.wanted.swap(false, Ordering::Relaxed)
    }

    /// Looks at a connection when its socket can be written; false if nobody is going to.
    pub fn watch(&self, connection: &'static Connection, state: &mut State) -> bool {
        let Some(epoll) = self.epoll() else {
            let later = signals::may_be_in_handler();
            self.wanted.fetch_or(later, Ordering::Relaxed);
            return later;
        };
        let mut event = libc::epoll_event {
            events: (libc::EPOLLOUT | libc::EPOLLONESHOT) as u32,
            u64: connection.number as u64,
        };
        let mut control = |operation: libc::c_int| {
            // SAFETY: the event is read.
            let result = unsafe {
                sys::call(
                    libc::SYS_epoll_ctl,
                    [
                        epoll as usize,
                        operation as usize,
                        state.fd as usize,
                        (&raw mut event).expose_provenance(),
                    ],
                )
            };
            sys::decode(result)
        };
        let (first, second) = match state.watched {
            true => (libc::EPOLL_CTL_MOD, libc::EPOLL_CTL_ADD),
            false => (libc::EPOLL_CTL_ADD, libc::EPOLL_CTL_MOD),
        };
        state.watched = control(first).is_ok() || control(second).is_ok();
        state.watched
    }

    /// The descriptor of the events, with the thread that waits for them.
    fn epoll(&self) -> Option<RawFd> {
        let epoll = self.epoll.load(Ordering::Acquire);
        if epoll != NONE {
            return Some(epoll);
        }
        // Not a lock: who finds another at it waits for nanoseconds, or a thread's start.
        while self.starting.swap(true, Ordering::Acquire) {
            sync::yield_now();
        }
        if self.epoll.load(Ordering::Acquire) == NONE {
            self.epoll.store(self.start().unwrap_or(NONE), Ordering::Release);
        }
        self.starting.store(false, Ordering::Release);
        Some(self.epoll.load(Ordering::Acquire)).filter(|epoll| *epoll != NONE)
    }

    fn start(&self) -> Option<RawFd> {
        // Descriptor and thread would be those of a child of `vfork`. A handler may have interrupted the allocator, which a
        // new thread needs.
        if !table::is_ours() || signals::may_be_in_handler() {
            return None;
        }
        // SAFETY: the call makes a descriptor.
        let low = unsafe { sys::call(libc::SYS_epoll_create1, [libc::EPOLL_CLOEXEC as usize]) };
        let low = sys::decode(low).ok()? as RawFd;
        let high = registry::duplicate(low);
        // SAFETY: the descriptor was made above.
        unsafe { real::CLOSE.get()(low) };
        let epoll = high?;
        let body = move || {
            guard::run(|| {
                if let Some(registry) = table::registry() {
                    registry.replies.poll(epoll, &registry.replies.poller);
                }
            });
        };
        if let Err(error) = sync::spawn(body) {
            note::error(&format!("no thread for clients that do not read: {error}"));
            registry::close_own(epoll);
            return None;
        }
        Some(epoll)
    }

    /// The thread ends at its next event, or within a second.
    pub fn quit(&self) {
        self.quits.store(true, Ordering::Release);
    }

    /// It may go on, or another be started.
    pub fn resume(&self) {
        self.quits.store(false, Ordering::Release);
    }
}

impl Replies {
    /// What the thread does.
    fn poll(&self, epoll: RawFd, poller: &Poller) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        while !poller.quits.load(Ordering::Acquire) {
            // SAFETY: the array has room for so many events.
            let found = unsafe {
                sys::call(
                    libc::SYS_epoll_wait,
                    [epoll as usize, events.as_mut_ptr().expose_provenance(), EVENTS, 1000],
                )
            };
            let found = usize::try_from(found).unwrap_or(0);
            for event in events.iter().take(found) {
                let number = event.u64 as usize;
                let Some(connection) = self.numbered(number) else { continue };
                let mut state = connection.lock();
                self.settle(connection, &mut state);
            }
        }
        // The next full socket has another thread started.
        poller.epoll.store(NONE, Ordering::Release);
        registry::close_own(epoll);
    }
}
