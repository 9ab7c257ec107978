//! Replies that are held: bytes that the application has written to a connection it accepted, and that no client
//! sees before all that had been written to the logs then is durable.
//!
//! `durac_engine::Release` decides which may go; this module finds out what a reply needs, keeps the bytes
//! ([`Connection`]), and has them sent by the thread whose sync made them free to go. A connection whose socket is
//! full is left to the [`Poller`].
//!
//! Lock order: connection, then a log, then the tickets. No lock of a log is held when a connection's is taken.

mod choice;
mod clean;
mod connection;
mod drain;
pub mod epolls;
mod event_loop;
mod group;
mod links;
mod poller;

pub use choice::{Choice, Way};
pub use connection::{Connection, patience};
pub use event_loop::{held, is_waiting, loop_sends, may_hold, sync_begins, way_changed};

use crate::clock;
use crate::errno;
use crate::fault_injection::{Fault, injects};
use crate::log::Slot;
use crate::note;
use crate::policy::{Policy, Program};
use crate::real;
use crate::registry::{self, Registry};
use crate::stage::Pieces;
use crate::table::{self, Entry};
use connection::{Queue, State};
use durac_abi::{Context, Hook, READING_MOST, Reading, Verdict};
use durac_engine::{Errno, Fate, Need, Release, Ticket, Time};
use durac_shm::status::StatusPage;
use group::Group;
use libc::c_int;
use poller::Poller;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that are kept of one connection; whoever writes more waits until they are durable.
pub const ROOM: usize = 1 << 20;
/// Bytes that are kept of all connections.
pub const ROOM_OF_ALL: usize = 64 << 20;
/// How long the end of the process waits for clients that do not read.
const PATIENCE: Time = 1_000_000_000;

const PAGES: usize = 256;
const ON_PAGE: usize = table::FDS / PAGES;

type Page = [AtomicPtr<Connection>; ON_PAGE];

/// The held replies of this process.
pub struct Replies {
    tickets: Mutex<Tickets>,
    /// The connections with a queue, by descriptor.
    pages: [AtomicPtr<Page>; PAGES],
    /// Every connection there ever was, by number.
    all: Mutex<Vec<&'static Connection>>,
    /// Those that serve no socket.
    free: Mutex<Vec<&'static Connection>>,
    /// Bytes that are held.
    bytes: AtomicUsize,
    poller: Poller,
    /// The policy holds replies.
    holds: bool,
    page: &'static StatusPage,
    /// An event loop that writes replies is awake: it comes by when it has nothing else to do.
    awake: AtomicBool,
    /// It is the loop that syncs.
    by_loop: AtomicBool,
    /// Connections that have begun to wait since a sync began.
    gathered: AtomicUsize,
    /// How many the next sync can hope for ([`Group`]).
    hoped: AtomicUsize,
}

/// What the lock of the tickets protects.
#[derive(Default)]
struct Tickets {
    rule: Release,
    /// Connections whose oldest held bytes wait for this ticket, in its order.
    waiting: VecDeque<(Ticket, &'static Connection)>,
    /// Those that are answered now.
    answered: Vec<&'static Connection>,
    /// Those that were answered together.
    group: Group,
    /// The last logs that were closed with bytes that no sync has covered.
    lost: VecDeque<u64>,
    /// There were more.
    forgot: bool,
}

/// Logs that are remembered as closed with bytes uncovered.
const MOST_LOST: usize = 64;

impl Tickets {
    /// A connection waits for this ticket.
    fn wait(&mut self, ticket: Ticket, connection: &'static Connection) {
        let behind = self.waiting.iter().rev().take_while(|(later, _)| *later > ticket).count();
        self.waiting.insert(self.waiting.len() - behind, (ticket, connection));
    }

    /// A log is closed, with `covered` of its `written` bytes durable.
    fn closed(&mut self, log: u64, covered: u64, written: u64) {
        self.rule.covered(log, covered);
        self.rule.failed(log);
        if covered < written {
            self.lost.push_back(log);
            self.forgot |= self.lost.len() > MOST_LOST && self.lost.pop_front().is_some();
        }
    }

    /// Whether bytes of a log that was closed may be lost.
    fn has_lost(&self, log: u64) -> bool {
        self.forgot || self.lost.contains(&log)
    }

