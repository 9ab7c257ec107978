//! Answers the calls of the command: the supervisor's process.

use crate::call::{self, Call};
use crate::clock;
use crate::crew::Crew;
use crate::fault_injection::{Fault, injects};
use crate::filter::{self, Asked, Flags, Kind, MAKES, Open};
use crate::handover::flag;
use crate::keeper::{self, Keeper};
use crate::load::Policy;
use crate::logs::{Logs, Mounts};
use crate::note;
use crate::notify::{self, Answer, Notification};
use crate::opens::{Found, Opening};
use crate::page::{self, Force, Off, Page};
use crate::process::{self, Callers};
use crate::record;
use crate::shared::Shared;
use crate::start::describe;
use crate::writes::Unended;
use durac_abi::Layout;
use durac_engine::Errno;
use libc::{POLLERR, POLLHUP, POLLIN, POLLPRI, pollfd};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Between two looks for commands, milliseconds.
const LOOK: i32 = 200;
/// Between two looks at logs that are closed.
const SWEEP: Duration = Duration::from_secs(1);

/// What the first call returns if the caller's open files cannot be taken, unless descriptors or memory are short. Another
/// error than that of a call that nobody answers.
pub const UNSEEN: Errno = libc::EPERM;

/// The supervisor of this process.
pub struct Supervisor {
    /// What the kernel asks through.
    pub listener: OwnedFd,
    /// The policy. It is exchanged with the locks of all logs held: who holds one reads the policy by whose rules
    /// that log goes. Never freed.
    policy: AtomicPtr<Policy>,
    /// What the kernel asks about, for the command's whole life.
    pub asked: Asked,
    /// The logs.
    pub logs: Logs,
    /// What was mounted before the command.
    pub mounts: Mounts,
    /// Who may ask.
    pub callers: Callers,
    /// Files that are being opened.
    pub opening: Opening,
    /// Writes that are under way.
    pub unended: Unended,
    /// The process that became the command, once it has called.
    pub command: AtomicU32,
    /// The threads that answer.
    pub crew: &'static Crew,
    /// What the keeper knows.
    pub shared: &'static Shared,
    /// What `durac top` shows.
    pub page: Page,
    /// Nothing is deferred any more.
    pub is_off: AtomicBool,
    /// And never will be again: something happened that cannot be ordered behind the logs.
    stays_off: AtomicBool,
    /// The same happened, and the policy of then defers nothing that would have to be.
    pub is_unordered: AtomicBool,
    /// A log is mapped to be written.
    pub is_mapped: AtomicBool,
    /// The policy is about to be exchanged: calls are the command's own until it is.
    pub is_changing: AtomicBool,
    /// Writes are not looked for: `durac off`.
    is_blind: AtomicBool,
    told_ring: AtomicBool,
    /// A process of the command does not show what it has open, which was told.
    is_unseen: AtomicBool,
    /// It was told that no descriptor was left to look at it.
    told_short: AtomicBool,
}

/// What a supervisor is made of.
pub struct Parts {
    /// What the kernel asks through.
    pub listener: OwnedFd,
    /// What it asks about.
    pub asked: Asked,
    /// The policy.
    pub policy: Policy,
    /// What `durac top` shows.
    pub page: Page,
    /// What the keeper knows.
    pub shared: &'static Shared,
}

static SUPERVISOR: OnceLock<Supervisor> = OnceLock::new();
static CREW: Crew = Crew::new(lead);

/// The work of the thread that leads: receives calls and answers them.
fn lead(thread: usize) {
    let Some(supervisor) = SUPERVISOR.get() else { return };
    while CREW.leads() {
        match CREW.receives(|| notify::receive(supervisor.listener.as_raw_fd())) {
            Ok(call) => {
                supervisor.shared.received(thread, call.id);
                supervisor.answer(&call);
                supervisor.shared.answered(thread);
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // The caller of one call was killed, or every process is gone and the main thread ends this one.
                _ => std::thread::sleep(Duration::from_micros(50)),
            },
        }
    }
}

