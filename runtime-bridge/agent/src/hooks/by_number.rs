//! System calls made by number, through the C library's `syscall`. Each does beside itself what the hook of the function
//! of that name does; [`effects`] is the table of what that is.
//!
//! Where a hook gives a result of its own (a staged write, a deferred sync, a held reply), the call by number is made as
//! the application made it, and what the agent keeps comes first.

use super::sync::{self, Syncs};
use super::{before, observe, passing, paths, rights, sockets, turn};
use crate::errno::{self, Kept};
use crate::failures;
use crate::guard;
use crate::off::{self, Off};
use crate::policy;
use crate::readable;
use crate::real;
use crate::stage::StageOff;
use crate::table::{self, Entry};
use durac_engine::Errno;
use libc::{c_int, c_long, c_uint, mmsghdr, msghdr, off_t};
use std::sync::atomic::Ordering;

/// `io_pgetevents`, which the `libc` crate does not name.
const IO_PGETEVENTS: c_long = 333;

/// What a system call does that concerns logs and connections. A number is that of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// Gives, copies or takes a descriptor, locks its file, or shuts its connection.
    Descriptor,
    /// Reads the file of this descriptor, or looks at it, or receives from it.
    Reads(usize),
    /// Receives from the connection of this descriptor.
    Receives(usize),
    /// Writes the file of this descriptor, or sends.
    Writes(usize),
    /// Changes the length of the file of this descriptor.
    Resizes(usize),
    /// Moves the position of this descriptor.
    Moves(usize),
    /// Sends to the connection of this descriptor, with the flags there.
    Sends(usize, usize),
    /// The message there can pass descriptors.
    Passes(usize),
    /// The same of several messages.
    PassesMany(usize),
    /// A request to the device of this descriptor.
    Requests(usize),
    /// Can see any file, or sets its times, or limits its size.
    SeesAll,
    /// Syncs.
    Syncs,
    /// Syncs everything, and cannot fail.
    SyncsAll,
    /// Changes names.
    Renames,
    /// Changes the length of the file of this name.
    Truncates(usize),
    /// Maps the pages of this descriptor.
    Maps(usize),
    /// Makes a process that nobody counts.
    Forks,
    /// Starts a process that shares the memory until it becomes another program.
    Spawns,
    /// The process becomes another program, or the machine stops.
    Becomes,
    /// The thread ends.
    EndsThread,
    /// The process ends.
    Ends,
    /// Awaits a process.
    Awaits,
    /// Needs a process with one thread.
    NeedsToBeAlone,
    /// Installs a filter of system calls.
    Filters,
    /// Submits blocks of asynchronous I/O.
    Submits,
    /// Gets their results.
    Collects,
    /// Makes a ring whose calls no hook sees.
    Rings,
    /// Registers with an `epoll`.
    Registers,
}

