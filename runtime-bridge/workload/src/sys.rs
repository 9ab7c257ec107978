//! The few system calls that the standard library does not have. All `unsafe` of this crate.

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::process::{self, Pid, PidfdFlags, Signal};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes the child that `command` starts die (SIGKILL) when the thread that starts it ends.
///
/// The kernel keeps this over `execve`, so it also holds for what the child becomes; a setuid
/// program or a daemon's fork loses it.
pub fn die_with_parent(command: &mut Command) {
    let parent = process::getpid();
    // SAFETY: the closure runs between fork and exec and makes only system calls, which allocate
    // nothing and take no lock; nor does an error made of a number.
    unsafe {
        command.pre_exec(move || {
            process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the request was made.
            if process::getppid() != Some(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// Sends `signal` to the process `pid`.
///
/// # Errors
/// Those of kill(2).
pub fn kill(pid: u32, signal: i32) -> io::Result<()> {
    Ok(process::kill_process(pid_of(pid)?, named(signal)?)?)
}

/// A process, which need not be our child. It stays the same process even if its number is reused.
#[derive(Debug)]
pub struct Process {
    fd: OwnedFd,
}

impl Process {
    /// The process that has the number `pid` now.
    ///
    /// # Errors
    /// Those of pidfd_open(2).
    pub fn open(pid: u32) -> io::Result<Self> {
        Ok(Self { fd: process::pidfd_open(pid_of(pid)?, PidfdFlags::empty())? })
    }

    /// Sends it `signal`.
    ///
    /// # Errors
    /// Those of pidfd_send_signal(2).
    pub fn kill(&self, signal: i32) -> io::Result<()> {
        Ok(process::pidfd_send_signal(&self.fd, named(signal)?)?)
    }

    /// Waits until it has ended; false if it still runs after `within`.
    ///
    /// # Errors
    /// Those of poll(2).
    pub fn wait(&self, within: Duration) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&timespec(within)))? > 0)
    }
}

/// A child that leads a process group, with all its descendants that have not left it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    /// The group of a child that was started as its leader.
    pub(crate) fn of(child: &std::process::Child) -> Self {
        Self(Some(Pid::from_child(child)))
    }

    /// Kills them, those that are left.
    pub(crate) fn kill(self) {
        if let Some(leader) = self.0 {
            // None may be left.
            let _ = process::kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Makes a pipe with a name, and opens the end that is read, without waiting for the other.
pub(crate) fn make_pipe(path: &std::path::Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::RUSR | Mode::WUSR)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Waits until something can be read, or nothing ever will be; false after `within`.
pub(crate) fn is_readable(fd: &OwnedFd, within: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    match poll(&mut fds, Some(&timespec(within))) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Zero and negative numbers would mean process groups.
fn pid_of(pid: u32) -> io::Result<Pid> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn named(signal: i32) -> io::Result<Signal> {
    Signal::from_named_raw(signal).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

/// A set of descriptors, each with a token, that waits until some of them can be read: epoll(7).
pub(crate) struct Readable {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Readable {
    /// An empty set, which reports at most `most` descriptors at once.
    pub(crate) fn new(most: usize) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(most.max(1)) })
    }

    /// Adds a descriptor. Closing it removes it.
    pub(crate) fn add(&self, fd: impl AsFd, token: usize) -> io::Result<()> {
        let token = epoll::EventData::new_u64(token as u64);
        Ok(epoll::add(&self.epoll, fd, token, epoll::EventFlags::IN)?)
    }

    /// Waits and returns the tokens of the descriptors that can be read or have hung up. None after
    /// `within`, or after a signal.
    pub(crate) fn wait(
        &mut self,
        within: Option<Duration>,
    ) -> io::Result<impl Iterator<Item = usize>> {
        let within = within.map(timespec);
        self.events.clear();
        let room = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, room, within.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.events.iter().map(|event| event.data.u64() as usize))
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP set a flag, see [`interrupted`], instead of ending this
/// process, so that what was measured can be shown and every child is stopped.
pub fn catch_interrupts() {
    extern "C" fn note(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let handler = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe, and has the signature that
        // `signal` calls.
        unsafe { libc::signal(signal, handler) };
    }
}

/// Whether one of the signals of [`catch_interrupts`] has come.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Whether this process may do what only root may.
#[must_use]
pub fn is_root() -> bool {
    process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    #[test]
    fn waits_for_what_can_be_read() {
        let mut set = Readable::new(8).unwrap();
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let (silent, _kept) = UnixStream::pair().unwrap();
        set.add(&ours, 7).unwrap();
        set.add(&silent, 8).unwrap();
        let none = Some(Duration::ZERO);
        assert_eq!(set.wait(none).unwrap().count(), 0);
        theirs.write_all(b"ab").unwrap();
        assert_eq!(set.wait(None).unwrap().collect::<Vec<_>>(), [7]);
        // Still there until all is read.
        ours.read_exact(&mut [0]).unwrap();
        assert_eq!(set.wait(None).unwrap().collect::<Vec<_>>(), [7]);
        ours.read_exact(&mut [0]).unwrap();
        assert_eq!(set.wait(none).unwrap().count(), 0);
        drop(theirs);
        assert_eq!(set.wait(None).unwrap().collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn bad_numbers_are_errors() {
        assert!(kill(0, libc::SIGTERM).is_err());
        assert!(kill(u32::MAX, libc::SIGTERM).is_err());
        assert!(kill(std::process::id(), 0).is_err());
        assert!(Process::open(0).is_err());
    }
}
