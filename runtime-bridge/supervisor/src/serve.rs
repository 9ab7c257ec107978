//! Answers the calls of the command: the supervisor's process.

use crate::call::{self, Call};
use crate::clock;
use crate::crew::Crew;
use crate::filter::{self, Flags, Kind, MAKES, Open};
use crate::keeper::{self, Keeper};
use crate::launch;
use crate::load::{self, LoadError, Policy};
use crate::logs::Logs;
use crate::note;
use crate::notify::{self, Answer, Notification};
use crate::opens::{Found, Opening};
use crate::page::{self, Off, Page};
use crate::process::Callers;
use crate::record;
use crate::shared::Shared;
use crate::writes::Unended;
use durac_abi::Hook;
use durac_engine::Errno;
use libc::{POLLHUP, POLLIN, pollfd};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Between two looks at logs that are closed, milliseconds.
const SWEEP: i32 = 1000;

/// Why a supervisor does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The object is not loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The system does not give it what it needs.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

/// The supervisor of this process.
pub struct Supervisor {
    /// What the kernel asks through.
    pub listener: OwnedFd,
    /// The policy.
    pub policy: Policy,
    /// The logs.
    pub logs: Logs,
    /// Who may ask.
    pub callers: Callers,
    /// Files that are being opened.
    pub opening: Opening,
    /// Writes that are under way.
    pub unended: Unended,
    /// The process that became the command, once it has called.
    command: AtomicU32,
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
    /// Writes are not looked for: `durac off`.
    is_blind: AtomicBool,
    told_ring: AtomicBool,
    told_unseen: AtomicBool,
}

static SUPERVISOR: OnceLock<Supervisor> = OnceLock::new();
static CREW: Crew = Crew::new(lead);

/// Loads the object at `path`, takes a command's listener from the socket `fd`, and answers until no process of it
/// is left. It then syncs what is deferred.
///
/// # Errors
/// If it cannot start. The command then does not start either.
pub fn serve(path: &Path, fd: OwnedFd) -> Result<(), ServeError> {
    let system = |what: &'static str| move |error| ServeError::System(what, error);
    let signals = block_signals().map_err(system("cannot take signals"))?;
    let policy = load::load(path)?;
    let page = page::make(&policy).map_err(system("no status page"))?;
    let shared = Shared::map().map_err(system("no memory to share with the keeper"))?;
    raise_descriptors();
    record::start();
    let us = keeper::pidfd(std::process::id() as libc::pid_t, 0)
        .map_err(system("cannot watch processes"))?;
    let listener = launch::take_listener(&fd).map_err(system("no listener"))?;
    notify::wake_here(listener.as_raw_fd());
    let keeper = keeper::start(listener.as_raw_fd(), us.as_raw_fd(), shared)
        .map_err(system("cannot start the keeper"))?;
    let line = describe(&policy);
    let supervisor = SUPERVISOR.get_or_init(|| Supervisor {
        listener,
        policy,
        logs: Logs::default(),
        callers: Callers::default(),
        opening: Opening::default(),
        unended: Unended::default(),
        command: AtomicU32::new(0),
        crew: &CREW,
        shared,
        page,
        is_off: AtomicBool::new(false),
        stays_off: AtomicBool::new(false),
        is_blind: AtomicBool::new(false),
        told_ring: AtomicBool::new(false),
        told_unseen: AtomicBool::new(false),
    });
    if supervisor.policy.asked.opens {
        supervisor.start_to_search().map_err(system("cannot start a thread"))?;
    }
    CREW.start().map_err(system("cannot start a thread"))?;
    drop(fd);
    note::info(&line);
    supervisor.look_after(&signals, us.as_raw_fd(), keeper);
    // The keeper's descriptors are these: it watches through this one until this process has ended.
    std::mem::forget(us);
    Ok(())
}

/// One line that says what runs.
fn describe(policy: &Policy) -> String {
    let has = |full| policy.program(full).is_some();
    let meta = &policy.meta;
    let writes = policy.write.is_some() || meta.defers_writes;
    let hooks = [(Hook::Write, writes), (Hook::Fsync, has(true)), (Hook::Fdatasync, has(false))];
    let hooks: Vec<&str> =
        hooks.iter().filter(|(_, has)| *has).map(|(hook, _)| hook.name()).collect();
    let more = match policy.asked.writes || record::asks_about_writes() {
        true => {
            "; writes are asked about, and each costs about as much as a sync call that is deferred"
        }
        false => "",
    };
    format!(
        "policy `{}` for target `{}` is in force (supervisor, process {}): files {}, hooks {}{more}",
        meta.policy,
        meta.target,
        std::process::id(),
        meta.files.join(", "),
        hooks.join(", ")
    )
}