    /// Takes the connections that wait no longer.
    fn take_free(&mut self) -> Vec<&'static Connection> {
        let mut free = std::mem::take(&mut self.answered);
        while let Some(&(ticket, connection)) = self.waiting.front()
            && self.rule.fate(ticket) != Fate::Held
        {
            self.waiting.pop_front();
            free.push(connection);
        }
        if !free.is_empty() {
            self.group.answered(free.iter().map(|connection| connection.number));
        }
        free
    }
}

/// What a write to a connection does.
pub enum Outcome {
    /// It runs as the application made it.
    Real,
    /// So many of its bytes are held; it returns their number.
    Kept(usize),
    /// It fails.
    Fail(Errno),
    /// It fails as one to a connection that is closed: `EPIPE`, with the signal.
    Broken,
    /// The socket is full, and the call may block: it waits until the socket can be written, and tries again.
    Full,
}

/// A write to a connection.
#[derive(Clone, Copy)]
pub struct Put {
    /// Its bytes; none if they cannot be kept: the call waits instead.
    pub pieces: Option<Pieces>,
    /// How many there are, or more.
    pub len: usize,
    /// It does not block, whatever the descriptor says.
    pub at_once: bool,
    /// It raises no signal (`MSG_NOSIGNAL`).
    pub quiet: bool,
}

/// What a reply needs to be durable.
enum Needs {
    /// Nothing that is not durable.
    Nothing,
    /// What this ticket stands for. With `alone`, nobody is going to sync in the background.
    Ticket { ticket: Ticket, alone: bool },
}

impl Replies {
    /// None is held; none ever will be if the policy does not.
    pub fn new(holds: bool, page: &'static StatusPage) -> Self {
        Self {
            tickets: Mutex::new(Tickets::default()),
            pages: [const { AtomicPtr::new(std::ptr::null_mut()) }; PAGES],
            all: Mutex::new(Vec::new()),
            free: Mutex::new(Vec::new()),
            bytes: AtomicUsize::new(0),
            poller: Poller::new(),
            holds,
            page,
            awake: AtomicBool::new(false),
            by_loop: AtomicBool::new(false),
            gathered: AtomicUsize::new(0),
            hoped: AtomicUsize::new(0),
        }
    }

    fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the policy holds replies.
    pub fn hold(&self) -> bool {
        self.holds
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    // ---- descriptors ----

    fn place(&self, fd: RawFd) -> Option<&AtomicPtr<Connection>> {
        let fd = usize::try_from(fd).ok()?;
        let page = self.pages.get(fd / ON_PAGE)?.load(Ordering::Acquire);
        // SAFETY: null, or a page that is never freed.
        unsafe { page.as_ref() }?.get(fd % ON_PAGE)
    }

    /// The connection of a descriptor, if something was ever held of it.
    #[inline]
    fn of(&self, fd: RawFd) -> Option<&'static Connection> {
        // SAFETY: null, or a connection, which is never freed.
        unsafe { self.place(fd)?.load(Ordering::Acquire).as_ref() }
    }

    /// Whether nothing is held of this descriptor's connection.
    #[inline]
    pub fn is_empty(&self, fd: RawFd) -> bool {
        self.of(fd).is_none_or(Connection::is_empty)
    }

    fn set(&self, fd: RawFd, connection: Option<&'static Connection>) {
        let Some(page) = usize::try_from(fd).ok().and_then(|fd| self.pages.get(fd / ON_PAGE))
        else {
            return;
        };
        if page.load(Ordering::Acquire).is_null() {
            if connection.is_none() {
                return;
            }
            let new: &'static mut Page =
                Box::leak(Box::new([const { AtomicPtr::new(std::ptr::null_mut()) }; ON_PAGE]));
            // Another thread may have been first: this page is then lost.
            let _ = page.compare_exchange(
                std::ptr::null_mut(),
                new,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
        }
        let connection =
            connection.map_or(std::ptr::null_mut(), |c| std::ptr::from_ref(c).cast_mut());
        if let Some(place) = self.place(fd) {
            place.store(connection, Ordering::Release);
        }
    }

    /// The connection of a descriptor; none if it is not an open socket with a connection, which the table then
    /// forgets.
    fn open(&self, fd: RawFd) -> Option<&'static Connection> {
        if let Some(known) = self.of(fd) {
            return Some(known);
        }
        let Some((cookie, packets)) = connection::socket(fd) else {
            table::forget(fd, Entry::Reply);
            return None;
        };
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = free.unwrap_or_else(|| {
            let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            let new: &'static Connection = Box::leak(Box::new(Connection::new(all.len())));
            all.push(new);
            new
        });
        connection.lock().begin(fd, cookie, packets);
        connection.followed.begin(false);
        self.set(fd, Some(connection));
        Some(connection)
    }

