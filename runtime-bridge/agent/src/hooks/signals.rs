//! Calls that install signal handlers.

use crate::errno;
use crate::real;
use crate::signals;
use libc::{c_int, sigaction as Action};
use std::mem::MaybeUninit;

macro_rules! actions {
    ($($name:ident;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name(signal: c_int, new: *const Action, old: *mut Action) -> c_int {
                // SAFETY: the caller's arguments, which it vouches for.
                unsafe { signals::install(signal, new, old) }
            }
        )*
    };
}

actions! {
    sigaction;
    __sigaction;
}

/// Installs a handler with these flags, and returns the one before, as `signal` does.
///
/// # Safety
/// As `signal`.
unsafe fn simple(signal: c_int, handler: usize, flags: c_int) -> usize {
    if handler == libc::SIG_ERR {
        errno::set(libc::EINVAL);
        return libc::SIG_ERR;
    }
    // SAFETY: any bytes are an action; these are an empty mask and no flags.
    let (mut new, mut old) = unsafe {
        (
            MaybeUninit::<Action>::zeroed().assume_init(),
            MaybeUninit::<Action>::zeroed().assume_init(),
        )
    };
    new.sa_sigaction = handler;
    new.sa_flags = flags;
    if flags & libc::SA_NODEFER == 0 {
        // SAFETY: the set is valid; an invalid signal is refused below.
        unsafe { libc::sigaddset(&raw mut new.sa_mask, signal) };
    }
    // SAFETY: both actions are valid; the caller vouches for the handler.
    match unsafe { signals::install(signal, &raw const new, &raw mut old) } {
        0 => old.sa_sigaction,
        _ => libc::SIG_ERR,
    }
}

macro_rules! handlers {
    ($($name:ident flags $flags:expr;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name(signal: c_int, handler: usize) -> usize {
                // SAFETY: the caller's arguments, which it vouches for.
                unsafe { simple(signal, handler, $flags) }
            }
        )*
    };
}

/// What `sysv_signal` installs: once, and without blocking the signal.
const ONCE: c_int = libc::SA_RESETHAND | libc::SA_NODEFER;

handlers! {
    signal flags libc::SA_RESTART;
    bsd_signal flags libc::SA_RESTART;
    ssignal flags libc::SA_RESTART;
    sysv_signal flags ONCE;
    __sysv_signal flags ONCE;
}

/// Hook of `sigset`, which also takes the signal out of the blocked ones.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn sigset(signal: c_int, handler: usize) -> usize {
    /// `SIG_HOLD` (`bits/signum-generic.h`).
    const SIG_HOLD: usize = 2;
    if matches!(handler, libc::SIG_DFL | libc::SIG_IGN | SIG_HOLD) || handler == libc::SIG_ERR {
        // SAFETY: the caller's arguments.
        return unsafe { real::SIGSET.get()(signal, handler) };
    }
    // SAFETY: the caller's arguments; a zeroed set has room for the result.
    unsafe {
        let before = simple(signal, handler, 0);
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed().assume_init();
        let mut blocked = set;
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, &raw mut blocked);
        let was_held =
            before != libc::SIG_ERR && libc::sigismember(&raw const blocked, signal) == 1;
        if was_held { SIG_HOLD } else { before }
    }
}
