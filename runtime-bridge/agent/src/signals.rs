//! Handlers of the application wait while their thread is inside the agent.
//!
//! A handler may call `write`, `fsync` or `_exit`, or never return (`siglongjmp`). Where its thread holds
//! a lock of the agent, none of these could work. So the agent's handler is installed in place of the
//! application's, and one that arrives inside is sent to the thread once more when it leaves: there nothing
//! is held, and a handler that never returns leaves nothing behind.
//!
//! A fault (`SIGSEGV` of an instruction) is not delayed. A handler that was installed by the system call
//! itself is not seen: its calls run as without the agent, after what is staged.

use crate::guard;
use crate::local::{Zero, zeroed_thread_local};
use crate::policy;
use crate::readable;
use crate::real;
use crate::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sys;
use libc::{c_int, c_void, sigaction, siginfo_t, ucontext_t};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::sync::atomic::compiler_fence;

/// Signals of Linux: 1 to 64.
const SIGNALS: usize = 65;

/// Signals that are never blocked: faults, and those of the C library's own threads (32 and 33).
const OPEN: [c_int; 8] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS, 32, 33];

/// What the C library adds to the flags (`arch/x86/include/uapi/asm/signal.h`).
const SA_RESTORER: c_int = 0x0400_0000;

/// What the application has installed.
struct Action {
    handler: AtomicUsize,
    flags: AtomicI32,
    mask: AtomicU64,
}

static ACTIONS: [Action; SIGNALS] = [const {
    Action { handler: AtomicUsize::new(0), flags: AtomicI32::new(0), mask: AtomicU64::new(0) }
}; SIGNALS];

/// One thread at a time changes the actions, with its signals blocked.
static CHANGING: AtomicU32 = AtomicU32::new(0);

/// A signal that waits for its thread to leave.
struct Deferred {
    /// 0 if none does.
    signal: Cell<c_int>,
    info: Cell<MaybeUninit<siginfo_t>>,
    /// The signals that were blocked before.
    mask: Cell<u64>,
}

// SAFETY: no signal, nothing blocked, and bytes of any value.
unsafe impl Zero for Deferred {}

zeroed_thread_local! {
    static DEFERRED: Deferred;
}

/// A handler of the application that runs, told by what lies on its stack. One that has left by a jump never says so, but
/// its stack is used by others then.
#[derive(Clone, Copy)]
struct Frame {
    /// Where the agent's word for it is.
    at: usize,
    /// The lowest address of its stack, if that is an alternate one; else 0.
    low: usize,
    /// Two words that stay as they are while it runs: that of the agent, and one that the kernel has put above it.
    words: [(usize, u32); 2],
}

/// Handlers that are told apart. Of more, only the innermost is known.
const DEPTH: usize = 16;

/// The handlers that run on a thread, the outermost first.
struct Handlers {
    depth: Cell<u32>,
    /// So many have begun.
    begun: Cell<u32>,
    frames: [Cell<Frame>; DEPTH],
}

// SAFETY: none, and frames of numbers.
unsafe impl Zero for Handlers {}

zeroed_thread_local! {
    static HANDLERS: Handlers;
}

/// Where the magic number of the saved registers lies in them (`arch/x86/include/uapi/asm/sigcontext.h`, `_fpx_sw_bytes`).
const REGISTERS_MAGIC: usize = 464;

fn word(address: usize) -> Option<u32> {
    let place = std::ptr::with_exposed_provenance::<u32>(address);
    // SAFETY: it can be read. It may be part of another frame by now: any bytes are a number.
    readable::all(place.cast(), size_of::<u32>()).then(|| unsafe { place.read_volatile() })
}

impl Frame {
    /// Whether it can still run, seen from a call whose frame is at `here`.
    fn is_alive(&self, here: usize) -> bool {
        (self.low..=self.at).contains(&here)
            && self.words.iter().all(|&(address, was)| word(address) == Some(was))
    }
}

