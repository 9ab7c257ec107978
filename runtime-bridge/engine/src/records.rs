//! Counts the updates of a log as its bytes are written.
//!
//! Stage: the bytes of each write, in order → how many updates are complete, and how many of these a
//! replay would apply.
//!
//! The lengths in the text say where a value ends, so nothing in a value is taken for a command. What does
//! not follow the format ends the count for good ([`Counter::is_lost`]): a number that may be too small is
//! worse than none. Bytes may be cut anywhere.
//!
//! Architecture invariant: no I/O, no allocation, no panic; a counter is a few words that can be copied to
//! count a write before it is made.

use durac_abi::Records;

/// The longest line that is no command, with its end: Redis reads lines of up to 127 bytes (`aof.c`).
const LONGEST_NOTE: u8 = 127;
/// Arguments of a command, at most: Redis keeps their number in an `int`.
const MOST_ARGUMENTS: u64 = i32::MAX as u64;
/// Bytes of a value, at most: Redis keeps their number in a `long`.
const MOST_BYTES: u64 = i64::MAX as u64;
/// The longest name that counts otherwise: `SELECT`.
const LONGEST_NAME: usize = 6;

/// Counts updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    records: Records,
    /// Complete updates, those of an open transaction included.
    updates: u64,
    /// Those before the open transaction; all if none is open.
    settled: u64,
    place: Place,
    /// Arguments of the command that are not complete.
    arguments: u64,
    /// The beginning of the command's name, in upper case.
    name: [u8; LONGEST_NAME],
    /// Bytes of the name; one more than fit if it is longer.
    named: u8,
    /// What the command is, once its name is complete.
    kind: Option<Kind>,
    /// Between MULTI and EXEC.
    in_transaction: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A command, or a note.
    Start,
    /// More of a line that begins with `#`, of which there have been so many bytes.
    Note(u8),
    /// More of the number of arguments.
    Arguments(Number),
    /// The `\n` after it.
    ArgumentsEnd,
    /// The `$` of an argument.
    Argument,
    /// More of its length.
    Length(Number),
    /// The `\n` after it.
    LengthEnd(u64),
    /// So many bytes of its value; the first argument is the name.
    Value(u64),
    /// The `\r` after it.
    ValueCr,
    /// The `\n` after that.
    ValueEnd,
    /// The bytes did not follow the format.
    Lost,
}

/// A number of which some digits have been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number {
    value: u64,
    /// There was a digit.
    any: bool,
}

impl Number {
    const NONE: Self = Self { value: 0, any: false };

    /// With one more digit; none if it is none, or the number is more than `most`.
    fn with(self, byte: u8, most: u64) -> Option<Self> {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        let value = self.value.checked_mul(10)?.checked_add(u64::from(digit))?;
        (value <= most).then_some(Self { value, any: true })
    }

    /// It, if it is followed by `\r`.
    fn ended(self, byte: u8) -> Option<u64> {
        (byte == b'\r' && self.any).then_some(self.value)
    }
}

impl Counter {
    /// Of a log that was just opened, at its end: between two records, as an application leaves a log that it
    /// opens again.
    #[must_use]
    pub const fn new(records: Records) -> Self {
        Self {
            records,
            updates: 0,
            settled: 0,
            place: match records {
                Records::Resp | Records::Line => Place::Start,
                Records::None => Place::Lost,
            },
            arguments: 0,
            name: [0; LONGEST_NAME],
            named: 0,
            kind: None,
            in_transaction: false,
        }
    }

    /// Complete updates, those of an open transaction included.
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Complete updates that a replay applies: those of an open transaction are not among them.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Whether the number is not known any more.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.place == Place::Lost
    }

    /// The number is not known any more.
    pub fn lose(&mut self) {
        self.place = Place::Lost;
    }

    /// The next bytes of the log.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.records == Records::Line && !self.is_lost() {
            let ends = bytes.iter().filter(|byte| **byte == b'\n').count();
            self.updates = self.updates.saturating_add(ends as u64);
            self.settled = self.updates;
            return;
        }
        let mut rest = bytes;
        while !self.is_lost() {
            rest = match self.place {
                Place::Value(left) => self.value(left, rest),
                _ => rest,
            };
            let Some((&byte, after)) = rest.split_first() else { return };
            rest = after;
            self.place = self.next(byte).unwrap_or(Place::Lost);
        }
    }

    /// Takes what there is of a value; returns what follows it.
    fn value<'a>(&mut self, left: u64, bytes: &'a [u8]) -> &'a [u8] {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (value, rest) = bytes.split_at_checked(taken).unwrap_or((bytes, &[]));
        if self.kind.is_none() {
            for byte in value.iter().take(LONGEST_NAME + 1) {
                if let Some(place) = self.name.get_mut(usize::from(self.named)) {
                    *place = byte.to_ascii_uppercase();
                }
                self.named = self.named.saturating_add(1).min(LONGEST_NAME as u8 + 1);
            }
        }
        let left = left - taken as u64;
        self.place = if left == 0 { Place::ValueCr } else { Place::Value(left) };
        rest
    }

    /// What follows a byte; none if it cannot be there.
    fn next(&mut self, byte: u8) -> Option<Place> {
        Some(match self.place {
            Place::Start => match byte {
                b'*' => Place::Arguments(Number::NONE),
                b'#' => Place::Note(1),
                _ => return None,
            },
            Place::Note(_) if byte == b'\n' => Place::Start,
            Place::Note(length) if length + 1 < LONGEST_NOTE => Place::Note(length + 1),
            Place::Note(_) => return None,
            Place::Arguments(number) => match number.ended(byte) {
                Some(0) => return None,
                Some(count) => {
                    self.arguments = count;
                    self.named = 0;
                    self.kind = None;
                    Place::ArgumentsEnd
                }
                None => Place::Arguments(number.with(byte, MOST_ARGUMENTS)?),
            },
            Place::ArgumentsEnd if byte == b'\n' => Place::Argument,
            Place::Argument if byte == b'$' => Place::Length(Number::NONE),
            Place::Length(number) => match number.ended(byte) {
                Some(length) => Place::LengthEnd(length),
                None => Place::Length(number.with(byte, MOST_BYTES)?),
            },
            Place::LengthEnd(length) if byte == b'\n' => Place::Value(length),
            Place::ValueCr if byte == b'\r' => Place::ValueEnd,
            Place::ValueEnd if byte == b'\n' => return self.argument_ended(),
            _ => return None,
        })
    }

    /// An argument is complete, and with the last of them a command.
    fn argument_ended(&mut self) -> Option<Place> {
        let kind = self.kind.unwrap_or_else(|| self.kind_of_name());
        self.kind = Some(kind);
        self.arguments = self.arguments.saturating_sub(1);
        if self.arguments > 0 {
            return Some(Place::Argument);
        }
        match kind {
            Kind::Select => {}
            Kind::Multi if self.in_transaction => return None,
            Kind::Multi => self.in_transaction = true,
            Kind::Exec if !self.in_transaction => return None,
            Kind::Exec => self.in_transaction = false,
            Kind::Update => self.updates = self.updates.saturating_add(1),
        }
        if !self.in_transaction {
            self.settled = self.updates;
        }
        Some(Place::Start)
    }

    /// What the command of this name is.
    fn kind_of_name(&self) -> Kind {
        match self.name.get(..usize::from(self.named)) {
            Some(b"SELECT") => Kind::Select,
            Some(b"MULTI") => Kind::Multi,
            Some(b"EXEC") => Kind::Exec,
            _ => Kind::Update,
        }
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
