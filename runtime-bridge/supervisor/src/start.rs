//! A supervisor begins: for a command that is about to start, or in the place of another version that runs.

use crate::candidate::keep_over_exec;
use crate::handover::{Handover, HandoverError};
use crate::keeper::{self, Keeper};
use crate::launch;
use crate::load::{self, LoadError, Policy};
use crate::note;
use crate::notify;
use crate::page::{self, Force, Off};
use crate::record;
use crate::serve::{Parts, Supervisor};
use crate::shared::Shared;
use durac_abi::Hook;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// Why a supervisor does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The object is not loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What another supervisor hands over is not taken.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// The system does not give it what it needs.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |error| ServeError::System(what, error)
}

/// Loads the object at `path`, takes a command's listener from the socket `fd`, and answers until no process of it
/// is left. It then syncs what is deferred.
///
/// # Errors
/// If it cannot start. The command then does not start either.
pub fn serve(path: &Path, fd: OwnedFd) -> Result<(), ServeError> {
    lift_limits();
    let signals = block_signals().map_err(system("cannot take signals"))?;
    let policy = load::load(path)?;
    let page = page::make(&policy, &[]).map_err(system("no status page"))?;
    record::start();
    let listener = launch::take_listener(&fd).map_err(system("no listener"))?;
    let asked = policy.asked;
    let (parts, us, keeper) = Parts::new(listener, asked, policy, page)?;
    let supervisor = Supervisor::new(parts);
    supervisor.start()?;
    // The command starts once its first call is answered, which says that the policy is in force.
    drop(fd);
    supervisor.look_after(&signals, us.as_raw_fd(), keeper);
    // The keeper's descriptors are these: it watches through this one until this process has ended.
    std::mem::forget(us);
    Ok(())
}

/// Whether this program could take over what a running supervisor hands over: the format is its own, and it accepts the
/// object.
///
/// # Errors
/// Why not.
pub fn try_out(handed: impl io::Read) -> Result<(), ServeError> {
    let handed = Handover::accept(handed)?;
    load::admit(handed.object)?;
    Ok(())
}

/// Goes on in the place of the program that this process was, with what it has stored in the descriptor `fd`. Until this
/// function receives the first call, the old keeper is there: it takes over if this process ends.
///
/// # Errors
/// If it cannot start. The process must then end.
pub fn take_over(fd: RawFd) -> Result<(), ServeError> {
    // SAFETY: the program before has left it open for this one.
    let stored = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let handed = Handover::accept(stored)?;
    lift_limits();
    // It was run by a descriptor, whose number would be its name.
    // SAFETY: a name that ends with a zero; the others are not looked at.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"durac".as_ptr()) };
    let policy = load::admit(handed.object.clone())?;
    // Before any other descriptor is opened: the page of the program before had one, to which its name leads.
    let page = page::make(&policy, &handed.params).map_err(system("no status page"))?;
    let signals = block_signals().map_err(system("cannot take signals"))?;
    if !notify::is_listener(handed.listener) {
        return Err(system("no listener")(io::ErrorKind::InvalidInput.into()));
    }
    // SAFETY: the same.
    let listener = unsafe { OwnedFd::from_raw_fd(handed.listener) };
    keep_over_exec(handed.listener, false).map_err(system("no listener"))?;
    let (parts, us, keeper) = Parts::new(listener, handed.asked(), policy, page)?;
    let supervisor = Supervisor::new(parts);
    supervisor.restore(&handed);
    // Another keeper is there, with the descriptors that this process has from now on, and knows what may be behind. The
    // old one closes its own, which may wait for a disk.
    let old = handed.keeper;
    let reaper = std::thread::Builder::new().name("durac-reap".into());
    reaper.spawn(move || keeper::dismiss(old)).map_err(system("cannot start a thread"))?;
    supervisor.start()?;
    // What was turned off before is not in force.
    let runs = describe(supervisor.policy(), supervisor.force());
    note::info(&format!("durac {} has taken over: {runs}", env!("CARGO_PKG_VERSION")));
    supervisor.look_after(&signals, us.as_raw_fd(), keeper);
    std::mem::forget(us);
    Ok(())
}

impl Parts {
    /// Makes what is left, and starts a keeper.
    fn new(
        listener: OwnedFd,
        asked: crate::filter::Asked,
        policy: Policy,
        page: page::Page,
    ) -> Result<(Self, OwnedFd, Keeper), ServeError> {
        let shared = Shared::map().map_err(system("no memory to share with the keeper"))?;
        let us = keeper::pidfd(std::process::id() as libc::pid_t, 0)
            .map_err(system("cannot watch processes"))?;
        notify::wake_here(listener.as_raw_fd());
        let keeper = keeper::start(listener.as_raw_fd(), us.as_raw_fd(), shared)
            .map_err(system("cannot start the keeper"))?;
        Ok((Self { listener, asked, policy, page, shared }, us, keeper))
    }
}

impl Supervisor {
    /// Starts the threads: calls are answered from now on.
    fn start(&'static self) -> Result<(), ServeError> {
        if self.asked.opens {
            self.start_to_search().map_err(system("cannot start a thread"))?;
        }
        self.crew.start().map_err(system("cannot start a thread"))?;
        self.page.ready();
        Ok(())
    }
}

/// One line that says what runs, and what of it is in force.
pub fn describe(policy: &Policy, force: Force) -> String {
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
    let is = if force.off == Off::No { "is in force" } else { "is off" };
    let loss = match force {
        Force::WHOLE => String::new(),
        _ => format!("power loss: {}; ", page::head(policy, force).loss),
    };
    format!(
        "policy `{}` for target `{}` {is} ({loss}supervisor, process {}): files {}, hooks {}{more}",
        meta.policy,
        meta.target,
        std::process::id(),
        meta.files.join(", "),
        hooks.join(", ")
    )
}

/// The signals that end or stop a process for what it has inherited: `SIGXFSZ` for a limit of the size of files, `SIGXCPU` for
/// one of processor time, `SIGTTOU` for a terminal with `stty tostop`, where it says something in the background. A write
/// then fails.
const INHERITED: [libc::c_int; 3] = [libc::SIGXFSZ, libc::SIGXCPU, libc::SIGTTOU];

/// Ignores these signals and raises the limits, for this process, its keeper and the program that comes in its place: what
/// is inherited is meant for the command. Each log and each call under way takes a descriptor; what all processes of the command call
/// takes the processor time of this one.
fn lift_limits() {
    for signal in INHERITED {
        // SAFETY: ignoring a signal.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let none = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    raise(libc::RLIMIT_NOFILE, None);
    // Only root may go above the hard limit.
    raise(libc::RLIMIT_FSIZE, Some(&none));
    raise(libc::RLIMIT_CPU, Some(&none));
}

/// Raises a limit to this one, or else as far as this user may.
fn raise(resource: libc::__rlimit_resource_t, most: Option<&libc::rlimit>) {
    let set = |limit: &libc::rlimit| {
        // SAFETY: the structure is there.
        unsafe { libc::setrlimit(resource, std::ptr::from_ref(limit)) == 0 }
    };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for the result.
    let is_known = unsafe { libc::getrlimit(resource, &raw mut limit) } == 0;
    if is_known && !most.is_some_and(set) {
        limit.rlim_cur = limit.rlim_max;
        set(&limit);
    }
}

/// SIGTERM and its like as a descriptor: they turn the policy off. SIGUSR2 has the program exchanged.
fn block_signals() -> io::Result<OwnedFd> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` has room for a set, and is one after `sigemptyset`.
    let fd = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR2] {
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
