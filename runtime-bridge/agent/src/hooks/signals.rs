//! Calls that install signal handlers.

use crate::errno;
use crate::signals;
use libc::{c_int, sigaction as Action};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// The signals of which `signal` installs handlers that end a call (`siginterrupt`).
static INTERRUPTING: AtomicU64 = AtomicU64::new(0);

/// The signal's bit; 0 if there is no such signal.
fn bit(signal: c_int) -> u64 {
    let index = u32::try_from(signal).ok().and_then(|signal| signal.checked_sub(1));
    index.and_then(|index| 1_u64.checked_shl(index)).unwrap_or(0)
}

/// Installs a handler with these flags, which blocks its signal or nothing, and returns the one before, as `signal` does.
///
/// # Safety
/// As `signal`.
unsafe fn simple(signal: c_int, handler: usize, flags: c_int, blocks: bool) -> usize {
    // SAFETY: any bytes are an action; these are an empty mask and no flags.
    let (mut new, mut old) = unsafe {
        (
            MaybeUninit::<Action>::zeroed().assume_init(),
            MaybeUninit::<Action>::zeroed().assume_init(),
        )
    };
    new.sa_sigaction = handler;
    new.sa_flags = flags;
    if blocks {
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
    ($($name:ident flags $flags:path;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name(signal: c_int, handler: usize) -> usize {
                if handler == libc::SIG_ERR {
                    errno::set(libc::EINVAL);
                    return libc::SIG_ERR;
                }
                let flags = $flags(signal);
                // SAFETY: the caller's arguments, which it vouches for.
                unsafe { simple(signal, handler, flags, flags & libc::SA_NODEFER == 0) }
            }
        )*
    };
}

/// What `signal` installs.
fn restarts(signal: c_int) -> c_int {
    let ends = INTERRUPTING.load(Ordering::Relaxed) & bit(signal) != 0;
    if ends { 0 } else { libc::SA_RESTART }
}

/// What `sysv_signal` installs: once, and without blocking the signal.
fn once(_: c_int) -> c_int {
    libc::SA_RESETHAND | libc::SA_NODEFER
}

handlers! {
    signal flags restarts;
    bsd_signal flags restarts;
    ssignal flags restarts;
    sysv_signal flags once;
    __sysv_signal flags once;
}

/// Hook of `siginterrupt`, which changes the flag of the handler that is there, and of those that `signal` installs.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn siginterrupt(signal: c_int, ends: c_int) -> c_int {
    let mut action = MaybeUninit::<Action>::uninit();
    // SAFETY: only a question; there is room for the result.
    let result = unsafe { signals::install(signal, std::ptr::null(), action.as_mut_ptr()) };
    if result != 0 {
        return result;
    }
    // SAFETY: the call succeeded and filled it.
    let mut action = unsafe { action.assume_init() };
    if ends != 0 {
        INTERRUPTING.fetch_or(bit(signal), Ordering::Relaxed);
        action.sa_flags &= !libc::SA_RESTART;
    } else {
        INTERRUPTING.fetch_and(!bit(signal), Ordering::Relaxed);
        action.sa_flags |= libc::SA_RESTART;
    }
    // SAFETY: it is what the application has installed.
    unsafe { signals::install(signal, &raw const action, std::ptr::null_mut()) }
}

/// Hook of `sigset`, which also takes the signal out of the blocked ones, or puts it there (`SIG_HOLD`).
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn sigset(signal: c_int, handler: usize) -> usize {
    /// `bits/signum-generic.h`.
    const SIG_HOLD: usize = 2;
    // SAFETY: a zeroed set is an empty one.
    let mut set = unsafe { MaybeUninit::<libc::sigset_t>::zeroed().assume_init() };
    let mut blocked = set;
    // SAFETY: the set is valid; an invalid signal is refused.
    if unsafe { libc::sigaddset(&raw mut set, signal) } != 0 {
        return libc::SIG_ERR;
    }
    let holds = handler == SIG_HOLD;
    let before = if holds {
        let mut action = MaybeUninit::<Action>::uninit();
        // SAFETY: only a question; there is room for the result.
        match unsafe { signals::install(signal, std::ptr::null(), action.as_mut_ptr()) } {
            // SAFETY: the call succeeded and filled it.
            0 => unsafe { action.assume_init() }.sa_sigaction,
            _ => return libc::SIG_ERR,
        }
    } else {
        // SAFETY: the caller's arguments.
        match unsafe { simple(signal, handler, 0, false) } {
            libc::SIG_ERR => return libc::SIG_ERR,
            before => before,
        }
    };
    let how = if holds { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    // SAFETY: both sets are valid, and this one has a number for each signal.
    let was_held = unsafe {
        libc::pthread_sigmask(how, &raw const set, &raw mut blocked);
        libc::sigismember(&raw const blocked, signal) == 1
    };
    if was_held { SIG_HOLD } else { before }
}
