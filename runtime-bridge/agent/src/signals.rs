//! Handlers of the application wait while their thread is inside the agent.
//!
//! A handler may call `write`, `fsync` or `_exit`, or never return (`siglongjmp`). Where its thread holds
//! a lock of the agent, none of these could work. So the agent's handler is installed in place of the
//! application's, and one that arrives inside is sent to the thread once more and blocked until it leaves: there
//! nothing is held, and a handler that never returns leaves nothing behind.
//!
//! What the application's handler finds blocked is what the kernel has blocked for it: of a call with a mask of its own
//! (`sigsuspend`, `ppoll`) nobody else knows that mask. So the agent's handler is installed with the application's
//! mask, and blocks the rest itself, first of all: signals that arrive before that run before it, as those that arrive
//! before the first instruction of the application's own.
//!
//! A child of `vfork` has the memory of its parent and handlers of its own. What it installs is installed as it is, and
//! not remembered: it runs as without the agent, until the child becomes another program.
//!
//! A fault (`SIGSEGV` of an instruction) is not delayed. A handler that was installed by the system call
//! itself is not seen: its calls run as without the agent, after what is staged.

use crate::guard;
use crate::local::{Zero, zeroed_thread_local};
use crate::policy;
use crate::readable;
use crate::real;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sys;
use crate::table;
use libc::{c_int, c_void, sigaction, siginfo_t, ucontext_t};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::sync::atomic::compiler_fence;

/// Signals of Linux: 1 to 64.
const SIGNALS: usize = 65;

/// Signals that are never blocked: faults, and those of the C library's own threads (32 and 33).
const OPEN: [c_int; 8] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS, 32, 33];

/// What the application has installed. The kernel has its mask and its other flags.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Wanted {
    handler: usize,
    flags: c_int,
    /// The signal itself is not blocked in the handler: [`libc::SA_NODEFER`], and not in the mask either.
    nests: bool,
}

/// The flags that are kept.
const KEPT: [c_int; 4] = [libc::SA_SIGINFO, libc::SA_RESTART, libc::SA_NODEFER, libc::SA_RESETHAND];

/// Those that the kernel does not get as the application has set them: the agent's handler takes the information, and
/// does the rest itself. One that is delayed must not have been reset.
const OURS: c_int = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_RESETHAND;

/// What is wanted, which changes as one: above the address a bit of each of [`KEPT`], and [`NESTS`].
struct Action(AtomicU64);

/// An address has no more bits than these, but for those that are all as the last one.
const ADDRESS: u32 = NESTS - KEPT.len() as u32;
const NESTS: u32 = u64::BITS - 1;

static ACTIONS: [Action; SIGNALS] = [const { Action(AtomicU64::new(0)) }; SIGNALS];

/// The application has its own handlers again. Written by whoever changes the actions.
static GIVEN_BACK: AtomicBool = AtomicBool::new(false);

// The signals that are blocked until the thread leaves, because one has arrived inside.
zeroed_thread_local! {
    static DEFERRED: Cell<u64>;
}

impl Wanted {
    fn pack(self) -> u64 {
        let flags = KEPT.into_iter().enumerate().filter(|(_, flag)| self.flags & flag != 0);
        let address = self.handler as u64 & !(u64::MAX << ADDRESS);
        let nests = u64::from(self.nests) << NESTS;
        flags.fold(address | nests, |packed, (index, _)| packed | 1 << (ADDRESS as usize + index))
    }

    fn unpack(packed: u64) -> Self {
        let above = u64::BITS - ADDRESS;
        let handler = ((packed << above) as i64 >> above) as usize;
        let flags = KEPT.into_iter().enumerate();
        let flags = flags.filter(|(index, _)| packed >> (ADDRESS as usize + index) & 1 != 0);
        let flags = flags.fold(0, |flags, (_, flag)| flags | flag);
        Self { handler, flags, nests: packed >> NESTS != 0 }
    }

