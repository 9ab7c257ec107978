//! The built-in application of the crash tests: a server that appends what it is told to a log.
//!
//! It speaks as much of the Redis protocol as the clients need, and does in each turn of its loop what
//! Redis does with `appendfsync always`: reads from everybody who has sent something, makes one write
//! and one `fdatasync`, then replies. When it starts it reads the log back, up to the first record that
//! is not whole, and cuts it off there.

use crate::append_log::log_path;
use crate::error::{Result, Trying};
use crate::sys::Readable;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;

/// Words of a command, and bytes of a word, at most.
const WORDS: usize = 10_000;
const BYTES: usize = 1 << 20;
/// Where the server listens, among the tokens.
const LISTENER: usize = 0;

/// Serves on `port` of this machine, with its log in `dir`, until a write or a sync fails.
///
/// # Errors
/// That of the first system call that failed. Nothing is answered after it.
pub fn serve(dir: &Path, port: u16) -> Result<()> {
    let what = || format!("serve from {}", dir.display());
    let mut store = Store::open(dir).trying(what)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).trying(what)?;
    listener.set_nonblocking(true).trying(what)?;
    let mut readable = Readable::new(1024).trying(what)?;
    readable.add(&listener, LISTENER).trying(what)?;
    let mut clients: BTreeMap<usize, Client> = BTreeMap::new();
    let mut next = LISTENER + 1;
    loop {
        let ready: Vec<usize> = readable.wait(None).trying(what)?.collect();
        for token in ready {
            if token == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    readable.add(&stream, next).trying(what)?;
                    clients.insert(next, Client::new(stream).trying(what)?);
                    next += 1;
                }
            } else if let Some(client) = clients.get_mut(&token)
                && !(client.fill() && client.obey(&mut store))
            {
                clients.remove(&token);
            }
        }
        store.commit().trying(what)?;
        clients.retain(|_, client| client.answer().is_ok());
    }
}

/// A connection.
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    answers: Vec<u8>,
}

impl Client {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, received: Vec::new(), answers: Vec::new() })
    }

    /// Reads all there is; false if the client is gone.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(read) => self.received.extend(buffer.iter().take(read)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// Carries out what it has sent; false if that is not a command.
    fn obey(&mut self, store: &mut Store) -> bool {
        let mut parser = Parser { bytes: &self.received, at: 0 };
        let mut done = 0;
        let stopped = loop {
            match parser.command() {
                Ok(words) => store.run(&words, &mut self.answers),
                Err(stop) => break stop,
            }
            done = parser.at;
        };
        self.received.drain(..done);
        stopped == Stop::More
    }

    fn answer(&mut self) -> io::Result<()> {
        if self.answers.is_empty() {
            return Ok(());
        }
        self.stream.set_nonblocking(false)?;
        let sent = self.stream.write_all(&self.answers);
        self.answers.clear();
        sent.and_then(|()| self.stream.set_nonblocking(true))
    }
}

/// The data, and its log.
struct Store {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    log: File,
    /// Records of this turn.
    turn: Vec<u8>,
}

impl Store {
    fn open(dir: &Path) -> io::Result<Self> {
        let path = log_path(dir, 1);
        let mut log = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes)?;
        let mut values = BTreeMap::new();
        let mut parser = Parser { bytes: &bytes, at: 0 };
        let mut whole = 0;
        while let Ok(words) = parser.command() {
            let [_, key, value] = words.as_slice() else { break };
            values.insert(key.to_vec(), value.to_vec());
            whole = parser.at;
        }
        log.set_len(whole as u64)?;
        log.sync_data()?;
        Ok(Self { values, log, turn: Vec::new() })
    }

    fn run(&mut self, words: &[&[u8]], answers: &mut Vec<u8>) {
        let name = words.first().map(|name| name.to_ascii_uppercase());
        match (name.as_deref(), words.get(1..).unwrap_or_default()) {
            (Some(b"SET"), [key, value]) => {
                record(&[b"SET", key, value], &mut self.turn);
                self.values.insert(key.to_vec(), value.to_vec());
                answers.extend_from_slice(b"+OK\r\n");
            }
            (Some(b"MGET"), keys) => {
                answers.extend_from_slice(format!("*{}\r\n", keys.len()).as_bytes());
                for key in keys {
                    match self.values.get(*key) {
                        Some(value) => bulk(value, answers),
                        None => answers.extend_from_slice(b"$-1\r\n"),
                    }
                }
            }
            (Some(b"INFO"), _) => {
                let text = format!("process_id:{}\r\nloading:0\r\n", std::process::id());
                bulk(text.as_bytes(), answers);
            }
            _ => answers.extend_from_slice(b"-ERR unknown command\r\n"),
        }
    }

    /// Makes the turn durable.
    fn commit(&mut self) -> io::Result<()> {
        if self.turn.is_empty() {
            return Ok(());
        }
        self.log.write_all(&self.turn)?;
        self.turn.clear();
        self.log.sync_data()
    }
}

