//! Reads a trace as a stream, and checks it.

use crate::error::{Near, Problem, Result, TraceError};
use crate::event::{
    End, Event, FORMAT, Header, MAX_LOGS, MOST_WRITTEN, Op, Recorded, Source, VERSION, Verdict,
};
use crate::json::{Lexer, Position};
use std::io::Read;

const EVENT_FIELDS: [&str; 14] = [
    "t",
    "op",
    "log",
    "thread",
    "took",
    "cpu",
    "sync_cpu",
    "bytes",
    "verdict",
    "wait",
    "covers",
    "background",
    "result",
    "path",
];
const RECORDED_FIELDS: [&str; 8] =
    ["tool", "started", "policy", "target", "command", "cores", "kernel", "source"];
const END_FIELDS: [&str; 2] = ["events", "dropped"];

/// Reads a trace: the header at once, then the events one by one, then the end. After an error
/// there are no more events.
#[derive(Debug)]
pub struct Reader<R: Read> {
    lexer: Lexer<R>,
    header: Header,
    events: u64,
    /// `t` of the last event.
    last: u64,
    logs: Vec<LogState>,
    end: Option<End>,
    failed: bool,
}

/// What is known of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogState {
    Unknown,
    Open,
    Closed,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// If it is not a trace, or one of another version.
    pub fn open(input: R) -> Result<Self> {
        let mut lexer = Lexer::new(input);
        if let Some(foreign) = foreign(lexer.beginning()?) {
            return Err(lexer.here().error(Problem::Foreign(foreign)));
        }
        let header = header(&mut lexer)?;
        Ok(Self { lexer, header, events: 0, last: 0, logs: Vec::new(), end: None, failed: false })
    }

    /// What precedes the events.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What follows the events; none before all were read.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The next event; none after the last, when the rest of the file is right too.
    fn read(&mut self) -> Result<Option<Event>> {
        let more = if self.events == 0 {
            self.lexer.peek()? != Some(b']')
        } else {
            self.lexer.take(b',')?
        };
        if more {
            let event = self.event()?;
            self.events += 1;
            return Ok(Some(event));
        }
        self.lexer.expect(b']', "`,` or `]`")?;
        self.end = Some(self.read_end()?);
        Ok(None)
    }

    fn event(&mut self) -> Result<Event> {
        let lexer = &mut self.lexer;
        lexer.peek()?;
        let start = lexer.here();
        lexer.expect(b'{', "an event")?;
        let mut event = Event::default();
        let mut seen = Seen::default();
        let (mut at_t, mut at_log, mut at_took, mut at_bytes) = (start, start, start, start);
        while let Some(position) = seen.key(lexer)? {
            // In the order in which the writer writes them, which is that of how often they stand.
            match lexer.text() {
                b"t" => {
                    seen.once(0, "t", position)?;
                    at_t = value(lexer)?;
                    event.t = lexer.number(u64::MAX)?;
                }
                b"op" => {
                    seen.once(1, "op", position)?;
                    let at = value(lexer)?;
                    lexer.string("the name of an operation")?;
                    event.op = Op::from_word(lexer.text())
                        .ok_or_else(|| at.error(word(lexer, "operation", Op::ALL, Op::word)))?;
                }
                b"log" => {
                    seen.once(2, "log", position)?;
                    at_log = value(lexer)?;
                    event.log = lexer.number(MAX_LOGS - 1)? as u32;
                }
                b"thread" => {
                    seen.once(3, "thread", position)?;
                    value(lexer)?;
                    event.thread = lexer.number(u32::MAX.into())? as u32;
                }
                b"took" => {
                    seen.once(4, "took", position)?;
                    at_took = value(lexer)?;
                    event.took = lexer.number(u64::MAX)?;
                }
                b"cpu" => event.cpu = seen.number(lexer, 5, "cpu", position)?,
                b"sync_cpu" => event.sync_cpu = seen.number(lexer, 6, "sync_cpu", position)?,
                b"bytes" => {
                    at_bytes = position;
                    event.bytes = seen.number(lexer, 7, "bytes", position)?;
                }
                b"wait" => event.wait = seen.number(lexer, 8, "wait", position)?,
                b"covers" => event.covers = seen.number(lexer, 9, "covers", position)?,
                b"verdict" => {
                    seen.once(10, "verdict", position)?;
                    let at = value(lexer)?;
                    lexer.string("the name of a verdict")?;
                    event.verdict = Verdict::from_word(lexer.text()).ok_or_else(|| {
                        at.error(word(lexer, "verdict", Verdict::ALL, Verdict::word))
                    })?;
                }
                b"background" => {
                    seen.once(11, "background", position)?;
                    value(lexer)?;
                    event.background = lexer.boolean()?;
                }
                b"result" => {
                    seen.once(12, "result", position)?;
                    value(lexer)?;
                    event.result = lexer.number(i32::MAX as u64)? as i32;
                }
                b"path" => {
                    seen.once(13, "path", position)?;
                    value(lexer)?;
                    lexer.string("a path")?;
                    event.path = lexer.owned_text();
                }
                _ => return Err(position.error(unknown(lexer, &EVENT_FIELDS))),
            }
        }
        seen.all(&[(0, "t"), (1, "op")], "an event", start)?;
        if event.t < self.last {
            return Err(at_t.error(Problem::Backwards(self.last, event.t)));
        }
        if event.took > event.t {
            let (took, t) = (event.took, event.t);
            return Err(at_took.error(Problem::TookTooLong { took, t }));
        }
        if event.op == Op::Write && event.bytes > MOST_WRITTEN {
            return Err(at_bytes.error(Problem::WrittenAtOnce(event.bytes)));
        }
        self.last = event.t;
        if event.op.has_log() {
            self.check_log(&event, at_log)?;
        }
        Ok(event)
    }

    /// Whether the log of this event is open, which the event may change.
    fn check_log(&mut self, event: &Event, position: Position) -> Result<()> {
        let index = event.log as usize;
        if index >= self.logs.len() {
            self.logs.resize(index + 1, LogState::Unknown);
        }
        let Some(state) = self.logs.get_mut(index) else { return Ok(()) };
        match (event.op, *state) {
            (Op::Open, LogState::Unknown) => *state = LogState::Open,
            (Op::Open, _) => return Err(position.error(Problem::OpenedTwice(event.log))),
            (Op::Close, LogState::Open) => *state = LogState::Closed,
            // A background sync may still be on its way when the log is closed.
            (_, LogState::Open) | (Op::Sync, LogState::Closed) => {}
            (op, state) => {
                let was_open = state == LogState::Closed;
                let (op, log) = (op.word(), event.log);
                return Err(position.error(Problem::NotOpen { op, log, was_open }));
            }
        }
        Ok(())
    }

    fn read_end(&mut self) -> Result<End> {
        let lexer = &mut self.lexer;
        lexer.expect(b',', "`,` and the field `end`")?;
        part(lexer, "end")?;
        lexer.peek()?;
        let start = lexer.here();
        lexer.expect(b'{', "an object")?;
        let (mut seen, mut end, mut at_events) = (Seen::default(), End::default(), start);
        while let Some(position) = seen.key(lexer)? {
            match lexer.text() {
                b"events" => {
                    seen.once(0, "events", position)?;
                    at_events = value(lexer)?;
                    end.events = lexer.number(u64::MAX)?;
                }
                b"dropped" => end.dropped = seen.number(lexer, 1, "dropped", position)?,
                _ => return Err(position.error(unknown(lexer, &END_FIELDS))),
            }
        }
        seen.all(&[(0, "events"), (1, "dropped")], "`end`", start)?;
        if end.events != self.events {
            let (says, are) = (end.events, self.events);
            return Err(at_events.error(Problem::Count { says, are }));
        }
        lexer.expect(b'}', "`}`")?;
        match lexer.peek()? {
            None => Ok(end),
            Some(_) => {
                let here = lexer.here();
                let error = lexer.unexpected("")?;
                let found = match error.problem {
                    Problem::Expected { found, .. } => found,
                    other => other.to_string(),
                };
                Err(here.error(Problem::Trailing(found)))
            }
        }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.end.is_some() {
            return None;
        }
        match self.read() {
            Ok(event) => event.map(Ok),
            Err(mut error) => {
                self.failed = true;
                if let Problem::CutOff(after) = &mut error.problem {
                    *after = self.events;
                }
                Some(Err(error))
            }
        }
    }
}

