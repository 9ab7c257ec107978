//! Calls that start, await and end processes.

use super::returns;
use crate::children;
use crate::errno::Kept;
use crate::family;
use crate::guard;
use crate::off::{self, Off};
use crate::order;
use crate::readable;
use crate::real;
use crate::registry::Registry;
use crate::replies::Replies;
use crate::stage::StageOff;
use crate::table;
use libc::{c_char, c_int, c_long, c_void, id_t, idtype_t, pid_t, rusage, siginfo_t};
use std::sync::OnceLock;

/// Hook of `fork`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn fork() -> pid_t {
    let call = returns::begins();
    returns::forks();
    family::passes_on();
    send_held();
    // SAFETY: it takes no pointer; what the child may do after it, the caller has to know as without us.
    let pid = children::fork(|| unsafe { real::FORK.get()() });
    drop(call);
    begins_as(pid);
    pid
}

/// Hook of `daemon`: the process ends, and a child of it goes on.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn daemon(stays: c_int, keeps: c_int) -> c_int {
    // SAFETY: it takes no pointers.
    let result = becomes(|| unsafe { real::DAEMON.get()(stays, keeps) });
    begins_as(result);
    result
}

/// What `fork` returned: in the child, its parent's logs become its own.
fn begins_as(pid: pid_t) {
    if pid == 0 {
        let kept = Kept::now();
        guard::run(crate::adopt::in_child);
        drop(kept);
    }
}

/// Before any fork. One without a hook (`forkpty`, the one in `daemon`) makes a child that nobody counts.
pub(crate) extern "C" fn before_fork() {
    if returns::is_forking() || table::registry().is_none() || off::is_off() {
        return;
    }
    let kept = Kept::now();
    guard::run(|| crate::registry::revoke_all(StageOff::Forked));
    drop(kept);
    send_held();
}

/// Another process is about to have the connections: what it writes comes behind what is held of them.
fn send_held() {
    let registry = table::registry().filter(|registry| registry.replies.hold());
    if let Some(registry) = registry.filter(|registry| !off::is_off() && registry.is_ours()) {
        let kept = Kept::now();
        guard::run(|| registry.replies.before_child(registry));
        drop(kept);
    }
}

/// Before a system call, made by number, that makes a process or a thread.
pub(super) fn clones_by_number(number: c_long, argument: usize) {
    clones(match number {
        libc::SYS_clone => argument as u64,
        // Its flags are what its structure begins with.
        libc::SYS_clone3 if readable::all(argument as *const c_void, size_of::<u64>()) => {
            // SAFETY: it can be read; nothing says that it is aligned.
            unsafe { (argument as *const u64).read_unaligned() }
        }
        libc::SYS_vfork => (libc::CLONE_VM | libc::CLONE_VFORK) as u64,
        _ => 0,
    });
}

/// Before a process or a thread is made with these flags of `clone`.
fn clones(flags: u64) {
    let has = |flag: c_int| flags & flag as u64 != 0;
    // A child that has this memory must not be the first to say that it is its own.
    table::is_ours();
    match (has(libc::CLONE_VM), has(libc::CLONE_FILES)) {
        // A thread, or as good as one.
        (true, true) => {}
        (false, true) => off::process(Off::Shared),
        (true, false) if has(libc::CLONE_THREAD) => off::process(Off::Descriptors),
        (true, false) => {
            table::share();
            send_held();
        }
        // A child that nobody counts.
        (false, false) => before_fork(),
    }
}

/// A child of `vfork` runs the application's own code until it becomes another program.
fn shares() {
    table::share();
    spawns();
}