fn record(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    words.iter().for_each(|word| bulk(word, out));
}

fn bulk(word: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

/// Why no command could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// It is not all there.
    More,
    /// It is not one.
    Bad,
}

/// Reads commands, from a client or from the log.
struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    fn command(&mut self) -> Result<Vec<&'a [u8]>, Stop> {
        let count = self.number(b'*', WORDS)?;
        (0..count).map(|_| self.word()).collect()
    }

    fn word(&mut self) -> Result<&'a [u8], Stop> {
        let len = self.number(b'$', BYTES)?;
        let word = self.bytes.get(self.at..self.at + len).ok_or(Stop::More)?;
        let end = self.at + len + 2;
        match self.bytes.get(self.at + len..end) {
            None => Err(Stop::More),
            Some(b"\r\n") => {
                self.at = end;
                Ok(word)
            }
            Some(_) => Err(Stop::Bad),
        }
    }

    /// A line with a kind and a number.
    fn number(&mut self, kind: u8, most: usize) -> Result<usize, Stop> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some((first, rest)) = rest.split_first() else { return Err(Stop::More) };
        let end = rest.iter().take(20).position(|byte| *byte == b'\r');
        match end {
            _ if *first != kind => Err(Stop::Bad),
            None if rest.len() < 20 => Err(Stop::More),
            None => Err(Stop::Bad),
            Some(end) if rest.len() < end + 2 => Err(Stop::More),
            Some(end) => {
                let digits = rest.get(..end).and_then(|d| std::str::from_utf8(d).ok());
                let number = digits.and_then(|d| d.parse().ok()).filter(|n| *n <= most);
                self.at += end + 3;
                number.ok_or(Stop::Bad)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_up_to_what_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Vec::new();
        record(&[b"SET", b"0:0", b"0"], &mut log);
        record(&[b"SET", b"0:1", b"1"], &mut log);
        let whole = log.len();
        for rest in ["", "*3\r\n$3\r\nSET\r\n$3\r\n0:", "\0\0\0\0", "*3\r", "*x\r\n"] {
            log.truncate(whole);
            log.extend_from_slice(rest.as_bytes());
            std::fs::write(log_path(dir.path(), 1), &log).unwrap();
            let mut store = Store::open(dir.path()).unwrap();
            assert_eq!(store.values.len(), 2, "{rest:?}");
            assert_eq!(store.log.metadata().unwrap().len(), whole as u64, "{rest:?}");
            let mut answers = Vec::new();
            store.run(&[b"SET", b"0:2", b"2"], &mut answers);
            store.commit().unwrap();
            store.run(&[b"mget", b"0:2", b"0:3"], &mut answers);
            assert_eq!(answers, b"+OK\r\n*2\r\n$1\r\n2\r\n$-1\r\n");
            assert_eq!(Store::open(dir.path()).unwrap().values.len(), 3);
        }
    }

    #[test]
    fn commands_come_in_pieces() {
        let whole = b"*2\r\n$4\r\nMGET\r\n$1\r\na\r\n";
        for end in 0..whole.len() {
            let mut parser = Parser { bytes: &whole[..end], at: 0 };
            assert_eq!(parser.command(), Err(Stop::More), "{end}");
        }
        let mut parser = Parser { bytes: whole, at: 0 };
        assert_eq!(parser.command().unwrap(), [&b"MGET"[..], b"a"]);
        for bad in [&b"SET a b\r\n"[..], b"*1\r\n$1\r\nab\r\n", b"*1\r\n$9999999\r\n"] {
            assert_eq!(Parser { bytes: bad, at: 0 }.command(), Err(Stop::Bad));
        }
    }
}
