//! How a tool asks a running agent to exchange its policy, to switch it off, or on again.
//!
//! It lies behind the status page, in the same sealed memory: only root and the process' user can write
//! there. A tool stores a command, with the bytes of an object, and changes one word; the agent looks at that
//! word between calls, takes the command, and answers. One tool at a time: the memory's lock (`flock`) is
//! the tool's, and the system lets go of it if the tool dies.
//!
//! A tool that waits counts, and a command whose tool does not count any more is withdrawn: a tool that was interrupted has
//! changed nothing later.
//!
//! The agent trusts nothing here: it copies the bytes before it reads them, and admits them like any object.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes of an object that fit, at most.
pub const INBOX: usize = 256 << 10;
/// Words of an answer: 2,048 bytes.
const TEXT: usize = 256;
/// Between two looks at the answer.
const NAP: Duration = Duration::from_millis(2);
/// Looks after which a tool whose counter has not changed is taken for ended.
const NAPS: u32 = 150;
/// An agent that has taken a command answers within this time, or never.
const ANSWERS: Duration = Duration::from_secs(60);

/// The phase of a command: the lowest bits of the word.
const PHASE: u64 = 3;
const IDLE: u64 = 0;
const ASKED: u64 = 1;
const TAKEN: u64 = 2;
const DONE: u64 = 3;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Put the policy of this object in the place of the one that runs.
    Reload,
    /// Run every call as the application makes it, from the next on.
    Off,
    /// Bring the policy back that was switched off.
    On,
    /// Say that parameters were changed on the page.
    Tell,
    /// Have the program of this path take over from a supervisor.
    Upgrade,
}

impl Command {
    const ALL: [Self; 5] = [Self::Reload, Self::Off, Self::On, Self::Tell, Self::Upgrade];

    fn code(self) -> u64 {
        self as u64 + 1
    }

    fn of_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.code() == code)
    }
}

/// The layout. All zero is valid.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct ControlPage {
    /// The number of the last command and its phase.
    state: AtomicU64,
    command: AtomicU64,
    length: AtomicU64,
    refused: AtomicU64,
    text: [AtomicU64; TEXT],
    bytes: [AtomicU64; INBOX / 8],
    /// Counted up by the tool that waits.
    beat: AtomicU64,
}

/// A command as the agent takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number.
    number: u64,
    /// What is asked; none if this version does not know it.
    pub command: Option<Command>,
    /// What belongs to it, copied.
    pub bytes: Vec<u8>,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was carried out; what there is to tell.
    Done(String),
    /// It was refused, and nothing has changed; why.
    Refused(String),
    /// It was carried out, and what was acknowledged before is not durable; why.
    Failed(String),
}

