//! Calls that change what the process may do or shares, and system calls made by number.

use crate::guard;
use crate::off::{self, Off};
use crate::real;
use crate::stage::StageOff;
use crate::table;
use libc::{c_char, c_int, c_long, c_uint, c_ulong};

/// Hook of `prctl`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int {
    if option == libc::PR_SET_SECCOMP {
        off::process(Off::Filter);
    }
    // SAFETY: the caller's arguments, which it vouches for.
    unsafe { real::PRCTL.get()(option, a, b, c, d) }
}

/// Hook of `unshare`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn unshare(flags: c_int) -> c_int {
    if flags & libc::CLONE_FILES != 0 {
        off::process(Off::Descriptors);
    }
    let alone = libc::CLONE_NEWUSER | libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    // SAFETY: the caller's argument.
    let real = || unsafe { real::UNSHARE.get()(flags) };
    if flags & alone != 0 { without_threads(real) } else { real() }
}

macro_rules! limits {
    ($($name:ident / $real:ident($($arg:ident: $ty:ty),*);)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`: what is staged was written under the old limit.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name($($arg: $ty),*) -> c_int {
                super::seen();
                // SAFETY: the caller's arguments, which it vouches for.
                unsafe { real::$real.get()($($arg),*) }
            }
        )*
    };
}

limits! {
    setrlimit / SETRLIMIT(what: c_int, limit: *const libc::rlimit);
    setrlimit64 / SETRLIMIT64(what: c_int, limit: *const libc::rlimit);
    prlimit / PRLIMIT(
        process: libc::pid_t, what: c_int, new: *const libc::rlimit, old: *mut libc::rlimit
    );
    prlimit64 / PRLIMIT64(
        process: libc::pid_t, what: c_int, new: *const libc::rlimit, old: *mut libc::rlimit
    );
}

/// Hook of `setns`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn setns(fd: c_int, kind: c_int) -> c_int {
    // SAFETY: the caller's arguments.
    without_threads(|| unsafe { real::SETNS.get()(fd, kind) })
}

/// A call that the kernel refuses to a process with threads: the agent's end before it.
fn without_threads(real: impl Fn() -> c_int) -> c_int {
    let kept = crate::errno::Kept::now();
    crate::adopt::hurry();
    drop(kept);
    let Some(registry) = table::registry().filter(|registry| registry.is_ours()) else {
        return real();
    };
    let kept = crate::errno::Kept::now();
    guard::run(|| {
        // An error stays in its log.
        let _ = crate::order::drain_others(None);
        registry.dismiss_workers();
    });
    drop(kept);
    let before = crate::errno::get();
    let mut result = real();
    // A thread that has ended counts for a moment longer.
    for _ in 0..100 {
        if result == 0 || crate::errno::get() != libc::EINVAL {
            break;
        }
        crate::clock::pause(std::time::Duration::from_millis(1));
        crate::errno::set(before);
        result = real();
    }
    let kept = crate::errno::Kept::now();
    guard::run(|| registry.recall_workers());
    drop(kept);
    result
}

/// Before a system call that is made by number, through the C library's `syscall`: what is staged is
/// written before a call that could see it, and what the logs have deferred is made durable before one
/// that makes something durable. Returns what to call: the C library's `syscall` with the same arguments, or a
/// function that does beside it what the hook of the same name does.
pub(super) fn by_number(number: c_long, arguments: [usize; 5]) -> usize {
    match number {
        libc::SYS_close
        | libc::SYS_close_range
        | libc::SYS_dup
        | libc::SYS_dup2
        | libc::SYS_dup3
        | libc::SYS_fcntl
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
            if !guard::is_inside() && crate::policy::loaded().is_some() =>
        {
            as_hooked as *const () as usize
        }
        _ if prepare(number, arguments) => counted as *const () as usize,
        libc::SYS_pwritev2 => flagged as *const () as usize,
        _ => real::SYSCALL.get() as usize,
    }
}

/// A system call that gives, copies or takes a descriptor.
///
/// # Safety
/// As the C library's `syscall`.
unsafe extern "C-unwind" fn as_hooked(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    // Not the C library's function of that name, which may be another library's that makes this very call.
    // SAFETY: the caller's arguments, which it vouches for.
    let real = || unsafe { real::SYSCALL.get()(number, a, b, c, d, e, f) as c_int };
    let fd = a as c_int;
    let opens = |dir, path: usize, flags: c_int| {
        super::open::opened(super::open::opening(flags, real), dir, path as *const c_char, flags)
    };
    let result = match number {
        libc::SYS_close if table::is_other(fd) => real(),
        libc::SYS_close => super::files::close_ours(fd, real),
        libc::SYS_close_range => {
            let real = |first: c_uint, last: c_uint| {
                let (first, last) = (first as usize, last as usize);
                // SAFETY: the caller's arguments, or a part of its range.
                unsafe { real::SYSCALL.get()(number, first, last, c, d, e, f) as c_int }
            };
            super::files::close_all(a as c_uint, b as c_uint, c as c_int, real)
        }
        libc::SYS_dup => {
            super::seen_by(fd);
            super::files::copied(fd, real())
        }
        libc::SYS_dup2 => super::files::copy_over(fd, b as c_int, 0, real),
        libc::SYS_dup3 => super::files::copy_over(fd, b as c_int, c as c_int, real),
        libc::SYS_fcntl => {
            super::files::controls(fd, b as c_int, c);
            super::files::controlled(fd, b as c_int, real())
        }
        libc::SYS_open => opens(libc::AT_FDCWD, a, b as c_int),
        libc::SYS_creat => opens(libc::AT_FDCWD, a, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC),
        libc::SYS_openat => opens(fd, b, c as c_int),
        // SAFETY: the caller's argument.
        libc::SYS_openat2 => opens(fd, b, unsafe { flags_of(c as *const u64) }),
        libc::SYS_open_by_handle_at => {
            super::found::copied_unseen(super::open::opening(c as c_int, real))
        }
        libc::SYS_accept | libc::SYS_accept4 => super::sockets::accepted(real()),
        libc::SYS_pidfd_getfd => super::found::copied_unseen(real()),
        libc::SYS_socket => {
            let fd = real();
            super::forget_stale(fd);
            fd
        }
        // SAFETY: the caller's array, which the system has filled if it reports success.
        libc::SYS_pipe | libc::SYS_pipe2 => unsafe {
            super::files::piped(real(), a as *const c_int)
        },
        _ => real(),
    };
    result.into()
}

/// The flags of `openat2`, with which its structure begins; 0 if it cannot be read.
///
/// # Safety
/// If it can be read, nobody takes the memory away.
unsafe fn flags_of(how: *const u64) -> c_int {
    match crate::readable::all(how.cast(), size_of::<u64>()) {
        // SAFETY: it can be read; nothing says that it is aligned.
        true => unsafe { how.read_unaligned() as c_int },
        false => 0,
    }
}

/// A write with flags, which may be durable when it returns: what the logs have deferred comes first.
///
/// # Safety
/// As the C library's `syscall`.
unsafe extern "C-unwind" fn flagged(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let durable = (libc::RWF_DSYNC | libc::RWF_SYNC) as usize;
    if number == libc::SYS_pwritev2 && f & durable != 0 {
        drain();
    }
    // SAFETY: the caller's arguments, which it vouches for.
    unsafe { real::SYSCALL.get()(number, a, b, c, d, e, f) }
}

/// A system call that writes a log: its bytes count, so that replies wait for them.
///
/// # Safety
/// As the C library's `syscall`.
unsafe extern "C-unwind" fn counted(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    // SAFETY: the caller's arguments, which it vouches for.
    let result = unsafe { flagged(number, a, b, c, d, e, f) };
    let to = match number {
        libc::SYS_splice | libc::SYS_copy_file_range => c,
        _ => a,
    };
    let bytes = match number {
        libc::SYS_ftruncate | libc::SYS_fallocate | libc::SYS_ioctl if result == 0 => 1,
        libc::SYS_ioctl => 0,
        _ => u64::try_from(result).unwrap_or(0),
    };
    if bytes > 0
        && let Some(log) = super::log_of(to as c_int).filter(|log| log.registry.is_ours())
    {
        let kept = crate::errno::Kept::now();
        // As a change of the file: no program has seen it.
        log.slot.add_written(bytes - 1);
        guard::run(|| crate::call::after_change(log.slot, Some(log.policy)));
        drop(kept);
    }
    result
}

/// Flags of `sync_file_range` with which it waits.
const WAITS: u32 = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WAIT_AFTER;

/// What comes before any other system call. Returns whether it writes a log.
fn prepare(number: c_long, [a, b, c, d, e]: [usize; 5]) -> bool {
    if number == libc::SYS_exit_group {
        super::leave();
        return false;
    }
    if number == libc::SYS_exit {
        super::thread_ends();
        return false;
    }
    if number == libc::SYS_epoll_ctl {
        super::turn::registers_unseen();
    }
    if guard::is_inside() || table::registry().is_none() && !crate::adopt::is_pending() {
        return false;
    }
    let fd = a as c_int;
    let mut written = None;
    match number {
        libc::SYS_write
        | libc::SYS_writev
        | libc::SYS_pwrite64
        | libc::SYS_pwritev
        | libc::SYS_pwritev2
        | libc::SYS_ftruncate
        | libc::SYS_fallocate => {
            super::seen_by(fd);
            written = super::uncount_by_number(fd, false).then_some(fd);
            super::sockets::let_pass(fd);
            let shortens = number == libc::SYS_ftruncate && super::log_of(fd).is_none();
            if shortens || table::get(fd) == table::Entry::Durable {
                drain();
            }
        }
        libc::SYS_sendto | libc::SYS_sendmsg | libc::SYS_sendmmsg | libc::SYS_shutdown => {
            super::sockets::let_pass(fd);
        }
        // Both end: from the second on.
        libc::SYS_sendfile => {
            written = super::uncount_by_number(fd, false).then_some(fd);
            super::sockets::let_pass(fd);
        }
        libc::SYS_splice => {
            super::sockets::unseen(fd);
            let to = c as c_int;
            written = super::uncount_by_number(to, false).then_some(to);
            super::sockets::let_pass(to);
        }
        libc::SYS_copy_file_range => {
            let to = c as c_int;
            written = super::uncount_by_number(to, false).then_some(to);
        }
        libc::SYS_ioctl => {
            super::seen_by(fd);
            super::observe::controls_device(fd, b);
            written = (!super::observe::is_harmless(b)).then_some(fd);
        }
        libc::SYS_lseek => {
            super::seen();
            let _ = super::uncount_by_number(fd, true);
        }
        libc::SYS_read
        | libc::SYS_readv
        | libc::SYS_pread64
        | libc::SYS_preadv
        | libc::SYS_fstat
        | libc::SYS_statx
        | libc::SYS_newfstatat => {
            super::sockets::unseen(fd);
            super::seen();
        }
        libc::SYS_recvfrom | libc::SYS_recvmsg | libc::SYS_recvmmsg | libc::SYS_preadv2 => {
            super::sockets::unseen(fd);
        }
        libc::SYS_fsync | libc::SYS_fdatasync | libc::SYS_syncfs | libc::SYS_sync => {
            super::seen();
            drain();
        }
        libc::SYS_sync_file_range if d as u32 & WAITS != 0 => {
            super::seen_by(fd);
            drain();
        }
        libc::SYS_msync if c as c_int & libc::MS_SYNC != 0 => drain(),
        libc::SYS_rename
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_unlink
        | libc::SYS_unlinkat
        | libc::SYS_link
        | libc::SYS_linkat
        | libc::SYS_symlink
        | libc::SYS_symlinkat
        | libc::SYS_rmdir
        | libc::SYS_truncate => drain(),
        // A thread shares the memory, and what the agent knows.
        libc::SYS_clone if a & libc::CLONE_VM as usize != 0 => {}
        libc::SYS_fork | libc::SYS_vfork | libc::SYS_clone | libc::SYS_clone3 => {
            revoke_all(StageOff::Forked);
        }
        libc::SYS_execve | libc::SYS_execveat => drain(),
        libc::SYS_mmap => super::mapped(e as c_int, d as c_int),
        libc::SYS_io_uring_setup | libc::SYS_io_submit => revoke_all(StageOff::Aio),
        libc::SYS_seccomp => off::process(Off::Filter),
        libc::SYS_unshare if a & libc::CLONE_FILES as usize != 0 => {
            off::process(Off::Descriptors);
        }
        _ => {}
    }
    written.is_some_and(|fd| matches!(table::get(fd), table::Entry::Log(_)))
}

/// Makes durable what the logs have deferred. An error stays in its log.
pub(super) fn drain() {
    let kept = crate::errno::Kept::now();
    guard::run(|| crate::order::drain_others(None).is_ok());
    drop(kept);
}

fn revoke_all(why: StageOff) {
    if !crate::policy::get().is_some_and(crate::policy::Policy::needs_sole) {
        return;
    }
    let kept = crate::errno::Kept::now();
    guard::run(|| crate::registry::revoke_all(why));
    drop(kept);
}
