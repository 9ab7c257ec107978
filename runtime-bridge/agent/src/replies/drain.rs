//! What cannot wait in a queue: the end of the process, a child that shares the connections, and calls whose bytes
//! cannot be kept. What is held is sent before, or never.

use super::connection;
use super::{Connection, PATIENCE, Replies, are_free};
use crate::clock;
use crate::note;
use crate::registry::Registry;
use crate::sync::PoisonError;
use durac_engine::Time;
use std::os::fd::RawFd;
use std::time::Duration;

impl Replies {
    /// Waits until everything is durable and sent, or until then.
    pub(super) fn send_all(
        &self,
        registry: &'static Registry,
        connection: &'static Connection,
        until: Time,
    ) {
        self.wait(registry);
        loop {
            let mut state = connection.lock();
            self.settle(connection, &mut state);
            let fd = state.fd;
            if state.queue.is_empty() || clock::now() > until {
                return;
            }
            drop(state);
            connection::await_room(fd, 10);
        }
    }

    /// Another process is about to have the connections, too, and writes to them what comes after: all that is written
    /// is made durable, and what is held is sent. A server forks for a snapshot, too, and must not stand still for slow clients.
    pub fn before_child(&self, registry: &'static Registry) {
        if self.holds && (self.bytes() > 0 || !are_free(registry)) {
            self.send_held(registry, PATIENCE / 10);
        }
    }

    /// Sends everything that is held, once it is durable, and waits so long for clients that do not read.
    fn send_held(&self, registry: &'static Registry, patience: Time) {
        self.wait(registry);
        let until = clock::now() + patience;
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for connection in all.into_iter().filter(|connection| !connection.is_empty()) {
            self.send_all(registry, connection, until);
        }
    }

    /// Each call that writes to a connection now has held what it holds when this returns.
    pub fn pass_by_calls(&self) {
        if self.holds {
            let all = self.all.lock().unwrap_or_else(PoisonError::into_inner).clone();
            all.into_iter().for_each(|connection| drop(connection.lock()));
        }
    }

    /// Sends what may go of all connections.
    #[cold]
    pub(super) fn settle_all(&self) {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for connection in all.into_iter().filter(|connection| !connection.is_empty()) {
            self.settle(connection, &mut connection.lock());
        }
    }

    /// Sends everything that is held, and waits a while for clients that do not read.
    pub fn drain(&self, registry: &'static Registry) {
        if self.bytes() > 0 {
            self.send_held(registry, PATIENCE);
        }
    }

    /// The process ends, or becomes another program: what is held is sent now or never. The other program, or a child, can have
    /// the connection and write to it: what is cut has no hole.
    pub fn finish(&self, registry: &'static Registry) {
        self.drain(registry);
        if self.bytes() > 0 {
            self.cut_all();
        }
    }

    #[cold]
    fn cut_all(&self) {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut cut = 0;
        for connection in all.into_iter().filter(|connection| !connection.is_empty()) {
            let mut state = connection.lock();
            if !state.queue.is_empty() {
                self.give_up(&mut state, libc::EPIPE);
                connection.publish(&state);
                self.ended(connection, &mut state);
                cut += 1;
            }
        }
        if cut > 0 {
            note::error(&format!(
                "replies were not sent before the process ends or becomes another program: their clients do not read; \
                 connections cut: {cut}"
            ));
        }
    }

    /// Before a call that cannot be held and must run, whatever is held of its connection: waits a while for the client,
    /// and then cuts the connection, because bytes that overtake others are worse. Returns once nothing is held.
    pub fn empty_or_cut(&self, fd: RawFd) {
        let until = clock::now() + PATIENCE;
        while self.has_queue(fd) {
            if clock::now() > until {
                self.cut(fd);
                return;
            }
            clock::pause(Duration::from_millis(1));
        }
    }

    fn has_queue(&self, fd: RawFd) -> bool {
        self.of(fd).is_some_and(|connection| {
            let mut state = connection.lock();
            if state.is_of(fd) {
                self.settle(connection, &mut state);
            }
            state.is_of(fd) && !state.queue.is_empty()
        })
    }

    fn cut(&self, fd: RawFd) {
        let Some(connection) = self.of(fd) else { return };
        let mut state = connection.lock();
        if !state.is_of(fd) {
            return;
        }
        note::error(&format!(
            "connection {fd} is cut: its client does not read, and what comes next cannot be held"
        ));
        self.give_up(&mut state, libc::EPIPE);
        connection.publish(&state);
        self.ended(connection, &mut state);
    }
}