/// Another program is started: it inherits the descriptors that are not closed for it.
fn spawns() {
    // As in `clones`.
    table::is_ours();
    super::seen();
    family::passes_on();
    send_held();
    let stages = crate::policy::get().is_some_and(crate::policy::Policy::needs_sole);
    let Some(registry) = table::registry().filter(|registry| stages && registry.is_ours()) else {
        return;
    };
    let kept = Kept::now();
    guard::run(|| {
        for fd in table::ours(0, u32::MAX) {
            // SAFETY: any number may be passed; the command only looks.
            let flags = unsafe { real::FCNTL.get()(fd, libc::F_GETFD, 0) };
            if let table::Entry::Log(index) = table::get(fd)
                && flags >= 0
                && flags & libc::FD_CLOEXEC == 0
                && let Some(slot) = registry.slot(index)
            {
                slot.revoke(StageOff::Forked);
            }
        }
    });
    drop(kept);
}

/// The application has waited for `pid`, with this status if it asked for it.
///
/// # Safety
/// `status` is null or points to a number that the system has filled if `pid` is positive.
pub(super) unsafe fn waited(pid: pid_t, status: *const c_int) -> pid_t {
    if pid > 0 {
        // SAFETY: it is not null, and the system has filled it: the caller promises that for a positive `pid`.
        let status = if status.is_null() { 0 } else { unsafe { status.read() } };
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            children::gone(pid);
        }
    }
    pid
}

macro_rules! waits {
    ($($name:ident / $real:ident($($arg:ident: $ty:ty),*) $status:ident;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name($($arg: $ty),*) -> pid_t {
                // SAFETY: the caller's arguments, which it vouches for.
                unsafe { waited(real::$real.get()($($arg),*), $status) }
            }
        )*
    };
}

waits! {
    wait / WAIT(status: *mut c_int) status;
    wait3 / WAIT3(status: *mut c_int, flags: c_int, usage: *mut rusage) status;
    wait4 / WAIT4(pid: pid_t, status: *mut c_int, flags: c_int, usage: *mut rusage) status;
    waitpid / WAITPID(pid: pid_t, status: *mut c_int, flags: c_int) status;
}

/// Hook of `waitid`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn waitid(kind: idtype_t, id: id_t, info: *mut siginfo_t, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    unsafe { waited_for(real::WAITID.get()(kind, id, info, flags), info, flags) }
}

/// A call like `waitid` has returned.
///
/// # Safety
/// `info` is null or points to a structure that the system has filled if the result is 0.
pub(super) unsafe fn waited_for(result: c_int, info: *const siginfo_t, flags: c_int) -> c_int {
    if result == 0 && !info.is_null() && flags & libc::WNOWAIT == 0 {
        // SAFETY: the system has filled it; for a child the fields read here are set.
        let (code, pid) = unsafe { ((*info).si_code, (*info).si_pid()) };
        if matches!(code, libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED) {
            children::gone(pid);
        }
    }
    result
}

/// The process may end in the real function, or become another program: everything acknowledged is made durable first,
/// and the other threads, which run until then, defer nothing any more.
fn leaves(sends: fn(&Replies, &'static Registry)) {
    family::passes_on();
    // A child of `vfork` leaves alone.
    let Some(registry) = table::registry().filter(|registry| registry.is_ours()) else { return };
    let kept = Kept::now();
    // An error cannot be returned by a call that does not return; the log keeps it.
    guard::run(|| {
        if !returns::has_left() {
            returns::leaves();
            registry.leaves();
        }
        let _ = order::drain_others(None);
        sends(&registry.replies, registry);
    });
    drop(kept);
}

/// A call that may have the process become another program. If it returns, the process goes on.
pub(super) fn becomes<T>(real: impl FnOnce() -> T) -> T {
    let call = returns::begins();
    leaves(Replies::finish);
    let result = real();
    drop(call);
    result
}

/// The same of one that may stop the machine.
pub(super) fn halts<T>(real: impl FnOnce() -> T) -> T {
    let call = returns::begins();
    leaves(Replies::drain);
    let result = real();
    drop(call);
    result
}

/// Everything acknowledged is made durable.
fn drain() {
    if let Some(registry) = table::registry().filter(|registry| registry.is_ours()) {
        let kept = Kept::now();
        guard::run(|| {
            let _ = order::drain_others(None);
            registry.replies.drain(registry);
        });
        drop(kept);
    }
}

macro_rules! becoming {
    ($($name:ident / $real:ident($($arg:ident: $ty:ty),*);)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name($($arg: $ty),*) -> c_int {
                // SAFETY: the caller's arguments, which it vouches for.
                becomes(|| unsafe { real::$real.get()($($arg),*) })
            }
        )*
    };
}