/// The effects of a system call.
const fn effects(number: c_long) -> &'static [Effect] {
    use Effect::*;
    match number {
        libc::SYS_close
        | libc::SYS_close_range
        | libc::SYS_dup
        | libc::SYS_dup2
        | libc::SYS_dup3
        | libc::SYS_fcntl
        | libc::SYS_flock
        | libc::SYS_open
        | libc::SYS_openat
        | libc::SYS_openat2
        | libc::SYS_creat
        | libc::SYS_open_by_handle_at
        | libc::SYS_accept
        | libc::SYS_accept4
        | libc::SYS_socket
        | libc::SYS_pipe
        | libc::SYS_pipe2
        | libc::SYS_pidfd_getfd
        | libc::SYS_shutdown
        | libc::SYS_connect => &[Descriptor],
        libc::SYS_read
        | libc::SYS_readv
        | libc::SYS_pread64
        | libc::SYS_preadv
        | libc::SYS_preadv2
        | libc::SYS_fstat
        | libc::SYS_statx
        | libc::SYS_newfstatat => &[Reads(0)],
        libc::SYS_recvfrom | libc::SYS_recvmsg | libc::SYS_recvmmsg => &[Receives(0)],
        libc::SYS_write | libc::SYS_writev | libc::SYS_pwrite64 | libc::SYS_pwritev => &[Writes(0)],
        libc::SYS_pwritev2 => &[Writes(0), Syncs],
        libc::SYS_fallocate => &[Writes(0)],
        libc::SYS_ftruncate => &[Writes(0), Resizes(0)],
        libc::SYS_sendfile => &[Reads(1), Writes(0)],
        libc::SYS_splice | libc::SYS_copy_file_range => &[Reads(0), Writes(2)],
        libc::SYS_sendto => &[Sends(0, 3)],
        libc::SYS_sendmsg => &[Passes(1), Sends(0, 2)],
        libc::SYS_sendmmsg => &[PassesMany(1), Sends(0, 3)],
        libc::SYS_ioctl => &[Requests(0)],
        libc::SYS_lseek => &[Moves(0)],
        libc::SYS_stat
        | libc::SYS_lstat
        | libc::SYS_utime
        | libc::SYS_utimes
        | libc::SYS_utimensat
        | libc::SYS_futimesat
        | libc::SYS_setrlimit
        | libc::SYS_prlimit64 => &[SeesAll],
        libc::SYS_fsync
        | libc::SYS_fdatasync
        | libc::SYS_syncfs
        | libc::SYS_sync_file_range
        | libc::SYS_msync => &[SeesAll, Syncs],
        libc::SYS_sync => &[SyncsAll],
        libc::SYS_rename
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_unlink
        | libc::SYS_unlinkat
        | libc::SYS_link
        | libc::SYS_linkat
        | libc::SYS_symlink
        | libc::SYS_symlinkat
        | libc::SYS_rmdir => &[Renames],
        libc::SYS_truncate => &[Truncates(0)],
        libc::SYS_mmap => &[Maps(4)],
        libc::SYS_fork | libc::SYS_clone | libc::SYS_clone3 => &[Forks],
        libc::SYS_vfork => &[Spawns, Forks],
        libc::SYS_execve | libc::SYS_execveat | libc::SYS_reboot => &[Becomes],
        libc::SYS_exit => &[EndsThread],
        libc::SYS_exit_group => &[Ends],
        libc::SYS_wait4 | libc::SYS_waitid => &[Awaits],
        libc::SYS_unshare | libc::SYS_setns => &[NeedsToBeAlone],
        libc::SYS_prctl | libc::SYS_seccomp => &[Filters],
        libc::SYS_io_submit => &[Submits],
        libc::SYS_io_getevents | IO_PGETEVENTS => &[Collects],
        libc::SYS_io_uring_setup => &[Rings],
        libc::SYS_epoll_ctl => &[Registers],
        _ => &[],
    }
}

/// A system call and its arguments.
struct Call {
    number: c_long,
    arguments: [usize; 6],
}

/// Before a call. Returns what to call: the C library's `syscall` with the same arguments, or a function that makes the
/// call and does beside it what the hook of that name does. A call that returns twice, or ends the thread, is made by the
/// first.
pub(super) fn by_number(number: c_long, [a, b, c, d, e]: [usize; 5]) -> usize {
    let call = Call { number, arguments: [a, b, c, d, e, 0] };
    let plain = || real::SYSCALL.get() as usize;
    let effects = effects(number);
    match effects {
        [] => return plain(),
        [Effect::Ends] => super::leave(),
        [Effect::EndsThread] => super::thread_ends(),
        [Effect::Registers] => turn::registers_by_number(a as c_int, b as c_int, c as c_int),
        _ => {}
    }
    if guard::is_inside() || policy::loaded().is_none() && !failures::any() {
        return plain();
    }
    match effects {
        [Effect::Ends | Effect::EndsThread | Effect::Registers] => plain(),
        [.., Effect::Forks] => {
            effects.iter().for_each(|&effect| call.leaves(effect));
            plain()
        }
        _ => through as *const () as usize,
    }
}

/// A system call that has effects.
///
/// # Safety
/// As the C library's `syscall`.
unsafe extern "C-unwind" fn through(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let call = Call { number, arguments: [a, b, c, d, e, f] };
    let effects = effects(number);
    let mut written = None;
    for &effect in effects {
        match call.precedes(effect) {
            Ok(fd) => written = written.or(fd),
            Err(errno) => {
                errno::set(errno);
                return -1;
            }
        }
    }
    // Not the C library's function of that name, which may be another library's that makes this very call.
    // SAFETY: the caller's arguments, which it vouches for.
    let real = || unsafe { real::SYSCALL.get()(number, a, b, c, d, e, f) };
    let result = match (effects, call.syncs()) {
        ([Effect::Becomes], _) if number == libc::SYS_reboot => super::process::halts(real),
        ([Effect::Becomes], _) => super::process::becomes(real),
        ([Effect::Descriptor], _) => call.as_hooked(|| real() as c_int).into(),
        ([Effect::NeedsToBeAlone], _) => call.alone(|| real() as c_int).into(),
        ([Effect::Renames], _) => paths::drained(real),
        ([Effect::Truncates(path)], _) => paths::resize(call.pointer(*path), real),
        (_, Some(syncs)) => sync::guarded(syncs, real),
        _ if number == libc::SYS_syncfs => paths::drained(real),
        _ => real(),
    };
    call.follows(result, written);
    result
}

