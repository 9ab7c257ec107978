//! Records what happens on the logs, for `durac record`: into a ring in shared memory, which another process drains.
//!
//! The kernel asks before a write and does not tell how it ends, so a write is recorded as it is asked about, with
//! the bytes that the call names. Sync calls are made here: their ends, results and waits are known. Nothing blocks: an
//! event that finds no room is counted and lost.

use crate::clock;
use crate::filter::Write;
use crate::log::Slot;
use crate::note;
use crate::notify::{Answer, Notification};
use crate::serve::Supervisor;
use durac_abi::ENV_RECORD;
use durac_engine::{Errno, Flight, Time};
use durac_shm::ring::Ring;
use durac_trace::{Event, MOST_WRITTEN, Op};
use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// What was done with a call.
pub use durac_trace::Verdict as Done;

/// Threads of the command that are remembered.
const MOST: usize = 1024;
/// Bytes of `/proc/TID/schedstat`, at most: three numbers.
const STAT: usize = 96;

/// What is recorded into.
struct Recorder {
    ring: Ring,
    threads: Mutex<HashMap<u32, Thread>>,
}

static RECORDER: OnceLock<Recorder> = OnceLock::new();
/// The kernel asks about writes for a recording.
static ASKS: AtomicBool = AtomicBool::new(false);

/// A thread of the command.
struct Thread {
    /// Its number in the trace.
    number: u32,
    /// Its processor time at its last event; 0 before the first.
    cpu: u64,
    /// Its `schedstat`, open as long as the thread lives.
    stat: Option<File>,
}

/// The call that this thread answers.
#[derive(Clone, Copy, Default)]
struct Asked {
    /// Who calls; none if this thread answers nobody.
    thread: Option<u32>,
    since: Time,
    done: Done,
    /// Time that it waited.
    waited: Time,
    /// Processor time of the real syncs in it.
    sync_cpu: u64,
}

thread_local! {
    static ASKED: Cell<Asked> = const {
        Cell::new(Asked { thread: None, since: 0, done: Done::None, waited: 0, sync_cpu: 0 })
    };
    /// Number of this thread in the trace, for syncs that are nobody's call, and its processor time at its last event.
    static OWN: Cell<(Option<u32>, u64)> = const { Cell::new((None, 0)) };
}

/// Whether a recording is wanted: the kernel then has to ask about writes.
pub fn is_wanted() -> bool {
    std::env::var_os(ENV_RECORD).is_some_and(|path| !path.is_empty())
}

/// Records from now on, if that is wanted. Without the ring the command runs all the same.
pub fn start() {
    let Some(path) = std::env::var_os(ENV_RECORD).filter(|path| !path.is_empty()) else { return };
    ASKS.store(true, Ordering::Relaxed);
    match Ring::open(Path::new(&path)) {
        Ok(ring) => {
            RECORDER.get_or_init(|| Recorder { ring, threads: Mutex::default() });
        }
        Err(error) => {
            note::error(&format!("cannot record: {}: {error}", Path::new(&path).display()));
        }
    }
}

/// Whether the kernel asks about writes because a recording is wanted, even if there is none.
pub fn asks_about_writes() -> bool {
    ASKS.load(Ordering::Relaxed)
}

/// What is recorded into, while somebody reads it.
fn recorder() -> Option<&'static Recorder> {
    RECORDER.get().filter(|recorder| recorder.ring.is_read())
}

/// Whether something is recorded.
pub fn is_on() -> bool {
    recorder().is_some()
}

/// The supervisor is gone: from now on events are missing, nobody knows how many. Makes no system call and allocates
/// nothing.
pub fn ends_early() {
    if let Some(recorder) = recorder() {
        recorder.ring.count_missing();
    }
}

/// Answers a call with `body`.
pub fn asked<T>(call: &Notification, body: impl FnOnce() -> T) -> T {
    if recorder().is_none() {
        return body();
    }
    let thread = Some(call.thread);
    ASKED.set(Asked { thread, since: clock::now(), done: Done::Pass, ..Asked::default() });
    let answer = body();
    ASKED.set(Asked::default());
    answer
}

