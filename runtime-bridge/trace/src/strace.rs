//! Imports what `strace -f -ttt -T` wrote: calls that were seen from outside, as they ran.
//!
//! strace knows descriptors, the trace wants logs. So descriptors are followed from the calls that
//! open, copy and close them; with `-y`, strace also names the file of one that was open before.

mod line;

pub use line::looks_like;

use crate::error::{Problem, Result, TraceError};
use crate::event::{Event, Op, Verdict};
use crate::sort::Sorter;
use line::{Call, Failed, Kind, Line, Returned};
use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::path::Path;

/// How long an event is held back, so that one that ended earlier can overtake it, nanoseconds.
const HOLD: u64 = 1_000_000_000;
/// strace writes no longer lines.
const MAX_LINE: usize = 64 << 20;

/// Reads strace's output as a stream of events.
pub struct Importer<R, F> {
    input: R,
    /// Whether the file of this name is a log.
    covers: F,
    line: Vec<u8>,
    number: u64,
    /// Where the line begins, and where the next one does, in bytes.
    begins: u64,
    next: u64,
    /// Time of the first line, nanoseconds since 1970.
    began: Option<u64>,
    sorter: Sorter,
    /// The latest time that a call ended.
    latest: u64,
    /// The end was reached, or an error.
    over: bool,
    world: World,
}

/// What is known of the application.
#[derive(Default)]
struct World {
    /// The descriptors of each process, by number; threads share them.
    tables: HashMap<usize, HashMap<i32, u32>>,
    /// The table of each thread, by its id.
    threads: HashMap<u32, usize>,
    /// Numbers of threads in the trace.
    numbers: HashMap<u32, u32>,
    /// Calls that have not returned, by thread.
    unfinished: HashMap<u32, Unfinished>,
    logs: Vec<Log>,
    children: Vec<u32>,
    /// Where in the sorter's input they go.
    found: Vec<Event>,
}

/// A call that has not returned.
#[derive(Debug)]
struct Unfinished {
    since: u64,
    /// Its text so far.
    text: String,
    /// If it syncs a log: what it covers, the call with this number and this many bytes.
    sync: Option<(u64, u64)>,
}

#[derive(Debug, Default)]
struct Log {
    path: String,
    descriptors: u32,
    calls: u64,
    unsynced: u64,
}

impl Log {
    /// A sync begins: the call it covers, and the bytes.
    fn begin(&mut self) -> (u64, u64) {
        self.calls += 1;
        (self.calls, std::mem::take(&mut self.unsynced))
    }
}

impl<R: BufRead, F: Fn(&Path) -> bool> Importer<R, F> {
    /// Begins to read. `covers` says of a path whether its file is a log.
    ///
    /// # Errors
    /// If `input` is empty, or its first lines are none of strace's.
    pub fn open(input: R, covers: F) -> Result<Self> {
        let mut importer = Self {
            input,
            covers,
            line: Vec::new(),
            number: 0,
            begins: 0,
            next: 0,
            began: None,
            sorter: Sorter::default(),
            latest: 0,
            over: false,
            world: World::default(),
        };
        while importer.began.is_none() {
            if !importer.step()? {
                return Err(importer.error(0, "the file is empty".to_owned()));
            }
        }
        Ok(importer)
    }

    /// When the trace began: seconds since 1970.
    #[must_use]
    pub fn started(&self) -> u64 {
        self.began.unwrap_or(0) / 1_000_000_000
    }

    fn error(&self, at: usize, message: String) -> TraceError {
        let before = self.line.get(..at).unwrap_or_default();
        let column = String::from_utf8_lossy(before).chars().count() as u64 + 1;
        let byte = self.begins + before.len() as u64;
        TraceError { line: self.number.max(1), column, byte, problem: Problem::Strace(message) }
    }

