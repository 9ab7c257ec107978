//! Calls that change what the process may do or shares.

use crate::guard;
use crate::off::{self, Off};
use crate::real;
use crate::stage::StageOff;
use crate::table;
use libc::{c_int, c_ulong};

/// Hook of `prctl`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int {
    controls_process(option);
    // SAFETY: the caller's arguments, which it vouches for.
    unsafe { real::PRCTL.get()(option, a, b, c, d) }
}

/// Before a call of `prctl`.
#[inline]
pub(super) fn controls_process(option: c_int) {
    if option == libc::PR_SET_SECCOMP {
        off::process(Off::Filter);
    }
}

/// Hook of `unshare`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn unshare(flags: c_int) -> c_int {
    // SAFETY: the caller's argument.
    unshared(flags, || unsafe { real::UNSHARE.get()(flags) })
}

/// A call that does that, with `real`.
pub(super) fn unshared(flags: c_int, real: impl Fn() -> c_int) -> c_int {
    if flags & libc::CLONE_FILES != 0 {
        off::process(Off::Descriptors);
    }
    let alone = libc::CLONE_NEWUSER | libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
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
pub(super) fn without_threads(real: impl Fn() -> c_int) -> c_int {
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

/// Makes durable what the logs have deferred. An error stays in its log.
pub(super) fn drain() {
    let kept = crate::errno::Kept::now();
    guard::run(|| crate::order::drain_others(None).is_ok());
    drop(kept);
}

pub(super) fn revoke_all(why: StageOff) {
    if !crate::policy::get().is_some_and(crate::policy::Policy::needs_sole) {
        return;
    }
    let kept = crate::errno::Kept::now();
    guard::run(|| crate::registry::revoke_all(why));
    drop(kept);
}