/// An array of strings.
type Strings = *const *const c_char;

becoming! {
    execve / EXECVE(path: *const c_char, arguments: Strings, environment: Strings);
    execv / EXECV(path: *const c_char, arguments: Strings);
    execvp / EXECVP(name: *const c_char, arguments: Strings);
    execvpe / EXECVPE(name: *const c_char, arguments: Strings, environment: Strings);
    execveat / EXECVEAT(
        dir: c_int, path: *const c_char, arguments: Strings, environment: Strings, flags: c_int
    );
    fexecve / FEXECVE(fd: c_int, arguments: Strings, environment: Strings);
}

/// Hook of `reboot`: nobody else gets the connections.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn reboot(how: c_int) -> c_int {
    // SAFETY: the caller's argument, which it vouches for.
    halts(|| unsafe { real::REBOOT.get()(how) })
}

/// Hooks of functions that take the array as single arguments: in the order of an array on the caller's stack, up to the null.
pub mod gathered {
    use super::Strings;
    use libc::{c_char, c_int};

    /// Hook of `execl`.
    ///
    /// # Safety
    /// As `execv`.
    pub unsafe extern "C-unwind" fn execl(path: *const c_char, arguments: Strings) -> c_int {
        // SAFETY: the caller's arguments, which it vouches for.
        unsafe { super::execv(path, arguments) }
    }

    /// Hook of `execlp`.
    ///
    /// # Safety
    /// As `execvp`.
    pub unsafe extern "C-unwind" fn execlp(name: *const c_char, arguments: Strings) -> c_int {
        // SAFETY: the caller's arguments, which it vouches for.
        unsafe { super::execvp(name, arguments) }
    }

    /// Hook of `execle`: behind the null comes the environment.
    ///
    /// # Safety
    /// As `execve`, and a pointer follows the array.
    pub unsafe extern "C-unwind" fn execle(path: *const c_char, arguments: Strings) -> c_int {
        let mut last = arguments;
        // SAFETY: the array ends with a null, and the environment follows it; the caller's arguments, which it vouches for.
        unsafe {
            while !last.read().is_null() {
                last = last.add(1);
            }
            super::execve(path, arguments, last.add(1).read().cast())
        }
    }
}

/// The process ends now.
pub(crate) fn leave() {
    // Under a filter of system calls, none may be made.
    if crate::off::is_off() {
        return;
    }
    if let Some(registry) = table::registry()
        && registry.is_ours()
    {
        guard::run(|| registry.close());
    }
}

/// Hook of `_exit`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn _exit(status: c_int) -> ! {
    exit_now(status)
}

/// Hook of `_Exit`.
///
/// # Safety
/// As the real function.
#[inline]
#[expect(non_snake_case, reason = "the name of the C function")]
pub unsafe fn _Exit(status: c_int) -> ! {
    exit_now(status)
}

/// Hook of `pthread_exit`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn pthread_exit(value: *mut c_void) -> ! {
    thread_ends();
    // SAFETY: the caller's argument. The call does not return.
    unsafe { real::PTHREAD_EXIT.get()(value) };
    exit_now(0)
}

/// Hook of `thrd_exit`.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn thrd_exit(value: c_int) -> ! {
    thread_ends();
    // SAFETY: the caller's argument. The call does not return.
    unsafe { real::THRD_EXIT.get()(value) };
    exit_now(0)
}

/// Has [`thread_ends`] run when the main thread is cancelled, too: the C library then calls the destructor of a
/// key of the thread's own, and no function that has a hook.
pub(crate) extern "C" fn watch_main_thread() {
    extern "C" fn destroy(_: *mut c_void) {
        thread_ends();
    }
    static KEY: OnceLock<libc::pthread_key_t> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let mut key = libc::pthread_key_t::MAX;
        // SAFETY: there is room for the key. Without one, the next call fails, and so does nothing.
        unsafe { libc::pthread_key_create(&mut key, Some(destroy)) };
        key
    });
    // SAFETY: the value is not dereferenced. It is stored in the thread itself: the key is one of the first.
    unsafe { libc::pthread_setspecific(*key, std::ptr::dangling::<u8>().cast()) };
}

