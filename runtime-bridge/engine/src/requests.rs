//! What the replies on a connection depend on: the requests of a client are read as the server reads them, and the
//! replies as it writes them.
//!
//! Stage: bytes read from a connection, bytes written to it → for the next bytes written, the keys that the requests
//! name which they answer; nothing if that is not known for certain.
//!
//! The server answers in the order of the requests, each with one reply. What breaks that ends the knowledge for
//! good ([`Dialogue::lose`]): a request that is not in the lists of [`crate::keys`] (a subscription, a script, a
//! replica's), bytes that do not follow the protocol (TLS, an inline command), a reply that nobody has asked for.
//!
//! Architecture invariant: no I/O, no panic.

use crate::keys::{Asks, Hasher, KeyHash, LONGEST_NAME};
use crate::resp::{Name, Number, Reader, Sink};
use std::collections::VecDeque;

/// Requests and keys that are kept of a connection; a client that asks for more at once is not read any more.
const MOST: usize = 16_384;
/// Of these, the memory that is kept of a connection that asks for nothing.
const SPARE: usize = 64;
/// Elements of a reply, at most: Redis keeps their number in a `long`.
const MOST_ELEMENTS: u64 = i64::MAX as u64;

/// What is known of a connection.
#[derive(Clone, Debug)]
pub struct Dialogue {
    reader: Reader,
    open: Open,
    /// What was asked and is not answered.
    asked: VecDeque<Asked>,
    replies: Replies,
    lost: bool,
}

/// A part of what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// A request reads this key, and what follows.
    Key(KeyHash),
    /// A request reads this key, and no other.
    LastKey(KeyHash),
    /// A request may read everything.
    Everything,
}

/// The request that is being read.
#[derive(Clone, Debug)]
struct Open {
    name: Name<LONGEST_NAME>,
    /// Arguments that are complete, the name included.
    arguments: u64,
    asks: Asks,
    /// The first argument of `CLIENT`.
    client: Name<LONGEST_NAME>,
    hasher: Hasher,
    keys: Vec<KeyHash>,
}

/// Reads replies (RESP2 and RESP3), of which it keeps no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Replies {
    /// Elements that are not complete; 0 between two replies.
    elements: u64,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The type of an element.
    Type,
    /// More of a line that is an element.
    Line,
    /// More of the length of a string, or of the number of elements.
    Count { of: Of, number: Number, minus: bool },
    /// The `\n` after it, or after a line.
    End(After),
    /// So many bytes of a string.
    Bytes(u64),
    /// The `\r` after it.
    BytesCr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Bytes,
    Elements,
    Pairs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// The element is complete.
    Element,
    /// A string follows.
    Bytes(u64),
    /// So many elements follow, which are it.
    Elements(u64),
}

impl Dialogue {
    /// Of a connection on which nothing has been said.
    #[must_use]
    pub fn new() -> Self {
        Self {
            reader: Reader::of_client(),
            open: Open::new(),
            asked: VecDeque::new(),
            replies: Replies { elements: 0, place: Place::Type },
            lost: false,
        }
    }

    /// Whether nothing is known any more.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Nothing is known any more.
    pub fn lose(&mut self) {
        *self = Self { lost: true, ..Self::new() };
    }

    /// The server has read these bytes.
    pub fn was_read(&mut self, bytes: &[u8]) {
        if self.lost {
            return;
        }
        let mut requests = Requests { open: &mut self.open, asked: &mut self.asked };
        self.reader.feed(bytes, &mut requests);
        if self.reader.is_lost() {
            self.lose();
        }
    }