/// What is done with the call that this thread answers; [`Done::Pass`] if nobody says.
pub fn done(done: Done) {
    ASKED.set(Asked { done, ..ASKED.get() });
}

/// How long that call has waited until now.
pub fn waited() -> Time {
    ASKED.get().waited
}

/// Sets what [`waited`] returns.
pub fn set_waited(waited: Time) {
    ASKED.set(Asked { waited, ..ASKED.get() });
}

/// What the trace knows of a log.
pub struct Recorded {
    number: u32,
    /// Bytes that calls have written to it, as they are asked about; a changed length is one byte.
    written: AtomicU64,
    /// How many of these a sync has covered.
    covered: AtomicU64,
    /// How many there were when its last sync call began; none before the first.
    marked: AtomicU64,
}

impl Recorded {
    /// A log was found; none if nothing is recorded.
    pub fn opened(path: &str) -> Option<Self> {
        let recorder = recorder()?;
        let number = recorder.ring.new_log();
        let path = path.to_owned();
        recorder.happened(Event { op: Op::Open, log: number, path, ..Event::default() });
        let (written, covered, marked) = Default::default();
        Some(Self { number, written, covered, marked })
    }

    /// It is forgotten.
    pub fn closed(&self) {
        if let Some(recorder) = recorder() {
            recorder.happened(Event { op: Op::Close, log: self.number, ..Event::default() });
        }
    }

    /// A sync call runs without the policy: what it is called in the trace.
    pub fn direct(&self) -> Done {
        let written = self.written.load(Ordering::Relaxed);
        if self.marked.load(Ordering::Relaxed) == written { Done::Barrier } else { Done::Pass }
    }

    /// A sync call has ended.
    pub fn sync_ended(&self, full: bool, result: Result<(), Errno>) {
        let op = if full { Op::Fsync } else { Op::Fdatasync };
        self.call(Event { op, result: result.err().unwrap_or(0), ..Event::default() });
    }

    /// A call that writes so many bytes, or changes the length, was asked about and has this answer.
    fn asked_to_write(&self, bytes: u64, result: Result<(), Errno>) {
        let bytes = match result {
            Ok(()) => {
                // Before it runs: a sync that begins later may cover it.
                self.written.fetch_add(bytes.max(1), Ordering::Relaxed);
                bytes
            }
            Err(_) => {
                if ASKED.get().done == Done::Pass {
                    done(Done::Refused);
                }
                0
            }
        };
        let result = result.err().unwrap_or(0);
        self.call(Event { op: Op::Write, bytes, result, ..Event::default() });
    }

    fn call(&self, event: Event) {
        let Some(recorder) = recorder() else { return };
        let Asked { thread, since, done, waited, sync_cpu } = ASKED.get();
        let (thread, cpu) = recorder.caller(thread.unwrap_or(0));
        let t = clock::now();
        let took = t.saturating_sub(since);
        let (log, verdict, wait) = (self.number, done, waited);
        recorder.ring.push(&Event { t, log, thread, took, cpu, sync_cpu, verdict, wait, ..event });
    }

