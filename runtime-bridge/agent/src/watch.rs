//! What the kernel's programs have counted of an open log, and what it proves.
//!
//! It adds syncs that the engine did not start: those that the application makes past the hooks. What
//! the map proves goes to [`durac_engine::Log::witness`]; the rules are the engine's. Whenever the map
//! is not there, or misses a sync of the agent, the engine decides alone.

use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicU64, Ordering, fence};
use durac_abi::notify::{WORDS, Word, kernel_device, probes};
use durac_engine::{Errno, Log};

/// The map: its header, and its slots.
static MAP: OnceLock<&'static [AtomicU64]> = OnceLock::new();

/// What the kernel counts is there from now on.
pub fn begin(map: &'static [AtomicU64]) {
    MAP.get_or_init(|| map);
}

/// A slot of the map.
#[derive(Clone, Copy)]
pub struct Claimed {
    slot: u32,
    words: &'static [AtomicU64],
}

/// The slot of that number; none for 0, and without a map.
pub fn claimed(slot: u32) -> Option<Claimed> {
    if slot == 0 {
        return None;
    }
    let start = slot as usize * WORDS;
    let words = MAP.get()?.get(start..start + WORDS)?;
    Some(Claimed { slot, words })
}

impl Claimed {
    /// Its number, above 0.
    pub fn slot(self) -> u32 {
        self.slot
    }

    fn word(self, word: Word) -> Option<&'static AtomicU64> {
        self.words.get(word as usize)
    }

    fn get(self, word: Word) -> u64 {
        self.word(word).map_or(0, |w| w.load(Ordering::SeqCst))
    }

    fn set(self, word: Word, value: u64) {
        if let Some(place) = self.word(word) {
            place.store(value, Ordering::SeqCst);
        }
    }

    /// Syncs of the file that have begun, as seen after everything that this thread has written.
    pub fn started(self) -> u64 {
        // The programs count with a full barrier before they look at the file's pages. With one here
        // too, either they see the write, or the write's thread sees that they have begun.
        fence(Ordering::SeqCst);
        self.get(Word::Started)
    }

    /// Takes a free slot, or one of a process that is gone, or the one of this file that this process
    /// had before it became another program. Returns which claim of the slot this is.
    fn take(self, device: u64, inode: u64) -> Option<u64> {
        let owner = self.word(Word::Owner)?;
        let (seen, us) = (owner.load(Ordering::SeqCst), u64::from(std::process::id()));
        let left = seen == us && self.is_of(device, inode);
        if seen != 0 && !left && is_alive(seen) {
            return None;
        }
        owner.compare_exchange(seen, us, Ordering::SeqCst, Ordering::SeqCst).ok()?;
        self.set(Word::Inode, 0);
        // Before the programs count anything else here: see `Watch::is_ours`.
        let generation = self.word(Word::Generation)?.fetch_add(1, Ordering::SeqCst) + 1;
        self.set(Word::Device, device);
        self.set(Word::Inode, inode);
        Some(generation)
    }

    fn is_of(self, device: u64, inode: u64) -> bool {
        self.get(Word::Device) == device && self.get(Word::Inode) == inode
    }

    fn free(self) {
        for word in [Word::Inode, Word::Device, Word::Owner] {
            self.set(word, 0);
        }
    }
}

/// Whether a process is there.
fn is_alive(pid: u64) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    // SAFETY: no preconditions; signal 0 is only a question.
    let there = unsafe { libc::kill(pid, 0) } == 0;
    there || crate::errno::get() != libc::ESRCH
}

/// What had been written at a moment, and which syncs cover it: those with a higher ticket.
#[derive(Clone, Copy)]
struct Mark {
    ticket: u64,
    calls: u64,
    bytes: u64,
    updates: u64,
}

/// Marks that are kept: there is one for each sync that began in between.
const MARKS: usize = 8;

/// A log that the kernel watches.
pub struct Watch {
    /// The slot.
    pub claimed: Claimed,
    /// Which claim of the slot is ours.
    generation: u64,
    /// What [`Self::count`] has said.
    counted: u64,
    completed: u64,
    failed: u64,
    /// Oldest first.
    marks: Vec<Mark>,
}

/// Watches a file; none if there is no map, or no room in it, or the file is watched already for
/// another process.
pub fn watch((device, inode): (u64, u64)) -> Option<Watch> {
    MAP.get()?;
    let device = kernel_device(libc::major(device), libc::minor(device));
    let slots = || probes(device, inode).filter_map(claimed);
    // The programs find the first slot of a file only.
    let known = slots().find(|slot| slot.is_of(device, inode));
    let take = |slot: Claimed| slot.take(device, inode).map(|generation| (slot, generation));
    let (claimed, generation) = match known {
        Some(slot) => take(slot),
        None => slots().find_map(take),
    }?;
    Some(Watch {
        claimed,
        generation,
        counted: 0,
        completed: claimed.get(Word::Completed),
        failed: claimed.get(Word::Failed),
        marks: Vec::with_capacity(MARKS),
    })
}

impl Watch {
    /// Whole syncs that this process has ended with success since the log was opened.
    pub fn count(&mut self) -> u64 {
        let completed = self.claimed.get(Word::Completed);
        if self.is_ours() {
            self.counted = completed.saturating_sub(self.completed);
        }
        self.counted
    }

    /// Whether what was read of the slot before is of this file. A process of another pid namespace cannot see that this
    /// one lives, and may have taken the slot for another file.
    fn is_ours(&self) -> bool {
        self.claimed.get(Word::Generation) == self.generation
    }

    /// Remembers what `engine` knows: every sync with a higher ticket than `ticket` covers it.
    pub fn mark(&mut self, engine: &Log, ticket: u64) {
        let (calls, bytes) = (engine.calls(), engine.written());
        let mark = Mark { ticket, calls, bytes, updates: engine.settled_updates() };
        match self.marks.last_mut() {
            Some(last) if last.ticket == ticket => *last = mark,
            _ => {
                if self.marks.len() == MARKS {
                    self.marks.remove(0);
                }
                self.marks.push(mark);
            }
        }
    }

    /// Tells the engine what the kernel has seen. Returns whether that is new.
    pub fn tell(&mut self, engine: &mut Log) -> bool {
        // In this order: a failure is counted before anything is proved beside it.
        let proved = self.claimed.get(Word::Proved);
        let (failed, errno) = (self.claimed.get(Word::Failed), self.errno());
        if !self.is_ours() {
            return false;
        }
        if failed != self.failed {
            let news = engine.error().is_none();
            engine.fail(errno);
            return news;
        }
        let mark = self.marks.iter().rev().find(|mark| mark.ticket < proved);
        mark.is_some_and(|mark| engine.witness(mark.calls, mark.bytes, mark.updates))
    }

    /// The error of the last failure.
    fn errno(&self) -> Errno {
        let errno = Errno::try_from(self.claimed.get(Word::Errno)).unwrap_or(0);
        if (1..4096).contains(&errno) { errno } else { libc::EIO }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.is_ours() {
            self.claimed.free();
        }
    }
}