    /// Requests and keys that there is memory for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.asked.capacity() + self.open.keys.capacity()
    }

    /// Before the server writes: which replies the bytes belong to.
    #[must_use]
    pub fn next(&self) -> Next {
        Next { replies: self.replies, touched: (!self.lost).then_some(0) }
    }

    /// Whether all that these replies depend on are keys that `is_clean` says yes to. No if it is not known.
    #[must_use]
    pub fn depends_only_on(&self, next: Next, is_clean: impl Fn(KeyHash) -> bool) -> bool {
        let Some(ends) = next.touched else { return false };
        let mut touched = ends + u64::from(next.replies.is_inside());
        for asked in &self.asked {
            if touched == 0 {
                break;
            }
            let (key, is_last) = match *asked {
                Asked::Everything => return false,
                Asked::Key(key) => (key, false),
                Asked::LastKey(key) => (key, true),
            };
            if !is_clean(key) {
                return false;
            }
            touched -= u64::from(is_last);
        }
        touched == 0
    }

    /// The server has written these bytes.
    pub fn was_written(&mut self, bytes: &[u8]) {
        if self.lost {
            return;
        }
        let ended = self.replies.feed(bytes);
        let answered = ended.is_some_and(|ended| (0..ended).all(|_| self.answer()));
        if !answered || self.replies.is_inside() && self.asked.is_empty() {
            self.lose();
        }
        if self.asked.is_empty() && self.asked.capacity() > SPARE {
            self.asked = VecDeque::new();
        }
    }

    /// A request is answered. False if there was none.
    fn answer(&mut self) -> bool {
        while let Some(asked) = self.asked.pop_front() {
            if !matches!(asked, Asked::Key(_)) {
                return true;
            }
        }
        false
    }
}

/// Replies, or parts of them, that are about to be written.
#[derive(Clone, Copy, Debug)]
pub struct Next {
    replies: Replies,
    /// Those that end; none if it is not known.
    touched: Option<u64>,
}

impl Next {
    /// How many of the next bytes do not matter: they are a string's, or nothing matters any more.
    #[must_use]
    pub fn unread(&self) -> u64 {
        match (self.touched, self.replies.place) {
            (None, _) => u64::MAX,
            (Some(_), Place::Bytes(left)) => left,
            _ => 0,
        }
    }

    /// So many bytes that do not matter, at most ([`Next::unread`]).
    pub fn skip(&mut self, bytes: u64) {
        if let Place::Bytes(left) = &mut self.replies.place {
            *left = left.saturating_sub(bytes);
        }
    }

    /// More of the bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let more = self.touched.and_then(|touched| Some(touched + self.replies.feed(bytes)?));
        self.touched = more;
    }
}

impl Default for Dialogue {
    fn default() -> Self {
        Self::new()
    }
}

impl Open {
    fn new() -> Self {
        Self {
            name: Name::NONE,
            arguments: 0,
            asks: Asks::Unknown,
            client: Name::NONE,
            hasher: Hasher::NEW,
            keys: Vec::new(),
        }
    }
}

/// Where requests go.
struct Requests<'a> {
    open: &'a mut Open,
    asked: &'a mut VecDeque<Asked>,
}

impl Sink for Requests<'_> {
    fn begins(&mut self) {
        let mut keys = std::mem::take(&mut self.open.keys);
        keys.clear();
        *self.open = Open { keys, ..Open::new() };
    }

    fn bytes(&mut self, bytes: &[u8]) {
        match (self.open.arguments, self.open.asks) {
            (0, _) => self.open.name.push(bytes),
            (1, Asks::Client) => self.open.client.push(bytes),
            (1, Asks::First) | (_, Asks::All) => self.open.hasher.push(bytes),
            _ => {}
        }
    }

    fn argument_ended(&mut self) {
        let open = &mut *self.open;
        match (open.arguments, open.asks) {
            (0, _) => open.asks = Asks::of(open.name.get()),
            (1, Asks::Client) => open.asks = Asks::of_client_command(open.client.get()),
            (1, Asks::First) | (_, Asks::All) if open.keys.len() < MOST => {
                open.keys.push(open.hasher.end());
                open.hasher = Hasher::NEW;
            }
            (_, Asks::All) => open.asks = Asks::Everything,
            _ => {}
        }
        open.arguments += 1;
    }

    fn command_ended(&mut self) -> bool {
        let open = &mut *self.open;
        match open.asks {
            Asks::Unknown | Asks::Client => return false,
            Asks::Everything => self.asked.push_back(Asked::Everything),
            Asks::First | Asks::All => match open.keys.split_last() {
                Some((last, others)) => {
                    self.asked.extend(others.iter().copied().map(Asked::Key));
                    self.asked.push_back(Asked::LastKey(*last));
                }
                // An error, for want of arguments.
                None => self.asked.push_back(Asked::Everything),
            },
        }
        if open.keys.capacity() > SPARE {
            open.keys = Vec::new();
        }
        self.asked.len() <= MOST
    }
}

