//! Calls that change what the process may do or shares, and system calls made by number.

use crate::guard;
use crate::off::{self, Off};
use crate::real;
use crate::stage::StageOff;
use crate::table;
use libc::{c_int, c_long, c_ulong};

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
/// that makes something durable. The call itself runs as it is.
pub(super) fn by_number(number: c_long, [a, b, c, _, e]: [usize; 5]) {
    if number == libc::SYS_exit_group {
        super::leave();
        return;
    }
    if number == libc::SYS_exit {
        super::thread_ends();
        return;
    }
    if number == libc::SYS_epoll_ctl {
        super::turn::registers_unseen();
    }
    if guard::is_inside() || table::registry().is_none() && !crate::adopt::is_pending() {
        return;
    }
    let fd = a as c_int;
    match number {
        libc::SYS_write
        | libc::SYS_writev
        | libc::SYS_pwrite64
        | libc::SYS_pwritev
        | libc::SYS_pwritev2
        | libc::SYS_ftruncate
        | libc::SYS_fallocate => {
            super::seen_by(fd);
            super::uncount_by_number(fd, false);
            super::sockets::let_pass(fd);
            if table::get(fd) == table::Entry::Durable {
                drain();
            }
        }
        libc::SYS_sendto | libc::SYS_sendmsg | libc::SYS_sendmmsg | libc::SYS_shutdown => {
            super::sockets::let_pass(fd);
        }
        // Both end: from the second on.
        libc::SYS_sendfile => {
            super::uncount_by_number(fd, false);
            super::sockets::let_pass(fd);
        }
        libc::SYS_splice => {
            super::sockets::unseen(fd);
            super::uncount_by_number(c as c_int, false);
            super::sockets::let_pass(c as c_int);
        }
        libc::SYS_copy_file_range => super::uncount_by_number(c as c_int, false),
        libc::SYS_ioctl => super::observe::controls_device(fd, b),
        libc::SYS_lseek => {
            super::seen();
            super::uncount_by_number(fd, true);
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
        libc::SYS_msync if c as c_int & libc::MS_SYNC != 0 => drain(),
        libc::SYS_rename
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_unlink
        | libc::SYS_unlinkat
        | libc::SYS_link
        | libc::SYS_linkat
        | libc::SYS_truncate => drain(),
        libc::SYS_open | libc::SYS_openat | libc::SYS_openat2 | libc::SYS_creat => {
            // What it opens is not seen.
            revoke_all(StageOff::OtherOpen);
            let flags = if number == libc::SYS_open { b } else { c } as c_int;
            if number != libc::SYS_openat2 && flags & libc::O_TRUNC != 0 {
                drain();
            }
        }
        // The copy is not seen.
        libc::SYS_dup | libc::SYS_dup2 | libc::SYS_dup3 => super::revoke(fd, StageOff::PassedOn),
        libc::SYS_fcntl if matches!(b as c_int, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) => {
            super::revoke(fd, StageOff::PassedOn);
        }
        libc::SYS_pidfd_getfd => revoke_all(StageOff::PassedOn),
        // A thread shares the memory, and what the agent knows.
        libc::SYS_clone if a & libc::CLONE_VM as usize != 0 => {}
        libc::SYS_fork | libc::SYS_vfork | libc::SYS_clone | libc::SYS_clone3 => {
            revoke_all(StageOff::Forked);
        }
        libc::SYS_execve | libc::SYS_execveat => drain(),
        libc::SYS_mmap => super::mapped(e as c_int),
        libc::SYS_io_uring_setup | libc::SYS_io_submit => revoke_all(StageOff::Aio),
        libc::SYS_seccomp => off::process(Off::Filter),
        libc::SYS_unshare if a & libc::CLONE_FILES as usize != 0 => {
            off::process(Off::Descriptors);
        }
        _ => {}
    }
}

/// Makes durable what the logs have deferred. An error stays in its log.
fn drain() {
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