impl Call {
    fn word(&self, index: usize) -> usize {
        self.arguments.get(index).copied().unwrap_or(0)
    }

    fn int(&self, index: usize) -> c_int {
        self.word(index) as c_int
    }

    fn pointer<T>(&self, index: usize) -> *const T {
        std::ptr::with_exposed_provenance(self.word(index))
    }

    /// Before a call after which nothing can be done.
    fn leaves(&self, effect: Effect) {
        match effect {
            Effect::Forks => super::process::clones_by_number(self.number, self.word(0)),
            Effect::Spawns => drop(before::vfork()),
            _ => {}
        }
    }

    /// Before the call. Returns the descriptor that it writes, if that is a log; or the error that it has to return.
    fn precedes(&self, effect: Effect) -> Result<Option<c_int>, Errno> {
        match effect {
            Effect::Reads(fd) => {
                sockets::unseen(self.int(fd));
                super::seen();
            }
            Effect::Receives(fd) => sockets::unseen(self.int(fd)),
            Effect::Writes(fd) => return self.writes(self.int(fd)),
            Effect::Resizes(fd) if super::log_of(self.int(fd)).is_none() => drained()?,
            Effect::Moves(fd) => {
                super::seen();
                let _ = super::uncount_by_number(self.int(fd), true);
            }
            Effect::Sends(fd, flags) => {
                sockets::let_pass(self.int(fd), self.int(flags))?;
            }
            Effect::Passes(message) => passes(self.pointer(message)),
            Effect::PassesMany(messages) => {
                let first = self.pointer::<mmsghdr>(messages);
                for index in 0..self.word(2).min(MOST_MESSAGES) {
                    passes(first.wrapping_add(index).cast());
                }
            }
            Effect::Requests(fd) => {
                let (fd, request) = (self.int(fd), self.word(1));
                super::seen_by(fd);
                observe::controls_device(fd, request);
                return Ok((!observe::is_harmless(request) && is_log(fd)).then_some(fd));
            }
            Effect::SeesAll => super::seen(),
            // As the function, it cannot fail.
            Effect::SyncsAll => rights::drain(),
            Effect::Maps(fd) => observe::mapped(self.int(fd), self.int(3)),
            Effect::Filters if self.number == libc::SYS_prctl => {
                rights::controls_process(self.int(0));
            }
            Effect::Filters => off::process(Off::Filter),
            Effect::Submits => self.submits()?,
            Effect::Rings => rights::revoke_all(StageOff::Aio),
            _ => {}
        }
        Ok(None)
    }

    /// Before `fd` is written.
    fn writes(&self, fd: c_int) -> Result<Option<c_int>, Errno> {
        super::seen_by(fd);
        // The next library's own call in a write has been seen as that.
        let is_other = super::uncount_by_number(fd, false);
        sockets::let_pass(fd, 0)?;
        if table::get(fd) == Entry::Durable {
            drained()?;
        }
        let Some(log) = super::log_of(fd).filter(|_| is_other) else { return Ok(None) };
        match log.slot.error.load(Ordering::Acquire) {
            0 => Ok(Some(fd)),
            errno if off::is_off() || log.slot.proof.holds(fd) => Err(errno),
            _ => Ok(None),
        }
    }

    /// What the call syncs, if it does.
    fn syncs(&self) -> Option<Syncs> {
        match self.number {
            libc::SYS_fsync | libc::SYS_fdatasync => Some(Syncs::File(self.int(0))),
            libc::SYS_pwritev2 if self.int(5) & sync::DURABLY != 0 => {
                Some(Syncs::Write(self.int(0), self.word(3) as off_t, self.int(5)))
            }
            libc::SYS_sync_file_range
                if self.word(3) as c_uint & sync::WAITS != 0 || failures::any() =>
            {
                Some(Syncs::File(self.int(0)))
            }
            libc::SYS_msync if self.int(2) & libc::MS_SYNC != 0 => {
                Some(Syncs::Pages(self.word(0), self.word(1)))
            }
            _ => None,
        }
    }

