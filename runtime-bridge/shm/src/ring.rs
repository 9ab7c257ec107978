//! The shared memory through which the agent hands events to `durac record`.
//!
//! A bounded queue after Vyukov: a producer reserves a place by moving the head, fills it, and
//! publishes it by the place's sequence number; the one consumer reads in the same order. Nobody
//! waits: when the queue is full, the producer counts the event as dropped and goes on. Producers
//! may be many threads of several processes, and any of them may die between two instructions.

use crate::sync::{AtomicU64, Ordering};
use durac_trace::{Event, MAX_LOGS, MOST_WRITTEN, Op, Verdict};
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// First word of a ring: `duracrg` and the version of the layout.
const MAGIC: u64 = u64::from_le_bytes(*b"duracrg\x01");
/// Places of a ring by default: 20 MiB, enough for several seconds without the
/// consumer.
pub const PLACES: u64 = 1 << 18;
/// Most places of a ring.
const MAX_PLACES: u64 = 1 << 24;
/// Words of a place beside its sequence number.
const WORDS: usize = 9;
/// Bytes of a path that fit into a place.
const PIECE: usize = 56;
/// How often a producer tries to reserve a place. Others can only take it so often; but the ring may have
/// been spoilt, and a producer never waits.
const TRIES: u32 = 10_000;
/// Paths that have begun and not ended: that many threads open a log at once. Beyond, the oldest is given up.
const PATHS: usize = 1024;
/// Bytes of a path that are kept: the system's `PATH_MAX` is 4096, and a byte that is not UTF-8 becomes three.
const PATH_BYTES: usize = 4 * 4096;
/// In place of an operation: a piece of the path of a log that is about to be opened.
const OP_PATH: u8 = 0xff;

/// A number with a cache line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
struct Alone(AtomicU64);

#[derive(Debug)]
#[repr(C, align(4096))]
struct Head {
    magic: AtomicU64,
    places: AtomicU64,
    /// When the trace began: `CLOCK_MONOTONIC`, nanoseconds.
    began: AtomicU64,
    /// Nobody reads any more.
    stopped: AtomicU64,
    logs: AtomicU64,
    threads: AtomicU64,
    /// The next place to reserve.
    head: Alone,
    dropped: Alone,
}

#[derive(Debug)]
#[repr(C)]
struct Cell {
    /// n: free for event n. n + 1: holds event n.
    sequence: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// A ring, mapped. Made and drained by one process, filled by others. A clone is the same ring.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    head: &'static Head,
    places: &'static [Cell],
}