    /// A sync call of the log begins, whose number the engine has given.
    pub fn begins(&self) {
        self.marked.store(self.written.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// A real sync begins: what has to be known of this moment at its end.
    pub fn syncing(&self) -> Option<Syncing> {
        recorder()?;
        Some(Syncing { written: self.written.load(Ordering::Relaxed), cpu: own_cpu() })
    }

    /// It has ended.
    pub fn synced(&self, begun: &Syncing, flight: &Flight, t: Time, result: Result<(), Errno>) {
        let Some(recorder) = recorder() else { return };
        let after = own_cpu();
        let sync_cpu = since(begun.cpu, after);
        let mut asked = ASKED.get();
        asked.sync_cpu += sync_cpu;
        ASKED.set(asked);
        let (thread, cpu) = match asked.thread.filter(|_| !flight.background) {
            // Part of the call.
            Some(caller) => (recorder.number(caller), 0),
            None => {
                let (number, before) = OWN.get();
                let number = number.unwrap_or_else(|| recorder.ring.new_thread());
                OWN.set((Some(number), after));
                (number, since(before, begun.cpu))
            }
        };
        let bytes = begun.written.saturating_sub(self.covered.load(Ordering::Relaxed));
        if result.is_ok() {
            self.covered.fetch_max(begun.written, Ordering::Relaxed);
        }
        recorder.ring.push(&Event {
            t,
            op: Op::Sync,
            log: self.number,
            thread,
            took: t.saturating_sub(flight.since),
            cpu,
            sync_cpu,
            bytes,
            covers: flight.covers,
            background: flight.background,
            result: result.err().unwrap_or(0),
            ..Event::default()
        });
    }
}

/// A real sync that runs.
pub struct Syncing {
    written: u64,
    cpu: u64,
}

impl Recorder {
    /// Something that takes no time.
    fn happened(&self, event: Event) {
        let thread = match ASKED.get().thread {
            Some(caller) => self.number(caller),
            None => {
                let (number, cpu) = OWN.get();
                let number = number.unwrap_or_else(|| self.ring.new_thread());
                OWN.set((Some(number), cpu));
                number
            }
        };
        self.ring.push(&Event { t: clock::now(), thread, ..event });
    }

    /// Number of a thread of the command.
    fn number(&self, thread: u32) -> u32 {
        let mut threads = self.threads();
        threads.entry(thread).or_insert_with(|| Thread::new(thread, &self.ring)).number
    }

    /// Number of a thread of the command that waits for an answer, and the processor time that it has used since its
    /// last event; 0 if that is not known.
    fn caller(&self, thread: u32) -> (u32, u64) {
        let mut threads = self.threads();
        if threads.len() >= MOST && !threads.contains_key(&thread) {
            threads.clear();
        }
        let known = threads.entry(thread).or_insert_with(|| Thread::new(thread, &self.ring));
        let mut cpu = known.read();
        if cpu.is_none() && known.stat.is_some() {
            // It has ended, and another has its number.
            *known = Thread::new(thread, &self.ring);
            cpu = known.read();
        }
        let cpu = cpu.unwrap_or(0);
        let used = since(known.cpu, cpu);
        known.cpu = cpu;
        (known.number, used)
    }

    fn threads(&self) -> MutexGuard<'_, HashMap<u32, Thread>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Thread {
    fn new(thread: u32, ring: &Ring) -> Self {
        let stat = File::open(format!("/proc/{thread}/schedstat")).ok();
        Self { number: ring.new_thread(), cpu: 0, stat }
    }

    /// Its processor time, nanoseconds.
    fn read(&self) -> Option<u64> {
        let mut bytes = [0; STAT];
        let count = self.stat.as_ref()?.read_at(&mut bytes, 0).ok()?;
        let text = std::str::from_utf8(bytes.get(..count)?).ok()?;
        text.split_whitespace().next()?.parse().ok()
    }
}

impl Supervisor {
    /// A call that writes was asked about and has this answer: records it, if it goes to a log.
    pub fn record_write(&'static self, call: &Notification, write: Write, answer: Answer) {
        if !is_on() {
            return;
        }
        let opened = match self.opened(call, call.descriptor(write.fd)) {
            Ok(opened) => opened,
            Err(errno) => return self.tell_unseen(errno),
        };
        let found = self.logs.find(self, &opened.file, opened.facts, opened.process);
        let Some(slot) = found else { return };
        let result = match answer {
            Answer::Return(Err(errno)) => Err(errno),
            Answer::Continue | Answer::Return(Ok(_)) => Ok(()),
        };
        let bytes = self.length(call, write, &slot).min(MOST_WRITTEN);
        if bytes == 0 && result.is_ok() {
            return;
        }
        slot.is_used();
        if let Some(recorded) = &slot.recorded {
            recorded.asked_to_write(bytes, result);
        }
    }

    /// The length of a log is about to be changed.
    pub fn record_length(&self, slot: &Slot) {
        slot.is_used();
        if let Some(recorded) = &slot.recorded {
            recorded.asked_to_write(0, Ok(()));
        }
    }
}

/// Processor time of this thread.
fn own_cpu() -> u64 {
    clock::of(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Processor time since `before`; 0 only if that is not known.
fn since(before: u64, now: u64) -> u64 {
    if before == 0 { 0 } else { now.saturating_sub(before).max(1) }
}