impl Handlers {
    fn frame(&self, index: u32) -> Option<&Cell<Frame>> {
        self.frames.get((index as usize).min(DEPTH - 1))
    }

    /// A handler begins, with the agent's word for it there. Returns what the word is, and how many run around it.
    fn begin(&self, at: usize, context: &ucontext_t) -> (u32, u32) {
        let stack = context.uc_stack;
        let bottom = stack.ss_sp.addr();
        let is_alternate = stack.ss_flags & libc::SS_DISABLE == 0
            && (bottom..bottom.saturating_add(stack.ss_size)).contains(&at);
        let low = if is_alternate { bottom } else { 0 };
        // What lies where this one does, or below, on the same stack has left by a jump.
        while let Some(last) = self.depth.get().checked_sub(1).and_then(|last| self.frame(last))
            && last.get().low == low
            && last.get().at <= at
        {
            self.depth.set(self.depth.get() - 1);
        }
        let around = self.depth.get();
        self.begun.set(self.begun.get().wrapping_add(1));
        let own = self.begun.get().wrapping_mul(0x9e37_79b9) ^ at as u32;
        let registers = context.uc_mcontext.fpregs.addr();
        let above = match registers {
            0 => (at, own),
            _ => (registers + REGISTERS_MAGIC, word(registers + REGISTERS_MAGIC).unwrap_or(0)),
        };
        if let Some(frame) = self.frame(around) {
            frame.set(Frame { at, low, words: [(at, own), above] });
        }
        self.depth.set(around + 1);
        (own, around)
    }
}

/// Whether the thread may be in a handler, which can have interrupted the C library anywhere: no thread can be
/// started there.
pub fn may_be_in_handler() -> bool {
    HANDLERS.with(|handlers| handlers.depth.get()) > 0 && is_in_handler()
}

#[cold]
#[inline(never)]
fn is_in_handler() -> bool {
    let here = 0_u8;
    let here = (&raw const here).addr();
    HANDLERS.with(|handlers| {
        while let Some(last) = handlers.depth.get().checked_sub(1) {
            if handlers.frame(last).is_some_and(|frame| frame.get().is_alive(here)) {
                return true;
            }
            handlers.depth.set(last);
        }
        false
    })
}

fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

/// Every signal that can be blocked and is not a fault.
fn most() -> u64 {
    !OPEN.into_iter().fold(0, |set, signal| set | bit(signal))
}

/// The kernel's part of a set: its first 64 bits.
fn bits(set: &libc::sigset_t) -> u64 {
    // SAFETY: a set is 128 bytes, of which the kernel uses the first eight.
    unsafe { std::ptr::from_ref(set).cast::<u64>().read() }
}

fn set_bits(set: &mut libc::sigset_t, bits: u64) {
    // SAFETY: as above.
    unsafe { std::ptr::from_mut(set).cast::<u64>().write(bits) };
}

/// Blocks these signals; returns those that were blocked.
fn block(mask: u64) -> u64 {
    let mut before = 0_u64;
    // SAFETY: both are eight bytes, as the last argument says.
    unsafe {
        sys::call(
            libc::SYS_rt_sigprocmask,
            [
                libc::SIG_SETMASK as usize,
                (&raw const mask).expose_provenance(),
                (&raw mut before).expose_provenance(),
                size_of::<u64>(),
            ],
        )
    };
    before
}

/// Runs `body` alone, with signals blocked.
fn changing<T>(body: impl FnOnce() -> T) -> T {
    let before = block(!0);
    while CHANGING.swap(1, Ordering::Acquire) != 0 {
        std::thread::yield_now();
    }
    let result = body();
    CHANGING.store(0, Ordering::Release);
    block(before);
    result
}

fn arrival() -> usize {
    arrive as *const () as usize
}