impl Replies {
    /// Whether a reply has begun and not ended.
    fn is_inside(self) -> bool {
        self.elements > 0
    }

    /// The next bytes: how many replies they complete; none if they do not follow the protocol.
    fn feed(&mut self, bytes: &[u8]) -> Option<u64> {
        let mut ended = 0;
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.place {
                Place::Bytes(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    rest = rest.get(taken..).unwrap_or_default();
                    let left = left - taken as u64;
                    self.place = if left == 0 { Place::BytesCr } else { Place::Bytes(left) };
                }
                Place::Line => {
                    let end = rest.iter().position(|byte| *byte == b'\r');
                    rest = rest.get(end.map_or(rest.len(), |end| end + 1)..).unwrap_or_default();
                    if end.is_some() {
                        self.place = Place::End(After::Element);
                    }
                }
                _ => {
                    let (&byte, after) = rest.split_first()?;
                    rest = after;
                    ended += u64::from(self.next(byte)?);
                }
            }
        }
        Some(ended)
    }

    /// The next byte: whether it completes a reply; none if it cannot be there.
    fn next(&mut self, byte: u8) -> Option<bool> {
        let count = |of| Place::Count { of, number: Number::NONE, minus: false };
        self.place = match self.place {
            Place::Type => {
                if self.elements == 0 {
                    self.elements = 1;
                }
                match byte {
                    b'+' | b'-' | b':' | b',' | b'#' | b'_' | b'(' => Place::Line,
                    b'$' | b'=' | b'!' => count(Of::Bytes),
                    b'*' | b'~' => count(Of::Elements),
                    b'%' => count(Of::Pairs),
                    // Attributes and what nobody has asked for.
                    _ => return None,
                }
            }
            Place::Count { of, number, minus } => match (number.ended(byte), byte) {
                // `-1`: there is none.
                (Some(1), _) if minus => Place::End(After::Element),
                (Some(_), _) if minus => return None,
                (Some(number), _) => Place::End(match of {
                    Of::Bytes => After::Bytes(number),
                    Of::Elements => After::Elements(number),
                    Of::Pairs => After::Elements(number.checked_mul(2)?),
                }),
                (None, b'-') if number == Number::NONE && !minus => {
                    Place::Count { of, number, minus: true }
                }
                (None, _) => Place::Count { of, number: number.with(byte, MOST_ELEMENTS)?, minus },
            },
            Place::End(after) if byte == b'\n' => match after {
                After::Bytes(bytes) => Place::Bytes(bytes),
                After::Element => return Some(self.element_ended()),
                After::Elements(0) => return Some(self.element_ended()),
                After::Elements(number) => {
                    self.elements = self.elements.checked_add(number - 1)?;
                    Place::Type
                }
            },
            Place::BytesCr if byte == b'\r' => Place::End(After::Element),
            Place::End(_) | Place::BytesCr | Place::Line | Place::Bytes(_) => return None,
        };
        Some(false)
    }

    /// An element is complete: whether the reply is.
    fn element_ended(&mut self) -> bool {
        self.place = Place::Type;
        self.elements -= 1;
        self.elements == 0
    }
}