    /// What the application has asked for; none if that is no function, or one at an address that cannot be.
    fn of(signal: c_int, mut action: sigaction) -> Option<Self> {
        let flags = KEPT.into_iter().fold(0, |flags, flag| flags | action.sa_flags & flag);
        // SAFETY: the set is this function's.
        let is_masked = unsafe { *bits(&raw mut action.sa_mask) } & bit(signal) != 0;
        let nests = flags & libc::SA_NODEFER != 0 && !is_masked;
        let wanted = Self { handler: action.sa_sigaction, flags, nests };
        (wanted.is_handler() && Self::unpack(wanted.pack()) == wanted).then_some(wanted)
    }

    fn is_handler(self) -> bool {
        self.handler != libc::SIG_DFL && self.handler != libc::SIG_IGN
    }

    /// What the kernel gets instead of the application's own action.
    fn arriving(mut action: sigaction) -> sigaction {
        action.sa_sigaction = arrival();
        action.sa_flags = action.sa_flags & !OURS | libc::SA_SIGINFO;
        action
    }

    /// What the kernel has, as the application has installed it.
    fn seen(self, mut action: sigaction) -> sigaction {
        if action.sa_sigaction == arrival() {
            action.sa_sigaction = self.handler;
            action.sa_flags = action.sa_flags & !OURS | self.flags & OURS;
        }
        action
    }
}