/// SIGTERM and its like as a descriptor: they turn the policy off.
fn block_signals() -> io::Result<OwnedFd> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` has room for a set, and is one after `sigemptyset`.
    let fd = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor for each log, and one for each call under way.
fn raise_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for the result, and is read afterwards.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// The work of the thread that leads: receives calls and answers them.
fn lead(thread: usize) {
    let Some(supervisor) = SUPERVISOR.get() else { return };
    while Crew::leads() {
        match notify::receive(supervisor.listener.as_raw_fd()) {
            Ok(call) => {
                supervisor.shared.received(thread, call.id);
                supervisor.answer(&call);
                supervisor.shared.answered(thread);
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // The caller of one call was killed, or every process is gone and the main thread ends this one.
                _ => std::thread::sleep(std::time::Duration::from_micros(50)),
            },
        }
    }
}

impl Supervisor {
    /// Answers a call. A bug here is not the command's: its call then runs as it was made.
    fn answer(&'static self, call: &Notification) {
        let body = std::panic::AssertUnwindSafe(|| record::asked(call, || self.decide(call)));
        let answer = std::panic::catch_unwind(body).unwrap_or(Answer::Continue);
        notify::send(self.listener.as_raw_fd(), call.id, answer);
    }

    fn decide(&'static self, call: &Notification) -> Answer {
        if self.policy.rules.keeps_amounts {
            self.unended.seen(call.thread);
        }
        if self.command.load(Ordering::Relaxed) == 0 {
            self.begin(call.thread);
        }
        let writes = self.policy.asked.writes || record::asks_about_writes();
        match filter::kind(call.arch, call.number, writes) {
            Some(Kind::Fdatasync) => self.sync(call, false),
            Some(Kind::Fsync) => self.sync(call, true),
            Some(Kind::Order) => self.after_the_logs(call),
            Some(Kind::Length(fd)) => self.length_changes(call, fd),
            Some(Kind::Submit) => {
                self.loses_bytes();
                self.after_the_logs(call)
            }
            Some(Kind::Open(open)) => self.open(call, open),
            Some(Kind::Ring) => self.refuse_ring(),
            Some(Kind::Write(write)) => {
                let answer = self.write(call, write);
                self.record_write(call, write, answer);
                answer
            }
            Some(Kind::Map) => self.map(call),
            Some(Kind::Exit) => self.exit(call),
            None => Answer::Continue,
        }
    }

    /// The first call is made by what becomes the command, which has one thread. It may have logs open already.
    fn begin(&'static self, process: u32) {
        self.command.store(process, Ordering::Relaxed);
        if self.policy.asked.opens {
            self.search(process, clock::now());
        }
    }

    /// A process ends. It cannot be told of an error.
    fn exit(&'static self, call: &Notification) -> Answer {
        if self.policy.asked.opens {
            let process = self.callers.process(&self.listener, call);
            if process.is_some() {
                self.search_before_exit(process);
            }
            // The others leave what they wrote to the deadline, which outlives them.
            let is_command = process == Some(self.command.load(Ordering::Relaxed));
            if !self.policy.defers_syncs() && !is_command {
                return Answer::Continue;
            }
        }
        let _ = self.logs.drain_others(None, None);
        Answer::Continue
    }

    /// The length of a file changes: how much of it is written is not known any more, if it is a log.
    fn length_changes(&'static self, call: &Notification, fd: usize) -> Answer {
        if (self.policy.rules.keeps_amounts || record::is_on())
            && let Ok((file, _)) = self.callers.file(&self.listener, call, call.descriptor(fd))
            && let Ok(meta) = file.metadata()
            && let Some(slot) = self.logs.get((meta.dev(), meta.ino()))
        {
            if self.policy.rules.keeps_amounts {
                slot.lock().engine.lose_bytes();
            }
            self.record_length(&slot);
        }
        self.after_the_logs(call)
    }

    fn sync(&'static self, call: &Notification, full: bool) -> Answer {
        let opened = self.callers.file(&self.listener, call, call.descriptor(0));
        let (file, process) = match opened {
            Ok(opened) => opened,
            // Not open, or not for us to see: the kernel says what it is.
            Err(errno) => {
                self.tell_unseen(errno);
                return self.after_the_logs(call);
            }
        };
        let Ok(meta) = file.metadata() else { return self.after_the_logs(call) };
        let call = Call { file: &file, meta: &meta, full, process };
        while let Some(slot) = self.logs.find(self, &file, &meta, process) {
            if let Some(result) = call::sync(&slot, &call) {
                return Answer::Return(result.map(|()| 0));
            }
        }
        self.ordered(self.logs.drain_others(None, Some(process)))
    }

    /// Tells once of a process whose open files cannot be taken.
    pub fn tell_unseen(&self, errno: Errno) {
        if errno == libc::EPERM && !self.told_unseen.swap(true, Ordering::Relaxed) {
            note::info(
                "the open files of a process of the command cannot be taken (ptrace_scope, or another user): its syncs run as it calls them",
            );
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

    /// What a call does that came after the logs.
    pub fn ordered(&self, drained: Result<(), Errno>) -> Answer {
        match drained {
            Ok(()) => Answer::Continue,
            Err(errno) => Answer::Return(Err(errno)),
        }
    }

    /// A file is made or truncated: it may be the next log. One whose writes are durable by themselves cannot be
    /// ordered behind the logs where writes are not seen: nothing is deferred from then on.
    fn open(&'static self, call: &Notification, open: Open) -> Answer {
        let asked = self.policy.asked;
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
        let found = self.opens(call, open, makes);
        let truncates = flags.is_none_or(|flags| flags & libc::O_TRUNC as u64 != 0);
        // What is there already, and what is no log, has nothing to wait for.
        let is_new = self.policy.defers_syncs() || found == Found::Unknown;
        match durable || truncates || makes && is_new {
            true => self.after_the_logs(call),
            false => Answer::Continue,
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
    fn look_after(&'static self, signals: &OwnedFd, us: RawFd, first: Keeper) {
        let mut keeper = Some(first);
        loop {
            let watched = keeper.as_ref().map_or(-1, Keeper::as_raw_fd);
            let mut polled = [
                pollfd { fd: self.listener.as_raw_fd(), events: 0, revents: 0 },
                pollfd { fd: watched, events: POLLIN, revents: 0 },
                pollfd { fd: signals.as_raw_fd(), events: POLLIN, revents: 0 },
            ];
            // SAFETY: three entries.
            unsafe { libc::poll(polled.as_mut_ptr(), 3, SWEEP) };
            let [calls, kept, signal] = polled;
            if calls.revents & POLLHUP != 0 {
                self.search_before_exit(None);
                // Nobody is left who could be told of an error; it is told on stderr.
                let _ = self.logs.drain_others(None, None);
                return;
            }
            if kept.revents & POLLIN != 0 {
                keeper = self.replace_keeper(us);
            }
            if signal.revents & POLLIN != 0 {
                take_signal(signals);
                self.turn_off("a signal");
            }
            self.page.answer(|on| self.switch(on));
            self.unended.sweep();
            let watched = keeper.as_ref().map(|keeper| keeper.pid);
            self.logs.sweep(watched);
        }
    }

    fn replace_keeper(&self, us: RawFd) -> Option<Keeper> {
        // SAFETY: no status is wanted. It was this process' child.
        unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
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

    /// `durac off` and `on`. What has turned the policy off by itself stays.
    fn switch(&self, on: bool) -> bool {
        if !on {
            self.drop_policy("`durac off`");
            self.is_blind.store(true, Ordering::Release);
            self.page.publish_off(&self.policy, self.how_off());
            return true;
        }
        let may = !self.stays_off.load(Ordering::Acquire);
        if may && self.is_off.swap(false, Ordering::AcqRel) {
            self.is_blind.store(false, Ordering::Release);
            for slot in self.logs.all() {
                let mut core = slot.lock();
                // What was written meanwhile has a deadline from now on.
                slot.begin_to_look(&mut core, clock::now());
            }
            self.page.publish_off(&self.policy, self.how_off());
        }
        may
    }

    /// Whether writes are looked for.
    pub fn looks(&self) -> bool {
        !self.is_blind.load(Ordering::Acquire)
    }

    fn how_off(&self) -> Off {
        match (self.is_off.load(Ordering::Acquire), self.looks()) {
            (false, _) => Off::No,
            (true, true) => Off::Syncs,
            (true, false) => Off::All,
        }
    }

    /// No sync call is deferred from now on, for good.
    pub fn turn_off(&self, why: &str) {
        let policy = &self.policy;
        if policy.rules.defers_writes && !policy.defers_syncs() && !policy.sees_writes() {
            // None ever is.
            return;
        }
        self.stays_off.store(true, Ordering::Release);
        self.drop_policy(why);
    }

    /// Nothing is deferred from now on, and what was is synced.
    fn drop_policy(&self, why: &str) {
        if self.is_off.swap(true, Ordering::AcqRel) {
            return;
        }
        // An error stays in its log.
        let _ = self.logs.drain_others(None, None);
        self.page.publish_off(&self.policy, self.how_off());
        note::info(&format!("the policy is off: {why}; every sync runs as the command calls it"));
    }
}

fn take_signal(signals: &OwnedFd) {
    let mut taken = [0_u8; size_of::<libc::signalfd_siginfo>()];
    // SAFETY: the buffer has that size.
    unsafe { libc::read(signals.as_raw_fd(), taken.as_mut_ptr().cast(), taken.len()) };
}