    /// Reads a line. Answers false at the end.
    fn step(&mut self) -> Result<bool> {
        self.line.clear();
        let read = self.input.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut self.line);
        self.number += 1;
        self.begins = self.next;
        match read {
            Ok(0) => return Ok(false),
            Ok(read) => self.next += read as u64,
            Err(error) => {
                return Err(TraceError {
                    line: self.number,
                    column: 1,
                    byte: self.begins,
                    problem: Problem::Io(error),
                });
            }
        }
        let whole = self.line.pop_if(|last| *last == b'\n').is_some();
        let cut = if whole { "" } else { "; the file was cut off here" };
        let text = match str::from_utf8(&self.line) {
            Ok(text) => text.trim_end(),
            Err(error) => {
                let message = "a byte that strace does not write".to_owned();
                return Err(self.error(error.valid_up_to(), message));
            }
        };
        let line = match line::parse(text) {
            Ok(line) => line,
            Err(Failed { at, message }) => return Err(self.error(at, message + cut)),
        };
        if let Some(Line { thread, time, kind }) = line {
            let began = *self.began.get_or_insert(time);
            let time = time.saturating_sub(began);
            let done = self.world.line(thread, time, kind, &self.covers);
            if let Err(Failed { at, message }) = done {
                return Err(self.error(at, message + cut));
            }
            for event in self.world.found.drain(..) {
                self.latest = self.latest.max(event.t);
                self.sorter.add(event);
            }
        }
        Ok(true)
    }

    fn read(&mut self) -> Result<Option<Event>> {
        loop {
            let until = if self.over { u64::MAX } else { self.latest.saturating_sub(HOLD) };
            if let Some(event) = self.sorter.next(until) {
                return Ok(Some(event));
            }
            if self.over {
                return Ok(None);
            }
            self.over = !self.step()?;
        }
    }
}

impl<R: BufRead, F: Fn(&Path) -> bool> Iterator for Importer<R, F> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.read() {
            Ok(event) => event.map(Ok),
            Err(error) => {
                self.over = true;
                self.sorter = Sorter::default();
                Some(Err(error))
            }
        }
    }
}

impl World {
    fn line(
        &mut self,
        thread: u32,
        time: u64,
        kind: Kind<'_>,
        covers: &dyn Fn(&Path) -> bool,
    ) -> Result<(), Failed> {
        match kind {
            Kind::Call { text, at } => {
                let call = Call::parse(text, thread, time);
                let done = call.and_then(|call| self.call(&call, None, covers));
                done.map_err(|message| Failed { at, message })
            }
            Kind::Unfinished(text) => {
                let sync = self.begun(&Call::begun(text, thread, time), covers);
                let text = text.to_owned();
                self.unfinished.insert(thread, Unfinished { since: time, text, sync });
                Ok(())
            }
            Kind::Resumed { rest, at } => {
                // The beginning of a call may lie before that of the trace.
                let Some(Unfinished { since, mut text, sync }) = self.unfinished.remove(&thread)
                else {
                    return Ok(());
                };
                text.push_str(rest);
                let call = Call::parse(&text, thread, since).map(|mut call| {
                    call.took.get_or_insert(time.saturating_sub(since));
                    call
                });
                let done = call.and_then(|call| self.call(&call, sync, covers));
                done.map_err(|message| Failed { at, message })
            }
            Kind::Gone => {
                self.unfinished.remove(&thread);
                self.threads.remove(&thread);
                Ok(())
            }
        }
    }

    fn call(
        &mut self,
        call: &Call<'_>,
        sync: Option<(u64, u64)>,
        covers: &dyn Fn(&Path) -> bool,
    ) -> Result<(), String> {
        match call.name {
            "open" | "openat" | "creat" => self.opened(call, covers),
            "dup" | "dup2" | "dup3" | "fcntl" | "fcntl64" => self.copied(call),
            "close" => self.closed(call),
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" | "ftruncate"
            | "ftruncate64" => self.wrote(call, covers),
            "fsync" | "fdatasync" => self.synced(call, sync, covers),
            "fork" | "vfork" | "clone" | "clone3" => self.forked(call),
            "wait4" | "waitid" | "waitpid" => self.reaped(call),
            _ => Ok(()),
        }
    }