    /// A call that needs to be alone.
    fn alone(&self, real: impl Fn() -> c_int) -> c_int {
        match self.number {
            libc::SYS_unshare => rights::unshared(self.int(0), real),
            _ => rights::without_threads(real),
        }
    }

    /// A call that gives, copies or takes a descriptor.
    fn as_hooked(&self, real: impl Fn() -> c_int) -> c_int {
        let fd = self.int(0);
        let opens = |dir, path, flags: c_int| {
            super::open::opened(super::open::opening(flags, &real), dir, path, flags)
        };
        match self.number {
            libc::SYS_close if table::is_other(fd) => real(),
            libc::SYS_close => super::files::close_ours(fd, real),
            libc::SYS_close_range => {
                let [_, _, c, d, e, f] = self.arguments;
                let real = |first: c_uint, last: c_uint| {
                    let (first, last) = (first as usize, last as usize);
                    // SAFETY: the caller's arguments, or a part of its range.
                    unsafe { real::SYSCALL.get()(self.number, first, last, c, d, e, f) as c_int }
                };
                let [first, last] = [self.word(0), self.word(1)].map(|fd| fd as c_uint);
                super::files::close_all(first, last, self.int(2), real)
            }
            libc::SYS_dup => {
                super::seen_by(fd);
                super::files::copied(fd, real())
            }
            libc::SYS_dup2 => super::files::copy_over(fd, self.int(1), 0, real),
            libc::SYS_dup3 => super::files::copy_over(fd, self.int(1), self.int(2), real),
            libc::SYS_fcntl => {
                super::files::controls(fd, self.int(1), self.word(2));
                super::files::controlled(fd, self.int(1), real())
            }
            libc::SYS_flock => {
                passing::locked(fd);
                real()
            }
            libc::SYS_open => opens(libc::AT_FDCWD, self.pointer(0), self.int(1)),
            libc::SYS_creat => {
                let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
                opens(libc::AT_FDCWD, self.pointer(0), flags)
            }
            libc::SYS_openat => opens(fd, self.pointer(1), self.int(2)),
            libc::SYS_openat2 => opens(fd, self.pointer(1), flags_of(self.pointer(2))),
            libc::SYS_open_by_handle_at => {
                super::found::copied_unseen(super::open::opening(self.int(2), real))
            }
            libc::SYS_accept | libc::SYS_accept4 => sockets::accepted(real()),
            libc::SYS_shutdown => sockets::shut(fd, self.int(1), |how| {
                // SAFETY: the caller's arguments, or a part of what it asks for.
                unsafe {
                    real::SYSCALL.get()(self.number, fd as usize, how as usize, 0, 0, 0, 0) as c_int
                }
            }),
            libc::SYS_connect if !table::is_other(fd) => {
                sockets::reconnects(fd, self.pointer(1), self.int(2) as libc::socklen_t, real)
            }
            libc::SYS_pidfd_getfd => super::found::copied_unseen(real()),
            libc::SYS_socket => {
                let fd = real();
                super::forget_stale(fd);
                fd
            }
            // SAFETY: the caller's array, which the system has filled if it reports success.
            libc::SYS_pipe | libc::SYS_pipe2 => unsafe {
                super::files::piped(real(), self.pointer(0))
            },
            _ => real(),
        }
    }

    /// After the call, which has written this log.
    fn follows(&self, result: c_long, written: Option<c_int>) {
        let bytes = match self.number {
            libc::SYS_ftruncate | libc::SYS_fallocate | libc::SYS_ioctl if result == 0 => 1,
            libc::SYS_ioctl => 0,
            _ => u64::try_from(result).unwrap_or(0),
        };
        let log = written.and_then(super::log_of).filter(|log| log.registry.is_ours());
        if let Some(log) = log.filter(|_| bytes > 0) {
            let kept = Kept::now();
            // As a change of the file: no program has seen it.
            log.slot.add_written(bytes - 1);
            guard::run(|| crate::call::after_change(log.slot, Some(log.policy)));
            drop(kept);
        }
        match self.number {
            libc::SYS_wait4 | libc::SYS_waitid => self.awaited(result),
            libc::SYS_io_getevents | IO_PGETEVENTS => self.collected(result),
            _ => {}
        }
    }

