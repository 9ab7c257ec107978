//! Counts the updates of a log as its bytes are written.
//!
//! Stage: the bytes of each write, in order → how many updates are complete, and how many of these a
//! replay would apply.
//!
//! What does not follow the format ends the count for good ([`Counter::is_lost`]): a number that may be too small is
//! worse than none. Bytes may be cut anywhere.
//!
//! Architecture invariant: no I/O, no allocation, no panic; a counter is a few words that can be copied to
//! count a write before it is made.

use crate::resp::{Name, Reader, Sink};
use durac_abi::Records;

/// The longest name that counts otherwise: `SELECT`.
const LONGEST_NAME: usize = 6;

/// Counts updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    records: Records,
    reader: Reader,
    tally: Tally,
}

/// What a counter has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tally {
    /// Complete updates, those of an open transaction included.
    updates: u64,
    /// Those before the open transaction; all if none is open.
    settled: u64,
    name: Name<LONGEST_NAME>,
    /// What the command is, once its name is complete.
    kind: Option<Kind>,
    /// Between MULTI and EXEC.
    in_transaction: bool,
}

impl Counter {
    /// Of a log that was just opened, at its end: between two records, as an application leaves a log that it
    /// opens again.
    #[must_use]
    pub const fn new(records: Records) -> Self {
        let tally =
            Tally { updates: 0, settled: 0, name: Name::NONE, kind: None, in_transaction: false };
        Self { records, reader: Reader::of_log(), tally }
    }

    /// Complete updates, those of an open transaction included.
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.tally.updates
    }

    /// Complete updates that a replay applies: those of an open transaction are not among them.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.tally.settled
    }

    /// Whether the number is not known any more.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.records == Records::None || self.reader.is_lost()
    }

    /// Whether everything that was fed is in complete commands, none of them in an open transaction: a replay
    /// applies it all.
    #[must_use]
    pub fn is_between(&self) -> bool {
        !self.is_lost() && self.reader.is_between() && !self.tally.in_transaction
    }

    /// The number is not known any more.
    pub fn lose(&mut self) {
        self.reader.lose();
    }

    /// The next bytes of the log.
    pub fn feed(&mut self, bytes: &[u8]) {
        match self.records {
            Records::None => {}
            Records::Line if self.is_lost() => {}
            Records::Line => {
                let ends = bytes.iter().filter(|byte| **byte == b'\n').count();
                self.tally.updates = self.tally.updates.saturating_add(ends as u64);
                self.tally.settled = self.tally.updates;
            }
            Records::Resp => self.reader.feed(bytes, &mut self.tally),
        }
    }

    /// The same; what a log of commands has is told to this, too.
    pub fn feed_and_tell(&mut self, bytes: &[u8], sink: &mut impl Sink) {
        match self.records {
            Records::Resp => self.reader.feed(bytes, &mut (&mut self.tally, sink)),
            Records::None | Records::Line => self.feed(bytes),
        }
    }
}

impl Sink for Tally {
    fn begins(&mut self) {
        self.name = Name::NONE;
        self.kind = None;
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if self.kind.is_none() {
            self.name.push(bytes);
        }
    }

    fn argument_ended(&mut self) {
        let name = self.name;
        self.kind.get_or_insert_with(|| Kind::of(name.get()));
    }

    fn command_ended(&mut self) -> bool {
        match self.kind {
            Some(Kind::Select) => {}
            Some(Kind::Multi) if self.in_transaction => return false,
            Some(Kind::Multi) => self.in_transaction = true,
            Some(Kind::Exec) if !self.in_transaction => return false,
            Some(Kind::Exec) => self.in_transaction = false,
            Some(Kind::Update) | None => self.updates = self.updates.saturating_add(1),
        }
        if !self.in_transaction {
            self.settled = self.updates;
        }
        true
    }
}

/// What a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Update,
    /// Names the database of what follows, and changes none.
    Select,
    /// Begins a transaction.
    Multi,
    /// Ends it.
    Exec,
}

impl Kind {
    /// What the command of this name is.
    fn of(name: Option<&[u8]>) -> Self {
        match name {
            Some(b"SELECT") => Kind::Select,
            Some(b"MULTI") => Kind::Multi,
            Some(b"EXEC") => Kind::Exec,
            _ => Kind::Update,
        }
    }
}