impl Ring {
    /// Makes the file of a ring, readable and writable by this user only.
    ///
    /// # Errors
    /// If the file exists or cannot be created, or `places` is not a power of two.
    pub fn create(path: &Path, places: u64, began: u64) -> io::Result<Ring> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        let file = open(path, flags)?;
        let size = size(places).ok_or(io::ErrorKind::InvalidInput)?;
        // Space now, not a signal when it is written to.
        // SAFETY: the descriptor is ours.
        let errno = unsafe { libc::posix_fallocate(file.0, 0, size as libc::off_t) };
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let ring = map(&file, places, size)?;
        for (index, place) in (0u64..).zip(ring.places) {
            place.sequence.store(index, Ordering::Relaxed);
        }
        ring.head.places.store(places, Ordering::Relaxed);
        ring.head.began.store(began, Ordering::Relaxed);
        ring.head.magic.store(MAGIC, Ordering::Release);
        Ok(ring)
    }

    /// A ring in this process' own memory, for its threads. It is never freed.
    ///
    /// None if `places` is not a power of two, or too large.
    #[must_use]
    pub fn in_memory(places: u64, began: u64) -> Option<Ring> {
        size(places)?;
        let number = AtomicU64::new;
        let head = Box::leak(Box::new(Head {
            magic: number(MAGIC),
            places: number(places),
            began: number(began),
            stopped: number(0),
            logs: number(0),
            threads: number(0),
            head: Alone(number(0)),
            dropped: Alone(number(0)),
        }));
        let place = |sequence| Cell {
            sequence: number(sequence),
            words: std::array::from_fn(|_| number(0)),
        };
        let places = Vec::leak((0..places).map(place).collect());
        Some(Ring { head, places })
    }

    /// Maps a ring that was made, for the rest of the process' life.
    ///
    /// # Errors
    /// If there is none, or its layout is another, or somebody else could shorten it: touching what is
    /// gone would kill the application.
    pub fn open(path: &Path) -> io::Result<Ring> {
        let file = open(path, libc::O_RDWR | libc::O_NONBLOCK)?;
        let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the descriptor is ours, and `stat` has room for the answer.
        if unsafe { libc::fstat(file.0, stat.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fstat succeeded and filled it.
        let stat = unsafe { stat.assume_init() };
        if !is_private(&stat) {
            let why = "it is not a regular file, or others can change it";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        let length = stat.st_size as usize;
        let places = (length.saturating_sub(size_of::<Head>()) / size_of::<Cell>()) as u64;
        let other = || io::Error::new(io::ErrorKind::InvalidData, "no ring of this version");
        let size = size(places).filter(|&s| s == length).ok_or_else(other)?;
        let ring = map(&file, places, size)?;
        let head = ring.head;
        let fits = head.magic.load(Ordering::Acquire) == MAGIC
            && head.places.load(Ordering::Relaxed) == places;
        if fits { Ok(ring) } else { Err(other()) }
    }

    /// Whether somebody reads.
    #[inline]
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.head.stopped.load(Ordering::Relaxed) == 0
    }

    /// Nobody reads any more.
    pub fn stop(&self) {
        self.head.stopped.store(1, Ordering::Relaxed);
    }

    /// A time of `CLOCK_MONOTONIC`, counted from the beginning of the trace.
    #[must_use]
    pub fn since_began(&self, time: u64) -> u64 {
        time.saturating_sub(self.head.began.load(Ordering::Relaxed))
    }

    /// A number for a log that was opened.
    #[must_use]
    pub fn new_log(&self) -> u32 {
        self.head.logs.fetch_add(1, Ordering::Relaxed) as u32
    }

    /// A number for a thread.
    #[must_use]
    pub fn new_thread(&self) -> u32 {
        self.head.threads.fetch_add(1, Ordering::Relaxed) as u32
    }

    /// How many events found no place.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.head.dropped.0.load(Ordering::Relaxed)
    }

    /// Some events are missing, nobody knows how many: counts one. Makes no system call and allocates nothing.
    pub fn count_missing(&self) {
        self.head.dropped.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Hands over an event whose `t` is a time of `CLOCK_MONOTONIC`. Does not block, allocate or
    /// touch `errno`.
    pub fn push(&self, event: &Event) {
        let mut covers = event.covers;
        if event.op == Op::Open {
            covers = event.path.len() as u64;
            for piece in event.path.as_bytes().chunks(PIECE) {
                let mut words = [0; WORDS];
                for (word, bytes) in words.iter_mut().zip(piece.chunks(8)) {
                    let mut whole = [0; 8];
                    for (to, from) in whole.iter_mut().zip(bytes) {
                        *to = *from;
                    }
                    *word = u64::from_le_bytes(whole);
                }
                let [.., numbers, kinds] = &mut words;
                *numbers = u64::from(event.log) << 32;
                *kinds = u64::from(OP_PATH) | (piece.len() as u64) << 8;
                self.push_words(words);
            }
        }
        self.push_words([
            event.t,
            event.took,
            event.cpu,
            event.sync_cpu,
            event.bytes,
            event.wait,
            covers,
            u64::from(event.log) << 32 | u64::from(event.thread),
            u64::from(event.op as u8)
                | u64::from(event.verdict as u8) << 8
                | u64::from(event.background) << 16
                | u64::from(event.result.unsigned_abs()) << 32,
        ]);
    }

    fn push_words(&self, words: [u64; WORDS]) {
        let mut at = self.head.head.0.load(Ordering::Relaxed);
        for _ in 0..TRIES {
            let Some(place) = self.place(at) else { return };
            let sequence = place.sequence.load(Ordering::Acquire);
            if sequence < at {
                break;
            }
            let next = &self.head.head.0;
            if sequence > at {
                at = next.load(Ordering::Relaxed);
                continue;
            }
            match next.compare_exchange_weak(
                at,
                at.wrapping_add(1),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    for (to, from) in place.words.iter().zip(words) {
                        to.store(from, Ordering::Relaxed);
                    }
                    place.sequence.store(at.wrapping_add(1), Ordering::Release);
                    return;
                }
                Err(current) => at = current,
            }
        }
        self.head.dropped.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many places it has.
    #[must_use]
    pub fn places(&self) -> u64 {
        self.places.len() as u64
    }

    #[inline]
    fn place(&self, at: u64) -> Option<&'static Cell> {
        // The number of places is a power of two.
        self.places.get(at as usize & (self.places.len() - 1))
    }
}

/// Takes events out of a ring.
#[derive(Debug)]
pub struct Drain {
    ring: Ring,
    at: u64,
    /// The path of the log that is about to be opened, as far as it has come, and its number.
    paths: Vec<(u32, Vec<u8>)>,
    lost: u64,
}

impl Drain {
    /// The only consumer of `ring`.
    #[must_use]
    pub fn new(ring: Ring) -> Self {
        Self { ring, at: 0, paths: Vec::new(), lost: 0 }
    }

    /// The ring.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The next event, with `t` since the beginning of the trace; none if there is none yet, or
    /// the thread that makes it has not got to its end, or a whole ring was no event.
    pub fn pop(&mut self) -> Option<Event> {
        for _ in 0..self.ring.places() {
            let place = self.ring.place(self.at)?;
            if place.sequence.load(Ordering::Acquire) != self.at + 1 {
                return None;
            }
            let words = std::array::from_fn(|i| {
                place.words.get(i).map_or(0, |word| word.load(Ordering::Relaxed))
            });
            self.free(place);
            if let Some(event) = self.decode(words) {
                return Some(event);
            }
        }
        None
    }

