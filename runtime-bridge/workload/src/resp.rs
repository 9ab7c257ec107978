//! A client for the Redis protocol (RESP 2), as much of it as a test needs.

use crate::error::{Error, Result, Trying};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// A server that sends nothing for this long is considered hung.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// One answer of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Status(String),
    /// `-ERR …`
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$5 hello`, or nothing.
    Bulk(Option<Vec<u8>>),
    /// `*2 …`; an absent array is empty.
    Array(Vec<Reply>),
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<TcpStream>,
    out: Vec<u8>,
}

/// To wait for replies on many connections.
impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.get_ref().as_fd()
    }
}

impl Client {
    /// Connects to a server on this machine.
    ///
    /// # Errors
    /// If nothing listens there.
    pub fn connect(port: u16) -> Result<Self> {
        Self::connect_within(port, ANSWER_WITHIN)
    }

    /// The same to a server that has to answer each command so soon.
    ///
    /// # Errors
    /// As there.
    pub fn connect_within(port: u16, time: Duration) -> Result<Self> {
        let what = || format!("connect to port {port}");
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).trying(what)?;
        stream.set_nodelay(true).trying(what)?;
        stream.set_read_timeout(Some(time)).trying(what)?;
        stream.set_write_timeout(Some(time)).trying(what)?;
        Ok(Self { reader: BufReader::new(stream), out: Vec::new() })
    }

    /// Adds a command to those that [`Client::flush`] sends.
    pub fn queue<A: AsRef<[u8]>>(&mut self, command: &[A]) {
        let mut head = String::new();
        // Writing to a string cannot fail.
        let _ = write!(head, "*{}\r\n", command.len());
        for word in command {
            let word = word.as_ref();
            let _ = write!(head, "${}\r\n", word.len());
            self.out.extend_from_slice(head.as_bytes());
            self.out.extend_from_slice(word);
            self.out.extend_from_slice(b"\r\n");
            head.clear();
        }
    }

    /// Sends the queued commands.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn flush(&mut self) -> Result<()> {
        let sent = self.reader.get_mut().write_all(&self.out).trying(|| "send a command".into());
        self.out.clear();
        sent
    }

    /// Reads one answer. An error answer is a [`Reply::Error`], not an `Err`.
    ///
    /// # Errors
    /// If the connection is gone or the reply is not RESP.
    pub fn receive(&mut self) -> Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| protocol(&line))?;
        let number = || rest.parse::<i64>().map_err(|_| protocol(&line));
        Ok(match kind {
            "+" => Reply::Status(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Integer(number()?),
            "$" => match usize::try_from(number()?) {
                Err(_) => Reply::Bulk(None),
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.reader.read_exact(&mut bytes).trying(|| "read an answer".into())?;
                    bytes.truncate(length);
                    Reply::Bulk(Some(bytes))
                }
            },
            "*" => {
                let length = usize::try_from(number()?).unwrap_or(0);
                Reply::Array((0..length).map(|_| self.receive()).collect::<Result<_>>()?)
            }
            _ => return Err(protocol(&line)),
        })
    }

    /// Sends one command and reads its answer; an error answer is an error.
    ///
    /// # Errors
    /// If the connection is gone or the server refuses.
    pub fn command<A: AsRef<[u8]>>(&mut self, command: &[A]) -> Result<Reply> {
        self.queue(command);
        self.flush()?;
        match self.receive()? {
            Reply::Error(text) => Err(Error::Refused(text)),
            reply => Ok(reply),
        }
    }

    /// A command whose answer is text.
    ///
    /// # Errors
    /// As [`Client::command`], or if the reply is not a string.
    pub fn text<A: AsRef<[u8]>>(&mut self, command: &[A]) -> Result<String> {
        match self.command(command)? {
            Reply::Status(text) => Ok(text),
            Reply::Bulk(Some(bytes)) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            reply => Err(protocol(&format!("{reply:?}"))),
        }
    }

    /// A command whose answer is a number.
    ///
    /// # Errors
    /// As [`Client::command`], or if the reply is not a number.
    pub fn integer<A: AsRef<[u8]>>(&mut self, command: &[A]) -> Result<i64> {
        match self.command(command)? {
            Reply::Integer(number) => Ok(number),
            reply => Err(protocol(&format!("{reply:?}"))),
        }
    }

    /// One field of `INFO`, such as `aof_rewrite_in_progress`; `None` if the server has none.
    ///
    /// # Errors
    /// As [`Client::command`].
    pub fn info(&mut self, field: &str) -> Result<Option<String>> {
        let text = self.text(&["INFO", "everything"])?;
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(value.map(|value| value.trim().to_owned()))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line).trying(|| "read an answer".into())?;
        if read == 0 {
            return Err(protocol("the server closed the connection"));
        }
        line.truncate(line.trim_end_matches(['\r', '\n']).len());
        Ok(line)
    }
}

fn protocol(text: &str) -> Error {
    Error::Protocol(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// What the client makes of `answers`, and what it sent.
    fn talk(answers: &'static [u8], command: &[&str]) -> (Result<Reply>, Vec<u8>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(answers).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut sent = Vec::new();
            stream.read_to_end(&mut sent).unwrap();
            sent
        });
        let mut client = Client::connect(port).unwrap();
        let reply = client.command(command);
        drop(client);
        (reply, server.join().unwrap())
    }

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let (reply, sent) = talk(b"+OK\r\n", &["SET", "a", "é"]);
        assert_eq!(reply.unwrap(), Reply::Status("OK".into()));
        assert_eq!(sent, b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\n\xc3\xa9\r\n");
    }

    #[test]
    fn every_kind_of_answer() {
        let (reply, _) = talk(b"*4\r\n:-7\r\n$-1\r\n$4\r\na\r\nb\r\n-no\r\n", &["X"]);
        let expected = vec![
            Reply::Integer(-7),
            Reply::Bulk(None),
            Reply::Bulk(Some(b"a\r\nb".to_vec())),
            Reply::Error("no".into()),
        ];
        assert_eq!(reply.unwrap(), Reply::Array(expected));
    }

    #[test]
    fn bad_answers_are_errors() {
        assert!(matches!(talk(b"-ERR no\r\n", &["X"]).0, Err(Error::Refused(t)) if t == "ERR no"));
        assert!(matches!(talk(b"", &["X"]).0, Err(Error::Protocol(_))));
        assert!(matches!(talk(b"?\r\n", &["X"]).0, Err(Error::Protocol(_))));
        assert!(matches!(talk(b"\r\n", &["X"]).0, Err(Error::Protocol(_))));
        assert!(matches!(talk(b":x\r\n", &["X"]).0, Err(Error::Protocol(_))));
        assert!(matches!(talk(b"$5\r\nab", &["X"]).0, Err(Error::Io { .. })));
    }
}