    /// A child may have been awaited.
    fn awaited(&self, result: c_long) {
        if self.number == libc::SYS_wait4 {
            // SAFETY: null, or the caller's number, which the system has filled if the result is positive.
            unsafe { super::waited(result as libc::pid_t, self.pointer(1)) };
        } else {
            // SAFETY: null, or the caller's structure, which the system has filled if it reports success.
            unsafe { super::waited_for(result as c_int, self.pointer(2), self.int(3)) };
        }
    }

    /// Before blocks of asynchronous I/O are submitted: what the logs have deferred, because nobody knows when they are
    /// carried out; nothing of their files is staged or held any more.
    fn submits(&self) -> Result<(), Errno> {
        rights::revoke_all(StageOff::Aio);
        let list = self.pointer::<*const Block>(2);
        for index in 0..self.word(1).min(MOST_BLOCKS) {
            // SAFETY: a pointer is read where it can be.
            let block = unsafe { read(list.wrapping_add(index)) };
            // SAFETY: and a block of numbers, too.
            let Some(block) = block.and_then(|block| unsafe { read(block) }) else { break };
            if block.syncs() {
                sync::refused(Syncs::File(block.fd))?;
            }
            match block.operation {
                Block::READ | Block::READ_PIECES => sockets::unseen(block.fd),
                Block::POLL => {}
                _ if table::is_other(block.fd) => {}
                _ => {
                    super::lose_writes(block.fd);
                    sockets::let_pass(block.fd, sockets::SUBMITS)?;
                }
            }
        }
        drained()
    }

    /// So many results of asynchronous I/O have come. That of a sync may have been the kernel's report of an error.
    fn collected(&self, result: c_long) {
        let events = self.pointer::<Event>(3);
        for index in 0..usize::try_from(result).unwrap_or(0) {
            // SAFETY: numbers are read where they can be.
            let Some(event) = (unsafe { read(events.wrapping_add(index)) }) else { break };
            let place = std::ptr::with_exposed_provenance::<Block>(event.block as usize);
            if event.result < 0
                // SAFETY: as above; the application may have reused the block, which then is of another file or no sync.
                && let Some(block) = unsafe { read(place) }.filter(Block::syncs)
            {
                let syncs = block.as_call();
                if !syncs.wrote_nothing(None) {
                    sync::may_have_taken(syncs, -event.result as Errno);
                }
            }
        }
    }
}

/// The system takes no more messages at once (`UIO_MAXIOV`).
const MOST_MESSAGES: usize = 1024;
/// Nor does it have more blocks in work by default (`/proc/sys/fs/aio-max-nr`).
const MOST_BLOCKS: usize = 65536;

/// `struct iocb` (`include/uapi/linux/aio_abi.h`).
#[derive(Clone, Copy)]
#[repr(C)]
struct Block {
    data: u64,
    key: u32,
    flags: c_int,
    operation: u16,
    priority: i16,
    fd: c_int,
    /// Where the bytes are, how many, and where they go; and what nobody reads here.
    rest: [u64; 5],
}

impl Block {
    const READ: u16 = 0;
    const WRITE: u16 = 1;
    const SYNC: u16 = 2;
    const SYNC_DATA: u16 = 3;
    const POLL: u16 = 5;
    const READ_PIECES: u16 = 7;
    const WRITE_PIECES: u16 = 8;

    /// What it syncs.
    fn as_call(&self) -> Syncs {
        match (self.operation, self.rest) {
            (Self::WRITE | Self::WRITE_PIECES, [_, _, at, ..]) => {
                Syncs::Write(self.fd, at as off_t, self.flags)
            }
            _ => Syncs::File(self.fd),
        }
    }

    /// Whether it makes something durable.
    fn syncs(&self) -> bool {
        matches!(self.operation, Self::SYNC | Self::SYNC_DATA) || self.flags & sync::DURABLY != 0
    }
}

/// `struct io_event`, there.
#[derive(Clone, Copy)]
#[repr(C)]
struct Event {
    data: u64,
    block: u64,
    result: i64,
    more: i64,
}

/// What is there; none if it cannot be read.
///
/// # Safety
/// Any bytes are a value of `T`.
unsafe fn read<T: Copy>(place: *const T) -> Option<T> {
    // SAFETY: it can be read; nothing says that it is aligned; the caller's promise.
    readable::all(place.cast(), size_of::<T>()).then(|| unsafe { place.read_unaligned() })
}