/// Installs a handler of the application, and returns the one before.
///
/// # Safety
/// As `sigaction`.
pub unsafe fn install(signal: c_int, new: *const sigaction, old: *mut sigaction) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    let real = |new, old| unsafe { real::SIGACTION.get()(signal, new, old) };
    let Some(action) = usize::try_from(signal).ok().and_then(|index| ACTIONS.get(index)) else {
        return real(new, old);
    };
    if policy::get().is_none() || signal == 0 || OPEN.ends_with(&[signal]) || signal == 32 {
        return real(new, old);
    }
    changing(|| {
        let before = (
            action.handler.load(Ordering::Relaxed),
            action.flags.load(Ordering::Relaxed),
            action.mask.load(Ordering::Relaxed),
        );
        // SAFETY: null, or a pointer that the caller vouches for.
        let wanted = unsafe { new.as_ref() }
            .filter(|new| new.sa_sigaction != libc::SIG_DFL && new.sa_sigaction != libc::SIG_IGN);
        let mut replaced = MaybeUninit::<sigaction>::uninit();
        let result = match wanted {
            Some(wanted) => {
                let mut ours = *wanted;
                ours.sa_sigaction = arrival();
                ours.sa_flags = (ours.sa_flags | libc::SA_SIGINFO) & !libc::SA_RESETHAND;
                set_bits(&mut ours.sa_mask, most());
                action.handler.store(wanted.sa_sigaction, Ordering::Relaxed);
                action.flags.store(wanted.sa_flags, Ordering::Relaxed);
                action.mask.store(bits(&wanted.sa_mask), Ordering::Relaxed);
                let result = real(&raw const ours, replaced.as_mut_ptr());
                if result != 0 {
                    action.handler.store(before.0, Ordering::Relaxed);
                    action.flags.store(before.1, Ordering::Relaxed);
                    action.mask.store(before.2, Ordering::Relaxed);
                }
                result
            }
            None => real(new, replaced.as_mut_ptr()),
        };
        if result == 0 && !old.is_null() {
            // SAFETY: the call succeeded and filled it.
            let mut replaced = unsafe { replaced.assume_init() };
            if replaced.sa_sigaction == arrival() {
                replaced.sa_sigaction = before.0;
                replaced.sa_flags = before.1 | replaced.sa_flags & SA_RESTORER;
                set_bits(&mut replaced.sa_mask, before.2);
            }
            // SAFETY: the caller vouches for it.
            unsafe { old.write(replaced) };
        }
        result
    })
}

/// Takes over the handlers that were installed before the agent started.
pub fn adopt() {
    for signal in 1..SIGNALS as c_int {
        let mut current = MaybeUninit::<sigaction>::uninit();
        // SAFETY: only a question; there is room for the result.
        if unsafe { real::SIGACTION.get()(signal, std::ptr::null(), current.as_mut_ptr()) } != 0 {
            continue;
        }
        // SAFETY: the call succeeded and filled it.
        let current = unsafe { current.assume_init() };
        if current.sa_sigaction != libc::SIG_DFL && current.sa_sigaction != libc::SIG_IGN {
            // SAFETY: the action was installed before, so it is valid.
            unsafe { install(signal, &raw const current, std::ptr::null_mut()) };
        }
    }
}

/// Installs the application's own handlers again: the agent makes no system call in them any more.
pub fn give_back() {
    changing(|| {
        for (signal, action) in ACTIONS.iter().enumerate().skip(1) {
            let signal = signal as c_int;
            let mut current = MaybeUninit::<sigaction>::uninit();
            // SAFETY: only a question; there is room for the result.
            if unsafe { real::SIGACTION.get()(signal, std::ptr::null(), current.as_mut_ptr()) } != 0
            {
                continue;
            }
            // SAFETY: the call succeeded and filled it.
            let mut current = unsafe { current.assume_init() };
            if current.sa_sigaction != arrival() {
                continue;
            }
            current.sa_sigaction = action.handler.load(Ordering::Relaxed);
            current.sa_flags = action.flags.load(Ordering::Relaxed);
            set_bits(&mut current.sa_mask, action.mask.load(Ordering::Relaxed));
            // SAFETY: the application has installed this action.
            unsafe { real::SIGACTION.get()(signal, &raw const current, std::ptr::null_mut()) };
        }
    });
}

