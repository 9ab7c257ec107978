//! The tokens of a JSON text that is read as a stream, each with its position.
//!
//! Only what a trace needs: the reader says which token has to come, and any other is an error at its
//! position. Memory does not grow with the text.
//!
//! By hand, because a trace is one document of any length, and `serde_json` gives no line and column of
//! each value of a document that it reads as a stream. When the format next changes its version it becomes
//! JSON Lines, read by `serde_json`.

use crate::error::{Problem, Result, TraceError};
use std::io::{ErrorKind, Read};

/// Bytes that are read at once.
const BUFFER: usize = 64 << 10;
/// Longer strings are refused: no name, path or command is longer.
const MAX_TEXT: usize = 1 << 20;

/// A position in the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The line, from 1.
    pub line: u64,
    /// The character in the line, from 1.
    pub column: u64,
    /// The byte in the text, from 0.
    pub byte: u64,
}

impl Position {
    /// An error here.
    pub fn error(self, problem: Problem) -> TraceError {
        TraceError { line: self.line, column: self.column, byte: self.byte, problem }
    }
}

/// Reads tokens.
#[derive(Debug)]
pub struct Lexer<R> {
    input: R,
    buffer: Box<[u8]>,
    /// The next byte, in the buffer.
    at: usize,
    /// End of what was read into the buffer.
    end: usize,
    /// Where the buffer begins in the text.
    base: u64,
    line: u64,
    /// Where the line begins in the text; later by one for each byte that continues a character.
    line_start: u64,
    /// The last string.
    text: Vec<u8>,
}