    /// Whether the next place is reserved: an event is there or will be.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        let ahead = self.ring.head.head.0.load(Ordering::Relaxed).saturating_sub(self.at);
        (1..=self.ring.places()).contains(&ahead)
    }

    /// Gives up the place that keeps [`Drain::pop`] from going on: the process that reserved it was killed
    /// before it was filled. Answers false if nothing is reserved.
    pub fn skip(&mut self) -> bool {
        let reserved = self.is_reserved();
        if reserved && let Some(place) = self.ring.place(self.at) {
            self.lost += 1;
            self.free(place);
        }
        reserved
    }

    /// How many events are missing.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.ring.dropped().saturating_add(self.lost)
    }

    fn free(&mut self, place: &Cell) {
        place.sequence.store(self.at + self.ring.places.len() as u64, Ordering::Release);
        self.at += 1;
    }

    /// None for a piece of a path, and for what no producer writes.
    fn decode(&mut self, words: [u64; WORDS]) -> Option<Event> {
        let [t, took, cpu, sync_cpu, bytes, wait, covers, numbers, kinds] = words;
        let log = (numbers >> 32) as u32;
        if kinds as u8 == OP_PATH {
            let length = (kinds >> 8) as u8 as usize;
            let piece = words.iter().flat_map(|w| w.to_le_bytes()).take(length.min(PIECE));
            match self.paths.iter_mut().find(|p| p.0 == log) {
                Some(path) if path.1.len() < PATH_BYTES => path.1.extend(piece),
                Some(_) => {}
                None => {
                    if self.paths.len() == PATHS {
                        self.paths.remove(0);
                    }
                    self.paths.push((log, piece.collect()));
                }
            }
            return None;
        }
        let op = Op::ALL.get(kinds as u8 as usize).copied();
        let verdict = Verdict::ALL.get((kinds >> 8) as u8 as usize).copied();
        let result = i32::try_from(kinds >> 32).ok();
        let known = u64::from(log) < MAX_LOGS;
        let (Some(op), Some(verdict), Some(result), true) = (op, verdict, result, known) else {
            self.lost += 1;
            return None;
        };
        let t = self.ring.since_began(t);
        let mut event = Event {
            t,
            op,
            log,
            thread: numbers as u32,
            took: took.min(t),
            cpu,
            sync_cpu,
            // A ring that was tampered with says anything; a reader of traces refuses more.
            bytes: if op == Op::Write { bytes.min(MOST_WRITTEN) } else { bytes },
            verdict,
            wait,
            covers,
            background: kinds >> 16 & 1 != 0,
            result,
            path: String::new(),
        };
        if op == Op::Open {
            event.covers = 0;
            if let Some(at) = self.paths.iter().position(|p| p.0 == log) {
                let (_, path) = self.paths.swap_remove(at);
                // If a piece found no place, the rest is not a path.
                if path.len() as u64 == covers {
                    event.path = String::from_utf8_lossy(&path).into_owned();
                }
            }
        }
        Some(event)
    }
}

/// Bytes of a ring with this many places; none if the number is invalid.
fn size(places: u64) -> Option<usize> {
    let fits = places.is_power_of_two() && places <= MAX_PLACES;
    fits.then(|| size_of::<Head>() + places as usize * size_of::<Cell>())
}

/// Whether only root and this user can write to the file.
fn is_private(stat: &libc::stat) -> bool {
    // SAFETY: geteuid has no preconditions.
    let user = unsafe { libc::geteuid() };
    stat.st_mode & libc::S_IFMT == libc::S_IFREG
        && stat.st_mode & 0o022 == 0
        && (stat.st_uid == 0 || stat.st_uid == user)
}

/// A descriptor of this process.
struct Fd(libc::c_int);

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours.
        unsafe { libc::close(self.0) };
    }
}

fn open(path: &Path, flags: libc::c_int) -> io::Result<Fd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: `name` is a valid C string.
    match unsafe { libc::open(name.as_ptr(), flags, 0o600 as libc::c_uint) } {
        -1 => Err(io::Error::last_os_error()),
        fd => Ok(Fd(fd)),
    }
}

/// Maps the whole file. It stays mapped: the agent never stops, and durac ends soon after.
fn map(file: &Fd, places: u64, size: usize) -> io::Result<Ring> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // Its pages are there: the threads that write to them need not fault.
    let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
    // SAFETY: a new mapping of a size that the file has; the kernel chooses the address.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), size, access, flags, file.0, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is page-aligned, has room for the head and the places behind it (`size`), and is
    // never unmapped; any bytes are valid atomics, whatever other processes write. Only root and this user
    // can shorten the file, and that would end the process by a signal.
    unsafe {
        let head = &*address.cast::<Head>();
        let first = address.byte_add(size_of::<Head>()).cast::<Cell>();
        Ok(Ring { head, places: std::slice::from_raw_parts(first, places as usize) })
    }
}