    /// The connection of this number.
    fn numbered(&self, number: usize) -> Option<&'static Connection> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).get(number).copied()
    }

    /// The application gives up a number of a connection; returns whether it was the last. A registration by a number that is
    /// gone stays as long as the connection does.
    fn let_go(state: &mut State, fd: RawFd) -> bool {
        let last = state.let_go(fd);
        state.strays |= !last && epolls::is_in_any(fd);
        last
    }

    /// `new` is a copy of the connection's descriptor `old`.
    pub fn duplicated(&self, old: RawFd, new: RawFd) {
        let Some(connection) = self.open(old) else { return };
        connection.lock().fds.push(new);
        self.set(new, Some(connection));
    }

    /// The first log is open: numbers of one connection that were copied before belong together.
    pub fn join_copies(&self) {
        let mut known = BTreeMap::new();
        for fd in table::ours(0, u32::MAX) {
            if self.holds
                && table::get(fd) == Entry::Reply
                && let Some((cookie, _)) = connection::socket(fd)
                && let Some(first) = known.insert(cookie, fd)
                && self.of(fd).is_none()
            {
                self.duplicated(first, fd);
            }
        }
    }

    // ---- tickets ----

    /// What a reply needs that is made now. Every log with uncovered bytes is told that somebody waits for them.
    fn needs(&self, registry: &'static Registry) -> Needs {
        let mut needs: Vec<(Need, &'static Slot)> = Vec::new();
        let mut alone = false;
        for slot in registry.slots().filter(|slot| !slot.is_covered()) {
            let (need, left_alone) = slot.hold();
            alone |= left_alone;
            needs.extend(need.map(|need| (need, slot)));
        }
        if needs.is_empty() {
            return Needs::Nothing;
        }
        let mut tickets = self.tickets();
        // Only now: a sync that ended before is not going to look for this ticket. Nor is the close of a log, which was the
        // last to say what became of it.
        needs.retain(|(need, slot)| match slot.covers(need) {
            Some(bytes) if bytes < u64::MAX => bytes < need.bytes,
            _ => tickets.has_lost(need.log),
        });
        if needs.is_empty() {
            return Needs::Nothing;
        }
        let open: Vec<Need> = needs.iter().map(|(need, _)| *need).collect();
        let (ticket, _) = tickets.rule.hold(&open);
        for (need, slot) in &needs {
            if slot.has_failed() || tickets.has_lost(need.log) {
                tickets.rule.failed(need.log);
            }
        }
        Needs::Ticket { ticket, alone }
    }

    /// A log is closed, with `covered` of its `written` bytes durable: the rest never will be.
    /// The caller holds its lock.
    pub fn closed(&self, log: u64, covered: u64, written: u64) {
        self.tickets().closed(log, covered, written);
    }

    /// Syncs have ended, or logs failed: sends what may go.
    pub fn release(&self, registry: &'static Registry) {
        if self.poller.is_wanted() {
            self.settle_all();
        }
        let mut tickets = self.tickets();
        if tickets.waiting.is_empty() && !tickets.rule.is_holding() {
            return;
        }
        for slot in registry.slots() {
            let (log, covered) = slot.covered();
            tickets.rule.covered(log, covered);
            if slot.has_failed() {
                tickets.rule.failed(log);
            }
        }
        let mut free = tickets.take_free();
        self.hoped.store(tickets.group.hoped(), Ordering::Relaxed);
        drop(tickets);
        for &connection in &free {
            let mut state = connection.lock();
            state.waiting = false;
            self.settle(connection, &mut state);
        }
        // Its memory, for the next time.
        free.clear();
        self.tickets().answered = free;
    }

    /// So many bytes are gone from a queue.
    fn removed(&self, bytes: usize, queue: &Queue) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.page.remove_held(bytes as u64, queue.is_empty());
        }
    }

    /// How many of the first bytes of a queue may be sent, and whether those after them are lost.
    fn ready(&self, queue: &Queue) -> (usize, bool) {
        let tickets = self.tickets();
        let mut ready = 0;
        for &(ticket, len) in &queue.parts {
            let early = injects(Fault::EarlyRelease);
            match tickets.rule.fate(if early { ticket - 1 } else { ticket }) {
                Fate::Send => ready += len,
                Fate::Held => return (ready, false),
                Fate::Lost => return (ready, true),
            }
        }
        (ready, false)
    }

    /// Sends what may go of a connection. What is left waits for a ticket, or for the socket.
    fn settle(&self, connection: &'static Connection, state: &mut State) {
        loop {
            self.flush(state);
            let Some(&(ticket, _)) = state.queue.parts.front() else { break };
            if state.full {
                if self.poller.watch(connection, state) {
                    break;
                }
                // Nobody would ever send it.
                self.give_up(state, libc::EPIPE);
                break;
            }
            let mut tickets = self.tickets();
            if tickets.rule.fate(ticket) == Fate::Held {
                if !std::mem::replace(&mut state.waiting, true) {
                    tickets.wait(ticket, connection);
                    self.gathered.fetch_add(1, Ordering::Relaxed);
                }
                break;
            }
        }
        connection.publish(state);
        if state.queue.is_empty() {
            self.ended(connection, state);
        }
    }

    /// Sends what may go, as far as the socket takes it.
    fn flush(&self, state: &mut State) {
        state.full = false;
        loop {
            if state.queue.is_empty() {
                return;
            }
            let (ready, lost) = self.ready(&state.queue);
            if ready == 0 {
                if lost {
                    self.give_up(state, libc::EPIPE);
                }
                return;
            }
            if !state.is_there() {
                // Somebody closed it where no hook saw it.
                self.give_up(state, libc::EBADF);
                return;
            }
            match state.send(ready) {
                Ok(sent) => {
                    state.queue.sent(sent);
                    self.removed(sent, &state.queue);
                }
                Err(libc::EINTR) => {}
                Err(libc::EAGAIN) => {
                    state.full = true;
                    return;
                }
                Err(errno) => {
                    self.give_up(state, errno);
                    return;
                }
            }
        }
    }

    /// Nothing of what is held of this connection is ever sent, and it is closed in both directions.
    fn give_up(&self, state: &mut State, errno: Errno) {
        let lost = std::mem::take(&mut state.queue).len();
        self.removed(lost, &state.queue);
        state.error = errno;
        state.full = false;
        if state.is_there() {
            // SAFETY: the descriptor is the connection's.
            unsafe { real::SHUTDOWN.get()(state.fd, libc::SHUT_RDWR) };
        }
    }

    /// Nothing is held any more: what the application did after it is done now.
    fn ended(&self, connection: &'static Connection, state: &mut State) {
        if std::mem::take(&mut state.shuts) && state.is_there() {
            // SAFETY: the descriptor is the connection's.
            unsafe { real::SHUTDOWN.get()(state.fd, libc::SHUT_WR) };
        }
        if std::mem::take(&mut state.closes) {
            registry::close_own(state.fd);
            self.recycle(connection, state);
        }
    }

    fn recycle(&self, connection: &'static Connection, state: &mut State) {
        state.end();
        connection.publish(state);
        connection.followed.begin(false);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    // ---- what the application does ----

    /// A write to a connection.
    pub fn put(
        &self,
        registry: &'static Registry,
        policy: &Policy,
        fd: RawFd,
        put: Put,
    ) -> Outcome {
        if injects(Fault::NoHold) {
            return Outcome::Real;
        }
        let reads = |reading| policy.reads(reading);
        let mut context = Context {
            len: (put.len as u64).min(READING_MOST),
            child_active: (reads(Reading::ChildActive) && crate::children::any()).into(),
            reply_clean: (reads(Reading::ReplyClean)
                && self.of(fd).is_some_and(|it| self.is_clean(registry, it, &put)))
            .into(),
            ..Context::default()
        };
        // SAFETY: the context lives until the program has ended; a program of a reply calls no helper that
        // works on a call.
        let run = |program: &Program| unsafe { program.run(&raw mut context) };
        // Without a program what is held goes first, all the same.
        let verdict = policy.program(Hook::Reply).map_or(Verdict::Pass, run);
        if verdict != Verdict::Hold && self.is_empty(fd) {
            return Outcome::Real;
        }
        let Some(connection) = self.open(fd) else { return Outcome::Real };
        let mut state = connection.lock();
        if !state.is_of(fd) {
            drop(state);
            self.vanished(fd);
            table::forget(fd, Entry::Reply);
            return Outcome::Real;
        }
        // When a log has failed, nobody is sent what comes after.
        let free = state.is_link && frees_links(policy) && !registry.slots().any(Slot::has_failed);
        let mut needs = if free { Needs::Nothing } else { self.needs(registry) };
        // Once it was asked, what others write meanwhile does not matter.
        loop {
            if state.error != 0 {
                return state.fails();
            }
            if state.shuts {
                return Outcome::Broken;
            }
            self.settle(connection, &mut state);
            if state.error != 0 {
                continue;
            }
            let ticket = match needs {
                Needs::Nothing => None,
                Needs::Ticket { ticket, .. } => match self.tickets().rule.fate(ticket) {
                    Fate::Send => None,
                    Fate::Held => Some(ticket),
                    Fate::Lost => {
                        self.give_up(&mut state, libc::EPIPE);
                        connection.publish(&state);
                        continue;
                    }
                },
            };
            if state.queue.is_empty() && ticket.is_none() {
                return Outcome::Real;
            }
            if state.full {
                let at_once = put.at_once || connection::is_nonblocking(fd);
                return if at_once { Outcome::Fail(libc::EAGAIN) } else { Outcome::Full };
            }
            // Nobody would send it, or not as one message.
            let alone = matches!(needs, Needs::Ticket { alone: true, .. }) && ticket.is_some();
            // Nor if the process ends, or becomes another program.
            let waits = alone || state.waits || registry.is_closing();
            let behind = state.queue.parts.back().map_or(0, |&(ticket, _)| ticket);
            let ticket = ticket.map_or(behind, |ticket| ticket.max(behind));
            if let Some(kept) = (!waits).then(|| self.keep(&mut state, &put, ticket)).flatten() {
                self.settle(connection, &mut state);
                return Outcome::Kept(kept);
            }
            drop(state);
            self.wait(registry);
            needs = match needs {
                Needs::Ticket { ticket, .. } => Needs::Ticket { ticket, alone: false },
                Needs::Nothing => Needs::Nothing,
            };
            state = connection.lock();
            if !state.is_of(fd) {
                return Outcome::Fail(libc::EPIPE);
            }
        }
    }

    /// The connection turns out to be one of a replica or a cluster node, if this write says so.
    pub fn recognise(&self, fd: RawFd, put: &Put) {
        if links::begins(put)
            && table::is_ours()
            && let Some(connection) = self.open(fd)
        {
            let mut state = connection.lock();
            state.is_link |= state.is_of(fd);
        }
    }

    /// A stream of the C library writes to the connection from now on: nothing more is held of it.
    pub fn streams(&self, fd: RawFd) {
        if let Some(connection) = self.open(fd) {
            let mut state = connection.lock();
            state.waits |= state.is_of(fd);
        }
    }

    /// Copies the bytes of a reply behind those that are held; none if there is no room for them, or
    /// they cannot be read.
    fn keep(&self, state: &mut State, put: &Put, ticket: Ticket) -> Option<usize> {
        let pieces = put.pieces?;
        let fits = state.queue.len() + put.len <= ROOM
            && self.bytes() + put.len <= ROOM_OF_ALL
            && pieces.are_readable();
        if !fits {
            return None;
        }
        let is_first = state.queue.is_empty();
        // SAFETY: they were found readable a moment ago.
        let kept = unsafe { state.queue.push(pieces, put.len, ticket) };
        if kept > 0 {
            self.bytes.fetch_add(kept, Ordering::Relaxed);
            self.page.add_held(kept as u64, is_first);
        }
        Some(kept)
    }

    /// Waits until all that is written to the logs now is durable, or never will be; and sends what may go
    /// then.
    fn wait(&self, registry: &'static Registry) {
        for slot in registry.slots().filter(|slot| !slot.is_covered()) {
            slot.cover();
        }
        self.release(registry);
    }

    /// A descriptor of a connection is about to be closed. What is held is sent and the connection
    /// closed when it is durable: the application need not wait.
    pub fn closing(&self, registry: &'static Registry, fd: RawFd) {
        table::forget(fd, Entry::Reply);
        let Some(connection) = self.of(fd) else { return };
        self.set(fd, None);
        let mut state = connection.lock();
        if !Self::let_go(&mut state, fd) {
            return;
        }
        if !state.is_there() {
            self.give_up(&mut state, libc::EBADF);
        }
        self.settle(connection, &mut state);
        let linger = (!state.queue.is_empty()).then(|| connection::linger(state.fd)).flatten();
        match linger {
            // The application throws away what is not sent.
            Some(0) => self.give_up(&mut state, libc::ECONNRESET),
            Some(seconds) => {
                drop(state);
                let until = Time::from(seconds.unsigned_abs()).saturating_mul(1_000_000_000);
                self.send_all(registry, connection, clock::now().saturating_add(until));
                state = connection.lock();
            }
            None => {}
        }
        if state.queue.is_empty() {
            self.recycle(connection, &mut state);
            return;
        }
        // An event loop hears nothing more of what the application has closed, where that can be seen to. Else as much as
        // possible is sent before; what a slow client gets later is worth an event too many.
        if state.strays || !epolls::leave(fd) {
            drop(state);
            self.send_all(registry, connection, clock::now() + PATIENCE);
            state = connection.lock();
            if state.queue.is_empty() {
                self.recycle(connection, &mut state);
                return;
            }
        }
        match registry::duplicate(fd) {
            Some(own) => {
                state.fd = own;
                state.closes = true;
                state.watched = false;
                if state.full && !self.poller.watch(connection, &mut state) {
                    self.give_up(&mut state, libc::EPIPE);
                    self.ended(connection, &mut state);
                }
            }
            None => {
                drop(state);
                self.send_all(registry, connection, clock::now() + PATIENCE);
                let mut state = connection.lock();
                if !state.queue.is_empty() {
                    self.give_up(&mut state, libc::EPIPE);
                }
                self.recycle(connection, &mut state);
            }
        }
    }

    /// The number of a connection was closed, and given to something else, where no hook saw it.
    pub fn vanished(&self, fd: RawFd) {
        let Some(connection) = self.of(fd) else { return };
        self.set(fd, None);
        let mut state = connection.lock();
        if Self::let_go(&mut state, fd) {
            let lost = std::mem::take(&mut state.queue).len();
            self.removed(lost, &state.queue);
            self.recycle(connection, &mut state);
        }
    }

    /// `shutdown` of a connection: true if the direction of writing is shut when what is held is sent.
    pub fn shuts(&self, fd: RawFd) -> bool {
        let Some(connection) = self.of(fd) else { return false };
        let mut state = connection.lock();
        if !state.is_of(fd) {
            return false;
        }
        self.settle(connection, &mut state);
        state.shuts |= !state.queue.is_empty();
        state.shuts
    }

    /// Ends the thread that waits for full sockets.
    pub fn dismiss(&self) {
        self.poller.quit();
    }

    /// It may be started again.
    pub fn recall(&self) {
        self.poller.resume();
    }
}