/// The fields of an object that were read, by number.
#[derive(Debug, Default)]
struct Seen {
    any: bool,
    fields: u32,
}

impl Seen {
    /// The next field's name, and its position; none at the end of the object.
    #[inline]
    fn key<R: Read>(&mut self, lexer: &mut Lexer<R>) -> Result<Option<Position>> {
        if !self.any {
            self.any = true;
            if lexer.take(b'}')? {
                return Ok(None);
            }
        } else if !lexer.take(b',')? {
            lexer.expect(b'}', "`,` or `}`")?;
            return Ok(None);
        }
        lexer.peek()?;
        let position = lexer.here();
        lexer.string("the name of a field")?;
        Ok(Some(position))
    }

    /// Notes that field `number` was found.
    #[inline]
    fn once(&mut self, number: u32, name: &'static str, position: Position) -> Result<()> {
        if self.fields & 1 << number != 0 {
            return Err(position.error(Problem::Twice(name)));
        }
        self.fields |= 1 << number;
        Ok(())
    }

    /// A field that is a number.
    #[inline]
    fn number<R: Read>(
        &mut self,
        lexer: &mut Lexer<R>,
        number: u32,
        name: &'static str,
        position: Position,
    ) -> Result<u64> {
        self.once(number, name, position)?;
        value(lexer)?;
        lexer.number(u64::MAX)
    }