/// The main thread ends alone, and with the last other one the process does. The agent's threads would
/// keep it alive for ever, so they end too, and nothing is deferred any more.
pub(super) fn thread_ends() {
    // SAFETY: neither call has preconditions.
    if unsafe { libc::gettid() != libc::getpid() } {
        return;
    }
    leave();
    if let Some(registry) = table::registry().filter(|registry| registry.is_ours()) {
        guard::run(|| registry.dismiss_workers());
    }
}

fn exit_now(status: c_int) -> ! {
    leave();
    loop {
        // SAFETY: the caller's argument. Neither call returns.
        unsafe {
            real::EXIT_NOW.get()(status);
            crate::sys::call(libc::SYS_exit_group, [status as usize]);
        }
    }
}

/// What the hooks of functions do that take any number of arguments: they prepare, and return the real
/// function, to which their caller jumps.
macro_rules! preparations {
    ($first:path: $($name:ident / $real:ident;)*) => {
        $(
            #[doc = concat!("Before `", stringify!($name), "`.")]
            #[allow(non_snake_case, reason = "the names of C functions")]
            pub extern "C" fn $name() -> usize {
                $first();
                real::$real.get() as usize
            }
        )*
    };
}

/// What comes before functions of any number of arguments. Each returns the address of the real one.
pub mod before {
    use super::super::{by_number, formats, seen};
    use super::{before_fork, drain, real, shares, spawns};
    use libc::{c_int, c_long};

    /// Before `syscall`.
    pub extern "C" fn syscall(
        number: c_long,
        a: usize,
        b: usize,
        c: usize,
        d: usize,
        e: usize,
    ) -> usize {
        by_number::by_number(number, [a, b, c, d, e])
    }

    macro_rules! formatting {
        ($($name:ident / $real:ident;)*) => {
            $(
                #[doc = concat!("Before `", stringify!($name), "`.")]
                pub extern "C" fn $name(fd: c_int) -> usize {
                    formats(fd);
                    real::$real.get() as usize
                }
            )*
        };
    }

    formatting! {
        dprintf / DPRINTF;
        vdprintf / VDPRINTF;
        __dprintf_chk / DPRINTF_CHK;
        __vdprintf_chk / VDPRINTF_CHK;
    }

    // Another process is about to look at the files.
    preparations! { shares:
        vfork / VFORK;
        __vfork / VFORK;
    }

    preparations! { spawns:
        posix_spawn / POSIX_SPAWN;
        posix_spawnp / POSIX_SPAWNP;
        system / SYSTEM;
        popen / POPEN;
        wordexp / WORDEXP;
    }

    // Sizes and times are about to be read or set, or a limit of the size.
    preparations! { seen:
        utime / UTIME;
        utimes / UTIMES;
        utimensat / UTIMENSAT;
        futimes / FUTIMES;
        lutimes / LUTIMES;
        futimesat / FUTIMESAT;
        ulimit / ULIMIT;
        ftw / FTW;
        ftw64 / FTW64;
        nftw / NFTW;
        nftw64 / NFTW64;
        fts_open / FTS_OPEN;
        fts_read / FTS_READ;
        fts64_open / FTS64_OPEN;
        fts64_read / FTS64_READ;
    }

    // A child that nobody counts.
    preparations! { before_fork:
        _Fork / FORK_BARE;
    }

    /// Before `clone`.
    pub extern "C" fn clone(_: usize, _: usize, flags: c_int) -> usize {
        super::clones(flags as u64);
        real::CLONE.get() as usize
    }
    pub use clone as __clone;

    preparations! { drain:
        fcloseall / FCLOSEALL;
    }
}