    /// The table of a thread. One that was never seen before is taken for a thread of the first
    /// process: a child comes out of a call that strace shows, if it was asked to.
    fn table(&mut self, thread: u32) -> usize {
        if let Some(&table) = self.threads.get(&thread) {
            return table;
        }
        // Its first line can come before that of the call that made it.
        let forking = self.unfinished.values().any(|call| is_fork(&call.text));
        let table = if forking { self.tables.len() } else { 0 };
        self.threads.insert(thread, table);
        self.tables.entry(table).or_default();
        table
    }

    fn descriptors(&mut self, thread: u32) -> &mut HashMap<i32, u32> {
        let table = self.table(thread);
        self.tables.entry(table).or_default()
    }

    fn emit(&mut self, call: &Call<'_>, event: Event) -> Result<(), String> {
        let took = call.took()?;
        let next = self.numbers.len() as u32;
        let thread = *self.numbers.entry(call.thread).or_insert(next);
        self.found.push(Event { t: call.since + took, took, thread, ..event });
        Ok(())
    }

    /// The log of a call's descriptor.
    fn log(
        &mut self,
        call: &Call<'_>,
        covers: &dyn Fn(&Path) -> bool,
    ) -> Result<Option<u32>, String> {
        let (fd, path) = call.descriptor()?;
        if let Some(&log) = self.descriptors(call.thread).get(&fd) {
            return Ok(Some(log));
        }
        match path.filter(|path| covers(Path::new(path))) {
            // It was opened before the trace began.
            Some(path) => self.open(call, fd, path, call.since).map(Some),
            None => Ok(None),
        }
    }

    fn open(&mut self, call: &Call<'_>, fd: i32, path: String, t: u64) -> Result<u32, String> {
        let open = self.logs.iter().position(|l| l.descriptors > 0 && l.path == path);
        let log = open.unwrap_or(self.logs.len()) as u32;
        if open.is_none() {
            self.logs.push(Log { path: path.clone(), ..Log::default() });
            self.emit(call, Event { op: Op::Open, log, path, ..Event::default() })?;
            if let Some(event) = self.found.last_mut() {
                // The log is there when the call has ended; of one that was there, when it began.
                event.took = 0;
                event.t = t;
            }
        }
        self.hold(call.thread, fd, log);
        Ok(log)
    }

    /// Descriptor `fd` is a log from now on.
    fn hold(&mut self, thread: u32, fd: i32, log: u32) {
        if let Some(log) = self.logs.get_mut(log as usize) {
            log.descriptors += 1;
        }
        self.descriptors(thread).insert(fd, log);
    }

    fn opened(&mut self, call: &Call<'_>, covers: &dyn Fn(&Path) -> bool) -> Result<(), String> {
        let Returned::Value(fd) = call.returned()? else { return Ok(()) };
        let fd = i32::try_from(fd).unwrap_or(-1);
        self.let_go(call, fd)?;
        let writes = call.name == "creat" || call.has_flag("O_WRONLY") || call.has_flag("O_RDWR");
        let synchronous = call.has_flag("O_SYNC") || call.has_flag("O_DSYNC");
        let path = call.path()?;
        if writes && !synchronous && covers(Path::new(&path)) {
            let t = call.since + call.took()?;
            self.open(call, fd, path, t)?;
        }
        Ok(())
    }

    fn copied(&mut self, call: &Call<'_>) -> Result<(), String> {
        let Returned::Value(new) = call.returned()? else { return Ok(()) };
        if call.name.starts_with("fcntl")
            && !call.has_flag("F_DUPFD")
            && !call.has_flag("F_DUPFD_CLOEXEC")
        {
            return Ok(());
        }
        let (old, _) = call.descriptor()?;
        let new = i32::try_from(new).unwrap_or(-1);
        if old == new {
            return Ok(());
        }
        self.let_go(call, new)?;
        if let Some(&log) = self.descriptors(call.thread).get(&old) {
            self.hold(call.thread, new, log);
        }
        Ok(())
    }

    fn closed(&mut self, call: &Call<'_>) -> Result<(), String> {
        let (fd, _) = call.descriptor()?;
        self.let_go(call, fd)
    }