impl<R: Read> Lexer<R> {
    /// The tokens of `input`.
    pub fn new(input: R) -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self { input, buffer, at: 0, end: 0, base: 0, line: 1, line_start: 0, text: Vec::new() }
    }

    /// The beginning of the text, before anything is read from it.
    pub fn beginning(&mut self) -> Result<&[u8]> {
        while self.end < 512 && self.fill()? {}
        Ok(self.rest())
    }

    /// Position of the next byte.
    #[inline]
    pub fn here(&self) -> Position {
        let byte = self.base + self.at as u64;
        Position { line: self.line, column: byte - self.line_start + 1, byte }
    }

    /// Reads more. Answers false at the end of the text.
    #[cold]
    fn fill(&mut self) -> Result<bool> {
        if self.at == self.end {
            self.base += self.at as u64;
            self.at = 0;
            self.end = 0;
        }
        let result = loop {
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.input.read(room) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let read = result.map_err(|error| self.here().error(Problem::Io(error)))?;
        self.end += read;
        Ok(read > 0)
    }

    /// What was read and not yet taken.
    #[inline]
    fn rest(&self) -> &[u8] {
        self.buffer.get(self.at..self.end).unwrap_or_default()
    }

    /// The next byte, blank or not.
    #[inline]
    fn byte(&mut self) -> Result<Option<u8>> {
        if self.at == self.end && !self.fill()? {
            return Ok(None);
        }
        Ok(self.buffer.get(self.at).copied())
    }

    /// The first byte of the next token; none at the end.
    #[inline]
    pub fn peek(&mut self) -> Result<Option<u8>> {
        loop {
            match self.byte()? {
                Some(b'\n') => {
                    self.at += 1;
                    self.line += 1;
                    self.line_start = self.base + self.at as u64;
                }
                Some(b' ' | b'\t' | b'\r') => self.at += 1,
                other => return Ok(other),
            }
        }
    }

    /// Takes the next token if it is this sign.
    #[inline]
    pub fn take(&mut self, sign: u8) -> Result<bool> {
        let found = self.peek()? == Some(sign);
        self.at += usize::from(found);
        Ok(found)
    }

    /// Takes this sign.
    #[inline]
    pub fn expect(&mut self, sign: u8, expected: &'static str) -> Result<()> {
        if self.take(sign)? { Ok(()) } else { Err(self.unexpected(expected)?) }
    }

    /// The next bytes are not what was expected.
    #[cold]
    pub fn unexpected(&mut self, expected: &'static str) -> Result<TraceError> {
        let next = self.peek()?;
        let here = self.here();
        let Some(byte) = next else { return Ok(here.error(Problem::CutOff(0))) };
        Ok(here.error(Problem::Expected { expected, found: found(byte) }))
    }

    /// A string; its text is in [`Lexer::text`].
    #[inline]
    pub fn string(&mut self, expected: &'static str) -> Result<()> {
        self.expect(b'"', expected)?;
        self.text.clear();
        loop {
            let rest = self.buffer.get(self.at..self.end).unwrap_or_default();
            let plain = rest.iter().position(|&b| matches!(b, b'"' | b'\\' | 0..0x20 | 0x80..));
            self.text.extend_from_slice(rest.get(..plain.unwrap_or(rest.len())).unwrap_or(rest));
            self.at += plain.unwrap_or(rest.len());
            match self.byte()? {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(0x80..) => self.character()?,
                Some(0..0x20) => {
                    return Err(self
                        .here()
                        .error(Problem::Text("a line break or other control character")));
                }
                Some(_) => {}
                None => return Err(self.here().error(Problem::CutOff(0))),
            }
            if self.text.len() > MAX_TEXT {
                return Err(self.here().error(Problem::Text("more than a million bytes")));
            }
        }
    }

    /// The text of the last string.
    #[inline]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The text of the last string, for messages and for keeping. It is UTF-8.
    pub fn owned_text(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }

    /// A character of several bytes.
    fn character(&mut self) -> Result<()> {
        let position = self.here();
        let bad = position.error(Problem::Text("bytes that are not UTF-8"));
        let start = self.text.len();
        let length = match self.byte()? {
            Some(0xc2..=0xdf) => 2,
            Some(0xe0..=0xef) => 3,
            Some(0xf0..=0xf4) => 4,
            _ => return Err(bad),
        };
        for _ in 0..length {
            let Some(byte) = self.byte()? else {
                return Err(position.error(Problem::CutOff(0)));
            };
            self.text.push(byte);
            self.at += 1;
        }
        self.line_start += length - 1;
        match std::str::from_utf8(self.text.get(start..).unwrap_or_default()) {
            Ok(_) => Ok(()),
            Err(_) => Err(bad),
        }
    }

    fn escape(&mut self) -> Result<()> {
        let position = self.here();
        self.at += 1;
        let plain = match self.byte()? {
            Some(sign @ (b'"' | b'\\' | b'/')) => sign,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                self.at += 1;
                return self.escaped_character(position);
            }
            Some(_) => return Err(position.error(Problem::Text("an unknown escape"))),
            None => return Err(position.error(Problem::CutOff(0))),
        };
        self.at += 1;
        self.text.push(plain);
        Ok(())
    }

    /// The character of `\uXXXX`, or of two of them.
    fn escaped_character(&mut self, position: Position) -> Result<()> {
        let mut units = vec![self.hex(position)?];
        if matches!(units.as_slice(), [0xd800..=0xdbff]) {
            for sign in *b"\\u" {
                if self.byte()? != Some(sign) {
                    return Err(position.error(Problem::Text("half of a surrogate pair")));
                }
                self.at += 1;
            }
            units.push(self.hex(position)?);
        }
        let Ok(text) = String::from_utf16(&units) else {
            return Err(position.error(Problem::Text("half of a surrogate pair")));
        };
        self.text.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn hex(&mut self, position: Position) -> Result<u16> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = match self.byte()? {
                Some(byte) => char::from(byte).to_digit(16),
                None => return Err(position.error(Problem::CutOff(0))),
            };
            let Some(digit) = digit else {
                return Err(position.error(Problem::Text("an unknown escape")));
            };
            unit = unit << 4 | digit as u16;
            self.at += 1;
        }
        Ok(unit)
    }

    /// A whole number from 0 to `max`.
    #[inline]
    pub fn number(&mut self, max: u64) -> Result<u64> {
        const WHOLE: &str = "a whole number from 0 on";
        let first = self.peek()?;
        let position = self.here();
        let mut value = 0u64;
        let mut digits = 0;
        while let Some(byte @ b'0'..=b'9') = self.byte()? {
            let digit = u64::from(byte - b'0');
            value = match value.checked_mul(10).and_then(|v| v.checked_add(digit)) {
                Some(value) if value <= max => value,
                _ => return Err(position.error(Problem::TooLarge(max))),
            };
            digits += 1;
            self.at += 1;
        }
        let fraction = matches!(self.byte()?, Some(b'.' | b'e' | b'E'));
        if digits == 0 {
            return Err(self.unexpected(WHOLE)?);
        }
        if fraction || (first == Some(b'0') && digits > 1) {
            let found = if fraction { "a fraction" } else { "a number that begins with 0" };
            return Err(position.error(Problem::Expected { expected: WHOLE, found: found.into() }));
        }
        Ok(value)
    }

    /// `true` or `false`.
    pub fn boolean(&mut self) -> Result<bool> {
        let first = self.peek()?;
        let (word, value): (&[u8], bool) = match first {
            Some(b't') => (b"true", true),
            Some(b'f') => (b"false", false),
            _ => return Err(self.unexpected("`true` or `false`")?),
        };
        for &letter in word {
            if self.byte()? != Some(letter) {
                return Err(self.unexpected("`true` or `false`")?);
            }
            self.at += 1;
        }
        Ok(value)
    }
}

/// The token that begins with `byte`, in words.
fn found(byte: u8) -> String {
    match byte {
        b'"' => "a string".to_owned(),
        b'-' => "a negative number".to_owned(),
        b'0'..=b'9' => "a number".to_owned(),
        b'{' => "an object".to_owned(),
        b'[' => "a list".to_owned(),
        b't' | b'f' => "`true` or `false`".to_owned(),
        b'n' => "`null`".to_owned(),
        0x21..0x7f => format!("`{}`", char::from(byte)),
        _ => format!("byte 0x{byte:02x}"),
    }
}
