//! Calls that start, await and end processes.

use crate::children;
use crate::errno::Kept;
use crate::guard;
use crate::order;
use crate::real;
use crate::table;
use libc::{c_int, id_t, idtype_t, pid_t, rusage, siginfo_t};
use std::arch::naked_asm;

/// Hook of `fork`.
///
/// # Safety
/// As the real function.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fork() -> pid_t {
    // SAFETY: it takes no pointer; what the child may do after it, the caller has to know as without us.
    children::fork(|| unsafe { real::FORK.get()() })
}

/// The application has waited for `pid`, with this status if it asked for it.
///
/// # Safety
/// `status` is null or points to a number that the system has filled if `pid` is positive.
unsafe fn waited(pid: pid_t, status: *const c_int) -> pid_t {
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
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name($($arg: $ty),*) -> pid_t {
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
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn waitid(
    kind: idtype_t,
    id: id_t,
    info: *mut siginfo_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    let result = unsafe { real::WAITID.get()(kind, id, info, flags) };
    if result == 0 && !info.is_null() && flags & libc::WNOWAIT == 0 {
        // SAFETY: the system has filled it; for a child the fields read here are set.
        let (code, pid) = unsafe { ((*info).si_code, (*info).si_pid()) };
        if matches!(code, libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED) {
            children::gone(pid);
        }
    }
    result
}

/// The process may end in the real function: everything acknowledged is made durable first.
fn drain() {
    let Some(registry) = table::registry() else { return };
    let kept = Kept::now();
    if registry.is_ours() {
        // An error cannot be returned by a call that does not return; the log keeps it.
        guard::run(|| order::drain_others(None).is_ok());
    }
    drop(kept);
}

/// The process ends now.
pub(crate) fn leave() {
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
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn _exit(status: c_int) -> ! {
    exit_now(status)
}

/// Hook of `_Exit`.
///
/// # Safety
/// As the real function.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn _Exit(status: c_int) -> ! {
    exit_now(status)
}

fn exit_now(status: c_int) -> ! {
    leave();
    loop {
        // SAFETY: the caller's argument. Neither call returns.
        unsafe {
            real::EXIT_NOW.get()(status);
            libc::syscall(libc::SYS_exit_group, status);
        }
    }
}

/// Hooks that prepare and then jump to the real function with every argument as it came: some take
/// any number of them.
macro_rules! jumps {
    ($first:path: $($name:ident / $real:ident;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the real function.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            pub unsafe extern "C-unwind" fn $name() -> c_int {
                extern "C" fn prepare() -> usize {
                    $first();
                    real::$real.get() as usize
                }
                // Seven pushes and the return address keep the stack aligned for the call.
                naked_asm!(
                    "push rdi", "push rsi", "push rdx", "push rcx", "push r8", "push r9",
                    "push rax",
                    "call {prepare}",
                    "mov r11, rax",
                    "pop rax",
                    "pop r9", "pop r8", "pop rcx", "pop rdx", "pop rsi", "pop rdi",
                    "jmp r11",
                    prepare = sym prepare,
                )
            }
        )*
    };
}

// Another process is about to look at the files.
jumps! { super::seen:
    vfork / VFORK;
    posix_spawn / POSIX_SPAWN;
    posix_spawnp / POSIX_SPAWNP;
    system / SYSTEM;
    popen / POPEN;
}

jumps! { drain:
    execve / EXECVE;
    execv / EXECV;
    execvp / EXECVP;
    execvpe / EXECVPE;
    execl / EXECL;
    execlp / EXECLP;
    execle / EXECLE;
    execveat / EXECVEAT;
    fexecve / FEXECVE;
    daemon / DAEMON;
}
