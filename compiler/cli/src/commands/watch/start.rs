//! Starts the process that looks at a command, before `durac run` becomes the command.

use crate::filter;
use durac_abi::Engine;
use durac_abi::object::Meta;
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::process::{PidfdFlags, child_subreaper, getpid, pidfd_open};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Every process runs in a copy of durac's file, even if another has its name by now.
const SELF: &str = "/proc/self/exe";
/// File systems round the time of a change down, to a tick of the kernel's clock at least.
const TICK: Duration = Duration::from_millis(20);

/// System calls that nothing else in `durac run` needs.
const CALLS: [libc::c_long; 4] =
    [libc::SYS_prctl, libc::SYS_pidfd_open, libc::SYS_setsid, libc::SYS_close_range];
/// One that nothing in the command needs before its first log: for the agent's mark.
const MARK_CALLS: [libc::c_long; 1] = [libc::SYS_memfd_create];

/// Starts it for `command`. Without it nothing is told, and nothing else changes, so a failure is no error.
pub fn start(meta: &Meta, command: &mut Command) {
    let is_off =
        std::env::var_os(durac_abi::ENV_WATCH).is_some_and(|value| value == durac_abi::WATCH_OFF);
    let wanted = !is_off && !crate::log::is_quiet();
    if wanted && filter::survives(&CALLS) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = format!("{}-{}", getpid().as_raw_nonzero(), since.as_nanos());
        let started = try_start(meta, &run, since, uses_rings(meta, command));
        if started.is_ok_and(|started| started) && filter::survives(&MARK_CALLS) {
            command.env(durac_abi::ENV_RUN, run);
        }
    }
}

/// Returns whether it runs.
fn try_start(meta: &Meta, run: &str, since: Duration, rings: bool) -> io::Result<bool> {
    // An orphan would become a child of this process, and the command would have to wait for it.
    let us = getpid();
    if us.is_init() || child_subreaper()?.is_some() {
        return Ok(false);
    }
    let mut command = Command::new(SELF);
    command.env_clear().current_dir("/").arg("watch-command").arg("--policy").arg(&meta.policy);
    command.arg("--run").arg(run);
    command.arg("--since").arg(since.saturating_sub(TICK).as_nanos().to_string());
    command.args(meta.files.iter().map(|glob| format!("--file={glob}")));
    command.args(meta.except.iter().map(|glob| format!("--except={glob}")));
    if rings {
        command.arg("--rings");
    }
    command.stdin(pidfd_open(us, PidfdFlags::empty())?).stdout(Stdio::null());
    // Whoever reads a pipe waits until everybody has closed it, and a command may close it early.
    let stderr = fstat(io::stderr())?;
    if FileType::from_raw_mode(stderr.st_mode) == FileType::Fifo {
        command.arg(format!("--stderr={}:{}", stderr.st_dev, stderr.st_ino)).stderr(Stdio::null());
    }
    orphan(&mut command, Leaves::Session);
    // What ends at once is the process between.
    Ok(command.spawn()?.wait()?.success())
}

/// Whether the agent itself may use io_uring.
fn uses_rings(meta: &Meta, command: &Command) -> bool {
    let set = command.get_envs().find(|(name, _)| *name == durac_abi::ENV_ENGINE);
    let named = set.and_then(|(_, value)| value.map(OsStr::to_owned));
    let named = named.or_else(|| std::env::var_os(durac_abi::ENV_ENGINE));
    let asked = named.and_then(|name| Engine::parse(name.to_str()?));
    asked.or(meta.engine).unwrap_or_default() == Engine::IoUring
}

/// What an orphan leaves: signals to the command's process group, as Ctrl-C sends them, do not reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// The process group.
    Group,
    /// The session, too.
    Session,
}

/// Makes what `command` starts nobody's child, in a process group of its own, with no descriptor beyond the first three.
///
/// Linux divides the processors between sessions (autogroups, sched(7)). On a busy machine a thread that must run in
/// time cannot be in a session of its own: it may wait there for a second although it has hardly run (seen on Linux 6.18).
pub fn orphan(command: &mut Command, leaves: Leaves) {
    // SAFETY: the closure runs between fork and exec. It makes only system calls, and `fork`, which the C
    // library allows in a forked child; none of them touches what other threads may have left locked.
    unsafe {
        command.pre_exec(move || {
            let left = match leaves {
                Leaves::Group => libc::setpgid(0, 0),
                Leaves::Session => libc::setsid(),
            };
            if left < 0 {
                return Err(io::Error::last_os_error());
            }
            match libc::fork() {
                -1 => return Err(io::Error::last_os_error()),
                0 => {}
                _ => libc::_exit(0),
            }
            // Not at once: the standard library still needs one of them. Locks on the others would be held.
            let flags = libc::CLOSE_RANGE_CLOEXEC;
            match libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, flags) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
}

/// Writes a line to the pipe at `path`, if it is still this file. Does not wait for its reader.
pub fn write_to(path: &Path, file: (u64, u64), line: &str) -> io::Result<()> {
    // Looked at before it is opened: opening a device can do something.
    let place = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&place)?;
    if (stat.st_dev, stat.st_ino) != file {
        return Err(io::ErrorKind::NotFound.into());
    }
    let again = format!("/proc/self/fd/{}", place.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut pipe = File::from(open(again, flags, Mode::empty())?);
    // In one call, so that lines do not mix.
    pipe.write_all(format!("durac: {line}\n").as_bytes())
}
