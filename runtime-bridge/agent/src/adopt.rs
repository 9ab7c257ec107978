//! Logs that this process did not open: those it inherited from its parent (a daemon's, opened before it forked) or from
//! the program that started it (a shell's `>>numbers.log`). Under `on write: defer` they are logs like others.
//!
//! A thread takes them over a moment later, so that a child that only starts another program costs little. What is
//! written in that moment is as old as it is: the first look counts from the fork, or from the start.
//!
//! The thread finds them by device and inode: the application may have renamed them, given them other numbers and left
//! `/proc` behind meanwhile. It opens nothing, because the application may count on the number that it gets next.

use crate::clock;
use crate::futex;
use crate::hooks;
use crate::off;
use crate::owned;
use crate::policy::{self, Policy};
use crate::registry::FileId;
use crate::sync;
use crate::sys;
use crate::table;
use durac_engine::Time;
use libc::c_int;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The moment; far less than a deadline.
const MOMENT: Duration = Duration::from_millis(100);
const STACK: usize = 128 << 10;

/// What the thread does: a value of [`STATE`].
const NOTHING: u32 = 0;
const WAITS: u32 = 1;
const TAKES_OVER: u32 = 2;
/// It is to end without.
const STOPS: u32 = 3;
/// It is not to wait any longer.
const HURRIES: u32 = 4;

static STATE: AtomicU32 = AtomicU32::new(NOTHING);
/// Since when the logs that it takes over may have been written to.
static SINCE: AtomicU64 = AtomicU64::new(0);
/// The process that has the thread, and the thread.
static PROCESS: AtomicI32 = AtomicI32::new(0);
static THREAD: AtomicI32 = AtomicI32::new(0);

/// The program starts.
pub fn at_start(policy: &'static Policy) {
    if policy.rules.defers_writes {
        files().filter(|(_, path)| policy.covers(path)).for_each(|(file, _)| owned::inherit(file));
        soon(policy);
    }
}

/// This process is a child of `fork` that has just begun.
pub fn in_child() {
    if let Some(policy) = policy::get().filter(|policy| policy.rules.defers_writes) {
        soon(policy);
    }
}

/// Has a thread take over what there is. Without a thread the files are as durable as without durac.
fn soon(policy: &'static Policy) {
    if owned::inherited().next().is_none() || off::is_off() {
        return;
    }
    THREAD.store(0, Ordering::Relaxed);
    PROCESS.store(std::process::id() as c_int, Ordering::Release);
    // What the parent has inherited and not taken over yet has been written to for longer.
    let since = match STATE.swap(WAITS, Ordering::Relaxed) {
        NOTHING => clock::now(),
        _ => SINCE.load(Ordering::Relaxed),
    };
    SINCE.store(since, Ordering::Relaxed);
    let moment = clock::now().saturating_add(MOMENT.as_nanos() as Time);
    let spawned = sync::spawn_with(STACK, c"durac-adopt", move || {
        // SAFETY: no preconditions.
        THREAD.store(unsafe { libc::gettid() }, Ordering::Relaxed);
        while STATE.load(Ordering::Acquire) == WAITS
            && let Some(left) = moment.checked_sub(clock::now()).filter(|&left| left > 0)
        {
            futex::sleep(&STATE, WAITS, Some(Duration::from_nanos(left)));
        }
        if STATE.swap(TAKES_OVER, Ordering::AcqRel) != STOPS {
            take_over(policy, since);
            owned::taken_over();
        }
        STATE.store(NOTHING, Ordering::Release);
    });
    if let Err(error) = spawned {
        STATE.store(NOTHING, Ordering::Release);
        crate::note::error(&format!(
            "cannot start a thread: {error}; logs that were open before are as durable as without durac"
        ));
    }
}

/// Whether the thread is there.
pub fn is_pending() -> bool {
    // SAFETY: no preconditions. A child of `vfork` shares our memory.
    let process = unsafe { libc::getpid() };
    PROCESS.load(Ordering::Acquire) == process && STATE.load(Ordering::Acquire) != NOTHING
}

/// The application takes away what the thread needs: waits until it is gone, without having taken over anything more.
pub fn stop() {
    end(STOPS);
}

/// The process must have no thread but its own: takes over now, and waits until the thread is gone.
pub fn hurry() {
    end(HURRIES);
}

fn end(how: u32) {
    if !is_pending() {
        return;
    }
    let _ = STATE.compare_exchange(WAITS, how, Ordering::AcqRel, Ordering::Relaxed);
    futex::wake(&STATE, 1);
    let until = clock::now().saturating_add(2_000_000_000);
    let thread = || THREAD.load(Ordering::Relaxed);
    // SAFETY: no pointers; signal 0 only asks whether the thread is there.
    let lives = || unsafe {
        sys::call(libc::SYS_tgkill, [std::process::id() as usize, thread() as usize, 0]) == 0
    };
    while (is_pending() || lives()) && clock::now() < until {
        clock::pause(Duration::from_millis(1));
    }
}

fn take_over(policy: &'static Policy, since: Time) {
    let inherited = owned::inherited();
    for fd in 0..numbers() {
        if table::is_other(fd)
            && let Some(flags) = writes(fd)
            && let Some(file) = hooks::regular_file(fd)
            && inherited.clone().any(|log| log == file)
        {
            let path = std::fs::read_link(format!("/proc/self/fd/{fd}"));
            // In a `chroot`, for example.
            let path = path.unwrap_or_else(|_| PathBuf::from(format!("(descriptor {fd})")));
            hooks::adopt(policy, fd, file, &path, flags, since);
        }
    }
}

/// Descriptors are below it, and can be logs.
fn numbers() -> c_int {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for the result.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur.min(table::FDS as u64) as c_int
}

/// The flags of a descriptor that is open for writing.
fn writes(fd: c_int) -> Option<c_int> {
    // SAFETY: any number may be passed; the command only looks.
    let flags = unsafe { crate::real::FCNTL.get()(fd, libc::F_GETFL, 0) };
    (flags >= 0 && flags & libc::O_ACCMODE != libc::O_RDONLY).then_some(flags)
}

/// The regular files that the program was started with, open for writing, and their paths. No other thread runs yet.
fn files() -> impl Iterator<Item = (FileId, PathBuf)> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let fd: c_int = entry.file_name().to_str()?.parse().ok()?;
        let file = hooks::regular_file(fd).filter(|_| table::is_other(fd))?;
        writes(fd)?;
        let path = std::fs::read_link(entry.path()).ok()?;
        path.is_absolute().then_some((file, path))
    })
}
