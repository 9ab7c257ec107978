//! Reads commands in Redis' protocol, as clients send them and as an append-only file has them.
//!
//! Stage: bytes, in order → commands and their arguments, told to a [`Sink`] as they come.
//!
//! The lengths in the text say where an argument ends, so nothing in an argument is taken for a command. What does
//! not follow the format ends the reading for good ([`Reader::is_lost`]). Bytes may be cut anywhere.
//!
//! Architecture invariant: no I/O, no allocation, no panic; a reader is a few words that can be copied.

/// The longest line that is no command, with its end: Redis reads lines of up to 127 bytes (`aof.c`).
const LONGEST_NOTE: u8 = 127;
/// Arguments of a command, at most: Redis keeps their number in an `int`.
const MOST_ARGUMENTS: u64 = i32::MAX as u64;
/// Bytes of an argument, at most: Redis keeps their number in a `long`.
const MOST_BYTES: u64 = i64::MAX as u64;

/// Is told what a reader finds. Each command has a name, which is its first argument.
pub trait Sink {
    /// A command begins.
    fn begins(&mut self);
    /// More bytes of an argument.
    fn bytes(&mut self, bytes: &[u8]);
    /// The argument is complete.
    fn argument_ended(&mut self);
    /// The command is complete. False if it cannot be there, which ends the reading.
    fn command_ended(&mut self) -> bool;
}

/// Where a reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    place: Place,
    /// Arguments of the command that are not complete.
    arguments: u64,
    /// Lines that begin with `#` are no commands; else they do not belong there.
    notes: bool,
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
    /// So many bytes of it.
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
pub(crate) struct Number {
    value: u64,
    /// There was a digit.
    any: bool,
}

impl Number {
    pub(crate) const NONE: Self = Self { value: 0, any: false };

    /// With one more digit; none if it is none, or the number is more than `most`.
    pub(crate) fn with(self, byte: u8, most: u64) -> Option<Self> {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        let value = self.value.checked_mul(10)?.checked_add(u64::from(digit))?;
        (value <= most).then_some(Self { value, any: true })
    }

    /// It, if it is followed by `\r`.
    pub(crate) fn ended(self, byte: u8) -> Option<u64> {
        (byte == b'\r' && self.any).then_some(self.value)
    }
}

impl Reader {
    /// Of a log, between two commands; it may have notes.
    #[must_use]
    pub const fn of_log() -> Self {
        Self { place: Place::Start, arguments: 0, notes: true }
    }

    /// Of what a client sends.
    #[must_use]
    pub const fn of_client() -> Self {
        Self { place: Place::Start, arguments: 0, notes: false }
    }

    /// Whether it is between two commands.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.place == Place::Start
    }

    /// Whether what comes is not read any more.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.place == Place::Lost
    }

    /// Nothing is read any more.
    pub fn lose(&mut self) {
        self.place = Place::Lost;
    }

    /// The next bytes.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) {
        let mut rest = bytes;
        while !self.is_lost() {
            if let Place::Value(left) = self.place {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                let (value, after) = rest.split_at_checked(taken).unwrap_or((rest, &[]));
                sink.bytes(value);
                rest = after;
                let left = left - taken as u64;
                self.place = if left == 0 { Place::ValueCr } else { Place::Value(left) };
            }
            let Some((&byte, after)) = rest.split_first() else { return };
            rest = after;
            self.place = self.next(byte, sink).unwrap_or(Place::Lost);
        }
    }

    /// What follows a byte; none if it cannot be there.
    fn next(&mut self, byte: u8, sink: &mut impl Sink) -> Option<Place> {
        Some(match self.place {
            Place::Start => match byte {
                b'*' => Place::Arguments(Number::NONE),
                b'#' if self.notes => Place::Note(1),
                _ => return None,
            },
            Place::Note(_) if byte == b'\n' => Place::Start,
            Place::Note(length) if length + 1 < LONGEST_NOTE => Place::Note(length + 1),
            Place::Note(_) => return None,
            Place::Arguments(number) => match number.ended(byte) {
                Some(0) => return None,
                Some(count) => {
                    self.arguments = count;
                    sink.begins();
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
            Place::ValueEnd if byte == b'\n' => {
                sink.argument_ended();
                self.arguments = self.arguments.saturating_sub(1);
                if self.arguments > 0 {
                    Place::Argument
                } else if sink.command_ended() {
                    Place::Start
                } else {
                    return None;
                }
            }
            _ => return None,
        })
    }
}

/// Two sinks: both are told.
impl<A: Sink, B: Sink> Sink for (&mut A, &mut B) {
    fn begins(&mut self) {
        self.0.begins();
        self.1.begins();
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.bytes(bytes);
        self.1.bytes(bytes);
    }

    fn argument_ended(&mut self) {
        self.0.argument_ended();
        self.1.argument_ended();
    }

    fn command_ended(&mut self) -> bool {
        let first = self.0.command_ended();
        self.1.command_ended() && first
    }
}

/// The beginning of a command's name, in upper case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name<const LONGEST: usize> {
    bytes: [u8; LONGEST],
    /// How many bytes; one more than fit if it is longer.
    len: usize,
}

impl<const LONGEST: usize> Name<LONGEST> {
    pub(crate) const NONE: Self = Self { bytes: [0; LONGEST], len: 0 };

    /// More bytes of it.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().take(LONGEST + 1) {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = byte.to_ascii_uppercase();
            }
            self.len = (self.len + 1).min(LONGEST + 1);
        }
    }

    /// It; none if it is longer.
    pub(crate) fn get(&self) -> Option<&[u8]> {
        self.bytes.get(..self.len)
    }
}
