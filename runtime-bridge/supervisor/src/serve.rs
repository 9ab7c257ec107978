//! Answers the calls of the command: the supervisor's process.

use crate::call::{self, Call};
use crate::crew::Crew;
use crate::filter::{self, Kind};
use crate::keeper::{self, Keeper};
use crate::launch;
use crate::load::{self, LoadError, Policy};
use crate::logs::Logs;
use crate::note;
use crate::notify::{self, Answer, Notification};
use crate::page::{self, Page};
use crate::process::Callers;
use crate::shared::Shared;
use durac_abi::{Hook, Layout, glob};
use durac_engine::Errno;
use libc::{POLLHUP, POLLIN, pollfd};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

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
    listener: OwnedFd,
    /// The policy.
    pub policy: Policy,
    /// The logs.
    pub logs: Logs,
    /// Who may ask.
    callers: Callers,
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
        crew: &CREW,
        shared,
        page,
        is_off: AtomicBool::new(false),
        stays_off: AtomicBool::new(false),
        told_ring: AtomicBool::new(false),
        told_unseen: AtomicBool::new(false),
    });
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
    let hooks = [(Hook::Fsync, has(true)), (Hook::Fdatasync, has(false))];
    let hooks: Vec<&str> =
        hooks.iter().filter(|(_, has)| *has).map(|(hook, _)| hook.name()).collect();
    let meta = &policy.meta;
    format!(
        "policy `{}` for target `{}` is in force (supervisor, process {}): files {}, hooks {}",
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
        let body = std::panic::AssertUnwindSafe(|| self.decide(call));
        let answer = std::panic::catch_unwind(body).unwrap_or(Answer::Continue);
        notify::send(self.listener.as_raw_fd(), call.id, answer);
    }

    fn decide(&'static self, call: &Notification) -> Answer {
        match filter::kind(call.arch, call.number, self.policy.meta.watches_writes()) {
            Some(Kind::Fdatasync) => self.sync(call, false),
            Some(Kind::Fsync) => self.sync(call, true),
            Some(Kind::Order) => self.after_the_logs(call),
            Some(Kind::Open(flags)) => self.open(call, flags),
            Some(Kind::Ring) => self.refuse_ring(),
            Some(Kind::Write { fd, at, flags }) => {
                let flags = flags.map_or(0, |index| call.argument(index));
                let durable = flags & u64::from(filter::RWF) != 0;
                self.write(call, fd, at.map(|index| call.argument(index)), durable)
            }
            Some(Kind::Map) => self.map(call),
            Some(Kind::Exit) => {
                // The process cannot be told of an error.
                let _ = self.logs.drain_others(None, None);
                Answer::Continue
            }
            None => Answer::Continue,
        }
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

    /// A write at an offset or the position, where a target says what its log protects or that it starts again. One that is
    /// `durable` by itself comes after the logs, whatever file it goes to.
    fn write(
        &'static self,
        call: &Notification,
        fd: usize,
        at: Option<u64>,
        durable: bool,
    ) -> Answer {
        // The sixth argument of `pwritev2`; the others that have an offset have fewer arguments, and their wrappers
        // may leave anything in it: what is deferred then comes first once too often.
        let dirty = self.logs.are_dirty();
        let meta = &self.policy.meta;
        if !dirty && (meta.layout != Layout::Ring || at.is_some_and(|at| at != 0 && at != CURRENT))
        {
            return Answer::Continue;
        }
        let opened = self.callers.file(&self.listener, call, call.descriptor(fd));
        let Ok((file, process)) = opened else { return self.after_the_logs(call) };
        let Ok(found) = file.metadata() else { return self.after_the_logs(call) };
        if !found.is_file() {
            return Answer::Continue;
        }
        let durable = durable || flags_of(&file) & libc::O_DSYNC != 0;
        if let Some(slot) = self.logs.get((found.dev(), found.ino())) {
            if meta.layout == Layout::Ring && is_at_start(&file, at) {
                slot.starts_again(process);
                return self.after_the_logs(call);
            }
            if !durable {
                return Answer::Continue;
            }
        }
        match dirty && (durable || self.is_protected(&file)) {
            true => self.ordered(self.logs.drain_others(None, Some(process))),
            false => Answer::Continue,
        }
    }

    /// Whether a file must not be written while the log is behind.
    fn is_protected(&self, file: &File) -> bool {
        let meta = &self.policy.meta;
        let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let covers = |globs: &[String], path: &Path| glob::covers(globs, &meta.except, path);
        // What has no name counts as protected.
        path.map_or(!meta.protects.is_empty(), |path| {
            covers(&meta.protects, &path) && !covers(&meta.files, &path)
        })
    }

    /// A shared mapping: if it can be written through and its file is protected, nothing can be deferred any more.
    fn map(&'static self, call: &Notification) -> Answer {
        let writes = call.argument(2) & libc::PROT_WRITE as u64 != 0;
        let anonymous = call.argument(3) & libc::MAP_ANONYMOUS as u64 != 0;
        if !writes || anonymous || self.is_off.load(Ordering::Acquire) {
            return Answer::Continue;
        }
        let opened = self.callers.file(&self.listener, call, call.descriptor(4));
        let Ok((file, _)) = opened else { return Answer::Continue };
        if file.metadata().is_ok_and(|meta| meta.is_file()) && self.is_protected(&file) {
            self.turn_off("a protected file is mapped to be written: those writes cannot be seen");
        }
        Answer::Continue
    }

    /// Tells once of a process whose open files cannot be taken.
    fn tell_unseen(&self, errno: Errno) {
        if errno == libc::EPERM && !self.told_unseen.swap(true, Ordering::Relaxed) {
            note::info(
                "the open files of a process of the command cannot be taken (ptrace_scope, or another user): its syncs run as it calls them",
            );
        }
    }

    /// A call that comes after what the logs have deferred.
    fn after_the_logs(&self, call: &Notification) -> Answer {
        if !self.logs.are_dirty() {
            return Answer::Continue;
        }
        let process = self.callers.process(&self.listener, call);
        self.ordered(self.logs.drain_others(None, process))
    }

    fn ordered(&self, drained: Result<(), Errno>) -> Answer {
        match drained {
            Ok(()) => Answer::Continue,
            Err(errno) => Answer::Return(Err(errno)),
        }
    }

    /// A file is made or truncated: it may be the next log. One whose writes are durable by themselves cannot be
    /// ordered behind the logs where writes are not seen: nothing is deferred from then on.
    fn open(&self, call: &Notification, flags: Option<usize>) -> Answer {
        let flags = flags.map(|index| call.argument(index));
        let unseen = !self.policy.meta.watches_writes();
        if unseen && flags.is_some_and(|flags| flags & filter::DURABLE != 0) {
            self.turn_off("a file is opened with O_SYNC or O_DSYNC: its writes cannot be kept behind the logs");
        }
        self.after_the_logs(call)
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
            self.logs.sweep();
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
            return true;
        }
        let may = !self.stays_off.load(Ordering::Acquire);
        if may && self.is_off.swap(false, Ordering::AcqRel) {
            self.page.publish_off(&self.policy, false);
        }
        may
    }

    /// The policy is off from now on, for good.
    fn turn_off(&self, why: &str) {
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
        self.page.publish_off(&self.policy, true);
        note::info(&format!("the policy is off: {why}; every sync runs as the command calls it"));
    }
}

fn take_signal(signals: &OwnedFd) {
    let mut taken = [0_u8; size_of::<libc::signalfd_siginfo>()];
    // SAFETY: the buffer has that size.
    unsafe { libc::read(signals.as_raw_fd(), taken.as_mut_ptr().cast(), taken.len()) };
}

/// `pwritev2` at the position of the descriptor.
const CURRENT: u64 = u64::MAX;

/// Whether a write through a caller's open file goes to the beginning of the file.
fn is_at_start(file: &File, at: Option<u64>) -> bool {
    if let Some(at) = at.filter(|at| *at != CURRENT) {
        return at == 0;
    }
    // The position is that of the caller: it is one open file.
    // SAFETY: no pointers.
    flags_of(file) & libc::O_APPEND == 0
        && unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_CUR) } == 0
}

/// How a file was opened: `O_*`.
fn flags_of(file: &File) -> libc::c_int {
    // SAFETY: no pointers.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) }
}