impl Action {
    fn get(&self) -> Wanted {
        Wanted::unpack(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, wanted: Wanted) {
        self.0.store(wanted.pack(), Ordering::Relaxed);
    }
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
    /// Of these, so many after which a call that waits is not restarted (`SA_RESTART`).
    ending: Cell<u32>,
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

/// How many of the application's handlers have begun on this thread.
#[inline]
pub fn begun() -> u32 {
    HANDLERS.with(|handlers| handlers.begun.get())
}

/// How many of them end a call that waits: those that were installed without `SA_RESTART`.
pub fn ending() -> u32 {
    HANDLERS.with(|handlers| handlers.ending.get())
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
///
/// # Safety
/// The set can be read and written, and nobody else has it.
unsafe fn bits<'a>(set: *mut libc::sigset_t) -> &'a mut u64 {
    // SAFETY: the caller's promise. A set is 128 bytes, of which the kernel uses the first eight.
    unsafe { &mut *set.cast::<u64>() }
}

/// Blocks these signals; returns those that were blocked.
fn block(mask: u64) -> u64 {
    change_mask(libc::SIG_SETMASK, mask)
}

/// The same, as `how` says: `SIG_*` of sigprocmask(2).
fn change_mask(how: c_int, mask: u64) -> u64 {
    let mut before = 0_u64;
    // SAFETY: both are eight bytes, as the last argument says.
    unsafe {
        sys::call(
            libc::SYS_rt_sigprocmask,
            [
                how as usize,
                (&raw const mask).expose_provenance(),
                (&raw mut before).expose_provenance(),
                size_of::<u64>(),
            ],
        )
    };
    before
}

/// What a write can raise: into a pipe without a reader, behind the limit of a file's size, and to a terminal that stops
/// who writes in the background (`stty tostop`).
const RAISED: [c_int; 3] = [libc::SIGPIPE, libc::SIGXFSZ, libc::SIGTTOU];

/// Runs a write of the agent's own, which raises no signal in the program: blocked, `SIGTTOU` is not raised, and the others
/// wait for this thread and are taken back.
pub fn unraised(write: impl FnOnce() -> Result<isize, c_int>) -> Result<isize, c_int> {
    let ours = RAISED.into_iter().fold(0, |set, signal| set | bit(signal));
    let before = change_mask(libc::SIG_BLOCK, ours);
    // What the program has blocked may wait already, and is the program's.
    let waiting = if before & ours == 0 { 0 } else { waiting() };
    let written = write();
    let raised = match written {
        Err(libc::EPIPE) => bit(libc::SIGPIPE),
        Err(libc::EFBIG) => bit(libc::SIGXFSZ),
        _ => 0,
    };
    if raised & !waiting != 0 {
        take(raised);
    }
    change_mask(libc::SIG_UNBLOCK, ours & !before);
    written
}

/// The signals that wait for this thread or the process.
fn waiting() -> u64 {
    let mut set = 0_u64;
    let place = (&raw mut set).expose_provenance();
    // SAFETY: the set has eight bytes, as the last argument says.
    unsafe { sys::call(libc::SYS_rt_sigpending, [place, size_of::<u64>()]) };
    set
}

/// Takes one of these blocked signals, if one waits.
fn take(set: u64) {
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let [set, now] = [(&raw const set).expose_provenance(), (&raw const now).expose_provenance()];
    // SAFETY: the set has eight bytes, as the last argument says, and no information is wanted.
    unsafe { sys::call(libc::SYS_rt_sigtimedwait, [set, 0, now, size_of::<u64>()]) };
}

/// Runs `body` alone among the threads of the process that has the table, with signals blocked.
fn changing<T>(body: impl FnOnce() -> T) -> T {
    let before = block(!0);
    while !table::lock_handlers() {
        std::thread::yield_now();
    }
    let result = body();
    table::unlock_handlers();
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
    // SAFETY: null, or a pointer that the caller vouches for. What it points to may be what `old` does.
    let asked = unsafe { new.as_ref() }.copied();
    let mut replaced = MaybeUninit::<sigaction>::uninit();
    let as_it_is = |replaced: &mut MaybeUninit<sigaction>| {
        let new = asked.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        (real(new, replaced.as_mut_ptr()), action.get())
    };
    let (result, before) = if GIVEN_BACK.load(Ordering::Relaxed) || !table::is_ours() {
        as_it_is(&mut replaced)
    } else {
        changing(|| {
            let given_back = GIVEN_BACK.load(Ordering::Relaxed);
            let wanted = asked.and_then(|asked| Some((asked, Wanted::of(signal, asked)?)));
            let Some((asked, wanted)) = wanted.filter(|_| !given_back) else {
                return as_it_is(&mut replaced);
            };
            let before = action.get();
            // The agent's own, if the application got to know it by a system call of its own: it stands for what is
            // there, and must not be called by itself.
            if wanted.handler != arrival() {
                action.set(wanted);
            }
            let ours = Wanted::arriving(asked);
            let result = real(&raw const ours, replaced.as_mut_ptr());
            if result != 0 {
                action.set(before);
            }
            (result, before)
        })
    };
    if result == 0 && !old.is_null() {
        // SAFETY: the call succeeded and filled it; the caller vouches for `old`.
        unsafe { old.write(before.seen(replaced.assume_init())) };
    }
    result
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

/// Installs the application's own handlers again: the agent makes no system call in them any more, nor in those that come.
pub fn give_back() {
    changing(|| {
        GIVEN_BACK.store(true, Ordering::Relaxed);
        for (signal, action) in ACTIONS.iter().enumerate().skip(1) {
            let signal = signal as c_int;
            let mut current = MaybeUninit::<sigaction>::uninit();
            // SAFETY: only a question; there is room for the result.
            if unsafe { real::SIGACTION.get()(signal, std::ptr::null(), current.as_mut_ptr()) } != 0
            {
                continue;
            }
            // SAFETY: the call succeeded and filled it.
            let current = unsafe { current.assume_init() };
            if current.sa_sigaction != arrival() {
                continue;
            }
            let current = action.get().seen(current);
            // SAFETY: the application has installed this action.
            unsafe { real::SIGACTION.get()(signal, &raw const current, std::ptr::null_mut()) };
        }
    });
}

/// A signal has arrived for which the application has a handler.
unsafe extern "C-unwind" fn arrive(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let blocked = change_mask(libc::SIG_BLOCK, most());
    // SAFETY: the kernel passes a valid pointer.
    let is_fault = OPEN.contains(&signal) && unsafe { (*info).si_code } > 0;
    if guard::is_inside() && !is_fault {
        // It is blocked here, also if it is no signal that the agent blocks.
        send_again(signal, info);
        // SAFETY: the kernel passes a valid context, and takes the mask from it on return.
        let mask = unsafe { bits(&raw mut (*context.cast::<ucontext_t>()).uc_sigmask) };
        let more = (most() | bit(signal)) & !*mask;
        *mask |= more;
        DEFERRED.set(DEFERRED.get() | more);
        return;
    }
    let Some(action) = ACTIONS.get(signal as usize) else { return };
    let wanted = action.get();
    let Wanted { handler, flags, .. } = wanted;
    if !wanted.is_handler() {
        return;
    }
    if flags & libc::SA_RESETHAND != 0 {
        reset(signal, wanted);
    }
    let mark = AtomicU32::new(0);
    // SAFETY: the kernel passes a valid context.
    let (value, around) = HANDLERS.with(|handlers| unsafe {
        handlers.begin((&raw const mark).expose_provenance(), &*context.cast::<ucontext_t>())
    });
    mark.store(value, Ordering::Relaxed);
    if flags & libc::SA_RESTART == 0 {
        HANDLERS.with(|handlers| handlers.ending.set(handlers.ending.get().wrapping_add(1)));
    }
    block(if wanted.nests { blocked & !bit(signal) } else { blocked });
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

/// What the kernel does when it delivers a signal with `SA_RESETHAND`.
#[cold]
fn reset(signal: c_int, wanted: Wanted) {
    let mut current = MaybeUninit::<sigaction>::uninit();
    // SAFETY: only a question; there is room for the result.
    if unsafe { real::SIGACTION.get()(signal, std::ptr::null(), current.as_mut_ptr()) } != 0 {
        return;
    }
    // SAFETY: the call succeeded and filled it.
    let current = unsafe { current.assume_init() };
    // If not, another has been installed meanwhile.
    let action = usize::try_from(signal).ok().and_then(|signal| ACTIONS.get(signal));
    let is_it = action.is_some_and(|action| action.get() == wanted);
    if current.sa_sigaction == arrival() && is_it {
        let default = sigaction { sa_sigaction: libc::SIG_DFL, ..wanted.seen(current) };
        // SAFETY: a valid action; the old one is not asked for.
        unsafe { real::SIGACTION.get()(signal, &raw const default, std::ptr::null_mut()) };
    }
}

/// Sends this signal to the thread, as it has come.
fn send_again(signal: c_int, info: *const siginfo_t) {
    // SAFETY: neither call has preconditions.
    let (process, thread) = unsafe { (libc::getpid(), libc::gettid()) };
    // SAFETY: the information is the kernel's own of this signal.
    unsafe {
        sys::call(
            libc::SYS_rt_tgsigqueueinfo,
            [process as usize, thread as usize, signal as usize, info.expose_provenance()],
        );
    }
}

/// The thread has left: the signals that have waited for it arrive now.
#[inline]
pub fn left() {
    compiler_fence(Ordering::SeqCst);
    if DEFERRED.get() != 0 {
        let _ = change_mask(libc::SIG_UNBLOCK, DEFERRED.replace(0));
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, AtomicU64, KEPT, Wanted};

    /// Also `SIG_ERR`, which a program may have installed.
    #[test]
    fn what_is_wanted_is_kept_as_one() {
        let action = Action(AtomicU64::new(0));
        assert!(!action.get().is_handler());
        for handler in [2, 0x7fff_ffff_fff8, 0x00ff_ffff_ffff_fff8, libc::SIG_ERR] {
            for code in 0..32 {
                let flags =
                    KEPT.into_iter().enumerate().filter(|(index, _)| code >> index & 1 != 0);
                let flags = flags.fold(0, |flags, (_, flag)| flags | flag);
                let wanted = Wanted { handler, flags, nests: code & 16 != 0 };
                action.set(wanted);
                assert!(action.get() == wanted && wanted.is_handler());
            }
        }
    }
}
