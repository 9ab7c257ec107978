//! A policy that is loaded, seen from its loader: it vouches for it, reads what its programs write, and ends it.

use crate::calls::{Calls, Fd};
use crate::pins::Pin;
use crate::session::Session;
use durac_abi::Hook;
use durac_abi::notify::count;
use durac_abi::session::{self, OfHook, WORD_ID, WORD_OTHER, WORD_UNTIL};
use durac_abi::uring::{Mode, Word};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the programs go on without a word of the loader. Long enough for a loader that gets no processor for
/// a while; until then a target that is started after the loader was killed runs under its policy.
pub const VOUCHED: Duration = Duration::from_secs(5);
/// How long the end waits for a call that takes home what is in flight.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);

/// The maps of a policy in memory, and what it holds open.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: u64,
    pub(crate) session: (Fd, &'static [AtomicU64]),
    /// The words of the ring among the state, and the map of the count, of a policy that starts syncs.
    pub(crate) ring: Option<Ring>,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) attached: Vec<Fd>,
    pub(crate) pin: Option<Pin>,
}

#[derive(Debug)]
pub(crate) struct Ring {
    /// From [`Word::Mode`] on.
    pub(crate) words: &'static [AtomicU64],
    pub(crate) syncs: Fd,
}

/// What the programs have written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Process and thread that called first, as the target numbers them.
    pub owner: Option<(u64, u64)>,
    /// The hook that another thread of that process has called, and the thread.
    pub thread: Option<(Hook, u64)>,
    /// Another process that called.
    pub other: Option<u64>,
    /// Calls for which the policy ran.
    pub calls: u64,
    /// Of a policy that starts syncs.
    pub ring: Option<RingSeen>,
}

impl Seen {
    /// The same without what changes with each call.
    #[must_use]
    pub fn quiet(&self) -> Self {
        let ring = self.ring.map(|ring| RingSeen { mode: ring.mode, started: 0, pending: 0 });
        Self { calls: 0, ring, ..self.clone() }
    }
}

/// What the programs have written of their syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSeen {
    /// What they do.
    pub mode: Option<Mode>,
    /// Syncs that were started.
    pub started: u64,
    /// Calls that are not known to be durable.
    pub pending: u64,
}

/// How a policy ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It is in force nowhere, and nothing is left.
    Clean,
    /// A target has syncs in flight, and has not called since: the count goes on until that is done.
    Pinned(PathBuf),
}

fn read(words: &[AtomicU64], word: usize) -> u64 {
    words.get(word).map_or(0, |word| word.load(Ordering::Acquire))
}

/// The monotonic clock, as `bpf_ktime_get_ns` gives it.
fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Live {
    /// Vouches for the policy for a while more. Not if its map is gone: another loader has cleared the session.
    pub(crate) fn vouch(&self) -> bool {
        let mut values = [0; session::WORDS];
        let there = Calls::look_up(self.session.0, &mut values).is_ok()
            && values.get(WORD_ID) == Some(&self.id);
        if there {
            self.set_until(now() + VOUCHED.as_nanos() as u64);
        }
        there
    }

    fn set_until(&self, until: u64) {
        self.session
            .1
            .get(WORD_UNTIL)
            .into_iter()
            .for_each(|word| word.store(until, Ordering::Release));
    }

    pub(crate) fn seen(&self) -> Seen {
        let words = self.session.1;
        let of = |hook: Hook, of: OfHook| read(words, session::word(hook, of));
        let split = |both: u64| (both >> 32, both & 0xffff_ffff);
        let mut owners = self.hooks.iter().map(|hook| of(*hook, OfHook::Owner));
        let mut owner = owners.find(|owner| *owner != 0).map(split);
        let mut threads = self.hooks.iter().map(|hook| (*hook, of(*hook, OfHook::Thread)));
        let thread = threads.find(|(_, thread)| *thread != 0);
        let ring = self.ring.as_ref().map(|ring| {
            let mut syncs = [0; count::VALUE as usize / 8];
            // The process comes into this map first.
            if Calls::look_up(ring.syncs, &mut syncs).is_ok() {
                let [process, ..] = syncs;
                owner = owner.or((process != 0).then_some((process, process)));
            }
            let word = |word: Word| read(ring.words, word as usize);
            RingSeen {
                mode: Mode::from_number(word(Word::Mode)),
                started: word(Word::Started),
                pending: word(Word::Calls).saturating_sub(word(Word::Durable)),
            }
        });
        Seen {
            owner,
            thread: thread.map(|(hook, thread)| (hook, split(thread).1)),
            other: Some(split(read(words, WORD_OTHER)).0).filter(|other| *other != 0),
            calls: self.hooks.iter().map(|hook| of(*hook, OfHook::Calls)).sum(),
            ring,
        }
    }

    /// Takes the policy out of force: every call from now on runs as the application makes it, the first of them
    /// after it has waited for what is in flight and compared. Then nothing is left for a later target.
    pub(crate) fn end(self, session: &Session, target_lives: &dyn Fn() -> bool) -> End {
        self.set_until(0);
        let deadline = Instant::now() + PATIENCE;
        let flies =
            || self.ring.as_ref().is_some_and(|ring| read(ring.words, Word::Out as usize) != 0);
        while flies() && target_lives() && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        session.remove_memory();
        // BPFtime clears what it sees closed. The maps stay: a call may be inside. They go with the memory.
        for fd in self.attached.iter().rev() {
            // SAFETY: made by this loader, and used by nothing else in it.
            unsafe { libc::close(fd.number()) };
        }
        match self.pin {
            Some(pin) if flies() && target_lives() => End::Pinned(pin.path().to_owned()),
            Some(pin) => {
                pin.remove();
                End::Clean
            }
            None => End::Clean,
        }
    }
}