/// A signal has arrived for which the application has a handler.
unsafe extern "C-unwind" fn arrive(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes valid pointers.
    let (code, blocked) = unsafe {
        let context = &*context.cast::<ucontext_t>();
        ((*info).si_code, bits(&context.uc_sigmask))
    };
    let is_fault = OPEN.contains(&signal) && code > 0;
    if guard::is_inside() && !is_fault {
        DEFERRED.with(|deferred| {
            // SAFETY: the kernel passes a valid one.
            deferred.info.set(MaybeUninit::new(unsafe { info.read() }));
            deferred.mask.set(blocked);
            deferred.signal.set(signal);
        });
        // No second one can come before the thread leaves.
        // SAFETY: the kernel passes a valid context, and takes the mask from it on return.
        unsafe { set_bits(&mut (*context.cast::<ucontext_t>()).uc_sigmask, blocked | most()) };
        return;
    }
    let Some(action) = ACTIONS.get(signal as usize) else { return };
    let handler = action.handler.load(Ordering::Relaxed);
    let flags = action.flags.load(Ordering::Relaxed);
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        return;
    }
    if flags & libc::SA_RESETHAND != 0 {
        // SAFETY: a zeroed action is the default one.
        let default = unsafe { MaybeUninit::<sigaction>::zeroed().assume_init() };
        // SAFETY: a valid action; the old one is not asked for.
        unsafe { real::SIGACTION.get()(signal, &raw const default, std::ptr::null_mut()) };
    }
    let own = if flags & libc::SA_NODEFER != 0 { 0 } else { bit(signal) };
    let mark = AtomicU32::new(0);
    // SAFETY: the kernel passes a valid context.
    let (value, around) = HANDLERS.with(|handlers| unsafe {
        handlers.begin((&raw const mark).expose_provenance(), &*context.cast::<ucontext_t>())
    });
    mark.store(value, Ordering::Relaxed);
    block(blocked | action.mask.load(Ordering::Relaxed) | own);
    // SAFETY: the application has installed a function of one of these two types, as the flag says.
    crate::hooks::interrupting(|| unsafe {
        if flags & libc::SA_SIGINFO != 0 {
            let handler = std::mem::transmute::<
                usize,
                extern "C-unwind" fn(c_int, *mut siginfo_t, *mut c_void),
            >(handler);
            handler(signal, info, context);
        } else {
            let handler = std::mem::transmute::<usize, extern "C-unwind" fn(c_int)>(handler);
            handler(signal);
        }
    });
    mark.store(0, Ordering::Relaxed);
    HANDLERS.with(|handlers| handlers.depth.set(around));
}

/// The thread has left: the signal that has waited for it arrives now.
#[inline]
pub fn left() {
    compiler_fence(Ordering::SeqCst);
    if DEFERRED.with(|deferred| deferred.signal.get()) != 0 {
        send_deferred();
    }
}

#[cold]
fn send_deferred() {
    let (signal, info, mask) = DEFERRED
        .with(|deferred| (deferred.signal.replace(0), deferred.info.get(), deferred.mask.get()));
    // SAFETY: neither call has preconditions.
    let (process, thread) = unsafe { (libc::getpid(), libc::gettid()) };
    // SAFETY: the information is the kernel's own of this signal. All signals are blocked until `block`
    // below, in which this one arrives.
    unsafe {
        sys::call(
            libc::SYS_rt_tgsigqueueinfo,
            [process as usize, thread as usize, signal as usize, info.as_ptr().expose_provenance()],
        );
    }
    block(mask);
}