impl Supervisor {
    /// The supervisor of this process.
    pub fn new(parts: Parts) -> &'static Self {
        let Parts { listener, asked, policy, page, shared } = parts;
        SUPERVISOR.get_or_init(|| Self {
            listener,
            asked,
            policy: AtomicPtr::new(Box::into_raw(Box::new(policy))),
            logs: Logs::default(),
            mounts: Mounts::new(),
            callers: Callers::default(),
            opening: Opening::default(),
            unended: Unended::default(),
            command: AtomicU32::new(0),
            crew: &CREW,
            shared,
            page,
            is_off: AtomicBool::new(false),
            stays_off: AtomicBool::new(false),
            is_unordered: AtomicBool::new(false),
            is_mapped: AtomicBool::new(false),
            is_changing: AtomicBool::new(false),
            is_blind: AtomicBool::new(false),
            told_ring: AtomicBool::new(false),
            is_unseen: AtomicBool::new(false),
            told_short: AtomicBool::new(false),
        })
    }

    /// What has happened, for a program that takes over, with the bit that says so.
    pub fn switches(&self) -> [(u64, &AtomicBool); 7] {
        [
            (flag::OFF, &self.is_off),
            (flag::STAYS_OFF, &self.stays_off),
            (flag::UNORDERED, &self.is_unordered),
            (flag::MAPPED, &self.is_mapped),
            (flag::BLIND, &self.is_blind),
            (flag::TOLD_RING, &self.told_ring),
            (flag::UNSEEN, &self.is_unseen),
        ]
    }

    /// The policy.
    #[inline]
    pub fn policy(&self) -> &'static Policy {
        // SAFETY: a policy that was leaked.
        unsafe { &*self.policy.load(Ordering::SeqCst) }
    }

    /// Sets it.
    pub fn exchange_policy(&self, policy: &'static Policy) {
        self.policy.store(std::ptr::from_ref(policy).cast_mut(), Ordering::SeqCst);
    }

    /// Whether the policy may defer anything now.
    #[inline]
    pub fn defers(&self) -> bool {
        // `durac on` may come at the same time as what turns it off for good.
        let is_off = self.is_off.load(Ordering::Acquire) || self.stays_off();
        !is_off && !self.is_changing.load(Ordering::Acquire)
    }

    /// Whether it never will again.
    pub fn stays_off(&self) -> bool {
        self.stays_off.load(Ordering::SeqCst)
    }

    /// Answers a call. A bug here is not the command's: its call then runs as it was made, after what is deferred.
    fn answer(&'static self, call: &Notification) {
        let body = std::panic::AssertUnwindSafe(|| record::asked(call, || self.decide(call)));
        let ordered = std::panic::AssertUnwindSafe(|| self.after_a_bug(call));
        let answer = std::panic::catch_unwind(body)
            .or_else(|_| std::panic::catch_unwind(ordered))
            .unwrap_or(Answer::Continue);
        notify::send(self.listener.as_raw_fd(), call.id, answer);
    }

    /// A call whose answer has ended by a panic. If it is a sync call of a log that has failed, it must not run: the system
    /// returns an error once for each open file, and may have returned it already.
    fn after_a_bug(&'static self, call: &Notification) -> Answer {
        let kind = filter::kind(call.arch, call.number, false);
        if matches!(kind, Some(Kind::Fsync | Kind::Fdatasync))
            && let Ok(opened) = self.opened(call, call.descriptor(0))
            && let Some(slot) = self.logs.get(opened.facts.id)
        {
            let failed = slot.lock().engine.error();
            if let Some(errno) = failed {
                return Answer::Return(Err(errno));
            }
        }
        self.after_the_logs(call)
    }

    fn decide(&'static self, call: &Notification) -> Answer {
        if self.policy().rules.keeps_amounts {
            self.unended.seen(call.thread);
        }
        if self.command.load(Ordering::Relaxed) == 0
            && let Err(errno) = self.begin(call)
        {
            return Answer::Return(Err(errno));
        }
        let writes = self.asked.writes || record::asks_about_writes();
        match filter::kind(call.arch, call.number, writes) {
            Some(Kind::Fdatasync) => self.sync(call, false),
            Some(Kind::Fsync) => self.sync(call, true),
            Some(Kind::Order) if injects(Fault::NoOrder) => Answer::Continue,
            Some(Kind::Length(_) | Kind::Change | Kind::Submit)
                if injects(Fault::NoOrderOfLengths) =>
            {
                Answer::Continue
            }
            Some(Kind::Open(_)) if injects(Fault::NoOrderOfOpens) => Answer::Continue,
            Some(Kind::Exit) if injects(Fault::NoOrderOfEnds) => Answer::Continue,
            Some(Kind::Order) => {
                let answer = self.after_the_logs(call);
                self.logs.names_change();
                answer
            }
            Some(Kind::Length(fd)) => self.length_changes(call, fd),
            Some(kind @ (Kind::Change | Kind::Submit)) => {
                self.logs_change(call);
                let is_ring = self.policy().meta.layout == Layout::Ring;
                if kind == Kind::Submit && is_ring {
                    self.turn_off(
                        "io_submit may write at the beginning of a log at any later time",
                    );
                }
                self.after_the_logs(call)
            }
            Some(Kind::Open(open)) => self.open(call, open),
            Some(Kind::Ring) => self.refuse_ring(),
            Some(Kind::Write(write)) => {
                let answer = self.write(call, write);
                self.record_write(call, write, answer);
                answer
            }
            Some(Kind::Map(map)) => self.map(call, map),
            Some(Kind::Exit) => self.exit(call),
            None => Answer::Continue,
        }
    }

    /// The first call is made by what becomes the command, which has one thread, on no descriptor. It may have logs open
    /// already.
    fn begin(&'static self, call: &Notification) -> Result<(), Errno> {
        if let Err(errno) = self.opened(call, call.descriptor(0))
            && errno != libc::EBADF
        {
            return Err(if process::is_short(errno) { errno } else { UNSEEN });
        }
        self.command.store(call.thread, Ordering::Relaxed);
        // What the command prints, and its end, come after the line.
        note::info(&describe(self.policy(), Force::WHOLE));
        self.page.status.publish_served(call.thread, clock::of(libc::CLOCK_BOOTTIME));
        if self.asked.opens {
            self.search(call.thread, clock::now());
        }
        Ok(())
    }

    /// A process ends. It cannot be told of an error.
    fn exit(&'static self, call: &Notification) -> Answer {
        if self.asked.opens {
            let process = self.callers.process(&self.listener, call).map(|process| process.number);
            if process.is_some() {
                self.search_before_exit(process);
            }
            // The others leave what they wrote to the deadline, which outlives them.
            let is_command = process == Some(self.command.load(Ordering::Relaxed));
            if !self.policy().defers_syncs() && !is_command {
                return Answer::Continue;
            }
        }
        let _ = self.logs.drain_others(None, None);
        Answer::Continue
    }

    /// The length of a file changes, or what is in it: how much of it is written is not known any more, if it is a log, nor
    /// whether this is its beginning.
    fn length_changes(&'static self, call: &Notification, fd: usize) -> Answer {
        let policy = self.policy();
        let is_ring = policy.meta.layout == Layout::Ring;
        if policy.rules.keeps_amounts || is_ring || record::is_on() {
            match self.opened(call, call.descriptor(fd)) {
                Ok(opened) => {
                    if let Some(slot) = self.logs.get(opened.facts.id) {
                        if policy.rules.keeps_amounts {
                            slot.lock().engine.lose_bytes();
                        }
                        if is_ring {
                            slot.starts_again(call);
                        }
                        self.record_length(&slot);
                    }
                }
                // The call fails.
                Err(libc::EBADF) => {}
                Err(errno) => {
                    self.tell_unseen(errno);
                    self.logs_change(call);
                }
            }
        }
        self.after_the_logs(call)
    }

    fn sync(&'static self, call: &Notification, full: bool) -> Answer {
        let opened = match self.opened(call, call.descriptor(0)) {
            Ok(opened) => opened,
            // Not open, or not for us to see: the kernel says what it is.
            Err(errno) => {
                self.tell_unseen(errno);
                return self.after_the_logs(call);
            }
        };
        let (file, process) = (&opened.file, opened.process);
        while let Some(slot) = self.logs.synced(self, file, opened.facts, process) {
            opened.is_of_log();
            // Its server may hang all the same.
            if slot.asks.load(Ordering::Relaxed) {
                self.crew.may_block();
            }
            let Ok(meta) = file.metadata() else { return self.after_the_logs(call) };
            let thread = call.thread;
            let call = Call { file, meta: &meta, full, process, thread };
            if let Some(result) = call::sync(&slot, &call) {
                return Answer::Return(result.map(|()| 0));
            }
        }
        self.ordered(self.logs.drain_others(None, Some(process)))
    }

    /// Tells once of a process whose open files cannot be taken, though it is there and has them. What it writes is not
    /// looked for.
    pub fn tell_unseen(&self, errno: Errno) {
        let told = match errno {
            libc::EBADF | libc::ESRCH => return,
            _ if process::is_short(errno) => &self.told_short,
            _ => &self.is_unseen,
        };
        if told.load(Ordering::SeqCst) {
            return;
        }
        let before = self.summary();
        if told.swap(true, Ordering::SeqCst) {
            return;
        }
        let why = std::io::Error::from_raw_os_error(errno);
        let mut line = format!(
            "the open files of a process of the command cannot be taken ({why}; ptrace_scope, another user, or a system call filter?): its syncs run as it calls them"
        );
        // A search that had no descriptor is repeated.
        if self.policy().rules.defers_writes && !process::is_short(errno) {
            self.publish_force();
            line.push_str(&format!(
                ", and its writes have no deadline; {before} → {}",
                self.summary()
            ));
        }
        note::info(&line);
    }

    /// A name could not be followed: tells if that is because the caller does not show its files.
    pub fn tell_hidden(&self, call: &Notification) {
        let errno = match call.thread {
            // Of a pid namespace that this one does not see.
            0 => libc::EPERM,
            thread => match std::fs::read_dir(format!("/proc/{thread}/fd")) {
                Ok(_) => return,
                Err(error) => process::errno_of(&error),
            },
        };
        // Then it is there, and not shown (`hidepid`).
        if notify::is_valid(&self.listener, call.id) {
            let is_there = matches!(errno, libc::ENOENT | libc::ESRCH);
            self.tell_unseen(if is_there { libc::EPERM } else { errno });
        }
    }

    /// Tells if a process does not show its files.
    pub fn tell_denied(&self, error: &std::io::Error) {
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            self.tell_unseen(process::errno_of(error));
        }
    }

    /// A call that comes after what the logs have deferred.
    pub fn after_the_logs(&self, call: &Notification) -> Answer {
        if !self.logs.are_dirty() {
            return Answer::Continue;
        }
        let process = self.callers.process(&self.listener, call);
        self.ordered(self.logs.drain_others(None, process))
    }

    /// The same behind [`Supervisor::turn_off`]: another thread may still drain for the same reason, or have failed to.
    pub fn after_all_logs(&self, call: &Notification) -> Answer {
        let process = self.callers.process(&self.listener, call);
        self.ordered(self.logs.drain_all(process))
    }

    /// What a call does that came after the logs.
    pub fn ordered(&self, drained: Result<(), Errno>) -> Answer {
        match drained {
            Ok(()) => Answer::Continue,
            Err(_) if injects(Fault::DespiteError) => Answer::Continue,
            Err(errno) => Answer::Return(Err(errno)),
        }
    }

    /// A file is made or truncated: it may be the next log. One whose writes are durable by themselves cannot be
    /// ordered behind the logs where writes are not seen: nothing is deferred from then on.
    fn open(&'static self, call: &Notification, open: Open) -> Answer {
        let asked = self.asked;
        let flags = match open.flags {
            Flags::Creates => Some(MAKES),
            Flags::Argument(index) => Some(call.argument(index)),
            Flags::Unseen => None,
        };
        let durable = flags.is_some_and(|flags| flags & filter::DURABLE != 0);
        if durable && !asked.writes {
            self.turn_off("a file is opened with O_SYNC or O_DSYNC: its writes cannot be kept behind the logs");
        }
        let makes = flags.is_none_or(|flags| flags & MAKES != 0);
        if !asked.opens {
            return self.after_the_logs(call);
        }
        let truncates = flags.is_none_or(|flags| flags & libc::O_TRUNC as u64 != 0);
        let waits = durable || truncates || makes && self.policy().defers_syncs();
        // Before the file is looked up: a log that was found could be given up while the call waits.
        let ordered = waits.then(|| self.after_the_logs(call));
        // What is there already, and what is no log, has nothing to wait for.
        match (ordered, self.opens(call, open, makes)) {
            (Some(answer), _) => answer,
            (None, Found::Unknown) if makes => self.after_the_logs(call),
            (None, _) => Answer::Continue,
        }
    }

    fn refuse_ring(&self) -> Answer {
        if !self.told_ring.swap(true, Ordering::Relaxed) {
            note::info(
                "io_uring is refused under the supervisor (ENOSYS): its syncs could not be seen",
            );
        }
        Answer::Return(Err(libc::ENOSYS))
    }

    /// Until no process of the command is left: signals, the keeper, logs that are closed.
    pub fn look_after(&'static self, signals: &OwnedFd, us: RawFd, first: Keeper) {
        let mut keeper = Some(first);
        let mut swept = Instant::now();
        loop {
            let watched = keeper.as_ref().map_or(-1, Keeper::as_raw_fd);
            let mut polled = [
                pollfd { fd: self.listener.as_raw_fd(), events: 0, revents: 0 },
                pollfd { fd: watched, events: POLLIN, revents: 0 },
                pollfd { fd: signals.as_raw_fd(), events: POLLIN, revents: 0 },
                pollfd { fd: self.mounts.as_raw_fd(), events: POLLPRI, revents: 0 },
            ];
            // SAFETY: four entries.
            unsafe { libc::poll(polled.as_mut_ptr(), 4, LOOK) };
            let [calls, kept, signal, mounts] = polled;
            if mounts.revents & (POLLPRI | POLLERR) != 0 {
                self.mounts.forget_gone();
            }
            if calls.revents & POLLHUP != 0 {
                self.search_before_exit(None);
                self.sync_without_room();
                self.end();
                return;
            }
            if kept.revents & POLLIN != 0 {
                keeper = self.replace_keeper(us, keeper);
            }
            if signal.revents & POLLIN != 0 {
                match take_signal(signals) {
                    Some(libc::SIGUSR2) => self.upgrade_in_place(keeper.as_ref()),
                    Some(_) => self.turn_off("a signal"),
                    None => {}
                }
            }
            self.look_for_commands(keeper.as_ref());
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                self.unended.sweep();
                self.logs.sweep(keeper.as_ref().map(|keeper| keeper.pid), self.asked.opens);
            }
        }
    }

    /// The command has ended. Nobody is left whose call could return an error: it is told on stderr.
    fn end(&self) {
        let failed =
            || self.logs.all().iter().filter(|slot| slot.lock().engine.error().is_some()).count();
        let before = failed();
        let _ = self.logs.drain_others(None, None);
        if failed() > before {
            note::error("the command has ended, and a sync of what it had deferred failed");
        }
        self.shared.ends();
    }

    fn replace_keeper(&self, us: RawFd, dead: Option<Keeper>) -> Option<Keeper> {
        if let Some(dead) = dead {
            keeper::dismiss(dead.pid);
        }
        match keeper::start(self.listener.as_raw_fd(), us, self.shared) {
            Ok(keeper) => Some(keeper),
            Err(error) => {
                note::error(&format!(
                    "no keeper: {error}; if the supervisor is killed, sync calls of the command fail with ENOSYS"
                ));
                None
            }
        }
    }

    /// `durac off`.
    ///
    /// # Errors
    /// That of a log that has failed: the policy is off, and what that log has acknowledged is not durable.
    pub fn switch_off(&self) -> Result<(), Errno> {
        let before = self.summary();
        let (_, drained) = self.drop_policy();
        self.is_blind.store(true, Ordering::Release);
        self.publish_force();
        self.tell_off(&before, "`durac off`", drained);
        drained
    }

    /// The policy is on, unless something has turned it off by itself.
    pub fn switch_on(&self) {
        self.is_blind.store(false, Ordering::Release);
        self.is_off.store(false, Ordering::SeqCst);
        if self.stays_off() {
            self.is_off.store(true, Ordering::SeqCst);
        }
    }

    /// `durac on`. What has turned the policy off by itself stays.
    pub fn switch_on_again(&self) -> bool {
        let may = !self.stays_off();
        if may && self.is_off.load(Ordering::Acquire) {
            let before = self.summary();
            self.switch_on();
            for slot in self.logs.all() {
                let mut core = slot.lock();
                // What was written meanwhile has a deadline from now on.
                slot.begin_to_look(&mut core, clock::now());
            }
            self.publish_force();
            note::info(&format!("{before} → {}", self.summary()));
        }
        may
    }

    /// What is in force, in words.
    fn summary(&self) -> String {
        page::summary(self.policy(), self.force())
    }

    /// Says that it has changed since it was this, or that it is off and a log has failed.
    fn tell_off(&self, before: &str, why: &str, drained: Result<(), Errno>) {
        let now = self.summary();
        if let Err(errno) = drained {
            let error = std::io::Error::from_raw_os_error(errno);
            note::error(&format!(
                "the policy is off: {why}; every sync runs as the command calls it; a log has failed ({error}): what it has acknowledged is not durable"
            ));
        } else if now != before {
            note::info(&format!(
                "the policy is off: {why}; every sync runs as the command calls it; {before} → {now}"
            ));
        }
    }

    /// Whether writes are looked for.
    pub fn looks(&self) -> bool {
        !self.is_blind.load(Ordering::Acquire)
    }

    /// What of the policy is in force.
    pub fn force(&self) -> Force {
        let off = match (self.is_off.load(Ordering::Acquire), self.looks()) {
            (false, _) => Off::No,
            (true, true) => Off::Syncs,
            (true, false) => Off::All,
        };
        Force { off, is_unseen: self.is_unseen.load(Ordering::SeqCst) }
    }

    /// Says it on the page.
    pub fn publish_force(&self) {
        self.page.publish_force(|| (self.policy(), self.force(), self.stays_off()));
    }

    /// No sync call is deferred from now on, for good.
    pub fn turn_off(&self, why: &str) {
        self.is_unordered.store(true, Ordering::SeqCst);
        let policy = self.policy();
        if !policy.can_be_off() {
            // None ever is.
            return;
        }
        self.stays_off.store(true, Ordering::SeqCst);
        let before = self.summary();
        if let (true, drained) = self.drop_policy() {
            self.tell_off(&before, why, drained);
        }
        // It may have been off.
        self.page.publish_stays_off();
    }

    /// Nothing is deferred from now on, and what was is synced, though another thread may be about it. Whether this call is the
    /// first, and the error of a log that has failed, which stays in it.
    fn drop_policy(&self) -> (bool, Result<(), Errno>) {
        let is_first = !self.is_off.swap(true, Ordering::SeqCst);
        let drained = match injects(Fault::NoDrainAtStop) {
            true => Ok(()),
            false => self.logs.drain_all(None),
        };
        if is_first {
            self.publish_force();
        }
        (is_first, drained)
    }
}

fn take_signal(signals: &OwnedFd) -> Option<i32> {
    let mut taken = std::mem::MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer has that size.
    let read = unsafe { libc::read(signals.as_raw_fd(), taken.as_mut_ptr().cast(), size) };
    // SAFETY: zeros are valid, too.
    let signal = unsafe { taken.assume_init() }.ssi_signo;
    (read == size as isize).then(|| signal.try_into().ok()).flatten()
}