    /// A field that is a string.
    fn text<R: Read>(
        &mut self,
        lexer: &mut Lexer<R>,
        number: u32,
        name: &'static str,
        position: Position,
    ) -> Result<String> {
        self.once(number, name, position)?;
        value(lexer)?;
        lexer.string("a string")?;
        Ok(lexer.owned_text())
    }

    /// Whether what must be there is.
    fn all(
        &self,
        fields: &[(u32, &'static str)],
        what: &'static str,
        position: Position,
    ) -> Result<()> {
        match fields.iter().find(|(number, _)| self.fields & 1 << number == 0) {
            Some((_, name)) => Err(position.error(Problem::Missing(what, name))),
            None => Ok(()),
        }
    }
}

/// After the name of a field: the position of its value.
#[inline]
fn value<R: Read>(lexer: &mut Lexer<R>) -> Result<Position> {
    lexer.expect(b':', "`:`")?;
    lexer.peek()?;
    Ok(lexer.here())
}

fn unknown<R: Read>(lexer: &Lexer<R>, known: &[&'static str]) -> Problem {
    let name = lexer.owned_text();
    let near = Near::of(&name, known.iter().copied());
    Problem::Field(name, near)
}

fn word<R: Read, T: Copy>(
    lexer: &Lexer<R>,
    field: &'static str,
    known: &[T],
    name: fn(T) -> &'static str,
) -> Problem {
    let word = lexer.owned_text();
    let near = Near::of(&word, known.iter().map(|&k| name(k)));
    Problem::Word { field, word, near }
}

/// The next part of the document has to be this one.
fn part<R: Read>(lexer: &mut Lexer<R>, name: &'static str) -> Result<Position> {
    lexer.peek()?;
    let position = lexer.here();
    lexer.string("the name of a field")?;
    if lexer.text() != name.as_bytes() {
        return Err(position.error(Problem::Order(name, lexer.owned_text())));
    }
    value(lexer)
}

/// Everything up to the first event.
fn header<R: Read>(lexer: &mut Lexer<R>) -> Result<Header> {
    lexer.expect(b'{', "`{`")?;
    part(lexer, "format")?;
    let at = lexer.here();
    lexer.string("the name of the format")?;
    if lexer.text() != FORMAT.as_bytes() {
        let (field, word) = ("format of a trace", lexer.owned_text());
        let near = Near::of(&word, [FORMAT]);
        return Err(at.error(Problem::Word { field, word, near }));
    }
    lexer.expect(b',', "`,`")?;
    let at = part(lexer, "version")?;
    let version = lexer.number(u64::MAX)?;
    if version != u64::from(VERSION) {
        return Err(at.error(Problem::Version(version, VERSION)));
    }
    lexer.expect(b',', "`,`")?;
    part(lexer, "recorded")?;
    let recorded = recorded(lexer)?;
    lexer.expect(b',', "`,`")?;
    part(lexer, "events")?;
    lexer.expect(b'[', "a list of events")?;
    Ok(Header { version: VERSION, recorded })
}

fn recorded<R: Read>(lexer: &mut Lexer<R>) -> Result<Recorded> {
    let start = lexer.here();
    lexer.expect(b'{', "an object")?;
    let (mut seen, mut recorded) = (Seen::default(), Recorded::default());
    while let Some(position) = seen.key(lexer)? {
        match lexer.text() {
            b"tool" => recorded.tool = seen.text(lexer, 0, "tool", position)?,
            b"started" => recorded.started = seen.number(lexer, 1, "started", position)?,
            b"policy" => recorded.policy = seen.text(lexer, 2, "policy", position)?,
            b"target" => recorded.target = seen.text(lexer, 3, "target", position)?,
            b"command" => {
                seen.once(4, "command", position)?;
                value(lexer)?;
                recorded.command = words(lexer)?;
            }
            b"cores" => {
                seen.once(5, "cores", position)?;
                value(lexer)?;
                recorded.cores = lexer.number(u32::MAX.into())? as u32;
            }
            b"kernel" => recorded.kernel = seen.text(lexer, 6, "kernel", position)?,
            b"source" => {
                seen.once(7, "source", position)?;
                let at = value(lexer)?;
                lexer.string("the name of a source")?;
                recorded.source = Source::from_word(lexer.text())
                    .ok_or_else(|| at.error(word(lexer, "source", Source::ALL, Source::word)))?;
            }
            _ => return Err(position.error(unknown(lexer, &RECORDED_FIELDS))),
        }
    }
    seen.all(&[(7, "source")], "`recorded`", start)?;
    Ok(recorded)
}

/// A list of strings.
fn words<R: Read>(lexer: &mut Lexer<R>) -> Result<Vec<String>> {
    lexer.expect(b'[', "a list of strings")?;
    let mut words = Vec::new();
    if lexer.take(b']')? {
        return Ok(words);
    }
    loop {
        lexer.string("a string")?;
        words.push(lexer.owned_text());
        if !lexer.take(b',')? {
            lexer.expect(b']', "`,` or `]`")?;
            return Ok(words);
        }
    }
}

/// What a file is that is not a trace, and what to do with it; it continues "this …".
fn foreign(beginning: &[u8]) -> Option<&'static str> {
    let text = beginning.trim_ascii_start();
    if text.is_empty() {
        return Some("file is empty; `durac record -o FILE -- CMD` makes a trace");
    }
    if beginning.starts_with(b"\x7fELF") {
        return Some("is an ELF file, perhaps a policy's object; `durac record` makes traces");
    }
    if beginning.starts_with(b"\x1f\x8b") || beginning.starts_with(b"\x28\xb5\x2f\xfd") {
        return Some("is compressed; decompress it with gzip -d or zstd -d");
    }
    if text.starts_with(b"{") {
        let inside = text.get(1..).unwrap_or_default().trim_ascii_start();
        let key = inside.split(|&b| b == b'"').nth(1).unwrap_or_default();
        let ours = ["format", "version", "recorded", "events"];
        // A typing error in a trace is not yet another format.
        let near = Near::of(&String::from_utf8_lossy(key), ours) != Near::default();
        let other = !key.is_empty() && key != b"end" && !near;
        return other
            .then_some("is JSON of another kind; a trace begins with {\"format\":\"durac-trace\"");
    }
    if crate::strace::looks_like(text) {
        return Some(
            "looks like the output of strace; `durac record --from-strace FILE -o OUT` imports it",
        );
    }
    Some("is not JSON; `durac record -o FILE -- CMD` makes a trace")
}

/// Reads all of a trace.
///
/// # Errors
/// As [`Reader`]; those of `event` stop it too.
pub fn read_all<R: Read>(input: R) -> Result<(Header, Vec<Event>, End), TraceError> {
    let mut reader = Reader::open(input)?;
    let events = reader.by_ref().collect::<Result<Vec<_>>>()?;
    let end = reader.end().unwrap_or_default();
    Ok((reader.header, events, end))
}