/// Sends what may go after a sync, if the policy holds replies.
#[inline]
pub fn release() {
    if let Some(registry) = table::registry()
        && registry.replies.hold()
        && registry.is_ours()
    {
        let kept = errno::Kept::now();
        registry.replies.release(registry);
        drop(kept);
    }
}

/// Whether links to replicas and cluster nodes are not held: the target says so.
#[inline]
pub fn frees_links(policy: &Policy) -> bool {
    policy.meta.frees_replicas || injects(Fault::FreeReplicas)
}

/// Whether a reply that is made now needs nothing that is not durable.
#[inline]
pub fn are_free(registry: &Registry) -> bool {
    registry.slots().all(Slot::is_covered)
}

/// The connection of which this number, which is not in the table, is a copy: one of its own numbers.
pub fn copy_of(fd: RawFd) -> Option<RawFd> {
    let socket = connection::socket(fd)?;
    let is_same = |&known: &RawFd| {
        table::get(known) == Entry::Reply && connection::socket(known) == Some(socket)
    };
    table::ours(0, u32::MAX).into_iter().find(is_same)
}

/// A number that cannot be in the table.
pub fn refuse(fd: c_int) -> c_int {
    note::error(&format!("connection {fd} is refused: its replies could not be held"));
    // SAFETY: a descriptor that the application has not seen yet.
    unsafe { real::CLOSE.get()(fd) };
    errno::set(libc::EMFILE);
    -1
}