impl ControlPage {
    /// Whether a command waits.
    #[inline]
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.state.load(Ordering::Relaxed) & PHASE == ASKED
    }

    /// Takes the command that waits, and whose tool does. Until it is answered there is no other.
    #[must_use]
    pub fn take(&self) -> Option<Request> {
        let state = self.state.load(Ordering::Acquire);
        if state & PHASE == ASKED && !self.is_awaited() {
            self.withdraw(state);
            return None;
        }
        self.take_now()
    }

    /// Whether a tool waits for an answer.
    fn is_awaited(&self) -> bool {
        let before = self.beat.load(Ordering::Relaxed);
        (0..NAPS).any(|_| {
            std::thread::sleep(NAP);
            self.beat.load(Ordering::Relaxed) != before
        })
    }

    /// Takes back a command that nobody has taken. Returns whether it was still there.
    fn withdraw(&self, asked: u64) -> bool {
        let idle = asked & !PHASE | IDLE;
        self.state.compare_exchange(asked, idle, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn take_now(&self) -> Option<Request> {
        let state = self.state.load(Ordering::Acquire);
        let taken = state & !PHASE | TAKEN;
        if state & PHASE != ASKED
            || self
                .state
                .compare_exchange(state, taken, Ordering::AcqRel, Ordering::Relaxed)
                .is_err()
        {
            return None;
        }
        let length = usize::try_from(self.length.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let words = self.bytes.iter().map(|word| word.load(Ordering::Relaxed).to_le_bytes());
        let bytes = words.flatten().take(length.min(INBOX)).collect();
        let command = Command::of_code(self.command.load(Ordering::Relaxed));
        Some(Request { number: state, command, bytes })
    }

    /// Answers a command that was taken.
    pub fn answer(&self, request: &Request, answer: &Answer) {
        let (refused, text) = match answer {
            Answer::Done(text) => (0, text),
            Answer::Refused(text) => (1, text),
            Answer::Failed(text) => (2, text),
        };
        self.refused.store(refused, Ordering::Relaxed);
        store(&self.text, text.as_bytes());
        self.state.store(request.number & !PHASE | DONE, Ordering::Release);
    }

    /// Asks, and waits for the answer, or until `is_over`: then there is none.
    fn ask(
        &self,
        command: Command,
        bytes: &[u8],
        patience: Duration,
        mut is_over: impl FnMut() -> bool,
    ) -> io::Result<Option<Answer>> {
        if bytes.len() > INBOX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // A tool that died may have left a command behind that the agent works on.
        self.wait(ANSWERS, |phase| phase != TAKEN, &mut is_over)?;
        let number = (self.state.load(Ordering::Acquire) | PHASE).wrapping_add(1);
        self.command.store(command.code(), Ordering::Relaxed);
        self.length.store(bytes.len() as u64, Ordering::Relaxed);
        store(&self.bytes, bytes);
        let begun = Instant::now();
        loop {
            self.state.store(number | ASKED, Ordering::Release);
            let left = patience.saturating_sub(begun.elapsed());
            if let Err(error) = self.wait(left, |phase| phase != ASKED, &mut is_over)
                && self.withdraw(number | ASKED)
            {
                return Err(error);
            }
            // On a busy machine the agent may have taken a tool for dead that has only waited to run.
            if self.state.load(Ordering::Acquire) != number | IDLE {
                break;
            }
        }
        if !self.wait(ANSWERS, |phase| phase == DONE, &mut is_over)? {
            return Ok(None);
        }
        let text = self.text.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes());
        let text: Vec<u8> = text.take_while(|byte| *byte != 0).collect();
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(Some(match self.refused.load(Ordering::Relaxed) {
            0 => Answer::Done(text),
            2 => Answer::Failed(text),
            _ => Answer::Refused(text),
        }))
    }

    /// Waits. False if it is over before.
    fn wait(
        &self,
        patience: Duration,
        is_so: impl Fn(u64) -> bool,
        is_over: &mut impl FnMut() -> bool,
    ) -> io::Result<bool> {
        let begun = Instant::now();
        while !is_so(self.state.load(Ordering::Acquire) & PHASE) {
            if is_over() {
                return Ok(false);
            }
            if begun.elapsed() > patience {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.beat.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(NAP);
        }
        Ok(true)
    }
}

/// Stores bytes, and a zero behind them if there is room.
fn store(words: &[AtomicU64], bytes: &[u8]) {
    let mut bytes = bytes.iter().copied();
    for word in words.iter().take(bytes.len() / 8 + 1) {
        let chunk: [u8; 8] = std::array::from_fn(|_| bytes.next().unwrap_or(0));
        word.store(u64::from_le_bytes(chunk), Ordering::Relaxed);
    }
}

/// A tool's way to a process' [`ControlPage`], which it has for itself.
#[derive(Debug)]
pub struct Control {
    page: super::file::Mapped,
}

impl Control {
    pub(super) fn new(page: super::file::Mapped) -> Self {
        Self { page }
    }

    /// When the program began whose page this is: another one in the same process has another page.
    #[must_use]
    pub fn since(&self) -> u64 {
        self.page.status().page().since()
    }

    /// Asks the agent, and waits for it. A command that the agent has not taken by the end of `patience` is
    /// withdrawn.
    ///
    /// # Errors
    /// `TimedOut` if the process made no call meanwhile, or does not answer; `FileTooLarge` if the bytes do not
    /// fit ([`INBOX`]).
    pub fn ask(&self, command: Command, bytes: &[u8], patience: Duration) -> io::Result<Answer> {
        let answer = self.page.control().ask(command, bytes, patience, || false)?;
        answer.ok_or_else(|| io::ErrorKind::TimedOut.into())
    }

    /// The same, until `is_over`: the process may have become one that does not know of this command. None then.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub fn ask_until(
        &self,
        command: Command,
        bytes: &[u8],
        patience: Duration,
        is_over: impl FnMut() -> bool,
    ) -> io::Result<Option<Answer>> {
        self.page.control().ask(command, bytes, patience, is_over)
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Command, ControlPage, INBOX};
    use std::io;
    use std::time::Duration;

    fn page() -> Box<ControlPage> {
        let layout = std::alloc::Layout::new::<ControlPage>();
        // SAFETY: the layout is not empty, and all zero is a valid page.
        unsafe { Box::from_raw(std::alloc::alloc_zeroed(layout).cast()) }
    }

    const SHORT: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_command_is_taken_once_and_answered() {
        let page = page();
        let object: Vec<u8> = (0..1001_u32).map(|n| n as u8).collect();
        for round in 0..3 {
            std::thread::scope(|scope| {
                let asker = scope.spawn(|| page.ask(Command::Reload, &object, LONG, || false));
                let request = loop {
                    match page.take() {
                        Some(request) => break request,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(request.command, Some(Command::Reload));
                assert_eq!(request.bytes, object);
                assert!(page.take().is_none() && !page.is_asked());
                let answer = match round {
                    0 => Answer::Done("ü".repeat(600)),
                    1 => Answer::Refused("no".into()),
                    _ => Answer::Done(String::new()),
                };
                page.answer(&request, &answer);
                assert_eq!(asker.join().ok().and_then(Result::ok), Some(Some(answer)));
            });
        }
    }

    #[test]
    fn a_command_that_nobody_takes_is_withdrawn() {
        let page = page();
        let kind = |result: io::Result<Option<Answer>>| result.map_err(|error| error.kind());
        assert_eq!(
            kind(page.ask(Command::Off, &[], SHORT, || false)),
            Err(io::ErrorKind::TimedOut)
        );
        assert!(page.take().is_none());
        let large = vec![0; INBOX + 1];
        assert_eq!(
            kind(page.ask(Command::Reload, &large, SHORT, || false)),
            Err(io::ErrorKind::FileTooLarge)
        );
    }

    /// As when it was interrupted.
    #[test]
    fn a_command_whose_tool_has_ended_is_withdrawn() {
        let page = page();
        page.command.store(Command::Off.code(), super::Ordering::Relaxed);
        page.state.store(4 | super::ASKED, super::Ordering::Relaxed);
        assert!(page.is_asked() && page.take().is_none() && !page.is_asked());
        // The next one is not touched.
        std::thread::scope(|scope| {
            let asker = scope.spawn(|| page.ask(Command::On, &[], LONG, || false));
            let request = loop {
                match page.take() {
                    Some(request) => break request,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(request.command, Some(Command::On));
            page.answer(&request, &Answer::Done(String::new()));
            assert!(asker.join().is_ok_and(|answer| answer.is_ok()));
        });
    }

    /// A tool that could not run for a while asks again.
    #[test]
    fn a_tool_that_was_taken_for_dead_asks_again() {
        let page = page();
        std::thread::scope(|scope| {
            let asker = scope.spawn(|| page.ask(Command::Off, &[], LONG, || false));
            let mut withdrawn = 0;
            let request = loop {
                let state = page.state.load(super::Ordering::Acquire);
                if state & super::PHASE == super::ASKED && withdrawn < 3 {
                    withdrawn += u32::from(page.withdraw(state));
                }
                if withdrawn < 3 {
                    continue;
                }
                match page.take_now() {
                    Some(request) => break request,
                    None => std::thread::yield_now(),
                }
            };
            page.answer(&request, &Answer::Refused("no".into()));
            let answer = asker.join().ok().and_then(Result::ok);
            assert_eq!(answer, Some(Some(Answer::Refused("no".into()))));
        });
    }

    #[test]
    fn a_command_is_over_when_its_process_has_become_another() {
        let page = page();
        std::thread::scope(|scope| {
            let asker = scope.spawn(|| {
                let mut is_taken = || page.state.load(super::Ordering::Acquire) & 3 == super::TAKEN;
                page.ask(Command::Upgrade, b"/usr/bin/durac", LONG, &mut is_taken)
            });
            while page.take().is_none() {
                std::thread::yield_now();
            }
            assert_eq!(asker.join().ok().and_then(Result::ok), Some(None));
        });
    }

    #[test]
    fn what_others_write_is_bounded() {
        let page = page();
        for word in [&page.command, &page.length] {
            word.store(u64::MAX, super::Ordering::Relaxed);
        }
        page.state.store(u64::MAX - 2, super::Ordering::Relaxed);
        let request = page.take_now();
        assert!(request.is_some_and(|r| r.bytes.len() == INBOX && r.command.is_none()));
    }
}