    /// Descriptor `fd` is no longer a log.
    fn let_go(&mut self, call: &Call<'_>, fd: i32) -> Result<(), String> {
        let Some(number) = self.descriptors(call.thread).remove(&fd) else { return Ok(()) };
        let Some(log) = self.logs.get_mut(number as usize) else { return Ok(()) };
        log.descriptors = log.descriptors.saturating_sub(1);
        if log.descriptors > 0 {
            return Ok(());
        }
        self.emit(call, Event { op: Op::Close, log: number, ..Event::default() })
    }

    fn wrote(&mut self, call: &Call<'_>, covers: &dyn Fn(&Path) -> bool) -> Result<(), String> {
        let Some(log) = self.log(call, covers)? else { return Ok(()) };
        let (bytes, result) = match call.returned()? {
            Returned::Value(_) if call.name.starts_with("ftruncate") => (0, 0),
            Returned::Value(bytes) => (bytes, 0),
            Returned::Error(errno) => (0, errno),
            Returned::Nothing => return Ok(()),
        };
        if let Some(log) = self.logs.get_mut(log as usize) {
            log.unsynced += bytes;
        }
        let verdict = Verdict::Pass;
        self.emit(call, Event { op: Op::Write, log, bytes, verdict, result, ..Event::default() })
    }

    /// A call begins that will end in a later line. If it syncs a log, this is when it is decided
    /// what it covers.
    fn begun(&mut self, call: &Call<'_>, covers: &dyn Fn(&Path) -> bool) -> Option<(u64, u64)> {
        if !matches!(call.name, "fsync" | "fdatasync") {
            return None;
        }
        // What is wrong with it is said when it ends.
        let log = self.log(call, covers).ok()??;
        self.logs.get_mut(log as usize).map(Log::begin)
    }

    /// A sync call, and the sync that it was.
    fn synced(
        &mut self,
        call: &Call<'_>,
        begun: Option<(u64, u64)>,
        covers: &dyn Fn(&Path) -> bool,
    ) -> Result<(), String> {
        let Some(log) = self.log(call, covers)? else { return Ok(()) };
        let result = match call.returned()? {
            Returned::Value(_) => 0,
            Returned::Error(errno) => errno,
            Returned::Nothing => return Ok(()),
        };
        let begun = begun.or_else(|| self.logs.get_mut(log as usize).map(Log::begin));
        let (covers, bytes) = begun.unwrap_or_default();
        self.emit(call, Event { op: Op::Sync, log, covers, bytes, result, ..Event::default() })?;
        let op = if call.name == "fsync" { Op::Fsync } else { Op::Fdatasync };
        let verdict = Verdict::Pass;
        self.emit(call, Event { op, log, verdict, result, ..Event::default() })
    }

    fn forked(&mut self, call: &Call<'_>) -> Result<(), String> {
        let Returned::Value(child) = call.returned()? else { return Ok(()) };
        let child = u32::try_from(child).unwrap_or(0);
        let table = self.table(call.thread);
        if call.has_flag("CLONE_FILES") {
            self.threads.insert(child, table);
            return Ok(());
        }
        // A child has its parent's descriptors, but what it does with them is not part of the
        // application's calls, as for the agent.
        if !self.threads.contains_key(&child) {
            let table = self.tables.len();
            self.tables.insert(table, HashMap::new());
            self.threads.insert(child, table);
        }
        let has_logs = self.tables.get(&table).is_some_and(|t| !t.is_empty());
        if !has_logs || call.name == "vfork" || call.has_flag("CLONE_VFORK") {
            return Ok(());
        }
        self.children.push(child);
        self.emit(call, Event { op: Op::Fork, ..Event::default() })
    }

    fn reaped(&mut self, call: &Call<'_>) -> Result<(), String> {
        let Returned::Value(child) = call.returned()? else { return Ok(()) };
        let Some(at) = self.children.iter().position(|&c| u64::from(c) == child) else {
            return Ok(());
        };
        self.children.swap_remove(at);
        self.emit(call, Event { op: Op::Reap, ..Event::default() })
    }
}

/// Whether a call makes a process with descriptors of its own.
fn is_fork(text: &str) -> bool {
    let name = text.split('(').next().unwrap_or("");
    matches!(name, "fork" | "vfork")
        || matches!(name, "clone" | "clone3") && !text.contains("CLONE_FILES")
}