/// The flags of `openat2`, with which its structure begins; 0 if it cannot be read.
fn flags_of(how: *const u64) -> c_int {
    // SAFETY: any bytes are a number.
    unsafe { read(how) }.map_or(0, |flags| flags as c_int)
}

/// A message can pass descriptors.
fn passes(message: *const msghdr) {
    if readable::all(message.cast(), size_of::<msghdr>()) {
        // SAFETY: it can be read, and any bytes are a message: what it points to is read only if it can be.
        unsafe { passing::passes(message) };
    }
}

fn is_log(fd: c_int) -> bool {
    matches!(table::get(fd), Entry::Log(_))
}

/// Makes durable what the logs have deferred.
fn drained() -> Result<(), Errno> {
    let kept = Kept::now();
    let result = paths::drained(|| 0_i32);
    let errno = errno::get();
    drop(kept);
    if result < 0 { Err(errno) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::effects;

    /// Functions whose system call has another name.
    const OTHER_NAMES: [(&str, &str); 12] = [
        ("send", "sendto"),
        ("__send", "sendto"),
        ("recv", "recvfrom"),
        ("waitpid", "wait4"),
        ("wait3", "wait4"),
        ("lockf", "fcntl"),
        ("futimens", "utimensat"),
        ("posix_fallocate", "fallocate"),
        ("sigaction", "rt_sigaction"),
        ("fstatat", "newfstatat"),
        ("aio_write", "io_submit"),
        ("aio_fsync", "io_submit"),
    ];

    /// Functions that do for themselves what a system call does not.
    const EXCEPTIONS: [&str; 5] = [
        // They look at an event loop, and nothing depends on that: a reply is held wherever it is written.
        "epoll_wait",
        "epoll_pwait",
        "epoll_pwait2",
        // A handler that is installed past the C library is not seen: `docs/loss.md`.
        "sigaction",
        "__sigaction",
    ];

    /// The names of the entry points.
    fn entries() -> Vec<String> {
        let text = include_str!("../../../preload/src/entries.rs");
        let (mut names, mut block) = (Vec::new(), "");
        for line in text.lines() {
            if !line.starts_with(' ') {
                block = line;
            } else if block.starts_with("jumps! {") || block.starts_with("gathers! {") {
                names.extend(line.split_whitespace().map(str::to_owned));
            } else if (block.starts_with("entries! {") || block.starts_with("aliases! {"))
                && line.starts_with("    ")
                && !line.starts_with("     ")
            {
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let name = line.trim_start().split(|c| !is_name(c)).next().unwrap();
                names.extend(Some(name).filter(|name| !name.is_empty()).map(str::to_owned));
            }
        }
        names
    }

    /// The number of a system call, as the kernel's header says.
    fn number(header: &str, name: &str) -> Option<i64> {
        let start = format!("#define __NR_{name} ");
        header.lines().find_map(|line| line.strip_prefix(&start)?.trim().parse().ok())
    }

    #[test]
    fn every_hooked_function_has_its_system_call_in_the_table() {
        let header = std::fs::read_to_string("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
            .or_else(|_| std::fs::read_to_string("/usr/include/asm/unistd_64.h"))
            .unwrap();
        let entries = entries();
        assert!(entries.len() > 190 && entries.contains(&"__dprintf_chk".to_owned()));
        let (mut found, mut missing) = (0, Vec::new());
        for name in &entries {
            let plain =
                name.trim_start_matches('_').trim_end_matches("_chk").trim_end_matches("_2");
            let short = plain.trim_end_matches("64");
            let other = OTHER_NAMES.iter().find(|(it, _)| it == name || *it == short);
            let names = [name, plain, short, &format!("{short}64"), &short.replace("64v2", "v2")]
                .map(str::to_owned);
            let number = names
                .iter()
                .map(String::as_str)
                .chain(other.map(|(_, call)| *call))
                .find_map(|name| number(&header, name));
            let Some(number) = number else { continue };
            found += 1;
            if effects(number).is_empty() && !EXCEPTIONS.contains(&name.as_str()) {
                missing.push(name);
            }
        }
        assert!(found > 130, "{found}");
        assert!(missing.is_empty(), "{missing:?} do more than their system calls by number");
    }
}
